"""A clock that is set back gives nothing back: neither while the server runs nor over a restart, however far."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from signalwarden.app import App
from signalwarden.decision_log import now_us
from tests.conftest import Eventually
from tests.crashing import CLIENTS, POLICIES, ROUTES, SIGNALS, Callers

SECOND = 1_000_000
PAST_ITS_END, PAST_THE_ANSWER, BACK, HOURS = 130 * SECOND, 16 * 60 * SECOND, -600 * SECOND, 5 * 3600 * SECOND
TASKS = "tasks: {types: {t: {ttl: 2m}}}\n"


class Clock:
    """The system's, moved at will."""

    def __init__(self) -> None:
        self.offset = 0

    def __call__(self) -> int:
        return now_us() + self.offset


@pytest.fixture
def root(minimal_directory: Path) -> Path:
    settings = minimal_directory / "signalwarden.yaml"
    settings.write_text(settings.read_text() + TASKS + CLIENTS)
    (minimal_directory / "routes.yaml").write_text(ROUTES)
    (minimal_directory / "signals.yaml").write_text(SIGNALS)
    (minimal_directory / "policies/pages.cedar").write_text(POLICIES)
    return minimal_directory


@contextmanager
def running(root: Path, clock: Clock) -> Iterator[Callers]:
    app = App(root, clock)
    app.start()
    try:
        with grpc.insecure_channel(app.check_address) as channel:
            yield Callers(app, channel)
    finally:
        app.stop()


def test_a_grant_that_has_expired_stays_expired_when_the_clock_is_set_back(root: Path) -> None:
    clock = Clock()
    with running(root, clock) as callers:
        grant = callers.begin()["grant"]
        assert callers.read(grant) == "allowed"
        clock.offset = PAST_ITS_END
        # A check reads the system's clock, which is behind from here on. That the later time was seen is remembered.
        callers.begin()
        assert callers.read(grant) == "grant_expired"
        clock.offset = BACK
        callers.begin()
        assert callers.read(grant) == "grant_expired"
    with running(root, clock) as callers:
        assert callers.read(grant) == "grant_expired"
        assert callers.read(callers.begin()["grant"]) == "allowed", "what begins now counts from now"


def test_an_approval_that_has_expired_is_not_used_when_the_clock_is_set_back(root: Path) -> None:
    clock = Clock()
    with running(root, clock) as callers:
        asked = callers.transfer("late")[1]["approval_id"]
        callers.approve(asked)
        clock.offset = PAST_THE_ANSWER
        callers.begin()
        clock.offset = BACK
        assert callers.transfer("late", asked)[0] == "approval_expired"
    with running(root, clock) as callers:
        assert callers.transfer("late", asked)[0] == "approval_expired"


def set_backs(root: Path) -> int:
    lines = (root / "var/decisions.jsonl").read_text().splitlines()
    return sum(json.loads(line).get("change") == "time_set_back" for line in lines)


def test_what_was_given_out_before_the_clock_was_set_back_by_hours_has_ended_for_good(root: Path) -> None:
    clock = Clock()
    # Checks read the system's clock, so this is the one that is right later.
    clock.offset = HOURS
    with running(root, clock) as callers:
        grant = callers.begin()["grant"]
        answered, open_still = (callers.transfer(which)[1]["approval_id"] for which in ("yes", "open"))
        callers.approve(answered)
    # Neither has ended by the clock of then; by that of now both would live for hours more.
    clock.offset = 0
    for _ in range(2):
        with running(root, clock) as callers:
            assert callers.read(grant) == "grant_expired"
            assert callers.transfer("yes", answered)[0] == "approval_expired"
            assert callers.read(callers.begin()["grant"]) == "allowed", "what begins now counts"
            asked = callers.transfer("open")[1]["approval_id"]
            assert asked != open_still, "a call can be asked about anew"
            callers.approve(asked)
            assert callers.transfer("open")[0] == "allowed"
    assert set_backs(root) == 1
    clock.offset = HOURS
    with running(root, clock) as callers:
        assert callers.read(grant) == "grant_expired", "nor does it count when that clock comes back"
    assert set_backs(root) == 1


def test_a_clock_that_leaps_ahead_and_comes_back_revives_nothing(root: Path, eventually: Eventually) -> None:
    clock = Clock()
    with running(root, clock) as callers:
        before = callers.begin()["grant"]
        clock.offset = HOURS
        during = callers.begin()["grant"]
        clock.offset = 0
        eventually(lambda: set_backs(root) == 1)
        assert [callers.read(grant) for grant in (before, during)] == ["grant_expired"] * 2
        assert callers.read(callers.begin()["grant"]) == "allowed"
