"""Who is measured: the floor, a bare grpcio server, signalwarden's front doors, and the peers; each a `Contestant`."""

from __future__ import annotations

import contextlib
import importlib.metadata
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from bench import cases, directory, stage
from signalwarden import __version__, _core

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from bench.peers import Peer
    from bench.stage import Server

__all__ = ["FLOOR", "FRONTS", "INFLUENCES", "Contestant", "contestants", "locked", "peer_directory"]

FLOOR: Final = "floor (Rust, allow-all)"
ALLOW_ALL: Final = "grpcio, allow-all"
FRONTS: Final = ("grpcio", "native")
INFLUENCES: Final = ("none", "default")
Kind = Literal["floor", "allow-all", "signalwarden", "peer"]
Start = "Callable[[int | None, Path], AbstractContextManager[Server]]"


@dataclass(frozen=True, slots=True)
class Contestant:
    """A server that is measured."""

    name: str
    kind: Kind
    version: str
    start: Callable[[int | None, Path], AbstractContextManager[Server]] = field(repr=False)
    """Serves, pinned to a core, with an empty folder of its own, until the context ends."""
    log: bool | None = None
    """Whether it keeps a decision log; None: it has nothing to log."""
    front: str | None = None
    influence: str | None = None

    @property
    def decides(self) -> bool:
        """Whether it looks at what it is asked."""
        return self.kind in ("signalwarden", "peer")

    @property
    def ours(self) -> bool:
        """Whether it is signalwarden: its answers name reasons, and its records are counted."""
        return self.kind == "signalwarden"

    def load_file(self, folder: Path, of: Sequence[cases.Case] | None = None) -> Path:
        """A file of requests for it, with what it must answer."""
        file = folder / "requests.jsonl"
        text = cases.load_lines(
            None if of is None else iter(of), reasons=self.ours, all_allowed=not self.decides
        )
        file.write_text(text, encoding="utf-8")
        return file


def contestants(
    peers: Sequence[Peer],
    *,
    policies: int,
    fronts: Sequence[str] = FRONTS,
    influences: Sequence[str] = INFLUENCES,
    unix: bool = False,
) -> list[Contestant]:
    """All that are measured, in the order of their rounds; the floor is the first. `unix`: signalwarden on a Unix
    socket, too."""
    grpcio = importlib.metadata.version("grpcio")
    return [
        Contestant(FLOOR, "floor", f"hyper {locked('hyper')}", lambda core, _: stage.floor(core)),
        Contestant(ALLOW_ALL, "allow-all", f"grpcio {grpcio}", lambda core, _: stage.allow_all(core)),
        *(_ours(front, influence, policies) for front in fronts for influence in influences),
        *(_ours(front, influences[0], policies, unix=True) for front in fronts if unix),
        *(_peer(peer, policies, log=log) for peer in peers for log in peer.logs),
    ]


def locked(crate: str) -> str:
    """The version of a crate in Cargo.lock, or `unknown`."""
    text = (stage.ROOT / "Cargo.lock").read_text(encoding="utf-8")
    found = re.search(rf'^name = "{re.escape(crate)}"\nversion = "([^"]+)"$', text, re.MULTILINE)
    return found[1] if found else "unknown"


def _ours(front: str, influence: str, policies: int, *, unix: bool = False) -> Contestant:
    def start(core: int | None, folder: Path) -> AbstractContextManager[Server]:
        check = f"unix://{folder}/check.sock" if unix else directory.LOOPBACK
        return stage.signalwarden(
            folder, core, policies=policies, influence=influence, front=front, plain=True, check=check
        )

    return Contestant(
        f"signalwarden {front}, influence {influence}{', Unix socket' if unix else ''}",
        "signalwarden",
        f"signalwarden {__version__}, {_core.BUILD_PROFILE} build",
        start,
        log=True,
        front=front,
        influence=influence,
    )


def _peer(peer: Peer, policies: int, *, log: bool) -> Contestant:
    @contextlib.contextmanager
    def start(core: int | None, folder: Path) -> Iterator[Server]:
        with peer.start(core, peer_directory(folder, policies), log=log) as server:
            yield server

    name = f"{peer.name}, log {'on' if log else 'off'}"
    return Contestant(name, "peer", peer.version(), start, log=log)


def peer_directory(folder: Path, policies: int) -> Path:
    """What a peer is given: signalwarden's directory, with the published values in `signals.json`."""
    made = directory.make(folder / "directory", policies=policies, plain=True)
    (made.directory / "signals.json").write_bytes(directory.signals_body())
    return made.directory
