"""What all records of a period tell together, in one pass and in memory that does not grow with the log.

Here it is counted and nothing is judged: what a count means for a control is said in `queries`.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from signalwarden.decision_log.parts import Period, map_of, number, result_of, stands_for
from signalwarden.log_reading.sums import Histogram, Top, Use
from signalwarden.log_reading.telling import entries_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from signalwarden.log_reading.records import Entry

__all__ = ["Gathered", "Integrity", "Load", "Principal", "Signal"]

MAX_OPEN: Final = 10_000
"""Of ended tasks whose first denial is waited for, revoked subjects, revisions, and policies: each, at once."""
MAX_TASKS: Final = 20_000
"""Tasks whose use is told apart; of the others only the number."""
MAX_DISTINCT: Final = 64
"""Certificates of one principal that are told apart: more is an answer as well."""
MAX_LOADS: Final = 50
"""Reloads that are listed, the newest ones."""
MAX_NAMED: Final = 5
"""Lines that are named where something stands that should not."""

SECRET: Final = re.compile(
    rb"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*|[Bb]earer [A-Za-z0-9._~+/-]{16,}"
    rb"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
"""What a token or a private key looks like. Nothing of a record has this form: tokens stand there by their digests."""


REVOKED: Final = "has been revoked"
"""What the detail of a refusal says where a revocation is its cause."""
MARKS: Final = (b"eyJ", b"earer ", b"PRIVATE KEY")
"""One of these stands in each of them: looking for a text is many times faster than for a form."""

WIDENING: Final = ("widens", "may widen")
"""Directions of a change in words, as records have them."""


@dataclass(slots=True)
class Principal(Use):
    """Of one principal."""

    last_allow: str | None = None
    certificates: set[str] = field(default_factory=set)
    classes: set[str] = field(default_factory=set)
    domain: str = ""


@dataclass(slots=True)
class Signal:
    """Of one signal, in the decisions that read it."""

    read: int = 0
    states: Counter[str] = field(default_factory=Counter)
    assurances: Counter[str] = field(default_factory=Counter)
    influences: Counter[str] = field(default_factory=Counter)
    overridden: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """One configuration that came into force."""

    time: str
    actor: str
    revision: str
    widens: int
    words: int


@dataclass(frozen=True, slots=True)
class Integrity:
    """What `log verify` says of the log."""

    signed: int = 0
    """Records that are what a signed checkpoint says."""
    unsealed: int = 0
    """Records that no signature covers yet."""
    wrong: int = 0
    first: tuple[str, str] | None = None
    """The first thing that is wrong, and where."""
    why_not: str | None = None
    """Why it could not be held against a signed tree."""


@dataclass(slots=True)
class Task:
    """Of one task: its type, and which of its actions were used."""

    kind: str
    used: set[str] = field(default_factory=set)


class Gathered:
    """Takes records in the order of the log."""

    def __init__(self) -> None:
        self.period = Period()
        self.lines = 0
        self.all = Use()
        self.reasons: Counter[str] = Counter()
        self.let_pass_reasons: Counter[str] = Counter()
        self.credentials: Counter[tuple[str, str, bool]] = Counter()
        """By source, class, and whether it was bound to the connection."""
        self.issuers: Top[Use] = Top(Use)
        self.domains: Top[Use] = Top(Use)
        self.principals: Top[Principal] = Top(Principal)
        self.actions: Top[Use] = Top(Use)
        self.routes: Top[Use] = Top(Use)
        self.tiers: dict[str, Use] = {}
        self.sensitivities: dict[str, Use] = {}
        self.permits: Counter[str] = Counter()
        self.forbids: Counter[str] = Counter()
        self.signals: Top[Signal] = Top(Signal)
        self.publishers: Top[Use] = Top(Use)
        self.lifetimes: dict[str, Histogram] = {}
        """Seconds, by class of credential; `grant` for grants."""
        self.mismatches: Counter[tuple[str, str]] = Counter()
        """Of environments, by the principal's and the action."""
        self.human, self.acting = Use(), Use()
        self.chained, self.depth = Use(), 0
        self.systems: Counter[int] = Counter()
        """Calls under a grant, by how many systems its tree had touched before."""
        self.under_grant = Use()
        self.tasks: dict[str, Task] = {}
        self.tasks_left_out = 0
        self.named = 0
        """Denials by policy that name the policy with file and line; `denied_by_policy` of them should."""
        self.denied_by_policy = 0
        self.influence_told = 0
        self.folded = self.without_record = self.recovered = self.shed = 0
        self.revisions: Counter[str] = Counter()
        self.last_revision: str | None = None

        self.changes: Counter[str] = Counter()
        self.transports: Counter[str] = Counter()
        self.refused_calls: Counter[str] = Counter()
        self.loads: list[Load] = []
        self.load_actors: Counter[str] = Counter()
        self.widening_loads = 0
        self.answered: Counter[tuple[str, bool]] = Counter()
        """Answers to questions: `person` or `rule`, and whether it was a yes."""
        self.approvers: Top[Use] = Top(Use)
        self.override_authors: Counter[str] = Counter()
        self.actorless = 0
        """Change records that do not say who caused them, though they should."""
        self.records_lost = self.bytes_cut = 0
        self.unclean_starts = 0
        self._stopped = True
        self._started = False
        self.revocations = self.refused_as_revoked = self.allowed_again = 0
        self.after_revocation = Histogram()
        """Milliseconds from a revocation to the next call that was refused as revoked. A record of a refused credential
        does not say whose it was."""
        self._revoked_at: str | None = None
        self._revoked: dict[str, str] = {}
        """Subjects, and when."""
        self.task_ends = Waits()
        self.integrity: Integrity | None = None
        """None where the log was not held against its signed tree: another file was read, or nobody asked."""
        self.secrets = 0
        self.secrets_named: list[str] = []

    def add(self, entry: Entry) -> None:
        """One more record."""
        record = entry.record
        self.lines += 1
        if any(mark in entry.raw for mark in MARKS) and SECRET.search(entry.raw):
            self.secrets += 1
            if len(self.secrets_named) < MAX_NAMED:
                self.secrets_named.append(f"{entry.file.name}:{entry.line}")
        self.period.add(record.get("time"))
        match record["kind"]:
            case "decision":
                self._decision(record)
            case "change":
                self._change(record)
            case "transport":
                self.transports[str(record.get("transport"))] += number(record.get("count"), 1)

    # ------------------------------------------------------------ decisions

    def _decision(self, record: Mapping[str, Any]) -> None:
        count, outcome = stands_for(record), result_of(record)
        reason = str(record.get("reason"))
        self.all.add(outcome, count)
        self.reasons[reason] += count
        self.folded += count - 1
        self.without_record += number(record.get("refused_before"), 0)
        self.recovered += record.get("recovered") is True
        self.shed += record.get("influence_shed") is True
        if outcome == "pass":
            self.let_pass_reasons[reason] += count
        request = map_of(record.get("request"))
        for top, key in ((self.actions, "action"), (self.routes, "route")):
            if isinstance(name := request.get(key), str):
                top.of(name).add(outcome, count)
        for uses, key in ((self.tiers, "tier"), (self.sensitivities, "sensitivity")):
            if isinstance(name := request.get(key), str):
                uses.setdefault(name, Use()).add(outcome, count)
        if reason in ("identity_invalid", "token_invalid") and REVOKED in str(record.get("detail")):
            self._refused_as_revoked(str(record.get("time")), count)
        self._identity(record, outcome, reason, count)
        self._policies(map_of(record.get("policies")), outcome, reason, count)
        self._signals(record, count)
        self._grant(record, outcome, count)

    def _identity(self, record: Mapping[str, Any], outcome: str, reason: str, count: int) -> None:
        principal = map_of(record.get("principal"))
        name, time = principal.get("id"), str(record.get("time"))
        if not isinstance(name, str):
            return
        kind, source = str(principal.get("class")), str(principal.get("source"))
        if source in ("client", "vouched"):
            return  # of the admin API, or asked about there: no caller
        self.credentials[source, kind, principal.get("bound") is True] += count
        domain = str(principal.get("trust_domain"))
        self.domains.of(domain).add(outcome, count)
        one = self.principals.of(name)
        one.add(outcome, count)
        one.domain = domain
        one.classes.add(kind)
        certificate = principal.get("certificate_sha256")
        if isinstance(certificate, str) and len(one.certificates) < MAX_DISTINCT:
            one.certificates.add(certificate)
        if outcome == "allow":
            one.last_allow = max(one.last_allow or "", time)
            self.allowed_again += count if name in self._revoked else 0
        self._lifetime(kind, principal.get("issued_at"), principal.get("expires_at"))
        for token in entries_of(principal.get("tokens")):
            self._lifetime(str(token.get("class")), token.get("issued_at"), token.get("expires_at"))
            self.issuers.of(str(token.get("issuer"))).add(outcome, count)
        if principal.get("interactive") is True:
            self.human.add(outcome, count)
        if principal.get("actor") is not None:
            self.acting.add(outcome, count)
        if reason == "environment_mismatch":
            action = str(map_of(record.get("request")).get("action"))
            self.mismatches[str(principal.get("environment")), action] += count

    def _refused_as_revoked(self, time: str, count: int) -> None:
        self.refused_as_revoked += count
        if (seconds := between(self._revoked_at, time)) is not None:
            self.after_revocation.add(seconds * 1_000)
            self._revoked_at = None

    def _lifetime(self, kind: str, begins: object, ends: object) -> None:
        if (seconds := between(begins, ends)) is not None:
            self.lifetimes.setdefault(kind, Histogram()).add(seconds)

    def _policies(self, policies: Mapping[str, Any], outcome: str, reason: str, count: int) -> None:
        if isinstance(revision := policies.get("revision"), str):
            self.last_revision = revision
            if revision in self.revisions or len(self.revisions) < MAX_OPEN:
                self.revisions[revision] += count
        named = False
        for policy in entries_of(policies.get("determining")):
            place = policy.get("file") is not None and policy.get("line") is not None
            named = named or place
            used = self.permits if policy.get("effect") == "permit" and outcome == "allow" else self.forbids
            if len(used) < MAX_OPEN or str(policy.get("id")) in used:
                used[str(policy.get("id"))] += count
        if reason == "policy_denied":
            self.denied_by_policy += count
            self.named += count if named else 0

    def _signals(self, record: Mapping[str, Any], count: int) -> None:
        told = False
        for signal in entries_of(record.get("signals")):
            one = self.signals.of(str(signal.get("name")))
            one.read += count
            one.states[str(signal.get("state"))] += count
            one.assurances[str(signal.get("assurance"))] += count
            if isinstance(influence := signal.get("influence"), str):
                one.influences[influence] += count
                told = True
            one.overridden += count if isinstance(signal.get("override"), dict) else 0
            if isinstance(source := signal.get("source"), str):
                self.publishers.of(source).add(str(record.get("outcome")), count)
        self.influence_told += count if told else 0

    def _grant(self, record: Mapping[str, Any], outcome: str, count: int) -> None:
        grant, chain = map_of(record.get("grant")), map_of(record.get("chain"))
        time, action = str(record.get("time")), map_of(record.get("request")).get("action")
        if record.get("reason") == "grant_revoked":
            self.task_ends.met(str(grant.get("sha256")), time)
        if not isinstance(task := grant.get("task"), str):
            return
        self.under_grant.add(outcome, count)
        depth = number(chain.get("depth"), 0)
        self.depth = max(self.depth, depth)
        if depth:
            self.chained.add(outcome, count)
        systems = chain.get("systems")
        self.systems[len(systems) if isinstance(systems, list) else 0] += count
        if outcome == "allow":
            self._task(task, str(grant.get("type"))).used.add(str(action))

    def _task(self, task_id: str, kind: str) -> Task:
        found = self.tasks.get(task_id)
        if found is None:
            found = Task(kind)
            if len(self.tasks) < MAX_TASKS:
                self.tasks[task_id] = found
            else:
                self.tasks_left_out += 1
        return found

    # ------------------------------------------------------------ changes

    def _change(self, record: Mapping[str, Any]) -> None:
        change, time = str(record.get("change")), str(record.get("time"))
        self.changes[change] += 1
        if not record.get("actor") and change not in ACTORLESS:
            self.actorless += 1
        match change:
            case "configuration_loaded":
                self._loaded(record, time)
            case "server_started":
                self.unclean_starts += self._started and not self._stopped
                self._started, self._stopped = True, False
            case "server_stopped":
                self._stopped = True
            case "task_begun":
                self._task(str(record.get("task_id")), str(record.get("type")))
                self._lifetime("grant", time, record.get("expires_at"))
                self.task_ends.know(str(record.get("task_id")), str(record.get("grant_sha256")))
            case "task_ended":
                self.task_ends.ended(str(record.get("task_id")), time)
            case "revoked":
                self.revocations += 1
                self._revoked_at = time
                subject = map_of(record.get("revoked")).get("subject")
                if isinstance(subject, str) and len(self._revoked) < MAX_OPEN:
                    self._revoked.setdefault(subject, time)
            case "approval_answered":
                actor = str(record.get("actor"))
                yes = record.get("approved") is True
                self.answered["rule" if actor.startswith("rule:") else "person", yes] += 1
                if not actor.startswith("rule:"):
                    self.approvers.of(actor).add("allow" if yes else "deny", 1)
            case "signal_overridden":
                by = record.get("by")
                self.override_authors.update(str(who) for who in by) if isinstance(by, list) else None
            case "call_refused":
                self.refused_calls[str(record.get("reason"))] += 1
            case "records_lost":
                self.records_lost += number(record.get("count"), 0)
            case "log_repaired":
                self.bytes_cut += number(record.get("bytes_cut"), 0)

    def _loaded(self, record: Mapping[str, Any], time: str) -> None:
        words = entries_of(record.get("words"))
        widens = sum(word.get("direction") in WIDENING for word in words)
        actor = str(record.get("actor"))
        self.load_actors[actor] += 1
        self.widening_loads += widens > 0 and record.get("previous") is not None
        revision = str(record.get("revision"))
        self.loads.append(Load(time, actor, revision, widens, len(words)))
        del self.loads[:-MAX_LOADS]


ACTORLESS: Final = {
    "client_refused",
    "authority_changed",
    "standing_lost",
    "records_lost",
    "stream_suspended",
}
"""Changes that nobody caused, or whose cause has a key of its own."""


class Waits:
    """How long it took from an end to the first denial that it caused."""

    def __init__(self) -> None:
        self._open: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self.begun = 0
        self.met_after = Histogram()
        """Milliseconds."""

    def know(self, name: str, key: str) -> None:
        """What something is called when it ends, and by what it is known when it is denied."""
        if len(self._names) < MAX_TASKS:
            self._names[name] = key

    def ended(self, name: str, time: str) -> None:
        """What was known by another name has ended."""
        self.begin(self._names.pop(name, name), time)

    def begin(self, key: str, time: str) -> None:
        """An end."""
        self.begun += 1
        if len(self._open) < MAX_OPEN:
            self._open.setdefault(key, time)

    def met(self, key: str, time: str) -> None:
        """A denial, which counts where it is the first."""
        began = self._open.get(key)
        if began is not None and (seconds := between(began, time)) is not None:
            del self._open[key]
            self.met_after.add(seconds * 1_000)


def between(begins: object, ends: object) -> float | None:
    """Seconds between two times of records; None where there are not two, or they run backwards."""
    with contextlib.suppress(ValueError):
        if isinstance(begins, str) and isinstance(ends, str):
            seconds = (datetime.fromisoformat(ends) - datetime.fromisoformat(begins)).total_seconds()
            return seconds if seconds >= 0 else None
    return None
