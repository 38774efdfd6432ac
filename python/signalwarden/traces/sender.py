"""Sends spans: a thread that reads on in the log, makes spans of a batch of lines and sends them before it reads on.

The file is the buffer, so a collector that is slow or dead costs one batch of memory and nothing else: no decision and
no record waits. A sender that falls too far behind gives up what lies between and goes on at the end, since a trace
that comes an hour late helps nobody; the records are all there.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from signalwarden import __version__
from signalwarden.decision_log.bookmark import Bookmark
from signalwarden.errors import LogError, OtlpError
from signalwarden.otlp import Collector
from signalwarden.traces.spans import attributes, sampler, span_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from signalwarden.telemetry_settings import TelemetrySettings

__all__ = ["Traces"]

_log = logging.getLogger("signalwarden.traces")

READ_BYTES: Final = 256 * 1024
"""Of the log at once: some 150 records, and as many spans at most."""
POLL_S: Final = 0.5
FIRST_BACKOFF_S: Final = 0.25
LAST_BACKOFF_S: Final = 5.0
MAX_BEHIND_BYTES: Final = 16 << 20
"""Some 10,000 records: seconds of a busy server, an hour of a quiet one."""
STOP_S: Final = 2.0
"""For the last spans at a stop."""
# What another try, or another token, may mend. The rest is said of the spans themselves.
RETRIED: Final = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
    }
)


class Traces:
    """Owns the thread, the place in the log and the channel."""

    def __init__(self, collector: Collector, sample: str | float, path: Path) -> None:
        """`path`: of the log's current file, whose end is where this begins. Raises LogError, and OtlpError for files
        of the settings that can't be read."""
        self._collector = collector
        self._sampled = sampler(sample)
        collector.metadata()
        self._channel: grpc.Channel | None = collector.channel()
        self._place = Bookmark(path)
        self._resource = Resource(
            attributes=attributes(
                {
                    "service.name": "signalwarden",
                    "service.version": __version__,
                    "service.instance.id": str(uuid4()),
                }
            )
        )
        self._stopping = threading.Event()
        self._until = float("inf")
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._said: str | None = None
        self._counts = dict.fromkeys(
            ("spans_sent", "spans_refused", "spans_skipped_bytes", "spans_failures"), 0
        )

    @classmethod
    def of(cls, settings: TelemetrySettings, root: Path, path: Path) -> Traces | None:
        """None: no traces are asked for."""
        if settings.otlp is None:
            return None
        return cls(Collector(settings.otlp, root), settings.sample, path)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Sends what is written by now, for a moment, and ends. Stop the log first."""
        self._until = time.monotonic() + STOP_S
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(STOP_S + self._collector.timeout_s)
        self._let_go()

    def numbers(self) -> Mapping[str, float]:
        """For metrics."""
        return {**self._counts, "spans_healthy": int(self._said is None)}

    # ---- the thread

    def _run(self) -> None:
        try:
            with self._place:
                while self._step():
                    pass
        except Exception:  # noqa: BLE001 - whatever it was, metrics must say that nobody sends
            self._said = "thread"
            _log.exception("no more traces are sent")

    def _step(self) -> bool:
        """One batch; False when stopped and all is sent, or out of time."""
        stopping = self._stopping.is_set()
        try:
            lines = self._place.take(READ_BYTES)
        except LogError as error:
            self._fail(str(error))
            self._stopping.wait(LAST_BACKOFF_S)
            return not stopping
        if not lines:
            self._stopping.wait(POLL_S)
            return not stopping
        sampled = filter(self._sampled, lines[:-1].split(b"\n"))
        spans = [span for line in sampled if (span := span_of(line)) is not None]
        if spans:
            self._deliver(spans)
        return time.monotonic() < self._until

    def _deliver(self, spans: Sequence[Span]) -> None:
        """Until they are taken or refused for good, the sender is too far behind, or a stop is out of time."""
        backoff = FIRST_BACKOFF_S
        while time.monotonic() < self._until:
            try:
                refused = self._send(spans)
            except _LaterError as error:
                self._fail(str(error))
            else:
                self._counts["spans_sent"] += len(spans) - refused
                self._counts["spans_refused"] += refused
                return
            behind = self._place.behind()
            if behind > MAX_BEHIND_BYTES:
                self._skip(behind)
                return
            self._stopping.wait(min(backoff, max(0.0, self._until - time.monotonic())))
            if self._stopping.is_set():
                time.sleep(FIRST_BACKOFF_S)
            backoff = min(2 * backoff, LAST_BACKOFF_S)

    def _skip(self, behind: int) -> None:
        try:
            self._place.skip_to_end()
        except LogError:
            return  # it is said when it is read next
        self._counts["spans_skipped_bytes"] += behind

    def _send(self, spans: Sequence[Span]) -> int:
        """How many were refused. Raises _LaterError."""
        scope = InstrumentationScope(name="signalwarden", version=__version__)
        request = ExportTraceServiceRequest(
            resource_spans=[
                ResourceSpans(resource=self._resource, scope_spans=[ScopeSpans(scope=scope, spans=spans)])
            ]
        )
        try:
            if self._channel is None:
                self._channel = self._collector.channel()
            left = max(0.1, self._until - time.monotonic())
            answer = TraceServiceStub(self._channel).Export(  # type: ignore[no-untyped-call]
                request,
                metadata=self._collector.metadata(),
                timeout=min(self._collector.timeout_s, left),
            )
        except OtlpError as error:
            raise _LaterError(str(error)) from error
        except grpc.RpcError as error:
            return self._judge(error, len(spans))
        if self._said is not None:
            _log.warning("the collector `%s` takes traces again", self._collector.target)
            self._said = None
        return min(len(spans), int(answer.partial_success.rejected_spans))

    def _judge(self, error: Any, count: int) -> int:
        """What a failed call means. The files are read anew for the next one: a certificate may have been exchanged."""
        code = error.code()  # the details may hold anything, a header that came back included
        self._let_go()
        if code in RETRIED:
            raise _LaterError(f"the collector `{self._collector.target}` takes no traces: {code.name}")
        self._fail(f"the collector `{self._collector.target}` refuses traces: {code.name}")
        return count

    def _let_go(self) -> None:
        if self._channel is not None:
            self._channel.close()
        self._channel = None

    def _fail(self, sentence: str) -> None:
        self._counts["spans_failures"] += 1
        if self._said != sentence:
            _log.error("%s", sentence)
        self._said = sentence


class _LaterError(Exception):
    """Another try may do better."""
