"""Signals that are fetched: a feed of kind `poll` reads a JSON file or an HTTP(S) endpoint again and again.

What it reads is the body of `POST /v1/signals`, and goes the same way: the core judges each entry. A poll that fails
changes nothing: the values that are known grow old and stale, as they must.
"""

from __future__ import annotations

import hashlib
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import orjson

from signalwarden.decision_log import rfc3339
from signalwarden.errors import FeedError, SignalwardenError
from signalwarden.files import read_regular, why
from signalwarden.outbound import Fetched, bearer, check_url, fetch
from signalwarden.signals import Feed, Seams, Source, Status
from signalwarden.signals.document import MAX_DOCUMENT_BYTES, Batch, read_document

__all__ = ["POLL", "PollSettings", "PollSource"]

_log = logging.getLogger("signalwarden.signals")

FIRST_RETRY_S: Final = 1.0
"""After the first failure; each further one doubles it, up to the feed's `backoff`. A file that was being written
is whole a second later."""
SHORTEST_PAUSE_S: Final = 0.1
"""After a poll that took longer than the interval: what a feed may take of the server has an end."""
MAX_DOUBLINGS: Final = 40
"""A second doubled so often is longer than any backoff, and still a number."""
_RANDOM: Final = random.SystemRandom()
"""Servers that start together must not poll together for ever."""
_READING: Final = threading.Lock()
"""One document at a time is taken apart and carried: sixty large ones together would take gigabytes."""
SHOWN_INDEXES: Final = 5
"""Entries of one reason that the log names; the others are counted."""
MAX_VALIDATOR_BYTES: Final = 1024
"""An ETag or a date that is sent back; longer ones are not."""
FINAL: Final = frozenset(
    {
        "malformed",
        "unknown_signal",
        "not_pushed",
        "wrong_publisher",
        "bad_subject",
        "too_large",
        "wrong_type",
        "older",
    }
)
"""Refusals that the same document meets again for as long as the register stands. Any other may pass by itself, so
the document is published again."""


@dataclass(frozen=True, slots=True)
class PollSettings:
    """One feed, as `feeds:` in the register says; two that are equal need no restart."""

    feed: str
    root: Path
    """The configuration directory, on which relative paths rest."""
    file: str | None
    url: str | None
    interval_s: float
    timeout_s: float
    jitter_s: float
    backoff_s: float
    token_file: str | None = None
    ca_file: str | None = None
    signals: tuple[str, ...] = ()
    """The contracts that it feeds, as text: one that came or changed wants the document again."""

    @staticmethod
    def read(feed: Feed, root: Path) -> PollSettings:
        """From the description of a feed. Raises FeedError, KeyError or TypeError for what is none."""
        described = feed.settings

        def seconds(key: str) -> float:
            return float(described[f"{key}_ms"]) / 1000

        def text(key: str) -> str | None:
            value = described.get(key)
            return None if value is None else str(value)

        url = text("url")
        if url is not None:
            check_url(url)
        signals = tuple(
            orjson.dumps(contract, option=orjson.OPT_SORT_KEYS).decode() for contract in feed.signals
        )
        return PollSettings(
            feed=feed.name,
            root=root,
            file=text("file"),
            url=url,
            interval_s=seconds("interval"),
            timeout_s=seconds("timeout"),
            jitter_s=seconds("jitter"),
            backoff_s=seconds("backoff"),
            token_file=text("token_file"),
            ca_file=text("ca_file"),
            signals=signals,
        )

    def path(self, name: str) -> Path:
        """A path that the register names: absolute, or inside the directory. Raises FeedError."""
        path = self.root / name
        if Path(name).is_absolute():
            return path
        inside, top = os.path.realpath(path), os.path.realpath(self.root)
        if os.path.commonpath([inside, top]) != top:
            raise FeedError(
                f"`{name}` leads out of the directory, expected an absolute path or one inside it"
            )
        return path


@dataclass(frozen=True, slots=True)
class _Seen:
    """A document of which nothing more can come: kept whole, and with times of its own."""

    digest: bytes
    validators: Mapping[str, str]
    """Headers that ask whether it still stands."""


class PollSource:
    """Polls one feed in a thread of its own. `step` is one poll, for the thread and for tests."""

    kind: Final = "poll"

    def __init__(
        self,
        settings: PollSettings,
        publish: Callable[[bytes, str], bytes],
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = _RANDOM.uniform,
    ) -> None:
        self._settings = settings
        self._publish = publish
        self._clock = clock
        self._monotonic = monotonic
        self._uniform = uniform
        self._life = threading.Lock()
        """Held while a batch is carried, so that `stop` returns when no more can be."""
        self._stopped = threading.Event()
        self._stopped.set()
        self._seen: _Seen | None = None
        self._streak = 0
        self._told = ""
        self._state = Status(running=False, batches=0, last_batch=None, last_error=None)

    def start(self) -> None:
        """Polls at once, and then by its interval. Never waits, never fails."""
        with self._life:
            if not self._stopped.is_set():
                return
            self._stopped = threading.Event()
            self._note(running=True)
            name = f"poll-{self._settings.feed}"
            threading.Thread(target=self._run, args=(self._stopped,), name=name, daemon=True).start()

    def stop(self) -> None:
        """Nothing is carried after this returns. A fetch under way is left to its own timeout."""
        self._stopped.set()
        with self._life:
            self._note(running=False)

    def status(self) -> Status:
        """How it is doing."""
        return self._state

    def _run(self, stopped: threading.Event) -> None:
        pause = 0.0
        while not stopped.wait(pause):
            pause = self.step(stopped)

    def step(self, stopped: threading.Event | None = None) -> float:
        """One poll; how long to wait before the next, in seconds."""
        began = self._monotonic()
        stopped = stopped or threading.Event()
        try:
            self._poll(stopped)
        except SignalwardenError as error:
            pause = self._failed(stopped, str(error), getattr(error, "retry_after_s", 0.0))
        except Exception as error:  # noqa: BLE001 - a feed never takes the server down
            pause = self._failed(stopped, f"a fault of ours: {type(error).__name__}", 0.0)
        else:
            self._succeeded(stopped)
            settings = self._settings
            pause = settings.interval_s + self._uniform(0.0, settings.jitter_s)
            pause = max(pause - (self._monotonic() - began), SHORTEST_PAUSE_S)
        return pause

    # ------------------------------------------------------------ one poll

    def _poll(self, stopped: threading.Event) -> None:
        # The beginning of a fetch: what was read held then or later, so no value passes for younger than it is.
        observed_at = rfc3339(int(self._clock() * 1e6))
        read = self._read_url() if self._settings.url is not None else self._read_file()
        if read is None:
            return
        content, validators = read
        digest = hashlib.sha256(content).digest()
        if self._seen is not None and self._seen.digest == digest:
            self._seen = _Seen(digest, validators)
            return
        self._seen = None
        refused: dict[str, list[int]] = {}
        with _READING:
            document = read_document(content, observed_at)
            for batch in document.batches:
                self._carry(stopped, batch, refused)
        self._tell(refused)
        if not document.stamped and refused.keys() <= FINAL:
            self._seen = _Seen(digest, validators)

    def _read_file(self) -> tuple[bytes, Mapping[str, str]]:
        name = self._settings.file or ""
        path = self._settings.path(name)
        try:
            return read_regular(path, MAX_DOCUMENT_BYTES), {}
        except OSError as error:
            raise FeedError(f"`{name}` can't be read: {why(error)}") from error

    def _read_url(self) -> tuple[bytes, Mapping[str, str]] | None:
        """None if the endpoint says that the document which is known still stands."""
        settings = self._settings
        asked = dict(self._seen.validators) if self._seen else {}
        headers = {"accept": "application/json", **asked}
        if settings.token_file is not None:
            headers |= bearer(settings.path(settings.token_file))
        answer = fetch(
            settings.url or "",
            timeout_s=settings.timeout_s,
            max_bytes=MAX_DOCUMENT_BYTES,
            headers=headers,
            ca_file=settings.path(settings.ca_file) if settings.ca_file is not None else None,
        )
        if answer.status == 304 and asked:
            return None
        if answer.status != 200:
            error = _RefusedError(f"the endpoint answered with status {answer.status}, expected 200")
            error.retry_after_s = _retry_after(answer)
            raise error
        return answer.body, _validators(answer)

    def _carry(self, stopped: threading.Event, batch: Batch, refused: dict[str, list[int]]) -> None:
        with self._life:
            if stopped.is_set():
                raise FeedError("the feed was stopped")
            answer = orjson.loads(self._publish(batch.body, f"{self.kind}:{self._settings.feed}"))
            self._note(batches=self._state.batches + 1, last_batch=self._clock())
        for entry in answer["rejected"]:
            refused.setdefault(entry["reason"], []).append(batch.first + entry["index"])

    # ------------------------------------------------------------ how it went

    def _tell(self, refused: Mapping[str, list[int]]) -> None:
        """Says what was refused, once for as long as it stays the same, and never a value."""
        text = "; ".join(
            f"{len(indexes)} with `{reason}` (entries {', '.join(map(str, indexes[:SHOWN_INDEXES]))}"
            f"{', …' if len(indexes) > SHOWN_INDEXES else ''})"
            for reason, indexes in sorted(refused.items())
        )
        if text and text != self._told:
            _log.warning("feed `%s`: entries were refused: %s", self._settings.feed, text)
        self._told = text
        with self._life:
            self._note(refused=sum(map(len, refused.values())))

    def _succeeded(self, stopped: threading.Event) -> None:
        with self._life:
            if self._streak:
                _log.info("feed `%s` is read again, after %d failures", self._settings.feed, self._streak)
            self._streak = 0
            if not stopped.is_set():
                self._note(last_success=self._clock(), last_error=None)

    def _failed(self, stopped: threading.Event, text: str, at_least_s: float) -> float:
        settings = self._settings
        with self._life:
            if stopped.is_set():
                return 0.0
            if text != self._state.last_error:
                _log.warning("feed `%s` failed: %s", settings.feed, text)
            self._streak += 1
            self._note(failures=self._state.failures + 1, last_error=text)
        longest = min(settings.backoff_s, FIRST_RETRY_S * 2.0 ** min(self._streak - 1, MAX_DOUBLINGS))
        longest = max(longest, min(at_least_s, settings.backoff_s))
        return self._uniform(max(longest / 2, min(at_least_s, longest)), longest)

    def _note(self, **changed: Any) -> None:
        self._state = replace(self._state, **changed)


class _RefusedError(FeedError):
    """An endpoint that does not answer as it should, and may say when to ask again."""

    retry_after_s: float = 0.0


def _validators(answer: Fetched) -> dict[str, str]:
    known = {"if-none-match": "etag", "if-modified-since": "last-modified"}
    return {
        ask: value
        for ask, header in known.items()
        if (value := answer.headers.get(header, "")).isascii()
        and value.isprintable()
        and 0 < len(value) <= MAX_VALIDATOR_BYTES
    }


def _retry_after(answer: Fetched) -> float:
    """RFC 9110 section 10.2.3, in seconds; 0 for a date, or if nothing is said."""
    text = answer.headers.get("retry-after", "").strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0.0


class _Poll:
    """How feeds of this kind are made."""

    word: Final = PollSource.kind

    def read(self, feed: Feed, root: Path) -> PollSettings:
        """See Kind."""
        return PollSettings.read(feed, root)

    def build(self, settings: PollSettings, seams: Seams) -> Source:
        """See Kind."""
        return PollSource(settings, seams.publish, clock=seams.clock)


POLL: Final = _Poll()
