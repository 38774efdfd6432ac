"""Two trust domains: a partner's workload is known while its bundle is there, and not a request longer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from signalwarden.demo_stage import wait_for
from tests.spire.real import ENTRY_SECONDS, Agent, Workload, python_selector
from tests.spire.stage import ACCOUNT, WARDEN, Edge, Warden, decision_id

PARTNER = "spiffe://partner.example"
CALLER = f"{PARTNER}/agents/billing"


@dataclass
class Alliance:
    """Ours, the partner's, and a decision point that takes its bundles from our agent."""

    ours: Agent
    partner: Agent
    warden: Warden
    edge: Edge


@pytest.fixture
def alliance(
    new_domain: Callable[[str], Agent], new_edge: Callable[..., Edge], base: Path, tmp_path: Path
) -> Iterator[Alliance]:
    ours, partner = new_domain("prod.example"), new_domain("partner.example")
    ours.server.trust(partner.server)
    ours.server.entry(WARDEN, python_selector(), node=ours.node, federates_with=[PARTNER])
    settings = f'federates_with: [partner.example]\nworkload_api: "{ours.address}"\n'
    with Warden.create(base / "alliance", settings).serving() as warden:
        edge = new_edge(warden, ours, federates_with=["partner.example"])
        yield Alliance(ours, partner, warden, edge)


def test_a_removed_bundle_denies_the_next_request_of_a_live_connection(
    alliance: Alliance, tmp_path: Path
) -> None:
    caller = Workload.create(alliance.partner, "billing")
    caller.register(CALLER)
    identity = caller.x509(tmp_path / "svid")
    bundle = alliance.ours.server.authorities(tmp_path / "ours.pem")
    with alliance.edge.client(identity, bundle) as client:
        answer = client.get(ACCOUNT)
        assert answer.status_code == 200, answer.text
        principal = alliance.warden.record(decision_id(answer))["principal"]
        assert (principal["id"], principal["trust_domain"]) == (CALLER, "partner.example")
        alliance.ours.server.distrust("partner.example")
        wait_for("a denial", lambda: client.get(ACCOUNT).status_code != 200, ENTRY_SECONDS)
        denied = client.get(ACCOUNT)
    assert denied.status_code == 403
    assert denied.json()["reason"] == "trust_domain_unknown"

    def refused() -> bool:
        try:
            with alliance.edge.client(identity, bundle) as other:
                other.get(ACCOUNT)
        except httpx.HTTPError:
            return True
        return False

    wait_for("no new connection", refused, ENTRY_SECONDS)
