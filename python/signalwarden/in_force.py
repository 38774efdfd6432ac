"""What the state remembers of the directory in force: who must approve its change, and what it declared.

Without it a restart would be a way around approvers, and its record could not say in words what it changed.
"""

from __future__ import annotations

import logging
import zlib
from typing import TYPE_CHECKING, Final

import orjson

from signalwarden import __version__
from signalwarden.approvers import Approver, approvers_of, findings
from signalwarden.declared import View
from signalwarden.errors import ConfigurationError, StateError

if TYPE_CHECKING:
    from signalwarden.config import Loaded
    from signalwarden.state import Documents

__all__ = ["InForce"]

_log = logging.getLogger("signalwarden")

APPROVERS: Final = "approvers"
DECLARED: Final = "declared"
"""Names of the documents in the state."""
MAX_DECLARED_BYTES: Final = 64 * 1024 * 1024
"""Of a description, unpacked: ten thousand policies are 3 MB. A larger one is not kept, and not unpacked."""


class InForce:
    """Reads and writes what outlives the server. One thread at a time."""

    def __init__(self, store: Documents) -> None:
        """Raises StateError if what the state holds can't be read: nobody could say who approves what."""
        self._store = store
        self._kept = store.kept(APPROVERS)
        self._approvers = _approvers(self._kept)

    def admit(self, loaded: Loaded, declared: View) -> None:
        """To be called before a directory comes into force: from now on its approvers count. Raises
        ConfigurationError unless those have signed who approve what was in force before, StateError if the new ones
        can't be kept; then it must not come into force. `declared` is the directory's view."""
        signals = declared["described"]["signals"]
        if self._approvers and (missing := findings(signals, loaded.approvals, self._approvers)):
            raise ConfigurationError(missing)
        named = {contract["name"]: approvers_of(contract) for contract in signals}
        governed = {name: approvers for name, approvers in named.items() if approvers}
        text = orjson.dumps(
            {name: [[a.id, a.ed25519] for a in approvers] for name, approvers in governed.items()},
            option=orjson.OPT_SORT_KEYS,
        )
        if text != (self._kept or b"{}"):
            self._store.keep(APPROVERS, text)
        self._kept, self._approvers = text, governed

    def declared(self) -> tuple[str, View | None] | None:
        """Revision and declaration of what was in force last. The declaration is None if another release wrote it:
        releases describe in different keys."""
        packed = self._store.kept(DECLARED)
        if packed is None:
            return None
        try:
            document = orjson.loads(zlib.decompressobj().decompress(packed, MAX_DECLARED_BYTES))
            same = document["version"] == __version__
            return str(document["revision"]), document["view"] if same else None
        except (zlib.error, orjson.JSONDecodeError, KeyError, TypeError) as error:
            _log.warning(
                "what was in force before can't be read, so its change is not said in words: %s", error
            )
            return None

    def keep_declared(self, loaded: Loaded, declared: View) -> None:
        """For the words of the next start. A failure is logged: decisions do not depend on it."""
        document = {
            "version": __version__, "revision": loaded.configuration.revision, "view": declared,
        }  # fmt: skip
        text = orjson.dumps(document)
        if len(text) > MAX_DECLARED_BYTES:
            return
        try:
            self._store.keep(DECLARED, zlib.compress(text, 1))
        except StateError as error:
            _log.error("what is in force can't be kept for the next start: %s", error)


def _approvers(text: bytes | None) -> dict[str, tuple[Approver, ...]]:
    try:
        document = orjson.loads(text or b"{}")
        return {name: tuple(Approver(*entry) for entry in entries) for name, entries in document.items()}
    except (orjson.JSONDecodeError, AttributeError, TypeError) as error:
        raise StateError(f"the state holds approvers that can't be read: {error}") from error
