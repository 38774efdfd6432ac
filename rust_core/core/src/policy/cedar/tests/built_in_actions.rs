//! Facts about policies for built-in actions, about demands for an approval, and about grant, chain and approval in the
//! context.

use super::*;
use crate::{
    model::{Environment, Sensitivity},
    policy::{BuiltInRequest, ChainView, GrantView},
    reason::Reason,
};

const BEGIN: &str = "permit(principal, action == Action::\"task.begin\", resource == TaskType::\"invoice_run\")";

fn load(
    schema: &str,
    policies: &str,
    actions: &[ActionRule],
    signals: &[SignalRule],
) -> Result<CedarEngine, Vec<Finding>> {
    let mut findings = Findings::default();
    let files = CedarFiles {
        schema: Some(schema),
        entities: Some("[]"),
        policies: &[("policies/p.cedar", policies)],
        links: &[],
    };
    CedarEngine::load(files, actions, signals, &mut findings).ok_or_else(|| findings.into_sorted())
}

fn engine(policies: &str) -> CedarEngine {
    load(SCHEMA, policies, &actions(), &register()).unwrap()
}

fn codes(schema: &str, policies: &str) -> Vec<&'static str> {
    match load(schema, policies, &actions(), &register()) {
        Ok(_) => Vec::new(),
        Err(findings) => findings.iter().map(|finding| finding.code).collect(),
    }
}

fn reason(engine: &CedarEngine, query: &Query) -> Reason {
    evaluate(&*engine.slice(query).unwrap(), &register(), &[]).reason
}

fn asks(action: &str, kind: &str, id: &str) -> Query {
    let text = |words: &[&str]| words.iter().map(|word| (*word).into()).collect();
    Query {
        resource: ResourceId { kind: kind.into(), id: id.into() },
        request: RequestView::default(),
        built_in: Some(BuiltInRequest {
            principal: SpiffeId::parse("spiffe://t/agent").unwrap(),
            actions: [ActionId::parse("transfer.create").unwrap()].into(),
            resources: text(&["Account::\"42\""]),
            sensitivity: Some(Sensitivity::High),
            environment: Environment::parse("prod"),
        }),
        ..query(action)
    }
}

#[test]
fn a_built_in_action_is_reached_only_by_a_scope_that_names_it() {
    let begin = asks("task.begin", "TaskType", "invoice_run");
    let cases = [
        ("permit(principal, action, resource);", Reason::NoPolicyPermits),
        ("permit(principal, action == Action::\"task.begin\", resource);", Reason::Allowed),
        (
            "permit(principal, action in [Action::\"task.begin\", Action::\"transfer.create\"], resource);",
            Reason::Allowed,
        ),
        ("permit(principal, action in Action::\"task.begin\", resource);", Reason::Allowed),
        ("permit(principal, action == Action::\"task.delegate\", resource);", Reason::NoPolicyPermits),
        ("permit(principal, action == Action::\"task.begin\", resource is TaskType);", Reason::Allowed),
        (
            "permit(principal, action == Action::\"task.begin\", resource == TaskType::\"refund_run\");",
            Reason::NoPolicyPermits,
        ),
        (
            "permit(principal, action == Action::\"task.begin\", resource);\nforbid(principal, action, resource);",
            Reason::Allowed,
        ),
    ];
    for (policies, expected) in cases {
        assert_eq!(reason(&engine(policies), &begin), expected, "{policies}");
    }
    // And the other way round: a policy that names one says nothing of calls.
    let engine = engine(&format!("{BEGIN};"));
    assert_eq!(reason(&engine, &query("transfer.create")), Reason::NoPolicyPermits);
    let can = |name: &str| engine.can_permit(&ActionId::parse(name).unwrap());
    assert!(can("task.begin") && !can("task.delegate") && !can("transfer.create"));
}

#[test]
fn what_a_built_in_action_asks_for_stands_in_its_request() {
    let begin = asks("task.begin", "TaskType", "invoice_run");
    let met = [
        "context.request.for == \"spiffe://t/agent\"",
        "context.request.actions.contains(\"transfer.create\") && !context.request.actions.contains(\"pay\")",
        "context.request.resources == [\"Account::\\\"42\\\"\"]",
        "context.request has sensitivity && context.request.sensitivity == \"high\"",
        "context.request has environment && context.request.environment == \"prod\"",
        "context.identity.bound && !(context.identity has actor)",
        "context.signals has device_trust || resource == TaskType::\"invoice_run\"",
    ];
    let mut signals = register();
    signals[1].used_by.insert(ActionId::parse("task.begin").unwrap());
    let mut little = begin.clone();
    let asked = little.built_in.as_mut().unwrap();
    (asked.sensitivity, asked.environment) = (None, None);
    for condition in met {
        let policies = format!("{BEGIN} when {{ {condition} }};");
        let engine =
            load(SCHEMA, &policies, &actions(), &signals).unwrap_or_else(|found| panic!("{condition}: {found:?}"));
        let judge = |query: &Query| {
            let facts = [(SignalIndex(1), Fact::missing(None, Assurance::Authoritative))];
            evaluate(&*engine.slice(query).unwrap(), &signals, &facts).reason
        };
        assert_eq!(judge(&begin), Reason::Allowed, "{condition}");
        let optional = condition.contains("request has");
        assert_eq!(judge(&little), if optional { Reason::NoPolicyPermits } else { Reason::Allowed }, "{condition}");
    }
}

#[test]
fn the_resource_of_a_built_in_action_is_never_unknown_and_its_principal_may_be() {
    let within = engine("permit(principal, action == Action::\"approval.give\", resource in Approval::\"7\");");
    assert_eq!(reason(&within, &asks("approval.give", "Approval", "7")), Reason::Allowed);
    assert_eq!(reason(&within, &asks("approval.give", "Approval", "8")), Reason::NoPolicyPermits);
    let role = engine("permit(principal in Role::\"approvers\", action == Action::\"approval.give\", resource);");
    assert!(role.slice(&asks("approval.give", "Approval", "7")).is_err());
}

#[test]
fn each_mistake_about_built_in_actions_is_found() {
    let give = "permit(principal, action == Action::\"approval.give\", resource)";
    let cases = [
        ("{} when { context.request.method == \"GET\" };", "cedar"),
        ("{} when { context.request.sensitivity == \"high\" };", "cedar"),
        ("{} when { resource.owner == \"x\" };", "cedar"),
        ("{} when { context.signals has device_trust };", "ungoverned_read"),
        ("{} when { context.chain.depth < 2 };", "cedar"),
        ("permit(principal, action == Action::\"transfer.create\", resource) when { resource is Task };", "cedar"),
        (
            "permit(principal, action == Action::\"transfer.create\", resource) when { action == Action::\"task.begin\" };",
            "cedar",
        ),
    ];
    for (policy, code) in cases {
        let policy = policy.replace("{}", give);
        assert!(codes(SCHEMA, &policy).contains(&code), "{policy}");
    }
    for own in
        ["entity Task;", "entity TaskType = { a: Long };", "entity Approval in [Role];", "type Task = { a: Long };"]
    {
        assert_eq!(codes(&format!("{SCHEMA} {own}"), ""), ["reserved_type"], "{own}");
    }
    assert_eq!(codes(&format!("{SCHEMA} namespace Bank {{ entity Task; }}"), ""), ["reserved_type"]);
    assert!(codes(&format!("{SCHEMA} namespace Task {{ entity Note; }}"), &format!("{give};")).is_empty());
    let mut routes = actions();
    routes[0].resource_types = ["Approval".into()].into();
    let found = load(SCHEMA, "", &routes, &[]).err().unwrap_or_default();
    assert_eq!(found.iter().map(|f| (f.file.as_str(), f.code)).collect::<Vec<_>>(), [("routes.yaml", "reserved_type")]);
}

#[test]
fn an_observing_policy_of_a_built_in_action_is_judged_beside_the_others() {
    let mut signals = register();
    // Of `risk` nothing but observing is allowed.
    signals[2].used_by.insert(ActionId::parse("task.begin").unwrap());
    let watch = "@mode(\"observe\") forbid(principal, action == Action::\"task.begin\", resource) \
                 when { context.signals has risk && context.signals.risk > 5 };";
    let engine = load(SCHEMA, &format!("{BEGIN};\n{watch}"), &actions(), &signals).unwrap();
    let begin = asks("task.begin", "TaskType", "invoice_run");
    assert_eq!(engine.slice(&begin).unwrap().in_play(), [0]);
    assert_eq!(engine.slice_observing(&begin).unwrap().slice.in_play(), [0, 1]);
    assert_eq!(engine.watched(&begin.action), [SignalIndex(2)]);
}

#[test]
fn a_demand_is_part_of_the_policy_and_of_its_digest() {
    let plain = "permit(principal, action == Action::\"transfer.create\", resource);";
    let gated = format!("@require_approval(\"May it?\") {plain}");
    let other = format!("@require_approval(\"May it, please?\") {plain}");
    let digests: BTreeSet<String> =
        [plain, &gated, &other].iter().map(|text| engine(text).policies()[0].text_sha256.clone()).collect();
    assert_eq!(digests.len(), 3);
    assert_eq!(engine(&gated).policies()[0].require_approval.as_deref(), Some("May it?"));
    assert_eq!(engine(plain).policies()[0].require_approval, None);
}

#[test]
fn an_action_has_gates_where_an_enforced_demand_can_reach_it() {
    let cases = [
        ("@require_approval(\"May it?\") forbid(principal, action == Action::\"transfer.create\", resource);", true),
        ("@require_approval(\"May it?\") permit(principal, action == Action::\"account.close\", resource);", false),
        (
            "@require_approval(\"x\") @mode(\"observe\") forbid(principal, action == Action::\"transfer.create\", resource);",
            false,
        ),
        ("@require_approval(\"x\") forbid(principal, action == Action::\"transfer.create\", resource is Role);", false),
        ("forbid(principal, action == Action::\"transfer.create\", resource);", false),
    ];
    for (policy, expected) in cases {
        assert_eq!(engine(policy).has_gates(&ActionId::parse("transfer.create").unwrap()), expected, "{policy}");
    }
}

#[test]
fn grant_chain_and_approval_stand_in_the_context_where_the_tier_has_them() {
    let conditions = [
        "context.grant.task == \"t1\" && context.grant.type == \"invoice_run\" && context.grant.expires_in_seconds > 10",
        "context.grant has workflow && context.grant.workflow == \"close\"",
        "context.chain.depth == 1 && context.chain.root == \"spiffe://t/root\" && context.chain.sensitivity < 3",
        "context.chain.systems.contains(\"payments\") && !context.chain.systems.contains(\"hr\")",
    ];
    let approved = "context.approval.approved_by.contains(\"spiffe://t/ann\")";
    let granted = Query {
        grant: Some(GrantView {
            task: "t1".into(),
            kind: "invoice_run".into(),
            workflow: Some("close".into()),
            expires_in_seconds: 60,
        }),
        chain: Some(ChainView {
            depth: 1,
            root: "spiffe://t/root".into(),
            systems: ["payments".into()].into(),
            sensitivity: 2,
        }),
        approved_by: ["spiffe://t/ann".into()].into(),
        ..query("transfer.create")
    };
    let judge = |tier: Tier, grant_required: bool, condition: &str, query: &Query| {
        let mut actions = actions();
        (actions[0].tier, actions[0].grant_required) = (tier, grant_required);
        let policy =
            format!("permit(principal, action == Action::\"transfer.create\", resource) when {{ {condition} }};");
        let engine = load(SCHEMA, &policy, &actions, &[]).ok()?;
        Some(evaluate(&*engine.slice(&Query { tier, ..query.clone() }).unwrap(), &[], &[]).reason)
    };
    for condition in conditions {
        assert_eq!(judge(Tier::Jit, false, condition, &granted), Some(Reason::Allowed), "{condition}");
        assert_eq!(judge(Tier::Approval, true, condition, &granted), Some(Reason::Allowed), "{condition}");
        // Elsewhere there is no such part, whatever the call has.
        assert_eq!(judge(Tier::Approval, false, condition, &granted), None, "{condition}");
        assert_eq!(judge(Tier::Runtime, false, condition, &granted), None, "{condition}");
        // A call that got here without a grant is a mistake of ours, and no allow.
        let without = Query { grant: None, chain: None, ..granted.clone() };
        assert_eq!(judge(Tier::Jit, false, condition, &without), Some(Reason::EngineError), "{condition}");
    }
    let nobody = query("transfer.create");
    for (query, expected) in [(&granted, Reason::Allowed), (&nobody, Reason::NoPolicyPermits)] {
        assert_eq!(judge(Tier::Approval, false, approved, query), Some(expected));
        assert_eq!(judge(Tier::Jit, false, approved, query), None);
    }
}
