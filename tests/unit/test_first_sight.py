"""First sight of tokens through the real core: validated once, known from then on, bounded whoever floods."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from signalwarden import _core
from signalwarden.answering import Answering
from signalwarden.outbound import fetch
from signalwarden.settings import Settings
from signalwarden.tokens import Proof, TokenRefused
from signalwarden.tokens import desk as desks
from signalwarden.tokens.desk import MAX_PEERS, MAX_PER_PEER, MAX_REMEMBERED, MAX_WAITING, PEER_BURST, Desk
from signalwarden.tokens.issuers import Issuers
from tests import asking
from tests.conftest import MINIMAL
from tests.key_server import KeyServer
from tests.minting import AUDIENCE, ISSUER, Issuer, sign
from tests.transmitter import Key, key_set
from tests.unit.test_key_keeping import until

FILES = {name: text for name, text in MINIMAL.items() if name != "signalwarden.yaml"}
PEER = "spiffe://prod.example/gateway"
OTHER = "spiffe://prod.example/other-gateway"


def settings_with(keys: dict[str, Any], **issuer: Any) -> Settings:
    entry = {
        "issuer": ISSUER,
        "audience": [AUDIENCE],
        "keys": keys,
        "principal": "spiffe://prod.example/oauth/{client_id}",
        **issuer,
    }
    identity = {"sources": ["oauth"], "oauth": [entry]}
    return Settings.model_validate_json(json.dumps({"trust_domain": "prod.example", "identity": identity}))


class Stage:
    """The core, an issuer whose keys are fetched, and the desk between them."""

    def __init__(self, settings: Settings, root: Path) -> None:
        self.issuer = Issuer()
        configuration = asking.load(FILES, settings=settings.for_core(), now_us=time.time_ns() // 1_000)
        self.engine = asking.running(configuration)
        self.issuers = Issuers(
            settings.identity,
            root=root,
            fetch=fetch,
            tell=lambda name, members: self.engine.set_authority(name, members=members),
        )
        self.desk = Desk(self.engine, self.issuers.validator({}, frozenset({"prod.example"})))
        self.answering = Answering(self.engine, self.desk)

    def ask(self, token: bytes | None, peer: str = PEER) -> str:
        """The reason of the answer."""
        headers = {} if token is None else {"authorization": f"Bearer {token.decode()}"}
        request = asking.check_request(principal=peer, headers=headers)
        return asking.reason_of(self.answering.check(bytes(request)))

    def token(self, **claims: Any) -> bytes:
        return self.issuer.token(int(time.time()), **claims)

    @property
    def counts(self) -> dict[str, int]:
        return self.desk.counters()


@pytest.fixture
def server() -> Iterator[KeyServer]:
    with KeyServer() as server:
        yield server


@pytest.fixture
def stage(server: KeyServer, tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(settings_with({"url": f"{server.address}/jwks", "refresh": "200ms"}), tmp_path)
    server.body = key_set(stage.issuer.key)
    stage.issuers.start()
    yield stage
    stage.issuers.stop()


# ---- once, and from then on --------------------------------------------------------------------------------


def test_a_token_is_validated_once(stage: Stage) -> None:
    token = stage.token()
    assert [stage.ask(token) for _ in range(5)] == ["allowed"] * 5
    assert stage.counts["first_sights"] == stage.counts["accepted"] == 1
    assert [record["principal"]["id"] for record in asking.drained(stage.engine)] == [
        "spiffe://prod.example/oauth/agent-7"
    ] * 5


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"aud": "https://other.example"}, "token_invalid"),
        ({"exp": int(time.time()) - 1}, "token_expired"),
        ({"exp": int(time.time()) + 7200}, "token_too_long_lived"),
        ({"exp": None}, "token_too_long_lived"),
        ({"cnf": {"jkt": "x"}}, "token_invalid"),
        ({"act": {}}, "token_invalid"),
    ],
)
def test_a_refused_token_denies_with_its_reason_and_is_remembered_for_a_while(
    stage: Stage, claims: dict[str, Any], reason: str
) -> None:
    token = stage.token(**claims)
    assert [stage.ask(token) for _ in range(3)] == [reason] * 3
    assert stage.counts[f"refused_{reason}"] == 1
    assert stage.counts["remembered"] == 2
    records = json.dumps(asking.drained(stage.engine))
    assert token.decode() not in records
    assert token.split(b".")[2].decode() not in records


def test_a_class_that_is_not_accepted_is_refused(stage: Stage) -> None:
    assert stage.ask(sign(stage.issuer.key, b"{}", typ="txntoken+jwt", kid="k1")) == "credential_refused"
    assert stage.ask(sign(stage.issuer.key, b"{}", typ="JWT", kid="k1")) == "credential_refused"


def test_no_token_is_no_first_sight(stage: Stage) -> None:
    assert stage.ask(None) == "identity_missing"
    assert stage.counts["first_sights"] == 0


# ---- what it rests on --------------------------------------------------------------------------------------


def test_a_key_that_is_taken_back_counts_at_the_next_request_after_the_refresh(
    stage: Stage, server: KeyServer
) -> None:
    old, token = stage.issuer.key, stage.token()
    assert stage.ask(token) == "allowed"
    stage.issuer.key = Key.make("ES256", "k2")
    server.body = key_set(stage.issuer.key)
    assert until(lambda: stage.ask(token) == "token_invalid")
    assert stage.ask(stage.token()) == "allowed"
    server.body = key_set(old, stage.issuer.key)
    assert until(lambda: stage.ask(stage.issuer.token(int(time.time()), key=old)) == "allowed")


def test_a_key_that_is_new_is_found_at_first_sight(server: KeyServer, tmp_path: Path) -> None:
    stage = Stage(settings_with({"url": f"{server.address}/jwks", "refresh": "1s"}), tmp_path)
    server.body = key_set(stage.issuer.key)
    stage.issuers.start()
    assert stage.ask(stage.token()) == "allowed"
    time.sleep(1.0)
    stage.issuer.key = Key.make("ES256", "k2")
    server.body = key_set(stage.issuer.key)
    assert until(lambda: stage.ask(stage.token()) == "allowed", 2.0)
    stage.issuers.stop()


def test_keys_from_a_file(tmp_path: Path) -> None:
    stage = Stage(settings_with({"file": "login.jwks.json", "refresh": "200ms"}), tmp_path)
    (tmp_path / "login.jwks.json").write_bytes(key_set(stage.issuer.key))
    stage.issuers.start()
    token = stage.token()
    assert stage.ask(token) == "allowed"
    (tmp_path / "login.jwks.json").write_bytes(key_set(Key.make("ES256", "k2")))
    assert until(lambda: stage.ask(token) == "token_invalid")
    stage.issuers.stop()
    assert json.loads(stage.engine.authorities()) == []


def test_an_issuer_that_is_down_from_the_start_denies_and_recovers(stage: Stage, server: KeyServer) -> None:
    server.mode = "down"
    assert stage.ask(stage.token()) in ("allowed", "token_invalid")
    server.mode = "good"
    token = stage.token()
    assert until(lambda: stage.ask(token) == "allowed")


# ---- bounds ------------------------------------------------------------------------------------------------


def test_a_flood_of_bad_tokens_is_not_looked_at_and_honest_calls_go_on(stage: Stage) -> None:
    known = stage.token()
    assert stage.ask(known) == "allowed"
    stranger = Key.make("ES256", "k1")
    began = time.monotonic()
    for at in range(500):
        assert stage.ask(stage.issuer.token(int(time.time()), key=stranger)) == "token_invalid"
        if at % 50 == 0:
            assert stage.ask(known) == "allowed", "a token that is known needs no look"
            assert stage.ask(stage.token(), OTHER) == "allowed", "another peer's first sight goes on"
    looked = stage.counts["first_sights"] - stage.counts["refused_unseen"] - stage.counts["accepted"]
    assert looked <= PEER_BURST + desks.PEER_A_SECOND * (time.monotonic() - began) + 1
    assert stage.counts["waiting"] == 0


def test_good_tokens_cost_a_peer_nothing(stage: Stage) -> None:
    assert {stage.ask(stage.token()) for _ in range(3 * PEER_BURST)} == {"allowed"}


class Slow:
    """A validator that takes until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.under_way = 0

    def validate(self, source: str, token: bytes, **more: Any) -> Proof:
        self.under_way += 1
        self.go.wait(10)
        raise TokenRefused.invalid("slow")


class Credential:
    def __init__(self, at: int) -> None:
        self.digest = f"{at:064x}"
        self.source = "oauth"
        self.header = "authorization"
        self.token = b"not-a-token-but-a-secret"


class Pending:
    def __init__(self, peer: str, *ats: int) -> None:
        self.peer = peer
        self.credentials = [Credential(at) for at in ats]


class Engine:
    """Keeps what it is told at the second look."""

    def __init__(self) -> None:
        self.told: list[tuple[list[bytes], list[tuple[str, str, str]]]] = []

    def validated(self, request: bytes, *, proofs: Any, refused: Any) -> bytes:
        self.told.append((list(proofs), list(refused)))
        return request


def test_no_more_than_so_many_are_here_at_once_of_one_peer_and_in_all() -> None:
    slow, engine = Slow(), Engine()
    desk = Desk(engine, slow)  # type: ignore[arg-type]
    threads = []
    for at in range(2 * MAX_WAITING):
        peer = "a" if at < MAX_WAITING else f"p{at}"
        threads.append(threading.Thread(target=desk.answer, args=(b"r", Pending(peer, at)), daemon=True))
        threads[-1].start()
    assert until(lambda: slow.under_way == MAX_WAITING)
    assert until(lambda: len(engine.told) == MAX_WAITING), "who finds no place is refused at once"
    assert desk.counters()["waiting"] == MAX_WAITING
    assert desk.counters()["refused_unseen"] == MAX_WAITING
    of_a = sum(1 for _, refused in engine.told if int(refused[0][0], 16) < MAX_WAITING)
    assert of_a == MAX_WAITING - MAX_PER_PEER
    slow.go.set()
    for thread in threads:
        thread.join(5)
    assert desk.counters()["waiting"] == 0


def test_a_call_whose_tokens_take_too_long_is_answered() -> None:
    now = [0.0]

    class Late:
        def validate(self, source: str, token: bytes, **more: Any) -> Proof:
            now[0] += desks.MAX_CALL_S + 0.1
            raise TokenRefused.invalid("late")

    engine = Engine()
    desk = Desk(engine, Late(), clock=lambda: now[0])  # type: ignore[arg-type]
    desk.answer(b"r", Pending("a", 1, 2, 3))
    ((_, refused),) = engine.told
    assert [detail for _, _, detail in refused] == ["late", desks.LATE.detail, desks.LATE.detail]


def test_what_breaks_denies_and_says_nothing_of_the_token(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def validate(self, source: str, token: bytes, **more: Any) -> Proof:
            raise RuntimeError(token.decode())

    engine = Engine()
    with caplog.at_level(logging.DEBUG):
        Desk(engine, Broken()).answer(b"r", Pending("a", 1))  # type: ignore[arg-type]
    ((proofs, refused),) = engine.told
    assert (proofs, refused[0][1]) == ([], "token_invalid")
    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text
    assert "secret" not in refused[0][2]


def test_a_proof_that_the_core_cannot_read_denies(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Proof, "to_json", lambda _: b"{}")
    assert stage.ask(stage.token()) == "token_invalid"


def test_what_is_remembered_is_bounded_and_forgotten() -> None:
    now = [0.0]

    class Never:
        looks = 0

        def validate(self, source: str, token: bytes, **more: Any) -> Proof:
            self.looks += 1
            raise TokenRefused.invalid("never")

    never = Never()
    desk = Desk(Engine(), never, clock=lambda: now[0])  # type: ignore[arg-type]
    for at in range(MAX_REMEMBERED + MAX_PEERS):
        now[0] += 0.02  # as many strangers as are looked at
        desk.answer(b"r", Pending(f"p{at}", at))
    assert len(desk._refused._known) == MAX_REMEMBERED
    assert len(desk._peers._buckets) == MAX_PEERS
    looks = never.looks
    desk.answer(b"r", Pending("z", MAX_REMEMBERED + MAX_PEERS - 1))
    assert never.looks == looks
    now[0] += desks.REMEMBER_S
    desk.answer(b"r", Pending("z", MAX_REMEMBERED + MAX_PEERS - 1))
    assert never.looks == looks + 1
    desk.use(never)  # type: ignore[arg-type]
    desk.answer(b"r", Pending("z", MAX_REMEMBERED + MAX_PEERS - 1))
    assert never.looks == looks + 2


def test_what_was_found_out_before_a_key_moved_is_not_remembered() -> None:
    slow = Slow()
    desk = Desk(Engine(), slow)  # type: ignore[arg-type]
    call = threading.Thread(target=desk.answer, args=(b"r", Pending("a", 1)), daemon=True)
    call.start()
    assert until(lambda: slow.under_way == 1)
    desk.forget()
    slow.go.set()
    call.join(5)
    desk.answer(b"r", Pending("a", 1))
    assert slow.under_way == 2
    desk.answer(b"r", Pending("a", 1))
    assert slow.under_way == 2


def test_a_thread_of_many_calls_with_one_new_token_refuses_none(stage: Stage) -> None:
    token = stage.token()
    got: list[str] = []
    threads = [threading.Thread(target=lambda: got.append(stage.ask(token))) for _ in range(MAX_WAITING)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert set(got) == {"allowed"}


def test_the_credentials_of_the_core_are_those_of_the_desk(stage: Stage) -> None:
    token = stage.token()
    headers = {"authorization": f"Bearer {token.decode()}"}
    pending = stage.engine.check(bytes(asking.check_request(principal=PEER, headers=headers)))
    assert isinstance(pending, _core.Pending)
    (credential,) = pending.credentials
    assert (pending.peer, credential.source, credential.header) == (PEER, "oauth", "authorization")
    assert token.decode() not in repr(credential)


def test_a_flood_from_many_peers_is_not_looked_at_and_a_peer_that_is_known_goes_on() -> None:
    now = [0.0]

    class Judge:
        looks = 0

        def validate(self, source: str, token: bytes, *, digest: str, **more: Any) -> Proof:
            self.looks += 1
            if int(digest, 16) >= 1_000_000:
                return Proof(digest, "access_token", "i", "t", None, "s", (), "k", "r", (), None, 1)
            raise TokenRefused.invalid("never")

    judge = Judge()
    desk = Desk(Engine(), judge, clock=lambda: now[0])  # type: ignore[arg-type]
    desk.answer(b"r", Pending("gateway", 1_000_000))
    for at in range(5_000):
        now[0] += 0.0002
        desk.answer(b"r", Pending(f"198.51.{at // 250}.{at % 250}", at))
        desk.answer(b"r", Pending(f"2001:db8:0:1::{at:x}", 10_000 + at))
    assert judge.looks <= 1 + desks.STRANGERS_BURST + desks.STRANGERS_A_SECOND * now[0] + 1
    desk.answer(b"r", Pending("gateway", 1_000_001))
    assert desk.counters()["accepted"] == 2
    desk.answer(b"r", Pending("newcomer", 1_000_002))
    assert desk.counters()["accepted"] == 2
    now[0] += 1.0
    desk.answer(b"r", Pending("newcomer", 1_000_002))
    assert desk.counters()["accepted"] == 3


def test_addresses_of_one_network_are_one_peer() -> None:
    assert desks._one_peer("2001:db8:0:1::7") == desks._one_peer("2001:db8:0:1:ffff::1")
    assert desks._one_peer("2001:db8:0:1::7") != desks._one_peer("2001:db8:0:2::7")
    for peer in ("198.51.100.7", PEER, "", "a:b", "2001:db8::1%eth0"):
        assert desks._one_peer(peer) in (peer, "2001:db8::/64")
