//! I4 where a decision is held: what can't be kept denies, and what the log refuses gives its yes back.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod stage;

use signalwarden_core::{
    change::Change,
    check::Checked,
    engine::{Asking, Engine, Look},
    identity::Validated,
    model::{Body, Peer, Request, SpiffeId, Timestamp},
    record::InfluenceMode,
    wire,
};
use std::sync::Arc;

const NOW: Timestamp = Timestamp::from_micros(1_795_500_000_000_000);
const ROUTES: &str = "routes:
  - {match: {host: h, method: POST, path: \"/p/{id}\"}, action: page.send, resource: {type: Page, id: \"{id}\"},
     tier: approval, sensitivity: high}
  - {match: {host: h, method: GET, path: \"/p/{id}\"}, action: page.read, resource: {type: Page, id: \"{id}\"},
     tier: coarse, sensitivity: low}
default: deny
";
const POLICIES: &str = r#"permit(principal, action, resource);
permit(principal, action == Action::"approval.give", resource);"#;

/// A core whose log holds two records.
fn engine() -> Engine {
    let schema = "entity Workload; entity Page;";
    let texts = stage::Texts { routes: ROUTES, signals: "signals: {}\n", schema, policies: POLICIES };
    let snapshot = stage::load(&texts, "t", NOW).unwrap_or_else(|error| panic!("{error}"));
    stage::engine(Arc::new(snapshot), 2, InfluenceMode::None)
}

fn look(engine: &Engine, method: &str, id: u8) -> Look {
    let request = Request {
        method: method.into(),
        path: "/p/1".into(),
        host: "h".into(),
        source: Peer { principal: "spiffe://t/agent".into(), ..Peer::default() },
        body: Body::Forwarded { bytes: b"{}".to_vec(), truncated: false },
        ..Request::default()
    };
    engine.check(&wire::encode_request(&request), &Validated::default(), NOW, [id; 10], &|| 0)
}

fn held(engine: &Engine, id: u8) -> Checked {
    match look(engine, "POST", id) {
        Look::Held(held) => *held,
        other => panic!("{other:?}"),
    }
}

fn keep(engine: &Engine, changes: &[Change]) {
    let payloads: Vec<_> = changes.iter().map(Change::to_payload).collect();
    engine.apply(&payloads, NOW).unwrap();
}

fn reasons(engine: &Engine) -> Vec<String> {
    let (lines, _) = engine.drain(10);
    let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_slice::<serde_json::Value>(line).unwrap()["reason"].as_str().unwrap().to_owned())
        .collect()
}

/// A core in which the call was asked about, and somebody has said yes.
fn approved() -> Engine {
    let engine = engine();
    let asked = held(&engine, 1);
    let question = asked.keeping().question.clone().unwrap();
    keep(&engine, &asked.keeping().changes);
    assert!(engine.finish(asked, true).1.is_none());
    let client = SpiffeId::parse("spiffe://t/anna").unwrap();
    let asking = Asking { client: &client, certificate: None, now: NOW, random: [9; 10], ticks: &|| 0 };
    keep(&engine, &[engine.answer_approval(question.as_str(), true, "", &asking).unwrap().change]);
    assert_eq!(reasons(&engine), ["approval_required", "allowed"]);
    engine
}

fn use_it(engine: &Engine, id: u8) -> (Checked, Vec<Change>) {
    let used = held(engine, id);
    let changes = used.keeping().changes.clone();
    keep(engine, &changes);
    (used, changes)
}

#[test]
fn a_yes_is_used_once_and_only_with_its_record() {
    let engine = approved();
    let (used, _) = use_it(&engine, 2);
    assert!(engine.finish(used, true).1.is_none());
    assert_eq!(reasons(&engine), ["allowed"]);
    let again = held(&engine, 3);
    assert!(again.keeping().question.is_some(), "the same call is a new question");
}

#[test]
fn a_yes_whose_decision_the_log_refuses_is_given_back() {
    let engine = approved();
    let (used, _) = use_it(&engine, 2);
    for id in 3..5 {
        assert!(matches!(look(&engine, "GET", id), Look::Answer(_)));
    }
    let (answer, undo) = engine.finish(used, true);
    assert!(String::from_utf8_lossy(&answer).contains("log_unavailable"));
    keep(&engine, &[undo.unwrap()]);
    assert_eq!(reasons(&engine), ["allowed", "allowed"]);
    let (used, _) = use_it(&engine, 6);
    engine.finish(used, true);
    assert_eq!(reasons(&engine), ["allowed"]);
}

#[test]
fn a_claim_or_a_question_that_can_not_be_kept_denies_and_leaves_nothing_behind() {
    let engine = engine();
    let asked = held(&engine, 1);
    let (answer, undo) = engine.finish(asked, false);
    assert!(String::from_utf8_lossy(&answer).contains("log_unavailable") && undo.is_none());
    assert_eq!(reasons(&engine), ["log_unavailable"], "the refusal itself is on record");
    assert!(held(&engine, 2).keeping().question.is_some());

    let engine = approved();
    let (answer, undo) = engine.finish(held(&engine, 3), false);
    assert!(String::from_utf8_lossy(&answer).contains("log_unavailable") && undo.is_none());
    reasons(&engine);
    let (used, _) = use_it(&engine, 4);
    engine.finish(used, true);
    assert_eq!(reasons(&engine), ["allowed"], "the yes was not lost");
}
