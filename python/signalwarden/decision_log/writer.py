"""The writer: a thread that takes accepted records from the ring to a sink, off the answer's path.

While a sink fails, the batch in hand is kept and tried again, nothing more is taken from the ring, the ring fills,
and the core denies with `log_unavailable`: the log never says less than was allowed (I4). What is synced is settled:
only then the ring forgets it, so that a killed process leaves nothing out of the log.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from signalwarden.errors import LogError
from signalwarden.files import why

if TYPE_CHECKING:
    from signalwarden.decision_log.records import Recorder
    from signalwarden.decision_log.sink import Sink

__all__ = ["Drained", "LogHealth", "LogWriter", "Sealed"]

_log = logging.getLogger("signalwarden.decision_log")

MAX_RECORDS: Final = 4_096
"""Records taken at once. Only where alike denials are folded is a batch ever so large."""
MAX_BYTES: Final = 1024 * 1024
"""Of lines taken at once: they stand in memory twice. Some hundred records share what a batch costs; more would share
little more, and leave the processor's cache."""
LEAF_BYTES: Final = 32
"""SHA-256."""
WAIT_MS: Final = 100
"""How long a drain waits for the first record; bounds how late a stop is noticed."""
LAST_WAIT_MS: Final = 20
"""At a stop."""
PACE_S: Final = 0.03
"""Pause after a batch that was not full: many records a batch cost much less than one each, and this thread
competes with the answers for the interpreter."""
SYNC_EVERY_S: Final = 0.25
"""With WAIT_MS and PACE_S a record is on the disk well within the promised 0.5 s."""
FIRST_BACKOFF_S: Final = 0.05
LAST_BACKOFF_S: Final = 1.0
"""The disk that was full is found free again within this time."""


class Drained(Protocol):
    """The part of the engine that gives records away."""

    def drain_into(
        self, into: bytearray, *, max_records: int, max_bytes: int, wait_ms: int
    ) -> tuple[int, int, bytes]:
        """JSON lines into memory that grows where it must: (their bytes, how many records they stand for, the hash of
        each line as a leaf of the log's tree), oldest first."""

    def settle(self, count: int) -> None:
        """So many drained records, oldest first, are durable: nobody has to remember them any more."""

    def queued(self) -> int:
        """Records that wait."""


class Sealed(Protocol):
    """What reads along, in the writer's thread. Never raises."""

    def took(self, size: int, leaves: bytes) -> None:
        """The sink has a batch of so many bytes, whole, with these hashes of its lines: once for each, in order."""

    def synced(self) -> None:
        """All that was taken is durable."""


@dataclass(frozen=True, slots=True)
class LogHealth:
    """For readiness and metrics."""

    healthy: bool
    """False while writes or syncs fail, or the thread is gone."""
    lag_s: float
    """How long the oldest batch in hand has been waiting to be written and synced; 0 if there is none."""
    last_error: str | None
    """The last failure, kept after recovery."""
    written: int
    """Records written."""
    written_bytes: int
    """As they stand in the file."""
    failures: int
    """Failed writes and syncs."""


class LogWriter:
    """Owns the sink and the thread."""

    def __init__(self, engine: Drained, sink: Sink, recorder: Recorder, sealed: Sealed | None = None) -> None:
        self._engine = engine
        self._sink = sink
        self._sealed = sealed
        self._recorder = recorder
        self._stopping = threading.Event()
        self._deadline = float("inf")
        self._thread = threading.Thread(target=self._run, name="decision-log", daemon=True)
        self._broken: set[str] = set()
        """What fails: `write`, `sync`."""
        self._since: float | None = None
        self._synced_at = time.monotonic()
        self._last_error: str | None = None
        self._written = 0
        self._written_bytes = 0
        self._failures = 0
        self._left = 0
        self._memory = bytearray(MAX_BYTES)
        """For the batch in hand."""
        self._unsettled = 0
        """Records written and not yet synced: until then the ring remembers them."""

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def health(self) -> LogHealth:
        """What readiness says."""
        since = self._since
        lag = time.monotonic() - since if since is not None else 0.0
        healthy = self._thread.is_alive() and not self._broken
        return LogHealth(healthy, lag, self._last_error, self._written, self._written_bytes, self._failures)

    def stop(self, timeout_s: float) -> None:
        """Writes all that was accepted, syncs and ends. Raises LogError that says how many records were lost
        if that could not be done in time. Close the engine first, so that nothing new is accepted."""
        self._deadline = time.monotonic() + timeout_s
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s + 2 * LAST_BACKOFF_S)
        if self._thread.is_alive():
            raise LogError("the decision log did not end in time: a write hangs")
        left = self._left + self._engine.queued()
        if left or self._broken:
            raise LogError(f"{left} records could not be written to the decision log: {self._last_error}")

    def _run(self) -> None:
        try:
            while self._step():
                pass
        except Exception as error:  # noqa: BLE001  (whatever it was, readiness must say that nobody writes)
            self._fail("thread", error)
            _log.exception("the decision log's writer ended, every check is denied once the log is full")
        finally:
            self._sink.close()

    def _step(self) -> bool:
        """One batch; False when stopped and empty, or out of time."""
        stopping = self._stopping.is_set()
        waiting = self._recorder.retry()
        size, count, leaves = self._engine.drain_into(
            self._memory,
            max_records=MAX_RECORDS,
            max_bytes=MAX_BYTES,
            wait_ms=self._wait_ms(stopping=stopping),
        )
        if count:
            self._since = self._since if self._since is not None else time.monotonic()
            if not self._persist(size, count, leaves):
                return False
        self._sync(force=stopping and not count)
        if stopping:
            out_of_time = time.monotonic() > self._deadline
            busy = count > 0 or waiting > 0 or self._since is not None or self._engine.queued() > 0
            return not out_of_time and busy
        if size < MAX_BYTES // 2 and count < MAX_RECORDS:
            self._stopping.wait(PACE_S)
        return True

    def _wait_ms(self, *, stopping: bool) -> int:
        if not stopping:
            return WAIT_MS
        # What waits to become durable in the ring comes soon.
        return LAST_WAIT_MS if self._engine.queued() else 0

    def _persist(self, size: int, count: int, leaves: bytes) -> bool:
        """Offers the batch to the sink until it is taken; False if the time of an orderly stop is up first."""
        backoff = FIRST_BACKOFF_S
        while True:
            try:
                if size:
                    with memoryview(self._memory) as whole, whole[:size] as batch:
                        self._sink.write(batch)
            except (OSError, LogError) as error:
                self._fail("write", error)
            else:
                self._written += len(leaves) // LEAF_BYTES
                self._written_bytes += size
                self._unsettled += count
                self._recovered("write")
                if self._sealed is not None:
                    self._sealed.took(size, leaves)
                return True
            if self._stopping.is_set():
                if time.monotonic() > self._deadline:
                    self._left = count
                    return False
                time.sleep(min(backoff, FIRST_BACKOFF_S))
            else:
                self._stopping.wait(backoff)
            backoff = min(2 * backoff, LAST_BACKOFF_S)

    def _sync(self, *, force: bool) -> None:
        now = time.monotonic()
        if self._since is None or (not force and now - self._synced_at < SYNC_EVERY_S):
            return
        self._synced_at = now
        try:
            self._sink.sync()
        except OSError as error:
            self._fail("sync", error)
        else:
            # In this order: whoever sees no lag finds the room free.
            self._engine.settle(self._unsettled)
            self._unsettled = 0
            self._since = None
            self._recovered("sync")
            if self._sealed is not None:
                self._sealed.synced()

    def _fail(self, what: str, error: Exception) -> None:
        self._failures += 1
        self._last_error = why(error) if isinstance(error, OSError) else str(error)
        if not self._broken:
            _log.error("the decision log can't be written: %s; it is tried again", self._last_error)
        self._broken.add(what)

    def _recovered(self, what: str) -> None:
        if what in self._broken:
            self._broken.discard(what)
            _log.warning("the decision log is written again")
