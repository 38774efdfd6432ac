"""Shippers: they read on from the log's files at their own pace and hand what stands there to further sinks.

A shipper that fails or is slow delays no decision and takes one batch of memory. What it has taken, a cursor beside the
log says; so it goes on after a restart where it was, and sends nothing twice but what was under way.
"""

from signalwarden.decision_log.shipping.building import shippers_of
from signalwarden.decision_log.shipping.shipper import Shipper, SinkHealth

__all__ = ["Shipper", "SinkHealth", "shippers_of"]
