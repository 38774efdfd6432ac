"""Tasks of a running app: begun, handed on, completed, revoked; and the workflows that they belong to.

Whether a task may begin is the core's to say, by its bounds and by policy. Here its grant is signed, and what was said
is kept before it is answered.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final, Protocol

import orjson

from signalwarden.decision_log import rfc3339
from signalwarden.errors import BadInputError, CallRefusedError
from signalwarden.rates import Rates
from signalwarden.values import span_s

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from signalwarden import _core
    from signalwarden.decision_log import Recorder
    from signalwarden.intake import Intake
    from signalwarden.refusals import Refusals

__all__ = ["TASKS_A_SECOND", "Tasks"]

TASKS_A_SECOND: Final = 200
"""Of one client, beyond a burst of a thousand: more is a loop that has lost its way."""
MAX_TEXT: Final = 2_048
"""Letters of a text of the body: a SPIFFE ID is the longest. The core has its own bounds on what they may be."""
MAX_LIST: Final = 64
"""The core's bound on actions, and on resources."""
TEXTS: Final = ("principal", "type")
OPTIONAL_TEXTS: Final = ("workflow", "sensitivity", "environment", "ttl", "certificate_sha256")
LISTS: Final = ("actions", "resources")
EXPECTED: Final = (
    'expected an object of "principal", "type", "actions": […], "resources": […] and, as wanted, "workflow", '
    '"sensitivity", "environment", "ttl" and "certificate_sha256"'
)


class Signing(Protocol):
    """Whoever signs grants: `tokens.grants.Signer`."""

    def sign(self, claims: bytes) -> bytes:
        """A token. Raises BadInputError and KeysError."""

    def jwks(self) -> bytes:
        """The public keys, as JSON."""


class Tasks:
    """The tasks of a running app. Thread-safe."""

    def __init__(
        self,
        engine: _core.Engine,
        intake: Intake,
        recorder: Recorder,
        refusals: Refusals,
        *,
        signer: Signing,
        clock: Callable[[], int],
    ) -> None:
        self._engine = engine
        self._intake = intake
        self._recorder = recorder
        self._refusals = refusals
        self._signer = signer
        self._clock = clock
        self._rates = Rates(TASKS_A_SECOND, deed=("begins", "tasks"))

    # ------------------------------------------------------------ begin and end

    def begin(self, client: str, body: bytes, *, certificate: str | None, parent: str | None = None) -> bytes:
        """Body of POST /v1/tasks, or of …/{parent}/delegate, in; JSON `{"task_id", "grant", "expires_at"}` out, after
        the durable write. `certificate`: hex SHA-256 of the client's own. Raises BadInputError, RateLimitedError,
        CallRefusedError, KeysError, StateError."""
        asked = _asked(body)
        self._rates.take(client, 1)
        if parent is not None:
            asked["parent"] = parent
        call = "task.begin" if parent is None else "task.delegate"
        with self._refusals.noted(client, call, parent or str(asked["type"])):
            proposal = self._engine.propose_task(
                orjson.dumps(asked), client=client, certificate=certificate, now_us=self._clock()
            )
            grant = self._signer.sign(proposal.claims)
            self._intake.keep(lambda: [self._engine.issue_task(proposal, grant=grant, now_us=self._clock())])
        expires_at = rfc3339(proposal.expires_at_us)
        self._recorder.change(
            "task_begun",
            actor=client,
            task_id=proposal.task_id,
            principal=asked["principal"],
            type=asked["type"],
            parent=parent,
            decision_id=proposal.decision_id,
            expires_at=expires_at,
            grant_sha256=hashlib.sha256(grant).hexdigest(),
        )
        return orjson.dumps({"task_id": proposal.task_id, "grant": grant.decode(), "expires_at": expires_at})

    def end(self, client: str, task_id: str, how: str, *, operator: bool) -> bytes:
        """Completes or revokes; JSON `{"task_id", "state"}`, after the durable write. `operator`: may revoke any.
        Raises CallRefusedError and StateError."""
        verb = {"completed": "complete", "revoked": "revoke"}[how]

        def make() -> Sequence[_core.StoredChange]:
            change = self._engine.end_task(
                task_id, how=how, client=client, operator=operator, now_us=self._clock()
            )
            return [change]

        with self._refusals.noted(client, f"task.{verb}", task_id):
            self._intake.keep(make)
        self._recorder.change("task_ended", actor=client, task_id=task_id, how=how)
        return orjson.dumps({"task_id": task_id, "state": how})

    # ------------------------------------------------------------ workflows

    def move_workflow(self, client: str, workflow: str, body: bytes) -> bytes:
        """Body of PUT /v1/workflows/{id} in, JSON `{"workflow", "state"}` out, after the durable write. Raises
        BadInputError and StateError."""
        content = _json(body)
        if not isinstance(content, dict) or {*content} != {"state"} or not isinstance(content["state"], str):
            raise BadInputError('expected {"state": "approved"} or {"state": "ended"}')
        state = content["state"]
        self._intake.keep(
            lambda: [self._engine.move_workflow(workflow, state=state, client=client, now_us=self._clock())]
        )
        self._recorder.change("workflow_moved", actor=client, workflow=workflow, state=state)
        return orjson.dumps({"workflow": workflow, "state": state})

    # ------------------------------------------------------------ reading

    def listing(self, principal: str | None, *, ended: bool, limit: int) -> bytes:
        """JSON of GET /v1/tasks."""
        return self._engine.tasks(principal=principal, ended=ended, limit=limit, now_us=self._clock())

    def show(self, task_id: str) -> bytes:
        """JSON of GET /v1/tasks/{id}: as the listing, of one task. Raises CallRefusedError `task_unknown`."""
        told = self._engine.tasks(task_id=task_id, limit=1, now_us=self._clock())
        if not orjson.loads(told)["tasks"]:
            raise CallRefusedError("task_unknown", "there is no task of this id, or no longer")
        return told

    def workflows(self, limit: int) -> bytes:
        """JSON of GET /v1/workflows."""
        return self._engine.workflows(limit=limit)

    def jwks(self) -> bytes:
        """JSON of GET /.well-known/jwks.json."""
        return self._signer.jwks()


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _asked(body: bytes) -> dict[str, Any]:
    """What the core reads of the body of a task that is to begin. Raises BadInputError, which never repeats what was
    sent: a token may stand there by mistake."""
    content = _json(body)
    if not isinstance(content, dict) or not content.keys() <= {*TEXTS, *OPTIONAL_TEXTS, *LISTS}:
        raise BadInputError(EXPECTED)
    present = {key: value for key, value in content.items() if value is not None}
    if not {*TEXTS, *LISTS} <= present.keys():
        raise BadInputError(EXPECTED)
    for key in (*TEXTS, *OPTIONAL_TEXTS):
        if key in present and not _is_text(present[key], MAX_TEXT):
            raise BadInputError(f"`{key}`: expected a text")
    for key in LISTS:
        texts = present[key]
        if not isinstance(texts, list) or not 1 <= len(texts) <= MAX_LIST:
            raise BadInputError(f"`{key}`: expected a list of 1 to {MAX_LIST} texts")
        if not all(_is_text(text, MAX_TEXT) for text in texts):
            raise BadInputError(f"`{key}`: expected a list of texts")
    if "ttl" in present:
        try:
            present["ttl_us"] = round(span_s(present.pop("ttl")) * 1_000_000)
        except ValueError as error:
            raise BadInputError("`ttl`: expected a span such as `30s` or `5m`") from error
    return present


def _is_text(value: object, longest: int) -> bool:
    return isinstance(value, str) and 0 < len(value) <= longest
