"""The evidence queries on who asks and what may be done: identities, credentials, grants, chains, tools.

A query judges no control. It says how many records bear on its question (none: there is no data), why nothing in this
directory does it where that is so, and the figures. What a standard calls it stands in `controls.yaml`.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from signalwarden.audit.evidence import Evidence, Value
from signalwarden.audit.ground import Weakness
from signalwarden.audit.querying import (
    USES,
    by_reason,
    query,
    reasons,
    revoked,
    seconds,
    share,
    use_rows,
    waited,
)
from signalwarden.values import span_text

if TYPE_CHECKING:
    from signalwarden.audit.gathered import Gathered
    from signalwarden.audit.ground import Ground

# ---- identities -----------------------------------------------------------------------------------------


@query
def offboarding(ground: Ground, gathered: Gathered) -> Evidence:
    """Is a principal that has left kept out, and how soon?"""
    evidence = Evidence(seen=gathered.all.count)
    listed = {principal.id: principal for principal in ground.principals}
    retired = [principal for principal in ground.principals if principal.retired_at]
    evidence.figure("principals that entities.json lists", len(listed))
    evidence.figure("of these with an end (`retired_at`)", len(retired))
    evidence.figure("denied as retired", reasons(gathered, "principal_retired"))
    evidence.figure("denied as not listed", reasons(gathered, "entity_unknown"))
    revoked(evidence, gathered)
    for principal in retired:
        evidence.place(f"`{principal.id}` ends {principal.retired_at}", principal.at)
    if ground.settings.principals.require_record:
        evidence.place("who is not listed is denied", ground.setting_at("/principals/require_record"))
    elif not retired and not gathered.revocations:
        evidence.lacking = "no principal must be listed, none has an end, and none was revoked"
    seen = gathered.principals.most_common()
    strangers = [(name, one.count) for name, one in seen if one.allow and name not in listed]
    if strangers:
        least = "at least " if gathered.principals.missed else ""
        text = (
            f"{least}{len(strangers)} principals were allowed something and entities.json does not list them"
        )
        evidence.weakened.append(Weakness("unlisted", text))
    evidence.table("allowed and not listed", ("principal", "decisions"), strangers)
    last = sorted((one.last_allow, name) for name, one in seen if one.last_allow)
    evidence.table(
        "longest since the last allow", ("principal", "last allow"), [(name, time) for time, name in last]
    )
    return evidence


@query
def authentication(ground: Ground, gathered: Gathered) -> Evidence:
    """By which credentials was who proven, and what was refused?"""
    identity = ground.settings.identity
    evidence = Evidence(seen=sum(gathered.credentials.values()) + reasons(gathered, *REFUSED_CREDENTIALS))
    evidence.figure("accepted sources of identity", ", ".join(identity.sources))
    evidence.place("sources of identity, a closed list", ground.setting_at("/identity/sources"))
    for at, issuer in enumerate(identity.oauth):
        accepted = f"`{issuer.issuer}`: {issuer.token_class}, {', '.join(issuer.algorithms)}"
        evidence.place(accepted, ground.setting_at(f"/identity/oauth/{at}"))
    rows = [
        (source, kind, "yes" if bound else "no", count)
        for (source, kind, bound), count in gathered.credentials.most_common()
    ]
    evidence.table("decisions by credential", ("source", "class", "bound", "decisions"), rows)
    evidence.table("tokens by issuer", ("issuer", *USES), use_rows(gathered.issuers.most_common()))
    return by_reason(evidence, gathered, "refused credentials", *REFUSED_CREDENTIALS)


REFUSED_CREDENTIALS: Final = (
    "identity_missing", "identity_invalid", "trust_domain_unknown", "token_invalid", "token_expired",
    "token_too_long_lived", "credential_refused",
)  # fmt: skip


@query
def secrets(ground: Ground, gathered: Gathered) -> Evidence:
    """How much rests on secrets that can leak, and does the log hold any?"""
    evidence = Evidence(seen=sum(gathered.credentials.values()))
    bound = sum(count for (_, _, is_bound), count in gathered.credentials.items() if is_bound)
    evidence.figure("decisions by a credential that is bound to its connection", share(bound, evidence.seen))
    evidence.figure("records that were searched for tokens and private keys", gathered.lines)
    evidence.figure("records that hold what looks like one", gathered.secrets)
    if gathered.secrets:
        text = f"{gathered.secrets} records hold what looks like a token or a private key"
        evidence.weakened.append(Weakness("secret", text, ", ".join(gathered.secrets_named)))
    kept = [client for client in ground.settings.clients if client.token_sha256]
    evidence.figure("clients of the admin API with a bearer token, kept as its SHA-256", len(kept))
    evidence.figure("clients that come by their SVID", len(ground.settings.clients) - len(kept))
    return evidence.place("tokens stand in records by their SHA-256", "decision record")


@query
def lifetimes(ground: Ground, gathered: Gathered) -> Evidence:
    """How long do credentials and grants live, and what was refused for living too long?"""
    evidence = Evidence(seen=sum(one.count for one in gathered.lifetimes.values()))
    limits = ground.settings.identity.limits
    for name in ("x509_svid", "jwt_svid", "access_token", "transaction_token"):
        limit = getattr(limits, name)
        older = f", {span_text(limit.max_age)} old" if limit.max_age is not None else ""
        at = ground.setting_at(f"/identity/limits/{name}")
        evidence.place(f"`{name}` lives {span_text(limit.max_lifetime)} at most{older}", at)
    longest = span_text(ground.settings.tasks.max_ttl)
    evidence.place(f"a grant lives {longest} at most", ground.setting_at("/tasks/max_ttl"))
    rows: list[tuple[Value, ...]] = [
        (
            name,
            one.count,
            *(seconds(one.percentile(portion)) for portion in (0.5, 0.99)),
            seconds(one.largest),
        )
        for name, one in sorted(gathered.lifetimes.items())
    ]
    evidence.table("lifetimes", ("class", "seen", "half at most", "99 % at most", "longest"), rows)
    evidence.figure("refused for living too long", reasons(gathered, "token_too_long_lived"))
    evidence.figure("refused as expired", reasons(gathered, "token_expired", "grant_expired"))
    evidence.seen += reasons(gathered, "token_too_long_lived", "token_expired", "grant_expired")
    waited(evidence, gathered.task_ends, "tasks that were ended before their time", "end to first denial")
    return evidence


@query
def environments(ground: Ground, gathered: Gathered) -> Evidence:
    """Are environments kept apart?"""
    named = [route for route in ground.routes if route["environment"] is not None]
    placed = [principal for principal in ground.principals if principal.environment]
    evidence = Evidence()
    if not named:
        evidence.lacking = "no route names an environment, so there is none to keep apart"
    elif not placed:
        evidence.lacking = "no principal of entities.json has an environment, so none is kept out of another"
    routes = {route["route"] for route in named}
    uses = {name: use for name, use in gathered.routes.most_common() if name in routes}
    evidence.seen = sum(use.count for use in uses.values())
    evidence.figure("routes with an environment", f"{len(named)} of {len(ground.routes)}")
    evidence.figure("principals with an environment", f"{len(placed)} of {len(ground.principals)}")
    evidence.figure("decisions on these routes", evidence.seen)
    evidence.figure("denied as of another environment", reasons(gathered, "environment_mismatch"))
    for route in named:
        evidence.place(f"`{route['action']}` is of `{route['environment']}`", route["route"])
    rows = [(was, action, count) for (was, action), count in gathered.mismatches.most_common()]
    return evidence.table("denied across", ("principal's environment", "action", "decisions"), rows)


@query
def reuse(ground: Ground, gathered: Gathered) -> Evidence:
    """Is one identity used in several places?"""
    seen = [(name, one) for name, one in gathered.principals.most_common() if one.certificates]
    evidence = Evidence(seen=sum(one.count for _, one in seen))
    spread = Counter(len(one.certificates) for _, one in seen)
    rows = [(f"{number}", count) for number, count in sorted(spread.items())]
    evidence.table("principals by number of certificates", ("certificates", "principals"), rows)
    many = sorted(((name, len(one.certificates)) for name, one in seen if len(one.certificates) > 1),
                  key=lambda row: -row[1])  # fmt: skip
    evidence.table("most certificates", ("principal", "certificates"), many)
    counted = {"origins", "certificates"}
    watching = [
        contract
        for contract in ground.contracts
        if any(
            source["kind"] == "derived" and source.get("measure") in counted for source in contract["sources"]
        )
    ]
    for contract in watching:
        evidence.place(f"`{contract['name']}` counts them while deciding", ground.contract_at(contract))
        evidence.seen += next(
            (one.read for name, one in gathered.signals.most_common() if name == contract["name"]), 0
        )
    if not watching:
        text = "no signal counts the origins or certificates of a principal (`derived`), so no policy can act on it"
        evidence.weakened.append(Weakness("not_derived", text))
    return evidence


INTERACTIVE: Final = r"context\s*\.\s*identity\s*\.\s*interactive|context\s*\.\s*identity\s+has\s+interactive"


@query
def humans(ground: Ground, gathered: Gathered) -> Evidence:
    """Does a human use an identity that is not a human's?"""
    evidence = Evidence(seen=sum(gathered.credentials.values()))
    places = ground.reading(INTERACTIVE)
    for place in places:
        evidence.place("a policy that reads whether a human stands at the origin", place)
    gated = [action["action"] for action in ground.described["actions"] if action["has_gates"]]
    if gated:
        evidence.place(f"calls that need an approval: {', '.join(gated)}", "policies")
    workflow = ground.settings.tasks.workflow_signal
    if workflow is not None:
        evidence.place(
            f"use outside of an approved workflow: `{workflow}`", ground.setting_at("/tasks/workflow_signal")
        )
    if not places and not gated and workflow is None:
        evidence.lacking = (
            "no policy reads `context.identity.interactive` or demands an approval, and no signal says which "
            "workflows are approved"
        )
    evidence.figure("decisions with a human at the origin", gathered.human.count)
    evidence.figure("of these allowed", gathered.human.allow)
    evidence.figure("decisions in which somebody acts for the principal", gathered.acting.count)
    if "oauth" not in ground.settings.identity.sources:
        text = "without tokens (`oauth`) nothing tells a human at the origin from the workload"
        evidence.weakened.append(Weakness("no_origin", text))
    return evidence


# ---- access ---------------------------------------------------------------------------------------------


@query
def privilege(ground: Ground, gathered: Gathered) -> Evidence:
    """Is more allowed than is used?"""
    evidence = Evidence(seen=gathered.all.count)
    evidence.place("what no route matches is denied, what no policy permits is denied", "routes.yaml")
    permits = [policy for policy in ground.policies if policy["effect"] == "permit"]
    unused = [policy for policy in permits if not gathered.permits[policy["id"]]]
    for policy in ground.policies:
        if policy["effect"] == "forbid":
            evidence.place(f"guardrail: forbid `{policy['id']}`", ground.policy_at(policy))
    evidence.figure("denied since no policy permits it", reasons(gathered, "no_policy_permits"))
    evidence.figure("denied since no route matches", reasons(gathered, "route_unknown"))
    evidence.figure("denied by a forbid", reasons(gathered, "policy_denied"))
    evidence.figure("denied beyond the task's scope", reasons(gathered, "grant_scope_exceeded"))
    evidence.figure("permits that allowed something", f"{len(permits) - len(unused)} of {len(permits)}")
    if gathered.all.allow:
        rows = [(policy["id"], ground.policy_at(policy)) for policy in unused]
        evidence.table("permits that no allow of the period needed", ("permit", "at"), rows)
    return granted_and_used(evidence, ground, gathered)


def granted_and_used(evidence: Evidence, ground: Ground, gathered: Gathered) -> Evidence:
    """Of tasks whose grant the state still holds: which of their actions were used."""
    kinds: dict[str, list[int]] = {}
    for task_id, (kind, actions) in ground.kept.tasks.items():
        used = gathered.tasks[task_id].used & actions if task_id in gathered.tasks else set()
        sums = kinds.setdefault(kind, [0, 0, 0])
        sums[0] += 1
        sums[1] += len(actions)
        sums[2] += len(used)
    rows: list[tuple[Value, ...]] = [(kind, *sums) for kind, sums in sorted(kinds.items())]
    evidence.table(
        "granted and used, by type of task", ("type", "tasks", "actions granted", "actions used"), rows
    )
    if ground.kept.why_not:
        evidence.weakened.append(Weakness("state", ground.kept.why_not))
    return evidence


@query
def tasks(ground: Ground, gathered: Gathered) -> Evidence:
    """Does access begin and end with a task?"""
    guarded = [route for route in ground.routes if route["tier"] == "jit" or route["grant_required"]]
    evidence = Evidence(seen=gathered.under_grant.count + reasons(gathered, *GRANT_REASONS))
    if not guarded:
        evidence.lacking = "no route is of tier `jit` or requires a grant"
    for route in guarded:
        evidence.place(f"`{route['action']}` needs a live grant", route["route"])
    evidence.figure("tasks begun", gathered.changes["task_begun"])
    evidence.figure("tasks completed or revoked", gathered.changes["task_ended"])
    evidence.figure("decisions under a grant", gathered.under_grant.count)
    waited(evidence, gathered.task_ends, "ends that were waited for", "end to first denial")
    return by_reason(evidence, gathered, "refused grants", *GRANT_REASONS)


GRANT_REASONS: Final = (
    "grant_required",
    "grant_invalid",
    "grant_expired",
    "grant_revoked",
    "grant_scope_exceeded",
)


@query
def chains(ground: Ground, gathered: Gathered) -> Evidence:
    """How far do chains of delegation reach, and over how many systems?"""
    guarded = [route for route in ground.routes if route["tier"] == "jit" or route["grant_required"]]
    evidence = Evidence(seen=gathered.under_grant.count)
    if not guarded:
        evidence.lacking = "no route is of tier `jit` or requires a grant, so no call belongs to a chain"
    for place in ground.reading(r"context\s*\.\s*chain"):
        evidence.place("a policy that reads the chain", place)
    evidence.figure("decisions under a delegated grant", gathered.chained.count)
    evidence.figure("deepest chain", gathered.depth)
    evidence.figure(
        "delegations that would have widened",
        gathered.refused_calls["delegation_widens"] + reasons(gathered, "delegation_widens"),
    )
    rows = [(f"{systems}", count) for systems, count in sorted(gathered.systems.items())]
    return evidence.table("calls by systems that their tree had touched", ("systems", "decisions"), rows)


@query
def tools(ground: Ground, gathered: Gathered) -> Evidence:
    """Are an agent's tools called as they may be?"""
    actions = ground.mcp_actions
    uses = [(name, use) for name, use in gathered.actions.most_common() if name in actions]
    evidence = Evidence(seen=sum(use.count for _, use in uses))
    if not actions:
        evidence.lacking = "no route matches a tool of MCP"
    for route in ground.routes:
        if "(mcp tools/call" in route["match"]:
            evidence.place(f"`{route['action']}`, tier `{route['tier']}`: {route['match']}", route["route"])
    return evidence.table("calls", ("action", *USES), use_rows(uses))


@query
def sensitive(ground: Ground, gathered: Gathered) -> Evidence:
    """What guards what is sensitive?"""
    high = [route for route in ground.routes if route["sensitivity"] == "high"]
    evidence = Evidence(seen=sum(use.count for use in gathered.sensitivities.values()))
    for route in high:
        evidence.place(f"`{route['action']}` is of high sensitivity, tier `{route['tier']}`", route["route"])
        if route["tier"] == "coarse":
            text = f"`{route['action']}` is of high sensitivity and reads no signal (tier `coarse`)"
            evidence.weakened.append(Weakness("coarse_high", text, route["route"]))
    order = {"high": 0, "medium": 1, "low": 2}
    ordered = sorted(gathered.sensitivities.items(), key=lambda pair: order.get(pair[0], 3))
    evidence.table("decisions by sensitivity", ("sensitivity", *USES), use_rows(ordered))
    for place in ground.reading(r"context\s*\.\s*chain\s*\.\s*sensitivity"):
        evidence.place("a policy that reads what a chain has touched", place)
    return evidence


@query
def widening(ground: Ground, gathered: Gathered) -> Evidence:
    """Did anything reach for more than it had?"""
    evidence = Evidence(seen=gathered.all.count)
    evidence.figure(
        "denied since only a word that may restrict would allow", reasons(gathered, "signal_widening_refused")
    )
    evidence.figure("denied beyond a grant", reasons(gathered, "grant_scope_exceeded"))
    evidence.figure("grants of others", reasons(gathered, "grant_invalid"))
    evidence.figure("delegations that would have widened", gathered.refused_calls["delegation_widens"])
    evidence.figure("approvals of other calls", reasons(gathered, "approval_mismatch"))
    own = gathered.refused_calls["own_approval"] + gathered.refused_calls["same_person"]
    return evidence.figure("attempts to approve what one asked for oneself", own)
