"""What the shipped configuration makes Envoy ask, and what it lets nobody do, seen by a scripted decision point."""

from __future__ import annotations

import hashlib
import ssl
import time
import urllib.parse
from datetime import timedelta
from typing import TYPE_CHECKING

import httpx
import pytest
from envoy_data_plane.envoy.service.auth.v3 import CheckResponse
from envoy_data_plane.google.rpc import Status

from signalwarden import starter
from signalwarden.demo_stage import Authority

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from envoy_data_plane.envoy.service.auth.v3 import AttributeContext, AttributeContextHttpRequest

    from tests.e2e.conftest import RunningEnvoy, Scripted, Stage

ALLOW = bytes(CheckResponse(status=Status(code=0)))
ACCOUNT = "/v1/accounts/42"
REFUND = f"{ACCOUNT}/refunds"


@pytest.fixture
def allowing(scripted: Scripted, stage: Stage) -> Scripted:
    scripted.answer = ALLOW
    stage.upstream.calls.clear()
    return scripted


def asked(scripted: Scripted) -> AttributeContext:
    attributes = scripted.request().attributes
    assert attributes is not None
    return attributes


def http_of(scripted: Scripted) -> AttributeContextHttpRequest:
    request = asked(scripted).request
    assert request is not None
    assert request.http is not None
    return request.http


def header_map(scripted: Scripted) -> list[tuple[str, str]]:
    sent = http_of(scripted).header_map
    assert sent is not None
    return [(header.key, header.raw_value.decode()) for header in sent.headers]


# ---- what is asked ----------------------------------------------------------------------------------------


def test_the_question_holds_what_was_asked_for(scripted_envoy: RunningEnvoy, allowing: Scripted) -> None:
    scripted_envoy.agent.get(f"{ACCOUNT}?dry_run=true", headers={"host": "payments.prod.example"})
    http = http_of(allowing)
    assert (http.method, http.path, http.host) == ("GET", f"{ACCOUNT}?dry_run=true", "payments.prod.example")
    assert (http.query, http.fragment, http.body) == ("", "", "")


def test_the_caller_is_who_its_certificate_says(
    scripted_envoy: RunningEnvoy, allowing: Scripted, stage: Stage
) -> None:
    scripted_envoy.agent.get(ACCOUNT)
    source = asked(allowing).source
    assert source is not None
    assert source.principal == starter.AGENT
    pem = urllib.parse.unquote(source.certificate)
    assert pem == stage.agent.certificate.read_text()
    assert len(hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()) == 64


def test_only_the_headers_that_the_check_reads_are_sent(
    scripted_envoy: RunningEnvoy, allowing: Scripted, stage: Stage
) -> None:
    secret = {"authorization": "Bearer secret", "cookie": "session=secret", "x-other": "1"}
    scripted_envoy.agent.get(ACCOUNT, headers={**secret, "X-Task-Type": "refund"})
    names = {name for name, _ in header_map(allowing)}
    assert {":path", ":method", ":authority", "x-task-type", "x-request-id"} <= names
    assert not {*secret} & names
    assert b"secret" not in allowing.asked[-1]
    upstream = dict(stage.upstream.calls[-1]["headers"])
    assert {name: upstream[name] for name in secret} == secret


def test_repeated_headers_stay_apart(scripted_envoy: RunningEnvoy, allowing: Scripted) -> None:
    scripted_envoy.agent.get(ACCOUNT, headers=[("x-task-type", "refund"), ("x-task-type", "browse")])
    sent = [value for name, value in header_map(allowing) if name == "x-task-type"]
    assert sent == ["refund", "browse"]
    assert not http_of(allowing).headers


def test_without_raw_headers_they_come_as_one_map_with_joined_values(
    run_envoy: Callable[..., RunningEnvoy], scripted_directory: Path, allowing: Scripted
) -> None:
    joined = run_envoy(scripted_directory, raw_headers=False)
    joined.agent.get(ACCOUNT, headers=[("x-task-type", "refund"), ("x-task-type", "browse")])
    http = http_of(allowing)
    assert http.header_map is None
    assert http.headers["x-task-type"] == "refund,browse"
    assert http.headers[":path"] == ACCOUNT


@pytest.mark.parametrize(
    "path", ["/a%2fb", "/a/%2e%2e/b", "/a//b", "/a%252fb", "/a;x=1/b", "/a%5cb", "/%61", "/a/..;/b"]
)
def test_a_path_with_two_meanings_is_asked_about_and_forwarded_unrepaired(
    scripted_envoy: RunningEnvoy, allowing: Scripted, stage: Stage, path: str
) -> None:
    scripted_envoy.agent.get(path)
    assert http_of(allowing).path == path
    assert stage.upstream.calls[-1]["path"] == path


# ---- bodies -----------------------------------------------------------------------------------------------


def test_the_body_of_a_route_with_body_arguments_is_sent_byte_by_byte(
    scripted_envoy: RunningEnvoy, allowing: Scripted, stage: Stage
) -> None:
    body = b'{"amount":1250,"note":"\xff"}'
    scripted_envoy.agent.post(REFUND, content=body, headers={"content-type": "application/json"})
    assert (http_of(allowing).raw_body, http_of(allowing).body) == (body, "")
    sent = dict(header_map(allowing))
    assert sent["content-type"] == "application/json"
    assert sent["x-envoy-auth-partial-body"] == "false"
    assert stage.upstream.calls[-1]["body_bytes"] == len(body)


def test_the_body_of_any_other_route_is_not_sent(scripted_envoy: RunningEnvoy, allowing: Scripted) -> None:
    scripted_envoy.agent.post(ACCOUNT, content=b"secret")
    assert (http_of(allowing).raw_body, http_of(allowing).body) == (b"", "")
    assert b"secret" not in allowing.asked[-1]


def test_a_body_above_the_limit_is_a_413_and_never_asked_about(
    scripted_envoy: RunningEnvoy, allowing: Scripted, stage: Stage
) -> None:
    answer = scripted_envoy.agent.post(REFUND, content=b"x" * (64 * 1024 + 1))
    assert (answer.status_code, allowing.asked, stage.upstream.calls) == (413, [], [])


def test_no_body_is_sent_if_that_is_turned_off(
    run_envoy: Callable[..., RunningEnvoy], scripted_directory: Path, allowing: Scripted
) -> None:
    without = run_envoy(scripted_directory, request_bodies=False)
    without.agent.post(REFUND, json={"amount": 1250})
    assert (http_of(allowing).raw_body, http_of(allowing).body) == (b"", "")


# ---- what nobody can do -----------------------------------------------------------------------------------


def test_a_clients_xfcc_reaches_neither_the_check_nor_the_upstream(
    scripted_envoy: RunningEnvoy, allowing: Scripted, stage: Stage
) -> None:
    scripted_envoy.agent.get(ACCOUNT, headers={"x-forwarded-client-cert": "URI=spiffe://prod.example/admin"})
    assert b"admin" not in allowing.asked[-1]
    assert "x-forwarded-client-cert" not in dict(stage.upstream.calls[-1]["headers"])


def test_a_header_with_underscores_is_refused(
    scripted_envoy: RunningEnvoy, allowing: Scripted, stage: Stage
) -> None:
    answer = scripted_envoy.agent.get(ACCOUNT, headers={"x_signalwarden_principal": starter.OPERATOR})
    assert (answer.status_code, allowing.asked, stage.upstream.calls) == (400, [], [])


@pytest.mark.parametrize(
    "headers", [{f"x-{n}": "v" for n in range(120)}, {"x-long": "v" * 70_000}], ids=["many", "long"]
)
def test_too_much_header_is_a_431_and_never_asked_about(
    scripted_envoy: RunningEnvoy, allowing: Scripted, stage: Stage, headers: dict[str, str]
) -> None:
    with scripted_envoy.client(stage.agent) as client:
        answer = client.get(ACCOUNT, headers=headers)
    assert (answer.status_code, allowing.asked, stage.upstream.calls) == (431, [], [])


def test_override_headers_never_reach_the_upstream(
    scripted_envoy: RunningEnvoy, allowing: Scripted, stage: Stage
) -> None:
    overrides = {"x-http-method-override": "DELETE", "x-original-url": "/admin", "x-rewrite-url": "/admin"}
    scripted_envoy.agent.get(ACCOUNT, headers=overrides)
    assert not {*overrides} & {name for name, _ in stage.upstream.calls[-1]["headers"]}


def test_health_is_answered_without_a_check_and_without_anything_of_ours(
    scripted_envoy: RunningEnvoy, allowing: Scripted, stage: Stage
) -> None:
    forged = {"x-signalwarden-principal": starter.OPERATOR, "x-signalwarden-decision-id": "forged"}
    assert scripted_envoy.agent.get("/healthz?x=1", headers=forged).status_code == 200
    assert allowing.asked == []
    assert not {*forged} & {name for name, _ in stage.upstream.calls[-1]["headers"]}


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/healthz"), ("GET", "/healthz/"), ("GET", "/healthz/../v1")]
)
def test_what_merely_looks_like_health_is_asked_about(
    scripted_envoy: RunningEnvoy, allowing: Scripted, method: str, path: str
) -> None:
    scripted_envoy.agent.request(method, path)
    assert len(allowing.asked) == 1


def test_a_certificate_of_another_authority_is_no_handshake(
    scripted_envoy: RunningEnvoy, stage: Stage, allowing: Scripted, tmp_path: Path
) -> None:
    """It names our trust domain, but our bundle did not sign it."""
    stranger = Authority(tmp_path, "prod.example").issue(starter.AGENT)
    with scripted_envoy.client(stranger) as client, pytest.raises(httpx.TransportError):
        client.get(ACCOUNT)
    assert allowing.asked == []


def test_a_gateway_asks_about_a_caller_without_certificate_as_nobody(
    scripted_envoy: RunningEnvoy, allowing: Scripted
) -> None:
    with scripted_envoy.client(None) as client:
        client.get(ACCOUNT)
    source = asked(allowing).source
    assert source is not None
    assert (source.principal, source.certificate) == ("", "")


@pytest.fixture(scope="module")
def sidecar(run_envoy: Callable[..., RunningEnvoy], scripted_directory: Path) -> RunningEnvoy:
    return run_envoy(scripted_directory, kind="sidecar")


def test_a_sidecar_has_no_handshake_without_certificate(sidecar: RunningEnvoy, allowing: Scripted) -> None:
    assert sidecar.agent.get(ACCOUNT).status_code == 200
    allowing.asked.clear()
    with sidecar.client(None) as client, pytest.raises(httpx.TransportError):
        client.get(ACCOUNT)
    assert allowing.asked == []


def test_at_a_sidecar_an_authority_can_not_vouch_for_another_trust_domain(
    sidecar: RunningEnvoy, stage: Stage, allowing: Scripted
) -> None:
    foreign = stage.authority.issue("spiffe://other.example/ns/a/sa/b")
    with sidecar.client(foreign) as client, pytest.raises(httpx.TransportError):
        client.get(ACCOUNT)
    assert allowing.asked == []


# ---- time -------------------------------------------------------------------------------------------------


def test_a_slow_decision_point_is_a_503(
    run_envoy: Callable[..., RunningEnvoy], scripted_directory: Path, allowing: Scripted, stage: Stage
) -> None:
    hasty = run_envoy(scripted_directory, check_timeout=timedelta(milliseconds=100))
    allowing.delay = 1.0
    answer = hasty.agent.get(ACCOUNT)
    assert (answer.status_code, answer.content, stage.upstream.calls) == (503, b"", [])
    assert hasty.stat("http.guarded.ext_authz.error") == 1
    line = hasty.access_log(dict(header_map(allowing))["x-request-id"])
    assert (line["details"], line["decision_id"]) == ("ext_authz_error", None)
    # It waited for the check, and not for nothing: Envoy's timers end a few milliseconds early.
    assert int(line["authz_us"]) >= 50_000
    time.sleep(1.0)  # the late answer is of no use to the next test


def test_a_stream_ends_when_its_time_is_over(
    run_envoy: Callable[..., RunningEnvoy], scripted_directory: Path, allowing: Scripted
) -> None:
    """Envoy asks once per request, so a long one must not outlive its answer for good. A client that sends all the
    same may find its connection closed instead of the status."""
    brief = run_envoy(scripted_directory, max_stream_duration=timedelta(seconds=1))

    def drip() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x"
            time.sleep(0.1)

    answer = brief.agent.post("/v1/stream", content=drip(), headers={"content-length": "40"})
    assert answer.status_code == 408
    line = brief.access_log(dict(header_map(allowing))["x-request-id"])
    assert line["details"] == "max_duration_timeout"
    assert 900 <= line["duration_ms"] < 3900
    assert len(allowing.asked) == 1


def test_an_unguarded_listener_never_asks(
    scripted_envoy: RunningEnvoy, allowing: Scripted, stage: Stage
) -> None:
    with stage.client(scripted_envoy.unguarded_port, stage.agent) as client:
        assert client.get(ACCOUNT).status_code == 200
    assert allowing.asked == []
