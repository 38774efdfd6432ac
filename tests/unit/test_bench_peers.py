"""Peers of the bench: how they are found and left out, and what every server is asked before it is timed."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bench import behind_envoy, cases, directory, peers, servers, through_envoy
from bench.profiles import PROFILES, users_at
from bench.stage import BenchError
from signalwarden import offline
from signalwarden.decision_log import now_us

if TYPE_CHECKING:
    from collections.abc import Mapping


class Somebody:
    """A peer that can be made to lack things."""

    name = "somebody"
    logs = (False, True)

    def __init__(self, missing: str | None = None, unbuilt: str | None = None) -> None:
        self._missing, self._unbuilt = missing, unbuilt

    def missing(self) -> str | None:
        return self._missing

    def build(self) -> None:
        if self._unbuilt:
            raise BenchError(self._unbuilt)

    def version(self) -> str:
        return "somebody 1"

    def start(self, core: int | None, directory: Path, *, log: bool) -> Any:
        raise NotImplementedError


class Rules:
    """A filter of Envoy's."""

    name = "rules"

    def missing(self) -> str | None:
        return None

    def version(self) -> str:
        return "Envoy"

    def http_filter(self, directory: Path) -> Mapping[str, Any]:
        return {"name": "rules"}

    def answers(self) -> Mapping[str, bool]:
        return {"allowed": True, "another path": False}


def _found(monkeypatch: pytest.MonkeyPatch, below: Path, *there: Any, only: Any = None) -> peers.Peers:
    (below / "one").mkdir()
    (below / "one" / "peer.py").touch()
    monkeypatch.setattr(peers, "_peers_of", lambda _: list(there))
    return peers.found(only, below=below)


def test_a_peer_is_a_server_or_a_filter_of_envoy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = _found(monkeypatch, tmp_path, Somebody(), Rules())
    assert [peer.name for peer in found.servers] == ["somebody"]
    assert [each.name for each in found.filters] == ["rules"]
    assert found.left_out == ()


@pytest.mark.parametrize("peer", [Somebody(missing="there is no Go"), Somebody(unbuilt="there is no Go")])
def test_a_peer_without_its_tools_is_left_out_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, peer: Somebody
) -> None:
    found = _found(monkeypatch, tmp_path, peer, Rules())
    assert found.servers == ()
    assert len(found.filters) == 1
    assert found.left_out == ("somebody: there is no Go",)


def test_only_the_peers_that_are_wanted_are_looked_at(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = _found(monkeypatch, tmp_path, Somebody(unbuilt="must not be built"), Rules(), only=("rules",))
    assert (found.servers, len(found.filters), found.left_out) == ((), 1, ())


def test_each_peer_of_this_repository_keeps_to_the_interface() -> None:
    for file in peers.HERE.glob("*/peer.py"):
        for peer in peers._peers_of(file.parent.name):
            assert peer.name
            assert peer.missing() is None or isinstance(peer.missing(), str)


def test_each_peer_is_measured_with_and_without_its_log() -> None:
    field = servers.contestants([Somebody()], policies=10, fronts=("grpcio",))
    assert [who.name for who in field] == [
        servers.FLOOR,
        servers.ALLOW_ALL,
        "signalwarden grpcio, influence none",
        "signalwarden grpcio, influence default",
        "somebody, log off",
        "somebody, log on",
    ]
    assert [who.decides for who in field] == [False, False, True, True, True, True]


@pytest.mark.parametrize("case", [*cases.CASES, *list(cases.timed())[8:11]], ids=lambda case: case.name)
def test_every_case_is_decided_as_the_bench_expects(tmp_path: Path, case: cases.Case) -> None:
    directory.make(tmp_path, policies=10, plain=True)
    decision = offline.decide(
        tmp_path, case.check_request, signals=directory.signals_body(), now_us=now_us() + 1_000_000
    )
    assert decision.record["reason"] == case.reason
    assert (decision.record["outcome"] == "allow") == case.allow


def test_the_load_asks_nine_allowed_transfers_for_a_denied_one_and_none_twice() -> None:
    lines = [json.loads(line) for line in cases.load_lines(reasons=True).splitlines()]
    assert sum(line["expect"] == "deny" for line in lines) == len(lines) * cases.DENIED_SHARE
    assert len({line["grpc"] for line in lines}) == len(lines)
    assert {line["reason"] for line in lines} == {"allowed", "policy_denied"}
    assert base64.b64decode(lines[0]["grpc"]) == next(iter(cases.timed())).check_request
    assert lines[0]["http"].startswith("POST /v1/accounts/1000/transfers?amount=100 HTTP/1.1\r\n")
    assert lines[0]["http"].endswith("\r\n\r\n")
    for line in map(json.loads, cases.load_lines(reasons=False, all_allowed=True).splitlines()):
        assert line["expect"] == "allow"
        assert "reason" not in line


def test_a_filter_is_timed_only_with_what_it_can_express(tmp_path: Path) -> None:
    bare, rules = behind_envoy.passages([Rules()], tmp_path, tmp_path)
    assert bare.name == behind_envoy.OPEN
    assert bare.listener.http_filter is None
    assert len(bare.requests.read_text().splitlines()) == cases.ACCOUNTS
    assert len(rules.requests.read_text().splitlines()) == cases.ACCOUNTS * (1 - cases.DENIED_SHARE)


def test_envoy_has_a_listener_for_each_server_and_fails_closed() -> None:
    listeners = [
        through_envoy.Listener("tcp", "127.0.0.1:9191"),
        through_envoy.Listener("unix", "unix:///run/check.sock"),
        through_envoy.Listener("open"),
    ]
    made = through_envoy.bootstrap(listeners, [1, 2, 3])["static_resources"]
    assert [listener["name"] for listener in made["listeners"]] == ["server-0", "server-1", "server-2"]
    assert [cluster["name"] for cluster in made["clusters"]] == ["server-0", "server-1"]
    filters = made["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    assert filters[0]["typed_config"]["failure_mode_allow"] is False
    assert "pipe" in json.dumps(made["clusters"][1])


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_keeps_to_its_users_and_ends(profile: str) -> None:
    counts = [users_at(profile, at / 10, 20, 60.0) for at in range(600)]
    assert all(count is not None and 1 <= count <= 20 for count in counts)
    assert max(count or 0 for count in counts) == (10 if profile == "soak" else 20)
    assert users_at(profile, 60.0, 20, 60.0) is None


def test_a_spike_is_high_twice_and_low_else() -> None:
    assert [users_at("spike", at, 10, 100.0) for at in (10.0, 35.0, 50.0, 65.0, 90.0)] == [2, 10, 2, 10, 2]
