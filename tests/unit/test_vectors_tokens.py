"""The vectors of tokens: each case counts, or is refused with its reason."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from signalwarden import _core
from signalwarden.bundles.bundle import Bundle
from signalwarden.keysets import KeySet, PublicKey, read_key_set
from signalwarden.tokens import Limits, Terms, TokenClass, TokenRefused, Validator
from signalwarden.tokens.terms import SVID_ALGORITHMS
from tests.minting import NOW_S, NOW_US, TERMS, digest_of, laid_over, sign, terms, validator
from tests.transmitter import Key, key_set

VECTORS = Path(__file__).parents[1] / "vectors"
REASONS = {code for code, *_ in _core.reasons()}


def cases(name: str) -> list[Any]:
    of = json.loads((VECTORS / "tokens" / f"{name}.json").read_bytes())
    return [pytest.param(of, case, id=f"{name}: {case['name']}") for case in of["cases"]]


KEYS: dict[tuple[str, str], Key] = {}


def key(kid: str, algorithm: str) -> Key:
    """One of a name for all cases."""
    return KEYS.setdefault((kid, algorithm), Key.make(algorithm, kid))


def token(of: Mapping[str, Any], case: Mapping[str, Any]) -> bytes:
    if "raw" in case:
        return str(case["raw"]).encode()
    signer = case.get("signer", of["base"]["signer"])
    header = laid_over(of["base"]["header"], case.get("header", {}))
    header = {"kid": None, **header}
    claims = laid_over(of["base"]["claims"], case.get("claims", {}))
    payload = case["payload"].encode() if "payload" in case else json.dumps(claims).encode()
    return sign(key(signer, of["keys"][signer]), payload, **header)


@pytest.mark.parametrize(("of", "case"), [*cases("access_tokens"), *cases("transaction_tokens")])
def test_a_token_counts_or_is_refused_with_its_reason(of: Mapping[str, Any], case: Mapping[str, Any]) -> None:
    held = terms(of["terms"] | case.get("terms", {}))
    published = [key(kid, of["keys"][kid]) for kid in of["published"]]
    ways = [tuple(way) for way in case.get("ways", [])]
    keys = KeySet(lambda: key_set(*published), refresh_s=600)
    checked = validator(held, keys, ways={str(held.issuer): ways})
    raw = token(of, case)

    def validate() -> dict[str, Any]:
        proof = checked.validate("jwt_svid,oauth", raw, digest=digest_of(raw), now_us=of["now"] * 1_000_000)
        content: dict[str, Any] = json.loads(proof.to_json())
        return content

    if "reason" in case:
        with pytest.raises(TokenRefused) as refused:
            validate()
        assert refused.value.reason == case["reason"], refused.value.detail
        assert case.get("detail", "") in refused.value.detail
        assert refused.value.reason in REASONS
        assert len(refused.value.detail) < 400
    else:
        proof = validate()
        assert {name: proof[name] for name in case["proof"]} == case["proof"]
        assert proof["terms"] == TERMS
        assert proof["digest"] == digest_of(raw)
        assert raw.decode() not in json.dumps(proof)


# ---- JWT-SVIDs --------------------------------------------------------------------------------------------

SVIDS = json.loads((VECTORS / "spiffe" / "jwt_svid_cases.json").read_bytes())
SIGNERS = {
    "key1": ("authority1", "ES384"),
    "key2": ("authority2", "RS256"),
    "p256": ("authority-p256", "ES256"),
    "p521": ("authority-p521", "ES512"),
}


def authorities() -> dict[str, PublicKey]:
    found = {}
    for kid, algorithm in SIGNERS.values():
        (read,) = read_key_set(json.dumps({"keys": [key(kid, algorithm).public_jwk(alg=None)]}).encode())
        found[kid] = read
    return found


class Published:
    """Every trust domain of the vectors publishes the four authorities, but one."""

    def __init__(self) -> None:
        self.keys = authorities()

    def get(self, trust_domain: str) -> Bundle | None:
        if trust_domain not in ("trustdomain", "example.org", "somewhere.over.the"):
            return None
        return Bundle.of(trust_domain, keys=self.keys)


def svid_claims(given: Mapping[str, Any]) -> bytes:
    if "__raw__" in given:
        return str(given["__raw__"]).encode()
    claims = {name: value for name, value in given.items() if not name.startswith("__")}
    for name in ("exp", "iat"):
        value = claims.get(name)
        if isinstance(value, str) and "__exp_note" in given:
            claims[name] = json.loads(value) if value.startswith('"') else value
            if value[0] in "+-":
                claims[name] = NOW_S + int(value)
    return json.dumps(claims).encode()


def svid(case: Mapping[str, Any]) -> bytes:
    if "raw" in case:
        return str(case["raw"]).encode()
    payload = svid_claims(case["claims"])
    header = {"kid": None, "alg": None, **case["header"]}
    kid, algorithm = SIGNERS.get(case["signer"], ("secret", "ES256"))
    return sign(key(kid, algorithm), payload, **header)


def svid_terms(audience: list[str], **more: Any) -> Terms:
    return Terms(TokenClass.JWT_SVID, None, frozenset(audience), SVID_ALGORITHMS, TERMS, **more)


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in SVIDS["cases"]])
def test_a_jwt_svid_counts_or_is_refused(case: Mapping[str, Any]) -> None:
    checked = Validator(svids=svid_terms(case["expected_audience"] or ["audience"]), bundles=Published())
    raw = svid(case)
    if case["expect"] == "accept":
        proof = checked.validate("jwt_svid", raw, digest=digest_of(raw), now_us=NOW_US)
        assert proof.principal == case["claims"]["sub"]
        assert proof.rests_on[0][0] == f"jwt:{proof.issuer}"
    else:
        with pytest.raises(TokenRefused) as refused:
            checked.validate("jwt_svid", raw, digest=digest_of(raw), now_us=NOW_US)
        assert refused.value.reason == REFUSED.get(case["name"], "token_invalid")


REFUSED = {
    "missing_exp": "token_too_long_lived",
    "expired": "token_expired",
    "expired_1": "token_expired",
    "expired-86400": "token_expired",
    "expired-3600": "token_expired",
    "expired-60": "token_expired",
    "no_bundle_for_trust_domain": "trust_domain_unknown",
}
"""Those that are not `token_invalid`."""


def test_no_vector_of_jwt_svids_is_lost() -> None:
    assert len(SVIDS["cases"]) == 47
    assert sorted(SVID_ALGORITHMS) == sorted(SVIDS["allowed_algorithms"])


# ---- JWT-SVIDs, what the vectors of others leave out --------------------------------------------------------

WORKLOAD = "spiffe://example.org/service"


def checked(claims: Mapping[str, Any], **more: Any) -> Any:
    good = {"sub": WORKLOAD, "aud": ["a"], "iat": NOW_S - 10, "exp": NOW_S + 290}
    header = {"kid": "authority1", **more.pop("header", {})}
    raw = sign(key("authority1", "ES384"), json.dumps(laid_over(good, claims)).encode(), **header)
    limits = more.pop("limits", Limits(max_lifetime_us=300_000_000))
    of = Validator(svids=svid_terms(["a"], limits=limits), bundles=Published(), **more)
    return of.validate("jwt_svid", raw, digest=digest_of(raw), now_us=NOW_US)


def refusal(claims: Mapping[str, Any], **more: Any) -> str:
    with pytest.raises(TokenRefused) as refused:
        checked(claims, **more)
    return refused.value.reason


@pytest.mark.parametrize("name", ["jwk", "jku", "x5c", "cty", "crit", "b64", "whatever"])
def test_the_header_of_a_jwt_svid_is_closed(name: str) -> None:
    assert checked({}).principal == WORKLOAD
    assert refusal({}, header={name: ["x"]}) == "token_invalid"


def test_a_jwt_svid_is_short_lived() -> None:
    assert refusal({"exp": NOW_S + 291}) == "token_too_long_lived"
    assert checked({"iat": None, "exp": NOW_S + 300}).issued_at_us is None
    assert refusal({"iat": None, "exp": NOW_S + 301}) == "token_too_long_lived"
    assert refusal({"iat": NOW_S + 6}) == "token_invalid"
    assert refusal({}, limits=Limits(max_age_us=9_000_000)) == "token_too_long_lived"
    assert refusal({"iat": None}, limits=Limits(max_age_us=9_000_000)) == "token_too_long_lived"


def test_a_binding_of_a_jwt_svid_is_kept_or_refused() -> None:
    x5t = "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg0"
    assert checked({"cnf": {"x5t#S256": x5t}}).certificate_sha256 is not None
    assert refusal({"cnf": {"jkt": x5t}}) == "token_invalid"


def test_a_key_vouches_for_its_own_trust_domain_alone() -> None:
    ours, theirs = Key.make("ES256", "k"), Key.make("ES256", "k")

    class Two:
        def get(self, trust_domain: str) -> Bundle | None:
            owner = {"ours.example": ours, "theirs.example": theirs}[trust_domain]
            (public,) = read_key_set(key_set(owner))
            return Bundle.of(trust_domain, keys={"k": public})

    claims = {"sub": "spiffe://ours.example/a", "aud": "a", "exp": NOW_S + 60}
    for signer, good in ((ours, True), (theirs, False)):
        raw = sign(signer, json.dumps(claims).encode(), kid="k")
        of = Validator(svids=svid_terms(["a"]), bundles=Two())
        if good:
            assert of.validate("jwt_svid", raw, digest=digest_of(raw), now_us=NOW_US).issuer == "ours.example"
        else:
            with pytest.raises(TokenRefused, match="signature"):
                of.validate("jwt_svid", raw, digest=digest_of(raw), now_us=NOW_US)


def test_a_trust_domain_that_is_not_accepted_is_unknown_even_with_a_bundle() -> None:
    assert refusal({}, accepted=frozenset({"prod.example"})) == "trust_domain_unknown"
    assert checked({}, accepted=frozenset({"example.org"})).principal == WORKLOAD


def test_a_jwt_svid_is_refused_where_only_oauth_tokens_are_taken() -> None:
    raw = sign(key("authority1", "ES384"), b"{}", kid="authority1")
    with pytest.raises(TokenRefused) as refused:
        Validator(svids=svid_terms(["a"]), bundles=Published()).validate(
            "oauth", raw, digest=digest_of(raw), now_us=NOW_US
        )
    assert refused.value.reason == "credential_refused"
