//! The directory that is counted: that of `bench/directory.py`, with as many policies and signals as are asked for.
//!
//! One action is asked for. The policies of its slice read every signal and one argument; the others belong to other actions.

use signalwarden_core::{
    change::Change,
    engine::Engine,
    model::{HeaderEntry, Headers, Origin, Peer, Request, Timestamp},
    snapshot::{CoreSettings, Snapshot},
    wire,
};
use std::fmt::Write as _;

pub(crate) const NOW: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);
const AGENT: &str = "spiffe://prod.example/ns/payments/sa/transfer-agent";
const PUBLISHER: &str = "spiffe://prod.example/ns/signals/sa/publisher";
const IN_SLICE: usize = 10;
const FORBIDDEN_AMOUNT: u32 = 50_000;

/// Type, influence, the value that lets the principal in, and a condition that the value fulfils. Repeated where more
/// signals are asked for. Three of twelve may only restrict, so that the recheck without them is part of a check.
const SIGNALS: [(&str, &str, &str, &str); 12] = [
    ("long", "grant", "4", "{} >= 3"),
    ("'enum[ok, compromised]'", "restrict", r#""ok""#, r#"{} != "compromised""#),
    ("long", "grant", "3", "{} <= 30"),
    ("bool", "grant", "true", "{}"),
    ("bool", "grant", "true", "{}"),
    ("string", "grant", r#""eu-central-1""#, r#"{} == "eu-central-1""#),
    ("set", "grant", r#"["pci","internal"]"#, r#"{}.contains("pci")"#),
    ("long", "restrict", "12", "{} <= 80"),
    ("bool", "restrict", "false", "!{}"),
    ("bool", "grant", "true", "{}"),
    ("bool", "grant", "true", "{}"),
    ("decimal", "grant", r#""0.75""#, r#"{}.greaterThan(decimal("0.1"))"#),
];

fn kind(signal: usize) -> (&'static str, &'static str, &'static str, &'static str) {
    SIGNALS[signal % SIGNALS.len()]
}

/// The directory, loaded.
pub(crate) fn snapshot(policies: usize, signals: usize) -> Snapshot {
    let others = (policies / IN_SLICE).saturating_sub(1);
    let file = |name: &str, text: String| (name.to_owned(), text.into_bytes());
    let files = [
        file("routes.yaml", routes(others)),
        file("signals.yaml", register(signals, others)),
        file("entities.cedarschema", "entity Workload { owner: String };\nentity Account;\nentity Thing;\n".to_owned()),
        file(
            "entities.json",
            format!(
                r#"[{{"uid":{{"type":"Workload","id":"{AGENT}"}},"attrs":{{"owner":"team-payments@prod.example"}},"parents":[]}}]"#
            ),
        ),
        file("policies/transfers.cedar", in_play(signals)),
        file("policies/others.cedar", other_policies(others)),
    ];
    Snapshot::load(&files, &CoreSettings::of("prod.example"), NOW).unwrap()
}

fn routes(others: usize) -> String {
    let mut text = String::from(
        "routes:\n  - match: {host: \"payments.*\", method: POST, path: \"/v1/accounts/{account}/transfers\"}\n    \
         action: transfer.create\n    resource: {type: Account, id: \"{account}\"}\n    args: {query: {amount: \"long?\"}}\n    \
         system: payments\n    tier: runtime\n    sensitivity: medium\n",
    );
    for other in 0..others {
        let _ = write!(
            text,
            "  - match: {{host: \"things.*\", method: GET, path: \"/v1/a{other}/{{thing}}\"}}\n    action: other.a{other}\n    \
             resource: {{type: Thing, id: \"{{thing}}\"}}\n    system: things\n    tier: runtime\n    sensitivity: low\n"
        );
    }
    text.push_str("default: deny\n");
    text
}

fn register(signals: usize, others: usize) -> String {
    let mut text = String::from("signals:\n");
    for signal in 0..signals {
        let (kind, influence, ..) = kind(signal);
        // The first signal is what the other actions read.
        let mut used_by = String::from("transfer.create");
        for other in (0..others).filter(|_| signal == 0) {
            let _ = write!(used_by, ", other.a{other}");
        }
        let _ = write!(
            text,
            "  s{signal:02}:\n    type: {kind}\n    description: What is counted\n    owner: o@prod.example\n    purpose: Be read\n    \
             subject: principal\n    sources: [{{kind: push, publisher: \"{PUBLISHER}\", assurance: authoritative}}]\n    \
             max_age: 24h\n    influence: {influence}\n    used_by: [{used_by}]\n    review_by: 2099-01-01\n"
        );
    }
    text
}

/// Three permits and seven forbids, over which the signals are dealt; those that may only restrict go to forbids. The last
/// forbid reads the argument.
fn in_play(signals: usize) -> String {
    let restricting = |signal: usize| (0..signal).filter(|other| kind(*other).1 == "restrict").count();
    let reader = |signal: usize| match kind(signal).1 {
        // Dealt evenly: each one more in a policy doubles the mixes that it is judged in.
        "restrict" => 3 + restricting(signal) % 6,
        _ => signal % (IN_SLICE - 1),
    };
    let mut text = String::new();
    for policy in 0..IN_SLICE {
        let permits = policy < 3;
        let mut conditions: Vec<String> = (0..signals)
            .filter(|signal| reader(*signal) == policy)
            .map(|signal| {
                let value = format!("context.signals.s{signal:02}");
                let holds = kind(signal).3.replace("{}", &value);
                let counts = if permits { holds } else { format!("!({holds})") };
                format!("context.signals has s{signal:02} && {counts}")
            })
            .collect();
        if conditions.is_empty() {
            conditions
                .push(format!("context.request.args has amount && context.request.args.amount > {FORBIDDEN_AMOUNT}"));
        }
        let (effect, joint) = if permits { ("permit", " && ") } else { ("forbid", ") || (") };
        let _ = writeln!(
            text,
            "@id(\"transfers-{policy}\")\n{effect} (principal, action == Action::\"transfer.create\", resource)\nwhen {{ ({}) }};",
            conditions.join(joint)
        );
    }
    text
}

fn other_policies(others: usize) -> String {
    let mut text = String::from("// of other actions\n");
    for nth in 0..others * IN_SLICE {
        let other = nth / IN_SLICE;
        let _ = writeln!(
            text,
            "@id(\"other-{nth}\")\npermit (principal, action == Action::\"other.a{other}\", resource)\n\
             when {{ context.signals has s00 && context.signals.s00 >= {} }};",
            nth % IN_SLICE
        );
    }
    text
}

/// Publishes every signal of the principal, observed now.
pub(crate) fn publish(engine: &Engine, signals: usize) {
    let items: Vec<String> = (0..signals)
        .map(|signal| {
            let value = kind(signal).2;
            format!(r#"{{"name":"s{signal:02}","subject":"{AGENT}","value":{value},"observed_at":"{NOW}"}}"#)
        })
        .collect();
    let body = format!(r#"{{"signals":[{}]}}"#, items.join(","));
    let admission = engine.admit(body.as_bytes(), &Origin::parse(PUBLISHER).unwrap(), NOW).unwrap();
    assert_eq!(admission.rejected.len(), 0);
    let payloads: Vec<_> = admission.changes.iter().map(Change::to_payload).collect();
    engine.apply(&payloads, NOW).unwrap();
}

/// A request as a sidecar sends it: 12 headers, about 660 bytes. Denied by a policy, or allowed.
pub(crate) fn request(is_denied: bool) -> Vec<u8> {
    let amount = if is_denied { FORBIDDEN_AMOUNT + 1 } else { 1_250 };
    let path = format!("/v1/accounts/42/transfers?amount={amount}");
    let header = |name: &str, value: &str| HeaderEntry { name: name.into(), value: value.into(), is_utf8: true };
    wire::encode_request(&Request {
        id: "9214873650197341".into(),
        time: Timestamp::parse_rfc3339("2026-11-24T10:00:00Z"),
        method: "POST".into(),
        host: "payments.prod.example".into(),
        scheme: "https".into(),
        protocol: "HTTP/2".into(),
        headers: Headers::new(vec![
            header(":method", "POST"),
            header(":scheme", "https"),
            header(":authority", "payments.prod.example"),
            header(":path", &path),
            header("user-agent", "transfer-agent/2.4"),
            header("content-type", "application/json"),
            header("accept", "application/json"),
            header("x-forwarded-proto", "https"),
            header("x-request-id", "6f1c2a52-8a4e-4f0b-9d7c-3b1e5c0f9a21"),
            header("x-forwarded-for", "10.1.2.3"),
            header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            header("idempotency-key", "7a1f"),
        ]),
        path,
        source: Peer { principal: AGENT.into(), address: "10.1.2.3:41234".into(), ..Peer::default() },
        destination: Peer { address: "10.1.2.4:8443".into(), ..Peer::default() },
        ..Request::default()
    })
}
