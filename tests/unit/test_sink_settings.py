"""`decision_log.sinks` and what is kept: every mistake is one sentence with its place."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from signalwarden.config import read_settings
from signalwarden.settings import DecisionLogSettings

NOW = datetime(2026, 11, 28, tzinfo=UTC)
OTLP = "kind: otlp, endpoint: 'https://otel.example:4317'"
HTTP = "kind: http, url: 'https://siem.example/logs'"


def said(log: str) -> list[str]:
    settings, findings = read_settings(f"trust_domain: prod.example\ndecision_log: {{{log}}}\n", now=NOW)
    assert (settings is None) == bool(findings)
    return [finding.message for finding in findings]


def good(log: str) -> DecisionLogSettings:
    settings, findings = read_settings(f"trust_domain: prod.example\ndecision_log: {{{log}}}\n", now=NOW)
    assert settings is not None, [finding.message for finding in findings]
    return settings.decision_log


@pytest.mark.parametrize(
    ("sinks", "sentence"),
    [
        ("{}", "`decision_log.sinks[0].kind`: missing, the key is required"),
        ("{kind: kafka}", "expected one of `stdout`, `otlp`, `http`, found `kafka`"),
        ("{kind: sdtout}", "found `sdtout`, did you mean `stdout`?"),
        ("{kind: otlp}", "`decision_log.sinks[0].endpoint`: missing, a sink of kind `otlp` needs it"),
        ("{kind: http}", "`decision_log.sinks[0].url`: missing, a sink of kind `http` needs it"),
        (f"{{{OTLP}, format: opa}}", "a sink of kind `otlp` has no `format`"),
        (f"{{{HTTP}, endpoint: 'https://a'}}", "a sink of kind `http` has no `endpoint`"),
        ("{kind: stdout, headers_file: x}", "a sink of kind `stdout` has no `headers_file`"),
        (f"{{{HTTP}, format: avro}}", "expected one of `jsonl`, `opa`, `ocsf`, found `avro`"),
        (f"{{{HTTP}, tiemout: 3s}}", "unknown key, did you mean `timeout`?"),
        (f"{{{HTTP}, timeout: 2m}}", "`decision_log.sinks[0].timeout`: expected at most 1m, found 2m"),
        (f"{{{HTTP}, required: perhaps}}", "expected true or false, found text"),
        ("{kind: http, url: 'http://siem.example/'}", "`http://siem.example` is not on this machine"),
        ("{kind: http, url: 'http://127.0.0.1:1/', ca_file: a}", "there is no TLS with a `url` of `http://`"),
        ("{kind: otlp, endpoint: 'https://a/path'}", "expected an address without a path"),
        (f"{{{OTLP}, cert: a}}", "missing, `cert` needs it"),
        (f"{{{OTLP}}}, {{{OTLP}}}", "another sink is called `otlp`, give each a `name`"),
        (f"{{{OTLP}, name: a}}, {{{HTTP}, name: a}}", "another sink is called `a`"),
        ("{kind: stdout, name: '../x'}", "expected a name of lower case letters, digits and `-`"),
        ("1", "`decision_log.sinks[0]`: expected a map, found a number"),
    ],
)
def test_a_mistake_in_a_sink_is_one_sentence(sinks: str, sentence: str) -> None:
    found = said(f"sinks: [{sinks}]")
    assert len(found) == 1, found
    assert sentence in found[0]


@pytest.mark.parametrize(
    ("log", "sentence"),
    [
        ("keep_bytes: 150000, rotate_bytes: 100000", "at least twice `rotate_bytes`, 200000, found 150000"),
        ("keep_bytes: 150000000", "at least twice `rotate_bytes`, 200000000, found 150000000"),
        ("keep_bytes: 1", "expected at least 131072"),
        ("keep_for: 31y", "expected a span such as `24h` or `90d`, of thirty years at most"),
        ("keep_for: 20000d", "expected a span such as `24h` or `90d`, of thirty years at most"),
        ("rotate_every: daily", "expected a span such as `30s`, `5m` or `1h`"),
        ("compress: gzip", "expected true or false, found text"),
    ],
)
def test_a_mistake_in_what_is_kept_is_one_sentence(log: str, sentence: str) -> None:
    found = said(log)
    assert found
    assert sentence in found[0]


def test_a_sink_is_called_as_it_says_or_by_its_kind_and_writes_what_its_kind_is_for() -> None:
    log = good(f"sinks: [{{{OTLP}}}, {{{HTTP}}}, {{{HTTP}, name: siem, format: ocsf}}, {{kind: stdout}}]")
    assert [sink.called for sink in log.sinks] == ["otlp", "http", "siem", "stdout"]
    assert [sink.written_as for sink in log.sinks[1:]] == ["opa", "ocsf", "jsonl"]
    assert all(sink.required for sink in log.sinks)
    assert log.sinks[0].otlp().endpoint == "https://otel.example:4317"


def test_what_all_files_may_hold_is_bounded_also_where_nothing_is_said() -> None:
    assert good("").most_bytes == 2 * 21 * 100_000_000
    assert good("keep_bytes: 300000000").most_bytes == 300_000_000
    assert good("keep_for: 3650d").keep_for == 3650 * 86_400
