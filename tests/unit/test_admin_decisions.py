"""The calls of the admin API about decisions: refusals against a fake, and streams of a real server over real sockets."""

from __future__ import annotations

import hashlib
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from signalwarden import admin_decisions
from signalwarden import decisions as desk
from signalwarden.admin import AdminReason
from signalwarden.app import App
from signalwarden.config import Right
from signalwarden.decisions import Looked
from signalwarden.errors import BadInputError, CallRefusedError, LogError
from tests.asking import check_request
from tests.conftest import Eventually
from tests.fake_services import FakeServices
from tests.serving import running
from tests.unit.test_admin import problem
from tests.unit.test_app import check

TIMEOUT_S = 10.0
TOKEN = "token-of-the-operator"
OPERATOR = "spiffe://prod.example/operator"
ID = "01a20d2e-e225-7eba-82f3-6812fbaf3409"


# ---- against a fake ---------------------------------------------------------------------------------------


def test_filters_are_handed_on_as_they_came(http: TestClient, services: FakeServices) -> None:
    filters = {"outcome": "deny", "reason": "policy_denied", "since": "10m", "principal": "spiffe://a/*"}
    http.get("/v1/decisions", params=filters | {"limit": "5", "after": ID, "action": "page.read"})
    assert services.decisions.asked == [(filters | {"action": "page.read"}, ID, 5)]
    bad: list[Any] = [
        {"outcomes": "deny"},
        {"limit": 0},
        {"limit": 1_001},
        [("reason", "a"), ("reason", "b")],
    ]
    for params in bad:
        problem(http.get("/v1/decisions", params=params), AdminReason.MALFORMED)
    problem(http.get("/v1/decisions/stream", params={"limit": 1}), AdminReason.MALFORMED)
    problem(http.get(f"/v1/decisions/{ID}", params={"limit": 1}), AdminReason.MALFORMED)


def test_what_the_log_can_not_answer_is_said(http: TestClient, services: FakeServices) -> None:
    services.fault = CallRefusedError("decision_unknown", "no record of this id is kept")
    problem(http.get(f"/v1/decisions/{ID}"), AdminReason.DECISION_UNKNOWN)
    services.fault = CallRefusedError("too_many_streams", "16 streams are open already")
    answer = http.get("/v1/decisions/stream")
    problem(answer, AdminReason.TOO_MANY_STREAMS)
    assert answer.headers["retry-after"] == "1"
    services.fault = LogError("`decisions.jsonl` can't be read: permission denied")
    problem(http.get("/v1/decisions"), AdminReason.LOG_UNREADABLE)
    services.fault = BadInputError("`outcome`: expected one of `allow`, `deny`")
    problem(http.get("/v1/decisions/stream"), AdminReason.MALFORMED)


@pytest.mark.parametrize("path", ["/v1/decisions", "/v1/decisions/stream", f"/v1/decisions/{ID}"])
def test_decisions_take_the_right_to_read(http: TestClient, services: FakeServices, path: str) -> None:
    services.may = frozenset(Right) - {Right.READ, Right.OPERATE}
    problem(http.get(path), AdminReason.RIGHT_MISSING)


def test_a_browser_that_comes_again_says_in_a_header_where_it_was(
    http: TestClient, services: FakeServices
) -> None:
    http.get("/v1/decisions/stream", params={"after": "older"}, headers={"last-event-id": ID})
    http.get("/v1/decisions/stream", params={"after": ID})
    assert [after for _, after, _ in services.decisions.asked] == [ID, ID]
    assert services.decisions.stream.closed


def test_events_are_told_in_their_form(http: TestClient, services: FakeServices) -> None:
    stream = services.decisions.stream
    stream.ended.clear()
    stream.looks = [
        Looked([], None, True, False, False),
        Looked([("a", b'{"n":1}'), ("b", b'{"n":2}')], "c", False, False, False),
        Looked([], "d", False, False, True),
    ]
    answer = http.get("/v1/decisions/stream")
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    told = list(events(answer.text.splitlines()))
    assert [(each["event"], each["id"]) for each in told] == [
        ("gap", None),
        ("decision", "a"),
        ("decision", "b"),
        ("end", "d"),
    ]
    assert json.loads(told[-1]["data"])["reason"] == "too_slow"
    assert services.decisions.slow == 1
    assert stream.closed


def events(lines: Any) -> Iterator[dict[str, Any]]:
    """As a browser reads them: comments are nothing, an event without data is told to nobody."""
    event: dict[str, Any] = {"event": "message", "data": None}
    last: str | None = None
    for line in lines:
        if line == "":
            if event["data"] is not None:
                yield event | {"id": last}
            event = {"event": "message", "data": None}
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "id":
            last = value
        elif field in ("event", "data"):
            event[field] = value


# ---- a real server ----------------------------------------------------------------------------------------


@pytest.fixture
def root(minimal_directory: Path) -> Path:
    with (minimal_directory / "signalwarden.yaml").open("a") as file:
        digest = hashlib.sha256(TOKEN.encode()).hexdigest()
        file.write(
            f'clients: [{{id: "{OPERATOR}", may: [operate], token_sha256: "{digest}", expires: "2099-01-01T00:00:00Z"}}]\n'
            "decision_log: {rotate_bytes: 65536}\n"
        )
    return minimal_directory


@pytest.fixture
def app(root: Path) -> Iterator[App]:
    with running(root) as app:
        yield app


HEADERS = {"authorization": f"Bearer {TOKEN}"}


def get(app: App, path: str, **params: Any) -> httpx.Response:
    return httpx.get(f"http://{app.admin_address}{path}", headers=HEADERS, params=params, timeout=TIMEOUT_S)


class Follower:
    """A client of the stream in a thread of its own."""

    def __init__(self, app: App, *, last: str | None = None, **params: str) -> None:
        self.told: list[dict[str, Any]] = []
        self.begun = threading.Event()
        self._address = f"http://{app.admin_address}/v1/decisions/stream"
        self._headers = HEADERS | ({"last-event-id": last} if last else {})
        self._params = params
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        assert self.begun.wait(TIMEOUT_S)

    def _run(self) -> None:
        with httpx.stream(
            "GET", self._address, headers=self._headers, params=self._params, timeout=TIMEOUT_S
        ) as answer:
            assert answer.status_code == 200
            lines = answer.iter_lines()
            next(lines)
            self.begun.set()
            for event in events(lines):
                self.told.append(event)

    @property
    def ids(self) -> list[str]:
        return [each["id"] for each in self.told if each["event"] == "decision"]

    @property
    def end(self) -> str | None:
        ends = [json.loads(each["data"])["reason"] for each in self.told if each["event"] == "end"]
        return ends[0] if ends else None


def written(app: App) -> list[str]:
    """Ids of decisions in the log, oldest first, as its API lists them."""
    answer = get(app, "/v1/decisions", limit=1_000).json()
    return [each["decision_id"] for each in reversed(answer["decisions"])]


def test_decisions_are_listed_shown_and_followed_as_they_are_written(
    app: App, eventually: Eventually
) -> None:
    check(app, b"\xff")
    eventually(lambda: len(written(app)) == 1)
    follower = Follower(app, outcome="deny", reason="malformed_request")
    others = Follower(app, outcome="allow")
    for _ in range(3):
        check(app, b"\xff")
    eventually(lambda: len(follower.ids) == 3)
    known = written(app)
    assert follower.ids == known[1:]
    assert others.ids == []
    shown = get(app, f"/v1/decisions/{known[2]}")
    assert shown.headers["content-type"] == "application/json"
    assert shown.content.decode() == follower.told[1]["data"]
    onwards = get(app, "/v1/decisions", after=known[1]).json()
    assert [each["decision_id"] for each in onwards["decisions"]] == known[2:]
    assert get(app, f"/v1/decisions/{ID}").json()["reason"] == "decision_unknown"


def test_a_stream_resumes_from_the_last_id_over_rotation_and_tells_each_once(
    app: App, root: Path, eventually: Eventually
) -> None:
    first = Follower(app)
    for _ in range(100):
        check(app, b"\xff")
    eventually(lambda: len(first.ids) == 100)
    resumed = Follower(app, last=first.ids[9])
    for _ in range(100):
        check(app, b"\xff")
    eventually(lambda: len(first.ids) == 200 and len(resumed.ids) == 190)
    assert len(list((root / "var").glob("decisions-0*.jsonl"))) >= 1
    assert len(set(first.ids)) == 200
    assert resumed.ids == first.ids[10:]


def test_a_stop_ends_streams_with_a_word_and_at_once(root: Path, eventually: Eventually) -> None:
    with running(root) as app:
        follower = Follower(app)
        begun = time.monotonic()
    follower.thread.join(TIMEOUT_S)
    assert follower.end == "stopping"
    assert time.monotonic() - begun < admin_decisions.SEND_S


def test_a_stream_ends_when_its_clients_entry_is_gone(app: App, root: Path, eventually: Eventually) -> None:
    follower = Follower(app)
    settings = root / "signalwarden.yaml"
    settings.write_text(settings.read_text().replace("may: [operate]", "may: [publish]"))
    app.reload("test")
    eventually(lambda: follower.end == "right_ended")


def test_a_client_that_is_gone_gives_its_place_back(app: App, eventually: Eventually) -> None:
    def streams() -> float:
        return app.decisions.numbers()["decision_streams"]

    with raw_stream(app):
        eventually(lambda: streams() == 1)
    eventually(lambda: streams() == 0)


def test_a_client_that_reads_nothing_is_cut_off_and_slows_nobody(
    app: App,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    eventually: Eventually,
) -> None:
    # Far more than the follower beside it ever needs, also on a busy machine: only who reads nothing is cut off.
    monkeypatch.setattr(admin_decisions, "SEND_S", 3.0)
    monkeypatch.setattr(admin_decisions, "HEARTBEAT_S", 60.0)
    monkeypatch.setattr(desk, "MAX_BEHIND_BYTES", 1 << 40)
    engine, large = app._up().engine, bytes(check_request(path="/" + "x" * 7_000))
    with raw_stream(app) as stuck:
        follower = Follower(app)
        eventually(lambda: app.decisions.numbers()["decision_streams"] == 2)
        told = 0
        deadline = time.monotonic() + 60
        while app.decisions.numbers()["decision_streams_slow"] == 0:
            assert time.monotonic() < deadline
            for _ in range(20):
                engine.check(large)
            told += 20
            time.sleep(0.05)
        eventually(lambda: len(follower.ids) == told, within_s=30)
        eventually(lambda: app.decisions.numbers()["decision_streams"] == 1)
        assert follower.end is None
        stuck.settimeout(TIMEOUT_S)
        # What lay in the system's hands is still there; then the answer breaks off in its midst.
        assert not b"".join(iter(lambda: stuck.recv(1 << 20), b"")).endswith(b"0\r\n\r\n")
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []


@contextmanager
def raw_stream(app: App) -> Iterator[socket.socket]:
    """A client that asks for the stream, takes little into its own buffer and reads only what a test reads."""
    host, port = app.admin_address.split(":")
    with socket.socket() as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        opened.connect((host, int(port)))
        token = HEADERS["authorization"]
        opened.sendall(
            f"GET /v1/decisions/stream HTTP/1.1\r\nhost: x\r\nauthorization: {token}\r\n\r\n".encode()
        )
        yield opened
