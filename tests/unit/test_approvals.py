"""The desk of approvals: what approvers see, how they answer, and what stands of it in the log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from signalwarden.approvals import MAX_COMMENT, SHOWN_OF_ONE
from signalwarden.errors import BadInputError, CallRefusedError, StateError
from signalwarden.refusals import REFUSALS_A_SECOND
from signalwarden.state import SqliteStore
from tests.four_eyes import AGENT, ANNA, BEN, DECISION, NEVER, Stage

OTHER = "spiffe://prod.example/ns/agents/sa/other-agent"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    store = SqliteStore(tmp_path / "state.db")
    yield Stage(store)
    store.close()


def listing(stage: Stage, state: str | None = None, requester: str | None = None, limit: int = 100) -> Any:
    return json.loads(stage.approvals.listing(state, requester, limit))


def kept(stage: Stage) -> list[dict[str, Any]]:
    return [json.loads(change.payload) for change in stage.store.read_all()]


# ---- answering ------------------------------------------------------------------------------------------


def test_a_yes_is_kept_before_it_is_answered_and_recorded_with_who_and_what(stage: Stage) -> None:
    stage.core.ask("a1")
    assert stage.answer(ANNA, "a1", comment="  INC-7: looks right ") == {
        "approval_id": "a1",
        "state": "approved",
        "need": 1,
        "approved_by": [ANNA],
    }
    assert [(told["by"], told["approve"]) for told in kept(stage)] == [(ANNA, True)]
    (record,) = stage.records("approval_answered")
    assert (record["actor"], record["approved"], record["state"]) == (ANNA, True, "approved")
    assert (record["comment"], record["decision_id"]) == ("INC-7: looks right", DECISION)
    assert record["asked"]["body_sha256"] == "ab" * 32
    assert record["asked"]["path"] == "/v1/accounts/42/transfers", "its query may hold secrets"


def test_of_several_that_are_needed_each_is_told_how_it_stands(stage: Stage) -> None:
    stage.core.ask("a1", need=2)
    assert stage.answer(ANNA, "a1")["state"] == "pending"
    assert stage.answer(BEN, "a1") == {
        "approval_id": "a1", "state": "approved", "need": 2, "approved_by": [ANNA, BEN],
    }  # fmt: skip


def test_one_no_is_enough(stage: Stage) -> None:
    stage.core.ask("a1", need=2)
    stage.answer(ANNA, "a1")
    assert stage.answer(BEN, "a1", approve=False, comment="too much")["state"] == "denied"
    assert [record["approved"] for record in stage.records("approval_answered")] == [True, False]


@pytest.mark.parametrize(
    ("client", "approval_id", "code"),
    [
        (ANNA, "none", "approval_unknown"),
        (ANNA, "../a1", "approval_unknown"),
        (ANNA, "a" * 65, "approval_unknown"),
        (ANNA, "a1\n", "approval_unknown"),
        (AGENT, "a1", "own_approval"),
        (NEVER, "a1", "policy_refused"),
        (ANNA, "a2", "approval_ended"),
        (ANNA, "a3", "already_given"),
    ],
)
@pytest.mark.parametrize("approve", [True, False])
def test_an_answer_that_does_not_count_has_its_reason_and_its_record(
    stage: Stage, client: str, approval_id: str, code: str, *, approve: bool
) -> None:
    stage.core.ask("a1")
    stage.core.ask("a2", state="used")
    stage.core.ask("a3", need=2, approved_by=[ANNA])
    with pytest.raises(CallRefusedError) as refused:
        stage.answer(client, approval_id, approve=approve)
    assert refused.value.code == code
    assert kept(stage) == []
    (record,) = stage.records()
    assert (record["change"], record["actor"], record["reason"]) == ("call_refused", client, code)
    assert record["call"] == ("approval.approve" if approve else "approval.deny")
    assert record["decision_id"] == (DECISION if code == "policy_refused" else None)
    assert record["about"].isprintable()


def test_refused_answers_can_not_fill_the_log(stage: Stage) -> None:
    for _ in range(REFUSALS_A_SECOND * 20):
        with pytest.raises(CallRefusedError):
            stage.answer(ANNA, "none")
    # The flood may run over the turn of a second or two.
    assert len(stage.records()) <= REFUSALS_A_SECOND * 5


def test_what_can_not_be_kept_is_no_answer(stage: Stage) -> None:
    stage.core.ask("a1")
    stage.store.close()
    with pytest.raises(StateError):
        stage.answer(ANNA, "a1")
    assert stage.core.questions["a1"]["state"] == "pending"
    assert stage.records() == []


@pytest.mark.parametrize("body", [b"", b"{}", b'{"comment":"a"}'])
def test_a_comment_may_be_left_out(stage: Stage, body: bytes) -> None:
    stage.core.ask("a1")
    assert json.loads(stage.approvals.answer(ANNA, "a1", body, approve=True))["state"] == "approved"


@pytest.mark.parametrize(
    "body",
    [
        b"[]", b"null", b"yes", b'{"comment":""}', b'{"comment":" "}', b'{"comment":1}', b'{"comment":null}',
        b'{"comment":"a\\u001b[2J"}', b'{"comment":"a\\nb"}', b'{"why":"a"}', b'{"comment":"a","more":1}',
        json.dumps({"comment": "a" * (MAX_COMMENT + 1)}).encode(),
    ],
)  # fmt: skip
def test_a_body_that_is_none_answers_nothing(stage: Stage, body: bytes) -> None:
    stage.core.ask("a1")
    with pytest.raises(BadInputError):
        stage.approvals.answer(ANNA, "a1", body, approve=True)
    assert stage.core.questions["a1"]["state"] == "pending"


# ---- what is seen ---------------------------------------------------------------------------------------


def test_a_flood_of_one_requester_reads_as_one_line_and_hides_nobody_else(stage: Stage) -> None:
    for number in range(50):
        stage.core.ask(f"flood-{number}", requester=OTHER, resource=f'Account::"{number}"', task_id=None)
    stage.later(60)
    stage.core.ask("a1")
    told = listing(stage, "pending")
    assert [question["approval_id"] for question in told["approvals"]][SHOWN_OF_ONE:] == ["a1"]
    assert len(told["approvals"]) == SHOWN_OF_ONE + 1
    flood, single = told["groups"]
    assert (flood["requester"], flood["count"], flood["resources"]) == (OTHER, 50, 50)
    assert (single["requester"], single["count"], single["task_id"]) == (AGENT, 1, "t1")
    assert told["count"] == 51
    assert len(listing(stage, "pending", requester=OTHER)["approvals"]) == 50, "asked for, it is shown whole"


def test_groups_are_of_a_requester_an_action_and_a_task(stage: Stage) -> None:
    stage.core.ask("a1")
    stage.core.ask("a2", state="denied")
    stage.core.ask("a3", task_id="t2")
    stage.core.ask("a4", action="transfer.cancel")
    groups = listing(stage)["groups"]
    assert {(group["action"], group["task_id"]): group["states"] for group in groups} == {
        ("transfer.create", "t1"): {"pending": 1, "denied": 1},
        ("transfer.create", "t2"): {"pending": 1},
        ("transfer.cancel", "t1"): {"pending": 1},
    }


def test_what_waits_stands_first_and_what_ends_first_before_it(stage: Stage) -> None:
    stage.core.ask("done", state="used")
    stage.core.ask("late", requester=OTHER)
    stage.core.ask("soon", expires_at="2026-11-24T06:00:01.000000Z")
    assert [question["approval_id"] for question in listing(stage)["approvals"]] == ["soon", "late", "done"]


def test_a_list_says_when_there_is_more(stage: Stage) -> None:
    stage.core.ask("a1")
    stage.core.ask("a2", requester=OTHER)
    assert not listing(stage)["truncated"]
    assert listing(stage, limit=1)["truncated"]


def test_a_state_that_there_is_not_is_refused(stage: Stage) -> None:
    with pytest.raises(BadInputError, match="`pending`"):
        listing(stage, "open")


def test_one_question_is_told_whole(stage: Stage) -> None:
    stage.core.ask("a1")
    assert json.loads(stage.approvals.show("a1")) == stage.core.questions["a1"]
    with pytest.raises(CallRefusedError):
        stage.approvals.show("none")


# ---- beside decisions -----------------------------------------------------------------------------------


def test_a_question_is_recorded_when_it_is_asked(stage: Stage) -> None:
    assert not stage.approvals.asked(stage.core.ask("a1"))
    (record,) = stage.records()
    assert (record["change"], record["actor"], record["approval_id"]) == ("approval_asked", AGENT, "a1")
    assert (record["words"], record["need"]) == (["moves money"], 1)
    assert "hush" not in json.dumps(record)


def test_a_rule_answers_at_once_and_that_is_a_record_of_its_own(stage: Stage) -> None:
    stage.core.rule = f"rule:{DECISION}"
    assert stage.approvals.asked(stage.core.ask("a1"))
    assert [told["by"] for told in kept(stage)] == [f"rule:{DECISION}"]
    asked, answered = stage.records()
    assert asked["change"] == "approval_asked"
    assert (answered["change"], answered["actor"]) == ("approval_answered", f"rule:{DECISION}")
    assert (answered["state"], answered["decision_id"]) == ("approved", DECISION)


def test_use_and_release_are_recorded_with_who_approved(stage: Stage) -> None:
    stage.core.ask("a1")
    stage.answer(ANNA, "a1")
    stage.approvals.asked(stage.core.use("a1", DECISION))
    stage.approvals.asked(stage.core.use("a1", None))
    (used,) = stage.records("approval_used")
    assert (used["actor"], used["approved_by"], used["decision_id"]) == (AGENT, [ANNA], DECISION)
    (released,) = stage.records("approval_released")
    assert (released["actor"], released["approval_id"]) == ("server", "a1")


def test_what_becomes_of_a_question_that_is_forgotten_is_recorded_all_the_same(stage: Stage) -> None:
    stage.core.ask("a1")
    held = stage.core.use("a1", DECISION)
    stage.core.questions.clear()
    stage.approvals.asked(held)
    (used,) = stage.records("approval_used")
    assert (used["actor"], used["asked"]) == ("server", None)
