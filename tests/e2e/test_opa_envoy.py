"""Policies that were written for OPA's Envoy plugin, through the real Envoy as it stands before them, at both front doors."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest

from signalwarden import starter
from signalwarden.demo_stage import LOOPBACK, Process, free_port, start_server, wait_for
from tests import fronts, paying
from tests.e2e.conftest import RunningEnvoy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LIMIT = 1024
"""The most of a body that Envoy sends to the check."""
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
# The policy that the page shows for a service of gRPC; it says of a message that it was cut off, and an auditor needs no message.
PAYMENTS = f"""{paying.POLICY}
allow if input.attributes.request.http.headers["x-caller"] == "auditor"

result["allowed"] := allow

result["headers"] := {{"x-seen": seen}}

result["body"] := seen

seen := "a part" if input.truncated_body else := "the whole"
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
) -> Iterator[Callable[..., Guarded]]:
    """Serves a policy, with a descriptor set if there is one; each one once for a front door."""
    running: dict[str, Guarded] = {}

    def serve(policy: str, descriptors: bytes | None = None, **options: Any) -> Guarded:
        if policy in running:
            return running[policy]
        base = tmp_path_factory.mktemp("opa")
        source = base / "source"
        source.mkdir()
        (source / "policy.rego").write_text(policy)
        if descriptors is not None:
            (source / "protos.pb").write_bytes(descriptors)
        directory = starter.create_opa(base / "guard", [source], now=datetime.now(UTC)).directory
        check, admin = free_port(), free_port()
        settings = directory / "signalwarden.yaml"
        text = settings.read_text().replace("127.0.0.1:9191", f"{LOOPBACK}:{check}")
        settings.write_text(text.replace("127.0.0.1:9292", f"{LOOPBACK}:{admin}"))
        fronts.choose(directory, front)
        process = start_server(directory, admin, base / "serve.log")
        envoy = run_envoy(directory, max_body_bytes=LIMIT, **options)
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


# ---- bodies of gRPC ---------------------------------------------------------------------------------------


@dataclass
class Paid:
    """The page's service behind its guard, and a client that calls it."""

    guarded: Guarded
    payments: paying.Payments
    channel: grpc.Channel

    def call(self, message: bytes, **options: Any) -> paying.Answer:
        self.payments.sent.clear()
        return paying.call(self.channel, message, **options)

    def denied(self, message: bytes, **options: Any) -> tuple[paying.Answer, dict[str, Any]]:
        """The answer of a call that never reaches the service, and its record."""
        answer = self.call(message, **options)
        assert self.payments.sent == []
        return answer, self.guarded.record(answer.metadata["x-signalwarden-decision-id"])


@pytest.fixture(scope="module")
def paid(guard: Callable[..., Guarded]) -> Iterator[Paid]:
    with paying.serving() as payments:
        guarded = guard(PAYMENTS, paying.DESCRIPTORS, upstream=(LOOPBACK, payments.port))
        trusted = grpc.ssl_channel_credentials(guarded.envoy.stage.authority.bundle.read_bytes())
        address, options = f"localhost:{guarded.envoy.port}", [("grpc.enable_http_proxy", 0)]
        with grpc.secure_channel(address, trusted, options) as channel:
            yield Paid(guarded, payments, channel)


def test_a_message_of_grpc_is_decided_about_by_its_fields(paid: Paid) -> None:
    allowed = paid.call(paying.transfer(account_id="EU-1", cents=100_000, note="rent"))
    assert (allowed.code, allowed.text) == (grpc.StatusCode.OK, "receipt of 100000")
    [(message, metadata)] = paid.payments.sent
    assert (message.account_id, message.cents, message.note) == ("EU-1", 100_000, "rent")
    record = paid.guarded.record(metadata["x-signalwarden-decision-id"])
    assert (record["reason"], record["policies"]["engine"]) == ("allowed", "opa_envoy")
    for message in (
        paying.transfer(account_id="EU-1", cents=100_001),
        paying.transfer(account_id="US-1", cents=1),
        # A field that has its default value is not there.
        paying.transfer(account_id="EU-1", cents=0),
    ):
        denied, record = paid.denied(message)
        assert (denied.code, denied.text) == (grpc.StatusCode.PERMISSION_DENIED, "the whole")
        assert denied.metadata["x-seen"] == "the whole"
        assert record["reason"] == "no_policy_permits"


def test_a_message_of_grpc_that_is_longer_than_the_limit_is_a_part_without_fields(paid: Paid) -> None:
    empty = len(paying.frame(paying.transfer(account_id="EU-1", cents=1, note="x" * 200))) - 200
    # The longest that Envoy takes for whole; one that is longer by a byte; much longer ones.
    fits = paying.transfer(account_id="EU-1", cents=1, note="x" * (LIMIT - empty))
    assert len(paying.frame(fits)) == LIMIT
    assert paid.call(fits).code == grpc.StatusCode.OK
    for more in (1, LIMIT, 100_000):
        longer = paying.transfer(account_id="EU-1", cents=1, note="x" * (LIMIT - empty + more))
        denied, record = paid.denied(longer)
        assert (denied.code, denied.text) == (grpc.StatusCode.PERMISSION_DENIED, "a part")
        assert denied.metadata["x-seen"] == "a part"
        assert record["reason"] == "no_policy_permits"


def test_a_long_message_of_grpc_that_is_allowed_by_something_else_arrives_whole(paid: Paid) -> None:
    note = "y" * 500_000
    allowed = paid.call(paying.transfer(cents=9, note=note), metadata=(("x-caller", "auditor"),))
    assert allowed.code == grpc.StatusCode.OK
    [(message, metadata)] = paid.payments.sent
    assert message.note == note
    # What an allow adds to the request.
    assert metadata["x-seen"] == "a part"


def test_a_client_that_streams_is_asked_about_before_its_stream_ends(paid: Paid) -> None:
    paid.payments.sent.clear()
    ended = threading.Event()
    # Each of them open when it is answered.
    allowed = paying.stream(paid.channel, paying.STREAMED, paying.transfer(cents=5), ended)
    denied = paying.stream(
        paid.channel, paying.STREAMED, paying.transfer(account_id="EU-1", cents=1), ended, "x"
    )
    assert allowed.result(15).id == "receipt of 5"
    # Nothing of a body is seen, so its fields don't allow it.
    assert (denied.code(), denied.details()) == (grpc.StatusCode.PERMISSION_DENIED, "the whole")
    ended.set()
    assert [message.cents for message, _ in paid.payments.sent] == [5]


def test_a_stream_to_a_method_that_takes_none_is_held_until_its_end_or_the_limit(paid: Paid) -> None:
    paid.payments.sent.clear()
    ended = threading.Event()
    held = paying.stream(paid.channel, paying.METHOD, paying.transfer(cents=3), ended)
    time.sleep(1)
    assert not held.done()
    assert paid.payments.sent == []
    ended.set()
    assert held.result(30).id == "receipt of 3"
    ended.clear()
    told = paying.stream(paid.channel, paying.METHOD, paying.transfer(cents=4, note="x" * LIMIT), ended)
    assert told.result(15).id == "receipt of 4"
    ended.set()


def test_of_a_compressed_message_of_grpc_nothing_is_seen(paid: Paid) -> None:
    message = paying.transfer(account_id="EU-1", cents=1, note="z" * 900)
    assert paid.call(message).code == grpc.StatusCode.OK
    denied, _ = paid.denied(message, compression=grpc.Compression.Gzip)
    assert (denied.code, denied.text) == (grpc.StatusCode.PERMISSION_DENIED, "the whole")


def test_what_is_no_message_of_its_method_is_denied_with_a_record(paid: Paid) -> None:
    denied, record = paid.denied(b"\xff\xff")
    assert denied.code == grpc.StatusCode.INTERNAL
    assert record["reason"] == "malformed_request"
    assert record["policies"]["asked"] is False
