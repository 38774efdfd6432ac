"""PyJWT, which only this file names: keys as JWKs, signatures made and checked.

It brings X.509 and a client of HTTP along. So it is imported where it is called, and a server that reads no tokens and
signs no grants does without.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import jwt
from jwt import PyJWK, PyJWS
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import PyJWTError

__all__ = ["checks", "jwk_of", "key_of", "signed"]

_KINDS: Final[Mapping[str, Any]] = {"RSA": RSAAlgorithm, "EC": ECAlgorithm, "OKP": OKPAlgorithm}
_JWS: Final = PyJWS()


def key_of(jwk: Mapping[str, Any], algorithm: str) -> Any:
    """The key that a JWK is, as `checks` takes it. Raises ValueError for what is none."""
    try:
        return PyJWK.from_dict(dict(jwk), algorithm).key
    except (PyJWTError, TypeError, KeyError) as error:
        raise ValueError("no key") from error


def jwk_of(key: Any, kind: str) -> dict[str, str]:
    """A public key as a JWK; `kind` is its `kty`."""
    members: dict[str, str] = _KINDS[kind].to_jwk(key, as_dict=True)
    return members


def checks(algorithm: str, key: Any, signing_input: bytes, signature: bytes) -> bool:
    """Whether a signature holds."""
    try:
        return bool(_JWS.get_algorithm_by_name(algorithm).verify(signing_input, key, signature))
    except (PyJWTError, ValueError, TypeError):
        return False


def signed(content: Mapping[str, Any], key: Any, algorithm: str, headers: Mapping[str, str]) -> bytes:
    """A JWT in compact form."""
    return jwt.encode(dict(content), key, algorithm=algorithm, headers=dict(headers)).encode()
