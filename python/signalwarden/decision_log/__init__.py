"""The decision log: change and transport records, the writer that takes the ring to a sink, and its readers.

`service`, which wires them, is named by itself: who reads a log need not load all that a server writes it with.
"""

from signalwarden.decision_log.logfiles import Line, log_files, records_of, rotated_files
from signalwarden.decision_log.records import Recorder, now_us, rfc3339, uuid7
from signalwarden.decision_log.recovery import ring_at
from signalwarden.decision_log.sink import FileSink, Sink
from signalwarden.decision_log.writer import LogHealth, LogWriter

__all__ = [
    "FileSink",
    "Line",
    "LogHealth",
    "LogWriter",
    "Recorder",
    "Sink",
    "log_files",
    "now_us",
    "records_of",
    "rfc3339",
    "ring_at",
    "rotated_files",
    "uuid7",
]
