"""OPA's Envoy plugin itself, if `OPA_ENVOY_BIN` names its binary: its releases are downloaded by hand."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any, Final

from bench import stage
from bench.peers import translate
from bench.stage import BenchError, Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["PEER", "VARIABLE", "Plugin", "configuration"]

VARIABLE: Final = "OPA_ENVOY_BIN"
VERSION_S: Final = 20.0
_VERSION: Final = re.compile(r"^Version: (\S+)", re.MULTILINE)


def configuration(port: int, *, log: bool) -> dict[str, Any]:
    """OPA's configuration file: the plugin on a port, without what the policies don't read; the log on the console."""
    settings: dict[str, Any] = {
        "plugins": {
            "envoy_ext_authz_grpc": {
                "addr": f"127.0.0.1:{port}",
                "path": "peer/allow",
                "skip-request-body-parse": True,
            }
        }
    }
    return {**settings, "decision_logs": {"console": True}} if log else settings


class Plugin:
    """The plugin, as `bench.peers.Peer` has it."""

    name = "opa-envoy"
    logs = (False, True)

    def missing(self) -> str | None:
        """Whether the variable names a program."""
        named = os.environ.get(VARIABLE)
        if not named:
            return f"{VARIABLE} does not name the binary of OPA's Envoy plugin"
        return None if shutil.which(named) else f"{VARIABLE} names `{named}`, which is no program"

    def build(self) -> None:
        """Nothing: it is another's release."""

    def version(self) -> str:
        """What the binary says of itself."""
        ran = subprocess.run(
            [_binary(), "version"], capture_output=True, text=True, check=False, timeout=VERSION_S
        )
        found = _VERSION.search(ran.stdout)
        return f"opa-envoy {found[1]}" if found else "opa-envoy, of no version that it says"

    @contextlib.contextmanager
    def start(self, core: int | None, directory: Path, *, log: bool) -> Iterator[Server]:
        """Serves what the directory says, with the same Rego as `opa-sdk`; but what is in XFCC its Rego has to read."""
        folder = directory.parent / self.name
        files = folder / "files"
        for name, text in translate.rego(translate.source(directory), xfcc=True).items():
            (files / name).parent.mkdir(parents=True, exist_ok=True)
            (files / name).write_text(text, encoding="utf-8")
        port = _free_port()
        config = folder / "opa.json"
        config.write_text(json.dumps(configuration(port, log=log)), encoding="utf-8")
        command = [
            *(_binary(), "run", "--server", "--addr", "127.0.0.1:0", "--config-file", str(config)),
            *("--log-format", "json", "--log-level", "info" if log else "error", "--skip-version-check"),
            str(files),
        ]
        said = folder / "decisions.jsonl"
        with (
            said.open("wb") as sink,
            stage.child(stage.pinned(core, command), stdout=sink.fileno(), stderr=sink.fileno()) as process,
        ):
            _await(port, process, said)
            yield Server(process.pid, port)


def _binary() -> str:
    return shutil.which(os.environ.get(VARIABLE, "")) or ""


def _free_port() -> int:
    """The plugin does not say which port it got, so it is told one that was free a moment ago."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _await(port: int, process: subprocess.Popen[bytes], said: Path) -> None:
    deadline = time.monotonic() + stage.START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            last = said.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            raise BenchError(f"OPA's Envoy plugin ended: {(last or ['it said nothing'])[0]}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise BenchError(f"OPA's Envoy plugin did not listen within {stage.START_S:g} s")


PEER: Final = Plugin()
