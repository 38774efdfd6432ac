"""Tokens through the running server: keys from files, a status list from an address, and what a change of each does."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from signalwarden.app import App
from signalwarden.server import CHECK_METHOD
from tests import asking, fronts
from tests.key_server import KeyServer
from tests.minting import AUDIENCE, ISSUER, Issuer, laid_over, sign
from tests.serving import running
from tests.transmitter import Key, key_set
from tests.unit.test_key_keeping import until
from tests.unit.test_token_status import a_list

pytestmark = pytest.mark.usefixtures("front")

WORKLOAD = "spiffe://prod.example/agent"


class World:
    """A directory, the keys that its tokens are signed by, and the server of its status list."""

    def __init__(self, root: Path, server: KeyServer) -> None:
        self.root = root
        self.server = server
        self.issuer = Issuer()
        self.spire = Key.make("ES256", "jwt-1")
        self.list_uri = f"{server.address}/status/1"
        self.settings(AUDIENCE)
        self.publish_keys(self.issuer.key)
        self.publish_bundle(self.spire)

    def settings(self, audience: str, *, listed: bool = False) -> None:
        entry = {
            "issuer": ISSUER,
            "audience": [audience],
            "keys": {"file": "login.jwks.json", "refresh": "200ms"},
            "principal": "spiffe://prod.example/oauth/{client_id}",
        }
        if listed:
            keys = {"file": "login.jwks.json", "refresh": "200ms"}
            entry["status_list"] = {"keys": keys, "uris": [f"{self.server.address}/status/"]}
        content = {
            "trust_domain": "prod.example",
            "listen": {"check": "127.0.0.1:0", "admin": "127.0.0.1:0"},
            "watch": False,
            "bundles": {"prod.example": {"file": "prod.json", "refresh": "200ms"}},
            "identity": {
                "sources": ["jwt_svid", "oauth"],
                "jwt_svid": {"audience": ["payments"]},
                "oauth": [entry],
            },
        }
        (self.root / "signalwarden.yaml").write_text(json.dumps(content))
        fronts.choose(self.root)

    def publish_keys(self, *keys: Key) -> None:
        (self.root / "login.jwks.json").write_bytes(key_set(*keys))

    def publish_bundle(self, *keys: Key) -> None:
        entries = [key.public_jwk(use="jwt-svid", alg=None) for key in keys]
        (self.root / "prod.json").write_text(json.dumps({"keys": entries, "spiffe_sequence": 1}))

    def access_token(self, **claims: Any) -> bytes:
        return self.issuer.token(int(time.time()), **claims)

    def svid(self, **claims: Any) -> bytes:
        now = int(time.time())
        good = {"sub": WORKLOAD, "aud": ["payments"], "iat": now - 5, "exp": now + 300}
        return sign(self.spire, json.dumps(laid_over(good, claims)).encode(), kid="jwt-1", typ="JWT")


@pytest.fixture
def world(minimal_directory: Path) -> Iterator[World]:
    with KeyServer() as server:
        yield World(minimal_directory, server)


def asked(app: App, token: bytes) -> str:
    headers = {"authorization": f"Bearer {token.decode()}"}
    request = bytes(asking.check_request(principal="", headers=headers))
    with grpc.insecure_channel(app.check_address) as channel:
        call = channel.unary_unary(CHECK_METHOD, request_serializer=bytes, response_deserializer=bytes)
        return asking.reason_of(bytes(call(request, timeout=10)))


def test_tokens_of_both_kinds_in_one_header_are_told_apart(world: World) -> None:
    with running(world.root) as app:
        assert until(lambda: asked(app, world.svid()) == "allowed")
        assert asked(app, world.access_token()) == "allowed"
        assert asked(app, world.svid(aud=["other"])) == "token_invalid"
        assert asked(app, world.access_token(aud="other")) == "token_invalid"
        assert asked(app, world.svid(sub="spiffe://evil.example/agent")) == "trust_domain_unknown"
        assert asked(app, world.svid(exp=int(time.time()) + 7200)) == "token_too_long_lived"


def test_a_key_that_is_gone_from_its_set_or_bundle_ends_its_tokens(world: World) -> None:
    with running(world.root) as app:
        svid, access = world.svid(), world.access_token()
        assert until(lambda: asked(app, svid) == "allowed")
        assert asked(app, access) == "allowed"
        world.publish_keys(Key.make("ES256", "k2"))
        assert until(lambda: asked(app, access) == "token_invalid")
        assert asked(app, svid) == "allowed"
        world.publish_bundle(Key.make("ES256", "jwt-2"))
        assert until(lambda: asked(app, svid) == "token_invalid")


def test_other_settings_of_an_issuer_count_at_the_next_request(world: World) -> None:
    with running(world.root) as app:
        token = world.access_token()
        assert asked(app, token) == "allowed"
        world.settings("https://other.example")
        app.reload("test")
        assert asked(app, token) == "token_invalid"
        assert asked(app, world.access_token(aud="https://other.example")) == "allowed"
        world.settings(AUDIENCE)
        app.reload("test")
        assert asked(app, token) == "allowed"


def test_a_status_list_ends_a_token(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from signalwarden.tokens import status

    monkeypatch.setattr(status, "MIN_REFRESH_S", 0.1)
    monkeypatch.setattr(status, "TICK_S", 0.05)
    world.settings(AUDIENCE, listed=True)
    signer = world.issuer.key

    def serve(statuses: bytes) -> None:
        world.server.body = a_list(
            statuses, uri=world.list_uri, now_s=time.time(), ttl=0.1, key=signer, header={"kid": "k1"}
        )

    serve(b"\0")
    with running(world.root) as app:
        token = world.access_token(status={"status_list": {"idx": 3, "uri": world.list_uri}})
        assert asked(app, token) == "allowed"
        assert asked(app, world.access_token()) == "token_invalid"
        serve(bytes([0b1000]))
        assert until(lambda: asked(app, token) == "token_invalid")


def test_no_token_stands_in_the_log(world: World) -> None:
    with running(world.root) as app:
        tokens = [world.svid(), world.access_token(), world.access_token(exp=1)]
        for token in tokens:
            asked(app, token)
        numbers = app.metrics_text()[0]
    logged = (world.root / "var/decisions.jsonl").read_text()
    for token in tokens:
        assert token.decode() not in logged
        assert token.split(b".")[2].decode() not in logged
    assert b"first_sights" in numbers
