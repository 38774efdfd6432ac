"""Counts of routes, signals, publishers and streams of events (`tallies`) as families of Prometheus.

Labels are bounded: only names of the directory in force are labels, and of routes, signals and publishers the first
`MAX_LABELLED` by name; what the others counted is summed under `_other`, which no name can be.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

if TYPE_CHECKING:
    from signalwarden.tallies import Tallies

__all__ = ["LABELLED", "MAX_LABELLED", "OTHER", "labelled"]

MAX_LABELLED: Final = 1_000
"""A signal has about 18 series: 18,000 for all of them, 1.2 MB and a quarter of a second a scrape. A register of 10,000
signals would need ten times that."""
OTHER: Final = "_other"
NONE: Final = "_none"
"""Stands for the route or action of a decision that did not get to one."""

# Family, labels, kind and help: docs/operations.md has a line for each.
STAGE_TIMES: Final = "decision_duration_seconds"
SIGNAL_AGE: Final = "signal_age_seconds"
LABELLED: Final = {
    SIGNAL_AGE: (("signal",), "histogram", "age of the values that decisions read, by signal"),
    "signal_states": (("signal", "state"), "counter", "reads of signals by decisions, by state"),
    "signal_rejected": (("signal", "reason"), "counter", "values of a signal that were refused, by reason"),
    "publisher_last_seen_timestamp_seconds": (
        ("publisher",),
        "gauge",
        "when a publisher last sent a batch, since 1970",
    ),
    "publisher_accepted": (("publisher",), "counter", "values of a publisher that were taken"),
    "publisher_rejected": (
        ("publisher", "reason"),
        "counter",
        "values of a publisher that were refused, by reason",
    ),
    "feed_verified_timestamp_seconds": (
        ("feed",),
        "gauge",
        "when a stream of events last vouched for itself, in seconds since 1970",
    ),
    "route_decisions": (
        ("route", "action", "outcome", "reason"),
        "counter",
        "decisions by route, action, outcome and reason, once their records were drained",
    ),
    STAGE_TIMES: (("stage",), "histogram", "how long the stages of decisions took in the core"),
    "feed_in_sync": (("feed",), "gauge", "1 while a stream of events has told all that happened"),
}
PREFIX: Final = "signalwarden_"


def labelled(tallies: Tallies) -> Iterator[Metric]:
    """Every family, with samples or without."""
    signals = _Labels(entry["name"] for entry in tallies.signals)
    publishers = _Labels(tallies.named)
    yield _ages(tallies.signals, signals)
    yield _counter("signal_states", _by(tallies.signals, "name", "states", signals))
    yield _counter("signal_rejected", _by(tallies.signals, "name", "rejected", signals))
    # One that has not sent anything yet is there with 0, so that its silence can be seen.
    seen: dict[tuple[str, ...], float] = {(publishers.of(name),): 0.0 for name in tallies.named}
    accepted: dict[tuple[str, ...], float] = dict(seen)
    for entry in tallies.publishers:
        label = (publishers.of(entry["publisher"]),)
        seen[label] = max(seen.get(label, 0.0), _seconds(entry.get("last_seen")))
        accepted[label] = accepted.get(label, 0) + entry.get("accepted", 0)
    yield _gauge("publisher_last_seen_timestamp_seconds", seen)
    yield _counter("publisher_accepted", accepted)
    yield _counter("publisher_rejected", _by(tallies.publishers, "publisher", "rejected", publishers))
    # Feeds are few: the core bounds them.
    verified: dict[tuple[str, ...], float] = {}
    in_sync: dict[tuple[str, ...], float] = {}
    for entry in tallies.feeds:
        verified[(entry["feed"],)] = _seconds(entry.get("verified_at"))
        in_sync[(entry["feed"],)] = float(bool(entry.get("in_sync")))
    yield _gauge("feed_verified_timestamp_seconds", verified)
    yield _gauge("feed_in_sync", in_sync)
    yield _counter("route_decisions", _by_route(tallies.routes))
    yield _stage_times(tallies.stages)


def _by_route(entries: Sequence[Mapping[str, Any]]) -> dict[tuple[str, ...], float]:
    labels = _Labels(entry["route"] for entry in entries if entry["route"])
    summed: dict[tuple[str, ...], float] = {}
    for entry in entries:
        route = labels.of(entry["route"]) if entry["route"] else NONE
        action = entry["action"] or NONE
        for reason, number in entry["reasons"].items():
            outcome = "allow" if reason == "allowed" else "deny"
            label = (route, OTHER if route == OTHER else action, outcome, reason)
            summed[label] = summed.get(label, 0) + number
    return summed


def _stage_times(entries: Iterable[Mapping[str, Any]]) -> Metric:
    names, _, text = LABELLED[STAGE_TIMES]
    family = HistogramMetricFamily(PREFIX + STAGE_TIMES, text, labels=names)
    for entry in entries:
        buckets = [(_bound(float(bound)), number) for bound, number in entry["buckets"]]
        family.add_metric(
            [entry["stage"]], buckets=[*buckets, ("+Inf", entry["count"])], sum_value=entry["sum"]
        )
    return family


class _Labels:
    """Which names are labels of their own."""

    def __init__(self, names: Iterable[str]) -> None:
        self._own = frozenset(sorted(set(names))[:MAX_LABELLED])

    def of(self, name: str) -> str:
        return name if name in self._own else OTHER


def _by(
    entries: Iterable[Mapping[str, Any]], key: str, counts: str, labels: _Labels
) -> dict[tuple[str, ...], float]:
    """Counts of each entry, by its name and theirs."""
    summed: dict[tuple[str, ...], float] = {}
    for entry in entries:
        for word, number in (entry.get(counts) or {}).items():
            label = (labels.of(entry[key]), word)
            summed[label] = summed.get(label, 0) + number
    return summed


def _ages(entries: Iterable[Mapping[str, Any]], labels: _Labels) -> Metric:
    names, _, text = LABELLED[SIGNAL_AGE]
    family = HistogramMetricFamily(PREFIX + SIGNAL_AGE, text, labels=names)
    buckets: dict[str, dict[float, float]] = {}
    sums: dict[str, float] = {}
    for entry in entries:
        label = labels.of(entry["name"])
        mine = buckets.setdefault(label, {})
        for bound, number in (*entry.get("age_buckets", ()), (float("inf"), entry.get("age_count", 0))):
            mine[float(bound)] = mine.get(float(bound), 0) + number
        sums[label] = sums.get(label, 0) + entry.get("age_sum", 0)
    for label, counted in sorted(buckets.items()):
        written = [(_bound(bound), number) for bound, number in sorted(counted.items())]
        family.add_metric([label], buckets=written, sum_value=sums[label])
    return family


def _bound(seconds: float) -> str:
    return "+Inf" if seconds == float("inf") else str(seconds)


def _counter(name: str, samples: Mapping[tuple[str, ...], float]) -> Metric:
    labels, _, text = LABELLED[name]
    family = CounterMetricFamily(PREFIX + name, text, labels=labels)
    for label, value in sorted(samples.items()):
        family.add_metric(label, value)
    return family


def _gauge(name: str, samples: Mapping[tuple[str, ...], float]) -> Metric:
    labels, _, text = LABELLED[name]
    family = GaugeMetricFamily(PREFIX + name, text, labels=labels)
    for label, value in sorted(samples.items()):
        family.add_metric(label, value)
    return family


def _seconds(time: str | None) -> float:
    """RFC 3339 as seconds since 1970; 0 for never."""
    return datetime.fromisoformat(time).timestamp() if time else 0.0
