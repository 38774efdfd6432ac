"""A Workload API that does as it is told, on a real Unix socket with real gRPC: for faults that no SPIRE makes on demand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from signalwarden.bundles.workload_messages import MESSAGES
from signalwarden.values import Address
from tests.authorities import Issued

__all__ = ["WorkloadEndpoint", "serving"]

STREAMS = ("FetchX509SVID", "FetchX509Bundles", "FetchJWTBundles")


class WorkloadEndpoint:
    """What each stream says now; a change is sent at once on those that are open."""

    def __init__(self, path: Path, *, tcp: bool = False) -> None:
        self.path = path
        self._tcp = tcp
        self._mutex = threading.Condition()
        self._said: dict[str, tuple[int, Any]] = dict.fromkeys(STREAMS, (0, None))
        self.calls: list[tuple[str, Mapping[str, str]]] = []
        self._server: grpc.Server | None = None
        self._ends = 0
        self._port = 0

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", self._port) if self._tcp else Address.parse(f"unix://{self.path}")

    def say(self, stream: str, what: bytes | grpc.StatusCode | None) -> None:
        """A message, a status that refuses, or nothing."""
        with self._mutex:
            self._said[stream] = (self._said[stream][0] + 1, what)
            self._mutex.notify_all()

    def x509(self, bundles: Mapping[str, bytes]) -> None:
        self.say("FetchX509Bundles", MESSAGES["X509BundlesResponse"](bundles=bundles).SerializeToString())

    def jwt(self, bundles: Mapping[str, bytes]) -> None:
        self.say("FetchJWTBundles", MESSAGES["JWTBundlesResponse"](bundles=bundles).SerializeToString())

    def svids(self, issued: Sequence[tuple[str, Issued]]) -> None:
        message = MESSAGES["X509SVIDResponse"]()
        for spiffe_id, one in issued:
            message.svids.add(spiffe_id=spiffe_id, x509_svid=one.chain_der, x509_svid_key=one.key_der)
        self.say("FetchX509SVID", message.SerializeToString())

    def start(self) -> None:
        handlers = {name: grpc.unary_stream_rpc_method_handler(self._stream(name)) for name in STREAMS}
        self._server = grpc.server(futures.ThreadPoolExecutor(16))
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("SpiffeWorkloadAPI", handlers),)
        )
        target = f"127.0.0.1:{self._port}" if self._tcp else f"unix:{self.path}"
        self._port = self._server.add_insecure_port(target)
        self._server.start()

    def stop(self) -> None:
        """As an agent that dies."""
        with self._mutex:
            self._ends += 1
            self._mutex.notify_all()
        if self._server is not None:
            self._server.stop(0).wait(5)
        self._server = None

    def _stream(self, name: str) -> Any:
        def follow(_request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
            metadata = {str(key): str(value) for key, value in context.invocation_metadata()}
            ends, seen = self._ends, -1
            context.add_callback(self._wake)
            with self._mutex:
                self.calls.append((name, metadata))
            while context.is_active():
                number, what = self._next(name, seen, lambda: self._ends != ends or not context.is_active())
                if self._ends != ends:
                    return
                if number == seen or what is None:
                    seen = number
                    continue
                seen = number
                if isinstance(what, grpc.StatusCode):
                    context.abort(what, "as told")
                yield what

        return follow

    def _next(self, name: str, seen: int, over: Callable[[], bool]) -> tuple[int, Any]:
        with self._mutex:
            self._mutex.wait_for(lambda: self._said[name][0] != seen or over(), 5)
            return self._said[name]

    def _wake(self) -> None:
        with self._mutex:
            self._mutex.notify_all()


@contextmanager
def serving(path: Path, *, tcp: bool = False) -> Iterator[WorkloadEndpoint]:
    endpoint = WorkloadEndpoint(path, tcp=tcp)
    endpoint.start()
    try:
        yield endpoint
    finally:
        endpoint.stop()
