"""Verbs on values of signals: publish them, see what is known. `group` is where other files add theirs."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
import typer

from signalwarden.cli.options import (
    ERROR,
    HERE,
    SERVER,
    ConfigOption,
    JsonOption,
    TokenOption,
    admin_of,
    read_input,
)
from signalwarden.decision_log import now_us, rfc3339
from signalwarden.errors import BadInputError
from signalwarden.saying import say
from signalwarden.terminal import console, print_json, signals_table

__all__ = ["add", "group", "value_of"]

group = typer.Typer(no_args_is_help=True, help="Publish signals to a running server, and see what it knows.")


def add(root: typer.Typer) -> None:
    """Adds these verbs."""
    root.add_typer(group, name="signals", rich_help_panel=SERVER)


@group.command("publish")
def publish(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="As in signals.yaml.", show_default=False)
    ] = None,
    subject: Annotated[
        str | None,
        typer.Argument(metavar="SUBJECT", help='A SPIFFE ID, `Type::"id"`, an id, or *.', show_default=False),
    ] = None,
    value: Annotated[
        str | None, typer.Argument(metavar="VALUE", help="JSON; what is no JSON is text.", show_default=False)
    ] = None,
    observed_at: Annotated[
        str | None, typer.Option("--observed-at", metavar="RFC3339", help="When it was true; else now.")
    ] = None,
    file: Annotated[
        str | None, typer.Option("--file", "-f", metavar="FILE|-", help="A body of POST /v1/signals instead.")
    ] = None,
    text: Annotated[
        bool, typer.Option("--text", help="VALUE is text even if it looks like a number.")
    ] = False,
    config: ConfigOption = HERE,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Publish a signal, or a file of them, to the running server of this directory.

    A value that begins with `-` comes after `--`.

    Example: `signalwarden signals publish posture spiffe://prod.example/ns/agents/sa/refund-agent ok`
    """
    observed = observed_at or rfc3339(now_us())
    if file is not None:
        if name is not None or observed_at is not None:
            raise BadInputError("give NAME SUBJECT VALUE or --file, not both")
        body = _batch(read_input(file), observed)
    elif name is None or subject is None or value is None:
        raise BadInputError("expected NAME SUBJECT VALUE, or --file FILE")
    else:
        told = {
            "name": name,
            "subject": subject,
            "value": value if text else value_of(value),
            "observed_at": observed,
        }
        body = orjson.dumps({"signals": [told]})
    with admin_of(config, token_file) as admin:
        answer = admin.publish(body)
    if as_json:
        print_json(answer)
    else:
        console().print(f"{answer['accepted']} accepted")
    for refused in answer["rejected"]:
        say(f"signals[{refused['index']}] was refused: {refused['detail']} (`{refused['reason']}`)")
    if answer["rejected"]:
        raise typer.Exit(ERROR)


@group.command("values")
def values(
    subject: Annotated[
        str | None, typer.Option("--subject", help="Only what is known of this subject.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000, help="At most so many.")] = 100,
    config: ConfigOption = HERE,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the values that the running server knows.

    Example: `signalwarden signals values --subject spiffe://prod.example/ns/agents/sa/refund-agent`
    """
    with admin_of(config, token_file) as admin:
        answer = admin.signals(subject, limit)
    if as_json:
        print_json(answer)
        return
    out = console()
    out.print(signals_table(answer["signals"]) if answer["signals"] else "no values are known")
    if answer["truncated"]:
        out.print(f"… and more: these are the first {limit}, see --limit and --subject")


def _batch(body: bytes, observed: str) -> bytes:
    """The body as it is, but for the time of signals that name none."""
    try:
        document = orjson.loads(body)
        document["signals"] = [{"observed_at": observed, **signal} for signal in document["signals"]]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise BadInputError(
            'the file is not a body of POST /v1/signals: expected {"signals": [{"name", …}]}'
        ) from error
    return orjson.dumps(document)


def value_of(text: str) -> Any:
    """JSON, or else a text."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
