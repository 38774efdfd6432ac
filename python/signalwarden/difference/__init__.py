"""What one configuration says that another does not, in words that say what it widens or narrows.

Compared are two `View`s: what a directory declares. Sentences judge each change alone, all else being equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from signalwarden.difference import contracts, parts, principals
from signalwarden.difference.words import Direction, Word

if TYPE_CHECKING:
    from signalwarden.declared import View

__all__ = ["MAX_WORDS", "Direction", "Word", "in_words"]

MAX_WORDS: Final = 200
"""Sentences in one record, what widens first: about 40 KB. `signalwarden diff` says them all."""


def in_words(before: View, after: View) -> list[Word]:
    """A sentence for each change, what widens first."""
    order = list(Direction)
    words = [*_words(before, after)]
    return sorted(words, key=lambda word: (order.index(word.direction), word.part, word.name, word.sentence))


def _words(before: View, after: View) -> Iterator[Word]:
    old, new = before["described"], after["described"]
    yield from _signals(old["signals"], new["signals"])
    told = {
        "feed": parts.feeds(old.get("feeds", []), new.get("feeds", [])),
        "signal": parts.register(old, new),
        "route": parts.routes(old["routes"], new["routes"]),
        "policy": chain(
            parts.policies(old["policies"], new["policies"]), parts.languages(old["files"], new["files"])
        ),
        "client": parts.clients(before["settings"]["clients"], after["settings"]["clients"]),
        "setting": parts.settings(before["settings"], after["settings"]),
        "entities": parts.entities(old["files"], new["files"]),
    }
    for part, said in told.items():
        yield from (Word(part, name, direction, sentence) for name, direction, sentence in said)
    for name, direction, sentence in principals.changed(old.get("principals", []), new.get("principals", [])):
        yield Word("entities", name, direction, sentence)


def _signals(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> Iterator[Word]:
    before, after = ({contract["name"]: contract for contract in entries} for entries in (old, new))
    for name in before.keys() | after.keys():
        if name not in before:
            said = contracts.added(after[name])
        elif name not in after:
            said = contracts.removed(before[name])
        else:
            said = contracts.changed(before[name], after[name])
        yield from (Word("signal", name, direction, sentence) for direction, sentence in said)
