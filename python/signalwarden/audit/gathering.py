"""From the files of a log to the report's document: one pass over every record of the period."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from signalwarden.audit.gathered import Gathered
from signalwarden.audit.report import build
from signalwarden.log_reading.records import Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from signalwarden.audit.controls import Framework
    from signalwarden.audit.ground import Ground

__all__ = ["as_json", "reported", "size_of"]


def size_of(files: Sequence[Path]) -> int:
    """Bytes to be read, as `progress` is told of them."""
    return Reader(files).size


def reported(
    ground: Ground,
    files: Sequence[Path],
    frameworks: Sequence[Framework],
    *,
    want: Callable[[dict[str, Any]], bool],
    since: str | None = None,
    until: str | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[dict[str, Any], list[str]]:
    """The document, and a sentence for each kind of line that was no record. Raises LogError for a file that is no
    log."""
    reader, gathered = Reader(files, progress), Gathered()
    for entry in reader.entries():
        if want(entry.record):
            gathered.add(entry)
    named = [str(file) for file in files]
    document = build(ground, gathered, reader.faults, frameworks, since=since, until=until, files=named)
    return document, list(reader.faults.sentences())


def as_json(document: dict[str, Any]) -> str:
    """For programs."""
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()
