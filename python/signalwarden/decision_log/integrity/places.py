"""Where a log's tree lies, and which of its lines stand in which file: a directory for each tree beside the log.

`decisions.tree/1/` holds `checkpoint` and `tile/…` as c2sp.org/tlog-tiles lays them out, `head.json` (how far the tree
is, in which file), `files.jsonl` (what rotated files held) and `checkpoints.jsonl` (earlier checkpoints). None of the
last three is signed: they say where to look, and whatever they say is held against the tree.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import orjson

from signalwarden.errors import LogError
from signalwarden.files import read_regular, why

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "BEGIN", "CHECKPOINT", "FILES", "HEAD", "HISTORY", "Begin", "Head", "Span", "encode", "epochs", "history",
    "read_begin", "read_checkpoint", "read_head", "read_spans", "tree_directory",
]  # fmt: skip

CHECKPOINT: Final = "checkpoint"
HEAD: Final = "head.json"
BEGIN: Final = "begin.json"
FILES: Final = "files.jsonl"
HISTORY: Final = "checkpoints.jsonl"
MAX_FILE_BYTES: Final = 256 << 20
"""Of the lists: a hundred bytes for each rotated file, or a few for each checkpoint that is kept."""


Kind = TypeVar("Kind", "Head", "Begin", "Span")


@dataclass(frozen=True, slots=True)
class Head:
    """How far a tree is."""

    size: int
    digest: str
    """Of the file that it goes on in: the leaf hash of its first line, in hex, by which it is known whatever it is
    called later and however it is compressed. Empty while it has no line."""
    first: int
    """Index of the first record of that file; below 0 if it began before this tree."""
    offset: int
    """Bytes of that file that are in the tree."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Where a later tree begins: after so many lines of that file."""

    digest: str
    """See Head."""
    lines: int
    offset: int


@dataclass(frozen=True, slots=True)
class Span:
    """The records of a file that was rotated: from `first` up to `end`."""

    file: str
    """Its name; empty if somebody else moved it away, under a name that is not the log's."""
    digest: str
    """See Head."""
    first: int
    end: int


def tree_directory(path: Path) -> Path:
    """Of a log."""
    return path.with_name(f"{path.stem}.tree")


def epochs(tree: Path) -> list[int]:
    """Numbers of the trees of a log, oldest first."""
    try:
        return sorted(int(entry.name) for entry in tree.iterdir() if entry.name.isdigit() and entry.is_dir())
    except OSError:
        return []


def _read(path: Path) -> bytes | None:
    try:
        return read_regular(path, MAX_FILE_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LogError(f"`{path}` can't be read: {why(error)}") from error


def read_checkpoint(folder: Path) -> bytes | None:
    """The last one of a tree. Raises LogError."""
    return _read(folder / CHECKPOINT)


def _decoded(line: bytes, kind: type[Kind]) -> Kind:
    """Raises ValueError."""
    content = orjson.loads(line)
    expected = {
        name: {"int": int, "str": str}[str(of.type)] for name, of in kind.__dataclass_fields__.items()
    }
    if not isinstance(content, dict) or {key: type(value) for key, value in content.items()} != expected:
        raise ValueError("other keys or types")
    return kind(**content)


def _object(path: Path, kind: type[Kind]) -> Kind | None:
    content = _read(path)
    try:
        return None if content is None else _decoded(content, kind)
    except ValueError as error:
        raise LogError(f"`{path}` is damaged") from error


def read_head(folder: Path) -> Head | None:
    """Raises LogError."""
    return _object(folder / HEAD, Head)


def read_begin(folder: Path) -> Begin | None:
    """None for the first tree, which has the whole log. Raises LogError."""
    return _object(folder / BEGIN, Begin)


def read_spans(folder: Path) -> list[Span]:
    """In the order of the records; the last word on a file counts. Raises LogError."""
    found: dict[int, Span] = {}
    for line in (_read(folder / FILES) or b"").splitlines():
        try:
            span = _decoded(line, Span)
        except ValueError:
            continue  # half a line that a loss of power left: it is written anew
        found[span.first] = span
    return [found[first] for first in sorted(found)]


def history(folder: Path) -> list[bytes]:
    """Earlier checkpoints that were kept, oldest first. Raises LogError."""
    notes = []
    for line in (_read(folder / HISTORY) or b"").splitlines():
        try:
            notes.append(str(orjson.loads(line)["note"]).encode())
        except (orjson.JSONDecodeError, TypeError, KeyError):
            continue
    return notes


def encode(value: Head | Begin | Span) -> bytes:
    """As it is written: one line."""
    return orjson.dumps(asdict(value)) + b"\n"
