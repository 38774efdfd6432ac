"""Where trust bundles come from: files and real HTTPS endpoints; what withdraws them, and how long the last good goes on."""

from __future__ import annotations

import base64
import functools
import http.server
import json
import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from signalwarden.bundles import Bundles
from signalwarden.bundles import endpoints as endpoints_module
from signalwarden.bundles import files as files_module
from signalwarden.bundles.bundle import Bundle
from signalwarden.bundles.endpoints import EndpointSource, Profile, SpiffeProfile, WebProfile
from signalwarden.bundles.files import FileSource
from signalwarden.identity_settings import BundleSettings
from signalwarden.settings import Settings
from tests.authorities import Authority, Issued, document, jwk
from tests.workload_endpoint import serving as workload_api

WAIT_S = 10.0
STILL_S = 0.4
REFRESH_S = 0.05
OWN, PARTNER = "prod.example", "partner.example"
ROOT, OTHER = Authority("root"), Authority("partner root")
SERVER_ID = "spiffe://partner.example/spire/server"


def until(true: Callable[[], Any]) -> None:
    end = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def until_error(source: EndpointSource, why: str) -> None:
    until(lambda: why in source.detail().get("error", ""))


def failed_since(source: EndpointSource, failures: int) -> bool:
    return source.failures > failures + 1


class Told:
    """What a source told."""

    def __init__(self) -> None:
        self.calls: list[Bundle | None] = []

    def __call__(self, domain: str, bundle: Bundle | None) -> None:
        self.calls.append(bundle)

    @property
    def live(self) -> Bundle | None:
        return self.calls[-1] if self.calls else None


@pytest.fixture
def told() -> Told:
    return Told()


def replaced(path: Path, content: bytes) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.replace(path)


# ---- files ------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path, told: Told) -> Iterator[Path]:
    path = tmp_path / "prod.json"
    path.write_bytes(document(ROOT))
    source = FileSource(OWN, path, told, refresh_s=REFRESH_S)
    source.start()
    yield path
    source.stop()
    source.stop()


def test_a_file_is_live_when_the_start_returns_and_read_anew_when_it_changes(file: Path, told: Told) -> None:
    assert told.live is not None
    replaced(file, document(ROOT, OTHER))
    until(lambda: len(told.live.x509) == 2)  # type: ignore[union-attr]
    time.sleep(STILL_S)
    assert len(told.calls) == 2


def test_a_file_that_is_gone_empty_or_without_authorities_withdraws_its_bundle(
    file: Path, told: Told
) -> None:
    for content in (None, b" \n", b'{"keys": []}'):
        if content is None:
            file.unlink()
        else:
            replaced(file, content)
        until(lambda: told.live is None)
        replaced(file, document(ROOT))
        until(lambda: told.live is not None)


def test_a_file_that_is_written_in_place_withdraws_nothing(
    file: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_bytes(b"")
    time.sleep(2 * REFRESH_S / 3)
    file.write_bytes(document(ROOT, OTHER))
    until(lambda: told.live is not None and len(told.live.x509) == 2)


def test_a_broken_file_keeps_the_last_good_for_a_while_and_is_said_once(
    file: Path, told: Told, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "signalwarden"):
        replaced(file, b"{")
        time.sleep(STILL_S)
    assert told.live is not None
    assert [record.message for record in caplog.records] == [
        f"the bundle of `{OWN}` can't be had, the last good one goes on: `{file}`: the bundle is not JSON"
    ]
    monkeypatch.setattr(files_module, "BROKEN_LIFE_S", 0.1)
    until(lambda: told.live is None)
    replaced(file, document(ROOT))
    until(lambda: told.live is not None)


def test_what_is_no_regular_file_is_broken(tmp_path: Path, told: Told) -> None:
    source = FileSource(OWN, tmp_path, told, refresh_s=REFRESH_S)
    source.start()
    assert "regular" in source.detail()["error"]
    assert source.detail()["live"] is False
    source.stop()
    assert not told.calls


def test_a_hint_makes_looks_more_frequent_and_never_less(tmp_path: Path, told: Told) -> None:
    path = tmp_path / "b.json"
    for hint, refresh, pause in ((3, 10.0, 3.0), (300, 10.0, 10.0), (0, 10.0, 1.0)):
        path.write_bytes(document(ROOT, spiffe_refresh_hint=hint))
        source = FileSource(OWN, path, told, refresh_s=refresh)
        assert source._look() == pause


# ---- endpoints --------------------------------------------------------------------------------------------


@dataclass
class Server:
    """A real HTTPS server that offers one document."""

    url: str = ""
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    asked: int = 0
    connected: int = 0
    """Connections, whatever came of them."""


@contextmanager
def https(folder: Path, issued: Issued, body: bytes = b"") -> Iterator[Server]:
    pem = folder / f"{threading.get_ident()}-{time.monotonic_ns()}.pem"
    pem.write_bytes(issued.chain_pem + issued.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    state = Server(body=body)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked += 1
            self.send_response(state.status)
            for name, value in state.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(state.body)))
            self.end_headers()
            self.wfile.write(state.body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    class Listener(http.server.ThreadingHTTPServer):
        def get_request(self) -> Any:
            state.connected += 1
            opened, address = super().get_request()
            return context.wrap_socket(opened, server_side=True, do_handshake_on_connect=False), address

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass

    server = Listener(("127.0.0.1", 0), Handler)
    state.url = f"https://localhost:{server.server_address[1]}/bundle"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints_module, "RETRY_S", REFRESH_S)


@contextmanager
def fetching(url: str, profile: Profile, told: Told, domain: str = PARTNER) -> Iterator[EndpointSource]:
    source = EndpointSource(domain, url, profile, told, refresh_s=REFRESH_S)
    source.start()
    try:
        yield source
    finally:
        source.stop()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[Server, WebProfile]]:
    ca = Authority("web")
    path = tmp_path / "ca.pem"
    path.write_bytes(ca.cert.public_bytes(Encoding.PEM))
    with https(tmp_path, ca.issue(dns=["localhost"]), document(OTHER, spiffe_sequence=5)) as server:
        yield server, WebProfile(path)


def test_a_bundle_comes_from_a_server_known_by_its_name(web: tuple[Server, WebProfile], told: Told) -> None:
    server, profile = web
    with fetching(server.url, profile, told) as source:
        until(lambda: told.live)
        assert source.detail()["sequence"] == 5
        server.body = document(OTHER, ROOT, spiffe_sequence=6)
        until(lambda: len(told.live.x509) == 2)  # type: ignore[union-attr]
        server.body = b'{"keys": [], "spiffe_sequence": 7}'
        until(lambda: told.live is None)


def test_a_smaller_sequence_is_refused_and_said(
    web: tuple[Server, WebProfile], told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    server, profile = web
    with caplog.at_level(logging.ERROR, "signalwarden"), fetching(server.url, profile, told) as source:
        until(lambda: told.live)
        server.body = document(ROOT, spiffe_sequence=4)
        until_error(source, "sequence 4, older than 5")
        time.sleep(STILL_S)
        assert told.live is not None
        assert told.live.x509 == (OTHER.cert,)
        assert sum("older" in record.message for record in caplog.records) == 1
        server.body = document(ROOT, spiffe_sequence=5)
        until(lambda: told.live.x509 == (ROOT.cert,))  # type: ignore[union-attr]


def test_what_fails_keeps_the_last_good_for_a_bounded_life(
    web: tuple[Server, WebProfile], told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, profile = web
    with fetching(server.url, profile, told) as source:
        until(lambda: told.live)
        for body, status, headers in (
            (b"{", 200, {}),
            (b"x" * 600_000, 200, {}),
            (document(OTHER), 404, {}),
            (document(OTHER), 302, {"Location": server.url}),
        ):
            failures = source.failures
            server.body, server.status, server.headers = body, status, headers
            until(functools.partial(failed_since, source, failures))
            assert told.live is not None
        monkeypatch.setattr(endpoints_module, "MIN_LIFE_S", 0.1)
        until(lambda: told.live is None)
        server.body, server.status, server.headers = document(OTHER), 200, {}
        until(lambda: told.live is not None)


def test_a_server_of_another_name_or_authority_brings_nothing(
    web: tuple[Server, WebProfile], told: Told, tmp_path: Path
) -> None:
    server, profile = web
    foreign = tmp_path / "foreign.pem"
    foreign.write_bytes(ROOT.cert.public_bytes(Encoding.PEM))
    wrong_name = server.url.replace("localhost", "127.0.0.1")
    for url, of in ((wrong_name, profile), (server.url, WebProfile(foreign)), (server.url, WebProfile())):
        with fetching(url, of, told) as source:
            until_error(source, "certificate")
    assert not told.calls
    assert server.asked == 0


def test_an_endpoint_without_tls_is_not_asked(told: Told) -> None:
    with fetching("http://localhost:9/bundle", WebProfile(), told) as source:
        until_error(source, "https://")


# ---- https_spiffe -----------------------------------------------------------------------------------------


@pytest.fixture
def spiffe(tmp_path: Path) -> SpiffeProfile:
    path = tmp_path / "bootstrap.json"
    path.write_bytes(document(OTHER))
    return SpiffeProfile(SERVER_ID, path)


def test_a_server_is_known_by_its_spiffe_id_alone(tmp_path: Path, told: Told, spiffe: SpiffeProfile) -> None:
    below = Authority("below", OTHER)
    for issued in (OTHER.issue(SERVER_ID), below.issue(SERVER_ID)):
        with https(tmp_path, issued, document(OTHER)) as server, fetching(server.url, spiffe, told):
            until(lambda: told.live)
        told.calls.clear()


def test_an_authority_that_is_no_root_ends_the_chain(tmp_path: Path, told: Told) -> None:
    below = Authority("below", OTHER)
    path = tmp_path / "b.json"
    path.write_bytes(document(below))
    profile = SpiffeProfile(SERVER_ID, path)
    with (
        https(tmp_path, below.issue(SERVER_ID), document(below)) as server,
        fetching(server.url, profile, told),
    ):
        until(lambda: told.live)


def test_nothing_is_sent_to_a_server_that_is_another_one(
    tmp_path: Path, told: Told, spiffe: SpiffeProfile
) -> None:
    for issued, why in (
        (OTHER.issue("spiffe://partner.example/another"), "expected `spiffe://partner.example/spire/server`"),
        (OTHER.issue(SERVER_ID, "spiffe://partner.example/b"), "found 2"),
        (OTHER.issue(dns=["localhost"]), "found 0"),
        (ROOT.issue(SERVER_ID), "certificate"),
    ):
        with https(tmp_path, issued, document(OTHER)) as server:
            with fetching(server.url, spiffe, told) as source:
                until_error(source, why)
            assert server.connected > 0
            assert server.asked == 0
    assert not told.calls


def test_the_newest_bundle_authenticates_the_next_fetch(
    tmp_path: Path, told: Told, spiffe: SpiffeProfile
) -> None:
    """The authority is rotated: announced under the old one, then it alone signs, and the bootstrap file is stale."""
    new = Authority("next root")
    with https(tmp_path, OTHER.issue(SERVER_ID), document(OTHER, new)) as before:
        source = EndpointSource(PARTNER, before.url, spiffe, told, refresh_s=REFRESH_S)
        source._look()
    with https(tmp_path, new.issue(SERVER_ID), document(new)) as after:
        source._url = after.url
        source._look()
        assert told.live is not None
        assert told.live.x509 == (new.cert,)
    with https(tmp_path, OTHER.issue(SERVER_ID), document(OTHER)) as old:
        source._url = old.url
        source._look()
        assert old.asked == 0, "what the bootstrap file vouches for counts no more"


def test_a_bootstrap_file_that_is_of_no_use_is_said(tmp_path: Path, told: Told) -> None:
    path = tmp_path / "b.json"
    for content, why in ((None, "can't be read"), (b"{", "not JSON"), (document(keys=[jwk("a")]), "vouch")):
        if content is not None:
            path.write_bytes(content)
        with fetching("https://localhost:9/", SpiffeProfile(SERVER_ID, path), told) as source:
            until_error(source, why)


def test_refreshes_are_the_sooner_of_hint_and_wish_within_bounds(
    tmp_path: Path, told: Told, spiffe: SpiffeProfile
) -> None:
    for hint, wish, refresh in (
        (None, None, 300.0),
        (60, None, 60.0),
        (0, None, 10.0),
        (10**6, None, 3_600.0),
        (60, 5.0, 5.0),
        (60, 600.0, 60.0),
        (None, 7_200.0, 3_600.0),
    ):
        source = EndpointSource(PARTNER, "https://localhost/", spiffe, told, refresh_s=wish)
        source._held.good(Bundle.of(PARTNER, [OTHER.cert], refresh_s=hint))
        assert source._refresh() == refresh
        assert 3_600.0 <= source._life() <= 24 * 3_600.0


# ---- all of them together ---------------------------------------------------------------------------------


def settings(**more: Any) -> Settings:
    bundles = {name: BundleSettings.model_validate(entry) for name, entry in more.pop("bundles", {}).items()}
    return Settings(trust_domain=OWN, federates_with=(PARTNER,), bundles=bundles, **more)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "own.json").write_bytes(document(ROOT, keys=[jwk("a")]))
    (tmp_path / "partner.json").write_bytes(document(OTHER))
    return tmp_path


FILES = {OWN: {"file": "own.json", "refresh": "1s"}, PARTNER: {"file": "partner.json", "refresh": "1s"}}


@contextmanager
def running(directory: Path, of: Settings) -> Iterator[Bundles]:
    bundles = Bundles(directory, of)
    bundles.start()
    try:
        yield bundles
    finally:
        bundles.stop()
        bundles.stop()


def test_bundles_of_files_are_live_after_the_start_and_listeners_hear_of_them(directory: Path) -> None:
    with running(directory, settings(bundles=FILES)) as bundles:
        heard: list[tuple[str, bool]] = []
        bundles.on_change(lambda domain, bundle: heard.append((domain, bundle is not None)))
        assert sorted(heard) == [(PARTNER, True), (OWN, True)]
        assert bundles.missing() == ()
        assert bundles.wait(0)
        assert bundles.roots_pem().count(b"BEGIN CERTIFICATE") == 2
        assert bundles.detail()["trust_domains"][OWN]["jwt_authorities"] == 1
        (directory / "partner.json").unlink()
        until(lambda: heard[-1] == (PARTNER, False))
        assert bundles.get(PARTNER) is None
        assert bundles.missing() == (PARTNER,)
        assert not bundles.wait(0.05)
        assert bundles.roots_pem().count(b"BEGIN CERTIFICATE") == 1
        counts = bundles.counts()
        assert (counts["bundle_updates"], counts["bundle_withdrawals"]) == (2, 1)


def test_a_listener_that_fails_keeps_nobody_else_from_hearing(directory: Path) -> None:
    def fails(domain: str, bundle: Bundle | None) -> None:
        raise RuntimeError("no")

    with running(directory, settings(bundles=FILES)) as bundles:
        heard: list[str] = []
        bundles.on_change(fails)
        bundles.on_change(lambda domain, bundle: heard.append(domain))
        (directory / "partner.json").unlink()
        until(lambda: heard.count(PARTNER) == 2)


def test_an_entry_that_the_settings_drop_is_withdrawn_at_once_and_others_go_on(directory: Path) -> None:
    with running(directory, settings(bundles=FILES)) as bundles:
        own = bundles.get(OWN)
        heard: list[tuple[str, bool]] = []
        bundles.on_change(lambda domain, bundle: heard.append((domain, bundle is not None)))
        heard.clear()
        bundles.adopt(settings(bundles={OWN: FILES[OWN]}))
        assert heard == [(PARTNER, False)]
        assert bundles.get(PARTNER) is None
        assert bundles.get(OWN) is own
        bundles.adopt(settings(bundles=FILES))
        assert bundles.get(PARTNER) is not None
        time.sleep(STILL_S)
        assert heard == [(PARTNER, False), (PARTNER, True)]


def test_another_source_is_believed_only_after_it_has_spoken(directory: Path) -> None:
    (directory / "new.json").write_bytes(document(ROOT))
    with running(directory, settings(bundles=FILES)) as bundles:
        bundles.adopt(settings(bundles=FILES | {PARTNER: {"file": "new.json"}}))
        assert bundles.get(PARTNER).x509 == (ROOT.cert,)  # type: ignore[union-attr]
        bundles.adopt(settings(bundles=FILES | {PARTNER: {"file": "missing.json"}}))
        assert bundles.get(PARTNER) is None


def test_a_domain_that_is_no_longer_accepted_is_withdrawn(directory: Path) -> None:
    with running(directory, settings(bundles=FILES)) as bundles:
        alone = Settings(trust_domain=OWN, bundles={OWN: BundleSettings.model_validate(FILES[OWN])})
        bundles.adopt(alone)
        assert bundles.get(PARTNER) is None
        assert PARTNER not in bundles.detail()["trust_domains"]


def test_the_workload_api_speaks_for_every_domain_without_an_entry_and_for_no_other(
    directory: Path, tmp_path: Path
) -> None:
    with workload_api(tmp_path / "agent.sock") as agent:
        everything = {f"spiffe://{name}": OTHER.der for name in (OWN, PARTNER, "unheard.example")}
        agent.x509(everything)
        agent.svids([("spiffe://prod.example/me", ROOT.issue("spiffe://prod.example/me"))])
        both = settings(bundles={OWN: FILES[OWN]}, workload_api=str(agent.address))
        with running(directory, both) as bundles:
            until(lambda: bundles.get(PARTNER))
            assert bundles.missing() == (PARTNER,), "its JWT authorities have not been told yet"
            agent.jwt({f"spiffe://{PARTNER}": json.dumps({"keys": [jwk("p")]}).encode()})
            assert bundles.wait(WAIT_S)
            assert set(bundles.get(PARTNER).jwt) == {"p"}  # type: ignore[union-attr]
            assert bundles.get(OWN).x509 == (ROOT.cert,)  # type: ignore[union-attr]
            assert bundles.get(PARTNER).x509 == (OTHER.cert,)  # type: ignore[union-attr]
            assert bundles.get("unheard.example") is None
            until(bundles.svids.current)
            bundles.adopt(settings(workload_api=str(agent.address)))
            assert bundles.get(OWN).x509 == (OTHER.cert,)  # type: ignore[union-attr]
            heard: list[Any] = []
            bundles.svids.on_change(heard.append)
            bundles.adopt(settings(bundles=FILES))
            assert heard == [None]
            assert bundles.svids.current() is None
            assert bundles.get(PARTNER) is not None
            assert "workload_api" not in bundles.detail()


def test_two_files_of_one_trust_domain_at_once_leave_the_newer_settings_in_force(directory: Path) -> None:
    """A storm of reloads while files change: what is live in the end is what the last settings name."""
    with running(directory, settings(bundles=FILES)) as bundles:
        for number in range(20):
            name = f"partner-{number}.json"
            (directory / name).write_bytes(document(Authority(f"root {number}")))
            bundles.adopt(settings(bundles=FILES | {PARTNER: {"file": name, "refresh": "1s"}}))
        last = json.loads((directory / "partner-19.json").read_text())["keys"][0]["x5c"][0]
        live = bundles.get(PARTNER)
        assert live is not None
        assert document_of(live) == last


def document_of(bundle: Bundle) -> str:
    return base64.b64encode(bundle.x509[0].public_bytes(Encoding.DER)).decode()
