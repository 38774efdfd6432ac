"""`make bench-rego`: what one decision by the same policy in Rego costs here and in OPA, by turns in one run.

Both decide the same questions by the same text, and their answers are compared before anything is timed. Ours is the
whole `Engine.check`: bytes in, 12 signals gathered, the policy, a record, bytes out. OPA's is the conversion of the
input and the evaluation of a prepared query, without a decision log: what its Envoy plugin does at least.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any, Final

sys.path.insert(
    0, str(Path(__file__).resolve().parent.parent)
)  # run as a script, `bench` is not found otherwise

from bench import stage, verb
from bench.peers.golang import GoPeer
from bench.stage import ROOT, BenchError

__all__ = ["main", "measure"]

OURS: Final = ROOT / "target" / "release" / "examples" / "rego_cost"
OPA: Final = GoPeer("opa-eval", (), "rego_cost", lambda _: {})
RULES: Final = (10, 100)
"""Ten rules are those of one action; of a hundred, ten are of the action that is asked for."""
CHECKS, ROUNDS, TURNS = 5_000, 3, 5
RUN_S: Final = 300.0


def measure(checks: int = CHECKS, turns: int = TURNS) -> dict[str, Any]:
    """Every size, each by turns. In `wrong` goes what the two answer differently."""
    found: dict[str, Any] = {
        "load_average": round(os.getloadavg()[0], 1),
        "checks": checks,
        "sizes": [],
        "wrong": [],
    }
    why = OPA.missing()
    if why:
        raise BenchError(f"there is nothing to compare with: {why}")
    OPA.build()
    found["opa"] = OPA.version()
    core = stage.places().server
    with tempfile.TemporaryDirectory(prefix="signalwarden-bench-") as folder:
        for rules in RULES:
            _run(core, [str(OURS), "files", str(rules), folder])
            ours = ["time", str(rules), str(checks), str(ROUNDS)]
            theirs = ["-files", folder, "-checks", str(checks), "-rounds", str(ROUNDS)]
            times: dict[str, list[int]] = {"signalwarden": [], "opa": []}
            answers: dict[str, list[bool]] = {}
            for _ in range(turns):
                for name, command in (
                    ("signalwarden", [str(OURS), *ours]),
                    ("opa", [str(OPA.binary), *theirs]),
                ):
                    said = json.loads(_run(core, command))
                    answers[name] = said["answers"]
                    times[name].append(min(said["ns"]))
            if answers["signalwarden"] != answers["opa"]:
                found["wrong"].append(
                    f"{rules} rules: {answers['signalwarden']} here, {answers['opa']} by OPA"
                )
            found["sizes"].append(
                {
                    "rules": rules,
                    "answers": answers["opa"],
                    "signalwarden_ns": int(median(times["signalwarden"])),
                    "opa_ns": int(median(times["opa"])),
                    "ratio": round(
                        median(a / b for a, b in zip(times["signalwarden"], times["opa"], strict=True)), 2
                    ),
                }
            )
    return found


def _run(core: int | None, command: list[str]) -> str:
    try:
        ran = subprocess.run(
            stage.pinned(core, command), check=False, capture_output=True, text=True, timeout=RUN_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchError(f"{Path(command[0]).name} did not run: {error}") from error
    if ran.returncode:
        last = ran.stderr.strip().splitlines()[-1:] or [f"it ended with {ran.returncode}"]
        raise BenchError(f"{Path(command[0]).name}: {last[0]}")
    return ran.stdout


def show(found: dict[str, Any]) -> None:
    """For people."""
    print(f"{found['opa']}, load average {found['load_average']}")
    for size in found["sizes"]:
        allowed = sum(size["answers"])
        print(
            f"{size['rules']:>4} rules: signalwarden, the whole check {size['signalwarden_ns'] / 1000:.1f} µs; "
            f"OPA, the evaluation {size['opa_ns'] / 1000:.1f} µs; ratio {size['ratio']} "
            f"({allowed} of {len(size['answers'])} questions allowed by both)"
        )
    print("\n".join(f"WRONG {wrong}" for wrong in found["wrong"]), end="\n" if found["wrong"] else "")


def main() -> int:
    """See `verb.run`."""
    parser = argparse.ArgumentParser(description="a decision by a policy in Rego, here and in OPA")
    parser.add_argument("--checks", type=int, default=CHECKS, help=f"decisions of a round, default {CHECKS}")
    parser.add_argument("--turns", type=int, default=TURNS, help=f"turns of each, default {TURNS}")
    parser.add_argument("--out", type=Path, help="keeps the result in this file")
    parser.add_argument("--json", action="store_true", help="prints the result as JSON")
    arguments = parser.parse_args()
    return verb.run(arguments, lambda: measure(arguments.checks, arguments.turns), show)


if __name__ == "__main__":
    sys.exit(main())
