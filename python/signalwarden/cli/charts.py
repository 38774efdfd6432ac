"""How `log stats` shows sums: tables with bars, and counts over time as one line of small columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

from signalwarden.decision_log.tail import clean
from signalwarden.log_reading.stats import By, Stats, Sum

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

__all__ = ["bar", "show_stats", "sparkline"]

COLUMNS: Final = " ▁▂▃▄▅▆▇█"
EIGHTHS: Final = " ▏▎▍▌▋▊▉"
BAR_WIDTH: Final = 24
SPARK_WIDTH: Final = 60


def bar(value: float, most: float, width: int = BAR_WIDTH) -> str:
    """A bar of eighths; something is never nothing."""
    eighths = round(width * 8 * value / most) if most else 0
    full, rest = divmod(max(eighths, 1) if value else 0, 8)
    return "█" * full + (EIGHTHS[rest] if rest else "")


def sparkline(series: Sequence[int], width: int = SPARK_WIDTH) -> str:
    """A line of columns; neighbours are added up where there are more than it is wide."""
    each = max(1, -(-len(series) // width))
    sums = [sum(series[at : at + each]) for at in range(0, len(series), each)]
    most = max(sums, default=0)
    return "".join(COLUMNS[-(-8 * value // most)] if most else COLUMNS[0] for value in sums)


def show_stats(out: Console, stats: Stats) -> None:
    """All of it."""
    if stats.period.first is None:
        out.print("no records")
        return
    total = stats.all
    told = [f"{total.allow:,} allowed", f"{total.deny:,} denied"]
    if total.let_pass:
        told.append(f"{total.let_pass:,} denied and let pass")
    out.print(Text(f"{total.count:,} decisions: {', '.join(told)}", "bold"))
    out.print(Text(clean(f"from {stats.period.first} to {stats.period.last}"), "dim"))
    for number, words in (
        (stats.folded, "repeated denials are counted in the record of the first"),
        (stats.without_record, "more decisions were `log_unavailable` and have no record"),
        (stats.recovered, "records were recovered after the server had died"),
    ):
        if number:
            out.print(Text(f"{number:,} {words}", "yellow"))
    if total.count:
        _over_time(out, stats)
        _reasons(out, stats)
        _latency(out, stats)
        for by in [stats.by] if stats.by else [By.PRINCIPAL, By.ACTION]:
            if by is not By.SIGNAL:
                _top(out, stats, by)
        if stats.by in (None, By.SIGNAL):
            _signals(out, stats)
    for name, counts in (
        ("changes", stats.changes),
        ("calls that never reached a decision", stats.transports),
    ):
        if counts:
            out.print(Text(f"\n{name}", "bold"))
            for word, count in counts.most_common():
                out.print(f"  {count:>9,}  {clean(word)}")


def _over_time(out: Console, stats: Stats) -> None:
    out.print()
    for word, name, style in (
        ("allow", "allowed", "green"),
        ("deny", "denied", "red"),
        ("pass", "let pass", "yellow"),
    ):
        series = stats.timeline.series(word)
        if any(series):
            most = f"{max(series):,} in {stats.timeline.width} s at most"
            out.print(Text.assemble(f"{name:<9}", (sparkline(series), style), f"  {most}"))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", title_style="bold", title_justify="left")
    for column in columns:
        left = column in ("", "reason", *By, "µs")
        table.add_column(column, justify="left" if left else "right", no_wrap=True)
    return table


def _reasons(out: Console, stats: Stats) -> None:
    table = _table("reason", "count", "share", "")
    most = max(stats.reasons.values(), default=0)
    for reason, count in stats.reasons.most_common():
        style = "green" if reason == "allowed" else "red"
        share = f"{100 * count / stats.all.count:.1f} %"
        table.add_row(clean(reason), f"{count:,}", share, Text(bar(count, most), style))
    out.print()
    out.print(table)


def _latency(out: Console, stats: Stats) -> None:
    table = _table("µs", "p50", "p90", "p99", "p99.9", "max")
    for stage, histogram in stats.stages.items():
        if histogram.count:
            table.add_row(
                stage, *(f"{value:,.1f}" for value in histogram.as_dict().values() if value is not None)
            )
    if table.row_count:
        out.print()
        out.print(table)


def _top(out: Console, stats: Stats, by: By) -> None:
    top = stats.tops[by]
    table = _table(by.value, "count", "allowed", "denied", "p50 µs", "p99 µs", "")
    rows = top.most_common(stats.top)
    most = max((one.count for _, one in rows), default=0)
    for key, one in rows:
        table.add_row(
            clean(key),
            f"{one.count:,}",
            f"{one.allow:,}",
            f"{one.deny + one.let_pass:,}",
            *_spans(one),
            _two_bars(one, most),
        )
    out.print()
    out.print(table)
    _left_out(out, len(top) - len(rows), top.missed)


def _spans(one: Sum) -> tuple[str, str]:
    middle, high = one.total.percentile(0.5), one.total.percentile(0.99)
    return "-" if middle is None else f"{middle:,.1f}", "-" if high is None else f"{high:,.1f}"


def _two_bars(one: Sum, most: int) -> Text:
    """Allowed in green, then denied in red."""
    green = round(BAR_WIDTH * one.allow / most) if most else 0
    red = max(0, round(BAR_WIDTH * one.count / most) - green) if most else 0
    return Text.assemble(("█" * green, "green"), ("█" * red, "red"))


def _signals(out: Console, stats: Stats) -> None:
    top = stats.tops[By.SIGNAL]
    rows = top.most_common(stats.top)
    if not rows:
        return
    table = _table("signal", "read", "fresh", "stale", "missing", "other", "decisive", "refused", "")
    for name, one in rows:
        read = sum(one.states.values())
        other = read - sum(one.states[state] for state in ("fresh", "stale", "missing"))
        counts = (*(one.states[state] for state in ("fresh", "stale", "missing")), other)
        decisive = one.influences["decisive"]
        table.add_row(
            clean(name), f"{read:,}", *(f"{count:,}" for count in counts), f"{decisive:,}",
            f"{one.influences['refused']:,}", Text(bar(decisive, read), "magenta"),
        )  # fmt: skip
    out.print()
    out.print(table)
    _left_out(out, len(top) - len(rows), top.missed)


def _left_out(out: Console, more: int, missed: int) -> None:
    if more > 0:
        out.print(Text(f"… and {more:,} more: see --top", "dim"))
    if missed:
        out.print(Text(f"there were too many to tell all apart: a count may lack up to {missed:,}", "yellow"))
