"""`make bench-tasks`: what a grant costs to issue, how soon its end is felt, what a check with a grant costs beside one
without, and how long a call waits for its approval. See README.md for what the figures mean.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script

from bench import directory, figures, stage
from bench.stage import ROOT, BenchError, Server
from signalwarden.admin_client import AdminClient
from signalwarden.config import Address
from signalwarden.server import CHECK_METHOD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ISSUED: Final = 2_000
REVOKED: Final = 10_000
"""Of each the next check is asked for as soon as the answer of its end is there."""
APPROVED: Final = 500
ROUNDS: Final = 5
ROUND_S: Final = 2.0
ORCHESTRATORS: Final = 16
"""Clients that begin tasks by turns: one alone is held to 200 a second, and the bench is not about that."""
APPROVER: Final = "spiffe://prod.example/people/anna"
GRANT: Final = "x-signalwarden-grant"
WHOLE: Final = {"x-envoy-auth-partial-body": "false"}
"""Envoy's word that all of the body is there; here it is empty."""
TIMEOUT_S: Final = 30.0

_ROUTES: Final = """\
  - match: {host: "payments.*", method: POST, path: "/v1/accounts/{account}/guarded"}
    action: transfer.guarded
    resource: {type: Account, id: "{account}"}
    args: {query: {amount: "long?"}}
    system: payments
    tier: jit
    sensitivity: medium
  - match: {host: "payments.*", method: POST, path: "/v1/accounts/{account}/asked"}
    action: transfer.asked
    resource: {type: Account, id: "{account}"}
    system: payments
    tier: approval
    sensitivity: medium
default: deny
"""
_POLICIES: Final = """\
@id("begin") permit (principal, action == Action::"task.begin", resource);
@id("people") permit (principal, action == Action::"approval.give", resource);
@id("asked") permit (principal, action == Action::"transfer.asked", resource);
"""


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measures tasks, grants and approvals; on loopback.")
    parser.add_argument("--issued", type=int, default=ISSUED, metavar="N", help="grants (2000)")
    parser.add_argument("--revoked", type=int, default=REVOKED, metavar="N", help="ends (10000)")
    parser.add_argument("--approved", type=int, default=APPROVED, metavar="N", help="approvals (500)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help="of processor time (5)")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    return figures.run(parser.parse_args(), measure, _said)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything, as one document."""
    where, found = figures.opened()
    wrong: list[str] = found["wrong"]
    with (
        tempfile.TemporaryDirectory(prefix="signalwarden-bench-") as folder,
        _house(Path(folder), where.server) as house,
    ):
        found["issue_ms"] = _issue(house, arguments.issued)
        found["revocation"] = _revocations(house, arguments.revoked, wrong)
        found["approval_ms"] = _approvals(house, arguments.approved, wrong)
        found["cpu_us"] = _cpu(house, arguments.rounds, wrong)
    return found


# ---- the stage --------------------------------------------------------------------------------------------


@dataclass
class _House:
    """A server, its orchestrators, its approver, and Envoy."""

    server: Server
    orchestrators: Iterator[AdminClient]
    approver: AdminClient
    check: Callable[..., Any]

    def begin(self) -> tuple[dict[str, Any], AdminClient]:
        """A task of the whole guarded action, and who may end it."""
        client = next(self.orchestrators)
        asked = {
            "principal": directory.PRINCIPAL,
            "type": "bench",
            "actions": ["transfer.guarded"],
            "resources": ["Account::*"],
            "ttl": "5m",
        }
        return client.begin_task(asked, parent=None), client

    def ask(self, request: bytes) -> bytes:
        """A CheckResponse."""
        return bytes(self.check(request, timeout=TIMEOUT_S))


@contextlib.contextmanager
def _house(where: Path, core: int | None) -> Iterator[_House]:
    made = directory.make(where / "directory")
    names = [f"spiffe://prod.example/ns/bench/sa/orchestrator-{n}" for n in range(ORCHESTRATORS)]
    tokens = {name: f"bench-{n}-{os.urandom(16).hex()}" for n, name in enumerate([*names, APPROVER])}
    _grow(made.directory, tokens)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(stage.served(made, core))

        def client(token: str) -> AdminClient:
            return stack.enter_context(AdminClient(Address("127.0.0.1", server.admin_port), token))

        if rejected := client(server.token).publish(directory.signals_body())["rejected"]:
            raise BenchError(f"the server refused signals of the bench: {rejected}")
        channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{server.port}"))
        clients = itertools.cycle([client(tokens[name]) for name in names])
        check = channel.unary_unary(CHECK_METHOD, bytes, bytes)
        yield _House(server, clients, client(tokens[APPROVER]), check)


def _grow(made: Path, tokens: dict[str, str]) -> None:
    """Two more actions: the measured one with a grant, under the same ten policies, and one that asks."""

    def edit(name: str, change: Callable[[str], str]) -> None:
        file = made / name
        file.write_text(change(file.read_text(encoding="utf-8")), encoding="utf-8")

    clients = "".join(
        f'  - {{id: "{name}", may: [{"approve" if name == APPROVER else "tasks"}], '
        f'token_sha256: "{hashlib.sha256(token.encode()).hexdigest()}", expires: "2099-01-01T00:00:00Z"}}\n'
        for name, token in tokens.items()
    )
    edit("signalwarden.yaml", lambda text: text.replace("decision_log:", f"{clients}decision_log:"))
    edit("routes.yaml", lambda text: text.replace("default: deny\n", _ROUTES))
    edit(
        "signals.yaml",
        lambda text: text.replace('["transfer.create"', '["transfer.create", "transfer.guarded"'),
    )
    plain = (made / "policies/transfers.cedar").read_text(encoding="utf-8")
    guarded = plain.replace("transfer.create", "transfer.guarded").replace('@id("transfers', '@id("guarded')
    (made / "policies/guarded.cedar").write_text(guarded + _POLICIES, encoding="utf-8")


def _guarded(grant: str) -> bytes:
    return directory.allowed_request(headers={GRANT: grant}, resource="42/guarded")


# ---- what is measured -------------------------------------------------------------------------------------


def _spread(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "p50": round(statistics.median(ordered), 2),
        "p99": round(ordered[int(len(ordered) * 0.99)], 2),
        "max": round(ordered[-1], 2),
        "count": len(ordered),
    }


def _issue(house: _House, count: int) -> dict[str, float]:
    """From the call of POST /v1/tasks to its answer: a policy decision, a signature, a durable write."""
    took = []
    for _ in range(count):
        begun = time.perf_counter()
        house.begin()
        took.append(1e3 * (time.perf_counter() - begun))
    return _spread(took)


def _revocations(house: _House, count: int, wrong: list[str]) -> dict[str, Any]:
    """A grant is used, its task is ended, and as soon as that is answered the next call is made."""
    ended, denied, alone = [], [], []
    for number in range(count):
        task, client = house.begin()
        request = _guarded(task["grant"])
        begun = time.perf_counter()
        if b"allowed" not in house.ask(request):
            wrong.append("a call with a live grant was not allowed")
        alone.append(1e3 * (time.perf_counter() - begun))
        begun = time.perf_counter()
        client.end_task(task["task_id"], "complete" if number % 2 else "revoke")
        answered = time.perf_counter()
        if b"grant_revoked" not in house.ask(request):
            wrong.append("a call after the end of its task was answered otherwise than `grant_revoked`")
        denied.append(1e3 * (time.perf_counter() - answered))
        ended.append(1e3 * (answered - begun))
    return {
        "end_ms": _spread(ended),
        "answer_to_denial_ms": _spread(denied),
        "a_check_before_ms": _spread(alone),
        "allowed_after": sum("after the end" in line for line in wrong),
    }


def _approvals(house: _House, count: int, wrong: list[str]) -> dict[str, dict[str, float]]:
    """A call is denied with a question, that is approved, the same call is made again and allowed."""
    asked, approved, allowed = [], [], []
    for number in range(count):
        request = directory.allowed_request(headers=WHOLE, resource=f"{number}/asked")
        begun = time.perf_counter()
        answer = house.ask(request)
        had = time.perf_counter()
        house.approver.answer(_approval_of(answer), None, approve=True)
        given = time.perf_counter()
        if b"allowed" not in house.ask(request):
            wrong.append("an approved call was not allowed")
        asked.append(1e3 * (had - begun))
        approved.append(1e3 * (given - had))
        allowed.append(1e3 * (time.perf_counter() - given))
        if b"approval_required" not in house.ask(request):
            wrong.append("an approval was used twice")
        # The question that this asked again is open, and at most 20 may be.
        house.approver.answer(_approval_of(house.ask(request)), None, approve=False)
    whole = [sum(parts) for parts in zip(asked, approved, allowed, strict=True)]
    return {
        "asked": _spread(asked), "approved": _spread(approved), "allowed": _spread(allowed), "together": _spread(whole),
    }  # fmt: skip


def _approval_of(answer: bytes) -> str:
    found = answer.partition(b'"approval_id":"')[2].partition(b'"')[0]
    if not found:
        raise BenchError("a call that needs an approval got no id of one")
    return found.decode()


def _cpu(house: _House, rounds: int, wrong: list[str]) -> dict[str, Any]:
    """Processor time of the server for a call, with a grant and without, by turns; the median round, and the ratio."""
    task, _ = house.begin()
    requests = {"runtime": directory.allowed_request(), "jit": _guarded(task["grant"])}
    found: dict[str, list[float]] = {name: [] for name in requests}
    for _ in range(rounds):
        for name, request in requests.items():
            before = stage.cpu_seconds(house.server.pid)
            command = [sys.executable, str(ROOT / "bench" / "load.py"), str(house.server.port), str(ROUND_S)]
            ran = subprocess.run(
                command, input=request, capture_output=True, timeout=TIMEOUT_S + ROUND_S, check=False
            )
            if ran.returncode:
                raise BenchError(ran.stderr.decode(errors="replace").strip())
            time.sleep(0.6)  # a record is on disk within half a second: it counts in its round
            said = json.loads(ran.stdout)
            if set(said["reasons"]) != {"allowed"}:
                wrong.append(f"{name}: {said['reasons']}")
            found[name].append(1e6 * (stage.cpu_seconds(house.server.pid) - before) / said["answered"])
    ratios = [jit / plain for jit, plain in zip(found["jit"], found["runtime"], strict=True)]
    return {
        **{name: round(statistics.median(values), 1) for name, values in found.items()},
        "ratio": round(statistics.median(ratios), 2),
        "ratio_min": round(min(ratios), 2),
        "ratio_max": round(max(ratios), 2),
    }


# ---- for people -------------------------------------------------------------------------------------------


def _said(found: dict[str, Any]) -> Iterator[str]:
    yield figures.headline(found)
    revocation, cpu = found["revocation"], found["cpu_us"]
    yield f"  a grant, asked for to issued          {_line(found['issue_ms'])}"
    yield f"  the end of a task, asked for to done  {_line(revocation['end_ms'])}"
    yield f"  end answered to first denial          {_line(revocation['answer_to_denial_ms'])}"
    yield f"  a check before that                   {_line(revocation['a_check_before_ms'])}"
    yield f"  allowed after the end was answered    {revocation['allowed_after']}"
    for name, spread in found["approval_ms"].items():
        yield f"  approval: {name:27} {_line(spread)}"
    yield (
        f"  server CPU a check: runtime {cpu['runtime']} µs, jit {cpu['jit']} µs, ratio {cpu['ratio']} "
        f"({cpu['ratio_min']} to {cpu['ratio_max']})"
    )
    yield from (f"WRONG: {wrong}" for wrong in found["wrong"][:20])


def _line(spread: dict[str, float]) -> str:
    return (
        f"p50 {spread['p50']:g} ms, p99 {spread['p99']:g} ms, max {spread['max']:g} ms, of {spread['count']}"
    )


if __name__ == "__main__":
    sys.exit(main())
