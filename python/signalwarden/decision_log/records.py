"""Change and transport records: what the log says beside decisions, which the core writes itself."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "RECORD_VERSION",
    "Notes",
    "Recorder",
    "change_record",
    "now_us",
    "rfc3339",
    "transport_record",
    "uuid7",
]

RECORD_VERSION: Final = 1
MAX_WAITING: Final = 1_024
"""Records that wait here while the log is full: they are few, a flood of them is a fault."""


class Notes(Protocol):
    """The part of the engine that takes ready records."""

    def note(self, line: bytes) -> bool:
        """Offers a JSON object to the log; False if it is full."""


def now_us() -> int:
    """The time of day in microseconds."""
    return time.time_ns() // 1_000


def rfc3339(micros: int) -> str:
    """A time as it stands in a record: UTC, microseconds."""
    moment = datetime.fromtimestamp(micros // 1_000_000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{micros % 1_000_000:06d}Z"


def uuid7(micros: int, random: bytes | None = None) -> str:
    """UUIDv7 (RFC 9562, section 5.7): milliseconds, then their fraction (section 6.2, method 3), then random bits."""
    millis, fraction = divmod(micros, 1_000)
    noise = int.from_bytes(os.urandom(8) if random is None else random[:8], "big") & ((1 << 62) - 1)
    value = (
        (millis & ((1 << 48) - 1)) << 80 | 0x7 << 76 | (fraction * 4096 // 1000) << 64 | 0b10 << 62 | noise
    )
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def change_record(change: str, *, at_us: int, **fields: Any) -> bytes:
    """`{"v", "kind": "change", "change_id", "time", "change", …}`: what changed, and in `actor` who caused it."""
    return _record("change", "change_id", change, at_us, fields)


def transport_record(event: str, *, at_us: int, **fields: Any) -> bytes:
    """`{"v", "kind": "transport", "event_id", "time", "transport", …}`: a call that never reached `check`."""
    return _record("transport", "event_id", event, at_us, fields)


def _record(kind: str, id_key: str, what: str, at_us: int, fields: dict[str, Any]) -> bytes:
    head = {"v": RECORD_VERSION, "kind": kind, id_key: uuid7(at_us), "time": rfc3339(at_us), kind: what}
    return orjson.dumps({**head, **fields})


class Recorder:
    """Offers records to the log. A refused one waits and is offered again, in order; what can't even wait is
    counted, and the next record that gets through says how many."""

    def __init__(self, notes: Notes, clock: Callable[[], int] = now_us) -> None:
        self._notes = notes
        self._clock = clock
        self._mutex = threading.Lock()
        self._waiting: deque[bytes] = deque()
        self._dropped = 0
        self.refused = 0
        """How often the log refused a record, whether or not it got in later."""
        self.lost = 0
        """How many never got in."""

    def change(self, change: str, **fields: Any) -> None:
        """Writes a change record."""
        self._offer(change_record(change, at_us=self._clock(), **fields))

    def transport(self, event: str, **fields: Any) -> None:
        """Writes a transport record."""
        self._offer(transport_record(event, at_us=self._clock(), **fields))

    def _offer(self, line: bytes) -> None:
        with self._mutex:
            if len(self._waiting) >= MAX_WAITING:
                self._dropped += 1
                self.lost += 1
                return
            self._waiting.append(line)
            self._flush()

    def retry(self) -> int:
        """Offers what waits again; how many still wait."""
        with self._mutex:
            self._flush()
            return len(self._waiting)

    def _flush(self) -> None:
        while self._waiting:
            if not self._notes.note(self._waiting[0]):
                self.refused += 1
                return
            self._waiting.popleft()
        if self._dropped:
            line = change_record("records_lost", at_us=self._clock(), count=self._dropped)
            if self._notes.note(line):
                self._dropped = 0
