"""The one way of live state: the core judges, the store keeps, the core takes it in, and only then is there an answer.

Group commit: callers hand in their batches and wait. One of them leads: it takes all that wait, has them judged
together, writes what they change in one transaction, has it taken in and answers each. While it waits for the disk
the next group gathers, so a slow disk costs a transaction for many callers and not for each.

A decision never waits here: the core's state is changed by `apply` alone, after the write.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from signalwarden import _core
from signalwarden.errors import BadInputError, RateLimitedError, SignalwardenError, StateError
from signalwarden.rates import Rates

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from signalwarden.state import Store

__all__ = ["Intake", "read_back"]

MAX_WAITING: Final = 1_024
"""Batches that may wait at once; each has a caller that waits with it, and no door has so many."""
MAX_WAITING_BYTES: Final = 128 * 1024 * 1024
"""Their bodies together: sixty of the largest."""
MAX_GROUP: Final = 64
"""Batches of one transaction. More gain nothing: one sync for 64 is no cost that is left to save."""
MAX_GROUP_BYTES: Final = 1024 * 1024
"""Their bodies together: half a dozen full calls. Whoever comes next waits for a fraction of a second, and the
longest step that holds the interpreter, sorting, keeps a decision waiting for a few milliseconds at most."""
REPLAY_BATCH: Final = 1_000
"""Changes that are taken in at once when they are read back."""
_PACED: Final = "poll:"
"""Origins that we ask ourselves, at our own pace: an answer that is cut in calls would hold itself up."""
_MARK: Final = b'"observed_at"'
"""Each value has this key once, so a body has about so many values; the core's count corrects it."""

T = TypeVar("T")


class Judging(Protocol):
    """The part of the engine that takes changes in."""

    def admit_all(self, batches: Sequence[tuple[bytes, str]], *, now_us: int) -> list[_core.Admission]:
        """Judges; changes nothing."""

    def apply(self, changes: Sequence[_core.StoredChange], *, now_us: int) -> None:
        """Takes in what was kept."""


def read_back(engine: Judging, store: Store, clock: Callable[[], int]) -> None:
    """Takes in what the store has kept. Raises StateError."""
    batch: list[_core.StoredChange] = []
    for change in store.read_all():
        batch.append(change)
        if len(batch) >= REPLAY_BATCH:
            _take_in(engine, batch, clock())
            batch = []
    _take_in(engine, batch, clock())


def _take_in(engine: Judging, batch: list[_core.StoredChange], now_us: int) -> None:
    try:
        engine.apply(batch, now_us=now_us)
    except SignalwardenError as error:
        # Half a state is no state: a lost revocation or signal could widen access.
        raise StateError(f"the state holds a change that can't be read: {error}") from error


class _Batch:
    """One caller's body, and what became of it."""

    __slots__ = ("answer", "body", "counted", "error", "origin", "turn")

    def __init__(self, body: bytes, origin: str) -> None:
        self.body = body
        self.origin = origin
        self.answer: bytes | None = None
        self.error: SignalwardenError | None = None
        self.counted: int | None = None
        """How many values it had; None if it could not be read."""
        self.turn = threading.Lock()
        """Held until the batch is answered, or its caller must lead."""

    @property
    def done(self) -> bool:
        return self.answer is not None or self.error is not None


class Intake:
    """Judge, keep, take in. Thread-safe; every method waits for the disk."""

    def __init__(
        self,
        engine: Judging,
        store: Store,
        *,
        clock: Callable[[], int],
        max_rate: int,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine = engine
        self._store = store
        self._clock = clock
        self._on_failure = on_failure
        self._rates = Rates(max_rate)
        self._changes = threading.Lock()
        """Held from judging a change to taking it in, and while a configuration is swapped."""
        self._mutex = threading.Lock()
        """Guards what follows, for a few steps at a time."""
        self._waiting: deque[_Batch] = deque()
        self._waiting_bytes = 0
        self._led = False
        self._counts = dict.fromkeys(("intake_groups", "intake_batches", "rate_limited"), 0)

    # ------------------------------------------------------------ publishing

    def publish(self, body: bytes, origin: str) -> bytes:
        """A body of POST /v1/signals in, its JSON answer out, after the durable write. Raises BadInputError for a
        body that can't be read, RateLimitedError, and StateError if it can't be kept; then nothing of it was taken."""
        charged = self._charge(body, origin)
        batch = self._queue(body, origin)
        if batch is None:
            self._correct(origin, -charged)
            self._count("rate_limited")
            raise RateLimitedError("too many batches wait to be written: try again in 1 s")
        # A body that can't be read still costs what it was taken for.
        self._correct(origin, (batch.counted or charged) - charged)
        if batch.error is not None:
            raise batch.error
        assert batch.answer is not None  # noqa: S101  # for the type checker: it is done
        return batch.answer

    def _charge(self, body: bytes, origin: str) -> int:
        """Before anything is parsed."""
        values = max(1, body.count(_MARK))
        if not origin.startswith(_PACED):
            try:
                self._rates.take(origin, values)
            except RateLimitedError:
                self._count("rate_limited")
                raise
        return values

    def _correct(self, origin: str, values: int) -> None:
        if values and not origin.startswith(_PACED):
            self._rates.correct(origin, values)

    def _queue(self, body: bytes, origin: str) -> _Batch | None:
        """Hands a batch in and returns it when it is done; None if too many wait already."""
        batch = _Batch(body, origin)
        batch.turn.acquire()
        with self._mutex:
            if len(self._waiting) >= MAX_WAITING or self._waiting_bytes + len(body) > MAX_WAITING_BYTES:
                return None
            self._waiting.append(batch)
            self._waiting_bytes += len(body)
            leads, self._led = not self._led, True
        if not leads:
            batch.turn.acquire()
        if not batch.done:
            self._lead(batch)
        return batch

    def _lead(self, first: _Batch) -> None:
        """Answers the group at the front, of which the leader's own batch is the first, and hands the lead on."""
        group: list[_Batch] = []
        try:
            with self._changes:
                group = self._next_group()
                self._commit(group)
        finally:
            lost = StateError("the write was broken off, nothing of it is known to be kept")
            with self._mutex:
                if not group:  # an exception from outside while it waited
                    self._waiting.remove(first)
                    self._waiting_bytes -= len(first.body)
                next_leader = self._waiting[0] if self._waiting else None
                self._led = next_leader is not None
            for batch in group:
                if not batch.done:
                    batch.error = lost
                batch.turn.release()
            if next_leader is not None:
                next_leader.turn.release()

    def _next_group(self) -> list[_Batch]:
        with self._mutex:
            group = [self._waiting.popleft()]
            size = len(group[0].body)
            while self._waiting and len(group) < MAX_GROUP:
                size += len(self._waiting[0].body)
                if size > MAX_GROUP_BYTES:
                    break
                group.append(self._waiting.popleft())
            self._waiting_bytes -= sum(len(batch.body) for batch in group)
            self._counts["intake_groups"] += 1
            self._counts["intake_batches"] += len(group)
        return group

    def _commit(self, group: Sequence[_Batch]) -> None:
        """Judges, keeps and takes in a group. What fails for all is each one's error."""
        now = self._clock()
        try:
            batches = [(batch.body, batch.origin) for batch in group]
            judged = self._engine.admit_all(batches, now_us=now)
            changes = [change for admission in judged for change in admission.changes]
            self._keep(changes, now)
        except BadInputError as error:  # a publisher that is none: nobody else pays for it
            for batch in group if len(group) > 1 else ():
                self._commit([batch])
            if len(group) == 1:
                group[0].error = error
            return
        except SignalwardenError as error:
            for batch in group:
                # An error of its own for each: it is raised in another thread, with another traceback.
                batch.error = type(error)(str(error))
            return
        for batch, admission in zip(group, judged, strict=True):
            if admission.error is not None:
                batch.error = BadInputError(admission.error)
            else:
                batch.counted = admission.accepted + len(admission.rejected)
                batch.answer = admission.answer

    # ------------------------------------------------------------ other changes

    def keep(self, make: Callable[[], Sequence[_core.StoredChange]]) -> None:
        """Makes changes while nobody else does, keeps them and takes them in. Raises StateError if they can't be
        kept, and what `make` raises; then nothing is changed."""
        with self._changes:
            changes = make()
            self._keep(changes, self._clock())

    def undisturbed(self, act: Callable[[], T]) -> T:
        """Does something while no change is under way: a swap of the configuration."""
        with self._changes:
            return act()

    def _keep(self, changes: Sequence[_core.StoredChange], now: int) -> None:
        if not changes:
            return
        try:
            self._store.append(changes)
        except StateError:
            self._on_failure()
            raise
        # INVARIANT: taken in after it is durable, so that no answer rests on what a kill takes back.
        try:
            self._engine.apply(changes, now_us=now)
        except BadInputError as error:
            self._on_failure()
            raise StateError(f"what was kept can't be taken in: {error}") from error

    # ------------------------------------------------------------ figures

    def counters(self) -> dict[str, int]:
        """Groups written, batches in them, calls refused for their rate; and how many wait."""
        with self._mutex:
            return {**self._counts, "intake_waiting": len(self._waiting)}

    def _count(self, name: str) -> None:
        with self._mutex:
            self._counts[name] += 1
