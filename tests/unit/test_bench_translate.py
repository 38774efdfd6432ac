"""The peers that the bench has: their translation of a directory, what they lack and say so, and how a difference is
told.

Whether they decide alike needs their programs: tests/e2e/test_bench_peers.py.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bench import cases, directory, peers, stage
from bench.peers import agree, golang, translate
from bench.peers.cedar import peer as cedar_peer
from bench.peers.envoy_rbac import peer as rbac
from bench.peers.opa import peer as opa_peer
from bench.peers.opa_envoy import peer as plugin

POLICIES = 30


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A directory as peers get it."""
    made = directory.make(tmp_path / "directory", policies=POLICIES)
    (made.directory / "signals.json").write_bytes(directory.signals_body())
    return made.directory


def test_every_policy_is_in_each_translation_once(made: Path) -> None:
    source = translate.source(made)
    names = sorted(policy.name for policy in source.policies)
    assert len(names) == len(set(names)) == POLICIES
    assert sorted(re.findall(r'^@id\("(.+)"\)$', translate.cedar(source), re.MULTILINE)) == names
    modules = [text for name, text in translate.rego(source).items() if name.startswith("policy/action-")]
    assert len(modules) == POLICIES // directory.IN_PLAY
    assert sorted(re.findall(r"^\t?# (\S+)$", "".join(modules), re.MULTILINE)) == names


def test_permits_stay_as_they_are_in_cedar(made: Path) -> None:
    source = translate.source(made)
    written = list(translate.policies_of(translate.cedar(source)))
    for before, after in zip(source.policies, written, strict=True):
        if before.effect == "permit":
            assert before == after


def test_a_forbid_holds_without_its_signal(made: Path) -> None:
    source = translate.source(made)
    assert "when { !(context.signals has posture) || context.signals.posture ==" in translate.cedar(source)
    rego = translate.rego(source)["policy/action-00000.rego"]
    allow = re.search(r"^allow if \{\n(.*?)\n\}", rego, re.MULTILINE | re.DOTALL)
    assert allow is not None
    # All must hold, and nothing holds that reads what is undefined.
    needed = [line.strip() for line in allow[1].splitlines() if "#" not in line]
    assert needed == [
        "permit",
        's.posture != "compromised"',
        "s.risk_score <= 80",
        "s.incident == false",
        "s.patch_age_days <= 90",
        's.region != "cn-north-1"',
        "s.device_trust >= 1",
        "amount_clear",
    ]
    # OPA would look a signal up outside a negation, and skip the rule without one.
    assert "not s." not in rego


def test_an_argument_is_absent_or_one_number_within_its_limit(made: Path) -> None:
    rego = translate.rego(translate.source(made))["policy/action-00000.rego"]
    assert "amount_clear if not input.parsed_query.amount\n" in rego
    assert "\tcount(input.parsed_query.amount) == 1\n" in rego
    assert "\t# transfers-amount\n\tto_number(input.parsed_query.amount[0]) <= 50000\n" in rego


def test_a_permit_reads_what_it_needs_of_fresh_signals_only(made: Path) -> None:
    rego = "".join(translate.rego(translate.source(made)).values())
    assert "permit if {\n\ts.device_trust >= 3\n\ts.patch_age_days <= 30\n\ts.attested\n}" in rego
    assert 's.zones["pci"]' in rego
    assert "s.error_budget > 0.1" in rego


def test_a_signal_is_good_for_the_max_age_of_its_contract(made: Path) -> None:
    document = {
        "signals": [
            {
                "name": "incident",
                "subject": directory.PRINCIPAL,
                "value": False,
                "observed_at": "2026-11-24T10:00:00.000001Z",
            }
        ]
    }
    (made / "signals.json").write_text(json.dumps(document))
    source = translate.source(made)
    observed = int(datetime(2026, 11, 24, 10, tzinfo=UTC).timestamp()) * 10**9 + 1_000
    kept = json.loads(translate.rego(source)["data.json"])["signals"][directory.PRINCIPAL]
    assert kept["until"] == {"incident": observed + 24 * 3_600 * 10**9}
    assert kept["all_until"] == observed + 24 * 3_600 * 10**9
    told = translate.table(source)["signals"][0]
    assert (told["max_age_s"], told["type"], told["observed_at"]) == (
        86_400,
        "bool",
        "2026-11-24T10:00:00.000001Z",
    )


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        ("principal has owner", "no translation into Rego"),
        ('context.signals has region && context.signals.region like "eu-*"', "no translation into Rego"),
    ],
)
def test_a_condition_without_translation_is_refused_by_name(made: Path, condition: str, why: str) -> None:
    odd = f'@id("odd")\npermit (principal, action == Action::"transfer.create", resource)\nwhen {{ {condition} }};\n'
    (made / "policies" / "odd.cedar").write_text(odd)
    with pytest.raises(stage.BenchError, match=f"`odd` .*{why}|{why}"):
        translate.rego(translate.source(made))


def test_a_forbid_of_two_things_is_refused_rather_than_weakened(made: Path) -> None:
    odd = (
        '@id("odd")\nforbid (principal, action == Action::"transfer.create", resource)\n'
        "when { context.signals.incident && context.signals.attested };\n"
    )
    (made / "policies" / "odd.cedar").write_text(odd)
    with pytest.raises(stage.BenchError, match="`odd` reads more than one thing"):
        translate.rego(translate.source(made))


def test_a_policy_written_otherwise_is_refused(made: Path) -> None:
    (made / "policies" / "odd.cedar").write_text("permit (principal, action, resource);\n")
    with pytest.raises(stage.BenchError, match="not written as those of the bench"):
        translate.source(made)


def test_a_route_with_more_than_can_be_translated_is_refused(made: Path) -> None:
    routes = made / "routes.yaml"
    routes.write_text(routes.read_text().replace("tier: runtime", "tier: jit", 1))
    with pytest.raises(stage.BenchError, match=r"transfer\.create.* more than can be translated"):
        translate.source(made)


@pytest.mark.parametrize("limit", [0, 7, 9, 10, 99, 100, 305, 999, 1_000, 4_096])
def test_numbers_up_to_a_limit_are_a_regular_expression(limit: int) -> None:
    expression = re.compile(rbac.at_most(limit))
    for number in range(12_000):
        assert bool(expression.fullmatch(str(number))) is (number <= limit)


def lets_in(filter_: Any, case: cases.Case) -> bool:
    """What Envoy's RBAC does with a request, as far as these rules go."""
    headers = {":method": case.method, ":authority": case.host, ":path": case.path, **case.headers}
    headers["x-forwarded-client-cert"] = f"URI={case.principal}"

    def matches(rule: Any) -> bool:
        value, match = headers[rule["header"]["name"]], rule["header"]["string_match"]
        if "safe_regex" in match:
            return re.fullmatch(match["safe_regex"]["regex"], value) is not None
        return bool(
            value == match.get("exact")
            or value.startswith(match.get("prefix", "\0"))
            or value.endswith(match.get("suffix", "\0"))
        )

    return any(
        all(
            matches(rule) for permission in policy["permissions"] for rule in permission["and_rules"]["rules"]
        )
        and any(matches(id_) for who in policy["principals"] for id_ in who["or_ids"]["ids"])
        for policy in filter_["typed_config"]["rules"]["policies"].values()
    )


def test_the_filter_of_envoy_says_what_it_promises(made: Path) -> None:
    filter_ = rbac.PEER.http_filter(made)
    answers = rbac.PEER.answers()
    assert {case.name: lets_in(filter_, case) for case in cases.CASES} == answers
    assert len(filter_["typed_config"]["rules"]["policies"]) == POLICIES // directory.IN_PLAY


def test_all_peers_are_what_the_bench_takes() -> None:
    for peer in (*opa_peer.PEERS, cedar_peer.PEER, plugin.PEER):
        assert isinstance(peer, peers.Peer)
    assert isinstance(rbac.PEER, peers.EnvoyFilter)


def test_without_go_and_without_a_program_a_peer_is_left_out_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(golang, "PROGRAMS", tmp_path)
    monkeypatch.delenv(plugin.VARIABLE, raising=False)
    found = peers.found(["opa-sdk", "opa-sdk-console", "cedar-go", "opa-envoy"])
    assert not found.servers
    assert sorted(found.left_out) == [
        "cedar-go: there is no `go` on the PATH to build it with",
        "opa-envoy: OPA_ENVOY_BIN does not name the binary of OPA's Envoy plugin",
        "opa-sdk-console: there is no `go` on the PATH to build it with",
        "opa-sdk: there is no `go` on the PATH to build it with",
    ]


def test_a_build_that_fails_leaves_the_peer_out_with_its_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = tmp_path / "go"
    go.write_text("#!/bin/sh\necho first >&2\necho 'no network' >&2\nexit 1\n")
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(golang, "PROGRAMS", tmp_path / "programs")
    found = peers.found(["cedar-go"])
    assert found.left_out == ("cedar-go: cedar-go could not be built: no network",)


def test_a_plugin_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(plugin.VARIABLE, str(tmp_path / "opa"))
    assert plugin.PEER.missing() == f"OPA_ENVOY_BIN names `{tmp_path}/opa`, which is no program"


@pytest.mark.parametrize("log", [False, True])
def test_the_plugin_asks_the_same_rule_and_logs_to_the_console_if_told(log: bool) -> None:
    settings = plugin.configuration(9_191, log=log)
    assert settings["plugins"]["envoy_ext_authz_grpc"]["addr"] == "127.0.0.1:9191"
    assert settings["plugins"]["envoy_ext_authz_grpc"]["path"] == "peer/allow"
    assert settings.get("decision_logs") == ({"console": True} if log else None)


def test_the_questions_have_names_of_their_own_and_all_but_two_ask_of_principals_in_the_entities(
    tmp_path: Path,
) -> None:
    asked = list(agree.questions())
    assert len({case.name for case in asked}) == len(asked)
    assert {case.allow for case in asked} == {True, False}
    source = translate.source(agree.make(tmp_path, POLICIES).directory)
    unlisted = "spiffe://prod.example/ns/payments/sa/unlisted-all-of-them"
    assert {case.principal for case in asked} - set(source.principals) == {cases.STRANGER, unlisted}
    assert unlisted in {signal["subject"] for signal in source.signals}


def test_signals_differ_only_where_a_question_says_so() -> None:
    now = datetime(2026, 11, 24, 10, tzinfo=UTC)
    by_principal = {
        subject: {str(signal["name"]): signal for signal in signals}
        for subject, signals in itertools.groupby(agree.signals_of(now), lambda signal: signal["subject"])
    }
    ordinary = by_principal[directory.PRINCIPAL]
    assert len(ordinary) == len(directory.SIGNALS)
    missing = by_principal["spiffe://prod.example/ns/payments/sa/missing-posture"]
    assert ordinary.keys() - missing.keys() == {"posture"}
    stale = by_principal["spiffe://prod.example/ns/payments/sa/stale-posture"]
    assert stale["posture"]["observed_at"] == "2026-11-23T09:00:00.000000Z"
    assert stale["posture"]["value"] == ordinary["posture"]["value"]
    assert stale["region"] == {**ordinary["region"], "subject": stale["region"]["subject"]}


def test_a_difference_is_a_line_that_says_who_and_what() -> None:
    known = cases.CASES[0], next(case for case in cases.CASES if not case.allow)
    assert agree.differences("someone", lambda case: case.allow, known) == []
    assert agree.differences("someone", lambda case: not case.allow, known) == [
        f"someone denies `{known[0].name}`",
        f"someone lets in `{known[1].name}`",
    ]


def test_the_versions_that_the_readme_names_are_those_of_the_build() -> None:
    needs = dict(
        re.findall(r"^\t?(?:require )?(\S+) v(\S+)", (golang.MODULE / "go.mod").read_text(), re.MULTILINE)
    )
    readme = (golang.MODULE / "README.md").read_text()
    for name, module in (
        ("OPA", "github.com/open-policy-agent/opa"),
        ("go-control-plane", "github.com/envoyproxy/go-control-plane/envoy"),
        ("grpc-go", "google.golang.org/grpc"),
        ("cedar-go", "github.com/cedar-policy/cedar-go"),
    ):
        assert f"{name} {needs[module]}" in readme


@pytest.mark.skipif(shutil.which("gofmt") is None, reason="there is no gofmt on the PATH")
def test_the_go_of_the_peers_is_formatted() -> None:
    ran = subprocess.run(["gofmt", "-l", str(golang.MODULE)], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
