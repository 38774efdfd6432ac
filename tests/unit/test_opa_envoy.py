"""Policies of OPA's Envoy plugin, unchanged: what they see, what is said of it, and the way to governed ones."""

from __future__ import annotations

import json
import os
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import orjson
import pytest
from typer.testing import CliRunner

from signalwarden import _core, config, envoy_config, migration, starter
from signalwarden.cli import app as cli
from signalwarden.errors import BadInputError, ConfigurationError
from tests import asking, paying

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/schema/decision-record.schema.json").read_text())
POLICY = """\
package envoy.authz

import input.attributes.request.http as http_request

default allow := false

allow if {
	http_request.headers["x-role"] == "clerk"
	input.attributes.metadataContext.filterMetadata["envoy.filters.http.jwt_authn"].payload.tenant == "a"
	input.parsed_query.lang[0] == "en"
	input.parsed_body.kind == "order"
	input.parsed_path[0] == "orders"
	http_request.method == "POST"
}

allow if startswith(http_request.headers.authorization, "Bearer ")
"""


@pytest.fixture
def make(tmp_path: Path) -> Callable[[str], Path]:
    """A directory around a policy, as `init --opa` writes it."""

    def made(policy: str) -> Path:
        source = tmp_path / "policy.rego"
        source.write_text(policy)
        return starter.create_opa(tmp_path / "guard", [source], now=datetime.now(UTC)).directory

    return made


def decided(root: Path, **request: Any) -> asking.Decision:
    loaded = config.load(root, asking.NOW)
    engine = asking.running(loaded.configuration)
    found = asking.decide(engine, asking.check_request(**request))
    jsonschema.validate(found.record, SCHEMA)
    return found


def refused(root: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        config.load(root, asking.NOW)
    return "\n".join(finding.message for finding in caught.value.findings)


def test_a_caller_without_identity_is_let_through_to_the_policies(make: Callable[[str], Path]) -> None:
    root = make('package envoy.authz\n\nallow if input.attributes.request.http.method == "GET"\n')
    found = decided(root, principal="", method="GET", path="/any")
    assert found.allowed
    assert "principal" not in found.record
    assert found.record["policies"]["engine"] == "opa_envoy"
    answer = asking.parsed(found.answer).ok_response
    assert answer is not None
    assert "x-signalwarden-principal" in answer.headers_to_remove
    assert not [o for o in answer.headers if o.header and o.header.key == "x-signalwarden-principal"]
    assert decided(root, principal="", method="POST", path="/any").reason == "no_policy_permits"


def test_an_identity_that_is_not_good_is_denied_as_everywhere(make: Callable[[str], Path]) -> None:
    root = make("package envoy.authz\n\nallow := true\n")
    assert decided(root, principal="spiffe://prod.example/a").allowed
    assert decided(root, principal="CN=somebody").reason == "identity_invalid"
    assert decided(root, principal="spiffe://other.example/a").reason == "trust_domain_unknown"


def test_only_a_coarse_route_needs_no_identity(make: Callable[[str], Path]) -> None:
    root = make("package envoy.authz\n\nallow := true\n")
    routes = root / "routes.yaml"
    routes.write_text(routes.read_text().replace("tier: coarse", "tier: runtime"))
    assert decided(root, principal="").reason == "identity_missing"


def test_beside_cedar_an_identity_is_needed_and_both_must_allow(make: Callable[[str], Path]) -> None:
    root = make("package envoy.authz\n\nallow := true\n")
    (root / "policies/more.cedar").write_text(
        'permit (principal, action, resource) when { context.request.method == "GET" };'
    )
    assert decided(root, principal="").reason == "identity_missing"
    known = "spiffe://prod.example/a"
    assert decided(root, principal=known, method="GET").allowed
    denied = decided(root, principal=known, method="POST")
    assert denied.reason == "no_policy_permits"
    assert denied.record["policies"]["engine"] == "cedar+opa_envoy"


@pytest.mark.parametrize(
    "answer",
    [
        '{"allowed": true, "headers": {"X-Signalwarden-Principal": "spiffe://prod.example/forged"}}',
        '{"allowed": true, "request_headers_to_remove": ["x-signalwarden-decision-id"]}',
        '{"allowed": true, "response_headers_to_add": {"x-signalwarden-decision-id": "1"}}',
        '{"allowed": true, "dynamic_metadata": {"signalwarden": {"reason": "allowed"}}}',
        '{"allowed": "yes"}',
        "1",
    ],
)
def test_what_is_reserved_stays_reserved_and_a_bad_answer_is_a_deny_with_a_record(
    make: Callable[[str], Path], answer: str
) -> None:
    found = decided(make(f"package envoy.authz\n\nallow := {answer}\n"), principal="")
    assert (found.reason, found.record["outcome"]) == ("engine_error", "deny")
    assert found.record["policies"]["engine"] == "opa_envoy"


def test_every_record_says_that_nothing_was_governed(make: Callable[[str], Path]) -> None:
    root = make("package envoy.authz\n\nallow := true\n")
    found = decided(root, principal="", path="/a//b")
    assert found.reason == "route_unknown"
    assert found.record["policies"]["engine"] == "opa_envoy"
    assert found.record["policies"]["asked"] is False


def test_an_error_of_a_policy_quotes_nothing_of_the_request(make: Callable[[str], Path]) -> None:
    root = make(
        "package envoy.authz\n\nallow if to_number(input.attributes.request.http.headers.cookie) > 1\n"
    )
    found = decided(root, principal="", headers={"cookie": "a-secret"})
    assert found.reason == "engine_error"
    (error,) = found.record["policies"]["errors"]
    assert error["error"].startswith("policies/policy.rego:3:")
    assert "a-secret" not in json.dumps(found.record)


def test_a_replay_of_what_such_a_policy_decided_is_undecidable(make: Callable[[str], Path]) -> None:
    root = make("package envoy.authz\n\nallow := true\n")
    record = decided(root, principal="spiffe://prod.example/a").record
    replay = _core.Replay(config.load(root, asking.NOW).configuration)
    (said,) = map(orjson.loads, replay.decide(orjson.dumps(record)).splitlines())
    assert "as a whole" in said["undecidable"]


def test_the_mode_has_to_be_asked_for_aloud(make: Callable[[str], Path]) -> None:
    root = make("package envoy.authz\n\nallow := true\n")
    settings = root / "signalwarden.yaml"
    settings.write_text(settings.read_text().replace("    ungoverned: true\n", ""))
    assert "`ungoverned: true`" in refused(root)


def test_descriptors_are_a_file_of_the_directory(make: Callable[[str], Path]) -> None:
    root = make("package envoy.authz\n\nallow := true\n")
    settings = root / "signalwarden.yaml"
    settings.write_text(settings.read_text() + "\n")
    settings.write_text(
        settings.read_text().replace(
            "    ungoverned: true\n", "    ungoverned: true\n    descriptors: a.pb\n"
        )
    )
    assert "a.pb" in refused(root)
    (root / "a.pb").write_bytes(b"nonsense")
    assert "FileDescriptorSet" in refused(root)
    (root / "a.pb").write_bytes(b"")
    assert config.load(root, asking.NOW).configuration.revision


def paying_source(folder: Path) -> Path:
    source = folder / "source"
    source.mkdir()
    (source / "policy.rego").write_text(paying.POLICY)
    (source / "protos.pb").write_bytes(paying.DESCRIPTORS)
    return source


def test_init_names_the_descriptor_set_that_it_brings_along(tmp_path: Path) -> None:
    source = paying_source(tmp_path)
    root = starter.create_opa(tmp_path / "guard", [source], now=datetime.now(UTC)).directory
    assert '    descriptors: "protos.pb"\n' in (root / "signalwarden.yaml").read_text()
    assert [warning.code for warning in config.load(root, asking.NOW).configuration.warnings] == [
        "ungoverned"
    ]
    # Which of two is meant is not ours to say; `check` warns of both.
    (source / "more.pb").write_bytes(b"")
    root = starter.create_opa(tmp_path / "two", [source], now=datetime.now(UTC)).directory
    assert "descriptors" not in (root / "signalwarden.yaml").read_text()


def test_the_example_of_grpc_on_the_page_decides_by_the_message(tmp_path: Path) -> None:
    source = paying_source(tmp_path)
    root = starter.create_opa(tmp_path / "guard", [source], now=datetime.now(UTC)).directory

    def asked(body: bytes, path: str = paying.METHOD) -> bool:
        headers = {"content-type": "application/grpc"}
        return decided(root, principal="", method="POST", path=path, headers=headers, body=body).allowed

    good = paying.frame(paying.transfer(account_id="EU-1", cents=100_000))
    assert asked(good)
    assert not asked(paying.frame(paying.transfer(account_id="EU-1", cents=100_001)))
    assert not asked(paying.frame(paying.transfer(account_id="EU-1")))
    assert not asked(good[:-1])
    assert not asked(b"\1" + good[1:])
    assert not asked(good, "/payments.v1.Payments/Other")


def test_check_warns_and_lists_what_is_read_outside_the_register(make: Callable[[str], Path]) -> None:
    ran = CliRunner().invoke(cli, ["check", "--config", str(make(POLICY)), "--json"])
    report = json.loads(ran.stdout)
    assert [finding["code"] for finding in report["findings"]] == ["ungoverned"]
    listed = "\n".join(report["reads_outside"])
    assert "policies/policy.rego:8:" in listed
    assert '`envoy.authz.allow` reads `input.attributes.request.http.headers["x-role"]`' in listed
    assert "`input.parsed_body.kind`" in listed


def test_a_draft_is_a_directory_that_says_what_is_left_to_do(
    make: Callable[[str], Path], tmp_path: Path
) -> None:
    root, target = make(POLICY), tmp_path / "draft"
    ran = CliRunner().invoke(cli, ["check", "--config", str(root), "--draft", str(target)])
    assert ran.exit_code == 0, ran.output
    policy = (target / "policies/policy.rego").read_text()
    for reference in (
        "input.signals.x_role ==",
        "input.signals.tenant ==",
        'input.request.args.lang == "en"',
        "input.request.args.kind ==",
        'split(trim_left(input.request.path, "/"), "/")[0] ==',
        "input.request.method ==",
    ):
        assert reference in policy
    assert policy.count(migration.MARK) == 8
    described = _core.parse_yaml("signals.yaml", (target / "signals.yaml").read_text())
    contracts = json.loads(described.json or "{}")["signals"]
    assert contracts["x_role"]["sources"][0] == {
        "kind": "header",
        "header": "x-role",
        "assurance": "self_asserted",
    }
    assert contracts["tenant"]["sources"][0]["assurance"] == "sourced"
    # A credential is no signal: what is left over is what stops the draft from loading.
    assert "authorization" in ran.output
    with pytest.raises(ConfigurationError):
        config.load(target, asking.NOW)
    kept = (target / "policies/policy.rego").read_text().splitlines()
    (target / "policies/policy.rego").write_text(
        "\n".join(line for line in kept if "authorization" not in line)
    )
    assert config.load(target, asking.NOW).configuration.revision


def test_there_is_nothing_to_draft_where_all_is_governed(minimal_directory: Path, tmp_path: Path) -> None:
    ran = CliRunner().invoke(
        cli, ["check", "--config", str(minimal_directory), "--draft", str(tmp_path / "d")]
    )
    assert isinstance(ran.exception, BadInputError) or "nothing to draft" in ran.output


def test_a_draft_never_overwrites(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("")
    with pytest.raises(BadInputError):
        migration.draft({}, {}, "data.a.allow", tmp_path, date(2026, 11, 29))


def test_envoy_sends_all_that_such_policies_read(make: Callable[[str], Path]) -> None:
    text = envoy_config.render(make(POLICY), "gateway")
    assert "allowed_headers" not in text
    assert "allow_partial_message: true" in text
    assert "pack_as_bytes" not in text
    assert "413" not in text
    assert "- envoy.filters.http.jwt_authn" in text
    assert "disable_request_body_buffering" not in text


def test_envoy_sends_bytes_where_policies_read_bodies_of_grpc(make: Callable[[str], Path]) -> None:
    root = make(paying.POLICY)
    (root / "protos.pb").write_bytes(paying.DESCRIPTORS)
    settings = root / "signalwarden.yaml"
    line = "    ungoverned: true\n"
    settings.write_text(settings.read_text().replace(line, line + "    descriptors: protos.pb\n"))
    text = envoy_config.render(root, "gateway")
    assert "allow_partial_message: true" in text
    assert "pack_as_bytes: true" in text
    # A client that streams is not held back; any other body is read.
    assert text.count("- name: client-stream-") == text.count("disable_request_body_buffering: true") == 1
    assert "path: /payments.v1.Payments/SendAll" in text


@pytest.mark.timeout(30)
def test_init_reads_regular_files_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.rego")
    with pytest.raises(BadInputError, match=r"pipe\.rego` can't be read: expected a regular file"):
        starter.create_opa(tmp_path / "guard", [tmp_path], now=datetime.now(UTC))


@pytest.mark.parametrize(
    ("policy", "query"),
    [
        ("package envoy.authz\n\nallow := true\n", "data.envoy.authz.allow"),
        ("package istio.authz\n\nallow := true\n", "data.istio.authz.allow"),
        ("package mine\n\nallow := true\n", "data.mine.allow"),
        ('package envoy.authz\n\nallow := true\n\nresult["allowed"] := allow\n', "data.envoy.authz.result"),
    ],
)
def test_init_asks_the_rule_that_the_plugin_would_ask(
    make: Callable[[str], Path], policy: str, query: str
) -> None:
    root = make(policy)
    assert f"query: {query}\n" in (root / "signalwarden.yaml").read_text()
    assert decided(root, principal="").allowed
    assert (root / "policies/policy.rego").read_text() == policy


def test_the_example_of_the_template_works(tmp_path: Path) -> None:
    root = starter.create_opa(tmp_path / "guard", [], now=datetime.now(UTC)).directory
    assert decided(root, principal="", method="GET", path="/any").allowed
    assert not decided(root, principal="", method="DELETE", path="/orders").allowed
