"""A trust bundle from the bundle endpoint of a federated trust domain (SPIFFE Federation): profiles `https_web`, where
the server is known by its name, and `https_spiffe`, where it is known by its SPIFFE ID.

With `https_spiffe` the server's certificate is verified against the newest bundle that we have from it, and against the
one that the operator brought (`bootstrap`) while we have none. Nothing is sent before that. A bundle with a smaller
sequence number than the live one is refused: it is an old one.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from signalwarden.bundles.bundle import MAX_BUNDLE_BYTES, Bundle, read_bundle
from signalwarden.bundles.files import read_file
from signalwarden.bundles.held import Held, Tell
from signalwarden.bundles.looking import Looking
from signalwarden.bundles.x509 import X509Refused, named
from signalwarden.errors import FeedError, KeySetError
from signalwarden.files import why
from signalwarden.outbound import Server, fetch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["EndpointSource", "Profile", "SpiffeProfile", "WebProfile"]

DEFAULT_REFRESH_S: Final = 300.0
MIN_HINT_S: Final = 10.0
"""A publisher may ask for more; whoever asks for so much makes load for both."""
MAX_REFRESH_S: Final = 3_600.0
"""A key that is taken back must not live here for the day that a publisher hints at."""
RETRY_S: Final = 30.0
"""After a failure, or sooner where the refresh is shorter."""
LIFE_FACTOR: Final = 12
MIN_LIFE_S: Final = 3_600.0
MAX_LIFE_S: Final = 24 * 3_600.0
"""What can't be fetched any more is good for `LIFE_FACTOR` refreshes, within these bounds: then a key that was taken
back might still be in it."""
FETCH_TIMEOUT_S: Final = 10.0
SPLAY: Final = 0.1
"""The share of each pause that is left to chance, so that many of us don't ask at once."""


class _Fetch(Protocol):
    """`outbound.fetch`, as far as it is used here."""

    def __call__(
        self,
        url: str,
        *,
        timeout_s: float,
        max_bytes: int,
        headers: Mapping[str, str] | None = None,
        ca_file: Path | None = None,
        server: Server | None = None,
    ) -> Any: ...


@dataclass(frozen=True, slots=True)
class WebProfile:
    """`https_web`: the name in the URL, vouched for by authorities of the Web or by those of one file."""

    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class SpiffeProfile:
    """`https_spiffe`: the server's SPIFFE ID, vouched for by the bundle of its own trust domain."""

    spiffe_id: str
    bootstrap: Path


Profile = WebProfile | SpiffeProfile


class EndpointSource:
    """The bundle that one endpoint offers."""

    def __init__(
        self,
        trust_domain: str,
        url: str,
        profile: Profile,
        tell: Tell,
        *,
        refresh_s: float | None = None,
        get: _Fetch = fetch,
        held: Callable[[str, Tell], Held] = Held,
    ) -> None:
        self._url = url
        self._profile = profile
        self._refresh_s = refresh_s
        self._get = get
        self._held = held(trust_domain, tell)
        self._looking = Looking(f"bundle {trust_domain}", self._look)

    def start(self) -> None:
        """Begins to fetch; the first bundle is live some time after."""
        self._looking.start()

    def halt(self) -> None:
        """Ends, without waiting."""
        self._looking.halt()

    def stop(self) -> None:
        """Ends. May be called twice, and without a start."""
        self._looking.stop()

    def detail(self) -> dict[str, Any]:
        """For `/readyz`. The URL's query may hold what is secret: it is left out."""
        profile = "https_web" if isinstance(self._profile, WebProfile) else "https_spiffe"
        return {"source": "endpoint", "profile": profile} | self._held.detail()

    @property
    def failures(self) -> int:
        """Fetches that brought nothing good."""
        return self._held.failures

    def _look(self) -> float:
        try:
            bundle = self._fetch()
        except (FeedError, KeySetError) as error:
            if not self._looking.stopped:
                self._held.failed(str(error), self._life())
            return _splayed(min(RETRY_S, self._refresh()))
        if not self._looking.stopped:
            self._held.good(bundle)
        return _splayed(self._refresh())

    def _fetch(self) -> Bundle:
        profile, live = self._profile, self._held.bundle
        if not self._url.startswith("https://"):
            raise FeedError("a bundle endpoint is reached with `https://` alone")
        answer = self._get(
            self._url,
            timeout_s=FETCH_TIMEOUT_S,
            max_bytes=MAX_BUNDLE_BYTES,
            headers={"accept": "application/json"},
            ca_file=profile.ca_file if isinstance(profile, WebProfile) else None,
            server=self._server(profile) if isinstance(profile, SpiffeProfile) else None,
        )
        if answer.status != 200:
            raise FeedError(f"the bundle endpoint answered with status {answer.status}")
        bundle = read_bundle(self._held.trust_domain, answer.body)
        _not_older(bundle, live)
        return bundle

    def _server(self, profile: SpiffeProfile) -> Server:
        bundle = self._held.bundle
        if bundle is None or not bundle.x509:
            bundle = self._bootstrap(profile.bootstrap)
        pem = b"".join(authority.public_bytes(Encoding.PEM) for authority in bundle.x509)
        return Server(pem.decode("ascii"), lambda der: _expect(profile.spiffe_id, der))

    def _bootstrap(self, path: Path) -> Bundle:
        try:
            bundle = read_bundle(self._held.trust_domain, read_file(path))
        except OSError as error:
            raise KeySetError(f"the first bundle `{path}` can't be read: {why(error)}") from error
        except KeySetError as error:
            raise KeySetError(f"the first bundle `{path}`: {error}") from error
        if not bundle.x509:
            raise KeySetError(
                f"the first bundle `{path}` has no certificate that could vouch for the endpoint"
            )
        return bundle

    def _refresh(self) -> float:
        """Seconds between two fetches: the sooner of what the publisher hints at and what our operator wants."""
        bundle = self._held.bundle
        hint = None if bundle is None else bundle.refresh_s
        wishes = [max(hint, MIN_HINT_S)] if hint is not None else []
        if self._refresh_s is not None:
            wishes.append(self._refresh_s)
        return min([*wishes, MAX_REFRESH_S]) if wishes else DEFAULT_REFRESH_S

    def _life(self) -> float:
        return min(max(LIFE_FACTOR * self._refresh(), MIN_LIFE_S), MAX_LIFE_S)


def _not_older(bundle: Bundle, live: Bundle | None) -> None:
    """What is not live any more is forgotten: an authority that began to count anew is believed again then."""
    known = None if live is None else live.sequence
    if known is not None and bundle.sequence is not None and bundle.sequence < known:
        raise KeySetError(f"the endpoint offers sequence {bundle.sequence}, older than {known}: refused")


def _expect(spiffe_id: str, leaf: bytes) -> None:
    """Raises FeedError unless the verified leaf is that workload's."""
    try:
        found = named(x509.load_der_x509_certificate(leaf)).id
    except ValueError:
        raise FeedError("the certificate of the bundle endpoint can't be read") from None
    except X509Refused as error:
        raise FeedError(f"the bundle endpoint is no workload: {error}") from error
    if found != spiffe_id:
        raise FeedError(f"the bundle endpoint is `{found}`, expected `{spiffe_id}`")


def _splayed(pause_s: float) -> float:
    return pause_s * (1 - SPLAY * random.random())  # noqa: S311 - nobody gains from guessing it
