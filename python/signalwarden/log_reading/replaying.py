"""Recorded decisions, made again: blocks of a log go to the core on all processors, answers come back in their order.

The core lets go of the interpreter while it decides, so threads are enough.
"""

from __future__ import annotations

import os
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import orjson

from signalwarden import _core
from signalwarden.decision_log.judging import judge
from signalwarden.log_reading.records import Reader

__all__ = ["Block", "Change", "Decider", "Outcome", "Tally", "changes_json", "decider", "each", "outcome_of"]

Result = TypeVar("Result")
Question = Callable[[dict[str, Any]], bool]
Change = dict[str, Any]
"""`{"name", "drop": true}`, `{"name", "state": "stale"}` or `{"name", "value"}`."""


class Decider(Protocol):
    """The part of `_core.Replay` that decides."""

    def decide(self, lines: bytes, *, changes: bytes | None = None) -> bytes:
        """One JSON line for each line."""


def decider(configuration: _core.Configuration) -> Decider:
    """Of a directory."""
    return _core.Replay(configuration)


def changes_json(changes: Sequence[Change]) -> bytes:
    """As the core takes them."""
    return orjson.dumps(changes)


@dataclass(frozen=True, slots=True)
class Block:
    """A run of lines of one file that are wanted."""

    file: Path
    first: int
    """Number of the first line in its file; of the others, if none was left out."""
    lines: list[bytes]

    @property
    def text(self) -> bytes:
        """As the core takes them."""
        return b"\n".join(self.lines) + b"\n" if self.lines else b""


# ---- one answer -----------------------------------------------------------------------------------------------

_DECIDED: Final = re.compile(
    rb'"was":\{"outcome":"(\w+)","reason":"(\w+)"(,"enforced":false)?[^{}]*\},'
    rb'"now":\{"outcome":"(\w+)","reason":"(\w+)"(,"enforced":false)?'
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended: `allow`, `deny`, or `pass` where a denial is let pass."""

    outcome: str
    reason: str

    @property
    def lets_in(self) -> bool:
        return self.outcome != "deny"


def outcome_of(answer: bytes) -> tuple[Outcome, Outcome] | None:
    """Then and now, of an answer that is a decision. Most are the same twice: their JSON is not read."""
    found = _DECIDED.search(answer)
    if found is None:
        return None
    was, why, was_let, now, why_now, now_let = found.groups()
    return (
        Outcome("pass" if was_let else was.decode(), why.decode()),
        Outcome("pass" if now_let else now.decode(), why_now.decode()),
    )


@dataclass(slots=True)
class Tally:
    """What became of lines that were not decided again."""

    decided: int = 0
    undecidable: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    bad: Counter[str] = field(default_factory=Counter)

    def other(self, answer: bytes) -> None:
        """Counts an answer that is no decision."""
        said = orjson.loads(answer)
        for word, counts in (("undecidable", self.undecidable), ("skipped", self.skipped), ("bad", self.bad)):
            if word in said:
                counts[str(said[word])] += 1
                return
        self.bad["an answer of the core that is not understood"] += 1

    def add(self, other: Tally) -> None:
        """Takes another one in."""
        self.decided += other.decided
        self.undecidable.update(other.undecidable)
        self.skipped.update(other.skipped)
        self.bad.update(other.bad)

    def none_decided(self) -> str | None:
        """One sentence, where there were decisions and none could be made again."""
        total = self.undecidable.total()
        if self.decided or not total:
            return None
        why, count = self.undecidable.most_common(1)[0]
        return f"none of {total} decisions could be made again; of {count}: {why}"

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "decided": self.decided,
            "undecidable": dict(self.undecidable.most_common()),
            "skipped": dict(self.skipped),
            "bad": dict(self.bad),
        }


# ---- all of them ----------------------------------------------------------------------------------------------


def each(
    reader: Reader, want: Question | None, work: Callable[[Block], Result], jobs: int | None = None
) -> Iterator[Result]:
    """The work on each block, in order. `want` is None for every line."""
    jobs = jobs or os.cpu_count() or 1
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(jobs, thread_name_prefix="replay") as pool:
        try:
            for block in _blocks(reader, want):
                waiting.append(pool.submit(work, block))
                if len(waiting) > 2 * jobs:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _blocks(reader: Reader, want: Question | None) -> Iterator[Block]:
    """Lines that are records and wanted. What is none is named by the reader."""
    for file, first, text in reader.blocks():
        lines: list[bytes] = []
        for number, raw in enumerate(text.split(b"\n"), first):
            if not raw:
                continue
            # Every line of ours begins so; whatever else is looked at closely.
            if want is None and raw.startswith(b'{"v":1,"kind":"') and raw.endswith(b"}"):
                lines.append(raw)
                reader.read += 1
                continue
            record = judge(raw)
            if isinstance(record, str):
                reader.faults.add(file, number, record)
                continue
            reader.read += 1
            if want is None or want(record):
                lines.append(raw)
        if lines:
            yield Block(file, first, lines)
    reader.finish()
