"""The way of one decision as a story: asked, route, who, grant, signals, policies, approval, answer; what decided it,
the smallest change that would flip it, and what an operator can do.

It is told from the record alone. The directory beside it adds source lines where it is still of the same revision.
"""

from __future__ import annotations

from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING, Any, Final

from signalwarden import _core
from signalwarden.decision_log.parts import map_of, policies_asked
from signalwarden.log_reading.beside import Beside
from signalwarden.log_reading.runbook import RUNBOOK
from signalwarden.log_reading.telling import (
    Step,
    age,
    entries_of,
    joined,
    pairs,
    shown,
    text_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Story", "decision"]

PROOFS: Final = {
    "envoy_peer": "the certificate of the connection, which Envoy verified",
    "xfcc": "the last element of x-forwarded-client-cert",
    "jwt_svid": "a JWT-SVID that was validated here",
    "oauth": "an OAuth token that was validated here",
    "client": "a client of the admin API",
    "vouched": "the word of the client that asks about it",
}
STATE_STYLES: Final = {"fresh": "green", "stale": "yellow", "missing": "yellow"}
APPLIES: Final = {"certain": "applies", "may": "may apply", "never": "does not apply", "failed": "failed"}


@dataclass(frozen=True, slots=True)
class Story:
    """One decision, told."""

    record: dict[str, Any]
    sentence: str
    """Of the reason."""
    steps: list[Step]
    decided: list[str]
    flips: list[str]
    """What would have changed the answer; else why that is not known."""
    analysis: dict[str, Any] | None
    """What the replay of the record says, as it says it."""
    runbook: str
    commands: list[str]

    @property
    def denied(self) -> bool:
        return self.record.get("outcome") == "deny"

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        record = self.record
        return {
            "kind": "decision",
            "id": record.get("decision_id"),
            "time": record.get("time"),
            "outcome": record.get("outcome"),
            "reason": record.get("reason"),
            "sentence": self.sentence,
            "steps": [step.as_dict() for step in self.steps],
            "decided_by": self.decided,
            "would_flip": self.flips,
            "analysis": self.analysis,
            "runbook": self.runbook,
            "commands": self.commands,
            "record": record,
        }


def decision(record: dict[str, Any], beside: Beside, analysis: dict[str, Any] | None, why_none: str) -> Story:
    """The story of a decision record. `analysis`: what `Replay.explain` said of it; `why_none`: why it is not there."""
    reason = text_of(record.get("reason"))
    known = {code: sentence for code, *_, sentence in _core.reasons()}
    told = _with_influence(record, analysis)
    steps = [
        _asked(told),
        _route(told, beside),
        _who(told),
        _grant(told),
        _signals(told, beside),
        _policies(told, beside),
        _approval(told),
        _answer(told),
    ]
    return Story(
        record,
        known.get(reason, "a reason that is not known here"),
        steps,
        _decided(told),
        _flips(told, analysis, why_none),
        analysis,
        RUNBOOK.get(reason, "this reason is not known here: the record is of another version"),
        _commands(told),
    )


def _with_influence(record: dict[str, Any], analysis: dict[str, Any] | None) -> dict[str, Any]:
    """With what each signal did, where the record leaves that out and the decision could be made again."""
    signals = entries_of(record.get("signals"))
    found = map_of((analysis or {}).get("influence"))
    if (
        not found
        or (analysis or {}).get("same") is not True
        or any("influence" in signal for signal in signals)
    ):
        return record
    added = [
        {**signal, "influence": found[signal["name"]]} if signal.get("name") in found else signal
        for signal in signals
    ]
    told = {key: value for key, value in record.items() if key != "influence_shed"}
    return {**told, "signals": added}


# ---- the way ------------------------------------------------------------------------------------------------


def _asked(record: Mapping[str, Any]) -> Step:
    step, request = Step("asked"), map_of(record.get("request"))
    if map_of(record.get("principal")).get("kind") == "client":
        step.say(f"{text_of(request.get('method'))} {text_of(request.get('path'))}, by the admin API")
    elif request.get("door"):
        step.say(f"{text_of(request.get('path'))}, a question of {text_of(request.get('client'))}")
    elif not request.get("method"):
        step.say("a request that could not be read", "yellow")
    else:
        step.say(f"{request['method']} {text_of(request.get('host'))}{text_of(request.get('path'))}")
    if args := map_of(request.get("args")):
        step.say(f"with {pairs(args)}")
    ids = [
        (word, request.get(key))
        for word, key in (
            ("trace", "trace_id"),
            ("id of the call", "envoy_id") if request.get("door") else ("Envoy's id", "envoy_id"),
        )
    ]
    if told := joined(*(f"{word} {value}" for word, value in ids if value)):
        step.say(told, "dim")
    return step


def _route(record: Mapping[str, Any], beside: Beside) -> Step:
    step, request = Step("route"), map_of(record.get("request"))
    if not request.get("action"):
        step.say("none: the way ended here", "yellow")
        return step
    step.say(
        joined(
            f"{request['action']}", f"on {request['resource']}" if request.get("resource") else None, by=" "
        )
    )
    place = text_of(request.get("route"))
    step.say(
        joined(
            place,
            *(
                f"{key} {request[key]}"
                for key in ("system", "tier", "sensitivity", "environment")
                if key in request
            ),
        )
    )
    text = beside.line(place) if beside.is_of(map_of(record.get("policies")).get("revision")) else None
    if text is not None:
        step.say(f"{place.rpartition(':')[2]:>5} │ {text}", "dim")
    return step


def _who(record: Mapping[str, Any]) -> Step:
    step, principal = Step("who"), map_of(record.get("principal"))
    if not principal:
        step.say("nobody: no identity was established", "yellow")
        return step
    step.say(text_of(principal.get("id")), "bold")
    proof = PROOFS.get(text_of(principal.get("source")), text_of(principal.get("source")))
    step.say(f"proven by {proof}" + (", bound to the connection" if principal.get("bound") else ""))
    for token in entries_of(principal.get("tokens")):
        kind = text_of(token.get("class")).replace("_", " ")
        step.say(f"{kind} of {token.get('issuer')}, subject {token.get('subject')}, "
                 f"key {token.get('key_id')}, until {token.get('expires_at')}")  # fmt: skip
    more = joined(
        *(f"{key} {principal[key]}" for key in ("owner", "environment", "actor") if principal.get(key)),
        "legacy" if principal.get("legacy") else None,
        "a human at the origin" if principal.get("interactive") else None,
    )
    if more:
        step.say(more, "dim")
    return step


def _grant(record: Mapping[str, Any]) -> Step:
    step, grant, chain = Step("grant"), record.get("grant"), map_of(record.get("chain"))
    if not isinstance(grant, dict):
        step.say("none was shown", "dim")
        return step
    if "task" not in grant:
        step.say(f"one that does not count, SHA-256 {text_of(grant.get('sha256')):.12}…", "yellow")
        return step
    workflow = f"of the workflow {grant['workflow']}" if grant.get("workflow") else None
    step.say(
        joined(
            f"task {grant['task']}", text_of(grant.get("type")), workflow, f"until {grant.get('expires_at')}"
        )
    )
    if chain.get("depth"):
        above = joined(*(text_of(one) for one in chain.get("principals", [])), by=" ← ")
        step.say(f"handed on {chain['depth']} time{'' if chain['depth'] == 1 else 's'}: {above}")
    touched = joined(*(text_of(one) for one in chain.get("systems", [])))
    if touched:
        highest = f", {chain['sensitivity']} at most" if chain.get("sensitivity") else ""
        step.say(f"its tree had touched {touched}{highest}", "dim")
    return step


def _signals(record: Mapping[str, Any], beside: Beside) -> Step:
    step, signals = Step("signals"), entries_of(record.get("signals"))
    if not signals:
        step.say("none was read", "dim")
    same = beside.is_of(map_of(record.get("policies")).get("revision"))
    for signal in signals:
        state = text_of(signal.get("state"))
        contract = beside.contract(text_of(signal.get("name"))) if same else None
        most = age((contract or {}).get("max_age_ms"))
        told = joined(
            state,
            _last_known(signal),
            _aged(signal, most),
            f"{text_of(signal.get('assurance')).replace('_', ' ')}",
            f"from {signal['source']}" if signal.get("source") else None,
            _in_company(signal),
        )
        influence = (
            f"  {signal['influence'].upper()}" if signal.get("influence") in ("decisive", "refused") else ""
        )
        value = f" = {_value(signal)}" if state == "fresh" else ""
        step.say(f"{signal.get('name')}{value}: {told}{influence}", STATE_STYLES.get(state, "red"))
        if contract and signal.get("influence") == "decisive" and state != "fresh":
            step.say(f"  {contract['owner']} answers for it: {contract['description']}", "dim")
        if override := map_of(signal.get("override")):
            by = " and ".join(map(str, override.get("by", [])))
            step.say(f"  overridden by {by} while {override.get('was')}, until {override.get('expires_at')}: "
                     f"{override.get('reason')}")  # fmt: skip
    if record.get("influence_shed"):
        step.say("what each did was not computed: the log was more than half full", "yellow")
    return step


def _value(signal: Mapping[str, Any]) -> str:
    if "value" in signal:
        return shown(signal["value"])
    return "a secret value" if "digest" in signal else "?"


def _last_known(signal: Mapping[str, Any]) -> str | None:
    if signal.get("state") == "fresh" or not {"value", "digest"} & signal.keys():
        return None
    return f"last known {_value(signal)}"


def _aged(signal: Mapping[str, Any], most: str | None) -> str | None:
    old = age(signal.get("age_ms"))
    if old is None:
        return None
    return f"{old} old" + (f" of at most {most}" if most and signal.get("state") == "stale" else "")


def _in_company(signal: Mapping[str, Any]) -> str | None:
    return {
        "counts": "counts, since others agree",
        "alone": "stands alone, so policies see it absent",
        "open": "may count or not, since others are not known",
    }.get(text_of(signal.get("company")))


def _policies(record: Mapping[str, Any], beside: Beside) -> Step:
    step, policies = Step("policies"), map_of(record.get("policies"))
    determining = entries_of(policies.get("determining"))
    if not policies_asked(record):
        step.say("none was evaluated: the way ended before", "dim")
    elif not determining:
        step.say("none applies" if record.get("outcome") == "deny" else "none is named")
    same = beside.is_of(policies.get("revision"))
    for policy in determining:
        applies = APPLIES.get(text_of(policy.get("applies")), "")
        style = "green" if policy.get("effect") == "permit" else "red"
        step.say(
            f"{policy.get('effect')} {policy.get('id')} {applies}  {policy.get('file')}:{policy.get('line')}",
            style,
        )
        for line in _said_of(policy):
            step.say(line, "dim")
        if same and isinstance(policy.get("line"), int):
            for number, text in beside.policy(text_of(policy.get("file")), policy["line"]):
                step.say(f"{number:>5} │ {text}", "dim")
    if same and record.get("reason") == "no_policy_permits":
        _kept_from_it(step, record, beside)
    for error in entries_of(policies.get("errors")):
        step.say(f"{error.get('id')} failed: {error.get('error')}", "red")
    for policy in entries_of(policies.get("observed")):
        applies = APPLIES.get(text_of(policy.get("applies")), "")
        step.say(f"observing only: {policy.get('effect')} {policy.get('id')} {applies}  "
                 f"{policy.get('file')}:{policy.get('line')}", "dim")  # fmt: skip
    if "would" in policies:
        step.say(f"were the observing ones enforced: {policies['would']}", "dim")
    why_not = beside.why_not(policies.get("revision"))
    revision = f"revision {text_of(policies.get('revision')):.12}" if policies.get("revision") else ""
    step.say(joined(revision, "as the directory is now" if same else why_not), "dim")
    return step


def _said_of(policy: Mapping[str, Any]) -> Iterator[str]:
    """What a policy says of itself."""
    if template := text_of(policy.get("template")):
        yield f"a link of the template {template}"
    if why := text_of(policy.get("why")):
        yield f"why: {why}"
    if advice := text_of(policy.get("advice")):
        yield f"the caller was told: {advice}"


def _kept_from_it(step: Step, record: Mapping[str, Any], beside: Beside) -> None:
    """The permits that a decisive signal keeps from it: the record does not name policies that do not apply."""
    decisive = {s.get("name") for s in entries_of(record.get("signals")) if s.get("influence") == "decisive"}
    for policy in beside.described.get("policies", []):
        if policy["effect"] == "permit" and policy["mode"] == "enforce" and decisive & set(policy["signals"]):
            step.say(f"permit {policy['id']} reads them  {policy['file']}:{policy['line']}", "yellow")
            for number, text in beside.policy(policy["file"], policy["line"]):
                step.say(f"{number:>5} │ {text}", "dim")


def _approval(record: Mapping[str, Any]) -> Step:
    step, approval = Step("approval"), map_of(record.get("approval"))
    if not approval:
        step.say("no question was asked about this call", "dim")
        return step
    by = joined(*(text_of(one) for one in approval.get("approved_by", []) or []))
    step.say(joined(f"{approval.get('id')} is {approval.get('state')}", f"yes from {by}" if by else None,
                    f"until {approval.get('expires_at')}"))  # fmt: skip
    for words in approval.get("words", []) or []:
        step.say(f"demanded: {words}")
    return step


def _answer(record: Mapping[str, Any]) -> Step:
    step, timing = Step("answer"), map_of(record.get("timing_us"))
    let_pass = record.get("enforced") is False
    style = "bold green" if record.get("outcome") == "allow" else "bold yellow" if let_pass else "bold red"
    step.say(
        f"{text_of(record.get('outcome'))}, {record.get('reason')}, HTTP {record.get('http_status')}", style
    )
    if let_pass:
        step.say("and let pass all the same: its route says `enforce: false`", "yellow")
    if record.get("detail"):
        step.say(text_of(record["detail"]))
    stages = joined(
        *(f"{key} {timing[key]:g}" for key in timing if key != "total" and _is_number(timing[key]))
    )
    if _is_number(timing.get("total")):
        step.say(f"in {timing['total']:g} µs: {stages}", "dim")
    if folded := map_of(record.get("folded")):
        step.say(
            f"the same {folded.get('count')} times until {folded.get('last_time')}: this record stands for all",
            "bold",
        )
    if record.get("refused_before"):
        step.say(
            f"{record['refused_before']} decisions before it have no record: each was `log_unavailable`",
            "yellow",
        )
    if record.get("recovered"):
        step.say("the record was recovered after the server had died", "yellow")
    return step


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# ---- what decided it ----------------------------------------------------------------------------------------


def _decided(record: Mapping[str, Any]) -> list[str]:
    policies = entries_of(map_of(record.get("policies")).get("determining"))
    signals = entries_of(record.get("signals"))
    decisive = [signal for signal in signals if signal.get("influence") == "decisive"]
    said: list[str] = []
    match record.get("reason"):
        case "allowed":
            said += [f"{_policy(one)} permits it, and no forbid applies" for one in policies[:1]]
            said += [
                f"it rests on {_signal(one)}: without it the answer would be another" for one in decisive
            ]
        case "policy_denied":
            said += [f"{_policy(one)} forbids it" for one in policies]
            said += [f"because of {_signal(one)}" for one in decisive]
        case "no_policy_permits":
            said.append("no permit applies, whatever the signals that are not known are")
            said += [f"{_signal(one)} keeps a permit from it" for one in decisive]
        case "signal_unavailable":
            said += [f"{_signal(one)}: what it would say decides" for one in decisive]
            said += [f"{_policy(one)} may apply" for one in policies if one.get("applies") == "may"]
        case "signal_widening_refused":
            refused = [signal for signal in signals if signal.get("influence") == "refused"]
            said += [f"only {_signal(one)} would open it, and it may only restrict" for one in refused]
        case "engine_error":
            said += [f"{one.get('id')} failed: {one.get('error')}" for one in
                     entries_of(map_of(record.get("policies")).get("errors"))]  # fmt: skip
    if record.get("detail") and not said:
        said.append(text_of(record["detail"]))
    return said or [f"the step that gives `{record.get('reason')}`, before any policy"]


def _policy(policy: Mapping[str, Any]) -> str:
    return f"the {policy.get('effect')} `{policy.get('id')}` ({policy.get('file')}:{policy.get('line')})"


def _signal(signal: Mapping[str, Any]) -> str:
    if signal.get("state") == "fresh":
        return f"`{signal.get('name')}` = {_value(signal)}"
    return f"`{signal.get('name')}` is {signal.get('state')}"


MAX_WAYS: Final = 5
"""Changes that are told, each of which would do."""


def _flips(record: Mapping[str, Any], analysis: dict[str, Any] | None, why_none: str) -> list[str]:
    if analysis is None:
        return [why_none]
    if analysis.get("undecidable"):
        return [f"not known, the record can't be decided again: {analysis['undecidable']}"]
    said = []
    if analysis.get("same") is False:
        now = text_of(map_of(analysis.get("now")).get("reason"))
        said.append(f"decided again with this directory it is `{now}`: what follows is said of that")
    singles = entries_of(analysis.get("smallest_change"))
    said += [f"{_changed(one)}: then `{one.get('reason')}`" for one in singles[:MAX_WAYS]]
    for pair in entries_of(analysis.get("smallest_pairs"))[: 0 if singles else MAX_WAYS]:
        both = " and ".join(_changed(one) for one in entries_of(pair.get("changes")))
        said.append(f"{both}: then `{pair.get('reason')}`")
    changed = {one.get("name") for one in singles}
    said += [
        f"`{one.get('name')}` was {shown(one.get('value'))}: at {shown(one.get('flips_at'))} "
        f"it is `{one.get('to_reason')}`"
        for one in entries_of(analysis.get("thresholds"))
        if one.get("name") not in changed
    ]
    if record.get("outcome") == "allow":
        decisive = [name for name, did in map_of(analysis.get("influence")).items() if did == "decisive"]
        said += [f"`{name}` lost: then it is denied" for name in decisive]
    sets = [one for one in analysis.get("minimal_sets") or [] if isinstance(one, list) and len(one) > 1]
    said += [
        f"no one of them alone, but {' and '.join(f'`{name}`' for name in one)} together decide"
        for one in sets
    ]
    if not said:
        said.append(text_of(analysis.get("as_it_was")) or "no change of one or two signals")
    if analysis.get("cut"):
        said.append("there may be more: the search was ended at its bound")
    return said


def _changed(change: Mapping[str, Any]) -> str:
    match change.get("what", "signal"):
        case "grant":
            return "a live grant that covers the call"
        case "approval":
            return "a yes to this very call"
    name = f"`{change.get('name')}`"
    was = shown(change["from"]) if change.get("from") is not None else text_of(change.get("was"))
    instead = f" in place of {was}" if was else ""
    if "to" in change:
        return f"{name} = {shown(change['to'])}{instead}"
    return f"{name} {change.get('state', 'lost')}{instead}"


# ---- what to do ---------------------------------------------------------------------------------------------


def _commands(record: Mapping[str, Any]) -> list[str]:
    """What may be typed next."""
    reason, principal = text_of(record.get("reason")), text_of(map_of(record.get("principal")).get("id"))
    found: list[str] = []
    if record.get("outcome") == "deny":
        found += [
            f"signalwarden signals show {quote(text_of(signal.get('name')))}"
            for signal in entries_of(record.get("signals"))
            if signal.get("influence") in ("decisive", "refused")
        ]
    if reason.startswith("approval") and (approval := map_of(record.get("approval"))):
        found.append(f"signalwarden approvals show {quote(text_of(approval.get('id')))}")
    if reason.startswith("grant") and principal:
        found.append(f"signalwarden tasks list --ended --principal {quote(principal)}")
    if reason in ("token_invalid", "identity_invalid"):
        found.append("signalwarden revocations")
    if record.get("outcome") == "deny":
        who = f" --principal {quote(principal)}" if principal else ""
        found.append(f"signalwarden log tail --since 1h --reason {quote(reason)}{who}")
    return found
