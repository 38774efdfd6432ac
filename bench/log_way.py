"""`python -m bench.log_way`: what a record costs after the decision, from the ring to the disk.

Decisions of the bench's directory fill the ring of this process, and the processor time of the thread that takes them
away is divided by the records. By turns: lines that are drained and settled, a batch at a time while nobody asks; the
same with their hashes; and the log as a server has it (file, tree, sync), while decisions are made without a pause.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench import directory, figures
from signalwarden import _core, config
from signalwarden.config import Loaded
from signalwarden.decision_log import Recorder, now_us
from signalwarden.decision_log.service import DecisionLog, Seal
from signalwarden.decision_log.writer import MAX_BYTES, MAX_RECORDS

__all__ = ["measure"]

RING_BYTES: Final = 64 << 20
LINES, HASHED, LOG = "drained", "drained with hashes", "the log"
THREADS: Final = ("decision-log", "log-tree")
SETTLE_S: Final = 10.0
"""Far more than any sync takes."""


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every variant by turns. In `wrong` goes each record that did not come out."""
    found: dict[str, Any] = {
        "build": _core.BUILD_PROFILE, "load_average": round(os.getloadavg()[0], 1), "batch": arguments.batch,
        "variants": [], "wrong": [],
    }  # fmt: skip
    spent: dict[str, list[float]] = {LINES: [], HASHED: [], LOG: []}
    with tempfile.TemporaryDirectory(prefix="signalwarden-bench-") as folder:
        made = directory.make(Path(folder) / "directory", influence="none")
        loaded = config.load(made.directory, now_us())
        for number in range(arguments.rounds):
            for name, each in spent.items():
                place = Path(folder) / f"{number}-{name.replace(' ', '-')}"
                place.mkdir()
                cost, missing = _round(name, loaded, place, arguments)
                each.append(cost)
                if missing:
                    found["wrong"].append(f"{name}: {missing} records did not come out")
    for name, each in spent.items():
        found["variants"].append({"way": name, "cpu_us_a_record": round(median(each), 2)})
    return found


def _engine(loaded: Loaded, place: Path) -> _core.Engine:
    engine = _core.Engine(influence="none", ring=place / "ring", ring_bytes=RING_BYTES)
    engine.swap(loaded.configuration)
    admission = engine.admit(directory.signals_body(), publisher=directory.PUBLISHER, now_us=now_us())
    engine.apply(admission.changes, now_us=now_us())
    return engine


def _round(name: str, loaded: Loaded, place: Path, asked: argparse.Namespace) -> tuple[float, int]:
    """Microseconds a record, and records that did not come out."""
    engine = _engine(loaded, place)
    if name == LOG:
        return _logged(engine, loaded, place, asked)
    memory = bytearray()

    def take() -> int:
        if name == HASHED:
            _, count, _ = engine.drain_into(memory, max_records=MAX_RECORDS, max_bytes=MAX_BYTES, wait_ms=0)
        else:
            _, count = engine.drain(max_records=MAX_RECORDS, wait_ms=0)
        engine.settle(count)
        return count

    spent, taken = _by_turns(engine, asked, lambda: sum(iter(take, 0)))
    engine.release()
    return spent / taken * 1e6, asked.records - taken


def _by_turns(engine: _core.Engine, asked: argparse.Namespace, take: Callable[[], int]) -> tuple[float, int]:
    """Processor time of the thread that takes, and how many it took."""
    request, found = directory.allowed_request(), [0.0, 0]
    full, empty = threading.Semaphore(0), threading.Semaphore(0)
    turns = -(-asked.records // asked.batch)

    def taking() -> None:
        for _ in range(turns):
            full.acquire()
            began = time.thread_time()
            found[1] += take()
            found[0] += time.thread_time() - began
            empty.release()

    thread = threading.Thread(target=taking)
    thread.start()
    for turn in range(turns):
        for _ in range(min(asked.batch, asked.records - turn * asked.batch)):
            engine.check(request)
        full.release()
        empty.acquire()
    thread.join()
    return found[0], int(found[1])


def _logged(
    engine: _core.Engine, loaded: Loaded, place: Path, asked: argparse.Namespace
) -> tuple[float, int]:
    """The threads of a log that is written while decisions are made without a pause."""
    options = loaded.settings.decision_log.model_copy(update={"rotate_bytes": 1 << 40})
    log = DecisionLog(
        engine, Recorder(engine), options, place / "decisions.jsonl", place,
        Seal("prod.example", place / "keys", now_us),
    )  # fmt: skip
    log.start()
    clocks = [
        time.pthread_getcpuclockid(thread.ident)
        for thread in threading.enumerate()
        if thread.name in THREADS and thread.ident
    ]
    began = sum(map(time.clock_gettime, clocks))
    request = directory.allowed_request()
    for _ in range(asked.records):
        engine.check(request)
    until = time.monotonic() + SETTLE_S
    while engine.counters()["log_ring_used_bytes"] and time.monotonic() < until:
        time.sleep(0.02)
    spent = sum(map(time.clock_gettime, clocks)) - began
    log.stop()
    lines = [line for line in (place / "decisions.jsonl").open("rb") if b'"kind":"decision"' in line]
    return spent / asked.records * 1e6, asked.records - len(lines)


def _said(found: dict[str, Any]) -> Iterable[str]:
    yield (
        f"{found['batch']} records at a time, {found['build']} build, load average {found['load_average']}; "
        "median of the rounds"
    )
    for one in found["variants"]:
        yield (f"  {one['way']:<20} {one['cpu_us_a_record']:>6} µs of CPU a record")  # fmt: skip
    yield from (f"WRONG: {wrong}" for wrong in found["wrong"])


def main() -> int:
    """Exit status 1 if a record did not come out."""
    parser = argparse.ArgumentParser(description="The way of a record from the ring to the disk.")
    parser.add_argument("--records", type=int, default=20_000, help="of each round (20,000)")
    parser.add_argument("--batch", type=int, default=1_000, help="that are taken at a time (1,000)")
    parser.add_argument("--rounds", type=int, default=3, help="of each variant (3)")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    return figures.run(parser.parse_args(), measure, _said)


if __name__ == "__main__":
    sys.exit(main())
