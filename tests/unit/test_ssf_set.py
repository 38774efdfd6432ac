"""`signals.ssf.set`: what is taken for a SET of a feed, and what is answered to anything else."""

from __future__ import annotations

import base64
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signalwarden.errors import KeySetError
from signalwarden.keysets import ALGORITHMS, KeySet
from signalwarden.signals.ssf.set import (
    MAX_EVENTS,
    MAX_JTI_BYTES,
    MAX_SET_BYTES,
    MAX_SKEW_US,
    ErrorCode,
    SecurityEventToken,
    SetRefusedError,
    Verifier,
)
from tests.transmitter import AUDIENCE, CAEP, ISSUER, Key, Transmitter, b64, key_set

VECTORS = Path(__file__).parents[1] / "vectors/ssf/rfc8417.json"
NOW = 1_764_000_000
NOW_US = NOW * 1_000_000
EVENT: dict[str, Any] = {CAEP + "session-revoked": {}}
SUBJECT = {"format": "opaque", "id": "d1"}


@pytest.fixture(scope="module")
def transmitter() -> Transmitter:
    return Transmitter()


@pytest.fixture(scope="module")
def verifier(transmitter: Transmitter) -> Verifier:
    return verifier_of(transmitter.key)


def verifier_of(*keys: Key, issuer: str = ISSUER, audience: str = AUDIENCE) -> Verifier:
    return Verifier(issuer, audience, KeySet(lambda: key_set(*keys), refresh_s=600))


def refused(verifier: Verifier, raw: bytes) -> SetRefusedError:
    with pytest.raises(SetRefusedError) as error:
        verifier.verify(raw, NOW_US)
    return error.value


def good(transmitter: Transmitter, **more: Any) -> dict[str, Any]:
    return transmitter.claims(NOW, EVENT, SUBJECT, **more)


# ---- what is taken ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_set_is_taken_by_every_algorithm_of_ours(algorithm: str) -> None:
    sender = Transmitter(Key.make(algorithm))
    token = verifier_of(sender.key).verify(sender.sign(good(sender, jti="one")), NOW_US)
    assert token == SecurityEventToken("one", NOW_US, SUBJECT, EVENT)


@pytest.mark.parametrize("typ", ["secevent+jwt", "SECEVENT+JWT", "application/secevent+jwt"])
def test_the_type_is_read_as_media_types_are(transmitter: Transmitter, verifier: Verifier, typ: str) -> None:
    verifier.verify(transmitter.sign(good(transmitter), typ=typ), NOW_US)


def test_one_of_several_audiences_may_be_ours(transmitter: Transmitter, verifier: Verifier) -> None:
    verifier.verify(transmitter.sign(good(transmitter, aud=["https://other.example", AUDIENCE])), NOW_US)


def test_fields_that_nobody_knows_are_let_be(transmitter: Transmitter, verifier: Verifier) -> None:
    """SSF 1.0, section 4.2.3."""
    verifier.verify(transmitter.sign(good(transmitter, txn=8675309, more={"x": [1]})), NOW_US)


def test_a_clock_a_little_ahead_of_ours_is_let_be(transmitter: Transmitter, verifier: Verifier) -> None:
    ahead = NOW + MAX_SKEW_US // 1_000_000
    assert (
        verifier.verify(transmitter.sign(good(transmitter) | {"iat": ahead}), NOW_US).issued_at_us
        == ahead * 1_000_000
    )
    verifier.verify(transmitter.sign(good(transmitter, nbf=ahead)), NOW_US)


# ---- signature and key ------------------------------------------------------------------------------------


def test_a_set_that_nobody_signed_is_refused(transmitter: Transmitter, verifier: Verifier) -> None:
    header = b64(json.dumps({"typ": "secevent+jwt", "alg": "none", "kid": "k1"}).encode())
    for signature in (b"", b".", b".AAAA"):
        raw = header + b"." + b64(json.dumps(good(transmitter)).encode()) + signature
        assert refused(verifier, raw).code in (ErrorCode.INVALID_REQUEST, ErrorCode.AUTHENTICATION_FAILED)


@pytest.mark.parametrize(
    "alg", ["HS256", "HS512", "ES256K", "RS1", "dir", "A128GCM", "es256", "", 7, ["ES256"]]
)
def test_an_algorithm_that_is_not_ours_is_refused_whatever_the_key(
    transmitter: Transmitter, verifier: Verifier, alg: Any
) -> None:
    assert refused(verifier, transmitter.sign(good(transmitter), alg=alg)).code is ErrorCode.INVALID_KEY


def test_a_public_key_is_no_secret_for_hmac() -> None:
    sender = Transmitter(Key.make("RS256"))
    public = json.dumps(sender.key.public_jwk()).encode()
    header = {"typ": "secevent+jwt", "alg": "HS256", "kid": "k1"}
    signed = b64(json.dumps(header).encode()) + b"." + b64(json.dumps(good(sender)).encode())
    raw = signed + b"." + b64(hmac.digest(public, signed, "sha256"))
    assert refused(verifier_of(sender.key), raw).code is ErrorCode.INVALID_KEY


def test_an_algorithm_of_the_same_family_is_not_the_keys_own() -> None:
    sender = Transmitter(Key.make("RS256"))
    forged = sender.sign(good(sender), key=Key("k1", "RS512", sender.key.private))
    assert refused(verifier_of(sender.key), forged).code is ErrorCode.INVALID_KEY


def test_a_key_of_somebody_else_does_not_sign(transmitter: Transmitter, verifier: Verifier) -> None:
    stranger = Key.make("ES256", transmitter.key.kid)
    assert (
        refused(verifier, transmitter.sign(good(transmitter), key=stranger)).code
        is ErrorCode.AUTHENTICATION_FAILED
    )
    unknown = Key.make("ES256", "unknown")
    with pytest.raises(KeySetError):  # the set was fetched just now: nobody can say yet
        verifier.verify(transmitter.sign(good(transmitter), key=unknown), NOW_US)


def test_a_key_that_the_token_brings_along_is_never_looked_at(
    transmitter: Transmitter, verifier: Verifier
) -> None:
    stranger = Key.make("ES256", transmitter.key.kid)
    brought: dict[str, Any] = {
        "jwk": stranger.public_jwk(),
        "jku": "https://evil.example/jwks",
        "x5u": "https://evil.example/x5u",
        "x5c": ["AAAA"],
    }
    raw = transmitter.sign(good(transmitter), key=stranger, **brought)
    assert refused(verifier, raw).code is ErrorCode.AUTHENTICATION_FAILED
    verifier.verify(transmitter.sign(good(transmitter), **brought), NOW_US)


@pytest.mark.parametrize("header", [{"crit": ["exp"], "exp": 1}, {"crit": []}, {"b64": False}, {"b64": True}])
def test_extensions_of_the_header_are_refused(
    transmitter: Transmitter, verifier: Verifier, header: dict[str, Any]
) -> None:
    assert refused(verifier, transmitter.sign(good(transmitter), **header)).code is ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize("kid", ["", "k" * (MAX_JTI_BYTES + 1), 7, ["k1"], {"k": 1}])
def test_a_name_of_a_key_that_is_none_is_refused(
    transmitter: Transmitter, verifier: Verifier, kid: Any
) -> None:
    assert refused(verifier, transmitter.sign(good(transmitter), kid=kid)).code is ErrorCode.INVALID_REQUEST


def test_changed_bytes_break_the_signature(transmitter: Transmitter, verifier: Verifier) -> None:
    header, payload, signature = transmitter.sign(good(transmitter)).split(b".")
    claims = json.loads(base64.urlsafe_b64decode(payload + b"=="))
    claims["sub_id"]["id"] = "d2"
    forged = b".".join((header, b64(json.dumps(claims).encode()), signature))
    assert refused(verifier, forged).code is ErrorCode.AUTHENTICATION_FAILED


# ---- who it is for, and what kind of token it is ----------------------------------------------------------


@pytest.mark.parametrize(
    "iss", ["https://idp.example/", "https://evil.example", None, 7, ["https://idp.example"]]
)
def test_another_issuer_is_refused(transmitter: Transmitter, verifier: Verifier, iss: Any) -> None:
    error = refused(verifier, transmitter.sign(good(transmitter, iss=iss)))
    assert (error.code, error.genuine) == (ErrorCode.INVALID_ISSUER, False)


@pytest.mark.parametrize(
    "aud", ["https://other.example", None, 7, [], [7], {"a": AUDIENCE}, [[AUDIENCE]], ["x"] * 65]
)
def test_another_audience_is_refused(transmitter: Transmitter, verifier: Verifier, aud: Any) -> None:
    error = refused(verifier, transmitter.sign(good(transmitter, aud=aud)))
    assert (error.code, error.genuine) == (ErrorCode.INVALID_AUDIENCE, False)


@pytest.mark.parametrize("typ", ["JWT", "at+jwt", "secevent", "", None, 7])
def test_another_type_of_token_is_refused(transmitter: Transmitter, verifier: Verifier, typ: Any) -> None:
    assert refused(verifier, transmitter.sign(good(transmitter), typ=typ)).code is ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize("claim", ["sub", "exp"])
@pytest.mark.parametrize("value", ["x", 4_000_000_000, {}])
def test_a_token_with_sub_or_exp_is_no_set(
    transmitter: Transmitter, verifier: Verifier, claim: str, value: Any
) -> None:
    error = refused(verifier, transmitter.sign(good(transmitter, **{claim: value})))
    assert (error.code, error.genuine) == (ErrorCode.INVALID_REQUEST, False)


# ---- what a transmitter may get wrong ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"jti": None},
        {"jti": ""},
        {"jti": 7},
        {"jti": "j" * (MAX_JTI_BYTES + 1)},
        {"iat": None},
        {"iat": "1764000000"},
        {"iat": True},
        {"iat": -1},
        {"iat": NOW * 1_000},
        {"iat": NOW + 6},
        {"nbf": NOW + 6},
        {"nbf": "now"},
        {"events": None},
        {"events": {}},
        {"events": []},
        {"events": {CAEP + "session-revoked": None}},
        {"events": {CAEP + "session-revoked": []}},
        {"events": {"": {}}},
        {"events": {"u" * 513: {}}},
        {"events": {f"urn:{at}": {} for at in range(MAX_EVENTS + 1)}},
    ],
)
def test_a_malformed_set_of_the_transmitter_is_refused_as_its_own(
    transmitter: Transmitter, verifier: Verifier, wrong: dict[str, Any]
) -> None:
    claims = {name: value for name, value in (good(transmitter) | wrong).items() if value is not None}
    error = refused(verifier, transmitter.sign(claims))
    assert (error.code, error.genuine) == (ErrorCode.INVALID_REQUEST, True)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        b"[]",
        b"7",
        b'{"iss":"https://idp.example","iss":"https://idp.example"}',
        b'{"iat":NaN}',
        b'{"iat":1e999}',
        b'{"jti":"\\ud800"}',
        b'{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        b'{"a":' + b"9" * 5_000 + b"}",
    ],
)
def test_claims_of_which_two_could_read_two_things_are_refused(
    transmitter: Transmitter, verifier: Verifier, payload: bytes
) -> None:
    assert refused(verifier, transmitter.sign(payload)).code is ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b".",
        b"..",
        b"a.b",
        b"a.b.c.d.e",
        b"a.b.c",
        b"{}",
        b"e30=.e30.AAAA",
        b" e30.e30.AAAA",
        b"e30.e30.AAAA\n",
        b"e30.e30.A+/=",
        b"\xff.\xff.\xff",
        b"a" * (MAX_SET_BYTES + 1),
        b"e30." + b"A" * MAX_SET_BYTES + b".AAAA",
    ],
)
def test_what_is_no_compact_token_is_refused(verifier: Verifier, raw: bytes) -> None:
    assert refused(verifier, raw).code is ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize("case", json.loads(VECTORS.read_text())["cases"], ids=lambda case: case["name"])
def test_the_examples_of_rfc_8417_are_judged_by_the_profile(
    transmitter: Transmitter, case: dict[str, Any]
) -> None:
    claims = case["claims"]
    audience = claims["aud"] if isinstance(claims["aud"], str) else claims["aud"][0]
    verifier = verifier_of(transmitter.key, issuer=claims["iss"], audience=audience)
    raw = transmitter.sign(claims)
    if case["refused"]:
        assert refused(verifier, raw).code == case["refused"]
    else:
        assert verifier.verify(raw, NOW_US).jti == claims["jti"]


# ---- whatever comes ---------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.binary(max_size=400))
def test_whatever_bytes_come_they_are_refused_in_order(raw: bytes) -> None:
    refused(VERIFIER, raw)


@given(header=JSON, claims=JSON, signature=st.binary(max_size=80))
def test_whatever_is_put_into_a_token_it_is_refused_in_order(
    header: Any, claims: Any, signature: bytes
) -> None:
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    refused(VERIFIER, b".".join(map(b64, parts)))


@settings(max_examples=300)
@given(
    header=st.dictionaries(st.sampled_from(["typ", "alg", "kid", "crit", "b64", "jwk", "zip", "cty"]), JSON),
    claims=st.dictionaries(
        st.sampled_from(["iss", "aud", "iat", "jti", "sub_id", "events", "sub", "exp", "nbf", "toe", "txn"]),
        JSON,
    ),
    keep=st.sets(st.sampled_from(["iss", "aud", "iat", "jti", "events"])),
)
def test_whatever_the_transmitter_signs_is_taken_or_refused_in_order(
    header: dict[str, Any], claims: dict[str, Any], keep: set[str]
) -> None:
    whole = good(SENDER)
    claims |= {name: whole[name] for name in keep}
    for headers in ({}, header):
        try:
            token = VERIFIER.verify(SENDER.sign(claims, **headers), NOW_US)
        except (SetRefusedError, KeySetError):
            continue
        assert claims["iss"] == ISSUER
        assert token.issued_at_us <= NOW_US + MAX_SKEW_US
        assert not {"sub", "exp"} & claims.keys()


SENDER = Transmitter()
VERIFIER = verifier_of(SENDER.key)
