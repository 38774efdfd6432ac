"""Tokens of OAuth issuers: access tokens (RFC 9068) and transaction tokens (draft-ietf-oauth-transaction-tokens-08),
their sender binding (RFC 8705) and their actors (RFC 8693).

Decided where the texts leave room:
- `iss` must be there in transaction tokens too: the configuration says whose they are, and a key of one issuer never
  vouches for another.
- A `cnf` that holds anything but `x5t#S256` is refused: a binding that is not checked here would be none.
- A human stands at the origin of an access token as far as it can be told: `auth_time`, `acr` or `amr` is there, or
  its subject is not the client itself, or its current actor is no workload (its `sub` is no SPIFFE ID). Of a
  transaction token: one of those claims, or that actor; its subject may be a workload under any name.
- `may_act` is not read: it says who could act, not who does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from signalwarden import jose
from signalwarden.tokens import claims as read
from signalwarden.tokens.claims import KeyFinder
from signalwarden.tokens.proof import Proof, TokenRefused
from signalwarden.tokens.terms import Terms, TokenClass, Way
from signalwarden.values import spiffe_trust_domain

__all__ = ["TYPES", "validate"]

TYPES: Final[Mapping[str, TokenClass]] = {
    "at+jwt": TokenClass.ACCESS_TOKEN,
    "application/at+jwt": TokenClass.ACCESS_TOKEN,
    "txntoken+jwt": TokenClass.TRANSACTION_TOKEN,
    "application/txntoken+jwt": TokenClass.TRANSACTION_TOKEN,
}
"""`typ` in lower case, with and without the prefix that RFC 7515 section 4.1.9 lets out."""
MAX_ACTORS: Final = 8
"""The current one and those before; a chain of more is a loop, or an attempt to fill the record."""
HUMAN_CLAIMS: Final = ("auth_time", "acr", "amr")
"""RFC 9068 section 2.2.1: about the moment when someone authenticated."""


def validate(
    token: jose.Jws,
    claims: Mapping[str, Any],
    terms: Terms,
    keys: KeyFinder,
    *,
    digest: str,
    ways: Sequence[Way],
    now_us: int,
) -> Proof:
    """Raises TokenRefused. `terms` are those of the issuer and class that the token says."""
    issuer = str(terms.issuer)
    audience = read.audience(claims, terms.audiences)
    times = read.times(claims, terms.limits, now_us, needs_iat=True)
    key = read.signing_key(token, keys, terms.algorithms, issuer)
    revision = keys.revision
    is_transaction = terms.token_class is TokenClass.TRANSACTION_TOKEN
    subject = read.text(claims, "sub")
    client = None if is_transaction else read.text(claims, "client_id")
    token_id = read.optional_text(claims, "jti") if is_transaction else read.text(claims, "jti")
    certificate = read.bound_certificate(claims, must_be_bound=terms.must_be_bound)
    actors = _actors(claims)
    principal = terms.principal
    return Proof(
        digest=digest,
        token_class=terms.token_class,
        issuer=issuer,
        terms=terms.digest,
        principal=None if principal is None else principal.principal(claims.get(principal.claim)),
        subject=subject,
        audience=audience,
        key_id=key.kid or key.thumbprint,
        key_set=revision,
        rests_on=((terms.authority, key.member),),
        issued_at_us=times.issued_at_us,
        expires_at_us=times.expires_at_us,
        certificate_sha256=certificate,
        token_id=token_id,
        actor=actors[0] if actors else None,
        earlier_actors=tuple(actors[1:]),
        interactive=_is_interactive(claims, subject, client, actors),
        transaction=read.text(claims, "txn") if is_transaction else None,
        scope=_scope(claims, needed=is_transaction),
        requester=read.text(claims, "req_wl") if is_transaction else None,
        claims=_transaction_claims(claims, ways, checked=is_transaction),
    )


def _scope(claims: Mapping[str, Any], *, needed: bool) -> str | None:
    return read.text(claims, "scope") if needed else read.optional_text(claims, "scope")


def _transaction_claims(
    claims: Mapping[str, Any], ways: Sequence[Way], *, checked: bool
) -> tuple[tuple[Way, Any], ...]:
    for name in ("tctx", "rctx") if checked else ():
        if claims.get(name) is not None and not isinstance(claims[name], dict):
            raise TokenRefused.invalid(f"the claim `{name}` is no object")
    return read.wanted_claims(claims, ways)


# ---------------------------------------------------------------- who acts


def _actors(claims: Mapping[str, Any]) -> list[str]:
    """RFC 8693 section 4.1: the current actor, then those who acted before, newest first."""
    actors: list[str] = []
    level: Any = claims.get("act")
    while level is not None:
        if len(actors) == MAX_ACTORS:
            raise TokenRefused.invalid(f"the token names more than {MAX_ACTORS} actors")
        if not isinstance(level, dict):
            raise TokenRefused.invalid("the claim `act` is no object")
        actor = read.optional_text(level, "sub")
        if actor is None:
            raise TokenRefused.invalid("the claim `act` does not say who acts: `sub` is missing")
        actors.append(actor)
        level = level.get("act")
    return actors


def _is_interactive(
    claims: Mapping[str, Any], subject: str, client: str | None, actors: Sequence[str]
) -> bool:
    if any(claims.get(name) is not None for name in HUMAN_CLAIMS):
        return True
    if client is not None and subject != client:
        return True
    return bool(actors) and spiffe_trust_domain(actors[0]) is None
