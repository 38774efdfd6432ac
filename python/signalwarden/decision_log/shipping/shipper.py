"""A shipper: a thread that reads on from the log's files and hands batches to one destination until they are taken.

At least once: a batch is done with when the destination has taken it and the cursor is on the disk; what lies between
the two is sent again after a crash, and told apart by the record's own id.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

import orjson

from signalwarden.decision_log.shipping.destination import Entry, NotTakenError
from signalwarden.errors import LogError
from signalwarden.files import why

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from signalwarden.decision_log.shipping.destination import Destination
    from signalwarden.decision_log.shipping.following import Batch, Following, Stretch

__all__ = ["Shipper", "SinkHealth"]

_log = logging.getLogger("signalwarden.decision_log")

MAX_RECORDS: Final = 512
"""As OpenTelemetry's own batches."""
MAX_BYTES: Final = 1 << 20
"""Of lines: with what is made of them well below the 4 MiB that servers of gRPC take, and about what proxies take."""
POLL_S: Final = 0.2
"""How often a log that was read to its end is looked at."""
FIRST_BACKOFF_S: Final = 0.5
LAST_BACKOFF_S: Final = 30.0
"""A collector that is back is found within this time."""
LONGEST_WAIT_S: Final = 300.0
"""However long the other side asks for."""
LET_GO_S: Final = 0.5
"""For a call that was ended; one that hangs all the same is left behind, and its batch comes again."""


@dataclass(frozen=True, slots=True)
class SinkHealth:
    """For readiness and metrics."""

    name: str
    required: bool
    healthy: bool
    """False from a failure to the next success, or if the thread is gone."""
    lag_records: int
    """Records of the log that it has not taken."""
    lag_s: float
    """Age of the oldest of them that is in hand; 0 if none is."""
    taken: int
    failures: int
    refused: int
    """Records that the other side refused for good, since the cursor was made."""
    lost: int
    """Records that were pruned before they were taken, since the cursor was made."""
    skipped: int
    """Lines that are no records."""
    last_error: str | None


class Shipper:
    """Owns one destination, and what was read for it. A `retention.Reader`."""

    def __init__(
        self,
        name: str,
        destination: Destination,
        following: Following,
        *,
        required: bool,
        on_lost: Callable[[str, int], None] = lambda _name, _count: None,
    ) -> None:
        """`on_lost` hears how many records were pruned before they were taken."""
        self._name = name
        self._required = required
        self._destination = destination
        self._following = following
        self._on_lost = on_lost
        self._written: Callable[[], int] = lambda: 0
        self._mutex = threading.Lock()
        self._backlog = 0
        """Lines that stood behind the cursor at the start, less what is done with since."""
        self._most_records = MAX_RECORDS
        self._stopping = threading.Event()
        self._deadline = float("inf")
        self._failing = False
        self._taken = self._failures = self._skipped = 0
        self._oldest: float | None = None
        self._last_error: str | None = None
        self._thread = threading.Thread(target=self._run, name=f"sink-{name}", daemon=True)

    @property
    def name(self) -> str:
        """See retention.Reader."""
        return self._name

    @property
    def required(self) -> bool:
        """See retention.Reader."""
        return self._required

    def start(self, written: Callable[[], int]) -> None:
        """Begins, before anything is written; `written`: how many records were written since."""
        self._written = written
        stretch = self._following.stretch()
        # Beside it: what a sink that was dead for weeks has not taken takes long to count.
        name = f"sink-{self._name}-backlog"
        threading.Thread(target=self._count, args=(stretch,), name=name, daemon=True).start()
        self._thread.start()

    def _count(self, stretch: Stretch) -> None:
        try:
            self._behind(self._following.backlog(stretch))
        except LogError as error:
            _log.warning("the sink `%s` does not know how many records it lags behind: %s", self._name, error)

    def _behind(self, more: int) -> None:
        with self._mutex:
            self._backlog += more

    def end(self, grace_s: float) -> None:
        """Sends what is left while that works, within the time given. Returns at once: several end together."""
        self._deadline = time.monotonic() + grace_s
        self._stopping.set()

    def stop(self) -> None:
        """Waits until it has ended. What it has not sent it sends after the next start."""
        if self._thread.ident is not None:
            self._thread.join(max(0.0, self._deadline - time.monotonic()))
        self._destination.close()
        if self._thread.ident is not None:
            self._thread.join(LET_GO_S)

    def health(self) -> SinkHealth:
        """What readiness says."""
        oldest, cursor = self._oldest, self._following.cursor
        return SinkHealth(
            name=self._name,
            required=self._required,
            healthy=self._thread.is_alive() and not self._failing,
            lag_records=max(0, self._backlog + self._written()),
            lag_s=max(0.0, time.time() - oldest) if oldest is not None else 0.0,
            taken=self._taken,
            failures=self._failures,
            refused=cursor.refused,
            lost=cursor.lost,
            skipped=self._skipped,
            last_error=self._last_error,
        )

    # ------------------------------------------------------------ for whoever prunes

    def needs_from(self) -> int | None:
        """See retention.Reader."""
        return self._following.needs_from()

    def forgo(self, file: Path, number: int) -> None:
        """See retention.Reader."""
        lost = self._following.forgo(file, number)
        self._behind(-lost)
        if lost:
            self._on_lost(self._name, lost)

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        try:
            while self._step():
                pass
        except Exception as error:  # noqa: BLE001  (whatever it was, readiness must say that nobody sends)
            self._failed(str(error))
            _log.exception(
                "the sink `%s` ended: it takes nothing more until the server is started anew", self._name
            )
        finally:
            self._following.close()

    def _step(self) -> bool:
        """One batch; False when stopped and done, failing, or out of time."""
        stopping = self._stopping.is_set()
        if stopping and (self._failing or time.monotonic() > self._deadline):
            return False
        try:
            batch = self._following.read(self._most_records, MAX_BYTES)
        except (OSError, LogError) as error:
            self._failed(f"the log can't be read: {why(error) if isinstance(error, OSError) else error}")
            return not self._stopping.wait(LAST_BACKOFF_S)
        if batch is None:
            self._oldest = None
            self._keep()
            self._stopping.wait(POLL_S)
            return not stopping
        self._deliver(batch)
        return True

    def _deliver(self, batch: Batch) -> None:
        """Sends a batch, in parts if it must be, until all of it is done with or the server stops."""
        entries = [_entry(line) for line in batch.lines]
        self._oldest = next((_time(entry) for entry in entries if entry is not None), None)
        done, backoff = 0, FIRST_BACKOFF_S
        while done < len(entries):
            part = entries[done : done + self._most_records]
            records = [entry for entry in part if entry is not None]
            try:
                refused = self._destination.send(records).refused if records else 0
            except NotTakenError as error:
                self._failed(str(error))
                if error.too_large and self._smaller(records):
                    continue
                if not error.too_large:
                    if not self._wait(backoff, error.retry_after_s):
                        return
                    backoff = min(2 * backoff, LAST_BACKOFF_S)
                    continue
                refused = len(records)  # one alone that is too large for the other side
            done += len(part)
            backoff = FIRST_BACKOFF_S
            self._done(batch, done, part, refused)

    def _done(self, batch: Batch, done: int, part: list[Entry | None], refused: int) -> None:
        records = sum(entry is not None for entry in part)
        self._taken += records - refused
        self._skipped += len(part) - records
        self._behind(-len(part))
        self._following.taken(batch, done)
        cursor = self._following.cursor
        cursor.sequence += records - refused
        cursor.refused += refused
        if refused:
            _log.warning(
                "the sink `%s` refused %d records for good; the log itself has them", self._name, refused
            )
        self._keep()
        self._most_records = min(2 * self._most_records, MAX_RECORDS)
        if self._failing:
            self._failing = False
            _log.warning("the sink `%s` takes records again", self._name)

    def _smaller(self, records: list[Entry]) -> bool:
        """Fewer at once from now on; False if it was one alone."""
        if len(records) <= 1:
            _log.error(
                "a record is too large for the sink `%s` and is not sent: %.200s", self._name, _id(records[0])
            )
            return False
        self._most_records = max(1, len(records) // 2)
        return True

    def _wait(self, backoff_s: float, asked_s: float) -> bool:
        """Waits before the next try; False if the server stops. Not all at once: many servers may have lost the same
        collector."""
        jittered = backoff_s * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        return not self._stopping.wait(max(jittered, min(asked_s, LONGEST_WAIT_S)))

    def _keep(self) -> None:
        try:
            self._following.keep()
        except OSError as error:
            # It goes on: after a crash, what is sent from now on is sent twice.
            self._last_error = f"its cursor can't be kept: {why(error)}"

    def _failed(self, sentence: str) -> None:
        self._failures += 1
        self._last_error = sentence
        if not self._failing:
            _log.error("the sink `%s` takes no records: %s; it is tried again", self._name, sentence)
        self._failing = True


def _entry(line: bytes) -> Entry | None:
    """None for a line that is no record: whoever reads the log itself is told of it."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return Entry(line, record) if isinstance(record, dict) else None


def _time(entry: Entry) -> float | None:
    try:
        return datetime.fromisoformat(str(entry.record.get("time"))).timestamp()
    except ValueError:
        return None


def _id(entry: Entry) -> object:
    return next(
        (entry.record[key] for key in ("decision_id", "change_id", "event_id") if key in entry.record), "-"
    )
