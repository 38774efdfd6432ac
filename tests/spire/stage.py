"""signalwarden and the real Envoy in a SPIRE domain: a directory, `signalwarden serve`, Envoy with SDS of the agent."""

from __future__ import annotations

import json
import ssl
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from signalwarden import starter
from signalwarden.demo_stage import (
    LOOPBACK,
    Process,
    Upstream,
    envoy_binary,
    free_port,
    start_envoy,
    start_server,
    wait_for,
)
from signalwarden.envoy_config import Options, render
from tests.spire.real import Agent, Identity, Workload, link, program_selector, seconds_left

CLIENT = "spiffe://prod.example/agents/refunds"
ENVOY = "spiffe://prod.example/envoy"
WARDEN = "spiffe://prod.example/signalwarden"
# A loaded test machine is no reason for a denial.
PATIENT = timedelta(seconds=5)
STEADY_LIMIT_SECONDS = 90.0
ON_ONE_CONNECTION = 40
ACCOUNT = "/v1/accounts/42"

_ROUTES = """\
routes:
  - match: {host: "*", method: GET, path: "/v1/accounts/{account}"}
    action: account.read
    resource: {type: Account, id: "{account}"}
    system: payments
    tier: coarse
    sensitivity: low
default: deny
"""
EVERYBODY = 'permit (principal, action == Action::"account.read", resource);\n'


@dataclass
class Warden:
    """`signalwarden serve` of a directory of its own."""

    directory: Path
    check_port: int
    admin_port: int
    operator_token: str
    operator: Workload | None = None
    """Operates by its SVID, over mutual TLS, in place of the token."""
    process: Process | None = None
    starts: int = 0
    calls: int = 0
    seen: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def create(
        cls, base: Path, settings: str = "", *, operator: Workload | None = None, client: str | None = None
    ) -> Warden:
        """A directory in which whoever has an identity may read accounts. `settings` is added to its settings;
        `client` is one that operates too, by an SVID alone."""
        made = Warden(base / "conf", free_port(), free_port(), "", operator)
        made.operator_token, digest = starter.new_token()
        expires = (datetime.now(UTC) + starter.TOKEN_LIFE).strftime("%Y-%m-%dT%H:%M:%SZ")
        common = (
            "trust_domain: prod.example\n"
            f'listen: {{check: "{LOOPBACK}:{made.check_port}", admin: "{LOOPBACK}:{made.admin_port}"}}\n'
            'state: "sqlite:var/state.db"\n'
            'decision_log: {path: "var/decisions.jsonl"}\n'
        )
        proof = "" if operator else f', token_sha256: "{digest}", expires: "{expires}"'
        common += f'clients:\n  - {{id: "{starter.OPERATOR}", may: [operate]{proof}}}\n'
        if client is not None:
            common += f'  - {{id: "{client}", may: [operate]}}\n'
        files = {
            "signalwarden.yaml": common + settings,
            "routes.yaml": _ROUTES,
            "signals.yaml": "signals: {}\n",
            "entities.cedarschema": "entity Workload;\nentity Account;\n",
            "entities.json": "[]\n",
            "policies/accounts.cedar": EVERYBODY,
        }
        for name, text in files.items():
            (made.directory / name).parent.mkdir(parents=True, exist_ok=True)
            (made.directory / name).write_text(text)
        return made

    def start(self) -> None:
        self.starts += 1
        log = self.directory.parent / f"serve-{self.starts}.log"
        if self.operator is None:
            self.process = start_server(self.directory, self.admin_port, log)
            return
        command = [sys.executable, "-m", "signalwarden.cli", "serve", "--config", str(self.directory)]
        self.process = Process("signalwarden serve", command, log)
        self.process.wait_until(self._ready)

    def _ready(self) -> bool:
        try:
            with self.admin() as client:
                return client.get("/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    def admin(self, identity: Identity | None = None) -> httpx.Client:
        """A client of the admin API, the operator's unless an SVID is given; the caller closes it."""
        if self.operator is None:
            headers = {"authorization": f"Bearer {self.operator_token}"}
            return httpx.Client(
                base_url=f"http://{LOOPBACK}:{self.admin_port}", headers=headers, timeout=30, trust_env=False
            )
        self.calls += 1
        known = identity or self.operator.x509(self.directory.parent / f"operator-{self.calls}")
        base_url = f"https://localhost:{self.admin_port}"
        return httpx.Client(
            base_url=base_url, verify=tls_of(known, known.bundle), timeout=30, trust_env=False
        )

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()
            self.process = None

    @contextmanager
    def serving(self) -> Iterator[Warden]:
        try:
            self.start()
            yield self
        finally:
            self.stop()

    def policy(self, text: str) -> None:
        """Other policies, in force when this returns."""
        (self.directory / "policies" / "accounts.cedar").write_text(text)
        self.reload()

    def reload(self) -> None:
        with self.admin() as client:
            answer = client.post("/v1/reload")
        assert answer.status_code == 200, answer.text

    def records(self) -> list[dict[str, Any]]:
        """All decisions that are written by now."""
        path = self.directory / "var" / "decisions.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [record for record in map(json.loads, lines) if record["kind"] == "decision"]

    def record(self, decision_id: str) -> dict[str, Any]:
        """The record of one decision; waits for it."""

        def written() -> bool:
            self.seen.update((record["decision_id"], record) for record in self.records())
            return decision_id in self.seen

        if decision_id not in self.seen:
            wait_for(f"the record of `{decision_id}`", written, 15)
        return self.seen[decision_id]


def tls_of(identity: Identity | None, bundle: Path) -> ssl.SSLContext:
    """What a client of TLS needs: whose servers it believes, and its own SVID if it has one."""
    context = ssl.create_default_context(cafile=str(bundle))
    if identity is not None:
        context.load_cert_chain(identity.certificate, identity.key)
    return context


@dataclass
class Edge:
    """A running Envoy, and how to call it."""

    port: int
    admin_port: int
    process: Process
    upstream: Upstream

    def stat(self, name: str) -> int:
        """A counter of Envoy."""
        text = httpx.get(f"http://{LOOPBACK}:{self.admin_port}/stats", timeout=5, trust_env=False).text
        [value] = [line.split(": ")[1] for line in text.splitlines() if line.startswith(f"{name}: ")]
        return int(value)

    def client(self, identity: Identity | None, bundle: Path) -> httpx.Client:
        """A client with this SVID; the caller closes it."""
        return httpx.Client(
            base_url=f"https://localhost:{self.port}",
            verify=tls_of(identity, bundle),
            timeout=15,
            trust_env=False,
            # One that is kept is kept: httpx would leave it after 5 s.
            limits=httpx.Limits(keepalive_expiry=600),
        )

    def ask(
        self, identity: Identity, headers: Mapping[str, str] | None = None, path: str = ACCOUNT
    ) -> httpx.Response:
        """One request over a new connection with this SVID."""
        with self.client(identity, identity.bundle) as client:
            return client.get(path, headers=headers)


def start_edge(
    warden: Warden,
    agent: Agent,
    directory: Path,
    upstream: Upstream,
    *,
    federates_with: Sequence[str] = (),
    x509_seconds: int | None = None,
    own_id: str | None = None,
    also_without: bool = False,
) -> Edge:
    """An Envoy that runs a program of its own path, so that the agent gives it an SVID of its own.

    `also_without`: callers need no certificate, and those of other trust domains than ours have none that counts."""
    directory.mkdir()
    program = link(Path(envoy_binary()), directory / "envoy")
    spiffe_id = own_id or f"{ENVOY}/{directory.name}"
    agent.server.entry(
        spiffe_id,
        program_selector(program),
        node=agent.node,
        dns=["localhost"],
        x509_seconds=x509_seconds,
        federates_with=[f"spiffe://{name}" for name in federates_with],
    )
    port, admin = free_port(), free_port()
    options = Options(
        listener=(LOOPBACK, port),
        upstream=(LOOPBACK, upstream.port),
        admin=(LOOPBACK, admin),
        access_log=str(directory / "access.log"),
        check_timeout=PATIENT,
        agent=str(agent.socket),
        envoy_id=spiffe_id,
        require_client_certificate=not also_without,
    )
    bootstrap = render(warden.directory, "gateway", options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIGNALWARDEN_ENVOY", str(program))
        process = start_envoy(bootstrap, directory, admin)
    return Edge(port, admin, process, upstream)


@dataclass
class Steady:
    """What became of steady requests."""

    certificates: list[str] = field(default_factory=list)
    """SHA-256 of the certificate of each connection."""
    answers: list[httpx.Response] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


def ask_steadily(edge: Edge, caller: Workload, directory: Path, enough: Callable[[Steady], bool]) -> Steady:
    """Requests one after the other, with the SVID of the moment over a new connection and with the first one's over a
    connection that is kept, until it is enough. Whatever is not allowed is lost."""
    seen = Steady()
    deadline = time.monotonic() + STEADY_LIMIT_SECONDS

    def ask(client: httpx.Client) -> None:
        try:
            answer = client.get(ACCOUNT)
        except httpx.HTTPError as error:
            seen.lost.append(repr(error))
            return
        seen.answers.append(answer)
        if answer.status_code != 200:
            seen.lost.append(answer.text)

    first = caller.x509(directory / "first")
    seen.certificates.append(first.sha256)
    with edge.client(first, first.bundle) as kept:
        while not enough(seen):
            assert time.monotonic() < deadline, f"not enough after {len(seen.answers)} answers"
            identity = caller.x509(directory / str(len(seen.certificates)))
            seen.certificates.append(identity.sha256)
            with edge.client(identity, identity.bundle) as client:
                for _ in range(ON_ONE_CONNECTION):
                    ask(client)
            if seconds_left(first) > 1:
                ask(kept)
    certificates = len(set(seen.certificates))
    print(f"{len(seen.answers)} answers with {certificates} certificates, {len(seen.lost)} lost")
    return seen


def decision_id(answer: httpx.Response) -> str:
    """Of an allow, as the upstream saw it; of a denial, as the client did."""
    body = answer.json()
    if answer.status_code == 200:
        return str(dict(body["headers"])["x-signalwarden-decision-id"])
    return str(body["decision_id"])
