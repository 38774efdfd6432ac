"""`signals streams` and `signals resynchronise`, against a server's answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from signalwarden.admin_client import AdminClient
from signalwarden.cli import app

STREAM = {
    "feed": "idp", "kind": "ssf", "delivery": "push", "running": True, "verified_at": "2026-11-24T10:00:00Z",
    "in_sync": False, "suspended": "an event\n\x1b[31m was not understood", "refused": {"invalid_key": 2},
    "sets": {"accepted": 12, "ignored": 3, "duplicate": 1, "unprocessed": 4},
}  # fmt: skip


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the server was asked."""
    asked: list[str] = []

    def streams(_self: AdminClient) -> dict[str, Any]:
        asked.append("streams")
        return {
            "streams": [
                STREAM,
                STREAM | {"feed": "mdm", "running": False, "verified_at": None, "suspended": None},
            ]
        }

    def resynchronise(_self: AdminClient, feed: str) -> dict[str, Any]:
        asked.append(feed)
        return {"feed": feed}

    monkeypatch.setattr(AdminClient, "streams", streams)
    monkeypatch.setattr(AdminClient, "resynchronise", resynchronise)
    return asked


def run(root: Path, *arguments: str) -> str:
    command = ["signals", *arguments, "--config", str(root)]
    ran = CliRunner().invoke(app, command, env={"SIGNALWARDEN_TOKEN": "token"}, catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    return ran.stdout


def test_streams_are_shown_with_what_was_missed(minimal_directory: Path, asked: list[str]) -> None:
    shown = run(minimal_directory, "streams")
    assert asked == ["streams"]
    first, second = (line for line in shown.splitlines() if line.startswith(("idp", "mdm")))
    assert "suspended" in first
    assert "12" in first
    assert "\x1b" not in shown
    assert "not running" in second
    assert "never" in second


def test_streams_are_json_for_programs(minimal_directory: Path, asked: list[str]) -> None:
    shown = json.loads(run(minimal_directory, "streams", "--json"))
    assert shown["streams"][0] == STREAM


def test_an_operator_vouches_for_a_stream(minimal_directory: Path, asked: list[str]) -> None:
    assert run(minimal_directory, "resynchronise", "idp") == "`idp` is in sync\n"
    assert json.loads(run(minimal_directory, "resynchronise", "idp", "--json")) == {"feed": "idp"}
    assert asked == ["idp", "idp"]
