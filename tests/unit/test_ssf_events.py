"""`signals.ssf.subjects` and `.events`: from whom and what an event is about to values of contracts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalwarden.signals.ssf.events import CAEP, Reading, contracts_of, read_events
from signalwarden.signals.ssf.set import SecurityEventToken
from signalwarden.signals.ssf.subjects import (
    EVERYONE,
    MAX_ALIASES,
    MAX_ID_BYTES,
    MAX_MEMBERS,
    Aim,
    InexpressibleError,
    Rules,
    read_subject,
)

VECTORS = Path(__file__).parents[1] / "vectors/ssf"
ISSUER = "https://idp.example"
NOW_US = 1_764_000_000_000_000
DEVICE = Aim("device", "device")
USER = Aim("principal", "user", "spiffe://prod.example/users/{id}")


def vectors(name: str, part: str = "cases") -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in json.loads((VECTORS / name).read_text())[part]]


def rules(issuer: str = ISSUER, critical: tuple[str, ...] = (), **members: str) -> Rules:
    return Rules(issuer, members, frozenset(critical))


def opaque(name: Any) -> dict[str, Any]:
    return {"format": "opaque", "id": name}


def complex_(**members: Any) -> dict[str, Any]:
    return {
        "format": "complex",
        **{name: opaque(value) if isinstance(value, str) else value for name, value in members.items()},
    }


def subjects(sub_id: Any, aim: Aim = DEVICE, of: Rules | None = None) -> tuple[str, ...]:
    of = of or rules()
    return aim.subjects(read_subject(sub_id, of.issuer), of)


def inexpressible(sub_id: Any, aim: Aim = DEVICE, of: Rules | None = None) -> str:
    with pytest.raises(InexpressibleError) as error:
        subjects(sub_id, aim, of)
    return str(error.value)


# ---- identifiers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", vectors("rfc9493.json"))
def test_every_format_of_rfc_9493_names_its_subject(case: dict[str, Any]) -> None:
    assert subjects(case["sub_id"], of=rules("https://issuer.example.com/")) == tuple(case["names"])


@pytest.mark.parametrize("case", vectors("ssf.json", "subjects"))
def test_formats_that_name_no_subject_of_ours_are_inexpressible(case: dict[str, Any]) -> None:
    assert inexpressible(case["sub_id"])


def test_an_account_of_another_issuer_is_somebody_else() -> None:
    stranger = {"format": "iss_sub", "iss": "https://evil.example", "sub": "d1"}
    assert "another issuer" in inexpressible(stranger)
    assert subjects(stranger | {"iss": ISSUER}) == ("d1",)


@pytest.mark.parametrize(
    "sub_id",
    [
        None,
        7,
        "d1",
        [],
        {},
        {"format": "opaque"},
        {"format": "opaque", "id": ""},
        {"format": "opaque", "id": 7},
        {"format": "opaque", "id": "x" * (MAX_ID_BYTES + 1)},
        {"format": "opaque", "id": "a\nb"},
        {"format": ["opaque"], "id": "d1"},
        {"id": "d1"},
        {"format": "aliases"},
        {"format": "aliases", "identifiers": []},
        {"format": "aliases", "identifiers": [7]},
        {"format": "aliases", "identifiers": [{"format": "aliases", "identifiers": [opaque("d1")]}]},
        {"format": "aliases", "identifiers": [opaque("d1")] * (MAX_ALIASES + 1)},
        {"format": "complex"},
        {"format": "complex", "device": 7},
        {"format": "complex", "device": complex_(device="d1")},
        {"format": "complex", **{f"m{at}": opaque("x") for at in range(MAX_MEMBERS + 1)}},
    ],
)
def test_what_names_nobody_is_inexpressible(sub_id: Any) -> None:
    assert inexpressible(sub_id)


def test_of_several_names_those_count_that_the_contract_can_write() -> None:
    both = {"format": "aliases", "identifiers": [{"format": "email", "email": "a@b.example"}, opaque("jane")]}
    assert subjects(both, USER) == ("spiffe://prod.example/users/jane",)


# ---- templates --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a/b", "..", ".", "a b", "a@b", "a%2fb", "é", "x?y", "x#y", "{id}"])
def test_a_name_never_leads_out_of_its_place_in_a_template(name: str) -> None:
    assert "can't be written" in inexpressible(opaque(name), USER)


def test_a_resource_keeps_its_quotes() -> None:
    aim = Aim("resource", "application", 'Service::"{id}"')
    assert subjects(opaque("billing"), aim) == ('Service::"billing"',)
    assert inexpressible(opaque('x"'), aim)
    assert inexpressible(opaque("x\\"), aim)
    assert inexpressible(opaque("billing"), Aim("resource", "application"))


def test_a_principal_without_a_template_must_be_a_spiffe_id() -> None:
    aim = Aim("principal", "user")
    workload = {"format": "uri", "uri": "spiffe://prod.example/ns/a/sa/b"}
    assert subjects(workload, aim) == ("spiffe://prod.example/ns/a/sa/b",)
    assert inexpressible({"format": "email", "email": "jane@prod.example"}, aim)


def test_nobody_becomes_everyone_by_calling_himself_so() -> None:
    assert inexpressible(opaque("*"))
    assert inexpressible(complex_(device="*"))


# ---- complex subjects -------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", vectors("ssf.json", "matching"))
def test_complex_subjects_match_as_ssf_says(case: dict[str, Any]) -> None:
    aim, of = Aim("device", "user"), rules(tenant="example-a38h4792-uw2")
    if case["subjects"] is None:
        assert inexpressible(case["event"], aim, of)
    else:
        assert subjects(case["event"], aim, of) == tuple(case["subjects"])


def test_a_member_that_is_missing_matches_everyone_of_what_the_feed_names() -> None:
    assert subjects(complex_(tenant="T-1"), of=rules(tenant="T-1")) == (EVERYONE,)
    assert subjects(complex_(tenant="T-2"), of=rules(tenant="T-1")) == ()


def test_everyone_of_a_tenant_that_the_feed_does_not_name_is_not_everyone() -> None:
    assert "only a part" in inexpressible(complex_(tenant="T-1"))
    assert "only a part" in inexpressible(complex_(tenant="T-1", user="u"), of=rules(tenant="T-1"))
    assert "only a part" in inexpressible(complex_(tenant="T-1", group="g"), of=rules(tenant="T-1"))


def test_other_members_beside_the_contracts_own_describe_the_same_subject() -> None:
    """SSF 1.0, section 3.3.1."""
    assert subjects(complex_(device="d1", user="u", session="s", custom="c")) == ("d1",)


def test_a_member_of_the_feed_that_cannot_be_compared_is_not_taken_for_equal() -> None:
    stranger = {"format": "iss_sub", "iss": "https://evil.example", "sub": "T-1"}
    assert inexpressible(complex_(device="d1", tenant=stranger), of=rules(tenant="T-1"))


def test_an_event_with_a_critical_member_that_is_not_understood_is_discarded() -> None:
    of = rules(critical=("tenant", "user", "device"), tenant="T-1")
    assert subjects(complex_(tenant="T-1", device="d1"), of=of) == ("d1",)
    assert "critical" in inexpressible(complex_(tenant="T-1", device="d1", user="u"), of=of)
    assert "critical" in inexpressible(complex_(tenant="T-2", device="d1", user="u"), of=of)


def test_a_global_signal_is_about_what_the_feed_names_and_no_less() -> None:
    aim, of = Aim("global", "tenant"), rules(tenant="T-1")
    assert subjects(complex_(tenant="T-1"), aim, of) == (EVERYONE,)
    assert subjects(opaque("T-1"), aim, of) == (EVERYONE,)
    assert subjects(opaque("T-2"), aim, of) == ()
    assert inexpressible(complex_(tenant="T-1", user="u"), aim, of)
    assert inexpressible(opaque("T-1"), aim)


# ---- from a register --------------------------------------------------------------------------------------


def contract(name: str, kind: str, member: str, events: dict[str, Any], as_: str = "{id}") -> dict[str, Any]:
    source = {"kind": "ssf", "feed": "idp", "subject": {"member": member, "as": as_}, "events": events}
    return {"name": name, "subject": kind, "sources": [{"kind": "push"}, source]}


def read(
    contracts: list[dict[str, Any]], events: dict[str, Any], sub_id: Any = None, of: Rules | None = None
) -> Reading:
    token = SecurityEventToken("j", NOW_US, sub_id or opaque("d1"), events)
    return read_events(token, contracts_of(contracts, "idp"), of or rules())


def values(reading: Reading) -> list[tuple[object, object, object]]:
    return [(entry["name"], entry["subject"], entry["value"]) for entry in reading.publications]


COMPLIANCE = contract(
    "device_ok",
    "device",
    "device",
    {
        "device-compliance-change": {
            "claim": ["current_status"],
            "values": {"compliant": True, "not-compliant": False},
        },
        CAEP + "session-revoked": {"value": False},
    },
)


def test_a_claim_becomes_its_value() -> None:
    events = {CAEP + "device-compliance-change": {"current_status": "not-compliant"}}
    assert values(read([COMPLIANCE], events)) == [("device_ok", "d1", False)]


def test_a_type_of_event_may_be_a_value_by_itself() -> None:
    assert values(read([COMPLIANCE], {CAEP + "session-revoked": {"event_timestamp": 1}})) == [
        ("device_ok", "d1", False)
    ]


def test_an_event_that_no_contract_maps_concerns_no_signal() -> None:
    assert read([COMPLIANCE], {CAEP + "credential-change": {}, "urn:x": {}}) == Reading((), (), False)
    assert contracts_of([COMPLIANCE], "other") == ()


@pytest.mark.parametrize(
    "payload", [{}, {"current_status": "unknown"}, {"current_status": None}, {"current_status": {}}]
)
def test_a_claim_that_is_missing_or_has_no_value_leaves_the_event_unprocessed(
    payload: dict[str, Any],
) -> None:
    reading = read([COMPLIANCE], {CAEP + "device-compliance-change": payload})
    assert reading.publications == ()
    (problem,) = reading.problems
    assert "device-compliance-change" in problem
    assert "device_ok" in problem


def test_of_several_events_of_a_set_all_count_for_a_contract_or_none() -> None:
    other = contract("revoked", "device", "device", {"session-revoked": {"value": True}})
    events: dict[str, Any] = {CAEP + "session-revoked": {}, CAEP + "device-compliance-change": {}}
    reading = read([COMPLIANCE, other], events)
    assert values(reading) == [("revoked", "d1", True)]
    assert len(reading.problems) == 1


@pytest.mark.parametrize(
    ("value", "word"),
    [(True, "true"), (False, "false"), (3, "3"), ("3", "3"), (-1, "-1"), (1.5, None), ([], None)],
)
def test_claims_are_compared_as_they_are_written_in_the_register(value: Any, word: str | None) -> None:
    mapped = contract("s", "device", "device", {"urn:x": {"claim": ["c"], "values": {word or "x": "found"}}})
    assert bool(read([mapped], {"urn:x": {"c": value}}).publications) == (word is not None)


def test_a_claim_without_words_is_the_value_itself() -> None:
    mapped = contract("s", "device", "device", {"urn:x": {"claim": ["a", "b"]}})
    assert values(read([mapped], {"urn:x": {"a": {"b": ["x"]}}})) == [("s", "d1", ["x"])]
    assert read([mapped], {"urn:x": {"a": "b"}}).problems


def test_when_it_happened_is_in_seconds_and_else_when_it_was_issued() -> None:
    def observed(payload: dict[str, Any]) -> list[object]:
        reading = read([COMPLIANCE], {CAEP + "session-revoked": payload})
        return [entry["observed_at"] for entry in reading.publications]

    assert observed({}) == ["2025-11-24T16:00:00Z"]
    assert observed({"event_timestamp": 1_763_999_999}) == ["2025-11-24T15:59:59Z"]
    assert observed({"event_timestamp": 1_763_999_999.25}) == ["2025-11-24T15:59:59.250000Z"]
    for wrong in (1_763_999_999_000, "1763999999", True, -1, None):
        assert observed({"event_timestamp": wrong}) == [], wrong


def test_a_change_of_token_claims_says_nothing_of_the_claims_that_it_does_not_list() -> None:
    mapped = contract(
        "network", "device", "device", {"token-claims-change": {"claim": ["claims", "trusted_network"]}}
    )
    of = CAEP + "token-claims-change"
    assert values(read([mapped], {of: {"claims": {"trusted_network": False}}})) == [("network", "d1", False)]
    assert read([mapped], {of: {"claims": {"role": "x"}}}) == Reading((), (), False)
    assert read([mapped], {of: {}}).problems


def test_a_risk_is_that_of_the_entity_that_it_names() -> None:
    mapped = contract("risk", "device", "device", {"risk-level-change": {"claim": ["current_level"]}})
    of = CAEP + "risk-level-change"
    whole = complex_(device="d1", user="u")
    assert values(read([mapped], {of: {"principal": "DEVICE", "current_level": "HIGH"}}, whole)) == [
        ("risk", "d1", "HIGH")
    ]
    assert read([mapped], {of: {"principal": "USER", "current_level": "HIGH"}}, whole) == Reading(
        (), (), False
    )
    assert read([mapped], {of: {"principal": 7, "current_level": "HIGH"}}, whole).problems


@pytest.mark.parametrize("case", vectors("ssf.json", "sets"))
def test_a_stream_that_its_transmitter_stops_is_a_problem_and_its_verification_none(
    case: dict[str, Any],
) -> None:
    claims = case["claims"]
    reading = read([], claims["events"], claims["sub_id"])
    assert (reading.problems, reading.of_stream) == (tuple(case["problems"]), True)


@pytest.mark.parametrize("status", ["disabled", "PAUSED", None, 7, {}])
def test_only_an_enabled_stream_is_in_order(status: Any) -> None:
    updated = "https://schemas.openid.net/secevent/ssf/event-type/stream-updated"
    assert read([], {updated: {"status": status}}).problems
    assert not read([], {updated: {"status": "enabled"}}).problems


# Every type of event of CAEP, mapped as the docs map it.
ALL = [
    contract("session_good", "principal", "user", {"session-revoked": {"value": False}}, USER.template),
    contract("role", "device", "user", {"token-claims-change": {"claim": ["claims", "role"]}}),
    contract(
        "credential",
        "device",
        "user",
        {"credential-change": {"claim": ["change_type"], "values": {"create": "new", "revoke": "gone"}}},
    ),
    contract("level", "device", "user", {"assurance-level-change": {"claim": ["current_level"]}}),
    contract(
        "device_ok",
        "device",
        "device",
        {"device-compliance-change": {"claim": ["current_status"], "values": {"not-compliant": False}}},
    ),
    contract("methods", "device", "user", {"session-established": {"claim": ["amr"]}}),
    contract("seen", "device", "user", {"session-presented": {"value": True}}),
    contract("risk", "device", "user", {"risk-level-change": {"claim": ["current_level"]}}),
]
COMES_TO = {
    "session-revoked, session, user and tenant": [
        ("session_good", "spiffe://prod.example/users/99beb27c-c1c2-4955-882a-e0dc4996fcbc", False)
    ],
    "credential-change": [("credential", "jane.smith@example.com", "new")],
    "assurance-level-change, increase": [("level", "jane.smith@example.com", "nist-aal2")],
    "assurance-level-change, a namespace of one's own": [("level", "jane.smith@example.com", "hi-res-scan")],
    "device-compliance-change": [("device_ok", "e9297990-14d2-42ec-a4a9-4036db86509a", False)],
    "session-established": [("methods", "someuser@somedomain.com", ["otp"])],
    "session-presented": [("seen", "someuser@somedomain.com", True)],
}
UNPROCESSED = {
    "session-revoked, simple subject": "can't be written",  # the id of a session is no user
    "session-revoked, user, device and tenant": "can't be written",  # an address is no part of a SPIFFE ID
    "token-claims-change, a role": "`jwt_id` names no subject",
    "risk-level-change": "another issuer",  # the example's own `iss` values differ
}
NOTHING_OF_OURS = {"token-claims-change, a network", "token-claims-change, a SAML assertion"}


@pytest.mark.parametrize("case", vectors("caep.json"))
def test_every_event_of_caep_comes_to_what_the_register_says(case: dict[str, Any]) -> None:
    claims, name = case["claims"], case["name"]
    reading = read(ALL, claims["events"], claims["sub_id"], rules(claims["iss"]))
    if name in COMES_TO:
        assert values(reading) == COMES_TO[name]
        assert {entry["observed_at"] for entry in reading.publications} == {"2021-03-09T15:49:51Z"}
    elif name in UNPROCESSED:
        assert reading.publications == ()
        assert UNPROCESSED[name] in reading.problems[0]
    else:
        assert name in NOTHING_OF_OURS
        assert reading == Reading((), (), False)


# ---- whatever comes ---------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
IDENTIFIER = st.builds(
    lambda form, rest: {"format": form, **rest},
    st.sampled_from(["opaque", "iss_sub", "email", "aliases", "uri", "complex", "jwt_id", "x"]) | JSON,
    st.dictionaries(
        st.sampled_from(["id", "iss", "sub", "email", "identifiers", "uri", "user", "device"]), JSON
    ),
)


@given(
    sub_id=JSON
    | IDENTIFIER
    | st.dictionaries(st.sampled_from(["user", "device", "tenant"]), IDENTIFIER).map(
        lambda members: {"format": "complex", **members}
    ),
    payload=st.dictionaries(
        st.sampled_from(
            ["event_timestamp", "current_status", "claims", "current_level", "principal", "status"]
        ),
        JSON,
    ),
    kind=st.sampled_from(
        ["session-revoked", "device-compliance-change", "token-claims-change", "risk-level-change"]
    ),
)
def test_whatever_an_event_says_it_becomes_values_or_a_problem(sub_id: Any, payload: Any, kind: str) -> None:
    reading = read(
        [*ALL, COMPLIANCE], {CAEP + kind: payload}, sub_id, rules(critical=("tenant",), org_unit="o")
    )
    for entry in reading.publications:
        assert entry["subject"] != EVERYONE
        json.dumps(entry)
