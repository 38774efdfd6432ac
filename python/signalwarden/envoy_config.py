"""Ready Envoy configuration for a directory: a sidecar or a gateway, with the ext_authz filter hardened.

Everything is built with the types of `envoy-data-plane`, so a field that Envoy does not have can't be
written, and the files in `envoy/` are the output of `render`, so they can't drift from this module. What each
choice is for stands in `envoy_yaml.py` and goes into the output as a comment.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, cast

from envoy_data_plane.envoy.config.accesslog.v3 import AccessLog
from envoy_data_plane.envoy.config.bootstrap.v3 import Admin, Bootstrap, BootstrapStaticResources
from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterDiscoveryType
from envoy_data_plane.envoy.config.common.mutation_rules.v3 import HeaderMutationRules
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    ApiVersion,
    GrpcService,
    GrpcServiceEnvoyGrpc,
    Http2ProtocolOptions,
    HttpProtocolOptions,
    HttpProtocolOptionsHeadersWithUnderscoresAction,
    JsonFormatOptions,
    KeepaliveSettings,
    Pipe,
    RetryPolicy,
    SocketAddress,
    SubstitutionFormatString,
)
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    Endpoint,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
from envoy_data_plane.envoy.config.overload.v3 import OverloadManager, ResourceMonitor
from envoy_data_plane.envoy.config.route.v3 import (
    HeaderMatcher,
    Route,
    RouteAction,
    RouteActionMaxStreamDuration,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from envoy_data_plane.envoy.extensions.access_loggers.file.v3 import FileAccessLog
from envoy_data_plane.envoy.extensions.filters.http.ext_authz.v3 import (
    BufferSettings,
    CheckSettings,
    ExtAuthz,
    ExtAuthzPerRoute,
)
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpConnectionManagerPathWithEscapedSlashesAction,
    HttpConnectionManagerSetCurrentClientCertDetails,
    HttpFilter,
)
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManagerForwardClientCertDetails as Forwarding,
)
from envoy_data_plane.envoy.extensions.resource_monitors.downstream_connections.v3 import (
    DownstreamConnectionsConfig,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import HttpProtocolOptions as UpstreamOptions
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import HttpProtocolOptionsExplicitHttpConfig
from envoy_data_plane.envoy.type.matcher.v3 import ListStringMatcher, RegexMatcher, StringMatcher
from envoy_data_plane.envoy.type.v3 import HttpStatus, StatusCode
from envoy_data_plane.google.protobuf import Any as ProtoAny
from envoy_data_plane.google.protobuf import Struct

from signalwarden import _core
from signalwarden.config import SETTINGS_FILE, read_settings
from signalwarden.config import Address as CheckAddress
from signalwarden.envoy_tls import EnvoyTls
from signalwarden.envoy_yaml import to_yaml
from signalwarden.errors import ConfigurationError, Problem, is_error

if TYPE_CHECKING:
    from pathlib import Path

    from signalwarden.settings import Settings

__all__ = ["CHECK_HEADERS", "Kind", "Options", "render"]

Kind = Literal["sidecar", "gateway"]

HEADER = """\
# Envoy as a {kind} for a signalwarden directory, made by `signalwarden.envoy_config.render`.
# What happens when something fails stands in envoy/README.md.
"""
EXT_AUTHZ = "envoy.filters.http.ext_authz"
CHECK_CLUSTER = "signalwarden"
XFCC = "x-forwarded-client-cert"
UPSTREAM_CLUSTER = "upstream"

# The request headers that the decision point is sent, beside those that a contract in signals.yaml names as
# a source, and those in which `identity` looks for one. All others stay in Envoy: cookies and other tokens are none
# of our business, and what is not sent can't influence.
CHECK_HEADERS = (
    ":authority",
    ":method",
    ":path",
    "content-encoding",
    "content-length",
    "content-type",
    "traceparent",
    "tracestate",
    "x-request-id",
    "x-signalwarden-approval",
    "x-signalwarden-grant",
)
# Ours alone: an allow overwrites or removes them. A route without a check must take them all away, or a
# client could write what the upstream believes to be ours.
OUR_HEADERS = (
    "x-signalwarden-approval",
    "x-signalwarden-decision-id",
    "x-signalwarden-grant",
    "x-signalwarden-principal",
)
# Headers by which some frameworks take another method or path than the one that was decided about.
OVERRIDE_HEADERS = (
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
)
# Equals the core's MAX_ANSWER_BODY_BYTES: a cut problem document would be no document.
MAX_DENIED_BODY_BYTES = 16 * 1024
# Envoy's advice for edges: with untrusted peers the default of 1 MiB a connection is memory given away.
EDGE_BUFFER_BYTES = 32 * 1024
EDGE_STREAMS = 100
EDGE_STREAM_WINDOW_BYTES = 64 * 1024
EDGE_CONNECTION_WINDOW_BYTES = 1024 * 1024
EDGE_MAX_CONNECTIONS = 50_000


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
    require_client_certificate: bool | None = None
    """None: a sidecar requires one (the handshake fails without), and so does whoever federates; any other
    gateway lets the decision point answer 401, so that the attempt is on record."""
    check_timeout: timedelta = timedelta(milliseconds=250)
    max_stream_duration: timedelta = timedelta(minutes=5)
    request_bodies: bool = True
    """Whether the check is sent the bodies of the routes that name body arguments, and of no others. Without, a
    request to such a route that has a body is `malformed_request`."""
    max_body_bytes: int = 64 * 1024
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
class _BodyRoute:
    """A route that names body arguments: the only place where Envoy may buffer a body."""

    regex: str
    methods: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Directory:
    """What Envoy has to know of a directory."""

    settings: Settings
    check: CheckAddress
    identity_headers: tuple[str, ...]
    signal_headers: tuple[str, ...]
    signal_namespaces: tuple[str, ...]
    body_routes: tuple[_BodyRoute, ...]

    @property
    def trust_domains(self) -> tuple[str, ...]:
        """Those whose callers are accepted."""
        return (self.settings.trust_domain, *self.settings.federates_with)


def render(directory: Path, kind: Kind, options: Options | None = None) -> str:
    """The bootstrap as YAML with comments. Raises ConfigurationError for a directory that can't be read, and
    BadInputError for options that it does not go with."""
    chosen = options or Options()
    known = _read(directory)
    return to_yaml(_bootstrap(known, kind, chosen), HEADER.format(kind=kind))


# ---- what the directory says ------------------------------------------------------------------------------


def _read(directory: Path) -> _Directory:
    settings, findings = read_settings(_text(directory, SETTINGS_FILE), now=datetime.now(UTC))
    if settings is None:
        raise ConfigurationError(findings)
    routes = _document(directory, "routes.yaml")
    signals = _document(directory, "signals.yaml")
    sources = [
        source for contract in _entries(signals.get("signals")) for source in _list(contract.get("sources"))
    ]
    bodies = [
        _body_route(route["match"])
        for route in _list(routes.get("routes"))
        if isinstance(args := route.get("args"), dict) and args.get("body")
        if isinstance(route.get("match"), dict)
    ]
    return _Directory(
        settings=settings,
        check=settings.listen.check,
        identity_headers=_identity_headers(settings),
        signal_headers=tuple(sorted({name.lower() for name in _named(sources, "header", "header")})),
        signal_namespaces=tuple(sorted(_named(sources, "envoy_metadata", "namespace"))),
        body_routes=tuple(dict.fromkeys(bodies)),
    )


def _identity_headers(settings: Settings) -> tuple[str, ...]:
    """Those that an identity may stand in."""
    return tuple(
        sorted(
            settings.identity.token_headers().keys()
            | ({XFCC} if "xfcc" in settings.identity.sources else set())
        )
    )


def _named(sources: list[dict[str, Any]], kind: str, key: str) -> set[str]:
    """What the sources of a kind say under a key."""
    return {str(source[key]) for source in sources if source.get("kind") == kind and key in source}


def _text(directory: Path, name: str) -> str:
    try:
        return (directory / name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = Problem("error", name, 0, 0, "unreadable", f"`{directory / name}` can't be read: {error}")
        raise ConfigurationError([problem]) from None


def _document(directory: Path, name: str) -> dict[str, Any]:
    document = _core.parse_yaml(name, _text(directory, name))
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


def _body_route(match: dict[str, Any]) -> _BodyRoute:
    method = match.get("method")
    methods = tuple(map(str, method)) if isinstance(method, list) else (str(method),) if method else ()
    return _BodyRoute(_template_regex(str(match.get("path", "/{*rest}"))), methods)


def _template_regex(template: str) -> str:
    """A path template as a regular expression. Too wide is harmless: the decision point does the routing, and
    a body that it does not need is buffered for nothing."""
    parts = re.split(r"(\{\*?[^{}]+\})", template)
    return "".join(
        (".*" if part.startswith("{*") else "[^/]+") if part.startswith("{") else re.escape(part)
        for part in parts
    )


# ---- the bootstrap ----------------------------------------------------------------------------------------


def _bootstrap(known: _Directory, kind: Kind, options: Options) -> Bootstrap:
    listeners = [_listener(known, kind, options, guarded=True)]
    if options.unguarded:
        listeners.append(_listener(known, kind, options, guarded=False))
    upstream_host, upstream_port = options.upstream
    upstream = Cluster(
        name=UPSTREAM_CLUSTER,
        type=ClusterDiscoveryType.STATIC if _is_ip(upstream_host) else ClusterDiscoveryType.STRICT_DNS,
        connect_timeout=timedelta(seconds=1),
        load_assignment=_assignment(UPSTREAM_CLUSTER, _socket(upstream_host, upstream_port)),
    )
    tls = _tls(known, kind, options)
    clusters = [_check_cluster(known.check, tls, options), upstream]
    if agent := tls.agent_cluster():
        clusters.append(agent)
    return Bootstrap(
        node=tls.node(),
        admin=_admin(options.admin) if options.admin else None,
        static_resources=BootstrapStaticResources(listeners=listeners, clusters=clusters),
        overload_manager=_overload_manager() if kind == "gateway" else None,
    )


def _admin(address: tuple[str, int]) -> Admin:
    # Loopback, and only what reads: /quitquitquit or /logging are not for whoever is on the host.
    reads = [
        StringMatcher(exact="/ready"),
        StringMatcher(prefix="/stats"),
        StringMatcher(exact="/server_info"),
    ]
    return Admin(address=_socket(*address), allow_paths=reads)


def _overload_manager() -> OverloadManager:
    limit = DownstreamConnectionsConfig(max_active_downstream_connections=EDGE_MAX_CONNECTIONS)
    monitor = ResourceMonitor(
        name="envoy.resource_monitors.global_downstream_max_connections", typed_config=ProtoAny.pack(limit)
    )
    return OverloadManager(resource_monitors=[monitor])


def _check_cluster(check: CheckAddress, tls: EnvoyTls, options: Options) -> Cluster:
    keepalive = KeepaliveSettings(interval=timedelta(seconds=30), timeout=timedelta(seconds=5))
    http2 = UpstreamOptions(
        explicit_http_config=HttpProtocolOptionsExplicitHttpConfig(
            http2_protocol_options=Http2ProtocolOptions(connection_keepalive=keepalive)
        )
    )
    address = _socket(check.host, check.port) if check.path is None else Address(pipe=Pipe(path=check.path))
    named = check.path is None and not _is_ip(check.host)
    return Cluster(
        name=CHECK_CLUSTER,
        type=ClusterDiscoveryType.STRICT_DNS if named else ClusterDiscoveryType.STATIC,
        connect_timeout=options.check_timeout,
        transport_socket=tls.check(),
        typed_extension_protocol_options={
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": ProtoAny.pack(http2)
        },
        load_assignment=_assignment(CHECK_CLUSTER, address),
    )


def _listener(known: _Directory, kind: Kind, options: Options, *, guarded: bool) -> Listener:
    name, address = ("guarded", options.listener) if guarded else ("unguarded", options.unguarded)
    manager = _connection_manager(known, kind, options, guarded=guarded)
    chain = FilterChain(
        transport_socket=_tls(known, kind, options).listener(),
        filters=[
            Filter(name="envoy.filters.network.http_connection_manager", typed_config=ProtoAny.pack(manager))
        ],
    )
    return Listener(
        name=name,
        address=_socket(*cast("tuple[str, int]", address)),
        filter_chains=[chain],
        per_connection_buffer_limit_bytes=EDGE_BUFFER_BYTES if kind == "gateway" else None,
    )


def _tls(known: _Directory, kind: Kind, options: Options) -> EnvoyTls:
    required = options.require_client_certificate
    if required is None:
        required = kind == "sidecar" or len(known.trust_domains) > 1
    return EnvoyTls.of(
        known.settings,
        required=required,
        files=(options.certificate, options.key, options.trust_bundle),
        agent=options.agent,
        envoy_id=options.envoy_id,
        server_id=options.server_id,
    )


def _connection_manager(
    known: _Directory, kind: Kind, options: Options, *, guarded: bool
) -> HttpConnectionManager:
    edge = kind == "gateway"
    # Whoever called, as the handshake with this Envoy proved it, and nothing that the caller wrote.
    forwards = known.settings.tls.spire or "xfcc" in known.settings.identity.sources
    filters = [HttpFilter(name="envoy.filters.http.router", typed_config=ProtoAny.pack(Router()))]
    if guarded:
        authz = ProtoAny.pack(_ext_authz(known, options))
        filters.insert(0, HttpFilter(name=EXT_AUTHZ, typed_config=authz))
    return HttpConnectionManager(
        stat_prefix="guarded" if guarded else "unguarded",
        route_config=_routes(known, options, guarded=guarded),
        http_filters=filters,
        access_log=[_access_log(options.access_log)] if guarded else [],
        use_remote_address=edge,
        common_http_protocol_options=HttpProtocolOptions(
            headers_with_underscores_action=HttpProtocolOptionsHeadersWithUnderscoresAction.REJECT_REQUEST,
            idle_timeout=timedelta(hours=1),
        ),
        http2_protocol_options=Http2ProtocolOptions(
            max_concurrent_streams=EDGE_STREAMS,
            initial_stream_window_size=EDGE_STREAM_WINDOW_BYTES,
            initial_connection_window_size=EDGE_CONNECTION_WINDOW_BYTES,
        )
        if edge
        else None,
        request_headers_timeout=timedelta(seconds=10),
        stream_idle_timeout=timedelta(minutes=1),
        forward_client_cert_details=Forwarding.SANITIZE_SET if forwards else Forwarding.SANITIZE,
        set_current_client_cert_details=HttpConnectionManagerSetCurrentClientCertDetails(
            uri=True, cert="xfcc" in known.settings.identity.sources
        )
        if forwards
        else None,
        normalize_path=False,
        path_with_escaped_slashes_action=HttpConnectionManagerPathWithEscapedSlashesAction.KEEP_UNCHANGED,
    )


def _ext_authz(known: _Directory, options: Options) -> ExtAuthz:
    headers = sorted({*CHECK_HEADERS, *known.signal_headers, *known.identity_headers})
    return ExtAuthz(
        grpc_service=GrpcService(
            envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=CHECK_CLUSTER),
            timeout=options.check_timeout,
            retry_policy=RetryPolicy(
                retry_on="connect-failure,refused-stream,reset-before-request", num_retries=1
            ),
        ),
        transport_api_version=ApiVersion.V3,
        failure_mode_allow=False,
        status_on_error=HttpStatus(code=StatusCode.ServiceUnavailable),
        include_peer_certificate=True,
        include_tls_session=True,
        allowed_headers=ListStringMatcher(
            patterns=[StringMatcher(exact=name, ignore_case=True) for name in headers]
        ),
        metadata_context_namespaces=list(known.signal_namespaces),
        # Here and not on the routes: a route's own `pack_as_bytes` is ignored, and without it Envoy replaces
        # what is not UTF-8, so that what is decided about would not be what is forwarded.
        with_request_body=BufferSettings(max_request_bytes=options.max_body_bytes, pack_as_bytes=True)
        if _sends_bodies(known, options)
        else None,
        encode_raw_headers=options.raw_headers,
        validate_mutations=True,
        decoder_header_mutation_rules=HeaderMutationRules(disallow_system=True, disallow_is_error=True),
        enforce_response_header_limits=True,
        max_denied_response_body_bytes=MAX_DENIED_BODY_BYTES,
        emit_filter_state_stats=True,
    )


# ---- routes -----------------------------------------------------------------------------------------------


def _routes(known: _Directory, options: Options, *, guarded: bool) -> RouteConfiguration:
    action = RouteAction(
        cluster=UPSTREAM_CLUSTER,
        timeout=timedelta(0),
        max_stream_duration=RouteActionMaxStreamDuration(max_stream_duration=options.max_stream_duration),
    )
    everything = Route(name="guarded" if guarded else "unguarded", match=RouteMatch(prefix="/"), route=action)
    if not guarded:
        everything.request_headers_to_remove = list(OUR_HEADERS)
        return _route_configuration([everything])
    with_body: list[Route] = []
    if _sends_bodies(known, options):
        with_body = [_with_body(n, route, action) for n, route in enumerate(known.body_routes, start=1)]
        no_body = ExtAuthzPerRoute(check_settings=CheckSettings(disable_request_body_buffering=True))
        everything.typed_per_filter_config = {EXT_AUTHZ: ProtoAny.pack(no_body)}
    exempt = [_health(options.health_path, action)] if options.health_path else []
    return _route_configuration([*exempt, *with_body, everything])


def _route_configuration(routes: list[Route]) -> RouteConfiguration:
    host = VirtualHost(name="all", domains=["*"], routes=routes)
    return RouteConfiguration(
        name="routes", virtual_hosts=[host], request_headers_to_remove=list(OVERRIDE_HEADERS)
    )


def _health(path: str, action: RouteAction) -> Route:
    """The one exception: exact path, GET alone, and nothing that looks like ours gets through."""
    return Route(
        name="health",
        match=RouteMatch(path=path, headers=[_method(("GET",))]),
        route=action,
        typed_per_filter_config={EXT_AUTHZ: ProtoAny.pack(ExtAuthzPerRoute(disabled=True))},
        request_headers_to_remove=list(OUR_HEADERS),
    )


def _with_body(number: int, body: _BodyRoute, action: RouteAction) -> Route:
    return Route(
        name=f"guarded-with-body-{number}",
        match=RouteMatch(
            safe_regex=RegexMatcher(regex=body.regex), headers=[_method(body.methods)] if body.methods else []
        ),
        route=action,
    )


def _sends_bodies(known: _Directory, options: Options) -> bool:
    return options.request_bodies and bool(known.body_routes)


def _method(methods: tuple[str, ...]) -> HeaderMatcher:
    matcher = (
        StringMatcher(exact=methods[0])
        if len(methods) == 1
        else StringMatcher(safe_regex=RegexMatcher(regex="|".join(methods)))
    )
    return HeaderMatcher(name=":method", string_match=matcher)


# ---- small parts ------------------------------------------------------------------------------------------


def _access_log(path: str) -> AccessLog:
    decided = f"%DYNAMIC_METADATA({EXT_AUTHZ}:signalwarden:{{}})%"
    fields = {
        "time": "%START_TIME%",
        "method": "%REQ(:METHOD)%",
        # Without the query, which may hold what no log should.
        "path": "%PATH(NQ)%",
        "status": "%RESPONSE_CODE%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "flags": "%RESPONSE_FLAGS%",
        "duration_ms": "%DURATION%",
        "authz_us": f"%FILTER_STATE({EXT_AUTHZ}:FIELD:latency_us)%",
        "peer": "%DOWNSTREAM_PEER_URI_SAN%",
        "request_id": "%REQ(X-REQUEST-ID)%",
        "decision_id": decided.format("decision_id"),
        "reason": decided.format("reason"),
        "revision": decided.format("revision"),
    }
    log = FileAccessLog(
        path=path,
        log_format=SubstitutionFormatString(
            json_format=Struct.from_dict(fields), json_format_options=JsonFormatOptions(sort_properties=False)
        ),
    )
    return AccessLog(name="envoy.access_loggers.file", typed_config=ProtoAny.pack(log))


def _socket(host: str, port: int) -> Address:
    return Address(socket_address=SocketAddress(address=host, port_value=port))


def _assignment(cluster: str, address: Address) -> ClusterLoadAssignment:
    endpoint = LbEndpoint(endpoint=Endpoint(address=address))
    return ClusterLoadAssignment(
        cluster_name=cluster, endpoints=[LocalityLbEndpoints(lb_endpoints=[endpoint])]
    )


def _is_ip(host: str) -> bool:
    return ":" in host or re.fullmatch(r"[0-9.]+", host) is not None
