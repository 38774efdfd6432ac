"""Approvals and overrides at a running server, asked as Envoy asks and answered over the admin API as people answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest

from signalwarden.admin_client import AdminClient
from signalwarden.app import App
from signalwarden.server import CHECK_METHOD
from tests import asking
from tests.callers import clients, refused, who
from tests.pages import hold
from tests.serving import running

pytestmark = pytest.mark.usefixtures("front")

TIMEOUT_S = 20.0
ANNA, BEN = "spiffe://prod.example/people/anna", "spiffe://prod.example/people/ben"
OTHER = "spiffe://prod.example/other-agent"
FEED = "spiffe://prod.example/feed"
SUM = b'{"amount":1250}'
RIGHTS = {
    ANNA: "approve, override, read, operate",
    BEN: "approve, override, read",
    asking.AGENT: "approve, override",
    FEED: "publish",
}


CLIENTS = clients(RIGHTS)
ROUTES = """\
routes:
  - match: {host: "pages.example", method: POST, path: "/transfers/{id}"}
    action: transfer.create
    resource: {type: Page, id: "{id}"}
    args: {body: {amount: {pointer: /amount, type: long}}}
    system: payments
    tier: approval
    sensitivity: high
  - match: {host: "pages.example", method: GET, path: "/home"}
    action: page.read
    resource: {type: Page, id: home}
    system: pages
    tier: runtime
    sensitivity: low
default: deny
"""
POLICIES = """\
@id("transfers") permit (principal, action == Action::"transfer.create", resource);
@id("people-approve") permit (principal, action == Action::"approval.give", resource);
@id("small-sums") permit (principal, action == Action::"approval.waive", resource)
when { context.request.resources.contains("Page::\\"small\\"") };
@id("reading") permit (principal, action == Action::"page.read", resource)
when { context.signals has posture && context.signals.posture == "ok" };
"""
SIGNALS = f"""\
signals:
  posture:
    {{type: "enum[ok, bad]", subject: principal, max_age: 5m, influence: grant, used_by: [page.read], description: d,
     owner: o@x, purpose: p, review_by: 2099-01-01,
     sources: [{{kind: push, publisher: "{FEED}", assurance: authoritative}}]}}
"""


@dataclass
class House:
    """A running server, and the ways to it."""

    root: Path
    app: App
    channel: grpc.Channel

    def ask(
        self, path: str = "/transfers/42", body: bytes = SUM, *, named: str | None = None, **other: Any
    ) -> bytes:
        """A call of the agent; `named`: the approval that it names."""
        headers = {"content-type": "application/json"}
        if named is not None:
            headers["x-signalwarden-approval"] = named
        return self.check(asking.check_request("POST", path=path, body=body, headers=headers, **other))

    def check(self, request: Any) -> bytes:
        call = self.channel.unary_unary(CHECK_METHOD, request_serializer=bytes, response_deserializer=bytes)
        return bytes(call(bytes(request), timeout=TIMEOUT_S))

    def as_client(self, name: str) -> AdminClient:
        return who(self.app, name)

    def pending(self) -> list[dict[str, Any]]:
        with self.as_client(ANNA) as anna:
            found: list[dict[str, Any]] = anna.approvals("pending", None, 100)["approvals"]
        return found

    def answer(self, name: str, approval_id: str, *, approve: bool = True, comment: str | None = None) -> Any:
        with self.as_client(name) as client:
            return client.answer(approval_id, comment, approve=approve)

    def records(self, change: str) -> list[dict[str, Any]]:
        """After a stop, when all is written."""
        self.app.stop()
        lines = [json.loads(line) for line in (self.root / "var/decisions.jsonl").read_bytes().splitlines()]
        changes = [line for line in lines if line["kind"] == "change"]
        hold(changes)
        return [line for line in changes if line["change"] == change]


def problem(answer: bytes) -> dict[str, Any]:
    """The problem document of a denial."""
    denied = asking.parsed(answer).denied_response
    assert denied is not None
    document: dict[str, Any] = json.loads(denied.body)
    return document


@pytest.fixture
def root(minimal_directory: Path) -> Path:
    settings = minimal_directory / "signalwarden.yaml"
    settings.write_text(f"{settings.read_text()}{CLIENTS}")
    (minimal_directory / "routes.yaml").write_text(ROUTES)
    (minimal_directory / "signals.yaml").write_text(SIGNALS)
    (minimal_directory / "policies/pages.cedar").write_text(POLICIES)
    return minimal_directory


@pytest.fixture
def house(root: Path) -> Iterator[House]:
    with running(root) as app, grpc.insecure_channel(app.check_address) as channel:
        yield House(root, app, channel)


# ---- approvals ------------------------------------------------------------------------------------------


def test_a_call_is_asked_about_approved_by_another_allowed_once_and_never_again(house: House) -> None:
    first = problem(house.ask())
    assert first["reason"] == "approval_required"
    assert problem(house.ask())["approval_id"] == first["approval_id"], "the same call keeps its question"
    (question,) = house.pending()
    assert (question["approval_id"], question["requester"]) == (first["approval_id"], asking.AGENT)
    assert question["body_sha256"] == hashlib.sha256(SUM).hexdigest()
    given = house.answer(ANNA, first["approval_id"], comment="INC-7: looks right")
    assert (given["state"], given["approved_by"]) == ("approved", [ANNA])
    assert asking.reason_of(house.ask()) == "allowed"
    assert problem(house.ask(named=first["approval_id"]))["reason"] == "approval_mismatch"
    again = problem(house.ask())
    assert (again["reason"], again["approval_id"] == first["approval_id"]) == ("approval_required", False)
    with house.as_client(BEN) as ben:
        used = ben.approval(first["approval_id"])
    assert (used["state"], used["comment"]) == ("used", "INC-7: looks right")
    assert used["used_by"]
    asked, _ = house.records("approval_asked")
    assert (asked["actor"], asked["asked"]["body_sha256"]) == (asking.AGENT, question["body_sha256"])
    (answered,) = house.records("approval_answered")
    assert (answered["actor"], answered["comment"]) == (ANNA, "INC-7: looks right")
    (use,) = house.records("approval_used")
    assert (use["approved_by"], use["decision_id"]) == ([ANNA], used["used_by"])
    assert "1250" not in json.dumps([asked, answered, use]), "the body is nowhere"


def test_another_body_is_another_question_and_by_name_a_mismatch(house: House) -> None:
    approval_id = problem(house.ask())["approval_id"]
    house.answer(ANNA, approval_id)
    other = b'{"amount":9999}'
    assert problem(house.ask(body=other, named=approval_id))["reason"] == "approval_mismatch"
    assert problem(house.ask("/transfers/43", named=approval_id))["reason"] == "approval_mismatch"
    assert problem(house.ask(principal=OTHER, named=approval_id))["reason"] == "approval_mismatch"
    asked = problem(house.ask(body=other))
    assert (asked["reason"], asked["approval_id"] == approval_id) == ("approval_required", False)
    assert asking.reason_of(house.ask(named=approval_id)) == "allowed"


def test_who_asks_does_not_answer(house: House) -> None:
    approval_id = problem(house.ask())["approval_id"]
    assert refused(lambda: house.answer(asking.AGENT, approval_id)) == "own_approval"
    assert problem(house.ask())["reason"] == "approval_required"
    (record,) = house.records("call_refused")
    assert (record["actor"], record["reason"], record["about"]) == (asking.AGENT, "own_approval", approval_id)


def test_who_may_not_approve_by_policy_does_not(root: Path) -> None:
    policies = root / "policies/pages.cedar"
    scope = f'principal == Workload::"{ANNA}", action == Action::"approval.give"'
    policies.write_text(policies.read_text().replace('principal, action == Action::"approval.give"', scope))
    with running(root) as app, grpc.insecure_channel(app.check_address) as channel:
        house = House(root, app, channel)
        approval_id = problem(house.ask())["approval_id"]
        assert refused(lambda: house.answer(BEN, approval_id)) == "policy_refused"
        assert house.answer(ANNA, approval_id)["state"] == "approved"
        (record,) = house.records("call_refused")
        assert (record["actor"], record["reason"]) == (BEN, "policy_refused")
        assert record["decision_id"]


def test_a_no_is_a_no_until_the_question_is_over(house: House) -> None:
    approval_id = problem(house.ask())["approval_id"]
    assert house.answer(ANNA, approval_id, approve=False, comment="not ours")["state"] == "denied"
    assert problem(house.ask())["reason"] == "approval_denied"
    assert refused(lambda: house.answer(BEN, approval_id)) == "approval_ended"
    assert refused(lambda: house.answer(BEN, "none")) == "approval_unknown"


def test_a_rule_may_answer_and_that_is_a_record(house: House) -> None:
    answer = house.ask("/transfers/small")
    if asking.grpc_code(answer):
        answer = house.ask("/transfers/small")
    assert asking.reason_of(answer) == "allowed"
    (answered,) = house.records("approval_answered")
    assert answered["actor"].startswith("rule:")
    assert answered["decision_id"] == answered["actor"].removeprefix("rule:")


def test_a_flood_of_one_requester_is_bounded_reads_as_one_line_and_hides_nobody(house: House) -> None:
    answers = [problem(house.ask(f"/transfers/{number}")) for number in range(40)]
    assert {answer["reason"] for answer in answers} == {"approval_required"}
    asked = [answer["approval_id"] for answer in answers if answer.get("approval_id")]
    assert len(set(asked)) == 20, "max_open"
    assert problem(house.ask(principal=OTHER))["approval_id"]
    with house.as_client(ANNA) as anna:
        told = anna.approvals("pending", None, 100)
        assert [(line["requester"], line["count"]) for line in told["groups"]] == [
            (asking.AGENT, 20), (OTHER, 1),
        ]  # fmt: skip
        assert len(told["approvals"]) == 4
        assert {question["requester"] for question in told["approvals"]} == {asking.AGENT, OTHER}
        assert len(anna.approvals("pending", asking.AGENT, 100)["approvals"]) == 20


def test_of_many_calls_at_once_one_uses_the_yes(house: House) -> None:
    approval_id = problem(house.ask())["approval_id"]
    house.answer(ANNA, approval_id)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: asking.reason_of(house.ask(named=approval_id)), range(64)))
    assert sorted(set(answers)) == ["allowed", "approval_mismatch"]
    assert answers.count("allowed") == 1
    (used,) = house.records("approval_used")
    assert used["approval_id"] == approval_id


def test_of_two_that_are_needed_each_counts_once(root: Path) -> None:
    settings = root / "signalwarden.yaml"
    settings.write_text(settings.read_text() + "approvals: {need: 2}\n")
    with running(root) as app, grpc.insecure_channel(app.check_address) as channel:
        house = House(root, app, channel)
        approval_id = problem(house.ask())["approval_id"]
        assert house.answer(ANNA, approval_id)["state"] == "pending"
        assert refused(lambda: house.answer(ANNA, approval_id)) == "already_given"
        assert problem(house.ask())["reason"] == "approval_required"
        assert house.answer(BEN, approval_id)["approved_by"] == [ANNA, BEN]
        assert asking.reason_of(house.ask()) == "allowed"


def test_an_approval_and_its_use_survive_a_restart(root: Path) -> None:
    with running(root) as app, grpc.insecure_channel(app.check_address) as channel:
        house = House(root, app, channel)
        first, second = (problem(house.ask(f"/transfers/{name}"))["approval_id"] for name in ("a", "b"))
        for approval_id in (first, second):
            house.answer(ANNA, approval_id)
        assert asking.reason_of(house.ask("/transfers/a")) == "allowed"
    with running(root) as app, grpc.insecure_channel(app.check_address) as channel:
        house = House(root, app, channel)
        assert problem(house.ask("/transfers/a", named=first))["reason"] == "approval_mismatch"
        assert problem(house.ask("/transfers/a"))["reason"] == "approval_required"
        assert asking.reason_of(house.ask("/transfers/b")) == "allowed"


# ---- overrides ------------------------------------------------------------------------------------------


def body(**other: Any) -> bytes:
    told = {"value": "ok", "subject": asking.AGENT, "reason": "INC-7: the feed is down", "ttl": "10m"}
    return json.dumps({**told, **other}).encode()


def reading(house: House) -> str:
    return asking.reason_of(house.check(asking.check_request()))


def test_two_people_speak_for_a_dead_feed_until_it_is_back(house: House) -> None:
    assert reading(house) == "signal_unavailable"
    with house.as_client(ANNA) as anna, house.as_client(BEN) as ben, house.as_client(FEED) as feed:
        assert anna.override("posture", body())["state"] == "proposed"
        assert reading(house) == "signal_unavailable"
        assert refused(lambda: anna.override("posture", body())) == "same_person"
        with house.as_client(asking.AGENT) as agent:
            assert refused(lambda: agent.override("posture", body())) == "own_approval"
        assert ben.override("posture", body())["state"] == "in_force"
        assert reading(house) == "allowed"
        assert [entry["name"] for entry in ben.overrides()["overrides"]] == ["posture"]
        detail = house.app.readiness().detail["overrides"]
        assert [(entry["name"], entry["subject"]) for entry in detail] == [("posture", asking.AGENT)]
        assert b"signalwarden_overrides 1.0" in house.app.metrics_text()[0]
        told = {"name": "posture", "subject": asking.AGENT, "value": "bad"}
        now = datetime.now(UTC).isoformat()
        assert feed.publish(json.dumps({"signals": [{**told, "observed_at": now}]}).encode())["accepted"] == 1
    assert reading(house) == "no_policy_permits", "a fresh value always wins"
    (overridden,) = house.records("signal_overridden")
    assert (overridden["actor"], overridden["by"]) == (BEN, [ANNA, BEN])


def test_what_can_not_be_overridden_is_refused_before_anybody_is_called(house: House) -> None:
    with house.as_client(ANNA) as anna:
        assert refused(lambda: anna.override("unheard_of", body())) == "malformed"
        assert refused(lambda: anna.override("posture", body(value="perfect"))) == "malformed"
        assert refused(lambda: anna.override("posture", body(subject="*"))) == "malformed"
        assert refused(lambda: anna.override("posture", body(ttl="9h"))) == "malformed"
        assert anna.overrides() == {"overrides": [], "proposals": []}
