"""What a directory declares, and which of its names are not those of another: added, removed, changed.

What a change means, in words, is `difference`'s: that is in memory only where something has changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypedDict

import orjson

if TYPE_CHECKING:
    from signalwarden.config import Loaded

__all__ = ["MAX_NAMES", "View", "differences", "view"]

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
