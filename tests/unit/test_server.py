"""`server` and `doors`: bytes in and out over real sockets, limits, health, and an orderly end."""

from __future__ import annotations

import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from signalwarden.config import Address
from signalwarden.doors import HttpDoor, bound
from signalwarden.errors import ServerError
from signalwarden.front import CHECK_SERVICE
from signalwarden.server import CHECK_METHOD, MAX_REQUEST_BYTES, FrontDoor

ANY = Address("127.0.0.1", 0)
TIMEOUT_S = 10.0


class Echo:
    """Answers with the end of what it was asked; can be held."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Event()

    def check(self, request: bytes) -> bytes:
        self.entered.set()
        self.go.wait(TIMEOUT_S)
        return b"answer to " + request[-1000:]


@contextmanager
def door(
    engine: Echo | None = None, address: Address = ANY, *, reflection_on: bool = False
) -> Iterator[FrontDoor]:
    front = FrontDoor(engine or Echo(), address, reflection_on=reflection_on)
    front.start()
    try:
        yield front
    finally:
        front.stop(0.2)


@contextmanager
def channel(front: FrontDoor) -> Iterator[grpc.Channel]:
    address = str(front.address).replace("unix://", "unix:")
    with grpc.insecure_channel(address, options=[("grpc.max_send_message_length", -1)]) as opened:
        yield opened


def ask(opened: grpc.Channel, request: bytes, method: str = CHECK_METHOD) -> bytes:
    call = opened.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)
    return bytes(call(request, timeout=TIMEOUT_S))


def refusal(opened: grpc.Channel, request: bytes, method: str = CHECK_METHOD) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        ask(opened, request, method)
    code: grpc.StatusCode = caught.value.code()
    return code


def health_of(opened: grpc.Channel, service: str) -> str:
    stub = health_pb2_grpc.HealthStub(opened)
    answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT_S)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


def test_the_core_gets_the_bytes_and_its_bytes_are_the_answer() -> None:
    with door() as front, channel(front) as opened:
        for request in (b"", b"x", bytes(range(256)), b"y" * (MAX_REQUEST_BYTES - 1024)):
            assert ask(opened, request) == b"answer to " + request[-1000:]


def test_many_checks_at_once_get_their_own_answers() -> None:
    with door() as front, channel(front) as opened, ThreadPoolExecutor(16) as pool:
        requests = [str(n).encode() for n in range(500)]
        assert list(pool.map(lambda r: ask(opened, r), requests)) == [b"answer to " + r for r in requests]


def test_a_request_above_the_limit_never_reaches_the_core_and_is_counted() -> None:
    engine = Echo()
    with door(engine) as front, channel(front) as opened:
        assert refusal(opened, b"x" * (MAX_REQUEST_BYTES + 1)) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert not engine.entered.is_set()
        front.counts.settle()
        assert front.counts.settle() == (1, 0, 0)
        ask(opened, b"x")
        front.counts.settle()
        assert front.counts.settle() == (1, 0, 0)


def test_an_unknown_method_is_refused_and_counted() -> None:
    with door() as front, channel(front) as opened:
        assert refusal(opened, b"", f"/{CHECK_SERVICE}/Other") is grpc.StatusCode.UNIMPLEMENTED
        assert refusal(opened, b"", "/a.B/C") is grpc.StatusCode.UNIMPLEMENTED
        assert health_of(opened, "") == "SERVING"
        assert front.counts.settle() == (0, 2, 0)


def test_a_check_in_flight_is_not_counted_as_lost() -> None:
    with door() as front, channel(front) as opened:
        for _ in range(50):
            ask(opened, b"x")
            front.counts.settle()
        assert front.counts.settle() == (0, 0, 0)


def test_health_answers_for_the_server_and_the_service() -> None:
    with door() as front, channel(front) as opened:
        assert health_of(opened, "") == "SERVING"
        assert health_of(opened, CHECK_SERVICE) == "SERVING"
        with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
            health_of(opened, "unknown")


def test_watchers_hold_no_thread_that_decides() -> None:
    with door() as front, channel(front) as opened:
        stub = health_pb2_grpc.HealthStub(opened)
        streams = [stub.Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S) for _ in range(100)]
        assert all(next(stream).status == health_pb2.HealthCheckResponse.SERVING for stream in streams)
        assert ask(opened, b"x") == b"answer to x"


def test_a_stop_says_not_serving_first_and_lets_checks_in_flight_end() -> None:
    engine = Echo()
    front = FrontDoor(engine, ANY)
    front.start()
    with channel(front) as opened, ThreadPoolExecutor(2) as pool:
        stream = health_pb2_grpc.HealthStub(opened).Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        assert next(stream).status == health_pb2.HealthCheckResponse.SERVING
        engine.go.clear()
        answer = pool.submit(ask, opened, b"slow")
        assert engine.entered.wait(TIMEOUT_S)
        stopped = pool.submit(front.stop, 2.0)
        assert next(stream).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert not answer.done()
        engine.go.set()
        assert answer.result(TIMEOUT_S) == b"answer to slow"
        stopped.result(TIMEOUT_S)


def test_reflection_is_off_unless_switched_on() -> None:
    def services(opened: grpc.Channel) -> set[str]:
        stub = reflection_pb2_grpc.ServerReflectionStub(opened)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        [answer] = stub.ServerReflectionInfo(iter([request]), timeout=TIMEOUT_S)
        return {service.name for service in answer.list_services_response.service}

    with door() as front, channel(front) as opened, pytest.raises(grpc.RpcError, match="UNIMPLEMENTED"):
        services(opened)
    with door(reflection_on=True) as front, channel(front) as opened:
        assert {CHECK_SERVICE, "grpc.health.v1.Health"} <= services(opened)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_port_in_use_is_one_sentence(host: str, capfd: pytest.CaptureFixture[str]) -> None:
    with door() as front:
        for open_it in (lambda a: FrontDoor(Echo(), a), bound):
            with pytest.raises(ServerError, match=r"^the address `127\.0\.0\.1:\d+` is in use$"):
                open_it(Address(host, front.address.port))
    assert capfd.readouterr().err == ""


def test_a_unix_socket_is_private_and_gone_after_the_stop(tmp_path: Path) -> None:
    path = tmp_path / "run" / "check.sock"
    with door(address=Address("", 0, str(path))) as front, channel(front) as opened:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert ask(opened, b"x") == b"answer to x"
    assert not path.exists()


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "check.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with door(address=Address("", 0, str(path))) as front, channel(front) as opened:
        assert ask(opened, b"x") == b"answer to x"


def test_a_live_socket_is_left_alone(tmp_path: Path) -> None:
    address = Address("", 0, str(tmp_path / "check.sock"))
    with door(address=address) as front, channel(front) as opened:
        for open_it in (lambda: FrontDoor(Echo(), address), lambda: bound(address)):
            with pytest.raises(ServerError, match="is in use"):
                open_it()
        assert ask(opened, b"x") == b"answer to x"


def test_another_kind_of_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "check.sock"
    path.write_text("precious")
    with pytest.raises(ServerError, match="not a socket"):
        FrontDoor(Echo(), Address("", 0, str(path)))
    assert path.read_text() == "precious"


def test_a_socket_in_a_directory_that_all_may_write_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(ServerError, match="writable by everyone"):
        FrontDoor(Echo(), Address("", 0, str(folder / "check.sock")))
    folder.chmod(0o1777)
    with door(address=Address("", 0, str(folder / "check.sock"))) as front, channel(front) as opened:
        assert ask(opened, b"x") == b"answer to x"


async def hello(
    scope: dict[str, object], receive: Callable[..., object], send: Callable[..., object]
) -> None:
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[misc]
    await send({"type": "http.response.body", "body": b"hello"})  # type: ignore[misc]


def serving(http: HttpDoor) -> bool:
    return http.serving


def get(connection: socket.socket) -> bytes:
    connection.settimeout(TIMEOUT_S)
    connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    parts = []
    while part := connection.recv(65_536):
        parts.append(part)
    return b"".join(parts)


def test_the_http_door_answers_from_start_to_stop() -> None:
    http = HttpDoor(hello, ANY)
    http.start()
    assert serving(http)
    with socket.create_connection(("127.0.0.1", http.address.port), TIMEOUT_S) as connection:
        assert b"\r\nhello\r\n" in get(connection)
    http.stop(TIMEOUT_S)
    assert not serving(http)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", http.address.port), TIMEOUT_S)


def test_the_http_door_does_not_hold_answers_back() -> None:
    """With Nagle's algorithm on, each answer after the first of a connection waits about 40 ms."""
    http = HttpDoor(hello, ANY)
    http.start()
    try:
        with socket.create_connection(("127.0.0.1", http.address.port), TIMEOUT_S) as connection:
            connection.settimeout(TIMEOUT_S)
            started = time.monotonic()
            for _ in range(50):
                connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                answer = b""
                while not answer.endswith(b"\r\n0\r\n\r\n"):
                    answer += connection.recv(65_536)
            assert time.monotonic() - started < 50 * 0.025
    finally:
        http.stop(TIMEOUT_S)


def test_the_http_door_takes_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    http = HttpDoor(hello, Address("", 0, str(path)))
    http.start()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        assert b"\r\nhello\r\n" in get(connection)
    http.stop(TIMEOUT_S)
    assert not path.exists()


def test_a_door_stops_in_bounded_time_with_idle_connections_open() -> None:
    http = HttpDoor(hello, ANY)
    http.start()
    idle = socket.create_connection(("127.0.0.1", http.address.port), TIMEOUT_S)
    started = time.monotonic()
    http.stop(TIMEOUT_S)
    assert time.monotonic() - started < TIMEOUT_S
    idle.close()
