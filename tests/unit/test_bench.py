"""`bench`: its directory is one that loads and lets its request in, and the whole of it runs through, small."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from bench import directory, flood, load, results, tokens
from signalwarden import _core, config, offline
from signalwarden.decision_log import now_us
from tests import asking
from tests.measured import BUILT, needs_programs

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return script("run.py", *arguments)


def script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "bench" / name), *arguments]
    environment = {**os.environ, "SIGNALWARDEN_BENCH_PROGRAMS": str(BUILT)}
    return subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment)


def children() -> set[str]:
    """Command lines of every process that belongs to a bench."""
    lines = set()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if "signalwarden-bench-" in line or "bench/allow_all.py" in line or "/floor" in line:
            lines.add(f"{entry.parent.name} {line}")
    return lines


@pytest.mark.parametrize("policies", [10, 100])
def test_the_directory_loads_with_all_its_policies_and_signals(tmp_path: Path, policies: int) -> None:
    directory.make(tmp_path, policies=policies)
    loaded = config.load(tmp_path, now_us())
    described = orjson.loads(loaded.configuration.describe())
    assert not loaded.warnings
    assert len(described["policies"]) == policies
    assert len(described["signals"]) == len(directory.SIGNALS) == 12


@pytest.mark.parametrize(
    ("request_bytes", "reason"),
    [(directory.allowed_request(), "allowed"), (directory.denied_request(), "policy_denied")],
)
def test_its_requests_are_decided_as_the_load_expects(
    tmp_path: Path, request_bytes: bytes, reason: str
) -> None:
    directory.make(tmp_path)
    decision = offline.decide(
        tmp_path, request_bytes, signals=directory.signals_body(), now_us=now_us() + 1_000_000
    )
    assert decision.record["reason"] == reason
    assert len(decision.record["signals"]) == len(directory.SIGNALS)
    found = load.REASON.search(decision.answer)
    assert found is not None
    assert found[1].decode() == reason
    assert 600 <= len(request_bytes) <= 720


def test_a_check_through_the_engine_is_allowed_and_leaves_a_record(tmp_path: Path) -> None:
    directory.make(tmp_path)
    engine = _core.Engine()
    engine.swap(config.load(tmp_path, now_us()).configuration)
    admission = engine.admit(directory.signals_body(), publisher=directory.PUBLISHER, now_us=now_us())
    assert not admission.rejected
    engine.apply(admission.changes, now_us=now_us())
    assert b"allowed" in asking.answered(engine, directory.allowed_request())
    records, count = engine.drain(max_records=10, wait_ms=1_000)
    assert count == 1
    assert orjson.loads(records)["outcome"] == "allow"


def test_policies_come_in_tens(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tens"):
        directory.make(tmp_path, policies=15)


@needs_programs
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the comparison reads /proc")
def test_the_bench_runs_through_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """The slowest test here: about 40 s."""
    before = children()
    report, out = tmp_path / "report.html", tmp_path / "result.json"
    ended = run(
        *("--quick", "--seconds", "1", "--front", "grpcio", "--influence", "default", "--peers", "none"),
        *("--json", "--report", str(report), "--out", str(out)),
    )
    assert ended.returncode == 0, ended.stderr
    figures: dict[str, Any] = json.loads(ended.stdout)
    assert results.read(out) == figures
    assert figures["wrong"] == []
    floor, bare, ours = figures["servers"]
    assert [each["kind"] for each in figures["servers"]] == ["floor", "allow-all", "signalwarden"]
    assert all(len(each["closed"]) == len(each["envoy"]["free"]) == 1 for each in figures["servers"])
    assert (floor["open"], len(bare["open"]), len(ours["open"])) == ([], 1, 1)
    (seen,) = ours["closed"]
    assert seen["outcomes"].keys() == {"allow", "deny"}
    assert seen["reasons"].keys() == {"allowed", "policy_denied"}
    assert 0 < ours["memory_mb"]["idle"]["own"] < ours["memory_mb"]["idle"]["rss"]
    assert [each["name"] for each in figures["filters"]] == ["Envoy, no authorization"]
    (locust,) = figures["locust"]["runs"]
    assert locust["failures"] == 0
    assert locust["reasons"]["allowed"] > 0
    assert figures["locust"]["ceiling"]["requests"] > 0
    assert figures["machine"]["cores"] == os.cpu_count()
    assert report.stat().st_size > 0
    assert children() <= before


@needs_programs
@pytest.mark.parametrize(("door", "profile"), [("grpc", "soak"), ("http", "spike")])
def test_a_profile_of_locust_runs_through_small(tmp_path: Path, door: str, profile: str) -> None:
    before = children()
    arguments = ("--profile", profile, "--door", door, "--seconds", "3", "--users", "4", "--json")
    ended = script("swarm.py", *arguments, "--report", str(tmp_path / "report.html"))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    figures = json.loads(ended.stdout)
    assert figures["run"]["profile"] == profile
    assert figures["run"]["errors"] == []
    assert figures["run"]["reasons"].keys() == {"allowed", "policy_denied"}
    assert figures["ceiling"]["rps"] > 0
    assert (tmp_path / "report.html").stat().st_size > 0
    assert children() <= before


@needs_programs
def test_the_bench_of_scales_runs_through_small() -> None:
    before = children()
    ended = script("scales.py", "--quick", "--front", "grpcio", "--json")
    assert ended.returncode == 0, ended.stdout[-3_000:] + ended.stderr
    figures = json.loads(ended.stdout)
    assert [scale["name"] for scale in figures["scales"]] == [
        *("policies", "signals in a decision", "live signals", "principals", "connections"),
        "threads of the floor",
    ]
    assert all(scale["points"][0]["ratio"] == [1.0] for scale in figures["scales"])
    assert children() <= before


@needs_programs
def test_the_soak_runs_through_small() -> None:
    before = children()
    arguments = ("--seconds", "4", "--rate", "100", "--front", "native", "--reload-every", "1", "--json")
    ended = script("soak.py", *arguments)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    soak = json.loads(ended.stdout)["soak"]
    assert soak["answered"] + soak["unsent"] == pytest.approx(400, abs=2)
    assert soak["reloads"] >= 2
    assert soak["publications"] > 10
    assert soak["server_slowest_us"]["records_read"] >= soak["answered_in_all"]
    assert 0 < soak["server_slowest_us"]["us"] < soak["latency_us"]["max"] * 2
    assert len(soak["memory_mb"]) > 3
    assert children() <= before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--seconds", "none"), "`none` is not a whole number above 0"),
        (("--policies", "15"), "policies come in tens, not `15`"),
        (("--parts", "closed,half"), "`half` is none of closed, open, envoy, locust"),
        (("--report", "/no/such/place/report.html"), "`/no/such/place` is not a directory for the report"),
    ],
)
def test_a_mistake_is_one_sentence(arguments: tuple[str, ...], sentence: str) -> None:
    ended = run(*arguments)
    assert ended.returncode == 2
    assert sentence in ended.stderr.strip().splitlines()[-1]
    assert "Traceback" not in ended.stderr


def test_the_bench_of_publishers_runs_through_small() -> None:
    before = children()
    command = [
        sys.executable,
        str(ROOT / "bench" / "ingest.py"),
        "--seconds",
        "0.3",
        "--changes",
        "6",
        "--json",
    ]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert ran.returncode == 0, ran.stderr
    figures = json.loads(ran.stdout)
    ways = [(rate["way"], rate["batch"]) for rate in figures["rates"]]
    assert ways == [(way, batch) for way in ("HTTP", "gRPC") for batch in (1, 100, 1_000)]
    assert all(rate["values"] >= rate["batch"] and rate["batches_a_write"] >= 1 for rate in figures["rates"])
    assert figures["changed"]["sent to changed decision"]["p50_ms"] > 0
    assert children() <= before


def test_the_bench_of_reading_the_log_runs_through_small() -> None:
    command = [sys.executable, str(ROOT / "bench" / "log_reading.py"), "--records", "300", "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert ran.returncode == 0, ran.stderr
    figures = json.loads(ran.stdout)
    assert {verb["verb"].split()[0] for verb in figures["verbs"]} == {
        "stats", "explain", "replay", "simulate", "brittleness"
    }  # fmt: skip
    assert all(verb["records_s"] > 0 for verb in figures["verbs"])


def test_the_bench_of_writing_the_log_runs_through_small() -> None:
    command = [sys.executable, str(ROOT / "bench" / "log_writing.py"), "--json", "--seconds", "0.3"]
    ran = subprocess.run([*command, "--rounds", "1"], capture_output=True, text=True, timeout=150)
    assert ran.returncode == 0, ran.stdout[-3_000:] + ran.stderr
    figures = json.loads(ran.stdout)
    assert [variant["log"] for variant in figures["variants"]] == ["thrown away", "accepted", "synced"]
    assert all(variant["records"] > 0 for variant in figures["variants"])


def test_the_bench_of_identity_runs_through_small() -> None:
    before = children()
    command = [
        *(sys.executable, str(ROOT / "bench" / "identity.py"), "--json"),
        *("--seconds", "0.5", "--rate", "300", "--count", "5", "--rounds", "1"),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert ran.returncode == 0, ran.stdout[-3_000:] + ran.stderr
    figures = json.loads(ran.stdout)
    assert figures["wrong"] == []
    assert set(figures["inside"]["validation_us"]) > set(tokens.ALGORITHMS)
    assert len(figures["sight"]["call_us"]) == 4
    assert {phase["flood"] for phase in figures["flood"]} >= {
        "bad tokens of one peer",
        "bad tokens of many addresses",
    }
    assert figures["rotation"]["lost"] == 0
    assert figures["rotation"]["shown"] == figures["rotation"]["rotations"] + 1
    assert children() <= before


def test_the_bench_of_tasks_runs_through_small() -> None:
    before = children()
    command = [
        *(sys.executable, str(ROOT / "bench" / "tasks.py"), "--json"),
        *("--issued", "5", "--revoked", "5", "--approved", "3", "--rounds", "1"),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert ran.returncode == 0, ran.stdout[-3_000:] + ran.stderr
    figures = json.loads(ran.stdout)
    assert figures["wrong"] == []
    assert figures["revocation"]["allowed_after"] == 0
    assert figures["approval_ms"]["together"]["count"] == 3
    assert children() <= before


def test_bad_tokens_of_the_bench_are_distinct_and_as_long_as_their_place(tmp_path: Path) -> None:
    made, issuer = tokens.make(tmp_path)
    engine = _core.Engine()
    engine.swap(config.load(made.directory, now_us()).configuration)
    seen = set()
    for kind in tokens.BAD:
        distinct = issuer.bad(kind)
        template = tokens.Template.of(next(distinct), principal="")
        for token, address in zip(itertools.islice(distinct, 3), flood.addresses(), strict=False):
            pending = engine.check(template.filled(token, address))
            assert isinstance(pending, _core.Pending), kind
            assert pending.peer == address
            seen.add(pending.credentials[0].digest)
    assert len(seen) == 3 * len(tokens.BAD)
