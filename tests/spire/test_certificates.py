"""X.509-SVIDs of the real agent, at the real Envoy, which takes its own from the same agent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from signalwarden.demo_stage import wait_for
from tests.spire.real import ENTRY_SECONDS, Agent, Workload, wait_out
from tests.spire.stage import ACCOUNT, CLIENT, EVERYBODY, Edge, Warden, decision_id

# SPIRE rotates at half-life, and counts the 10 s by which it backdates: 3 s after the issue.
QUICK_SECONDS = 16
ROTATION_LIMIT_SECONDS = 90.0


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
    used: list[str] = []
    answers: list[httpx.Response] = []
    deadline = time.monotonic() + ROTATION_LIMIT_SECONDS
    kept = caller.x509(tmp_path / "kept")
    # Opened once: connections outlive the certificate of both ends.
    with edge.client(kept, kept.bundle) as old:
        while len(set(used)) < 4:
            assert time.monotonic() < deadline, f"only {len(set(used))} certificates were seen"
            identity = caller.x509(tmp_path / str(len(used)))
            used.append(identity.sha256)
            with edge.client(identity, identity.bundle) as client:
                answers += [client.get(ACCOUNT) for _ in range(40)]
            answers.append(old.get(ACCOUNT))
    assert {answer.status_code for answer in answers} == {200}
    records = [warden.record(decision_id(answer)) for answer in answers]
    assert {record["principal"]["certificate_sha256"] for record in records} == {*used, kept.sha256}


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
