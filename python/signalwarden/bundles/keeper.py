"""The live bundles of every trust domain that we accept: one source each, one state, and who is told of changes."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from cryptography.hazmat.primitives.serialization import Encoding

from signalwarden.bundles.svid import Svid, SvidSource

if TYPE_CHECKING:
    from pathlib import Path

    from signalwarden.bundles.bundle import Bundle
    from signalwarden.bundles.held import Tell
    from signalwarden.bundles.sources import BundleSource, Spec
    from signalwarden.bundles.workload_api import WorkloadApi
    from signalwarden.identity_settings import BundleSettings
    from signalwarden.values import Address

__all__ = ["BundleKeys", "Bundles"]

logger = logging.getLogger("signalwarden")

POLL_S: Final = 0.02


class BundleKeys(Protocol):
    """`Settings`, as far as it is read here."""

    @property
    def trust_domain(self) -> str: ...
    @property
    def federates_with(self) -> tuple[str, ...]: ...
    @property
    def bundles(self) -> Mapping[str, BundleSettings]: ...
    @property
    def workload_api(self) -> Address | None: ...


class Bundles:
    """Bundles by trust domain. Thread-safe. Never merged: each vouches for its own trust domain alone."""

    def __init__(self, directory: Path, settings: BundleKeys) -> None:
        self._directory = directory
        self._settings = settings
        self._mutex = threading.RLock()
        """Held while the state changes and while listeners are told, so that they see changes in their order."""
        self._live: Mapping[str, Bundle] = {}
        self._roots = b""
        self._listeners: list[Tell] = []
        self._sources: dict[str, tuple[Spec, BundleSource]] = {}
        self._owners: dict[str, object] = {}
        """Who may speak for a trust domain that has a source of its own."""
        self._from: dict[str, object] = {}
        """Who brought what is live."""
        self._accepted: tuple[str, ...] = ()
        self._api: tuple[Address, WorkloadApi] | None = None
        self._api_owner: object = None
        self._own = _OwnSvid()
        self._running = False
        self._updates = self._withdrawals = self._past_failures = 0

    def get(self, trust_domain: str, /) -> Bundle | None:
        """The live bundle of a trust domain; None: nobody of it is known."""
        return self._live.get(trust_domain)

    def on_change(self, listener: Tell) -> None:
        """Calls `listener` after each change, from a thread of a source, one call at a time. It must not block.
        It is first told of every bundle that is live already."""
        with self._mutex:
            self._listeners.append(listener)
            for domain, bundle in self._live.items():
                _call(listener, domain, bundle)

    def roots_pem(self) -> bytes:
        """All authorities for X.509 in PEM, for the hint of a handshake. It proves nothing: whoever gets through with
        it is then verified with `verify_x509_svid`."""
        return self._roots

    @property
    def svids(self) -> SvidSource:
        """Our own SVID from the Workload API; the source stays the same while settings change. Without a
        `workload_api` there is none."""
        return self._own

    def detail(self) -> dict[str, Any]:
        """For `/readyz`: by trust domain, which source, whether live, revision, age and last error."""
        with self._mutex:
            sources, accepted, api = dict(self._sources), self._accepted, self._api
        domains: dict[str, Any] = {}
        for domain in accepted:
            if domain in sources:
                domains[domain] = sources[domain][1].detail()
            elif api is not None:
                domains[domain] = api[1].detail_of(domain)
        found: dict[str, Any] = {"trust_domains": domains}
        if api is not None:
            found["workload_api"] = api[1].detail()
        return found

    def missing(self) -> tuple[str, ...]:
        """Trust domains whose bundle should be here, and is not, or may be half a one yet."""
        with self._mutex:
            api = None if self._api is None else self._api[1]
            expected = self._accepted if api is not None else tuple(self._sources)
            half = api is not None and not api.heard
            return tuple(
                domain
                for domain in expected
                if domain not in self._live or (half and domain not in self._sources)
            )

    def counts(self) -> dict[str, float]:
        """For metrics: counters, and how many bundles are live."""
        with self._mutex:
            failures = self._past_failures + sum(source.failures for _, source in self._sources.values())
            failures += self._api[1].failures if self._api is not None else 0
            return {
                "bundle_updates": self._updates,
                "bundle_withdrawals": self._withdrawals,
                "bundle_failures": failures,
                "live_bundles": len(self._live),
            }

    # ---------------------------------------------------------------- life

    def start(self) -> None:
        """Starts every source. Bundles of files are live when this returns."""
        with self._mutex:
            self._running = True
        self.adopt(self._settings)

    def wait(self, timeout_s: float) -> bool:
        """Waits until every bundle is live. False if some are not in time: they may come later."""
        end = time.monotonic() + timeout_s
        while self.missing():
            if time.monotonic() >= end:
                return False
            time.sleep(POLL_S)
        return True

    def stop(self) -> None:
        """Stops every source. What is live stays, for calls under way. May be called twice."""
        with self._mutex:
            self._running = False
            sources, api = [source for _, source in self._sources.values()], self._api
        for source in sources:
            source.halt()
        for source in sources:
            source.stop()
        if api is not None:
            api[1].stop()

    def adopt(self, settings: BundleKeys) -> None:
        """Brings other settings into force: sources that they no longer name are stopped and what they brought is
        withdrawn, new ones are started, those that stay as they were go on undisturbed."""
        starting: list[BundleSource | WorkloadApi] = []
        with self._mutex:
            self._settings = settings
            if not self._running:
                return
            wanted = _plan(self._directory, settings)
            self._accepted = (settings.trust_domain, *settings.federates_with)
            for domain in [name for name, (spec, _) in self._sources.items() if wanted.get(name) != spec]:
                _, gone = self._sources.pop(domain)
                del self._owners[domain]
                self._past_failures += gone.failures
                gone.halt()  # what it may find yet is nobody's word: it is no owner any more
            stopping = self._change_api(settings.workload_api, starting)
            for domain, spec in wanted.items():
                if domain not in self._sources:
                    owner = self._owners[domain] = object()
                    made = spec.source(domain, functools.partial(self._told, owner))
                    self._sources[domain] = (spec, made)
                    starting.append(made)
            self._settle()
        # Outside: a client that is stopped may just be telling, and waits for the mutex.
        for api in stopping:
            api.stop()
        for new in starting:
            new.start()

    def _change_api(
        self, address: Address | None, starting: list[BundleSource | WorkloadApi]
    ) -> list[WorkloadApi]:
        """Which client goes, if any."""
        if self._api is not None and self._api[0] == address:
            return []
        gone = [] if self._api is None else [self._api[1]]
        self._past_failures += sum(api.failures for api in gone)
        self._api = None
        if address is not None:
            owner = self._api_owner = object()
            # Protobuf and gRPC, in memory only where there is an agent.
            from signalwarden.bundles.workload_api import WorkloadApi

            api = WorkloadApi(address, functools.partial(self._told, owner))
            self._api = (address, api)
            starting.append(api)
        self._own.follow(None if self._api is None else self._api[1])
        return gone

    # ---------------------------------------------------------------- state

    def _owner(self, domain: str) -> object:
        """Who may speak for a trust domain; None: nobody."""
        if domain in self._owners:
            return self._owners[domain]
        return self._api_owner if self._api is not None and domain in self._accepted else None

    def _told(self, owner: object, domain: str, bundle: Bundle | None) -> None:
        """A source has found something. One that was stopped speaks for nobody."""
        with self._mutex:
            if self._owner(domain) is owner:
                self._set(domain, bundle, owner)

    def _settle(self) -> None:
        """After a change of settings: nothing is live that another one brought than who speaks for it now."""
        for domain in {*self._live, *self._accepted}:
            owner = self._owner(domain)
            if owner is not None and owner is self._api_owner and self._api is not None:
                self._set(domain, self._api[1].bundle(domain), owner)
            elif owner is None or self._from.get(domain) is not owner:
                self._set(domain, None, owner)

    def _set(self, domain: str, bundle: Bundle | None, owner: object) -> None:
        before = self._live.get(domain)
        self._from[domain] = owner
        if before is bundle:
            return
        live = dict(self._live)
        if bundle is None:
            del live[domain]
            self._withdrawals += 1
        else:
            live[domain] = bundle
            self._updates += 1
        self._live = live
        self._roots = b"".join(
            authority.public_bytes(Encoding.PEM) for held in live.values() for authority in held.x509
        )
        for listener in self._listeners:
            _call(listener, domain, bundle)


class _OwnSvid:
    """A `SvidSource` that stays while the client behind it is exchanged."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._api: WorkloadApi | None = None
        self._listeners: list[Callable[[Svid | None], None]] = []

    def current(self) -> Svid | None:
        api = self._api
        return None if api is None else api.current()

    def on_change(self, listener: Callable[[Svid | None], None]) -> None:
        with self._mutex:
            self._listeners.append(listener)

    def follow(self, api: WorkloadApi | None) -> None:
        """From now on it is that client's."""
        had = self.current()
        self._api = api
        if api is not None:
            api.on_change(lambda svid: self._changed(api, svid))
        if had is not None:
            self._changed(api, self.current())

    def _changed(self, api: WorkloadApi | None, svid: Svid | None) -> None:
        with self._mutex:
            listeners = tuple(self._listeners)
        if api is self._api:
            for listener in listeners:
                listener(svid)


def _call(listener: Tell, domain: str, bundle: Bundle | None) -> None:
    try:
        listener(domain, bundle)
    except Exception:  # the others are told all the same
        logger.exception("a listener of trust bundles failed")


def _plan(directory: Path, settings: BundleKeys) -> dict[str, Spec]:
    """Which trust domain has which source of its own."""
    accepted = {settings.trust_domain, *settings.federates_with}
    named = {domain: entry for domain, entry in settings.bundles.items() if domain in accepted}
    if not named:
        return {}
    # They read certificates and fetch: in memory only where a trust domain has one.
    from signalwarden.bundles.sources import spec

    return {domain: spec(directory, entry) for domain, entry in named.items()}
