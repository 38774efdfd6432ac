"""`signals.ssf.basis`: a resting value counts for contracts that somebody vouched for, and no others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from signalwarden.signals.ssf.basis import digests
from tests.receiving import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


def test_a_contract_that_nobody_vouched_for_suspends_the_stream(world: World) -> None:
    world.vouched()
    world.restart()
    assert world.live()["in_sync"] is True
    for contracts in ({"device_ok": "digest", "new": "1"}, {"device_ok": "another"}, {"new": "1"}):
        world.contracts = contracts
        world.restart()
        assert world.live()["in_sync"] is False, contracts
        assert "as it now stands" in world.live()["suspended"]
        world.vouched()
        world.restart()
        assert world.live()["in_sync"] is True


def test_a_contract_that_goes_and_comes_back_has_missed_something(world: World) -> None:
    world.vouched()
    for contracts, in_sync in (({}, True), ({"device_ok": "digest"}, False)):
        world.contracts = contracts
        world.restart()
        assert world.live()["in_sync"] is in_sync


@pytest.mark.parametrize("damage", [b"{}", b"[]", b"null"])
def test_a_state_whose_basis_is_lost_was_not_vouched_for(world: World, damage: bytes) -> None:
    world.vouched()
    assert world.store.kept("stream:idp") == b'{"device_ok":"digest"}'
    world.store.keep("stream:idp", damage)
    world.restart()
    assert world.live()["in_sync"] is False


def test_a_basis_is_about_what_decides_and_nothing_else() -> None:
    def of(*shared: object, **changed: Any) -> dict[str, str]:
        source = {
            "kind": "ssf",
            "feed": "idp",
            "subject": {},
            "events": {},
            "while_live": True,
            "assurance": "sourced",
        }
        signal = {"name": "s", "subject": "device", "description": "x", "sources": [source | changed]}
        return digests([signal], "idp", *shared)

    assert of() == of(while_live=False) == of(assurance="authoritative")
    assert of() != of(events={"urn:x": {"value": True}})
    assert of() != of(subject={"member": "user"})
    assert of() != of("another issuer")
    assert of(feed="other") == {}
