"""How a call is answered: by the core at once, after its tokens were validated, or after what it changes was kept."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from signalwarden import _core
from signalwarden.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Answering", "Asking", "FirstSight", "Keeping"]

logger = logging.getLogger(__name__)


class Deciding(Protocol):
    """The part of the engine that answers calls."""

    def check(self, request: bytes) -> bytes | _core.Pending | _core.Held:
        """The first look."""

    def validated(
        self, request: bytes, *, proofs: Sequence[bytes], refused: Sequence[tuple[str, str, str]]
    ) -> bytes | _core.Held:
        """The second look, which is the last."""

    def finish(self, held: _core.Held, *, kept: bool) -> tuple[bytes, list[_core.StoredChange]]:
        """The answer of a decision that was held."""


class FirstSight(Protocol):
    """Whoever validates tokens that were not seen before."""

    def answer(self, request: bytes, pending: _core.Pending) -> bytes | _core.Held:
        """Validates what is pending, bounded in work and time, and answers by the second look. Never raises for what a
        token is."""


class Keeping(Protocol):
    """Whoever makes changes durable: `intake.Intake`."""

    def keep(self, make: Callable[[], Sequence[_core.StoredChange]]) -> None:
        """Keeps and takes in. Raises StateError."""


class Asking(Protocol):
    """Whoever is told of questions: `approvals.Approvals`."""

    def asked(self, held: _core.Held) -> bool:
        """Once what a decision changes is kept. True if a rule has said yes: the call is worth another look."""

    def noted(self, changes: Sequence[_core.StoredChange]) -> None:
        """Of further changes that are kept."""


class Answering:
    """The engine, whoever validates tokens and whoever keeps changes, as one that answers."""

    def __init__(
        self,
        engine: Deciding,
        first_sight: FirstSight | None,
        keeping: Keeping | None = None,
        asking: Asking | None = None,
    ) -> None:
        """Where nobody keeps, what must be kept before an answer denies."""
        self._engine = engine
        self._first_sight = first_sight
        self._keeping = keeping
        self._asking = asking

    def check(self, request: bytes) -> bytes:
        """Total: every input gives a CheckResponse."""
        found = self._engine.check(request)
        return found if isinstance(found, bytes) else self.conclude(request, found)

    def conclude(self, request: bytes, found: _core.Pending | _core.Held) -> bytes:
        """The answer where the first look found what the core can't answer alone. Total."""
        answer = self._seen(request, found)
        if isinstance(answer, bytes):
            return answer
        answer, is_waived = self._finish(answer)
        if not is_waived:
            return answer
        # A rule has just said yes to exactly this call, which is a decision of its own.
        again = self._seen(request, self._engine.check(request))
        return again if isinstance(again, bytes) else self._finish(again)[0]

    def _seen(self, request: bytes, found: bytes | _core.Pending | _core.Held) -> bytes | _core.Held:
        if not isinstance(found, _core.Pending):
            return found
        if self._first_sight is None:
            # Nobody validates here: what is not known denies.
            return self._engine.validated(request, proofs=(), refused=())
        try:
            return self._first_sight.answer(request, found)
        except Exception:
            # INVARIANT I4: a fault of ours is a denial with a record, too.
            logger.exception("tokens could not be validated, so they don't count")
            return self._engine.validated(request, proofs=(), refused=())

    def _finish(self, held: _core.Held) -> tuple[bytes, bool]:
        """Keeps first, answers then: what is not durable is no ground for an answer."""
        is_waived = False
        kept = self._keep(lambda: held.changes, "what a decision changes can't be kept, so it denies")
        if kept and self._asking is not None:
            try:
                is_waived = self._asking.asked(held)
            except StateError as error:
                logger.error("the answer of a rule can't be kept: %s", error)
            except Exception:
                logger.exception("nobody could be told of a question")
        answer, undo = self._engine.finish(held, kept=kept)
        if undo:
            # If that fails the yes stays used, though no call was made: whoever asks must ask again.
            kept = self._keep(lambda: undo, "an approval that came to nothing can't be given back")
            if kept and self._asking is not None:
                self._note(self._asking, undo)
        return answer, is_waived

    @staticmethod
    def _note(asking: Asking, changes: Sequence[_core.StoredChange]) -> None:
        try:
            asking.noted(changes)
        except Exception:  # the answer is decided and has its record
            logger.exception("nobody could be told of a change")

    def _keep(self, make: Callable[[], Sequence[_core.StoredChange]], otherwise: str) -> bool:
        if self._keeping is None:
            return False
        try:
            self._keeping.keep(make)
        except StateError as error:
            logger.error("%s: %s", otherwise, error)
            return False
        except Exception:
            # Whatever it was, it is not kept: the decision still needs its end, and its record.
            logger.exception("%s", otherwise)
            return False
        return True
