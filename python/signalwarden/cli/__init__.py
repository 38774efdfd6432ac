"""The command line. A verb reads its arguments, calls one function of another module and prints what it gives.

To add a verb: a function in the file of its group, or a new file with an `add`, and its name in `VERBS`. Errors are
raised as `SignalwardenError`s; `main` prints them as one sentence.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from signalwarden import __version__
from signalwarden.cli.options import ERROR, INTERRUPTED, TLS_VARIABLES
from signalwarden.cli.verbs import Verbs
from signalwarden.errors import SignalwardenError
from signalwarden.saying import one_sentence, say

__all__ = ["app", "main"]

TLS: Final = "A server with TLS"
"""Panel of the options that stand before a verb."""

app = typer.Typer(
    name="signalwarden", cls=Verbs, no_args_is_help=True, rich_markup_mode="markdown", pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"signalwarden {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[
        bool, typer.Option("--debug", envvar="SIGNALWARDEN_DEBUG", help="Show tracebacks.")
    ] = False,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version and leave."),
    ] = False,
    tls_ca: Annotated[
        Path | None,
        typer.Option(
            "--tls-ca",
            metavar="FILE",
            envvar=TLS_VARIABLES[0],
            rich_help_panel=TLS,
            help="Authorities of the server, where the admin address has TLS.",
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            "--tls-cert",
            metavar="FILE",
            envvar=TLS_VARIABLES[1],
            rich_help_panel=TLS,
            help="Our own certificate (an X.509-SVID) in place of a token.",
        ),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(
            "--tls-key", metavar="FILE", envvar=TLS_VARIABLES[2], rich_help_panel=TLS, help="Its private key."
        ),
    ] = None,
    tls_id: Annotated[
        str | None,
        typer.Option(
            "--tls-id",
            metavar="SPIFFE-ID",
            envvar=TLS_VARIABLES[3],
            rich_help_panel=TLS,
            help="Who the server must be; else its certificate must name its address.",
        ),
    ] = None,
) -> None:
    """Decides Envoy's requests from governed signals.

    Start with `signalwarden init DIR`, or see it work with `signalwarden demo`.
    """
    if debug:
        os.environ["SIGNALWARDEN_DEBUG"] = "1"
    for name, value in zip(TLS_VARIABLES, (tls_ca, tls_cert, tls_key, tls_id), strict=True):
        if value is not None:
            os.environ[name] = str(value)


# ---- errors ---------------------------------------------------------------------------------------------


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
        say(one_sentence(error))
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
