"""What `check` found, for programs: JSON, SARIF 2.1.0 for code scanning, workflow commands for GitHub Actions."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import quote

from signalwarden import __version__
from signalwarden.decision_log.tail import clean
from signalwarden.errors import FindingLike, is_error
from signalwarden.findings import EXCEPTION, OUTSIDE, help_of

__all__ = ["Report", "as_json", "github", "sarif"]

SARIF_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
MAX_RESULTS: Final = 25_000
"""GitHub refuses a run with more. The errors are kept."""
_RANKS: Final = ("error", "warning", "note")
# As the register writes an exception: its place, then the sentence.
_PLACED = re.compile(r"(?P<file>[^:\s]+):(?P<line>\d+)(?::(?P<column>\d+))?: (?P<text>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Report:
    """What a check of a directory found."""

    directory: Path
    findings: list[FindingLike]
    exceptions: list[str]
    """Declared in the directory, one sentence each."""
    revision: str | None
    """None if it can't be loaded."""
    outside: list[str] = field(default_factory=list)
    """Where policies read whole requests, one sentence each."""

    @property
    def errors(self) -> int:
        """Findings that stop a load."""
        return sum(map(is_error, self.findings))

    @property
    def warnings(self) -> int:
        """The other findings."""
        return len(self.findings) - self.errors


@dataclass(frozen=True, slots=True)
class _Note:
    """A declared exception in the shape of a finding."""

    file: str
    line: int
    column: int
    message: str
    severity: str = "note"
    code: str = EXCEPTION


def as_json(report: Report) -> dict[str, Any]:
    """Everything, for programs of our own."""
    keys = ("severity", "file", "line", "column", "code", "message")
    return {
        "ok": not report.errors,
        "revision": report.revision,
        "errors": report.errors,
        "warnings": report.warnings,
        "findings": [{key: getattr(finding, key) for key in keys} for finding in report.findings],
        "exceptions": report.exceptions,
        "reads_outside": report.outside,
    }


# ---- SARIF ----------------------------------------------------------------------------------------------


def sarif(report: Report) -> dict[str, Any]:
    """A SARIF 2.1.0 log of one run. Every rule that is named is described, with its help."""
    entries = _entries(report)
    if len(entries) > MAX_RESULTS:
        entries = sorted(entries, key=lambda entry: _RANKS.index(entry.severity))[:MAX_RESULTS]
    rules = sorted({entry.code for entry in entries})
    levels = {code: _level(entry for entry in entries if entry.code == code) for code in rules}
    below = _below_repository(report.directory)
    return {
        "$schema": SARIF_SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "signalwarden",
                        "version": __version__,
                        "semanticVersion": __version__,
                        "rules": [_rule(code, levels[code]) for code in rules],
                    }
                },
                # The core counts characters.
                "columnKind": "unicodeCodePoints",
                "invocations": [{"executionSuccessful": True, "exitCode": 1 if report.errors else 0}],
                "results": [_result(entry, rules.index(entry.code), below) for entry in entries],
            }
        ],
    }


def _rule(code: str, level: str) -> dict[str, Any]:
    said = help_of(code)
    return {
        "id": code,
        "name": "".join(part.capitalize() for part in code.split("_")),
        "shortDescription": {"text": code.replace("_", " ").capitalize()},
        "fullDescription": {"text": said},
        "help": {"text": said, "markdown": said},
        "defaultConfiguration": {"level": level},
        "properties": {"tags": ["configuration"], "precision": "very-high",
                       "problem.severity": {"note": "recommendation"}.get(level, level)},
    }  # fmt: skip


def _level(entries: Iterable[FindingLike]) -> str:
    """One code may be an error here and a warning there: its rule has the worse."""
    levels = {entry.severity for entry in entries}
    return next(level for level in _RANKS if level in levels)


def _result(entry: FindingLike, rule: int, below: PurePosixPath) -> dict[str, Any]:
    # A place is required by code scanning: what concerns a whole file is shown at its beginning.
    region = {"startLine": max(entry.line, 1), "startColumn": max(entry.column, 1)}
    uri = quote(str(below / entry.file))
    print_ = hashlib.sha256(f"{entry.code}\0{uri}\0{entry.message}".encode()).hexdigest()
    return {
        "ruleId": entry.code,
        "ruleIndex": rule,
        "level": entry.severity,
        "message": {"text": clean(entry.message)},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": uri, "uriBaseId": "%SRCROOT%"},
                    "region": region,
                }
            }
        ],
        # Lines move and messages stay, so a finding is known again.
        "partialFingerprints": {"signalwarden/v1": print_},
    }


# ---- GitHub Actions -------------------------------------------------------------------------------------


def github(report: Report) -> list[str]:
    """Workflow commands, one a line: GitHub shows each at its line of the change under review."""
    below = _below_repository(report.directory)
    word = {"error": "error", "warning": "warning", "note": "notice"}
    lines = []
    for entry in _entries(report):
        place = {"file": str(below / entry.file)}
        if entry.line:
            place |= {"line": str(entry.line), "col": str(max(entry.column, 1))}
        place["title"] = entry.code
        properties = ",".join(f"{key}={_property(value)}" for key, value in place.items())
        lines.append(f"::{word[entry.severity]} {properties}::{_data(entry.message)}")
    return lines


def _data(text: str) -> str:
    """As actions/toolkit escapes it: what follows a line break would be a command of its own."""
    escaped = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return clean(escaped)


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


# ---- both -----------------------------------------------------------------------------------------------


def _entries(report: Report) -> list[FindingLike]:
    """Findings, then as notes the declared exceptions at their contracts, and what is read outside the register."""
    exceptions = (_note(text, "signals.yaml", EXCEPTION) for text in report.exceptions)
    outside = (_note(text, "policies", OUTSIDE) for text in report.outside)
    return [*report.findings, *exceptions, *outside]


def _note(text: str, file: str, code: str) -> _Note:
    """A sentence at the place that it begins with; without one, at a file."""
    placed = _PLACED.fullmatch(text)
    if placed is None:
        return _Note(file, 0, 0, text, code=code)
    return _Note(placed["file"], int(placed["line"]), int(placed["column"] or 1), placed["text"], code=code)


def _below_repository(directory: Path) -> PurePosixPath:
    """Where the directory stands in its repository; empty if it is in none: then places are relative to itself."""
    real = directory.resolve()
    for folder in (real, *real.parents):
        if (folder / ".git").exists():
            return PurePosixPath(real.relative_to(folder).as_posix())
    return PurePosixPath()
