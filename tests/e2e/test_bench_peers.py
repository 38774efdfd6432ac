"""The peers of the bench decide as signalwarden does: asked for real, where their programs are built already."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench import behind_envoy, cases, servers, through_envoy
from bench.peers import golang
from bench.peers.cedar import peer as cedar_peer
from bench.peers.envoy_rbac import peer as rbac
from bench.peers.golang import GoPeer
from bench.peers.opa import peer as opa_peer

ROOT = Path(__file__).resolve().parents[2]
PEERS = (*opa_peer.PEERS, cedar_peer.PEER)
BUILT = all(peer.built for peer in PEERS)
NOT_BUILT = (
    "the Go peers are not built: `python -m bench.peers.agree` builds them, which takes minutes at first"
)


@pytest.mark.skipif(not BUILT, reason=NOT_BUILT)
def test_signalwarden_and_its_peers_answer_all_questions_alike() -> None:
    only = [part for peer in PEERS for part in ("--only", peer.name)]
    command = [sys.executable, "-m", "bench.peers.agree", "--policies", "30", *only]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    last = ran.stdout.strip().splitlines()[-1]
    assert ", 0 answered otherwise than they must be, by: signalwarden grpcio; " in last
    for peer in PEERS:
        assert f"{peer.name} (" in last


def test_envoys_own_filter_decides_the_cases_of_the_bench(tmp_path: Path) -> None:
    made = servers.peer_directory(tmp_path, 30)
    passages = behind_envoy.passages([rbac.PEER], tmp_path, made)
    with through_envoy.started(tmp_path, [each.listener for each in passages], None) as envoy:
        assert behind_envoy.compare(envoy, [], passages) == []


@pytest.mark.skipif(not BUILT, reason=NOT_BUILT)
@pytest.mark.parametrize("peer", [opa_peer.PEERS[0], cedar_peer.PEER], ids=lambda peer: peer.name)
def test_through_a_plain_listener_a_peer_takes_who_asks_from_the_certificates_header(
    tmp_path: Path, peer: GoPeer
) -> None:
    made = servers.peer_directory(tmp_path, 30)
    with peer.start(None, made, log=True) as server:
        listener = through_envoy.Listener(peer.name, server.target)
        with through_envoy.started(tmp_path, [listener], None) as envoy:
            got = {
                case.name: behind_envoy.status_of(envoy.ports[peer.name], case) == behind_envoy.LET_THROUGH
                for case in cases.CASES
            }
    assert got == {case.name: case.allow for case in cases.CASES}
    log = (tmp_path / peer.name / "decisions.jsonl").read_text().splitlines()
    assert len(log) == len(cases.CASES)


@pytest.mark.skipif(not BUILT or shutil.which("go") is None, reason=NOT_BUILT)
@pytest.mark.parametrize("what", ["vet", "test"])
def test_the_go_of_the_peers_is_vetted_and_tested(what: str) -> None:
    command = ["go", what, *(["-p", "1"] if what == "test" else []), "./..."]
    ran = subprocess.run(command, cwd=golang.MODULE, capture_output=True, text=True, timeout=280)
    assert ran.returncode == 0, ran.stdout + ran.stderr
