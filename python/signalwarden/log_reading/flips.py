"""Decisions that end otherwise: every flip with what it was and what it is, and in groups by policy and signal."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from signalwarden.decision_log.parts import map_of
from signalwarden.errors import BadInputError
from signalwarden.log_reading.records import Reader
from signalwarden.log_reading.replaying import (
    Block,
    Change,
    Decider,
    Outcome,
    Tally,
    changes_json,
    each,
    outcome_of,
)
from signalwarden.log_reading.telling import entries_of, text_of

__all__ = ["Flip", "Flips", "Group", "again", "simulated"]

MAX_EXAMPLES: Final = 5
MAX_CALLERS: Final = 2_000
"""Pairs of principal and action that are told apart in one group: principals have no bound of their own."""
OTHERS: Final = ("others", "others")
MAX_KEPT: Final = 2_000
"""Flips that are held for a page; all of them are counted and printed."""

Described = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Flip:
    """One decision that ends otherwise."""

    record: dict[str, Any]
    was: Outcome
    now: Outcome
    policies: tuple[str, ...]
    """What makes it end so; of an answer that no policy permits, what had permitted it."""
    signals: tuple[str, ...]

    @property
    def direction(self) -> str:
        """`widens` or `narrows`."""
        return "widens" if self.now.lets_in else "narrows"

    def as_dict(self) -> dict[str, Any]:
        """One line of `--json`."""
        request, principal = map_of(self.record.get("request")), map_of(self.record.get("principal"))
        return {
            "decision_id": self.record.get("decision_id"),
            "time": self.record.get("time"),
            "direction": self.direction,
            "was": {"outcome": self.was.outcome, "reason": self.was.reason},
            "now": {"outcome": self.now.outcome, "reason": self.now.reason},
            "policies": list(self.policies),
            "signals": list(self.signals),
            "principal": principal.get("id"),
            "action": request.get("action"),
            "resource": request.get("resource"),
        }


@dataclass(slots=True)
class Group:
    """Flips of one direction by one policy and one signal."""

    direction: str
    policy: str
    signal: str
    count: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    callers: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By principal and action."""
    examples: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "direction": self.direction,
            "policy": self.policy,
            "signal": self.signal,
            "count": self.count,
            "reasons": dict(self.reasons.most_common()),
            "callers": [
                {"principal": principal, "action": action, "count": count}
                for (principal, action), count in self.callers.most_common(20)
            ],
            "examples": self.examples,
        }


@dataclass(slots=True)
class Flips:
    """All of a log."""

    tally: Tally = field(default_factory=Tally)
    count: int = 0
    by_direction: Counter[str] = field(default_factory=Counter)
    otherwise: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Decisions with another reason and the same outcome."""
    groups: dict[tuple[str, str, str], Group] = field(default_factory=dict)
    kept: list[Flip] = field(default_factory=list)

    def add(self, flip: Flip) -> None:
        """One more. It is in each group of its policies and signals, and counts once."""
        self.count += 1
        self.by_direction[flip.direction] += 1
        if len(self.kept) < MAX_KEPT:
            self.kept.append(flip)
        request, principal = map_of(flip.record.get("request")), map_of(flip.record.get("principal"))
        caller = text_of(principal.get("id")) or "-", text_of(request.get("action")) or "-"
        for policy in flip.policies or (f"before any policy: {flip.now.reason}",):
            for signal in flip.signals or ("-",):
                key = flip.direction, policy, signal
                group = self.groups.setdefault(key, Group(*key))
                group.count += 1
                group.reasons[f"{flip.was.reason} → {flip.now.reason}"] += 1
                known = caller in group.callers or len(group.callers) < MAX_CALLERS
                group.callers[caller if known else OTHERS] += 1
                if len(group.examples) < MAX_EXAMPLES:
                    group.examples.append(text_of(flip.record.get("decision_id")))

    def sorted_groups(self) -> list[Group]:
        """What widens first, then by how many."""
        return sorted(
            self.groups.values(), key=lambda g: (g.direction != "widens", -g.count, g.policy, g.signal)
        )

    def as_dict(self) -> dict[str, Any]:
        """The summary of `--json`."""
        return {
            "flips": self.count,
            **{word: self.by_direction[word] for word in ("widens", "narrows")},
            "other_reason": [
                {"was": was, "now": now, "count": count} for (was, now), count in self.otherwise.most_common()
            ],
            **self.tally.as_dict(),
            "groups": [group.as_dict() for group in self.sorted_groups()],
        }


def again(
    reader: Reader, replay: Decider, described: Described, want: Any = None, jobs: int | None = None
) -> tuple[Flips, Iterator[Flip]]:
    """Recorded decisions with another directory. The flips come as they are found; the sums are whole at their end."""

    def work(block: Block) -> list[tuple[bytes, bytes, bytes | None]]:
        return [
            (line, said, None)
            for line, said in zip(block.lines, _split(replay.decide(block.text)), strict=True)
        ]

    flips = Flips()
    return flips, _found(flips, each(reader, want, work, jobs), described, ())


def simulated(
    reader: Reader,
    replay: Decider,
    changes: Sequence[Change],
    described: Described,
    want: Any = None,
    jobs: int | None = None,
) -> tuple[Flips, Iterator[Flip]]:
    """Recorded decisions with other signals, each beside the same decision with the signals as they were: what another
    directory does to it is no part of it. Raises BadInputError for changes that can't be made."""
    told = changes_json(changes)
    try:
        replay.decide(b"", changes=told)
    except BadInputError as error:
        raise BadInputError(re.sub(r"^changes(\[\d+\])?: ", "", str(error))) from error

    def work(block: Block) -> list[tuple[bytes, bytes, bytes | None]]:
        before, after = _split(replay.decide(block.text)), _split(replay.decide(block.text, changes=told))
        return list(zip(block.lines, after, before, strict=True))

    flips = Flips()
    names = tuple(str(change["name"]) for change in changes)
    return flips, _found(flips, each(reader, want, work, jobs), described, names)


def _split(text: bytes) -> list[bytes]:
    return text.rstrip(b"\n").split(b"\n")


def _found(
    flips: Flips,
    worked: Iterator[list[tuple[bytes, bytes, bytes | None]]],
    described: Described,
    changed: tuple[str, ...],
) -> Iterator[Flip]:
    reads = {policy["id"]: policy["signals"] for policy in described.get("policies", [])}
    for answers in worked:
        for line, said, before in answers:
            both = outcome_of(said)
            base = both if before is None or both is None else outcome_of(before)
            if both is None or base is None:
                flips.tally.other(said if both is None else before or said)
                continue
            flips.tally.decided += 1
            # With a directory of its own to compare with, what was is what that one says now.
            was, now = (both[0] if before is None else base[1]), both[1]
            if was.lets_in == now.lets_in:
                if was.reason != now.reason:
                    flips.otherwise[was.reason, now.reason] += 1
                continue
            flip = _flip(orjson.loads(line), orjson.loads(said), was, now, reads, changed)
            flips.add(flip)
            yield flip


def _flip(
    record: dict[str, Any],
    said: dict[str, Any],
    was: Outcome,
    now: Outcome,
    reads: dict[str, list[str]],
    changed: tuple[str, ...],
) -> Flip:
    """Whose doing it is: the policies that determine the answer now, or else those that determined it then."""
    determining = entries_of(map_of(said.get("now")).get("determining"))
    determining = determining or entries_of(map_of(record.get("policies")).get("determining"))
    policies = tuple(dict.fromkeys(text_of(policy.get("id")) for policy in determining))
    mentioned = {signal.get("name") for signal in entries_of(record.get("signals"))}
    read = dict.fromkeys(name for policy in policies for name in reads.get(policy, []) if name in mentioned)
    if changed:
        read = dict.fromkeys(name for name in changed if name in read) or dict.fromkeys(changed)
    return Flip(record, was, now, policies, tuple(read))
