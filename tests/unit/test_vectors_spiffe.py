"""SPIFFE IDs of other projects' suites through the door: what they call valid is a caller, and nothing else is."""

from __future__ import annotations

import re

import pytest

from signalwarden import _core
from tests import asking
from tests.conftest import MINIMAL

FILES = {name: text for name, text in MINIMAL.items() if name != "signalwarden.yaml"}
SETS = asking.vectors("spiffe/spiffe_ids.json")
VALID = [case for vectors in SETS for case in vectors["valid"]]
BAD = [case for vectors in SETS for case in (*vectors["invalid"], *vectors["disputed"])]
DOMAIN = re.compile(r"spiffe://([^/]+)")


@pytest.fixture(scope="module")
def engine() -> _core.Engine:
    return asking.running(asking.load(FILES))


def reason(engine: _core.Engine, principal: str) -> str:
    return asking.decide(engine, asking.check_request(principal=principal)).reason


def test_a_valid_id_is_a_caller_of_another_trust_domain_or_of_ours(engine: _core.Engine) -> None:
    wrong = [case["id"] for case in VALID if reason(engine, case["id"]) != "trust_domain_unknown"]
    assert wrong == []
    domains = {domain.group(1) for case in VALID if (domain := DOMAIN.match(case["id"]))}
    federated = asking.running(asking.load(FILES, federates_with=sorted(domains)))
    wrong = [case["id"] for case in VALID if reason(federated, case["id"]) != "allowed"]
    assert wrong == []


def test_an_invalid_or_disputed_id_is_no_identity(engine: _core.Engine) -> None:
    # An empty text is a caller without identity; what is no text at all can't be sent in a string.
    given = [case for case in BAD if case["id"]]
    wrong = [(case["id"], got) for case in given if (got := reason(engine, case["id"])) != "identity_invalid"]
    assert wrong == []
    assert len(given) >= 470


def test_a_caller_without_identity_is_told_so(engine: _core.Engine) -> None:
    assert reason(engine, "") == "identity_missing"


def test_no_vector_is_lost() -> None:
    assert (len(SETS[0]["valid"]), len(SETS[0]["invalid"]), len(SETS[0]["disputed"])) == (127, 471, 4)
