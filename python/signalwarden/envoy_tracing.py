"""What Envoy needs to send spans of its own to a collector of OpenTelemetry, and for the decision's span to join them.

Envoy writes its trace into a request on its way upstream alone, so the decision point would hear of those traces only
that the caller began. A filter before ext_authz writes it in as soon as the request is there.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterDiscoveryType
from envoy_data_plane.envoy.config.common.mutation_rules.v3 import HeaderMutation
from envoy_data_plane.envoy.config.core.v3 import (
    GrpcService,
    GrpcServiceEnvoyGrpc,
    HeaderValue,
    HeaderValueOption,
    HeaderValueOptionHeaderAppendAction,
    Http2ProtocolOptions,
)
from envoy_data_plane.envoy.config.endpoint.v3 import ClusterLoadAssignment
from envoy_data_plane.envoy.config.trace.v3 import OpenTelemetryConfig, TracingHttp
from envoy_data_plane.envoy.extensions.filters.http.header_mutation.v3 import (
    HeaderMutation as HeaderMutationFilter,
)
from envoy_data_plane.envoy.extensions.filters.http.header_mutation.v3 import Mutations
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManagerTracing,
    HttpFilter,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import HttpProtocolOptions as UpstreamOptions
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import HttpProtocolOptionsExplicitHttpConfig
from envoy_data_plane.google.protobuf import Any as ProtoAny

__all__ = ["TRACE_CLUSTER", "trace_cluster", "trace_filter", "tracing"]

TRACE_CLUSTER: Final = "traces"
SERVICE: Final = "envoy"
TIMEOUT: Final = timedelta(seconds=1)


def trace_cluster(assignment: ClusterLoadAssignment, *, named: bool) -> Cluster:
    """The collector; `named`: by a name, not an address."""
    http2 = UpstreamOptions(
        explicit_http_config=HttpProtocolOptionsExplicitHttpConfig(
            http2_protocol_options=Http2ProtocolOptions()
        )
    )
    return Cluster(
        name=TRACE_CLUSTER,
        type=ClusterDiscoveryType.STRICT_DNS if named else ClusterDiscoveryType.STATIC,
        connect_timeout=TIMEOUT,
        typed_extension_protocol_options={
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": ProtoAny.pack(http2)
        },
        load_assignment=assignment,
    )


def tracing() -> HttpConnectionManagerTracing:
    """Spans of the requests of a listener. Which are sampled is Envoy's own default: all that no caller has judged."""
    tracer = OpenTelemetryConfig(
        grpc_service=GrpcService(
            envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=TRACE_CLUSTER), timeout=TIMEOUT
        ),
        service_name=SERVICE,
    )
    return HttpConnectionManagerTracing(
        provider=TracingHttp(name="envoy.tracers.opentelemetry", typed_config=ProtoAny.pack(tracer))
    )


def trace_filter() -> HttpFilter:
    """Says whose trace a request is of, where its caller does not. What the caller says stands: whether its trace is
    sampled is its own to say."""
    append = HeaderValueOption(
        header=HeaderValue(key="traceparent", value="00-%TRACE_ID%-%SPAN_ID%-01"),
        append_action=HeaderValueOptionHeaderAppendAction.ADD_IF_ABSENT,
    )
    mutation = HeaderMutationFilter(mutations=Mutations(request_mutations=[HeaderMutation(append=append)]))
    return HttpFilter(name="envoy.filters.http.header_mutation", typed_config=ProtoAny.pack(mutation))
