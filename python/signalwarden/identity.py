"""Who is asking, beside the core: keeps the keys and bundles that tokens are checked by, hands their state to the core, and
validates tokens on first sight. Nothing here knows what anyone may do (I7)."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, Final

import orjson

from signalwarden import outbound
from signalwarden.keysets import KeySet, file_reader, url_reader
from signalwarden.tokens.desk import Desk
from signalwarden.tokens.status import StatusLists
from signalwarden.tokens.terms import SVID_ALGORITHMS, Limits, PrincipalTemplate, Terms, TokenClass, Way
from signalwarden.tokens.validate import Entry, Validator

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from signalwarden import _core
    from signalwarden.bundles import Bundle, Bundles
    from signalwarden.config import Loaded, Settings
    from signalwarden.decision_log import Recorder
    from signalwarden.identity_settings import IssuerSettings, JwtSvidSettings, KeySource

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
        self._clock = clock
        self._mutex = threading.Lock()
        """Held while a configuration is followed."""
        self._key_sets: dict[tuple[str, KeySource], KeySet] = {}
        self._statuses: dict[tuple[str, IssuerSettings], StatusLists] = {}
        self.desk = Desk(engine, Validator(), clock=clock)
        bundles.on_change(self._bundle_moved)

    # ------------------------------------------------------------ a configuration

    def adopt(self, loaded: Loaded) -> None:
        """Follows a configuration: what is no longer named is stopped, what is new is fetched."""
        with self._mutex:
            settings = loaded.settings
            ways = claims_of(orjson.loads(loaded.configuration.describe())["signals"])
            issuers = settings.identity.oauth if "oauth" in settings.identity.sources else ()
            limits = settings.identity.limits
            entries = {
                (of.issuer, TokenClass(of.token_class)): self._entry(
                    of, _limits(getattr(limits, of.token_class))
                )
                for of in issuers
            }
            self._forget(issuers)
            self.desk.use(
                Validator(
                    svids=_svid_terms(settings),
                    entries=entries,
                    bundles=self._bundles,
                    ways=ways,
                    accepted=frozenset((settings.trust_domain, *settings.federates_with)),
                )
            )

    def stop(self) -> None:
        """Ends every thread. May be called twice."""
        with self._mutex:
            self._forget(())
        self.desk.stop()

    def _entry(self, issuer: IssuerSettings, limits: Limits) -> Entry:
        authority = f"keys:{issuer.token_class}:{issuer.issuer}"
        statuses = None
        if issuer.status_list is not None:
            statuses = self._statuses.get((authority, issuer)) or self._status_lists(authority, issuer)
        return Entry(
            terms=_issuer_terms(issuer, authority, limits),
            keys=self._keys(authority, issuer.keys),
            statuses=statuses,
            header=issuer.header_name,
        )

    def _keys(self, authority: str, source: KeySource) -> KeySet:
        known = self._key_sets.get((authority, source))
        if known is None:
            known = self._key_sets[authority, source] = self._key_set(source)
            known.keep(lambda members: self._moved(authority, members), name=authority)
        return known

    def _key_set(self, source: KeySource) -> KeySet:
        if source.url is None:
            read = file_reader(self._root / (source.file or ""))
        else:
            ca_file = self._root / source.ca_file if source.ca_file else None
            read = url_reader(source.url, outbound.fetch, ca_file=ca_file)
        return KeySet(read, refresh_s=source.refresh)

    def _forget(self, issuers: Sequence[IssuerSettings]) -> None:
        """Stops what these do not name."""
        named = {(f"keys:{i.token_class}:{i.issuer}", i.keys) for i in issuers}
        still = {authority for authority, _ in named}
        for key in [key for key in self._key_sets if key not in named]:
            self._key_sets.pop(key).stop()
            if key[0] not in still:
                self._moved(key[0], ())
        kept = set(issuers)
        for status in [status for status in self._statuses if status[1] not in kept]:
            self._statuses.pop(status).stop()

    def _status_lists(self, authority: str, issuer: IssuerSettings) -> StatusLists:
        raise NotImplementedError

    # ------------------------------------------------------------ what proofs rest on

    def _moved(self, authority: str, members: Sequence[str]) -> None:
        """Hands the state of an authority to the core, whole; from then on nothing rests on what is gone."""
        if self._engine.set_authority(authority, members=members):
            self._recorder.change("authority_changed", authority=authority, members=len(members))
            if not members:
                _log.warning("`%s` has no member any more: what rests on it does not count", authority)

    def _bundle_moved(self, trust_domain: str, bundle: Bundle | None) -> None:
        members = [key.member for key in bundle.jwt.values()] if bundle else []
        self._moved(f"jwt:{trust_domain}", members)
        self._moved(f"trust:{trust_domain}", [BUNDLE] if bundle else [])

    # ------------------------------------------------------------ figures

    def detail(self) -> dict[str, Any]:
        """For `/readyz`: bundles, and key sets with what was last wrong with them."""
        with self._mutex:
            sets = {
                authority: {"keys": len(keys.members()), "last_error": keys.last_error}
                for (authority, _), keys in self._key_sets.items()
            }
        return {"bundles": self._bundles.detail(), "key_sets": sets}

    def numbers(self) -> Mapping[str, float]:
        """For `/metrics`."""
        return self.desk.numbers()


def claims_of(contracts: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Way, ...]]:
    """The claims that contracts ask for, by issuer: a proof holds these and no others."""
    found: dict[str, set[Way]] = {}
    for contract in contracts:
        for source in contract["sources"]:
            if source["kind"] == "token_claim":
                found.setdefault(source["issuer"], set()).add(tuple(source["claim"]))
    return {issuer: tuple(sorted(ways)) for issuer, ways in found.items()}


def _limits(limit: Any) -> Limits:
    micros = [None if span is None else round(span * 1e6) for span in (limit.max_lifetime, limit.max_age)]
    return Limits(*micros)


def _svid_terms(settings: Settings) -> Terms | None:
    of: JwtSvidSettings | None = settings.identity.jwt_svid
    if of is None or "jwt_svid" not in settings.identity.sources:
        return None
    return Terms(
        token_class=TokenClass.JWT_SVID,
        issuer=None,
        audiences=frozenset(of.audience),
        algorithms=SVID_ALGORITHMS,
        digest=of.terms(),
        limits=_limits(settings.identity.limits.jwt_svid),
    )


def _issuer_terms(issuer: IssuerSettings, authority: str, limits: Limits) -> Terms:
    template = PrincipalTemplate.parse(issuer.principal, issuer.within) if issuer.principal else None
    return Terms(
        token_class=TokenClass(issuer.token_class),
        issuer=issuer.issuer,
        audiences=frozenset(issuer.audience),
        algorithms=frozenset(issuer.algorithms),
        digest=issuer.terms(),
        principal=template,
        must_be_bound=issuer.binding == "required",
        limits=limits,
        authority=authority,
        has_status=issuer.status_list is not None,
    )
