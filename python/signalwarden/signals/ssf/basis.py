"""What a stream was vouched for: the contracts whose resting values rest on it, as they stood then.

Events that no contract mapped were ignored. So a contract that is new, or reads events in another way, knows nothing of
what came before it, and its resting value counts only once somebody has vouched for it, too. A document of the state
keeps that over a restart; where it is missing, nothing was vouched for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final, Protocol

import orjson

__all__ = ["Basis", "Documents", "digests"]

KEY: Final = "stream:"
"""Before the name of the feed."""


class Documents(Protocol):
    """`state.Store`, as far as it is used here. Both raise StateError."""

    def keep(self, key: str, value: bytes) -> None:
        """Writes a document in place of an earlier one."""

    def kept(self, key: str) -> bytes | None:
        """The document."""


def digests(signals: list[Mapping[str, Any]], feed: str, *shared: object) -> dict[str, str]:
    """A digest for each contract with a resting value: over all that decides which events it understands, and how."""
    found: dict[str, str] = {}
    for signal in signals:
        sources = [
            source
            for source in signal["sources"]
            if source["kind"] == "ssf" and source.get("feed") == feed and "while_live" in source
        ]
        if sources:
            said = [signal["subject"], [(source["subject"], source["events"]) for source in sources], shared]
            text = orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
            found[signal["name"]] = hashlib.sha256(text).hexdigest()
    return found


class Basis:
    """The document of one feed."""

    def __init__(self, documents: Documents, feed: str, contracts: Mapping[str, str]) -> None:
        self._documents = documents
        self._key = KEY + feed
        self._contracts = dict(contracts)

    def settle(self) -> list[str]:
        """The contracts that nobody has vouched for as they stand. What is gone, or changed, is forgotten: once it is
        back, it has missed what came meanwhile. Raises StateError."""
        known = self._known()
        good = {name: digest for name, digest in self._contracts.items() if known.get(name) == digest}
        if good != known:
            self._keep(good)
        return sorted(self._contracts.keys() - good.keys())

    def vouch(self) -> None:
        """Somebody vouches for all of them. Raises StateError."""
        self._keep(self._contracts)

    def _known(self) -> dict[str, Any]:
        kept = self._documents.kept(self._key)
        known = orjson.loads(kept) if kept is not None else {}
        return known if isinstance(known, dict) else {}

    def _keep(self, contracts: Mapping[str, str]) -> None:
        self._documents.keep(self._key, orjson.dumps(contracts, option=orjson.OPT_SORT_KEYS))
