//! Cedar's own validator, which holds every policy against every action, finds what ours finds.

use super::*;
use crate::policy::cedar::schema::label;
use cedar_policy::{PolicySet, ValidationMode, ValidationWarning, Validator};
use cedar_policy_core::ast;
use std::collections::HashSet;

/// Actions of four forms: with and without an argument, of other resources, with a grant.
fn many_actions() -> Vec<ActionRule> {
    let mut all = actions();
    let mut jit = all[0].clone();
    (jit.id, jit.tier) = (ActionId::parse("vault.open").unwrap(), Tier::Jit);
    let mut plain = all[0].clone();
    (plain.id, plain.args) = (ActionId::parse("account.read").unwrap(), BTreeMap::new());
    let mut roles = plain.clone();
    (roles.id, roles.resource_types) = (ActionId::parse("role.read").unwrap(), BTreeSet::from(["Role".into()]));
    let mut both = plain.clone();
    (both.id, both.resource_types) =
        (ActionId::parse("any.read").unwrap(), BTreeSet::from(["Role".into(), "Account".into()]));
    all.extend([jit, plain, roles, both]);
    all
}

const SCOPES: &[&str] = &[
    "principal, action, resource",
    "principal is Account, action, resource",
    "principal == Role::\"x\", action, resource",
    "principal in Account::\"x\", action == Action::\"role.read\", resource",
    "principal is Workload in Role::\"x\", action == Action::\"any.read\", resource",
    "principal, action == Action::\"transfer.create\", resource",
    "principal, action == Action::\"role.read\", resource is Account",
    "principal, action in [Action::\"role.read\", Action::\"account.read\"], resource is Account",
    "principal, action in [Action::\"role.read\", Action::\"vault.open\"], resource in Role::\"x\"",
    "principal, action in [Action::\"vault.open\", Action::\"vault.open\"], resource",
    "principal, action in [], resource",
    "principal, action == Action::\"task.begin\", resource",
    "principal, action in [Action::\"task.begin\", Action::\"role.read\"], resource",
    "principal is Nothing, action, resource",
    "principal, action, resource == Acount::\"x\"",
    "principal == ?principal, action, resource in ?resource",
    "principal in ?principal, action == Action::\"role.read\", resource",
    "principal is Workload in ?principal, action, resource == ?resource",
];
const CONDITIONS: &[&str] = &[
    "",
    "when { context.request.args.amount > 3 }",
    "when { context.request.args has amount && context.request.args.amount > 3 }",
    "when { context.request.args.note == \"x\" }",
    "when { context.grant.task == \"x\" }",
    "when { context.request.method == 3 }",
    "when { context.request.path == \"x\" || context.nothing }",
    "when { action == Action::\"vault.open\" && context.grant.task == \"x\" }",
    "when { action == Action::\"role.read\" }",
    "when { action == Action::\"vault.opne\" }",
    "when { action in [Action::\"vault.open\", Action::\"role.read\"] && context.identity.bound }",
    "when { principal.owner == \"x\" }",
    "when { principal has owner && principal.owner == \"x\" }",
    "when { resource.owner == principal.device }",
    "when { resource has owner && resource.owner == \"x\" }",
    "when { resource is Role }",
    "when { resource is Account && resource has owner }",
    "when { false }",
    "when { principal in Role::\"x\" && resource in Nobody::\"x\" }",
    "when { principal == resource }",
    "when { context.request.host == \"раypal\" }",
    "when { [].contains(principal) }",
    "when { ip(\"10.0.0.1/99\").isLoopback() }",
    "unless { context.request.args.amount > \"x\" && resource == Role::\"y\" }",
];

/// Line, code and sentence.
type Found = BTreeSet<(u32, &'static str, String)>;

fn ours(text: &str) -> (Found, BTreeSet<Arc<str>>) {
    check(text, |texts, parsed, checked, schemas, known, findings| {
        let mut idle = HashSet::new();
        crate::policy::cedar::validate::validate((texts, parsed), checked, schemas, known, &mut idle, findings);
        idle.into_iter().collect()
    })
}

/// As it was done before: the whole set against the whole schema.
fn theirs(text: &str) -> (Found, BTreeSet<Arc<str>>) {
    check(text, |texts, _, checked, schemas, _, findings| {
        let mut idle = BTreeSet::new();
        for (mode, built_in, schema) in schemas.all() {
            let mut set = ast::PolicySet::new();
            let mut by_id = BTreeMap::new();
            for (text, checked) in texts.iter().zip(checked) {
                if checked.clean && checked.built_in == built_in && text.said.mode == mode {
                    match ast::Template::try_as_policy(Arc::clone(&text.template)) {
                        Ok(policy) => set.add(policy).unwrap(),
                        Err(_) => set.add_template((*text.template).clone()).unwrap(),
                    }
                    by_id.insert(text.id.to_string(), text);
                }
            }
            let result = Validator::new(schema.clone()).validate(&PolicySet::from(set), ValidationMode::Strict);
            let place = |id: &str, error: &dyn miette::Diagnostic| {
                let text = by_id[id];
                (text, Some(label(&text.lines, error)).filter(|place| place.line > 0).unwrap_or(text.place))
            };
            for error in result.validation_errors() {
                let (text, at) = place(error.policy_id().as_ref(), error);
                findings.error(&text.file, at, "cedar", plain(&sentence(error)));
            }
            let (scope, others): (Vec<_>, Vec<_>) = result
                .validation_warnings()
                .partition(|warning| matches!(warning, ValidationWarning::InvalidActionApplication(_)));
            for warning in scope.into_iter().chain(others) {
                let (text, at) = place(warning.policy_id().as_ref(), warning);
                let why = match warning {
                    ValidationWarning::InvalidActionApplication(_) => {
                        "no action of its scope has a principal and a resource of the types that it asks for; \
                         principals are of type `Workload`"
                    }
                    ValidationWarning::ImpossiblePolicy(_) => "its condition is false for every action that it matches",
                    _ => {
                        findings.warning(&text.file, at, "cedar", plain(&sentence(warning)));
                        continue;
                    }
                };
                if idle.insert(Arc::clone(&text.id)) {
                    let message = format!("this policy can never apply: {why}");
                    findings.warning(&text.file, at, "never_matches", message);
                }
            }
        }
        idle
    })
}

fn plain(sentence: &str) -> String {
    sentence
        .strip_prefix("for policy `")
        .and_then(|rest| rest.split_once("`, "))
        .map_or(sentence, |(_, rest)| rest)
        .to_owned()
}

type Validate = fn(
    &[Arc<texts::Text>],
    &[texts::Parsed],
    &[checks::Checked],
    &schema::Schemas,
    &checks::Vocabulary<'_>,
    &mut Findings,
) -> BTreeSet<Arc<str>>;

fn check(text: &str, validate: Validate) -> (Found, BTreeSet<Arc<str>>) {
    let mut findings = Findings::default();
    let (texts, taken) = texts::parse(&[("policies/p.cedar", text)], &mut findings);
    let parsed = links::policies(&texts, taken, &[], &mut Findings::default());
    let kinds: Vec<_> = texts.iter().map(|text| (text.said.mode, checks::names_built_in(&text.template))).collect();
    let signals = register();
    let schemas = schema::load(Some(SCHEMA), &many_actions(), &signals, &kinds, &mut findings).unwrap();
    let actions: Vec<_> = many_actions().into_iter().chain(built_in::rules()).collect();
    let known = checks::Vocabulary::new(&actions, &signals);
    let checked = checks::check(&texts, &known, &mut findings);
    let before = findings.as_slice().len();
    let idle = validate(&texts, &parsed, &checked, &schemas, &known, &mut findings);
    // Of names that are equally near Cedar suggests any.
    let said = |message: &str| message.split("; did you mean").next().unwrap_or_default().to_owned();
    let found = findings.as_slice()[before..].iter().map(|f| (f.place.line, f.code, said(&f.message))).collect();
    (found, idle)
}

#[test]
fn a_policy_held_against_its_own_actions_is_found_to_be_what_it_is_against_all() {
    let mut compared = 0;
    for effect in ["permit", "forbid", "@mode(\"observe\") permit"] {
        let lines = SCOPES.iter().flat_map(|scope| CONDITIONS.iter().map(move |condition| (scope, condition)));
        let lines: Vec<String> = lines.map(|(scope, condition)| format!("{effect}({scope}) {condition};")).collect();
        let text = lines.join("\n");
        let (ours, theirs) = (ours(&text), theirs(&text));
        for (found, by) in [(theirs.0.difference(&ours.0), "Cedar"), (ours.0.difference(&theirs.0), "ours")] {
            let told: Vec<_> = found.map(|(line, code, said)| (code, said, &lines[*line as usize - 1])).collect();
            assert!(told.is_empty(), "found by {by} alone: {told:#?}");
        }
        assert_eq!(ours.1, theirs.1);
        compared += ours.0.len();
    }
    assert!(compared > 1_000, "too few findings to prove anything: {compared}");
}
