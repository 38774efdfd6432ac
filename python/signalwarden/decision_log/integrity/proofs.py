"""Proofs that a record is in the log, in their public form (c2sp.org/tlog-proof): with the key, nothing else is needed.

The record itself travels in the proof's `extra` line, which nobody signs: it is the leaf, so it is proven by its hash.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from signalwarden.decision_log.integrity import places
from signalwarden.decision_log.integrity.merkle import HASH_BYTES, inclusion, leaf_hash, root_by_inclusion
from signalwarden.decision_log.integrity.notes import Checkpoint, Note, decode64
from signalwarden.decision_log.integrity.tiles import Tiles
from signalwarden.decision_log.logfiles import log_files, opened, unreadable
from signalwarden.errors import BadInputError

if TYPE_CHECKING:
    from pathlib import Path

    from signalwarden.decision_log.integrity.log_keys import Trust
    from signalwarden.decision_log.integrity.notes import Verifier

__all__ = ["Proof", "prove"]

HEADER: Final = "c2sp.org/tlog-proof@v1"
MAX_STEPS: Final = 63
INDEX: Final = re.compile(r"index (0|[1-9][0-9]{0,18})")
ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
BLOCK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Proof:
    """That a line is in a log."""

    line: bytes
    index: int
    path: tuple[bytes, ...]
    checkpoint: bytes
    """The signed note."""

    @classmethod
    def parse(cls, content: bytes) -> Proof:
        """Raises BadInputError."""
        head, _, checkpoint = content.partition(b"\n\n")
        try:
            first, extra, index, *steps = head.decode("ascii").split("\n")
            line = decode64(extra.removeprefix("extra "))
            path = tuple(decode64(step) for step in steps)
        except (UnicodeDecodeError, ValueError, binascii.Error) as error:
            raise BadInputError(
                f"expected a proof that begins with `{HEADER}`, then `extra` and `index`"
            ) from error
        number = INDEX.fullmatch(index)
        good = first == HEADER and extra.startswith("extra ") and len(path) <= MAX_STEPS
        if not good or number is None or any(len(step) != HASH_BYTES for step in path):
            raise BadInputError(f"expected a proof that begins with `{HEADER}`, then `extra` and `index`")
        return cls(line, int(number[1]), path, checkpoint)

    def encode(self) -> bytes:
        """As it is handed on."""
        text = base64.b64encode
        head = [HEADER.encode(), b"extra " + text(self.line), b"index %d" % self.index, *map(text, self.path)]
        return b"\n".join(head) + b"\n\n" + self.checkpoint

    def holds(self, trust: Trust) -> tuple[Checkpoint, Verifier]:
        """By whose word. Raises BadInputError that says what does not hold."""
        checkpoint, key = trust.opened(self.checkpoint)
        root = root_by_inclusion(self.index, checkpoint.size, leaf_hash(self.line), self.path)
        if root != checkpoint.root:
            raise BadInputError(
                f"the record is not number {self.index} of the {checkpoint.size} that the checkpoint signs"
            )
        return checkpoint, key


def prove(path: Path, record: str) -> Proof:
    """Of a record, by its id. Raises BadInputError for one that is not there, or not signed yet, and LogError."""
    if not ID.fullmatch(record):
        raise BadInputError(f"`{record[:100]}` is not an id of a record, expected a UUID in lower case")
    line = _line_of(path, record)
    directory = places.tree_directory(path)
    for epoch in reversed(places.epochs(directory)):
        folder = directory / str(epoch)
        content = places.read_checkpoint(folder)
        if content is None:
            continue
        checkpoint = Checkpoint.parse(Note.parse(content).text)
        tiles = Tiles(folder, checkpoint.size)
        index = tiles.find(leaf_hash(line))
        if index is not None:
            return Proof(line, index, tuple(inclusion(index, checkpoint.size, tiles.node)), content)
    raise BadInputError(
        f"the record `{record}` is in no checkpoint: it was written since the last one (try again in a few seconds), "
        "or it was changed (see `signalwarden log verify`)"
    )


def _line_of(path: Path, record: str) -> bytes:
    wanted = re.compile(rb'"(?:decision_id|change_id|event_id)":"' + record.encode() + rb'"')
    for file in reversed(log_files(path)):
        rest = b""
        try:
            with opened(file) as content:
                while block := content.read(BLOCK_BYTES):
                    whole, newline, rest = (rest + block).rpartition(b"\n")
                    found = wanted.search(whole) if newline else None
                    if found:
                        start = whole.rfind(b"\n", 0, found.start()) + 1
                        end = whole.find(b"\n", found.end())
                        return whole[start : end if end >= 0 else len(whole)]
        except FileNotFoundError:
            continue
        except OSError as error:
            raise unreadable(file, error) from error
    raise BadInputError(f"no record with the id `{record}` is in the files of `{path}`")
