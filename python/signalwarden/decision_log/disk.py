"""What the log takes of its disk, looked up when somebody asks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from signalwarden.decision_log.logfiles import log_files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["footprint"]


def footprint(path: Path) -> Mapping[str, float]:
    """For metrics; what can't be looked up is left out."""
    found: dict[str, float] = {}
    sizes: list[int] = []
    for file in log_files(path):
        try:
            sizes.append(file.stat().st_size)
        except OSError:
            continue  # deleted or packed since it was listed
    found["log_files"] = len(sizes)
    found["log_disk_bytes"] = sum(sizes)
    try:
        disk = os.statvfs(path.parent)
    except OSError:
        return found
    # What is left for us: on some disks root may write on where others can't.
    found["log_disk_free_bytes"] = disk.f_bavail * disk.f_frsize
    return found
