"""Each evidence query finds what was planted for it, says when there is no data, and says when nothing does it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from signalwarden.audit import gathered as gathering
from signalwarden.audit import report
from signalwarden.audit.evidence import Evidence
from signalwarden.audit.gathered import Gathered, Integrity
from signalwarden.audit.ground import Ground
from signalwarden.audit.querying import QUERIES
from tests.auditing import AGENT, FEED, FULL, Log, ground_of
from tests.pages import RECORD_SCHEMA

GRANT = {"sha256": "ab" * 32, "task": "t1", "type": "batch"}
CHAIN = {"depth": 1, "root": AGENT, "systems": ["notes", "crm"], "tasks": ["t1", "t0"], "principals": [AGENT]}
NOTE = {"action": "note.write", "route": "routes.yaml:9", "tier": "jit", "sensitivity": "high"}


def token(**more: Any) -> dict[str, Any]:
    return {
        "sha256": "cd" * 32, "class": "access_token", "issuer": "https://login.example", "token_id": "j1",
        "issued_at": "2026-11-24T06:00:00.000000Z", "expires_at": "2026-11-24T06:10:00.000000Z", **more,
    }  # fmt: skip


Planted = Callable[[Log], object]
Expected = dict[str, Any]
CASES: dict[str, tuple[Planted, Expected]] = {
    "offboarding": (
        lambda log: log.decision(principal={"id": "spiffe://prod.example/stranger"})
        .change("revoked", actor="ops", revoked={"subject": AGENT})
        .decision("identity_invalid", principal=None, detail="the certificate has been revoked")
        .decision("principal_retired", count=2)
        .decision("entity_unknown"),
        {
            "denied as retired": 2, "denied as not listed": 1, "revocations": 1,
            "from a revocation to the next call refused as revoked, half of them within, ms": 1000.0,
            "allowed and not listed": [("spiffe://prod.example/stranger", 1)],
        },
    ),
    "authentication": (
        lambda log: log.decision(count=3)
        .decision(principal={"source": "oauth", "class": "access_token", "bound": False, "tokens": [token()]})
        .decision("token_expired", count=2, principal=None)
        .decision("identity_missing", principal=None),
        {
            "decisions by credential": [("envoy_peer", "x509_svid", "yes", 3), ("oauth", "access_token", "no", 1)],
            "tokens by issuer": [("https://login.example", 1, 0, 1)],
            "refused credentials": [("token_expired", 2), ("identity_missing", 1)],
        },
    ),
    "secrets": (
        lambda log: log.decision(count=3)
        .decision(principal={"bound": False})
        .change("x", actor="a", detail="Bearer abcdefghijklmnopqrstuvwxyz")
        .change("x", actor="a", detail="eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.c2ln"),
        {
            "decisions by a credential that is bound to its connection": "75.0 % of 4",
            "records that hold what looks like one": 2,
        },
    ),
    "lifetimes": (
        lambda log: log.decision(principal={"tokens": [token()]})
        .decision("token_too_long_lived", principal=None)
        .change("task_begun", actor="o", task_id="t1", type="batch", grant_sha256="ab" * 32,
                expires_at="2026-11-24T06:05:02.000000Z")
        .change("task_ended", actor="o", task_id="t1", how="completed")
        .decision("grant_revoked", grant={"sha256": "ab" * 32}),
        {
            "lifetimes": [("access_token", 1, "9.9 min", "9.9 min", "10.0 min"),
                          ("grant", 1, "5.0 min", "5.0 min", "5.0 min")],
            "refused for living too long": 1,
            "end to first denial, half of them within, ms": 1000.0,
        },
    ),
    "environments": (
        lambda log: log.decision(count=4).decision(
            "environment_mismatch", count=2, principal={"environment": "staging"}
        ),
        {
            "routes with an environment": "1 of 4", "principals with an environment": "1 of 2",
            "decisions on these routes": 6, "denied as of another environment": 2,
            "denied across": [("staging", "page.read", 2)],
        },
    ),
    "reuse": (
        lambda log: [log.decision(principal={"certificate_sha256": f"{at:064x}"}) for at in range(3)],
        {"principals by number of certificates": [("3", 1)], "most certificates": [(AGENT, 3)]},
    ),
    "humans": (
        lambda log: log.decision(principal={"interactive": True})
        .decision("policy_denied", principal={"interactive": True, "actor": "somebody"}),
        {
            "decisions with a human at the origin": 2, "of these allowed": 1,
            "decisions in which somebody acts for the principal": 1,
        },
    ),
    "privilege": (
        lambda log: log.decision(policies={"determining": [{"id": "read", "effect": "permit"}]})
        .decision("no_policy_permits", count=3)
        .decision("route_unknown")
        .decision("policy_denied", policies={"determining": [{"id": "no-humans", "effect": "forbid"}]}),
        {
            "denied since no policy permits it": 3, "denied since no route matches": 1, "denied by a forbid": 1,
            "permits that allowed something": "1 of 5",
        },
    ),
    "tasks": (
        lambda log: log.decision(grant=GRANT, chain=CHAIN, request=NOTE)
        .decision("grant_required", count=2, request=NOTE)
        .change("task_ended", actor="o", task_id="t1", how="revoked"),
        {
            "decisions under a grant": 1, "tasks completed or revoked": 1,
            "refused grants": [("grant_required", 2)],
        },
    ),
    "chains": (
        lambda log: log.decision(grant=GRANT, chain=CHAIN, request=NOTE)
        .change("call_refused", actor="a", call="task.delegate", reason="delegation_widens"),
        {
            "decisions under a delegated grant": 1, "deepest chain": 1, "delegations that would have widened": 1,
            "calls by systems that their tree had touched": [("2", 1)],
        },
    ),
    "tools": (
        lambda log: log.decision(count=2, request={"action": "tool.read"}).decision(
            "policy_denied", request={"action": "tool.read"}, enforced=False
        ),
        {"calls": [("tool.read", 2, 1, 3)]},
    ),
    "sensitive": (
        lambda log: log.decision(count=2).decision("grant_required", request=NOTE),
        {"decisions by sensitivity": [("high", 0, 1, 1), ("low", 2, 0, 2)]},
    ),
    "widening": (
        lambda log: log.decision("signal_widening_refused").decision("grant_scope_exceeded", count=2)
        .decision("approval_mismatch")
        .change("call_refused", actor=AGENT, call="approval.approve", reason="own_approval"),
        {
            "denied since only a word that may restrict would allow": 1, "denied beyond a grant": 2,
            "approvals of other calls": 1, "attempts to approve what one asked for oneself": 1,
        },
    ),
    "signals": (
        lambda log: log.decision(signals=[{"name": "posture", "state": "fresh", "assurance": "authoritative"}], count=2)
        .decision("signal_unavailable", signals=[{"name": "posture", "state": "disputed", "assurance": "sourced"}])
        .decision(signals=[{"name": "posture", "state": "missing", "override": {"by": ["a", "b"]}}])
        .change("publisher_disabled", actor="o", publisher=FEED),
        {
            "signals in decisions": [("posture", 4, 2, 1, 1, 1)], "publishers cut off": 1,
            "denied since a signal was unavailable": 1,
        },
    ),
    "parties": (
        lambda log: log.decision(signals=[{"name": "posture", "state": "fresh", "source": f"push:{FEED}"}])
        .decision("no_policy_permits", principal={"trust_domain": "partner.example", "id": "spiffe://partner.example/a"}),
        {
            "values by source, in decisions": [(f"push:{FEED}", 1, 0, 1)],
            "decisions by trust domain": [("partner.example", 0, 1, 1), ("prod.example", 1, 0, 1)],
        },
    ),
    "configuration": (
        lambda log: log.change("configuration_refused", actor="watch"),
        {"declared exceptions": 1, "directories that were refused": 1, "errors of `check`": 0},
    ),
    "governance": (
        lambda log: log.change("configuration_loaded", actor="ops", revision="ab" * 32, previous="cd" * 32,
                               words=[{"direction": "widens"}, {"direction": "narrows"}]),
        {
            "configurations that came into force": 1, "of these widening, or perhaps": 1,
            "contracts whose changes must be signed": "0 of 1", "who brought them": [("ops", 1)],
        },
    ),
    "reviews": (
        lambda log: log,
        {"contracts with a day of review": 1, "past their review": 0,
         "next reviews": [("2099-01-01", "posture", "signals.yaml:2")]},
    ),
    "inventory": (
        lambda log: log.decision().decision("route_unknown", principal={"id": "spiffe://prod.example/new"}),
        {
            "signals": 1, "routes": 4, "principals": 2, "principals that asked and are listed": "50.0 % of 2",
            "calls that no route knows": 1,
        },
    ),
    "owners": (
        lambda log: log,
        {"principals with an owner": "1 of 2", "who answers": [("o@x", 1), ("team@x", 1)]},
    ),
    "oversight": (
        lambda log: log.change("approval_asked", actor=AGENT, approval_id="a")
        .change("approval_answered", actor="spiffe://prod.example/people/anna", approved=True)
        .change("approval_answered", actor="rule:d1", approved=False)
        .change("signal_overridden", actor="b", by=["a", "b"])
        .decision("approval_required"),
        {
            "questions asked": 1, "overrides in force": 1, "clients who may approve": 1,
            "answers": [("person", "yes", 1), ("rule", "no", 1)],
            "who overrode": [("a", 1), ("b", 1)],
            "calls that waited for a person": [("approval_required", 1)],
        },
    ),
    "fatigue": (
        lambda log: log.change("approval_asked", actor=AGENT).decision("approval_expired"),
        {"expired without an answer": 1},
    ),
    "deactivation": (
        lambda log: log.change("revoked", actor="o", revoked={"jti": "j1"})
        .decision("token_invalid", principal=None, detail="the token has been revoked")
        .change("publisher_disabled", actor="o"),
        {"`revoked`": 1, "`publisher_disabled`": 1, "clients who may revoke": 1,
         "from a revocation to the next call refused as revoked, half of them within, ms": 1000.0},
    ),
    "monitoring": (
        lambda log: log.decision(count=3).decision("policy_denied").decision("policy_denied", enforced=False),
        {"decisions": 5, "allowed": 3, "denied": 1, "denied and let pass": 1,
         "decisions by reason": [("allowed", 3), ("policy_denied", 2)]},
    ),
    "fail_safe": (
        lambda log: log.decision("signal_unavailable", count=2).decision("engine_error", refused_before=7),
        {
            "answered `log_unavailable`, without a record of their own": 7,
            "denied since it could not be known": [("signal_unavailable", 2), ("engine_error", 1)],
        },
    ),
    "resilience": (
        lambda log: log.change("server_started", actor="server").change("server_stopped", actor="server")
        .change("server_started", actor="server").change("server_started", actor="server")
        .decision(recovered=True)
        .change("client_refused", client=None)
        .transport("undelivered", 9)
        .decision("malformed_request"),
        {
            "starts": 3, "starts after an end that was not orderly": 1, "records recovered after such an end": 1,
            "clients refused at the admin API": 1, "calls that never reached a decision": [("undelivered", 9)],
            "hostile or broken calls": [("malformed_request", 1)],
        },
    ),
    "accountability": (
        lambda log: log.decision("policy_denied", policies={"determining": [{"id": "x", "file": "f", "line": 3}]})
        .decision("policy_denied", influence_shed=True)
        .decision(signals=[{"name": "posture", "state": "fresh", "influence": "consulted"}])
        .change("task_begun", actor="o").change("task_begun"),
        {
            "denials by a policy that name it with file and line": "50.0 % of 2",
            "decisions that say what each signal did": "33.3 % of 3",
            "changes on record": 2, "of these without an author, though they should have one": 1,
        },
    ),
    "log_integrity": (
        lambda log: log.change("records_lost", count=4).change("log_repaired", actor="server", bytes_cut=17),
        {
            "records read": 2, "change and transport records that found no room": 4,
            "bytes of half a line that a crash had left and a start cut off": 17,
        },
    ),
}  # fmt: skip


def told(evidence: Evidence) -> dict[str, Any]:
    return {figure.label: figure.value for figure in evidence.figures} | {
        table.label: list(table.rows) for table in evidence.tables if table.label not in
        {figure.label for figure in evidence.figures}
    }  # fmt: skip


def test_every_query_has_its_case() -> None:
    assert len(report.QUERIES_FROM) == 2, "both are loaded"
    assert set(CASES) == set(QUERIES)


@pytest.mark.parametrize("name", CASES)
def test_a_query_finds_what_was_planted(tmp_path: Path, name: str) -> None:
    planted, expected = CASES[name]
    log = Log()
    planted(log)
    evidence = QUERIES[name](ground_of(tmp_path), log.gathered())
    found = told(evidence)
    assert {key: found.get(key) for key in expected} == expected
    assert evidence.seen > 0
    assert evidence.lacking is None


BARE = {
    **FULL,
    "signalwarden.yaml": 'trust_domain: prod.example\nlisten: {check: "127.0.0.1:0", admin: "127.0.0.1:0"}\n',
    "routes.yaml": 'routes:\n  - match: {host: "pages.example", method: GET, path: "/home"}\n    action: page.read\n'
    "    resource: {type: Page, id: home}\n    tier: runtime\n    sensitivity: low\ndefault: deny\n",
    "signals.yaml": "signals: {}\n",
    "entities.json": "[]\n",
    "policies/pages.cedar": '@id("read") permit (principal, action == Action::"page.read", resource);\n',
}
SWITCHED_ON = {
    "offboarding", "environments", "humans", "tasks", "chains", "tools", "oversight", "fatigue", "signals", "parties",
    "reviews",
}  # fmt: skip


def test_what_a_directory_does_not_switch_on_is_said_to_be_lacking(tmp_path: Path) -> None:
    ground, nothing = ground_of(tmp_path, BARE), Gathered()
    lacking = {name for name, ask in QUERIES.items() if ask(ground, nothing).lacking is not None}
    assert lacking == SWITCHED_ON


OF_THE_DIRECTORY = {"configuration", "reviews", "inventory", "owners", "parties"}
"""Queries whose data is the directory itself."""


def test_without_records_there_is_no_data(tmp_path: Path) -> None:
    ground, nothing = ground_of(tmp_path), Gathered()
    assert {name for name, ask in QUERIES.items() if ask(ground, nothing).seen} == OF_THE_DIRECTORY


def test_whatever_stands_in_a_record_is_borne(tmp_path: Path) -> None:
    log, odd = Log(), [None, 7, "x", [], {}, [7], [{"id": 3}], {"id": 7, "source": {}}]
    for key in (
        "request",
        "principal",
        "signals",
        "policies",
        "grant",
        "chain",
        "folded",
        "time",
        "reason",
        "refused_before",
    ):
        for value in odd:
            log.decision()
            log.entries[-1].record[key] = value
    for change in ("configuration_loaded", "revoked", "task_begun", "task_ended", "approval_answered", "signal_overridden",
                   "records_lost", "log_repaired", "call_refused"):  # fmt: skip
        log.change(change)
        for key in ("words", "revoked", "by", "count", "bytes_cut", "time", "actor"):
            for value in odd:
                log.change(change)
                log.entries[-1].record[key] = value
    gathered, ground = log.gathered(), ground_of(tmp_path)
    assert gathered.lines == len(log.entries)
    for ask in QUERIES.values():
        ask(ground, gathered)


def test_memory_does_not_grow_with_what_callers_choose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "MAX_TASKS", 50)
    monkeypatch.setattr(gathering, "MAX_OPEN", 50)
    log = Log()
    for at in range(500):
        log.decision(
            principal={"id": f"spiffe://prod.example/p{at}", "certificate_sha256": f"{at:064x}"},
            grant={"sha256": f"{at:064x}", "task": f"t{at}", "type": "batch"},
            policies={"revision": f"{at:064x}", "determining": [{"id": f"p{at}", "effect": "permit"}]},
        )
        log.decision(principal={"certificate_sha256": f"{at:064x}"})
        log.change("revoked", actor="o", revoked={"subject": f"{at:064x}"})
        log.change("task_ended", actor="o", task_id=f"t{at}", how="revoked")
        log.change("configuration_loaded", actor="o", revision=f"{at:064x}", words=[])
    gathered = log.gathered()
    assert len(gathered.tasks) == 50
    assert gathered.tasks_left_out == 450
    assert (len(gathered.revisions), len(gathered.permits), len(gathered.loads)) == (50, 50, 50)
    assert len(gathered.task_ends._open) <= 50
    assert len(gathered._revoked) <= 50
    assert len(dict(gathered.principals.most_common())[AGENT].certificates) == gathering.MAX_DISTINCT


# ---- the directory --------------------------------------------------------------------------------------


def weaknesses(ground: Ground) -> set[tuple[str, str | None]]:
    return {(weakness.tag, weakness.at) for weakness in ground.weaknesses}


def test_what_weakens_is_named_with_file_and_line(tmp_path: Path) -> None:
    found = weaknesses(ground_of(tmp_path))
    assert {
        ("unenforced", "routes.yaml:21"), ("absent", "signals.yaml:2"), ("no_approvers", "signals.yaml:2"),
        ("no_certificate", "signalwarden.yaml:4"), ("federated", "signalwarden.yaml:2"), ("client_token", "signalwarden.yaml:7"),
        ("client_token", "signalwarden.yaml:8"), ("no_owner", "entities.json:13"), ("no_environment", "routes.yaml:9"),
        ("open_permit", "policies/pages.cedar:1"),
    } <= found  # fmt: skip
    assert "unlisted" not in {tag for tag, _ in found}
    assert {"client_long_lived", "check"} <= {tag for tag, _ in found}


def test_a_comment_is_no_policy_that_reads(tmp_path: Path) -> None:
    ground = ground_of(tmp_path)
    evidence = QUERIES["humans"](ground, Gathered())
    assert (
        "a policy that reads whether a human stands at the origin",
        "policies/pages.cedar:8",
    ) in evidence.places
    assert not any(at == "policies/pages.cedar:1" for _, at in evidence.places)


def test_granted_is_held_against_used_by_the_state(tmp_path: Path) -> None:
    ground = ground_of(tmp_path)
    ground.kept.tasks |= {
        "t1": ("batch", frozenset({"note.write", "page.read"})),
        "t2": ("batch", frozenset({"page.read"})),
    }
    log = Log().decision(grant=GRANT, chain=CHAIN, request=NOTE)
    evidence = QUERIES["privilege"](ground, log.gathered())
    assert told(evidence)["granted and used, by type of task"] == [("batch", 2, 3, 1)]


def test_repeated_denials_that_were_folded_into_one_record_count_as_many(tmp_path: Path) -> None:
    log = Log().decision("policy_denied", folded={"count": 5, "last_id": "d", "last_time": "t"}).decision()
    evidence = QUERIES["monitoring"](ground_of(tmp_path), log.gathered())
    assert told(evidence)["decisions by reason"] == [("policy_denied", 5), ("allowed", 1)]


@pytest.mark.parametrize(
    ("integrity", "said"),
    [
        (None, "were not held against a signed tree"),
        (Integrity(why_not="there is no key of the log"), "can change it unseen: there is no key of the log"),
        (
            Integrity(7, 1, 2, ("the line is not what was signed", "decisions.jsonl:3")),
            "2 findings of `log verify`",
        ),
        (Integrity(7, 1), None),
    ],
)
def test_what_verification_says_of_the_log_is_part_of_it(
    tmp_path: Path, integrity: Integrity | None, said: str | None
) -> None:
    gathered = Log().decision().gathered()
    gathered.integrity = integrity
    evidence = QUERIES["log_integrity"](ground_of(tmp_path), gathered)
    assert said is None or said in evidence.weakened[0].text
    assert (said is None) == (evidence.weakened == [])
    signed = told(evidence).get("records that are what a signed checkpoint says")
    assert signed == (7 if integrity is not None and integrity.why_not is None else None)


def test_changes_that_need_no_author_are_those_of_the_schema() -> None:
    authored = {
        found["properties"]["change"]["const"]: "actor" in found["required"]
        for found in changes(RECORD_SCHEMA)
    }
    assert len(authored) > 30
    assert {change for change, has in authored.items() if not has} == gathering.ACTORLESS


def changes(node: Any) -> Iterator[dict[str, Any]]:
    """The parts of the schema that are about one kind of change."""
    if isinstance(node, dict):
        if "const" in node.get("properties", {}).get("change", ()):
            yield node
        for inner in node.values():
            yield from changes(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from changes(inner)
