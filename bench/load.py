"""A closed-loop load generator that costs little: HTTP/2 frames by hand, the same bytes for every call.

A grpcio client spends more processor time on a call than the servers here, so on two cores it would be the client
that is measured. This one keeps CALLS in flight on each of CONNECTIONS, as Envoy's workers do, sends the next as
soon as one is answered, and reads of an answer only what it must: that it ended with a message, and its reason.

    python bench/load.py PORT SECONDS < REQUEST      prints one line of JSON

It knows as much of HTTP/2 as grpcio's server says in such an exchange, and stops at anything else.
"""

from __future__ import annotations

import collections
import json
import re
import selectors
import socket
import struct
import sys
import time
from typing import Final

CONNECTIONS: Final = 2
CALLS: Final = 8
"""In flight on one connection: 16 in all."""
TIMEOUT_S: Final = 5.0
"""No answer for so long: the server hangs."""

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
INITIAL_WINDOW_SIZE: Final = 4
WINDOW: Final = (1 << 31) - 1
"""The largest that there is: how much is taken is not what is measured."""
DEFAULT_WINDOW: Final = 65_535
TOP_UP: Final = 1 << 29
LAST_STREAM: Final = (1 << 31) - 1_000
FRAME: Final = struct.Struct(">BHBBI")
REASON: Final = re.compile(rb"reason\x12.\x1a.([a-z_]+)", re.DOTALL)
"""In the dynamic metadata: key, then a string value."""

HEADER_FIELDS: Final = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/envoy.service.auth.v3.Authorization/Check"),
    (":authority", "127.0.0.1"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
    ("user-agent", "signalwarden-bench"),
)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One HTTP/2 frame."""
    return FRAME.pack(len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream) + payload


def header_block() -> bytes:
    """HPACK, literals without indexing: no table to keep, the same bytes for every call."""
    return b"".join(
        bytes([0, len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in HEADER_FIELDS
    )


class Connection:
    """One connection with CALLS in flight."""

    def __init__(self, port: int, request: bytes) -> None:
        self.answered = 0
        self.failed = 0
        self.reasons: collections.Counter[str] = collections.Counter()
        self.waits: list[float] = []
        self.open: dict[int, float] = {}
        self._with_message: set[int] = set()
        self._block = header_block()
        self._message = struct.pack(">BI", 0, len(request)) + request
        self._next = 1
        self._left = b""
        self._credit = self._unacknowledged = 0
        self.socket = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._credit = DEFAULT_WINDOW
        settings = struct.pack(">HI", INITIAL_WINDOW_SIZE, WINDOW)
        wider = struct.pack(">I", WINDOW - DEFAULT_WINDOW)
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, wider))

    def call(self, number: int) -> bytes:
        """The frames of so many new calls, as far as the server's window lets them go."""
        frames = []
        now = time.perf_counter()
        for _ in range(number):
            if self._credit < len(self._message):
                break
            stream, self._next = self._next, self._next + 2
            self._credit -= len(self._message)
            self.open[stream] = now
            frames.append(frame(HEADERS, END_HEADERS, stream, self._block))
            frames.append(frame(DATA, END_STREAM, stream, self._message))
        return b"".join(frames)

    def take(self, going_on: bool) -> None:
        """Reads what is there, answers it, sends new calls for those that ended."""
        chunk = self.socket.recv(1 << 18)
        if not chunk:
            raise SystemExit("load: the server closed the connection")
        data, at, reply = self._left + chunk, 0, []
        while len(data) - at >= FRAME.size:
            high, low, kind, flags, stream = FRAME.unpack_from(data, at)
            end = at + FRAME.size + (high << 16 | low)
            if end > len(data):
                break
            reply.append(self._frame(kind, flags, stream, data[at + FRAME.size : end]))
            at = end
        self._left = data[at:]
        if going_on and self._next < LAST_STREAM:
            reply.append(self.call(CALLS - len(self.open)))
        if out := b"".join(reply):
            self.socket.sendall(out)

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        """Takes one frame in; what must be said in answer."""
        answer = b""
        if kind == DATA:
            self._unacknowledged += len(payload)
            if payload:
                self._with_message.add(stream)
                self._note(payload)
            if self._unacknowledged > TOP_UP:
                answer = frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", self._unacknowledged))
                self._unacknowledged = 0
        elif kind == SETTINGS and not flags & ACK:
            answer = frame(SETTINGS, ACK, 0, b"")
        elif kind == PING and not flags & ACK:
            answer = frame(PING, ACK, 0, payload)
        elif kind == WINDOW_UPDATE and stream == 0:
            self._credit += struct.unpack(">I", payload)[0] & WINDOW
        elif kind == GOAWAY:
            raise SystemExit(f"load: the server sent GOAWAY: {payload[8:].decode(errors='replace')}")
        if kind == RST_STREAM or (kind in (DATA, HEADERS) and flags & END_STREAM):
            self._end(stream, whole=kind == HEADERS)
        return answer

    def _note(self, payload: bytes) -> None:
        found = REASON.search(payload)
        if found:
            self.reasons[found[1].decode()] += 1

    def _end(self, stream: int, *, whole: bool) -> None:
        begun = self.open.pop(stream, None)
        if begun is None:
            return
        if whole and stream in self._with_message:
            self.answered += 1
            self.waits.append(time.perf_counter() - begun)
        else:
            self.failed += 1
        self._with_message.discard(stream)


def run(port: int, seconds: float, request: bytes) -> dict[str, object]:
    """Loads the server for so long, waits for the last answers, and counts."""
    connections = [Connection(port, request) for _ in range(CONNECTIONS)]
    selector = selectors.DefaultSelector()
    for connection in connections:
        selector.register(connection.socket, selectors.EVENT_READ, connection)
        connection.socket.sendall(connection.call(CALLS))
    begun = time.perf_counter()
    until = begun + seconds
    while time.perf_counter() < until or any(connection.open for connection in connections):
        ready = selector.select(TIMEOUT_S)
        if not ready:
            raise SystemExit(f"load: no answer within {TIMEOUT_S:g} s")
        for key, _ in ready:
            key.data.take(time.perf_counter() < until)
    took = time.perf_counter() - begun
    for connection in connections:
        connection.socket.close()
    waits = sorted(wait for connection in connections for wait in connection.waits)
    reasons: collections.Counter[str] = collections.Counter()
    for connection in connections:
        reasons.update(connection.reasons)
    return {
        "answered": len(waits),
        "failed": sum(connection.failed for connection in connections),
        "seconds": took,
        "reasons": dict(reasons),
        "p50_ms": waits[len(waits) // 2] * 1e3 if waits else None,
        "p99_ms": waits[len(waits) * 99 // 100] * 1e3 if waits else None,
    }


def main() -> None:
    """For the command line."""
    try:
        print(json.dumps(run(int(sys.argv[1]), float(sys.argv[2]), sys.stdin.buffer.read())))
    except OSError as error:
        raise SystemExit(f"load: the server can't be reached: {error}") from error


if __name__ == "__main__":
    main()
