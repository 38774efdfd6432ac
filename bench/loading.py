"""The load of the Rust program `load`: how it is called, and what it says."""

from __future__ import annotations

import json
import resource
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from bench import stage
from bench.stage import BenchError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Asking", "Seen", "ask"]

EXTRA_S: Final = 20.0
"""Beyond its own time: five seconds for last answers, and a busy machine."""
BUSY: Final = 0.95
"""A load that used this much of its core was what was measured, not the server."""


@dataclass(frozen=True, slots=True)
class Asking:
    """One run of the load."""

    seconds: float
    warm_up: float = 0.3
    rate: int | None = None
    """A second, whatever comes back; None: a closed loop."""
    connections: int = 2
    streams: int = 8
    http: bool = False
    """HTTP/1.1, through Envoy; one call at a time on each connection."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the load saw."""

    answered: int
    """After the warm-up."""
    answered_in_all: int
    rps: float
    late: int
    """Sent more than a millisecond after their moment; their latency is counted from that moment all the same."""
    unsent: int
    """Their moment came, and they were never sent: the load, or what it waited for, fell behind the rate."""
    unanswered: int
    outcomes: dict[str, int]
    reasons: dict[str, int]
    latency_us: dict[str, Any]
    """min, mean, p50 … p99_99, max, and `table`: percentile, value."""
    load_share: float
    """Of one core, what the load itself used."""

    @property
    def load_bound(self) -> bool:
        """Whether the load had no more to give."""
        return self.load_share >= BUSY

    @property
    def wrong(self) -> int:
        """Calls that were not answered as they must be."""
        odd = sum(count for name, count in self.outcomes.items() if name not in ("allow", "deny"))
        return odd + self.unanswered


def ask(target: str, requests: Path, asking: Asking, core: int | None) -> Seen:
    """Asks the server at `target` for a while. A `BenchError` if the load can't, or got no answer at all."""
    command = [
        *(str(stage.program("load")), "--target", target, "--requests", str(requests)),
        *("--seconds", str(asking.seconds), "--warm-up", str(asking.warm_up)),
        *("--connections", str(asking.connections), "--streams", str(asking.streams)),
        *(("--http",) if asking.http else ()),
        *(("--rate", str(asking.rate)) if asking.rate else ()),
    ]
    limit = asking.seconds + asking.warm_up + EXTRA_S
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    try:
        ended = subprocess.run(
            stage.pinned(core, command), capture_output=True, timeout=limit, check=False, cwd=stage.ROOT
        )
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"the load did not end within {limit:g} s") from error
    except OSError as error:
        raise BenchError(f"the load can't be started: {error.strerror}") from error
    took, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if ended.returncode:
        raise BenchError(ended.stderr.decode(errors="replace").strip().splitlines()[0])
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return read(json.loads(ended.stdout), used / took)


def read(figures: dict[str, Any], load_share: float) -> Seen:
    """What the line of JSON says. A `BenchError` if nothing was answered."""
    if not figures["answered"]:
        raise BenchError(f"the load got no answer: nothing was measured ({figures['outcomes']})")
    return Seen(
        answered=figures["answered"],
        answered_in_all=figures["answered_in_all"],
        rps=figures["rps"],
        late=figures["late"],
        unsent=figures["unsent"],
        unanswered=figures["unanswered"],
        outcomes={name: count for name, count in figures["outcomes"].items() if count},
        reasons=figures["reasons"],
        latency_us=figures["latency_us"],
        load_share=load_share,
    )
