"""Verbs on overrides: two people's word in place of an unavailable signal, under `signals`."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
import typer

from signalwarden.cli import signals
from signalwarden.cli.options import HERE, ConfigOption, JsonOption, TokenOption, admin_of
from signalwarden.cli.signals import value_of
from signalwarden.decision_log.tail import clean
from signalwarden.terminal import columns, console, print_json

__all__ = ["add"]


def add(_: typer.Typer) -> None:
    """Adds these verbs to `signals`."""
    signals.group.command("override")(override)
    signals.group.command("overrides")(list_overrides)


def override(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As in signals.yaml.")],
    subject: Annotated[
        str, typer.Option("--subject", metavar="SUBJECT", help="Whose signal.", show_default=False)
    ],
    value: Annotated[
        str,
        typer.Option("--value", metavar="VALUE", help="JSON; what is no JSON is text.", show_default=False),
    ],
    reason: Annotated[
        str,
        typer.Option("--reason", metavar="TEXT", help="Why; stands in the decision log.", show_default=False),
    ],
    ttl: Annotated[
        str, typer.Option("--ttl", metavar="SPAN", help="For how long, such as `10m`.", show_default=False)
    ],
    text: Annotated[
        bool, typer.Option("--text", help="VALUE is text even if it looks like a number.")
    ] = False,
    config: ConfigOption = HERE,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Propose an override of a signal that is unavailable, or confirm what somebody else has proposed.

    It takes two clients that say the same, to the letter of the reason, within 10 minutes.

    Example: `signalwarden signals override posture --subject '*' --value ok --reason "INC-7: feed down" --ttl 10m`
    """
    told = {"value": value if text else value_of(value), "subject": subject, "reason": reason, "ttl": ttl}
    with admin_of(config, token_file) as admin:
        answer = admin.override(name, orjson.dumps(told))
    if as_json:
        print_json(answer)
    elif answer["state"] == "proposed":
        until = clean(answer["confirm_before"])
        console().print(
            f"proposed: another client must say the same before {until}, nothing counts until then"
        )
    else:
        console().print(
            f"in force until {clean(answer['expires_at'])}, by {clean(' and '.join(answer['by']))}"
        )


def list_overrides(
    config: ConfigOption = HERE,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what is overridden, and what waits for a second client.

    Example: `signalwarden signals overrides`
    """
    with admin_of(config, token_file) as admin:
        answer = admin.overrides()
    if as_json:
        print_json(answer)
        return
    rows = [*(_row("in force", entry) for entry in answer["overrides"])]
    rows += [_row("proposed", entry) for entry in answer["proposals"]]
    if not rows:
        console().print("nothing is overridden")
        return
    table = columns("state", "name", "subject", "value", "until", "by", "reason")
    for row in rows:
        table.add_row(*row)
    console().print(table)


def _row(state: str, entry: dict[str, Any]) -> tuple[str, ...]:
    by = entry.get("by") or [entry.get("proposed_by") or "-"]
    value = orjson.dumps(entry["value"]).decode() if entry.get("value") is not None else "-"
    until = entry.get("expires_at") or entry.get("confirm_before") or "-"
    cells = (
        state,
        entry["name"],
        entry["subject"],
        value,
        until,
        " and ".join(by),
        entry.get("reason") or "-",
    )
    return tuple(clean(cell) for cell in cells)
