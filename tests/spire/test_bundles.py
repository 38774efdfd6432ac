"""What SPIRE says of a trust domain, read by us: its bundle document, its Workload API, its bundle endpoint."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from signalwarden.bundles import Bundles, Svid
from signalwarden.bundles.bundle import Bundle, read_bundle
from signalwarden.bundles.x509 import X509Refused, chain_from_pem, verify_x509_svid
from signalwarden.demo_stage import wait_for
from signalwarden.settings import Settings
from tests.spire.real import ENTRY_SECONDS, Agent, Workload, python_selector
from tests.spire.stage import WARDEN

QUICK_SECONDS = 16
"""Life of an SVID that is rotated 3 s after its issue."""


@contextlib.contextmanager
def bundles_of(directory: Path, **settings: Any) -> Iterator[Bundles]:
    """The keeper of bundles with these settings, started, and stopped at the end."""
    keeper = Bundles(directory, Settings.model_validate({"trust_domain": "prod.example", **settings}))
    keeper.start()
    try:
        yield keeper
    finally:
        keeper.stop()


def await_revision(bundles: Bundles, agent: Agent) -> None:
    """Until what is live is what the agent's server has: both kinds of authorities, each from its own stream."""
    domain = agent.server.trust_domain

    def equal() -> bool:
        bundle = bundles.get(domain)
        told = read_bundle(domain, agent.server.bundle().encode())
        return bundle is not None and bundle.revision == told.revision

    wait_for(f"the bundle of `{domain}`", equal, ENTRY_SECONDS)


def serial(svid: Svid | None) -> int:
    assert svid is not None
    return x509.load_pem_x509_certificate(svid.cert_chain_pem).serial_number


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


# ---- the Workload API ---------------------------------------------------------------------------------------


def test_the_workload_api_gives_our_svid_and_the_bundle_that_the_server_has(
    ours: Agent, tmp_path: Path
) -> None:
    ours.server.entry(WARDEN, python_selector(), node=ours.node, x509_seconds=QUICK_SECONDS)
    with bundles_of(tmp_path, workload_api=ours.address) as bundles:
        # Until the agent has heard of the entry, nothing is ours: that is PermissionDenied.
        assert bundles.wait(ENTRY_SECONDS), bundles.detail()
        wait_for("our SVID", lambda: bundles.svids.current() is not None, ENTRY_SECONDS)
        svid = bundles.svids.current()
        assert svid is not None
        assert svid.id == WARDEN
        found = verify_x509_svid(chain_from_pem(svid.cert_chain_pem), bundles, datetime.now(UTC))
        assert found.id == WARDEN
        await_revision(bundles, ours)
        assert svid.key_pem.decode() not in repr(svid) + str(bundles.detail())


def test_our_svid_is_another_one_long_before_it_ends(ours: Agent, tmp_path: Path) -> None:
    told: list[Svid | None] = []
    with bundles_of(tmp_path, workload_api=ours.address) as bundles:
        bundles.svids.on_change(told.append)
        wait_for("four SVIDs", lambda: len(told) >= 4, ENTRY_SECONDS)
        assert None not in told
        assert len({serial(svid) for svid in told}) == len(told)
        left = [(svid.expires - datetime.now(UTC)).total_seconds() for svid in told if svid is not None]
        assert left[-2] > 0, "the one before is good while the new one comes"


def test_an_agent_that_is_away_takes_nothing_and_is_found_again(
    new_domain: Callable[[str], Agent], tmp_path: Path
) -> None:
    agent = new_domain("prod.example")
    agent.server.entry(WARDEN, python_selector(), node=agent.node, x509_seconds=QUICK_SECONDS)
    with bundles_of(tmp_path, workload_api=agent.address) as bundles:
        wait_for("our SVID", lambda: bundles.svids.current() is not None, ENTRY_SECONDS)
        assert bundles.wait(ENTRY_SECONDS)
        agent.stop()
        wait_for(
            "a lost connection", lambda: not bundles.detail()["workload_api"]["connected"], ENTRY_SECONDS
        )
        assert bundles.get("prod.example") is not None
        before = serial(bundles.svids.current())
        agent.start()
        wait_for("a connection", lambda: bundles.detail()["workload_api"]["connected"], ENTRY_SECONDS)
        wait_for("another SVID", lambda: serial(bundles.svids.current()) != before, ENTRY_SECONDS)


def test_a_deleted_entry_takes_our_svid_and_every_bundle_at_once(
    new_domain: Callable[[str], Agent], tmp_path: Path
) -> None:
    agent = new_domain("prod.example")
    entry = agent.server.entry(WARDEN, python_selector(), node=agent.node)
    with bundles_of(tmp_path, workload_api=agent.address) as bundles:
        assert bundles.wait(ENTRY_SECONDS)
        wait_for("our SVID", lambda: bundles.svids.current() is not None, ENTRY_SECONDS)
        agent.server.delete_entry(entry)
        wait_for("no SVID", lambda: bundles.svids.current() is None, ENTRY_SECONDS)
        wait_for("no bundle", lambda: bundles.get("prod.example") is None, ENTRY_SECONDS)


def test_keys_and_authorities_come_and_go_with_those_of_the_server(ours: Agent, tmp_path: Path) -> None:
    with bundles_of(tmp_path, workload_api=ours.address) as bundles:
        assert bundles.wait(ENTRY_SECONDS)
        before = bundles.get("prod.example")
        assert before is not None
        ours.server.rotate_jwt_authority()

        def now() -> Bundle:
            bundle = bundles.get("prod.example")
            assert bundle is not None
            return bundle

        wait_for("no old key", lambda: not before.jwt.keys() & now().jwt.keys(), ENTRY_SECONDS)
        assert now().jwt
        old = ours.server.next_authority("x509")
        wait_for("two authorities", lambda: len(now().x509) == 2, ENTRY_SECONDS)
        ours.server.forget_authority("x509", old, wait_s=3.0)
        wait_for("the new authority", lambda: not {*before.x509} & {*now().x509}, ENTRY_SECONDS)


def test_a_federated_bundle_is_there_for_as_long_as_the_server_tells_of_it(
    new_domain: Callable[[str], Agent], partner: Agent, tmp_path: Path
) -> None:
    agent = new_domain("prod.example")
    agent.server.trust(partner.server)
    federated = ["spiffe://partner.example"]
    agent.server.entry(WARDEN, python_selector(), node=agent.node, federates_with=federated)
    told: list[tuple[str, Bundle | None]] = []
    settings = {"workload_api": agent.address, "federates_with": ("partner.example",)}
    with bundles_of(tmp_path, **settings) as bundles:
        bundles.on_change(lambda domain, bundle: told.append((domain, bundle)))
        assert bundles.wait(ENTRY_SECONDS), bundles.detail()
        await_revision(bundles, partner)
        agent.server.distrust("partner.example")
        wait_for("no bundle", lambda: bundles.get("partner.example") is None, ENTRY_SECONDS)
        assert told[-1] == ("partner.example", None)
        assert bundles.get("prod.example") is not None


# ---- the bundle endpoint of a server, and a file of its bundle -----------------------------------------------


def endpoint_of(agent: Agent, bootstrap: Path, **changed: str) -> dict[str, Any]:
    entry = {
        "endpoint": agent.server.bundle_url,
        "profile": "https_spiffe",
        "spiffe_id": agent.server.server_id,
        "bootstrap": bootstrap.name,
        "refresh": "1s",
    }
    return {
        "federates_with": (agent.server.trust_domain,),
        "bundles": {agent.server.trust_domain: entry | changed},
    }


def test_a_real_bundle_endpoint_is_known_by_its_spiffe_id_and_followed(
    partner: Agent, tmp_path: Path
) -> None:
    bootstrap = tmp_path / "partner.json"
    bootstrap.write_text(partner.server.bundle())
    with bundles_of(tmp_path, **endpoint_of(partner, bootstrap)) as bundles:
        assert bundles.wait(ENTRY_SECONDS), bundles.detail()
        first = bundles.get("partner.example")
        assert first is not None
        partner.server.rotate_jwt_authority()

        def new_keys() -> bool:
            bundle = bundles.get("partner.example")
            return bundle is not None and not first.jwt.keys() & bundle.jwt.keys()

        wait_for("the new keys", new_keys, ENTRY_SECONDS)
        await_revision(bundles, partner)
        now = bundles.get("partner.example")
        assert now is not None
        assert (now.sequence or 0) > (first.sequence or 0)


def test_an_endpoint_that_is_somebody_else_gives_no_bundle(
    ours: Agent, partner: Agent, tmp_path: Path
) -> None:
    bootstrap = tmp_path / "bootstrap.json"
    bootstrap.write_text(partner.server.bundle())
    wrong_id = {"spiffe_id": "spiffe://partner.example/another"}
    with bundles_of(tmp_path, **endpoint_of(partner, bootstrap, **wrong_id)) as bundles:
        assert not bundles.wait(3.0)
        assert "expected" in bundles.detail()["trust_domains"]["partner.example"]["error"]
    # The server of another trust domain, which the bootstrap does not vouch for.
    other = {"endpoint": ours.server.bundle_url}
    with bundles_of(tmp_path, **endpoint_of(partner, bootstrap, **other)) as bundles:
        assert not bundles.wait(3.0)
        assert bundles.get("partner.example") is None


def test_a_file_with_the_bundle_of_a_server_is_read_as_it_is(partner: Agent, tmp_path: Path) -> None:
    (tmp_path / "partner.json").write_text(partner.server.bundle())
    settings = {
        "federates_with": ("partner.example",),
        "bundles": {"partner.example": {"file": "partner.json", "refresh": "1s"}},
    }
    with bundles_of(tmp_path, **settings) as bundles:
        bundle = bundles.get("partner.example")
        assert bundle is not None
        assert bundle.x509
        assert bundle.jwt
