"""A collector of OpenTelemetry for tests: the real services of OTLP on a real gRPC server, which keeps what it was
sent and answers as a test says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # it ships none
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as logs_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as trace_grpc

__all__ = ["Collector", "collecting", "plain"]


@dataclass
class Collector:
    """What came, call by call."""

    port: int = 0
    traces: list[trace.ExportTraceServiceRequest] = field(default_factory=list)
    logs: list[logs.ExportLogsServiceRequest] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    refuses: grpc.StatusCode | None = None
    """With what it answers, while it is set; what came meanwhile is not kept."""
    delay_s: float = 0.0
    retry_after_s: float = 0.0
    """What it asks for in a `RetryInfo` beside a refusal."""
    rejects: int = 0
    """So many records of each call it says it has rejected (a partial success)."""
    max_bytes: int = 4 << 20
    """Of a message: gRPC's own bound."""

    def records(self) -> list[Any]:
        """Every log record."""
        return [
            record
            for request in list(self.logs)
            for resource in request.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]

    def _took(self, context: grpc.ServicerContext) -> None:
        self.headers.append({key: str(value) for key, value in context.invocation_metadata()})
        time.sleep(self.delay_s)
        if self.refuses is not None:
            if self.retry_after_s:
                info = error_details_pb2.RetryInfo()
                info.retry_delay.FromNanoseconds(int(self.retry_after_s * 1e9))
                status = status_pb2.Status(code=self.refuses.value[0])
                status.details.add().Pack(info)
                context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
            context.abort(self.refuses, "as the test says")

    def spans(self) -> list[tuple[str, Any]]:
        """Every span, with the name of the service that it is of."""
        found = []
        for request in list(self.traces):
            for resource in request.resource_spans:
                service = plain(resource.resource.attributes).get("service.name", "")
                found += [(service, span) for scope in resource.scope_spans for span in scope.spans]
        return found


def plain(attributes: Any) -> dict[str, Any]:
    """Attributes as Python says them."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


class _Traces(trace_grpc.TraceServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def Export(  # noqa: N802 - the name of the service
        self, request: trace.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> trace.ExportTraceServiceResponse:
        self._collector._took(context)
        self._collector.traces.append(request)
        return trace.ExportTraceServiceResponse()


class _Logs(logs_grpc.LogsServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def Export(  # noqa: N802 - the name of the service
        self, request: logs.ExportLogsServiceRequest, context: grpc.ServicerContext
    ) -> logs.ExportLogsServiceResponse:
        self._collector._took(context)
        self._collector.logs.append(request)
        rejected = self._collector.rejects
        return logs.ExportLogsServiceResponse(
            partial_success=logs.ExportLogsPartialSuccess(rejected_log_records=rejected)
        )


@contextmanager
def collecting(
    credentials: grpc.ServerCredentials | None = None, *, port: int = 0, collector: Collector | None = None
) -> Iterator[Collector]:
    """A collector on this machine until the block ends; `port` and `collector`: one that comes back."""
    collector = collector or Collector()
    options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", collector.max_bytes)]
    server = grpc.server(futures.ThreadPoolExecutor(4), options=options)
    trace_grpc.add_TraceServiceServicer_to_server(_Traces(collector), server)  # type: ignore[no-untyped-call]
    logs_grpc.add_LogsServiceServicer_to_server(_Logs(collector), server)  # type: ignore[no-untyped-call]
    address = f"127.0.0.1:{port}"
    collector.port = (
        server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    )
    server.start()
    try:
        yield collector
    finally:
        server.stop(0).wait(5)
