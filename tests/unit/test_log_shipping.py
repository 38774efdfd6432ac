"""Shippers against real receivers: all that is in the log reaches them at least once, in the words that each expects."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from signalwarden.decision_log import FileSink, rfc3339, uuid7
from signalwarden.decision_log.shipping import shipper as shipping
from signalwarden.decision_log.shipping import shippers_of
from signalwarden.decision_log.shipping.destination import Entry, NotTakenError
from signalwarden.decision_log.shipping.http import _retry_after
from signalwarden.decision_log.shipping.shipper import Shipper
from signalwarden.decision_log.shipping.stdout import Stdout
from signalwarden.sink_settings import SinkSettings
from tests.authorities import Authority
from tests.collector import Collector, collecting, plain
from tests.log_service import LogService, serving_logs

AT = 1_795_000_000_123_456
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
Eventually = Callable[..., None]


def decision(n: int, *, outcome: str = "allow", pad: int = 0) -> dict[str, Any]:
    """As the core writes it, in what matters here."""
    denied = outcome == "deny"
    return {
        "v": 1, "kind": "decision", "decision_id": uuid7(AT + n * 1000, bytes(8)), "time": rfc3339(AT + n),
        "outcome": outcome, "reason": "policy_denied" if denied else "allowed", "http_status": 403 if denied else 200,
        "request": {
            "method": "POST", "host": "payments.example", "path": "/v1/accounts/42/refunds", "args": {"n": n},
            "action": "refund.create", "resource": 'Account::"42"', "system": "payments", "route": "routes.yaml:2",
            "tier": "runtime", "envoy_id": "e-7", "trace_id": TRACE, "span_id": SPAN, "pad": "x" * pad,
        },
        "principal": {"id": "spiffe://prod.example/a", "trust_domain": "prod.example", "source": "envoy_peer"},
        "signals": [{"name": "posture", "subject": "*", "state": "fresh", "value": "ok"}],
        "policies": {
            "revision": "ab" * 32, "engine": "cedar", "errors": [],
            "determining": [{"id": "p1", "effect": "forbid", "file": "policies/a.cedar", "line": 1, "applies": "certain"}],
        },
        "grant": None, "approval": None, "chain": None,
        "timing_us": {"decode": 1.5, "evaluate": 2.0, "encode": 1.0, "total": 4.5},
    }  # fmt: skip


CHANGE = {
    "v": 1,
    "kind": "change",
    "change_id": uuid7(AT, bytes(8)),
    "time": rfc3339(AT),
    "change": "server_started",
    "actor": "server",
    "version": "0.1.0",
}


def lines(*records: dict[str, Any]) -> bytes:
    return b"".join(orjson.dumps(record) + b"\n" for record in records)


class Log:
    """A log that is written by the test, and what ships it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / "var" / "decisions.jsonl"
        self.sink = FileSink(self.path, rotate_bytes=100_000, keep_files=1_000)
        self.written = 0

    def write(self, *records: dict[str, Any]) -> None:
        self.sink.write(lines(*records))
        self.written += len(records)

    @contextmanager
    def shipping(self, **settings: Any) -> Iterator[Shipper]:
        before = self.written
        (shipper,) = shippers_of(
            [SinkSettings.model_validate(settings)], self.path, self.root, lambda _name, _count: None
        )
        shipper.start(lambda: self.written - before)
        try:
            yield shipper
        finally:
            shipper.end(2)
            shipper.stop()


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests don't wait as long as collectors are given."""
    monkeypatch.setattr(shipping, "FIRST_BACKOFF_S", 0.02)
    monkeypatch.setattr(shipping, "LAST_BACKOFF_S", 0.2)
    monkeypatch.setattr(shipping, "POLL_S", 0.01)


def closed_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        return port


def otlp(port: int, **more: Any) -> dict[str, Any]:
    return {"kind": "otlp", "endpoint": f"http://127.0.0.1:{port}", "timeout": 2.0, **more}


def http(service: LogService, **more: Any) -> dict[str, Any]:
    return {"kind": "http", "url": service.url, "timeout": 2.0, **more}


def ids(records: list[dict[str, Any]]) -> list[str]:
    return [record["decision_id"] for record in records]


# ---------------------------------------------------------------- what each is sent


def test_a_collector_gets_the_line_itself_joined_to_the_trace_of_its_request(
    log: Log, eventually: Eventually
) -> None:
    records = [decision(0), decision(1, outcome="deny"), CHANGE]
    with collecting() as collector, log.shipping(**otlp(collector.port)) as shipper:
        log.write(*records)
        eventually(lambda: len(collector.records()) == 3)
        eventually(lambda: shipper.health().lag_records == 0)
    found = collector.records()
    assert [record.body.string_value.encode() for record in found] == [
        orjson.dumps(record) for record in records
    ]
    assert [(record.trace_id.hex(), record.span_id.hex()) for record in found] == [(TRACE, SPAN)] * 2 + [
        ("", "")
    ]
    assert [record.severity_text for record in found] == ["INFO", "WARN", "INFO"]
    assert found[0].time_unix_nano == AT * 1000
    assert [record.event_name for record in found] == ["signalwarden.decision"] * 2 + ["signalwarden.change"]
    denied = plain(found[1].attributes)
    assert denied["decision_id"] == denied["log.record.uid"] == records[1]["decision_id"]
    assert (denied["outcome"], denied["reason"], denied["http.response.status_code"]) == (
        "deny",
        "policy_denied",
        403,
    )
    (resource,) = {r.resource.SerializeToString() for call in collector.logs for r in call.resource_logs}
    assert b"service.name" in resource


def test_a_decision_log_service_of_opa_gets_a_compressed_array_of_events(
    log: Log, eventually: Eventually
) -> None:
    with serving_logs() as service, log.shipping(**http(service)):
        log.write(CHANGE, decision(0), decision(1, outcome="deny"))
        eventually(lambda: len(service.events()) == 2)
    assert service.asked[0]["content-encoding"] == "gzip"
    assert service.asked[0]["content-type"] == "application/json"
    allowed, denied = service.events()
    record = decision(1, outcome="deny")
    assert set(denied["labels"]) == {"app", "id", "version"}
    assert denied["decision_id"] == record["decision_id"]
    assert denied["timestamp"] == record["time"]
    assert denied["bundles"] == {"signalwarden": {"revision": "ab" * 32}}
    assert (denied["trace_id"], denied["span_id"]) == (TRACE, SPAN)
    assert denied["path"] == "signalwarden/decision"
    assert denied["requested_by"] == "spiffe://prod.example/a"
    assert denied["input"]["request"] == record["request"]
    assert denied["input"]["signals"] == record["signals"]
    assert (denied["result"]["allowed"], denied["result"]["reason"]) == (False, "policy_denied")
    assert denied["metrics"]["timer_server_handler_ns"] == 4500
    assert allowed["result"]["allowed"] is True


def test_lines_by_http_are_as_they_stand_in_the_log(log: Log, eventually: Eventually) -> None:
    with serving_logs() as service, log.shipping(**http(service, format="jsonl")):
        log.write(CHANGE, decision(0))
        eventually(lambda: len(service.events()) == 2)
    assert service.asked[0]["content-type"] == "application/x-ndjson"
    assert service.events() == [CHANGE, decision(0)]


OCSF_REQUIRED = {
    "activity_id",
    "category_uid",
    "class_uid",
    "metadata",
    "severity_id",
    "time",
    "type_uid",
} | {
    "actor",
    "api",
    "src_endpoint",
}
"""Of the base event and of API Activity."""


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, {"status_id": 1, "action_id": 1, "disposition_id": 1, "severity_id": 1, "activity_id": 1}),
        ({"outcome": "deny"}, {"status_id": 2, "action_id": 2, "disposition_id": 2, "severity_id": 2}),
        ({"outcome": "deny", "enforced": False}, {"status_id": 2, "action_id": 1, "disposition_id": 17}),
        ({"outcome": "deny", "reason": "engine_error"}, {"severity_id": 4}),
        ({"principal": None}, {"actor": {"app_name": "unknown"}}),
        ({"request": {"method": "PURGE"}}, {"activity_id": 99, "type_uid": 600399}),
        ({"request": {"method": "GET"}}, {"activity_id": 2, "type_uid": 600302}),
    ],
)
def test_an_event_of_ocsf_is_an_api_activity(change: dict[str, Any], expected: dict[str, Any]) -> None:
    from signalwarden.decision_log.shipping.formats import ocsf

    record = decision(0) | change
    event = orjson.loads(ocsf(Entry(b"", record)) or b"")
    assert set(event) >= OCSF_REQUIRED
    assert (event["class_uid"], event["category_uid"]) == (6003, 6)
    assert event["type_uid"] == 600300 + event["activity_id"]
    assert event["time"] == AT // 1000
    assert event["metadata"]["uid"] == record["decision_id"]
    assert event["metadata"]["product"]["name"] == "signalwarden"
    assert event["api"]["operation"]
    assert {key: event[key] for key in expected} == expected
    if not change:
        assert event["actor"]["user"]["uid"] == "spiffe://prod.example/a"
        assert event["resources"] == [{"type": "Account", "uid": "42", "name": 'Account::"42"'}]
        assert event["metadata"]["correlation_uid"] == TRACE
        assert event["policy"]["uid"] == "p1"
    assert ocsf(Entry(b"", CHANGE)) is None


def test_standard_output_gets_whole_lines_and_a_reader_who_does_not_read_holds_up_nobody_else(
    log: Log,
) -> None:
    reads, writes = os.pipe()
    stdout = Stdout(lambda entry: entry.raw, writes)
    entries = [Entry(orjson.dumps(decision(n)), decision(n)) for n in range(1_000)]
    result: list[object] = []

    def send() -> None:
        try:
            result.append(stdout.send(entries))
        except NotTakenError as error:
            result.append(str(error))

    thread = threading.Thread(target=send)
    thread.start()
    thread.join(0.5)
    assert thread.is_alive()  # the pipe is full
    stdout.close()
    thread.join(5)
    assert result == ["the server stops and nobody reads standard output"]
    os.close(writes)
    with os.fdopen(reads, "rb") as pipe:
        whole = pipe.read().split(b"\n")[:-1]
    assert whole == [entry.raw for entry in entries[: len(whole)]]


def test_a_line_that_was_broken_off_is_ended_before_the_next(tmp_path: Path) -> None:
    reads, writes = os.pipe()
    stdout = Stdout(lambda entry: entry.raw, writes)
    stdout._broken_off = True
    stdout.send([Entry(b"{}", {})])
    stdout.send([Entry(b"[]", {})])
    os.close(writes)
    with os.fdopen(reads, "rb") as pipe:
        assert pipe.read() == b"\n{}\n[]\n"


# ---------------------------------------------------------------- faults


def test_a_collector_that_comes_back_gets_everything(log: Log, eventually: Eventually) -> None:
    port = closed_port()
    with log.shipping(**otlp(port)) as shipper:
        log.write(*(decision(n) for n in range(300)))
        eventually(lambda: shipper.health().failures >= 3)
        health = shipper.health()
        assert not health.healthy
        assert health.lag_records == 300
        assert health.lag_s > 0
        assert health.last_error == f"the collector `127.0.0.1:{port}` can't be reached, or takes nothing now"
        with collecting(port=port) as collector:
            eventually(lambda: len(collector.records()) >= 300, within_s=20)
            eventually(lambda: shipper.health().healthy)
            assert shipper.health().lag_records == 0
            assert shipper.health().lag_s == 0
    assert [plain(r.attributes)["decision_id"] for r in collector.records()] == ids(
        [decision(n) for n in range(300)]
    )


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAUTHENTICATED]
)
def test_a_collector_that_refuses_is_asked_again(
    log: Log, eventually: Eventually, code: grpc.StatusCode
) -> None:
    collector = Collector(refuses=code)
    with collecting(collector=collector), log.shipping(**otlp(collector.port)) as shipper:
        log.write(*(decision(n) for n in range(10)))
        eventually(lambda: len(collector.headers) >= 3)
        assert collector.logs == []
        assert "as the test says" not in str(shipper.health().last_error)
        collector.refuses = None
        eventually(lambda: len(collector.records()) == 10)


@pytest.mark.parametrize("way", ["grpc", "seconds", "date"])
def test_who_asks_for_time_is_given_it(log: Log, eventually: Eventually, way: str) -> None:
    if way == "grpc":
        collector = Collector(refuses=grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after_s=1.2)
        with collecting(collector=collector), log.shipping(**otlp(collector.port)):
            log.write(decision(0))
            eventually(lambda: len(collector.headers) == 1)
            time.sleep(0.8)
            assert len(collector.headers) == 1
            eventually(lambda: len(collector.headers) == 2)
        return
    service = LogService(status=429)
    with serving_logs(service), log.shipping(**http(service)):
        service.headers = {
            "retry-after": "1" if way == "seconds" else formatdate(time.time() + 2.5, usegmt=True)
        }
        log.write(decision(0))
        eventually(lambda: len(service.asked) == 1)
        time.sleep(0.6)
        assert len(service.asked) == 1
        eventually(lambda: len(service.asked) == 2)


@pytest.mark.parametrize("text", ["", "soon", "-4", "1e9", "9" * 40, "Tue, 99 Nov 2026", "²"])
def test_a_time_to_wait_that_is_none_counts_for_nothing(text: str) -> None:
    assert _retry_after(text) == 0


@pytest.mark.parametrize("status", [500, 503, 404, 401])
def test_a_service_that_fails_is_asked_again(log: Log, eventually: Eventually, status: int) -> None:
    service = LogService(status=status)
    with serving_logs(service), log.shipping(**http(service)) as shipper:
        log.write(*(decision(n) for n in range(10)))
        eventually(lambda: len(service.asked) >= 3)
        assert shipper.health().last_error == f"the sink answered with status {status}"
        service.status = 200
        eventually(lambda: len(service.events()) == 10)


def test_a_redirect_is_not_followed(log: Log, eventually: Eventually) -> None:
    service = LogService(status=302, headers={"location": "http://127.0.0.1:1/"})
    with serving_logs(service), log.shipping(**http(service)) as shipper:
        log.write(decision(0))
        eventually(lambda: "redirect (302), which is not followed" in str(shipper.health().last_error))


def test_a_slow_receiver_is_given_up_and_asked_again(log: Log, eventually: Eventually) -> None:
    service, collector = LogService(delay_s=0.8), Collector(delay_s=0.8)
    with serving_logs(service), collecting(collector=collector):
        with log.shipping(**http(service, timeout=0.3)) as one:
            log.write(decision(0))
            eventually(lambda: "gave no full answer within 0.3 s" in str(one.health().last_error))
            service.delay_s = 0
            eventually(lambda: one.health().healthy)
        with log.shipping(**otlp(collector.port, timeout=0.3)) as other:
            eventually(lambda: "gave no answer within 0.3 s" in str(other.health().last_error))
            collector.delay_s = 0
            eventually(lambda: other.health().healthy)
    assert set(ids(service.events())) == {decision(0)["decision_id"]}  # perhaps twice: known by the id


def test_what_is_too_large_at_once_is_sent_in_parts(log: Log, eventually: Eventually) -> None:
    service = LogService(max_events=7)
    with serving_logs(service), log.shipping(**http(service)):
        log.write(*(decision(n) for n in range(100)))
        eventually(lambda: len(service.events()) == 100)
    assert ids(service.events()) == ids([decision(n) for n in range(100)])


@pytest.mark.parametrize("kind", ["http", "otlp"])
def test_a_record_that_is_too_large_alone_is_counted_and_holds_up_nothing(
    log: Log, eventually: Eventually, kind: str
) -> None:
    records = [decision(0), decision(1, pad=300_000), decision(2)]
    service, collector = LogService(max_bytes=100_000), Collector(max_bytes=100_000)
    with contextlib.ExitStack() as stack:
        stack.enter_context(serving_logs(service))
        stack.enter_context(collecting(collector=collector))
        settings = http(service) if kind == "http" else otlp(collector.port)
        shipper = stack.enter_context(log.shipping(**settings))
        log.write(*records)
        eventually(lambda: shipper.health().lag_records == 0)
        assert (shipper.health().taken, shipper.health().refused) == (2, 1)
    came = (
        ids(service.events())
        if kind == "http"
        else [plain(r.attributes)["decision_id"] for r in collector.records()]
    )
    assert came == ids([records[0], records[2]])


def test_what_a_partial_success_refuses_is_counted_and_not_sent_again(
    log: Log, eventually: Eventually
) -> None:
    collector = Collector(rejects=2)
    with collecting(collector=collector), log.shipping(**otlp(collector.port)) as shipper:
        log.write(*(decision(n) for n in range(5)))
        eventually(lambda: shipper.health().lag_records == 0)
        assert (shipper.health().taken, shipper.health().refused) == (3, 2)
    assert len(collector.records()) == 5


def test_lines_that_are_no_records_are_counted_and_left_out(log: Log, eventually: Eventually) -> None:
    with serving_logs() as service, log.shipping(**http(service)) as shipper:
        log.sink.write(b"{half\n[1]\n" + lines(decision(0)))
        log.written += 3
        eventually(lambda: len(service.events()) == 1)
        eventually(lambda: shipper.health().lag_records == 0)
        assert shipper.health().skipped == 2


def test_after_a_restart_it_goes_on_where_it_was(log: Log, eventually: Eventually) -> None:
    with serving_logs() as service:
        with log.shipping(**http(service)) as shipper:
            log.write(*(decision(n) for n in range(50)))
            eventually(lambda: shipper.health().taken == 50)
        log.write(*(decision(n) for n in range(50, 80)))
        with log.shipping(**http(service)) as shipper:
            eventually(lambda: shipper.health().taken == 30)
            assert shipper.health().lag_records == 0
    assert ids(service.events()) == ids([decision(n) for n in range(80)])
    cursor = orjson.loads(log.path.with_name("decisions.http.cursor").read_bytes())
    assert cursor["sequence"] == 80
    assert log.path.with_name("decisions.http.cursor").stat().st_mode & 0o777 == 0o600


def test_a_stop_sends_what_is_left_and_waits_for_no_dead_receiver(log: Log, eventually: Eventually) -> None:
    with serving_logs() as service, log.shipping(**http(service)):
        log.write(*(decision(n) for n in range(2_000)))
    assert len(service.events()) == 2_000
    with log.shipping(**otlp(closed_port())) as shipper:
        eventually(lambda: shipper.health().failures)
        started = time.monotonic()
    assert time.monotonic() - started < 3


def test_headers_from_a_file_are_sent_and_read_anew(log: Log, eventually: Eventually) -> None:
    secret = log.root / "headers"
    secret.write_text("authorization: Bearer one\nx-scope: prod\n")
    with (
        serving_logs() as service,
        collecting() as collector,
        log.shipping(**http(service, headers_file="headers")),
        log.shipping(**otlp(collector.port, headers_file="headers")),
    ):
        log.write(decision(0))
        eventually(lambda: service.asked and collector.headers)
        assert (service.asked[-1]["authorization"], service.asked[-1]["x-scope"]) == (
            "Bearer one",
            "prod",
        )
        assert collector.headers[-1]["authorization"] == "Bearer one"
        secret.write_text("authorization: Bearer two\n")
        log.write(decision(1))
        eventually(lambda: service.asked[-1]["authorization"] == "Bearer two")
        eventually(lambda: collector.headers[-1]["authorization"] == "Bearer two")


def test_a_headers_file_that_can_t_be_read_is_one_sentence_without_a_value(
    log: Log, eventually: Eventually
) -> None:
    (log.root / "headers").write_text("authorization Bearer topsecret\n")
    with serving_logs() as service, log.shipping(**http(service, headers_file="headers")) as shipper:
        log.write(decision(0))
        eventually(lambda: shipper.health().failures)
        error = str(shipper.health().last_error)
        assert "line 1: expected `name: value`" in error
        assert "topsecret" not in error
        assert service.asked == []


def test_over_tls_the_named_authority_alone_is_trusted(log: Log, eventually: Eventually) -> None:
    ours, other = Authority("ours"), Authority("other")
    server = ours.issue(dns=("localhost",))
    for name, authority in (("ca.pem", ours), ("other.pem", other)):
        (log.root / name).write_bytes(authority.cert.public_bytes(Encoding.PEM))
    (log.root / "server.pem").write_bytes(server.key_pem + server.chain_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(log.root / "server.pem")
    credentials = grpc.ssl_server_credentials([(server.key_pem, server.chain_pem)])
    service = LogService()
    with serving_logs(service, tls=context), collecting(credentials) as collector:
        to = {"http": {"url": f"https://localhost:{service.port}/"}}
        to["otlp"] = {"endpoint": f"https://localhost:{collector.port}"}
        log.write(decision(0))
        for kind, where in to.items():
            settings = {"kind": kind, "timeout": 2.0, **where}
            with log.shipping(**settings, ca_file="other.pem") as shipper:
                eventually(lambda shipper=shipper: shipper.health().failures)
                assert shipper.health().taken == 0
            with log.shipping(**settings, ca_file="ca.pem") as shipper:
                eventually(lambda shipper=shipper: shipper.health().taken == 1)
    assert (len(service.events()), len(collector.records())) == (1, 1)


def test_a_cursor_that_can_t_be_kept_stops_nothing(log: Log, eventually: Eventually) -> None:
    log.path.with_name("decisions.http.cursor.partial").mkdir(parents=True)
    with serving_logs() as service, log.shipping(**http(service)) as shipper:
        log.write(*(decision(n) for n in range(10)))
        eventually(lambda: len(service.events()) == 10)
        eventually(lambda: "its cursor can't be kept" in str(shipper.health().last_error))
