"""From a record to a span of OTLP: which records have one, and what it says.

A span says what a dashboard of traces groups by. What the request was about (path, arguments, resource, values of
signals) is left to the record, which the decision's id finds.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import orjson
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from signalwarden.telemetry_settings import PARENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["NAME", "attributes", "sampler", "span_of"]

NAME: Final = "signalwarden.check"
HAS_IS_REMOTE: Final = 0x100
IS_REMOTE: Final = 0x200
SAMPLED: Final = 0x01
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
LOW_BYTES: Final = 1 << 64

# A quote within a text of JSON is escaped, so that neither a path nor an argument can look like one of these.
_SAMPLED: Final = re.compile(rb'"trace_flags":"[0-9a-f][13579bdf]"')
_TRACE: Final = re.compile(rb'"trace_id":"[0-9a-f]{16}([0-9a-f]{16})"')
_ID: Final = re.compile(rb'"decision_id":"([0-9a-f-]{36})"')


def sampler(sample: str | float) -> Callable[[bytes], bool]:
    """Whether a line's decision has a span, told without reading the line. A share is of traces, by their ids as
    OpenTelemetry's own ratio samplers count, so that all of a trace is there or nothing."""
    if sample == PARENT:
        return lambda line: _SAMPLED.search(line) is not None
    bound = float(sample) * LOW_BYTES

    def sampled(line: bytes) -> bool:
        found = _TRACE.search(line)
        if found is not None:
            return int(found[1], 16) < bound
        made = _ID.search(line)
        return made is not None and int.from_bytes(trace_of(made[1].decode())[8:], "big") < bound

    return sampled


def trace_of(decision_id: str) -> bytes:
    """The trace of a decision whose request belongs to none."""
    return hashlib.sha256(b"trace " + decision_id.encode()).digest()[:16]


def span_of(line: bytes) -> Span | None:
    """None for a line that is no decision about a request of Envoy."""
    try:
        record = orjson.loads(line)
        if record["kind"] != "decision" or _map(record.get("principal")).get("source") == "client":
            return None
        if "door" in _map(record.get("request")):
            return None
        return _span(record)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None


def _span(record: Mapping[str, Any]) -> Span:
    decision_id = str(record["decision_id"])
    request, timing = _map(record.get("request")), _map(record.get("timing_us"))
    parent, trace = request.get("span_id"), request.get("trace_id")
    start = _nanos(record["time"])
    total = float(timing.get("total") or 0.0)
    return Span(
        # Made of the decision's id: a span that is sent again is the same span.
        span_id=hashlib.sha256(b"span " + decision_id.encode()).digest()[:8],
        trace_id=bytes.fromhex(trace) if trace else trace_of(decision_id),
        parent_span_id=bytes.fromhex(parent) if parent else b"",
        flags=SAMPLED | HAS_IS_REMOTE | (IS_REMOTE if parent else 0),
        name=NAME,
        kind=Span.SPAN_KIND_SERVER,
        start_time_unix_nano=start,
        end_time_unix_nano=start + round(total * 1_000),
        attributes=attributes(_told(record, request, timing)),
        # A denial is an answer. What we could not do is an error.
        status=Status(code=Status.STATUS_CODE_ERROR, message=str(record["reason"]))
        if int(record["http_status"]) >= 500
        else None,
    )


def _told(record: Mapping[str, Any], request: Mapping[str, Any], timing: Mapping[str, Any]) -> dict[str, Any]:
    policies, task = _map(record.get("policies")), _map(record.get("grant")).get("task")
    signals = [_map(each) for each in record.get("signals") or ()]
    return {
        "rpc.system": "grpc",
        "rpc.service": "envoy.service.auth.v3.Authorization",
        "rpc.method": "Check",
        "http.request.method": request.get("method") or None,
        "signalwarden.decision_id": record["decision_id"],
        "signalwarden.outcome": record["outcome"],
        "signalwarden.reason": record["reason"],
        "signalwarden.enforced": record.get("enforced"),
        "signalwarden.action": request.get("action"),
        "signalwarden.route": request.get("route"),
        "signalwarden.system": request.get("system"),
        "signalwarden.tier": request.get("tier"),
        "signalwarden.sensitivity": request.get("sensitivity"),
        "signalwarden.principal": _map(record.get("principal")).get("id"),
        "signalwarden.task": task,
        "signalwarden.revision": policies.get("revision"),
        "signalwarden.policies": [str(_map(each).get("id")) for each in policies.get("determining") or ()],
        "signalwarden.signals.decisive": [
            f"{each.get('name')}:{each.get('state')}"
            for each in signals
            if each.get("influence") in ("decisive", "refused")
        ],
        # Alike denials that this record stands for, it included, where they are folded.
        "signalwarden.folded": _map(record.get("folded")).get("count"),
        **{f"signalwarden.{stage}_us": float(micros) for stage, micros in timing.items()},
    }


def attributes(told: Mapping[str, Any]) -> Iterable[KeyValue]:
    """What is None or an empty list is not said."""
    return [KeyValue(key=key, value=_value(value)) for key, value in told.items() if value not in (None, [])]


def _value(value: Any) -> AnyValue:
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case list():
            return AnyValue(array_value=ArrayValue(values=map(_value, value)))
        case _:
            return AnyValue(string_value=str(value))


def _nanos(time: str) -> int:
    return (datetime.fromisoformat(time) - EPOCH) // timedelta(microseconds=1) * 1_000


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
