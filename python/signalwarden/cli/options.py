"""What the verbs share: options, exit statuses, and how their arguments become settings, bytes and times."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from signalwarden.decision_log import now_us
from signalwarden.errors import BadInputError, ConfigurationError, is_error, sentence
from signalwarden.saying import count

if TYPE_CHECKING:
    from signalwarden.admin_client import AdminClient, ClientTls
    from signalwarden.config import Loaded, Settings

__all__ = [
    "DIRECTORY", "ERROR", "FAILED", "HERE", "INTERRUPTED", "SERVER", "SETTINGS_FILE", "START", "TLS_VARIABLES",
    "ConfigOption", "JsonOption", "TokenOption", "admin_of", "loaded_of", "read_input", "settings_of", "time_us",
]  # fmt: skip

# 0: as asked. 1: the answer is no (`check` found errors, `decide --expect` differs). 2: an error.
FAILED, ERROR, INTERRUPTED = 1, 2, 130
# Panels of `signalwarden --help`.
START, DIRECTORY, SERVER = "Start here", "A directory", "A running server"
# Largest request or signals file that `decide` and `publish` read; the server's own bounds are no larger.
MAX_INPUT_BYTES = 8 * 1024 * 1024

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
SETTINGS_FILE = "signalwarden.yaml"
"""As signalwarden.config has it, which is not loaded before a verb needs it."""
HERE = Path()


def settings_of(directory: Path) -> Settings:
    """The settings alone: these verbs don't need the rest of the directory to be good."""
    from signalwarden.config import read_settings

    try:
        text = (directory / SETTINGS_FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "it is not UTF-8 text"
        raise BadInputError(f"`{directory / SETTINGS_FILE}` can't be read: {why.lower()}") from error
    settings, findings = read_settings(text, now=datetime.now(UTC))
    if settings is None:
        raise ConfigurationError(findings)
    return settings


def loaded_of(directory: Path) -> Loaded:
    """A directory, whoever has approved it; one clear sentence for one that can't be loaded."""
    from signalwarden import config

    try:
        return config.judge(config.Directory.read(directory), now_us(), unapproved=True)
    except ConfigurationError as error:
        errors = [finding for finding in error.findings if is_error(finding)]
        more = f" (and {count(len(errors) - 1, 'more error')})" if len(errors) > 1 else ""
        first = sentence(errors[0])
        raise BadInputError(
            f"`{directory}` can't be loaded: {first}{more}, see `signalwarden check --config {directory}`"
        ) from error


def admin_of(directory: Path, token_file: Path | None) -> AdminClient:
    from signalwarden.admin_client import AdminClient

    settings = settings_of(directory)
    tls = _tls() if "admin" in settings.tls.doors else None
    token = os.environ.get("SIGNALWARDEN_TOKEN", "")
    if token_file is not None:
        token = read_input(str(token_file)).decode(errors="replace")
    if not token.strip() and (tls is None or tls.credential is None):
        raise BadInputError("this verb needs a token: set SIGNALWARDEN_TOKEN or give --token-file FILE")
    return AdminClient(settings.listen.admin, token.strip() or None, tls)


TLS_VARIABLES = (
    "SIGNALWARDEN_TLS_CA",
    "SIGNALWARDEN_TLS_CERT",
    "SIGNALWARDEN_TLS_KEY",
    "SIGNALWARDEN_TLS_ID",
)
"""In the order of the options that stand before a verb."""


def _tls() -> ClientTls:
    """How to speak with an admin address that has TLS."""
    from signalwarden.admin_client import ClientTls

    ca, cert, key, server_id = (os.environ.get(name, "") for name in TLS_VARIABLES)
    if not ca:
        raise BadInputError(
            "the admin address has TLS: set SIGNALWARDEN_TLS_CA, or give --tls-ca FILE before the verb, with the "
            "authorities of the server"
        )
    if bool(cert) != bool(key):
        raise BadInputError("a certificate and its key come together: --tls-cert FILE and --tls-key FILE")
    return ClientTls(Path(ca), (Path(cert), Path(key)) if cert else None, server_id or None)


def read_input(name: str) -> bytes:
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


def time_us(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadInputError(f"`{text}` is not an RFC 3339 time such as `2026-11-24T10:00:00Z`") from error
    if moment.tzinfo is None:
        raise BadInputError(f"`{text}` has no time zone: add `Z` or an offset such as `+01:00`")
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
