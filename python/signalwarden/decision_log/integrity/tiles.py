"""The tree on disk: tiles of 256 hashes (c2sp.org/tlog-tiles), read and written, and the edge of a growing tree."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from signalwarden.decision_log.integrity.merkle import HASH_BYTES, fold, node_hash, root_of
from signalwarden.errors import LogError
from signalwarden.files import (
    make_private_directory,
    read_regular,
    sync_data,
    sync_directory,
    why,
    write_whole,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["HEIGHT", "WIDTH", "Edge", "Tile", "TileError", "Tiles", "tile_path", "write_files", "write_tiles"]

HEIGHT: Final = 8
WIDTH: Final = 1 << HEIGHT
TILE_BYTES: Final = WIDTH * HASH_BYTES
CACHED: Final = 512
"""Tiles held while reading: 4 MiB."""

Tile = tuple[int, int, int]
"""Level, number, width; a width of 256 is a full tile."""


class TileError(LogError):
    """A tile that is not there, or not as long as it must be."""

    def __init__(self, path: Path, what: str, start: int, end: int) -> None:
        super().__init__(f"the tile `{path}` {what}")
        self.path = path
        self.what = what
        self.start = start
        """First record that it stands for."""
        self.end = end


def tile_path(tile: Tile) -> str:
    """Such as `tile/0/x001/234` and `tile/0/x001/235.p/17`."""
    level, number, width = tile
    digits = f"{number:0{-(-len(str(number)) // 3) * 3}d}"
    groups = [digits[n : n + 3] for n in range(0, len(digits), 3)]
    path = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
    return f"tile/{level}/{path}" + (f".p/{width}" if width < WIDTH else "")


class Tiles:
    """Reads the tree over the first `size` lines."""

    def __init__(self, directory: Path, size: int) -> None:
        self._directory = directory
        self.size = size
        self._cache: OrderedDict[tuple[int, int], bytes] = OrderedDict()

    def width(self, level: int, number: int) -> int:
        """How many hashes a tile of this tree has."""
        return max(0, min(WIDTH, (self.size >> HEIGHT * level) - number * WIDTH))

    def tile(self, level: int, number: int) -> bytes:
        """The hashes of a tile. Raises TileError."""
        key = (level, number)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        content = self._read(level, number, self.width(level, number))
        self._cache[key] = content
        if len(self._cache) > CACHED:
            self._cache.popitem(last=False)
        return content

    def _read(self, level: int, number: int, width: int) -> bytes:
        full = self._directory / tile_path((level, number, WIDTH))
        found = None
        for path, expected in [(full, TILE_BYTES), *self._partial(full, width)]:
            try:
                content = read_regular(path, TILE_BYTES)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise self._error(path, level, number, f"can't be read: {why(error)}") from error
            if len(content) == expected and width:
                return content[: width * HASH_BYTES]
            found = path
        if found is not None:
            raise self._error(found, level, number, "is damaged: it does not have the length that it must")
        missing = full if width == WIDTH else self._directory / tile_path((level, number, width))
        raise self._error(missing, level, number, "is missing")

    def _partial(self, full: Path, width: int) -> list[tuple[Path, int]]:
        """What may hold the beginning of a tile: later ones begin with it. The server removes the oldest at times."""
        try:
            names = [entry.name for entry in full.with_name(full.name + ".p").iterdir()]
        except OSError:
            return []
        widths = sorted(int(name) for name in names if name.isdigit() and int(name) >= width)
        return [(full.with_name(full.name + ".p") / str(w), w * HASH_BYTES) for w in widths]

    def _error(self, path: Path, level: int, number: int, what: str) -> TileError:
        span = WIDTH ** (level + 1)
        return TileError(path, what, number * span, min((number + 1) * span, self.size))

    def node(self, level: int, index: int) -> bytes:
        """See merkle.Node. Raises TileError."""
        row, inside = divmod(level, HEIGHT)
        number, offset = divmod(index << inside, WIDTH)
        content = self.tile(row, number)
        return fold(split(content[offset * HASH_BYTES : (offset + (1 << inside)) * HASH_BYTES]))

    def root(self, size: int | None = None) -> bytes:
        """Over the first lines. Raises TileError."""
        return root_of(self.size if size is None else size, self.node)

    def leaf(self, index: int) -> bytes:
        """Of a line. Raises TileError."""
        number, offset = divmod(index, WIDTH)
        return self.tile(0, number)[offset * HASH_BYTES : (offset + 1) * HASH_BYTES]

    def leaves(self, start: int, end: int) -> bytes:
        """Hashes of neighbouring lines, one after the other. Raises TileError."""
        parts = []
        for number in range(start // WIDTH, -(-end // WIDTH)):
            content = self.tile(0, number)
            first = number * WIDTH
            parts.append(content[max(0, start - first) * HASH_BYTES : (end - first) * HASH_BYTES])
        return b"".join(parts)

    def find(self, leaf: bytes, start: int = 0) -> int | None:
        """Where a line of this hash is, at or after `start`; tiles that are gone are passed over."""
        for number in range(start // WIDTH, -(-self.size // WIDTH)):
            try:
                content = self.tile(0, number)
            except TileError:
                continue
            at = content.find(leaf)
            while at >= 0:
                index = number * WIDTH + at // HASH_BYTES
                if at % HASH_BYTES == 0 and index >= start:
                    return index
                at = content.find(leaf, at + 1)
        return None

    def levels(self) -> Iterator[tuple[int, int]]:
        """Level and number of every tile of this tree, lowest level first."""
        level = 0
        while self.size >> HEIGHT * level:
            for number in range(-(-(self.size >> HEIGHT * level) // WIDTH)):
                yield level, number
            level += 1


def split(hashes: bytes) -> list[bytes]:
    """Hashes that stand one after the other."""
    return [hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)]


class Edge:
    """The right edge of a growing tree: for each level the hashes that fill no tile yet."""

    def __init__(self) -> None:
        self.size = 0
        self._levels: list[list[bytes]] = []
        self.full: dict[Tile, bytes] = {}
        """Tiles that were filled and not taken away yet."""

    @classmethod
    def of(cls, tiles: Tiles) -> Edge:
        """Of a tree on disk. Raises TileError."""
        edge = cls()
        edge.size = tiles.size
        level = 0
        while rest := tiles.size >> HEIGHT * level:
            partial = rest % WIDTH
            edge._levels.append(split(tiles.tile(level, rest // WIDTH)) if partial else [])
            level += 1
        return edge

    def extend(self, leaves: Sequence[bytes]) -> None:
        """Takes hashes of lines."""
        at = 0
        while at < len(leaves):
            row = self._row(0)
            taken = leaves[at : at + WIDTH - len(row)]
            row += taken
            at += len(taken)
            self.size += len(taken)
            if len(row) == WIDTH:
                self._roll()

    def _row(self, level: int) -> list[bytes]:
        if level == len(self._levels):
            self._levels.append([])
        return self._levels[level]

    def _roll(self) -> None:
        """Full rows become tiles, and one hash of the level above each."""
        level = 0
        while len(row := self._row(level)) == WIDTH:
            number = (self.size >> HEIGHT * (level + 1)) - 1
            self.full[level, number, WIDTH] = b"".join(row)
            self._row(level + 1).append(fold(row))
            row.clear()
            level += 1

    def partial(self) -> dict[Tile, bytes]:
        """The tiles at the edge, as they are now."""
        return {
            (level, self.size >> HEIGHT * (level + 1), len(row)): b"".join(row)
            for level, row in enumerate(self._levels)
            if row
        }

    def root(self) -> bytes:
        """Of the tree as it is now."""
        found: bytes | None = None
        for row in self._levels:
            rest, at = len(row), len(row)
            while rest:
                width = rest & -rest  # peaks from the right: the smallest first
                peak = fold(row[at - width : at])
                found = peak if found is None else node_hash(peak, found)
                rest, at = rest - width, at - width
        return fold([]) if found is None else found


def write_tiles(directory: Path, tiles: Mapping[Tile, bytes]) -> None:
    """Writes tiles and makes them durable. One that a crash leaves half is written anew: nothing names it before all of
    them are there. Raises OSError."""
    folders = set()
    for tile, content in tiles.items():
        path = f"{directory}/{tile_path(tile)}"
        folder = path.rpartition("/")[0]
        if folder not in folders:
            make_private_directory(directory / tile_path(tile).rpartition("/")[0])
            folders.add(folder)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write(fd, content)
            sync_data(fd)
        finally:
            os.close(fd)
    _sync_up(directory, folders)


def write_files(directory: Path, files: Mapping[str, bytes]) -> None:
    """Writes files, each whole or not at all, and makes them durable. Raises OSError."""
    make_private_directory(directory)
    folders = set()
    for name, content in files.items():
        path = directory / name
        make_private_directory(path.parent)
        folders.add(str(path.parent))
        write_whole(path, content)
    _sync_up(directory, folders)


def _write(fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def _sync_up(directory: Path, folders: set[str]) -> None:
    """Names in these folders, and their own up to the directory, are durable."""
    top = str(directory)
    every = set(folders)
    for folder in folders:
        while folder != top:
            folder = folder.rpartition("/")[0]  # noqa: PLW2901
            every.add(folder)
    for folder in every:
        sync_directory(Path(folder))
