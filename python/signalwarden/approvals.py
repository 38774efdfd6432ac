"""Questions and their answers: a call that may be made once somebody else has said yes to exactly this one.

The core judges, and keeps what a yes is bound to; here is what approvers see of it and what stands of it in the log.
Never the body of a call: its digest. Questions of one requester are shown together, so that a flood of them reads as
one line: whoever asks often enough must not find an approver who no longer reads.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NotRequired, Protocol, TypedDict, cast

import orjson

from signalwarden.errors import BadInputError, CallRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from signalwarden import _core
    from signalwarden.decision_log import Recorder
    from signalwarden.intake import Intake
    from signalwarden.refusals import Refusals

__all__ = ["MAX_COMMENT", "SHOWN_OF_ONE", "STATES", "Approvals", "Held"]

STATES: Final = ("pending", "approved", "denied", "expired", "used")
SHOWN_OF_ONE: Final = 3
"""Questions of one requester that a list shows one by one; the others are counted in its line. Three can be read, and
compared; twenty are waved through. Asked for by its name, a requester is shown as a whole."""
MAX_COMMENT: Final = 512
"""Letters of a comment: a sentence and the number of an incident, in a record that people read."""
READ: Final = 10_000
"""Questions that are read to group them: as many as the core may hold open, a few megabytes at most."""
RULE: Final = "rule:"
"""Who answered, where a rule did: before the id of the decision that says which."""
_ID: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
EXPECTED: Final = (
    f'expected an object of nothing or of "comment", a text of 1 to {MAX_COMMENT} printable letters'
)


class Answered(Protocol):
    """What became of an answer."""

    @property
    def decision_id(self) -> str | None:
        """Of the policies' word on who may answer."""

    @property
    def state(self) -> str:
        """The question's, with this answer."""

    @property
    def changes(self) -> Sequence[_core.StoredChange]:
        """What is to be kept."""


class Held(Protocol):
    """A decision whose answer has not left yet."""

    @property
    def changes(self) -> Sequence[_core.StoredChange]:
        """What it changes."""

    @property
    def question(self) -> str | None:
        """The question that it asks for the first time."""


class Judging(Protocol):
    """The part of the engine that knows questions."""

    def approvals(
        self, *, approval_id: str | None = None, state: str | None = None, limit: int, now_us: int
    ) -> bytes:
        """Questions, as JSON."""

    def answer_approval(
        self, approval_id: str, *, approve: bool, client: str, comment: str, now_us: int
    ) -> Answered:
        """Judges an answer. Raises CallRefusedError."""

    def waive_approval(self, approval_id: str, *, now_us: int) -> Sequence[_core.StoredChange]:
        """The answer of a rule; nothing if none has one."""


class Recorded(TypedDict):
    """How records show a question that they may not show as it is."""

    path: str
    resource: str
    words: list[str]


class Question(TypedDict):
    """A question as the core tells it."""

    approval_id: str
    requester: str
    actor: str | None
    task_id: str | None
    action: str
    resource: str
    method: str
    host: str
    path: str
    args: dict[str, str]
    body_sha256: str
    words: list[str]
    policies: list[str]
    asked_at: str
    expires_at: str
    state: str
    need: int
    approved_by: list[str]
    denied_by: str | None
    comment: str | None
    used_by: str | None
    recorded: NotRequired[Recorded]


class Approvals:
    """The questions of a running app. Thread-safe."""

    def __init__(
        self,
        engine: Judging,
        intake: Intake,
        recorder: Recorder,
        refusals: Refusals,
        *,
        clock: Callable[[], int],
    ) -> None:
        self._engine = engine
        self._intake = intake
        self._recorder = recorder
        self._refusals = refusals
        self._clock = clock

    # ------------------------------------------------------------ reading

    def listing(self, state: str | None, requester: str | None, limit: int) -> bytes:
        """JSON of GET /v1/approvals: `{"approvals": […], "groups": […], "count", "truncated"}`; what ends first stands
        first. Raises BadInputError for a state that there is not."""
        if state is not None and state not in STATES:
            raise BadInputError(f"`state`: expected one of {', '.join(f'`{known}`' for known in STATES)}")
        answer = orjson.loads(self._engine.approvals(state=state, limit=READ, now_us=self._clock()))
        found = [
            question
            for question in cast("list[Question]", answer["approvals"])
            if requester is None or question["requester"] == requester
        ]
        found.sort(key=lambda question: (question["state"] != "pending", question["expires_at"]))
        shown = found if requester is not None else _few_of_each(found)
        return orjson.dumps(
            {
                "approvals": shown[:limit],
                "groups": _groups(found)[:limit],
                "count": len(found),
                "truncated": bool(answer["truncated"]) or len(shown) > limit,
            }
        )

    def show(self, approval_id: str) -> bytes:
        """JSON of GET /v1/approvals/{id}. Raises CallRefusedError `approval_unknown`."""
        return orjson.dumps(self._question(approval_id))

    def _question(self, approval_id: str) -> Question:
        """Raises CallRefusedError `approval_unknown`."""
        if _ID.fullmatch(approval_id):
            told = self._engine.approvals(approval_id=approval_id, limit=1, now_us=self._clock())
            for question in orjson.loads(told)["approvals"]:
                return cast("Question", question)
        raise CallRefusedError("approval_unknown", "there is no question of this id, or no longer")

    # ------------------------------------------------------------ answering

    def answer(self, client: str, approval_id: str, body: bytes, *, approve: bool) -> bytes:
        """Body of POST /v1/approvals/{id}/approve or deny in, JSON `{"approval_id", "state", "need", "approved_by"}`
        out, after the durable write. Raises BadInputError, CallRefusedError, StateError."""
        comment = _comment(body)
        call = "approval.approve" if approve else "approval.deny"
        with self._refusals.noted(client, call, approval_id):
            self._question(approval_id)
            answered: list[Answered] = []

            def make() -> Sequence[_core.StoredChange]:
                # Judged here, where no other answer is under way.
                answered.append(
                    self._engine.answer_approval(
                        approval_id, approve=approve, client=client, comment=comment, now_us=self._clock()
                    )
                )
                return answered[0].changes

            self._intake.keep(make)
        self.noted(answered[0].changes, decision_id=answered[0].decision_id)
        question = self._question(approval_id)
        return orjson.dumps({key: question[key] for key in ("approval_id", "state", "need", "approved_by")})

    # ------------------------------------------------------------ beside decisions

    def asked(self, held: Held) -> bool:
        """For the answering path, once a decision's changes are kept: records what they say of approvals, and lets the
        rules answer a question that is new. True if one has: the same call is worth a second look."""
        self.noted(held.changes)
        return held.question is not None and self._waived(held.question)

    def _waived(self, approval_id: str) -> bool:
        kept: list[_core.StoredChange] = []

        def make() -> Sequence[_core.StoredChange]:
            kept.extend(self._engine.waive_approval(approval_id, now_us=self._clock()))
            return kept

        self._intake.keep(make)
        self.noted(kept)
        return bool(kept)

    def noted(self, changes: Iterable[_core.StoredChange], *, decision_id: str | None = None) -> None:
        """Writes a change record for each kept change of an approval; others are passed over."""
        for change in changes:
            if b'"approval_' not in change.payload:
                continue
            told = orjson.loads(change.payload)
            if told["change"] == "approval_asked":
                self._note_asked(told["id"])
            elif told["change"] == "approval_answered":
                self._note_answered(told, decision_id)
            elif told["change"] == "approval_used":
                self._note_used(told)

    def _note_asked(self, approval_id: str) -> None:
        question = self._known(approval_id)
        if question is None:
            return
        self._recorder.change(
            "approval_asked",
            actor=question["requester"],
            approval_id=approval_id,
            asked=_asked(question),
            words=question.get("recorded", question)["words"],
            policies=question["policies"],
            need=question["need"],
            expires_at=question["expires_at"],
        )

    def _note_answered(self, told: dict[str, Any], decision_id: str | None) -> None:
        question = self._known(told["id"])
        if told["by"].startswith(RULE):
            decision_id = told["by"].removeprefix(RULE)
        self._recorder.change(
            "approval_answered",
            actor=told["by"],
            approval_id=told["id"],
            approved=told["approve"],
            comment=told["comment"],
            state=question["state"] if question else None,
            approved_by=question["approved_by"] if question else [],
            asked=_asked(question) if question else None,
            decision_id=decision_id,
        )

    def _note_used(self, told: dict[str, Any]) -> None:
        question = self._known(told["id"])
        asked = _asked(question) if question else None
        if told["decision"] is None:
            self._recorder.change("approval_released", actor="server", approval_id=told["id"], asked=asked)
            return
        self._recorder.change(
            "approval_used",
            actor=question["requester"] if question else "server",
            approval_id=told["id"],
            approved_by=question["approved_by"] if question else [],
            asked=asked,
            decision_id=told["decision"],
        )

    def _known(self, approval_id: str) -> Question | None:
        try:
            return self._question(approval_id)
        except CallRefusedError:
            return None


def _comment(body: bytes) -> str:
    """Of the body of an answer, which may be empty. Raises BadInputError."""
    if not body:
        return ""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadInputError(EXPECTED) from None
    if not isinstance(content, dict) or not content.keys() <= {"comment"}:
        raise BadInputError(EXPECTED)
    if "comment" not in content:
        return ""
    comment = content["comment"]
    if not isinstance(comment, str) or not comment.strip() or not comment.isprintable():
        raise BadInputError(EXPECTED)
    if len(comment) > MAX_COMMENT:
        raise BadInputError(EXPECTED)
    return comment.strip()


def _few_of_each(questions: list[Question]) -> list[Question]:
    """No more than a few of each requester."""
    seen: dict[str, int] = {}
    few = []
    for question in questions:
        number = seen[question["requester"]] = seen.get(question["requester"], 0) + 1
        if number <= SHOWN_OF_ONE:
            few.append(question)
    return few


def _groups(questions: list[Question]) -> list[dict[str, Any]]:
    """One line for a requester, an action and a task: how many questions, and how they stand. Most pending first."""
    groups: dict[tuple[str, str, str | None], list[Question]] = {}
    for question in questions:
        key = (question["requester"], question["action"], question["task_id"])
        groups.setdefault(key, []).append(question)
    lines = [
        {
            "requester": requester,
            "action": action,
            "task_id": task_id,
            "count": len(members),
            "states": {state: number for state in STATES if (number := _number(members, state))},
            "resources": len({question["resource"] for question in members}),
            "first_asked_at": min(question["asked_at"] for question in members),
            "first_expires_at": min(question["expires_at"] for question in members),
        }
        for (requester, action, task_id), members in groups.items()
    ]
    return sorted(lines, key=lambda line: -cast("dict[str, int]", line["states"]).get("pending", 0))


def _number(questions: list[Question], state: str) -> int:
    return sum(question["state"] == state for question in questions)


def _asked(question: Question) -> dict[str, Any]:
    """The call, for the log: without its query, which often holds secrets, and with its body's digest alone.
    What the settings hide stands as `recorded` shows it."""
    shown = question.get("recorded", question)
    return {
        "requester": question["requester"],
        "acting": question["actor"],
        "task_id": question["task_id"],
        "action": question["action"],
        "resource": shown["resource"],
        "method": question["method"],
        "host": question["host"],
        "path": shown["path"].partition("?")[0],
        "body_sha256": question["body_sha256"],
    }
