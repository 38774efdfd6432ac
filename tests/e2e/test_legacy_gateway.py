"""`envoy/legacy-gateway.yaml` as it runs: a caller with nothing but an API key, as a legacy principal of its own."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml

from signalwarden.demo_stage import (
    LOOPBACK,
    Process,
    envoy_binary,
    free_port,
    start_envoy,
    start_server,
    wait_for,
)
from tests.e2e.conftest import Product, RunningEnvoy, Stage, make_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COMMITTED = Path(__file__).parents[2] / "envoy" / "legacy-gateway.yaml"
VENDOR = "spiffe://prod.example/legacy/parcel-tracking"
HOST = "parcel-tracking.partners.prod.example"
KEY, OTHER_KEY = "key-of-parcel-tracking", "key-of-another-caller"
ACCOUNT = "/v1/accounts/42"
API_KEY_AUTH = "envoy.filters.http.api_key_auth"
TYPES = "type.googleapis.com/envoy"


def keys_file(**clients: str) -> str:
    """What stands in `secrets/api-keys.yaml`: callers by key. As envoy/README.md shows it."""
    config = {
        "@type": f"{TYPES}.extensions.filters.http.api_key_auth.v3.ApiKeyAuth",
        "credentials": [{"key": key, "client": client} for client, key in clients.items()],
        "key_sources": [{"header": "x-api-key"}],
        "forwarding": {"hide_credentials": True},
    }
    resource = {
        "@type": f"{TYPES}.config.core.v3.TypedExtensionConfig", "name": API_KEY_AUTH, "typed_config": config,
    }  # fmt: skip
    return yaml.safe_dump({"resources": [resource]})


def move_in(path: Path, text: str) -> None:
    """As a tool that renews secrets does it: a new file takes the place of the old one at once."""
    fresh = path.with_suffix(".new")
    fresh.touch(mode=0o600)
    fresh.write_text(text)
    fresh.replace(path)


def furnish(folder: Path, stage: Stage, **clients: str) -> None:
    """The files beside the gateway's configuration."""
    for name in ("tls", "sds", "secrets"):
        (folder / name).mkdir()
    served = stage.authority.issue(None, dns=("localhost",))
    svid = stage.authority.issue(VENDOR)
    (folder / "tls" / "gateway.crt").write_bytes(served.certificate.read_bytes())
    (folder / "tls" / "gateway.key").write_bytes(served.key.read_bytes())
    (folder / "tls" / "prod.example.pem").write_bytes(stage.authority.bundle.read_bytes())
    secret = {
        "@type": f"{TYPES}.extensions.transport_sockets.tls.v3.Secret",
        "name": VENDOR,
        "tls_certificate": {
            "certificate_chain": {"filename": str(svid.certificate)}, "private_key": {"filename": str(svid.key)},
        },
    }  # fmt: skip
    (folder / "sds" / "parcel-tracking.yaml").write_text(yaml.safe_dump({"resources": [secret]}))
    move_in(folder / "secrets" / "api-keys.yaml", keys_file(**clients))


def vendor(ends: datetime) -> dict[str, Any]:
    return {
        "uid": {"type": "Workload", "id": VENDOR},
        "attrs": {"owner": "team-logistics@prod.example", "legacy": True, "legacy_until": ends.isoformat()},
        "parents": [{"type": "Role", "id": "refund-agents"}],
    }


@dataclass
class Legacy:
    """The gateway before a mesh of one ingress, which signalwarden decides for."""

    stage: Stage
    product: Product
    folder: Path
    port: int

    def call(
        self, method: str = "GET", path: str = ACCOUNT, *, host: str = HOST, **headers: str
    ) -> httpx.Response:
        sent = {"host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
        body = {"amount": 1250} if method == "POST" else None
        with self.stage.client(self.port, None) as client:
            return client.request(method, path, headers=sent, json=body)

    def ends(self, at: datetime) -> None:
        """Moves the end of the legacy principal; in force when this returns."""
        path = self.product.directory / "entities.json"
        listed = [entry for entry in json.loads(path.read_text()) if entry["uid"]["id"] != VENDOR]
        path.write_text(json.dumps([*listed, vendor(at)]))
        answer = self.product.reload()
        assert answer.status_code == httpx.codes.OK, answer.text


@pytest.fixture(scope="module")
def legacy(
    stage: Stage, run_envoy: Callable[..., RunningEnvoy], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Legacy]:
    base = tmp_path_factory.mktemp("legacy")
    check_port, admin_port = free_port(), free_port()
    made = make_directory(base / "config", check_port, admin_port)
    schema = made.directory / "entities.cedarschema"
    more = "owner: String,\n  legacy?: Bool,\n  legacy_until?: String,"
    schema.write_text(schema.read_text().replace("owner: String,", more))
    started: list[Process] = [start_server(made.directory, admin_port, base / "serve.log")]
    try:
        product = Product(made, check_port, admin_port, started[0])
        ingress = run_envoy(made.directory, kind="sidecar")
        folder = base / "gateway"
        folder.mkdir()
        furnish(folder, stage, **{"parcel-tracking": KEY, "another": OTHER_KEY})
        port, admin = free_port(), free_port()
        text = COMMITTED.read_text().replace("address: ingress.prod.example", f"address: {LOOPBACK}")
        for shipped, ours in (("8444", port), ("8443", ingress.port), ("9902", admin)):
            text = text.replace(f"port_value: {shipped}", f"port_value: {ours}")
        started.append(start_envoy(text, folder, admin))
        running = Legacy(stage, product, folder, port)
        running.ends(datetime.now(UTC) + timedelta(hours=1))
        yield running
    finally:
        for process in reversed(started):
            process.stop()


@pytest.fixture
def calls(stage: Stage) -> list[dict[str, Any]]:
    """What reaches the upstream."""
    stage.upstream.calls.clear()
    return stage.upstream.calls


# ---- the file ---------------------------------------------------------------------------------------------


def test_the_real_envoy_accepts_the_committed_file(stage: Stage, tmp_path: Path) -> None:
    furnish(tmp_path, stage, **{"parcel-tracking": KEY})
    answer = subprocess.run(
        [envoy_binary(), "--mode", "validate", "--config-path", str(COMMITTED)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert answer.returncode == 0, answer.stderr
    assert "credentials:" not in COMMITTED.read_text(), "keys have a file of their own"


# ---- as it runs -------------------------------------------------------------------------------------------


def test_a_call_with_its_key_goes_on_as_the_legacy_principal(
    legacy: Legacy, calls: list[dict[str, Any]]
) -> None:
    answer = legacy.call(x_api_key=KEY)
    assert answer.status_code == httpx.codes.OK, answer.text
    (call,) = calls
    seen = dict(call["headers"])
    assert seen["x-signalwarden-principal"] == VENDOR
    assert KEY not in str(call)
    record = legacy.product.record(seen["x-signalwarden-decision-id"])
    assert record["request"]["host"] == "payments.prod.example"
    assert record["principal"]["legacy"] is True
    assert record["principal"]["owner"] == "team-logistics@prod.example"


def test_a_route_that_is_not_coarse_is_refused_whatever_policies_say(
    legacy: Legacy, calls: list[dict[str, Any]]
) -> None:
    answer = legacy.call("POST", f"{ACCOUNT}/refunds", x_api_key=KEY)
    assert (answer.status_code, answer.json()["reason"]) == (403, "credential_refused")
    assert calls == []
    assert "coarse" in legacy.product.record(answer.json()["decision_id"])["detail"]


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (401, {}),
        (401, {"x_api_key": "guessed"}),
        (401, {"x_api_key": ""}),
        (401, {"authorization": f"Bearer {KEY}"}),
        (403, {"x_api_key": OTHER_KEY}),
    ],
    ids=["none", "wrong", "empty", "in another header", "another caller's"],
)
def test_without_its_own_key_nothing_goes_on(
    legacy: Legacy, calls: list[dict[str, Any]], status: int, headers: dict[str, str]
) -> None:
    assert legacy.call(**headers).status_code == status
    assert calls == []


def test_a_caller_has_no_other_host(legacy: Legacy, calls: list[dict[str, Any]]) -> None:
    assert legacy.call(host="payments.prod.example", x_api_key=KEY).status_code in (401, 404)
    assert calls == []


def test_a_caller_brings_nothing_in_beside_its_key(legacy: Legacy, calls: list[dict[str, Any]]) -> None:
    brought = {
        "authorization": "Bearer other", "txn_token": "other", "cookie": "s=1", "x_original_url": "/v1/accounts/43",
        "x_signalwarden_principal": "spiffe://prod.example/root",
    }  # fmt: skip
    assert legacy.call(x_api_key=KEY, **brought).status_code == httpx.codes.OK
    seen = dict(calls[0]["headers"])
    assert seen["x-signalwarden-principal"] == VENDOR
    assert not {"authorization", "txn-token", "cookie", "x-original-url", "x-api-key"} & seen.keys()


def test_a_key_that_is_replaced_is_good_no_longer_on_open_connections_too(legacy: Legacy) -> None:
    path = legacy.folder / "secrets" / "api-keys.yaml"
    before = path.read_text()
    with legacy.stage.client(legacy.port, None, headers={"host": HOST, "x-api-key": KEY}) as client:
        assert client.get(ACCOUNT).status_code == httpx.codes.OK
        move_in(path, keys_file(**{"parcel-tracking": "another-key"}))
        try:
            wait_for(
                "the new key", lambda: legacy.call(x_api_key="another-key").status_code == httpx.codes.OK
            )
            assert client.get(ACCOUNT).status_code == httpx.codes.UNAUTHORIZED
        finally:
            move_in(path, before)
            wait_for("the old key", lambda: legacy.call(x_api_key=KEY).status_code == httpx.codes.OK)


def test_after_its_end_date_a_good_key_leads_nowhere(legacy: Legacy, calls: list[dict[str, Any]]) -> None:
    now = datetime.now(UTC)
    legacy.ends(now)
    try:
        answer = legacy.call(x_api_key=KEY)
        assert (answer.status_code, answer.json()["reason"]) == (403, "credential_refused")
        assert calls == []
        assert "was borne until" in legacy.product.record(answer.json()["decision_id"])["detail"]
    finally:
        legacy.ends(now + timedelta(hours=1))
    assert legacy.call(x_api_key=KEY).status_code == httpx.codes.OK
