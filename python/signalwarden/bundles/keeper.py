"""The live bundles of every trust domain that we accept: one source each, one state, and who is told of changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from signalwarden.bundles.bundle import Bundle

__all__ = ["Bundles", "Listener"]

Listener = Callable[[str, "Bundle | None"], None]
"""Called with a trust domain and its new bundle; None: withdrawn, nobody of it is known any more."""


class Bundles:
    """Bundles by trust domain. Thread-safe. Never merged: each vouches for its own trust domain alone."""

    def get(self, trust_domain: str, /) -> Bundle | None:
        """The live bundle of a trust domain; None: nobody of it is known."""
        raise NotImplementedError

    def on_change(self, listener: Listener) -> None:
        """Calls `listener` after each change, from a thread of a source, one call at a time. It must not block.
        It is first told of every bundle that is live already."""
        raise NotImplementedError

    def roots_pem(self) -> bytes:
        """All authorities for X.509 in PEM, for the hint of a handshake. It proves nothing: whoever gets through with
        it is then verified with `verify_x509_svid`."""
        raise NotImplementedError

    def detail(self) -> dict[str, Any]:
        """For `/readyz`: state, revision, age and last error by trust domain."""
        raise NotImplementedError

    def start(self) -> None:
        """Starts every source."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stops every source. May be called twice."""
        raise NotImplementedError
