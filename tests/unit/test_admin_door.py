"""The admin API behind a real door: uvicorn on a Unix socket, with the fake app of `test_admin`."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from signalwarden.admin import MAX_BODY_BYTES, build
from signalwarden.admin_client import AdminClient
from signalwarden.config import Address, Right
from signalwarden.doors import HttpDoor
from signalwarden.errors import ServerError
from tests.fake_services import SECRET, FakeServices
from tests.unit.test_admin import BATCH


@pytest.fixture
def door(services: FakeServices, tmp_path: Path) -> Iterator[Address]:
    """The API behind uvicorn on a Unix socket."""
    address = Address("", 0, str(tmp_path / "admin.sock"))
    opened = HttpDoor(build(services), address)
    opened.start()
    yield address
    opened.stop(5)


def test_the_client_publishes_and_lists_over_a_unix_socket(door: Address, services: FakeServices) -> None:
    with AdminClient(door, SECRET) as client:
        assert client.publish(BATCH) == {"accepted": 0, "rejected": []}
        assert client.signals("*", 3) == {"signals": [], "truncated": False}
    assert services.asked == [("*", 3)]


def test_the_client_says_in_one_sentence_what_was_refused(door: Address, services: FakeServices) -> None:
    services.may = frozenset({Right.PUBLISH})
    with AdminClient(door, SECRET) as client, pytest.raises(ServerError) as refused:
        client.signals(None, 1)
    assert str(refused.value) == "the server refused: this call needs the right `read` (`right_missing`, 403)"


def test_a_body_without_an_end_is_cut_off(door: Address, services: FakeServices) -> None:
    lines = [
        "POST /v1/signals HTTP/1.1",
        "host: x",
        f"authorization: Bearer {SECRET}",
        "transfer-encoding: chunked",
    ]
    head = "\r\n".join([*lines, "", ""])
    chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(20)
        raw.connect(str(door.path))
        raw.sendall(head.encode())
        sent = 0
        try:
            while sent < 64 * MAX_BODY_BYTES:
                raw.sendall(chunk)
                sent += len(chunk)
        except OSError:
            pass
        assert sent < 64 * MAX_BODY_BYTES
    assert services.published == []


def test_publishers_that_wait_for_the_disk_do_not_make_the_process_look_dead(
    door: Address, services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, waiting = threading.Event(), threading.Semaphore(0)

    def slow() -> None:
        waiting.release()
        assert go.wait(20)

    monkeypatch.setattr(services, "fail", slow)
    with (
        ThreadPoolExecutor(60) as pool,
        httpx.Client(
            transport=httpx.HTTPTransport(uds=str(door.path)), base_url="http://admin", timeout=10
        ) as http,
    ):

        def tell() -> None:
            with AdminClient(door, SECRET) as client:
                client.publish(BATCH)

        calls = [pool.submit(tell) for _ in range(60)]
        for _ in range(40):  # as many as the pool has threads
            assert waiting.acquire(timeout=20)
        try:
            assert http.get("/healthz").status_code == 200
        finally:
            go.set()
        for call_ in calls:
            call_.result(20)


def test_calls_leave_nothing_of_themselves_in_the_log(door: Address) -> None:
    said: list[logging.LogRecord] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record)

    handler = Listener()
    # Not caplog: it listens at loggers that uvicorn has cut off, too.
    root = logging.getLogger()
    root.addHandler(handler)
    before, root.level = root.level, logging.DEBUG
    try:
        with AdminClient(door, SECRET) as client:
            client.signals('Account::"planted"', 1)
    finally:
        root.removeHandler(handler)
        root.level = before
    assert not any(SECRET in record.getMessage() for record in said)
    of_the_server = [r.getMessage() for r in said if not r.name.startswith(("httpx", "httpcore"))]
    assert not any("planted" in message for message in of_the_server)
