"""The committed configurations: made by `render`, valid for the real Envoy, and hardened as the README says."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import jsonschema
import pytest
import yaml
from envoy_data_plane.envoy.config.bootstrap.v3 import Bootstrap
from envoy_data_plane.envoy.extensions.filters.http.ext_authz.v3 import ExtAuthz, ExtAuthzPerRoute
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpConnectionManagerForwardClientCertDetails,
    HttpConnectionManagerPathWithEscapedSlashesAction,
)
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    DownstreamTlsContext,
    SpiffeCertValidatorConfig,
    SubjectAltNameMatcherSanType,
    UpstreamTlsContext,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import HttpProtocolOptions

from signalwarden import starter
from signalwarden.demo_stage import Authority, envoy_binary
from signalwarden.envoy_config import CHECK_HEADERS, Kind, Options, render
from signalwarden.errors import BadInputError, ConfigurationError

if TYPE_CHECKING:
    from betterproto2 import Message
    from envoy_data_plane.envoy.config.route.v3 import Route
    from envoy_data_plane.google.protobuf import Any as ProtoAny

ENVOY = Path(__file__).parents[2] / "envoy"
MANIFESTS = Path(__file__).parent / "manifests"
KINDS: tuple[Kind, ...] = get_args(Kind)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return starter.create(tmp_path_factory.mktemp("config") / "starter", now=datetime.now(UTC)).directory


M = TypeVar("M", bound="Message")


def opened(message: ProtoAny | None, kind: type[M]) -> M:
    assert message is not None
    unpacked = message.unpack()
    assert isinstance(unpacked, kind)
    return unpacked


def manager_of(bootstrap: Bootstrap, listener: int = 0) -> HttpConnectionManager:
    assert bootstrap.static_resources is not None
    filters = bootstrap.static_resources.listeners[listener].filter_chains[0].filters
    return opened(filters[0].typed_config, HttpConnectionManager)


def authz_of(manager: HttpConnectionManager) -> ExtAuthz:
    return opened(manager.http_filters[0].typed_config, ExtAuthz)


def routes_of(manager: HttpConnectionManager) -> list[Route]:
    assert manager.route_config is not None
    return manager.route_config.virtual_hosts[0].routes


def parsed(text: str) -> Bootstrap:
    """Strict: a field that Envoy's API does not have is an error here."""
    return Bootstrap.from_dict(yaml.safe_load(text))


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    chosen: Kind = request.param
    return chosen


@pytest.fixture
def committed(kind: Kind) -> Bootstrap:
    return parsed((ENVOY / f"{kind}.yaml").read_text())


COMMITTED: dict[str, tuple[Kind, Options]] = {
    "sidecar.yaml": ("sidecar", Options()),
    "gateway.yaml": ("gateway", Options()),
    "spire.yaml": ("sidecar", Options()),
    "mcp.yaml": ("gateway", Options()),
}
ENVOY_ID = "spiffe://prod.example/envoy"
SPIRE = f"""
workload_api: "unix:///run/spire/sockets/agent.sock"
tls: {{spire: true, doors: [check], check_clients: ["{ENVOY_ID}"]}}
"""
"""What makes of the starter a directory whose certificates come from SPIRE, and whose check door is for Envoy alone."""


@pytest.fixture(scope="module")
def spire_directory(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("spire")
    for file in ("signalwarden.yaml", "routes.yaml", "signals.yaml"):
        (copy / file).write_text((directory / file).read_text())
    with (copy / "signalwarden.yaml").open("a") as settings:
        settings.write(SPIRE)
    return copy


@pytest.fixture(scope="module")
def mcp_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mcp") / "config"
    return starter.create_from("agent-tools", folder, now=datetime.now(UTC)).directory


def test_every_committed_configuration_is_known_here() -> None:
    manifests = {"istio.yaml", "gateway-api.yaml"}
    of_their_own = {"legacy-gateway.yaml"}  # test_legacy_gateway.py
    assert {path.name for path in ENVOY.glob("*.yaml")} == {*COMMITTED, *manifests, *of_their_own}


@pytest.mark.parametrize("name", COMMITTED)
def test_the_committed_file_is_what_render_makes_of_the_starter(
    directory: Path, spire_directory: Path, mcp_directory: Path, name: str
) -> None:
    kind, options = COMMITTED[name]
    of_its_own = {"spire.yaml": spire_directory, "mcp.yaml": mcp_directory}
    made = render(of_its_own.get(name, directory), kind, options)
    assert (ENVOY / name).read_text() == made


@pytest.mark.parametrize("name", COMMITTED)
def test_the_real_envoy_accepts_it(name: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tls", "prod.example")
    edge = authority.issue("spiffe://prod.example/ns/edge/sa/envoy", dns=("localhost",))
    edge.certificate.rename(tmp_path / "tls" / "tls.crt")
    edge.key.rename(tmp_path / "tls" / "tls.key")
    answer = subprocess.run(
        [envoy_binary(), "--mode", "validate", "--config-path", str(ENVOY / name)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert answer.returncode == 0, answer.stderr


def test_nothing_is_let_through_without_an_answer(committed: Bootstrap) -> None:
    authz = authz_of(manager_of(committed))
    assert not authz.failure_mode_allow
    assert not authz.clear_route_cache
    assert not authz.shadow_mode
    assert authz.filter_enabled is None
    assert authz.filter_enabled_metadata is None
    assert authz.status_on_error is not None
    assert authz.status_on_error.code == 503
    assert authz.grpc_service is not None
    assert authz.grpc_service.timeout == timedelta(milliseconds=250)


def test_answers_are_checked_and_bounded(committed: Bootstrap) -> None:
    authz = authz_of(manager_of(committed))
    assert authz.validate_mutations
    assert authz.enforce_response_header_limits
    assert authz.max_denied_response_body_bytes == 16 * 1024
    assert authz.decoder_header_mutation_rules is not None
    assert authz.decoder_header_mutation_rules.disallow_system
    assert authz.decoder_header_mutation_rules.disallow_is_error


def test_the_check_sees_the_certificate_and_only_the_headers_it_reads(committed: Bootstrap) -> None:
    authz = authz_of(manager_of(committed))
    assert authz.include_peer_certificate
    assert authz.encode_raw_headers
    assert authz.allowed_headers is not None
    allowed = {pattern.exact for pattern in authz.allowed_headers.patterns}
    assert allowed == {*CHECK_HEADERS, "x-task-type"}
    assert not {"authorization", "cookie", "x-forwarded-client-cert"} & allowed


def test_bodies_are_sent_whole_as_bytes_and_for_the_routes_that_name_body_arguments_alone(
    committed: Bootstrap,
) -> None:
    manager = manager_of(committed)
    buffer = authz_of(manager).with_request_body
    assert buffer is not None
    assert (buffer.pack_as_bytes, buffer.allow_partial_message) == (True, False)
    assert buffer.max_request_bytes == 64 * 1024
    health, with_body, everything = routes_of(manager)
    assert health.name == "health"
    assert with_body.match is not None
    assert with_body.match.safe_regex is not None
    assert with_body.match.safe_regex.regex == "/v1/accounts/[^/]+/refunds"
    assert with_body.typed_per_filter_config == {}
    settings = opened(everything.typed_per_filter_config["envoy.filters.http.ext_authz"], ExtAuthzPerRoute)
    assert settings.check_settings is not None
    assert settings.check_settings.disable_request_body_buffering


def test_no_body_is_buffered_if_no_route_names_a_body_argument(directory: Path, tmp_path: Path) -> None:
    arguments = '    args: {body: {amount: {pointer: /amount, type: "long?"}}}\n'
    copy = edited(directory, tmp_path, "routes.yaml", arguments, "")
    for text in (render(copy, "sidecar"), render(directory, "sidecar", Options(request_bodies=False))):
        manager = manager_of(parsed(text))
        assert authz_of(manager).with_request_body is None
        assert [route.name for route in routes_of(manager)] == ["health", "guarded"]


def test_health_alone_is_exempt_and_carries_nothing_of_ours(committed: Bootstrap) -> None:
    exempt = []
    for route in routes_of(manager_of(committed)):
        setting = route.typed_per_filter_config.get("envoy.filters.http.ext_authz")
        if setting and opened(setting, ExtAuthzPerRoute).disabled:
            exempt.append(route)
    assert [route.match and route.match.path for route in exempt] == ["/healthz"]
    assert {"x-signalwarden-principal", "x-signalwarden-decision-id"} <= set(
        exempt[0].request_headers_to_remove
    )


def test_every_route_bounds_its_streams(committed: Bootstrap) -> None:
    for route in routes_of(manager_of(committed)):
        assert route.route is not None
        assert route.route.max_stream_duration is not None
        assert route.route.max_stream_duration.max_stream_duration == timedelta(minutes=5)


def test_identity_comes_from_the_handshake_alone(committed: Bootstrap, kind: Kind) -> None:
    manager = manager_of(committed)
    assert manager.forward_client_cert_details == HttpConnectionManagerForwardClientCertDetails.SANITIZE
    assert committed.static_resources is not None
    socket = committed.static_resources.listeners[0].filter_chains[0].transport_socket
    assert socket is not None
    tls = opened(socket.typed_config, DownstreamTlsContext)
    assert tls.require_client_certificate is (kind == "sidecar")
    assert tls.common_tls_context is not None
    context = tls.common_tls_context.validation_context
    assert context is not None
    if kind == "sidecar":
        assert context.custom_validator_config is not None
        validator = opened(context.custom_validator_config.typed_config, SpiffeCertValidatorConfig)
        assert [domain.name for domain in validator.trust_domains] == ["prod.example"]
    else:
        assert context.trusted_ca is not None
        assert context.trusted_ca.filename == "tls/prod.example.pem"


def test_paths_are_forwarded_as_they_were_decided_about(committed: Bootstrap) -> None:
    manager = manager_of(committed)
    keep = HttpConnectionManagerPathWithEscapedSlashesAction.KEEP_UNCHANGED
    assert manager.normalize_path is False
    assert not manager.merge_slashes
    assert manager.path_with_escaped_slashes_action == keep


def test_the_weighty_defaults_are_said_aloud(kind: Kind) -> None:
    text = (ENVOY / f"{kind}.yaml").read_text()
    for said in (
        "failure_mode_allow: false",
        "forward_client_cert_details: SANITIZE",
        "merge_slashes: false",
    ):
        assert said in text


# ---- SPIRE ------------------------------------------------------------------------------------------------


def upstream_of(bootstrap: Bootstrap) -> UpstreamTlsContext:
    assert bootstrap.static_resources is not None
    socket = bootstrap.static_resources.clusters[0].transport_socket
    assert socket is not None
    return opened(socket.typed_config, UpstreamTlsContext)


def test_certificates_and_bundles_come_from_the_agent() -> None:
    bootstrap = parsed((ENVOY / "spire.yaml").read_text())
    static = bootstrap.static_resources
    assert static is not None
    socket = static.listeners[0].filter_chains[0].transport_socket
    assert socket is not None
    downstream = opened(socket.typed_config, DownstreamTlsContext)
    assert downstream.require_client_certificate
    for common in (downstream.common_tls_context, upstream_of(bootstrap).common_tls_context):
        assert common is not None
        assert common.tls_certificates == []
        assert common.validation_context is None
        [own] = common.tls_certificate_sds_secret_configs
        assert own.name == ENVOY_ID
        assert own.sds_config is not None
        assert own.sds_config.api_config_source is not None
        [service] = own.sds_config.api_config_source.grpc_services
        assert service.envoy_grpc is not None
        assert service.envoy_grpc.cluster_name == "spire_agent"
    assert downstream.common_tls_context is not None
    bundles = downstream.common_tls_context.validation_context_sds_secret_config
    assert bundles is not None
    assert bundles.name == "ALL"
    agent = static.clusters[-1]
    assert agent.name == "spire_agent"
    assert agent.load_assignment is not None
    endpoint = agent.load_assignment.endpoints[0].lb_endpoints[0].endpoint
    assert endpoint is not None
    assert endpoint.address is not None
    assert endpoint.address.pipe is not None
    assert endpoint.address.pipe.path == "/run/spire/sockets/agent.sock"


def test_the_decision_point_must_be_the_one_that_it_should_be() -> None:
    common = upstream_of(parsed((ENVOY / "spire.yaml").read_text())).common_tls_context
    assert common is not None
    combined = common.combined_validation_context
    assert combined is not None
    assert combined.default_validation_context is not None
    [name] = combined.default_validation_context.match_typed_subject_alt_names
    assert name.san_type is SubjectAltNameMatcherSanType.URI
    assert name.matcher is not None
    assert name.matcher.exact == "spiffe://prod.example/signalwarden"
    assert combined.validation_context_sds_secret_config is not None
    assert combined.validation_context_sds_secret_config.name == "spiffe://prod.example"


def test_the_upstream_is_told_who_called_by_this_envoy_alone() -> None:
    manager = manager_of(parsed((ENVOY / "spire.yaml").read_text()))
    assert manager.forward_client_cert_details == HttpConnectionManagerForwardClientCertDetails.SANITIZE_SET
    assert manager.set_current_client_cert_details is not None
    assert manager.set_current_client_cert_details.uri
    assert authz_of(manager).include_peer_certificate


def test_a_gateway_with_an_agent_lets_callers_without_certificate_in_for_one_trust_domain_alone(
    spire_directory: Path, tmp_path: Path
) -> None:
    bootstrap = parsed(render(spire_directory, "gateway"))
    assert bootstrap.node is not None
    assert bootstrap.node.metadata is not None
    assert "disable_spiffe_cert_validation" in bootstrap.node.metadata.fields
    static = bootstrap.static_resources
    assert static is not None
    socket = static.listeners[0].filter_chains[0].transport_socket
    assert socket is not None
    common = opened(socket.typed_config, DownstreamTlsContext).common_tls_context
    assert common is not None
    assert common.validation_context_sds_secret_config is not None
    assert common.validation_context_sds_secret_config.name == "spiffe://prod.example"
    federated = edited(
        spire_directory,
        tmp_path,
        "signalwarden.yaml",
        "federates_with: []",
        "federates_with: [partner.example]",
    )
    with pytest.raises(BadInputError, match="require certificates"):
        render(federated, "gateway", Options(require_client_certificate=False))


def test_a_check_door_with_files_is_asked_with_envoys_own(directory: Path, tmp_path: Path) -> None:
    files = "tls: {cert: c, key: k, client_ca: a, doors: [check], "
    tls = f'{files}check_clients: ["{ENVOY_ID}"]}}\nfederates_with: []'
    copy = edited(directory, tmp_path, "signalwarden.yaml", "federates_with: []", tls)
    common = upstream_of(parsed(render(copy, "gateway"))).common_tls_context
    assert common is not None
    [own] = common.tls_certificates
    assert own.certificate_chain is not None
    assert own.certificate_chain.filename == "tls/tls.crt"
    assert common.validation_context is not None
    assert common.validation_context.trusted_ca is not None
    assert common.validation_context.trusted_ca.filename == "tls/prod.example.pem"
    assert len(common.validation_context.match_typed_subject_alt_names) == 1


def test_the_headers_of_identities_are_sent_to_the_check(directory: Path, tmp_path: Path) -> None:
    sources = "sources: [envoy_peer, xfcc, jwt_svid]\n  jwt_svid: {audience: [payments], header: x-svid}"
    copy = edited(directory, tmp_path, "signalwarden.yaml", "sources: [envoy_peer]", sources)
    manager = manager_of(parsed(render(copy, "sidecar")))
    allowed = authz_of(manager).allowed_headers
    assert allowed is not None
    names = {pattern.exact for pattern in allowed.patterns}
    assert {"x-svid", "x-forwarded-client-cert"} <= names
    assert "authorization" not in names
    # Then it is this Envoy who writes it.
    assert manager.forward_client_cert_details == HttpConnectionManagerForwardClientCertDetails.SANITIZE_SET
    assert manager.set_current_client_cert_details is not None
    assert manager.set_current_client_cert_details.cert


# ---- other directories ------------------------------------------------------------------------------------


def edited(directory: Path, tmp_path: Path, name: str, old: str, new: str) -> Path:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in ("signalwarden.yaml", "routes.yaml", "signals.yaml"):
        text = (directory / file).read_text()
        if file == name:
            assert old in text
            text = text.replace(old, new)
        (copy / file).write_text(text)
    return copy


def test_a_unix_socket_is_asked_through_a_pipe(directory: Path, tmp_path: Path) -> None:
    copy = edited(directory, tmp_path, "signalwarden.yaml", '"127.0.0.1:9191"', '"unix:///run/sw/check.sock"')
    static = parsed(render(copy, "sidecar")).static_resources
    assert static is not None
    assignment = static.clusters[0].load_assignment
    assert assignment is not None
    endpoint = assignment.endpoints[0].lb_endpoints[0].endpoint
    assert endpoint is not None
    assert endpoint.address is not None
    assert endpoint.address.pipe is not None
    assert endpoint.address.pipe.path == "/run/sw/check.sock"


def test_a_federated_trust_domain_has_a_bundle_of_its_own_and_needs_a_certificate(
    directory: Path, tmp_path: Path, kind: Kind
) -> None:
    copy = edited(
        directory, tmp_path, "signalwarden.yaml", "federates_with: []", "federates_with: [partner.example]"
    )
    text = render(copy, kind)
    assert "tls/prod.example.pem" in text
    assert "tls/partner.example.pem" in text
    assert "require_client_certificate: true" in text
    with pytest.raises(BadInputError, match="require certificates"):
        render(copy, kind, Options(require_client_certificate=False))


def test_a_header_source_is_sent_to_the_check(directory: Path, tmp_path: Path) -> None:
    copy = edited(directory, tmp_path, "signals.yaml", "header: x-task-type", "header: X-Other")
    authz = authz_of(manager_of(parsed(render(copy, "sidecar"))))
    assert authz.allowed_headers is not None
    assert {"x-other"} <= {pattern.exact for pattern in authz.allowed_headers.patterns}


def test_the_namespaces_of_metadata_sources_are_sent_to_the_check_and_no_others(
    directory: Path, tmp_path: Path
) -> None:
    source = "{kind: header, header: x-task-type, assurance: self_asserted}"
    named = "{{kind: envoy_metadata, namespace: {}, key: task, assurance: self_asserted}}"
    both = f"{named.format('other')}, {named.format('envoy.filters.http.jwt_authn')}, {named.format('other')}"
    copy = edited(directory, tmp_path, "signals.yaml", source, both)
    authz = authz_of(manager_of(parsed(render(copy, "sidecar"))))
    assert authz.metadata_context_namespaces == ["envoy.filters.http.jwt_authn", "other"]
    assert authz.route_metadata_context_namespaces == []
    assert authz_of(manager_of(parsed(render(directory, "sidecar")))).metadata_context_namespaces == []


def test_calls_of_grpc_go_to_the_upstream_over_http2_where_a_route_names_one(
    directory: Path, tmp_path: Path
) -> None:
    named = (
        'routes:\n  - {match: {host: "*", grpc: {service: a.B}}, action: b, tier: coarse, sensitivity: low}\n'
    )
    copy = edited(directory, tmp_path, "routes.yaml", "routes:\n", named)
    bootstrap = parsed(render(copy, "gateway", Options(unguarded=("127.0.0.1", 9999))))
    assert bootstrap.static_resources is not None
    clusters = {cluster.name: cluster for cluster in bootstrap.static_resources.clusters}
    plain, over_http2 = clusters["upstream"], clusters["upstream-grpc"]
    assert plain.typed_extension_protocol_options == {}
    (protocol,) = over_http2.typed_extension_protocol_options.values()
    explicit = opened(protocol, HttpProtocolOptions).explicit_http_config
    assert explicit is not None
    assert explicit.http2_protocol_options is not None
    for cluster in (plain, over_http2):
        assert cluster.load_assignment is not None
        cluster.load_assignment.cluster_name = ""
    assert plain.load_assignment == over_http2.load_assignment
    guarded, unguarded = (routes_of(manager_of(bootstrap, listener)) for listener in (0, 1))
    names = ["health", "guarded-with-body-1-grpc", "guarded-with-body-1", "guarded-grpc", "guarded"]
    assert [route.name for route in guarded] == names
    assert [route.name for route in unguarded] == ["unguarded-grpc", "unguarded"]
    for grpc, other in (guarded[1:3], guarded[3:5], unguarded):
        assert grpc.match is not None
        assert grpc.match.grpc is not None
        assert grpc.route is not None
        assert grpc.route.cluster == "upstream-grpc"
        # But for that, they are the same: nothing is let through to one that is not to the other.
        grpc.match.grpc, grpc.route.cluster, grpc.name = None, "upstream", other.name
        assert grpc == other


def test_the_measuring_listener_has_no_check_and_only_exists_when_asked_for(directory: Path) -> None:
    measured = parsed(render(directory, "gateway", Options(unguarded=("127.0.0.1", 9999))))
    assert measured.static_resources is not None
    assert [listener.name for listener in measured.static_resources.listeners] == ["guarded", "unguarded"]
    assert len(manager_of(measured, 1).http_filters) == 1


def test_a_directory_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"signalwarden\.yaml"):
        render(tmp_path, "sidecar")


# ---- mesh manifests: parsed, and held against the keys that the public documentation names -----------------


def documents(name: str) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all((ENVOY / name).read_text()) if document]


@pytest.mark.parametrize("name", ["istio", "gateway-api"])
def test_a_manifest_uses_only_documented_keys(name: str) -> None:
    schema = json.loads((MANIFESTS / f"{name}.schema.json").read_text())
    for document in documents(f"{name}.yaml"):
        jsonschema.Draft202012Validator(schema).validate(document)


def test_istio_asks_the_provider_that_it_declares() -> None:
    by_kind = {document["kind"]: document["spec"] for document in documents("istio.yaml")}
    provider = by_kind["IstioOperator"]["meshConfig"]["extensionProviders"][0]
    asked = provider["envoyExtAuthzGrpc"]
    assert by_kind["AuthorizationPolicy"]["provider"]["name"] == provider["name"]
    assert by_kind["ServiceEntry"]["hosts"] == [asked["service"]]
    assert by_kind["ServiceEntry"]["ports"][0]["number"] == asked["port"] == 9191


def test_envoy_gateway_guards_the_gateway_that_it_declares() -> None:
    by_kind = {document["kind"]: document for document in documents("gateway-api.yaml")}
    policy = by_kind["SecurityPolicy"]["spec"]
    assert policy["targetRefs"][0]["name"] == by_kind["Gateway"]["metadata"]["name"]
    assert policy["extAuth"]["grpc"]["backendRefs"][0]["name"] == by_kind["Backend"]["metadata"]["name"]
    assert set(policy["extAuth"]["headersToExtAuth"]) == {*CHECK_HEADERS, "x-task-type"}
