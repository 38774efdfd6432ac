"""A route with `enforce: false` behind the real gRPC door: decided, recorded, let pass, and said aloud."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import jsonschema
import pytest

from signalwarden.app import App
from signalwarden.decision_log import tail
from signalwarden.server import CHECK_METHOD
from tests import asking

TIMEOUT_S = 10.0
SCHEMA = json.loads((Path(__file__).parents[2] / "docs/schema/decision-record.schema.json").read_text())
WATCHED = (
    '@id("watched") @mode("observe")\n'
    'forbid (principal, action, resource) when { context.request.path == "/home" };\n'
)


@pytest.fixture
def root(minimal_directory: Path) -> Path:
    """The minimal directory: its route is not enforced, its policies forbid all."""
    routes = minimal_directory / "routes.yaml"
    routes.write_text(
        routes.read_text().replace("    tier: runtime\n", "    tier: runtime\n    enforce: false\n")
    )
    (minimal_directory / "policies/more.cedar").write_text("forbid (principal, action, resource);\n")
    return minimal_directory


@pytest.fixture
def app(root: Path) -> Iterator[App]:
    started = App(root)
    started.start()
    yield started
    started.stop()


def check(app: App, **request: Any) -> bytes:
    with grpc.insecure_channel(app.check_address) as opened:
        call = opened.unary_unary(CHECK_METHOD, request_serializer=bytes, response_deserializer=bytes)
        return bytes(call(bytes(asking.check_request(**request)), timeout=TIMEOUT_S))


def decisions(root: Path) -> list[dict[str, Any]]:
    lines = (root / "var/decisions.jsonl").read_bytes().splitlines()
    found = [record for record in map(json.loads, lines) if record["kind"] == "decision"]
    for record in found:
        jsonschema.validate(record, SCHEMA)
    return found


def number(app: App, name: str) -> float:
    lines = app.metrics_text()[0].decode().splitlines()
    return float(next(line.rpartition(" ")[2] for line in lines if line.startswith(f"{name} ")))


def test_what_policies_deny_is_let_pass_with_our_headers_and_recorded_as_a_denial(
    app: App, root: Path
) -> None:
    answer = asking.parsed(check(app))
    assert answer.status is not None
    assert int(answer.status.code) == 0
    assert answer.ok_response is not None
    headers = {
        option.header.key: option.header.value for option in answer.ok_response.headers if option.header
    }
    assert headers["x-signalwarden-principal"] == asking.AGENT
    assert "x-original-url" in answer.ok_response.headers_to_remove
    assert answer.dynamic_metadata is not None
    ours = answer.dynamic_metadata.fields["signalwarden"].struct_value
    assert ours is not None
    assert ours.fields["reason"].string_value == "policy_denied"
    assert ours.fields["enforced"].bool_value is False
    app.stop()
    (record,) = decisions(root)
    said = {key: record[key] for key in ("outcome", "reason", "http_status", "enforced")}
    assert said == {"outcome": "deny", "reason": "policy_denied", "http_status": 403, "enforced": False}
    assert record["decision_id"] == headers["x-signalwarden-decision-id"]
    assert tail.line(record).plain.split()[2:4] == ["PASS", "policy_denied"]


def test_who_is_not_known_is_denied_all_the_same(app: App, root: Path) -> None:
    assert asking.grpc_code(check(app, principal="")) == 16
    assert asking.grpc_code(check(app, path="/other")) == 7
    app.stop()
    assert [(record["reason"], "enforced" in record) for record in decisions(root)] == [
        ("identity_missing", False),
        ("route_unknown", False),
    ]


def test_the_server_says_aloud_that_a_route_is_not_enforced(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(root)
    app.start()
    try:
        with caplog.at_level(logging.WARNING):
            app.say_started()  # as `run` does
        assert "routes.yaml:2:5: warning: `enforce: false`" in caplog.text
        detail = app.readiness().detail
        assert (detail["unenforced"], detail["warnings"]) == (["routes.yaml:2"], 1)
        assert number(app, "signalwarden_unenforced_total") == 0
        check(app)
        assert number(app, "signalwarden_unenforced_total") == 1
        text = (root / "routes.yaml").read_text()
        (root / "routes.yaml").write_text(text.replace("    enforce: false\n", ""))
        app.reload("test")
        assert app.readiness().detail["unenforced"] == []
        assert asking.grpc_code(check(app)) == 7
        assert number(app, "signalwarden_unenforced_total") == 1
    finally:
        app.stop()


def test_an_observing_policy_leaves_its_mark_in_the_record_alone(minimal_directory: Path) -> None:
    (minimal_directory / "policies/watched.cedar").write_text(WATCHED)
    app = App(minimal_directory)
    app.start()
    answer = check(app)
    app.stop()
    assert asking.grpc_code(answer) == 0
    assert b"watched" not in answer
    (record,) = decisions(minimal_directory)
    assert (record["outcome"], record["policies"]["would"]) == ("allow", "policy_denied")
    (watched,) = record["policies"]["observed"]
    assert (watched["id"], watched["effect"], watched["applies"]) == ("watched", "forbid", "certain")


def test_a_configuration_tells_which_policies_observe_and_which_routes_enforce() -> None:
    files = {
        "routes.yaml": "routes:\n"
        + "".join(
            f'  - {{match: {{host: "*", method: {method}, path: "/"}}, action: {action}, '
            f"resource: {{type: Page, id: x}}, tier: runtime, sensitivity: low, enforce: {enforce}}}\n"
            for method, action, enforce in (("GET", "page.read", "true"), ("PUT", "page.write", "false"))
        ),
        "entities.cedarschema": "entity Workload;\nentity Page;\n",
        "policies/all.cedar": f'@id("all") permit (principal, action, resource);\n{WATCHED}',
    }
    described = json.loads(asking.load(files).describe())
    assert [route["enforce"] for route in described["routes"]] == [True, False]
    assert [(p["id"], p["effect"], p["mode"]) for p in described["policies"]] == [
        ("all", "permit", "enforce"),
        ("watched", "forbid", "observe"),
    ]
