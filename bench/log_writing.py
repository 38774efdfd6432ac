"""`make bench-log-writing`: what a record costs, and how many a second one core takes to the disk, by `ack`.

Decisions of the bench's directory in this process, on one core: no gRPC, so what differs is the log alone. Beside the
two levels of `ack` stands the least that a log could be: records that are rendered and thrown away.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

sys.path.insert(
    0, str(Path(__file__).resolve().parent.parent)
)  # run as a script, `bench` is not found otherwise

from bench import directory, figures, stage
from signalwarden import _core, config
from signalwarden.config import Loaded
from signalwarden.decision_log import Recorder, now_us
from signalwarden.decision_log.service import DecisionLog, Seal

__all__ = ["measure"]

SECONDS: Final = 5.0
ROUNDS: Final = 3
RING_BYTES: Final = 64 << 20
PATIENCE_MS: Final = 1_000
"""A decision waits for room, so that what is measured is what the log keeps up with, and none is refused."""
THROWN_AWAY: Final = "thrown away"
LOG: Final = "decisions.jsonl"
ASKERS: Final = {THROWN_AWAY: 2, "accepted": 2, "synced": 64}
"""Threads that ask. Of `synced` many wait for one sync."""
DISCARD: Final = 4_096


@dataclass
class Round:
    """One variant, for some seconds."""

    records: int
    took_s: float
    cpu_s: float
    refused: int


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every variant by turns. In `wrong` goes each answer that was refused, and each record that is not in the log."""
    core = stage.places().server
    if core is not None:
        os.sched_setaffinity(0, {core})
    found: dict[str, Any] = {
        "build": _core.BUILD_PROFILE,
        "load_average": round(os.getloadavg()[0], 1),
        "influence": arguments.influence,
        "seconds": arguments.seconds,
        "variants": [],
        "wrong": [],
    }
    rounds: dict[str, list[Round]] = {name: [] for name in ASKERS}
    with tempfile.TemporaryDirectory(prefix="signalwarden-bench-") as folder:
        made = directory.make(Path(folder) / "directory", influence=arguments.influence)
        loaded = config.load(made.directory, now_us())
        for number in range(arguments.rounds):
            for name in ASKERS:
                place = Path(folder) / f"{name.replace(' ', '-')}-{number}"
                place.mkdir()
                one = _round(name, loaded, place, arguments.influence, arguments.seconds)
                rounds[name].append(one)
                if one.refused:
                    found["wrong"].append(f"{name}: {one.refused} decisions were refused by the log")
                if name != THROWN_AWAY:
                    lines = [line for line in (place / LOG).open("rb") if b'"kind":"decision"' in line]
                    found["bytes_a_record"] = round(sum(map(len, lines)) / len(lines))
                    if len(lines) != one.records:
                        found["wrong"].append(f"{name}: {one.records} decisions, {len(lines)} in the log")
    for name, each in rounds.items():
        found["variants"].append({
            "log": name, "askers": ASKERS[name], "records": sum(one.records for one in each),
            "records_s": round(median(one.records / one.took_s for one in each)),
            "cpu_us_a_record": round(median(one.cpu_s / one.records for one in each) * 1e6, 1),
        })  # fmt: skip
    return found


def _round(name: str, loaded: Loaded, place: Path, influence: str, seconds: float) -> Round:
    with _log(name, loaded, place, influence) as engine:
        started, cpu = time.perf_counter(), time.process_time()
        _ask(engine, ASKERS[name], seconds)
    # The log has ended: all that was accepted is on the disk, and what that took is in the times.
    took, spent = time.perf_counter() - started, time.process_time() - cpu
    counters = engine.counters()
    return Round(int(counters["decisions_allowed"]), took, spent, int(counters["log_refused"]))


@contextlib.contextmanager
def _log(name: str, loaded: Loaded, place: Path, influence: str) -> Iterator[_core.Engine]:
    """An engine whose records go where the variant says, until the end."""
    if name == THROWN_AWAY:
        engine = _core.Engine(influence=influence)
    else:
        engine = _core.Engine(
            influence=influence, ring=place / "ring", ring_bytes=RING_BYTES, ack=name, patience_ms=PATIENCE_MS
        )
    engine.swap(loaded.configuration)
    admission = engine.admit(directory.signals_body(), publisher=directory.PUBLISHER, now_us=now_us())
    engine.apply(admission.changes, now_us=now_us())
    ending = threading.Event()
    if name == THROWN_AWAY:
        thread = threading.Thread(target=_discard, args=(engine, ending.is_set))
        thread.start()
        try:
            yield engine
        finally:
            ending.set()
            thread.join()
        return
    options = loaded.settings.decision_log.model_copy(update={"rotate_bytes": 1 << 40})
    seal = Seal("prod.example", place / "keys", now_us)
    log = DecisionLog(engine, Recorder(engine), options, place / LOG, place, seal)
    log.start()
    try:
        yield engine
    finally:
        log.stop()


def _discard(engine: _core.Engine, ended: Callable[[], bool]) -> None:
    while True:
        _, count = engine.drain(max_records=DISCARD, wait_ms=20)
        engine.settle(count)
        if ended() and not count:
            return


def _ask(engine: _core.Engine, askers: int, seconds: float) -> None:
    request, until = directory.allowed_request(), time.perf_counter() + seconds

    def ask() -> None:
        while time.perf_counter() < until:
            engine.check(request)

    threads = [threading.Thread(target=ask) for _ in range(askers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _said(found: dict[str, Any]) -> Iterable[str]:
    yield (
        f"records of {found['bytes_a_record']:,} bytes, influence: {found['influence']}, {found['build']} build, one "
        f"core, load average {found['load_average']}; median of the rounds"
    )
    for one in found["variants"]:
        yield (f"  {one['log']:<12} {one['askers']:>3} askers  {one['records_s']:>8,} records/s  "
               f"{one['cpu_us_a_record']:>6} µs of CPU a check with its record  ({one['records']:,})")  # fmt: skip
    yield from (f"WRONG: {wrong}" for wrong in found["wrong"])


def main() -> int:
    """Exit status 1 if anything was refused."""
    parser = argparse.ArgumentParser(description="The decision log, written as fast as it can be.")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"of each round ({SECONDS:g})")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of each variant ({ROUNDS})")
    parser.add_argument("--influence", choices=("none", "default", "all"), default="default")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    return figures.run(parser.parse_args(), measure, _said)


if __name__ == "__main__":
    sys.exit(main())
