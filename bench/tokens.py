"""An issuer of access tokens for the bench: its keys, its settings, good tokens, and bad ones that look like them.

A request is made once and its token put in by replacing bytes of the same length: a flood of distinct tokens must
cost the load less than the server.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from bench import directory, stage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["ALGORITHMS", "BAD", "ISSUER", "Issuer", "Template", "make"]

ISSUER: Final = "https://issuer.bench"
AUDIENCE: Final = "payments"
ALGORITHMS: Final = ("ES256", "RS256")
LIFE_S: Final = 3_000
SIGNATURE_BYTES: Final = {"ES256": 64, "RS256": 256}
BAD: Final = ("signature", "unknown key", "audience", "claims")
"""Kinds of bad tokens, the dearest first: a good key and a wrong signature; a key that nobody has; another audience;
what is no JSON."""


def make(where: Path) -> tuple[directory.Made, Issuer]:
    """The bench's directory, with an issuer whose tokens prove no principal: a token is looked at beside Envoy's peer,
    so that the decision is the same with it and without."""
    made = directory.make(where / "directory")
    issuer = Issuer()
    (made.directory / "keys.json").write_bytes(issuer.keys())
    settings = made.directory / "signalwarden.yaml"
    entry = f'{{issuer: "{ISSUER}", audience: [{AUDIENCE}], keys: {{file: keys.json}}}}'
    # One file of the log, so that what was refused can be counted from it.
    text = settings.read_text(encoding="utf-8").replace("influence:", "rotate_bytes: 10000000000, influence:")
    settings.write_text(
        f"{text}identity:\n  sources: [envoy_peer, oauth]\n  oauth: [{entry}]\n", encoding="utf-8"
    )
    return made, issuer


class Issuer:
    """Signs access tokens (RFC 9068), each with an id of its own."""

    def __init__(self) -> None:
        self._keys: dict[str, Any] = {
            "ES256": ec.generate_private_key(ec.SECP256R1()),
            "RS256": rsa.generate_private_key(public_exponent=65_537, key_size=2_048),
        }
        self._numbers = itertools.count()

    def keys(self) -> bytes:
        """Its key set."""
        return json.dumps({"keys": [self._jwk(name) for name in ALGORITHMS]}).encode()

    def _jwk(self, name: str) -> dict[str, Any]:
        public = self._keys[name].public_key()
        algorithm = jwt.get_algorithm_by_name(name)
        return {**json.loads(algorithm.to_jwk(public)), "kid": name.lower(), "use": "sig", "alg": name}

    def token(self, algorithm: str = "ES256") -> str:
        """A good token that nobody has seen."""
        header = {"typ": "at+jwt", "kid": algorithm.lower()}
        return jwt.encode(self._claims(), self._keys[algorithm], algorithm=algorithm, headers=header)

    def _claims(self, audience: str = AUDIENCE) -> dict[str, Any]:
        now = int(time.time())
        return {
            "iss": ISSUER, "aud": audience, "sub": "client-7", "client_id": "client-7", "scope": "transfers",
            "jti": f"{next(self._numbers):012d}", "iat": now, "exp": now + LIFE_S,
        }  # fmt: skip

    def bad(self, kind: str) -> Iterator[str]:
        """Distinct bad tokens of one kind, all of one length."""
        head = {"alg": "ES256", "typ": "at+jwt", "kid": "es256"}
        if kind == "unknown key":
            head["kid"] = "nobody's"
        first = _part(json.dumps(head).encode())
        claims = json.dumps(self._claims("elsewhere" if kind == "audience" else AUDIENCE)).encode()
        if kind == "claims":
            claims = claims[:-1] + b","
        second = _part(claims)
        while True:
            yield f"{first}.{second}.{_part(os.urandom(SIGNATURE_BYTES['ES256']))}"


def _part(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True)
class Template:
    """A request whose token, and whose address if it has none but that, are put in."""

    request: bytes
    token: bytes
    address: bytes
    principal: bytes

    @staticmethod
    def of(token: str, principal: str = directory.PRINCIPAL) -> Template:
        """For tokens of the length of this one."""
        place = "~" * len(token)
        address = "10.100.100.100"
        request = directory.allowed_request(principal, authorization=f"Bearer {place}", address=address)
        return Template(request, place.encode(), address.encode(), principal.encode())

    def filled(self, token: str, address: str | None = None, principal: str | None = None) -> bytes:
        """The request with this token; an address is as long as `10.100.100.100`, a principal as its own."""
        filled = self.request
        for place, value in ((self.token, token), (self.address, address), (self.principal, principal)):
            if value is None:
                continue
            if len(value) != len(place):
                raise stage.BenchError(f"a text of {len(place)} letters is wanted, this one has {len(value)}")
            filled = filled.replace(place, value.encode(), 1)
        return filled
