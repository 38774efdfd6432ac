"""Directories with cases for their policies, and how tests run them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import yaml

from signalwarden import config
from signalwarden.decision_log import now_us
from signalwarden.policy_tests import running, suite
from signalwarden.policy_tests.coverage import Coverage
from signalwarden.policy_tests.reading import Vocabulary
from signalwarden.policy_tests.stage import Stage

__all__ = ["AGENT", "CASES", "FILES", "OTHER", "REQUEST", "SENDER", "Ran", "findings", "made", "ran", "write"]

AGENT: Final = "spiffe://prod.example/agent"
SOON: Final = f"{datetime.now(UTC) + timedelta(days=30):%Y-%m-%dT%H:%M:%SZ}"
OTHER: Final = "spiffe://prod.example/other"
SENDER: Final = "spiffe://prod.example/sender"
CASES: Final = "tests/pages.yaml"
REQUEST: Final = {"method": "GET", "host": "pages.example", "path": "/home", "principal": AGENT}

_CONTRACT = """\
    type: {type}
    description: What the case is about
    owner: team@prod.example
    purpose: To be tested
    subject: principal
    sources: [{{kind: push, publisher: "{sender}", assurance: authoritative}}]
    max_age: 5m
    influence: {influence}
    used_by: [page.read]
    review_by: 2099-01-01
"""
FILES: Final[Mapping[str, str]] = {
    "signalwarden.yaml": f"""\
trust_domain: prod.example
listen: {{check: "127.0.0.1:0", admin: "127.0.0.1:0"}}
clients:
  - {{id: "{SENDER}", may: [publish], token_sha256: "{"a" * 64}", expires: "{SOON}"}}
""",
    "routes.yaml": """\
routes:
  - match: {host: "pages.example", method: GET, path: "/home"}
    action: page.read
    resource: {type: Page, id: home}
    tier: runtime
    sensitivity: low
""",
    "signals.yaml": "signals:\n  score:\n"
    + _CONTRACT.format(type="long", sender=SENDER, influence="grant")
    + "  posture:\n"
    + _CONTRACT.format(type="enum[ok, bad]", sender=SENDER, influence="restrict"),
    "entities.cedarschema": "entity Role;\nentity Workload in [Role];\nentity Page;\n",
    "entities.json": f"""\
[{{"uid": {{"type": "Role", "id": "readers"}}, "attrs": {{}}, "parents": []}},
 {{"uid": {{"type": "Workload", "id": "{AGENT}"}}, "attrs": {{}}, "parents": [{{"type": "Role", "id": "readers"}}]}},
 {{"uid": {{"type": "Workload", "id": "{OTHER}"}}, "attrs": {{}}, "parents": []}}]
""",
    "policies/pages.cedar": """\
@id("readers-read")
permit (principal in Role::"readers", action == Action::"page.read", resource)
when { context.signals has score && context.signals.score >= 3 }
unless { context.request.host == "other.example" };

@id("the-bad-do-not")
forbid (principal, action == Action::"page.read", resource)
when { context.signals has posture && context.signals.posture == "bad" };
""",
}


class Plain(yaml.SafeDumper):
    """Without anchors, which files of cases do not have."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def write(root: Path, files: Mapping[str, str]) -> Path:
    """Writes files below a directory."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def made(root: Path, cases: str | dict[str, Any] | list[dict[str, Any]], **files: str) -> Path:
    """A directory with one file of cases: text, the document, or the list of its cases."""
    if not isinstance(cases, str):
        cases = yaml.dump(
            {"cases": cases} if isinstance(cases, list) else cases, Dumper=Plain, sort_keys=False
        )
    return write(root, {**FILES, CASES: cases, **files})


class Ran:
    """What came of a run."""

    def __init__(self, results: running.Results, coverage: Coverage) -> None:
        self.results = results
        self.coverage = coverage

    @property
    def told(self) -> dict[str, list[str]]:
        """Of each case its differences, or why it could not be played."""
        return {
            result.case.name: [f"{one.what}: {one.expected} / {one.actual}" for one in result.mismatches]
            if result.error is None
            else [result.error]
            for result in self.results.all
        }


def ran(root: Path) -> Ran:
    """Runs every case of a directory, which has no mistakes."""
    loaded = config.load(root, now_us())
    stage = Stage(loaded, now_us=now_us())
    read = suite.read_suite(root, Vocabulary.of(stage.described))
    assert read.findings == ()
    coverage = Coverage(stage.configuration, stage.described)
    return Ran(running.run(stage, read.cases, coverage=coverage), coverage)


def findings(root: Path) -> list[str]:
    """What is said of the files of cases."""
    described = config.load(root, now_us()).described()
    read = suite.read_suite(root, Vocabulary.of(described))
    return [f"{one.file}:{one.line}:{one.column} {one.code} {one.message}" for one in read.findings]
