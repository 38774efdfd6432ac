//! What the calls cost that must not cost more the more tasks and questions are held: a sweep that finds nothing, a list
//! of a hundred, a grant that is looked up through the list by its id, and one more question.
//!
//! `cargo run --release --example held_cost -- FEW MANY CALLS` measures both in one run, and prints microseconds a call and
//! their ratio.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "a measuring tool")]

use serde_json::json;
use signalwarden_core::{
    approvals::Approvals,
    change::Change,
    engine::{Engine, Options},
    model::Timestamp,
    record::{InfluenceMode, Rendering, ring::Ring},
    snapshot::{CoreSettings, Snapshot},
    tasks::Wanted,
};
use std::{hint::black_box, sync::Arc, time::Instant};

const NOW: i64 = 1_795_500_000_000_000;
const MINUTE: i64 = 60_000_000;

fn at(minutes: i64) -> Timestamp {
    Timestamp::from_micros(NOW + minutes * MINUTE)
}

fn engine() -> Engine {
    let file = |name: &str, text: &str| (name.to_owned(), text.as_bytes().to_vec());
    let routes = "routes: [{match: {host: h, path: \"/\"}, action: a, resource: {type: A, id: \"1\"}, tier: runtime, \
        sensitivity: low}]\ndefault: deny\n";
    let files = [
        file("routes.yaml", routes),
        file("signals.yaml", "signals: {}\n"),
        file("entities.cedarschema", "entity Workload; entity A;"),
        file("entities.json", "[]"),
        file("policies/all.cedar", "permit(principal, action, resource);"),
    ];
    let engine = Engine::new(Options {
        ring: Ring::in_memory(8, usize::MAX, Rendering { influence: InfluenceMode::None, digest_key: vec![0; 32] }),
        fold_denials: false,
        seed: 7,
        max_live: 100,
    });
    engine.swap(Arc::new(Snapshot::load(&files, &CoreSettings::of("t"), at(0)).unwrap()));
    engine
}

/// Half of them live, a quarter completed, a quarter over: remembered for a day.
fn task(nth: usize) -> Vec<u8> {
    let ends = if nth % 4 == 3 { -1 } else { 55 };
    json!({
        "v": 1, "change": "task_begun", "id": format!("t{nth}"), "root": format!("t{nth}"), "parent": null, "depth": 0,
        "principal": format!("spiffe://t/p{}", nth % 50), "created_by": "spiffe://t/o", "type": "t", "workflow": null,
        "actions": ["a"], "resources": ["A::*"], "systems": [], "sensitivity": "low", "environment": null,
        "begun_at_us": at(-5).as_micros() + i64::try_from(nth).unwrap(), "expires_at_us": at(ends).as_micros(),
        "idle_us": null, "certificate_sha256": null, "grant_sha256": format!("{nth:064x}"),
    })
    .to_string()
    .into_bytes()
}

fn question(nth: usize) -> Change {
    let payload = json!({
        "v": 1, "change": "approval_asked", "id": format!("q{nth}"), "binding": format!("{nth:064x}"),
        "requester": format!("spiffe://t/p{}", nth % 50), "actor": null, "task": null, "action": "a", "resource": "A::\"1\"",
        "method": "POST", "host": "h", "path": "/", "body_sha256": "00".repeat(32), "args": {}, "words": [], "policies": [],
        "asked_at_us": at(-1).as_micros() + i64::try_from(nth).unwrap(), "expires_at_us": at(14).as_micros(), "need": 1,
    });
    Change::from_payload(payload.to_string().as_bytes()).unwrap()
}

fn main() {
    let args: Vec<usize> = std::env::args().skip(1).map(|a| a.parse().unwrap()).collect();
    let [few, many, calls] = args.as_slice() else {
        eprintln!("usage: held_cost FEW MANY CALLS");
        std::process::exit(2);
    };
    let (small, large) = (measured(*few, *calls), measured(*many, *calls));
    for ((name, few_us), (_, many_us)) in small.iter().zip(&large) {
        println!("{name:>24}: {few_us:>9.2} us with {few}, {many_us:>9.2} us with {many}: x{:.2}", many_us / few_us);
    }
}

fn measured(held: usize, calls: usize) -> Vec<(&'static str, f64)> {
    let engine = engine();
    for nth in 0..held {
        engine.apply(&[task(nth)], at(0)).unwrap();
        if nth % 4 == 2 {
            let ended = json!({"v": 1, "change": "task_ended", "id": format!("t{nth}"), "how": "completed", "at_us": 1, "by": "b"});
            engine.apply(&[ended.to_string().into_bytes()], at(0)).unwrap();
        }
    }
    let approvals = Approvals::default();
    // As many as are ever held at once.
    let questions = held.min(signalwarden_core::limits::MAX_APPROVALS - 1);
    for nth in 0..questions {
        approvals.apply(&question(nth));
    }
    // The first sweep sorts out what is over.
    let wanted = Wanted { id: None, principal: None, ended: false, most: 100 };
    engine.expired(1_000, at(0));
    let time = |call: &dyn Fn()| {
        let mut best = f64::MAX;
        for _ in 0..5 {
            let started = Instant::now();
            (0..calls).for_each(|_| call());
            best = best.min(started.elapsed().as_secs_f64() * 1e6);
        }
        best / f64::from(u32::try_from(calls).unwrap())
    };
    let ask = || {
        let Change::ApprovalAsked(question) = question(questions) else { return };
        let id = question.id.clone();
        black_box(approvals.ask(*question, 20, at(0)));
        approvals.unask(&id);
    };
    vec![
        ("a sweep of nothing", time(&|| drop(black_box(engine.expired(1_000, at(0)))))),
        ("a list of 100 tasks", time(&|| drop(black_box(engine.list_tasks(&wanted, at(0)))))),
        (
            "one task by its id",
            time(&|| drop(black_box(engine.list_tasks(&Wanted { id: Some("t0"), ..wanted }, at(0))))),
        ),
        ("a sweep of no question", time(&|| drop(black_box(approvals.expired(1_000, at(0)))))),
        ("one more question", time(&ask)),
    ]
}
