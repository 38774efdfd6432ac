"""`diff`: what a change of a directory would widen and narrow, before it is in force."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated

import typer

from signalwarden.cli.options import DIRECTORY, FAILED, JsonOption, loaded_of
from signalwarden.saying import count
from signalwarden.terminal import console, print_json

__all__ = ["add"]


def add(root: typer.Typer) -> None:
    """Adds this verb."""
    root.command(rich_help_panel=DIRECTORY)(diff)


def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="The directory as it is.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The directory as it is to be.")],
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with status 1 if anything widens, or may widen.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say in words what a change widens or narrows, what widens first.

    Approvals that are still missing are no error here: this is what approvers read before they sign.

    Example: `git worktree add ../main main && signalwarden diff ../main/config config`
    """
    from signalwarden.declared import differences, view
    from signalwarden.difference import Direction, in_words

    before, after = loaded_of(old), loaded_of(new)
    views = view(before), view(after)
    words = in_words(*views)
    if as_json:
        print_json(
            {
                "old": before.configuration.revision,
                "new": after.configuration.revision,
                "words": [word.as_dict() for word in words],
                "difference": differences(*views),
            }
        )
    else:
        out = console()
        for direction, group in itertools.groupby(words, key=lambda word: word.direction):
            out.print(f"{direction.value}:", highlight=False)
            for word in group:
                out.print(f"  {word.part}: {word.sentence}", highlight=False, markup=False, soft_wrap=True)
        revisions = f"{before.configuration.revision:.12} to {after.configuration.revision:.12}"
        out.print(f"{count(len(words), 'change')}, revision {revisions}", highlight=False)
    if exit_code and any(word.direction in (Direction.WIDENS, Direction.MAY_WIDEN) for word in words):
        raise typer.Exit(FAILED)
