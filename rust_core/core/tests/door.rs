//! Through the core's door, bytes in and bytes out: non-interference (I1), one record a decision (I4), and
//! totality (I5), on a whole directory. Every answer is held against Envoy's rules.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::needless_pass_by_value,
    missing_docs
)]

mod stage;

use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::Value as Json;
use signalwarden_core::{
    engine::Engine,
    identity::Validated,
    model::{Body, HeaderEntry, Headers, Peer, PrincipalRecord, Request, SpiffeId, Timestamp},
    policy::{EntityUnknown, PolicyEngine, PolicyInfo, Query, Slice},
    reason::Reason,
    record::InfluenceMode,
    snapshot::Snapshot,
    wire,
};
use stage::Texts;
use std::{collections::BTreeMap, sync::Arc};

const CASES: u32 = 4_000;
const AGENT: &str = "spiffe://prod.example/agent";
const PUBLISHER: &str = "spiffe://prod.example/publisher";
const NOW: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);

const ROUTES: &str = r#"
routes:
  - match: {host: "pay.*", method: POST, path: "/v1/accounts/{account}/transfers"}
    action: transfer.create
    resource: {type: Account, id: "{account}"}
    args: {query: {dry_run: "bool?"}, body: {amount: {pointer: /amount, type: long}}}
    system: payments
    tier: runtime
    sensitivity: high
  - match: {host: "*", method: GET, path: "/v1/accounts/{account}"}
    action: account.read
    resource: {type: Account, id: "{account}"}
    tier: coarse
    sensitivity: low
  - match: {host: "*", method: DELETE, path: "/v1/accounts/{account}"}
    action: account.close
    resource: {type: Account, id: "{account}"}
    tier: jit
    sensitivity: high
  - match: {host: "*", method: PUT, path: "/v1/accounts/{account}"}
    action: account.change
    resource: {type: Account, id: "{account}"}
    tier: approval
    sensitivity: high
default: deny
"#;
const SIGNALS: &str = r#"
signals:
  device_trust: {type: long, description: d, owner: o@x, purpose: p, subject: principal, max_age: 5m, influence: grant, used_by: [transfer.create], review_by: 2099-01-01, sources: [{kind: push, publisher: "spiffe://prod.example/publisher", assurance: authoritative}]}
  task_type: {type: string, description: d, owner: o@x, purpose: p, subject: request, influence: restrict, used_by: [transfer.create], review_by: 2099-01-01, sources: [{kind: header, header: x-task-type, assurance: self_asserted}]}
  noise: {type: string, description: d, owner: o@x, purpose: p, subject: principal, max_age: 5m, influence: observe, sensitivity: secret, used_by: [transfer.create], review_by: 2099-01-01, sources: [{kind: push, publisher: "spiffe://prod.example/publisher", assurance: authoritative}]}
"#;
const POLICIES: &str = r#"
@id("transfers") permit(principal, action == Action::"transfer.create", resource) when { context.signals has device_trust && context.signals.device_trust >= 3 && context.request.args.amount < 500 };
@id("exports") forbid(principal, action == Action::"transfer.create", resource) when { context.signals has task_type && context.signals.task_type == "export" };
@id("reads") permit(principal, action in [Action::"account.read", Action::"account.close", Action::"account.change"], resource);
"#;

fn snapshot() -> Snapshot {
    let texts =
        Texts { routes: ROUTES, signals: SIGNALS, schema: "entity Workload; entity Account;", policies: POLICIES };
    stage::load(&texts, "prod.example", NOW).unwrap_or_else(|error| panic!("{error}"))
}

fn engine(capacity: usize) -> Engine {
    stage::engine(Arc::new(snapshot()), capacity, InfluenceMode::All)
}

fn empty_engine(capacity: usize) -> Engine {
    stage::empty_engine(capacity, InfluenceMode::All)
}

fn publish(engine: &Engine, name: &str, value: Json) {
    let item = serde_json::json!({"name": name, "subject": AGENT, "value": value, "observed_at": NOW.to_rfc3339()});
    let admission = stage::publish(engine, PUBLISHER, &serde_json::json!([item]), NOW);
    assert_eq!(admission.accepted, 1, "{:?}", admission.rejected);
}

fn header(name: &str, value: &str) -> HeaderEntry {
    HeaderEntry { name: name.into(), value: value.into(), is_utf8: true }
}

fn transfer() -> Request {
    Request {
        method: "POST".into(),
        path: "/v1/accounts/42/transfers".into(),
        host: "pay.prod.example".into(),
        scheme: "https".into(),
        protocol: "HTTP/2".into(),
        headers: Headers::new(vec![header("content-type", "application/json")]),
        body: Body::Forwarded { bytes: br#"{"amount": 100}"#.to_vec(), truncated: false },
        source: Peer { principal: AGENT.into(), ..Peer::default() },
        ..Request::default()
    }
}

fn ask(engine: &Engine, bytes: &[u8]) -> Vec<u8> {
    let answer = engine.check(bytes, &Validated::default(), NOW, [0; 10], &|| 0).answer().unwrap();
    wire::rules::check(&answer).unwrap_or_else(|broken| panic!("Envoy's rules are broken: {broken:?}"));
    answer
}

/// Decides, and gives the record as JSON.
fn record(engine: &Engine, bytes: &[u8]) -> Json {
    ask(engine, bytes);
    let (lines, count) = engine.drain(10);
    assert_eq!(count, 1, "every decision has one record (I4)");
    serde_json::from_slice(&lines).unwrap()
}

fn reason(engine: &Engine, request: &Request) -> String {
    record(engine, &wire::encode_request(request))["reason"].as_str().unwrap().to_owned()
}

/// What a decision is, without what identifies the request in the log.
fn essence(record: &Json) -> Json {
    let mut record = record.clone();
    let fields = record.as_object_mut().unwrap();
    for varying in ["decision_id", "time", "timing_us"] {
        fields.remove(varying);
    }
    let request = fields["request"].as_object_mut().unwrap();
    for varying in ["envoy_id", "trace_id", "span_id"] {
        request.remove(varying);
    }
    record
}

#[test]
fn each_exit_of_the_way_has_its_reason() {
    let engine = engine(100);
    assert_eq!(reason(&engine, &transfer()), "signal_unavailable");
    publish(&engine, "device_trust", 4.into());
    assert_eq!(reason(&engine, &transfer()), "allowed");
    let change = |edit: fn(&mut Request)| {
        let mut request = transfer();
        edit(&mut request);
        reason(&engine, &request)
    };
    assert_eq!(
        change(|r| r.headers =
            Headers::new(vec![header("content-type", "application/json"), header("x-task-type", "export")])),
        "policy_denied"
    );
    assert_eq!(
        change(|r| r.body = Body::Forwarded { bytes: br#"{"amount": 900}"#.to_vec(), truncated: false }),
        "no_policy_permits"
    );
    assert_eq!(
        change(|r| r.body = Body::Forwarded { bytes: br#"{"amount": "x"}"#.to_vec(), truncated: false }),
        "malformed_request"
    );
    assert_eq!(change(|r| r.path = "/v1/accounts/42/../transfers".into()), "route_unknown");
    assert_eq!(change(|r| r.source.principal.clear()), "identity_missing");
    assert_eq!(change(|r| r.source.principal = "SPIFFE://prod.example/agent".into()), "identity_invalid");
    assert_eq!(change(|r| r.source.principal = "spiffe://other.example/agent".into()), "trust_domain_unknown");
    let plain = |method: &str| Request {
        method: method.into(),
        path: "/v1/accounts/42".into(),
        body: Body::NotForwarded,
        ..transfer()
    };
    assert_eq!(reason(&engine, &plain("GET")), "allowed");
    assert_eq!(reason(&engine, &plain("DELETE")), "grant_required");
    assert_eq!(reason(&engine, &plain("PUT")), "body_incomplete");
    assert_eq!(record(&engine, b"\xff\xff")["reason"], "malformed_request");
    engine.close();
    assert_eq!(reason(&engine, &transfer()), "not_ready");
    assert_eq!(reason(&empty_engine(9), &transfer()), "not_ready");
}

#[test]
fn a_value_that_is_too_old_or_from_the_future_is_no_fact() {
    let engine = engine(100);
    publish(&engine, "device_trust", 4.into());
    let bytes = wire::encode_request(&transfer());
    let state = |micros: i64| {
        engine.check(&bytes, &Validated::default(), Timestamp::from_micros(NOW.as_micros() + micros), [0; 10], &|| 0);
        let record: Json = serde_json::from_slice(&engine.drain(1).0).unwrap();
        (record["reason"].as_str().unwrap().to_owned(), record["signals"][0]["state"].as_str().unwrap().to_owned())
    };
    assert_eq!(state(0), ("allowed".to_owned(), "fresh".to_owned()));
    assert_eq!(state(300_000_000), ("allowed".to_owned(), "fresh".to_owned()));
    assert_eq!(state(300_000_001), ("signal_unavailable".to_owned(), "stale".to_owned()));
    // The clock is set back: time does not follow it, so the stale value does not come back.
    assert_eq!(state(0), ("signal_unavailable".to_owned(), "stale".to_owned()));
}

#[test]
fn a_secret_value_is_in_the_log_as_a_keyed_digest_only() {
    let engine = engine(100);
    publish(&engine, "device_trust", 4.into());
    publish(&engine, "noise", "planted-secret".into());
    ask(&engine, &wire::encode_request(&transfer()));
    let line = String::from_utf8(engine.drain(1).0).unwrap();
    assert!(!line.contains("planted-secret"), "{line}");
    let record: Json = serde_json::from_str(&line).unwrap();
    let noise = record["signals"].as_array().unwrap().iter().find(|s| s["name"] == "noise").unwrap();
    assert!(noise["digest"].as_str().unwrap().starts_with("hmac-sha256:"), "{noise}");
    assert!(noise.get("influence").is_none(), "what is only observed has no influence");
}

#[test]
fn a_full_log_allows_nothing_and_the_next_record_tells_how_many_were_refused() {
    let engine = engine(3);
    publish(&engine, "device_trust", 4.into());
    let bytes = wire::encode_request(&transfer());
    let answers: Vec<Vec<u8>> = (0..5).map(|_| ask(&engine, &bytes)).collect();
    let text = |answer: &Vec<u8>| String::from_utf8_lossy(answer).into_owned();
    assert!(answers[..3].iter().all(|a| !text(a).contains("log_unavailable")));
    assert!(answers[3..].iter().all(|a| text(a).contains("log_unavailable")));
    assert_eq!(engine.drain(9).1, 3);
    ask(&engine, &bytes);
    let record: Json = serde_json::from_slice(&engine.drain(9).0).unwrap();
    assert_eq!((record["reason"].as_str(), record["refused_before"].as_u64()), (Some("allowed"), Some(2)));
}

#[test]
fn past_half_of_the_ring_influence_is_shed_and_marked_and_decisions_go_on() {
    let engine = engine(4);
    publish(&engine, "device_trust", 4.into());
    let bytes = wire::encode_request(&transfer());
    let drained = |count: usize| -> Vec<Json> {
        (0..count).for_each(|_| drop(ask(&engine, &bytes)));
        let lines = String::from_utf8(engine.drain(count).0).unwrap();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    for record in drained(2) {
        assert_eq!(
            (record["signals"][0]["influence"].as_str(), record.get("influence_shed")),
            (Some("decisive"), None)
        );
    }
    for record in drained(3) {
        assert_eq!((record["reason"].as_str(), record["influence_shed"].as_bool()), (Some("allowed"), Some(true)));
        assert!(record["signals"][0].get("influence").is_none());
    }
}

/// A policy engine with a fault that no real one can be made to show.
struct Panics;

impl PolicyEngine for Panics {
    fn name(&self) -> &'static str {
        "panics"
    }
    fn policies(&self) -> &[Arc<PolicyInfo>] {
        &[]
    }
    fn record_of(&self, _: &SpiffeId) -> Option<&PrincipalRecord> {
        None
    }
    fn slice<'e>(&'e self, _: &Query) -> Result<Box<dyn Slice + 'e>, EntityUnknown> {
        panic!("planted")
    }
}

#[test]
fn a_panic_is_a_denial_with_a_record_and_the_engine_goes_on() {
    let engine = empty_engine(10);
    engine.swap(Arc::new(Snapshot { policies: Box::new(Panics), ..snapshot() }));
    assert_eq!(reason(&engine, &transfer()), "engine_error");
    engine.swap(Arc::new(snapshot()));
    assert_eq!(reason(&engine, &transfer()), "signal_unavailable");
    let panics = engine.counters().into_iter().find(|(name, _)| name == "panics");
    assert_eq!(panics, Some(("panics".to_owned(), 1)));
}

/// Everything of a request that no route, contract or identity names.
fn varied() -> impl Strategy<Value = Request> {
    let word = "[a-z0-9]{0,12}";
    let map = || prop::collection::btree_map("[a-z.]{1,12}", "[a-zA-Z0-9 ]{0,12}", 0..3);
    let headers = prop::collection::vec(("x-[a-z]{1,10}", "[ -~]{0,20}"), 0..4);
    let metadata = || {
        prop::collection::btree_map(
            "[a-z.]{1,20}",
            "[a-z]{0,9}".prop_map(|v| serde_json::json!({"device_trust": 5, "v": v})),
            0..3,
        )
    };
    let ours = prop::sample::select(vec![
        "x-signalwarden-principal",
        "x-signalwarden-decision-id",
        "x-device-trust",
        "authorization",
        "cookie",
        "x-forwarded-client-cert",
    ]);
    let first = (headers, ours, word, word, map(), map());
    let second = (metadata(), metadata(), any::<bool>(), word, "[a-z]{1,8}=[a-z0-9%]{0,8}", 0_i64..1_000_000_000);
    (first, second).prop_map(
        |((extra, ours, id, service, labels, extensions), (metadata, route_metadata, task, sni, query, time))| {
            let mut request = transfer();
            let mut headers =
                vec![header("content-type", "application/json"), header(ours, "spiffe://prod.example/admin")];
            headers.extend(
                extra.iter().filter(|(name, _)| name != "x-task-type").map(|(name, value)| header(name, value.trim())),
            );
            if task {
                headers.push(header("x-task-type", "refund"));
            }
            request.headers = Headers::new(headers);
            request.id = id;
            request.source.service = service;
            request.source.labels = labels.clone();
            request.source.address = "10.9.8.7:1".into();
            request.destination = Peer { principal: "spiffe://prod.example/other".into(), labels, ..Peer::default() };
            request.extensions = extensions;
            request.metadata = metadata;
            request.route_metadata = route_metadata;
            request.sni = sni;
            request.time = Some(Timestamp::from_micros(time));
            if !query.starts_with("dry_run=") {
                request.path = format!("{}?{query}", request.path);
            }
            request.body = Body::Forwarded {
                bytes: format!(r#"{{"amount": 100, "other": "{time}", "device_trust": 5}}"#).into_bytes(),
                truncated: false,
            };
            request
        },
    )
}

#[test]
fn nothing_but_governed_inputs_changes_a_decision() {
    let trusted = engine(10);
    publish(&trusted, "device_trust", 4.into());
    let distrusted = engine(10);
    publish(&distrusted, "device_trust", 1.into());
    let untouched = |engine: &Engine, task: bool| {
        let mut request = transfer();
        if task {
            request.headers =
                Headers::new(vec![header("content-type", "application/json"), header("x-task-type", "refund")]);
        }
        essence(&record(engine, &wire::encode_request(&request)))
    };
    let expected: BTreeMap<(bool, bool), Json> = [(true, true), (true, false), (false, true), (false, false)]
        .into_iter()
        .map(|(trust, task)| ((trust, task), untouched(if trust { &trusted } else { &distrusted }, task)))
        .collect();
    let mut runner =
        TestRunner::new(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() });
    let result = runner.run(&varied(), |request| {
        let task = !request.headers.all("x-task-type").is_empty();
        let bytes = wire::encode_request(&request);
        for (trust, engine) in [(true, &trusted), (false, &distrusted)] {
            prop_assert_eq!(&essence(&record(engine, &bytes)), &expected[&(trust, task)]);
        }
        Ok(())
    });
    println!("I1: {CASES} requests, each decided twice");
    result.unwrap();
}

#[test]
fn every_input_has_an_answer_that_obeys_envoys_rules_and_a_record() {
    let engine = engine(10);
    publish(&engine, "device_trust", 4.into());
    let valid = wire::encode_request(&transfer());
    let mutated = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6).prop_map({
        let valid = valid.clone();
        move |edits| {
            let mut bytes = valid.clone();
            for (at, byte) in edits {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        }
    });
    let cut = any::<prop::sample::Index>().prop_map(move |at| valid[..at.index(valid.len())].to_vec());
    let strategy = prop_oneof![2 => prop::collection::vec(any::<u8>(), 0..200), 4 => mutated, 1 => cut];
    let mut runner =
        TestRunner::new(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() });
    let result = runner.run(&strategy, |bytes| {
        let record = record(&engine, &bytes);
        let code = record["reason"].as_str().unwrap();
        prop_assert!(Reason::ALL.iter().any(|reason| reason.code() == code));
        prop_assert_eq!(record["outcome"] == "allow", code == "allowed");
        Ok(())
    });
    println!("I5: {CASES} messages, each answered and recorded");
    result.unwrap();
}
