"""Lets go of kept changes that count no more, so that the state is as large as what lives and not as what ever was.

First from the disk, then from memory: a kill between the two leaves nothing that a restart could bring back, and a
failed write leaves both as they were.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from signalwarden.intake import Intake
    from signalwarden.state import Store

__all__ = ["BATCH", "MAX_BATCHES", "Sweep"]

BATCH: Final = 1_000
"""Keys of one transaction: some twenty milliseconds of the disk, in which no change of state is taken in."""
MAX_BATCHES: Final = 5
"""Of one sweep. At one sweep a second that is more than a server can begin in the same time."""


class Forgetting(Protocol):
    """The part of the engine that knows what counts no more."""

    def expired(self, *, limit: int, now_us: int) -> list[str]:
        """Keys of kept changes that count no more. What belongs together comes together, so there may be more than
        `limit`."""

    def forget(self, keys: Sequence[str]) -> None:
        """Lets go of what these keys name."""


class Sweep:
    """Thread-safe; waits for the disk."""

    def __init__(self, engine: Forgetting, store: Store, intake: Intake, *, clock: Callable[[], int]) -> None:
        self._engine = engine
        self._store = store
        self._intake = intake
        self._clock = clock

    def run(self) -> int:
        """Forgets what counts no more, at most a few batches; how many keys. Raises StateError if they can't be
        removed; then they are tried again the next time."""
        forgotten = 0
        for _ in range(MAX_BATCHES):
            count = self._intake.undisturbed(self._batch)
            forgotten += count
            if count < BATCH:
                break
        return forgotten

    def _batch(self) -> int:
        """While no change is under way, so that nothing is added to what is being forgotten."""
        keys = self._engine.expired(limit=BATCH, now_us=self._clock())
        if keys:
            # INVARIANT: the disk first. What memory alone forgets, a restart would bring back.
            self._store.forget(keys)
            self._engine.forget(keys)
        return len(keys)
