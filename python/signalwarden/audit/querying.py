"""What all queries have: a list of them by name, and how counts become figures and rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from signalwarden.audit.evidence import Evidence, Value
from signalwarden.audit.gathered import Gathered, Waits
from signalwarden.audit.ground import Ground
from signalwarden.log_reading.sums import Histogram, Use

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Query = Callable[[Ground, Gathered], Evidence]
    Asked = TypeVar("Asked", bound=Query)

__all__ = [
    "QUERIES",
    "USES",
    "by_reason",
    "query",
    "reasons",
    "revoked",
    "seconds",
    "share",
    "use_rows",
    "waited",
]

QUERIES: Final[dict[str, Query]] = {}
"""By name. The modules `queries_access` and `queries_rules` fill it."""


def query(function: Asked) -> Asked:
    """Lists a query under its name."""
    QUERIES[function.__name__] = function
    return function


def reasons(gathered: Gathered, *names: str) -> int:
    """How many decisions had one of these reasons."""
    return sum(gathered.reasons[name] for name in names)


def share(part: int, whole: int) -> str:
    """In percent of what there was; a dash for nothing."""
    return f"{100 * part / whole:.1f} % of {whole:,}" if whole else "-"


def use_rows(uses: Iterable[tuple[str, Use]]) -> list[tuple[Value, ...]]:
    """Rows of name, allowed, denied and all."""
    return [(name, use.allow, use.deny + use.let_pass, use.count) for name, use in uses]


USES: Final = ("allowed", "denied", "all")


def by_reason(evidence: Evidence, gathered: Gathered, label: str, *names: str) -> Evidence:
    """A table of those of these reasons that were given."""
    found = sorted((-gathered.reasons[name], name) for name in names if gathered.reasons[name])
    return evidence.table(label, ("reason", "decisions"), [(name, -count) for count, name in found])


def waited(evidence: Evidence, waits: Waits, label: str, what: str) -> None:
    """Figures of the time from an end to the first denial by it."""
    evidence.figure(label, waits.begun)
    if waits.met_after.count:
        evidence.figure("of these met by a call that was denied for it", waits.met_after.count)
    spans(evidence, waits.met_after, what)


def spans(evidence: Evidence, histogram: Histogram, what: str) -> None:
    """Two figures of a span, where there is any."""
    if histogram.count:
        for name, portion in (("half of them within", 0.5), ("99 % within", 0.99)):
            evidence.figure(f"{what}, {name}, ms", round(histogram.percentile(portion) or 0, 1))


def seconds(value: float | None) -> str:
    """A span for people."""
    if value is None:
        return "-"
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if value >= 2 * size:
            return f"{value / size:.1f} {unit}"
    return f"{value:.0f} s"


def revoked(evidence: Evidence, gathered: Gathered) -> None:
    """Figures of revocations, and of what came after them."""
    evidence.figure("revocations", gathered.revocations)
    evidence.figure("calls refused as revoked", gathered.refused_as_revoked)
    evidence.figure("allows of a revoked subject, by what it was given later", gathered.allowed_again)
    spans(evidence, gathered.after_revocation, "from a revocation to the next call refused as revoked")
