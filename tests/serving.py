"""The app itself, started in the test's own process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from signalwarden.app import App
from tests import fronts


@contextmanager
def running(root: Path) -> Iterator[App]:
    """An app of a directory, stopped at the end whatever happens."""
    app = App(fronts.choose(root))
    app.start()
    try:
        yield app
    finally:
        app.stop()
