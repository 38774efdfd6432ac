"""An HTTP/2 client that may break every rule: frames are made by hand, and what comes back is shown as it came.

For tests/e2e/test_h2_abuse.py and test_grpc_vectors.py. Header blocks are the library `hpack`'s; all else is here. It
talks to the loopback only, every wait has a limit, and a flood ends by time and by count.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

import hpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
CHECK_PATH: Final = "/envoy.service.auth.v3.Authorization/Check"
TIMEOUT_S: Final = 10.0
"""For one answer. A loaded test machine is no reason to fail."""

SHOWN: Final = 20
"""Answers to a flood whose status is looked at, on each connection."""
LAST_WORDS_S: Final = 1.0

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 5, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED = 0x1, 0x1, 0x4, 0x8

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 1, 2, 3, 4
MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 5, 6

ERRORS: Final = (
    *("NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT"),
    *("STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR"),
    *("CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED"),
)
"""By their code (RFC 9113, section 7)."""

Header = tuple[str | bytes, str | bytes]


# ---- frames -----------------------------------------------------------------------------------------------


def frame(
    kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"", *, length: int | None = None
) -> bytes:
    """One frame; `length` claims another length than it has."""
    size = len(payload) if length is None else length
    return struct.pack(">BHBBI", size >> 16, size & 0xFFFF, kind, flags, stream) + payload


def settings(values: Mapping[int, int] | None = None) -> bytes:
    """A SETTINGS frame of these values."""
    return frame(SETTINGS, payload=b"".join(struct.pack(">HI", *pair) for pair in (values or {}).items()))


def reset(stream: int, code: int = 8) -> bytes:
    """RST_STREAM, CANCEL unless told."""
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def window_update(stream: int, increment: int) -> bytes:
    """WINDOW_UPDATE; nothing is judged."""
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))


def grpc_message(payload: bytes, *, compressed: int = 0, length: int | None = None) -> bytes:
    """gRPC's own framing around a message."""
    return struct.pack(">BI", compressed, len(payload) if length is None else length) + payload


def call_headers(
    path: str = CHECK_PATH, *, more: Iterable[Header] = (), changed: Mapping[str, str] | None = None
) -> list[Header]:
    """What a gRPC call begins with. `changed` replaces a header by its name; an empty value leaves it out."""
    usual = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "door.test",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    usual |= changed or {}
    return [*((name, value) for name, value in usual.items() if value), *more]


def plain_block(headers: Iterable[Header]) -> bytes:
    """A header block that uses no table, so that it can be sent any number of times on any connection."""
    return b"".join(b"\x10" + _text(name) + _text(value) for name, value in headers)


def _text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return _integer(len(raw), 7) + raw


def _integer(number: int, prefix: int) -> bytes:
    """HPACK's integers (RFC 7541, section 5.1), without the bits before the prefix."""
    most = (1 << prefix) - 1
    if number < most:
        return bytes([number])
    out, rest = bytearray([most]), number - most
    while rest >= 0x80:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*out, rest])


# ---- what comes back --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame as it came."""

    kind: int
    flags: int
    stream: int
    payload: bytes
    headers: dict[str, str] = field(default_factory=dict)
    """Of a HEADERS frame, decoded."""


@dataclass
class Reply:
    """What became of one stream, or of the connection."""

    headers: dict[str, str] = field(default_factory=dict)
    data: bytes = b""
    ended: bool = False
    """END_STREAM came."""
    reset: str | None = None
    goaway: str | None = None
    closed: bool = False

    @property
    def http(self) -> int:
        """The HTTP status; 0: none came."""
        return int(self.headers.get(":status", 0))

    @property
    def grpc(self) -> int | None:
        """The gRPC status; None: none came."""
        found = self.headers.get("grpc-status")
        return None if found is None else int(found)

    @property
    def message(self) -> bytes:
        """The one message of the answer; fails unless it is exactly one."""
        size = int.from_bytes(self.data[1:5], "big")
        assert self.data[:1] == b"\0", self
        assert len(self.data) == 5 + size, self
        return self.data[5:]

    @property
    def outcome(self) -> str:
        """In a few words, the most telling first: the words of docs/http2.md."""
        if self.ended and self.http and self.http != 200:
            return f"http {self.http}"
        if self.ended and self.grpc is not None:
            return f"status {self.grpc}"
        if self.reset is not None:
            return f"reset {self.reset}"
        if self.goaway is not None:
            return f"goaway {self.goaway}"
        return "closed" if self.closed else "held"


@dataclass
class Poured:
    """What a flood came to."""

    chunks: int = 0
    connections: int = 0
    closed: int = 0
    """How many of the connections the server ended."""
    goaways: Counter[str] = field(default_factory=Counter)
    frames: Counter[int] = field(default_factory=Counter)
    resets: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    """Of the first answers on each connection."""

    @property
    def outcome(self) -> str:
        """The words of docs/http2.md: how the connections were ended, or that they were not."""
        if self.goaways:
            return " or ".join(f"goaway {name}" for name in sorted(self.goaways))
        return "closed" if self.closed else "goes on"

    @property
    def detail(self) -> str:
        """What came on its streams; it depends on who was faster."""
        return ", ".join(f"{name} {count}" for name, count in sorted((self.resets + self.statuses).items()))

    def note(self, seen: Frame) -> None:
        """Counts a frame that came."""
        self.frames[seen.kind] += 1
        if seen.kind == GOAWAY:
            self.goaways[_error(seen.payload[4:8])] += 1
        elif seen.kind == RST_STREAM:
            self.resets[_error(seen.payload[:4])] += 1


def _error(code: bytes) -> str:
    number = int.from_bytes(code, "big")
    return ERRORS[number] if number < len(ERRORS) else str(number)


class Client:
    """One connection. Acknowledges settings and pings while it reads, unless it is told to be rude."""

    def __init__(
        self,
        address: str,
        *,
        greet: bool = True,
        values: Mapping[int, int] | None = None,
        polite: bool = True,
        tls: ssl.SSLContext | None = None,
        receive_buffer: int | None = None,
    ) -> None:
        """`address` is host:port. `greet` sends the preface and our settings."""
        host, _, port = address.rpartition(":")
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.socket.connect((host, int(port)))
            if tls is not None:
                self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        except BaseException:
            self.socket.close()
            raise
        self.polite = polite
        self.closed = False
        self._buffer = bytearray()
        self._decoder = hpack.Decoder()
        self._next = 1
        self._shown = 0
        self._kept: deque[Frame] = deque()
        """What came while something was sent, and waits to be looked at."""
        self._initial = 65_535
        self._used: Counter[int] = Counter()
        self._given: Counter[int] = Counter({0: 65_535})
        """Windows by stream, 0 for the connection: what was sent, and what was allowed beside the initial window."""
        if greet:
            self.send(PREFACE + settings(values))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Without a word to the server."""
        self.socket.close()

    # ------------------------------------------------------------ sending

    def send(self, *frames: bytes) -> bool:
        """All of them; False if the server has closed the connection."""
        try:
            self.socket.sendall(b"".join(frames))
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            self.closed = True
        return not self.closed

    def stream(self) -> int:
        """The number of a stream that was not used before."""
        self._next += 2
        return self._next - 2

    def call(
        self,
        *body: bytes,
        path: str = CHECK_PATH,
        headers: Iterable[Header] | None = None,
        end: bool = True,
        within_s: float = TIMEOUT_S,
    ) -> Reply:
        """One call with this body, already in gRPC's framing, and what became of it."""
        stream = self.stream()
        self.begin(stream, call_headers(path) if headers is None else headers)
        self.push(stream, b"".join(body), end=end)
        return self.reply(stream, within_s)

    def push(self, stream: int, body: bytes, *, end: bool) -> None:
        """A body, as fast as the server's windows let it through, or as much of it as the server wants."""
        until, rest = time.monotonic() + TIMEOUT_S, memoryview(body)
        while rest:
            room = min(self._room(stream), self._room(0), 16_384)
            if room > 0:
                piece, rest = rest[:room], rest[room:]
                self._used[stream] += len(piece)
                self._used[0] += len(piece)
                self.send(frame(DATA, END_STREAM * (end and not rest), stream, bytes(piece)))
                continue
            seen = self._read(until - time.monotonic())
            if seen is None:
                return
            self._kept.append(seen)
            is_over = seen.kind == RST_STREAM or (seen.kind == HEADERS and seen.flags & END_STREAM)
            if seen.kind == GOAWAY or (seen.stream == stream and is_over):
                return
        if end and not body:
            self.send(frame(DATA, END_STREAM, stream))

    def _room(self, stream: int) -> int:
        initial = self._initial if stream else 0
        return initial + self._given[stream] - self._used[stream]

    def begin(self, stream: int, headers: Iterable[Header], *, flags: int = 0) -> bool:
        """The headers of a call, in as many frames as they need."""
        block = plain_block(headers)
        pieces = [block[at : at + 16_384] for at in range(0, len(block), 16_384)]
        kinds = [HEADERS, *[CONTINUATION] * (len(pieces) - 1)]
        last = len(pieces) - 1
        return self.send(
            *(
                frame(kind, (flags if n == 0 else 0) | END_HEADERS * (n == last), stream, piece)
                for n, (kind, piece) in enumerate(zip(kinds, pieces, strict=True))
            )
        )

    # ------------------------------------------------------------ receiving

    def receive(self, within_s: float = TIMEOUT_S) -> Frame | None:
        """The next frame; None if none came in time, or the server has closed the connection (`closed` then)."""
        return self._kept.popleft() if self._kept else self._read(within_s)

    def _read(self, within_s: float) -> Frame | None:
        deadline = time.monotonic() + within_s
        while (found := self._whole()) is None:
            left = deadline - time.monotonic()
            if left <= 0 or self.closed:
                return None
            self._fill(left)
        if found.kind == HEADERS:
            found.headers.update(self._decode(found.payload))
        if self.polite and found.kind == DATA and found.payload:
            self.send(*(window_update(at, len(found.payload)) for at in (0, found.stream)))
        if found.kind == WINDOW_UPDATE:
            self._given[found.stream] += int.from_bytes(found.payload, "big")
        if found.kind == SETTINGS and not found.flags & ACK:
            self._initial = dict(struct.iter_unpack(">HI", found.payload)).get(
                INITIAL_WINDOW_SIZE, self._initial
            )
            if self.polite:
                self.send(frame(SETTINGS, ACK))
        if self.polite and found.kind == PING and not found.flags & ACK:
            self.send(frame(PING, ACK, 0, found.payload))
        return found

    def reply(self, stream: int, within_s: float = TIMEOUT_S) -> Reply:
        """What becomes of a stream: until its end, its reset, or the end of the connection."""
        found, deadline = Reply(), time.monotonic() + within_s
        while (left := deadline - time.monotonic()) > 0:
            seen = self.receive(left)
            if seen is None:
                found.closed = self.closed
                return found
            if seen.kind == GOAWAY:
                found.goaway = _error(seen.payload[4:8])
                if seen.payload[4:8] != b"\0\0\0\0":
                    return found
            if seen.stream != stream:
                continue
            found.headers |= seen.headers
            if seen.kind == DATA:
                found.data += seen.payload
            if seen.kind == RST_STREAM:
                found.reset = _error(seen.payload)
                return found
            if seen.kind in (DATA, HEADERS) and seen.flags & END_STREAM:
                found.ended = True
                return found
        return found

    def _decode(self, block: bytes) -> dict[str, str]:
        """A header block. Each must come here, in its order: they share a table."""
        return {str(name): str(value) for name, value in self._decoder.decode(block)}

    def settled(self, within_s: float = TIMEOUT_S) -> dict[int, int]:
        """The settings that the server greets with; fails if none come."""
        while (seen := self.receive(within_s)) is not None:
            if seen.kind == SETTINGS and not seen.flags & ACK:
                return dict(struct.iter_unpack(">HI", seen.payload))
        raise AssertionError("the server sent no settings")

    def lives(self, within_s: float = TIMEOUT_S) -> bool:
        """Whether the server still answers on this connection: it acknowledges a ping. Other frames wait."""
        self.send(frame(PING, 0, 0, b"are you "))
        deadline = time.monotonic() + within_s
        while (left := deadline - time.monotonic()) > 0:
            seen = self._read(left)
            if seen is None or seen.kind == GOAWAY:
                return False
            if seen.kind == PING and seen.flags & ACK and seen.payload == b"are you ":
                return True
            self._kept.append(seen)
        return False

    def ended(self, within_s: float) -> bool:
        """Whether the server ends the connection in this time."""
        deadline = time.monotonic() + within_s
        while not self.closed and (left := deadline - time.monotonic()) > 0:
            self.receive(left)
        return self.closed

    def _whole(self) -> Frame | None:
        if len(self._buffer) < 9:
            return None
        high, low, kind, flags, stream = struct.unpack(">BHBBI", self._buffer[:9])
        size = high << 16 | low
        if len(self._buffer) < 9 + size:
            return None
        payload = bytes(self._buffer[9 : 9 + size])
        del self._buffer[: 9 + size]
        return Frame(kind, flags, stream & 0x7FFFFFFF, payload)

    def _fill(self, within_s: float) -> None:
        self.socket.settimeout(max(within_s, 0.001))
        try:
            part = self.socket.recv(262_144)
            self.closed = not part
            self._buffer += part
        except TimeoutError:
            return
        except (ConnectionResetError, BrokenPipeError, ssl.SSLError):
            self.closed = True
        finally:
            with contextlib.suppress(OSError):
                self.socket.settimeout(TIMEOUT_S)

    # ------------------------------------------------------------ floods

    def pour(
        self, chunks: Callable[[], bytes | None], poured: Poured, *, until: float, reading: bool
    ) -> None:
        """Sends what `chunks` makes as fast as the server takes it, until the moment `until` of `time.monotonic`, until
        `chunks` has no more, or until the server ends the connection. Without `reading`, nothing is taken off the
        socket: what the server answers piles up at its end."""
        self.socket.setblocking(False)
        waiting = memoryview(b"")
        while not self.closed and time.monotonic() < until:
            if not waiting:
                made = chunks()
                if made is None:
                    break
                poured.chunks += 1
                waiting = memoryview(made)
            readable, writable, _ = select.select([self.socket] if reading else [], [self.socket], [], 0.05)
            try:
                if writable:
                    waiting = waiting[self.socket.send(waiting) :]
                if readable:
                    self._take(poured)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                continue
            except (BrokenPipeError, ConnectionResetError):
                self.closed = True
        self._last_words(poured)

    def _take(self, poured: Poured) -> None:
        part = self.socket.recv(262_144)
        self.closed = not part
        self._buffer += part
        while (seen := self._whole()) is not None:
            self.show(seen, poured)

    def show(self, seen: Frame, poured: Poured) -> None:
        """Counts a frame that came, with its status if it is one of the first answers."""
        poured.note(seen)
        if seen.kind == HEADERS and self._shown < SHOWN:
            self._shown += 1
            if (status := Reply(headers=self._decode(seen.payload), ended=True).outcome) != "held":
                poured.statuses[status] += 1

    def _last_words(self, poured: Poured) -> None:
        """What lies in the socket when the flood is over, or as much as can be read in a moment."""
        until = time.monotonic() + LAST_WORDS_S
        with contextlib.suppress(BlockingIOError, ConnectionResetError, ssl.SSLError, OSError):
            while not self.closed and time.monotonic() < until:
                self._take(poured)
        poured.closed += self.closed


def flood(
    address: str,
    make: Callable[[], Callable[[], bytes | None]],
    *,
    seconds: float,
    connections: int = 1_000,
    reading: bool = True,
    acknowledged: bool = True,
    values: Mapping[int, int] | None = None,
) -> Poured:
    """Pours for `seconds`; opens another connection whenever the server ends one, `connections` at most. `make` begins the
    chunks of a connection. Without `acknowledged`, the server never hears that its settings are known."""
    poured, until = Poured(), time.monotonic() + seconds
    while time.monotonic() < until and poured.connections < connections:
        poured.connections += 1
        with contextlib.suppress(ConnectionError), Client(address, values=values) as client:
            if acknowledged:
                client.settled()
            client.pour(make(), poured, until=until, reading=reading)
            if not client.closed:
                break
    return poured
