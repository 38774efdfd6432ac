"""The evidence of one validated token, as the core keeps it: who, how proven, until when, bound to what."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final, Self

from signalwarden.errors import SignalwardenError

__all__ = ["Proof", "TokenRefused", "shown"]

MAX_SHOWN: Final = 128
"""Letters of a foreign name in a sentence of ours."""


class TokenRefused(SignalwardenError):
    """A token that does not count: the reason of the core's table, and one sentence that holds nothing of the token but
    the names of its issuer, key or trust domain."""

    def __init__(self, reason: str, detail: str, *, passing: bool = False) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.passing = passing
        """True if it may be good in a moment: nobody could say. Such an answer is not remembered."""

    @classmethod
    def invalid(cls, detail: str, *, passing: bool = False) -> Self:
        """The reason of most: it does not verify."""
        return cls("token_invalid", detail, passing=passing)

    @classmethod
    def expired(cls, detail: str) -> Self:
        """Its time is over."""
        return cls("token_expired", detail)

    @classmethod
    def too_long_lived(cls, detail: str) -> Self:
        """It lives longer than its class may, or has no end."""
        return cls("token_too_long_lived", detail)

    @classmethod
    def unknown_domain(cls, detail: str, *, passing: bool = False) -> Self:
        """Its trust domain is neither ours nor federated, or has no bundle."""
        return cls("trust_domain_unknown", detail, passing=passing)

    @classmethod
    def class_refused(cls, detail: str) -> Self:
        """Its class of credential is not accepted here."""
        return cls("credential_refused", detail)


def shown(name: str) -> str:
    """A foreign name as it may stand in a sentence of ours: printable, bounded."""
    printable = "".join(
        letter if "!" <= letter <= "~" and letter != "`" else "?" for letter in name[:MAX_SHOWN]
    )
    return f"`{printable}`" if len(name) <= MAX_SHOWN else f"`{printable}…`"


@dataclass(frozen=True, slots=True)
class Proof:
    """Evidence of one token. The fields are those of its JSON."""

    digest: str
    token_class: str
    issuer: str
    terms: str
    principal: str | None
    subject: str
    audience: tuple[str, ...]
    key_id: str
    key_set: str
    rests_on: tuple[tuple[str, str], ...]
    issued_at_us: int | None
    expires_at_us: int
    certificate_sha256: str | None = None
    token_id: str | None = None
    actor: str | None = None
    earlier_actors: tuple[str, ...] = ()
    interactive: bool = False
    transaction: str | None = None
    scope: str | None = None
    requester: str | None = None
    claims: tuple[tuple[tuple[str, ...], Any], ...] = ()

    @property
    def source(self) -> str:
        """The source of identities that takes it."""
        return "jwt_svid" if self.token_class == "jwt_svid" else "oauth"  # noqa: S105

    def to_json(self) -> bytes:
        """As `Engine.validated` reads it."""
        content: dict[str, Any] = {"v": 1, "class": self.token_class, "source": self.source}
        for name in self.__dataclass_fields__:
            if name != "token_class":
                content[name] = getattr(self, name)
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
