"""The verb `serve`, which runs until it is told to stop. What is imported here, every idle server holds in memory."""

from __future__ import annotations

import sys

import typer

from signalwarden.cli.options import HERE, SERVER, ConfigOption

__all__ = ["add"]


def add(root: typer.Typer) -> None:
    """Adds this verb."""
    root.command(rich_help_panel=SERVER)(serve)


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
