"""Writes measured figures into docs/performance.md, between two marks, from result files.

python bench/page.py RESULTS.json… [--page docs/performance.md]      writes
python bench/page.py RESULTS.json… --print                           shows what it would write
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

sys.path.insert(
    0, str(Path(__file__).resolve().parent.parent)
)  # run as a script, `bench` is not found otherwise

from bench import results
from bench.stage import ROOT, BenchError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["BEGIN", "END", "circumstances", "filled", "memory", "tables", "text"]

ERROR: Final = 2
PAGE: Final = ROOT / "docs" / "performance.md"
BEGIN: Final = "<!-- measured: written by bench/page.py from result files; do not edit by hand -->"
END: Final = "<!-- measured: end -->"
Rows = list[list[str]]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Writes measured figures into the page on performance.")
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULTS.json")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--print", action="store_true", dest="shown", help="show it, write nothing")
    arguments = parser.parse_args()
    try:
        section = text([results.read(path) for path in arguments.results])
        if arguments.shown:
            print(section)
        else:
            _write(arguments.page, section)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return ERROR
    return 0


def _write(where: Path, section: str) -> None:
    try:
        where.write_text(filled(where.read_text(encoding="utf-8"), section), encoding="utf-8")
    except OSError as error:
        raise BenchError(f"`{where}` can't be written: {error.strerror}") from error


def filled(whole: str, section: str) -> str:
    """The page with this section between its marks."""
    before, begin, rest = whole.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchError(f"the page has no section between `{BEGIN}` and `{END}`")
    return f"{before}{BEGIN}\n\n{section.strip()}\n\n{END}{after}"


def text(made: Sequence[Mapping[str, Any]]) -> str:
    """The section, in Markdown."""
    parts = []
    for each in made:
        parts.append(f"**{_TITLES[each['kind']]}** {circumstances(each)}")
        parts += [f"Left out: {sentence}." for sentence in each["left_out"]]
        parts += [f"Wrong: {sentence}." for sentence in each["wrong"]]
        for title, rows in tables(each):
            parts.append(f"{title}:\n\n{_markdown(rows)}")
    return "\n\n".join(parts)


_TITLES: Final = {
    "bench": "Beside the floor and the peers.",
    "scales": "As things grow.",
    "soak": "The soak.",
}


def circumstances(made: Mapping[str, Any]) -> str:
    """When, where and of what, in a sentence or two."""
    machine, versions = made["machine"], made["versions"]
    others = ", ".join(
        version if version.startswith(name) else f"{name} {version}"
        for name, version in versions.items()
        if name not in ("signalwarden", "build")
    )
    settings = made["settings"]
    what = {
        "bench": "{policies} policies ({policies_in_play} in play), {signals} signals, {request_bytes} bytes a request",
        "scales": "front `{front}`, influence `{influence}`",
        "soak": "front `{front}`, influence `{influence}`, {seconds} s",
    }[made["kind"]].format(**settings)
    return (
        f"{made['taken'][:10]}, {machine['cpu']}, {machine['cores']} cores, {machine['kernel']}, Python "
        f"{machine['python']}, {machine['placement']}, load average {machine['load_average'][0]} before; signalwarden "
        f"{versions.get('signalwarden', '?')} ({made['commit']}, {versions.get('build', 'unknown')} build)"
        f"{', ' + others if others else ''}; {what}."
    )


def tables(made: Mapping[str, Any]) -> Iterator[tuple[str, Rows]]:
    """Its tables, each with a title; the first row is the head."""
    if made["kind"] == "bench":
        yield from _bench(made)
    for scale in made.get("scales", ()):
        yield f"{scale['name'].capitalize()}, closed loop", _scale(scale)
    if soak := made.get("soak"):
        yield "At half load, while signals change and the directory is reloaded", _soak(soak)


def _bench(made: Mapping[str, Any]) -> Iterator[tuple[str, Rows]]:
    timed = [each for each in made["servers"] if each["closed"]]
    if timed:
        yield "Straight at the check port, 16 calls in flight", _straight(timed)
    if opened := [each for each in made["servers"] if each["open"]]:
        yield "At half of what it can, open loop, microseconds", _latency(made, opened)
    if through := [each for each in (*made["servers"], *made.get("filters", ())) if each["envoy"]]:
        yield "Through Envoy, one worker, 16 connections, requests a second", _through(made, through)
    if budgets := results.budgets(made):
        head = ["wanted", "limit", "measured", ""]
        rows = [
            [
                b.what,
                f"{b.limit:,g} {b.unit}".strip(),
                f"{b.measured:,.2f}",
                "met" if b.met else "**not met**",
            ]
            for b in budgets
        ]
        yield "Held against what was to be reached", [head, *rows]
    if locust := made.get("locust"):
        yield "What locust's users see", _locust(locust)


def _straight(timed: Sequence[Mapping[str, Any]]) -> Rows:
    rows = [
        [
            "server",
            "CPU µs a check (least to most)",
            "checks a second",
            "switches a check",
            "MiB resident (own), idle",
            "after",
        ]
    ]
    for each in timed:
        cpu = [r["cpu_us"] for r in each["closed"]]
        bound = " (the load's limit)" if any(r["load_bound"] for r in each["closed"]) else ""
        rows.append(
            [
                each["name"],
                f"{statistics.median(cpu):.1f} ({min(cpu):.1f} to {max(cpu):.1f})",
                f"{results.median(each['closed'], 'rps'):,.0f}{bound}",
                f"{results.median(each['closed'], 'switches_a_check'):.2f}",
                *(memory(each["memory_mb"].get(when)) for when in ("idle", "after")),
            ]
        )
    return rows


def _latency(made: Mapping[str, Any], opened: Sequence[Mapping[str, Any]]) -> Rows:
    rows = [["server", "rate/s", "p50", "p99", "p99.9", "p99.9 added over the floor", "late sends"]]
    known = results.figures(made)
    for each in opened:
        seen = [r["server"] for r in each["open"]]
        rows.append(
            [
                each["name"],
                f"{each['open'][0]['rate']:,}",
                *(f"{results.median(seen, f'latency_us.{p}'):,.0f}" for p in results.LOG_PERCENTILES),
                f"{known[each['name'] + ': p99.9 added at half load'].median:,.0f}",
                f"{sum(r['late'] for r in seen) / sum(r['answered'] for r in seen):.2%}",
            ]
        )
    return rows


def _through(made: Mapping[str, Any], through: Sequence[Mapping[str, Any]]) -> Rows:
    placements = list(through[0]["envoy"])
    floor = results.server(made, "floor")
    rows = [["server", *(cell for p in placements for cell in (p, "x floor"))]]
    for each in through:
        cells = []
        for placement in placements:
            rps = results.median(each["envoy"][placement], "rps")
            below = results.median(floor["envoy"][placement], "rps") if floor else 0.0
            cells += [f"{rps:,.0f}", f"{rps / below:.2f}" if below else ""]
        rows.append([each["name"], *cells])
    return rows


def _locust(locust: Mapping[str, Any]) -> Rows:
    rows = [["server", "requests", "failed", "a second", "p50 ms", "p99 ms"]]
    runs = [(run["server"], run) for run in locust["runs"]]
    for name, run in (*runs, ("locust's own ceiling", locust["ceiling"])):
        counts = [f"{run['requests']:,}", f"{run['failures']:,}", f"{run['rps']:,.0f}"]
        rows.append([name, *counts, f"{run['p50_ms']:.0f}", f"{run['p99_ms']:.0f}"])
    return rows


def memory(megabytes: Mapping[str, float] | None) -> str:
    """All that is resident, and in brackets what of it is its own."""
    return f"{megabytes['rss']:,.0f} ({megabytes['own']:,.0f})" if megabytes else ""


def _scale(scale: Mapping[str, Any]) -> Rows:
    rows = [[scale["name"], "CPU µs a check", "x the first", "checks a second", "MiB resident (own)"]]
    for point in scale["points"]:
        middle = [statistics.median(point[key]) for key in ("cpu_us", "ratio", "rps")]
        figures = (f"{middle[0]:.1f}", f"{middle[1]:.2f}", f"{middle[2]:,.0f}", memory(point["memory_mb"]))
        rows.append([f"{point['at']:,}", *figures])
    return rows


def _soak(soak: Mapping[str, Any]) -> Rows:
    latency, own = soak["latency_us"], [each["own"] for each in soak["memory_mb"]]
    slowest = soak["server_slowest_us"]
    return [
        ["", "measured"],
        ["answers, at a rate of", f"{soak['answered']:,}, {soak['rate']:,}/s"],
        ["CPU a check, churn and reloads included", f"{soak['cpu_us']:.1f} µs"],
        ["publications of twelve signals; reloads", f"{soak['publications']:,}; {soak['reloads']}"],
        ["client: p50, p99, p99.9, slowest", ", ".join(f"{latency[k]:,.0f}" for k in _SOAKED) + " µs"],
        [
            "server: slowest decision of the records kept",
            f"{slowest['us']:,.0f} µs of {slowest['records_read']:,}",
        ],
        ["server: decisions beyond 5 ms, of all", f"{soak['server_over_5_ms']}"],
        ["memory of its own: start, most, end", f"{own[0]:,.0f}, {max(own):,.0f}, {own[-1]:,.0f} MiB"],
    ]


_SOAKED: Final = ("p50", "p99", "p99_9", "max")


def _markdown(rows: Rows) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
