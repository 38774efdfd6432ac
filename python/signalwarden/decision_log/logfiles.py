"""The files of a decision log: their names, their order, and how what stands in them is read, compressed or not.

One rule for every reader: a file is a run of whole lines. A file that was rotated never changes again, but that it may
be compressed: `NAME.jsonl` becomes `NAME.jsonl.gz` with the same lines, and for a moment both are there.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import re
import stat
import zlib
from typing import IO, TYPE_CHECKING, BinaryIO, Final, NamedTuple, Protocol, cast

from signalwarden.errors import LogError
from signalwarden.files import read_regular, why, write_private

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = [
    "COMPRESSED", "MAX_LINE_BYTES", "Line", "Number", "Readable", "blocks", "first_line_digest", "is_packed",
    "last_number", "log_files", "number_of", "opened", "position", "records_of", "rotated_files", "rotated_name",
    "unreadable",
]  # fmt: skip

COMPRESSED: Final = ".gz"
BLOCK_BYTES: Final = 1 << 20
MAX_LINE_BYTES: Final = 64 << 20
"""A record is one to two KiB, and its request has at most 4 MiB: what has no end for so long is no log."""
MAX_NUMBER_BYTES: Final = 32
MAX_FIRST_LINE_BYTES: Final = 1 << 16
"""What tells two files apart stands well within: the id and the time of their first record."""


class Readable(Protocol):
    """A file, or what is read like one."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes, none at the end."""


class Line(NamedTuple):
    """A line of a log, and where it stands."""

    file: Path
    number: int
    """From 1, in its file."""
    raw: bytes
    """Without its newline."""


# ---------------------------------------------------------------- names


def rotated_files(path: Path) -> list[Path]:
    """The rotated files of a log, oldest first: `decisions-000001-20261123T101500Z.jsonl` for `decisions.jsonl`, or the
    same with `.gz`. Of a file that is both, the one that is not compressed."""
    found: dict[str, Path] = {}
    with contextlib.suppress(OSError):
        for entry in path.parent.iterdir():
            plain = entry.name.removesuffix(COMPRESSED)
            if _pattern(path).fullmatch(plain) and (plain == entry.name or plain not in found):
                found[plain] = entry
    return sorted(found.values(), key=lambda entry: number_of(path, entry))


def log_files(path: Path) -> list[Path]:
    """Every file of a log, oldest first, the current one last."""
    return [*rotated_files(path), *([path] if path.exists() else [])]


def rotated_name(path: Path, number: int, stamp: str) -> str:
    """How the current file is called once it is rotated."""
    return f"{path.stem}-{number:06d}-{stamp}{path.suffix}"


def number_of(path: Path, rotated: Path) -> int:
    """The running number in the name of a rotated file."""
    found = _pattern(path).fullmatch(rotated.name.removesuffix(COMPRESSED))
    return int(found[1]) if found else 0


def last_number(path: Path) -> int:
    """The number of the last rotated file; 0 if there is none."""
    rotated = rotated_files(path)
    return number_of(path, rotated[-1]) if rotated else 0


class Number:
    """The number of the last file that was rotated, kept beside the log: it only grows, also when no rotated file is
    left that says it. Whoever has read up to one knows by it what is behind."""

    def __init__(self, path: Path) -> None:
        self._file = path.with_name(f"{path.stem}.number")
        self._known = 0

    def read(self) -> int:
        """As it was kept; 0 if it never was, or can't be read."""
        with contextlib.suppress(OSError, ValueError):
            self._known = max(self._known, int(read_regular(self._file, MAX_NUMBER_BYTES)))
        return self._known

    def keep(self, number: int) -> None:
        """Writes it down. If that fails, it is known until the server ends, and kept with the next one."""
        self._known = number
        with contextlib.suppress(OSError):
            write_private(self._file, b"%d\n" % number)


def _pattern(path: Path) -> re.Pattern[str]:
    return re.compile(re.escape(path.stem) + r"-(\d{6,})-\d{8}T\d{6}Z" + re.escape(path.suffix))


# ---------------------------------------------------------------- content


def opened(file: Path) -> BinaryIO:
    """A file of a log for reading, unpacked if it is compressed; also if it was compressed, or the packed one replaced,
    since it was listed. Raises OSError."""
    try:
        return _opened(file)
    except FileNotFoundError:
        packed = file.name.endswith(COMPRESSED)
        other = file.name.removesuffix(COMPRESSED) if packed else file.name + COMPRESSED
        return _opened(file.with_name(other))


def _opened(file: Path) -> BinaryIO:
    # A pipe of that name would hold the reader up for ever.
    fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    raw = os.fdopen(fd, "rb")
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raw.close()
        raise OSError(None, "it is not a regular file")
    if not file.name.endswith(COMPRESSED):
        return raw
    return cast("BinaryIO", _Unpacked(raw))


class _Unpacked(gzip.GzipFile):
    """A compressed file that closes what it reads from, and whose damage is an OSError."""

    def __init__(self, raw: BinaryIO) -> None:
        super().__init__(fileobj=raw, mode="rb")
        self._raw_file = raw

    def read(self, size: int | None = -1) -> bytes:
        try:
            return super().read(size)
        except (EOFError, zlib.error) as error:
            raise OSError(None, "it is cut off or damaged") from error

    def read1(self, size: int | None = -1) -> bytes:
        """What there is at once: before a damage, all that can be unpacked."""
        try:
            return super().read1(-1 if size is None else size)
        except (EOFError, zlib.error) as error:
            raise OSError(None, "it is cut off or damaged") from error

    def close(self) -> None:
        super().close()
        self._raw_file.close()

    @property
    def position_on_disk(self) -> int:
        """How far the compressed file is read."""
        return self._raw_file.tell()


def position(file: IO[bytes]) -> int:
    """How far a file that `opened` gave is read, in bytes as it lies on the disk."""
    here: object = file
    return here.position_on_disk if isinstance(here, _Unpacked) else file.tell()


def is_packed(file: object) -> bool:
    """Whether what `opened` gave is unpacked as it is read: it can't be read backwards, or only at great cost."""
    return isinstance(file, _Unpacked)


def first_line_digest(file: IO[bytes]) -> str | None:
    """What a file is known by, whatever it is called and whether it is compressed: the SHA-256 of its first line, which
    holds an id of its own. None while it has none. Moves the file's position."""
    file.seek(0)
    head = file.read(MAX_FIRST_LINE_BYTES)
    end = head.find(b"\n")
    if end < 0 and len(head) < MAX_FIRST_LINE_BYTES:
        return None
    return hashlib.sha256(head[:end] if end >= 0 else head).hexdigest()


def records_of(path: Path, *, half_lines: bool = False) -> Iterator[Line]:
    """Every line of a log, oldest first, as far as it went when this began, whatever is rotated or compressed
    meanwhile; a file that is pruned meanwhile is left out. What follows the last newline of a file is no line, or
    the last one with `half_lines`. One block is in memory at a time. Raises LogError for a file that can't be read."""
    rotated, current = _snapshot(path)
    with contextlib.ExitStack() as stack:
        end = None
        if current is not None:
            end = os.fstat(stack.enter_context(current).fileno()).st_size
        for older in rotated:
            try:
                with opened(older) as file:
                    yield from _lines(older, file, None, half_lines=half_lines)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise unreadable(older, error) from error
        if current is not None:
            try:
                yield from _lines(path, current, end, half_lines=half_lines)
            except OSError as error:
                raise unreadable(path, error) from error


def blocks(content: Readable, fault: Callable[[str], None] = lambda _: None) -> Iterator[bytes]:
    """Runs of whole lines of one file, about a megabyte at a time, for a reader that goes on over what is wrong:
    `fault` is told of it, at its place in the order."""
    # What was unpacked before a damage is read: `read` would lose it.
    read = content.read1 if isinstance(content, _Unpacked) else content.read
    rest, skipping = b"", False
    while True:
        try:
            data = read(BLOCK_BYTES)
        except OSError as error:
            fault(f"can't be read on: {why(error)}")
            return
        if not data:
            break
        if skipping:
            _, found, data = data.partition(b"\n")
            skipping = not found
        end = data.rfind(b"\n") + 1
        if end:
            yield rest + data[:end]
            rest = data[end:]
        else:
            rest += data
        if len(rest) > MAX_LINE_BYTES:
            fault(f"a line is longer than {MAX_LINE_BYTES >> 20} MiB")
            rest, skipping = b"", True
    if rest:
        fault("half a line at the end, cut off or still being written")


def _snapshot(path: Path) -> tuple[list[Path], BinaryIO | None]:
    """The rotated files, and the current one opened: no rotation between the two, or one file would be missed."""
    while True:
        rotated = rotated_files(path)
        try:
            current: BinaryIO | None = opened(path)
        except FileNotFoundError:
            current = None
        except OSError as error:
            raise unreadable(path, error) from error
        # Pruning takes the oldest, and all of them at most.
        if last_number(path) in (number_of(path, rotated[-1]) if rotated else 0, 0):
            return rotated, current
        if current is not None:
            current.close()


def _lines(name: Path, file: BinaryIO, end: int | None, *, half_lines: bool) -> Iterator[Line]:
    number, rest, left = 0, b"", end
    while block := file.read(BLOCK_BYTES if left is None else min(BLOCK_BYTES, left)):
        left = None if left is None else left - len(block)
        *lines, rest = (rest + block).split(b"\n")
        for raw in lines:
            number += 1
            yield Line(name, number, raw)
        if len(rest) > MAX_LINE_BYTES:
            raise LogError(f"`{name}:{number + 1}` has more than {MAX_LINE_BYTES} bytes: it is no record")
    if rest and half_lines:
        yield Line(name, number + 1, rest)


def unreadable(path: Path, error: OSError) -> LogError:
    """One sentence for a file that can't be read."""
    return LogError(f"`{path}` can't be read: {why(error)}")
