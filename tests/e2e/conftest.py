"""The real Envoy around a scripted decision point, or around the real one. Free ports of the loopback only."""

from __future__ import annotations

import json
import re
import time
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
from envoy_data_plane.envoy.service.auth.v3 import CheckRequest

from signalwarden import starter
from signalwarden.demo_stage import (
    LOOPBACK,
    Authority,
    Credential,
    Process,
    Upstream,
    free_port,
    start_envoy,
    start_server,
    wait_for,
)
from signalwarden.envoy_config import Kind, Options, render
from tests import fronts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

REFUND = "/v1/accounts/42/refunds"
# A loaded test machine is no reason for a denial.
PATIENT = timedelta(seconds=5)


# ---- a decision point that says what it is told -----------------------------------------------------------


@dataclass
class Scripted:
    """An ext_authz server whose answer a test sets; it keeps what Envoy asked."""

    port: int
    answer: bytes | grpc.StatusCode = grpc.StatusCode.UNIMPLEMENTED
    delay: float = 0.0
    asked: list[bytes] = field(default_factory=list)

    def request(self) -> CheckRequest:
        """The last request, decoded."""
        return CheckRequest.parse(self.asked[-1])

    def check(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.asked.append(request)
        time.sleep(self.delay)
        if isinstance(self.answer, grpc.StatusCode):
            context.abort(self.answer, "scripted")
            raise AssertionError
        return self.answer


@pytest.fixture(scope="session")
def scripted_server() -> Iterator[Scripted]:
    server = grpc.server(futures.ThreadPoolExecutor(4))
    script = Scripted(server.add_insecure_port(f"{LOOPBACK}:0"))
    handler = grpc.unary_unary_rpc_method_handler(script.check)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("envoy.service.auth.v3.Authorization", {"Check": handler}),)
    )
    server.start()
    yield script
    server.stop(1).wait(10)


@pytest.fixture
def scripted(scripted_server: Scripted) -> Scripted:
    scripted_server.answer, scripted_server.delay = grpc.StatusCode.UNIMPLEMENTED, 0.0
    scripted_server.asked.clear()
    return scripted_server


# ---- the stage --------------------------------------------------------------------------------------------


@dataclass
class Stage:
    """One authority, one upstream, and a directory for everything that is started."""

    directory: Path
    authority: Authority
    upstream: Upstream
    agent: Credential

    def client(self, port: int, credential: Credential | None, **options: Any) -> httpx.Client:
        """A client with its own connection pool; the caller closes it."""
        return httpx.Client(
            base_url=f"https://localhost:{port}",
            verify=self.authority.trust(credential),
            timeout=15,
            trust_env=False,
            **options,
        )


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("stage")
    authority = Authority(directory / "tls", "prod.example")
    upstream = Upstream()
    yield Stage(directory, authority, upstream, authority.issue(starter.AGENT))
    upstream.close()


@dataclass
class RunningEnvoy:
    """The real Envoy with a shipped configuration."""

    stage: Stage
    process: Process
    port: int
    unguarded_port: int
    admin_port: int
    access_log_file: Path
    agent: httpx.Client
    """Calls as the refund agent, with its certificate."""

    def client(self, credential: Credential | None, **options: Any) -> httpx.Client:
        return self.stage.client(self.port, credential, **options)

    def access_log(self, value: str, key: str = "request_id") -> dict[str, Any]:
        """The line of one request; waits for it."""
        found: list[dict[str, Any]] = []

        def written() -> bool:
            lines = self.access_log_file.read_text().splitlines() if self.access_log_file.exists() else []
            found[:] = [line for line in map(json.loads, lines) if line[key] == value]
            return bool(found)

        wait_for(f"an access log line for `{value}`", written, 15)
        return found[-1]

    def stat(self, name: str) -> int:
        """A counter of Envoy."""
        text = httpx.get(f"http://{LOOPBACK}:{self.admin_port}/stats", timeout=5, trust_env=False).text
        found = re.search(rf"^{re.escape(name)}: (\d+)$", text, re.MULTILINE)
        return int(found.group(1)) if found else 0


StartEnvoy = "Callable[..., RunningEnvoy]"


@pytest.fixture(scope="session")
def run_envoy(stage: Stage) -> Iterator[Callable[..., RunningEnvoy]]:
    """Starts an Envoy for a directory; all are stopped at the end."""
    running: list[RunningEnvoy] = []

    def start(
        directory: Path,
        *,
        kind: Kind = "gateway",
        edit: Callable[[str], str] = lambda text: text,
        **options: Any,
    ) -> RunningEnvoy:
        edge = stage.authority.issue("spiffe://prod.example/ns/edge/sa/envoy", dns=("localhost",))
        port, unguarded, admin = free_port(), free_port(), free_port()
        log = stage.directory / f"access-{port}.log"
        chosen = Options(
            listener=(LOOPBACK, port),
            unguarded=(LOOPBACK, unguarded),
            admin=(LOOPBACK, admin),
            certificate=str(edge.certificate),
            key=str(edge.key),
            trust_bundle=str(stage.directory / "tls" / "{trust_domain}.pem"),
            access_log=str(log),
            **{"upstream": (LOOPBACK, stage.upstream.port), "check_timeout": PATIENT, **options},
        )
        process = start_envoy(edit(render(directory, kind, chosen)), stage.directory, admin)
        envoy = RunningEnvoy(stage, process, port, unguarded, admin, log, stage.client(port, stage.agent))
        running.append(envoy)
        return envoy

    yield start
    for envoy in running:
        envoy.agent.close()
        envoy.process.stop()


def make_directory(path: Path, check_port: int, admin_port: int) -> starter.Starter:
    """The directory of `signalwarden init`, on ports of our own."""
    made = starter.create(path, now=datetime.now(UTC))
    settings = path / "signalwarden.yaml"
    text = settings.read_text()
    text = text.replace("127.0.0.1:9191", f"{LOOPBACK}:{check_port}")
    settings.write_text(text.replace("127.0.0.1:9292", f"{LOOPBACK}:{admin_port}"))
    return made


@pytest.fixture(scope="session")
def scripted_directory(scripted_server: Scripted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("scripted") / "config"
    make_directory(directory, scripted_server.port, free_port())
    return directory


@pytest.fixture(scope="session")
def scripted_envoy(run_envoy: Callable[..., RunningEnvoy], scripted_directory: Path) -> RunningEnvoy:
    return run_envoy(scripted_directory)


# ---- the real decision point ------------------------------------------------------------------------------


@dataclass
class Product:
    """`signalwarden serve` as a user runs it, with its directory and tokens."""

    made: starter.Starter
    check_port: int
    admin_port: int
    process: Process
    starts: int = 1

    @property
    def directory(self) -> Path:
        return self.made.directory

    def publish(self, name: str, value: object, subject: str = starter.AGENT) -> None:
        answer = self._call(
            "POST",
            "/v1/signals",
            self.made.publisher_token,
            [
                {
                    "name": name,
                    "subject": subject,
                    "value": value,
                    "observed_at": datetime.now(UTC).isoformat(),
                }
            ],
        )
        assert answer["accepted"] == 1, answer

    def signals(self) -> list[dict[str, Any]]:
        answer = self._call("GET", "/v1/signals", self.made.operator_token)
        found: list[dict[str, Any]] = answer["signals"]
        return found

    def reload(self) -> httpx.Response:
        """What the operator does after a change; the answer as it is."""
        return httpx.post(
            f"http://{LOOPBACK}:{self.admin_port}/v1/reload",
            headers={"authorization": f"Bearer {self.made.operator_token}"},
            timeout=30,
            trust_env=False,
        )

    def _call(self, method: str, path: str, token: str, signals: object = None) -> dict[str, Any]:
        answer = httpx.request(
            method,
            f"http://{LOOPBACK}:{self.admin_port}{path}",
            headers={"authorization": f"Bearer {token}"},
            json=None if signals is None else {"signals": signals},
            timeout=10,
            trust_env=False,
        )
        answer.raise_for_status()
        body: dict[str, Any] = answer.json()
        return body

    def record(self, decision_id: str) -> dict[str, Any]:
        """The decision record with this id; waits for it, half a second is the promise."""
        found: list[dict[str, Any]] = []

        def written() -> bool:
            path = self.directory / "var" / "decisions.jsonl"
            lines = path.read_text().splitlines() if path.exists() else []
            found[:] = [line for line in map(json.loads, lines) if line.get("decision_id") == decision_id]
            return bool(found)

        wait_for(f"the record of `{decision_id}`", written, 15)
        return found[-1]

    def restart(self) -> None:
        self.starts += 1
        log = self.directory.parent / f"serve-{self.starts}.log"
        self.process = start_server(self.directory, self.admin_port, log)


@contextmanager
def producing(base: Path, front: str = fronts.DEFAULT) -> Iterator[Product]:
    """A decision point of its own with this front door, in this folder."""
    check_port, admin_port = free_port(), free_port()
    made = make_directory(base / "config", check_port, admin_port)
    fronts.choose(made.directory, front)
    running = Product(
        made, check_port, admin_port, start_server(made.directory, admin_port, base / "serve-1.log")
    )
    try:
        yield running
    finally:
        running.process.stop()


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    with producing(tmp_path_factory.mktemp("product")) as running:
        yield running


@pytest.fixture(scope="session")
def product_envoy(run_envoy: Callable[..., RunningEnvoy], product: Product) -> RunningEnvoy:
    return run_envoy(product.directory)


@pytest.fixture
def healthy(product: Product) -> Product:
    """Both pushed signals fresh and good."""
    product.publish("device_trust", 4)
    product.publish("posture", "ok")
    return product
