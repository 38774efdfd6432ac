"""First sight of tokens: validated beside the way of other checks, within bounds that no caller can move.

A flood of bad tokens costs little: a token that was refused is known for a while by its digest; whoever brings many new
bad ones is not looked at any more until a bucket has refilled; and only so many calls are here at once. Tokens that the
core knows never come here.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from signalwarden.tokens.proof import Proof, TokenRefused

if TYPE_CHECKING:
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
PEER_A_SECOND: Final = 2.0
"""Bad tokens of one peer that are looked at once the burst is used up. Good ones cost nothing."""
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
    ) -> bytes:
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
        self._refused.forget()

    def counters(self) -> dict[str, int]:
        """`first_sights`; of these `accepted`, `refused_<reason>` and `refused_unseen`, which were not looked at;
        `remembered`: tokens that were refused just before; and a gauge, `waiting`."""
        with self._mutex:
            counts = dict(self._counts)
        return {"first_sights": 0, "accepted": 0, "refused_unseen": 0, "remembered": 0, **counts} | {
            "waiting": self._places.taken()
        }

    def answer(self, request: bytes, pending: PendingLike) -> bytes:
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
        peer, ends = pending.peer, self._clock() + MAX_CALL_S
        for credential in pending.credentials:
            outcome = self._look(credential, peer, ends)
            if isinstance(outcome, Proof):
                proofs.append(outcome.to_json())
            else:
                refused.append((credential.digest, outcome.reason, outcome.detail))

    def _look(self, credential: CredentialLike, peer: str, ends: float) -> Proof | TokenRefused:
        self._count("first_sights")
        known = self._refused.get(credential.digest)
        if known is not None:
            self._count("remembered")
            return known
        unseen = LATE if self._clock() > ends else self._enter(peer)
        if unseen is not None:
            self._count("refused_unseen")
            return unseen
        outcome: Proof | TokenRefused = BROKEN
        try:
            outcome = self._validate(credential)
        finally:
            self._places.leave(peer)
            if isinstance(outcome, Proof):
                self._peers.give_back(peer)
        self._note(credential.digest, outcome)
        return outcome

    def _enter(self, peer: str) -> TokenRefused | None:
        """Takes what one bad token costs, and a place. Why not, if there is none."""
        if not self._peers.take(peer):
            return FLOODING
        if not self._places.enter(peer):
            self._peers.give_back(peer)
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

    def _note(self, digest: str, outcome: Proof | TokenRefused) -> None:
        if isinstance(outcome, Proof):
            self._count("accepted")
            return
        self._count(f"refused_{outcome.reason}")
        if not outcome.passing:
            self._refused.put(digest, outcome)

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


class _Peers:
    """A bucket for each peer that brought bad tokens: what it may still bring before it is not looked at."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._mutex = threading.Lock()
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, peer: str) -> bool:
        with self._mutex:
            left, now = self._now(peer)
            if left < 1.0:
                return False
            self._put(peer, left - 1.0, now)
            return True

    def give_back(self, peer: str) -> None:
        with self._mutex:
            left, now = self._now(peer)
            self._put(peer, left + 1.0, now)

    def _now(self, peer: str) -> tuple[float, float]:
        now = self._clock()
        left, then = self._left.get(peer, (float(PEER_BURST), now))
        return min(float(PEER_BURST), left + (now - then) * PEER_A_SECOND), now

    def _put(self, peer: str, left: float, now: float) -> None:
        if left >= PEER_BURST:
            self._left.pop(peer, None)
            return
        self._left[peer] = (left, now)
        self._left.move_to_end(peer)
        while len(self._left) > MAX_PEERS:
            self._left.popitem(last=False)


class _Refused:
    """What was refused just now, by digest."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._mutex = threading.Lock()
        self._known: OrderedDict[str, tuple[float, TokenRefused]] = OrderedDict()

    def get(self, digest: str) -> TokenRefused | None:
        with self._mutex:
            until, refused = self._known.get(digest, (0.0, None))
            if refused is not None and self._clock() >= until:
                del self._known[digest]
                return None
            return refused

    def put(self, digest: str, refused: TokenRefused) -> None:
        # A new one without traceback: that would keep every frame of the validation alive.
        bare = TokenRefused(refused.reason, refused.detail)
        with self._mutex:
            self._known[digest] = (self._clock() + REMEMBER_S, bare)
            self._known.move_to_end(digest)
            while len(self._known) > MAX_REMEMBERED:
                self._known.popitem(last=False)

    def forget(self) -> None:
        with self._mutex:
            self._known.clear()
