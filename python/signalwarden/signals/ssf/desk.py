"""All streams of a server: what the admin API and metrics ask of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import orjson

from signalwarden.signals import Source
from signalwarden.signals.ssf.push import Answer, take_pushed
from signalwarden.signals.ssf.source import SsfSource
from signalwarden.signals.ssf.stream import Outcome

__all__ = ["Desk"]

REFUSED: Final = "refused_"


class Sources(Protocol):
    """`signals.feeds.Feeds`, as far as it is used here."""

    def source(self, feed: str) -> Source | None:
        """The source of a feed."""


class Desk:
    """Finds the stream of a feed, and says how all of them are."""

    def __init__(self, sources: Sources, feeds: Callable[[], bytes]) -> None:
        self._sources = sources
        self._feeds = feeds

    def push(self, feed: str, content_type: str | None, body: bytes) -> Answer:
        """A request of an authenticated transmitter."""
        found = self._find(feed)
        return take_pushed(None, content_type, body) if found is None else found.push(content_type, body)

    def resynchronise(self, feed: str, actor: str) -> bool:
        """False if there is no such stream. Raises StateError if it can't be kept."""
        found = self._find(feed)
        if found is None:
            return False
        found.stream.resynchronise(actor)
        return True

    def streams(self) -> bytes:
        """JSON of GET /v1/ssf."""
        return orjson.dumps({"streams": [self._described(entry) for entry in orjson.loads(self._feeds())]})

    def _described(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        found = self._find(entry["feed"])
        if found is None:
            return {**entry, "running": False}
        counts = found.stream.counts()
        status = found.status()
        return {
            **entry,
            "running": status.running,
            "delivery": found.delivery,
            "sets": {outcome.value: counts.get(outcome, 0) for outcome in Outcome},
            "refused": {
                word.removeprefix(REFUSED): n
                for word, n in sorted(counts.items())
                if word.startswith(REFUSED)
            },
            "keys_error": found.keys_error,
            "last_error": status.last_error or found.stream.last_error,
        }

    def numbers(self) -> dict[str, float]:
        """For metrics: `ssf_OUTCOME_FEED`, `ssf_refused_CODE`. How live a stream is stands in `tallies`."""
        numbers: Counter[str] = Counter()
        for entry in orjson.loads(self._feeds()):
            feed = entry["feed"]
            found = self._find(feed)
            counts = found.stream.counts() if found is not None else {}
            for outcome in Outcome:
                numbers[f"ssf_{outcome}_{feed}"] = counts.get(outcome, 0)
            for word, count in counts.items():
                if word.startswith(REFUSED):
                    numbers[f"ssf_{word}"] += count
        return dict(numbers)

    def _find(self, feed: str) -> SsfSource | None:
        found = self._sources.source(feed)
        return found if isinstance(found, SsfSource) else None
