"""Fixtures that every kind of test may use. Only generic ones: what one room needs stands in its own tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests import answers, fronts

ANSWERS = answers.Watch()
answers.start(ANSWERS)


@pytest.fixture(autouse=True)
def every_answer_obeys_envoys_rules() -> Iterator[answers.Watch]:
    """Checks every answer that a test saw, asked for or not."""
    yield ANSWERS
    ANSWERS.settle()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which front door the tests that touch it run against."""
    parser.addoption(
        "--front", choices=[*fronts.FRONTS, "both"], default="both", help="run against this front door alone"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Once for each front door: what asks for `front`, itself or by a mark of its module."""
    if "front" not in metafunc.fixturenames:
        return
    only = metafunc.config.getoption("--front")
    wanted = fronts.FRONTS if only == "both" else (only,)
    metafunc.parametrize("front", wanted, indirect=True, scope="module")


@pytest.fixture(scope="module")
def front(request: pytest.FixtureRequest) -> str:
    """The front door that a test is about. What starts a server for longer than a test hands it to `fronts.choose`."""
    return str(request.param)


@pytest.fixture(autouse=True)
def servers_have_the_front_of_their_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """For servers that a test starts itself; the default where a test says nothing of fronts."""
    parameters = getattr(request.node, "callspec", None)
    fronts.chosen.front = parameters.params.get("front", fronts.DEFAULT) if parameters else fronts.DEFAULT
    yield
    fronts.chosen.front = fronts.DEFAULT


class Eventually(Protocol):
    """Waits, bounded, until something holds."""

    def __call__(self, holds: Callable[[], object], within_s: float = 10.0) -> None: ...


@pytest.fixture
def eventually() -> Eventually:
    """Waits until a condition is truthy; fails the test if it does not become so in time."""

    def wait(holds: Callable[[], object], within_s: float = 10.0) -> None:
        deadline = time.monotonic() + within_s
        while not holds():
            if time.monotonic() > deadline:
                pytest.fail(f"it did not hold within {within_s} s")
            time.sleep(0.01)

    return wait


MINIMAL = {
    "signalwarden.yaml": """\
trust_domain: prod.example
listen: {check: "127.0.0.1:0", admin: "127.0.0.1:0"}
""",
    "routes.yaml": """\
routes:
  - match: {host: "pages.example", method: GET, path: "/home"}
    action: page.read
    resource: {type: Page, id: "home"}
    system: pages
    tier: runtime
    sensitivity: low
default: deny
""",
    "signals.yaml": "signals: {}\n",
    "entities.cedarschema": "entity Workload;\nentity Page;\n",
    "entities.json": "[]\n",
    "policies/pages.cedar": 'permit (principal, action == Action::"page.read", resource);\n',
}


@pytest.fixture
def minimal_directory(tmp_path: Path) -> Path:
    """The smallest directory that loads: one route, one policy, no signals, ports that the system chooses."""
    root = tmp_path / "conf"
    for name, text in MINIMAL.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root
