"""Verbs on a directory, which need no server: init, check, decide."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import orjson
import typer

from signalwarden.cli.options import (
    DIRECTORY,
    FAILED,
    HERE,
    START,
    ConfigOption,
    JsonOption,
    read_input,
    time_us,
)
from signalwarden.decision_log import now_us
from signalwarden.errors import BadInputError, ConfigurationError, is_error
from signalwarden.terminal import console, count, print_findings, print_json, say

__all__ = ["add"]


class Outcome(StrEnum):
    """What `decide --expect` may expect."""

    ALLOW = "allow"
    DENY = "deny"


def add(root: typer.Typer) -> None:
    """Adds these verbs."""
    root.command(rich_help_panel=START)(init)
    root.command(rich_help_panel=DIRECTORY)(check)
    root.command(rich_help_panel=DIRECTORY)(decide)


def init(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="A directory that is empty or not there yet.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Make a directory that works: a refund agent, guarded by signals.

    Prints two tokens, once: only their SHA-256 is kept.

    Example: `signalwarden init refunds`
    """
    from signalwarden import starter

    made = starter.create(directory, now=datetime.now(UTC))
    if as_json:
        print_json({
            "directory": str(made.directory), "publisher": starter.PUBLISHER, "publisher_token": made.publisher_token,
            "operator": starter.OPERATOR, "operator_token": made.operator_token, "expires": made.expires,
        })  # fmt: skip
        return
    out = console()
    out.print(
        f"Made {directory} for trust domain prod.example: start reading at {directory / 'README.md'}.\n"
    )
    out.print(f"Tokens of the admin API, shown this once, good until {made.expires:%Y-%m-%d}:")
    out.print(f"  publisher  {made.publisher_token}")
    out.print(f"  operator   {made.operator_token}\n")
    where = "" if directory == HERE else f"cd {shlex.quote(str(directory))}\n  "
    out.print("Next:")
    out.print(f"  {where}signalwarden check")
    out.print("  signalwarden decide --request samples/refund.json --signals samples/signals.json")
    out.print("  signalwarden serve")


def check(config: ConfigOption = HERE, as_json: JsonOption = False) -> None:
    """Check a directory: every mistake of all its files in one pass.

    Exit status 1 if there are errors, 0 if there are warnings alone.

    Example: `signalwarden check --config refunds`
    """
    from signalwarden import config as settings

    revision: str | None = None
    exceptions: list[str] = []
    try:
        loaded = settings.load(config, now_us())
        findings, revision = list(loaded.warnings), loaded.configuration.revision
        exceptions = orjson.loads(loaded.configuration.describe())["exceptions"]
    except ConfigurationError as error:
        if any(finding.code == "unreadable_directory" for finding in error.findings):
            raise
        findings = error.findings
    errors = sum(map(is_error, findings))
    warnings = len(findings) - errors
    if as_json:
        keys = ("severity", "file", "line", "column", "code", "message")
        found = [{key: getattr(finding, key) for key in keys} for finding in findings]
        print_json(
            {
                "ok": not errors,
                "revision": revision,
                "errors": errors,
                "warnings": warnings,
                "findings": found,
                "exceptions": exceptions,
            }
        )
    else:
        out = console()
        print_findings(out, findings)
        for exception in exceptions:
            out.print(f"declared exception: {exception}", markup=False, highlight=False)
        good = f"{config} is good" if not errors else f"{config} can't be loaded"
        out.print(f"{good}: {count(errors, 'error')}, {count(warnings, 'warning')}")
    if errors:
        raise typer.Exit(FAILED)


def decide(
    request: Annotated[
        str,
        typer.Option("--request", metavar="FILE|-", help="A CheckRequest in protobuf JSON; - reads stdin."),
    ],
    signals: Annotated[
        str | None,
        typer.Option(
            "--signals", metavar="FILE|-", help="A body of POST /v1/signals; else nothing is known."
        ),
    ] = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="RFC3339", help="Decide at this time instead of now.")
    ] = None,
    expect: Annotated[
        Outcome | None, typer.Option("--expect", help="Exit with status 1 if it is decided otherwise.")
    ] = None,
    config: ConfigOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Decide one request without a server, and print the decision record.

    Each signal counts as if it came from its registered publisher; one without `observed_at`, as observed at `--at`.

    Example: `signalwarden decide --request samples/refund.json --signals samples/signals.json --expect allow`
    """
    from signalwarden import offline, request_json

    if request == "-" and signals == "-":
        raise BadInputError("only one of --request and --signals can be read from stdin")
    moment = now_us() if at is None else time_us(at)
    asked = request_json.to_bytes(read_input(request), name=f"`{request}`")
    told = read_input(signals) if signals is not None else None
    decision = offline.decide(config, asked, signals=told, now_us=moment)
    print_json(decision.record, indent=not as_json)
    if expect is not None and decision.outcome != expect:
        say(f"expected {expect}, decided {decision.outcome} (`{decision.record.get('reason')}`)")
        raise typer.Exit(FAILED)
