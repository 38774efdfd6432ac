"""Compares how OPA's conformance cases stand with the committed baseline, which may only get better.

    python tests/conformance/run.py STANDINGS            # 1: a case got worse, or one is wrong
    python tests/conformance/run.py STANDINGS --write    # makes today's standings the baseline, if none is worse or wrong

STANDINGS is what the example `rego_cases` prints. The page of docs is written with the baseline.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Standing", "baseline_of", "compare", "main", "read", "table"]

ROOT: Final = Path(__file__).resolve().parents[2]
BASELINE: Final = ROOT / "tests/conformance/baseline.json"
PAGE: Final = ROOT / "docs/rego-conformance.md"
MARK: Final = ("<!-- standings -->", "<!-- end of standings -->")

#: From the worst to the best. Refused is told before anything runs; a difference denies when it is met.
ORDER: Final = ("wrong", "differs", "refused", "passed")

WORSE: Final = 1


@dataclass(frozen=True, slots=True)
class Standing:
    """How one case stands."""

    folder: str
    #: As OPA calls it; `#2` for the second of a name in a folder.
    note: str
    standing: str
    #: Code of the finding that refused it, or why it differs in a few words.
    why: str


def reason(code: str, why: str) -> str:
    """A few words for what a line says at length."""
    if code:
        return code
    short = re.sub(r"^\S+:\d+:\d+: ", "", why)
    short = re.sub(r"(`[^`]*`|\"[^\"]*\"|\d+)", "…", short)
    return short[:80]


def read(lines: Iterable[str]) -> list[Standing]:
    """The lines of the example, with a name of its own for each case."""
    seen: Counter[tuple[str, str]] = Counter()
    found = []
    for line in lines:
        case = json.loads(line)
        name = (case["folder"], case["note"])
        seen[name] += 1
        note = case["note"] if seen[name] == 1 else f"{case['note']}#{seen[name]}"
        why = case["why"] if case["standing"] == "wrong" else reason(case["code"], case["why"])
        found.append(Standing(case["folder"], note, case["standing"], why))
    return found


def baseline_of(standings: Iterable[Standing]) -> dict[str, dict[str, object]]:
    """By folder: how many cases there are, and those that don't pass, by why."""
    made: dict[str, dict[str, object]] = {}
    for case in standings:
        folder = made.setdefault(case.folder, {"cases": 0})
        folder["cases"] = int(str(folder["cases"])) + 1
        if case.standing != "passed":
            reasons = folder.setdefault(case.standing, {})
            assert isinstance(reasons, dict)
            reasons.setdefault(case.why, []).append(case.note)
    return {folder: dict(sorted(parts.items())) for folder, parts in sorted(made.items())}


def _before(baseline: Mapping[str, Mapping[str, object]]) -> dict[tuple[str, str], str]:
    found = {}
    for folder, parts in baseline.items():
        for standing, reasons in parts.items():
            if isinstance(reasons, Mapping):
                found.update({(folder, note): standing for notes in reasons.values() for note in notes})
    return found


def compare(
    standings: Iterable[Standing], baseline: Mapping[str, Mapping[str, object]]
) -> tuple[list[str], list[str]]:
    """What is wrong or worse than the baseline, and what is better."""
    worse, better = [], []
    before = _before(baseline)
    count: Counter[str] = Counter()
    for case in standings:
        count[case.folder] += 1
        was = before.get((case.folder, case.note), "passed")
        name = f"{case.folder}: {case.note}"
        if case.standing == "wrong":
            worse.append(f"{name}: silently wrong: {case.why}")
        elif ORDER.index(case.standing) < ORDER.index(was):
            worse.append(f"{name}: was {was}, is {case.standing}: {case.why}")
        elif case.standing != was:
            better.append(f"{name}: was {was}, is {case.standing}")
    for folder in sorted(set(baseline) | set(count)):
        expected = baseline.get(folder, {}).get("cases", 0)
        if expected != count[folder]:
            worse.append(f"{folder}: {expected} cases in the baseline, {count[folder]} here")
    return worse, better


def table(baseline: Mapping[str, Mapping[str, object]]) -> str:
    """The standings of each folder, in Markdown, with their sums first."""

    def number(parts: Mapping[str, object], standing: str) -> int:
        reasons = parts.get(standing, {})
        return sum(len(notes) for notes in reasons.values()) if isinstance(reasons, Mapping) else 0

    rows = [
        "| folder | cases | passed | refused at load | denied where OPA answers | silently wrong |",
        "|---|---|---|---|---|---|",
    ]
    for title, chosen in [
        *(
            (f"**{version}, all**", [p for f, p in baseline.items() if f.startswith(f"{version}/")])
            for version in ("v1", "v0")
        ),
        *(
            (folder, [parts])
            for folder, parts in sorted(baseline.items(), key=lambda row: (row[0][:2] != "v1", row[0]))
        ),
    ]:
        cases = sum(int(str(parts["cases"])) for parts in chosen)
        refused, differs, wrong = (
            sum(number(parts, s) for parts in chosen) for s in ("refused", "differs", "wrong")
        )
        rows.append(
            f"| {title} | {cases} | {cases - refused - differs - wrong} | {refused} | {differs} | {wrong} |"
        )
    return "\n".join(rows)


def _reasons(baseline: Mapping[str, Mapping[str, object]]) -> str:
    counted: Counter[tuple[str, str]] = Counter()
    for folder, parts in baseline.items():
        refused = parts.get("refused", {})
        if isinstance(refused, Mapping):
            for why, notes in refused.items():
                counted[folder[:2], why] += len(notes)
    codes = sorted({why for _, why in counted}, key=lambda why: -counted["v1", why])
    rows = ["| refused at load because | v1 | v0 |", "|---|---|---|"]
    rows += [f"| `{code}` | {counted['v1', code]} | {counted['v0', code]} |" for code in codes]
    return "\n".join(rows)


def write(baseline: Mapping[str, Mapping[str, object]]) -> None:
    """The baseline, one folder a line, and the page."""
    lines = [
        f"{json.dumps(folder)}: {json.dumps(parts, ensure_ascii=False)}" for folder, parts in baseline.items()
    ]
    BASELINE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    begin, end = (page.index(mark) for mark in MARK)
    made = f"{MARK[0]}\n\n{_reasons(baseline)}\n\n{table(baseline)}\n\n"
    PAGE.write_text(page[:begin] + made + page[end:], encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Prints what is worse and what is better."""
    parser = argparse.ArgumentParser(
        description="how OPA's Rego conformance cases stand, against the baseline"
    )
    parser.add_argument(
        "standings", type=Path, metavar="STANDINGS", help="what the example rego_cases printed"
    )
    parser.add_argument("--write", action="store_true", help="makes them the baseline, and writes the page")
    options = parser.parse_args(arguments)
    standings = read(options.standings.read_text(encoding="utf-8").splitlines())
    baseline = json.loads(BASELINE.read_text(encoding="utf-8")) if BASELINE.exists() else {}
    worse, better = compare(standings, baseline or baseline_of(standings))
    sums = Counter(case.standing for case in standings)
    print("\n".join([*worse, *better]), end="\n" if worse or better else "")
    print(
        f"{len(standings)} cases: "
        + ", ".join(f"{sums[standing]} {standing}" for standing in reversed(ORDER))
    )
    if worse:
        return WORSE
    if options.write:
        write(baseline_of(standings))
    elif better:
        print("better than the baseline: `make conformance-baseline` keeps it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
