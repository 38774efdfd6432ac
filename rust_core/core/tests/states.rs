//! Every state that a signal can have, from every kind of source that can have it: one table, through the core's door.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod stage;

use serde_json::{Value as Json, json};
use signalwarden_core::{
    change::Change,
    engine::Engine,
    identity::Validated,
    model::{HeaderEntry, Headers, Peer, Request, Timestamp},
    record::InfluenceMode,
    wire,
};
use stage::Texts;
use std::{collections::BTreeMap, sync::Arc};

const AGENT: &str = "spiffe://t/agent";
/// The origins whose values wait in the store, and the signal that each feeds.
const STORED: [(&str, &str); 3] = [("spiffe://t/mdm", "pushed"), ("poll:zones", "polled"), ("ssf:idp", "streamed")];
/// The signals that come with the request.
const ON_REQUEST: [&str; 7] =
    ["at_time", "from_header", "from_metadata", "from_peer", "from_route", "from_token", "of_counts"];
const TOKEN: &str = "e30.e30.c2ln";
const OTHER_TOKEN: &str = "e30.e30.c2lo";

const ROUTES: &str = r#"
routes:
  - {match: {host: a, path: /facts}, action: act, resource: {type: A, id: "1"}, tier: runtime, sensitivity: low, facts: {class: pii}}
  - {match: {host: a, path: /none}, action: act, resource: {type: A, id: "1"}, tier: runtime, sensitivity: low}
default: deny
"#;
const SIGNALS: &str = r#"
feeds:
  zones: {kind: poll, file: f, interval: 30s}
  idp: {kind: ssf, issuer: i, audience: a, keys: {file: f}, delivery: push}
signals:
  pushed: {type: long, subject: principal, max_age: 5m, sources: [{kind: push, publisher: "spiffe://t/mdm", assurance: authoritative}], REST}
  polled: {type: long, subject: principal, max_age: 5m, sources: [{kind: poll, feed: zones, assurance: sourced}], REST}
  streamed: {type: long, subject: principal, max_age: 5m, sources: [{kind: ssf, feed: idp, assurance: sourced, events: {session-revoked: {value: 1}}}], REST}
  from_header: {type: string, subject: request, sources: [{kind: header, header: x-word, assurance: self_asserted}], REST}
  from_metadata: {type: string, subject: request, sources: [{kind: envoy_metadata, namespace: app, key: word, assurance: self_asserted}], REST}
  from_route: {type: string, subject: request, sources: [{kind: route, fact: class, assurance: authoritative}], REST}
  from_peer: {type: string, subject: request, sources: [{kind: peer, zones: {office: [10.0.0.0/8]}, assurance: sourced}], REST}
  at_time: {type: string, subject: request, sources: [{kind: time, zone: UTC, windows: {shift: {days: [tue], from: "09:00", to: "11:00"}}, assurance: authoritative}], REST}
  from_token: {type: string, subject: request, sources: [{kind: token_claim, issuer: i, claim: [a, b], assurance: authoritative}], REST}
  of_counts: {type: long, subject: principal, sources: [{kind: derived, measure: requests, window: 1m, assurance: derived}], REST}
"#;
const REST: &str = "description: d, owner: o@x, purpose: p, influence: observe, used_by: [act], review_by: 2099-01-01";

/// A Tuesday, 10:00 UTC, and so many seconds.
fn at(seconds: i64) -> Timestamp {
    let start = Timestamp::parse_rfc3339("2026-11-24T10:00:00Z").unwrap();
    Timestamp::from_micros(start.as_micros() + seconds * 1_000_000)
}

fn engine() -> Engine {
    let signals = SIGNALS.replace("REST", REST);
    let policies = "permit(principal, action, resource);";
    let texts = Texts { routes: ROUTES, signals: &signals, schema: "entity Workload; entity A;", policies };
    let settings = stage::with_issuer(stage::settings("t"), "i");
    let snapshot = stage::load_with(&texts, &settings, at(0)).unwrap_or_else(|error| panic!("{error}"));
    let engine = stage::engine(Arc::new(snapshot), 64, InfluenceMode::None);
    for (token, word) in [(TOKEN, "x"), (OTHER_TOKEN, "y")] {
        let claims = json!([[["a", "b"], word]]);
        stage::prove(&engine, token, "i", &claims, at(0), &json!({}));
    }
    engine
}

fn say(engine: &Engine, value: i64, observed: i64, now: i64) {
    for (origin, name) in STORED {
        let item = json!({"name": name, "subject": AGENT, "value": value, "observed_at": at(observed).to_rfc3339()});
        let admission = stage::publish(engine, origin, &json!([item]), at(now));
        assert_eq!(admission.rejected, [], "{origin}");
    }
}

/// The state of each signal in the record of one decision.
fn states(engine: &Engine, path: &str, headers: &[(&str, &str)], address: &str, now: i64) -> BTreeMap<String, String> {
    let header = |(name, value): &(&str, &str)| HeaderEntry {
        name: (*name).to_owned(),
        value: (*value).to_owned(),
        is_utf8: true,
    };
    let mut request = Request {
        method: "GET".into(),
        path: path.into(),
        host: "a".into(),
        headers: Headers::new(headers.iter().map(header).collect()),
        source: Peer { principal: AGENT.into(), address: address.into(), ..Peer::default() },
        ..Request::default()
    };
    if path == "/facts" {
        request.metadata = BTreeMap::from([("app".to_owned(), json!({"word": "x"}))]);
    }
    let answer =
        engine.check(&wire::encode_request(&request), &Validated::default(), at(now), [0; 10], &|| 0).answer().unwrap();
    wire::rules::check(&answer).unwrap();
    let (line, _) = engine.drain(64);
    let last = line.split(|byte| *byte == b'\n').rev().find(|line| !line.is_empty()).unwrap();
    let record: Json = serde_json::from_slice(last).unwrap();
    let state = |fact: &Json| (fact["name"].as_str().unwrap().to_owned(), fact["state"].as_str().unwrap().to_owned());
    record["signals"].as_array().unwrap().iter().map(state).collect()
}

#[track_caller]
fn all_stored(engine: &Engine, expected: &str, now: i64) {
    let states = states(engine, "/none", &[], "", now);
    for (origin, name) in STORED {
        assert_eq!(states[name], expected, "{name} of {origin}");
    }
}

#[test]
fn what_publishers_and_feeds_say_can_have_every_state() {
    let engine = engine();
    all_stored(&engine, "missing", 0);
    say(&engine, 5, 0, 0);
    all_stored(&engine, "fresh", 1);
    all_stored(&engine, "stale", 301);
    say(&engine, 5, 302, 302);
    say(&engine, 6, 302, 302);
    all_stored(&engine, "disputed", 303);
    say(&engine, 7, 304, 304);
    all_stored(&engine, "fresh", 305);
    for (origin, _) in STORED {
        let off = engine.switch_publisher(origin, None, false, at(305)).unwrap();
        engine.apply(&[off.to_payload()], at(305)).unwrap();
    }
    all_stored(&engine, "unverified", 306);
}

#[test]
fn what_was_said_before_the_clock_was_set_back_is_from_the_future() {
    let before = engine();
    let mut kept = Vec::new();
    for (origin, name) in STORED {
        let item = json!({"name": name, "subject": AGENT, "value": 1, "observed_at": at(100).to_rfc3339()});
        let admission = stage::publish(&before, origin, &json!([item]), at(100));
        kept.extend(admission.changes.iter().map(Change::to_payload));
    }
    let after = engine();
    after.apply(&kept, at(0)).unwrap();
    all_stored(&after, "future", 0);
}

#[test]
fn what_comes_with_the_request_is_fresh_or_missing_and_two_words_are_disputed() {
    let engine = engine();
    // Counting begins with the first decision that is seen.
    states(&engine, "/none", &[], "", -120);
    let here = states(&engine, "/facts", &[("x-word", "y"), ("txn-token", TOKEN)], "10.1.2.3:80", 0);
    for name in ON_REQUEST {
        assert_eq!(here[name], "fresh", "{name}");
    }
    let twice = states(&engine, "/facts", &[("x-word", "y"), ("x-word", "z")], "10.1.2.3:80", 0);
    assert_eq!(twice["from_header"], "disputed");
    let two_tokens = [("txn-token", TOKEN), ("other-token", OTHER_TOKEN)];
    assert_eq!(states(&engine, "/facts", &two_tokens, "10.1.2.3:80", 0)["from_token"], "disputed");
    let other = self::engine();
    let gone = states(&other, "/none", &[], "192.0.2.1:80", 3_600 * 5);
    for name in ON_REQUEST {
        assert_eq!(gone[name], "missing", "{name}");
    }
}
