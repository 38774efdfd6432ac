"""How fast one publisher may publish, a bucket of values for each, refilled at a rate; and how many records are made of
what anyone can do."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from signalwarden.errors import RateLimitedError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Rates", "Sampled"]

MIN_BURST: Final = 1_000
"""One full call passes at any rate: it is the most that the core takes at once."""
MAX_BUCKETS: Final = 10_000
"""Publishers remembered at once. The longest unheard is forgotten first, and has had the longest to refill."""


class Rates:
    """Token buckets, in values or whatever `deed` says. Thread-safe."""

    def __init__(
        self,
        a_second: int,
        clock: Callable[[], float] = time.monotonic,
        *,
        deed: tuple[str, str] = ("publishes", "values"),
    ) -> None:
        self._deed = deed
        self._a_second = a_second
        self._burst = max(a_second, MIN_BURST)
        self._clock = clock
        self._mutex = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """What is left, and when that was so."""

    def take(self, publisher: str, values: int) -> None:
        """Takes so many values out, or raises RateLimitedError and takes none."""
        with self._mutex:
            now, left = self._left(publisher)
            missing = min(values, self._burst) - left
            if missing <= 0:
                self._put(publisher, left - values, now)
                return
        verb, things = self._deed
        wait_s = max(1, math.ceil(missing / self._a_second))
        raise RateLimitedError(
            f"`{publisher}` {verb} more than {self._a_second} {things} a second: try again in {wait_s} s",
            wait_s,
        )

    def correct(self, publisher: str, values: int) -> None:
        """Takes more out, or gives back if negative, once it is known how many values a call really had."""
        with self._mutex:
            now, left = self._left(publisher)
            self._put(publisher, left - values, now)

    def _left(self, publisher: str) -> tuple[float, float]:
        now = self._clock()
        left, then = self._buckets.get(publisher, (float(self._burst), now))
        return now, min(float(self._burst), left + (now - then) * self._a_second)

    def _put(self, publisher: str, left: float, now: float) -> None:
        self._buckets[publisher] = (left, now)
        self._buckets.move_to_end(publisher)
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)


class Sampled:
    """So many a second; `take` says how many were held back before this one, or None for one held back."""

    def __init__(self, a_second: int) -> None:
        self._a_second = a_second
        self._mutex = threading.Lock()
        self._second = -1
        self._taken = 0
        self._held = 0

    def take(self) -> int | None:
        """See above. Thread-safe."""
        with self._mutex:
            second = int(time.monotonic())
            if second != self._second:
                self._second, self._taken = second, 0
            if self._taken >= self._a_second:
                self._held += 1
                return None
            self._taken += 1
            held, self._held = self._held, 0
            return held
