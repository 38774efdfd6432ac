"""One trace from the caller over Envoy to the decision: the real Envoy, as `envoy config --traces` has it, and the real server
send to one collector."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from signalwarden import starter
from signalwarden.demo_stage import LOOPBACK, free_port, start_server, wait_for
from tests.collector import Collector, collecting, plain
from tests.e2e.conftest import REFUND, Product, RunningEnvoy, Stage, make_directory

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


@pytest.fixture(scope="module")
def traced(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    base = tmp_path_factory.mktemp("traced")
    check_port, admin_port = free_port(), free_port()
    made = make_directory(base / "config", check_port, admin_port)
    with (made.directory / "signalwarden.yaml").open("a") as file:
        file.write(f'telemetry: {{otlp: {{endpoint: "http://{LOOPBACK}:{collector.port}"}}}}\n')
    process = start_server(made.directory, admin_port, base / "serve.log")
    running = Product(made, check_port, admin_port, process)
    running.publish("device_trust", 4)
    running.publish("posture", "ok")
    yield running
    process.stop()


@pytest.fixture(scope="module")
def envoy(collector: Collector, traced: Product, run_envoy: Callable[..., RunningEnvoy]) -> RunningEnvoy:
    return run_envoy(traced.directory, traces=(LOOPBACK, collector.port))


def spans_of(collector: Collector, trace: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for service, span in collector.spans():
        if span.trace_id.hex() == trace:
            found.setdefault(service, []).append(span)
    return found


def test_envoys_spans_and_ours_are_of_the_callers_trace(
    envoy: RunningEnvoy, traced: Product, collector: Collector
) -> None:
    headers = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
    answer = envoy.agent.post(REFUND, json={"amount": 1250}, headers=headers)
    assert answer.status_code == 200, answer.text
    wait_for("spans of both", lambda: {"envoy", "signalwarden"} <= set(spans_of(collector, TRACE)), 30)
    spans = spans_of(collector, TRACE)
    (ours,) = spans["signalwarden"]
    said = plain(ours.attributes)
    assert (said["signalwarden.outcome"], said["signalwarden.action"]) == ("allow", "refund.create")
    assert said["signalwarden.principal"] == starter.AGENT
    record = traced.record(said["signalwarden.decision_id"])
    assert (record["request"]["trace_id"], record["request"]["trace_flags"]) == (TRACE, "01")
    # Both hang below the caller's span: it is what the request says of itself when we are asked.
    assert ours.parent_span_id.hex() == CALLER
    (ingress,) = [each for each in spans["envoy"] if each.parent_span_id.hex() == CALLER]
    (asking,) = [each for each in spans["envoy"] if each.parent_span_id == ingress.span_id]
    assert "Authorization.Check" in asking.name
    assert asking.start_time_unix_nano <= ours.start_time_unix_nano <= asking.end_time_unix_nano


def test_a_trace_that_envoy_begins_has_our_span_below_envoys(
    envoy: RunningEnvoy, collector: Collector, stage: Stage
) -> None:
    stage.upstream.calls.clear()
    assert envoy.agent.post(REFUND, json={"amount": 1250}).status_code == 200
    sent = dict(stage.upstream.calls[0]["headers"])
    _, trace, _, _ = sent["traceparent"].split("-")
    wait_for("spans of both", lambda: {"envoy", "signalwarden"} <= set(spans_of(collector, trace)), 30)
    spans = spans_of(collector, trace)
    (ours,) = spans["signalwarden"]
    (ingress,) = [each for each in spans["envoy"] if each.parent_span_id == b""]
    assert ours.parent_span_id == ingress.span_id
    assert plain(ours.attributes)["signalwarden.decision_id"] == sent["x-signalwarden-decision-id"]


def test_a_trace_that_is_not_sampled_has_no_span(
    envoy: RunningEnvoy, traced: Product, collector: Collector
) -> None:
    before = [span for service, span in collector.spans() if service == "signalwarden"]
    other = TRACE.replace("4", "5")
    answer = envoy.agent.get("/v1/accounts/42", headers={"traceparent": f"00-{other}-{CALLER}-00"})
    assert answer.status_code == 200
    # The next one is sampled, and comes alone.
    headers = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
    assert envoy.agent.get("/v1/accounts/42", headers=headers).status_code == 200

    def ours() -> list[Any]:
        return [span for service, span in collector.spans() if service == "signalwarden"][len(before) :]

    wait_for("the span of the sampled one", lambda: len(ours()) >= 1, 30)
    assert [span.trace_id.hex() for span in ours()] == [TRACE]
