"""How a collector of OpenTelemetry is reached: against a real one, with and without TLS, and what the settings refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from pydantic import ValidationError

from signalwarden.errors import OtlpError
from signalwarden.otlp import Collector, OtlpSettings, otlp_checks
from tests.authorities import Authority
from tests.collector import collecting

SECRET = "s3cr3t-t0ken"


def collector(root: Path, **settings: Any) -> Collector:
    return Collector(OtlpSettings(**settings), root)


def send(to: Collector) -> None:
    with to.channel() as channel:
        TraceServiceStub(channel).Export(  # type: ignore[no-untyped-call]
            ExportTraceServiceRequest(), metadata=to.metadata(), timeout=to.timeout_s
        )


def test_a_collector_on_this_machine_is_reached_in_plain_text_with_the_headers_of_the_file(
    tmp_path: Path,
) -> None:
    (tmp_path / "headers").write_text(f"# of the team\nAuthorization: Bearer {SECRET}\n\nx-scope: prod:1\n")
    with collecting() as real:
        send(collector(tmp_path, endpoint=f"http://127.0.0.1:{real.port}", headers_file="headers"))
    assert len(real.traces) == 1
    assert real.headers[0]["authorization"] == f"Bearer {SECRET}"
    assert real.headers[0]["x-scope"] == "prod:1"


def test_the_variables_of_opentelemetry_and_proxies_say_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-from=environment")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("grpc_proxy", "http://127.0.0.1:1")
    with collecting() as real:
        send(collector(tmp_path, endpoint=f"http://127.0.0.1:{real.port}"))
    assert "x-from" not in real.headers[0]


def test_tls_trusts_the_named_authority_alone_and_shows_our_certificate(tmp_path: Path) -> None:
    ours, other = Authority("ours"), Authority("other")
    server = ours.issue(dns=("localhost",))
    client = ours.issue("spiffe://prod.example/signalwarden")
    pem = ours.cert.public_bytes(Encoding.PEM)
    (tmp_path / "ca.pem").write_bytes(pem)
    (tmp_path / "other.pem").write_bytes(other.cert.public_bytes(Encoding.PEM))
    (tmp_path / "cert.pem").write_bytes(client.chain_pem)
    (tmp_path / "key.pem").write_bytes(client.key_pem)
    credentials = grpc.ssl_server_credentials(
        [(server.key_pem, server.chain_pem)], root_certificates=pem, require_client_auth=True
    )
    with collecting(credentials) as real:
        known = {"endpoint": f"https://localhost:{real.port}", "cert": "cert.pem", "key": "key.pem"}
        send(collector(tmp_path, **known, ca_file="ca.pem"))
        assert len(real.traces) == 1
        with pytest.raises(grpc.RpcError):
            send(collector(tmp_path, **known, ca_file="other.pem", timeout="1s"))
        with pytest.raises(grpc.RpcError):
            send(collector(tmp_path, endpoint=known["endpoint"], ca_file="ca.pem", timeout="1s"))
        assert len(real.traces) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SECRET, "line 1: expected `name: value`"),
        (f"ok: yes\n{SECRET} x: y", "line 2: expected `name: value`"),
        (f"authorization: {SECRET}\x07", "line 1: expected `name: value`"),
        (f"trace-bin: {SECRET}", "line 1: expected `name: value`"),
        ("authorization:", "line 1: expected `name: value`"),
        (f"grpc-timeout: {SECRET}", "`grpc-timeout` has a meaning of its own"),
        (f"authorization: {SECRET}é", "more than ASCII"),
        ("\n".join(f"x-{n}: {SECRET}" for n in range(17)), "more than 16 headers"),
        ("x" * 9_000, "can't be read"),
    ],
)
def test_a_bad_file_of_headers_is_one_sentence_without_what_it_holds(
    tmp_path: Path, text: str, expected: str
) -> None:
    (tmp_path / "headers").write_text(text)
    with pytest.raises(OtlpError) as error:
        collector(tmp_path, endpoint="http://127.0.0.1:4317", headers_file="headers").metadata()
    assert expected in str(error.value)
    assert SECRET not in str(error.value)


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    missing = collector(tmp_path, endpoint="https://otel.example", ca_file="ca.pem", headers_file="headers")
    with pytest.raises(OtlpError, match=r"`.*ca\.pem` can't be read: no such file"):
        missing.channel()
    with pytest.raises(OtlpError, match=r"the headers file `.*headers` can't be read: no such file"):
        missing.metadata()


@pytest.mark.parametrize(
    ("endpoint", "target"),
    [
        ("https://otel.example", "otel.example:4317"),
        ("https://otel.example:443/", "otel.example:443"),
        ("http://[::1]:4317", "[::1]:4317"),
    ],
)
def test_an_endpoint_is_host_and_port(tmp_path: Path, endpoint: str, target: str) -> None:
    assert collector(tmp_path, endpoint=endpoint).target == target


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("otel.example:4317", "expected a URL such as `https://host.example:4317`"),
        ("http://otel.example:4317", "is not on this machine"),
        ("https://user:pass@otel.example", "holds no user or password"),
        ("https://otel.example/v1/traces", "expected an address without a path"),
        ("https://otel.example/?key=1", "expected an address without a path"),
    ],
)
def test_an_endpoint_that_is_none_is_refused(endpoint: str, expected: str) -> None:
    with pytest.raises(ValidationError) as error:
        OtlpSettings(endpoint=endpoint)
    assert expected in str(error.value)


def test_what_takes_two_keys_to_see_is_seen() -> None:
    slips = list(
        otlp_checks(
            ("telemetry", "otlp"), {"endpoint": "http://127.0.0.1:4317", "cert": "cert.pem", "ca_file": "ca"}
        )
    )
    assert [(slip.loc[-1], slip.code) for slip in slips] == [
        ("key", "missing_key"),
        ("ca_file", "bad_value"),
        ("cert", "bad_value"),
    ]
