//! I4 at every exit: whatever ends a decision, wherever on its way a fault strikes, there is one record that says what the
//! answer says, or the answer is `log_unavailable`, counted, and told by the next record.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::cast_possible_truncation, missing_docs)]

mod stage;

use serde_json::{Value as Json, json};
use signalwarden_core::{
    engine::{Asking, Engine, Look, Options},
    identity::Validated,
    model::{Body, HeaderEntry, Headers, Peer, PrincipalRecord, Request, SpiffeId, Timestamp},
    policy::{EntityUnknown, PolicyEngine, PolicyInfo, Query, Slice},
    record::{
        InfluenceMode, Rendering,
        frames::Region,
        ring::{Ring, Room, Syncing},
    },
    snapshot::Snapshot,
    wire,
};
use std::{
    cell::Cell,
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

const NOW: Timestamp = Timestamp::from_micros(1_795_500_000_000_000);
const AGENT: &str = "spiffe://t/agent";
const PUBLISHER: &str = "spiffe://t/publisher";
const ROUTES: &str = r#"
routes:
  - {match: {host: h, method: GET, path: "/open/{id}"}, action: page.read, resource: {type: Page, id: "{id}"}, tier: coarse, sensitivity: low}
  - {match: {host: h, method: GET, path: "/shut/{id}"}, action: page.shut, resource: {type: Page, id: "{id}"}, tier: coarse, sensitivity: low}
  - {match: {host: h, method: GET, path: "/none/{id}"}, action: page.none, resource: {type: Page, id: "{id}"}, tier: coarse, sensitivity: low}
  - {match: {host: h, method: GET, path: "/live/{id}"}, action: page.live, resource: {type: Page, id: "{id}"}, tier: runtime, sensitivity: high}
  - {match: {host: h, method: GET, path: "/wrong/{id}"}, action: page.wrong, resource: {type: Page, id: "{id}"}, args: {query: {n: long}}, tier: coarse, sensitivity: low}
  - {match: {host: h, method: GET, path: "/task/{id}"}, action: page.task, resource: {type: Page, id: "{id}"}, tier: jit, sensitivity: low}
  - {match: {host: h, method: POST, path: "/asked/{id}"}, action: page.send, resource: {type: Page, id: "{id}"}, tier: approval, sensitivity: high}
  - {match: {host: h, method: GET, path: "/loose/{id}"}, action: page.loose, resource: {type: Page, id: "{id}"}, tier: coarse, sensitivity: low, enforce: false}
default: deny
"#;
const SIGNALS: &str = r#"
signals:
  posture: {type: string, description: d, owner: o@x, purpose: p, subject: principal, max_age: 5m, influence: grant, used_by: [page.live], review_by: 2099-01-01, sources: [{kind: push, publisher: "spiffe://t/publisher", assurance: authoritative}]}
"#;
const POLICIES: &str = r#"
@id("open") permit(principal, action in [Action::"page.read", Action::"page.task", Action::"page.send", Action::"page.wrong"], resource);
@id("shut") forbid(principal, action in [Action::"page.shut", Action::"page.loose"], resource);
@id("live") permit(principal, action == Action::"page.live", resource) when { context.signals has posture && context.signals.posture == "good" };
@id("overflow") permit(principal, action == Action::"page.wrong", resource) when { context.request.args.n * 4611686018427387904 > 0 };
@id("begin") permit(principal, action == Action::"task.begin", resource);
"#;
/// Ticks of the longest way, and one more.
const TICKS: u64 = 14;

fn snapshot() -> Arc<Snapshot> {
    let schema = "entity Workload; entity Page;";
    let texts = stage::Texts { routes: ROUTES, signals: SIGNALS, schema, policies: POLICIES };
    Arc::new(stage::load(&texts, "t", NOW).unwrap_or_else(|error| panic!("{error}")))
}

#[derive(Debug)]
struct Memory(Vec<AtomicU64>);

impl Region for Memory {
    fn words(&self) -> &[AtomicU64] {
        &self.0
    }
}

/// A disk that works, or does not.
#[derive(Clone, Debug, Default)]
struct Disk {
    reached: Arc<AtomicU64>,
    is_broken: Arc<AtomicBool>,
}

impl Syncing for Disk {
    fn wait_for(&self, end: u64) -> bool {
        self.ask_for(end);
        self.reached() >= end
    }

    fn ask_for(&self, end: u64) {
        if !self.is_broken.load(Ordering::Relaxed) {
            self.reached.fetch_max(end, Ordering::Relaxed);
        }
    }

    fn reached(&self) -> u64 {
        self.reached.load(Ordering::Relaxed)
    }
}

fn mapped(kilobytes: usize, disk: Option<Disk>) -> Engine {
    let memory = Memory((0..512 + kilobytes * 128).map(|_| AtomicU64::new(0)).collect());
    let room = Room {
        capacity: 1_000,
        max_bytes: usize::MAX,
        region: Some(Box::new(memory)),
        syncing: disk.map(|disk| Box::new(disk) as Box<dyn Syncing>),
        patience: Duration::ZERO,
    };
    let rendering = Rendering { influence: InfluenceMode::Default, digest_key: vec![7; 32] };
    let ring = Ring::open(room, rendering).unwrap();
    let engine = Engine::new(Options { ring, fold_denials: false, seed: 1, max_live: 1_000 });
    engine.swap(snapshot());
    engine
}

fn every_kind_of_engine() -> [Engine; 3] {
    [stage::engine(snapshot(), 1_000, InfluenceMode::Default), mapped(512, None), mapped(512, Some(Disk::default()))]
}

fn request(method: &str, path: &str) -> Request {
    Request {
        method: method.into(),
        path: path.into(),
        host: "h".into(),
        source: Peer { principal: AGENT.into(), ..Peer::default() },
        body: Body::Forwarded { bytes: b"{}".to_vec(), truncated: false },
        ..Request::default()
    }
}

/// One request for each stage that can end a decision, and the reason.
fn exits() -> Vec<(&'static str, Vec<u8>)> {
    let get = |path: &str| wire::encode_request(&request("GET", path));
    let of = |principal: &str| {
        let source = Peer { principal: principal.into(), ..Peer::default() };
        wire::encode_request(&Request { source, ..request("GET", "/open/1") })
    };
    let grant = HeaderEntry { name: "x-signalwarden-grant".into(), value: "forged".into(), is_utf8: true };
    let forged = Request { headers: Headers::new(vec![grant]), ..request("GET", "/task/1") };
    vec![
        ("malformed_request", b"\xff".to_vec()),
        ("route_unknown", get("/nowhere")),
        ("malformed_request", get("/wrong/1?n=x")),
        ("identity_missing", of("")),
        ("identity_invalid", of("CN=a")),
        ("trust_domain_unknown", of("spiffe://other/a")),
        ("grant_required", get("/task/1")),
        ("grant_invalid", wire::encode_request(&forged)),
        ("no_policy_permits", get("/none/1")),
        ("policy_denied", get("/shut/1")),
        ("policy_denied", get("/loose/1")),
        ("signal_unavailable", get("/live/1")),
        ("engine_error", get("/wrong/1?n=9")),
        ("approval_required", wire::encode_request(&request("POST", "/asked/1"))),
        ("allowed", get("/open/1")),
    ]
}

/// What leaves: the answer, whatever must be kept before.
fn answered(engine: &Engine, bytes: &[u8], id: u8, kept: bool, ticks: &dyn Fn() -> u64) -> Vec<u8> {
    let answer = match engine.check(bytes, &Validated::default(), NOW, [id; 10], ticks) {
        Look::Answer(answer) => answer,
        Look::Held(held) => engine.finish(*held, kept).0,
        Look::Pending(pending) => panic!("{pending:?}"),
    };
    wire::rules::check(&answer).unwrap_or_else(|broken| panic!("Envoy's rules are broken: {broken:?}"));
    answer
}

fn drained(engine: &Engine) -> Vec<Json> {
    let (lines, count) = engine.drain(usize::MAX);
    engine.settle(count);
    lines
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

/// One record, of this answer, with its reason.
fn told(engine: &Engine, answer: &[u8]) -> Json {
    let [record] = <[Json; 1]>::try_from(drained(engine)).unwrap();
    let answer = String::from_utf8_lossy(answer);
    for key in ["decision_id", "reason"] {
        assert!(answer.contains(record[key].as_str().unwrap()), "{key} of {record} is not in {answer}");
    }
    record
}

fn count(engine: &Engine, name: &str) -> u64 {
    engine.counters().into_iter().find(|(known, _)| known == name).map_or(0, |(_, count)| count)
}

#[test]
fn each_exit_has_one_record_that_says_what_the_answer_says() {
    for engine in every_kind_of_engine() {
        let mut reasons = BTreeSet::new();
        for (nth, (reason, bytes)) in exits().into_iter().enumerate() {
            let answer = answered(&engine, &bytes, nth as u8, true, &|| 0);
            let record = told(&engine, &answer);
            assert_eq!(record["reason"], reason, "{record}");
            reasons.insert(reason);
        }
        assert_eq!(reasons.len(), 13);
        assert_eq!(count(&engine, "panics"), 0);
    }
}

#[test]
fn a_panic_at_any_stage_has_a_record_and_denies() {
    std::panic::set_hook(Box::new(|_| {}));
    for engine in every_kind_of_engine() {
        let mut panics = 0;
        for (reason, bytes) in exits() {
            let mut was_whole = false;
            for fatal in 1..TICKS {
                let tick = Cell::new(0);
                // The stopwatch is read between all stages.
                let ticks = || {
                    assert!(tick.replace(tick.get() + 1) != fatal, "planted");
                    tick.get()
                };
                let answer = answered(&engine, &bytes, fatal as u8, true, &ticks);
                let record = told(&engine, &answer);
                was_whole = tick.get() <= fatal;
                let expected = if was_whole { reason } else { "engine_error" };
                // A question that was asked stands: it is asked about again, or was.
                assert!(record["reason"] == expected, "{fatal}: {record}");
                if !was_whole {
                    panics += 1;
                    assert_eq!(
                        (&record["outcome"], &record["detail"]),
                        (&json!("deny"), &json!("the engine panicked"))
                    );
                    assert!(reason == "malformed_request" || record["request"]["host"] == "h", "{record}");
                    assert!(record["policies"]["revision"].is_string());
                }
            }
            assert!(was_whole, "the last panic comes too late to strike");
        }
        assert_eq!(count(&engine, "panics"), panics);
        assert!(panics > 80, "{panics}");
    }
}

#[test]
fn what_can_not_be_kept_has_a_record_that_says_so() {
    for engine in every_kind_of_engine() {
        let asked = wire::encode_request(&request("POST", "/asked/1"));
        let answer = answered(&engine, &asked, 1, false, &|| 0);
        let record = told(&engine, &answer);
        assert_eq!(record["reason"], "log_unavailable");
        assert_eq!(record["detail"], "what the decision changes could not be kept");
    }
}

#[test]
fn a_refused_record_is_counted_and_told_by_the_next_at_every_exit() {
    for (reason, bytes) in exits() {
        let engine = mapped(32, None);
        let fill = || while engine.note(vec![b' '; 64]) {};
        fill();
        for id in 0..3 {
            let answer = answered(&engine, &bytes, id, true, &|| 0);
            assert!(String::from_utf8_lossy(&answer).contains("log_unavailable"), "{reason}");
        }
        assert_eq!((count(&engine, "log_refused"), count(&engine, "decisions_log_unavailable")), (3, 3));
        let (_, waiting) = engine.drain(usize::MAX);
        engine.settle(waiting);
        let answer = answered(&engine, &bytes, 9, true, &|| 0);
        let record = told(&engine, &answer);
        assert_eq!((&record["reason"], &record["refused_before"]), (&json!(reason), &json!(3)), "{record}");
    }
}

#[test]
fn a_record_that_never_became_durable_is_none() {
    let disk = Disk::default();
    let engine = mapped(64, Some(disk.clone()));
    let open = exits().pop().unwrap().1;
    disk.is_broken.store(true, Ordering::Relaxed);
    // More than fit at once: what is taken back leaves its room.
    for id in 0..200 {
        let answer = answered(&engine, &open, id, true, &|| 0);
        assert!(String::from_utf8_lossy(&answer).contains("log_unavailable"));
    }
    assert_eq!(count(&engine, "log_refused"), 200);
    assert_eq!(engine.drain(usize::MAX), (Vec::new(), 0));
    disk.is_broken.store(false, Ordering::Relaxed);
    let record = told(&engine, &answered(&engine, &open, 201, true, &|| 0));
    assert_eq!((&record["reason"], &record["refused_before"]), (&json!("allowed"), &json!(200)));
}

#[test]
fn a_record_that_is_waited_for_is_not_drained_before() {
    let disk = Disk::default();
    let engine = mapped(64, Some(disk.clone()));
    disk.is_broken.store(true, Ordering::Relaxed);
    assert!(engine.note(b"{}".to_vec()));
    assert_eq!(engine.drain(10).1, 0);
    disk.is_broken.store(false, Ordering::Relaxed);
    assert_eq!(engine.drain(10).1, 1);
}

#[test]
fn a_task_that_is_asked_for_has_one_record_at_each_exit_too() {
    std::panic::set_hook(Box::new(|_| {}));
    let asked =
        json!({"principal": AGENT, "type": "t", "actions": ["page.read"], "resources": ["Page::*"]}).to_string();
    let client = SpiffeId::parse("spiffe://t/orchestrator").unwrap();
    for engine in every_kind_of_engine() {
        let propose = |ticks: &dyn Fn() -> u64| {
            let asking = Asking { client: &client, certificate: None, now: NOW, random: [3; 10], ticks };
            engine.propose_task(asked.as_bytes(), &asking, [4; 10])
        };
        assert!(propose(&|| 0).is_ok());
        assert_eq!(drained(&engine)[0]["reason"], "allowed");
        for fatal in 1..3 {
            let tick = Cell::new(0);
            let panics = || {
                assert!(tick.replace(tick.get() + 1) != fatal, "planted");
                0
            };
            assert!(propose(&panics).is_err());
            let records = drained(&engine);
            assert_eq!((records.len(), &records[0]["reason"]), (1, &json!("engine_error")), "{fatal}");
            assert_eq!(records[0]["principal"]["id"], "spiffe://t/orchestrator");
        }
    }
    let engine = mapped(32, None);
    while engine.note(vec![b' '; 64]) {}
    let asking = Asking { client: &client, certificate: None, now: NOW, random: [3; 10], ticks: &|| 0 };
    assert!(engine.propose_task(asked.as_bytes(), &asking, [4; 10]).is_err());
    assert_eq!(count(&engine, "log_refused"), 1);
}

/// Policies whose names nobody can say.
struct Unspeakable(Arc<Snapshot>);

impl PolicyEngine for Unspeakable {
    fn name(&self) -> &'static str {
        panic!("planted")
    }
    fn policies(&self) -> &[Arc<PolicyInfo>] {
        self.0.policies.policies()
    }
    fn record_of(&self, principal: &SpiffeId) -> Option<&PrincipalRecord> {
        self.0.policies.record_of(principal)
    }
    fn slice<'e>(&'e self, query: &Query) -> Result<Box<dyn Slice + 'e>, EntityUnknown> {
        self.0.policies.slice(query)
    }
}

#[test]
fn a_record_that_can_not_be_written_whole_is_written_bare() {
    std::panic::set_hook(Box::new(|_| {}));
    for engine in every_kind_of_engine() {
        let known = snapshot();
        let Ok(of_its_own) = Arc::try_unwrap(snapshot()) else { panic!() };
        engine.swap(Arc::new(Snapshot { policies: Box::new(Unspeakable(known)), ..of_its_own }));
        let answer = answered(&engine, &exits().pop().unwrap().1, 1, true, &|| 0);
        let record = told(&engine, &answer);
        assert_eq!(record["reason"], "allowed");
        assert_eq!(record["detail"], "the record could not be written whole");
        assert!(count(&engine, "panics") > 0);
    }
}

#[test]
fn signals_that_decided_are_told_by_the_record_of_a_mapped_ring_too() {
    let engine = mapped(64, None);
    let live = exits().into_iter().find(|(reason, _)| *reason == "signal_unavailable").unwrap().1;
    let record = told(&engine, &answered(&engine, &live, 1, true, &|| 0));
    assert_eq!(record["signals"][0]["influence"], "decisive");
    assert!(record.get("influence_shed").is_none());
    let item = json!([{"name": "posture", "subject": AGENT, "value": "good", "observed_at": NOW.to_rfc3339()}]);
    stage::publish(&engine, PUBLISHER, &item, NOW);
    let record = told(&engine, &answered(&engine, &live, 2, true, &|| 0));
    assert_eq!((&record["reason"], &record["signals"][0]["influence"]), (&json!("allowed"), &json!("decisive")));
}
