"""Reading the end of the decision log: the last records, then new ones as they come, over rotation; each as one line.

Records hold text that callers chose (paths, argument values), so nothing reaches a terminal with control characters.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Self

import orjson
from rich.text import Text

from signalwarden.decision_log.logfiles import is_packed, opened, rotated_files
from signalwarden.errors import LogError

__all__ = ["STATES", "Tail", "Wanted", "clean", "line", "wanted"]

# How often a followed file is looked at: records are on disk within half a second, so this adds little.
POLL_SECONDS = 0.2
# Bytes read at a time from the end of a file; a record is one to two KiB.
BLOCK_BYTES = 64 * 1024

Wanted = Callable[[dict[str, Any]], bool]


def wanted(*, denied_only: bool) -> Wanted:
    """Which records are shown."""
    if denied_only:
        return lambda record: record.get("kind") == "decision" and record.get("outcome") == "deny"
    return lambda _: True


# ---- from files to records ------------------------------------------------------------------------------

Entry = tuple[bytes, dict[str, Any]]
"""A record, as it was written and as it was read."""


class Tail:
    """The end of a log that is being written: a mark is set when this is made; `last` reads back from it, `follow` on
    from it, so that no record is shown twice and none is missed, whenever the file is rotated.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = self._open()
        self._mark = 0 if self._file is None else _end_of_last_line(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def last(self, count: int, want: Wanted) -> list[Entry]:
        """The last wanted records, oldest first; from rotated files, too, where the current one holds too few."""
        found: deque[Entry] = deque()
        for raw in self._backwards():
            if len(found) >= count:
                break
            record = parse(raw)
            if record is not None and want(record):
                found.appendleft((raw, record))
        return list(found)

    def follow(
        self, want: Wanted, *, stopped: Callable[[], bool] = lambda: False, poll: float = POLL_SECONDS
    ) -> Iterator[Entry]:
        """Wanted records as they come. A file that is rotated away is read to its end before the new one is opened."""
        while not stopped():
            lines = self._take()
            for raw in lines:
                record = parse(raw)
                if record is not None and want(record):
                    yield raw, record
            if not lines:
                time.sleep(poll)

    def _take(self) -> list[bytes]:
        # Asked first, read second: what is written between the two is read with the file it went to.
        rotated = self._rotated()
        lines = self._read()
        if rotated:
            self._close()
            self._file = self._open()
            self._mark = 0
            lines += self._read()
        return lines

    def _read(self) -> list[bytes]:
        if self._file is None:
            return []
        try:
            if os.fstat(self._file.fileno()).st_size < self._mark:
                self._mark = 0  # emptied in place, as logrotate's copytruncate does
            self._file.seek(self._mark)
            data = self._file.read()
        except OSError as error:
            raise _unreadable(self._path, error) from error
        # Half a line is read again when it is whole: a writer whose disk is full takes it back.
        whole = data[: data.rfind(b"\n") + 1]
        self._mark += len(whole)
        return [entry for entry in whole.split(b"\n") if entry]

    def _rotated(self) -> bool:
        try:
            now = self._path.stat()
        except OSError:
            return False  # between two files: the next look will find the new one
        return self._file is None or _identity(now) != _identity(os.fstat(self._file.fileno()))

    def _open(self) -> BinaryIO | None:
        try:
            return self._path.open("rb")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreadable(self._path, error) from error

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None

    def _backwards(self) -> Iterator[bytes]:
        known = None
        if self._file is not None:
            known = _identity(os.fstat(self._file.fileno()))
            yield from _lines_backwards(self._file, self._mark)
        for path in _rotated_newest_first(self._path, known):
            try:
                with _seekable(path) as file:
                    yield from _lines_backwards(file, _end_of_last_line(file))
            except FileNotFoundError:
                continue  # deleted since it was listed
            except OSError as error:
                raise _unreadable(path, error) from error


def parse(raw: bytes) -> dict[str, Any] | None:
    """A record; None for a line that is none, such as one cut off when a disk was full."""
    try:
        record = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return record if isinstance(record, dict) else None


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _rotated_newest_first(path: Path, known: tuple[int, int] | None) -> Iterator[Path]:
    """Files that were the current one, but the one that is open already."""
    for rotated in reversed(rotated_files(path)):
        try:
            if _identity(rotated.stat()) != known:
                yield rotated
        except FileNotFoundError:
            continue  # deleted since it was listed


@contextmanager
def _seekable(path: Path) -> Iterator[BinaryIO]:
    """A file that can be read backwards: a compressed one is unpacked to a place without a name first."""
    with opened(path) as file, ExitStack() as stack:
        if is_packed(file):
            unpacked = stack.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(file, unpacked, BLOCK_BYTES)
            yield unpacked
        else:
            yield file


def _end_of_last_line(file: BinaryIO) -> int:
    """Where the last whole line ends: what comes after it is still being written."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        size = min(BLOCK_BYTES, end)
        file.seek(end - size)
        at = file.read(size).rfind(b"\n")
        if at >= 0:
            return end - size + at + 1
        end -= size
    return 0


def _lines_backwards(file: BinaryIO, position: int) -> Iterator[bytes]:
    """Whole lines before a position, last one first, without holding the file in memory."""
    rest = b""
    while position > 0:
        size = min(BLOCK_BYTES, position)
        position -= size
        file.seek(position)
        rest, *lines = (file.read(size) + rest).split(b"\n")
        yield from (entry for entry in reversed(lines) if entry)
    if rest:
        yield rest


def _unreadable(path: Path, error: OSError) -> LogError:
    return LogError(f"`{path}` can't be read: {(error.strerror or str(error)).lower()}")


# ---- from a record to a line ----------------------------------------------------------------------------

OUTCOMES = {"allow": ("ALLOW", "bold green"), "deny": ("DENY ", "bold red")}
LET_PASS = ("PASS ", "bold yellow")
"""A denial on a route with `enforce: false`."""
STATES = {"fresh": "green", "stale": "yellow", "missing": "yellow"}


def line(record: dict[str, Any]) -> Text:
    """A record as one readable line."""
    text = Text(no_wrap=True, overflow="ignore", end="")
    text.append(_clock(record.get("time")), "dim")
    text.append("  ")
    if record.get("kind") == "decision":
        _decision(text, record)
    else:
        _other(text, record)
    return text


def _decision(text: Text, record: dict[str, Any]) -> None:
    request, principal = _map(record.get("request")), _map(record.get("principal"))
    word, style = OUTCOMES.get(str(record.get("outcome")), ("?    ", "bold"))
    if record.get("enforced") is False:
        word, style = LET_PASS
    text.append(word, style)
    text.append(f" {clean(record.get('reason')):<24}", "" if record.get("outcome") == "allow" else "red")
    text.append(f" {clean(request.get('method'))} {clean(request.get('host'))}{clean(request.get('path'))}")
    if request.get("action"):
        text.append(f"  {clean(request['action'])}", "cyan")
        text.append(f" {clean(request.get('resource'))}".rstrip())
    text.append(f"  {clean(principal.get('id')) or '-'}", "magenta")
    _signals(text, record.get("signals"))
    if record.get("detail"):
        text.append(f"  ({clean(record['detail'])})", "italic")
    total = _map(record.get("timing_us")).get("total")
    if isinstance(total, int | float):
        text.append(f"  {total:g}µs", "dim")
    text.append(f"  {clean(record.get('decision_id'))}", "dim")


def _signals(text: Text, signals: object) -> None:
    for entry in signals if isinstance(signals, list) else []:
        signal = _map(entry)
        state = clean(signal.get("state"))
        shown = _value(signal["value"]) if "value" in signal and state == "fresh" else state
        text.append(f"  {clean(signal.get('name'))}={shown}", STATES.get(state, "red"))
        if signal.get("influence") in ("decisive", "refused"):
            text.append(f" ({signal['influence']})", "bold")


def _other(text: Text, record: dict[str, Any]) -> None:
    kind = clean(record.get("kind")) or "record"
    text.append(kind.upper(), "bold blue")
    known = ("v", "kind", "time", "decision_id", "change_id", "event_id")
    for key, value in record.items():
        if key not in known and value not in (None, "", [], {}):
            text.append(f"  {clean(key)}=", "dim")
            text.append(_value(value))


def _clock(value: object) -> str:
    try:
        return datetime.fromisoformat(str(value)).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    except ValueError:
        return clean(value) or "-"


def _value(value: object) -> str:
    return clean(value if isinstance(value, str) else orjson.dumps(value).decode())


def _map(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def clean(value: object) -> str:
    """Text without anything that a terminal obeys: escapes, line breaks, marks that turn the direction of text."""
    if value is None:
        return ""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in str(value))
