"""Key sets that are kept fresh without being asked, over a real connection to whoever serves them, well or badly."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from signalwarden import keysets
from signalwarden.errors import KeySetError
from signalwarden.keysets import KeySet, PublicKey, file_reader, read_key_set, url_reader
from signalwarden.outbound import fetch
from tests.key_server import KeyServer
from tests.transmitter import Key, key_set

REFRESH_S = 0.1
LIFE_S = 0.8
BAD = ("down", "silent", "broken", "elsewhere", "huge", "dripping", "wrong")


def until(true: Callable[[], bool], limit_s: float = 5.0) -> bool:
    ends = time.monotonic() + limit_s
    while time.monotonic() < ends:
        if true():
            return True
        time.sleep(0.01)
    return true()


class Kept:
    """A kept set and what its listener was told, in order."""

    def __init__(self, server: KeyServer) -> None:
        self.told: list[tuple[str, ...]] = []
        self.keys = KeySet(url_reader(f"{server.address}/jwks", fetch), refresh_s=REFRESH_S)

    def listen(self, members: Sequence[str]) -> None:
        self.told.append(tuple(members))


@pytest.fixture
def server() -> Iterator[KeyServer]:
    with KeyServer(key_set(Key.make("ES256", "a"))) as server:
        yield server


@pytest.fixture
def kept(server: KeyServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    monkeypatch.setattr(keysets, "MIN_LIFE_S", LIFE_S)
    monkeypatch.setattr(keysets, "MAX_AGE_FACTOR", 1)
    monkeypatch.setattr(keysets, "FETCH_TIMEOUT_S", 0.3)
    kept = Kept(server)
    kept.keys.keep(kept.listen)
    yield kept
    kept.keys.stop()


def public(key: Key) -> PublicKey:
    (read,) = read_key_set(key_set(key))
    return read


def test_the_thumbprint_of_the_rfc() -> None:
    # RFC 7638 section 3.1.
    n = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3ok"
        "njhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6"
        "qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awa"
        "pJzKnqDKgw"
    )
    jwk = f'{{"keys":[{{"kty":"RSA","n":"{n}","e":"AQAB","alg":"RS256","kid":"2011-04-29"}}]}}'
    (key,) = read_key_set(jwk.encode())
    assert key.thumbprint == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    assert key.member == f"2011-04-29 {key.thumbprint}"


def test_a_key_that_its_owner_takes_back_is_told_without_a_request(server: KeyServer, kept: Kept) -> None:
    a, b = Key.make("ES256", "a"), Key.make("ES256", "b")
    server.body = key_set(a, b)
    assert until(lambda: kept.keys.members() == (public(a).member, public(b).member))
    before = kept.keys.revision
    server.body = key_set(b)
    assert until(lambda: kept.keys.members() == (public(b).member,))
    assert kept.told[-1] == (public(b).member,)
    assert kept.keys.revision != before
    assert len(set(kept.told)) == len(kept.told), "the listener is told changes, nothing else"


def test_a_name_with_another_key_is_another_member(server: KeyServer, kept: Kept) -> None:
    assert until(lambda: bool(kept.told))
    server.body = key_set(Key.make("ES256", "a"))
    assert until(lambda: len(kept.told) == 2)
    assert kept.told[0] != kept.told[1]


@pytest.mark.parametrize("mode", BAD)
def test_the_last_good_keys_count_within_their_life_and_then_none(
    server: KeyServer, kept: Kept, mode: str
) -> None:
    assert until(lambda: bool(kept.keys.members()))
    good = kept.keys.members()
    server.mode = mode
    assert until(lambda: kept.keys.last_error is not None)
    broken = time.monotonic()
    if kept.keys.members():
        assert kept.keys.find("a", "ES256") is not None
    assert until(lambda: kept.told[-1] == ())
    assert time.monotonic() - broken < LIFE_S + 1.0
    with pytest.raises(KeySetError):
        kept.keys.find("a", "ES256")
    server.mode = "good"
    assert until(lambda: kept.keys.members() == good)
    assert kept.told[-1] == good


def test_whoever_asks_waits_no_longer_than_a_second_for_an_endpoint_that_says_nothing(
    server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.mode = "silent"
    keys = KeySet(url_reader(f"{server.address}/jwks", fetch), refresh_s=600)
    keys.keep(lambda _: None)
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(KeySetError):
            keys.find("a", "ES256")
        assert time.monotonic() - began < keysets.WAIT_S + 0.5
    assert server.asked == 1
    monkeypatch.setattr(keysets, "STOP_S", 0.1)
    keys.stop()


def test_invented_names_make_no_traffic_at_a_kept_set_either(server: KeyServer) -> None:
    keys = KeySet(url_reader(f"{server.address}/jwks", fetch), refresh_s=600)
    keys.keep(lambda _: None)
    assert until(lambda: bool(keys.members()))
    for at in range(200):
        with pytest.raises(KeySetError):
            keys.find(f"invented-{at}", "ES256")
    assert server.asked == 1
    keys.stop()


def test_a_new_key_of_a_file_is_found_soon(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(key_set(Key.make("ES256", "a")))
    keys = KeySet(file_reader(path), refresh_s=REFRESH_S)
    keys.keep(lambda _: None)
    assert until(lambda: bool(keys.members()))
    path.write_bytes(key_set(Key.make("ES256", "b")))
    assert until(lambda: keys.members()[0].startswith("b "))
    keys.stop()


def test_a_listener_that_fails_does_not_end_the_keeper(server: KeyServer) -> None:
    told: list[tuple[str, ...]] = []

    def listen(members: Sequence[str]) -> None:
        told.append(tuple(members))
        if len(told) == 1:
            raise RuntimeError("for once")

    keys = KeySet(url_reader(f"{server.address}/jwks", fetch), refresh_s=REFRESH_S)
    keys.keep(listen)
    assert until(lambda: len(told) == 2)
    assert until(lambda: bool(keys.members()))
    keys.stop()


def test_a_set_that_was_stopped_in_the_middle_of_a_fetch_says_nothing_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keysets, "STOP_S", 0.05)
    go, told = threading.Event(), list[tuple[str, ...]]()

    def read() -> bytes:
        go.wait(5)
        return key_set(Key.make("ES256", "a"))

    keys = KeySet(read, refresh_s=600)
    keys.keep(lambda members: told.append(tuple(members)))
    assert until(lambda: keys._under_way)
    keys.stop()
    go.set()
    assert until(lambda: not keys._under_way)
    assert told == []


def test_a_set_that_can_not_be_had_from_the_start_is_told_as_empty(server: KeyServer) -> None:
    server.mode = "down"
    told = list[tuple[str, ...]]()
    keys = KeySet(url_reader(f"{server.address}/jwks", fetch), refresh_s=600)
    keys.keep(lambda members: told.append(tuple(members)))
    assert until(lambda: told == [()])
    keys.stop()
