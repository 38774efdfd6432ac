"""Sets of public keys (RFC 7517) of those whose signatures we check: from a file or an address, bounded.

A set is fetched when it has grown old, or when a signature names a key that is not in it, and then no more often
than once in `MIN_REFETCH_S`: whoever invents names of keys makes no traffic. A set that is kept (`KeySet.keep`) is
fetched by a thread of its own, whether or not anybody asks, and tells a listener what it holds.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from cryptography.hazmat.primitives.asymmetric import rsa

from signalwarden.errors import FeedError, KeySetError
from signalwarden.files import read_regular, why

__all__ = [
    "ALGORITHMS",
    "Fetch",
    "KeySet",
    "PublicKey",
    "file_reader",
    "public_key",
    "read_entries",
    "read_key_set",
    "revision_of",
    "url_reader",
]

logger = logging.getLogger(__name__)

ALGORITHMS: Final[Mapping[str, tuple[str, str | None]]] = {
    "RS256": ("RSA", None),
    "RS384": ("RSA", None),
    "RS512": ("RSA", None),
    "PS256": ("RSA", None),
    "PS384": ("RSA", None),
    "PS512": ("RSA", None),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
}
"""Every algorithm of ours, with the type and curve of its keys: signatures only. With `none` nobody signs, and a key
for HMAC is known to all who check, so that each of them could sign."""

THUMBPRINT_MEMBERS: Final[Mapping[str, tuple[str, ...]]] = {
    "RSA": ("e", "kty", "n"),
    "EC": ("crv", "kty", "x", "y"),
    "OKP": ("crv", "kty", "x"),
}
"""RFC 7638 section 3.2, RFC 8037 section 2."""

MAX_KEY_SET_BYTES: Final = 256 * 1024
"""A set of 64 keys of 4,096 bits with their certificates has 200 KB; those in use have 2 to 10."""
MAX_KEYS: Final = 64
MAX_KID_BYTES: Final = 256
"""A name is mostly a digest of 43 characters."""
MIN_RSA_BITS: Final = 2048
"""RFC 7518 section 3.3."""
MAX_RSA_BITS: Final = 8192
"""Time to verify grows with the square of the length: a key of 65,536 bits would be an attack."""
MIN_REFETCH_S: Final = 30.0
"""Between two fetches for the sake of an unknown key, or after one that failed."""
MAX_AGE_FACTOR: Final = 24
"""A set that can't be fetched any more is good for so many times its `refresh`, with a least of `MIN_LIFE_S`: then a
key that its owner took back might still be in it."""
MIN_LIFE_S: Final = 3_600.0
MAX_UNKNOWN: Final = 64
"""Names remembered as unknown since the last fetch."""
FETCH_TIMEOUT_S: Final = 10.0
WAIT_S: Final = 1.0
"""For another one's fetch: whoever waits holds a thread of the door, and may come again."""
JITTER: Final = 0.2
"""Up to which part of its age a kept set is fetched early: many servers that were started together do not ask at
once."""
STOP_S: Final = 2.0
"""For the thread that keeps a set; one in the middle of a fetch ends when that does."""


class Fetch(Protocol):
    """`outbound.fetch`, as far as it is used here."""

    def __call__(
        self,
        url: str,
        *,
        timeout_s: float,
        max_bytes: int,
        headers: Mapping[str, str] | None = None,
        ca_file: Path | None = None,
        method: str = "GET",
        body: bytes | None = None,
    ) -> Any: ...


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key of a set that can check signatures."""

    kid: str | None
    family: tuple[str, str | None]
    """Type and curve, as in `ALGORITHMS`."""
    algorithm: str | None
    """The one algorithm that its owner uses it with; None: any of its family."""
    material: Any
    """The key as the library for signatures takes it."""
    thumbprint: str = field(init=False)
    """RFC 7638: SHA-256 over the members that make the key, in base64url."""
    member: str = field(init=False)
    """What a proof that this key made rests on: its name and what it is."""

    def __post_init__(self) -> None:
        from signalwarden import jwts  # says why it is imported here

        jwk = jwts.jwk_of(self.material, self.family[0])
        members = {name: jwk[name] for name in THUMBPRINT_MEMBERS[self.family[0]]}
        written = json.dumps(members, separators=(",", ":"), sort_keys=True).encode()
        thumbprint = urlsafe_b64encode(hashlib.sha256(written).digest()).rstrip(b"=").decode()
        object.__setattr__(self, "thumbprint", thumbprint)
        object.__setattr__(self, "member", f"{self.kid or '-'} {thumbprint}")

    def is_for(self, algorithm: str) -> bool:
        """True if signatures of that algorithm can be checked with it."""
        return ALGORITHMS.get(algorithm) == self.family and self.algorithm in (None, algorithm)


def revision_of(members: Sequence[str]) -> str:
    """Names a state of a set: hex SHA-256 over its members in order."""
    return hashlib.sha256("\n".join(sorted(members)).encode()).hexdigest()


# ---------------------------------------------------------------- from bytes to keys


def read_entries(
    raw: bytes, what: str, *, max_bytes: int, max_keys: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A JWK set as it stands there (RFC 7517 section 5): the whole object, and its entries. `what` names it in what is
    raised, a KeySetError."""
    if len(raw) > max_bytes:
        raise KeySetError(f"{what} has more than {max_bytes} bytes")
    try:
        content = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise KeySetError(f"{what} is not JSON") from error
    entries = content.get("keys") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise KeySetError(f'{what} is not an object with a list of objects in `"keys"`')
    if len(entries) > max_keys:
        raise KeySetError(f"{what} has {len(entries)} keys, at most {max_keys} are read")
    return content, entries


def read_key_set(raw: bytes) -> tuple[PublicKey, ...]:
    """Reads a JWK set. Keys that are no use to us are left out (RFC 7517 section 5): other types, other uses, lengths
    out of bounds. A private key or a name that stands twice refuses the whole set."""
    _, entries = read_entries(raw, "the key set", max_bytes=MAX_KEY_SET_BYTES, max_keys=MAX_KEYS)
    keys = tuple(key for key in map(_read_key, entries) if key is not None)
    names = [(key.kid, key.family, key.algorithm) for key in keys if key.kid is not None]
    if len(set(names)) != len(names):
        raise KeySetError("two keys of the key set have the same `kid`")
    if not keys:
        raise KeySetError("the key set has no key that can check a signature")
    return keys


def _read_key(entry: dict[str, Any]) -> PublicKey | None:
    if entry.get("use", "sig") != "sig":
        return None
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    try:
        return public_key(entry)
    except _Malformed:
        return None


class _Malformed(KeySetError):
    """A key of a type that we know, without what makes it one."""


def public_key(entry: Mapping[str, Any]) -> PublicKey | None:
    """The key of one JWK, whatever its `use`; None for a type, algorithm or length that is no use to us. Raises
    KeySetError for one that is private or not what its type needs."""
    family = _family(entry)
    if family is None:
        return None
    if any(part in entry for part in ("d", "p", "q", "k")):
        raise KeySetError("the key set holds a private key: it is no secret any more, and is not used")
    kid, algorithm = entry.get("kid"), entry.get("alg")
    if kid is not None and (
        not isinstance(kid, str) or not 0 < len(kid.encode("utf-8", "replace")) <= MAX_KID_BYTES
    ):
        raise KeySetError(f"a `kid` of the key set is no text of 1 to {MAX_KID_BYTES} bytes")
    if algorithm is not None and (not isinstance(algorithm, str) or ALGORITHMS.get(algorithm) != family):
        return None
    any_of_family = next(name for name, of in ALGORITHMS.items() if of == family)
    from signalwarden import jwts  # says why it is imported here

    try:
        material = jwts.key_of(entry, algorithm or any_of_family)
    except ValueError as error:
        raise _Malformed(f"a key of the type `{family[0]}` lacks what its type needs") from error
    if isinstance(material, rsa.RSAPublicKey) and not MIN_RSA_BITS <= material.key_size <= MAX_RSA_BITS:
        return None
    return PublicKey(kid, family, algorithm, material)


def _family(entry: Mapping[str, Any]) -> tuple[str, str | None] | None:
    kty, curve = entry.get("kty"), entry.get("crv")
    family = ("RSA", None) if kty == "RSA" else (kty, curve)
    return next((known for known in ALGORITHMS.values() if known == family), None)


# ---------------------------------------------------------------- where bytes come from


def file_reader(path: Path) -> Callable[[], bytes]:
    """Reads the set from a file."""

    def read() -> bytes:
        try:
            return read_regular(path, MAX_KEY_SET_BYTES)
        except OSError as error:
            raise KeySetError(f"the key set `{path}` can't be read: {why(error)}") from error

    return read


def url_reader(url: str, fetch: Fetch, *, ca_file: Path | None = None) -> Callable[[], bytes]:
    """Fetches the set from an address."""

    def read() -> bytes:
        try:
            answer = fetch(
                url,
                timeout_s=FETCH_TIMEOUT_S,
                max_bytes=MAX_KEY_SET_BYTES,
                headers={"accept": "application/jwk-set+json, application/json"},
                ca_file=ca_file,
            )
        except FeedError as error:
            raise KeySetError(f"the key set can't be fetched: {error}") from error
        if answer.status != 200:
            raise KeySetError(
                f"the key set can't be fetched: the address answered with status {answer.status}"
            )
        body: bytes = answer.body
        return body

    return read


# ---------------------------------------------------------------- the set, kept fresh


Listener = Callable[[Sequence[str]], None]
"""Told the members of a set whenever they change; none when it can't be had any more."""


class KeySet:
    """The keys of one owner. Thread-safe; `find` may take as long as one fetch, of a kept set `WAIT_S` at most."""

    def __init__(
        self,
        read: Callable[[], bytes],
        *,
        refresh_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._refresh_s = refresh_s
        self._life_s = max(MIN_LIFE_S, refresh_s * MAX_AGE_FACTOR)
        self._refetch_s = min(MIN_REFETCH_S, refresh_s)
        self._clock = clock
        self._fetching = threading.Lock()
        """Held by the one who fetches."""
        self._moved = threading.Condition()
        """Notified after each fetch of the keeper, and to wake it."""
        self._keeper: threading.Thread | None = None
        self._listener: Listener | None = None
        self._told: tuple[str, ...] | None = None
        """None: nothing yet. Then a set that can't be had is told, too: another may have spoken for its owner."""
        self._wanted = False
        self._stopped = False
        self._fetches = 0
        self._under_way = False
        self._keys: tuple[PublicKey, ...] = ()
        self._members: tuple[str, ...] = ()
        self._revision = revision_of(())
        self._read_at: float | None = None
        self._tried_at: float | None = None
        self._unknown: set[str] = set()
        self._last_error: str | None = None

    def find(self, kid: str | None, algorithm: str) -> PublicKey | None:
        """The key of that name for that algorithm; None if its owner has none.

        Raises KeySetError while nobody can say: the set could not be had, or it is too soon to ask again."""
        newest = False
        if self._is_old(self._refresh_s):
            newest = self._refresh(wait=self._is_old(self._life_s))
        if self._is_old(self._life_s):
            raise KeySetError(self._last_error or "the key set has not been read yet")
        if kid is None or self._has(kid) or kid in self._unknown:
            return self._look(kid, algorithm)
        if not newest and not self._refresh(wait=True):
            reason = "the key is not in the set, which was fetched just now: ask again later"
            raise KeySetError(self._last_error or reason)
        if not self._has(kid) and len(self._unknown) < MAX_UNKNOWN:
            self._unknown.add(kid)
        return self._look(kid, algorithm)

    @property
    def last_error(self) -> str | None:
        """Why the last fetch failed; None if it didn't."""
        return self._last_error

    @property
    def revision(self) -> str:
        """Names the state of the set: hex SHA-256."""
        return self._revision

    def members(self) -> tuple[str, ...]:
        """What proofs may rest on now: `PublicKey.member` of each key; none if the set is older than its life."""
        return () if self._is_old(self._life_s) else self._members

    # ---- kept fresh without being asked

    def keep(self, listener: Listener, *, name: str = "keys") -> None:
        """Fetches from now on in a thread, and tells the listener each new state before `find` gives any of it."""
        self._listener = listener
        self._keeper = threading.Thread(target=self._keep, name=f"keep-{name}"[:64], daemon=True)
        self._keeper.start()

    def stop(self) -> None:
        """Ends the thread, and tells the listener nothing any more. What it was told last stands."""
        with self._moved:
            self._stopped = True
            self._moved.notify_all()
        if self._keeper is not None:
            self._keeper.join(STOP_S)

    def _keep(self) -> None:
        while True:
            with self._moved:
                self._moved.wait_for(lambda: self._stopped or self._wanted, timeout=self._pause_s())
                if self._stopped:
                    return
                self._wanted = False
            try:
                self._tend()
            except Exception:  # what ends this thread would freeze the set, good or bad
                logger.exception("a key set could not be tended")

    def _tend(self) -> None:
        with self._moved:
            self._under_way = self._is_due()
        try:
            if self._under_way:
                self._fetch(wait=True)
            if self._is_old(self._life_s):
                self._tell(())
        finally:
            with self._moved:
                self._fetches += self._under_way
                self._under_way = False
                self._moved.notify_all()

    def _pause_s(self) -> float:
        """Until the next fetch, or the end of the set's life if that comes first."""
        if self._tried_at is None:
            return 0.0
        now = self._clock()
        if self._last_error is not None:
            next_s = self._tried_at + self._refetch_s - now
            if self._read_at is not None and not self._is_old(self._life_s):
                next_s = min(next_s, self._read_at + self._life_s - now)
        else:
            early = self._refresh_s * random.uniform(1 - JITTER, 1)  # noqa: S311
            next_s = self._tried_at + max(early, self._refetch_s) - now
        return max(next_s, 0.01)

    def _is_due(self) -> bool:
        """Not more often than `_refetch_s`, whoever asked."""
        return self._tried_at is None or self._clock() - self._tried_at >= self._refetch_s

    def _ask(self, *, wait: bool) -> bool:
        """Has the keeper fetch; true if the set is newer than when this was called."""
        with self._moved:
            before, fetches = self._read_at, self._fetches
            if not self._under_way:
                if not self._is_due():
                    return False
                self._wanted = True
                self._moved.notify_all()
            if wait:
                self._moved.wait_for(lambda: self._fetches != fetches, timeout=WAIT_S)
        return self._read_at != before

    # ---- one fetch

    def _has(self, kid: str) -> bool:
        return any(key.kid == kid for key in self._keys)

    def _look(self, kid: str | None, algorithm: str) -> PublicKey | None:
        fitting = [key for key in self._keys if key.is_for(algorithm) and kid in (None, key.kid)]
        # Without a name only an only key is meant: which of two signed is not ours to try out.
        return fitting[0] if len(fitting) == 1 else None

    def _is_old(self, age_s: float) -> bool:
        return self._read_at is None or self._clock() - self._read_at >= age_s

    def _refresh(self, *, wait: bool) -> bool:
        """Fetches, unless that was tried just now. True if the set is newer than when this was called."""
        return self._ask(wait=wait) if self._keeper is not None else self._fetch(wait=wait)

    def _fetch(self, *, wait: bool) -> bool:
        before = self._read_at
        if not self._fetching.acquire(blocking=wait, timeout=WAIT_S if wait else -1):
            return False
        try:
            if self._read_at != before:
                return True  # another one fetched while this one waited
            now = self._clock()
            if not self._is_due():
                return False
            self._tried_at = now
            return self._replace(now)
        finally:
            self._fetching.release()

    def _replace(self, now: float) -> bool:
        try:
            keys = read_key_set(self._read())
        except KeySetError as error:
            self._last_error = str(error)
            return False
        members = tuple(key.member for key in keys)
        # First told, then found: a proof never rests on a key that its authority does not have yet.
        self._tell(members)
        self._keys, self._read_at, self._last_error = keys, now, None
        self._members, self._revision = members, revision_of(members)
        self._unknown = set()
        return True

    def _tell(self, members: tuple[str, ...]) -> None:
        # Once stopped, another set may speak for the same owner: a fetch that ends late says nothing any more.
        if self._listener is not None and not self._stopped and members != self._told:
            self._listener(members)
            self._told = members
