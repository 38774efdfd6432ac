"""A server in the foreground: what SIGTERM, SIGINT and SIGHUP do."""

from __future__ import annotations

import contextlib
import signal
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, Protocol

from signalwarden.errors import ConfigurationError, StateError

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["Foreground"]

LOOK_S: Final = 1.0
"""The system may hand a signal to any thread, and then the wait for one is not interrupted: it ends by itself."""


class Running(Protocol):
    """What is served: `app.App`."""

    def start(self) -> None:
        """Loads, opens, answers."""

    def say_started(self) -> None:
        """Says so."""

    def reload(self, actor: str) -> str:
        """Puts the directory in force as it is now."""

    def stop(self) -> None:
        """Stops in reverse. May be called twice."""


class Foreground:
    """Serves until SIGTERM or SIGINT; SIGHUP reloads."""

    def __init__(self, app: Running) -> None:
        self._app = app
        # A handler runs in the midst of whatever the main thread does, the wait itself included: an Event's lock
        # may be held just then, and the handler would wait for it for good. This queue's `put` is made for that.
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._end = False
        self._hup = False

    def run(self) -> None:
        """From start to stop, in the main thread."""
        handlers = {signal.SIGTERM: self._on_end, signal.SIGINT: self._on_end, signal.SIGHUP: self._on_hup}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            self._app.start()
            self._app.say_started()
            self._serve()
        finally:
            try:
                self._app.stop()
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

    def _serve(self) -> None:
        while not self._end:
            with contextlib.suppress(Empty):
                self._wake.get(timeout=LOOK_S)
            if self._hup:
                self._hup = False
                with contextlib.suppress(ConfigurationError, StateError):  # recorded and logged
                    self._app.reload("SIGHUP")

    def _on_end(self, _number: int, _frame: FrameType | None) -> None:
        self._end = True
        self._wake.put(None)

    def _on_hup(self, _number: int, _frame: FrameType | None) -> None:
        self._hup = True
        self._wake.put(None)
