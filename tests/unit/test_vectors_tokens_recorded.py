"""The vectors of JWT-SVIDs through the core: each has a reason and a record, and no record holds the token."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from signalwarden import _core
from signalwarden.identity_settings import IdentitySettings
from signalwarden.settings import Settings
from signalwarden.tokens import TokenRefused, Validator
from signalwarden.tokens.issuers import svid_terms
from tests import asking
from tests.conftest import MINIMAL
from tests.minting import NOW_US, digest_of
from tests.unit.test_vectors_tokens import REFUSED, SVIDS, Published, authorities, svid

DOMAINS = ("trustdomain", "example.org", "somewhere.over.the", "another.domain")
FILES = {name: text for name, text in MINIMAL.items() if name != "signalwarden.yaml"}


def settings_for(case: Mapping[str, Any]) -> Settings:
    identity = {"sources": ["jwt_svid"], "jwt_svid": {"audience": case["expected_audience"] or ["audience"]}}
    return Settings(
        trust_domain="prod.example",
        federates_with=DOMAINS,
        identity=IdentitySettings.model_validate_json(json.dumps(identity)),
    )


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in SVIDS["cases"]])
def test_each_vector_has_its_reason_and_a_record(case: Mapping[str, Any]) -> None:
    settings, raw = settings_for(case), svid(case)
    engine = asking.running(asking.load(FILES, settings=settings.for_core(), now_us=NOW_US))
    for domain in DOMAINS[:3]:
        members = [key.member for key in authorities().values()]
        engine.set_authority(f"jwt:{domain}", members=members)
    request = bytes(
        asking.check_request(
            principal="", headers={"authorization": f"Bearer {raw.decode('utf-8', 'replace')}"}
        )
    )
    answer = engine.check(request)
    validator = Validator(svids=svid_terms(settings.identity), bundles=Published())
    if isinstance(answer, _core.Pending):
        [credential] = answer.credentials
        assert raw.decode() not in repr(credential)
        try:
            proof = validator.validate("jwt_svid", credential.token, digest=digest_of(raw), now_us=NOW_US)
        except TokenRefused as refused:
            told = (credential.digest, refused.reason, refused.detail)
            answer = engine.validated(request, proofs=(), refused=[told])
        else:
            asking.admit(engine, proof.to_json(), now_us=NOW_US)
            decision = asking.decide(engine, request)
            assert case["expect"] == "accept"
            assert decision.reason == "allowed"
            assert decision.record["principal"]["id"] == case["claims"]["sub"]
            assert raw.decode() not in json.dumps(decision.record)
            return
    assert isinstance(answer, bytes)
    [record] = asking.drained(engine)
    assert record["reason"] == asking.reason_of(answer)
    assert raw.decode("utf-8", "replace") not in json.dumps(record)
    # What others accept ends in the year 2106: by our limits that is no short-lived token.
    accepted = case["expect"] == "accept"
    expected = "token_too_long_lived" if accepted else REFUSED.get(case["name"], "token_invalid")
    assert record["reason"] == expected
