"""What the doors share: binding an address, so that a port in use or a foreign socket is one clear sentence; and the
door of HTTP, in plain text on this machine or over TLS."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import stat
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from signalwarden.config import Address
from signalwarden.errors import ServerError
from signalwarden.files import make_private_directory, why

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ABORT", "PEER_CHAIN", "HttpDoor", "HttpTls", "bound", "may_be_plain", "numeric", "private_socket"]

CONNECT_TIMEOUT_S: Final = 1.0
START_TIMEOUT_S: Final = 10.0
BACKLOG: Final = 128
HANDSHAKE_S: Final = 10.0
"""For the TLS of a client that does not get on."""
MAX_OPENING: Final = 256
"""Handshakes at once: they end within `HANDSHAKE_S`, and take a file descriptor each."""
MAX_CONNECTIONS: Final = 512
"""Twice what may ask at once; beyond, a connection is closed at once."""
SILENCE_S: Final = 15.0
"""For the next request of a connection to be there with all its headers: uvicorn's own limit is off while they come."""
PEER_CHAIN: Final = "peer_chain"
"""Where an application finds the certificates of a request's client in `request.state`: PEM, leaf first, as TLS let
them through; empty if it showed none."""

ABORT: Final = "abort"
"""Where an application finds in `request.state` how to end a connection at once, whatever lies there unsent: for
clients that read nothing."""


def numeric(address: Address) -> Address:
    """`localhost` is 127.0.0.1: with two addresses behind one name, one could be ours and one another's."""
    return Address("127.0.0.1", address.port) if address.host == "localhost" else address


def may_be_plain(address: Address, tls: object | None) -> None:
    """Raises ServerError for an address that others reach without TLS."""
    if tls is None and not address.is_local:
        raise ServerError(f"the address `{address}` is not of this machine, it needs TLS")


@contextlib.contextmanager
def private_socket(path: str) -> Iterator[None]:
    """Binds inside a socket at `path` that only this user can reach. A stale one of ours is removed first; a
    live one, another user's or another kind of file is an error."""
    _check_folder(Path(path).parent)
    _remove_stale(path)
    # Mode 0600 from the first moment, not after a chmod. Only while starting: umask is the process's.
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)
    with contextlib.suppress(FileNotFoundError):
        Path(path).chmod(0o600)


def _check_folder(folder: Path) -> None:
    try:
        make_private_directory(folder)
        status = folder.stat()
    except OSError as error:
        raise ServerError(f"the socket's directory `{folder}` can't be used: {why(error)}") from error
    if not stat.S_ISDIR(status.st_mode):
        raise ServerError(f"`{folder}` is not a directory for a socket")
    if status.st_uid not in (0, os.geteuid()):
        raise ServerError(f"the socket's directory `{folder}` belongs to another user")
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        raise ServerError(f"the socket's directory `{folder}` is writable by everyone")


def _remove_stale(path: str) -> None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise ServerError(f"`{path}` exists and is not a socket")
    if status.st_uid != os.geteuid():
        raise ServerError(f"the socket `{path}` belongs to another user")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(CONNECT_TIMEOUT_S)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink(missing_ok=True)
            return
        except OSError as error:
            raise ServerError(f"the socket `{path}` can't be tried: {why(error)}") from error
    raise ServerError(f"the socket `{path}` is in use")


def bound(address: Address) -> socket.socket:
    """A listening socket. Raises ServerError with one sentence."""
    address = numeric(address)
    if address.path is not None:
        listener = socket.socket(socket.AF_UNIX)
        try:
            with private_socket(address.path):
                listener.bind(address.path)
                listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            raise ServerError(f"`{address}` can't be opened: {why(error)}") from error
        except BaseException:
            listener.close()
            raise
        return listener
    # asyncio switches Nagle's algorithm off only for sockets that say that they are TCP: else each answer waits
    # some 40 ms for the acknowledgement of its headers.
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # past connections that linger, not listeners
        listener.bind((address.host, address.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ServerError(f"the address `{address}` is in use") from error
        raise ServerError(f"the address `{address}` can't be opened: {why(error)}") from error
    return listener


class HttpTls(Protocol):
    """What the door needs to serve TLS."""

    def context(self) -> ssl.SSLContext:
        """The context of the listener, which looks for itself for what is newest at each handshake."""


class _Connection(H11Protocol):
    """Tells the application which certificates its client showed, and ends when it is one too many or silent."""

    _quiet_since: object = None
    """The cycle that had ended when it was last looked at; None: no request yet."""
    _watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
            return
        self._watch = self.loop.call_later(SILENCE_S, self._end_if_silent)
        chain = _chain(transport.get_extra_info("ssl_object"))
        self.app_state = {**self.app_state, PEER_CHAIN: chain, ABORT: transport.abort}

    def connection_lost(self, exc: Exception | None) -> None:
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)

    def _end_if_silent(self) -> None:
        cycle: Any = self.cycle  # None before the first request, whatever its type says
        quiet = cycle is None or cycle.response_complete
        if quiet and cycle is self._quiet_since:
            self.transport.close()
            return
        self._quiet_since = cycle if quiet else self
        self._watch = self.loop.call_later(SILENCE_S, self._end_if_silent)


def _chain(connection: Any) -> bytes:
    if connection is None or connection.getpeercert(binary_form=True) is None:
        return b""
    if hasattr(connection, "get_unverified_chain"):  # Python 3.13
        chain: list[bytes] = connection.get_unverified_chain() or []
        return "".join(map(ssl.DER_cert_to_PEM_cert, chain)).encode()
    found = connection._sslobj.get_unverified_chain() or []  # noqa: SLF001  # the same, before it had a name
    return "".join(each.public_bytes() for each in found).encode()


class _Loop(asyncio.SelectorEventLoop):
    """Bounds handshakes, in time and in number, for which uvicorn has no setting."""

    def __init__(self) -> None:
        super().__init__()
        self._opening: dict[Any, socket.socket] = {}

    async def create_server(self, *args: Any, **options: Any) -> asyncio.Server:
        if options.get("ssl") is not None:
            options["ssl_handshake_timeout"] = HANDSHAKE_S
        return await super().create_server(*args, **options)

    def _make_ssl_transport(self, rawsock: socket.socket, protocol: Any, *args: Any, **options: Any) -> Any:
        """Not of asyncio's public face: the one place between a connection that came and its handshake."""
        for each, held in [*self._opening.items()]:
            if each.transport is not None or held.fileno() < 0:  # through, or gone
                del self._opening[each]
        if len(self._opening) >= MAX_OPENING:
            rawsock.close()
            raise ConnectionRefusedError  # which asyncio keeps to itself
        self._opening[protocol] = rawsock
        make: Any = super()
        return make._make_ssl_transport(rawsock, protocol, *args, **options)  # noqa: SLF001


class HttpDoor:
    """An ASGI application behind uvicorn in a thread of its own."""

    def __init__(self, application: Any, address: Address, tls: HttpTls | None = None) -> None:
        may_be_plain(address, tls)
        context = tls.context() if tls is not None else None
        self._listener = bound(address)
        self.address = _name_of(self._listener, address)
        config = uvicorn.Config(
            application,
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,  # nobody's word about where a caller comes from
            lifespan="off",
            ws="none",
            http=_Connection,
            loop=f"{__name__}:_Loop",
            ssl_context_factory=(lambda *_: context) if context is not None else None,
            limit_concurrency=256,  # more callers than a control plane has
            timeout_keep_alive=15,
            timeout_graceful_shutdown=3,  # event streams never end by themselves
            h11_max_incomplete_event_size=64 * 1024,  # as nginx: what headers may take
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="admin", daemon=True)

    def _run(self) -> None:
        self._server.run(sockets=[self._listener])

    def start(self) -> None:
        """Returns when requests are answered."""
        self._thread.start()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise ServerError(f"the admin server on `{self.address}` did not start")
            time.sleep(0.005)

    @property
    def serving(self) -> bool:
        """True while the thread answers."""
        return self._server.started and self._thread.is_alive()

    def stop(self, timeout_s: float) -> None:
        """Ends in-flight requests, then the thread. May be called twice, or without start."""
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        self._listener.close()
        if self.address.path is not None:
            Path(self.address.path).unlink(missing_ok=True)


def _name_of(listener: socket.socket, address: Address) -> Address:
    """The address with the port that the system chose."""
    if address.path is not None:
        return address
    return Address(numeric(address).host, int(listener.getsockname()[1]))
