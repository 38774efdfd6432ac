"""The decision log of a running server, composed: what writes it, what reads on from it, and in what order they end."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from signalwarden.decision_log.disk import footprint
from signalwarden.decision_log.integrity.log_keys import LogKeys, log_name
from signalwarden.decision_log.integrity.places import tree_directory
from signalwarden.decision_log.integrity.tree import Tree
from signalwarden.decision_log.logfiles import log_files
from signalwarden.decision_log.recovery import Recovering, pass_over_written
from signalwarden.decision_log.retention import Keeper
from signalwarden.decision_log.shipping import shippers_of
from signalwarden.decision_log.sink import FileSink
from signalwarden.decision_log.writer import Drained, LogWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from signalwarden.decision_log.records import Recorder
    from signalwarden.decision_log.shipping.shipper import SinkHealth
    from signalwarden.settings import DecisionLogSettings

__all__ = ["DecisionLog", "Logged", "Seal"]

RECOVER_S: Final = 5.0
"""For what an earlier process had left: a ring has 64 MiB unless told otherwise, which a disk takes in a second or two.
With a disk that takes nothing the server starts all the same, and says so."""
RECOVER_LOOK_S: Final = 0.02
RING_USED: Final = "log_ring_used_bytes"
DRAIN_S: Final = 10.0
"""For the log at a stop; within Kubernetes' default of 30 s together with the other graces."""
SHIP_S: Final = 2.0
"""For all further sinks together at a stop, once the log is written; what one has not sent, it sends after the next
start."""
KEEPER_S: Final = 2.0
"""For a file that is being compressed: it is begun anew the next time."""
SINK_NUMBERS: Final = {
    "taken": "taken",
    "failures": "failures",
    "refused": "refused",
    "lost": "lost",
    "healthy": "healthy",
    "lag_records": "lag_records",
    "lag_seconds": "lag_s",
}
"""Metrics of a sink, and where its health has them."""


class Logged(Drained, Recovering, Protocol):
    """The part of the engine that the log needs."""

    @property
    def revision(self) -> str | None:
        """Of the configuration in force."""

    def close(self) -> None:
        """Accepts no more records."""

    def counters(self) -> Mapping[str, int]:
        """By name; `RING_USED` among them."""


@dataclass(frozen=True, slots=True)
class Seal:
    """What the log's tree needs beside the log."""

    trust_domain: str
    keys: Path
    """Directory of its keys."""
    clock: Callable[[], int]


class DecisionLog:
    """Opens the log's places, then writes until it is stopped. The only module of this room that wires."""

    def __init__(
        self,
        engine: Logged,
        recorder: Recorder,
        options: DecisionLogSettings,
        path: Path,
        root: Path,
        seal: Seal,
    ) -> None:
        """`path`: of the log's file; `root`: what paths of the settings are relative to. Raises LogError where it can't
        be written, and KeysError."""
        self._engine = engine
        self._recorder = recorder
        self._path = path
        self._keeper = Keeper(
            path,
            keep_files=options.keep_files,
            keep_for_s=options.keep_for,
            most_bytes=options.most_bytes,
            rotate_bytes=options.rotate_bytes,
            compress=options.compress,
        )
        self._sink = sink = FileSink(
            path,
            rotate_bytes=options.rotate_bytes,
            rotate_every_s=options.rotate_every,
            keeper=self._keeper,
        )
        self._shippers = shippers_of(options.sinks, path, root, self._lost)
        if sink.repaired_bytes:
            recorder.change("log_repaired", actor="server", bytes_cut=sink.repaired_bytes)
        found = pass_over_written(engine, log_files(path))
        self._has_recovered = found is not None
        if found is not None:
            recorder.change("log_recovered", actor="server", **found)
        name = log_name(seal.trust_domain, path)
        try:
            self._tree = Tree(
                path,
                LogKeys(seal.keys, name, tree=tree_directory(path), clock=seal.clock),
                recorder,
                name=name,
                every_s=options.checkpoints.every,
                place=sink.place,
                clock=seal.clock,
            )
        except BaseException:
            sink.close()
            raise
        self._writer = LogWriter(engine, sink, recorder, self._tree)

    def start(self) -> None:
        """Writes what is accepted, and sends on what is written."""
        for shipper in self._shippers:
            shipper.start(lambda: self._writer.health().written)
        self._keeper.start(self._shippers)
        self._writer.start()
        if self._has_recovered:
            self._make_room()

    def _make_room(self) -> None:
        """Waits, within bounds, until what an earlier process had left is on the disk: it may fill the ring, and who
        asks right after the start would be denied."""
        until = time.monotonic() + RECOVER_S
        while time.monotonic() < until and self._engine.counters()[RING_USED]:
            time.sleep(RECOVER_LOOK_S)

    def _lost(self, sink: str, count: int) -> None:
        self._recorder.change("records_not_shipped", actor="server", sink=sink, count=count)

    def stop(self) -> None:
        """The last record, then nothing new, then all of it on disk and signed. Raises LogError that says what was
        lost."""
        self._recorder.change("server_stopped", actor="server", revision=self._engine.revision)
        self._engine.close()
        try:
            self._writer.stop(DRAIN_S)
        finally:
            self._tree.stop()
            for shipper in self._shippers:
                shipper.end(SHIP_S)
            for shipper in self._shippers:
                shipper.stop()
            self._keeper.stop(KEEPER_S)

    def detail(self) -> dict[str, object]:
        """For readiness: whether it can be written, how much waits and for how long."""
        health = self._writer.health()
        return {
            "healthy": health.healthy,
            "queued": self._engine.queued(),
            "lag_ms": round(health.lag_s * 1000),
            "last_error": health.last_error,
            "bytes": self._keeper.bytes_kept,
            "held_by": list(self._keeper.held_by),
            "sinks": {shipper.name: _told(shipper.health()) for shipper in self._shippers},
            "tree": self._tree.detail(),
        }

    def numbers(self) -> Mapping[str, float]:
        """For metrics."""
        health = self._writer.health()
        return {
            "log_written": health.written,
            "log_written_bytes": health.written_bytes,
            "log_rotations": self._sink.rotations,
            **footprint(self._path),
            "log_failures": health.failures,
            "log_healthy": int(health.healthy),
            "log_lag_seconds": health.lag_s,
            "log_notes_refused": self._recorder.refused,
            "log_notes_lost": self._recorder.lost,
            **self._tree.numbers(),
            **{
                f"sink_{key}_{shipper.name}": float(getattr(health, field))
                for shipper in self._shippers
                for health in (shipper.health(),)
                for key, field in SINK_NUMBERS.items()
            },
        }


def _told(health: SinkHealth) -> dict[str, object]:
    return {
        "healthy": health.healthy,
        "required": health.required,
        "lag_records": health.lag_records,
        "lag_ms": round(health.lag_s * 1000),
        "taken": health.taken,
        "failures": health.failures,
        "refused": health.refused,
        "lost": health.lost,
        "last_error": health.last_error,
    }
