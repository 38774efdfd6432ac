"""Who is asking, beside the core: what tokens are checked by, its state handed to the core, and tokens on first sight.
Nothing here knows what anyone may do (I7)."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from signalwarden import outbound
from signalwarden.errors import BadInputError, KeysError
from signalwarden.tokens import Desk, Issuers, TokenRefused, Validator
from signalwarden.tokens.issuers import svid_terms

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from signalwarden import _core
    from signalwarden.bundles import Bundles
    from signalwarden.bundles.bundle import Bundle
    from signalwarden.config import Loaded
    from signalwarden.decision_log import Recorder
    from signalwarden.identity_settings import IdentitySettings

__all__ = ["AdminTokens", "Identity", "await_svid"]

_log = logging.getLogger("signalwarden")

BUNDLE: Final = "bundle"
"""The one member of `trust:<trust domain>` while a bundle of it is live."""


class Identity:
    """Key sets, bundles and the desk of one running server. Thread-safe."""

    def __init__(
        self,
        root: Path,
        engine: _core.Engine,
        bundles: Bundles,
        recorder: Recorder,
        clock: Callable[[], int],
    ) -> None:
        self._root = root
        self._engine = engine
        self._bundles = bundles
        self._recorder = recorder
        self._mutex = threading.Lock()
        """Held while a configuration is followed."""
        self._issuers: Issuers | None = None
        self._admin: Validator | None = None
        self._ended = False
        self.desk = Desk(engine, Validator(), now_us=clock)
        bundles.on_change(self._bundle_moved)

    def adopt(self, loaded: Loaded) -> None:
        """Follows a configuration. Where its issuers are the same, their keys stay as they are."""
        with self._mutex:
            settings, issuers = loaded.settings.identity, self._issuers
            if issuers is None or issuers.identity != settings:
                issuers = self._issuers = self._followed(settings, issuers)
            accepted = frozenset((loaded.settings.trust_domain, *loaded.settings.federates_with))
            self._admin = None
            if settings.admin_audience is not None:
                terms = svid_terms(settings, (settings.admin_audience,))
                self._admin = Validator(svids=terms, bundles=self._bundles, accepted=accepted)
            ways: dict[str, list[tuple[str, ...]]] = {}
            for issuer, way in loaded.configuration.token_claims():
                ways.setdefault(issuer, []).append(tuple(way))
            self.desk.use(issuers.validator(ways, accepted))

    def _followed(self, settings: IdentitySettings, before: Issuers | None) -> Issuers:
        """The issuers of other settings, in place of those before."""
        issuers = Issuers(
            settings, root=self._root, fetch=outbound.fetch, tell=self._moved, bundles=self._bundles
        )
        if before is not None:
            before.stop(but=issuers.authorities())
        issuers.start()
        return issuers

    def for_admin(self) -> Validator | None:
        """What JWT-SVIDs of clients of the admin API are validated by; None: they are not taken."""
        return self._admin

    def stop(self) -> None:
        """Ends every thread. No check comes any more, so nothing is withdrawn. May be called twice."""
        self._ended = True
        with self._mutex:
            issuers, self._issuers = self._issuers, None
        if issuers is not None:
            issuers.stop()

    # ------------------------------------------------------------ what proofs rest on

    def _moved(self, authority: str, members: Sequence[str]) -> None:
        """Hands the state of an authority to the core, whole; from then on nothing rests on what is gone."""
        if self._ended:
            return
        if self._engine.set_authority(authority, members=members):
            self.desk.forget()
            self._recorder.change("authority_changed", authority=authority, members=len(members))
            if not members:
                _log.warning("`%s` has no member any more: what rests on it does not count", authority)

    def _bundle_moved(self, trust_domain: str, bundle: Bundle | None) -> None:
        self._moved(f"jwt:{trust_domain}", [key.member for key in bundle.jwt.values()] if bundle else [])
        self._moved(f"trust:{trust_domain}", [BUNDLE] if bundle else [])

    # ------------------------------------------------------------ figures

    def detail(self) -> dict[str, Any]:
        """For `/readyz`: the bundles, and why a key set or status list can't be had."""
        issuers = self._issuers
        return {"bundles": self._bundles.detail(), "faults": issuers.faults() if issuers else {}}

    def numbers(self) -> dict[str, float]:
        """For `/metrics`: what became of tokens on first sight, and of bundles."""
        first_sights = {f"tokens_{name}": float(count) for name, count in self.desk.counters().items()}
        return {**first_sights, **self._bundles.counts()}


class AdminTokens:
    """JWT-SVIDs of clients of the admin API. Implements `clients.TokenClients`."""

    def __init__(self, identity: Identity, engine: _core.Engine, *, clock: Callable[[], int]) -> None:
        self._identity = identity
        self._engine = engine
        self._clock = clock

    def authenticate(self, token: bytes) -> str | None:
        """See TokenClients. The core looks at the proof as it does in checks: keys, lifetime, revocation."""
        validator = self._identity.for_admin()
        if validator is None:
            return None
        now = self._clock()
        try:
            digest = hashlib.sha256(token).hexdigest()
            proof = validator.validate("jwt_svid", token, digest=digest, now_us=now)
            principal, refused = self._engine.prove(proof.to_json(), certificate_sha256=None, now_us=now)
        except (TokenRefused, BadInputError) as error:
            _log.info("a client's JWT-SVID does not count: %s", error)
            return None
        if refused is not None:
            _log.info("a client's JWT-SVID does not count: %s", refused[1])
        return principal


SVID_WAIT_S: Final = 30.0
"""An agent that has just attested brings the first SVID within seconds."""
LOOK_S: Final = 0.05


def await_svid(bundles: Bundles) -> None:
    """Waits for our own SVID and the bundle beside it, which doors need to open. Raises KeysError."""
    end = time.monotonic() + SVID_WAIT_S
    while bundles.svids.current() is None or not bundles.roots_pem():
        if time.monotonic() >= end:
            missing = "SVID of our own" if bundles.svids.current() is None else "trust bundle"
            raise KeysError(
                f"no {missing} came from `workload_api` within {SVID_WAIT_S:.0f} s: is the agent there, and has it an "
                "entry for this process?"
            )
        time.sleep(LOOK_S)
