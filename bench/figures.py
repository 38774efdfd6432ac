"""What every bench does around its own measuring: takes its core, says in what circumstances, ends with a status."""

from __future__ import annotations

import json
import os
import signal
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import grpc

from bench import stage
from bench.stage import BenchError
from signalwarden import _core
from signalwarden.errors import SignalwardenError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable

__all__ = ["headline", "opened", "run"]

FAILED, ERROR, INTERRUPTED, ENDED = 1, 2, 130, 143


def run(
    arguments: argparse.Namespace,
    measure: Callable[[argparse.Namespace], dict[str, Any]],
    said: Callable[[dict[str, Any]], Iterable[str]],
) -> int:
    """Measures and prints: JSON with `--json`, else what `said` makes of it. The exit status: 1 if any answer was
    wrong, 2 with a sentence if it could not be measured."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(ENDED))
    try:
        figures = measure(arguments)
    except (BenchError, SignalwardenError, grpc.RpcError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return ERROR
    except KeyboardInterrupt:
        return INTERRUPTED
    print(json.dumps(figures, indent=2) if arguments.json else "\n".join(said(figures)))
    return FAILED if figures["wrong"] else 0


def opened() -> tuple[stage.Places, dict[str, Any]]:
    """Moves this process to the core of the load. Where who runs, and the circumstances; in `wrong` goes each answer
    that was not as it should be."""
    where = stage.places()
    if where.load is not None:
        os.sched_setaffinity(0, {where.load})
    return where, {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "build": _core.BUILD_PROFILE,
        "cores": str(where),
        "load_average": round(os.getloadavg()[0], 1),
        "wrong": [],
    }


def headline(figures: dict[str, Any]) -> str:
    """The circumstances, for people."""
    return f"{figures['time']}, {figures['build']} build, {figures['cores']}, load average {figures['load_average']}"
