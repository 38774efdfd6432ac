"""X.509-SVIDs of the real agent, at the real Envoy, which takes its own from the same agent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from signalwarden.demo_stage import wait_for
from tests.spire.real import ENTRY_SECONDS, Agent, Workload, wait_out
from tests.spire.stage import ACCOUNT, CLIENT, EVERYBODY, Edge, Warden, ask_steadily, decision_id

# SPIRE rotates at half-life, and counts the 10 s by which it backdates: 3 s after the issue.
QUICK_SECONDS = 16
# Until a change of the bundle has come to agent, Envoy and callers: it takes one or two.
SPREAD_SECONDS = 4.0


@pytest.fixture(scope="module")
def caller(new_workload: Callable[[str], Workload]) -> Workload:
    workload = new_workload("refunds")
    workload.register(CLIENT)
    return workload


@pytest.fixture(scope="module")
def warden(base: Path) -> Iterator[Warden]:
    with Warden.create(base / "plain").serving() as made:
        yield made


@pytest.fixture(scope="module")
def edge(warden: Warden, spire_agent: Agent, new_edge: Callable[..., Edge]) -> Edge:
    return new_edge(warden, spire_agent)


def test_the_record_names_who_asked_and_the_certificate(
    edge: Edge, warden: Warden, caller: Workload, tmp_path: Path
) -> None:
    identity = caller.x509(tmp_path / "svid")
    answer = edge.ask(identity)
    assert answer.status_code == 200, answer.text
    principal = warden.record(decision_id(answer))["principal"]
    assert principal["id"] == CLIENT
    assert principal["certificate_sha256"] == identity.sha256
    assert int(principal["serial"], 16) == identity.serial


def test_another_policy_decides_the_next_request_of_the_same_certificate(
    edge: Edge, warden: Warden, caller: Workload, tmp_path: Path
) -> None:
    # I7: authorization changes, the identity does not.
    identity = caller.x509(tmp_path / "svid")
    with edge.client(identity, identity.bundle) as client:
        before = client.get(ACCOUNT)
        warden.policy(f'{EVERYBODY}forbid (principal == Workload::"{CLIENT}", action, resource);\n')
        after = client.get(ACCOUNT)
        warden.policy(EVERYBODY)
        again = client.get(ACCOUNT)
    assert [answer.status_code for answer in (before, after, again)] == [200, 403, 200]
    records = [warden.record(decision_id(answer)) for answer in (before, after, again)]
    assert {record["principal"]["certificate_sha256"] for record in records} == {identity.sha256}
    assert len({record["policies"]["revision"] for record in records}) == 2


def test_svids_rotate_under_steady_requests_and_none_is_lost(
    edge: Edge, warden: Warden, new_workload: Callable[[str], Workload], tmp_path: Path
) -> None:
    caller = new_workload("rotating")
    caller.register("spiffe://prod.example/agents/rotating", x509_seconds=QUICK_SECONDS)
    seen = ask_steadily(edge, caller, tmp_path, lambda seen: len(set(seen.certificates)) >= 4)
    assert seen.lost == []
    records = [warden.record(decision_id(answer)) for answer in seen.answers]
    assert {record["principal"]["certificate_sha256"] for record in records} == {*seen.certificates}


def test_the_authority_rotates_under_steady_requests_and_none_is_lost(
    new_domain: Callable[[str], Agent],
    new_edge: Callable[..., Edge],
    warden: Warden,
    tmp_path: Path,
) -> None:
    agent = new_domain("prod.example")
    caller = Workload.create(agent, "lasting")
    caller.register("spiffe://prod.example/agents/lasting")
    edge = new_edge(warden, agent)
    edge.ask(caller.x509(tmp_path / "before"))

    def rotate() -> None:
        old = agent.server.next_authority("x509")
        time.sleep(SPREAD_SECONDS)
        agent.server.forget_authority("x509", old, wait_s=SPREAD_SECONDS)
        time.sleep(SPREAD_SECONDS)

    with ThreadPoolExecutor(1) as pool:
        rotated = pool.submit(rotate)
        seen = ask_steadily(edge, caller, tmp_path / "steady", lambda _: rotated.done())
        rotated.result()
    assert seen.lost == []
    assert len(set(seen.certificates)) >= 2


def test_a_deleted_entry_ends_the_identity_with_its_last_certificate(
    edge: Edge, warden: Warden, new_workload: Callable[[str], Workload], tmp_path: Path
) -> None:
    caller = new_workload("leaving")
    entry = caller.register("spiffe://prod.example/agents/leaving", x509_seconds=QUICK_SECONDS)
    caller.agent.server.delete_entry(entry)
    last = caller.x509(tmp_path / "last")
    with edge.client(last, last.bundle) as client:
        assert client.get(ACCOUNT).status_code == 200
        wait_for("no identity", lambda: not caller.identities(), ENTRY_SECONDS)
        wait_out(last)
        with pytest.raises(httpx.HTTPError):
            edge.ask(last)
        # The connection was made while the certificate was good; each request on it is decided anew.
        answer = client.get(ACCOUNT)
    assert (answer.status_code, answer.json()["reason"]) == (401, "identity_invalid")
    assert warden.record(decision_id(answer))["outcome"] == "deny"
