"""One token, from its bytes to the evidence that it gives. Which kind a token is tells its `typ` alone, before any key
is looked up; whose keys it is checked by, its issuer or subject.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from signalwarden import jose
from signalwarden.tokens import claims as read
from signalwarden.tokens import jwt_svid, oauth
from signalwarden.tokens.claims import KeyFinder
from signalwarden.tokens.proof import Proof, TokenRefused
from signalwarden.tokens.terms import Terms, TokenClass, Way

__all__ = ["NO_BUNDLES", "Entry", "Statuses", "Validator"]


class Statuses(Protocol):
    """Whoever knows the status of tokens: `status.StatusLists`."""

    def support(self, claims: Mapping[str, object], now_us: int) -> tuple[tuple[str, str], ...]:
        """What a token that stands rests on. Raises TokenRefused for one that does not, or of which nobody can say."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One issuer and class: what its tokens are held against, and whose keys sign them."""

    terms: Terms
    keys: KeyFinder
    statuses: Statuses | None = None
    header: str | None = None
    """The header that its tokens come in; None: any that the core reads for OAuth tokens."""


class _NoBundles:
    def get(self, trust_domain: str) -> jwt_svid.BundleLike | None:
        """Nobody's."""
        del trust_domain
        return None


NO_BUNDLES: Final = _NoBundles()


@dataclass(frozen=True, slots=True)
class Validator:
    """Immutable; another configuration is another validator."""

    svids: Terms | None = None
    entries: Mapping[tuple[str, TokenClass], Entry] = field(default_factory=dict)
    bundles: jwt_svid.Bundles = NO_BUNDLES
    ways: Mapping[str, Sequence[Way]] = field(default_factory=dict)
    """By issuer or trust domain: the claims that contracts ask for."""
    accepted: frozenset[str] | None = None
    """Trust domains that are ours or federated; None: those of the bundles."""

    def validate(
        self, source: str, token: bytes, *, digest: str, header: str | None = None, now_us: int
    ) -> Proof:
        """`source`: the sources of identities of the header, joined by commas. Raises TokenRefused."""
        signed = read.read_token(token)
        sources = source.split(",")
        kind = _kind(signed)
        if kind is TokenClass.JWT_SVID:
            if self.svids is None or "jwt_svid" not in sources:
                raise TokenRefused.class_refused("no JWT-SVID is accepted here")
            return self._svid(signed, self.svids, digest, now_us)
        if "oauth" not in sources:
            raise TokenRefused.class_refused("no token of an OAuth issuer is accepted here")
        return self._oauth(signed, kind, digest, header, now_us)

    def _svid(self, signed: jose.Jws, terms: Terms, digest: str, now_us: int) -> Proof:
        return jwt_svid.validate(
            signed, terms, self.bundles, digest=digest, ways=self.ways, now_us=now_us, accepted=self.accepted
        )

    def _oauth(
        self, signed: jose.Jws, kind: TokenClass, digest: str, header: str | None, now_us: int
    ) -> Proof:
        if all(entry.terms.token_class is not kind for entry in self.entries.values()):
            raise TokenRefused.class_refused("no token of this class is accepted here")
        claims = read.read_claims(signed)
        entry = self.entries.get((read.text(claims, "iss"), kind))
        if entry is None:
            raise TokenRefused.invalid("the issuer of the token is not one whose tokens of this class count")
        if None not in (header, entry.header) and header != entry.header:
            raise TokenRefused.class_refused("a token of this issuer and class comes in another header")
        ways = self.ways.get(str(entry.terms.issuer), ())
        proof = oauth.validate(
            signed, claims, entry.terms, entry.keys, digest=digest, ways=ways, now_us=now_us
        )
        if not entry.terms.has_status:
            return proof
        if entry.statuses is None:
            raise TokenRefused.invalid("the status of the token can't be had")
        return replace(proof, rests_on=(*proof.rests_on, *entry.statuses.support(claims, now_us)))


def _kind(signed: jose.Jws) -> TokenClass:
    """By `typ` alone. A JWT that says nothing, or `JWT`, is held to be a JWT-SVID and nothing else (RFC 8725 section
    3.11)."""
    kind = signed.header.get("typ")
    if kind in jwt_svid.TYPES:
        return TokenClass.JWT_SVID
    found = oauth.TYPES.get(kind.lower()) if isinstance(kind, str) else None
    if found is None:
        raise TokenRefused.invalid("`typ` is not that of a token that counts")
    return found
