"""The checker of Envoy's rules finds what it is there to find."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from envoy_data_plane.envoy.service.auth.v3 import CheckResponse

from tests.envoy_rules import check_answer

VECTORS = Path(__file__).parent.parent / "vectors" / "envoy" / "checkresponse_rules.json"


def answer(fields: dict[str, Any]) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return bytes(CheckResponse.from_dict(fields))


def ok(**fields: Any) -> dict[str, Any]:
    return {"status": {}, "okResponse": fields}


def denied(code: int, **fields: Any) -> dict[str, Any]:
    return {"status": {"code": code}, "deniedResponse": fields}


def header(key: str, value: str, **how: Any) -> dict[str, Any]:
    return {"header": {"key": key, "value": value}, **how}


SET: dict[str, Any] = {"append": False, "appendAction": "OVERWRITE_IF_EXISTS_OR_ADD"}


@pytest.mark.parametrize(
    "fields",
    [
        ok(),
        ok(headers=[header("x-a", "b", **SET), header("x-b", "c")], headersToRemove=["x-c"]),
        ok(responseHeadersToAdd=[header("set-cookie", "a=1"), header("set-cookie", "b=2")]),
        ok(queryParametersToSet=[{"key": "a%20b", "value": ""}], queryParametersToRemove=["c"]),
        denied(
            7, status={"code": "Forbidden"}, body="no", headers=[header("content-type", "text/plain", **SET)]
        ),
    ],
)
def test_good_answers_pass(fields: dict[str, Any]) -> None:
    check_answer(answer(fields))


BROKEN = [
    ("empty-response-is-allow", {}),
    ("ok-status-with-denied_response", denied(0, status={"code": "Forbidden"})),
    ("denied-status-with-ok_response", {"status": {"code": 7}, "okResponse": {}}),
    ("denied-status-any-code", denied(99, status={"code": "Forbidden"})),
    ("denied-http-status-unchecked", denied(7)),
    ("denied-http-status-unchecked", denied(7, status={"code": "OK"})),
    ("error_response", {"status": {"code": 14}, "errorResponse": {}}),
    ("append-bool-wins", ok(headers=[header("a", "b", append=True)])),
    ("append-bool-wins", ok(headers=[header("a", "b", append=False, appendAction="ADD_IF_ABSENT")])),
    ("append-true-existing-header", ok(headers=[header("x-signalwarden-principal", "b")])),
    ("denied-append-headers-dropped", denied(7, status={"code": "Forbidden"}, headers=[header("a", "b")])),
    ("validate-header-name", ok(headers=[header("in valid\n", "x", **SET)])),
    ("validate-header-value", ok(headers=[header("a", "x\ny", **SET)])),
    ("validate-header-value", ok(headers=[header("a", " x", **SET)])),
    ("headers_to_remove-invalid-name", ok(headersToRemove=["in valid"])),
    ("headers_to_remove-pseudo", ok(headersToRemove=["host"])),
    ("order", ok(headers=[header("a", "b", **SET)], headersToRemove=["a"])),
    (
        "query-set-overwrite",
        ok(queryParametersToSet=[{"key": "a", "value": "1"}, {"key": "a", "value": "2"}]),
    ),
    ("query-set-not-urlencoded", ok(queryParametersToSet=[{"key": "foo", "value": "b a r"}])),
    ("header-limit", ok(headers=[header(f"h{n}", "", keepEmptyValue=True, **SET) for n in range(40)])),
    ("denied-body-truncate", denied(7, status={"code": "Forbidden"}, body="x" * 20_000)),
    ("dynamic_metadata", {**ok(), "dynamicMetadata": {"ext_authz_duration": 1}}),
]


@pytest.mark.parametrize(("rule", "fields"), BROKEN)
def test_a_broken_rule_is_named(rule: str, fields: dict[str, Any]) -> None:
    with pytest.raises(AssertionError, match=f"^{rule}: "):
        check_answer(answer(fields))


def test_the_rules_are_named_as_the_vectors_name_them() -> None:
    known = {row["id"] for row in json.loads(VECTORS.read_text())["rules"]}
    assert {rule for rule, _ in BROKEN} <= known
