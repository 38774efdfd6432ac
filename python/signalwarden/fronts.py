"""Which front door the settings ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from signalwarden.front import CheckTls
from signalwarden.tokens import MAX_WAITING

if TYPE_CHECKING:
    from collections.abc import Callable

    from signalwarden import _core
    from signalwarden.answering import Answering
    from signalwarden.config import Settings
    from signalwarden.door_tls import DoorTls
    from signalwarden.front import Front

__all__ = ["front_door"]


def front_door(
    settings: Settings,
    engine: _core.Engine,
    answering: Answering,
    tls: DoorTls | None,
    may_ask: Callable[[str], bool],
) -> Front:
    """The check door, bound and not yet answering. Raises ServerError and KeysError."""
    listen = settings.listen
    shown = CheckTls.of(tls.certificates("check"), tls.peers, may_ask) if tls else None
    tokens = MAX_WAITING if settings.identity.takes_tokens else 0
    # Each is in memory only where it serves: grpcio and what it needs are more than a tenth of an idle server.
    if listen.front == "native":
        from signalwarden.native import NativeDoor

        return NativeDoor(engine, answering, listen.check, workers=tokens, threads=listen.threads, tls=shown)
    from signalwarden.server import FrontDoor, workers_for

    workers = workers_for(tokens=tokens, log_waits=settings.decision_log.waits, threads=listen.threads)
    return FrontDoor(answering, listen.check, reflection_on=listen.reflection, workers=workers, tls=shown)
