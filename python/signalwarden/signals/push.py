"""Signals that publishers push: `POST /v1/signals` hands its bodies to this source."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from signalwarden.errors import StateError
from signalwarden.services import Client
from signalwarden.signals import Status

__all__ = ["PushSource"]


class PushSource:
    """Carries a publisher's batch to the app and keeps count. Thread-safe."""

    kind: Final = "push"

    def __init__(
        self, publish: Callable[[bytes, Client], bytes], *, clock: Callable[[], float] = time.time
    ) -> None:
        self._publish = publish
        self._clock = clock
        self._lock = threading.Lock()
        self._running = True
        self._batches = 0
        self._last_batch: float | None = None
        self._last_error: str | None = None

    def take(self, body: bytes, client: Client) -> bytes:
        """One batch in, the publisher's answer out. Raises what the app raises, StateError after `stop`."""
        if not self._running:
            raise StateError("the server is stopping and takes no more signals")
        try:
            answer = self._publish(body, client)
        except Exception as error:
            self._count(type(error).__name__)
            raise
        self._count(None)
        return answer

    def start(self) -> None:
        """Takes batches from now on."""
        self._running = True

    def stop(self) -> None:
        """Refuses batches from now on."""
        self._running = False

    def status(self) -> Status:
        """How many batches were carried, and how the last one went."""
        with self._lock:
            return Status(self._running, self._batches, self._last_batch, self._last_error)

    def _count(self, error: str | None) -> None:
        with self._lock:
            self._batches += 1
            self._last_batch = self._clock()
            self._last_error = error
