"""A feed of kind `ssf`: made from what the register says of it, and how it is doing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from signalwarden.errors import FeedError, RateLimitedError, SignalwardenError
from signalwarden.keysets import Fetch, KeySet, file_reader, url_reader
from signalwarden.outbound import fetch
from signalwarden.rates import Rates
from signalwarden.signals import Feed, Seams, Status
from signalwarden.signals.ssf.basis import Basis, digests
from signalwarden.signals.ssf.events import contracts_of
from signalwarden.signals.ssf.poll import Poller, PollSettings
from signalwarden.signals.ssf.push import Answer, take_pushed, too_many
from signalwarden.signals.ssf.set import Verifier
from signalwarden.signals.ssf.stream import Outcome, Stream
from signalwarden.signals.ssf.subjects import Rules

__all__ = ["SSF", "SsfSettings", "SsfSource"]

MAX_SETS_A_SECOND: Final = 500
"""Pushed to one feed: to check so many signatures takes 0.1 to 0.4 of a core (measured 2026-11-24, 0.2 to 0.8 ms each
on a busy machine). Transmitters send a few a second."""


@dataclass(frozen=True, slots=True)
class KeySettings:
    """`keys:` of a feed: one of `file` and `url`."""

    file: Path | None
    url: str | None
    refresh_s: float
    ca_file: Path | None

    def key_set(self, fetching: Fetch) -> KeySet:
        """The keys, not read yet."""
        if self.file is not None:
            read = file_reader(self.file)
        else:
            read = url_reader(self.url or "", fetching, ca_file=self.ca_file)
        return KeySet(read, refresh_s=self.refresh_s)


@dataclass(frozen=True, slots=True)
class SsfSettings:
    """One feed; two that are equal need no restart."""

    feed: str
    issuer: str
    audience: str
    keys: KeySettings
    poll: PollSettings | None
    """None: its SETs are pushed."""
    members: tuple[tuple[str, str], ...]
    critical_members: tuple[str, ...]
    retention_us: int
    signals: bytes
    """The contracts that it feeds, as JSON."""

    @staticmethod
    def read(feed: Feed, root: Path) -> SsfSettings:
        """From the description of a feed. Raises FeedError, KeyError, TypeError or ValueError for what is none."""
        described = feed.settings
        keys = described["keys"]
        return SsfSettings(
            feed=feed.name,
            issuer=str(described["issuer"]),
            audience=str(described["audience"]),
            keys=KeySettings(
                _path(root, keys.get("file")),
                keys.get("url"),
                float(keys["refresh_ms"]) / 1_000,
                _path(root, keys.get("ca_file")),
            ),
            poll=_poll(described["poll"], root) if described["delivery"] == "poll" else None,
            members=tuple(sorted(described.get("members", {}).items())),
            critical_members=tuple(described.get("critical_members", ())),
            retention_us=int(described["retention_ms"]) * 1_000,
            signals=orjson.dumps(list(feed.signals), option=orjson.OPT_SORT_KEYS),
        )


def _poll(described: Mapping[str, Any], root: Path) -> PollSettings:
    return PollSettings(
        url=described["url"],
        interval_s=float(described["interval_ms"]) / 1_000,
        timeout_s=float(described["timeout_ms"]) / 1_000,
        token_file=_path(root, described.get("token_file")),
        ca_file=_path(root, described.get("ca_file")),
    )


def _path(root: Path, name: str | None) -> Path | None:
    """A path that the register names: absolute, or inside the directory."""
    if name is None or Path(name).is_absolute():
        return None if name is None else Path(name)
    inside, top = os.path.realpath(root / name), os.path.realpath(root)
    if os.path.commonpath([inside, top]) != top:
        raise FeedError(f"`{name}` leads out of the directory, expected an absolute path or one inside it")
    return root / name


class SsfSource:
    """One feed: its stream, and what brings SETs to it."""

    kind: Final = "ssf"

    def __init__(
        self,
        stream: Stream,
        keys: KeySet,
        poller: Poller | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.stream = stream
        self._keys = keys
        self._rates = Rates(MAX_SETS_A_SECOND)
        self._poller = poller
        self._clock = clock
        self._running = False
        self._last_batch: float | None = None

    def start(self) -> None:
        """See Source."""
        self.stream.open()
        self.stream.settle()
        self._running = True
        if self._poller is not None:
            self._poller.start()

    def stop(self) -> None:
        """See Source."""
        self._running = False
        if self._poller is not None:
            self._poller.stop()
        self.stream.close()

    @property
    def delivery(self) -> str:
        """`push` or `poll`."""
        return "push" if self._poller is None else "poll"

    @property
    def keys_error(self) -> str | None:
        """Why the transmitter's keys could not be had when they were last asked for."""
        return self._keys.last_error

    def push(self, content_type: str | None, body: bytes) -> Answer:
        """One request of a transmitter that may publish."""
        try:
            self._rates.take(self.stream.feed, 1)
        except RateLimitedError as error:
            return too_many(str(error), error.retry_after_s)
        answer = take_pushed(None if self._poller is not None else self.stream, content_type, body)
        self._last_batch = self._clock()
        return answer

    def status(self) -> Status:
        """See Source. A batch is a SET that was pushed, or a poll."""
        if self._poller is not None:
            return self._poller.status()
        counts = self.stream.counts()
        return Status(
            running=self._running,
            batches=sum(counts.values()),
            last_batch=self._last_batch,
            last_error=self.stream.last_error,
            last_success=self.stream.last_taken,
            failures=sum(number for word, number in counts.items() if word not in {*Outcome}),
        )


class _Ssf:
    """How feeds of this kind are made."""

    word: Final = SsfSource.kind

    def read(self, feed: Feed, root: Path) -> SsfSettings:
        """See Kind."""
        return SsfSettings.read(feed, root)

    def prepare(self, settings: SsfSettings, seams: Seams) -> None:
        """See Preparing: a contract that nobody has vouched for has no resting value for a single decision."""
        source = self.build(settings, seams)
        source.stream.settle()

    def build(self, settings: SsfSettings, seams: Seams, fetching: Fetch = fetch) -> SsfSource:
        """See Kind."""
        if seams.core is None or seams.keep is None or seams.documents is None:
            raise SignalwardenError("a feed of kind `ssf` needs the core and a way to keep changes")
        signals = orjson.loads(settings.signals)
        shared = (settings.issuer, settings.audience, settings.members, settings.critical_members)
        keys = settings.keys.key_set(fetching)
        stream = Stream(
            settings.feed,
            Verifier(settings.issuer, settings.audience, keys),
            Rules(settings.issuer, dict(settings.members), frozenset(settings.critical_members)),
            contracts_of(signals, settings.feed),
            retention_us=settings.retention_us,
            core=seams.core,
            keep=seams.keep,
            clock=lambda: int(seams.clock() * 1_000_000),
            basis=Basis(seams.documents, settings.feed, digests(signals, settings.feed, *shared)),
            change=seams.change,
        )
        poller = Poller(stream, settings.poll, fetching) if settings.poll is not None else None
        return SsfSource(stream, keys, poller, seams.clock)


SSF: Final = _Ssf()
