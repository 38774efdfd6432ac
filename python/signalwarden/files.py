"""Files: what signalwarden writes is for its own user only, what it reads is regular and bounded."""

from __future__ import annotations

import errno
import os
import stat
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "make_private_directory",
    "open_private",
    "read_regular",
    "sync_data",
    "sync_directory",
    "why",
    "write_private",
    "write_whole",
]


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


def write_private(path: Path, content: bytes) -> None:
    """Writes a file whole and durably, in place of the one of that name. Raises OSError: that one is then as it was."""
    write_whole(path, content)
    sync_directory(path.parent)


def write_whole(path: Path, content: bytes) -> None:
    """As `write_private`, but that the name is durable only once its directory is: for those who write many at once."""
    partial = path.with_name(path.name + ".partial")
    fd = open_private(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)


def read_regular(path: Path, max_bytes: int) -> bytes:
    """A file, whole. Raises OSError, also for one that is no regular file or has more bytes than that: a pipe or
    a device of that name would hold the reader up for ever."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "expected a regular file")
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"the file has more than {max_bytes} bytes")
    return content


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
