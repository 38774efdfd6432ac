"""What a change in words is made of: directions, words, and how values stand in a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import orjson

__all__ = ["Direction", "Entry", "Said", "Word", "named", "number", "quoted", "span", "was_is"]

MAX_SHOWN: Final = 80
"""Characters of one value in a sentence: a list of a thousand zones is to be looked up in the file."""
MAX_SENTENCE: Final = 600
"""Characters of a sentence, or of a name, in a record: ids of policies have no bound of their own."""
MAX_LISTED: Final = 5
"""Names in one sentence."""

Entry = dict[str, Any]
"""One entry of a description."""


class Direction(StrEnum):
    """What a change does to what is allowed, all else being equal. In the order in which a reader wants them."""

    WIDENS = "widens"
    MAY_WIDEN = "may widen"
    """It can allow more, or not: the texts must be read."""
    NARROWS = "narrows"
    NEUTRAL = "neutral"


Said = Iterator[tuple[Direction, str]]


@dataclass(frozen=True, slots=True)
class Word:
    """One sentence on one change."""

    part: str
    """`signal`, `feed`, `route`, `policy`, `client`, `setting` or `entities`."""
    name: str
    direction: Direction
    sentence: str

    def as_dict(self) -> dict[str, str]:
        """As it stands in a record."""
        return {
            "part": self.part,
            "name": _cut(self.name),
            "direction": self.direction.value,
            "sentence": _cut(self.sentence),
        }


def _cut(text: str) -> str:
    return text if len(text) <= MAX_SENTENCE else text[:MAX_SENTENCE] + "…"


def quoted(value: object) -> str:
    """A value in backticks, cut if it is long; `nothing` for none."""
    if value is None or value == [] or value == {}:
        return "nothing"
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return f"`{text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + '…'}`"


def named(names: Iterable[str]) -> str:
    """Names in backticks, some of them if they are many."""
    all_names = sorted(names)
    shown = ", ".join(f"`{name}`" for name in all_names[:MAX_LISTED])
    more = len(all_names) - MAX_LISTED
    return f"{shown} and {more} more" if more > 0 else shown


def number(count: int, noun: str) -> str:
    """`1 client`, `2 clients`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def was_is(old: object, new: object) -> str:
    """`was …, is …`."""
    return f"was {quoted(old)}, is {quoted(new)}"


_UNITS: Final = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1))


def span(millis: int | None) -> str | None:
    """As files write it: `5m`."""
    if millis is None:
        return None
    for unit, size in _UNITS:
        if millis % size == 0:
            return f"{millis // size}{unit}"
    return f"{millis}ms"
