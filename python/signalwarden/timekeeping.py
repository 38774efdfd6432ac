"""The mark of time, kept each second so that a restart does not take it back; and what ends when the clock is set back
by more than the mark can bridge."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from signalwarden.errors import SignalwardenError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from signalwarden import _core
    from signalwarden.intake import Intake

__all__ = ["TimeKeeper"]

_log = logging.getLogger("signalwarden")


class Keeping(Protocol):
    """The part of the engine that knows the time that counts."""

    def set_back(self, *, now_us: int) -> Sequence[_core.StoredChange]:
        """What ends whatever was given out before time ran back; nothing, if it did not."""

    def time_mark(self, *, now_us: int) -> _core.StoredChange:
        """The mark itself."""


class TimeKeeper:
    """Thread-safe; waits for the disk."""

    def __init__(self, engine: Keeping, intake: Intake, *, clock: Callable[[], int]) -> None:
        self._engine = engine
        self._intake = intake
        self._clock = clock

    def keep(self) -> bool:
        """Keeps the mark; true if time ran back, so that all tasks, approvals and overrides have ended. Raises
        StateError if that can't be kept."""
        ended: list[_core.StoredChange] = []

        def make() -> list[_core.StoredChange]:
            now = self._clock()
            ended.extend(self._engine.set_back(now_us=now))
            return [*ended, self._engine.time_mark(now_us=now)]

        self._intake.keep(make)
        if ended:
            _log.error(
                "the clock was set back by more than an hour: tasks, approvals and overrides of before have ended"
            )
        return bool(ended)

    def try_to_keep(self) -> bool:
        """The same; what can't be kept now is logged, and kept the next time."""
        try:
            return self.keep()
        except SignalwardenError as error:
            _log.error("the time mark can't be kept: %s", error)
            return False
