"""`make bench-scales`: what a check costs as policies, signals, live values, principals, connections and cores grow.

The servers of one scale are up at once and measured in alternating rounds, closed loop; each figure is also given as a
ratio to the first of its scale in the same round. Influence is `none`, the log is on.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

sys.path.insert(
    0, str(Path(__file__).resolve().parent.parent)
)  # run as a script, `bench` is not found otherwise

from bench import cases, procfs, results, rounds, scaled, servers, stage, verb
from bench.rounds import Stand
from bench.servers import Contestant
from bench.stage import BenchError, Places
from signalwarden import __version__, _core
from signalwarden.errors import SignalwardenError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from bench.stage import Server

ROUNDS, ROUND_S, WARM_UP_S = 3, 1.0, 0.5
IN_FLIGHT: Final = 16
"""Calls in flight, whatever the number of connections, as far as it can be."""


@dataclass(frozen=True, slots=True)
class Scale:
    """One thing that grows."""

    name: str
    points: tuple[int, ...]
    quick: tuple[int, ...]
    made: Callable[[Path, int | None, str, int], AbstractContextManager[Server]]
    """A server of that size."""


SCALES: Final = (
    Scale("policies", (10, 100, 1_000, 10_000, 100_000), (10, 100), scaled.of_policies),
    Scale("signals in a decision", (1, 5, 12, 25, 50), (1, 12), scaled.of_signals),
    Scale("live signals", (1_000, 10_000, 100_000, 1_000_000), (1_000, 2_000), scaled.of_live),
    Scale("principals", (1, 100, 10_000), (1, 10), scaled.of_principals),
)
CONNECTIONS: Final = (1, 16, 128, 512)
THREADS: Final = (1, 2)
NAMES: Final = (*(scale.name for scale in SCALES), "connections", "threads")


def main() -> int:
    """The command line."""
    arguments = _arguments()
    return verb.run(arguments, lambda: measure(arguments), lambda made: print("\n".join(said(made))))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures how a check's cost grows, on loopback.")
    parser.add_argument("--front", choices=servers.FRONTS, help="default: native if this build has it")
    parser.add_argument("--only", action="append", choices=NAMES, help="one scale; may be repeated")
    parser.add_argument("--quick", action="store_true", help="small sizes and one round: does it still run")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="keep the document")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    return parser.parse_args()


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All scales, as one document."""
    stage.program("load")
    where = stage.places()
    with tempfile.TemporaryDirectory(prefix="signalwarden-bench-") as folder:
        missing = stage.native_missing(Path(folder) / "native")
        if arguments.front == "native" and missing:
            raise BenchError(f"it can't be measured: {missing}")
        front = arguments.front or ("grpcio" if missing else "native")
        settings = {"front": front, "influence": "none", "in_flight": IN_FLIGHT, "quick": arguments.quick}
        versions = {"signalwarden": __version__, "build": str(_core.BUILD_PROFILE)}
        made = results.document("scales", settings, versions)
        made["left_out"] += [missing] if missing and not arguments.front else []
        wanted = arguments.only or NAMES
        run = _Run(where, front, arguments.quick, made)
        made["scales"] = []
        for number, scale in enumerate(each for each in SCALES if each.name in wanted):
            made["scales"].append(run.sizes(scale, Path(folder) / f"scale-{number}"))
        if "connections" in wanted:
            made["scales"].append(run.connections(Path(folder) / "connections"))
        if "threads" in wanted:
            made["scales"] += run.threads(Path(folder) / "threads")
    return made


@dataclass(frozen=True, slots=True)
class _Run:
    where: Places
    front: str
    quick: bool
    made: dict[str, Any]

    def sizes(self, scale: Scale, folder: Path) -> dict[str, Any]:
        """One scale whose points are servers."""
        with contextlib.ExitStack() as stack:
            stands: dict[int, Stand] = {}
            for at in scale.quick if self.quick else scale.points:
                verb.say(f"{scale.name}: a server of {at:,}")
                own = folder / str(at)
                own.mkdir(parents=True)
                begun = time.monotonic()
                try:
                    server = stack.enter_context(scale.made(own, self.where.server, self.front, at))
                except (BenchError, SignalwardenError) as error:
                    self._left_out(f"{scale.name}, {at:,}, could not be measured: {error}")
                    continue
                verb.say(f"{scale.name}: ready after {time.monotonic() - begun:.1f} s")
                stands[at] = _stand(server, own, scale.name, at, self.front)
            taken = self._alternate([(at, partial(self._closed, stand)) for at, stand in stands.items()])
            return self._said(
                scale.name, taken, [procfs.memory(stand.server.pid) for stand in stands.values()]
            )

    def _left_out(self, sentence: str) -> None:
        verb.say(sentence)
        self.made["left_out"].append(sentence)

    def connections(self, folder: Path) -> dict[str, Any]:
        """One server, asked over more and more connections."""
        folder.mkdir()
        with scaled.of_policies(folder, self.where.server, self.front, 100) as server:
            stand = _stand(server, folder, "connections", 1, self.front)
            points = CONNECTIONS[:2] if self.quick else CONNECTIONS
            taken = self._alternate(
                [(at, partial(self._closed, stand, at, max(1, IN_FLIGHT // at))) for at in points]
            )
        return self._said("connections", taken, [])

    def threads(self, folder: Path) -> list[dict[str, Any]]:
        """The floor and our native front door, each with one thread and with two; nothing is pinned, so that the second
        thread has a core to itself as far as the load leaves it one."""
        found = [self._threads("threads of the floor", _floors, folder)]
        if self.front == "native":
            try:
                found.append(self._threads("threads", scaled.of_threads, folder))
            except (BenchError, SignalwardenError) as error:
                self._left_out(f"threads of the native front door are not measured: {error}")
        return found

    def _threads(self, name: str, start: Any, folder: Path) -> dict[str, Any]:
        with contextlib.ExitStack() as stack:
            timed = []
            for at in THREADS:
                own = folder / name / str(at)
                own.mkdir(parents=True)
                server = stack.enter_context(start(own, None, self.front, at))
                stand = _stand(server, own, name, at, self.front if start is not _floors else None)
                timed.append((at, partial(rounds.closed, stand, self._seconds, None)))
            return self._said(name, self._alternate(timed), [])

    @property
    def _seconds(self) -> float:
        return WARM_UP_S if self.quick else ROUND_S

    def _closed(self, stand: Stand, connections: int = 2, streams: int = 8) -> dict[str, Any]:
        return rounds.closed(stand, self._seconds, self.where.load, connections=connections, streams=streams)

    def _alternate(
        self, timed: Sequence[tuple[int, Callable[[], dict[str, Any]]]]
    ) -> dict[int, list[dict[str, Any]]]:
        for _, measured in timed:
            measured()  # warm
        taken: dict[int, list[dict[str, Any]]] = {at: [] for at, _ in timed}
        for _ in range(1 if self.quick else ROUNDS):
            for at, measured in timed:
                taken[at].append(measured())
        return taken

    def _said(
        self, name: str, taken: dict[int, list[dict[str, Any]]], memory: Sequence[dict[str, float]]
    ) -> dict[str, Any]:
        first = next(iter(taken.values()), [])
        points = []
        for number, (at, seen) in enumerate(taken.items()):
            if count := sum(r["wrong"] for r in seen):
                self.made["wrong"].append(
                    f"{name}, {at:,}: {count} calls were answered wrongly or not at all"
                )
            cpu = [r["cpu_us"] for r in seen]
            point = {
                "at": at,
                "cpu_us": cpu,
                "ratio": [a / b["cpu_us"] for a, b in zip(cpu, first, strict=True)],
                "rps": [r["rps"] for r in seen],
                "memory_mb": memory[number] if memory else None,
            }
            points.append(point)
            verb.say(f"{name}, {at:,}: {statistics.median(cpu):.1f} µs a check")
        return {"name": name, "x": name, "points": points}


@contextlib.contextmanager
def _floors(_: Path, core: int | None, __: str, threads: int) -> Iterator[Server]:
    with stage.floor(core, threads=threads) as server:
        yield server


def _stand(server: Server, folder: Path, scale: str, at: int, front: str | None) -> Stand:
    kind: servers.Kind = "signalwarden" if front else "floor"
    who = Contestant(f"{scale}, {at:,}", kind, "", lambda *_: contextlib.nullcontext(server), front=front)
    of: list[cases.Case] | None = None
    if scale == "principals":
        of = list(scaled.cases_of(scaled.principals(at)))
    return Stand(who, server, who.load_file(folder, of), procfs.memory(server.pid))


def said(made: dict[str, Any]) -> Iterator[str]:
    """For people."""
    machine = made["machine"]
    yield (
        f"{made['taken']}, {machine['cpu']}, {machine['placement']}, load average {machine['load_average'][0]}, "
        f"front {made['settings']['front']}"
    )
    yield from (f"left out: {sentence}" for sentence in made["left_out"])
    for scale in made["scales"]:
        for point in scale["points"]:
            cpu, ratio, rps = (statistics.median(point[key]) for key in ("cpu_us", "ratio", "rps"))
            memory = point["memory_mb"]
            rss = f", {memory['own']:,.0f} MiB of its own" if memory else ""
            yield f"{scale['name']:>22} {point['at']:>9,}: {cpu:8.1f} µs, {ratio:5.2f} x, {rps:,.0f}/s{rss}"
    yield from (f"wrong: {sentence}" for sentence in made["wrong"])


if __name__ == "__main__":
    sys.exit(main())
