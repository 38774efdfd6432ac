"""Verbs on tasks and workflows of a running server: begun, handed on, completed, revoked, listed, drawn as a tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text
from rich.tree import Tree

from signalwarden.cli.options import HERE, SERVER, ConfigOption, JsonOption, TokenOption, admin_of
from signalwarden.decision_log.tail import clean
from signalwarden.terminal import columns, console, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["add"]

group = typer.Typer(
    no_args_is_help=True, help="Begin tasks with a grant of their own, and end them, in a running server."
)
workflows = typer.Typer(
    no_args_is_help=True, help="Approve and end the workflows that tasks belong to, in a running server."
)

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="As `begin` and `list` show it.")]
WorkflowArgument = Annotated[str, typer.Argument(metavar="WORKFLOW", help="Its id.")]


def add(root: typer.Typer) -> None:
    """Adds these verbs."""
    root.add_typer(group, name="tasks", rich_help_panel=SERVER)
    root.add_typer(workflows, name="workflows", rich_help_panel=SERVER)


@group.command("begin")
def begin(
    principal: Annotated[
        str, typer.Option("--principal", metavar="SPIFFE-ID", help="The workload that shall hold the grant.")
    ],
    kind: Annotated[str, typer.Option("--type", metavar="TYPE", help="The type of task.")],
    actions: Annotated[
        list[str], typer.Option("--action", metavar="ACTION", help="What it may do; repeat for more.")
    ],
    resources: Annotated[
        list[str],
        typer.Option("--resource", metavar="RESOURCE", help='To what: `Type::"id"` or `Type::*`; repeat.'),
    ],
    workflow: Annotated[str | None, typer.Option("--workflow", help="The approved workflow of it.")] = None,
    sensitivity: Annotated[str | None, typer.Option("--sensitivity", help="low, medium or high.")] = None,
    environment: Annotated[str | None, typer.Option("--environment", help="Such as `prod`.")] = None,
    ttl: Annotated[
        str | None, typer.Option("--ttl", metavar="SPAN", help="For how long, such as `2m`.")
    ] = None,
    certificate: Annotated[
        str | None,
        typer.Option("--certificate-sha256", metavar="HEX", help="Bind the grant to this certificate."),
    ] = None,
    parent: Annotated[
        str | None, typer.Option("--parent", metavar="ID", help="As part of this task: a delegation.")
    ] = None,
    grant_only: Annotated[
        bool, typer.Option("--grant-only", help="Print the grant and nothing else, for scripts.")
    ] = False,
    config: ConfigOption = HERE,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Begin a task, or a part of one, and print its grant: it is shown this once.

    Example: `signalwarden tasks begin --principal spiffe://prod.example/agent --type invoice_run
    --action invoice.read --resource 'Invoice::*' --ttl 2m`
    """
    asked: dict[str, Any] = {
        "principal": principal,
        "type": kind,
        "actions": actions,
        "resources": resources,
        "workflow": workflow,
        "sensitivity": sensitivity,
        "environment": environment,
        "ttl": ttl,
        "certificate_sha256": certificate,
    }
    asked = {key: value for key, value in asked.items() if value is not None}
    with admin_of(config, token_file) as admin:
        answer = admin.begin_task(asked, parent=parent)
    if as_json:
        print_json(answer)
    elif grant_only:
        typer.echo(answer["grant"])
    else:
        out = console()
        out.print(f"task {clean(answer['task_id'])}, until {clean(answer['expires_at'])}")
        out.print("send the grant in the header x-signalwarden-grant:")
        typer.echo(answer["grant"])


@group.command("complete")
def complete(
    task_id: IdArgument,
    config: ConfigOption = HERE,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say that a task is done: its grant, and all below it, count no more.

    Example: `signalwarden tasks complete 01a20d2e-e225-7eba-82f3-6812fbaf3409`
    """
    _end(task_id, "complete", config, token_file, as_json=as_json)


@group.command("revoke")
def revoke(
    task_id: IdArgument,
    config: ConfigOption = HERE,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a task back: its grant, and all below it, count no more.

    Example: `signalwarden tasks revoke 01a20d2e-e225-7eba-82f3-6812fbaf3409`
    """
    _end(task_id, "revoke", config, token_file, as_json=as_json)


def _end(task_id: str, verb: str, config: Any, token_file: Any, *, as_json: bool) -> None:
    with admin_of(config, token_file) as admin:
        answer = admin.end_task(task_id, verb)
    if as_json:
        print_json(answer)
    else:
        console().print(f"task {clean(answer['task_id'])}: {clean(answer['state'])}")


PrincipalOption = Annotated[
    str | None, typer.Option("--principal", metavar="SPIFFE-ID", help="Those of this workload.")
]
EndedOption = Annotated[bool, typer.Option("--ended", help="Those that have ended, too.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=1_000, help="At most so many.")]


@group.command("list")
def list_tasks(
    principal: PrincipalOption = None,
    ended: EndedOption = False,
    limit: LimitOption = 100,
    config: ConfigOption = HERE,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """List tasks, newest first.

    Example: `signalwarden tasks list --ended`
    """
    with admin_of(config, token_file) as admin:
        answer = admin.tasks(principal, ended=ended, limit=limit)
    if as_json:
        print_json(answer)
        return
    out = console()
    if not answer["tasks"]:
        out.print("no tasks" if ended else "no live tasks")
        return
    table = columns("task", "state", "type", "principal", "actions", "until")
    for task in answer["tasks"]:
        actions = ", ".join(task["actions"])
        row = (task["task_id"], task["state"], task["type"], task["principal"], actions, task["expires_at"])
        table.add_row(*map(clean, row))
    out.print(table)
    if answer["truncated"]:
        out.print("… and more: see --limit")


@group.command("tree")
def tree(
    limit: LimitOption = 1_000,
    config: ConfigOption = HERE,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw tasks under those that they are part of, ended ones too.

    Example: `signalwarden tasks tree`
    """
    with admin_of(config, token_file) as admin:
        answer = admin.tasks(None, ended=True, limit=limit)
    if as_json:
        print_json(answer)
        return
    out = console()
    if not answer["tasks"]:
        out.print("no tasks")
    for drawn in _trees(answer["tasks"]):
        out.print(drawn)


def _trees(tasks: Sequence[dict[str, Any]]) -> list[Tree]:
    """Parents come before their children in time; one whose parent is not among them stands by itself."""
    nodes: dict[str, Tree] = {}
    roots: list[Tree] = []
    for task in sorted(tasks, key=lambda task: (task["depth"], task["begun_at"])):
        touched = ", ".join(task["touched"]["systems"]) or "nothing"
        told = f"{task['type']} {task['task_id']} [{task['state']}] {task['principal']}, touched {touched}"
        parent = nodes.get(task["parent"] or "")
        # As a text of its own: no words of others are ever read as markup.
        text = Text(clean(told))
        node = Tree(text) if parent is None else parent.add(text)
        nodes[task["task_id"]] = node
        if parent is None:
            roots.append(node)
    return roots


@workflows.command("approve")
def approve_workflow(
    workflow: WorkflowArgument,
    config: ConfigOption = HERE,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Approve a workflow: tasks may belong to it.

    Example: `signalwarden workflows approve month-end`
    """
    _move(workflow, "approved", config, token_file, as_json=as_json)


@workflows.command("end")
def end_workflow(
    workflow: WorkflowArgument,
    config: ConfigOption = HERE,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a workflow, and every task of it.

    Example: `signalwarden workflows end month-end`
    """
    _move(workflow, "ended", config, token_file, as_json=as_json)


def _move(workflow: str, state: str, config: Any, token_file: Any, *, as_json: bool) -> None:
    with admin_of(config, token_file) as admin:
        answer = admin.move_workflow(workflow, state)
    if as_json:
        print_json(answer)
    else:
        console().print(f"workflow {clean(answer['workflow'])}: {clean(answer['state'])}")


@workflows.command("list")
def list_workflows(
    limit: LimitOption = 100,
    config: ConfigOption = HERE,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """List workflows and how they stand.

    Example: `signalwarden workflows list`
    """
    with admin_of(config, token_file) as admin:
        answer = admin.workflows(limit)
    if as_json:
        print_json(answer)
        return
    out = console()
    if not answer["workflows"]:
        out.print("no workflows")
        return
    table = columns("workflow", "state", "by", "since")
    for entry in answer["workflows"]:
        table.add_row(*map(clean, (entry["workflow"], entry["state"], entry["by"], entry["at"])))
    out.print(table)
