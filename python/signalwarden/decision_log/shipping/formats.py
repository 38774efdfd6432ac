"""Records in the words of others: events of OPA's decision log, and of OCSF's API Activity."""

from __future__ import annotations

import socket
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import orjson

from signalwarden import __version__
from signalwarden.decision_log.parts import map_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from signalwarden.decision_log.shipping.destination import Encode, Entry

__all__ = ["FORMATS", "INSTANCE", "ocsf", "opa"]

INSTANCE: Final = str(uuid.uuid5(uuid.NAMESPACE_DNS, socket.gethostname()))
"""Which server wrote a record: the same after a restart."""
LABELS: Final = {"app": "signalwarden", "id": INSTANCE, "version": __version__}

# ---------------------------------------------------------------- OPA


def opa(entry: Entry) -> bytes | None:
    """An event of OPA's decision log (openpolicyagent.org, «Decision Log Service API»); of a decision alone: OPA's log
    knows no other records."""
    record = entry.record
    if record.get("kind") != "decision":
        return None
    request, principal, policies = (map_of(record.get(key)) for key in ("request", "principal", "policies"))
    event: dict[str, Any] = {"labels": LABELS, "decision_id": record.get("decision_id")}
    event |= {key: request[key] for key in ("trace_id", "span_id") if request.get(key)}
    if policies.get("revision"):
        event["bundles"] = {"signalwarden": {"revision": policies["revision"]}}
    inputs = ("request", "principal", "signals", "grant", "approval", "chain")
    results = ("reason", "http_status", "enforced", "detail")
    event |= {
        "path": "signalwarden/decision",
        "input": {key: record[key] for key in inputs if record.get(key) is not None},
        "result": {
            "allowed": record.get("outcome") == "allow",
            **{key: record[key] for key in results if key in record},
            "determining": policies.get("determining", []),
        },
        "requested_by": str(principal.get("id") or ""),
        "timestamp": record.get("time"),
        "metrics": _timers(map_of(record.get("timing_us"))),
    }
    return orjson.dumps(event)


def _timers(timing_us: Mapping[str, Any]) -> dict[str, int]:
    """In nanoseconds; the whole under OPA's own name."""
    names = {"total": "timer_server_handler_ns"}
    return {
        names.get(stage, f"timer_signalwarden_{stage}_ns"): round(micros * 1000)
        for stage, micros in timing_us.items()
        if isinstance(micros, int | float)
    }


# ---------------------------------------------------------------- OCSF

OCSF_VERSION: Final = "1.6.0"
CATEGORY_UID, CLASS_UID = 6, 6003
ACTIVITIES: Final = {
    "POST": (1, "Create"),
    "GET": (2, "Read"),
    "HEAD": (2, "Read"),
    "OPTIONS": (2, "Read"),
    "PUT": (3, "Update"),
    "PATCH": (3, "Update"),
    "DELETE": (4, "Delete"),
}
OTHER: Final = 99
SYSTEM_USER: Final = 3
"""`user.type_id` of an account that is no person's."""
ALLOWED, DENIED = (1, "Allowed"), (2, "Denied")
"""`action_id` of the profile `security_control`."""
BLOCKED, LOGGED = (2, "Blocked"), (17, "Logged")
"""`disposition_id` of a denial, and of one that was let pass (`enforce: false`)."""
INFORMATIONAL, LOW, HIGH = (1, "Informational"), (2, "Low"), (4, "High")
FAULTS: Final = ("engine_error", "log_unavailable", "not_ready")


def ocsf(entry: Entry) -> bytes | None:
    """An event of the class API Activity (6003) of OCSF, with the profile `security_control`; of a decision alone."""
    record = entry.record
    if record.get("kind") != "decision":
        return None
    request, principal, policies = (map_of(record.get(key)) for key in ("request", "principal", "policies"))
    activity_id, activity = ACTIVITIES.get(str(request.get("method")), (OTHER, "Other"))
    allowed, let_pass = record.get("outcome") == "allow", record.get("enforced") is False
    action = ALLOWED if allowed or let_pass else DENIED
    disposition = ALLOWED if allowed else LOGGED if let_pass else BLOCKED
    severity = INFORMATIONAL if allowed else HIGH if record.get("reason") in FAULTS else LOW
    event: dict[str, Any] = {
        "category_uid": CATEGORY_UID,
        "category_name": "Application Activity",
        "class_uid": CLASS_UID,
        "class_name": "API Activity",
        "activity_id": activity_id,
        "activity_name": activity,
        "type_uid": CLASS_UID * 100 + activity_id,
        "type_name": f"API Activity: {activity}",
        "time": _millis(record.get("time")),
        "severity_id": severity[0],
        "severity": severity[1],
        "status_id": 1 if allowed else 2,
        "status": "Success" if allowed else "Failure",
        "status_code": record.get("reason"),
        "action_id": action[0],
        "action": action[1],
        "disposition_id": disposition[0],
        "disposition": disposition[1],
        "message": " ".join(
            str(word)
            for word in (record.get("outcome"), request.get("action"), request.get("resource"))
            if word
        )
        + f": {record.get('reason')}",
        "metadata": _metadata(record, request),
        "actor": _actor(principal),
        "api": _api(record, request),
        "src_endpoint": {"svc_name": str(principal.get("id") or "unknown")},
        "http_request": _http_request(request),
        "http_response": {"code": record.get("http_status")},
        "unmapped": {
            key: record[key]
            for key in ("signals", "policies", "grant", "approval", "chain", "enforced", "timing_us")
            if record.get(key) is not None
        },
    }
    if record.get("detail"):
        event["status_detail"] = record["detail"]
    if request.get("resource"):
        kind, _, uid = str(request["resource"]).partition("::")
        event["resources"] = [{"type": kind, "uid": uid.strip('"'), "name": str(request["resource"])}]
    determining = policies.get("determining")
    if isinstance(determining, list) and determining:
        event["policy"] = {"uid": map_of(determining[0]).get("id"), "version": policies.get("revision")}
    return orjson.dumps(event)


def _metadata(record: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    product = {"name": "signalwarden", "vendor_name": "signalwarden", "version": __version__}
    found = {
        "version": OCSF_VERSION,
        "uid": record.get("decision_id"),
        "original_time": record.get("time"),
        "log_name": "decision log",
        "log_provider": INSTANCE,
        "product": product,
        "profiles": ["security_control"],
    }
    if request.get("trace_id"):
        found["correlation_uid"] = request["trace_id"]
    return found


def _actor(principal: Mapping[str, Any]) -> dict[str, Any]:
    if not principal.get("id"):
        return {"app_name": "unknown"}
    user = {"uid": principal["id"], "name": principal["id"], "type_id": SYSTEM_USER, "type": "System"}
    if principal.get("trust_domain"):
        user["domain"] = principal["trust_domain"]
    return {"user": user}


def _api(record: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    operation = request.get("action") or request.get("method") or "unknown"
    api: dict[str, Any] = {
        "operation": str(operation),
        "request": {"uid": str(request.get("envoy_id") or record.get("decision_id"))},
        "response": {"code": record.get("http_status"), "message": record.get("reason")},
    }
    if request.get("system"):
        api["service"] = {"name": request["system"]}
    return api


def _http_request(request: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "http_method": request.get("method"),
        "url": {"hostname": request.get("host"), "path": request.get("path")},
    }
    if request.get("envoy_id"):
        found["uid"] = str(request["envoy_id"])
    return found


def _millis(time: object) -> int:
    try:
        return round(datetime.fromisoformat(str(time)).astimezone(UTC).timestamp() * 1000)
    except ValueError:
        return 0


def _as_it_stands(entry: Entry) -> bytes:
    return entry.raw


FORMATS: Final[Mapping[str, Encode]] = {"jsonl": _as_it_stands, "opa": opa, "ocsf": ocsf}
