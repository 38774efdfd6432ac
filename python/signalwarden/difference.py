"""What one configuration says that another does not: by name, and in words that say what it widens or narrows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from signalwarden.config import Loaded

__all__ = ["differences"]

_NAMED_BY: Final = {
    "signals": ("name",),
    "routes": ("match", "action"),
    "policies": ("id",),
    "actions": ("action",),
}
"""What names an entry of each part of `Configuration.describe()`."""
_MOVES: Final = frozenset({"line", "route"})
"""Fields that say where something stands, not what it says."""


def differences(before: Loaded, after: Loaded) -> dict[str, Any]:
    """Names added, removed and changed, for each part of the configuration."""
    old = before.described()
    new = after.described()
    parts = {part: _changes(_named(old[part], by), _named(new[part], by)) for part, by in _NAMED_BY.items()}
    parts["files"] = _changes(old["files"], new["files"])
    clients = [_entries(loaded) for loaded in (before, after)]
    parts["clients"] = _changes(*clients)
    return parts


def _entries(loaded: Loaded) -> dict[str, Any]:
    """Clients by id; one may have two entries while its token is rotated."""
    entries: dict[str, Any] = {}
    for client in loaded.settings.clients:
        entries.setdefault(client.id, []).append(client)
    return entries


def _changes(a: dict[str, Any], b: dict[str, Any]) -> dict[str, list[str]]:
    return {
        "added": sorted(b.keys() - a.keys()),
        "removed": sorted(a.keys() - b.keys()),
        "changed": sorted(name for name in a.keys() & b.keys() if a[name] != b[name]),
    }


def _named(entries: list[dict[str, Any]], by: tuple[str, ...]) -> dict[str, Any]:
    """Entries of a description by what names them; entries of one name together."""
    named: dict[str, Any] = {}
    for entry in entries:
        said = {key: value for key, value in entry.items() if key not in _MOVES}
        named.setdefault(" ".join(str(entry[key]) for key in by), []).append(said)
    return named
