"""A server as a user starts it, on Unix sockets, and the verbs of the command line against it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc

from signalwarden import request_json, starter

COMMAND = [sys.executable, "-m", "signalwarden.cli"]
CHECK = "/envoy.service.auth.v3.Authorization/Check"


@dataclass
class Server:
    """A running `signalwarden serve` of a fresh directory, on Unix sockets."""

    made: starter.Starter
    process: subprocess.Popen[str]
    check: str
    asked: int = 0

    def restart(self) -> None:
        """Killed, and started anew."""
        self.process.kill()
        self.process.communicate()
        self.process = start(self.made)

    def run(self, *arguments: str, token: str = "", status: int = 0) -> str:
        """A verb's standard output; its exit status is asserted."""
        environment = {**os.environ, "SIGNALWARDEN_TOKEN": token}
        command = [*COMMAND, *arguments, "--config", str(self.made.directory)]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert ran.returncode == status, ran.stderr
        return ran.stdout if status == 0 else ran.stderr

    def ask(self) -> bytes:
        """One CheckRequest, as Envoy sends it."""
        request = request_json.to_bytes((self.made.directory / "samples" / "refund.json").read_bytes())
        with grpc.insecure_channel(self.check) as channel:
            call = channel.unary_unary(CHECK, bytes, bytes)
            return bytes(call(request, timeout=10))


@contextmanager
def served(folder: Path) -> Iterator[Server]:
    """A fresh starter directory in a folder, served until the end."""
    made = starter.create(folder / "refunds", now=datetime.now(UTC))
    settings = made.directory / "signalwarden.yaml"
    check, admin = f"unix://{folder}/check.sock", f"unix://{folder}/admin.sock"
    text = settings.read_text().replace("127.0.0.1:9191", check).replace("127.0.0.1:9292", admin)
    settings.write_text(text)
    server = Server(made, start(made), check)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.communicate()


def start(made: starter.Starter) -> subprocess.Popen[str]:
    """`signalwarden serve`, once it is ready."""
    command = [*COMMAND, "serve", "--config", str(made.directory)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "check on" in line:
            return process
    raise AssertionError(f"it ended with status {process.wait(10)}")
