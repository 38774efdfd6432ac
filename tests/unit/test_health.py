"""`health`: who watches learns of every change, and no watcher can hold up anybody else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from signalwarden import _core
from signalwarden.answering import Answering
from signalwarden.config import Address
from signalwarden.health import Health
from signalwarden.server import CHECK_METHOD, FrontDoor

Status = health_pb2.HealthCheckResponse
TIMEOUT_S = 10.0


class Call:
    """What a servicer sees of a call that is watched; `leave` ends it as grpcio's event thread would."""

    def __init__(self) -> None:
        self._callbacks: list[Callable[[], None]] | None = []

    def add_callback(self, callback: Callable[[], None]) -> bool:
        if self._callbacks is None:
            return False
        self._callbacks.append(callback)
        return True

    def leave(self) -> None:
        callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            callback()


def watch(health: Health, send: Callable[[Any], None], call: Call | None = None) -> Call:
    call = call or Call()
    context: Any = call
    health.Watch(health_pb2.HealthCheckRequest(), context, send)
    return call


def test_a_watcher_learns_of_every_change_until_it_leaves() -> None:
    health = Health(["a.b"])
    seen: list[Any] = []
    call = watch(health, lambda answer: seen.append(answer.status))
    health.set(serving=True)
    call.leave()
    health.set(serving=False)
    assert seen == [Status.NOT_SERVING, Status.SERVING]


def test_a_watcher_can_leave_while_another_is_being_sent_to() -> None:
    health = Health([])
    sending, go = threading.Event(), threading.Event()

    def slow(answer: health_pb2.HealthCheckResponse) -> None:
        if answer.status == Status.SERVING:
            sending.set()
            go.wait(TIMEOUT_S)

    watch(health, slow)
    leaving = watch(health, lambda answer: None)
    telling = threading.Thread(target=health.set, kwargs={"serving": True}, daemon=True)
    telling.start()
    assert sending.wait(TIMEOUT_S)
    gone = threading.Thread(target=leaving.leave, daemon=True)
    gone.start()
    gone.join(TIMEOUT_S)
    assert not gone.is_alive()
    go.set()
    telling.join(TIMEOUT_S)
    assert not telling.is_alive()


def test_a_watcher_that_is_gone_before_it_is_known_is_forgotten() -> None:
    health = Health([])
    call = Call()
    call.leave()
    watch(health, lambda answer: None, call)
    assert not health._watchers


@pytest.mark.timeout(60)
def test_watchers_that_come_and_go_while_the_state_changes_stop_nothing() -> None:
    engine = _core.Engine()
    for _ in range(10):
        front = FrontDoor(Answering(engine, None), Address("127.0.0.1", 0))
        front.start()
        with grpc.insecure_channel(str(front.address)) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            streams = [stub.Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S) for _ in range(40)]
            assert all(next(stream).status == Status.SERVING for stream in streams)
            leaving = threading.Thread(target=lambda some: [s.cancel() for s in some], args=(streams[::2],))
            leaving.start()
            front._health.set(serving=False)
            front._health.set(serving=True)
            leaving.join(TIMEOUT_S)
            call = channel.unary_unary(CHECK_METHOD, request_serializer=bytes, response_deserializer=bytes)
            assert call(b"", timeout=TIMEOUT_S)
        front.stop(0.2)


def test_an_unknown_service_is_not_found_and_may_be_watched() -> None:
    front = FrontDoor(Answering(_core.Engine(), None), Address("127.0.0.1", 0))
    front.start()
    try:
        with grpc.insecure_channel(str(front.address)) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            unknown = health_pb2.HealthCheckRequest(service="nobody")
            with pytest.raises(grpc.RpcError) as refused:
                stub.Check(unknown, timeout=TIMEOUT_S)
            assert refused.value.code() == grpc.StatusCode.NOT_FOUND
            assert next(stub.Watch(unknown, timeout=TIMEOUT_S)).status == Status.SERVICE_UNKNOWN
    finally:
        front.stop(0.2)
