"""What stands on the bench's stage: the servers, each a child that is ended by its own pid, and who runs where."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench import directory
from signalwarden import config
from signalwarden.admin_client import AdminClient
from signalwarden.config import Address
from signalwarden.decision_log import now_us
from signalwarden.errors import SignalwardenError
from signalwarden.server import default_workers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "ROOT",
    "BenchError",
    "Places",
    "Server",
    "allow_all",
    "child",
    "cpu_seconds",
    "floor",
    "metrics",
    "native_missing",
    "pinned",
    "places",
    "program",
    "publish",
    "records_written",
    "reload",
    "served",
    "signalwarden",
]

ROOT: Final = Path(__file__).resolve().parent.parent
START_S: Final = 30.0
"""Ten thousand policies and a busy machine; it takes under a second on a quiet one."""
END_S: Final = 15.0
"""Above the server's own graces."""
PROGRAMS: Final = "SIGNALWARDEN_BENCH_PROGRAMS"
_STARTED: Final = re.compile(
    r"check on (?:127\.0\.0\.1:(\d+)|unix://(\S+)), admin on 127\.0\.0\.1:(\d+)(?:, signals on 127\.0\.0\.1:(\d+))?,"
)
_WRITTEN: Final = re.compile(r"^signalwarden_log_written(?:_total)? ([0-9.e+]+)$", re.MULTILINE)


class BenchError(Exception):
    """One sentence for whoever runs the bench."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers on loopback."""

    pid: int
    port: int
    admin_port: int = 0
    token: str = ""
    signals_port: int = 0
    folder: Path | None = None
    """signalwarden's directory."""
    unix: str = ""
    """The path of its Unix socket, where it listens on one instead of a port."""

    @property
    def target(self) -> str:
        """Its check address, as the load and Envoy are told it."""
        return f"unix://{self.unix}" if self.unix else f"127.0.0.1:{self.port}"


@dataclass(frozen=True, slots=True)
class Places:
    """Cores: one for the servers, another for the load, or None where nothing can be pinned."""

    server: int | None
    load: int | None

    @property
    def server_cores(self) -> int:
        """How many cores the servers have."""
        return (os.cpu_count() or 1) if self.server is None else 1

    def __str__(self) -> str:
        if self.server is None:
            return "not pinned"
        return f"servers pinned to core {self.server}, load to core {self.load}"


def places() -> Places:
    """Two cores of those that this process may use."""
    if not hasattr(os, "sched_getaffinity") or shutil.which("taskset") is None:
        return Places(None, None)
    cores = sorted(os.sched_getaffinity(0))
    return Places(cores[0], cores[1]) if len(cores) > 1 else Places(None, None)


def pinned(core: int | None, command: Sequence[str]) -> list[str]:
    """The command, on one core."""
    return [*command] if core is None else ["taskset", "-c", str(core), *command]


@contextlib.contextmanager
def signalwarden(
    where: Path,
    core: int | None,
    *,
    policies: int,
    influence: str,
    settings: str = "",
    front: str = "grpcio",
    plain: bool = False,
    check: str = directory.LOOPBACK,
) -> Iterator[Server]:
    """The real server, in a directory made for it below `where`, with its twelve signals published. `settings`: more
    lines for signalwarden.yaml, with which it has a signals address, too. `front`, `plain`, `check`: as in
    `directory.make`."""
    made = directory.make(
        where / "directory", policies=policies, influence=influence, front=front, plain=plain, check=check
    )
    if settings:
        file = made.directory / "signalwarden.yaml"
        text = file.read_text(encoding="utf-8")
        text = text.replace('admin: "127.0.0.1:0"', 'admin: "127.0.0.1:0", signals: "127.0.0.1:0"')
        file.write_text(text + settings, encoding="utf-8")
    with served(made, core) as server:
        publish(server, directory.signals_body())
        yield server


def publish(server: Server, body: bytes) -> None:
    """Publishes a body of POST /v1/signals; each value must be accepted."""
    with admin(server) as client:
        publish_by(client, body)


def publish_by(client: AdminClient, body: bytes) -> None:
    """The same with a connection that is there already: what publishes all the time must not load the machine."""
    answer = client.publish(body)
    if answer["rejected"]:
        raise BenchError(f"the server refused signals of the bench: {answer['rejected'][0]}")


def admin(server: Server) -> AdminClient:
    """At its admin address; to be closed."""
    return AdminClient(Address("127.0.0.1", server.admin_port), server.token)


def reload(server: Server) -> str:
    """Makes the server read its directory again. The revision that is in force then."""
    with admin(server) as client:
        return client.reload()


def native_missing(folder: Path) -> str | None:
    """One sentence if this build has no native front door. `folder`: an empty place for a directory with one."""
    made = directory.make(folder, policies=directory.IN_PLAY, front="native")
    try:
        config.load(made.directory, now_us())
    except SignalwardenError as error:
        first = str(error).strip().splitlines()[0]
        return f"the native front door, which this build has not ({first})"
    return None


@contextlib.contextmanager
def served(made: directory.Made, core: int | None, *, start_s: float = START_S) -> Iterator[Server]:
    """The real server of a directory that was made. What it says goes into `server.txt` beside the directory."""
    told = made.directory.parent / "server.txt"
    command = [sys.executable, "-m", "signalwarden.cli", "serve", "--config", str(made.directory)]
    with (
        told.open("wb") as sink,
        child(pinned(core, command), stdout=sink.fileno(), stderr=sink.fileno()) as process,
    ):
        port, unix, admin, signals = _await_doors(process, told, start_s)
        yield Server(
            process.pid, port, admin, made.publisher_token, signals, folder=made.directory, unix=unix
        )


def _await_doors(process: subprocess.Popen[bytes], told: Path, start_s: float) -> tuple[int, str, int, int]:
    """What it says when its doors are open: port or Unix socket of the checks, ports of admin and of signals."""
    deadline = time.monotonic() + start_s
    while time.monotonic() < deadline:
        text = told.read_text(encoding="utf-8", errors="replace")
        if found := _STARTED.search(text):
            return int(found[1] or 0), found[2] or "", int(found[3]), int(found[4] or 0)
        if process.poll() is not None:
            last = text.strip().splitlines()[-1:] or ["it said nothing"]
            raise BenchError(f"the server ended with status {process.returncode}: {last[0]}")
        time.sleep(0.05)
    raise BenchError(f"the server did not start within {start_s:g} s")


@contextlib.contextmanager
def allow_all(core: int | None) -> Iterator[Server]:
    """The bare grpcio server, with as many threads as ours."""
    command = [sys.executable, str(ROOT / "bench" / "allow_all.py"), str(default_workers())]
    with child(pinned(core, command), stdout=subprocess.PIPE) as process:
        yield Server(process.pid, _port_of(process, "the allow-all server"))


@contextlib.contextmanager
def floor(core: int | None, *, threads: int = 1, unix: str = "") -> Iterator[Server]:
    """The server in Rust that lets everything through; on a Unix socket if `unix` is its path."""
    command = [str(program("floor")), "--threads", str(threads)]
    command += ["--listen", f"unix://{unix}"] if unix else []
    with child(pinned(core, command), stdout=subprocess.PIPE) as process:
        port = _port_of(process, "the floor")
        yield Server(process.pid, port, unix=unix)


def program(name: str) -> Path:
    """A program of bench/load, as `make bench-load` builds it; PROGRAMS names another folder than its own."""
    folder = Path(os.environ.get(PROGRAMS, ROOT / "target" / "release"))
    if not (folder / name).is_file():
        raise BenchError(f"`{name}` is not built: run `make bench-load`")
    return folder / name


def _port_of(process: subprocess.Popen[bytes], who: str) -> int:
    """The port that a server says in its first line, alone or behind an address; 0 for a Unix socket."""
    line = process.stdout.readline().decode(errors="replace").strip() if process.stdout else ""
    if line.startswith("unix:"):
        return 0
    port = line.rpartition(":")[2]
    if not port.isdigit():
        raise BenchError(f"{who} did not start")
    return int(port)


@contextlib.contextmanager
def child(
    command: Sequence[str], *, stdout: int, stderr: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process from the root of the repository, ended by its own handle with the context."""
    try:
        started = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)
    except OSError as error:
        raise BenchError(f"`{command[0]}` can't be started: {error.strerror}") from error
    try:
        yield started
    finally:
        if started.poll() is None:
            started.terminate()
        try:
            started.wait(END_S)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()
        if started.stdout is not None:
            started.stdout.close()


def cpu_seconds(pid: int) -> float:
    """User and system time that a process has used, all its threads, in steps of a clock tick."""
    text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def records_written(server: Server) -> int:
    """What the server's metrics say of its decision log."""
    found = _WRITTEN.search(metrics(server))
    if found is None:
        raise BenchError("the server's metrics don't say how many records were written")
    return int(float(found[1]))


def metrics(server: Server) -> str:
    """All of the server's metrics, as it exposes them."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.admin_port}/metrics", headers={"authorization": f"Bearer {server.token}"}
    )
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            request, timeout=END_S
        ) as answer:
            return str(answer.read().decode())
    except OSError as error:
        raise SignalwardenError(f"the server's metrics can't be read: {error}") from error
