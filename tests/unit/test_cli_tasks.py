"""Verbs on tasks and workflows, against the real desk and core behind the real admin API, without a socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from signalwarden.cli import tasks as verbs
from signalwarden.config import Right
from tests.commanding import DeskCommands
from tests.fake_services import FakeServices
from tests.tasking import AGENT, HELPER, ORCHESTRATOR, OTHER, Stage, staged

UNKNOWN = "01a20d2e-e225-7eba-82f3-6812fbaf3409"
BEGIN = (
    *("tasks", "begin", "--principal", AGENT, "--type", "t", "--action", "note.read"),
    *("--resource", "Page::*"),
)


class House(DeskCommands):
    """The desk behind the admin API, and the command line before it."""

    def __init__(self, stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
        self.stage = stage
        services = FakeServices()
        services.client = ORCHESTRATOR
        services.tasks = stage.desk
        super().__init__(services, capfd)

    def begun(self, *more: str) -> dict[str, Any]:
        task: dict[str, Any] = json.loads(self.said(*BEGIN, *more, "--json"))
        return task


@pytest.fixture
def house(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[House]:
    with staged(tmp_path) as stage:
        house = House(stage, capfd)
        monkeypatch.setattr(verbs, "admin_of", house.admin)
        yield house


def test_a_grant_is_shown_once_when_its_task_begins(house: House) -> None:
    first, second, grant = house.said(*BEGIN, "--ttl", "2m").splitlines()
    (task,) = house.stage.tasks()
    assert first == f"task {task['task_id']}, until {task['expires_at']}"
    assert "x-signalwarden-grant" in second
    assert grant.count(".") == 2
    assert grant not in house.said("tasks", "list", "--json") + house.said("tasks", "tree")


def test_a_script_gets_the_grant_alone_or_everything_as_json(house: House) -> None:
    assert house.said(*BEGIN, "--grant-only").count(".") == 2
    assert house.begun().keys() == {"task_id", "grant", "expires_at"}


def test_what_is_asked_for_arrives(house: House) -> None:
    more = (
        "--action",
        "crm.export",
        "--sensitivity",
        "high",
        "--ttl",
        "90s",
        "--certificate-sha256",
        "ab" * 32,
    )
    house.begun(*more)
    (task,) = house.stage.tasks()
    assert set(task["actions"]) == {"note.read", "crm.export"}
    assert (task["principal"], task["type"], task["sensitivity"]) == (AGENT, "t", "high")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((*BEGIN, "--action", "note.raed"), "malformed"),
        ((*BEGIN, "--ttl", "soon"), "malformed"),
        ((*BEGIN, "--workflow", "month-end"), "workflow_not_approved"),
        ((*BEGIN, "--parent", UNKNOWN), "task_unknown"),
        ((*BEGIN, "--parent", "../../signals"), "not_found"),
        (("tasks", "complete", UNKNOWN), "task_unknown"),
        (("tasks", "revoke", UNKNOWN), "task_unknown"),
        (("tasks", "complete", "a?b"), "task_unknown"),
        (("tasks", "complete", ".."), "task_unknown"),
        (("workflows", "approve", "a\x1bb"), "malformed"),
    ],
)
def test_a_refusal_is_one_sentence_with_its_reason(
    house: House, arguments: tuple[str, ...], reason: str
) -> None:
    status, out, err = house.run(*arguments)
    assert (status, out) == (2, "")
    assert f"(`{reason}`, " in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("tasks", "begin", "--principal", AGENT),
        ("tasks", "complete"),
        ("tasks", "list", "--limit", "0"),
        ("tasks", "list", "--limit", "many"),
        ("workflows", "end"),
    ],
)
def test_a_line_that_is_not_whole_asks_nobody(house: House, arguments: tuple[str, ...]) -> None:
    status, out, err = house.run(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("signalwarden: ")
    assert "Traceback" not in err


def test_somebody_elses_task_and_one_that_has_ended_are_not_ended(house: House) -> None:
    task = house.begun()["task_id"]
    house.services.client = OTHER
    house.services.may = frozenset({Right.TASKS})
    assert "`not_yours`" in house.run("tasks", "complete", task)[2]
    assert "`not_yours`" in house.run("tasks", "revoke", task)[2]
    house.services.client = AGENT
    assert house.said("tasks", "complete", task) == f"task {task}: completed\n"
    for verb in ("complete", "revoke"):
        status, out, err = house.run("tasks", verb, task)
        assert (status, out) == (2, "")
        assert "`task_ended`" in err


def test_who_may_operate_revokes_any_task(house: House) -> None:
    task = house.begun()["task_id"]
    house.services.client = OTHER
    house.services.may = frozenset({Right.OPERATE})
    assert json.loads(house.said("tasks", "revoke", task, "--json")) == {"task_id": task, "state": "revoked"}


def test_who_may_not_is_told_so(house: House) -> None:
    house.services.may = frozenset({Right.READ})
    for arguments in (BEGIN, ("tasks", "complete", UNKNOWN), ("workflows", "approve", "w")):
        assert "`right_missing`" in house.run(*arguments)[2]


def test_a_list_shows_who_may_what_until_when_and_what_it_leaves_out(house: House) -> None:
    assert house.said("tasks", "list") == "no live tasks\n"
    assert house.said("tasks", "list", "--ended") == "no tasks\n"
    task = house.begun()
    house.said("tasks", "complete", house.begun("--type", "done")["task_id"])
    head, row = house.said("tasks", "list").splitlines()
    assert head.split() == ["task", "state", "type", "principal", "actions", "until"]
    assert row.split()[:5] == [task["task_id"], "live", "t", AGENT, "note.read"]
    assert "completed" in house.said("tasks", "list", "--ended")
    assert house.said("tasks", "list", "--principal", HELPER) == "no live tasks\n"
    assert (
        house.said("tasks", "list", "--ended", "--limit", "1").splitlines()[-1] == "… and more: see --limit"
    )


def test_a_tree_has_parts_under_their_whole(house: House) -> None:
    assert house.said("tasks", "tree") == "no tasks\n"
    task = house.begun()
    part = house.begun("--parent", task["task_id"])
    alone = house.begun()
    lines = house.said("tasks", "tree").splitlines()
    (at,) = (number for number, line in enumerate(lines) if task["task_id"] in line)
    assert part["task_id"] in lines[at + 1]
    assert lines[at + 1].startswith("└── ")
    assert any(line.startswith("t ") and alone["task_id"] in line for line in lines)
    assert all("touched nothing" in line for line in lines)
    assert len(json.loads(house.said("tasks", "tree", "--json"))["tasks"]) == 3


def test_workflows_are_approved_ended_and_listed(house: House) -> None:
    assert house.said("workflows", "list") == "no workflows\n"
    assert house.said("workflows", "approve", "month-end") == "workflow month-end: approved\n"
    house.begun("--workflow", "month-end")
    ended = json.loads(house.said("workflows", "end", "month-end", "--json"))
    assert ended == {"workflow": "month-end", "state": "ended"}
    (_, row) = house.said("workflows", "list").splitlines()
    assert row.split()[:3] == ["month-end", "ended", ORCHESTRATOR]
    assert house.said("tasks", "list") == "no live tasks\n"
    assert json.loads(house.said("workflows", "list", "--json"))["workflows"][0]["state"] == "ended"
