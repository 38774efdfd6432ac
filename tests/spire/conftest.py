"""One SPIRE server and one agent for all tests here; only where `make test-spire` has built them."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from signalwarden.demo_stage import Upstream
from tests.spire.real import Agent, Programs, Server, Workload, program_selector

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
def spire_directory(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Short, since a socket's path may have no more than 107 bytes. It stays, with all logs, if a test fails."""
    directory = Path(tempfile.mkdtemp(prefix="sw-spire-")).resolve()
    yield directory
    if request.session.testsfailed:
        print(f"\nlogs of SPIRE, Envoy and signalwarden stand in {directory}", file=sys.stderr)
    else:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def spire_server(programs: Programs, spire_directory: Path) -> Iterator[Server]:
    server = Server(programs, TRUST_DOMAIN, spire_directory / "server")
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def partner_server(programs: Programs, spire_directory: Path) -> Iterator[Server]:
    """The server of a second trust domain."""
    server = Server(programs, PARTNER, spire_directory / "partner")
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def spire_agent(spire_server: Server, spire_directory: Path) -> Iterator[Agent]:
    agent = Agent(spire_server, spire_directory / "agent")
    try:
        agent.start()
        yield agent
    finally:
        agent.stop()


@pytest.fixture(scope="session")
def partner_agent(partner_server: Server, spire_directory: Path) -> Iterator[Agent]:
    agent = Agent(partner_server, spire_directory / "pagent")
    try:
        agent.start()
        yield agent
    finally:
        agent.stop()


@pytest.fixture(scope="session")
def new_workload(spire_agent: Agent) -> Callable[[str], Workload]:
    """A program of this name, not registered yet."""
    return lambda name: Workload.create(spire_agent, name)


@pytest.fixture(scope="session")
def python_selector() -> str:
    """Of this process, and of each `signalwarden` that tests start."""
    return program_selector(sys.executable)


@pytest.fixture(scope="session")
def upstream() -> Iterator[Upstream]:
    service = Upstream()
    yield service
    service.close()
