"""A clock that is set back gives nothing back: neither while the server runs nor over a restart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from signalwarden.app import App
from signalwarden.decision_log import now_us
from tests.crashing import CLIENTS, POLICIES, ROUTES, Callers

SECOND = 1_000_000
PAST_ITS_END, PAST_THE_ANSWER, BACK = 130 * SECOND, 16 * 60 * SECOND, -600 * SECOND
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
