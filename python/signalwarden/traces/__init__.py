"""Traces: one span for each check, made from its record once that stands in the log."""

from signalwarden.traces.sender import Traces

__all__ = ["Traces"]
