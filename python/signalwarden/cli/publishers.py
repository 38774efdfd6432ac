"""Verbs on publishers: who may publish what, and switching one off at once; below `signals publisher`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from signalwarden.cli import signals
from signalwarden.cli.options import HERE, ConfigOption, JsonOption, TokenOption, admin_of
from signalwarden.decision_log.tail import clean
from signalwarden.terminal import columns, console, print_json

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["add"]

group = typer.Typer(no_args_is_help=True, help="See who may publish what, and switch a publisher off or on.")

IdArgument = Annotated[
    str,
    typer.Argument(metavar="ID", help="A SPIFFE ID, `poll:FEED` or `ssf:FEED`.", show_default=False),
]
SignalOption = Annotated[
    str | None, typer.Option("--signal", metavar="NAME", help="This signal of it alone.")
]


def add(_root: typer.Typer) -> None:
    """Adds these verbs."""
    signals.group.add_typer(group, name="publisher")


@group.command("disable")
def disable(
    publisher: IdArgument,
    signal: SignalOption = None,
    config: ConfigOption = HERE,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Switch a publisher or feed off: at once none of its values counts, and it is told so when it publishes.

    Example: `signalwarden signals publisher disable spiffe://prod.example/ns/mdm/sa/publisher`
    """
    _switch(publisher, signal, config, token_file, enabled=False, as_json=as_json)


@group.command("enable")
def enable(
    publisher: IdArgument,
    signal: SignalOption = None,
    config: ConfigOption = HERE,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Switch a publisher or feed on again: what it observes from now on counts.

    Example: `signalwarden signals publisher enable poll:posture_file --signal posture`
    """
    _switch(publisher, signal, config, token_file, enabled=True, as_json=as_json)


def _switch(
    publisher: str, signal: str | None, config: Path, token_file: Path | None, *, enabled: bool, as_json: bool
) -> None:
    with admin_of(config, token_file) as admin:
        standing = admin.switch_publisher(publisher, signal, enabled=enabled)
    if as_json:
        print_json(standing)
    else:
        console().print(f"{clean(standing['publisher'])}: {_state(standing)}")


@group.command("list")
def list_publishers(
    config: ConfigOption = HERE, token_file: TokenOption = None, as_json: JsonOption = False
) -> None:
    """List who may publish which signals, and what is switched off.

    Example: `signalwarden signals publisher list`
    """
    with admin_of(config, token_file) as admin:
        answer = admin.publishers()
    if as_json:
        print_json(answer)
        return
    if not answer["publishers"]:
        console().print("no contract names a publisher")
        return
    table = columns("publisher", "state", "signals", "accepted", "refused", "last heard")
    for standing in answer["publishers"]:
        table.add_row(
            clean(standing["publisher"]),
            _state(standing),
            clean(", ".join(standing["signals"])) or "-",
            str(standing["accepted"]),
            str(sum(standing["rejected"].values())),
            clean(standing["last_seen"]) or "-",
        )
    console().print(table)


def _state(standing: dict[str, Any]) -> str:
    off = ", ".join(standing["disabled_signals"])
    if standing["disabled"]:
        return "off"
    return f"on, but {clean(off)} off" if off else "on"
