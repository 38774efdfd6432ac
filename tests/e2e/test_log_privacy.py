"""Planted secrets stand nowhere: not in the log and its sinks, nor in what the server prints, counts, answers or keeps beside it."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from signalwarden.server import CHECK_METHOD
from tests import asking
from tests.callers import clients, token_of
from tests.collector import Collector, collecting
from tests.conftest import MINIMAL
from tests.log_service import LogService, serving_logs
from tests.log_stage import READER, Server, serving, until
from tests.minting import AUDIENCE, ISSUER, Issuer
from tests.transmitter import Key, key_set

FEED = "spiffe://prod.example/feed"
ORCHESTRATOR = "spiffe://prod.example/orchestrator"
AGENT = "spiffe://prod.example/oauth/agent-7"
SINK_CREDENTIALS = {
    "otlp": "planted-otlp-credential-1f0a",
    "http": "planted-http-credential-2e1b",
    "ocsf": "planted-ocsf-credential-3d2c",
}
SECRETS = {
    "cookie": "planted-cookie-4c3d",
    "key in a header": "planted-api-key-5b4e",
    "query string": "planted-query-6a5f",
    "body": "planted-body-7960",
    "secret signal": "planted-posture-8871",
    "secret signal of a header": "planted-purpose-9782",
    "token nobody knows": "planted-unknown-token-a693",
    "refused signal": "planted-refused-b5a4",
    "parameter of a path": "planted-person-c4b5",
    "argument": "planted-iban-d3c6",
    **{f"credential of the sink {name}": secret for name, secret in SINK_CREDENTIALS.items()},
}
CONTRACT = "description: d, owner: o@x, purpose: p, review_by: 2099-01-01"
FILES = {
    "routes.yaml": """\
routes:
  - match: {host: "pages.example", method: POST, path: "/home"}
    action: page.read
    resource: {type: Page, id: "home"}
    args: {query: {dry_run: bool?}, body: {amount: {pointer: /amount, type: long}, iban: {pointer: /iban, type: string}}}
    system: pages
    tier: runtime
    sensitivity: high
  - match: {host: "pages.example", method: GET, path: "/notes/{id}"}
    action: note.read
    resource: {type: Page, id: "{id}"}
    system: notes
    tier: jit
    sensitivity: low
  - match: {host: "pages.example", method: GET, path: "/people/{person}"}
    action: person.read
    resource: {type: Page, id: "{person}"}
    system: people
    tier: runtime
    sensitivity: low
default: deny
""",
    "signals.yaml": f"""\
signals:
  posture: {{type: string, subject: global, max_age: 1h, influence: grant, sensitivity: secret, used_by: [page.read], {CONTRACT},
    sources: [{{kind: push, publisher: "{FEED}", assurance: authoritative}}]}}
  score: {{type: long, subject: global, max_age: 1h, influence: grant, used_by: [page.read], {CONTRACT},
    sources: [{{kind: push, publisher: "{FEED}", assurance: authoritative}}]}}
  purpose: {{type: string, subject: request, influence: restrict, sensitivity: secret, used_by: [page.read], {CONTRACT},
    sources: [{{kind: header, header: x-purpose, assurance: self_asserted}}]}}
""",
    "policies/pages.cedar": f"""\
permit (principal, action == Action::"page.read", resource)
  when {{ context.signals has posture && context.signals.posture == "{SECRETS["secret signal"]}" }};
forbid (principal, action == Action::"page.read", resource)
  when {{ context.signals has purpose && context.signals.purpose == "wrong" }};
forbid (principal, action == Action::"page.read", resource)
  when {{ context.signals has score && context.signals.score > 5 }};
permit (principal, action == Action::"note.read", resource);
permit (principal, action == Action::"person.read", resource);
permit (principal, action == Action::"task.begin", resource);
""",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "conf"
    for name, text in (MINIMAL | FILES).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name, secret in SINK_CREDENTIALS.items():
        (root / f"{name}.headers").write_text(f"authorization: Bearer {secret}\n")
    return root


def settings(root: Path, log: Mapping[str, Any], issuer: Issuer) -> None:
    (root / "login.jwks.json").write_bytes(key_set(issuer.key))
    entry = {
        "issuer": ISSUER, "audience": [AUDIENCE], "keys": {"file": "login.jwks.json"},
        "principal": "spiffe://prod.example/oauth/{client_id}",
    }  # fmt: skip
    who = clients({READER: "read, operate", FEED: "publish", ORCHESTRATOR: "tasks"})
    document = {"identity": {"sources": ["oauth", "envoy_peer"], "oauth": [entry]}, "decision_log": log}
    lines = [f"{key}: {json.dumps(value)}\n" for key, value in document.items()]
    (root / "signalwarden.yaml").write_text(MINIMAL["signalwarden.yaml"] + who + "".join(lines))


class Caller:
    """Asks the server for all that secrets are part of, and keeps those that it learns."""

    def __init__(self, server: Server, issuer: Issuer) -> None:
        self._server = server
        self._issuer = issuer
        self.secrets: dict[str, str] = dict(SECRETS)
        self.reasons: list[str] = []

    def admin(self, method: str, path: str, who: str, **more: Any) -> httpx.Response:
        token = self.secrets.setdefault(f"token of {who}", token_of(who)) if who.startswith("spiffe") else who
        headers = {"authorization": f"Bearer {token}"}
        url = f"http://{self._server.admin}{path}"
        return httpx.request(method, url, headers=headers, timeout=20, trust_env=False, **more)

    def publish(self, name: str, value: object) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        signal = {"name": name, "subject": "*", "value": value, "observed_at": now}
        assert self.admin("POST", "/v1/signals", FEED, json={"signals": [signal]}).status_code == 200

    def check(self, method: str = "POST", path: str = "/home", **headers: str) -> None:
        token = self._issuer.token(int(time.time())).decode()
        self.token("access token", token)
        given = {
            "authorization": f"Bearer {token}",
            "cookie": f"session={SECRETS['cookie']}",
            "x-api-key": SECRETS["key in a header"],
            "x-purpose": SECRETS["secret signal of a header"],
            "content-type": "application/json",
            **headers,
        }
        body = (
            json.dumps({"amount": 3, "card": SECRETS["body"], "iban": SECRETS["argument"]}).encode()
            if method == "POST"
            else None
        )
        request = asking.check_request(method, path=path, principal="", headers=given, body=body)
        with grpc.insecure_channel(self._server.check) as channel:
            call = channel.unary_unary(CHECK_METHOD, bytes, bytes)
            self.reasons.append(asking.reason_of(bytes(call(bytes(request), timeout=20))))

    def token(self, what: str, token: str) -> None:
        """The whole of it, and its signature alone."""
        self.secrets[f"{what} {len(self.secrets)}"] = token
        self.secrets[f"signature of {what} {len(self.secrets)}"] = token.rpartition(".")[2]

    def everything(self) -> None:
        """Good and bad calls."""
        self.publish("posture", SECRETS["secret signal"])
        self.publish("score", SECRETS["refused signal"])  # of the wrong type
        self.check()
        self.check(path=f"/home?access_token={SECRETS['query string']}")
        self.check(path=f"/nowhere?access_token={SECRETS['query string']}")
        self.check("GET", f"/people/{SECRETS['parameter of a path']}")
        self.check("GET", f"/nobody/{SECRETS['parameter of a path']}")
        self.check(**{"x-purpose": "wrong"})
        stranger = Issuer(Key.make("ES256")).token(int(time.time())).decode()
        self.token("token of a stranger", stranger)
        self.check(authorization=f"Bearer {stranger}")
        self.check(authorization=f"Bearer {SECRETS['token nobody knows']}")
        asked = {"principal": AGENT, "type": "t", "actions": ["note.read"], "resources": ["Page::*"]}
        begun = self.admin("POST", "/v1/tasks", ORCHESTRATOR, json=asked)
        assert begun.status_code == 201, begun.text
        self.token("grant", begun.json()["grant"])
        grant = {"x-signalwarden-grant": begun.json()["grant"]}
        self.check("GET", "/notes/1", **grant)
        self.admin("POST", f"/v1/tasks/{begun.json()['task_id']}/revoke", ORCHESTRATOR)
        self.check("GET", "/notes/1", **grant)
        self.check("GET", "/notes/1", **{"x-signalwarden-grant": SECRETS["token nobody knows"]})
        assert self.admin("GET", "/metrics", SECRETS["token nobody knows"]).status_code == 401
        assert self.admin("POST", "/v1/reload", FEED).status_code == 403


def verb(root: Path, *arguments: str) -> bytes:
    command = [sys.executable, "-m", "signalwarden.cli", *arguments, "--config", str(root)]
    ran = subprocess.run(command, capture_output=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout + ran.stderr


def kept(root: Path) -> dict[str, bytes]:
    """Every file that the server made, but for its state, which has to know what signals say, and its keys."""
    files = (file for file in (root / "var").rglob("*") if file.is_file())
    names = [file for file in files if "keys" not in file.parts and not file.name.startswith("state.db")]
    return {
        file.name: gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        for file in names
    }


def told(server: Server) -> dict[str, bytes]:
    pages = ("/readyz", "/metrics", "/v1/signals", "/v1/register", "/v1/tasks", "/v1/publishers")
    found = {page: server.get(page) for page in pages}
    assert {page: answer.status_code for page, answer in found.items()} == dict.fromkeys(pages, 200)
    return {page: answer.content for page, answer in found.items()}


def test_planted_secrets_stand_in_no_sink_file_page_or_output(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGNALWARDEN_DEBUG", "1")
    issuer, opa, ocsf = Issuer(), LogService(status=401), LogService()
    collector = Collector(refuses=grpc.StatusCode.UNAUTHENTICATED)
    with collecting(collector=collector), serving_logs(opa), serving_logs(ocsf):
        endpoint = f"http://127.0.0.1:{collector.port}"
        sinks = [
            {"kind": "stdout"},
            {"kind": "otlp", "endpoint": endpoint, "headers_file": "otlp.headers"},
            {"kind": "http", "url": f"{opa.url}?t=1", "headers_file": "http.headers"},
            {
                "kind": "http",
                "name": "ocsf",
                "url": ocsf.url,
                "format": "ocsf",
                "headers_file": "ocsf.headers",
            },
        ]
        log = {"rotate_bytes": 65_536, "compress": True, "sinks": sinks, "influence": "all"}
        settings(root, log | {"redact": {"path_parameters": ["person"], "args": ["iban"]}}, issuer)
        stdout = tmp_path / "stdout"
        with stdout.open("wb") as out, serving(root, backoff_s=0.5, stdout=out) as server:
            caller = Caller(server, issuer)
            caller.everything()
            assert until(lambda: server.sink("otlp")["last_error"] and server.sink("http")["last_error"])
            (root / "ocsf.headers").write_text(f"authorization {SINK_CREDENTIALS['ocsf']}\n")  # damaged
            caller.check()
            assert until(lambda: server.sink("ocsf")["last_error"])
            places = {f"while sinks fail: {page}": text for page, text in told(server).items()}
            (root / "ocsf.headers").write_text(f"authorization: Bearer {SINK_CREDENTIALS['ocsf']}\n")
            collector.refuses, opa.status = None, 200
            caller.everything()
            for _ in range(60):  # until a file is rotated, and compressed
                caller.check()
            decisions = len(caller.reasons) + 2  # those on tasks
            assert until(lambda: len(opa.events()) == len(ocsf.events()) == decisions)
            assert until(lambda: len(collector.records()) > decisions)
            assert until(lambda: any(name.endswith(".gz") for name in kept(root)))
            places |= told(server)
            assert server.stop() == 0
    places |= {"opa": json.dumps(opa.events()).encode(), "ocsf": json.dumps(ocsf.events()).encode()}
    places["otlp"] = b"".join(request.SerializeToString() for request in collector.logs)
    places |= {"stdout": stdout.read_bytes(), "stderr": server.stderr.read_bytes(), **kept(root)}
    places |= {
        f"export {name}": verb(root, "log", "export", "--format", name) for name in ("jsonl", "opa", "ocsf")
    }
    places["tail"] = verb(root, "log", "tail", "-n", "1000")
    found = [
        f"{what} in {place}"
        for what, secret in caller.secrets.items()
        for place, text in places.items()
        if secret.encode() in text
    ]
    # The search finds what is there: every sink has the decisions, and the sinks were given their credentials.
    assert {"allowed", "policy_denied", "token_invalid", "grant_revoked", "route_unknown"} <= set(
        caller.reasons
    )
    for place in ("opa", "ocsf", "otlp", "stdout", "export jsonl", "tail"):
        assert b"grant_revoked" in places[place], place
    assert {service.asked[-1]["authorization"] for service in (opa, ocsf)} == {
        f"Bearer {SINK_CREDENTIALS[name]}" for name in ("http", "ocsf")
    }
    assert collector.headers[-1]["authorization"] == f"Bearer {SINK_CREDENTIALS['otlp']}"
    assert b"hmac-sha256:" in places["opa"]
    assert {"decisions.jsonl", "decisions.ring", "decisions.otlp.cursor", "decisions.number"} <= set(places)
    assert found == []
