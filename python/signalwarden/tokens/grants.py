"""Grants as tokens: signed by our own keys, which change by themselves, and whose public halves anyone may fetch.

The core knows a grant by its digest and asks nobody for its signature. The signature is for others: services behind us,
and auditors, who verify with the published keys (RFC 7515, RFC 7517, RFC 7518 section 3.4).
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import jwt
import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from signalwarden.errors import BadInputError, KeysError
from signalwarden.files import make_private_directory, why
from signalwarden.keys import make_private_key, read_key
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
MAX_KEY_BYTES: Final = 4_096
MAX_GRANT_BYTES: Final = 16 * 1024
"""The core's bound on a token; servers take some 8 to 16 KiB as all the headers of a request."""
SUFFIX: Final = ".pem"
ALGORITHM: Final = "ES256"
TYPE: Final = "signalwarden-grant+jwt"


@dataclass(frozen=True, slots=True)
class _Key:
    made_us: int
    private: ec.EllipticCurvePrivateKey
    kid: str
    public: Mapping[str, str]

    def __repr__(self) -> str:
        return f"_Key(kid={self.kid})"

    @classmethod
    def of(cls, made_us: int, private: ec.EllipticCurvePrivateKey) -> _Key:
        public = private.public_key()
        kid = PublicKey(None, ALGORITHMS[ALGORITHM], ALGORITHM, public).thumbprint
        members = ECAlgorithm.to_jwk(public, as_dict=True)
        return cls(made_us, private, kid, {**members, "kid": kid, "use": "sig", "alg": ALGORITHM})


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
        grant = jwt.encode(content, key.private, algorithm=ALGORITHM, headers=headers).encode()
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
            (self._directory / f"{self._keys.pop().made_us}{SUFFIX}").unlink(missing_ok=True)
        return self._keys[0]

    def _read(self) -> None:
        try:
            make_private_directory(self._directory)
            names = sorted(path for path in self._directory.iterdir() if path.suffix == SUFFIX)
        except OSError as error:
            raise KeysError(f"the directory `{self._directory}` can't be read: {why(error)}") from error
        if len(names) > MAX_KEYS:
            raise KeysError(
                f"the directory `{self._directory}` has {len(names)} keys, expected at most {MAX_KEYS}"
            )
        keys = [self._load(path) for path in names]
        self._keys = sorted(keys, key=lambda key: key.made_us, reverse=True)

    def _load(self, path: Path) -> _Key:
        content = read_key(path, MAX_KEY_BYTES)
        try:
            private = serialization.load_pem_private_key(content, password=None)
            made_us = int(path.stem)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            private = None
        if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
            raise KeysError(f"the key `{path}` is no private key of P-256 in PEM, named by when it was made")
        return _Key.of(made_us, private)

    def _make(self, now_us: int) -> _Key:
        private = ec.generate_private_key(ec.SECP256R1())
        make_private_key(self._directory / f"{now_us}{SUFFIX}", private)
        return _Key.of(now_us, private)
