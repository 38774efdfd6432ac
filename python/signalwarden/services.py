"""What the admin API may ask of a running app: one Protocol, implemented by `app.py`, faked in tests.

Nothing here does any work; `admin.py` depends on this file, never on `app.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from signalwarden.config import Right

__all__ = [
    "AnswersQuestions",
    "Authzen",
    "Client",
    "DecisionStream",
    "Decisions",
    "Looked",
    "Overrides",
    "Readiness",
    "Services",
    "Tasks",
]


@dataclass(frozen=True, slots=True)
class Client:
    """An authenticated caller of the admin API: an entry of `clients:`, its token or SVID good and not expired."""

    id: str
    """Its SPIFFE ID; the publisher of what it publishes, the actor in change records."""
    may: frozenset[Right]
    """The rights written in the entry."""
    subjects: tuple[str, ...] = ()
    """Workloads that it may ask about beside itself, as the entry has them: SPIFFE IDs, or ones that end in `/*`."""

    def has(self, right: Right) -> bool:
        """True if it holds the right; `operate` includes everything under `read`."""
        return right in self.may or (right is Right.READ and Right.OPERATE in self.may)


@dataclass(frozen=True, slots=True)
class Readiness:
    """The answer of `/readyz`: 200 if `ready`, else 503; `detail` is its JSON body either way."""

    ready: bool
    detail: dict[str, Any]
    """`{"ready", "revision", "doors": {…}, "log": {"healthy", "queued", "lag_ms", "last_error",
    "bytes", "held_by", "sinks": {name: {…}}},
    "feeds": {name: {"running", "last_success", "last_error", "batches", "refused"}},
    "last_reload_refused": {"time", "findings": [...]} | null, "warnings": n,
    "unenforced": [labels of routes with `enforce: false`],
    "ungoverned": one sentence if policies see whole requests, else null}`."""


class AnswersQuestions(Protocol):
    """`approvals.Approvals`, as the admin API sees it."""

    def listing(self, state: str | None, requester: str | None, limit: int) -> bytes:
        """JSON of GET /v1/approvals: `{"approvals": […], "groups": […], "count", "truncated"}`. Raises
        BadInputError."""

    def show(self, approval_id: str) -> bytes:
        """JSON of GET /v1/approvals/{id}. Raises CallRefusedError."""

    def answer(self, client: str, approval_id: str, body: bytes, *, approve: bool) -> bytes:
        """Body of POST /v1/approvals/{id}/approve or deny in, JSON `{"approval_id", "state", "need", "approved_by"}`
        out, after the durable write. Raises BadInputError, CallRefusedError, StateError."""


class Looked(Protocol):
    """What one look of a stream of decisions found."""

    @property
    def records(self) -> Sequence[tuple[str, bytes]]:
        """Ids and lines of wanted decisions."""

    @property
    def last(self) -> str | None:
        """The last record that was looked at, wanted or not: where to go on from."""

    @property
    def missed(self) -> bool:
        """Something between the last look and this one was deleted before it was read."""

    @property
    def at_end(self) -> bool:
        """There is nothing more yet."""

    @property
    def too_slow(self) -> bool:
        """The reader has fallen too far behind: it is to be ended."""


class DecisionStream(Protocol):
    """The log as one client follows it."""

    ended: threading.Event
    """Set when the server stops."""

    def look(self) -> Looked:
        """What came since the last look, so much of it at most. Raises LogError."""

    def close(self) -> None:
        """Gives its place back."""


class Decisions(Protocol):
    """`decisions.Decisions`, as the admin API sees it. `filters`: of `since`, `outcome`, `reason`, `principal` and
    `action` those that were given; what they mean is judged here. Each raises BadInputError, CallRefusedError,
    LogError."""

    def listing(self, filters: Mapping[str, str], after: str | None, limit: int) -> bytes:
        """JSON of GET /v1/decisions: `{"decisions": [records as in the log], "count", "truncated"}`, the newest first;
        with `after`, the id of a record, those behind it as they were written, and `next`, where to go on from."""

    def show(self, decision_id: str) -> bytes:
        """The record, as in the log."""

    def follow(self, filters: Mapping[str, str], after: str | None) -> DecisionStream:
        """From behind a record, or from `since`, or from now on; close it."""

    def count_slow(self) -> None:
        """A stream was ended since its client did not keep up."""


class Overrides(Protocol):
    """`overrides.Overrides`, as the admin API sees it."""

    def override(self, client: str, name: str, body: bytes) -> tuple[int, bytes]:
        """Proposes (202), or confirms what another client has proposed (201, after the durable write): status and JSON.
        Raises BadInputError, CallRefusedError, StateError."""

    def listing(self) -> bytes:
        """JSON of GET /v1/overrides: `{"overrides": […], "proposals": […]}`."""


class Tasks(Protocol):
    """`tasks.Tasks`, as the admin API sees it."""

    def begin(self, client: str, body: bytes, *, certificate: str | None, parent: str | None = None) -> bytes:
        """Body of POST /v1/tasks or …/{parent}/delegate in, JSON `{"task_id", "grant", "expires_at"}` out, after the
        durable write. Raises BadInputError, RateLimitedError, CallRefusedError, StateError."""

    def end(self, client: str, task_id: str, how: str, *, operator: bool) -> bytes:
        """Completes or revokes; JSON `{"task_id", "state"}`, after the durable write. Raises CallRefusedError,
        StateError."""

    def listing(self, principal: str | None, *, ended: bool, limit: int) -> bytes:
        """JSON of GET /v1/tasks: `{"tasks": […], "truncated"}`."""

    def show(self, task_id: str) -> bytes:
        """The same of one task. Raises CallRefusedError `task_unknown`."""

    def move_workflow(self, client: str, workflow: str, body: bytes) -> bytes:
        """Body of PUT /v1/workflows/{id} in, JSON `{"workflow", "state"}` out, after the durable write. Raises
        BadInputError, StateError."""

    def workflows(self, limit: int) -> bytes:
        """JSON of GET /v1/workflows."""

    def jwks(self) -> bytes:
        """The public keys of grants, as a JWK set."""


class Authzen(Protocol):
    """`authzen.Authzen`, as the admin API sees it. Raises BadInputError, CallRefusedError, RateLimitedError."""

    def evaluation(
        self, client: Client, body: bytes, *, certificate: str | None, request_id: str | None
    ) -> bytes:
        """Body of POST /access/v1/evaluation in, JSON `{"decision", "context"}` out, after its record was accepted."""

    def evaluations(
        self, client: Client, body: bytes, *, certificate: str | None, request_id: str | None
    ) -> bytes:
        """Body of POST /access/v1/evaluations in, JSON `{"evaluations": […]}` out."""

    def metadata(self) -> bytes | None:
        """JSON of GET /.well-known/authzen-configuration; None where the settings name no address."""


class Services(Protocol):
    """The app as the admin API sees it. Every method may be called from any thread and blocks: call it from a
    plain `def` endpoint, which FastAPI runs in its thread pool."""

    def authenticate(self, token: bytes, chain: bytes = b"") -> Client | None:
        """The client whose token this is, on a connection with these certificates (PEM, leaf first) if any; None if
        there is none, it has expired, or the certificate is not its own, and then a change record is written. Takes
        the same time whichever client's token matches."""

    def authenticate_peer(self, chain: bytes) -> Client | None:
        """The client by its certificates alone; None if there is none, and then a change record is written."""

    def refused(self, client: Client | None, right: Right | None, detail: str) -> None:
        """Writes a change record `client_refused`: no or wrong token, or a right that is not in its `may`.
        Those that authenticate have already written one when they returned None; call this only for a missing right
        or a missing token."""

    def publish(self, body: bytes, client: Client) -> bytes:
        """Body of POST /v1/signals in, JSON answer out, after the durable write.
        Raises BadInputError (400) for a body that is no such JSON, RateLimitedError (429) if the client sends too
        much at once, StateError (503) if it can't be kept."""

    def ssf_push(
        self, feed: str, content_type: str | None, body: bytes
    ) -> tuple[int, bytes, Mapping[str, str]]:
        """A security event token that a transmitter pushes to a feed: status, body and headers of the answer that
        RFC 8935 asks for, after the durable write. Never raises for what the token is."""

    def ssf_streams(self) -> bytes:
        """JSON of GET /v1/ssf: `{"streams": [{"feed", "delivery", "verified_at", "in_sync", "suspended", …}]}`."""

    def ssf_resynchronise(self, feed: str, actor: str) -> bool:
        """Somebody vouches that what a stream missed has been made up for; False if there is no such stream.
        Raises StateError (503) if it can't be kept."""

    def signals(self, subject: str | None, limit: int) -> bytes:
        """JSON of GET /v1/signals: `{"signals": […], "truncated": bool}`."""

    def switch_publisher(self, actor: str, publisher: str, signal: str | None, *, enabled: bool) -> bytes:
        """Switches a publisher or feed, or one of its signals, off or on; JSON of how it stands, after the durable
        write. Raises UnknownPublisherError (404), BadInputError (400), StateError (503)."""

    def publishers(self) -> bytes:
        """JSON of GET /v1/publishers: `{"publishers": [{"publisher", "disabled", "disabled_signals", "signals",
        "last_seen", "accepted", "rejected"}]}`."""

    def revoke(self, actor: str, body: bytes) -> bytes:
        """Body of POST /v1/revocations in, JSON `{"revoked": {…}}` of what is in force out, after the durable write.
        Raises BadInputError (400), RevocationsFullError (409), StateError (503)."""

    def revocations(self, limit: int) -> bytes:
        """JSON of GET /v1/revocations: `{"revocations": [{…}], "count", "truncated"}`."""

    @property
    def tasks(self) -> Tasks:
        """Tasks, and the workflows that they belong to."""

    @property
    def approvals(self) -> AnswersQuestions:
        """Questions, and the answers to them."""

    @property
    def overrides(self) -> Overrides:
        """What two people have said in place of a signal."""

    @property
    def authzen(self) -> Authzen:
        """Questions of other enforcement points."""

    @property
    def decisions(self) -> Decisions:
        """The log of decisions, to be read."""

    def register(self) -> bytes:
        """JSON of GET /v1/register: the configuration in force, as `Configuration.describe()`, each signal with
        `live`: its subjects, ages, states and refusals as `Engine.signal_stats()` counts them; and `time`."""

    def reload(self, actor: str) -> str:
        """Loads, checks and puts the directory in force; returns the revision.
        Raises ConfigurationError (422) and changes nothing if the directory is bad."""

    def readiness(self) -> Readiness:
        """Whether the directory is loaded and the doors are open, with detail."""

    def metrics_text(self) -> tuple[bytes, str]:
        """Prometheus text of all metrics, and its content type."""

    def decisions_path(self) -> str:
        """The file the decision log is being written to."""
