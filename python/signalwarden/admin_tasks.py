"""Calls of the admin API about tasks and workflows, and the public keys of grants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, Path, Query, Request, Response

from signalwarden.admin_answers import (
    DEFAULT_LISTED,
    MAX_LISTED,
    bounded_body,
    certificate_of,
    client_of,
    json_answer,
    only,
    refusing,
)
from signalwarden.config import Right
from signalwarden.services import Services

__all__ = ["endpoints"]

Id = Annotated[str, Path(alias="id", max_length=256)]
Body = Annotated[bytes, Depends(bounded_body)]
KEYS_MAX_AGE_S = 300
"""How long others may hold the public keys: a new one signs at once, and who does not know it asks again."""


def endpoints(services: Services) -> dict[tuple[str, str], Callable[..., Any]]:
    """By method and path, as in `admin.CALLS`."""
    return {**_tasks(services), **_workflows(services)}


def _tasks(services: Services) -> dict[tuple[str, str], Callable[..., Any]]:
    def begin(request: Request, body: Body) -> Response:
        with refusing():
            answer = services.tasks.begin(client_of(request).id, body, certificate=certificate_of(request))
        return json_answer(answer, 201)

    def delegate(request: Request, which: Id, body: Body) -> Response:
        with refusing():
            answer = services.tasks.begin(
                client_of(request).id, body, certificate=certificate_of(request), parent=which
            )
        return json_answer(answer, 201)

    def complete(request: Request, which: Id) -> Response:
        with refusing():
            return json_answer(services.tasks.end(client_of(request).id, which, "completed", operator=False))

    def revoke(request: Request, which: Id) -> Response:
        client = client_of(request)
        with refusing():
            operator = client.has(Right.OPERATE)
            return json_answer(services.tasks.end(client.id, which, "revoked", operator=operator))

    def listing(
        request: Request,
        principal: Annotated[str | None, Query(max_length=2_048)] = None,
        ended: Annotated[bool, Query()] = False,  # a parameter of the query
        limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = DEFAULT_LISTED,
    ) -> Response:
        only(request, "principal", "ended", "limit")
        return json_answer(services.tasks.listing(principal, ended=ended, limit=limit))

    def show(which: Id) -> Response:
        with refusing():
            return json_answer(services.tasks.show(which))

    return {
        ("POST", "/v1/tasks"): begin,
        ("POST", "/v1/tasks/{id}/delegate"): delegate,
        ("POST", "/v1/tasks/{id}/complete"): complete,
        ("POST", "/v1/tasks/{id}/revoke"): revoke,
        ("GET", "/v1/tasks"): listing,
        ("GET", "/v1/tasks/{id}"): show,
    }


def _workflows(services: Services) -> dict[tuple[str, str], Callable[..., Any]]:
    def move(request: Request, which: Id, body: Body) -> Response:
        with refusing():
            return json_answer(services.tasks.move_workflow(client_of(request).id, which, body))

    def listing(
        request: Request, limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = DEFAULT_LISTED
    ) -> Response:
        only(request, "limit")
        return json_answer(services.tasks.workflows(limit))

    def keys() -> Response:
        headers = {"cache-control": f"public, max-age={KEYS_MAX_AGE_S}"}
        return Response(services.tasks.jwks(), media_type="application/jwk-set+json", headers=headers)

    return {
        ("PUT", "/v1/workflows/{id}"): move,
        ("GET", "/v1/workflows"): listing,
        ("GET", "/.well-known/jwks.json"): keys,
    }
