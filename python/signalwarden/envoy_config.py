"""Ready Envoy configuration for a directory: a sidecar or a gateway, with the ext_authz filter hardened.

Everything is built with the types of `envoy-data-plane`, so a field that Envoy does not have can't be
written, and the files in `envoy/` are the output of `render`, so they can't drift from this module. What each
choice is for stands in `envoy_yaml.py` and goes into the output as a comment.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, cast

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
from envoy_data_plane.envoy.extensions.access_loggers.file.v3 import FileAccessLog
from envoy_data_plane.envoy.extensions.filters.http.ext_authz.v3 import BufferSettings, ExtAuthz
from envoy_data_plane.envoy.extensions.filters.http.mcp.v3 import Mcp
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
from envoy_data_plane.envoy.type.matcher.v3 import ListStringMatcher, StringMatcher
from envoy_data_plane.envoy.type.v3 import HttpStatus, StatusCode
from envoy_data_plane.google.protobuf import Any as ProtoAny
from envoy_data_plane.google.protobuf import Struct

from signalwarden.envoy_directory import MCP_FILTER, Kind, Known, Options, read
from signalwarden.envoy_routes import (
    EXT_AUTHZ,
    GRPC_CLUSTER,
    UPSTREAM_CLUSTER,
    route_configuration,
    sends_bodies,
)
from signalwarden.envoy_tls import EnvoyTls
from signalwarden.envoy_tracing import TRACE_CLUSTER, trace_cluster, trace_filter, tracing
from signalwarden.envoy_yaml import to_yaml
from signalwarden.errors import BadInputError

if TYPE_CHECKING:
    from pathlib import Path

    from signalwarden.values import Address as CheckAddress

__all__ = ["CHECK_HEADERS", "Kind", "Options", "host_and_port", "render"]

HEADER = """\
# Envoy as a {kind} for a signalwarden directory, made by `signalwarden.envoy_config.render`.
# What happens when something fails stands in envoy/README.md.
"""
CHECK_CLUSTER = "signalwarden"

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
# Equals the core's MAX_ANSWER_BODY_BYTES: a cut problem document would be no document.
MAX_DENIED_BODY_BYTES = 16 * 1024
# Envoy's advice for edges: with untrusted peers the default of 1 MiB a connection is memory given away.
EDGE_BUFFER_BYTES = 32 * 1024
EDGE_STREAMS = 100
EDGE_STREAM_WINDOW_BYTES = 64 * 1024
EDGE_CONNECTION_WINDOW_BYTES = 1024 * 1024
EDGE_MAX_CONNECTIONS = 50_000


def render(directory: Path, kind: Kind, options: Options | None = None) -> str:
    """The bootstrap as YAML with comments. Raises ConfigurationError for a directory that can't be read, and
    BadInputError for options that it does not go with."""
    chosen = options or Options()
    known = read(directory)
    return to_yaml(_bootstrap(known, kind, chosen), HEADER.format(kind=kind))


def host_and_port(text: str) -> tuple[str, int]:
    """`127.0.0.1:4317`, `[::1]:4317` or `otel:4317`. Raises BadInputError."""
    host, colon, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not re.fullmatch(r"[A-Za-z0-9._:-]+", host) or not re.fullmatch(r"[0-9]{1,5}", port):
        raise BadInputError(f"expected a host and a port such as `127.0.0.1:4317`, found `{text}`")
    return host, int(port)


# ---- the bootstrap ----------------------------------------------------------------------------------------


def _bootstrap(known: Known, kind: Kind, options: Options) -> Bootstrap:
    listeners = [_listener(known, kind, options, guarded=True)]
    if options.unguarded:
        listeners.append(_listener(known, kind, options, guarded=False))
    tls = _tls(known, kind, options)
    clusters = [_check_cluster(known.check, tls, options), _upstream(UPSTREAM_CLUSTER, options)]
    if known.grpc:
        over_http2 = _upstream(GRPC_CLUSTER, options)
        over_http2.typed_extension_protocol_options = _http2(Http2ProtocolOptions())
        clusters.append(over_http2)
    if agent := tls.agent_cluster():
        clusters.append(agent)
    if options.traces:
        place = _assignment(TRACE_CLUSTER, _socket(*options.traces))
        clusters.append(trace_cluster(place, named=not _is_ip(options.traces[0])))
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


def _upstream(name: str, options: Options) -> Cluster:
    host, port = options.upstream
    return Cluster(
        name=name,
        type=ClusterDiscoveryType.STATIC if _is_ip(host) else ClusterDiscoveryType.STRICT_DNS,
        connect_timeout=timedelta(seconds=1),
        load_assignment=_assignment(name, _socket(host, port)),
    )


def _http2(options: Http2ProtocolOptions) -> dict[str, ProtoAny]:
    """What makes a cluster speak HTTP/2, and nothing else."""
    explicit = HttpProtocolOptionsExplicitHttpConfig(http2_protocol_options=options)
    return {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": ProtoAny.pack(
            UpstreamOptions(explicit_http_config=explicit)
        )
    }


def _check_cluster(check: CheckAddress, tls: EnvoyTls, options: Options) -> Cluster:
    keepalive = KeepaliveSettings(interval=timedelta(seconds=30), timeout=timedelta(seconds=5))
    address = _socket(check.host, check.port) if check.path is None else Address(pipe=Pipe(path=check.path))
    named = check.path is None and not _is_ip(check.host)
    return Cluster(
        name=CHECK_CLUSTER,
        type=ClusterDiscoveryType.STRICT_DNS if named else ClusterDiscoveryType.STATIC,
        connect_timeout=options.check_timeout,
        transport_socket=tls.check(),
        typed_extension_protocol_options=_http2(Http2ProtocolOptions(connection_keepalive=keepalive)),
        load_assignment=_assignment(CHECK_CLUSTER, address),
    )


def _listener(known: Known, kind: Kind, options: Options, *, guarded: bool) -> Listener:
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


def _tls(known: Known, kind: Kind, options: Options) -> EnvoyTls:
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
    known: Known, kind: Kind, options: Options, *, guarded: bool
) -> HttpConnectionManager:
    edge = kind == "gateway"
    # Whoever called, as the handshake with this Envoy proved it, and nothing that the caller wrote.
    forwards = known.settings.tls.spire or "xfcc" in known.settings.identity.sources
    filters = [HttpFilter(name="envoy.filters.http.router", typed_config=ProtoAny.pack(Router()))]
    if guarded:
        authz = ProtoAny.pack(_ext_authz(known, options))
        filters.insert(0, HttpFilter(name=EXT_AUTHZ, typed_config=authz))
        if known.mcp and sends_bodies(known, options) and options.mcp_filter:
            # Off but for the routes that turn it on: it would hold up every other JSON body for nothing.
            filters.insert(0, HttpFilter(name=MCP_FILTER, typed_config=ProtoAny.pack(Mcp()), disabled=True))
    if guarded and options.traces:
        filters.insert(0, trace_filter())
    return HttpConnectionManager(
        stat_prefix="guarded" if guarded else "unguarded",
        route_config=route_configuration(known, options, guarded=guarded),
        http_filters=filters,
        access_log=[_access_log(options.access_log)] if guarded else [],
        tracing=tracing() if guarded and options.traces else None,
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


def _with_request_body(known: Known, options: Options) -> BufferSettings:
    # Here and not on the routes: a route's own `pack_as_bytes` is ignored, and without it Envoy replaces
    # what is not UTF-8, so that what is decided about would not be what is forwarded.
    if known.whole is None or known.body_routes:
        return BufferSettings(max_request_bytes=options.max_body_bytes, pack_as_bytes=True)
    # As OPA's Envoy plugin has it: a text in `body`, or bytes where it reads gRPC; of a long one the beginning, and
    # `truncated_body` says so.
    return BufferSettings(
        max_request_bytes=options.max_body_bytes, allow_partial_message=True, pack_as_bytes=known.whole.grpc
    )


def _ext_authz(known: Known, options: Options) -> ExtAuthz:
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
        # Policies over whole requests are sent every header, cookies and tokens included.
        allowed_headers=ListStringMatcher(
            patterns=[StringMatcher(exact=name, ignore_case=True) for name in headers]
        )
        if known.whole is None
        else None,
        metadata_context_namespaces=sorted(
            {
                *known.signal_namespaces,
                *(known.whole.namespaces if known.whole else ()),
                *({MCP_FILTER} if known.mcp and options.mcp_filter else ()),
            }
        ),
        route_metadata_context_namespaces=list(known.whole.route_namespaces) if known.whole else [],
        with_request_body=_with_request_body(known, options) if sends_bodies(known, options) else None,
        encode_raw_headers=options.raw_headers,
        validate_mutations=True,
        decoder_header_mutation_rules=HeaderMutationRules(disallow_system=True, disallow_is_error=True),
        enforce_response_header_limits=True,
        max_denied_response_body_bytes=MAX_DENIED_BODY_BYTES,
        emit_filter_state_stats=True,
    )


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
