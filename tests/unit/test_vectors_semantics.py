"""`semantics.json` through the door: each case as a directory that loads, signals that publishers send, a request.

Cases that `check` refuses at load hold below the loader, in the core's own tests; here they are asserted to be
refused. The product has no switch that turns a load check off.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from signalwarden import _core
from signalwarden.errors import ConfigurationError
from tests import asking
from tests.asking import MINUTE, NOW

AGENT = "spiffe://t/a"
PUBLISHER = "spiffe://t/publisher"
FORMER_PUBLISHER = "spiffe://t/former"
CASES: list[dict[str, Any]] = [
    case for vectors in asking.vectors("semantics.json") for case in vectors["cases"]
]
OWN = len(asking.vectors("semantics.json")[0]["cases"])

# What does not load, and by which check. All others go through the door.
REFUSED = {
    "permit-on-absence": "permit_on_absence",
    "restrict-cannot-open-permit": "permit_needs_word",
}

ROUTES = """\
routes:
  - match: {host: "*", method: POST, path: "/accounts/{account}/transfers"}
    action: transfer.create
    resource: {type: Account, id: "{account}"}
    tier: runtime
    sensitivity: high
  - match: {host: "*", method: DELETE, path: "/accounts/{account}"}
    action: account.close
    resource: {type: Account, id: "{account}"}
    tier: runtime
    sensitivity: high
"""
OTHER = {"long": 77, "string": "another", "bool": False}
"""A second value for a dispute."""


def contract(name: str, declared: dict[str, Any], publisher: str) -> str:
    """A contract as a user would write it."""
    if declared.get("assurance") == "self_asserted":
        source = (
            f"subject: request, sources: [{{kind: header, header: {header(name)}, assurance: self_asserted}}]"
        )
    else:
        push = f'{{kind: push, publisher: "{publisher}", assurance: authoritative}}'
        when = declared["when_unavailable"]
        why = ', justification: "of little weight"' if when == "absent" else ""
        source = f"subject: principal, max_age: 5m, sources: [{push}], when_unavailable: {when}{why}"
    said = "description: d, owner: team@t, purpose: p, review_by: 2099-01-01"
    used = "used_by: [transfer.create, account.close]"
    return f"  {name}: {{type: {declared['type']}, influence: {declared['influence']}, {used}, {said}, {source}}}\n"


def header(name: str) -> str:
    return f"x-{name.replace('_', '-')}"


def directory(case: dict[str, Any], publishers: dict[str, str]) -> dict[str, str]:
    contracts = [contract(name, declared, publishers[name]) for name, declared in case["signals"].items()]
    return {
        "routes.yaml": ROUTES,
        "signals.yaml": "signals:\n" + "".join(contracts),
        "entities.cedarschema": "entity Workload;\nentity Account;\n",
        "policies/case.cedar": "\n".join(case["policy"]),
    }


def load(case: dict[str, Any], publishers: dict[str, str]) -> _core.Configuration:
    return asking.load(directory(case, publishers), trust_domain="t")


def publishers_of(case: dict[str, Any]) -> dict[str, str]:
    facts = case["facts"]
    return {name: AGENT if "contributed_by" in facts.get(name, {}) else PUBLISHER for name in case["signals"]}


def bring_about(engine: _core.Engine, name: str, fact: dict[str, Any], kind: str, publisher: str) -> None:
    """Puts one pushed signal into the state that a case wants, by what a publisher can do and a clock can show."""
    state, value = fact["state"], fact.get("value", OTHER[kind])
    at = {"stale": NOW - 6 * MINUTE, "future": NOW + MINUTE}.get(state, NOW)
    if state == "missing":
        return
    options: dict[str, Any] = {"subject": AGENT, "publisher": publisher, "observed_us": at}
    asking.publish(engine, name, value, **options, now_us=max(at, NOW))
    if state == "disputed":
        second = (
            {"long": 78, "string": "a third", "bool": True}[kind] if value == OTHER[kind] else OTHER[kind]
        )
        asking.publish(engine, name, second, **options)


def ask(case: dict[str, Any]) -> asking.Decision:
    """The case's question, decided offline."""
    final = publishers_of(case)
    unverified = {name for name, fact in case["facts"].items() if fact["state"] == "unverified"}
    before = {name: FORMER_PUBLISHER if name in unverified else who for name, who in final.items()}
    engine = asking.running(load(case, before))
    headers = {}
    for name, fact in case["facts"].items():
        declared = case["signals"][name]
        if declared.get("assurance") != "self_asserted":
            bring_about(engine, name, fact, declared["type"], before[name])
        elif fact["state"] == "fresh":
            headers[header(name)] = str(fact["value"])
        else:
            assert fact["state"] == "missing"
    engine.swap(load(case, final))
    request = asking.check_request(
        "POST", "bank.example", "/accounts/42/transfers", principal=AGENT, headers=headers
    )
    return asking.decide(engine, request)


@pytest.mark.parametrize("case", [c for c in CASES if c["id"] not in REFUSED], ids=lambda case: case["id"])
def test_a_case_decides_through_the_door_as_its_vector_says(case: dict[str, Any]) -> None:
    decision = ask(case)
    expected = case["expect"]
    assert (decision.reason, decision.allowed) == (expected["reason"], expected["outcome"] == "allow")
    signals = {signal["name"]: signal for signal in decision.record["signals"]}
    assert {name: signal["influence"] for name, signal in signals.items()} == expected["influence"]
    for name, signal in signals.items():
        fact = case["facts"].get(name, {"state": "missing"})
        assert signal["state"] == fact["state"]
        self_asserted = "contributed_by" in fact or case["signals"][name].get("assurance") == "self_asserted"
        assert (signal["assurance"] == "self_asserted") == self_asserted


@pytest.mark.parametrize("case", [c for c in CASES if c["id"] not in REFUSED], ids=lambda case: case["id"])
def test_the_record_of_a_case_decides_again_as_it_was(case: dict[str, Any]) -> None:
    record = ask(case).record
    replay = _core.Replay(load(case, publishers_of(case)))
    said = json.loads(replay.decide(json.dumps(record).encode()))
    was = {"outcome": record["outcome"], "reason": record["reason"]}
    assert said["was"] == was
    assert said["now"] == {**was, "determining": record["policies"]["determining"]}
    explained = json.loads(replay.explain(json.dumps(record).encode()))
    assert explained["same"]
    assert explained["influence"] == case["expect"]["influence"]


@pytest.mark.parametrize("case", [c for c in CASES if c["id"] in REFUSED], ids=lambda case: case["id"])
def test_a_case_that_check_refuses_does_not_load(case: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load(case, publishers_of(case))
    errors = {finding.code for finding in refused.value.findings if finding.severity == "error"}
    assert errors == {REFUSED[case["id"]]}


def test_no_case_is_lost() -> None:
    ids = {case["id"] for case in CASES[:OWN]}
    assert OWN == len(ids) == 56
    assert set(REFUSED) <= ids
    assert len(ids - set(REFUSED)) == 54
