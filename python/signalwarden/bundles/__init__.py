"""Trust bundles: what each trust domain's authorities are, where that is told from, and who a chain proves to be."""

from signalwarden.bundles.bundle import Bundle, read_bundle, read_jwt_bundle
from signalwarden.bundles.keeper import Bundles, Listener
from signalwarden.bundles.svid import Svid, SvidSource
from signalwarden.bundles.x509 import SpiffeIdentity, X509Refused, chain_from_pem, verify_x509_svid

__all__ = [
    "Bundle",
    "Bundles",
    "Listener",
    "SpiffeIdentity",
    "Svid",
    "SvidSource",
    "X509Refused",
    "chain_from_pem",
    "read_bundle",
    "read_jwt_bundle",
    "verify_x509_svid",
]
