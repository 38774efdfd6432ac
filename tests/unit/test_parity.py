"""`check --parity`: requests that are made up, and what is said where two languages judge one differently."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from signalwarden import config, starter
from signalwarden.decision_log import now_us
from signalwarden.policy_tests import parity
from signalwarden.policy_tests.generating import Generator
from signalwarden.policy_tests.stage import Stage
from tests.casebooks import made
from tests.commanding import Commands

TWICE = """\
@id("one") permit (principal in Role::"readers", action == Action::"page.read", resource)
when { context.signals has score && context.signals.score >= 3 };
@id("other") permit (principal in Role::"readers", action == Action::"page.read", resource)
when { context.signals has score && context.signals.score >= 4 };
"""
COUNT = 300


@pytest.fixture
def two_languages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of which the second policy counts as one of another language."""
    described = vars(Stage)["described"].fget

    def marked(stage: Stage) -> dict[str, Any]:
        told = described(stage)
        policies = [
            {**one, "engine": "rego" if one["id"] == "other" else "cedar"} for one in told["policies"]
        ]
        return {**told, "policies": policies}

    monkeypatch.setattr(Stage, "described", property(marked))
    return made(tmp_path, "cases: []\n", **{"policies/pages.cedar": TWICE})


def compared(root: Path, seed: int = 0) -> parity.Parity:
    directory = config.Directory.read(root)
    loaded = config.judge(directory, now_us())
    return parity.compare(loaded, directory, now_us=now_us(), count=COUNT, seed=seed)


def test_a_request_is_found_that_tells_two_policies_apart(two_languages: Path) -> None:
    found = compared(two_languages)
    assert (found.tried, found.compared > 0, found.permitted > 0, found.disagreed > 0) == (
        COUNT,
        True,
        True,
        True,
    )
    first = found.shown[0]
    assert first.verdicts == {"cedar": "permits", "rego": "denies"}
    assert {signal.name: signal.value for signal in first.case.signals}["score"] == 3
    assert len(found.shown) <= parity.MAX_SHOWN


def test_what_is_found_is_a_case_of_a_file(two_languages: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = Commands(capfd)
    told = run("check", "--config", two_languages, "--parity", "--parity-cases", str(COUNT))
    assert told.status == 1
    cases, _, sums = told.out.rstrip().rpartition("\n")
    assert "they disagree about" in sums
    (two_languages / "tests/pages.yaml").write_text(cases)
    tested = run("test", two_languages, "--json").json()
    assert [case["status"] for case in tested["cases"]] == ["failed"] * len(tested["cases"])
    assert all(case["mismatches"][0]["actual"] == "allow" for case in tested["cases"])
    assert tested["errors"] == 0


@pytest.mark.parametrize(
    ("option", "value"), [("--draft", "draft"), ("--format", "sarif"), ("--format", "github")]
)
def test_what_parity_does_not_do_contradicts_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    root = made(tmp_path, "cases: []\n")
    ran = Commands(capfd)("check", "--config", root, "--parity", option, value)
    named = option if option == "--draft" else f"{option} {value}"
    assert f"`--parity` and `{named}` contradict each other: give one of them" in ran.sentence


def test_the_same_seed_tries_the_same_requests(two_languages: Path) -> None:
    one, again, other = compared(two_languages), compared(two_languages), compared(two_languages, 1)
    assert one.as_dict() == again.as_dict()
    assert one.as_dict() != other.as_dict()


def test_a_directory_of_one_language_has_nothing_to_compare(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = made(tmp_path, "cases: []\n")
    assert (
        "compares the policies of two languages, and there is only cedar"
        in Commands(capfd)("check", "--config", root, "--parity").sentence
    )


@pytest.mark.parametrize(
    ("truths", "verdict"),
    [
        ({"p": "certain", "f": "never"}, "permits"),
        ({"p": "certain", "f": "may"}, "open"),
        ({"p": "certain", "f": "certain"}, "denies"),
        ({"p": "may", "f": "never"}, "open"),
        ({"p": "never", "f": "never"}, "denies"),
        ({"f": "never"}, "denies"),
        ({"p": "failed", "f": "never"}, "failed"),
    ],
)
def test_a_verdict_is_that_of_one_language_alone(truths: Mapping[str, str], verdict: str) -> None:
    policies = {"p": {"effect": "permit", "mode": "enforce"}, "f": {"effect": "forbid", "mode": "enforce"}}
    reach = [{"id": name, "truths": [truth]} for name, truth in truths.items()]
    assert parity._verdicts(reach, policies, ["cedar"]) == {"cedar": verdict}


@pytest.mark.parametrize("template", ["starter", "agent-tools"])
def test_requests_that_are_made_up_reach_every_policy_of_a_request(
    template: starter.Template, tmp_path: Path
) -> None:
    starter.create_from(template, tmp_path / "made", now=datetime.now(UTC))
    directory = config.Directory.read(tmp_path / "made")
    loaded = config.judge(directory, now_us())
    stage = Stage(loaded, now_us=now_us())
    generator = Generator(directory, stage.described, "prod.example", 0)
    reasons = set()
    for case in generator.cases(COUNT):
        if case.task is None:  # no policy of the template lets a made-up task begin
            reasons.add(stage.play(case).record["reason"])
    assert "allowed" in reasons
    assert "malformed_request" not in reasons
    assert "route_unknown" not in reasons
