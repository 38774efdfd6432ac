"""JWT-SVIDs (SPIFFE JWT-SVID specification): the identity of a workload, signed by its own trust domain.

Decided where the specification leaves room: the header holds `alg`, `kid`, `typ` and nothing else (section 2), `kid` is
required, an empty `typ` counts as none, no leeway is given to `exp`, and a `cnf` binds as it does in access tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from signalwarden import jose
from signalwarden.keysets import PublicKey
from signalwarden.tokens import claims as read
from signalwarden.tokens.proof import Proof, TokenRefused, shown
from signalwarden.tokens.terms import Terms, Way
from signalwarden.values import spiffe_trust_domain

__all__ = ["TYPES", "BundleLike", "Bundles", "validate"]

TYPES: Final = (None, "", "JWT", "JOSE")
"""Section 2.3."""
HEADER: Final = frozenset(("alg", "kid", "typ"))


class BundleLike(Protocol):
    """`bundles.Bundle`, as far as it is used here."""

    @property
    def jwt(self) -> Mapping[str, PublicKey]:
        """JWT authorities by `kid`."""

    @property
    def revision(self) -> str:
        """Names the state of the bundle."""


class Bundles(Protocol):
    """`bundles.Bundles`, as far as it is used here."""

    def get(self, trust_domain: str) -> BundleLike | None:
        """The bundle of one trust domain; None if there is none."""


@dataclass(frozen=True, slots=True)
class _OfBundle:
    """The keys of one trust domain, and of no other."""

    bundle: BundleLike

    def find(self, kid: str | None, algorithm: str) -> PublicKey | None:
        key = None if kid is None else self.bundle.jwt.get(kid)
        return key if key is not None and key.is_for(algorithm) else None

    @property
    def revision(self) -> str:
        return self.bundle.revision


def validate(
    token: jose.Jws,
    terms: Terms,
    bundles: Bundles,
    *,
    digest: str,
    ways: Mapping[str, Sequence[Way]],
    now_us: int,
    accepted: frozenset[str] | None = None,
) -> Proof:
    """Raises TokenRefused. `accepted`: trust domains whose workloads may ask; None: those that have a bundle."""
    if not HEADER.issuperset(token.header):
        raise TokenRefused.invalid("the header of a JWT-SVID holds `alg`, `kid` and `typ`, and nothing else")
    if "kid" not in token.header:
        raise TokenRefused.invalid("the token does not name its key: `kid` is missing")
    claims = read.read_claims(token)
    subject = read.text(claims, "sub")
    domain = spiffe_trust_domain(subject)
    if domain is None:
        raise TokenRefused.invalid("`sub` is no SPIFFE ID")
    if accepted is not None and domain not in accepted:
        raise TokenRefused.unknown_domain(f"the trust domain {shown(domain)} is neither ours nor federated")
    audience = read.audience(claims, terms.audiences)
    times = read.times(claims, terms.limits, now_us, needs_iat=False)
    key, revision = _key(token, terms, bundles, domain)
    return Proof(
        digest=digest,
        token_class=terms.token_class,
        issuer=domain,
        terms=terms.digest,
        principal=subject,
        subject=subject,
        audience=audience,
        key_id=str(key.kid),
        key_set=revision,
        rests_on=((f"jwt:{domain}", key.member),),
        issued_at_us=times.issued_at_us,
        expires_at_us=times.expires_at_us,
        certificate_sha256=read.bound_certificate(claims, must_be_bound=False),
        token_id=read.optional_text(claims, "jti"),
        claims=read.wanted_claims(claims, ways.get(domain, ())),
    )


def _key(token: jose.Jws, terms: Terms, bundles: Bundles, domain: str) -> tuple[PublicKey, str]:
    """By the subject's trust domain, from its bundle alone."""
    bundle: Any = bundles.get(domain)
    if bundle is None:
        # It may be on its way: the answer is not remembered.
        raise TokenRefused.unknown_domain(f"there is no trust bundle of {shown(domain)}", passing=True)
    keys = _OfBundle(bundle)
    return read.signing_key(token, keys, terms.algorithms, domain), keys.revision
