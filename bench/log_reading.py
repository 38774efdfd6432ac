"""`make bench-log-reading`: how many records a second are summed up, found and made again, on one core and on all.

The records are real decisions of the bench's directory: 12 signals, ten policies in play, nine allows for a denial.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

sys.path.insert(
    0, str(Path(__file__).resolve().parent.parent)
)  # run as a script, `bench` is not found otherwise

from bench import directory, figures
from signalwarden import _core, config
from signalwarden.config import Loaded
from signalwarden.decision_log import now_us
from signalwarden.log_reading import brittleness, flips, replaying, stats
from signalwarden.log_reading.records import Reader, find

__all__ = ["measure"]

RECORDS: Final = 100_000
BATCH: Final = 1_000
LOST: Final = "device_trust"


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Each verb on the same log. In `wrong` goes what was not read, or not decided as it was."""
    found: dict[str, Any] = {
        "build": _core.BUILD_PROFILE,
        "cores": os.cpu_count() or 1,
        "load_average": round(os.getloadavg()[0], 1),
        "records": arguments.records,
        "wrong": [],
    }
    with tempfile.TemporaryDirectory(prefix="signalwarden-bench-") as folder:
        made = directory.make(Path(folder) / "directory", influence="all")
        loaded = config.load(made.directory, now_us())
        log = Path(folder) / "decisions.jsonl"
        last = _write(log, loaded, arguments.records)
        found["bytes_a_record"] = round(log.stat().st_size / arguments.records)
        found["verbs"] = _verbs(log, loaded, last, arguments.records, found["wrong"])
    return found


def _write(log: Path, loaded: Loaded, count: int) -> str:
    """So many decisions; the id of the last."""
    engine = _core.Engine(influence="all")
    engine.swap(loaded.configuration)
    admission = engine.admit(directory.signals_body(), publisher=directory.PUBLISHER, now_us=now_us())
    engine.apply(admission.changes, now_us=now_us())
    asked = [directory.allowed_request()] * 9 + [directory.denied_request()]
    lines = b""
    with log.open("wb") as file:
        for start in range(0, count, BATCH):
            batch = min(BATCH, count - start)
            for number in range(batch):
                engine.check(asked[number % len(asked)])
            lines, _ = engine.drain(max_records=batch, wait_ms=0)
            file.write(lines)
    return str(json.loads(lines.splitlines()[-1])["decision_id"])


def _verbs(log: Path, loaded: Loaded, last: str, count: int, wrong: list[str]) -> list[dict[str, Any]]:
    replay = replaying.decider(loaded.configuration)
    described = loaded.described()

    def summed_up(_jobs: int) -> int:
        reader, sums = Reader([log]), stats.Stats()
        for entry in reader.entries():
            sums.add(entry.record)
        return sums.all.count

    def looked_up(_jobs: int) -> int:
        return count if find(Reader([log]), last).entry.record["decision_id"] == last else 0

    def made_again(jobs: int) -> int:
        sums, each = flips.again(Reader([log]), replay, described, jobs=jobs)
        return sums.tally.decided if not list(each) else 0

    def simulated(jobs: int) -> int:
        sums, each = flips.simulated(
            Reader([log]), replay, [{"name": LOST, "drop": True}], described, jobs=jobs
        )
        return sums.tally.decided if list(each) else 0

    def without_each(jobs: int) -> int:
        return brittleness.brittleness(Reader([log]), replay, described, jobs=jobs).tally.decided

    verbs: dict[str, Callable[[int], int]] = {
        "stats": summed_up, "explain (finding the last)": looked_up, "replay": made_again, "simulate": simulated,
        f"brittleness ({len(described['signals'])} signals)": without_each,
    }  # fmt: skip
    cores = os.cpu_count() or 1
    told = []
    for name, verb in verbs.items():
        threaded = name not in ("stats", "explain (finding the last)")
        for jobs in sorted({1, cores}) if threaded else [1]:
            before, cpu = time.perf_counter(), time.process_time()
            read = verb(jobs)
            took, spent = time.perf_counter() - before, time.process_time() - cpu
            if read != count:
                wrong.append(f"{name}: {read} of {count} records")
            told.append({"verb": name, "threads": jobs, "records_s": round(count / took),
                         "cpu_us_a_record": round(spent / count * 1e6, 1)})  # fmt: skip
    return told


def _said(found: dict[str, Any]) -> Iterable[str]:
    circumstances = f"{found['build']} build, {found['cores']} cores, load average {found['load_average']}"
    yield f"{found['records']:,} records of {found['bytes_a_record']:,} bytes, {circumstances}"
    for one in found["verbs"]:
        yield (f"  {one['verb']:<30} {one['threads']} threads  {one['records_s']:>10,} records/s  "
               f"{one['cpu_us_a_record']:>7} µs of CPU a record")  # fmt: skip
    yield from (f"WRONG: {wrong}" for wrong in found["wrong"])


def main() -> int:
    """Exit status 1 if anything was read or decided wrongly."""
    parser = argparse.ArgumentParser(description="The verbs that read the log, measured.")
    parser.add_argument("--records", type=int, default=RECORDS, help=f"how many ({RECORDS})")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    return figures.run(parser.parse_args(), measure, _said)


if __name__ == "__main__":
    sys.exit(main())
