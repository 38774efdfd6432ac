"""A server that is killed under load leaves a log that verifies; what somebody does to the log afterwards is found."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from signalwarden.server import CHECK_METHOD
from tests import asking

TIMEOUT_S = 30.0
SERVE = """\
import logging, sys
from signalwarden.app import App
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
App(sys.argv[1]).run_forever()
"""


@pytest.fixture
def root(minimal_directory: Path) -> Path:
    with (minimal_directory / "signalwarden.yaml").open("a") as file:
        file.write("decision_log: {rotate_bytes: 100000, keep_files: 1000, checkpoints: {every: 1s}}\n")
    return minimal_directory


@contextmanager
def served(root: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in a process of its own, and its check address."""
    command = [sys.executable, "-u", "-c", SERVE, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            for line in server.stdout:
                found = re.match(r"check on (\S+),", line)
                if found:
                    break
            assert found
            yield server, found[1]
        finally:
            server.kill()


def ask(address: str, until: threading.Event | None = None, count: int = 0) -> int:
    """Asks so often, or until then; how many answers came."""
    request = bytes(asking.check_request(path="/notes/1"))
    done = 0
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(CHECK_METHOD, request_serializer=bytes, response_deserializer=bytes)
        while done < count or (until is not None and not until.is_set()):
            try:
                call(request, timeout=TIMEOUT_S)
            except grpc.RpcError:
                break
            done += 1
    return done


def cli(root: Path, *arguments: str, status: int = 0) -> str:
    command = [sys.executable, "-m", "signalwarden.cli", "log", *arguments, "--config", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def verified(root: Path, *arguments: str, status: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cli(root, "verify", "--json", *arguments, status=status))
    return found


def test_a_log_of_killed_servers_verifies_and_what_is_done_to_it_is_found(root: Path, tmp_path: Path) -> None:
    for _ in range(2):
        with served(root) as (server, address):
            ended = threading.Event()
            load = threading.Thread(target=ask, args=(address, ended))
            load.start()
            time.sleep(2.5)
            assert verified(root)["good"], "beside a server that writes"
            server.send_signal(signal.SIGKILL)
            server.wait(TIMEOUT_S)
            ended.set()
            load.join()
        assert verified(root)["good"], "as a kill leaves it"
    with served(root) as (server, address):
        assert ask(address, count=50) == 50
        server.send_signal(signal.SIGTERM)
        assert server.wait(TIMEOUT_S) == 0
    report = verified(root)
    assert report["good"]
    assert [(tree["unsealed"], tree["size"] == tree["agreed"]) for tree in report["trees"]] == [(0, True)]
    assert report["trees"][0]["size"] == report["lines"] > 300
    files = sorted((root / "var").glob("decisions*.jsonl"))
    assert len(files) > 2
    changes = [
        record["change"]
        for file in files
        for record in map(json.loads, file.read_bytes().splitlines())
        if record["kind"] == "change"
    ]
    assert "log_tree_broken" not in changes
    assert "log_tree_caught_up" in changes

    # A proof, checked where nothing of the log is.
    decision = next(
        record["decision_id"]
        for record in map(json.loads, files[1].read_bytes().splitlines())
        if record["kind"] == "decision"
    )
    proof, key, kept = tmp_path / "one.tlog-proof", tmp_path / "log.vkey", tmp_path / "kept.checkpoint"
    cli(root, "prove", decision, "--out", str(proof))
    key.write_text(cli(root, "key"))
    kept.write_bytes((root / "var/decisions.tree/1/checkpoint").read_bytes())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert decision in cli(elsewhere, "verify", "--proof", str(proof), "--key", str(key))
    forged = proof.read_text().replace("index ", "index 1")
    proof.write_text(forged)
    assert "proves nothing" in cli(elsewhere, "verify", "--proof", str(proof), "--key", str(key), status=1)

    # What is done to the files.
    lines = files[1].read_bytes().splitlines(keepends=True)
    files[1].write_bytes(b"".join([*lines[:9], lines[9].replace(b"deny", b"alow"), *lines[10:]]))
    said = cli(root, "verify", "--checkpoint", str(kept), "--key", str(key), status=1)
    assert f"{files[1].name}:10: changed: " in said
    assert "BROKEN, 1 finding" in said
    files[1].write_bytes(b"".join([*lines[:9], *lines[12:]]))
    (finding,) = verified(root, status=1)["findings"]
    assert (finding["kind"], finding["file"], finding["line"]) == ("removed", files[1].name, 9)
    files[1].write_bytes(b"".join(lines))
    assert verified(root, "--checkpoint", str(kept))["good"]

    # A server that starts on a log that was cut says so, and goes on.
    current = root / "var/decisions.jsonl"
    current.write_bytes(b"".join(current.read_bytes().splitlines(keepends=True)[:-1]))
    with served(root) as (server, address):
        assert ask(address, count=5) == 5
        server.send_signal(signal.SIGTERM)
        assert server.wait(TIMEOUT_S) == 0
    report = verified(root, status=1)
    assert [finding["kind"] for finding in report["findings"]] == ["truncated"]
    assert report["trees"][1]["origin"].endswith("/decisions/2")
    assert report["trees"][1]["agreed"] == report["trees"][1]["size"] > 5
