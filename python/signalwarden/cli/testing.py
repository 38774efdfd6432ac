"""`test`: the cases that a directory has for its policies."""

from __future__ import annotations

import queue
import socket
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from signalwarden.cli import testing_pages
from signalwarden.cli.options import DIRECTORY, ERROR, FAILED, HERE, ConfigOption, JsonOption
from signalwarden.decision_log import now_us
from signalwarden.errors import BadInputError, SignalwardenError, is_error, sentence
from signalwarden.files import why
from signalwarden.saying import one_sentence, say
from signalwarden.terminal import console, counting_bar, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from signalwarden.policy_tests.running import Results

__all__ = ["add"]

WAKE_S: Final = 0.5
"""Between two looks of a watch whether it is to end."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the options ask for."""

    directory: Path
    filters: Sequence[str]
    fail_fast: bool
    coverage: bool
    least: float | None
    """Percent of coverage below which a run fails."""
    junit: Path | None
    as_json: bool
    verbose: bool


def add(root: typer.Typer) -> None:
    """Adds this verb."""
    root.command("test", rich_help_panel=DIRECTORY)(run_tests)


def run_tests(
    directory: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="The configuration directory; as `--config`.", show_default=False),
    ] = None,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            "-k",
            metavar="TEXT",
            help="Only cases whose `FILE::NAME` has this in it; `*` and `?` match.",
        ),
    ] = None,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", "-x", help="Stop at the first that fails.")
    ] = False,
    coverage: Annotated[
        bool, typer.Option("--coverage", help="Say what of policies, conditions and signals no case reaches.")
    ] = False,
    least: Annotated[
        float | None,
        typer.Option(
            "--coverage-min", metavar="PERCENT", min=0, max=100, help="Exit with status 1 below this."
        ),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Write JUnit XML for a pipeline.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Run again whenever the directory or its cases change.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Name the cases that pass, too.")] = False,
    config: ConfigOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Run the cases below `tests/`: requests with signals, and what must be decided, offline and by the same core.

    Exit status 1 if a case fails or too little is covered, 2 if the directory or a case can't be read.

    Example: `signalwarden test refunds --coverage --coverage-min 100 --junit results.xml`
    """
    if directory is not None and config != HERE:
        raise BadInputError("the directory is given twice: give DIR or --config")
    if watch and as_json:
        raise BadInputError("`--watch` and `--json` contradict each other: give one of them")
    covering = coverage or least is not None
    wanted = Wanted(directory or config, filters or (), fail_fast, covering, least, junit, as_json, verbose)
    if watch:
        _watch(wanted)
    elif status := _once(wanted):
        raise typer.Exit(status)


def _once(wanted: Wanted) -> int:
    """One run; the exit status."""
    from signalwarden import config
    from signalwarden.policy_tests import running, suite
    from signalwarden.policy_tests.coverage import Coverage
    from signalwarden.policy_tests.reading import Vocabulary
    from signalwarden.policy_tests.stage import Stage

    now = now_us()
    directory = config.Directory.read(wanted.directory)
    loaded = config.judge(directory, now)
    stage = Stage(loaded, now_us=now)
    read = suite.read_suite(wanted.directory, Vocabulary.of(stage.described))
    if any(map(is_error, read.findings)):
        for finding in read.findings:
            typer.echo(f"signalwarden: {sentence(finding)}", err=True)
        return ERROR
    if not read.cases:
        raise BadInputError(f"there are no cases: expected `{wanted.directory / suite.FOLDER}/*.yaml`")
    cases = running.chosen(read.cases, wanted.filters)
    if not cases:
        raise BadInputError(
            f"none of {len(read.cases)} cases has {' and '.join(f'`{text}`' for text in wanted.filters)} in it"
        )
    coverage = Coverage(stage.configuration, stage.described) if wanted.coverage else None
    with counting_bar(len(cases), what="testing") as step:
        results = running.run(
            stage, cases, coverage=coverage, fail_fast=wanted.fail_fast, told=lambda _: step()
        )
    if wanted.junit is not None:
        _write_junit(wanted.junit, results)
    pages = testing_pages.Pages(directory, loaded, results, coverage)
    if wanted.as_json:
        print_json(pages.as_dict())
    else:
        pages.show(console(), verbose=wanted.verbose)
    if coverage is not None and wanted.least is not None and coverage.percent < wanted.least:
        say(f"{coverage.percent:.1f} % is covered, expected at least {wanted.least:g} %")
        return FAILED
    return FAILED if results.bad else 0


def _write_junit(path: Path, results: Results) -> None:
    from signalwarden.policy_tests.junit import junit

    content = junit(results, host=socket.gethostname(), now=datetime.now(UTC))
    try:
        path.write_bytes(content)
    except OSError as error:
        raise BadInputError(f"`{path}` can't be written: {why(error)}") from error


def _watch(wanted: Wanted) -> None:
    """Runs, and runs again after each change, until it is interrupted."""
    from signalwarden.policy_tests.suite import glance
    from signalwarden.watch import Watch

    changes: queue.SimpleQueue[None] = queue.SimpleQueue()

    def changed() -> bool:
        changes.put(None)
        return True

    seen = None
    watch = Watch(wanted.directory, changed, glance=glance)
    watch.start()
    try:
        while True:
            now = glance(wanted.directory)
            if now != seen:
                seen = now
                _run_watched(wanted)
            # Woken now and then, so that an interrupt is heard wherever the system delivers it.
            while True:
                try:
                    changes.get(timeout=WAKE_S)
                    break
                except queue.Empty:
                    continue
    finally:
        watch.stop()


def _run_watched(wanted: Wanted) -> None:
    """What is wrong with the directory ends no watch: it is about to be mended."""
    out = console()
    out.print(f"{datetime.now(UTC).astimezone():%H:%M:%S} {wanted.directory}")
    try:
        _once(wanted)
    except SignalwardenError as error:
        say(one_sentence(error))
    out.print("waiting for a change, Ctrl-C ends it")
    sys.stdout.flush()
