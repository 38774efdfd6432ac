"""Mutual TLS of a gRPC door: certificates from files, read anew when they change, and who a client's certificate says
that it is (SPIFFE X509-SVID, sections 2 to 5)."""

from __future__ import annotations

import logging
import os
import stat
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from signalwarden.errors import KeysError
from signalwarden.files import why
from signalwarden.values import spiffe_trust_domain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["Certificates", "Peer", "PeerRefused", "expired", "peer_of"]

logger = logging.getLogger("signalwarden")

MAX_FILE_BYTES: Final = 1024 * 1024
"""A bundle of a hundred authorities takes a fifth of it; it is read at each handshake."""


@dataclass(frozen=True, slots=True)
class _Pems:
    """What the three files hold."""

    cert: bytes
    key: bytes
    client_ca: bytes


class Certificates:
    """Our certificate, its key, and whose clients' certificates are good: three PEM files.

    They are read at every handshake, so a rotated file counts from the next connection on. While they can't be read or
    do not belong together, as in the midst of a rotation, what was last good goes on."""

    def __init__(self, cert: Path, key: Path, client_ca: Path) -> None:
        self._paths = (cert, key, client_ca)
        self._mutex = threading.Lock()
        self._pems = self._read()
        _check(self._pems, self._paths)
        self._refused: _Pems | str | None = None
        """What was last found bad, so that it is said once."""

    def credentials(self) -> grpc.ServerCredentials:
        """For `add_secure_port`. A client without a certificate of our authorities gets no connection."""
        fetch: Any = self._fetch  # the stubs don't know that None means "as before"
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._pems), fetch, require_client_authentication=True
        )

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """None: as before."""
        with self._mutex:
            pems: _Pems | None = None
            try:
                pems = self._read()
                if pems in (self._pems, self._refused):
                    return None
                _check(pems, self._paths)
            except KeysError as error:
                bad = pems or str(error)
                if bad != self._refused:
                    logger.error("the certificates of the signals address go on as they were: %s", error)
                self._refused = bad
                return None
            self._pems, self._refused = pems, None
            logger.info("new certificates on the signals address")
            return _configuration(pems)

    def _read(self) -> _Pems:
        return _Pems(*(_content(path) for path in self._paths))


def _configuration(pems: _Pems) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(pems.key, pems.cert)], root_certificates=pems.client_ca
    )


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


def _check(pems: _Pems, paths: tuple[Path, Path, Path]) -> None:
    """The sentence that grpc does not say. Nothing of the key is repeated."""
    cert_path, key_path, ca_path = paths
    try:
        [leaf, *_] = x509.load_pem_x509_certificates(pems.cert)
    except ValueError as error:
        raise KeysError(f"`{cert_path}` is not a certificate in PEM") from error
    try:
        key = load_pem_private_key(pems.key, None)
    except (ValueError, TypeError) as error:
        raise KeysError(f"`{key_path}` is not a private key in PEM without a password") from error
    ours, theirs = (
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        for public in (key.public_key(), leaf.public_key())
    )
    if ours != theirs:
        raise KeysError(f"the key `{key_path}` is not that of the certificate `{cert_path}`")
    try:
        x509.load_pem_x509_certificates(pems.client_ca)
    except ValueError as error:
        raise KeysError(f"`{ca_path}` is not a list of certificates in PEM") from error


# ---- who is there ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Peer:
    """A client by its certificate."""

    id: str
    """Its SPIFFE ID."""
    trust_domain: str
    expires: datetime


class PeerRefused(Exception):
    """A certificate of our authorities that names nobody we can publish for; one sentence."""


def peer_of(auth_context: Mapping[str, Sequence[bytes]]) -> Peer:
    """Who the client of a connection is. grpc has verified the chain already. Raises PeerRefused."""
    pems = auth_context.get("x509_pem_cert") or ()
    if len(pems) != 1:
        raise PeerRefused("the connection has no client certificate")
    try:
        leaf = x509.load_pem_x509_certificate(pems[0])
        names, expires = _names(leaf), leaf.not_valid_after_utc
        _leaf_only(leaf)
    except PeerRefused:
        raise
    except Exception as error:  # what cryptography says of odd extensions has no class of its own
        raise PeerRefused("the client certificate can't be read") from error
    if len(names) != 1:
        raise PeerRefused(f"expected a client certificate with one URI name, found {len(names)}")
    domain = spiffe_trust_domain(names[0])
    if domain is None or names[0] == f"spiffe://{domain}":
        raise PeerRefused("the URI name of the client certificate is not the SPIFFE ID of a workload")
    return Peer(names[0], domain, expires)


def _names(leaf: x509.Certificate) -> list[str]:
    try:
        extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return extension.value.get_values_for_type(x509.UniformResourceIdentifier)


def _leaf_only(leaf: x509.Certificate) -> None:
    """An authority's certificate is no workload's (X509-SVID, sections 4.1 and 4.3)."""
    for extension in leaf.extensions:
        if isinstance(extension.value, x509.BasicConstraints) and extension.value.ca:
            raise PeerRefused("the client certificate is that of an authority")
        if isinstance(extension.value, x509.KeyUsage):
            usage = extension.value
            if usage.key_cert_sign or usage.crl_sign or not usage.digital_signature:
                raise PeerRefused("the key of the client certificate is not for signatures alone")


def expired(peer: Peer) -> bool:
    """Whether its certificate has run out since the handshake."""
    return datetime.now(UTC) >= peer.expires
