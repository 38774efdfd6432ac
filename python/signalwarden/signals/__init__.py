"""Ingestion of signals: one file for each kind of source, all behind one Protocol.

To add a kind of feed, write a file with a class that is a `Source` and a `Kind` that makes one, and add the kind to
`KINDS` in `feeds.py`. A source only carries values to the door: whether one is taken is judged in the core, against
the register.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

__all__ = ["Feed", "Kind", "Preparing", "Seams", "Source", "Status"]


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
    last_success: float | None = None
    """When it last did all that it is there for, in seconds since 1970: a feed that brought nothing new did, too."""
    failures: int = 0
    """How often it failed since it started."""
    refused: int = 0
    """Entries of what it read last that the core refused."""


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


@dataclass(frozen=True, slots=True)
class Feed:
    """An entry of `feeds:` in the register, as the core describes it, with the contracts that it feeds."""

    name: str
    kind: str
    settings: Mapping[str, Any]
    """Its other keys, defaults filled in, spans in milliseconds."""
    signals: tuple[Mapping[str, Any], ...]
    """Contracts of which a source names this feed, as the core describes them, in the order of their names."""


def _say_nothing(_change: str, **_keys: Any) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Seams:
    """What a source may use of the app."""

    root: Path
    """The configuration directory."""
    publish: Callable[[bytes, str], bytes]
    """A body of `POST /v1/signals` and its origin in, the JSON answer out, after the durable write."""
    clock: Callable[[], float]
    """Seconds since 1970."""
    core: Any = None
    """The engine, for sources that judge and keep in one step."""
    keep: Callable[[Callable[[], Sequence[Any]]], None] | None = None
    """Makes changes under the lock of all changes, writes them down, takes them in."""
    documents: Any = None
    """The store of the state, for what is small and must outlive a restart: `keep` and `kept`."""
    change: Callable[..., None] = _say_nothing
    """Records a change: what, and its keys."""


class Kind(Protocol):
    """How feeds of one kind are made."""

    @property
    def word(self) -> str:
        """The word of `kind:` in the register."""

    def read(self, feed: Feed, root: Path) -> Any:
        """Typed settings. Equal ones of two loads leave the running source alone, so everything that the source
        depends on is in them. Raises FeedError, KeyError, TypeError or ValueError for what can't be a feed."""

    def build(self, settings: Any, seams: Seams) -> Source:
        """A source that is not started. Does nothing that could wait."""


@runtime_checkable
class Preparing(Kind, Protocol):
    """A kind of feed that something must be known of before a configuration is in force."""

    def prepare(self, settings: Any, seams: Seams) -> None:
        """Raises StateError, and then the configuration is not put in force."""
