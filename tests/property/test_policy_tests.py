"""A case that expects what is decided passes, whatever is asked and known; and losing signals never opens (I2)."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from signalwarden import config
from signalwarden.decision_log import now_us
from signalwarden.policy_tests import reading, running, suite
from signalwarden.policy_tests.reading import Vocabulary
from signalwarden.policy_tests.stage import Stage
from tests.casebooks import AGENT, CASES, OTHER, REQUEST, made

EXAMPLES = 200
NUMBER = itertools.count()

ages = st.sampled_from(["0s", "1s", "299s", "6m"])
requests = st.fixed_dictionaries(
    {
        "method": st.sampled_from(["GET", "POST"]),
        "path": st.sampled_from(["/home", "/home?x=1", "/x"]),
        "principal": st.sampled_from(
            [AGENT, OTHER, "spiffe://prod.example/stranger", "spiffe://else.example/x", "?", None]
        ),
    }
).map(lambda fields: {**REQUEST, **fields})


def signal(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.just({"state": "missing"}),
        st.fixed_dictionaries({"value": values, "age": ages}),
        st.fixed_dictionaries({"value": values, "by": st.just(OTHER)}),
        st.fixed_dictionaries({"value": values, "state": st.sampled_from(["stale", "unverified"])}),
    )


signals = st.fixed_dictionaries(
    {"score": signal(st.integers(-5, 9)), "posture": signal(st.sampled_from(["ok", "bad"]))}
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("made"), "cases: []\n")


@pytest.fixture(scope="module")
def stage(root: Path) -> Stage:
    return Stage(config.load(root, now_us()), now_us=now_us())


def results(stage: Stage, root: Path, case: dict[str, Any]) -> list[running.Result]:
    made(root, [case])
    read = suite.read_suite(root, Vocabulary.of(stage.described))
    assert read.findings == ()
    assert (root / CASES).is_file()
    return running.run(stage, read.cases).all


def as_decided(record: dict[str, Any]) -> dict[str, Any]:
    """What a case would say that expects exactly this."""
    influenced = {
        word: [one["name"] for one in record["signals"] if one.get("influence") == word]
        for word in ("decisive", "refused")
    }
    return {
        "outcome": record["outcome"],
        "reason": record["reason"],
        "http_status": record["http_status"],
        "determining": [policy["id"] for policy in record["policies"]["determining"]],
        "signals": {one["name"]: one["state"] for one in record["signals"]},
        **influenced,
    }


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request=requests, known=signals)
def test_a_case_that_expects_what_is_decided_passes(
    stage: Stage, root: Path, request: dict[str, Any], known: dict[str, Any]
) -> None:
    case = {
        "name": f"case {next(NUMBER)}",
        "request": request,
        "signals": known,
        "expect": {"http_status": 299},
    }
    (first,) = results(stage, root, case)
    assert first.played is not None
    expect = as_decided(first.played.record)
    (second,) = results(stage, root, {**case, "expect": expect})
    assert second.mismatches == ()
    assert second.error is None
    other = {**expect, "outcome": "deny" if expect["outcome"] == "allow" else "allow"}
    del other["reason"]
    (third,) = results(stage, root, {**case, "expect": other})
    assert [one.what for one in third.mismatches] == ["outcome"]


WORDS = sorted(
    {*reading.CASE, *reading.REQUEST, *reading.SIGNAL, *reading.TASK, *reading.EXPECT, "score", "posture"}
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-10, 1_000),
    st.sampled_from(
        ["", "x", "5m", "allow", "allowed", "score", "stale", AGENT, "2026-11-24T10:00:00Z", "/home"]
    ),
)
junk = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(more=st.dictionaries(st.sampled_from(reading.CASE[1:]), junk, max_size=3), request=junk)
def test_whatever_stands_in_a_file_is_a_case_or_a_mistake_with_its_place(
    stage: Stage, root: Path, more: dict[str, Any], request: Any
) -> None:
    deny = {"outcome": "deny"}
    whole = {"name": "a", "request": REQUEST, "expect": deny, **more}
    made(root, [whole, {"name": "b", "request": {**REQUEST, "attributes": request}, "expect": deny}])
    read = suite.read_suite(root, Vocabulary.of(stage.described))
    assert all(one.line >= 1 and one.message for one in read.findings)
    results = running.run(stage, read.cases).all
    assert {result.status for result in results} <= {"passed", "failed", "error"}


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    score=st.integers(-5, 9),
    posture=st.sampled_from(["ok", "bad"]),
    principal=st.sampled_from([AGENT, OTHER]),
)
def test_losing_a_signal_never_opens(
    stage: Stage, root: Path, score: int, posture: str, principal: str
) -> None:
    case = {
        "name": "whole",
        "request": {**REQUEST, "principal": principal},
        "signals": {"score": score, "posture": posture},
        "expect": {"enforced": True},
        "without": ["score", "posture"],
    }
    assert [result.status for result in results(stage, root, case)] == ["passed"] * 4
