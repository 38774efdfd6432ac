"""The feeds of the register: a source for each, started, stopped and exchanged as the register changes.

A feed that fails is said in readiness and metrics, and nothing else happens: it never stops a start, a reload or the
server, and what it no longer brings grows stale in the core.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from signalwarden.decision_log import rfc3339
from signalwarden.errors import FeedError, SignalwardenError
from signalwarden.signals import Feed, Kind, Preparing, Seams, Source, Status
from signalwarden.signals.poll import POLL
from signalwarden.signals.ssf import SSF

__all__ = ["KINDS", "MAX_FEEDS", "Feeds", "described_feeds"]

_log = logging.getLogger("signalwarden.signals")

MAX_FEEDS: Final = 64
"""Each has a thread of its own; a register names a handful."""

KINDS: Final[tuple[Kind, ...]] = (POLL, SSF)
"""One file for each."""


@dataclass(frozen=True, slots=True)
class _Running:
    """A source and what it was made from."""

    kind: str
    settings: Any
    source: Source


@dataclass(frozen=True, slots=True)
class _Refused:
    """A feed that has no source, and why."""

    why: str


class Feeds:
    """The sources that run. Call `adopt` and `stop` without a lock that publishing takes: they wait for a batch that
    is being carried."""

    def __init__(self, seams: Seams, kinds: Sequence[Kind] = KINDS) -> None:
        self._seams = seams
        self._kinds = {kind.word: kind for kind in kinds}
        self._mutex = threading.Lock()
        """One change of the feeds at a time."""
        self._feeds: dict[str, _Running | _Refused] = {}
        self._ended = False

    def adopt(self, described: Mapping[str, Any]) -> None:
        """Brings what runs in line with `Configuration.describe()`. Unchanged feeds go on undisturbed. Never raises
        for what a feed is or does."""
        wanted = described_feeds(described)
        with self._mutex:
            if self._ended:
                return
            read = {feed.name: self._read(feed, at) for at, feed in enumerate(wanted)}
            kept = {
                name: running
                for name, running in self._feeds.items()
                if isinstance(running, _Running) and _same(running, read.get(name))
            }
            for name, old in self._feeds.items():
                if name not in kept:
                    _stop(name, old)
            self._feeds = {name: kept.get(name) or self._made(name, new) for name, new in read.items()}

    def prepare(self, described: Mapping[str, Any]) -> None:
        """Before a configuration is put in force: what must have been done by then. Raises StateError."""
        for feed in described_feeds(described):
            kind = self._kinds.get(feed.kind)
            if isinstance(kind, Preparing):
                # `adopt` says why one can't run.
                with contextlib.suppress(FeedError, KeyError, TypeError, ValueError):
                    kind.prepare(kind.read(feed, self._seams.root), self._seams)

    def stop(self) -> None:
        """Ends all of them, for good. May be called twice."""
        with self._mutex:
            self._ended = True
            for name, feed in self._feeds.items():
                _stop(name, feed)

    def source(self, feed: str) -> Source | None:
        """The source of a feed; None if there is none."""
        found = self._feeds.get(feed)
        return found.source if isinstance(found, _Running) else None

    def statuses(self) -> dict[str, Status]:
        """How each feed is doing, by name."""
        return {name: _status(feed) for name, feed in sorted(self._feeds.items())}

    def numbers(self) -> dict[str, float]:
        """For metrics: `feed_batches_NAME`, `feed_failures_NAME`, `feed_last_success_timestamp_seconds_NAME`."""
        found: dict[str, float] = {}
        for name, status in self.statuses().items():
            found[f"feed_batches_{name}"] = status.batches
            found[f"feed_failures_{name}"] = status.failures
            found[f"feed_last_success_timestamp_seconds_{name}"] = status.last_success or 0.0
        return found

    def detail(self) -> dict[str, dict[str, Any]]:
        """For readiness."""
        return {
            name: {
                "running": status.running,
                "last_success": None
                if status.last_success is None
                else rfc3339(int(status.last_success * 1e6)),
                "last_error": status.last_error,
                "batches": status.batches,
                "refused": status.refused,
            }
            for name, status in self.statuses().items()
        }

    def _read(self, feed: Feed, at: int) -> tuple[str, Any] | _Refused:
        """Kind and settings."""
        kind = self._kinds.get(feed.kind)
        if kind is None:
            return _refused(feed.name, f"feeds of kind `{feed.kind}` are not built yet")
        if at >= MAX_FEEDS:
            return _refused(feed.name, f"at most {MAX_FEEDS} feeds run, this one does not")
        try:
            return feed.kind, kind.read(feed, self._seams.root)
        except SignalwardenError as error:
            return _refused(feed.name, str(error))
        except Exception as error:  # noqa: BLE001 - one feed that can't be read leaves the others alone
            return _refused(feed.name, f"it can't be read: {type(error).__name__}")

    def _made(self, name: str, read: tuple[str, Any] | _Refused) -> _Running | _Refused:
        if isinstance(read, _Refused):
            return read
        kind, settings = read
        try:
            source = self._kinds[kind].build(settings, self._seams)
            source.start()
        except Exception as error:  # noqa: BLE001 - as above
            return _refused(name, f"it can't be started: {type(error).__name__}")
        return _Running(kind, settings, source)


def described_feeds(described: Mapping[str, Any]) -> list[Feed]:
    """The feeds of a description, each with the contracts whose sources name it; where things stand is left out."""
    users: dict[str, list[Mapping[str, Any]]] = {}
    for contract in sorted(described.get("signals", ()), key=lambda contract: str(contract["name"])):
        plain = _placeless(contract)
        for feed in sorted({source["feed"] for source in contract["sources"] if source.get("feed")}):
            users.setdefault(feed, []).append(plain)
    return [
        Feed(
            name=entry["feed"],
            kind=entry["kind"],
            settings={key: value for key, value in entry.items() if key not in ("feed", "kind", "line")},
            signals=tuple(users.get(entry["feed"], ())),
        )
        for entry in described.get("feeds", ())
    ]


def _placeless(value: Any) -> Any:
    """Without `line`: a comment above an entry changes nothing of it."""
    if isinstance(value, dict):
        return {key: _placeless(inner) for key, inner in value.items() if key != "line"}
    return [_placeless(inner) for inner in value] if isinstance(value, list) else value


def _same(running: _Running, read: tuple[str, Any] | _Refused | None) -> bool:
    return isinstance(read, tuple) and (running.kind, running.settings) == read


def _refused(name: str, why: str) -> _Refused:
    _log.error("feed `%s` does not run: %s", name, why)
    return _Refused(why)


def _stop(name: str, feed: _Running | _Refused) -> None:
    if isinstance(feed, _Refused):
        return
    try:
        feed.source.stop()
    except Exception as error:  # noqa: BLE001 - the others must still be stopped
        _log.error("feed `%s` did not stop in order: %s", name, type(error).__name__)


def _status(feed: _Running | _Refused) -> Status:
    if isinstance(feed, _Refused):
        return Status(running=False, batches=0, last_batch=None, last_error=feed.why)
    return feed.source.status()
