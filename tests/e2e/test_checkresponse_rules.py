"""Our reading of what Envoy does with an answer, proved against the real one: a row of the vectors, a fact here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
from envoy_data_plane.envoy.config.core.v3 import (
    HeaderValue,
    HeaderValueOption,
    HeaderValueOptionHeaderAppendAction,
    QueryParameter,
)
from envoy_data_plane.envoy.service.auth.v3 import CheckResponse, DeniedHttpResponse, OkHttpResponse
from envoy_data_plane.envoy.type.v3 import HttpStatus, StatusCode
from envoy_data_plane.google.protobuf import Struct
from envoy_data_plane.google.rpc import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import RunningEnvoy, Scripted

VECTORS = Path(__file__).parent.parent / "vectors" / "envoy" / "checkresponse_rules.json"
PATH = "/v1/accounts/42"
Action = HeaderValueOptionHeaderAppendAction
# It is deprecated, and it still wins.
pytestmark = pytest.mark.filterwarnings("ignore:HeaderValueOption.append is deprecated")

# Rows that can't be seen from outside, with the reason.
UNSEEN = {
    "denied-http-status-1xx": "undefined: a debug Envoy stops at an assertion, so we never send one",
    "route-cache": "the shipped configuration never clears the route cache",
}
PROVED: set[str] = set()


def proves(*rules: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def mark(test: Callable[..., None]) -> Callable[..., None]:
        PROVED.update(rules)
        return test

    return mark


def header(key: str, value: str, **how: Any) -> HeaderValueOption:
    return HeaderValueOption(header=HeaderValue(key=key, value=value), **how)


def allow(*headers: HeaderValueOption, **ok: Any) -> bytes:
    return bytes(CheckResponse(status=Status(code=0), ok_response=OkHttpResponse(headers=[*headers], **ok)))


def deny(code: int = 7, **denied: Any) -> bytes:
    return bytes(
        CheckResponse(
            status=Status(code=code), denied_response=DeniedHttpResponse(**denied) if denied else None
        )
    )


class Caller:
    """Sends one request with a given answer behind it, and tells what the client and the upstream saw."""

    def __init__(self, envoy: RunningEnvoy, scripted: Scripted) -> None:
        self.envoy = envoy
        self.scripted = scripted

    def __call__(
        self, answer: bytes | grpc.StatusCode, path: str = PATH, headers: dict[str, str] | None = None
    ) -> tuple[httpx.Response, dict[str, Any] | None]:
        self.scripted.answer = answer
        calls = self.envoy.stage.upstream.calls
        calls.clear()
        response = self.envoy.agent.get(path, headers=headers)
        assert self.scripted.asked, "Envoy did not ask"
        return response, calls[0] if calls else None


@pytest.fixture
def call(scripted_envoy: RunningEnvoy, scripted: Scripted) -> Caller:
    return Caller(scripted_envoy, scripted)


def values(seen: dict[str, Any] | None, name: str) -> list[str]:
    assert seen is not None, "the request did not reach the upstream"
    return [value for key, value in seen["headers"] if key == name]


# ---- the status decides -----------------------------------------------------------------------------------


@proves("empty-response-is-allow")
def test_an_empty_answer_lets_the_request_through(call: Caller) -> None:
    response, seen = call(b"")
    assert (response.status_code, seen is not None) == (200, True)


@proves("ok-status-with-denied_response")
def test_a_denial_beside_an_ok_status_lets_the_request_through(call: Caller) -> None:
    response, seen = call(deny(code=0, status=HttpStatus(code=StatusCode.Forbidden)))
    assert (response.status_code, seen is not None) == (200, True)


@proves("denied-status-with-ok_response", "denied-default-403")
def test_an_ok_response_beside_a_denying_status_is_an_empty_403(call: Caller) -> None:
    answer = CheckResponse(status=Status(code=7), ok_response=OkHttpResponse(headers=[header("x-a", "b")]))
    response, seen = call(bytes(answer))
    assert (response.status_code, response.content, seen) == (403, b"", None)


@proves("denied-status-any-code")
@pytest.mark.parametrize("code", range(1, 17))
def test_every_other_status_denies(call: Caller, code: int) -> None:
    response, seen = call(deny(code))
    assert (response.status_code, seen) == (403, None)


@proves("denied-http-status-0")
def test_http_status_0_becomes_403(call: Caller) -> None:
    response, seen = call(deny(status=HttpStatus(code=StatusCode(0)), body="no"))
    assert (response.status_code, response.text, seen) == (403, "no", None)


@proves("denied-http-status-unchecked")
def test_a_denial_with_200_reaches_the_client_as_200_though_not_the_upstream(call: Caller) -> None:
    response, seen = call(deny(status=HttpStatus(code=StatusCode.OK), body="looks fine"))
    assert (response.status_code, response.text, seen) == (200, "looks fine", None)


@proves("grpc-error")
def test_a_grpc_error_is_a_503_by_the_shipped_configuration(call: Caller) -> None:
    response, seen = call(grpc.StatusCode.INTERNAL)
    assert (response.status_code, response.content, seen) == (503, b"", None)


@proves("error_response")
def test_an_error_response_opens_a_door_that_a_denial_keeps_shut(
    run_envoy: Callable[..., RunningEnvoy], scripted_directory: Path, scripted: Scripted
) -> None:
    """Why we never use it: with failure_mode_allow, which is not ours to set everywhere, it is an allow."""
    open_minded = run_envoy(
        scripted_directory,
        edit=lambda text: text.replace("failure_mode_allow: false", "failure_mode_allow: true"),
    )
    call = Caller(open_minded, scripted)
    response, seen = call(bytes(CheckResponse(status=Status(code=14), error_response=DeniedHttpResponse())))
    assert (response.status_code, seen is not None) == (200, True)
    response, seen = call(deny(14, status=HttpStatus(code=StatusCode.ServiceUnavailable)))
    assert (response.status_code, seen) == (503, None)


@proves("error_response-with-ok-status")
def test_an_error_response_beside_an_ok_status_is_an_allow(call: Caller) -> None:
    answer = CheckResponse(status=Status(code=0), error_response=DeniedHttpResponse(body="no"))
    response, seen = call(bytes(answer))
    assert (response.status_code, seen is not None) == (200, True)


# ---- headers for the upstream -----------------------------------------------------------------------------


@proves("append-true-absent-header")
def test_an_appended_header_that_the_client_did_not_send_is_dropped(call: Caller) -> None:
    _, seen = call(allow(header("x-id", "ours", append=True)))
    assert values(seen, "x-id") == []


@proves("append-true-existing-header")
def test_an_appended_header_leaves_the_clients_value_in_front(call: Caller) -> None:
    _, seen = call(allow(header("x-id", "ours", append=True)), headers={"x-id": "evil"})
    assert ",".join(values(seen, "x-id")) == "evil,ours"


@proves("append-bool-wins", "append_action-on-request-headers")
@pytest.mark.parametrize("action", list(Action))
def test_append_false_overwrites_whatever_the_action_says(call: Caller, action: Action) -> None:
    _, seen = call(
        allow(header("x-id", "ours", append=False, append_action=action)), headers={"x-id": "evil"}
    )
    assert values(seen, "x-id") == ["ours"]


@proves("order")
def test_a_header_both_set_and_removed_is_removed(call: Caller) -> None:
    _, seen = call(allow(header("x-id", "ours", append=False), headers_to_remove=["x-id"]))
    assert values(seen, "x-id") == []


def test_a_removed_header_does_not_reach_the_upstream(call: Caller) -> None:
    _, seen = call(
        allow(headers_to_remove=["x-signalwarden-grant"]), headers={"x-signalwarden-grant": "secret"}
    )
    assert values(seen, "x-signalwarden-grant") == []


@proves("headers_to_remove-pseudo")
@pytest.mark.parametrize("name", [":path", ":method", "host", ":authority"])
def test_what_makes_a_request_is_never_removed(call: Caller, name: str) -> None:
    """Envoy alone would ignore it; with the shipped mutation rules the attempt is an error."""
    response, seen = call(allow(headers_to_remove=[name]))
    assert (response.status_code, seen) == (500, None)


@proves("headers_to_remove-invalid-name")
def test_an_invalid_name_to_remove_is_ignored(call: Caller) -> None:
    response, seen = call(allow(headers_to_remove=["in valid"]))
    assert (response.status_code, seen is not None) == (200, True)


@pytest.mark.parametrize("name", [":path", ":method", ":authority", "host", "x-envoy-original-path"])
def test_the_shipped_rules_answer_500_to_an_answer_that_moves_the_request_elsewhere(
    call: Caller, name: str
) -> None:
    response, seen = call(allow(header(name, "/elsewhere", append=False)))
    assert (response.status_code, seen) == (500, None)


def test_headers_for_the_client_are_added_to_an_allowed_response(call: Caller) -> None:
    response, _ = call(allow(response_headers_to_add=[header("x-from-us", "yes")]))
    assert (response.status_code, response.headers["x-from-us"]) == (200, "yes")


# ---- what is malformed ------------------------------------------------------------------------------------


@proves("append_action-enum-invalid")
def test_an_unknown_append_action_overwrites(call: Caller) -> None:
    """Older ones answer 500 with validate_mutations, or ignore the header. We send only 0 to 3."""
    option = bytes(header("x-id", "ours")) + bytes([0x18, 99])
    ok = bytes([0x12, len(option)]) + option
    response, seen = call(bytes([0x1A, len(ok)]) + ok, headers={"x-id": "evil"})
    assert (response.status_code, values(seen, "x-id")) == (200, ["ours"])


@proves("validate-header-name")
def test_an_invalid_header_name_is_a_500(call: Caller) -> None:
    response, seen = call(allow(header("in valid\n", "x", append=False)))
    assert (response.status_code, seen) == (500, None)


@proves("validate-header-value")
@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\0b"])
def test_an_invalid_header_value_is_a_500_wherever_it_stands(call: Caller, value: str) -> None:
    for answer in (
        allow(header("x-id", value, append=False)),
        allow(response_headers_to_add=[header("x-id", value)]),
        deny(headers=[header("x-id", value)]),
    ):
        response, seen = call(answer)
        assert (response.status_code, seen) == (500, None)


@proves("header-limit")
def test_an_answer_that_makes_too_many_headers_is_a_500(call: Caller) -> None:
    response, seen = call(allow(*(header(f"x-{n}", "v", append=False) for n in range(200))))
    assert (response.status_code, seen) == (500, None)


# ---- query parameters -------------------------------------------------------------------------------------


@proves("query-set-overwrite")
def test_a_repeated_query_parameter_keeps_the_last_value(call: Caller) -> None:
    twice = [QueryParameter(key="a", value="1"), QueryParameter(key="a", value="2")]
    _, seen = call(allow(query_parameters_to_set=twice), path=f"{PATH}?a=0&b=3")
    assert seen is not None
    assert sorted(seen["path"].partition("?")[2].split("&")) == ["a=2", "b=3"]


@proves("query-set-not-urlencoded")
def test_a_query_parameter_that_is_not_encoded_is_a_500(call: Caller) -> None:
    response, seen = call(allow(query_parameters_to_set=[QueryParameter(key="foo", value="b a r")]))
    assert (response.status_code, seen) == (500, None)


@proves("query-remove-case")
def test_query_parameters_are_removed_by_their_exact_name(call: Caller) -> None:
    _, seen = call(allow(query_parameters_to_remove=["A"]), path=f"{PATH}?a=1&A=2")
    assert seen is not None
    assert seen["path"] == f"{PATH}?a=1"


# ---- denials and metadata ---------------------------------------------------------------------------------


def test_a_denial_carries_its_status_headers_and_body(call: Caller) -> None:
    problem = '{"reason":"policy_denied"}'
    status = HttpStatus(code=StatusCode.TooManyRequests)
    headers = [header("content-type", "application/problem+json"), header("retry-after", "3")]
    response, seen = call(deny(status=status, headers=headers, body=problem))
    assert (response.status_code, response.text, seen) == (429, problem, None)
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["retry-after"] == "3"


def test_a_denial_may_redirect(call: Caller) -> None:
    status = HttpStatus(code=StatusCode.Found)
    response, seen = call(deny(status=status, headers=[header("location", "https://login.example/")]))
    assert (response.status_code, response.headers["location"], seen) == (302, "https://login.example/", None)


@proves("denied-append-headers-dropped")
def test_an_appended_header_of_a_denial_is_dropped_and_a_repeated_one_is_kept(call: Caller) -> None:
    cookies = [header("set-cookie", "a=1"), header("set-cookie", "b=2")]
    response, _ = call(deny(headers=[header("x-appended", "v", append=True), *cookies]))
    assert response.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert "x-appended" not in response.headers


@proves("denied-body-truncate")
def test_a_body_above_the_limit_is_cut(call: Caller) -> None:
    response, _ = call(deny(body="x" * 20_000))
    assert len(response.content) == 16 * 1024


@proves("dynamic_metadata")
@pytest.mark.parametrize("denied", [False, True])
def test_metadata_reaches_the_access_log_of_allowed_and_denied_requests(call: Caller, denied: bool) -> None:
    metadata = Struct.from_dict(
        {"signalwarden": {"decision_id": "d-1", "reason": "because", "revision": "r"}}
    )
    status = Status(code=7 if denied else 0)
    call(bytes(CheckResponse(status=status, dynamic_metadata=metadata)))
    request = call.scripted.request().attributes
    assert request is not None
    assert request.request is not None
    assert request.request.http is not None
    assert request.request.http.header_map is not None
    sent = {h.key: h.raw_value.decode() for h in request.request.http.header_map.headers}
    line = call.envoy.access_log(sent["x-request-id"])
    assert (line["decision_id"], line["reason"], line["revision"]) == ("d-1", "because", "r")
    assert line["status"] == (403 if denied else 200)


def test_every_row_is_proved_or_says_why_not() -> None:
    rows = {row["id"] for row in json.loads(VECTORS.read_text())["rules"]}
    assert rows == PROVED | set(UNSEEN)
    assert not PROVED & set(UNSEEN)
