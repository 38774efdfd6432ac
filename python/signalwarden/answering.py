"""How a call is answered: by the core at once, or after its tokens were validated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from signalwarden import _core

__all__ = ["Answering", "FirstSight"]


class Deciding(Protocol):
    """The part of the engine that answers calls."""

    def check(self, request: bytes) -> bytes | _core.Pending:
        """The first look."""

    def validated(
        self, request: bytes, *, proofs: Sequence[bytes], refused: Sequence[tuple[str, str, str]]
    ) -> bytes:
        """The second look, which is the last."""


class FirstSight(Protocol):
    """Whoever validates tokens that were not seen before."""

    def answer(self, request: bytes, pending: _core.Pending) -> bytes:
        """Validates what is pending, bounded in work and time, and answers by the second look. Never raises for what a
        token is."""


class Answering:
    """The engine and whoever validates tokens, as one that answers."""

    def __init__(self, engine: Deciding, first_sight: FirstSight | None) -> None:
        self._engine = engine
        self._first_sight = first_sight

    def check(self, request: bytes) -> bytes:
        """Total: every input gives a CheckResponse."""
        answer = self._engine.check(request)
        if isinstance(answer, bytes):
            return answer
        if self._first_sight is None:
            # Nobody validates here: what is not known denies.
            return self._engine.validated(request, proofs=(), refused=())
        return self._first_sight.answer(request, answer)
