"""Private files and directories: what signalwarden writes is for its own user only."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["make_private_directory", "open_private", "sync_data", "sync_directory", "why"]


def make_private_directory(path: Path) -> None:
    """Makes a directory with mode 0700, its parents too; one that exists is left as it is."""
    if path.is_dir():
        return
    if path.parent != path:
        make_private_directory(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)


def open_private(path: Path, flags: int) -> int:
    """Opens with close-on-exec, and mode 0600 if the file is made."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def sync_data(fd: int) -> None:
    """Makes what was written to a file durable."""
    if sys.platform == "darwin":
        os.fsync(fd)  # it has no fdatasync
    else:
        os.fdatasync(fd)


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable: a file that was just made or renamed."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def why(error: OSError) -> str:
    """The system's reason as it stands in a sentence."""
    return (error.strerror or str(error)).lower()
