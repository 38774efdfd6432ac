"""A server and its callers in one process that kills itself at a chosen write: what it had answered until then stands in a
file. For tests/e2e/test_crash.py, which starts it anew and looks at what is left.

`python -m tests.crashing DIRECTORY ACKNOWLEDGED N within|after`: at the Nth write, before it is committed or once it is
durable. N 0: never, and the count of writes is the last line.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

import signalwarden.app
import signalwarden.decision_log.service
from signalwarden import _core
from signalwarden.admin_client import AdminClient
from signalwarden.app import App
from signalwarden.decision_log.records import change_record, now_us
from signalwarden.decision_log.sink import FileSink
from signalwarden.server import CHECK_METHOD
from signalwarden.state import SqliteStore
from tests import asking
from tests.callers import clients, who

TIMEOUT_S = 20.0
AGENT = asking.AGENT
ORCHESTRATOR, APPROVER = "spiffe://prod.example/orchestrator", "spiffe://prod.example/people/anna"
SECOND, FEED = "spiffe://prod.example/people/ben", "spiffe://prod.example/feed"
RIGHTS = {
    ORCHESTRATOR: "tasks, workflows, read, operate",
    APPROVER: "approve, override, read",
    SECOND: "override, read",
    FEED: "publish",
}
OVERRIDDEN = {"long": "spiffe://prod.example/agent-long", "short": "spiffe://prod.example/agent-short"}
"""About whom two people speak: until long after the test, and for a second."""


CLIENTS = clients(RIGHTS)
ROUTES = """\
routes:
  - match: {host: "pages.example", method: GET, path: "/notes/{id}"}
    action: note.read
    resource: {type: Page, id: "{id}"}
    system: notes
    tier: jit
    sensitivity: low
  - match: {host: "pages.example", method: GET, path: "/crm/{id}"}
    action: crm.read
    resource: {type: Page, id: "{id}"}
    system: crm
    tier: jit
    sensitivity: high
  - match: {host: "pages.example", method: POST, path: "/transfers/{id}"}
    action: transfer.create
    resource: {type: Page, id: "{id}"}
    system: payments
    tier: approval
    sensitivity: high
  - match: {host: "pages.example", method: POST, path: "/loans/{id}"}
    action: loan.create
    resource: {type: Page, id: "{id}"}
    system: payments
    tier: approval
    sensitivity: high
  - match: {host: "pages.example", method: GET, path: "/guarded"}
    action: guarded.read
    resource: {type: Page, id: guarded}
    system: pages
    tier: runtime
    sensitivity: low
default: deny
"""
SIGNALS = f"""\
signals:
  posture:
    {{type: "enum[ok, bad]", subject: principal, max_age: 5m, influence: grant, used_by: [guarded.read],
     description: d, owner: o@x, purpose: p, review_by: 2099-01-01,
     sources: [{{kind: push, publisher: "{FEED}", assurance: authoritative}}]}}
"""
"""Nobody publishes it: its feed is dead."""
SETTINGS = """\
approvals: {actions: {loan.create: {ttl: 1s}}}
decision_log: {ring_bytes: 1048576}
"""
"""A question about a loan is soon of no account, and forgotten; the ring is soon full."""
POLICIES = """\
@id("begin") permit (principal, action == Action::"task.begin", resource);
@id("notes") permit (principal, action == Action::"note.read", resource);
@id("crm-first") permit (principal, action == Action::"crm.read", resource)
when { !context.chain.systems.contains("notes") };
@id("transfers") permit (principal, action == Action::"transfer.create", resource);
@id("loans") permit (principal, action == Action::"loan.create", resource);
@id("hand-on") permit (principal, action == Action::"task.delegate", resource);
@id("people") permit (principal, action == Action::"approval.give", resource);
@id("guarded") permit (principal, action == Action::"guarded.read", resource)
when { context.signals has posture && context.signals.posture == "ok" };
"""


class KillingStore(SqliteStore):
    """Kills its own process at a write. The mark of time is written each second and is not counted. Writes are made one
    at a time, under the intake's lock."""

    at = 0
    within = False
    count = 0
    _dies = False

    def append(self, changes: Sequence[_core.StoredChange]) -> None:
        with self._counted(not all(change.key == "time" for change in changes)):
            super().append(changes)

    def forget(self, keys: Sequence[str]) -> None:
        with self._counted(bool(keys)):
            super().forget(keys)

    @contextmanager
    def _counted(self, counts: bool) -> Iterator[None]:
        KillingStore.count += counts
        self._dies = counts and KillingStore.count == KillingStore.at
        yield

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        dies = self._dies
        with super()._transaction():
            yield
            if dies and KillingStore.within:  # written, not committed
                os.kill(os.getpid(), signal.SIGKILL)
        if dies:  # durable, not answered
            os.kill(os.getpid(), signal.SIGKILL)


class FullDisk(FileSink):
    """A log's file whose disk is full at will."""

    is_full = False

    def write(self, batch: bytes | memoryview) -> None:
        if FullDisk.is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(batch)


class Callers:
    """Envoy, an orchestrator and an approver."""

    def __init__(self, app: App, channel: grpc.Channel) -> None:
        self._app = app
        self._channel = channel

    def admin(self, name: str) -> AdminClient:
        return who(self._app, name)

    def check(self, request: Any) -> tuple[str, dict[str, Any]]:
        """Reason, and the problem document of a denial."""
        call = self._channel.unary_unary(CHECK_METHOD, request_serializer=bytes, response_deserializer=bytes)
        answer = bytes(call(bytes(request), timeout=TIMEOUT_S))
        denied = asking.parsed(answer).denied_response
        return asking.reason_of(answer), json.loads(denied.body) if denied and denied.body else {}

    def read(self, grant: str, path: str = "/notes/1") -> str:
        return self.check(asking.check_request(path=path, headers={"x-signalwarden-grant": grant}))[0]

    def transfer(
        self, which: str, named: str | None = None, *, action: str = "transfers"
    ) -> tuple[str, dict[str, Any]]:
        headers = {} if named is None else {"x-signalwarden-approval": named}
        path = f"/{action}/{which}"
        return self.check(asking.check_request("POST", path=path, body=b'{"amount":1}', headers=headers))

    def begin(self, parent: dict[str, Any] | None = None, **asked: Any) -> dict[str, Any]:
        body = {
            "principal": AGENT, "type": "t", "actions": ["note.read", "crm.read"], "resources": ["Page::*"],
            **asked,
        }  # fmt: skip
        with self.admin(ORCHESTRATOR) as admin:
            return admin.begin_task(body, parent=parent["task_id"] if parent else None)

    def approve(self, approval_id: str, *, approve: bool = True) -> None:
        with self.admin(APPROVER) as admin:
            admin.answer(approval_id, None, approve=approve)

    def sweep(self) -> None:
        """As the server does each second."""
        self._app._up().desks.sweep.run()

    def sweep_until(self, gone: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not gone():
            assert time.monotonic() < deadline
            time.sleep(0.1)
            self.sweep()

    def questions(self) -> set[str]:
        with self.admin(APPROVER) as admin:
            return {told["approval_id"] for told in admin.approvals(None, None, 100)["approvals"]}

    def override(self, by: str, name: str, ttl: str) -> str:
        """The state of what one of two says of `OVERRIDDEN[name]`."""
        told = {"value": "ok", "subject": OVERRIDDEN[name], "reason": "INC-7: the feed is dead", "ttl": ttl}
        with self.admin(by) as admin:
            return str(admin.override("posture", json.dumps(told).encode())["state"])

    def overridden(self) -> set[str]:
        with self.admin(APPROVER) as admin:
            return {told["subject"] for told in admin.overrides()["overrides"]}

    def guarded(self, name: str) -> str:
        """The reason of a call that needs the signal of the dead feed."""
        return self.check(asking.check_request(path="/guarded", principal=OVERRIDDEN[name]))[0]

    def await_room(self) -> None:
        """Until what a kill left in the ring is in the log: where it was full, calls are denied till then."""
        deadline, quiet = time.monotonic() + TIMEOUT_S, 0
        while quiet < 3:  # what is in hand for less than a millisecond looks like nothing
            told = self._app._up().log.detail()
            quiet = 0 if told["queued"] or told["lag_ms"] else quiet + 1
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def fill_log(self) -> None:
        """The disk is full, then the ring: no record is accepted from now on."""
        FullDisk.is_full = True
        running = self._app._up()
        line = change_record("log_repaired", at_us=now_us(), actor="server", bytes_cut=0)
        deadline = time.monotonic() + TIMEOUT_S
        # While the writer has not met the full disk, it may still take what waits.
        while running.engine.note(line) or running.log.detail()["healthy"]:
            assert time.monotonic() < deadline

    def end(self, task: dict[str, Any], verb: str) -> None:
        with self.admin(ORCHESTRATOR) as admin:
            admin.end_task(task["task_id"], verb)

    def move(self, state: str) -> None:
        with self.admin(ORCHESTRATOR) as admin:
            admin.move_workflow("w", state)


def scenario(callers: Callers, acknowledged: Path) -> None:
    """Each step is written down once it was answered."""
    fd = os.open(acknowledged, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def ack(step: str, **told: Any) -> None:
        os.write(fd, json.dumps({"step": step, **told}).encode() + b"\n")

    callers.move("approved")
    ack("approved")
    member = callers.begin(workflow="w")
    ack("begun", name="member", grant=member["grant"])
    kept = callers.begin()
    ack("begun", name="kept", grant=kept["grant"])
    done = callers.begin()
    ack("begun", name="done", grant=done["grant"])
    taken = callers.begin()
    ack("begun", name="taken", grant=taken["grant"])
    assert callers.read(kept["grant"]) == "allowed"
    ack("touched", name="kept")
    callers.end(done, "complete")
    ack("ended", name="done")
    part = callers.begin(taken)
    ack("begun", name="part", grant=part["grant"])
    assert callers.read(part["grant"]) == "allowed"
    callers.end(taken, "revoke")
    ack("ended", name="taken")
    ack("ended", name="part")
    for which in ("used", "open"):
        reason, problem = callers.transfer(which)
        assert reason == "approval_required"
        ack("asked", name=which, approval=problem["approval_id"])
        callers.approve(problem["approval_id"])
        ack("answered", name=which)
    assert callers.transfer("used")[0] == "allowed"
    ack("used", name="used")
    with callers.admin(ORCHESTRATOR) as admin:
        admin.revoke({"jti": "not-ours", "reason": "INC-7"})
    ack("revoked")
    problem = callers.transfer("refused")[1]
    ack("asked", name="refused", approval=problem["approval_id"])
    callers.approve(problem["approval_id"], approve=False)
    ack("denied", name="refused")
    callers.move("ended")
    ack("ended", name="member")
    problem = callers.transfer("late", action="loans")[1]
    ack("asked", name="late", approval=problem["approval_id"])
    late = problem["approval_id"]
    callers.approve(late)
    ack("expires", name="late")  # the next write is the one that forgets it, and comes when it has
    callers.sweep_until(lambda: late not in callers.questions())
    ack("forgotten", name="late")
    for name, ttl in (("long", "30m"), ("short", "1s")):
        assert callers.guarded(name) == "signal_unavailable"
        assert callers.override(APPROVER, name, ttl) == "proposed"
        ack("proposed", name=name)
        assert callers.override(SECOND, name, ttl) == "in_force"
        ack("overridden", name=name)
    ack("expires", name="short")
    callers.sweep_until(lambda: OVERRIDDEN["short"] not in callers.overridden())
    callers.sweep()  # what has ended is not listed, whether it is kept or not
    assert callers.guarded("short") == "signal_unavailable"
    give_back(callers, ack)


def give_back(callers: Callers, ack: Callable[..., None]) -> None:
    """The last two writes: a yes is claimed, the log refuses the allow, and the yes is given back."""
    approval = callers.transfer("back")[1]["approval_id"]
    ack("asked", name="back", approval=approval)
    callers.approve(approval)
    ack("answered", name="back")
    callers.fill_log()
    assert callers.transfer("back")[0] == "log_unavailable"
    FullDisk.is_full = False


def main(directory: str, acknowledged: str, at: str, side: str) -> None:
    KillingStore.at, KillingStore.within = int(at), side == "within"
    vars(signalwarden.app)["SqliteStore"] = KillingStore
    vars(signalwarden.decision_log.service)["FileSink"] = FullDisk
    app = App(directory)
    app.start()
    try:
        with grpc.insecure_channel(app.check_address) as channel:
            scenario(Callers(app, channel), Path(acknowledged))
    finally:
        app.stop()
    print(KillingStore.count)


if __name__ == "__main__":
    main(*sys.argv[1:])
