"""Verbs on questions: what waits for a yes, what exactly is asked, and the answer."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.table import Table

from signalwarden.approval_news import News
from signalwarden.cli.options import HERE, SERVER, ConfigOption, JsonOption, TokenOption, admin_of
from signalwarden.decision_log.tail import clean
from signalwarden.errors import UnreachableError
from signalwarden.saying import say
from signalwarden.terminal import columns, console, print_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from signalwarden.admin_client import AdminClient

__all__ = ["add"]

POLL_S: Final = 1.0
"""Between two looks of `watch`: whoever waits for an answer does not feel a second, a server does not feel one look."""
MAX_WAIT_S: Final = 30.0
"""Between two tries to reach a server that is gone."""
WATCHED: Final = 1_000
"""Questions of one look."""

group = typer.Typer(
    no_args_is_help=True, help="See what waits for approval in a running server, and answer it."
)

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="As `list` and `watch` show it.")]
CommentOption = Annotated[
    str | None, typer.Option("--comment", metavar="TEXT", help="Why; stands in the decision log.")
]


def add(root: typer.Typer) -> None:
    """Adds these verbs."""
    root.add_typer(group, name="approvals", rich_help_panel=SERVER)


@group.command("list")
def list_approvals(
    state: Annotated[
        str, typer.Option("--state", help="pending, approved, denied, expired, used, or all.")
    ] = "pending",
    requester: Annotated[
        str | None, typer.Option("--requester", metavar="SPIFFE-ID", help="Of this one alone, one by one.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000, help="At most so many.")] = 100,
    config: ConfigOption = HERE,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """List questions, those of one requester about one action in one line.

    Example: `signalwarden approvals list`
    """
    with admin_of(config, token_file) as admin:
        answer = admin.approvals(None if state == "all" else state, requester, limit)
    if as_json:
        print_json(answer)
        return
    out = console()
    if not answer["groups"]:
        out.print("no questions" if state == "all" else f"no {clean(state)} questions")
        return
    out.print(_groups(answer["groups"]))
    out.print()
    out.print(_questions(answer["approvals"]))
    if (hidden := answer["count"] - len(answer["approvals"])) > 0:
        out.print(f"… and {hidden} more: see --requester and --limit")


@group.command("show")
def show(
    approval_id: IdArgument,
    config: ConfigOption = HERE,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what one question asks.

    Example: `signalwarden approvals show 01a20d2e-e225-7eba-82f3-6812fbaf3409`
    """
    with admin_of(config, token_file) as admin:
        question = admin.approval(approval_id)
    if as_json:
        print_json(question)
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _told(question):
        table.add_row(name, clean(text))
    console().print(table)


@group.command("approve")
def approve(
    approval_id: IdArgument,
    comment: CommentOption = None,
    config: ConfigOption = HERE,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say yes to exactly this call, once.

    Example: `signalwarden approvals approve 01a20d2e-e225-7eba-82f3-6812fbaf3409 --comment "INC-7: asked by phone"`
    """
    with admin_of(config, token_file) as admin:
        _print_answer(admin.answer(approval_id, comment, approve=True), as_json=as_json)


@group.command("deny")
def deny(
    approval_id: IdArgument,
    comment: CommentOption = None,
    config: ConfigOption = HERE,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say no; the same call is denied until its question would have expired.

    Example: `signalwarden approvals deny 01a20d2e-e225-7eba-82f3-6812fbaf3409 --comment "not ours"`
    """
    with admin_of(config, token_file) as admin:
        _print_answer(admin.answer(approval_id, comment, approve=False), as_json=as_json)


@group.command("watch")
def watch(
    config: ConfigOption = HERE,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show questions as they are asked, until Ctrl-C. Many of one requester are told together.

    Example: `signalwarden approvals watch`
    """
    news = News()
    with admin_of(config, token_file) as admin:
        for answer in _looks(admin):
            for line in news.of(answer, time.monotonic()):
                if as_json:
                    print_json(line.told)
                else:
                    console().print(clean(line.text))


def _looks(admin: AdminClient) -> Iterator[dict[str, Any]]:
    """One a second, for ever; longer and longer apart while the server is gone. A refusal ends it."""
    wait = POLL_S
    while True:
        try:
            answer = admin.approvals("pending", None, WATCHED)
        except UnreachableError as error:
            if wait == POLL_S:
                say(f"{error}; trying again")
            wait = min(2 * wait, MAX_WAIT_S)
        else:
            if wait != POLL_S:
                say("the server answers again")
            wait = POLL_S
            yield answer
        time.sleep(wait)


def _print_answer(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    given, need = len(answer["approved_by"]), answer["need"]
    so_far = f", {given} of {need} have said yes" if answer["state"] == "pending" else ""
    console().print(f"{clean(answer['approval_id'])} is {clean(answer['state'])}{so_far}")


def _groups(groups: list[dict[str, Any]]) -> Table:
    titles = ("requester", "action", "task", "questions", "resources", "first ends")
    table = columns(*titles, right=("questions", "resources"))
    for line in groups:
        table.add_row(
            clean(line["requester"]),
            clean(line["action"]),
            clean(line["task_id"] or "-"),
            str(line["count"]),
            str(line["resources"]),
            _until(line["first_expires_at"]),
        )
    return table


def _questions(questions: list[dict[str, Any]]) -> Table:
    table = columns("id", "state", "action", "resource", "says", "yes", "ends", unwrapped=("id",))
    for question in questions:
        table.add_row(
            clean(question["approval_id"]),
            clean(question["state"]),
            clean(question["action"]),
            clean(question["resource"]),
            clean("; ".join(question["words"])),
            f"{len(question['approved_by'])}/{question['need']}",
            _until(question["expires_at"]),
        )
    return table


def _told(question: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Line by line, what is asked first."""
    who = question["requester"]
    acting = f", for which {question['actor']} acts," if question["actor"] else ""
    yield "asked", f"may {who}{acting} do {question['action']} with {question['resource']}, once?"
    for words in question["words"]:
        yield "says", words
    yield "call", f"{question['method']} {question['host']}{question['path']}"
    arguments = question.get("args") or {}
    for name in sorted(arguments):
        yield "argument", f"{name} = {arguments[name]}"
    yield "body", f"SHA-256 {question['body_sha256']}"
    if question["task_id"]:
        yield "task", question["task_id"]
    yield "policies", ", ".join(question["policies"]) or "none"
    yield "state", question["state"]
    yield "said yes", f"{', '.join(question['approved_by']) or 'nobody'} ({question['need']} needed)"
    if question["denied_by"]:
        yield "said no", question["denied_by"]
    if question["comment"]:
        yield "comment", question["comment"]
    if question["used_by"]:
        yield "used by", f"decision {question['used_by']}"
    yield "asked at", question["asked_at"]
    yield "ends", f"{question['expires_at']} ({_until(question['expires_at'])})"


def _until(text: str) -> str:
    """How long it is to a time, as people say it."""
    try:
        left = (datetime.fromisoformat(text) - datetime.now(UTC)).total_seconds()
    except ValueError:
        return clean(text)
    if left <= 0:
        return "over"
    return f"in {left:.0f} s" if left < 120 else f"in {left / 60:.0f} min"
