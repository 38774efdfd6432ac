"""Tokens for tests: real keys, real signatures, and terms as a case of the vectors gives them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from signalwarden.keysets import KeySet
from signalwarden.tokens import Entry, Limits, PrincipalTemplate, Terms, TokenClass, Validator
from tests.transmitter import Key, Transmitter, key_set

NOW_S = 1_800_000_000
NOW_US = NOW_S * 1_000_000
TERMS = "0" * 64
ISSUER = "https://login.example"
AUDIENCE = "https://payments.example"


def digest_of(token: bytes) -> str:
    """As the core knows a token."""
    return hashlib.sha256(token).hexdigest()


def laid_over(base: Mapping[str, Any], *more: Mapping[str, Any]) -> dict[str, Any]:
    """Members of later ones win; null takes a member away."""
    whole = dict(base)
    for layer in more:
        whole |= layer
    return {name: value for name, value in whole.items() if value is not None}


def sign(key: Key, claims: Mapping[str, Any] | bytes, **header: Any) -> bytes:
    """A token in compact form. A header that is None is left out."""
    return Transmitter(key).sign(claims, **{"typ": None, **header})


def terms(given: Mapping[str, Any]) -> Terms:
    """Of the keys that vectors use."""
    template = given.get("principal")
    return Terms(
        token_class=TokenClass(given["class"]),
        issuer=given["issuer"],
        audiences=frozenset(given["audience"]),
        algorithms=frozenset(given["algorithms"]),
        digest=TERMS,
        principal=template and PrincipalTemplate.parse(template, given.get("within")),
        must_be_bound=given.get("binding") == "required",
        limits=Limits(**given.get("limits", {})),
        authority=f"keys:{given['issuer']}",
    )


def validator(of: Terms, keys: KeySet, **more: Any) -> Validator:
    """For one issuer."""
    return Validator(entries={(str(of.issuer), of.token_class): Entry(of, keys)}, **more)


@dataclass
class Issuer:
    """Issues access tokens that count under its terms."""

    key: Key = field(default_factory=lambda: Key.make("ES256"))
    issued: int = 0

    def terms(self, **more: Any) -> Terms:
        """Whose tokens name principals by their client."""
        given = {
            "class": "access_token",
            "issuer": ISSUER,
            "audience": [AUDIENCE],
            "algorithms": ["ES256", "RS256"],
            "principal": "spiffe://prod.example/oauth/{client_id}",
            **more,
        }
        return terms(given)

    def key_set(self) -> KeySet:
        """Its keys, as they are at the moment when they are fetched."""
        return KeySet(lambda: key_set(self.key), refresh_s=600)

    def token(self, now_s: float = NOW_S, *, key: Key | None = None, **claims: Any) -> bytes:
        """A good token, no two alike; a claim that is None is left out."""
        self.issued += 1
        good = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "agent-7",
            "client_id": "agent-7",
            "iat": now_s - 10,
            "exp": now_s + 590,
            "jti": f"t-{self.issued}",
        }
        key = key or self.key
        return sign(key, json.dumps(laid_over(good, claims)).encode(), typ="at+jwt", kid=key.kid)
