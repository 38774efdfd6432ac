"""SPIRE itself, as the other tests here rely on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from signalwarden.demo_stage import wait_for
from tests.spire.real import (
    ENTRY_SECONDS,
    X509_SVID_SECONDS,
    Agent,
    SpireError,
    Workload,
    seconds_left,
)

NewWorkload = Callable[[str], Workload]


def test_a_registered_program_gets_an_svid_and_another_program_of_the_same_user_does_not(
    new_workload: NewWorkload, tmp_path: Path
) -> None:
    known, unknown = new_workload("known"), new_workload("unknown")
    known.register("spiffe://prod.example/smoke/known")
    identity = known.x509(tmp_path / "svid")
    assert identity.spiffe_id == "spiffe://prod.example/smoke/known"
    assert 0 < seconds_left(identity) <= X509_SVID_SECONDS
    root = x509.load_pem_x509_certificate(identity.bundle.read_bytes())
    leaf = x509.load_pem_x509_certificate(identity.certificate.read_bytes())
    leaf.verify_directly_issued_by(root)
    with pytest.raises(SpireError, match="no identity issued"):
        unknown.x509(tmp_path / "none")


def test_a_jwt_svid_is_signed_by_a_key_of_the_bundle(new_workload: NewWorkload, spire_agent: Agent) -> None:
    workload = new_workload("tokens")
    workload.register("spiffe://prod.example/smoke/tokens")
    token = workload.jwt("payments")
    keys = {
        key["kid"]: key for key in json.loads(spire_agent.server.bundle())["keys"] if key["use"] == "jwt-svid"
    }
    key = jwt.PyJWK(keys[jwt.get_unverified_header(token)["kid"]], algorithm="ES256").key
    assert isinstance(key, ec.EllipticCurvePublicKey)
    claims = jwt.decode(token, key, algorithms=["ES256"], audience="payments")
    assert claims["sub"] == "spiffe://prod.example/smoke/tokens"
    assert "spiffe://prod.example" in workload.jwt_bundles()


def test_an_svid_is_rotated_before_it_ends_and_a_deleted_entry_gives_none(
    new_workload: NewWorkload, spire_agent: Agent, tmp_path: Path
) -> None:
    workload = new_workload("rotated")
    entry = workload.register("spiffe://prod.example/smoke/rotated")
    first = workload.x509(tmp_path / "first")
    seen = 0

    def another() -> bool:
        nonlocal seen
        seen += 1
        return workload.x509(tmp_path / str(seen)).serial != first.serial

    wait_for("another serial number", another, X509_SVID_SECONDS)
    assert seconds_left(first) > 0
    spire_agent.server.delete_entry(entry)
    wait_for("no identity", lambda: not workload.identities(), ENTRY_SECONDS)


def test_a_federated_bundle_comes_to_the_workload_and_goes_again(
    new_domain: Callable[[str], Agent],
) -> None:
    ours, partner = new_domain("prod.example"), new_domain("partner.example")
    ours.server.trust(partner.server)
    workload = Workload.create(ours, "federated")
    workload.register("spiffe://prod.example/smoke/federated", federates_with=["spiffe://partner.example"])
    assert set(workload.jwt_bundles()) == {"spiffe://prod.example", "spiffe://partner.example"}
    ours.server.distrust("partner.example")
    wait_for("one bundle", lambda: len(workload.jwt_bundles()) == 1, ENTRY_SECONDS)


def test_an_agent_that_is_started_again_serves_the_same_programs(new_domain: Callable[[str], Agent]) -> None:
    agent = new_domain("prod.example")
    workload = Workload.create(agent, "patient")
    workload.register("spiffe://prod.example/smoke/patient")
    agent.stop()
    with pytest.raises(SpireError):
        workload.jwt("payments")
    agent.start()
    wait_for("an identity", lambda: bool(workload.identities()), ENTRY_SECONDS)
