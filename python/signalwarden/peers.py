"""A client by its certificate, and one that is refused: what doors speak of, with mutual TLS or without. Who verifies
them is `mtls`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

__all__ = ["Peer", "PeerRefused", "expired"]


@dataclass(frozen=True, slots=True)
class Peer:
    """A client by its certificate."""

    id: str
    """Its SPIFFE ID."""
    trust_domain: str
    issued: datetime
    expires: datetime
    sha256: str
    """Of the certificate in DER, in hex."""


class PeerRefused(Exception):
    """A certificate of our authorities that names nobody who counts; one sentence."""

    def __init__(self, sentence: str, claimed: str | None = None) -> None:
        super().__init__(sentence)
        self.claimed = claimed
        """The SPIFFE ID that it has, if it is known who signed it."""


def expired(peer: Peer) -> bool:
    """Whether its certificate has run out since the handshake."""
    return datetime.now(UTC) >= peer.expires
