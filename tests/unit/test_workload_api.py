"""The client of the Workload API, against real gRPC: each message is the whole state, and no fault lets anybody in."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from signalwarden.bundles import Svid
from signalwarden.bundles import streams as streams_module
from signalwarden.bundles import workload_api as module
from signalwarden.bundles.bundle import Bundle
from signalwarden.bundles.streams import MAX_MESSAGE_BYTES
from signalwarden.bundles.workload_api import WorkloadApi
from signalwarden.bundles.workload_messages import MESSAGES
from tests.authorities import Authority, Issued, jwk
from tests.workload_endpoint import WorkloadEndpoint, serving

WAIT_S = 10.0
STILL_S = 0.4
"""So long nothing may happen where nothing should."""
OWN, PARTNER = "prod.example", "partner.example"
ROOT, OTHER = Authority("root"), Authority("partner root")
ME = "spiffe://prod.example/signalwarden"


def until(true: Callable[[], Any]) -> None:
    end = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def keys(*kids: str) -> bytes:
    return json.dumps({"keys": [jwk(kid) for kid in kids]}).encode()


class Client:
    """A client under test, and all that it told."""

    def __init__(self, endpoint: WorkloadEndpoint) -> None:
        self.told: list[tuple[str, Bundle | None]] = []
        self.svids: list[Svid | None] = []
        self.api = WorkloadApi(endpoint.address, lambda domain, bundle: self.told.append((domain, bundle)))
        self.api.on_change(self.svids.append)

    def live(self, domain: str) -> Bundle | None:
        return self.api.bundle(domain)


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[WorkloadEndpoint]:
    with serving(tmp_path / "agent.sock") as running:
        yield running


@pytest.fixture
def client(endpoint: WorkloadEndpoint, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(module, "TICK_S", 0.05)
    monkeypatch.setattr(streams_module, "BACKOFF_S", 0.02)
    monkeypatch.setattr(streams_module, "MAX_BACKOFF_S", 0.2)
    made = Client(endpoint)
    made.api.start()
    try:
        yield made
    finally:
        made.api.stop()


def test_each_call_says_that_it_is_meant_for_the_workload_api(
    client: Client, endpoint: WorkloadEndpoint
) -> None:
    until(lambda: len(endpoint.calls) == 3)
    assert {name for name, _ in endpoint.calls} == {"FetchX509SVID", "FetchX509Bundles", "FetchJWTBundles"}
    assert all(metadata["workload.spiffe.io"] == "true" for _, metadata in endpoint.calls)


def test_own_and_federated_bundles_come_together_from_both_streams(
    client: Client, endpoint: WorkloadEndpoint
) -> None:
    endpoint.x509({f"spiffe://{OWN}": ROOT.der, f"spiffe://{PARTNER}": OTHER.der + ROOT.der})
    endpoint.jwt({f"spiffe://{OWN}": keys("a", "b")})
    until(lambda: (own := client.live(OWN)) and own.x509 and own.jwt)
    own, partner = client.live(OWN), client.live(PARTNER)
    assert own is not None
    assert partner is not None
    assert (own.x509, set(own.jwt)) == ((ROOT.cert,), {"a", "b"})
    assert (partner.x509, dict(partner.jwt)) == ((OTHER.cert, ROOT.cert), {})
    assert client.api.detail_of(OWN)["jwt_authorities"] == 2


def test_what_a_message_leaves_out_is_gone_at_once(client: Client, endpoint: WorkloadEndpoint) -> None:
    endpoint.x509({f"spiffe://{OWN}": ROOT.der, f"spiffe://{PARTNER}": OTHER.der})
    until(lambda: client.live(PARTNER))
    endpoint.x509({f"spiffe://{OWN}": ROOT.der})
    until(lambda: client.live(PARTNER) is None)
    assert (PARTNER, None) in client.told
    assert client.live(OWN) is not None
    endpoint.jwt({f"spiffe://{OWN}": keys("a", "b")})
    until(lambda: len(client.live(OWN).jwt) == 2)  # type: ignore[union-attr]
    endpoint.jwt({f"spiffe://{OWN}": keys("b")})
    until(lambda: set(client.live(OWN).jwt) == {"b"})  # type: ignore[union-attr]
    endpoint.jwt({f"spiffe://{OWN}": b'{"keys": []}'})
    until(lambda: not client.live(OWN).jwt)  # type: ignore[union-attr]


def test_a_message_that_changes_nothing_tells_nobody(client: Client, endpoint: WorkloadEndpoint) -> None:
    for _ in range(3):
        endpoint.x509({f"spiffe://{OWN}": ROOT.der})
    until(lambda: client.live(OWN))
    time.sleep(STILL_S)
    assert len(client.told) == 1


def test_permission_denied_takes_everything_back_and_is_asked_again(
    client: Client, endpoint: WorkloadEndpoint
) -> None:
    endpoint.x509({f"spiffe://{OWN}": ROOT.der})
    endpoint.svids([(ME, ROOT.issue(ME))])
    until(lambda: client.live(OWN) and client.api.current())
    endpoint.say("FetchX509Bundles", grpc.StatusCode.PERMISSION_DENIED)
    endpoint.say("FetchX509SVID", grpc.StatusCode.PERMISSION_DENIED)
    until(lambda: client.live(OWN) is None and client.api.current() is None)
    assert client.svids[-1] is None
    assert "PERMISSION_DENIED" in " ".join(client.api.detail()["errors"])
    endpoint.x509({f"spiffe://{OWN}": ROOT.der})
    endpoint.svids([(ME, ROOT.issue(ME))])
    until(lambda: client.live(OWN) and client.api.current())


def test_what_was_denied_comes_back_whole_and_not_stream_by_stream(
    client: Client, endpoint: WorkloadEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first stream that is let in again ends the backoff of the others, however long that has become."""
    monkeypatch.setattr(streams_module, "BACKOFF_S", 60.0)
    monkeypatch.setattr(streams_module, "MAX_BACKOFF_S", 60.0)
    endpoint.x509({f"spiffe://{OWN}": ROOT.der})
    endpoint.jwt({f"spiffe://{OWN}": keys("a")})
    endpoint.svids([(ME, ROOT.issue(ME))])
    until(lambda: client.api.heard)
    endpoint.say("FetchJWTBundles", grpc.StatusCode.PERMISSION_DENIED)
    until(lambda: not client.api.heard)
    endpoint.jwt({f"spiffe://{OWN}": keys("a")})
    endpoint.say("FetchX509Bundles", b"\x10\x01")
    until(lambda: any("trust domains" in error for error in client.api.detail()["errors"]))
    endpoint.x509({f"spiffe://{OWN}": ROOT.der})
    until(lambda: client.api.heard and client.live(OWN) and client.live(OWN).jwt)  # type: ignore[union-attr]


def test_an_agent_that_dies_takes_nothing_back_and_is_found_again(
    client: Client, endpoint: WorkloadEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint.x509({f"spiffe://{OWN}": ROOT.der})
    until(lambda: client.live(OWN))
    with caplog.at_level(logging.WARNING, "signalwarden"):
        endpoint.stop()
        until(lambda: not client.api.detail()["connected"])
        time.sleep(STILL_S)
    assert client.live(OWN) is not None
    lost = [record for record in caplog.records if "FetchX509Bundles" in record.message]
    assert 1 <= len(lost) <= 3, "the same failure is said once"
    endpoint.x509({f"spiffe://{OWN}": OTHER.der})
    endpoint.start()
    until(lambda: client.live(OWN).x509 == (OTHER.cert,))  # type: ignore[union-attr]


def test_without_an_agent_all_of_it_is_withdrawn_in_time(
    client: Client, endpoint: WorkloadEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOST_LIFE_S", 0.5)
    endpoint.x509({f"spiffe://{OWN}": ROOT.der})
    endpoint.jwt({f"spiffe://{OWN}": keys("a")})
    until(lambda: client.live(OWN) and client.live(OWN).jwt)  # type: ignore[union-attr]
    endpoint.stop()
    until(lambda: client.live(OWN) is None)
    assert client.told[-1] == (OWN, None)


def test_an_agent_that_comes_later_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams_module, "MAX_BACKOFF_S", 0.2)
    late = WorkloadEndpoint(tmp_path / "late.sock")
    client = Client(late)
    client.api.start()
    try:
        until(lambda: "UNAVAILABLE" in " ".join(client.api.detail()["errors"]))
        late.x509({f"spiffe://{OWN}": ROOT.der})
        late.start()
        until(lambda: client.live(OWN))
    finally:
        client.api.stop()
        late.stop()


def test_invalid_argument_is_said_and_not_tried_again(client: Client, endpoint: WorkloadEndpoint) -> None:
    endpoint.say("FetchX509SVID", grpc.StatusCode.INVALID_ARGUMENT)
    until(lambda: any("INVALID_ARGUMENT" in error for error in client.api.detail()["errors"]))
    calls = sum(name == "FetchX509SVID" for name, _ in endpoint.calls)
    time.sleep(STILL_S)
    assert sum(name == "FetchX509SVID" for name, _ in endpoint.calls) == calls == 1


def test_a_bundle_that_cannot_be_read_keeps_its_last_good_state_for_a_while_and_harms_no_other(
    client: Client, endpoint: WorkloadEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BROKEN_LIFE_S", 0.6)
    endpoint.x509({f"spiffe://{OWN}": ROOT.der, f"spiffe://{PARTNER}": OTHER.der})
    until(lambda: client.live(PARTNER))
    endpoint.x509({f"spiffe://{OWN}": OTHER.der, f"spiffe://{PARTNER}": OTHER.der + b"\0"})
    until(lambda: client.live(OWN).x509 == (OTHER.cert,))  # type: ignore[union-attr]
    assert client.live(PARTNER) is not None
    assert "DER" in client.api.detail_of(PARTNER)["error"]
    until(lambda: client.live(PARTNER) is None)
    assert client.live(OWN) is not None


@pytest.mark.parametrize(
    "empty", [{}, {f"spiffe://{n}.example": b"" for n in range(257)}], ids=["none", "many"]
)
def test_a_message_without_what_it_must_hold_is_discarded(
    client: Client, endpoint: WorkloadEndpoint, empty: dict[str, bytes]
) -> None:
    endpoint.x509({f"spiffe://{OWN}": ROOT.der})
    until(lambda: client.live(OWN))
    endpoint.x509(empty)
    until(lambda: any("trust domains" in error for error in client.api.detail()["errors"]))
    assert client.live(OWN) is not None


def test_what_is_no_message_or_too_long_is_a_lost_connection(
    client: Client, endpoint: WorkloadEndpoint
) -> None:
    endpoint.x509({f"spiffe://{OWN}": ROOT.der})
    until(lambda: client.live(OWN))
    endpoint.say("FetchX509Bundles", b"\xff\xff\xff")
    until(lambda: any("no connection" in error for error in client.api.detail()["errors"]))
    assert client.live(OWN) is not None
    endpoint.x509({f"spiffe://{OWN}": b"\0" * MAX_MESSAGE_BYTES})
    until(lambda: any("RESOURCE_EXHAUSTED" in error for error in client.api.detail()["errors"]))
    endpoint.x509({f"spiffe://{OWN}": OTHER.der})
    until(lambda: client.live(OWN).x509 == (OTHER.cert,))  # type: ignore[union-attr]


def test_names_that_are_no_trust_domains_are_left_out(client: Client, endpoint: WorkloadEndpoint) -> None:
    endpoint.x509({"spiffe://UPPER": ROOT.der, "": ROOT.der, f"spiffe://{OWN}/x": ROOT.der, OWN: ROOT.der})
    until(lambda: client.live(OWN))
    assert [domain for domain, _ in client.told] == [OWN]


# ---- our own SVID -----------------------------------------------------------------------------------------


def test_the_first_svid_is_ours_with_chain_and_key(client: Client, endpoint: WorkloadEndpoint) -> None:
    below = Authority("below", ROOT)
    issued = below.issue(ME)
    endpoint.svids(
        [(ME, issued), ("spiffe://prod.example/second", ROOT.issue("spiffe://prod.example/second"))]
    )
    until(client.api.current)
    svid = client.api.current()
    assert svid is not None
    assert svid.id == ME
    assert tuple(x509.load_pem_x509_certificates(svid.cert_chain_pem)) == issued.chain
    key = load_pem_private_key(svid.key_pem, None)
    assert key.public_key() == issued.cert.public_key()
    assert svid.expires == issued.cert.not_valid_after_utc
    assert b"PRIVATE" in svid.key_pem
    assert "PRIVATE" not in repr(svid)


def test_the_next_svid_takes_the_place_of_the_last(client: Client, endpoint: WorkloadEndpoint) -> None:
    first, second = ROOT.issue(ME), ROOT.issue(ME)
    endpoint.svids([(ME, first)])
    until(client.api.current)
    endpoint.svids([(ME, second)])
    until(lambda: len(client.svids) == 2)
    assert client.api.current() == client.svids[-1] != client.svids[0]


def test_an_svid_that_has_run_out_is_none(client: Client, endpoint: WorkloadEndpoint) -> None:
    endpoint.svids([(ME, ROOT.issue(ME, begins=timedelta(), life=timedelta(seconds=2)))])
    until(client.api.current)
    until(lambda: client.api.current() is None)
    until(lambda: client.svids[-1] is None)


def _with_other_key(issued: Issued) -> Issued:
    return Issued(issued.cert, ROOT.issue(ME).key)


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ((ME, ROOT.issue("spiffe://prod.example/other")), "names another"),
        ((ME, ROOT.issue(ME, ca=True)), "authority"),
        ((ME, _with_other_key(ROOT.issue(ME))), "not that of its certificate"),
    ],
)
def test_an_svid_that_is_none_is_not_shown_to_anybody(
    client: Client, endpoint: WorkloadEndpoint, told: tuple[str, Issued], why: str
) -> None:
    endpoint.svids([told])
    until(lambda: any(why in error for error in client.api.detail()["errors"]))
    assert client.api.current() is None


def test_a_key_that_cannot_be_read_is_not_repeated(
    client: Client, endpoint: WorkloadEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    message = MESSAGES["X509SVIDResponse"]()
    message.svids.add(spiffe_id=ME, x509_svid=ROOT.issue(ME).chain_der, x509_svid_key=b"s3cr3t-key")
    with caplog.at_level(logging.DEBUG):
        endpoint.say("FetchX509SVID", message.SerializeToString())
        until(lambda: any("private key" in error for error in client.api.detail()["errors"]))
    assert "s3cr3t" not in caplog.text
    assert "s3cr3t" not in str(client.api.detail())


def test_a_client_stops_at_once_with_and_without_an_agent(tmp_path: Path) -> None:
    before = threading.active_count()
    with serving(tmp_path / "a.sock") as endpoint:
        client = Client(endpoint)
        client.api.start()
        until(lambda: len(endpoint.calls) == 3)
        begun = time.monotonic()
        client.api.stop()
        client.api.stop()
        assert time.monotonic() - begun < 3
    idle = Client(WorkloadEndpoint(tmp_path / "nobody.sock"))
    idle.api.stop()
    gone = Client(WorkloadEndpoint(tmp_path / "nobody.sock"))
    gone.api.start()
    gone.api.stop()
    until(lambda: threading.active_count() <= before + 1)


def test_an_address_on_loopback_does_as_well(tmp_path: Path) -> None:
    with serving(tmp_path / "unused", tcp=True) as endpoint:
        client = Client(endpoint)
        client.api.start()
        try:
            endpoint.x509({f"spiffe://{OWN}": ROOT.der})
            until(lambda: client.live(OWN))
        finally:
            client.api.stop()
