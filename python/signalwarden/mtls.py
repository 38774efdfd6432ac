"""Mutual TLS of our doors: our certificate, from files or from SPIRE, rotated under open connections, and who a
client's certificate says that it is (SPIFFE X509-SVID, sections 2 to 5).

A handshake lets through whoever leads to any authority that we know: TLS can't keep trust domains apart. So a client is
verified again, at each call, against the bundle of its own trust domain, as it is now: no authority speaks for another
domain's workloads, and one whose bundle is gone is refused at its next call, its connection open or not. Only where
there are no bundles, with the three files alone, the handshake is all: `client_ca` then vouches for every domain.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import ssl
import stat
import tempfile
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from signalwarden.bundles.bundle import Bundle
from signalwarden.bundles.x509 import X509Refused, chain_from_pem, named, verify_x509_svid
from signalwarden.errors import KeysError
from signalwarden.files import why
from signalwarden.peers import Peer, PeerRefused, expired

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    import grpc

    from signalwarden.bundles.svid import SvidSource

__all__ = ["Certificates", "Files", "Peers", "Pems", "Spire"]

logger = logging.getLogger("signalwarden")

MAX_FILE_BYTES: Final = 1024 * 1024
"""A bundle of a hundred authorities takes a fifth of it; it is read at each handshake."""
MAX_KNOWN: Final = 1_024
"""Certificates whose verification is remembered: more than a control plane has clients."""
GOOD_S: Final = 60.0
"""How long a good chain is remembered: by then an authority that ran out in its midst is noticed."""
NO_BUNDLE: Final = "none"
BAD_S: Final = 1.0
"""How long a bad one is: it costs no more than a good one, and one from a clock ahead of ours is soon let in."""


# ---- what we show ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pems:
    """Our certificate with its chain, its key, and the authorities of the handshake."""

    cert: bytes
    key: bytes = field(repr=False)
    client_ca: bytes


class Source(Protocol):
    """Where our certificate comes from."""

    def look(self) -> Pems:
        """What is there now, fit to be shown. Raises KeysError, of one sentence."""


class Roots(Protocol):
    """The part of `Bundles` that doors need."""

    def get(self, trust_domain: str, /) -> Bundle | None:
        """The live bundle of a trust domain; None: nobody of it is known."""

    def roots_pem(self) -> bytes:
        """All authorities in PEM."""


class Files:
    """Three PEM files, and the bundles beside them if there are any."""

    def __init__(self, cert: Path, key: Path, client_ca: Path, bundles: Roots | None = None) -> None:
        self._paths = (cert, key, client_ca)
        self._bundles = bundles
        self._good = (b"", b"", b"")

    def look(self) -> Pems:
        """See Source. They are read each time."""
        cert, key, client_ca = (_content(path) for path in self._paths)
        if (cert, key, client_ca) != self._good:
            _check(cert, key, client_ca, self._paths)
            self._good = (cert, key, client_ca)
        more = self._bundles.roots_pem() if self._bundles is not None else b""
        return Pems(cert, key, client_ca + b"\n" + more if more else client_ca)

    def client_ca(self) -> bytes:
        """The authorities of the third file, as they last were good."""
        return self._good[2]


class Spire:
    """Our own SVID and the bundles of the Workload API."""

    def __init__(self, svids: SvidSource, bundles: Roots) -> None:
        self._svids = svids
        self._bundles = bundles

    def look(self) -> Pems:
        """See Source."""
        svid, roots = self._svids.current(), self._bundles.roots_pem()
        if svid is None:
            raise KeysError("there is no SVID of our own")
        if not roots:
            raise KeysError("there is no trust bundle")
        return Pems(svid.cert_chain_pem, svid.key_pem, roots)


class Certificates:
    """What a door shows in handshakes, and whom it lets through them.

    The source is looked at in every handshake, so a rotated certificate counts from the next connection on, and open
    ones go on. While it can't be read or does not belong together, as in the midst of a rotation, what was last good
    goes on: whoever no longer counts is refused by `Peers` all the same."""

    def __init__(self, source: Source, door: str = "signals") -> None:
        self._source = source
        self._door = door
        self._mutex = threading.Lock()
        self._pems = source.look()
        self._refused: Pems | str | None = None
        """What was last found bad, so that it is said once."""
        self._context: ssl.SSLContext | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """For `add_secure_port`. A client without a certificate of our authorities gets no connection."""
        import grpc  # here and below: the native door serves without it

        fetch: Any = self._fetch  # the stubs don't know that None means "as before"
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._pems), fetch, require_client_authentication=True
        )

    def pems(self) -> Pems:
        """For the native door: what is newest now."""
        self._fetch()
        with self._mutex:
            return self._pems

    def context(self) -> ssl.SSLContext:
        """For a door of asyncio. A client may come without a certificate, but not with one of strangers. Nothing is
        resumed: each connection is a handshake of its own."""
        with self._mutex:
            self._context = _context(self._pems)
        outer = _bare_context()
        outer.sni_callback = self._at_handshake  # called for clients that name no server, too
        return outer

    def _at_handshake(self, connection: ssl.SSLObject, _name: str | None, _outer: ssl.SSLContext) -> None:
        self._fetch()
        with self._mutex:
            if self._context is None:
                self._context = _context(self._pems)
            connection.context = self._context

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """None: as before."""
        with self._mutex:
            pems: Pems | None = None
            try:
                pems = self._source.look()
                if pems in (self._pems, self._refused):
                    return None
                # Before it is shown to anyone: what TLS can't load must not end what goes on.
                context, configuration = _context(pems), _configuration(pems)
            except (KeysError, ValueError, OSError) as error:
                text = str(error) if isinstance(error, KeysError) else "TLS can't take them"
                bad = pems or text
                if bad != self._refused:
                    logger.error(
                        "the certificates of the %s address go on as they were: %s", self._door, text
                    )
                self._refused = bad
                return None
            self._pems, self._refused, self._context = pems, None, context
            logger.info("new certificates on the %s address", self._door)
            return configuration


def _configuration(pems: Pems) -> grpc.ServerCertificateConfiguration:
    import grpc

    return grpc.ssl_server_certificate_configuration(
        [(pems.key, pems.cert)], root_certificates=pems.client_ca
    )


def _bare_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_OPTIONAL
    context.verify_flags |= (
        ssl.VERIFY_X509_PARTIAL_CHAIN
    )  # an authority of a bundle need not have signed itself
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    return context


def _context(pems: Pems) -> ssl.SSLContext:
    """Raises ValueError or OSError (ssl.SSLError) for what TLS can't load."""
    context = _bare_context()
    with _as_file(pems.cert + b"\n" + pems.key) as path:
        context.load_cert_chain(path)
    authorities = x509.load_pem_x509_certificates(pems.client_ca)
    context.load_verify_locations(cadata=b"".join(each.public_bytes(Encoding.DER) for each in authorities))
    return context


@contextlib.contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """`ssl` reads a key from a file alone: one in memory where the system has such."""
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("certificate", os.MFD_CLOEXEC), "wb") as file:
            file.write(content)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
        return
    with tempfile.NamedTemporaryFile() as file:  # mode 0600
        file.write(content)
        file.flush()
        yield file.name


def _content(path: Path) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise KeysError(f"`{path}` is not a regular file")
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise KeysError(f"`{path}` can't be read: {why(error)}") from error
    if len(content) > MAX_FILE_BYTES:
        raise KeysError(f"`{path}` has more than {MAX_FILE_BYTES} bytes")
    return content


def _check(cert: bytes, key: bytes, client_ca: bytes, paths: tuple[Path, Path, Path]) -> None:
    """The sentence that grpc does not say. Nothing of the key is repeated."""
    cert_path, key_path, ca_path = paths
    try:
        [leaf, *_] = x509.load_pem_x509_certificates(cert)
    except ValueError as error:
        raise KeysError(f"`{cert_path}` is not a certificate in PEM") from error
    try:
        private = load_pem_private_key(key, None)
    except (ValueError, TypeError) as error:
        raise KeysError(f"`{key_path}` is not a private key in PEM without a password") from error
    ours, theirs = (
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        for public in (private.public_key(), leaf.public_key())
    )
    if ours != theirs:
        raise KeysError(f"the key `{key_path}` is not that of the certificate `{cert_path}`")
    try:
        x509.load_pem_x509_certificates(client_ca)
    except ValueError as error:
        raise KeysError(f"`{ca_path}` is not a list of certificates in PEM") from error


# ---- who is there ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Known:
    """What was found out about a chain, by which bundle, and until when that holds."""

    found: Peer | PeerRefused
    trust_domain: str | None
    basis: str
    until: float


class Peers:
    """Who clients are, each verified against the bundle of its own trust domain as it is at this call. Thread-safe."""

    def __init__(
        self,
        bundles: Roots | None = None,
        *,
        bundled: Callable[[], Collection[str]] | None = None,
        client_ca: Callable[[], bytes] | None = None,
        revoked: Callable[[Peer], bool] | None = None,
    ) -> None:
        """`bundled`: the trust domains whose bundles `bundles` brings, live or not; None: all. The others are verified
        with `client_ca`, if it is given. Without any bundles the handshake is all that is asked for."""
        self._bundles = bundles
        self._bundled = bundled
        self._client_ca = client_ca
        self._revoked = revoked
        self._known: dict[bytes, _Known] = {}
        self._file = _ByFile(b"", (), "")

    def of_context(self, auth_context: Mapping[str, Sequence[bytes]]) -> Peer:
        """The client of a connection of gRPC. Raises PeerRefused."""
        leaf = auth_context.get("x509_pem_cert") or ()
        if len(leaf) != 1:
            raise PeerRefused("the connection has no client certificate")
        # The chain of a client stands here without its leaf.
        return self.of_pem(b"".join((*leaf, *(auth_context.get("x509_pem_cert_chain") or ()))))

    def of_pem(self, chain: bytes) -> Peer:
        """The client that sent this chain, leaf first. TLS has shown that it has the key. Raises PeerRefused."""
        known = self._known.get(chain)
        if known is None or time.monotonic() >= known.until or self._basis(known.trust_domain) != known.basis:
            known = self._look(chain)
        if isinstance(known.found, PeerRefused):
            raise PeerRefused(str(known.found))
        if expired(known.found):
            raise PeerRefused("the client certificate has run out", known.found.id)
        if self._revoked is not None and self._revoked(known.found):
            raise PeerRefused("the client certificate is revoked", known.found.id)
        return known.found

    def _look(self, chain: bytes) -> _Known:
        now, domain, basis = time.monotonic(), None, ""
        try:
            certificates = chain_from_pem(chain)
            identity = named(certificates[0])
            domain = identity.trust_domain
            if not self._handshake_is_all():
                bundle = self._bundle(domain)
                basis = bundle.revision if bundle is not None else NO_BUNDLE
                lookup = {domain: bundle} if bundle is not None else {}
                identity = verify_x509_svid(certificates, lookup, datetime.now(UTC))
        except X509Refused as refused:
            known = _Known(PeerRefused(str(refused)), domain, basis, now + BAD_S)
        else:
            peer = Peer(
                identity.id, identity.trust_domain, identity.not_before, identity.not_after, identity.sha256
            )
            known = _Known(peer, domain, basis, now + GOOD_S)
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known[chain] = known
        return known

    def _basis(self, trust_domain: str | None) -> str:
        """What a verification rests on: the revision of a bundle."""
        if trust_domain is None or self._handshake_is_all():
            return ""
        bundle = self._bundle(trust_domain)
        return bundle.revision if bundle is not None else NO_BUNDLE

    def _handshake_is_all(self) -> bool:
        return self._bundles is None or (
            self._client_ca is not None and self._bundled is not None and not self._bundled()
        )

    def _bundle(self, trust_domain: str) -> Bundle | None:
        if self._bundles is None:
            return None
        if self._client_ca is None or self._bundled is None or trust_domain in self._bundled():
            return self._bundles.get(trust_domain)
        # There are bundles of others, whose authorities got through the handshake, too.
        pem = self._client_ca()
        if pem is not self._file.pem:
            authorities = tuple(x509.load_pem_x509_certificates(pem))
            self._file = _ByFile(pem, authorities, hashlib.sha256(pem).hexdigest())
        return Bundle(trust_domain, self._file.authorities, {}, None, None, self._file.revision)


@dataclass(frozen=True, slots=True)
class _ByFile:
    """What vouches for the trust domains that have no bundle of their own."""

    pem: bytes
    authorities: tuple[x509.Certificate, ...]
    revision: str
