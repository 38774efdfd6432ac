//! Generated registers, policies and facts for the property tests, and an oracle that asks plain Cedar.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::needless_pass_by_value,
    missing_docs
)]
#![allow(dead_code, reason = "each test binary uses its own part")]

use cedar_policy::{Authorizer, Context, Decision, Entities, EntityUid, PolicySet, Request, RestrictedExpression};
use proptest::prelude::*;
use signalwarden_core::{
    findings::{Findings, Place},
    model::{
        ActionId, Assurance, Fact, Influence, ResourceId, SignalName, SignalType, SpiffeId, State, Tier, Timestamp,
        Value, WhenUnavailable,
    },
    policy::{
        ActionRule, IdentityView, Query, RequestView, SignalIndex, SignalRule,
        cedar::{CedarEngine, CedarFiles},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

pub(crate) const PRINCIPAL: &str = "spiffe://t/a";
pub(crate) const SCHEMA: &str = "entity Workload; entity Account;";

/// One signal of the fixed vocabulary: name, type, values worth trying, self-asserted.
pub(crate) struct Known {
    pub(crate) name: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) values: &'static [&'static str],
    pub(crate) self_asserted: bool,
}

/// Sorted by name, as a register is.
pub(crate) const VOCABULARY: &[Known] = &[
    Known { name: "approved", kind: "bool", values: &["true", "false"], self_asserted: false },
    Known { name: "origin", kind: "ip", values: &["10.0.0.1", "192.168.0.1"], self_asserted: false },
    Known { name: "posture", kind: "enum[ok, odd, bad]", values: &["ok", "odd", "bad"], self_asserted: false },
    Known { name: "risk", kind: "long", values: &["0", "49", "50", "51", "100"], self_asserted: false },
    Known { name: "score", kind: "decimal", values: &["0.5", "1.5"], self_asserted: false },
    Known { name: "task", kind: "string", values: &["refund", "export", "x"], self_asserted: true },
    Known { name: "zone", kind: "string", values: &["eu", "us"], self_asserted: true },
];

/// A generated case: what is registered, what policies say, what is known.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) rules: Vec<SignalRule>,
    pub(crate) facts: Vec<(SignalIndex, Fact)>,
    pub(crate) policies: Vec<String>,
}

impl Case {
    /// The register that it means. What the caller published is a signal whose publisher it is.
    pub(crate) fn register(&self, publisher: &str) -> String {
        let mut text = "signals:\n".to_owned();
        for (rule, (_, fact)) in self.rules.iter().zip(&self.facts) {
            let name = rule.name.as_str();
            let publisher = if fact.self_published { PRINCIPAL } else { publisher };
            let rest = if rule.self_asserted {
                format!("subject: request, sources: [{{kind: header, header: x-{name}, assurance: self_asserted}}]")
            } else {
                let unavailable = match rule.when_unavailable {
                    WhenUnavailable::Deny => "when_unavailable: deny",
                    WhenUnavailable::Absent => "when_unavailable: absent, justification: j",
                };
                format!(
                    "subject: principal, max_age: 5m, {unavailable}, sources: [{{kind: push, publisher: \"{publisher}\", \
                     assurance: authoritative}}]"
                )
            };
            let influence = if rule.influence == Influence::Restrict { "restrict" } else { "grant" };
            writeln!(
                text,
                "  {name}: {{type: \"{}\", description: d, owner: o@x, purpose: p, influence: {influence}, \
                 used_by: [pay], review_by: 2099-01-01, {rest}}}",
                rule.kind
            )
            .unwrap();
        }
        text
    }
}

fn atom() -> impl Strategy<Value = String> {
    (0..VOCABULARY.len(), any::<prop::sample::Index>(), any::<bool>()).prop_map(|(at, pick, equal)| {
        let known = &VOCABULARY[at];
        let value = known.values[pick.index(known.values.len())];
        let read = format!("context.signals.{}", known.name);
        let test = match known.kind {
            "bool" if equal => read,
            "bool" => format!("{read} == false"),
            "long" if equal => format!("{read} < {value}"),
            "long" => format!("{read} >= {value}"),
            "decimal" => format!("{read}.lessThan(decimal(\"{value}\"))"),
            "ip" => format!("{read}.isInRange(ip(\"10.0.0.0/8\"))"),
            _ if equal => format!("{read} == \"{value}\""),
            _ => format!("{read} != \"{value}\""),
        };
        format!("(context.signals has {} && {test})", known.name)
    })
}

fn condition(negations: bool) -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        8 => atom(),
        1 => Just("context.request.args.amount < 50".to_owned()),
        1 => Just("resource == Account::\"42\"".to_owned()),
        1 => (0..VOCABULARY.len()).prop_map(|at| format!("context.signals has {}", VOCABULARY[at].name)),
    ];
    leaf.prop_recursive(3, 8, 2, move |inner| {
        let pair = (inner.clone(), inner.clone());
        prop_oneof![
            pair.clone().prop_map(|(a, b)| format!("({a} && {b})")),
            pair.prop_map(|(a, b)| format!("({a} || {b})")),
            inner.prop_map(move |a| if negations { format!("!({a})") } else { a }),
        ]
    })
}

fn policy() -> impl Strategy<Value = String> {
    let scope = "principal, action == Action::\"pay\", resource";
    prop_oneof![
        3 => condition(false).prop_map(move |c| format!("permit({scope}) when {{ {c} }};")),
        1 => Just(format!("permit({scope});")),
        2 => condition(true).prop_map(move |c| format!("forbid({scope}) when {{ {c} }};")),
        1 => condition(true).prop_map(move |c| format!("forbid({scope}) unless {{ {c} }};")),
    ]
}

fn rule_and_fact(at: usize) -> impl Strategy<Value = (SignalRule, Fact)> {
    let known = &VOCABULARY[at];
    let states = prop_oneof![
        5 => Just(State::Fresh),
        1 => Just(State::Stale),
        2 => Just(State::Missing),
        1 => Just(State::Disputed),
        1 => Just(State::Unverified),
        1 => Just(State::Future),
    ];
    (states, any::<prop::sample::Index>(), 0..4_u8, any::<bool>(), prop::bool::weighted(0.2)).prop_map(
        move |(state, pick, influence, absent, published)| {
            let kind = SignalType::parse(known.kind).unwrap();
            let restrict = known.self_asserted || influence == 0;
            let rule = SignalRule {
                name: SignalName::parse(known.name).unwrap(),
                kind: kind.clone(),
                influence: if restrict { Influence::Restrict } else { Influence::Grant },
                when_unavailable: if absent && !known.self_asserted {
                    WhenUnavailable::Absent
                } else {
                    WhenUnavailable::Deny
                },
                self_asserted: known.self_asserted,
                used_by: [ActionId::parse("pay").unwrap()].into(),
                place: Place::default(),
            };
            let assurance = if known.self_asserted { Assurance::SelfAsserted } else { Assurance::Authoritative };
            let mut fact = Fact::missing(None, assurance);
            fact.state = state;
            fact.value = kind.read_text(known.values[pick.index(known.values.len())]);
            fact.self_published = published && !known.self_asserted;
            (rule, fact)
        },
    )
}

pub(crate) fn case() -> impl Strategy<Value = Case> {
    (signals(), prop::collection::vec(policy(), 1..5)).prop_map(|((rules, facts), policies)| Case {
        rules,
        facts,
        policies,
    })
}

/// The rules of a register, and what is known of each signal.
pub(crate) fn signals() -> impl Strategy<Value = (Vec<SignalRule>, Vec<(SignalIndex, Fact)>)> {
    let signals: Vec<_> = (0..VOCABULARY.len()).map(rule_and_fact).collect();
    signals.prop_map(|signals| {
        let (rules, facts): (Vec<_>, Vec<_>) = signals.into_iter().unzip();
        let facts = facts.into_iter().enumerate().map(|(at, f)| (SignalIndex(u16::try_from(at).unwrap()), f)).collect();
        (rules, facts)
    })
}

/// A case, and the same with a demand for an approval on some of its policies.
pub(crate) fn gated_case() -> impl Strategy<Value = (Case, Case)> {
    (case(), any::<[bool; 4]>()).prop_map(|(case, mask)| {
        let mut gated = case.clone();
        for (policy, _) in gated.policies.iter_mut().zip(mask).filter(|(_, gate)| *gate) {
            *policy = format!("{GATE} {policy}");
        }
        (case, gated)
    })
}

/// What a policy with a demand begins with.
pub(crate) const GATE: &str = "@require_approval(\"May it?\")";

pub(crate) fn actions() -> Vec<ActionRule> {
    vec![ActionRule {
        id: ActionId::parse("pay").unwrap(),
        tier: Tier::Runtime,
        grant_required: false,
        resource_types: BTreeSet::from(["Account".into()]),
        args: BTreeMap::from([("amount".into(), (SignalType::Long, false))]),
        place: Place::default(),
    }]
}

pub(crate) fn query() -> Query {
    let identity = IdentityView::of("x509", "t", true);
    let principal = SpiffeId::parse(PRINCIPAL).unwrap();
    let resource = ResourceId { kind: "Account".into(), id: "42".into() };
    Query {
        request: RequestView { args: BTreeMap::from([("amount".into(), Value::Long(10))]), ..RequestView::default() },
        ..Query::of(
            principal,
            ActionId::parse("pay").unwrap(),
            Tier::Runtime,
            resource,
            identity,
            Timestamp::from_micros(0),
        )
    }
}

/// Through the loader, with all its checks; `None` if it refuses the case.
pub(crate) fn load(case: &Case) -> Option<CedarEngine> {
    let text = case.policies.join("\n");
    let files =
        CedarFiles { schema: Some(SCHEMA), entities: Some("[]"), policies: &[("policies/p.cedar", &text)], links: &[] };
    CedarEngine::load(files, &actions(), &case.rules, &mut Findings::default())
}

/// Plain Cedar, asked with these values of signals: no state, no contract, no slices.
pub(crate) struct Oracle(PolicySet);

impl Oracle {
    pub(crate) fn new(policies: &str) -> Self {
        Self(policies.parse().unwrap())
    }

    pub(crate) fn allows(&self, signals: &BTreeMap<&str, Value>) -> bool {
        let fields = signals.iter().map(|(name, value)| ((*name).to_owned(), expression(value)));
        let args =
            RestrictedExpression::new_record([("amount".to_owned(), RestrictedExpression::new_long(10))]).unwrap();
        let request = RestrictedExpression::new_record([("args".to_owned(), args)]).unwrap();
        let signals = RestrictedExpression::new_record(fields).unwrap();
        let context = Context::from_pairs([("request".to_owned(), request), ("signals".to_owned(), signals)]).unwrap();
        let uid = |text: &str| text.parse::<EntityUid>().unwrap();
        let principal = uid(&format!("Workload::\"{PRINCIPAL}\""));
        let request = Request::new(principal, uid("Action::\"pay\""), uid("Account::\"42\""), context, None).unwrap();
        let answer = Authorizer::new().is_authorized(&request, &self.0, &Entities::empty());
        answer.decision() == Decision::Allow && answer.diagnostics().errors().count() == 0
    }
}

fn expression(value: &Value) -> RestrictedExpression {
    match value {
        Value::Bool(b) => RestrictedExpression::new_bool(*b),
        Value::Long(n) => RestrictedExpression::new_long(*n),
        Value::String(s) => RestrictedExpression::new_string(s.to_string()),
        Value::Decimal(d) => RestrictedExpression::new_decimal(d.to_string()),
        Value::Ip(ip) => RestrictedExpression::new_ip(ip.to_string()),
        other => panic!("not in the vocabulary: {other:?}"),
    }
}

/// Every value of the vocabulary for a signal, and one that no policy names.
pub(crate) fn possible_values(at: usize, rule: &SignalRule) -> Vec<Value> {
    let known = &VOCABULARY[at];
    let mut values: Vec<Value> = known.values.iter().filter_map(|text| rule.kind.read_text(text)).collect();
    values.extend(rule.kind.read_text(if known.kind == "long" { "-7" } else { "never-named" }));
    values
}

/// Worlds tried a case at most; beyond, a case is tried in part.
const MAX_WORLDS: usize = 3_000;

/// What one signal could be: `None` is its absence.
pub(crate) type Options = Vec<Option<Value>>;

/// The worlds of a case, restated from DESIGN section 6 without the code under test. `withdraw`: words too.
pub(crate) fn options(rules: &[SignalRule], facts: &[(SignalIndex, Fact)], withdraw: bool) -> Vec<Options> {
    rules
        .iter()
        .zip(facts)
        .enumerate()
        .map(|(at, (rule, (_, fact)))| {
            let anything =
                || std::iter::once(None).chain(possible_values(at, rule).into_iter().map(Some)).collect::<Options>();
            let may_be_absent = rule.when_unavailable == WhenUnavailable::Absent;
            if fact.state != State::Fresh {
                let absent =
                    rule.self_asserted || (may_be_absent && matches!(fact.state, State::Missing | State::Stale));
                return if absent { vec![None] } else { anything() };
            }
            let mut options = vec![fact.value.clone()];
            let word = rule.self_asserted || fact.self_published;
            if withdraw && (word || rule.influence == Influence::Restrict) {
                let plainly = rule.self_asserted || may_be_absent || !word;
                options.extend(if plainly { vec![None] } else { anything() });
            }
            options
        })
        .collect()
}

/// Visits the worlds that these possibilities of the vocabulary span, at most `MAX_WORLDS`; how many were visited.
pub(crate) fn every_world(options: &[Options], mut visit: impl FnMut(&BTreeMap<&str, Value>) -> bool) -> usize {
    let total = options.iter().map(Vec::len).fold(1_usize, usize::saturating_mul);
    // A step that has no factor in common with small counts walks a large space evenly.
    let (count, step) = if total <= MAX_WORLDS { (total, 1) } else { (MAX_WORLDS, (total / MAX_WORLDS) | 1) };
    for nth in 0..count {
        let mut rest = nth.saturating_mul(step) % total;
        let mut world = BTreeMap::new();
        for (known, options) in VOCABULARY.iter().zip(options) {
            if let Some(value) = &options[rest % options.len()] {
                world.insert(known.name, value.clone());
            }
            rest /= options.len();
        }
        if !visit(&world) {
            return nth;
        }
    }
    count
}
