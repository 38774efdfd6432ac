"""Claims that all classes of tokens share, read one by one, each within its bound."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from signalwarden import jose
from signalwarden.errors import KeySetError
from signalwarden.keysets import ALGORITHMS, PublicKey
from signalwarden.tokens.proof import TokenRefused, shown
from signalwarden.tokens.terms import Limits, Way

__all__ = [
    "KeyFinder",
    "Times",
    "audience",
    "bound_certificate",
    "optional_text",
    "read_claims",
    "read_token",
    "signing_key",
    "text",
    "times",
    "wanted_claims",
]

MAX_TOKEN_BYTES: Final = 16 * 1024
"""As the core's own limit; what servers take as all the headers of a request."""
MAX_CLAIMS: Final = 128
"""Of one token; those in use have 10 to 30."""
MAX_AUDIENCES: Final = 32
"""As other readers of JWT-SVIDs; a token for many is one that many can present again."""
MAX_TEXT_BYTES: Final = 2048
"""As the longest SPIFFE ID, and as the core's limit on a claim."""
MAX_KID_BYTES: Final = 256
MAX_WANTED_BYTES: Final = 2048
"""A claim that a contract asks for, as JSON. A larger one is as if it were not there: it denies where it is needed."""
SHA256_BYTES: Final = 32
MAX_SKEW_US: Final = 5_000_000
"""How far ahead of ours an issuer's clock may be, as the core has it. Nothing is added to `exp`: the core ends a proof
at that moment, and a token that lived a little longer the first time than the second would help nobody."""

MAX_COMPUTING: Final = 2
"""Signatures checked at once, in the whole process: each takes 0.03 ms (RSA) to 1 ms (P-521) of a processor."""
COMPUTE_WAIT_S: Final = 1.0
_computing = threading.BoundedSemaphore(MAX_COMPUTING)


class KeyFinder(Protocol):
    """`keysets.KeySet`, as far as it is used here."""

    def find(self, kid: str | None, algorithm: str) -> PublicKey | None:
        """The key; None if there is none. Raises KeySetError while nobody can say."""

    @property
    def revision(self) -> str:
        """Names the state of the set."""


# ---------------------------------------------------------------- the signed thing


def read_token(raw: bytes) -> jose.Jws:
    """In compact form, its algorithm one of ours, nothing in its header that asks to be understood."""
    try:
        token = jose.read(raw, max_bytes=MAX_TOKEN_BYTES, what="the token")
    except jose.MalformedError as error:
        raise TokenRefused.invalid(str(error)) from error
    if not isinstance(token.header.get("alg"), str) or token.header["alg"] not in ALGORITHMS:
        raise TokenRefused.invalid("the algorithm of the token's signature is not one that counts")
    for name in ("crit", "b64"):
        if name in token.header:
            raise TokenRefused.invalid(f"no extension of the header is understood: `{name}` is refused")
    # `jwk`, `jku`, `x5c` and `x5u` are never read: a token does not say which key it is to be trusted by.
    return token


def read_claims(token: jose.Jws) -> dict[str, Any]:
    """The claims, whether or not the signature holds: it says which key to check it by."""
    try:
        claims = jose.read_object(token.payload, "the claims of the token")
    except jose.MalformedError as error:
        raise TokenRefused.invalid(str(error)) from error
    if len(claims) > MAX_CLAIMS:
        raise TokenRefused.invalid(f"the token has more than {MAX_CLAIMS} claims")
    return claims


def signing_key(token: jose.Jws, keys: KeyFinder, algorithms: frozenset[str], of: str) -> PublicKey:
    """The key that signed it: of that owner, for an algorithm of those terms."""
    algorithm = token.header["alg"]
    if algorithm not in algorithms:
        raise TokenRefused.invalid("the algorithm of the token's signature is not one that counts")
    kid = token.header.get("kid")
    if kid is not None and (not isinstance(kid, str) or not 0 < len(kid.encode()) <= MAX_KID_BYTES):
        raise TokenRefused.invalid(f"`kid` is no text of 1 to {MAX_KID_BYTES} bytes")
    try:
        key = keys.find(kid, algorithm)
    except KeySetError as error:
        raise TokenRefused.invalid(
            f"the keys of {shown(of)} can't be had at the moment", passing=True
        ) from error
    if key is None:
        named = "" if kid is None else f" {shown(kid)}"
        raise TokenRefused.invalid(f"the key{named} that the token names is none of {shown(of)}")
    if not _holds(token, key, algorithm):
        raise TokenRefused.invalid("the signature of the token does not hold")
    return key


def _holds(token: jose.Jws, key: PublicKey, algorithm: str) -> bool:
    if not _computing.acquire(timeout=COMPUTE_WAIT_S):
        raise TokenRefused.invalid("too many signatures are checked at the moment: try again", passing=True)
    try:
        return token.is_signed_by(key, algorithm)
    finally:
        _computing.release()


# ---------------------------------------------------------------- one claim


def text(claims: Mapping[str, Any], name: str) -> str:
    """A claim that must be there."""
    value = optional_text(claims, name)
    if value is None:
        raise TokenRefused.invalid(f"the claim `{name}` is missing")
    return value


def optional_text(claims: Mapping[str, Any], name: str) -> str | None:
    """A claim that may be there, as text."""
    value = claims.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value.encode()) <= MAX_TEXT_BYTES or not value.isprintable():
        raise TokenRefused.invalid(f"the claim `{name}` is no text of 1 to {MAX_TEXT_BYTES} printable bytes")
    return value


def audience(claims: Mapping[str, Any], ours: frozenset[str]) -> tuple[str, ...]:
    """`aud`, one of which is ours."""
    value = claims.get("aud")
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not 0 < len(names) <= MAX_AUDIENCES:
        raise TokenRefused.invalid(f"`aud` is no text and no list of 1 to {MAX_AUDIENCES}")
    for name in names:
        if not isinstance(name, str) or len(name.encode()) > MAX_TEXT_BYTES:
            raise TokenRefused.invalid("`aud` holds what is no text, or a long one")
    if ours.isdisjoint(names):
        raise TokenRefused.invalid("the token was made for another audience")
    return tuple(dict.fromkeys(names))


@dataclass(frozen=True, slots=True)
class Times:
    """When a token was issued and when it ends, in microseconds."""

    issued_at_us: int | None
    expires_at_us: int


def times(claims: Mapping[str, Any], limits: Limits, now_us: int, *, needs_iat: bool) -> Times:
    """`exp`, `iat` and `nbf`, and whether the token is short-lived. A token without end is never."""
    if claims.get("exp") is None:
        raise TokenRefused.too_long_lived("the token does not say when it expires")
    expires = jose.microseconds(claims["exp"])
    if expires is None:
        raise TokenRefused.invalid("`exp` is no number of seconds since 1970")
    if now_us >= expires:
        raise TokenRefused.expired("the token has expired")
    issued = _moment(claims, "iat", now_us)
    if issued is None and needs_iat:
        raise TokenRefused.invalid("the claim `iat` is missing")
    _moment(claims, "nbf", now_us)
    if (
        limits.max_lifetime_us is not None
        and expires - (now_us if issued is None else issued) > limits.max_lifetime_us
    ):
        raise TokenRefused.too_long_lived("the token lives longer than its class may")
    if limits.max_age_us is not None and (issued is None or now_us - issued > limits.max_age_us):
        raise TokenRefused.too_long_lived(
            "the token is older than its class may be, or does not say when it was issued"
        )
    return Times(issued, expires)


def _moment(claims: Mapping[str, Any], name: str, now_us: int) -> int | None:
    """A time that may be there and must have come."""
    if claims.get(name) is None:
        return None
    moment = jose.microseconds(claims[name])
    if moment is None:
        raise TokenRefused.invalid(f"`{name}` is no number of seconds since 1970")
    if moment > now_us + MAX_SKEW_US:
        raise TokenRefused.invalid(f"`{name}` lies in the future")
    return moment


def bound_certificate(claims: Mapping[str, Any], *, must_be_bound: bool) -> str | None:
    """RFC 8705 section 3.1: hex SHA-256 of the certificate that must come with the token. The core compares it with the
    connection's at each use."""
    confirmation = claims.get("cnf")
    if confirmation is None:
        if must_be_bound:
            raise TokenRefused.invalid("the token is bound to no certificate, and this issuer's must be")
        return None
    if not isinstance(confirmation, dict) or set(confirmation) != {"x5t#S256"}:
        raise TokenRefused.invalid(
            "the token is bound in a way that can't be checked here: only `x5t#S256` can"
        )
    value = confirmation["x5t#S256"]
    try:
        digest = jose.decoded(value.encode(), "the token") if isinstance(value, str) else b""
    except (jose.MalformedError, UnicodeEncodeError):
        digest = b""
    if len(digest) != SHA256_BYTES:
        raise TokenRefused.invalid("`x5t#S256` is no SHA-256 in base64url")
    return digest.hex()


def wanted_claims(claims: Mapping[str, Any], ways: Sequence[Way]) -> tuple[tuple[Way, Any], ...]:
    """What stands at each way; None where nothing does: the core takes that for known to be absent."""
    return tuple((way, _at(claims, way)) for way in ways)


def _at(claims: Mapping[str, Any], way: Way) -> Any:
    value: Any = claims
    for name in way:
        value = value.get(name) if isinstance(value, dict) else None
    if len(json.dumps(value, ensure_ascii=False).encode()) > MAX_WANTED_BYTES:
        return None
    return value
