//! Tokens through the core's door: first sight, what a proof is held against at each use, revocation, and that several
//! sources of an identity must agree.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod stage;

use serde_json::{Value as Json, json};
use signalwarden_core::{
    check::Pending,
    engine::{Engine, Look, Revoking},
    identity::Validated,
    model::{Fingerprint, HeaderEntry, Headers, Peer, Request, Timestamp},
    reason::Reason,
    record::InfluenceMode,
    snapshot::CoreSettings,
    wire,
};
use stage::Texts;
use std::{fmt::Write as _, sync::Arc};

const AGENT: &str = "spiffe://prod.example/agent";
const ISSUER: &str = "https://login.example";
const TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln";
const MINUTE: i64 = 60_000_000;
const NOW_US: i64 = 1_790_000_000_000_000;
const NOW: Timestamp = Timestamp::from_micros(NOW_US);
const PERMIT: &str = "permit(principal, action, resource);";

fn settings() -> Json {
    let limit = |most: Option<i64>| json!({"max_lifetime_us": most, "max_age_us": null});
    json!({
        "trust_domain": "prod.example",
        "federates_with": ["partner.example"],
        "identity": {
            "sources": ["envoy_peer", "jwt_svid", "oauth"],
            "require_certificate": false,
            "xfcc_by": [],
            "tokens": [
                {"header": "authorization", "sources": ["jwt_svid", "oauth"]},
                {"header": "txn-token", "sources": ["oauth"]},
            ],
            "issuers": [
                {"class": "jwt_svid", "issuer": null, "audience": ["pay"], "terms": "t0"},
                {"class": "access_token", "issuer": ISSUER, "audience": ["pay", "books"], "terms": "t1"},
                {"class": "transaction_token", "issuer": ISSUER, "audience": ["prod.example"], "terms": "t2"},
            ],
            "bundled": ["partner.example"],
            "limits": {
                "x509_svid": limit(None), "jwt_svid": limit(Some(60 * MINUTE)), "access_token": limit(Some(60 * MINUTE)),
                "transaction_token": limit(Some(5 * MINUTE)),
            },
        },
    })
}

fn load(settings: &Json, policies: &str) -> Arc<signalwarden_core::snapshot::Snapshot> {
    let routes = "routes:\n  - {match: {host: '*', path: /pay}, action: pay, resource: {type: Page, id: x}, tier: coarse, sensitivity: low}\n";
    let texts = Texts { routes, signals: "signals: {}", schema: "entity Workload; entity Page;", policies };
    let settings = CoreSettings::from_json(settings.to_string().as_bytes()).unwrap();
    Arc::new(stage::load_with(&texts, &settings, NOW).unwrap_or_else(|error| panic!("{error}")))
}

fn engine() -> Engine {
    let engine = stage::engine(load(&settings(), PERMIT), 100, InfluenceMode::All);
    assert!(engine.set_authority("keys:https://login.example", vec!["k1 a".to_owned(), "k2 b".to_owned()]));
    engine
}

fn digest_of(token: &str) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(token).iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

/// The evidence of an access token, with some of it otherwise.
fn proof(changes: &Json) -> Vec<u8> {
    let mut proof = json!({
        "v": 1, "digest": digest_of(TOKEN), "class": "access_token", "source": "oauth", "issuer": ISSUER, "terms": "t1",
        "principal": AGENT, "subject": "client-7", "audience": ["pay"], "key_id": "k1", "key_set": "r1",
        "rests_on": [["keys:https://login.example", "k1 a"]], "issued_at_us": NOW_US - MINUTE,
        "expires_at_us": NOW_US + 10 * MINUTE, "certificate_sha256": null, "token_id": "j1", "actor": null,
        "earlier_actors": [], "interactive": false, "transaction": null, "scope": null, "requester": null, "claims": [],
    });
    for (key, value) in changes.as_object().unwrap() {
        proof[key] = value.clone();
    }
    proof.to_string().into_bytes()
}

fn admit(engine: &Engine, changes: &Json) {
    engine.admit_proofs([proof(changes).as_slice()]).unwrap();
}

fn asking(headers: &[(&str, &str)], peer: &str) -> Request {
    let entry =
        |(name, value): &(&str, &str)| HeaderEntry { name: (*name).into(), value: (*value).into(), is_utf8: true };
    Request {
        method: "GET".into(),
        path: "/pay".into(),
        host: "a".into(),
        headers: Headers::new(headers.iter().map(entry).collect()),
        source: Peer { principal: peer.into(), address: "10.1.2.3:4567".into(), ..Peer::default() },
        ..Request::default()
    }
}

fn with_token() -> Request {
    asking(&[("authorization", &format!("Bearer {TOKEN}"))], "")
}

fn look(engine: &Engine, request: &Request, now: Timestamp) -> Result<Json, Pending> {
    match engine.look(&wire::encode_request(request), now, [0; 10], &|| 0) {
        Look::Answer(answer) => {
            wire::rules::check(&answer).unwrap_or_else(|broken| panic!("Envoy's rules are broken: {broken:?}"));
            let (lines, count) = engine.drain(10);
            assert_eq!(count, 1, "every decision has one record (I4)");
            Ok(serde_json::from_slice(&lines).unwrap())
        }
        Look::Pending(pending) => {
            assert_eq!(engine.queued(), 0, "nothing is decided, so nothing is recorded");
            Err(pending)
        }
        Look::Held(_) => panic!("no token makes a decision wait for the disk"),
    }
}

fn reason_at(engine: &Engine, request: &Request, now: Timestamp) -> String {
    match look(engine, request, now) {
        Ok(record) => record["reason"].as_str().unwrap().to_owned(),
        Err(_) => "pending".to_owned(),
    }
}

fn reason(engine: &Engine, request: &Request) -> String {
    reason_at(engine, request, NOW)
}

fn second_look(engine: &Engine, request: &Request, refused: Vec<(Fingerprint, Reason, String)>) -> Json {
    engine.check(&wire::encode_request(request), &Validated { refused }, NOW, [0; 10], &|| 0);
    let (lines, count) = engine.drain(10);
    assert_eq!(count, 1);
    serde_json::from_slice(&lines).unwrap()
}

#[test]
fn a_token_never_seen_is_handed_out_and_nothing_is_decided() {
    let engine = engine();
    let pending = look(&engine, &with_token(), NOW).unwrap_err();
    assert_eq!(pending.peer, "10.1.2.3");
    let [token] = pending.tokens.as_slice() else { panic!("{pending:?}") };
    assert_eq!(
        (token.digest.to_hex(), token.token.as_str(), token.header.as_str()),
        (digest_of(TOKEN), TOKEN, "authorization")
    );
    assert!(!format!("{pending:?}").contains(TOKEN), "what prints does not hold the token");
    assert_eq!(look(&engine, &asking(&[("txn-token", TOKEN)], AGENT), NOW).unwrap_err().peer, AGENT);
}

#[test]
fn after_validation_nothing_is_pending_any_more() {
    let engine = engine();
    assert_eq!(second_look(&engine, &with_token(), vec![])["reason"], "token_invalid");
    let refused = (Fingerprint::parse(&digest_of(TOKEN)).unwrap(), Reason::TokenExpired, "it ended".to_owned());
    let record = second_look(&engine, &with_token(), vec![refused]);
    assert_eq!((&record["reason"], &record["detail"]), (&json!("token_expired"), &json!("it ended")));
    assert_eq!(reason(&engine, &with_token()), "pending", "a refusal leaves nothing behind");
}

#[test]
fn an_admitted_proof_decides_and_stands_in_the_record_without_its_token() {
    let engine = engine();
    admit(&engine, &json!({"actor": "spiffe://prod.example/bot", "earlier_actors": ["x"], "transaction": "tx-1"}));
    let record = look(&engine, &with_token(), NOW).unwrap();
    let principal = &record["principal"];
    assert_eq!((&record["reason"], &principal["id"]), (&json!("allowed"), &json!(AGENT)));
    assert_eq!(
        (&principal["kind"], &principal["class"], &principal["bound"]),
        (&json!("oauth"), &json!("access_token"), &json!(false))
    );
    let token = &principal["tokens"][0];
    assert_eq!(token["sha256"], json!(digest_of(TOKEN)));
    assert_eq!((&token["earlier_actors"], &token["transaction"]), (&json!(["x"]), &json!("tx-1")));
    assert!(!record.to_string().contains(TOKEN));
}

#[test]
fn each_use_of_a_proof_is_held_against_what_may_have_changed() {
    let other = "b".repeat(64);
    for (changes, expected) in [
        (json!({}), "allowed"),
        (json!({"expires_at_us": NOW_US}), "token_expired"),
        (json!({"expires_at_us": NOW_US + 1}), "allowed"),
        (json!({"expires_at_us": NOW_US + 60 * MINUTE}), "token_too_long_lived"),
        (json!({"expires_at_us": NOW_US + 59 * MINUTE}), "allowed"),
        (json!({"issued_at_us": null, "expires_at_us": NOW_US + 61 * MINUTE}), "token_too_long_lived"),
        (json!({"issued_at_us": null}), "allowed"),
        (json!({"issued_at_us": NOW_US + 6_000_000}), "token_invalid"),
        (json!({"certificate_sha256": other}), "token_invalid"),
        (json!({"principal": "spiffe://strange.example/a"}), "trust_domain_unknown"),
        (json!({"principal": "spiffe://partner.example/a"}), "trust_domain_unknown"),
        (json!({"principal": null}), "identity_missing"),
        (json!({"terms": "old"}), "pending"),
        (json!({"audience": ["other"]}), "pending"),
        (json!({"audience": ["books", "other"]}), "allowed"),
        (json!({"issuer": "https://other.example"}), "pending"),
        (json!({"rests_on": [["keys:https://login.example", "k3 a"]]}), "pending"),
        (json!({"rests_on": [["keys:https://login.example", "k1 a"], ["status:x", "d"]]}), "pending"),
    ] {
        let engine = engine();
        admit(&engine, &changes);
        assert_eq!(reason(&engine, &with_token()), expected, "{changes}");
    }
}

#[test]
fn a_token_counts_only_in_a_header_where_its_class_may_stand() {
    let engine = engine();
    admit(&engine, &json!({"class": "jwt_svid", "issuer": "prod.example", "terms": "t0", "source": "jwt_svid"}));
    assert_eq!(reason(&engine, &with_token()), "allowed");
    assert_eq!(reason(&engine, &asking(&[("txn-token", TOKEN)], "")), "pending");
}

#[test]
fn a_removed_key_and_a_shortened_life_count_at_once() {
    let engine = engine();
    admit(&engine, &json!({}));
    assert_eq!(reason(&engine, &with_token()), "allowed");
    assert!(
        !engine.set_authority("keys:https://login.example", vec!["k2 b".to_owned(), "k1 a".to_owned()]),
        "the same set"
    );
    assert!(engine.set_authority("keys:https://login.example", vec!["k2 b".to_owned()]));
    assert_eq!(reason(&engine, &with_token()), "pending");
    assert!(engine.set_authority("keys:https://login.example", vec!["k1 a".to_owned()]));
    assert_eq!(reason(&engine, &with_token()), "allowed");
    let mut shorter = settings();
    shorter["identity"]["limits"]["access_token"]["max_lifetime_us"] = json!(MINUTE);
    engine.swap(load(&shorter, PERMIT));
    assert_eq!(reason(&engine, &with_token()), "token_too_long_lived");
    shorter["identity"]["limits"]["access_token"] = json!({"max_lifetime_us": null, "max_age_us": MINUTE});
    engine.swap(load(&shorter, PERMIT));
    assert_eq!(reason(&engine, &with_token()), "allowed");
    assert_eq!(reason_at(&engine, &with_token(), Timestamp::from_micros(NOW_US + 1)), "token_too_long_lived");
}

#[test]
fn revocation_counts_at_the_next_request_whichever_way_it_names_the_token() {
    let revoking = Revoking::default();
    let before = |at| Some(Timestamp::from_micros(at));
    let digest = digest_of(TOKEN);
    for (what, expected) in [
        (Revoking { digest: Some(&digest), ..revoking }, "token_invalid"),
        (Revoking { token_id: Some("j1"), ..revoking }, "token_invalid"),
        (Revoking { token_id: Some("j1"), issuer: Some(ISSUER), ..revoking }, "token_invalid"),
        (Revoking { token_id: Some("j1"), issuer: Some("https://other.example"), ..revoking }, "allowed"),
        (Revoking { token_id: Some("j2"), ..revoking }, "allowed"),
        (Revoking { subject: Some("client-7"), ..revoking }, "token_invalid"),
        (Revoking { subject: Some(AGENT), ..revoking }, "token_invalid"),
        (Revoking { subject: Some("client-8"), ..revoking }, "allowed"),
        (Revoking { issued_before: before(NOW_US - MINUTE), ..revoking }, "token_invalid"),
        (Revoking { issued_before: before(NOW_US - MINUTE - 1), ..revoking }, "allowed"),
        (Revoking { issued_before: before(NOW_US), issuer: Some(ISSUER), ..revoking }, "token_invalid"),
        (Revoking { issued_before: before(NOW_US), issuer: Some("x"), ..revoking }, "allowed"),
        (
            Revoking { issued_before: before(NOW_US), subject: Some(AGENT), issuer: Some(ISSUER), ..revoking },
            "token_invalid",
        ),
        // The future can't be revoked: what is issued from now on is another credential.
        (Revoking { issued_before: before(NOW_US * 2), ..revoking }, "token_invalid"),
    ] {
        let engine = engine();
        admit(&engine, &json!({}));
        let change = engine.revoke(&what, NOW).unwrap();
        engine.apply(&[change.to_payload()], NOW).unwrap();
        assert_eq!(reason(&engine, &with_token()), expected, "{what:?}");
        admit(&engine, &json!({"issued_at_us": NOW_US + 1, "token_id": "later", "expires_at_us": NOW_US + MINUTE}));
        let named = what.digest.is_some();
        assert_eq!(reason(&engine, &with_token()), if named { "token_invalid" } else { "allowed" }, "{what:?}");
        assert_eq!(engine.revocations(10)["count"], 1);
    }
}

#[test]
fn a_revocation_never_moves_back_and_is_refused_where_it_names_nothing() {
    let engine = engine();
    let at = |us| Revoking { issued_before: Some(Timestamp::from_micros(us)), ..Revoking::default() };
    let first = engine.revoke(&at(NOW_US), NOW).unwrap();
    engine.apply(&[first.to_payload()], NOW).unwrap();
    assert_eq!(engine.revoke(&at(NOW_US - MINUTE), NOW).unwrap(), first, "what is kept is the later of the two");
    let none = Revoking::default();
    for bad in [
        none,
        Revoking { issuer: Some(ISSUER), ..none },
        Revoking { digest: Some("x"), ..none },
        Revoking { digest: Some(&digest_of("a")), token_id: Some("j"), ..none },
        Revoking { token_id: Some(""), ..none },
        Revoking { subject: Some("a\nb"), ..none },
    ] {
        assert!(engine.revoke(&bad, NOW).is_err(), "{bad:?}");
    }
}

#[test]
fn a_revoked_subject_loses_certificates_that_are_not_known_to_be_newer() {
    let engine = engine();
    let peer = asking(&[], AGENT);
    assert_eq!(reason(&engine, &peer), "allowed");
    let change = engine.revoke(&Revoking { subject: Some(AGENT), ..Revoking::default() }, NOW).unwrap();
    engine.apply(&[change.to_payload()], NOW).unwrap();
    assert_eq!(reason(&engine, &peer), "identity_invalid");
    assert_eq!(reason(&engine, &asking(&[], "spiffe://prod.example/other")), "allowed");
}

#[test]
fn a_revoked_certificate_denies_whichever_source_is_recorded() {
    let mut tokens_first = settings();
    tokens_first["identity"]["sources"] = json!(["jwt_svid", "oauth", "envoy_peer"]);
    for settings in [settings(), tokens_first] {
        let engine = engine();
        engine.swap(load(&settings, PERMIT));
        let both = asking(&[("authorization", &format!("Bearer {TOKEN}"))], AGENT);
        let change = engine.revoke(&Revoking { subject: Some(AGENT), ..Revoking::default() }, NOW).unwrap();
        engine.apply(&[change.to_payload()], NOW).unwrap();
        // The token is newer than the revocation; of the certificate nothing says that it is.
        admit(&engine, &json!({"issued_at_us": NOW_US + 1}));
        assert_eq!(reason(&engine, &asking(&[("authorization", &format!("Bearer {TOKEN}"))], "")), "allowed");
        assert_eq!(reason(&engine, &both), "identity_invalid");
    }
}

#[test]
fn sources_that_name_different_workloads_are_no_identity_and_those_that_agree_are_one() {
    let engine = engine();
    admit(&engine, &json!({}));
    let both = |peer| asking(&[("authorization", &format!("Bearer {TOKEN}"))], peer);
    let record = look(&engine, &both(AGENT), NOW).unwrap();
    assert_eq!((&record["reason"], &record["principal"]["source"]), (&json!("allowed"), &json!("envoy_peer")));
    assert_eq!(record["principal"]["tokens"][0]["token_id"], "j1");
    assert_eq!(reason(&engine, &both("spiffe://prod.example/other")), "identity_invalid");
    // A token that proves nobody says nothing against the peer.
    admit(&engine, &json!({"principal": null}));
    assert_eq!(reason(&engine, &both("spiffe://prod.example/other")), "allowed");
}

#[test]
fn a_trust_domain_whose_bundle_is_brought_to_us_is_known_while_it_is_live() {
    let engine = engine();
    let partner = asking(&[], "spiffe://partner.example/a");
    assert_eq!(reason(&engine, &partner), "trust_domain_unknown");
    engine.set_authority("trust:partner.example", vec!["bundle".to_owned()]);
    assert_eq!(reason(&engine, &partner), "allowed");
    engine.set_authority("trust:partner.example", vec![]);
    assert_eq!(reason(&engine, &partner), "trust_domain_unknown");
}

#[test]
fn what_can_be_no_token_is_never_handed_out() {
    let engine = engine();
    let long = format!("Bearer {}.a.b", "a".repeat(16 * 1024));
    for (headers, expected) in [
        (vec![("authorization", "Basic dTpw")], "identity_missing"),
        (vec![("authorization", "")], "identity_missing"),
        (vec![("authorization", "Bearer")], "identity_missing"),
        (vec![("authorization", "Bearer x")], "token_invalid"),
        (vec![("authorization", "Bearer a..c")], "token_invalid"),
        (vec![("authorization", "Bearer a.b.c.d")], "token_invalid"),
        (vec![("authorization", "Bearer a.b.c,a.b.c")], "token_invalid"),
        (vec![("authorization", "Bearer a.b.c=")], "token_invalid"),
        (vec![("authorization", long.as_str())], "token_invalid"),
        (vec![("authorization", "bearer a.b.c")], "pending"),
        (vec![("txn-token", "Bearer a.b.c")], "token_invalid"),
        (vec![("x-other", TOKEN)], "identity_missing"),
    ] {
        assert_eq!(reason(&engine, &asking(&headers, "")), expected, "{headers:?}");
    }
}

#[test]
fn a_bad_token_beside_a_good_peer_denies() {
    let engine = engine();
    assert_eq!(reason(&engine, &asking(&[("authorization", "Bearer x")], AGENT)), "token_invalid");
}

#[test]
fn policies_change_under_an_unchanged_proof() {
    // INVARIANT I7: nothing of a credential is a permission, and no credential is needed anew.
    let engine = engine();
    admit(&engine, &json!({}));
    let policies = [
        PERMIT,
        "forbid(principal, action, resource);",
        "permit(principal, action, resource) when { context.identity.kind == \"oauth\" };",
    ];
    for (policy, expected) in policies.into_iter().zip(["allowed", "policy_denied", "allowed"]) {
        engine.swap(load(&settings(), policy));
        let record = look(&engine, &with_token(), NOW).unwrap();
        assert_eq!(
            (&record["reason"], &record["principal"]["tokens"][0]["token_id"]),
            (&json!(expected), &json!("j1"))
        );
    }
}

#[test]
fn a_proof_that_nothing_could_end_or_that_can_t_be_read_is_refused() {
    let engine = engine();
    for bad in [
        json!({"rests_on": []}),
        json!({"digest": "x"}),
        json!({"class": "cookie"}),
        json!({"principal": "https://a"}),
        json!({"certificate_sha256": "x"}),
        json!({"more": 1}),
        json!({"v": "x"}),
        json!({"v": 2}),
    ] {
        assert!(engine.admit_proofs([proof(&bad).as_slice()]).is_err(), "{bad}");
    }
    assert_eq!(reason(&engine, &with_token()), "pending");
}
