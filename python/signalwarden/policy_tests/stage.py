"""One case played: signals published, tasks begun, calls made and questions answered as it says, then the decision."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson

from signalwarden.decision_log import rfc3339
from signalwarden.decision_log.parts import map_of
from signalwarden.errors import BadInputError, CallRefusedError, SignalwardenError
from signalwarden.offline import Decision, Scene, origins
from signalwarden.policy_tests import requests
from signalwarden.values import spiffe_trust_domain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from signalwarden import _core
    from signalwarden.config import Loaded
    from signalwarden.policy_tests.model import Case, SignalGiven, TaskGiven

__all__ = ["Played", "SetUpError", "Stage"]

GRANT: Final = "x-signalwarden-grant"
SECOND_US: Final = 1_000_000
MAX_RECORDS: Final = 256
"""Decisions about the tasks and questions of one case."""


class SetUpError(SignalwardenError):
    """A case that can't be played: what it gives is refused, or contradicts what the directory says."""


@dataclass(frozen=True, slots=True)
class Played:
    """What came of a case."""

    record: dict[str, Any]
    line: bytes
    """The record as the log would have it."""
    reach: tuple[dict[str, Any], ...] | None
    """None: of a decision about a task or a question, whose record alone tells."""
    others: tuple[dict[str, Any], ...] = ()
    """Records of decisions on the way there."""
    other_reach: tuple[tuple[dict[str, Any], tuple[dict[str, Any], ...]], ...] = ()
    """Decisions of calls made before, with what they reached."""
    refused: dict[str, str] = field(default_factory=dict)
    """Why a signal of another sender was not taken in."""


class Stage:
    """A directory, loaded once, in which cases are played, each with a core of its own."""

    def __init__(self, loaded: Loaded, *, now_us: int) -> None:
        self._loaded = loaded
        self._described = loaded.described()
        self._origins = origins(self._described)
        self._contracts = {contract["name"]: contract for contract in self._described["signals"]}
        self._now_us = now_us

    @property
    def described(self) -> dict[str, Any]:
        """`Configuration.describe()`."""
        return self._described

    @property
    def configuration(self) -> _core.Configuration:
        """What decides."""
        return self._loaded.configuration

    def play(self, case: Case) -> Played:
        """Plays a case. Raises SetUpError."""
        try:
            return _Play(self, case, Scene(self.configuration, self._origins), self._now_us).run()
        except CallRefusedError as error:
            raise SetUpError(f"{error} (`{error.code}`)") from error
        except BadInputError as error:
            raise SetUpError(str(error)) from error

    @property
    def names_the_peer(self) -> bool:
        """Whether the caller is whom Envoy verified, and nobody else."""
        return self._loaded.settings.identity.sources == ("envoy_peer",)

    def contract(self, name: str) -> dict[str, Any]:
        """Of the register; names were looked up when the case was read."""
        found: dict[str, Any] = self._contracts[name]
        return found

    def document(self, case: Case) -> dict[str, Any]:
        """The case's request in protobuf JSON."""
        return {} if case.request is None else requests.document_of(case.request, self._loaded.root)

    def documents_before(self, case: Case) -> list[dict[str, Any]]:
        """Of the calls that are made before: each as the case's own, but for what it says."""
        whole = case.request
        return [
            requests.document_of(one if whole is None else whole.under(one), self._loaded.root)
            for one in case.before
        ]


class _Play:
    def __init__(self, stage: Stage, case: Case, scene: Scene, now_us: int) -> None:
        self._stage = stage
        self._case = case
        self._scene = scene
        self._at_us = now_us if case.at_us is None else case.at_us
        self._document = stage.document(case)
        self._others: list[dict[str, Any]] = []
        self._reaches: list[tuple[dict[str, Any], tuple[dict[str, Any], ...]]] = []
        self._refused: dict[str, str] = {}
        self._grants = itertools.count(1)

    def run(self) -> Played:
        case = self._case
        if case.begin is not None:
            self._publish(case.signals)
            return self._begun(case.begin)
        if case.task is None:
            self._publish(case.signals)
        else:
            begun_us = self._at_us - _oldest(case.task)
            early = [
                one
                for one in case.signals
                if self._observed_us(one) <= begun_us and not self._needs_task(one)
            ]
            self._publish(early)
            grant, _ = self._begin(case.task)
            self._document = requests.with_header(self._document, GRANT, grant)
            self._publish([one for one in case.signals if one not in early])
        for document in self._stage.documents_before(case):
            self._call_before(document)
        if case.answer is not None or case.approved_by:
            return self._answered()
        return self._played(self._decide())

    # ------------------------------------------------------------ decisions

    def _decide(self) -> Decision:
        return self._scene.decide(requests.to_bytes(self._document), now_us=self._at_us)

    def _played(self, decision: Decision) -> Played:
        return Played(
            decision.record,
            decision.line,
            decision.reach,
            tuple(self._others),
            tuple(self._reaches),
            self._refused,
        )

    def _call_before(self, document: dict[str, Any]) -> None:
        if grant := self._headers().get(GRANT):
            document = requests.with_header(document, GRANT, grant)
        decision = self._scene.decide(requests.to_bytes(document), now_us=self._at_us)
        if decision.outcome != "allow":
            raise SetUpError(
                f"a call before was denied (`{decision.record['reason']}`): expected that it goes through"
            )
        self._scene.engine.apply(decision.changes, now_us=self._at_us)
        self._reaches.append((decision.record, decision.reach))

    def _headers(self) -> Mapping[str, Any]:
        request = map_of(map_of(self._document.get("attributes")).get("request"))
        return map_of(map_of(request.get("http")).get("headers"))

    def _answered(self) -> Played:
        """The call asks a question; it is answered, and asked again, or the answer is what is decided."""
        asked = self._decide()
        if asked.record["reason"] != "approval_required":
            raise SetUpError(
                f"the call asks nobody, it is `{asked.record['reason']}`: expected `approval_required`"
            )
        engine = self._scene.engine
        engine.apply(asked.changes, now_us=self._at_us)
        self._reaches.append((asked.record, asked.reach))
        found = orjson.loads(engine.approvals(state="pending", limit=1, now_us=self._at_us))["approvals"]
        if not found:
            raise SetUpError("the call asks nobody: its question is answered already")
        for by in self._case.approved_by:
            self._answer(found[0]["approval_id"], by)
        self._drain()
        if self._case.answer is None:
            return self._played(self._decide())
        refused: CallRefusedError | None = None
        try:
            self._answer(found[0]["approval_id"], self._case.answer.by)
        except CallRefusedError as error:
            refused = error
        return self._drained(refused)

    def _answer(self, approval_id: str, by: str) -> None:
        answered = self._scene.engine.answer_approval(
            approval_id, approve=True, client=by, comment="", now_us=self._at_us
        )
        self._scene.engine.apply(answered.changes, now_us=self._at_us)

    # ------------------------------------------------------------ tasks

    def _begun(self, task: TaskGiven) -> Played:
        if task.parent is not None:
            self._begin(task.parent)
        refused: CallRefusedError | None = None
        try:
            self._begin(task, with_parent=False)
        except CallRefusedError as error:
            refused = error
        return self._drained(refused)

    def _begin(self, task: TaskGiven, *, with_parent: bool = True) -> tuple[str, str]:
        """Begins a task, and those above it before; its grant and its id."""
        parent = None
        if task.parent is not None:
            parent = self._begin(task.parent)[1] if with_parent else self._newest()
            self._drain()
        principal = task.principal or requests.principal_of(self._document) or task.client
        if principal is None:
            raise SetUpError("`task`: expected `principal`, there is none in the request")
        client = task.client or principal
        asked: dict[str, Any] = {
            "principal": principal,
            "type": task.type,
            "actions": task.actions,
            "resources": task.resources,
            **task.more,
        }
        if task.ttl_us is not None:
            asked["ttl_us"] = task.ttl_us
        if parent is not None:
            asked["parent"] = parent
        engine, begun_us = self._scene.engine, self._at_us - task.age_us
        if workflow := task.more.get("workflow"):
            moved = engine.move_workflow(workflow, state="approved", client=client, now_us=begun_us)
            engine.apply([moved], now_us=begun_us)
        proposal = engine.propose_task(orjson.dumps(asked), client=client, certificate=None, now_us=begun_us)
        grant = f"grant-{next(self._grants)}-of-a-case"
        engine.apply([engine.issue_task(proposal, grant=grant.encode(), now_us=begun_us)], now_us=begun_us)
        if task.ended is not None:
            ended = engine.end_task(
                proposal.task_id, how=task.ended, client=client, operator=False, now_us=self._at_us
            )
            engine.apply([ended], now_us=self._at_us)
        return grant, proposal.task_id

    def _newest(self) -> str:
        listed = orjson.loads(self._scene.engine.tasks(limit=1, now_us=self._at_us))["tasks"]
        return str(listed[0]["task_id"])

    def _drain(self) -> list[bytes]:
        """Decisions that went through the log, as lines."""
        lines, _ = self._scene.engine.drain(max_records=MAX_RECORDS, wait_ms=0)
        found = [line for line in lines.splitlines() if line]
        self._others += [record for line in found if (record := orjson.loads(line))["kind"] == "decision"]
        return found

    def _drained(self, refused: CallRefusedError | None) -> Played:
        """The decision that was made last, about a task or a question."""
        lines = self._drain()
        if not lines:
            raise refused or SetUpError("no decision was made")
        record = self._others.pop()
        return Played(record, lines[-1], None, tuple(self._others), tuple(self._reaches), self._refused)

    # ------------------------------------------------------------ signals

    def _publish(self, signals: Iterable[SignalGiven]) -> None:
        for signal in sorted(signals, key=self._observed_us):
            if signal.state != "missing":
                self._send(signal)

    def _needs_task(self, signal: SignalGiven) -> bool:
        """Whether its subject is not there before the task is."""
        return signal.subject is None and self._stage.contract(signal.name)["subject"] in ("task", "workflow")

    def _observed_us(self, signal: SignalGiven) -> int:
        if signal.state != "stale":
            return self._at_us - signal.age_us
        most = self._stage.contract(signal.name)["max_age_ms"]
        return self._at_us - (0 if most is None else most * 1_000) - SECOND_US

    def _send(self, signal: SignalGiven) -> None:
        scene = self._scene
        known = scene.origins_of(signal.name)
        if not known and signal.by is None:
            raise SetUpError(
                f"`{signal.name}` comes with the request: give the request what it is read from, no value here"
            )
        subject = signal.subject or self._subject(signal.name)
        if subject is None:
            return
        observed_us = self._observed_us(signal)
        entry = {
            "name": signal.name,
            "subject": subject,
            "value": signal.value,
            "observed_at": rfc3339(observed_us),
        }
        for origin in known if signal.by is None else [signal.by]:
            if refused := scene.publish(entry, origin=origin, now_us=observed_us):
                if signal.by is None:
                    raise SetUpError(
                        f"the signal `{signal.name}` is refused: {refused.detail} (`{refused.reason}`)"
                    )
                self._refused[signal.name] = f"{refused.detail} (`{refused.reason}`)"
        if signal.state == "unverified":
            for origin in known:
                off = scene.engine.switch_publisher(
                    origin, signal=signal.name, enabled=False, now_us=self._at_us
                )
                scene.engine.apply([off], now_us=self._at_us)

    def _subject(self, name: str) -> str | None:
        """Whom the decision asks about; None where it asks about nobody, so that whatever is known is not read."""
        kind = self._stage.contract(name)["subject"]
        if kind == "global":
            return "*"
        principal = requests.principal_of(self._document)
        if self._case.begin is not None:
            principal = self._case.begin.client or self._case.begin.principal
        elif kind != "principal" or not self._stage.names_the_peer:
            # The decision itself says it best: with nothing published, its record has the subject of each signal.
            record = self._decide().record
            for signal in record["signals"]:
                if signal["name"] == name and signal["subject"] is not None:
                    return str(signal["subject"])
            resource = map_of(record.get("request")).get("resource")
            if kind == "resource" and isinstance(resource, str):
                return resource
        if kind == "principal" and principal is not None and spiffe_trust_domain(principal) is not None:
            return principal
        if self._case.begin is not None:
            raise SetUpError(
                f"the signal `{name}` is about a {kind}, which a task does not say: give its `subject`"
            )
        return None


def _oldest(task: TaskGiven) -> int:
    return max(task.age_us, _oldest(task.parent) if task.parent else 0)
