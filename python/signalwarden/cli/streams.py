"""Verbs on streams of security events (feeds of kind `ssf`), below `signals`."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from signalwarden.cli.options import HERE, ConfigOption, JsonOption, TokenOption, admin_of
from signalwarden.cli.signals import group
from signalwarden.decision_log.tail import clean
from signalwarden.terminal import columns, console, print_json

__all__ = ["add"]


def add(_root: typer.Typer) -> None:
    """These verbs are part of the group `signals`."""
    group.command("streams")(streams)
    group.command("resynchronise")(resynchronise)


def streams(
    config: ConfigOption = HERE,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the streams of security events of the running server, and whether anything of them was missed.

    Example: `signalwarden signals streams`
    """
    with admin_of(config, token_file) as admin:
        answer = admin.streams()
    if as_json:
        print_json(answer)
        return
    out = console()
    out.print(_table(answer["streams"]) if answer["streams"] else "the register has no feed of kind `ssf`")


def resynchronise(
    feed: Annotated[str, typer.Argument(metavar="FEED", help="As in signals.yaml.", show_default=False)],
    config: ConfigOption = HERE,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Vouch for a stream of events: what it may have missed has been made up for, so its resting values count again.

    First look at the transmitter for what happened while the stream was suspended, and publish or repeat it.

    Example: `signalwarden signals resynchronise idp`
    """
    with admin_of(config, token_file) as admin:
        answer = admin.resynchronise(feed)
    if as_json:
        print_json(answer)
    else:
        console().print(f"`{clean(answer['feed'])}` is in sync")


def _table(found: list[dict[str, Any]]) -> Table:
    titles = ("feed", "delivery", "state", "verified at", "taken", "unprocessed", "refused", "why")
    table = columns(*titles, unwrapped=titles[:-1])
    for stream in found:
        state, style = ("in sync", "green") if stream["in_sync"] else ("suspended", "red")
        if not stream["running"]:
            state, style = "not running", "red"
        sets = stream.get("sets", {})
        table.add_row(
            clean(stream["feed"]),
            clean(stream.get("delivery")) or "-",
            Text(state, style),
            clean(stream["verified_at"]) or "never",
            str(sets.get("accepted", 0)),
            str(sets.get("unprocessed", 0)),
            str(sum(stream.get("refused", {}).values())),
            clean(stream["suspended"]) or "",
        )
    return table
