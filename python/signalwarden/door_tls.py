"""Which doors serve mutual TLS, with what, by the settings: from files, or from SPIRE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from signalwarden.bundles.svid import SvidSource
    from signalwarden.mtls import Certificates, Peers, Roots
    from signalwarden.peers import Peer
    from signalwarden.settings import Door, Settings

__all__ = ["DoorTls"]


class Revoking(Protocol):
    """The part of the engine that knows what is revoked."""

    def is_certificate_revoked(self, *, subject: str, digest: str, issued_at_us: int) -> bool:
        """Whether it is."""


class DoorTls:
    """One for all doors: clients are verified by the same rules at each."""

    def __init__(self, doors: tuple[Door, ...], shown: Callable[[Door], Certificates], peers: Peers) -> None:
        self._doors = doors
        self._shown = shown
        self.peers = peers

    def certificates(self, door: Door) -> Certificates | None:
        """What a door shows, looked after for itself; None if it serves no TLS. Raises KeysError."""
        return self._shown(door) if door in self._doors else None

    @staticmethod
    def of(
        settings: Callable[[], Settings],
        root: Path,
        *,
        bundles: Roots | None,
        svids: SvidSource | None,
        revoking: Revoking,
    ) -> DoorTls | None:
        """By the settings at the start; which trust domains have bundles, by those in force. None: no TLS."""
        tls = settings().tls
        doors = tuple(
            door for door in tls.doors if door != "signals" or settings().listen.signals is not None
        )

        def revoked(peer: Peer) -> bool:
            issued_us = int(peer.issued.timestamp() * 1e6)
            return revoking.is_certificate_revoked(
                subject=peer.id, digest=peer.sha256, issued_at_us=issued_us
            )

        if not doors:
            return None
        # It verifies certificates, with a library of its own: in memory only where a door has TLS.
        from signalwarden.mtls import Certificates, Files, Peers, Spire

        if tls.spire and svids is not None and bundles is not None:
            spire = Spire(svids, bundles)
            return DoorTls(doors, lambda door: Certificates(spire, door), Peers(bundles, revoked=revoked))
        paths = settings().tls_paths(root)
        if paths is None:
            return None
        files = Files(*paths, bundles)
        files.look()
        peers = Peers(
            bundles, bundled=lambda: settings().bundled(), client_ca=files.client_ca, revoked=revoked
        )
        return DoorTls(doors, lambda door: Certificates(files, door), peers)
