"""A place in the log that a reader goes on from, at its own pace: over rotation, with a bounded read at each look, from
the end, from a time or from behind a record. The file is the buffer: a slow reader costs neither memory nor the log.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, BinaryIO, Final, Self

from signalwarden.decision_log.heads import Head, head_of, time_of_id, written
from signalwarden.decision_log.logfiles import (
    is_packed,
    last_number,
    number_of,
    opened,
    rotated_files,
    unreadable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["DISORDER", "Bookmark"]

MAX_LINE_BYTES: Final = 16 << 20
"""A record is one to two KiB, the longest ones (a directory made anew) have less than 1 MiB."""
BLOCK_BYTES: Final = 64 * 1024
SCAN_BYTES: Final = 1 << 20
DISORDER: Final = timedelta(seconds=5)
"""Records stand in the order in which they were accepted; their times differ from that by less."""


class Bookmark:
    """Reads on from a place. Used by one thread at a time; close it."""

    _file: BinaryIO | None
    _number: int
    """The number that the open file has, or will have once it is rotated."""
    _mark: int

    def __init__(self, path: Path) -> None:
        """At the end of what is written now. Raises LogError."""
        self._path = path
        self._held = b""
        """Lines that were read already and belong behind the place."""
        self.missed = False
        """Files between here and the last place were deleted before they were read."""
        self._open_current()

    @classmethod
    def since(cls, path: Path, moment: datetime) -> Self:
        """A little before the first record of a time, or at the beginning. Raises LogError."""
        place = cls(path)
        place._go_to(written(moment - DISORDER))
        return place

    @classmethod
    def after(cls, path: Path, record_id: str) -> Self | None:
        """Behind a record; None if it is not kept. Raises LogError."""
        found = cls._at(path, record_id)
        return found[0] if found is not None else None

    @classmethod
    def find(cls, path: Path, record_id: str) -> bytes | None:
        """A record, without its newline; None if it is not kept. Raises LogError."""
        found = cls._at(path, record_id)
        if found is None:
            return None
        found[0].close()
        return found[1]

    @classmethod
    def _at(cls, path: Path, record_id: str) -> tuple[Self, bytes] | None:
        made = time_of_id(record_id)
        if made is None:
            return None
        place = cls.since(path, made)
        latest, needle = written(made + DISORDER), b'_id":"' + record_id.encode() + b'"'
        while lines := place.take(SCAN_BYTES):
            at = -1
            while (at := lines.find(needle, at + 1)) >= 0:
                begin, end = lines.rfind(b"\n", 0, at) + 1, lines.find(b"\n", at)
                head = head_of(lines[begin:end])
                if head is not None and head.id == record_id:  # and not one that another record names
                    place.put_back(lines[end + 1 :])
                    return place, lines[begin:end]
            last = head_of(lines[lines.rfind(b"\n", 0, -1) + 1 : -1])
            if last is not None and last.time > latest:
                break
        place.close()
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the file."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def take(self, most: int) -> bytes:
        """The next whole lines, about so many bytes of them at most; nothing if there are none yet. Raises LogError."""
        if self._held:
            end = self._held.rfind(b"\n", 0, most) + 1 or self._held.find(b"\n") + 1
            held, self._held = self._held[:end], self._held[end:]
            return held
        while True:
            # Asked first, read second: what is written between the two is read with the file it went to.
            later = self._later()
            lines = self._read(most)
            if lines or not later or not self._open_next(later[0]):
                return lines

    def put_back(self, lines: bytes) -> None:
        """Gives the last of what was taken back: it is taken again next."""
        self._held = lines

    def behind(self) -> int:
        """Bytes that wait to be read, about."""
        ours = 0
        if self._file is not None and not is_packed(self._file):
            ours = max(0, os.fstat(self._file.fileno()).st_size - self._mark)
        return len(self._held) + ours + sum(map(_size, self._later()))

    def backwards(self) -> Iterator[tuple[Iterator[bytes], bool]]:
        """The lines before this place, file by file, the newest file first; and whether they come in the order in which
        they were written, as those of a packed file do, or the newest first. Raises LogError."""
        if self._file is not None:
            yield _lines_backwards(self._file, self._mark), False
        for file in reversed(rotated_files(self._path)):
            opened = _open_if_there(file) if number_of(self._path, file) < self._number else None
            if opened is not None:
                with opened:
                    packed = is_packed(opened)
                    yield opened if packed else _lines_backwards(opened, _end_of_last_line(opened)), packed

    def skip_to_end(self) -> None:
        """Gives up what waits to be read. Raises LogError."""
        self.close()
        self._held = b""
        self._open_current()

    # ---- from file to file

    def _later(self) -> list[Path]:
        """The files after the open one, oldest first."""
        least = self._number + (self._file is not None)
        later = [file for file in rotated_files(self._path) if number_of(self._path, file) >= least]
        try:
            current = self._path.stat()
        except OSError:
            return later  # between two files: the next look will find the new one
        if self._file is None or _identity(current) != _identity(os.fstat(self._file.fileno())):
            later.append(self._path)
        return later

    def _open_next(self, file: Path) -> bool:
        """False if that has to wait for the next look: it was renamed, packed or deleted since it was listed."""
        number = last_number(self._path) + 1 if file == self._path else number_of(self._path, file)
        opened = _open_if_there(file)
        if opened is None:
            return False
        least = self._number + (self._file is not None)
        if file == self._path and (number > least or last_number(self._path) + 1 != number):
            opened.close()  # rotated since the files were listed: there are others before it
            return False
        self.missed = self.missed or number > least
        self.close()
        self._file, self._number, self._mark = opened, number, 0
        return True

    def _open_current(self) -> None:
        """Goes to the end of the current file, and finds the number that it will have. A rotation between is seen."""
        while True:
            number = last_number(self._path) + 1
            opened = _open_if_there(self._path)
            if last_number(self._path) + 1 == number:
                break
            if opened is not None:
                opened.close()
        self._file, self._number = opened, number
        self._mark = 0 if opened is None else _end_of_last_line(opened)

    def _read(self, most: int) -> bytes:
        if self._file is None:
            return b""
        try:
            if is_packed(self._file):
                return b"".join(self._file.readlines(most))
            if os.fstat(self._file.fileno()).st_size < self._mark:
                self._mark = 0  # emptied in place, as logrotate's copytruncate does
            self._file.seek(self._mark)
            data = self._file.read(most)
            while (
                data and b"\n" not in data and len(data) < MAX_LINE_BYTES and (more := self._file.read(most))
            ):
                data += more
        except OSError as error:
            raise unreadable(self._path, error) from error
        # Half a line is read again when it is whole: a writer whose disk is full takes it back.
        end = data.rfind(b"\n") + 1
        if end == 0 and len(data) >= MAX_LINE_BYTES:
            self._mark += len(data)  # no log, whatever it is
        self._mark += end
        return data[:end]

    # ---- a time

    def _go_to(self, earliest: str) -> None:
        """To a line before which every line is older."""
        for file in reversed([None, *rotated_files(self._path)]):
            first = self._first_time()
            if file is None or (first is not None and first <= earliest):
                break
            number = number_of(self._path, file)
            opened = _open_if_there(file) if number < self._number or self._file is None else None
            if opened is not None:
                self.close()
                self._file, self._number = opened, number
        self._mark = self._halved(earliest)

    def _first_time(self) -> str | None:
        """Of the open file; goes to its beginning."""
        if self._file is None:
            return None
        self._file.seek(0)
        head = head_of(self._file.readline(MAX_LINE_BYTES))
        self._file.seek(0)
        return head.time if head else None

    def _halved(self, earliest: str) -> int:
        file = self._file
        if file is None or is_packed(file):
            return 0
        low, high = 0, _end_of_last_line(file)
        while high - low > BLOCK_BYTES:
            middle = (low + high) // 2
            found = _first_head(file, middle, high)
            if found is None or found[1].time >= earliest:
                high = middle
            else:
                low = found[0]
        return low


def _first_head(file: BinaryIO, start: int, end: int) -> tuple[int, Head] | None:
    """The first record that begins behind a place, and where."""
    file.seek(start)
    file.readline(MAX_LINE_BYTES)
    while (at := file.tell()) < end:
        head = head_of(file.readline(MAX_LINE_BYTES))
        if head is not None:
            return at, head
    return None


def _lines_backwards(file: BinaryIO, position: int) -> Iterator[bytes]:
    """Whole lines before a position, the last one first."""
    rest = b""
    while position > 0 and len(rest) < MAX_LINE_BYTES:
        size = min(BLOCK_BYTES, position)
        position -= size
        file.seek(position)
        rest, *lines = (file.read(size) + rest).split(b"\n")
        yield from (each for each in reversed(lines) if each)
    if rest:
        yield rest


def _end_of_last_line(file: BinaryIO) -> int:
    """Where the last whole line ends: what comes after it is still being written."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - BLOCK_BYTES)
        file.seek(start)
        at = file.read(end - start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0


# ---- files ----------------------------------------------------------------------------------------------


def _open_if_there(file: Path) -> BinaryIO | None:
    """A file of the log, unpacked if it is packed; None if it is gone."""
    try:
        return opened(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(file, error) from error


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
