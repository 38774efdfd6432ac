"""An X509-SVID of our own, and the interface of those who bring it. Its key is in memory only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

__all__ = ["Svid", "SvidSource"]


@dataclass(frozen=True, slots=True)
class Svid:
    """Who we are to others, with what proves it."""

    id: str
    cert_chain_pem: bytes
    key_pem: bytes = field(repr=False)
    expires: datetime


class SvidSource(Protocol):
    """Brings our own SVID, and the next one before it runs out. Thread-safe."""

    def current(self) -> Svid | None:
        """What to show to others now; None while there is none: then nobody may be let in."""

    def on_change(self, listener: Callable[[Svid | None], None]) -> None:
        """Calls `listener` after each change, from a thread of the source. It must not block."""
