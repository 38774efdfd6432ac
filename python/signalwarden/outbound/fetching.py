"""One request and its answer, in memory only where something is fetched.

httpcore speaks HTTP/1.1 and nothing more: no redirects, no proxies, no cookies, no decompression. The sockets below
it are ours, so that each wait, however small the pieces in which an answer comes, ends with the one deadline of the
call.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final

import httpcore

from signalwarden import __version__
from signalwarden.errors import FeedError
from signalwarden.files import read_regular, why
from signalwarden.outbound.targets import LOOPBACK_NAME, Fetched, Server, Target

__all__ = ["MAX_LOOKUPS", "fetch"]

MAX_CA_BYTES: Final = 1024 * 1024
"""A CA file; the bundle of all public authorities is a quarter of it."""
SYSTEM_TRUST_S: Final = 600
"""How long the system's authorities are kept: to read them takes tens of milliseconds."""
MAX_LOOKUPS: Final = 16
"""Name lookups that wait at once. The system's resolver can't be interrupted: one that hangs keeps its thread."""
MAX_ADDRESSES: Final = 8
"""Addresses of one name that are tried; each gets its share of the time that is left."""
LOOPBACK: Final = ("127.0.0.1", "::1")
"""What `localhost` is, whatever a resolver says (RFC 6761 section 6.3)."""

_lookups = threading.BoundedSemaphore(MAX_LOOKUPS)


def fetch(
    url: str,
    *,
    timeout_s: float,
    max_bytes: int,
    headers: Mapping[str, str] | None,
    ca_file: Path | None,
    method: str,
    body: bytes | None,
    server: Server | None,
) -> Fetched:
    """See `outbound.fetch`."""
    target = Target.parse(url)
    deadline = _Deadline(timeout_s)
    with _saying(target, timeout_s):
        if server is not None and target.scheme != "https":
            raise FeedError(f"{target} can't prove who it is, expected `https://`")
        context = None
        if target.scheme == "https":
            context = _tls(ca_file) if server is None else _tls_of(server)
        connection = httpcore.HTTPConnection(
            httpcore.Origin(target.scheme.encode(), target.host.encode(), target.port),
            ssl_context=context,
            network_backend=_Backend(deadline, None if server is None else server.accept),
        )
        with contextlib.closing(connection):
            return _exchange(connection, target, method, _request_headers(target, headers), body, max_bytes)


def _exchange(
    connection: httpcore.HTTPConnection,
    target: Target,
    method: str,
    headers: list[tuple[bytes, bytes]],
    body: bytes | None,
    max_bytes: int,
) -> Fetched:
    place = httpcore.URL(
        scheme=target.scheme, host=target.host, port=target.port, target=target.path_and_query
    )
    with connection.stream(method, place, headers=headers, content=body) as response:
        found = _joined(response.headers)
        if not 200 <= response.status < 600:
            raise FeedError(f"{target} answered with status {response.status}")
        if response.status // 100 == 3 and response.status != 304:
            raise FeedError(f"{target} answered with a redirect ({response.status}), which is not followed")
        # It was not asked for, and what a compressed body holds has no bound that its length tells.
        if found.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            raise FeedError(f"{target} answered with a compressed body, which is not read")
        content = bytearray()
        if _declared(found) > max_bytes:
            raise FeedError(f"{target} answered with more than {max_bytes} bytes")
        for piece in response.iter_stream():
            content += piece
            if len(content) > max_bytes:
                raise FeedError(f"{target} answered with more than {max_bytes} bytes")
    return Fetched(response.status, bytes(content), found)


def _joined(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for raw, value in headers:
        name, text = raw.decode("latin-1").lower(), value.decode("latin-1")
        found[name] = f"{found[name]}, {text}" if name in found else text
    return found


def _declared(headers: Mapping[str, str]) -> int:
    """The length that the answer claims; -1 if it claims none."""
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1


def _request_headers(target: Target, headers: Mapping[str, str] | None) -> list[tuple[bytes, bytes]]:
    own = {
        "host": target.authority,
        "user-agent": f"signalwarden/{__version__}",
        "accept-encoding": "identity",
        "connection": "close",
    }
    given = {name.lower(): value for name, value in (headers or {}).items()}
    try:
        return [(name.encode("ascii"), value.encode("ascii")) for name, value in (own | given).items()]
    except UnicodeEncodeError:
        raise FeedError("a header of the request is not ASCII") from None  # its value may be a token


@contextlib.contextmanager
def _saying(target: Target, timeout_s: float) -> Iterator[None]:
    """Whatever goes wrong below, as one sentence."""
    try:
        yield
    except FeedError:
        raise
    except ssl.SSLCertVerificationError as error:
        text = error.verify_message.rstrip(".").lower()
        raise FeedError(f"the certificate of {target} is not good: {text}") from error
    except (TimeoutError, httpcore.TimeoutException) as error:
        raise FeedError(f"{target} gave no full answer within {timeout_s:g} s") from error
    except ssl.SSLError as error:
        text = (error.reason or "the connection broke").lower().replace("_", " ")
        raise FeedError(f"no TLS with {target}: {text}") from error
    except socket.gaierror as error:
        raise FeedError(f"{target} has no address: {why(error)}") from error
    except OSError as error:
        raise FeedError(f"{target} can't be reached: {why(error)}") from error
    except httpcore.LocalProtocolError as error:
        # Its text may repeat a header, and with it a token.
        raise FeedError(f"the request to {target} can't be written as HTTP") from error
    except httpcore.RemoteProtocolError as error:
        raise FeedError(f"{target} gave an answer that is cut off, too long, or no HTTP/1.1") from error


# ---------------------------------------------------------------- the connection


class _Deadline:
    """The end of a call."""

    def __init__(self, timeout_s: float) -> None:
        self._at = time.monotonic() + timeout_s

    def left(self) -> float:
        """Seconds, more than none. Raises TimeoutError."""
        left = self._at - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class _Backend(httpcore.NetworkBackend):
    """Connects within the deadline, whatever timeout httpcore would give a single step."""

    def __init__(self, deadline: _Deadline, accept: Callable[[bytes], None] | None = None) -> None:
        self._deadline = deadline
        self._accept = accept

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - the deadline stands for it
        local_address: str | None = None,  # noqa: ARG002
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        """The first address that answers."""
        addresses = _addresses(host, port, self._deadline)[:MAX_ADDRESSES]
        failed: OSError = OSError("no address")
        for at, (family, address) in enumerate(addresses):
            opened = socket.socket(family, socket.SOCK_STREAM)
            try:
                opened.settimeout(self._deadline.left() / (len(addresses) - at))
                opened.connect(address)
                opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                opened.close()
                failed = error
            else:
                return _Stream(opened, self._deadline, self._accept)
        raise failed


class _Stream(httpcore.NetworkStream):
    """A socket of which no wait outlives the deadline."""

    def __init__(
        self, opened: socket.socket, deadline: _Deadline, accept: Callable[[bytes], None] | None = None
    ) -> None:
        self._socket = opened
        self._deadline = deadline
        self._accept = accept

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        self._socket.settimeout(self._deadline.left())
        return self._socket.recv(max_bytes)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        rest = memoryview(buffer)
        while rest:
            self._socket.settimeout(self._deadline.left())
            rest = rest[self._socket.send(rest) :]

    def close(self) -> None:
        self._socket.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        try:
            self._socket.settimeout(self._deadline.left())
            # A connection that is cut without a farewell is an error, not the end of an answer.
            wrapped = ssl_context.wrap_socket(
                self._socket, server_hostname=server_hostname, suppress_ragged_eofs=False
            )
        except BaseException:
            self._socket.close()
            raise
        if self._accept is not None:
            try:
                self._accept(wrapped.getpeercert(binary_form=True) or b"")
            except BaseException:
                wrapped.close()
                raise
        return _Stream(wrapped, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        if info == "ssl_object" and isinstance(self._socket, ssl.SSLSocket):
            return self._socket
        return None


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    """Verifies chain and host name. A CA file is read for each call: authorities are exchanged while we run."""
    if ca_file is None:
        return _system_trust(int(time.monotonic() // SYSTEM_TRUST_S))
    context = _verifying()
    try:
        pem = read_regular(ca_file, MAX_CA_BYTES)
    except OSError as error:
        raise FeedError(f"the CA file `{ca_file}` can't be read: {why(error)}") from error
    try:
        context.load_verify_locations(cadata=pem.decode("ascii"))
    except (ValueError, ssl.SSLError):
        raise FeedError(f"the CA file `{ca_file}` holds no certificates in PEM") from None
    return context


def _tls_of(server: Server) -> ssl.SSLContext:
    """Verifies the chain alone: who the leaf is, is for `accept` to judge."""
    context = _verifying()
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=server.authorities)
    except (ValueError, ssl.SSLError):
        raise FeedError("the authorities of the server are no certificates in PEM") from None
    return context


def _verifying() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    return context


@functools.lru_cache(maxsize=1)
def _system_trust(_period: int) -> ssl.SSLContext:
    context = _verifying()
    context.load_default_certs()
    return context


# ---------------------------------------------------------------- names


_Address = tuple[socket.AddressFamily, tuple[Any, ...]]


def _addresses(host: str, port: int, deadline: _Deadline) -> list[_Address]:
    """Where a host is. Only a real name goes to the resolver."""
    literals = LOOPBACK if host == LOOPBACK_NAME else (host,)
    try:
        known = [ipaddress.ip_address(literal) for literal in literals]
    except ValueError:
        return _look_up(host, port, deadline)
    return [
        (socket.AF_INET6, (str(address), port, 0, 0))
        if address.version == 6
        else (socket.AF_INET, (str(address), port))
        for address in known
    ]


def _look_up(host: str, port: int, deadline: _Deadline) -> list[_Address]:
    """Asks the resolver in a thread of its own, which is left behind if it hangs."""
    hanging = _lookups
    if not hanging.acquire(blocking=False):
        raise FeedError(f"`{host}` is not looked up, {MAX_LOOKUPS} lookups of names already hang")
    answer: SimpleQueue[list[_Address] | OSError] = SimpleQueue()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answer.put([(socket.AddressFamily(family), address) for family, _, _, _, address in found])
        except OSError as error:
            answer.put(error)
        except UnicodeError:  # a label that is too long for IDNA
            answer.put(socket.gaierror(socket.EAI_NONAME, "no such name"))
        finally:
            hanging.release()

    threading.Thread(target=ask, name="lookup", daemon=True).start()
    try:
        found = answer.get(timeout=deadline.left())
    except Empty:
        raise TimeoutError from None
    if isinstance(found, OSError):
        raise found
    return found
