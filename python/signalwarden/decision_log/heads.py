"""What a line of the log begins with: told without reading the rest, since most questions about a line end there."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final, NamedTuple

import orjson

__all__ = ["Head", "head_of", "time_of_id", "written"]

_HEAD: Final = re.compile(
    rb'\{"v":\d+,"kind":"([a-z]+)","(?:decision|change|event)_id":"([0-9a-f-]{36})","time":"([0-9TZ:.+-]{20,32})"'
    rb'(?:,"outcome":"([a-z]+)","reason":"([a-z_]+)")?'
)
_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


class Head(NamedTuple):
    """What a line begins with: enough for most questions, so that most lines are not read any further."""

    kind: str
    id: str
    time: str
    """As it is written: times compare as text."""
    outcome: str = ""
    reason: str = ""


def head_of(line: bytes) -> Head | None:
    """None for a line that is no record."""
    found = _HEAD.match(line)
    if found is not None:
        return Head(*((part or b"").decode() for part in found.groups()))
    try:  # its keys may stand in another order, in another version
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(record, dict):
        return None
    ids = (record.get(key) for key in ("decision_id", "change_id", "event_id"))
    parts = (
        record.get("kind"),
        next((each for each in ids if each), None),
        *(record.get(key, "") for key in ("time", "outcome", "reason")),
    )
    return Head(*map(str, parts)) if all(isinstance(part, str) for part in parts) else None


def time_of_id(record_id: str) -> datetime | None:
    """When a record was made, by its UUID (version 7); None for what is no such id."""
    if _ID.fullmatch(record_id) is None:
        return None
    try:
        return datetime.fromtimestamp(int(record_id.replace("-", "")[:12], 16) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def written(moment: datetime) -> str:
    """A time as records write it."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"
