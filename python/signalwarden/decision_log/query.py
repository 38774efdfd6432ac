"""Which decisions a reader of the admin API wants, and the log asked for them: newest first, or on from a record."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import orjson

from signalwarden.decision_log.bookmark import DISORDER, Bookmark
from signalwarden.decision_log.heads import Head, head_of, written

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Found", "Query", "newest", "onwards"]

MAX_SCANNED_BYTES: Final = 64 << 20
"""Of one call: some 40,000 records, a fraction of a second. What lies behind is asked for from there on."""
MAX_ANSWER_BYTES: Final = 8 << 20
READ_BYTES: Final = 1 << 20
OUTCOMES: Final = ("allow", "deny")


@dataclass(frozen=True, slots=True)
class Query:
    """What a decision must be; what is not named may be anything."""

    outcome: str | None = None
    reason: str | None = None
    principal: str | None = None
    action: str | None = None
    """Both: as they stand, or with `*` at the end the beginning."""
    since: datetime | None = None

    def wants(self, line: bytes) -> Head | None:
        """The head of a decision that is wanted; None else. A line that is no record is none that is wanted."""
        head = head_of(line)
        if head is None or head.kind != "decision":
            return None
        if self.outcome is not None and head.outcome != self.outcome:
            return None
        if self.reason is not None and head.reason != self.reason:
            return None
        if self.since is not None and head.time < written(self.since):
            return None
        if self.principal is None and self.action is None:
            return head
        return head if self._names(line) else None

    def _names(self, line: bytes) -> bool:
        # Most lines are told apart without being read: names are ASCII that JSON writes as it is.
        for asked in (self.principal, self.action):
            if asked is not None and asked.rstrip("*").encode() not in line:
                return False
        try:
            record: dict[str, Any] = orjson.loads(line)
        except orjson.JSONDecodeError:
            return False
        return _is(self.principal, record.get("principal"), "id") and _is(
            self.action, record.get("request"), "action"
        )


def _is(asked: str | None, part: object, key: str) -> bool:
    if asked is None:
        return True
    said = part.get(key) if isinstance(part, Mapping) else None
    if not isinstance(said, str):
        return False
    return said.startswith(asked[:-1]) if asked.endswith("*") else said == asked


@dataclass(frozen=True, slots=True)
class Found:
    """What one call found."""

    lines: list[bytes]
    truncated: bool
    """There may be more: the limit was reached, or as much as one call reads."""
    last: str | None = None
    """Of a call that went onwards: the last record that was looked at, wanted or not."""


def newest(path: Path, query: Query, limit: int) -> Found:
    """The newest wanted decisions, the newest first. Raises LogError."""
    search = _Newest(query, limit)
    with Bookmark(path) as place:
        for lines, in_order in place.backwards():
            ended = search.through(lines) if in_order else search.back(lines)
            if ended or search.is_full():
                return Found(search.found, truncated=search.is_full())
    return Found(search.found, truncated=False)


class _Newest:
    """What was found so far, and whether it is enough."""

    def __init__(self, query: Query, limit: int) -> None:
        self._query = query
        self._limit = limit
        self._floor = None if query.since is None else written(query.since - DISORDER)
        self._scanned = 0
        self._size = 0
        self.found: list[bytes] = []

    def is_full(self) -> bool:
        """The limit is reached, or as much as one call reads."""
        return (
            len(self.found) >= self._limit
            or self._size > MAX_ANSWER_BYTES
            or self._scanned > MAX_SCANNED_BYTES
        )

    def back(self, lines: Iterable[bytes]) -> bool:
        """The newest line first; True: what comes now is older than what is asked for."""
        for line in lines:
            self._scanned += len(line) + 1
            if self._query.wants(line) is not None:
                self._add(line)
            elif self._floor is not None and (head := head_of(line)) and head.time < self._floor:
                return True
            if self.is_full():
                return False
        return False

    def through(self, lines: Iterable[bytes]) -> bool:
        """A packed file, the oldest line first: it has to be read to its end, whatever was asked for."""
        wanted: deque[bytes] = deque(maxlen=self._limit - len(self.found))
        oldest: Head | None = None
        for raw in lines:
            line = raw.rstrip(b"\n")
            self._scanned += len(line) + 1
            oldest = oldest or head_of(line)
            if self._query.wants(line) is not None:
                wanted.append(line)
        for line in reversed(wanted):
            self._add(line)
        return self._floor is not None and oldest is not None and oldest.time < self._floor

    def _add(self, line: bytes) -> None:
        self.found.append(line)
        self._size += len(line)


def onwards(place: Bookmark, query: Query, limit: int) -> Found:
    """The wanted decisions from a place on, in the order in which they were written. Raises LogError."""
    found: list[bytes] = []
    scanned = size = 0
    last: str | None = None
    while lines := place.take(READ_BYTES):
        for line in lines[:-1].split(b"\n"):
            scanned += len(line) + 1
            head = query.wants(line)
            if head is not None:
                found.append(line)
                size += len(line)
                last = head.id
                if len(found) >= limit or size > MAX_ANSWER_BYTES:
                    return Found(found, truncated=True, last=last)
            elif (other := head_of(line)) is not None:
                last = other.id
        if scanned > MAX_SCANNED_BYTES:
            return Found(found, truncated=True, last=last)
    return Found(found, truncated=False, last=last)
