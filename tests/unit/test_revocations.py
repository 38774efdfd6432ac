"""`revocations`: what may be revoked, kept before it is answered, recorded with who and why, and in force at once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from signalwarden import _core, starter
from signalwarden.config import load
from signalwarden.decision_log import Recorder
from signalwarden.errors import BadInputError, RevocationsFullError, StateError
from signalwarden.intake import Intake
from signalwarden.revocations import MAX_REVOCATIONS, MAX_WHY, Revocation, Revocations
from signalwarden.state import SqliteStore

ROOT = Path(__file__).parents[2]
NOW_US = 1_795_500_000_000_000
HOUR_US = 3_600_000_000
WHO = "spiffe://prod.example/operator"
SUBJECT = "agent-7"
DIGEST = "ab" * 32
ISSUER = "https://login.example"
SETTINGS = f"""
identity:
  sources: [oauth]
  limits: {{access_token: {{max_lifetime: 2h}}}}
  oauth:
    - {{issuer: "{ISSUER}", audience: [payments], keys: {{file: keys.json}}, principal: "spiffe://prod.example/oauth/{{sub}}"}}
"""


@dataclass
class Stage:
    """A core with one issuer, and the way of its changes to the disk."""

    engine: _core.Engine
    store: SqliteStore
    revocations: Revocations
    terms: str

    def revoke(self, **what: str) -> dict[str, Any]:
        body = json.dumps({"reason": "leaked", **what}).encode()
        revoked: dict[str, Any] = json.loads(self.revocations.revoke(WHO, body))["revoked"]
        return revoked

    def good(self, **other: Any) -> bool:
        """Whether a token counts at the next look."""
        proof = {
            "v": 1, "digest": DIGEST, "class": "access_token", "source": "oauth", "issuer": ISSUER,
            "terms": self.terms, "principal": f"spiffe://prod.example/oauth/{SUBJECT}", "subject": SUBJECT,
            "audience": ["payments"], "key_id": "k1", "key_set": "00" * 32,
            "rests_on": [[f"keys:{ISSUER}", "k1 t"]], "issued_at_us": NOW_US - 1, "expires_at_us": NOW_US + HOUR_US,
            "certificate_sha256": None, "token_id": "token-1", "actor": None, "earlier_actors": [],
            "interactive": False, "transaction": None, "scope": None, "requester": None, "claims": [], **other,
        }  # fmt: skip
        principal, refused = self.engine.prove(
            json.dumps(proof).encode(), certificate_sha256=None, now_us=NOW_US
        )
        assert (principal is None) is (refused is not None)
        if refused is not None:
            assert refused == ("token_invalid", "the token has been revoked")
        return refused is None

    def records(self) -> list[dict[str, Any]]:
        lines, _ = self.engine.drain(max_records=100, wait_ms=0)
        return [json.loads(line) for line in lines.splitlines()]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = starter.create(tmp_path_factory.mktemp("base") / "refunds", now=datetime.now(UTC))
    (made.directory / "keys.json").write_text('{"keys": []}')
    settings = made.directory / "signalwarden.yaml"
    text, replaced = re.subn(r"(?m)^identity:.*\n(?: .*\n)*", SETTINGS, settings.read_text())
    assert replaced == 1
    settings.write_text(text)
    return made.directory


@pytest.fixture
def make(directory: Path, tmp_path: Path) -> Iterator[Callable[[], Stage]]:
    """Opens the state, and reads back what it has."""
    opened: list[SqliteStore] = []

    def start() -> Stage:
        for store in opened:
            store.close()
        loaded = load(directory, NOW_US)
        engine = _core.Engine()
        engine.swap(loaded.configuration)
        engine.set_authority(f"keys:{ISSUER}", members=["k1 t"])
        store = SqliteStore(tmp_path / "state" / "state.db")
        opened.append(store)
        engine.apply(list(store.read_all()), now_us=NOW_US)
        intake = Intake(engine, store, clock=lambda: NOW_US, max_rate=1_000)
        recorder = Recorder(engine, lambda: NOW_US)
        revocations = Revocations(engine, intake, recorder, clock=lambda: NOW_US)
        return Stage(engine, store, revocations, loaded.settings.identity.oauth[0].terms())

    yield start
    for store in opened:
        store.close()


WHAT: list[dict[str, str]] = [
    {"digest": DIGEST},
    {"jti": "token-1"},
    {"jti": "token-1", "issuer": ISSUER},
    {"subject": SUBJECT},
    {"subject": f"spiffe://prod.example/oauth/{SUBJECT}"},
    {"subject": SUBJECT, "issuer": ISSUER},
    {"issuer": ISSUER, "issued_before": "2030-01-01T00:00:00Z"},
    {"subject": SUBJECT, "issued_before": "2030-01-01T00:00:00+01:00"},
    {"issued_before": "2030-01-01T00:00:00.5Z"},
]


@pytest.mark.parametrize("what", WHAT, ids=str)
def test_what_is_revoked_is_refused_at_the_next_look_and_after_a_restart(
    make: Callable[[], Stage], what: dict[str, str]
) -> None:
    stage = make()
    assert stage.good()
    revoked = stage.revoke(**what)
    assert not stage.good()
    assert {key: value for key, value in revoked.items() if key != "issued_before"} == {
        key: value for key, value in what.items() if key != "issued_before"
    }
    again = make()
    assert not again.good()
    listed = json.loads(again.revocations.listing(10))
    assert listed == {"revocations": [revoked], "count": 1, "truncated": False}


def test_a_time_that_lies_ahead_counts_up_to_now(make: Callable[[], Stage]) -> None:
    stage = make()
    assert stage.revoke(issued_before="2099-01-01T00:00:00Z") == {
        "issued_before": "2026-11-24T06:00:00.000000Z"
    }
    assert not stage.good(issued_at_us=NOW_US)
    assert stage.good(issued_at_us=NOW_US + 1)


@pytest.mark.parametrize(
    "what",
    [
        {"digest": "cd" * 32},
        {"jti": "token-2"},
        {"jti": "token-1", "issuer": "https://other.example"},
        {"subject": "agent-8"},
        {"subject": SUBJECT, "issuer": "https://other.example"},
        {"issued_before": "2026-11-24T05:59:00Z"},
    ],
    ids=str,
)
def test_nothing_else_is_revoked(make: Callable[[], Stage], what: dict[str, str]) -> None:
    stage = make()
    stage.revoke(**what)
    assert stage.good()


def test_an_earlier_time_takes_nothing_back(make: Callable[[], Stage]) -> None:
    stage = make()
    later = stage.revoke(subject=SUBJECT)
    assert stage.revoke(subject=SUBJECT, issued_before="2020-01-01T00:00:00Z") == later
    assert not stage.good()
    assert not make().good()


def test_a_token_that_does_not_say_when_it_was_issued_is_revoked_with_its_subject(
    make: Callable[[], Stage],
) -> None:
    stage = make()
    stage.revoke(subject=SUBJECT, issued_before="2020-01-01T00:00:00Z")
    assert stage.good()
    assert not stage.good(issued_at_us=None)


def test_the_record_says_who_what_and_why(make: Callable[[], Stage]) -> None:
    stage = make()
    stage.revoke(jti="token-1", issuer=ISSUER, reason="  INC-7: printed in a log ")
    [record] = stage.records()
    assert {key: record[key] for key in ("change", "actor", "revoked", "why")} == {
        "change": "revoked",
        "actor": WHO,
        "revoked": {"jti": "token-1", "issuer": ISSUER},
        "why": "INC-7: printed in a log",
    }


def test_what_can_not_be_kept_is_not_revoked_and_not_recorded(make: Callable[[], Stage]) -> None:
    stage = make()
    stage.store.close()
    with pytest.raises(StateError):
        stage.revoke(jti="token-1")
    assert stage.good()
    assert stage.records() == []


SECRET = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln"


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"null", b"{}", b'{"reason":"a"}', b'{"jti":"a"}', b'{"jti":"a","reason":""}', b'{"jti":"a","reason":" "}',
        b'{"jti":"a","reason":1}', b'{"jti":1,"reason":"a"}', b'{"jti":null,"reason":"a"}', b'{"jti":"","reason":"a"}',
        b'{"issuer":"a","reason":"a"}', b'{"jti":"a","digest":"b","reason":"a"}', b'{"jti":"a","subject":"b","reason":"a"}',
        b'{"jti":"a","issued_before":"2026-01-01T00:00:00Z","reason":"a"}', b'{"digest":"a","issuer":"b","reason":"a"}',
        b'{"issued_before":"yesterday","reason":"a"}', b'{"issued_before":"2026-01-01","reason":"a"}', b'{"kid":"a","reason":"a"}',
        json.dumps({"digest": SECRET, "reason": "a"}).encode(), json.dumps({"digest": "AB" * 32, "reason": "a"}).encode(),
        json.dumps({SECRET: "a", "reason": "a"}).encode(), json.dumps({"jti": "a" * 2_049, "reason": "a"}).encode(),
        json.dumps({"subject": "a\nb", "reason": "a"}).encode(), json.dumps({"jti": "a", "reason": "b\x1b[2J"}).encode(),
        json.dumps({"jti": "a", "reason": "b" * (MAX_WHY + 1)}).encode(), b'{"jti":"a","reason":"b"', SECRET.encode(),
    ],
)  # fmt: skip
def test_what_does_not_say_what_and_why_is_refused_and_never_repeated(
    make: Callable[[], Stage], body: bytes
) -> None:
    stage = make()
    with pytest.raises(BadInputError) as refused:
        stage.revocations.revoke(WHO, body)
    assert SECRET not in str(refused.value)
    assert str(refused.value) == str(refused.value).strip(".\n")
    assert stage.good()
    assert stage.records() == []
    assert list(stage.store.read_all()) == []


def test_a_repeated_key_is_the_last_one_as_everywhere_in_the_admin_api() -> None:
    assert Revocation.parse(b'{"jti":"a","jti":"b","reason":"c"}').jti == "b"


def test_beyond_what_is_held_a_revocation_is_refused_and_none_is_forgotten(
    make: Callable[[], Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signalwarden.revocations.MAX_REVOCATIONS", 2)
    stage = make()
    stage.revoke(jti="token-1")
    stage.revoke(jti="token-2")
    with pytest.raises(RevocationsFullError, match=r"^2 revocations are in force"):
        stage.revoke(jti="token-3")
    assert not stage.good()
    assert json.loads(stage.revocations.listing(1))["truncated"]
    assert json.loads(stage.revocations.listing(1))["count"] == 2


def test_the_bound_is_the_core_s() -> None:
    source = (ROOT / "rust_core/core/src/limits.rs").read_text()
    found = re.search(r"MAX_REVOCATIONS: usize = ([\d_]+);", source)
    assert found is not None
    assert int(found[1]) == MAX_REVOCATIONS
