"""Reading on through the files of a log from a place that is remembered: over rotation, renames and compression."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import orjson

from signalwarden.decision_log.logfiles import (
    MAX_LINE_BYTES,
    first_line_digest,
    is_packed,
    last_number,
    log_files,
    number_of,
    opened,
    rotated_files,
)  # fmt: skip
from signalwarden.decision_log.retention import lines_between
from signalwarden.errors import LogError
from signalwarden.files import write_private

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["BEGINNING", "Batch", "Cursor", "Following", "Place", "Stretch"]

_log = logging.getLogger("signalwarden.decision_log")

BLOCK_BYTES: Final = 256 * 1024
MAX_CURSOR_BYTES: Final = 4_096
ATTEMPTS: Final = 10
"""A file that is rotated while it is being opened is looked for again; so often in a row it never is."""


@dataclass(frozen=True, slots=True)
class Place:
    """How far a log was read."""

    digest: str | None
    """Of the file's first line; None: at the beginning of the first file after `after`."""
    after: int
    """The number of the last file that had been rotated when this one was entered."""
    offset: int
    """In bytes of the lines, however they are compressed."""


BEGINNING: Final = Place(None, 0, 0)


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a log."""

    place: Place
    last: str | None
    """The file in which it ends, by its first line; None if that has none."""
    size: int
    """How far it goes there."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Lines of one file."""

    lines: list[bytes]
    start: Place
    epoch: int

    def after(self, count: int) -> Place:
        """The place behind so many of them."""
        offset = self.start.offset + sum(len(line) + 1 for line in self.lines[:count])
        return Place(self.start.digest, self.start.after, offset)


@dataclass(slots=True)
class Cursor:
    """What is remembered of a reader, in a file of its own beside the log."""

    file: Path
    place: Place = BEGINNING
    sequence: int = 0
    """Records that were taken."""
    lost: int = 0
    """Records that were pruned before they were taken."""
    refused: int = 0
    """Records that the other side refused for good."""

    @staticmethod
    def read(file: Path) -> Cursor:
        """As it was kept; from the beginning if it was not, or can't be read."""
        cursor = Cursor(file)
        try:
            with file.open("rb") as kept:
                found: Any = orjson.loads(kept.read(MAX_CURSOR_BYTES))
            place = Place(found["file"], int(found["after"]), int(found["offset"]))
            if place.offset < 0 or not isinstance(place.digest, str | None):
                raise ValueError
            cursor.sequence, cursor.lost = int(found["sequence"]), int(found["lost"])
            cursor.refused, cursor.place = int(found["refused"]), place
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError):
            _log.warning("the cursor `%s` can't be read: all that the log holds is sent again", file)
        return cursor

    def keep(self) -> None:
        """Writes it down, durably and whole. Raises OSError."""
        text = {
            "v": 1, "file": self.place.digest, "after": self.place.after, "offset": self.place.offset,
            "sequence": self.sequence, "lost": self.lost, "refused": self.refused,
        }  # fmt: skip
        write_private(self.file, orjson.dumps(text, option=orjson.OPT_APPEND_NEWLINE))


class Following:
    """Reads a log's files in their order. `read` and `taken` are for one thread, `needs_from` and `forgo` for any."""

    def __init__(self, path: Path, cursor: Cursor) -> None:
        self._path = path
        self.cursor = cursor
        self._mutex = threading.RLock()
        self._file: BinaryIO | None = None
        self._at = cursor.place
        """Behind the batch in hand."""
        self._rest = b""
        """What was read behind it, of a compressed file alone: it can't be taken back by whoever writes."""
        self._epoch = 0
        """Grows when a place is given up: a batch from before it says nothing about where we are."""
        self._digests: dict[int, str] = {}
        self._kept: object = None

    # ------------------------------------------------------------ for the shipper's thread

    def read(self, most_records: int, most_bytes: int) -> Batch | None:
        """The next lines, one at least even if it is longer than that; None if there are none yet. Raises OSError, and
        LogError for what is no log."""
        with self._mutex:
            if self._file is None and not self._enter():
                return None
            # Asked first, read second: what is written between the two is read with the file it went to.
            current = self._is_current()
            batch = self._take(most_records, most_bytes)
            if batch is not None or current:
                return batch
            return self._take(most_records, most_bytes) if self._next() else None

    def taken(self, batch: Batch, count: int) -> None:
        """So many lines of the batch are done with."""
        with self._mutex:
            if batch.epoch == self._epoch:
                self.cursor.place = batch.after(count)

    def keep(self) -> None:
        """Writes the cursor down, if it has moved. Raises OSError."""
        with self._mutex:
            now = (self.cursor.place, self.cursor.sequence, self.cursor.lost, self.cursor.refused)
            if now != self._kept:
                self.cursor.keep()
                self._kept = now

    def close(self) -> None:
        """Lets go."""
        with self._mutex:
            self._close()

    def stretch(self) -> Stretch:
        """From the cursor to where the log ends now."""
        with self._mutex:
            place = self.cursor.place
        with contextlib.suppress(OSError), opened(self._path) as file:
            return Stretch(place, first_line_digest(file), os.fstat(file.fileno()).st_size)
        return Stretch(place, None, 0)

    def backlog(self, of: Stretch) -> int:
        """Lines of a stretch. Reads them all, so it may take long; what is pruned meanwhile is not counted."""
        count, files = 0, log_files(self._path)
        begin, end = self._index(of.place.digest, files), self._index(of.last, files)
        for index, file in enumerate(files[: len(files) if end is None else end + 1]):
            before = index < begin if begin is not None else self._is_taken(file, of.place.after)
            if before or (end is None and file == self._path):
                continue
            with contextlib.suppress(OSError):
                start = of.place.offset if index == begin else 0
                count += lines_between(file, start, of.size if index == end else None)
        return count

    def _is_taken(self, file: Path, after: int) -> bool:
        return file != self._path and number_of(self._path, file) <= after

    # ------------------------------------------------------------ for whoever prunes

    def needs_from(self) -> int | None:
        """See retention.Reader."""
        with self._mutex:
            place = self.cursor.place
        files = log_files(self._path)
        at = self._index(place.digest, files)
        if at is None:
            return place.after + 1
        return None if files[at] == self._path else number_of(self._path, files[at])

    def forgo(self, file: Path, number: int) -> int:
        """See retention.Reader; how many lines are lost."""
        with self._mutex:
            ours = self._at.digest is not None and self._digest_of(file) == self._at.digest
            lost = lines_between(file, self._at.offset if ours else 0)
            if ours or self._at.digest is None:
                self._close()
                self._at = Place(None, number, 0)
            self._epoch += 1
            self.cursor.place = Place(None, number, 0)
            self.cursor.lost += lost
            self.cursor.keep()
            return lost

    # ------------------------------------------------------------ inside a file

    def _take(self, most_records: int, most_bytes: int) -> Batch | None:
        if self._file is None:
            return None
        if not is_packed(self._file):
            # Half a line is read again when it is whole: a writer whose disk is full takes it back.
            self._rest = b""
            size = os.fstat(self._file.fileno()).st_size
            if size < self._at.offset:  # emptied in place, as logrotate's copytruncate does
                self._at = Place(self._at.digest, self._at.after, 0)
            self._file.seek(self._at.offset)
        data = self._rest
        while data.count(b"\n") < most_records and (len(data) < most_bytes or b"\n" not in data):
            block = self._file.read(BLOCK_BYTES)
            if not block:
                break
            data += block
            if len(data) > MAX_LINE_BYTES and b"\n" not in data:
                raise LogError(
                    f"a line of `{self._path}` has more than {MAX_LINE_BYTES} bytes: it is no record"
                )
        return self._cut(data, most_records, most_bytes)

    def _cut(self, data: bytes, most_records: int, most_bytes: int) -> Batch | None:
        lines: list[bytes] = []
        end = 0
        while len(lines) < most_records:
            newline = data.find(b"\n", end)
            if newline < 0 or (lines and newline >= most_bytes):
                break
            lines.append(data[end:newline])
            end = newline + 1
        self._rest = data[end:]
        if not lines:
            return None
        batch = Batch(lines, self._at, self._epoch)
        self._at = batch.after(len(lines))
        return batch

    def _is_current(self) -> bool:
        """Whether the open file is still the one that is written."""
        if self._file is None or is_packed(self._file):
            return False
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return True  # between two files: the next look will find the new one

    # ------------------------------------------------------------ between files

    def _enter(self) -> bool:
        """Opens the file of the place, or the first one behind it."""
        if self._at.digest is None:
            return self._next()
        files = log_files(self._path)
        wanted = self._at.digest
        at = self._index(wanted, files)
        found = files[at] if at is not None else self._renamed(wanted)
        if found is None:
            _log.error(
                "the decision log's file that `%s` points to is gone: what it still held was not sent",
                self.cursor.file.name,
            )
            self._at = Place(None, self._at.after, 0)
            return self._next()
        try:
            file = opened(found)
        except FileNotFoundError:
            return False  # it has just got another name
        if first_line_digest(file) != wanted:
            file.close()
            return False
        self._adopt(file, wanted, self._at.after, self._sound(file, self._at.offset))
        return True

    def _sound(self, file: BinaryIO, offset: int) -> int:
        """The offset, if a line ends there; else the beginning."""
        if offset:
            file.seek(offset - 1)
            if file.read(1) != b"\n":
                _log.warning("`%s` points into a line: its file is sent again", self.cursor.file.name)
                offset = 0
        file.seek(offset)
        return offset

    def _renamed(self, digest: str) -> Path | None:
        """A file that another program has renamed, beside the log."""
        for entry in self._path.parent.iterdir():
            if entry.name.startswith(self._path.stem) and entry.is_file():
                with contextlib.suppress(OSError), opened(entry) as file:
                    if first_line_digest(file) == digest:
                        return entry
        return None

    def _next(self) -> bool:
        """Opens the file behind the one that is open, once it has a line; the place then is at its beginning."""
        for _ in range(ATTEMPTS):
            files = log_files(self._path)
            at = self._index(self._at.digest, files)
            behind = files[at + 1 :] if at is not None else self._numbered_after(self._at.after, files)
            last = last_number(self._path)
            if at is not None and files[at] != self._path:
                # Done with this one, whether or not there is a next one yet: it need not be kept for us.
                self._leave(number_of(self._path, files[at]))
            try:
                file = opened(behind[0]) if behind else None
            except FileNotFoundError:
                continue
            if file is None:
                return False
            digest = first_line_digest(file)
            if last_number(self._path) != last:
                file.close()
                continue  # the current file may not be the one that it was
            if digest is None:
                file.close()
                return False
            file.seek(0)
            before = last if behind[0] == self._path else number_of(self._path, behind[0]) - 1
            self._adopt(file, digest, before, 0)
            return True
        return False

    def _leave(self, number: int) -> None:
        if self.cursor.place == self._at:
            self.cursor.place = Place(None, number, 0)
        self._close()
        self._at = Place(None, number, 0)

    def _adopt(self, file: BinaryIO, digest: str, after: int, offset: int) -> None:
        self._close()
        self._file = file
        caught_up = self.cursor.place == self._at
        self._at = Place(digest, after, offset)
        if caught_up:
            self.cursor.place = self._at

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file, self._rest = None, b""

    def _numbered_after(self, number: int, files: list[Path]) -> list[Path]:
        return [file for file in files if file == self._path or number_of(self._path, file) > number]

    def _index(self, digest: str | None, files: list[Path]) -> int | None:
        """Which of the files it is; the newest are looked at first."""
        if digest is None:
            return None
        for at in range(len(files) - 1, -1, -1):
            if self._digest_of(files[at]) == digest:
                return at
        return None

    def _digest_of(self, file: Path) -> str | None:
        """Of a rotated file it never changes, so it is read once."""
        number = 0 if file == self._path else number_of(self._path, file)
        if number in self._digests:
            return self._digests[number]
        try:
            with opened(file) as content:
                digest = first_line_digest(content)
        except OSError:
            return None
        if number and digest is not None:
            if len(self._digests) > len(rotated_files(self._path)) + 16:
                self._digests.clear()  # of files that are long gone
            self._digests[number] = digest
        return digest
