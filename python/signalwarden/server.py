"""The front door: a synchronous gRPC server that hands the bytes of a CheckRequest to the core and its answer back.

No message is parsed here: with parsed objects a check costs six times the processor time.

What can be seen of calls that never reach `check` (I4): grpcio asks for a handler as soon as a call's headers are
there, before its message, so a call whose message never comes (larger than MAX_REQUEST_BYTES, broken off, never
sent) or that is one too many (MAX_CALLS) is counted as *undelivered*, and a call of an unknown method as *unknown*.
Why it was not delivered is not told. What the C core refuses before that (bad HTTP/2, too many streams) shows only
in the client's status: Envoy then denies, by `failure_mode_allow: false`.

With mutual TLS, only the listed SPIFFE IDs may ask, each verified at each call. Who may not is counted as *refused
client*, told PERMISSION_DENIED, and nothing of the request is looked at.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH_SERVICE
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_reflection.v1alpha import reflection

from signalwarden.config import Address
from signalwarden.doors import bound, may_be_plain, numeric, private_socket
from signalwarden.errors import ServerError
from signalwarden.front import CHECK_SERVICE, REFUSED, CheckTls, Refusal, Refusals, Unreached, may_ask
from signalwarden.health import Health

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["FrontDoor", "TransportCounts", "workers_for"]

CHECK_METHOD: Final = f"/{CHECK_SERVICE}/Check"

MAX_REQUEST_BYTES: Final = 4 * 1024 * 1024
"""As the core's own limit, and gRPC's default; a CheckRequest without body has about 1 KB."""
MAX_ANSWER_BYTES: Final = 1024 * 1024
"""Far above any answer that the core makes: an answer is never cut off here."""
MAX_METADATA_BYTES: Final = 16 * 1024
"""gRPC's own hard limit on headers; Envoy's are a few hundred bytes."""
MAX_STREAMS: Final = 1_024
"""Calls at once on one connection. Envoy opens one connection per worker; at 10,000 checks a second this is 100 ms
of waiting, near its timeout: what is above that is lost anyway."""
MAX_CALLS: Final = 4_096
"""Calls at once in all; beyond, RESOURCE_EXHAUSTED at once instead of an answer that comes after the timeout."""
MIN_PING_INTERVAL_MS: Final = 10_000
"""Envoy's `connection_keepalive` is often 30 s; grpc's default of 5 minutes would answer it with GOAWAY."""
MAX_PING_STRIKES: Final = 2
"""gRPC's default: pings faster than that close the connection (CVE-2019-9512)."""
KEEPALIVE_MS: Final = 60_000
KEEPALIVE_TIMEOUT_MS: Final = 20_000
"""A peer that is gone without a word is noticed within 80 s."""

HEALTH_S: Final = 1.0
"""For telling the watchers of health about a stop: one that does not read what it is sent holds nobody up."""

HANDSHAKE_MS: Final = 10_000
"""For what opens a connection: TLS, and HTTP/2's preface and settings. gRPC's own limit is two minutes."""

OPTIONS: Final[tuple[tuple[str, Any], ...]] = (
    ("grpc.so_reuseport", 0),  # a second server on the port must fail, not share
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_send_message_length", MAX_ANSWER_BYTES),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.max_concurrent_streams", MAX_STREAMS),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
    ("grpc.http2.max_ping_strikes", MAX_PING_STRIKES),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
)

MAX_CONNECTIONS: Final = 1_024
"""With TLS, those of strangers in their handshake included: Envoy opens one for each of its workers."""
MAX_AGE_MS: Final = 60_000
"""Then a connection is asked to end, gracefully, and the next comes with the client's newest certificate. Envoy keeps a
connection for good, past the end of the certificate that it was opened with; SPIRE brings a new one halfway."""
MAX_AGE_GRACE_MS: Final = 60_000

TLS_OPTIONS: Final[tuple[tuple[str, Any], ...]] = (
    ("grpc.max_allowed_incoming_connections", MAX_CONNECTIONS),
    ("grpc.max_connection_age_ms", MAX_AGE_MS),
    ("grpc.max_connection_age_grace_ms", MAX_AGE_GRACE_MS),
)

MIN_WORKERS: Final = 2
"""Measured on a busy machine, server on one core, 16 calls in flight, processor time a check with 1, 2, 4 and 8
threads: allow-all handler 264, 220, 236, 241 µs; the whole app, log on, 368, 309, 304, 312 µs. A second thread takes
the next call while the first hands its answer over; more only compete for the interpreter."""


def default_workers(threads: int | None = None) -> int:
    """Threads that decide: one for each core, since deciding is processor time and nothing waits."""
    return max(MIN_WORKERS, threads or os.cpu_count() or 1)


LOG_WAITERS: Final = 64
"""Threads more where a decision may wait for the log: those that wait for the disk share one sync, so with the few
threads of `default_workers` each sync would serve a call or two."""


def workers_for(*, tokens: int, log_waits: bool, threads: int | None = None) -> int:
    """Threads for calls: those that decide, and places for those that wait, for their tokens or for the log."""
    return default_workers(threads) + tokens + (LOG_WAITERS if log_waits else 0)


class Deciding(Protocol):
    """The part of the engine that the door needs."""

    def check(self, request: bytes) -> bytes:
        """Total: every input gives a CheckResponse."""


class TransportCounts:
    """Calls that came, and calls that reached `check`. The difference, once they are quiet, never arrived."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._begun = 0
        self._reached = 0
        self._unknown = 0
        self._undelivered = 0
        self._begun_before = 0
        self.refused = Refusals()
        """Of clients that may not ask."""

    def begun(self) -> None:
        """The headers of a Check call are there."""
        with self._mutex:
            self._begun += 1

    def reached(self) -> None:
        """Its message too."""
        with self._mutex:
            self._reached += 1

    def was_unknown(self) -> None:
        """A call of a method that does not exist."""
        with self._mutex:
            self._unknown += 1

    @property
    def refusals(self) -> Refusal | None:
        """See front.Counts."""
        return self.refused.last

    def settle(self) -> Unreached:
        """So far. Call it at intervals longer than a call waits for its message: calls
        begun before the last interval have arrived by now, or never will. Too low under load until a quiet moment;
        too high by a call that waited longer than the interval and arrived after all. Never falls."""
        with self._mutex:
            self._undelivered = max(self._undelivered, self._begun_before - self._reached)
            self._begun_before = self._begun
            return Unreached(self._undelivered, self._unknown)


if TYPE_CHECKING:
    _Handler = grpc.GenericRpcHandler[Any, Any]
else:
    _Handler = grpc.GenericRpcHandler


class _CheckHandler(_Handler):
    """Finds the handler of Check; messages stay bytes."""

    def __init__(self, engine: Deciding, counts: TransportCounts, tls: CheckTls | None) -> None:
        decide, reached = engine.check, counts.reached

        def check(request: bytes, _context: grpc.ServicerContext) -> bytes:
            reached()
            return decide(request)

        def check_of(request: bytes, context: grpc.ServicerContext) -> bytes:
            reached()
            _admit(context, cast("CheckTls", tls), counts)
            return decide(request)

        self._begun = counts.begun
        self._handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(
            check if tls is None else check_of
        )

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        if handler_call_details.method != CHECK_METHOD:
            return None
        self._begun()
        return self._handler


def _admit(context: grpc.ServicerContext, tls: CheckTls, counts: TransportCounts) -> None:
    """At each call: a connection outlives its handshake. Aborts the call of whoever may not ask."""
    pems = cast("Mapping[str, Sequence[bytes]]", context.auth_context())
    if not may_ask(tls, counts.refused, lambda: tls.peers.of_context(pems)):
        context.abort(grpc.StatusCode.PERMISSION_DENIED, REFUSED)


class _UnknownHandler(_Handler):
    """Asked last, when no other handler has the method."""

    def __init__(self, counts: TransportCounts) -> None:
        self._counts = counts

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        del handler_call_details
        self._counts.was_unknown()
        return None


class FrontDoor:
    """The check address: Authorization, health, and reflection if switched on."""

    def __init__(
        self,
        engine: Deciding,
        address: Address,
        *,
        reflection_on: bool = False,
        workers: int | None = None,
        tls: CheckTls | None = None,
    ) -> None:
        self.counts = TransportCounts()
        self.serving = False
        self._health = Health((CHECK_SERVICE,))
        self._pool = ThreadPoolExecutor(max_workers=workers or default_workers(), thread_name_prefix="check")
        self._server = grpc.server(
            self._pool, options=OPTIONS + TLS_OPTIONS if tls else OPTIONS, maximum_concurrent_rpcs=MAX_CALLS
        )
        self._server.add_generic_rpc_handlers((_CheckHandler(engine, self.counts, tls),))
        add_HealthServicer_to_server(self._health, self._server)
        if reflection_on:
            # Lists the services and describes health. Authorization has no descriptor here: Envoy's messages are
            # not loaded into Python's protobuf pool, and a made-up descriptor would mislead.
            names = (CHECK_SERVICE, HEALTH_SERVICE, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._server)
        self._server.add_generic_rpc_handlers((_UnknownHandler(self.counts),))
        try:
            self.address = self._bind(numeric(address), tls)
        except BaseException:
            self._pool.shutdown(wait=False)
            raise

    def _bind(self, address: Address, tls: CheckTls | None) -> Address:
        try:
            may_be_plain(address, tls)
            if address.path is not None:
                with private_socket(address.path):
                    self._server.add_insecure_port(f"unix:{address.path}")
                return address
            if address.port:
                bound(address).close()  # says which, where grpc only says no, and writes to stderr
            if tls is None:
                port = self._server.add_insecure_port(str(address))
            else:
                port = self._server.add_secure_port(str(address), tls.certificates.credentials())
        except RuntimeError as error:
            raise ServerError(f"the address `{address}` can't be opened: {error}") from error
        if port == 0:
            raise ServerError(f"the address `{address}` can't be opened")
        return Address(address.host, port)

    def start(self) -> None:
        """Answers from now on."""
        self._server.start()
        self.serving = True
        self._health.set(serving=True)

    def stop(self, grace_s: float) -> None:
        """Says NOT_SERVING, lets calls in flight end for `grace_s`, then ends. May be called twice."""
        self.serving = False
        telling = threading.Thread(target=self._health.set, kwargs={"serving": False}, daemon=True)
        telling.start()
        telling.join(HEALTH_S)
        ended = self._server.stop(grace_s)
        if ended.wait(grace_s + 1.0):
            self._pool.shutdown(
                wait=False
            )  # not before: grpcio's own thread dies if it can't submit a late call
        if self.address.path is not None:
            Path(self.address.path).unlink(missing_ok=True)

    def judge_anew(self) -> None:
        """See front.Front: here each call is judged."""
