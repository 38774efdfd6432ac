"""Whether a log is what was written: signatures, the tree, earlier checkpoints, then every line that is still there."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar

from signalwarden.decision_log.integrity import places
from signalwarden.decision_log.integrity.log_keys import Trust, handovers_of, read_last
from signalwarden.decision_log.integrity.merkle import consistency, fold, is_consistent, leaf_hash
from signalwarden.decision_log.integrity.notes import Checkpoint, Note
from signalwarden.decision_log.integrity.tiles import HEIGHT, WIDTH, TileError, Tiles, split, tile_path
from signalwarden.decision_log.integrity.walking import MAX_FINDINGS, Finding, Gone, Walk
from signalwarden.decision_log.logfiles import (
    COMPRESSED,
    last_number,
    log_files,
    number_of,
    opened,
    rotated_files,
)
from signalwarden.errors import BadInputError, LogError
from signalwarden.files import why

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from signalwarden.decision_log.integrity.notes import Verifier
    from signalwarden.decision_log.integrity.places import Begin, Head, Span

__all__ = ["Report", "TreeReport", "bytes_of", "claims_of", "verify"]

BLOCK_BYTES: Final = 1 << 20
MAX_LINE_BYTES: Final = 64 << 20
NAMES_SAID: Final = 3
EARLIER_HELD: Final = 256
"""Earlier checkpoints that are held against the tree, evenly over its time: about a millisecond each."""
Place = TypeVar("Place")
LOOKED_AT: Final = 64
"""Lines of a file that are searched for, to know which records it begins with."""


@dataclass(slots=True)
class TreeReport:
    """One tree of a log."""

    origin: str
    size: int
    """Records that its checkpoint signs."""
    key: str | None
    """Who signed it; None if nobody who counts."""
    agreed: int = 0
    """Lines that are what was signed."""
    unsealed: int = 0
    """Lines behind the checkpoint: no signature covers them yet."""
    unchecked: int = 0
    """Lines whose tile is damaged."""
    pruned: list[tuple[int, int]] = field(default_factory=list)
    """Records whose files are gone, first and last: the tree still has their hashes."""


@dataclass(slots=True)
class Report:
    """What was found."""

    trees: list[TreeReport] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    more: int = 0
    notes: list[str] = field(default_factory=list)
    """What is worth knowing and not wrong."""
    files: int = 0
    lines: int = 0
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Nothing is wrong."""
        return not self.findings and not self.more

    def document(self) -> dict[str, Any]:
        """For programs."""
        rate = round(self.lines / self.seconds) if self.seconds else None
        return {"good": self.good, **asdict(self), "lines_per_second": rate}


def verify(
    path: Path,
    *,
    name: str,
    given: Sequence[Verifier],
    older: Sequence[tuple[str, bytes]] = (),
    progress: Callable[[int], None] = lambda _read: None,
) -> Report:
    """Holds a log against its trees. `given`: keys that count; `older`: earlier checkpoints, and where each is from;
    `progress` is told of bytes on the disk that were read. Raises LogError for what can't be read, and BadInputError
    for an older checkpoint that is none."""
    began = time.monotonic()
    directory = places.tree_directory(path)
    numbers = places.epochs(directory)
    if not numbers:
        raise LogError(f"the log `{path}` has no tree: `{directory}` is missing or empty")
    report = Report()
    handovers, bad = handovers_of(directory)
    report.findings += [Finding("key", directory.name, 0, None, text) for text in bad]
    trust = Trust(name, given, handovers)
    claims = [_older(trust, source, content) for source, content in older]
    walks = []
    for number in numbers:
        tree = _Tree(directory / str(number), number, report, trust, name)
        tree.check()
        walks.append(tree)
    _forks(report, walks, claims)
    with _Files(path) as files:
        report.files = len(files.names)
        _lines(files, walks, report, progress)
    for tree, later in zip(walks, [*walks[1:], None], strict=True):
        # The oldest files are pruned first: where a later tree has its beginning, the end of this one is there, too.
        tree.conclude(path.name, ends_here=later is None or later.walk.begun_at == 0)
    order = {file: n for n, file in enumerate(files.names)}
    report.findings.sort(key=lambda finding: (order.get(finding.file, -1), finding.line))
    report.more += max(0, len(report.findings) - MAX_FINDINGS)
    del report.findings[MAX_FINDINGS:]
    report.seconds = time.monotonic() - began
    return report


def _older(trust: Trust, source: str, content: bytes) -> tuple[str, Checkpoint]:
    try:
        checkpoint, _ = trust.opened(content)
    except BadInputError as error:
        raise BadInputError(f"`{source}`: {error}") from error
    return source, checkpoint


# ---------------------------------------------------------------- the tree itself


class _Tree:
    """One tree, what is said of it, and the walk along its lines."""

    def __init__(self, folder: Path, number: int, report: Report, trust: Trust, name: str) -> None:
        self.folder = folder
        self.number = number
        self.report = report
        self._trust = trust
        self._name = name
        self.checkpoint, key = self._opened()
        self.tiles = Tiles(folder, self.checkpoint.size)
        self.said = TreeReport(self.checkpoint.origin, self.checkpoint.size, key)
        report.trees.append(self.said)
        self._head: Head | None = self._place(places.read_head, places.HEAD, needed=self.checkpoint.size > 0)
        self.begin: Begin | None = self._place(places.read_begin, places.BEGIN, needed=number > 1)
        self.spans = places.read_spans(folder)
        self.firsts, self.starts = self._known_firsts()
        self.walk = Walk(self.tiles)
        self.damaged: set[str] = set()
        """Tiles that are not what they must be."""
        self._lost: list[TileError] = []
        self.started = False

    def wrong(self, kind: str, message: str, file: str | None = None) -> None:
        """Something that is no line's."""
        place = file or f"{self.folder.parent.name}/{self.folder.name}/{places.CHECKPOINT}"
        self.report.findings.append(Finding(kind, place, 0, None, message))

    def _opened(self) -> tuple[Checkpoint, str | None]:
        content = places.read_checkpoint(self.folder)
        origin = self._name if self.number == 1 else f"{self._name}/{self.number}"
        if content is None:
            if (self.folder / places.HEAD).exists():
                self.wrong("signature", "the checkpoint is missing")
            return Checkpoint(origin, 0, fold([])), None
        try:
            checkpoint, key = self._trust.opened(content)
        except BadInputError as error:
            self.wrong("signature", str(error))
            with contextlib.suppress(BadInputError):
                return Checkpoint.parse(Note.parse(content).text), None
            return Checkpoint(origin, 0, fold([])), None
        if checkpoint.origin != origin:
            self.wrong("signature", f"the checkpoint is of `{checkpoint.origin}`, expected `{origin}`")
        return checkpoint, key.short

    def _place(self, read: Callable[[Path], Place | None], file: str, *, needed: bool) -> Place | None:
        """What says where to look: whether it is there, and can be read."""
        try:
            found = read(self.folder)
            why_not = "is missing" if found is None and needed else None
        except LogError:
            found, why_not = None, "is damaged"
        if why_not is not None:
            where = f"{self.folder.parent.name}/{self.folder.name}/{file}"
            self.wrong("map", f"it {why_not}, and says which records stand where", where)
        return found

    def _known_firsts(self) -> tuple[dict[str, int], set[int]]:
        """Files by their first line, and the record that it is; and all such records."""
        known: list[Span | Head] = [*self.spans, *([self._head] if self._head is not None else [])]
        found = {place.digest: place.first for place in known if 0 <= place.first < self.tiles.size}
        return found, {0, *(place.first for place in known if place.first > 0)}

    def check(self) -> None:
        """The tree is whole, and the one that was signed."""
        tiles, root = self.tiles, self.checkpoint.root
        if not tiles.size:
            return
        rows = self._rows()
        if fold(rows[0]) == root:
            self._upper(rows, trusted=True)
            return
        self.walk.blind |= self._upper(rows, trusted=False)
        with contextlib.suppress(TileError):
            if tiles.root() == root and self.walk.blind:
                return
        self._forged()

    def _rows(self) -> list[list[bytes]]:
        """For each level: what its tiles hash to, a missing tile as the level above says."""
        rows: list[list[bytes]] = []
        for level, number in self.tiles.levels():
            if level == len(rows):
                rows.append([])
            try:
                rows[level].append(fold(split(self.tiles.tile(level, number))))
            except TileError as error:
                self._missing(level, number, error)
                above = b""
                with contextlib.suppress(TileError, IndexError):
                    above = split(self.tiles.tile(level + 1, number // WIDTH))[number % WIDTH]
                rows[level].append(above)
        return rows

    def _missing(self, level: int, number: int, error: TileError) -> None:
        if level == 0:
            self.walk.blind.add(number)
        self._lost.append(error)
        self.damaged.add(error.path.relative_to(self.folder.parent.parent).as_posix())

    def _tell_lost(self) -> None:
        """Tiles that are missing or cut, but those of records whose files are gone: the level above has their hash."""
        pruned = self.walk.begun_at
        for error in self._lost:
            if error.end <= pruned and error.end - error.start == WIDTH:
                continue
            relative = error.path.relative_to(self.folder.parent.parent).as_posix()
            self.wrong("tile", f"{error.what}, of records {error.start} to {error.end - 1}", relative)

    def _upper(self, rows: list[list[bytes]], *, trusted: bool) -> set[int]:
        """Tiles that do not fit together; the lowest ones of them."""
        blind = set()
        for level in range(len(rows) - 1):
            for number, mine in enumerate(rows[level][: self.tiles.size >> HEIGHT * (level + 1)]):
                with contextlib.suppress(TileError):
                    above = self.tiles.tile(level + 1, number // WIDTH)
                    if split(above)[number % WIDTH] != mine:
                        row, at = (level + 1, number // WIDTH) if trusted else (level, number)
                        where = self.folder / tile_path((row, at, self.tiles.width(row, at)))
                        relative = where.relative_to(self.folder.parent.parent).as_posix()
                        if relative not in self.damaged:
                            self.damaged.add(relative)
                            self.wrong("tile", "its hashes are not what the tree has there", relative)
                        if level == 0 and not trusted:
                            blind.add(number)
        return blind

    def _forged(self) -> None:
        """The tree is another than was signed: between which records, as far as earlier checkpoints tell."""
        last_good, first_bad = 0, self.checkpoint.size
        for older in self.earlier():
            with contextlib.suppress(TileError):
                if older.size <= self.checkpoint.size and self.tiles.root(older.size) == older.root:
                    last_good = max(last_good, older.size)
                else:
                    first_bad = min(first_bad, older.size)
        self.wrong(
            "forged",
            f"the tree is not the one that was signed: records {last_good} to {max(first_bad, 1) - 1} "
            "were changed together with their hashes, or lines of them put in or taken out",
        )

    def earlier(self) -> Iterator[Checkpoint]:
        """Checkpoints of this tree that were kept, and count."""
        for content in places.history(self.folder):
            with contextlib.suppress(BadInputError):
                older, _ = self._trust.opened(content)
                if older.origin == self.checkpoint.origin:
                    yield older

    # ---- lines

    def start(self, file: str, digest: str, head: Sequence[bytes]) -> bool:
        """The first lines that are there for this tree; False if it knows none of them."""
        first: int | None = self.firsts.get(digest)
        if not self.tiles.size or (self.begin is not None and self.begin.digest == digest):
            first = 0
        if first is None:
            found = (self.tiles.find(leaf_hash(line)) for line in head[:LOOKED_AT])
            first = next((index for index in found if index is not None), None)
        if first is None:
            return False
        self.started = True
        # Whole files are pruned: what is missing of one that is there was taken out of it.
        self.walk.begin_at(max(start for start in self.starts if start <= first), file)
        if self.walk.at:
            self.said.pruned.append((0, self.walk.at - 1))
        return True

    def conclude(self, file: str, *, ends_here: bool) -> None:
        """After the last line: what is missing is named."""
        if not self.started and self.tiles.size:
            # The last file is never pruned, those before it may be.
            self.walk.begin_at(max(self.starts) if ends_here else self.tiles.size, file)
            if self.walk.at:
                self.said.pruned.append((0, self.walk.at - 1))
        walk = self.walk
        walk.end()
        self._tell_lost()
        for gone in walk.gone:
            self.report.findings.append(self._gone(gone))
        self.report.findings += walk.findings
        self.report.more += walk.more
        self.said.agreed, self.said.unsealed = walk.agreed, walk.unsealed
        self.said.unchecked = walk.unchecked

    def _gone(self, gone: Gone) -> Finding:
        count = gone.end - gone.first
        what = f"record {gone.first} is" if count == 1 else f"records {gone.first} to {gone.end - 1} are"
        whole = [span for span in self.spans if gone.first <= span.first < span.end <= gone.end]
        if whole and whole[0].first == gone.first and whole[-1].end == gone.end:
            names = _names(whole)
            return Finding(
                "missing_file", names, 0, gone.first, f"{what} missing with it, and later ones are there"
            )
        if gone.end == self.tiles.size:
            return Finding(
                "truncated", gone.file, gone.line, gone.first, f"{what} missing after this line, the end"
            )
        return Finding("removed", gone.file, gone.line, gone.first, f"{what} missing after this line")


def _names(spans: Sequence[Span]) -> str:
    names = [span.file or "a file that was moved away" for span in spans]
    more = f" and {len(names) - NAMES_SAID} more" if len(names) > NAMES_SAID else ""
    return ", ".join(names[:NAMES_SAID]) + more


def _forks(report: Report, trees: Sequence[_Tree], claims: Sequence[tuple[str, Checkpoint]]) -> None:
    """Every earlier checkpoint is the beginning of the tree that is there now."""
    by_origin = {tree.checkpoint.origin: tree for tree in trees}
    for source, older in claims:
        tree = by_origin.get(older.origin)
        if tree is None:
            text = f"there is no tree `{older.origin}`, of which {older.size} records were signed"
            report.findings.append(Finding("forked", source, 0, None, text))
        else:
            _prefix(tree, source, older)
    for tree in trees:
        where = f"{tree.folder.parent.name}/{tree.folder.name}/{places.HISTORY}"
        earlier = list(tree.earlier())
        for older in earlier[:: len(earlier) // EARLIER_HELD + 1]:
            if any(finding.kind in ("forged", "forked") for finding in report.findings):
                break
            _prefix(tree, where, older)


def _prefix(tree: _Tree, source: str, older: Checkpoint) -> None:
    now = tree.checkpoint
    if older.size > now.size:
        text = f"{older.size} records were signed, and the tree has {now.size}: it was put back to an older state"
        tree.wrong("rolled_back", text, source)
        return
    try:
        path = consistency(older.size, now.size, tree.tiles.node)
    except TileError:
        tree.report.notes.append(f"not held against {source}, at {older.size} records: tiles are missing")
        return
    if is_consistent(older.size, now.size, older.root, now.root, path):
        return
    if tree.damaged:
        tree.report.notes.append(f"not held against {source}: tiles are damaged")
    else:
        text = f"the checkpoint at {older.size} records is not the beginning of the log that is there: it was forked"
        tree.wrong("forked", text, source)


# ---------------------------------------------------------------- the lines


class _Files(contextlib.ExitStack):
    """The files of a log, oldest first, as far as they went when this began."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self.paths: list[Path] = []
        self.current: BinaryIO | None = None
        self.end = 0
        while True:
            self.paths = rotated_files(path)
            try:
                self.current = opened(path)
            except FileNotFoundError:
                self.current = None
            except OSError as error:
                raise LogError(f"`{path}` can't be read: {why(error)}") from error
            if last_number(path) == (number_of(path, self.paths[-1]) if self.paths else 0):
                break
            if self.current is not None:
                self.current.close()
        if self.current is not None:
            self.enter_context(self.current)
            self.end = os.fstat(self.current.fileno()).st_size
            self.paths.append(path)
        self.names = [_plain(file) for file in self.paths]

    def size(self, file: Path) -> int:
        if file == self._path:
            return self.end
        with contextlib.suppress(OSError):
            return file.stat().st_size
        return 0

    def read(self, file: Path) -> Iterator[bytes]:
        """Its bytes. Raises FileNotFoundError for one that was pruned since, OSError for a damaged one."""
        if file == self._path and self.current is not None:
            left = self.end
            while left and (block := self.current.read(min(BLOCK_BYTES, left))):
                left -= len(block)
                yield block
            return
        with opened(file) as content:
            while block := content.read(BLOCK_BYTES):
                yield block


def _plain(file: Path) -> str:
    return file.name.removesuffix(COMPRESSED)


def _lines(files: _Files, trees: Sequence[_Tree], report: Report, progress: Callable[[int], None]) -> None:
    """Leads each tree's walk along the lines that are its."""
    guide = _Guide(trees, report)
    for file in files.paths:
        name, number, rest = _plain(file), 1, b""
        packed = file.name.endswith(COMPRESSED)
        try:
            for block in files.read(file):
                *lines, rest = (rest + block).split(b"\n")
                if len(rest) > MAX_LINE_BYTES:
                    place = f"{file}:{number + len(lines)}"
                    raise LogError(f"`{place}` has more than {MAX_LINE_BYTES} bytes: it is no record")
                guide.lines(name, number, lines)
                number += len(lines)
                progress(0 if packed else len(block))
        except FileNotFoundError:
            report.notes.append(f"`{name}` was pruned meanwhile")
        except OSError as error:
            report.findings.append(Finding("unreadable", name, number, None, f"from here on: {why(error)}"))
        if rest:
            _half_line(report, files, file, number)
        report.lines += number - 1
        progress(files.size(file) if packed else 0)


class _Guide:
    """Knows which tree a line belongs to."""

    def __init__(self, trees: Sequence[_Tree], report: Report) -> None:
        self._tree, *self._later = trees
        self._report = report
        self._foreign = False
        self._switch: int | None = None
        """The next tree begins in this file, after so many lines."""

    def lines(self, file: str, number: int, lines: list[bytes]) -> None:
        """The next lines of a file, in the order of the log."""
        if lines and number == 1:
            self._enter(file, lines)
        if self._switch is not None and number + len(lines) - 1 > self._switch:
            old = max(0, self._switch - number + 1)
            self._hand(file, number, lines[:old])
            self._tree, self._switch = self._later.pop(0), None
            number, lines = number + old, lines[old:]
            self._foreign = not self._tree.start(
                file, self._tree.begin.digest if self._tree.begin else "", lines
            )
        self._hand(file, number, lines)

    def _hand(self, file: str, number: int, lines: list[bytes]) -> None:
        if lines and not self._foreign:
            self._tree.walk.lines(file, number, lines)

    def _enter(self, file: str, lines: list[bytes]) -> None:
        digest = leaf_hash(lines[0]).hex()
        self._foreign = False
        while self._later and any(digest in tree.firsts for tree in self._later):
            self._tree = self._later.pop(0)  # the file begins with a record of a later tree
        begin = self._later[0].begin if self._later else None
        self._switch = begin.lines if begin is not None and begin.digest == digest else None
        if not self._tree.started:
            if self._switch == 0 or self._tree.start(file, digest, lines):
                return
            self._foreign = True
            if self._switch is None:
                text = "its first lines are in no tree of this log, so none of it was looked at"
                self._report.findings.append(Finding("foreign_file", file, 0, None, text))
            return
        first = self._tree.firsts.get(digest)
        if first is not None and first >= self._tree.walk.at:
            self._tree.walk.boundary(first)


def _half_line(report: Report, files: _Files, file: Path, number: int) -> None:
    if files.current is not None and file == files.paths[-1]:
        report.notes.append(f"`{_plain(file)}:{number}` is half a line: cut off by a crash, or being written")
    else:
        text = "half a line at the end of a file that was rotated"
        report.findings.append(Finding("changed", _plain(file), number, None, text))


def bytes_of(path: Path) -> int:
    """On the disk, of all files of a log."""
    found = 0
    for file in log_files(path):
        with contextlib.suppress(OSError):
            found += file.stat().st_size
    return found


def claims_of(keys: Path, name: str) -> list[tuple[str, bytes]]:
    """The checkpoint that is kept beside the keys, for `older`."""
    last = read_last(keys, name)
    return [] if last is None else [("the last checkpoint beside the keys", last)]
