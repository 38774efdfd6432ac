"""JWT-SVIDs of the real agent as the only proof of a caller: at the real Envoy, through the whole check."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from signalwarden.demo_stage import wait_for
from tests.spire.real import ENTRY_SECONDS, Agent, Workload, python_selector
from tests.spire.stage import ACCOUNT, WARDEN, Edge, Warden, decision_id

CALLER = "spiffe://prod.example/agents/tokens"
AUDIENCE = "payments"
# Two syncs of the agent, on a loaded machine.
AT_ONCE_SECONDS = 8.0
ADMIN = "signalwarden-admin"


@pytest.fixture(scope="module")
def agent(new_domain: Callable[[str], Agent]) -> Agent:
    """A domain of our own, since we take keys from it."""
    agent = new_domain("prod.example")
    agent.server.entry(WARDEN, python_selector(), node=agent.node)
    return agent


@pytest.fixture(scope="module")
def warden(base: Path, agent: Agent) -> Iterator[Warden]:
    settings = (
        f'workload_api: "{agent.address}"\n'
        f"identity: {{sources: [envoy_peer, jwt_svid], jwt_svid: {{audience: [{AUDIENCE}]}}, "
        f"admin_audience: {ADMIN}}}\n"
    )
    with Warden.create(base / "tokens", settings, client=CALLER).serving() as made:
        yield made


@pytest.fixture(scope="module")
def caller(agent: Agent) -> Workload:
    workload = Workload.create(agent, "tokens")
    workload.register(CALLER)
    return workload


@pytest.fixture(scope="module")
def edge(warden: Warden, agent: Agent, new_edge: Callable[..., Edge]) -> Edge:
    return new_edge(warden, agent, also_without=True)


@pytest.fixture
def client(edge: Edge, agent: Agent, tmp_path: Path) -> Iterator[httpx.Client]:
    """Over TLS, without a certificate."""
    with edge.client(None, agent.server.authorities(tmp_path / "ours.pem")) as made:
        yield made


def ask(client: httpx.Client, token: str) -> httpx.Response:
    return client.get(ACCOUNT, headers={"authorization": f"Bearer {token}"})


def reason(answer: httpx.Response) -> str:
    return "allowed" if answer.status_code == 200 else str(answer.json()["reason"])


def test_a_jwt_svid_proves_its_caller_and_the_record_says_how_but_not_the_token(
    client: httpx.Client, warden: Warden, caller: Workload
) -> None:
    token = caller.jwt(AUDIENCE)
    answers = [ask(client, token) for _ in range(3)]
    assert [reason(answer) for answer in answers] == ["allowed"] * 3
    for answer in answers:
        principal = warden.record(decision_id(answer))["principal"]
        assert (principal["id"], principal["source"]) == (CALLER, "jwt_svid")
        [of] = principal["tokens"]
        assert (of["class"], of["issuer"], of["subject"]) == ("jwt_svid", "prod.example", CALLER)
    written = (warden.directory / "var" / "decisions.jsonl").read_text()
    written += "".join(log.read_text() for log in warden.directory.parent.glob("serve-*.log"))
    assert token not in written
    assert token.split(".")[2] not in written


def test_a_jwt_svid_for_somebody_else_is_refused(
    client: httpx.Client, warden: Warden, caller: Workload
) -> None:
    answer = ask(client, caller.jwt("another"))
    assert reason(answer) == "token_invalid"
    assert warden.record(decision_id(answer))["reason"] == "token_invalid"


def test_a_jwt_svid_with_another_signature_is_refused(client: httpx.Client, caller: Workload) -> None:
    head, body, _ = caller.jwt(AUDIENCE).split(".")
    *_, signature = caller.jwt("another").split(".")
    assert reason(ask(client, f"{head}.{body}.{signature}")) == "token_invalid"


def test_a_certificate_of_one_and_a_token_of_another_are_nobody(
    edge: Edge, agent: Agent, caller: Workload, tmp_path: Path
) -> None:
    other = Workload.create(agent, "other")
    other.register("spiffe://prod.example/agents/other")
    identity = other.x509(tmp_path / "svid")
    header = {"authorization": f"Bearer {caller.jwt(AUDIENCE)}"}
    assert reason(edge.ask(identity, header)) == "identity_invalid"


def test_a_token_ends_with_its_time(client: httpx.Client, agent: Agent) -> None:
    workload = Workload.create(agent, "brief")
    workload.register("spiffe://prod.example/agents/brief", jwt_seconds=4)
    token = workload.jwt(AUDIENCE)
    assert reason(ask(client, token)) == "allowed"
    time.sleep(4.5)
    assert reason(ask(client, token)) == "token_expired"


def test_a_jwt_svid_is_the_proof_of_a_client_of_the_admin_api(
    warden: Warden, agent: Agent, caller: Workload
) -> None:
    stranger = Workload.create(agent, "stranger")
    stranger.register("spiffe://prod.example/agents/stranger")

    def status(token: str) -> int:
        with warden.admin() as client:
            answer = client.get("/v1/signals", headers={"authorization": f"Bearer {token}"})
        return answer.status_code

    good = caller.jwt(ADMIN)
    assert [status(good) for _ in range(2)] == [200, 200]
    # Of a call's audience, and of one that is no client.
    assert status(caller.jwt(AUDIENCE)) == 401
    assert status(stranger.jwt(ADMIN)) == 401
    assert good not in "".join(log.read_text() for log in warden.directory.parent.glob("serve-*.log"))


def test_a_key_that_is_revoked_takes_its_tokens_with_it_and_the_next_key_counts(
    client: httpx.Client, agent: Agent, caller: Workload
) -> None:
    before = caller.jwt(AUDIENCE)
    assert reason(ask(client, before)) == "allowed"
    agent.server.rotate_jwt_authority()
    wait_for("a denial", lambda: reason(ask(client, before)) == "token_invalid", ENTRY_SECONDS)

    def with_the_new_key() -> bool:
        return reason(ask(client, caller.jwt(AUDIENCE))) == "allowed"

    # The first of them may come before its key: that it was refused then is not held against it.
    wait_for("an allow", with_the_new_key, AT_ONCE_SECONDS)
    assert reason(ask(client, before)) == "token_invalid"
