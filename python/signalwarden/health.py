"""`grpc.health.v1` of the front door. No lock is held while something is sent.

Not grpcio's own servicer: that one sends under its lock, and takes the same lock when a watcher leaves, in the one
thread that carries the events of every call. A watcher that leaves in that moment stops the whole server for good:
no check is answered any more, and a stop never ends.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Send = Callable[[health_pb2.HealthCheckResponse], None]
    _Servicer = object  # the generated class has no types
else:
    _Servicer = health_pb2_grpc.HealthServicer

__all__ = ["Health"]

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Health(_Servicer):
    """One state for the server and for each of its services: they open and close together."""

    def __init__(self, services: Iterable[str]) -> None:
        self._services = {"", *services}
        self._serving = False
        self._mutex = threading.Lock()
        """Guards the set of watchers, for as long as it takes to change or copy it."""
        self._watchers: set[_Watcher] = set()

    def set(self, *, serving: bool) -> None:
        """Changes the state and tells every watcher; returns when each has been sent it, or is gone."""
        self._serving = serving
        with self._mutex:
            watchers = list(self._watchers)
        for watcher in watchers:
            watcher.tell()

    def Check(  # noqa: N802  # the name is the protocol's
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        """The state now."""
        if request.service not in self._services:
            context.set_code(grpc.StatusCode.NOT_FOUND)
            return health_pb2.HealthCheckResponse()
        return self._answer(request.service)

    def Watch(  # noqa: N802
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.ServicerContext,
        send_response_callback: Send,
    ) -> None:
        """The state now, and each time it changes. Returns at once: a watcher holds no thread."""
        service = request.service
        watcher = _Watcher(send_response_callback, lambda: self._answer(service))
        with self._mutex:
            self._watchers.add(watcher)
        if not context.add_callback(lambda: self._forget(watcher)):
            self._forget(watcher)  # gone already
        watcher.tell()

    def _forget(self, watcher: _Watcher) -> None:
        with self._mutex:
            self._watchers.discard(watcher)

    def _answer(self, service: str) -> health_pb2.HealthCheckResponse:
        known = _SERVING if self._serving else _NOT_SERVING
        return health_pb2.HealthCheckResponse(status=known if service in self._services else _UNKNOWN)


# How grpcio is told that a handler of a stream sends by callback (as its own servicer does).
_watch: Any = Health.Watch
_watch.experimental_non_blocking = True


class _Watcher:
    """One stream."""

    def __init__(self, send: Send, answer: Callable[[], health_pb2.HealthCheckResponse]) -> None:
        self._send = send
        self._answer = answer
        self._mutex = threading.Lock()
        """Of this stream alone, and never taken by the thread that carries events: what is sent last is what is
        true last."""

    def tell(self) -> None:
        """Sends the state of this moment."""
        with self._mutex:
            self._send(self._answer())
