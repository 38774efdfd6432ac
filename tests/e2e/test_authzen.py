"""AuthZEN at a running server: over HTTP with a token, beside Envoy's way over gRPC, down to the log. The cases of the working
group's certification scenario are here as far as they fit: workloads in the place of users.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from signalwarden.app import App
from signalwarden.server import CHECK_METHOD
from tests import asking
from tests.callers import token_of
from tests.conftest import Eventually
from tests.pages import hold
from tests.serving import running

TIMEOUT_S = 20.0
GATEWAY = "spiffe://prod.example/gateway"
PUBLISHER = "spiffe://prod.example/mdm"
ALICE, BOB, EVE = (f"spiffe://prod.example/users/{name}" for name in ("alice", "bob", "eve"))
OUTSIDE = "spiffe://prod.example/other/mallory"
BASE = "https://pdp.example"


def entry(name: str, may: str, more: str = "") -> str:
    digest = hashlib.sha256(token_of(name).encode()).hexdigest()
    return f'  - {{id: "{name}", may: [{may}], token_sha256: "{digest}", expires: "2099-01-01T00:00:00Z"{more}}}\n'


SETTINGS = (
    f'authzen: {{policy_decision_point: "{BASE}"}}\nclients:\n'
    + entry(GATEWAY, "evaluate", ', subjects: ["spiffe://prod.example/users/*"]')
    + entry(PUBLISHER, "publish")
    + entry(EVE, "read")
)
ROUTES = "routes:\n" + "".join(
    f'  - {{match: {{host: "records.example", method: {method}, path: "/{action}/{{record}}"}}, action: {action}, '
    f'resource: {{type: Record, id: "{{record}}"}}, tier: {tier}, sensitivity: low{more}}}\n'
    for action, method, tier, more in (
        ("read", "GET", "runtime", ""),
        ("write", "POST", "runtime", ""),
        ("delete", "DELETE", "runtime", ", args: {query: {soft: bool}}"),
        ("audit", "GET", "jit", ""),
        ("wipe", "POST", "approval", ""),
        ("trial", "GET", "runtime", ", enforce: false"),
    )
)
REGISTER = f"""\
signals:
  device_trust:
    {{type: long, description: d, owner: o@x, purpose: p, subject: principal, max_age: 1h, influence: grant,
    used_by: [write, delete], review_by: 2099-01-01,
    sources: [{{kind: push, publisher: "{PUBLISHER}", assurance: authoritative}}]}}
  frozen:
    {{type: bool, description: d, owner: o@x, purpose: p, subject: resource, max_age: 1h, influence: restrict,
    used_by: [write], review_by: 2099-01-01,
    sources: [{{kind: push, publisher: "{PUBLISHER}", assurance: authoritative}}]}}
"""
POLICIES = f"""\
@id("all-read") permit (principal, action == Action::"read", resource);
@id("trusted-write") permit (principal, action == Action::"write", resource)
when {{ context.signals has device_trust && context.signals.device_trust >= 3 }};
@id("frozen") forbid (principal, action == Action::"write", resource)
when {{ context.signals has frozen && context.signals.frozen }};
@id("bob-writes-nothing") forbid (principal == Workload::"{BOB}", action == Action::"write", resource);
@id("soft") permit (principal, action == Action::"delete", resource)
when {{ context.request.args.soft && context.signals has device_trust && context.signals.device_trust >= 3 }};
@id("others") permit (principal, action in [Action::"audit", Action::"wipe"], resource);
"""


@dataclass
class House:
    """A running server, and the ways to it."""

    root: Path
    app: App
    http: httpx.Client
    channel: grpc.Channel

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        sent = {"content-type": "application/json", "authorization": f"Bearer {token_of(GATEWAY)}", **headers}
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.http.post(path, content=content, headers=sent)

    def one(self, body: Any) -> Any:
        answer = self.post("/access/v1/evaluation", body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def several(self, body: Any) -> Any:
        answer = self.post("/access/v1/evaluations", body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def publish(self, name: str, subject: str, value: Any) -> None:
        now = datetime.now(UTC).isoformat()
        item = {"name": name, "subject": subject, "value": value, "observed_at": now}
        headers = {"authorization": f"Bearer {token_of(PUBLISHER)}"}
        answer = self.http.post("/v1/signals", json={"signals": [item]}, headers=headers)
        assert answer.json() == {"accepted": 1, "rejected": []}

    def envoys(self, method: str, path: str, principal: str) -> tuple[bool, str]:
        """Whether Envoy is answered yes, and why or why not."""
        request = asking.check_request(
            method, "records.example", path, principal=principal, headers={"content-length": "0"}
        )
        call = self.channel.unary_unary(CHECK_METHOD, request_serializer=bytes, response_deserializer=bytes)
        answer = bytes(call(bytes(request), timeout=TIMEOUT_S))
        return asking.grpc_code(answer) == 0, asking.reason_of(answer)

    def records(self) -> list[dict[str, Any]]:
        """After a stop, when all is written."""
        self.app.stop()
        lines = [json.loads(line) for line in (self.root / "var/decisions.jsonl").read_bytes().splitlines()]
        hold(lines)
        return lines


@pytest.fixture
def house(minimal_directory: Path) -> Iterator[House]:
    settings = minimal_directory / "signalwarden.yaml"
    settings.write_text(settings.read_text() + SETTINGS)
    (minimal_directory / "routes.yaml").write_text(ROUTES)
    (minimal_directory / "signals.yaml").write_text(REGISTER)
    (minimal_directory / "entities.cedarschema").write_text("entity Workload;\nentity Record;\n")
    for policy in (minimal_directory / "policies").iterdir():
        policy.unlink()
    (minimal_directory / "policies/records.cedar").write_text(POLICIES)
    with (
        running(minimal_directory) as app,
        httpx.Client(base_url=f"http://{app.admin_address}", timeout=TIMEOUT_S, trust_env=False) as http,
        grpc.insecure_channel(app.check_address) as channel,
    ):
        yield House(minimal_directory, app, http, channel)


def about(subject: str, action: str, record: str = "record-1", **properties: Any) -> dict[str, Any]:
    return {
        "subject": {"type": "workload", "id": subject},
        "action": {"name": action, **({"properties": properties} if properties else {})},
        "resource": {"type": "Record", "id": record},
    }


def decisions(answer: Any) -> list[bool]:
    return [one["decision"] for one in answer["evaluations"]]


# ---- the same answer as Envoy's ---------------------------------------------------------------------------


def test_the_same_question_has_the_same_answer_by_both_ways(house: House) -> None:
    methods = {
        "read": "GET",
        "write": "POST",
        "delete": "DELETE",
        "audit": "GET",
        "wipe": "POST",
        "trial": "GET",
    }
    house.publish("device_trust", ALICE, 4)
    house.publish("device_trust", BOB, 4)
    house.publish("device_trust", EVE, 1)
    house.publish("frozen", 'Record::"record-1"', False)
    house.publish("frozen", 'Record::"record-2"', True)
    seen: set[str] = set()
    for subject, action, record, soft in itertools.product(
        (ALICE, BOB, EVE, "spiffe://prod.example/users/nobody"),
        methods,
        ("record-1", "record-2", "record-3"),
        (True, False),
    ):
        given = {"soft": soft} if action == "delete" else {}
        query = f"?soft={str(soft).lower()}" if given else ""
        answer = house.one(about(subject, action, record, **given))
        by_envoy = house.envoys(methods[action], f"/{action}/{record}{query}", subject)
        assert (answer["decision"], answer["context"]["reason"]) == by_envoy, (subject, action, record, soft)
        seen.add(by_envoy[1])
    assert seen >= {"allowed", "policy_denied", "no_policy_permits", "signal_unavailable", "grant_required"}
    decided = [line for line in house.records() if line["kind"] == "decision"]
    asked, called = decided[::2], decided[1::2]
    assert {line["request"].get("door") for line in asked} == {"authzen"}
    for one, other in zip(asked, called, strict=True):
        for key in ("outcome", "reason", "http_status", "enforced"):
            assert one.get(key) == other.get(key)
        assert one["policies"] == other["policies"]
        known = [
            [(s["name"], s["subject"], s["state"], s.get("value")) for s in r["signals"]]
            for r in (one, other)
        ]
        assert known[0] == known[1]


# ---- refusals ---------------------------------------------------------------------------------------------


def test_who_is_not_known_or_may_not_is_refused(house: House) -> None:
    asked = about(ALICE, "read")
    for path in ("/access/v1/evaluation", "/access/v1/evaluations", "/access/v1/search/subject"):
        assert house.post(path, asked, authorization="").status_code == 401
        assert house.post(path, asked, authorization="Bearer unknown").status_code == 401
        assert house.post(path, asked, authorization=f"Bearer {token_of(EVE)}").status_code == 403
    refused = [line["right"] for line in house.records() if line.get("change") == "client_refused"]
    assert refused.count("evaluate") >= 6


def test_a_client_that_asks_about_a_subject_that_is_not_its_own_is_refused(house: House) -> None:
    answer = house.post("/access/v1/evaluation", about(OUTSIDE, "read"))
    assert (answer.status_code, answer.json()["reason"]) == (403, "subject_refused")
    assert house.one(about(GATEWAY, "read"))["decision"] is True
    lines = house.records()
    assert [line["reason"] for line in lines if line["kind"] == "decision"] == ["allowed"]
    (refused,) = [line for line in lines if line.get("change") == "client_refused"]
    assert (refused["client"], refused["right"]) == (GATEWAY, "evaluate")
    assert OUTSIDE not in json.dumps(lines)


def test_a_search_is_not_offered(house: House) -> None:
    for what in ("subject", "resource", "action"):
        answer = house.post(f"/access/v1/search/{what}", about(ALICE, "read"))
        assert (answer.status_code, answer.json()["reason"]) == (501, "not_offered")


def test_a_reload_changes_whom_a_client_may_ask_about(house: House, eventually: Eventually) -> None:
    settings = house.root / "signalwarden.yaml"
    settings.write_text(settings.read_text().replace("/users/*", "/users/alice"))

    def refused() -> bool:
        return house.post("/access/v1/evaluation", about(BOB, "read")).status_code == 403

    eventually(refused, TIMEOUT_S)
    assert house.one(about(ALICE, "read"))["decision"] is True
    loaded = [line for line in house.records() if line.get("change") == "configuration_loaded"][-1]
    assert "may no longer ask about" in json.dumps(loaded["words"])


# ---- the certification scenario ----------------------------------------------------------------------------


@pytest.fixture
def fixture(house: House) -> House:
    """Section 1 of the scenario: Alice reads and writes, Bob reads."""
    house.publish("device_trust", ALICE, 4)
    house.publish("device_trust", BOB, 4)
    house.publish("frozen", 'Record::"record-1"', False)
    return house


def test_basic_core_decisions(fixture: House) -> None:
    for subject, action, decision in (
        (ALICE, "read", True),
        (ALICE, "write", True),
        (BOB, "read", True),
        (BOB, "write", False),
    ):
        for more in (
            {},
            {"context": {"time": "2025-06-27T18:03-07:00", "ip": "192.168.1.1"}},
            {"foo": "bar", "futureField": {"nested": True}},
        ):
            asked = {**about(subject, action), **more}
            assert {fixture.one(asked)["decision"] for _ in range(3)} == {decision}
    asked = about(ALICE, "read", method="GET")
    asked["subject"]["properties"] = {"department": "Sales", "role": "manager"}
    asked["resource"]["properties"] = {"status": "active", "owner": "bob"}
    assert fixture.one(asked)["decision"] is True


def test_basic_properties_of_actions_decide_where_routes_name_them(fixture: House) -> None:
    assert fixture.one(about(ALICE, "delete", soft=True))["decision"] is True
    assert fixture.one(about(ALICE, "delete", soft=False))["decision"] is False


GOOD = about(ALICE, "read")
WRONG: list[Any] = [
    *(
        {name: part for name, part in GOOD.items() if name != gone}
        for gone in ("subject", "action", "resource")
    ),
    {**GOOD, "subject": {"id": ALICE}},
    {**GOOD, "subject": {"type": "workload"}},
    {**GOOD, "action": {}},
    {**GOOD, "resource": {"id": "record-1"}},
    {**GOOD, "resource": {"type": "Record"}},
    {**GOOD, "subject": "alice"},
    {**GOOD, "action": {"name": 123}},
    b"{not json",
    b"",
]


@pytest.mark.parametrize("path", ["/access/v1/evaluation", "/access/v1/evaluations"])
def test_basic_core_errors(fixture: House, path: str) -> None:
    for body in WRONG:
        answer = fixture.post(path, body, **{"x-request-id": "id-7"})
        assert (answer.status_code, answer.headers["x-request-id"]) == (400, "id-7"), body
    answer = fixture.post(path, about(ALICE, "read"), **{"content-type": "text/plain"})
    assert answer.status_code == 400
    assert [line for line in fixture.records() if line["kind"] == "decision"] == []


def test_basic_core_headers(fixture: House) -> None:
    given = "bfe9eb29-ab87-4ca3-be83-a1d5d8305716"
    answer = fixture.post("/access/v1/evaluation", about(ALICE, "read"), **{"x-request-id": given})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.headers["x-request-id"] == given
    assert fixture.post("/access/v1/evaluation", about(ALICE, "read")).status_code == 200
    ids = [line["request"].get("envoy_id") for line in fixture.records() if line["kind"] == "decision"]
    assert ids == [given, None]


@pytest.mark.parametrize(
    ("given", "recorded"),
    [
        (b"caf\xc3\xa9 7", "caf\\xc3\\xa9 7"),
        (b"\xff", "\\xff"),
        (b"Root=1-67891233; Sampled=1", "Root=1-67891233; Sampled=1"),
    ],
)
def test_an_id_comes_back_letter_by_letter_whatever_its_encoding_is(
    house: House, given: bytes, recorded: str
) -> None:
    answer = house.http.post(
        "/access/v1/evaluation",
        content=json.dumps(about(ALICE, "read")).encode(),
        headers=[
            (b"content-type", b"application/json"),
            (b"authorization", f"Bearer {token_of(GATEWAY)}".encode()),
            (b"x-request-id", given),
        ],
    )
    assert answer.status_code == 200
    assert [value for name, value in answer.headers.raw if name.lower() == b"x-request-id"] == [given]
    (decided,) = [line for line in house.records() if line["kind"] == "decision"]
    assert decided["request"]["envoy_id"] == recorded


def test_batch_core(fixture: House) -> None:
    alice, bob = about(ALICE, "read"), about(BOB, "write")
    records = [{"resource": {"type": "Record", "id": f"record-{n}"}} for n in (1, 2)]
    head = {"subject": alice["subject"], "action": alice["action"]}
    assert len(decisions(fixture.several({**head, "evaluations": records}))) == 2
    actions = {
        "subject": bob["subject"],
        "resource": bob["resource"],
        "evaluations": [{"action": {"name": "read"}}, {"action": {"name": "write"}}],
    }
    assert decisions(fixture.several(actions)) == [True, False]
    assert decisions(fixture.several({"evaluations": [alice, bob]})) == [True, False]
    inherited = [
        records[0],
        {**records[1], "context": {"time": "2025-06-27T19:00-07:00", "source": "batch-override"}},
    ]
    assert len(decisions(fixture.several({**head, "context": {"time": "x"}, "evaluations": inherited}))) == 2
    assert decisions(fixture.several({**head, "evaluations": [records[0], {}]})) == [True, False]
    several: list[dict[str, Any]] = [{}, {"evaluations": []}]
    for more in several:
        assert fixture.several({**alice, **more})["decision"] is True
    answer = fixture.several({**head, "evaluations": records})
    assert "decision" not in answer


def test_each_semantic_over_http_keeps_as_many_records_as_it_asks(fixture: House) -> None:
    bob = {"subject": about(BOB, "read")["subject"], "resource": about(BOB, "read")["resource"]}
    asked = {**bob, "evaluations": [{"action": {"name": name}} for name in ("read", "write", "read")]}
    counts = {}
    for semantic, expected in (
        ("execute_all", [True, False, True]),
        ("deny_on_first_deny", [True, False]),
        ("permit_on_first_permit", [True]),
    ):
        answer = fixture.several({**asked, "options": {"evaluations_semantic": semantic}})
        assert decisions(answer) == expected
        counts[semantic] = [one["context"]["decision_id"] for one in answer["evaluations"]]
    kept = [line["decision_id"] for line in fixture.records() if line["kind"] == "decision"]
    assert kept == [made for ids in counts.values() for made in ids]


def test_discovery(house: House) -> None:
    answer = house.http.get("/.well-known/authzen-configuration", headers={"host": "evil.example"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json() == {
        "policy_decision_point": BASE,
        "access_evaluation_endpoint": f"{BASE}/access/v1/evaluation",
        "access_evaluations_endpoint": f"{BASE}/access/v1/evaluations",
    }


def test_what_was_asked_is_counted(fixture: House) -> None:
    fixture.one(about(ALICE, "read"))
    fixture.one(about(BOB, "write"))
    fixture.post("/access/v1/evaluation", about(OUTSIDE, "read"))
    text = fixture.app.metrics_text()[0].decode()
    for result in ("permits", "denials", "refused"):
        assert f'signalwarden_authzen_evaluations_total{{result="{result}"}} 1.0' in text
