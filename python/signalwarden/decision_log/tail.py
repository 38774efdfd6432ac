"""Reading the end of the decision log: the last records, then new ones as they come, over rotation; each as one line.

Records hold text that callers chose (paths, argument values), so nothing reaches a terminal with control characters.
"""

from __future__ import annotations

import io
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Self

import orjson
from rich.text import Text

from signalwarden.decision_log.judging import judge
from signalwarden.decision_log.logfiles import (
    MAX_LINE_BYTES,
    Readable,
    blocks,
    is_packed,
    last_number,
    number_of,
    opened,
    rotated_files,
    unreadable,
)
from signalwarden.decision_log.parts import map_of

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
    """The end of a log that is being written: a mark is set when this is made; `last` and `whole` read what lies before
    it, `follow` goes on from it, so that no record is shown twice and none is missed, whenever the file is rotated, and
    compressed then.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.skipped: Counter[str] = Counter()
        """Lines that are no record: why, and how many."""
        self._file, self._number = self._open()
        self._mark = 0 if self._file is None else _end_of_last_line(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    # ---- what lies before the mark

    def last(self, count: int, want: Wanted) -> list[Entry]:
        """The last wanted records, oldest first; from rotated files, too, where the current one holds too few."""
        found: deque[Entry] = deque()
        if self._file is not None:
            for raw in _lines_backwards(self._file, self._mark):
                if len(found) >= count:
                    break
                if (entry := self._wanted(raw, want)) is not None:
                    found.appendleft(entry)
        for path in reversed(self._before()):
            if len(found) >= count:
                break
            found.extendleft(reversed(self._last_of(path, count - len(found), want)))
        return list(found)

    def _last_of(self, path: Path, count: int, want: Wanted) -> list[Entry]:
        """The last wanted records of a rotated file. A compressed one has to be read from its beginning."""
        with _opened(path) as content:
            if not is_packed(content):
                entries = (
                    self._wanted(raw, want) for raw in _lines_backwards(content, _end_of_last_line(content))
                )
                kept: deque[Entry] = deque()
                for entry in entries:
                    if entry is not None:
                        kept.appendleft(entry)
                        if len(kept) >= count:
                            break
                return list(kept)
            return list(deque(self._through(content, want), maxlen=count))

    def whole(self, want: Wanted, *, skip: Callable[[Path], bool] = lambda _: False) -> Iterator[Entry]:
        """Every wanted record before the mark, oldest first, but of rotated files that are to be skipped."""
        for path in self._before():
            if not skip(path):
                with _opened(path) as content:
                    yield from self._through(content, want)
        if self._file is not None:
            self._file.seek(0)
            yield from self._through(_Until(self._file, self._mark), want)

    def _through(self, content: Readable, want: Wanted) -> Iterator[Entry]:
        for block in blocks(content, self._fault):
            for raw in block.split(b"\n"):
                if raw and (entry := self._wanted(raw, want)) is not None:
                    yield entry

    def _before(self) -> list[Path]:
        """Rotated files of before the open one. That may be rotated meanwhile: it is not read twice."""
        return [file for file in rotated_files(self._path) if number_of(self._path, file) < self._number]

    def _wanted(self, raw: bytes, want: Wanted) -> Entry | None:
        record = judge(raw)
        if isinstance(record, str):
            self._fault(record)
            return None
        return (raw, record) if want(record) else None

    def _fault(self, what: str) -> None:
        self.skipped[what] += 1

    # ---- what comes after it

    def follow(
        self, want: Wanted, *, stopped: Callable[[], bool] = lambda: False, poll: float = POLL_SECONDS
    ) -> Iterator[Entry]:
        """Wanted records as they come. A file that is rotated away is read to its end before the next one is opened."""
        while not stopped():
            lines = self._take()
            for raw in lines:
                if (entry := self._wanted(raw, want)) is not None:
                    yield entry
            if not lines:
                time.sleep(poll)

    def _take(self) -> list[bytes]:
        # Asked first, read second: what is written between the two is read with the file it went to.
        rotated = self._rotated()
        lines = self._read()
        if lines or not rotated:
            return lines
        # A reader that was held up (`| less`) may have missed whole files.
        least = self._number + (self._file is not None)
        self._close()
        self._file, self._number = self._open()
        self._mark = 0
        between = rotated_files(self._path)
        missed = [file for file in between if least <= number_of(self._path, file) < self._number]
        return [raw for file in missed for raw in _lines_of(file)] + self._read()

    def _read(self) -> list[bytes]:
        if self._file is None:
            return []
        try:
            if os.fstat(self._file.fileno()).st_size < self._mark:
                self._mark = 0  # emptied in place, as logrotate's copytruncate does
            self._file.seek(self._mark)
            data = self._file.read(MAX_LINE_BYTES)
        except OSError as error:
            raise unreadable(self._path, error) from error
        if len(data) == MAX_LINE_BYTES and b"\n" not in data:
            self._fault(f"a line is longer than {MAX_LINE_BYTES >> 20} MiB")
            self._mark += len(data)
            return []
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

    def _open(self) -> tuple[BinaryIO | None, int]:
        """The current file, and the number that it will have when it is rotated. A rotation between the two is seen."""
        while True:
            number = last_number(self._path) + 1
            try:
                file = self._path.open("rb")
            except FileNotFoundError:
                return None, number
            except OSError as error:
                raise unreadable(self._path, error) from error
            if last_number(self._path) + 1 == number:
                return file, number
            file.close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None


class _Until:
    """A file that ends at a mark, whatever is written to it meanwhile."""

    def __init__(self, file: BinaryIO, end: int) -> None:
        self._file, self._end = file, end

    def read(self, size: int, /) -> bytes:
        return self._file.read(max(0, min(size, self._end - self._file.tell())))


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A rotated file; one that was deleted since it was listed is empty."""
    try:
        file = opened(path)
    except FileNotFoundError:
        yield io.BytesIO()
        return
    except OSError as error:
        raise unreadable(path, error) from error
    with file:
        yield file


def _lines_of(path: Path) -> Iterator[bytes]:
    with _opened(path) as content:
        for block in blocks(content):
            yield from (raw for raw in block.split(b"\n") if raw)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


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
        if len(rest) > MAX_LINE_BYTES:
            return  # no log, whatever lies before
        yield from (entry for entry in reversed(lines) if entry)
    if rest:
        yield rest


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
    request, principal = map_of(record.get("request")), map_of(record.get("principal"))
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
    if folded := map_of(record.get("folded")):
        text.append(f"  {clean(folded.get('count'))} times until {_clock(folded.get('last_time'))}", "bold")
    total = map_of(record.get("timing_us")).get("total")
    if isinstance(total, int | float):
        text.append(f"  {total:g}µs", "dim")
    text.append(f"  {clean(record.get('decision_id'))}", "dim")


def _signals(text: Text, signals: object) -> None:
    for entry in signals if isinstance(signals, list) else []:
        signal = map_of(entry)
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


def clean(value: object) -> str:
    """Text without anything that a terminal obeys: escapes, line breaks, marks that turn the direction of text."""
    if value is None:
        return ""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in str(value))
