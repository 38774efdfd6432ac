"""First sight of tokens: validated beside the way of other checks, within bounds that no caller can move.

A flood of bad tokens costs little: a token that was refused is known for a while by its digest; whoever brings many new
bad ones is not looked at any more until a bucket has refilled; peers that never brought a good one share a bucket, so
that many of them get no more than a few; and only so many calls are here at once. Tokens that the core knows never come
here.
"""

from __future__ import annotations

import ipaddress
import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from signalwarden.tokens.proof import Proof, TokenRefused

if TYPE_CHECKING:
    from signalwarden import _core
    from signalwarden.tokens.validate import Validator

__all__ = ["MAX_WAITING", "Desk"]

logger = logging.getLogger(__name__)

MAX_WAITING: Final = 32
"""Calls that are validated at once, some of which wait for a key set. The front door needs so many threads beside those
that decide, so that no number of first sights holds up a check that needs none."""
MAX_PER_PEER: Final = 16
"""Of these, for one peer: whoever waits for keys that nobody has leaves half of the places to others."""
MAX_CALL_S: Final = 2.0
"""For all tokens of a call: after that the rest of them is refused unseen. One look waits for a key set, a status list
and a place to compute, each for a second at most; Envoy's own timeout is mostly below that."""
PEER_BURST: Final = 32
"""Bad tokens in a row that a peer is looked at for: a restart of many clients with old tokens behind one address."""
PEER_A_SECOND: Final = 10.0
"""Bad tokens of one peer that are looked at once the burst is used up, some 0.5% of a core. Good ones cost nothing; but
while a peer floods, its new ones are mostly not looked at either: nobody can tell them apart without a look."""
STRANGERS_BURST: Final = 256
STRANGERS_A_SECOND: Final = 100.0
"""Bad tokens that are looked at of all peers together that have brought no good one lately: some 5% of a core. A flood
from many addresses keeps new peers out while it lasts, not those that are known."""
GOOD_S: Final = 3_600.0
"""How long a peer is known by a good token: as long as tokens of workloads live."""
MAX_PEERS: Final = 10_000
"""Peers whose bad tokens are counted. The one longest unheard is forgotten first."""
REMEMBER_S: Final = 10.0
"""How long a refused token is known: clients come again at once with what was just refused. Short: a key may appear
that makes it good."""
MAX_REMEMBERED: Final = 16_384
"""Refused tokens that are known, some 500 bytes each."""

FLOODING = TokenRefused.invalid(
    "too many tokens of this peer were refused: try again in a moment", passing=True
)
CROWDED = TokenRefused.invalid("too many tokens are validated at the moment: try again", passing=True)
LATE = TokenRefused.invalid("the tokens of this call took too long to validate: try again", passing=True)
BROKEN = TokenRefused.invalid("the token could not be validated", passing=True)


class CredentialLike(Protocol):
    """`_core.Credential`."""

    @property
    def digest(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def header(self) -> str: ...
    @property
    def token(self) -> bytes: ...


class PendingLike(Protocol):
    """`_core.Pending`."""

    @property
    def peer(self) -> str: ...
    @property
    def credentials(self) -> Sequence[CredentialLike]: ...


class Answers(Protocol):
    """The part of the engine that is needed here."""

    def validated(
        self, request: bytes, *, proofs: Sequence[bytes], refused: Sequence[tuple[str, str, str]]
    ) -> bytes | _core.Held:
        """The second look at a call."""


class Desk:
    """Validates what was not seen before. Thread-safe."""

    def __init__(
        self,
        engine: Answers,
        validator: Validator,
        *,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._validator = validator
        self._now_us = now_us
        self._clock = clock
        self._places = _Places()
        self._peers = _Peers(clock)
        self._refused = _Refused(clock)
        self._mutex = threading.Lock()
        self._counts: Counter[str] = Counter()

    def use(self, validator: Validator) -> None:
        """From now on by another configuration. What the old one refused is forgotten."""
        self._validator = validator
        self.forget()

    def forget(self) -> None:
        """Forgets what was refused: a key or bundle has moved, and what was bad may be good."""
        self._refused.forget()

    def counters(self) -> dict[str, int]:
        """`first_sights`; of these `accepted`, `refused_<reason>` and `refused_unseen`, which were not looked at;
        `remembered`: tokens that were refused just before; and a gauge, `waiting`."""
        with self._mutex:
            counts = dict(self._counts)
        return {"first_sights": 0, "accepted": 0, "refused_unseen": 0, "remembered": 0, **counts} | {
            "waiting": self._places.taken()
        }

    def answer(self, request: bytes, pending: PendingLike) -> bytes | _core.Held:
        """Ends in the second look, whatever happens here."""
        proofs: list[bytes] = []
        refused: list[tuple[str, str, str]] = []
        try:
            self._judge(pending, proofs, refused)
            return self._engine.validated(request, proofs=proofs, refused=refused)
        except Exception as error:  # noqa: BLE001 - whatever it is, the call is answered
            # The kind alone: what a library says of a token may hold parts of it.
            logger.error("first sight of tokens failed: %s", type(error).__name__)
        # INVARIANT: what was not proven is unknown, and what is still unknown at the second look denies.
        return self._engine.validated(request, proofs=(), refused=())

    def _judge(self, pending: PendingLike, proofs: list[bytes], refused: list[tuple[str, str, str]]) -> None:
        peer, ends = _one_peer(pending.peer), self._clock() + MAX_CALL_S
        for credential in pending.credentials:
            outcome = self._look(credential, peer, ends)
            if isinstance(outcome, Proof):
                proofs.append(outcome.to_json())
            else:
                refused.append((credential.digest, outcome.reason, outcome.detail))

    def _look(self, credential: CredentialLike, peer: str, ends: float) -> Proof | TokenRefused:
        self._count("first_sights")
        name = f"{credential.digest} {credential.header}"
        known = self._refused.get(name)
        if known is not None:
            self._count("remembered")
            return known
        unseen = LATE if self._clock() > ends else self._enter(peer)
        if unseen is not None:
            self._count("refused_unseen")
            return unseen
        outcome: Proof | TokenRefused = BROKEN
        era = self._refused.era
        try:
            outcome = self._validate(credential)
        finally:
            self._places.leave(peer)
            if isinstance(outcome, Proof):
                self._peers.give_back(peer, good=True)
        self._note(name, outcome, era)
        return outcome

    def _enter(self, peer: str) -> TokenRefused | None:
        """Takes what one bad token costs, and a place. Why not, if there is none."""
        if not self._peers.take(peer):
            return FLOODING
        if not self._places.enter(peer):
            self._peers.give_back(peer, good=False)
            return CROWDED
        return None

    def _validate(self, credential: CredentialLike) -> Proof | TokenRefused:
        try:
            return self._validator.validate(
                credential.source,
                credential.token,
                digest=credential.digest,
                header=credential.header,
                now_us=self._now_us(),
            )
        except TokenRefused as refused:
            return refused
        except Exception as error:  # noqa: BLE001 - whatever it is, the call is answered
            logger.error("a token could not be validated: %s", type(error).__name__)
            return BROKEN

    def _note(self, name: str, outcome: Proof | TokenRefused, era: int) -> None:
        if isinstance(outcome, Proof):
            self._count("accepted")
            return
        self._count(f"refused_{outcome.reason}")
        if not outcome.passing:
            self._refused.put(name, outcome, era)

    def _count(self, name: str) -> None:
        with self._mutex:
            self._counts[name] += 1


class _Places:
    """Who is here at once, in all and of one peer."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._of: Counter[str] = Counter()
        self._all = 0

    def enter(self, peer: str) -> bool:
        with self._mutex:
            if self._all >= MAX_WAITING or self._of[peer] >= MAX_PER_PEER:
                return False
            self._all += 1
            self._of[peer] += 1
            return True

    def leave(self, peer: str) -> None:
        with self._mutex:
            self._all -= 1
            self._of[peer] -= 1
            if not self._of[peer]:
                del self._of[peer]

    def taken(self) -> int:
        with self._mutex:
            return self._all


def _one_peer(peer: str) -> str:
    """Whom a call is charged to. Whoever has one address of IPv6 has all of its /64."""
    if ":" not in peer or peer.startswith("spiffe:"):
        return peer
    try:
        return str(ipaddress.ip_network((peer, 64), strict=False))
    except ValueError:
        return peer


class _Bucket:
    """What is left of an allowance, and when that was so."""

    __slots__ = ("a_second", "burst", "left", "then")

    def __init__(self, burst: float, a_second: float, now: float) -> None:
        self.burst, self.a_second = burst, a_second
        self.left, self.then = burst, now

    def refill(self, now: float) -> float:
        self.left = min(self.burst, self.left + (now - self.then) * self.a_second)
        self.then = now
        return self.left


class _Peers:
    """Who brought bad tokens, and may bring a few more; who brought a good one lately."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._mutex = threading.Lock()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._strangers = _Bucket(STRANGERS_BURST, STRANGERS_A_SECOND, clock())
        self._good: OrderedDict[str, float] = OrderedDict()
        """Until when a peer is known by a good token."""

    def take(self, peer: str) -> bool:
        """Takes out what a bad token costs; false if that is not left."""
        with self._mutex:
            now = self._clock()
            own = self._buckets.get(peer) or _Bucket(PEER_BURST, PEER_A_SECOND, now)
            of_all = None if self._good.get(peer, 0.0) > now else self._strangers
            if own.refill(now) < 1.0 or (of_all is not None and of_all.refill(now) < 1.0):
                return False
            own.left -= 1.0
            if of_all is not None:
                of_all.left -= 1.0
            _put(self._buckets, peer, own)
            return True

    def give_back(self, peer: str, *, good: bool) -> None:
        """The token was a good one, or was not looked at after all."""
        with self._mutex:
            now = self._clock()
            known = self._good.get(peer, 0.0) > now
            for bucket in (self._buckets.get(peer), None if known else self._strangers):
                if bucket is not None:
                    bucket.left = min(bucket.burst, bucket.refill(now) + 1.0)
            if good:
                _put(self._good, peer, now + GOOD_S)


def _put(table: OrderedDict[str, Any], peer: str, held: object) -> None:
    table[peer] = held
    table.move_to_end(peer)
    while len(table) > MAX_PEERS:
        table.popitem(last=False)


class _Refused:
    """What was refused just now, by digest and header."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._mutex = threading.Lock()
        self._known: OrderedDict[str, tuple[float, TokenRefused]] = OrderedDict()
        self._era = 0

    @property
    def era(self) -> int:
        """Another one after each `forget`: what was found out before is then no longer remembered."""
        return self._era

    def get(self, name: str) -> TokenRefused | None:
        with self._mutex:
            until, refused = self._known.get(name, (0.0, None))
            if refused is not None and self._clock() >= until:
                del self._known[name]
                return None
            return refused

    def put(self, name: str, refused: TokenRefused, era: int) -> None:
        # A new one without traceback: that would keep every frame of the validation alive.
        bare = TokenRefused(refused.reason, refused.detail)
        with self._mutex:
            if era != self._era:
                return
            self._known[name] = (self._clock() + REMEMBER_S, bare)
            self._known.move_to_end(name)
            while len(self._known) > MAX_REMEMBERED:
                self._known.popitem(last=False)

    def forget(self) -> None:
        with self._mutex:
            self._era += 1
            self._known.clear()
