"""Bodies that an approval is bound to, and what the MCP filter says, as the real Envoy hands them to the check."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from envoy_data_plane.envoy.service.auth.v3 import CheckResponse, OkHttpResponse
from envoy_data_plane.google.protobuf import Struct
from envoy_data_plane.google.rpc import Status

from signalwarden.demo_stage import free_port
from tests.e2e.conftest import make_directory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx
    from envoy_data_plane.envoy.service.auth.v3 import AttributeContextHttpRequest

    from tests.e2e.conftest import RunningEnvoy, Scripted, Stage

ALLOW = bytes(CheckResponse(status=Status(code=0)))
LIMIT = 64 * 1024
PAYOUT = "/v1/payouts"
ROUTES = """
  - match: {host: "*", method: POST, path: "/v1/payouts"}
    action: payout.create
    resource: {type: Account, id: "all"}
    tier: approval
    sensitivity: high
  - match: {host: "*", method: POST, path: "/mcp", mcp: {method: "tools/call", tool: read_note}}
    action: note.read
    resource: {type: Account, id: "notes"}
    tier: runtime
    sensitivity: low
default: deny
"""
CALL = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": "read_note", "arguments": {"n": 1}},
}
MCP_HEADERS = {"content-type": "application/json", "accept": "application/json, text/event-stream"}


@pytest.fixture(scope="module")
def envoy_directory(scripted_server: Scripted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bodies") / "config"
    make_directory(directory, scripted_server.port, free_port())
    routes = directory / "routes.yaml"
    routes.write_text(routes.read_text().replace("default: deny", "") + ROUTES)
    return directory


@pytest.fixture(scope="module")
def envoy(run_envoy: Callable[..., RunningEnvoy], envoy_directory: Path) -> RunningEnvoy:
    return run_envoy(envoy_directory)


@pytest.fixture
def allowing(scripted: Scripted, stage: Stage) -> Scripted:
    scripted.answer = ALLOW
    stage.upstream.calls.clear()
    return scripted


def asked(scripted: Scripted) -> AttributeContextHttpRequest:
    attributes = scripted.request().attributes
    assert attributes is not None
    assert attributes.request is not None
    assert attributes.request.http is not None
    return attributes.request.http


def sent_header(scripted: Scripted, name: str) -> list[str]:
    sent = asked(scripted).header_map
    assert sent is not None
    return [header.raw_value.decode() for header in sent.headers if header.key == name]


def post(envoy: RunningEnvoy, stage: Stage, path: str, body: bytes, *, http2: bool) -> httpx.Response:
    with envoy.client(stage.agent, http2=http2) as client:
        return client.post(path, content=body)


# ---- bodies that are to be approved -----------------------------------------------------------------------


@pytest.mark.parametrize("http2", [False, True])
@pytest.mark.parametrize("size", [0, 1, 20_000, 40_000, LIMIT])
def test_a_body_that_is_to_be_approved_comes_whole_as_bytes(
    envoy: RunningEnvoy, allowing: Scripted, stage: Stage, size: int, http2: bool
) -> None:
    body = bytes(range(256)) * (size // 256) + b"\xff" * (size % 256)
    assert post(envoy, stage, PAYOUT, body, http2=http2).status_code == 200
    assert asked(allowing).raw_body == body
    assert sent_header(allowing, "x-envoy-auth-partial-body") in ([], ["false"])
    assert stage.upstream.calls[-1]["body_bytes"] == size


# A client of HTTP/2 that goes on sending waits for ever for room: larger ones here are HTTP/1.
@pytest.mark.parametrize(
    ("size", "http2"), [(LIMIT + 1, False), (LIMIT + 1, True), (200_000, False), (1_000_000, False)]
)
def test_a_body_that_is_too_large_is_refused_before_any_check(
    envoy: RunningEnvoy, allowing: Scripted, stage: Stage, size: int, http2: bool
) -> None:
    assert post(envoy, stage, PAYOUT, b"\xfe" * size, http2=http2).status_code == 413
    assert allowing.asked == []
    assert stage.upstream.calls == []


def test_where_parts_are_allowed_envoys_mark_of_a_part_can_not_be_relied_upon(
    run_envoy: Callable[..., RunningEnvoy], envoy_directory: Path, allowing: Scripted, stage: Stage
) -> None:
    """Why `allow_partial_message` is false everywhere: with exactly the limit in its buffer Envoy says that all is
    there. If this fails, Envoy has mended it."""
    partial = run_envoy(
        envoy_directory,
        edit=lambda text: text.replace("allow_partial_message: false", "allow_partial_message: true").replace(
            "per_connection_buffer_limit_bytes: 32768", "per_connection_buffer_limit_bytes: 1048576"
        ),
    )
    assert post(partial, stage, PAYOUT, b"\xfe" * 200_000, http2=True).status_code == 200
    assert len(asked(allowing).raw_body) == LIMIT
    assert sent_header(allowing, "x-envoy-auth-partial-body") == ["false"]
    assert stage.upstream.calls[-1]["body_bytes"] == 200_000


# ---- MCP --------------------------------------------------------------------------------------------------


def told_by_the_filter(scripted: Scripted) -> dict[str, Any]:
    attributes = scripted.request().attributes
    assert attributes is not None
    if attributes.metadata_context is None:
        return {}
    said = attributes.metadata_context.filter_metadata
    return {name: struct.to_dict() for name, struct in said.items()}.get("envoy.filters.http.mcp", {})


def call_mcp(envoy: RunningEnvoy, content: bytes, **headers: str) -> httpx.Response:
    sent = {**MCP_HEADERS, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return envoy.agent.post("/mcp", content=content, headers=sent)


def test_the_mcp_filter_names_method_and_tool_and_the_body_comes_whole(
    envoy: RunningEnvoy, allowing: Scripted
) -> None:
    assert call_mcp(envoy, json.dumps(CALL).encode()).status_code == 200
    said = told_by_the_filter(allowing)
    assert said["method"] == "tools/call"
    assert said["params"] == {"name": "read_note"}
    assert said["is_mcp_request"] is True
    assert asked(allowing).raw_body == json.dumps(CALL).encode()


@pytest.mark.parametrize(
    "content",
    [b"[]", b"{", b"\xff", json.dumps([CALL, CALL]).encode(), json.dumps(CALL).encode() + b"{}", b'"x"'],
    ids=["empty batch", "cut off", "no text", "batch", "bytes after it", "a text"],
)
def test_what_is_no_call_reaches_the_check_so_that_it_is_denied_on_record(
    envoy: RunningEnvoy, allowing: Scripted, content: bytes
) -> None:
    call_mcp(envoy, content)
    assert asked(allowing).raw_body == content
    said = told_by_the_filter(allowing)
    assert not said.get("is_mcp_request") or said.get("passthrough_reason")


def test_the_mcp_filter_looks_at_no_other_route(envoy: RunningEnvoy, allowing: Scripted) -> None:
    envoy.agent.post(PAYOUT, json=CALL, headers=MCP_HEADERS)
    assert told_by_the_filter(allowing) == {}


def upstream_saw(stage: Stage, name: str) -> list[str]:
    return [value for header, value in stage.upstream.calls[-1]["headers"] if header == name]


def test_usable_tools_go_to_the_upstream_in_a_header_that_no_client_can_write(
    envoy: RunningEnvoy, allowing: Scripted, stage: Stage
) -> None:
    tools = Struct.from_dict({"signalwarden": {"tools": ["read_note", "a,b"]}})
    allowing.answer = bytes(
        CheckResponse(status=Status(code=0), ok_response=OkHttpResponse(), dynamic_metadata=tools)
    )
    call_mcp(envoy, json.dumps(CALL).encode(), x_signalwarden_tools='["write_note"]')
    assert [json.loads(value) for value in upstream_saw(stage, "x-signalwarden-tools")] == [
        ["read_note", "a,b"]
    ]
    allowing.answer = ALLOW
    for method, path in (
        ("POST", "/mcp"),
        ("GET", "/mcp"),
        ("POST", PAYOUT),
        ("GET", "/healthz"),
        ("PUT", "/x"),
    ):
        envoy.agent.request(method, path, headers={"x-signalwarden-tools": '["write_note"]'})
        assert upstream_saw(stage, "x-signalwarden-tools") == [], (method, path)
