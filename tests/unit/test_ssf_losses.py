"""`signals.ssf`: a revoked session ends what its principal was given, in the real core and store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from signalwarden.errors import StateError
from signalwarden.signals.ssf.events import CAEP, Loss, contracts_of, read_events
from signalwarden.signals.ssf.set import SecurityEventToken
from signalwarden.signals.ssf.stream import Outcome
from signalwarden.signals.ssf.subjects import Rules
from tests import receiving
from tests.receiving import NOW, World
from tests.transmitter import ISSUER

AGENT, OTHER = "spiffe://prod.example/agent", "spiffe://prod.example/other"
CONTRACT = """\
  session_good:
    type: bool
    description: Whether the session still stands
    owner: team-identity@prod.example
    purpose: Keep out whose session was revoked
    subject: principal
    sources:
      - kind: ssf
        feed: idp
        assurance: sourced
        events: {session-revoked: {value: false}, session-established: {value: true}}
    max_age: 1h
    influence: grant
    used_by: [page.read]
    review_by: 2099-01-01
"""
WHOLE = {"format": "complex", "tenant": {"format": "opaque", "id": "T-1"}}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(receiving, "REGISTER", receiving.REGISTER + CONTRACT)
    made = World(tmp_path)
    yield made
    made.store.close()


def workload(name: str) -> dict[str, str]:
    return {"format": "uri", "uri": name}


def losses(world: World) -> dict[str, int]:
    """Up to when each principal's tasks have ended, as it is kept."""
    kept = [json.loads(change.payload) for change in world.store.read_all()]
    return {one["principal"]: one["at_us"] for one in kept if one["change"] == "standing_lost"}


# ---- reading ----------------------------------------------------------------------------------------------


def read(events: dict[str, Any], *, subject: str = "principal", uri: str = AGENT) -> tuple[Loss, ...]:
    source = {
        "kind": "ssf",
        "feed": "idp",
        "subject": {"member": "user", "as": "{id}"},
        "events": {"session-revoked": {"value": False}, "credential-change": {"claim": "c", "values": {}}},
    }
    contracts = contracts_of([{"name": "s", "subject": subject, "sources": [source]}], "idp")
    token = SecurityEventToken("j", NOW * 1_000_000, workload(uri), events)
    return read_events(token, contracts, Rules(ISSUER, {}, frozenset())).losses


def test_a_whole_second_is_its_end_and_a_finer_time_is_itself() -> None:
    revoked = CAEP + "session-revoked"
    assert read({revoked: {"event_timestamp": 10}}) == (Loss(AGENT, 10_999_999),)
    assert read({revoked: {"event_timestamp": 10.25}}) == (Loss(AGENT, 10_250_000),)
    assert read({revoked: {}}) == (Loss(AGENT, NOW * 1_000_000 + 999_999),)


def test_only_a_revoked_session_of_a_principal_ends_anything() -> None:
    revoked: dict[str, Any] = {CAEP + "session-revoked": {}}
    assert read({CAEP + "credential-change": {}}) == ()
    assert read(revoked, subject="device") == ()
    assert read(revoked, uri="https://prod.example/agent") == ()
    assert read({CAEP + "session-revoked": {"event_timestamp": "now"}}) == ()


def test_it_ends_whatever_else_the_set_says() -> None:
    assert [
        loss.principal for loss in read({CAEP + "session-revoked": {}, CAEP + "credential-change": {}})
    ] == [AGENT]


# ---- keeping ----------------------------------------------------------------------------------------------


def test_value_and_loss_are_kept_in_one_write_and_recorded(world: World) -> None:
    writes: list[list[str]] = []
    append = world.store.append
    world.store.append = lambda changes: (writes.append([one.key for one in changes]), append(changes))[1]  # type: ignore[method-assign,func-returns-value]
    revoked = world.event("session-revoked", workload(AGENT), event_timestamp=NOW - 10)
    assert world.stream.take(revoked) is Outcome.ACCEPTED
    (write,) = writes
    assert f"standing {AGENT}" in write
    assert any("session_good" in key for key in write)
    assert losses(world) == {AGENT: (NOW - 10) * 1_000_000 + 999_999}
    assert world.changes == [
        {
            "change": "standing_lost",
            "principal": AGENT,
            "at": "2025-11-24T15:59:50.999999Z",
            "detail": "session revoked, says the feed `idp`",
        }
    ]
    assert world.stream.take(revoked) is Outcome.DUPLICATE
    assert len(world.changes) == len(writes) == 1


def test_a_session_that_is_established_ends_nothing(world: World) -> None:
    world.stream.take(world.event("session-established", workload(AGENT)))
    assert (losses(world), world.changes) == ({}, [])


def test_one_that_comes_late_still_ends_what_was_given_before(world: World) -> None:
    world.stream.take(world.event("session-established", workload(AGENT), event_timestamp=NOW))
    late = world.event("session-revoked", workload(AGENT), event_timestamp=NOW - 60)
    world.stream.take(late)
    assert losses(world) == {AGENT: (NOW - 60) * 1_000_000 + 999_999}
    assert world.known()["session_good", AGENT] == ("fresh", True)


def test_one_that_comes_late_takes_nothing_back_of_a_later_one(world: World) -> None:
    for at in (NOW - 5, NOW - 60):
        world.stream.take(world.event("session-revoked", workload(AGENT), event_timestamp=at))
        assert losses(world) == {AGENT: (NOW - 5) * 1_000_000 + 999_999}
        world.restart()


def test_nobody_is_locked_out_of_the_future(world: World) -> None:
    world.stream.take(world.event("session-revoked", workload(AGENT), event_timestamp=NOW + 3_600))
    assert losses(world) == {AGENT: NOW * 1_000_000}


def test_what_can_t_be_kept_ends_nothing_and_comes_again(world: World) -> None:
    world.broken = True
    revoked = world.event("session-revoked", workload(AGENT))
    with pytest.raises(StateError):
        world.stream.take(revoked)
    assert (losses(world), world.changes) == ({}, [])
    world.broken = False
    assert world.stream.take(revoked) is Outcome.ACCEPTED
    assert {*losses(world)} == {AGENT}


def test_when_every_session_is_revoked_whoever_holds_a_task_loses_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = {"tasks": [{"principal": AGENT}, {"principal": OTHER}, {"principal": AGENT}]}
    engine = world.engine

    class Holding:
        def tasks(self, **_: int) -> bytes:
            return json.dumps(held).encode()

        def __getattr__(self, name: str) -> Any:
            return getattr(engine, name)

    monkeypatch.setattr(world.stream, "_core", Holding())
    world.stream.take(world.event("session-revoked", WHOLE))
    assert {*losses(world)} == {AGENT, OTHER}


def test_a_loss_is_forgotten_once_it_says_nothing_any_more(world: World) -> None:
    world.stream.take(world.event("session-revoked", workload(AGENT)))
    assert world.engine.expired(limit=10, now_us=world.clock()) == []
    world.now += 24 * 3_600 + 1
    keys = world.engine.expired(limit=10, now_us=world.clock())
    assert keys == [f"standing {AGENT}"]
    world.store.forget(keys)
    world.engine.forget(keys)
    assert losses(world) == {}
    assert world.engine.expired(limit=10, now_us=world.clock()) == []
