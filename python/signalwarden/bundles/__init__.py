"""Trust bundles: what each trust domain's authorities are, where that is told from, and who a chain proves to be."""

from signalwarden.bundles.keeper import Bundles, Listener
from signalwarden.bundles.svid import Svid, SvidSource

__all__ = ["Bundles", "Listener", "Svid", "SvidSource"]
