"""The receiver of one feed: what is done with a SET, however it came.

Everything that one SET changes is kept in one write, its values and what it says of the stream, and only then is it
acknowledged. What is not understood suspends the resting values of the feed: nobody knows what it would have said.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Protocol

import orjson

from signalwarden._core import StoredChange
from signalwarden.decision_log import rfc3339
from signalwarden.errors import BadInputError, KeySetError, StateError
from signalwarden.signals.ssf.events import Contract, Loss, Reading, read_events
from signalwarden.signals.ssf.set import ErrorCode, SecurityEventToken, SetRefusedError, Verifier
from signalwarden.signals.ssf.subjects import EVERYONE, Rules

__all__ = ["Core", "Keep", "Outcome", "Stream", "StreamState"]

_log = logging.getLogger("signalwarden.ssf")

MAX_REMEMBERED: Final = 10_000
"""Names (`jti`) of SETs a feed remembers, 32 bytes each. A replay of one that was forgotten changes nothing either:
its values are not newer than what is known, and it was issued before the stream was last heard."""
MAX_PUBLICATIONS: Final = 1_000
"""Values of one SET: as many as one call of a publisher."""
MAX_TASKS: Final = 200_000
"""As many as the core holds: when every session is revoked, no task is left out."""
MAX_DETAIL: Final = 240
WAIT_S: Final = 5.0
"""How long a SET waits for the one before: the transmitter is told to come again before it gives up by itself."""
SAY_AGAIN_S: Final = 60.0
"""Between two lines of the log about the same thing."""
MAX_SAID: Final = 256
"""Different things remembered as said."""
HARMLESS: Final = "older"
"""The refusal of a value that came out of order: a newer one is known, and nothing was missed."""


class AdmissionLike(Protocol):
    """`_core.Admission`, as far as it is used here."""

    @property
    def rejected(self) -> list[tuple[int, str, str]]: ...
    @property
    def changes(self) -> list[StoredChange]: ...


class Core(Protocol):
    """`_core.Engine`, as far as it is used here."""

    def admit(self, body: bytes, *, publisher: str, now_us: int) -> AdmissionLike: ...
    def stream(self, feed: str, *, event: str, at_us: int, now_us: int, detail: str = "") -> StoredChange: ...
    def feeds(self) -> bytes: ...
    def end_tasks_of(self, principal: str, *, at_us: int, why: str, now_us: int) -> StoredChange: ...
    def tasks(self, *, limit: int, now_us: int) -> bytes: ...


class Vouching(Protocol):
    """`basis.Basis`, as far as it is used here."""

    def settle(self) -> list[str]: ...
    def vouch(self) -> None: ...


Keep = Callable[[Callable[[], Sequence[StoredChange]]], None]
"""Makes changes under the lock of all changes, writes them down, takes them in. Raises StateError."""


class Outcome(StrEnum):
    """What became of a SET that is acknowledged."""

    ACCEPTED = "accepted"
    IGNORED = "ignored"
    """It says nothing about our signals, or nothing newer than what is known."""
    DUPLICATE = "duplicate"
    UNPROCESSED = "unprocessed"
    """A contract maps its event, and it gave no value."""


@dataclass(slots=True)
class _Kept:
    """What came of writing a SET down."""

    problems: list[str] = field(default_factory=list)
    taken: bool = False
    """A value of it is not older than what was known."""
    lost: list[Loss] = field(default_factory=list)
    """Of whom what they were given ends."""


@dataclass(frozen=True, slots=True)
class StreamState:
    """What the core knows of a stream."""

    last_known_us: int
    """When it was last heard, or vouched for; 0: never."""
    in_sync: bool


class Stream:
    """One feed. Thread-safe; SETs of a feed are judged one after the other."""

    def __init__(
        self,
        feed: str,
        verifier: Verifier,
        rules: Rules,
        contracts: Sequence[Contract],
        *,
        retention_us: int,
        core: Core,
        keep: Keep,
        clock: Callable[[], int],
        basis: Vouching,
        change: Callable[..., None] = lambda _change, **_keys: None,
    ) -> None:
        self.feed = feed
        self._contracts = tuple(contracts)
        self._verifier = verifier
        self._rules = rules
        self._retention_us = retention_us
        self._core = core
        self._keep_changes = keep
        self._clock = clock
        self._basis = basis
        self._record = change
        self._turn = threading.Lock()
        self._closed = False
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._heard_us = 0
        """When a transmitter that was asked had nothing, or somebody vouched for the stream."""
        self._suspended = ""
        """Why the changes that are being kept suspend the stream; empty if they don't."""
        self._tally = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._last_error: str | None = None
        self._last_taken: float | None = None
        self._said: OrderedDict[str, float] = OrderedDict()

    # ------------------------------------------------------------ a SET

    def take(self, raw: bytes, *, jti: str | None = None) -> Outcome:
        """A SET in; returns once it may be acknowledged. `jti`: the name under which it was delivered, if any.

        Raises SetRefusedError for what is refused, KeySetError and StateError for what must be sent again later."""
        try:
            token = self._verifier.verify(raw, self._clock())
            if jti is not None and jti != token.jti:
                reason = "the SET has another `jti` than it was sent under"
                raise SetRefusedError(ErrorCode.INVALID_REQUEST, reason)
        except SetRefusedError as refused:
            self._refuse(refused)
            raise
        except KeySetError as error:
            self._say("keys", str(error))
            raise
        with self._my_turn():
            outcome = self._process(token)
        self._count(outcome)
        self._last_taken = self._clock() / 1_000_000
        return outcome

    def open(self) -> None:
        """SETs are taken from now on."""
        self._closed = False

    def close(self) -> None:
        """No SET is taken once this returns; the one under way is finished."""
        with self._turn:
            self._closed = True

    @contextlib.contextmanager
    def _my_turn(self) -> Iterator[None]:
        if not self._turn.acquire(timeout=WAIT_S):
            raise StateError("too many events come at once: send it again later")
        try:
            if self._closed:
                raise StateError("the feed is being exchanged or stopped: send it again later")
            yield
        finally:
            self._turn.release()

    def _process(self, token: SecurityEventToken) -> Outcome:
        name = hashlib.sha256(token.jti.encode()).digest()
        if name in self._seen:
            return Outcome.DUPLICATE
        reading = read_events(token, self._contracts, self._rules)
        kept = self._keep_set(token, reading)
        self._remember(name)
        for problem in kept.problems:
            self._say(problem, f"SET `{_shown(token.jti)}`: {problem}: resting values are suspended")
        if kept.problems:
            return Outcome.UNPROCESSED
        return Outcome.ACCEPTED if kept.taken or reading.of_stream else Outcome.IGNORED

    def _keep_set(self, token: SecurityEventToken, reading: Reading) -> _Kept:
        """One write: values, suspension, and that the transmitter was heard."""
        kept = _Kept()

        def make() -> list[StoredChange]:
            now = self._clock()
            kept.problems, kept.taken = list(reading.problems), False
            changes = self._admitted(reading, kept, now)
            changes += self._lost(reading, kept, now)
            changes += self._suspension([*self._gap(now), *kept.problems], now)
            # By the transmitter's own clock: a SET that was held back, or sent again, says nothing of now.
            heard = min(token.issued_at_us, now)
            changes.append(self._core.stream(self.feed, event="verified", at_us=heard, now_us=now))
            return changes

        self._keep(make)
        for loss in kept.lost:
            at = rfc3339(loss.at_us)
            self._record("standing_lost", principal=loss.principal, at=at, detail=self._why)
        return kept

    @property
    def _why(self) -> str:
        return f"session revoked, says the feed `{self.feed}`"

    def _lost(self, reading: Reading, kept: _Kept, now: int) -> list[StoredChange]:
        """Whether its value counts or not: one that comes late still ends what was given before."""
        losses = {loss.principal: loss for loss in reading.losses}
        if everyone := losses.pop(EVERYONE, None):
            listed = orjson.loads(self._core.tasks(limit=MAX_TASKS, now_us=now))["tasks"]
            losses.update((task["principal"], Loss(task["principal"], everyone.at_us)) for task in listed)
        kept.lost, changes = [], []
        for loss in losses.values():
            at_us = min(loss.at_us, now)
            try:
                change = self._core.end_tasks_of(loss.principal, at_us=at_us, why=self._why, now_us=now)
            except BadInputError:
                kept.problems.append("whoever's session is revoked can't be a principal")
                continue
            changes.append(change)
            kept.lost.append(Loss(loss.principal, at_us))
        return changes

    def _admitted(self, reading: Reading, kept: _Kept, now: int) -> list[StoredChange]:
        problems = kept.problems
        if not reading.publications:
            return []
        if len(reading.publications) > MAX_PUBLICATIONS:
            problems.append(f"a SET comes to more than {MAX_PUBLICATIONS} values")
            return []
        body = orjson.dumps({"signals": reading.publications})
        try:
            admission = self._core.admit(body, publisher=f"ssf:{self.feed}", now_us=now)
        except BadInputError:
            problems.append("what a SET says is larger than signals may be")
            return []
        for index, reason, _ in admission.rejected:
            if reason != HARMLESS:
                problems.append(f"a value of `{reading.publications[index]['name']}` is refused: `{reason}`")
        kept.taken = len(admission.rejected) < len(reading.publications)
        return list(admission.changes)

    # ------------------------------------------------------------ the stream

    def heard(self) -> None:
        """The transmitter was asked, and had nothing for us. Not a word of it is signed, so it does not verify the
        stream; but in a silence in which it was asked nothing is missed."""
        with self._my_turn():
            now = self._clock()
            if gap := self._gap(now):
                self._keep(lambda: self._suspension(gap, now))
            self._heard_us = now

    def settle(self) -> None:
        """Begins with what it was vouched for: a contract that is new to the stream suspends it."""
        fresh = self._basis.settle()
        if fresh:
            more = f" and {len(fresh) - 1} more" if len(fresh) > 1 else ""
            problem = f"nobody has vouched for `{fresh[0]}`{more} as it now stands"
            with self._my_turn():
                self._keep(lambda: self._suspension([problem], self._clock()))

    def resynchronise(self, actor: str) -> None:
        """An operator vouches that what was missed has been made up for."""
        with self._my_turn():
            # First: without it a restart suspends the stream again, and never the other way round.
            self._basis.vouch()
            now, detail = self._clock(), f"by {actor}"
            self._keep(
                lambda: [
                    self._core.stream(self.feed, event="resynchronised", at_us=now, now_us=now, detail=detail)
                ]
            )
            self._heard_us = now

    def state(self) -> StreamState:
        """What the core knows of this stream."""
        for entry in orjson.loads(self._core.feeds()):
            if entry["feed"] == self.feed:
                known = max(_instant(entry.get("verified_at")), _instant(entry.get("in_sync_since")))
                return StreamState(known, bool(entry["in_sync"]))
        return StreamState(0, False)

    def _gap(self, now: int) -> list[str]:
        """A silence in which the transmitter may have given events up."""
        state = self.state()
        last = max(state.last_known_us, self._heard_us)
        if not state.in_sync or last == 0 or now - last <= self._retention_us:
            return []
        return ["nothing was heard for longer than the transmitter keeps events"]

    def _suspension(self, problems: Sequence[str], now: int) -> list[StoredChange]:
        if not problems:
            return []
        state = self.state()
        if not state.in_sync:
            return []  # nothing rests on it, and the first reason stands
        self._suspended = problems[0][:MAX_DETAIL]
        return [
            self._core.stream(self.feed, event="suspended", at_us=now, now_us=now, detail=self._suspended)
        ]

    def _keep(self, make: Callable[[], Sequence[StoredChange]]) -> None:
        """Keeps, and records a suspension once it is one."""
        self._suspended = ""
        self._keep_changes(make)
        if self._suspended:
            self._record("stream_suspended", feed=self.feed, detail=self._suspended)

    def _refuse(self, refused: SetRefusedError) -> None:
        """A SET that its transmitter signed for us, and that says nothing: an event is lost. Any other changes
        nothing, or whoever reaches us could suspend the stream."""
        self._count(f"refused_{refused.code}")
        self._say(str(refused), f"a SET is refused: {refused}")
        if refused.genuine:
            problem = f"a SET of the transmitter is malformed: {refused}"
            with self._my_turn():
                self._keep(lambda: self._suspension([problem], self._clock()))

    # ------------------------------------------------------------ counting and saying

    def counts(self) -> Mapping[str, int]:
        """How many SETs, by `Result.word` or `refused_CODE`."""
        with self._tally:
            return dict(self._counts)

    @property
    def last_error(self) -> str | None:
        """The last thing that went wrong with a SET."""
        return self._last_error

    @property
    def last_taken(self) -> float | None:
        """When the last SET was acknowledged, in seconds since 1970."""
        return self._last_taken

    def _count(self, word: str) -> None:
        with self._tally:
            self._counts[word] += 1

    def _remember(self, name: bytes) -> None:
        self._seen[name] = None
        if len(self._seen) > MAX_REMEMBERED:
            self._seen.popitem(last=False)

    def _say(self, thing: str, sentence: str) -> None:
        """A line of the log, once in a while for each thing. Never with anything of a SET but its `jti` and type."""
        self._last_error = sentence
        now = time.monotonic()
        with self._tally:
            if now - self._said.get(thing, -SAY_AGAIN_S) < SAY_AGAIN_S:
                return
            self._said[thing] = now
            self._said.move_to_end(thing)
            if len(self._said) > MAX_SAID:
                self._said.popitem(last=False)
        _log.warning("feed `%s`: %s", self.feed, sentence)


def _shown(jti: str) -> str:
    """On one line, whatever a transmitter calls its SETs."""
    return jti[:64].encode("unicode_escape").decode()


def _instant(text: Any) -> int:
    if not isinstance(text, str):
        return 0
    return round(datetime.fromisoformat(text).timestamp() * 1_000_000)
