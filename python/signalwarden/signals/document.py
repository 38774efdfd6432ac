"""The document of a poll feed, `{"signals": […]}`: read strictly, cut into batches that one publication takes.

Entries are handed on letter by letter, never written anew: what an entry says, a key that stands twice included, is
for the core to judge, as it is for a publisher's call. The reading goes entry by entry, so that no document, however
large, keeps the interpreter from answering checks.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

from signalwarden.errors import FeedError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "BATCH_BYTES",
    "BATCH_SIGNALS",
    "MAX_DOCUMENT_BYTES",
    "MAX_DOCUMENT_SIGNALS",
    "Batch",
    "Document",
    "read_document",
]

BATCH_SIGNALS: Final = 1_000
"""Most entries of one publication: MAX_BATCH of the core's limits."""
BATCH_BYTES: Final = 2 * 1024 * 1024
"""Most bytes of one publication: MAX_PUBLISH_BYTES of the core's limits."""
MAX_DOCUMENT_SIGNALS: Final = 100_000
"""A hundred publications. More belongs to a publisher that sends what has changed."""
MAX_DOCUMENT_BYTES: Final = 32 * 1024 * 1024
"""With 100,000 signals of 300 bytes; twice this is held while a document is read."""
MAX_ENTRY_BYTES: Final = 64 * 1024
"""Far above name, subject and value at their largest. A longer entry is `malformed`, as the core would say."""

_OPENING: Final = b'{"signals":['
_CLOSING: Final = b"]}"
_SPACE: Final = re.compile(r"[ \t\n\r]*")
_HEAD: Final = re.compile(r'[ \t\n\r]*\{[ \t\n\r]*"signals"[ \t\n\r]*:[ \t\n\r]*\[[ \t\n\r]*')
_TAIL: Final = re.compile(r"[ \t\n\r]*\}[ \t\n\r]*\Z")
_SHAPE: Final = 'expected `{"signals": [...]}`'


@dataclass(frozen=True, slots=True)
class Batch:
    """The body of one publication."""

    body: bytes
    first: int
    """Index of its first entry in the document; the others follow without a gap."""
    entries: int


@dataclass(frozen=True, slots=True)
class Document:
    """What was read."""

    batches: tuple[Batch, ...]
    """In the order of the document."""
    stamped: int
    """Entries that came without `observed_at` and now bear the time of the fetch."""


def read_document(content: bytes, observed_at: str) -> Document:
    """Reads a document whole before anything of it is used; an entry without a time of its own gets `observed_at`.

    Raises FeedError of one sentence, without anything that stands in the document."""
    if len(content) > MAX_DOCUMENT_BYTES:
        raise FeedError(f"the document has more than {MAX_DOCUMENT_BYTES} bytes")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise FeedError("the document is not UTF-8 text") from None
    stamp = f'"observed_at":{json.dumps(observed_at)}'
    cutter = _Cutter()
    stamped = 0
    for entry, known in _entries(text):
        if isinstance(known, dict) and known and "observed_at" not in known:
            stamped += 1
            entry = f"{{{stamp},{entry[1:]}"  # noqa: PLW2901 - the same entry with its time
        cutter.add(entry.encode())
    return Document(cutter.done(), stamped)


class _Cutter:
    """Fills one batch after another."""

    def __init__(self) -> None:
        self._full: list[Batch] = []
        self._entries: list[bytes] = []
        self._bytes = 0
        self._first = 0

    def add(self, entry: bytes) -> None:
        if len(entry) > MAX_ENTRY_BYTES:
            entry = b"null"  # keeps its index, and is refused there
        size = len(_OPENING) + self._bytes + len(entry) + 1 + len(_CLOSING)
        if len(self._entries) == BATCH_SIGNALS or (self._entries and size > BATCH_BYTES):
            self._close()
        self._entries.append(entry)
        self._bytes += len(entry) + 1

    def _close(self) -> None:
        body = _OPENING + b",".join(self._entries) + _CLOSING
        self._full.append(Batch(body, self._first, len(self._entries)))
        self._first += len(self._entries)
        self._entries, self._bytes = [], 0

    def done(self) -> tuple[Batch, ...]:
        if self._entries:
            self._close()
        return tuple(self._full)


def _entries(text: str) -> Iterator[tuple[str, object]]:
    """Each entry as it is written and as it reads. Raises FeedError at the first slip of the document."""
    head = _HEAD.match(text)
    if head is None:
        raise FeedError(
            f"the document has another shape, {_SHAPE}" if text.strip() else "the document is empty"
        )
    at, count = head.end(), 0
    more = not text.startswith("]", at)
    while more:
        if count == MAX_DOCUMENT_SIGNALS:
            raise FeedError(f"the document has more than {MAX_DOCUMENT_SIGNALS} signals")
        entry, end = _value(text, at, count)
        yield text[at:end], entry
        count += 1
        at = _skip(text, end)
        more = text.startswith(",", at)
        if more:
            at = _skip(text, at + 1)
    if not text.startswith("]", at):
        raise FeedError(_broken(count))
    if _TAIL.match(text, at + 1) is None:
        raise FeedError(f"the document goes on after `signals`, {_SHAPE}")


def _value(text: str, at: int, index: int) -> tuple[object, int]:
    try:
        return _DECODER.raw_decode(text, at)
    except (ValueError, RecursionError):
        raise FeedError(_broken(index)) from None


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _broken(index: int) -> str:
    return f"the document is not JSON, or is cut off, at entry {index} of `signals`"


def _no_constant(name: str) -> NoReturn:
    """`NaN` and `Infinity` are Python's, not JSON's."""
    raise ValueError(name)


_DECODER: Final = json.JSONDecoder(parse_constant=_no_constant)
