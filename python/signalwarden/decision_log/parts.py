"""What stands in a record that was read, for every reader: a record is outside input, so whatever is not what it should
be counts as nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Period", "map_of", "number", "policies_asked", "result_of", "stands_for"]


def map_of(value: object) -> dict[str, Any]:
    """A map, or an empty one for whatever else stands there."""
    return value if isinstance(value, dict) else {}


def number(value: object, otherwise: int) -> int:
    """A whole number, or what counts in place of anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise


def stands_for(decision: Mapping[str, Any]) -> int:
    """How many decisions a record tells of: alike denials can be folded into one."""
    return max(1, number(map_of(decision.get("folded")).get("count"), 1))


def result_of(decision: Mapping[str, Any]) -> str:
    """`allow`, `deny`, or `pass`: a denial that was let pass."""
    return "pass" if decision.get("enforced") is False else str(decision.get("outcome"))


def policies_asked(decision: Mapping[str, Any]) -> bool:
    """Whether any policy was evaluated. Records of older versions name an engine only where one was asked; later ones
    name it always, and say where it was not."""
    policies = map_of(decision.get("policies"))
    return "engine" in policies and policies.get("asked") is not False


class Period:
    """From the first to the last time of the records that it was told of."""

    def __init__(self) -> None:
        self.first: str | None = None
        self.last: str | None = None

    def add(self, time: object) -> None:
        """As records write it; anything else is passed over."""
        if isinstance(time, str):
            self.first = time if self.first is None else min(self.first, time)
            self.last = time if self.last is None else max(self.last, time)
