//! The binding cases of `tests/vectors/semantics.json`, below the loader; and facts about load checks and slices.

use super::*;
use crate::{
    findings::{Finding, Place},
    model::{Assurance, Fact, Influence, ResourceId, SignalName, SignalType, State, Tier, Timestamp, WhenUnavailable},
    policy::{IdentityView, RequestView, SignalIndex, influence::influence, reasoning::evaluate},
};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};

mod built_in_actions;
mod quick;
mod templates;
mod validate;

const SCHEMA: &str = "entity Role; entity Workload in [Role] = { owner?: String, device?: String }; entity Account = { owner?: String };";

fn actions() -> Vec<ActionRule> {
    let action = |id: &str, tier| ActionRule {
        id: ActionId::parse(id).unwrap(),
        tier,
        grant_required: false,
        resource_types: ["Account".into()].into(),
        args: BTreeMap::from([
            ("amount".into(), (SignalType::Long, false)),
            ("note".into(), (SignalType::String, true)),
        ]),
        place: Place { line: 1, column: 1 },
    };
    vec![
        action("transfer.create", Tier::Runtime),
        action("account.close", Tier::Runtime),
        action("account.list", Tier::Coarse),
    ]
}

fn rule(
    name: &str,
    kind: &str,
    influence: Influence,
    when_unavailable: WhenUnavailable,
    self_asserted: bool,
) -> SignalRule {
    SignalRule {
        name: SignalName::parse(name).unwrap(),
        kind: SignalType::parse(kind).unwrap(),
        influence,
        when_unavailable,
        self_asserted,
        used_by: ["transfer.create", "account.close"].map(|a| ActionId::parse(a).unwrap()).into(),
        place: Place { line: 7, column: 3 },
    }
}

fn query(action: &str) -> Query {
    let identity = IdentityView::of("x509", "t", true);
    let principal = SpiffeId::parse("spiffe://t/a").unwrap();
    let resource = ResourceId { kind: "Account".into(), id: "42".into() };
    Query {
        request: RequestView {
            args: BTreeMap::from([("amount".into(), crate::model::Value::Long(10))]),
            ..RequestView::default()
        },
        ..Query::of(
            principal,
            ActionId::parse(action).unwrap(),
            Tier::Runtime,
            resource,
            identity,
            crate::model::Timestamp::from_micros(0),
        )
    }
}

/// The engine without the load checks: what the product never does.
fn below_the_loader(policies: &[&str], signals: &[SignalRule]) -> CedarEngine {
    let mut findings = Findings::default();
    let texts: Vec<(String, &str)> = policies.iter().enumerate().map(|(n, p)| (format!("p{n}.cedar"), *p)).collect();
    let files: Vec<(&str, &str)> = texts.iter().map(|(n, p)| (n.as_str(), *p)).collect();
    let (texts, taken) = texts::parse(&files, &mut findings);
    let parsed = links::policies(&texts, taken, &[], &mut findings);
    let kinds: Vec<_> = texts.iter().map(|text| (text.said.mode, checks::names_built_in(&text.template))).collect();
    let schema = schema::load(Some(SCHEMA), &actions(), signals, &kinds, &mut findings).unwrap();
    assert!(!findings.has_errors(), "{:?}", findings.as_slice());
    let readings: Vec<_> = texts.iter().map(|text| walk::read(&text.template)).collect();
    let entities = entities::load(Some("[]"), &schema.enforcing, &mut findings);
    let actions: Vec<_> = actions().into_iter().chain(built_in::rules()).collect();
    let known = checks::Vocabulary::new(&actions, signals);
    CedarEngine::assemble(&parsed, &readings, entities, &actions, signals, &known).unwrap()
}

fn case_signals(case: &Json) -> (Vec<SignalRule>, Vec<(SignalIndex, Fact)>) {
    let mut rules = Vec::new();
    let mut facts = Vec::new();
    // serde_json's map is sorted by name, as the register is.
    for (name, declared) in case["signals"].as_object().unwrap() {
        let word = |key: &str| declared.get(key).and_then(Json::as_str);
        let influence = if word("influence") == Some("restrict") { Influence::Restrict } else { Influence::Grant };
        let when =
            if word("when_unavailable") == Some("absent") { WhenUnavailable::Absent } else { WhenUnavailable::Deny };
        let self_asserted = word("assurance") == Some("self_asserted");
        let rule = rule(name, word("type").unwrap(), influence, when, self_asserted);
        let assurance = if self_asserted { Assurance::SelfAsserted } else { Assurance::Authoritative };
        let mut fact = Fact::missing(None, assurance);
        if let Some(given) = case["facts"].get(name) {
            let states =
                [State::Fresh, State::Stale, State::Missing, State::Disputed, State::Unverified, State::Future];
            fact.state = *states.iter().find(|s| s.as_str() == given["state"]).unwrap();
            fact.value = given.get("value").map(|value| rule.kind.read_json(value).unwrap());
            fact.self_published = given.get("contributed_by").is_some();
            fact.observed_at = Some(Timestamp::from_micros(0));
        }
        facts.push((SignalIndex(u16::try_from(rules.len()).unwrap()), fact));
        rules.push(rule);
    }
    (rules, facts)
}

#[test]
fn every_case_of_the_semantics_holds() {
    replay(include_str!("../../../../../tests/vectors/semantics.json"), 56);
}

#[test]
fn every_case_of_the_gates_holds() {
    replay(include_str!("../../../../../tests/vectors/gates.json"), 29);
}

/// Holds each case to its reason, to what each signal did, and to the demands for an approval that stand.
fn replay(vectors: &str, at_least: usize) {
    let vectors: Json = serde_json::from_str(vectors).unwrap();
    let cases = vectors["cases"].as_array().unwrap();
    assert!(cases.len() >= at_least);
    let mut wrong = Vec::new();
    for case in cases {
        let (rules, facts) = case_signals(case);
        let policies: Vec<&str> = case["policy"].as_array().unwrap().iter().map(|p| p.as_str().unwrap()).collect();
        let engine = below_the_loader(&policies, &rules);
        let slice = engine.slice(&query("transfer.create")).unwrap();
        let verdict = evaluate(&*slice, &rules, &facts);
        let effected: BTreeMap<&str, &str> = influence(&*slice, &rules, &facts, &verdict)
            .into_iter()
            .map(|(signal, what)| (rules[usize::from(signal.0)].name.as_str(), what.as_str()))
            .collect();
        let gates: Vec<&str> = verdict.gates.iter().map(|at| &*engine.policies()[*at as usize].id).collect();
        let expect = &case["expect"];
        let words = |list: &Json| -> Vec<String> {
            list.as_array().into_iter().flatten().map(|word| word.as_str().unwrap().to_owned()).collect()
        };
        let influences: BTreeMap<&str, &str> = expect["influence"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, what)| (name.as_str(), what.as_str().unwrap()))
            .collect();
        let reason = verdict.reason.code();
        if reason != expect["reason"] || effected != influences || gates != words(&expect["gates"]) {
            wrong.push(format!("{}: got {reason} {gates:?} {effected:?}, expected {expect}", case["id"]));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

fn findings_of(policy: &str, signals: &[SignalRule]) -> Vec<Finding> {
    let mut findings = Findings::default();
    let files = CedarFiles {
        schema: Some(SCHEMA),
        entities: Some("[]"),
        policies: &[("policies/p.cedar", policy)],
        links: &[],
    };
    let engine = CedarEngine::load(files, &actions(), signals, &mut findings);
    assert_eq!(engine.is_none(), findings.has_errors(), "{policy}");
    findings.into_sorted()
}

fn register() -> Vec<SignalRule> {
    let mut risk = rule("risk", "long", Influence::Observe, WhenUnavailable::Deny, false);
    risk.used_by = [ActionId::parse("transfer.create").unwrap()].into();
    let mut closing = rule("closing", "bool", Influence::Grant, WhenUnavailable::Deny, false);
    closing.used_by = [ActionId::parse("account.close").unwrap()].into();
    vec![
        closing,
        rule("device_trust", "long", Influence::Grant, WhenUnavailable::Deny, false),
        risk,
        rule("task_type", "string", Influence::Restrict, WhenUnavailable::Deny, true),
        rule("window", "bool", Influence::Restrict, WhenUnavailable::Deny, false),
    ]
}

#[test]
fn each_load_check_finds_its_mistake() {
    let transfer = "permit(principal, action == Action::\"transfer.create\", resource)";
    let cases = [
        ("{t} when { context.signals has device_trust && context.signals.device_trust >= 3 };", ""),
        ("{t} when { context.signals has devise_trust && context.signals.devise_trust >= 3 };", "unregistered_signal"),
        ("{t} when { context.signals.device_trust >= 3 };", "cedar"),
        ("{t} when { context.signals has closing && context.signals.closing };", "ungoverned_read"),
        ("{t} when { context.signals has risk && context.signals.risk < 3 };", "observed_signal"),
        ("{t} when { !(context.signals has device_trust) };", "permit_on_absence"),
        ("{t} unless { context.signals has device_trust && context.signals.device_trust < 3 };", "permit_on_absence"),
        ("{t} when { if context.signals has device_trust then context.signals.device_trust > 2 else false };", ""),
        (
            "{t} when { if context.signals has device_trust then context.signals.device_trust > 2 else true };",
            "permit_on_absence",
        ),
        ("{t} when { context.signals has task_type && context.signals.task_type == \"refund\" };", "permit_needs_word"),
        ("{t} when { context.signals has task_type || context.request.args.amount < 5 };", ""),
        ("{t} when { context has signals };", "context_whole"),
        ("{t} when { context.signals == {} };", "signals_whole"),
        ("{t} when { unknown(\"x\") };", ""),
        ("permit(principal, action == Action::\"transfer.creat\", resource);", "unknown_action"),
        ("permit(principal, action == Action::\"task.begn\", resource);", "unknown_action"),
        ("permit(principal == ?principal, action, resource);", "unlinked_template"),
        ("permit(principal, action, resource) when { resource == ?resource };", "syntax"),
        ("@reason(\"dual control, rule 12\") {t};", ""),
        ("@reason {t};", "bad_annotation"),
        ("@reason(\"one\\ntwo\") {t};", "bad_annotation"),
        ("@advice(\"ask the desk\") forbid(principal, action == Action::\"transfer.create\", resource);", ""),
        ("@advice(\"\") forbid(principal, action == Action::\"transfer.create\", resource);", "bad_annotation"),
        ("@advice(\"ask the desk\") {t};", "idle_advice"),
        ("@advise(\"ask the desk\") {t};", "unknown_annotation"),
        (
            "permit(principal, action, resource) when { context.signals has device_trust && context.signals.device_trust > 1 };",
            "ungoverned_read",
        ),
        ("@require_approval(\"May this be paid?\") {t};", ""),
        ("@require_approval(\"May this be paid?\") @mode(\"observe\") {t};", ""),
        ("@require_approval {t};", "bad_gate"),
        ("@require_approval(\"  \") {t};", "bad_gate"),
        ("@require_approval(\"one\\ntwo\") {t};", "bad_gate"),
        ("@require_approval(\"May it?\") permit(principal, action, resource);", "bad_gate"),
        ("@require_approval(\"May it?\") forbid(principal, action == Action::\"account.list\", resource);", "bad_gate"),
        ("@require_approval(\"May it?\") permit(principal, action == Action::\"task.begin\", resource);", "bad_gate"),
        ("@require_aproval(\"May it?\") {t};", "unknown_annotation"),
        ("@mode(\"enforce\") {t};", ""),
        ("@mode(\"observe\") {t} when { context.signals has risk && context.signals.risk < 3 };", ""),
        ("@mode(\"enforce\") {t} when { context.signals has risk && context.signals.risk < 3 };", "observed_signal"),
        ("@mode(\"observe\") {t} when { context.signals.risk < 3 };", "cedar"),
        ("@mode(\"observe\") {t} when { context.signals has rsik };", "unregistered_signal"),
        ("@mode(\"observe\") {t} when { context.signals has closing && context.signals.closing };", "ungoverned_read"),
        ("@mode(\"observe\") {t} when { !(context.signals has device_trust) };", "permit_on_absence"),
        ("@mode(\"obsreve\") {t};", "unknown_mode"),
        ("@mode(\"x\") {t};", "unknown_mode"),
        ("@mode {t};", "unknown_mode"),
        ("{t} when { context.signals has window && context.signals.window };", "permit_needs_word"),
        ("{t} when { context.signals has window && context.signals has device_trust };", "permit_needs_word"),
        ("{t} when { if context.signals has window then true else false };", "permit_needs_word"),
        ("{t} when { context.signals has window || context.signals has device_trust };", ""),
        ("forbid(principal, action == Action::\"transfer.create\", resource) when { context.signals has window };", ""),
        ("{t} when { false };", "never_matches"),
        ("{t} when { resource is Workload };", "never_matches"),
        ("permit(principal is Account, action == Action::\"transfer.create\", resource);", "never_matches"),
        ("permit(principal, action == Action::\"transfer.create\", resource is Role);", "never_matches"),
        ("permit(principal, action in [], resource);", "cedar"),
        ("permit(principal == Workload::\"agent\", action, resource);", "never_matches"),
        ("@Id(\"x\") {t};", "unknown_annotation"),
        ("permit(principal, action resource);", "syntax"),
    ];
    for (text, code) in cases {
        let text = text.replace("{t}", transfer);
        let found = findings_of(&text, &register());
        if text.contains("unknown(") {
            assert!(!found.is_empty(), "{text}");
            continue;
        }
        let codes: Vec<_> = found.iter().map(|f| f.code).collect();
        assert_eq!(codes.first().copied().unwrap_or(""), code, "{text}: {found:?}");
        assert!(found.iter().all(|f| f.place.line == 1 && f.file == "policies/p.cedar"), "{text}: {found:?}");
    }
}

#[test]
fn an_unlisted_entity_that_a_policy_asks_about_is_unknown_whatever_the_slice() {
    let asks = [
        "forbid(principal in Role::\"x\", action, resource);",
        "forbid(principal, action, resource) when { principal has owner };",
        "forbid(principal, action, resource == Account::\"7\") when { principal in Role::\"x\" };",
        "forbid(principal, action, resource) when { resource has owner && resource.owner == \"x\" };",
    ];
    for policy in asks {
        let engine = below_the_loader(&["permit(principal, action, resource);", policy], &[]);
        assert!(engine.slice(&query("transfer.create")).is_err(), "{policy}");
    }
    let engine = below_the_loader(
        &["permit(principal == Workload::\"spiffe://t/a\", action, resource == Account::\"42\");"],
        &[],
    );
    assert!(engine.slice(&query("transfer.create")).is_ok());
}

#[test]
fn a_slice_holds_the_policies_whose_scope_matches_and_no_other() {
    let policies = [
        "permit(principal, action, resource);",
        "permit(principal == Workload::\"spiffe://t/a\", action, resource);",
        "permit(principal == Workload::\"spiffe://t/b\", action, resource);",
        "permit(principal is Workload, action, resource is Account);",
        "permit(principal, action == Action::\"account.close\", resource);",
        "permit(principal, action in [Action::\"account.close\", Action::\"transfer.create\"], resource == Account::\"42\");",
        "permit(principal, action, resource == Account::\"7\");",
    ];
    let engine = below_the_loader(&policies, &[]);
    assert_eq!(engine.slice(&query("transfer.create")).unwrap().in_play(), [0, 1, 3, 5]);
    assert_eq!(engine.slice(&query("account.close")).unwrap().in_play(), [0, 1, 3, 4, 5]);
}

#[test]
fn every_mistake_of_the_entities_is_found_in_one_pass() {
    let mut findings = Findings::default();
    let schema = schema::load(Some(SCHEMA), &actions(), &[], &[], &mut findings).unwrap();
    let text = r#"[
        {"uid": {"type": "Workload", "id": "spiffe://t/a"}, "attrs": {"owner": 4}, "parents": []},
        {"uid": {"type": "Acount", "id": "x"}, "attrs": {}, "parents": []},
        {"uid": {"id": "x"}, "attrs": {}, "parents": []},
        {"uid": {"type": "Account", "id": "1"}, "attrs": {}, "parents": []},
        {"uid": {"type": "Account", "id": "1"}, "attrs": {}, "parents": []}
    ]"#;
    entities::load(Some(text), &schema.enforcing, &mut findings);
    let found: Vec<_> = findings.into_sorted().into_iter().map(|f| (f.place.line, f.code, f.message)).collect();
    let lines_and_codes: Vec<_> = found.iter().map(|(line, code, _)| (*line, *code)).collect();
    assert_eq!(lines_and_codes, [(2, "entity"), (3, "unknown_type"), (4, "unknown_type"), (6, "entity")], "{found:?}");
    assert!(found[1].2.contains("did you mean `Account`?"), "{found:?}");
}

#[test]
fn a_known_decimal_or_address_beside_an_unknown_hides_nothing() {
    let rules = [
        rule("origin", "ip", Influence::Grant, WhenUnavailable::Deny, false),
        rule("risk", "long", Influence::Grant, WhenUnavailable::Deny, false),
        rule("score", "decimal", Influence::Grant, WhenUnavailable::Deny, false),
    ];
    let fact = |state, value: Option<&str>, rule: &SignalRule| {
        let mut fact = Fact::missing(None, Assurance::Authoritative);
        fact.state = state;
        fact.value = value.and_then(|text| rule.kind.read_text(text));
        fact
    };
    let facts = [
        (SignalIndex(0), fact(State::Fresh, Some("10.0.0.1"), &rules[0])),
        (SignalIndex(1), fact(State::Missing, None, &rules[1])),
        (SignalIndex(2), fact(State::Fresh, Some("0.5"), &rules[2])),
    ];
    let outside = "context.signals has origin && !context.signals.origin.isInRange(ip(\"10.0.0.0/8\"))";
    let high = "context.signals has score && context.signals.score.greaterThan(decimal(\"0.7\"))";
    let risky = "context.signals has risk && context.signals.risk > 5";
    for (forbid, expected) in [
        (format!("({outside}) && ({risky})"), "allowed"),
        (format!("({outside}) && ({high}) && ({risky})"), "allowed"),
        (format!("({high} || {outside}) && ({risky})"), "allowed"),
        (format!("!({outside}) && !({high}) && ({risky})"), "signal_unavailable"),
    ] {
        let forbid = format!("forbid(principal, action, resource) when {{ {forbid} }};");
        let engine = below_the_loader(&["permit(principal, action, resource);", &forbid], &rules);
        let slice = engine.slice(&query("transfer.create")).unwrap();
        assert_eq!(evaluate(&*slice, &rules, &facts).reason.code(), expected, "{forbid}");
    }
}
