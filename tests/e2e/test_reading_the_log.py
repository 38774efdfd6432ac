"""The log of a running server, as operators and policy authors read it: followed, explained, summed up, made again."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from signalwarden import starter
from tests.served import COMMAND, Server, served


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with served(tmp_path) as running:
        yield running


class Following:
    """`log tail -f` in a process of its own."""

    def __init__(self, server: Server, *options: str) -> None:
        command = [
            *COMMAND,
            "log",
            "tail",
            "-f",
            "-n",
            "0",
            "--json",
            *options,
            "--config",
            str(server.made.directory),
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.seen: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.seen.append(json.loads(line))

    def wait_for(self, count: int) -> list[str]:
        """Reasons of what was seen."""
        deadline = time.monotonic() + 30
        while len(self.seen) < count and time.monotonic() < deadline:
            time.sleep(0.05)
        return [entry["reason"] for entry in self.seen]

    def stop(self) -> None:
        with self.process:
            self.process.kill()
        self._thread.join(10)


def publish(server: Server, **signals: str) -> None:
    for name, value in signals.items():
        server.run("signals", "publish", name, starter.AGENT, value, token=server.made.publisher_token)


def decisions(server: Server, count: int) -> list[dict[str, Any]]:
    """So many decisions, once they are on the disk."""
    deadline = time.monotonic() + 30
    while True:
        lines = server.run("log", "tail", "--since", "1h", "--json").splitlines()
        found = [entry for entry in map(json.loads, lines) if entry["kind"] == "decision"]
        if len(found) >= count or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def test_a_denial_at_three_in_the_morning_is_understood_from_its_record(server: Server) -> None:
    following = Following(server, "--deny", "--signal", "posture:missing")
    try:
        time.sleep(2)  # it begins at the end of the log as that is when it has started
        publish(server, device_trust="4")
        server.ask()
        publish(server, posture="ok")
        server.ask()
        server.ask()
        assert following.wait_for(1) == ["signal_unavailable"]
    finally:
        following.stop()
    denied, *allowed = decisions(server, 3)
    assert [entry["outcome"] for entry in allowed] == ["allow", "allow"]

    told = server.run("log", "explain", denied["decision_id"][:18])
    for said in ("deny signal_unavailable", "posture: missing", "DECISIVE", "forbid compromised-workloads-refund-nothing",
                 "signalwarden signals show posture", "team-detection@prod.example answers for it", "│ forbid ("):  # fmt: skip
        assert said in told, told
    assert server.made.publisher_token not in told

    sums = json.loads(server.run("log", "stats", "--json"))
    assert sums["reasons"] == {"allowed": 2, "signal_unavailable": 1}
    assert sums["changes"]["server_started"] == 1

    shown = json.loads(server.run("log", "brittleness", "--json"))
    assert {loss["name"]: loss["would_deny"] for loss in shown["losses"]} == {
        "device_trust": 2, "posture": 2, "task_type": 0, starter.PUBLISHER: 2,
    }  # fmt: skip


def test_a_change_is_tried_on_what_was_recorded_before_it_is_in_force(server: Server, tmp_path: Path) -> None:
    publish(server, device_trust="4", posture="ok")
    for _ in range(3):
        server.ask()
    assert len(decisions(server, 3)) == 3
    planned = tmp_path / "planned"
    shutil.copytree(server.made.directory, planned, ignore=shutil.ignore_patterns("var"))
    assert "0 allows would be denied" in server.run("log", "replay", "--against", str(planned))
    policies = planned / "policies" / "refunds.cedar"
    policies.write_text(policies.read_text().replace("device_trust >= 3", "device_trust >= 5"))

    directory = str(server.made.directory)
    command = [*COMMAND, "log", "replay", "--against", str(planned), "--json", "--config", directory]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1, ran.stderr
    *flips, summary = map(json.loads, ran.stdout.splitlines())
    assert [(flip["was"]["reason"], flip["now"]["reason"]) for flip in flips] == [
        ("allowed", "no_policy_permits")
    ] * 3
    assert (summary["narrows"], summary["widens"]) == (3, 0)

    # The server goes on as it was, and dies: what is on the disk is read all the same.
    server.process.kill()
    server.process.wait(10)
    log = server.made.directory / "var" / "decisions.jsonl"
    with log.open("ab") as file:
        file.write(log.read_bytes().splitlines()[-1][:200])
    assert len(decisions(server, 3)) == 3
    assert json.loads(server.run("log", "stats", "--json"))["skipped"]["count"] == 1
