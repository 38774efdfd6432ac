"""Talks to the admin API of a running server: what the verbs of the command line use."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import httpx
import orjson

from signalwarden.config import Address
from signalwarden.errors import ServerError, UnreachableError

__all__ = ["AdminClient", "ClientTls"]

# A batch is answered after its durable write; a disk that needs longer is a fault to be told.
TIMEOUT_SECONDS = 10.0
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


@dataclass(frozen=True, slots=True)
class ClientTls:
    """With what a server is called that has TLS."""

    ca: Path
    """The authorities whose word on the server counts."""
    credential: tuple[Path, Path] | None = None
    """Our own certificate and its key."""
    server_id: str | None = None
    """The SPIFFE ID that the server must have; None: its certificate must name the address."""

    def context(self) -> ssl.SSLContext:
        """Raises ServerError for files that are no good."""
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except (OSError, ValueError) as error:
            raise ServerError(f"`{self.ca}` can't be read as certificates in PEM") from error
        if self.credential is not None:
            cert, key = self.credential
            try:
                context.load_cert_chain(cert, key, password=_no_password)
            except (OSError, ValueError) as error:
                raise ServerError(f"`{cert}` and `{key}` are not a certificate and its key in PEM") from error
        if self.server_id is not None:
            context.check_hostname = False
            context.sslsocket_class = _knowing(self.server_id)
        return context


def _no_password() -> str:
    raise ValueError("a key with a password")


def _knowing(server_id: str) -> type[ssl.SSLSocket]:
    """Sockets that end the handshake with a server of another SPIFFE ID: before anything, a token included, is sent."""

    class Knowing(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:
            super().do_handshake(block)
            shown: Any = self.getpeercert() or {}
            names = shown.get("subjectAltName", ())
            if [name for kind, name in names if kind == "URI"] != [server_id]:
                raise ssl.SSLCertVerificationError(f"it is not `{server_id}`")

    return Knowing


def _reachable(address: Address) -> Address:
    """Where a server is called that listens everywhere."""
    hosts = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    return Address(hosts.get(address.host, address.host), address.port, address.path)


class AdminClient:
    """One address, one token or certificate. Raises ServerError with one sentence for everything that is no success."""

    def __init__(self, address: Address, token: str | None, tls: ClientTls | None = None) -> None:
        if token is not None and not _TOKEN.fullmatch(token):
            # the token itself is not repeated
            raise ServerError(
                "the token has characters that no bearer token has: is it the whole token and nothing else?"
            )
        address = _reachable(address)
        # Without TLS, one that trusts nobody: to read the system's authorities takes longer than most calls.
        verify = tls.context() if tls is not None else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        transport = httpx.HTTPTransport(uds=address.path, verify=verify) if address.path else None
        base = "http://admin" if address.path else f"http{'s' if tls else ''}://{address}"
        self._address = address
        self._http = httpx.Client(
            base_url=base, transport=transport, timeout=TIMEOUT_SECONDS, follow_redirects=False,
            # A proxy of the environment must not see the token.
            trust_env=False, headers={"authorization": f"Bearer {token}"} if token is not None else {},
            verify=verify,
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

    def begin_task(self, asked: Mapping[str, Any], *, parent: str | None) -> dict[str, Any]:
        """POST /v1/tasks, or /v1/tasks/{parent}/delegate."""
        path = "/v1/tasks" if parent is None else f"/v1/tasks/{_segment(parent)}/delegate"
        return self._call("POST", path, json=dict(asked))

    def end_task(self, task_id: str, verb: str) -> dict[str, Any]:
        """POST /v1/tasks/{id}/complete, or revoke."""
        return self._call("POST", f"/v1/tasks/{_segment(task_id)}/{verb}")

    def tasks(self, principal: str | None, *, ended: bool, limit: int) -> dict[str, Any]:
        """GET /v1/tasks."""
        params: dict[str, Any] = {"limit": limit, "ended": ended}
        return self._call("GET", "/v1/tasks", params=params | ({"principal": principal} if principal else {}))

    def task(self, task_id: str) -> dict[str, Any]:
        """GET /v1/tasks/{id}."""
        return self._call("GET", f"/v1/tasks/{_segment(task_id)}")

    def move_workflow(self, workflow: str, state: str) -> dict[str, Any]:
        """PUT /v1/workflows/{id}."""
        return self._call("PUT", f"/v1/workflows/{_segment(workflow)}", json={"state": state})

    def workflows(self, limit: int) -> dict[str, Any]:
        """GET /v1/workflows."""
        return self._call("GET", "/v1/workflows", params={"limit": limit})

    def approvals(self, state: str | None, requester: str | None, limit: int) -> dict[str, Any]:
        """GET /v1/approvals."""
        narrowed = {"state": state, "requester": requester}
        params = {key: value for key, value in narrowed.items() if value is not None}
        return self._call("GET", "/v1/approvals", params={"limit": limit, **params})

    def approval(self, approval_id: str) -> dict[str, Any]:
        """GET /v1/approvals/{id}."""
        return self._call("GET", f"/v1/approvals/{_segment(approval_id)}")

    def answer(self, approval_id: str, comment: str | None, *, approve: bool) -> dict[str, Any]:
        """POST /v1/approvals/{id}/approve, or deny."""
        body = {} if comment is None else {"comment": comment}
        path = f"/v1/approvals/{_segment(approval_id)}/{'approve' if approve else 'deny'}"
        return self._call("POST", path, json=body)

    def override(self, name: str, body: bytes) -> dict[str, Any]:
        """POST /v1/signals/{name}/override."""
        headers = {"content-type": "application/json"}
        return self._call("POST", f"/v1/signals/{_segment(name)}/override", content=body, headers=headers)

    def overrides(self) -> dict[str, Any]:
        """GET /v1/overrides."""
        return self._call("GET", "/v1/overrides")

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
            raise UnreachableError(
                f"the server at `{self._address}` did not answer within {TIMEOUT_SECONDS:g} s"
            ) from error
        except httpx.TransportError as error:
            if why := _of_tls(error):
                raise ServerError(f"there is no TLS with the server at `{self._address}`: {why}") from error
            raise UnreachableError(
                f"no server answers at `{self._address}`: is `signalwarden serve` running?"
            ) from error
        document = _json(answer.content)
        if answer.is_success and document is not None:
            return document
        raise ServerError(_refusal(self._address, answer.status_code, document or {}))


def _segment(text: str) -> str:
    """One segment of a path, whatever stands in it. A dot alone would be folded away on its way."""
    return quote(text, safe="") if text.strip(".") else "-"


def _of_tls(error: BaseException | None) -> str | None:
    """What went wrong in the handshake, if it was that."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            detail = getattr(error, "verify_message", "") or str(error.args[-1] if error.args else "")
            return f"its certificate does not count, {detail.rstrip('.')[:200]}"
        if isinstance(error, ssl.SSLError):
            return f"the handshake failed ({error.reason or 'it ended early'})"
        error = error.__cause__ or error.__context__
    return None


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
