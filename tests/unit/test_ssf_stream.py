"""`signals.ssf.stream`: what one SET changes, in the real core and store, and what it must not."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signalwarden.errors import KeySetError, StateError
from signalwarden.keysets import KeySet
from signalwarden.signals.ssf.events import STREAM_UPDATED
from signalwarden.signals.ssf.set import ErrorCode, SetRefusedError, Verifier
from signalwarden.signals.ssf.stream import MAX_REMEMBERED, SAY_AGAIN_S, Outcome
from tests.receiving import HOUR, NOW, RETENTION, World, device
from tests.transmitter import AUDIENCE, CAEP, ISSUER, Key, Transmitter


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


# ---- values -----------------------------------------------------------------------------------------------


def test_an_event_becomes_a_value_that_survives_a_restart(world: World) -> None:
    assert world.stream.take(world.compliance("not-compliant")) is Outcome.ACCEPTED
    assert world.known() == {("device_ok", "d1"): ("fresh", False)}
    world.restart()
    assert world.known() == {("device_ok", "d1"): ("fresh", False)}
    assert world.live()["verified_at"] == "2025-11-24T16:00:00.000000Z"


def test_an_event_out_of_order_is_acknowledged_and_ignored(world: World) -> None:
    world.vouched()
    assert world.stream.take(world.compliance("not-compliant", at=NOW)) is Outcome.ACCEPTED
    assert world.stream.take(world.compliance("compliant", at=NOW - 10)) is Outcome.IGNORED
    assert world.known()["device_ok", "d1"] == ("fresh", False)
    assert world.live()["in_sync"] is True


def test_two_events_of_one_instant_that_differ_dispute_the_value(world: World) -> None:
    world.stream.take(world.compliance("not-compliant"))
    world.stream.take(world.compliance("compliant"))
    assert world.known()["device_ok", "d1"][0] == "disputed"
    world.now += 1
    world.stream.take(world.compliance("compliant"))
    assert world.known()["device_ok", "d1"] == ("fresh", True)


def test_a_set_that_comes_again_changes_nothing(world: World) -> None:
    first, second = world.compliance("not-compliant"), world.compliance("compliant", at=NOW + 1)
    world.stream.take(first)
    world.now += 1
    world.stream.take(second)
    before = world.everything()
    assert world.stream.take(first) is Outcome.DUPLICATE
    assert world.stream.take(second) is Outcome.DUPLICATE
    assert world.everything() == before


def test_a_replay_that_is_no_longer_remembered_changes_nothing_either(world: World) -> None:
    first, second = world.compliance("not-compliant"), world.compliance("compliant", at=NOW + 1)
    for raw in (first, second):
        world.stream.take(raw)
        world.now += 1
    world.now += HOUR
    world.restart()
    before = world.known(), world.live()
    assert world.stream.take(first) is Outcome.IGNORED
    assert world.stream.take(second) is Outcome.ACCEPTED
    assert (world.known(), world.live()) == before
    assert world.known()["device_ok", "d1"] == ("stale", True)


def test_what_is_remembered_is_bounded(world: World) -> None:
    for at in range(MAX_REMEMBERED + 10):
        world.stream._remember(at.to_bytes(32))
    assert len(world.stream._seen) == MAX_REMEMBERED


def test_everyone_of_the_tenant_is_told_at_once(world: World) -> None:
    tenant = {"format": "complex", "tenant": {"format": "opaque", "id": "T-1"}}
    assert world.stream.take(world.event("session-revoked", tenant)) is Outcome.ACCEPTED
    assert world.known()["device_ok", "*"] == ("fresh", False)


def test_an_event_about_another_tenant_concerns_nobody_here(world: World) -> None:
    world.vouched()
    other = device("d1", tenant={"format": "opaque", "id": "T-2"})
    assert world.stream.take(world.event("session-revoked", other)) is Outcome.IGNORED
    assert world.known() == {}
    assert world.live()["in_sync"] is True


def test_an_event_that_no_contract_maps_is_acknowledged_and_verifies_the_stream(world: World) -> None:
    world.vouched()
    world.now += 60
    assert world.stream.take(world.event("credential-change", change_type="revoke")) is Outcome.IGNORED
    assert (world.live()["verified_at"], world.live()["in_sync"]) == ("2025-11-24T16:01:00.000000Z", True)


# ---- the stream -------------------------------------------------------------------------------------------


def test_a_stream_that_nobody_vouched_for_is_not_in_sync(world: World) -> None:
    world.stream.take(world.transmitter.verification(NOW))
    assert world.live()["in_sync"] is False
    world.vouched()
    assert world.live()["in_sync"] is True


def test_a_stream_is_verified_by_its_own_clock_and_never_in_the_future(world: World) -> None:
    world.stream.take(world.transmitter.verification(NOW - 30))
    assert world.live()["verified_at"] == "2025-11-24T15:59:30.000000Z"
    world.stream.take(world.transmitter.verification(NOW + 3))
    assert world.live()["verified_at"] == "2025-11-24T16:00:00.000000Z"
    world.stream.take(world.transmitter.verification(NOW - 10))
    assert world.live()["verified_at"] == "2025-11-24T16:00:00.000000Z"


UNPROCESSED: dict[str, Callable[[World], bytes]] = {
    "a claim that is missing": lambda w: w.event("device-compliance-change"),
    "a claim without a value": lambda w: w.event("device-compliance-change", current_status="unsure"),
    "a subject that the contract can't write": lambda w: w.event(
        "session-revoked", {"format": "email", "email": ""}
    ),
    "no subject": lambda w: w.transmitter.sign(
        w.transmitter.claims(NOW, {CAEP + "session-revoked": {}}, None)
    ),
    "a part of the devices": lambda w: w.event(
        "session-revoked", {"format": "complex", "user": device("u")["device"]}
    ),
    "a critical member": lambda w: w.event(
        "session-revoked", device("d1", application={"format": "opaque", "id": "a"})
    ),
    "a time in milliseconds": lambda w: w.event("session-revoked", event_timestamp=NOW * 1_000),
    "a time in the future": lambda w: w.event("session-revoked", event_timestamp=NOW + 60),
    "a value of another type": lambda w: w.event("https://idp.example/level", level="high"),
    "a value that is too large": lambda w: w.event("https://idp.example/level", level="x" * 5_000),
    "a stream that is paused": lambda w: w.transmitter.event(
        NOW, STREAM_UPDATED, device("s"), status="paused"
    ),
    "a stream that is disabled": lambda w: w.transmitter.event(
        NOW, STREAM_UPDATED, device("s"), status="disabled"
    ),
}


@pytest.mark.parametrize("name", UNPROCESSED)
def test_an_event_that_is_not_understood_suspends_the_stream_and_is_acknowledged(
    world: World, name: str
) -> None:
    world.vouched()
    raw = UNPROCESSED[name](world)
    assert world.stream.take(raw) is Outcome.UNPROCESSED
    assert world.known() == {}
    assert world.live()["in_sync"] is False
    assert [feed for feed, _ in world.notes] == ["idp"]
    assert world.live()["suspended"] == world.notes[0][1]
    world.restart()
    assert world.live()["in_sync"] is False
    world.vouched()
    assert world.live()["in_sync"] is True


def test_a_suspended_stream_keeps_its_first_reason(world: World) -> None:
    world.vouched()
    world.stream.take(world.event("device-compliance-change"))
    first = world.live()["suspended"]
    world.stream.take(world.event("session-revoked", event_timestamp=NOW + 60))
    assert world.live()["suspended"] == first
    assert len(world.notes) == 1


def test_of_a_full_store_nothing_is_dropped_in_silence(tmp_path: Path) -> None:
    world = World(tmp_path, max_live=1)
    world.vouched()
    assert world.stream.take(world.compliance("not-compliant", name="d1")) is Outcome.ACCEPTED
    assert world.stream.take(world.compliance("not-compliant", name="d2")) is Outcome.UNPROCESSED
    assert "too_many" in world.live()["suspended"]
    world.now += 1
    assert world.stream.take(world.compliance("compliant", name="d1")) is Outcome.ACCEPTED
    world.store.close()


def test_a_silence_longer_than_the_transmitter_keeps_events_is_a_gap(world: World) -> None:
    world.vouched()
    world.now += RETENTION
    assert world.stream.take(world.transmitter.verification(world.now)) is Outcome.ACCEPTED
    assert world.live()["in_sync"] is True
    world.now += RETENTION + 1
    assert world.stream.take(world.compliance("compliant")) is Outcome.ACCEPTED
    assert world.live()["in_sync"] is False
    assert "nothing was heard" in world.live()["suspended"]
    assert world.known()["device_ok", "d1"] == ("fresh", True)


def test_a_gap_is_seen_over_a_restart(world: World) -> None:
    world.vouched()
    world.now += RETENTION + 1
    world.restart()
    world.stream.take(world.transmitter.verification(world.now))
    assert world.live()["in_sync"] is False


def test_a_stream_that_was_vouched_for_after_a_silence_stays_in_sync(world: World) -> None:
    world.vouched()
    world.now += 10 * RETENTION
    world.stream.resynchronise("spiffe://prod.example/operator")
    world.stream.take(world.transmitter.verification(world.now))
    assert world.live()["in_sync"] is True


def test_a_stream_that_was_vouched_for_after_a_silence_stays_in_sync_over_a_restart(world: World) -> None:
    world.vouched()
    world.now += 10 * RETENTION
    world.stream.resynchronise("spiffe://prod.example/operator")
    world.restart()
    world.stream.take(world.transmitter.verification(world.now))
    assert world.live()["in_sync"] is True


def test_a_transmitter_that_was_asked_and_had_nothing_leaves_no_gap(world: World) -> None:
    world.vouched()
    for _ in range(4):
        world.now += RETENTION // 2
        world.stream.heard()
    verified_at = world.live()["verified_at"]
    assert world.live()["in_sync"] is True
    world.now += RETENTION + 1
    world.stream.heard()
    assert world.live()["in_sync"] is False
    assert world.live()["verified_at"] == verified_at, "what is not signed verifies nothing"


def test_a_replay_fills_no_gap(world: World) -> None:
    world.vouched()
    old = world.compliance("compliant")
    world.stream.take(old)
    world.stream._seen.clear()
    world.now += RETENTION - 10
    world.stream.take(old)
    world.now += 20
    world.stream.take(world.transmitter.verification(world.now))
    assert world.live()["in_sync"] is False


# ---- what is refused --------------------------------------------------------------------------------------

POISONED: dict[str, tuple[Callable[[World], bytes], ErrorCode]] = {
    "no token": (lambda w: b"poison", ErrorCode.INVALID_REQUEST),
    "somebody else's key": (
        lambda w: w.transmitter.sign(
            w.transmitter.claims(NOW, {CAEP + "session-revoked": {}}, device("d1")), key=Key.make("ES256")
        ),
        ErrorCode.AUTHENTICATION_FAILED,
    ),
    "another issuer": (
        lambda w: Transmitter(w.transmitter.key, issuer="https://evil.example").event(
            NOW, "session-revoked", device("d1")
        ),
        ErrorCode.INVALID_ISSUER,
    ),
    "another audience": (
        lambda w: Transmitter(w.transmitter.key, audience="https://evil.example").event(
            NOW, "session-revoked", device("d1")
        ),
        ErrorCode.INVALID_AUDIENCE,
    ),
    "a token with sub": (
        lambda w: w.transmitter.sign(
            w.transmitter.claims(NOW, {CAEP + "session-revoked": {}}, device("d1"), sub="d1")
        ),
        ErrorCode.INVALID_REQUEST,
    ),
    "a token that expires": (
        lambda w: w.transmitter.sign(
            w.transmitter.claims(NOW, {CAEP + "session-revoked": {}}, device("d1"), exp=NOW + 60)
        ),
        ErrorCode.INVALID_REQUEST,
    ),
    "another kind of token": (
        lambda w: w.transmitter.sign(
            w.transmitter.claims(NOW, {CAEP + "session-revoked": {}}, device("d1")), typ="JWT"
        ),
        ErrorCode.INVALID_REQUEST,
    ),
}


@pytest.mark.parametrize("name", POISONED)
def test_a_poisoned_set_changes_nothing(world: World, name: str) -> None:
    world.vouched()
    world.stream.take(world.compliance("compliant"))
    before = world.everything()
    make, code = POISONED[name]
    raw = make(world)
    for _ in range(2):
        with pytest.raises(SetRefusedError) as refused:
            world.stream.take(raw)
        assert refused.value.code is code
    assert world.everything() == before
    assert world.stream.counts()[f"refused_{code}"] == 2


def test_a_malformed_set_that_the_transmitter_signed_is_refused_and_suspends_the_stream(world: World) -> None:
    world.vouched()
    claims = world.transmitter.claims(NOW, {CAEP + "session-revoked": {}}, device("d1"), jti=None)
    claims.pop("jti", None)
    with pytest.raises(SetRefusedError):
        world.stream.take(world.transmitter.sign(claims))
    assert world.known() == {}
    assert world.live()["in_sync"] is False


def test_a_set_sent_under_another_name_is_refused(world: World) -> None:
    with pytest.raises(SetRefusedError, match="another `jti`"):
        world.stream.take(world.compliance("compliant"), jti="other")
    assert world.known() == {}


@settings(max_examples=25, deadline=None)
@given(
    order=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40), st.booleans()), min_size=1, max_size=8),
    again=st.randoms(use_true_random=False),
)
def test_whatever_was_taken_changes_nothing_when_it_is_replayed_after_a_restart(
    order: list[tuple[int, int, bool]], again: Random
) -> None:
    with TemporaryDirectory() as folder:
        world = World(Path(folder)).vouched()
        sent = []
        for name, ago, good in order:
            status = "compliant" if good else "not-compliant"
            sent.append(world.compliance(status, name=f"d{name}", at=world.now - ago))
            world.stream.take(sent[-1])
            world.now += 1
        world.restart()
        before = world.known(), world.live()
        again.shuffle(sent)
        for raw in sent:
            world.stream.take(raw)
        assert (world.known(), world.live()) == before
        world.store.close()


# ---- what must come again ---------------------------------------------------------------------------------


def test_a_set_that_cannot_be_kept_is_not_acknowledged_and_taken_when_it_comes_again(world: World) -> None:
    raw = world.compliance("not-compliant")
    world.broken = True
    with pytest.raises(StateError):
        world.stream.take(raw)
    assert world.known() == {}
    world.broken = False
    assert world.stream.take(raw) is Outcome.ACCEPTED
    assert world.known() == {("device_ok", "d1"): ("fresh", False)}


def test_a_set_whose_key_cannot_be_had_is_not_acknowledged(world: World, tmp_path: Path) -> None:
    def gone() -> bytes:
        raise KeySetError("the key set can't be fetched: nobody answers")

    world.stream._verifier = Verifier(ISSUER, AUDIENCE, KeySet(gone, refresh_s=600))
    with pytest.raises(KeySetError, match="nobody answers"):
        world.stream.take(world.compliance("not-compliant"))


def test_a_closed_stream_takes_nothing(world: World) -> None:
    world.stream.close()
    with pytest.raises(StateError):
        world.stream.take(world.compliance("not-compliant"))
    world.stream.open()
    assert world.stream.take(world.compliance("not-compliant")) is Outcome.ACCEPTED


def test_one_set_from_many_sides_at_once_is_taken_once(world: World) -> None:
    raw = world.compliance("not-compliant")
    outcomes: list[str] = []
    threads = [threading.Thread(target=lambda: outcomes.append(world.stream.take(raw))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(outcomes) == ["accepted", *["duplicate"] * 7]


# ---- what is said -----------------------------------------------------------------------------------------


def test_the_log_says_a_thing_once_and_nothing_of_what_a_set_holds(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    planted = "planted-7f3a"
    claims = world.transmitter.claims(
        NOW,
        {CAEP + "device-compliance-change": {"current_status": planted, planted: planted}},
        device(planted, **{planted: {"format": planted}}),
        jti="line\nbreak",
    )
    with caplog.at_level(logging.DEBUG):
        for at in range(50):
            world.stream.take(world.transmitter.sign(claims | {"jti": f"line\nbreak {at}"}))
            with pytest.raises(SetRefusedError):
                world.stream.take(world.transmitter.sign(claims | {"exp": planted, "jti": planted}))
    lines = [record.getMessage() for record in caplog.records if record.name == "signalwarden.ssf"]
    assert len(lines) == 2
    assert all(planted not in line and "\n" not in line for line in lines)
    assert SAY_AGAIN_S >= 1


def test_every_outcome_is_counted(world: World) -> None:
    raw = world.compliance("compliant")
    for _ in range(3):
        world.stream.take(raw)
    world.stream.take(world.event("credential-change"))
    world.stream.take(world.event("device-compliance-change"))
    with pytest.raises(SetRefusedError):
        world.stream.take(b"poison")
    assert world.stream.counts() == {
        "accepted": 1,
        "duplicate": 2,
        "ignored": 1,
        "unprocessed": 1,
        "refused_invalid_request": 1,
    }
