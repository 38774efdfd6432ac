//! What one decision by a policy in Rego costs: the policy, the inputs for others to decide alike, and the time of ours.
//!
//! `rego_cost files RULES FOLDER` writes `policy.rego` and `inputs.json`; `rego_cost time RULES CHECKS ROUNDS` prints the answers and
//! the nanoseconds a check of each round, as JSON. A check is the whole of it: decode, route, identify, gather 12 signals,
//! evaluate, decide, accept a record, encode. `bench/rego_cost.py` runs it beside OPA.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    reason = "a measuring tool"
)]

use signalwarden_core::{
    change::Change,
    engine::{Engine, Options},
    identity::Validated,
    model::{HeaderEntry, Headers, Origin, Peer, Request, Timestamp},
    record::{
        InfluenceMode, Rendering,
        ring::{Ring, Room},
    },
    snapshot::{CoreSettings, Snapshot},
    wire,
};
use std::{fmt::Write as _, fs, path::Path, sync::Arc, time::Duration, time::Instant};

const SIGNALS: usize = 12;
/// Rules of one action: one that grants, the others deny.
const IN_ACTION: usize = 10;
const PUBLISHER: &str = "spiffe://prod.example/ns/signals/sa/publisher";
const NOW: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);
/// What is asked: the signal that is low, if one is, and the action.
const ASKED: [(Option<usize>, usize); 5] = [(None, 0), (Some(0), 0), (Some(3), 0), (None, 0), (Some(11), 0)];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["files", rules, folder] => files(rules.parse().unwrap(), Path::new(folder)),
        ["time", rules, checks, rounds] => {
            time(rules.parse().unwrap(), checks.parse().unwrap(), rounds.parse().unwrap());
        }
        _ => {
            eprintln!("usage: rego_cost files RULES FOLDER | rego_cost time RULES CHECKS ROUNDS");
            std::process::exit(2);
        }
    }
}

fn policy(rules: usize) -> String {
    let mut text = String::from("package authz\n\ndefault allow := false\n\nallow if {\n\tgranted\n\tnot denied\n}\n");
    for nth in 0..rules {
        let (action, place) = (nth / IN_ACTION, nth % IN_ACTION);
        let _ = match place {
            0 => writeln!(
                text,
                "\ngranted if {{\n\tinput.action == \"act.n{action}\"\n\tinput.signals.s0 >= 3\n\tinput.signals.s1 >= 3\n}}"
            ),
            _ => writeln!(
                text,
                "\ndenied if {{\n\tinput.action == \"act.n{action}\"\n\tinput.signals.s{} < 1\n}}",
                place + 2
            ),
        };
    }
    text
}

fn agent(nth: usize) -> String {
    format!("spiffe://prod.example/ns/agents/sa/agent-{nth}")
}

fn value(nth: usize, low: Option<usize>) -> i64 {
    if low == Some(nth) { 0 } else { 4 }
}

/// The documents that our own policies see, for somebody else to decide.
fn files(rules: usize, folder: &Path) {
    let inputs: Vec<serde_json::Value> = ASKED
        .iter()
        .enumerate()
        .map(|(nth, (low, action))| {
            let signals: serde_json::Map<_, _> =
                (0..SIGNALS).map(|signal| (format!("s{signal}"), value(signal, *low).into())).collect();
            serde_json::json!({
                "request": {"method": "POST", "path": format!("/v1/a{action}/42"), "host": "payments.prod.example", "args": {}},
                "action": format!("act.n{action}"),
                "resource": {"type": "Account", "id": "42"},
                "identity": {
                    "id": agent(nth), "kind": "x509", "trust_domain": "prod.example", "bound": true,
                    "interactive": false, "legacy": false,
                },
                "signals": signals,
            })
        })
        .collect();
    fs::write(folder.join("policy.rego"), policy(rules)).unwrap();
    fs::write(folder.join("inputs.json"), serde_json::to_vec(&inputs).unwrap()).unwrap();
}

fn time(rules: usize, checks: usize, rounds: usize) {
    let rendering = Rendering { influence: InfluenceMode::None, digest_key: vec![0; 32] };
    let room = Room {
        capacity: checks + ASKED.len() + 1,
        max_bytes: usize::MAX,
        region: None,
        syncing: None,
        patience: Duration::ZERO,
    };
    let engine = Engine::new(Options {
        ring: Ring::open(room, rendering).unwrap(),
        fold_denials: false,
        seed: 7,
        max_live: signalwarden_core::limits::MAX_LIVE_SIGNALS,
    });
    engine.swap(Arc::new(snapshot(rules)));
    let asked: Vec<Vec<u8>> = ASKED
        .iter()
        .enumerate()
        .map(|(nth, (low, action))| {
            publish(&engine, &agent(nth), *low);
            wire::encode_request(&request(nth, *action))
        })
        .collect();
    let ask = |bytes: &[u8]| engine.check(bytes, &Validated::default(), NOW, [0; 10], &|| 0);
    let answers: Vec<bool> = asked
        .iter()
        .map(|bytes| {
            let _ = ask(bytes).answer().unwrap();
            let (record, drained) = engine.drain(1);
            engine.settle(drained);
            let record = String::from_utf8_lossy(&record).into_owned();
            assert!(
                record.contains("\"reason\":\"allowed\"") || record.contains("\"reason\":\"no_policy_permits\""),
                "{record}"
            );
            record.contains("\"outcome\":\"allow\"")
        })
        .collect();
    let times: Vec<u64> = (0..rounds)
        .map(|_| {
            let started = Instant::now();
            for bytes in asked.iter().cycle().take(checks) {
                std::hint::black_box(ask(std::hint::black_box(bytes)));
            }
            let nanos = started.elapsed().as_nanos() as u64 / checks as u64;
            let (_, drained) = engine.drain(checks + 1);
            engine.settle(drained);
            nanos
        })
        .collect();
    println!("{}", serde_json::json!({"answers": answers, "ns": times}));
}

fn snapshot(rules: usize) -> Snapshot {
    let actions = rules.div_ceil(IN_ACTION).max(1);
    let mut routes = String::from("routes:\n");
    for action in 0..actions {
        let _ = writeln!(
            routes,
            "  - {{match: {{host: \"*\", method: POST, path: \"/v1/a{action}/{{account}}\"}}, action: act.n{action}, \
             resource: {{type: Account, id: \"{{account}}\"}}, tier: runtime, sensitivity: medium}}"
        );
    }
    routes.push_str("default: deny\n");
    let used_by: Vec<String> = (0..actions).map(|action| format!("act.n{action}")).collect();
    let mut signals = String::from("signals:\n");
    for nth in 0..SIGNALS {
        let _ = writeln!(
            signals,
            "  s{nth}: {{type: long, description: d, owner: o@x, purpose: p, subject: principal, max_age: 5m, influence: grant, \
             used_by: [{}], review_by: 2099-01-01, sources: [{{kind: push, publisher: \"{PUBLISHER}\", assurance: authoritative}}]}}",
            used_by.join(", ")
        );
    }
    let file = |name: &str, text: String| (name.to_owned(), text.into_bytes());
    let files = [
        file("routes.yaml", routes),
        file("signals.yaml", signals),
        file("entities.cedarschema", "entity Workload; entity Account;".to_owned()),
        file("entities.json", "[]".to_owned()),
        file("policies/authz.rego", policy(rules)),
    ];
    Snapshot::load(&files, &CoreSettings::of("prod.example"), NOW).unwrap()
}

fn publish(engine: &Engine, subject: &str, low: Option<usize>) {
    let items: Vec<String> = (0..SIGNALS)
        .map(|nth| {
            let value = value(nth, low);
            format!(r#"{{"name":"s{nth}","subject":"{subject}","value":{value},"observed_at":"{NOW}"}}"#)
        })
        .collect();
    let body = format!(r#"{{"signals":[{}]}}"#, items.join(","));
    let admission = engine.admit(body.as_bytes(), &Origin::parse(PUBLISHER).unwrap(), NOW).unwrap();
    let payloads: Vec<_> = admission.changes.iter().map(Change::to_payload).collect();
    engine.apply(&payloads, NOW).unwrap();
}

fn request(nth: usize, action: usize) -> Request {
    let header = |name: &str, value: &str| HeaderEntry { name: name.into(), value: value.into(), is_utf8: true };
    let path = format!("/v1/a{action}/42");
    Request {
        method: "POST".into(),
        path: path.as_str().into(),
        host: "payments.prod.example".into(),
        scheme: "https".into(),
        protocol: "HTTP/2".into(),
        headers: Headers::new(vec![
            header(":method", "POST"),
            header(":path", &path),
            header(":authority", "payments.prod.example"),
            header(":scheme", "https"),
        ]),
        source: Peer { principal: agent(nth).as_str().into(), address: "10.1.2.3:41234".into(), ..Peer::default() },
        destination: Peer {
            address: "10.1.2.4:8443".into(),
            principal: "spiffe://prod.example/payments".into(),
            ..Peer::default()
        },
        ..Request::default()
    }
}
