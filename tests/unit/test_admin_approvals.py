"""The calls of the admin API about questions and overrides: rights, answers and refusals, against fakes of the desks."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from signalwarden.admin import AdminReason
from signalwarden.config import Right
from signalwarden.errors import BadInputError, CallRefusedError, StateError
from tests.fake_services import FakeServices
from tests.unit.test_admin import problem

CLIENT = "spiffe://prod.example/client"
BODY = b'{"comment":"a"}'


def test_an_answer_carries_who_it_is_from(http: TestClient, services: FakeServices) -> None:
    assert http.post("/v1/approvals/a-1/approve", content=BODY).json()["state"] == "approved"
    assert http.post("/v1/approvals/a-1/deny").status_code == 200
    assert services.approvals.answers == [(CLIENT, "a-1", BODY, True), (CLIENT, "a-1", b"", False)]


def test_a_list_may_be_narrowed(http: TestClient, services: FakeServices) -> None:
    http.get("/v1/approvals", params={"state": "pending", "requester": "spiffe://a/b", "limit": 5})
    assert services.approvals.listed == [("pending", "spiffe://a/b", 5)]
    for params in ({"status": "pending"}, {"limit": 0}, {"limit": 1_001}, {"state": "a" * 17}):
        problem(http.get("/v1/approvals", params=params), AdminReason.MALFORMED)


@pytest.mark.parametrize("right", [Right.READ, Right.APPROVE, Right.OPERATE])
def test_who_reads_or_approves_may_look(http: TestClient, services: FakeServices, right: Right) -> None:
    services.may = frozenset({right})
    assert http.get("/v1/approvals").status_code == 200
    assert http.get("/v1/approvals/a-1").json() == {"approval_id": "a"}
    answer = http.post("/v1/approvals/a-1/approve")
    if right is Right.APPROVE:
        assert answer.status_code == 200
    else:
        problem(answer, AdminReason.RIGHT_MISSING)
        assert services.approvals.answers == []


def test_an_override_is_proposed_or_in_force(http: TestClient, services: FakeServices) -> None:
    assert http.post("/v1/signals/posture/override", content=BODY).status_code == 202
    services.overrides.status = 201
    assert http.post("/v1/signals/posture/override", content=BODY).status_code == 201
    assert services.overrides.asked == [(CLIENT, "posture", BODY)] * 2
    assert http.get("/v1/overrides").json() == {"overrides": [], "proposals": []}


def refused(
    http: TestClient, services: FakeServices, reason: AdminReason
) -> tuple[dict[str, object], str | None]:
    services.fault = CallRefusedError(
        reason.code, "it is so", {"reason": "policy_denied", "decision_id": "d"}
    )
    answer = http.post("/v1/approvals/a-1/approve")
    body = answer.json()
    assert (answer.status_code, body["reason"], body["detail"]) == (reason.status, reason.code, "it is so")
    # What the decision says stands beside the reason of the refusal, never in its place.
    assert (body["decision_reason"], body["decision_id"]) == ("policy_denied", "d")
    return body, answer.headers.get("retry-after")


def test_what_a_desk_refuses_is_a_problem_document(http: TestClient, services: FakeServices) -> None:
    def ask() -> object:
        return http.post("/v1/approvals/a-1/approve")

    def fault(reason: AdminReason) -> None:
        services.fault = CallRefusedError(reason.code, "it is so")

    fault(AdminReason.APPROVAL_UNKNOWN)
    problem(ask(), AdminReason.APPROVAL_UNKNOWN)
    fault(AdminReason.APPROVAL_ENDED)
    problem(ask(), AdminReason.APPROVAL_ENDED)
    fault(AdminReason.OWN_APPROVAL)
    problem(ask(), AdminReason.OWN_APPROVAL)
    fault(AdminReason.ALREADY_GIVEN)
    problem(ask(), AdminReason.ALREADY_GIVEN)
    fault(AdminReason.POLICY_REFUSED)
    problem(ask(), AdminReason.POLICY_REFUSED)
    fault(AdminReason.LOG_UNAVAILABLE)
    problem(ask(), AdminReason.LOG_UNAVAILABLE)
    fault(AdminReason.SAME_PERSON)
    problem(http.post("/v1/signals/a/override"), AdminReason.SAME_PERSON)
    fault(AdminReason.TOO_MANY_PROPOSALS)
    problem(http.post("/v1/signals/a/override"), AdminReason.TOO_MANY_PROPOSALS)
    services.fault = BadInputError("no")
    problem(ask(), AdminReason.MALFORMED)
    services.fault = StateError("no")
    problem(ask(), AdminReason.NOT_KEPT)


@pytest.mark.parametrize("reason", [AdminReason.POLICY_REFUSED, AdminReason.LOG_UNAVAILABLE])
def test_what_the_policies_said_stands_beside_the_reason(
    http: TestClient, services: FakeServices, reason: AdminReason
) -> None:
    _, retry_after = refused(http, services, reason)
    assert retry_after == ("1" if reason.status == 503 else None)
