"""What cases reached: of policies and their conditions whether each went both ways, of signals whether each was there
and was lost, and which routes and reasons came up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson

from signalwarden import _core
from signalwarden.decision_log.parts import map_of, policies_asked
from signalwarden.log_reading.telling import entries_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Coverage", "Gap", "Part"]

LOST: Final = ("stale", "missing", "disputed", "unverified", "future")
ALWAYS_THERE: Final = {"time", "route", "derived", "peer", "workflow"}
"""Kinds of sources that are never lost: what they say is worked out for each request."""
TRUE, FALSE = "true", "false"
WAYS: Final = {"certain": TRUE, "never": FALSE}
"""What a truth that is sure counts for; what may be so counts for neither way."""
SETTLED: Final = ("allowed", "no_policy_permits", "policy_denied")
"""Reasons under which every policy of the action is sure: what a record does not name did not apply."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that no case reached."""

    file: str
    line: int
    what: str

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {"file": self.file, "line": self.line, "what": self.what}


@dataclass(slots=True)
class Part:
    """Something that can go both ways, and what there is to reach of it."""

    name: str
    file: str
    line: int
    ways: tuple[str, ...]
    """Those that count."""
    words: Mapping[str, str]
    """What is said of each way that was not reached, and (`""`) where none was."""
    seen: Counter[str] = field(default_factory=Counter)
    in_play: int = 0

    @property
    def reached(self) -> int:
        """How many ways were gone."""
        return sum(self.seen[way] > 0 for way in self.ways)

    def gaps(self) -> Iterator[Gap]:
        """What is missing."""
        missing = [way for way in self.ways if not self.seen[way]]
        if len(missing) == len(self.ways) > 1:
            missing = [""]
        yield from (Gap(self.file, self.line, self.words[way]) for way in missing)

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "name": self.name,
            "file": self.file,
            "line": self.line,
            "in_play": self.in_play,
            "seen": {way: self.seen[way] for way in self.ways},
        }


class Coverage:
    """Counts over decisions."""

    def __init__(self, configuration: _core.Configuration, described: Mapping[str, Any]) -> None:
        parts = orjson.loads(_core.policy_parts(configuration))
        self._made = {policy["id"]: part for policy, part in zip(described["policies"], parts, strict=True)}
        self._effects = {policy["id"]: policy["effect"] for policy in described["policies"]}
        self.policies = {
            policy["id"]: _policy(policy, part)
            for policy, part in zip(described["policies"], parts, strict=True)
        }
        self.conditions = {
            policy["id"]: [_condition(policy, condition) for condition in part["conditions"]]
            for policy, part in zip(described["policies"], parts, strict=True)
        }
        self.signals = {
            contract["name"]: _signal(contract)
            for contract in described["signals"]
            if contract["influence"] != "observe" and contract["read_by"]
        }
        self.routes = {route["route"]: 0 for route in described["routes"]}
        self.reasons: Counter[str] = Counter()

    # ------------------------------------------------------------ counting

    def add(self, record: Mapping[str, Any], reach: Sequence[Mapping[str, Any]] | None) -> None:
        """One decision. `reach`: what the core says of its policies; None: its record alone tells."""
        self.reasons[str(record.get("reason"))] += 1
        request = map_of(record.get("request"))
        if (route := request.get("route")) in self.routes:
            self.routes[route] += 1
        for signal in entries_of(record.get("signals")):
            if part := self.signals.get(str(signal.get("name"))):
                part.in_play += 1
                part.seen["lost" if signal.get("state") in LOST else "fresh"] += 1
        if not policies_asked(record):
            return
        action = str(request.get("action"))
        told = self._told(record, action) if reach is None else reach
        judged = {str(one["id"]): one["truths"] for one in told}
        for policy, truths in judged.items():
            self._judged(policy, truths)
        for policy, part in self._made.items():
            if policy not in judged and part["scoped"] and action in part["actions"] and reach is not None:
                self.policies[policy].seen[FALSE] += 1

    def _told(self, record: Mapping[str, Any], action: str) -> list[dict[str, Any]]:
        """What a record alone says: the policies that it names apply; the others of their effect do not, where the
        reason leaves nothing open."""
        named = {str(one.get("id")) for one in entries_of(map_of(record.get("policies")).get("determining"))}
        reason = record.get("reason")
        told = []
        for policy, part in self._made.items():
            if action not in part["actions"]:
                continue
            if policy in named:
                told.append({"id": policy, "truths": ["certain"]})
            elif reason in SETTLED and (self._effects[policy] == "permit") == (reason != "policy_denied"):
                told.append({"id": policy, "truths": ["never"]})
        return told

    def _judged(self, policy: str, truths: Sequence[str]) -> None:
        part = self.policies.get(policy)
        if part is None or not truths:
            return
        part.in_play += 1
        if way := WAYS.get(truths[-1]):
            part.seen[way] += 1
        conditions = self.conditions[policy]
        if len(truths) != len(conditions):
            # The policy as a whole is all that is known: it tells of a lone condition, and of all if all hold.
            if way and (len(conditions) == 1 or way == TRUE):
                for condition in conditions:
                    condition.in_play += 1
                    condition.seen[way] += 1
            return
        before = "certain"
        for condition, truth in zip(conditions, truths, strict=True):
            if before != "certain":
                break
            condition.in_play += 1
            if way := WAYS.get(truth):
                condition.seen[way] += 1
            before = truth

    # ------------------------------------------------------------ sums

    @property
    def parts(self) -> Iterator[Part]:
        """Everything that counts."""
        yield from self.policies.values()
        for conditions in self.conditions.values():
            yield from conditions
        yield from self.signals.values()

    @property
    def percent(self) -> float:
        """Of all ways that there are to go. Nothing to reach is all of it."""
        return _percent([*self.parts])

    def gaps(self) -> list[Gap]:
        """What no case reached, by file and line. A policy that has one condition is told by it."""
        found = [gap for part in self.parts for gap in part.gaps()]
        return sorted(found, key=lambda gap: (gap.file, gap.line, gap.what))

    def sums(self) -> list[tuple[str, int, int, float]]:
        """Of each kind: its name, ways that were gone, ways that there are, percent."""
        kinds = {
            "policies": [*self.policies.values()],
            "conditions": [part for parts in self.conditions.values() for part in parts],
            "signals": [*self.signals.values()],
        }
        return [
            (
                name,
                sum(part.reached for part in parts),
                sum(len(part.ways) for part in parts),
                _percent(parts),
            )
            for name, parts in kinds.items()
        ]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "percent": round(self.percent, 2),
            **{
                name: {"reached": reached, "of": of, "percent": round(percent, 2)}
                for name, reached, of, percent in self.sums()
            },
            "gaps": [gap.as_dict() for gap in self.gaps()],
            "by_policy": [
                {**part.as_dict(), "conditions": [one.as_dict() for one in self.conditions[name]]}
                for name, part in self.policies.items()
            ],
            "by_signal": [part.as_dict() for part in self.signals.values()],
            "routes": self.routes,
            "reasons": dict(sorted(self.reasons.items())),
        }


def _percent(parts: Sequence[Part]) -> float:
    of = sum(len(part.ways) for part in parts)
    return 100.0 if of == 0 else 100.0 * sum(part.reached for part in parts) / of


def _policy(policy: Mapping[str, Any], part: Mapping[str, Any]) -> Part:
    """One that asks for nothing but its action applies always: then there is no other way to go."""
    both = part["scoped"] or part["conditions"] or policy.get("engine", "cedar") != "cedar"
    told = f"{policy['effect']} `{policy['id']}`"
    words = {
        "": f"{told} was never seen to apply or not to apply",
        TRUE: f"{told} never applied",
        FALSE: f"{told} applied whenever it was asked",
    }
    return Part(policy["id"], policy["file"], policy["line"], (TRUE, FALSE) if both else (TRUE,), words)


def _condition(policy: Mapping[str, Any], condition: Mapping[str, Any]) -> Part:
    """`unless` holds where what is behind it does not."""
    word = condition["word"]
    held, not_held = ("false", "true") if word == "unless" else ("true", "false")
    told = f"`{word}` of `{policy['id']}`"
    words = {
        "": f"{told} was never true or false for sure",
        TRUE: f"{told} was never {held}",
        FALSE: f"{told} was never {not_held}",
    }
    return Part(word, policy["file"], condition["line"], (TRUE, FALSE), words)


def _signal(contract: Mapping[str, Any]) -> Part:
    name = contract["name"]
    words = {
        "": f"the signal `{name}` was never read",
        "fresh": f"the signal `{name}` was never there",
        "lost": f"the signal `{name}` was never missing or stale",
    }
    kinds = {source["kind"] for source in contract["sources"]}
    ways = ("fresh",) if kinds <= ALWAYS_THERE else ("fresh", "lost")
    return Part(name, "signals.yaml", contract["line"], ways, words)
