"""Policies that were written for OPA's Envoy plugin, through the real Envoy as it stands before them, at both front doors."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from signalwarden import starter
from signalwarden.demo_stage import LOOPBACK, Process, free_port, start_server, wait_for
from tests import fronts
from tests.e2e.conftest import RunningEnvoy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Roles of users, by the name in HTTP's basic authentication: the plugin's quick start does so.
ROLES = """
package envoy.authz

import input.attributes.request.http as http_request

default allow := false

allow if {
	some role in roles_of[user]
	some permission in permissions[role]
	permission.method == http_request.method
	permission.path == http_request.path
}

user := name if {
	[_, encoded] := split(http_request.headers.authorization, " ")
	[name, _] := split(base64url.decode(encoded), ":")
}

roles_of := {"alice": ["guest"], "bob": ["admin"]}

permissions := {
	"guest": [{"method": "GET", "path": "/productpage"}],
	"admin": [{"method": "GET", "path": "/productpage"}, {"method": "GET", "path": "/api/v1/products"}],
}
"""
# A token that the policy verifies itself, and a body that it compares with it.
PEOPLE = """
package envoy.authz

import input.attributes.request.http as http_request

default allow := false

allow if {
	is_token_valid
	action_allowed
}

is_token_valid if {
	token.valid
	now := time.now_ns() / 1000000000
	token.payload.nbf <= now
	now < token.payload.exp
}

action_allowed if {
	http_request.method == "GET"
	token.payload.role in {"guest", "admin"}
	glob.match("/people", ["/"], http_request.path)
}

action_allowed if {
	http_request.method == "POST"
	token.payload.role == "admin"
	glob.match("/people", ["/"], http_request.path)
	lower(input.parsed_body.firstname) != base64url.decode(token.payload.sub)
}

token := {"valid": valid, "payload": payload} if {
	[_, encoded] := split(http_request.headers.authorization, " ")
	[valid, _, payload] := io.jwt.decode_verify(encoded, {"secret": "secret"})
}
"""
# Bodies of every kind, and an answer that is more than yes or no.
BODIES = """
package envoy.authz

import input.attributes.request.http as http

default allow := false

allow if input.parsed_path == ["small"]

allow if {
	input.parsed_path == ["order"]
	input.parsed_body.amount <= 100
	input.parsed_query.currency == ["EUR"]
}

allow if input.parsed_body.kind == ["form"]

headers["x-validated-by"] := "checkpoint" if allow

headers["x-why"] := "too much" if not allow

request_headers_to_remove := ["x-secret"]

response_headers_to_add["x-seen"] := http.method

status_code := 422 if input.truncated_body else := 402

body := sprintf("not %v", [http.path])

query_parameters_to_set := {"checked": ["no", "yes"]}

result["allowed"] := allow

result["headers"] := headers

result["request_headers_to_remove"] := request_headers_to_remove

result["response_headers_to_add"] := response_headers_to_add

result["http_status"] := status_code

result["body"] := body

result["query_parameters_to_set"] := query_parameters_to_set
"""


@dataclass
class Guarded:
    """A directory around a policy, served, behind an Envoy of its own configuration."""

    directory: Path
    admin_port: int
    envoy: RunningEnvoy
    process: Process

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        # Without a certificate: nobody is known here.
        with self.envoy.client(None) as client:
            return client.request(method, path, **options)

    def record(self, decision_id: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = []

        def written() -> bool:
            lines = (self.directory / "var/decisions.jsonl").read_text().splitlines()
            found[:] = [line for line in map(json.loads, lines) if line.get("decision_id") == decision_id]
            return bool(found)

        wait_for(f"the record of `{decision_id}`", written, 15)
        return found[-1]


@pytest.fixture(scope="module")
def guard(
    front: str,
    run_envoy: Callable[..., RunningEnvoy],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[str], Guarded]]:
    """Serves a policy; each one once for a front door."""
    running: dict[str, Guarded] = {}

    def serve(policy: str) -> Guarded:
        if policy in running:
            return running[policy]
        base = tmp_path_factory.mktemp("opa")
        (base / "policy.rego").write_text(policy)
        directory = starter.create_opa(
            base / "guard", [base / "policy.rego"], now=datetime.now(UTC)
        ).directory
        check, admin = free_port(), free_port()
        settings = directory / "signalwarden.yaml"
        text = settings.read_text().replace("127.0.0.1:9191", f"{LOOPBACK}:{check}")
        settings.write_text(text.replace("127.0.0.1:9292", f"{LOOPBACK}:{admin}"))
        fronts.choose(directory, front)
        process = start_server(directory, admin, base / "serve.log")
        envoy = run_envoy(directory, max_body_bytes=1024)
        running[policy] = Guarded(directory, admin, envoy, process)
        return running[policy]

    yield serve
    for guarded in running.values():
        guarded.process.stop()


def basic(user: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{user}:password".encode()).decode()}


def bearer(role: str, name: str, secret: str = "secret") -> dict[str, str]:
    """A token as the plugin's own tutorial has it: HS256, and the name within it encoded once more."""
    now = int(time.time())
    claims = {"role": role, "sub": encoded(name.encode(), pad=True), "nbf": now - 60, "exp": now + 600}
    header = {"alg": "HS256", "typ": "JWT"}
    signed = ".".join(encoded(json.dumps(part).encode()) for part in (header, claims))
    signature = hmac.digest(secret.encode(), signed.encode(), hashlib.sha256)
    return {"authorization": f"Bearer {signed}.{encoded(signature)}"}


def encoded(content: bytes, *, pad: bool = False) -> str:
    text = base64.urlsafe_b64encode(content).decode()
    return text if pad else text.rstrip("=")


def test_a_policy_about_roles_runs_as_it_is(guard: Callable[[str], Guarded]) -> None:
    guarded = guard(ROLES)
    cases = [
        ("alice", "/productpage", 200),
        ("alice", "/api/v1/products", 403),
        ("bob", "/productpage", 200),
        ("bob", "/api/v1/products", 200),
        ("eve", "/productpage", 403),
    ]
    for user, path, status in cases:
        assert guarded.call("GET", path, headers=basic(user)).status_code == status, (user, path)
    assert guarded.call("GET", "/productpage").status_code == 403


def test_a_policy_that_verifies_a_token_and_reads_a_body_runs_as_it_is(
    guard: Callable[[str], Guarded],
) -> None:
    guarded = guard(PEOPLE)
    alice, bob = bearer("guest", "alice"), bearer("admin", "bob")
    assert guarded.call("GET", "/people", headers=alice).status_code == 200
    assert guarded.call("GET", "/people", headers=bob).status_code == 200
    assert guarded.call("GET", "/people", headers=bearer("admin", "bob", "another")).status_code == 403
    assert guarded.call("GET", "/people").status_code == 403
    person = {"firstname": "Foo", "lastname": "Bar"}
    assert guarded.call("POST", "/people", headers=alice, json=person).status_code == 403
    assert guarded.call("POST", "/people", headers=bob, json=person).status_code == 200
    assert guarded.call("POST", "/people", headers=bob, json={"firstname": "Bob"}).status_code == 403


def test_answers_of_a_policy_reach_client_and_upstream(guard: Callable[[str], Guarded]) -> None:
    guarded = guard(BODIES)
    forged = {
        "x-secret": "s",
        "x-signalwarden-principal": "spiffe://prod.example/forged",
        "x-validated-by": "me",
    }
    allowed = guarded.call("POST", "/order?currency=EUR", json={"amount": 7}, headers=forged)
    assert allowed.status_code == 200
    assert allowed.headers["x-seen"] == "POST"
    upstream = allowed.json()
    assert upstream["path"] == "/order?checked=yes&currency=EUR"
    seen = dict(upstream["headers"])
    assert seen["x-validated-by"] == "checkpoint"
    assert not {"x-secret", "x-signalwarden-principal"} & seen.keys()
    record = guarded.record(seen["x-signalwarden-decision-id"])
    assert "principal" not in record
    assert record["policies"]["engine"] == "opa_envoy"

    denied = guarded.call("POST", "/order?currency=EUR", json={"amount": 700})
    assert (denied.status_code, denied.text) == (402, "not /order?currency=EUR")
    assert denied.headers["x-why"] == "too much"

    parts = {"kind": (None, "form")}
    assert guarded.call("POST", "/any", files=parts).status_code == 200
    assert guarded.call("POST", "/any", data={"kind": "form"}).status_code == 200
    assert guarded.call("POST", "/any", json={"kind": ["x" * 4096]}).status_code == 422
    assert guarded.call("POST", "/small", json={"kind": ["x" * 4096]}).status_code == 200


def test_what_can_not_be_parsed_is_denied_with_a_record_that_holds_nothing_of_it(
    guard: Callable[[str], Guarded],
) -> None:
    guarded = guard(BODIES)
    secret = "a-secret-that-no-log-may-have"
    headers = {"content-type": "application/json", "authorization": f"Bearer {secret}"}
    denied = guarded.call("POST", f"/order?token={secret}", content=f'{{"{secret}', headers=headers)
    assert denied.status_code == 400
    record = guarded.record(denied.headers["x-signalwarden-decision-id"])
    assert record["reason"] == "malformed_request"
    assert record["policies"]["engine"] == "opa_envoy"
    assert record["policies"]["asked"] is False
    guarded.call("POST", f"/small?token={secret}", json={"kind": secret}, headers={"cookie": secret})
    time.sleep(1)
    written = [path for path in guarded.directory.parent.rglob("*") if path.is_file()]
    assert not [path.name for path in written if secret.encode() in path.read_bytes()]


def test_readiness_says_that_nothing_is_governed(guard: Callable[[str], Guarded]) -> None:
    guarded = guard(ROLES)
    answer = httpx.get(f"http://{LOOPBACK}:{guarded.admin_port}/readyz", timeout=10, trust_env=False)
    assert answer.status_code == 200
    assert "opa_envoy" in answer.json()["ungoverned"]
