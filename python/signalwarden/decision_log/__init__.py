"""The decision log: change and transport records, the writer that takes the ring to a sink, and its readers."""

from signalwarden.decision_log.logfiles import Line, log_files, records_of, rotated_files
from signalwarden.decision_log.records import Recorder, now_us, rfc3339, uuid7
from signalwarden.decision_log.recovery import ring_at
from signalwarden.decision_log.service import DecisionLog, Seal
from signalwarden.decision_log.sink import FileSink, Sink
from signalwarden.decision_log.writer import LogHealth, LogWriter

__all__ = [
    "DecisionLog",
    "FileSink",
    "Line",
    "LogHealth",
    "LogWriter",
    "Recorder",
    "Seal",
    "Sink",
    "log_files",
    "now_us",
    "records_of",
    "rfc3339",
    "ring_at",
    "rotated_files",
    "uuid7",
]
