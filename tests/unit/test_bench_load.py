"""The load of the bench: it runs against the floor where both are built, and what it says is read rightly."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from bench import cases, loading, procfs, soak, stage
from bench.stage import BenchError
from tests.measured import BUILT, needs_programs


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(stage.PROGRAMS, str(BUILT))


def _requests(folder: Path, *, all_allowed: bool) -> Path:
    file = folder / "requests.jsonl"
    file.write_text(cases.load_lines(reasons=False, all_allowed=all_allowed))
    return file


@needs_programs
@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_the_floor_answers_an_open_and_a_closed_loop(tmp_path: Path, unix: bool) -> None:
    requests = _requests(tmp_path, all_allowed=True)
    with stage.floor(None, unix=str(tmp_path / "check.sock") if unix else "") as server:
        closed = loading.ask(server.target, requests, loading.Asking(0.3, warm_up=0.1), None)
        opened = loading.ask(server.target, requests, loading.Asking(0.5, warm_up=0.1, rate=200), None)
    for seen in (closed, opened):
        assert seen.wrong == 0
        assert seen.outcomes == {"allow": seen.answered}
        assert 0 < seen.latency_us["p50"] <= seen.latency_us["p99"] <= seen.latency_us["max"]
        assert seen.answered_in_all > seen.answered
    assert opened.answered + opened.unsent == pytest.approx(100, abs=2)


@needs_programs
@pytest.mark.usefixtures("programs")
def test_an_answer_that_is_not_the_expected_one_is_wrong(tmp_path: Path) -> None:
    """The floor lets a denied transfer through."""
    requests = _requests(tmp_path, all_allowed=False)
    with stage.floor(None) as server:
        seen = loading.ask(server.target, requests, loading.Asking(0.3, warm_up=0.0, rate=200), None)
    assert seen.wrong == seen.outcomes["wrong"] == pytest.approx(seen.answered * cases.DENIED_SHARE, abs=2)


@needs_programs
@pytest.mark.usefixtures("programs")
def test_a_server_that_stalls_is_charged_for_every_call_that_had_to_wait(tmp_path: Path) -> None:
    requests = _requests(tmp_path, all_allowed=True)
    with stage.floor(None) as server:

        def stall() -> None:
            time.sleep(0.5)
            os.kill(server.pid, 19)  # SIGSTOP
            time.sleep(0.4)
            os.kill(server.pid, 18)  # SIGCONT

        stalled = threading.Thread(target=stall)
        stalled.start()
        seen = loading.ask(server.target, requests, loading.Asking(1.2, warm_up=0.0, rate=500), None)
        stalled.join(5.0)
    assert seen.wrong == 0
    # A third of the calls were to be sent while it stood still: a load that waits would have counted sixteen.
    assert seen.latency_us["p75"] > 20_000
    assert seen.latency_us["max"] > 300_000


@needs_programs
@pytest.mark.usefixtures("programs")
def test_a_mistake_of_the_caller_is_one_sentence(tmp_path: Path) -> None:
    requests = _requests(tmp_path, all_allowed=True)
    with pytest.raises(BenchError, match="can't be reached"):
        loading.ask(f"unix://{tmp_path}/nobody.sock", requests, loading.Asking(0.1), None)
    with pytest.raises(BenchError, match="can't be read"):
        loading.ask("127.0.0.1:1", tmp_path / "none.jsonl", loading.Asking(0.1), None)
    ended = subprocess.run([BUILT / "load"], capture_output=True, text=True, timeout=20)  # type: ignore[operator]
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[0] == "load: `--target` is missing"


def test_a_program_that_is_not_built_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(stage.PROGRAMS, str(tmp_path))
    with pytest.raises(BenchError, match="`load` is not built: run `make bench-load`"):
        stage.program("load")


def _said(**more: Any) -> dict[str, Any]:
    figures = {"answered": 10, "answered_in_all": 12, "rps": 5.0, "late": 0, "unsent": 3, "unanswered": 1}
    outcomes = {"allow": 7, "deny": 1, "wrong": 1, "broken": 0, "grpc_14": 1}
    return {**figures, "outcomes": outcomes, "reasons": {}, "latency_us": {"p50": 1.0}, **more}


def test_whatever_is_neither_allow_nor_deny_is_wrong_and_what_was_not_sent_is_not() -> None:
    seen = loading.read(_said(), 0.96)
    assert seen.wrong == 3
    assert seen.load_bound
    assert not loading.read(_said(), 0.5).load_bound
    with pytest.raises(BenchError, match="got no answer"):
        loading.read(_said(answered=0), 0.0)


# ---- the kernel's figures -------------------------------------------------------------------------------


def test_memory_and_switches_are_read_from_a_status_file() -> None:
    status = "Name:\tx\nVmRSS:\t   20480 kB\nRssAnon:\t   10240 kB\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t2\n"
    assert (procfs.parse_rss_mb(status), procfs.parse_own_mb(status)) == (20.0, 10.0)
    assert procfs.parse_switches(status) == (7, 2)
    assert procfs.parse_rss_mb("Name:\tzombie\n") == 0.0
    assert procfs.parse_switches("") == (0, 0)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_this_process_has_used_time_and_memory() -> None:
    reading = procfs.read(os.getpid())
    assert reading.cpu_s > 0
    assert reading.rss_mb > 5
    with pytest.raises(BenchError, match="can't be read"):
        procfs.read(2**22 + 1)


def test_slow_decisions_are_counted_from_the_histogram_of_the_server() -> None:
    metric = "signalwarden_decision_duration_seconds_bucket"
    lines = [f'{metric}{{le="{le}",stage="total"}} {count}' for le, count in (("0.001", 90), ("0.005", 97))]
    lines += [f'{metric}{{le="+Inf",stage="total"}} 100.0', f'{metric}{{le="+Inf",stage="decode"}} 900.0']
    assert soak.over("\n".join(lines)) == 3
    assert soak.over("nothing") == 0
