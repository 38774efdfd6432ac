"""`signals.ssf.push`, `.poll`, `.source` and `.desk`: how SETs come, what is answered, and when they are acknowledged."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from signalwarden import _core
from signalwarden.errors import FeedError, KeySetError, SignalwardenError, StateError
from signalwarden.outbound import fetch
from signalwarden.signals import Feed, Seams
from signalwarden.signals.ssf import SSF, Desk, SsfSource
from signalwarden.signals.ssf.poll import BACKOFF_FACTOR, MAX_TAKEN, Poller, PollSettings
from signalwarden.signals.ssf.push import CONTENT_TYPE, take_pushed
from signalwarden.signals.ssf.set import ErrorCode, SetRefusedError
from signalwarden.signals.ssf.source import MAX_SETS_A_SECOND
from signalwarden.signals.ssf.stream import Outcome
from tests.conftest import Eventually
from tests.transmitter import AUDIENCE, ISSUER, Key, PollServer, Transmitter, key_set


class FakeStream:
    """Takes whatever comes, or answers with the fault that a SET is named after."""

    feed = "idp"

    def __init__(self) -> None:
        self.taken: list[tuple[bytes, str | None]] = []
        self.silences = 0
        self.seen: set[bytes] = set()
        self.faults: dict[bytes, Exception] = {}

    def take(self, raw: bytes, *, jti: str | None = None) -> Outcome:
        if raw in self.faults:
            raise self.faults[raw]
        self.taken.append((raw, jti))
        if raw in self.seen:
            return Outcome.DUPLICATE
        self.seen.add(raw)
        return Outcome.ACCEPTED

    def heard(self) -> None:
        self.silences += 1


@pytest.fixture
def stream() -> FakeStream:
    return FakeStream()


# ---- push -------------------------------------------------------------------------------------------------


def pushed(
    stream: Any, kind: str | None = CONTENT_TYPE, body: bytes = b"set"
) -> tuple[int, Any, Mapping[str, str]]:
    answer = take_pushed(stream, kind, body)
    return answer.status, json.loads(answer.body) if answer.body else None, answer.headers


@pytest.mark.parametrize("kind", [CONTENT_TYPE, "Application/SecEvent+JWT", f"{CONTENT_TYPE}; charset=utf-8"])
def test_a_set_that_is_kept_is_answered_with_202_and_nothing(stream: FakeStream, kind: str) -> None:
    assert pushed(stream, kind) == (202, None, {})
    assert stream.taken == [(b"set", None)]


@pytest.mark.parametrize("kind", [None, "", "application/json", "application/jwt", "text/plain"])
def test_a_body_of_another_type_is_no_set(stream: FakeStream, kind: str | None) -> None:
    status, body, headers = pushed(stream, kind)
    assert (status, body["err"]) == (400, "invalid_request")
    assert (headers["content-type"], headers["content-language"]) == ("application/json", "en")
    assert stream.taken == []


@pytest.mark.parametrize("code", ErrorCode)
def test_a_refused_set_is_answered_with_its_code(stream: FakeStream, code: ErrorCode) -> None:
    stream.faults[b"set"] = SetRefusedError(code, "why")
    assert pushed(stream)[:2] == (400, {"err": code.value, "description": "why"})


@pytest.mark.parametrize("fault", [StateError("the disk is full"), KeySetError("nobody answers")])
def test_a_set_that_must_come_again_is_answered_with_503(
    stream: FakeStream, fault: SignalwardenError
) -> None:
    stream.faults[b"set"] = fault
    status, body, headers = pushed(stream)
    assert (status, list(body)) == (503, ["description"])
    assert str(fault) not in body["description"]
    assert int(headers["retry-after"]) > 0


def test_a_feed_that_is_not_pushed_is_not_found() -> None:
    assert pushed(None)[0] == 404


# ---- poll -------------------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[PollServer]:
    with PollServer() as server:
        yield server


def poller(stream: Any, server: PollServer, tmp_path: Path, interval_s: float = 0.05) -> Poller:
    token = tmp_path / "token"
    token.write_text(server.token + "\n")
    settings = PollSettings(server.url, interval_s, 5.0, token_file=token)
    return Poller(stream, settings, fetch, uniform=lambda low, high: 0.0)


def test_a_poll_asks_as_the_rfc_says(stream: FakeStream, server: PollServer, tmp_path: Path) -> None:
    assert poller(stream, server, tmp_path).ask() is False
    assert server.requests == [{"maxEvents": 100, "returnImmediately": True}]
    assert server.headers[0]["content-type"] == "application/json"
    assert server.headers[0]["accept"] == "application/json"
    assert stream.silences == 1


def test_sets_are_acknowledged_once_they_are_kept_and_then_never_again(
    stream: FakeStream, server: PollServer, tmp_path: Path
) -> None:
    server.offer("a", b"set-a")
    server.offer("b", b"set-b")
    asking = poller(stream, server, tmp_path)
    assert asking.ask() is True
    assert stream.taken == [(b"set-a", "a"), (b"set-b", "b")]
    assert set(server.waiting) == {"a", "b"}
    assert asking.ask() is False
    assert server.requests[1]["ack"] == ["a", "b"]
    assert server.waiting == {}
    asking.ask()
    assert "ack" not in server.requests[2]


def test_a_refused_set_is_told_with_its_code_and_language(
    stream: FakeStream, server: PollServer, tmp_path: Path
) -> None:
    stream.faults[b"bad"] = SetRefusedError(ErrorCode.INVALID_AUDIENCE, "`aud` does not name this receiver")
    server.offer("bad", b"bad")
    server.offer("good", b"good")
    asking = poller(stream, server, tmp_path)
    asking.ask()
    asking.ask()
    assert server.refused == {
        "bad": {"err": "invalid_audience", "description": "`aud` does not name this receiver"}
    }
    assert server.headers[1]["content-language"] == "en"
    assert server.waiting == {}


@pytest.mark.parametrize("fault", [StateError("the disk is full"), KeySetError("nobody answers")])
def test_a_set_that_cannot_be_kept_is_not_acknowledged_and_comes_again(
    stream: FakeStream, server: PollServer, tmp_path: Path, fault: Exception
) -> None:
    server.offer("a", b"a")
    server.offer("b", b"b")
    stream.faults[b"b"] = fault
    asking = poller(stream, server, tmp_path)
    with pytest.raises(type(fault)):
        asking.ask()
    with pytest.raises(type(fault)):
        asking.ask()
    assert server.requests[1]["ack"] == ["a"]
    assert "setErrs" not in server.requests[1]
    assert set(server.waiting) == {"b"}
    stream.faults.clear()
    asking.ask()
    asking.ask()
    assert server.waiting == {}


def test_what_could_not_be_acknowledged_is_acknowledged_later(
    stream: FakeStream, server: PollServer, tmp_path: Path
) -> None:
    server.offer("a", b"a")
    asking = poller(stream, server, tmp_path)
    asking.ask()
    server.answer = (500, b"{}")
    with pytest.raises(FeedError, match="status 500"):
        asking.ask()
    server.answer = None
    asking.ask()
    assert [request.get("ack") for request in server.requests] == [None, ["a"], ["a"]]
    assert server.waiting == {}


@pytest.mark.parametrize(
    "answer",
    [
        (204, b""),
        (401, b"{}"),
        (503, b"{}"),
        (200, b""),
        (200, b"\xff"),
        (200, b"[]"),
        (200, b"{}"),
        (200, b'{"sets":[]}'),
        (200, b'{"sets":null}'),
        (200, b"[" * 100_000),
    ],
)
def test_an_answer_that_is_none_changes_nothing(
    stream: FakeStream, server: PollServer, tmp_path: Path, answer: tuple[int, bytes]
) -> None:
    server.answer = answer
    with pytest.raises(FeedError) as error:
        poller(stream, server, tmp_path).ask()
    assert server.token not in str(error.value)
    assert (stream.taken, stream.silences) == ([], 0)


def test_sets_that_cannot_be_named_are_left_alone(
    stream: FakeStream, server: PollServer, tmp_path: Path
) -> None:
    sets = {"": "a.b.c", "x" * 300: "a.b.c", "n": 7, "u": "\u00e9", "good": "a.b.c"}
    server.answer = (200, json.dumps({"sets": sets, "moreAvailable": "yes"}).encode())
    asking = poller(stream, server, tmp_path)
    assert asking.ask() is True
    assert asking.ask() is False, "the same sets again are no reason for haste"
    assert [jti for _, jti in stream.taken] == ["good", "good"]
    assert stream.silences == 0


def test_of_one_answer_only_so_many_are_taken(stream: FakeStream, server: PollServer, tmp_path: Path) -> None:
    server.answer = (200, json.dumps({"sets": {str(at): f"set{at}" for at in range(2 * MAX_TAKEN)}}).encode())
    poller(stream, server, tmp_path).ask()
    assert len(stream.taken) == MAX_TAKEN


def test_a_token_that_cannot_be_read_is_a_failure_that_does_not_say_it(
    stream: FakeStream, server: PollServer, tmp_path: Path
) -> None:
    asking = poller(stream, server, tmp_path)
    (tmp_path / "token").write_text("two words")
    with pytest.raises(FeedError) as error:
        asking.ask()
    assert "two words" not in str(error.value)
    assert server.requests == []


def test_pauses_grow_with_failures_and_no_further(
    stream: FakeStream, server: PollServer, tmp_path: Path
) -> None:
    asking = poller(stream, server, tmp_path, interval_s=30)
    assert [asking._pause(failures) for failures in (0, 1, 2, 3, 4, 1_000)] == [30, 60, 120, 240, 300, 300]
    assert BACKOFF_FACTOR == 10
    asking._uniform = lambda low, high: high
    assert asking._pause(0) == pytest.approx(33)


def test_a_poller_runs_until_it_is_stopped_and_may_start_again(
    stream: FakeStream, server: PollServer, tmp_path: Path, eventually: Eventually
) -> None:
    running = poller(stream, server, tmp_path)
    running.stop()
    server.answer = (500, b"{}")
    running.start()
    running.start()
    eventually(lambda: running.status().failures > 1)
    assert running.status().last_error == "the transmitter answered a poll with status 500"
    server.answer = None
    for at in range(250):
        server.offer(str(at), f"set-{at}".encode())
    eventually(lambda: not server.waiting)
    eventually(lambda: running.status().last_error is None)
    running.stop()
    asked = len(server.requests)
    assert running.status().running is False
    running.start()
    eventually(lambda: len(server.requests) > asked)
    running.stop()


# ---- a feed of the register -------------------------------------------------------------------------------

SETTINGS: dict[str, Any] = {
    "issuer": ISSUER,
    "audience": AUDIENCE,
    "keys": {"file": "keys.json", "refresh_ms": 600_000},
    "delivery": "push",
    "members": {"tenant": "T-1"},
    "critical_members": ["user"],
    "retention_ms": 86_400_000,
}
POLL = {"url": "https://idp.example/poll", "interval_ms": 30_000, "timeout_ms": 10_000, "token_file": "token"}


class FakeDocuments(dict[str, bytes]):
    """The store's documents."""

    def keep(self, key: str, value: bytes) -> None:
        self[key] = value

    def kept(self, key: str) -> bytes | None:
        return self.get(key)


class FakeCore:
    """Knows one stream, and takes every change."""

    def stream(self, feed: str, **moved: Any) -> _core.StoredChange:
        return _core.StoredChange(feed, True, json.dumps(moved).encode())

    def feeds(self) -> bytes:
        known = {
            "feed": "idp",
            "kind": "ssf",
            "verified_at": "2026-11-24T10:00:00Z",
            "in_sync": True,
            "suspended": None,
        }
        return json.dumps([known, known | {"feed": "broken", "verified_at": None, "in_sync": False}]).encode()


def seams(root: Path, **more: Any) -> Seams:
    return Seams(root, lambda body, origin: b"", lambda: 1_764_000_000.0, **more)


def source(root: Path, **changed: Any) -> SsfSource:
    feed = Feed("idp", "ssf", SETTINGS | changed, ())
    made = SSF.build(
        SSF.read(feed, root),
        seams(root, core=FakeCore(), keep=lambda make: make(), documents=FakeDocuments()),
    )
    assert isinstance(made, SsfSource)
    return made


def test_equal_settings_are_equal_and_any_change_is_one(tmp_path: Path) -> None:
    def read(settings: Any = SETTINGS, signals: tuple[Any, ...] = ()) -> Any:
        return SSF.read(Feed("idp", "ssf", settings, signals), tmp_path)

    assert read() == read(dict(SETTINGS))
    contract = {"name": "s", "subject": "device", "sources": []}
    changes = [
        read(SETTINGS | {"issuer": "x"}),
        read(SETTINGS | {"members": {}}),
        read(SETTINGS | {"delivery": "poll", "poll": POLL}),
        read(SETTINGS | {"keys": {"url": "https://idp.example/jwks", "refresh_ms": 1}}),
        read(signals=(contract,)),
    ]
    assert all(change != read() for change in changes)


@pytest.mark.parametrize("name", ["../keys.json", "a/../../keys.json"])
def test_a_path_does_not_lead_out_of_the_directory(tmp_path: Path, name: str) -> None:
    with pytest.raises(FeedError, match="leads out"):
        source(tmp_path, keys={"file": name, "refresh_ms": 1})


def test_a_feed_needs_the_core(tmp_path: Path) -> None:
    with pytest.raises(SignalwardenError):
        SSF.build(SSF.read(Feed("idp", "ssf", SETTINGS, ()), tmp_path), seams(tmp_path))


def test_a_source_takes_what_is_pushed_while_it_runs(tmp_path: Path) -> None:
    sender = Transmitter(Key.make("EdDSA"))
    (tmp_path / "keys.json").write_bytes(key_set(sender.key))
    made = source(tmp_path)
    made.start()
    assert made.push(CONTENT_TYPE, sender.verification(1_764_000_000)).status == 202
    assert made.push(CONTENT_TYPE, b"x").status == 400
    status = made.status()
    assert (status.running, status.batches, status.failures) == (True, 2, 1)
    assert status.last_success == 1_764_000_000.0
    made.stop()
    assert made.push(CONTENT_TYPE, sender.verification(1_764_000_000)).status == 503
    assert made.status().running is False


def test_a_source_that_polls_is_not_pushed_to(tmp_path: Path) -> None:
    made = source(tmp_path, delivery="poll", poll=POLL)
    assert made.push(CONTENT_TYPE, b"x").status == 404
    assert (made.delivery, made.kind) == ("poll", "ssf")


def test_whoever_pushes_too_much_at_once_is_told_to_wait(tmp_path: Path) -> None:
    made = source(tmp_path)
    answers = [made.push(None, b"x") for _ in range(2 * MAX_SETS_A_SECOND + 400)]
    assert {answer.status for answer in answers} == {400, 429}
    assert int(answers[-1].headers["retry-after"]) >= 1


class Sources:
    def __init__(self, source: SsfSource) -> None:
        self.known = source

    def source(self, feed: str) -> SsfSource | None:
        return self.known if feed == "idp" else None


def test_the_desk_knows_every_stream_and_says_how_it_is(tmp_path: Path) -> None:
    made = source(tmp_path)
    made.start()
    desk = Desk(Sources(made), FakeCore().feeds)
    assert desk.push("other", CONTENT_TYPE, b"x").status == 404
    assert desk.push("idp", CONTENT_TYPE, b"x").status == 400
    known, broken = json.loads(desk.streams())["streams"]
    assert (known["feed"], known["delivery"], known["in_sync"]) == ("idp", "push", True)
    assert known["sets"] == {"accepted": 0, "ignored": 0, "duplicate": 0, "unprocessed": 0}
    assert known["refused"] == {"invalid_request": 1}
    assert (broken["feed"], broken["running"]) == ("broken", False)
    numbers = desk.numbers()
    assert numbers["ssf_refused_invalid_request"] == 1
    assert (numbers["ssf_accepted_idp"], numbers["ssf_accepted_broken"]) == (0, 0)


def test_an_operator_vouches_for_a_stream_that_there_is(tmp_path: Path) -> None:
    made = source(tmp_path)
    desk = Desk(Sources(made), FakeCore().feeds)
    assert desk.resynchronise("idp", "spiffe://prod.example/operator") is True
    assert desk.resynchronise("other", "spiffe://prod.example/operator") is False
