"""Which routes need whole bodies: what `check` says of them, and what Envoy is made to send."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from signalwarden import body_needs, cli, config, envoy_directory, starter
from signalwarden.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

PAYOUT = """
  - match: {host: "*", method: POST, path: "/v1/payouts"}
    action: payout.create
    resource: {type: Account, id: all}
    tier: approval
    sensitivity: high
"""
PERMIT = 'permit (principal, action == Action::"payout.create", resource);'


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return starter.create(tmp_path / "config", now=datetime.now(UTC)).directory


def with_route(directory: Path, route: str) -> Path:
    routes = directory / "routes.yaml"
    routes.write_text(routes.read_text().replace("\ndefault: deny", route + "default: deny"))
    return directory


def described(tier: str, *, has_gates: bool, routes: int = 1) -> dict[str, Any]:
    return {
        "actions": [{"action": "a", "tier": tier, "has_gates": has_gates}],
        "routes": [{"action": "a", "tier": tier, "line": 2 + 5 * n} for n in range(routes)],
    }


def test_the_starter_needs_nothing_to_be_said(directory: Path) -> None:
    loaded = config.load(directory, int(datetime.now(UTC).timestamp() * 1e6))
    assert list(body_needs.findings(loaded.described())) == []


@pytest.mark.parametrize(("tier", "has_gates"), [("approval", False), ("runtime", True), ("jit", True)])
def test_what_may_need_an_approval_needs_the_body(tier: str, has_gates: bool) -> None:
    [finding] = body_needs.findings(described(tier, has_gates=has_gates))
    assert (finding.severity, finding.code, finding.line) == ("warning", "needs_body", 2)
    assert "`a` (line 2)" in finding.message


def test_a_finding_stays_short_however_many_routes_there_are() -> None:
    [finding] = body_needs.findings(described("approval", has_gates=False, routes=100))
    assert "and 92 more" in finding.message
    assert len(finding.message) < 600


def test_check_names_the_route(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (with_route(directory, PAYOUT) / "policies" / "payouts.cedar").write_text(PERMIT)
    assert cli._run(["check", "--config", str(directory), "--format", "json"]) == 0
    assert "needs_body" in capsys.readouterr().out


def test_a_route_of_tier_approval_has_its_body_sent(directory: Path) -> None:
    known = envoy_directory.read(with_route(directory, PAYOUT))
    assert [(route.regex, route.methods, route.mcp) for route in known.body_routes] == [
        ("/v1/accounts/[^/]+/refunds", ("POST",), False),
        ("/v1/payouts", ("POST",), False),
    ]


def test_a_grpc_route_is_known_by_its_path(directory: Path) -> None:
    grpc = PAYOUT.replace('path: "/v1/payouts"', "grpc: {service: pay.v1.Payouts}").replace(
        "method: POST, ", ""
    )
    known = envoy_directory.read(with_route(directory, grpc))
    assert known.body_routes[-1].regex == r"/pay\.v1\.Payouts/[^/]+"


def test_tools_of_one_server_are_one_route(directory: Path) -> None:
    tools = "".join(
        PAYOUT.replace('path: "/v1/payouts"', f"path: /mcp, mcp: {{method: tools/call, tool: {tool}}}")
        for tool in ("read", "write")
    )
    known = envoy_directory.read(with_route(directory, tools))
    assert [route.mcp for route in known.body_routes] == [False, True]
    assert known.mcp


def test_gates_of_a_directory_that_can_not_be_read_are_not_guessed_at(directory: Path) -> None:
    (directory / "policies" / "gate.cedar").write_text(
        '@require_approval("may it") forbid (principal, action'
    )
    with pytest.raises(ConfigurationError):
        envoy_directory.read(directory)
