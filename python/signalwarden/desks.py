"""What the admin door changes, one desk for each kind of change, built for a running app; and what is done for them
each second."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from signalwarden.approvals import Approvals
from signalwarden.authzen import Authzen
from signalwarden.config import Right
from signalwarden.overrides import Overrides
from signalwarden.publishers import Publishers
from signalwarden.refusals import Refusals
from signalwarden.revocations import Revocations
from signalwarden.sweeping import Sweep
from signalwarden.tasks import Tasks
from signalwarden.tokens.grants import Signer

if TYPE_CHECKING:
    from collections.abc import Callable

    from signalwarden import _core
    from signalwarden.config import Settings
    from signalwarden.decision_log import Recorder
    from signalwarden.intake import Intake
    from signalwarden.services import Client
    from signalwarden.state import Store

__all__ = ["Desks"]

_log = logging.getLogger("signalwarden")


@dataclass(frozen=True, slots=True)
class Desks:
    """One of each."""

    approvals: Approvals
    authzen: Authzen
    overrides: Overrides
    publishers: Publishers
    revocations: Revocations
    sweep: Sweep
    tasks: Tasks

    @classmethod
    def build(
        cls,
        engine: _core.Engine,
        store: Store,
        intake: Intake,
        recorder: Recorder,
        *,
        signer: Signer,
        settings: Callable[[], Settings],
        refused: Callable[[Client, Right, str], None],
        description: Callable[[], bytes],
        clock: Callable[[], int],
    ) -> Desks:
        """`settings` and `description`: of the directory in force. `refused` writes down what a client may not do."""
        refusals = Refusals(recorder)

        def may_override(client: str) -> bool:
            entries = settings().clients
            return any(entry.id == client and "override" in entry.may for entry in entries)

        return cls(
            approvals=Approvals(engine, intake, recorder, refusals, clock=clock),
            authzen=Authzen(
                engine,
                settings=lambda: settings().authzen,
                refused=lambda client, why: refused(client, Right.EVALUATE, why),
                clock=clock,
            ),
            overrides=Overrides(
                engine, intake, recorder, refusals, description=description, may=may_override, clock=clock
            ),
            publishers=Publishers(engine, intake, recorder, description=description, clock=clock),
            revocations=Revocations(engine, intake, recorder, clock=clock),
            sweep=Sweep(engine, store, intake, clock=clock),
            tasks=Tasks(engine, intake, recorder, refusals, signer=signer, clock=clock),
        )

    def numbers(self) -> dict[str, float]:
        """What is counted of them, by name."""
        return {**self.overrides.numbers(), **self.authzen.numbers()}

    def tick(self) -> None:
        """Each second: what counts no more is let go of, and what has ended is said. Never raises."""
        for act in (self.sweep.run, self.overrides.sweep):
            try:
                act()
            except Exception as error:  # noqa: BLE001 - the ticker also keeps the mark of time, and must go on
                _log.error("what counts no more can't be let go of: %s", error)
