"""The verb `demo`: a story that runs until it is told, or with `--keep` until it is told to stop."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from signalwarden.cli.options import START
from signalwarden.errors import BadInputError, ServerError

__all__ = ["add"]


def add(root: typer.Typer) -> None:
    """Adds this verb."""
    root.command(rich_help_panel=START)(demo)


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running, to explore.")] = False,
    front: Annotated[
        str, typer.Option("--front", help="The front door of the story: `grpcio` or `native`.")
    ] = "grpcio",
) -> None:
    """See it work: a real Envoy, a refund agent, and what becomes of its requests as signals change.

    Exit status 1 if anything came out otherwise than the story says.
    """
    if front not in ("grpcio", "native"):
        raise BadInputError(f"`--front`: expected `grpcio` or `native`, found `{front}`")
    try:
        from signalwarden import demo as story

        code = story.run(keep, Console(), front=front)
    except ModuleNotFoundError as error:
        raise ServerError(
            f"`{error.name}` is not installed, pip install 'signalwarden[demo]' brings it"
        ) from error
    raise typer.Exit(code)
