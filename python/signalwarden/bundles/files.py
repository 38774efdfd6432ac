"""A trust bundle from a file, read again and again.

A file that is gone or empty withdraws its bundle: that is how an operator takes it back. One that can't be read, or
holds no bundle, is taken for a slip of the pen: what was last good goes on for `BROKEN_LIFE_S`, then it is withdrawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from signalwarden.bundles.bundle import MAX_BUNDLE_BYTES, read_bundle
from signalwarden.bundles.held import Held, Tell
from signalwarden.bundles.looking import Looking
from signalwarden.errors import KeySetError
from signalwarden.files import read_regular, why

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["BROKEN_LIFE_S", "DEFAULT_REFRESH_S", "FileSource", "read_file"]

DEFAULT_REFRESH_S: Final = 10.0
MIN_HINT_S: Final = 1.0
"""A hint of 0 would have the file read without a pause."""
BROKEN_LIFE_S: Final = 600.0
"""Long enough to mend a file, too short to run on one that nobody looks after."""
SETTLE_S: Final = 0.5
"""A file that is gone is looked at once more after so long: whoever writes it in place empties it first."""


class FileSource:
    """The bundle in one file."""

    def __init__(self, trust_domain: str, path: Path, tell: Tell, *, refresh_s: float | None = None) -> None:
        self._path = path
        self._refresh_s = DEFAULT_REFRESH_S if refresh_s is None else refresh_s
        self._held = Held(trust_domain, tell)
        self._gone = False
        """Whether the last look found nothing."""
        self._looking = Looking(f"bundle {trust_domain}", self._look)

    def start(self) -> None:
        """Reads the file at once, so that its bundle is live when this returns."""
        self._look()
        self._looking.start()

    def halt(self) -> None:
        """Ends, without waiting."""
        self._looking.halt()

    def stop(self) -> None:
        """Ends. May be called twice, and without a start."""
        self._looking.stop()

    def detail(self) -> dict[str, Any]:
        """For `/readyz`."""
        return {"source": "file"} | self._held.detail()

    @property
    def failures(self) -> int:
        """Looks that found nothing good."""
        return self._held.failures

    def _look(self) -> float:
        held, path = self._held, self._path
        try:
            raw = read_file(path)
            if raw.strip():
                held.good(read_bundle(held.trust_domain, raw))
                self._gone = False
                return self._pause()
        except FileNotFoundError:
            pass
        except OSError as error:
            held.failed(f"`{path}` can't be read: {why(error)}", BROKEN_LIFE_S)
            return self._pause()
        except KeySetError as error:
            held.failed(f"`{path}`: {error}", BROKEN_LIFE_S)
            return self._pause()
        first, self._gone = not self._gone, True
        if first and held.bundle is not None:
            return min(SETTLE_S, self._pause())
        held.withdraw(f"`{path}` is gone or empty")
        return self._pause()

    def _pause(self) -> float:
        """To the next look: a hint makes looks more frequent, never less."""
        bundle = self._held.bundle
        hint = None if bundle is None else bundle.refresh_s
        return self._refresh_s if hint is None else min(self._refresh_s, max(hint, MIN_HINT_S))


def read_file(path: Path) -> bytes:
    """A bundle file, bounded. Raises OSError."""
    return read_regular(path, MAX_BUNDLE_BYTES)
