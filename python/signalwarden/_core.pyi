"""The decision core, in Rust. This stub is checked against the binary by mypy's stubtest."""

import os
from collections.abc import Sequence
from typing import Self, final

__all__ = [
    "BUILD_PROFILE",
    "Admission",
    "Answered",
    "Asker",
    "Configuration",
    "Credential",
    "Document",
    "Engine",
    "Finding",
    "Held",
    "NativeFront",
    "Pending",
    "Proposal",
    "Replay",
    "StoredChange",
    "Ticket",
    "Told",
    "__version__",
    "format_cedar",
    "nearest_name",
    "parse_yaml",
    "policy_parts",
    "publish_answer",
    "publish_to_json",
    "reasons",
    "rehearse",
    "tree_root",
]

__version__: str
BUILD_PROFILE: str
"""`dev` or `release`: how the binary was built."""

@final
class Finding:
    """One mistake of a configuration directory."""

    @property
    def severity(self) -> str:
        """`error` or `warning`."""
    @property
    def file(self) -> str:
        """Path relative to the directory."""
    @property
    def line(self) -> int:
        """From 1; 0 means the whole file."""
    @property
    def column(self) -> int:
        """From 1; 0 means the whole file."""
    @property
    def code(self) -> str:
        """Short stable code, such as `unknown_key`."""
    @property
    def message(self) -> str:
        """One sentence."""

@final
class Document:
    """A YAML file as JSON, with the place of each key: one YAML dialect for every file."""

    @property
    def json(self) -> bytes | None:
        """The content as JSON; None if it could not be read."""
    @property
    def places(self) -> dict[str, tuple[int, int]]:
        """RFC 6901 pointer to (line, column) of the value there."""
    @property
    def findings(self) -> list[Finding]:
        """Syntax mistakes, duplicate keys."""

def parse_yaml(file: str, text: str) -> Document:
    """Reads YAML text. Never raises for bad text: see `Document.findings`."""

def format_cedar(file: str, text: str) -> str:
    """The text of a policy file as Cedar's formatter writes it. Raises ConfigurationError with the mistakes of the file."""

def nearest_name(written: str, known: Sequence[str]) -> str | None:
    """The known name that was probably meant."""

def publish_to_json(request: bytes) -> bytes:
    """A `signalwarden.v1.PublishRequest` as the body of POST /v1/signals. Raises BadInputError."""

def publish_answer(answer: bytes) -> bytes:
    """The JSON answer of POST /v1/signals as a `signalwarden.v1.PublishResponse`. Raises BadInputError."""

def tree_root(hashes: bytes) -> bytes:
    """The root over neighbouring hashes of one level (RFC 6962 section 2.1), 32 bytes each, one at least. Raises ValueError
    for anything else."""

def reasons() -> list[tuple[str, int, int, bool, str]]:
    """The closed table of reasons: code, HTTP status, gRPC status, live (False: reserved), sentence."""

def policy_parts(configuration: Configuration) -> bytes:
    """What each policy consists of, in the order of `Configuration.describe()`, as JSON: [{"actions": those that its scope can
    match, "scoped": whether a request of them may be out of its scope, "conditions": [{"word": "when" or "unless", "line",
    "column"}]}]."""

def rehearse(
    engine: Engine, request: bytes, *, now_us: int
) -> tuple[bytes, bytes, list[StoredChange], bytes]:
    """Decides offline, as `Engine.decide`: CheckResponse, record, the changes that would be kept before the answer leaves,
    and what was reached of the policies in play as JSON: [{"id", "truths": how true each is up to its first condition, its
    second and so on to the whole: "certain", "may", "never" or "failed"}]."""

@final
class Configuration:
    """A directory's routes, register, entities and policies: loaded, checked, immutable."""

    @staticmethod
    def load(
        files: Sequence[tuple[str, bytes]],
        *,
        settings: bytes,
        now_us: int,
    ) -> Configuration:
        """Loads `routes.yaml`, `signals.yaml`, `entities.cedarschema`, `entities.json`, `policies/**/*.cedar`.

        `files` are pairs of path relative to the directory (with `/`) and content; `settings` is the JSON of
        `Settings.for_core()`.
        Raises signalwarden.errors.ConfigurationError with every finding.
        """
    @property
    def revision(self) -> str:
        """Hex SHA-256 over names and contents of the files and the settings that matter."""
    @property
    def warnings(self) -> list[Finding]: ...
    def token_claims(self) -> list[tuple[str, list[str]]]:
        """The claims of tokens that contracts ask for: issuer or trust domain, and the way to the claim."""
    def describe(self) -> bytes:
        """JSON: {"revision", "signals": [contract…], "routes": [...], "policies": [...], "actions": [...]}."""

@final
class Replay:
    """A directory that recorded decisions are made again with. It holds no live state: signals are as recorded."""

    def __new__(cls, configuration: Configuration) -> Replay: ...
    def decide(self, lines: bytes, *, changes: bytes | None = None) -> bytes:
        """Makes the decisions of a log again: one JSON line for each line of it, in their order.

        {"decision_id", "was": {"outcome", "reason"}, "now": {"outcome", "reason", "determining": [{"id", "effect",
        "file", "line", "applies"}]}, "flips"}, perhaps with "as_it_was": why the outcome is taken as recorded; both
        answers have "enforced": false where a denial is let pass. Or {"decision_id", "undecidable": why}, or
        {"skipped": "change" | "transport"}, or {"bad": why}.
        `changes`: a JSON list of {"name", "subject"?, and "drop": true, "state": "stale" or "value": …}.
        Raises signalwarden.errors.BadInputError if the changes can't be made.
        """
    def explain(self, line: bytes) -> bytes:
        """What the outcome of one recorded decision hangs on, by deciding it again: one JSON object.

        {"decision_id", "same": whether this directory decides so too, "now": {"outcome", "reason"}, "influence": {name:
        "decisive" | "consulted" | "refused"}, "minimal_sets": [[name…]…], "thresholds": [{"name", "value",
        "flips_at", "to_outcome", "to_reason"}], "smallest_change": [{"what": "signal", "name", "was": state, "from":
        value or null, "to": value or "state": "missing", "outcome", "reason"} or {"what": "grant" | "approval",
        "outcome", "reason"}]}, perhaps with "smallest_pairs": [{"changes": [two changes of signals], "outcome",
        "reason"}], "as_it_was", "cut": true where a bound ended a search, and "undecidable": why. Or {"skipped"} or
        {"bad"}, as of `decide`.
        """

@final
class Admission:
    """What of a publisher's batch was taken."""

    @property
    def answer(self) -> bytes:
        """JSON for the publisher: {"accepted": n, "rejected": [{"index", "reason", "detail"}]}."""
    @property
    def accepted(self) -> int: ...
    @property
    def error(self) -> str | None:
        """Why the body can't be read (of `admit_all`); then nothing of it was taken."""
    @property
    def rejected(self) -> list[tuple[int, str, str]]:
        """(index, reason, detail) of each refused signal."""
    @property
    def changes(self) -> list[StoredChange]: ...

@final
class StoredChange:
    """One Change as it is kept: persist, then apply."""

    def __new__(cls, key: str, replaces: bool, payload: bytes) -> StoredChange: ...
    @property
    def key(self) -> str:
        """Changes of one key supersede one another."""
    @property
    def replaces(self) -> bool:
        """True: earlier changes of this key need not be kept. False: it adds to them."""
    @property
    def payload(self) -> bytes:
        """Versioned JSON."""

@final
class Credential:
    """A token that was not seen before. Its repr does not hold it."""

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the token."""
    @property
    def source(self) -> str:
        """Sources of identities whose tokens may stand in its header, joined by commas: `jwt_svid`, `oauth`."""
    @property
    def header(self) -> str: ...
    @property
    def token(self) -> bytes: ...

@final
class Pending:
    """A call whose tokens have to be validated first."""

    @property
    def peer(self) -> str:
        """Whom the work is charged to: the peer that Envoy verified, else its address without port."""
    @property
    def credentials(self) -> list[Credential]: ...

@final
class Held:
    """A decision whose answer must not leave before its changes are durable."""

    @property
    def changes(self) -> list[StoredChange]:
        """What is to be kept and applied; none once it is finished."""
    @property
    def question(self) -> str | None:
        """Id of a question that it asks."""

@final
class Proposal:
    """A task that policies have permitted, and that waits for its grant."""

    @property
    def task_id(self) -> str:
        """Its id."""
    @property
    def decision_id(self) -> str:
        """The decision that permits it."""
    @property
    def expires_at_us(self) -> int:
        """When it ends by itself."""
    @property
    def claims(self) -> bytes:
        """JSON object of the grant's claims, without issuer and audience."""

@final
class Told:
    """The answer to whether a workload may do something."""

    @property
    def allowed(self) -> bool:
        """Yes or no. A yes has a record that was accepted."""
    @property
    def reason(self) -> str:
        """`allowed` or why not; beside a yes why it would be a no, were the route enforced."""
    @property
    def decision_id(self) -> str:
        """Id of the decision."""

@final
class Answered:
    """An answer to a question."""

    @property
    def decision_id(self) -> str | None:
        """The decision that permits it; a no needs none."""
    @property
    def state(self) -> str:
        """How the question stands with it: `pending`, `approved` or `denied`."""
    @property
    def changes(self) -> list[StoredChange]:
        """What is to be kept and applied."""

@final
class Engine:
    """The running core. Every method may be called from any thread; the interpreter is released inside."""

    def __new__(
        cls,
        *,
        log_capacity: int = ...,
        log_bytes: int = ...,
        influence: str = ...,
        digest_key: bytes | None = ...,
        max_live: int = ...,
        ring: str | os.PathLike[str] | None = ...,
        ring_bytes: int = ...,
        ack: str = ...,
        patience_ms: int = ...,
        fold_denials: bool = ...,
    ) -> Self:
        """No configuration yet: `check` answers `not_ready` until `swap`.

        `ring`: the file in which records wait until they are settled, so that they outlive the process; without it they wait in
        memory, `log_capacity` of them and `log_bytes` together. `ring_bytes`: its size where it is made. `ack`: `accepted`, or
        `synced`: a record counts as accepted once the disk has it. `patience_ms`: how long a decision waits for room.
        `fold_denials`: alike denials of one drained batch become one line. Raises LogError for a ring that can't be used.
        `influence`: `none`, `default` or `all`. `max_live`: values that may be live before new subjects are refused.
        """
    def swap(self, configuration: Configuration) -> None:
        """Puts a configuration in force, at once and whole."""
    @property
    def revision(self) -> str | None:
        """Revision in force."""
    def check(self, request: bytes) -> bytes | Pending | Held:
        """Decides one serialised CheckRequest. Total: every input gives a CheckResponse, or, where the settings name
        sources of tokens, a `Pending` whose tokens have to be validated before `validated` is called, or a `Held` whose
        changes have to be kept before `finish` gives the answer.

        The record has been accepted by the log when this returns an answer, or the answer is `log_unavailable`.
        """
    def validated(
        self, request: bytes, *, proofs: Sequence[bytes], refused: Sequence[tuple[str, str, str]]
    ) -> bytes | Held:
        """The second look at a call that was pending: a CheckResponse or a `Held`, as from `check`. A token that is neither among
        the proofs nor refused denies. `proofs`: JSON of each validated token's evidence; `refused`: digest, reason
        and one sentence of each other. Raises BadInputError for a proof or a reason that can't be read."""
    def finish(self, held: Held, *, kept: bool) -> tuple[bytes, list[StoredChange]]:
        """Ends a decision that was held: its CheckResponse, and what must still be kept (a yes that is given back, since
        the log refused the record). `kept`: whether its changes are durable and applied; if not, it denies. Raises
        ValueError the second time."""
    def propose_task(self, asked: bytes, *, client: str, certificate: str | None, now_us: int) -> Proposal:
        """Judges a task that a client asks for, by its own bounds and by policy; the decision is recorded. `asked`: JSON
        {"principal", "type", "workflow"?, "actions", "resources", "sensitivity"?, "environment"?, "ttl_us"?,
        "certificate_sha256"?, "parent"?}. `certificate`: hex SHA-256 of the client's own. Raises BadInputError and
        CallRefusedError."""
    def inquire(self, question: bytes, *, client: str, certificate: str | None, now_us: int) -> Told:
        """Whether a workload may do something, for a client that was let in and may ask about it; the decision is recorded.
        `question`: JSON {"subject": {"type", "id"}, "action": {"name", "properties"?}, "resource": {"type", "id"}, "path",
        "request_id"?}. Raises BadInputError for another form."""
    def issue_task(self, proposal: Proposal, *, grant: bytes, now_us: int) -> StoredChange:
        """The change that begins a proposed task with its signed grant, of which the SHA-256 is kept. Hold a lock from here
        to `apply`. Raises CallRefusedError if what it stands on has ended."""
    def end_task(self, task_id: str, *, how: str, client: str, operator: bool, now_us: int) -> StoredChange:
        """The change that ends a task: `completed` or `revoked`. Raises CallRefusedError."""
    def end_tasks_of(self, principal: str, *, at_us: int, why: str, now_us: int) -> StoredChange:
        """The change that ends whatever a principal was given up to a time. Raises BadInputError."""
    def tasks(
        self,
        *,
        task_id: str | None = None,
        principal: str | None = None,
        ended: bool = False,
        limit: int,
        now_us: int,
    ) -> bytes:
        """JSON {"tasks": [...], "count", "truncated"}, newest first; ended ones only if asked for, or by id."""
    def move_workflow(self, workflow: str, *, state: str, client: str, now_us: int) -> StoredChange:
        """The change that makes a workflow `approved` or `ended`; ending ends its tasks. Raises BadInputError."""
    def workflows(self, *, limit: int) -> bytes:
        """JSON {"workflows": [{"workflow", "state", "by", "by_signal", "at", "ended_at"}], "count", "truncated"}."""
    def approvals(
        self, *, approval_id: str | None = None, state: str | None = None, limit: int, now_us: int
    ) -> bytes:
        """JSON {"approvals": [...], "count", "truncated"}, newest first. Raises BadInputError for an unknown state."""
    def answer_approval(
        self, approval_id: str, *, approve: bool, client: str, comment: str, now_us: int
    ) -> Answered:
        """A client's answer to a question; a yes is itself decided by policy. Hold a lock from here to `apply`. Raises
        BadInputError and CallRefusedError."""
    def waive_approval(self, approval_id: str, *, now_us: int) -> list[StoredChange]:
        """The changes by which a rule (`approval.waive`) answers a question; none if no rule does."""
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
    ) -> StoredChange:
        """The change by which two clients' word stands in for a signal of a subject while it is not available; `value` is
        JSON. Raises BadInputError, which never repeats the value."""
    def overrides(self, now_us: int) -> bytes:
        """JSON {"overrides": [{"name", "subject", "value", "reason", "by", "at", "expires_at"}]} of those in force; the
        value of a secret signal is null."""
    def expired(self, *, limit: int, now_us: int) -> list[str]:
        """Keys of kept changes that count no more: to be forgotten where they are kept, then here by `forget`."""
    def forget(self, keys: Sequence[str]) -> None:
        """Lets go of what these keys name."""
    def set_authority(self, name: str, *, members: Sequence[str]) -> bool:
        """Puts the state of what proofs rest on in place, whole: `keys:<issuer>` and `jwt:<trust domain>` hold
        `"<kid> <thumbprint>"`, `trust:<trust domain>` holds `bundle`, `status:<address>` a digest. No member: it is
        withdrawn. True if that changes anything."""
    def authorities(self) -> bytes:
        """JSON: [{"authority", "members": count}]."""
    def revoke(
        self,
        *,
        digest: str | None = None,
        jti: str | None = None,
        subject: str | None = None,
        issuer: str | None = None,
        issued_before_us: int | None = None,
        now_us: int,
    ) -> StoredChange:
        """The change that revokes a token or certificate by its SHA-256, a token by `jti` (of one `issuer`, or any), or
        whatever was issued up to a time (now, where only a `subject` is named). Raises BadInputError."""
    def revocations(self, *, limit: int) -> bytes:
        """JSON: {"revocations": [...], "count", "truncated"}."""
    def prove(
        self, proof: bytes, *, certificate_sha256: str | None, now_us: int
    ) -> tuple[str | None, tuple[str, str] | None]:
        """The principal of a token that was validated for another door than that of checks, or (reason, sentence)
        why it does not count. The evidence is not kept. Raises BadInputError."""
    def is_certificate_revoked(self, *, subject: str, digest: str, issued_at_us: int) -> bool:
        """Whether a certificate that was verified at another door is revoked. Raises BadInputError."""
    def close(self) -> None:
        """From now on `check` answers `not_ready`; what is accepted can still be drained."""
    def decide(self, request: bytes, *, now_us: int) -> tuple[bytes, bytes]:
        """Decides offline at a given time, outside the log: (CheckResponse, record as JSON with influence)."""
    def admit(self, body: bytes, *, publisher: str, now_us: int) -> Admission:
        """Judges a body of POST /v1/signals, from a SPIFFE ID, `poll:NAME` or `ssf:NAME`; changes nothing. Hold a lock
        from `admit` to `apply`. Raises signalwarden.errors.BadInputError for a body that is no such JSON."""
    def admit_all(self, batches: Sequence[tuple[bytes, str]], *, now_us: int) -> list[Admission]:
        """Judges several calls (body, publisher) that are kept together: each sees what those before it bring.
        A body that can't be read is its own `error`. Raises BadInputError for a publisher that is none."""
    def switch_publisher(
        self, publisher: str, *, signal: str | None, enabled: bool, now_us: int
    ) -> StoredChange:
        """The change that switches a publisher or feed (`poll:NAME`, `ssf:NAME`), or one of its signals, on or off:
        keep, then apply. Raises BadInputError."""
    def stream(self, feed: str, *, event: str, at_us: int, now_us: int, detail: str = ...) -> StoredChange:
        """The change that says that a stream of events was `verified`, `suspended` or `resynchronised` then.
        Raises BadInputError."""
    def feeds(self) -> bytes:
        """JSON of the streams of events: [{"feed", "kind", "verified_at", "in_sync", "in_sync_since", "suspended"}]."""
    def signal_stats(self, *, now_us: int, scan: bool) -> bytes:
        """JSON {"signals": [{"name", "states": {state: n since the start}, "recent": {state: n of the last 5 minutes},
        "age_buckets": [[seconds, n not older]…], "age_count", "age_sum", "rejected": {reason: n}}]} of the register in
        force. With `scan` also "subjects", "freshest", "oldest": a look at every live value."""
    def measures(self) -> bytes:
        """JSON {"stages": [{"stage", "buckets": [[seconds, count]], "count", "sum"}], "routes": [{"route", "action",
        "reasons": {code: count}}]} of the decisions that were drained; a bucket counts all times up to its bound."""
    def publishers(self) -> bytes:
        """JSON [{"publisher", "last_seen", "accepted", "rejected": {reason: n}, "disabled", "disabled_signals"}] of
        whoever sent values or is switched off."""
    def switched_off(self) -> list[tuple[str, str | None]]:
        """Publishers and feeds that are switched off, as a whole (None) or for one signal."""
    def apply(self, changes: Sequence[StoredChange], *, now_us: int) -> None:
        """Takes persisted changes in, in order. Idempotent. Raises BadInputError for one that can't be read;
        the readable ones are applied."""
    def note(self, line: bytes) -> bool:
        """Offers a ready JSON object (change or transport record, no newline) to the log; False if it is full."""
    def drain(self, *, max_records: int, wait_ms: int) -> tuple[bytes, int]:
        """Takes accepted records, oldest first: (JSON lines, how many records they stand for). Waits up to `wait_ms` for
        the first. What was taken is the caller's to write, and then to settle."""
    def drain_into(
        self, into: bytearray, *, max_records: int, max_bytes: int, wait_ms: int
    ) -> tuple[int, int, bytes]:
        """As `drain`, into memory that is used again and grows where it must: (bytes of lines, records, SHA-256 of each line
        as a leaf of the log's tree, 32 bytes each). Up to `max_bytes`, but one line at least; more where denials are
        folded."""
    def settle(self, count: int) -> None:
        """So many drained records, oldest first, are durable where they were taken to: the ring's file may forget them."""
    def recovered(self) -> list[bytes]:
        """Lines without newline that an earlier process had accepted and not settled, oldest first. They are drained before
        anything new, with `"recovered": true`."""
    def pass_over(self, known: Sequence[int]) -> None:
        """Those of `recovered`, by number, that the log has: they are drained without a line."""
    @property
    def has_lost_records(self) -> bool:
        """Whether some of what an earlier process had accepted is missing: the machine died, and its disk was behind."""
    def release(self) -> None:
        """Lets go of the ring's file for another process. From now on every record is refused."""
    def queued(self) -> int:
        """Records that wait to be drained."""
    def signals(self, *, subject: str | None, limit: int, now_us: int) -> bytes:
        """JSON {"signals": [{"name", "subject", "state", "value", "assurance", "source", "observed_at",
        "age_ms"}], "truncated": bool}; values of `secret` contracts are left out."""
    def counters(self) -> dict[str, int]:
        """Monotonic counts: `decisions_<reason code>`, `unenforced`, `log_refused`, `panics`, `signals_accepted`,
        `signals_rejected_<reason>`; and gauges `live_signals`, `log_queued`."""
    def set_back(self, *, now_us: int) -> list[StoredChange]:
        """What ends tasks, approvals and overrides given out before time ran back by more than the mark bridges, and the
        mark with it, to be kept together; empty if time did not run back."""
    def time_mark(self, *, now_us: int) -> StoredChange:
        """The high-water mark of time as a Change, to persist now and then."""

@final
class NativeFront:
    """The native front door: HTTP/2, gRPC and the decision in Rust, in threads of its own."""

    def __new__(
        cls,
        engine: Engine,
        *,
        host: str | None = ...,
        port: int = ...,
        path: str | os.PathLike[str] | None = ...,
        threads: int,
        tls: tuple[bytes, bytes, bytes] | None = ...,
    ) -> Self:
        """Listens, and does not answer yet. `host`: digits; port 0: any free one. Else `path`: a Unix socket. `threads`:
        how many decide. `tls`: our chain, its key and the authorities of clients, each in PEM; without a certificate that
        leads to them a client gets no connection. Raises OSError and BadInputError."""
    @property
    def port(self) -> int:
        """The port that the system chose; 0 for a Unix socket."""
    def start(self) -> None:
        """Answers from now on."""
    def stop(self, *, grace_ms: int) -> None:
        """Says NOT_SERVING, lets calls in flight end for so long, then ends. May be called twice. Blocks."""
    def take(self, *, wait_ms: int) -> Ticket | Asker | None:
        """What next the core can't answer alone; None if nothing came in time. At most 1,024 wait; more are denied."""
    def set_tls(self, chain: bytes, key: bytes, authorities: bytes) -> None:
        """What new handshakes show and take. Raises BadInputError; what was there then goes on."""
    def judge_anew(self) -> None:
        """Whoever may ask may have changed: each client is asked about again at its next call."""
    def counts(self) -> tuple[int, int, int, int]:
        """So far: calls whose message never came, calls of unknown methods, connections for which there was no room, calls
        of clients that had been refused within the last second."""

@final
class Ticket:
    """A call of the native front door that waits for its answer. One that is let go without is denied."""

    @property
    def request(self) -> bytes:
        """The bytes of its CheckRequest."""
    def found(self) -> Pending | Held | None:
        """What the first look found; None the second time."""
    def answer(self, answer: bytes) -> bool:
        """The bytes of a CheckResponse, once. False: nobody waits for it any more."""

@final
class Asker:
    """A client of the native front door that wants to know whether it may ask. One that is let go may not."""

    @property
    def chain(self) -> list[bytes]:
        """Its certificates in DER, its own first; TLS has shown that it has the key."""
    def answer(self, may_ask: bool) -> bool:
        """Once. False: nobody waits for it any more."""
