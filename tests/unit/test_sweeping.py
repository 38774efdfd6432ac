"""`sweeping`: what counts no more goes from the disk first, then from memory, while no change is under way."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from signalwarden._core import Admission, StoredChange
from signalwarden.errors import StateError
from signalwarden.intake import Intake
from signalwarden.state import SqliteStore
from signalwarden.sweeping import BATCH, MAX_BATCHES, Sweep

NOW = 7


class Core:
    """Holds keys until it is told to let them go; says of all that they count no more."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.held: list[str] = []
        self.on_disk: list[int] = []
        """How many rows there were when memory let go."""

    def admit_all(self, batches: Sequence[tuple[bytes, str]], *, now_us: int) -> list[Admission]:
        raise AssertionError

    def apply(self, changes: Sequence[StoredChange], *, now_us: int) -> None:
        self.held += [change.key for change in changes]

    def expired(self, *, limit: int, now_us: int) -> list[str]:
        assert now_us == NOW
        return [key for key in self.held if not key.startswith("live")][:limit]

    def forget(self, keys: Sequence[str]) -> None:
        self.on_disk.append(sum(1 for _ in self._store.read_all()))
        gone = set(keys)
        self.held = [key for key in self.held if key not in gone]


class Stage:
    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.core = Core(store)
        self.intake = Intake(self.core, store, clock=lambda: NOW, max_rate=1)
        self.sweep = Sweep(self.core, store, self.intake, clock=lambda: NOW)

    def keep(self, *keys: str) -> None:
        self.intake.keep(lambda: [StoredChange(key, True, b"x") for key in keys])

    def kept(self) -> list[str]:
        return [change.key for change in self.store.read_all()]


def test_what_counts_no_more_goes_from_the_disk_before_it_goes_from_memory(tmp_path: Path) -> None:
    with SqliteStore(tmp_path / "state.db") as store:
        stage = Stage(store)
        stage.keep("task 1", "live 2", "touched 1")
        assert stage.sweep.run() == 2
        assert stage.core.on_disk == [1]
        assert (stage.kept(), stage.core.held) == (["live 2"], ["live 2"])
        assert stage.sweep.run() == 0


def test_a_disk_that_refuses_leaves_memory_as_it_was(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    stage = Stage(store)
    stage.keep("task 1")
    store.close()
    with pytest.raises(StateError, match="closed"):
        stage.sweep.run()
    assert stage.core.held == ["task 1"]
    with SqliteStore(tmp_path / "state.db") as again:
        assert [change.key for change in again.read_all()] == ["task 1"]


def test_one_sweep_is_bounded_and_the_next_goes_on(tmp_path: Path) -> None:
    with SqliteStore(tmp_path / "state.db") as store:
        stage = Stage(store)
        stage.keep(*(f"task {n}" for n in range(BATCH * MAX_BATCHES + 3)))
        assert stage.sweep.run() == BATCH * MAX_BATCHES
        assert stage.sweep.run() == 3
        assert stage.kept() == []


def test_nothing_is_changed_while_something_is_forgotten(tmp_path: Path) -> None:
    with SqliteStore(tmp_path / "state.db") as store, ThreadPoolExecutor(2) as pool:
        stage = Stage(store)
        stage.keep("task 1")
        entered, go = threading.Event(), threading.Event()
        expired = stage.core.expired

        def slowly(*, limit: int, now_us: int) -> list[str]:
            entered.set()
            assert go.wait(10)
            return expired(limit=limit, now_us=now_us)

        stage.core.expired = slowly  # type: ignore[method-assign]
        sweeping = pool.submit(stage.sweep.run)
        assert entered.wait(10)
        keeping = pool.submit(stage.keep, "task 2")
        threading.Event().wait(0.05)
        assert stage.kept() == ["task 1"], "the change waits"
        go.set()
        assert sweeping.result(10) == 1
        keeping.result(10)
        assert stage.kept() == ["task 2"]
