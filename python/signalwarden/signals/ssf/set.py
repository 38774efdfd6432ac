"""One security event token (SET, RFC 8417): read, its signature checked, and held against what the profile of Shared
Signals asks of it (SSF 1.0, section 4.1). Nothing here knows what an event means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol

from signalwarden import jose
from signalwarden.errors import SignalwardenError
from signalwarden.jose import microseconds
from signalwarden.keysets import ALGORITHMS, PublicKey

__all__ = ["ErrorCode", "KeyFinder", "SecurityEventToken", "SetRefusedError", "Verifier"]

MAX_SET_BYTES: Final = 64 * 1024
"""SETs of CAEP have 1 to 2 KB; a token of 64 KB is larger than servers take in a header."""
MAX_EVENTS: Final = 16
"""A SET has one event (SSF 1.0, section 4.2.1), or a few names of the same one."""
MAX_URI_BYTES: Final = 512
MAX_JTI_BYTES: Final = 256
MAX_AUDIENCES: Final = 64
MAX_SKEW_US: Final = 5_000_000
"""How far ahead of our clock a transmitter's may be; as for published values."""
TYPES: Final = ("secevent+jwt", "application/secevent+jwt")
"""RFC 8417 section 2.3, and the same with the prefix that RFC 7515 section 4.1.9 lets out. Compared in lower case."""
TOP_LEVEL_REFUSED: Final = ("sub", "exp")
"""SSF 1.0, sections 4.1.2 and 4.1.7: what has them is another kind of token."""


class ErrorCode(StrEnum):
    """What a transmitter is told (RFC 8935 section 2.4)."""

    INVALID_REQUEST = "invalid_request"
    INVALID_KEY = "invalid_key"
    INVALID_ISSUER = "invalid_issuer"
    INVALID_AUDIENCE = "invalid_audience"
    AUTHENTICATION_FAILED = "authentication_failed"
    ACCESS_DENIED = "access_denied"


class SetRefusedError(SignalwardenError):
    """A SET that is not taken, with the code that its transmitter is told."""

    def __init__(self, code: ErrorCode, description: str, *, genuine: bool = False) -> None:
        super().__init__(description)
        self.code = code
        self.genuine = genuine
        """True if the transmitter signed it for us, so that an event of its stream is lost with it."""


class KeyFinder(Protocol):
    """`keysets.KeySet`, as far as it is used here."""

    def find(self, kid: str | None, algorithm: str) -> PublicKey | None:
        """The key; None if there is none. Raises KeySetError while nobody can say."""


@dataclass(frozen=True, slots=True)
class SecurityEventToken:
    """A SET that is what it says it is."""

    jti: str
    issued_at_us: int
    subject: object
    """The claim `sub_id` as it came; None if there is none."""
    events: Mapping[str, Mapping[str, Any]]
    """Payloads by the URI of the type."""


@dataclass(frozen=True, slots=True)
class Verifier:
    """What makes a SET one of a feed."""

    issuer: str
    audience: str
    keys: KeyFinder

    def verify(self, raw: bytes, now_us: int) -> SecurityEventToken:
        """Raises SetRefusedError for what is no SET of this feed, KeySetError while its key can't be had."""
        payload = self._payload(raw)
        try:
            claims = jose.read_object(payload, "the claims of the SET")
        except jose.MalformedError as error:
            raise _malformed(str(error)) from error
        if claims.get("iss") != self.issuer:
            raise SetRefusedError(ErrorCode.INVALID_ISSUER, "`iss` is not the issuer of this feed")
        if self.audience not in _audiences(claims):
            raise SetRefusedError(ErrorCode.INVALID_AUDIENCE, "`aud` does not name this receiver")
        for name in TOP_LEVEL_REFUSED:
            if name in claims:
                # Whoever signed it meant another kind of token: no event of the stream is lost with it.
                raise SetRefusedError(ErrorCode.INVALID_REQUEST, f"a SET has no top-level `{name}`")
        return _token(claims, now_us)

    def _payload(self, raw: bytes) -> bytes:
        """The signed bytes. The algorithm is judged before anything is done with it."""
        try:
            signed = jose.read(raw, max_bytes=MAX_SET_BYTES, what="the SET")
        except jose.MalformedError as error:
            raise _malformed(str(error)) from error
        algorithm = _algorithm(signed.header)
        key = self.keys.find(_kid(signed.header), algorithm)
        if key is None:
            raise SetRefusedError(
                ErrorCode.INVALID_KEY, "the key that the SET names is not one of the transmitter's"
            )
        if not signed.is_signed_by(key, algorithm):
            raise SetRefusedError(ErrorCode.AUTHENTICATION_FAILED, "the signature does not hold")
        return signed.payload


def _malformed(description: str, *, genuine: bool = False) -> SetRefusedError:
    return SetRefusedError(ErrorCode.INVALID_REQUEST, description, genuine=genuine)


# ---------------------------------------------------------------- the header


def _algorithm(header: Mapping[str, Any]) -> str:
    kind = header.get("typ")
    if not isinstance(kind, str) or kind.lower() not in TYPES:
        raise _malformed(f"expected `typ: {TYPES[0]}`")
    algorithm = header.get("alg")
    if algorithm is None or (isinstance(algorithm, str) and algorithm.lower() == "none"):
        raise SetRefusedError(ErrorCode.AUTHENTICATION_FAILED, "the SET is not signed")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        known = ", ".join(ALGORITHMS)
        raise SetRefusedError(ErrorCode.INVALID_KEY, f"expected a signature by one of {known}")
    if "crit" in header or "b64" in header:
        raise _malformed("no extension of the header is understood: `crit` and `b64` are refused")
    # `jwk`, `jku`, `x5c` and `x5u` are never read: a token does not say which key it is to be trusted by.
    return algorithm


def _kid(header: Mapping[str, Any]) -> str | None:
    kid = header.get("kid")
    if kid is not None and (not isinstance(kid, str) or not 0 < len(kid.encode()) <= MAX_JTI_BYTES):
        raise _malformed(f"`kid` is no text of 1 to {MAX_JTI_BYTES} bytes")
    return kid


# ---------------------------------------------------------------- the claims


def _audiences(claims: Mapping[str, Any]) -> list[str]:
    audience = claims.get("aud")
    if isinstance(audience, str):
        return [audience]
    if isinstance(audience, list) and len(audience) <= MAX_AUDIENCES:
        return [name for name in audience if isinstance(name, str)]
    return []


def _token(claims: Mapping[str, Any], now_us: int) -> SecurityEventToken:
    """From here on whatever is wrong is the transmitter's own mistake, in an event meant for us."""
    jti = claims.get("jti")
    if not isinstance(jti, str) or not 0 < len(jti.encode()) <= MAX_JTI_BYTES:
        raise _malformed(f"`jti` is no text of 1 to {MAX_JTI_BYTES} bytes", genuine=True)
    issued_at = microseconds(claims.get("iat"))
    if issued_at is None:
        raise _malformed("`iat` is no number of seconds since 1970", genuine=True)
    if issued_at > now_us + MAX_SKEW_US:
        raise _malformed("`iat` lies in the future", genuine=True)
    if "nbf" in claims:
        begins = microseconds(claims["nbf"])
        if begins is None or begins > now_us + MAX_SKEW_US:
            raise _malformed("`nbf` lies in the future, or is no time", genuine=True)
    events = claims.get("events")
    if not isinstance(events, dict) or not 0 < len(events) <= MAX_EVENTS:
        raise _malformed(f"`events` is no object of 1 to {MAX_EVENTS} events", genuine=True)
    if any(not 0 < len(uri.encode()) <= MAX_URI_BYTES for uri in events):
        raise _malformed(f"the type of an event has 1 to {MAX_URI_BYTES} bytes", genuine=True)
    if not all(isinstance(payload, dict) for payload in events.values()):
        raise _malformed("the payload of an event is no object", genuine=True)
    return SecurityEventToken(jti, issued_at, claims.get("sub_id"), events)
