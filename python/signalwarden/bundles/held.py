"""The last good bundle of one source: how long it goes on when no better one comes, and what is said of it, once."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from signalwarden.bundles.bundle import Bundle

__all__ = ["Held", "Tell"]

logger = logging.getLogger("signalwarden")

Tell = Callable[[str, "Bundle | None"], None]
"""Takes the new state of one trust domain; None: withdrawn."""


class Held:
    """What one source has found last. `Tell` is called for each change, from the thread that found it."""

    def __init__(self, trust_domain: str, tell: Tell, clock: Callable[[], float] = time.monotonic) -> None:
        self.trust_domain = trust_domain
        self._tell = tell
        self._clock = clock
        self._mutex = threading.Lock()
        self._bundle: Bundle | None = None
        self._good_at: float | None = None
        self._error: str | None = None
        self.failures = 0

    @property
    def bundle(self) -> Bundle | None:
        """What is live; None: nothing."""
        return self._bundle

    def good(self, bundle: Bundle) -> None:
        """A bundle was read. One without any authority withdraws."""
        if not bundle.vouches:
            self.withdraw("it holds no authority")
            return
        with self._mutex:
            changed = self._bundle is None or self._bundle.revision != bundle.revision
            mended, self._error = self._error is not None, None
            self._bundle, self._good_at = bundle, self._clock()
        if changed:
            logger.info(
                "the bundle of `%s` is new: %d certificates, %d JWT authorities",
                self.trust_domain,
                len(bundle.x509),
                len(bundle.jwt),
            )
            self._tell(self.trust_domain, bundle)
        elif mended:
            logger.info("the bundle of `%s` can be read again", self.trust_domain)

    def failed(self, reason: str, life_s: float) -> None:
        """Nothing good was read. What is live goes on until it is `life_s` old."""
        with self._mutex:
            self.failures += 1
            repeated, self._error = self._error == reason, reason
            old = self._good_at is not None and self._clock() - self._good_at >= life_s
            alive = self._bundle is not None
        if alive and old:
            self.withdraw(f"no good one for {life_s:g} s: {reason}")
        elif not repeated:
            goes_on = "the last good one goes on" if alive else "there is none"
            logger.error("the bundle of `%s` can't be had, %s: %s", self.trust_domain, goes_on, reason)

    def withdraw(self, reason: str) -> None:
        """From now on nobody of that trust domain is known."""
        with self._mutex:
            alive, repeated = self._bundle is not None, self._error == reason
            self._bundle, self._good_at, self._error = None, None, reason
        if alive or not repeated:
            logger.error("there is no bundle of `%s`: %s", self.trust_domain, reason)
        if alive:
            self._tell(self.trust_domain, None)

    def detail(self) -> dict[str, Any]:
        """For `/readyz`: no certificate, no key."""
        with self._mutex:
            bundle, error, good_at = self._bundle, self._error, self._good_at
        found: dict[str, Any] = {"live": bundle is not None}
        if bundle is not None and good_at is not None:
            found |= bundle.summary() | {"age_s": round(self._clock() - good_at, 1)}
        if error is not None:
            found["error"] = error
        return found
