"""Cases, coverage and parity of a directory that says the same in two languages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from signalwarden import config
from signalwarden.decision_log import now_us
from signalwarden.policy_tests import parity
from tests.casebooks import OTHER, REQUEST, made, ran

QUERY = "data.authz.allow"
REGO = """\
package authz

import rego.v1

default allow := false

allow if {
    input.identity.id == "spiffe://prod.example/agent"
    input.signals.score >= 3
    not is_bad
}

is_bad if input.signals.posture == "bad"
"""
GOOD = {"score": 4, "posture": "ok"}
COUNT = 300


def both(root: Path, cases: list[dict[str, Any]], rego: str = REGO) -> Path:
    return made(root, cases or "cases: []\n", **{"policies/pages.rego": rego})


def only_rego(root: Path, cases: list[dict[str, Any]]) -> Path:
    return made(root, cases, **{"policies/pages.cedar": "", "policies/pages.rego": REGO})


def test_a_query_is_a_policy_of_which_both_ways_count(tmp_path: Path) -> None:
    root = only_rego(
        tmp_path, [{"name": "goes", "request": REQUEST, "signals": GOOD, "expect": {"determining": [QUERY]}}]
    )
    (root / "policies/pages.cedar").unlink()
    run = ran(root)
    assert run.told == {"goes": []}
    assert run.coverage.policies[QUERY].seen == {"true": 1}
    assert run.coverage.sums()[:2] == [("policies", 1, 2, 50.0), ("conditions", 0, 0, 100.0)]


def test_each_language_is_covered_for_itself(tmp_path: Path) -> None:
    bad = {**GOOD, "posture": "bad"}
    cases = [
        {"name": "goes", "request": REQUEST, "signals": GOOD, "expect": {"outcome": "allow"}},
        {
            "name": "bad",
            "request": REQUEST,
            "signals": bad,
            "expect": {"outcome": "deny"},
            "without": ["posture"],
        },
        {
            "name": "other",
            "request": {**REQUEST, "principal": OTHER},
            "signals": GOOD,
            "expect": {"outcome": "deny"},
        },
    ]
    run = ran(both(tmp_path, cases))
    assert {name: lines for name, lines in run.told.items() if lines} == {}
    seen = {
        name: {way for way in ("true", "false") if part.seen[way]}
        for name, part in run.coverage.policies.items()
    }
    assert seen == {name: {"true", "false"} for name in ("readers-read", "the-bad-do-not", QUERY)}


def compared(root: Path) -> parity.Parity:
    directory = config.Directory.read(root)
    return parity.compare(config.judge(directory, now_us()), directory, now_us=now_us(), count=COUNT, seed=0)


def test_two_languages_that_say_the_same_agree(tmp_path: Path) -> None:
    found = compared(both(tmp_path, []))
    assert [one.as_case() for one in found.shown] == []
    assert found.permitted > 0
    assert found.disagreed == 0


@pytest.mark.parametrize(
    ("old", "new", "verdicts"),
    [
        (">= 3", ">= 4", {"cedar": "permits", "rego": "denies"}),
        (">= 3", ">= 2", {"cedar": "denies", "rego": "permits"}),
        ("    not is_bad\n", "", {"cedar": "denies", "rego": "permits"}),
    ],
)
def test_a_difference_between_two_languages_is_found(
    old: str, new: str, verdicts: dict[str, str], tmp_path: Path
) -> None:
    found = compared(both(tmp_path, [], REGO.replace(old, new)))
    assert found.disagreed > 0
    assert verdicts in [one.verdicts for one in found.shown]
