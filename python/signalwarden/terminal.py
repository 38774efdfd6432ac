"""How the command line prints: tables, findings, JSON. Text of others never reaches a terminal as anything but text."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Literal

import orjson
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from signalwarden.decision_log.tail import STATES, clean
from signalwarden.errors import FindingLike, is_error, sentence

__all__ = [
    "columns", "console", "counting_bar", "print_findings", "print_json", "reading_bar", "signals_table",
]  # fmt: skip


def console() -> Console:
    """Standard output, without markup. Lines are not wrapped in a pipe: programs read them."""
    out = Console(markup=False, highlight=False, emoji=False, soft_wrap=True)
    if not out.is_terminal:
        out = Console(markup=False, highlight=False, emoji=False, soft_wrap=True, width=10_000)
    return out


def print_json(value: Any, *, indent: bool = False) -> None:
    """JSON on standard output, on one line unless it is to be read by people."""
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2 if indent else 0).decode())


@contextlib.contextmanager
def reading_bar(total: int, *, what: str = "reading") -> Iterator[Callable[[int], None]]:
    """A bar on standard error that is told of bytes as they are read; nothing where nobody watches."""
    watched = Console(stderr=True)
    if not watched.is_terminal:
        yield lambda _: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=watched, transient=True) as progress:
        task = progress.add_task(what, total=total or None)
        yield lambda read: progress.advance(task, read)


@contextlib.contextmanager
def counting_bar(total: int, *, what: str) -> Iterator[Callable[[], None]]:
    """A bar on standard error that is told of each thing that is done; nothing where nobody watches."""
    watched = Console(stderr=True)
    if not watched.is_terminal:
        yield lambda: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=watched, transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)


MAX_SHOWN_LINE: Final = 200
"""Longest line of a file that is shown below a finding, in characters."""


def print_findings(out: Console, findings: Iterable[FindingLike], directory: Path) -> None:
    """Findings as compilers print theirs, so that editors can jump to them. A mistake of syntax has a caret."""
    for finding in findings:
        text = Text(clean(sentence(finding)))
        text.highlight_words([f" {finding.severity}:"], "bold red" if is_error(finding) else "bold yellow")
        out.print(text)
        for line in _drawing(finding, directory) if finding.code == "syntax" else ():
            out.print(Text(line))


def _drawing(finding: FindingLike, directory: Path) -> list[str]:
    """The line that a finding is about, and a caret below its column; nothing if the file has changed meanwhile."""
    try:
        lines = (directory / finding.file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    if not 0 < finding.line <= len(lines) or not 0 < finding.column <= MAX_SHOWN_LINE:
        return []
    shown = clean(lines[finding.line - 1].expandtabs(4)[:MAX_SHOWN_LINE])
    before = len(lines[finding.line - 1][: finding.column - 1].expandtabs(4))
    return [f"  | {shown}", f"  | {' ' * before}^"]


def columns(*titles: str, unwrapped: Collection[str] = (), right: Collection[str] = ()) -> Table:
    """Without lines. What is too wide is folded, but for columns in `unwrapped`; those of `right` are numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        justify: Literal["left", "right"] = "right" if title in right else "left"
        table.add_column(title, overflow="fold", no_wrap=title in unwrapped, justify=justify)
    return table


def signals_table(signals: list[dict[str, Any]]) -> Table:
    """The answer of GET /v1/signals."""
    titles = ("name", "subject", "state", "value", "assurance", "age", "observed at")
    table = columns(*titles, unwrapped={*titles} - {"subject"})
    for signal in signals:
        state, value = clean(signal["state"]), signal.get("value")
        table.add_row(
            clean(signal["name"]),
            clean(signal["subject"]),
            Text(state, STATES.get(state, "red")),
            "-" if value is None else clean(orjson.dumps(value).decode()),
            clean(signal["assurance"]),
            _age(signal.get("age_ms")),
            clean(signal.get("observed_at")) or "-",
        )
    return table


def _age(milliseconds: object) -> str:
    if not isinstance(milliseconds, int):
        return "-"
    seconds = milliseconds / 1_000
    if seconds < 120:
        return f"{seconds:.1f}s"
    return f"{seconds / 60:.0f}m" if seconds < 7_200 else f"{seconds / 3_600:.0f}h"
