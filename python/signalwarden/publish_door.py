"""The signals address: `signalwarden.v1.Signals/Publish` over mutual TLS, bytes in and bytes out.

A stream holds a thread for as long as it lasts, so streams are few and bounded: in all, for each publisher, in
silence, and in the time that a client may take to read an answer. A slow client holds up nobody but itself.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol, cast

import grpc

from signalwarden import _core
from signalwarden.doors import bound, numeric
from signalwarden.errors import BadInputError, RateLimitedError, ServerError, StateError
from signalwarden.mtls import Certificates, Peers
from signalwarden.peers import Peer, PeerRefused
from signalwarden.values import Address

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["PUBLISH_METHOD", "PublishDoor"]

logger = logging.getLogger("signalwarden")

PUBLISH_METHOD: Final = "/signalwarden.v1.Signals/Publish"

MAX_REQUEST_BYTES: Final = 2 * 1024 * 1024
"""As POST /v1/signals and the core."""
MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
"""A thousand refusals with their sentences take a tenth of it."""
MAX_METADATA_BYTES: Final = 16 * 1024
"""gRPC's own hard limit on headers."""
MAX_STREAMS: Final = 64
"""Streams at once, a thread each. A publisher needs one; there are dozens of publishers, not thousands."""
MAX_PUBLISHER_STREAMS: Final = 8
"""Streams at once of one publisher: its replicas. It can't take the others' places."""
SPARE: Final = 8
"""Threads beyond, that tell whoever is one too many."""
MAX_CONNECTIONS: Final = 256
"""Those of clients that are still strangers included; beyond, a connection is closed at once."""
HANDSHAKE_MS: Final = 10_000
IDLE_S: Final = 300.0
"""Silence on a stream, or a message that does not get on: then the stream is ended and its place is free."""
STALL_S: Final = 20.0
"""An answer that the client does not read."""
MAX_AGE_MS: Final = 3_600_000
"""After an hour a connection is asked to end: a client whose authority is no longer good does not stay for good."""
MAX_AGE_GRACE_MS: Final = 60_000
MIN_PING_INTERVAL_MS: Final = 10_000
MAX_PING_STRIKES: Final = 2
KEEPALIVE_MS: Final = 60_000
KEEPALIVE_TIMEOUT_MS: Final = 20_000
"""As on the check address."""
WATCH_S: Final = 1.0

OPTIONS: Final[tuple[tuple[str, Any], ...]] = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_send_message_length", MAX_ANSWER_BYTES),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.max_concurrent_streams", MAX_PUBLISHER_STREAMS),
    ("grpc.max_allowed_incoming_connections", MAX_CONNECTIONS),
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
    ("grpc.max_connection_idle_ms", int(IDLE_S * 1000)),
    ("grpc.max_connection_age_ms", MAX_AGE_MS),
    ("grpc.max_connection_age_grace_ms", MAX_AGE_GRACE_MS),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
    ("grpc.http2.max_ping_strikes", MAX_PING_STRIKES),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
)

Code = grpc.StatusCode


class Hosting(Protocol):
    """What the door asks of the app. From many threads at once."""

    def publish_as(self, body: bytes, publisher: str) -> bytes:
        """A body of POST /v1/signals in, its answer out, after the durable write."""

    def welcomes(self, trust_domain: str) -> bool:
        """Whether publishers of this trust domain may speak at all."""

    def refused_peer(self, publisher: str | None, detail: str) -> None:
        """Writes it down."""


class _Stream:
    """One call, and since when it has been waiting for its client."""

    def __init__(self, context: grpc.ServicerContext, peer: Peer) -> None:
        self.context = context
        self.peer = peer
        self._reading_since: float | None = time.monotonic()
        self._sending_since: float | None = None

    def reading(self) -> None:
        """It waits for the client's next message."""
        self._sending_since, self._reading_since = None, time.monotonic()

    def working(self) -> None:
        """It waits for us."""
        self._reading_since = self._sending_since = None

    def sending(self) -> None:
        """It waits until the client takes an answer."""
        self._reading_since, self._sending_since = None, time.monotonic()

    def cancel(self) -> None:
        """Ends it; the client sees CANCELLED."""
        end: Any = self.context.cancel  # the stubs give it no type
        end()

    def overdue(self, now: float, *, stopping: bool) -> bool:
        """Whether it has waited for its client for too long. At a stop nobody waits for a next message."""
        reading, sending = self._reading_since, self._sending_since
        if reading is not None and (stopping or now - reading > IDLE_S):
            return True
        return sending is not None and now - sending > STALL_S


class _Streams:
    """The calls that are open, and the watch over them."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._open: set[_Stream] = set()
        self._ended = threading.Event()
        self._stopping = False
        self._watch = threading.Thread(target=self._look, name="signals-watch", daemon=True)

    def start(self) -> None:
        self._watch.start()

    def add(self, stream: _Stream) -> str | None:
        """None if there is room; else why not."""
        with self._mutex:
            if self._stopping:
                return "the server is stopping"
            if len(self._open) >= MAX_STREAMS:
                return f"{MAX_STREAMS} streams are open"
            of_the_same = sum(other.peer.id == stream.peer.id for other in self._open)
            if of_the_same >= MAX_PUBLISHER_STREAMS:
                return f"`{stream.peer.id}` has {of_the_same} streams open"
            self._open.add(stream)
        if not stream.context.add_callback(lambda: self._forget(stream)):
            self._forget(stream)  # gone already
        return None

    def _forget(self, stream: _Stream) -> None:
        with self._mutex:
            self._open.discard(stream)

    def count(self) -> int:
        with self._mutex:
            return len(self._open)

    @property
    def stopping(self) -> bool:
        return self._stopping

    def _look(self) -> None:
        while not self._ended.wait(WATCH_S):
            self._end_overdue()

    def _end_overdue(self) -> None:
        now = time.monotonic()
        with self._mutex:
            overdue = [stream for stream in self._open if stream.overdue(now, stopping=self._stopping)]
        for stream in overdue:
            stream.cancel()

    def stop(self, ended: threading.Event, within_s: float) -> None:
        """Ends what waits for its client at once; what is being written is answered first."""
        self._stopping = True
        deadline = time.monotonic() + within_s
        while not ended.is_set() and time.monotonic() < deadline:
            self._end_overdue()
            ended.wait(0.05)
        self._ended.set()
        if self._watch.ident is not None:
            self._watch.join(2 * WATCH_S)


if TYPE_CHECKING:
    _Handler = grpc.GenericRpcHandler[Any, Any]
else:
    _Handler = grpc.GenericRpcHandler


class _PublishHandler(_Handler):
    """Finds the handler of Publish; messages stay bytes."""

    def __init__(self, host: Hosting, peers: Peers, streams: _Streams) -> None:
        self._host = host
        self._peers = peers
        self._streams = streams
        self._handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(
            self._publish
        )

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        return self._handler if handler_call_details.method == PUBLISH_METHOD else None

    def _publish(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """One answer for each request, in order, each after its durable write."""
        peer = self._peer(context)
        stream = _Stream(context, peer)
        full = self._streams.add(stream)
        if full is not None:
            code = Code.UNAVAILABLE if self._streams.stopping else Code.RESOURCE_EXHAUSTED
            _abort(context, code, full)
        for request in requests:
            stream.working()
            self._peer(
                context
            )  # for each message: a stream outlives its handshake, and much may have come between
            answer = self._answer(request, peer, context)
            stream.sending()
            yield answer
            stream.reading()
            if self._streams.stopping:
                _abort(context, Code.UNAVAILABLE, "the server is stopping")

    def _peer(self, context: grpc.ServicerContext) -> Peer:
        """Who is there, and still welcome."""
        try:
            peer = self._peers.of_context(cast("Mapping[str, Sequence[bytes]]", context.auth_context()))
        except PeerRefused as refused:
            self._host.refused_peer(refused.claimed, str(refused))
            _abort(context, Code.UNAUTHENTICATED, str(refused))
        if not self._host.welcomes(peer.trust_domain):
            detail = f"the trust domain `{peer.trust_domain}` is neither ours nor federated"
            self._host.refused_peer(peer.id, detail)
            _abort(context, Code.PERMISSION_DENIED, detail)
        return peer

    def _answer(self, request: bytes, peer: Peer, context: grpc.ServicerContext) -> bytes:
        try:
            body = _core.publish_to_json(request)
            return _core.publish_answer(self._host.publish_as(body, peer.id))
        except BadInputError as error:
            _abort(context, Code.INVALID_ARGUMENT, str(error))
        except RateLimitedError as error:
            context.set_trailing_metadata((("retry-after", str(error.retry_after_s)),))
            _abort(context, Code.RESOURCE_EXHAUSTED, str(error))
        except StateError as error:
            _abort(context, Code.UNAVAILABLE, str(error))
        except Exception:
            # In grpc's hands it would be told to the client word for word.
            logger.exception("a publisher's batch failed")
            _abort(context, Code.INTERNAL, "the server failed, its log says how")


def _abort(context: grpc.ServicerContext, code: grpc.StatusCode, detail: str) -> NoReturn:
    context.abort(code, detail)
    raise AssertionError(detail)  # abort raises


class PublishDoor:
    """The signals address."""

    def __init__(
        self, host: Hosting, address: Address, certificates: Certificates, peers: Peers | None = None
    ) -> None:
        self.serving = False
        self._streams = _Streams()
        self._pool = ThreadPoolExecutor(max_workers=MAX_STREAMS + SPARE, thread_name_prefix="signals")
        self._server = grpc.server(self._pool, options=OPTIONS, maximum_concurrent_rpcs=MAX_STREAMS + SPARE)
        self._server.add_generic_rpc_handlers((_PublishHandler(host, peers or Peers(), self._streams),))
        try:
            self.address = self._bind(numeric(address), certificates)
        except BaseException:
            self._pool.shutdown(wait=False)
            raise

    def _bind(self, address: Address, certificates: Certificates) -> Address:
        try:
            if address.port:
                bound(address).close()  # says which, where grpc only says no, and writes to stderr
            port = self._server.add_secure_port(str(address), certificates.credentials())
        except RuntimeError as error:
            raise ServerError(f"the address `{address}` can't be opened: {error}") from error
        if port == 0:
            raise ServerError(f"the address `{address}` can't be opened")
        return Address(address.host, port)

    def open_streams(self) -> int:
        """How many publishers are connected and speaking."""
        return self._streams.count()

    def start(self) -> None:
        """Answers from now on."""
        self._server.start()
        self._streams.start()
        self.serving = True

    def stop(self, grace_s: float) -> None:
        """Takes no new streams, answers what is being written for `grace_s`, then ends. May be called twice."""
        self.serving = False
        ended = self._server.stop(grace_s)
        self._streams.stop(ended, grace_s + 1.0)
        if ended.is_set():
            self._pool.shutdown(wait=False)
