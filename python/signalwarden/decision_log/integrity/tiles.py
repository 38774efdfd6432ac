"""The tree on disk: tiles of 256 hashes (c2sp.org/tlog-tiles), read and written."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from signalwarden.decision_log.integrity.merkle import HASH_BYTES, fold, root_of
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

__all__ = [
    "HEIGHT",
    "WIDTH",
    "Tile",
    "TileError",
    "Tiles",
    "split",
    "tile_path",
    "write_files",
    "write_tiles",
]

HEIGHT: Final = 8
WIDTH: Final = 1 << HEIGHT
TILE_BYTES: Final = WIDTH * HASH_BYTES
CACHED: Final = 512
"""Tiles held while reading: 4 MiB."""

SYNCED_TOGETHER: Final = 64
"""Files that are open at once."""

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


def write_tiles(directory: Path, tiles: Mapping[Tile, bytes]) -> None:
    """Writes tiles and makes them durable. One that a crash leaves half is written anew: nothing names it before all of
    them are there. Raises OSError."""
    folders: set[str] = set()
    each = iter(tiles.items())
    while group := list(itertools.islice(each, SYNCED_TOGETHER)):
        _write_together(directory, group, folders)
    _sync_up(directory, folders)


def _write_together(directory: Path, tiles: Sequence[tuple[Tile, bytes]], folders: set[str]) -> None:
    """All are written before the first is synced: the journal of a file system then takes their names in one go, where
    each alone would cost the disk and the processor several times as much."""
    with contextlib.ExitStack() as stack:
        opened = []
        for tile, content in tiles:
            path = f"{directory}/{tile_path(tile)}"
            folder = path.rpartition("/")[0]
            if folder not in folders:
                make_private_directory(directory / tile_path(tile).rpartition("/")[0])
                folders.add(folder)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, fd)
            _write(fd, content)
            opened.append(fd)
        for fd in opened:
            sync_data(fd)


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
