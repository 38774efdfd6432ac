"""The desk of tasks over a real core and a real state, without doors: what it keeps, answers and writes down."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from signalwarden.decision_log import Recorder
from signalwarden.intake import Intake
from signalwarden.refusals import Refusals
from signalwarden.state import SqliteStore
from signalwarden.tasks import Tasks
from signalwarden.tokens.grants import Signer
from tests import asking
from tests.four_eyes import Lines

__all__ = ["AGENT", "HELPER", "ORCHESTRATOR", "OTHER", "Stage", "staged"]

AGENT = asking.AGENT
HELPER = "spiffe://prod.example/helper"
ORCHESTRATOR = "spiffe://prod.example/orchestrator"
OTHER = "spiffe://prod.example/other"
"""Who has no part in a task of the agent's."""

FILES = {
    "routes.yaml": """\
routes:
  - match: {host: "pages.example", method: GET, path: "/notes/{id}"}
    action: note.read
    resource: {type: Page, id: "{id}"}
    system: notes
    tier: jit
    sensitivity: low
  - match: {host: "pages.example", method: POST, path: "/crm/{id}"}
    action: crm.export
    resource: {type: Page, id: "{id}"}
    system: crm
    tier: jit
    sensitivity: high
""",
    "entities.cedarschema": "entity Workload;\nentity Page;\n",
    "policies/pages.cedar": """\
@id("begin") permit (principal, action == Action::"task.begin", resource)
unless { resource == TaskType::"forbidden" };
@id("delegate") permit (principal, action == Action::"task.delegate", resource);
@id("notes") permit (principal, action == Action::"note.read", resource);
""",
}


class Stage:
    """The desk, and what it stands on."""

    def __init__(self, folder: Path, store: SqliteStore) -> None:
        self.now_us = asking.NOW
        self.store = store
        self.log = Lines()
        self.engine = asking.running(asking.load(FILES))
        recorder = Recorder(self.log, self.clock)
        self.desk = Tasks(
            self.engine,
            Intake(self.engine, store, clock=self.clock, max_rate=1_000),
            recorder,
            Refusals(recorder),
            signer=Signer(folder / "grants", issuer="spiffe://prod.example/signalwarden", clock=self.clock),
            clock=self.clock,
        )

    def clock(self) -> int:
        return self.now_us

    def begin(self, client: str = ORCHESTRATOR, *, parent: str | None = None, **other: Any) -> Any:
        asked = {"principal": AGENT, "type": "t", "actions": ["note.read"], "resources": ["Page::*"], **other}
        return json.loads(
            self.desk.begin(client, json.dumps(asked).encode(), certificate=None, parent=parent)
        )

    def end(
        self, client: str, task: dict[str, Any], how: str = "completed", *, operator: bool = False
    ) -> Any:
        return json.loads(self.desk.end(client, task["task_id"], how, operator=operator))

    def tasks(self, *, ended: bool = True) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = json.loads(self.desk.listing(None, ended=ended, limit=100))["tasks"]
        return listed

    def records(self, name: str) -> list[dict[str, Any]]:
        records = [json.loads(line) for line in self.log.lines]
        return [record for record in records if record["change"] == name]


@contextmanager
def staged(folder: Path) -> Iterator[Stage]:
    """A desk in a folder of its own."""
    store = SqliteStore(folder / "state.db")
    try:
        yield Stage(folder, store)
    finally:
        store.close()
