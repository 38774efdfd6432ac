"""Trust bundles and X509-SVIDs: every published vector, and what none of them shows."""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from signalwarden.bundles.bundle import (
    MAX_AUTHORITIES,
    MAX_BUNDLE_BYTES,
    MAX_KEYS,
    Bundle,
    read_bundle,
    read_jwt_bundle,
)
from signalwarden.bundles.x509 import (
    MAX_CERTIFICATE_BYTES,
    MAX_CHAIN,
    X509Refused,
    certificate,
    certificates,
    chain_from_pem,
    named,
    verify_x509_svid,
)
from signalwarden.errors import KeySetError
from tests.authorities import Authority, document, jwk, usage

VECTORS = Path(__file__).parents[1] / "vectors" / "spiffe"
FIXTURES = VECTORS / "fixtures"
GO, RUST, PY = (FIXTURES / name for name in ("go-spiffe", "rust-spiffe", "py-spiffe"))
CASES = json.loads((VECTORS / "x509_and_bundle_cases.json").read_text())
DOMAIN = "prod.example"
AGENT = "spiffe://prod.example/agent"

# Which file each published case means, and how it is read there.
BUNDLES = {
    "jwks_3_keys.json (py)": PY / "testutils/src/testutils/jwks/jwks_3_keys.json",
    "jwks_ec_missing_x.json (py)": PY / "testutils/src/testutils/jwks/jwks_ec_missing_x.json",
}
KEYS = {"jwks_valid_1.json": 1, "jwks_valid_2.json": 2, "jwks_3_keys.json (py)": 3}


def bundle_file(name: str) -> Path:
    [found] = [BUNDLES[name]] if name in BUNDLES else sorted((GO / "bundle").rglob(name))
    return found


@pytest.mark.parametrize("case", CASES["bundles"], ids=lambda case: case.get("file", "inline"))
def test_every_published_bundle_is_read_or_refused_as_published(case: dict[str, str]) -> None:
    raw = case["inline"].encode() if "inline" in case else bundle_file(case["file"]).read_bytes()
    name = case.get("file", "")
    if not case["expect"].startswith("ok"):
        with pytest.raises(KeySetError):
            read_jwt_bundle(raw) if name.startswith("jwks") else read_bundle(DOMAIN, raw)
    elif name.startswith("jwks"):
        assert len(read_jwt_bundle(raw)) == KEYS.get(name, 1)
    else:
        bundle = read_bundle(DOMAIN, raw)
        assert bundle.vouches
        assert len(bundle.x509) == 1
        expected = {"spiffebundle_valid_1.json": 1, "spiffebundle_valid_2.json": 6}.get(name, 2)
        assert len(bundle.jwt) == expected
        if name != "spiffebundle_valid_1.json":
            assert (bundle.sequence, bundle.refresh_s) == (1, 60)


GO_X509 = GO / "svid/x509svid/testdata"
PY_X509 = PY / "testutils/src/testutils/x509-certs"
RUST_X509 = RUST / "spiffe/tests/testdata/svid/x509"


def files_of(fixture: str) -> list[Path]:
    """Every file of that name in the three collections."""
    if fixture == "empty.pem":
        return sorted(FIXTURES.rglob("empty.pem"))
    names = [name.strip() for name in fixture.split("/")]
    return sorted(
        path
        for path in FIXTURES.rglob("*")
        if path.is_file()
        and "bundle" not in str(path.relative_to(FIXTURES))
        and any(path.name == name or path.stem.lstrip("0123456789-") == name for name in names)
    )


def chain_of(raw: bytes) -> tuple[x509.Certificate, ...]:
    if b"-----BEGIN" in raw:
        return chain_from_pem(raw)
    try:
        return certificates(raw, MAX_CHAIN)
    except ValueError as error:
        raise X509Refused("no certificates") from error


def proves(raw: bytes) -> str:
    """Whom a fixture proves while it is valid, with its topmost certificate for the bundle: their roots are not there."""
    chain = chain_of(raw)
    if not chain:
        raise X509Refused("there is no certificate")
    identity = named(chain[0])
    now = identity.not_before + timedelta(seconds=1)
    if len(chain) == 1:
        return identity.id
    bundles = {identity.trust_domain: Bundle.of(identity.trust_domain, chain[-1:])}
    return verify_x509_svid(chain, bundles, now).id


@pytest.mark.parametrize(
    "case", [case for case in CASES["x509"] if "fixture" in case], ids=lambda case: case["fixture"]
)
def test_every_published_chain_proves_or_is_refused_as_published(case: dict[str, str]) -> None:
    name, extra = case["fixture"], b""
    if name.endswith(" + 00010203"):
        name, extra = name.removesuffix(" + 00010203"), bytes.fromhex("00010203")
    paths = files_of(name)
    if name == "wrong-intermediate-no-key-cert-sign":
        # The collections name it and don't hold it: the same, made here.
        refused(Authority("below", ROOT, signs=False).issue(AGENT).chain)
        return
    assert paths, name
    for path in paths:
        raw = path.read_bytes() + extra
        if case["expect"].startswith("accept"):
            assert proves(raw).startswith("spiffe://"), path
        else:
            with pytest.raises(X509Refused):
                proves(raw)


def test_the_chain_of_rust_spiffe_is_verified_whole() -> None:
    chain = certificates((RUST_X509 / "1-svid-chain.der").read_bytes(), MAX_CHAIN)
    bundles = {"example.org": Bundle.of("example.org", chain[-1:])}
    now = chain[0].not_valid_before_utc + timedelta(days=1)
    assert verify_x509_svid(chain, bundles, now).id == "spiffe://example.org/service"


def test_leaves_of_rust_spiffe_are_judged_by_the_rules_for_leaves() -> None:
    folder = RUST / "spiffe-rustls/tests/fixtures"
    for name, good in {
        "spiffe_leaf.der": True,
        "spiffe_leaf_uri_only.der": True,
        "spiffe_leaf_no_key_usage.der": False,
        "spiffe_leaf_no_digital_signature.der": False,
        "no_spiffe_leaf.der": False,
        "ca_with_spiffe_signing.der": False,
    }.items():
        leaf = certificate((folder / name).read_bytes())
        if good:
            assert named(leaf).trust_domain == "example.org"
        else:
            with pytest.raises(X509Refused):
                named(leaf)


# ---- the cases that are generated ------------------------------------------------------------------------

ROOT = Authority("root of prod")
OTHER = Authority("root of partner")
BUNDLES_LIVE = {
    DOMAIN: Bundle.of(DOMAIN, [ROOT.cert]),
    "partner.example": Bundle.of("partner.example", [OTHER.cert]),
}


def now() -> datetime:
    return datetime.now(UTC)


def refused(chain: Any, bundles: Any = BUNDLES_LIVE, at: datetime | None = None) -> str:
    with pytest.raises(X509Refused) as caught:
        verify_x509_svid(chain, bundles, at or now())
    return str(caught.value)


def test_a_leaf_of_the_right_authority_is_who_it_says() -> None:
    issued = ROOT.issue(AGENT, dns=["agent.prod.example"])
    found = verify_x509_svid(issued.chain, BUNDLES_LIVE, now())
    assert (found.id, found.trust_domain) == (AGENT, DOMAIN)
    assert found.serial == f"{issued.cert.serial_number:x}"
    assert found.not_after == issued.cert.not_valid_after_utc
    assert len(found.sha256) == 64


def test_more_than_one_uri_name_proves_nobody() -> None:
    assert "found 2" in refused(ROOT.issue(AGENT, "spiffe://prod.example/b").chain)
    assert "found 2" in refused(ROOT.issue(AGENT, "https://prod.example/").chain)
    assert "found 0" in refused(ROOT.issue().chain)


def test_an_empty_chain_proves_nobody() -> None:
    assert refused([]) == "there is no certificate"


def test_without_a_bundle_of_its_trust_domain_a_leaf_proves_nobody() -> None:
    assert "no bundle" in refused(ROOT.issue(AGENT).chain, {})
    only_jwt = {DOMAIN: Bundle.of(DOMAIN, [], read_jwt_bundle(json.dumps({"keys": [jwk("a")]}).encode()))}
    assert "no bundle" in refused(ROOT.issue(AGENT).chain, only_jwt)


def test_a_leaf_that_has_run_out_or_is_not_yet_good_proves_nobody() -> None:
    assert "not valid now" in refused(ROOT.issue(AGENT, life=timedelta(seconds=30)).chain)
    assert "not valid now" in refused(ROOT.issue(AGENT, begins=timedelta(minutes=5)).chain)


@pytest.mark.parametrize(
    "name",
    [
        "https://prod.example/agent",
        "spiffe://prod.example",
        "spiffe://prod.example/",
        "spiffe://PROD.example/agent",
        "spiffe://prod.example/a?b",
        "spiffe://prod.example:80/a",
        "spiffe://prod.example/../a",
    ],
)
def test_a_name_that_is_no_spiffe_id_of_a_workload_proves_nobody(name: str) -> None:
    assert "not the SPIFFE ID" in refused(ROOT.issue(name).chain)


def test_bundles_are_never_merged() -> None:
    """The other root is live, but not for this trust domain."""
    assert "does not lead" in refused(OTHER.issue(AGENT).chain)
    assert verify_x509_svid(OTHER.issue("spiffe://partner.example/x").chain, BUNDLES_LIVE, now()).id
    below = Authority("below partner", OTHER)
    assert "does not lead" in refused(below.issue(AGENT).chain)


def test_an_authority_of_the_same_name_but_another_key_is_another_one() -> None:
    assert "does not lead" in refused(Authority("root of prod").issue(AGENT).chain)


def test_intermediates_lead_to_the_root_or_are_roots_themselves() -> None:
    below = Authority("below", ROOT)
    lowest = Authority("lowest", below)
    assert verify_x509_svid(lowest.issue(AGENT).chain, BUNDLES_LIVE, now()).id == AGENT
    only_lowest = {DOMAIN: Bundle.of(DOMAIN, [lowest.cert])}
    assert verify_x509_svid(lowest.issue(AGENT).chain[:1], only_lowest, now()).id == AGENT
    assert "does not lead" in refused(lowest.issue(AGENT).chain[:2])


def test_intermediates_need_to_be_authorities_that_sign_certificates() -> None:
    assert "does not lead" in refused(Authority("below", ROOT, ca=False).issue(AGENT).chain)
    assert "does not lead" in refused(Authority("below", ROOT, signs=False).issue(AGENT).chain)


def test_a_path_length_is_kept() -> None:
    root = Authority("short", path_length=0)
    bundles = {DOMAIN: Bundle.of(DOMAIN, [root.cert])}
    assert verify_x509_svid(root.issue(AGENT).chain, bundles, now()).id
    assert "does not lead" in refused(Authority("below", root).issue(AGENT).chain, bundles)


def test_an_unknown_critical_extension_is_not_overlooked() -> None:
    odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
    assert refused(ROOT.issue(AGENT, extra=[(odd, True)]).chain)
    assert refused(Authority("odd", ROOT, extra=[(odd, True)]).issue(AGENT).chain)
    assert verify_x509_svid(ROOT.issue(AGENT, extra=[(odd, False)]).chain, BUNDLES_LIVE, now()).id


def test_a_name_constraint_for_other_workloads_holds() -> None:
    only = x509.NameConstraints([x509.UniformResourceIdentifier("other.example")], None)
    below = Authority("constrained", ROOT, extra=[(only, True)])
    assert refused(below.issue(AGENT).chain)


def test_leaves_that_may_sign_certificates_prove_nobody() -> None:
    assert "authority" in refused(ROOT.issue(AGENT, ca=True).chain)
    for used in ("key_cert_sign", "crl_sign"):
        assert "may sign" in refused(
            ROOT.issue(AGENT, key_usage=usage(digital_signature=True, **{used: True})).chain
        )
    assert "not for signatures" in refused(ROOT.issue(AGENT, key_usage=usage(key_agreement=True)).chain)


def test_a_chain_is_bounded() -> None:
    chain = ROOT.issue(AGENT).chain
    assert "at most" in refused(chain * (MAX_CHAIN + 1))
    with pytest.raises(ValueError):
        certificate(chain[0].public_bytes(Encoding.DER) + b"\0")
    with pytest.raises(ValueError):
        certificate(b"\0" * (MAX_CERTIFICATE_BYTES + 1))
    with pytest.raises(X509Refused):
        chain_from_pem(b"-" * 1_000_000)
    for raw in (b"\x30", b"\x30\x80", b"\x30\x84\x01\x00\x00\x00", b"\x30\x05\x00", b"\x30\x82\x01"):
        with pytest.raises(ValueError):
            certificates(raw, 8)
    with pytest.raises(ValueError):
        certificates(chain[0].public_bytes(Encoding.DER) * 3, 2)


def test_certificates_that_lead_in_circles_end() -> None:
    """Two authorities that signed each other, and seven that are one: each could stand above each, without an end."""
    first, second = Authority("a"), Authority("b")
    assert "does not lead" in refused([first.issue(AGENT).cert, first.cert, second.cert] * 2)
    begun = time.monotonic()
    one = Authority("one")
    again = [one.again() for _ in range(MAX_CHAIN - 1)]
    assert "does not lead" in refused([one.issue(AGENT).cert, *again])
    assert time.monotonic() - begun < 5


# ---- the document -----------------------------------------------------------------------------------------


def bad(raw: bytes) -> str:
    with pytest.raises(KeySetError) as caught:
        read_bundle(DOMAIN, raw)
    return str(caught.value)


def test_a_bundle_has_authorities_keys_sequence_and_hint() -> None:
    bundle = read_bundle(
        DOMAIN,
        document(ROOT, OTHER, keys=[jwk("a"), jwk("b")], spiffe_sequence=2**63 + 1, spiffe_refresh_hint=7),
    )
    assert bundle.x509 == (ROOT.cert, OTHER.cert)
    assert set(bundle.jwt) == {"a", "b"}
    assert all(key.is_for("ES256") and not key.is_for("ES384") for key in bundle.jwt.values())
    assert (bundle.sequence, bundle.refresh_s) == (2**63 + 1, 7)


def test_the_revision_tells_authorities_apart_and_nothing_else() -> None:
    key = jwk("a")
    first = read_bundle(DOMAIN, document(ROOT, OTHER, keys=[key], spiffe_sequence=1))
    assert first.revision == read_bundle(DOMAIN, document(OTHER, ROOT, keys=[key])).revision
    assert first.revision != read_bundle(DOMAIN, document(ROOT, keys=[key])).revision
    assert first.revision != read_bundle(DOMAIN, document(ROOT, OTHER, keys=[key | {"kid": "b"}])).revision
    assert first.revision != read_bundle("partner.example", document(ROOT, OTHER, keys=[key])).revision


def test_unknown_uses_and_types_are_left_out() -> None:
    odd = [
        jwk(None, use="wit-svid"),
        jwk(None, use="sig"),
        {"kty": "EC", "kid": "no use"},
        {"use": "x509-svid"},
        {"use": "jwt-svid", "kty": "AKP", "kid": "pq", "pub": "AA"},
        jwk("secp", crv="secp256k1"),
    ]
    bundle = read_bundle(DOMAIN, document(ROOT, keys=[*odd, jwk("a")], another=1))
    assert set(bundle.jwt) == {"a"}


def test_a_bundle_without_authorities_is_read_and_vouches_for_nobody() -> None:
    assert not read_bundle(DOMAIN, b'{"keys": []}').vouches


def test_what_is_wrong_with_a_bundle_is_said_and_refuses_it_whole() -> None:
    pem = base64.b64encode(ROOT.der).decode()
    assert "not JSON" in bad(b"")
    assert "not JSON" in bad(b"[" * 100_000)
    assert "list of objects" in bad(b"[]")
    assert "list of objects" in bad(b'{"keys": [1]}')
    assert "`kid`" in bad(document(keys=[jwk(None)]))
    assert "`kid`" in bad(document(keys=[jwk("")]))
    assert "same `kid`" in bad(document(keys=[jwk("a"), jwk("a")]))
    assert "lacks" in bad(document(keys=[{k: v for k, v in jwk("a").items() if k != "x"}]))
    assert "private key" in bad(document(keys=[jwk("a", d="AAAA")]))
    for x5c in ([], [pem, pem], pem, [1], None):
        assert "exactly one" in bad(
            json.dumps({"keys": [{"use": "x509-svid", "kty": "EC", "x5c": x5c}]}).encode()
        )
    for text in ("!", pem[:-8], base64.b64encode(ROOT.der + b"\0").decode(), pem + "\n"):
        raw = json.dumps({"keys": [{"use": "x509-svid", "kty": "EC", "x5c": [text]}]}).encode()
        assert "not a certificate" in bad(raw)
    for value in (-1, 1.5, True, "1", 2**64):
        assert "`spiffe_sequence`" in bad(document(ROOT, spiffe_sequence=value))
        assert "`spiffe_refresh_hint`" in bad(document(ROOT, spiffe_refresh_hint=value))


def test_a_bundle_is_bounded() -> None:
    assert "more than" in bad(b" " * (MAX_BUNDLE_BYTES + 1))
    assert "at most" in bad(json.dumps({"keys": [{}] * (MAX_KEYS + 1)}).encode())
    assert "at most" in bad(document(*[ROOT] * (MAX_AUTHORITIES + 1)))


# ---- whatever is sent -------------------------------------------------------------------------------------

GOOD = document(ROOT, keys=[jwk("a")], spiffe_sequence=1)


@given(at=st.integers(0, len(GOOD) - 1), cut=st.integers(0, 40), put=st.binary(max_size=40))
def test_no_change_to_a_bundle_does_more_than_refuse_it(at: int, cut: int, put: bytes) -> None:
    changed = GOOD[:at] + put + GOOD[at + cut :]
    for read in (functools.partial(read_bundle, DOMAIN), read_jwt_bundle):
        with contextlib.suppress(KeySetError):
            read(changed)


CHAIN = ROOT.issue(AGENT).chain_der


@given(at=st.integers(0, len(CHAIN) - 1), cut=st.integers(0, 8), put=st.binary(max_size=8))
def test_no_change_to_a_certificate_proves_anything_new(at: int, cut: int, put: bytes) -> None:
    changed = CHAIN[:at] + put + CHAIN[at + cut :]
    try:
        chain = certificates(changed, MAX_CHAIN)
    except ValueError:
        return
    if changed != CHAIN:
        refused(chain)
