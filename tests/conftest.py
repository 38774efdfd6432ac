"""Fixtures that every kind of test may use. Only generic ones: what one room needs stands in its own tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests import answers

ANSWERS = answers.Watch()
answers.start(ANSWERS)


@pytest.fixture(autouse=True)
def every_answer_obeys_envoys_rules() -> Iterator[answers.Watch]:
    """Checks every answer that a test saw, asked for or not."""
    yield ANSWERS
    ANSWERS.settle()


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
