"""The calls of the admin API about tasks and workflows: rights, answers and refusals, against a fake of the desk."""

from __future__ import annotations

from typing import Any

from fastapi.testclient import TestClient

from signalwarden.admin import AdminReason, build
from signalwarden.config import Right
from signalwarden.errors import CallRefusedError, KeysError, RateLimitedError
from tests.fake_services import FakeServices
from tests.unit.test_admin import problem

CLIENT = "spiffe://prod.example/client"
BODY = b'{"principal":"a"}'


def test_tasks_are_begun_handed_on_and_ended_by_who_calls(http: TestClient, services: FakeServices) -> None:
    assert http.post("/v1/tasks", content=BODY).status_code == 201
    answer = http.post("/v1/tasks/t-1/delegate", content=BODY)
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    assert http.post("/v1/tasks/t-1/complete").status_code == 200
    assert http.post("/v1/tasks/t-1/revoke").status_code == 200
    assert http.put("/v1/workflows/month-end", content=BODY).status_code == 200
    assert services.tasks.asked == [
        (CLIENT, "begin", BODY), (CLIENT, "t-1", BODY), (CLIENT, "t-1", "completed"), (CLIENT, "t-1", "revoked"),
        (CLIENT, "month-end", BODY),
    ]  # fmt: skip


def test_who_reads_begins_no_task_and_moves_no_workflow(http: TestClient, services: FakeServices) -> None:
    services.may = frozenset({Right.READ})
    assert http.get("/v1/tasks").status_code == 200
    assert http.get("/v1/workflows").status_code == 200
    for path in ("/v1/tasks", "/v1/tasks/t-1/delegate", "/v1/tasks/t-1/complete", "/v1/tasks/t-1/revoke"):
        problem(http.post(path, content=BODY), AdminReason.RIGHT_MISSING)
    problem(http.put("/v1/workflows/month-end", content=BODY), AdminReason.RIGHT_MISSING)
    assert services.tasks.asked == []


def test_anyone_may_fetch_the_public_keys(services: FakeServices) -> None:
    with TestClient(build(services)) as http:
        answer = http.get("/.well-known/jwks.json")
    assert (answer.status_code, answer.json()) == (200, {"keys": []})
    assert answer.headers["cache-control"].startswith("public")


def test_a_task_that_is_not_known_is_a_problem_and_not_an_empty_list(
    http: TestClient, services: FakeServices
) -> None:
    assert http.get("/v1/tasks/t-1").status_code == 200
    services.fault = CallRefusedError("task_unknown", "there is no task of this id, or no longer", {})
    problem(http.get("/v1/tasks/t-1"), AdminReason.TASK_UNKNOWN)


def test_a_misspelt_parameter_is_refused(http: TestClient) -> None:
    problem(http.get("/v1/tasks", params={"principle": "a"}), AdminReason.MALFORMED)
    problem(http.get("/v1/tasks", params={"limit": 0}), AdminReason.MALFORMED)


def refuse(http: TestClient, services: FakeServices, code: str, **more: str) -> Any:
    services.fault = CallRefusedError(code, "it is so", more)
    return http.post("/v1/tasks", content=BODY)


def test_what_the_core_refuses_is_a_problem_document(http: TestClient, services: FakeServices) -> None:
    def ask(code: str) -> Any:
        return refuse(http, services, code)

    problem(ask("task_unknown"), AdminReason.TASK_UNKNOWN)
    problem(ask("task_ended"), AdminReason.TASK_ENDED)
    problem(ask("workflow_not_approved"), AdminReason.WORKFLOW_NOT_APPROVED)
    problem(ask("not_yours"), AdminReason.NOT_YOURS)
    problem(ask("delegation_widens"), AdminReason.DELEGATION_WIDENS)
    problem(ask("too_many_tasks"), AdminReason.TOO_MANY_TASKS)


def test_a_delegation_that_widens_names_its_dimension(http: TestClient, services: FakeServices) -> None:
    answer = refuse(http, services, "delegation_widens", dimension="sensitivity")
    assert answer.json()["dimension"] == "sensitivity"


def test_too_much_at_once_and_a_lost_key_are_no_faults_of_the_server(
    http: TestClient, services: FakeServices
) -> None:
    services.fault = RateLimitedError("too fast", 7)
    answer = http.post("/v1/tasks", content=BODY)
    problem(answer, AdminReason.RATE_LIMITED)
    assert answer.headers["retry-after"] == "7"
    services.fault = KeysError("no key")
    problem(http.post("/v1/tasks", content=BODY), AdminReason.NOT_KEPT)
