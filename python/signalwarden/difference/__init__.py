"""What one configuration says that another does not: by name, and in words that say what it widens or narrows.

Compared are two `View`s: what a directory declares. Sentences judge each change alone, all else being equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, TypedDict

import orjson

from signalwarden.difference import contracts, parts, principals
from signalwarden.difference.words import Direction, Word

if TYPE_CHECKING:
    from signalwarden.config import Loaded

__all__ = ["MAX_WORDS", "Direction", "View", "Word", "differences", "in_words", "view"]

MAX_WORDS: Final = 200
"""Sentences in one record, what widens first: about 40 KB. `signalwarden diff` says them all."""


MAX_NAMES: Final = 500
"""Names of one kind of change of one part: a directory made anew would fill the log with them."""


class View(TypedDict):
    """What a directory declares, as JSON has it."""

    described: dict[str, Any]
    """`Configuration.describe()`."""
    settings: dict[str, Any]
    """`signalwarden.yaml`, defaults filled in."""


def view(loaded: Loaded, described: dict[str, Any] | None = None) -> View:
    """Of a loaded directory. `described`: what it says of itself, where that is at hand."""
    settings = orjson.loads(orjson.dumps(loaded.settings.model_dump()))
    return {"described": loaded.described() if described is None else described, "settings": settings}


# ---- by name ----------------------------------------------------------------------------------------------

_NAMED_BY: Final = {
    "feeds": ("feed",),
    "signals": ("name",),
    "routes": ("match", "action"),
    "policies": ("id",),
    "actions": ("action",),
    "principals": ("principal",),
}
"""What names an entry of each part of `Configuration.describe()`."""
_MOVES: Final = frozenset({"line", "route", "read_by"})
"""Fields that say where something stands, or what others say of it."""


def differences(before: View, after: View) -> dict[str, Any]:
    """Names added, removed and changed, for each part of the configuration."""
    old, new = before["described"], after["described"]
    found = {
        part: _changes(_named(old.get(part, []), by), _named(new.get(part, []), by))
        for part, by in _NAMED_BY.items()
    }
    found["files"] = _changes(old["files"], new["files"])
    clients = [_named(both["settings"]["clients"], ("id",)) for both in (before, after)]
    found["clients"] = _changes(*clients)
    return found


def _changes(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    found = {
        "added": sorted(b.keys() - a.keys()),
        "removed": sorted(a.keys() - b.keys()),
        "changed": sorted(name for name in a.keys() & b.keys() if a[name] != b[name]),
    }
    left_out = sum(max(0, len(names) - MAX_NAMES) for names in found.values())
    shown = {kind: names[:MAX_NAMES] for kind, names in found.items()}
    return {**shown, "left_out": left_out} if left_out else shown


def _named(entries: list[dict[str, Any]], by: tuple[str, ...]) -> dict[str, Any]:
    """Entries of a description by what names them; entries of one name together."""
    named: dict[str, Any] = {}
    for entry in entries:
        said = {key: value for key, value in entry.items() if key not in _MOVES}
        named.setdefault(" ".join(str(entry[key]) for key in by), []).append(said)
    return named


# ---- in words ---------------------------------------------------------------------------------------------


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
