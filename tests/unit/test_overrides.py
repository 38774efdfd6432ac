"""The desk of overrides: it takes two, to the letter, in time; and what they did stands in the log."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from signalwarden.errors import BadInputError, CallRefusedError, StateError
from signalwarden.overrides import CONFIRM_WITHIN_S, MAX_PROPOSALS, MAX_PROPOSALS_OF_ONE, MAX_REASON
from signalwarden.state import SqliteStore
from tests.four_eyes import AGENT, ANNA, BEN, CARL, Stage

TOLD = {"value": "ok", "subject": AGENT, "reason": "INC-7: the feed is down", "ttl": "10m"}


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    store = SqliteStore(tmp_path / "state.db")
    yield Stage(store)
    store.close()


def listing(stage: Stage) -> Any:
    return json.loads(stage.overrides.listing())


def in_force(stage: Stage) -> int:
    return int(stage.overrides.numbers()["overrides"])


def test_one_proposes_and_another_confirms(stage: Stage) -> None:
    status, answer = stage.override(ANNA)
    assert (status, answer["state"], answer["proposed_by"]) == (202, "proposed", ANNA)
    assert answer["confirm_before"] == "2026-11-24T06:10:00.000000Z"
    assert in_force(stage) == 0
    status, answer = stage.override(BEN)
    assert status == 201
    assert answer == {"state": "in_force", "expires_at": "2026-11-24T06:10:00.000000Z", "by": [ANNA, BEN]}
    assert in_force(stage) == 1
    assert listing(stage)["proposals"] == []
    assert len(list(stage.store.read_all())) == 1, "only what is in force is kept"


def test_one_alone_is_not_two(stage: Stage) -> None:
    stage.override(ANNA)
    with pytest.raises(CallRefusedError, match="another client") as refused:
        stage.override(ANNA)
    assert refused.value.code == "same_person"
    assert in_force(stage) == 0
    assert stage.records("call_refused")[0]["reason"] == "same_person"
    assert stage.override(BEN)[0] == 201


def test_nobody_speaks_for_itself(stage: Stage) -> None:
    with pytest.raises(CallRefusedError) as refused:
        stage.override(AGENT)
    assert refused.value.code == "own_approval"
    stage.override(ANNA)
    with pytest.raises(CallRefusedError):
        stage.override(AGENT)
    assert in_force(stage) == 0


@pytest.mark.parametrize(
    "other",
    [{"value": "good"}, {"subject": "*"}, {"reason": "INC-8"}, {"ttl": "11m"}, {"name": "score", "value": 1}],
    ids=str,
)
def test_whoever_says_something_else_confirms_nothing_and_replaces_nothing(
    stage: Stage, other: dict[str, Any]
) -> None:
    stage.override(ANNA)
    assert stage.override(BEN, **other)[0] == 202
    assert in_force(stage) == 0
    assert len(listing(stage)["proposals"]) == 2
    assert stage.override(CARL)[0] == 201
    assert stage.override(CARL, **other)[0] == 201


def test_the_order_of_keys_and_another_word_for_a_time_are_no_difference(stage: Stage) -> None:
    stage.override(ANNA, value={"a": 1, "b": 2})
    body = json.dumps({**TOLD, "ttl": "600s", "value": {"b": 2, "a": 1}}).encode()
    assert stage.overrides.override(BEN, "posture", body)[0] == 201


def test_a_proposal_ends_by_itself(stage: Stage) -> None:
    stage.override(ANNA)
    stage.later(CONFIRM_WITHIN_S)
    assert listing(stage)["proposals"] == []
    assert stage.override(BEN)[0] == 202, "it is a new proposal"


def test_a_proposal_of_one_who_has_lost_the_right_is_void(stage: Stage) -> None:
    stage.override(ANNA)
    stage.barred.add(ANNA)
    assert stage.override(BEN)[0] == 202


def test_proposals_are_bounded_for_one_and_for_all(stage: Stage) -> None:
    for number in range(MAX_PROPOSALS_OF_ONE):
        stage.override(ANNA, reason=f"reason {number}")
    with pytest.raises(CallRefusedError) as refused:
        stage.override(ANNA, reason="one more")
    assert refused.value.code == "too_many_proposals"
    others = [f"spiffe://prod.example/people/p{number}" for number in range(MAX_PROPOSALS)]
    for number in range(MAX_PROPOSALS - MAX_PROPOSALS_OF_ONE):
        stage.override(others[number], reason=f"of another {number}")
    with pytest.raises(CallRefusedError):
        stage.override(BEN, reason="one more")
    assert stage.override(BEN, reason="reason 0")[0] == 201, "what waits can be confirmed all the same"


def test_two_that_confirm_at_once_make_one_override(stage: Stage) -> None:
    stage.override(ANNA)
    statuses: list[int] = []
    gate = threading.Barrier(2)

    def confirm(client: str) -> None:
        gate.wait(10)
        statuses.append(stage.override(client)[0])

    threads = [threading.Thread(target=confirm, args=(client,)) for client in (BEN, CARL)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(statuses) == [201, 202]
    assert len(stage.records("signal_overridden")) == 1


def test_what_can_not_be_kept_is_not_in_force_and_can_be_confirmed_again(stage: Stage) -> None:
    stage.override(ANNA)
    stage.store.close()
    with pytest.raises(StateError):
        stage.override(BEN)
    assert in_force(stage) == 0
    assert len(listing(stage)["proposals"]) == 1
    assert stage.records("signal_overridden") == []


def test_what_the_core_refuses_is_refused_before_anybody_else_is_called(stage: Stage) -> None:
    with pytest.raises(BadInputError, match="no signal of this name"):
        stage.override(ANNA, "unheard_of")
    assert listing(stage)["proposals"] == []


def test_the_records_say_who_what_why_and_until_when(stage: Stage) -> None:
    stage.override(ANNA)
    stage.override(BEN)
    stage.overrides.sweep()
    stage.later(600)
    stage.overrides.sweep()
    stage.overrides.sweep()
    proposed, overridden, ended = stage.records()
    what = {"name": "posture", "subject": AGENT, "reason": TOLD["reason"], "ttl_s": 600, "value": "ok"}
    assert (proposed["change"], proposed["actor"], proposed["override"]) == ("override_proposed", ANNA, what)
    assert (overridden["change"], overridden["actor"]) == ("signal_overridden", BEN)
    assert (overridden["by"], overridden["override"]) == ([ANNA, BEN], what)
    assert (ended["change"], ended["signal"], ended["subject"]) == ("override_ended", "posture", AGENT)
    assert ended["expires_at"] == overridden["expires_at"]


def test_the_value_of_a_secret_signal_is_in_no_record_and_no_list(stage: Stage) -> None:
    stage.override(ANNA, "score", value="hush")
    assert "hush" not in json.dumps(listing(stage)["proposals"])
    stage.override(BEN, "score", value="hush")
    assert "hush" not in json.dumps(stage.records())


def test_readiness_names_it_without_value_and_reason(stage: Stage) -> None:
    assert stage.overrides.detail() == []
    stage.override(ANNA)
    assert stage.overrides.numbers() == {"overrides": 0, "override_proposals": 1}
    stage.override(BEN)
    assert stage.overrides.detail() == [
        {"name": "posture", "subject": AGENT, "expires_at": "2026-11-24T06:10:00.000000Z"}
    ]
    stage.later(600)
    assert stage.overrides.numbers() == {"overrides": 0, "override_proposals": 0}


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"null", b"{}", b"[" * 300 + b"]" * 300, b'{"value":' + b"[" * 300 + b"]" * 300 + b"}",
        *(json.dumps({key: value for key, value in TOLD.items() if key != left}).encode() for left in TOLD),
        *(
            json.dumps({**TOLD, **other}).encode()
            for other in (
                {"more": 1}, {"subject": 1}, {"subject": ""}, {"subject": "a" * 5_000}, {"reason": ""}, {"reason": " "},
                {"reason": None}, {"reason": "a" * (MAX_REASON + 1)}, {"reason": "a\x1b[2J"}, {"ttl": 600}, {"ttl": "0s"},
                {"ttl": "soon"}, {"ttl": "-1m"}, {"ttl": None}, {"ttl": 1.5}, {"ttl": "9000d"}, {"value": "a" * 5_000},
            )
        ),
    ],
)  # fmt: skip
def test_a_body_that_is_none_proposes_nothing(stage: Stage, body: bytes) -> None:
    with pytest.raises(BadInputError):
        stage.overrides.override(ANNA, "posture", body)
    nested = b'{"value":%b,"subject":"a","reason":"b","ttl":"1m"}' % (b"[" * 500 + b"]" * 500)
    with pytest.raises(BadInputError):
        stage.overrides.override(ANNA, "posture", nested)
    assert listing(stage)["proposals"] == []
    assert stage.records() == []
