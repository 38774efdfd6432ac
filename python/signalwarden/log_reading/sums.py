"""Sums over any number of records in bounded memory: decisions by how they ended, spans in a histogram, the most
frequent keys, counts over time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeVar

__all__ = ["Histogram", "Timeline", "Top", "Use"]

STEPS: Final = 16
"""Buckets of one doubling: a percentile is within 2.2 % of the true one."""
MAX_KEYS: Final = 4_096
"""Keys that are told apart: principals have no bound of their own."""
MAX_BUCKETS: Final = 120

Sum = TypeVar("Sum")


@dataclass(slots=True)
class Use:
    """Of one key: how often, and how it was decided."""

    allow: int = 0
    deny: int = 0
    let_pass: int = 0

    def add(self, outcome: str, count: int) -> None:
        """So many decisions of one outcome: `allow`, `deny` or `pass`."""
        if outcome == "allow":
            self.allow += count
        elif outcome == "pass":
            self.let_pass += count
        else:
            self.deny += count

    @property
    def count(self) -> int:
        """All of them."""
        return self.allow + self.deny + self.let_pass


class Histogram:
    """How often a number was about so large."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self.count = 0
        self.largest = 0.0

    @staticmethod
    def bucket(value: float) -> int:
        """Where a number goes; below a tenth is a tenth."""
        return math.floor(math.log2(max(value, 0.1)) * STEPS)

    def add(self, value: float, bucket: int | None = None) -> None:
        """One more; its bucket, if that is known."""
        self._buckets[self.bucket(value) if bucket is None else bucket] += 1
        self.count += 1
        if value > self.largest:
            self.largest = value

    def percentile(self, share: float) -> float | None:
        """The middle of the bucket within which the share ends; None for nothing."""
        left = math.ceil(self.count * share)
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left <= 0:
                return min(2 ** ((bucket + 0.5) / STEPS), self.largest)
        return None

    def as_dict(self) -> dict[str, float | None]:
        """`p50` … `max`."""
        shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
        told = {name: self.percentile(share) for name, share in shares.items()}
        rounded = {name: value if value is None else round(value, 1) for name, value in told.items()}
        return {**rounded, "max": round(self.largest, 1) if self.count else None}


class Top(Generic[Sum]):
    """A sum for each key, of the most frequent ones: all of them, as long as they are few. `missed` is the most that a
    key which came late, or went and came again, can lack."""

    def __init__(self, make: Callable[[], Sum], most: int = MAX_KEYS) -> None:
        self._make, self._most = make, most
        self._sums: dict[str, Sum] = {}
        self._counts: Counter[str] = Counter()
        self.missed = 0

    def of(self, key: str) -> Sum:
        """The sum of a key, to be added to. Each call counts."""
        self._counts[key] += 1
        found = self._sums.get(key)
        if found is None:
            if len(self._sums) >= 2 * self._most:
                self._forget()
            found = self._sums[key] = self._make()
        return found

    def _forget(self) -> None:
        kept = self._counts.most_common()
        self.missed = max(self.missed, kept[self._most][1])
        self._counts = Counter(dict(kept[: self._most]))
        self._sums = {key: self._sums[key] for key in self._counts if key in self._sums}

    def __len__(self) -> int:
        return len(self._sums)

    def most_common(self, count: int | None = None) -> list[tuple[str, Sum]]:
        """By how often, then by name."""
        order = sorted(self._sums, key=lambda key: (-self._counts[key], key))
        return [(key, self._sums[key]) for key in order[:count]]


class Timeline:
    """Counts over time in at most 120 buckets, however long the time is."""

    def __init__(self) -> None:
        self._buckets: dict[int, Counter[str]] = {}
        self._first = self._last = 0
        self.width = 1
        """Seconds of a bucket."""

    def add(self, when: datetime, what: str, count: int = 1) -> None:
        """So many more."""
        at = int(when.timestamp()) // self.width
        bucket = self._buckets.get(at)
        if bucket is None:
            self._first = min(self._first, at) if self._buckets else at
            self._last = max(self._last, at) if self._buckets else at
            bucket = self._buckets[at] = Counter()
        bucket[what] += count
        while self._last - self._first >= MAX_BUCKETS:
            self._double()

    def _double(self) -> None:
        self.width *= 2
        halved: dict[int, Counter[str]] = {}
        for at, counts in self._buckets.items():
            halved.setdefault(at // 2, Counter()).update(counts)
        self._buckets = halved
        self._first, self._last = self._first // 2, self._last // 2

    def series(self, what: str) -> list[int]:
        """Counts of each bucket, from the first to the last."""
        if not self._buckets:
            return []
        return [self._buckets.get(at, Counter())[what] for at in range(self._first, self._last + 1)]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`: the begin of the first bucket, their width, and a series of each word."""
        words = sorted({word for counts in self._buckets.values() for word in counts})
        first = self._first * self.width
        return {
            "from": datetime.fromtimestamp(first, UTC).isoformat().replace("+00:00", "Z") if words else None,
            "width_s": self.width,
            **{word: self.series(word) for word in words},
        }
