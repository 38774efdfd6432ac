"""The file watch: looks at a directory now and then, and says once it has changed and then stood still.

By polling: it sees writes in place, atomic renames, editors' ways of saving and the links of a mounted Kubernetes
ConfigMap alike, on every file system, and needs nothing of the kernel. It does not read files: what is new in them, and
whether half a file was seen, is for `reloads.py` to find out.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from signalwarden.directory import Directory
from signalwarden.errors import SignalwardenError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from signalwarden.directory import Glance

__all__ = ["Watch"]

_log = logging.getLogger("signalwarden")

INTERVAL_S: Final = 0.5
"""Between two looks. A person who saves a file does not notice it."""
QUIET_S: Final = 1.0
"""So long nothing may change before a directory is read: above the pauses of an editor or a copy between two writes."""
SHARE: Final = 50
"""Looking takes at most one part in so many of the time: twenty thousand files take 0.1 s, so 5 s lie between."""
RESTLESS_S: Final = 60.0
"""A directory that changes for so long without a pause is said to do so, once: nothing of it can come into force."""
RETRY_S: Final = 30.0
"""After a failure that is not the directory's, such as a full disk."""
STOP_S: Final = 10.0
"""For a reload under way at a stop; ten thousand policies take about one."""


class Watch:
    """A thread that calls `changed` once for each change. `changed` says whether it is done with what it found:
    False asks for another call, after another quiet time. `glance`: what there is to look at."""

    def __init__(
        self,
        directory: Path,
        changed: Callable[[], bool],
        *,
        enabled: Callable[[], bool] = lambda: True,
        glance: Callable[[Path], Glance] = Directory.glance,
    ) -> None:
        self._directory = directory
        self._changed = changed
        self._enabled = enabled
        self._glance = glance
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._pause = INTERVAL_S
        self._seen: Glance | None = None
        self._done: Glance | None = None
        self._since = 0.0
        """When what was seen last was first seen."""
        self._restless: float | None = None
        """Since when it has not been quiet."""
        self._complained = False
        self._not_before = 0.0

    def start(self) -> None:
        """Begins to look. What changed since the directory was loaded is found as well."""
        self._thread.start()

    def stop(self) -> None:
        """Ends; a reload under way is waited for. May be called twice, and without a start."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(STOP_S)

    def _run(self) -> None:
        while not self._stop.wait(self._pause):
            try:
                if self._enabled():
                    self._look()
                else:
                    self._seen = self._done = self._restless = None
            except Exception:  # noqa: BLE001 - the last line: a watch that has died would not be missed for long
                _log.exception("the watch of the directory failed, it goes on")
                self._not_before = time.monotonic() + RETRY_S

    def _look(self) -> None:
        begun = time.monotonic()
        found = self._glance(self._directory)
        now = time.monotonic()
        self._pause = max(INTERVAL_S, SHARE * (now - begun))
        if found != self._seen:
            self._seen, self._since = found, now
            self._restless = now if self._restless is None else self._restless
            self._complain(now - self._restless)
        elif found != self._done and now >= max(self._since + QUIET_S, self._not_before):
            self._restless, self._complained = None, False
            self._call(found)

    def _call(self, found: Glance) -> None:
        try:
            done = self._changed()
        except SignalwardenError as error:
            _log.error("a change of the directory can't be brought into force, it is tried again: %s", error)
            self._not_before = time.monotonic() + RETRY_S
            return
        if done:
            self._done = found
        else:
            self._since = time.monotonic()

    def _complain(self, seconds: float) -> None:
        if seconds >= RESTLESS_S and not self._complained:
            self._complained = True
            _log.warning(
                "the directory has changed for %d s without a pause of %g s, so it is not loaded",
                seconds,
                QUIET_S,
            )
