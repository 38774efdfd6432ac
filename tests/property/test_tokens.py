"""Whatever bytes come as a token: it counts with a good signature, or is refused with one of our reasons and sentences."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from signalwarden import _core, jose
from signalwarden.tokens import PrincipalTemplate, Proof, TokenRefused
from signalwarden.tokens.claims import MAX_TOKEN_BYTES
from signalwarden.tokens.desk import MAX_PER_PEER, PEER_A_SECOND, PEER_BURST, Desk
from signalwarden.tokens.proof import shown
from signalwarden.values import spiffe_trust_domain
from tests.minting import ISSUER, NOW_S, NOW_US, Issuer, digest_of, sign, validator
from tests.transmitter import Key, b64

LOGIN = Issuer()
CHECKED = validator(LOGIN.terms(), LOGIN.key_set(), ways={ISSUER: [("org", "tier")]})
STRANGER = Key.make("ES256", "k1")
REASONS = {code for code, *_ in _core.reasons()}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = (
    "iss",
    "aud",
    "sub",
    "client_id",
    "iat",
    "exp",
    "nbf",
    "jti",
    "cnf",
    "act",
    "scope",
    "org",
    "acr",
    "status",
)
changes = st.dictionaries(st.sampled_from(NAMES), json_values, max_size=4)
headers = st.dictionaries(
    st.sampled_from(("alg", "typ", "kid", "crit", "b64", "jwk", "x")), json_values, max_size=3
)


def outcome(raw: bytes) -> Proof | None:
    """The proof, or None for one that was refused as it should be."""
    refusal = None
    try:
        return CHECKED.validate(
            "jwt_svid,oauth", raw, digest=digest_of(raw), header="authorization", now_us=NOW_US
        )
    except TokenRefused as refused:
        refusal = refused
    assert refusal.reason in REASONS
    assert refusal.detail.isprintable()
    assert len(refusal.detail) < 400
    parts = [part for part in raw.decode("latin-1").split(".") if len(part) > 20]
    assert not any(part in refusal.detail for part in parts)
    return None


@given(st.binary(max_size=200) | st.text(alphabet="eyJ0.-_=A", max_size=200).map(str.encode))
@example(b"e30.e30.e30")
@example(b"." * (MAX_TOKEN_BYTES + 1))
def test_any_bytes_are_refused_with_a_reason(raw: bytes) -> None:
    assert outcome(raw) is None


@settings(max_examples=300)
@given(changes, headers)
def test_any_claims_that_are_signed_give_a_proof_within_its_bounds_or_a_reason(
    claims: dict[str, Any], header: dict[str, Any]
) -> None:
    good: dict[str, Any] = {
        "iss": ISSUER,
        "aud": "https://payments.example",
        "sub": "a",
        "client_id": "a",
        "iat": NOW_S - 10,
        "exp": NOW_S + 50,
        "jti": "t",
    }
    payload = json.dumps(good | claims).encode()
    raw = sign(LOGIN.key, payload, **{"typ": "at+jwt", "kid": "k1", **header})
    proof = outcome(raw)
    if proof is None:
        return
    assert proof.expires_at_us > NOW_US
    assert proof.principal is not None
    assert spiffe_trust_domain(proof.principal) == "prod.example"
    assert [way for way, _ in proof.claims] == [("org", "tier")]
    # The core reads every proof that is made.
    _core.Engine().validated(b"", proofs=[proof.to_json()], refused=[])


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_a_token_of_which_one_byte_is_another_is_refused(at: int, by: int) -> None:
    raw = bytearray(LOGIN.token())
    raw[at % len(raw)] ^= by
    assert outcome(bytes(raw)) is None


@given(st.binary(min_size=1, max_size=90))
def test_base64url_has_one_form(content: bytes) -> None:
    segment = b64(content)
    assert jose.decoded(segment, "it") == content
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    same = []
    for last in alphabet:
        try:
            if jose.decoded(segment[:-1] + bytes([last]), "it") == content:
                same.append(last)
        except jose.MalformedError:
            continue
    assert same == [segment[-1]]


@given(json_values)
def test_what_is_read_as_an_object_has_one_meaning(value: Any) -> None:
    text = json.dumps({"a": value}).encode()
    try:
        content = jose.read_object(text, "it")
    except jose.MalformedError:
        return
    assert json.loads(json.dumps(content)) == json.loads(text)


@given(st.text(max_size=40))
def test_a_claim_is_one_segment_of_a_principal_or_refused(value: str) -> None:
    template = PrincipalTemplate.parse("spiffe://prod.example/oauth/{sub}/x", None)
    try:
        made = template.principal(value)
    except TokenRefused:
        return
    assert made == f"spiffe://prod.example/oauth/{value}/x"
    assert made.split("/")[4:] == [value, "x"]
    assert spiffe_trust_domain(made) == "prod.example"


@given(st.text(max_size=300))
def test_a_foreign_name_is_shown_printable_and_short(name: str) -> None:
    text = shown(name)
    assert len(text) <= 131
    assert text.isprintable()
    assert "`" not in text[1:-1]


# ---- the desk ----------------------------------------------------------------------------------------------


class Credential:
    source, header, token = "oauth", "authorization", b"t"

    def __init__(self, digest: str) -> None:
        self.digest = digest


class Pending:
    def __init__(self, peer: str, digests: list[str]) -> None:
        self.peer = peer
        self.credentials = [Credential(digest) for digest in digests]


class Engine:
    def __init__(self) -> None:
        self.calls = 0

    def validated(self, request: bytes, *, proofs: Any, refused: Any) -> bytes:
        self.calls += 1
        assert len({digest for digest, *_ in refused}) + len(proofs) > 0
        return request


calls = st.lists(
    st.tuples(
        st.sampled_from(("a", "b")),
        st.lists(st.integers(0, 60), min_size=1, max_size=4),
        st.floats(0, 2),
    ),
    max_size=120,
)


@settings(max_examples=60)
@given(calls)
def test_no_peer_is_looked_at_for_more_bad_tokens_than_its_bucket_holds(
    made: list[tuple[str, list[int], float]],
) -> None:
    now, looks = 0.0, {"a": 0, "b": 0}

    class Never:
        peer = ""

        def validate(self, source: str, token: bytes, **more: Any) -> Proof:
            looks[self.peer] += 1
            raise TokenRefused.invalid("never")

    never, engine = Never(), Engine()
    desk = Desk(engine, never, clock=lambda: now)  # type: ignore[arg-type]
    for peer, ats, pause in made:
        now += pause
        never.peer = peer
        assert desk.answer(b"r", Pending(peer, [f"{at:064x}" for at in ats])) == b"r"
    assert engine.calls == len(made)
    assert max(looks.values()) <= PEER_BURST + PEER_A_SECOND * now
    counts = desk.counters()
    assert counts["waiting"] == 0
    assert counts["first_sights"] == counts["remembered"] + counts["refused_unseen"] + sum(looks.values())
    assert MAX_PER_PEER < PEER_BURST
