"""`tests/answers.py`: an answer that breaks a rule can't pass unseen, whichever way it came."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import pytest
from envoy_data_plane.envoy.service.auth.v3 import CheckResponse
from envoy_data_plane.google.rpc import Status

from signalwarden import _core
from signalwarden.answering import Answering
from signalwarden.config import Address
from signalwarden.server import CHECK_METHOD, FrontDoor
from tests import asking
from tests.answers import Watch

ANY = Address("127.0.0.1", 0)
TIMEOUT_S = 10.0


def ask(address: Address) -> bytes:
    with grpc.insecure_channel(str(address)) as channel:
        call = channel.unary_unary(CHECK_METHOD, request_serializer=bytes, response_deserializer=bytes)
        return bytes(call(b"", timeout=TIMEOUT_S))


def test_an_answer_that_breaks_a_rule_is_told_once() -> None:
    watch = Watch()
    assert watch.note(b"") == b""
    with pytest.raises(AssertionError, match="empty-response-is-allow"):
        watch.settle()
    watch.settle()


def test_answers_that_differ_in_their_id_alone_are_checked_once() -> None:
    watch = Watch()
    engine = _core.Engine()
    for _ in range(10):
        watch.note(asking.answered(engine, b""))
    watch.settle()
    assert (watch.seen, len(watch._good)) == (10, 1)


def test_both_ways_out_of_an_engine_are_watched(every_answer_obeys_envoys_rules: Watch) -> None:
    before = every_answer_obeys_envoys_rules.seen
    engine = _core.Engine()
    engine.check(b"")
    engine.decide(b"", now_us=0)
    assert every_answer_obeys_envoys_rules.seen == before + 2


class Double:
    """Stands for an engine."""

    def check(self, request: bytes) -> bytes:
        return bytes(CheckResponse(status=Status(code=0)))


@pytest.mark.parametrize(("make", "noted"), [(lambda: Answering(_core.Engine(), None), 2), (Double, 0)])
def test_answers_of_a_real_decision_point_are_watched_at_the_client_too(
    make: Callable[[], Answering | Double],
    noted: int,
    every_answer_obeys_envoys_rules: Watch,
    eventually: Callable[..., None],
) -> None:
    before = every_answer_obeys_envoys_rules.seen
    front = FrontDoor(make(), ANY)
    front.start()
    try:
        ask(front.address)
        eventually(lambda: every_answer_obeys_envoys_rules.seen == before + noted)
    finally:
        front.stop(0.1)
