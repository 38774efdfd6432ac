"""How tests ask the core as Envoy would: directories from texts, requests with Envoy's own types, records as JSON."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envoy_data_plane.envoy.config.core.v3 import HeaderMap, HeaderValue
from envoy_data_plane.envoy.service.auth.v3 import (
    AttributeContext,
    AttributeContextHttpRequest,
    AttributeContextPeer,
    AttributeContextRequest,
    CheckRequest,
    CheckResponse,
)

from signalwarden import _core
from signalwarden.errors import ConfigurationError, FindingLike
from signalwarden.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

AGENT = "spiffe://prod.example/agent"
PUBLISHER = "spiffe://prod.example/publisher"
NOW = 1_800_000_000_000_000
"""Microseconds: some moment of 2027."""
MINUTE = 60_000_000

Record = dict[str, Any]


# ---- vectors ----------------------------------------------------------------------------------------------

OWN_VECTORS = Path(__file__).parent / "vectors"


def vector_roots() -> list[Path]:
    """Where vectors are: our own, and a folder of other projects' data if SIGNALWARDEN_VECTORS names one."""
    named = os.environ.get("SIGNALWARDEN_VECTORS")
    return [OWN_VECTORS, *([Path(named)] if named else [])]


def vectors(name: str) -> list[Any]:
    """One file as JSON, from each root that has it. Our own must be there."""
    assert (OWN_VECTORS / name).is_file(), f"tests/vectors/{name} is missing"
    return [json.loads((root / name).read_bytes()) for root in vector_roots() if (root / name).is_file()]


OF_TASKS_AND_QUESTIONS = frozenset(
    {"grant_expired", "grant_revoked", "grant_scope_exceeded", "approval_denied", "approval_expired"}
    | {"delegation_widens"}
)
"""Reasons that need a task or a question of before: tests/e2e/test_tasks.py, test_approvals.py and test_clock_back.py."""


def answered(engine: _core.Engine, request: bytes) -> bytes:
    """The answer to a call; tokens that are not known are not validated either. What it changes is taken in."""
    answer = engine.check(request)
    if isinstance(answer, _core.Pending):
        answer = engine.validated(request, proofs=(), refused=())
    if isinstance(answer, bytes):
        return answer
    engine.apply(answer.changes, now_us=NOW)
    return engine.finish(answer, kept=True)[0]


def prove(
    engine: _core.Engine,
    settings: Settings,
    token: str,
    *,
    now_us: int,
    issued_s: float = -60.0,
    expires_s: float = 600.0,
    **changes: Any,
) -> None:
    """Makes the first issuer's token count as if it had been validated; with some of its evidence otherwise."""
    issuer = settings.identity.oauth[0]
    authority, member = f"keys:{issuer.issuer}", "k1 thumbprint"
    engine.set_authority(authority, members=[member])
    proof = {
        "v": 1,
        "digest": hashlib.sha256(token.encode()).hexdigest(),
        "class": issuer.token_class,
        "issuer": issuer.issuer,
        "terms": issuer.terms(),
        "principal": AGENT,
        "subject": "client-7",
        "audience": list(issuer.audience),
        "key_id": "k1",
        "key_set": "revision",
        "rests_on": [[authority, member]],
        "issued_at_us": now_us + round(issued_s * 1e6),
        "expires_at_us": now_us + round(expires_s * 1e6),
        **dict.fromkeys(("certificate_sha256", "token_id", "actor", "transaction", "scope", "requester")),
        "earlier_actors": [],
        "interactive": False,
        "claims": [],
        **changes,
    }
    admit(engine, json.dumps(proof).encode(), now_us=now_us)


def admit(engine: _core.Engine, proof: bytes, *, now_us: int) -> None:
    """Has the core hold the evidence of a token, without a call that brought it."""
    payload = json.dumps({"change": "proof_admitted", **json.loads(proof)}).encode()
    engine.apply([_core.StoredChange("proof", True, payload)], now_us=now_us)


# ---- directories ------------------------------------------------------------------------------------------


def core_settings(trust_domain: str = "prod.example", federates_with: Sequence[str] = ()) -> bytes:
    """What the core is told of settings that say no more than this."""
    return Settings.stand_in(trust_domain, tuple(federates_with)).for_core()


CORE_SETTINGS = core_settings()


def load(
    files: Mapping[str, str],
    *,
    trust_domain: str = "prod.example",
    federates_with: Sequence[str] = (),
    settings: bytes | None = None,
    now_us: int = NOW,
) -> _core.Configuration:
    """A directory from the texts of its files. What is left out is empty."""
    empty = {"routes.yaml": "routes: []\n", "signals.yaml": "signals: {}\n", "entities.json": "[]\n"}
    texts = {**empty, "entities.cedarschema": "entity Workload;\n", **files}
    return _core.Configuration.load(
        [(name, text.encode()) for name, text in texts.items()],
        settings=settings or core_settings(trust_domain, federates_with),
        now_us=now_us,
    )


def findings(files: Mapping[str, str], **options: Any) -> list[FindingLike]:
    """Everything that is said of a directory."""
    try:
        return list(load(files, **options).warnings)
    except ConfigurationError as error:
        return error.findings


def running(configuration: _core.Configuration, **options: Any) -> _core.Engine:
    """An engine with this configuration in force."""
    engine = _core.Engine(digest_key=b"k" * 32, **options)
    engine.swap(configuration)
    return engine


def publish(
    engine: _core.Engine,
    name: str,
    value: object,
    *,
    subject: str = AGENT,
    publisher: str = PUBLISHER,
    observed_us: int = NOW,
    now_us: int | None = None,
) -> None:
    """One signal through the front: judged, then taken in."""
    at = observed_us if now_us is None else now_us
    observed = datetime.fromtimestamp(observed_us / 1e6, UTC).isoformat()
    item = {"name": name, "subject": subject, "value": value, "observed_at": observed}
    admission = engine.admit(json.dumps({"signals": [item]}).encode(), publisher=publisher, now_us=at)
    assert admission.rejected == []
    engine.apply(admission.changes, now_us=at)


# ---- requests ---------------------------------------------------------------------------------------------


def check_request(
    method: str = "GET",
    host: str = "pages.example",
    path: str = "/home",
    *,
    principal: str = AGENT,
    headers: Mapping[str, str] | None = None,
    raw_headers: Sequence[tuple[str, bytes]] = (),
    body: bytes | None = None,
    truncated: bool = False,
    protocol: str = "HTTP/1.1",
    extensions: Mapping[str, str] | None = None,
) -> CheckRequest:
    """A request in Envoy's own type. A body is announced as Envoy announces one."""
    given = dict(headers or {})
    if body is not None and not raw_headers:
        given["x-envoy-auth-partial-body"] = str(truncated).lower()
    listed = [HeaderValue(key=name, raw_value=value) for name, value in raw_headers]
    http = AttributeContextHttpRequest(
        method=method,
        host=host,
        path=path,
        headers=given,
        header_map=HeaderMap(headers=listed) if listed else None,
        raw_body=body or b"",
        size=len(body or b""),
        protocol=protocol,
        scheme="https",
    )
    return CheckRequest(
        attributes=AttributeContext(
            source=AttributeContextPeer(principal=principal),
            request=AttributeContextRequest(http=http),
            context_extensions=dict(extensions or {}),
        )
    )


# ---- answers ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Decision:
    """An answer and its record."""

    answer: bytes
    record: Record

    @property
    def reason(self) -> str:
        """From the closed list."""
        return str(self.record["reason"])

    @property
    def allowed(self) -> bool:
        """By the answer, not by the record."""
        return grpc_code(self.answer) == 0


def decide(engine: _core.Engine, request: CheckRequest | bytes, *, now_us: int = NOW) -> Decision:
    """Decides offline."""
    answer, record = engine.decide(bytes(request), now_us=now_us)
    decision = Decision(answer, json.loads(record))
    allows = decision.record["outcome"] == "allow"
    assert allows == (decision.reason == "allowed")
    assert decision.allowed == (allows or decision.record.get("enforced") is False)
    return decision


def parsed(answer: bytes) -> CheckResponse:
    """An answer in Envoy's own type."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # `append` is deprecated, and still wins
        return CheckResponse.parse(answer)


def grpc_code(answer: bytes) -> int:
    """`status.code`, by which alone Envoy decides; no status is an allow to Envoy."""
    status = parsed(answer).status
    assert status is not None, "an answer without status"
    return int(status.code)


def reason_of(answer: bytes) -> str:
    """The reason in the metadata of an answer."""
    metadata = parsed(answer).dynamic_metadata
    assert metadata is not None
    ours = metadata.fields["signalwarden"].struct_value
    assert ours is not None
    reason = ours.fields["reason"].string_value
    assert reason is not None
    return reason


def drained(engine: _core.Engine) -> list[Record]:
    """Every record that waits."""
    lines, _ = engine.drain(max_records=1_000_000, wait_ms=0)
    return [json.loads(line) for line in lines.splitlines()]
