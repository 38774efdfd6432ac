"""SPIRE servers, agents, workloads and Envoys for all tests here; only where `make test-spire` has built SPIRE."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from signalwarden.demo_stage import Upstream
from tests.spire.real import Agent, Programs, Server, Workload
from tests.spire.stage import Edge, Warden, start_edge

# Set by `make test-spire`: `make test` is complete without these tests.
PROGRAMS = os.environ.get("SIGNALWARDEN_SPIRE")
collect_ignore_glob = [] if PROGRAMS else ["test_*.py"]

TRUST_DOMAIN = "prod.example"
PARTNER = "partner.example"


@pytest.fixture(scope="session")
def programs() -> Programs:
    directory = Path(PROGRAMS or "").resolve()
    return Programs(directory / "spire-server", directory / "spire-agent")


@pytest.fixture(scope="session")
def base(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Short, since a socket's path may have no more than 107 bytes. It stays, with all logs, if a test fails."""
    directory = Path(tempfile.mkdtemp(prefix="sw-spire-")).resolve()
    yield directory
    if request.session.testsfailed:
        print(f"\nlogs of SPIRE, Envoy and signalwarden stand in {directory}", file=sys.stderr)
    else:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def new_domain(programs: Programs, base: Path) -> Iterator[Callable[[str], Agent]]:
    """A trust domain of its own: a server that runs, and an agent that has joined it."""
    with contextlib.ExitStack() as stack:
        count = 0

        def start(trust_domain: str) -> Agent:
            nonlocal count
            count += 1
            server = Server(programs, trust_domain, base / f"server-{count}")
            stack.callback(server.stop)
            server.start()
            agent = Agent(server, base / f"agent-{count}")
            stack.callback(agent.stop)
            agent.start()
            return agent

        yield start


@pytest.fixture(scope="session")
def spire_agent(new_domain: Callable[[str], Agent]) -> Agent:
    """The domain that most tests share; whoever changes its federation or stops it starts another one."""
    return new_domain(TRUST_DOMAIN)


@pytest.fixture(scope="session")
def new_workload(spire_agent: Agent) -> Callable[[str], Workload]:
    """A program of this name, not registered yet."""
    return lambda name: Workload.create(spire_agent, name)


@pytest.fixture(scope="session")
def upstream() -> Iterator[Upstream]:
    service = Upstream()
    yield service
    service.close()


@pytest.fixture(scope="session")
def new_edge(base: Path, upstream: Upstream) -> Iterator[Callable[..., Edge]]:
    """An Envoy in front of a warden, with an SVID of its own."""
    with contextlib.ExitStack() as stack:
        count = 0

        def start(warden: Warden, agent: Agent, **options: Any) -> Edge:
            nonlocal count
            count += 1
            edge = start_edge(warden, agent, base / f"edge-{count}", upstream, **options)
            stack.callback(edge.process.stop)
            return edge

        yield start
