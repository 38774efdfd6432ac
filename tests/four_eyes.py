"""Desks of approvals and overrides over a core that is a few dictionaries: what desks do is tried without decisions.
The real core is behind them in tests/e2e.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from signalwarden import _core
from signalwarden.approvals import Approvals
from signalwarden.decision_log import Recorder, rfc3339
from signalwarden.errors import BadInputError, CallRefusedError, StateError
from signalwarden.intake import Intake
from signalwarden.overrides import Overrides
from signalwarden.refusals import Refusals
from signalwarden.state import SqliteStore

NOW_US = 1_795_500_000_000_000
SECOND_US = 1_000_000
AGENT = "spiffe://prod.example/ns/agents/sa/refund-agent"
ANNA = "spiffe://prod.example/people/anna"
BEN = "spiffe://prod.example/people/ben"
CARL = "spiffe://prod.example/people/carl"
NEVER = "spiffe://prod.example/people/never"
"""Whom the policies let answer nothing."""
DECISION = "01a20d2e-e225-7eba-82f3-6812fbaf3409"
SIGNALS = [{"name": "posture", "sensitivity": "internal"}, {"name": "score", "sensitivity": "secret"}]


@dataclass
class Answered:
    """What became of an answer."""

    decision_id: str | None
    state: str
    changes: Sequence[_core.StoredChange]


@dataclass
class Held:
    """A decision whose answer waits."""

    changes: Sequence[_core.StoredChange]
    question: str | None


def change(kind: str, key: str, **told: Any) -> _core.StoredChange:
    return _core.StoredChange(
        key, False, json.dumps({"v": 1, "change": kind, **told}, separators=(",", ":")).encode()
    )


class FakeCore:
    """Keeps questions and overrides, and applies what it has made itself."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self.clock = clock
        self.questions: dict[str, dict[str, Any]] = {}
        self.rule: str | None = None
        self.live: dict[tuple[str, str], dict[str, Any]] = {}

    def ask(self, approval_id: str, **other: Any) -> Held:
        """A question of the agent; as the core holds one back when it is asked."""
        self.questions[approval_id] = {
            "approval_id": approval_id, "requester": AGENT, "actor": None, "task_id": "t1", "action": "transfer.create",
            "resource": 'Account::"42"', "method": "POST", "host": "payments.prod.example",
            "path": "/v1/accounts/42/transfers?token=hush", "body_sha256": "ab" * 32, "words": ["moves money"],
            "args": {"amount": "1250"}, "policies": ["gate"], "asked_at": rfc3339(self.clock()),
            "expires_at": rfc3339(self.clock() + 900 * SECOND_US), "state": "pending", "need": 1, "approved_by": [],
            "denied_by": None, "comment": None, "used_by": None, **other,
        }  # fmt: skip
        return Held([change("approval_asked", f"approval/{approval_id}", id=approval_id)], approval_id)

    def use(self, approval_id: str, decision: str | None) -> Held:
        self.questions[approval_id].update(state="used" if decision else "approved", used_by=decision)
        return Held([change("approval_used", f"use/{approval_id}", id=approval_id, decision=decision)], None)

    def approvals(
        self, *, approval_id: str | None = None, state: str | None = None, limit: int, now_us: int
    ) -> bytes:
        found = [
            question
            for question in self.questions.values()
            if approval_id in (None, question["approval_id"]) and state in (None, question["state"])
        ]
        return json.dumps(
            {"approvals": found[:limit], "count": len(found), "truncated": len(found) > limit}
        ).encode()

    def answer_approval(
        self, approval_id: str, *, approve: bool, client: str, comment: str, now_us: int
    ) -> Answered:
        question = self.questions[approval_id]
        if question["state"] != "pending":
            raise CallRefusedError("approval_ended", f"it is {question['state']}")
        if client == question["requester"]:
            raise CallRefusedError("own_approval", "it asks itself")
        if client in question["approved_by"]:
            raise CallRefusedError("already_given", "it has said so")
        if client == NEVER:
            raise CallRefusedError(
                "policy_refused", "the policies say no", {"reason": "policy_denied", "decision_id": DECISION}
            )
        made = change(
            "approval_answered",
            f"answer/{approval_id}",
            id=approval_id,
            by=client,
            approve=approve,
            comment=comment,
        )
        return Answered(DECISION, "", [made])

    def waive_approval(self, approval_id: str, *, now_us: int) -> Sequence[_core.StoredChange]:
        if self.rule is None:
            return []
        said = {"id": approval_id, "by": self.rule, "approve": True, "comment": ""}
        return [change("approval_answered", f"answer/{approval_id}", **said)]

    def override(
        self,
        name: str,
        *,
        subject: str,
        value: bytes,
        reason: str,
        by: tuple[str, str],
        ttl_us: int,
        now_us: int,
    ) -> _core.StoredChange:
        if name not in [signal["name"] for signal in SIGNALS]:
            raise BadInputError("the register has no signal of this name")
        assert by[0] != by[1]
        entry = {"name": name, "subject": subject, "value": json.loads(value), "until_us": now_us + ttl_us}
        return change("overridden", f"override/{name}/{subject}", **entry)

    def overrides(self, now_us: int) -> bytes:
        live = [entry for entry in self.live.values() if entry["until_us"] > now_us]
        return json.dumps({"overrides": [{**e, "expires_at": rfc3339(e["until_us"])} for e in live]}).encode()

    def admit_all(self, batches: Sequence[tuple[bytes, str]], *, now_us: int) -> list[_core.Admission]:
        raise AssertionError("nobody publishes here")

    def apply(self, changes: Sequence[_core.StoredChange], *, now_us: int) -> None:
        for kept in changes:
            told = json.loads(kept.payload)
            if told["change"] == "overridden":
                self.live[(told["name"], told["subject"])] = told
            elif told["change"] == "approval_answered":
                question = self.questions[told["id"]]
                question["comment"] = told["comment"]
                if told["approve"]:
                    question["approved_by"].append(told["by"])
                    if len(question["approved_by"]) >= question["need"]:
                        question["state"] = "approved"
                else:
                    question.update(state="denied", denied_by=told["by"])


class Lines:
    """A log that keeps what it is offered."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def note(self, line: bytes) -> bool:
        self.lines.append(line)
        return True


@dataclass
class Stage:
    """The desks, and what they stand on."""

    store: SqliteStore
    now_us: int = NOW_US
    barred: set[str] = field(default_factory=set)
    """Who has lost the right `override`."""

    def __post_init__(self) -> None:
        self.core = FakeCore(self.clock)
        self.log = Lines()
        intake = Intake(self.core, self.store, clock=self.clock, max_rate=1_000)
        recorder = Recorder(self.log, self.clock)
        refusals = Refusals(recorder)
        self.approvals = Approvals(self.core, intake, recorder, refusals, clock=self.clock)
        self.overrides = Overrides(
            self.core, intake, recorder, refusals,
            description=lambda: json.dumps({"signals": SIGNALS}).encode(),
            may=lambda client: client not in self.barred, clock=self.clock,
        )  # fmt: skip

    def clock(self) -> int:
        return self.now_us

    def later(self, seconds: float) -> None:
        self.now_us += round(seconds * SECOND_US)

    def records(self, name: str | None = None) -> list[dict[str, Any]]:
        """Change records so far, of one kind or all."""
        records = [json.loads(line) for line in self.log.lines]
        return [record for record in records if name in (None, record["change"])]

    def answer(
        self, client: str, approval_id: str, *, approve: bool = True, comment: str | None = None
    ) -> Any:
        body = b"" if comment is None else json.dumps({"comment": comment}).encode()
        return json.loads(self.approvals.answer(client, approval_id, body, approve=approve))

    def override(self, client: str, name: str = "posture", **other: Any) -> tuple[int, Any]:
        told = {"value": "ok", "subject": AGENT, "reason": "INC-7: the feed is down", "ttl": "10m", **other}
        status, body = self.overrides.override(client, name, json.dumps(told).encode())
        return status, json.loads(body)


def every_record(store: SqliteStore) -> list[bytes]:
    """Each kind of change record that the desks write."""
    stage = Stage(store)
    stage.approvals.asked(stage.core.ask("a1"))
    stage.answer(ANNA, "a1", comment="looks right")
    stage.approvals.asked(stage.core.use("a1", DECISION))
    stage.approvals.asked(stage.core.use("a1", None))
    for client, approval_id in ((ANNA, "none"), (NEVER, "a2")):
        stage.core.ask("a2")
        try:
            stage.answer(client, approval_id, approve=False)
        except CallRefusedError:
            continue
    for client in (ANNA, BEN):
        stage.override(client)
        stage.override(client, "score", value=7)
    stage.later(601)
    stage.overrides.sweep()
    return stage.log.lines


def closed(store: SqliteStore) -> type[StateError]:
    """A disk that is gone; what is raised then."""
    store.close()
    return StateError
