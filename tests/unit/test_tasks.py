"""The desk of tasks: what is asked is judged before anything is kept, and a refusal changes nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from signalwarden.errors import BadInputError, CallRefusedError, RateLimitedError, StateError
from signalwarden.tasks import MAX_LIST, MAX_TEXT, TASKS_A_SECOND
from tests.tasking import AGENT, HELPER, ORCHESTRATOR, OTHER, Stage, staged

UNKNOWN = {"task_id": "01a20d2e-e225-7eba-82f3-6812fbaf3409"}
SECRET = "s3cret-token-that-nobody-may-ever-see"
GOOD: dict[str, Any] = {"principal": AGENT, "type": "t", "actions": ["note.read"], "resources": ["Page::*"]}


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as stage:
        yield stage


def code(stage: Stage, act: Any) -> str:
    """Of a refusal, which is on record and has kept nothing."""
    before = len(list(stage.store.read_all()))
    with pytest.raises(CallRefusedError) as refused:
        act()
    assert len(list(stage.store.read_all())) == before
    assert stage.records("call_refused")[-1]["reason"] == refused.value.code
    return refused.value.code


def test_a_task_is_on_the_disk_and_in_the_log_with_the_digest_of_its_grant(stage: Stage) -> None:
    task = stage.begin(ttl="2m")
    assert [entry["state"] for entry in stage.tasks()] == ["live"]
    (begun,) = stage.records("task_begun")
    assert (begun["actor"], begun["principal"], begun["task_id"]) == (ORCHESTRATOR, AGENT, task["task_id"])
    assert begun["grant_sha256"] == hashlib.sha256(task["grant"].encode()).hexdigest()
    assert begun["expires_at"] == task["expires_at"]
    kept = b"".join(change.payload for change in stage.store.read_all())
    assert task["grant"].encode() not in kept + b"".join(stage.log.lines)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "expected an object"),
        (b"[]", "expected an object"),
        (SECRET.encode(), "expected an object"),
        (json.dumps({**GOOD, "token": SECRET}).encode(), "expected an object"),
        (json.dumps({key: GOOD[key] for key in ("principal", "type", "actions")}).encode(), "expected an object"),
        (json.dumps({**GOOD, "resources": None}).encode(), "expected an object"),
        (json.dumps({**GOOD, "principal": 7}).encode(), "`principal`: expected a text"),
        (json.dumps({**GOOD, "type": ""}).encode(), "`type`: expected a text"),
        (json.dumps({**GOOD, "type": "t" * (MAX_TEXT + 1)}).encode(), "`type`: expected a text"),
        (json.dumps({**GOOD, "workflow": []}).encode(), "`workflow`: expected a text"),
        (json.dumps({**GOOD, "actions": "note.read"}).encode(), "`actions`: expected a list"),
        (json.dumps({**GOOD, "actions": []}).encode(), "`actions`: expected a list"),
        (json.dumps({**GOOD, "resources": ["Page::*"] * (MAX_LIST + 1)}).encode(), "`resources`: expected a list"),
        (json.dumps({**GOOD, "resources": [SECRET, 7]}).encode(), "`resources`: expected a list of texts"),
        (json.dumps({**GOOD, "ttl": SECRET}).encode(), "`ttl`: expected a span"),
    ],
)  # fmt: skip
def test_a_body_that_asks_for_no_task_is_named_and_never_repeated(
    stage: Stage, body: bytes, said: str
) -> None:
    with pytest.raises(BadInputError) as error:
        stage.desk.begin(ORCHESTRATOR, body, certificate=None)
    assert said in str(error.value)
    assert SECRET not in str(error.value)
    assert "\n" not in str(error.value)
    assert list(stage.store.read_all()) == []
    assert stage.log.lines == []


@pytest.mark.parametrize(
    "other",
    [
        {"principal": "agent"}, {"actions": ["note.raed"]}, {"resources": ["Page"]}, {"sensitivity": "secret"},
        {"certificate_sha256": "ab"}, {"ttl": "0s"},
    ],
    ids=str,
)  # fmt: skip
def test_what_the_core_can_not_read_is_bad_input(stage: Stage, other: dict[str, Any]) -> None:
    with pytest.raises(BadInputError):
        stage.begin(**other)
    assert stage.tasks() == []


def test_what_may_not_begin_is_refused_with_its_reason(stage: Stage) -> None:
    assert code(stage, lambda: stage.begin(type="forbidden")) == "policy_refused"
    assert code(stage, lambda: stage.begin(workflow="month-end")) == "workflow_not_approved"
    assert code(stage, lambda: stage.begin(parent=UNKNOWN["task_id"])) == "task_unknown"
    assert code(stage, lambda: stage.begin(parent="no id")) == "task_unknown"
    assert stage.tasks() == []


def test_a_part_is_of_a_task_that_lives_that_is_ones_own_and_that_it_does_not_exceed(stage: Stage) -> None:
    task = stage.begin()
    parent = task["task_id"]
    assert code(stage, lambda: stage.begin(OTHER, parent=parent)) == "not_yours"
    assert (
        code(stage, lambda: stage.begin(AGENT, parent=parent, actions=["crm.export"])) == "delegation_widens"
    )
    part = stage.begin(AGENT, parent=parent, principal=HELPER)
    assert stage.records("task_begun")[-1]["parent"] == parent
    stage.end(ORCHESTRATOR, task)
    assert code(stage, lambda: stage.begin(AGENT, parent=parent)) == "task_ended"
    states = {entry["task_id"]: entry["state"] for entry in stage.tasks()}
    assert states[parent] == "completed"
    assert states[part["task_id"]] != "live"


def test_a_task_is_ended_once_by_those_it_belongs_to(stage: Stage) -> None:
    of_its_creator, of_its_principal = stage.begin(), stage.begin()
    assert code(stage, lambda: stage.end(OTHER, of_its_creator)) == "not_yours"
    assert stage.end(ORCHESTRATOR, of_its_creator) == {
        "task_id": of_its_creator["task_id"],
        "state": "completed",
    }
    assert stage.end(AGENT, of_its_principal, "revoked")["state"] == "revoked"
    assert code(stage, lambda: stage.end(ORCHESTRATOR, of_its_creator)) == "task_ended"
    assert code(stage, lambda: stage.end(ORCHESTRATOR, of_its_creator, "revoked")) == "task_ended"
    assert code(stage, lambda: stage.end(ORCHESTRATOR, UNKNOWN)) == "task_unknown"
    assert code(stage, lambda: stage.end(ORCHESTRATOR, {"task_id": "\x1b[2J"})) == "task_unknown"
    assert stage.records("call_refused")[-1]["about"] == "unprintable"
    ended = [(record["actor"], record["how"]) for record in stage.records("task_ended")]
    assert ended == [(ORCHESTRATOR, "completed"), (AGENT, "revoked")]


def test_an_operator_revokes_any_task_and_completes_none(stage: Stage) -> None:
    task = stage.begin()
    assert code(stage, lambda: stage.end(OTHER, task, operator=False)) == "not_yours"
    assert code(stage, lambda: stage.end(OTHER, UNKNOWN, "revoked", operator=True)) == "task_unknown"
    assert stage.end(OTHER, task, "revoked", operator=True)["state"] == "revoked"


def test_what_can_not_be_kept_is_not_said_to_be(stage: Stage) -> None:
    task = stage.begin()
    stage.store.close()
    for act in (
        stage.begin,
        lambda: stage.end(ORCHESTRATOR, task),
        lambda: stage.desk.move_workflow(ORCHESTRATOR, "w", b'{"state":"approved"}'),
    ):
        with pytest.raises(StateError):
            act()
    assert len(stage.records("task_begun")) == 1
    assert stage.records("task_ended") == []
    assert stage.records("workflow_moved") == []
    assert [entry["state"] for entry in stage.tasks()] == ["live"]
    assert json.loads(stage.desk.workflows(10))["workflows"] == []


def test_a_client_that_begins_without_end_is_held_back(stage: Stage) -> None:
    stage.desk._rates.correct(ORCHESTRATOR, 100 * TASKS_A_SECOND)  # begun in one moment
    with pytest.raises(RateLimitedError):
        stage.begin()
    assert stage.tasks() == []
    assert stage.begin(OTHER)["task_id"], "another is not"


def test_tasks_of_a_workflow_begin_while_it_is_approved_and_end_with_it(stage: Stage) -> None:
    assert json.loads(stage.desk.move_workflow(ORCHESTRATOR, "w", b'{"state":"approved"}')) == {
        "workflow": "w", "state": "approved",
    }  # fmt: skip
    stage.begin(workflow="w")
    stage.desk.move_workflow(ORCHESTRATOR, "w", b'{"state":"ended"}')
    assert code(stage, lambda: stage.begin(workflow="w")) == "workflow_not_approved"
    assert [entry["state"] for entry in stage.tasks()] != ["live"]
    moved = [(record["workflow"], record["state"]) for record in stage.records("workflow_moved")]
    assert moved == [("w", "approved"), ("w", "ended")]


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"state":"paused"}', b'{"state":1}', b'{"state":"approved","by":"me"}', b"\xff"]
)
def test_a_workflow_moves_to_a_state_that_there_is(stage: Stage, body: bytes) -> None:
    with pytest.raises(BadInputError):
        stage.desk.move_workflow(ORCHESTRATOR, "w", body)
    assert json.loads(stage.desk.workflows(10))["workflows"] == []
    assert stage.log.lines == []


def test_a_list_is_of_one_principal_or_of_all_and_says_what_it_leaves_out(stage: Stage) -> None:
    for _ in range(3):
        stage.begin()
    stage.begin(principal=HELPER)
    assert [
        t["principal"] for t in json.loads(stage.desk.listing(HELPER, ended=False, limit=9))["tasks"]
    ] == [HELPER]
    listed = json.loads(stage.desk.listing(None, ended=False, limit=3))
    assert (len(listed["tasks"]), listed["truncated"]) == (3, True)
