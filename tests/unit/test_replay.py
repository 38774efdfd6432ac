"""Recorded decisions, made again with another directory: what is asked anew, what is taken as recorded, and what can't be
known from a record. That a record decides as it was with its own directory is held by properties in the core."""

from __future__ import annotations

import json
from typing import Any

import pytest

from signalwarden import _core
from tests import asking
from tests.asking import MINUTE, NOW, check_request

ROUTES = """\
routes:
  - match: {host: "*", method: POST, path: "/accounts/{account}/transfers"}
    action: transfer.create
    resource: {type: Account, id: "{account}"}
    args: {query: {amount: "long?"}}
    system: payments
    tier: runtime
    sensitivity: high
  - match: {host: "*", method: GET, path: "/rpc/{method}", extensions: {upstream: rpc}}
    action: rpc.call
    resource: {type: Account, id: rpc}
    tier: coarse
    sensitivity: low
"""
SIGNALS = """\
signals:
  device_trust:
    {type: long, description: d, owner: o@x, purpose: p, subject: principal, max_age: 5m, influence: grant,
    used_by: [transfer.create], review_by: 2099-01-01,
    sources: [{kind: push, publisher: "spiffe://prod.example/publisher", assurance: authoritative}]}
  data:
    {type: string, description: d, owner: o@x, purpose: p, subject: request, influence: restrict,
    used_by: [transfer.create], review_by: 2099-01-01, sources: [{kind: route, fact: sensitivity, assurance: authoritative}]}
"""
POLICIES = """\
@id("trusted") permit (principal, action == Action::"transfer.create", resource)
when { context.signals has device_trust && context.signals.device_trust >= 3 };
@id("rpc") permit (principal, action == Action::"rpc.call", resource);
@id("no-low-data") forbid (principal, action == Action::"transfer.create", resource)
when { context.signals has data && context.signals.data == "low" };
"""
FILES = {
    "routes.yaml": ROUTES,
    "signals.yaml": SIGNALS,
    "entities.cedarschema": "entity Workload;\nentity Account;\n",
    "policies/all.cedar": POLICIES,
}


def transfer(path: str = "/accounts/42/transfers", **options: Any) -> dict[str, Any]:
    """The record of one transfer that was allowed: the device's trust was 4, a minute ago."""
    engine = asking.running(asking.load(FILES))
    asking.publish(engine, "device_trust", 4, observed_us=NOW - MINUTE)
    return asking.decide(engine, check_request("POST", path=path, **options)).record


def again(record: dict[str, Any], changes: dict[str, tuple[str, str]], **options: Any) -> dict[str, Any]:
    """The same decided with a directory in which texts of files are replaced."""
    files = dict(FILES)
    for name, (old, new) in changes.items():
        before = files.get(name, "[]\n")
        assert old in before
        files[name] = before.replace(old, new)
    replay = _core.Replay(asking.load(files, **options))
    said: dict[str, Any] = json.loads(replay.decide(json.dumps(record).encode()))
    return said


def retired(at: str) -> tuple[str, str]:
    attributes = {"retired_at": {"__extn": {"fn": "datetime", "arg": at}}}
    entity = {"uid": {"type": "Workload", "id": asking.AGENT}, "attrs": attributes, "parents": []}
    return "[]", json.dumps([entity])


NOW_DENIED = [
    ("a stricter policy", {"policies/all.cedar": (">= 3", ">= 5")}, "no_policy_permits"),
    ("no such route", {"routes.yaml": ("/transfers", "/payments")}, "route_unknown"),
    ("a shorter life of signals", {"signals.yaml": ("max_age: 5m", "max_age: 30s")}, "signal_unavailable"),
    (
        "another fact of the route",
        {"routes.yaml": ("sensitivity: high", "sensitivity: low")},
        "policy_denied",
    ),
    (
        "a yes that nobody was asked for",
        {"policies/all.cedar": ('@id("trusted")', '@id("trusted") @require_approval("why")')},
        "approval_required",
    ),
]


@pytest.mark.parametrize(
    ("changes", "reason"), [case[1:] for case in NOW_DENIED], ids=[case[0] for case in NOW_DENIED]
)
def test_the_directory_is_asked_anew(changes: dict[str, tuple[str, str]], reason: str) -> None:
    record = transfer()
    assert record["reason"] == "allowed"
    said = again(record, changes)
    assert (said["now"]["reason"], said["flips"]) == (reason, True)


UNKNOWABLE = [
    ("a grant", {"routes.yaml": ("tier: runtime", "tier: jit")}, "none was looked at"),
    ("an argument", {"routes.yaml": ('"long?"', '"long?", note: "string?"')}, "`note`"),
    ("a source", {"signals.yaml": ("/publisher", "/other")}, "none of the contract's now"),
    (
        "a type",
        {
            "signals.yaml": ("type: long", "type: decimal"),
            "policies/all.cedar": (
                "context.signals.device_trust >= 3",
                'context.signals.device_trust.greaterThan(decimal("3.0"))',
            ),
        },
        "another type",
    ),
    ("a subject", {"signals.yaml": ("subject: principal", "subject: resource")}, "another subject"),
    (
        "an extension",
        {
            "routes.yaml": (
                'path: "/accounts/{account}/transfers"}',
                'path: "/accounts/{account}/transfers", extensions: {zone: eu}}',
            )
        },
        "the extension `zone`",
    ),
]


@pytest.mark.parametrize(
    ("changes", "why"), [case[1:] for case in UNKNOWABLE], ids=[case[0] for case in UNKNOWABLE]
)
def test_what_a_record_does_not_hold_is_not_guessed(changes: dict[str, tuple[str, str]], why: str) -> None:
    said = again(transfer(), changes)
    assert why in said["undecidable"]
    assert "now" not in said


def test_a_secret_value_makes_a_decision_undecidable() -> None:
    files = {
        **FILES,
        "signals.yaml": SIGNALS.replace("influence: grant,", "influence: grant, sensitivity: secret,"),
    }
    configuration = asking.load(files)
    engine = asking.running(configuration)
    asking.publish(engine, "device_trust", 4)
    line = json.dumps(
        asking.decide(engine, check_request("POST", path="/accounts/42/transfers")).record
    ).encode()
    replay = _core.Replay(configuration)
    assert "secret" in json.loads(replay.decide(line))["undecidable"]
    assert "secret" in json.loads(replay.explain(line))["undecidable"]
    # What it would have been can be said in its place.
    said = json.loads(replay.decide(line, changes=b'[{"name": "device_trust", "value": 2}]'))
    assert said["now"]["reason"] == "no_policy_permits"


def test_what_further_matches_looked_at_is_recorded() -> None:
    configuration = asking.load(FILES)
    engine = asking.running(configuration)
    for extensions, reason in (({"upstream": "rpc", "other": "x"}, "allowed"), ({}, "route_unknown")):
        record = asking.decide(engine, check_request(path="/rpc/list", extensions=extensions)).record
        assert record["request"]["extensions"] == {"upstream": extensions.get("upstream")}
        said = json.loads(_core.Replay(configuration).decide(json.dumps(record).encode()))
        assert said["now"]["reason"] == record["reason"] == reason


def test_an_argument_that_was_left_out_is_known_to_be() -> None:
    assert transfer()["request"]["args_left_out"] == ["amount"]
    record = transfer("/accounts/42/transfers?amount=7")
    assert record["request"]["args"] == {"amount": 7}
    assert again(transfer(), {"routes.yaml": ('"long?"', "long")})["now"]["reason"] == "malformed_request"
    assert again(record, {"routes.yaml": ('"long?"', "long")})["now"]["reason"] == "allowed"


def test_who_asked_is_taken_as_recorded() -> None:
    engine = asking.running(asking.load(FILES))
    record = asking.decide(engine, check_request("POST", path="/accounts/42/transfers", principal="")).record
    said = again(record, {"policies/all.cedar": (">= 3", ">= 1")})
    assert (said["now"]["reason"], said["flips"]) == ("identity_missing", False)
    assert "as recorded" in said["as_it_was"]
    # But a trust domain that the settings no longer know is none.
    said = again(transfer(), {}, trust_domain="other.example")
    assert said["now"]["reason"] == "trust_domain_unknown"


def test_a_denial_that_is_let_pass_says_so() -> None:
    said = again(
        transfer(),
        {
            "policies/all.cedar": (">= 3", ">= 5"),
            "routes.yaml": ("tier: runtime", "tier: runtime\n    enforce: false"),
        },
    )
    assert said["now"]["reason"] == "no_policy_permits"
    assert said["now"]["enforced"] is False
