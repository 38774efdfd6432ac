"""What `decision_log.redact` names stands in no record: planted secrets are looked for in all that the server has written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from signalwarden import _core
from signalwarden.app import App
from signalwarden.config import load
from signalwarden.decision_log import now_us, rfc3339
from signalwarden.errors import ConfigurationError
from tests import asking
from tests.callers import clients
from tests.crashing import APPROVER, ORCHESTRATOR, Callers
from tests.pages import hold

ACCOUNT, IBAN = "planted-4711", "planted-DE02"
PUBLISHER = "spiffe://prod.example/ns/signals/sa/quality"
SETTINGS = "decision_log: {redact: {path_parameters: [account], args: [iban]}}\n"
ROUTES = """\
routes:
  - match: {host: "bank.example", method: GET, path: "/accounts/{account}/notes/{note}"}
    action: note.read
    resource: {type: Account, id: "{account}"}
    args: {path: {account: string, note: long}}
    tier: runtime
    sensitivity: low
  - match: {host: "bank.example", method: DELETE, path: "/accounts/{account}/notes/{note}"}
    action: note.delete
    resource: {type: Account, id: "{account}"}
    tier: runtime
    sensitivity: low
  - match: {host: "bank.example", method: POST, path: "/accounts/{account}/transfers"}
    action: transfer.create
    resource: {type: Account, id: "{account}"}
    args: {body: {iban: string, amount: long}}
    tier: approval
    sensitivity: high
  - match: {host: "bank.example", method: GET, path: "/news/{item}"}
    action: news.read
    resource: {type: News, id: "{item}"}
    tier: coarse
    sensitivity: low
default: deny
"""
SIGNALS = f"""\
signals:
  quality:
    type: bool
    description: whether the data of an account can be relied on
    owner: data@prod.example
    purpose: keeps agents from bad data
    subject: resource
    sources: [{{kind: push, publisher: "{PUBLISHER}", assurance: sourced}}]
    max_age: 5m
    influence: grant
    used_by: [note.read]
    review_by: 2099-01-01
"""
SCHEMA = 'entity Workload = {"device"?: String};\nentity Account = {"owner": String};\nentity News;\n'
POLICIES = """\
@id("read") permit (principal, action == Action::"note.read", resource)
when { context.signals has quality && context.signals.quality && context.request.args.note > 0 };
@id("delete") permit (principal, action == Action::"note.delete", resource) when { resource.owner == "x" };
@id("send") permit (principal, action == Action::"transfer.create", resource);
@id("news") permit (principal, action == Action::"news.read", resource);
@id("begin") permit (principal, action == Action::"task.begin", resource);
@id("people") permit (principal, action == Action::"approval.give", resource);
"""


@pytest.fixture
def root(minimal_directory: Path) -> Path:
    settings = minimal_directory / "signalwarden.yaml"
    rights = {
        ORCHESTRATOR: "tasks, workflows, read, operate",
        APPROVER: "approve, read",
        PUBLISHER: "publish",
    }
    settings.write_text(settings.read_text() + clients(rights) + SETTINGS)
    for name, text in {
        "routes.yaml": ROUTES,
        "signals.yaml": SIGNALS,
        "entities.cedarschema": SCHEMA,
        "policies/pages.cedar": POLICIES,
    }.items():
        (minimal_directory / name).write_text(text)
    return minimal_directory


@contextmanager
def running(root: Path) -> Iterator[tuple[App, Callers]]:
    app = App(root)
    app.start()
    try:
        with grpc.insecure_channel(app.check_address) as channel:
            yield app, Callers(app, channel)
    finally:
        app.stop()


def ask(
    callers: Callers, method: str, path: str, body: dict[str, Any] | None = None
) -> tuple[str, dict[str, Any]]:
    content = b"" if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"} if body is not None else {}
    return callers.check(
        asking.check_request(method, path=path, host="bank.example", body=content, headers=headers)
    )


def written(root: Path) -> tuple[list[dict[str, Any]], str]:
    # The state holds the questions that people answer, as they are.
    files = [
        path for path in (root / "var").rglob("*") if path.is_file() and not path.name.startswith("state.db")
    ]
    for path in files:
        assert b"planted" not in path.read_bytes(), f"{path} holds what was to be hidden"
    text = (root / "var/decisions.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()], text


def test_no_record_holds_what_is_hidden_and_equal_values_can_be_recognised(root: Path) -> None:
    with running(root) as (app, callers):
        now = rfc3339(now_us())
        value = {"name": "quality", "subject": f'Account::"{ACCOUNT}"', "value": True, "observed_at": now}
        app.publish_as(json.dumps({"signals": [value]}).encode(), PUBLISHER)
        seen = [
            ask(callers, "GET", f"/accounts/{ACCOUNT}/notes/7")[0],
            ask(callers, "GET", f"/accounts/{ACCOUNT}/notes/x")[0],
            ask(callers, "GET", f"/accounts/{ACCOUNT}/elsewhere")[0],
            ask(callers, "DELETE", f"/accounts/{ACCOUNT}/notes/7")[0],
            ask(callers, "GET", "/news/today")[0],
        ]
        assert seen == ["allowed", "malformed_request", "route_unknown", "entity_unknown", "allowed"]
        call = ("POST", f"/accounts/{ACCOUNT}/transfers", {"iban": IBAN, "amount": 5})
        reason, problem = ask(callers, *call)
        assert reason == "approval_required"
        with callers.admin(APPROVER) as admin:
            question = admin.approval(problem["approval_id"])
            assert ACCOUNT in question["path"], "who answers sees what is asked"
        callers.approve(problem["approval_id"])
        assert ask(callers, *call)[0] == "allowed"
        callers.begin(actions=["note.read"], resources=[f'Account::"{ACCOUNT}"', "Account::*"])
    records, _ = written(root)
    hold(records)
    decided = {record["reason"]: record for record in records if record["kind"] == "decision"}
    calls = [record["request"] for record in records if record["kind"] == "decision"]
    assert {call["path"] for call in calls} >= {
        "/accounts/{account}/notes/7", "/accounts/{account}/notes/x", "{path}", "/news/today",
        "/accounts/{account}/transfers",
    }  # fmt: skip
    resources = {call["resource"] for call in calls if call.get("resource", "").startswith("Account")}
    assert len(resources) == 1
    assert resources.pop().startswith('Account::"hmac-sha256:')
    assert "withheld" in decided["entity_unknown"]["detail"]
    transfer = next(call for call in calls if call.get("action") == "transfer.create")
    assert transfer["args"]["iban"].startswith("hmac-sha256:")
    assert transfer["args"]["amount"] == 5
    assert transfer["redacted"] == ["account", "iban"]
    begun = next(call for call in calls if call.get("action") == "task.begin")
    assert begun["redacted"] == ["resources"]
    assert "Account::*" in begun["resources"]
    assert "redacted" not in next(call for call in calls if call["path"] == "/news/today")
    asked = next(record for record in records if record.get("change") == "approval_asked")
    assert asked["asked"]["path"] == "/accounts/{account}/transfers"
    assert "hmac-sha256:" in asked["words"][0]


def test_a_call_whose_values_were_hidden_can_not_be_decided_again(root: Path) -> None:
    with running(root) as (_, callers):
        ask(callers, "GET", f"/accounts/{ACCOUNT}/notes/7")
        ask(callers, "GET", "/news/today")
    _, text = written(root)
    lines = "".join(f"{line}\n" for line in text.splitlines() if '"kind":"decision"' in line)
    replay = _core.Replay(load(root, now_us()).configuration)
    first, second = (json.loads(line) for line in replay.decide(lines.encode()).splitlines())
    assert "hid" in first["undecidable"]
    assert second["now"]["reason"] == "allowed"


def test_a_name_that_no_route_has_is_refused_since_it_would_hide_nothing(root: Path) -> None:
    settings = root / "signalwarden.yaml"
    settings.write_text(settings.read_text().replace("[account]", "[acount]").replace("[iban]", "[nothing]"))
    with pytest.raises(ConfigurationError) as refused:
        load(root, now_us())
    said = sorted(
        finding.message for finding in refused.value.findings if finding.code == "unknown_redaction"
    )
    assert len(said) == 2
    assert "`decision_log.redact.args`" in said[0]
    assert "did you mean `account`" in said[1]
