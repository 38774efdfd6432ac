"""The running app with mutual TLS at its check and admin doors, and the real Envoy as the client of the one."""

from __future__ import annotations

import base64
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from signalwarden import server
from signalwarden.app import App
from signalwarden.cli import _run
from signalwarden.demo_stage import Authority, Credential
from signalwarden.front import REFUSED
from signalwarden.server import CHECK_METHOD
from tests.asking import check_request
from tests.conftest import MINIMAL, Eventually
from tests.e2e.conftest import RunningEnvoy, Stage
from tests.serving import running

TIMEOUT_S = 15.0
ENVOY = "spiffe://prod.example/ns/edge/sa/envoy"
OPERATOR = "spiffe://prod.example/operator"
WARDEN = "spiffe://prod.example/signalwarden"
ROTATIONS = 40

SETTINGS = """\
trust_domain: prod.example
federates_with: [partner.example]
listen: {{check: "127.0.0.1:{port}", admin: "127.0.0.1:0"}}
tls:
  cert: tls/cert.pem
  key: tls/key.pem
  client_ca: tls/ca.pem
  doors: [check, admin]
  check_clients: ["{envoy}"]
bundles:
  partner.example: {{file: partner.json}}
clients:
  - {{id: "{operator}", may: [operate]}}
watch: false
"""


def put(credential: Credential, folder: Path) -> None:
    """Ours, each file by a rename."""
    for source, name in ((credential.certificate, "cert.pem"), (credential.key, "key.pem")):
        (folder / "next").write_bytes(source.read_bytes())
        (folder / "next").replace(folder / name)


def bundle_of(authority: Authority) -> str:
    [certificate] = x509.load_pem_x509_certificates(authority.bundle.read_bytes())
    der = base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()
    return json.dumps({"keys": [{"use": "x509-svid", "kty": "EC", "x5c": [der]}], "spiffe_sequence": 1})


@dataclass
class Place:
    """A directory, and who vouches for whom."""

    root: Path
    authority: Authority
    partner: Authority

    def ours(self) -> Credential:
        return self.authority.issue(WARDEN, dns=("localhost",))

    def ask(self, app: App, credential: Credential | None, *, secure: bool = True) -> grpc.StatusCode | bytes:
        """The answer to a check, or how it was refused."""
        with self.channel(app, credential, secure=secure) as channel:
            call = channel.unary_unary(CHECK_METHOD, request_serializer=bytes, response_deserializer=bytes)
            try:
                return bytes(call(bytes(check_request()), timeout=TIMEOUT_S))
            except grpc.RpcError as error:
                code: grpc.StatusCode = error.code()
                told = error.details()
        assert code is not grpc.StatusCode.PERMISSION_DENIED or told == REFUSED
        return code

    def channel(self, app: App, credential: Credential | None, *, secure: bool = True) -> grpc.Channel:
        port = app.check_address.rpartition(":")[2]
        trust = self.authority.bundle.read_bytes()
        pair = (credential.key.read_bytes(), credential.certificate.read_bytes()) if credential else ()
        options = [("grpc.use_local_subchannel_pool", 1)]
        if not secure:
            return grpc.insecure_channel(f"localhost:{port}", options)
        return grpc.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials(trust, *pair), options)

    def records(self, kind: str) -> list[dict[str, Any]]:
        path = self.root / "var" / "decisions.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [record for record in map(json.loads, lines) if record["kind"] == kind]


@pytest.fixture
def place(stage: Stage, tmp_path: Path) -> Place:
    root = tmp_path / "conf"
    texts = {**MINIMAL, "signalwarden.yaml": SETTINGS.format(port=0, envoy=ENVOY, operator=OPERATOR)}
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    made = Place(root, stage.authority, Authority(tmp_path / "partner", "partner.example"))
    (root / "tls").mkdir()
    put(made.ours(), root / "tls")
    (root / "tls" / "ca.pem").write_bytes(stage.authority.bundle.read_bytes())
    (root / "partner.json").write_text(bundle_of(made.partner))
    return made


@pytest.mark.usefixtures("front")
def test_only_the_listed_envoy_may_ask_and_others_are_on_record(place: Place, eventually: Eventually) -> None:
    other = "spiffe://prod.example/other"
    with running(place.root) as app:
        assert isinstance(place.ask(app, place.authority.issue(ENVOY)), bytes)
        assert place.ask(app, place.authority.issue(other)) is grpc.StatusCode.PERMISSION_DENIED
        # The partner's authority gets through the handshake, and speaks for nobody of ours.
        assert place.ask(app, place.partner.issue(ENVOY)) is grpc.StatusCode.PERMISSION_DENIED
        stranger = Authority(place.root.parent / "stranger", "prod.example")
        assert place.ask(app, stranger.issue(ENVOY)) is grpc.StatusCode.UNAVAILABLE
        assert place.ask(app, None) is grpc.StatusCode.UNAVAILABLE
        assert place.ask(app, None, secure=False) is grpc.StatusCode.UNAVAILABLE
        eventually(lambda: place.records("transport"), 15)
        assert 'transport_refused_total{event="refused_client"} 2.0' in app.metrics_text()[0].decode()
    [record] = place.records("transport")
    assert (record["transport"], record["count"]) == ("refused_client", 2)
    assert record["client"] is None
    assert "partner.example" not in record["detail"]
    assert len(place.records("decision")) == 1


@pytest.fixture
def quickly_aged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections come again after a tenth of a second, so that each rotation meets handshakes."""
    aged = (server.TLS_OPTIONS[0], ("grpc.max_connection_age_ms", 100), server.TLS_OPTIONS[2])
    monkeypatch.setattr(server, "TLS_OPTIONS", aged)


@pytest.fixture
def asked_by_envoy(
    place: Place, quickly_aged: None, run_envoy: Callable[..., RunningEnvoy]
) -> Iterator[tuple[App, RunningEnvoy]]:
    with running(place.root) as app:
        settings = place.root / "signalwarden.yaml"
        port = app.check_address.rpartition(":")[2]
        settings.write_text(settings.read_text().replace("127.0.0.1:0", f"127.0.0.1:{port}", 1))
        trust = place.authority.bundle.parent / "partner.example.pem"
        trust.write_bytes(place.partner.bundle.read_bytes())
        yield app, run_envoy(place.root)


def test_the_real_envoy_asks_over_mutual_tls_and_rotation_loses_no_request(
    front: str, place: Place, asked_by_envoy: tuple[App, RunningEnvoy]
) -> None:
    _, envoy = asked_by_envoy
    ended = threading.Event()

    def calling() -> list[int]:
        statuses: list[int] = []
        with envoy.client(envoy.stage.agent, headers={"host": "pages.example"}) as client:
            while not ended.is_set():
                statuses.append(client.get("/home").status_code)
        return statuses

    with ThreadPoolExecutor(2) as pool:
        load = [pool.submit(calling) for _ in range(2)]
        for _ in range(ROTATIONS):
            put(place.ours(), place.root / "tls")
            ended.wait(0.05)
        ended.set()
        statuses = [status for each in load for status in each.result(60)]
    assert len(statuses) > ROTATIONS
    assert set(statuses) == {200}
    # The native front looks at its certificate once a second, and lets a connection live for a minute.
    assert envoy.stat("cluster.signalwarden.ssl.handshake") > (5 if front == "grpcio" else 0)
    assert envoy.stat("cluster.signalwarden.ssl.connection_error") == 0
    assert envoy.stat("http.guarded.ext_authz.error") == 0


def serial_shown(app: App, place: Place) -> int:
    """The number of the certificate that the check door shows to a new connection."""
    context = place.authority.trust(place.authority.issue(ENVOY))
    context.set_alpn_protocols(["h2"])
    address = ("127.0.0.1", int(app.check_address.rpartition(":")[2]))
    with (
        socket.create_connection(address, TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        shown = secured.getpeercert(binary_form=True)
    assert shown is not None
    return x509.load_der_x509_certificate(shown).serial_number


@pytest.mark.usefixtures("front")
def test_the_next_connection_is_shown_the_newest_certificate(place: Place, eventually: Eventually) -> None:
    with running(place.root) as app:
        before = serial_shown(app, place)
        newest = place.ours()
        put(newest, place.root / "tls")
        wanted = x509.load_pem_x509_certificate(newest.certificate.read_bytes()).serial_number
        assert wanted != before
        eventually(lambda: serial_shown(app, place) == wanted, 5.0)
        assert isinstance(place.ask(app, place.authority.issue(ENVOY)), bytes)


@pytest.mark.usefixtures("front")
def test_a_client_that_a_reload_takes_off_the_list_is_refused_at_its_next_call(place: Place) -> None:
    envoy = place.authority.issue(ENVOY)
    with running(place.root) as app, place.channel(app, envoy) as channel:
        call = channel.unary_unary(CHECK_METHOD, request_serializer=bytes, response_deserializer=bytes)
        assert call(bytes(check_request()), timeout=TIMEOUT_S)
        settings = place.root / "signalwarden.yaml"
        settings.write_text(settings.read_text().replace(ENVOY, "spiffe://prod.example/ns/edge/sa/other"))
        app.reload("test")
        with pytest.raises(grpc.RpcError, match="PERMISSION_DENIED"):
            call(bytes(check_request()), timeout=TIMEOUT_S)


@pytest.mark.usefixtures("front")
def test_a_client_that_is_revoked_is_refused_at_its_next_call(place: Place) -> None:
    envoy = place.authority.issue(ENVOY)
    with running(place.root) as app, place.channel(app, envoy) as channel:
        call = channel.unary_unary(CHECK_METHOD, request_serializer=bytes, response_deserializer=bytes)
        assert call(bytes(check_request()), timeout=TIMEOUT_S)
        app.revoke(OPERATOR, json.dumps({"subject": ENVOY, "reason": "stolen"}).encode())
        with pytest.raises(grpc.RpcError, match="PERMISSION_DENIED"):
            call(bytes(check_request()), timeout=TIMEOUT_S)


def test_envoy_asks_no_decision_point_of_another_name(
    place: Place, run_envoy: Callable[..., RunningEnvoy]
) -> None:
    with running(place.root) as app:
        settings = place.root / "signalwarden.yaml"
        port = app.check_address.rpartition(":")[2]
        settings.write_text(settings.read_text().replace("127.0.0.1:0", f"127.0.0.1:{port}", 1))
        (place.authority.bundle.parent / "partner.example.pem").write_bytes(place.partner.bundle.read_bytes())
        envoy = run_envoy(place.root, server_id="spiffe://prod.example/another")
        with envoy.client(envoy.stage.agent, headers={"host": "pages.example"}) as client:
            assert client.get("/home").status_code == 503
        assert envoy.stat("cluster.signalwarden.ssl.fail_verify_san") > 0
    assert place.records("decision") == []


@pytest.mark.usefixtures("front")
def test_an_envoy_that_is_not_listed_lets_nobody_through(
    place: Place, run_envoy: Callable[..., RunningEnvoy]
) -> None:
    settings = place.root / "signalwarden.yaml"
    settings.write_text(settings.read_text().replace(ENVOY, "spiffe://prod.example/ns/edge/sa/other"))
    with running(place.root) as app:
        port = app.check_address.rpartition(":")[2]
        settings.write_text(settings.read_text().replace("127.0.0.1:0", f"127.0.0.1:{port}", 1))
        (place.authority.bundle.parent / "partner.example.pem").write_bytes(place.partner.bundle.read_bytes())
        envoy = run_envoy(place.root)
        with envoy.client(envoy.stage.agent, headers={"host": "pages.example"}) as client:
            assert client.get("/home").status_code == 503
        last = app._up().front.counts.refusals
        assert last is not None
        assert last.client == ENVOY
    assert place.records("decision") == []


def test_a_client_of_the_admin_api_comes_with_its_certificate(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(place.root) as app:
        port = app.admin_address.rpartition(":")[2]

        def call(
            credential: Credential | None, method: str = "POST", path: str = "/v1/reload"
        ) -> httpx.Response:
            with httpx.Client(verify=place.authority.trust(credential), trust_env=False) as client:
                return client.request(method, f"https://localhost:{port}{path}", timeout=TIMEOUT_S)

        assert call(None, "GET", "/readyz").status_code == 200
        assert call(place.authority.issue(OPERATOR)).status_code == 200
        for bad in (place.authority.issue("spiffe://prod.example/other"), place.partner.issue(OPERATOR)):
            assert call(bad).json()["reason"] == "certificate_refused"
        assert call(None).json()["reason"] == "token_missing"
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://localhost:{port}/healthz", trust_env=False)

        # The command line, on the directory as the server has it.
        settings = place.root / "signalwarden.yaml"
        text = settings.read_text().replace('admin: "127.0.0.1:0"', f'admin: "127.0.0.1:{port}"')
        settings.write_text(text)
        for name in [name for name in os.environ if name.startswith("SIGNALWARDEN_")]:
            monkeypatch.delenv(name)
        monkeypatch.setattr(os, "environ", dict(os.environ))
        verb = ["signals", "streams", "--config", str(place.root), "--json"]
        assert _run(verb) == 2
        assert "--tls-ca FILE before the verb" in capsys.readouterr().err
        who = place.authority.issue(OPERATOR)
        files = ["--tls-ca", str(place.authority.bundle), "--tls-cert", str(who.certificate), "--tls-key"]
        assert _run([*files, str(who.key), "--tls-id", WARDEN, *verb]) == 0
        assert json.loads(capsys.readouterr().out) is not None
        assert _run([*files, str(who.key), "--tls-id", "spiffe://prod.example/other", *verb]) == 2
        assert "it is not `spiffe://prod.example/other`" in capsys.readouterr().err
    refused = [record for record in place.records("change") if record.get("change") == "client_refused"]
    assert {record["client"] for record in refused} >= {"spiffe://prod.example/other"}
    loads = [record for record in place.records("change") if record.get("actor") == OPERATOR]
    assert loads
