"""`signalwarden diff`: in words, what widens first; with which directory can't be loaded; a status for pipelines."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PERMIT = '@id("more")\npermit (principal, action == Action::"page.read", resource);\n'
FORBID = '@id("less")\nforbid (principal, action == Action::"page.read", resource);\n'


def diff(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "signalwarden.cli", "diff", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture
def after(minimal_directory: Path, tmp_path: Path) -> Path:
    path = tmp_path / "after"
    shutil.copytree(minimal_directory, path)
    return path


def test_what_widens_comes_first(minimal_directory: Path, after: Path) -> None:
    (after / "policies/more.cedar").write_text(FORBID + PERMIT)
    (after / "entities.json").write_text(" []\n")
    ran = diff(minimal_directory, after)
    assert ran.returncode == 0, ran.stderr
    *said, last = ran.stdout.splitlines()
    assert said == [
        "widens:",
        "  policy: `more` is new and allows what it permits",
        "may widen:",
        "  entities: `entities.json` changed: who and what there is, and of which groups they are",
        "narrows:",
        "  policy: `less` is new and denies what it forbids",
    ]
    assert last.startswith("3 changes, revision ")


def test_two_that_say_the_same_have_no_changes(minimal_directory: Path, after: Path) -> None:
    ran = diff(minimal_directory, after, "--exit-code")
    assert ran.returncode == 0
    assert ran.stdout.startswith("0 changes, ")


def test_json_has_words_and_names(minimal_directory: Path, after: Path) -> None:
    (after / "policies/more.cedar").write_text(FORBID)
    said = json.loads(diff(minimal_directory, after, "--json").stdout)
    assert said["old"] != said["new"]
    assert said["words"] == [
        {
            "part": "policy",
            "name": "less",
            "direction": "narrows",
            "sentence": "`less` is new and denies what it forbids",
        }
    ]
    assert said["difference"]["policies"]["added"] == ["less"]


@pytest.mark.parametrize(("policy", "status"), [(PERMIT, 1), (FORBID, 0)])
def test_a_pipeline_may_ask_whether_anything_widens(
    minimal_directory: Path, after: Path, policy: str, status: int
) -> None:
    (after / "policies/more.cedar").write_text(policy)
    assert diff(minimal_directory, after, "--exit-code").returncode == status


def test_a_directory_that_can_not_be_loaded_is_named(minimal_directory: Path, after: Path) -> None:
    (after / "routes.yaml").write_text("ruotes: []\nmore: 1\n")
    for pair in ((minimal_directory, after), (after, minimal_directory)):
        ran = diff(*pair)
        assert ran.returncode == 2
        assert ran.stdout == ""
        assert f"`{after}` can't be loaded: routes.yaml:1:1: error: " in ran.stderr
        assert ran.stderr.count("\n") == 1
    assert "the directory can't be read" in diff(minimal_directory, after / "nowhere").stderr


def test_what_is_not_approved_yet_can_be_read(minimal_directory: Path, after: Path) -> None:
    key = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
    (after / "signals.yaml").write_text(
        "feeds: {clock: {kind: poll, file: feeds/clock.json}}\n"
        "signals:\n  day: {type: bool, description: d, owner: o@x, purpose: p, subject: global, max_age: 1h,\n"
        "    sources: [{kind: poll, feed: clock, assurance: sourced}],\n"
        "    influence: observe, used_by: [page.read], review_by: 2099-01-01,\n"
        f'    approvers: [{{id: "alice@prod.example", ed25519: "{key}"}}]}}\n'
    )
    ran = diff(minimal_directory, after)
    assert ran.returncode == 0, ran.stderr
    assert "a change of `day` needs the approval of `alice@prod.example`" in ran.stdout
