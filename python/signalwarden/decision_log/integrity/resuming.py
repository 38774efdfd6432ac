"""Going on with a tree after a stop or a crash: what is on the disk is held against itself and against the log, and the
lines that the tree does not have yet are read from the files."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, BinaryIO, Final

from signalwarden.decision_log.integrity import places
from signalwarden.decision_log.integrity.edge import Edge
from signalwarden.decision_log.integrity.log_keys import epoch_of
from signalwarden.decision_log.integrity.merkle import leaf_hash
from signalwarden.decision_log.integrity.notes import Checkpoint, Note
from signalwarden.decision_log.integrity.places import Head, Span
from signalwarden.decision_log.integrity.tiles import TileError, Tiles, write_tiles
from signalwarden.decision_log.logfiles import COMPRESSED, log_files, opened, unreadable
from signalwarden.errors import BadInputError, LogError, SignalwardenError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Contradiction", "Resumed", "first_line", "resumed"]

BLOCK_BYTES: Final = 1 << 20
LOOKED_AT: Final = 4 << 20
"""Bytes before the end of the tree that are held against it at a start; `log verify` looks at all of them."""
MAX_FULL: Final = 1 << 10
"""Full tiles that wait in memory while a long log is read: 8 MiB."""


class Contradiction(SignalwardenError):
    """The log, or what is on the disk of its tree, is not what was signed."""


@dataclass(slots=True)
class Resumed:
    """A tree as it goes on."""

    epoch: int
    edge: Edge
    head: Head
    sealed: int
    """Size of the last checkpoint."""
    caught_up: int = 0
    spans: list[Span] = field(default_factory=list)


def resumed(path: Path, tree: Path, known: list[int], *, name: str, last: bytes | None) -> Resumed:
    """The last of the known trees of a log, brought up to the end of its files; a new one for a log that has none.
    `last`: the checkpoint that is kept beside the keys. Raises Contradiction, and LogError for what can't be read."""
    epoch = max(known, default=1)
    folder = tree / str(epoch)
    files = log_files(path)
    found = _on_disk(folder, epoch, name, _signed(last))
    if found.head.digest:
        behind = range(len(files) - 1, -1, -1)
        at = next((n for n in behind if first_line(files[n]) == found.head.digest), None)
        if at is None:
            raise Contradiction(
                f"the file of record {found.head.size} is not there, or its first line is another"
            )
        _look_back(files[at], folder, found)
        files = files[at:]
    elif epoch > 1:
        files = files[-1:]
    _catch_up(files, folder, found)
    return found


def _signed(last: bytes | None) -> Checkpoint | None:
    try:
        return None if last is None else Checkpoint.parse(Note.parse(last).text)
    except BadInputError as error:
        raise Contradiction(f"the last checkpoint, as kept beside the keys, is damaged: {error}") from error


def _on_disk(folder: Path, epoch: int, name: str, signed: Checkpoint | None) -> Resumed:
    """The tree as its files say, once they agree with each other and with what was signed last."""
    head, note, begin = places.read_head(folder), places.read_checkpoint(folder), places.read_begin(folder)
    signed_epoch = 0 if signed is None else epoch_of(name, signed.origin) or 0
    if signed is not None and signed_epoch > epoch:
        raise Contradiction(f"`{signed.origin}` was signed, and `{folder.parent}` has no such tree")
    if note is None and signed_epoch < epoch:  # nothing of it was signed yet
        if begin is None and epoch > 1:
            raise Contradiction(f"`{folder / places.BEGIN}` is missing")
        start = Head(0, begin.digest, -begin.lines, begin.offset) if begin else Head(0, "", 0, 0)
        return Resumed(epoch, Edge(), start, 0)
    if head is None or note is None:
        missing = places.HEAD if head is None else places.CHECKPOINT
        raise Contradiction(f"`{folder / missing}` is missing")
    tiles = Tiles(folder, head.size)
    try:
        checkpoint = Checkpoint.parse(Note.parse(note).text)
        for one in (checkpoint, signed):
            if one is None or (one is signed and signed_epoch != epoch):
                continue
            if (
                epoch_of(name, one.origin) != epoch
                or one.size > head.size
                or tiles.root(one.size) != one.root
            ):
                raise Contradiction(
                    f"the tree `{folder}` is not the one that the checkpoint at {one.size} signs"
                )
        edge = Edge.of(tiles)
    except (BadInputError, TileError) as error:
        raise Contradiction(str(error)) from error
    return Resumed(epoch, edge, head, checkpoint.size)


def first_line(file: Path) -> str:
    """What a file is known by, see places.Head. Raises LogError."""
    head = b""
    try:
        with opened(file) as content:
            while b"\n" not in head and (block := content.read(BLOCK_BYTES)):
                head += block
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise unreadable(file, error) from error
    line, end, _ = head.partition(b"\n")
    return leaf_hash(line).hex() if end else ""


def _look_back(file: Path, folder: Path, found: Resumed) -> None:
    """The last lines that the tree has stand where it says."""
    head = found.head
    floor = 0
    if head.first < 0:
        begin = places.read_begin(folder)
        floor = begin.offset if begin is not None else head.offset
    start = max(floor, head.offset - LOOKED_AT)
    try:
        with opened(file) as content:
            content.seek(start)
            tail = _exactly(content, head.offset - start)
    except OSError as error:
        raise unreadable(file, error) from error
    if tail is None or (tail and not tail.endswith(b"\n")):
        raise Contradiction(
            f"`{file}` is shorter than what was signed of it, {head.offset} bytes, or other bytes end there"
        )
    if start > floor:
        tail = tail[tail.find(b"\n") + 1 :]
    hashes = [sha256(b"\x00" + line).digest() for line in tail.split(b"\n")[:-1]]
    first = head.size - len(hashes)
    try:
        expected = Tiles(folder, head.size).leaves(first, head.size) if first >= 0 else b""
    except TileError as error:
        raise Contradiction(str(error)) from error
    if b"".join(hashes) != expected:
        raise Contradiction(
            f"the last {len(hashes)} lines of `{file}` that were signed are not what stands there"
        )


def _exactly(content: BinaryIO, count: int) -> bytes | None:
    parts = []
    while count:
        part = content.read(min(count, BLOCK_BYTES))
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _catch_up(files: Sequence[Path], folder: Path, found: Resumed) -> None:
    """Takes in what stands in the files behind the end of the tree: of the first one behind what the tree has of it."""
    before = found.edge.size
    head = found.head
    for at, file in enumerate(files):
        if at:
            name = files[at - 1].name.removesuffix(COMPRESSED)
            found.spans.append(Span(name, head.digest, head.first, found.edge.size))
            head = Head(found.edge.size, "", found.edge.size, 0)
        offset = _take(file, head.offset, found.edge, folder)
        head = Head(found.edge.size, head.digest or first_line(file), head.first, offset)
    found.head = head
    found.caught_up = found.edge.size - before


def _take(file: Path, offset: int, edge: Edge, folder: Path) -> int:
    """The lines of a file from there on; where the last whole one ends."""
    rest = b""
    try:
        with opened(file) as content:
            content.seek(offset)
            while block := content.read(BLOCK_BYTES):
                *lines, rest = (rest + block).split(b"\n")
                offset += sum(map(len, lines)) + len(lines)
                edge.extend(b"".join(sha256(b"\x00" + line).digest() for line in lines))
                if len(edge.full) > MAX_FULL:
                    _unload(edge, folder)
    except FileNotFoundError:
        return offset
    except OSError as error:
        raise unreadable(file, error) from error
    return offset


def _unload(edge: Edge, folder: Path) -> None:
    """Full tiles never change: they may be on the disk before a checkpoint signs them."""
    try:
        write_tiles(folder, edge.full)
    except OSError as error:
        raise LogError(f"the log's tree `{folder}` can't be written: {error.strerror}") from error
    edge.full = {}
