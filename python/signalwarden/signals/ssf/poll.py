"""SETs that we fetch (RFC 8936): asked for again and again, acknowledged once they are kept."""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from signalwarden.errors import FeedError, KeySetError, StateError
from signalwarden.keysets import Fetch
from signalwarden.outbound import bearer
from signalwarden.signals import Status
from signalwarden.signals.ssf.set import MAX_JTI_BYTES, SetRefusedError
from signalwarden.signals.ssf.stream import Outcome, Stream

__all__ = ["PollSettings", "Poller"]

_log = logging.getLogger("signalwarden.ssf")

MAX_EVENTS: Final = 100
"""Asked for at once: an answer of 200 KB, and one that fits into `MAX_ANSWER_BYTES` at the largest SETs."""
MAX_ANSWER_BYTES: Final = 8 * 1024 * 1024
MAX_TAKEN: Final = 200
"""Of one answer; RFC 8936 lets a transmitter send more than it was asked for. The rest comes again."""
MAX_ROUNDS: Final = 100
"""In a row, without the pause in between: a transmitter that always has more does not keep a core busy."""
ROUND_PAUSE_S: Final = 0.05
BACKOFF_FACTOR: Final = 10
"""The longest pause after failures, in intervals."""
JITTER: Final = 0.1
"""Of each pause, so that many receivers do not ask at once."""
STOP_S: Final = 1.0
"""How long a stop waits for a fetch that is under way; one that ends later is thrown away, and comes again."""


@dataclass(frozen=True, slots=True)
class PollSettings:
    """`poll:` of a feed."""

    url: str
    interval_s: float
    timeout_s: float
    token_file: Path | None = None
    ca_file: Path | None = None


class Poller:
    """Asks a transmitter for its SETs, in a thread of its own."""

    kind: Final = "ssf"

    def __init__(
        self,
        stream: Stream,
        settings: PollSettings,
        fetch: Fetch,
        *,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._stream = stream
        self._settings = settings
        self._fetch = fetch
        self._uniform = uniform
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._acks: list[str] = []
        self._errors: dict[str, dict[str, str]] = {}
        self._rounds = 0
        self._last_round: float | None = None
        self._last_error: str | None = None
        self._last_success: float | None = None
        self._failures = 0

    # ------------------------------------------------------------ life

    def start(self) -> None:
        """See signals.Source."""
        if self._thread is not None:
            return
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(self._stopping,), name=f"ssf-{self._stream.feed}", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """See signals.Source."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._stopping.set()
        thread.join(STOP_S)

    def status(self) -> Status:
        """See signals.Source."""
        running = self._thread is not None
        return Status(
            running, self._rounds, self._last_round, self._last_error, self._last_success, self._failures
        )

    def _run(self, stopping: threading.Event) -> None:
        failures = rounds = 0
        pause = 0.0
        while not stopping.wait(pause):
            try:
                more = self.ask(stopping)
                failures, rounds, self._last_error = 0, rounds + 1, None
                self._last_success = time.time()
            except (FeedError, KeySetError, StateError) as error:
                more, failures = False, failures + 1
                self._fail(str(error), failures)
            except Exception:  # noqa: BLE001 - a fault of ours must not end the feed for good and unseen
                more, failures = False, failures + 1
                self._fail("a poll failed by a fault of ours", failures)
                _log.exception("feed `%s`: a poll failed", self._stream.feed)
            if more and rounds < MAX_ROUNDS:
                pause = ROUND_PAUSE_S
            else:
                rounds = 0
                pause = self._pause(failures)

    def _pause(self, failures: int) -> float:
        interval = self._settings.interval_s
        pause = (
            min(interval * 2 ** min(failures, BACKOFF_FACTOR), interval * BACKOFF_FACTOR)
            if failures
            else interval
        )
        return pause * (1 + self._uniform(-JITTER, JITTER))

    def _fail(self, sentence: str, failures: int) -> None:
        self._last_error = sentence
        self._failures += 1
        if failures & (failures - 1) == 0:  # the first, second, fourth…: a long outage is no flood of lines
            _log.warning("feed `%s`: %s (%s in a row)", self._stream.feed, sentence, failures)

    # ------------------------------------------------------------ one round

    def ask(self, stopping: threading.Event | None = None) -> bool:
        """Asks once, and takes what comes. True if it is worth asking again at once.

        Raises FeedError if there was no good answer, KeySetError or StateError if a SET could not be judged or
        kept: it stays unacknowledged, and comes again."""
        acks, errors = list(self._acks), dict(self._errors)
        answer = self._fetch_sets(acks, errors)
        if stopping is not None and stopping.is_set():
            return False
        # They were delivered. What is not stays here and goes with the next request.
        self._acks = [jti for jti in self._acks if jti not in acks]
        self._errors = {jti: error for jti, error in self._errors.items() if jti not in errors}
        self._rounds += 1
        self._last_round = time.time()
        if answer.empty and not answer.more:
            self._stream.heard()
        fresh = 0
        for jti, text in answer.sets[:MAX_TAKEN]:
            if stopping is not None and stopping.is_set():
                return False
            fresh += self._take(jti, text)
        return fresh > 0 or (answer.more and bool(answer.sets))

    def _take(self, jti: str, text: str) -> bool:
        """True if the SET was new."""
        try:
            outcome = self._stream.take(text.encode(), jti=jti)
        except SetRefusedError as refused:
            self._errors[jti] = {"err": refused.code, "description": str(refused)}
            return False
        self._acks.append(jti)
        return outcome is not Outcome.DUPLICATE

    def _fetch_sets(self, acks: list[str], errors: dict[str, dict[str, str]]) -> _Answer:
        request: dict[str, Any] = {"maxEvents": MAX_EVENTS, "returnImmediately": True}
        headers = {"content-type": "application/json", "accept": "application/json"}
        if acks:
            request["ack"] = acks
        if errors:
            request["setErrs"] = errors
            headers["content-language"] = "en"
        if self._settings.token_file is not None:
            headers |= bearer(self._settings.token_file)
        answer = self._fetch(
            self._settings.url,
            timeout_s=self._settings.timeout_s,
            max_bytes=MAX_ANSWER_BYTES,
            headers=headers,
            ca_file=self._settings.ca_file,
            method="POST",
            body=orjson.dumps(request),
        )
        if answer.status != 200:
            raise FeedError(f"the transmitter answered a poll with status {answer.status}")
        return _read_answer(answer.body)


@dataclass(frozen=True, slots=True)
class _Answer:
    sets: list[tuple[str, str]]
    empty: bool
    more: bool


def _read_answer(body: bytes) -> _Answer:
    """RFC 8936 section 2.5."""
    try:
        content = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FeedError("the transmitter answered a poll with something that is no JSON") from error
    sets = content.get("sets") if isinstance(content, dict) else None
    if not isinstance(sets, dict):
        raise FeedError('the transmitter answered a poll without an object in `"sets"`')
    # A name or SET that can't be one can't be named in an answer either: it is left to the transmitter's patience.
    good = [
        (jti, text)
        for jti, text in sets.items()
        if isinstance(text, str)
        and text.isascii()
        and 0 < len(jti.encode("utf-8", "replace")) <= MAX_JTI_BYTES
    ]
    more = content.get("moreAvailable", False)
    return _Answer(good, not sets, more is True)
