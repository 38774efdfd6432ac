"""Verbs on questions and overrides, against the real desks and the real admin API over a core that is a few
dictionaries."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from signalwarden.admin_client import AdminClient
from signalwarden.approval_news import QUIET_S, News
from signalwarden.cli import approvals as verbs
from signalwarden.cli import overrides as override_verbs
from signalwarden.errors import UnreachableError
from signalwarden.state import SqliteStore
from tests.commanding import DeskCommands
from tests.fake_services import FakeServices
from tests.four_eyes import AGENT, ANNA, BEN, CARL, Stage

ID = "01a20d2e-e225-7eba-82f3-6812fbaf3409"
OTHER = "spiffe://prod.example/ns/agents/sa/other-agent"


class House(DeskCommands):
    """The desks behind the admin API, and the command line before it."""

    def __init__(self, stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
        self.stage = stage
        services = FakeServices()
        services.client = ANNA
        services.approvals = stage.approvals
        services.overrides = stage.overrides
        super().__init__(services, capfd)


@pytest.fixture
def house(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[House]:
    store = SqliteStore(tmp_path / "state.db")
    house = House(Stage(store), capfd)
    monkeypatch.setattr(verbs, "admin_of", house.admin)
    monkeypatch.setattr(override_verbs, "admin_of", house.admin)
    yield house
    store.close()


# ---- questions ------------------------------------------------------------------------------------------


def test_a_list_has_a_line_for_each_requester_and_action_before_single_questions(house: House) -> None:
    for number in range(9):
        house.stage.core.ask(f"flood-{number}", requester=OTHER)
    house.stage.core.ask(ID)
    out = house.said("approvals", "list")
    lines = out.splitlines()
    assert lines[0].split()[:4] == ["requester", "action", "task", "questions"]
    assert lines[1].split()[:4] == [OTHER, "transfer.create", "t1", "9"]
    assert lines[2].split()[:4] == [AGENT, "transfer.create", "t1", "1"]
    assert sum(line.startswith("flood-") for line in lines) == 3
    assert any(line.startswith(ID) and "moves money" in line and "0/1" in line for line in lines)
    assert lines[-1] == "… and 6 more: see --requester and --limit"
    assert house.said("approvals", "list", "--requester", OTHER).count("\nflood-") == 9


def test_nothing_to_approve_is_said(house: House) -> None:
    assert house.said("approvals", "list") == "no pending questions\n"
    assert house.said("approvals", "list", "--state", "all") == "no questions\n"
    assert json.loads(house.said("approvals", "list", "--json"))["count"] == 0


def test_a_question_is_shown_in_words_with_all_that_a_yes_is_bound_to(house: House) -> None:
    house.stage.core.ask(ID, actor="spiffe://prod.example/orchestrator", need=2, approved_by=[BEN])
    out = house.said("approvals", "show", ID)
    for told in (
        f'may {AGENT}, for which spiffe://prod.example/orchestrator acts, do transfer.create with Account::"42", once?',
        "moves money",
        "POST payments.prod.example/v1/accounts/42/transfers?token=hush",
        "amount = 1250",
        f"SHA-256 {'ab' * 32}",
        "gate",
        f"{BEN} (2 needed)",
        "pending",
    ):
        assert told in out
    assert json.loads(house.said("approvals", "show", ID, "--json"))["approval_id"] == ID


def test_answers_are_given_with_a_comment(house: House) -> None:
    house.stage.core.ask(ID, need=2)
    house.stage.core.ask("other")
    said = house.said("approvals", "approve", ID, "--comment", "looks right")
    assert said == f"{ID} is pending, 1 of 2 have said yes\n"
    house.services.client = BEN
    assert house.said("approvals", "approve", ID) == f"{ID} is approved\n"
    assert house.said("approvals", "deny", "other", "--comment", "no") == "other is denied\n"
    answered = house.stage.records("approval_answered")
    assert [(record["actor"], record["comment"]) for record in answered] == [
        (ANNA, "looks right"), (BEN, ""), (BEN, "no"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("approve", "none"), "approval_unknown"),
        (("deny", "../../signals"), "not_found"),
        (("show", ".."), "approval_unknown"),
        (("show", "a?b"), "approval_unknown"),
        (("approve", ID), "own_approval"),
        (("list", "--state", "open"), "malformed"),
        (("approve", ID, "--comment", "a\x1b[2J"), "malformed"),
    ],
)
def test_a_refusal_is_one_sentence_with_its_reason(
    house: House, arguments: tuple[str, ...], reason: str
) -> None:
    house.stage.core.ask(ID, requester=ANNA)
    status, out, err = house.run("approvals", *arguments)
    assert (status, out) == (2, "")
    assert f"(`{reason}`, " in err
    assert err.count("\n") == 1


def test_nothing_that_a_terminal_obeys_is_printed(house: House) -> None:
    house.stage.core.ask(ID, words=["a\x1b[2Jb"], resource='Account::"\x1b]0;x\x07"', comment="\x9b31m")
    for verb in (("list",), ("show", ID)):
        out = house.said("approvals", *verb)
        assert not set(out) & {"\x1b", "\x07", "\x9b"}


# ---- watching -------------------------------------------------------------------------------------------


def answer(house: House) -> dict[str, Any]:
    return json.loads(house.stage.approvals.listing("pending", None, 1_000))  # type: ignore[no-any-return]


def test_news_are_told_once_and_a_flood_in_one_line_at_a_time(house: House) -> None:
    news = News()
    house.stage.core.ask(ID)
    (line,) = news.of(answer(house), 0)
    assert line.text.startswith(f"{ID}  {AGENT} asks for transfer.create with Account::")
    assert news.of(answer(house), 1) == []
    told = 0
    for number in range(1_000):
        house.stage.core.ask(f"flood-{number:04}", requester=OTHER)
        told += len(news.of(answer(house), 2 + number / 100))
    assert told <= 4, "three questions, and one line for all that follow"
    (line,) = news.of(answer(house), 13 + QUIET_S)
    assert line.text.startswith(f"{OTHER} asks 1000 times for transfer.create")
    house.stage.answer(ANNA, ID)
    (line,) = news.of(answer(house), 60)
    assert line.text == f"{ID}  is answered or over"
    house.stage.core.questions.clear()
    assert len(news.of(answer(house), 61)) == 3
    assert news.of(answer(house), 62) == []


class Enough(KeyboardInterrupt):
    """Ends a watch as Ctrl-C does."""


def test_watching_asks_at_a_bounded_rate_bears_a_server_that_is_gone_and_ends_with_a_refusal(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    gone = [False, True, True, True, True, True, True, True, False, False]
    looks: Callable[..., Any] = AdminClient.approvals

    def look(self: AdminClient, *arguments: Any) -> Any:
        if gone.pop(0):
            raise UnreachableError("no server answers at `127.0.0.1:1`")
        return looks(self, *arguments)

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if not gone:
            house.services.may = frozenset()
            gone.append(False)

    monkeypatch.setattr(AdminClient, "approvals", look)
    monkeypatch.setattr(time, "sleep", sleep)
    house.stage.core.ask(ID)
    status, out, err = house.run("approvals", "watch")
    assert status == 2
    assert out.splitlines() == [line for line in out.splitlines() if line.startswith(ID)]
    assert len(out.splitlines()) == 1
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30, 1, 1]
    gone_once, back, refused = err.splitlines()
    assert gone_once.endswith("no server answers at `127.0.0.1:1`; trying again")
    assert back.endswith("the server answers again")
    assert "`right_missing`" in refused


def test_watching_ends_with_ctrl_c(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep(_: float) -> None:
        raise Enough

    monkeypatch.setattr(time, "sleep", sleep)
    house.stage.core.ask(ID)
    status, out, err = house.run("approvals", "watch", "--json")
    assert (status, err) == (130, "")
    assert json.loads(out)["news"] == "asked"


# ---- overrides ------------------------------------------------------------------------------------------

OVERRIDE = (
    *("signals", "override", "posture", "--subject", AGENT, "--value", "ok"),
    *("--reason", "INC-7: the feed is down", "--ttl", "10m"),
)


def test_an_override_takes_two_that_say_the_same(house: House) -> None:
    assert house.said(*OVERRIDE).startswith(
        "proposed: another client must say the same before 2026-11-24T06:10:00"
    )
    status, _, err = house.run(*OVERRIDE)
    assert status == 2
    assert "`same_person`" in err
    house.services.client = CARL
    assert house.said(*OVERRIDE) == f"in force until 2026-11-24T06:10:00.000000Z, by {ANNA} and {CARL}\n"
    (_, row) = house.said("signals", "overrides").splitlines()
    assert row.split()[:5] == ["in", "force", "posture", AGENT, '"ok"']
    house.stage.later(600)
    assert house.said("signals", "overrides") == "nothing is overridden\n"


def test_a_value_is_json_or_text(house: House) -> None:
    def proposed() -> list[Any]:
        listed = json.loads(house.said("signals", "overrides", "--json"))
        return [entry["value"] for entry in listed["proposals"]]

    house.said(*OVERRIDE[:6], "4", *OVERRIDE[7:])
    house.said(*OVERRIDE[:6], "4", "--text", *OVERRIDE[7:])
    assert proposed() == [4, "4"]
    assert "proposed" in house.said("signals", "overrides")
