"""Vectors of configuration through Python's door: `routes.json` and `register.json`, loaded and, for routes, decided."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests import asking

ROUTES: dict[str, Any] = asking.vectors("routes.json")[0]
REGISTER: dict[str, Any] = asking.vectors("register.json")[0]
EVERYTHING = "permit (principal, action, resource);\n"
REGISTER_NOW = 1_795_514_400_000_000
"""2026-11-24T10:00:00Z, as the file says."""


def register_settings() -> bytes:
    """Settings that validate tokens of the issuers that the vectors name."""
    settings = json.loads(asking.CORE_SETTINGS)
    for issuer in ("https://login.example", "prod.example"):
        settings["identity"]["issuers"].append(
            {"class": "access_token", "issuer": issuer, "audience": ["a"], "terms": "t"}
        )
    return json.dumps(settings).encode()


def schema_for(text: str) -> str:
    """A schema that declares every resource type that a route table names, readable or not."""
    types = set(re.findall(r"\btype: ([A-Z]\w*)", text)) - {"Workload"}
    return "\n".join(f"entity {name};" for name in ["Workload", *sorted(types)])


def directory(routes: str, policies: str = EVERYTHING) -> dict[str, str]:
    return {"routes.yaml": routes, "entities.cedarschema": schema_for(routes), "policies/all.cedar": policies}


def only_if(expected: dict[str, Any]) -> str:
    """A policy that permits just what a case says of host and path: a record shows them as they were sent."""
    seen = [f'context.request.{key} == "{expected[key]}"' for key in ("host", "path") if key in expected]
    return f"permit (principal, action, resource) when {{ {' && '.join(['true', *seen])} }};\n"


def request_of(case: dict[str, Any]) -> bytes:
    sent = case["request"]
    body = sent["body"].encode() if "body" in sent else None
    return bytes(
        asking.check_request(
            sent.get("method", ""),
            sent.get("host", ""),
            sent.get("path", ""),
            headers=sent.get("headers"),
            body=body,
            truncated=sent.get("truncated", False),
            protocol=sent.get("protocol", ""),
            extensions=sent.get("extensions"),
        )
    )


@pytest.mark.parametrize("case", ROUTES["cases"], ids=lambda case: case["name"])
def test_a_request_is_decided_as_what_its_vector_says_it_is(case: dict[str, Any]) -> None:
    expected = case["expect"]
    configuration = asking.load(directory(ROUTES["tables"][case["routes"]], only_if(expected)))
    decision = asking.decide(asking.running(configuration), request_of(case))
    request = decision.record["request"]
    if "reason" in expected:
        assert decision.reason == expected["reason"]
        assert "resource" not in request
        return
    assert decision.reason == "allowed", decision.record
    got = {"action": request["action"], "resource": request["resource"], "args": request.get("args", {})}
    assert got == {key: expected[key] for key in got}
    assert request["host"] == case["request"]["host"]
    assert request["path"] == case["request"]["path"].partition("?")[0]


@pytest.mark.parametrize("case", ROUTES["loads"], ids=lambda case: case["name"])
def test_a_route_table_loads_or_is_refused_as_its_vector_says(case: dict[str, Any]) -> None:
    found = [f for f in asking.findings(directory(case["yaml"])) if f.file == "routes.yaml"]
    assert len(found) == len(case["findings"]), found
    for wanted in case["findings"]:
        assert any(
            (f.code, f.line) == (wanted["code"], wanted["line"]) and wanted["says"] in f.message
            for f in found
        ), (wanted, found)
    if not case["findings"]:
        asking.load(directory(case["yaml"]))


@pytest.mark.parametrize("case", REGISTER["cases"], ids=lambda case: case["name"])
def test_a_register_loads_or_is_refused_as_its_vector_says(case: dict[str, Any]) -> None:
    files = {**directory(REGISTER["routes"], ""), "signals.yaml": case["register"]}
    said = asking.findings(files, settings=register_settings(), now_us=REGISTER_NOW)
    # That no policy reads a signal is found only beside policies: the vectors are of the register alone.
    ours = [f for f in said if f.file == "signals.yaml" and f.code != "unread_signal"]
    found = sorted((f.severity, f.code, f.line) for f in ours)
    assert found == sorted((f["severity"], f["code"], f["line"]) for f in case["findings"])
    if not any(f["severity"] == "error" for f in case["findings"]):
        asking.load(files, settings=register_settings(), now_us=REGISTER_NOW)


def test_no_vector_is_lost() -> None:
    assert (len(ROUTES["cases"]), len(ROUTES["loads"]), len(REGISTER["cases"])) >= (125, 51, 87)
