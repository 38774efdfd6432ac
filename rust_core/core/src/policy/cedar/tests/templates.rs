//! Facts about templates and the policies that links make of them.

use super::*;
use crate::reason::Reason;

const TEMPLATES: &str = "@id(\"pay-from\") @reason(\"one desk, one account\")\n\
    permit(principal == ?principal, action == Action::\"transfer.create\", resource == ?resource);\n\
    @id(\"desk\") forbid(principal in ?principal, action, resource);\n";
const ENTITIES: &str = r#"[
    {"uid": {"type": "Role", "id": "closed"}, "attrs": {}, "parents": []},
    {"uid": {"type": "Workload", "id": "spiffe://t/a"}, "attrs": {}, "parents": []},
    {"uid": {"type": "Workload", "id": "spiffe://t/b"}, "attrs": {}, "parents": [{"type": "Role", "id": "closed"}]}
]"#;
const GOOD: &str = "links:\n  \
    - {id: a-pays, template: pay-from, principal: 'Workload::\"spiffe://t/a\"', resource: 'Account::\"42\"'}\n  \
    - {id: b-pays, template: pay-from, principal: 'Workload::\"spiffe://t/b\"', resource: 'Account::\"42\"'}\n  \
    - {id: closed-desks, template: desk, principal: 'Role::\"closed\"'}\n";

fn load(templates: &str, links: &[(&str, &str)]) -> (Option<CedarEngine>, Vec<Finding>) {
    let mut findings = Findings::default();
    let policies = [("policies/p.cedar", templates)];
    let files = CedarFiles { schema: Some(SCHEMA), entities: Some(ENTITIES), policies: &policies, links };
    let engine = CedarEngine::load(files, &actions(), &register(), &mut findings);
    (engine, findings.into_sorted())
}

fn asked_by(principal: &str, account: &str) -> Query {
    Query {
        principal: SpiffeId::parse(principal).unwrap(),
        resource: ResourceId { kind: "Account".into(), id: account.into() },
        ..query("transfer.create")
    }
}

#[test]
fn each_link_is_a_policy_of_its_own_in_the_slices_of_its_entities() {
    let (engine, findings) = load(TEMPLATES, &[("policies/desks.links.yaml", GOOD)]);
    assert!(findings.is_empty(), "{findings:?}");
    let engine = engine.unwrap();
    let infos: Vec<_> = engine.policies().iter().map(|info| (&*info.id, info.template.as_deref())).collect();
    let expected = [("a-pays", Some("pay-from")), ("b-pays", Some("pay-from")), ("closed-desks", Some("desk"))];
    assert_eq!(infos, expected);
    let first = &engine.policies()[0];
    assert_eq!((&*first.file, first.place.line), ("policies/desks.links.yaml", 2));
    assert_eq!(first.note.as_deref(), Some("one desk, one account"));
    for (principal, account, in_play, reason) in [
        ("spiffe://t/a", "42", &[0][..], Reason::Allowed),
        ("spiffe://t/a", "43", &[], Reason::NoPolicyPermits),
        ("spiffe://t/b", "42", &[1, 2], Reason::PolicyDenied),
    ] {
        let slice = engine.slice(&asked_by(principal, account)).unwrap();
        assert_eq!(slice.in_play(), in_play, "{principal} {account}");
        assert_eq!(evaluate(&*slice, &register(), &[]).reason, reason, "{principal} {account}");
    }
}

#[test]
fn links_of_one_template_differ_in_their_digests_and_not_with_their_place() {
    let (engine, _) = load(TEMPLATES, &[("policies/links.yaml", GOOD)]);
    let (moved, _) = load(TEMPLATES, &[("policies/a/links.yaml", &GOOD.replace("links:\n", "links:\n\n\n"))]);
    let digests = |engine: Option<CedarEngine>| -> Vec<String> {
        engine.unwrap().policies().iter().map(|info| info.text_sha256.clone()).collect()
    };
    let (engine, moved) = (digests(engine), digests(moved));
    assert_eq!(engine, moved);
    assert_eq!(engine.iter().collect::<BTreeSet<_>>().len(), 3);
}

#[test]
fn every_mistake_of_a_link_is_found_at_its_place() {
    let link = |rest: &str| format!("links:\n  - {{{rest}}}\n");
    let a = "principal: 'Workload::\"spiffe://t/a\"'";
    let r = "resource: 'Account::\"42\"'";
    let cases = [
        (link(&format!("id: x, template: pay-form, {a}, {r}")), "unknown_template", "did you mean `pay-from`?"),
        (link(&format!("id: x, template: pay-from, {a}")), "link_slot", "`resource` is missing"),
        (link(&format!("id: x, template: desk, {a}, {r}")), "link_slot", "has no slot `?resource`"),
        (link(&format!("id: desk, template: pay-from, {a}, {r}")), "duplicate_id", "policies/p.cedar:3"),
        (link(&format!("id: x, template: pay-from, principal: Workload, {r}")), "bad_entity", "`Account::\"42\"`"),
        (link(&format!("id: x, template: pay-from, principal: 'Workload::\"a\" in b', {r}")), "bad_entity", "found"),
        (link(&format!("id: '', template: pay-from, {a}, {r}")), "empty_text", "`id`"),
        (link(&format!("template: pay-from, {a}, {r}")), "missing_key", "`id`"),
        (link(&format!("id: x, tempalte: pay-from, {a}, {r}")), "unknown_key", "did you mean `template`?"),
        (link(&format!("id: x, template: 3, {a}, {r}")), "wrong_type", "template"),
        (link(&format!("id: x, template: pay-from, principal: 'Worklaod::\"a\"', {r}")), "unknown_type", "`Workload`?"),
        ("links: x\n".to_owned(), "wrong_type", "a list"),
        ("link: []\n".to_owned(), "missing_key", "`links`"),
        ("links: [3]\n".to_owned(), "wrong_type", "links"),
    ];
    for (links, code, says) in cases {
        let (engine, findings) = load(TEMPLATES, &[("policies/links.yaml", &links)]);
        assert!(engine.is_none(), "{links}");
        let found = findings.iter().find(|finding| finding.code == code);
        let found = found.unwrap_or_else(|| panic!("{links}: {findings:?}"));
        assert_eq!((found.file.as_str(), found.place.line > 0), ("policies/links.yaml", true), "{findings:?}");
        assert!(found.message.contains(says), "{links}: {findings:?}");
    }
}

#[test]
fn a_link_that_nothing_can_match_is_warned_of_at_its_place() {
    for (slots, line) in [
        ("principal: 'Account::\"7\"', resource: 'Account::\"42\"'", "types that it asks for"),
        ("principal: 'Workload::\"spiffe://t/a\"', resource: 'Role::\"closed\"'", "types that it asks for"),
        ("principal: 'Workload::\"a\"', resource: 'Account::\"42\"'", "is no SPIFFE ID"),
    ] {
        let links = format!("{GOOD}  - {{id: idle, template: pay-from, {slots}}}\n");
        let (engine, findings) = load(TEMPLATES, &[("policies/links.yaml", &links)]);
        assert!(engine.is_some(), "{findings:?}");
        let found: Vec<_> = findings.iter().map(|f| (f.code, f.file.as_str(), f.place.line)).collect();
        assert_eq!(found, [("never_matches", "policies/links.yaml", 5)], "{findings:?}");
        assert!(findings[0].message.contains(line), "{findings:?}");
    }
}

#[test]
fn a_mistake_of_a_template_is_found_once_however_many_links_there_are() {
    let templates =
        TEMPLATES.replace("resource == ?resource)", "resource == ?resource) when { context.signals.closing }");
    let (_, findings) = load(&templates, &[("policies/links.yaml", GOOD)]);
    let found: Vec<_> = findings.iter().map(|f| (f.code, f.file.as_str(), f.place.line)).collect();
    assert_eq!(found, [("ungoverned_read", "policies/p.cedar", 2)], "{findings:?}");
}

#[test]
fn a_template_without_a_link_is_warned_of_and_decides_nothing() {
    let (engine, findings) = load(TEMPLATES, &[]);
    let found: Vec<_> = findings.iter().map(|f| (f.code, f.place.line)).collect();
    assert_eq!(found, [("unlinked_template", 1), ("unlinked_template", 3)], "{findings:?}");
    let engine = engine.unwrap();
    assert!(engine.policies().is_empty());
    // A file of Cedar is there, so Cedar is asked: it permits nothing.
    let slice = engine.slice(&asked_by("spiffe://t/a", "42")).unwrap();
    assert_eq!(evaluate(&*slice, &register(), &[]).reason, Reason::NoPolicyPermits);
    assert!(engine.is_asked(&ActionId::parse("transfer.create").unwrap()));
}

#[test]
fn what_a_broken_file_may_hold_is_not_missed() {
    let (_, findings) = load("permit (principal;", &[("policies/links.yaml", GOOD)]);
    assert!(findings.iter().all(|finding| finding.code == "syntax"), "{findings:?}");
    let (_, findings) = load(TEMPLATES, &[("policies/links.yaml", "links: [\n")]);
    assert!(findings.iter().all(|finding| finding.code == "yaml_syntax"), "{findings:?}");
}
