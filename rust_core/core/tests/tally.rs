//! What is counted of signals and publishers, through the core's door.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod stage;

use serde_json::{Value as Json, json};
use signalwarden_core::{
    engine::Engine,
    identity::Validated,
    model::{Headers, Peer, Request, Timestamp},
    record::InfluenceMode,
    snapshot::Snapshot,
    wire,
};
use stage::Texts;
use std::sync::Arc;

const START: i64 = 1_790_000_000_000_000;
const AGENT: &str = "spiffe://prod.example/agent";
const PUBLISHER: &str = "spiffe://prod.example/publisher";
const ROUTES: &str = r#"
routes:
  - {match: {host: h, path: "/{x}"}, action: thing.read, resource: {type: Thing, id: "{x}"}, tier: runtime, sensitivity: low}
"#;
const REST: &str =
    "description: d, owner: o@x, purpose: p, influence: restrict, used_by: [thing.read], review_by: 2099-01-01";

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(START + seconds * 1_000_000)
}

fn snapshot(names: &[&str]) -> Arc<Snapshot> {
    let source = format!("{{kind: push, publisher: \"{PUBLISHER}\", assurance: authoritative}}");
    let pushed = names.iter().map(|name| {
        format!("  {name}: {{type: long, subject: principal, max_age: 1m, sources: [{source}], {REST}}}\n")
    });
    let word = "{kind: header, header: x-word, assurance: self_asserted}";
    let signals = format!(
        "signals:\n{}  word: {{type: string, subject: request, sources: [{word}], {REST}}}\n",
        pushed.collect::<String>()
    );
    let reads: Vec<String> =
        names.iter().map(|name| format!("context.signals has {name} && context.signals.{name} > 100")).collect();
    let policies = format!(
        "@id(\"p\") permit(principal, action, resource);\n@id(\"f\") forbid(principal, action, resource) when {{ ({}) || \
         (context.signals has word && context.signals.word == \"no\") }};",
        reads.join(" || ")
    );
    let texts =
        Texts { routes: ROUTES, signals: &signals, schema: "entity Workload; entity Thing;", policies: &policies };
    Arc::new(stage::load(&texts, "prod.example", at(0)).unwrap_or_else(|error| panic!("{error}")))
}

fn engine() -> Engine {
    stage::engine(snapshot(&["risk"]), 100, InfluenceMode::None)
}

fn publish(engine: &Engine, origin: &str, entries: &Json, seconds: i64) -> usize {
    stage::publish(engine, origin, entries, at(seconds)).accepted
}

fn entry(name: &str, subject: &str, value: impl Into<Json>, seconds: i64) -> Json {
    json!({"name": name, "subject": subject, "value": value.into(), "observed_at": at(seconds).to_rfc3339()})
}

fn ask(engine: &Engine, seconds: i64) {
    let source = Peer { principal: AGENT.into(), ..Peer::default() };
    let request = Request {
        method: "GET".into(),
        path: "/a".into(),
        host: "h".into(),
        headers: Headers::new(vec![]),
        source,
        ..Request::default()
    };
    let ticks = u64::try_from(seconds).unwrap() * 1_000_000_000;
    engine.check(&wire::encode_request(&request), &Validated::default(), at(seconds), [0; 10], &|| ticks);
}

fn of_signal(engine: &Engine, name: &str, seconds: i64, scan: bool) -> Json {
    let stats = engine.signal_stats(at(seconds), scan);
    stats["signals"].as_array().unwrap().iter().find(|signal| signal["name"] == name).unwrap().clone()
}

#[test]
fn states_and_ages_are_counted_when_records_are_drained() {
    let engine = engine();
    ask(&engine, 0);
    assert_eq!(publish(&engine, PUBLISHER, &json!([entry("risk", AGENT, 1, 10)]), 10), 1);
    for second in [10, 12, 40, 100] {
        ask(&engine, second);
    }
    assert_eq!(of_signal(&engine, "risk", 100, false)["age_count"], 0, "nothing is counted on the way of an answer");
    engine.drain(100);
    let risk = of_signal(&engine, "risk", 100, false);
    let states = json!({"fresh": 3, "stale": 1, "missing": 1, "disputed": 0, "unverified": 0, "future": 0});
    assert_eq!((&risk["states"], &risk["recent"]), (&states, &states));
    // Ages 0, 2, 30 and 90 seconds; each bucket holds those below it, too.
    let expected = json!([[0.1, 1], [1, 1], [5, 2], [15, 2], [60, 3], [300, 4], [900, 4], [3_600, 4], [86_400, 4]]);
    assert_eq!(risk["age_buckets"], expected);
    assert_eq!((&risk["age_count"], &risk["age_sum"]), (&4.into(), &122.0.into()));
    let word = of_signal(&engine, "word", 100, false);
    assert_eq!((&word["states"]["missing"], &word["age_count"]), (&5.into(), &0.into()));
    assert!(word.get("subjects").is_none());
}

#[test]
fn recent_is_the_last_five_minutes() {
    let engine = engine();
    for second in [0, 120, 400] {
        ask(&engine, second);
    }
    engine.drain(100);
    let recent = |seconds| of_signal(&engine, "word", seconds, false)["recent"]["missing"].clone();
    assert_eq!([recent(400), recent(640), recent(1_000)], [1, 1, 0].map(Json::from));
    assert_eq!(of_signal(&engine, "word", 1_000, false)["states"]["missing"], 3);
    ask(&engine, 401);
    engine.drain(100);
    assert_eq!(recent(402), 2);
}

#[test]
fn refusals_are_counted_by_signal_and_publisher_and_unknown_names_by_publisher_alone() {
    let engine = engine();
    let batch = json!([
        entry("risk", AGENT, 1, 10),
        entry("risk", AGENT, "high", 11),
        entry("risk", "no id", 1, 11),
        entry("nobody", AGENT, 1, 11),
        entry("word", "x", "y", 11),
        {"name": "risk"},
    ]);
    assert_eq!(publish(&engine, PUBLISHER, &batch, 12), 1);
    publish(&engine, "spiffe://prod.example/other", &json!([entry("risk", AGENT, 1, 10)]), 13);
    let expected = json!({"wrong_type": 1, "bad_subject": 1, "wrong_publisher": 1});
    assert_eq!(of_signal(&engine, "risk", 20, false)["rejected"], expected);
    assert_eq!(of_signal(&engine, "word", 20, false)["rejected"], json!({"not_pushed": 1}));
    let off = engine.switch_publisher("poll:file", None, false, at(14)).unwrap();
    let part = engine.switch_publisher(PUBLISHER, Some("risk"), false, at(14)).unwrap();
    engine.apply(&[off.to_payload(), part.to_payload()], at(14)).unwrap();
    let of = |publisher: &str, seen: Option<i64>, accepted: u64, rejected: Json, disabled: bool, signals: Json| {
        let last_seen = seen.map(|seconds| at(seconds).to_rfc3339());
        json!({"publisher": publisher, "last_seen": last_seen, "accepted": accepted, "rejected": rejected,
               "disabled": disabled, "disabled_signals": signals})
    };
    let rejected = json!({"malformed": 1, "unknown_signal": 1, "not_pushed": 1, "bad_subject": 1, "wrong_type": 1});
    let expected = json!([
        of("poll:file", None, 0, json!({}), true, json!([])),
        of("spiffe://prod.example/other", Some(13), 0, json!({"wrong_publisher": 1}), false, json!([])),
        of(PUBLISHER, Some(12), 1, rejected, false, json!(["risk"])),
    ]);
    assert_eq!(engine.publishers(), expected);
}

#[test]
fn a_scan_counts_subjects_and_says_how_old_they_are() {
    let engine = engine();
    let batch = json!([entry("risk", AGENT, 1, 10), entry("risk", "spiffe://prod.example/b", 1, 5)]);
    publish(&engine, PUBLISHER, &batch, 12);
    let risk = of_signal(&engine, "risk", 20, true);
    assert_eq!(
        (&risk["subjects"], &risk["freshest"], &risk["oldest"]),
        (&2.into(), &at(10).to_rfc3339().into(), &at(5).to_rfc3339().into())
    );
    let word = of_signal(&engine, "word", 20, true);
    assert_eq!((&word["subjects"], &word["freshest"]), (&0.into(), &Json::Null));
}

#[test]
fn a_load_keeps_the_counts_of_signals_that_stay_and_forgets_the_others() {
    let engine = engine();
    ask(&engine, 0);
    engine.drain(100);
    engine.swap(snapshot(&["other"]));
    assert_eq!(of_signal(&engine, "word", 1, false)["states"]["missing"], 1);
    let names = engine.signal_stats(at(1), false);
    assert_eq!(names["signals"].as_array().unwrap().len(), 2);
    engine.swap(snapshot(&["risk"]));
    assert_eq!(of_signal(&engine, "risk", 1, false)["states"]["missing"], 0);
}
