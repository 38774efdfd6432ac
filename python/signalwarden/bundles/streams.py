"""One stream of the Workload API, opened again and again: each message is the whole state.

PermissionDenied takes everything back at once (SPIFFE Workload API, section 5.2). A connection that is lost takes
nothing back at first; the one that uses this counts how long that is so. InvalidArgument ends it: the same call would
be refused for ever (SPIFFE Workload Endpoint, section 6).
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

import grpc

from signalwarden.bundles.workload_messages import METADATA, RESPONSES

__all__ = ["Stream", "Taker", "channel"]

logger = logging.getLogger("signalwarden")

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
"""Sixty-four trust domains with bundles of sixty-four certificates."""
BACKOFF_S: Final = 0.25
MAX_BACKOFF_S: Final = 15.0
"""An agent that is restarted is found so much later at most."""
STOP_S: Final = 5.0


class Taker(Protocol):
    """What a stream brings its messages to, from its own thread."""

    def take(self, message: Any) -> None:
        """The whole new state. Raises ValueError of one sentence for a message that is not used."""

    def denied(self) -> None:
        """Nothing is ours any more."""

    def age(self, now: float, lost_for: float) -> None:
        """Forgets what has gone on for too long. `lost_for`: seconds since the stream was last well."""


def channel(target: str) -> grpc.Channel:
    """To a socket of this machine; nothing is sent before the first call."""
    return grpc.insecure_channel(
        target,
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.enable_http_proxy", 0),
            ("grpc.enable_retries", 0),
            ("grpc.use_local_subchannel_pool", 1),
            # Ours is the backoff that counts.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1_000),
        ],
    )


class Stream:
    """A thread that keeps one server stream open."""

    def __init__(
        self, opened: grpc.Channel, method: str, taker: Taker, recovered: Callable[[], None] = lambda: None
    ) -> None:
        self._name = method.rpartition("/")[2]
        self._open: Any = opened.unary_stream(
            method,
            request_serializer=lambda _: b"",
            response_deserializer=RESPONSES[method].FromString,
        )
        self._taker = taker
        self._recovered = recovered
        self._stop = threading.Event()
        self._again = threading.Event()
        """Cuts a backoff short."""
        self._mutex = threading.Lock()
        self._call: Any = None
        self._lost_at: float | None = time.monotonic()
        self._error: str | None = "not connected yet"
        self.failures = 0
        self.heard = False
        """Whether it has told its part, or never will. A denial is neither: another stream may be ahead of this one."""
        self._thread = threading.Thread(target=self._run, name=f"workload API {self._name}", daemon=True)

    @property
    def error(self) -> str | None:
        """Why there is no connection, or why its last message was not used; None while all is well."""
        return self._error

    def lost_for(self, now: float) -> float:
        """Seconds since its last good message was in force without doubt; 0 while all is well."""
        lost_at = self._lost_at
        return 0.0 if lost_at is None else max(0.0, now - lost_at)

    def start(self) -> None:
        """Opens it."""
        self._thread.start()

    def nudge(self) -> None:
        """Another stream is well again: if this one waits to come again, now is the time."""
        if self._error is not None:
            self._again.set()

    def stop(self) -> None:
        """Closes it. May be called twice, and without a start."""
        self._stop.set()
        self._again.set()
        with self._mutex:
            if self._call is not None:
                self._call.cancel()
        if self._thread.ident is not None:
            self._thread.join(STOP_S)

    def _run(self) -> None:
        attempts = 0
        while not self._stop.is_set():
            try:
                taken, again = self._follow()
            except Exception:  # the last line: a thread that has died would not be missed for long
                logger.exception("a stream of the workload API failed, it goes on")
                self._lose("a mistake of our own, see the log")
                taken, again = False, True
            if not again:
                return
            attempts = 0 if taken else attempts + 1
            self._again.wait(_backoff(attempts))
            self._again.clear()

    def _follow(self) -> tuple[bool, bool]:
        """One connection, to its end. Whether a message was taken, and whether to come again."""
        taken = False
        with self._mutex:
            if self._stop.is_set():
                return False, False
            self._call = self._open(b"", metadata=METADATA)
        try:
            for message in self._call:
                taken = self._take(message) or taken
                if self._stop.is_set():
                    return taken, False
            self._lose("the agent closed the stream")
        except grpc.RpcError as error:
            if self._stop.is_set():
                return taken, False
            told: Any = error  # every one of a call tells its status, which the stubs don't know
            code: grpc.StatusCode | None = told.code()
            if code is grpc.StatusCode.INVALID_ARGUMENT:
                self._lose("the agent refuses the call (INVALID_ARGUMENT); it is not tried again")
                self.heard = True
                return taken, False
            if code is grpc.StatusCode.PERMISSION_DENIED:
                self.heard = False
                self._taker.denied()
                self._lose("the agent knows no identity of ours (PERMISSION_DENIED)")
            else:
                self.heard = self.heard or code is grpc.StatusCode.UNIMPLEMENTED
                self._lose(f"no connection ({'UNKNOWN' if code is None else code.name})")
        finally:
            self._call.cancel()
        return taken, True

    def _take(self, message: Any) -> bool:
        try:
            self._taker.take(message)
        except ValueError as error:
            self._lose(str(error))
            return False
        recovers, self._lost_at, self._error, self.heard = self._error is not None, None, None, True
        if recovers:
            logger.info("%s of the workload API: connected", self._name)
            self._recovered()
        return True

    def _lose(self, reason: str) -> None:
        self.failures += 1
        if self._lost_at is None:
            self._lost_at = time.monotonic()
        if reason != self._error:
            logger.warning("%s of the workload API: %s", self._name, reason)
        self._error = reason


def _backoff(attempts: int) -> float:
    """Twice as long each time, half of it left to chance."""
    most: float = min(MAX_BACKOFF_S, BACKOFF_S * 2 ** min(attempts, 16))
    return most * (0.5 + random.random() / 2)  # noqa: S311 - nobody gains from guessing it
