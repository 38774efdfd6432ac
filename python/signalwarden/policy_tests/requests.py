"""From what a case says of its request to the bytes of a `CheckRequest`, as Envoy would send them."""

from __future__ import annotations

import base64
import copy
import json
from typing import TYPE_CHECKING, Any, Final

from signalwarden import request_json
from signalwarden.decision_log.parts import map_of
from signalwarden.errors import BadInputError
from signalwarden.files import read_regular, why
from signalwarden.policy_tests.model import Absent

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from signalwarden.policy_tests.model import RequestDraft

__all__ = ["document_of", "principal_of", "to_bytes", "with_header"]

MAX_REQUEST_BYTES: Final = 8 * 1024 * 1024
"""As `decide --request` takes."""
ADDRESS: Final = "10.1.2.3"
"""Of the caller, where nothing is said of it."""
PORT: Final = 41234
PSEUDO: Final = {"method": ":method", "scheme": ":scheme", "host": ":authority", "path": ":path"}
USUAL: Final = {"method": "GET", "scheme": "https"}
WHOLE_BODY: Final = "x-envoy-auth-partial-body"
"""Envoy's own header, beside each body that it forwards: whether it is cut off."""


def document_of(draft: RequestDraft, directory: Path) -> dict[str, Any]:
    """The CheckRequest in protobuf JSON. Raises BadInputError."""
    if draft.file is not None:
        document = _read(directory, draft.file)
    elif draft.attributes is not None:
        document = {"attributes": copy.deepcopy(dict(draft.attributes))}
    else:
        missing = [key for key in ("host", "path") if key not in draft.fields]
        if missing or draft.principal is None:
            word = missing[0] if missing else "principal"
            hint = "" if missing else ", or `principal: null` for a caller without identity"
            raise BadInputError(f"`request`: expected `{word}`{hint}")
        document = _usual(draft)
    _change(document, draft)
    return document


def to_bytes(document: Mapping[str, Any]) -> bytes:
    """Serialised. Raises BadInputError."""
    return request_json.to_bytes(json.dumps(document))


def principal_of(document: Mapping[str, Any]) -> str | None:
    """Whom Envoy verified."""
    source = map_of(map_of(document.get("attributes")).get("source"))
    found = source.get("principal")
    return found if isinstance(found, str) and found else None


def with_header(document: Mapping[str, Any], name: str, value: str) -> dict[str, Any]:
    """The same request with one more header, unless it has it."""
    copied = copy.deepcopy(dict(document))
    _http(copied).setdefault("headers", {}).setdefault(name, value)
    return copied


def _read(directory: Path, name: str) -> dict[str, Any]:
    path = (directory / name).resolve()
    if not path.is_relative_to(directory.resolve()):
        raise BadInputError(f"`request.file`: `{name}` leads out of the directory")
    try:
        content = read_regular(path, MAX_REQUEST_BYTES)
    except OSError as error:
        raise BadInputError(f"`request.file`: `{name}` can't be read: {why(error)}") from error
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"`request.file`: `{name}` is not JSON: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("attributes"), dict):
        raise BadInputError(
            f"`request.file`: `{name}` is not a CheckRequest in protobuf JSON: expected `attributes` in it"
        )
    return document


def _usual(draft: RequestDraft) -> dict[str, Any]:
    fields = {**USUAL, **draft.fields}
    http = {
        "protocol": "HTTP/2",
        **fields,
        "headers": {PSEUDO[key]: value for key, value in fields.items()},
        "size": "0",
    }
    return {"attributes": {"source": {"address": _address(ADDRESS)}, "request": {"http": http}}}


def _http(document: dict[str, Any]) -> dict[str, Any]:
    """Made where it is not there, so that a short document may be completed."""
    attributes = document.setdefault("attributes", {})
    request = attributes.setdefault("request", {}) if isinstance(attributes, dict) else {}
    http = request.setdefault("http", {}) if isinstance(request, dict) else {}
    if not isinstance(http, dict) or not isinstance(http.get("headers", {}), dict):
        raise BadInputError("`request`: `attributes.request.http` is not what a CheckRequest has there")
    return http


def _change(document: dict[str, Any], draft: RequestDraft) -> None:
    """Puts what the case says in place of what the document says."""
    http = _http(document)
    if (draft.fields or draft.headers or draft.body is not None) and {
        "headerMap",
        "header_map",
    } & http.keys():
        raise BadInputError("`request`: a request with `header_map` is taken as it is, change it there")
    headers = http.setdefault("headers", {})
    for key, value in draft.fields.items():
        http[key] = value
        headers[PSEUDO[key]] = value
    if draft.body is not None:
        content = draft.body.encode()
        for key in ("body", "rawBody", "raw_body"):
            http.pop(key, None)
        http |= {"rawBody": base64.b64encode(content).decode(), "size": str(len(content))}
        headers |= {"content-length": str(len(content)), WHOLE_BODY: "false"}
        headers.setdefault("content-type", "application/json")
    for name, told in draft.headers.items():
        if told is None:
            headers.pop(name, None)
        else:
            headers[name] = told
    source = document["attributes"].setdefault("source", {"address": _address(ADDRESS)})
    if not isinstance(source, dict):
        raise BadInputError("`request`: `attributes.source` is not what a CheckRequest has there")
    if draft.address is not None:
        source["address"] = _address(draft.address)
    if draft.principal is not None:
        source.pop("principal", None)
        if not isinstance(draft.principal, Absent):
            source["principal"] = draft.principal


def _address(text: str) -> dict[str, Any]:
    return {"socketAddress": {"address": text, "portValue": PORT}}
