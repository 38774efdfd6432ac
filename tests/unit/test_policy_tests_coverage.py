"""What cases cover: figures that can be counted by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.casebooks import OTHER, REQUEST, Ran, made, ran

PERMIT, FORBID = "readers-read", "the-bad-do-not"
GOOD = {"score": 4, "posture": "ok"}


def covered(tmp_path: Path, *cases: dict[str, Any], **files: str) -> Ran:
    """Runs requests that differ in what they say; what is decided does not matter here."""
    written = [
        {"name": str(at), "request": REQUEST, "signals": GOOD, "expect": {"enforced": True}, **one}
        for at, one in enumerate(cases)
    ]
    return ran(made(tmp_path, written, **files))


def test_one_allow_covers_half(tmp_path: Path) -> None:
    coverage = covered(tmp_path, {}).coverage
    assert coverage.sums() == [("policies", 2, 4, 50.0), ("conditions", 3, 6, 50.0), ("signals", 2, 4, 50.0)]
    assert coverage.percent == 50.0
    assert [f"{gap.file}:{gap.line}: {gap.what}" for gap in coverage.gaps()] == [
        f"policies/pages.cedar:1: permit `{PERMIT}` applied whenever it was asked",
        f"policies/pages.cedar:3: `when` of `{PERMIT}` was never false",
        f"policies/pages.cedar:4: `unless` of `{PERMIT}` was never true",
        f"policies/pages.cedar:6: forbid `{FORBID}` never applied",
        f"policies/pages.cedar:8: `when` of `{FORBID}` was never true",
        "signals.yaml:2: the signal `score` was never missing or stale",
        "signals.yaml:13: the signal `posture` was never missing or stale",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("cases", "reached"),
    [
        # A policy that only may apply has gone neither way.
        ([{"signals": {"posture": "ok"}}], (1, 1, 2)),
        # Out of its scope it does not apply, and its conditions are not asked.
        ([{"request": {**REQUEST, "principal": OTHER}}], (2, 1, 1)),
        ([{"signals": {**GOOD, "score": 2}}], (2, 2, 2)),
        ([{}, {"signals": {**GOOD, "score": 2}}], (3, 4, 2)),
        ([{}, {"signals": {"score": 2, "posture": "bad"}}], (4, 5, 2)),
        ([{}, {"signals": {}}], (2, 3, 4)),
        # Denied before any policy: nothing is reached.
        ([{"request": {**REQUEST, "path": "/x"}}], (0, 0, 0)),
        ([{"request": {**REQUEST, "principal": None}}], (0, 0, 0)),
    ],
)
def test_what_was_reached_is_what_was_judged(
    cases: list[dict[str, Any]], reached: tuple[int, int, int], tmp_path: Path
) -> None:
    coverage = covered(tmp_path, *cases).coverage
    assert tuple(of for _, of, _, _ in coverage.sums()) == reached


def test_a_policy_that_asks_for_nothing_has_one_way_to_go(tmp_path: Path) -> None:
    files = {
        "policies/pages.cedar": '@id("all") permit (principal, action == Action::"page.read", resource is Page);\n',
        "signals.yaml": "signals: {}\n",
    }
    coverage = covered(tmp_path, {"signals": {}}, **files).coverage
    assert coverage.sums()[0] == ("policies", 1, 1, 100.0)
    assert coverage.gaps() == []


def test_an_observing_policy_counts(tmp_path: Path) -> None:
    from tests.casebooks import FILES

    text = FILES["policies/pages.cedar"] + (
        '@id("watching") @mode("observe")\nforbid (principal, action == Action::"page.read", resource)\n'
        'when { context.request.path == "/home" };\n'
    )
    coverage = covered(tmp_path, {}, **{"policies/pages.cedar": text}).coverage
    assert coverage.policies["watching"].seen == {"true": 1}
    assert [part.seen["true"] for part in coverage.conditions["watching"]] == [1]


def test_routes_and_reasons_are_counted(tmp_path: Path) -> None:
    coverage = covered(tmp_path, {}, {"request": {**REQUEST, "path": "/x"}}, {"signals": {}}).coverage
    assert coverage.routes == {"routes.yaml:2": 2}
    assert coverage.reasons == {"allowed": 1, "route_unknown": 1, "signal_unavailable": 1}


def test_what_is_covered_can_be_read_by_programs(tmp_path: Path) -> None:
    told = covered(tmp_path, {}).coverage.as_dict()
    assert told["percent"] == 50.0
    assert told["policies"] == {"reached": 2, "of": 4, "percent": 50.0}
    assert told["by_policy"][0]["conditions"][1]["seen"] == {"true": 1, "false": 0}
    assert told["gaps"][0] == {
        "file": "policies/pages.cedar",
        "line": 1,
        "what": f"permit `{PERMIT}` applied whenever it was asked",
    }


def test_what_was_not_reached_at_all_is_said_once(tmp_path: Path) -> None:
    coverage = covered(tmp_path, {"request": {**REQUEST, "path": "/x"}}).coverage
    assert [f"{gap.file}:{gap.line}: {gap.what}" for gap in coverage.gaps()] == [
        f"policies/pages.cedar:1: permit `{PERMIT}` was never seen to apply or not to apply",
        f"policies/pages.cedar:3: `when` of `{PERMIT}` was never true or false for sure",
        f"policies/pages.cedar:4: `unless` of `{PERMIT}` was never true or false for sure",
        f"policies/pages.cedar:6: forbid `{FORBID}` was never seen to apply or not to apply",
        f"policies/pages.cedar:8: `when` of `{FORBID}` was never true or false for sure",
        "signals.yaml:2: the signal `score` was never read",
        "signals.yaml:13: the signal `posture` was never read",
    ]
    assert coverage.percent == 0.0
