"""What a stream was vouched for: the contracts whose resting values rest on it, as they stood then.

Events that no contract mapped were ignored. So a contract that is new, or reads events in another way, knows nothing of
what came before it, and its resting value counts only once somebody has vouched for it, too. A file beside the state
keeps that over a restart; where it is missing, nothing was vouched for.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from signalwarden.errors import StateError
from signalwarden.files import make_private_directory, open_private, read_regular, sync_directory, why

__all__ = ["Basis", "digests"]

FOLDER: Final = "streams"
MAX_BYTES: Final = 8 * 1024 * 1024
"""A digest of each contract: as many as a register of the largest size could hold."""


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
    """The file of one feed, in the folder of the state."""

    def __init__(self, state: Path, feed: str, contracts: Mapping[str, str]) -> None:
        self._path = state / FOLDER / f"{feed}.json"
        self._contracts = dict(contracts)

    def settle(self) -> list[str]:
        """The contracts that nobody has vouched for as they stand. What is gone, or changed, is forgotten: once it is
        back, it has missed what came meanwhile. Raises StateError."""
        known = self._read()
        good = {name: digest for name, digest in self._contracts.items() if known.get(name) == digest}
        if good != known:
            self._write(good)
        return sorted(self._contracts.keys() - good.keys())

    def vouch(self) -> None:
        """Somebody vouches for all of them. Raises StateError."""
        self._write(self._contracts)

    def _read(self) -> dict[str, Any]:
        try:
            known = orjson.loads(read_regular(self._path, MAX_BYTES))
        except (FileNotFoundError, orjson.JSONDecodeError):
            return {}
        except OSError as error:
            raise StateError(f"`{self._path}` can't be read: {why(error)}") from error
        return known if isinstance(known, dict) else {}

    def _write(self, contracts: Mapping[str, str]) -> None:
        """Whole or not at all."""
        fresh = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            make_private_directory(self._path.parent)
            fd = open_private(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            with os.fdopen(fd, "wb") as file:
                file.write(orjson.dumps(contracts, option=orjson.OPT_SORT_KEYS))
                file.flush()
                os.fsync(fd)
            fresh.rename(self._path)
            sync_directory(self._path.parent)
        except OSError as error:
            raise StateError(f"`{self._path}` can't be written: {why(error)}") from error
