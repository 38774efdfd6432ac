"""`log export`: the decision log in the words of others, once, from its files."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from signalwarden.cli.options import HERE, ConfigOption, settings_of
from signalwarden.errors import BadInputError
from signalwarden.saying import count, say

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["add"]


class Format(StrEnum):
    """What the export is written in."""

    JSONL = "jsonl"
    OPA = "opa"
    OCSF = "ocsf"


def add(group: typer.Typer) -> None:
    """Adds the verb to those of the log."""
    group.command("export")(export)


def export(
    format_: Annotated[
        Format,
        typer.Option(
            "--format",
            help="`jsonl`: as it stands; `opa`: events of OPA's decision log; `ocsf`: API Activity.",
        ),
    ] = Format.JSONL,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="SPAN|TIME", help="From `10m` ago on, or from an RFC 3339 time."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="A new file, for its owner alone; else standard output."
        ),
    ] = None,
    config: ConfigOption = HERE,
) -> None:
    """Write the decision log for another system, one JSON object a line, oldest first.

    Reads the files of the directory, compressed ones too; needs no token and no running server. `opa` and `ocsf` have
    words for decisions alone.

    Example: `signalwarden log export --format ocsf --since 24h > decisions.ocsf.jsonl`
    """
    import orjson

    from signalwarden.decision_log import records_of
    from signalwarden.decision_log.shipping.destination import Entry
    from signalwarden.decision_log.shipping.formats import FORMATS
    from signalwarden.log_reading.filters import Filters

    path = settings_of(config).log_path(config)
    begin, encode = Filters(since=since).since_text(), FORMATS[format_]
    bad: list[str] = []
    bad_count = 0
    with _opened(output) as out:
        for line in records_of(path, half_lines=True):
            try:
                record: Any = orjson.loads(line.raw)
            except orjson.JSONDecodeError:
                record = None
            if not isinstance(record, dict):
                bad_count += 1
                bad = bad or [f"{line.file}:{line.number}"]
                continue
            if begin is not None and str(record.get("time")) < begin:
                continue
            event = encode(Entry(line.raw, record))
            if event is not None:
                out.write(event + b"\n")
    if bad_count:
        verb = "is no record and was" if bad_count == 1 else "are no records and were"
        say(f"{count(bad_count, 'line')} {verb} left out, the first at `{bad[0]}`")


@contextmanager
def _opened(output: Path | None) -> Iterator[BinaryIO]:
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        file = os.fdopen(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")
    except OSError as error:
        raise BadInputError(f"`{output}` can't be made: {(error.strerror or str(error)).lower()}") from error
    with file:
        yield file
