"""The fault table of docs/operations.md: each fault of the log and its sinks with a real server, at many requests.

`python -m bench.log_faults [COUNT] [NAME…]`
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.log_faults import SCENARIOS, Run


def main(count: int, names: list[str]) -> None:
    print(f"{count} requests each")
    print("| fault | answers during it | lost | twice | counted | memory before, peak (MB) | said |")
    for name in names or SCENARIOS:
        scenario = SCENARIOS[name]
        with tempfile.TemporaryDirectory() as place:
            started = time.monotonic()
            found = scenario(Run(Path(place) / "conf", count))
            took = time.monotonic() - started
        answers = ", ".join(
            f"{number} {reason}" for reason, number in sorted(found.answers.items()) if number
        )
        memory = f"{found.memory_kb / 1000:.0f}, {found.peak_kb / 1000:.0f}"
        figures = f"{found.lost} | {found.twice} | {found.counted} | {memory}"
        print(f"| {scenario.__doc__} | {answers} | {figures} | {found.said} | {took:.0f} s", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000, sys.argv[2:])
