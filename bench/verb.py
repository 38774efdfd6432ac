"""What the verbs of the bench have in common: how they end, what they keep and print, and progress."""

from __future__ import annotations

import json
import signal
import sys
from typing import TYPE_CHECKING, Any

from bench import results
from bench.stage import BenchError
from signalwarden.errors import SignalwardenError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

__all__ = ["run", "say"]

FAILED, ERROR, INTERRUPTED, ENDED = 1, 2, 130, 143


def run(
    arguments: argparse.Namespace,
    measure: Callable[[], dict[str, Any]],
    show: Callable[[dict[str, Any]], None],
) -> int:
    """Measures, keeps the document (`arguments.out`), and prints it as JSON (`arguments.json`) or for people. The exit
    status: 1 if an answer was wrong, 2 if it could not be measured."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(ENDED))
    try:
        made = measure()
        if arguments.out:
            results.write(made, arguments.out)
    except (BenchError, SignalwardenError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return ERROR
    except KeyboardInterrupt:
        return INTERRUPTED
    if arguments.json:
        print(json.dumps(made, indent=1))
    else:
        show(made)
    return FAILED if made["wrong"] else 0


def say(text: str) -> None:
    """Progress, for people."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
