"""A small MCP server with tools of two systems, as it stands behind Envoy: `pip install mcp`, then run it with a port.

It authorizes nothing: Envoy asks signalwarden before anything comes here, so the server listens on loopback alone. What
it does do is show a caller only the tools that this caller may use, which Envoy tells it in a header of its own.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from mcp.types import ListToolsResult

HOSTS = ["tools.prod.example"]
"""Names that callers know this server by: others are refused, or a web page could reach it by a name of its own."""
TOOLS_HEADER = "x-signalwarden-tools"
"""A JSON list of names, set by Envoy from what the decision point answered; Envoy takes a client's own away."""

desk = MCPServer("desk")
notes = {"welcome": "Customers first.", "c-42": "C-42 waits for an answer since Monday."}


@desk.tool()
def read_note(note: str) -> str:
    """Reads a note. System: notes."""
    return notes.get(note, "")


@desk.tool()
def write_note(note: str, text: str) -> str:
    """Writes a note. System: notes."""
    notes[note] = text
    return f"wrote {note}"


@desk.tool()
def export_record(record: str, format: str = "json") -> str:  # noqa: A002
    """Exports a customer's record. System: crm."""
    return json.dumps({"record": record, "format": format, "name": "Ada Example"})


async def only_usable_tools(context: Any, call_next: Any) -> Any:
    """The answer to `tools/list` names what this caller may use. Without the header: nothing."""
    result = await call_next(context)
    if context.method != "tools/list":
        return result
    usable = usable_tools(context.request.headers.getlist(TOOLS_HEADER) if context.request else [])
    if isinstance(result, ListToolsResult):
        result.tools = [tool for tool in result.tools if tool.name in usable]
        return result
    result["tools"] = [tool for tool in result["tools"] if tool["name"] in usable]
    return result


def usable_tools(values: list[str]) -> set[str]:
    """The names of the one header; none if it is missing, repeated or no list of texts."""
    try:
        [value] = values
        names = json.loads(value)
    except ValueError:
        return set()
    return {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()


desk.middleware.append(only_usable_tools)

if __name__ == "__main__":
    import uvicorn

    app = desk.streamable_http_app(transport_security=TransportSecuritySettings(allowed_hosts=HOSTS))
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
