"""What SPIRE says of a trust domain, read by us: its bundle document, its Workload API, its bundle endpoint."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from signalwarden.bundles import X509Refused, chain_from_pem, read_bundle, verify_x509_svid
from tests.spire.real import Agent, Workload


@pytest.fixture(scope="module")
def ours(new_domain: Callable[[str], Agent]) -> Agent:
    return new_domain("prod.example")


@pytest.fixture(scope="module")
def partner(new_domain: Callable[[str], Agent]) -> Agent:
    return new_domain("partner.example")


def test_a_real_svid_is_verified_by_the_bundle_of_its_own_trust_domain_alone(
    ours: Agent, partner: Agent, tmp_path: Path
) -> None:
    workload = Workload.create(partner, "verified")
    workload.register("spiffe://partner.example/agents/verified")
    identity = workload.x509(tmp_path / "svid")
    chain = chain_from_pem(identity.certificate.read_bytes())
    of_ours = read_bundle("prod.example", ours.server.bundle().encode())
    of_partner = read_bundle("partner.example", partner.server.bundle().encode())
    bundles = {"prod.example": of_ours, "partner.example": of_partner}
    found = verify_x509_svid(chain, bundles, datetime.now(UTC))
    assert found.id == "spiffe://partner.example/agents/verified"
    assert (int(found.serial, 16), found.sha256) == (identity.serial, identity.sha256)
    for wrong in ({"prod.example": of_ours}, {"partner.example": of_ours}, {"prod.example": of_partner}):
        with pytest.raises(X509Refused):
            verify_x509_svid(chain, wrong, datetime.now(UTC))
    with pytest.raises(X509Refused):
        verify_x509_svid(chain, bundles, identity.not_after.replace(year=identity.not_after.year + 1))
