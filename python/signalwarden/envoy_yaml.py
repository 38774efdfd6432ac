"""The text of an Envoy configuration: YAML that says weighty defaults aloud, and why each choice was made."""

from __future__ import annotations

import json
import re
from typing import Any

import betterproto2

__all__ = ["to_yaml"]

COMMENT_COLUMNS = 100


def to_yaml(message: betterproto2.Message, header: str = "") -> str:
    """Any message of Envoy's API as commented YAML."""
    value = _spelled_out(message.to_dict(casing=betterproto2.Casing.SNAKE))
    return header + "\n".join(_yaml(value)) + "\n"


# Envoy's defaults that carry the weight of a promise: said aloud, so that a reader need not know them.
_ALOUD: dict[str, dict[str, object]] = {
    "ExtAuthz": {"failure_mode_allow": False, "clear_route_cache": False},
    "with_request_body": {"allow_partial_message": False},
    "McpOverride": {"traffic_mode": "PASS_THROUGH"},
    "HttpConnectionManager": {
        "forward_client_cert_details": "SANITIZE",
        "merge_slashes": False,
        "preserve_external_request_id": False,
    },
}

_COMMENTS: dict[str, str] = {
    "tracing": (
        "Envoy's own spans. Those of decisions, which signalwarden sends, join them: `telemetry` in "
        "signalwarden.yaml."
    ),
    "request_mutations": (
        "Envoy writes its trace into a request on its way upstream alone. The decision point hears of it "
        "before that; what a caller says of its own trace stands."
    ),
    "admin": "Loopback, and only what reads.",
    "overload_manager": "A bound on connections, as Envoy advises for edges.",
    "per_connection_buffer_limit_bytes": "Untrusted peers get little of our memory.",
    "custom_validator_config": (
        "One trust bundle for each trust domain, chosen by the SPIFFE ID of the certificate: no "
        "authority can vouch for another's workloads. With SPIRE, certificate and bundles come from its "
        "agent by SDS: envoy/spire.yaml."
    ),
    "tls_certificate_sds_secret_configs": (
        "Envoy's own SVID, named by its SPIFFE ID. The agent knows which Envoy asks by its process, and "
        "sends the next one before this one runs out; nothing restarts."
    ),
    "validation_context_sds_secret_config": (
        "The bundles, from the agent: as `ALL` those of every federated trust domain, each for its own "
        "workloads alone."
    ),
    "match_typed_subject_alt_names": (
        "The decision point must be this one: any other workload of the trust domain could allow anything."
    ),
    "disable_spiffe_cert_validation": (
        "Else the agent brings Envoy's SPIFFE validator, which has no handshake without a certificate."
    ),
    "set_current_client_cert_details": (
        "Who called, as the handshake with this Envoy proved it. What the caller wrote there is gone."
    ),
    "require_client_certificate": (
        "true: no handshake without an SVID. false: the decision point answers 401, which leaves a record."
    ),
    "forward_client_cert_details": "A client's own x-forwarded-client-cert reaches nobody.",
    "headers_with_underscores_action": (
        "Some upstreams read x_signalwarden_principal as x-signalwarden-principal."
    ),
    "normalize_path": (
        "What is decided about is what is forwarded, byte by byte. The decision point refuses every "
        "path that has two meanings (dot segments, //, escaped slashes) with a record; repairing it "
        "here would hide the attempt, and rejecting it here would leave none."
    ),
    "preserve_external_request_id": "A request id is Envoy's own, so that no client can pass for another in the logs.",
    "failure_mode_allow": "Never true: an unreachable decision point would be an open door (promise I5).",
    "clear_route_cache": "A decision never changes the route.",
    "status_on_error": "503, not the default 403: an outage is no verdict, and a client may try again.",
    "retry_policy": "Once, and only if the check can't have been decided.",
    "include_peer_certificate": "The caller's identity, and its SHA-256 for the record.",
    "allowed_headers": (
        "What the decision point is sent: what it reads, the headers that signals.yaml names, and those "
        "in which `identity` looks for one. Cookies and other tokens stay here."
    ),
    "metadata_context_namespaces": (
        "The metadata that signals.yaml names, and what the MCP filter saw. The filters that write it stand "
        "before this one."
    ),
    "encode_raw_headers": "Repeated headers stay apart and bytes stay bytes: one meaning or none.",
    "validate_mutations": "A malformed answer is a 500, never a malformed request to the upstream.",
    "decoder_header_mutation_rules": (
        "An answer may not touch :path, :method, :authority, host or x-envoy-*."
    ),
    "max_denied_response_body_bytes": "The most that the decision point sends.",
    "emit_filter_state_stats": "Time of the check, for the access log.",
    "max_stream_duration": (
        "Envoy asks once per request: nothing that was allowed goes on for longer than this without "
        "being asked again."
    ),
    "request_headers_to_remove": "Nothing here may come from a client.",
    "with_request_body": (
        "Only where routes.yaml names body arguments, MCP calls or approvals: every other route turns it "
        "off. Envoy takes pack_as_bytes from the filter alone. A larger body is answered 413 before any "
        "check."
    ),
    "allow_partial_message": (
        "Never true: Envoy's mark of a part (x-envoy-auth-partial-body) says false when exactly the limit had "
        "come, and the rest would go on unseen."
    ),
    "max_request_body_size": (
        "As much as the check is sent. On all other routes the MCP filter is off: it would hold up their "
        "bodies for nothing."
    ),
    "traffic_mode": (
        "What is no JSON-RPC goes on to the check, and is denied there with a record; rejecting it here "
        "would leave none."
    ),
    "request_headers_to_add": (
        "Which tools this caller may use: the answer to tools/list need not name others. Never a client's "
        "own: it is removed first."
    ),
    "grpc": (
        "Calls of gRPC go on over HTTP/2, without which they can't be; all else over HTTP/1.1, to the same address."
    ),
    "disable_request_body_buffering": "This route needs no body to be decided.",
    "disabled": "Health of the upstream: exact path, GET alone, no check.",
}


_OF_PARTS: dict[str, str] = {
    "with_request_body": (
        "Policies see whole requests: on every route the beginning of the body, as OPA's Envoy plugin has it."
    ),
    "allow_partial_message": (
        "Policies learn of a part by `truncated_body`. A body without a length that has just the limit passes for a "
        "whole one."
    ),
}


def _comment(key: str, entry: Any) -> str | None:
    """What a key is for; in other words where parts of bodies are sent, for policies over whole requests."""
    parts = entry.get("allow_partial_message") if isinstance(entry, dict) else entry
    if key in _OF_PARTS and parts is True:
        return _OF_PARTS[key]
    return _COMMENTS.get(key)


def _spelled_out(value: Any, key: str = "") -> Any:
    """Adds the defaults of `_ALOUD`, wherever their message stands: known by its type, or by the key that holds it."""
    if isinstance(value, list):
        return [_spelled_out(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    name = str(value.get("@type", "")).rpartition(".")[2] or key
    merged = {**value, **{k: v for k, v in _ALOUD.get(name, {}).items() if k not in value}}
    return {key: _spelled_out(entry, key) for key, entry in merged.items()}


def _yaml(value: Any, indent: int = 0, said: set[str] | None = None) -> list[str]:
    """YAML of what JSON can hold, with each comment at the first place where its key stands."""
    said = set() if said is None else said
    pad = "  " * indent
    lines: list[str] = []
    for key, entry in value.items():
        comment = _comment(key, entry)
        if comment and key not in said:
            said.add(key)
            lines += [f"{pad}# {line}" for line in _wrapped(comment, COMMENT_COLUMNS - len(pad))]
        name = json.dumps(key) if re.search(r"[^\w.-]", key) else key
        if isinstance(entry, dict) and entry:
            lines += [f"{pad}{name}:", *_yaml(entry, indent + 1, said)]
        elif isinstance(entry, list) and entry:
            lines += [f"{pad}{name}:", *_yaml_list(entry, indent + 1, said)]
        else:
            lines.append(f"{pad}{name}: {_scalar(entry)}")
    return lines


def _yaml_list(entries: list[Any], indent: int, said: set[str]) -> list[str]:
    pad = "  " * indent
    lines: list[str] = []
    for entry in entries:
        if not isinstance(entry, dict) or not entry:
            lines.append(f"{pad}- {_scalar(entry)}")
            continue
        block = _yaml(entry, indent + 1, said)
        first = next(i for i, line in enumerate(block) if not line.lstrip().startswith("#"))
        comments = [pad + line.lstrip() for line in block[:first]]
        lines += [*comments, f"{pad}- {block[first].lstrip()}", *block[first + 1 :]]
    return lines


def _scalar(value: object) -> str:
    """Plain where YAML 1.1 and 1.2 agree that it is a string, else as JSON, which YAML contains."""
    if (
        isinstance(value, str)
        and re.fullmatch(r"[A-Za-z/][\w./@-]*", value)
        and value.lower() not in _YAML_WORDS
    ):
        return value
    return json.dumps(value, ensure_ascii=False)


_YAML_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
