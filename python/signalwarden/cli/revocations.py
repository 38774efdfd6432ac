"""Verbs on credentials that no longer count: revoking them, and what is revoked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from signalwarden.cli.options import HERE, SERVER, ConfigOption, JsonOption, TokenOption, admin_of
from signalwarden.decision_log.tail import clean
from signalwarden.errors import BadInputError
from signalwarden.terminal import columns, console, print_json

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["add"]

ANY = "any"
COLUMNS = ("digest", "jti", "subject", "issuer", "issued_before")


def add(root: typer.Typer) -> None:
    """Adds these verbs."""
    root.command("revoke", rich_help_panel=SERVER)(revoke)
    root.command("revocations", rich_help_panel=SERVER)(list_revocations)


def revoke(
    reason: Annotated[
        str,
        typer.Option("--reason", metavar="TEXT", help="Why; stands in the decision log.", show_default=False),
    ],
    digest: Annotated[
        str | None, typer.Option("--digest", metavar="SHA256", help="Of one token or certificate, in hex.")
    ] = None,
    jti: Annotated[str | None, typer.Option("--jti", metavar="ID", help="One token's id.")] = None,
    subject: Annotated[
        str | None, typer.Option("--subject", metavar="WHO", help="All that a SPIFFE ID or `sub` has by now.")
    ] = None,
    issued_before: Annotated[
        str | None, typer.Option("--issued-before", metavar="TIME", help="All that was issued up to then.")
    ] = None,
    issuer: Annotated[
        str | None, typer.Option("--issuer", metavar="NAME", help="Of this issuer or trust domain alone.")
    ] = None,
    everyone: Annotated[
        bool, typer.Option("--everyone", help="With `--issued-before` alone: of every issuer and subject.")
    ] = False,
    config: ConfigOption = HERE,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke credentials: from the next request on they are refused, and there is no way back.

    Example: `signalwarden revoke --subject spiffe://prod.example/ns/agents/sa/refund-agent --reason "key leaked"`
    """
    named = {
        "digest": digest, "jti": jti, "subject": subject, "issuer": issuer, "issued_before": issued_before,
    }  # fmt: skip
    what = {key: value for key, value in named.items() if value is not None}
    if what.keys() == {"issued_before"} and not everyone:
        raise BadInputError(
            "that would revoke what anybody holds: name `--issuer` or `--subject`, or say `--everyone`"
        )
    with admin_of(config, token_file) as admin:
        answer = admin.revoke({**what, "reason": reason})
    if as_json:
        print_json(answer)
    else:
        console().print(f"revoked: {_words(answer['revoked'])}")


def list_revocations(
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000, help="At most so many.")] = 100,
    config: ConfigOption = HERE,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what is revoked; who did it and why is in the decision log.

    Example: `signalwarden revocations`
    """
    with admin_of(config, token_file) as admin:
        answer = admin.revocations(limit)
    if as_json:
        print_json(answer)
        return
    if not answer["revocations"]:
        console().print("nothing is revoked")
        return
    table = columns(*(column.replace("_", " ") for column in COLUMNS))
    for entry in answer["revocations"]:
        table.add_row(*(clean(_cell(entry, column)) for column in COLUMNS))
    console().print(table)
    if answer["truncated"]:
        console().print(f"{len(answer['revocations'])} of {answer['count']}")


def _cell(entry: Mapping[str, Any], column: str) -> str:
    """What is not named is any, of those that could narrow it."""
    wide = {"issuer": "digest" not in entry, "subject": "issued_before" in entry}
    return str(entry.get(column, ANY if wide.get(column) else "-"))


def _words(revoked: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {clean(value)}" for key, value in revoked.items())
