"""The evidence queries on what the rules rest on: signals, the directory, people, and how the server runs.

A query judges no control. It says how many records bear on its question (none: there is no data), why nothing in this
directory does it where that is so, and the figures. What a standard calls it stands in `controls.yaml`.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from signalwarden.audit.evidence import Evidence
from signalwarden.audit.ground import Weakness
from signalwarden.audit.querying import USES, by_reason, query, reasons, revoked, share, use_rows, waited

if TYPE_CHECKING:
    from signalwarden.audit.gathered import Gathered, Integrity
    from signalwarden.audit.ground import Ground

# ---- signals --------------------------------------------------------------------------------------------


@query
def signals(ground: Ground, gathered: Gathered) -> Evidence:
    """Can what decides be poisoned, and was it?"""
    seen = gathered.signals.most_common()
    evidence = Evidence(seen=sum(one.read for _, one in seen))
    if not ground.contracts:
        evidence.lacking = "the register has no signal"
    for contract in ground.contracts:
        sources = ", ".join(f"{source['kind']} ({source['assurance']})" for source in contract["sources"])
        evidence.place(
            f"`{contract['name']}`, may {contract['influence']}: {sources}", ground.contract_at(contract)
        )
    doubtful = ("disputed", "unverified", "future")
    rows = [
        (name, one.read, one.states["fresh"], one.states["stale"] + one.states["missing"],
         sum(one.states[state] for state in doubtful), one.overridden)
        for name, one in seen
    ]  # fmt: skip
    evidence.table(
        "signals in decisions",
        ("signal", "read", "fresh", "stale or missing", "in doubt", "overridden"),
        rows,
    )
    evidence.figure("denied since a signal was unavailable", reasons(gathered, "signal_unavailable"))
    evidence.figure("publishers cut off", gathered.changes["publisher_disabled"])
    return evidence


@query
def parties(ground: Ground, gathered: Gathered) -> Evidence:
    """Whose word counts, and for what?"""
    named: dict[str, list[str]] = {}
    for contract in ground.contracts:
        for source in contract["sources"]:
            who = next((source[key] for key in ("publisher", "feed", "issuer") if source.get(key)), None)
            if who is not None:
                named.setdefault(str(who), []).append(contract["name"])
                evidence_at = ground.contract_at(contract)
                named[str(who)].append(evidence_at)
    evidence = Evidence(seen=len(named) + len(ground.settings.federates_with))
    if not evidence.seen:
        evidence.lacking = "no contract names a publisher, and no trust domain is federated"
    for who, said in sorted(named.items()):
        evidence.place(f"`{who}` speaks for {', '.join(said[::2])}", said[1])
    for at, domain in enumerate(ground.settings.federates_with):
        evidence.place(f"the trust domain `{domain}` is accepted", ground.setting_at(f"/federates_with/{at}"))
    evidence.table(
        "values by source, in decisions", ("source", *USES), use_rows(gathered.publishers.most_common())
    )
    evidence.table(
        "decisions by trust domain", ("trust domain", *USES), use_rows(gathered.domains.most_common())
    )
    evidence.figure("publishers cut off", gathered.changes["publisher_disabled"])
    return evidence.figure("feeds suspended", gathered.changes["stream_suspended"])


# ---- the directory --------------------------------------------------------------------------------------


@query
def configuration(ground: Ground, gathered: Gathered) -> Evidence:
    """What does `check` say of the directory?"""
    evidence = Evidence(seen=len(ground.routes) + len(ground.policies) + len(ground.contracts))
    codes = Counter(finding.code for finding in ground.loaded.warnings)
    evidence.figure("errors of `check`", 0)
    evidence.figure("warnings of `check`", sum(codes.values()))
    evidence.figure("declared exceptions", len(ground.described["exceptions"]))
    evidence.table("warnings", ("code", "findings"), codes.most_common())
    evidence.table(
        "declared exceptions", ("exception",), [(text,) for text in ground.described["exceptions"]]
    )
    evidence.figure("directories that were refused", gathered.changes["configuration_refused"])
    return evidence.place("the directory is loaded whole, or the last good one goes on", ground.revision[:12])


@query
def governance(ground: Ground, gathered: Gathered) -> Evidence:
    """Is every change of the rules known, and who made it?"""
    evidence = Evidence(seen=gathered.changes["configuration_loaded"])
    signed = [contract for contract in ground.contracts if contract["approvers"]]
    for contract in signed:
        evidence.place(f"changes of `{contract['name']}` must be signed", ground.contract_at(contract))
    evidence.figure("configurations that came into force", gathered.changes["configuration_loaded"])
    evidence.figure("of these widening, or perhaps", gathered.widening_loads)
    evidence.figure("refused", gathered.changes["configuration_refused"])
    evidence.figure("contracts whose changes must be signed", f"{len(signed)} of {len(ground.contracts)}")
    evidence.table("who brought them", ("actor", "configurations"), gathered.load_actors.most_common())
    rows = [
        (load.time, load.actor, load.revision[:12], load.words, load.widens)
        for load in reversed(gathered.loads)
    ]
    return evidence.table("the newest", ("time", "actor", "revision", "changes", "widening"), rows)


@query
def reviews(ground: Ground, gathered: Gathered) -> Evidence:
    """Is every signal looked at again in time?"""
    evidence = Evidence(seen=len(ground.contracts))
    if not ground.contracts:
        evidence.lacking = "the register has no signal"
    late = [weakness for weakness in ground.weaknesses if weakness.tag == "review_past"]
    evidence.figure("contracts with a day of review", len(ground.contracts))
    evidence.figure("past their review", len(late))
    if ground.described["strict_reviews"]:
        evidence.place("a contract past its review is an error", "signals.yaml")
    rows = sorted(
        (contract["review_by"], contract["name"], ground.contract_at(contract))
        for contract in ground.contracts
    )
    return evidence.table("next reviews", ("review by", "signal", "at"), rows)


@query
def inventory(ground: Ground, gathered: Gathered) -> Evidence:
    """Is what decides, and who asks, written down?"""
    evidence = Evidence(seen=len(ground.contracts) + len(ground.routes) + len(ground.principals))
    evidence.figure("signals", len(ground.contracts)).figure("routes", len(ground.routes))
    evidence.figure("policies", len(ground.policies)).figure("principals", len(ground.principals))
    listed = {principal.id for principal in ground.principals}
    seen = [name for name, _ in gathered.principals.most_common()]
    evidence.figure("principals that asked and are listed", share(sum(n in listed for n in seen), len(seen)))
    evidence.figure("calls that no route knows", reasons(gathered, "route_unknown"))
    for file in ("signals.yaml", "routes.yaml", "entities.json"):
        evidence.place("the inventory", file)
    return evidence


@query
def owners(ground: Ground, gathered: Gathered) -> Evidence:
    """Does somebody answer for each signal and each principal?"""
    evidence = Evidence(seen=len(ground.contracts) + len(ground.principals))
    owned = sum(principal.owner is not None for principal in ground.principals)
    evidence.figure("signals with an owner", f"{len(ground.contracts)} of {len(ground.contracts)}")
    evidence.figure("principals with an owner", f"{owned} of {len(ground.principals)}")
    rows = Counter(contract["owner"] for contract in ground.contracts)
    rows.update(principal.owner for principal in ground.principals if principal.owner)
    evidence.table("who answers", ("owner", "signals and principals"), rows.most_common())
    for contract in ground.contracts:
        evidence.place(f"`{contract['name']}`: {contract['owner']}", ground.contract_at(contract))
    return evidence


# ---- people ---------------------------------------------------------------------------------------------


@query
def oversight(ground: Ground, gathered: Gathered) -> Evidence:
    """Do people decide what they should?"""
    asked = [route for route in ground.routes if route["tier"] == "approval"]
    gated = [action["action"] for action in ground.described["actions"] if action["has_gates"]]
    approvers, overriders = ground.may("approve"), ground.may("override")
    evidence = Evidence(seen=gathered.changes["approval_asked"] + gathered.changes["signal_overridden"])
    if not (asked or gated or overriders):
        evidence.lacking = "no route or policy asks for an approval, and nobody may override"
    for route in asked:
        evidence.place(f"`{route['action']}` needs an approval", route["route"])
    for action in gated:
        evidence.place(f"a gate of `{action}`", "policies")
    evidence.figure("clients who may approve", len(approvers)).figure(
        "clients who may override", len(overriders)
    )
    if (asked or gated) and not approvers:
        text = "approvals are asked for and no client has the right `approve`"
        evidence.weakened.append(Weakness("nobody_approves", text, ground.setting_at("/clients")))
    for label, change in (("questions asked", "approval_asked"), ("answers given", "approval_answered"),
                          ("approvals used", "approval_used"), ("given back", "approval_released"),
                          ("overrides proposed", "override_proposed"), ("overrides in force", "signal_overridden"),
                          ("overrides ended", "override_ended")):  # fmt: skip
        evidence.figure(label, gathered.changes[change])
    rows = [(who, "yes" if yes else "no", count) for (who, yes), count in gathered.answered.most_common()]
    evidence.table("answers", ("by", "answer", "times"), rows)
    evidence.table("who answered", ("client", "yes", "no", "all"), use_rows(gathered.approvers.most_common()))
    evidence.table("who overrode", ("client", "overrides"), gathered.override_authors.most_common())
    return by_reason(
        evidence,
        gathered,
        "calls that waited for a person",
        "approval_required",
        "approval_denied",
        "approval_expired",
    )


@query
def fatigue(ground: Ground, gathered: Gathered) -> Evidence:
    """Can a flood of questions wear approvers out?"""
    evidence = Evidence(seen=gathered.changes["approval_asked"])
    most = ground.settings.approvals.max_open
    evidence.place(
        f"one requester has {most} open questions at most", ground.setting_at("/approvals/max_open")
    )
    if not any(route["tier"] == "approval" for route in ground.routes) and not any(
        a["has_gates"] for a in ground.described["actions"]
    ):
        evidence.lacking = "no route or policy asks for an approval"
    return evidence.figure("expired without an answer", reasons(gathered, "approval_expired"))


@query
def deactivation(ground: Ground, gathered: Gathered) -> Evidence:
    """Can access be taken away, and was it felt at once?"""
    kinds = ("revoked", "task_ended", "publisher_disabled", "workflow_moved", "standing_lost")
    evidence = Evidence(
        seen=sum(gathered.changes[kind] for kind in kinds)
        + reasons(gathered, "principal_retired", "grant_revoked")
    )
    for kind in kinds:
        evidence.figure(f"`{kind}`", gathered.changes[kind])
    revoked(evidence, gathered)
    waited(evidence, gathered.task_ends, "tasks ended", "end to first denial")
    operators = ground.may("operate")
    if not operators:
        evidence.weakened.append(
            Weakness("nobody_revokes", "no client has the right `operate`, so nobody can revoke")
        )
    return evidence.figure("clients who may revoke", len(operators))


# ---- operation ------------------------------------------------------------------------------------------


@query
def monitoring(ground: Ground, gathered: Gathered) -> Evidence:
    """Is what happens seen?"""
    evidence = Evidence(seen=gathered.all.count)
    evidence.figure("decisions", gathered.all.count).figure("allowed", gathered.all.allow)
    evidence.figure("denied", gathered.all.deny).figure("denied and let pass", gathered.all.let_pass)
    evidence.figure("from", gathered.period.first).figure("to", gathered.period.last)
    if gathered.all.let_pass:
        text = f"{gathered.all.let_pass} denials were let pass: their routes are not enforced"
        evidence.weakened.append(Weakness("unenforced", text))
    evidence.table("decisions by reason", ("reason", "decisions"), gathered.reasons.most_common())
    return evidence.place("one record for each decision", str(ground.settings.decision_log.path))


@query
def fail_safe(ground: Ground, gathered: Gathered) -> Evidence:
    """Did it deny when it could not know?"""
    evidence = Evidence(seen=gathered.all.count)
    evidence.figure("answered `log_unavailable`, without a record of their own", gathered.without_record)
    evidence.figure(
        "directories refused while the last good one went on", gathered.changes["configuration_refused"]
    )
    evidence.table(
        "declared exceptions", ("exception",), [(text,) for text in ground.described["exceptions"]]
    )
    if gathered.all.let_pass:
        text = f"{gathered.all.let_pass} denials were let pass: their routes are not enforced"
        evidence.weakened.append(Weakness("unenforced", text))
    return by_reason(evidence, gathered, "denied since it could not be known",
                     "signal_unavailable", "malformed_request", "body_incomplete", "engine_error", "not_ready",
                     "route_unknown")  # fmt: skip


@query
def resilience(ground: Ground, gathered: Gathered) -> Evidence:
    """What attacked it or broke, and did it go on?"""
    evidence = Evidence(seen=gathered.lines)
    evidence.figure("starts", gathered.changes["server_started"])
    evidence.figure("starts after an end that was not orderly", gathered.unclean_starts)
    evidence.figure("records recovered after such an end", gathered.recovered)
    evidence.figure("clients refused at the admin API", gathered.changes["client_refused"])
    evidence.table(
        "calls that never reached a decision", ("what", "calls"), gathered.transports.most_common()
    )
    evidence.table(
        "refused calls of the admin API", ("reason", "records"), gathered.refused_calls.most_common()
    )
    return by_reason(evidence, gathered, "hostile or broken calls", "malformed_request", "body_incomplete",
                     "identity_invalid", "token_invalid", "grant_invalid", "engine_error")  # fmt: skip


@query
def accountability(ground: Ground, gathered: Gathered) -> Evidence:
    """Can each decision be understood, and each change be laid to somebody?"""
    evidence = Evidence(seen=gathered.all.count + sum(gathered.changes.values()))
    told = share(gathered.named, gathered.denied_by_policy)
    evidence.figure("denials by a policy that name it with file and line", told)
    evidence.figure(
        "decisions that say what each signal did", share(gathered.influence_told, gathered.all.count)
    )
    evidence.figure("changes on record", sum(gathered.changes.values()))
    evidence.figure("of these without an author, though they should have one", gathered.actorless)
    evidence.figure("revisions that decided", len(gathered.revisions))
    if gathered.shed:
        text = f"influence was left out of {gathered.shed} records under load"
        evidence.weakened.append(Weakness("shed", text))
    return evidence


@query
def log_integrity(ground: Ground, gathered: Gathered) -> Evidence:
    """Is the log whole, and would a change of it be seen?"""
    evidence = Evidence(seen=gathered.lines)
    evidence.figure("records read", gathered.lines)
    evidence.figure("change and transport records that found no room", gathered.records_lost)
    evidence.figure("bytes of half a line that a crash had left and a start cut off", gathered.bytes_cut)
    evidence.figure("answers without a record (`log_unavailable`)", gathered.without_record)
    held_against_tree(evidence, gathered.integrity)
    if gathered.records_lost:
        text = f"{gathered.records_lost} change or transport records were lost"
        evidence.weakened.append(Weakness("records_lost", text))
    return evidence.place("mode 0600, one writer at a time, no record and no allow", ground.log_path.name)


def held_against_tree(evidence: Evidence, integrity: Integrity | None) -> None:
    """What `log verify` says, where it was asked."""
    if integrity is None:
        text = "the files that were read were not held against a signed tree: `signalwarden log verify` does"
        evidence.weakened.append(Weakness("not_verified", text))
        return
    if integrity.why_not is not None:
        text = f"who can write the log can change it unseen: {integrity.why_not}"
        evidence.weakened.append(Weakness("not_verified", text))
        return
    evidence.place("a tree over all records, with signed checkpoints (`log verify`)", "tree beside the log")
    evidence.figure("records that are what a signed checkpoint says", integrity.signed)
    evidence.figure("records behind the last checkpoint", integrity.unsealed)
    evidence.figure("findings of `log verify`", integrity.wrong)
    if integrity.first is not None:
        what, at = integrity.first
        evidence.weakened.append(
            Weakness("tampered", f"{integrity.wrong} findings of `log verify`, first: {what}", at)
        )
