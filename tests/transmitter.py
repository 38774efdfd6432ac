"""A transmitter of security events for tests: real keys, real signatures, and whatever claims a test wants."""

from __future__ import annotations

import base64
import http.server
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER = "https://idp.example"
AUDIENCE = "https://signalwarden.prod.example/ssf"
CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
SSF = "https://schemas.openid.net/secevent/ssf/event-type/"

_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass
class Key:
    """A signing key with its name and algorithm."""

    kid: str
    algorithm: str
    private: Any

    @staticmethod
    def make(algorithm: str, kid: str = "k1") -> Key:
        curves: dict[str, Any] = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}
        if algorithm in curves:
            return Key(kid, algorithm, ec.generate_private_key(curves[algorithm]()))
        if algorithm == "EdDSA":
            return Key(kid, algorithm, ed25519.Ed25519PrivateKey.generate())
        return Key(kid, algorithm, _RSA)

    def public_jwk(self, **more: Any) -> dict[str, Any]:
        """The public half; a member that is None is left out."""
        kind: Any = {"E": ECAlgorithm, "R": RSAAlgorithm, "P": RSAAlgorithm}[self.algorithm[0]]
        if self.algorithm == "EdDSA":
            kind = OKPAlgorithm
        jwk = json.loads(kind.to_jwk(self.private.public_key()))
        jwk.pop("key_ops", None)
        jwk |= {"kid": self.kid, "use": "sig", "alg": self.algorithm, **more}
        return {name: value for name, value in jwk.items() if value is not None}


def key_set(*keys: Key) -> bytes:
    """A JWK set of public keys."""
    return json.dumps({"keys": [key.public_jwk() for key in keys]}).encode()


@dataclass
class Transmitter:
    """Signs SETs."""

    key: Key = field(default_factory=lambda: Key.make("ES256"))
    issuer: str = ISSUER
    audience: Any = AUDIENCE
    made: int = 0

    def claims(self, iat: float, events: Mapping[str, Any], sub_id: Any, **more: Any) -> dict[str, Any]:
        """Claims of a good SET; a claim that is None in `more` is left out."""
        self.made += 1
        claims = {
            "iss": self.issuer,
            "aud": self.audience,
            "iat": iat,
            "jti": f"set-{self.made}",
            "sub_id": sub_id,
            "events": dict(events),
            **more,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def sign(self, claims: Any, *, key: Key | None = None, **header: Any) -> bytes:
        """A SET in compact form. A header that is None is left out."""
        key = key or self.key
        payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
        headers = {"typ": "secevent+jwt", "kid": key.kid, **header}
        full = {name: value for name, value in {"alg": key.algorithm, **headers}.items() if value is not None}
        signing_input = b64(json.dumps(full).encode()) + b"." + b64(payload)
        signature = jwt.get_algorithm_by_name(key.algorithm).sign(signing_input, key.private)
        return signing_input + b"." + b64(signature)

    def event(self, iat: float, event: str, sub_id: Any, **payload: Any) -> bytes:
        """A SET of one CAEP event."""
        uri = event if ":" in event else CAEP + event
        return self.sign(self.claims(iat, {uri: payload}, sub_id))

    def verification(self, iat: float) -> bytes:
        """A SET by which the stream is verified."""
        stream = {"format": "opaque", "id": "f67e39a0a4d34d56b3aa1bc4cff0069f"}
        return self.sign(self.claims(iat, {SSF + "verification": {}}, stream))


def b64(raw: bytes) -> bytes:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


class PollServer:
    """A transmitter's endpoint of RFC 8936 over real HTTP: gives out what waits, until it is acknowledged."""

    def __init__(self, token: str = "token-of-the-receiver") -> None:
        self.token = token
        self.waiting: dict[str, str] = {}
        self.refused: dict[str, dict[str, str]] = {}
        self.requests: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.answer: tuple[int, bytes] | None = None
        """Instead of what waits."""
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status, answer = server.give(body, dict(self.headers.items()))
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """Where it is polled."""
        return f"http://127.0.0.1:{self._http.server_port}/poll"

    def offer(self, jti: str, raw: bytes) -> None:
        """A SET that waits."""
        self.waiting[jti] = raw.decode()

    def give(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """One request and its answer."""
        request = json.loads(body)
        self.requests.append(request)
        self.headers.append({name.lower(): value for name, value in headers.items()})
        if self.headers[-1].get("authorization") != f"Bearer {self.token}":
            return 401, b"{}"
        if self.answer is not None:
            return self.answer
        for jti in request.get("ack", []):
            self.waiting.pop(jti, None)
        for jti, error in request.get("setErrs", {}).items():
            self.refused[jti] = error
            self.waiting.pop(jti, None)
        given = dict(list(self.waiting.items())[: request["maxEvents"]])
        more = len(given) < len(self.waiting)
        return 200, json.dumps({"sets": given, "moreAvailable": more}).encode()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join(10)
        self._http.server_close()
