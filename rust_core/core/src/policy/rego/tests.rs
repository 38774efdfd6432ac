//! Facts about Rego as an engine: what is refused at load, what is judged, what it may cost.

use super::*;
use crate::{
    findings::{Finding, Place},
    model::{Influence, ResourceId, SignalName, SignalType, Tier, Timestamp, Value, WhenUnavailable},
    policy::{IdentityView, Judged, PolicyAnswer, RequestView, Seen},
};
use std::collections::BTreeMap;

mod bombs;
mod references;

fn action(id: &str, tier: Tier) -> ActionRule {
    ActionRule {
        id: ActionId::parse(id).unwrap(),
        tier,
        grant_required: false,
        resource_types: ["Account".into()].into(),
        args: BTreeMap::from([("amount".into(), (SignalType::Long, false))]),
        place: Place { line: 1, column: 1 },
    }
}

fn actions() -> Vec<ActionRule> {
    vec![action("list", Tier::Coarse), action("pay", Tier::Runtime), action("read", Tier::Runtime)]
}

fn signal(name: &str, kind: &str, used_by: &[&str]) -> SignalRule {
    SignalRule {
        name: SignalName::parse(name).unwrap(),
        kind: SignalType::parse(kind).unwrap(),
        influence: Influence::Grant,
        when_unavailable: WhenUnavailable::Deny,
        self_asserted: false,
        used_by: used_by.iter().map(|action| ActionId::parse(action).unwrap()).collect(),
        place: Place { line: 7, column: 3 },
    }
}

/// By name, as the register is.
fn signals() -> Vec<SignalRule> {
    let mut watched = signal("watched", "bool", &["pay"]);
    watched.influence = Influence::Observe;
    vec![
        signal("origin", "ip", &["pay", "read"]),
        signal("posture", "enum[ok, bad]", &["pay", "read"]),
        signal("risk", "long", &["pay"]),
        signal("roles", "set", &["pay", "read"]),
        signal("score", "decimal", &["pay"]),
        signal("since", "datetime", &["pay"]),
        watched,
    ]
}

fn index(name: &str) -> SignalIndex {
    let at = signals().iter().position(|rule| rule.name.as_str() == name).unwrap();
    SignalIndex(u16::try_from(at).unwrap())
}

fn settings() -> RegoSettings {
    RegoSettings { actions: Some(vec!["pay".to_owned()]), ..RegoSettings::default() }
}

fn load_with(texts: &[&str], data: Option<&str>, settings: &RegoSettings) -> Result<RegoEngine, Vec<Finding>> {
    let names: Vec<String> = (0..texts.len()).map(|n| format!("policies/p{n}.rego")).collect();
    let policies: Vec<(&str, &str)> = names.iter().map(String::as_str).zip(texts.iter().copied()).collect();
    let mut findings = Findings::default();
    let engine =
        RegoEngine::load(RegoFiles { policies: &policies, data, settings }, &actions(), &signals(), &mut findings);
    let findings = findings.into_sorted();
    let Some(engine) = engine else {
        assert!(!findings.is_empty(), "refused without a word");
        return Err(findings);
    };
    assert!(findings.is_empty(), "{findings:?}");
    Ok(engine)
}

/// A file of the package `authz`, after its first line.
fn load(text: &str) -> Result<RegoEngine, Vec<Finding>> {
    load_with(&[&format!("package authz\n{text}")], None, &settings())
}

/// The findings of such a file: code, line and sentence.
fn refused(text: &str) -> Vec<(&'static str, u32, String)> {
    let findings = load(text).err().unwrap_or_default();
    findings.into_iter().map(|finding| (finding.code, finding.place.line, finding.message)).collect()
}

/// That it has exactly one, of this code, in this line.
fn is_refused(text: &str, code: &str, line: u32) -> String {
    match refused(text).as_slice() {
        [(found, at, message)] if *found == code && *at == line => message.clone(),
        others => panic!("{text}: expected {code} in line {line}, found {others:?}"),
    }
}

fn query() -> Query {
    let identity = IdentityView { age_seconds: Some(5), ..IdentityView::of("x509", "t", true) };
    let principal = SpiffeId::parse("spiffe://t/a").unwrap();
    let resource = ResourceId { kind: "Account".into(), id: "42".into() };
    Query {
        request: RequestView {
            method: "POST".into(),
            path: "/pay".into(),
            host: "h".into(),
            args: BTreeMap::from([("amount".into(), Value::Long(10))]),
        },
        ..Query::of(
            principal,
            ActionId::parse("pay").unwrap(),
            Tier::Runtime,
            resource,
            identity,
            Timestamp::from_micros(1_795_514_400_000_001),
        )
    }
}

/// Judged with these signals, all else absent; and what it says of the answer.
fn judged_with(engine: &RegoEngine, seen: &[(&str, Seen)]) -> (Judged, Option<PolicyAnswer>) {
    let mut seen: Vec<(SignalIndex, Seen)> = seen.iter().map(|(name, seen)| (index(name), seen.clone())).collect();
    seen.sort();
    let slice = engine.slice(&query()).unwrap();
    let judged = slice.judge_all(&seen);
    assert_eq!(judged.len(), 1);
    (judged[0].clone(), slice.answer(judged[0] == Judged::True))
}

fn judged(engine: &RegoEngine, seen: &[(&str, Seen)]) -> Judged {
    judged_with(engine, seen).0
}

/// A file of the package `authz`, loaded and judged without signals.
fn judge(text: &str) -> Judged {
    judged(&load(text).unwrap_or_else(|findings| panic!("{text}: {findings:?}")), &[])
}

fn failure(text: &str) -> String {
    match judge(text) {
        Judged::Failed(why) => why,
        other => panic!("{text}: {other:?}"),
    }
}

fn value(kind: &str, text: &str) -> Seen {
    Seen::Value(SignalType::parse(kind).unwrap().read_text(text).unwrap())
}

#[test]
fn an_entry_point_is_one_permit_of_each_of_its_actions() {
    let engine = load("default allow := false\nallow if input.signals.risk < 50").unwrap();
    let [info] = engine.policies() else { panic!("one") };
    assert_eq!((&*info.id, &*info.file, info.place.line), ("data.authz.allow", "policies/p0.rego", 2));
    assert_eq!(
        (info.engine, info.effect, info.mentions.clone()),
        (EngineKind::Rego, Effect::Permit, vec![index("risk")])
    );
    assert!(engine.is_asked(&ActionId::parse("pay").unwrap()));
    let read = Query { action: ActionId::parse("read").unwrap(), ..query() };
    let slice = engine.slice(&read).unwrap();
    assert!(slice.in_play().is_empty() && slice.engines().is_empty() && slice.judge_all(&[]).is_empty());
}

#[test]
fn true_permits_and_false_or_undefined_does_not() {
    assert_eq!(judge("allow := true"), Judged::True);
    assert_eq!(judge("allow := false"), Judged::False);
    assert_eq!(judge("allow if input.signals.risk < 50"), Judged::False);
    assert_eq!(judge("default allow := false\nallow if input.request.args.amount < 50"), Judged::True);
}

#[test]
fn a_policy_sees_the_governed_projection() {
    let text = r#"allow if {
        input.action == "pay"
        input.resource == {"type": "Account", "id": "42"}
        input.request == {"method": "POST", "path": "/pay", "host": "h", "args": {"amount": 10}}
        input.identity == {"id": "spiffe://t/a", "kind": "x509", "trust_domain": "t", "bound": true, "age_seconds": 5,
                           "interactive": false, "legacy": false}
        not input.grant
        not input.chain
        not input.approval
        input.signals.risk == 7
        input.signals.posture == "ok"
        input.signals.roles == {"a", "b"}
        input.signals.score == "1.5"
        input.signals.origin == "10.0.0.1"
        net.cidr_contains("10.0.0.0/8", input.signals.origin)
        time.parse_rfc3339_ns(input.signals.since) < time.now_ns()
    }"#;
    let engine = load(text).unwrap();
    let seen = [
        ("risk", value("long", "7")),
        ("posture", value("string", "ok")),
        ("roles", value("set", "b,a")),
        ("score", value("decimal", "1.50")),
        ("origin", value("ip", "10.0.0.1")),
        ("since", value("datetime", "2026-11-01T00:00:00Z")),
    ];
    assert_eq!(judged(&engine, &seen), Judged::True);
}

#[test]
fn a_signal_that_the_entry_point_does_not_read_is_not_there() {
    let engine = load("allow if input.signals.risk < 50").unwrap();
    let fixed = input::Fixed::of(&query());
    let seen = [(index("posture"), value("string", "bad")), (index("risk"), value("long", "7"))];
    let shown = fixed.with(&engine.mentioned, &seen).to_json_str().unwrap();
    assert!(shown.contains("risk") && !shown.contains("posture"), "{shown}");
}

#[test]
fn what_hangs_on_a_value_that_could_be_any_is_open() {
    let engine = load("allow if input.signals.risk < 50").unwrap();
    let slice = engine.slice(&query()).unwrap();
    assert_eq!(slice.judge_one(0, &[(index("risk"), Seen::Any)]), Judged::Open);
    assert_eq!(slice.judge_one(0, &[(index("posture"), Seen::Any)]), Judged::False);
}

#[test]
fn now_is_the_decisions_own() {
    assert_eq!(judge("allow if time.now_ns() == 1795514400000001000"), Judged::True);
}

#[test]
fn a_file_of_version_0_is_refused_with_what_brings_it_to_version_1() {
    let refused = |text| load_with(&[text], None, &settings()).err().unwrap().remove(0);
    for text in
        ["package a\nallow { input.x }", "package a\nallow = true { 1 > 0 }", "package a\nmembers[x] { x := 1 }"]
    {
        let found = refused(text);
        assert_eq!((found.code, found.place.line), ("syntax", 2), "{text}");
        assert!(found.message.contains("`opa fmt --v0-v1 --write "), "{}", found.message);
    }
    assert!(!refused("package a\nallow { input.x ").message.contains("version 0"), "no file of any version");
}

#[test]
fn data_json_is_data() {
    let text = "package authz\nallow if input.request.method in data.methods";
    let engine = load_with(&[text], Some(r#"{"methods": ["GET", "POST"]}"#), &settings()).unwrap();
    assert_eq!(judged(&engine, &[]), Judged::True);
    let clash = load_with(&[text], Some(r#"{"authz": {"allow": true}}"#), &settings()).err().unwrap();
    assert_eq!(clash[0].code, "data_clash");
    assert_eq!(load_with(&[text], Some("[]"), &settings()).err().unwrap()[0].code, "wrong_type");
    assert_eq!(load_with(&[text], Some("{"), &settings()).err().unwrap()[0].code, "syntax");
}

#[test]
fn an_object_says_more_of_the_answer_and_a_document_may_be_asked_for() {
    let text = r#"default allow := false
        allow if input.request.method == "POST"
        result["allowed"] := allow
        result["headers"] := {"x-a": "b"}"#;
    let settings = RegoSettings { query: "data.authz.result".to_owned(), ..settings() };
    let engine = load_with(&[&format!("package authz\n{text}")], None, &settings).unwrap();
    let (judged, answer) = judged_with(&engine, &[]);
    assert_eq!(judged, Judged::True);
    assert_eq!(answer.unwrap().headers, [("x-a".to_owned(), "b".to_owned())]);
}

#[test]
fn a_result_of_a_wrong_shape_fails() {
    assert!(failure("allow := 1").contains("a number"));
    assert!(failure(r#"allow := {"allowed": 1}"#).contains("`allowed`"));
}

#[test]
fn an_allow_that_says_other_things_in_another_world_is_open() {
    let text =
        r#"allow := {"allowed": true, "headers": {"x-risk": format_int(object.get(input.signals, "risk", 0), 10)}}"#;
    is_refused(text, "input_whole", 2);
    let text = r#"default risk := 0
        risk := input.signals.risk
        allow := {"allowed": true, "headers": {"x-risk": format_int(risk, 10)}}"#;
    let engine = load(text).unwrap();
    let slice = engine.slice(&query()).unwrap();
    let world = |risk: &str| [(index("risk"), value("long", risk))];
    assert_eq!(slice.judge_all(&world("1")), [Judged::True]);
    assert_eq!(slice.judge_one(0, &world("1")), Judged::True);
    assert_eq!(slice.judge_one(0, &world("2")), Judged::Open);
    assert_eq!(slice.judge_one(0, &[]), Judged::Open);
    assert_eq!(slice.answer(true).unwrap().headers[0].1, "1", "what the first world said");
    assert_eq!(slice.answer(false), None, "what is said of an allow is no part of a denial");
}

#[test]
fn a_built_in_that_fails_is_an_error_and_never_a_rule_that_vanishes() {
    assert!(failure(r#"allow if to_number("x") == 1"#).contains("policies/p0.rego:2:"));
    assert!(failure(r#"allow if not to_number("x") == 1"#).contains("to_number"));
    assert!(failure("allow if not broken\nbroken if 1 / 0 == 1").contains("divi"));
    assert!(failure("allow if count([x | some x in [1, 2]; x / 0 == 1]) == 0").contains("divi"));
}

#[test]
fn rules_that_contradict_each_other_fail() {
    assert!(failure("allow if yes == 1\nyes := 1 if true\nyes := 2 if true").contains("p0.rego:"));
    assert!(failure("allow if f(1) == 1\nf(x) := 1 if x == 1\nf(x) := 2 if x == 1").contains("p0.rego:"));
}

#[test]
fn a_failed_evaluation_leaves_nothing_behind_for_the_next_one() {
    let text = r#"allow if {
        x := input.signals.posture with data.authz.f as 3
        x == "ok"
    }
    allow if to_number(input.signals.posture) == 1
    f := 1"#;
    let engine = load(text).unwrap();
    for _ in 0..3 {
        assert!(matches!(judged(&engine, &[("posture", value("string", "bad"))]), Judged::Failed(_)));
        assert_eq!(judged(&engine, &[]), Judged::False);
    }
}

#[test]
fn threads_share_one_engine_and_give_the_same_answer() {
    let engine = load("allow if {\n some x in numbers.range(1, 50)\n x * x == input.signals.risk\n}").unwrap();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4_i64)
            .map(|thread| {
                let engine = &engine;
                scope.spawn(move || {
                    for n in 0..50 {
                        let risk = thread * 50 + n;
                        let root = (1..=50).any(|x| x * x == risk);
                        let expected = if root { Judged::True } else { Judged::False };
                        assert_eq!(judged(engine, &[("risk", Seen::Value(Value::Long(risk)))]), expected);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_second_configuration_has_interpreters_of_its_own() {
    let (first, second) = (load("allow := true").unwrap(), load("allow := false").unwrap());
    for _ in 0..3 {
        assert_eq!(judged(&first, &[]), Judged::True);
        assert_eq!(judged(&second, &[]), Judged::False);
    }
}

#[test]
fn a_whole_request_is_the_input_of_policies_that_are_not_governed() {
    let settings = RegoSettings {
        query: "data.envoy.authz.allow".to_owned(),
        input: RegoInput::OpaEnvoy,
        ungoverned: true,
        ..RegoSettings::default()
    };
    let text = r#"package envoy.authz
        import input.attributes.request.http as http_request
        default allow := false
        allow if { http_request.method == "GET"; some k; input.parsed_path[k] == "x" }"#;
    let engine = load_with(&[text], None, &settings).unwrap();
    assert!(engine.wants_whole_request());
    let whole = serde_json::json!({"attributes": {"request": {"http": {"method": "GET"}}}, "parsed_path": ["w", "x"]});
    let slice_of = |whole| engine.slice(&Query { whole, ..query() }).unwrap();
    assert_eq!(slice_of(Some(Arc::new(whole))).judge_all(&[]), [Judged::True]);
    assert!(matches!(slice_of(None).judge_all(&[])[0], Judged::Failed(_)));
    assert_eq!(slice_of(None).engines(), [EngineKind::OpaEnvoy]);
}

#[test]
fn what_the_entry_point_reads_is_listed_with_its_places() {
    let text = "allow if {\n input.request.args.amount < 5\n other\n}\nother if input.signals.risk < 5\nthird if input.request.path == \"\"";
    let engine = load(text).unwrap();
    let said: Vec<String> =
        engine.reads.iter().map(|read| format!("{} {} {:?}", read.place.line, read.rule, read.path)).collect();
    let expected = [
        r#"3 authz.allow [Some("request"), Some("args"), Some("amount")]"#,
        r#"6 authz.other [Some("signals"), Some("risk")]"#,
    ];
    assert_eq!(said, expected);
    assert_eq!(engine.untold(), None);
    let engine = load("allow if input.identity.kind == \"x509\"").unwrap();
    assert_eq!(engine.untold().as_deref(), Some("input.identity.kind"));
    assert_eq!(load("allow if input.request == {}").unwrap().untold().as_deref(), Some("input.request"));
}

#[test]
fn a_comment_behind_the_last_argument_swallows_no_comparison() {
    for (text, line) in [
        ("expected := \"no\"\nallow if crypto.sha256(input.request.path, expected # must match\n)", 3),
        ("expected := \"no\"\nallow if not crypto.sha256(input.request.path, expected # must match\n)", 3),
    ] {
        is_refused(text, "wrong_arguments", line);
    }
    let engine = load("expected := \"no\"\nallow if crypto.sha256(input.request.path, expected)").unwrap();
    assert_eq!(judged(&engine, &[]), Judged::False);
}

#[test]
fn empty_texts_that_are_shared_are_no_small_result() {
    let text = r#"many := ["" | some _ in numbers.range(1, 4000)]
        allow := {"allowed": true, "dynamic_metadata": {"x": [many | some _ in numbers.range(1, 400)]}}"#;
    assert!(failure(text).contains("larger than"), "{}", failure(text));
}
