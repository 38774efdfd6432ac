"""The verb `report`: evidence for auditors, from a directory and its log."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from signalwarden.cli.log_options import LogOption, chosen_files
from signalwarden.cli.options import HERE, SERVER, ConfigOption, JsonOption
from signalwarden.decision_log import now_us
from signalwarden.errors import BadInputError
from signalwarden.files import why, write_private
from signalwarden.saying import say
from signalwarden.terminal import reading_bar

if TYPE_CHECKING:
    pass

__all__ = ["add"]


class Standard(StrEnum):
    """As signalwarden.audit.controls has them."""

    OWASP_NHI = "owasp-nhi"
    MAESTRO = "maestro"
    NIST_AI_RMF = "nist-ai-rmf"
    ALL = "all"


class Form(StrEnum):
    """How a report is written."""

    MARKDOWN = "markdown"
    JSON = "json"
    HTML = "html"


def add(root: typer.Typer) -> None:
    """Adds this verb."""
    root.command(rich_help_panel=SERVER)(report)


def report(
    framework: Annotated[
        Standard, typer.Option("--framework", help="The controls of this standard.")
    ] = Standard.ALL,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="SPAN|TIME", help="Records from `30d` ago on, or from an RFC 3339 time."
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="SPAN|TIME", help="Records before then.")
    ] = None,
    form: Annotated[
        Form | None,
        typer.Option("--format", help="For people, programs, or a browser.", show_default="markdown"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Write it there, for this user alone.", show_default="stdout"
        ),
    ] = None,
    log: LogOption = None,
    config: ConfigOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Say for each control of a standard whether it is enforced, evidenced, without data or not covered, and by what.

    Reads the directory, the state and every record of the log once; needs no token and no running server. No standing
    says that a control is met: the figures are for whoever judges that.

    Example: `signalwarden report --framework owasp-nhi --since 30d --format html --out report.html`
    """
    from signalwarden.audit import controls, gathering, rendering
    from signalwarden.audit.ground import Ground
    from signalwarden.log_reading.filters import Filters

    if as_json and form not in (None, Form.JSON):
        raise BadInputError(f"`--json` and `--format {form}` contradict each other: give one of them")
    form = Form.JSON if as_json else form or Form.MARKDOWN
    filters = Filters(since=since, until=until)
    want = filters.question()
    ground = Ground.of(config, now_us())
    files = [file for file in chosen_files(config, log) if not filters.too_old(file)]
    known = controls.frameworks()
    chosen = [*known.values()] if framework is Standard.ALL else [known[framework.value]]
    size = gathering.size_of(files)
    integrity = None
    if log is None and gathering.asks_for_integrity(chosen):
        with reading_bar(size, what="verifying") as progress:
            integrity = gathering.integrity_of(ground, progress)
    with reading_bar(size) as progress:
        document, faults = gathering.reported(
            ground, files, chosen, want=want, since=filters.since_text(), until=filters.until_text(),
            progress=progress, integrity=integrity,
        )  # fmt: skip
    match form:
        case Form.JSON:
            text = gathering.as_json(document)
        case Form.HTML:
            text = rendering.html(document)
        case _:
            text = rendering.markdown(document)
    if out is None:
        typer.echo(text, nl=False)
    else:
        try:
            write_private(out, text.encode())
        except OSError as error:
            raise BadInputError(f"`{out}` can't be written: {why(error)}") from error
    for sentence in faults:
        say(sentence)
