"""The routes of an Envoy configuration: which bodies the check is sent, what stays open, what no client may write."""

from __future__ import annotations

from copy import deepcopy
from datetime import timedelta
from typing import TYPE_CHECKING, cast

from envoy_data_plane.envoy.config.core.v3 import (
    HeaderValue,
    HeaderValueOption,
    HeaderValueOptionHeaderAppendAction,
)
from envoy_data_plane.envoy.config.route.v3 import (
    FilterConfig,
    HeaderMatcher,
    Route,
    RouteAction,
    RouteActionMaxStreamDuration,
    RouteConfiguration,
    RouteMatch,
    RouteMatchGrpcRouteMatchOptions,
    VirtualHost,
)
from envoy_data_plane.envoy.extensions.filters.http.ext_authz.v3 import CheckSettings, ExtAuthzPerRoute
from envoy_data_plane.envoy.extensions.filters.http.mcp.v3 import McpOverride
from envoy_data_plane.envoy.type.matcher.v3 import RegexMatcher, StringMatcher
from envoy_data_plane.google.protobuf import Any as ProtoAny

from signalwarden.envoy_directory import MCP_FILTER

if TYPE_CHECKING:
    from signalwarden.envoy_directory import BodyRoute, Known, Options

__all__ = [
    "EXT_AUTHZ",
    "GRPC_CLUSTER",
    "TOOLS_HEADER",
    "UPSTREAM_CLUSTER",
    "route_configuration",
    "sends_bodies",
]

EXT_AUTHZ = "envoy.filters.http.ext_authz"
UPSTREAM_CLUSTER = "upstream"
GRPC_CLUSTER = "upstream-grpc"
"""The same upstream, over HTTP/2."""

TOOLS_HEADER = "x-signalwarden-tools"
"""Tells an MCP server which tools this caller may use: the answer to `tools/list` need not name others."""
# Ours alone: an allow overwrites or removes them. A route without a check must take them all away, or a
# client could write what the upstream believes to be ours.
OUR_HEADERS = (
    "x-signalwarden-approval",
    "x-signalwarden-decision-id",
    "x-signalwarden-grant",
    "x-signalwarden-principal",
    TOOLS_HEADER,
)
# Headers by which some frameworks take another method or path than the one that was decided about.
OVERRIDE_HEADERS = (
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
)


def route_configuration(known: Known, options: Options, *, guarded: bool) -> RouteConfiguration:
    """All routes, most special first: Envoy takes the first that matches."""
    action = _action(options.max_stream_duration)
    everything = Route(name="guarded" if guarded else "unguarded", match=RouteMatch(prefix="/"), route=action)
    if not guarded:
        everything.request_headers_to_remove = list(OUR_HEADERS)
        return _configuration(_with_grpc([everything], known))
    with_body: list[Route] = []
    streams: list[Route] = []
    # Policies over whole requests read the body of any, but that of a client that streams.
    if sends_bodies(known, options) and known.whole is not None:
        streams = [
            _client_stream(n, path, action) for n, path in enumerate(known.whole.client_streams, start=1)
        ]
    elif sends_bodies(known, options):
        everything.typed_per_filter_config = _no_body()
        with_body = [_with_body(n, route, options) for n, route in enumerate(known.body_routes, start=1)]
        streams = [
            _stream(n, regex, everything, options)
            for n, regex in enumerate(dict.fromkeys(r.regex for r in known.body_routes if r.mcp), start=1)
        ]
    if known.mcp:
        # On each route: what stands above a route is applied after it, and would take away what it adds.
        for route in (*streams, *with_body, everything):
            route.request_headers_to_remove = [TOOLS_HEADER]
    exempt = [_health(options.health_path, action)] if options.health_path else []
    return _configuration([*exempt, *streams, *_with_grpc([*with_body, everything], known)])


def sends_bodies(known: Known, options: Options) -> bool:
    """Whether the check is ever sent a body."""
    return options.request_bodies and (bool(known.body_routes) or known.whole is not None)


def _no_body() -> dict[str, ProtoAny]:
    no_body = ExtAuthzPerRoute(check_settings=CheckSettings(disable_request_body_buffering=True))
    return {EXT_AUTHZ: ProtoAny.pack(no_body)}


def _action(longest: timedelta) -> RouteAction:
    return RouteAction(
        cluster=UPSTREAM_CLUSTER,
        timeout=timedelta(0),
        max_stream_duration=RouteActionMaxStreamDuration(max_stream_duration=longest),
    )


def _with_grpc(routes: list[Route], known: Known) -> list[Route]:
    """Before each route the same for calls of gRPC, which only HTTP/2 can carry to the upstream."""
    if not known.grpc:
        return routes
    return [either for route in routes for either in (_over_http2(route), route)]


def _over_http2(route: Route) -> Route:
    same = deepcopy(route)
    same.name = f"{route.name}-grpc"
    cast("RouteMatch", same.match).grpc = RouteMatchGrpcRouteMatchOptions()
    cast("RouteAction", same.route).cluster = GRPC_CLUSTER
    return same


def _configuration(routes: list[Route]) -> RouteConfiguration:
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


def _with_body(number: int, body: BodyRoute, options: Options) -> Route:
    filters: dict[str, ProtoAny] = {}
    if body.mcp and options.mcp_filter:
        parses = McpOverride(max_request_body_size=options.max_body_bytes)
        filters[MCP_FILTER] = ProtoAny.pack(FilterConfig(config=ProtoAny.pack(parses)))
    return Route(
        name=f"guarded-with-body-{number}",
        match=RouteMatch(
            safe_regex=RegexMatcher(regex=body.regex), headers=[_method(body.methods)] if body.methods else []
        ),
        route=_action(options.max_stream_duration),
        typed_per_filter_config=filters,
        request_headers_to_add=[_tools()] if body.mcp else [],
    )


def _client_stream(number: int, path: str, action: RouteAction) -> Route:
    """A call of gRPC whose client streams. Held back for its body, it would wait for the end of its stream."""
    route = Route(
        name=f"client-stream-{number}",
        match=RouteMatch(path=path),
        route=action,
        typed_per_filter_config=_no_body(),
    )
    return _over_http2(route)


def _stream(number: int, regex: str, like: Route, options: Options) -> Route:
    """The stream that an MCP server speaks on by itself: a GET that may be silent, but not for ever."""
    action = _action(options.max_stream_duration)
    action.idle_timeout = options.max_stream_duration
    return Route(
        name=f"mcp-stream-{number}",
        match=RouteMatch(safe_regex=RegexMatcher(regex=regex), headers=[_method(("GET",))]),
        route=action,
        typed_per_filter_config=dict(like.typed_per_filter_config),
    )


def _tools() -> HeaderValueOption:
    return HeaderValueOption(
        header=HeaderValue(key=TOOLS_HEADER, value=f"%DYNAMIC_METADATA({EXT_AUTHZ}:signalwarden:tools)%"),
        append_action=HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
    )


def _method(methods: tuple[str, ...]) -> HeaderMatcher:
    matcher = (
        StringMatcher(exact=methods[0])
        if len(methods) == 1
        else StringMatcher(safe_regex=RegexMatcher(regex="|".join(methods)))
    )
    return HeaderMatcher(name=":method", string_match=matcher)
