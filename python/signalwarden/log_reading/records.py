"""Every record of some files, oldest first: with what was no record counted and named, and how far it is told."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from signalwarden.decision_log.judging import judge
from signalwarden.decision_log.logfiles import blocks, opened, position, unreadable
from signalwarden.errors import BadInputError, LogError

__all__ = ["Entry", "Faults", "Found", "Reader", "find", "id_prefix", "time_of_id"]

MAX_NAMED: Final = 5
"""Bad lines that are named by file and line; the others are counted."""
MAX_MATCHES: Final = 5
"""Ids that are named where a prefix has several."""
MAX_RELATED: Final = 20
MIN_PREFIX: Final = 4
MAX_RECORD_BYTES: Final = 16 << 20

Progress = Callable[[int], None]


@dataclass(slots=True)
class Faults:
    """Lines that are no records."""

    counts: Counter[str] = field(default_factory=Counter)
    named: list[dict[str, Any]] = field(default_factory=list)
    """The first ones: `file`, `line`, `what`."""

    def add(self, file: Path, line: int, what: str) -> None:
        """One more."""
        self.counts[what] += 1
        if len(self.named) < MAX_NAMED:
            self.named.append({"file": str(file), "line": line, "what": what})

    @property
    def total(self) -> int:
        """How many there are."""
        return self.counts.total()

    def sentences(self) -> Iterator[str]:
        """One for each kind of fault, with the first place of it."""
        for what, count in sorted(self.counts.items()):
            at = next((one for one in self.named if one["what"] == what), None)
            place = f", the first at {at['file']}:{at['line']}" if at else ""
            yield f"skipped {count} line{'' if count == 1 else 's'}: {what}{place}"

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {"count": self.total, "by": dict(sorted(self.counts.items())), "first": self.named}


@dataclass(frozen=True, slots=True)
class Entry:
    """A record, as it was written and as it was read, and where."""

    raw: bytes
    record: dict[str, Any]
    file: Path
    line: int


class Reader:
    """Reads files of a log one after the other, a block at a time. Raises LogError for a file that holds lines and no
    record among them: that is another file."""

    def __init__(self, files: Sequence[Path], progress: Progress = lambda _: None) -> None:
        self._files = list(files)
        self._progress = progress
        self.faults = Faults()
        self.read = 0
        """Records that were read."""

    @property
    def size(self) -> int:
        """Bytes on the disk, as `progress` is told of them."""
        return sum(file.stat().st_size for file in self._files if file.exists())

    def entries(self) -> Iterator[Entry]:
        """Each record."""
        for file, first, block in self.blocks():
            for number, raw in enumerate(block.split(b"\n"), first):
                if not raw:
                    continue
                record = judge(raw)
                if isinstance(record, str):
                    self.faults.add(file, number, record)
                    continue
                self.read += 1
                yield Entry(raw, record, file, number)
        self.finish()

    def blocks(self) -> Iterator[tuple[Path, int, bytes]]:
        """Runs of whole lines, each with its file and the number of its first line."""
        for file in self._files:
            line = 1

            def fault(what: str, file: Path = file) -> None:
                self.faults.add(file, line, what)  # noqa: B023 - as far as it is read by now

            try:
                content = opened(file)
            except FileNotFoundError:
                continue  # deleted since it was listed
            except OSError as error:
                raise unreadable(file, error) from error
            with content:
                at = 0
                for block in blocks(content, fault):
                    yield file, line, block
                    line += block.count(b"\n")
                    now = position(content)
                    self._progress(now - at)
                    at = now
                self._progress(position(content) - at)

    def look_foreign(self) -> None:
        """Raises LogError if the first line of all is no record: then nothing was to be found there."""
        for file, line, block in self.blocks():
            if isinstance(what := judge(block.partition(b"\n")[0]), str):
                raise LogError(f"`{file}` is no decision log: line {line} is {what}")
            return

    def finish(self) -> None:
        """At the end: were there any records?"""
        if self.read == 0 and self.faults.total:
            first = self.faults.named[0]
            raise LogError(
                f"`{first['file']}` is no decision log: line {first['line']} is {_a(first['what'])}"
            )


def _a(what: str) -> str:
    return what.removeprefix("a line is ") if what.startswith("a line is ") else what


# ---- one record by its id -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """The record of an id, and others that name it, such as the use of an approval."""

    entry: Entry
    related: list[dict[str, Any]]


def time_of_id(prefix: str) -> int:
    """Microseconds of the earliest id (UUIDv7) that begins so."""
    return int(prefix.replace("-", "")[:12].ljust(12, "0"), 16) * 1_000


def id_prefix(text: str) -> str:
    """The beginning of an id. Raises BadInputError for what begins none."""
    prefix = text.lower()
    if re.fullmatch(r"[0-9a-f][0-9a-f-]{0,35}", prefix) is None or len(prefix) < MIN_PREFIX:
        raise BadInputError(
            f"`{text}` is no id of a record: expected a UUID such as `01a20d2e-e225-7eba-82f3-6812fbaf3409`, or at "
            f"least {MIN_PREFIX} characters of its beginning"
        )
    return prefix


def find(reader: Reader, prefix: str) -> Found:
    """The record whose id begins so. Raises BadInputError where there is none, and where there are several."""
    matches: dict[str, Entry] = {}
    related: list[dict[str, Any]] = []
    for entry in _naming(reader, prefix):
        own = next((own for own in _own_ids(entry.record) if own.startswith(prefix)), None)
        if own is not None:
            matches.setdefault(own, entry)
        elif len(related) < MAX_RELATED:
            related.append(entry.record)
    if len(matches) > 1:
        shown = ", ".join(f"`{own}`" for own in [*matches][:MAX_MATCHES])
        more = f" and {len(matches) - MAX_MATCHES} more" if len(matches) > MAX_MATCHES else ""
        raise BadInputError(f"`{prefix}` begins several ids: {shown}{more}; give more of it")
    if not matches:
        reader.look_foreign()
        raise BadInputError(_nowhere(prefix, related))
    (entry,) = matches.values()
    return Found(entry, related)


_ID: Final = {"decision": "decision_id", "change": "change_id", "transport": "event_id"}


def _own_ids(record: dict[str, Any]) -> list[str]:
    """The id of a record, and of a folded one that of the last decision that it stands for."""
    folded = record.get("folded")
    ids = [record.get(_ID[record["kind"]]), folded.get("last_id") if isinstance(folded, dict) else None]
    return [own for own in ids if isinstance(own, str)]


def _naming(reader: Reader, prefix: str) -> Iterator[Entry]:
    """Records that hold a text that begins so. Lines are looked at as bytes first: that is a hundred times faster."""
    needle = b'"' + prefix.encode()
    for file, first, block in reader.blocks():
        if needle not in block:
            continue
        for number, raw in enumerate(block.split(b"\n"), first):
            if needle in raw and isinstance(record := judge(raw), dict):
                yield Entry(raw, record, file, number)


def _nowhere(prefix: str, related: Sequence[dict[str, Any]]) -> str:
    if related:
        one = related[0]
        what = one.get(one["kind"]) if one["kind"] != "decision" else "decision"
        own = next(iter(_own_ids(one)), "-")
        return f"no record has an id that begins with `{prefix}`; others name it, such as the {what} `{own}`"
    return (
        f"no record of the log has an id that begins with `{prefix}`: it may be older than what is kept, of another "
        "server, or of a decision without one: `log_unavailable`, or folded into a record like it"
    )
