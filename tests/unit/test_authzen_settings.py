"""What the settings say of AuthZEN: whom a client may ask about, and under which address we are known."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from signalwarden.config import read_settings
from signalwarden.errors import FindingLike

NOW = datetime(2026, 11, 24, tzinfo=UTC)
TOKEN = f'token_sha256: "{"0" * 64}", expires: "2026-12-24T00:00:00Z"'


def with_line(line: str) -> str:
    return f"trust_domain: prod.example\n{line}\n"


def only(text: str) -> FindingLike:
    _, findings = read_settings(text, now=NOW)
    (finding,) = findings
    return finding


def asks_about(subjects: str, may: str = "evaluate") -> str:
    return with_line(
        f'clients: [{{id: "spiffe://prod.example/x", may: [{may}], subjects: {subjects}, {TOKEN}}}]'
    )


def test_a_client_names_whom_it_may_ask_about() -> None:
    text = asks_about('["spiffe://prod.example/a", "spiffe://prod.example/ns/*"]')
    settings, findings = read_settings(text, now=NOW)
    assert settings is not None, findings
    assert settings.clients[0].subjects == ("spiffe://prod.example/a", "spiffe://prod.example/ns/*")


@pytest.mark.parametrize(
    "subjects",
    [
        '["*"]',
        '["spiffe://*"]',
        '["spiffe://*/a"]',
        '["spiffe://prod.example/*/a"]',
        '["spiffe://prod.example/a*"]',
        '["alice"]',
        '["spiffe://prod.example/"]',
        '["spiffe://prod.example/a/**"]',
    ],
)
def test_a_pattern_of_subjects_is_a_spiffe_id_or_all_below_one(subjects: str) -> None:
    finding = only(asks_about(subjects))
    assert (finding.code, finding.line) == ("bad_value", 2)
    assert "ends in `/*`" in finding.message


def test_subjects_say_nothing_to_a_client_that_may_not_evaluate() -> None:
    assert only(asks_about('["spiffe://prod.example/a"]', may="read")).code == "bad_value"


def test_the_address_that_others_know_is_a_setting() -> None:
    settings, findings = read_settings(
        with_line('authzen: {policy_decision_point: "https://pdp.example.com:8443"}'), now=NOW
    )
    assert settings is not None, findings
    assert settings.authzen.policy_decision_point == "https://pdp.example.com:8443"
    bad = only(with_line('authzen: {policy_decision_point: "http://pdp.example.com"}'))
    assert (bad.code, bad.line) == ("bad_value", 2)
