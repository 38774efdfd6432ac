"""A thread that looks now and then, as long after each look as that look says."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

__all__ = ["Looking"]

logger = logging.getLogger("signalwarden")

RETRY_S: Final = 30.0
"""After a mistake of our own in a look."""
STOP_S: Final = 5.0
"""For a look under way at a stop. Its thread is a daemon: one that hangs keeps nobody."""


class Looking:
    """Calls `look` until it is stopped; what it returns is the seconds to the next."""

    def __init__(self, name: str, look: Callable[[], float]) -> None:
        self._look = look
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def stopped(self) -> bool:
        """True once `stop` has been called: what a look finds after that counts no more."""
        return self._stop.is_set()

    def start(self) -> None:
        """Begins, with a look at once."""
        self._thread.start()

    def halt(self) -> None:
        """Ends, without waiting for a look under way: nobody may believe any more what that one finds."""
        self._stop.set()

    def stop(self) -> None:
        """Ends. May be called twice, and without a start."""
        self._stop.set()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(STOP_S)

    def _run(self) -> None:
        pause = 0.0
        while not self._stop.wait(pause):
            try:
                pause = self._look()
            except Exception:  # the last line: a thread that has died would not be missed for long
                logger.exception("a look at a trust bundle failed, it goes on")
                pause = RETRY_S
