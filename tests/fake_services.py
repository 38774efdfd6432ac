"""The app as the admin API sees it, for tests of the API alone: it remembers what it was asked."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from signalwarden.config import Right
from signalwarden.decisions import Looked
from signalwarden.services import Client, Readiness

SECRET = "s3cret-token-that-nobody-may-ever-see"


class FakeApprovals:
    """A desk that remembers what it was asked."""

    def __init__(self, services: FakeServices) -> None:
        self._services = services
        self.answers: list[tuple[str, str, bytes, bool]] = []
        self.listed: list[tuple[str | None, str | None, int]] = []

    def listing(self, state: str | None, requester: str | None, limit: int) -> bytes:
        self._services.fail()
        self.listed.append((state, requester, limit))
        return b'{"approvals":[],"groups":[],"count":0,"truncated":false}'

    def show(self, approval_id: str) -> bytes:
        self._services.fail()
        return b'{"approval_id":"a"}'

    def answer(self, client: str, approval_id: str, body: bytes, *, approve: bool) -> bytes:
        self._services.fail()
        self.answers.append((client, approval_id, body, approve))
        return b'{"approval_id":"a","state":"approved","need":1,"approved_by":[]}'


class FakeTasks:
    """As FakeApprovals."""

    def __init__(self, services: FakeServices) -> None:
        self._services = services
        self.asked: list[tuple[str, str, bytes | str]] = []

    def begin(self, client: str, body: bytes, *, certificate: str | None, parent: str | None = None) -> bytes:
        self._services.fail()
        self.asked.append((client, parent or "begin", body))
        return b'{"task_id":"t","grant":"g","expires_at":"2026-11-24T10:00:00Z"}'

    def end(self, client: str, task_id: str, how: str, *, operator: bool) -> bytes:
        self._services.fail()
        self.asked.append((client, task_id, how))
        return b'{"task_id":"t","state":"completed"}'

    def listing(self, principal: str | None, *, ended: bool, limit: int) -> bytes:
        self._services.fail()
        return b'{"tasks":[],"count":0,"truncated":false}'

    def show(self, task_id: str) -> bytes:
        self._services.fail()
        return self.listing(None, ended=True, limit=1)

    def move_workflow(self, client: str, workflow: str, body: bytes) -> bytes:
        self._services.fail()
        self.asked.append((client, workflow, body))
        return b'{"workflow":"w","state":"approved"}'

    def workflows(self, limit: int) -> bytes:
        self._services.fail()
        return b'{"workflows":[],"count":0,"truncated":false}'

    def jwks(self) -> bytes:
        return b'{"keys":[]}'


class FakeStream:
    """Says what it is told; ends when it is told."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.looks: list[Looked] = []
        self.closed = False

    def look(self) -> Looked:
        return self.looks.pop(0) if self.looks else Looked([], None, False, True, False)

    def close(self) -> None:
        self.closed = True


class FakeDecisions:
    """As FakeApprovals."""

    def __init__(self, services: FakeServices) -> None:
        self._services = services
        self.asked: list[tuple[dict[str, str], str | None, int | None]] = []
        self.stream = FakeStream()
        self.stream.ended.set()
        self.slow = 0

    def listing(self, filters: Mapping[str, str], after: str | None, limit: int) -> bytes:
        self._services.fail()
        self.asked.append((dict(filters), after, limit))
        return b'{"decisions":[],"count":0,"truncated":false}'

    def show(self, decision_id: str) -> bytes:
        self._services.fail()
        return b'{"decision_id":"d"}'

    def follow(self, filters: Mapping[str, str], after: str | None) -> FakeStream:
        self._services.fail()
        self.asked.append((dict(filters), after, None))
        return self.stream

    def count_slow(self) -> None:
        self.slow += 1


class FakeOverrides:
    """As FakeApprovals."""

    def __init__(self, services: FakeServices) -> None:
        self._services = services
        self.status = 202
        self.asked: list[tuple[str, str, bytes]] = []

    def override(self, client: str, name: str, body: bytes) -> tuple[int, bytes]:
        self._services.fail()
        self.asked.append((client, name, body))
        return self.status, b'{"state":"proposed"}'

    def listing(self) -> bytes:
        self._services.fail()
        return b'{"overrides":[],"proposals":[]}'


class FakeAuthzen:
    """As FakeApprovals."""

    def __init__(self, services: FakeServices) -> None:
        self._services = services
        self.asked: list[tuple[str, str, bytes, str | None]] = []
        self.base: str | None = "https://pdp.example"

    def evaluation(
        self, client: Client, body: bytes, *, certificate: str | None, request_id: str | None
    ) -> bytes:
        self._services.fail()
        self.asked.append(("evaluation", client.id, body, request_id))
        return b'{"decision":true}'

    def evaluations(
        self, client: Client, body: bytes, *, certificate: str | None, request_id: str | None
    ) -> bytes:
        self._services.fail()
        self.asked.append(("evaluations", client.id, body, request_id))
        return b'{"evaluations":[]}'

    def metadata(self) -> bytes | None:
        return b'{"policy_decision_point":"%s"}' % self.base.encode() if self.base else None


class FakeServices:
    """Answers at once; `fault` is raised instead, where set."""

    def __init__(self) -> None:
        self.client = "spiffe://prod.example/client"
        self.may: frozenset[Right] = frozenset(Right)
        self.fault: Exception | None = None
        self.is_ready = True
        self.knows_certificates = True
        self.chains: list[bytes] = []
        self.refusals: list[tuple[str | None, Right | None, str]] = []
        self.published: list[tuple[bytes, str]] = []
        self.asked: list[tuple[str | None, int]] = []
        self.switched: list[tuple[str, str, str | None, bool]] = []
        self.revoked: list[tuple[str, bytes]] = []
        self.pushed: list[tuple[str, str | None, bytes]] = []
        self.vouched: list[tuple[str, str]] = []
        self.tasks: Any = FakeTasks(self)
        self.approvals: Any = FakeApprovals(self)
        self.overrides: Any = FakeOverrides(self)
        self.decisions: Any = FakeDecisions(self)
        self.authzen: Any = FakeAuthzen(self)

    def authenticate(self, token: bytes, chain: bytes = b"") -> Client | None:
        self.chains.append(chain)
        return Client(self.client, self.may) if token == SECRET.encode() else None

    def authenticate_peer(self, chain: bytes) -> Client | None:
        self.chains.append(chain)
        return Client("spiffe://prod.example/svid", self.may) if self.knows_certificates else None

    def refused(self, client: Client | None, right: Right | None, detail: str) -> None:
        self.refusals.append((client.id if client else None, right, detail))

    def publish(self, body: bytes, client: Client) -> bytes:
        self.fail()
        self.published.append((body, client.id))
        return b'{"accepted":0,"rejected":[]}'

    def ssf_push(
        self, feed: str, content_type: str | None, body: bytes
    ) -> tuple[int, bytes, Mapping[str, str]]:
        self.pushed.append((feed, content_type, body))
        return 202, b"", {}

    def ssf_streams(self) -> bytes:
        return b'{"streams":[]}'

    def ssf_resynchronise(self, feed: str, actor: str) -> bool:
        self.fail()
        self.vouched.append((feed, actor))
        return feed == "idp"

    def signals(self, subject: str | None, limit: int) -> bytes:
        self.fail()
        self.asked.append((subject, limit))
        return b'{"signals":[],"truncated":false}'

    def switch_publisher(self, actor: str, publisher: str, signal: str | None, *, enabled: bool) -> bytes:
        self.fail()
        self.switched.append((actor, publisher, signal, enabled))
        return b'{"publisher":"p"}'

    def publishers(self) -> bytes:
        self.fail()
        return b'{"publishers":[]}'

    def revoke(self, actor: str, body: bytes) -> bytes:
        self.fail()
        self.revoked.append((actor, body))
        return b'{"revoked":{}}'

    def revocations(self, limit: int) -> bytes:
        self.fail()
        return b'{"revocations":[],"count":%d,"truncated":false}' % limit

    def register(self) -> bytes:
        self.fail()
        return b'{"signals":[],"time":"2026-11-24T10:00:00Z"}'

    def reload(self, actor: str) -> str:
        self.fail()
        return f"revision for {actor}"

    def readiness(self) -> Readiness:
        return Readiness(self.is_ready, {"ready": self.is_ready})

    def metrics_text(self) -> tuple[bytes, str]:
        self.fail()
        return b"# metrics\n", "text/plain; version=0.0.4; charset=utf-8"

    def decisions_path(self) -> str:
        return "var/decisions.jsonl"

    def fail(self) -> None:
        if self.fault:
            raise self.fault
