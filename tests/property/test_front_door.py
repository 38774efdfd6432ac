"""I5 through a real front door: whatever bytes come, the call ends OK with a `CheckResponse`, and the door stays open."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from signalwarden import _core
from signalwarden.answering import Answering
from signalwarden.config import Address
from signalwarden.server import CHECK_METHOD, FrontDoor
from tests import asking
from tests.conftest import MINIMAL

EXAMPLES = 1_000
TIMEOUT_S = 10.0
ALLOWED = bytes(asking.check_request())
LENGTHS = st.integers(0, 2**35).map(
    lambda n: b"\x0a" + bytes([n & 0x7F | 0x80, n >> 7 & 0x7F | 0x80, n >> 14 & 0x7F])
)


@pytest.fixture(scope="module")
def engine() -> _core.Engine:
    files = {name: text for name, text in MINIMAL.items() if name != "signalwarden.yaml"}
    return asking.running(asking.load(files), log_capacity=100_000)


@pytest.fixture(scope="module")
def channel(engine: _core.Engine) -> Iterator[grpc.Channel]:
    front = FrontDoor(Answering(engine, None), Address("127.0.0.1", 0))
    front.start()
    try:
        with grpc.insecure_channel(str(front.address)) as opened:
            yield opened
    finally:
        front.stop(0.2)


def mutated(edits: list[tuple[int, int, int]]) -> bytes:
    """A good request with bytes changed, taken out or put in."""
    data = bytearray(ALLOWED)
    for place, byte, kind in edits:
        at = place % len(data)
        if kind == 0:
            data[at] = byte
        elif kind == 1:
            del data[at]
        else:
            data.insert(at, byte)
    return bytes(data)


edits = st.lists(
    st.tuples(st.integers(0, 10_000), st.integers(0, 255), st.integers(0, 2)), min_size=1, max_size=4
)
hostile = st.one_of(
    st.binary(max_size=300),
    st.tuples(LENGTHS, st.binary(max_size=50)).map(b"".join),
    st.integers(0, len(ALLOWED) - 1).map(lambda end: ALLOWED[:end]),
    st.integers(1, 200).map(lambda depth: b"\x0a\x02" * depth),
)


def ask(channel: grpc.Channel, request: bytes) -> bytes:
    call = channel.unary_unary(CHECK_METHOD, request_serializer=bytes, response_deserializer=bytes)
    return bytes(call(request, timeout=TIMEOUT_S))  # raises for any status but OK


def test_bytes_that_are_no_request_are_denied_and_the_connection_lives(
    channel: grpc.Channel, engine: _core.Engine
) -> None:
    states: list[grpc.ChannelConnectivity] = []
    assert asking.grpc_code(ask(channel, ALLOWED)) == 0
    channel.subscribe(states.append)
    panics = engine.counters()["panics"]
    count = 0

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(hostile)
    def holds(request: bytes) -> None:
        nonlocal count
        assert asking.grpc_code(ask(channel, request)) != 0
        count += 1

    holds()
    print(f"I5: {count} messages of noise through gRPC")
    assert asking.grpc_code(ask(channel, ALLOWED)) == 0
    assert engine.counters()["panics"] == panics
    channel.unsubscribe(states.append)
    assert set(states) <= {grpc.ChannelConnectivity.READY}, "one connection carried them all"


def test_a_request_with_a_few_bytes_changed_is_answered_as_it_is_decided(
    channel: grpc.Channel, engine: _core.Engine
) -> None:
    tally: dict[str, int] = {}

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(edits.map(mutated))
    def holds(request: bytes) -> None:
        reason = asking.reason_of(ask(channel, request))
        assert reason == asking.decide(engine, request).reason
        tally[reason] = tally.get(reason, 0) + 1

    holds()
    print(f"I5: {sum(tally.values())} mutated requests through gRPC: {tally}")
    assert tally.get("malformed_request", 0) > EXAMPLES / 10


def test_every_answer_through_the_door_has_one_record(channel: grpc.Channel, engine: _core.Engine) -> None:
    asking.drained(engine)
    for request in (b"", b"\xff", ALLOWED):
        ask(channel, request)
    assert [r["reason"] for r in asking.drained(engine)] == [
        "malformed_request",
        "malformed_request",
        "allowed",
    ]
