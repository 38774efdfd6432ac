"""The evidence report on a server that has run: its figures are what was done, while it runs and after it has stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from signalwarden import cli
from tests.auditing import written
from tests.callers import refused
from tests.conftest import Eventually
from tests.crashing import (
    AGENT,
    APPROVER,
    CLIENTS,
    ORCHESTRATOR,
    OVERRIDDEN,
    POLICIES,
    ROUTES,
    SECOND,
    SIGNALS,
    Callers,
)
from tests.serving import running


@pytest.fixture
def root(minimal_directory: Path) -> Path:
    settings = (minimal_directory / "signalwarden.yaml").read_text() + CLIENTS
    return written(
        minimal_directory,
        {
            "signalwarden.yaml": settings, "routes.yaml": ROUTES, "signals.yaml": SIGNALS,
            "policies/pages.cedar": POLICIES,
        },
    )  # fmt: skip


def reported(root: Path, capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capfd.readouterr()
    assert cli._run(["report", "--config", str(root), "--json"]) == 0
    document: dict[str, Any] = json.loads(capfd.readouterr()[0])
    return document


def controls(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        control["id"]: control for framework in document["frameworks"] for control in framework["controls"]
    }


def figures(control: dict[str, Any]) -> dict[str, Any]:
    tables = {table["label"]: table["rows"] for table in control["tables"]}
    return {**tables, **{figure["label"]: figure["value"] for figure in control["figures"]}}


def traffic(callers: Callers) -> None:
    """A task, its end, a question and its answer, an override, a refused delegation, and calls that know nobody."""
    task = callers.begin()
    assert callers.read(task["grant"]) == "allowed"
    part = {"actions": ["transfer.create"]}
    assert refused(lambda: callers.begin(task, **part)) == "delegation_widens"
    callers.end(task, "complete")
    assert callers.read(task["grant"]) == "grant_revoked"
    reason, problem = callers.transfer("one")
    assert reason == "approval_required"
    callers.approve(problem["approval_id"])
    assert callers.transfer("one")[0] == "allowed"
    assert callers.guarded("long") == "signal_unavailable"
    for client in (APPROVER, SECOND):
        callers.override(client, "long", "10m")
    assert callers.guarded("long") == "allowed"
    with callers.admin(ORCHESTRATOR) as admin:
        admin.revoke({"subject": AGENT, "reason": "INC-7"})
    assert callers.transfer("two")[0] == "identity_invalid"


def test_the_figures_are_what_was_done(
    root: Path, capfd: pytest.CaptureFixture[str], eventually: Eventually
) -> None:
    with running(root) as app, grpc.insecure_channel(app.check_address) as channel:
        empty = controls(reported(root, capfd))
        assert empty["NHI5:2025"]["standing"] == "no data"
        traffic(Callers(app, channel))
        eventually(lambda: b"INC-7" in (root / "var/decisions.jsonl").read_bytes())
        eventually(lambda: b"identity_invalid" in (root / "var/decisions.jsonl").read_bytes())
        live = controls(reported(root, capfd))
    document = reported(root, capfd)
    told = controls(document)
    assert document["findings"] == []
    assert document["log"]["skipped"]["count"] == 0
    assert {name: control["standing"] for name, control in live.items()} == {
        name: control["standing"] for name, control in told.items()
    }

    impersonation = figures(told["L7 Agent Impersonation"])
    assert (impersonation["tasks begun"], impersonation["tasks completed or revoked"]) == (1, 1)
    assert ["grant_revoked", 1] in impersonation["refused grants"]
    assert ["identity_invalid", 1] in impersonation["refused credentials"]
    movement = figures(told["L4 Lateral Movement"])
    assert movement["delegations that would have widened"] >= 1
    assert told["L4 Lateral Movement"]["standing"] == "enforced"
    privilege = figures(told["NHI5:2025"])
    assert privilege["granted and used, by type of task"] == [["t", 1, 2, 1]]
    oversight = figures(told["MAP 3.5"])
    assert told["MAP 3.5"]["standing"] == "enforced"
    assert (oversight["questions asked"], oversight["approvals used"], oversight["overrides in force"]) == (
        1,
        1,
        1,
    )
    assert oversight["who answered"] == [[APPROVER, 1, 0, 1]]
    assert oversight["who overrode"] == [[APPROVER, 1], [SECOND, 1]]
    away = figures(told["MANAGE 2.4"])
    assert (away["`revoked`"], away["`task_ended`"]) == (1, 1)
    assert away["calls refused as revoked"] == 1
    assert away["of these met by a call that was denied for it"] == 1
    poisoned = {
        row[0]: row for row in figures(told["L6 the decision point as a target"])["signals in decisions"]
    }
    assert poisoned["posture"][5] == 1, "one decision rested on an override"
    assert OVERRIDDEN["long"] in {
        row[0] for row in figures(told["NHI1:2025"])["longest since the last allow"]
    }
    assert figures(told["NHI2:2025"])["records that hold what looks like one"] == 0
    assert told["NHI8:2025"]["standing"] == "not covered"
    assert told["L1"]["standing"] == "not covered"

    log = figures(told["L5 Poisoning Observability Data"])
    assert log["records that are what a signed checkpoint says"] == document["log"]["records"]
    assert log["findings of `log verify`"] == 0
    changed(root / "var/decisions.jsonl")
    after = controls(reported(root, capfd))["L5 Poisoning Observability Data"]
    assert figures(after)["findings of `log verify`"] >= 1
    (finding,) = (finding for finding in after["findings"] if finding["kind"] == "tampered")
    assert finding["at"].startswith("decisions.jsonl:")


def changed(log: Path) -> None:
    """A denial becomes an allow, in a line that is as good as any other."""
    content = log.read_bytes()
    assert b'"outcome":"deny"' in content
    log.write_bytes(content.replace(b'"outcome":"deny"', b'"outcome":"allow"', 1))
