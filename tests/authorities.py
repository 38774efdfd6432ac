"""Authorities, SVIDs and bundle documents made for tests: real keys, real signatures."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["Authority", "Issued", "document", "jwk"]

LIFE = timedelta(hours=1)


class Issued:
    """A certificate with its key and what stands between it and its authority."""

    def __init__(
        self,
        cert: x509.Certificate,
        key: ec.EllipticCurvePrivateKey,
        between: Sequence[x509.Certificate] = (),
    ) -> None:
        self.cert = cert
        self.key = key
        self.chain = (cert, *between)

    @property
    def chain_der(self) -> bytes:
        return b"".join(cert.public_bytes(Encoding.DER) for cert in self.chain)

    @property
    def chain_pem(self) -> bytes:
        return b"".join(cert.public_bytes(Encoding.PEM) for cert in self.chain)

    @property
    def key_der(self) -> bytes:
        return self.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class Authority:
    """An authority of a trust domain, as a SPIRE server is one."""

    def __init__(
        self,
        name: str,
        above: Authority | None = None,
        *,
        path_length: int | None = None,
        extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
        ca: bool = True,
        signs: bool = True,
    ) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.above = above
        self._ca, self._signs, self._path_length, self._extra = ca, signs, path_length, extra
        self.cert = self.again()

    def again(self) -> x509.Certificate:
        """Another certificate of the same name and key."""
        above, now, signs = self.above, datetime.now(UTC), self._signs
        limit = self._path_length if self._ca else None
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(above.name if above else self.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 2 * LIFE)
            .not_valid_after(now + 24 * LIFE)
            .add_extension(x509.BasicConstraints(ca=self._ca, path_length=limit), critical=True)
            .add_extension(
                usage(digital_signature=not signs, key_cert_sign=signs, crl_sign=signs), critical=True
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
        )
        for value, critical in self._extra:
            builder = builder.add_extension(value, critical)
        return builder.sign(above.key if above else self.key, hashes.SHA256())

    @property
    def between(self) -> tuple[x509.Certificate, ...]:
        """What an SVID of this authority sends along: everything below the root."""
        return () if self.above is None else (self.cert, *self.above.between)

    @property
    def der(self) -> bytes:
        return self.cert.public_bytes(Encoding.DER)

    def issue(
        self,
        *uris: str,
        begins: timedelta = -timedelta(minutes=1),
        life: timedelta = LIFE,
        dns: Sequence[str] = (),
        key_usage: x509.KeyUsage | None = None,
        ca: bool = False,
        extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
    ) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
        names += [x509.DNSName(name) for name in dns]
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "SPIRE")]))
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + begins + life)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(key_usage or usage(digital_signature=True), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        for value, critical in extra:
            builder = builder.add_extension(value, critical)
        return Issued(builder.sign(self.key, hashes.SHA256()), key, self.between)


def usage(**used: bool) -> x509.KeyUsage:
    names = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
        *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**{name: used.get(name, False) for name in names})


def jwk(kid: str | None, key: ec.EllipticCurvePrivateKey | None = None, **more: Any) -> dict[str, Any]:
    """A JWT authority as it stands in a bundle."""
    numbers = (key or ec.generate_private_key(ec.SECP256R1())).public_key().public_numbers()
    x, y = (_b64(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
    entry = {"use": "jwt-svid", "kty": "EC", "crv": "P-256", "x": x, "y": y}
    return entry | ({} if kid is None else {"kid": kid}) | more


def document(*authorities: Authority, keys: Sequence[dict[str, Any]] = (), **more: Any) -> bytes:
    """A SPIFFE bundle."""
    entries: list[dict[str, Any]] = []
    for authority in authorities:
        numbers = authority.key.public_key().public_numbers()
        x, y = (_b64(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
        x5c = [base64.b64encode(authority.der).decode()]
        entries.append({"use": "x509-svid", "kty": "EC", "crv": "P-256", "x": x, "y": y, "x5c": x5c})
    return json.dumps({"keys": [*entries, *keys], **more}).encode()


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
