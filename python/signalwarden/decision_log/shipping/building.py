"""From the settings of sinks to shippers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from signalwarden.decision_log.shipping.following import Cursor, Following
from signalwarden.decision_log.shipping.formats import FORMATS
from signalwarden.decision_log.shipping.http import Http
from signalwarden.decision_log.shipping.shipper import Shipper
from signalwarden.decision_log.shipping.stdout import Stdout

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from signalwarden.decision_log.shipping.destination import Destination
    from signalwarden.sink_settings import SinkSettings

__all__ = ["build", "cursor_file", "shipper_of"]


def build(settings: SinkSettings, root: Path) -> Destination:
    """The destination of one sink; nothing is connected yet."""
    if settings.kind == "stdout":
        return Stdout(FORMATS[settings.written_as])
    if settings.kind == "http":
        return Http(settings, root)
    # Loaded for those alone who have one: the messages of OpenTelemetry take time and memory.
    from signalwarden.decision_log.shipping.otlp import Otlp
    from signalwarden.otlp import Collector

    return Otlp(Collector(settings.otlp(), root))


def cursor_file(path: Path, name: str) -> Path:
    """Where a sink's cursor is kept: beside the log."""
    return path.with_name(f"{path.stem}.{name}.cursor")


def shipper_of(sink: SinkSettings, path: Path, root: Path, on_lost: Callable[[str, int], None]) -> Shipper:
    """At the place where it was."""
    return Shipper(
        sink.called,
        build(sink, root),
        Following(path, Cursor.read(cursor_file(path, sink.called))),
        required=sink.required,
        on_lost=on_lost,
    )
