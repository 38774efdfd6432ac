"""Standard output: a record a line, for those who collect what containers print."""

from __future__ import annotations

import os
import select
import threading
from typing import TYPE_CHECKING, Final

from signalwarden.decision_log.shipping.destination import NotTakenError, Taken
from signalwarden.files import why

if TYPE_CHECKING:
    from collections.abc import Sequence

    from signalwarden.decision_log.shipping.destination import Encode, Entry

__all__ = ["Stdout"]

PIECE_BYTES: Final = 4_096
"""What a pipe takes whole or not at all (PIPE_BUF of Linux): so that a reader who is gone never gets half a piece."""
LOOK_S: Final = 0.2


class Stdout:
    """Writes whole lines to a descriptor. A reader who does not read makes it wait, and nobody else."""

    def __init__(self, encode: Encode, fd: int = 1) -> None:
        self._encode = encode
        self._fd = fd
        self._closed = threading.Event()
        self._broken_off = False
        """The last write ended within a line."""

    def send(self, batch: Sequence[Entry]) -> Taken:
        """See Destination."""
        lines = b"".join(line + b"\n" for entry in batch if (line := self._encode(entry)) is not None)
        if self._broken_off:
            lines = b"\n" + lines
        rest = memoryview(lines)
        try:
            while rest:
                if self._closed.is_set():
                    raise NotTakenError("the server stops and nobody reads standard output")
                if select.select([], [self._fd], [], LOOK_S)[1]:
                    rest = rest[os.write(self._fd, rest[:PIECE_BYTES]) :]
        except (OSError, ValueError) as error:
            text = why(error) if isinstance(error, OSError) else "it is closed"
            raise NotTakenError(f"standard output can't be written: {text}") from error
        finally:
            sent = lines[: len(lines) - len(rest)]
            self._broken_off = bool(sent) and not sent.endswith(b"\n") if sent else self._broken_off
        return Taken()

    def close(self) -> None:
        """See Destination."""
        self._closed.set()
