"""A peer that is a Go program of the module in this folder: built once into `target/peers`, started with its files."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench import stage
from bench.peers import translate
from bench.stage import ROOT, BenchError, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["PROGRAMS", "GoPeer", "first_line"]

MODULE: Final = Path(__file__).resolve().parent
PROGRAMS: Final = ROOT / "target" / "peers"
BUILD_S: Final = 1_200.0
"""OPA's first build compiles and fetches some 150 modules: three minutes on two busy cores."""
LINE_MOST: Final = 200
"""What a server says first is a port."""


@dataclass(frozen=True, slots=True)
class GoPeer:
    """A peer in Go, as `bench.peers.Peer` has it."""

    name: str
    logs: tuple[bool, ...]
    program: str
    """The folder of its `main` package, and the name of the binary."""
    translated: Callable[[translate.Source], Mapping[str, str]]
    """From the directory to the files that it reads, by name."""
    log_options: tuple[str, ...] = ()
    """How it is told to keep a decision log."""

    @property
    def binary(self) -> Path:
        """Where it is built to."""
        return PROGRAMS / self.program

    def missing(self) -> str | None:
        """Whether there is neither Go nor a program that was built before."""
        if shutil.which("go") is None and not self.built:
            return "there is no `go` on the PATH to build it with"
        return None

    def build(self) -> None:
        """Compiles what is not compiled yet, on one core and in the background's time."""
        if self.built:
            return
        PROGRAMS.mkdir(parents=True, exist_ok=True)
        command = ["go", "build", "-p", "1", "-trimpath", "-o", str(self.binary), f"./{self.program}"]
        nice = [] if shutil.which("nice") is None else ["nice", "-n", "10"]
        try:
            ran = subprocess.run(
                [*nice, *command],
                cwd=MODULE,
                check=False,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=BUILD_S,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BenchError(f"{self.name} could not be built: {error}") from error
        if ran.returncode:
            last = ran.stderr.strip().splitlines()[-1:] or [f"`go build` ended with {ran.returncode}"]
            raise BenchError(f"{self.name} could not be built: {last[0]}")

    def version(self) -> str:
        """What the program says of itself."""
        ran = subprocess.run(
            [str(self.binary), "-version"], capture_output=True, text=True, check=False, timeout=stage.END_S
        )
        return ran.stdout.strip() or "unknown"

    @contextlib.contextmanager
    def start(self, core: int | None, directory: Path, *, log: bool) -> Iterator[Server]:
        """Serves what the directory says. Translated files, what it says and its log lie beside the directory."""
        folder = directory.parent / self.name
        files = folder / "files"
        for name, text in self.translated(translate.source(directory)).items():
            (files / name).parent.mkdir(parents=True, exist_ok=True)
            (files / name).write_text(text, encoding="utf-8")
        command = [str(self.binary), "-listen", "127.0.0.1:0", "-files", str(files)]
        if log:
            command += [*self.log_options, "-log-to", str(folder / "decisions.jsonl")]
        said = folder / "said.txt"
        with (
            said.open("wb") as sink,
            stage.child(stage.pinned(core, command), stdout=subprocess.PIPE, stderr=sink.fileno()) as process,
        ):
            port = first_line(process)
            if not port.isdigit():
                told = said.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
                raise BenchError(f"{self.name} did not start: {(told or ['it said nothing'])[0]}")
            yield Server(process.pid, int(port))

    @property
    def built(self) -> bool:
        """Whether the program is there and younger than all that it is made from."""
        sources = [
            *MODULE.glob("go.*"),
            *MODULE.glob("internal/**/*.go"),
            *MODULE.glob(f"{self.program}/*.go"),
        ]
        try:
            made = self.binary.stat().st_mtime
        except OSError:
            return False
        return all(file.stat().st_mtime <= made for file in sources if not file.name.endswith("_test.go"))


def first_line(process: subprocess.Popen[bytes]) -> str:
    """The first line that a child says, empty if it ends or START_S pass without one."""
    if process.stdout is None:
        return ""
    descriptor, told = process.stdout.fileno(), b""
    deadline = time.monotonic() + stage.START_S
    while b"\n" not in told and len(told) < LINE_MOST:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        chunk = os.read(descriptor, LINE_MOST) if ready else b""
        if not chunk:
            return ""
        told += chunk
    return told.partition(b"\n")[0].decode(errors="replace").strip()
