"""One HTML page that opens offline: headings, sentences, tables and plots as inline SVG.

Nothing is fetched and no script runs. Text of records is only ever text here, too.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Final

__all__ = ["Page", "bars", "grid"]

STYLE: Final = """
:root { color-scheme: light dark; --ink: #1d2330; --paper: #fff; --dim: #68707f; --line: #d9dde5; --good: #2e7d4f;
  --bad: #c0392b; --warn: #b7791f; --fill: #3b6fb6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e5e8ee; --paper: #14171d; --dim: #98a1b2; --line: #333a47;
  --good: #57b884; --bad: #ef6a5b; --warn: #e0a84a; --fill: #6d9fe6; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 68rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
p { margin: .4rem 0; } .dim { color: var(--dim); }
table { border-collapse: collapse; width: 100%; font-size: .9rem; display: block; overflow-x: auto; }
th, td { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; } td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
code { font: .85rem/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
svg { display: block; max-width: 100%; height: auto; } svg text { fill: var(--ink); font: 13px system-ui, sans-serif; }
svg text.dim { fill: var(--dim); } .widens { color: var(--bad); } .narrows { color: var(--warn); }
"""
POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
"""Whatever a record holds, a browser fetches and runs nothing for it."""

ROW: Final = 26
LABEL_WIDTH: Final = 300
PLOT_WIDTH: Final = 520
CELL_WIDTH: Final = 110
MAX_LABEL: Final = 40


def text(value: object) -> str:
    """As HTML, without what turns the direction of text."""
    shown = "".join(c if c.isprintable() else "\ufffd" for c in str(value))
    return html.escape(shown)


class Page:
    """A page in the making."""

    def __init__(self, title: str, *sentences: str) -> None:
        self._title = title
        self._parts = [f"<h1>{text(title)}</h1>", *(f'<p class="dim">{text(one)}</p>' for one in sentences)]

    def section(self, heading: str, *sentences: str) -> None:
        """A heading, and what stands below it in words."""
        self._parts.append(f"<h2>{text(heading)}</h2>" + "".join(f"<p>{text(one)}</p>" for one in sentences))

    def plot(self, svg: str) -> None:
        """What `bars` or `grid` drew."""
        self._parts.append(svg)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Numbers stand right; `code` is not guessed: all is text."""
        body = []
        for row in rows:
            cells = "".join(
                f'<td class="number">{cell:,}</td>' if isinstance(cell, int) else f"<td>{text(cell)}</td>"
                for cell in row
            )
            body.append(f"<tr>{cells}</tr>")
        head = "".join(f"<th>{text(column)}</th>" for column in columns)
        self._parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>")

    def html(self) -> str:
        """All of it."""
        return (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{text(self._title)}</title><style>{STYLE}</style></head>\n<body>\n"
            + "\n".join(self._parts)
            + "\n</body></html>\n"
        )


def _label(words: str) -> str:
    """The end tells more than the beginning: SPIFFE IDs begin alike."""
    return words if len(words) <= MAX_LABEL else "…" + words[-(MAX_LABEL - 1) :]


def bars(title: str, rows: Sequence[tuple[str, int, int]]) -> str:
    """Horizontal bars: a label, a whole, and the part of it that is marked."""
    most = max((whole for _, whole, _ in rows), default=0) or 1
    height, width = ROW * len(rows) + 4, LABEL_WIDTH + PLOT_WIDTH + 130
    drawn = [f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="{text(title)}">']
    for at, (label, whole, part) in enumerate(rows):
        y = at * ROW + 4
        long, marked = PLOT_WIDTH * whole / most, PLOT_WIDTH * part / most
        drawn.append(
            f"<g><title>{text(label)}: {part:,} of {whole:,}</title>"
            f'<text x="{LABEL_WIDTH - 10}" y="{y + 14}" text-anchor="end">{text(_label(label))}</text>'
            f'<rect x="{LABEL_WIDTH}" y="{y}" width="{long:.1f}" height="18" rx="2" fill="var(--line)"/>'
            f'<rect x="{LABEL_WIDTH}" y="{y}" width="{marked:.1f}" height="18" rx="2" fill="var(--bad)"/>'
            f'<text class="dim" x="{LABEL_WIDTH + long + 8:.1f}" y="{y + 14}">{part:,} of {whole:,}</text></g>'
        )
    return "".join(drawn) + "</svg>"


def grid(
    title: str, rows: Sequence[str], columns: Sequence[str], counts: dict[tuple[str, str], tuple[int, int]]
) -> str:
    """A field of squares: how much of each pair is marked, `(marked, whole)`."""
    top = 24
    width, height = LABEL_WIDTH + CELL_WIDTH * len(columns) + 10, top + ROW * len(rows) + 4
    drawn = [f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="{text(title)}">']
    for at, column in enumerate(columns):
        x = LABEL_WIDTH + at * CELL_WIDTH + CELL_WIDTH / 2
        short = column if len(column) <= 14 else column[:13] + "…"
        drawn.append(f'<text class="dim" x="{x:.0f}" y="14" text-anchor="middle">{text(short)}'
                     f"<title>{text(column)}</title></text>")  # fmt: skip
    for at, row in enumerate(rows):
        y = top + at * ROW
        drawn.append(
            f'<text x="{LABEL_WIDTH - 10}" y="{y + 16}" text-anchor="end">{text(_label(row))}</text>'
        )
        for place, column in enumerate(columns):
            marked, whole = counts.get((row, column), (0, 0))
            if not whole:
                continue
            x, share = LABEL_WIDTH + place * CELL_WIDTH, marked / whole
            drawn.append(
                f"<g><title>{text(row)}, {text(column)}: {marked:,} of {whole:,}</title>"
                f'<rect x="{x + 2}" y="{y + 2}" width="{CELL_WIDTH - 4}" height="{ROW - 4}" rx="3" fill="var(--bad)" '
                f'fill-opacity="{0.06 + 0.84 * share:.2f}"/>'
                f'<text x="{x + CELL_WIDTH / 2:.0f}" y="{y + 17}" text-anchor="middle">{marked:,}/{whole:,}</text></g>'
            )
    return "".join(drawn) + "</svg>"
