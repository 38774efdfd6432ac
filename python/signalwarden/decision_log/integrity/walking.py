"""Lines of a log held against the leaves of its tree: where the two differ, and what was done to the lines there.

Each line has a hash of its own, since it holds an id. So where lines and leaves part, the nearest pair that agrees
again tells what lies between: lines that the tree does not know were changed or put in, leaves without a line were
taken out, and a line that stands where another should is out of its place.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Final, NamedTuple

import orjson

from signalwarden.decision_log.integrity.merkle import HASH_BYTES
from signalwarden.decision_log.integrity.tiles import WIDTH, TileError, Tiles, split

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["MAX_FINDINGS", "Finding", "Gone", "Walk"]

LOOK: Final = 4_096
"""Lines that are looked ahead for a pair that agrees again."""
FAR_LOOK: Final = 1 << 16
"""And at most, where there is none: then the whole tree is searched for the next lines."""
SEARCHED_TILES: Final = 400_000
"""Lines that belong elsewhere are searched for in the whole tree, in so many tiles altogether: some seconds. A log that
needs more is another log."""
PROBES: Final = 8
MAX_FINDINGS: Final = 1_000
"""That are told one by one; the rest is counted."""
NO_LEAF: Final = bytes(HASH_BYTES)
ID: Final = re.compile(rb'"(?:decision_id|change_id|event_id)":"([0-9a-f-]{36})"')


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong."""

    kind: str
    file: str
    line: int
    """From 1; 0: the whole file."""
    record: int | None
    """Index in the tree, from 0."""
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.kind.replace('_', ' ')}: {self.message}"


@dataclass(slots=True)
class Gone:
    """Leaves without a line: from `first` up to `end`, missing after that line."""

    first: int
    end: int
    file: str
    line: int


class _Seen(NamedTuple):
    """A line that did not agree yet."""

    hash: bytes
    file: str
    line: int
    raw: bytes


def _who(raw: bytes) -> str:
    """Words for a line that was changed."""
    try:
        is_record = isinstance(orjson.loads(raw), dict)
    except orjson.JSONDecodeError:
        is_record = False
    found = ID.search(raw)
    name = f", it says id {found[1].decode()}" if found else ""
    return name if is_record else f"{name}, it is not JSON any more"


@dataclass(slots=True)
class Walk:
    """Goes along the lines of one tree. `lines` in the order of the log, then `end`."""

    tiles: Tiles
    blind: set[int] = field(default_factory=set)
    """Lowest tiles that are missing or damaged: what they stand for can't be held against them."""
    at: int = 0
    """The next leaf."""
    begun_at: int = 0
    """The first one."""
    findings: list[Finding] = field(default_factory=list)
    more: int = 0
    """Findings beyond those that are told."""
    gone: list[Gone] = field(default_factory=list)
    agreed: int = 0
    unsealed: int = 0
    """Lines behind the end of the tree."""
    unchecked: int = 0
    _early: set[int] = field(default_factory=set)
    """Leaves whose line stood before its place."""
    _waiting: list[_Seen] = field(default_factory=list)
    _file: str = ""
    _line: int = 0
    _budget: int = SEARCHED_TILES

    def begin_at(self, leaf: int, file: str) -> None:
        """Where the first line stands."""
        self.at = self.begun_at = leaf
        self._file, self._line = file, 0

    # ---- lines that agree, which is nearly all of them

    def lines(self, file: str, number: int, lines: Sequence[bytes]) -> None:
        """The next lines of a file; `number`: of the first of them."""
        hashes = [sha256(b"\x00" + line).digest() for line in lines]
        start = 0
        if not self._waiting:
            start = self._agreeing(hashes)
            self.at += start
            self.agreed += start
            if start:
                self._file, self._line = file, number + start - 1
        if start < len(lines):
            rest = zip(hashes[start:], range(number + start, number + len(lines)), lines[start:], strict=True)
            self._waiting += [_Seen(digest, file, line, raw) for digest, line, raw in rest]
            self._settle(self.tiles.size, last=False)

    def _agreeing(self, hashes: list[bytes]) -> int:
        """How many of these are the next leaves."""
        end = min(self.at + len(hashes), self.tiles.size)
        count = end - self.at
        if not self.blind and not self._early:
            with contextlib.suppress(TileError):
                if b"".join(hashes[:count]) == self.tiles.leaves(self.at, end):
                    return count
        pairs = zip(hashes, self._leaves(self.at, end), strict=False)
        return next((n for n, (mine, theirs) in enumerate(pairs) if mine != theirs), count)

    def _leaves(self, start: int, end: int) -> list[bytes]:
        """Of the tree; where a tile is blind, what no line has."""
        try:
            if not self.blind:
                return split(self.tiles.leaves(start, end))
        except TileError:
            pass
        found = []
        for number in range(start // WIDTH, -(-end // WIDTH)):
            first = number * WIDTH
            low, high = max(start, first), min(end, first + WIDTH)
            try:
                content = b"" if number in self.blind else self.tiles.leaves(low, high)
            except TileError:
                self.blind.add(number)
                content = b""
            found += split(content) if content else [NO_LEAF] * (high - low)
        return found

    # ---- where they part

    def boundary(self, first: int) -> None:
        """The next file begins with this leaf: what waits is settled, and what is missing is missing before it."""
        self._settle(first, last=True)
        self._lack(self.at, first)
        self.at = first

    def end(self) -> None:
        """There are no more lines."""
        self._settle(self.tiles.size, last=True)
        self._lack(self.at, self.tiles.size)
        self.at = self.tiles.size

    def _settle(self, limit: int, *, last: bool) -> None:
        while self._waiting:
            self._match(limit)
            waiting = self._waiting
            if not waiting:
                return
            if self.at >= limit and limit == self.tiles.size:
                # What was taken out may stand here.
                behind = [seen for seen in waiting if not (self.gone and self._out_of_place(seen))]
                self.unsealed += len(behind)
                waiting.clear()
                return
            if not last and len(waiting) < LOOK:
                return
            anchor = self._anchor(limit)
            if anchor is None and not last and len(waiting) < FAR_LOOK:
                return
            if anchor is None:
                anchor = self._far_anchor(limit) or (len(waiting), limit if last else self.at)
            lines, leaf = anchor
            self._part(waiting[:lines], leaf, at_end=last and leaf == limit == self.tiles.size)
            del waiting[:lines]

    def _match(self, limit: int) -> None:
        count = 0
        expected = self._leaves(self.at, min(limit, self.at + len(self._waiting)))
        start, n = self.at, 0
        while count < len(self._waiting) and self.at < limit:
            if self.at in self._early:
                self._early.discard(self.at)
                self.at += 1
                continue
            n = self.at - start
            leaf = expected[n] if n < len(expected) else self._leaves(self.at, self.at + 1)[0]
            if self._waiting[count].hash != leaf:
                break
            self._file, self._line = self._waiting[count].file, self._waiting[count].line
            self.at += 1
            self.agreed += 1
            count += 1
        del self._waiting[:count]

    def _anchor(self, limit: int) -> tuple[int, int] | None:
        """The nearest pair of a line and a leaf that agree: how many lines before it, and which leaf."""
        reach = max(LOOK, len(self._waiting))
        leaves = self._leaves(self.at, min(limit, self.at + reach))
        position = {
            leaf: n for n, leaf in enumerate(leaves) if leaf != NO_LEAF and self.at + n not in self._early
        }
        costs = (
            (n + position[seen.hash], n) for n, seen in enumerate(self._waiting) if seen.hash in position
        )
        cost, lines = min(costs, default=(0, -1))
        return None if lines < 0 else (lines, self.at + cost - lines)

    def _far_anchor(self, limit: int) -> tuple[int, int] | None:
        for n, seen in enumerate(self._waiting[:PROBES]):
            index = self._search(seen.hash, self.at)
            if index is not None and index < limit:
                return n, index
        return None

    def _search(self, digest: bytes, start: int) -> int | None:
        if self._budget <= 0:
            return None
        self._budget -= (self.tiles.size - start) // WIDTH + 1
        index = self.tiles.find(digest, start)
        return None if index is None or index // WIDTH in self.blind else index

    def _part(self, lines: list[_Seen], leaf: int, *, at_end: bool) -> None:
        """What lies before the next pair that agrees."""
        if (
            lines
            and len(lines) == leaf - self.at
            and {n // WIDTH for n in range(self.at, leaf)} <= self.blind
        ):
            self.unchecked += len(lines)
            self._file, self._line, self.at = lines[-1].file, lines[-1].line, leaf
            return
        strange = [seen for seen in lines if not self._out_of_place(seen)]
        lacking = [index for index in range(self.at, leaf) if index not in self._early] if strange else []
        for seen, index in zip(strange, lacking, strict=False):
            self._file, self._line = seen.file, seen.line
            if index // WIDTH in self.blind:
                self.unchecked += 1
            else:
                message = f"record {index} is not what was signed{_who(seen.raw)}"
                self._tell("changed", seen.file, seen.line, index, message)
        paired = min(len(strange), len(lacking))
        extra = strange[paired:]
        if at_end:
            self.unsealed += len(extra)
        else:
            for first, last in _runs(extra):
                what = "this line was" if first is last else f"lines {first.line} to {last.line} were"
                self._tell(
                    "inserted", first.file, first.line, None, f"{what} never written here{_who(first.raw)}"
                )
        rest = [self.at, *lacking, leaf][paired if not paired else min(paired, len(lacking)) + 1]
        self._early -= {index for index in self._early if self.at <= index < rest}
        self._lack(rest, leaf)
        self.at = leaf

    def _out_of_place(self, seen: _Seen) -> bool:
        """Tells of a line that the tree knows elsewhere."""
        index = self._search(seen.hash, 0)
        if index is None:
            return False
        missing = next((gone for gone in self.gone if gone.first <= index < gone.end), None)
        if index >= self.at:
            self._early.add(index)
        elif missing is not None:
            self.gone.remove(missing)
            halves = ((missing.first, index), (index + 1, missing.end))
            self.gone += [Gone(a, b, missing.file, missing.line) for a, b in halves if a < b]
        else:
            self._tell(
                "inserted",
                seen.file,
                seen.line,
                index,
                f"a copy of record {index}, which stands in its place",
            )
            return True
        self._tell("moved", seen.file, seen.line, index, f"record {index} stands out of order")
        return True

    def _lack(self, first: int, end: int) -> None:
        """Leaves that have no line here, but those whose line stood before."""
        early = sorted(index for index in self._early if first <= index < end)
        self._early.difference_update(early)
        for stop in [*early, end]:
            if first < stop:
                self.gone.append(Gone(first, stop, self._file, self._line))
            first = stop + 1

    def _tell(self, kind: str, file: str, line: int, record: int | None, message: str) -> None:
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(kind, file, line, record, message))
        else:
            self.more += 1


def _runs(lines: Iterable[_Seen]) -> list[tuple[_Seen, _Seen]]:
    """First and last of neighbouring lines."""
    runs: list[tuple[_Seen, _Seen]] = []
    for seen in lines:
        if runs and runs[-1][1].file == seen.file and runs[-1][1].line + 1 == seen.line:
            runs[-1] = (runs[-1][0], seen)
        else:
            runs.append((seen, seen))
    return runs
