"""`clients`: by token, by certificate, by JWT-SVID, and what happens when two of them are shown."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from signalwarden import mtls
from signalwarden.clients import Clients
from signalwarden.config import ClientSettings, Right
from signalwarden.mtls import Peers
from tests.trust import Domains

WHO = "spiffe://prod.example/operator"
OTHER = "spiffe://prod.example/other"
TOKEN = b"a-bearer-token"
JWT = b"header.claims.signature"
NOW = datetime(2027, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(days=1)


def by_token(who: str = WHO, until: datetime | None = LATER) -> ClientSettings:
    digest = hashlib.sha256(TOKEN).hexdigest()
    return ClientSettings(id=who, may=(Right.READ,), token_sha256=digest, expires=until)


def by_svid(who: str = WHO, until: datetime | None = None) -> ClientSettings:
    return ClientSettings(id=who, may=(Right.OPERATE,), expires=until)


class Tokens:
    """Knows one JWT-SVID."""

    asked = 0

    def authenticate(self, token: bytes) -> str | None:
        self.asked += 1
        return WHO if token == JWT else None


@dataclass
class Stage:
    domains: Domains
    entries: list[ClientSettings] = field(default_factory=list)
    refusals: list[tuple[str | None, str]] = field(default_factory=list)
    tokens: Tokens | None = field(default_factory=Tokens)
    peers: bool = True

    def clients(self, *entries: ClientSettings) -> Clients:
        return Clients(
            lambda: entries,
            peers=Peers(self.domains.bundles) if self.peers else None,
            tokens=self.tokens,
            refused=lambda who, why: self.refusals.append((who, why)),
            clock=lambda: int(NOW.timestamp() * 1e6),
        )

    def chain(self, who: str = WHO) -> bytes:
        return self.domains.prod.issue(who).certificate.read_bytes()


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(Domains(tmp_path))


def test_a_token_is_its_clients_until_it_expires(stage: Stage) -> None:
    client = stage.clients(by_token()).by_token(TOKEN)
    assert client is not None
    assert (client.id, client.may) == (WHO, frozenset({Right.READ}))
    assert stage.clients(by_token()).by_token(b"guess") is None
    assert stage.clients(by_token(until=NOW)).by_token(TOKEN) is None
    assert stage.clients(by_token(until=None)).by_token(TOKEN) is None
    assert stage.clients(by_svid()).by_token(b"") is None
    assert stage.refusals == [
        (None, "unknown token"),
        (WHO, "the token has expired"),
        (WHO, "the token has expired"),
        (None, "unknown token"),
    ]


def test_a_certificate_is_that_of_an_entry_without_a_token(stage: Stage) -> None:
    client = stage.clients(by_token(), by_svid()).by_certificate(stage.chain())
    assert client is not None
    assert (client.id, client.may) == (WHO, frozenset({Right.OPERATE}))
    assert stage.clients(by_token()).by_certificate(stage.chain()) is None
    assert stage.clients(by_svid(until=NOW)).by_certificate(stage.chain()) is None
    assert stage.refusals == [
        (WHO, "no client by SVID has this SPIFFE ID"),
        (WHO, "the entry of the client has expired"),
    ]


def test_a_certificate_is_verified_at_each_call_by_the_bundle_of_its_trust_domain(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = stage.clients(by_svid())
    chain = stage.chain()
    assert clients.by_certificate(chain) is not None
    assert clients.by_certificate(stage.domains.forged(WHO).certificate.read_bytes()) is None
    held = stage.domains.bundles.bundles.pop("prod.example")
    assert clients.by_certificate(chain) is None
    stage.domains.bundles.bundles["prod.example"] = held
    assert clients.by_certificate(chain) is not None
    monkeypatch.setattr(mtls, "expired", lambda _: True)
    assert clients.by_certificate(chain) is None
    assert stage.refusals[-1] == (WHO, "the client certificate has run out")


def test_without_tls_no_certificate_is_anyone(stage: Stage) -> None:
    stage.peers = False
    assert stage.clients(by_svid()).by_certificate(stage.chain()) is None


def test_a_jwt_svid_is_that_of_an_entry_without_a_token(stage: Stage) -> None:
    client = stage.clients(by_svid()).by_token(JWT)
    assert client is not None
    assert client.id == WHO
    assert stage.clients(by_token()).by_token(JWT) is None
    assert stage.clients(by_svid()).by_token(b"a.b.c") is None
    assert [who for who, _ in stage.refusals] == [WHO, None]
    stage.tokens = None
    assert stage.clients(by_svid()).by_token(JWT) is None


def test_only_what_may_be_a_jwt_is_validated(stage: Stage) -> None:
    for token in (TOKEN, b"a.b", b"a.b.c.d"):
        stage.clients(by_token()).by_token(token)
    assert stage.tokens is not None
    assert stage.tokens.asked == 0


def test_a_token_and_a_certificate_must_agree(stage: Stage) -> None:
    clients = stage.clients(by_token(), by_svid(OTHER))
    assert clients.by_token(TOKEN, stage.chain()) is not None
    assert clients.by_token(TOKEN, stage.chain(OTHER)) is None
    assert stage.refusals == [(WHO, f"its token came with the certificate of `{OTHER}`")]


def test_a_good_token_does_not_mend_a_bad_certificate(stage: Stage) -> None:
    forged = stage.domains.forged(WHO).certificate.read_bytes()
    assert stage.clients(by_token()).by_token(TOKEN, forged) is None
    assert stage.clients(by_svid()).by_token(JWT, forged) is None


def test_no_token_is_written_down(stage: Stage) -> None:
    stage.clients(by_svid()).by_token(b"secret.jwt.token")
    stage.clients(by_svid()).by_token(b"secret-token")
    assert "secret" not in str(stage.refusals)


def test_what_a_client_may_is_asked_of_its_entries_as_they_are_now(stage: Stage) -> None:
    clients = stage.clients(by_token(), by_svid(until=NOW))
    assert clients.may(WHO, Right.READ)
    assert not clients.may(WHO, Right.OPERATE), "that entry has ended"
    assert not clients.may("spiffe://prod.example/other", Right.READ)
    assert stage.refusals == []
