//! Questions without a request (`check/asked.rs`), through the core's door: the answer is Envoy's for a call that says
//! nothing more, nothing but arguments that routes name can change it, and its record decides again as it was.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::needless_pass_by_value,
    missing_docs
)]

mod generated;
mod stage;

use generated::{Case, PRINCIPAL, SCHEMA, VOCABULARY, gated_case};
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Value as Json, json};
use signalwarden_core::{
    engine::{Asking, Engine, Told},
    error::Error,
    model::{HeaderEntry, Headers, Peer, Request, SpiffeId, State, Timestamp},
    record::InfluenceMode,
    replay::Replay,
    snapshot::Snapshot,
    wire,
};
use stage::Texts;
use std::{cell::RefCell, collections::BTreeMap, sync::Arc};

const CASES: u32 = 1_500;
const NOW: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);
const PUBLISHER: &str = "spiffe://t/publisher";
const GATEWAY: &str = "spiffe://t/gateway";

const ROUTES: &str = r#"
routes:
  - match: {host: "*", method: POST, path: "/v1/{account}"}
    action: pay
    resource: {type: Account, id: "{account}"}
    args: {query: {amount: long, note: "string?"}}
    tier: runtime
    sensitivity: high
"#;

// ---- asking -----------------------------------------------------------------------------------------------

fn load(routes: &str, signals: &str, policies: &str) -> Result<Arc<Snapshot>, Error> {
    let schema = "entity Workload; entity Account; entity Page;";
    stage::load(&Texts { routes, signals, schema, policies }, "t", NOW).map(Arc::new)
}

fn loaded(routes: &str, policies: &str) -> Arc<Snapshot> {
    load(routes, "signals: {}\n", policies).unwrap()
}

fn engine(snapshot: &Arc<Snapshot>) -> Engine {
    stage::engine(Arc::clone(snapshot), 1_000, InfluenceMode::All)
}

fn question(action: &str, properties: &Json, resource: (&str, &str)) -> Json {
    json!({
        "subject": {"type": "workload", "id": PRINCIPAL},
        "action": {"name": action, "properties": properties},
        "resource": {"type": resource.0, "id": resource.1},
        "path": "/access/v1/evaluation",
    })
}

fn ask(engine: &Engine, question: &Json) -> Told {
    let client = SpiffeId::parse(GATEWAY).unwrap();
    let asking = Asking { client: &client, certificate: None, now: NOW, random: [0; 10], ticks: &|| 0 };
    engine.inquire(question.to_string().as_bytes(), &asking).unwrap()
}

/// The answer, in short: `allowed`, or why not.
fn told(engine: &Engine, question: &Json) -> (bool, &'static str) {
    let told = ask(engine, question);
    (told.is_allowed(), told.reason.code())
}

fn records(engine: &Engine) -> Vec<Json> {
    let (lines, _) = engine.drain(1_000);
    let each = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    each.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

// ---- the same answer as Envoy's ----------------------------------------------------------------------------

/// What is stored of a case: what is fresh or stale. What a request would bring is not there.
fn tell(engine: &Engine, case: &Case) {
    for (rule, (_, fact)) in case.rules.iter().zip(&case.facts) {
        let Some(value) = fact.value.as_ref().filter(|_| !rule.self_asserted && fact.state != State::Missing) else {
            continue;
        };
        let minutes = if fact.state == State::Stale { -10 } else { 0 };
        let observed_at = Timestamp::from_micros(NOW.as_micros() + minutes * 60_000_000);
        let origin = if fact.self_published { PRINCIPAL } else { PUBLISHER };
        let item = json!({"name": rule.name.as_str(), "subject": PRINCIPAL, "value": value.to_json(), "observed_at": observed_at.to_rfc3339()});
        assert_eq!(stage::publish(engine, origin, &json!([item]), observed_at).accepted, 1);
    }
}

fn envoys(engine: &Engine) -> Json {
    let length = HeaderEntry { name: "content-length".into(), value: "0".into(), is_utf8: true };
    let request = Request {
        method: "POST".into(),
        path: "/v1/42?amount=10".into(),
        host: "pay.example".into(),
        headers: Headers::new(vec![length]),
        source: Peer { principal: PRINCIPAL.into(), ..Peer::default() },
        ..Request::default()
    };
    let (line, _) = engine.decide(&wire::encode_request(&request), NOW, [0; 10], &|| 0);
    serde_json::from_slice(&line).unwrap()
}

/// Whatever somebody might send beside what counts.
fn noise() -> impl Strategy<Value = Json> {
    let names: Vec<&str> =
        VOCABULARY.iter().map(|known| known.name).chain(["signals", "role", "identity", "x"]).collect();
    let values = prop_oneof![
        Just(json!(true)),
        Just(json!("ok")),
        Just(json!(100)),
        Just(json!({"amount": 1})),
        Just(json!(null)),
    ];
    prop::collection::btree_map(prop::sample::select(names), values, 0..4).prop_map(|noise| json!(noise))
}

fn runner() -> TestRunner {
    TestRunner::new(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })
}

#[test]
fn a_question_has_the_answer_of_a_call_that_says_no_more_and_nothing_ungoverned_changes_it() {
    let reasons: RefCell<BTreeMap<String, u32>> = RefCell::default();
    let result = runner().run(&(gated_case(), noise()), |((_, case), noise)| {
        let Ok(snapshot) = load(ROUTES, &case.register(PUBLISHER), &case.policies.join("\n")) else { return Ok(()) };
        let engine = engine(&snapshot);
        tell(&engine, &case);
        let envoys = envoys(&engine);
        let plain = ask(&engine, &question("pay", &json!({"amount": 10}), ("Account", "42")));
        prop_assert_eq!(envoys["reason"].as_str().unwrap(), plain.reason.code(), "{}", envoys);
        prop_assert_eq!(envoys["outcome"] == "allow", plain.is_allowed());
        *reasons.borrow_mut().entry(plain.reason.code().to_owned()).or_default() += 1;

        // INVARIANT I1.
        let mut properties = noise;
        properties["amount"] = json!(10);
        let loud = ask(&engine, &question("pay", &properties, ("Account", "42")));
        prop_assert_eq!((loud.is_allowed(), loud.reason), (plain.is_allowed(), plain.reason));

        let kept = records(&engine);
        prop_assert_eq!(kept.len(), 2);
        prop_assert_eq!(&kept[0]["policies"]["determining"], &envoys["policies"]["determining"]);
        prop_assert_eq!(&kept[0]["signals"], &envoys["signals"]);
        let said = replayed(&Replay::new(Arc::clone(&snapshot)), &kept[0]);
        prop_assert_eq!(&said["now"]["reason"], &kept[0]["reason"], "{}: {}", said, kept[0]);
        Ok(())
    });
    println!("asked: {:?}", reasons.borrow());
    result.unwrap();
    assert!(reasons.borrow().len() >= 5, "too few reasons to prove anything");
}

fn replayed(replay: &Replay, record: &Json) -> Json {
    serde_json::from_slice(&replay.decide(record.to_string().as_bytes(), b"[]").unwrap()).unwrap()
}

// ---- what a question does not tell -------------------------------------------------------------------------

const PERMIT: &str = "permit(principal, action, resource);";

#[test]
fn a_policy_that_reads_what_is_not_told_denies_and_is_named() {
    for read in [
        "context.request.path like \"/admin*\"",
        "context.request.method == \"GET\"",
        "context.request.host == \"a\"",
        "context.identity.bound",
        "context.identity.kind == \"x509\"",
        "context.identity.interactive",
        "context.identity has actor",
    ] {
        let policies = format!("{PERMIT}\n@id(\"reader\") forbid(principal, action, resource) when {{ {read} }};");
        let engine = engine(&loaded(ROUTES, &policies));
        let asked = question("pay", &json!({"amount": 10}), ("Account", "42"));
        assert_eq!(told(&engine, &asked), (false, "malformed_request"), "{read}");
        let record = &records(&engine)[0];
        assert!(record["detail"].as_str().unwrap().starts_with("the policy `reader` reads "), "{record}");
    }
    for read in [
        "context.identity.trust_domain == \"t\"",
        "context.identity.legacy == false",
        "context.request.args.amount < 50",
    ] {
        let engine = engine(&loaded(ROUTES, &format!("permit(principal, action, resource) when {{ {read} }};")));
        let asked = question("pay", &json!({"amount": 10}), ("Account", "42"));
        assert_eq!(told(&engine, &asked), (true, "allowed"), "{read}");
    }
}

fn tiers(more: &str) -> String {
    format!(
        "routes:\n  - {{match: {{host: a, path: \"/{{id}}\"}}, action: page.read, resource: {{type: Page, id: \"{{id}}\"}}, \
         sensitivity: low, {more}}}\n"
    )
}

#[test]
fn a_question_shows_no_grant_and_can_not_be_approved() {
    for (more, reason) in [
        ("tier: coarse", "allowed"),
        ("tier: jit", "grant_required"),
        ("tier: approval, grant: required", "grant_required"),
        ("tier: approval", "approval_required"),
    ] {
        let engine = engine(&loaded(&tiers(more), PERMIT));
        assert_eq!(told(&engine, &question("page.read", &json!({}), ("Page", "1"))).1, reason, "{more}");
    }
    let gated = "@require_approval(\"why\") permit(principal, action, resource);";
    let engine = engine(&loaded(&tiers("tier: runtime"), gated));
    assert_eq!(told(&engine, &question("page.read", &json!({}), ("Page", "1"))), (false, "approval_required"));
}

#[test]
fn a_route_that_is_not_enforced_lets_a_question_pass_as_a_call_would() {
    let engine = engine(&loaded(&tiers("tier: runtime, enforce: false"), ""));
    assert_eq!(told(&engine, &question("page.read", &json!({}), ("Page", "1"))), (true, "no_policy_permits"));
    let record = &records(&engine)[0];
    assert_eq!((record["outcome"].as_str(), &record["enforced"]), (Some("deny"), &json!(false)));
}

#[test]
fn every_call_that_a_question_could_be_about_must_be_allowed() {
    let routes = |fact: &str| {
        format!(
            "routes:\n  - {{match: {{host: a, path: \"/{{id}}\"}}, action: page.read, resource: {{type: Page, id: \"{{id}}\"}}, \
             tier: runtime, sensitivity: low, facts: {{data: public}}}}\n  - {{match: {{host: b, path: \"/{{id}}\"}}, action: \
             page.read, resource: {{type: Page, id: \"{{id}}\"}}, tier: runtime, sensitivity: low, facts: {{data: {fact}}}}}\n"
        )
    };
    let signals = "signals:\n  data: {type: string, description: d, owner: o@x, purpose: p, influence: restrict, subject: request, \
                   used_by: [page.read], review_by: 2099-01-01, sources: [{kind: route, fact: data, assurance: authoritative}]}\n";
    let policies = format!(
        "{PERMIT}\nforbid(principal, action, resource) when {{ context.signals has data && context.signals.data == \"secret\" }};"
    );
    let asked = question("page.read", &json!({}), ("Page", "1"));
    let same = engine(&load(&routes("public"), signals, &policies).unwrap());
    assert_eq!(told(&same, &asked), (true, "allowed"));
    let other = engine(&load(&routes("secret"), signals, &policies).unwrap());
    assert_eq!(told(&other, &asked), (false, "policy_denied"));
    let record = &records(&other)[0];
    assert_eq!(record["request"]["route"], "routes.yaml:3", "the call that is denied is the one that is told");
}

// ---- who and what is asked about ---------------------------------------------------------------------------

#[test]
fn what_can_not_be_named_or_is_nobody_here_is_denied_with_a_record() {
    let engine = engine(&loaded(ROUTES, PERMIT));
    let good = question("pay", &json!({"amount": 10}), ("Account", "42"));
    assert_eq!(told(&engine, &good), (true, "allowed"));
    for (pointer, value, reason) in [
        ("/subject/type", "user", "identity_invalid"),
        ("/subject/id", "alice", "identity_invalid"),
        ("/subject/id", "spiffe://elsewhere/a", "trust_domain_unknown"),
        ("/action/name", "fly", "route_unknown"),
        ("/action/name", "Pay Me", "route_unknown"),
        ("/action/name", "task.begin", "route_unknown"),
        ("/resource/type", "Page", "route_unknown"),
        ("/resource/type", "no type", "route_unknown"),
    ] {
        let mut asked = good.clone();
        *asked.pointer_mut(pointer).unwrap() = json!(value);
        assert_eq!(told(&engine, &asked), (false, reason), "{pointer} {value}");
    }
    let kept = records(&engine);
    assert_eq!(kept.len(), 9);
    for record in &kept {
        assert_eq!((&record["request"]["door"], &record["request"]["client"]), (&json!("authzen"), &json!(GATEWAY)));
    }
    assert_eq!(kept[0]["principal"]["class"], "vouched");
    assert!(kept[1].get("principal").is_none());
    // What stood against it then stands against it again.
    let replay = Replay::new(engine.snapshot().unwrap());
    for record in &kept {
        assert_eq!(replayed(&replay, record)["now"]["reason"], record["reason"], "{record}");
    }
}

#[test]
fn a_question_of_another_form_is_no_question() {
    let engine = engine(&loaded(ROUTES, PERMIT));
    let client = SpiffeId::parse(GATEWAY).unwrap();
    let asking = Asking { client: &client, certificate: None, now: NOW, random: [0; 10], ticks: &|| 0 };
    for bad in [&b""[..], b"{}", b"[]", b"\xff", br#"{"subject": 1}"#] {
        assert!(matches!(engine.inquire(bad, &asking), Err(Error::BadInput(_))));
    }
    assert!(records(&engine).is_empty());
}

#[test]
fn no_record_no_yes() {
    let full = stage::engine(loaded(ROUTES, PERMIT), 1, InfluenceMode::None);
    let asked = question("pay", &json!({"amount": 10}), ("Account", "42"));
    assert_eq!(told(&full, &asked), (true, "allowed"));
    assert_eq!(told(&full, &asked), (false, "log_unavailable"));
    let empty = stage::empty_engine(9, InfluenceMode::None);
    assert_eq!(told(&empty, &asked), (false, "not_ready"));
    assert_eq!(records(&empty)[0]["reason"], "not_ready");
}

#[test]
fn the_schema_of_generated_cases_is_part_of_ours() {
    assert!(
        SCHEMA
            .split("; ")
            .all(|part| "entity Workload; entity Account; entity Page;".contains(part.trim_end_matches(';')))
    );
}
