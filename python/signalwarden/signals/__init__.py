"""Ingestion of signals: one file for each kind of source, all behind one Protocol.

To add a source, write a file with a class that is a `Source` and add it to the list in `app.py`. A source only
carries values to the door: whether one is taken is judged in the core, against the register.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["Source", "Status"]


@dataclass(frozen=True, slots=True)
class Status:
    """How a source is doing, for readiness and metrics."""

    running: bool
    batches: int
    """Batches that it has carried since it started."""
    last_batch: float | None
    """When the last one was answered, in seconds since 1970; None before the first."""
    last_error: str | None
    """Why the last batch failed; None if it didn't."""


class Source(Protocol):
    """A kind of feed. `start` and `stop` may be called again and again, in any order."""

    @property
    def kind(self) -> str:
        """The word of `sources: [{kind: …}]` in the register."""

    def start(self) -> None:
        """Begins to carry values."""

    def stop(self) -> None:
        """Ends it; what was carried before this returns is answered."""

    def status(self) -> Status:
        """How it is doing."""
