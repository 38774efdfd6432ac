//! What is judged and changes nothing: observing policies, and routes with `enforce: false`.
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

use generated::{Case, case, load, query};
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Value as Json, json};
use signalwarden_core::{
    engine::Engine,
    findings::Severity,
    identity::Validated,
    model::{Body, HeaderEntry, Headers, Peer, Request, Timestamp},
    policy::{Mode, PolicyEngine, Slice, influence::influence, observe::would, reasoning::evaluate},
    reason::Reason,
    record::InfluenceMode,
    snapshot::Snapshot,
    wire,
};
use stage::Texts;
use std::{cell::Cell, sync::Arc};

const CASES: u32 = 2_000;
const AGENT: &str = "spiffe://prod.example/agent";
const NOW: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);
const OBSERVE: &str = "@mode(\"observe\") ";

#[test]
fn observing_policies_change_nothing_and_tell_what_their_enforcement_would() {
    let (compared, differed) = (Cell::new(0_u32), Cell::new(0_u32));
    let strategy = (case(), prop::collection::vec(any::<bool>(), 4));
    let mut runner =
        TestRunner::new(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() });
    let result = runner.run(&strategy, |(case, observes)| {
        // Enforcing policies come first, so that each has the same index with and without the others.
        let (observing, enforcing): (Vec<_>, Vec<_>) =
            case.policies.iter().cloned().zip(observes).partition(|(_, observes)| *observes);
        let enforcing: Vec<String> = enforcing.into_iter().map(|(policy, _)| policy).collect();
        let observing: Vec<String> = observing.into_iter().map(|(policy, _)| policy).collect();
        let with = |more: Vec<String>| Case { policies: [enforcing.clone(), more].concat(), ..case.clone() };
        let watched: Vec<String> = observing.iter().map(|policy| format!("{OBSERVE}{policy}")).collect();
        let Some(all) = load(&with(observing)) else { return Ok(()) };
        let (alone, both) = (load(&with(vec![])).unwrap(), load(&with(watched.clone())).unwrap());
        let all = all.slice(&query()).unwrap();
        let in_force = evaluate(&*all, &case.rules, &case.facts);

        // The decision, its explanation and every influence are those of the enforcing policies alone. The facts of
        // the observing ones are gathered, too.
        let (slice_alone, slice_both) = (alone.slice(&query()).unwrap(), both.slice(&query()).unwrap());
        let own = |slice: &dyn Slice| -> Vec<_> {
            let mentioned = slice.mentioned();
            case.facts.iter().filter(|(signal, _)| mentioned.contains(signal)).cloned().collect()
        };
        let before = evaluate(&*slice_alone, &case.rules, &own(&*slice_alone));
        let after = evaluate(&*slice_both, &case.rules, &case.facts);
        prop_assert_eq!(before.reason, after.reason);
        prop_assert_eq!(&before.in_play, &after.in_play);
        prop_assert_eq!(&before.truths, &after.truths);
        let influences = |slice, facts: &[_], verdict| influence(slice, &case.rules, facts, verdict);
        prop_assert_eq!(
            influences(&*slice_alone, &own(&*slice_alone), &before),
            influences(&*slice_both, &case.facts, &after)
        );

        // What would be is what is, once the same policies are enforced.
        let Some(observing) = both.slice_observing(&query()) else {
            prop_assert!(watched.is_empty());
            return Ok(());
        };
        let action = query().action;
        let mentioned = observing.slice.mentioned();
        prop_assert!(both.watched(&action).iter().all(|signal| mentioned.contains(signal)));
        let would = would(&observing, &case.rules, &case.facts);
        prop_assert_eq!(would.reason, in_force.reason);
        prop_assert_eq!(would.observed.len(), watched.len());
        for ((info, truth), expected) in would.observed.iter().zip(&in_force.truths[enforcing.len()..]) {
            prop_assert_eq!(info.mode, Mode::Observe);
            prop_assert_eq!(truth, expected);
        }
        compared.set(compared.get() + 1);
        differed.set(differed.get() + u32::from(would.reason != after.reason));
        Ok(())
    });
    println!(
        "observe: {} cases compared of {CASES}, in {} enforcement would change the reason",
        compared.get(),
        differed.get()
    );
    result.unwrap();
    assert!(compared.get() > 500 && differed.get() > 100, "too few cases to prove anything");
}

const SIGNALS: &str = r#"
signals:
  risk: {type: long, description: d, owner: o@x, purpose: p, subject: principal, max_age: 5m, influence: observe, used_by: [transfer.create], review_by: 2099-01-01, sources: [{kind: push, publisher: "spiffe://prod.example/publisher", assurance: authoritative}]}
  trust: {type: long, description: d, owner: o@x, purpose: p, subject: principal, max_age: 5m, influence: grant, used_by: [transfer.create], review_by: 2099-01-01, sources: [{kind: push, publisher: "spiffe://prod.example/publisher", assurance: authoritative}]}
  word: {type: string, description: d, owner: o@x, purpose: p, subject: request, influence: restrict, used_by: [transfer.create], review_by: 2099-01-01, sources: [{kind: header, header: x-word, assurance: self_asserted}]}
"#;

fn route(method: &str, action: &str, tier: &str, more: &str) -> String {
    format!(
        "  - match: {{host: \"*\", method: {method}, path: \"/v1/accounts/{{account}}\"}}\n    action: {action}\n    resource: {{type: Account, id: \"{{account}}\"}}\n    args: {{query: {{amount: \"long?\"}}}}\n    tier: {tier}\n    sensitivity: high\n{more}"
    )
}

fn routes(more: &str) -> String {
    format!(
        "routes:\n{}{}{}{}",
        route("POST", "transfer.create", "runtime", more),
        route("DELETE", "account.close", "jit", more),
        route("PUT", "account.change", "approval", more),
        route("PATCH", "account.mend", "runtime", more),
    )
}

const UNENFORCED: &str = "    enforce: false\n";

fn snapshot(routes: &str, policies: &str) -> Snapshot {
    let schema = "entity Role; entity Workload in [Role] = { owner?: String }; entity Account;";
    let texts = Texts { routes, signals: SIGNALS, schema, policies };
    stage::load(&texts, "prod.example", NOW).unwrap_or_else(|error| panic!("{error}"))
}

fn engine(routes: &str, policies: &str, capacity: usize) -> Engine {
    stage::engine(Arc::new(snapshot(routes, policies)), capacity, InfluenceMode::All)
}

fn publish(engine: &Engine, name: &str, value: i64) {
    publish_at(engine, name, value, NOW);
}

fn publish_at(engine: &Engine, name: &str, value: i64, at: Timestamp) {
    let item = json!({"name": name, "subject": AGENT, "value": value, "observed_at": at.to_rfc3339()});
    let admission = stage::publish(engine, "spiffe://prod.example/publisher", &json!([item]), at);
    assert_eq!(admission.accepted, 1, "{:?}", admission.rejected);
}

fn call(method: &str) -> Request {
    Request {
        method: method.into(),
        path: "/v1/accounts/42".into(),
        host: "pay.prod.example".into(),
        body: Body::NotForwarded,
        source: Peer { principal: AGENT.into(), ..Peer::default() },
        ..Request::default()
    }
}

fn with_word(mut request: Request) -> Request {
    request.headers = Headers::new(vec![HeaderEntry { name: "x-word".into(), value: "x".into(), is_utf8: true }]);
    request
}

/// The answer, and the record as JSON.
fn decide(engine: &Engine, request: &Request) -> (Vec<u8>, Json) {
    let answer = ask(engine, request);
    let (lines, count) = engine.drain(10);
    assert_eq!(count, 1, "every decision has one record (I4)");
    (answer, serde_json::from_slice(&lines).unwrap())
}

fn ask(engine: &Engine, request: &Request) -> Vec<u8> {
    let answer =
        engine.check(&wire::encode_request(request), &Validated::default(), NOW, [0; 10], &|| 0).answer().unwrap();
    wire::rules::check(&answer).unwrap_or_else(|broken| panic!("Envoy's rules are broken: {broken:?}"));
    answer
}

/// By the arm of `http_response`, which `status` never contradicts: field 3 is `ok_response`.
fn passes(answer: &[u8]) -> bool {
    answer.starts_with(&[0x0a, 0x00, 0x1a])
}

fn counter(engine: &Engine, wanted: &str) -> u64 {
    engine.counters().into_iter().find(|(name, _)| name == wanted).unwrap().1
}

/// A record without what observing policies add to it, and without what differs from call to call.
fn without_marks(record: &Json, before: &Json) -> Json {
    let mut record = record.clone();
    let known: Vec<_> = before["signals"].as_array().unwrap().iter().map(|s| s["name"].clone()).collect();
    record["signals"].as_array_mut().unwrap().retain(|signal| known.contains(&signal["name"]));
    let fields = record.as_object_mut().unwrap();
    fields.retain(|key, _| !["decision_id", "timing_us"].contains(&key.as_str()));
    let policies = fields["policies"].as_object_mut().unwrap();
    policies.retain(|key, _| !["revision", "observed", "would"].contains(&key.as_str()));
    record
}

const PERMIT: &str = "permit(principal, action, resource);\n";
const WATCHED: &str = r#"
@id("risky") @mode("observe")
forbid(principal, action == Action::"transfer.create", resource) when { context.signals has risk && context.signals.risk > 50 };
@id("trusted") @mode("observe")
permit(principal, action == Action::"transfer.create", resource) when { context.signals has trust && context.signals.trust > 3 };
"#;

#[test]
fn a_record_tells_what_observing_policies_say_and_what_they_would_have_done() {
    let alone = engine(&routes(""), PERMIT, 10);
    let watching = engine(&routes(""), &format!("{PERMIT}{WATCHED}"), 10);
    for engine in [&alone, &watching] {
        publish(engine, "risk", 90);
    }
    let (plain, before) = decide(&alone, &call("POST"));
    let (answer, record) = decide(&watching, &call("POST"));
    assert!(passes(&plain) && passes(&answer));
    assert_eq!(answer.len(), plain.len(), "nothing of an observing policy is in the answer");
    assert_eq!(record["reason"], "allowed");
    assert_eq!(record["policies"]["determining"], before["policies"]["determining"]);
    assert_eq!(without_marks(&record, &before), without_marks(&before, &before), "two keys, and facts, are all");
    assert_eq!(record["policies"]["would"], "policy_denied");
    assert_eq!(
        record["policies"]["observed"],
        json!([
            {"id": "risky", "effect": "forbid", "file": "policies/all.cedar", "line": 3, "applies": "certain"},
            {"id": "trusted", "effect": "permit", "file": "policies/all.cedar", "line": 5, "applies": "may"},
        ])
    );
    assert!(before["policies"].get("observed").is_none() && before["policies"].get("would").is_none());
    // The facts that they rest on are there, without influence.
    let signals: Vec<_> = record["signals"].as_array().unwrap().iter().map(|s| (&s["name"], &s["state"])).collect();
    assert_eq!(signals, [(&json!("risk"), &json!("fresh")), (&json!("trust"), &json!("missing"))]);
    assert!(record["signals"].as_array().unwrap().iter().all(|signal| signal.get("influence").is_none()));

    publish_at(&watching, "risk", 10, Timestamp::from_micros(NOW.as_micros() + 1));
    let (_, calm) = decide(&watching, &call("POST"));
    assert_eq!(calm["policies"]["would"], "allowed");
    assert_eq!(calm["policies"]["observed"][0]["applies"], "never");
    let (_, other) = decide(&watching, &call("PATCH"));
    assert!(other["policies"].get("observed").is_none(), "no observing policy is about this action");
}

#[test]
fn an_observing_policy_that_fails_or_asks_for_who_is_not_listed_has_no_effect() {
    let fails = "@id(\"big\") @mode(\"observe\") forbid(principal, action == Action::\"transfer.create\", resource) \
                 when { context.signals has risk && context.signals.risk * 9223372036854775807 > 5 };";
    let failing = engine(&routes(""), &format!("{PERMIT}{fails}"), 10);
    publish(&failing, "risk", 90);
    let (answer, record) = decide(&failing, &call("POST"));
    assert!(passes(&answer));
    assert_eq!((&record["reason"], &record["policies"]["errors"]), (&json!("allowed"), &json!([])));
    assert_eq!(record["policies"]["observed"][0]["applies"], "failed");
    assert_eq!(record["policies"]["would"], "engine_error");

    for asks in [
        "@id(\"mine\") @mode(\"observe\") permit(principal, action, resource) when { principal has owner };",
        "@id(\"mine\") @mode(\"observe\") permit(principal in Role::\"x\", action, resource);",
    ] {
        let asking = engine(&routes(""), &format!("{PERMIT}{asks}"), 10);
        let (answer, record) = decide(&asking, &call("POST"));
        assert!(passes(&answer));
        assert_eq!(record["policies"]["observed"][0]["applies"], "failed", "{asks}");
        assert_eq!(record["policies"]["would"], "entity_unknown", "{asks}");
    }
}

#[test]
fn what_would_be_follows_the_tier_and_goes_before_a_decision_does() {
    let watching = engine(&routes(""), &format!("{PERMIT}{WATCHED}@mode(\"observe\") {PERMIT}"), 4);
    let (_, record) = decide(&watching, &call("PUT"));
    assert_eq!(
        (&record["reason"], &record["policies"]["would"]),
        (&json!("body_incomplete"), &json!("approval_required"))
    );
    // No policy was asked, so none has anything to say.
    let (_, record) = decide(&watching, &call("DELETE"));
    assert_eq!(record["reason"], "grant_required");
    assert!(record["policies"].get("would").is_none());

    (0..3).for_each(|_| drop(ask(&watching, &call("POST"))));
    for line in String::from_utf8(watching.drain(9).0).unwrap().lines() {
        let record: Json = serde_json::from_str(line).unwrap();
        assert_eq!((&record["reason"], &record["observed_shed"]), (&json!("allowed"), &json!(true)));
        assert!(record["policies"].get("would").is_none());
    }
}

/// A request, the reason that it gets, and whether `enforce: false` lets it pass.
fn denials() -> Vec<(Request, &'static str, bool)> {
    let change = |edit: fn(&mut Request)| {
        let mut request = call("POST");
        edit(&mut request);
        request
    };
    vec![
        (call("POST"), "signal_unavailable", true),
        (with_word(call("POST")), "policy_denied", true),
        (call("PATCH"), "no_policy_permits", true),
        (call("DELETE"), "grant_required", true),
        (call("PUT"), "approval_required", true),
        (change(|r| r.path = "/v1/accounts/42?amount=x".into()), "malformed_request", false),
        (change(|r| r.path = "/v1/accounts/../42".into()), "route_unknown", false),
        (change(|r| r.source.principal.clear()), "identity_missing", false),
        (change(|r| r.source.principal = "agent".into()), "identity_invalid", false),
        (change(|r| r.source.principal = "spiffe://other.example/agent".into()), "trust_domain_unknown", false),
    ]
}

const GUARDED: &str = r#"
permit(principal, action == Action::"transfer.create", resource) when { context.signals has trust && context.signals.trust > 3 };
forbid(principal, action == Action::"transfer.create", resource) when { context.signals has word };
permit(principal, action == Action::"account.change", resource);
permit(principal, action == Action::"account.mend", resource) when { context.request.args has amount };
"#;

#[test]
fn a_route_that_is_not_enforced_lets_pass_what_policies_signals_and_tiers_deny_and_nothing_else() {
    let (strict, lax) = (engine(&routes(""), GUARDED, 99), engine(&routes(UNENFORCED), GUARDED, 99));
    let mut passed = 0;
    for (request, reason, lets_pass) in denials() {
        let (answer, record) = decide(&strict, &request);
        assert!(!passes(&answer), "{reason}");
        // Where it counts, an approval is bound to the whole body, and none was forwarded.
        let strictly = if reason == "approval_required" { "body_incomplete" } else { reason };
        assert_eq!((&record["reason"], record.get("enforced")), (&json!(strictly), None));

        let (answer, unenforced) = decide(&lax, &request);
        assert_eq!(passes(&answer), lets_pass, "{reason}");
        assert_eq!((&unenforced["outcome"], &unenforced["reason"]), (&json!("deny"), &json!(reason)));
        assert_eq!(unenforced["http_status"], record["http_status"]);
        if strictly == reason {
            // Lines of routes.yaml differ, those of policies do not.
            assert_eq!(unenforced["policies"]["determining"], record["policies"]["determining"]);
        }
        assert_eq!(unenforced.get("enforced"), lets_pass.then_some(&json!(false)), "{reason}");
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert_eq!(text.contains("enforced"), lets_pass, "the metadata says so, too");
        assert!(text.contains(reason), "and why: {text:?}");
        for header in ["x-signalwarden-principal", "x-signalwarden-grant", "x-original-url"] {
            assert_eq!(
                text.contains(header),
                lets_pass,
                "an unenforced allow is an allow in every other way: {header}"
            );
        }
        passed += u64::from(lets_pass);
    }
    assert_eq!((counter(&lax, "unenforced"), counter(&strict, "unenforced")), (passed, 0));
    assert_eq!(counter(&lax, "decisions_policy_denied"), 1, "a decision counts by its reason");
    assert_eq!(counter(&lax, "decisions_allowed"), 0);
}

#[test]
fn an_allow_of_a_route_that_is_not_enforced_is_an_allow() {
    let lax = engine(&routes(UNENFORCED), GUARDED, 9);
    publish(&lax, "trust", 5);
    let (answer, record) = decide(&lax, &call("POST"));
    assert!(passes(&answer));
    assert_eq!((&record["outcome"], record.get("enforced")), (&json!("allow"), None));
    assert_eq!(counter(&lax, "unenforced"), 0);
}

#[test]
fn what_is_not_listed_and_what_fails_is_denied_on_a_route_that_is_not_enforced_too() {
    for (policy, reason) in [
        ("forbid(principal in Role::\"x\", action, resource);", "entity_unknown"),
        (
            "permit(principal, action, resource) when { context.request.args has amount && context.request.args.amount * 9223372036854775807 > 5 };",
            "engine_error",
        ),
    ] {
        let lax = engine(&routes(UNENFORCED), policy, 9);
        let (answer, record) = decide(&lax, &Request { path: "/v1/accounts/42?amount=9".into(), ..call("POST") });
        assert_eq!((passes(&answer), &record["reason"], record.get("enforced")), (false, &json!(reason), None));
    }
}

#[test]
fn a_call_that_can_not_be_recorded_is_not_let_pass() {
    let lax = engine(&routes(UNENFORCED), GUARDED, 1);
    assert!(passes(&ask(&lax, &call("PATCH"))));
    let answer = ask(&lax, &call("PATCH"));
    assert!(!passes(&answer) && String::from_utf8_lossy(&answer).contains("log_unavailable"));
    assert_eq!(counter(&lax, "unenforced"), 1);
}

#[test]
fn a_route_that_is_not_enforced_is_said_aloud_and_is_another_route() {
    let (strict, lax) = (snapshot(&routes(""), GUARDED), snapshot(&routes(UNENFORCED), GUARDED));
    let said: Vec<_> = lax.warnings.iter().filter(|f| f.code == "unenforced_route").collect();
    assert_eq!(said.iter().map(|f| f.place.line).collect::<Vec<_>>(), [2, 9, 16, 23]);
    assert!(said.iter().all(|f| f.severity == Severity::Warning && f.file == "routes.yaml"));
    assert!(strict.warnings.iter().all(|f| f.code != "unenforced_route"));
    assert_eq!(lax.describe()["routes"][0]["enforce"], false);
    assert_eq!(strict.describe()["routes"][0]["enforce"], true);
    assert_ne!(lax.routes.all()[0].digest(), strict.routes.all()[0].digest());
}

#[test]
fn what_loads_and_does_nothing_is_said_aloud() {
    let warnings = |policies: &str| -> Vec<(String, u32, &'static str)> {
        let found = snapshot(&routes(""), policies).warnings;
        let told = found.into_iter().filter(|f| f.code != "unread_signal");
        told.map(|f| (f.file, f.place.line, f.code)).collect()
    };
    let routes = |line: u32| ("routes.yaml".to_owned(), line, "action_without_policy");
    let policy = |line: u32| ("policies/all.cedar".to_owned(), line, "never_matches");
    assert_eq!(warnings(PERMIT), []);
    assert_eq!(warnings(GUARDED), [routes(8)], "no permit for account.close");
    let observed = format!("@mode(\"observe\") {PERMIT}");
    assert_eq!(
        warnings(&observed),
        [routes(2), routes(8), routes(14), routes(20)],
        "an observing permit permits nothing"
    );
    let dead = format!("{GUARDED}permit(principal, action == Action::\"account.close\", resource) when {{ 1 == 2 }};");
    assert_eq!(warnings(&dead), [policy(6), routes(8)], "nor does one that can never apply");
    for nobody in ["principal, action, resource is Workload", "principal == Workload::\"agent\", action, resource"] {
        let other = format!("{GUARDED}permit({nobody});");
        assert_eq!(warnings(&other), [policy(6), routes(8)], "{nobody}");
    }
}

#[test]
fn a_signal_that_only_observing_policies_read_is_read() {
    let unread = |policies: &str| -> Vec<String> {
        let found = snapshot(&routes(""), policies).warnings;
        found.into_iter().filter(|f| f.code == "unread_signal").map(|f| f.message).collect()
    };
    assert_eq!(unread(PERMIT).len(), 2, "an observed signal need not be read");
    let messages = unread(&format!("{PERMIT}{WATCHED}"));
    assert!(messages.len() == 1 && messages[0].contains("`word`"), "{messages:?}");
}

#[test]
fn reasons_that_are_let_pass_are_denials() {
    assert!(!Reason::Allowed.may_be_unenforced());
}
