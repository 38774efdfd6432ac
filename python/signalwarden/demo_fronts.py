"""The end of the demo's first act: both front doors side by side, asked the same question without an Envoy between."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc

from signalwarden import request_json, starter
from signalwarden.demo_stage import LOOPBACK, free_port, start_server, stopping
from signalwarden.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

__all__ = ["FRONTS", "opening", "show"]

FRONTS: Final = ("grpcio", "native")
CALLS: Final = 400
"""For each door, by turns, so that a neighbour's burst meets both: a second or two in all."""
WARM_UP: Final = 50
CHECK: Final = "/envoy.service.auth.v3.Authorization/Check"
TIMEOUT_S: Final = 10


def opening(directory: Path, front: str, *, check: int, admin: int) -> None:
    """Says in a fresh starter directory where its doors open, and which of both serves checks."""
    settings = directory / "signalwarden.yaml"
    text = settings.read_text(encoding="utf-8").replace("127.0.0.1:9191", f"{LOOPBACK}:{check}")
    text = text.replace("127.0.0.1:9292", f"{LOOPBACK}:{admin}")
    settings.write_text(text.replace("listen:\n", f"listen:\n  front: {front}\n"), encoding="utf-8")


@dataclass(frozen=True, slots=True)
class _Door:
    """A running server, and how it answers."""

    front: str
    pid: int
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes]
    times: list[float]


def show(base: Path, out: Console) -> None:
    """Prints what one call takes at each door, and what it costs the server. Raises ServerError."""
    with contextlib.ExitStack() as stack:
        doors = [_open(stack, base, front) for front in FRONTS]
        request = request_json.to_bytes((base / FRONTS[0] / "samples" / "refund.json").read_bytes())
        for _ in range(WARM_UP):
            _ask(doors, request)
        for door in doors:
            door.times.clear()
        before = [_cpu_s(door.pid) for door in doors]
        for _ in range(CALLS):
            _ask(doors, request)
        for door, start in zip(doors, before, strict=True):
            end = _cpu_s(door.pid)
            cost = (
                f", {(end - start) / CALLS * 1e6:.0f} µs of the server's processor time"
                if start is not None and end is not None
                else ""
            )
            out.print(
                f"[bold]front: {door.front}[/], asked without an Envoy between: median"
                f" {statistics.median(door.times) * 1000:.2f} ms a call, one at a time{cost}.",
                highlight=False,
                soft_wrap=True,
            )


def _open(stack: contextlib.ExitStack, base: Path, front: str) -> _Door:
    check, admin = free_port(), free_port()
    made = starter.create(base / front, now=datetime.now(UTC))
    opening(made.directory, front, check=check, admin=admin)
    process = stack.enter_context(stopping(start_server(made.directory, admin, base / f"{front}.log")))
    channel = stack.enter_context(grpc.insecure_channel(f"{LOOPBACK}:{check}"))
    return _Door(front, process.pid, channel.unary_unary(CHECK, bytes, bytes), [])


def _ask(doors: Sequence[_Door], request: bytes) -> None:
    for door in doors:
        started = time.perf_counter()
        try:
            door.call(request, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            raise ServerError(f"the front door `{door.front}` did not answer: {error}") from error
        door.times.append(time.perf_counter() - started)


def _cpu_s(pid: int) -> float | None:
    """User and system time of a process so far; None where the system does not say (`proc(5)`)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return None
