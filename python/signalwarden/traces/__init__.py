"""Traces: one span for each check, made from its record once that stands in the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from signalwarden.telemetry_settings import TelemetrySettings
    from signalwarden.traces.sender import Traces

__all__ = ["traces_of"]


def traces_of(settings: TelemetrySettings, root: Path, path: Path) -> Traces | None:
    """None: no traces are asked for, and nothing that they need is in memory. `root`: what paths of the settings are
    relative to; `path`: of the log's file."""
    if settings.otlp is None:
        return None
    from signalwarden.traces.sender import Traces

    return Traces.of(settings, root, path)
