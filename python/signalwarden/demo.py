"""The demo: a refund agent, the real Envoy with mutual TLS, and what becomes of its requests as signals change.
The second story, of an agent's task and its tools, is in `demo_agent.py`.

The story is a list of steps; each is one HTTPS request, checked against what it should come to. What the decision
point says is read where an operator would read it: in the answer, in the decision log and in Envoy's access log.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from signalwarden import demo_agent, demo_fronts, offline, starter
from signalwarden.demo_stage import (
    LOOPBACK,
    Authority,
    Credential,
    Upstream,
    free_port,
    line_with,
    start_envoy,
    start_server,
    stopping,
)
from signalwarden.envoy_config import Options, render
from signalwarden.errors import ServerError

__all__ = ["run"]

STRANGER = "spiffe://prod.example/ns/web/sa/storefront"
HOST = "payments.prod.example"
ACCOUNT = "/v1/accounts/42"
REFUND = f"{ACCOUNT}/refunds"
# Long enough for the steps that need it fresh, short enough to wait for.
POSTURE_MAX_AGE = 4.0
FORGED_ID = "00000000-0000-7000-8000-000000000000"
# Enough for a median that does not jump; about a second in all.
MEASURED_CALLS = 100


def _claiming(spiffe_id: str) -> dict[str, str]:
    """The headers by which a client might pass for somebody else."""
    return {
        "x-signalwarden-principal": spiffe_id,
        "x-signalwarden-decision-id": FORGED_ID,
        "x-forwarded-client-cert": f"URI={spiffe_id}",
    }


@dataclass(frozen=True, slots=True)
class Expected:
    """What a step must come to."""

    status: int
    reason: str
    decisive: frozenset[str] = frozenset()
    """Signals that must be among the deciding ones."""

    def __str__(self) -> str:
        return f"{self.status} {self.reason}"


@dataclass(slots=True)
class Got:
    """What came of a step."""

    status: int
    reason: str
    decisive: list[str]
    added_us: int | None
    note: str = ""
    """Anything else that is not as it should be."""


@dataclass(frozen=True, slots=True)
class Step:
    """One request of the story."""

    title: str
    expected: Expected
    send: Callable[[Stage], httpx.Response]
    prepare: Callable[[Stage], None] = lambda _stage: None
    also: Callable[[httpx.Response], str] = lambda _response: ""


@dataclass(slots=True)
class Stage:
    """Everything that runs, and the hands to work it."""

    made: starter.Starter
    authority: Authority
    agent_credential: Credential
    agent: httpx.Client
    stranger: httpx.Client
    nobody: httpx.Client
    unguarded: httpx.Client
    port: int
    admin_port: int
    access_log: Path

    @property
    def log(self) -> Path:
        return self.made.directory / "var" / "decisions.jsonl"

    def publish(self, **values: object) -> None:
        """Signals about the agent, through the admin API, as their publisher sends them."""
        now = datetime.now(UTC).isoformat()
        signals = [
            {"name": name, "subject": starter.AGENT, "value": value, "observed_at": now}
            for name, value in values.items()
        ]
        answer = httpx.post(
            f"http://{LOOPBACK}:{self.admin_port}/v1/signals",
            headers={"authorization": f"Bearer {self.made.publisher_token}"},
            json={"signals": signals},
            timeout=10,
            trust_env=False,
        )
        if answer.status_code != httpx.codes.OK or answer.json()["rejected"]:
            raise ServerError(f"the signals were refused: {answer.text}")

    def switch_publisher(self, verb: str) -> None:
        """The operator switches the publisher `disable` or `enable`, through the admin API."""
        answer = httpx.post(
            f"http://{LOOPBACK}:{self.admin_port}/v1/publishers/{verb}",
            headers={"authorization": f"Bearer {self.made.operator_token}"},
            json={"id": starter.PUBLISHER},
            timeout=10,
            trust_env=False,
        )
        if answer.status_code != httpx.codes.OK:
            raise ServerError(f"the publisher could not be switched: {answer.text}")

    def refund(
        self, headers: dict[str, str] | None = None, *, client: httpx.Client | None = None
    ) -> httpx.Response:
        """The call that the story is about."""
        sent = {"host": HOST, **(headers or {})}
        return (client or self.agent).post(REFUND, json={"amount": 1250}, headers=sent)


# ---- the story --------------------------------------------------------------------------------------------


def _healthy(stage: Stage) -> None:
    stage.publish(device_trust=4, posture="ok")


def _unmanaged(stage: Stage) -> None:
    stage.publish(device_trust=1, posture="ok")


def _compromised(stage: Stage) -> None:
    stage.publish(device_trust=4, posture="compromised")


def _silent(stage: Stage) -> None:
    """The sensor falls silent: its last word was good, and grows old."""
    stage.publish(device_trust=4, posture="ok")
    time.sleep(POSTURE_MAX_AGE + 0.3)


def _switched_off(stage: Stage) -> None:
    """All is well, but somebody doubts the publisher that says so."""
    stage.publish(device_trust=4, posture="ok")
    stage.switch_publisher("disable")


def _switched_on(stage: Stage) -> None:
    """What it said before does not count again: it has to say it anew."""
    stage.switch_publisher("enable")
    stage.publish(device_trust=4, posture="ok")


def _overwritten(response: httpx.Response) -> str:
    """The upstream must have seen our headers, not the client's."""
    if response.status_code != httpx.codes.OK:
        return ""
    seen = response.json()["headers"]
    principals = [value for name, value in seen if name == "x-signalwarden-principal"]
    ids = [value for name, value in seen if name == "x-signalwarden-decision-id"]
    if principals != [starter.AGENT]:
        return f"the upstream saw the principal {principals}"
    if len(ids) != 1 or ids == [FORGED_ID]:
        return f"the upstream saw the decision id {ids}"
    return (
        "" if not any(name == "x-forwarded-client-cert" for name, _ in seen) else "XFCC reached the upstream"
    )


def _expect(status: int, reason: str, *decisive: str) -> Expected:
    return Expected(status, reason, frozenset(decisive))


STORY = (
    Step(
        "the refund agent refunds from a managed device",
        _expect(200, "allowed", "device_trust"),
        lambda stage: stage.refund(),
        _healthy,
    ),
    Step(
        "the same call once its device trust has fallen to 1",
        _expect(403, "no_policy_permits", "device_trust"),
        lambda stage: stage.refund(),
        _unmanaged,
    ),
    Step(
        "the same call, the sensor says compromised",
        _expect(403, "policy_denied", "posture"),
        lambda stage: stage.refund(),
        _compromised,
    ),
    Step(
        "the same call, the posture feed is stale",
        _expect(403, "signal_unavailable", "posture"),
        lambda stage: stage.refund(),
        _silent,
    ),
    Step(
        "the same call, the publisher of all signals is switched off",
        _expect(403, "signal_unavailable", "device_trust", "posture"),
        lambda stage: stage.refund(),
        _switched_off,
    ),
    Step(
        "the agent forges identity and decision headers: overwritten",
        _expect(200, "allowed", "device_trust"),
        lambda stage: stage.refund(_claiming(starter.OPERATOR)),
        _switched_on,
        _overwritten,
    ),
    Step(
        "another workload says by headers that it is the agent",
        _expect(403, "entity_unknown"),
        lambda stage: stage.refund(_claiming(starter.AGENT), client=stage.stranger),
        _healthy,
    ),
    Step(
        "no certificate at all, the same headers",
        _expect(401, "identity_missing"),
        lambda stage: stage.refund(_claiming(starter.AGENT), client=stage.nobody),
        _healthy,
    ),
    Step(
        "the agent says it is on another task (x-task-type: browse)",
        _expect(403, "policy_denied", "task_type"),
        lambda stage: stage.refund({"x-task-type": "browse"}),
        _healthy,
    ),
    Step(
        "the agent says refund on an untrusted device: gains nothing",
        _expect(403, "no_policy_permits", "device_trust"),
        lambda stage: stage.refund({"x-task-type": "refund"}),
        _unmanaged,
    ),
    Step(
        "a route that nobody declared",
        _expect(403, "route_unknown"),
        lambda stage: stage.agent.delete(ACCOUNT, headers={"host": HOST}),
        _healthy,
    ),
    Step(
        "a path with two meanings (/42%2f..%2f43)",
        _expect(403, "route_unknown"),
        lambda stage: stage.agent.get(f"{ACCOUNT}%2f..%2f43", headers={"host": HOST}),
        _healthy,
    ),
)
# After this step the plain engine is asked the same question.
STALE = "the same call, the posture feed is stale"
PLAIN = "… and what plain Cedar says when the signal is just absent"


def _play(stage: Stage, step: Step) -> Got:
    step.prepare(stage)
    response = step.send(stage)
    denied = response.headers.get("content-type") == "application/problem+json"
    try:
        body = response.json()
    except ValueError:
        return Got(response.status_code, "no decision", [], None, f"the answer was {response.text[:80]!r}")
    seen = dict(body.get("headers", []))
    decision_id = body.get("decision_id") if denied else seen.get("x-signalwarden-decision-id")
    record = line_with(stage.log, "decision_id", decision_id)
    access = line_with(stage.access_log, "decision_id", decision_id)
    if record is None or access is None:
        return Got(response.status_code, "no record", [], None, f"decision `{decision_id}` left no trace")
    told = {record["reason"], access["reason"], *({body["reason"]} if denied else ())}
    note = f"log, access log and answer disagree: {sorted(told)}" if len(told) > 1 else ""
    decisive = [_said(signal) for signal in record["signals"] if signal.get("influence") == "decisive"]
    waited = access.get("authz_us")
    return Got(
        response.status_code,
        record["reason"],
        decisive,
        int(waited) if waited is not None else None,
        note or step.also(response),
    )


def _said(signal: dict[str, Any]) -> str:
    value = json.dumps(signal["value"]) if signal.get("value") is not None else "?"
    return (
        f"{signal['name']} {value}" if signal["state"] == "fresh" else f"{signal['name']} {signal['state']}"
    )


def _plain(stage: Stage, directory: Path) -> Got:
    """The same policies and the same question, with the one difference that a missing posture is simply absent: what
    an engine without governed signals does. Decided by the same core, offline."""
    if not directory.exists():
        shutil.copytree(stage.made.directory, directory, ignore=shutil.ignore_patterns("var"))
        register = directory / "signals.yaml"
        text = register.read_text(encoding="utf-8")
        head, posture, tail = text.partition("  posture:\n")
        changed = posture + tail.replace(
            "when_unavailable: deny",
            'when_unavailable: absent\n    justification: "the demo shows what this would do"',
            1,
        )
        register.write_text(head + changed, encoding="utf-8")
    request = json.loads((directory / "samples" / "refund.json").read_bytes())
    request["attributes"]["request"]["http"]["headers"].pop("x-task-type", None)
    signals = {"signals": [{"name": "device_trust", "subject": starter.AGENT, "value": 4}]}
    from signalwarden import request_json  # half a second to import

    decision = offline.decide(
        directory,
        request_json.to_bytes(json.dumps(request)),
        signals=json.dumps(signals).encode(),
        now_us=int(time.time() * 1_000_000),
    )
    record = decision.record
    decisive = [_said(s) for s in record["signals"] if s.get("influence") == "decisive"]
    return Got(int(record["http_status"]), record["reason"], decisive, None)


# ---- the stage is built and struck ------------------------------------------------------------------------


@contextlib.contextmanager
def _stage(base: Path, front: str) -> Iterator[Stage]:
    check, admin, port, unguarded, envoy_admin = (free_port() for _ in range(5))
    made = starter.create(base / "directory", now=datetime.now(UTC), posture_max_age=f"{POSTURE_MAX_AGE:g}s")
    demo_fronts.opening(made.directory, front, check=check, admin=admin)
    authority = Authority(base / "tls", "prod.example")
    edge = authority.issue("spiffe://prod.example/ns/edge/sa/envoy", dns=("localhost",))
    agent = authority.issue(starter.AGENT)
    access_log = base / "access.jsonl"
    with contextlib.ExitStack() as stack:
        upstream = Upstream()
        stack.callback(upstream.close)
        stack.enter_context(stopping(start_server(made.directory, admin, base / "serve.log")))
        options = Options(
            listener=(LOOPBACK, port),
            unguarded=(LOOPBACK, unguarded),
            upstream=(LOOPBACK, upstream.port),
            admin=(LOOPBACK, envoy_admin),
            certificate=str(edge.certificate),
            key=str(edge.key),
            trust_bundle=str(authority.bundle),
            access_log=str(access_log),
            # A loaded machine is no reason for a denial in a demo.
            check_timeout=timedelta(seconds=5),
        )
        stack.enter_context(
            stopping(start_envoy(render(made.directory, "gateway", options), base, envoy_admin))
        )

        def client(credential: Credential | None, to: int = port) -> httpx.Client:
            context = authority.trust(credential)
            url = f"https://localhost:{to}"
            return stack.enter_context(
                httpx.Client(base_url=url, verify=context, timeout=15, trust_env=False)
            )

        yield Stage(
            made=made,
            authority=authority,
            agent_credential=agent,
            agent=client(agent),
            stranger=client(authority.issue(STRANGER)),
            nobody=client(None),
            unguarded=client(agent, unguarded),
            port=port,
            admin_port=admin,
            access_log=access_log,
        )


# ---- what is shown ----------------------------------------------------------------------------------------


def run(keep: bool = False, console: Console | None = None, *, front: str = "grpcio") -> int:
    """Plays the story; 0 if every row came out as told, 1 if any differs. Leaves nothing running.

    With `keep` everything stays up until Ctrl-C; `front` is the front door of the story. Raises ServerError with one
    sentence if it can't be staged.
    """
    out = console or Console()
    base = Path(tempfile.mkdtemp(prefix="signalwarden-demo-"))
    failed = True
    try:
        with _ended_in_order(), _stage(base, front) as stage:
            out.print(
                f"[bold]The real Envoy[/] on https://localhost:{stage.port} (mutual TLS), asking"
                f" [bold]signalwarden serve[/] about every request to a small upstream."
            )
            differing = _tell(stage, base, out)
            _measure(stage, out)
            demo_fronts.show(base / "fronts", out)
            differing += demo_agent.play(stage.authority, base / "agent", out)
            _where(stage, base, out, keep=keep)
            if differing:
                out.print(f"[bold red]{differing} row(s) differ from the story.[/]")
            else:
                out.print("[bold green]Every row came out as told.[/]")
            failed = bool(differing)
            if keep:
                _wait_for_interrupt(out)
        return 1 if failed else 0
    finally:
        # The records stay, for `log tail`; what could pass for a credential does not.
        for name in ("tls", "plain", "publisher.token"):
            path = base / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        if failed:
            out.print(f"Logs and records stay in {base}.", highlight=False, soft_wrap=True)


@contextlib.contextmanager
def _ended_in_order() -> Iterator[None]:
    """Being asked to end is no reason to leave children behind: SIGTERM is taken like Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _tell(stage: Stage, base: Path, out: Console) -> int:
    """Plays every step and prints the table; returns how many rows differ."""
    table = Table(title="A refund agent and its signals", title_justify="left", show_lines=False)
    for heading in ("request", "expected", "got", "deciding signals"):
        table.add_column(heading, overflow="fold")
    table.add_column("added", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    differing = 0
    with out.status("playing the story"):
        for step in STORY:
            differing += _row(table, step.title, step.expected, _play(stage, step))
            if step.title == STALE:
                got = _plain(stage, base / "plain")
                differing += _row(table, PLAIN, _expect(200, "allowed"), got)
    out.print(table)
    out.print(
        "[dim]added: how long Envoy waited for the decision, by its own clock. The second line of the stale feed is"
        " decided offline by the same policies, with `when_unavailable: absent` for posture.[/]"
    )
    return differing


def _row(table: Table, title: str, expected: Expected, got: Got) -> bool:
    names = {signal.split(" ")[0] for signal in got.decisive}
    missing = sorted(expected.decisive - names)
    note = got.note or (f"not decided by {', '.join(missing)}" if missing else "")
    same = (got.status, got.reason) == (expected.status, expected.reason) and not note
    colour = "green" if got.status == httpx.codes.OK else "yellow"
    table.add_row(
        escape(title),
        str(expected),
        f"[{colour}]{got.status} {escape(got.reason)}[/]" + (f"\n[red]{escape(note)}[/]" if note else ""),
        escape(", ".join(got.decisive)) or "-",
        f"{got.added_us / 1000:.1f} ms" if got.added_us is not None else "-",
        "[green]✓[/]" if same else "[bold red]✗[/]",
    )
    return not same


def _measure(stage: Stage, out: Console) -> None:
    """The same allowed call with and without the check, turn by turn, each over a connection of its own."""
    guarded: list[float] = []
    plain: list[float] = []
    for call in range(MEASURED_CALLS):
        if call % 25 == 0:
            _healthy(stage)
        for client, times in ((stage.agent, guarded), (stage.unguarded, plain)):
            started = time.perf_counter()
            response = stage.refund(client=client)
            times.append((time.perf_counter() - started) * 1000)
            if response.status_code != httpx.codes.OK:
                raise ServerError(
                    f"a measured call was answered {response.status_code}: {response.text[:200]}"
                )
    with_check, without = statistics.median(guarded), statistics.median(plain)
    out.print(
        f"Median of {MEASURED_CALLS} allowed calls: [bold]{with_check:.2f} ms[/] with the check,"
        f" {without:.2f} ms without: {with_check - without:.2f} ms added.",
        highlight=False,
    )


def _where(stage: Stage, base: Path, out: Console, *, keep: bool) -> None:
    directory = stage.made.directory
    records = len(stage.log.read_text(encoding="utf-8").splitlines())
    out.print(f"{records} records are in {stage.log}; to read them:", highlight=False, soft_wrap=True)
    out.print(f"  signalwarden log tail --config {directory}", highlight=False, soft_wrap=True)
    if not keep:
        out.print("To look around while it runs: [bold]signalwarden demo --keep[/]")
        return
    credential, bundle = stage.agent_credential, stage.authority.bundle
    token = base / "publisher.token"
    token.touch(mode=0o600)
    token.write_text(stage.made.publisher_token, encoding="utf-8")
    publish = f"--config {directory} --token-file {token}"
    curl = f"curl --cacert {bundle} --cert {credential.certificate} --key {credential.key}"
    body = "-H 'content-type: application/json' -d '{\"amount\": 1250}'"
    lines = (
        f"signalwarden log tail --follow --config {directory}",
        f"tail -f {stage.access_log}",
        f"signalwarden signals publish device_trust {starter.AGENT} 4 {publish}",
        f"signalwarden signals publish posture {starter.AGENT} ok {publish}",
        f"{curl} {body} https://localhost:{stage.port}{REFUND}",
    )
    out.print("Try, in another terminal:")
    for line in lines:
        out.print(f"  {escape(line)}", highlight=False, soft_wrap=True)


def _wait_for_interrupt(out: Console) -> None:
    out.print("Everything stays up. Ctrl-C ends it.")
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(1)
    out.print("Stopping.")
