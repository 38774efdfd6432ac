"""Compares two result files, figure by figure, and says what is noise.

    python bench/compare.py BEFORE.json AFTER.json

The rule. A figure is the median of its rounds. Both sides' rounds are drawn again with replacement, RESAMPLES times;
the differences of the medians so drawn, less the 2.5 % at either end, are the interval. A difference is *real* if the
interval has not zero in it and the medians differ by more than LEAST of the first. Otherwise it is *noise*. Fewer than
FEWEST rounds on a side can't be judged: *too few rounds*. Machines that differ are said first: then only ratios
mean something.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

sys.path.insert(
    0, str(Path(__file__).resolve().parent.parent)
)  # run as a script, `bench` is not found otherwise

from rich.table import Table

from bench import results
from bench.stage import BenchError
from signalwarden.terminal import console

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.results import Figure

__all__ = ["FEWEST", "LEAST", "Compared", "compare", "differences"]

ERROR: Final = 2
RESAMPLES: Final = 2_000
SEED: Final = 20261129
"""The same two files give the same verdicts."""
TAIL: Final = 0.025
LEAST: Final = 0.03
"""Below three in a hundred a difference is of no use to anybody, and within a tick of the clock for short rounds."""
FEWEST: Final = 3
NOISE, BETTER, WORSE, FEW = "noise", "better", "worse", "too few rounds"


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure of two files."""

    name: str
    unit: str
    before: float
    after: float
    change: float | None
    """As a share of the first; None where that is zero."""
    verdict: str


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Says which figures of two result files differ beyond noise."
    )
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    arguments = parser.parse_args()
    try:
        before, after = results.read(arguments.before), results.read(arguments.after)
        compared = compare(before, after)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return ERROR
    if arguments.json:
        print(json.dumps([asdict(each) for each in compared], indent=1))
    else:
        _show(before, after, compared)
    return 0


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Compared]:
    """Every figure that both have."""
    if before["kind"] != after["kind"]:
        raise BenchError(f"a result of `{before['kind']}` is not comparable with one of `{after['kind']}`")
    old, new = results.figures(before), results.figures(after)
    return [_judged(name, old[name], new[name]) for name in old if name in new]


def _judged(name: str, old: Figure, new: Figure) -> Compared:
    change = (new.median - old.median) / old.median if old.median else None
    return Compared(name, old.unit, old.median, new.median, change, _verdict(old, new))


def _verdict(old: Figure, new: Figure) -> str:
    if min(len(old.values), len(new.values)) < FEWEST:
        return FEW
    low, high = interval(old.values, new.values)
    difference = new.median - old.median
    if low <= 0 <= high or abs(difference) <= LEAST * abs(old.median):
        return NOISE
    return BETTER if (difference < 0) == old.lower_is_better else WORSE


def interval(old: Sequence[float], new: Sequence[float]) -> tuple[float, float]:
    """Where 95 % of the differences of medians lie that could as well have been drawn from these rounds."""
    drawn = random.Random(SEED)
    differences = sorted(
        statistics.median(drawn.choices(new, k=len(new))) - statistics.median(drawn.choices(old, k=len(old)))
        for _ in range(RESAMPLES)
    )
    cut = round(RESAMPLES * TAIL)
    return differences[cut], differences[-cut - 1]


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """What is not the same about the machines and the settings: a sentence each."""
    for what in ("cpu", "cores", "usable_cores", "kernel", "placement", "python"):
        old, new = before["machine"].get(what), after["machine"].get(what)
        if old != new:
            yield f"the machines differ: {what} was {old}, is {new}"
    for what in sorted({*before["settings"], *after["settings"]}):
        old, new = before["settings"].get(what), after["settings"].get(what)
        if old != new:
            yield f"the settings differ: {what} was {old}, is {new}"
    for made, when in ((before, "first"), (after, "second")):
        load, cores = made["machine"]["load_average"][0], made["machine"]["cores"] or 1
        if load > cores / 2:
            yield f"the {when} was taken beside other work (load average {load}): expect noise"


def _show(before: Mapping[str, Any], after: Mapping[str, Any], compared: Sequence[Compared]) -> None:
    out = console()
    out.print(f"{before['taken']} ({before['commit']}) and {after['taken']} ({after['commit']})")
    for sentence in differences(before, after):
        out.print(sentence)
    table = Table("figure", "before", "after", "change", "verdict", box=None)
    for each in compared:
        change = "" if each.change is None else f"{each.change:+.1%}"
        values = (f"{value:,.2f} {each.unit}".strip() for value in (each.before, each.after))
        table.add_row(each.name, *values, change, each.verdict)
    out.print(table)
    counts = {verdict: sum(e.verdict == verdict for e in compared) for verdict in (BETTER, WORSE, NOISE, FEW)}
    out.print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))


if __name__ == "__main__":
    sys.exit(main())
