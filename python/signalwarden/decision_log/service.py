"""The decision log of a running server, composed: what writes it, what reads on from it, and in what order they end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from signalwarden.decision_log.disk import footprint
from signalwarden.decision_log.sink import FileSink
from signalwarden.decision_log.writer import Drained, LogWriter

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from signalwarden.decision_log.records import Recorder
    from signalwarden.settings import DecisionLogSettings

__all__ = ["DecisionLog", "Logged"]

DRAIN_S: Final = 10.0
"""For the log at a stop; within Kubernetes' default of 30 s together with the other graces."""


class Logged(Drained, Protocol):
    """The part of the engine that the log needs."""

    @property
    def revision(self) -> str | None:
        """Of the configuration in force."""

    def close(self) -> None:
        """Accepts no more records."""


class DecisionLog:
    """Opens the log's places, then writes until it is stopped. The only module of this room that wires."""

    def __init__(self, engine: Logged, recorder: Recorder, options: DecisionLogSettings, path: Path) -> None:
        """`path`: of the log's file. Raises LogError where it can't be written."""
        self._engine = engine
        self._recorder = recorder
        self._path = path
        self._sink = sink = FileSink(path, rotate_bytes=options.rotate_bytes, keep_files=options.keep_files)
        if sink.repaired_bytes:
            recorder.change("log_repaired", actor="server", bytes_cut=sink.repaired_bytes)
        self._writer = LogWriter(engine, sink, recorder)

    def start(self) -> None:
        """Writes what is accepted."""
        self._writer.start()

    def stop(self) -> None:
        """The last record, then nothing new, then all of it on disk. Raises LogError that says what was lost."""
        self._recorder.change("server_stopped", actor="server", revision=self._engine.revision)
        self._engine.close()
        self._writer.stop(DRAIN_S)

    def detail(self) -> dict[str, object]:
        """For readiness: whether it can be written, how much waits and for how long."""
        health = self._writer.health()
        return {
            "healthy": health.healthy,
            "queued": self._engine.queued(),
            "lag_ms": round(health.lag_s * 1000),
            "last_error": health.last_error,
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
        }
