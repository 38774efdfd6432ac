"""Sinks: where record lines end up. A sink takes whole batches, and never leaves half a line or writes one twice."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol

from signalwarden.decision_log.logfiles import Number, last_number, rotated_name
from signalwarden.decision_log.retention import Keeper
from signalwarden.errors import LogError
from signalwarden.files import make_private_directory, open_private, sync_data, sync_directory, why

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FileSink", "Sink"]

REPAIR_WINDOW: Final = 1 << 20
"""How far back the end of the last whole line is looked for at once."""
FIRST_RECORD_BYTES: Final = 4_096
"""The time of a record stands among its first keys."""
_TIME = re.compile(rb'"time":"([0-9T:.Z-]+)"')


class Sink(Protocol):
    """A place for record lines. Used by one thread. Raises OSError; the writer tries again."""

    def write(self, batch: bytes | memoryview) -> None:
        """Takes a batch of whole lines; the memory is the caller's again afterwards. After an error the same batch must
        be offered until it is taken; what of it was already written is not written again."""

    def sync(self) -> None:
        """Makes durable what was written."""

    def close(self) -> None:
        """Lets go, without sync."""


class FileSink:
    """A file that is rotated by size and by the age of its first record. Rotated ones are its keeper's."""

    def __init__(
        self,
        path: Path,
        *,
        rotate_bytes: int,
        keep_files: int = 20,
        rotate_every_s: float | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        """`keep_files` counts only without a keeper."""
        self._path = path
        self._rotate_bytes = rotate_bytes
        self._rotate_every_s = rotate_every_s
        self._keeper = keeper or Keeper(path, keep_files=keep_files)
        self._number = Number(path)
        self._began_at: float | None = None
        """When the first record of the file was written; None while there is none."""
        self._taken = 0
        """Bytes of the batch in hand that are in the file already."""
        self._fd = -1
        self.rotations = 0
        """Files that were full, since the start."""
        self.repaired_bytes = 0
        """What a crash had left of a half line, cut off when the file was opened."""
        try:
            make_private_directory(path.parent)
            self._open()
        except OSError as error:
            raise LogError(f"the decision log `{path}` can't be written: {why(error)}") from error

    def _open(self) -> None:
        fd = open_private(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise LogError(f"the decision log `{self._path}` is not a regular file")
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise LogError(f"the decision log `{self._path}` is in use by another process") from error
            self.repaired_bytes = _cut_half_line(fd, status.st_size)
            self._size = status.st_size - self.repaired_bytes
            self._began_at = _time_of_first(fd, status.st_mtime) if self._size else None
            sync_directory(self._path.parent)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def write(self, batch: bytes | memoryview) -> None:
        """See Sink."""
        if self._taken == 0:
            self._follow_rename()
            if self._size and (self._size + len(batch) > self._rotate_bytes or self._is_old()):
                self._rotate()
            self._keeper.check_room(self._size)
        elif self._fd < 0:
            self._open()
        self._restore()
        written = self._taken
        try:
            with memoryview(batch) as view:
                while written < len(view):
                    with view[written:] as rest:
                        written += os.write(self._fd, rest)
        except OSError:
            # Keep the lines that are whole and take the half one back, so that whoever reads sees lines only.
            # `_restore` does it once more, if it can't be done now.
            whole = bytes(batch[:written]).rfind(b"\n") + 1
            self._size += whole - self._taken
            self._taken = whole
            with contextlib.suppress(OSError):
                self._restore()
            raise
        self._size += len(batch) - self._taken
        self._taken = 0
        self._began_at = self._began_at if self._began_at is not None else time.time()

    def _is_old(self) -> bool:
        if self._rotate_every_s is None or self._began_at is None:
            return False
        return time.time() - self._began_at > self._rotate_every_s

    def _restore(self) -> None:
        """The file ends where the last whole line of ours ends."""
        if os.fstat(self._fd).st_size > self._size:
            os.ftruncate(self._fd, self._size)
        else:
            self._size = os.fstat(self._fd).st_size  # somebody emptied it: go on at its end

    def _follow_rename(self) -> None:
        """If somebody moved or removed the file, as logrotate does, goes on in a new one of the right name."""
        if self._fd >= 0:
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(self._path.stat(), os.fstat(self._fd)):
                    return
            sync_data(self._fd)
            self._let_go()
        self._open()

    def _rotate(self) -> None:
        """Renames the full file and goes on in a new one."""
        sync_data(self._fd)
        number = max(last_number(self._path), self._number.read()) + 1
        name = rotated_name(self._path, number, f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
        target = self._path.with_name(name)
        self._path.rename(target)
        self._number.keep(number)
        self.rotations += 1
        self._let_go()
        self._open()
        self._keeper.rotated()

    def sync(self) -> None:
        """See Sink."""
        if self._fd >= 0:
            sync_data(self._fd)

    def place(self) -> os.stat_result:
        """Of the file that is written now: which it is and how long. Raises OSError."""
        return os.fstat(self._fd)

    def close(self) -> None:
        """See Sink."""
        self._let_go()

    def _let_go(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _time_of_first(fd: int, otherwise: float) -> float:
    """When the first record of a file was written: as it says, or as the file says where it does not."""
    head = os.pread(fd, FIRST_RECORD_BYTES, 0)
    found = _TIME.search(head[: head.find(b"\n") if b"\n" in head else None])
    with contextlib.suppress(ValueError):
        return datetime.fromisoformat(found[1].decode()).timestamp() if found else otherwise
    return otherwise


def _cut_half_line(fd: int, size: int) -> int:
    """Cuts off what follows the last newline; how many bytes that was."""
    end = size
    while end > 0:
        start = max(0, end - REPAIR_WINDOW)
        newline = os.pread(fd, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        os.ftruncate(fd, end)
    return size - end
