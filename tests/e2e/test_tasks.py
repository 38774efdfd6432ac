"""Tasks at a running server: begun over the admin API, used as Envoy asks, ended, and what is left of their grants."""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from signalwarden.admin_client import AdminClient
from signalwarden.app import App
from signalwarden.decision_log import now_us, rfc3339
from signalwarden.server import CHECK_METHOD
from tests import asking
from tests.callers import clients, refused, who
from tests.conftest import Eventually
from tests.pages import hold
from tests.serving import running

pytestmark = pytest.mark.usefixtures("front")

TIMEOUT_S = 20.0
AGENT = asking.AGENT
HELPER = "spiffe://prod.example/helper"
ORCHESTRATOR, OPERATOR = "spiffe://prod.example/orchestrator", "spiffe://prod.example/operator"
RIGHTS = {
    ORCHESTRATOR: "tasks, workflows, read",
    AGENT: "tasks",
    HELPER: "tasks",
    OPERATOR: "operate",
}


CLIENTS = clients(RIGHTS)
TASKS = "tasks: {types: {quick: {ttl: 1s}, long: {ttl: 10m, max_depth: 1}}}\n"
ROUTES = """\
routes:
  - match: {host: "pages.example", method: GET, path: "/notes/{id}"}
    action: note.read
    resource: {type: Page, id: "{id}"}
    system: notes
    tier: jit
    sensitivity: low
    environment: prod
  - match: {host: "pages.example", method: POST, path: "/crm/{id}"}
    action: crm.export
    resource: {type: Page, id: "{id}"}
    system: crm
    tier: jit
    sensitivity: high
    environment: prod
default: deny
"""
POLICIES = """\
@id("begin") permit (principal, action == Action::"task.begin", resource)
unless { resource == TaskType::"forbidden" };
@id("delegate") permit (principal, action == Action::"task.delegate", resource);
@id("notes") permit (principal, action == Action::"note.read", resource);
@id("crm-first") permit (principal, action == Action::"crm.export", resource)
when { !context.chain.systems.contains("notes") };
"""


@dataclass
class House:
    """A running server, and the ways to it."""

    root: Path
    app: App
    channel: grpc.Channel

    def ask(
        self, grant: str | None, path: str = "/notes/1", *, principal: str = AGENT, method: str = "GET"
    ) -> str:
        """The reason of a call."""
        headers = {} if grant is None else {"x-signalwarden-grant": grant}
        request = asking.check_request(method, path=path, headers=headers, principal=principal)
        call = self.channel.unary_unary(CHECK_METHOD, request_serializer=bytes, response_deserializer=bytes)
        return asking.reason_of(bytes(call(bytes(request), timeout=TIMEOUT_S)))

    def as_client(self, name: str) -> AdminClient:
        return who(self.app, name)

    def begin(self, client: str = ORCHESTRATOR, parent: str | None = None, **asked: Any) -> dict[str, Any]:
        body = {
            "principal": AGENT,
            "type": "long",
            "actions": ["note.read", "crm.export"],
            "resources": ["Page::*"],
            **asked,
        }
        with self.as_client(client) as admin:
            return admin.begin_task(body, parent=parent)

    def end(self, task: dict[str, Any], verb: str = "complete", client: str = ORCHESTRATOR) -> Any:
        with self.as_client(client) as admin:
            return admin.end_task(task["task_id"], verb)

    def state(self, task: dict[str, Any]) -> str:
        with self.as_client(ORCHESTRATOR) as admin:
            found = admin.tasks(None, ended=True, limit=100)["tasks"]
        return str(next(entry["state"] for entry in found if entry["task_id"] == task["task_id"]))

    def records(self) -> list[dict[str, Any]]:
        """After a stop, when all is written."""
        self.app.stop()
        lines = [json.loads(line) for line in (self.root / "var/decisions.jsonl").read_bytes().splitlines()]
        hold(lines)
        return lines


@pytest.fixture
def root(minimal_directory: Path) -> Path:
    settings = minimal_directory / "signalwarden.yaml"
    settings.write_text(f"{settings.read_text()}{TASKS}{CLIENTS}")
    (minimal_directory / "routes.yaml").write_text(ROUTES)
    (minimal_directory / "policies/pages.cedar").write_text(POLICIES)
    return minimal_directory


@pytest.fixture
def house(root: Path) -> Iterator[House]:
    with running(root) as app, grpc.insecure_channel(app.check_address) as channel:
        yield House(root, app, channel)


def test_a_grant_counts_from_its_issue_to_the_completion_of_its_task(house: House) -> None:
    assert house.ask(None) == "grant_required"
    task = house.begin()
    assert house.ask(task["grant"]) == "allowed"
    assert house.end(task)["state"] == "completed"
    assert house.ask(task["grant"]) == "grant_revoked"
    assert refused(lambda: house.end(task)) == "task_ended"
    lines = house.records()
    begun = [line for line in lines if line.get("change") == "task_begun"]
    assert begun[0]["grant_sha256"] == hashlib.sha256(task["grant"].encode()).hexdigest()
    (decided,) = (
        line
        for line in lines
        if line["kind"] == "decision" and line["decision_id"] == begun[0]["decision_id"]
    )
    assert (decided["request"]["action"], decided["principal"]["id"]) == ("task.begin", ORCHESTRATOR)
    allowed = [line for line in lines if line["kind"] == "decision" and line["request"]["path"] == "/notes/1"]
    assert [line["reason"] for line in allowed] == ["grant_required", "allowed", "grant_revoked"]
    assert (allowed[1]["grant"]["task"], allowed[1]["chain"]["depth"]) == (task["task_id"], 0)
    assert task["grant"] not in (house.root / "var/decisions.jsonl").read_text()


def test_a_grant_is_its_holders_and_ours_alone(house: House) -> None:
    task = house.begin()
    assert house.ask(task["grant"], principal=HELPER) == "grant_invalid"
    head, body, signature = task["grant"].split(".")
    foreign = f"{head}.{body}.{signature[:-4]}AAAA"
    assert house.ask(foreign) == "grant_invalid"
    bound = house.begin(certificate_sha256="ab" * 32)
    assert house.ask(bound["grant"]) == "grant_invalid"
    assert house.ask("") == "grant_invalid"


def test_a_call_beyond_the_scope_is_denied(house: House) -> None:
    narrow = house.begin(actions=["note.read"], resources=['Page::"1"'], sensitivity="low")
    assert house.ask(narrow["grant"]) == "allowed"
    assert house.ask(narrow["grant"], "/notes/2") == "grant_scope_exceeded"
    assert house.ask(narrow["grant"], "/crm/1", method="POST") == "grant_scope_exceeded"
    low = house.begin(sensitivity="low")
    assert house.ask(low["grant"], "/crm/1", method="POST") == "grant_scope_exceeded"


def test_the_bad_calls_of_the_admin_door_each_have_their_reason(house: House) -> None:
    task = house.begin()
    assert refused(lambda: house.end({"task_id": "01a20d2e-e225-7eba-82f3-6812fbaf3409"})) == "task_unknown"
    with house.as_client(ORCHESTRATOR) as admin:
        assert admin.task(task["task_id"])["tasks"][0]["state"] == "live"
        assert refused(lambda: admin.task("01a20d2e-e225-7eba-82f3-6812fbaf3409")) == "task_unknown"
    assert refused(lambda: house.end(task, client=HELPER)) == "not_yours"
    assert refused(lambda: house.begin(type="forbidden")) == "policy_refused"
    assert refused(lambda: house.begin(workflow="month-end")) == "workflow_not_approved"
    assert refused(lambda: house.begin(actions=["note.raed"])) == "malformed"
    assert refused(lambda: house.begin(ttl="soon")) == "malformed"
    assert house.end(task, "revoke", client=OPERATOR)["state"] == "revoked"
    reasons = [line["reason"] for line in house.records() if line.get("change") == "call_refused"]
    assert reasons == ["task_unknown", "not_yours", "policy_refused", "workflow_not_approved"]


def test_a_part_of_a_task_never_exceeds_it_and_ends_with_it(house: House) -> None:
    task = house.begin(actions=["note.read"], sensitivity="low")
    part = house.begin(client=AGENT, parent=task["task_id"], principal=HELPER, actions=["note.read"])
    assert house.ask(part["grant"], principal=HELPER) == "allowed"
    wider = {"parent": task["task_id"], "principal": HELPER, "client": AGENT}
    assert refused(lambda: house.begin(**wider)) == "delegation_widens"
    assert (
        refused(lambda: house.begin(**wider, actions=["note.read"], sensitivity="high"))
        == "delegation_widens"
    )
    assert refused(lambda: house.begin(**wider, actions=["note.read"], ttl="20m")) == "delegation_widens"
    deeper = {"parent": part["task_id"], "principal": AGENT, "client": HELPER, "actions": ["note.read"]}
    assert refused(lambda: house.begin(**deeper)) == "delegation_widens"
    house.end(task, "revoke")
    assert house.ask(part["grant"], principal=HELPER) == "grant_revoked"
    assert house.state(part) == "parent_ended"
    records = house.records()
    assert [line.get("change") for line in records].count("call_refused") == 4
    decided = [line for line in records if line["kind"] == "decision"]
    widening = [line["request"]["action"] for line in decided if line["reason"] == "delegation_widens"]
    assert widening == ["task.delegate"] * 4


def test_policies_see_what_the_tree_has_touched_and_a_fresh_part_does_not_start_clean(house: House) -> None:
    task = house.begin()
    assert house.ask(task["grant"], "/crm/1", method="POST") == "allowed"
    assert house.ask(task["grant"]) == "allowed"
    assert house.ask(task["grant"], "/crm/1", method="POST") == "no_policy_permits"
    part = house.begin(client=AGENT, parent=task["task_id"], principal=HELPER)
    assert house.ask(part["grant"], "/crm/1", principal=HELPER, method="POST") == "no_policy_permits"


def test_what_was_touched_and_what_has_ended_outlives_a_restart(root: Path) -> None:
    with running(root) as app, grpc.insecure_channel(app.check_address) as channel:
        house = House(root, app, channel)
        task, done = house.begin(), house.begin()
        assert house.ask(task["grant"]) == "allowed"
        house.end(done)
    with running(root) as app, grpc.insecure_channel(app.check_address) as channel:
        house = House(root, app, channel)
        assert house.ask(task["grant"], "/crm/1", method="POST") == "no_policy_permits"
        assert house.ask(task["grant"]) == "allowed"
        assert house.ask(done["grant"]) == "grant_revoked"


def test_ending_a_workflow_ends_its_tasks_for_good(house: House) -> None:
    with house.as_client(ORCHESTRATOR) as admin:
        admin.move_workflow("month-end", "approved")
        task = house.begin(workflow="month-end")
        assert house.ask(task["grant"]) == "allowed"
        admin.move_workflow("month-end", "ended")
        assert house.ask(task["grant"]) == "grant_revoked"
        admin.move_workflow("month-end", "approved")
        assert house.ask(task["grant"]) == "grant_revoked"
        assert house.state(task) == "workflow_ended"
        assert house.ask(house.begin(workflow="month-end")["grant"]) == "allowed"


def test_revoking_a_principal_ends_its_tasks(house: House) -> None:
    task = house.begin()
    with house.as_client(OPERATOR) as admin:
        admin.revoke({"jti": task["task_id"], "reason": "INC-7"})
    assert house.ask(task["grant"]) == "grant_revoked"
    assert house.state(task) == "standing_lost"


def test_a_task_ends_by_itself(house: House, eventually: Eventually) -> None:
    task = house.begin(type="quick")
    assert house.ask(task["grant"]) == "allowed"
    eventually(lambda: house.ask(task["grant"]) == "grant_expired")


def test_others_verify_a_grant_by_the_published_keys(house: House) -> None:
    task = house.begin(client=AGENT)
    answer = httpx.get(f"http://{house.app.admin_address}/.well-known/jwks.json", timeout=TIMEOUT_S)
    (key,) = answer.json()["keys"]

    def raw(text: str) -> bytes:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4))

    head, body, signature = task["grant"].split(".")
    assert json.loads(raw(head)) == {"alg": "ES256", "typ": "signalwarden-grant+jwt", "kid": key["kid"]}
    public = ec.EllipticCurvePublicNumbers(
        int.from_bytes(raw(key["x"])), int.from_bytes(raw(key["y"])), ec.SECP256R1()
    ).public_key()
    r, s = int.from_bytes(raw(signature)[:32]), int.from_bytes(raw(signature)[32:])
    public.verify(encode_dss_signature(r, s), f"{head}.{body}".encode(), ec.ECDSA(hashes.SHA256()))
    claims = json.loads(raw(body))
    assert (claims["sub"], claims["jti"], claims["task"]["type"]) == (AGENT, task["task_id"], "long")
    assert claims["iss"] == claims["aud"] == "spiffe://prod.example/signalwarden"
    assert "cnf" not in claims
    bound = json.loads(raw(house.begin(certificate_sha256="ab" * 32)["grant"].split(".")[1]))
    assert raw(bound["cnf"]["x5t#S256"]) == bytes.fromhex("ab" * 32)


SIGNALS = """\
signals:
  approved:
    {type: bool, subject: task, influence: grant, used_by: [note.read], description: d, owner: o@x, purpose: p,
     review_by: 2099-01-01, sources: [{kind: workflow, assurance: authoritative}]}
  pages:
    {type: long, subject: task, influence: grant, used_by: [note.read], description: d, owner: o@x, purpose: p,
     review_by: 2099-01-01, sources: [{kind: derived, measure: task_resources, assurance: derived}]}
  workflow_state:
    {type: "enum[approved, ended]", subject: workflow, max_age: 5m, influence: grant, used_by: [note.read],
     description: d, owner: o@x, purpose: p, review_by: 2099-01-01,
     sources: [{kind: push, publisher: "spiffe://prod.example/orchestrator", assurance: authoritative}]}
"""


def with_signals(root: Path, condition: str) -> None:
    (root / "signals.yaml").write_text(SIGNALS)
    policies = root / "policies/pages.cedar"
    permit = '@id("notes") permit (principal, action == Action::"note.read", resource);'
    text = policies.read_text()
    assert permit in text
    policies.write_text(text.replace(permit, f"{permit[:-1]} when {{ {condition} }};"))
    settings = root / "signalwarden.yaml"
    settings.write_text(
        settings.read_text()
        .replace("tasks: {types", "tasks: {workflow_signal: workflow_state, types")
        .replace("may: [tasks, workflows, read]", "may: [tasks, workflows, read, publish]")
    )


def test_policies_may_ask_for_an_approved_workflow(root: Path) -> None:
    with_signals(root, "context.signals has approved && context.signals.approved")
    with running(root) as app, grpc.insecure_channel(app.check_address) as channel:
        house = House(root, app, channel)
        assert house.ask(house.begin()["grant"]) == "no_policy_permits"
        with house.as_client(ORCHESTRATOR) as admin:
            admin.move_workflow("month-end", "approved")
        assert house.ask(house.begin(workflow="month-end")["grant"]) == "allowed"


def test_policies_may_bound_how_much_a_task_touches_and_a_restart_forgets_no_count(root: Path) -> None:
    with_signals(root, "context.signals has pages && context.signals.pages < 2")
    with running(root) as app, grpc.insecure_channel(app.check_address) as channel:
        house = House(root, app, channel)
        task, other = house.begin(), house.begin()
        reasons = [house.ask(task["grant"], f"/notes/{page}") for page in (1, 1, 2, 3)]
        assert reasons == ["allowed", "allowed", "allowed", "no_policy_permits"]
        assert house.ask(other["grant"]) == "allowed", "each tree has its own count"
    with running(root) as app, grpc.insecure_channel(app.check_address) as channel:
        house = House(root, app, channel)
        assert house.ask(other["grant"]) == "signal_unavailable", "nobody knows what it has done"
        assert house.ask(house.begin()["grant"]) == "allowed"


def test_an_orchestrator_approves_and_ends_workflows_by_its_signal(root: Path) -> None:
    with_signals(root, "true")
    with running(root) as app, grpc.insecure_channel(app.check_address) as channel:
        house = House(root, app, channel)

        def say(value: str) -> None:
            with house.as_client(ORCHESTRATOR) as admin:
                entry = {
                    "name": "workflow_state", "subject": "nightly", "value": value, "observed_at": rfc3339(now_us()),
                }  # fmt: skip
                answer = admin.publish(json.dumps({"signals": [entry]}).encode())
            assert answer["accepted"] == 1, answer

        assert refused(lambda: house.begin(workflow="nightly")) == "workflow_not_approved"
        say("approved")
        task = house.begin(workflow="nightly")
        assert house.ask(task["grant"]) == "allowed"
        say("ended")
        assert house.ask(task["grant"]) == "grant_revoked"
        say("approved")
        assert house.ask(task["grant"]) == "grant_revoked", "approving again begins a new life"
        assert house.ask(house.begin(workflow="nightly")["grant"]) == "allowed"
