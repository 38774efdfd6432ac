"""The receiver of one feed: what is done with a SET, however it came.

Everything that one SET changes is kept in one write, its values and what it says of the stream, and only then is it
acknowledged. What is not understood suspends the resting values of the feed: nobody knows what it would have said.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol

import orjson

from signalwarden._core import StoredChange
from signalwarden.errors import BadInputError, StateError
from signalwarden.signals.ssf.events import Contract, Reading, read_events
from signalwarden.signals.ssf.set import ErrorCode, SecurityEventToken, SetRefusedError, Verifier
from signalwarden.signals.ssf.subjects import Rules

__all__ = ["Core", "Keep", "Outcome", "Result", "Stream", "StreamState"]

_log = logging.getLogger("signalwarden.ssf")

MAX_REMEMBERED: Final = 10_000
"""Names (`jti`) of SETs a feed remembers, 32 bytes each. A replay of one that was forgotten changes nothing either:
its values are not newer than what is known, and it was issued before the stream was last heard."""
MAX_PUBLICATIONS: Final = 1_000
"""Values of one SET: as many as one call of a publisher."""
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
    def stream(self, feed: str, *, event: str, at_us: int, detail: str = "") -> StoredChange: ...
    def feeds(self, *, now_us: int) -> bytes: ...


Keep = Callable[[Callable[[], Sequence[StoredChange]]], None]
"""Makes changes under the lock of all changes, writes them down, takes them in. Raises StateError."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a SET that is acknowledged."""

    word: str
    """`accepted`, `ignored`, `duplicate` or `unprocessed`."""
    jti: str


class Outcome:
    """The words of `Result`."""

    ACCEPTED: Final = "accepted"
    IGNORED: Final = "ignored"
    DUPLICATE: Final = "duplicate"
    UNPROCESSED: Final = "unprocessed"


@dataclass(slots=True)
class _Kept:
    """What came of writing a SET down."""

    problems: list[str] = field(default_factory=list)
    taken: bool = False
    """A value of it is not older than what was known."""


@dataclass(frozen=True, slots=True)
class StreamState:
    """What the core knows of a stream."""

    last_known_us: int
    """When it was last heard, or vouched for; 0: never."""
    in_sync: bool
    suspended: bool
    """Somebody has said why it is not in sync."""


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
        note: Callable[[str, str], None] = lambda _feed, _detail: None,
    ) -> None:
        self.feed = feed
        self._contracts = tuple(contracts)
        self._verifier = verifier
        self._rules = rules
        self._retention_us = retention_us
        self._core = core
        self._keep_changes = keep
        self._clock = clock
        self._note = note
        self._turn = threading.Lock()
        self._closed = False
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._heard_us = 0
        self._tally = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._last_error: str | None = None
        self._last_taken: float | None = None
        self._said: OrderedDict[str, float] = OrderedDict()

    # ------------------------------------------------------------ a SET

    def take(self, raw: bytes, *, jti: str | None = None) -> Result:
        """A SET in; returns once it may be acknowledged. `jti`: the name under which it was delivered, if any.

        Raises SetRefusedError for what is refused, KeySetError and StateError for what must be sent again later."""
        try:
            token = self._verifier.verify(raw, self._clock())
            if jti is not None and jti != token.jti:
                raise SetRefusedError(
                    ErrorCode.INVALID_REQUEST, "the SET has another `jti` than it was sent under"
                )
        except SetRefusedError as refused:
            self._refuse(refused)
            raise
        if not self._turn.acquire(timeout=WAIT_S):
            raise StateError("too many events come at once: send it again later")
        try:
            if self._closed:
                raise StateError("the feed is being exchanged or stopped: send it again later")
            result = Result(self._process(token), token.jti)
        finally:
            self._turn.release()
        self._count(result.word)
        self._last_taken = self._clock() / 1_000_000
        return result

    def open(self) -> None:
        """SETs are taken from now on."""
        self._closed = False

    def close(self) -> None:
        """No SET is taken once this returns; the one under way is finished."""
        with self._turn:
            self._closed = True

    def _process(self, token: SecurityEventToken) -> str:
        name = hashlib.sha256(token.jti.encode()).digest()
        if name in self._seen:
            return Outcome.DUPLICATE
        reading = read_events(token, self._contracts, self._rules)
        kept = self._keep(token, reading)
        self._remember(name)
        for problem in kept.problems:
            self._say(problem, f"SET `{_shown(token.jti)}`: {problem}: resting values are suspended")
        if kept.problems:
            return Outcome.UNPROCESSED
        return Outcome.ACCEPTED if kept.taken or reading.of_stream else Outcome.IGNORED

    def _keep(self, token: SecurityEventToken, reading: Reading) -> _Kept:
        """One write: values, suspension, and that the transmitter was heard."""
        kept = _Kept()

        def make() -> list[StoredChange]:
            now = self._clock()
            kept.problems = [*self._gap(now), *reading.problems]
            kept.taken = False
            changes = self._admitted(reading, kept, now)
            changes += self._suspension(kept.problems, now)
            # By the transmitter's own clock: a SET that was held back on its way says nothing of now.
            heard = min(token.issued_at_us, now)
            changes.append(self._core.stream(self.feed, event="verified", at_us=heard))
            return changes

        self._keep_changes(make)
        self._heard_us = self._clock()
        return kept

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
        now = self._clock()
        if gap := self._gap(now):
            self._keep_changes(lambda: self._suspension(gap, now))
        self._heard_us = now

    def resynchronise(self, actor: str) -> None:
        """An operator vouches that what was missed has been made up for."""
        now = self._clock()

        def make() -> list[StoredChange]:
            return [self._core.stream(self.feed, event="resynchronised", at_us=now, detail=f"by {actor}")]

        self._keep_changes(make)
        self._heard_us = max(self._heard_us, now)

    def state(self) -> StreamState:
        """What the core knows of this stream."""
        for entry in orjson.loads(self._core.feeds(now_us=self._clock())):
            if entry["feed"] == self.feed:
                known = max(_instant(entry.get("verified_at")), _instant(entry.get("in_sync_since")))
                return StreamState(known, bool(entry["in_sync"]), entry["suspended"] is not None)
        return StreamState(0, False, False)

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
        if not state.in_sync and state.suspended:
            return []  # it is suspended: the first reason stands
        detail = problems[0][:MAX_DETAIL]
        if state.in_sync:
            self._note(self.feed, detail)
        return [self._core.stream(self.feed, event="suspended", at_us=now, detail=detail)]

    def _refuse(self, refused: SetRefusedError) -> None:
        """A SET that its transmitter signed for us, and that says nothing: an event is lost. Any other changes
        nothing, or whoever reaches us could suspend the stream."""
        self._count(f"refused_{refused.code}")
        self._say(str(refused), f"a SET is refused: {refused}")
        if refused.genuine:
            problem = f"a SET of the transmitter is malformed: {refused}"
            self._keep_changes(lambda: self._suspension([problem], self._clock()))

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
