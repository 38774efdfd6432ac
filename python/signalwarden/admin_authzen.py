"""Calls of the admin API for other enforcement points: OpenID AuthZEN, Authorization API 1.0, its binding to HTTP."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Final

from fastapi import Depends, Request, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from signalwarden.admin_answers import (
    AdminReason,
    Refused,
    bounded,
    certificate_of,
    client_of,
    json_answer,
    refusing,
)
from signalwarden.authzen_request import (
    CONFIGURATION,
    EVALUATION,
    EVALUATIONS,
    MAX_BODY_BYTES,
    PATHS,
    SEARCHES,
)
from signalwarden.services import Services

__all__ = ["RequestIds", "endpoints"]

CONFIGURATION_MAX_AGE_S: Final = 300
"""How long others may hold the metadata (section 11.9 of the specification): it changes when the address does."""

REQUEST_ID: Final = b"x-request-id"
MAX_REQUEST_ID_BYTES: Final = 128
"""A UUID has 36, ids of traces up to 55; each is kept in a record."""
_FIELD_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
"""What a header may hold (RFC 9110, section 5.5): the parser before us lets control characters through."""
_JSON = re.compile(r"application/json[ \t]*(;.*)?", re.IGNORECASE)

Body = Annotated[bytes, Depends(bounded(MAX_BODY_BYTES))]


def endpoints(services: Services) -> dict[tuple[str, str], Callable[..., Any]]:
    """By method and path, as in `admin.CALLS`."""

    def evaluation(request: Request, body: Body) -> Response:
        given = _given(request)
        with refusing():
            return json_answer(services.authzen.evaluation(client_of(request), body, **given))

    def evaluations(request: Request, body: Body) -> Response:
        given = _given(request)
        with refusing():
            return json_answer(services.authzen.evaluations(client_of(request), body, **given))

    def search(request: Request) -> Response:
        _given(request)
        raise Refused(
            AdminReason.NOT_OFFERED,
            f"who may do what to what is not searched here: ask about each with {EVALUATIONS}",
        )

    def metadata() -> Response:
        told = services.authzen.metadata()
        if told is None:
            raise Refused(
                AdminReason.NOT_FOUND, "`authzen.policy_decision_point` of the settings names no address"
            )
        headers = {"cache-control": f"public, max-age={CONFIGURATION_MAX_AGE_S}"}
        return Response(told, media_type="application/json", headers=headers)

    return {
        ("POST", EVALUATION): evaluation,
        ("POST", EVALUATIONS): evaluations,
        **{("POST", path): search for path in SEARCHES},
        ("GET", CONFIGURATION): metadata,
    }


def _given(request: Request) -> dict[str, str | None]:
    """What a call says beside its body. Whatever it is that can't be taken is a 400 (section 10.1.2)."""
    if _JSON.fullmatch(request.headers.get("content-type", "")) is None:
        raise Refused(AdminReason.MALFORMED, "expected `content-type: application/json`")
    given = _request_id(request.scope)
    if (given is None and _request_ids(request.scope)) or len(given or b"") > MAX_REQUEST_ID_BYTES:
        raise Refused(
            AdminReason.MALFORMED,
            f"`x-request-id`: expected one, of at most {MAX_REQUEST_ID_BYTES} bytes, none a control character",
        )
    return {
        "certificate": certificate_of(request),
        "request_id": _recorded(given) if given else None,
    }


# ---- X-Request-ID ---------------------------------------------------------------------------------------


def _request_ids(scope: Scope) -> list[bytes]:
    return [value for name, value in scope["headers"] if name.lower() == REQUEST_ID]


def _request_id(scope: Scope) -> bytes | None:
    """The one id that can be sent back; None if there is none, or it can't."""
    values = _request_ids(scope)
    return values[0] if len(values) == 1 and _FIELD_VALUE.fullmatch(values[0]) else None


def _recorded(given: bytes) -> str:
    """The id as its record holds it. Its encoding is not told, so other bytes than ASCII are written as numbers."""
    return given.decode("ascii", "backslashreplace").replace("\t", "\\t")


class RequestIds:
    """Sends the caller's id of a call back with its answer, whatever either is: refusals as well, and ids that are too
    long to be kept (section 10.1.3). Never with the metadata, which others may hold."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = None
        if scope["type"] == "http" and scope["path"].startswith(PATHS):
            given = _request_id(scope)
        if given is None:
            await self._app(scope, receive, send)
            return
        echo = (REQUEST_ID, given)

        async def with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], echo]
            await send(message)

        await self._app(scope, receive, with_id)
