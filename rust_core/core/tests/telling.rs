//! What policies say of themselves: `@reason` in the record alone, `@advice` in the record and to whom they deny.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod stage;

use serde_json::{Value as Json, json};
use signalwarden_core::{
    engine::Engine,
    identity::Validated,
    limits,
    model::{Peer, Request, Timestamp},
    record::InfluenceMode,
    snapshot::{CoreSettings, Snapshot},
    wire,
};
use stage::Texts;
use std::sync::Arc;

const AGENT: &str = "spiffe://prod.example/agent";
const NOW: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);
const ROUTES: &str = r#"
routes:
  - {match: {host: "*", method: GET, path: "/{account}"}, action: read, resource: {type: Account, id: "{account}"}, tier: runtime, sensitivity: low}
default: deny
"#;
const PERMIT: &str = r#"@id("all") @reason("reading is harmless") permit (principal, action, resource);"#;
const FORBID: &str =
    r#"@id("closed") @reason("rule 12") @advice("ask the desk") forbid (principal, action, resource);"#;

fn snapshot(policies: &str) -> Snapshot {
    let texts =
        Texts { routes: ROUTES, signals: "signals: {}\n", schema: "entity Workload; entity Account;", policies };
    stage::load(&texts, "prod.example", NOW).unwrap_or_else(|error| panic!("{error}"))
}

/// The answer, lossily as text, and the record.
fn decided(snapshot: Snapshot) -> (String, Json) {
    let engine = stage::engine(Arc::new(snapshot), 10, InfluenceMode::All);
    let request = Request {
        method: "GET".into(),
        path: "/42".into(),
        host: "pay".into(),
        source: Peer { principal: AGENT.into(), ..Peer::default() },
        ..Request::default()
    };
    let answer = ask(&engine, &request);
    let record = serde_json::from_slice(&engine.drain(1).0).unwrap();
    (String::from_utf8_lossy(&answer).into_owned(), record)
}

fn ask(engine: &Engine, request: &Request) -> Vec<u8> {
    let bytes = wire::encode_request(request);
    let answer = engine.check(&bytes, &Validated::default(), NOW, [0; 10], &|| 0).answer().unwrap();
    wire::rules::check(&answer).unwrap_or_else(|broken| panic!("Envoy's rules are broken: {broken:?}"));
    answer
}

#[test]
fn a_forbid_tells_the_record_why_and_the_caller_what_to_do() {
    let (answer, record) = decided(snapshot(&format!("{PERMIT}\n{FORBID}")));
    let determining = &record["policies"]["determining"];
    let expected = json!([{"id": "closed", "effect": "forbid", "file": "policies/all.cedar", "line": 2,
        "applies": "certain", "why": "rule 12", "advice": "ask the desk"}]);
    assert_eq!(determining, &expected);
    assert!(answer.contains(r#""advice":["ask the desk"]"#), "{answer}");
    assert_eq!(answer.matches("ask the desk").count(), 2, "in the body and in the metadata: {answer}");
    assert!(!answer.contains("rule 12"), "{answer}");
}

#[test]
fn an_allow_and_a_denial_for_another_reason_tell_nothing() {
    let watching = format!("@mode(\"observe\") {}", FORBID.replace("closed", "watching"));
    for (policies, reason) in [
        (format!("{PERMIT}\n{watching}"), "allowed"),
        (
            format!("{FORBID} permit (principal, action, resource);")
                .replace("(principal, action, resource);", "(principal, action, resource == Account::\"7\");"),
            "no_policy_permits",
        ),
    ] {
        let (answer, record) = decided(snapshot(&policies));
        assert_eq!(record["reason"], reason);
        assert!(!answer.contains("advice") && !answer.contains("ask the desk"), "{answer}");
    }
    let (_, record) = decided(snapshot(PERMIT));
    assert_eq!(record["policies"]["determining"][0]["why"], "reading is harmless");
    assert!(record["policies"]["determining"][0].get("advice").is_none());
}

#[test]
fn advice_is_told_once_and_not_without_end() {
    let forbid = |n: usize, advice: &str| FORBID.replace("closed", &format!("f{n}")).replace("ask the desk", advice);
    let same: Vec<String> = (0..3).map(|n| forbid(n, "ask the desk")).collect();
    let (answer, _) = decided(snapshot(&same.join("\n")));
    assert!(answer.contains(r#""advice":["ask the desk"]"#), "{answer}");
    let long = "x".repeat(limits::MAX_ADVICE_BYTES - 2);
    let many: Vec<String> = (10..20).map(|n| forbid(n, &format!("{n}{long}"))).collect();
    let (answer, record) = decided(snapshot(&many.join("\n")));
    assert_eq!(answer.matches(&long).count(), 2 * limits::MAX_ADVICES);
    assert_eq!(record["policies"]["determining"].as_array().unwrap().len(), 10);
}

#[test]
fn a_link_is_named_by_its_own_id_with_its_template() {
    let file = |name: &str, text: &str| (name.to_owned(), text.as_bytes().to_vec());
    let template = FORBID.replace("closed", "closed-to").replace("(principal,", "(principal == ?principal,");
    let link =
        format!("links:\n  - {{id: closed-to-agent, template: closed-to, principal: 'Workload::\"{AGENT}\"'}}\n");
    let files = [
        file("routes.yaml", ROUTES),
        file("signals.yaml", "signals: {}\n"),
        file("entities.cedarschema", "entity Workload; entity Account;"),
        file("entities.json", "[]"),
        file("policies/all.cedar", &format!("{PERMIT}\n{template}")),
        file("policies/agents.links.yaml", &link),
    ];
    let load = |files: &[(String, Vec<u8>)]| Snapshot::load(files, &CoreSettings::of("prod.example"), NOW).unwrap();
    let with = load(&files);
    assert_ne!(with.revision, load(&files[..5]).revision);
    let described = with.describe();
    assert_eq!(described["policies"][1]["template"], "closed-to");
    assert_eq!(described["policies"][1]["why"], "rule 12");
    assert_eq!(described["policies"][0]["template"], Json::Null);
    let (answer, record) = decided(with);
    let determining = &record["policies"]["determining"][0];
    assert_eq!((&determining["id"], &determining["template"]), (&json!("closed-to-agent"), &json!("closed-to")));
    assert_eq!((&determining["file"], &determining["line"]), (&json!("policies/agents.links.yaml"), &json!(2)));
    assert!(answer.contains("ask the desk"), "{answer}");
}
