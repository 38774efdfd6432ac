"""Opening the files of a log to read them: which there are, plain or compressed, and their lines in blocks.

What is wrong with a line is told, never raised: a reader goes on after it.
"""

from __future__ import annotations

import contextlib
import gzip
import re
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Protocol, cast

import orjson

from signalwarden.errors import LogError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = [
    "MAX_LINE_BYTES",
    "VERSION",
    "blocks",
    "file_number",
    "files_of",
    "judge",
    "open_log",
    "unreadable",
]

VERSION: Final = 1
"""Of the records that are understood here."""
KINDS: Final = frozenset({"decision", "change", "transport"})
BLOCK_BYTES: Final = 1 << 20
MAX_LINE_BYTES: Final = 16 << 20
"""The longest records, those of a directory made anew, have less than 1 MiB. A file without line ends is not a log."""
GZIP: Final = b"\x1f\x8b"


class Readable(Protocol):
    """A file, or what is read like one."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes, none at the end."""


def file_number(path: Path, rotated: Path) -> int | None:
    """The number in the name of a rotated file of this log: `decisions-000001-20261123T101500Z.jsonl`, also with
    `.gz`."""
    name = re.escape(path.stem) + r"-(\d{6,})-\d{8}T\d{6}Z" + re.escape(path.suffix) + r"(?:\.gz)?"
    found = re.fullmatch(name, rotated.name)
    return int(found[1]) if found else None


def files_of(path: Path) -> list[Path]:
    """Every file of a log, oldest first, the current one last. Of a file that is being compressed, the plain one."""
    numbered: dict[int, Path] = {}
    with contextlib.suppress(OSError):
        for entry in sorted(path.parent.iterdir(), reverse=True):
            number = file_number(path, entry)
            if number is not None:
                numbered[number] = entry  # in reverse order, the name without `.gz` comes last
    return [*(numbered[number] for number in sorted(numbered)), *([path] if path.exists() else [])]


def open_log(path: Path) -> tuple[BinaryIO, BinaryIO]:
    """A file's content, and the file as it lies on the disk, whose position tells how far a reader is. Both are the
    same where it is not compressed. Raises FileNotFoundError and LogError."""
    try:
        raw = path.open("rb")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise unreadable(path, error) from error
    if raw.read(2) == GZIP:
        raw.seek(0)
        return cast("BinaryIO", gzip.GzipFile(fileobj=raw)), raw
    raw.seek(0)
    return raw, raw


def blocks(content: Readable, fault: Callable[[str], None] = lambda _: None) -> Iterator[bytes]:
    """Whole lines, about a megabyte at a time. `fault` is told of what is no whole line: at its place in the order."""
    # What was unpacked before a damage is read: `read` would lose it.
    read = content.read1 if isinstance(content, gzip.GzipFile) else content.read
    rest, skipping = b"", False
    while True:
        try:
            data = read(BLOCK_BYTES)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            fault("the compressed file is damaged or cut off here")
            return
        except OSError as error:
            fault(f"can't be read on: {(error.strerror or str(error)).lower()}")
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


def judge(raw: bytes) -> dict[str, Any] | str:
    """A record, or in words why the line is none."""
    try:
        record = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return "not JSON"
    if not isinstance(record, dict) or "v" not in record or "kind" not in record:
        return "JSON, but no record: it has no `v` and `kind`"
    if record["v"] != VERSION:
        return f"a record of version {_short(record['v'])}, this program reads {VERSION}"
    if record["kind"] not in KINDS:
        return f"a record of the kind {_short(record['kind'])}, which is not known here"
    return record


def _short(value: object) -> str:
    text = orjson.dumps(value).decode()
    shown = text if len(text) <= 20 else text[:20] + "…"
    return "".join(c if c.isprintable() else "?" for c in shown)


def unreadable(path: Path, error: OSError) -> LogError:
    """The one sentence on a file that can't be read."""
    return LogError(f"`{path}` can't be read: {(error.strerror or str(error)).lower()}")
