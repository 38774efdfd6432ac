"""The second story of the demo: an agent's task, its tools in two systems, and the gate between them.

The tools are called as an MCP client calls them, JSON-RPC over HTTPS, through the real Envoy; the upstream only says
what reached it. `envoy/mcp/` has a real server of tools.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from signalwarden import starter
from signalwarden.demo_stage import (
    LOOPBACK,
    Authority,
    Upstream,
    free_port,
    line_with,
    start_envoy,
    start_server,
    stopping,
)
from signalwarden.envoy_config import Options, render

__all__ = ["play"]

AGENT = "spiffe://prod.example/ns/agents/sa/desk-agent"
HOST = "tools.prod.example"
TASK = {
    "principal": AGENT,
    "type": "desk_work",
    "actions": ["note.read", "record.export"],
    "resources": ["Notebook::*", "CustomerRecords::*"],
    "ttl": "2m",
}
RECORD = {"record": "C-42"}
OTHER_RECORD = {"record": "C-43"}


@dataclass(slots=True)
class Desk:
    """What runs, and what the agent has been given so far."""

    made: starter.Made
    agent: httpx.Client
    admin: httpx.Client
    task: str = ""
    grant: str = field(default="", repr=False)
    approval: str = ""

    @property
    def log(self) -> Path:
        return self.made.directory / "var" / "decisions.jsonl"

    def call(self, tool: str, arguments: Mapping[str, str], approval: str = "") -> httpx.Response:
        """One `tools/call` of the agent, with the grant that it has."""
        message = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": tool, "arguments": dict(arguments)},
        }
        headers = {"host": HOST, "accept": "application/json, text/event-stream"}
        if self.grant:
            headers["x-signalwarden-grant"] = self.grant
        if approval:
            headers["x-signalwarden-approval"] = approval
        return self.agent.post("/mcp", json=message, headers=headers)

    def ask(self, who: str, path: str, body: object = None) -> httpx.Response:
        """A call of the admin API with the token of one of its clients."""
        token = {"authorization": f"Bearer {self.made.tokens[who]}"}
        return self.admin.post(path, json={} if body is None else body, headers=token)


# ---- the story --------------------------------------------------------------------------------------------


def _begin(desk: Desk) -> httpx.Response:
    answer = desk.ask("agent", "/v1/tasks", TASK)
    if answer.status_code == httpx.codes.CREATED:
        begun = answer.json()
        desk.task, desk.grant = begun["task_id"], begun["grant"]
    return answer


def _export(desk: Desk) -> httpx.Response:
    answer = desk.call("export_record", RECORD)
    desk.approval = _problem(answer).get("approval_id") or desk.approval
    return answer


def _approve(desk: Desk, who: str) -> httpx.Response:
    return desk.ask(who, f"/v1/approvals/{desk.approval}/approve", {"comment": "C-42 asked for it"})


@dataclass(frozen=True, slots=True)
class Step:
    """One call of the story, and what it must come to."""

    title: str
    status: int
    reason: str
    send: Callable[[Desk], httpx.Response]


STORY = (
    Step(
        "the agent calls a tool before it has a task",
        403,
        "grant_required",
        lambda desk: desk.call("read_note", {"note": "c-42"}),
    ),
    Step("it begins a task of two minutes: notes, and customers' records", 201, "begun", _begin),
    Step("it reads a note", 200, "allowed", lambda desk: desk.call("read_note", {"note": "c-42"})),
    Step(
        "it calls a tool that the task is not for",
        403,
        "grant_scope_exceeded",
        lambda desk: desk.call("write_note", {"note": "draft-1", "text": "…"}),
    ),
    Step("it exports a record: a second system, so a person is asked", 403, "approval_required", _export),
    Step("it approves that itself", 403, "right_missing", lambda desk: _approve(desk, "agent")),
    Step("the reviewer approves that one call", 200, "approved", lambda desk: _approve(desk, "reviewer")),
    Step(
        "the agent uses the approval for another record",
        403,
        "approval_mismatch",
        lambda desk: desk.call("export_record", OTHER_RECORD, desk.approval),
    ),
    Step("it exports the record that was approved", 200, "allowed", _export),
    Step("and once more: an approval is good for one call", 403, "approval_required", _export),
    Step(
        "it completes the task",
        200,
        "completed",
        lambda desk: desk.ask("agent", f"/v1/tasks/{desk.task}/complete"),
    ),
    Step(
        "it reads a note with the grant of that task",
        403,
        "grant_revoked",
        lambda desk: desk.call("read_note", {"note": "c-42"}),
    ),
)


def play(authority: Authority, base: Path, out: Console) -> int:
    """Plays the story and prints its table; returns how many rows differ."""
    table = Table(title="An agent's task, and a gate between two systems", title_justify="left")
    for heading in ("call", "expected", "got"):
        table.add_column(heading, overflow="fold")
    table.add_column("", no_wrap=True)
    differing = 0
    with out.status("playing the agent's story"), _desk(authority, base) as desk:
        for step in STORY:
            answer = step.send(desk)
            got, note = _outcome(desk, step, answer)
            same = (answer.status_code, got) == (step.status, step.reason) and not note
            differing += not same
            colour = "green" if answer.is_success else "yellow"
            table.add_row(
                escape(step.title),
                f"{step.status} {step.reason}",
                f"[{colour}]{answer.status_code} {escape(got)}[/]"
                + (f"\n[red]{escape(note)}[/]" if note else ""),
                "[green]✓[/]" if same else "[bold red]✗[/]",
            )
    out.print(table)
    return differing


def _outcome(desk: Desk, step: Step, answer: httpx.Response) -> tuple[str, str]:
    """What came of a call, by the answer and by the log, and what is not as it should be."""
    problem = _problem(answer)
    through_envoy = answer.request.url.path == "/mcp"
    if not through_envoy:
        # Refused calls of the admin API say why; of others the status says all.
        return problem.get("reason", step.reason if answer.is_success else "refused"), ""
    seen = dict(answer.json()["headers"]) if answer.is_success else {}
    decision_id = seen.get("x-signalwarden-decision-id") or problem.get("decision_id")
    record = line_with(desk.log, "decision_id", decision_id)
    if record is None:
        return "no record", f"decision `{decision_id}` left no trace"
    if kept := [name for name in seen if name in ("x-signalwarden-grant", "x-signalwarden-approval")]:
        return record["reason"], f"the upstream saw {kept}"
    return record["reason"], ""


def _problem(answer: httpx.Response) -> dict[str, Any]:
    if answer.headers.get("content-type") != "application/problem+json":
        return {}
    problem: dict[str, Any] = answer.json()
    return problem


# ---- the stage --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _desk(authority: Authority, base: Path) -> Iterator[Desk]:
    """The agent's directory, served, behind an Envoy of its own."""
    check, admin, port, envoy_admin = (free_port() for _ in range(4))
    base.mkdir()
    made = starter.create_from("agent-tools", base / "directory", now=datetime.now(UTC))
    settings = made.directory / "signalwarden.yaml"
    text = settings.read_text(encoding="utf-8").replace("127.0.0.1:9191", f"{LOOPBACK}:{check}")
    settings.write_text(text.replace("127.0.0.1:9292", f"{LOOPBACK}:{admin}"), encoding="utf-8")
    edge = authority.issue("spiffe://prod.example/ns/edge/sa/envoy", dns=("localhost",))
    with contextlib.ExitStack() as stack:
        upstream = Upstream()
        stack.callback(upstream.close)
        stack.enter_context(stopping(start_server(made.directory, admin, base / "serve.log")))
        options = Options(
            listener=(LOOPBACK, port),
            upstream=(LOOPBACK, upstream.port),
            admin=(LOOPBACK, envoy_admin),
            certificate=str(edge.certificate),
            key=str(edge.key),
            trust_bundle=str(authority.bundle),
            access_log=str(base / "access.jsonl"),
            # A loaded machine is no reason for a denial in a demo.
            check_timeout=timedelta(seconds=5),
        )
        bootstrap = render(made.directory, "gateway", options)
        stack.enter_context(stopping(start_envoy(bootstrap, base, envoy_admin)))
        agent = httpx.Client(
            base_url=f"https://localhost:{port}",
            verify=authority.trust(authority.issue(AGENT)),
            timeout=15,
            trust_env=False,
        )
        client = httpx.Client(base_url=f"http://{LOOPBACK}:{admin}", timeout=10, trust_env=False)
        yield Desk(made, stack.enter_context(agent), stack.enter_context(client))
