"""Verbs on the decision log."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from signalwarden.cli import log_verify
from signalwarden.cli.options import HERE, SERVER, ConfigOption, JsonOption, settings_of
from signalwarden.terminal import console

__all__ = ["add", "group"]

group = typer.Typer(no_args_is_help=True, help="Read the decision log.")


def add(root: typer.Typer) -> None:
    """Adds these verbs."""
    log_verify.add(group)
    root.add_typer(group, name="log", rich_help_panel=SERVER)


@group.command("tail")
def tail_log(
    number: Annotated[
        int, typer.Option("-n", "--lines", metavar="N", min=0, help="So many records from the end.")
    ] = 10,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on with new records, over rotation.")
    ] = False,
    deny: Annotated[bool, typer.Option("--deny", help="Denials alone.")] = False,
    config: ConfigOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Show the end of the decision log, one line a record.

    Reads the files of the directory; needs no token and no running server.

    Example: `signalwarden log tail -f --deny`
    """
    from signalwarden.decision_log import tail

    path = settings_of(config).log_path(config)
    out = console()
    want = tail.wanted(denied_only=deny)

    def show(raw: bytes, record: dict[str, Any]) -> None:
        if as_json:
            typer.echo(raw)
        else:
            out.print(tail.line(record))

    with tail.Tail(path) as log:
        for raw, record in log.last(number, want):
            show(raw, record)
        if follow:
            for raw, record in log.follow(want):
                show(raw, record)
