"""`app`: everything opened in order, changes kept before they are answered, and an orderly end."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from signalwarden.app import REFUSALS_A_SECOND, App
from signalwarden.config import Right
from signalwarden.errors import (
    BadInputError,
    ConfigurationError,
    LogError,
    RateLimitedError,
    ServerError,
    SignalwardenError,
    StateError,
    UnknownPublisherError,
)
from signalwarden.front import CHECK_SERVICE
from signalwarden.server import CHECK_METHOD, MAX_REQUEST_BYTES
from signalwarden.services import Client
from signalwarden.state import SqliteStore
from tests.serving import running

TIMEOUT_S = 10.0
PUBLISHER = "spiffe://prod.example/mdm"
TOKENS = {
    "publisher": b"token of the publisher",
    "operator": b"token of the operator",
    "old": b"token that is past",
}

CLIENTS = "clients:\n" + "".join(
    f'  - {{id: "{who}", may: [{may}], token_sha256: "{hashlib.sha256(TOKENS[name]).hexdigest()}", expires: "{until}"}}\n'
    for name, who, may, until in (
        ("publisher", PUBLISHER, "publish", "2099-01-01T00:00:00Z"),
        ("operator", "spiffe://prod.example/operator", "operate", "2099-01-01T00:00:00Z"),
        ("old", "spiffe://prod.example/old", "read", "2020-01-01T00:00:00Z"),
    )
)

REGISTER = f"""\
signals:
  page_open:
    type: bool
    description: Whether the page may be read
    owner: team-pages@prod.example
    purpose: Close pages that are being mended
    subject: global
    sources: [{{kind: push, publisher: "{PUBLISHER}", assurance: authoritative}}]
    max_age: 1h
    influence: grant
    used_by: [page.read]
    review_by: 2099-01-01
"""


@pytest.fixture
def root(minimal_directory: Path) -> Path:
    """The minimal directory with clients and one signal that a publisher pushes."""
    with (minimal_directory / "signalwarden.yaml").open("a") as file:
        file.write(CLIENTS)
    (minimal_directory / "signals.yaml").write_text(REGISTER)
    return minimal_directory


def records(root: Path) -> list[dict[str, Any]]:
    lines = (root / "var/decisions.jsonl").read_bytes().splitlines()
    return [json.loads(line) for line in lines]


def changes(root: Path) -> list[str]:
    return [record["change"] for record in records(root) if record["kind"] == "change"]


def check(app: App, request: bytes = b"", method: str = CHECK_METHOD) -> bytes:
    with grpc.insecure_channel(app.check_address, options=[("grpc.max_send_message_length", -1)]) as opened:
        call = opened.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)
        return bytes(call(request, timeout=TIMEOUT_S))


def signal_body(value: bool = True) -> bytes:
    observed_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    one = {"name": "page_open", "subject": "*", "value": value, "observed_at": observed_at}
    return json.dumps({"signals": [one]}).encode()


def test_an_app_answers_and_records_from_start_to_stop(root: Path) -> None:
    with running(root) as app:
        check(app, b"\xff\xff")
        answer = httpx.get(f"http://{app.admin_address}/readyz", timeout=TIMEOUT_S)
        assert answer.status_code == 200
    kinds = [record["kind"] for record in records(root)]
    assert kinds.count("decision") == 1
    assert changes(root) == ["log_key_made", "server_started", "configuration_loaded", "server_stopped"]
    loaded = records(root)[2]
    assert (loaded["actor"], len(loaded["revision"])) == ("server", 64)


def test_a_start_and_its_first_scrape_ask_once_what_the_directory_says(root: Path) -> None:
    """Of a hundred thousand policies an answer takes two seconds."""
    asked: list[str] = []

    def watch(_frame: object, event: str, called: object) -> None:
        if event == "c_call" and getattr(called, "__name__", "") == "describe":
            asked.append(event)

    app = App(root)
    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        app.start()
        app.metrics_text()
    finally:
        sys.setprofile(before)
        app.stop()
    assert len(asked) == 1


def test_a_stop_may_be_called_twice_and_without_a_start(root: Path) -> None:
    App(root).stop()
    app = App(root)
    app.start()
    app.stop()
    app.stop()
    assert not app.readiness().ready


def test_a_published_signal_survives_a_restart(root: Path) -> None:
    client = Client(PUBLISHER, frozenset({Right.PUBLISH}))
    with running(root) as app:
        assert json.loads(app.publish(signal_body(), client)) == {"accepted": 1, "rejected": []}
        before = json.loads(app.signals(None, 10))
    with running(root) as app:
        after = json.loads(app.signals(None, 10))
    assert [found["name"] for found in after["signals"]] == [found["name"] for found in before["signals"]]


def state_of(app: App) -> str:
    [found] = json.loads(app.signals(None, 10))["signals"]
    return str(found["state"])


def test_a_publisher_is_switched_off_at_once_and_stays_so_over_a_restart(root: Path) -> None:
    client, operator = Client(PUBLISHER, frozenset({Right.PUBLISH})), "spiffe://prod.example/operator"
    with running(root) as app:
        app.publish(signal_body(), client)
        assert state_of(app) == "fresh"
        standing = json.loads(app.switch_publisher(operator, PUBLISHER, None, enabled=False))
        assert {key: standing[key] for key in ("publisher", "disabled", "disabled_signals", "signals")} == {
            "publisher": PUBLISHER,
            "disabled": True,
            "disabled_signals": [],
            "signals": ["page_open"],
        }
        assert state_of(app) == "unverified"
        [rejected] = json.loads(app.publish(signal_body(), client))["rejected"]
        assert rejected["reason"] == "publisher_disabled"
        [listed] = json.loads(app.publishers())["publishers"]
        assert (listed["accepted"], listed["rejected"]) == (1, {"publisher_disabled": 1})
        assert listed["last_seen"] is not None
        app.switch_publisher(operator, PUBLISHER, None, enabled=False)
    with running(root) as app:
        assert state_of(app) == "unverified"
        [listed] = json.loads(app.publishers())["publishers"]
        assert (listed["publisher"], listed["disabled"], listed.keys()) == (PUBLISHER, True, standing.keys())
        app.switch_publisher(operator, PUBLISHER, None, enabled=True)
        assert state_of(app) == "unverified"
        time.sleep(1.1)  # what was observed before does not count, and times of the test are whole seconds
        assert json.loads(app.publish(signal_body(), client))["accepted"] == 1
        assert state_of(app) == "fresh"
        app.switch_publisher(operator, PUBLISHER, None, enabled=True)
        assert state_of(app) == "fresh"
    switches = [record for record in records(root) if record.get("change", "").startswith("publisher_")]
    assert [(record["change"], record["actor"], record["publisher"]) for record in switches] == [
        ("publisher_disabled", operator, PUBLISHER),
        ("publisher_enabled", operator, PUBLISHER),
    ]


def test_one_signal_of_a_publisher_is_switched_off_alone(root: Path) -> None:
    more = REGISTER.replace("signals:\n", "").replace("page_open", "page_shown")
    (root / "signals.yaml").write_text(REGISTER + more)
    with running(root) as app:
        standing = json.loads(app.switch_publisher("test", PUBLISHER, "page_shown", enabled=False))
        assert (standing["disabled"], standing["disabled_signals"]) == (False, ["page_shown"])
        client = Client(PUBLISHER, frozenset({Right.PUBLISH}))
        assert json.loads(app.publish(signal_body(), client))["accepted"] == 1
        refused = app.publish(signal_body().replace(b"page_open", b"page_shown"), client)
        assert json.loads(refused)["rejected"][0]["reason"] == "publisher_disabled"


@pytest.mark.parametrize(
    ("publisher", "signal"),
    [("spiffe://prod.example/mdn", None), (PUBLISHER, "page_opne"), ("poll:nothing", None), ("", None)],
)
def test_a_switch_of_what_no_contract_names_is_refused(
    root: Path, publisher: str, signal: str | None
) -> None:
    with running(root) as app:
        for enabled in (False, True):
            with pytest.raises(UnknownPublisherError):
                app.switch_publisher("test", publisher, signal, enabled=enabled)
        assert json.loads(app.publishers())["publishers"][0]["disabled"] is False


def test_a_publisher_over_its_rate_is_refused_and_counted(root: Path) -> None:
    settings = root / "signalwarden.yaml"
    settings.write_text(settings.read_text() + "signals: {max_rate: 1}\n")
    client = Client(PUBLISHER, frozenset({Right.PUBLISH}))
    [one] = json.loads(signal_body())["signals"]
    with running(root) as app:
        app.publish(json.dumps({"signals": [one] * 1_000}).encode(), client)
        with pytest.raises(RateLimitedError):
            app.publish(signal_body(), client)
        assert b"signalwarden_rate_limited_total 1.0" in app.metrics_text()[0]


def test_a_full_store_takes_no_new_subjects(root: Path) -> None:
    settings = root / "signalwarden.yaml"
    settings.write_text(settings.read_text() + "signals: {max_live: 1}\n")
    more = REGISTER.replace("signals:\n", "").replace("page_open", "page_shown")
    (root / "signals.yaml").write_text(REGISTER + more)
    client = Client(PUBLISHER, frozenset({Right.PUBLISH}))
    with running(root) as app:
        assert json.loads(app.publish(signal_body(), client))["accepted"] == 1
        refused = app.publish(signal_body().replace(b"page_open", b"page_shown"), client)
        assert json.loads(refused)["rejected"][0]["reason"] == "too_many"


def test_a_body_that_is_no_json_is_the_publishers_mistake(root: Path) -> None:
    with running(root) as app, pytest.raises(BadInputError):
        app.publish(b"{", Client(PUBLISHER, frozenset()))


def test_a_signal_that_cannot_be_kept_is_not_taken(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(root) as app:
        with monkeypatch.context() as patch:

            def append(_self: SqliteStore, _changes: object) -> None:
                raise StateError("the disk is full")

            patch.setattr(SqliteStore, "append", append)
            with pytest.raises(StateError):
                app.publish(signal_body(), Client(PUBLISHER, frozenset()))
        assert all(found.get("state") != "fresh" for found in json.loads(app.signals(None, 10))["signals"])
        assert b"signalwarden_state_failures_total" in app.metrics_text()[0]


def test_only_a_good_token_authenticates(root: Path) -> None:
    with running(root) as app:
        publisher = app.authenticate(TOKENS["publisher"])
        assert publisher == Client(PUBLISHER, frozenset({Right.PUBLISH}))
        assert not publisher.has(Right.READ)
        operator = app.authenticate(TOKENS["operator"])
        assert operator is not None
        assert operator.has(Right.READ)
        assert app.authenticate(TOKENS["old"]) is None
        assert app.authenticate(b"guess") is None
        assert app.authenticate(b"") is None
    refused = [record for record in records(root) if record.get("change") == "client_refused"]
    assert [record["client"] for record in refused] == ["spiffe://prod.example/old", None, None]
    assert not any(token.decode() in (root / "var/decisions.jsonl").read_text() for token in TOKENS.values())


def test_a_flood_of_bad_tokens_does_not_flood_the_log(root: Path) -> None:
    with running(root) as app:
        started = time.monotonic()
        for _ in range(1_000):
            app.authenticate(b"guess")
        seconds = time.monotonic() - started
        numbers, _ = app.metrics_text()
    assert changes(root).count("client_refused") <= REFUSALS_A_SECOND * (seconds + 2)
    assert b"signalwarden_clients_refused_total 1000.0" in numbers


def test_a_reload_puts_a_changed_directory_in_force(root: Path) -> None:
    with running(root) as app:
        before = app.readiness().detail["revision"]
        (root / "policies/more.cedar").write_text(
            'forbid (principal == Workload::"spiffe://prod.example/x", action == Action::"page.read", resource);\n'
        )
        after = app.reload("spiffe://prod.example/operator")
        assert after != before
        assert app.readiness().detail["revision"] == after
    loaded = [record for record in records(root) if record.get("change") == "configuration_loaded"]
    assert (loaded[1]["previous"], loaded[1]["revision"]) == (before, after)
    assert loaded[1]["actor"] == "spiffe://prod.example/operator"
    assert loaded[1]["difference"]["policies"]["added"]


def test_a_bad_reload_changes_nothing_and_is_reported(root: Path) -> None:
    with running(root) as app:
        before = app.readiness().detail["revision"]
        (root / "routes.yaml").write_text("ruotes: []\n")
        with pytest.raises(ConfigurationError):
            app.reload("test")
        readiness = app.readiness()
        assert readiness.ready
        assert readiness.detail["revision"] == before
        assert readiness.detail["last_reload_refused"]["findings"]
        assert app.authenticate(TOKENS["publisher"]) is not None
    assert "configuration_refused" in changes(root)


def test_a_reload_that_needs_a_restart_says_so(root: Path) -> None:
    with running(root) as app:
        settings = root / "signalwarden.yaml"
        settings.write_text(settings.read_text() + "decision_log: {influence: all}\n")
        with pytest.raises(ConfigurationError, match="`decision_log` changes only with a restart"):
            app.reload("test")


def test_clients_change_with_a_reload(root: Path) -> None:
    with running(root) as app:
        settings = root / "signalwarden.yaml"
        digest = hashlib.sha256(TOKENS["publisher"]).hexdigest()
        settings.write_text(settings.read_text().replace(digest, "0" * 64))
        app.reload("test")
        assert app.authenticate(TOKENS["publisher"]) is None


@pytest.mark.usefixtures("front")
def test_calls_that_never_reach_check_are_transport_records(
    root: Path, eventually: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signalwarden.app.TICK_S", 0.05)
    with running(root) as app:
        with pytest.raises(grpc.RpcError):
            check(app, b"x" * (MAX_REQUEST_BYTES + 1))
        with pytest.raises(grpc.RpcError):
            check(app, method=f"/{CHECK_SERVICE}/Other")
        for event in ("undelivered", "unknown_method"):
            shown = f'transport_refused_total{{event="{event}"}} 1.0'.encode()
            eventually(lambda shown=shown: shown in app.metrics_text()[0])
    found = [record for record in records(root) if record["kind"] == "transport"]
    assert sorted((record["transport"], record["count"]) for record in found) == [
        ("undelivered", 1),
        ("unknown_method", 1),
    ]


def test_metrics_come_from_the_core_and_the_writer(root: Path) -> None:
    with running(root) as app:
        check(app, b"\xff\xff")
        text, kind = app.metrics_text()
    assert kind.startswith("text/plain")
    for name in (
        "signalwarden_decisions_total{reason=",
        "signalwarden_log_healthy 1.0",
        "signalwarden_ready 1.0",
        "signalwarden_live_signals",
        "signalwarden_configuration{revision=",
    ):
        assert name.encode() in text


def broken(root: Path, kind: str) -> None:
    """Breaks a directory in one way."""
    settings = root / "signalwarden.yaml"
    match kind:
        case "configuration":
            (root / "routes.yaml").unlink()
        case "state":
            (root / "var").mkdir()
            (root / "var/state.db").mkdir()
        case "log":
            (root / "var/decisions.jsonl").mkdir(parents=True)
        case "port":
            settings.write_text(settings.read_text().replace('admin: "127.0.0.1:0"', f'admin: "{kind}"'))


@pytest.mark.parametrize(
    ("kind", "error"), [("configuration", ConfigurationError), ("state", StateError), ("log", LogError)]
)
def test_a_failed_start_leaves_nothing_open(root: Path, kind: str, error: type[SignalwardenError]) -> None:
    broken(root, kind)
    for _ in range(2):
        with pytest.raises(error) as caught:
            App(root).start()
        assert "in use" not in str(caught.value)


def test_a_port_in_use_is_one_sentence_and_gives_everything_back(root: Path, tmp_path: Path) -> None:
    with running(root) as app:
        other = tmp_path / "other"
        text = (root / "signalwarden.yaml").read_text()
        for name in ("routes.yaml", "signals.yaml", "entities.cedarschema", "entities.json"):
            other.mkdir(exist_ok=True)
            (other / name).write_text((root / name).read_text())
        (other / "policies").mkdir()
        for door, address in (("check", app.check_address), ("admin", app.admin_address)):
            (other / "signalwarden.yaml").write_text(
                text.replace(f'{door}: "127.0.0.1:0"', f'{door}: "{address}"')
            )
            with pytest.raises(ServerError, match="is in use"):
                App(other).start()
    SqliteStore(other / "var/state.db").close()
    assert changes(other)[-1] == "server_stopped"


def test_a_second_server_on_the_state_is_refused(root: Path) -> None:
    with running(root), pytest.raises(StateError, match=f"in use by process {os.getpid()}"):
        App(root).start()


SERVE = """\
import logging, sys
from signalwarden.app import App
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
App(sys.argv[1]).run_forever()
"""


@contextmanager
def served(root: Path) -> Iterator[subprocess.Popen[str]]:
    """A server in a process of its own, once its doors are open."""
    command = [sys.executable, "-u", "-c", SERVE, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            for line in server.stdout:
                if line.startswith("check on"):
                    break
            yield server
        finally:
            server.kill()


def test_signals_in_the_midst_of_signals_are_all_heard(root: Path) -> None:
    """A handler that waits for a lock which its own thread holds would hang here within a few rounds."""
    with served(root) as server:
        for _ in range(2_000):
            server.send_signal(signal.SIGHUP)
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=TIMEOUT_S)
        assert server.returncode == 0


def test_sighup_reloads_and_sigterm_ends_in_order(root: Path) -> None:
    with served(root) as server:
        assert server.stdout is not None
        server.send_signal(signal.SIGHUP)
        assert "in force, by SIGHUP" in server.stdout.readline()
        server.send_signal(signal.SIGTERM)
        assert server.wait(TIMEOUT_S) == 0
    assert changes(root) == [
        "log_key_made",
        "server_started",
        "configuration_loaded",
        "configuration_loaded",
        "server_stopped",
    ]
