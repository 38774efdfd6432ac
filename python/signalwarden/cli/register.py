"""Verbs on the register: list it, follow one signal from its sources to its actions, write it down for auditors."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from signalwarden.cli.options import HERE, ConfigOption, JsonOption, TokenOption, admin_of
from signalwarden.cli.signals import group
from signalwarden.decision_log import now_us, rfc3339
from signalwarden.errors import BadInputError, ServerError
from signalwarden.saying import say
from signalwarden.terminal import console, print_json

__all__ = ["add"]

OfflineOption = Annotated[bool, typer.Option("--offline", help="Read the directory alone; needs no server.")]


class DocumentForm(StrEnum):
    """What `signals document` writes."""

    MARKDOWN = "markdown"
    HTML = "html"


def add(_root: typer.Typer) -> None:
    """Adds these verbs, below `signals`."""
    group.command("list")(list_register)
    group.command("show")(show)
    group.command("document")(document)


def list_register(
    offline: OfflineOption = False,
    config: ConfigOption = HERE,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the register: who answers for each signal, where it comes from, who reads it, and what is live.

    Example: `signalwarden signals list --offline --config refunds`
    """
    from signalwarden.register_view import register_table

    register = _from_directory(config) if offline else _from_server(config, token_file)
    if as_json:
        print_json(register)
        return
    console().print(register_table(register) if register["signals"] else "no signals are registered")


def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As in signals.yaml.")],
    offline: OfflineOption = False,
    config: ConfigOption = HERE,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the path of a signal: from its sources through the policies that read it to the actions they decide.

    Live numbers if a server answers, else the directory alone.

    Example: `signalwarden signals show posture`
    """
    from signalwarden.register import path_of
    from signalwarden.register_view import path_tree

    path = path_of(_from_directory(config) if offline else _either(config, token_file), name)
    if as_json:
        print_json(path)
    else:
        console().print(path_tree(path))


def document(
    form: Annotated[
        DocumentForm, typer.Option("--format", help="Markdown, or one HTML file that needs no other.")
    ] = DocumentForm.MARKDOWN,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write it here instead of printing it."),
    ] = None,
    config: ConfigOption = HERE,
) -> None:
    """Write the register down for auditors. The same directory gives the same bytes.

    Example: `signalwarden signals document --format html --output register.html`
    """
    from signalwarden import config as settings
    from signalwarden import register_document

    loaded = settings.load(config, now_us())
    described = orjson.loads(loaded.configuration.describe())
    write = register_document.as_html if form is DocumentForm.HTML else register_document.as_markdown
    text = write(described, trust_domain=loaded.settings.trust_domain)
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise BadInputError(f"`{output}` can't be written: {why}") from error


def _from_server(directory: Path, token_file: Path | None) -> dict[str, Any]:
    with admin_of(directory, token_file) as admin:
        return admin.register()


def _from_directory(directory: Path) -> dict[str, Any]:
    from signalwarden import config
    from signalwarden.register import join

    now = now_us()
    described = orjson.loads(config.load(directory, now).configuration.describe())
    return join(described, None, time=rfc3339(now))


def _either(directory: Path, token_file: Path | None) -> dict[str, Any]:
    """What the server says; without one, or without a token to ask it, what the directory says."""
    try:
        return _from_server(directory, token_file)
    except (ServerError, BadInputError) as error:
        say(f"from the directory alone: {error}")
        return _from_directory(directory)
