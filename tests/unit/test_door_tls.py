"""Doors with mutual TLS: who may ask, by the bundle of which trust domain, and rotation that loses nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from signalwarden import mtls, server
from signalwarden.answering import Answering
from signalwarden.config import Address
from signalwarden.demo_stage import Credential
from signalwarden.errors import KeysError, ServerError
from signalwarden.front import REFUSED, CheckTls, Front, Refusal
from signalwarden.mtls import Certificates, Files, Peers, Spire
from signalwarden.native import NativeDoor
from signalwarden.peers import PeerRefused
from signalwarden.server import CHECK_METHOD, FrontDoor
from tests import asking
from tests.trust import Domains

ANY = Address("127.0.0.1", 0)
TIMEOUT_S = 10.0
ENVOY = "spiffe://prod.example/envoy"
PARTNER = "spiffe://partner.example/envoy"


ANSWERED = "malformed_request"
"""What is asked here is no request of Envoy's: that it is judged at all is what counts."""
HEARD_S = 1.3
"""The native front holds for a second what it was told of a client, and looks at our certificate once a second."""


def opened(name: str, tls: CheckTls | None, address: Address = ANY) -> Front:
    """A door of this kind, with a core of its own behind it."""
    engine = asking.running(asking.load({}))
    answering = Answering(engine, None)
    if name == "native":
        return NativeDoor(engine, answering, address, workers=0, threads=2, tls=tls)
    return FrontDoor(answering, address, tls=tls)


@dataclass
class Stage:
    domains: Domains
    front: Front
    name: str = "grpcio"
    may_ask: set[str] = field(default_factory=lambda: {ENVOY})

    def heard(self) -> None:
        """Until what has changed counts: at once, or within a second."""
        if self.name == "native":
            time.sleep(HEARD_S)

    @contextmanager
    def channel(self, credential: Credential, *, trust: bytes | None = None) -> Iterator[grpc.Channel]:
        trust = trust or self.domains.prod.bundle.read_bytes()
        secure = grpc.ssl_channel_credentials(
            trust, credential.key.read_bytes(), credential.certificate.read_bytes()
        )
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.secure_channel(f"localhost:{self.front.address.port}", secure, options) as opened:
            yield opened


@pytest.fixture
def stage(front: str, tmp_path: Path) -> Iterator[Stage]:
    domains = Domains(tmp_path)
    may_ask = {ENVOY}
    tls = CheckTls(
        Certificates(Spire(domains.svids, domains.bundles), "check"),
        Peers(domains.bundles),
        lambda who: who in may_ask,
    )
    door = opened(front, tls)
    door.start()
    yield Stage(domains, door, front, may_ask)
    door.stop(0.2)


def ask(channel: grpc.Channel) -> str:
    call = channel.unary_unary(CHECK_METHOD, request_serializer=bytes, response_deserializer=bytes)
    return asking.reason_of(bytes(call(b"\xff", timeout=TIMEOUT_S)))


def refusal(channel: grpc.Channel) -> tuple[grpc.StatusCode, str | None]:
    with pytest.raises(grpc.RpcError) as caught:
        ask(channel)
    return caught.value.code(), caught.value.details()


def last_refused(stage: Stage) -> Refusal | None:
    return stage.front.counts.refusals


DENIED = (grpc.StatusCode.PERMISSION_DENIED, REFUSED)


def test_a_listed_client_asks_and_another_is_refused_counted_and_named(stage: Stage) -> None:
    with stage.channel(stage.domains.prod.issue(ENVOY)) as channel:
        assert ask(channel) == ANSWERED
    assert last_refused(stage) is None
    with stage.channel(stage.domains.prod.issue("spiffe://prod.example/other")) as channel:
        assert refusal(channel) == DENIED
        assert refusal(channel) == DENIED
    last = last_refused(stage)
    assert last is not None
    assert (last.count, last.client) == (2, "spiffe://prod.example/other")
    assert "check_clients" in last.detail


def test_the_authority_of_one_trust_domain_speaks_for_no_other(stage: Stage) -> None:
    stage.may_ask.add(PARTNER)
    with stage.channel(stage.domains.partner.issue(PARTNER)) as channel:
        assert ask(channel) == ANSWERED
    with stage.channel(stage.domains.forged(ENVOY)) as channel:
        assert refusal(channel) == DENIED
    last = last_refused(stage)
    assert last is not None
    assert last.client is None
    assert "does not lead to an authority of the trust domain `prod.example`" in last.detail


def test_a_removed_bundle_denies_at_the_next_call_of_an_open_connection(stage: Stage) -> None:
    stage.may_ask.add(PARTNER)
    with stage.channel(stage.domains.partner.issue(PARTNER)) as channel:
        assert ask(channel) == ANSWERED
        held = stage.domains.bundles.bundles.pop("partner.example")
        stage.heard()
        assert refusal(channel) == DENIED
        stage.domains.bundles.bundles["partner.example"] = held
        stage.heard()
        assert ask(channel) == ANSWERED
        stage.domains.bundles.put("partner.example", stage.domains.prod)
        stage.heard()
        assert refusal(channel) == DENIED


def test_a_client_that_is_listed_no_more_is_refused_at_its_next_call(stage: Stage) -> None:
    with stage.channel(stage.domains.prod.issue(ENVOY)) as channel:
        assert ask(channel) == ANSWERED
        stage.may_ask.clear()
        stage.front.judge_anew()  # as a reload has it
        assert refusal(channel) == DENIED


def test_a_certificate_that_ran_out_is_refused_on_an_open_connection(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stage.channel(stage.domains.prod.issue(ENVOY)) as channel:
        assert ask(channel) == ANSWERED
        monkeypatch.setattr(mtls, "expired", lambda _: True)
        stage.heard()
        assert refusal(channel) == DENIED
    last = last_refused(stage)
    assert last is not None
    assert (last.client, last.detail) == (ENVOY, "the client certificate has run out")


def test_a_revoked_certificate_is_refused(tmp_path: Path) -> None:
    domains = Domains(tmp_path)
    peers = Peers(domains.bundles, revoked=lambda peer: peer.id == ENVOY)
    chain = domains.prod.issue(ENVOY).certificate.read_bytes()
    with pytest.raises(PeerRefused, match="is revoked"):
        peers.of_pem(chain)
    other = "spiffe://prod.example/x"
    assert peers.of_pem(domains.prod.issue(other).certificate.read_bytes()).id == other


def test_plain_text_and_strangers_get_no_connection(stage: Stage, tmp_path: Path) -> None:
    with grpc.insecure_channel(str(stage.front.address)) as channel:
        assert refusal(channel)[0] is grpc.StatusCode.UNAVAILABLE
    trust = grpc.ssl_channel_credentials(stage.domains.prod.bundle.read_bytes())
    with grpc.secure_channel(f"localhost:{stage.front.address.port}", trust) as channel:
        assert refusal(channel)[0] is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(grpc.RpcError, match="UNAVAILABLE"):
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
    stranger = Domains(tmp_path / "elsewhere").prod.issue(ENVOY)
    with stage.channel(stranger) as channel:
        assert refusal(channel)[0] is grpc.StatusCode.UNAVAILABLE
    assert stage.front.counts.refusals is None


def test_health_needs_a_certificate_and_no_place_in_the_list(stage: Stage) -> None:
    with stage.channel(stage.domains.prod.issue("spiffe://prod.example/probe")) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_a_door_without_tls_opens_on_this_machine_alone(front: str) -> None:
    with pytest.raises(ServerError, match="it needs TLS"):
        opened(front, None, Address("0.0.0.0", 0))


# ---- rotation -----------------------------------------------------------------------------------------------


def test_rotation_under_load_loses_no_call(stage: Stage) -> None:
    """Our SVID a hundred times, its authority included; each client keeps its connection, and new ones come."""
    credential = stage.domains.prod.issue(ENVOY)
    ended = threading.Event()

    def steady() -> int:
        calls = 0
        with stage.channel(credential, trust=trust) as channel:
            while not ended.is_set():
                assert ask(channel) == ANSWERED
                calls += 1
        return calls

    def coming() -> int:
        calls = 0
        while not ended.is_set():
            with stage.channel(credential, trust=trust) as channel:
                assert ask(channel) == ANSWERED
            calls += 1
        return calls

    successor = Domains(stage.domains.prod.bundle.parent / "successor").prod
    stage.domains.bundles.put("prod.example", stage.domains.prod, successor)
    trust = stage.domains.bundles.roots_pem()
    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(steady), pool.submit(steady), pool.submit(coming)]
        for turn in range(100):
            stage.domains.svids.rotate((stage.domains.prod, successor)[turn % 2])
            time.sleep(0.01)
        ended.set()
        calls = [each.result(30) for each in running]
    assert all(count > 10 for count in calls), calls
    assert stage.front.counts.refusals is None


def test_a_connection_that_is_asked_to_end_loses_no_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its age a connection ends gracefully, so that clients come again with their newest certificate."""
    aged = (server.TLS_OPTIONS[0], ("grpc.max_connection_age_ms", 100), server.TLS_OPTIONS[2])
    monkeypatch.setattr(server, "TLS_OPTIONS", aged)
    domains = Domains(tmp_path)
    certificates = Certificates(Spire(domains.svids, domains.bundles), "check")
    front = opened("grpcio", CheckTls(certificates, Peers(domains.bundles), lambda _: True))
    front.start()
    try:
        with Stage(domains, front).channel(domains.prod.issue(ENVOY)) as channel:
            until = time.monotonic() + 1.5
            while time.monotonic() < until:
                assert ask(channel) == ANSWERED
    finally:
        front.stop(0.2)


def test_a_new_authority_of_ours_counts_at_the_next_handshake(stage: Stage, tmp_path: Path) -> None:
    successor = Domains(tmp_path / "successor").prod
    credential = stage.domains.prod.issue(ENVOY)
    with stage.channel(credential) as before:
        assert ask(before) == ANSWERED
        stage.domains.svids.rotate(successor)
        stage.heard()
        with stage.channel(credential) as old, pytest.raises(grpc.RpcError, match="UNAVAILABLE"):
            ask(old)
        with stage.channel(credential, trust=successor.bundle.read_bytes()) as new:
            assert ask(new) == ANSWERED
        assert ask(before) == ANSWERED


def test_without_an_svid_nothing_starts_and_what_runs_goes_on(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    domains = stage.domains
    domains.svids.svid = None
    with pytest.raises(KeysError, match="there is no SVID of our own"):
        Certificates(Spire(domains.svids, domains.bundles))
    stage.heard()
    with stage.channel(domains.prod.issue(ENVOY)) as channel:
        assert ask(channel) == ANSWERED
    assert "go on as they were: there is no SVID of our own" in caplog.text
    domains.svids.rotate()
    domains.bundles.bundles.clear()
    with pytest.raises(KeysError, match="there is no trust bundle"):
        Certificates(Spire(domains.svids, domains.bundles))


# ---- files and bundles --------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> tuple[Domains, Files]:
    """`client_ca` is a third authority; only `partner.example` has a bundle."""
    domains = Domains(tmp_path)
    del domains.bundles.bundles["prod.example"]
    ours = domains.prod.issue("spiffe://prod.example/signalwarden")
    made = Files(ours.certificate, ours.key, domains.prod.bundle, domains.bundles)
    made.look()
    return domains, made


def test_a_bundle_counts_before_the_file_and_the_file_for_the_domains_without(
    files: tuple[Domains, Files],
) -> None:
    domains, made = files
    bundled = {"partner.example"}
    peers = Peers(domains.bundles, bundled=lambda: bundled, client_ca=made.client_ca)

    def found(credential: Credential) -> str | None:
        try:
            return peers.of_pem(credential.certificate.read_bytes()).id
        except PeerRefused:
            return None

    assert found(domains.prod.issue(ENVOY)) == ENVOY
    assert found(domains.partner.issue(PARTNER)) == PARTNER
    assert found(domains.forged(ENVOY)) is None
    assert found(domains.prod.issue(PARTNER)) is None
    domains.bundles.bundles.clear()  # withdrawn: the file does not stand in for it
    assert found(domains.partner.issue(PARTNER)) is None
    assert found(domains.prod.issue(PARTNER)) is None
    assert found(domains.prod.issue(ENVOY)) == ENVOY


def test_the_roots_of_the_handshake_are_the_file_and_the_bundles(files: tuple[Domains, Files]) -> None:
    domains, made = files
    roots = made.look().client_ca
    assert domains.prod.bundle.read_bytes().strip() in roots
    assert domains.bundles.roots_pem().strip() in roots
    assert b"PRIVATE" not in repr(made.look()).encode()


def test_what_is_remembered_of_chains_is_bounded_and_not_forever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mtls, "MAX_KNOWN", 8)
    domains = Domains(tmp_path)
    peers = Peers(domains.bundles)
    for n in range(20):
        peers.of_pem(domains.prod.issue(f"spiffe://prod.example/{n}").certificate.read_bytes())
    assert len(peers._known) <= 8
    for bad in (b"", b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n", b"x" * 1_000_000):
        with pytest.raises(PeerRefused):
            peers.of_pem(bad)
