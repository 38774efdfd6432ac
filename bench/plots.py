"""Draws result files: latency percentiles, processor time a check, throughput through Envoy, scaling, memory of a soak.

    python bench/plots.py RESULTS.json… --to FOLDER      SVG and PNG of each figure, and one page with all of them

`report.html` has every figure inside it and needs nothing else: it can be sent as it is.
"""

from __future__ import annotations

import argparse
import html
import io
import re
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

sys.path.insert(
    0, str(Path(__file__).resolve().parent.parent)
)  # run as a script, `bench` is not found otherwise

import matplotlib as mpl

mpl.use("Agg")
from matplotlib.figure import Figure as Canvas

from bench import page, results
from bench.stage import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from matplotlib.axes import Axes

__all__ = ["draw", "drawn", "report"]

ERROR: Final = 2
COLOURS: Final = {"floor": "#9aa5b1", "allow-all": "#c8b68a", "signalwarden": "#1f6f8b", "peer": "#b5651d"}
PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9, 99.99)
BEYOND: Final = 99.995
"""Beyond it single calls decide: the axis ends there."""
STYLE: Final[dict[Any, Any]] = {
    "svg.hashsalt": "signalwarden",  # the same figures give the same file
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Draws result files of the bench.")
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULTS.json")
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER")
    arguments = parser.parse_args()
    try:
        made = [results.read(path) for path in arguments.results]
        written = draw(made, arguments.to)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return ERROR
    print("\n".join(str(path) for path in written))
    return 0


def draw(made: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Writes everything into the folder. What was written, the page last."""
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with mpl.rc_context(STYLE):
            figures = [(document, list(drawn(document))) for document in made]
            for _, pictures in figures:
                for name, canvas in pictures:
                    for kind in ("svg", "png"):
                        path = folder / f"{name}.{kind}"
                        path.write_bytes(_bytes(canvas, kind))
                        written.append(path)
            whole = folder / "report.html"
            whole.write_text(report(figures), encoding="utf-8")
    except OSError as error:
        raise BenchError(f"`{error.filename or folder}` can't be written: {error.strerror}") from error
    return [*written, whole]


def drawn(made: Mapping[str, Any]) -> Iterator[tuple[str, Canvas]]:
    """Each figure of a document with the name of its file."""
    timed = [each for each in made.get("servers", ()) if each["closed"]]
    if timed:
        bars = [(e, [r["cpu_us"] for r in e["closed"]]) for e in timed]
        yield "cpu-per-check", _bars("CPU of a check, its record included", "µs, median of rounds", bars)
    if open_ := [each for each in made.get("servers", ()) if each["open"]]:
        yield "latency-percentiles", _latency(open_)
    for placement in (results.FREE, results.APART):
        through = [e for e in made.get("servers", ()) if e["envoy"].get(placement)]
        if through:
            bars = [(e, [r["rps"] for r in e["envoy"][placement]]) for e in through]
            title = f"through Envoy, one worker, 16 connections ({placement})"
            yield f"through-envoy-{placement}", _bars(title, "requests a second", bars)
    for scale in made.get("scales", ()):
        yield f"scale-{_slug(scale['name'])}", _scale(scale)
    if soak := made.get("soak"):
        yield "soak-memory", _memory(soak)


def _bars(title: str, unit: str, bars: Sequence[tuple[Mapping[str, Any], Sequence[float]]]) -> Canvas:
    canvas, axes = _canvas(title, height=0.9 + 0.32 * len(bars))
    for at, (each, values) in enumerate(reversed(bars)):
        middle = statistics.median(values)
        axes.barh(at, middle, color=COLOURS.get(each["kind"], "#777777"), height=0.7)
        axes.plot([min(values), max(values)], [at, at], color="black", linewidth=1)
        axes.annotate(
            f" {middle:,.1f}" if middle < 1_000 else f" {middle:,.0f}", (max(values), at), va="center"
        )
    axes.set_yticks(range(len(bars)), [each["name"] for each, _ in reversed(bars)])
    axes.set_xlabel(f"{unit}; the line is from the least to the most of the rounds")
    axes.margins(x=0.15)
    return canvas


def _latency(servers: Sequence[Mapping[str, Any]]) -> Canvas:
    """Of the last round of each: a percentile's axis that is even in its distance to 100 %."""
    canvas, axes = _canvas("latency at half load, from the moment of sending", height=4.0)
    for each in servers:
        table = each["open"][-1]["server"]["latency_us"]["table"]
        points = [(1 / (1 - p / 100), value) for p, value in table if p < BEYOND]
        style = "-" if each["kind"] != "peer" else "--"
        label = f"{each['name']} at {each['open'][-1]['rate']:,}/s"
        axes.plot(*zip(*points, strict=True), style, label=label, linewidth=1.2)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks([1 / (1 - p / 100) for p in PERCENTILES], [f"p{p:g}" for p in PERCENTILES])
    axes.set_xticks([], minor=True)
    axes.set_ylabel("µs")
    axes.legend(frameon=False, fontsize=7)
    axes.grid(visible=True, alpha=0.3)
    return canvas


def _scale(scale: Mapping[str, Any]) -> Canvas:
    canvas, axes = _canvas(f"CPU of a check as {scale['x']} grow", height=2.8)
    at = [point["at"] for point in scale["points"]]
    middle = [statistics.median(point["cpu_us"]) for point in scale["points"]]
    axes.plot(at, middle, "o-", color=COLOURS["signalwarden"])
    for x, y, point in zip(at, middle, scale["points"], strict=True):
        axes.annotate(
            f"{statistics.median(point['ratio']):.2f} x", (x, y), (0, 5), textcoords="offset points"
        )
    if max(at) / min(at) >= 10:
        axes.set_xscale("log")
    axes.set_xlabel(scale["x"])
    axes.set_ylabel("µs")
    axes.set_ylim(0, max(middle) * 1.3)
    return canvas


def _memory(soak: Mapping[str, Any]) -> Canvas:
    canvas, axes = _canvas("memory over the soak", height=2.8)
    at = [each["at_s"] for each in soak["memory_mb"]]
    for what, label in (("rss", "resident"), ("own", "its own: no file's")):
        axes.plot(at, [each[what] for each in soak["memory_mb"]], label=label)
    axes.legend(frameon=False)
    axes.set_xlabel("seconds")
    axes.set_ylabel("MiB")
    axes.set_ylim(bottom=0)
    return canvas


def _canvas(title: str, *, height: float) -> tuple[Canvas, Axes]:
    canvas = Canvas(figsize=(8.0, height), layout="constrained")
    axes = canvas.add_subplot()
    axes.set_title(title, loc="left", fontsize=10)
    return canvas, axes


def _bytes(canvas: Canvas, kind: str) -> bytes:
    out = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {}
    canvas.savefig(out, format=kind, metadata=metadata, dpi=144)
    return out.getvalue()


def _slug(text: str) -> str:
    return re.sub(r"\W+", "-", text).strip("-")


# ---- the page -------------------------------------------------------------------------------------------

_HEAD: Final = """\
<!doctype html>
<html lang="en"><meta charset="utf-8"><title>signalwarden: measured</title>
<style>body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0;font-size:13px}td,th{padding:.25rem .7rem;border-bottom:1px solid #ddd;
text-align:left}svg{max-width:100%;height:auto}h2{margin-top:2.5rem}.wrong{color:#a00}</style>
<h1>signalwarden: measured</h1>
"""


def report(figures: Sequence[tuple[Mapping[str, Any], Sequence[tuple[str, Canvas]]]]) -> str:
    """One page with everything in it."""
    parts = [_HEAD]
    for made, pictures in figures:
        parts.append(
            f"<h2>{html.escape(made['kind'])}</h2>\n<p>{html.escape(page.circumstances(made))}</p>\n"
        )
        parts += [f"<p class=wrong>{html.escape(sentence)}</p>\n" for sentence in made["wrong"]]
        parts += [f"<p>left out: {html.escape(sentence)}</p>\n" for sentence in made["left_out"]]
        parts += [_table(rows) for _, rows in page.tables(made)]
        for name, canvas in pictures:
            svg = _bytes(canvas, "svg").decode()
            parts.append(f"<figure id={_slug(name)}>{_own_ids(svg[svg.index('<svg') :], name)}</figure>\n")
    return "".join((*parts, "</html>\n"))


def _own_ids(svg: str, name: str) -> str:
    """Pictures on one page: what they name inside themselves must not be named twice."""
    prefix = f"{_slug(name)}-"
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}\1)", svg)
    return re.sub(r'href="#([^"]+)"', rf'href="#{prefix}\1"', svg)


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    cells = "".join(f"<th>{html.escape(cell)}" for cell in head)
    lines = ["<tr>" + "".join(f"<td>{html.escape(cell)}" for cell in row) + "\n" for row in body]
    return f"<table><tr>{cells}\n{''.join(lines)}</table>\n"


if __name__ == "__main__":
    sys.exit(main())
