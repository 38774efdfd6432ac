"""Runs the shell snippets of a page as one script, on free ports and in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

TIMEOUT_S: Final = 120.0
"""Each command starts an interpreter, and a loaded machine takes its time."""
SHIM: Final = """\
#!/bin/sh
# The examples use the default ports; a test takes free ones.
if [ "$1" = init ]; then
    "$REAL_SIGNALWARDEN" "$@" && sed -i.bak -e "s/127.0.0.1:9191/$CHECK/" -e "s/127.0.0.1:9292/$ADMIN/" "$2/signalwarden.yaml"
else
    exec "$REAL_SIGNALWARDEN" "$@"
fi
"""


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def run_shell(script: str, folder: Path) -> str:
    """Runs the blocks of a page as one script, in a folder of its own. Nothing is left running."""
    missing = [
        tool for tool in ("bash", "curl", "openssl", "sha256sum") if tool in script and not shutil.which(tool)
    ]
    if missing or not shutil.which("bash"):
        pytest.skip(f"this machine has no {' and no '.join(missing or ['bash'])}")
    check, admin = free_address(), free_address()
    script = script.replace("127.0.0.1:9191", check).replace("127.0.0.1:9292", admin)
    tools = folder / "tools"
    tools.mkdir(parents=True)
    shim = tools / "signalwarden"
    shim.write_text(SHIM)
    shim.chmod(0o700)
    scripts = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(tools), str(scripts), os.environ["PATH"]]),
        "REAL_SIGNALWARDEN": str(scripts / "signalwarden"),
        "CHECK": check,
        "ADMIN": admin,
        "no_proxy": "*",
    }
    said = tools / "output"
    # Into a file: a server that a failing script leaves behind would keep a pipe open.
    with said.open("wb") as stdout:
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=environment,
            stdout=stdout, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            status = process.wait(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    output = said.read_text()
    assert status is not None, f"the snippets did not end:\n{output}"
    assert status == 0, output
    return output
