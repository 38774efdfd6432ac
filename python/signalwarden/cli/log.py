"""Verbs that read the decision log: its end, one record, all of it."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from signalwarden.cli import completing, log_export, log_replay, log_verify, stories
from signalwarden.cli.log_options import Chosen, LogOption, chosen_files, with_filters
from signalwarden.cli.options import (
    HERE,
    SERVER,
    SETTINGS_FILE,
    ConfigOption,
    JsonOption,
    read_input,
    settings_of,
)
from signalwarden.decision_log import now_us
from signalwarden.saying import count, say
from signalwarden.terminal import console, print_json, reading_bar

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["add", "group"]

group = typer.Typer(no_args_is_help=True, help="Read the decision log.")


class By(StrEnum):
    """As signalwarden.log_reading.stats has it, which is not loaded before a verb needs it."""

    PRINCIPAL = "principal"
    ACTION = "action"
    ROUTE = "route"
    REASON = "reason"
    SIGNAL = "signal"


LINES: Final = 10
"""Records that `tail` shows unless it is told when to begin."""


def add(root: typer.Typer) -> None:
    """Adds these verbs."""
    for verbs in (log_replay, log_verify, log_export):
        verbs.add(group)
    root.add_typer(group, name="log", rich_help_panel=SERVER)


@group.command("tail")
@with_filters
def tail_log(
    chosen: Chosen,
    number: Annotated[
        int | None,
        typer.Option(
            "-n",
            "--lines",
            metavar="N",
            min=0,
            help="So many from the end.",
            show_default="10, all with --since",
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on with new records, over rotation.")
    ] = False,
    config: ConfigOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Show the end of the decision log, one line a record.

    Reads the files of the directory, compressed ones too; needs no token and no running server. An option of "which
    records" given twice means either; different options must all hold.

    Example: `signalwarden log tail -f --deny --principal refund-agent --signal posture:missing`
    """
    from signalwarden.decision_log import tail

    filters = chosen.filters()
    want = filters.question()
    path = settings_of(config).log_path(config)
    out = console()

    def show(raw: bytes, record: dict[str, Any]) -> None:
        if as_json:
            typer.echo(raw)
        else:
            out.print(tail.line(record))

    with tail.Tail(path) as log:
        if number is None and filters.since is not None:
            entries: Any = log.whole(want, skip=filters.too_old)
        else:
            entries = log.last(LINES if number is None else number, want)
        for raw, record in entries:
            show(raw, record)
        _tell_skipped(log.skipped)
        if follow:
            sys.stdout.flush()
            for raw, record in log.follow(want):
                show(raw, record)


@group.command("explain")
def explain(
    record_id: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="Of a decision or a change, or the beginning of it; - reads a record from stdin.",
            autocompletion=completing.ids,
            show_default=False,
        ),
    ],
    log: LogOption = None,
    config: ConfigOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Tell the way of a decision as a story: what decided it, what would flip it, and what can be done.

    The record alone tells it. Source lines, and what would flip it, need the directory as it was then.

    Example: `signalwarden log explain 01a20d2e-e225-7eba`
    """
    from signalwarden.log_reading import explaining, records
    from signalwarden.log_reading.beside import Beside
    from signalwarden.log_reading.filters import ended_before

    related: list[dict[str, Any]] = []
    if record_id == "-":
        raw, record = explaining.record_of(read_input("-"), "what stdin has")
    else:
        prefix = records.id_prefix(record_id)
        made = records.time_of_id(prefix)
        # What was full before the id was made holds nothing of it.
        files = [file for file in chosen_files(config, log) if not ended_before(file, made)]
        reader = records.Reader(files)
        with reading_bar(reader.size) as progress:
            found = records.find(records.Reader(files, progress), prefix)
        raw, record, related = found.entry.raw, found.entry.record, found.related
    there = (config / SETTINGS_FILE).is_file()
    beside = Beside.of(config, now_us()) if there else Beside.nothing()
    told = explaining.explained(raw, record, beside, related)
    if as_json:
        print_json(stories.as_json(told))
    else:
        stories.show(console(), told)


@group.command("stats")
@with_filters
def stats_of_log(
    chosen: Chosen,
    by: Annotated[By | None, typer.Option("--by", help="Tell decisions apart by this alone.")] = None,
    top: Annotated[int, typer.Option("--top", metavar="N", min=1, max=1_000, help="So many of each.")] = 10,
    log: LogOption = None,
    config: ConfigOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Sum the log up: outcomes, reasons, who and what most, latency by stage, signals.

    Reads every record once, in memory that does not grow with the log. Percentiles are within 2.2 %.

    Example: `signalwarden log stats --since 1d --by reason`
    """
    from signalwarden.log_reading import records, stats

    filters = chosen.filters()
    want = filters.question()
    files = [file for file in chosen_files(config, log) if not filters.too_old(file)]
    sums = stats.Stats(stats.By(by.value) if by else None, top)
    with reading_bar(records.Reader(files).size) as progress:
        reader = records.Reader(files, progress)
        for entry in reader.entries():
            if want(entry.record):
                sums.add(entry.record)
    if as_json:
        print_json({**sums.as_dict(), "skipped": reader.faults.as_dict()})
    else:
        from signalwarden.cli import charts

        charts.show_stats(console(), sums)
    for sentence in reader.faults.sentences():
        say(sentence)


def _tell_skipped(skipped: Mapping[str, int]) -> None:
    for why, lines in sorted(skipped.items()):
        say(f"skipped {count(lines, 'line')} of the log: {why}")
