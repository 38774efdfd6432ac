//! Time that runs back by hours, over a restart or while the core runs, ends all that was given out before (I6).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod stage;

use serde_json::json;
use signalwarden_core::{
    approvals::WantedApprovals,
    change::{Change, StandingLost},
    engine::Engine,
    model::{SpiffeId, Timestamp},
    record::InfluenceMode,
    tasks::Wanted,
};
use std::sync::Arc;

const MINUTE: i64 = 60_000_000;
const START: i64 = 1_795_500_000_000_000;
const ROUTES: &str = r#"routes: [{match: {host: h, path: "/"}, action: page.read, resource: {type: Page, id: "1"}, tier: runtime,
    sensitivity: low}]
default: deny
"#;
const AGENT: &str = "spiffe://t/agent";

fn at(minutes: i64) -> Timestamp {
    Timestamp::from_micros(START + minutes * MINUTE)
}

fn engine() -> Engine {
    let signals = r#"signals: {posture: {type: string, subject: principal, max_age: 1h, influence: grant, used_by:
        [page.read], sources: [{kind: push, publisher: "spiffe://t/mdm", assurance: sourced}], description: d, owner: o@x,
        purpose: p, review_by: 2099-01-01}}"#;
    let schema = "entity Workload; entity Page;";
    let policies = "permit(principal, action, resource);";
    let texts = stage::Texts { routes: ROUTES, signals, schema, policies };
    let snapshot = stage::load(&texts, "t", at(0)).unwrap_or_else(|error| panic!("{error}"));
    stage::engine(Arc::new(snapshot), 100, InfluenceMode::None)
}

fn task(id: &str, begun: i64, ends: i64) -> Vec<u8> {
    json!({
        "v": 1, "change": "task_begun", "id": id, "root": id, "parent": null, "depth": 0, "principal": AGENT,
        "created_by": AGENT, "type": "t", "workflow": null, "actions": ["page.read"], "resources": ["Page::*"],
        "systems": [], "sensitivity": "low", "environment": null, "begun_at_us": at(begun).as_micros(),
        "expires_at_us": at(ends).as_micros(), "idle_us": null, "certificate_sha256": null,
        "grant_sha256": format!("{:064x}", u128::from_str_radix(id, 36).unwrap()),
    })
    .to_string()
    .into_bytes()
}

fn question(id: &str, asked: i64, ends: i64) -> Vec<u8> {
    json!({
        "v": 1, "change": "approval_asked", "id": id, "binding": "00".repeat(32), "requester": AGENT, "actor": null,
        "task": null, "action": "page.send", "resource": "Page::\"1\"", "method": "POST", "host": "h", "path": "/p/1",
        "body_sha256": "00".repeat(32), "args": {}, "words": [], "policies": [], "asked_at_us": at(asked).as_micros(),
        "expires_at_us": at(ends).as_micros(), "need": 1,
    })
    .to_string()
    .into_bytes()
}

fn word(said: i64, ends: i64) -> Vec<u8> {
    json!({
        "v": 1, "change": "signal_overridden", "name": "posture", "subject_kind": "principal", "subject": AGENT,
        "type": "string", "value": "good", "reason": "r", "by": ["spiffe://t/a", "spiffe://t/b"],
        "at_us": at(said).as_micros(), "expires_at_us": at(ends).as_micros(),
    })
    .to_string()
    .into_bytes()
}

fn mark(minutes: i64) -> Vec<u8> {
    Change::TimeMark { at: at(minutes) }.to_payload()
}

fn payloads(changes: &[Change]) -> Vec<Vec<u8>> {
    changes.iter().map(Change::to_payload).collect()
}

/// States of the tasks by id and of the questions, and how many overrides count.
fn seen(engine: &Engine, minutes: i64) -> (Vec<(String, String)>, Vec<String>, usize) {
    let now = at(minutes);
    let tasks = engine.list_tasks(&Wanted { ended: true, most: 10, ..Wanted::default() }, now);
    let text = |json: &serde_json::Value| json.as_str().unwrap().to_owned();
    let mut tasks: Vec<_> =
        tasks["tasks"].as_array().unwrap().iter().map(|task| (text(&task["task_id"]), text(&task["state"]))).collect();
    tasks.sort();
    let questions = engine.list_approvals(&WantedApprovals { most: 10, ..WantedApprovals::default() }, now);
    let questions = questions["approvals"].as_array().unwrap().iter().map(|one| text(&one["state"])).collect();
    (tasks, questions, engine.overrides(now)["overrides"].as_array().unwrap().len())
}

fn states(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(id, state)| ((*id).to_owned(), (*state).to_owned())).collect()
}

#[test]
fn a_restart_under_a_clock_set_back_by_hours_ends_what_was_given_out_before_and_nothing_after() {
    // One task spans all of it, one had ended, one began and ends beyond the clock that is set back.
    let kept =
        [task("a", -300, 900), task("b", -10, -5), task("c", -1, 4), question("d", -1, 14), word(-1, 59), mark(0)];
    let engine = engine();
    engine.apply(&kept, at(-240)).unwrap();
    let changes = engine.set_back(at(-240), 0);
    assert_eq!(changes, [Change::TimeSetBack { from: at(0), at: at(-180) }, Change::TimeMark { at: at(-180) }]);
    engine.apply(&payloads(&changes), at(-240)).unwrap();
    let ended = states(&[("a", "expired"), ("b", "expired"), ("c", "expired")]);
    assert_eq!(seen(&engine, -240), (ended, vec!["expired".to_owned()], 0));
    assert_eq!(engine.set_back(at(-240), 0), [], "it is told once");
    engine.apply(&[task("n", -180, -175)], at(-240)).unwrap();
    assert_eq!(seen(&engine, -240).0[3], ("n".to_owned(), "live".to_owned()));

    // The stream as it was kept, in order, read back under any clock.
    let mut all = kept[..5].to_vec();
    all.push(changes[0].to_payload());
    all.push(task("n", -180, -175));
    all.push(mark(-180));
    for (clock, new) in [(-240, "live"), (-176, "live"), (10, "expired"), (-500, "live")] {
        let after = self::engine();
        after.apply(&all, at(clock)).unwrap();
        let (tasks, questions, overrides) = seen(&after, clock);
        let expected = states(&[("a", "expired"), ("b", "expired"), ("c", "expired"), ("n", new)]);
        let further = after.set_back(at(clock), 0);
        assert_eq!(further.is_empty(), clock != -500, "set back once more");
        if clock != -500 {
            assert_eq!((tasks, questions, overrides), (expected, vec!["expired".to_owned()], 0), "{clock}");
        }
        after.apply(&payloads(&further), at(clock)).unwrap();
        let (tasks, ..) = seen(&after, clock);
        assert!(tasks.iter().all(|(id, state)| state == "expired" || (id == "n" && clock != -500)), "{tasks:?}");
    }
}

#[test]
fn a_clock_set_back_by_less_than_the_mark_bridges_ends_nothing() {
    let engine = engine();
    engine.apply(&[task("a", -300, 900), mark(0)], at(-59)).unwrap();
    assert_eq!(engine.set_back(at(-59), 0), []);
    assert_eq!(seen(&engine, -59).0, states(&[("a", "live")]));
}

#[test]
fn a_set_back_is_forgotten_once_time_has_passed_what_it_ended() {
    let engine = engine();
    engine.apply(&[task("a", -300, 900), mark(0)], at(-240)).unwrap();
    let changes = engine.set_back(at(-240), 0);
    engine.apply(&payloads(&changes), at(-240)).unwrap();
    let key = changes[0].key();
    assert!(!engine.expired(10, at(899)).contains(&key), "a reading of the clock is not the mark");
    engine.apply(&[mark(899)], at(899)).unwrap();
    assert!(!engine.expired(10, at(899)).contains(&key));
    engine.apply(&[mark(900)], at(900)).unwrap();
    assert!(engine.expired(10, at(900)).contains(&key));
    engine.forget(std::slice::from_ref(&key));
    assert!(!engine.expired(10, at(900)).contains(&key));
}

#[test]
fn a_loss_of_standing_ahead_of_the_clock_locks_nobody_out_who_begins_anew() {
    let principal = SpiffeId::parse(AGENT).unwrap();
    let lost = Change::StandingLost(StandingLost { principal, at: at(-1), why: "r".into() }).to_payload();
    let engine = engine();
    engine.apply(&[task("a", -2, 900), lost, mark(0)], at(-240)).unwrap();
    engine.apply(&payloads(&engine.set_back(at(-240), 0)), at(-240)).unwrap();
    engine.apply(&[task("n", -180, -175)], at(-240)).unwrap();
    assert_eq!(seen(&engine, -240).0, states(&[("a", "expired"), ("n", "live")]));
}
