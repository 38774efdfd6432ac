"""Signals that ride on the request, through the real Envoy: metadata that a filter wrote, the caller's address, the
route and the time decide what the contract lets them decide."""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256

from signalwarden.demo_stage import free_port, start_server
from tests.e2e.conftest import Product, RunningEnvoy, Stage, make_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx

REFUND = "/v1/accounts/42/refunds"
ISSUER = "https://idp.example"

SIGNALS = """
  tenant:
    type: string
    description: The tenant of the token that Envoy verified
    owner: team-identity@prod.example
    purpose: Refunds for one's own tenant alone
    subject: request
    sources:
      - kind: envoy_metadata
        namespace: envoy.filters.http.jwt_authn
        key: [jwt_payload, tenant]
        filter: envoy.filters.http.jwt_authn
        assurance: sourced
    influence: grant
    used_by: [refund.create]
    review_by: ${review_by}
  level:
    type: long
    description: How far the token reaches
    owner: team-identity@prod.example
    purpose: No refunds below level 3
    subject: request
    sources:
      - {kind: envoy_metadata, namespace: envoy.filters.http.jwt_authn, key: [jwt_payload, level],
         filter: envoy.filters.http.jwt_authn, assurance: sourced}
    influence: grant
    used_by: [refund.create]
    review_by: ${review_by}
  mood:
    type: enum[calm, hurried]
    description: What the caller says of itself, copied by Envoy from a header
    owner: team-agents@prod.example
    purpose: Let an agent narrow its own reach
    subject: request
    sources: [{kind: envoy_metadata, namespace: app, key: mood, assurance: self_asserted}]
    influence: restrict
    used_by: [refund.create]
    review_by: ${review_by}
  origin:
    type: enum[here, elsewhere]
    description: Where the connection comes from
    owner: team-network@prod.example
    purpose: No refunds from elsewhere
    subject: request
    sources: [{kind: peer, zones: {here: [127.0.0.0/8]}, otherwise: elsewhere, assurance: sourced}]
    influence: grant
    used_by: [refund.create]
    review_by: ${review_by}
  data_class:
    type: string
    description: The class of the data behind the route
    owner: team-data@prod.example
    purpose: Refunds touch payment data
    subject: request
    sources: [{kind: route, fact: data_class, assurance: authoritative}]
    influence: grant
    used_by: [refund.create]
    review_by: ${review_by}
  always:
    type: bool
    description: Whether the time is within opening hours, which are all hours
    owner: team-payments@prod.example
    purpose: No refunds at night
    subject: request
    sources:
      - kind: time
        zone: Europe/Berlin
        windows: {any: {days: [mon, tue, wed, thu, fri, sat, sun], from: "00:00", to: "24:00"}}
        assurance: authoritative
    influence: grant
    used_by: [refund.create]
    review_by: ${review_by}
"""
POLICY = """
@id("refunds")
permit (principal in Role::"refund-agents", action == Action::"refund.create", resource is Account)
when {
  context.signals has tenant && context.signals.tenant == "acme" &&
  context.signals has origin && context.signals.origin == "here" &&
  context.signals has data_class && context.signals.data_class == "payment" &&
  context.signals has always && context.signals.always
};
@id("level")
forbid (principal, action == Action::"refund.create", resource)
when { context.signals has level && context.signals.level < 3 };
@id("hurry")
forbid (principal, action == Action::"refund.create", resource)
when { context.signals has mood && context.signals.mood == "hurried" };
"""


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Idp:
    """Signs tokens as the provider that Envoy's jwt_authn trusts."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())

    def jwks(self) -> str:
        point = self.key.public_key().public_numbers()
        x, y = (b64(n.to_bytes(32, "big")) for n in (point.x, point.y))
        key = {"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "k", "x": x, "y": y}
        return json.dumps({"keys": [key]})

    def token(self, **claims: object) -> str:
        payload = {"iss": ISSUER, "exp": int(time.time()) + 600, **claims}
        head, body = (
            b64(json.dumps(part).encode()) for part in ({"alg": "ES256", "typ": "JWT", "kid": "k"}, payload)
        )
        signature = self.key.sign(f"{head}.{body}".encode(), ec.ECDSA(SHA256()))
        r, s = utils.decode_dss_signature(signature)
        return f"{head}.{body}.{b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def with_filters(text: str, idp: Idp) -> str:
    """The shipped configuration with jwt_authn and header_to_metadata before the check."""
    config: dict[str, Any] = yaml.safe_load(text)
    jwt = {
        "providers": {
            "idp": {
                "issuer": ISSUER,
                "local_jwks": {"inline_string": idp.jwks()},
                "from_headers": [{"name": "x-token"}],
                "payload_in_metadata": "jwt_payload",
            }
        },
        "rules": [
            {
                "match": {"prefix": "/"},
                "requires": {
                    "requires_any": {"requirements": [{"provider_name": "idp"}, {"allow_missing": {}}]}
                },
            }
        ],
    }
    copy = {
        "request_rules": [
            {
                "header": "x-mood",
                "on_header_present": {"metadata_namespace": "app", "key": "mood", "type": "STRING"},
            }
        ]
    }
    name, of = "envoy.filters.http.{}", "type.googleapis.com/envoy.extensions.filters.http.{}"
    manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    manager["http_filters"][:0] = [
        {
            "name": name.format("jwt_authn"),
            "typed_config": {"@type": of.format("jwt_authn.v3.JwtAuthentication"), **jwt},
        },
        {
            "name": name.format("header_to_metadata"),
            "typed_config": {"@type": of.format("header_to_metadata.v3.Config"), **copy},
        },
    ]
    return yaml.safe_dump(config)


@pytest.fixture(scope="module")
def idp() -> Idp:
    return Idp()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    base = tmp_path_factory.mktemp("sources")
    check_port, admin_port = free_port(), free_port()
    made = make_directory(base / "config", check_port, admin_port)
    signals = made.directory / "signals.yaml"
    review_by = yaml.safe_load(signals.read_text())["signals"]["posture"]["review_by"]
    signals.write_text("signals:" + SIGNALS.replace("${review_by}", str(review_by)))
    (made.directory / "policies" / "refunds.cedar").write_text(POLICY)
    routes = made.directory / "routes.yaml"
    text = routes.read_text()
    place = "    sensitivity: high\n"
    assert place in text
    routes.write_text(text.replace(place, f"{place}    facts: {{data_class: payment}}\n"))
    running = Product(
        made, check_port, admin_port, start_server(made.directory, admin_port, base / "serve.log")
    )
    yield running
    running.process.stop()


@pytest.fixture(scope="module")
def envoy(run_envoy: Callable[..., RunningEnvoy], guarded: Product, idp: Idp) -> RunningEnvoy:
    return run_envoy(guarded.directory, edit=lambda text: with_filters(text, idp))


@pytest.fixture
def refund(envoy: RunningEnvoy, guarded: Product, stage: Stage) -> Callable[..., dict[str, Any]]:
    """One refund; its record."""

    def call(**headers: str) -> dict[str, Any]:
        stage.upstream.calls.clear()
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        answer: httpx.Response = envoy.agent.post(REFUND, json={"amount": 1}, headers=sent)
        if answer.status_code == 200:
            (decision,) = [
                value
                for name, value in stage.upstream.calls[0]["headers"]
                if name == "x-signalwarden-decision-id"
            ]
        else:
            decision = answer.json()["decision_id"]
        return guarded.record(decision)

    return call


def facts(record: dict[str, Any]) -> dict[str, Any]:
    return {
        fact["name"]: (fact["state"], fact.get("value"), fact.get("source")) for fact in record["signals"]
    }


def test_what_a_filter_of_envoy_verified_the_address_the_route_and_the_time_decide(
    refund: Callable[..., dict[str, Any]], idp: Idp
) -> None:
    record = refund(x_token=idp.token(tenant="acme", level=3))
    assert record["reason"] == "allowed"
    jwt = "metadata:envoy.filters.http.jwt_authn/jwt_payload"
    assert facts(record) == {
        "always": ("fresh", True, "time:Europe/Berlin"),
        "data_class": ("fresh", "payment", "route:data_class"),
        "level": ("fresh", 3, f"{jwt}/level"),
        "mood": ("missing", None, None),
        "origin": ("fresh", "here", "peer"),
        "tenant": ("fresh", "acme", f"{jwt}/tenant"),
    }
    assert {fact["name"]: fact["assurance"] for fact in record["signals"]} == {
        "always": "authoritative",
        "data_class": "authoritative",
        "level": "sourced",
        "mood": "self_asserted",
        "origin": "sourced",
        "tenant": "sourced",
    }


def test_another_claim_denies_and_a_token_less_call_has_no_claim(
    refund: Callable[..., dict[str, Any]], idp: Idp
) -> None:
    assert refund(x_token=idp.token(tenant="other", level=3))["reason"] == "no_policy_permits"
    assert refund(x_token=idp.token(tenant="acme", level=2))["reason"] == "policy_denied"
    for unreadable in ("3", 3.5, 2**60, True, None):
        record = refund(x_token=idp.token(tenant="acme", level=unreadable))
        assert record["reason"] == "signal_unavailable", unreadable
        assert facts(record)["level"][0] == "missing"
    record = refund()
    assert record["reason"] == "signal_unavailable"
    assert facts(record)["tenant"] == ("missing", None, None)


def test_a_header_that_envoy_copied_into_metadata_narrows_and_never_widens(
    refund: Callable[..., dict[str, Any]], idp: Idp
) -> None:
    token = idp.token(tenant="acme", level=3)
    record = refund(x_token=token, x_mood="hurried")
    assert record["reason"] == "policy_denied"
    assert facts(record)["mood"] == ("fresh", "hurried", "metadata:app/mood")
    assert refund(x_token=token, x_mood="calm")["reason"] == "allowed"
    assert facts(refund(x_token=token, x_mood="asleep"))["mood"] == ("missing", None, None)


def test_what_a_client_writes_of_its_address_moves_it_into_no_zone(
    refund: Callable[..., dict[str, Any]], idp: Idp
) -> None:
    record = refund(x_token=idp.token(tenant="acme", level=3), x_forwarded_for="203.0.113.9")
    assert facts(record)["origin"] == ("fresh", "here", "peer")
    assert record["reason"] == "allowed"


def test_at_a_sidecar_the_address_is_that_of_the_connection_too(
    run_envoy: Callable[..., RunningEnvoy], guarded: Product, idp: Idp, stage: Stage
) -> None:
    sidecar = run_envoy(guarded.directory, kind="sidecar", edit=lambda text: with_filters(text, idp))
    stage.upstream.calls.clear()
    headers = {"x-token": idp.token(tenant="acme", level=3), "x-forwarded-for": "203.0.113.9"}
    assert sidecar.agent.post(REFUND, json={"amount": 1}, headers=headers).status_code == 200
