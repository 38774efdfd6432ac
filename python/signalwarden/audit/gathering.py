"""From the files of a log to the report's document: one pass over every record of the period."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from signalwarden.audit.gathered import Gathered, Integrity
from signalwarden.audit.report import build
from signalwarden.decision_log.integrity import verify
from signalwarden.decision_log.integrity.log_keys import log_name, public_keys
from signalwarden.errors import BadInputError, KeysError, LogError
from signalwarden.log_reading.records import Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from signalwarden.audit.controls import Framework
    from signalwarden.audit.ground import Ground

__all__ = ["as_json", "asks_for_integrity", "integrity_of", "reported", "size_of"]


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
    integrity: Integrity | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """The document, and a sentence for each kind of line that was no record. Raises LogError for a file that is no
    log."""
    reader, gathered = Reader(files, progress), Gathered()
    gathered.integrity = integrity
    for entry in reader.entries():
        if want(entry.record):
            gathered.add(entry)
    named = [str(file) for file in files]
    document = build(ground, gathered, reader.faults, frameworks, since=since, until=until, files=named)
    return document, list(reader.faults.sentences())


def asks_for_integrity(frameworks: Sequence[Framework]) -> bool:
    """Whether one of these controls wants the log held against its tree, which reads it once more."""
    return any("log_integrity" in control.queries for one in frameworks for control in one.controls)


def integrity_of(ground: Ground, progress: Callable[[int], None] = lambda _read: None) -> Integrity:
    """Holds the log of the directory against its signed tree. Never raises: what can't be held is said."""
    settings, path = ground.settings, ground.log_path
    keys, name = settings.keys_path(ground.loaded.root) / "log", log_name(settings.trust_domain, path)
    try:
        given = public_keys(keys, name)
        if not given:
            return Integrity(why_not="there is no key of the log")
        found = verify.verify(
            path, name=name, given=given, older=verify.claims_of(keys, name), progress=progress
        )
    except (LogError, BadInputError, KeysError) as error:
        return Integrity(why_not=str(error))
    first = None
    if found.findings:
        one = found.findings[0]
        first = one.message, f"{one.file}:{one.line}" if one.line else one.file
    return Integrity(
        sum(tree.agreed for tree in found.trees),
        sum(tree.unsealed for tree in found.trees),
        len(found.findings) + found.more,
        first,
    )


def as_json(document: dict[str, Any]) -> str:
    """For programs."""
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()
