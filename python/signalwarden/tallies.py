"""What the core counts of each route, signal, publisher and stream of events. As Prometheus has it: `families`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from signalwarden.values import origin_of

if TYPE_CHECKING:
    from signalwarden import _core

__all__ = ["Reader", "Tallies"]


@dataclass(frozen=True, slots=True)
class Tallies:
    """What was counted, as the core gives it: lists of entries by `name`, `publisher` and `feed`."""

    signals: Sequence[Mapping[str, Any]] = ()
    publishers: Sequence[Mapping[str, Any]] = ()
    feeds: Sequence[Mapping[str, Any]] = ()
    routes: Sequence[Mapping[str, Any]] = ()
    stages: Sequence[Mapping[str, Any]] = ()
    named: frozenset[str] = frozenset()
    """The publishers and feeds that the register names, heard of or not. Others share a label."""


class Reader:
    """Reads the counts of an engine. Cheap: no walk over the store, and a register is asked once for its names."""

    def __init__(self) -> None:
        self._known: tuple[str, frozenset[str]] = ("", frozenset())

    def learn(self, described: Mapping[str, Any]) -> None:
        """The names of a register, of its `Configuration.describe()` where that is at hand."""
        self._known = (described["revision"], _named(described))

    def read(self, engine: _core.Engine, configuration: _core.Configuration, *, now_us: int) -> Tallies:
        """What `engine` has counted by now; `configuration` is the one in force."""
        if self._known[0] != configuration.revision:
            self.learn(orjson.loads(configuration.describe()))
        _, named = self._known
        measures = orjson.loads(engine.measures())
        return Tallies(
            signals=orjson.loads(engine.signal_stats(now_us=now_us, scan=False))["signals"],
            publishers=orjson.loads(engine.publishers()),
            feeds=orjson.loads(engine.feeds()),
            routes=measures["routes"],
            stages=measures["stages"],
            named=named,
        )


def _named(described: Mapping[str, Any]) -> frozenset[str]:
    """Origins as the core writes them: a SPIFFE ID, `poll:NAME`, `ssf:NAME`."""
    sources = (source for contract in described["signals"] for source in contract["sources"])
    return frozenset(origin for source in sources if (origin := origin_of(source)) is not None)
