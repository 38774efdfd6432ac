"""Who calls the admin API: an entry of `clients`, by its token, its certificate or a JWT-SVID.

An entry with `token_sha256` is a client by that token alone; one without is a client by its SVID. What a caller shows
must agree: a token beside a certificate that is not good, or of another SPIFFE ID than the token's client, opens
nothing.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Protocol

from signalwarden.peers import PeerRefused
from signalwarden.services import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from signalwarden.config import ClientSettings, Right
    from signalwarden.mtls import Peers
    from signalwarden.peers import Peer

__all__ = ["Clients", "TokenClients"]

JWS_DOTS = 2
"""A token in compact form has three parts; ours have none (43 characters of base64url)."""


class TokenClients(Protocol):
    """Whoever validates the JWT-SVIDs of clients."""

    def authenticate(self, token: bytes) -> str | None:
        """The SPIFFE ID that a JWT-SVID for `identity.admin_audience` proves now; None: none. Bounded in work and time,
        and never raises for what the token is."""


class Clients:
    """The entries of `clients` as they are now, and how callers prove to be one of them."""

    def __init__(
        self,
        entries: Callable[[], Sequence[ClientSettings]],
        *,
        peers: Peers | None,
        tokens: TokenClients | None,
        refused: Callable[[str | None, str], None],
        clock: Callable[[], int],
        revoked: Callable[[str, str], bool] = lambda _who, _digest: False,
    ) -> None:
        """`refused` writes down whom, if that is known, and why. `revoked`: whether a client's bearer token is, by its
        digest; what certificates and JWT-SVIDs are is looked at by those who verify them."""
        self._entries = entries
        self._peers = peers
        self._tokens = tokens
        self._refused = refused
        self._clock = clock
        self._revoked = revoked

    def by_token(self, token: bytes, chain: bytes = b"") -> Client | None:
        """The client whose token this is, on a connection with these certificates (PEM, leaf first), if any; None, and
        written down, if there is none. Every entry is compared, in constant time, whichever matches."""
        digest = hashlib.sha256(token).hexdigest()
        found: ClientSettings | None = None
        for entry in self._entries():
            if hmac.compare_digest(digest, entry.token_sha256 or ""):
                found = entry
        if found is not None and self._revoked(found.id, digest):
            return self._no(found.id, "the token has been revoked")
        if found is None and self._tokens is not None and token.count(b".") == JWS_DOTS:
            proven = self._tokens.authenticate(token)
            if proven is None:
                return self._no(None, "the token is no good JWT-SVID for us")
            found = self._by_svid(proven)
            if found is None:
                return self._no(proven, "no client by SVID has this SPIFFE ID")
        if found is None:
            return self._no(None, "unknown token")
        if chain:
            peer = self._peer(chain)
            if peer is None:
                return None
            if peer.id != found.id:
                return self._no(found.id, f"its token came with the certificate of `{peer.id}`")
        return self._in_time(found)

    def by_certificate(self, chain: bytes) -> Client | None:
        """The client whose connection has these certificates (PEM, leaf first); None, and written down, if there is
        none."""
        peer = self._peer(chain)
        if peer is None:
            return None
        found = self._by_svid(peer.id)
        if found is None:
            return self._no(peer.id, "no client by SVID has this SPIFFE ID")
        return self._in_time(found)

    def _peer(self, chain: bytes) -> Peer | None:
        if self._peers is None:
            self._refused(None, "certificates of clients are not taken here")
            return None
        try:
            return self._peers.of_pem(chain)
        except PeerRefused as refused:
            self._refused(refused.claimed, str(refused))
            return None

    def may(self, spiffe_id: str, right: Right) -> bool:
        """Whether a client has a right now, by any of its entries: for what it has said before and somebody else rests
        on."""
        now = self._clock()
        return any(
            entry.id == spiffe_id
            and right in entry.may
            and (entry.expires is None or entry.expires.timestamp() * 1e6 > now)
            for entry in self._entries()
        )

    def _by_svid(self, spiffe_id: str) -> ClientSettings | None:
        by_svid = (entry for entry in self._entries() if entry.token_sha256 is None)
        return next((entry for entry in by_svid if entry.id == spiffe_id), None)

    def _in_time(self, entry: ClientSettings) -> Client | None:
        until = entry.expires.timestamp() * 1e6 if entry.expires is not None else None
        if entry.token_sha256 is not None and (until is None or until <= self._clock()):
            return self._no(entry.id, "the token has expired")
        if until is not None and until <= self._clock():
            return self._no(entry.id, "the entry of the client has expired")
        return Client(entry.id, frozenset(entry.may), entry.subjects)

    def _no(self, who: str | None, why: str) -> Client | None:
        self._refused(who, why)
        return None
