"""The peers of the bench decide as signalwarden does: asked for real, where their programs are built already."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.peers.cedar import peer as cedar_peer
from bench.peers.opa import peer as opa_peer

ROOT = Path(__file__).resolve().parents[2]
PEERS = (*opa_peer.PEERS, cedar_peer.PEER)


@pytest.mark.skipif(
    not all(peer.built for peer in PEERS),
    reason="the Go peers are not built: `python -m bench.peers.agree` builds them, which takes minutes at first",
)
def test_signalwarden_and_its_peers_answer_all_questions_alike() -> None:
    only = [part for peer in PEERS for part in ("--only", peer.name)]
    command = [sys.executable, "-m", "bench.peers.agree", "--policies", "30", *only]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    last = ran.stdout.strip().splitlines()[-1]
    assert ", 0 answered otherwise than they must be, by: signalwarden; " in last
    for peer in PEERS:
        assert f"{peer.name} (" in last
