"""Trust bundles and our own X509-SVID from the SPIFFE Workload API, such as that of a SPIRE agent.

Three streams: X.509 authorities, JWT authorities, SVIDs. What a message leaves out is gone at once. What a message has
but can't be read keeps its last good state for `BROKEN_LIFE_S`; while there is no connection everything keeps it for
`LOST_LIFE_S`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from signalwarden.bundles.bundle import MAX_AUTHORITIES, MAX_BUNDLE_BYTES, Bundle, read_jwt_bundle
from signalwarden.bundles.streams import Stream, Taker, channel
from signalwarden.bundles.svid import Svid
from signalwarden.bundles.workload_messages import FETCH_JWT_BUNDLES, FETCH_X509_BUNDLES, FETCH_X509_SVID
from signalwarden.bundles.x509 import MAX_CHAIN, X509Refused, certificates, named
from signalwarden.errors import KeySetError
from signalwarden.values import is_trust_domain

if TYPE_CHECKING:
    from signalwarden.bundles.held import Tell
    from signalwarden.keysets import PublicKey
    from signalwarden.values import Address

__all__ = ["BROKEN_LIFE_S", "LOST_LIFE_S", "WorkloadApi"]

logger = logging.getLogger("signalwarden")

LOST_LIFE_S: Final = 3_600.0
"""How long all goes on without an agent, as with an address that can't be fetched: a restart or an upgrade of the node
takes minutes; after that a key that was taken back might still be here."""
BROKEN_LIFE_S: Final = 600.0
"""As a bundle file that can't be read."""
MAX_DOMAINS: Final = 256
"""Trust domains in one message."""
MAX_SVIDS: Final = 64
MAX_KEY_BYTES: Final = 16 * 1024
TICK_S: Final = 0.5
"""Between two looks at what has grown too old."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Entry(Generic[_T]):
    """What one trust domain's authorities of one kind are."""

    value: _T
    broken_since: float | None = None


class _Part(Generic[_T]):
    """The authorities of one kind of all trust domains, as one stream tells them."""

    def __init__(
        self, read: Callable[[bytes], _T], mutex: threading.RLock, changed: Callable[[], None]
    ) -> None:
        self._read = read
        self._mutex = mutex
        self._changed = changed
        self._entries: Mapping[str, _Entry[_T]] = {}
        self._broken: Mapping[str, str] = {}

    def take(self, message: Any) -> None:
        """The whole new state."""
        told: Mapping[str, bytes] = message.bundles
        if not 0 < len(told) <= MAX_DOMAINS:
            raise ValueError(f"a message with {len(told)} trust domains, expected 1 to {MAX_DOMAINS}")
        with self._mutex:
            self._replace(told)

    def _replace(self, told: Mapping[str, bytes]) -> None:
        entries: dict[str, _Entry[_T]] = {}
        broken: dict[str, str] = {}
        for name, raw in told.items():
            domain = name.removeprefix("spiffe://")
            if not is_trust_domain(domain):
                logger.warning(
                    "the workload API tells of a trust domain that has no good name, it is left out"
                )
                continue
            try:
                entries[domain] = _Entry(self._read(raw))
            except ValueError as error:
                broken[domain] = str(error)
                if (old := self._entries.get(domain)) is not None:
                    entries[domain] = _Entry(old.value, old.broken_since or time.monotonic())
                if domain not in self._broken:
                    logger.error(
                        "the workload API tells a bundle of `%s` that is not used: %s", domain, error
                    )
        self._entries, self._broken = entries, broken
        self._changed()

    def denied(self) -> None:
        """Nothing is ours any more."""
        with self._mutex:
            self._entries, self._broken = {}, {}
            self._changed()

    def values(self) -> dict[str, _T]:
        """What is in force, by trust domain."""
        return {domain: entry.value for domain, entry in self._entries.items()}

    def broken(self) -> Mapping[str, str]:
        """Why what was told last of a trust domain is not used."""
        return self._broken

    def age(self, now: float, lost_for: float) -> None:
        """Forgets what has gone on for too long."""
        with self._mutex:
            kept = {} if lost_for >= LOST_LIFE_S else self._fresh(now)
            if len(kept) != len(self._entries):
                logger.error("what the workload API told has grown too old, it is withdrawn")
                self._entries = kept
                self._changed()

    def _fresh(self, now: float) -> Mapping[str, _Entry[_T]]:
        return {
            domain: entry
            for domain, entry in self._entries.items()
            if entry.broken_since is None or now - entry.broken_since < BROKEN_LIFE_S
        }


class _Svids:
    """Our own SVID, as its stream tells it."""

    def __init__(self, mutex: threading.RLock, changed: Callable[[Svid | None], None]) -> None:
        self._mutex = mutex
        self._changed = changed
        self._svid: Svid | None = None

    @property
    def svid(self) -> Svid | None:
        """The one in force."""
        svid = self._svid
        return svid if svid is not None and datetime.now(UTC) < svid.expires else None

    def take(self, message: Any) -> None:
        """The first is the default (section 5.3)."""
        if not 0 < len(message.svids) <= MAX_SVIDS:
            raise ValueError(f"a message with {len(message.svids)} SVIDs, expected 1 to {MAX_SVIDS}")
        self._put(_svid(message.svids[0]))

    def denied(self) -> None:
        """Nothing is ours any more."""
        self._put(None)

    def age(self, now: float, lost_for: float) -> None:  # noqa: ARG002 - a lost connection alone takes nothing
        """One that has run out is none. A lost connection alone takes nothing: it is short-lived anyway."""
        with self._mutex:
            if self._svid is not None and self.svid is None:
                logger.error("our own SVID `%s` has run out", self._svid.id)
                self._put(None)

    def _put(self, svid: Svid | None) -> None:
        with self._mutex:
            changed, self._svid = svid != self._svid, svid
            if changed:
                self._changed(svid)


class WorkloadApi:
    """A client of one Workload API. It is a `SvidSource`; `tell` gets the bundles of every trust domain it knows of."""

    def __init__(self, address: Address, tell: Tell) -> None:
        self._address = address
        self._tell = tell
        self._mutex = threading.RLock()
        self._live: Mapping[str, Bundle] = {}
        self._listeners: list[Callable[[Svid | None], None]] = []
        self._x509 = _Part(_authorities, self._mutex, self._recompute)
        self._jwt: _Part[Mapping[str, PublicKey]] = _Part(_jwt_authorities, self._mutex, self._recompute)
        self._svids = _Svids(self._mutex, self._new_svid)
        self._channel = channel(str(address).replace("unix://", "unix:", 1))
        parts: dict[str, Taker] = {
            FETCH_X509_BUNDLES: self._x509,
            FETCH_JWT_BUNDLES: self._jwt,
            FETCH_X509_SVID: self._svids,
        }
        self._streams = [
            (Stream(self._channel, method, part, self._nudge), part) for method, part in parts.items()
        ]
        self._stop = threading.Event()
        self._ticking = threading.Thread(target=self._tick, name="workload API", daemon=True)

    def start(self) -> None:
        """Opens the streams; the first state comes some time after."""
        for stream, _ in self._streams:
            stream.start()
        self._ticking.start()

    def stop(self) -> None:
        """Closes all. May be called twice, and without a start."""
        self._stop.set()
        for stream, _ in self._streams:
            stream.stop()
        if self._ticking.ident is not None:
            self._ticking.join()
        self._channel.close()

    def current(self) -> Svid | None:
        """Our own SVID; None while there is none, or once it has run out."""
        return self._svids.svid

    def on_change(self, listener: Callable[[Svid | None], None]) -> None:
        """Calls `listener` after each change of our own SVID. It must not block."""
        with self._mutex:
            self._listeners.append(listener)

    def bundle(self, trust_domain: str) -> Bundle | None:
        """What is told of that trust domain now."""
        return self._live.get(trust_domain)

    @property
    def heard(self) -> bool:
        """Whether authorities of both kinds were told of, or refused: one of the two alone is half a bundle."""
        return all(stream.heard for stream, part in self._streams if part is not self._svids)

    @property
    def failures(self) -> int:
        """Lost connections and messages that were not used."""
        return sum(stream.failures for stream, _ in self._streams)

    def detail(self) -> dict[str, Any]:
        """For `/readyz`."""
        errors = sorted({stream.error for stream, _ in self._streams if stream.error is not None})
        svid = self.current()
        own = None if svid is None else {"id": svid.id, "expires": svid.expires.isoformat()}
        return {"connected": not errors, "errors": errors, "svid": own}

    def detail_of(self, trust_domain: str) -> dict[str, Any]:
        """For `/readyz`."""
        bundle = self.bundle(trust_domain)
        found: dict[str, Any] = {"source": "workload_api", "live": bundle is not None}
        if bundle is not None:
            found |= bundle.summary()
        for part in (self._x509, self._jwt):
            if (error := part.broken().get(trust_domain)) is not None:
                found["error"] = error
        return found

    def _nudge(self) -> None:
        """One stream is well again, so the agent is: the others need not wait for their turn."""
        for stream, _ in self._streams:
            stream.nudge()

    def _recompute(self) -> None:
        """Brings both kinds together, and tells what is other than before."""
        with self._mutex:
            certs, keys = self._x509.values(), self._jwt.values()
            new: dict[str, Bundle] = {}
            for domain in sorted(certs.keys() | keys.keys()):
                bundle = Bundle.of(domain, certs.get(domain, ()), keys.get(domain))
                if bundle.vouches:
                    new[domain] = bundle
            old, self._live = self._live, new
            for domain in sorted(old.keys() | new.keys()):
                before, after = old.get(domain), new.get(domain)
                if (before and before.revision) != (after and after.revision):
                    self._tell(domain, after)

    def _new_svid(self, svid: Svid | None) -> None:
        with self._mutex:
            listeners = tuple(self._listeners)
        if svid is None:
            logger.error("there is no SVID of our own")
        else:
            logger.info("our own SVID is new: `%s`, until %s", svid.id, svid.expires.isoformat())
        for listener in listeners:
            try:
                listener(svid)
            except Exception:  # the others are told all the same
                logger.exception("a listener of our own SVID failed")

    def _tick(self) -> None:
        while not self._stop.wait(TICK_S):
            now = time.monotonic()
            for stream, part in self._streams:
                part.age(now, stream.lost_for(now))


# ---------------------------------------------------------------- from bytes


def _authorities(raw: bytes) -> tuple[x509.Certificate, ...]:
    if len(raw) > MAX_BUNDLE_BYTES:
        raise ValueError(f"it has more than {MAX_BUNDLE_BYTES} bytes")
    try:
        found = certificates(raw, MAX_AUTHORITIES)
    except ValueError as error:
        raise ValueError("its X.509 authorities are not certificates in DER, or too many") from error
    if not found:
        raise ValueError("it holds no X.509 authority")
    return found


def _jwt_authorities(raw: bytes) -> Mapping[str, PublicKey]:
    try:
        return read_jwt_bundle(raw)
    except KeySetError as error:
        raise ValueError(str(error)) from error


def _svid(told: Any) -> Svid:
    """Reads one SVID. Nothing of the key is repeated, whatever is wrong with it. Raises ValueError."""
    try:
        chain = certificates(told.x509_svid, MAX_CHAIN)
    except ValueError as error:
        raise ValueError("an SVID whose chain is not certificates in DER") from error
    try:
        identity = named(chain[0]) if chain else None
    except X509Refused as error:
        raise ValueError(f"an SVID that is none: {error}") from error
    if identity is None or identity.id != told.spiffe_id:
        raise ValueError("an SVID whose certificate names another one")
    try:
        if len(told.x509_svid_key) > MAX_KEY_BYTES:
            raise ValueError("too long")
        key = load_der_private_key(told.x509_svid_key, None)
        key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    except Exception:  # noqa: BLE001 - whatever the library says may repeat the key
        raise ValueError("an SVID whose private key can't be read") from None
    ours, theirs = (_public(key.public_key()), _public(chain[0].public_key()))
    if ours != theirs:
        raise ValueError("an SVID whose private key is not that of its certificate")
    return Svid(identity.id, _pem(chain), key_pem, identity.not_after)


def _public(key: Any) -> bytes:
    spki: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return spki


def _pem(chain: Iterable[x509.Certificate]) -> bytes:
    return b"".join(cert.public_bytes(Encoding.PEM) for cert in chain)
