"""AuthZEN's binding to HTTP, over a small fake of the app: headers, refusals, bounds, metadata."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from signalwarden.admin import AdminReason
from signalwarden.admin_authzen import MAX_REQUEST_ID_BYTES
from signalwarden.authzen_request import CONFIGURATION, EVALUATION, EVALUATIONS, MAX_BODY_BYTES, SEARCHES
from signalwarden.config import Right
from signalwarden.errors import BadInputError, CallRefusedError, RateLimitedError
from tests.fake_services import FakeServices
from tests.unit.test_admin import problem

JSON = {"content-type": "application/json"}
POSTS = (EVALUATION, EVALUATIONS, *SEARCHES)


def test_a_question_goes_to_the_desk_with_its_client_and_id(http: TestClient, services: FakeServices) -> None:
    for path, kind in ((EVALUATION, "evaluation"), (EVALUATIONS, "evaluations")):
        answer = http.post(path, content=b"{}", headers={**JSON, "x-request-id": "bfe9eb29-ab87"})
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
        assert services.authzen.asked.pop() == (kind, services.client, b"{}", "bfe9eb29-ab87")


@pytest.mark.parametrize("path", POSTS)
def test_the_id_of_a_call_comes_back_whatever_the_answer_is(
    http: TestClient, services: FakeServices, path: str
) -> None:
    def echoed(**headers: str) -> str | None:
        return http.post(
            path, content=b"{}", headers={**JSON, "x-request-id": "id-1", **headers}
        ).headers.get("x-request-id")

    assert echoed() == "id-1"
    assert echoed(authorization="") == "id-1"
    assert echoed(authorization="Bearer unknown") == "id-1"
    assert echoed(**{"content-type": "text/plain"}) == "id-1"
    services.may = frozenset({Right.READ})
    assert echoed() == "id-1"
    services.may, services.fault = frozenset(Right), RuntimeError("the moon fell down")
    assert echoed() == "id-1"
    assert "x-request-id" not in http.post(path, content=b"{}", headers=JSON).headers
    assert "x-request-id" not in http.get("/healthz", headers={"x-request-id": "id-1"}).headers


def test_the_id_of_a_call_that_there_is_not_comes_back_as_well(http: TestClient) -> None:
    given = {"x-request-id": "id-1"}
    for answer, reason in (
        (http.get(EVALUATION, headers=given), AdminReason.METHOD_NOT_ALLOWED),
        (http.post(EVALUATION + "/more", headers=given), AdminReason.NOT_FOUND),
    ):
        problem(answer, reason)
        assert answer.headers["x-request-id"] == "id-1"


@pytest.mark.parametrize(
    ("given", "recorded"),
    [
        ("two words", "two words"),
        ('"a";b=c,\\d', '"a";b=c,\\d'),
        ("tab\there", "tab\\there"),
        ("x" * MAX_REQUEST_ID_BYTES, "x" * MAX_REQUEST_ID_BYTES),
        ("", None),
    ],
)
def test_an_id_is_any_text_that_a_header_may_hold(
    http: TestClient, services: FakeServices, given: str, recorded: str | None
) -> None:
    answer = http.post(EVALUATION, content=b"{}", headers={**JSON, "x-request-id": given})
    assert (answer.status_code, answer.headers["x-request-id"]) == (200, given)
    assert services.authzen.asked.pop()[3] == recorded


def test_an_id_that_is_too_long_to_be_kept_is_refused_and_comes_back_all_the_same(
    http: TestClient, services: FakeServices
) -> None:
    given = "x" * (MAX_REQUEST_ID_BYTES + 1)
    answer = http.post(EVALUATION, content=b"{}", headers={**JSON, "x-request-id": given})
    problem(answer, AdminReason.MALFORMED)
    assert answer.headers["x-request-id"] == given
    assert services.authzen.asked == []


@pytest.mark.parametrize("given", [b"nul\x00", b"\x01", b"a\x7fb"])
def test_an_id_that_no_header_may_hold_is_refused(http: TestClient, given: Any) -> None:
    answer = http.post(EVALUATION, content=b"{}", headers=[*JSON.items(), ("x-request-id", given)])
    problem(answer, AdminReason.MALFORMED)
    assert "x-request-id" not in answer.headers


def test_two_ids_are_none(http: TestClient) -> None:
    answer = http.post(
        EVALUATION, content=b"{}", headers=[*JSON.items(), ("x-request-id", "a"), ("x-request-id", "b")]
    )
    problem(answer, AdminReason.MALFORMED)


@pytest.mark.parametrize(
    "kind", ["text/plain", "", "application/jsonp", "application/json, text/plain", "application"]
)
@pytest.mark.parametrize("path", POSTS)
def test_another_kind_of_content_is_refused(http: TestClient, path: str, kind: str) -> None:
    problem(http.post(path, content=b"{}", headers={"content-type": kind}), AdminReason.MALFORMED)


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "Application/JSON", "application/json ;x=y"]
)
def test_json_may_say_more_of_itself(http: TestClient, kind: str) -> None:
    assert http.post(EVALUATION, content=b"{}", headers={"content-type": kind}).status_code == 200


@pytest.mark.parametrize("path", POSTS)
def test_who_may_not_evaluate_is_refused_before_a_body_is_read(
    http: TestClient, services: FakeServices, path: str
) -> None:
    unknown = http.post(path, content=b"{}", headers={**JSON, "authorization": ""})
    problem(unknown, AdminReason.TOKEN_MISSING)
    assert unknown.headers["www-authenticate"] == 'Bearer realm="signalwarden"'
    services.may = frozenset(Right) - {Right.EVALUATE}
    large = {**JSON, "content-length": str(MAX_BODY_BYTES + 1)}
    answer = http.post(path, content=b"x", headers=large)
    problem(answer, AdminReason.RIGHT_MISSING)
    assert 'scope="evaluate"' in answer.headers["www-authenticate"]
    assert services.authzen.asked == []


def test_a_larger_body_is_refused(http: TestClient, services: FakeServices) -> None:
    answer = http.post(EVALUATION, content=b"x" * (MAX_BODY_BYTES + 1), headers=JSON)
    problem(answer, AdminReason.TOO_LARGE)
    assert http.post(EVALUATION, content=b"x" * MAX_BODY_BYTES, headers=JSON).status_code == 200
    assert len(services.authzen.asked) == 1


@pytest.mark.parametrize("path", SEARCHES)
def test_a_search_is_not_offered_and_says_what_is(http: TestClient, path: str) -> None:
    answer = http.post(path, content=b"{}", headers=JSON)
    problem(answer, AdminReason.NOT_OFFERED)
    assert EVALUATIONS in answer.json()["detail"]


def test_what_the_desk_refuses_is_a_problem_document(http: TestClient, services: FakeServices) -> None:
    def refused(fault: Exception) -> Any:
        services.fault = fault
        return http.post(EVALUATION, content=b"{}", headers=JSON)

    problem(refused(BadInputError("`subject` is missing")), AdminReason.MALFORMED)
    problem(refused(CallRefusedError("subject_refused", "no")), AdminReason.SUBJECT_REFUSED)
    problem(refused(CallRefusedError("not_ready", "no")), AdminReason.NOT_READY)
    unrecorded = refused(CallRefusedError("log_unavailable", "no"))
    problem(unrecorded, AdminReason.LOG_UNAVAILABLE)
    assert unrecorded.headers["retry-after"] == "1"
    limited = refused(RateLimitedError("too fast", 7))
    problem(limited, AdminReason.RATE_LIMITED)
    assert limited.headers["retry-after"] == "7"


def test_metadata_is_open_and_may_be_held_for_a_while(http: TestClient) -> None:
    given = {"authorization": "", "host": "evil.example", "x-request-id": "id-1"}
    answer = http.get(CONFIGURATION, headers=given)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.headers["cache-control"] == "public, max-age=300"
    assert "evil.example" not in answer.text
    assert "x-request-id" not in answer.headers  # others would be handed it from a cache


def test_there_is_no_metadata_without_an_address(http: TestClient, services: FakeServices) -> None:
    services.authzen.base = None
    problem(http.get(CONFIGURATION, headers={"host": "evil.example"}), AdminReason.NOT_FOUND)
