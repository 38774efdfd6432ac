"""Vectors through the real Envoy: what path it shows a decision point, and reasons and routes of the real one."""

from __future__ import annotations

import http.client
import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from envoy_data_plane.envoy.service.auth.v3 import CheckResponse
from envoy_data_plane.google.rpc import Status

from signalwarden import _core, starter
from signalwarden.demo_stage import free_port, start_server
from tests import asking
from tests.e2e.conftest import Product, make_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from signalwarden.demo_stage import Credential
    from tests.e2e.conftest import RunningEnvoy, Scripted, Stage

ALLOW = bytes(CheckResponse(status=Status(code=0)))
PATHS: list[dict[str, str]] = [
    case for vectors in asking.vectors("envoy/path_normalisation.json") for case in vectors["cases"]
]
REASONS: dict[str, Any] = asking.vectors("reasons.json")[0]
ROUTES: dict[str, Any] = asking.vectors("routes.json")[0]
HTTP_STATUS = {code: status for code, status, *_ in _core.reasons()}
STARTER_PUBLISHER = "spiffe://prod.example/ns/signals/sa/publisher"
TIMEOUT_S = 15


def send(
    stage: Stage,
    port: int,
    credential: Credential,
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes | None,
) -> tuple[int, bytes, dict[str, str]]:
    """One request as it is written here: no client between that repairs the path or adds to it."""
    connection = http.client.HTTPSConnection(
        "localhost", port, context=stage.authority.trust(credential), timeout=TIMEOUT_S
    )
    try:
        connection.putrequest(method, path, skip_host="host" in headers, skip_accept_encoding=True)
        length = {} if body is None else {"content-length": str(len(body))}
        for name, value in (headers | length).items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()


# ---- what path is shown -----------------------------------------------------------------------------------


def edited(hcm: str) -> Callable[[str], str]:
    """The shipped configuration, which leaves paths alone, with the options that a case names switched on."""

    def edit(text: str) -> str:
        if "normalize_path" in hcm:
            assert "normalize_path: false" in text
            text = text.replace("normalize_path: false", "normalize_path: true")
        if "+ merge_slashes" in hcm:
            assert "merge_slashes: false" in text
            text = text.replace("merge_slashes: false", "merge_slashes: true")
        return text

    return edit


@pytest.fixture(scope="module")
def envoys(
    run_envoy: Callable[..., RunningEnvoy], scripted_directory: Path, scripted_envoy: RunningEnvoy
) -> dict[str, RunningEnvoy]:
    """One Envoy for each set of options."""
    off = {"default off": scripted_envoy}
    others = {case["hcm"] for case in PATHS} - {*off}
    return off | {hcm: run_envoy(scripted_directory, edit=edited(hcm)) for hcm in sorted(others)}


@pytest.mark.parametrize("case", PATHS, ids=lambda case: f"{case['hcm']}: {case['sent']}")
def test_envoy_shows_the_path_that_its_vector_says(
    case: dict[str, str], envoys: dict[str, RunningEnvoy], scripted: Scripted, stage: Stage
) -> None:
    scripted.answer = ALLOW
    status, _, _ = send(stage, envoys[case["hcm"]].port, stage.agent, "GET", case["sent"], {}, None)
    assert status == 200
    attributes = scripted.request().attributes
    assert attributes is not None
    assert attributes.request is not None
    assert attributes.request.http is not None
    assert attributes.request.http.path == case["seen"]


# ---- the real decision point ------------------------------------------------------------------------------


@dataclass
class Running:
    """A decision point with the directory of a vector file, behind an Envoy."""

    product: Product
    envoy: RunningEnvoy


@pytest.fixture(scope="module")
def run_directory(
    run_envoy: Callable[..., RunningEnvoy], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[dict[str, str]], Running]]:
    started: list[Product] = []

    def run(files: dict[str, str]) -> Running:
        base = tmp_path_factory.mktemp("vectors")
        check_port, admin_port = free_port(), free_port()
        made = make_directory(base / "config", check_port, admin_port)
        shutil.rmtree(made.directory / "policies")
        for name, text in files.items():
            path = made.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        process = start_server(made.directory, admin_port, base / "serve-1.log")
        started.append(Product(made, check_port, admin_port, process))
        return Running(started[-1], run_envoy(made.directory))

    yield run
    for product in started:
        product.process.stop()


def through_envoy(case: dict[str, Any]) -> bool:
    """What a client can bring about: no state or settings of the server, no certificate that Envoy refuses, no pseudo
    header, no announced body that never comes. Tokens go through the real Envoy in `tests/spire`."""
    request = case["request"]
    return not (
        {"log", "engine", "token", "require_record"} & {*case}
        or "principal" in request
        or {":path", "content-length"} & {*request.get("headers", {})}
    )


@pytest.fixture(scope="module")
def accounts(run_directory: Callable[[dict[str, str]], Running]) -> Running:
    files: dict[str, str] = dict(REASONS["directory"])
    files["signals.yaml"] = files["signals.yaml"].replace(asking.PUBLISHER, STARTER_PUBLISHER)
    return run_directory(files)


@pytest.mark.parametrize(
    "case",
    [c for c in REASONS["cases"] if through_envoy(c)],
    ids=lambda case: f"{case['reason']}: {case['why']}",
)
def test_a_client_is_told_the_reason_of_its_vector(
    case: dict[str, Any], accounts: Running, stage: Stage
) -> None:
    # A caller of its own for each set of signals: nobody takes a published signal back.
    caller = f"spiffe://prod.example/agent-{len(case.get('signals', REASONS['signals']))}"
    for signal in case.get("signals", REASONS["signals"]):
        accounts.product.publish(signal["name"], signal["value"], caller)
    request = case["request"]
    headers = {"host": "pay.prod.example", **request.get("headers", {})}
    body = request["body"].encode() if "body" in request else None
    if body is not None:
        headers["content-type"] = "application/json"
    credential = stage.authority.issue(caller)
    answer = send(stage, accounts.envoy.port, credential, request["method"], request["path"], headers, body)
    status, content, shown = answer
    assert status == HTTP_STATUS[case["reason"]], content
    if case["reason"] == "allowed":
        upstream = dict(json.loads(content)["headers"])
        decision_id = upstream["x-signalwarden-decision-id"]
        assert upstream["x-signalwarden-principal"] == caller
    else:
        problem = json.loads(content)
        assert problem["reason"] == case["reason"]
        assert shown["content-type"] == "application/problem+json"
        decision_id = problem["decision_id"]
    record = accounts.product.record(decision_id)
    assert (record["reason"], record["request"]["path"]) == (
        case["reason"],
        request["path"].partition("?")[0],
    )


# A handful that shows what Envoy itself does to a request on its way: the core's own tests have them all.
HANDFUL = (
    "the example of the documentation",
    "an optional query argument is read",
    "an optional body argument is read from below",
    "what is not named does not count, not even badly encoded",
    "a host is compared in lower case without port and final dot",
    "a required body argument that is absent is malformed",
    "a required body argument that is repeated is malformed",
    "a rest holds slashes",
    "every type is read from a query",
    "the path `/v1//users/a` is unknown",
    "the path `/v1/users/%252e` is unknown",
    "the path `/v1/users/a;b=c` is unknown",
    "optional body arguments may have no body at all",
)
BANK = {case["name"]: case for case in ROUTES["cases"]}


@pytest.fixture(scope="module")
def bank(run_directory: Callable[[dict[str, str]], Running]) -> Running:
    types = ("Workload", "Account", "User", "File", "Index", "Profile")
    return run_directory(
        {
            "routes.yaml": ROUTES["tables"]["bank"],
            "signals.yaml": "signals: {}\n",
            "entities.cedarschema": "\n".join(f"entity {name};" for name in types),
            "entities.json": "[]\n",
            "policies/all.cedar": "permit (principal, action, resource);\n",
        }
    )


@pytest.mark.parametrize("name", HANDFUL)
def test_a_request_means_what_its_vector_says_behind_envoy_too(
    name: str, bank: Running, stage: Stage
) -> None:
    case = BANK[name]
    request, expected = case["request"], case["expect"]
    headers = {"host": request["host"], **request.get("headers", {})}
    body = request["body"].encode() if "body" in request else None
    answer = send(stage, bank.envoy.port, stage.agent, request["method"], request["path"], headers, body)
    status, content, _ = answer
    if "reason" in expected:
        assert (status, json.loads(content)["reason"]) == (
            HTTP_STATUS[expected["reason"]],
            expected["reason"],
        )
        return
    assert status == 200, content
    decision_id = dict(json.loads(content)["headers"])["x-signalwarden-decision-id"]
    record = bank.product.record(decision_id)
    assert record["principal"]["id"] == starter.AGENT
    shown = {key: record["request"].get(key, {}) for key in ("action", "resource", "args")}
    assert shown == {key: expected[key] for key in shown}
