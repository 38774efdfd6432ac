"""The right edge of a growing tree: what a writer holds of it, and the tiles that it fills.

Hashes stand one after the other and go by batches; those above the leaves are made in the core, since one by one they
would cost the writer's thread more than the writing. Who checks a tree uses `merkle`, and none of this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from signalwarden import _core
from signalwarden.decision_log.integrity.merkle import EMPTY_ROOT, HASH_BYTES, node_hash
from signalwarden.decision_log.integrity.tiles import HEIGHT, WIDTH

if TYPE_CHECKING:
    from signalwarden.decision_log.integrity.tiles import Tile, Tiles

__all__ = ["Edge"]

ROW_BYTES: Final = WIDTH * HASH_BYTES


class Edge:
    """For each level the hashes that fill no tile yet."""

    def __init__(self) -> None:
        self.size = 0
        self._levels: list[bytearray] = []
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
            edge._levels.append(bytearray(tiles.tile(level, rest // WIDTH) if partial else b""))
            level += 1
        return edge

    def extend(self, leaves: bytes) -> None:
        """Takes hashes of lines, one after the other."""
        at = 0
        while at < len(leaves):
            row = self._row(0)
            taken = leaves[at : at + ROW_BYTES - len(row)]
            row += taken
            at += len(taken)
            self.size += len(taken) // HASH_BYTES
            if len(row) == ROW_BYTES:
                self._roll()

    def _row(self, level: int) -> bytearray:
        if level == len(self._levels):
            self._levels.append(bytearray())
        return self._levels[level]

    def _roll(self) -> None:
        """Full rows become tiles, and one hash of the level above each."""
        level = 0
        while len(row := self._row(level)) == ROW_BYTES:
            number = (self.size >> HEIGHT * (level + 1)) - 1
            self.full[level, number, WIDTH] = tile = bytes(row)
            row.clear()
            self._row(level + 1).extend(_core.tree_root(tile))
            level += 1

    def partial(self) -> dict[Tile, bytes]:
        """The tiles at the edge, as they are now."""
        return {
            (level, self.size >> HEIGHT * (level + 1), len(row) // HASH_BYTES): bytes(row)
            for level, row in enumerate(self._levels)
            if row
        }

    def root(self) -> bytes:
        """Of the tree as it is now."""
        found: bytes | None = None
        for row in self._levels:
            rest = at = len(row) // HASH_BYTES
            while rest:
                width = rest & -rest  # peaks from the right: the smallest first
                peak = _core.tree_root(bytes(row[(at - width) * HASH_BYTES : at * HASH_BYTES]))
                found = peak if found is None else node_hash(peak, found)
                rest, at = rest - width, at - width
        return EMPTY_ROOT if found is None else found
