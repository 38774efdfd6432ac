"""The desk of AuthZEN over a real core, without doors: who may ask about whom, when asking stops, what is said and kept."""

from __future__ import annotations

import json
from typing import Any

import pytest

from signalwarden import _core
from signalwarden.authzen import QUESTIONS_A_SECOND, Authzen
from signalwarden.authzen_request import MAX_EVALUATIONS
from signalwarden.authzen_settings import AuthzenSettings, may_ask_about
from signalwarden.config import Right
from signalwarden.errors import BadInputError, CallRefusedError, RateLimitedError
from signalwarden.services import Client
from tests import asking
from tests.asking import AGENT, NOW
from tests.pages import hold

GATEWAY = "spiffe://prod.example/gateway"
FILES = {
    "routes.yaml": """\
routes:
  - match: {host: "*", method: POST, path: "/accounts/{account}/transfers"}
    action: transfer.create
    resource: {type: Account, id: "{account}"}
    args: {query: {amount: "long?"}}
    system: payments
    tier: runtime
    sensitivity: high
  - match: {host: "*", method: GET, path: "/accounts/{account}"}
    action: account.read
    resource: {type: Account, id: "{account}"}
    tier: coarse
    sensitivity: low
""",
    "signals.yaml": """\
signals:
  device_trust:
    {type: long, description: d, owner: o@x, purpose: p, subject: principal, max_age: 5m, influence: grant,
    used_by: [transfer.create], review_by: 2099-01-01,
    sources: [{kind: push, publisher: "spiffe://prod.example/publisher", assurance: authoritative}]}
""",
    "entities.cedarschema": "entity Workload;\nentity Account;\n",
    "policies/all.cedar": """\
permit (principal, action == Action::"transfer.create", resource)
when { context.signals has device_trust && context.signals.device_trust >= 3 };
forbid (principal, action == Action::"transfer.create", resource)
when { context.request.args has amount && context.request.args.amount > 500 };
permit (principal, action == Action::"account.read", resource == Account::"1");
permit (principal, action == Action::"account.read", resource == Account::"3");
""",
}


class Desk:
    """The desk, and what it stands on."""

    def __init__(self, *, subjects: tuple[str, ...] = (AGENT,), base: str | None = None) -> None:
        self.engine = asking.running(asking.load(FILES))
        self.client = Client(GATEWAY, frozenset({Right.EVALUATE}), subjects)
        self.refusals: list[tuple[str, str]] = []
        self.desk = Authzen(
            self.engine,
            settings=lambda: AuthzenSettings(policy_decision_point=base),
            refused=lambda client, why: self.refusals.append((client.id, why)),
            clock=lambda: NOW,
        )

    def one(self, asked: object, **options: Any) -> Any:
        return json.loads(self.desk.evaluation(self.client, _body(asked), **_given(options)))

    def several(self, asked: object, **options: Any) -> Any:
        return json.loads(self.desk.evaluations(self.client, _body(asked), **_given(options)))

    def records(self) -> list[dict[str, Any]]:
        found = asking.drained(self.engine)
        hold(found)
        return found


def _body(asked: object) -> bytes:
    return json.dumps(asked).encode()


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {"certificate": None, "request_id": None, **options}


def about(
    action: str = "account.read", account: str = "1", *, subject: str = AGENT, **properties: Any
) -> dict[str, Any]:
    return {
        "subject": {"type": "workload", "id": subject},
        "action": {"name": action, "properties": properties},
        "resource": {"type": "Account", "id": account},
    }


def reads(*accounts: str, semantic: str | None = None) -> dict[str, Any]:
    asked: dict[str, Any] = {
        **about(),
        "evaluations": [{"resource": {"type": "Account", "id": a}} for a in accounts],
    }
    return asked if semantic is None else {**asked, "options": {"evaluations_semantic": semantic}}


def decisions(answer: Any) -> list[bool]:
    return [one["decision"] for one in answer["evaluations"]]


# ---- what is said and kept --------------------------------------------------------------------------------


def test_an_answer_names_its_reason_and_its_record_and_nothing_else() -> None:
    desk = Desk()
    asking.publish(desk.engine, "device_trust", 4)
    yes = desk.one(about("transfer.create", amount=10), request_id="call-7")
    no = desk.one(about("transfer.create", amount=501))
    first, second = desk.records()
    assert (yes["decision"], no["decision"]) == (True, False)
    assert {*yes} == {*no} == {"decision", "context"}
    sentence = next(row[4] for row in _core.reasons() if row[0] == "policy_denied")
    assert no["context"] == {
        "reason": "policy_denied",
        "reason_admin": {"en": sentence},
        "decision_id": second["decision_id"],
    }
    assert yes["context"]["decision_id"] == first["decision_id"]
    request = first["request"]
    assert (request["door"], request["client"], request["envoy_id"]) == ("authzen", GATEWAY, "call-7")
    assert (request["method"], request["host"], request["path"]) == ("POST", "", "/access/v1/evaluation")
    assert (request["action"], request["resource"], request["args"]) == (
        "transfer.create",
        'Account::"42"'.replace("42", "1"),
        {"amount": 10},
    )
    assert (first["principal"]["id"], first["principal"]["class"]) == (AGENT, "vouched")
    assert first["signals"][0]["value"] == 4


def test_a_missing_signal_denies() -> None:
    desk = Desk()
    assert desk.one(about("transfer.create"))["context"]["reason"] == "signal_unavailable"
    asking.publish(desk.engine, "device_trust", 4)
    assert desk.one(about("transfer.create"))["decision"] is True


def test_what_is_claimed_of_a_missing_signal_opens_nothing() -> None:
    claims: dict[str, Any] = {"device_trust": 5, "signals": {"device_trust": 5}}
    asked = about("transfer.create", **claims)
    asked = {**asked, "context": claims, "subject": {**asked["subject"], "properties": claims}}
    assert Desk().one(asked)["context"]["reason"] == "signal_unavailable"


def test_an_integer_is_read_exactly_or_not_at_all() -> None:
    desk = Desk()
    assert desk.one(about("transfer.create", amount=2**53 + 1))["decision"] is False
    assert desk.one(about("transfer.create", amount=2**64 + 1))["context"]["reason"] == "malformed_request"
    assert desk.records()[0]["request"]["args"] == {"amount": 2**53 + 1}


def test_what_is_no_question_asks_nothing() -> None:
    desk = Desk()
    for asked in ({}, {**about(), "subject": "alice"}, {**about(), "evaluations": {}}):
        with pytest.raises(BadInputError):
            desk.several(asked)
    assert desk.records() == []


# ---- several ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("semantic", "accounts", "expected"),
    [
        (None, "123", [True, False, True]),
        ("execute_all", "213", [False, True, True]),
        ("deny_on_first_deny", "123", [True, False]),
        ("deny_on_first_deny", "131", [True, True, True]),
        ("permit_on_first_permit", "123", [True]),
        ("permit_on_first_permit", "242", [False, False, False]),
        ("permit_on_first_permit", "243", [False, False, True]),
    ],
)
def test_each_semantic_stops_where_it_says_and_what_is_not_asked_has_no_record(
    semantic: str | None, accounts: str, expected: list[bool]
) -> None:
    desk = Desk()
    assert decisions(desk.several(reads(*accounts, semantic=semantic))) == expected
    records = desk.records()
    assert [record["outcome"] == "allow" for record in records] == expected
    assert {record["request"]["path"] for record in records} == {"/access/v1/evaluations"}


def test_what_can_not_be_read_is_a_no_of_its_own() -> None:
    desk = Desk()
    asked = {**reads("1"), "evaluations": [{}, {"resource": {"type": "Account"}}, 7, {}]}
    answer = desk.several(asked)
    assert decisions(answer) == [True, False, False, True]
    assert answer["evaluations"][1]["context"]["error"] == {
        "status": 400,
        "message": "evaluations[1]: `resource.id` is missing",
    }
    assert len(desk.records()) == 2


def test_one_that_can_not_be_read_ends_a_call_that_ends_with_a_no() -> None:
    asked = {**reads("1", semantic="deny_on_first_deny"), "evaluations": [{}, 7, {}]}
    assert decisions(Desk().several(asked)) == [True, False]


# ---- who may ask about whom -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patterns", "subject", "may"),
    [
        ((), GATEWAY, True),
        ((), AGENT, False),
        ((AGENT,), AGENT, True),
        ((AGENT,), AGENT + "2", False),
        (("spiffe://prod.example/ns/a/*",), "spiffe://prod.example/ns/a/sa/x", True),
        (("spiffe://prod.example/ns/a/*",), "spiffe://prod.example/ns/a", False),
        (("spiffe://prod.example/ns/a/*",), "spiffe://prod.example/ns/ab", False),
        (("spiffe://prod.example/*",), "spiffe://prod.example.evil/a", False),
        (("spiffe://prod.example/*",), "spiffe://prod.example", False),
        (("spiffe://prod.example/*",), "alice", False),
    ],
)
def test_a_client_asks_about_itself_and_whom_its_entry_names(
    patterns: tuple[str, ...], subject: str, may: bool
) -> None:
    assert may_ask_about(GATEWAY, patterns, subject) is may


def test_another_subject_is_refused_and_written_down_and_nothing_is_decided() -> None:
    desk = Desk()
    with pytest.raises(CallRefusedError) as error:
        desk.one(about(subject="spiffe://prod.example/other"))
    assert error.value.code == "subject_refused"
    other = {"subject": {"type": "workload", "id": "spiffe://prod.example/other"}}
    answer = desk.several({**reads("1"), "evaluations": [{}, other, {}]})
    assert decisions(answer) == [True, False, True]
    assert answer["evaluations"][1]["context"]["error"]["status"] == 403
    assert [who for who, _ in desk.refusals] == [GATEWAY, GATEWAY]
    assert len(desk.records()) == 2
    assert desk.desk.numbers() == {"authzen_permits": 2, "authzen_denials": 0, "authzen_refused": 2}


def test_a_subject_that_is_no_workload_is_denied() -> None:
    desk = Desk(subjects=())
    asked = {**about(), "subject": {"type": "user", "id": GATEWAY}}
    assert desk.one(asked)["context"]["reason"] == "identity_invalid"


# ---- bounds -----------------------------------------------------------------------------------------------


def test_a_client_that_asks_too_fast_is_told_to_wait() -> None:
    desk = Desk()
    full = reads(*["1"] * MAX_EVALUATIONS)

    def ask() -> None:
        for _ in range(QUESTIONS_A_SECOND // MAX_EVALUATIONS * 3):
            desk.several(full)

    with pytest.raises(RateLimitedError):
        ask()


def test_a_log_that_is_full_answers_nobody() -> None:
    desk = Desk()
    desk.engine = _core.Engine(log_capacity=1)
    desk.engine.swap(asking.load(FILES))
    desk.desk = Authzen(
        desk.engine, settings=AuthzenSettings, refused=lambda _client, _why: None, clock=lambda: NOW
    )
    assert desk.one(about())["decision"] is True
    with pytest.raises(CallRefusedError) as error:
        desk.one(about())
    assert error.value.code == "log_unavailable"
    answer = desk.several(reads("1", "3"))
    assert decisions(answer) == [False, False]
    assert {one["context"]["error"]["status"] for one in answer["evaluations"]} == {503}


def test_a_server_that_stops_answers_nobody() -> None:
    desk = Desk()
    desk.engine.close()
    with pytest.raises(CallRefusedError) as error:
        desk.one(about())
    assert error.value.code == "not_ready"


# ---- metadata ---------------------------------------------------------------------------------------------


def test_metadata_is_of_the_settings_and_holds_nothing_that_is_not_offered() -> None:
    told = Desk(base="https://pdp.example:8443").desk.metadata()
    assert told is not None
    assert json.loads(told) == {
        "policy_decision_point": "https://pdp.example:8443",
        "access_evaluation_endpoint": "https://pdp.example:8443/access/v1/evaluation",
        "access_evaluations_endpoint": "https://pdp.example:8443/access/v1/evaluations",
    }
    assert Desk().desk.metadata() is None


@pytest.mark.parametrize(
    "bad",
    [
        *(
            "http://pdp.example",
            "https://pdp.example/",
            "https://pdp.example/tenant",
            "https://pdp.example?x",
        ),
        *("https://u@pdp.example", "pdp.example", "https://", "https://pdp.example#x", "https://pdp example"),
        *("https://-x", "https://x:123456", "https://x:65536", "https://x:0", "https://" + "x" * 600),
    ],
)
def test_an_address_is_https_with_a_host_and_nothing_behind_it(bad: str) -> None:
    with pytest.raises(ValueError, match="expected `https://`"):
        AuthzenSettings(policy_decision_point=bad)


# ---- records ----------------------------------------------------------------------------------------------


def test_a_question_is_decided_again_from_its_record_and_explained() -> None:
    desk = Desk()
    asking.publish(desk.engine, "device_trust", 4)
    desk.several({**about("transfer.create"), "evaluations": [{}, {"action": {"name": "account.read"}}]})
    lines = b"\n".join(json.dumps(record).encode() for record in desk.records())
    same = _core.Replay(asking.load(FILES))
    assert [json.loads(said)["flips"] for said in same.decide(lines).splitlines()] == [False, False]
    stricter = {**FILES, "policies/all.cedar": FILES["policies/all.cedar"].replace(">= 3", ">= 5")}
    said = [json.loads(line) for line in _core.Replay(asking.load(stricter)).decide(lines).splitlines()]
    assert [(one["now"]["reason"], one["flips"]) for one in said] == [
        ("no_policy_permits", True),
        ("allowed", False),
    ]
    explained = json.loads(same.explain(lines.splitlines()[0]))
    assert (explained["same"], explained["influence"]) == (True, {"device_trust": "decisive"})
    assert explained["thresholds"][0]["flips_at"] == 2


def test_what_the_settings_hide_is_hidden_of_questions_as_well() -> None:
    hiding = json.loads(asking.CORE_SETTINGS)
    hiding["redact"] = {"path_parameters": ["account"], "args": ["amount"]}
    desk = Desk()
    desk.engine.swap(asking.load(FILES, settings=json.dumps(hiding).encode()))
    desk.one(about("transfer.create", "DE-4711", amount=31337))
    desk.one(about("nowhere", "DE-4711"))
    records = desk.records()
    assert "4711" not in json.dumps(records)
    assert "31337" not in json.dumps(records)
    known, unknown = (record["request"] for record in records)
    assert (known["path"], known["redacted"]) == ("/access/v1/evaluation", ["account", "amount"])
    assert unknown["redacted"] == ["resource"]
    assert known["resource"] == unknown["resource"]
