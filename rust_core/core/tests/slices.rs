//! Differential: our slices against unsliced Cedar. The same decision and the same determining policies, for
//! generated scopes over groups, types, principals and resources.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::needless_pass_by_value,
    missing_docs
)]

use cedar_policy::{Authorizer, Context, Entities, EntityUid, PolicySet, Request};
use proptest::{prelude::*, test_runner::TestRunner};
use signalwarden_core::{
    findings::{Findings, Place},
    model::{ActionId, ResourceId, SpiffeId, Tier, Timestamp},
    policy::{
        ActionRule, IdentityView, PolicyEngine, Query, RequestView,
        cedar::{CedarEngine, CedarFiles},
        reasoning::{Truth, evaluate},
    },
    reason::Reason,
};
use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

const CASES: u32 = 3_000;
const SCHEMA: &str = "entity Role in [Role]; entity Workload in [Role] = { team?: String }; entity Folder in [Folder]; \
                      entity Account in [Folder] = { owner?: String }; entity Vault in [Folder];";
const ENTITIES: &str = r#"[
    {"uid": {"type": "Role", "id": "ops"}, "attrs": {}, "parents": [{"type": "Role", "id": "all"}]},
    {"uid": {"type": "Role", "id": "all"}, "attrs": {}, "parents": []},
    {"uid": {"type": "Workload", "id": "spiffe://t/a"}, "attrs": {"team": "x"}, "parents": [{"type": "Role", "id": "ops"}]},
    {"uid": {"type": "Workload", "id": "spiffe://t/b"}, "attrs": {}, "parents": [{"type": "Role", "id": "all"}]},
    {"uid": {"type": "Workload", "id": "spiffe://t/c"}, "attrs": {}, "parents": []},
    {"uid": {"type": "Folder", "id": "f"}, "attrs": {}, "parents": [{"type": "Folder", "id": "top"}]},
    {"uid": {"type": "Folder", "id": "top"}, "attrs": {}, "parents": []},
    {"uid": {"type": "Account", "id": "1"}, "attrs": {"owner": "x"}, "parents": [{"type": "Folder", "id": "f"}]},
    {"uid": {"type": "Account", "id": "2"}, "attrs": {}, "parents": []},
    {"uid": {"type": "Vault", "id": "1"}, "attrs": {}, "parents": [{"type": "Folder", "id": "top"}]}
]"#;
const PRINCIPALS: &[&str] = &["spiffe://t/a", "spiffe://t/b", "spiffe://t/c"];
const RESOURCES: &[(&str, &str)] = &[("Account", "1"), ("Account", "2"), ("Vault", "1")];
const ACTIONS: &[&str] = &["read", "write", "close"];

fn policy() -> impl Strategy<Value = String> {
    let principal = prop::sample::select(vec![
        "principal",
        "principal == Workload::\"spiffe://t/a\"",
        "principal == Workload::\"spiffe://t/b\"",
        "principal in Role::\"ops\"",
        "principal in Role::\"all\"",
        "principal is Workload",
        "principal is Workload in Role::\"all\"",
        "principal in Workload::\"spiffe://t/c\"",
    ]);
    let action = prop::sample::select(vec![
        "action",
        "action == Action::\"read\"",
        "action == Action::\"write\"",
        "action in [Action::\"read\", Action::\"close\"]",
    ]);
    let resource = prop::sample::select(vec![
        "resource",
        "resource == Account::\"1\"",
        "resource == Vault::\"1\"",
        "resource in Folder::\"f\"",
        "resource in Folder::\"top\"",
        "resource is Account",
        "resource is Vault in Folder::\"top\"",
        "resource is Account in Folder::\"top\"",
    ]);
    let when = prop::sample::select(vec![
        "",
        " when { principal has team && principal.team == \"x\" }",
        " when { principal in Role::\"ops\" }",
        " unless { resource in Folder::\"f\" }",
        " when { context.request.method == \"GET\" }",
    ]);
    (prop::bool::weighted(0.6), principal, action, resource, when)
        .prop_map(|(permit, p, a, r, w)| format!("{}({p}, {a}, {r}){w};", if permit { "permit" } else { "forbid" }))
}

fn actions() -> Vec<ActionRule> {
    let action = |name: &&str| ActionRule {
        id: ActionId::parse(name).unwrap(),
        tier: Tier::Runtime,
        grant_required: false,
        resource_types: BTreeSet::from(["Account".into(), "Vault".into()]),
        args: BTreeMap::new(),
        place: Place::default(),
    };
    ACTIONS.iter().map(action).collect()
}

/// The same policy as a template and its link, where its scope names an entity: the entity goes into a slot.
fn as_link(policy: &str, n: usize) -> Option<(String, String)> {
    let (mut template, mut slots) = (policy.to_owned(), String::new());
    for side in ["principal", "resource"] {
        let scope = template.split(')').next()?.to_owned();
        let (from, _) = scope.match_indices(side).find(|(at, _)| scope[..*at].ends_with(['(', ' ']))?;
        let part = scope[from..].split(',').next()?;
        if let Some((before, uid)) = part.split_once("== ").or_else(|| part.split_once("in ")) {
            let operator = if part.contains("== ") { "== " } else { "in " };
            template = template.replacen(part, &format!("{before}{operator}?{side}"), 1);
            let _ = write!(slots, ", {side}: '{}'", uid.trim());
        }
    }
    let link = format!("  - {{id: policy{n}, template: t{n}{slots}}}\n");
    (!slots.is_empty()).then(|| (format!("@id(\"t{n}\") {template}\n"), link))
}

#[test]
fn slices_and_unsliced_cedar_agree_on_decision_and_determining_policies() {
    let (compared, links_tried) = (Cell::new(0_u32), Cell::new(0_u32));
    let picks = (prop::sample::select(PRINCIPALS), prop::sample::select(RESOURCES), prop::sample::select(ACTIONS));
    let linked = prop::collection::vec(any::<bool>(), 12);
    let strategy = (prop::collection::vec(policy(), 1..12), linked, picks);
    let mut runner =
        TestRunner::new(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() });
    let result = runner.run(&strategy, |(policies, linked, (principal, (kind, id), action))| {
        // Ids on both sides, so that determining policies can be compared.
        let (mut text, mut links) = (String::new(), String::from("links:\n"));
        for (n, policy) in policies.iter().enumerate() {
            match as_link(policy, n).filter(|_| linked[n]) {
                Some((template, link)) => {
                    text.push_str(&template);
                    links.push_str(&link);
                    links_tried.set(links_tried.get() + 1);
                }
                None => drop(writeln!(text, "@id(\"policy{n}\") {policy}")),
            }
        }
        let links: &[(&str, &str)] = if links.len() > 7 { &[("policies/links.yaml", &links)] } else { &[] };
        let mut findings = Findings::default();
        let files = CedarFiles {
            schema: Some(SCHEMA),
            entities: Some(ENTITIES),
            policies: &[("policies/p.cedar", &text)],
            links,
        };
        let Some(engine) = CedarEngine::load(files, &actions(), &[], &mut findings) else {
            // The strict validator refuses a scope that can't match (Vault within Account's folder and the like).
            return Ok(());
        };
        let identity = IdentityView::of("x509", "t", true);
        let (who, what) = (SpiffeId::parse(principal).unwrap(), ActionId::parse(action).unwrap());
        let resource = ResourceId { kind: kind.into(), id: id.into() };
        let query = Query {
            request: RequestView { method: "GET".into(), ..RequestView::default() },
            ..Query::of(who, what, Tier::Runtime, resource, identity, Timestamp::from_micros(0))
        };
        let slice = engine.slice(&query).unwrap();
        let verdict = evaluate(&*slice, &[], &[]);
        let ours: BTreeSet<String> = verdict
            .truths
            .iter()
            .enumerate()
            .filter(|(_, truth)| **truth == Truth::Certain)
            .map(|(at, _)| slice.info(at))
            .filter(|info| {
                signalwarden_core::policy::Effect::Permit == info.effect || verdict.reason == Reason::PolicyDenied
            })
            .filter(|info| {
                verdict.reason != Reason::PolicyDenied || info.effect == signalwarden_core::policy::Effect::Forbid
            })
            .map(|info| info.id.to_string())
            .collect();

        let set: PolicySet = policies.join("\n").parse().unwrap();
        let uid = |text: String| text.parse::<EntityUid>().unwrap();
        let context =
            serde_json::json!({"request": {"method": "GET", "path": "", "host": "", "args": {}}, "signals": {}});
        let request = Request::new(
            uid(format!("Workload::\"{principal}\"")),
            uid(format!("Action::\"{action}\"")),
            uid(format!("{kind}::\"{id}\"")),
            Context::from_json_value(context, None).unwrap(),
            None,
        )
        .unwrap();
        let entities = Entities::from_json_str(ENTITIES, None).unwrap();
        let plain = Authorizer::new().is_authorized(&request, &set, &entities);
        let theirs: BTreeSet<String> = plain.diagnostics().reason().map(ToString::to_string).collect();
        prop_assert_eq!(plain.decision() == cedar_policy::Decision::Allow, verdict.reason == Reason::Allowed);
        prop_assert_eq!(ours, theirs);
        compared.set(compared.get() + 1);
        Ok(())
    });
    println!(
        "slices: {} of {CASES} cases compared with unsliced Cedar, {} policies as links of templates",
        compared.get(),
        links_tried.get()
    );
    result.unwrap();
    assert!(compared.get() > CASES / 2, "too few cases to prove anything: {}", compared.get());
}
