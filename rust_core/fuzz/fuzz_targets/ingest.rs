//! Any bytes as what arrives from publishers and feeds, and as what a restart reads back: a message of Signals/Publish,
//! the body of a batch, a kept change. Nothing panics, and what is taken survives its written form.
#![no_main]

use libfuzzer_sys::fuzz_target;
use signalwarden_core::change::Change;
use signalwarden_core::findings::Findings;
use signalwarden_core::model::{Origin, Timestamp};
use signalwarden_core::route::Routes;
use signalwarden_core::signals::{Register, Store, judge_batch};
use signalwarden_core::wire;
use std::sync::LazyLock;

/// 2026-11-24T10:00:00Z: the core never reads a clock.
const NOW: Timestamp = Timestamp::from_micros(1_795_514_400_000_000);

const ROUTES: &str = r#"
routes:
  - {match: {host: a, path: /}, action: act, resource: {type: A, id: "1"}, tier: runtime, sensitivity: low}
default: deny
"#;
const SIGNALS: &str = r#"
feeds: {idp: {kind: ssf, issuer: i, audience: a, keys: {file: f}, delivery: push}}
signals:
  a: {type: long, description: d, owner: o@x, purpose: p, subject: principal, max_age: 5m, influence: grant, used_by: [act], review_by: 2099-01-01, sources: [{kind: push, publisher: "spiffe://t/p", assurance: sourced}]}
  b: {type: set, description: d, owner: o@x, purpose: p, subject: resource, max_age: 5m, influence: grant, used_by: [act], review_by: 2099-01-01, sources: [{kind: push, publisher: "spiffe://t/p", assurance: sourced}]}
  c: {type: decimal, description: d, owner: o@x, purpose: p, subject: device, max_age: 5m, influence: grant, used_by: [act], review_by: 2099-01-01, sources: [{kind: ssf, feed: idp, assurance: sourced, events: {session-revoked: {value: "1.0"}}}]}
"#;

static REGISTER: LazyLock<Register> = LazyLock::new(|| {
    let mut findings = Findings::default();
    let routes = Routes::load("routes.yaml", ROUTES, &mut findings);
    let register = Register::load("signals.yaml", SIGNALS, routes.actions(), NOW, &mut findings);
    assert!(!findings.has_errors(), "{findings:?}");
    register
});

fn judge(body: &[u8], origin: &str) {
    let origin = Origin::parse(origin).expect("an origin");
    let store = Store::with_capacity(7, 8);
    let Ok(admission) = judge_batch(body, &origin, &REGISTER, &store, NOW) else { return };
    for change in &admission.changes {
        assert_eq!(Change::from_payload(&change.to_payload()).ok().as_ref(), Some(change));
        store.apply(change);
    }
    wire::publish_answer(&admission.answer_json()).expect("an answer of ours");
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(body) = wire::publish_to_json(bytes) {
        judge(&body, "spiffe://t/p");
    }
    judge(bytes, "spiffe://t/p");
    judge(bytes, "ssf:idp");
    if let Ok(change) = Change::from_payload(bytes) {
        assert_eq!(Change::from_payload(&change.to_payload()).ok(), Some(change));
    }
});
