"""Decisions of a running server, read from the files of its log: listed, shown by id, and followed as they are written.

A follower reads the file at its own pace, so nothing is held for it: the bounds here are on how many follow, how much
of the log one look takes, and how far behind one may fall that has been at the end already.
"""

from __future__ import annotations

import re
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import orjson

from signalwarden import _core, values
from signalwarden.decision_log.bookmark import Bookmark
from signalwarden.decision_log.heads import head_of, time_of_id
from signalwarden.decision_log.query import OUTCOMES, Query, newest, onwards
from signalwarden.errors import BadInputError, CallRefusedError
from signalwarden.values import one_of, span_s, suggestion

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["MAX_STREAMS", "Decisions", "Looked", "Stream"]

MAX_STREAMS: Final = 16
"""Each costs a look at the file four times a second; more people than that look at a dashboard instead."""
READ_BYTES: Final = 128 * 1024
"""Of the log at one look, and so held for a client at most: half a second of 200 records a second. At four looks a
second and more while it is behind, a follower keeps up with whatever one server writes."""
MAX_BEHIND_BYTES: Final = 8 << 20
"""How far a follower may fall behind that was at the end: some 5,000 records. It may come again with the last id."""
_NAME: Final = re.compile(r"[!-~]{1,2048}")


class Looked(NamedTuple):
    """What one look of a stream found."""

    records: list[tuple[str, bytes]]
    """Ids and lines."""
    last: str | None
    """The last record that was looked at, wanted or not: where to go on from."""
    missed: bool
    """Something between the last look and this one was deleted before it was read."""
    at_end: bool
    too_slow: bool


class Stream:
    """The log as one client follows it. Used by one thread at a time; close it."""

    def __init__(self, place: Bookmark, query: Query, closed: Callable[[Stream], None], *, gap: bool) -> None:
        self._place = place
        self._query = query
        self._closed = closed
        self._was_at_end = False
        self._gap = gap
        self.ended = threading.Event()
        """Set when the server stops."""

    def look(self) -> Looked:
        """What came since the last look, so much of it at most. Raises LogError."""
        lines = self._place.take(READ_BYTES)
        records: list[tuple[str, bytes]] = []
        last: str | None = None
        for line in lines[:-1].split(b"\n") if lines else ():
            head = self._query.wants(line)
            if head is not None:
                records.append((head.id, line))
            if (any_head := head or head_of(line)) is not None:
                last = any_head.id
        missed, self._gap, self._place.missed = self._gap or self._place.missed, False, False
        at_end = not lines
        self._was_at_end = self._was_at_end or at_end
        too_slow = self._was_at_end and not at_end and self._place.behind() > MAX_BEHIND_BYTES
        return Looked(records, last, missed, at_end, too_slow)

    def close(self) -> None:
        """Gives the place back."""
        self._place.close()
        self._closed(self)


class Decisions:
    """What the admin door tells of decisions. Every method may be called from any thread."""

    def __init__(self, path: Callable[[], Path]) -> None:
        """`path`: of the log's current file."""
        self._path = path
        self._mutex = threading.Lock()
        self._streams: set[Stream] = set()
        self._beginning = 0
        self._stopped = False
        self._ended_slow = 0

    def listing(self, filters: Mapping[str, str], after: str | None, limit: int) -> bytes:
        """See services.Decisions."""
        query = query_of(filters, datetime.now(UTC))
        if after is None:
            found = newest(self._path(), query, limit)
            rest: dict[str, object] = {"count": len(found.lines), "truncated": found.truncated}
        else:
            with self._after(after) as place:
                found = onwards(place, query, limit)
            rest = {"count": len(found.lines), "truncated": found.truncated, "next": found.last or after}
        # The records go out as they were written.
        return b'{"decisions":[' + b",".join(found.lines) + b"]," + orjson.dumps(rest)[1:]

    def show(self, decision_id: str) -> bytes:
        """See services.Decisions."""
        line = Bookmark.find(self._path(), _checked(decision_id))
        head = head_of(line) if line is not None else None
        if line is None or head is None or head.kind != "decision":
            raise _unknown()
        return line

    def follow(self, filters: Mapping[str, str], after: str | None) -> Stream:
        """See services.Decisions."""
        now = datetime.now(UTC)
        query = query_of(filters, now)
        made = time_of_id(_checked(after)) if after is not None else None
        with self._mutex:
            if self._stopped or len(self._streams) + self._beginning >= MAX_STREAMS:
                raise CallRefusedError("too_many_streams", f"{len(self._streams)} streams are open already")
            self._beginning += 1
        # To find a place may take a while, and others are not to wait for it.
        stream: Stream | None = None
        try:
            place, gap = self._begin(query, after, made)
            stream = Stream(place, query, self._let_go, gap=gap)
        finally:
            self._begun(stream)
        return stream

    def _begun(self, stream: Stream | None) -> None:
        with self._mutex:
            self._beginning -= 1
            if stream is not None:
                self._streams.add(stream)
                if self._stopped:
                    stream.ended.set()

    def _begin(self, query: Query, after: str | None, made: datetime | None) -> tuple[Bookmark, bool]:
        """Where a stream begins, and whether something is missing before that."""
        path = self._path()
        if after is not None and made is not None:
            behind = Bookmark.after(path, after)
            # What is not kept any more was the oldest: from what there is of its time on.
            return (behind, False) if behind is not None else (Bookmark.since(path, made), True)
        if query.since is not None:
            return Bookmark.since(path, query.since), False
        return Bookmark(path), False

    def _after(self, record_id: str) -> Bookmark:
        place = Bookmark.after(self._path(), _checked(record_id))
        if place is None:
            raise _unknown()
        return place

    def _let_go(self, stream: Stream) -> None:
        with self._mutex:
            self._streams.discard(stream)

    def count_slow(self) -> None:
        """A stream was ended since its client did not keep up."""
        with self._mutex:
            self._ended_slow += 1

    def stop(self) -> None:
        """Ends every stream, and begins no other."""
        with self._mutex:
            self._stopped = True
            for stream in self._streams:
                stream.ended.set()

    def numbers(self) -> Mapping[str, float]:
        """For metrics."""
        with self._mutex:
            return {"decision_streams": len(self._streams), "decision_streams_slow": self._ended_slow}


def _unknown() -> CallRefusedError:
    return CallRefusedError("decision_unknown", "no record of this id is kept, or none yet")


def _checked(record_id: str) -> str:
    if time_of_id(record_id) is None:
        raise BadInputError("expected the id of a record, a UUID of version 7")
    return record_id


# ---- what is asked for ----------------------------------------------------------------------------------


def query_of(filters: Mapping[str, str], now: datetime) -> Query:
    """What a call asks for. Raises BadInputError: what means nothing must not silently mean "all"."""
    outcome, reason = filters.get("outcome"), filters.get("reason")
    if outcome is not None and outcome not in OUTCOMES:
        raise BadInputError(f"`outcome`: expected {one_of(OUTCOMES)}")
    if reason is not None:
        codes = [code for code, *_ in _core.reasons()]
        if reason not in codes:
            near = suggestion(reason, codes) if len(reason) < 64 else ""
            raise BadInputError(f"`reason`: expected the code of a reason{near}")
    for key in ("principal", "action"):
        if key in filters and _NAME.fullmatch(filters[key]) is None:
            raise BadInputError(f"`{key}`: expected a name, or its beginning and `*`")
    since = filters.get("since")
    return Query(
        outcome=outcome,
        reason=reason,
        principal=filters.get("principal"),
        action=filters.get("action"),
        since=None if since is None else moment(since, now),
    )


def moment(text: str, now: datetime) -> datetime:
    """A time, or how long ago: `2026-11-24T10:00:00Z`, `10m`. Raises BadInputError."""
    found = values.moment(text, now, span_s)
    if found is None:
        raise BadInputError(
            "`since`: expected a span such as `10m`, or an RFC 3339 time such as `2026-11-24T10:00:00Z`"
        )
    return found
