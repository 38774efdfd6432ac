"""I1 for AuthZEN, through the body of a question: whatever is said beside the names and the arguments that routes name, the
answer is the same. So no context and no properties turn a denial into an allow."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from signalwarden.authzen import Authzen
from signalwarden.authzen_settings import AuthzenSettings
from signalwarden.config import Right
from signalwarden.services import Client
from tests import asking
from tests.asking import AGENT, NOW

generated = settings(
    max_examples=300, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
SAID = "description: d, owner: team@prod.example, purpose: p, review_by: 2099-01-01"
FILES = {
    "routes.yaml": """\
routes:
  - match: {host: "pay.*", method: POST, path: "/v1/accounts/{account}/transfers"}
    action: transfer.create
    resource: {type: Account, id: "{account}"}
    args: {query: {dry_run: "bool?"}, body: {amount: {pointer: /amount, type: long}}}
    tier: runtime
    sensitivity: high
""",
    "signals.yaml": f"""\
signals:
  device_trust: {{type: long, {SAID}, subject: principal, max_age: 5m, influence: grant, used_by: [transfer.create], sources: [{{kind: push, publisher: "{asking.PUBLISHER}", assurance: authoritative}}]}}
  task_type: {{type: string, {SAID}, subject: request, influence: restrict, used_by: [transfer.create], sources: [{{kind: header, header: x-task-type, assurance: self_asserted}}]}}
""",
    "entities.cedarschema": "entity Workload;\nentity Account;\n",
    "policies/all.cedar": """\
permit (principal, action, resource)
when { context.signals has device_trust && context.signals.device_trust >= 3 && context.request.args.amount < 500 };
forbid (principal, action, resource) when { context.signals has task_type && context.signals.task_type == "export" };
""",
}
ARGS = ("dry_run", "amount", "account")
NAMES = st.one_of(
    st.text(min_size=1, max_size=12).filter(lambda name: name not in ARGS),
    st.sampled_from(
        [
            *(
                "device_trust",
                "signals",
                "task_type",
                "identity",
                "grant",
                "approval",
                "role",
                "roles",
                "args",
            ),
            *(
                "x-task-type",
                "principal",
                "trust_domain",
                "decision",
                "reason",
                "enforce",
                "properties",
                "id",
            ),
        ]
    ),
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
CLAIMS = st.dictionaries(NAMES, VALUES, max_size=5)
UNKNOWN = st.dictionaries(
    NAMES.filter(lambda name: name not in ("type", "id", "properties", "context")), VALUES, max_size=3
)


def desk(trust: int | None) -> Authzen:
    engine = asking.running(asking.load(FILES))
    if trust is not None:
        asking.publish(engine, "device_trust", trust)
    return Authzen(engine, settings=AuthzenSettings, refused=lambda _client, _why: None, clock=lambda: NOW)


CLIENT = Client("spiffe://prod.example/gateway", frozenset({Right.EVALUATE}), (AGENT,))
DESKS = {trust: desk(trust) for trust in (None, 1, 4)}


def asked(trust: int | None, question: dict[str, Any]) -> tuple[bool, str]:
    # One property asks more in a second than any client may.
    desk = DESKS[trust]
    desk._rates._buckets.clear()
    answer = json.loads(
        desk.evaluation(CLIENT, json.dumps(question).encode(), certificate=None, request_id=None)
    )
    asking.drained(desk._engine)
    return answer["decision"], answer["context"]["reason"]


@generated
@given(
    trust=st.sampled_from([None, 1, 4]),
    amount=st.sampled_from([10, 499, 500, "10", None]),
    claims=st.tuples(CLAIMS, CLAIMS, CLAIMS, CLAIMS),
    unknown=st.tuples(UNKNOWN, UNKNOWN, UNKNOWN),
)
def test_nothing_but_names_and_arguments_changes_an_answer(
    trust: int | None,
    amount: Any,
    claims: tuple[dict[str, Any], ...],
    unknown: tuple[dict[str, Any], ...],
) -> None:
    plain: dict[str, Any] = {
        "subject": {"type": "workload", "id": AGENT},
        "action": {"name": "transfer.create", "properties": {} if amount is None else {"amount": amount}},
        "resource": {"type": "Account", "id": "42"},
    }
    loud = copy.deepcopy(plain)
    of_subject, of_action, of_resource, context = claims
    loud["subject"] = {**unknown[0], **loud["subject"], "properties": of_subject}
    loud["action"]["properties"] = {**of_action, **plain["action"]["properties"]}
    loud["resource"] = {**unknown[1], **loud["resource"], "properties": of_resource}
    loud = {**unknown[2], **loud, "context": context}
    assert asked(trust, loud) == asked(trust, plain)
    expected = trust == 4 and amount in (10, 499)
    assert asked(trust, plain)[0] is expected
