"""Envoy's rules that every answer obeys: the Python twin of the checker in the Rust core.

`check_answer` runs over every answer that a test sees. A broken rule is named as in
`tests/vectors/envoy/checkresponse_rules.json`, where that has a row for it.
"""

from __future__ import annotations

import re
import warnings

from envoy_data_plane.envoy.config.core.v3 import HeaderValueOption, HeaderValueOptionHeaderAppendAction
from envoy_data_plane.envoy.service.auth.v3 import CheckResponse, DeniedHttpResponse, OkHttpResponse

Action = HeaderValueOptionHeaderAppendAction

# The same figures as in rust_core/core/src/limits.rs.
MAX_BODY_BYTES = 16 * 1024
MAX_HEADERS = 32
MAX_HEADER_BYTES = 16 * 1024
MAX_METADATA_BYTES = 16 * 1024

NAME = re.compile(r"[a-z0-9!#$%&'*+\-.^_`|~]+")
VALUE = re.compile(r"(?![ \t])[^\x00-\x08\x0a-\x1f\x7f]*(?<![ \t])|")
ENCODED = re.compile(r"(?:[A-Za-z0-9*\-._]|%[0-9A-Fa-f]{2})*")
REPEATABLE = {"set-cookie", "www-authenticate"}


def check_answer(data: bytes) -> None:
    """Raises `AssertionError`, naming the rule, for an answer that Envoy would misread or refuse."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # `append` is deprecated, and still wins
        answer = CheckResponse.parse(data)
    _arms(answer)
    if answer.ok_response is not None:
        _allowed(answer.ok_response)
    if answer.denied_response is not None:
        _denied(answer.denied_response)
    if answer.dynamic_metadata is not None:
        own = "ext_authz_duration" in answer.dynamic_metadata.fields
        _rule(not own, "dynamic_metadata", "the key `ext_authz_duration` is Envoy's own")
        size = len(bytes(answer.dynamic_metadata))
        _rule(size <= MAX_METADATA_BYTES, "metadata-limit", f"the dynamic metadata takes {size} bytes")


def _rule(holds: bool, rule: str, sentence: str) -> None:
    assert holds, f"{rule}: {sentence}"


def _arms(answer: CheckResponse) -> None:
    _rule(answer.error_response is None, "error_response", "Envoy may allow on `error_response`")
    _rule(answer.status is not None, "empty-response-is-allow", "`status` is not set")
    code = answer.status.code if answer.status is not None else 0
    _rule(0 <= code <= 16, "denied-status-any-code", f"{code} is no gRPC status")
    ok, denied = answer.ok_response is not None, answer.denied_response is not None
    if code == 0:
        _rule(ok and not denied, "ok-status-with-denied_response", "an allow carries `ok_response` alone")
    else:
        _rule(denied and not ok, "denied-status-with-ok_response", "a deny carries `denied_response` alone")


def _allowed(ok: OkHttpResponse) -> None:
    _rule(ok.dynamic_metadata is None, "dynamic_metadata", "the deprecated inner metadata hides the outer")
    changed: set[str] = set()
    for option in ok.headers:
        name = _header(option)
        overwrites = _overwrites(option)
        ours = name.startswith("x-signalwarden-")
        _rule(overwrites or _appends(option), "append-bool-wins", f"`{name}` neither overwrites nor appends")
        _rule(overwrites or not ours, "append-true-existing-header", f"`{name}` does not overwrite")
        _rule(name != "host", "host", "`host` is set, which moves the request after the decision")
        _rule(name not in changed, "order", f"`{name}` is set twice")
        changed.add(name)
    for name in ok.headers_to_remove:
        _rule(
            NAME.fullmatch(name) is not None, "headers_to_remove-invalid-name", f"{name!r} is no header name"
        )
        _rule(name != "host", "headers_to_remove-pseudo", "Envoy never removes `host`")
        _rule(name not in changed, "order", f"`{name}` is both set and removed")
    _rule(len(ok.headers_to_remove) <= MAX_HEADERS, "header-limit", "too many headers are removed")
    _response_headers(ok.response_headers_to_add)
    _limits(ok.headers)
    _query(ok)


def _response_headers(options: list[HeaderValueOption]) -> None:
    changed: set[str] = set()
    for option in options:
        name = _header(option)
        cookie = name == "set-cookie"
        right = _appends(option) if cookie else _overwrites(option)
        _rule(right, "append-bool-wins", f"the response header `{name}` is neither set nor an added cookie")
        _rule(cookie or name not in changed, "order", f"the response header `{name}` is set twice")
        changed.add(name)
    _limits(options)


def _query(ok: OkHttpResponse) -> None:
    keys: set[str] = set()
    for parameter in ok.query_parameters_to_set:
        encoded = bool(parameter.key) and all(map(ENCODED.fullmatch, (parameter.key, parameter.value)))
        _rule(encoded, "query-set-not-urlencoded", f"{parameter.key!r} or its value is not encoded")
        _rule(parameter.key not in keys, "query-set-overwrite", f"{parameter.key!r} is set twice")
        keys.add(parameter.key)
    for key in ok.query_parameters_to_remove:
        encoded = bool(key) and ENCODED.fullmatch(key) is not None
        _rule(encoded, "query-set-not-urlencoded", f"{key!r} is not encoded")
        _rule(key not in keys, "order", f"{key!r} is both set and removed")
    count = len(ok.query_parameters_to_set) + len(ok.query_parameters_to_remove)
    _rule(count <= MAX_HEADERS, "header-limit", "too many query parameters are changed")


def _denied(denied: DeniedHttpResponse) -> None:
    code = int(denied.status.code) if denied.status is not None else 0
    _rule(300 <= code <= 599, "denied-http-status-unchecked", f"the HTTP status {code} does not deny")
    _rule(len(denied.body.encode()) <= MAX_BODY_BYTES, "denied-body-truncate", "the body is too large")
    changed: set[str] = set()
    for option in denied.headers:
        name = _header(option)
        _rule(_overwrites(option), "denied-append-headers-dropped", f"`{name}` of a deny is not set")
        _rule(name in REPEATABLE or name not in changed, "order", f"`{name}` of a deny is set twice")
        changed.add(name)
    _limits(denied.headers)


def _header(option: HeaderValueOption) -> str:
    """Checks name and value of one header; gives the name."""
    header = option.header
    assert header is not None, "validate-header-name: a header is not set"
    name, value = header.key, header.value
    _rule(NAME.fullmatch(name) is not None, "validate-header-name", f"{name!r} is not a lowercase token")
    _rule(not header.raw_value, "validate-header-value", f"the value of `{name}` is in `raw_value`")
    _rule(VALUE.fullmatch(value) is not None, "validate-header-value", f"{value!r} is not a header value")
    _rule(bool(value) or option.keep_empty_value, "validate-header-value", f"the empty `{name}` is not kept")
    _rule(0 <= int(option.append_action) <= 3, "append_action-enum-invalid", f"of `{name}`")
    return name


def _overwrites(option: HeaderValueOption) -> bool:
    return option.append is False and option.append_action == Action.OVERWRITE_IF_EXISTS_OR_ADD


def _appends(option: HeaderValueOption) -> bool:
    return option.append is None and option.append_action == Action.APPEND_IF_EXISTS_OR_ADD


def _limits(options: list[HeaderValueOption]) -> None:
    headers = [option.header for option in options if option.header is not None]
    size = sum(len(header.key.encode()) + len(header.value.encode()) for header in headers)
    _rule(len(headers) <= MAX_HEADERS, "header-limit", f"there are {len(headers)} headers")
    _rule(size <= MAX_HEADER_BYTES, "header-limit", f"the headers take {size} bytes")
