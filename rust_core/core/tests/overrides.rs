//! Break-glass: two people's word stands in for a signal that is not available, for a while, and for nothing else.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod stage;

use proptest::prelude::*;
use serde_json::{Value as Json, json};
use signalwarden_core::{
    change::Change,
    engine::Engine,
    identity::Validated,
    model::{Peer, Request, Span, SpiffeId, Timestamp},
    record::InfluenceMode,
    signals::overriding::Overriding,
    wire,
};
use stage::Texts;
use std::sync::Arc;

const AGENT: &str = "spiffe://t/agent";
const MDM: &str = "spiffe://t/mdm";
const ROUTES: &str = r#"
routes:
  - {match: {host: a, path: /}, action: act, resource: {type: A, id: "1"}, tier: runtime, sensitivity: low}
default: deny
"#;
const SIGNALS: &str = r#"
signals:
  alarm: {type: bool, subject: principal, max_age: 5m, sources: [{kind: push, publisher: "spiffe://t/mdm", assurance: authoritative}], influence: restrict, REST}
  asked: {type: string, subject: request, sources: [{kind: header, header: x-asked, assurance: self_asserted}], influence: restrict, REST}
  own: {type: string, subject: principal, max_age: 5m, sources: [{kind: push, publisher: "spiffe://t/agent", assurance: self_asserted}], influence: restrict, REST}
  place: {type: string, subject: request, sources: [{kind: peer, zones: {office: [10.0.0.0/8]}, assurance: sourced}], influence: grant, REST}
  posture: {type: "enum[good, bad]", subject: principal, max_age: 5m, sources: [{kind: push, publisher: "spiffe://t/mdm", assurance: authoritative}], influence: grant, REST}
  quality: {type: "enum[good, bad]", subject: resource, max_age: 5m, sources: [{kind: push, publisher: "spiffe://t/mdm", assurance: authoritative}], influence: grant, REST}
  secret_word: {type: string, subject: principal, max_age: 5m, sources: [{kind: push, publisher: "spiffe://t/mdm", assurance: authoritative}], influence: grant, sensitivity: secret, REST}
"#;
const REST: &str = "description: d, owner: o@x, purpose: p, used_by: [act], review_by: 2099-01-01";
const POLICIES: &str = r#"
permit(principal, action, resource) when { context.signals has posture && context.signals.posture == "good" };
"#;

fn at(seconds: i64) -> Timestamp {
    let start = Timestamp::parse_rfc3339("2026-11-24T10:00:00Z").unwrap();
    Timestamp::from_micros(start.as_micros() + seconds * 1_000_000)
}

fn engine() -> Engine {
    engine_of(POLICIES)
}

fn engine_of(policies: &str) -> Engine {
    let signals = SIGNALS.replace("REST", REST);
    let schema = "entity Workload; entity A;";
    let texts = Texts { routes: ROUTES, signals: &signals, schema, policies };
    let snapshot = stage::load(&texts, "t", at(0)).unwrap_or_else(|error| panic!("{error}"));
    stage::engine(Arc::new(snapshot), 64, InfluenceMode::None)
}

fn judged(engine: &Engine, name: &str, subject: &str, value: &str, by: [&str; 2], ttl: i64) -> Result<Change, String> {
    let [first, second] = by.map(|text| SpiffeId::parse(text).unwrap());
    let ttl = Span::from_micros(ttl * 1_000_000);
    let asked = Overriding { name, subject, value: value.as_bytes(), reason: "INC-7", by: [&first, &second], ttl };
    engine.override_signal(&asked, at(0)).map_err(|error| error.to_string())
}

const BY: [&str; 2] = ["spiffe://t/ann", "spiffe://t/bob"];

/// Posture, said by two for a minute from second 0.
fn overridden(engine: &Engine, subject: &str, value: &str) -> Vec<u8> {
    let payload = judged(engine, "posture", subject, value, BY, 60).unwrap().to_payload();
    engine.apply(std::slice::from_ref(&payload), at(0)).unwrap();
    payload
}

fn publish(engine: &Engine, value: &str, observed: i64, now: i64) {
    let item = json!({"name": "posture", "subject": AGENT, "value": value, "observed_at": at(observed).to_rfc3339()});
    assert_eq!(stage::publish(engine, MDM, &json!([item]), at(now)).rejected, []);
}

/// Reason, and what the record says of posture.
fn decide(engine: &Engine, now: i64) -> (String, Json) {
    let record = record(engine, now);
    let posture = record["signals"].as_array().unwrap().iter().find(|fact| fact["name"] == "posture");
    (record["reason"].as_str().unwrap().to_owned(), posture.unwrap().clone())
}

fn record(engine: &Engine, now: i64) -> Json {
    let request = Request {
        method: "GET".into(),
        path: "/".into(),
        host: "a".into(),
        source: Peer { principal: AGENT.into(), ..Peer::default() },
        ..Request::default()
    };
    let bytes = wire::encode_request(&request);
    engine.check(&bytes, &Validated::default(), at(now), [0; 10], &|| 0).answer().unwrap();
    serde_json::from_slice(&engine.drain(64).0).unwrap()
}

#[test]
fn two_peoples_word_stands_in_until_the_very_moment_of_its_end_and_the_record_shows_it() {
    let engine = engine();
    assert_eq!(decide(&engine, 0).0, "signal_unavailable");
    overridden(&engine, AGENT, r#""good""#);
    let (reason, fact) = decide(&engine, 59);
    assert_eq!(reason, "allowed");
    let expected = json!({"by": BY, "reason": "INC-7", "was": "missing", "expires_at": at(60).to_rfc3339()});
    assert_eq!(fact["override"], expected);
    assert_eq!(
        (&fact["state"], &fact["assurance"], &fact["source"]),
        (&json!("fresh"), &json!("sourced"), &json!("override"))
    );
    let (reason, fact) = decide(&engine, 60);
    assert_eq!((&*reason, &fact["override"]), ("signal_unavailable", &Json::Null));
    // A clock that is set back revives nothing.
    assert_eq!(decide(&engine, 10).0, "signal_unavailable");
    assert_eq!(engine.overrides(at(10)), json!({"overrides": []}));
}

#[test]
fn a_fresh_value_always_wins_and_every_other_state_is_stood_in_for() {
    let engine = engine();
    overridden(&engine, AGENT, r#""good""#);
    publish(&engine, "bad", 0, 0);
    assert_eq!(decide(&engine, 1).0, "no_policy_permits");
    publish(&engine, "good", 0, 2);
    let (reason, fact) = decide(&engine, 3);
    assert_eq!((&*reason, &fact["override"]["was"]), ("allowed", &json!("disputed")));
    let off = engine.switch_publisher(MDM, None, false, at(3)).unwrap();
    engine.apply(&[off.to_payload()], at(3)).unwrap();
    assert_eq!(decide(&engine, 4).1["override"]["was"], "unverified");
}

#[test]
fn an_override_by_whoever_is_decided_upon_widens_nothing() {
    let policies = r#"permit(principal, action, resource) when { context.signals has quality && context.signals.quality == "good" };"#;
    for (by, reason, assurance) in
        [(BY, "allowed", "sourced"), ([AGENT, BY[1]], "signal_widening_refused", "self_asserted")]
    {
        let engine = engine_of(policies);
        let change = judged(&engine, "quality", "A::\"1\"", r#""good""#, by, 60).unwrap();
        engine.apply(&[change.to_payload()], at(0)).unwrap();
        let record = record(&engine, 1);
        assert_eq!((&record["reason"], &record["signals"][0]["assurance"]), (&json!(reason), &json!(assurance)));
    }
}

#[test]
fn a_signal_that_may_only_restrict_is_overridden_as_its_own_source_would_speak() {
    let policies = "permit(principal, action, resource);
        forbid(principal, action, resource) when { context.signals has alarm && context.signals.alarm };";
    let engine = engine_of(policies);
    assert_eq!(record(&engine, 0)["reason"], "signal_unavailable");
    for (value, reason) in [("false", "allowed"), ("true", "policy_denied")] {
        let change = judged(&engine, "alarm", AGENT, value, BY, 60).unwrap();
        engine.apply(&[change.to_payload()], at(0)).unwrap();
        assert_eq!(record(&engine, 1)["reason"], reason);
    }
    // The second was said when it was second 1.
    assert_eq!(record(&engine, 61)["reason"], "signal_unavailable");
}

#[test]
fn counts_of_states_show_the_feed_as_it_is() {
    let engine = engine();
    overridden(&engine, AGENT, r#""good""#);
    decide(&engine, 1);
    let stats = engine.signal_stats(at(1), false);
    let posture = stats["signals"].as_array().unwrap().iter().find(|signal| signal["name"] == "posture").unwrap();
    assert_eq!((&posture["states"]["fresh"], &posture["states"]["missing"]), (&json!(0), &json!(1)));
}

#[test]
fn an_override_survives_a_restart_and_its_end_does_too() {
    let payload = overridden(&engine(), AGENT, r#""good""#);
    let after = engine();
    after.apply(std::slice::from_ref(&payload), at(1)).unwrap();
    assert_eq!(decide(&after, 59).0, "allowed");
    let later = engine();
    let mark = Change::TimeMark { at: at(60) }.to_payload();
    later.apply(&[mark, payload], at(30)).unwrap();
    assert_eq!(decide(&later, 30).0, "signal_unavailable", "the kept mark counts, not a clock that was set back");
    let keys = later.expired(10, at(30));
    assert_eq!(keys, [format!("override posture principal {AGENT}")]);
    later.forget(&keys);
    assert_eq!(later.expired(10, at(30)), Vec::<String>::new());
}

#[test]
fn what_can_not_be_overridden_is_refused_in_one_sentence() {
    let engine = engine();
    let ann = "spiffe://t/ann";
    for (name, subject, value, by, ttl, part) in [
        ("postur", AGENT, r#""good""#, BY, 60, "did you mean `posture`"),
        ("posture", AGENT, r#""worse""#, BY, 60, "`value`"),
        ("posture", AGENT, "{", BY, 60, "`value`"),
        ("posture", "*", r#""good""#, BY, 60, "`subject`"),
        ("posture", "agent", r#""good""#, BY, 60, "`subject`"),
        ("posture", AGENT, r#""good""#, [ann, ann], 60, "two distinct"),
        ("posture", ann, r#""good""#, BY, 60, "two others"),
        ("posture", AGENT, r#""good""#, BY, 0, "`ttl`"),
        ("posture", AGENT, r#""good""#, BY, 3_601, "`ttl`"),
        ("place", "*", r#""office""#, BY, 60, "each request"),
        ("asked", "*", r#""x""#, BY, 60, "each request"),
        ("own", AGENT, r#""x""#, BY, 60, "their choice"),
    ] {
        let sentence = judged(&engine, name, subject, value, by, ttl).unwrap_err();
        assert!(sentence.contains(part) && !sentence.contains("worse"), "{name}: {sentence}");
    }
    assert!(judged(&engine, "posture", AGENT, r#""good""#, BY, 3_600).is_ok());
}

#[test]
fn the_signal_that_moves_workflows_is_not_overridden_since_that_would_move_none() {
    let mut settings = stage::settings("t");
    let tasks = json!({
        "ttl_us": 1, "max_ttl_us": 1, "max_depth": 1, "retention_us": 1, "workflow_signal": "posture", "types": {},
    });
    settings.tasks = serde_json::from_value(tasks).unwrap();
    let signals = SIGNALS.replace("REST", REST);
    let texts = Texts { routes: ROUTES, signals: &signals, schema: "entity Workload; entity A;", policies: POLICIES };
    let snapshot = stage::load_with(&texts, &settings, at(0)).unwrap();
    let engine = stage::engine(Arc::new(snapshot), 64, InfluenceMode::None);
    let sentence = judged(&engine, "posture", AGENT, r#""good""#, BY, 60).unwrap_err();
    assert!(sentence.contains("PUT /v1/workflows/{id}"), "{sentence}");
    assert!(judged(&engine, "secret_word", AGENT, r#""x""#, BY, 60).is_ok());
}

#[test]
fn the_value_of_a_secret_signal_is_in_no_list() {
    let engine = engine();
    let change = judged(&engine, "secret_word", AGENT, r#""swordfish""#, BY, 60).unwrap();
    engine.apply(&[change.to_payload()], at(0)).unwrap();
    overridden(&engine, AGENT, r#""good""#);
    let listed = engine.overrides(at(1));
    let values: Vec<&Json> = listed["overrides"].as_array().unwrap().iter().map(|entry| &entry["value"]).collect();
    assert_eq!(values, [&json!("good"), &Json::Null]);
    assert!(!listed.to_string().contains("swordfish"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_override_changes_nothing_while_the_signal_is_fresh_nor_after_its_own_end(
        said in proptest::option::of((prop_oneof![Just("good"), Just("bad")], 0_i64..400)),
        word in prop_oneof![Just(r#""good""#), Just(r#""bad""#)],
        now in 0_i64..900,
    ) {
        let (plain, with) = (engine(), engine());
        overridden(&with, AGENT, word);
        if let Some((value, observed)) = said {
            publish(&plain, value, observed, observed);
            publish(&with, value, observed, observed);
        }
        let (expected, found) = (decide(&plain, now), decide(&with, now));
        if expected.1["state"] == "fresh" || now >= 60 {
            prop_assert_eq!(found, expected);
        } else {
            prop_assert_eq!(&found.1["override"]["was"], &expected.1["state"]);
        }
    }
}
