"""The admin API against a small fake of the app: rights, refusals, bounds. The real app is behind it in tests/e2e."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from signalwarden.admin import CALLS, MAX_BODY_BYTES, SSF_PUSH, AdminReason, Call, build
from signalwarden.authzen_request import SEARCHES
from signalwarden.config import Right
from signalwarden.doors import PEER_CHAIN
from signalwarden.errors import (
    BadInputError,
    ConfigurationError,
    Problem,
    RateLimitedError,
    RevocationsFullError,
    StateError,
    UnknownPublisherError,
)
from tests.fake_services import SECRET, FakeServices

ROOT = Path(__file__).parents[2]
BATCH = b'{"signals":[]}'
SWITCH = b'{"id":"spiffe://prod.example/mdm"}'


def call(http: TestClient, row: Call, **more: Any) -> Any:
    path = re.sub(r"\{\w+\}", "some-id", row.path)
    return http.request(row.method, path, **more)


def problem(answer: Any, reason: AdminReason) -> dict[str, Any]:
    """The answer is a problem document with this reason and nothing that says more than it should."""
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert (body["reason"], answer.status_code, body["status"]) == (reason.code, reason.status, reason.status)
    assert SECRET not in answer.text
    return body


def row_id(row: Call) -> str:
    return f"{row.method} {row.path}"


# ---- the tables -----------------------------------------------------------------------------------------


def test_every_admin_reason_has_one_row_of_its_own() -> None:
    codes = [reason.code for reason in AdminReason]
    assert len(set(codes)) == len(codes)
    for reason in AdminReason:
        assert re.fullmatch(r"[a-z_]+", reason.code)
        assert reason.status == 0 or 400 <= reason.status <= 599
        assert reason.sentence == reason.sentence.rstrip(".")


def test_every_admin_reason_of_the_design_is_named() -> None:
    design = (
        "unknown_signal wrong_type older future wrong_publisher publisher_disabled too_large rate_limited task_unknown "
        "task_ended workflow_not_approved not_yours"
    )
    assert set(design.split()) <= {reason.code for reason in AdminReason}


def test_every_refusal_of_the_core_is_named() -> None:
    """The core's table is in Rust; a row added there must be added here, too."""
    source = (ROOT / "rust_core/core/src/signals/refusal.rs").read_text()
    table = source[source.index("refusals! {\n") :]
    codes = set(re.findall(r'^\s+\w+ "([a-z_]+)"', table, re.MULTILINE))
    assert len(codes) >= 9
    assert codes <= {reason.code for reason in AdminReason}
    of_one_signal_alone = {reason.code for reason in AdminReason if reason.status == 0}
    assert of_one_signal_alone <= codes


def test_every_reason_of_a_whole_call_is_given_by_some_test() -> None:
    sources = "\n".join(path.read_text() for path in Path(__file__).parent.glob("test_admin*.py"))
    tested = set(re.findall(r"problem\(.*?AdminReason\.([A-Z_]+)\)", sources))
    given = {reason.name for reason in AdminReason if reason.status}
    assert given <= tested


def test_every_right_opens_some_call() -> None:
    assert {row.right for row in CALLS} == {*Right, None}
    assert len({(row.method, row.path) for row in CALLS}) == len(CALLS)


# ---- rights ---------------------------------------------------------------------------------------------

PUSH = next(row for row in CALLS if row.path == SSF_PUSH)
"""Answers as RFC 8935 says, see below."""
GUARDED = [row for row in CALLS if row.right and row is not PUSH]
ARGUMENTS: dict[str, dict[str, Any]] = {
    "/v1/ssf/resynchronise": {"content": b'{"feed":"idp"}'},
    **{
        row.path: {"content": b"{}", "headers": {"content-type": "application/json"}}
        for row in CALLS
        if row.right is Right.EVALUATE
    },
}
"""Of calls that take another body than a batch."""


@pytest.mark.parametrize("row", GUARDED, ids=row_id)
def test_a_call_without_a_token_is_refused_and_told_how(
    http: TestClient, services: FakeServices, row: Call
) -> None:
    answer = call(http, row, headers={"authorization": ""})
    problem(answer, AdminReason.TOKEN_MISSING)
    assert answer.headers["www-authenticate"] == 'Bearer realm="signalwarden"'
    assert services.refusals == [(None, row.right, "no bearer token")]


@pytest.mark.parametrize("row", GUARDED, ids=row_id)
def test_a_call_with_an_unknown_token_is_refused(http: TestClient, row: Call) -> None:
    answer = call(http, row, headers={"authorization": "Bearer unknown"})
    problem(answer, AdminReason.TOKEN_REFUSED)
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


@pytest.fixture
def over_tls(services: FakeServices) -> TestClient:
    """The API as a client with a certificate calls it."""
    app = build(services)

    async def with_peer(scope: Any, receive: Any, send: Any) -> None:
        scope.setdefault("state", {})[PEER_CHAIN] = b"chain"
        await app(scope, receive, send)

    return TestClient(with_peer, raise_server_exceptions=False)


def test_a_client_may_come_with_a_certificate_alone(over_tls: TestClient, services: FakeServices) -> None:
    assert over_tls.get("/v1/signals").status_code == 200
    assert services.chains == [b"chain"]


def test_a_certificate_of_no_client_is_refused_and_its_connection_ended(
    over_tls: TestClient, services: FakeServices
) -> None:
    services.knows_certificates = False
    answer = over_tls.get("/v1/signals")
    problem(answer, AdminReason.CERTIFICATE_REFUSED)
    assert answer.headers["connection"] == "close"
    assert answer.headers["www-authenticate"] == 'Bearer realm="signalwarden"'
    assert over_tls.get("/healthz").status_code == 200


@pytest.mark.parametrize("header", ["", "Bearer unknown", "Basic eDp5", "Bearer a b"])
def test_a_bad_token_is_no_reason_to_look_at_the_certificate_alone(over_tls: TestClient, header: str) -> None:
    answer = over_tls.get("/v1/signals", headers={"authorization": header})
    assert answer.json()["reason"] in ("token_missing", "token_refused")


def test_a_token_comes_with_the_certificate_of_its_connection(
    over_tls: TestClient, services: FakeServices
) -> None:
    headers = {"authorization": f"Bearer {SECRET}"}
    assert over_tls.get("/v1/signals", headers=headers).status_code == 200
    assert services.chains == [b"chain"]


@pytest.mark.parametrize("row", GUARDED, ids=row_id)
def test_a_right_opens_its_own_calls_and_no_others(
    http: TestClient, services: FakeServices, row: Call
) -> None:
    for right in Right:
        services.may = frozenset({right})
        answer = call(
            http, row, **ARGUMENTS.get(row.path, {"content": SWITCH if "publishers" in row.path else BATCH})
        )
        if right in (row.right, row.or_right) or (right is Right.OPERATE and row.right is Right.READ):
            opened = (501,) if row.path in SEARCHES else (200, 201, 202)
            assert answer.status_code in opened, (right, answer.text)
        else:
            problem(answer, AdminReason.RIGHT_MISSING)
            assert f'scope="{row.right}"' in answer.headers["www-authenticate"]
            assert services.refusals[-1][:2] == ("spiffe://prod.example/client", row.right)


@pytest.mark.parametrize(
    "value",
    [
        SECRET,
        f"Basic {SECRET}",
        "Bearer",
        "Bearer ",
        f"Bearer {SECRET} {SECRET}",
        f"Bearer {SECRET}, Bearer x",
        f"Bearer {'x' * 10_000}",
        "Bearer \u00e9",
    ],
)
def test_what_is_no_bearer_token_is_no_token(http: TestClient, value: str) -> None:
    problem(
        http.get("/metrics", headers={b"authorization": value.encode("latin-1")}), AdminReason.TOKEN_MISSING
    )


def test_two_authorization_headers_are_none(http: TestClient) -> None:
    both = [("authorization", f"Bearer {SECRET}"), ("authorization", "Bearer other")]
    http.headers.pop("authorization")
    problem(http.get("/metrics", headers=both), AdminReason.TOKEN_MISSING)


def test_a_token_in_the_query_is_none(http: TestClient) -> None:
    answer = http.get("/metrics", params={"access_token": SECRET}, headers={"authorization": ""})
    problem(answer, AdminReason.TOKEN_MISSING)


@pytest.mark.parametrize("scheme", ["bearer", "BEARER"])
def test_the_scheme_is_read_in_any_case(http: TestClient, scheme: str) -> None:
    assert http.get("/metrics", headers={"authorization": f"{scheme} {SECRET}"}).status_code == 200


@pytest.mark.parametrize("row", [row for row in CALLS if row.right is None], ids=row_id)
def test_health_and_readiness_need_no_token(http: TestClient, row: Call) -> None:
    assert call(http, row, headers={"authorization": ""}).status_code == 200


# ---- the calls ------------------------------------------------------------------------------------------


def test_a_batch_goes_to_the_app_as_it_came(http: TestClient, services: FakeServices) -> None:
    answer = http.post("/v1/signals", content=BATCH)
    assert answer.json() == {"accepted": 0, "rejected": []}
    assert services.published == [(BATCH, "spiffe://prod.example/client")]


def test_a_body_that_is_no_batch_is_malformed(http: TestClient, services: FakeServices) -> None:
    services.fault = BadInputError("expected an object, found `[`")
    body = problem(http.post("/v1/signals", content=b"["), AdminReason.MALFORMED)
    assert body["detail"] == "expected an object, found `[`"


def test_signals_that_cannot_be_kept_are_not_taken(http: TestClient, services: FakeServices) -> None:
    services.fault = StateError("the disk is full")
    answer = http.post("/v1/signals", content=BATCH)
    problem(answer, AdminReason.NOT_KEPT)
    assert answer.headers["retry-after"] == "1"


def test_a_publisher_that_sends_too_much_is_told_when_to_try_again(
    http: TestClient, services: FakeServices
) -> None:
    services.fault = RateLimitedError("more than 5 values a second: try again in 3 s", 3)
    answer = http.post("/v1/signals", content=BATCH)
    body = problem(answer, AdminReason.RATE_LIMITED)
    assert body["detail"] == "more than 5 values a second: try again in 3 s"
    assert answer.headers["retry-after"] == "3"


def test_a_switch_says_who_and_which_signal(http: TestClient, services: FakeServices) -> None:
    assert http.post("/v1/publishers/disable", content=SWITCH).json() == {"publisher": "p"}
    one = {"id": "poll:posture_file", "signal": "posture"}
    assert http.post("/v1/publishers/enable", json=one).status_code == 200
    actor = "spiffe://prod.example/client"
    assert services.switched == [
        (actor, "spiffe://prod.example/mdm", None, False),
        (actor, "poll:posture_file", "posture", True),
    ]
    assert http.get("/v1/publishers").json() == {"publishers": []}


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"id":1}', b'{"signal":"a"}', b'{"id":"a","signal":null}', b'{"id":"a","x":"b"}'],
)
def test_a_switch_that_does_not_say_what_is_malformed(
    http: TestClient, services: FakeServices, body: bytes
) -> None:
    for path in ("/v1/publishers/disable", "/v1/publishers/enable"):
        problem(http.post(path, content=body), AdminReason.MALFORMED)
    assert services.switched == []


def test_a_switch_that_fails_says_why(http: TestClient, services: FakeServices) -> None:
    services.fault = UnknownPublisherError("no contract names the publisher or feed `a`")
    body = problem(http.post("/v1/publishers/disable", content=SWITCH), AdminReason.PUBLISHER_UNKNOWN)
    assert body["detail"] == "no contract names the publisher or feed `a`"
    services.fault = StateError("the disk is full")
    problem(http.post("/v1/publishers/disable", content=SWITCH), AdminReason.NOT_KEPT)
    services.fault = BadInputError("expected a SPIFFE ID")
    problem(http.post("/v1/publishers/disable", content=SWITCH), AdminReason.MALFORMED)


def test_a_revocation_goes_to_the_app_with_who_asked(http: TestClient, services: FakeServices) -> None:
    body = b'{"jti":"a","reason":"leaked"}'
    assert http.post("/v1/revocations", content=body).json() == {"revoked": {}}
    assert services.revoked == [("spiffe://prod.example/client", body)]
    assert http.get("/v1/revocations").json()["count"] == 100
    assert http.get("/v1/revocations", params={"limit": 7}).json()["count"] == 7
    problem(http.get("/v1/revocations?limt=7"), AdminReason.MALFORMED)


def test_a_revocation_that_fails_says_why(http: TestClient, services: FakeServices) -> None:
    services.fault = BadInputError("`digest`: expected 64 lower-case hex digits")
    body = problem(http.post("/v1/revocations", content=b"{}"), AdminReason.MALFORMED)
    assert body["detail"] == "`digest`: expected 64 lower-case hex digits"
    services.fault = RevocationsFullError("3 revocations are in force and no more are held")
    problem(http.post("/v1/revocations", content=b"{}"), AdminReason.REVOCATIONS_FULL)
    services.fault = StateError("the disk is full")
    problem(http.post("/v1/revocations", content=b"{}"), AdminReason.NOT_KEPT)


def test_listing_passes_subject_and_limit(http: TestClient, services: FakeServices) -> None:
    assert http.get("/v1/signals").json() == {"signals": [], "truncated": False}
    assert http.get("/v1/signals", params={"subject": 'Account::"4 2"', "limit": 7}).status_code == 200
    assert services.asked == [(None, 100), ('Account::"4 2"', 7)]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "limit=1&limit=2", "sbject=a", f"subject={'x' * 5_000}"]
)
def test_a_bad_parameter_is_malformed_and_not_repeated(
    http: TestClient, services: FakeServices, query: str
) -> None:
    answer = http.get(f"/v1/signals?{query}")
    problem(answer, AdminReason.MALFORMED)
    assert "xxxx" not in answer.text
    assert services.asked == []


def test_a_reload_answers_the_revision(http: TestClient) -> None:
    assert http.post("/v1/reload").json() == {"revision": "revision for spiffe://prod.example/client"}


def test_a_refused_reload_lists_every_finding(http: TestClient, services: FakeServices) -> None:
    services.fault = ConfigurationError(
        [Problem("error", "signals.yaml", 3, 5, "unknown_key", "unknown key `typ`")]
    )
    body = problem(http.post("/v1/reload"), AdminReason.CONFIGURATION_REFUSED)
    finding = {"severity": "error", "file": "signals.yaml", "line": 3, "column": 5, "code": "unknown_key"}
    assert body["findings"] == [{**finding, "message": "unknown key `typ`"}]


def test_not_ready_is_503_with_detail(http: TestClient, services: FakeServices) -> None:
    services.is_ready = False
    answer = http.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"ready": False})
    assert http.get("/healthz").status_code == 200


def test_metrics_are_passed_on_with_their_type(http: TestClient) -> None:
    answer = http.get("/metrics")
    assert answer.text == "# metrics\n"
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


# ---- security events ------------------------------------------------------------------------------------


def push(http: TestClient, query: str = "?feed=idp", **more: Any) -> Any:
    more = {"content": b"a.b.c", **more}
    return http.post(f"{SSF_PUSH}{query}", **more)


def err(answer: Any, code: str) -> None:
    """The answer is an error of RFC 8935, section 2.3."""
    assert (answer.status_code, answer.json()["err"]) == (400, code)
    assert answer.json().keys() == {"err", "description"}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-language"] == "en"
    assert answer.headers["cache-control"] == "no-store"
    assert SECRET not in answer.text


def test_a_pushed_event_goes_to_its_feed_as_it_came(http: TestClient, services: FakeServices) -> None:
    answer = push(http, headers={"content-type": "application/secevent+jwt"})
    assert (answer.status_code, answer.content) == (202, b"")
    assert services.pushed == [("idp", "application/secevent+jwt", b"a.b.c")]


def test_a_transmitter_that_may_not_push_is_told_in_the_words_of_the_rfc(
    http: TestClient, services: FakeServices
) -> None:
    err(push(http, headers={"authorization": ""}), "authentication_failed")
    err(push(http, headers={"authorization": "Bearer unknown"}), "authentication_failed")
    services.may = frozenset(Right) - {Right.PUBLISH}
    err(push(http), "access_denied")
    assert services.pushed == []
    assert [right for _, right, _ in services.refusals] == [Right.PUBLISH, Right.PUBLISH]


@pytest.mark.parametrize("query", ["", "?fed=idp", "?feed=idp&feed=b", "?feed=idp&x=1", f"?feed={'x' * 65}"])
def test_a_push_without_the_name_of_a_feed_is_malformed(
    http: TestClient, services: FakeServices, query: str
) -> None:
    err(push(http, query), "invalid_request")
    assert services.pushed == []


def test_an_event_that_is_too_large_is_refused_unread(http: TestClient, services: FakeServices) -> None:
    problem(push(http, headers={"content-length": str(MAX_BODY_BYTES + 1)}), AdminReason.TOO_LARGE)
    assert services.pushed == []


def test_an_operator_vouches_for_a_stream(http: TestClient, services: FakeServices) -> None:
    answer = http.post("/v1/ssf/resynchronise", content=b'{"feed":"idp"}')
    assert answer.json() == {"feed": "idp"}
    assert services.vouched == [("idp", "spiffe://prod.example/client")]
    problem(http.post("/v1/ssf/resynchronise", content=b'{"feed":"other"}'), AdminReason.NOT_FOUND)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b'{"feed":7}', b'{"feed":"idp","x":"y"}', b'"idp"']
)
def test_a_feed_that_is_not_named_as_asked_is_malformed(
    http: TestClient, services: FakeServices, body: bytes
) -> None:
    problem(http.post("/v1/ssf/resynchronise", content=body), AdminReason.MALFORMED)
    assert services.vouched == []


# ---- bounds and refusals --------------------------------------------------------------------------------


def test_a_body_that_announces_too_much_is_refused_unread(http: TestClient, services: FakeServices) -> None:
    headers = {"content-length": str(MAX_BODY_BYTES + 1)}
    problem(http.post("/v1/signals", content=b"x", headers=headers), AdminReason.TOO_LARGE)
    assert services.published == []


def test_a_streamed_body_is_refused_once_it_is_too_large(http: TestClient, services: FakeServices) -> None:
    def body() -> Iterator[bytes]:
        for _ in range(MAX_BODY_BYTES // 65_536 + 1):
            yield b"x" * 65_536

    problem(http.post("/v1/signals", content=body()), AdminReason.TOO_LARGE)
    assert services.published == []


def test_the_largest_body_is_taken(http: TestClient, services: FakeServices) -> None:
    assert http.post("/v1/signals", content=b"x" * MAX_BODY_BYTES).status_code == 200
    assert len(services.published[0][0]) == MAX_BODY_BYTES


def test_no_body_is_read_for_a_stranger(http: TestClient) -> None:
    headers = {"authorization": "Bearer unknown", "content-length": str(MAX_BODY_BYTES + 1)}
    problem(http.post("/v1/signals", content=b"x", headers=headers), AdminReason.TOKEN_REFUSED)


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/redoc", "/openapi.json", "/v1/signals/", "/v1", "//v1/signals"]
)
def test_an_unknown_path_is_a_problem_document(http: TestClient, path: str) -> None:
    problem(http.get(f"http://testserver{path}"), AdminReason.NOT_FOUND)


@pytest.mark.parametrize(
    ("method", "path"), [("DELETE", "/v1/signals"), ("GET", "/v1/reload"), ("POST", "/healthz")]
)
def test_another_method_is_a_problem_document_that_names_the_right_one(
    http: TestClient, method: str, path: str
) -> None:
    answer = http.request(method, path)
    problem(answer, AdminReason.METHOD_NOT_ALLOWED)
    assert set(answer.headers["allow"].split(", ")) <= {"GET", "POST"}


def test_a_fault_of_ours_is_answered_and_said_without_the_token(
    http: TestClient, services: FakeServices, caplog: pytest.LogCaptureFixture
) -> None:
    services.fault = RuntimeError("the moon fell down")
    with caplog.at_level(logging.DEBUG):
        answer = http.get("/v1/signals")
    problem(answer, AdminReason.INTERNAL)
    assert "moon" not in answer.text
    assert "the moon fell down" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/v1/signals", "/nowhere"])
def test_no_answer_is_kept_by_a_cache(http: TestClient, path: str) -> None:
    answer = http.get(path)
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
