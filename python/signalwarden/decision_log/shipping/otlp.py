"""A collector of OpenTelemetry: records as log records of OTLP over gRPC, that join the traces of their requests."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import grpc
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # it ships none
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs, SeverityNumber
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from signalwarden import __version__
from signalwarden.decision_log.parts import map_of
from signalwarden.decision_log.shipping.destination import NotTakenError, Taken
from signalwarden.decision_log.shipping.formats import INSTANCE
from signalwarden.errors import OtlpError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from signalwarden.decision_log.shipping.destination import Entry
    from signalwarden.otlp import Collector

__all__ = ["Otlp", "log_record"]

STATUS_DETAILS: Final = "grpc-status-details-bin"
TOO_LARGE: Final = "larger than max"
"""As the servers of gRPC say that a message has more bytes than they take: in C, Go and Java."""
IDS: Final = {"decision": "decision_id", "change": "change_id", "transport": "event_id"}
FAULTS: Final = ("engine_error", "log_unavailable", "not_ready")
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Otlp:
    """Exports batches over one channel, which is made anew after a failure with the files as they are then."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._mutex = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._closed = False

    def send(self, batch: Sequence[Entry]) -> Taken:
        """See Destination."""
        try:
            stub = LogsServiceStub(self._open())  # type: ignore[no-untyped-call]
            answer = stub.Export(
                _request(batch),
                timeout=self._collector.timeout_s,
                metadata=self._collector.metadata(),
                compression=grpc.Compression.Gzip,
            )
        except OtlpError as error:
            raise NotTakenError(str(error)) from error
        except grpc.RpcError as error:
            self._let_go()
            raise _not_taken(error, self._collector) from error
        except ValueError as error:  # closed by `close` between the two
            raise NotTakenError("the server stops") from error
        # What a partial success refuses must not be sent again (OTLP, «Partial Success»).
        return Taken(refused=min(int(answer.partial_success.rejected_log_records), len(batch)))

    def close(self) -> None:
        """See Destination."""
        self._closed = True
        self._let_go()

    def _open(self) -> grpc.Channel:
        with self._mutex:
            if self._closed:
                raise NotTakenError("the server stops")
            if self._channel is None:
                self._channel = self._collector.channel()
            return self._channel

    def _let_go(self) -> None:
        with self._mutex:
            if self._channel is not None:
                self._channel.close()
            self._channel = None


def _not_taken(error: Any, collector: Collector) -> NotTakenError:
    """What the collector says of itself is not repeated: it may hold what was sent. (`RpcError` has no methods, what is
    raised has those of a call.)"""
    code, target = error.code(), collector.target
    sentence = f"the collector `{target}` answered {code.name}"
    if code is grpc.StatusCode.UNAVAILABLE:
        sentence = f"the collector `{target}` can't be reached, or takes nothing now"
    elif code is grpc.StatusCode.DEADLINE_EXCEEDED:
        sentence = f"the collector `{target}` gave no answer within {collector.timeout_s:g} s"
    exhausted = code is grpc.StatusCode.RESOURCE_EXHAUSTED
    too_large = exhausted and TOO_LARGE in (error.details() or "").lower()
    return NotTakenError(sentence, retry_after_s=_retry_after(error), too_large=too_large)


def _retry_after(error: Any) -> float:
    """The `RetryInfo` of a status, by which a collector asks for time (OTLP, «OTLP/gRPC Throttling»)."""
    for key, value in error.trailing_metadata() or ():
        if key == STATUS_DETAILS and isinstance(value, bytes):
            try:
                for detail in status_pb2.Status.FromString(value).details:
                    info = error_details_pb2.RetryInfo()
                    if detail.Unpack(info):
                        delay = info.retry_delay
                        return float(max(0.0, delay.seconds + delay.nanos / 1e9))
            except DecodeError:
                return 0.0
    return 0.0


# ---------------------------------------------------------------- records


def _request(batch: Sequence[Entry]) -> ExportLogsServiceRequest:
    resource = Resource(
        attributes=_attributes(
            {
                "service.name": "signalwarden",
                "service.version": __version__,
                "service.instance.id": INSTANCE,
            }
        )
    )
    now = time.time_ns()
    scope = InstrumentationScope(name="signalwarden.decision_log", version=__version__)
    logs = ScopeLogs(scope=scope, log_records=[log_record(entry, now) for entry in batch])
    return ExportLogsServiceRequest(resource_logs=[ResourceLogs(resource=resource, scope_logs=[logs])])


def log_record(entry: Entry, observed_ns: int) -> LogRecord:
    """A record: the line itself is the body; its id tells copies apart; trace and span are those of the request."""
    record = entry.record
    kind = str(record.get("kind"))
    request, principal = (map_of(record.get(key)) for key in ("request", "principal"))
    severity, text = _severity(record)
    uid = record.get(IDS.get(kind, ""))
    found = LogRecord(
        time_unix_nano=_nanos(record.get("time")),
        observed_time_unix_nano=observed_ns,
        severity_number=severity,
        severity_text=text,
        event_name=f"signalwarden.{kind}",
        body=AnyValue(string_value=entry.raw.decode(errors="replace")),
        attributes=_attributes(
            {
                "log.record.uid": uid,
                "kind": kind,
                IDS.get(kind, "id"): uid,
                "outcome": record.get("outcome"),
                "reason": record.get("reason"),
                "action": request.get("action"),
                "principal": principal.get("id"),
                "change": record.get("change"),
                "transport": record.get("transport"),
                "http.response.status_code": record.get("http_status"),
            }
        ),
        trace_id=_hex(request.get("trace_id"), 16),
        span_id=_hex(request.get("span_id"), 8),
    )
    flags = _hex(request.get("trace_flags"), 1)
    if flags:
        found.flags = flags[0]
    return found


def _severity(record: Mapping[str, Any]) -> tuple[SeverityNumber.ValueType, str]:
    if record.get("reason") in FAULTS:
        return SeverityNumber.SEVERITY_NUMBER_ERROR, "ERROR"
    if record.get("outcome") == "deny" or record.get("kind") == "transport":
        return SeverityNumber.SEVERITY_NUMBER_WARN, "WARN"
    return SeverityNumber.SEVERITY_NUMBER_INFO, "INFO"


def _attributes(values: Mapping[str, object]) -> list[KeyValue]:
    return [
        KeyValue(
            key=key,
            value=AnyValue(int_value=value) if isinstance(value, int) else AnyValue(string_value=str(value)),
        )
        for key, value in values.items()
        if value is not None
    ]


def _nanos(text: object) -> int:
    try:
        moment = datetime.fromisoformat(str(text))
        return (moment - EPOCH) // timedelta(microseconds=1) * 1000
    except (ValueError, TypeError):
        return 0


def _hex(value: object, size: int) -> bytes:
    try:
        found = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        return b""
    return found if len(found) == size else b""
