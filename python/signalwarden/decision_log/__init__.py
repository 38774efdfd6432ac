"""The decision log: change and transport records, the writer that takes the ring to a sink, and its readers."""

from signalwarden.decision_log.records import Recorder, now_us, rfc3339, uuid7
from signalwarden.decision_log.recovery import ring_at
from signalwarden.decision_log.service import DecisionLog
from signalwarden.decision_log.sink import FileSink, Sink, log_files, rotated_files
from signalwarden.decision_log.writer import LogHealth, LogWriter

__all__ = [
    "DecisionLog",
    "FileSink",
    "LogHealth",
    "LogWriter",
    "Recorder",
    "Sink",
    "log_files",
    "now_us",
    "rfc3339",
    "ring_at",
    "rotated_files",
    "uuid7",
]
