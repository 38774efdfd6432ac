"""A flood beside honest callers: an open loop, so many calls a second whatever the server does, from one thread.

Each lane is a connection with a rate of its own. A lane that has as many calls in flight as it may skips those that are
due: what was offered, sent and skipped is counted, so nobody takes the rate that was asked for for the one that was
reached. Honest lanes may have so many in flight that they never skip.
"""

from __future__ import annotations

import contextlib
import itertools
import selectors
import socket
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from bench import load

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Lane", "Seen", "addresses", "drive"]

BURST: Final = 64
"""Calls of one lane that are sent at once: more would keep the others waiting."""
STEP_S: Final = 0.001
LATE_S: Final = 0.25
"""A lane that is behind by more skips what is older: an open loop does not make up for what was not sent."""
SETTLE_S: Final = 10.0
"""For the last answers."""


class _Buffered:
    """A socket that never makes its writer wait: what the system does not take is kept."""

    def __init__(self, inner: socket.socket) -> None:
        inner.setblocking(False)
        self._inner = inner
        self._out = bytearray()

    def sendall(self, data: bytes) -> None:
        self._out += data
        self.flush()

    def flush(self) -> None:
        while self._out:
            try:
                sent = self._inner.send(self._out)
            except BlockingIOError:
                return
            del self._out[:sent]

    def recv(self, most: int) -> bytes:
        return self._inner.recv(most)

    def fileno(self) -> int:
        return self._inner.fileno()

    def close(self) -> None:
        self._inner.close()

    @property
    def waiting(self) -> int:
        return len(self._out)


class _Stream(load.Connection):
    """A connection whose every call has a message of its own."""

    def __init__(self, port: int, messages: Iterator[bytes]) -> None:
        super().__init__(port, b"")
        self.socket = cast("Any", _Buffered(self.socket))
        self._messages = messages

    def send(self, number: int) -> int:
        """New calls, as far as the server's window lets them go; how many."""
        for done in range(number):
            body = next(self._messages)
            self._message = struct.pack(">BI", 0, len(body)) + body
            if not (frames := self.call(1)):
                return done
            self.socket.sendall(frames)
        return number


@dataclass(slots=True)
class Lane:
    """Calls of one kind: how many a second, and how many may be in flight."""

    name: str
    messages: Iterator[bytes]
    rate: float
    most: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of one lane."""

    name: str
    offered: int
    sent: int
    answered: int
    failed: int
    seconds: float
    reasons: dict[str, int]
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answered / self.seconds


def drive(port: int, lanes: Sequence[Lane], seconds: float) -> list[Seen]:
    """Sends for so long, waits for the last answers, and counts."""
    streams = [_Stream(port, lane.messages) for lane in lanes]
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
        for stream in streams:
            stack.callback(stream.socket.close)
            selector.register(stream.socket, selectors.EVENT_READ, stream)
        offered = [0] * len(lanes)
        sent = [0] * len(lanes)
        begun = time.perf_counter()
        until = begun + seconds
        last = until + SETTLE_S
        while (now := time.perf_counter()) < until or (now < last and any(s.open for s in streams)):
            if now < until:
                for at, (lane, stream) in enumerate(zip(lanes, streams, strict=True)):
                    _send(lane, stream, at, now - begun, offered, sent)
            for stream in streams:
                cast("_Buffered", stream.socket).flush()
            for key, _ in selector.select(STEP_S):
                key.data.take(False)
        took = min(time.perf_counter(), until) - begun
        lost = [len(stream.open) for stream in streams]
    return [
        _seen(lane, stream, offered[at], sent[at], lost[at], took)
        for at, (lane, stream) in enumerate(zip(lanes, streams, strict=True))
    ]


def _send(lane: Lane, stream: _Stream, at: int, elapsed: float, offered: list[int], sent: list[int]) -> None:
    due = int(lane.rate * elapsed)
    offered[at] = max(offered[at], due - int(lane.rate * LATE_S))
    number = min(due - offered[at], lane.most - len(stream.open), BURST)
    if number > 0 and not cast("_Buffered", stream.socket).waiting:
        done = stream.send(number)
        offered[at] += done
        sent[at] += done


def _seen(lane: Lane, stream: _Stream, offered: int, sent: int, lost: int, seconds: float) -> Seen:
    waits = sorted(1e3 * wait for wait in stream.waits)
    at = {"p50": len(waits) // 2, "p99": len(waits) * 99 // 100, "max": len(waits) - 1}
    spread = {name: round(waits[place], 2) if waits else None for name, place in at.items()}
    return Seen(
        lane.name, max(offered, int(lane.rate * seconds)), sent, stream.answered, stream.failed + lost, seconds,
        dict(stream.reasons), spread["p50"], spread["p99"], spread["max"],
    )  # fmt: skip


def addresses() -> Iterator[str]:
    """Distinct addresses, all written in as many letters."""
    for first, second, third in itertools.product(range(100, 250), repeat=3):
        yield f"10.{first}.{second}.{third}"
