"""Honest callers of a front door while something else is done to it: so many checks a second, each judged by its answer, and
the memory of the server meanwhile."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc

from signalwarden.server import CHECK_METHOD
from tests import asking

PER_SECOND: Final = 50
PATIENCE_S: Final = 10.0
"""For one answer: a machine with other work is no attack."""
ALLOWED: Final = bytes(asking.check_request())
DENIED: Final = bytes(asking.check_request(path="/elsewhere"))
EXPECTED: Final = {ALLOWED: "allowed", DENIED: "route_unknown"}


@dataclass
class Answered:
    """What honest callers were told."""

    right: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    took_s: list[float] = field(default_factory=list)

    def percentile_s(self, share: float) -> float:
        """How long the answers took that are faster than all but the rest of this share."""
        ordered = sorted(self.took_s)
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


@contextmanager
def probing(address: str, channel: grpc.Channel | None = None) -> Iterator[Answered]:
    """Asks from now to the end of the block, at moments that do not wait for answers. At the end all are there."""
    told, stop, mutex = Answered(), threading.Event(), threading.Lock()
    with channel or grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as opened:
        call = opened.unary_unary(CHECK_METHOD, request_serializer=bytes, response_deserializer=bytes)
        call(ALLOWED, timeout=PATIENCE_S)
        sent: list[Any] = []
        asker = threading.Thread(target=_ask, args=(call, told, mutex, stop, sent))
        asker.start()
        try:
            yield told
        finally:
            stop.set()
            asker.join()
            for future in sent:
                future.exception(PATIENCE_S)  # its end, whatever it is
        deadline = time.monotonic() + 1.0
        while told.right + told.wrong.total() < len(sent) and time.monotonic() < deadline:
            time.sleep(0.01)  # the last are there, but not yet counted
        assert told.right + told.wrong.total() == len(sent)


def _ask(call: Any, told: Answered, mutex: threading.Lock, stop: threading.Event, sent: list[Any]) -> None:
    started = time.monotonic()
    while not stop.wait(max(0.0, started + len(sent) / PER_SECOND - time.monotonic())):
        request = DENIED if len(sent) % 2 else ALLOWED
        due = time.monotonic()
        future = call.future(request, timeout=PATIENCE_S)
        future.add_done_callback(lambda done, r=request, at=due: _judge(done, EXPECTED[r], at, told, mutex))
        sent.append(future)


def _judge(done: Any, expected: str, due: float, told: Answered, mutex: threading.Lock) -> None:
    code = done.code()
    found = (
        asking.reason_of(bytes(done.result()))
        if code is grpc.StatusCode.OK
        else f"{code.name}: {done.details()}"
    )
    with mutex:
        told.took_s.append(time.monotonic() - due)
        if found == expected:
            told.right += 1
        else:
            told.wrong[found] += 1


# ---- the server's process ---------------------------------------------------------------------------------


def memory_kb(pid: int, key: str = "VmRSS") -> int:
    """A figure of the kernel's: VmRSS now, VmHWM at most since `forget_peak`."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1])
    raise AssertionError(key)


def forget_peak(pid: int) -> None:
    """The highest memory counts from now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def open_files(pid: int) -> int:
    """How many descriptors it holds."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def threads(pid: int) -> int:
    """How many threads it has."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def processor_s(pid: int) -> float:
    """Processor time that it has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
