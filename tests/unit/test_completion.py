"""Shell completion: it installs, and it offers reasons, what the directory names, and ids from the log's end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from signalwarden import _core, cli, starter
from tests.recorded import MIX, Recorded


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    return Recorded.starter(tmp_path / "refunds")


class Typed:
    """Asks as bash does for what may follow."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], directory: Path
    ) -> None:
        self._monkeypatch, self._capfd, self._directory = monkeypatch, capfd, directory

    def __call__(self, *words: str) -> list[str]:
        # What is completed stands last.
        typed = ["signalwarden", *words[:2], "--config", str(self._directory), *words[2:]]
        self._monkeypatch.setenv("_SIGNALWARDEN_COMPLETE", "complete_bash")
        self._monkeypatch.setenv("COMP_WORDS", " ".join(typed))
        self._monkeypatch.setenv("COMP_CWORD", str(len(typed) - 1))
        self._capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            cli._run([])
        out, err = self._capfd.readouterr()
        assert (left.value.code, err) == (0, "")
        return out.split()


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], recorded: Recorded) -> Typed:
    return Typed(monkeypatch, capfd, recorded.directory)


def test_reasons_are_offered(typed: Typed) -> None:
    assert typed("log", "tail", "--reason", "policy") == ["policy_denied"]
    live = sorted(code for code, _, _, live, _ in _core.reasons() if live)
    assert typed("log", "stats", "--reason", "a") == [code for code in live if code.startswith("a")]


def test_names_of_the_directory_are_offered(typed: Typed) -> None:
    assert typed("log", "tail", "--action", "re") == ["refund.create"]
    assert typed("log", "tail", "--signal", "d") == ["device_trust"]
    assert typed("log", "tail", "--signal", "posture:m") == ["posture:missing"]
    assert typed("log", "tail", "--route", "routes.yaml:1") == ["routes.yaml:11"]


def test_ids_and_principals_come_from_the_end_of_the_log(typed: Typed, recorded: Recorded) -> None:
    assert typed("log", "explain", "0") == []
    made = [entry["decision_id"] for entry in recorded.decide(MIX[2], count=3)]
    recorded.write()
    assert typed("log", "explain", "0") == sorted(made)
    assert typed("log", "explain", made[1][:-2])[0][:-2] == made[1][:-2]
    assert typed("log", "tail", "--principal", "spiffe://prod.example/ns/agents") == [starter.AGENT]


def test_a_directory_that_is_none_offers_nothing(typed: Typed, recorded: Recorded) -> None:
    (recorded.directory / "routes.yaml").write_text("[")
    assert typed("log", "tail", "--action", "re") == []
    shutil.rmtree(recorded.directory)
    assert typed("log", "explain", "0") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_installed_for_a_shell(tmp_path: Path, shell: str) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [sys.executable, "-m", "signalwarden.cli", "--install-completion", shell]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert f"{shell} completion installed" in ran.stdout
    scripts = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert any("_SIGNALWARDEN_COMPLETE" in text for text in scripts)


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_itself_offers_what_was_meant(recorded: Recorded, tmp_path: Path) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "signalwarden.cli", "--show-completion", "bash"],
        env={**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
        capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip
    wrapper = tmp_path / "signalwarden"
    wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m signalwarden.cli "$@"\n')
    wrapper.chmod(0o755)
    script = f"""{shown}
COMP_WORDS=(signalwarden log tail --config {recorded.directory} --reason polic)
COMP_CWORD=6
_signalwarden_completion signalwarden
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    ran = subprocess.run(
        ["bash", "--norc", "-c", script], env=environment, capture_output=True, text=True, timeout=60
    )
    assert ran.stdout.split() == ["policy_denied"], ran
