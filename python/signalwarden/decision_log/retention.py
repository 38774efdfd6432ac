"""What becomes of rotated files: they are compressed, and pruned by number, age and size, oldest first; never one that
a required sink has not taken whole. When nothing more may be pruned and the bound is reached, the log is full."""

from __future__ import annotations

import contextlib
import gzip
import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Final, Protocol

from signalwarden.decision_log.logfiles import COMPRESSED, number_of, opened, rotated_files
from signalwarden.errors import LogError
from signalwarden.files import open_private, sync_directory, why

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Keeper", "Reader", "lines_between"]

_log = logging.getLogger("signalwarden.decision_log")

LOOK_S: Final = 5.0
"""How often files are looked at that nothing has changed: for their age."""
BLOCK_BYTES: Final = 1 << 20
LEVEL: Final = 6
"""zlib's own default; records shrink to about a tenth."""
PARTIAL: Final = ".partial"
"""What a compressed file is called until it is whole: no reader takes it for a file of the log."""


class Reader(Protocol):
    """Whoever reads on from the files at its own pace: a shipper."""

    @property
    def name(self) -> str:
        """As it stands in a sentence."""

    @property
    def required(self) -> bool:
        """Whether what it has not taken must stay."""

    def needs_from(self) -> int | None:
        """The number of the oldest rotated file that it has not taken whole; None: it has taken all of them."""

    def forgo(self, file: Path, number: int) -> None:
        """This file is about to be pruned: what of it was not taken is lost to it."""


class Keeper:
    """Owns the rotated files of one log. `prune` and `check_room` are for the writer's thread, the rest runs in its
    own."""

    def __init__(
        self,
        path: Path,
        *,
        keep_files: int,
        keep_for_s: float | None = None,
        most_bytes: int | None = None,
        rotate_bytes: int = 0,
        compress: bool = False,
    ) -> None:
        self._path = path
        self._keep_files = keep_files
        self._keep_for_s = keep_for_s
        self._most_bytes = most_bytes
        self._rotate_bytes = rotate_bytes
        self._compress = compress
        self._mutex = threading.Lock()
        self._readers: Sequence[Reader] = ()
        self._bytes = 0
        """Of the rotated files, as of the last look."""
        self.held_by: tuple[str, ...] = ()
        """Required sinks for whose sake a file stays that would have been pruned."""
        self._failed: set[str] = set()
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="log-keeper", daemon=True)

    def start(self, readers: Sequence[Reader] = ()) -> None:
        """Begins to compress and to look at ages; the readers hold files from now on."""
        self._readers = readers
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Ends; a file that is being compressed is begun anew the next time."""
        self._stopping = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    @property
    def bytes_kept(self) -> int:
        """Of the rotated files."""
        return self._bytes

    def check_room(self, current_bytes: int) -> None:
        """Whether more may be written behind a current file of so many bytes. Raises LogError that says what is in
        the way."""
        if self._most_bytes is None or self._bytes + current_bytes < self._most_bytes:
            return
        self.prune()
        if self._bytes + current_bytes < self._most_bytes:
            return
        cause = "nothing more can be pruned"
        if self.held_by:
            named = ", ".join(f"`{name}`" for name in self.held_by)
            cause = f"the required sink {named} has not taken what would be pruned"
        raise LogError(
            f"its files hold {self._bytes + current_bytes} bytes, as many as may be kept, and {cause}"
        )

    def rotated(self) -> None:
        """A file was rotated: prunes, and has it compressed."""
        self.prune()
        self._wake.set()

    # ------------------------------------------------------------ pruning

    def prune(self) -> None:
        """Removes the oldest files beyond what is kept, as far as readers let them go."""
        with self._mutex:
            files = rotated_files(self._path)
            sizes = {file: _size(file) for file in files}
            total = sum(sizes.values())
            held: tuple[str, ...] = ()
            for at, file in enumerate(files):
                if not self._surplus(file, len(files) - at, total):
                    break
                number = number_of(self._path, file)
                held = tuple(r.name for r in self._readers if r.required and _needs(r, number))
                if held or not self._remove(file, number):
                    break
                total -= sizes[file]
            self._bytes, self.held_by = total, held

    def _surplus(self, file: Path, count: int, total: int) -> bool:
        if count > self._keep_files:
            return True
        # Room for the current file, too: it may grow to its full size before the next look.
        if self._most_bytes is not None and total > self._most_bytes - self._rotate_bytes:
            return True
        with contextlib.suppress(OSError):
            return self._keep_for_s is not None and time.time() - file.stat().st_mtime > self._keep_for_s
        return False

    def _remove(self, file: Path, number: int) -> bool:
        try:
            for reader in self._readers:
                if _needs(reader, number):
                    reader.forgo(file, number)
            for form in (file, file.with_name(file.name + COMPRESSED)):
                form.unlink(missing_ok=True)
        except OSError as error:
            self._said(f"`{file}` can't be pruned: {why(error)}")
            return False
        return True

    # ------------------------------------------------------------ compressing

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            for left in self._path.parent.glob(f"{self._path.stem}-*{COMPRESSED}{PARTIAL}"):
                left.unlink(missing_ok=True)
        while not self._stopping:
            self._wake.clear()
            for file in rotated_files(self._path) if self._compress else ():
                if not file.name.endswith(COMPRESSED) and not self._stopping:
                    self._pack(file)
            self.prune()
            self._wake.wait(LOOK_S)

    def _pack(self, file: Path) -> None:
        target = file.with_name(file.name + COMPRESSED)
        partial = target.with_name(target.name + PARTIAL)
        try:
            fd = open_private(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            with opened(file) as plain, os.fdopen(fd, "wb") as raw:
                status = os.fstat(plain.fileno())
                with gzip.GzipFile("", "wb", LEVEL, raw, mtime=0) as packed:
                    while block := plain.read(BLOCK_BYTES):
                        packed.write(block)
                        if self._stopping:
                            return
                raw.flush()
                os.fsync(raw.fileno())
            os.utime(partial, ns=(status.st_atime_ns, status.st_mtime_ns))  # by which it is pruned
            with self._mutex:
                if not file.exists():  # pruned meanwhile
                    partial.unlink()
                    return
                partial.rename(target)
                sync_directory(target.parent)
                file.unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            partial.unlink(missing_ok=True)
            self._said(f"`{file}` can't be compressed: {why(error)}")

    def _said(self, sentence: str) -> None:
        if sentence not in self._failed:
            self._failed.add(sentence)
            _log.error("%s", sentence)


def lines_between(file: Path, start: int, end: int | None = None) -> int:
    """How many lines of a log's file end between two places, counted in bytes of its lines. Raises OSError."""
    count, left = 0, None if end is None else max(0, end - start)
    with opened(file) as content:
        content.seek(start)
        while block := content.read(BLOCK_BYTES if left is None else min(BLOCK_BYTES, left)):
            count += block.count(b"\n")
            left = None if left is None else left - len(block)
    return count


def _needs(reader: Reader, number: int) -> bool:
    oldest = reader.needs_from()
    return oldest is not None and oldest <= number


def _size(file: Path) -> int:
    with contextlib.suppress(OSError):
        return file.stat().st_size
    return 0
