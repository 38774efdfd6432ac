"""signalwarden's own SVID: on the check door for Envoy alone, on the admin door for clients with SVIDs, rotated live."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from cryptography import x509

from signalwarden import starter
from signalwarden.demo_stage import LOOPBACK
from tests.spire.real import Agent, Identity, Workload, python_selector
from tests.spire.stage import (
    ACCOUNT,
    CLIENT,
    ENVOY,
    EVERYBODY,
    WARDEN,
    Edge,
    Warden,
    ask_steadily,
    decision_id,
)

QUICK_SECONDS = 16
CHECK = "/envoy.service.auth.v3.Authorization/Check"


@pytest.fixture(scope="module")
def agent(new_domain: Callable[[str], Agent]) -> Agent:
    """A domain of our own: what asks for certificates here is rotated every few seconds."""
    agent = new_domain("prod.example")
    agent.server.entry(
        WARDEN, python_selector(), node=agent.node, x509_seconds=QUICK_SECONDS, dns=["localhost"]
    )
    return agent


@pytest.fixture(scope="module")
def operator(agent: Agent) -> Workload:
    workload = Workload.create(agent, "operator")
    workload.register(starter.OPERATOR)
    return workload


@pytest.fixture(scope="module")
def caller(agent: Agent) -> Workload:
    workload = Workload.create(agent, "refunds")
    workload.register(CLIENT, x509_seconds=QUICK_SECONDS)
    return workload


@pytest.fixture(scope="module")
def warden(base: Path, agent: Agent, operator: Workload) -> Iterator[Warden]:
    settings = (
        f'workload_api: "{agent.address}"\n'
        "identity: {sources: [envoy_peer], admin_audience: signalwarden-admin}\n"
        f'tls: {{spire: true, doors: [check, admin], check_clients: ["{ENVOY}"]}}\n'
    )
    made = Warden.create(base / "doors", settings, operator=operator)
    with made.serving():
        yield made


@pytest.fixture(scope="module")
def edge(warden: Warden, agent: Agent, new_edge: Callable[..., Edge]) -> Edge:
    return new_edge(warden, agent, x509_seconds=QUICK_SECONDS, own_id=ENVOY)


def certificate_at(port: int, identity: Identity) -> x509.Certificate:
    """What the server there shows to a client with this SVID."""
    context = ssl.create_default_context(cafile=str(identity.bundle))
    context.load_cert_chain(identity.certificate, identity.key)
    with (
        socket.create_connection((LOOPBACK, port), timeout=10) as connection,
        context.wrap_socket(connection, server_hostname="localhost") as tls,
    ):
        der = tls.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der)


def check(port: int, identity: Identity | None, bundle: Path) -> grpc.StatusCode:
    """An empty check at the check door: how the call ended."""
    credentials = grpc.ssl_channel_credentials(
        bundle.read_bytes(),
        identity.key.read_bytes() if identity else None,
        identity.certificate.read_bytes() if identity else None,
    )
    with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
        try:
            channel.unary_unary(CHECK, bytes, bytes)(b"", timeout=10)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def test_envoy_and_signalwarden_know_each_other_by_their_svids(
    edge: Edge, warden: Warden, caller: Workload, tmp_path: Path
) -> None:
    identity = caller.x509(tmp_path / "svid")
    answer = edge.ask(identity)
    assert answer.status_code == 200, answer.text
    principal = warden.record(decision_id(answer))["principal"]
    assert (principal["id"], principal["certificate_sha256"]) == (CLIENT, identity.sha256)
    assert int(principal["serial"], 16) == identity.serial


def test_nobody_but_envoy_may_ask_at_the_check_door(warden: Warden, caller: Workload, tmp_path: Path) -> None:
    identity = caller.x509(tmp_path / "svid")
    assert check(warden.check_port, identity, identity.bundle) == grpc.StatusCode.PERMISSION_DENIED
    assert check(warden.check_port, None, identity.bundle) == grpc.StatusCode.UNAVAILABLE
    with grpc.insecure_channel(f"{LOOPBACK}:{warden.check_port}") as plain, pytest.raises(grpc.RpcError):
        plain.unary_unary(CHECK, bytes, bytes)(b"", timeout=10)


def test_a_client_of_the_admin_door_is_who_its_svid_says(
    warden: Warden, caller: Workload, operator: Workload, tmp_path: Path
) -> None:
    with warden.admin(operator.x509(tmp_path / "operator")) as client:
        assert client.get("/v1/signals").status_code == 200
    stranger = caller.x509(tmp_path / "caller")
    with warden.admin(stranger) as client:
        assert client.get("/v1/signals").status_code == 401
        token = operator.jwt("signalwarden-admin")
        # The connection and the token name two clients.
        answer = client.get("/v1/signals", headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == 401


def test_policy_and_identity_are_apart(edge: Edge, warden: Warden, caller: Workload, tmp_path: Path) -> None:
    # I7: the policy changes, the certificate does not.
    identity = caller.x509(tmp_path / "svid")
    with edge.client(identity, identity.bundle) as client:
        before = client.get(ACCOUNT)
        warden.policy(f'{EVERYBODY}forbid (principal == Workload::"{CLIENT}", action, resource);\n')
        after = client.get(ACCOUNT)
        warden.policy(EVERYBODY)
    assert (before.status_code, after.status_code) == (200, 403)
    records = [warden.record(decision_id(answer)) for answer in (before, after)]
    assert {int(record["principal"]["serial"], 16) for record in records} == {identity.serial}


def test_every_svid_rotates_under_steady_requests_and_none_is_lost(
    edge: Edge, warden: Warden, caller: Workload, operator: Workload, tmp_path: Path
) -> None:
    shown: set[int] = set()
    stop = threading.Event()

    def watch() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            identity = operator.x509(tmp_path / f"operator-{turn}")
            shown.add(certificate_at(warden.admin_port, identity).serial_number)
            stop.wait(1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    connections = edge.stat("cluster.signalwarden.upstream_cx_total")
    try:
        seen = ask_steadily(
            edge,
            caller,
            tmp_path / "caller",
            lambda seen: len(shown) >= 4 and len(set(seen.certificates)) >= 4,
        )
    finally:
        stop.set()
        watcher.join(30)
    assert seen.lost == []
    # Envoy's connection to the check door outlives the certificates of both.
    assert edge.stat("cluster.signalwarden.upstream_cx_total") == connections
