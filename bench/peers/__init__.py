"""Whom signalwarden is measured beside: the interface of a peer, and the list of those that are here.

A peer is a folder below this one with a `peer.py` that binds `PEER` (or `PEERS`, several), each either a `Peer` (a
server of its own that answers `Authorization/Check`) or an `EnvoyFilter` (Envoy decides by itself, no server is asked).
A peer whose tools are missing says so in one sentence and is left out; the others are measured all the same.

What a peer decides, and from what. It gets the directory that signalwarden serves (`directory.make`), with
`signals.json` in it (a body of POST /v1/signals: the twelve values of the principal). Its policies are that
directory's, in its own language: the same conditions, the same number of policies, sliced by action only if its engine
does so itself. Its answers are compared with `cases.CASES` before anything is timed: `allow` where that says allow, a
denial otherwise. The principal is `attributes.source.principal`, or where that is empty (plain HTTP through Envoy)
the `URI` of the last element of `x-forwarded-client-cert`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from bench.stage import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from contextlib import AbstractContextManager

    from bench.stage import Server

__all__ = ["EnvoyFilter", "Peer", "Peers", "found"]

HERE: Final = Path(__file__).resolve().parent


@runtime_checkable
class Peer(Protocol):
    """A server beside which signalwarden is measured."""

    @property
    def name(self) -> str:
        """Short, as it stands in tables: `opa-sdk`, `cedar-go`."""

    @property
    def logs(self) -> tuple[bool, ...]:
        """Which of decision log on (True) and off (False) it can do: each is measured."""

    def missing(self) -> str | None:
        """One sentence that says what is missing for it here, or None."""

    def build(self) -> None:
        """Makes its program, once; quick if it is there already. A `BenchError` says in one sentence why it can't."""

    def version(self) -> str:
        """What was built, with the engine's own version: `opa 1.22.2, go1.25.3`. Called after `build`."""

    def start(self, core: int | None, directory: Path, *, log: bool) -> AbstractContextManager[Server]:
        """Serves `Authorization/Check` without TLS on a free port of loopback until the context ends, pinned to `core`
        if that is one (`stage.pinned`), with what `directory` says, its decision log (a file below `directory.parent`)
        on or off. Returns once it answers; within `stage.START_S`, or a `BenchError`. `stage.child` runs and ends a
        process."""


@runtime_checkable
class EnvoyFilter(Protocol):
    """What Envoy can decide by a filter of its own: measured only through Envoy, and only for what it can express."""

    @property
    def name(self) -> str:
        """As it stands in tables."""

    def missing(self) -> str | None:
        """One sentence that says what is missing for it here, or None."""

    def version(self) -> str:
        """What it is a part of: `Envoy 1.40.0`."""

    def http_filter(self, directory: Path) -> Mapping[str, Any]:
        """The entry of `http_filters` (`name`, `typed_config`) that stands where `ext_authz` would, as JSON."""

    def answers(self) -> Mapping[str, bool]:
        """The cases (by `Case.name`) that it can express, and whether each is let through; others are not asked."""


@dataclass(frozen=True, slots=True)
class Peers:
    """What was found: servers, filters of Envoy, and a sentence for each that is left out."""

    servers: tuple[Peer, ...]
    filters: tuple[EnvoyFilter, ...]
    left_out: tuple[str, ...]


def found(only: Iterable[str] | None = None, *, below: Path = HERE) -> Peers:
    """The peers that can run here, built. `only`: names of those that are wanted (None: all, empty: none)."""
    servers: list[Peer] = []
    filters: list[EnvoyFilter] = []
    left_out: list[str] = []
    wanted = None if only is None else set(only)
    for file in sorted(below.glob("*/peer.py")):
        for peer in _peers_of(file.parent.name):
            if wanted is not None and peer.name not in wanted:
                continue
            sentence = _why_not(peer)
            if sentence is not None:
                left_out.append(f"{peer.name}: {sentence}")
            elif isinstance(peer, Peer):
                servers.append(peer)
            else:
                filters.append(peer)
    return Peers(tuple(servers), tuple(filters), tuple(left_out))


def _peers_of(folder: str) -> list[Peer | EnvoyFilter]:
    """`PEER`, or `PEERS` where one folder has several."""
    module = importlib.import_module(f"bench.peers.{folder}.peer")
    bound = getattr(module, "PEERS", None) or (getattr(module, "PEER", None),)
    for peer in bound:
        if not isinstance(peer, Peer | EnvoyFilter):
            raise BenchError(
                f"`bench/peers/{folder}/peer.py` binds no `PEER` that is a Peer or an EnvoyFilter"
            )
    return list(bound)


def _why_not(peer: Peer | EnvoyFilter) -> str | None:
    sentence = peer.missing()
    if sentence is None and isinstance(peer, Peer):
        try:
            peer.build()
        except BenchError as error:
            return str(error)
    return sentence
