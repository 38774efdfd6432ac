"""Instructions of one check, counted by callgrind and held against a committed baseline: dearer is a failure.

    python bench/gate.py                    counts and compares
    python bench/gate.py --write            counts, and makes that the baseline

Time on a shared machine is too noisy to find a few per cent; the same instructions are executed each time. Counted is
the example `rust_core/core/examples/check_count` as the tests build it, in the profile `dev`, so that no dependency is
compiled for it alone. Without valgrind nothing is counted, and that is said.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

__all__ = ["Counted", "compared", "counts_of", "main"]

ROOT: Final = Path(__file__).resolve().parents[1]
BASELINE: Final = Path(__file__).with_name("instructions.json")
POLICIES, SIGNALS, CHECKS = 100, 12, 200
ROWS: Final = [
    # influence, request, where records are accepted
    ("none", "allowed", "memory"),
    ("none", "allowed", "ring"),
    ("default", "denied", "memory"),
    ("default", "denied", "ring"),
]
"""With `default` an allowed call of medium sensitivity costs what it costs with `none`; a denied one has influence."""
PARTS: Final = {"check": "one_check", "drain": "one_drain"}
"""What is counted, by the functions of the example: the answer's path, and a record's way out of the ring."""
TOLERANCE: Final = 0.03
OTHER_COMPILER: Final = 0.12
"""How much dearer a figure may be: with the compiler of the baseline, and with another one, which makes other code."""
SLACK: Final = 2_000
"""Instructions that no figure is held to. One figure, the drain of an allow from the ring, comes to 14,600 or to 16,100
from run to run (tables are seeded anew in each process, which may be why); the others move by half a per cent."""
BUILD_SECONDS, COUNT_SECONDS = 1_800, 300
FAILED, ERROR = 1, 2

Counted = dict[str, int]
"""Instructions, by figure: `check none allowed ring`."""


class GateError(Exception):
    """Why nothing could be counted: one sentence."""


def counts_of(profile: str, functions: dict[str, str], calls: int) -> Counted:
    """Instructions of one call of each function, callees included, from callgrind's file. `functions`: figures,
    and the last part of the function's path. Raises GateError if one was never called."""
    names: dict[str, str] = {}
    sums = dict.fromkeys(functions, 0)
    current: str | None = None
    for line in profile.splitlines():
        if found := re.match(r"(fn|cfn)=\((\d+)\)(?: (.*))?$", line):
            kind, number, name = found.groups()
            # A name is written once; afterwards its number stands for it.
            name = names.setdefault(number, name or "")
            if kind == "fn":
                last = re.sub(r"(::h[0-9a-f]{16}|'\d+)$", "", name).rsplit("::", 1)[-1]
                current = next((figure for figure, wanted in functions.items() if last == wanted), None)
        elif current is not None and re.match(r"[+\-*\d]\S* \d+$", line):
            sums[current] += int(line.rsplit(" ", 1)[1])
    if missing := [figure for figure, total in sums.items() if total == 0]:
        raise GateError(f"callgrind saw no call of {', '.join(functions[figure] for figure in missing)}")
    return {figure: total // calls for figure, total in sums.items()}


def compared(
    counted: Counted, baseline: Counted, tolerance: float, slack: int = SLACK
) -> tuple[list[str], bool]:
    """A line for each figure, and whether all are within the tolerance. One that the baseline lacks is not."""
    lines, good = [], True
    for figure, count in counted.items():
        known = baseline.get(figure)
        if known is None:
            lines.append(f"{figure:<32}{count:>10,}  is not in the baseline")
            good = False
            continue
        change = count / known - 1
        borne = max(known * tolerance, slack)
        dearer, cheaper = count - known > borne, known - count > borne
        verdict = "DEARER" if dearer else "cheaper: make gate-baseline" if cheaper else ""
        lines.append(f"{figure:<32}{count:>10,}{known:>10,}{change:>+8.1%}  {verdict}".rstrip())
        good &= not dearer
    return lines, good


def _counted() -> Counted:
    # As `cargo test --workspace` has built everything already: for one crate alone other features of its dependencies
    # would be chosen, and Cedar compiled once more.
    command = ["cargo", "build", "--quiet", "--workspace", "--example", "check_count"]
    if subprocess.run(command, cwd=ROOT, timeout=BUILD_SECONDS, check=False).returncode:
        raise GateError("check_count could not be built")
    counted: Counted = {}
    with tempfile.TemporaryDirectory() as directory:
        for row in ROWS:
            profile = Path(directory) / "out"
            _run_callgrind(row, profile)
            # One call more than is asked for: the first one brings what is made once.
            found = counts_of(profile.read_text(encoding="utf-8"), PARTS, CHECKS + 1)
            counted |= {f"{part} {' '.join(row)}": count for part, count in found.items()}
    return counted


def _run_callgrind(row: tuple[str, ...], profile: Path) -> None:
    program = ROOT / "target" / "debug" / "examples" / "check_count"
    functions = [f"--toggle-collect=*{name}*" for name in PARTS.values()]
    command = [
        *(
            "valgrind",
            "--quiet",
            "--tool=callgrind",
            f"--callgrind-out-file={profile}",
            "--collect-atstart=no",
        ),
        *functions,
        *(str(program), str(POLICIES), str(SIGNALS), str(CHECKS), *row),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COUNT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise GateError(f"callgrind took longer than {COUNT_SECONDS} s") from None
    if done.returncode:
        raise GateError(f"callgrind failed: {done.stderr.strip().splitlines()[-1:]}")


def _compiler() -> str:
    return subprocess.run(
        ["rustc", "--version"], capture_output=True, text=True, timeout=60, check=True
    ).stdout.strip()


def main() -> int:
    """The exit status: 1 if a figure is dearer than the baseline, 2 if it could not be counted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help="makes what is counted the baseline")
    arguments = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("gate: valgrind is not there, so the instructions of a check are not counted")
        return 0
    try:
        counted = _counted()
    except (GateError, OSError) as error:
        print(f"gate: {error}", file=sys.stderr)
        return ERROR
    if arguments.write:
        text = json.dumps({"compiler": _compiler(), "instructions": counted}, indent=2)
        BASELINE.write_text(text + "\n", encoding="utf-8")
        print(f"gate: {BASELINE.name} is written")
        return 0
    baseline = json.loads(BASELINE.read_text(encoding="utf-8"))
    same = baseline["compiler"] == _compiler()
    tolerance = TOLERANCE if same else OTHER_COMPILER
    lines, good = compared(counted, baseline["instructions"], tolerance)
    made = "" if same else f"; the baseline was made with {baseline['compiler']}, this is another compiler"
    print(
        f"instructions of one check, now and in the baseline ({tolerance:.0%} and {SLACK:,} are borne{made}):"
    )
    print("\n".join(lines))
    return 0 if good else FAILED


if __name__ == "__main__":
    sys.exit(main())
