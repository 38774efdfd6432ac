"""TLS of the Envoy that `envoy_config` makes: its listener's and that to the decision point. From files, or by SDS from
SPIRE's agent, whose certificates and bundles rotate without a restart."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterDiscoveryType
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    ApiConfigSource,
    ApiConfigSourceApiType,
    ApiVersion,
    ConfigSource,
    DataSource,
    GrpcService,
    GrpcServiceEnvoyGrpc,
    Http2ProtocolOptions,
    Node,
    Pipe,
    TransportSocket,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    Endpoint,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CertificateValidationContext,
    CommonTlsContext,
    CommonTlsContextCombinedCertificateValidationContext,
    DownstreamTlsContext,
    SdsSecretConfig,
    SpiffeCertValidatorConfig,
    SpiffeCertValidatorConfigTrustDomain,
    SubjectAltNameMatcher,
    SubjectAltNameMatcherSanType,
    TlsCertificate,
    TlsParameters,
    TlsParametersTlsProtocol,
    UpstreamTlsContext,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptions,
    HttpProtocolOptionsExplicitHttpConfig,
)
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher
from envoy_data_plane.google.protobuf import Any as ProtoAny
from envoy_data_plane.google.protobuf import Struct

from signalwarden.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from signalwarden.settings import Settings

__all__ = ["EnvoyTls"]

AGENT_CLUSTER: Final = "spire_agent"
EVERY_BUNDLE: Final = "ALL"
"""The name by which the agent tells the bundles of all trust domains, each for its own workloads alone."""
UPSTREAM_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


@dataclass(frozen=True, slots=True)
class EnvoyTls:
    """Whose certificates Envoy shows and believes."""

    trust_domains: tuple[str, ...]
    """Ours first."""
    required: bool
    """Whether callers must have a certificate."""
    files: tuple[str, str, str]
    """Envoy's certificate, its key, and the bundle of a trust domain (`{trust_domain}`); unused with an agent."""
    agent: str | None
    """Socket of SPIRE's agent; None: the files."""
    envoy_id: str
    """Envoy's own SPIFFE ID, by which the agent names its certificate."""
    server_id: str | None
    """The SPIFFE ID of the decision point; None: it is asked in plain text, on this machine."""

    @staticmethod
    def of(
        settings: Settings,
        *,
        required: bool,
        files: tuple[str, str, str],
        agent: str | None,
        envoy_id: str | None,
        server_id: str | None,
    ) -> EnvoyTls:
        """By what the directory says, where the options do not."""
        domain = settings.trust_domain
        if agent is None and settings.tls.spire and settings.workload_api is not None:
            agent = settings.workload_api.path
        clients = settings.tls.check_clients
        return EnvoyTls(
            trust_domains=(domain, *settings.federates_with),
            required=required,
            files=files,
            agent=agent,
            envoy_id=envoy_id or (clients[0] if clients else f"spiffe://{domain}/envoy"),
            server_id=(server_id or f"spiffe://{domain}/signalwarden")
            if "check" in settings.tls.doors
            else None,
        )

    def listener(self) -> TransportSocket:
        """For callers."""
        common = self._common(["h2", "http/1.1"])
        if self.agent is not None:
            name = EVERY_BUNDLE if self.required else self._only_domain()
            common.validation_context_sds_secret_config = _secret(name)
        elif self.required:
            common.validation_context = self._each_by_its_own_bundle()
        else:
            # A name outside ours is left to the decision point (`trust_domain_unknown`): a matcher of names here would
            # make the certificate required again.
            self._only_domain()
            common.validation_context = self._by_our_bundle()
        context = DownstreamTlsContext(common_tls_context=common, require_client_certificate=self.required)
        return _socket(context)

    def check(self) -> TransportSocket | None:
        """To the decision point, which must be the one that it should be: another could allow anything."""
        if self.server_id is None:
            return None
        common = self._common(["h2"])
        names = [
            SubjectAltNameMatcher(
                san_type=SubjectAltNameMatcherSanType.URI, matcher=StringMatcher(exact=self.server_id)
            )
        ]
        if self.agent is not None:
            common.combined_validation_context = CommonTlsContextCombinedCertificateValidationContext(
                default_validation_context=CertificateValidationContext(match_typed_subject_alt_names=names),
                validation_context_sds_secret_config=_secret(f"spiffe://{self.trust_domains[0]}"),
            )
        else:
            validation = self._by_our_bundle()
            validation.match_typed_subject_alt_names = names
            common.validation_context = validation
        return _socket(UpstreamTlsContext(common_tls_context=common))

    def agent_cluster(self) -> Cluster | None:
        """Where SPIRE's agent is asked."""
        if self.agent is None:
            return None
        http2 = HttpProtocolOptions(
            explicit_http_config=HttpProtocolOptionsExplicitHttpConfig(
                http2_protocol_options=Http2ProtocolOptions()
            )
        )
        endpoint = LbEndpoint(endpoint=Endpoint(address=Address(pipe=Pipe(path=self.agent))))
        return Cluster(
            name=AGENT_CLUSTER,
            type=ClusterDiscoveryType.STATIC,
            connect_timeout=timedelta(seconds=1),
            typed_extension_protocol_options={UPSTREAM_OPTIONS: ProtoAny.pack(http2)},
            load_assignment=ClusterLoadAssignment(
                cluster_name=AGENT_CLUSTER, endpoints=[LocalityLbEndpoints(lb_endpoints=[endpoint])]
            ),
        )

    def node(self) -> Node | None:
        """Who Envoy is to the agent, which attests it by its process, not by this."""
        if self.agent is None:
            return None
        metadata = None if self.required else Struct.from_dict({"disable_spiffe_cert_validation": True})
        return Node(id="envoy", cluster="signalwarden", metadata=metadata)

    def _common(self, alpn: Sequence[str]) -> CommonTlsContext:
        common = CommonTlsContext(
            tls_params=TlsParameters(tls_minimum_protocol_version=TlsParametersTlsProtocol.TLSv1_2),
            alpn_protocols=list(alpn),
        )
        if self.agent is not None:
            common.tls_certificate_sds_secret_configs = [_secret(self.envoy_id)]
        else:
            certificate, key, _ = self.files
            common.tls_certificates = [
                TlsCertificate(
                    certificate_chain=DataSource(filename=certificate), private_key=DataSource(filename=key)
                )
            ]
        return common

    def _bundle(self, domain: str) -> DataSource:
        return DataSource(filename=self.files[2].format(trust_domain=domain))

    def _each_by_its_own_bundle(self) -> CertificateValidationContext:
        """Envoy's SPIFFE validator. It has no handshake without a certificate, whatever else is said."""
        validator = SpiffeCertValidatorConfig(
            trust_domains=[
                SpiffeCertValidatorConfigTrustDomain(name=domain, trust_bundle=self._bundle(domain))
                for domain in self.trust_domains
            ]
        )
        config = TypedExtensionConfig(
            name="envoy.tls.cert_validator.spiffe", typed_config=ProtoAny.pack(validator)
        )
        return CertificateValidationContext(custom_validator_config=config)

    def _by_our_bundle(self) -> CertificateValidationContext:
        """Envoy's default validator, which knows one bundle."""
        return CertificateValidationContext(trusted_ca=self._bundle(self.trust_domains[0]))

    def _only_domain(self) -> str:
        """The default validator can't keep several trust domains apart. Raises BadInputError."""
        domain, *others = self.trust_domains
        if others:
            raise BadInputError(
                f"a listener that does without client certificates can't keep `{domain}` and `{others[0]}` apart: "
                "require certificates where trust domains are federated"
            )
        return f"spiffe://{domain}"


def _secret(name: str) -> SdsSecretConfig:
    agent = GrpcService(envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=AGENT_CLUSTER))
    source = ApiConfigSource(
        api_type=ApiConfigSourceApiType.GRPC,
        transport_api_version=ApiVersion.V3,
        set_node_on_first_message_only=True,
        grpc_services=[agent],
    )
    config = ConfigSource(resource_api_version=ApiVersion.V3, api_config_source=source)
    return SdsSecretConfig(name=name, sds_config=config)


def _socket(context: DownstreamTlsContext | UpstreamTlsContext) -> TransportSocket:
    return TransportSocket(name="envoy.transport_sockets.tls", typed_config=ProtoAny.pack(context))
