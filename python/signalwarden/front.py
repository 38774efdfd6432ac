"""What both front doors share: grpcio's (`server`) and the native one (`native`).

Who may ask where the door serves mutual TLS, who was refused, and what the rest of the server sees of a door.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from signalwarden.peers import PeerRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from signalwarden.config import Address
    from signalwarden.mtls import Certificates, Peers
    from signalwarden.peers import Peer

__all__ = [
    "CHECK_SERVICE",
    "REFUSED",
    "CheckTls",
    "Counts",
    "Front",
    "Refusal",
    "Refusals",
    "Unreached",
    "may_ask",
]

CHECK_SERVICE: Final = "envoy.service.auth.v3.Authorization"

REFUSED: Final = "this client may not ask"
"""All that a client is told which may not; the record says why."""


@dataclass(frozen=True, slots=True)
class CheckTls:
    """What a door needs to serve mutual TLS."""

    certificates: Certificates
    peers: Peers
    may_ask: Callable[[str], bool]
    """Whether this SPIFFE ID is one of `tls.check_clients`, as they are now."""

    @staticmethod
    def of(
        certificates: Certificates | None, peers: Peers, may_ask: Callable[[str], bool]
    ) -> CheckTls | None:
        """None: this door serves no TLS."""
        return CheckTls(certificates, peers, may_ask) if certificates is not None else None


@dataclass(frozen=True, slots=True)
class Refusal:
    """The last client that was refused."""

    count: int
    """Of all that were refused so far, it included."""
    client: str | None
    """Its SPIFFE ID, if it proved one."""
    detail: str


class Refusals:
    """Clients that may not ask. Thread-safe."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._last: Refusal | None = None

    def add(self, client: str | None, detail: str) -> None:
        """One more. `detail` is for the record."""
        with self._mutex:
            count = self._last.count if self._last is not None else 0
            self._last = Refusal(count + 1, client, detail)

    @property
    def last(self) -> Refusal | None:
        """None: nobody was refused."""
        return self._last


def may_ask(tls: CheckTls, refusals: Refusals, peer: Callable[[], Peer]) -> bool:
    """Whether a client may ask, as of now. `peer` verifies it and raises PeerRefused. A refusal is counted."""
    client: str | None = None
    try:
        client = peer().id
        if tls.may_ask(client):
            return True
        detail = "it is not one of `tls.check_clients`"
    except PeerRefused as refused:
        client, detail = refused.claimed, str(refused)
    refusals.add(client, detail)
    return False


class Unreached(NamedTuple):
    """What never reached a decision, so far. Each is the event of a transport record."""

    undelivered: int = 0
    """Calls of Check whose message never came."""
    unknown_method: int = 0
    """Calls of methods that do not exist."""
    turned_away: int = 0
    """Connections for which there was no room."""


class Counts(Protocol):
    """Calls that never reached a decision (I4)."""

    def settle(self) -> Unreached:
        """So far. Never falls."""

    @property
    def refusals(self) -> Refusal | None:
        """How many were refused so far, and the last of them; None: nobody."""


class Front(Protocol):
    """A front door, as the server sees it."""

    address: Address
    """With the port that the system chose."""
    serving: bool

    @property
    def counts(self) -> Counts:
        """What never reached a decision."""

    def start(self) -> None:
        """Answers from now on."""

    def stop(self, grace_s: float) -> None:
        """Says NOT_SERVING, lets calls in flight end for `grace_s`, then ends. May be called twice."""

    def judge_anew(self) -> None:
        """Whoever may ask may have changed: each client is judged anew at its next call."""
