"""The command line. A verb reads its arguments, calls one function of another module and prints what it gives.

To add a verb: a function here. Errors are raised as `SignalwardenError`s; `main` prints them as one sentence.
"""

from __future__ import annotations

import os
import shlex
import sys
import traceback
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.console import Console

from signalwarden import __version__
from signalwarden.decision_log import now_us, rfc3339
from signalwarden.errors import (
    BadInputError,
    ConfigurationError,
    ServerError,
    SignalwardenError,
    is_error,
    sentence,
)
from signalwarden.terminal import console, count, print_findings, print_json, say, signals_table

if TYPE_CHECKING:
    from signalwarden.admin_client import AdminClient
    from signalwarden.config import Settings

__all__ = ["app", "main"]

# 0: as asked. 1: the answer is no (`check` found errors, `decide --expect` differs). 2: an error.
FAILED, ERROR, INTERRUPTED = 1, 2, 130
# Largest request or signals file that `decide` and `publish` read; the server's own bounds are no larger.
MAX_INPUT_BYTES = 8 * 1024 * 1024

app = typer.Typer(
    name="signalwarden", no_args_is_help=True, rich_markup_mode="markdown", pretty_exceptions_enable=False,
    add_completion=False, context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
signals_app = typer.Typer(
    no_args_is_help=True, help="Publish signals to a running server, and see what it knows."
)
log_app = typer.Typer(no_args_is_help=True, help="Read the decision log.")
envoy_app = typer.Typer(no_args_is_help=True, help="Configuration for Envoy.")
app.add_typer(signals_app, name="signals", rich_help_panel="A running server")
app.add_typer(log_app, name="log", rich_help_panel="A running server")
app.add_typer(envoy_app, name="envoy", rich_help_panel="A running server")

ConfigOption = Annotated[
    Path,
    typer.Option(
        "--config", "-c", metavar="DIR", help="The configuration directory.", show_default="current directory"
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
TokenOption = Annotated[
    Path | None,
    typer.Option("--token-file", metavar="FILE", help="File with the bearer token; else SIGNALWARDEN_TOKEN."),
]
HERE = Path()


class Outcome(StrEnum):
    """What `decide --expect` may expect."""

    ALLOW = "allow"
    DENY = "deny"


class EnvoyKind(StrEnum):
    """Where the Envoy of `envoy config` stands."""

    SIDECAR = "sidecar"
    GATEWAY = "gateway"


@app.callback()
def _root(
    debug: Annotated[
        bool, typer.Option("--debug", envvar="SIGNALWARDEN_DEBUG", help="Show tracebacks.")
    ] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    """Decides Envoy's requests from governed signals.

    Start with `signalwarden init DIR`, or see it work with `signalwarden demo`.
    """
    if debug:
        os.environ["SIGNALWARDEN_DEBUG"] = "1"
    if version:
        typer.echo(f"signalwarden {__version__}")
        raise typer.Exit


# ---- a directory ----------------------------------------------------------------------------------------

START = "Start here"
DIRECTORY = "A directory"


@app.command(rich_help_panel=START)
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


@app.command(rich_help_panel=DIRECTORY)
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


@app.command(rich_help_panel=DIRECTORY)
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
    moment = now_us() if at is None else _time_us(at)
    asked = request_json.to_bytes(_read(request), name=f"`{request}`")
    told = _read(signals) if signals is not None else None
    decision = offline.decide(config, asked, signals=told, now_us=moment)
    print_json(decision.record, indent=not as_json)
    if expect is not None and decision.outcome != expect:
        say(f"expected {expect}, decided {decision.outcome} (`{decision.record.get('reason')}`)")
        raise typer.Exit(FAILED)


# ---- the server -----------------------------------------------------------------------------------------

SERVER = "A running server"


@app.command(rich_help_panel=SERVER)
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


@app.command(rich_help_panel=START)
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running, to explore.")] = False,
) -> None:
    """See it work: a real Envoy, a refund agent, and what becomes of its requests as signals change.

    Exit status 1 if anything came out otherwise than the story says.
    """
    try:
        from signalwarden import demo as story

        code = story.run(keep, Console())
    except ModuleNotFoundError as error:
        raise ServerError(
            f"`{error.name}` is not installed, pip install 'signalwarden[demo]' brings it"
        ) from error
    raise typer.Exit(code)


@signals_app.command("publish")
def signals_publish(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="As in signals.yaml.", show_default=False)
    ] = None,
    subject: Annotated[
        str | None,
        typer.Argument(metavar="SUBJECT", help='A SPIFFE ID, `Type::"id"`, an id, or *.', show_default=False),
    ] = None,
    value: Annotated[
        str | None, typer.Argument(metavar="VALUE", help="JSON; what is no JSON is text.", show_default=False)
    ] = None,
    observed_at: Annotated[
        str | None, typer.Option("--observed-at", metavar="RFC3339", help="When it was true; else now.")
    ] = None,
    file: Annotated[
        str | None, typer.Option("--file", "-f", metavar="FILE|-", help="A body of POST /v1/signals instead.")
    ] = None,
    text: Annotated[
        bool, typer.Option("--text", help="VALUE is text even if it looks like a number.")
    ] = False,
    config: ConfigOption = HERE,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Publish a signal, or a file of them, to the running server of this directory.

    A value that begins with `-` comes after `--`.

    Example: `signalwarden signals publish posture spiffe://prod.example/ns/agents/sa/refund-agent ok`
    """
    observed = observed_at or rfc3339(now_us())
    if file is not None:
        if name is not None or observed_at is not None:
            raise BadInputError("give NAME SUBJECT VALUE or --file, not both")
        body = _batch(_read(file), observed)
    elif name is None or subject is None or value is None:
        raise BadInputError("expected NAME SUBJECT VALUE, or --file FILE")
    else:
        told = {
            "name": name,
            "subject": subject,
            "value": value if text else _value(value),
            "observed_at": observed,
        }
        body = orjson.dumps({"signals": [told]})
    with _admin(config, token_file) as admin:
        answer = admin.publish(body)
    if as_json:
        print_json(answer)
    else:
        console().print(f"{answer['accepted']} accepted")
    for refused in answer["rejected"]:
        say(f"signals[{refused['index']}] was refused: {refused['detail']} (`{refused['reason']}`)")
    if answer["rejected"]:
        raise typer.Exit(ERROR)


@signals_app.command("list")
def signals_list(
    subject: Annotated[
        str | None, typer.Option("--subject", help="Only what is known of this subject.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000, help="At most so many.")] = 100,
    config: ConfigOption = HERE,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the signals that the running server knows.

    Example: `signalwarden signals list --subject spiffe://prod.example/ns/agents/sa/refund-agent`
    """
    with _admin(config, token_file) as admin:
        answer = admin.signals(subject, limit)
    if as_json:
        print_json(answer)
        return
    out = console()
    out.print(signals_table(answer["signals"]) if answer["signals"] else "no signals are known")
    if answer["truncated"]:
        out.print(f"… and more: these are the first {limit}, see --limit and --subject")


@log_app.command("tail")
def log_tail(
    number: Annotated[
        int, typer.Option("-n", "--lines", metavar="N", min=0, help="So many records from the end.")
    ] = 10,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on with new records, over rotation.")
    ] = False,
    deny: Annotated[bool, typer.Option("--deny", help="Denials alone.")] = False,
    config: ConfigOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Show the end of the decision log, one line a record.

    Reads the files of the directory; needs no token and no running server.

    Example: `signalwarden log tail -f --deny`
    """
    from signalwarden.decision_log import tail

    path = _settings(config).log_path(config)
    out = console()
    want = tail.wanted(denied_only=deny)

    def show(raw: bytes, record: dict[str, Any]) -> None:
        if as_json:
            typer.echo(raw)
        else:
            out.print(tail.line(record))

    with tail.Tail(path) as log:
        for raw, record in log.last(number, want):
            show(raw, record)
        if follow:
            for raw, record in log.follow(want):
                show(raw, record)


@envoy_app.command("config")
def envoy_config(
    kind: Annotated[
        EnvoyKind, typer.Option("--kind", help="Beside one workload, or in front of many.")
    ] = EnvoyKind.SIDECAR,
    config: ConfigOption = HERE,
) -> None:
    """Print an Envoy configuration for this directory, hardened and commented.

    Example: `signalwarden envoy config --kind gateway > envoy.yaml`
    """
    from signalwarden import envoy_config as envoy

    typer.echo(envoy.render(config, kind.value), nl=False)


# ---- parts ----------------------------------------------------------------------------------------------


def _settings(directory: Path) -> Settings:
    """The settings alone: these verbs don't need the rest of the directory to be good."""
    from signalwarden.config import SETTINGS_FILE, read_settings

    try:
        text = (directory / SETTINGS_FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "it is not UTF-8 text"
        raise BadInputError(f"`{directory / SETTINGS_FILE}` can't be read: {why.lower()}") from error
    settings, findings = read_settings(text, now=datetime.now(UTC))
    if settings is None:
        raise ConfigurationError(findings)
    return settings


def _admin(directory: Path, token_file: Path | None) -> AdminClient:
    from signalwarden.admin_client import AdminClient

    token = os.environ.get("SIGNALWARDEN_TOKEN", "")
    if token_file is not None:
        token = _read(str(token_file)).decode(errors="replace")
    if not token.strip():
        raise BadInputError("this verb needs a token: set SIGNALWARDEN_TOKEN or give --token-file FILE")
    return AdminClient(_settings(directory).listen.admin, token.strip())


def _read(name: str) -> bytes:
    try:
        if name == "-":
            content = sys.stdin.buffer.read(MAX_INPUT_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                content = file.read(MAX_INPUT_BYTES + 1)
    except OSError as error:
        raise BadInputError(f"`{name}` can't be read: {(error.strerror or str(error)).lower()}") from error
    if len(content) > MAX_INPUT_BYTES:
        raise BadInputError(f"`{name}` has more than {MAX_INPUT_BYTES} bytes")
    return content


def _batch(body: bytes, observed: str) -> bytes:
    """The body as it is, but for the time of signals that name none."""
    try:
        document = orjson.loads(body)
        document["signals"] = [{"observed_at": observed, **signal} for signal in document["signals"]]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise BadInputError(
            'the file is not a body of POST /v1/signals: expected {"signals": [{"name", …}]}'
        ) from error
    return orjson.dumps(document)


def _value(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _time_us(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadInputError(f"`{text}` is not an RFC 3339 time such as `2026-11-24T10:00:00Z`") from error
    if moment.tzinfo is None:
        raise BadInputError(f"`{text}` has no time zone: add `Z` or an offset such as `+01:00`")
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


# ---- errors ---------------------------------------------------------------------------------------------


def _one_sentence(error: SignalwardenError) -> str:
    if not isinstance(error, ConfigurationError):
        return str(error)
    errors = [finding for finding in error.findings if is_error(finding)]
    first = sentence(errors[0]) if errors else "the directory can't be loaded"
    more = (
        f" (and {count(len(errors) - 1, 'more error')}: see `signalwarden check`)" if len(errors) > 1 else ""
    )
    return f"{first}{more}"


def _run(arguments: list[str] | None = None) -> int:
    """Runs a command. What goes wrong becomes one sentence and an exit status, never a traceback unasked."""
    try:
        return int(app(arguments, prog_name="signalwarden", standalone_mode=False) or 0)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has left (`| head`); what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SignalwardenError as error:
        _traceback_if_asked()
        say(_one_sentence(error))
    except Exception as error:  # noqa: BLE001 - the last line before a user
        if callable(getattr(error, "format_message", None)):
            _usage(error)
        else:
            _traceback_if_asked()
            say(_fault(error))
    return ERROR


def _usage(error: Any) -> None:
    """A mistake in the arguments. Typer keeps its classes for them to itself, so they are known by what they can do."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "signalwarden"
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return
    message = str(error.format_message()).rstrip(".")
    say(f"{message[:1].lower()}{message[1:]}, see `{path} --help`")


def _fault(error: Exception) -> str:
    first = str(error).splitlines()[0] if str(error) else ""
    return (
        f"a fault of signalwarden {__version__} itself, {type(error).__name__} {first}".rstrip()
        + "; please report it with the command and what it prints with SIGNALWARDEN_DEBUG=1 in the environment"
    )


def _traceback_if_asked() -> None:
    if os.environ.get("SIGNALWARDEN_DEBUG", "") not in ("", "0"):
        traceback.print_exc()


def main() -> None:
    """The entry point."""
    sys.exit(_run())


if __name__ == "__main__":
    main()
