"""Trust bundles: what each trust domain's authorities are, where that is told from, and who a chain proves to be."""

from signalwarden.bundles.keeper import Bundles
from signalwarden.bundles.svid import Svid

__all__ = ["Bundles", "Svid"]
