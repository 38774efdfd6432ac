"""The admin API over TLS: clients with and without a certificate, rotation, and nothing that outlives its handshake."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from signalwarden import doors
from signalwarden.admin import build
from signalwarden.admin_client import AdminClient, ClientTls
from signalwarden.config import Address
from signalwarden.demo_stage import Credential
from signalwarden.doors import HttpDoor
from signalwarden.errors import ServerError
from signalwarden.mtls import Certificates, Spire
from tests.conftest import Eventually
from tests.fake_services import SECRET, FakeServices
from tests.trust import WARDEN, Domains

TIMEOUT_S = 10.0
WHO = "spiffe://prod.example/operator"


class Stage:
    """A door, and who calls at it."""

    def __init__(self, folder: Path) -> None:
        self.services = FakeServices()
        self.domains = Domains(folder)
        certificates = Certificates(Spire(self.domains.svids, self.domains.bundles), "admin")
        self.door = HttpDoor(build(self.services), Address("127.0.0.1", 0), certificates)

    def trust(self, credential: Credential | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.domains.bundles.roots_pem().decode())
        if credential is not None:
            context.load_cert_chain(credential.certificate, credential.key)
        return context

    def client(self, credential: Credential | None = None, host: str = "localhost") -> httpx.Client:
        context = self.trust(credential)
        context.check_hostname = host == "localhost"
        url = f"https://{host}:{self.door.address.port}"
        return httpx.Client(base_url=url, verify=context, timeout=TIMEOUT_S, trust_env=False)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    made.door.start()
    yield made
    made.door.stop(5)


def test_a_client_comes_with_its_certificate_or_a_token(stage: Stage) -> None:
    credential = stage.domains.prod.issue(WHO)
    with stage.client(credential) as client:
        assert client.get("/v1/signals").status_code == 200
        assert client.get("/v1/signals").status_code == 200
    first, second = stage.services.chains
    assert first == second
    assert first.startswith(credential.certificate.read_bytes())
    with stage.client() as client:
        assert client.get("/v1/signals").json()["reason"] == "token_missing"
        headers = {"authorization": f"Bearer {SECRET}"}
        assert client.get("/v1/signals", headers=headers).status_code == 200
        assert client.get("/healthz").status_code == 200
    assert stage.services.chains[2:] == [b""]


def test_a_client_that_names_no_server_gets_the_newest_certificate_too(stage: Stage) -> None:
    for _ in range(3):
        stage.domains.svids.rotate()
        context = stage.trust()
        context.check_hostname = False
        with (
            socket.create_connection(("127.0.0.1", stage.door.address.port), TIMEOUT_S) as plain,
            context.wrap_socket(plain) as secured,
        ):
            shown = ssl.DER_cert_to_PEM_cert(secured.getpeercert(binary_form=True) or b"")
            svid = stage.domains.svids.current()
            assert svid is not None
            assert shown.encode() == svid.cert_chain_pem
            assert secured.version() == "TLSv1.3"


def test_strangers_and_plain_text_get_no_answer(stage: Stage, tmp_path: Path) -> None:
    stranger = Domains(tmp_path / "elsewhere").prod.issue(WHO)
    with stage.client(stranger) as client, pytest.raises(httpx.TransportError):
        client.get("/healthz")
    with (
        pytest.raises(httpx.TransportError),
        httpx.Client(base_url=f"http://{stage.door.address}", trust_env=False) as plain,
    ):
        plain.get("/healthz")
    old = stage.trust()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        pytest.raises(httpx.TransportError),
        httpx.Client(base_url=f"https://localhost:{stage.door.address.port}", verify=old) as client,
    ):
        client.get("/healthz")
    assert stage.services.chains == []


def test_nothing_is_resumed(stage: Stage) -> None:
    context = stage.trust(stage.domains.prod.issue(WHO))
    sessions: list[ssl.SSLSession | None] = []
    for _ in range(2):
        with socket.create_connection(("127.0.0.1", stage.door.address.port), TIMEOUT_S) as plain:
            session = sessions[-1] if sessions else None
            with context.wrap_socket(plain, server_hostname="localhost", session=session) as secured:
                secured.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
                assert secured.recv(100).startswith(b"HTTP/1.1 200")
                assert not secured.session_reused
                assert secured.session is None or not secured.session.has_ticket
                sessions.append(secured.session)


def test_rotation_under_load_loses_no_request(stage: Stage) -> None:
    """Our SVID fifty times, its authority included: kept connections go on, new ones get the newest."""
    successor = Domains(stage.domains.prod.bundle.parent / "successor").prod
    stage.domains.bundles.put("prod.example", stage.domains.prod, successor)
    credential = stage.domains.prod.issue(WHO)
    ended = threading.Event()

    def steady() -> int:
        calls = 0
        with stage.client(credential) as client:
            while not ended.is_set():
                assert client.get("/v1/signals").status_code == 200
                calls += 1
        return calls

    def coming() -> int:
        calls = 0
        while not ended.is_set():
            with stage.client(credential) as client:
                assert client.get("/v1/signals").status_code == 200
            calls += 1
        return calls

    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(steady), pool.submit(coming)]
        for turn in range(50):
            stage.domains.svids.rotate((stage.domains.prod, successor)[turn % 2])
            ended.wait(0.02)
        ended.set()
        assert all(each.result(30) > 5 for each in running)


def test_a_handshake_that_does_not_get_on_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "HANDSHAKE_S", 0.2)
    stage = Stage(tmp_path)
    stage.door.start()
    try:
        with socket.create_connection(("127.0.0.1", stage.door.address.port), TIMEOUT_S) as silent:
            silent.settimeout(TIMEOUT_S)
            assert silent.recv(1) == b""
    finally:
        stage.door.stop(5)


def ended(connection: socket.socket) -> bool:
    connection.settimeout(TIMEOUT_S)
    try:
        return connection.recv(1) == b""
    except OSError:
        return True


def test_handshakes_at_once_are_bounded_and_leave_room_when_they_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr(doors, "MAX_OPENING", 3)
    stage = Stage(tmp_path)
    stage.door.start()
    here = ("127.0.0.1", stage.door.address.port)
    try:
        silent = [socket.create_connection(here, TIMEOUT_S) for _ in range(3)]
        with socket.create_connection(here, TIMEOUT_S) as late:
            assert ended(late)
        for each in silent:
            each.close()

        def answered() -> bool:
            try:
                with stage.client() as client:
                    return client.get("/healthz").status_code == 200
            except httpx.TransportError:
                return False

        eventually(answered)
        with stage.client() as one, stage.client() as two, stage.client() as three, stage.client() as four:
            for client in (one, two, three, four):  # those that are through are not counted
                assert client.get("/healthz").status_code == 200
    finally:
        stage.door.stop(5)


def test_connections_are_bounded_and_silent_ones_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "MAX_CONNECTIONS", 2)
    monkeypatch.setattr(doors, "SILENCE_S", 0.5)
    stage = Stage(tmp_path)
    stage.door.start()

    def opened() -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", stage.door.address.port), TIMEOUT_S)
        return stage.trust().wrap_socket(plain, server_hostname="localhost")

    try:
        with opened() as silent, opened() as slow:
            slow.sendall(b"GET /healthz HTTP/1.1\r\n")
            with opened() as late:
                assert ended(late)
            assert ended(silent)
            assert ended(slow)
        with stage.client() as client:
            for _ in range(8):
                assert client.get("/healthz").status_code == 200
                threading.Event().wait(0.1)
    finally:
        stage.door.stop(5)


def test_a_door_without_tls_opens_on_this_machine_alone() -> None:
    with pytest.raises(ServerError, match="it needs TLS"):
        HttpDoor(build(FakeServices()), Address("0.0.0.0", 0))


def test_a_client_told_to_go_comes_again(stage: Stage) -> None:
    stage.services.knows_certificates = False
    context = stage.trust(stage.domains.prod.issue(WHO))
    connection = http.client.HTTPSConnection(
        "localhost", stage.door.address.port, context=context, timeout=TIMEOUT_S
    )
    connection.request("GET", "/v1/signals")
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("connection")) == (401, "close")
    connection.close()


# ---- the client of the command line -------------------------------------------------------------------------


def tls_of(
    stage: Stage, tmp_path: Path, *, who: str | None = None, server_id: str | None = WARDEN
) -> ClientTls:
    roots = tmp_path / "roots.pem"
    roots.write_bytes(stage.domains.bundles.roots_pem())
    credential = stage.domains.prod.issue(who) if who is not None else None
    return ClientTls(roots, (credential.certificate, credential.key) if credential else None, server_id)


def test_the_client_calls_with_a_certificate_in_place_of_a_token(stage: Stage, tmp_path: Path) -> None:
    with AdminClient(stage.door.address, None, tls_of(stage, tmp_path, who=WHO)) as client:
        assert client.signals(None, 1)["signals"] == []
    with AdminClient(stage.door.address, SECRET, tls_of(stage, tmp_path)) as client:
        assert client.signals(None, 1)["signals"] == []
    assert [bool(chain) for chain in stage.services.chains] == [True, False]


def test_the_client_tells_no_token_to_a_server_that_is_another(stage: Stage, tmp_path: Path) -> None:
    other = "spiffe://prod.example/other"
    with (
        AdminClient(stage.door.address, SECRET, tls_of(stage, tmp_path, server_id=other)) as client,
        pytest.raises(ServerError, match=f"its certificate does not count, it is not `{other}`"),
    ):
        client.signals(None, 1)
    with (
        AdminClient(stage.door.address, SECRET, tls_of(stage, tmp_path, server_id=None)) as client,
        pytest.raises(ServerError, match=r"its certificate does not count, IP address mismatch"),
    ):
        client.signals(None, 1)  # its certificate names `localhost`, not the address
    named = Address("localhost", stage.door.address.port)
    with AdminClient(named, SECRET, tls_of(stage, tmp_path, server_id=None)) as client:
        client.signals(None, 1)
    strange = Domains(tmp_path / "elsewhere").prod.bundle
    with (
        AdminClient(stage.door.address, SECRET, ClientTls(strange, None, WARDEN)) as client,
        pytest.raises(ServerError, match="its certificate does not count"),
    ):
        client.signals(None, 1)
    assert len(stage.services.chains) == 1


def test_files_of_the_client_that_are_no_good_are_one_sentence(tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("no certificate")
    good = Domains(tmp_path / "good").prod
    for tls in (ClientTls(bad), ClientTls(tmp_path / "gone"), ClientTls(good.bundle, (bad, bad))):
        with pytest.raises(ServerError, match="in PEM"):
            AdminClient(Address("127.0.0.1", 1), SECRET, tls)
