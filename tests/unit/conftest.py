"""Fixtures of the tests of the admin API alone: the API, and the small fake of the app that it asks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from signalwarden.admin import build
from signalwarden.services import Services
from tests.fake_services import SECRET, FakeServices


@pytest.fixture
def services() -> FakeServices:
    """What the API asks; it remembers that, and answers at once."""
    return FakeServices()


@pytest.fixture
def http(services: FakeServices) -> Iterator[TestClient]:
    """A client that may make every call."""
    checked: Services = services
    with TestClient(build(checked), headers={"authorization": f"Bearer {SECRET}"}) as client:
        yield client
