"""`make bench`: what users feel (locust), and what a check costs beside a bare grpcio server (budget 1.4 x).

Starts the real server on a directory of its own, loads it, compares it with `allow_all.py` in alternating rounds,
prints figures and ends everything that it started. See README.md for what the figures mean.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table

sys.path.insert(
    0, str(Path(__file__).resolve().parent.parent)
)  # run as a script, `bench` is not found otherwise

from bench import directory, load, stage
from bench.stage import ROOT, BenchError, Places, Server
from signalwarden import __version__, _core
from signalwarden.errors import SignalwardenError
from signalwarden.server import default_workers
from signalwarden.terminal import console

if TYPE_CHECKING:
    from collections.abc import Iterator

BUDGET: Final = 1.4
"""DESIGN section 10: processor time of a check, log on, beside an allow-all grpcio handler."""
USERS: Final = 8
"""Enough to keep both cores busy; more only wait."""
CEILING_SHARE, CEILING_LEAST_S, CEILING_MOST_S = 0.25, 3, 10
"""How much of the time locust gets for the server that does nothing: its ceiling needs no tails."""
ROUNDS: Final = 5
ROUND_S: Final = 2.0
"""A clock tick is 10 ms: half a percent of a round. Short, so that a neighbour's burst meets both servers."""
WARM_UP_S: Final = 0.5
SETTLE_S: Final = 0.6
"""A record is on disk within 0.5 s: what a round's records cost counts in that round."""
SETTLE_MOST_S: Final = 30.0
"""With `influence: all` a record costs more than its answer, and the log is behind when the load ends."""
LOCUST_EXTRA_S: Final = 45.0
"""Beyond the run itself: locust's imports and its end on a busy machine."""
FAILED, ERROR, ENDED = 1, 2, 143


@dataclass(frozen=True, slots=True)
class Round:
    """Processor time of one answer, in microseconds, and what the load saw."""

    server: str
    cpu_us: float
    answered: int
    failed: int
    rps: float
    p50_ms: float
    p99_ms: float


def main() -> int:
    """The command line."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(ENDED))
    try:
        figures = measure(arguments)
    except (BenchError, SignalwardenError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return ERROR
    except KeyboardInterrupt:
        return 130
    if arguments.json:
        print(json.dumps(figures, indent=2))
    else:
        show(figures)
    return FAILED if figures["wrong"] else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures the front door of signalwarden, on loopback.")
    parser.add_argument(
        "--seconds", type=_positive, default=60, metavar="N", help="locust's run (default 60)"
    )
    parser.add_argument(
        "--rounds", type=_positive, default=ROUNDS, metavar="N", help="rounds of the comparison"
    )
    parser.add_argument("--policies", type=_tens, default=directory.POLICIES, metavar="N", help="default 100")
    parser.add_argument(
        "--influence", choices=("none", "default", "all"), default="default", help="as in signalwarden.yaml"
    )
    parser.add_argument("--report", type=Path, metavar="FILE.html", help="locust's own report")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"`{text}` is not a whole number above 0")
    return number


def _tens(text: str) -> int:
    number = _positive(text)
    if number % directory.IN_PLAY:
        raise argparse.ArgumentTypeError(f"policies come in tens, not `{text}`")
    return number


# ---- measuring ------------------------------------------------------------------------------------------


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything, as one document."""
    where = stage.places()
    report = arguments.report.resolve() if arguments.report else None
    if report is not None and not report.parent.is_dir():
        raise BenchError(f"`{report.parent}` is not a directory for the report")
    machine = _machine(where)
    with _stage(where, arguments.policies, arguments.influence) as (folder, ours, bare):
        _say(f"locust asks signalwarden for {arguments.seconds} s, {USERS} users")
        locust = _locust(folder, ours, where, arguments.seconds, report=report)
        _settle(ours, locust["requests"] - locust["failures"])
        ceiling_s = min(max(round(arguments.seconds * CEILING_SHARE), CEILING_LEAST_S), CEILING_MOST_S)
        _say(f"locust asks the allow-all server for {ceiling_s} s: its own ceiling")
        ceiling = _locust(folder, bare, where, ceiling_s, allow_all=True)
        rounds = _compare(ours, bare, where, arguments.rounds)
        written = stage.records_written(ours)
    asked = (
        locust["requests"]
        - locust["failures"]
        + sum(r.answered for r in rounds if r.server == "signalwarden")
    )
    failed = [*locust["errors"], *ceiling["errors"]]
    failed += [f"{r.failed} calls to {r.server} failed in a round" for r in rounds if r.failed]
    if written < asked:
        failed.append(f"{asked} answers but {written} records")
    return {
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "directory": {
            "signals": len(directory.SIGNALS),
            "policies": arguments.policies,
            "in_play": directory.IN_PLAY,
            "influence": arguments.influence,
        },
        "request_bytes": len(directory.allowed_request()),
        "locust": locust,
        "locust_ceiling": ceiling,
        "front_door": _front_door(rounds),
        "records_written": written,
        "wrong": failed,
    }


@contextlib.contextmanager
def _stage(where: Places, policies: int, influence: str) -> Iterator[tuple[Path, Server, Server]]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="signalwarden-bench-")))
        _say(
            f"a directory of {len(directory.SIGNALS)} signals and {policies} policies, and two servers ({where})"
        )
        ours = stack.enter_context(
            stage.signalwarden(folder, where.server, policies=policies, influence=influence)
        )
        bare = stack.enter_context(stage.allow_all(where.server))
        yield folder, ours, bare


def _locust(
    folder: Path,
    server: Server,
    where: Places,
    seconds: int,
    *,
    report: Path | None = None,
    allow_all: bool = False,
) -> dict[str, Any]:
    out = folder / "locust.json"
    out.unlink(missing_ok=True)
    command = [
        sys.executable, "-m", "locust", "-f", str(ROOT / "bench" / "locustfile.py"), "--headless",
        "--host", f"grpc://127.0.0.1:{server.port}", "--users", str(USERS), "--spawn-rate", "100",
        "--run-time", f"{seconds}s", "--stop-timeout", "5", "--loglevel", "ERROR", "--only-summary",
        *(["--html", str(report)] if report else []),
    ]  # fmt: skip
    environment = {**os.environ, "SIGNALWARDEN_BENCH_OUT": str(out)}
    environment |= {"SIGNALWARDEN_BENCH_ALLOW_ALL": "1"} if allow_all else {}
    ended = _run(stage.pinned(where.load, command), seconds + LOCUST_EXTRA_S, environment=environment)
    if not out.exists():
        last = ended.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise BenchError(f"locust ended with status {ended.returncode} and no figures: {last[0]}")
    figures: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    if not figures["requests"]:
        raise BenchError("locust got no answer: nothing was measured")
    return {"users": USERS, "seconds": seconds, **figures}


def _compare(ours: Server, bare: Server, where: Places, number: int) -> list[Round]:
    if not Path(f"/proc/{ours.pid}/stat").exists():
        raise BenchError(
            "the comparison reads processor time from /proc, which this system has not: run it on Linux"
        )
    servers = {"allow-all": bare, "signalwarden": ours}
    for name, server in servers.items():
        _round(name, server, where, WARM_UP_S)
    rounds = []
    for index in range(number):
        for name, server in servers.items():
            rounds.append(_round(name, server, where, ROUND_S))
        a, b = rounds[-2:]
        _say(
            f"round {index + 1} of {number}: {a.cpu_us:.0f} µs allow-all, {b.cpu_us:.0f} µs signalwarden, "
            f"{b.cpu_us / a.cpu_us:.2f} x"
        )
    return rounds


def _round(name: str, server: Server, where: Places, seconds: float) -> Round:
    written = stage.records_written(server) if server.admin_port else 0
    before = stage.cpu_seconds(server.pid)
    seen = _load(server, where, seconds)
    _settle(server, written + seen["answered"])
    used = stage.cpu_seconds(server.pid) - before
    if name == "signalwarden" and seen["reasons"] != {"allowed": seen["answered"]}:
        raise BenchError(f"expected {seen['answered']} times `allowed`, got {seen['reasons']}")
    return Round(
        name,
        used / seen["answered"] * 1e6,
        seen["answered"],
        seen["failed"],
        seen["answered"] / seen["seconds"],
        seen["p50_ms"],
        seen["p99_ms"],
    )


def _settle(server: Server, records: int) -> None:
    """Waits until what was answered is in the log, as far as there is one."""
    time.sleep(SETTLE_S)
    deadline = time.monotonic() + SETTLE_MOST_S
    while server.admin_port and stage.records_written(server) < records:
        if time.monotonic() > deadline:
            raise BenchError(f"{records} records were not in the log {SETTLE_MOST_S:g} s after their answers")
        time.sleep(SETTLE_S)


def _load(server: Server, where: Places, seconds: float) -> dict[str, Any]:
    command = [sys.executable, str(ROOT / "bench" / "load.py"), str(server.port), str(seconds)]
    ended = _run(
        stage.pinned(where.load, command), seconds + LOCUST_EXTRA_S, stdin=directory.allowed_request()
    )
    if ended.returncode:
        raise BenchError(ended.stderr.decode(errors="replace").strip().splitlines()[-1])
    seen: dict[str, Any] = json.loads(ended.stdout)
    if not seen["answered"]:
        raise BenchError("the load generator got no answer: nothing was measured")
    return seen


def _run(
    command: list[str], timeout_s: float, *, environment: dict[str, str] | None = None, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            input=stdin,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"`{Path(command[-1]).name}` did not end within {timeout_s:g} s") from error
    except OSError as error:
        raise BenchError(f"`{command[0]}` can't be started: {error.strerror}") from error


def _front_door(rounds: list[Round]) -> dict[str, Any]:
    by_server = {name: [r for r in rounds if r.server == name] for name in ("allow-all", "signalwarden")}
    ratios = [
        b.cpu_us / a.cpu_us for a, b in zip(by_server["allow-all"], by_server["signalwarden"], strict=True)
    ]
    median = statistics.median(ratios)
    return {
        "cpu_us": {name: statistics.median(r.cpu_us for r in of) for name, of in by_server.items()},
        "ratio": {"min": min(ratios), "median": median, "max": max(ratios)},
        "budget": BUDGET,
        "met": median <= BUDGET,
        "threads": default_workers(),
        "rounds": [asdict(r) for r in rounds],
    }


def _machine(where: Places) -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "placement": str(where),
        "load_average_before": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "grpcio": importlib.metadata.version("grpcio"),
        "locust": importlib.metadata.version("locust"),
        "signalwarden": __version__,
        "extension": str(getattr(_core, "BUILD_PROFILE", "unknown")),
    }


# ---- saying ---------------------------------------------------------------------------------------------


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def show(figures: dict[str, Any]) -> None:
    """The figures for people."""
    out = console()
    machine, door = figures["machine"], figures["front_door"]
    out.print(
        f"\n{machine['cores']} cores ({machine['placement']}), load average {machine['load_average_before']:.1f} "
        f"before; Python {machine['python']}, grpcio {machine['grpcio']}, extension built as {machine['extension']}; "
        f"{figures['directory']['signals']} signals, {figures['directory']['policies']} policies, "
        f"influence {figures['directory']['influence']}, "
        f"{figures['request_bytes']} bytes a request"
    )
    table = Table(
        "locust asks", "requests", "failures", "rps", "p50 ms", "p95 ms", "p99 ms", "reasons", box=None
    )
    for name, run in (
        ("signalwarden", figures["locust"]),
        ("allow-all (locust's ceiling)", figures["locust_ceiling"]),
    ):
        times = [f"{run[key]:.1f}" for key in ("p50_ms", "p95_ms", "p99_ms")]
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(run["reasons"].items()))
        table.add_row(name, str(run["requests"]), str(run["failures"]), f"{run['rps']:.0f}", *times, reasons)
    out.print(table)
    table = Table(
        f"{load.CONNECTIONS * load.CALLS} calls in flight",
        "CPU µs a check",
        "rps",
        "p50 ms",
        "p99 ms",
        box=None,
    )
    for name, cpu_us in door["cpu_us"].items():
        of = [r for r in door["rounds"] if r["server"] == name]
        middle = [statistics.median(r[key] for r in of) for key in ("rps", "p50_ms", "p99_ms")]
        table.add_row(name, f"{cpu_us:.0f}", f"{middle[0]:.0f}", f"{middle[1]:.1f}", f"{middle[2]:.1f}")
    out.print(table)
    if figures["locust_ceiling"]["rps"] < figures["locust"]["rps"]:
        out.print(
            "locust's ceiling came out below what it asked of signalwarden: something disturbed it, run it longer"
        )
    ratio, met = door["ratio"], "met" if door["met"] else "not met"
    out.print(
        f"CPU of a check beside allow-all: {ratio['median']:.2f} x (min {ratio['min']:.2f}, max {ratio['max']:.2f}, "
        f"{len(door['rounds']) // 2} rounds, {door['threads']} threads, log on); budget {door['budget']} x: {met}"
    )
    for wrong in figures["wrong"]:
        out.print(f"wrong: {wrong}")


if __name__ == "__main__":
    sys.exit(main())
