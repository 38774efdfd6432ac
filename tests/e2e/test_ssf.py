"""Security events over real HTTP to the real server, pushed and polled: an event turns an allow into a denial."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from signalwarden.app import App
from signalwarden.server import CHECK_METHOD
from signalwarden.signals.feeds import Feeds
from tests.asking import AGENT, check_request, reason_of
from tests.conftest import Eventually
from tests.transmitter import AUDIENCE, CAEP, ISSUER, Key, PollServer, Transmitter, key_set

OTHER = "spiffe://prod.example/other"
TIMEOUT_S = 10.0
TOKENS = {"transmitter": "token-of-the-transmitter", "operator": "token-of-the-operator"}
CLIENTS = "clients:\n" + "".join(
    f'  - {{id: "spiffe://prod.example/{name}", may: [{may}], expires: "2099-01-01T00:00:00Z",'
    f' token_sha256: "{hashlib.sha256(TOKENS[name].encode()).hexdigest()}"}}\n'
    for name, may in (("transmitter", "publish"), ("operator", "operate"))
)
PUSH = "    delivery: push\n"
REGISTER = f"""\
feeds:
  idp:
    kind: ssf
    issuer: "{ISSUER}"
    audience: "{AUDIENCE}"
    keys: {{file: keys.json}}
DELIVERY\
signals:
  session_good:
    type: bool
    description: Whether the workload's session still stands
    owner: team-identity@prod.example
    purpose: Keep out whose session was revoked
    subject: principal
    sources:
      - kind: ssf
        feed: idp
        assurance: sourced
        while_live: true
        events: {{session-revoked: {{value: false}}, session-established: {{value: true}}}}
    max_age: 1h
    influence: grant
    used_by: [page.read]
    review_by: 2099-01-01
"""
POLICY = """\
permit (principal, action == Action::"page.read", resource)
when { context.signals has session_good && context.signals.session_good };
"""


class Server:
    """A running app and what is asked of it."""

    def __init__(self, app: App) -> None:
        self.app = app

    def http(self, method: str, path: str, token: str = "operator", **more: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {TOKENS[token]}", **more.pop("headers", {})}
        url = f"http://{self.app.admin_address}{path}"
        return httpx.request(method, url, headers=headers, timeout=TIMEOUT_S, **more)

    def push(self, raw: bytes, token: str = "transmitter") -> tuple[int, str]:
        headers = {"content-type": "application/secevent+jwt", "accept": "application/json"}
        answer = self.http("POST", "/v1/ssf/push?feed=idp", token, content=raw, headers=headers)
        return answer.status_code, answer.json()["err"] if answer.status_code == 400 else answer.text

    def vouch(self) -> None:
        assert self.http("POST", "/v1/ssf/resynchronise", json={"feed": "idp"}).json() == {"feed": "idp"}

    def stream(self) -> dict[str, Any]:
        streams: list[dict[str, Any]] = self.http("GET", "/v1/ssf").json()["streams"]
        return streams[0]

    def decide(self, principal: str) -> str:
        request = bytes(check_request(principal=principal))
        with grpc.insecure_channel(self.app.check_address) as opened:
            call = opened.unary_unary(CHECK_METHOD, request_serializer=bytes, response_deserializer=bytes)
            return reason_of(call(request, timeout=TIMEOUT_S))


@contextmanager
def running(root: Path) -> Iterator[Server]:
    app = App(root)
    app.start()
    try:
        yield Server(app)
    finally:
        app.stop()


@pytest.fixture
def transmitter() -> Transmitter:
    return Transmitter(Key.make("RS256"))


@pytest.fixture
def root(minimal_directory: Path, transmitter: Transmitter) -> Path:
    with (minimal_directory / "signalwarden.yaml").open("a") as file:
        file.write(CLIENTS)
    (minimal_directory / "keys.json").write_bytes(key_set(transmitter.key))
    (minimal_directory / "policies/pages.cedar").write_text(POLICY)
    (minimal_directory / "signals.yaml").write_text(REGISTER.replace("DELIVERY", PUSH))
    return minimal_directory


def workload(name: str) -> dict[str, Any]:
    return {"format": "uri", "uri": name}


def changes(root: Path, kind: str) -> list[dict[str, Any]]:
    lines = (root / "var/decisions.jsonl").read_bytes().splitlines()
    return [record for record in map(json.loads, lines) if record.get("change") == kind]


def test_a_pushed_event_revokes_one_and_leaves_the_others_to_the_resting_value(
    root: Path, transmitter: Transmitter
) -> None:
    with running(root) as server:
        assert server.decide(AGENT) == "signal_unavailable"  # nobody knows what was missed
        assert server.push(transmitter.verification(time.time())) == (202, "")
        assert server.decide(AGENT) == "signal_unavailable"
        server.vouch()
        assert server.decide(AGENT) == server.decide(OTHER) == "allowed"
        revoked = transmitter.event(
            time.time(), "session-revoked", workload(AGENT), event_timestamp=time.time()
        )
        assert server.push(revoked) == (202, "")
        assert (server.decide(AGENT), server.decide(OTHER)) == ("no_policy_permits", "allowed")
        assert server.push(revoked) == (202, "")
        assert server.stream()["sets"] == {"accepted": 2, "ignored": 0, "duplicate": 1, "unprocessed": 0}
    with running(root) as server:
        assert (server.decide(AGENT), server.decide(OTHER)) == ("no_policy_permits", "allowed")
        assert server.push(revoked)[0] == 202
        assert (server.decide(AGENT), server.decide(OTHER)) == ("no_policy_permits", "allowed")
        metrics = server.http("GET", "/metrics").text
        assert 'signalwarden_feed_in_sync{feed="idp"} 1.0' in metrics
        assert 'signalwarden_ssf_accepted_total{feed="idp"} 1.0' in metrics


def test_an_event_that_is_not_understood_suspends_the_resting_value_until_somebody_vouches(
    root: Path, transmitter: Transmitter
) -> None:
    with running(root) as server:
        server.push(transmitter.verification(time.time()))
        server.vouch()
        server.push(transmitter.event(time.time(), "session-established", workload(AGENT)))
        assert server.decide(AGENT) == server.decide(OTHER) == "allowed"
        unclear = transmitter.event(
            time.time(), "session-revoked", {"format": "email", "email": "jane@prod.example"}
        )
        assert server.push(unclear) == (202, "")
        assert (server.decide(AGENT), server.decide(OTHER)) == ("allowed", "signal_unavailable")
        assert server.stream()["in_sync"] is False
        server.vouch()
        assert server.decide(OTHER) == "allowed"
    (suspended,) = changes(root, "stream_suspended")
    assert suspended["feed"] == "idp"
    assert "jane" not in json.dumps(suspended)
    assert [record["actor"] for record in changes(root, "stream_resynchronised")] == [
        "spiffe://prod.example/operator"
    ] * 2


def test_poisoned_sets_change_nothing_and_are_answered_as_the_rfc_says(
    root: Path, transmitter: Transmitter
) -> None:
    def claims(**more: Any) -> dict[str, Any]:
        return transmitter.claims(time.time(), {CAEP + "session-revoked": {}}, workload(AGENT), **more)

    good = transmitter.sign(claims())
    poisoned = {
        b"poison": "invalid_request",
        good[:-8] + b"AAAAAAAA": "authentication_failed",
        transmitter.sign(claims(), alg="none"): "authentication_failed",
        transmitter.sign(claims(), alg="HS256"): "invalid_key",
        transmitter.sign(claims(), key=Key.make("ES256", "k1")): "invalid_key",
        transmitter.sign(claims(), typ="JWT"): "invalid_request",
        transmitter.sign(claims(iss="https://evil.example")): "invalid_issuer",
        transmitter.sign(claims(aud="https://evil.example")): "invalid_audience",
        transmitter.sign(claims(sub=AGENT)): "invalid_request",
        transmitter.sign(claims(exp=time.time() + 60)): "invalid_request",
    }
    with running(root) as server:
        server.push(transmitter.verification(time.time()))
        server.vouch()
        before = server.stream() | {"refused": None, "last_error": None}
        for raw, code in poisoned.items():
            assert server.push(raw) == (400, code)
        assert server.push(good, token="operator") == (400, "access_denied")
        assert server.stream() | {"refused": None, "last_error": None} == before
        assert server.decide(AGENT) == "allowed"
        assert server.http("GET", "/v1/signals").json()["signals"] == []


def test_a_contract_that_reads_more_events_is_vouched_for_anew(
    root: Path, transmitter: Transmitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    register = (root / "signals.yaml").read_text()
    with running(root) as server:
        server.push(transmitter.verification(time.time()))
        server.vouch()
        server.push(transmitter.event(time.time(), "session-established", workload(AGENT)))
        assert server.push(transmitter.event(time.time(), "credential-change", workload(OTHER)))[0] == 202
        assert server.decide(AGENT) == server.decide(OTHER) == "allowed"  # it is no concern of the contract
        changed = register.replace("events: {", "events: {credential-change: {value: false}, ")
        (root / "signals.yaml").write_text(changed)
        adopt = server.app._up().feeds.adopt
        with monkeypatch.context() as patch:  # what runs has not followed yet
            patch.setattr(Feeds, "adopt", lambda *_: None)
            server.app.reload("SIGHUP")
        assert (server.decide(AGENT), server.decide(OTHER)) == ("allowed", "signal_unavailable")
        adopt(server.app._up().reloads.loaded.described())
        assert server.decide(OTHER) == "signal_unavailable"
        server.vouch()
        assert server.decide(OTHER) == "allowed"
        server.push(transmitter.event(time.time(), "credential-change", workload(OTHER)))
        assert server.decide(OTHER) == "no_policy_permits"
        (root / "signals.yaml").write_text(changed.replace("purpose: Keep out", "purpose: To keep out"))
        server.app.reload("SIGHUP")
        assert server.stream()["in_sync"] is True


def test_a_polled_event_is_acknowledged_once_it_counts(
    root: Path, transmitter: Transmitter, eventually: Eventually
) -> None:
    with PollServer() as endpoint:
        delivery = (
            f'    delivery: poll\n    poll: {{url: "{endpoint.url}", interval: 1s, token_file: token}}\n'
        )
        (root / "token").write_text(endpoint.token)
        (root / "signals.yaml").write_text(REGISTER.replace("DELIVERY", delivery))
        endpoint.offer("set-1", transmitter.verification(time.time()))
        with running(root) as server:
            server.vouch()
            eventually(lambda: server.decide(AGENT) == "allowed")
            endpoint.offer("set-2", transmitter.event(time.time(), "session-revoked", workload(AGENT)))
            endpoint.offer("poison", b"a.b.c")
            eventually(lambda: server.decide(AGENT) == "no_policy_permits")
            eventually(lambda: not endpoint.waiting)
            assert server.decide(OTHER) == "allowed"
            assert server.push(transmitter.verification(time.time()))[0] == 404
            assert server.stream()["delivery"] == "poll"
        assert endpoint.refused["poison"]["err"] == "invalid_request"


def test_a_key_that_cannot_be_had_asks_the_transmitter_to_come_again(
    root: Path, transmitter: Transmitter
) -> None:
    (root / "keys.json").unlink()
    with running(root) as server:
        status, body = server.push(transmitter.verification(time.time()))
        assert (status, "keys.json" in body) == (503, False)
        assert "keys.json" in server.stream()["keys_error"]
