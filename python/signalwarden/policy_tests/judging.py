"""Holds what came of a case against what it expects: each difference with both sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from signalwarden.decision_log.parts import map_of
from signalwarden.log_reading.telling import entries_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from signalwarden.policy_tests.model import Expected, WithoutCheck

__all__ = ["Mismatch", "mismatches", "never_wider"]


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One thing that is other than expected."""

    what: str
    expected: str
    actual: str

    def as_dict(self) -> dict[str, str]:
        """For `--json`."""
        return {"what": self.what, "expected": self.expected, "actual": self.actual}


def mismatches(expected: Expected, record: Mapping[str, Any]) -> list[Mismatch]:
    """In the order in which a reader wants them."""
    found: list[Mismatch] = []

    def hold(what: str, wanted: object, actual: object) -> None:
        if wanted is not None and wanted != actual:
            found.append(Mismatch(what, _shown(wanted), _shown(actual)))

    hold("outcome", expected.outcome, record.get("outcome"))
    hold("reason", expected.reason, record.get("reason"))
    hold("http_status", expected.http_status, record.get("http_status"))
    hold("enforced", expected.enforced, record.get("enforced", True))
    hold("determining", expected.determining, _determining(record))
    hold("decisive", expected.decisive, _with_influence(record, "decisive"))
    hold("refused", expected.refused, _with_influence(record, "refused"))
    states = {
        str(signal.get("name")): str(signal.get("state")) for signal in entries_of(record.get("signals"))
    }
    for name, state in expected.states.items():
        hold(f"signal {name}", state, states.get(name, "not read"))
    return found


def never_wider(check: WithoutCheck, record: Mapping[str, Any], whole: Mapping[str, Any]) -> list[Mismatch]:
    """What losing signals came to, against the record of the case that has them."""
    found: list[Mismatch] = []
    if whole.get("outcome") == "deny" and record.get("outcome") == "allow":
        lost = " and ".join(check.signals)
        found.append(
            Mismatch(
                "never wider",
                f"deny, as `{check.whole.name}` is ({whole.get('reason')})",
                f"allow: losing {lost} opens it",
            )
        )
    if check.reason is not None and check.reason != record.get("reason"):
        found.append(Mismatch("reason", check.reason, str(record.get("reason"))))
    return found


def _determining(record: Mapping[str, Any]) -> frozenset[str]:
    policies = map_of(record.get("policies"))
    return frozenset(str(policy.get("id")) for policy in entries_of(policies.get("determining")))


def _with_influence(record: Mapping[str, Any], influence: str) -> frozenset[str]:
    signals = entries_of(record.get("signals"))
    return frozenset(str(one.get("name")) for one in signals if one.get("influence") == influence)


def _shown(value: object) -> str:
    match value:
        case frozenset():
            return ", ".join(sorted(map(str, value))) or "none"
        case bool():
            return "true" if value else "false"
        case _:
            return str(value)
