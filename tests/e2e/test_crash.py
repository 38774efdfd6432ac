"""The server is killed at every write, before its commit and once it is durable: nothing that was answered is lost, no yes is used
twice, and what two people said together counts no longer than they said.

A yes that was claimed for an allow that the log then refused is given back by a write of its own. Between the claim and that
write it stays used: whoever asked must ask again, which is safe.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.crashing import CLIENTS, OVERRIDDEN, POLICIES, ROUTES, SETTINGS, SIGNALS, Callers
from tests.serving import running

TIMEOUT_S = 60
ENDED = {"grant_revoked"}
WRITES = 29
"""Of the scenario; `test_the_scenario_writes_as_often_as_it_is_killed` counts them."""
STAYS_USED = {(WRITES - 1, "after"), (WRITES, "within")}
"""Where the claim is durable, and that it was given back is not."""


@pytest.fixture
def root(minimal_directory: Path) -> Path:
    settings = minimal_directory / "signalwarden.yaml"
    settings.write_text(settings.read_text() + CLIENTS + SETTINGS)
    (minimal_directory / "routes.yaml").write_text(ROUTES)
    (minimal_directory / "signals.yaml").write_text(SIGNALS)
    (minimal_directory / "policies/pages.cedar").write_text(POLICIES)
    return minimal_directory


def killed(root: Path, acknowledged: Path, at: int, side: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "tests.crashing", str(root), str(acknowledged), str(at), side]
    return subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)


def test_the_scenario_writes_as_often_as_it_is_killed(root: Path, tmp_path: Path) -> None:
    done = killed(root, tmp_path / "acknowledged", 0, "after")
    assert done.returncode == 0, done.stderr.decode()
    assert int(done.stdout.split()[-1]) == WRITES


@pytest.mark.parametrize("side", ["within", "after"])
@pytest.mark.parametrize("at", range(1, WRITES + 1))
def test_what_was_answered_before_a_kill_holds_after_it(
    root: Path, tmp_path: Path, at: int, side: str
) -> None:
    acknowledged = tmp_path / "acknowledged"
    assert killed(root, acknowledged, at, side).returncode == -9
    lines = acknowledged.read_bytes().splitlines() if acknowledged.exists() else []
    steps: list[dict[str, Any]] = [json.loads(line) for line in lines]
    grants = {step["name"]: step["grant"] for step in steps if step["step"] == "begun"}
    ended = {step["name"] for step in steps if step["step"] == "ended"}
    approvals = {step["name"]: step["approval"] for step in steps if step["step"] == "asked"}
    done = {(step["step"], step.get("name")) for step in steps}
    with running(root) as app, grpc.insecure_channel(app.check_address) as channel:
        callers = Callers(app, channel)
        callers.await_room()
        for name in ended:
            assert callers.read(grants[name]) in ENDED, name
        if "kept" in grants:
            if ("touched", "kept") in done:
                assert callers.read(grants["kept"], "/crm/1") == "no_policy_permits"
            assert callers.read(grants["kept"]) == "allowed", "what was issued and not ended counts"
        if ("denied", "refused") in done:
            assert callers.transfer("refused", approvals["refused"])[0] == "approval_denied"
        overrides_count_as_answered(callers, done, side)
        for name, approval in approvals.items():
            action = "loans" if name == "late" else "transfers"
            reasons = [callers.transfer(name, approval, action=action)[0] for _ in range(3)]
            assert name != "refused" or "allowed" not in reasons
            assert name != "late" or ("expires", name) not in done or "allowed" not in reasons
            allowed = reasons.count("allowed") + (("used", name) in done)
            assert allowed <= 1, (name, reasons)
            if name == "open" and ("answered", name) in done:
                assert allowed == 1, "a yes that was answered and not used counts once"
            if name == "back" and ("answered", name) in done:
                assert allowed == ((at, side) not in STAYS_USED), reasons


def overrides_count_as_answered(callers: Callers, done: set[tuple[str, str | None]], side: str) -> None:
    for name in OVERRIDDEN:
        reason = callers.guarded(name)
        confirmed = ("overridden", name) in done
        if not confirmed and (("proposed", name) not in done or side == "within"):
            assert reason == "signal_unavailable", "the word of one is none, and was in memory alone"
        if confirmed and name == "long":
            assert reason == "allowed"
        if ("expires", name) in done:
            assert reason == "signal_unavailable", "it ended by itself, and no start brings it back"
