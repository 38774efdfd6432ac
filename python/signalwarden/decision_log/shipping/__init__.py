"""Shippers: they read on from the log's files at their own pace and hand what stands there to further sinks.

A shipper that fails or is slow delays no decision and takes one batch of memory. What it has taken, a cursor beside the
log says; so it goes on after a restart where it was, and sends nothing twice but what was under way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from signalwarden.decision_log.shipping.shipper import Shipper
    from signalwarden.sink_settings import SinkSettings

__all__ = ["shippers_of"]


def shippers_of(
    sinks: Sequence[SinkSettings], path: Path, root: Path, on_lost: Callable[[str, int], None]
) -> list[Shipper]:
    """A shipper for each sink, at the place where it was. Nothing runs yet. Without sinks nothing that they need is in
    memory."""
    if not sinks:
        return []
    from signalwarden.decision_log.shipping.building import shipper_of

    return [shipper_of(sink, path, root, on_lost) for sink in sinks]
