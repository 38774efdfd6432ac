"""The admin API: HTTP for publishers and operators. What may be called, with which right, is the table `CALLS`;
every refusal is a row of `AdminReason`. What a call does is behind `services.Services`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, cast

import orjson
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from signalwarden import admin_approvals, admin_authzen, admin_decisions, admin_tasks
from signalwarden.admin_answers import (
    DEFAULT_LISTED,
    MAX_BODY_BYTES,
    MAX_LISTED,
    STILL_MAY,
    AdminReason,
    Refused,
    bounded_body,
    client_of,
    fields,
    json_answer,
    only,
)
from signalwarden.authzen_request import CONFIGURATION, EVALUATION, EVALUATIONS, SEARCHES
from signalwarden.config import Right
from signalwarden.doors import PEER_CHAIN
from signalwarden.errors import (
    BadInputError,
    ConfigurationError,
    FindingLike,
    RateLimitedError,
    RevocationsFullError,
    StateError,
    UnknownPublisherError,
)
from signalwarden.services import Client, Services
from signalwarden.signals.push import PushSource

__all__ = ["CALLS", "MAX_BODY_BYTES", "AdminReason", "Call", "build"]

logger = logging.getLogger("signalwarden.admin")

# A token of ours has 43 characters, a JWT-SVID some hundreds; RFC 6750 sets no bound.
MAX_TOKEN_BYTES: Final = 8_192


@dataclass(frozen=True, slots=True)
class Call:
    """A row of the rights table."""

    method: str
    path: str
    right: Right | None
    """None: open to all who reach the address. `operate` includes everything under `read` (`Client.has`)."""
    or_right: Right | None = None
    """Opens the call as well."""


SSF_PUSH: Final = "/v1/ssf/push"
"""Refuses in the words of RFC 8935, not in a problem document."""

# DESIGN section 9. To add a call: a row here, and its function in `_endpoints`.
CALLS: Final = (
    Call("POST", "/v1/signals", Right.PUBLISH),
    Call("POST", SSF_PUSH, Right.PUBLISH),
    Call("GET", "/v1/signals", Right.READ),
    Call("GET", "/v1/register", Right.READ),
    Call("GET", "/v1/ssf", Right.READ),
    Call("GET", "/v1/decisions", Right.READ),
    Call("GET", "/v1/decisions/stream", Right.READ),  # before the next one, which would take it
    Call("GET", "/v1/decisions/{id}", Right.READ),
    Call("GET", "/v1/tasks", Right.READ, or_right=Right.TASKS),
    Call("GET", "/v1/tasks/{id}", Right.READ, or_right=Right.TASKS),
    Call("GET", "/v1/workflows", Right.READ, or_right=Right.WORKFLOWS),
    Call("GET", "/v1/approvals", Right.READ, or_right=Right.APPROVE),
    Call("GET", "/v1/approvals/{id}", Right.READ, or_right=Right.APPROVE),
    Call("GET", "/v1/overrides", Right.READ),
    Call("GET", "/metrics", Right.READ),
    Call("POST", "/v1/tasks", Right.TASKS),
    Call("POST", "/v1/tasks/{id}/delegate", Right.TASKS),
    Call("POST", "/v1/tasks/{id}/complete", Right.TASKS),
    Call("POST", "/v1/tasks/{id}/revoke", Right.TASKS, or_right=Right.OPERATE),
    Call("POST", "/v1/signals/{name}/override", Right.OVERRIDE),
    Call("PUT", "/v1/workflows/{id}", Right.WORKFLOWS),
    Call("POST", "/v1/approvals/{id}/approve", Right.APPROVE),
    Call("POST", "/v1/approvals/{id}/deny", Right.APPROVE),
    Call("POST", EVALUATION, Right.EVALUATE),
    Call("POST", EVALUATIONS, Right.EVALUATE),
    *(Call("POST", path, Right.EVALUATE) for path in SEARCHES),
    Call("GET", CONFIGURATION, None),
    Call("POST", "/v1/reload", Right.OPERATE),
    Call("GET", "/v1/publishers", Right.READ),
    Call("POST", "/v1/publishers/disable", Right.OPERATE),
    Call("POST", "/v1/publishers/enable", Right.OPERATE),
    Call("POST", "/v1/ssf/resynchronise", Right.OPERATE),
    Call("POST", "/v1/revocations", Right.OPERATE),
    Call("GET", "/v1/revocations", Right.READ),
    Call("GET", "/healthz", None),
    Call("GET", "/readyz", None),
    Call("GET", "/.well-known/jwks.json", None),
)


def build(services: Services) -> FastAPI:
    """The app. It serves nothing but `CALLS`: no documentation pages, no schema, no redirects."""
    app = FastAPI(
        title="signalwarden admin", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False
    )
    endpoints = {
        **_endpoints(services, PushSource(services.publish)),
        **_publisher_endpoints(services),
        **_revocation_endpoints(services),
        **admin_approvals.endpoints(services),
        **admin_authzen.endpoints(services),
        **admin_decisions.endpoints(services),
        **admin_tasks.endpoints(services),
    }
    for call in CALLS:
        guards = [Depends(_guard(services, call))] if call.right else []
        app.add_api_route(
            call.path, endpoints[call.method, call.path], methods=[call.method], dependencies=guards,
            response_model=None, include_in_schema=False,
        )  # fmt: skip
    app.add_exception_handler(Refused, _on_refused)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_middleware(_LastResort)
    app.add_middleware(admin_authzen.RequestIds)
    return app


# ---- the calls ------------------------------------------------------------------------------------------


def _endpoints(services: Services, push: PushSource) -> dict[tuple[str, str], Callable[..., Any]]:
    # Plain functions run in FastAPI's thread pool, so a slow disk holds up no other caller.
    def publish(request: Request, body: Annotated[bytes, Depends(bounded_body)]) -> Response:
        try:
            return json_answer(push.take(body, client_of(request)))
        except BadInputError as error:
            raise Refused(AdminReason.MALFORMED, str(error)) from error
        except RateLimitedError as error:
            wait = {"retry-after": str(error.retry_after_s)}
            raise Refused(AdminReason.RATE_LIMITED, str(error), headers=wait) from error
        except StateError as error:
            raise Refused(AdminReason.NOT_KEPT, str(error), headers={"retry-after": "1"}) from error

    def signals(
        request: Request,
        subject: Annotated[str | None, Query(max_length=4_096)] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = DEFAULT_LISTED,
    ) -> Response:
        only(request, "subject", "limit")
        return json_answer(services.signals(subject, limit))

    def register() -> Response:
        return json_answer(services.register())

    def ssf_push(
        request: Request,
        body: Annotated[bytes, Depends(bounded_body)],
        feed: Annotated[str, Query(max_length=64)],
    ) -> Response:
        only(request, "feed")
        status, answer, headers = services.ssf_push(feed, request.headers.get("content-type"), body)
        return Response(answer, status_code=status, headers=dict(headers))

    def ssf_streams() -> Response:
        return json_answer(services.ssf_streams())

    def ssf_resynchronise(request: Request, body: Annotated[bytes, Depends(bounded_body)]) -> Response:
        feed = fields(body, "feed")["feed"]
        try:
            known = services.ssf_resynchronise(feed, client_of(request).id)
        except StateError as error:
            raise Refused(AdminReason.NOT_KEPT, str(error), headers={"retry-after": "1"}) from error
        if not known:
            raise Refused(AdminReason.NOT_FOUND, "the register has no feed of events of this name")
        return json_answer(orjson.dumps({"feed": feed}))

    def reload(request: Request) -> Response:
        try:
            return json_answer(orjson.dumps({"revision": services.reload(client_of(request).id)}))
        except ConfigurationError as error:
            findings = [_finding(finding) for finding in error.findings]
            raise Refused(AdminReason.CONFIGURATION_REFUSED, findings=findings) from error
        except StateError as error:
            raise Refused(AdminReason.NOT_KEPT, str(error), headers={"retry-after": "1"}) from error

    async def healthz() -> Response:
        # Not in the thread pool: publishers that wait for a slow disk must not make the process look dead.
        return json_answer(b'{"alive":true}')

    def readyz() -> Response:
        readiness = services.readiness()
        return json_answer(orjson.dumps(readiness.detail), status=200 if readiness.ready else 503)

    def metrics() -> Response:
        text, kind = services.metrics_text()
        return Response(text, headers={"content-type": kind})

    return {
        ("POST", "/v1/signals"): publish,
        ("GET", "/v1/signals"): signals,
        ("GET", "/v1/register"): register,
        ("POST", SSF_PUSH): ssf_push,
        ("GET", "/v1/ssf"): ssf_streams,
        ("POST", "/v1/ssf/resynchronise"): ssf_resynchronise,
        ("POST", "/v1/reload"): reload,
        ("GET", "/healthz"): healthz,
        ("GET", "/readyz"): readyz,
        ("GET", "/metrics"): metrics,
    }


def _publisher_endpoints(services: Services) -> dict[tuple[str, str], Callable[..., Any]]:
    def listing() -> Response:
        return json_answer(services.publishers())

    def disable(request: Request, body: Annotated[bytes, Depends(bounded_body)]) -> Response:
        return switch(request, body, enabled=False)

    def enable(request: Request, body: Annotated[bytes, Depends(bounded_body)]) -> Response:
        return switch(request, body, enabled=True)

    def switch(request: Request, body: bytes, *, enabled: bool) -> Response:
        publisher, signal = _switched(body)
        try:
            return json_answer(
                services.switch_publisher(client_of(request).id, publisher, signal, enabled=enabled)
            )
        except UnknownPublisherError as error:
            raise Refused(AdminReason.PUBLISHER_UNKNOWN, str(error)) from error
        except BadInputError as error:
            raise Refused(AdminReason.MALFORMED, str(error)) from error
        except StateError as error:
            raise Refused(AdminReason.NOT_KEPT, str(error), headers={"retry-after": "1"}) from error

    return {
        ("GET", "/v1/publishers"): listing,
        ("POST", "/v1/publishers/disable"): disable,
        ("POST", "/v1/publishers/enable"): enable,
    }


def _revocation_endpoints(services: Services) -> dict[tuple[str, str], Callable[..., Any]]:
    def revoke(request: Request, body: Annotated[bytes, Depends(bounded_body)]) -> Response:
        try:
            return json_answer(services.revoke(client_of(request).id, body))
        except BadInputError as error:
            raise Refused(AdminReason.MALFORMED, str(error)) from error
        except RevocationsFullError as error:
            raise Refused(AdminReason.REVOCATIONS_FULL, str(error)) from error
        except StateError as error:
            raise Refused(AdminReason.NOT_KEPT, str(error), headers={"retry-after": "1"}) from error

    def listing(
        request: Request, limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = DEFAULT_LISTED
    ) -> Response:
        only(request, "limit")
        return json_answer(services.revocations(limit))

    return {("POST", "/v1/revocations"): revoke, ("GET", "/v1/revocations"): listing}


def _switched(body: bytes) -> tuple[str, str | None]:
    """Of `{"id", "signal"?}`: which publisher, and which of its signals or all."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(AdminReason.MALFORMED, "the body is not JSON") from error
    good = isinstance(document, dict) and {"id"} <= document.keys() <= {"id", "signal"}
    if not good or not all(isinstance(value, str) for value in document.values()):
        raise Refused(AdminReason.MALFORMED, 'expected {"id": "…"} and, for one signal alone, "signal": "…"')
    return document["id"], document.get("signal")


def _finding(finding: FindingLike) -> dict[str, Any]:
    return {
        "severity": finding.severity, "file": finding.file, "line": finding.line, "column": finding.column,
        "code": finding.code, "message": finding.message,
    }  # fmt: skip


# ---- who calls ------------------------------------------------------------------------------------------

# The characters of a bearer token (RFC 6750, section 2.1).
_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]+=*")


def _guard(services: Services, call: Call) -> Callable[[Request], None]:
    """Lets a request through that is of a client with the call's right. Runs before any body is read."""
    right = cast("Right", call.right)

    def guard(request: Request) -> None:
        client = _authenticated(services, right, request)
        if not _opens(call, client):
            services.refused(client, right, f"the right `{right}` is not in its `may`")
            challenge = f'Bearer realm="signalwarden", error="insufficient_scope", scope="{right}"'
            raise Refused(
                AdminReason.RIGHT_MISSING,
                f"this call needs the right `{right}`",
                headers={"www-authenticate": challenge},
            )
        request.state.client = client
        setattr(request.state, STILL_MAY, lambda: _still_may(services, call, request))

    return guard


def _opens(call: Call, client: Client) -> bool:
    rights = (call.right, call.or_right)
    return any(right is not None and client.has(right) for right in rights)


def _still_may(services: Services, call: Call, request: Request) -> bool:
    """Asks again as if the call began now: its token may have expired or been revoked, its entry may be gone."""
    try:
        return _opens(call, _authenticated(services, cast("Right", call.right), request))
    except Refused:
        return False


CHALLENGE: Final = 'Bearer realm="signalwarden"'


def _authenticated(services: Services, right: Right, request: Request) -> Client:
    """By its token if it shows one, whatever that is: a bad token is no reason to look at the certificate alone."""
    chain: bytes = getattr(request.state, PEER_CHAIN, b"")
    if chain and "authorization" not in request.headers:
        client = services.authenticate_peer(chain)
        if client is None:
            # The next connection may come with a newer certificate.
            headers = {"www-authenticate": CHALLENGE, "connection": "close"}
            raise Refused(AdminReason.CERTIFICATE_REFUSED, headers=headers)
        return client
    token = _bearer(request.scope)
    if token is None:
        services.refused(None, right, "no bearer token")
        raise Refused(AdminReason.TOKEN_MISSING, headers={"www-authenticate": CHALLENGE})
    client = services.authenticate(token, chain)
    if client is None:
        challenge = f'{CHALLENGE}, error="invalid_token"'
        raise Refused(AdminReason.TOKEN_REFUSED, headers={"www-authenticate": challenge})
    return client


def _bearer(scope: Scope) -> bytes | None:
    """The one bearer token of a request; None if there is none, two, or something that is no token."""
    values: list[bytes] = [value for name, value in scope["headers"] if name.lower() == b"authorization"]
    if len(values) != 1:
        return None
    scheme, _, token = values[0].strip().partition(b" ")
    token = token.strip()
    if scheme.lower() != b"bearer" or len(token) > MAX_TOKEN_BYTES or not _TOKEN.fullmatch(token):
        return None
    return token


# ---- refusals -------------------------------------------------------------------------------------------


def _problem(refused: Refused) -> Response:
    reason = refused.reason
    body = {"type": "about:blank", "title": reason.sentence, "status": reason.status, "reason": reason.code,
            "detail": refused.detail, **refused.more}  # fmt: skip
    return Response(
        orjson.dumps(body), status_code=reason.status, headers={"cache-control": "no-store", **refused.headers},
        media_type="application/problem+json",
    )  # fmt: skip


async def _on_refused(request: Request, error: Exception) -> Response:
    refused = cast("Refused", error)
    return _rfc_8935(refused) if _shape(request.scope) == SSF_PUSH else _problem(refused)


# What RFC 8935, section 2.4, calls these; its errors are all of status 400. Other refusals are general ones of HTTP.
_RFC_8935: Final = {
    AdminReason.TOKEN_MISSING: "authentication_failed",
    AdminReason.TOKEN_REFUSED: "authentication_failed",
    AdminReason.CERTIFICATE_REFUSED: "authentication_failed",
    AdminReason.RIGHT_MISSING: "access_denied",
    AdminReason.MALFORMED: "invalid_request",
}


def _rfc_8935(refused: Refused) -> Response:
    code = _RFC_8935.get(refused.reason)
    if code is None:
        return _problem(refused)
    headers = {"content-language": "en", "cache-control": "no-store", **refused.headers}
    body = orjson.dumps({"err": code, "description": refused.detail})
    return Response(body, status_code=400, headers=headers, media_type="application/json")


async def _on_http(_: Request, error: Exception) -> Response:
    error = cast("HTTPException", error)
    reason = {404: AdminReason.NOT_FOUND, 405: AdminReason.METHOD_NOT_ALLOWED}.get(
        error.status_code, AdminReason.MALFORMED
    )
    return _problem(Refused(reason, headers=error.headers))


async def _on_validation(request: Request, error: Exception) -> Response:
    # Where and what was expected; never the input, which may be anything, a misplaced token included.
    first = cast("RequestValidationError", error).errors()[0]
    malformed = Refused(AdminReason.MALFORMED, f"`{first['loc'][-1]}`: {str(first['msg']).lower()}")
    return await _on_refused(request, malformed)


class _LastResort:
    """Answers a fault of ours as a problem document, says it in the log, and marks every answer as not to be kept.

    In uvicorn's hands a fault would be a bare 500 and a traceback without a sentence.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def marked(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                names = {name.lower() for name, _ in message["headers"]}
                extra = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
                message["headers"] = [*message["headers"], *(pair for pair in extra if pair[0] not in names)]
            await send(message)

        try:
            await self._app(scope, receive, marked)
        except ClientDisconnect:
            pass  # nobody is left to answer
        except Exception:
            logger.exception("a call of the admin API failed: %s %s", scope["method"], _shape(scope))
            if not started:
                await _problem(Refused(AdminReason.INTERNAL))(scope, receive, marked)


def _shape(scope: Scope) -> str:
    """The call's row in the table, not the path as sent: that is the caller's text."""
    route = scope.get("route")
    return str(getattr(route, "path", "unknown call"))
