"""h2spec, the conformance tests for HTTP/2, against each front door in plain text. What fails is written down in
deviations.json with its reason; a case that fails and is not there fails here, and so does one that is there and passes.
"""

from __future__ import annotations

import json
import subprocess
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest

from tests import fronts, log_stage
from tests.h2_client import CHECK_PATH
from tests.h2spec.conftest import PROGRAMS

ANSWER_S: Final = 2
"""How long h2spec waits for an answer: a loaded machine is no deviation."""
RUN_S: Final = 240.0
CASES: Final = 140
"""Fewer than this, and h2spec has not run as a whole."""
DEVIATIONS: Final[dict[str, list[dict[str, Any]]]] = json.loads(
    Path(__file__).with_name("deviations.json").read_text()
)
LONGEST_HEADER: Final = 4_000
"""h2spec's own default for the largest header that it sends, in bytes; below what either front takes."""


def run(address: str, report: Path) -> dict[str, tuple[str, str]]:
    """Each case by its id, which is its section and its number there: what it does, and what was wrong (empty: nothing)."""
    host, _, port = address.rpartition(":")
    command = [
        str(Path(PROGRAMS or "").resolve() / "h2spec"),
        *("--host", host, "--port", port, "--path", CHECK_PATH, "--timeout", str(ANSWER_S)),
        *("--strict", "--max-header-length", str(LONGEST_HEADER), "--junit-report", str(report)),
    ]
    subprocess.run(command, capture_output=True, timeout=RUN_S, check=False)
    found: dict[str, tuple[str, str]] = {}
    numbers: Counter[str] = Counter()
    for case in ET.parse(report).iter("testcase"):
        section = case.get("package", "")
        numbers[section] += 1
        wrong = [part for name in ("failure", "error") if (part := case.find(name)) is not None]
        said = " ".join(" ".join("".join(part.itertext()).split()) or "failed" for part in wrong)
        found[f"{section}/{numbers[section]}"] = (case.get("classname", ""), said)
    return found


def test_a_front_deviates_from_http2_only_where_it_is_written_down(front: str, tmp_path: Path) -> None:
    root = tmp_path / "conf"
    log_stage.directory(root, log="ring_bytes: 4194304")
    with log_stage.serving(fronts.choose(root, front)) as server:
        found = run(server.check, tmp_path / "report.xml")
        assert server.process.poll() is None
    assert len(found) >= CASES
    known = {case: group for group in DEVIATIONS[front] for case in group["cases"]}
    failed = {case: what for case, what in found.items() if what[1]}
    print(json.dumps(failed, indent=1))
    new = {case: what for case, what in failed.items() if case not in known}
    assert not new, "not written down"
    mended = {case for case, group in known.items() if case not in failed and not group.get("sometimes")}
    assert not mended, "written down, and passes"
    for case, group in known.items():
        assert found[case][0] == group["cases"][case]


@pytest.mark.parametrize("name", fronts.FRONTS)
def test_each_deviation_says_why(name: str) -> None:
    assert all(group["why"].strip() and group["cases"] for group in DEVIATIONS[name])
