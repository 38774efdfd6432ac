"""Verbs that read the decision log: its end, one record, all of it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from signalwarden.cli.log_options import Chosen, with_filters
from signalwarden.cli.options import HERE, SERVER, ConfigOption, JsonOption, settings_of
from signalwarden.terminal import console, count, say

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["add", "group"]

group = typer.Typer(no_args_is_help=True, help="Read the decision log.")

LINES: Final = 10
"""Records that `tail` shows unless it is told when to begin."""


def add(root: typer.Typer) -> None:
    """Adds these verbs."""
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


def _tell_skipped(skipped: Mapping[str, int]) -> None:
    for why, lines in sorted(skipped.items()):
        say(f"skipped {count(lines, 'line')} of the log: {why}")
