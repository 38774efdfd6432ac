"""Verbs that run something until they are told to stop: serve, demo."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console

from signalwarden.cli.options import HERE, SERVER, START, ConfigOption
from signalwarden.errors import BadInputError, ServerError

__all__ = ["add"]


def add(root: typer.Typer) -> None:
    """Adds these verbs."""
    root.command(rich_help_panel=SERVER)(serve)
    root.command(rich_help_panel=START)(demo)


def serve(config: ConfigOption = HERE) -> None:
    """Serve: Envoy asks at the check address, publishers and operators call at the admin address.

    Stops on SIGTERM or Ctrl-C once what is under way is answered and on disk.

    Example: `signalwarden serve --config refunds`
    """
    import logging

    from signalwarden.app import App

    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s", stream=sys.stderr
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    App(config).run_forever()


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
