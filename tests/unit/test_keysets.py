"""`keysets`: which keys are read from a set, and how seldom it is fetched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from signalwarden.errors import FeedError, KeySetError
from signalwarden.keysets import (
    ALGORITHMS,
    MAX_KEY_SET_BYTES,
    MAX_KEYS,
    MAX_UNKNOWN,
    MIN_LIFE_S,
    MIN_REFETCH_S,
    KeySet,
    file_reader,
    read_key_set,
    url_reader,
)
from signalwarden.outbound import Fetched
from tests.transmitter import Key, key_set

REFRESH_S = 600.0


class Owner:
    """Whoever publishes a set: counts how often it is asked, at a time that a test sets."""

    def __init__(self, *keys: Key) -> None:
        self.keys = keys
        self.asked = 0
        self.now = 1_000.0
        self.fault: KeySetError | None = None

    def read(self) -> bytes:
        self.asked += 1
        if self.fault:
            raise self.fault
        return key_set(*self.keys)

    def key_set(self) -> KeySet:
        return KeySet(self.read, refresh_s=REFRESH_S, clock=lambda: self.now)


def jwks(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


# ---- what is read -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_of_ours_has_keys(algorithm: str) -> None:
    (key,) = read_key_set(key_set(Key.make(algorithm)))
    assert [name for name in ALGORITHMS if key.is_for(name)] == [algorithm]


def test_a_key_that_names_no_algorithm_is_for_its_family() -> None:
    (key,) = read_key_set(jwks(Key.make("RS256").public_jwk(alg=None)))
    assert [name for name in ALGORITHMS if key.is_for(name)] == [n for n in ALGORITHMS if n[0] in "RP"]


@pytest.mark.parametrize(
    "change",
    [
        {"use": "enc"},
        {"key_ops": ["encrypt"]},
        {"key_ops": "verify"},
        {"alg": "HS256"},
        {"alg": "RS256"},
        {"kty": "oct"},
        {"crv": "secp256k1"},
        {"crv": ["P-256"]},
        {"x": "AAAA"},
        {"x": 7},
        {"x": None},
    ],
)
def test_a_key_that_is_no_use_is_left_out(change: dict[str, Any]) -> None:
    good = Key.make("ES256", "good")
    bad = Key.make("ES256", "bad").public_jwk(**change)
    assert [key.kid for key in read_key_set(jwks(bad, good.public_jwk()))] == ["good"]


def test_a_key_too_short_to_hold_or_too_long_to_check_is_left_out() -> None:
    short = Key("short", "RS256", rsa.generate_private_key(public_exponent=65537, key_size=1024))
    with pytest.raises(KeySetError, match="no key that can check"):
        read_key_set(key_set(short))
    long = Key.make("RS256", "long").public_jwk(n="_" * 2_000)
    with pytest.raises(KeySetError, match="no key that can check"):
        read_key_set(jwks(long))


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "a list of objects"),
        (b'{"keys":{}}', "a list of objects"),
        (b'{"keys":[1]}', "a list of objects"),
        (b'{"keys":[]}', "no key that can check"),
        (b" " * (MAX_KEY_SET_BYTES + 1), "more than"),
        (jwks(*[{"kty": "none"}] * (MAX_KEYS + 1)), "at most"),
        (jwks(Key.make("EdDSA").public_jwk(d="AAAA")), "private key"),
        (jwks(Key.make("EdDSA").public_jwk(), Key.make("EdDSA").public_jwk()), "the same `kid`"),
        (jwks(Key.make("EdDSA").public_jwk(kid="k" * 257)), "`kid`"),
        (jwks(Key.make("EdDSA").public_jwk(kid=7)), "`kid`"),
    ],
)
def test_a_bad_set_is_refused_whole(raw: bytes, why: str) -> None:
    with pytest.raises(KeySetError, match=why):
        read_key_set(raw)


# ---- which key is meant -----------------------------------------------------------------------------------


def test_a_key_is_found_by_its_name_and_algorithm() -> None:
    keys = Owner(Key.make("ES256", "a"), Key.make("ES384", "b")).key_set()
    found = keys.find("b", "ES384")
    assert found is not None
    assert found.kid == "b"
    assert keys.find("a", "ES384") is None


def test_without_a_name_only_an_only_key_is_meant() -> None:
    assert Owner(Key.make("ES256", "a"), Key.make("ES384", "b")).key_set().find(None, "ES256") is not None
    assert Owner(Key.make("ES256", "a"), Key.make("ES256", "b")).key_set().find(None, "ES256") is None


# ---- how seldom it is fetched -----------------------------------------------------------------------------


def test_a_set_is_fetched_once_while_it_is_young() -> None:
    owner = Owner(Key.make("ES256"))
    keys = owner.key_set()
    for _ in range(5):
        assert keys.find("k1", "ES256")
    owner.now += REFRESH_S
    assert keys.find("k1", "ES256")
    assert owner.asked == 2


def test_an_unknown_key_is_looked_for_once_and_then_known_to_be_unknown() -> None:
    owner = Owner(Key.make("ES256"))
    keys = owner.key_set()
    assert keys.find("k1", "ES256")
    owner.now += MIN_REFETCH_S
    for _ in range(5):
        assert keys.find("other", "ES256") is None
    assert owner.asked == 2


def test_invented_names_make_no_traffic() -> None:
    owner = Owner(Key.make("ES256"))
    keys = owner.key_set()
    assert keys.find("k1", "ES256")
    for at in range(1_000):
        with pytest.raises(KeySetError, match="ask again later"):
            keys.find(f"invented-{at}", "ES256")
    assert owner.asked == 1
    for at in range(2 * MAX_UNKNOWN):
        owner.now += MIN_REFETCH_S
        assert keys.find(f"invented-{at}", "ES256") is None
        owner.now += 1
    assert len(keys._unknown) <= MAX_UNKNOWN


def test_a_new_key_is_taken_as_soon_as_it_may_be_asked_for() -> None:
    owner = Owner(Key.make("ES256", "old"))
    keys = owner.key_set()
    assert keys.find("old", "ES256")
    owner.keys = (Key.make("ES256", "new"),)
    owner.now += MIN_REFETCH_S
    assert keys.find("new", "ES256")
    owner.now += MIN_REFETCH_S
    assert keys.find("old", "ES256") is None


def test_a_set_that_cannot_be_had_is_kept_for_a_while_and_no_longer() -> None:
    owner = Owner(Key.make("ES256"))
    keys = KeySet(owner.read, refresh_s=60, clock=lambda: owner.now)
    assert keys.find("k1", "ES256")
    owner.fault = KeySetError("the key set can't be fetched: nobody answers")
    owner.now += MIN_LIFE_S - 1
    assert keys.find("k1", "ES256")
    assert keys.last_error == "the key set can't be fetched: nobody answers"
    owner.now += 1
    with pytest.raises(KeySetError, match="nobody answers"):
        keys.find("k1", "ES256")
    asked = owner.asked
    with pytest.raises(KeySetError, match="nobody answers"):
        keys.find("k1", "ES256")
    assert owner.asked == asked, "a fetch that failed is not tried again at once"
    owner.fault, owner.now = None, owner.now + MIN_REFETCH_S
    assert keys.find("k1", "ES256")


# ---- where it is read from --------------------------------------------------------------------------------


def test_a_file_is_read_and_a_missing_one_said(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    read = file_reader(path)
    with pytest.raises(KeySetError, match="no such file"):
        read()
    path.write_bytes(key_set(Key.make("ES256")))
    assert read_key_set(read())
    path.write_bytes(b" " * (MAX_KEY_SET_BYTES + 1))
    with pytest.raises(KeySetError, match="more than"):
        read()


def test_an_address_is_fetched_within_bounds_and_its_faults_said() -> None:
    asked: list[dict[str, Any]] = []

    def fetch(url: str, **more: Any) -> Fetched:
        asked.append(more)
        if url.endswith("down"):
            raise FeedError("nobody answers")
        return Fetched(404 if url.endswith("404") else 200, key_set(Key.make("ES256")), {})

    assert read_key_set(url_reader("https://idp.example/jwks", fetch)())
    assert asked[0]["max_bytes"] == MAX_KEY_SET_BYTES
    for name, why in {"down": "nobody answers", "404": "status 404"}.items():
        with pytest.raises(KeySetError, match=why):
            url_reader(f"https://idp.example/{name}", fetch)()
