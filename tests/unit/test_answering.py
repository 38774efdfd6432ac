"""`answering`: whatever fails around a decision, its call has an answer that denies and one record that says so (I4, I5)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence

import pytest

from signalwarden import _core
from signalwarden.answering import Answering
from signalwarden.errors import StateError
from signalwarden.settings import Settings
from tests import asking
from tests.minting import AUDIENCE, ISSUER, Issuer

FILES = {
    "routes.yaml": """\
routes:
  - match: {host: "pages.example", method: POST, path: "/transfers/{id}"}
    action: transfer.create
    resource: {type: Page, id: "{id}"}
    tier: approval
    sensitivity: high
default: deny
""",
    "entities.cedarschema": "entity Workload;\nentity Page;\n",
    "policies/all.cedar": "permit (principal, action, resource);\n"
    'permit (principal, action == Action::"approval.give", resource);\n',
}
FAULTS = [StateError("the disk is full"), RuntimeError("planted"), KeyError("planted"), MemoryError()]


class Keeping:
    """Takes changes in, unless it fails."""

    def __init__(self, engine: _core.Engine, fault: Exception | None = None) -> None:
        self._engine = engine
        self.fault = fault

    def keep(self, make: Callable[[], Sequence[_core.StoredChange]]) -> None:
        if self.fault is not None:
            raise self.fault
        self._engine.apply(make(), now_us=time.time_ns() // 1_000)


class Asking:
    """Is told of questions, unless it fails."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.fault = fault

    def asked(self, _held: _core.Held) -> bool:
        if self.fault is not None:
            raise self.fault
        return False

    def noted(self, _changes: Sequence[_core.StoredChange]) -> None:
        if self.fault is not None:
            raise self.fault


class FirstSight:
    """Fails where tokens are validated."""

    def __init__(self, fault: Exception) -> None:
        self.fault = fault

    def answer(self, _request: bytes, _pending: _core.Pending) -> bytes | _core.Held:
        raise self.fault


def only_record(engine: _core.Engine) -> asking.Record:
    [record] = asking.drained(engine)
    return record


def transfer() -> bytes:
    return bytes(asking.check_request("POST", path="/transfers/1", body=b"{}"))


@pytest.mark.parametrize("fault", FAULTS, ids=repr)
def test_what_can_not_be_kept_denies_with_a_record(fault: Exception) -> None:
    engine = asking.running(asking.load(FILES))
    keeping = Keeping(engine, fault)
    answering = Answering(engine, None, keeping, Asking())
    answer = answering.check(transfer())
    record = only_record(engine)
    assert asking.reason_of(answer) == record["reason"] == "log_unavailable"
    assert record["detail"] == "what the decision changes could not be kept"
    keeping.fault = None
    assert (
        asking.reason_of(answering.check(transfer())) == only_record(engine)["reason"] == "approval_required"
    )


@pytest.mark.parametrize("fault", FAULTS, ids=repr)
def test_a_question_that_nobody_could_be_told_of_is_asked_with_a_record(fault: Exception) -> None:
    engine = asking.running(asking.load(FILES))
    answer = Answering(engine, None, Keeping(engine), Asking(fault)).check(transfer())
    assert asking.reason_of(answer) == only_record(engine)["reason"] == "approval_required"


@pytest.mark.parametrize("fault", FAULTS, ids=repr)
def test_a_yes_that_comes_back_has_an_answer_whoever_could_not_be_told(fault: Exception) -> None:
    engine = asking.running(asking.load(FILES), log_capacity=1)
    listening = Asking()
    answering = Answering(engine, None, Keeping(engine), listening)
    answering.check(transfer())
    given = engine.answer_approval(
        only_record(engine)["approval"]["id"],
        approve=True,
        client="spiffe://prod.example/anna",
        comment="",
        now_us=time.time_ns() // 1_000,
    )
    assert only_record(engine)["reason"] == "allowed"
    engine.apply(given.changes, now_us=time.time_ns() // 1_000)
    assert engine.note(b"{}")
    listening.fault = fault
    assert asking.reason_of(answering.check(transfer())) == "log_unavailable"
    assert engine.counters()["log_refused"] == 1
    asking.drained(engine)


@pytest.mark.parametrize("fault", FAULTS, ids=repr)
def test_tokens_that_can_not_be_validated_do_not_count_and_have_a_record(fault: Exception) -> None:
    entry = {
        "issuer": ISSUER,
        "audience": [AUDIENCE],
        "keys": {"file": "keys.json"},
        "principal": "spiffe://prod.example/oauth/{client_id}",
    }
    identity = {"sources": ["oauth"], "oauth": [entry]}
    settings = Settings.model_validate_json(
        json.dumps({"trust_domain": "prod.example", "identity": identity})
    )
    engine = asking.running(asking.load(FILES, settings=settings.for_core()))
    token = Issuer().token(int(time.time())).decode()
    request = asking.check_request("POST", path="/transfers/1", headers={"authorization": f"Bearer {token}"})
    answer = Answering(engine, FirstSight(fault)).check(bytes(request))
    assert asking.reason_of(answer) == only_record(engine)["reason"] == "token_invalid"
