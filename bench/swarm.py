"""Runs locust, headless: its profiles against signalwarden, and its own ceiling against a server that does nothing.

    python bench/swarm.py --profile spike --door http --front native --seconds 60 --report spike.html

Locust is a Python program: the rate that it reaches is mostly its own. So the same load on a server that lets
everything through is measured beside it, and printed: what comes near that ceiling says nothing about the server.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

sys.path.insert(
    0, str(Path(__file__).resolve().parent.parent)
)  # run as a script, `bench` is not found otherwise

from bench import directory, servers, stage, through_envoy
from bench.profiles import PROFILES
from bench.stage import BenchError, Places, Server
from bench.through_envoy import Listener
from signalwarden.errors import SignalwardenError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.rounds import Stand

__all__ = ["measure", "swarm"]

FAILED, ERROR, INTERRUPTED, ENDED = 1, 2, 130, 143
USERS: Final = 8
"""Enough to keep both cores busy; more only wait."""
CEILING_SHARE, CEILING_LEAST_S, CEILING_MOST_S = 0.25, 3, 10
"""How much of the time locust gets for the server that does nothing: its ceiling needs no tails."""
EXTRA_S: Final = 60.0
"""Beyond the run itself: locust's imports and its end on a busy machine."""
DOORS: Final = {"grpc": "locustfile.py", "http": "locust_http.py"}


def swarm(
    url: str,
    where: Places,
    seconds: int,
    folder: Path,
    *,
    door: str = "grpc",
    profile: str = "steady",
    users: int = USERS,
    admin: Server | None = None,
    report: Path | None = None,
    allow_all: bool = False,
) -> dict[str, Any]:
    """One run. `admin`: the server whose signals and directory the profile changes meanwhile."""
    out = folder / "locust.json"
    out.unlink(missing_ok=True)
    command = [
        sys.executable, "-m", "locust", "-f", str(stage.ROOT / "bench" / DOORS[door]), "--headless",
        "--stop-timeout", "5", "--loglevel", "ERROR", "--only-summary",
        *(["--html", str(report)] if report else []),
    ]  # fmt: skip
    environment = {
        **os.environ,
        "SIGNALWARDEN_BENCH_OUT": str(out),
        "SIGNALWARDEN_BENCH_HOST": url,
        "SIGNALWARDEN_BENCH_PROFILE": profile,
        "SIGNALWARDEN_BENCH_USERS": str(users),
        "SIGNALWARDEN_BENCH_SECONDS": str(seconds),
        "SIGNALWARDEN_BENCH_ALLOW_ALL": "1" if allow_all else "0",
        "SIGNALWARDEN_BENCH_ADMIN": f"http://127.0.0.1:{admin.admin_port}" if admin else "",
        "SIGNALWARDEN_BENCH_TOKEN": admin.token if admin else "",
    }
    ended = _run(stage.pinned(where.load, command), seconds + EXTRA_S, environment)
    if not out.exists():
        last = ended.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise BenchError(f"locust ended with status {ended.returncode} and no figures: {last[0]}")
    figures: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    if not figures["requests"]:
        raise BenchError("locust got no answer: nothing was measured")
    return {"users": users, "seconds": seconds, "door": door, **figures}


def _run(
    command: list[str], timeout_s: float, environment: dict[str, str]
) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            command,
            cwd=stage.ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"locust did not end within {timeout_s:g} s") from error
    except OSError as error:
        raise BenchError(f"`{command[0]}` can't be started: {error.strerror}") from error


def measure(
    stands: Sequence[Stand], where: Places, seconds: int, folder: Path, report: Path | None
) -> dict[str, Any]:
    """Steady load on each of our fronts (the last influence of each, which is the default one), and the ceiling."""
    ours = {stand.who.front: stand for stand in stands if stand.who.ours and not stand.server.unix}
    runs = []
    for number, stand in enumerate(ours.values()):
        _say(f"locust asks {stand.who.name} for {seconds} s, {USERS} users")
        html = report.resolve() if report and not number else None
        seen = swarm(_url(stand.server), where, seconds, folder, report=html)
        runs.append({"server": stand.who.name, **seen})
    ceiling = _ceiling(_url(stands[0].server), where, seconds, folder)
    errors = [f"locust: {run['server']}: {error}" for run in runs for error in run["errors"]]
    return {"runs": runs, "ceiling": ceiling, "errors": errors}


def _url(server: Server) -> str:
    return f"grpc://{server.target}"


def _ceiling(url: str, where: Places, seconds: int, folder: Path, *, door: str = "grpc") -> dict[str, Any]:
    for_s = min(max(round(seconds * CEILING_SHARE), CEILING_LEAST_S), CEILING_MOST_S)
    _say(f"locust asks the allow-all server for {for_s} s: its own ceiling")
    return swarm(url, where, for_s, folder, door=door, allow_all=True)


# ---- one profile, by hand -------------------------------------------------------------------------------


def main() -> int:
    """The command line."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(ENDED))
    try:
        figures = one(arguments)
    except (BenchError, SignalwardenError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return ERROR
    except KeyboardInterrupt:
        return INTERRUPTED
    print(json.dumps(figures, indent=1) if arguments.json else "\n".join(_said(figures)))
    return FAILED if figures["run"]["errors"] else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Runs one profile of locust against signalwarden, on loopback."
    )
    parser.add_argument("--profile", choices=tuple(PROFILES), default="steady")
    parser.add_argument("--door", choices=tuple(DOORS), default="grpc", help="the check port, or Envoy")
    parser.add_argument("--front", choices=servers.FRONTS, default="grpcio", help="which front door")
    parser.add_argument("--influence", choices=("none", "default", "all"), default="default")
    parser.add_argument("--users", type=int, default=USERS, choices=range(1, 1001), metavar="N")
    parser.add_argument("--seconds", type=int, default=60, choices=range(1, 3601), metavar="N")
    parser.add_argument("--report", type=Path, metavar="FILE.html", help="locust's own report")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    return parser.parse_args()


def one(arguments: argparse.Namespace) -> dict[str, Any]:
    """The profile on a server of its own, and locust's ceiling."""
    where = stage.places()
    report = arguments.report.resolve() if arguments.report else None
    if report is not None and not report.parent.is_dir():
        raise BenchError(f"`{report.parent}` is not a directory for the report")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="signalwarden-bench-")))
        if arguments.front == "native" and (sentence := stage.native_missing(folder / "native")):
            raise BenchError(f"it can't be measured: {sentence}")
        ours = stack.enter_context(
            stage.signalwarden(
                folder,
                where.server,
                policies=directory.POLICIES,
                influence=arguments.influence,
                front=arguments.front,
                plain=True,
            )
        )
        bare = stack.enter_context(stage.floor(where.server))
        urls = stack.enter_context(_urls(arguments.door, folder, ours, bare, where))
        _say(f"locust: {arguments.profile}, {arguments.users} users, {arguments.seconds} s")
        run = swarm(
            urls["ours"],
            where,
            arguments.seconds,
            folder,
            door=arguments.door,
            profile=arguments.profile,
            users=arguments.users,
            admin=ours,
            report=report,
        )
        ceiling = _ceiling(urls["bare"], where, arguments.seconds, folder, door=arguments.door)
    return {"run": run, "ceiling": ceiling}


@contextlib.contextmanager
def _urls(door: str, folder: Path, ours: Server, bare: Server, where: Places) -> Iterator[dict[str, str]]:
    if door == "grpc":
        yield {"ours": _url(ours), "bare": _url(bare)}
        return
    listeners = [Listener("ours", ours.target), Listener("bare", bare.target)]
    with through_envoy.started(folder, listeners, where.server) as envoy:
        yield {name: f"http://127.0.0.1:{port}" for name, port in envoy.ports.items()}


def _said(figures: dict[str, Any]) -> Iterator[str]:
    run, ceiling = figures["run"], figures["ceiling"]
    for name, seen in ((f"{run['profile']}, {run['door']}", run), ("locust's own ceiling", ceiling)):
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(seen["reasons"].items()))
        yield (
            f"{name}: {seen['requests']} requests, {seen['failures']} failed, {seen['rps']:.0f}/s, "
            f"p50 {seen['p50_ms']:.0f} ms, p95 {seen['p95_ms']:.0f} ms, p99 {seen['p99_ms']:.0f} ms; {reasons}"
        )
    for error in run["errors"]:
        yield f"wrong: {error}"


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
