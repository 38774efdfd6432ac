"""`reasons.json`: each reason of the closed table by a request that gets it, and its answer in every part."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from signalwarden import _core
from signalwarden.identity_settings import IdentitySettings
from signalwarden.settings import PrincipalSettings, Settings
from tests import asking

VECTORS: dict[str, Any] = asking.vectors("reasons.json")[0]
CASES: list[dict[str, Any]] = VECTORS["cases"]
TABLE = {code: (http, grpc, live, sentence) for code, http, grpc, live, sentence in _core.reasons()}
BY_CHECK_ALONE = {"log_unavailable"}
"""An offline decision is outside the log."""


def request_of(case: dict[str, Any]) -> bytes:
    sent = dict(case["request"])
    headers = dict(sent.pop("headers", {}))
    body = sent.pop("body", None)
    if body is not None:
        headers["content-type"] = "application/json"
        body = body.encode()
    return bytes(asking.check_request(host="pay.prod.example", headers=headers, body=body, **sent))


def request_token(case: dict[str, Any]) -> str:
    token: str = case["request"]["headers"]["authorization"]
    return token.removeprefix("Bearer ")


def engine_for(case: dict[str, Any], now_us: int) -> _core.Engine:
    """The decision point of a case; signals are as fresh as can be."""
    engine = _core.Engine(log_capacity=0 if case.get("log") == "full" else 10)
    if case.get("engine") == "empty":
        return engine
    identity = IdentitySettings.model_validate_json(json.dumps(VECTORS["identity"]))
    settings = Settings(trust_domain="prod.example", identity=identity) if "token" in case else None
    if case.get("require_record"):
        settings = Settings(trust_domain="prod.example", principals=PrincipalSettings(require_record=True))
    core_settings = settings.for_core() if settings else None
    engine.swap(asking.load(VECTORS["directory"], settings=core_settings, now_us=now_us))
    if settings and case.get("token") is not None:
        asking.prove(engine, settings, request_token(case), now_us=now_us, **case["token"])
    for signal in case.get("signals", VECTORS["signals"]):
        asking.publish(engine, signal["name"], signal["value"], observed_us=now_us)
    if case.get("engine") == "closed":
        engine.close()
    return engine


def asserted(answer: bytes, reason: str) -> None:
    """Every place in which an answer names its reason says the same."""
    http, grpc, _, sentence = TABLE[reason]
    parsed = asking.parsed(answer)
    assert (asking.grpc_code(answer), asking.reason_of(answer)) == (grpc, reason)
    if reason == "allowed":
        assert parsed.ok_response is not None
        return
    denied = parsed.denied_response
    assert denied is not None
    assert denied.status is not None
    assert int(denied.status.code) == http
    problem = json.loads(denied.body)
    assert (problem["reason"], problem["status"], problem["title"]) == (reason, http, sentence)
    headers = {option.header.key: option.header.value for option in denied.headers if option.header}
    assert headers["content-type"] == "application/problem+json"
    assert headers["x-signalwarden-decision-id"] == problem["decision_id"]


def named(case: dict[str, Any]) -> str:
    return f"{case['reason']}: {case['why']}"


@pytest.mark.parametrize("case", [c for c in CASES if c["reason"] not in BY_CHECK_ALONE], ids=named)
def test_an_offline_decision_has_the_reason_of_its_vector(case: dict[str, Any]) -> None:
    decision = asking.decide(engine_for(case, asking.NOW), request_of(case))
    assert decision.reason == case["reason"], decision.record
    assert decision.record["http_status"] == TABLE[case["reason"]][0]
    asserted(decision.answer, case["reason"])


@pytest.mark.parametrize("case", CASES, ids=named)
def test_a_checked_request_has_the_reason_of_its_vector(case: dict[str, Any]) -> None:
    engine = engine_for(case, time.time_ns() // 1_000)
    asserted(asking.answered(engine, request_of(case)), case["reason"])
    counters = engine.counters()
    assert counters[f"decisions_{case['reason']}"] == 1
    recorded = [record["reason"] for record in asking.drained(engine)]
    assert recorded == ([] if case.get("log") == "full" else [case["reason"]])


def test_each_live_reason_has_a_vector_and_no_reserved_one() -> None:
    live = {code for code, (_, _, is_live, _) in TABLE.items() if is_live}
    assert {case["reason"] for case in CASES} == live - asking.OF_TASKS_AND_QUESTIONS
    assert (len(TABLE), len(live)) == (31, 31)


def test_no_case_is_lost() -> None:
    assert len(CASES) >= 19
