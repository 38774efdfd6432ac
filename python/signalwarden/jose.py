"""Signed JWTs of others, read strictly: compact form, one meaning only, bounded. Shared by all that takes such tokens:
security events, JWT-SVIDs, access tokens, status lists. What a claim means is told elsewhere.
"""

from __future__ import annotations

import json
import math
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from signalwarden.errors import SignalwardenError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from signalwarden.keysets import PublicKey

__all__ = ["Jws", "MalformedError", "decoded", "microseconds", "read", "read_object"]

MAX_SECONDS: Final = 253_402_300_800
"""The year 10000: what lies beyond is no time, but milliseconds or nonsense."""
MAX_DEPTH: Final = 16
"""Objects and lists in one another; claims in use have 3 to 5."""
MAX_INTEGER: Final = 2**63
"""What other readers of JSON keep exactly, or nearly (RFC 7493 section 2.2)."""

_COMPACT = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")


class MalformedError(SignalwardenError):
    """What is no signed JWT, or could be read in two ways. Its text never holds what was read."""


@dataclass(frozen=True, slots=True)
class Jws:
    """A JWS in compact form (RFC 7515 section 7.1), its signature not checked yet."""

    header: Mapping[str, Any]
    payload: bytes = field(repr=False)
    signing_input: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    def is_signed_by(self, key: PublicKey, algorithm: str) -> bool:
        """Whether the signature holds. The key must be one for that algorithm: `PublicKey.is_for`."""
        if not key.is_for(algorithm):
            return False
        from signalwarden import jwts  # says why it is imported here

        return jwts.checks(algorithm, key.material, self.signing_input, self.signature)


def read(raw: bytes, *, max_bytes: int, what: str) -> Jws:
    """Raises MalformedError. `what` names the kind of token in its text."""
    if len(raw) > max_bytes:
        raise MalformedError(f"{what} has at most {max_bytes} bytes")
    segments = _COMPACT.fullmatch(raw)
    if segments is None:
        raise MalformedError("expected a signed JWT in compact form")
    header, payload, signature = (decoded(segment, what) for segment in segments.groups())
    signing_input = raw[: segments.end(2)]
    return Jws(read_object(header, f"the header of {what}"), payload, signing_input, signature)


def decoded(segment: bytes, what: str) -> bytes:
    """Base64url without padding, in its one canonical form: else each token would have others that say the same, and
    what is known by its digest would come again under another."""
    try:
        content = urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    except ValueError as error:
        raise MalformedError(f"a part of {what} is not base64url") from error
    if urlsafe_b64encode(content).rstrip(b"=") != segment:
        raise MalformedError(f"a part of {what} is not base64url")
    return content


def read_object(text: bytes, what: str) -> dict[str, Any]:
    """One JSON object, of which nobody can read two meanings: no key twice, no text that can't be written."""
    try:
        content = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_once,
            parse_constant=_refuse,
            parse_float=_finite,
            parse_int=_exact,
        )
        # Half of a surrogate pair is read by the parser, and written by nobody.
        json.dumps(content, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"{what} can't be read as JSON") from error
    if not isinstance(content, dict):
        raise MalformedError(f"{what} is no JSON object")
    if _is_deep(content):
        raise MalformedError(f"{what} is nested more than {MAX_DEPTH} deep")
    return content


def microseconds(value: object) -> int | None:
    """A NumericDate (RFC 7519 section 2) in microseconds; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MAX_SECONDS:
        return None
    return round(value * 1_000_000)


def _is_deep(content: dict[str, Any]) -> bool:
    level: list[Any] = [content]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for value in level:
            parts = value.values() if isinstance(value, dict) else value
            inner.extend(part for part in parts if isinstance(part, dict | list))
        if not inner:
            return False
        level = inner
    return True


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key stands twice")
    return content


def _refuse(word: str) -> object:
    raise ValueError(word)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("no finite number")
    return number


def _exact(text: str) -> int:
    number = int(text)
    if abs(number) > MAX_INTEGER:
        raise ValueError("too large a number")
    return number
