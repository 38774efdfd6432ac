"""Refused calls about tasks, approvals and overrides: each leaves a change record, and none can fill the log."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from signalwarden.errors import CallRefusedError
from signalwarden.rates import Sampled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from signalwarden.decision_log import Recorder

__all__ = ["Refusals"]

REFUSALS_A_SECOND: Final = 10
"""As for refused clients: more would let one client fill the log and deny everyone's requests. The rest are counted in
the next one."""
MAX_ABOUT: Final = 256
"""Letters of what the call names, which is the caller's text."""


class Refusals:
    """Writes `call_refused`. One for all desks, so that the bound is one. Thread-safe."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._sampled = Sampled(REFUSALS_A_SECOND)

    @contextmanager
    def noted(self, actor: str, call: str, about: str) -> Iterator[None]:
        """Records a CallRefusedError that is raised inside, and lets it go on. `call`: what was tried, such as
        `approval.deny`; `about`: the id or name that it was tried with."""
        try:
            yield
        except CallRefusedError as error:
            suppressed = self._sampled.take()
            if suppressed is not None:
                self._recorder.change(
                    "call_refused",
                    actor=actor,
                    call=call,
                    about=about[:MAX_ABOUT] if about.isprintable() else "unprintable",
                    reason=error.code,
                    detail=error.detail,
                    decision_id=error.more.get("decision_id"),
                    suppressed=suppressed,
                )
            raise
