"""What faults of receivers, of the disk and of the process do to the log: nothing that was accepted is lost, memory stays bounded,
and what is answered meanwhile is honest."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.log_faults import SCENARIOS, Run, may_mount

COUNT = 1_200
RUNS_ON = (
    "dead_collector",
    "slow_collector",
    "unavailable_collector",
    "exhausted_collector",
    "failing_service",
    "throttling_service",
    "unread_stdout",
)
MORE_MEMORY_KB = 40_000
"""A batch of a MiB as lines, as records and as what is sent; the interpreter's own room for that."""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "conf", COUNT, backoff_s=1.0)


@pytest.mark.parametrize("name", RUNS_ON)
def test_a_receiver_that_fails_delays_no_answer_and_misses_no_record(run: Run, name: str) -> None:
    found = SCENARIOS[name](run)
    assert found.answers == {"allowed": COUNT}
    assert found.lost == 0
    assert found.peak_kb - found.memory_kb < MORE_MEMORY_KB
    assert found.said


def test_at_the_bound_a_required_sink_that_is_dead_denies_and_nothing_is_lost(run: Run) -> None:
    found = SCENARIOS["required_sink_at_the_bound"](run)
    assert set(found.answers) == {"allowed", "log_unavailable"}
    assert found.lost == 0
    assert "the required sink `otlp` has not taken what would be pruned" in found.said
    assert found.peak_kb - found.memory_kb < MORE_MEMORY_KB


def test_a_sink_that_is_not_required_loses_what_is_pruned_and_every_one_is_counted(run: Run) -> None:
    found = SCENARIOS["sink_that_may_lose"](run)
    assert found.answers == {"allowed": COUNT}
    assert 0 < found.lost == found.counted


@pytest.mark.skipif(not may_mount(), reason="a small disk can't be mounted here")
def test_a_full_disk_denies_and_loses_nothing_that_was_answered(run: Run) -> None:
    found = SCENARIOS["full_disk"](run)
    assert set(found.answers) == {"allowed", "log_unavailable"}
    assert found.lost == 0
    assert found.said == "no space left on device"
    assert found.peak_kb - found.memory_kb < MORE_MEMORY_KB


def test_a_kill_under_load_loses_no_answer_and_repeats_none(run: Run) -> None:
    found = SCENARIOS["kill_under_load"](run)
    assert set(found.answers) == {"allowed"}
    assert (found.lost, found.twice) == (0, 0)


@pytest.mark.usefixtures("front")
def test_answers_that_wait_for_the_disk_survive_a_kill_under_load(run: Run) -> None:
    found = SCENARIOS["kill_under_load_synced"](run)
    assert set(found.answers) == {"allowed"}
    assert (found.lost, found.twice) == (0, 0)


def test_a_kill_while_nothing_can_be_written_loses_no_answer(run: Run) -> None:
    found = SCENARIOS["kill_while_the_log_is_stuck"](run)
    assert found.answers == {"allowed": COUNT}
    assert (found.lost, found.twice) == (0, 0)


@pytest.mark.parametrize("name", ["stuck_log", "stuck_log_that_blocks"])
def test_a_full_ring_denies_loses_nothing_and_goes_on_by_itself(run: Run, name: str) -> None:
    found = SCENARIOS[name](run)
    assert set(found.answers) == {"allowed", "log_unavailable"}
    assert (found.lost, found.twice) == (0, 0)
    assert found.peak_kb - found.memory_kb < MORE_MEMORY_KB


def test_a_server_that_is_killed_while_it_ships_sends_all_that_its_log_holds(run: Run) -> None:
    assert SCENARIOS["kill_while_shipping"](run).lost == 0
