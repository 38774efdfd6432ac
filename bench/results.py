"""Results as one JSON document: where it was measured, of what, every round; and the figures that are read out of it.

The document (`schema` names its form, and a reader refuses another):

    schema, kind ("bench" | "scales" | "soak"), taken (RFC 3339), commit, machine{cpu, cores, usable_cores, kernel,
    load_average, placement, python}, versions{name: version}, settings{…}, left_out[sentence], wrong[sentence]
    bench:  servers[{name, kind, front, influence, log, version, memory_mb{idle{rss, own}, after{…}}, closed[round],
            open[{rate, floor: round, server: round}], envoy{placement: [round]}}],
            filters[{name, version, envoy{placement: [round]}}], locust{…}
    scales: scales[{name, x, points[{at, cpu_us[…], ratio[…], rps[…], memory_mb}]}]
    soak:   soak{…}

A round: cpu_us (of the server's process, a check), rps, answered, wrong, late, unsent, outcomes{}, reasons{},
latency_us{min, mean, p50 … p99_99, max, table[[percentile, value]]}, switches_a_check, load_share (of one core),
load_bound. Latencies are microseconds, memory MiB: `rss` is all that is resident, `own` what of it is no file's, mapped
or program.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench import stage
from bench.stage import BenchError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "SCHEMA",
    "Budget",
    "Figure",
    "Floorless",
    "budgets",
    "document",
    "figures",
    "median",
    "read",
    "server",
    "write",
]

SCHEMA: Final = "signalwarden-bench/1"
KINDS: Final = ("bench", "scales", "soak")
FREE, APART = "free", "apart"
"""Placements of Envoy: nothing pinned; or the server alone on its core, Envoy and the load on the other."""
LOG_PERCENTILES: Final = ("p50", "p99", "p99_9")


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: its value in each round that it was taken in."""

    values: tuple[float, ...]
    unit: str
    lower_is_better: bool

    @property
    def median(self) -> float:
        """Its value, where one is to be given."""
        return statistics.median(self.values)


@dataclass(frozen=True, slots=True)
class Budget:
    """A figure that was to be reached, and what was measured."""

    what: str
    limit: float
    measured: float
    lower_is_better: bool
    unit: str

    @property
    def met(self) -> bool:
        """Whether it was reached."""
        return self.measured <= self.limit if self.lower_is_better else self.measured >= self.limit


class Floorless(BenchError):
    """A document without a floor: nothing can be said beside it."""


# ---- the document ---------------------------------------------------------------------------------------


def document(kind: str, settings: Mapping[str, Any], versions: Mapping[str, str]) -> dict[str, Any]:
    """An empty document, taken here and now. Call it before the load begins: it reads the load average."""
    return {
        "schema": SCHEMA,
        "kind": kind,
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": machine(),
        "versions": dict(versions),
        "settings": dict(settings),
        "left_out": [],
        "wrong": [],
    }


def machine() -> dict[str, Any]:
    """Where it is measured."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return {
        "cpu": cpu_model(_text(Path("/proc/cpuinfo"))) or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": usable,
        "kernel": f"{platform.system()} {platform.release()}",
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "placement": str(stage.places()),
        "python": platform.python_version(),
    }


def cpu_model(cpuinfo: str) -> str:
    """The first `model name` of /proc/cpuinfo, or an empty text."""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _commit() -> str:
    """The commit, with `+` behind it if files differ from it; `unknown` outside of a repository."""
    command = ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"]
    try:
        said = subprocess.run(
            command, cwd=stage.ROOT, capture_output=True, text=True, timeout=stage.END_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return said.stdout.strip()


def write(made: Mapping[str, Any], path: Path) -> None:
    """Writes it, whole or not at all."""
    fresh = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
        fresh.replace(path)
    except OSError as error:
        raise BenchError(f"`{path}` can't be written: {error.strerror}") from error


def read(path: Path) -> dict[str, Any]:
    """Reads one. A `BenchError` in one sentence if it is none, or of another form."""
    try:
        made = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BenchError(f"`{path}` can't be read: {error.strerror}") from error
    except ValueError:
        raise BenchError(f"`{path}` is no JSON") from None
    schema = made.get("schema") if isinstance(made, dict) else None
    if schema != SCHEMA:
        raise BenchError(
            f"`{path}` is no result that this bench reads: its schema is `{schema}`, not `{SCHEMA}`"
        )
    if made.get("kind") not in KINDS:
        raise BenchError(f"`{path}` is a result of an unknown kind, `{made.get('kind')}`")
    return dict(made)


# ---- figures --------------------------------------------------------------------------------------------


def median(rounds: Sequence[Mapping[str, Any]], key: str) -> float:
    """The median of a key over rounds; `latency_us.p99` reads inside."""
    return statistics.median(_value(each, key) for each in rounds)


def _value(of: Mapping[str, Any], key: str) -> float:
    value: Any = of
    for part in key.split("."):
        value = value[part]
    return float(value)


def server(made: Mapping[str, Any], kind: str, **wanted: Any) -> dict[str, Any] | None:
    """The first server of that kind with these properties, or None."""
    for each in made.get("servers", ()):
        if each["kind"] == kind and all(each.get(key) == value for key, value in wanted.items()):
            return dict(each)
    return None


def figures(made: Mapping[str, Any]) -> dict[str, Figure]:
    """Every figure of a document by its name, for comparing two of them."""
    found: dict[str, Figure] = {}
    for each in made.get("servers", ()):
        for what, figure in _of_server(made, each).items():
            found[f"{each['name']}: {what}"] = figure
    for each in made.get("filters", ()):
        for placement, rounds in each["envoy"].items():
            rps = tuple(float(r["rps"]) for r in rounds)
            found[f"{each['name']}: through Envoy, {placement}"] = Figure(rps, "/s", False)
    for scale in made.get("scales", ()):
        for point in scale["points"]:
            where = f"{scale['name']} {point['at']:,}"
            found[f"{where}: CPU a check"] = Figure(tuple(point["cpu_us"]), "µs", True)
            found[f"{where}: beside the first"] = Figure(tuple(point["ratio"]), "x", True)
    if soak := made.get("soak"):
        found["soak: p99.9"] = Figure((float(soak["latency_us"]["p99_9"]),), "µs", True)
        found["soak: slowest call"] = Figure((float(soak["latency_us"]["max"]),), "µs", True)
        found["soak: memory at the end"] = Figure((float(soak["memory_mb"][-1]["own"]),), "MiB", True)
    return found


def _of_server(made: Mapping[str, Any], each: Mapping[str, Any]) -> dict[str, Figure]:
    found: dict[str, Figure] = {}
    floor = server(made, "floor")
    if rounds := each["closed"]:
        cpu = tuple(float(r["cpu_us"]) for r in rounds)
        found["CPU a check"] = Figure(cpu, "µs", True)
        found["checks a second"] = Figure(tuple(float(r["rps"]) for r in rounds), "/s", False)
        found["context switches a check"] = Figure(
            tuple(float(r["switches_a_check"]) for r in rounds), "", True
        )
        bare = server(made, "allow-all")
        if bare and len(bare["closed"]) == len(rounds) and each["kind"] != "allow-all":
            ratios = tuple(a / float(b["cpu_us"]) for a, b in zip(cpu, bare["closed"], strict=True))
            found["CPU beside grpcio allow-all"] = Figure(ratios, "x", True)
    for name in LOG_PERCENTILES if each["open"] else ():
        added = tuple(
            float(r["server"]["latency_us"][name]) - float(r["floor"]["latency_us"][name])
            for r in each["open"]
        )
        found[f"{said(name)} added at half load"] = Figure(added, "µs", True)
    for placement, rounds in each["envoy"].items():
        found[f"through Envoy, {placement}"] = Figure(tuple(float(r["rps"]) for r in rounds), "/s", False)
        if floor and len(floor["envoy"].get(placement, ())) == len(rounds) and each["kind"] != "floor":
            pairs = zip(rounds, floor["envoy"][placement], strict=True)
            ratios = tuple(float(a["rps"]) / float(b["rps"]) for a, b in pairs)
            found[f"through Envoy beside the floor, {placement}"] = Figure(ratios, "x", False)
    for when, memory in each["memory_mb"].items():
        found[f"memory {when}"] = Figure((float(memory["rss"]),), "MiB", True)
        found[f"memory of its own {when}"] = Figure((float(memory["own"]),), "MiB", True)
    return found


def said(percentile: str) -> str:
    """`p99_9` as people write it."""
    return percentile.replace("_", ".")


# What was to be reached: DESIGN's budgets and the figures of the work on the native front door.
_BUDGETS: Final = (
    ({"front": "grpcio", "influence": "default"}, "CPU beside grpcio allow-all", 1.4, True),
    ({"front": "native", "influence": "none"}, "CPU a check", 20.0, True),
    ({"front": "native", "influence": "default"}, "CPU a check", 40.0, True),
    ({"front": "native", "influence": "none"}, f"through Envoy beside the floor, {FREE}", 0.85, False),
    ({"front": "native", "influence": "none"}, f"through Envoy beside the floor, {APART}", 0.85, False),
    ({"front": "native", "influence": "none"}, "p99.9 added at half load", 1_000.0, True),
    ({"front": "native", "influence": "none"}, "memory idle", 60.0, True),
    ({"front": "native", "influence": "none"}, "memory of its own idle", 60.0, True),
)


def budgets(made: Mapping[str, Any]) -> list[Budget]:
    """What was to be reached, as far as this document measured it."""
    known = figures(made)
    found = []
    for wanted, what, limit, lower in _BUDGETS:
        who = server(made, "signalwarden", **wanted)
        figure = known.get(f"{who['name']}: {what}") if who else None
        if who and figure:
            found.append(Budget(f"{who['name']}: {what}", limit, figure.median, lower, figure.unit))
    return found
