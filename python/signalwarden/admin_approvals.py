"""Calls of the admin API about questions and overrides: what takes other people's word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, Path, Query, Request, Response

from signalwarden.admin_answers import (
    DEFAULT_LISTED,
    MAX_LISTED,
    bounded_body,
    client_of,
    json_answer,
    only,
    refusing,
)
from signalwarden.services import Services

__all__ = ["endpoints"]

Id = Annotated[str, Path(alias="id")]


def endpoints(services: Services) -> dict[tuple[str, str], Callable[..., Any]]:
    """By method and path, as in `admin.CALLS`."""
    return {**_approvals(services), **_overrides(services)}


def _approvals(services: Services) -> dict[tuple[str, str], Callable[..., Any]]:
    def listing(
        request: Request,
        state: Annotated[str | None, Query(max_length=16)] = None,
        requester: Annotated[str | None, Query(max_length=2_048)] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = DEFAULT_LISTED,
    ) -> Response:
        only(request, "state", "requester", "limit")
        with refusing():
            return json_answer(services.approvals.listing(state, requester, limit))

    def show(which: Id) -> Response:
        with refusing():
            return json_answer(services.approvals.show(which))

    def approve(request: Request, which: Id, body: Annotated[bytes, Depends(bounded_body)]) -> Response:
        with refusing():
            return json_answer(services.approvals.answer(client_of(request).id, which, body, approve=True))

    def deny(request: Request, which: Id, body: Annotated[bytes, Depends(bounded_body)]) -> Response:
        with refusing():
            return json_answer(services.approvals.answer(client_of(request).id, which, body, approve=False))

    return {
        ("GET", "/v1/approvals"): listing,
        ("GET", "/v1/approvals/{id}"): show,
        ("POST", "/v1/approvals/{id}/approve"): approve,
        ("POST", "/v1/approvals/{id}/deny"): deny,
    }


def _overrides(services: Services) -> dict[tuple[str, str], Callable[..., Any]]:
    def override(request: Request, name: str, body: Annotated[bytes, Depends(bounded_body)]) -> Response:
        with refusing():
            status, answer = services.overrides.override(client_of(request).id, name, body)
            return json_answer(answer, status)

    def listing() -> Response:
        return json_answer(services.overrides.listing())

    return {
        ("POST", "/v1/signals/{name}/override"): override,
        ("GET", "/v1/overrides"): listing,
    }
