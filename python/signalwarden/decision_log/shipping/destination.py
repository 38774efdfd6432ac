"""Where a shipper's batches go: the protocol, and what a destination says when it does not take one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from signalwarden.errors import LogError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Destination", "Encode", "Entry", "NotTakenError", "Taken"]


class Entry(NamedTuple):
    """A record of the log."""

    raw: bytes
    """As it stands there, without its newline."""
    record: dict[str, Any]


if TYPE_CHECKING:
    Encode = Callable[[Entry], bytes | None]
    """A record in another format, on one line; None if the format has no word for it."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A batch that was taken."""

    refused: int = 0
    """Records of it that the other side refused for good: to send them again is of no use."""


class NotTakenError(LogError):
    """A batch that was not taken, in one sentence: never with what was sent, a credential, or the other side's own
    words."""

    def __init__(self, sentence: str, *, retry_after_s: float = 0.0, too_large: bool = False) -> None:
        super().__init__(sentence)
        self.retry_after_s = retry_after_s
        """The other side asks for so much time."""
        self.too_large = too_large
        """Fewer records at once may be taken."""


class Destination(Protocol):
    """The other side of one sink. Used by one thread, but for `close`."""

    def send(self, batch: Sequence[Entry]) -> Taken:
        """Hands over a batch, within a bound of time that is the destination's own. Raises NotTakenError: then nobody
        knows whether it was taken, and it will come again."""

    def close(self) -> None:
        """Lets go, and ends what is under way. From any thread."""
