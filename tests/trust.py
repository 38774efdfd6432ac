"""Trust domains as doors meet them: authorities, bundles that come and go, and an SVID of our own that is rotated."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from signalwarden.bundles.bundle import Bundle
from signalwarden.bundles.svid import Svid
from signalwarden.demo_stage import Authority, Credential

WARDEN = "spiffe://prod.example/signalwarden"


class Held:
    """The bundles of a test, as `Bundles` tells them."""

    def __init__(self) -> None:
        self.bundles: dict[str, Bundle] = {}

    def put(self, trust_domain: str, *authorities: Authority) -> None:
        """The whole bundle of a trust domain."""
        found = [
            certificate
            for authority in authorities
            for certificate in x509.load_pem_x509_certificates(authority.bundle.read_bytes())
        ]
        self.bundles[trust_domain] = Bundle.of(trust_domain, found)

    def get(self, trust_domain: str, /) -> Bundle | None:
        return self.bundles.get(trust_domain)

    def roots_pem(self) -> bytes:
        every = [certificate for bundle in self.bundles.values() for certificate in bundle.x509]
        return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in every)


class Rotating:
    """Our own SVID: a new one each time that a test says so."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self.svid: Svid | None = None
        self.rotate()

    def rotate(self, authority: Authority | None = None) -> None:
        """The next one, of the same authority or another."""
        self._authority = authority or self._authority
        issued = self._authority.issue(WARDEN, dns=("localhost",))
        self.svid = Svid(
            WARDEN,
            issued.certificate.read_bytes(),
            issued.key.read_bytes(),
            datetime.now(UTC) + timedelta(hours=1),
        )

    def current(self) -> Svid | None:
        return self.svid

    def on_change(self, listener: Callable[[Svid | None], None]) -> None:
        """Nobody here waits."""


class Domains:
    """Two trust domains whose bundles are known, and an authority for each."""

    def __init__(self, folder: Path) -> None:
        self.prod = Authority(folder / "prod", "prod.example")
        self.partner = Authority(folder / "partner", "partner.example")
        self.bundles = Held()
        self.bundles.put("prod.example", self.prod)
        self.bundles.put("partner.example", self.partner)
        self.svids = Rotating(self.prod)

    def forged(self, spiffe_id: str) -> Credential:
        """A certificate for a workload of `prod.example` by the authority of `partner.example`."""
        return self.partner.issue(spiffe_id)
