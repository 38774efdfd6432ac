"""Traces: spans of real records at a real collector, none that holds more than it should, and a dead collector that costs
nothing."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased
from pydantic import ValidationError

from signalwarden import config
from signalwarden.decision_log import rfc3339, uuid7
from signalwarden.errors import ConfigurationError, OtlpError
from signalwarden.otlp import Collector as Reached
from signalwarden.otlp import OtlpSettings
from signalwarden.telemetry_settings import TelemetrySettings
from signalwarden.traces import sender
from signalwarden.traces.sender import Traces
from signalwarden.traces.spans import NAME, sampler, span_of
from tests.asking import AGENT, check_request
from tests.collector import Collector, collecting, plain
from tests.conftest import Eventually
from tests.serving import running

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
SECRET = "s3cr3t-t0ken"
START_US = 1_795_000_000_000_000


def record(n: int = 0, *, flags: str | None = "01", trace: str = TRACE, **more: Any) -> dict[str, Any]:
    request = {"method": "GET", "host": "pages.example", "path": f"/{SECRET}", "args": {"q": SECRET}}
    if flags is not None:
        request |= {"trace_id": trace, "span_id": SPAN, "trace_flags": flags}
    return {
        "v": 1,
        "kind": "decision",
        "decision_id": uuid7(START_US + n, n.to_bytes(8, "big")),
        "time": rfc3339(START_US + n),
        "outcome": "allow",
        "reason": "allowed",
        "http_status": 200,
        "request": request
        | {"action": "page.read", "route": "routes.yaml:2", "resource": f'Page::"{SECRET}"'},
        "principal": {"id": AGENT, "source": "envoy_peer"},
        "signals": [
            {"name": "posture", "state": "fresh", "value": SECRET, "influence": "decisive"},
            {"name": "region", "state": "fresh", "value": SECRET, "influence": "consulted"},
        ],
        "policies": {"revision": "r1", "determining": [{"id": "readers"}], "errors": []},
        "timing_us": {"decode": 1.5, "evaluate": 10.0, "encode": 2.5, "total": 14.0},
    } | more


def line(**what: Any) -> bytes:
    return orjson.dumps(record(**what))


# ---- a span -----------------------------------------------------------------------------------------------


def test_a_span_joins_the_trace_of_the_request_and_says_how_it_was_decided() -> None:
    told = record()
    span = span_of(orjson.dumps(told))
    assert span is not None
    assert (span.trace_id.hex(), span.parent_span_id.hex(), span.name) == (TRACE, SPAN, NAME)
    assert span.flags & 0x301 == 0x301
    assert span.start_time_unix_nano == START_US * 1_000
    assert span.end_time_unix_nano - span.start_time_unix_nano == 14_000
    said = plain(span.attributes)
    assert said["signalwarden.decision_id"] == told["decision_id"]
    assert (said["signalwarden.reason"], said["signalwarden.outcome"]) == ("allowed", "allow")
    assert (said["signalwarden.action"], said["signalwarden.route"]) == ("page.read", "routes.yaml:2")
    assert said["signalwarden.evaluate_us"] == 10.0
    assert [each.string_value for each in said["signalwarden.signals.decisive"].values] == ["posture:fresh"]
    assert [each.string_value for each in said["signalwarden.policies"].values] == ["readers"]
    assert not {"signalwarden.task", "signalwarden.folded"} & set(said)
    folded = span_of(line(folded={"count": 7}))
    assert folded is not None
    assert plain(folded.attributes)["signalwarden.folded"] == 7
    assert span.status.code == 0


def test_a_span_holds_nothing_of_what_the_request_was_about() -> None:
    span = span_of(line())
    assert span is not None
    assert SECRET not in str(span)
    assert SECRET.encode() not in span.SerializeToString()


def test_a_span_that_is_made_again_is_the_same_span_and_each_decision_has_its_own() -> None:
    spans = [span_of(line(n=n)) for n in (1, 1, 2)]
    one, again, other = [span.span_id for span in spans if span is not None]
    assert one == again != other


def test_what_we_could_not_do_is_an_error_and_a_denial_is_none() -> None:
    denied = span_of(line(outcome="deny", reason="policy_denied", http_status=403))
    failed = span_of(line(outcome="deny", reason="engine_error", http_status=500))
    assert denied is not None
    assert failed is not None
    assert (denied.status.code, failed.status.code, failed.status.message) == (0, 2, "engine_error")


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"{",
        b"[]",
        b'{"kind":"change"}',
        b'{"kind":"decision"}',
        line(time="yesterday"),
        line(principal={"source": "client"}),
        line(trace="xyz"),
    ],
)
def test_a_line_that_is_no_check_has_no_span(bad: bytes) -> None:
    assert span_of(bad) is None


# ---- of which checks --------------------------------------------------------------------------------------


def test_a_check_has_a_span_if_its_trace_is_sampled() -> None:
    sampled = sampler("parent")
    assert sampled(line(flags="01"))
    assert sampled(line(flags="03"))
    assert not sampled(line(flags="00"))
    assert not sampled(line(flags="02"))
    assert not sampled(line(flags=None))
    # What a caller writes is no flag.
    assert not sampled(orjson.dumps(record(flags="00") | {"detail": '"trace_flags":"01"'}))


def test_a_share_is_of_whole_traces_as_opentelemetry_counts_them() -> None:
    for share in (0.001, 0.3, 1.0):
        ours, theirs = sampler(share), TraceIdRatioBased(share)
        for n in range(500):
            trace = hashlib.sha256(str(n).encode()).hexdigest()[:32]
            verdict = theirs.should_sample(None, int(trace, 16), "x").decision
            assert ours(line(flags="00", trace=trace)) == (verdict is Decision.RECORD_AND_SAMPLE)


def test_a_share_also_counts_checks_of_no_trace() -> None:
    taken = [span_of(each) for each in (line(n=n, flags=None) for n in range(2_000)) if sampler(0.25)(each)]
    assert 350 < len(taken) < 650
    traces = {span.trace_id for span in taken if span is not None}
    assert len(traces) == len(taken)
    assert all(span is not None and span.parent_span_id == b"" for span in taken)


# ---- sending ----------------------------------------------------------------------------------------------


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "decisions.jsonl"
    path.touch()
    return path


def append(path: Path, lines: Iterator[bytes] | list[bytes]) -> None:
    with path.open("ab") as file:
        file.write(b"".join(each + b"\n" for each in lines))


@contextlib.contextmanager
def sending(path: Path, to: Collector, **more: Any) -> Iterator[Traces]:
    settings = OtlpSettings(endpoint=f"http://127.0.0.1:{to.port}", **more)
    traces = Traces(Reached(settings, path.parent), "parent", path)
    traces.start()
    try:
        yield traces
    finally:
        traces.stop()


def test_what_is_written_is_sent_once_over_rotation_and_to_the_last_record(
    log: Path, eventually: Eventually
) -> None:
    append(log, [line(n=0)])
    with collecting() as collector:
        with sending(log, collector):
            append(log, [line(n=n, flags="01" if n % 2 else "00") for n in range(1, 101)])
            eventually(lambda: len(collector.spans()) == 50)
            log.rename(log.with_name("decisions-000001-20261128T180000Z.jsonl"))
            append(log, [line(n=n) for n in range(101, 201)])
        spans = collector.spans()
    ids = [plain(span.attributes)["signalwarden.decision_id"] for _, span in spans]
    assert ids == [record(n)["decision_id"] for n in (*range(1, 101, 2), *range(101, 201))]
    assert {service for service, _ in spans} == {"signalwarden"}


def test_a_collector_that_comes_back_gets_what_was_written_meanwhile(
    log: Path, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    with collecting() as collector:
        port = collector.port
    with sending(log, collector) as traces:
        append(log, [line(n=n) for n in range(10)])
        eventually(lambda: traces.numbers()["spans_failures"] >= 2)
        assert traces.numbers()["spans_healthy"] == 0
        with collecting(port=port, collector=collector):
            eventually(lambda: len(collector.spans()) == 10, within_s=20)
            assert traces.numbers()["spans_healthy"] == 1
    said = [each.getMessage() for each in caplog.records if each.name == "signalwarden.traces"]
    assert said == [
        f"the collector `127.0.0.1:{port}` takes no traces: UNAVAILABLE",
        f"the collector `127.0.0.1:{port}` takes traces again",
    ]


def test_a_dead_collector_holds_one_batch_and_what_lies_too_far_back_is_given_up(
    log: Path, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "MAX_BEHIND_BYTES", 200_000)
    with collecting() as collector:
        port = collector.port
    with sending(log, collector) as traces:
        append(log, [line(n=n) for n in range(1_000)])
        eventually(lambda: traces.numbers()["spans_skipped_bytes"] > 200_000)
        with collecting(port=port, collector=collector):
            append(log, [line(n=n) for n in range(1_000, 1_010)])
            eventually(lambda: len(collector.spans()) >= 10, within_s=20)
            ids = [plain(span.attributes)["signalwarden.decision_id"] for _, span in collector.spans()]
    assert ids[-1] == record(1_009)["decision_id"]
    assert len(ids) < 500


@pytest.mark.parametrize("code", [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED])
def test_what_a_collector_refuses_for_good_is_counted_and_not_sent_again(
    log: Path, eventually: Eventually, code: grpc.StatusCode
) -> None:
    with collecting() as collector:
        collector.refuses = code
        with sending(log, collector) as traces:
            append(log, [line(n=n) for n in range(5)])
            eventually(lambda: traces.numbers()["spans_refused"] == 5)
            collector.refuses = None
            append(log, [line(n=5)])
            eventually(lambda: traces.numbers()["spans_sent"] == 1)
    assert len(collector.spans()) == 1


def test_a_token_that_was_exchanged_is_read_anew_and_never_said(
    log: Path, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    headers = log.parent / "headers"
    headers.write_text(f"authorization: Bearer {SECRET}-old")
    with collecting() as collector:
        collector.refuses = grpc.StatusCode.UNAUTHENTICATED
        with sending(log, collector, headers_file="headers") as traces:
            append(log, [line()])
            eventually(lambda: traces.numbers()["spans_failures"] >= 1)
            headers.write_text(f"authorization: Bearer {SECRET}-new")
            collector.refuses = None
            eventually(lambda: len(collector.spans()) == 1)
    assert collector.headers[-1]["authorization"] == f"Bearer {SECRET}-new"
    assert SECRET not in caplog.text


def test_a_stop_waits_for_no_collector(log: Path) -> None:
    with collecting() as collector:
        collector.delay_s = 3.0
        with sending(log, collector, timeout="1m") as traces:
            append(log, [line()])
            time.sleep(1.0)
            begun = time.monotonic()
            traces.stop()
        assert time.monotonic() - begun < 3 * sender.STOP_S


# ---- a real server ----------------------------------------------------------------------------------------


def test_a_server_sends_spans_of_its_checks_and_none_without_being_asked_to(
    minimal_directory: Path, eventually: Eventually
) -> None:
    headers = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
    request = bytes(check_request(headers=headers))
    unsampled = bytes(check_request(headers={"traceparent": f"00-{TRACE}-{SPAN}-00"}))
    with collecting() as collector:
        with running(minimal_directory) as app:
            assert "spans_sent" not in app.metrics_text()[0].decode()
        with (minimal_directory / "signalwarden.yaml").open("a") as file:
            file.write(f'telemetry: {{otlp: {{endpoint: "http://127.0.0.1:{collector.port}"}}}}\n')
        with running(minimal_directory) as app:
            for each in (request, unsampled, bytes(check_request())):
                app._up().engine.check(each)
            eventually(lambda: len(collector.spans()) == 1)
            # Counted when the collector's answer is back.
            eventually(lambda: "signalwarden_spans_sent_total 1.0" in app.metrics_text()[0].decode())
            app._up().engine.check(request)
        spans = [span for _, span in collector.spans()]
    assert [span.trace_id.hex() for span in spans] == [TRACE, TRACE]
    records = [
        json.loads(each) for each in (minimal_directory / "var/decisions.jsonl").read_bytes().splitlines()
    ]
    decisions = [each for each in records if each["kind"] == "decision"]
    assert plain(spans[0].attributes)["signalwarden.decision_id"] == decisions[0]["decision_id"]
    assert decisions[0]["request"]["trace_flags"] == "01"
    assert decisions[1]["request"]["trace_flags"] == "00"
    assert "trace_flags" not in decisions[2]["request"]


# ---- settings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sample", ["parents", 0, 0.0, 1.5, -1, True, None, "0.5", []])
def test_a_sample_that_means_nothing_is_refused(sample: object) -> None:
    with pytest.raises(ValidationError, match="expected `parent`, or a share"):
        TelemetrySettings(sample=sample)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("telemetry", "expected"),
    [
        ("{sample: 0.1}", "missing, `sample` says of which checks it is told"),
        ('{otlp: {endpoint: "http://otel.example:4317"}}', "is not on this machine"),
        ('{otlp: {endpoint: "https://otel.example", key: k.pem}}', "missing, `key` needs it"),
        ("{otlp: {}}", "missing, the key is required"),
        ("{otlps: {}}", "did you mean `otlp`"),
    ],
)
def test_a_mistake_of_the_settings_is_a_finding(
    minimal_directory: Path, telemetry: str, expected: str
) -> None:
    with (minimal_directory / "signalwarden.yaml").open("a") as file:
        file.write(f"telemetry: {telemetry}\n")
    with pytest.raises(ConfigurationError) as error:
        config.load(minimal_directory, START_US)
    assert expected in str(error.value)


def test_a_file_that_is_not_there_is_said_at_the_start(log: Path) -> None:
    settings = OtlpSettings(endpoint="https://otel.example", ca_file="ca.pem")
    with pytest.raises(OtlpError, match=r"ca\.pem` can't be read"):
        Traces(Reached(settings, log.parent), "parent", log)
