"""What Linux says of a process: processor time, memory, context switches, and on which cores it may run.

Figures are of the whole process, all its threads. A tick of processor time is 10 ms on most kernels.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench import stage

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Reading", "memory", "read", "rss_mb", "run_on"]


@dataclass(frozen=True, slots=True)
class Reading:
    """A process at one moment."""

    cpu_s: float
    """User and system time since its start."""
    rss_mb: float
    """Resident memory, in MiB."""
    voluntary: int
    """Times that its threads waited for something; of those that are still there."""
    involuntary: int
    """Times that its threads were made to wait for others."""


def read(pid: int) -> Reading:
    """Reads it. A `BenchError` where there is no such process, or no /proc."""
    try:
        switches = [_switches(task / "status") for task in Path(f"/proc/{pid}/task").iterdir()]
        return Reading(
            stage.cpu_seconds(pid),
            rss_mb(pid),
            sum(switch[0] for switch in switches),
            sum(switch[1] for switch in switches),
        )
    except OSError as error:
        raise stage.BenchError(f"process {pid} can't be read from /proc: {error.strerror}") from error


def rss_mb(pid: int) -> float:
    """Resident memory, in MiB."""
    return parse_rss_mb(Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace"))


def memory(pid: int) -> dict[str, float]:
    """In MiB: `rss`, all that is resident, and `own` of it, without what is a file's (the program, the mapped ring)."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    return {"rss": round(parse_rss_mb(text), 1), "own": round(parse_own_mb(text), 1)}


def parse_rss_mb(status: str) -> float:
    """`VmRSS` of a `status` file, in MiB; 0 for a process that has none left."""
    found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def parse_own_mb(status: str) -> float:
    """`RssAnon` of a `status` file, in MiB: what is no file's, mapped or program."""
    found = re.search(r"^RssAnon:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def parse_switches(status: str) -> tuple[int, int]:
    """Voluntary and involuntary context switches of a `status` file."""
    found = dict(re.findall(r"^(voluntary|nonvoluntary)_ctxt_switches:\s+(\d+)$", status, re.MULTILINE))
    return int(found.get("voluntary", 0)), int(found.get("nonvoluntary", 0))


def _switches(status: Path) -> tuple[int, int]:
    try:
        return parse_switches(status.read_text(encoding="ascii", errors="replace"))
    except OSError:  # the thread has ended meanwhile
        return 0, 0


def run_on(pid: int, cores: Iterable[int]) -> None:
    """Lets all threads of a process run on these cores, and those that it makes from now on."""
    wanted = set(cores)
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            os.sched_setaffinity(int(task.name), wanted)
        except ProcessLookupError:
            continue
        except OSError as error:
            raise stage.BenchError(f"process {pid} can't be moved: {error.strerror}") from error
