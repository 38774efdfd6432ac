"""`envoy/mcp.yaml` as it runs: a real MCP server behind the real Envoy, and an agent that calls tools within a task."""

from __future__ import annotations

import json
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from signalwarden import starter
from signalwarden.demo_stage import (
    LOOPBACK,
    Credential,
    Process,
    free_port,
    start_envoy,
    start_server,
    stopping,
    wait_for,
)
from signalwarden.envoy_config import Options, render
from tests.e2e.conftest import PATIENT, Stage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

SERVER = Path(__file__).parents[2] / "envoy" / "mcp" / "server.py"
AGENT = "spiffe://prod.example/ns/agents/sa/desk-agent"
READER = "spiffe://prod.example/ns/agents/sa/digest-agent"
HOST = "tools.prod.example"
ACTIONS = ["note.read", "note.write", "record.export"]
RESOURCES = ["Notebook::*", "CustomerRecords::*"]
GRANT = "x-signalwarden-grant"
# As a client of the protocol sends it; the decision point asks for the method alone.
MCP_HEADERS = {
    "host": HOST,
    "content-type": "application/json",
    "accept": "application/json, text/event-stream",
}
STREAM_SECONDS = 3.0


@dataclass
class Desk:
    """Everything that runs: the server of tools, signalwarden, Envoy, and who calls."""

    made: starter.Made
    stage: Stage
    port: int
    admin_port: int
    credential: Credential
    reader: Credential
    """Another agent's, that may read notes alone."""
    agent: httpx.Client

    def admin(self, who: str, method: str, path: str, body: object = None) -> httpx.Response:
        return httpx.request(
            method,
            f"http://{LOOPBACK}:{self.admin_port}{path}",
            headers={"authorization": f"Bearer {self.made.tokens[who]}"},
            json=body,
            timeout=10,
            trust_env=False,
        )

    def begin(self, actions: list[str] | None = None) -> tuple[str, str]:
        """A task of the agent's: its id and its grant."""
        asked = {
            "principal": AGENT,
            "type": "desk_work",
            "actions": actions or ACTIONS,
            "resources": RESOURCES,
        }
        answer = self.admin("agent", "POST", "/v1/tasks", asked)
        assert answer.status_code == 201, answer.text
        begun = answer.json()
        return begun["task_id"], begun["grant"]

    def post(self, message: object, grant: str | None = None, **headers: str) -> httpx.Response:
        content = message if isinstance(message, bytes) else json.dumps(message).encode()
        more = {GRANT: grant} if grant else {}
        return self.agent.post("/mcp", content=content, headers={**MCP_HEADERS, **more, **headers})

    def call(self, tool: str, arguments: object, grant: str | None) -> httpx.Response:
        return self.post(calling(tool, arguments), grant)

    def records(self) -> list[dict[str, Any]]:
        lines = (self.made.directory / "var" / "decisions.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def record(self, decision_id: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = []

        def written() -> bool:
            found[:] = [line for line in self.records() if line.get("decision_id") == decision_id]
            return bool(found)

        wait_for(f"the record of `{decision_id}`", written, 15)
        return found[-1]

    @asynccontextmanager
    async def client(
        self, mode: str, grant: str | None = None, *, who: Credential | None = None, **headers: str
    ) -> AsyncIterator[Client]:
        """The official client, over mutual TLS as the agent, or as another."""
        sent = {"host": HOST, **headers, **({GRANT: grant} if grant else {})}
        context = self.stage.authority.trust(who or self.credential)
        async with httpx2.AsyncClient(headers=sent, verify=context, timeout=20, trust_env=False) as http:
            transport = streamable_http_client(f"https://localhost:{self.port}/mcp", http_client=http)
            async with Client(transport, mode=mode) as client:
                yield client


def calling(tool: str, arguments: object, number: int = 1) -> dict[str, Any]:
    params = {"name": tool, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


def reason(answer: httpx.Response) -> str:
    """Why it was denied; `passed` if it came to the server of tools."""
    if answer.headers.get("content-type") != "application/problem+json":
        assert answer.status_code < 500, answer.text
        return "passed"
    said: str = answer.json()["reason"]
    return said


@pytest.fixture(scope="module")
def desk(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    base = tmp_path_factory.mktemp("desk")
    check, admin, port, envoy_admin, tools = (free_port() for _ in range(5))
    made = starter.create_from("agent-tools", base / "config", now=datetime.now(UTC))
    settings = made.directory / "signalwarden.yaml"
    text = settings.read_text().replace("127.0.0.1:9191", f"{LOOPBACK}:{check}")
    settings.write_text(text.replace("127.0.0.1:9292", f"{LOOPBACK}:{admin}"))
    edge = stage.authority.issue("spiffe://prod.example/ns/edge/sa/envoy", dns=("localhost",))
    credential = stage.authority.issue(AGENT)
    options = Options(
        listener=(LOOPBACK, port),
        upstream=(LOOPBACK, tools),
        admin=(LOOPBACK, envoy_admin),
        certificate=str(edge.certificate),
        key=str(edge.key),
        trust_bundle=str(stage.authority.bundle),
        access_log=str(base / "access.jsonl"),
        check_timeout=PATIENT,
        max_stream_duration=timedelta(seconds=STREAM_SECONDS),
    )
    server = Process("the MCP server", [sys.executable, str(SERVER), str(tools)], base / "tools.log")
    with (
        stopping(server),
        stopping(start_server(made.directory, admin, base / "serve.log")),
        stopping(start_envoy(render(made.directory, "gateway", options), base, envoy_admin)),
        stage.client(port, credential) as agent,
    ):
        server.wait_until(lambda: answers(tools))
        reader = stage.authority.issue(READER)
        yield Desk(made, stage, port, admin, credential, reader, agent)


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://{LOOPBACK}:{port}/", timeout=1, trust_env=False).status_code > 0
    except httpx.HTTPError:
        return False


# ---- with the official client -----------------------------------------------------------------------------


async def tools_seen(desk: Desk, mode: str, who: Credential | None = None, **headers: str) -> list[str]:
    async with desk.client(mode, who=who, **headers) as client:
        return sorted(tool.name for tool in (await client.list_tools()).tools)


async def told(desk: Desk, mode: str, grant: str, tool: str, arguments: dict[str, Any]) -> str:
    async with desk.client(mode, grant) as client:
        result = await client.call_tool(tool, arguments)
        content: Any = result.content[0]
        return str(content.text)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_the_official_client_calls_a_tool_within_a_task(desk: Desk, mode: str) -> None:
    _task, grant = desk.begin()
    assert anyio.run(told, desk, mode, grant, "read_note", {"note": "welcome"}) == "Customers first."


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_caller_is_shown_the_tools_that_it_may_use(desk: Desk, mode: str) -> None:
    assert anyio.run(tools_seen, desk, mode) == ["export_record", "read_note", "write_note"]
    assert anyio.run(tools_seen, desk, mode, desk.reader) == ["read_note"]


def test_a_client_can_not_show_itself_a_tool(desk: Desk) -> None:
    async def seen() -> list[str]:
        forged = {"x-signalwarden-tools": '["export_record"]'}
        return await tools_seen(desk, "auto", desk.reader, **forged)

    assert anyio.run(seen) == ["read_note"]


# ---- what is denied, and why ------------------------------------------------------------------------------


def test_without_a_task_no_tool_is_called(desk: Desk) -> None:
    assert reason(desk.call("read_note", {"note": "welcome"}, None)) == "grant_required"


@pytest.mark.parametrize(
    ("tool", "arguments", "expected"),
    [
        ("write_note", {"note": "draft-1", "text": "hello"}, "passed"),
        ("write_note", {"note": "welcome", "text": "hello"}, "no_policy_permits"),
        ("write_note", {"text": "no note is named"}, "malformed_request"),
        ("write_note", {"note": 7, "text": "hello"}, "malformed_request"),
        ("write_note", ["draft-1", "hello"], "malformed_request"),
        ("drop_notes", {}, "route_unknown"),
    ],
)
def test_arguments_decide_as_much_as_the_tool(
    desk: Desk, tool: str, arguments: object, expected: str
) -> None:
    _task, grant = desk.begin()
    assert reason(desk.call(tool, arguments, grant)) == expected


READ = calling("read_note", {"note": "welcome"})
WRITE = calling("write_note", {"note": "welcome", "text": "x"}, 2)


TWICE_PARAMS = (
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read_note","arguments":{"note":"welcome"}},'
    b'"params":{"name":"write_note","arguments":{"note":"welcome","text":"x"}}}'
)
TWICE_NAME = (
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read_note","name":"write_note",'
    b'"arguments":{"note":"welcome","text":"x"}}}'
)


@pytest.mark.parametrize(
    "message",
    [
        [READ],
        [READ, WRITE],
        b"{",
        b"",
        json.dumps(READ).encode() + json.dumps(WRITE).encode(),
        TWICE_PARAMS,
        TWICE_NAME,
        {**READ, "jsonrpc": "1.0"},
        {key: value for key, value in READ.items() if key != "method"},
        {**READ, "method": 7},
    ],
    ids=[
        "batch of one",
        "batch",
        "cut off",
        "empty",
        "two",
        "params twice",
        "name twice",
        "1.0",
        "no method",
        "7",
    ],
)
def test_what_has_no_one_meaning_is_denied_on_record(desk: Desk, message: object) -> None:
    _task, grant = desk.begin()
    answer = desk.post(message, grant)
    assert reason(answer) == "malformed_request"
    assert desk.record(answer.json()["decision_id"])["outcome"] == "deny"


def test_a_method_that_no_route_names_is_denied(desk: Desk) -> None:
    _task, grant = desk.begin()
    message = {"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": {"uri": "file:///etc/passwd"}}
    assert reason(desk.post(message, grant)) == "route_unknown"


def test_an_action_outside_the_task_is_denied(desk: Desk) -> None:
    _task, grant = desk.begin(["note.read"])
    assert reason(desk.call("export_record", {"record": "C-42"}, grant)) == "grant_scope_exceeded"


# ---- the gate ---------------------------------------------------------------------------------------------

EXPORT = {"record": "C-42", "format": "json"}


def test_one_system_alone_needs_no_approval(desk: Desk) -> None:
    _task, grant = desk.begin()
    assert reason(desk.call("export_record", EXPORT, grant)) == "passed"
    assert reason(desk.call("export_record", EXPORT, grant)) == "passed"


def test_a_task_that_crosses_into_another_system_is_approved_once_for_that_very_call(desk: Desk) -> None:
    task, grant = desk.begin()
    assert reason(desk.call("read_note", {"note": "c-42"}, grant)) == "passed"

    asked = desk.call("export_record", EXPORT, grant)
    assert reason(asked) == "approval_required"
    assert int(asked.headers["retry-after"]) > 0
    approval = asked.json()["approval_id"]
    again = desk.call("export_record", EXPORT, grant)
    assert again.json()["approval_id"] == approval

    own = desk.admin("agent", "POST", f"/v1/approvals/{approval}/approve", {"comment": "I say so"})
    assert own.status_code == 403
    yes = desk.admin(
        "reviewer", "POST", f"/v1/approvals/{approval}/approve", {"comment": "C-42 asked for it"}
    )
    assert yes.status_code == 200, yes.text

    other = desk.call("export_record", {**EXPORT, "record": "C-43"}, grant)
    assert reason(other) == "approval_required"
    assert other.json()["approval_id"] != approval
    elsewhere = desk.post(
        calling("export_record", {**EXPORT, "record": "C-43"}), grant, **{"x-signalwarden-approval": approval}
    )
    assert reason(elsewhere) == "approval_mismatch"

    assert reason(desk.call("export_record", EXPORT, grant)) == "passed"
    assert reason(desk.call("export_record", EXPORT, grant)) == "approval_required"

    assert desk.admin("agent", "POST", f"/v1/tasks/{task}/complete").status_code == 200
    assert reason(desk.call("read_note", {"note": "c-42"}, grant)) == "grant_revoked"


# ---- the stream -------------------------------------------------------------------------------------------


def test_the_servers_own_stream_ends_and_must_be_asked_for_again(desk: Desk) -> None:
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "t", "version": "1"},
        },
    }
    session = desk.post(hello).headers["mcp-session-id"]
    headers = {"host": HOST, "accept": "text/event-stream", "mcp-session-id": session}
    begun = time.monotonic()
    with desk.agent.stream("GET", "/mcp", headers=headers) as stream:
        assert stream.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            stream.read()
    assert time.monotonic() - begun < STREAM_SECONDS + 5
