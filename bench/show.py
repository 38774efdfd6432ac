"""A document of results for people, on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from bench import page, results
from signalwarden.terminal import console

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

__all__ = ["show"]


def show(made: Mapping[str, Any]) -> None:
    """Prints what `make bench` measured."""
    out = console()
    machine, settings = made["machine"], made["settings"]
    out.print(
        f"\n{machine['cpu']}, {machine['cores']} cores ({machine['placement']}), {machine['kernel']}, load average "
        f"{machine['load_average'][0]} before; {made['versions'].get('build', 'unknown')} build of {made['commit']}; "
        f"{settings.get('signals')} signals, {settings.get('policies')} policies, "
        f"{settings.get('request_bytes')} bytes a request, one in ten denied"
    )
    _straight(out, made)
    _latency(out, made)
    _through_envoy(out, made)
    _locust(out, made)
    for sentence in made["left_out"]:
        out.print(f"left out: {sentence}")
    for budget in results.budgets(made):
        met = "met" if budget.met else "NOT met"
        out.print(f"{budget.what}: {budget.measured:.2f} {budget.unit}, wanted {budget.limit:g}: {met}")
    for wrong in made["wrong"]:
        out.print(f"wrong: {wrong}")


def _straight(out: Console, made: Mapping[str, Any]) -> None:
    timed = [each for each in made["servers"] if each["closed"]]
    if not timed:
        return
    table = Table(
        "closed loop", "CPU µs a check", "checks/s", "switches", "idle MiB (own)", "after", box=None
    )
    for each in timed:
        rps = f"{results.median(each['closed'], 'rps'):,.0f}"
        bound = any(r["load_bound"] for r in each["closed"])
        table.add_row(
            each["name"],
            f"{results.median(each['closed'], 'cpu_us'):.1f}",
            f"{rps} (the load's limit)" if bound else rps,
            f"{results.median(each['closed'], 'switches_a_check'):.2f}",
            *(page.memory(each["memory_mb"].get(when)) for when in ("idle", "after")),
        )
    out.print(table)


def _latency(out: Console, made: Mapping[str, Any]) -> None:
    timed = [each for each in made["servers"] if each["open"]]
    if not timed:
        return
    table = Table(
        "open loop, half load", "rate/s", *("p50 µs", "p99 µs", "p99.9 µs"), "p99.9 added", box=None
    )
    for each in timed:
        seen = [r["server"] for r in each["open"]]
        added = results.figures(made)[f"{each['name']}: p99.9 added at half load"].median
        table.add_row(
            each["name"],
            f"{each['open'][0]['rate']:,}",
            *(f"{results.median(seen, f'latency_us.{p}'):,.0f}" for p in results.LOG_PERCENTILES),
            f"{added:,.0f}",
        )
    out.print(table)


def _through_envoy(out: Console, made: Mapping[str, Any]) -> None:
    timed = [each for each in (*made["servers"], *made.get("filters", ())) if each["envoy"]]
    if not timed:
        return
    placements = list(timed[0]["envoy"])
    floor = results.server(made, "floor")
    table = Table("through Envoy", *(f"{p}: req/s, x floor" for p in placements), box=None)
    for each in timed:
        cells = []
        for placement in placements:
            rps = results.median(each["envoy"][placement], "rps")
            below = results.median(floor["envoy"][placement], "rps") if floor else 0
            cells.append(f"{rps:,.0f}" + (f"  {rps / below:.2f}" if below else ""))
        table.add_row(each["name"], *cells)
    out.print(table)


def _locust(out: Console, made: Mapping[str, Any]) -> None:
    locust = made.get("locust")
    if not locust:
        return
    table = Table(
        "locust asks", "requests", "failed", "rps", "p50 ms", "p95 ms", "p99 ms", "reasons", box=None
    )
    runs = [(run["server"], run) for run in locust["runs"]]
    for name, run in (*runs, ("allow-all (locust's own ceiling)", locust["ceiling"])):
        times = [f"{run[key]:.1f}" for key in ("p50_ms", "p95_ms", "p99_ms")]
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(run["reasons"].items()))
        table.add_row(name, str(run["requests"]), str(run["failures"]), f"{run['rps']:.0f}", *times, reasons)
    out.print(table)
    if any(run["rps"] > locust["ceiling"]["rps"] for _, run in runs):
        out.print("locust's ceiling came out below what it reached: something disturbed it, run it longer")
