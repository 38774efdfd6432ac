"""`intake`: kept before taken in, taken in before answered, one transaction for all that wait, and bounds."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from signalwarden import intake as module
from signalwarden._core import Admission, StoredChange
from signalwarden.errors import BadInputError, RateLimitedError, StateError
from signalwarden.intake import MAX_GROUP, Intake
from signalwarden.rates import MAX_BUCKETS, MIN_BURST, Rates
from signalwarden.state import SqliteStore, Store

TIMEOUT_S = 10.0
WHO = "spiffe://prod.example/mdm"


@dataclass
class Judged:
    """As the core's Admission."""

    answer: bytes = b""
    accepted: int = 0
    rejected: list[tuple[int, str, str]] = field(default_factory=list)
    changes: list[StoredChange] = field(default_factory=list)
    error: str | None = None


class Core:
    """Takes bodies that are lists of `[key, value]`; writes down the order of what happens."""

    def __init__(self, told: list[str]) -> None:
        self.told = told
        self.live: dict[str, bytes] = {}

    def admit_all(self, batches: Sequence[tuple[bytes, str]], *, now_us: int) -> list[Admission]:
        self.told.append(f"judge {len(batches)}")
        return [cast("Admission", self._one(body, origin)) for body, origin in batches]

    def _one(self, body: bytes, origin: str) -> Judged:
        try:
            pairs = json.loads(body)
        except ValueError:
            return Judged(error="the body is not JSON")
        changes = [StoredChange(key, True, json.dumps(value).encode()) for key, value in pairs]
        return Judged(f"{origin} {len(pairs)}".encode(), accepted=len(pairs), changes=changes)

    def apply(self, changes: Sequence[StoredChange], *, now_us: int) -> None:
        self.told.append(f"apply {len(changes)}")
        self.live.update((change.key, change.payload) for change in changes)


class Disk:
    """A store in memory that can be held, and can fail."""

    def __init__(self, told: list[str]) -> None:
        self.told = told
        self.kept: list[StoredChange] = []
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Event()
        self.full = False

    def append(self, changes: Sequence[StoredChange]) -> None:
        self.entered.set()
        assert self.go.wait(TIMEOUT_S)
        self.told.append(f"keep {len(changes)}")
        if self.full:
            raise StateError("the disk is full")
        self.kept += changes

    def read_all(self) -> Any:
        return iter(self.kept)

    def close(self) -> None: ...


@dataclass
class Stage:
    intake: Intake
    core: Core
    disk: Disk
    told: list[str]
    failures: list[None]

    def while_the_disk_is_held(self, *bodies: bytes) -> list[Any]:
        """Publishes one batch, and the bodies while that one waits for the disk; the results of those."""
        self.disk.entered.clear()
        self.disk.go.clear()
        with ThreadPoolExecutor(len(bodies) + 1) as pool:
            pool.submit(self.intake.publish, b"[]" if self.disk.full else b'[["first", 0]]', WHO)
            assert self.disk.entered.wait(TIMEOUT_S)
            results = [pool.submit(self.intake.publish, body, f"{WHO}/{n}") for n, body in enumerate(bodies)]
            until(lambda: self.intake.counters()["intake_waiting"] == len(bodies))
            self.disk.go.set()
            return [future.exception(TIMEOUT_S) or future.result() for future in results]


def until(holds: Callable[[], bool]) -> None:
    for _ in range(2_000):
        if holds():
            return
        threading.Event().wait(0.005)
    pytest.fail("it did not come to hold")


@pytest.fixture
def stage() -> Stage:
    told: list[str] = []
    failures: list[None] = []
    core, disk = Core(told), Disk(told)
    made = Intake(
        core,
        cast("Store", disk),
        clock=lambda: 7,
        max_rate=1_000_000,
        on_failure=lambda: failures.append(None),
    )
    return Stage(made, core, disk, told, failures)


def test_a_batch_is_judged_kept_and_taken_in_before_it_is_answered(stage: Stage) -> None:
    assert stage.intake.publish(b'[["a", 1], ["b", 2]]', WHO) == f"{WHO} 2".encode()
    assert stage.told == ["judge 1", "keep 2", "apply 2"]


def test_a_batch_that_changes_nothing_touches_no_disk(stage: Stage) -> None:
    assert stage.intake.publish(b"[]", WHO) == f"{WHO} 0".encode()
    assert stage.told == ["judge 1"]


def test_what_waits_together_is_written_together_and_answered_each_in_its_own_words(stage: Stage) -> None:
    answers = stage.while_the_disk_is_held(*(b'[["k%d", %d]]' % (n, n) for n in range(5)))
    assert answers == [f"{WHO}/{n} 1".encode() for n in range(5)]
    assert stage.told == ["judge 1", "keep 1", "apply 1", "judge 5", "keep 5", "apply 5"]
    assert stage.intake.counters() == {
        "intake_groups": 2,
        "intake_batches": 6,
        "rate_limited": 0,
        "intake_waiting": 0,
    }


def test_a_bad_body_is_its_own_callers_mistake_alone(stage: Stage) -> None:
    good, bad, other = stage.while_the_disk_is_held(b'[["a", 1]]', b"{", b'[["b", 2]]')
    assert (good, other) == (f"{WHO}/0 1".encode(), f"{WHO}/2 1".encode())
    assert isinstance(bad, BadInputError)
    assert stage.core.live.keys() == {"first", "a", "b"}


def test_a_publisher_that_is_none_costs_nobody_else_his_batch(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = stage.core.admit_all

    def picky(batches: Sequence[tuple[bytes, str]], *, now_us: int) -> list[Admission]:
        if any(origin == f"{WHO}/1" for _, origin in batches):
            raise BadInputError("the publisher is no SPIFFE ID")
        return judge(batches, now_us=now_us)

    monkeypatch.setattr(stage.core, "admit_all", picky)
    first, second, third = stage.while_the_disk_is_held(b'[["a", 1]]', b'[["b", 2]]', b'[["c", 3]]')
    assert isinstance(second, BadInputError)
    assert (first, third) == (f"{WHO}/0 1".encode(), f"{WHO}/2 1".encode())
    assert stage.core.live.keys() == {"first", "a", "c"}


def test_a_failed_write_fails_the_whole_group_and_changes_nothing(stage: Stage) -> None:
    stage.disk.go.clear()
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(stage.intake.publish, b'[["first", 0]]', WHO)
        assert stage.disk.entered.wait(TIMEOUT_S)
        others = [pool.submit(stage.intake.publish, b'[["k", 1]]', WHO) for _ in range(3)]
        until(lambda: stage.intake.counters()["intake_waiting"] == 3)
        stage.disk.full = True
        stage.disk.go.set()
        errors = [future.exception(TIMEOUT_S) for future in (first, *others)]
    assert all(isinstance(error, StateError) for error in errors)
    assert len({id(error) for error in errors}) == 4
    assert stage.core.live == {}
    assert len(stage.failures) == 2
    stage.disk.full = False
    assert stage.intake.publish(b'[["k", 1]]', WHO) == f"{WHO} 1".encode()


def test_a_fault_of_the_core_leaves_nobody_waiting(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: object, **__: object) -> list[Admission]:
        raise RuntimeError("a fault of ours")

    stage.disk.go.clear()
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(stage.intake.publish, b'[["first", 0]]', WHO)
        assert stage.disk.entered.wait(TIMEOUT_S)
        others = [pool.submit(stage.intake.publish, b'[["k", 1]]', WHO) for _ in range(3)]
        until(lambda: stage.intake.counters()["intake_waiting"] == 3)
        with monkeypatch.context() as patch:
            patch.setattr(stage.core, "admit_all", fault)
            stage.disk.go.set()
            kinds = sorted(type(future.exception(TIMEOUT_S)).__name__ for future in others)
        assert first.result(TIMEOUT_S)
    assert kinds == ["RuntimeError", "StateError", "StateError"]
    assert stage.intake.publish(b'[["k", 1]]', WHO)


def test_a_change_that_was_kept_and_cannot_be_taken_in_is_told_as_the_states_fault(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def apply(*_: object, **__: object) -> None:
        raise BadInputError("a kept change can't be read")

    monkeypatch.setattr(stage.core, "apply", apply)
    with pytest.raises(StateError, match="can't be taken in"):
        stage.intake.publish(b'[["a", 1]]', WHO)


def test_a_group_is_bounded_in_batches_and_in_bytes(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.while_the_disk_is_held(*(b"[]" for _ in range(MAX_GROUP + 3)))
    assert [step for step in stage.told if step.startswith("judge")] == [
        "judge 1",
        f"judge {MAX_GROUP}",
        "judge 3",
    ]
    stage.told.clear()
    monkeypatch.setattr(module, "MAX_GROUP_BYTES", 30)
    stage.while_the_disk_is_held(
        b"[" + b" " * 40 + b"]", b"[        ]", b"[        ]", b"[        ]", b"[        ]"
    )
    assert [step for step in stage.told if step.startswith("judge")] == [
        "judge 1",
        "judge 1",
        "judge 3",
        "judge 1",
    ]


def test_what_waits_is_bounded(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 2)
    stage.disk.go.clear()
    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(stage.intake.publish, b'[["first", 0]]', WHO)]
        assert stage.disk.entered.wait(TIMEOUT_S)
        running += [pool.submit(stage.intake.publish, b"[]", WHO) for _ in range(2)]
        until(lambda: stage.intake.counters()["intake_waiting"] == 2)
        with pytest.raises(RateLimitedError, match="too many batches"):
            stage.intake.publish(b"[]", WHO)
        monkeypatch.setattr(module, "MAX_WAITING", 1_000)
        monkeypatch.setattr(module, "MAX_WAITING_BYTES", 20)
        with pytest.raises(RateLimitedError, match="too many batches"):
            stage.intake.publish(b"[                    ]", WHO)
        stage.disk.go.set()
        assert all(future.result(TIMEOUT_S) for future in running)


def test_other_changes_are_kept_and_taken_in_and_a_failure_changes_nothing(stage: Stage) -> None:
    stage.intake.keep(lambda: [StoredChange("time", True, b"1")])
    assert stage.told == ["keep 1", "apply 1"]
    stage.disk.full = True
    with pytest.raises(StateError):
        stage.intake.keep(lambda: [StoredChange("time", True, b"2")])
    assert stage.core.live == {"time": b"1"}


def test_nothing_changes_while_something_is_done_undisturbed(stage: Stage) -> None:
    entered, go = threading.Event(), threading.Event()

    def act() -> str:
        entered.set()
        assert go.wait(TIMEOUT_S)
        return "done"

    with ThreadPoolExecutor(2) as pool:
        quiet = pool.submit(stage.intake.undisturbed, act)
        assert entered.wait(TIMEOUT_S)
        published = pool.submit(stage.intake.publish, b'[["a", 1]]', WHO)
        until(lambda: stage.intake.counters()["intake_waiting"] == 1)
        assert stage.told == []
        go.set()
        assert quiet.result(TIMEOUT_S) == "done"
        assert published.result(TIMEOUT_S)


def test_many_publishers_at_once_are_all_kept_in_a_real_store(tmp_path: Path) -> None:
    told: list[str] = []
    core = Core(told)
    with SqliteStore(tmp_path / "var/state.db") as store:
        intake = Intake(core, store, clock=lambda: 7, max_rate=1_000_000)

        def publisher(number: int) -> None:
            for value in range(50):
                body = json.dumps([[f"key {number}", value], [f"other {number} {value}", value]]).encode()
                assert intake.publish(body, f"{WHO}/{number}") == f"{WHO}/{number} 2".encode()

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(publisher, range(16)))
    with SqliteStore(tmp_path / "var/state.db") as store:
        kept = {change.key: change.payload for change in store.read_all()}
    assert kept == core.live
    assert len(kept) == 16 * 51
    counters = intake.counters()
    assert counters["intake_batches"] == 16 * 50
    assert counters["intake_groups"] < counters["intake_batches"]


# ---- rates ------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_publisher_has_a_second_of_its_rate_at_once_and_then_its_rate() -> None:
    clock = Clock()
    rates = Rates(2_000, clock)
    rates.take(WHO, 2_000)
    with pytest.raises(RateLimitedError, match="more than 2000 values a second") as caught:
        rates.take(WHO, 1)
    assert caught.value.retry_after_s == 1
    rates.take("spiffe://prod.example/other", 2_000)
    clock.now += 0.25
    rates.take(WHO, 500)
    with pytest.raises(RateLimitedError):
        rates.take(WHO, 1)


def test_a_full_call_passes_at_any_rate_and_a_refused_one_is_told_how_long_to_wait() -> None:
    clock = Clock()
    rates = Rates(100, clock)
    rates.take(WHO, MIN_BURST)
    with pytest.raises(RateLimitedError) as caught:
        rates.take(WHO, MIN_BURST)
    assert caught.value.retry_after_s == 10
    clock.now += 10
    rates.take(WHO, MIN_BURST)


def test_a_call_larger_than_a_burst_passes_once_and_is_paid_for() -> None:
    clock = Clock()
    rates = Rates(1_000, clock)
    rates.take(WHO, 3_000)
    clock.now += 1
    with pytest.raises(RateLimitedError):
        rates.take(WHO, 1)
    clock.now += 2
    rates.take(WHO, 1_000)


def test_what_was_taken_too_much_is_given_back() -> None:
    rates = Rates(1_000, Clock())
    rates.take(WHO, 1_000)
    rates.correct(WHO, -400)
    rates.take(WHO, 400)
    with pytest.raises(RateLimitedError):
        rates.take(WHO, 1)


def test_the_publishers_that_are_remembered_are_bounded() -> None:
    clock = Clock()
    rates = Rates(1_000, clock)
    for n in range(MAX_BUCKETS + 100):
        rates.take(f"{WHO}/{n}", 1)
    assert len(rates._buckets) == MAX_BUCKETS


def test_a_publisher_over_its_rate_is_refused_whole_and_counted() -> None:
    told: list[str] = []
    intake = Intake(Core(told), cast("Store", Disk(told)), clock=lambda: 7, max_rate=1)
    body = json.dumps([["a", '"observed_at"']] * 600).encode().replace(b'\\"observed_at\\"', b'"observed_at"')
    with pytest.raises(BadInputError):
        intake.publish(body, WHO)  # paid for, though it can't be read
    with pytest.raises(RateLimitedError):
        intake.publish(body, WHO)
    assert told == ["judge 1"]
    assert intake.counters()["rate_limited"] == 1


def test_a_call_is_charged_for_the_values_that_the_core_found() -> None:
    told: list[str] = []
    intake = Intake(Core(told), cast("Store", Disk(told)), clock=lambda: 7, max_rate=1)
    body = json.dumps([[f"k{n}", n] for n in range(900)]).encode()  # no mark: taken for one value
    intake.publish(body, WHO)
    with pytest.raises(RateLimitedError):
        intake.publish(b'["observed_at"' + b', "observed_at"' * 200 + b"]", WHO)


def test_feeds_that_we_ask_ourselves_have_no_rate() -> None:
    told: list[str] = []
    intake = Intake(Core(told), cast("Store", Disk(told)), clock=lambda: 7, max_rate=1)
    body = json.dumps([[f"k{n}", n] for n in range(900)]).encode()
    for _ in range(5):
        intake.publish(body, "poll:posture_file")
