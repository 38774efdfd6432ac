"""Our Cedar boundary against another driver of Cedar: generated policies, entities and requests, decided by our core with every
signal fresh and by `cedarpy` with the context written out, have the same answer for the same policies.

What `cedarpy` is asked is made here from the generated values: of the core's context, its slices, its quick tests and its links
nothing is reused. Where a policy fails, Cedar skips it and ours denies the call (`engine_error`), on purpose.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

import cedarpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from signalwarden.errors import ConfigurationError
from tests import asking

EXAMPLES = 800
HOST, ACTIONS = "pay.example", ("read", "write", "close")
ROUTES = "routes:\n" + "".join(
    f"""\
  - match: {{host: "{HOST}", method: GET, path: "/{action}/{{account}}"}}
    action: {action}
    resource: {{type: Account, id: "{{account}}"}}
    args: {{query: {{amount: "long?", note: "string?"}}}}
    tier: runtime
    sensitivity: low
"""
    for action in ACTIONS
)
KINDS: Final = {
    "flag": "bool", "level": "long", "word": "string", "mood": "enum[calm, busy]", "tags": "set", "ratio": "decimal",
    "origin": "ip", "since": "datetime",
}  # fmt: skip
SIGNALS = "signals:\n" + "".join(
    f"  {name}: {{type: {json.dumps(kind) if '[' in kind else kind}, description: d, owner: team@prod.example, purpose: p, "
    f"review_by: 2099-01-01, subject: principal, max_age: 5m, influence: grant, used_by: [{', '.join(ACTIONS)}], sources: "
    f'[{{kind: push, publisher: "{asking.PUBLISHER}", assurance: authoritative}}]}}\n'
    for name, kind in KINDS.items()
)
SCHEMA = """\
entity Role in [Role];
entity Workload in [Role] = {team?: String, rank?: Long};
entity Folder in [Folder];
entity Account in [Folder] = {owner?: String, frozen?: Bool};
"""
REFUSED: Final = {"cedar", "permit_on_absence"}
"""What the load checks may object to: types that can't be, and permits that test whether a signal is there."""
CALLERS = (asking.AGENT, "spiffe://prod.example/other")
ACCOUNTS = ("1", "2")

# ---- what is generated ------------------------------------------------------------------------------------

words = st.sampled_from(["", "a", "b", "calm", "busy", "ops é", 'with "quotes" and \\', "a*b"])
longs = st.sampled_from([-(2**63), -3, 0, 1, 3, 4, 2**63 - 1])
decimals = st.sampled_from(["0.0", "0.5", "-1.25", "922337203685477.5807"])
addresses = st.sampled_from(["10.0.0.1", "10.1.2.3", "192.168.7.1", "2001:db8::1"])
times = st.sampled_from(["1999-12-31T23:59:59Z", "2026-02-28T00:00:00Z", "2027-01-01T00:00:00.5Z"])
VALUES: Final[dict[str, st.SearchStrategy[Any]]] = {
    "flag": st.booleans(), "level": longs, "word": words, "mood": st.sampled_from(["calm", "busy"]),
    "tags": st.lists(words.filter(bool), unique=True, max_size=3), "ratio": decimals, "origin": addresses, "since": times,
}  # fmt: skip


def text(value: str) -> str:
    """As Cedar writes it."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _signal(name: str, rest: str) -> str:
    read = f"context.signals.{name}"
    return f"(context.signals has {name} && {rest.replace('$', read)})"


_by_signal = st.one_of(
    st.sampled_from([_signal("flag", "$"), _signal("flag", "!$"), "(context.signals has since)"]),
    st.builds(
        lambda op, n: _signal("level", f"$ {op} {n}" if n >= 0 else f"$ {op} ({n})"),
        st.sampled_from(["<", ">=", "==", "!="]),
        longs.filter(lambda n: n > -(2**63)),
    ),
    st.builds(lambda n: _signal("level", f"$ + {n} > 2"), st.sampled_from([0, 1, 2])),
    st.builds(lambda w: _signal("word", f"$ == {text(w)}"), words),
    st.sampled_from([_signal("word", '$ like "*a*"'), _signal("word", '$ like "a\\*b"')]),
    st.builds(lambda w: _signal("mood", f"$ != {text(w)}"), st.sampled_from(["calm", "busy"])),
    st.builds(lambda w: _signal("tags", f"$.contains({text(w)})"), words),
    st.sampled_from([_signal("tags", '$.containsAny(["a", "b"])'), _signal("tags", '["a", "b"].containsAll($)')]),
    st.builds(
        lambda call, d: _signal("ratio", f'$.{call}(decimal("{d}"))'),
        st.sampled_from(["lessThan", "greaterThanOrEqual"]),
        decimals,
    ),
    st.builds(
        lambda net: _signal("origin", f'$.isInRange(ip("{net}"))'),
        st.sampled_from(["10.0.0.0/8", "192.168.7.1", "2001:db8::/32"]),
    ),
    st.sampled_from([_signal("since", '$ < datetime("2026-02-28")'), _signal("since", '$ >= datetime("2027-01-01T00:00:00Z")')]),
)  # fmt: skip
_by_call = st.one_of(
    st.builds(lambda n: f"(context.request.args has amount && context.request.args.amount > {n})", st.integers(-1, 5)),
    st.just("(context.request.args has amount && context.request.args.amount * 2 > 3)"),
    st.builds(lambda w: f"(context.request.args has note && context.request.args.note == {text(w)})", words),
    st.sampled_from([
        'context.request.method == "GET"', f'context.request.host == "{HOST}"', 'context.request.path like "/read/*"',
        "context.identity.bound", 'context.identity.trust_domain == "prod.example"', "context.identity.legacy",
        'action == Action::"read"', 'action in [Action::"write", Action::"close"]',
    ]),
)  # fmt: skip
_by_entity = st.sampled_from([
    'principal in Role::"ops"', 'principal in Role::"all"', 'resource in Folder::"top"', f"principal == Workload::{text(CALLERS[1])}",
    '(principal has team && principal.team == "a")', "(principal has rank && principal.rank >= 3)",
    '(resource has owner && principal has team && resource.owner == principal.team)', "(resource has frozen && resource.frozen)",
    "principal is Workload", '[Account::"1", Account::"7"].contains(resource)',
])  # fmt: skip
conditions = st.recursive(
    st.one_of(_by_signal, _by_signal, _by_call, _by_entity),
    lambda inner: st.one_of(
        st.builds(lambda a, b: f"({a} && {b})", inner, inner),
        st.builds(lambda a, b: f"({a} || {b})", inner, inner),
        st.builds(lambda a, b, c: f"(if {a} then {b} else {c})", inner, inner, inner),
    ),
    max_leaves=5,
)
# A permit that tests the absence of a signal does not load, so what is negated reads none.
negated = st.one_of(_by_entity, _by_call).map(lambda condition: f"!({condition})")

_principals = st.sampled_from([
    None, ("==", f"Workload::{text(CALLERS[0])}"), ("==", f"Workload::{text(CALLERS[1])}"), ("in", 'Role::"ops"'),
    ("in", 'Role::"all"'), ("is Workload in", 'Role::"all"'),
])  # fmt: skip
_resources = st.sampled_from([
    None, ("==", 'Account::"1"'), ("in", 'Folder::"top"'), ("in", 'Folder::"low"'), ("is Account in", 'Folder::"top"'),
])  # fmt: skip
_actions = st.sampled_from(
    ["action", 'action == Action::"read"', 'action in [Action::"read", Action::"close"]']
)


@dataclass(frozen=True)
class Policy:
    """One generated policy."""

    effect: str
    principal: tuple[str, str] | None
    action: str
    resource: tuple[str, str] | None
    when: str | None
    unless: str | None
    as_link: bool

    def plain(self, number: int) -> str:
        """Written out."""
        return self._text(f"p{number}", self.principal, self.resource)

    def template(self, number: int) -> str:
        """With a slot for each entity of its scope."""
        slots = [slot and (slot[0], f"?{side}") for side, slot in self._sides()]
        return self._text(f"t{number}", slots[0], slots[1])

    def link(self, number: int) -> dict[str, str]:
        """What fills the slots."""
        return {
            "id": f"p{number}",
            "template": f"t{number}",
            **{side: slot[1] for side, slot in self._sides() if slot},
        }

    def _sides(self) -> tuple[tuple[str, tuple[str, str] | None], ...]:
        return ("principal", self.principal), ("resource", self.resource)

    def _text(self, name: str, principal: tuple[str, str] | None, resource: tuple[str, str] | None) -> str:
        scope = [
            f"principal {' '.join(principal or ())}",
            self.action,
            f"resource {' '.join(resource or ())}",
        ]
        clauses = [f"when {{ {self.when} }}"] * bool(self.when) + [f"unless {{ {self.unless} }}"] * bool(
            self.unless
        )
        return f'@id("{name}") {self.effect} ({", ".join(scope)}) {" ".join(clauses)};\n'


policies = st.builds(
    Policy,
    st.sampled_from(["permit", "permit", "forbid"]),
    _principals,
    _actions,
    _resources,
    st.one_of(st.none(), conditions, conditions, negated),
    st.one_of(st.none(), st.none(), _by_entity, _by_call),
    st.booleans(),
)


@st.composite
def entities(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Every caller and account, in roles and folders below one another."""

    def entity(
        kind: str, name: str, attributes: dict[str, Any], parents: list[tuple[str, str]]
    ) -> dict[str, Any]:
        above = [{"type": of, "id": parent} for of, parent in parents]
        return {"uid": {"type": kind, "id": name}, "attrs": attributes, "parents": above}

    def some(kind: str, names: tuple[str, ...]) -> list[tuple[str, str]]:
        return [(kind, name) for name in draw(st.lists(st.sampled_from(names), unique=True))]

    def given_some(**strategies: st.SearchStrategy[Any]) -> dict[str, Any]:
        return {name: draw(strategy) for name, strategy in strategies.items() if draw(st.booleans())}

    all_ = [
        entity("Role", "ops", {}, [("Role", "all")] if draw(st.booleans()) else []),
        entity("Role", "all", {}, []),
        entity("Folder", "low", {}, [("Folder", "top")] if draw(st.booleans()) else []),
        entity("Folder", "top", {}, []),
    ]
    all_ += [
        entity("Workload", name, given_some(team=words, rank=longs), some("Role", ("ops", "all")))
        for name in CALLERS
    ]
    all_ += [
        entity("Account", name, given_some(owner=words, frozen=st.booleans()), some("Folder", ("low", "top")))
        for name in ACCOUNTS
    ]
    return all_


@dataclass(frozen=True)
class Call:
    """One generated request, with the signals that are fresh for it."""

    caller: str
    action: str
    account: str
    args: dict[str, Any]
    signals: dict[str, Any]


calls = st.builds(
    Call,
    st.sampled_from(CALLERS),
    st.sampled_from(ACTIONS),
    st.sampled_from(ACCOUNTS),
    st.fixed_dictionaries({}, optional={"amount": longs, "note": words}),
    st.fixed_dictionaries(VALUES),
)

# ---- the two drivers --------------------------------------------------------------------------------------


def ours(listed: list[dict[str, Any]], written: list[Policy], call: Call) -> tuple[str, set[str]] | None:
    """The reason and the determining policies; nothing if the directory does not load."""
    links = [policy.link(n) for n, policy in enumerate(written) if _is_link(policy)]
    files = {
        "routes.yaml": ROUTES,
        "signals.yaml": SIGNALS,
        "entities.cedarschema": SCHEMA,
        "entities.json": json.dumps(listed),
        "policies/all.cedar": "".join(
            policy.template(n) if _is_link(policy) else policy.plain(n) for n, policy in enumerate(written)
        ),
        **({"policies/links.yaml": json.dumps({"links": links})} if links else {}),
    }
    try:
        engine = asking.running(asking.load(files))
    except ConfigurationError as error:
        unexpected = [f for f in error.findings if f.severity == "error" and f.code not in REFUSED]
        if unexpected:
            raise
        return None
    for name, value in call.signals.items():
        asking.publish(engine, name, value, subject=call.caller)
    query = f"?{urlencode(call.args)}" if call.args else ""
    request = asking.check_request(
        "GET", HOST, f"/{call.action}/{call.account}{query}", principal=call.caller
    )
    record = asking.decide(engine, request).record
    return record["reason"], {policy["id"] for policy in record["policies"]["determining"]}


def _is_link(policy: Policy) -> bool:
    return policy.as_link and bool(policy.principal or policy.resource)


def theirs(listed: list[dict[str, Any]], written: list[Policy], call: Call) -> tuple[str, set[str]]:
    """The same question to `cedarpy`, in our words."""

    def extension(function: str, value: str) -> dict[str, Any]:
        return {"__extn": {"fn": function, "arg": value}}

    signals = dict(call.signals)
    signals["ratio"] = extension("decimal", signals["ratio"])
    signals["origin"] = extension("ip", signals["origin"])
    signals["since"] = extension("datetime", signals["since"].replace(".5Z", ".500Z"))
    context = {
        "signals": signals,
        "request": {"method": "GET", "path": f"/{call.action}/{call.account}", "host": HOST, "args": call.args},
        "identity": {"kind": "x509", "trust_domain": "prod.example", "bound": True, "interactive": False, "legacy": False},
    }  # fmt: skip
    request = {
        "principal": f"Workload::{text(call.caller)}",
        "action": f"Action::{text(call.action)}",
        "resource": f"Account::{text(call.account)}",
        "context": context,
    }
    result = cedarpy.is_authorized(
        request, "".join(policy.plain(n) for n, policy in enumerate(written)), listed
    )
    if result.diagnostics.errors:
        return "engine_error", set()
    # Named by their order: `policy0`, `policy1`, … unless it reads `@id`.
    named = {reason.replace("policy", "p") for reason in result.diagnostics.reasons}
    if result.allowed:
        return "allowed", named
    return ("policy_denied" if named else "no_policy_permits"), named


# ---- the facts --------------------------------------------------------------------------------------------


def test_cedarpy_and_our_core_give_the_same_answer_for_the_same_policies() -> None:
    seen: dict[str, int] = {}

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(entities(), st.lists(policies, min_size=1, max_size=8), calls)
    def agree(listed: list[dict[str, Any]], written: list[Policy], call: Call) -> None:
        found = ours(listed, written, call)
        if found is None:
            seen["not loaded"] = seen.get("not loaded", 0) + 1
            return
        expected = theirs(listed, written, call)
        seen[found[0]] = seen.get(found[0], 0) + 1
        if expected[0] == "engine_error":
            assert found[0] == "engine_error"
        else:
            assert found == expected

    agree()
    assert all(
        seen.get(reason, 0) >= EXAMPLES // 40 for reason in ("allowed", "policy_denied", "no_policy_permits")
    ), seen
    assert seen.get("not loaded", 0) < EXAMPLES // 2, seen
