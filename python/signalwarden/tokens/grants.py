"""Grants as tokens: signed by our own keys, which change by themselves, and whose public halves anyone may fetch.

The core knows a grant by its digest and asks nobody for its signature. The signature is for others: services behind us,
and auditors, who verify with the published keys (RFC 7515, RFC 7517, RFC 7518 section 3.4).
"""

from __future__ import annotations

import functools
import logging
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeGuard

import orjson
from cryptography.hazmat.primitives.asymmetric import ec

from signalwarden.errors import BadInputError, KeysError
from signalwarden.files import make_private_directory, why
from signalwarden.keys import make_private_key, private_key_path, private_keys
from signalwarden.keysets import ALGORITHMS, PublicKey

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["Signer"]

_log = logging.getLogger("signalwarden")

DAY_US: Final = 86_400_000_000
ROTATE_US: Final = 7 * DAY_US
"""A key signs for a week: whoever steals it gains nothing here, since the core asks for no signature."""
PUBLISHED_US: Final = ROTATE_US + 2 * DAY_US
"""So long a public key is published: until every grant that it signed has ended. None lives for more than a day."""
MAX_KEYS: Final = 8
"""Files that are read: one signs, one or two more are published. More were put there by somebody else."""
MAX_GRANT_BYTES: Final = 16 * 1024
"""The core's bound on a token; servers take some 8 to 16 KiB as all the headers of a request."""
ALGORITHM: Final = "ES256"
TYPE: Final = "signalwarden-grant+jwt"


@dataclass(frozen=True)
class _Key:
    made_us: int
    private: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def kid(self) -> str:
        return self.public["kid"]

    @functools.cached_property
    def public(self) -> Mapping[str, str]:
        """Worked out when it is asked for, and then kept: most servers sign no grants."""
        from signalwarden import jwts  # says why it is imported here

        public = self.private.public_key()
        kid = PublicKey(None, ALGORITHMS[ALGORITHM], ALGORITHM, public).thumbprint
        return {**jwts.jwk_of(public, "EC"), "kid": kid, "use": "sig", "alg": ALGORITHM}


class Signer:
    """Signs grants. Thread-safe."""

    def __init__(self, directory: Path, *, issuer: str, clock: Callable[[], int]) -> None:
        """Keys are files of `directory`, made when missing. Raises KeysError."""
        self._directory = directory
        self._issuer = issuer
        self._clock = clock
        self._mutex = threading.Lock()
        self._keys: list[_Key] = []
        """Newest first."""
        with self._mutex:
            self._read()
            self._current()

    def sign(self, claims: bytes) -> bytes:
        """A compact JWS over these claims (JSON) with issuer and audience. Raises BadInputError if it is too large for
        a header, and KeysError if there is no key to sign with."""
        with self._mutex:
            key = self._current()
        content = {**orjson.loads(claims), "iss": self._issuer, "aud": self._issuer}
        headers = {"typ": TYPE, "kid": key.kid}
        from signalwarden import jwts  # says why it is imported here

        grant = jwts.signed(content, key.private, ALGORITHM, headers)
        if len(grant) > MAX_GRANT_BYTES:
            raise BadInputError(
                f"the grant would have {len(grant)} bytes, expected at most {MAX_GRANT_BYTES}: name fewer `actions` "
                "and `resources`, or a whole type of resources as `Type::*`"
            )
        return grant

    def jwks(self) -> bytes:
        """The public keys as a JWK set (RFC 7517 section 5), the one that signs first."""
        with self._mutex:
            self._current()
            return orjson.dumps({"keys": [key.public for key in self._keys]})

    def _current(self) -> _Key:
        """The key that signs now; makes one if the newest is too old, and lets go of the oldest."""
        now = self._clock()
        if not self._keys or now - self._keys[0].made_us >= ROTATE_US:
            try:
                self._keys.insert(0, self._make(now))
            except KeysError as error:
                # A full disk ends no grants: the old key is as good, and stays published as long as it is the newest.
                if not self._keys:
                    raise
                _log.warning("the key of grants is older than a week, and no new one can be made: %s", error)
        while len(self._keys) > 1 and now - self._keys[-1].made_us >= PUBLISHED_US:
            private_key_path(self._directory, self._keys.pop().made_us).unlink(missing_ok=True)
        return self._keys[0]

    def _read(self) -> None:
        try:
            make_private_directory(self._directory)
        except OSError as error:
            raise KeysError(f"the directory `{self._directory}` can't be read: {why(error)}") from error
        found = private_keys(self._directory, "P-256", _is_one, most=MAX_KEYS)
        self._keys = [_Key(made_us, private) for made_us, private in found]

    def _make(self, now_us: int) -> _Key:
        private = ec.generate_private_key(ec.SECP256R1())
        make_private_key(private_key_path(self._directory, now_us), private)
        return _Key(now_us, private)


def _is_one(private: object) -> TypeGuard[ec.EllipticCurvePrivateKey]:
    return isinstance(private, ec.EllipticCurvePrivateKey) and isinstance(private.curve, ec.SECP256R1)
