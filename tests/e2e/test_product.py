"""The real decision point behind the real Envoy: each way to answer, as client, upstream and operator see it."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from signalwarden import starter
from tests.e2e.conftest import producing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.conftest import Product, RunningEnvoy, Stage

pytestmark = pytest.mark.usefixtures("front")

ACCOUNT = "/v1/accounts/42"
REFUND = f"{ACCOUNT}/refunds"
STRANGER = "spiffe://prod.example/ns/web/sa/storefront"


@pytest.fixture(scope="module")
def product(front: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """One for each front, instead of the session's."""
    with producing(tmp_path_factory.mktemp(f"product-{front}"), front) as running:
        yield running


@pytest.fixture(scope="module")
def product_envoy(run_envoy: Callable[..., RunningEnvoy], product: Product) -> RunningEnvoy:
    return run_envoy(product.directory)


@pytest.fixture
def envoy(product_envoy: RunningEnvoy, healthy: Product, stage: Stage) -> RunningEnvoy:
    stage.upstream.calls.clear()
    return product_envoy


def refund(client: httpx.Client, **headers: str) -> httpx.Response:
    return client.post(
        REFUND, json={"amount": 1250}, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


def upstream_saw(stage: Stage, name: str) -> list[str]:
    assert len(stage.upstream.calls) == 1
    return [value for key, value in stage.upstream.calls[0]["headers"] if key == name]


def denial(response: httpx.Response, status: int, reason: str, stage: Stage) -> dict[str, Any]:
    """A problem document with this status and reason, and nothing reached the upstream."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    problem: dict[str, Any] = response.json()
    assert (response.status_code, problem["reason"]) == (status, reason)
    assert stage.upstream.calls == []
    return problem


# ---- allow ------------------------------------------------------------------------------------------------


def test_an_allowed_call_reaches_the_upstream_with_our_headers_and_has_a_record(
    envoy: RunningEnvoy, product: Product, stage: Stage
) -> None:
    assert refund(envoy.agent).status_code == 200
    assert upstream_saw(stage, "x-signalwarden-principal") == [starter.AGENT]
    (decision_id,) = upstream_saw(stage, "x-signalwarden-decision-id")
    assert uuid.UUID(decision_id).version == 7
    record = product.record(decision_id)
    assert (record["outcome"], record["reason"]) == ("allow", "allowed")
    assert record["principal"]["id"] == starter.AGENT
    assert record["request"]["action"] == "refund.create"
    assert {s["name"]: s["influence"] for s in record["signals"]}["device_trust"] == "decisive"


def test_what_a_client_writes_into_our_headers_is_overwritten(
    envoy: RunningEnvoy, product: Product, stage: Stage
) -> None:
    forged = {"x_signalwarden_principal": starter.OPERATOR, "x_signalwarden_decision_id": "forged"}
    assert refund(envoy.agent, **forged).status_code == 200
    assert upstream_saw(stage, "x-signalwarden-principal") == [starter.AGENT]
    assert "forged" not in upstream_saw(stage, "x-signalwarden-decision-id")


def test_grant_approval_and_override_headers_do_not_reach_the_upstream(
    envoy: RunningEnvoy, stage: Stage
) -> None:
    sent = {
        "x-signalwarden-grant": "secret",
        "x-http-method-override": "DELETE",
        "x-original-url": "/admin",
        "x-rewrite-url": "/admin",
    }
    assert envoy.agent.get(ACCOUNT, headers=sent).status_code == 200
    assert not {*sent} & {name for name, _ in stage.upstream.calls[0]["headers"]}


def test_the_real_path_with_its_query_reaches_the_upstream(envoy: RunningEnvoy, stage: Stage) -> None:
    assert envoy.agent.get(f"{ACCOUNT}?expand=owner&x=%2f").status_code == 200
    assert stage.upstream.calls[0]["path"] == f"{ACCOUNT}?expand=owner&x=%2f"


def test_metadata_in_the_access_log_joins_the_record(
    envoy: RunningEnvoy, product: Product, stage: Stage
) -> None:
    refund(envoy.agent)
    (decision_id,) = upstream_saw(stage, "x-signalwarden-decision-id")
    record = product.record(decision_id)
    line = envoy.access_log(decision_id, "decision_id")
    assert (line["status"], line["reason"]) == (200, "allowed")
    assert line["revision"] == record["policies"]["revision"]
    assert line["peer"] == starter.AGENT


# ---- deny -------------------------------------------------------------------------------------------------


def test_a_denial_is_a_problem_document_that_names_its_record_and_no_value(
    envoy: RunningEnvoy, product: Product, stage: Stage
) -> None:
    product.publish("posture", "compromised")
    problem = denial(refund(envoy.agent), 403, "policy_denied", stage)
    record = product.record(problem["decision_id"])
    assert (record["outcome"], record["reason"], record["http_status"]) == ("deny", "policy_denied", 403)
    assert "compromised" not in str(problem)
    line = envoy.access_log(problem["decision_id"], "decision_id")
    assert (line["status"], line["reason"]) == (403, "policy_denied")


def test_a_lower_device_trust_denies_the_next_call(
    envoy: RunningEnvoy, product: Product, stage: Stage
) -> None:
    product.publish("device_trust", 1)
    denial(refund(envoy.agent), 403, "no_policy_permits", stage)


def test_a_signal_in_dispute_denies(envoy: RunningEnvoy, product: Product, stage: Stage) -> None:
    """Two values for one instant: nobody knows which is true."""
    from datetime import UTC, datetime

    now = datetime.now(UTC).isoformat()
    for value in ("ok", "compromised"):
        body = {"name": "posture", "subject": starter.AGENT, "value": value, "observed_at": now}
        answer = httpx.post(
            f"http://127.0.0.1:{product.admin_port}/v1/signals",
            headers={"authorization": f"Bearer {product.made.publisher_token}"},
            json={"signals": [body]},
            timeout=10,
            trust_env=False,
        )
        assert answer.json()["accepted"] == 1
    denial(refund(envoy.agent), 403, "signal_unavailable", stage)


def test_a_task_type_narrows_and_never_widens(envoy: RunningEnvoy, product: Product, stage: Stage) -> None:
    denial(refund(envoy.agent, x_task_type="browse"), 403, "policy_denied", stage)
    assert refund(envoy.agent, x_task_type="refund").status_code == 200
    stage.upstream.calls.clear()
    product.publish("device_trust", 1)
    denial(refund(envoy.agent, x_task_type="refund"), 403, "no_policy_permits", stage)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", ACCOUNT),
        ("GET", "/admin"),
        ("GET", f"{ACCOUNT}/"),
        ("GET", f"{ACCOUNT}%2frefunds"),
        ("GET", "/v1/accounts//42"),
        ("GET", "/v1/accounts/%2e%2e/42"),
        ("GET", "/v1/accounts/42;x=1"),
    ],
)
def test_what_no_route_declares_is_denied_with_a_record(
    envoy: RunningEnvoy, product: Product, stage: Stage, method: str, path: str
) -> None:
    problem = denial(envoy.agent.request(method, path), 403, "route_unknown", stage)
    assert product.record(problem["decision_id"])["request"]["path"].startswith(path[:5])


def test_no_certificate_is_a_401(envoy: RunningEnvoy, stage: Stage) -> None:
    with envoy.client(None) as client:
        denial(refund(client, x_signalwarden_principal=starter.AGENT), 401, "identity_missing", stage)


def test_a_certificate_without_spiffe_id_is_a_401(envoy: RunningEnvoy, stage: Stage) -> None:
    with envoy.client(stage.authority.issue(None, dns=("agent.prod.example",))) as client:
        response = refund(client)
    assert response.json()["reason"] in {"identity_missing", "identity_invalid"}
    denial(response, 401, response.json()["reason"], stage)


def test_another_trust_domain_is_a_403(envoy: RunningEnvoy, stage: Stage) -> None:
    with envoy.client(stage.authority.issue("spiffe://other.example/ns/agents/sa/refund-agent")) as client:
        denial(refund(client), 403, "trust_domain_unknown", stage)


def test_a_workload_that_is_not_listed_is_a_403(envoy: RunningEnvoy, stage: Stage) -> None:
    with envoy.client(stage.authority.issue(STRANGER)) as client:
        denial(refund(client), 403, "entity_unknown", stage)


# ---- other forms of the question --------------------------------------------------------------------------


def test_headers_in_either_form_come_to_the_same(
    run_envoy: Callable[..., RunningEnvoy], healthy: Product, stage: Stage
) -> None:
    joined = run_envoy(healthy.directory, raw_headers=False)
    stage.upstream.calls.clear()
    denial(refund(joined.agent, x_task_type="browse"), 403, "policy_denied", stage)
    assert refund(joined.agent, x_task_type="refund").status_code == 200


def test_a_body_argument_is_decided_about(envoy: RunningEnvoy, stage: Stage) -> None:
    denial(envoy.agent.post(REFUND, json={"amount": 50_001}), 403, "policy_denied", stage)
    assert envoy.agent.post(REFUND, json={"amount": 50_000}).status_code == 200


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b'{"amount": "1250"}', {}),
        (b'{"amount": 1250, "amount": 99999}', {}),
        (b'{"amount": 1250', {}),
        (b'{"amount": 1250}', {"content-encoding": "gzip"}),
    ],
    ids=["another type", "twice", "cut off", "encoded"],
)
def test_a_body_that_cannot_be_read_is_a_400(
    envoy: RunningEnvoy, stage: Stage, body: bytes, headers: dict[str, str]
) -> None:
    sent = {"content-type": "application/json", **headers}
    denial(envoy.agent.post(REFUND, content=body, headers=sent), 400, "malformed_request", stage)


def test_a_body_that_envoy_does_not_send_is_never_taken_for_an_absent_one(
    run_envoy: Callable[..., RunningEnvoy], healthy: Product, stage: Stage
) -> None:
    without = run_envoy(healthy.directory, request_bodies=False)
    stage.upstream.calls.clear()
    denial(refund(without.agent), 400, "malformed_request", stage)


def test_a_sidecar_decides_like_a_gateway(
    run_envoy: Callable[..., RunningEnvoy], healthy: Product, stage: Stage
) -> None:
    sidecar = run_envoy(healthy.directory, kind="sidecar")
    stage.upstream.calls.clear()
    denial(sidecar.agent.delete(ACCOUNT), 403, "route_unknown", stage)
    assert refund(sidecar.agent).status_code == 200


# ---- the directory changes --------------------------------------------------------------------------------


def test_a_bad_reload_changes_nothing_and_a_good_one_the_next_call(
    envoy: RunningEnvoy, product: Product, stage: Stage
) -> None:
    routes = product.directory / "routes.yaml"
    good = routes.read_text()
    try:
        routes.write_text(good.replace("action: refund.create", "actoin: refund.create"))
        refused = product.reload()
        assert refused.status_code == 422
        assert "actoin" in refused.text
        assert refund(envoy.agent).status_code == 200
        stage.upstream.calls.clear()
        routes.write_text(good.replace("method: POST", "method: PUT"))
        assert product.reload().status_code == 200
        denial(refund(envoy.agent), 403, "route_unknown", stage)
    finally:
        routes.write_text(good)
        assert product.reload().status_code == 200
    assert refund(envoy.agent).status_code == 200


def test_a_route_that_is_not_enforced_lets_a_denial_pass_as_an_allow_and_says_so(
    envoy: RunningEnvoy, product: Product, stage: Stage
) -> None:
    product.publish("posture", "compromised")
    routes = product.directory / "routes.yaml"
    good = routes.read_text()
    try:
        routes.write_text(good.replace("tier: runtime ", "enforce: false\n    tier: runtime "))
        assert product.reload().status_code == 200
        assert refund(envoy.agent, x_signalwarden_grant="forged").status_code == 200
        assert upstream_saw(stage, "x-signalwarden-principal") == [starter.AGENT]
        assert upstream_saw(stage, "x-signalwarden-grant") == []
        (decision_id,) = upstream_saw(stage, "x-signalwarden-decision-id")
        record = product.record(decision_id)
        assert (record["outcome"], record["reason"], record["enforced"]) == ("deny", "policy_denied", False)
        line = envoy.access_log(decision_id, "decision_id")
        assert (line["status"], line["reason"]) == (200, "policy_denied")
        stage.upstream.calls.clear()
        denial(envoy.agent.post(REFUND, json={"amount": "x"}), 400, "malformed_request", stage)
    finally:
        routes.write_text(good)
        assert product.reload().status_code == 200
    stage.upstream.calls.clear()
    denial(refund(envoy.agent), 403, "policy_denied", stage)


# ---- the decision point comes and goes --------------------------------------------------------------------


def test_a_killed_decision_point_lets_nothing_through_and_a_restarted_one_remembers(
    envoy: RunningEnvoy, product: Product, stage: Stage
) -> None:
    assert refund(envoy.agent).status_code == 200
    before = {(s["name"], s["subject"], s["value"]) for s in product.signals()}
    product.process.kill()
    product.process.stop()
    stage.upstream.calls.clear()
    for _ in range(3):
        answer = refund(envoy.agent)
        assert (answer.status_code, answer.content, stage.upstream.calls) == (503, b"", [])
    product.restart()
    assert {(s["name"], s["subject"], s["value"]) for s in product.signals()} == before
    assert refund(envoy.agent).status_code == 200


def test_a_stopped_decision_point_ends_in_order_and_lets_nothing_through(
    envoy: RunningEnvoy, product: Product, stage: Stage
) -> None:
    assert product.process.stop() == 0
    assert refund(envoy.agent).status_code == 503
    assert stage.upstream.calls == []
    product.restart()
    assert refund(envoy.agent).status_code == 200
