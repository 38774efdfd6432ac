"""Token Status Lists (draft-ietf-oauth-status-list-19): whether tokens that were issued still stand, as lists say that
are signed apart from them.

Fail-closed where it is configured: a token without a status, one whose list can't be had, and any status but VALID are
refused. What counts rests on the list that said so and on the key that signed the list: with another list, or without
that key, it is looked up again.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from signalwarden import jose
from signalwarden.errors import FeedError, KeySetError, SignalwardenError
from signalwarden.keysets import Fetch
from signalwarden.tokens.claims import MAX_SKEW_US, KeyFinder
from signalwarden.tokens.proof import TokenRefused

__all__ = ["StatusList", "StatusLists", "read_list"]

logger = logging.getLogger(__name__)

TYPES: Final = ("statuslist+jwt", "application/statuslist+jwt")
ACCEPT: Final = "application/statuslist+jwt"
MAX_LIST_BYTES: Final = 4 * 1024 * 1024
"""As it comes: a list of ten million tokens, of which few are revoked, has about 2 MB."""
MAX_STATUS_BYTES: Final = 16 * 1024 * 1024
"""Unpacked: 128 million statuses of one bit. A few kilobytes could unpack to anything."""
MAX_LISTS: Final = 64
"""Lists of one issuer that are kept; an issuer begins another one after some hundred thousand tokens."""
MAX_URI_BYTES: Final = 2048
FETCH_TIMEOUT_S: Final = 10.0
WAIT_S: Final = 1.0
"""For a list that is fetched at the moment, by a call whose token needs it."""
MIN_REFETCH_S: Final = 30.0
"""Between two fetches of a list that could not be had."""
REFRESH_S: Final = 300.0
"""How often a list is fetched that does not say how long it may be kept (`ttl`)."""
MIN_REFRESH_S: Final = 10.0
MAX_REFRESH_S: Final = 3_600.0
"""Whatever `ttl` says: a revocation is to count within the hour."""
LIFE_FACTOR: Final = 3
"""A list that can't be fetched any more counts for so many times its refresh, and never beyond its `exp`."""
TICK_S: Final = 1.0
"""How often it is looked whether a list is old."""
STOP_S: Final = 2.0
VALID: Final = 0
BITS: Final = (1, 2, 4, 8)


class ListRefusedError(SignalwardenError):
    """A list that is not taken. Its text never holds what was read."""


@dataclass(frozen=True, slots=True)
class StatusList:
    """A list as it was signed."""

    bits: int
    statuses: bytes = field(repr=False)
    expires_at_us: int | None
    refresh_s: float
    digest: str
    """Of what it says of tokens: the same content signed again is the same list."""
    signer: str
    """The key that signed it, as a member of its set."""

    def status(self, index: int) -> int | None:
        """Section 4.1: the least significant bits of a byte come first; None beyond its end."""
        at, shift = divmod(index * self.bits, 8)
        if at >= len(self.statuses):
            return None
        return (self.statuses[at] >> shift) & ((1 << self.bits) - 1)


def read_list(raw: bytes, uri: str, keys: KeyFinder, algorithms: frozenset[str], now_us: int) -> StatusList:
    """A status list token (section 5.1), its signature checked. Raises ListRefusedError, or KeySetError while its key
    can't be had."""
    try:
        token = jose.read(raw.strip(), max_bytes=MAX_LIST_BYTES, what="the status list")
    except jose.MalformedError as error:
        raise ListRefusedError(str(error)) from error
    kind, algorithm = token.header.get("typ"), token.header.get("alg")
    if not isinstance(kind, str) or kind.lower() not in TYPES:
        raise ListRefusedError(f"expected `typ: {TYPES[0]}`")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise ListRefusedError("the algorithm of the status list's signature is not one that counts")
    kid = token.header.get("kid")
    if "crit" in token.header or "b64" in token.header or not isinstance(kid, str | None):
        raise ListRefusedError("the header of the status list asks for what is not understood")
    key = keys.find(kid, algorithm)
    if key is None or not token.is_signed_by(key, algorithm):
        raise ListRefusedError("the signature of the status list does not hold")
    try:
        claims = jose.read_object(token.payload, "the claims of the status list")
    except jose.MalformedError as error:
        raise ListRefusedError(str(error)) from error
    return _list(claims, uri, key.member, now_us)


def _list(claims: Mapping[str, Any], uri: str, signer: str, now_us: int) -> StatusList:
    if claims.get("sub") != uri:
        raise ListRefusedError("`sub` of the status list is not the address that it was fetched from")
    issued = jose.microseconds(claims.get("iat"))
    if issued is None or issued > now_us + MAX_SKEW_US:
        raise ListRefusedError("`iat` of the status list is missing, no time, or lies in the future")
    expires = None
    if claims.get("exp") is not None:
        expires = jose.microseconds(claims["exp"])
        if expires is None or expires <= now_us:
            raise ListRefusedError("the status list has expired, or its `exp` is no time")
    ttl = claims.get("ttl")
    if ttl is not None and (isinstance(ttl, bool) or not isinstance(ttl, int | float) or ttl <= 0):
        raise ListRefusedError("`ttl` of the status list is no positive number")
    content = claims.get("status_list")
    if not isinstance(content, dict):
        raise ListRefusedError("the status list has no object `status_list`")
    bits = content.get("bits")
    if isinstance(bits, bool) or bits not in BITS:
        raise ListRefusedError("`bits` of the status list is not 1, 2, 4 or 8")
    statuses = _unpacked(content.get("lst"))
    refresh_s = min(max(REFRESH_S if ttl is None else float(ttl), MIN_REFRESH_S), MAX_REFRESH_S)
    digest = hashlib.sha256(bytes([bits]) + statuses).hexdigest()
    return StatusList(bits, statuses, expires, refresh_s, digest, signer)


def _unpacked(packed: object) -> bytes:
    if not isinstance(packed, str) or not packed.isascii():
        raise ListRefusedError("`lst` of the status list is no text in base64url")
    try:
        compressed = jose.decoded(packed.encode(), "the status list")
        unpacker = zlib.decompressobj()
        statuses = unpacker.decompress(compressed, MAX_STATUS_BYTES + 1)
    except (zlib.error, jose.MalformedError) as error:
        raise ListRefusedError("`lst` of the status list is not compressed as it should be") from error
    if len(statuses) > MAX_STATUS_BYTES:
        raise ListRefusedError(f"the status list has more than {MAX_STATUS_BYTES} bytes")
    if not unpacker.eof or unpacker.unused_data:
        raise ListRefusedError("`lst` of the status list is cut off, or more follows")
    return statuses


class Keys(KeyFinder, Protocol):
    """`keysets.KeySet`, as far as it is used here."""

    def members(self) -> tuple[str, ...]:
        """What it holds now."""


class _Kept:
    """One list, by its address."""

    def __init__(self) -> None:
        self.list: StatusList | None = None
        self.read_at: float = 0.0
        self.tried_at: float | None = None
        self.told: tuple[str, ...] = ()
        self.error: str | None = None


Tell = Callable[[str, Sequence[str]], object]
"""Told the state of an authority, whole: `Engine.set_authority`."""


class StatusLists:
    """The lists of one issuer, kept fresh. Thread-safe; a call waits `WAIT_S` at most."""

    def __init__(
        self,
        *,
        uris: Sequence[str],
        keys: Keys,
        keys_authority: str,
        algorithms: frozenset[str],
        fetch: Fetch,
        tell: Tell,
        ca_file: Path | None = None,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._uris = tuple(uris)
        self._keys = keys
        self._keys_authority = keys_authority
        self._algorithms = algorithms
        self._fetch = fetch
        self._tell = tell
        self._ca_file = ca_file
        self._now_us = now_us
        self._clock = clock
        self._moved = threading.Condition()
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._stopped = False
        self._keeper = threading.Thread(target=self._keep, name="keep-status", daemon=True)

    def start(self) -> None:
        """Fetches from now on what tokens ask for, and what has grown old."""
        self._keeper.start()

    def stop(self) -> None:
        """Ends the thread, and withdraws every list: nobody keeps them fresh any more."""
        with self._moved:
            for uri, kept in self._kept.items():
                self._say(uri, kept, ())
            self._stopped = True
            self._moved.notify_all()
        if self._keeper.is_alive():
            self._keeper.join(STOP_S)

    def faults(self) -> dict[str, str]:
        """Why lists can't be had, by address."""
        with self._moved:
            return {uri: kept.error for uri, kept in self._kept.items() if kept.error is not None}

    def support(self, claims: Mapping[str, object], now_us: int) -> tuple[tuple[str, str], ...]:
        """What a token that stands rests on. Raises TokenRefused for one that does not, or of which nobody can say."""
        uri, index = self._reference(claims)
        held = self._current(uri, now_us)
        if held is None:
            raise TokenRefused.invalid(
                "the status list of the token can't be had at the moment", passing=True
            )
        status = held.status(index)
        if status is None:
            raise TokenRefused.invalid("the status list does not reach to the token's place in it")
        if status != VALID:
            raise TokenRefused.invalid("the token does not stand any more: its status list says so")
        return (f"status:{uri}", held.digest), (self._keys_authority, held.signer)

    def _reference(self, claims: Mapping[str, object]) -> tuple[str, int]:
        """Section 6.2. Only addresses that the configuration names are ever fetched."""
        status = claims.get("status")
        entry = status.get("status_list") if isinstance(status, dict) else None
        if not isinstance(entry, dict):
            raise TokenRefused.invalid("the token names no status list, and this issuer's must")
        uri, index = entry.get("uri"), entry.get("idx")
        if not isinstance(uri, str) or len(uri.encode()) > MAX_URI_BYTES or not self._may_name(uri):
            raise TokenRefused.invalid(
                "the token names a status list at an address that its issuer may not name"
            )
        if isinstance(index, bool) or not isinstance(index, int) or index < 0:
            raise TokenRefused.invalid("`idx` of the token's status is no number from 0")
        return uri, index

    def _may_name(self, uri: str) -> bool:
        """Below one of ours, letter by letter: nothing that a client or server would read as another place."""
        plain = all("!" <= letter <= "~" for letter in uri) and not any(
            part in uri for part in ("..", "%", "\\", "#")
        )
        return plain and any(uri == known or uri.startswith(_below(known)) for known in self._uris)

    # ---- kept

    def _current(self, uri: str, now_us: int) -> StatusList | None:
        with self._moved:
            kept = self._kept.get(uri)
            if kept is None:
                kept = self._kept[uri] = _Kept()
                self._forget_one()
            self._kept.move_to_end(uri)
            if self._good(kept, now_us) is None:
                self._moved.notify_all()
                self._moved.wait_for(
                    lambda: self._good(kept, now_us) is not None or not self._is_due(kept), WAIT_S
                )
            return self._good(kept, now_us)

    def _forget_one(self) -> None:
        """The list that no new token asked for longest. What rests on it is looked up again."""
        if len(self._kept) > MAX_LISTS:
            uri, kept = next(iter(self._kept.items()))
            self._say(uri, kept, ())
            del self._kept[uri]

    def _good(self, kept: _Kept, now_us: int) -> StatusList | None:
        held = kept.list
        if held is None or self._clock() - kept.read_at >= held.refresh_s * LIFE_FACTOR:
            return None
        if held.expires_at_us is not None and now_us >= held.expires_at_us:
            return None
        return held if held.signer in self._keys.members() else None

    def _is_due(self, kept: _Kept) -> bool:
        if kept.tried_at is None:
            return True
        good = kept.list is not None and kept.error is None
        pause = kept.list.refresh_s if good and kept.list is not None else MIN_REFETCH_S
        return self._clock() - kept.tried_at >= pause

    def _keep(self) -> None:
        while True:
            with self._moved:
                if self._stopped:
                    return
                due = [uri for uri, kept in self._kept.items() if self._is_due(kept)]
                if not due:
                    self._withdraw()
                    self._moved.wait(TICK_S)
                    continue
            for uri in due:
                self._refresh(uri)

    def _refresh(self, uri: str) -> None:
        held, why = None, None
        try:
            held = self._fetched(uri)
        except (FeedError, KeySetError, ListRefusedError) as error:
            why = str(error)
        except Exception as error:  # noqa: BLE001 - what ends this thread would freeze every list
            why = f"the status list can't be read: {type(error).__name__}"
        with self._moved:
            kept = self._kept.get(uri)
            if kept is None:
                return
            kept.tried_at, kept.error = self._clock(), why
            if held is not None:
                # First told, then given: a proof never rests on a list that its authority does not have yet.
                self._say(uri, kept, (held.digest,))
                kept.list, kept.read_at = held, self._clock()
            self._withdraw()
            self._moved.notify_all()
        if why is not None:
            logger.warning("a status list could not be had: %s", why)

    def _fetched(self, uri: str) -> StatusList:
        answer = self._fetch(
            uri,
            timeout_s=FETCH_TIMEOUT_S,
            max_bytes=MAX_LIST_BYTES,
            headers={"accept": ACCEPT},
            ca_file=self._ca_file,
        )
        if answer.status != 200:
            raise ListRefusedError(f"the address of the status list answered with status {answer.status}")
        return read_list(answer.body, uri, self._keys, self._algorithms, self._now_us())

    def _withdraw(self) -> None:
        """Lists that don't count any more hold nothing up."""
        now_us = self._now_us()
        for uri, kept in self._kept.items():
            if self._good(kept, now_us) is None:
                self._say(uri, kept, ())

    def _say(self, uri: str, kept: _Kept, members: tuple[str, ...]) -> None:
        if kept.told != members and not self._stopped:
            self._tell(f"status:{uri}", members)
            kept.told = members


def _below(known: str) -> str:
    """A beginning ends where a part of a path does."""
    return known if known.endswith(("/", "?", "=")) else known + "/"
