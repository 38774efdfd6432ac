"""Going on with a tree after a stop or a crash: what is on the disk is held against itself and against the log, and the
lines that the tree does not have yet are read from the files."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, BinaryIO, Final

from signalwarden.decision_log.integrity import places
from signalwarden.decision_log.integrity.log_keys import epoch_of
from signalwarden.decision_log.integrity.notes import Checkpoint, Note
from signalwarden.decision_log.integrity.places import Head, Span
from signalwarden.decision_log.integrity.tiles import Edge, TileError, Tiles, tile_path, write_files
from signalwarden.decision_log.logfiles import last_number, number_of, opened, rotated_files, unreadable
from signalwarden.errors import BadInputError, LogError, SignalwardenError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Contradiction", "Resumed", "resumed"]

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
    signed = _signed(last)
    if not known and signed is None:
        files = rotated_files(path)
        number = number_of(path, files[0]) if files else last_number(path) + 1
        found = Resumed(1, Edge(), Head(0, number, 0, 0), 0)
        _catch_up(path, tree / "1", found)
        return found
    epoch = max(known, default=1)
    folder = tree / str(epoch)
    found = _on_disk(folder, epoch, name, signed)
    _look_back(path, folder, found)
    _catch_up(path, folder, found)
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
    if head is None and note is None and signed_epoch < epoch and (begin is not None or epoch == 1):
        # Begun, and nothing signed yet.
        start = Head(0, begin.number, -begin.lines, begin.offset) if begin else None
        if start is not None:
            return Resumed(epoch, Edge(), start, 0)
        raise Contradiction(f"`{folder}` has no checkpoint")
    if head is None or note is None:
        missing = places.HEAD if head is None else places.CHECKPOINT
        raise Contradiction(f"`{folder / missing}` is missing")
    tiles = Tiles(folder, head.size)
    try:
        checkpoint = Checkpoint.parse(Note.parse(note).text)
        wanted = [checkpoint, *([signed] if signed is not None and signed_epoch == epoch else [])]
        for one in wanted:
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


def _file_of(path: Path, number: int) -> Path | None:
    """The file that has this number, or will have it once it is rotated."""
    for file in rotated_files(path):
        if number_of(path, file) == number:
            return file
    return path if number == last_number(path) + 1 else None


def _look_back(path: Path, folder: Path, found: Resumed) -> None:
    """The last lines that the tree has stand where it says."""
    head = found.head
    file = _file_of(path, head.number)
    if file is None:
        if not head.offset and head.size and number_of(path, path) == 0 and not rotated_files(path):
            return
        raise Contradiction(f"the file of record {head.size}, number {head.number} of the log, is not there")
    begin = places.read_begin(folder)
    floor = begin.offset if begin is not None and begin.number == head.number else 0
    start = max(floor, head.offset - LOOKED_AT)
    try:
        with opened(file) as content:
            content.seek(start)
            tail = _exactly(content, head.offset - start)
    except FileNotFoundError:
        tail = None
    except OSError as error:
        raise unreadable(file, error) from error
    if tail is None or (tail and not tail.endswith(b"\n")):
        raise Contradiction(f"`{file}` is shorter than what was signed of it: {head.offset} bytes")
    if start > floor:
        tail = tail[tail.find(b"\n") + 1 :]
    lines = tail.split(b"\n")[:-1]
    first = head.size - len(lines)
    hashes = [sha256(b"\x00" + line).digest() for line in lines]
    try:
        expected = Tiles(folder, head.size).leaves(first, head.size) if first >= 0 else b""
    except TileError as error:
        raise Contradiction(str(error)) from error
    if b"".join(hashes) != expected:
        raise Contradiction(
            f"the last {len(lines)} lines of `{file}` that were signed are not what stands there"
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


def _catch_up(path: Path, folder: Path, found: Resumed) -> None:
    """Takes in what stands in the files behind the end of the tree."""
    before = found.edge.size
    newest = last_number(path) + 1
    number, first, offset = found.head.number, found.head.first, found.head.offset
    while number <= newest:
        file = _file_of(path, number)
        if file is not None:
            offset = _take(file, offset, found.edge, folder)
        if number < newest:
            if file is not None:
                found.spans.append(Span(number, first, found.edge.size))
            first, offset = found.edge.size, 0
        number += 1
    found.head = Head(found.edge.size, min(number, newest), first, offset)
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
                edge.extend([sha256(b"\x00" + line).digest() for line in lines])
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
        write_files(folder, {tile_path(tile): content for tile, content in edge.full.items()})
    except OSError as error:
        raise LogError(f"the log's tree `{folder}` can't be written: {error.strerror}") from error
    edge.full = {}
