"""Who is asking, beside the core: keeps the keys and bundles that tokens are checked by, hands their state to the core, and
validates tokens on first sight. Nothing here knows what anyone may do (I7)."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, Final

import orjson

from signalwarden import outbound
from signalwarden.tokens import Desk, Issuers, Validator

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from signalwarden import _core
    from signalwarden.bundles import Bundle, Bundles
    from signalwarden.config import Loaded
    from signalwarden.decision_log import Recorder
    from signalwarden.identity_settings import IdentitySettings

__all__ = ["Identity"]

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
        self._settings: IdentitySettings | None = None
        self._issuers: Issuers | None = None
        self.desk = Desk(engine, Validator(), now_us=clock)
        bundles.on_change(self._bundle_moved)

    def adopt(self, loaded: Loaded) -> None:
        """Follows a configuration. Where its issuers are the same, their keys stay as they are."""
        with self._mutex:
            settings, before = loaded.settings.identity, self._issuers
            if before is None or settings != self._settings:
                self._issuers = Issuers(
                    settings, root=self._root, fetch=outbound.fetch, tell=self._moved, bundles=self._bundles
                )
                self._issuers.start()
                if before is not None:
                    before.stop(but=self._issuers.authorities())
                self._settings = settings
            issuers = self._issuers
            assert issuers is not None  # noqa: S101  # for the type checker
            accepted = frozenset((loaded.settings.trust_domain, *loaded.settings.federates_with))
            contracts = orjson.loads(loaded.configuration.describe())["signals"]
            self.desk.use(issuers.validator(claims_of(contracts), accepted))

    def stop(self) -> None:
        """Ends every thread. May be called twice."""
        with self._mutex:
            issuers, self._issuers, self._settings = self._issuers, None, None
        if issuers is not None:
            issuers.stop()

    # ------------------------------------------------------------ what proofs rest on

    def _moved(self, authority: str, members: Sequence[str]) -> None:
        """Hands the state of an authority to the core, whole; from then on nothing rests on what is gone."""
        if self._engine.set_authority(authority, members=members):
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
        """For `/metrics`: what became of tokens on first sight."""
        return {f"tokens_{name}": count for name, count in self.desk.counters().items()}


def claims_of(contracts: Sequence[Mapping[str, Any]]) -> dict[str, tuple[tuple[str, ...], ...]]:
    """The claims that contracts ask for, by issuer: a proof holds these and no others."""
    found: dict[str, set[tuple[str, ...]]] = {}
    for contract in contracts:
        for source in contract["sources"]:
            if source["kind"] == "token_claim":
                found.setdefault(source["issuer"], set()).add(tuple(source["claim"]))
    return {issuer: tuple(sorted(ways)) for issuer, ways in found.items()}
