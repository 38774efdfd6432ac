//! Any bytes as lines of a decision log that are decided again and explained, and as changes. Nothing panics, and there is
//! one answer for each line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use signalwarden_core::model::Timestamp;
use signalwarden_core::replay::Replay;
use signalwarden_core::snapshot::{CoreSettings, Snapshot};
use std::sync::{Arc, LazyLock};

/// 2026-11-24T10:00:00Z: the core never reads a clock.
const NOW: Timestamp = Timestamp::from_micros(1_795_514_400_000_000);

const ROUTES: &str = r#"
routes:
  - {match: {host: "*", method: POST, path: "/a/{id}"}, action: act, resource: {type: A, id: "{id}"}, args: {query: {n: "long?"}}, tier: runtime, sensitivity: low}
  - {match: {host: "*", method: PUT, path: "/a/{id}"}, action: put, resource: {type: A, id: "{id}"}, tier: jit, sensitivity: low}
  - {match: {host: "*", method: POST, path: /mcp, mcp: {method: tools/call, tool: t}}, action: tool, resource: {type: A, id: x}, tier: approval, sensitivity: low}
default: deny
"#;
const SIGNALS: &str = r#"
signals:
  n: {type: long, description: d, owner: o@x, purpose: p, subject: principal, max_age: 5m, influence: grant, used_by: [act, put, tool], review_by: 2099-01-01, sources: [{kind: push, publisher: "spiffe://t/p", assurance: authoritative}]}
  s: {type: set, description: d, owner: o@x, purpose: p, subject: resource, max_age: 5m, influence: restrict, used_by: [act, put, tool], review_by: 2099-01-01, sources: [{kind: push, publisher: "spiffe://t/p", assurance: authoritative}]}
  w: {type: string, description: d, owner: o@x, purpose: p, subject: request, influence: restrict, used_by: [act, put, tool], review_by: 2099-01-01, sources: [{kind: header, header: x-w, assurance: self_asserted}]}
"#;
const POLICIES: &str = r#"
permit (principal, action, resource) when { context.signals has n && context.signals.n >= 3 };
forbid (principal, action, resource) when { context.signals has s && context.signals.s.contains("bad") };
forbid (principal, action, resource) when { context.signals has w && context.signals.w == "x" };
permit (principal, action == Action::"task.begin", resource) when { context.request.actions.contains("put") };
"#;

static REPLAY: LazyLock<Replay> = LazyLock::new(|| {
    let file = |name: &str, text: &str| (name.to_owned(), text.as_bytes().to_vec());
    let files = [
        file("routes.yaml", ROUTES),
        file("signals.yaml", SIGNALS),
        file("entities.cedarschema", "entity Workload; entity A;"),
        file("entities.json", "[]"),
        file("policies/p.cedar", POLICIES),
    ];
    let snapshot = Snapshot::load(&files, &CoreSettings::of("t"), NOW);
    Replay::new(Arc::new(snapshot.unwrap_or_else(|error| panic!("{error}"))))
});

fn count(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

fuzz_target!(|bytes: &[u8]| {
    let said = REPLAY.decide(bytes, b"[]").expect("no change");
    let lines = count(bytes) + usize::from(!bytes.is_empty() && !bytes.ends_with(b"\n"));
    assert_eq!(count(&said), lines);
    let explained = REPLAY.explain(bytes);
    for said in [said, explained] {
        assert!(!String::from_utf8(said).expect("json").contains("the engine panicked"));
    }
    if let Ok(said) = REPLAY.decide(bytes, bytes) {
        assert_eq!(count(&said), lines);
    }
});
