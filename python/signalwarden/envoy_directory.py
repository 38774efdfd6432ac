"""What Envoy has to know of a directory, and what it can't know from there: the input of `envoy_config.py`.

The files are read leniently, for Envoy's configuration may be wanted before the policies are written. What would make
it unsafe is not guessed at: a directory with approval gates has to load.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from signalwarden import _core
from signalwarden.body_needs import GATE, gated_actions
from signalwarden.config import SETTINGS_FILE, judge_described, read_settings
from signalwarden.directory import Directory
from signalwarden.errors import ConfigurationError, Problem, is_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from signalwarden.policy_settings import RegoSettings
    from signalwarden.settings import Settings
    from signalwarden.values import Address

__all__ = ["MCP_FILTER", "XFCC", "BodyRoute", "Kind", "Known", "Options", "Whole", "read"]

Kind = Literal["sidecar", "gateway"]

XFCC = "x-forwarded-client-cert"
MCP_FILTER = "envoy.filters.http.mcp"
"""The filter, and the namespace of the metadata that it writes."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a directory does not say: where Envoy listens, where it sends on, where its credentials are."""

    listener: tuple[str, int] = ("0.0.0.0", 8443)
    upstream: tuple[str, int] = ("127.0.0.1", 8080)
    admin: tuple[str, int] | None = ("127.0.0.1", 9901)
    unguarded: tuple[str, int] | None = None
    """A second listener without ext_authz, to measure what a check adds. For benches and the demo only."""
    certificate: str = "tls/tls.crt"
    key: str = "tls/tls.key"
    trust_bundle: str = "tls/{trust_domain}.pem"
    """One file for each trust domain, so that no authority can vouch for another's workloads."""
    access_log: str = "/dev/stdout"
    traces: tuple[str, int] | None = None
    """A collector of OpenTelemetry that Envoy sends its spans to: OTLP over gRPC, in plain text, so on this machine."""
    require_client_certificate: bool | None = None
    """None: a sidecar requires one (the handshake fails without), and so does whoever federates; any other
    gateway lets the decision point answer 401, so that the attempt is on record."""
    check_timeout: timedelta = timedelta(milliseconds=250)
    max_stream_duration: timedelta = timedelta(minutes=5)
    request_bodies: bool = True
    """Whether the check is sent the bodies of the routes that need them, and of no others. Without, a request
    that has a body is denied there: `malformed_request` where it is read, `body_incomplete` where it is approved."""
    max_body_bytes: int = 64 * 1024
    mcp_filter: bool = True
    """Whether Envoy's own MCP filter reads the calls of MCP routes, too. False for an Envoy that does not have it: it
    is a second pair of eyes and gives fields to the access log; what is decided is read from the body."""
    agent: str | None = None
    """Socket of SPIRE's agent, which brings certificates and bundles in place of the files; None: as the directory's
    `tls.spire` and `workload_api` say."""
    envoy_id: str | None = None
    """Envoy's own SPIFFE ID; None: the first of `tls.check_clients`."""
    server_id: str | None = None
    """The decision point's SPIFFE ID, if its check address has TLS; None: `spiffe://TRUST-DOMAIN/signalwarden`."""
    health_path: str | None = "/healthz"
    raw_headers: bool = True


@dataclass(frozen=True, slots=True)
class BodyRoute:
    """Requests that the check needs the body of: the only place where Envoy may buffer one."""

    regex: str
    methods: tuple[str, ...]
    mcp: bool
    """JSON-RPC of the Model Context Protocol."""


@dataclass(frozen=True, slots=True)
class Whole:
    """What policies over whole requests read beside what every check is sent: every header, and bodies of any route."""

    namespaces: tuple[str, ...]
    """Of Envoy's dynamic metadata."""
    route_namespaces: tuple[str, ...]
    """Of the metadata of Envoy's routes."""
    grpc: bool
    """Whether bodies of gRPC are read, for which Envoy must send bytes."""
    client_streams: tuple[str, ...]
    """Paths of calls whose clients stream: of their bodies nothing is read, and held back they wait for the end."""


@dataclass(frozen=True, slots=True)
class Known:
    """What Envoy has to know of a directory."""

    settings: Settings
    check: Address
    identity_headers: tuple[str, ...]
    signal_headers: tuple[str, ...]
    signal_namespaces: tuple[str, ...]
    body_routes: tuple[BodyRoute, ...]
    whole: Whole | None = None
    """Set if policies see whole requests (`input: opa_envoy`)."""
    grpc: bool = False
    """Whether calls of gRPC are among the requests, as far as the directory tells: a route names one, or policies see
    whole requests, whatever they are. Their way to the upstream is HTTP/2."""

    @property
    def trust_domains(self) -> tuple[str, ...]:
        """Those whose callers are accepted."""
        return (self.settings.trust_domain, *self.settings.federates_with)

    @property
    def mcp(self) -> bool:
        """Whether any route is for MCP."""
        return any(route.mcp for route in self.body_routes)


def read(root: Path) -> Known:
    """Raises ConfigurationError for a directory that can't be read."""
    settings, findings = read_settings(_text(root, SETTINGS_FILE), now=datetime.now(UTC))
    if settings is None:
        raise ConfigurationError(findings)
    routes = _document(root, "routes.yaml")
    signals = _document(root, "signals.yaml")
    sources = [
        source for contract in _entries(signals.get("signals")) for source in _list(contract.get("sources"))
    ]
    described = _described(root, settings)
    whole = _whole(settings, described)
    return Known(
        settings=settings,
        check=settings.listen.check,
        identity_headers=_identity_headers(settings),
        signal_headers=tuple(sorted({name.lower() for name in _named(sources, "header", "header")})),
        signal_namespaces=tuple(sorted(_named(sources, "envoy_metadata", "namespace"))),
        body_routes=_body_routes(_list(routes.get("routes")), gated_actions(described)),
        whole=whole,
        grpc=whole is not None or _names_grpc(_list(routes.get("routes"))),
    )


def _described(root: Path, settings: Settings) -> dict[str, Any]:
    """What only the policy engine can say, of a directory that then has to load; nothing where it need not be asked.

    It says which metadata policies over whole requests read, and which actions a gate may apply to. The annotation of
    a gate has one spelling, so files without it have none."""
    directory = Directory.read(root)
    has_gates = any(
        GATE.encode() in content for name, content in directory.files.items() if name.endswith(".cedar")
    )
    if not has_gates and _over_whole_requests(settings) is None:
        return {}
    return judge_described(directory, int(datetime.now(UTC).timestamp() * 1_000_000))[1]


def _over_whole_requests(settings: Settings) -> RegoSettings | None:
    """The settings of policies that see whole requests."""
    rego = settings.policies.rego
    return rego if rego is not None and rego.input == "opa_envoy" else None


def _whole(settings: Settings, described: Mapping[str, Any]) -> Whole | None:
    rego = _over_whole_requests(settings)
    if rego is None:
        return None
    paths = [read["path"] for read in described["reads_outside"]]
    return Whole(
        namespaces=_namespaces(paths, "metadataContext"),
        route_namespaces=_namespaces(paths, "routeMetadataContext"),
        grpc=rego.descriptors is not None,
        client_streams=tuple(described["client_streams"]),
    )


def _namespaces(paths: list[list[str | None]], context: str) -> tuple[str, ...]:
    """Those that are named where policies read metadata."""
    above = ["attributes", context, "filterMetadata"]
    named = {path[3] for path in paths if path[:3] == above and len(path) > len(above)}
    return tuple(sorted(name for name in named if name is not None))


# ---- bodies -----------------------------------------------------------------------------------------------


def _body_routes(routes: list[dict[str, Any]], gated: frozenset[str]) -> tuple[BodyRoute, ...]:
    """One for each path and methods: several tools of one server are one route of Envoy's."""
    found: dict[tuple[str, tuple[str, ...]], BodyRoute] = {}
    for route in routes:
        match = route.get("match")
        if not isinstance(match, dict):
            continue
        args = route.get("args")
        reads = isinstance(args, dict) and bool(args.get("body") or args.get("tool"))
        # An approval is bound to the whole body.
        approved = route.get("tier") == "approval" or route.get("action") in gated
        mcp = "mcp" in match
        if not (reads or approved or mcp):
            continue
        regex, methods = _path_regex(match), _methods(match)
        before = found.get((regex, methods))
        found[regex, methods] = BodyRoute(
            regex,
            methods,
            mcp=mcp or (before is not None and before.mcp),
        )
    return tuple(found.values())


def _names_grpc(routes: list[dict[str, Any]]) -> bool:
    """Whether a route is for calls of gRPC alone."""
    matches = [route.get("match") for route in routes]
    return any(isinstance(match, dict) and "grpc" in match for match in matches)


def _methods(match: dict[str, Any]) -> tuple[str, ...]:
    method = match.get("method")
    return tuple(map(str, method)) if isinstance(method, list) else (str(method),) if method else ()


def _path_regex(match: dict[str, Any]) -> str:
    grpc = match.get("grpc")
    if "path" not in match and isinstance(grpc, dict) and grpc.get("service"):
        return _template_regex(f"/{grpc['service']}/{grpc.get('method') or '{method}'}")
    return _template_regex(str(match.get("path", "/{*rest}")))


def _template_regex(template: str) -> str:
    """A path template as a regular expression. Too wide is harmless: the decision point does the routing, and
    a body that it does not need is buffered for nothing."""
    parts = re.split(r"(\{\*?[^{}]+\})", template)
    return "".join(
        (".*" if part.startswith("{*") else "[^/]+") if part.startswith("{") else re.escape(part)
        for part in parts
    )


# ---- files ------------------------------------------------------------------------------------------------


def _identity_headers(settings: Settings) -> tuple[str, ...]:
    """Those that an identity may stand in."""
    return tuple(
        sorted(
            settings.identity.token_headers().keys()
            | ({XFCC} if "xfcc" in settings.identity.sources else set())
        )
    )


def _named(sources: Iterable[dict[str, Any]], kind: str, key: str) -> set[str]:
    """What the sources of a kind say under a key."""
    return {str(source[key]) for source in sources if source.get("kind") == kind and key in source}


def _text(root: Path, name: str) -> str:
    try:
        return (root / name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = Problem("error", name, 0, 0, "unreadable", f"`{root / name}` can't be read: {error}")
        raise ConfigurationError([problem]) from None


def _document(root: Path, name: str) -> dict[str, Any]:
    document = _core.parse_yaml(name, _text(root, name))
    value = json.loads(document.json) if document.json else None
    if any(map(is_error, document.findings)):
        raise ConfigurationError(document.findings)
    if not isinstance(value, dict):
        raise ConfigurationError([Problem("error", name, 0, 0, "wrong_type", "expected a map")])
    return value


def _entries(value: object) -> list[dict[str, Any]]:
    return [entry for entry in value.values() if isinstance(entry, dict)] if isinstance(value, dict) else []


def _list(value: object) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
