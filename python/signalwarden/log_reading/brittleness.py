"""What hangs on each signal: allows that would be denied if its feed failed, by who and what, and signals that never
decided anything.

Each recorded decision is made again as it was, then with each signal lost that it read, and the two are compared. A
feed that alone brings several signals is lost as a whole, too.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from signalwarden.decision_log.parts import map_of
from signalwarden.errors import BadInputError
from signalwarden.log_reading.records import Reader
from signalwarden.log_reading.replaying import Block, Decider, Outcome, Tally, changes_json, each, outcome_of
from signalwarden.log_reading.telling import entries_of, text_of
from signalwarden.values import origin_of

__all__ = ["Brittleness", "Loss", "Scenario", "brittleness", "scenarios"]

MAX_CALLERS: Final = 2_000
"""Pairs of principal and action that are told apart of one loss."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is lost at once: one signal, or all that one feed alone brings."""

    name: str
    kind: str
    """`signal` or `feed`."""
    signals: tuple[str, ...]

    @property
    def changes(self) -> bytes:
        """As the core takes them."""
        return changes_json([{"name": name, "drop": True} for name in self.signals])


@dataclass(slots=True)
class Loss:
    """What a loss would have done."""

    scenario: Scenario
    read: int = 0
    """Decisions that read it and were made again."""
    allowed: int = 0
    denied: int = 0
    """Of these allows, how many the loss denies."""
    decided: int = 0
    """Decisions whose reason the loss changes, or that the log itself calls decisive."""
    opened: int = 0
    """Denials that the loss allows: only what the caller says of itself, or `when_unavailable: absent`, can do that."""
    reasons: Counter[str] = field(default_factory=Counter)
    callers: Counter[tuple[str, str]] = field(default_factory=Counter)
    allowed_of: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, other: Loss) -> None:
        """Takes another one in."""
        for name in ("read", "allowed", "denied", "decided", "opened"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.reasons.update(other.reasons)
        for mine, theirs in ((self.callers, other.callers), (self.allowed_of, other.allowed_of)):
            for key, count in theirs.items():
                mine[key if key in mine or len(mine) < MAX_CALLERS else ("others", "others")] += count

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "name": self.scenario.name,
            "kind": self.scenario.kind,
            "signals": list(self.scenario.signals),
            "read": self.read,
            "allows": self.allowed,
            "would_deny": self.denied,
            "would_allow": self.opened,
            "decisive": self.decided,
            "reasons": dict(self.reasons.most_common()),
            "callers": [
                {
                    "principal": principal,
                    "action": action,
                    "allows": self.allowed_of[principal, action],
                    "would_deny": count,
                }
                for (principal, action), count in self.callers.most_common()
            ],
        }


@dataclass(slots=True)
class Brittleness:
    """Of a log and a directory."""

    losses: list[Loss]
    steady: list[str]
    """Signals that can't fail: the directory itself says them."""
    unread: list[str] = field(default_factory=list)
    """Signals that no decision of the period read."""
    tally: Tally = field(default_factory=Tally)
    allowed: int = 0

    @property
    def never_decisive(self) -> list[str]:
        """Signals that were read and never changed an answer: candidates to be removed."""
        return [
            loss.scenario.name
            for loss in self.losses
            if loss.scenario.kind == "signal" and loss.read and not loss.decided
        ]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "allows": self.allowed,
            "losses": [loss.as_dict() for loss in self.losses],
            "never_decisive": self.never_decisive,
            "never_read": self.unread,
            "can_not_fail": self.steady,
            **self.tally.as_dict(),
        }


def scenarios(described: dict[str, Any], replay: Decider) -> tuple[list[Scenario], list[str]]:
    """Each signal of the register, and each origin that alone brings several; then those that can't be lost."""
    found: list[Scenario] = []
    steady: list[str] = []
    alone: dict[str, list[str]] = defaultdict(list)
    for contract in described["signals"]:
        scenario = Scenario(contract["name"], "signal", (contract["name"],))
        try:
            replay.decide(b"", changes=scenario.changes)
        except BadInputError:
            steady.append(contract["name"])
            continue
        found.append(scenario)
        origins = {origin_of(source) for source in contract["sources"]}
        if len(origins) == 1 and (origin := next(iter(origins))) is not None:
            alone[origin].append(contract["name"])
    found += [
        Scenario(origin, "feed", tuple(names)) for origin, names in sorted(alone.items()) if len(names) > 1
    ]
    return found, steady


def brittleness(
    reader: Reader, replay: Decider, described: dict[str, Any], want: Any = None, jobs: int | None = None
) -> Brittleness:
    """Reads a log once."""
    found, steady = scenarios(described, replay)
    whole = Brittleness([Loss(scenario) for scenario in found], steady)

    def work(block: Block) -> tuple[list[Loss], Tally, int]:
        return _of_block(block, replay, found)

    for losses, tally, allowed in each(reader, want, work, jobs):
        for mine, theirs in zip(whole.losses, losses, strict=True):
            mine.add(theirs)
        whole.tally.add(tally)
        whole.allowed += allowed
    whole.unread = [
        one.scenario.name for one in whole.losses if one.scenario.kind == "signal" and not one.read
    ]
    whole.losses.sort(
        key=lambda one: (one.scenario.kind != "signal", -one.denied, -one.read, one.scenario.name)
    )
    return whole


@dataclass(frozen=True, slots=True)
class _Base:
    """A decision as it is with nothing lost."""

    line: bytes
    now: Outcome
    caller: tuple[str, str]
    decisive: frozenset[str]
    """As the log says."""


def _of_block(block: Block, replay: Decider, found: Sequence[Scenario]) -> tuple[list[Loss], Tally, int]:
    tally, allowed = Tally(), 0
    reading: dict[str, list[_Base]] = defaultdict(list)
    for line, said in zip(block.lines, replay.decide(block.text).splitlines(), strict=True):
        both = outcome_of(said)
        if both is None:
            tally.other(said)
            continue
        tally.decided += 1
        record = orjson.loads(line)
        signals = entries_of(record.get("signals"))
        base = _Base(
            line,
            both[1],
            (
                text_of(map_of(record.get("principal")).get("id")) or "-",
                text_of(map_of(record.get("request")).get("action")) or "-",
            ),
            frozenset(text_of(s.get("name")) for s in signals if s.get("influence") == "decisive"),
        )
        allowed += base.now.lets_in
        for signal in signals:
            reading[text_of(signal.get("name"))].append(base)
    return [_lost(scenario, reading, replay) for scenario in found], tally, allowed


def _lost(scenario: Scenario, reading: dict[str, list[_Base]], replay: Decider) -> Loss:
    loss = Loss(scenario)
    bases = list({id(base): base for name in scenario.signals for base in reading.get(name, ())}.values())
    if not bases:
        return loss
    text = b"\n".join(base.line for base in bases) + b"\n"
    for base, said in zip(bases, replay.decide(text, changes=scenario.changes).splitlines(), strict=True):
        both = outcome_of(said)
        if both is None:
            continue
        now = both[1]
        loss.read += 1
        loss.decided += now.reason != base.now.reason or not base.decisive.isdisjoint(scenario.signals)
        if base.now.lets_in:
            loss.allowed += 1
            loss.allowed_of[base.caller] += 1
            if not now.lets_in:
                loss.denied += 1
                loss.reasons[now.reason] += 1
                loss.callers[base.caller] += 1
        elif now.lets_in:
            loss.opened += 1
    return loss
