"""Who a certificate chain proves to be: X509-SVIDs, each verified against the bundle of its own trust domain alone.

The path is found and checked by `cryptography.x509.verification`: signatures, validity, names, path lengths, name
constraints, algorithms of the Web's baseline. Its rules for the ends of a chain are those of browsers (a DNS name, an
extended key usage), so for leaf and authorities the rules of X509-SVID, sections 4 and 5, stand here instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import verification
from cryptography.x509.verification import Criticality, ExtensionPolicy

from signalwarden.values import spiffe_trust_domain

if TYPE_CHECKING:
    from signalwarden.bundles.bundle import Bundle

__all__ = [
    "MAX_CERTIFICATE_BYTES",
    "BundleLookup",
    "SpiffeIdentity",
    "X509Refused",
    "certificate",
    "certificates",
    "chain_from_pem",
    "named",
    "verify_x509_svid",
]

MAX_CERTIFICATE_BYTES: Final = 32 * 1024
"""One with a key of 8,192 bits and a hundred names has 6 KB."""
MAX_CHAIN: Final = 8
"""Certificates that a client may send: nested SPIRE servers make a chain of four or five."""
MAX_CHAIN_BYTES: Final = MAX_CHAIN * MAX_CERTIFICATE_BYTES


class X509Refused(Exception):
    """A chain that proves nobody; one sentence, fit for a client."""


@dataclass(frozen=True, slots=True)
class SpiffeIdentity:
    """Who a verified leaf is."""

    id: str
    trust_domain: str
    not_before: datetime
    not_after: datetime
    serial: str
    """In hex, lower case, without leading zeros."""
    sha256: str
    """Of the leaf in DER, in hex."""


class BundleLookup(Protocol):
    """`Bundles`, or a dict of bundles by trust domain."""

    def get(self, trust_domain: str, /) -> Bundle | None:
        """The live bundle of a trust domain; None: nobody of it is known."""


def verify_x509_svid(
    chain: Sequence[x509.Certificate], bundles: BundleLookup, now: datetime
) -> SpiffeIdentity:
    """Who the leaf, the first of the chain, is. Raises X509Refused."""
    if not chain:
        raise X509Refused("there is no certificate")
    if len(chain) > MAX_CHAIN:
        raise X509Refused(f"the chain has {len(chain)} certificates, at most {MAX_CHAIN} are read")
    leaf = chain[0]
    identity = named(leaf)
    bundle = bundles.get(identity.trust_domain)
    if bundle is None or not bundle.x509:
        raise X509Refused(f"there is no bundle of the trust domain `{identity.trust_domain}`")
    if not identity.not_before <= now <= identity.not_after:
        raise X509Refused("the certificate is not valid now")
    _verify_path(chain, bundle, now)
    return identity


def _verify_path(chain: Sequence[x509.Certificate], bundle: Bundle, now: datetime) -> None:
    try:
        (
            verification.PolicyBuilder()
            .store(verification.Store(list(bundle.x509)))
            .time(now)
            .max_chain_depth(MAX_CHAIN)
            .extension_policies(ca_policy=_AUTHORITIES, ee_policy=_LEAVES)
            .build_client_verifier()
            .verify(chain[0], list(chain[1:]))
        )
    except verification.VerificationError as error:
        raise X509Refused(
            f"the certificate does not lead to an authority of the trust domain `{bundle.trust_domain}`"
        ) from error
    except Exception as error:  # what cryptography says of odd extensions has no class of its own
        raise X509Refused("a certificate of the chain can't be read") from error


def named(leaf: x509.Certificate) -> SpiffeIdentity:
    """Whom the leaf names, by the rules for leaves. That says nothing of who signed it. Raises X509Refused."""
    try:
        extensions = leaf.extensions
        not_before, not_after = leaf.not_valid_before_utc, leaf.not_valid_after_utc
        fingerprint, serial = leaf.fingerprint(SHA256()).hex(), f"{leaf.serial_number:x}"
    except Exception as error:  # what cryptography says of odd extensions has no class of its own
        raise X509Refused("the certificate can't be read") from error
    names: list[str] = []
    signs = False
    for extension in extensions:
        match extension.value:
            case x509.SubjectAlternativeName() as value:
                names = value.get_values_for_type(x509.UniformResourceIdentifier)
            case x509.BasicConstraints(ca=True):
                raise X509Refused("the certificate is that of an authority")
            case x509.KeyUsage() as usage:
                if usage.key_cert_sign or usage.crl_sign:
                    raise X509Refused("the key of the certificate may sign certificates")
                signs = usage.digital_signature
    if not signs:
        raise X509Refused("the key of the certificate is not for signatures")
    if len(names) != 1:
        raise X509Refused(f"expected a certificate with one URI name, found {len(names)}")
    domain = spiffe_trust_domain(names[0])
    if domain is None or names[0] == f"spiffe://{domain}":
        raise X509Refused("the URI name of the certificate is not the SPIFFE ID of a workload")
    return SpiffeIdentity(names[0], domain, not_before, not_after, serial, fingerprint)


# ---------------------------------------------------------------- rules of cryptography's verification


def _is_authority(_policy: object, _certificate: x509.Certificate, value: x509.BasicConstraints) -> None:
    if not value.ca:
        raise ValueError("not an authority")


def _may_sign_certificates(_policy: object, _certificate: x509.Certificate, value: x509.KeyUsage) -> None:
    if not value.key_cert_sign:
        raise ValueError("its key may not sign certificates")


_AUTHORITIES: Final = (
    ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _is_authority)
    .require_present(x509.KeyUsage, Criticality.AGNOSTIC, _may_sign_certificates)
)
_LEAVES: Final = ExtensionPolicy.permit_all().require_present(
    x509.SubjectAlternativeName, Criticality.AGNOSTIC, None
)


# ---------------------------------------------------------------- reading


def certificate(der: bytes) -> x509.Certificate:
    """One certificate, and no byte after it. Raises ValueError."""
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise ValueError("the certificate is too long")
    return x509.load_der_x509_certificate(der)


def certificates(der: bytes, most: int) -> tuple[x509.Certificate, ...]:
    """Certificates one after the other, as the Workload API has them. Raises ValueError."""
    found: list[x509.Certificate] = []
    rest = memoryview(der)
    while rest:
        if len(found) == most:
            raise ValueError("too many certificates")
        length = _element(rest)
        found.append(certificate(bytes(rest[:length])))
        rest = rest[length:]
    return tuple(found)


def _element(der: memoryview) -> int:
    """How many bytes the DER element at the front has. Raises ValueError."""
    if len(der) < 2:
        raise ValueError("cut off")
    first = der[1]
    if first < 0x80:
        length = 2 + first
    else:
        count = first & 0x7F
        if not 1 <= count <= 3 or len(der) < 2 + count:
            raise ValueError("no length of DER")
        length = 2 + count + int.from_bytes(der[2 : 2 + count], "big")
    if length > len(der):
        raise ValueError("cut off")
    return length


def chain_from_pem(pem: bytes) -> tuple[x509.Certificate, ...]:
    """A chain, leaf first. Raises X509Refused."""
    if len(pem) > 2 * MAX_CHAIN_BYTES:
        raise X509Refused(f"the chain has more than {2 * MAX_CHAIN_BYTES} bytes")
    try:
        found = x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise X509Refused("the chain is not a list of certificates in PEM") from error
    if any(len(cert.public_bytes(Encoding.DER)) > MAX_CERTIFICATE_BYTES for cert in found):
        raise X509Refused(f"a certificate has more than {MAX_CERTIFICATE_BYTES} bytes")
    return tuple(found)
