"""Poll feeds through the whole: `signalwarden serve`, a real file and a real endpoint, and what is decided."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from tests import asking
from tests.conftest import Eventually
from tests.endpoint import Endpoint, serving

COMMAND = [sys.executable, "-m", "signalwarden.cli"]
CHECK = "/envoy.service.auth.v3.Authorization/Check"
TOKEN = "token-of-the-operator"
FEED_TOKEN = "s3cr3t-t0ken"
MAX_AGE_S = 4
WITHIN_S = 15.0
"""Several intervals, and a busy machine."""

CONTRACT = f"""\
    type: bool
    description: Whether the page may be read
    owner: team-pages@prod.example
    purpose: Close pages that are being mended
    max_age: {MAX_AGE_S}s
    influence: grant
    review_by: 2099-01-01
"""
REGISTER = f"""\
feeds:
  from_file: {{kind: poll, file: feeds/pages.json, interval: 1s, jitter: 1ms, backoff: 1s}}
  from_http: {{kind: poll, url: "URL", interval: 1s, jitter: 1ms, backoff: 1s, token_file: keys/feed.token}}
signals:
  page_open:
{CONTRACT}    subject: resource
    used_by: [page.read]
    sources: [{{kind: poll, feed: from_file, assurance: authoritative}}]
  caller_ok:
{CONTRACT}    subject: principal
    used_by: [page.write]
    sources: [{{kind: poll, feed: from_http, assurance: sourced}}]
"""
ROUTES = """\
routes:
  - match: {host: "pages.example", method: GET, path: "/{id}"}
    action: page.read
    resource: {type: Page, id: "{id}"}
    system: pages
    tier: runtime
    sensitivity: low
  - match: {host: "pages.example", method: POST, path: "/{id}"}
    action: page.write
    resource: {type: Page, id: "{id}"}
    system: pages
    tier: runtime
    sensitivity: low
default: deny
"""
POLICIES = """\
permit (principal, action == Action::"page.read", resource)
when { context.signals has page_open && context.signals.page_open };
permit (principal, action == Action::"page.write", resource)
when { context.signals has caller_ok && context.signals.caller_ok };
"""


@dataclass
class Served:
    """A running server of a directory with two feeds."""

    root: Path
    check: str
    admin: httpx.Client

    def decided(self, method: str) -> str:
        """The reason of one decision, as Envoy is told it."""
        request = bytes(asking.check_request(method, path="/home"))
        with grpc.insecure_channel(self.check) as channel:
            return asking.reason_of(bytes(channel.unary_unary(CHECK, bytes, bytes)(request, timeout=10)))

    def feed(self, name: str) -> dict[str, Any]:
        """What readiness tells of a feed."""
        found: dict[str, Any] = self.admin.get("/readyz").json()["feeds"][name]
        return found

    def say(self, value: object, observed_at: str | None = None) -> None:
        """Writes the file of the feed anew, as a good writer does."""
        at = observed_at or datetime.now(UTC).isoformat()
        entry = {"name": "page_open", "subject": 'Page::"home"', "value": value, "observed_at": at}
        fresh = self.root / "feeds/pages.json.new"
        fresh.write_text(json.dumps({"signals": [entry]}))
        fresh.rename(self.root / "feeds/pages.json")


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving() as made:
        yield made


@pytest.fixture
def served(tmp_path: Path, endpoint: Endpoint) -> Iterator[Served]:
    root = tmp_path / "conf"
    check, admin = f"unix://{tmp_path}/check.sock", f"unix://{tmp_path}/admin.sock"
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    files = {
        "signalwarden.yaml": f'trust_domain: prod.example\nlisten: {{check: "{check}", admin: "{admin}"}}\n'
        f'clients: [{{id: "spiffe://prod.example/ops", may: [operate], token_sha256: "{digest}",'
        ' expires: "2099-01-01T00:00:00Z"}]\n',
        "routes.yaml": ROUTES,
        "signals.yaml": REGISTER.replace("URL", endpoint.url),
        "entities.cedarschema": "entity Workload;\nentity Page;\n",
        "entities.json": json.dumps(
            [{"uid": {"type": kind, "id": name}, "attrs": {}, "parents": []} for kind, name in ENTITIES]
        ),
        "policies/pages.cedar": POLICIES,
        "keys/feed.token": FEED_TOKEN + "\n",
        "feeds/README.md": "Documents of feeds.\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    said = tmp_path / "serve.log"
    log = said.open("wb")
    with log, subprocess.Popen([*COMMAND, "serve", "--config", str(root)], stderr=log, stdout=log) as process:
        transport = httpx.HTTPTransport(uds=f"{tmp_path}/admin.sock")
        headers = {"authorization": f"Bearer {TOKEN}"}
        try:
            with httpx.Client(
                transport=transport, base_url="http://server", headers=headers, timeout=10
            ) as client:
                wait_until(lambda: "check on" in said.read_text(), said)
                yield Served(root, check, client)
        finally:
            process.terminate()
            assert process.wait(20) == 0
    assert "Traceback" not in said.read_text()
    assert FEED_TOKEN not in said.read_text()


ENTITIES = [("Workload", asking.AGENT), ("Page", "home")]


def wait_until(holds: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def test_a_file_decides_goes_stale_with_its_writer_and_recovers(
    served: Served, eventually: Eventually
) -> None:
    assert served.decided("GET") == "signal_unavailable"
    assert "no such file" in served.feed("from_file")["last_error"]
    served.say(True)
    eventually(lambda: served.decided("GET") == "allowed", WITHIN_S)
    assert served.feed("from_file")["last_error"] is None
    served.say(False)
    eventually(lambda: served.decided("GET") == "no_policy_permits", WITHIN_S)
    # The writer stops. Its file can still be read, and says nothing new.
    eventually(lambda: served.decided("GET") == "signal_unavailable", MAX_AGE_S + WITHIN_S)
    assert served.feed("from_file")["last_error"] is None
    served.say(True)
    eventually(lambda: served.decided("GET") == "allowed", WITHIN_S)
    # Half a file is no word at all: what was known grows old.
    (served.root / "feeds/pages.json").write_text('{"signals": [{"name": "page_o')
    eventually(lambda: "cut off" in (served.feed("from_file")["last_error"] or ""), WITHIN_S)
    eventually(lambda: served.decided("GET") == "signal_unavailable", MAX_AGE_S + WITHIN_S)


def test_an_endpoint_decides_goes_stale_when_it_is_down_and_recovers(
    served: Served, endpoint: Endpoint, eventually: Eventually
) -> None:
    def say(value: bool) -> None:
        entry = {"name": "caller_ok", "subject": asking.AGENT, "value": value}  # no time: as of the fetch
        endpoint.body = json.dumps({"signals": [entry]}).encode()

    say(True)
    eventually(lambda: served.decided("POST") == "allowed", WITHIN_S)
    assert endpoint.asked[-1]["authorization"] == f"Bearer {FEED_TOKEN}"
    time.sleep(MAX_AGE_S + 1)
    assert served.decided("POST") == "allowed"  # each fetch is an observation
    say(False)
    eventually(lambda: served.decided("POST") == "no_policy_permits", WITHIN_S)
    say(True)
    eventually(lambda: served.decided("POST") == "allowed", WITHIN_S)
    endpoint.status = 503
    eventually(lambda: served.decided("POST") == "signal_unavailable", MAX_AGE_S + WITHIN_S)
    feed = served.feed("from_http")
    assert (feed["running"], feed["last_error"]) == (
        True,
        "the endpoint answered with status 503, expected 200",
    )
    assert served.admin.get("/readyz").status_code == 200
    endpoint.status = 200
    eventually(lambda: served.decided("POST") == "allowed", WITHIN_S)
    metrics = served.admin.get("/metrics").text
    for name in ("feed_batches_total", "feed_failures_total", "feed_last_success_timestamp_seconds"):
        assert f'signalwarden_{name}{{feed="from_http"}} ' in metrics


def test_a_record_names_the_feed(served: Served, endpoint: Endpoint, eventually: Eventually) -> None:
    served.say(True)
    eventually(lambda: served.decided("GET") == "allowed", WITHIN_S)
    log = served.root / "var/decisions.jsonl"
    eventually(lambda: '"allowed"' in log.read_text(), WITHIN_S)
    allowed = [
        line for line in map(json.loads, log.read_text().splitlines()) if line.get("reason") == "allowed"
    ]
    assert "poll:from_file" in json.dumps(allowed[-1]["signals"])


def test_feeds_follow_a_reload_and_those_it_does_not_touch_go_on(
    served: Served, endpoint: Endpoint, eventually: Eventually
) -> None:
    served.say(True)
    eventually(lambda: served.decided("GET") == "allowed", WITHIN_S)
    batches = served.feed("from_file")["batches"]
    register = served.root / "signals.yaml"
    before = served.admin.get("/readyz").json()["revision"]
    register.write_text(register.read_text().replace("token_file: keys/feed.token", "timeout: 1s"))
    assert served.admin.post("/v1/reload").status_code == 200
    assert served.admin.get("/readyz").json()["revision"] != before
    endpoint.asked.clear()
    eventually(lambda: endpoint.asked and "authorization" not in endpoint.asked[-1], WITHIN_S)
    assert served.feed("from_file")["batches"] == batches
    # A contract that is new to a feed wants its document, though that has not changed.
    register.write_text(register.read_text().replace("feed: from_http", "feed: from_file"))
    assert served.admin.post("/v1/reload").status_code == 200
    endpoint.asked.clear()
    eventually(lambda: served.feed("from_file")["batches"] == 1, WITHIN_S)
