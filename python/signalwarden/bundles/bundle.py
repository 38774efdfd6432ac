"""The trust bundle of one trust domain (SPIFFE Trust Domain and Bundle, section 4), from bytes to authorities."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import Certificate

from signalwarden.bundles.x509 import MAX_CERTIFICATE_BYTES, certificate
from signalwarden.errors import KeySetError
from signalwarden.keysets import MAX_KID_BYTES, PublicKey, public_key, read_entries

__all__ = ["MAX_BUNDLE_BYTES", "Bundle", "read_bundle", "read_jwt_bundle"]

MAX_BUNDLE_BYTES: Final = 512 * 1024
"""A bundle of SPIRE has 3 to 10 KB; the bounds of its keys and certificates below make less than this."""
MAX_KEYS: Final = 256
"""Of all uses: SPIRE holds two of each, and more while it rotates."""
MAX_AUTHORITIES: Final = 64
"""Certificates of one bundle: each may be tried at a handshake."""
MAX_JWT_KEYS: Final = 64
MAX_SEQUENCE: Final = 2**64 - 1
"""What the specification asks for: 64 bits."""
MAX_REFRESH_HINT: Final = 10 * 366 * 24 * 3600
"""Ten years; sources bring it within bounds of their own."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """The authorities of one trust domain, whole as it was last told."""

    trust_domain: str
    x509: tuple[Certificate, ...]
    jwt: Mapping[str, PublicKey]
    """By `kid`."""
    sequence: int | None
    refresh_s: float | None
    revision: str
    """SHA-256 over all authorities, in hex: two bundles of one revision vouch for the same."""

    @staticmethod
    def of(
        trust_domain: str,
        authorities: Sequence[Certificate] = (),
        keys: Mapping[str, PublicKey] | None = None,
        *,
        sequence: int | None = None,
        refresh_s: float | None = None,
    ) -> Bundle:
        """Made of its parts. A certificate that stands twice counts once."""
        unique = tuple(dict.fromkeys(authorities))
        sorted_keys = MappingProxyType(dict(sorted((keys or {}).items())))
        revision = _revision(trust_domain, unique, sorted_keys)
        return Bundle(trust_domain, unique, sorted_keys, sequence, refresh_s, revision)

    def summary(self) -> dict[str, Any]:
        """For `/readyz`: no certificate, no key."""
        found: dict[str, Any] = {
            "revision": self.revision[:12],
            "certificates": len(self.x509),
            "jwt_authorities": len(self.jwt),
        }
        return found if self.sequence is None else found | {"sequence": self.sequence}

    @property
    def vouches(self) -> bool:
        """False if it holds no authority at all: that is how a publisher takes back everything."""
        return bool(self.x509 or self.jwt)


def _revision(trust_domain: str, authorities: Sequence[Certificate], keys: Mapping[str, PublicKey]) -> str:
    parts = [["x509", hashlib.sha256(cert.public_bytes(Encoding.DER)).hexdigest()] for cert in authorities]
    parts.sort()
    for kid, key in keys.items():
        spki = key.material.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        parts.append(["jwt", kid, key.algorithm or "", hashlib.sha256(spki).hexdigest()])
    return hashlib.sha256(json.dumps([trust_domain, parts]).encode()).hexdigest()


# ---------------------------------------------------------------- reading


def read_bundle(trust_domain: str, raw: bytes) -> Bundle:
    """Reads a SPIFFE bundle. Entries of unknown uses and types are left out; whatever else is wrong refuses the whole.
    Raises KeySetError."""
    content, entries = _entries(raw)
    authorities = [_authority(entry) for entry in entries if _is(entry, "x509-svid")]
    if len(authorities) > MAX_AUTHORITIES:
        raise KeySetError(
            f"the bundle has {len(authorities)} certificates, at most {MAX_AUTHORITIES} are read"
        )
    keys = _keys(entry for entry in entries if _is(entry, "jwt-svid"))
    return Bundle.of(
        trust_domain,
        authorities,
        keys,
        sequence=_whole(content, "spiffe_sequence", MAX_SEQUENCE),
        refresh_s=_whole(content, "spiffe_refresh_hint", MAX_REFRESH_HINT),
    )


def read_jwt_bundle(raw: bytes) -> Mapping[str, PublicKey]:
    """Reads the JWK set in which the Workload API tells the JWT authorities of one trust domain. Raises KeySetError."""
    _, entries = _entries(raw)
    return _keys(entry for entry in entries if "use" not in entry or _is(entry, "jwt-svid"))


def _entries(raw: bytes) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    return read_entries(raw, "the bundle", max_bytes=MAX_BUNDLE_BYTES, max_keys=MAX_KEYS)


def _is(entry: Mapping[str, Any], use: str) -> bool:
    """True for entries of that use. Without `kty` it is of no known type (section 4.2.1)."""
    return entry.get("use") == use and isinstance(entry.get("kty"), str)


def _authority(entry: Mapping[str, Any]) -> Certificate:
    chain = entry.get("x5c")
    if not isinstance(chain, list) or len(chain) != 1 or not isinstance(chain[0], str):
        raise KeySetError("an entry of the bundle for `x509-svid` has not exactly one certificate in `x5c`")
    if len(chain[0]) > 2 * MAX_CERTIFICATE_BYTES:
        raise KeySetError(f"a certificate of the bundle has more than {MAX_CERTIFICATE_BYTES} bytes")
    try:
        return certificate(base64.b64decode(chain[0], validate=True))
    except (ValueError, binascii.Error) as error:
        raise KeySetError("an `x5c` of the bundle is not a certificate") from error


def _keys(entries: Any) -> Mapping[str, PublicKey]:
    keys: dict[str, PublicKey] = {}
    seen: set[str] = set()
    for entry in entries:
        kid = entry.get("kid")
        if not isinstance(kid, str) or not 0 < len(kid.encode("utf-8", "replace")) <= MAX_KID_BYTES:
            raise KeySetError(f"a JWT authority of the bundle has no `kid` of 1 to {MAX_KID_BYTES} bytes")
        if kid in seen:
            raise KeySetError("two JWT authorities of the bundle have the same `kid`")
        seen.add(kid)
        key = public_key(entry)
        if key is not None:
            keys[kid] = key
    if len(keys) > MAX_JWT_KEYS:
        raise KeySetError(f"the bundle has {len(keys)} JWT authorities, at most {MAX_JWT_KEYS} are read")
    return MappingProxyType(keys)


def _whole(content: Mapping[str, Any], name: str, most: int) -> int | None:
    value = content.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise KeySetError(f"`{name}` of the bundle is not a whole number of 0 to {most}")
    return value
