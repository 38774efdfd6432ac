"""What many records tell together: outcomes, reasons, who and what most, latency by stage, signals.

One pass, in memory that does not grow with the log.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from signalwarden.decision_log.parts import Period, map_of, number, result_of, stands_for
from signalwarden.log_reading.sums import Histogram, Timeline, Top, Use
from signalwarden.log_reading.telling import entries_of

__all__ = ["By", "Stats", "Sum"]

STAGES: Final = ("decode", "evaluate", "encode", "total")
TOP: Final = 10


class By(StrEnum):
    """What decisions can be told apart by."""

    PRINCIPAL = "principal"
    ACTION = "action"
    ROUTE = "route"
    REASON = "reason"
    SIGNAL = "signal"


class Sum(Use):
    """Of the decisions of one key."""

    __slots__ = ("influences", "states", "total")

    def __init__(self) -> None:
        super().__init__()
        self.total = Histogram()
        self.states: Counter[str] = Counter()
        self.influences: Counter[str] = Counter()

    def add(self, outcome: str, count: int, total: float | None = None, bucket: int | None = None) -> None:
        """So many decisions of one outcome; how long the first took, and the bucket of that."""
        super().add(outcome, count)
        if total is not None:
            self.total.add(total, bucket)

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        told: dict[str, Any] = {
            "count": self.count,
            "allow": self.allow,
            "deny": self.deny,
            "let_pass": self.let_pass,
        }
        if self.total.count:
            told["total_us"] = self.total.as_dict()
        if self.states:
            told |= {"states": dict(self.states), "influences": dict(self.influences)}
        return told


class Stats:
    """Takes records, then tells."""

    def __init__(self, by: By | None = None, top: int = TOP) -> None:
        self.by, self.top = by, top
        self.shown = [by] if by else [By.PRINCIPAL, By.ACTION, By.SIGNAL]
        self.all = Sum()
        self.reasons: Counter[str] = Counter()
        self.changes: Counter[str] = Counter()
        self.transports: Counter[str] = Counter()
        self.stages = {stage: Histogram() for stage in STAGES}
        self.timeline = Timeline()
        self.without_record = 0
        """Decisions that were `log_unavailable`, as the next record tells."""
        self.folded = 0
        """Repeated denials that are counted in the record of the first."""
        self.recovered = 0
        self.period = Period()
        self.tops = {one: Top(Sum) for one in By}

    def add(self, record: dict[str, Any]) -> None:
        """One more."""
        self.period.add(record.get("time"))
        match record["kind"]:
            case "decision":
                self._decision(record)
            case "change":
                self.changes[str(record.get("change"))] += 1
            case "transport":
                self.transports[str(record.get("transport"))] += number(record.get("count"), 1)

    def _decision(self, record: dict[str, Any]) -> None:
        count, outcome = stands_for(record), result_of(record)
        timing = map_of(record.get("timing_us"))
        self.folded += count - 1
        self.without_record += number(record.get("refused_before"), 0)
        self.recovered += record.get("recovered") is True
        self.reasons[str(record.get("reason"))] += count
        for stage, histogram in self.stages.items():
            if isinstance(spent := timing.get(stage), int | float):
                histogram.add(spent)
        total = timing.get("total")
        took = (total, Histogram.bucket(total)) if isinstance(total, int | float) else (None, None)
        self.all.add(outcome, count, *took)
        with contextlib.suppress(ValueError):
            self.timeline.add(datetime.fromisoformat(str(record.get("time"))), outcome, count)
        for by in self.shown:
            if by is By.SIGNAL:
                continue
            self.tops[by].of(_key(by, record)).add(outcome, count, *took)
        if By.SIGNAL in self.shown:
            self._signals(record, outcome, count)

    def _signals(self, record: dict[str, Any], outcome: str, count: int) -> None:
        for signal in entries_of(record.get("signals")):
            one = self.tops[By.SIGNAL].of(str(signal.get("name")))
            one.add(outcome, count)
            one.states[str(signal.get("state"))] += count
            if influence := signal.get("influence"):
                one.influences[str(influence)] += count

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "from": self.period.first,
            "to": self.period.last,
            "decisions": self.all.as_dict(),
            "reasons": dict(self.reasons.most_common()),
            "latency_us": {stage: histogram.as_dict() for stage, histogram in self.stages.items()},
            "timeline": self.timeline.as_dict(),
            "folded": self.folded,
            "without_record": self.without_record,
            "recovered": self.recovered,
            "changes": dict(self.changes.most_common()),
            "transport": dict(self.transports.most_common()),
            "by": {
                one.value: {
                    "keys": len(self.tops[one]),
                    "missed_at_most": self.tops[one].missed,
                    "top": {key: value.as_dict() for key, value in self.tops[one].most_common(self.top)},
                }
                for one in self.shown
            },
        }


def _key(by: By, record: dict[str, Any]) -> str:
    if by is By.REASON:
        found = record.get("reason")
    elif by is By.PRINCIPAL:
        found = map_of(record.get("principal")).get("id")
    else:
        found = map_of(record.get("request")).get(by.value)
    return str(found) if found else "-"
