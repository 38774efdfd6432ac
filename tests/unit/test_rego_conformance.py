"""The runner of OPA's conformance cases: what it takes for worse, what for better, and what the page says."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "tests" / "conformance"


def _runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("conformance_run", HERE / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["conformance_run"] = module
    spec.loader.exec_module(module)
    return module


runner = _runner()


def line(standing: str, note: str = "a", *, folder: str = "v1/x", code: str = "", why: str = "") -> str:
    """A line as the example prints it."""
    return json.dumps({"folder": folder, "note": note, "standing": standing, "code": code, "why": why})


def compared(before: list[str], now: list[str]) -> tuple[list[str], list[str]]:
    """What is worse and what is better."""
    worse, better = runner.compare(runner.read(now), runner.baseline_of(runner.read(before)))
    return list(worse), list(better)


def test_the_same_standings_are_neither_worse_nor_better() -> None:
    lines = [line("passed", "a"), line("refused", "b", code="syntax"), line("differs", "c", why="f: no")]
    assert compared(lines, lines) == ([], [])


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ("passed", "refused"),
        ("passed", "differs"),
        ("refused", "differs"),
        ("passed", "wrong"),
        ("differs", "wrong"),
    ],
)
def test_a_case_that_got_worse_is_told_by_name(was: str, now: str) -> None:
    worse, better = compared(
        [line(was, "a", code="syntax")], [line(now, "a", why="gives 1 where OPA gives 2")]
    )
    assert len(worse) == 1
    assert worse[0].startswith("v1/x: a: ")
    assert not better


def test_a_silently_wrong_case_is_never_in_a_baseline() -> None:
    wrong = [line("wrong", why="gives 1 where OPA gives 2")]
    worse, _ = compared(wrong, wrong)
    assert worse == ["v1/x: a: silently wrong: gives 1 where OPA gives 2"]


def test_a_case_that_got_better_is_no_failure() -> None:
    worse, better = compared([line("refused", code="syntax")], [line("passed")])
    assert worse == []
    assert better == ["v1/x: a: was refused, is passed"]


def test_cases_that_are_missing_or_new_are_told() -> None:
    worse, _ = compared(
        [line("passed", "a"), line("passed", "b")], [line("passed", "a"), line("passed", "c", folder="v1/y")]
    )
    assert worse == ["v1/x: 2 cases in the baseline, 1 here", "v1/y: 0 cases in the baseline, 1 here"]


def test_cases_of_one_name_are_told_apart() -> None:
    worse, _ = compared(
        [line("passed"), line("refused", code="syntax")],
        [line("refused", code="syntax"), line("refused", code="syntax")],
    )
    assert worse == ["v1/x: a: was passed, is refused: syntax"]


def test_the_runner_ends_with_1_where_an_answer_was_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    standings = tmp_path / "standings.jsonl"
    standings.write_text(line("wrong", why="gives 1 where OPA gives 2") + "\n", encoding="utf-8")
    assert runner.main([str(standings), "--write"]) == 1
    assert "silently wrong" in capsys.readouterr().out


def test_the_committed_baseline_has_all_cases_and_no_wrong_one() -> None:
    baseline = json.loads(runner.BASELINE.read_text(encoding="utf-8"))
    assert sum(parts["cases"] for folder, parts in baseline.items() if folder.startswith("v1/")) == 2_400
    assert sum(parts["cases"] for folder, parts in baseline.items() if folder.startswith("v0/")) == 2_027
    assert not [folder for folder, parts in baseline.items() if "wrong" in parts]


def test_the_page_shows_the_committed_baseline() -> None:
    baseline = json.loads(runner.BASELINE.read_text(encoding="utf-8"))
    assert runner.table(baseline) in runner.PAGE.read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_without_go_the_cases_are_left_out_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for tool in ("bash", "dirname", "basename", "mkdir", "cmp", "awk", "sort", "head", "env"):
        found = shutil.which(tool)
        if found is not None:
            (tmp_path / "bin" / tool).symlink_to(found)
    ran = subprocess.run(
        [str(HERE / "cases.sh"), str(tmp_path / "cases.jsonl")],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": str(tmp_path / "bin")},
        timeout=30,
    )
    assert ran.returncode == 3
    assert (
        ran.stdout == "the Rego conformance cases are left out: there is no Go toolchain here (go on PATH)\n"
    )
