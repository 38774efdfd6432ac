"""A `CheckRequest` in protobuf JSON, read into the bytes that Envoy would send. For tools, never for the hot path."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from signalwarden.errors import BadInputError

__all__ = ["to_bytes"]

# Fields of protobuf type bytes below a CheckRequest, in both spellings that protobuf JSON allows. The library
# reads bad base64 as an empty body; a tool that tells what would be decided must not.
BYTES_FIELDS = frozenset({"rawBody", "raw_body", "rawValue", "raw_value"})


def to_bytes(text: str | bytes, *, name: str = "the request") -> bytes:
    """The serialised CheckRequest. Raises BadInputError with one sentence for text that is none."""
    from envoy_data_plane.envoy.service.auth.v3 import (
        CheckRequest,
    )  # half a second to import: only when asked

    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"{name} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise BadInputError(f"{name} is not a CheckRequest in protobuf JSON: expected an object at the top")
    _check_bytes_fields(document, name)
    try:
        return bytes(CheckRequest.from_dict(document))
    except Exception as error:  # the library raises whatever the wrong value happens to break
        raise BadInputError(f"{name} is not a CheckRequest in protobuf JSON: {_first_line(error)}") from error


def _check_bytes_fields(value: Any, name: str) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in BYTES_FIELDS and isinstance(inner, str):
                try:
                    base64.b64decode(inner, validate=True)
                except (binascii.Error, ValueError) as error:
                    raise BadInputError(f"{name}: `{key}` is not base64: {error}") from error
            _check_bytes_fields(inner, name)
    elif isinstance(value, list):
        for inner in value:
            _check_bytes_fields(inner, name)


def _first_line(error: Exception) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if type(error).__module__.startswith("pydantic") and len(lines) > 2:
        # `1 validation error for Message / field / what is wrong [type=…]`
        return f"`{lines[1]}`: {lines[2].split(' [type=')[0]}"
    return lines[0] if lines else type(error).__name__
