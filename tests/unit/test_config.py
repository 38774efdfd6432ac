"""`config`, `values`, `directory`: every mistake is a finding with its place, and nothing is accepted and ignored."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jsonschema
import pytest

from signalwarden.config import (
    SCHEMA_FILE,
    SETTINGS_FILE,
    Address,
    Directory,
    Right,
    Settings,
    json_schema,
    load,
    read_settings,
)
from signalwarden.directory import MAX_FILE_BYTES
from signalwarden.errors import ConfigurationError, FindingLike
from signalwarden.values import spiffe_trust_domain

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 11, 24, tzinfo=UTC)
NOW_US = int(NOW.timestamp() * 1e6)
TOKEN = "ab" * 32
WITH_TOKEN = f'token_sha256: "{TOKEN}", expires: "2026-12-31T00:00:00Z"'
CLIENT = f'{{id: "spiffe://prod.example/mdm", may: [publish], {WITH_TOKEN}}}'

THE_DESIGN = f"""\
trust_domain: prod.example
federates_with: []
listen: {{check: "127.0.0.1:9191", admin: "127.0.0.1:9292", front: grpcio}}
tls: {{}}
identity: {{sources: [envoy_peer]}}
clients:
  - {CLIENT}
state: "sqlite:var/state.db"
keys: "var/keys"
decision_log: {{path: "var/decisions.jsonl", on_full: deny, ack: accepted, influence: default}}
policies: {{}}
"""


def good(text: str) -> Settings:
    settings, findings = read_settings(text, now=NOW)
    assert settings is not None, [f.message for f in findings]
    return settings


def errors(text: str) -> list[FindingLike]:
    settings, findings = read_settings(text, now=NOW)
    assert settings is None
    assert findings
    return findings


def only(text: str) -> FindingLike:
    [finding] = errors(text)
    return finding


def with_line(line: str) -> str:
    return f"trust_domain: prod.example\n{line}\n"


def test_a_trust_domain_alone_is_enough() -> None:
    settings = good("trust_domain: prod.example\n")
    assert str(settings.listen.check) == "127.0.0.1:9191"
    assert str(settings.listen.admin) == "127.0.0.1:9292"
    assert settings.clients == ()
    assert settings.decision_log.influence == "default"
    assert settings.state_path(Path("/etc/sw")) == Path("/etc/sw/var/state.db")
    assert settings.log_path(Path("/etc/sw")) == Path("/etc/sw/var/decisions.jsonl")


def test_the_example_of_the_design_is_legal() -> None:
    settings = good(THE_DESIGN)
    [client] = settings.clients
    assert client.may == (Right.PUBLISH,)
    assert client.expires == datetime(2026, 12, 31, tzinfo=UTC)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        good("trust_domain: prod.example\n").trust_domain = "other.example"


def test_an_unknown_key_names_file_line_key_and_the_nearest_known_key() -> None:
    finding = only("trust_domain: prod.example\nlisten:\n  chekc: '127.0.0.1:1'\n")
    assert (finding.file, finding.line, finding.code) == (SETTINGS_FILE, 3, "unknown_key")
    assert "`listen.chekc`" in finding.message
    assert "`check`" in finding.message


def test_an_unknown_key_with_nothing_near_lists_what_is_known() -> None:
    assert "`cert`, `key`, `client_ca`" in only(with_line("tls: {zzzzzz: 1}")).message


def test_every_mistake_is_found_in_one_pass() -> None:
    text = """\
trust_domain: Prod.Example
lisen: {}
listen: {check: "0.0.0.0:9191", admin: 3, front: natve}
identity: {sources: [xfcc, envoy_pear]}
clients:
  - {id: "spiffe://prod.example/x", may: [evaluate, reed], token_sha256: "abc"}
decision_log: {ack: sunk, rotate_bytes: 3, path: 3, on_full: "block:0", ring_bytes: 5}
state: "redis://x"
"""
    found = {(finding.line, finding.code) for finding in errors(text)}
    assert found == {
        (1, "bad_value"),
        (2, "unknown_key"),
        (3, "bad_value"),
        (4, "bad_value"),
        (6, "bad_value"),
        (6, "missing_key"),
        (7, "bad_value"),
        (7, "wrong_type"),
        (8, "bad_value"),
    }


@pytest.mark.parametrize("line", ["insecure: true"])
def test_what_is_not_built_yet_is_an_error_that_says_so(line: str) -> None:
    finding = only(with_line(line))
    assert finding.code == "not_built"
    assert "not built yet" in finding.message
    assert finding.line == 2


def test_engine_options_do_not_exist_yet() -> None:
    assert only(with_line("policies: {cedar: {}}")).code == "unknown_key"


@pytest.mark.parametrize(
    "address", ["127.0.0.1:9191", "127.8.9.10:1", "[::1]:9191", "localhost:0", "unix:///run/sw/check.sock"]
)
def test_loopback_and_unix_sockets_are_addresses(address: str) -> None:
    assert str(good(with_line(f'listen: {{check: "{address}"}}')).listen.check) == address


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0:9191", "10.0.0.1:9191", "[::]:9191", "::1:9191", "example.com:9191", "128.0.0.1:1", "[127.0.0.1]:1",
     "[localhost]:1", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1: 1", "127.1:1",
     ":9191", "", "unix:relative", "unix://relative", "unix:///", "unix:///" + "x" * 108, "2130706433:1"],
)  # fmt: skip
def test_any_other_address_is_refused(address: str) -> None:
    finding = only(with_line(f'listen: {{check: "{address}"}}'))
    assert (finding.line, finding.code) == (2, "bad_value")


def test_keys_are_kept_apart_from_the_log() -> None:
    assert good(with_line("keys: elsewhere")).keys_path(Path("/etc/sw")) == Path("/etc/sw/elsewhere")
    assert "apart" in only(with_line("keys: var")).message
    assert "apart" in only(with_line("decision_log: {path: var/keys/x.jsonl}")).message


def test_two_doors_on_one_address_are_a_mistake() -> None:
    assert "already the check address" in only(with_line('listen: {admin: "127.0.0.1:9191"}')).message


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("listen: 3", "expected a map, found a number"),
        ("clients: {}", "expected a list, found a map"),
        ("federates_with: a.b", "expected a list, found text"),
        ("state: [a]", "expected text, found a list"),
        ("decision_log: {rotate_bytes: true}", "expected a whole number, found a boolean"),
        ('decision_log: {rotate_bytes: "100000000"}', "expected a whole number, found text"),
        ("listen: {reflection: 1}", "expected true or false, found a number"),
        ("listen: {front: 3}", "expected text, found a number"),
        ("listen:", "expected a map, found nothing"),
    ],
)
def test_a_wrong_type_says_what_was_expected(line: str, message: str) -> None:
    finding = only(with_line(line))
    assert finding.code == "wrong_type"
    assert message in finding.message


@pytest.mark.parametrize("text", ["", "# nothing\n", "[]\n", "prod.example\n", "3\n"])
def test_a_file_that_is_no_map_is_one_finding(text: str) -> None:
    assert len(errors(text)) == 1


def test_a_missing_trust_domain_is_named() -> None:
    finding = only("federates_with: []\n")
    assert finding.code == "missing_key"
    assert "`trust_domain`" in finding.message


def test_bad_yaml_is_a_finding_with_its_line() -> None:
    findings = errors("trust_domain: prod.example\nlisten: {check: [\n")
    assert all(finding.file == SETTINGS_FILE and finding.line > 0 for finding in findings)


def test_the_spiffe_vectors_hold_for_client_ids() -> None:
    vectors = json.loads((ROOT / "tests/vectors/spiffe/spiffe_ids.json").read_text())
    assert vectors["valid"]
    for case in vectors["valid"]:
        domain = spiffe_trust_domain(case["id"])
        assert domain is not None, case
        assert domain == case.get("trust_domain", domain), case
    for case in [*vectors["invalid"], *vectors.get("disputed", [])]:
        text = case["id"] if isinstance(case, dict) else case[0]
        assert spiffe_trust_domain(text) is None, case


def client(**changes: str | None) -> str:
    fields: dict[str, str | None] = {
        "id": '"spiffe://prod.example/x"',
        "may": "[read]",
        "token_sha256": f'"{TOKEN}"',
        "expires": '"2027-01-01T00:00:00Z"',
        **changes,
    }
    return with_line(
        "clients: [{" + ", ".join(f"{k}: {v}" for k, v in fields.items() if v is not None) + "}]"
    )


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (client(id='"prod.example/x"'), "bad_value"),
        (client(id='"spiffe://other.example/x"'), "trust_domain_unknown"),
        (client(id=None), "missing_key"),
        (client(may=None), "missing_key"),
        (client(may="[]"), "bad_value"),
        (client(may="[reed]"), "bad_value"),
        (client(token_sha256='"' + "AB" * 32 + '"'), "bad_value"),
        (client(token_sha256='"abcd"'), "bad_value"),
        (client(expires=None), "missing_key"),
        (client(expires='"2027-01-01"'), "bad_value"),
        (client(expires='"2027-01-01T00:00:00"'), "bad_value"),
        (client(expires='"2027-13-01T00:00:00Z"'), "bad_value"),
        (client(expires="20270101"), "bad_value"),
        (client(token="x"), "unknown_key"),
    ],
)
def test_a_bad_client_is_a_mistake(text: str, code: str) -> None:
    assert only(text).code == code


def test_a_bad_digest_is_not_repeated_for_it_may_be_the_token() -> None:
    assert "hunter2" not in only(client(token_sha256='"hunter2"')).message


def test_a_client_of_a_federated_trust_domain_is_legal() -> None:
    settings = good("federates_with: [other.example]\n" + client(id='"spiffe://other.example/x"'))
    assert settings.clients[0].id == "spiffe://other.example/x"


def test_two_clients_never_share_a_token() -> None:
    text = with_line(f"clients: [{CLIENT}, {CLIENT}]")
    assert only(text).code == "duplicate"


def test_an_expired_client_is_a_warning() -> None:
    settings, findings = read_settings(client(expires='"2026-11-23T23:59:59+00:00"'), now=NOW)
    assert settings is not None
    [warning] = findings
    assert (warning.severity, warning.code, warning.line) == ("warning", "client_expired", 2)


def test_a_trust_domain_is_federated_with_once_and_never_with_itself() -> None:
    found = errors(with_line("federates_with: [a.example, a.example, prod.example]"))
    assert [finding.code for finding in found] == ["duplicate", "duplicate"]


def test_the_schema_in_docs_is_the_generated_one() -> None:
    assert (ROOT / SCHEMA_FILE).read_bytes() == json_schema(), "run python -m signalwarden.config"


def test_the_schema_accepts_what_loads_and_refuses_what_is_not_built() -> None:
    schema = json.loads(json_schema())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid({"trust_domain": "prod.example", "listen": {"check": "127.0.0.1:1"}, "tls": {}})
    for bad in (
        {},
        {"trust_domain": "prod.example", "tls": {"cert": "x"}},
        {"trust_domain": "prod.example", "lisen": {}},
        {"trust_domain": "prod.example", "listen": {"check": "pages.example:1"}},
    ):
        assert not validator.is_valid(bad), bad


FILES = "tls: {cert: a.pem, key: /b.pem, client_ca: c.pem}"


@pytest.mark.parametrize("address", ["127.0.0.1:9393", "0.0.0.0:0", "[::]:9393", "10.1.2.3:1", "localhost:2"])
def test_the_signals_address_may_be_anywhere_since_it_has_tls(address: str) -> None:
    settings = good(with_line(f'listen: {{signals: "{address}"}}') + FILES + "\n")
    assert str(settings.listen.signals) == address
    root = Path("/conf")
    assert settings.tls_paths(root) == (root / "a.pem", Path("/b.pem"), root / "c.pem")


@pytest.mark.parametrize(
    "address",
    [
        "signals.example:1",
        "unix:///a",
        "[127.0.0.1]:1",
        "::1:1",
        "10.0.0.1",
        "10.0.0.1:99999",
        "[localhost]:1",
    ],
)
def test_the_signals_address_is_numeric(address: str) -> None:
    finding = only(with_line(f'listen: {{signals: "{address}"}}') + FILES + "\n")
    assert (finding.code, finding.line) == ("bad_value", 2)
    assert "expected a numeric address such as `0.0.0.0:9393`" in finding.message


def test_the_signals_address_and_the_files_of_tls_need_one_another() -> None:
    assert [finding.code for finding in errors(with_line('listen: {signals: "127.0.0.1:1"}'))] == [
        "missing_key"
    ] * 3
    [first, second] = errors(with_line("tls: {cert: a.pem}"))
    assert {first.message, second.message} == {
        "`tls.key`: missing, `tls.cert` needs it",
        "`tls.client_ca`: missing, `tls.cert` needs it",
    }
    settings, findings = read_settings(with_line(FILES), now=NOW)
    assert settings is not None
    assert [(finding.code, finding.severity) for finding in findings] == [("unused", "warning")]


ENVOY = "spiffe://prod.example/envoy"


def tls_of(**more: str) -> str:
    """Files, and what else `tls` says."""
    files = {"cert": "a.pem", "key": "b.pem", "client_ca": "c.pem"}
    return "tls: {" + ", ".join(f"{key}: {value}" for key, value in {**files, **more}.items()) + "}\n"


@pytest.mark.parametrize(
    "address", ["0.0.0.0:9191", "10.0.0.1:9191", "[::]:9191", "[2001:db8::1]:1", "127.0.0.1:1"]
)
def test_a_door_with_tls_may_be_anywhere(address: str) -> None:
    tls = tls_of(doors="[check, admin]", check_clients=f'["{ENVOY}"]')
    listen = f'listen: {{check: "{address}", admin: "127.0.0.1:7"}}'
    assert str(good(with_line(listen) + tls).listen.check) == address


def test_a_door_without_tls_is_on_this_machine() -> None:
    tls = tls_of(doors="[check]", check_clients=f'["{ENVOY}"]')
    finding = only(with_line('listen: {admin: "0.0.0.0:7"}') + tls)
    assert finding.code == "bad_value"
    assert "expected `admin` among `tls.doors`" in finding.message


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("tls: {doors: [check]}\n", ["missing_key"] * 4),
        (tls_of(doors="[check]"), ["missing_key"]),
        (tls_of(doors="[check]", check_clients='["spiffe://other.example/envoy"]'), ["trust_domain_unknown"]),
        (tls_of(doors="[check]", check_clients='["spiffe://prod.example"]'), ["bad_value"]),
        (tls_of(doors="[check]", check_clients=f'["{ENVOY}", "{ENVOY}"]'), ["duplicate"]),
        (tls_of(doors="[admin, admin]"), ["duplicate"]),
        (tls_of(doors="[door, admin]"), ["bad_value"]),
        (tls_of(doors="[admin]", spire="true"), ["bad_value"]),
        ("tls: {doors: [admin], spire: true}\n", ["missing_key"]),
        (tls_of(doors="[admin]") + 'listen: {admin: "unix:///run/a.sock"}\n', ["bad_value"]),
        (tls_of(doors="[admin]") + 'listen: {signals: "127.0.0.1:1"}\n', ["bad_value"]),
    ],
)
def test_doors_with_tls_have_what_they_need(text: str, found: list[str]) -> None:
    assert [finding.code for finding in errors("trust_domain: prod.example\n" + text)] == found


@pytest.mark.parametrize(
    "text",
    [
        tls_of(),
        tls_of(check_clients=f'["{ENVOY}"]') + 'listen: {signals: "127.0.0.1:1"}\n',
        tls_of(doors="[admin, signals]"),
        'workload_api: "unix:///run/agent.sock"\ntls: {spire: true}\n',
        'clients:\n  - {id: "spiffe://prod.example/x", may: [read]}\n',
    ],
)
def test_what_has_no_effect_is_said(text: str) -> None:
    settings, findings = read_settings("trust_domain: prod.example\n" + text, now=NOW)
    assert settings is not None
    assert [(finding.code, finding.severity) for finding in findings] == [("unused", "warning")]


def test_a_client_by_svid_is_one_entry() -> None:
    entry = '  - {id: "spiffe://prod.example/x", may: [read]}\n'
    text = f"trust_domain: prod.example\nidentity: {{admin_audience: sw}}\nclients:\n{entry}"
    assert good(text).clients[0].token_sha256 is None
    assert only(text + entry).code == "duplicate"


def test_a_token_that_lives_for_long_is_a_warning() -> None:
    for days, codes_ in ((89, []), (90, []), (91, ["client_long_lived"])):
        until = (NOW + timedelta(days=days)).isoformat()
        settings, findings = read_settings(client(expires=f'"{until}"'), now=NOW)
        assert settings is not None
        assert [finding.code for finding in findings] == codes_


def test_the_signals_address_is_its_own() -> None:
    text = with_line('listen: {signals: "127.0.0.1:9191"}') + FILES + "\n"
    assert "already the check address" in only(text).message


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("signals: {max_rate: 0}", "bad_value"),
        ("signals: {max_rate: 1000001}", "bad_value"),
        ("signals: {max_live: 0}", "bad_value"),
        ("signals: {max_rate: fast}", "wrong_type"),
        ("signals: {max_rat: 1}", "unknown_key"),
    ],
)
def test_bounds_on_signals_are_numbers_within_reason(line: str, code: str) -> None:
    assert only(with_line(line)).code == code


def test_addresses_say_themselves_again() -> None:
    for text in ("127.0.0.1:1", "[::1]:2", "unix:///a"):
        assert str(Address.parse(text)) == text


# ---------------------------------------------------------------- the directory


def codes(directory: Directory) -> list[tuple[str, str]]:
    return [(finding.file, finding.code) for finding in directory.findings]


def test_a_directory_is_read_whole_and_sorted(minimal_directory: Path) -> None:
    (minimal_directory / "policies/b").mkdir()
    (minimal_directory / "policies/b/x.cedar").write_text("// x")
    (minimal_directory / "policies/a.cedar").write_text("// a")
    directory = Directory.read(minimal_directory)
    assert codes(directory) == []
    assert [name for name, _ in directory.core_files()] == [
        "entities.cedarschema",
        "entities.json",
        "policies/a.cedar",
        "policies/b/x.cedar",
        "policies/pages.cedar",
        "routes.yaml",
        "signals.yaml",
    ]


def test_a_mounted_config_map_is_read_once(tmp_path: Path) -> None:
    data = tmp_path / "..2026_11_24"
    data.mkdir()
    (data / "signalwarden.yaml").write_text("trust_domain: prod.example\n")
    (tmp_path / "..data").symlink_to(data.name)
    (tmp_path / "signalwarden.yaml").symlink_to("..data/signalwarden.yaml")
    policies = tmp_path / "policies"
    (policies / "..2026_11_24").mkdir(parents=True)
    (policies / "..2026_11_24/a.cedar").write_text("// a")
    (policies / "..data").symlink_to("..2026_11_24")
    (policies / "a.cedar").symlink_to("..data/a.cedar")
    directory = Directory.read(tmp_path)
    assert codes(directory) == []
    assert sorted(directory.files) == ["policies/a.cedar", "signalwarden.yaml"]


def test_nothing_outside_the_directory_is_read(minimal_directory: Path) -> None:
    (minimal_directory.parent / "secret").write_text("x")
    (minimal_directory / "policies/out.cedar").symlink_to("../../secret")
    directory = Directory.read(minimal_directory)
    assert codes(directory) == [("policies/out.cedar", "outside")]
    assert "policies/out.cedar" not in directory.files


def test_what_is_no_bounded_regular_file_is_refused(minimal_directory: Path) -> None:
    os.mkfifo(minimal_directory / "policies/pipe.cedar")
    with (minimal_directory / "policies/huge.cedar").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    (minimal_directory / "policies/gone.cedar").symlink_to("nowhere")
    assert codes(Directory.read(minimal_directory)) == [
        ("policies/gone.cedar", "unreadable"),
        ("policies/huge.cedar", "unreadable"),
        ("policies/pipe.cedar", "unreadable"),
    ]


def test_a_loop_of_links_ends(minimal_directory: Path) -> None:
    (minimal_directory / "policies/loop").symlink_to(".")
    assert codes(Directory.read(minimal_directory)) == [("policies/loop", "too_deep")]


def test_what_looks_like_a_slip_is_said(minimal_directory: Path) -> None:
    (minimal_directory / "policies/a.cedr").write_text("forbid (principal, action, resource);")
    (minimal_directory / "policies/README.md").write_text("words")
    (minimal_directory / "stray.cedar").write_text("forbid (principal, action, resource);")
    (minimal_directory / "signal.yaml").write_text("signals: {}")
    (minimal_directory / "notes.txt").write_text("words")
    assert codes(Directory.read(minimal_directory)) == [
        ("policies/a.cedr", "ignored_file"),
        ("signal.yaml", "ignored_file"),
        ("stray.cedar", "ignored_file"),
    ]


def test_settings_of_rego_ask_for_a_policy_in_rego(minimal_directory: Path) -> None:
    settings = minimal_directory / "signalwarden.yaml"
    settings.write_text(settings.read_text() + "policies: {rego: {query: data.authz.allow}}\n")
    with pytest.raises(ConfigurationError) as caught:
        load(minimal_directory, NOW_US)
    assert [finding.code for finding in caught.value.findings] == ["no_rego"]


@pytest.mark.parametrize(
    ("rego", "expected"),
    [
        ("{input: opa_envoy}", "expected `ungoverned: true` beside it"),
        ("{ungoverned: true}", "`ungoverned: true` belongs to `input: opa_envoy`"),
        ("{descriptors: a.pb}", "`descriptors` belongs to `input: opa_envoy`"),
        ("{query: allow}", "query"),
    ],
)
def test_rego_is_asked_only_as_it_is_said_aloud(rego: str, expected: str) -> None:
    settings, findings = read_settings(f"trust_domain: prod.example\npolicies: {{rego: {rego}}}\n", now=NOW)
    assert settings is None
    assert any(expected in str(finding.message) for finding in findings), findings


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_an_unreadable_directory_is_one_sentence(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "conf"
    if kind == "file":
        path.write_text("x")
    with pytest.raises(ConfigurationError) as caught:
        load(path, NOW_US)
    assert len(str(caught.value).splitlines()) == 1
    assert str(path) in str(caught.value)


def test_a_good_directory_loads(minimal_directory: Path) -> None:
    loaded = load(minimal_directory, NOW_US)
    assert loaded.settings.trust_domain == "prod.example"
    assert loaded.warnings == ()
    assert len(loaded.configuration.revision) == 64


def test_missing_settings_are_one_finding(minimal_directory: Path) -> None:
    (minimal_directory / SETTINGS_FILE).unlink()
    with pytest.raises(ConfigurationError) as caught:
        load(minimal_directory, NOW_US)
    assert [(f.file, f.code) for f in caught.value.findings] == [(SETTINGS_FILE, "missing_file")]


def test_settings_that_are_no_text_are_one_finding(minimal_directory: Path) -> None:
    (minimal_directory / SETTINGS_FILE).write_bytes(b"trust_domain: prod.example\nstate: \xff\n")
    with pytest.raises(ConfigurationError) as caught:
        load(minimal_directory, NOW_US)
    assert [(f.file, f.line, f.code) for f in caught.value.findings] == [(SETTINGS_FILE, 2, "not_utf8")]


def test_mistakes_of_settings_and_core_come_together(minimal_directory: Path) -> None:
    (minimal_directory / SETTINGS_FILE).write_text("trust_domain: prod.example\nlisen: {}\n")
    (minimal_directory / "routes.yaml").write_text("ruotes: []\n")
    with pytest.raises(ConfigurationError) as caught:
        load(minimal_directory, NOW_US)
    files = [finding.file for finding in caught.value.findings]
    assert SETTINGS_FILE in files
    assert "routes.yaml" in files
    assert files == sorted(files)
    assert len(str(caught.value).splitlines()) == len(files)


def test_warnings_do_not_stop_a_load(minimal_directory: Path) -> None:
    (minimal_directory / "stray.cedar").write_text("")
    assert [warning.file for warning in load(minimal_directory, NOW_US).warnings] == ["stray.cedar"]


def test_documents_of_feeds_are_no_configuration(minimal_directory: Path) -> None:
    before = load(minimal_directory, NOW_US)
    (minimal_directory / "feeds").mkdir()
    (minimal_directory / "feeds/signals.yaml").write_text("half a docu")
    (minimal_directory / "feeds/more.cedar").write_text("permit (principal, action, resource);")
    os.mkfifo(minimal_directory / "feeds/pipe")
    after = load(minimal_directory, NOW_US)
    assert after.warnings == before.warnings == ()
    assert after.configuration.revision == before.configuration.revision
    assert after.configuration.describe() == before.configuration.describe()
