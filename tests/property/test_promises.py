"""The promises as properties, through the Python API: I1, I2 and I4 for generated directories, requests and orders.

The core has the same properties in Rust, on more cases; here they hold for what Python is given.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from signalwarden import _core
from signalwarden.errors import ConfigurationError
from tests import asking
from tests.asking import NOW

generated = settings(
    max_examples=1_000,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
SAID = "description: d, owner: team@prod.example, purpose: p, review_by: 2099-01-01"
PUSH = f'sources: [{{kind: push, publisher: "{asking.PUBLISHER}", assurance: authoritative}}], subject: principal, max_age: 5m'
ROUTES = """\
routes:
  - match: {host: "pay.*", method: POST, path: "/v1/accounts/{account}/transfers"}
    action: transfer.create
    resource: {type: Account, id: "{account}"}
    args: {query: {dry_run: "bool?"}, body: {amount: {pointer: /amount, type: long}}}
    tier: runtime
    sensitivity: high
"""


def directory(signals: str, policies: str) -> dict[str, str]:
    return {
        "routes.yaml": ROUTES,
        "signals.yaml": signals,
        "entities.cedarschema": "entity Workload;\nentity Account;\n",
        "policies/all.cedar": policies,
    }


# ---- I1: only governed inputs influence -------------------------------------------------------------------

GOVERNED = directory(
    f"""\
signals:
  device_trust: {{type: long, {SAID}, {PUSH}, influence: grant, used_by: [transfer.create]}}
  task_type: {{type: string, {SAID}, subject: request, sources: [{{kind: header, header: x-task-type, assurance: self_asserted}}], influence: restrict, used_by: [transfer.create]}}
""",
    """\
permit (principal, action, resource)
when { context.signals has device_trust && context.signals.device_trust >= 3 && context.request.args.amount < 500 };
forbid (principal, action, resource) when { context.signals has task_type && context.signals.task_type == "export" };
""",
)
CLAIMS = {"device_trust": 5, "task_type": "refund", "sub": "spiffe://prod.example/admin", "reason": "allowed"}
nobodys_headers = st.one_of(
    st.from_regex(r"x-[a-z]{1,8}", fullmatch=True).filter(lambda name: name != "x-task-type"),
    st.sampled_from(
        [
            *(
                "authorization",
                "cookie",
                "x-device-trust",
                "device_trust",
                "x-forwarded-client-cert",
                "forwarded",
            ),
            *(
                "x-signalwarden-principal",
                "x-signalwarden-grant",
                "x-signalwarden-approval",
                "x-forwarded-for",
            ),
            *(
                "x-http-method-override",
                "x-original-url",
                "x-envoy-original-path",
                "x-jwt-payload",
                "tracestate",
            ),
        ]
    ),
)
texts = st.text(max_size=20)
claims = st.dictionaries(
    st.sampled_from([*CLAIMS, "signals", "context"]),
    st.one_of(st.integers(0, 9), st.booleans(), texts),
    max_size=3,
)
labels = st.dictionaries(st.one_of(st.sampled_from([*CLAIMS]), texts), texts, max_size=3)


def question(amount: int, task: str | None) -> dict[str, Any]:
    """The governed part of a request."""
    headers = {"content-type": "application/json"} | ({} if task is None else {"x-task-type": task})
    return {"headers": headers, "body": b'{"amount": %d}' % amount}


def ask(
    engine: _core.Engine, parts: dict[str, Any], vary: Callable[[Any], None] = lambda _: None
) -> dict[str, Any]:
    """Decides; the record without what tells one decision from another."""
    request = asking.check_request(
        "POST", "pay.example", parts.pop("path", "/v1/accounts/42/transfers"), **parts
    )
    vary(request.attributes)
    record = asking.decide(engine, request).record
    for name in ("decision_id", "timing_us"):
        del record[name]
    for name in ("envoy_id", "trace_id", "span_id", "trace_flags"):
        record["request"].pop(name, None)
    return record


def test_what_nobody_names_changes_nothing() -> None:
    from envoy_data_plane.envoy.config.core.v3 import Metadata
    from envoy_data_plane.google.protobuf import Struct

    engines = {}
    for trust in (None, 1, 4):
        engines[trust] = asking.running(asking.load(GOVERNED))
        if trust is not None:
            asking.publish(engines[trust], "device_trust", trust)
    seen: set[str] = set()
    count = itertools.count()

    @generated
    @given(
        st.sampled_from([None, 1, 4]),
        st.sampled_from([100, 900]),
        st.sampled_from([None, "refund", "export"]),
        st.dictionaries(nobodys_headers, texts, max_size=4),
        st.tuples(claims, claims, labels, labels, labels),
        st.tuples(texts, texts, texts),
        st.dictionaries(st.from_regex(r"[a-z]{2,6}", fullmatch=True), st.integers(0, 99), max_size=2),
    )
    def holds(
        trust: int | None,
        amount: int,
        task: str | None,
        headers: dict[str, str],
        structs: tuple[dict[str, Any], ...],
        words: tuple[str, str, str],
        query: dict[str, int],
    ) -> None:
        plain = question(amount, task)
        expected = ask(engines[trust], dict(plain))
        other = b', "device_trust": 5, "task_type": "refund", "x": %d}' % len(words[0])
        body = plain["body"].removesuffix(b"}") + other
        path = "/v1/accounts/42/transfers?" + "&".join(f"{k}={v}" for k, v in query.items())
        varied = {"headers": plain["headers"] | headers, "body": body, "path": path}

        def vary(attributes: Any) -> None:
            meta = [
                Metadata(filter_metadata={"envoy.filters.http.jwt_authn": Struct.from_dict(s)})
                for s in structs[:2]
            ]
            attributes.metadata_context, attributes.route_metadata_context = meta
            attributes.context_extensions = structs[2]
            attributes.source.labels, attributes.source.service = structs[3], words[0]
            attributes.request.http.id, attributes.request.http.scheme = words[1:]

        assert ask(engines[trust], varied, vary) == expected
        seen.add(expected["reason"])
        next(count)

    holds()
    print(f"I1: {next(count)} requests, each against its plain form")
    assert seen == {"allowed", "policy_denied", "no_policy_permits", "signal_unavailable"}


# ---- I2: an unavailable signal never widens access --------------------------------------------------------

TYPES = {"risk": "long", "approved": "bool", "posture": "enum[ok, degraded, compromised]"}
VALUES: dict[str, list[object]] = {
    "risk": [0, 50, 99],
    "approved": [True, False],
    "posture": ["ok", "degraded", "compromised"],
}
tests_of_one = st.one_of(
    st.tuples(st.just("risk"), st.sampled_from(["< 50", ">= 50", "== 99", "!= 0"])),
    st.tuples(st.just("approved"), st.sampled_from(["== true", "== false", ""])),
    st.tuples(st.just("posture"), st.sampled_from(['== "ok"', '!= "compromised"', '== "degraded"'])),
).map(lambda t: f"(context.signals has {t[0]} && context.signals.{t[0]} {t[1]})")
conditions = st.recursive(
    st.one_of(
        tests_of_one,
        tests_of_one,
        st.sampled_from([*TYPES]).map(lambda name: f"(context.signals has {name})"),
        st.sampled_from(["(context.request.args.amount < 500)", '(context.request.host == "pay.example")']),
    ),
    lambda inner: st.tuples(
        st.sampled_from(["", "", "", "!"]), inner, st.sampled_from(["&&", "||"]), inner
    ).map(lambda t: f"({t[0]}{t[1]} {t[2]} {t[3]})"),
    max_leaves=4,
)
policies = st.tuples(
    st.sampled_from(["permit", "forbid"]), st.sampled_from(["when", "when", "unless"]), conditions
).map(lambda t: f"{t[0]} (principal, action, resource) {t[1]} {{ {t[2]} }};")
policy_sets = st.lists(policies, min_size=1, max_size=3).map(
    lambda some: "\n".join(["permit (principal, action, resource);"] * (len(some) % 2) + some)
)
registers = st.fixed_dictionaries({name: st.sampled_from(["grant", "grant", "restrict"]) for name in TYPES})


def register(influence: dict[str, str]) -> str:
    lines = [
        f'  {name}: {{type: "{kind}", {SAID}, {PUSH}, influence: {influence[name]}, used_by: [transfer.create]}}\n'
        for name, kind in TYPES.items()
    ]
    return "signals:\n" + "".join(lines)


def test_taking_signals_away_never_turns_a_deny_into_an_allow() -> None:
    request = bytes(
        asking.check_request("POST", "pay.example", "/v1/accounts/42/transfers", **question(100, None))
    )
    tally = dict.fromkeys(("directories", "refused at load", "decisions", "allowed", "denied by absence"), 0)

    @settings(generated, max_examples=2_000)
    @given(registers, policy_sets, st.fixed_dictionaries({n: st.sampled_from(v) for n, v in VALUES.items()}))
    def holds(influence: dict[str, str], policies: str, facts: dict[str, object]) -> None:
        try:
            configuration = asking.load(directory(register(influence), policies))
        except ConfigurationError:
            tally["refused at load"] += 1
            return
        tally["directories"] += 1
        allowed: dict[frozenset[str], bool] = {}
        for size in range(len(facts) + 1):
            for known in map(frozenset, itertools.combinations(facts, size)):
                engine = asking.running(configuration)
                for name in known:
                    asking.publish(engine, name, facts[name])
                _, record = engine.decide(request, now_us=NOW)
                allowed[known] = json.loads(record)["outcome"] == "allow"
                tally["decisions"] += 1
                tally["allowed"] += allowed[known]
        for fewer, more in itertools.product(allowed, allowed):
            if fewer < more:
                assert allowed[more] or not allowed[fewer], (sorted(fewer), sorted(more))
                tally["denied by absence"] += allowed[more] and not allowed[fewer]

    holds()
    print(f"I2: {tally}")
    assert tally["directories"] >= 1_000
    assert min(tally["allowed"], tally["denied by absence"]) > 100


# ---- I4: no record, no allow ------------------------------------------------------------------------------

steps = st.lists(
    st.sampled_from(["ask", "ask", "ask", "note", "drain one", "drain all"]), min_size=1, max_size=30
)


def test_an_allow_has_a_record_and_a_full_log_allows_nothing() -> None:
    configuration = asking.load(directory("signals: {}\n", "permit (principal, action, resource);"))
    request = bytes(
        asking.check_request("POST", "pay.example", "/v1/accounts/42/transfers", **question(100, None))
    )
    tally = dict.fromkeys(("orders", "allowed", "refused"), 0)

    @generated
    @given(st.integers(0, 6), steps)
    def holds(capacity: int, order: list[str]) -> None:
        engine = asking.running(configuration, log_capacity=capacity)
        allowed: list[str] = []
        recorded: list[str] = []
        refused = told = 0

        def take(most: int) -> None:
            nonlocal told
            lines, _ = engine.drain(max_records=most, wait_ms=0)
            for record in map(json.loads, lines.splitlines()):
                if record.get("kind") == "decision":
                    recorded.append(record["decision_id"])
                    told += record.get("refused_before", 0)

        for step in order:
            full = engine.queued() >= capacity
            if step == "ask":
                answer = asking.answered(engine, request)
                reason = asking.reason_of(answer)
                assert reason == ("log_unavailable" if full else "allowed")
                assert (asking.grpc_code(answer) == 0) == (not full)
                refused += full
                if not full:
                    allowed.append(decision_id(answer))
            elif step == "note":
                assert engine.note(b'{"kind":"transport"}') == (not full)
            else:
                take(1 if step == "drain one" else 1_000)
        take(1_000)
        assert recorded == allowed
        assert engine.counters()["log_refused"] == refused
        if capacity and order:
            engine.check(request)
            take(1_000)
            assert told == refused
        tally["orders"] += 1
        tally["allowed"] += len(allowed)
        tally["refused"] += refused

    holds()
    print(f"I4: {tally}")
    assert min(tally.values()) >= 1_000


def decision_id(answer: bytes) -> str:
    """The id that an allow sends to the upstream."""
    ok = asking.parsed(answer).ok_response
    assert ok is not None
    [found] = [
        o.header.value for o in ok.headers if o.header and o.header.key == "x-signalwarden-decision-id"
    ]
    return found
