"""Tiers: a coarse route reads no signal, and a legacy batch job is brought in as coarse and tightened action by action."""

from __future__ import annotations

import json
from typing import Final

import pytest

from signalwarden._core import Engine
from tests.asking import (
    AGENT,
    CORE_SETTINGS,
    NOW,
    Decision,
    check_request,
    decide,
    findings,
    load,
    publish,
    running,
)

JOB: Final = "spiffe://prod.example/batch/settlement"
READ, SETTLE, PAY, WIPE = "ledger.read", "ledger.settle", "payment.create", "ledger.wipe"
ACTIONS: Final = {
    READ: "GET /ledger/1",
    SETTLE: "POST /ledger/1",
    PAY: "POST /payments/1",
    WIPE: "DELETE /ledger/1",
}
SIGNALS: Final = """\
signals:
  window_open:
    type: bool
    description: Whether the batch window is open
    owner: team-batch@prod.example
    purpose: Settle in the night alone
    subject: principal
    sources: [{kind: push, publisher: "spiffe://prod.example/publisher", assurance: authoritative}]
    max_age: 5m
    influence: grant
    used_by: [ledger.settle]
    review_by: 2027-06-30
"""
NO_SIGNALS: Final = "signals: {}\n"
ROLE: Final = """\
@id("static-role") permit (principal in Role::"settlement", action in [{actions}], resource);
"""
AT_NIGHT: Final = """\
@id("at-night") permit (principal in Role::"settlement", action == Action::"ledger.settle", resource)
when { context.signals has window_open && context.signals.window_open };
"""
ENTITIES: Final = json.dumps(
    [
        {"uid": {"type": "Role", "id": "settlement"}, "attrs": {}, "parents": []},
        {
            "uid": {"type": "Workload", "id": JOB},
            "attrs": {},
            "parents": [{"type": "Role", "id": "settlement"}],
        },
    ]
)


def directory(tiers: dict[str, str], *, night: bool = False) -> dict[str, str]:
    """The job's four actions; those that `tiers` leaves out are coarse."""
    routes = []
    for action, call in ACTIONS.items():
        method, _, path = call.partition(" ")
        routes.append(
            f'  - match: {{host: "batch.example", method: {method}, path: "{path}"}}\n'
            f'    action: {action}\n    resource: {{type: Ledger, id: "1"}}\n    system: ledger\n'
            f"    tier: {tiers.get(action, 'coarse')}\n    sensitivity: medium\n"
        )
    statically = [action for action in ACTIONS if not (night and action == SETTLE)]
    role = ROLE.format(actions=", ".join(f'Action::"{action}"' for action in statically))
    return {
        "routes.yaml": "routes:\n" + "".join(routes) + "default: deny\n",
        "signals.yaml": SIGNALS if night else NO_SIGNALS,
        "entities.cedarschema": "entity Role;\nentity Workload in [Role];\nentity Ledger;\n",
        "entities.json": ENTITIES,
        "policies/batch.cedar": role + (AT_NIGHT if night else ""),
    }


def ask(engine: Engine, action: str, *, principal: str = JOB) -> Decision:
    method, _, path = ACTIONS[action].partition(" ")
    # As Envoy announces that all of an empty body is there.
    headers = {"x-envoy-auth-partial-body": "false"}
    return decide(engine, check_request(method, "batch.example", path, principal=principal, headers=headers))


def reasons(engine: Engine) -> dict[str, str]:
    return {action: ask(engine, action).reason for action in ACTIONS}


def test_a_legacy_job_comes_in_as_coarse_by_its_static_role_and_reads_no_signal() -> None:
    engine = running(load(directory({})))
    assert reasons(engine) == dict.fromkeys(ACTIONS, "allowed")
    for action in ACTIONS:
        record = ask(engine, action).record
        assert (record["request"]["tier"], record["signals"]) == ("coarse", [])
        assert ask(engine, action, principal=AGENT).reason == "entity_unknown"


def test_it_is_tightened_action_by_action_and_the_others_stay_as_they_are() -> None:
    steps = [
        ({SETTLE: "runtime"}, {SETTLE: "signal_unavailable"}),
        ({SETTLE: "runtime", WIPE: "jit"}, {SETTLE: "signal_unavailable", WIPE: "grant_required"}),
        (
            {SETTLE: "runtime", WIPE: "jit", PAY: "approval"},
            {SETTLE: "signal_unavailable", WIPE: "grant_required", PAY: "approval_required"},
        ),
    ]
    engine = running(load(directory({})))
    for tiers, denied in steps:
        engine.swap(load(directory(tiers, night=True)))
        assert reasons(engine) == {**dict.fromkeys(ACTIONS, "allowed"), **denied}
    publish(engine, "window_open", True, subject=JOB)
    assert ask(engine, SETTLE).reason == "allowed"
    publish(engine, "window_open", False, subject=JOB, observed_us=NOW + 1)
    assert ask(engine, SETTLE).reason == "no_policy_permits"
    assert ask(engine, READ).reason == "allowed", (
        "what is coarse goes by its static role, whatever signals say"
    )


def test_a_grant_is_not_looked_at_on_a_coarse_route() -> None:
    engine = running(load(directory({})))
    request = check_request(
        "GET", "batch.example", "/ledger/1", principal=JOB, headers={"x-signalwarden-grant": "none of ours"}
    )
    assert decide(engine, request).reason == "allowed"


@pytest.mark.parametrize("tier", ["coarse", "runtime"])
def test_a_policy_that_reads_a_signal_for_a_coarse_action_does_not_load(tier: str) -> None:
    found = findings(directory({SETTLE: tier}, night=True), settings=CORE_SETTINGS)
    errors = [finding for finding in found if finding.severity == "error"]
    assert bool(errors) == (tier == "coarse"), found
