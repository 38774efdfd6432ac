"""A session that is revoked at the identity provider ends the tasks of its principal, at a running server."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import grpc
import httpx
import pytest

from tests.e2e.test_tasks import AGENT, CLIENTS, HELPER, POLICIES, ROUTES, TASKS, TIMEOUT_S, House
from tests.serving import running
from tests.transmitter import AUDIENCE, ISSUER, Key, Transmitter, key_set

pytestmark = pytest.mark.usefixtures("front")

TRANSMITTER, TOKEN = "spiffe://prod.example/transmitter", "token-of-the-transmitter"
REGISTER = f"""\
feeds:
  idp:
    kind: ssf
    issuer: "{ISSUER}"
    audience: "{AUDIENCE}"
    keys: {{file: keys.json}}
    delivery: push
signals:
  session_good:
    type: bool
    description: Whether the session still stands
    owner: team-identity@prod.example
    purpose: Keep out whose session was revoked
    subject: principal
    sources:
      - kind: ssf
        feed: idp
        assurance: sourced
        events: {{session-revoked: {{value: false}}, session-established: {{value: true}}}}
    max_age: 1h
    influence: restrict
    used_by: [crm.export]
    review_by: 2099-01-01
"""
POLICY = """\
@id("out") forbid (principal, action == Action::"crm.export", resource)
when { context.signals has session_good && !context.signals.session_good };
"""


@pytest.fixture
def transmitter() -> Transmitter:
    return Transmitter(Key.make("RS256"))


@pytest.fixture
def root(minimal_directory: Path, transmitter: Transmitter) -> Path:
    settings = minimal_directory / "signalwarden.yaml"
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    client = f'  - {{id: "{TRANSMITTER}", may: [publish], token_sha256: "{digest}", expires: "2099-01-01T00:00:00Z"}}\n'
    settings.write_text(f"{settings.read_text()}{TASKS}{CLIENTS}{client}")
    (minimal_directory / "routes.yaml").write_text(ROUTES)
    (minimal_directory / "policies/pages.cedar").write_text(POLICIES + POLICY)
    (minimal_directory / "signals.yaml").write_text(REGISTER)
    (minimal_directory / "keys.json").write_bytes(key_set(transmitter.key))
    return minimal_directory


def push(house: House, raw: bytes) -> None:
    headers = {
        "authorization": f"Bearer {TOKEN}",
        "content-type": "application/secevent+jwt",
        "accept": "application/json",
    }
    url = f"http://{house.app.admin_address}/v1/ssf/push?feed=idp"
    answer = httpx.post(url, headers=headers, content=raw, timeout=TIMEOUT_S)
    assert answer.status_code == 202, answer.text


def test_a_revoked_session_ends_the_tasks_of_its_principal_and_their_parts(
    root: Path, transmitter: Transmitter
) -> None:
    def event(kind: str, at: float) -> bytes:
        return transmitter.event(time.time(), kind, {"format": "uri", "uri": AGENT}, event_timestamp=at)

    with running(root) as app, grpc.insecure_channel(app.check_address) as channel:
        house = House(root, app, channel)
        begun_before = time.time()
        task, other = house.begin(), house.begin(principal=HELPER)
        part = house.begin(client=AGENT, parent=task["task_id"], principal=HELPER)
        push(house, event("session-revoked", begun_before - 60))
        push(house, event("session-established", begun_before - 30))
        assert house.ask(task["grant"]) == "allowed"  # it was given after that session had ended
        revoked = event("session-revoked", time.time())
        push(house, revoked)
        assert house.ask(task["grant"]) == "grant_revoked"
        assert house.ask(part["grant"], principal=HELPER) == "grant_revoked"
        assert house.ask(other["grant"], principal=HELPER) == "allowed"
        assert (house.state(task), house.state(part), house.state(other)) == (
            "standing_lost",
            "parent_ended",
            "live",
        )
        time.sleep(1.1)  # whoever writes whole seconds means the whole of one
        fresh = house.begin()
        assert house.ask(fresh["grant"]) == "allowed"
    with running(root) as app, grpc.insecure_channel(app.check_address) as channel:
        house = House(root, app, channel)
        push(house, revoked)  # sent again, since the transmitter never saw the answer
        push(house, event("session-revoked", begun_before - 3_600))
        assert house.ask(task["grant"]) == "grant_revoked"
        assert house.ask(fresh["grant"]) == "allowed"
    with running(root) as app, grpc.insecure_channel(app.check_address) as channel:
        house = House(root, app, channel)
        assert house.ask(task["grant"]) == "grant_revoked"
        assert house.ask(fresh["grant"]) == "allowed"
        lost = [line for line in house.records() if line.get("change") == "standing_lost"]
    assert {line["principal"] for line in lost} == {AGENT}
    assert len(lost) == 4
