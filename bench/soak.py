"""`make bench-soak`: what is slow in ten minutes at half load, while signals change and the directory is reloaded.

An open loop, so that a stall is charged to every call that had to wait. The slowest decision is told twice: by the
client, and by the server's own clock (`timing_us` of its records, and the histogram of its metrics). Memory is read
every second.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

sys.path.insert(
    0, str(Path(__file__).resolve().parent.parent)
)  # run as a script, `bench` is not found otherwise

from bench import cases, directory, loading, procfs, results, rounds, servers, stage, verb
from bench.rounds import Stand
from bench.stage import BenchError, Places, Server
from signalwarden import __version__, _core

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHURN_S: Final = 0.05
"""Between two publications of all twelve signals: 240 values a second."""
RELOAD_S: Final = 10.0
CAPACITY_S: Final = 3.0
SAMPLE_S: Final = 1.0
SLOW_US: Final = 5_000
"""No decision is to be slower."""
TOTAL: Final = re.compile(rb'"timing_us":\{[^}]*?"total":\s*([0-9.]+)')
BUCKET: Final = re.compile(
    r'^signalwarden_decision_duration_seconds_bucket\{le="([^"]+)",stage="total"\} ([0-9.e+]+)$', re.MULTILINE
)
EXTRA: Final = (
    '@id("soak-extra")\nforbid (principal, action == Action::"transfer.create", resource)\n'
    "when { context.request.args has amount && context.request.args.amount > 1000000000 };\n"
)
"""Comes and goes with the reloads, and changes no answer."""


def main() -> int:
    """The command line."""
    arguments = _arguments()
    return verb.run(arguments, lambda: measure(arguments), lambda made: print("\n".join(said(made))))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Soaks signalwarden at half load, on loopback.")
    parser.add_argument("--seconds", type=int, default=600, choices=range(3, 3601), metavar="N")
    parser.add_argument(
        "--rate", type=int, choices=range(1, 200_001), metavar="N", help="not half of what it can"
    )
    parser.add_argument("--front", choices=servers.FRONTS, help="default: native if this build has it")
    parser.add_argument("--influence", choices=("none", "default", "all"), default="none")
    parser.add_argument("--reload-every", type=float, default=RELOAD_S, metavar="SECONDS")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="keep the document")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    return parser.parse_args()


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """The soak, as one document."""
    stage.program("load")
    where = stage.places()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="signalwarden-bench-")))
        missing = stage.native_missing(folder / "native")
        if arguments.front == "native" and missing:
            raise BenchError(f"it can't be measured: {missing}")
        front = arguments.front or ("grpcio" if missing else "native")
        settings = {
            "front": front,
            "influence": arguments.influence,
            "seconds": arguments.seconds,
            "churn_s": CHURN_S,
            "reload_s": arguments.reload_every,
        }
        versions = {"signalwarden": __version__, "build": str(_core.BUILD_PROFILE)}
        made = results.document("soak", settings, versions)
        made["left_out"] += [missing] if missing and not arguments.front else []
        who = _contestant(front, arguments.influence)
        server = stack.enter_context(who.start(where.server, folder))
        stand = Stand(who, server, who.load_file(folder), procfs.memory(server.pid))
        rate = arguments.rate or _half(stand, where)
        verb.say(f"{rate:,} a second for {arguments.seconds} s, front {front}")
        made["soak"] = _soak(stand, where, rate, arguments)
        made["wrong"] += made["soak"].pop("wrong")
    return made


def _contestant(front: str, influence: str) -> servers.Contestant:
    (who,) = (
        each
        for each in servers.contestants(
            (), policies=directory.POLICIES, fronts=(front,), influences=(influence,)
        )
        if each.ours
    )
    return who


def _half(stand: Stand, where: Places) -> int:
    rounds.closed(stand, CAPACITY_S / 3, where.load)
    taken = rounds.closed(stand, CAPACITY_S, where.load)
    return max(1, round(rounds.half(stand, [taken], where)))


def _soak(stand: Stand, where: Places, rate: int, arguments: argparse.Namespace) -> dict[str, Any]:
    server, stop = stand.server, threading.Event()
    if wrong := rounds.compare(stand, cases.CASES):
        raise BenchError(wrong[0])
    written = stage.records_written(server)
    slow_before = over(stage.metrics(server))
    asking = loading.Asking(arguments.seconds, warm_up=1.0, rate=rate)
    before, memory = procfs.read(server.pid), []
    with stage.admin(server) as client, ThreadPoolExecutor(3) as pool:
        load = pool.submit(loading.ask, server.target, stand.requests, asking, where.load)
        churned = pool.submit(
            _again, stop, CHURN_S, lambda _: stage.publish_by(client, directory.signals_body())
        )
        reloads = pool.submit(_again, stop, arguments.reload_every, lambda number: _reload(server, number))
        begun = time.monotonic()
        try:
            while not load.done():
                memory.append({"at_s": round(time.monotonic() - begun, 1), **procfs.memory(server.pid)})
                time.sleep(SAMPLE_S)
        finally:
            stop.set()
        seen, publications, times = load.result(), churned.result(), reloads.result()
    time.sleep(rounds.SETTLE_S)
    after = procfs.read(server.pid)
    records = stage.records_written(server) - written
    wrong = [f"{seen.wrong} calls were answered wrongly or not at all"] if seen.wrong else []
    if records < seen.answered_in_all:
        wrong.append(f"{seen.answered_in_all} answers but {records} records")
    return {
        **asdict(seen),
        "rate": rate,
        "cpu_us": (after.cpu_s - before.cpu_s) / seen.answered_in_all * 1e6,
        "publications": len(publications),
        "reloads": len(times),
        "slowest_reload_s": max(times, default=0.0),
        "server_over_5_ms": over(stage.metrics(server)) - slow_before,
        "server_slowest_us": _slowest(server),
        "memory_mb": [*memory, {"at_s": round(time.monotonic() - begun, 1), **procfs.memory(server.pid)}],
        "wrong": wrong,
    }


def _again(stop: threading.Event, every: float, do: Callable[[int], object]) -> list[float]:
    """Does it over and over until it is told to stop. How long each took, in seconds."""
    times: list[float] = []
    while not stop.wait(every):
        begun = time.monotonic()
        do(len(times))
        times.append(time.monotonic() - begun)
    return times


def _reload(server: Server, number: int) -> None:
    if server.folder is None:
        raise BenchError("the server has no directory that could be reloaded")
    extra = server.folder / "policies" / "extra.cedar"
    if number % 2:
        extra.unlink(missing_ok=True)
    else:
        extra.write_text(EXTRA, encoding="utf-8")
    stage.reload(server)


def over(metrics: str, limit_s: float = SLOW_US / 1e6) -> int:
    """Decisions that the server's own histogram has beyond the limit (its first bound at or above it)."""
    buckets = {float(bound.replace("+Inf", "inf")): float(count) for bound, count in BUCKET.findall(metrics)}
    if not buckets:
        return 0
    bound = min(each for each in buckets if each >= limit_s)
    return round(buckets[max(buckets)] - buckets[bound])


def _slowest(server: Server) -> dict[str, float]:
    """The largest `timing_us.total` of the records that are still there (the log keeps its newest files), and their
    number."""
    if server.folder is None:
        raise BenchError("the server has no directory whose log could be read")
    most, count = 0.0, 0
    for file in sorted((server.folder / "var").glob("decisions*.jsonl")):
        with file.open("rb") as lines:
            for line in lines:
                if found := TOTAL.search(line):
                    most, count = max(most, float(found[1])), count + 1
    return {"us": most, "records_read": count}


def said(made: dict[str, Any]) -> Iterator[str]:
    """For people."""
    soak, machine = made["soak"], made["machine"]
    latency, memory = soak["latency_us"], [each["own"] for each in soak["memory_mb"]]
    yield (
        f"{made['taken']}, {machine['cpu']}, {machine['placement']}, load average {machine['load_average'][0]}, "
        f"front {made['settings']['front']}, influence {made['settings']['influence']}"
    )
    yield from (f"left out: {sentence}" for sentence in made["left_out"])
    yield (
        f"{soak['answered']:,} answers at {soak['rate']:,}/s, {soak['publications']:,} publications, "
        f"{soak['reloads']} reloads (slowest {soak['slowest_reload_s']:.2f} s), {soak['cpu_us']:.1f} µs a check"
    )
    yield (
        f"client: p50 {latency['p50']:,.0f} µs, p99 {latency['p99']:,.0f}, p99.9 {latency['p99_9']:,.0f}, "
        f"slowest {latency['max']:,.0f}; {soak['late']:,} sent late, {soak['unsent']:,} not sent"
    )
    slowest = soak["server_slowest_us"]
    yield (
        f"server: slowest decision {slowest['us']:,.0f} µs of {slowest['records_read']:,} records that are kept, "
        f"{soak['server_over_5_ms']} beyond 5 ms of all"
    )
    yield (
        f"memory of its own: {memory[0]:,.0f} MiB at the start, {memory[len(memory) // 2]:,.0f} in the middle, "
        f"{memory[-1]:,.0f} at the end; resident {soak['memory_mb'][-1]['rss']:,.0f}"
    )
    yield from (f"wrong: {sentence}" for sentence in made["wrong"])


if __name__ == "__main__":
    sys.exit(main())
