"""Status lists of tokens: read as the draft has it, fetched over a real connection, and fail-closed."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from signalwarden.errors import KeySetError
from signalwarden.keysets import KeySet
from signalwarden.outbound import fetch
from signalwarden.tokens import TokenRefused, status
from signalwarden.tokens.status import ListRefusedError, StatusList, StatusLists, read_list
from tests.key_server import KeyServer
from tests.minting import NOW_S, NOW_US, laid_over, sign
from tests.transmitter import Key, b64, key_set
from tests.unit.test_key_keeping import BAD, until

URI = "https://login.example/status/1"
ES256 = frozenset({"ES256"})
KEY = Key.make("ES256", "s1")


def keys(*signing: Key) -> KeySet:
    return KeySet(lambda: key_set(*(signing or (KEY,))), refresh_s=600)


def packed(raw: bytes) -> str:
    return b64(zlib.compress(raw, 9)).decode()


def a_list(
    statuses: bytes = bytes([0b0000_0010]),
    *,
    uri: str = URI,
    bits: Any = 1,
    now_s: float = NOW_S,
    **more: Any,
) -> bytes:
    """Signed. By default the token at 1 does not stand."""
    header = {"typ": "statuslist+jwt", "kid": "s1", **more.pop("header", {})}
    key = more.pop("key", KEY)
    good = {"sub": uri, "iat": now_s - 5, "status_list": {"bits": bits, "lst": packed(statuses)}}
    return sign(key, json.dumps(laid_over(good, more)).encode(), **header)


def read(raw: bytes) -> StatusList:
    return read_list(raw, URI, keys(), ES256, NOW_US)


# ---- as the draft has it -----------------------------------------------------------------------------------


def test_the_example_of_one_bit() -> None:
    # draft-ietf-oauth-status-list-19, section 4.1: 0xB9, 0xA3.
    held = read(a_list(bytes([0xB9, 0xA3])))
    expected = [1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1]
    assert [held.status(at) for at in range(17)] == [*expected, None]


def test_the_compressed_example_of_one_bit() -> None:
    held = read(a_list(status_list={"bits": 1, "lst": "eNrbuRgAAhcBXQ"}))
    assert held.statuses == bytes([0xB9, 0xA3])


def test_the_example_of_two_bits() -> None:
    # Section 4.1: 0xC9, 0x44, 0xF9.
    held = read(a_list(bytes([0xC9, 0x44, 0xF9]), bits=2))
    assert [held.status(at) for at in range(13)] == [1, 2, 0, 3, 0, 1, 0, 1, 1, 2, 3, 3, None]


@pytest.mark.parametrize(("bits", "expected"), [(4, [0xA, 0x5, 0x1, 0xF]), (8, [0x5A, 0xF1])])
def test_wider_statuses(bits: int, expected: list[int]) -> None:
    held = read(a_list(bytes([0x5A, 0xF1]), bits=bits))
    assert [held.status(at) for at in range(len(expected))] == expected


@pytest.mark.parametrize(
    "change",
    [
        {"sub": "https://login.example/status/2"},
        {"sub": None},
        {"iat": None},
        {"iat": NOW_S + 60},
        {"iat": "now"},
        {"exp": NOW_S},
        {"exp": "never"},
        {"ttl": 0},
        {"ttl": -5},
        {"ttl": "60"},
        {"ttl": True},
        {"status_list": None},
        {"status_list": []},
        {"status_list": {"bits": 3, "lst": packed(b"x")}},
        {"status_list": {"bits": True, "lst": packed(b"x")}},
        {"status_list": {"bits": "1", "lst": packed(b"x")}},
        {"status_list": {"bits": 1}},
        {"status_list": {"bits": 1, "lst": "eJx"}},
        {"status_list": {"bits": 1, "lst": packed(b"x" * 100)[:-4]}},
        {"status_list": {"bits": 1, "lst": b64(zlib.compress(b"x") + b"more").decode()}},
        {"status_list": {"bits": 1, "lst": b64(b"not compressed").decode()}},
        {"status_list": {"bits": 1, "lst": packed(b"x") + "="}},
        {"header": {"typ": "JWT"}},
        {"header": {"typ": None}},
        {"header": {"alg": "none"}},
        {"header": {"crit": ["x"]}},
        {"header": {"kid": "s2"}},
        {"header": {"kid": 7}},
        {"key": Key.make("ES256", "s1")},
        {"key": Key.make("ES384", "s1")},
    ],
)
def test_a_list_that_is_not_as_it_should_be_is_refused(change: dict[str, Any]) -> None:
    assert read(a_list()).status(1) == 1
    with pytest.raises(ListRefusedError):
        read(a_list(**change))


def test_a_small_list_that_unpacks_to_anything_is_refused_without_unpacking_it() -> None:
    bomb = a_list(b"\0" * (status.MAX_STATUS_BYTES + 1))
    assert len(bomb) < 64 * 1024
    with pytest.raises(ListRefusedError, match="more than"):
        read(bomb)


def test_what_a_list_says_names_it_however_often_it_is_signed() -> None:
    assert read(a_list(iat=NOW_S - 100)).digest == read(a_list(iat=NOW_S - 5)).digest
    assert read(a_list(b"\0")).digest != read(a_list(b"\1")).digest
    assert read(a_list(bits=1)).digest != read(a_list(bits=2)).digest


# ---- kept, and fail-closed ---------------------------------------------------------------------------------


class World:
    """Lists of one issuer at a real server, and what the core was told."""

    def __init__(self, server: KeyServer) -> None:
        self.server = server
        self.told: dict[str, tuple[str, ...]] = {}
        self.uri = f"{server.address}/status/1"
        self.signing = keys()
        self.lists = StatusLists(
            uris=[f"{server.address}/status/"],
            keys=self.signing,
            keys_authority="status-keys:x",
            algorithms=ES256,
            fetch=fetch,
            tell=self.tell,
        )

    def tell(self, name: str, members: Sequence[str]) -> None:
        self.told[name] = tuple(members)

    def serve(self, statuses: bytes, **more: Any) -> None:
        self.server.body = a_list(statuses, uri=self.uri, now_s=time.time(), **more)

    def support(self, index: int, **more: Any) -> tuple[tuple[str, str], ...]:
        entry = {"idx": index, "uri": self.uri, **more}
        return self.lists.support({"status": {"status_list": entry}}, time.time_ns() // 1_000)

    def refusal(self, index: int, **more: Any) -> TokenRefused:
        with pytest.raises(TokenRefused) as refused:
            self.support(index, **more)
        return refused.value


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(status, "MIN_REFRESH_S", 0.1)
    monkeypatch.setattr(status, "MIN_REFETCH_S", 0.1)
    monkeypatch.setattr(status, "TICK_S", 0.02)
    monkeypatch.setattr(status, "FETCH_TIMEOUT_S", 0.3)
    with KeyServer() as server:
        world = World(server)
        world.serve(bytes([0b10]), ttl=0.1)
        world.lists.start()
        yield world
        world.lists.stop()


def test_a_token_that_stands_rests_on_its_list_and_on_who_signed_it(world: World) -> None:
    (name, digest), signer = world.support(0)
    assert world.told == {name: (digest,)}
    assert name == f"status:{world.uri}"
    assert signer == ("status-keys:x", world.signing.members()[0])


def test_a_token_that_does_not_stand_is_refused(world: World) -> None:
    assert "does not stand" in world.refusal(1).detail
    assert "does not reach" in world.refusal(8).detail
    assert not world.refusal(1).passing


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"status": "valid"},
        {"status": {}},
        {"status": {"status_list": {}}},
        {"status": {"status_list": {"idx": 0}}},
    ],
)
def test_a_token_without_a_status_is_refused(world: World, claims: dict[str, Any]) -> None:
    with pytest.raises(TokenRefused):
        world.lists.support(claims, time.time_ns() // 1_000)


@pytest.mark.parametrize("index", [-1, True, 1.0, "0", None])
def test_a_place_that_is_no_number_is_refused(world: World, index: Any) -> None:
    assert world.refusal(0, idx=index).reason == "token_invalid"


@pytest.mark.parametrize(
    "elsewhere",
    [
        "http://127.0.0.1:9/status/1",
        "{}/other/1",
        "{}/statuses",
        "{}/status/../secret",
        "{}/status/%2e%2e/secret",
        "{}/status/1#a",
        "{}/status/a b",
        "{}/status/" + "a" * 2100,
        7,
    ],
)
def test_only_addresses_that_the_configuration_names_are_fetched(world: World, elsewhere: Any) -> None:
    uri = elsewhere.format(world.server.address) if isinstance(elsewhere, str) else elsewhere
    assert "may not name" in world.refusal(0, uri=uri).detail
    assert world.server.asked == 0


def test_a_list_that_changes_is_told_and_judges_anew(world: World) -> None:
    before = world.support(0)[0]
    world.serve(bytes([0b11]), ttl=0.1)
    assert until(lambda: world.told[before[0]] != (before[1],))
    assert "does not stand" in world.refusal(0).detail


def test_a_list_whose_time_is_over_is_withdrawn(world: World) -> None:
    name, _ = world.support(0)[0]
    world.serve(bytes([0b00]), ttl=3600, exp=time.time() + 0.5)
    assert until(lambda: world.told[name] == ())
    assert world.refusal(0).passing


def test_a_list_whose_key_is_taken_back_is_withdrawn(world: World) -> None:
    name, _ = world.support(0)[0]
    world.signing._keys, world.signing._members = (), ()
    assert until(lambda: world.told[name] == ())
    assert world.refusal(0).passing


@pytest.mark.parametrize("mode", BAD)
def test_a_list_that_cannot_be_had_counts_for_a_while_and_no_longer(world: World, mode: str) -> None:
    name, _ = world.support(0)[0]
    world.server.mode = mode
    assert until(lambda: bool(world.lists.faults()))
    assert until(lambda: world.told[name] == ())
    assert world.refusal(0).passing
    world.server.mode = "good"
    assert until(lambda: bool(world.told[name]))
    assert world.support(0)[0][0] == name


def test_a_list_that_was_never_had_denies_within_a_second(world: World) -> None:
    world.server.mode = "silent"
    began = time.monotonic()
    assert world.refusal(0).passing
    assert time.monotonic() - began < status.WAIT_S + 0.5


def test_lists_are_bounded_and_the_one_longest_unasked_is_forgotten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "MAX_LISTS", 4)
    name, _ = world.support(0)[0]
    world.server.mode = "down"
    for at in range(4):
        world.refusal(0, uri=f"{world.server.address}/status/x{at}")
    assert len(world.lists._kept) == 4
    assert world.told[name] == ()


def test_keys_that_cannot_be_had_refuse_a_list() -> None:
    def nobody() -> bytes:
        raise KeySetError("nobody answers")

    with pytest.raises(KeySetError):
        read_list(a_list(), URI, KeySet(nobody, refresh_s=600), ES256, NOW_US)


def test_lists_that_nobody_keeps_any_more_are_withdrawn(world: World) -> None:
    name, _ = world.support(0)[0]
    world.lists.stop()
    assert world.told[name] == ()
