"""`fmt`: policy files in one layout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from signalwarden.cli.options import DIRECTORY, ERROR, FAILED, HERE, JsonOption
from signalwarden.decision_log.tail import clean
from signalwarden.errors import sentence
from signalwarden.saying import count, say
from signalwarden.terminal import console, print_json

__all__ = ["add"]


def add(root: typer.Typer) -> None:
    """Adds this verb."""
    root.command(rich_help_panel=DIRECTORY)(fmt)


def fmt(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[DIR|FILES]", help="Directories and .cedar files.", show_default="current directory"
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit with status 1 if something would change.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Lay out Cedar policies as Cedar's own formatter does.

    No comment is lost, and no policy says anything else afterwards: where that can't be kept, or a file has a mistake,
    it is left as it is and the place is named (exit status 2). Schemas and .rego files are not formatted.

    Example: `signalwarden fmt --check refunds`
    """
    from signalwarden import formatting

    done = formatting.run(formatting.files(paths or [HERE]), check=check)
    if as_json:
        print_json(
            {
                "changed": [str(path) for path in done.changed],
                "unchanged": done.unchanged,
                "findings": [
                    {"file": f.file, "line": f.line, "column": f.column, "code": f.code, "message": f.message}
                    for f in done.findings
                ],
            }
        )
    else:
        out = console()
        for path in done.changed:
            out.print(f"{'would format' if check else 'formatted'} {clean(str(path))}")
        out.print(
            f"{count(len(done.changed), 'file')} {'would change' if check else 'changed'}, "
            f"{done.unchanged} as they should be"
        )
    for finding in done.findings:
        say(clean(sentence(finding)))
    if done.findings:
        raise typer.Exit(ERROR)
    if check and done.changed:
        raise typer.Exit(FAILED)
