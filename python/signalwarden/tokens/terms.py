"""What a configuration says of the tokens of one issuer: everything that their validation is held against."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from signalwarden.tokens.proof import TokenRefused
from signalwarden.values import MAX_SPIFFE_ID_BYTES, spiffe_trust_domain

__all__ = ["SVID_ALGORITHMS", "Limits", "PrincipalTemplate", "Terms", "TokenClass", "Way"]

Way = tuple[str, ...]
"""Names from the top of a token down to a claim."""

SVID_ALGORITHMS: Final = frozenset(
    ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512")
)
"""JWT-SVID specification, section 2.1: these and no others."""

_TEMPLATE = re.compile(r"(?P<before>[^{}]*)\{(?P<claim>[A-Za-z0-9_]{1,64})\}(?P<after>[^{}]*)")
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")


class TokenClass(StrEnum):
    """A class of tokens, in the word of the settings."""

    JWT_SVID = "jwt_svid"
    ACCESS_TOKEN = "access_token"  # noqa: S105
    TRANSACTION_TOKEN = "transaction_token"  # noqa: S105


@dataclass(frozen=True, slots=True)
class Limits:
    """How long tokens of a class may live, and how old they may be. The core rechecks both at each use."""

    max_lifetime_us: int | None = None
    max_age_us: int | None = None


@dataclass(frozen=True, slots=True)
class PrincipalTemplate:
    """How one claim names a principal."""

    before: str
    claim: str
    after: str
    within: str | None
    """Where the claim is a SPIFFE ID itself: what it must begin with, up to a whole segment."""

    @staticmethod
    def parse(text: str, within: str | None) -> PrincipalTemplate:
        """Of a template that the settings have judged: `spiffe://a/b/{claim}`, or `{claim}` with `within`."""
        found = _TEMPLATE.fullmatch(text)
        if found is None or (not found["before"] and within is None):
            raise ValueError("no template of a principal")
        return PrincipalTemplate(found["before"], found["claim"], found["after"], within)

    def principal(self, value: object) -> str:
        """The SPIFFE ID that a claim's value makes. The value is one segment: nothing is split, escaped or folded."""
        if not isinstance(value, str):
            raise TokenRefused.invalid(
                f"the claim `{self.claim}`, which names the principal, is missing or no text"
            )
        if not self.before:
            return self._within(value)
        if _SEGMENT.fullmatch(value) is None or value in (".", ".."):
            raise TokenRefused.invalid(f"the claim `{self.claim}` is no single segment of a SPIFFE ID")
        made = f"{self.before}{value}{self.after}"
        if len(made) > MAX_SPIFFE_ID_BYTES or spiffe_trust_domain(made) is None:
            raise TokenRefused.invalid(f"the claim `{self.claim}` makes no SPIFFE ID")
        return made

    def _within(self, value: str) -> str:
        if spiffe_trust_domain(value) is None:
            raise TokenRefused.invalid(f"the claim `{self.claim}` is no SPIFFE ID")
        if self.within is None or not value.startswith(self.within.rstrip("/") + "/"):
            raise TokenRefused.invalid(
                f"the claim `{self.claim}` names a principal that its issuer may not name"
            )
        return value


@dataclass(frozen=True, slots=True)
class Terms:
    """What makes a token one that counts."""

    token_class: TokenClass
    issuer: str | None
    """Exactly as its tokens say it; None for JWT-SVIDs, whose issuer is the trust domain of the subject."""
    audiences: frozenset[str]
    """One of these must be among the token's."""
    algorithms: frozenset[str]
    digest: str
    """Of the settings that these terms were made of: what was proven under others is proven anew."""
    principal: PrincipalTemplate | None = None
    must_be_bound: bool = False
    limits: Limits = Limits()
    authority: str = ""
    """What the keys' proofs rest on: `keys:<issuer>`. Empty for JWT-SVIDs."""
    has_status: bool = False
    """Whether a status list must say that a token stands."""
