"""`signalwarden test` as a user meets it: output, exit statuses, JUnit, coverage, filters, and the watch."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from signalwarden import watch
from signalwarden.policy_tests import suite
from tests.casebooks import CASES, FILES, REQUEST, made, write
from tests.commanding import Commands

GOOD = {"score": 4, "posture": "ok"}
FAILING = {
    "name": "fails <&\u0007>",
    "request": REQUEST,
    "signals": {**GOOD, "score": 2},
    "expect": {"outcome": "allow"},
}
PASSING = {"name": "passes", "request": REQUEST, "signals": GOOD, "expect": {"outcome": "allow"}}
BROKEN = {"name": "is broken", "request": {"host": "h"}, "expect": {"outcome": "deny"}}
WAIT_S = 30.0


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Commands:
    return Commands(capfd)


# ---- for people -------------------------------------------------------------------------------------------


def test_good_cases_are_told_in_two_lines(run: Commands, tmp_path: Path) -> None:
    tested = run("test", made(tmp_path, [PASSING, {**PASSING, "name": "too"}]))
    assert (tested.status, tested.err) == (0, "")
    assert re.fullmatch(rf"{CASES}  2 of 2 passed\n\n2 passed in \d+\.\d\d s\n", tested.out)


def test_the_directory_may_be_given_either_way_and_once(run: Commands, tmp_path: Path) -> None:
    root = made(tmp_path, [PASSING])
    assert run("test", "--config", root).status == 0
    assert "given twice" in run("test", root, "--config", tmp_path).sentence


def test_passing_cases_are_named_if_asked(run: Commands, tmp_path: Path) -> None:
    assert "  ok      passes\n" in run("test", made(tmp_path, [PASSING]), "-v").out


def test_a_failure_shows_both_sides_the_policies_in_play_and_the_story(run: Commands, tmp_path: Path) -> None:
    tested = run("test", made(tmp_path, [PASSING, FAILING]))
    assert tested.status == 1
    assert f"{CASES}  1 of 2 passed" in tested.out
    assert "FAILED" in tested.out
    assert "  outcome  - allow\n           + deny\n" in tested.out
    assert "    permit readers-read  does not apply  policies/pages.cedar:1\n" in tested.out
    assert "    forbid the-bad-do-not  does not apply  policies/pages.cedar:6\n" in tested.out
    assert "decided by" in tested.out
    assert "would flip" in tested.out
    assert "`score` = 3 in place of 2" in tested.out
    assert "\x07" not in tested.out


def test_a_case_that_cannot_be_played_is_told_apart(run: Commands, tmp_path: Path) -> None:
    tested = run("test", made(tmp_path, [BROKEN]))
    assert tested.status == 1
    assert "ERROR" in tested.out
    assert "`request`: expected `path`" in tested.out
    assert "1 case could not be played" in tested.out


def test_a_run_may_stop_at_the_first_failure(run: Commands, tmp_path: Path) -> None:
    tested = run("test", made(tmp_path, [FAILING, PASSING]), "--fail-fast")
    assert tested.status == 1
    assert "0 passed, 1 failed, 1 not run" in tested.out


@pytest.mark.parametrize(
    ("filters", "names"),
    [(["PASSES"], ["passes"]), (["pages.yaml::p*"], ["passes"]), (["pages", "fail"], [FAILING["name"]])],
)
def test_cases_are_chosen_by_file_and_name(
    run: Commands, filters: list[str], names: list[str], tmp_path: Path
) -> None:
    root = made(tmp_path, [PASSING, FAILING])
    told = run("test", root, "--json", *(word for text in filters for word in ("-k", text))).json()
    assert [case["name"] for case in told["cases"]] == names


# ---- bad input --------------------------------------------------------------------------------------------


def test_mistakes_of_cases_are_told_one_a_line_with_status_2(run: Commands, tmp_path: Path) -> None:
    tested = run("test", made(tmp_path, "cases:\n  - name: a\n    exspect: {}\n    sgnals: {}\n"))
    assert (tested.status, tested.out) == (2, "")
    assert tested.err.startswith(f"signalwarden: {CASES}:3:5: error: ")
    assert "did you mean `expect`?" in tested.err
    assert "did you mean `signals`?" in tested.err


def test_a_directory_that_cannot_be_loaded_is_one_sentence(run: Commands, tmp_path: Path) -> None:
    root = made(tmp_path, [PASSING], **{"routes.yaml": "routs: []\n"})
    assert "routes.yaml:1" in run("test", root).sentence


def test_no_cases_and_no_case_of_a_filter_are_mistakes(run: Commands, tmp_path: Path) -> None:
    root = made(tmp_path, [PASSING])
    assert "none of 1 cases has `nothing` in it" in run("test", root, "-k", "nothing").sentence
    (root / CASES).unlink()
    assert "there are no cases: expected `" in run("test", root).sentence
    assert "`--watch` and `--json`" in run("test", root, "--watch", "--json").sentence
    assert "can't be written" in run("test", made(tmp_path, [PASSING]), "--junit", tmp_path).err


# ---- for programs -----------------------------------------------------------------------------------------


def test_results_can_be_read_by_programs(run: Commands, tmp_path: Path) -> None:
    tested = run("test", made(tmp_path, [PASSING, FAILING, BROKEN]), "--json")
    told = tested.json()
    assert tested.status == 1
    assert (told["passed"], told["failed"], told["errors"], told["left_out"]) == (1, 1, 1, 0)
    good, bad, broken = told["cases"]
    assert (good["file"], good["line"], good["status"]) == (CASES, 2, "passed")
    assert bad["mismatches"] == [{"what": "outcome", "expected": "allow", "actual": "deny"}]
    assert bad["policies"] == [
        {"id": "readers-read", "truths": ["never", "never"]},
        {"id": "the-bad-do-not", "truths": ["never"]},
    ]
    assert bad["explanation"]["reason"] == "no_policy_permits"
    assert broken["error"] == "`request`: expected `path`"


def test_junit_is_as_the_tools_of_pipelines_read_it(run: Commands, tmp_path: Path) -> None:
    file = tmp_path / "results.xml"
    run("test", made(tmp_path / "made", [PASSING, FAILING, BROKEN]), "--junit", file)
    root = ET.fromstring(file.read_bytes())
    assert root.tag == "testsuites"
    counts = {"tests": "3", "failures": "1", "errors": "1"}
    assert counts.items() <= root.attrib.items()
    (suite_,) = root
    assert suite_.tag == "testsuite"
    assert {*counts.items(), ("name", CASES), ("skipped", "0")} <= {*suite_.attrib.items()}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite_.attrib["timestamp"])
    # What the schemas of Jenkins and of pytest's xunit2 allow, and no more.
    assert {*suite_.attrib} == {
        "name",
        "tests",
        "failures",
        "errors",
        "skipped",
        "time",
        "timestamp",
        "hostname",
    }
    assert [case.tag for case in suite_] == ["testcase"] * 3
    assert all({*case.attrib} == {"classname", "name", "time"} for case in suite_)
    assert all(re.fullmatch(r"\d+\.\d{3}", case.attrib["time"]) for case in suite_)
    passed, failed, broken = suite_
    assert list(passed) == []
    assert failed.attrib["name"] == "fails <&\ufffd>"
    assert [(child.tag, {*child.attrib}) for child in failed] == [("failure", {"type", "message"})]
    assert [(child.tag, {*child.attrib}) for child in broken] == [("error", {"type", "message"})]
    assert "outcome: expected allow, decided deny" in str(failed[0].text)


# ---- coverage ---------------------------------------------------------------------------------------------


def test_what_is_not_covered_is_told_with_its_place(run: Commands, tmp_path: Path) -> None:
    tested = run("test", made(tmp_path, [PASSING]), "--coverage")
    assert tested.status == 0
    assert "policies     50.0 %  2 of 4 ways\n" in tested.out
    assert "policies/pages.cedar:6: not covered: forbid `the-bad-do-not` never applied\n" in tested.out
    assert "reasons     allowed 1\n" in tested.out
    assert "covered 50.0 %\n" in tested.out


@pytest.mark.parametrize(("least", "status"), [("50", 0), ("50.1", 1)])
def test_too_little_coverage_fails(run: Commands, least: str, status: int, tmp_path: Path) -> None:
    tested = run("test", made(tmp_path, [PASSING]), "--coverage-min", least)
    assert tested.status == status
    assert ("50.0 % is covered, expected at least 50.1 %" in tested.err) == (status == 1)


def test_coverage_of_a_route_that_is_not_asked(run: Commands, tmp_path: Path) -> None:
    more = FILES["routes.yaml"] + FILES["routes.yaml"].split("\n", 1)[1].replace("/home", "/more")
    tested = run("test", made(tmp_path, [PASSING], **{"routes.yaml": more}), "--coverage", "--json")
    assert tested.json()["coverage"]["routes"] == {"routes.yaml:2": 1, "routes.yaml:7": 0}


# ---- watching ---------------------------------------------------------------------------------------------


def started(root: Path, output: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "signalwarden.cli", "test", str(root), "--watch", *options]
    with output.open("wb") as out:
        return subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, "NO_COLOR": "1"}
        )


def wait_for(output: Path, pattern: str, times: int = 1) -> None:
    deadline = time.monotonic() + WAIT_S
    while len(re.findall(pattern, output.read_text())) < times:
        assert time.monotonic() < deadline, output.read_text()
        time.sleep(0.05)


def test_a_watch_runs_again_after_each_change_and_ends_cleanly(tmp_path: Path) -> None:
    root, output = made(tmp_path / "made", [PASSING]), tmp_path / "output"
    process = started(root, output)
    try:
        wait_for(output, "1 passed")
        write(root, {"policies/pages.cedar": FILES["policies/pages.cedar"].replace(">= 3", ">= 5")})
        wait_for(output, "0 passed, 1 failed")
        write(root, {CASES: "cases: nonsense\n"})
        wait_for(output, "expected a list, found text")
        write(root, {"policies/pages.cedar": "permit (\n"})
        wait_for(output, "policies/pages.cedar:")
        made(root, [PASSING, {**PASSING, "name": "too"}])
        wait_for(output, "2 passed")
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 130
    finally:
        process.kill()
        process.wait(WAIT_S)
    assert "Traceback" not in output.read_text()


def test_a_watch_does_not_run_again_without_a_change(
    run: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "INTERVAL_S", 0.01)
    monkeypatch.setattr(watch, "QUIET_S", 0.05)
    root, runs = made(tmp_path, [PASSING]), []
    from signalwarden.cli import testing

    def once(_: Any) -> int:
        runs.append(time.monotonic())
        return 0

    def interrupt() -> None:
        time.sleep(1.0)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(testing, "_once", once)
    thread = threading.Thread(target=interrupt)
    thread.start()
    assert run("test", root, "--watch").status == 130
    thread.join()
    assert len(runs) == 1


@pytest.mark.parametrize(
    "name", ["routes.yaml", "policies/pages.cedar", CASES, "tests/more/new.yaml", "samples/a.json"]
)
def test_a_watch_sees_what_tests_depend_on(name: str, tmp_path: Path) -> None:
    root = made(tmp_path, [PASSING], **{"samples/a.json": "{}"})
    before = suite.glance(root)
    assert suite.glance(root) == before
    write(root, {"var/decisions.jsonl": "x"})
    assert suite.glance(root) == before
    write(root, {name: "changed"})
    assert suite.glance(root) != before


def test_help_says_what_a_status_means(run: Commands) -> None:
    told = " ".join(run("test", "--help").out.split())
    assert "Exit status 1 if a case fails" in told
