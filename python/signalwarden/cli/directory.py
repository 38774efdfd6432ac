"""Verbs on a directory, which need no server: init, check, decide."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from signalwarden.decision_log.tail import clean
from signalwarden.errors import BadInputError, ConfigurationError, sorted_findings
from signalwarden.saying import count, say
from signalwarden.terminal import console, print_findings, print_json

if TYPE_CHECKING:
    from signalwarden.reports import Report
    from signalwarden.starter import Made

__all__ = ["add"]


class Outcome(StrEnum):
    """What `decide --expect` may expect."""

    ALLOW = "allow"
    DENY = "deny"


class Template(StrEnum):
    """What `init` can make."""

    STARTER = "starter"
    AGENT_TOOLS = "agent-tools"
    OPA_ENVOY = "opa-envoy"


class Form(StrEnum):
    """How `check` says what it found."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"
    GITHUB = "github"


def add(root: typer.Typer) -> None:
    """Adds these verbs."""
    root.command(rich_help_panel=START)(init)
    root.command(rich_help_panel=DIRECTORY)(check)
    root.command(rich_help_panel=DIRECTORY)(decide)


def init(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="A directory that is empty or not there yet.")
    ],
    template: Annotated[
        Template | None,
        typer.Option(
            "--template",
            help="A refund agent and its signals, an agent's MCP tools, or policies of OPA's Envoy plugin.",
            show_default="starter",
        ),
    ] = None,
    opa: Annotated[
        list[Path] | None,
        typer.Option(
            "--opa",
            metavar="PATH",
            help="Policies of OPA's Envoy plugin, unchanged: a file or a folder; repeatable.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a directory that works: a refund agent, guarded by signals, or an agent's tools, guarded by tasks.

    With `--opa`, one around policies that were written for OPA's Envoy plugin. Prints the tokens of its clients,
    once: only their SHA-256 is kept.

    Example: `signalwarden init refunds`
    """
    from signalwarden import starter

    if opa and template not in (None, Template.OPA_ENVOY):
        raise BadInputError(f"`--opa` and `--template {template}` contradict each other: give one of them")
    if opa or template is Template.OPA_ENVOY:
        made = starter.create_opa(directory, opa or [], now=datetime.now(UTC))
        _say_made(made, as_json=as_json)
        return

    if template is Template.AGENT_TOOLS:
        made = starter.create_from("agent-tools", directory, now=datetime.now(UTC))
        _say_made(made, as_json=as_json)
        return
    started = starter.create(directory, now=datetime.now(UTC))
    if as_json:
        print_json({
            "directory": str(started.directory), "expires": started.expires,
            "publisher": starter.PUBLISHER, "publisher_token": started.publisher_token,
            "operator": starter.OPERATOR, "operator_token": started.operator_token,
        })  # fmt: skip
        return
    out = console()
    out.print(
        f"Made {directory} for trust domain prod.example: start reading at {directory / 'README.md'}.\n"
    )
    out.print(f"Tokens of the admin API, shown this once, good until {started.expires:%Y-%m-%d}:")
    out.print(f"  publisher  {started.publisher_token}")
    out.print(f"  operator   {started.operator_token}\n")
    where = "" if directory == HERE else f"cd {shlex.quote(str(directory))}\n  "
    out.print("Next:")
    out.print(f"  {where}signalwarden check")
    out.print("  signalwarden test")
    out.print("  signalwarden decide --request samples/refund.json --signals samples/signals.json")
    out.print("  signalwarden serve")


def _say_made(made: Made, *, as_json: bool) -> None:
    directory = made.directory
    if as_json:
        print_json({"directory": str(made.directory), "tokens": made.tokens, "expires": made.expires})
        return
    out = console()
    out.print(
        f"Made {directory} for trust domain prod.example: start reading at {directory / 'README.md'}.\n"
    )
    out.print(f"Tokens of the admin API, shown this once, good until {made.expires:%Y-%m-%d}:")
    for name, token in made.tokens.items():
        out.print(f"  {name:<10} {token}")


def check(
    config: ConfigOption = HERE,
    form: Annotated[
        Form | None,
        typer.Option(
            "--format",
            help="For people, programs, code scanning, or GitHub Actions.",
            show_default="text",
        ),
    ] = None,
    draft: Annotated[
        Path | None,
        typer.Option(
            "--draft",
            metavar="DIR",
            help="Write the governed directory that policies over whole requests could become.",
        ),
    ] = None,
    parity: Annotated[
        bool,
        typer.Option(
            "--parity", help="Look for requests that Cedar and Rego of this directory judge differently."
        ),
    ] = False,
    parity_cases: Annotated[
        int, typer.Option("--parity-cases", metavar="N", min=1, max=1_000_000, help="So many requests.")
    ] = 2_000,
    parity_seed: Annotated[
        int, typer.Option("--parity-seed", metavar="N", min=0, help="Others, or the same ones again.")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Check a directory: every mistake of all its files in one pass.

    Where policies see whole requests (`input: opa_envoy`) it lists what each reads outside the register. Exit status
    1 if there are errors, 0 if there are warnings alone. With `--parity`, 1 if the languages disagree.

    Example: `signalwarden check --config refunds --format sarif > signalwarden.sarif`
    """
    from signalwarden import reports

    if as_json and form not in (None, Form.JSON):
        raise BadInputError(f"`--json` and `--format {form}` contradict each other: give one of them")
    if parity and draft is not None:
        raise BadInputError("`--parity` and `--draft` contradict each other: give one of them")
    if parity and form in (Form.SARIF, Form.GITHUB):
        raise BadInputError(f"`--parity` and `--format {form}` contradict each other: give one of them")
    if parity:
        from signalwarden.cli.parity import check_parity

        if not check_parity(
            config, cases=parity_cases, seed=parity_seed, as_json=as_json or form is Form.JSON
        ):
            raise typer.Exit(FAILED)
        return
    report = _checked(config)
    match Form.JSON if as_json else form:
        case Form.JSON:
            print_json(reports.as_json(report))
        case Form.SARIF:
            print_json(reports.sarif(report), indent=True)
        case Form.GITHUB:
            for line in reports.github(report):
                typer.echo(line)
        case _:
            out = console()
            print_findings(out, report.findings, report.directory)
            for exception in report.exceptions:
                out.print(f"declared exception: {clean(exception)}")
            for read in report.outside:
                out.print(f"outside the register: {clean(read)}")
            good = f"{config} can't be loaded" if report.errors else f"{config} is good"
            out.print(f"{good}: {count(report.errors, 'error')}, {count(report.warnings, 'warning')}")
    if report.errors:
        raise typer.Exit(FAILED)
    if draft is not None:
        _draft(config, draft)


def _draft(config: Path, target: Path) -> None:
    from signalwarden import config as configuration
    from signalwarden import migration

    directory = configuration.Directory.read(config)
    loaded, described = configuration.judge_described(directory, now_us())
    rego = loaded.settings.policies.rego
    if rego is None or not described["ungoverned"]:
        raise BadInputError("there is nothing to draft: no policy of this directory sees whole requests")
    made = migration.draft(directory.files, described, rego.query, target, datetime.now(UTC).date())
    say(
        f"drafted {made.directory}: {count(len(made.signals), 'signal')}; look for `{migration.MARK}` in each file"
    )
    for read in made.left:
        say(f"{read.file}:{read.line}:{read.column}: nothing governed stands for `{read.text}`")


def _checked(directory: Path) -> Report:
    """What a load says. A directory that can't be read at all is an error of the call, not a finding."""
    from signalwarden import body_needs, config, migration
    from signalwarden.reports import Report

    try:
        loaded, described = config.judge_described(config.Directory.read(directory), now_us())
    except ConfigurationError as error:
        if any(finding.code == "unreadable_directory" for finding in error.findings):
            raise
        return Report(directory, error.findings, [], None)
    findings = sorted_findings([*loaded.warnings, *body_needs.findings(described)])
    outside = list(migration.listing(migration.reads(described)))
    return Report(directory, findings, described["exceptions"], loaded.configuration.revision, outside)


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
