"""Talks to the admin API of a running server: what the verbs of the command line use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Self

import httpx
import orjson

from signalwarden.config import Address
from signalwarden.errors import ServerError

__all__ = ["AdminClient"]

# A batch is answered after its durable write; a disk that needs longer is a fault to be told.
TIMEOUT_SECONDS = 10.0
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


class AdminClient:
    """One address, one token. Raises ServerError with one sentence for everything that is not a success."""

    def __init__(self, address: Address, token: str) -> None:
        if not _TOKEN.fullmatch(token):
            # the token itself is not repeated
            raise ServerError(
                "the token has characters that no bearer token has: is it the whole token and nothing else?"
            )
        transport = httpx.HTTPTransport(uds=address.path) if address.path else None
        base = "http://admin" if address.path else f"http://{address}"
        self._address = address
        self._http = httpx.Client(
            base_url=base, transport=transport, timeout=TIMEOUT_SECONDS, follow_redirects=False,
            # A proxy of the environment must not see the token.
            trust_env=False, headers={"authorization": f"Bearer {token}"},
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def publish(self, body: bytes) -> dict[str, Any]:
        """POST /v1/signals."""
        return self._call("POST", "/v1/signals", content=body, headers={"content-type": "application/json"})

    def signals(self, subject: str | None, limit: int) -> dict[str, Any]:
        """GET /v1/signals."""
        return self._call(
            "GET", "/v1/signals", params={"limit": limit, **({"subject": subject} if subject else {})}
        )

    def publishers(self) -> dict[str, Any]:
        """GET /v1/publishers."""
        return self._call("GET", "/v1/publishers")

    def switch_publisher(self, publisher: str, signal: str | None, *, enabled: bool) -> dict[str, Any]:
        """POST /v1/publishers/enable, or disable."""
        body = {"id": publisher, **({"signal": signal} if signal is not None else {})}
        return self._call("POST", f"/v1/publishers/{'enable' if enabled else 'disable'}", json=body)

    def revoke(self, what: Mapping[str, str]) -> dict[str, Any]:
        """POST /v1/revocations."""
        return self._call("POST", "/v1/revocations", json=what)

    def revocations(self, limit: int) -> dict[str, Any]:
        """GET /v1/revocations."""
        return self._call("GET", "/v1/revocations", params={"limit": limit})

    def register(self) -> dict[str, Any]:
        """GET /v1/register."""
        return self._call("GET", "/v1/register")

    def reload(self) -> str:
        """POST /v1/reload; the revision in force."""
        return str(self._call("POST", "/v1/reload")["revision"])

    def streams(self) -> dict[str, Any]:
        """GET /v1/ssf."""
        return self._call("GET", "/v1/ssf")

    def resynchronise(self, feed: str) -> dict[str, Any]:
        """POST /v1/ssf/resynchronise."""
        return self._call("POST", "/v1/ssf/resynchronise", json={"feed": feed})

    def _call(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        try:
            answer = self._http.request(method, path, **more)
        except httpx.TimeoutException as error:
            raise ServerError(
                f"the server at `{self._address}` did not answer within {TIMEOUT_SECONDS:g} s"
            ) from error
        except httpx.TransportError as error:
            raise ServerError(
                f"no server answers at `{self._address}`: is `signalwarden serve` running?"
            ) from error
        document = _json(answer.content)
        if answer.is_success and document is not None:
            return document
        raise ServerError(_refusal(self._address, answer.status_code, document or {}))


def _json(content: bytes) -> dict[str, Any] | None:
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None


def _refusal(address: Address, status: int, problem: Mapping[str, Any]) -> str:
    if "reason" not in problem:
        return f"`{address}` answered {status}, but not as a signalwarden server does"
    return f"the server refused: {problem.get('detail') or problem.get('title')} (`{problem['reason']}`, {status})"
