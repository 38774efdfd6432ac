"""Runs cases one after the other, and says of each whether it is as expected."""

from __future__ import annotations

import fnmatch
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from signalwarden.policy_tests.judging import Mismatch, mismatches, never_wider
from signalwarden.policy_tests.stage import Played, SetUpError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from signalwarden.policy_tests.coverage import Coverage
    from signalwarden.policy_tests.model import Case, WithoutCheck
    from signalwarden.policy_tests.stage import Stage

__all__ = ["Result", "Results", "chosen", "run"]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one case."""

    case: Case
    seconds: float
    mismatches: tuple[Mismatch, ...] = ()
    error: str | None = None
    """Why it could not be played."""
    played: Played | None = None
    """Kept where it failed: it is explained from its record."""

    @property
    def status(self) -> str:
        """`passed`, `failed` or `error`."""
        return "error" if self.error is not None else "failed" if self.mismatches else "passed"

    @property
    def is_good(self) -> bool:
        """Whether all is as expected."""
        return self.status == "passed"


@dataclass(slots=True)
class Results:
    """What came of a run."""

    all: list[Result] = field(default_factory=list)
    left_out: int = 0
    """Cases that were not run, after a failure."""
    seconds: float = 0.0

    def count(self, status: str) -> int:
        """How many ended so."""
        return sum(result.status == status for result in self.all)

    @property
    def bad(self) -> list[Result]:
        """Those that failed, and those that could not be played."""
        return [result for result in self.all if not result.is_good]


def chosen(cases: Sequence[Case], filters: Sequence[str]) -> list[Case]:
    """Those of which a part of `FILE::NAME` matches each filter: a text, in which `*` and `?` match anything.
    Capitals and small letters are one."""
    patterns = [f"*{text.casefold().replace('[', '[[]')}*" for text in filters]
    return [
        case
        for case in cases
        if all(fnmatch.fnmatchcase(case.id.casefold(), pattern) for pattern in patterns)
    ]


def run(
    stage: Stage,
    cases: Sequence[Case],
    *,
    coverage: Coverage | None = None,
    fail_fast: bool = False,
    told: Callable[[Result], None] = lambda _: None,
) -> Results:
    """Runs them in their order. `told` hears of each as it ends."""
    results, begun = Results(), time.monotonic()
    wholes: dict[str, dict[str, Any]] = {}
    for at, case in enumerate(cases):
        result = _one(stage, case, wholes, coverage)
        results.all.append(result)
        told(result)
        if fail_fast and not result.is_good:
            results.left_out = len(cases) - at - 1
            break
    results.seconds = time.monotonic() - begun
    return results


def _one(stage: Stage, case: Case, wholes: dict[str, dict[str, Any]], coverage: Coverage | None) -> Result:
    begun = time.monotonic()
    try:
        played = stage.play(case)
        found = [*(mismatches(case.expect, played.record) if case.expect is not None else [])]
        if case.without is not None:
            found += never_wider(case.without, played.record, _whole(stage, case.without, wholes))
    except SetUpError as error:
        return Result(case, time.monotonic() - begun, error=str(error))
    if case.without is None:
        wholes[case.id] = {key: played.record.get(key) for key in ("outcome", "reason")}
    if coverage is not None:
        for record, reach in _decisions(played):
            coverage.add(record, reach)
    kept = played if found else None
    return Result(case, time.monotonic() - begun, tuple(found), played=kept)


def _whole(stage: Stage, check: WithoutCheck, wholes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The record of the case that this one is made of; played where a filter left that out."""
    known = wholes.get(check.whole.id)
    return stage.play(check.whole).record if known is None else known


def _decisions(played: Played) -> Iterator[tuple[dict[str, Any], tuple[dict[str, Any], ...] | None]]:
    """The decision, and those on the way there."""
    yield from played.other_reach
    yield from ((record, None) for record in played.others)
    yield played.record, played.reach
