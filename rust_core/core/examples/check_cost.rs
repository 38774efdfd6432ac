//! What one `Engine.check` costs: time a check, or a fixed number of checks for callgrind.
//!
//! `cargo run --release --example check_cost -- POLICIES LIVE_SIGNALS CHECKS [ROUNDS [RING_MIB [ENTITIES]]]` prints
//! nanoseconds a check, the best and the median of the rounds. With `RING_MIB` (not 0) records are accepted as a server's are,
//! as lines in a ring of that size; without it as they stand in memory. The request is answered by a slice of 10 policies and
//! 12 signals, however many policies there are; its record is accepted by the log. With `ENTITIES` there are so many workloads
//! in teams within teams, and one more policy for each action that asks for the caller's attributes and groups.
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
        frames::Region,
        ring::{Ring, Room},
    },
    snapshot::{CoreSettings, Snapshot},
    wire,
};
use std::{
    fmt::Write as _,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

const SIGNALS: usize = 12;
const IN_SLICE: usize = 10;
const AGENT: &str = "spiffe://prod.example/ns/agents/sa/refund-agent";
const PUBLISHER: &str = "spiffe://prod.example/ns/signals/sa/publisher";
const NOW: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);

fn main() {
    let args: Vec<usize> = std::env::args().skip(1).map(|a| a.parse().unwrap()).collect();
    let [policies, live, checks, rest @ ..] = args.as_slice() else {
        eprintln!("usage: check_cost POLICIES LIVE_SIGNALS CHECKS [ROUNDS [RING_MIB [ENTITIES]]]");
        std::process::exit(2);
    };
    let rounds = rest.first().copied().unwrap_or(1);
    let rendering = Rendering { influence: InfluenceMode::None, digest_key: vec![0; 32] };
    let words = rest
        .get(1)
        .filter(|mib| **mib > 0)
        .map(|mib| (0..mib * 1024 * 1024 / 8).map(|_| AtomicU64::new(0)).collect::<Vec<_>>());
    let room = Room {
        capacity: checks + 1,
        max_bytes: usize::MAX,
        region: words.map(|words| Box::new(words) as Box<dyn Region>),
        syncing: None,
        patience: Duration::ZERO,
    };
    let engine = Engine::new(Options {
        ring: Ring::open(room, rendering).unwrap(),
        fold_denials: false,
        seed: 7,
        max_live: signalwarden_core::limits::MAX_LIVE_SIGNALS,
    });
    let entities = rest.get(2).copied().unwrap_or(0);
    let files = files(*policies, entities);
    let loading = Instant::now();
    let snapshot = Snapshot::load(&files, &CoreSettings::of("prod.example"), NOW).unwrap();
    println!("loaded {policies} policies and {entities} entities in {} ms", loading.elapsed().as_millis());
    drop(files);
    engine.swap(Arc::new(snapshot));
    publish(&engine, AGENT);
    for nth in 0..live / SIGNALS {
        publish(&engine, &format!("spiffe://prod.example/ns/other/sa/workload-{nth}"));
    }
    let bytes = wire::encode_request(&request());
    let answer = engine.check(&bytes, &Validated::default(), NOW, [0; 10], &|| 0).answer().unwrap();
    let record = engine.drain(1).0;
    engine.settle(1);
    assert!(String::from_utf8_lossy(&record).contains("\"reason\":\"allowed\""), "{answer:?}");
    println!("a record of {} bytes", record.len());
    let mut times: Vec<u128> = (0..rounds)
        .map(|_| {
            let started = Instant::now();
            for _ in 0..*checks {
                std::hint::black_box(engine.check(
                    std::hint::black_box(&bytes),
                    &Validated::default(),
                    NOW,
                    [0; 10],
                    &|| 0,
                ));
            }
            let nanos = started.elapsed().as_nanos() / *checks as u128;
            let (_, drained) = engine.drain(checks + 1);
            engine.settle(drained);
            nanos
        })
        .collect();
    times.sort_unstable();
    println!(
        "{policies} policies, {live} live signals, {} byte request: best {} ns, median {} ns a check",
        bytes.len(),
        times.first().unwrap(),
        times.get(times.len() / 2).unwrap()
    );
}

fn files(policies: usize, entities: usize) -> Vec<(String, Vec<u8>)> {
    let actions = policies.div_ceil(IN_SLICE).max(1);
    let (mut routes, mut text) = (String::from("routes:\n"), String::new());
    for action in 0..actions {
        let _ = writeln!(
            routes,
            "  - {{match: {{host: \"*\", method: POST, path: \"/v1/a{action}/{{account}}\"}}, action: act.n{action}, \
             resource: {{type: Account, id: \"{{account}}\"}}, tier: runtime, sensitivity: medium}}"
        );
    }
    for nth in 0..policies {
        let (action, place) = (nth / IN_SLICE, nth % IN_SLICE);
        let scope = format!("principal, action == Action::\"act.n{action}\", resource");
        let _ = match place {
            0 => writeln!(
                text,
                "permit({scope}) when {{ context.signals has s0 && context.signals.s0 >= 3 && context.signals has s1 && context.signals.s1 >= 3 }};"
            ),
            _ => writeln!(
                text,
                "forbid({scope}) when {{ context.signals has s{p} && context.signals.s{p} < 1 }};",
                p = place + 2
            ),
        };
    }
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
    routes.push_str("default: deny\n");
    if entities > 0 {
        for action in 0..actions {
            let _ = writeln!(
                text,
                "forbid(principal in Team::\"blocked\", action == Action::\"act.n{action}\", resource) when {{ principal.owner == \"nobody\" }};"
            );
        }
    }
    let file = |name: &str, text: String| (name.to_owned(), text.into_bytes());
    let files = [
        file("routes.yaml", routes),
        file("signals.yaml", signals),
        file(
            "entities.cedarschema",
            "entity Team in [Team]; entity Workload in [Team] = { owner: String }; entity Account;".to_owned(),
        ),
        file("entities.json", entities_json(entities)),
        file("policies/all.cedar", text),
    ];
    files.into()
}

/// So many workloads, a hundred to a team, and a team of teams.
fn entities_json(workloads: usize) -> String {
    let entity = |kind: &str, id: &str, owner: &str, team: &str| {
        format!(
            r#"{{"uid": {{"type": "{kind}", "id": "{id}"}}, "attrs": {{{owner}}}, "parents": [{{"type": "Team", "id": "{team}"}}]}}"#
        )
    };
    let mut all: Vec<String> = Vec::with_capacity(workloads + workloads / 100);
    for nth in 0..workloads {
        let id =
            if nth == 0 { AGENT.to_owned() } else { format!("spiffe://prod.example/ns/other/sa/workload-{nth:06}") };
        all.push(entity("Workload", &id, r#""owner": "team@prod.example""#, &format!("t{}", nth / 100)));
    }
    all.extend((0..workloads.div_ceil(100)).map(|team| entity("Team", &format!("t{team}"), "", "all")));
    format!("[{}]", all.join(",\n"))
}

fn publish(engine: &Engine, subject: &str) {
    let items: Vec<String> = (0..SIGNALS)
        .map(|nth| format!(r#"{{"name":"s{nth}","subject":"{subject}","value":4,"observed_at":"{NOW}"}}"#))
        .collect();
    let body = format!(r#"{{"signals":[{}]}}"#, items.join(","));
    let admission = engine.admit(body.as_bytes(), &Origin::parse(PUBLISHER).unwrap(), NOW).unwrap();
    let payloads: Vec<_> = admission.changes.iter().map(Change::to_payload).collect();
    engine.apply(&payloads, NOW).unwrap();
}

/// About 660 bytes with 12 headers, as a sidecar sends it.
fn request() -> Request {
    let header = |name: &str, value: &str| HeaderEntry { name: name.into(), value: value.into(), is_utf8: true };
    Request {
        id: "7c9e6679-7425-40de-944b-e07fc1f90ae7".into(),
        method: "POST".into(),
        path: "/v1/a0/42".into(),
        host: "payments.prod.example".into(),
        scheme: "https".into(),
        protocol: "HTTP/2".into(),
        headers: Headers::new(vec![
            header(":method", "POST"),
            header(":path", "/v1/a0/42"),
            header(":authority", "payments.prod.example"),
            header(":scheme", "https"),
            header("accept", "application/json"),
            header("content-type", "application/json"),
            header("content-length", "0"),
            header("user-agent", "refund-agent/1.4"),
            header("x-request-id", "7c9e6679-7425-40de-944b-e07fc1f90ae7"),
            header("x-forwarded-proto", "https"),
            header("x-task-type", "refund"),
            header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ]),
        source: Peer { principal: AGENT.into(), address: "10.1.2.3:41234".into(), ..Peer::default() },
        destination: Peer {
            address: "10.1.2.4:8443".into(),
            principal: "spiffe://prod.example/payments".into(),
            ..Peer::default()
        },
        ..Request::default()
    }
}
