//! I1, I2 and I3 as properties of Rego, over the generated registers and facts that Cedar is tested with. The same conditions
//! are written in Rego and in Cedar, and the oracle knows neither: it evaluates them itself, in every world.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::needless_pass_by_value,
    missing_docs
)]

mod generated;

use generated::{Case as CedarCase, VOCABULARY, actions, every_world, load as load_cedar, options, query, signals};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use signalwarden_core::{
    findings::Findings,
    model::{Fact, Influence, State, Timestamp, Value, WhenUnavailable},
    policy::{
        PolicyEngine, Query, Seen, SignalIndex, SignalRule,
        reasoning::{Verdict, evaluate},
        rego::{RegoEngine, RegoFiles},
        settings::RegoSettings,
    },
    reason::Reason,
};
use std::{cell::Cell, collections::BTreeMap};

const CASES: u32 = 1_500;

/// A condition, in no language.
#[derive(Clone, Debug)]
enum Condition {
    /// A signal of the vocabulary, one of its values, and one of two ways to compare them. False where it is absent.
    Test {
        signal: usize,
        value: usize,
        way: bool,
    },
    Has(usize),
    SmallAmount,
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
    Not(Box<Condition>),
}

use Condition::{And, Has, Not, Or, SmallAmount, Test};

fn condition() -> impl Strategy<Value = Condition> {
    let leaf = prop_oneof![
        8 => (0..VOCABULARY.len(), any::<prop::sample::Index>(), any::<bool>()).prop_map(|(signal, pick, way)| {
            Test { signal, value: pick.index(VOCABULARY[signal].values.len()), way }
        }),
        1 => (0..VOCABULARY.len()).prop_map(Has),
        1 => Just(SmallAmount),
    ];
    leaf.prop_recursive(3, 8, 2, |inner| {
        let pair = (inner.clone(), inner.clone());
        prop_oneof![
            pair.clone().prop_map(|(a, b)| And(Box::new(a), Box::new(b))),
            pair.prop_map(|(a, b)| Or(Box::new(a), Box::new(b))),
            inner.prop_map(|a| Not(Box::new(a))),
        ]
    })
}

impl Condition {
    /// What it comes to where these signals have these values and the others are absent.
    fn holds(&self, world: &BTreeMap<&str, Value>, rules: &[SignalRule]) -> bool {
        match self {
            Test { signal, value, way } => {
                let known = &VOCABULARY[*signal];
                let Some(found) = world.get(known.name) else { return false };
                let written = rules[*signal].kind.read_text(known.values[*value]).unwrap();
                match (known.kind, found) {
                    ("bool", Value::Bool(truth)) => truth == way,
                    ("long", _) => (*found < written) == *way,
                    ("decimal", _) => *found < written,
                    ("ip", Value::Ip(std::net::IpAddr::V4(ip))) => ip.octets()[0] == 10,
                    _ => (*found == written) == *way,
                }
            }
            Has(signal) => world.contains_key(VOCABULARY[*signal].name),
            SmallAmount => true,
            And(a, b) => a.holds(world, rules) && b.holds(world, rules),
            Or(a, b) => a.holds(world, rules) || b.holds(world, rules),
            Not(a) => !a.holds(world, rules),
        }
    }

    fn cedar(&self) -> String {
        match self {
            Test { signal, value, way } => {
                let known = &VOCABULARY[*signal];
                let (read, value) = (format!("context.signals.{}", known.name), known.values[*value]);
                let test = match known.kind {
                    "bool" => format!("{read} == {way}"),
                    "long" => format!("{read} {} {value}", if *way { "<" } else { ">=" }),
                    "decimal" => format!("{read}.lessThan(decimal(\"{value}\"))"),
                    "ip" => format!("{read}.isInRange(ip(\"10.0.0.0/8\"))"),
                    _ => format!("{read} {} \"{value}\"", if *way { "==" } else { "!=" }),
                };
                format!("(context.signals has {} && {test})", known.name)
            }
            Has(signal) => format!("(context.signals has {})", VOCABULARY[*signal].name),
            SmallAmount => "(context.request.args.amount < 50)".to_owned(),
            And(a, b) => format!("({} && {})", a.cedar(), b.cedar()),
            Or(a, b) => format!("({} || {})", a.cedar(), b.cedar()),
            Not(a) => format!("(!{})", a.cedar()),
        }
    }

    /// Writes the rules that it takes, and gives the name of the one that is it.
    fn rego(&self, rules: &mut Vec<String>) -> String {
        let name = |rules: &Vec<String>| format!("c{}", rules.len());
        let body = match self {
            Test { signal, value, way } => {
                let known = &VOCABULARY[*signal];
                let (read, value) = (format!("input.signals.{}", known.name), known.values[*value]);
                match known.kind {
                    "bool" => format!("{read} == {way}"),
                    "long" => format!("{read} {} {value}", if *way { "<" } else { ">=" }),
                    "decimal" => format!("to_number({read}) < {value}"),
                    "ip" => format!("net.cidr_contains(\"10.0.0.0/8\", {read})"),
                    _ => format!("{read} {} \"{value}\"", if *way { "==" } else { "!=" }),
                }
            }
            Has(signal) => {
                let read = format!("input.signals.{}", VOCABULARY[*signal].name);
                format!("{read} == {read}")
            }
            SmallAmount => "input.request.args.amount < 50".to_owned(),
            And(a, b) => {
                let (a, b) = (a.rego(rules), b.rego(rules));
                format!("{a}; {b}")
            }
            Or(a, b) => {
                let (a, b) = (a.rego(rules), b.rego(rules));
                let name = name(rules);
                rules.push(format!("{name} if {{ {a} }}\n{name} if {{ {b} }}"));
                return name;
            }
            Not(a) => format!("not {}", a.rego(rules)),
        };
        let name = name(rules);
        rules.push(format!("{name} if {{ {body} }}"));
        name
    }
}

/// A register, what is known, and conditions that permit and forbid.
#[derive(Clone, Debug)]
struct Case {
    rules: Vec<SignalRule>,
    facts: Vec<(SignalIndex, Fact)>,
    permits: Vec<Condition>,
    forbids: Vec<Condition>,
}

fn case() -> impl Strategy<Value = Case> {
    let some = |count| prop::collection::vec(condition(), count);
    (signals(), some(1..3), some(0..3)).prop_map(|((rules, facts), permits, forbids)| Case {
        rules,
        facts,
        permits,
        forbids,
    })
}

impl Case {
    fn text(&self) -> String {
        let mut rules = Vec::new();
        let permits: Vec<String> = self.permits.iter().map(|condition| condition.rego(&mut rules)).collect();
        let forbids: Vec<String> = self.forbids.iter().map(|condition| condition.rego(&mut rules)).collect();
        let permits: Vec<String> = permits.iter().map(|name| format!("permitted if {name}")).collect();
        let forbids: Vec<String> = forbids.iter().map(|name| format!("forbidden if {name}")).collect();
        format!(
            "package authz\n\ndefault allow := false\nallow if {{ permitted; not forbidden }}\ndefault forbidden := false\n{}\n{}\n{}\n",
            permits.join("\n"),
            forbids.join("\n"),
            rules.join("\n")
        )
    }

    fn load(&self) -> RegoEngine {
        let text = self.text();
        let mut findings = Findings::default();
        let files =
            RegoFiles { policies: &[("policies/p.rego", &text)], data: None, settings: &RegoSettings::default() };
        let engine = RegoEngine::load(files, &actions(), &self.rules, &mut findings);
        engine.unwrap_or_else(|| panic!("{text}: {:?}", findings.as_slice()))
    }

    fn verdict(&self, engine: &RegoEngine, query: &Query) -> Verdict {
        evaluate(&*engine.slice(query).unwrap(), &self.rules, &self.facts)
    }

    fn reason(&self) -> Reason {
        self.verdict(&self.load(), &query()).reason
    }

    fn allows(&self, world: &BTreeMap<&str, Value>) -> bool {
        let any = |of: &[Condition]| of.iter().any(|condition| condition.holds(world, &self.rules));
        any(&self.permits) && !any(&self.forbids)
    }

    fn cedar(&self) -> CedarCase {
        let scope = "principal, action == Action::\"pay\", resource";
        let permits = self.permits.iter().map(|condition| format!("permit({scope}) when {{ {} }};", condition.cedar()));
        let forbids = self.forbids.iter().map(|condition| format!("forbid({scope}) when {{ {} }};", condition.cedar()));
        CedarCase { rules: self.rules.clone(), facts: self.facts.clone(), policies: permits.chain(forbids).collect() }
    }
}

fn runner() -> TestRunner {
    TestRunner::new(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })
}

#[test]
fn an_allow_stands_in_every_world_of_unavailable_and_withdrawn_signals() {
    let (allowed, worlds) = (Cell::new(0_u32), Cell::new(0_usize));
    let result = runner().run(&case(), |case| {
        if case.reason() != Reason::Allowed {
            return Ok(());
        }
        allowed.set(allowed.get() + 1);
        let mut broken = None;
        let tried = every_world(&options(&case.rules, &case.facts, true), |world| {
            let allows = case.allows(world);
            if !allows {
                broken = Some(format!("{world:?}"));
            }
            allows
        });
        worlds.set(worlds.get() + tried);
        prop_assert!(broken.is_none(), "allowed, but denied in the world {broken:?}\n{}", case.text());
        Ok(())
    });
    println!("I2, I3 of Rego: {} of {CASES} cases allowed, {} worlds tried", allowed.get(), worlds.get());
    result.unwrap();
    assert!(allowed.get() > 50, "too few allows to prove anything: {}", allowed.get());
}

#[test]
fn a_reason_says_what_holds_in_every_world() {
    let counted: Cell<[u32; 3]> = Cell::new([0; 3]);
    let result = runner().run(&case(), |case| {
        let reason = case.reason();
        let as_is = options(&case.rules, &case.facts, false);
        let mut counts = counted.get();
        prop_assert_ne!(reason, Reason::EngineError, "{}", case.text());
        match reason {
            Reason::NoPolicyPermits => {
                counts[0] += 1;
                let mut opened = None;
                every_world(&as_is, |world| {
                    if case.allows(world) {
                        opened = Some(format!("{world:?}"));
                    }
                    opened.is_none()
                });
                prop_assert!(opened.is_none(), "nothing permits, but {opened:?} does\n{}", case.text());
            }
            _ if as_is.iter().all(|options| options.len() == 1) => {
                counts[1] += 1;
                let mut plain = false;
                every_world(&as_is, |world| {
                    plain = case.allows(world);
                    true
                });
                prop_assert_eq!(plain, matches!(reason, Reason::Allowed | Reason::SignalWideningRefused));
            }
            _ => counts[2] += 1,
        }
        counted.set(counts);
        Ok(())
    });
    let [denied, certain, rest] = counted.get();
    println!("reasons of Rego: {denied} denied, {certain} certain, {rest} others, of {CASES} cases");
    result.unwrap();
    assert!(denied > 100 && certain > 10, "too few cases to prove anything: {denied}, {certain}");
}

#[test]
fn losing_a_signal_never_turns_a_denial_into_an_allow() {
    let compared = Cell::new(0_u32);
    let result = runner().run(&(case(), any::<prop::sample::Index>()), |(case, pick)| {
        let at = pick.index(case.facts.len());
        if case.rules[at].when_unavailable == WhenUnavailable::Absent || case.rules[at].self_asserted {
            return Ok(());
        }
        let engine = case.load();
        if case.verdict(&engine, &query()).reason == Reason::Allowed {
            return Ok(());
        }
        compared.set(compared.get() + 1);
        for state in [State::Missing, State::Stale, State::Disputed, State::Unverified, State::Future] {
            let mut lost = case.clone();
            lost.facts[at].1.state = state;
            prop_assert_ne!(lost.verdict(&engine, &query()).reason, Reason::Allowed, "{:?} {}", state, case.text());
        }
        Ok(())
    });
    println!("loss in Rego: {} denied cases compared in five states, of {CASES}", compared.get());
    result.unwrap();
    assert!(compared.get() > 200, "too few cases to prove anything: {}", compared.get());
}

/// What an entry point does not read makes no difference: signals that it does not mention, whatever they are.
#[test]
fn only_what_the_entry_point_mentions_can_change_its_verdict() {
    let varied = Cell::new(0_u32);
    let result = runner().run(&(case(), signals()), |(case, (_, others))| {
        let engine = case.load();
        let before = case.verdict(&engine, &query());
        let mentions = &engine.policies()[0].mentions;
        let mut other = case.clone();
        for (at, fact) in other.facts.iter_mut().zip(others) {
            if !mentions.contains(&at.0) {
                *at = fact;
            }
        }
        // What no route names is no part of the question, so that it can't be varied here at all.
        let after = other.verdict(&engine, &query());
        varied.set(varied.get() + 1);
        // A word that nobody reads makes a second round, and no difference.
        prop_assert_eq!((before.reason, before.truths), (after.reason, after.truths));
        Ok(())
    });
    println!("I1 of Rego: {} cases varied", varied.get());
    result.unwrap();
}

#[test]
fn the_same_conditions_in_cedar_and_in_rego_come_to_the_same_where_everything_is_known() {
    let compared: Cell<[u32; 2]> = Cell::new([0; 2]);
    let result = runner().run(&case(), |mut case| {
        for ((_, fact), rule) in case.facts.iter_mut().zip(&mut case.rules) {
            fact.self_published = false;
            rule.influence = Influence::Grant;
            if fact.state != State::Fresh {
                (fact.state, rule.when_unavailable) = (State::Missing, WhenUnavailable::Absent);
            }
        }
        let cedar = case.cedar();
        // Cedar refuses some at load: permits that only a word of the caller opens.
        let Some(engine) = load_cedar(&cedar) else { return Ok(()) };
        let by_cedar = evaluate(&*engine.slice(&query()).unwrap(), &case.rules, &case.facts).reason;
        let by_rego = case.reason();
        let mut counts = compared.get();
        counts[usize::from(by_rego == Reason::Allowed)] += 1;
        compared.set(counts);
        prop_assert_eq!(
            by_cedar == Reason::Allowed,
            by_rego == Reason::Allowed,
            "{:?} {}",
            cedar.policies,
            case.text()
        );
        Ok(())
    });
    let [denied, allowed] = compared.get();
    println!("parity: {denied} denied, {allowed} allowed by both, of {CASES} cases");
    result.unwrap();
    assert!(denied > 100 && allowed > 30, "too few cases to prove anything: {denied}, {allowed}");
}

#[test]
fn an_evaluation_is_the_same_again_and_in_another_thread() {
    let result = runner().run(&(case(), 0..2_000_000_000_i64), |(case, now)| {
        let engine = case.load();
        let query = Query { now: Timestamp::from_micros(now * 1_000_000), ..query() };
        let first = case.verdict(&engine, &query);
        let again = case.verdict(&engine, &query);
        let elsewhere = std::thread::scope(|scope| scope.spawn(|| case.verdict(&engine, &query)).join().unwrap());
        let fresh = case.verdict(&case.load(), &query);
        prop_assert_eq!(&first, &again);
        prop_assert_eq!(&first, &elsewhere);
        prop_assert_eq!(&first, &fresh);
        Ok(())
    });
    result.unwrap();
}

/// An unknown of a type without end is open, so no allow rests on it.
#[test]
fn a_signal_that_could_be_anything_denies_where_the_entry_point_reads_it() {
    let case =
        Case { rules: vec![], facts: vec![], permits: vec![Test { signal: 3, value: 2, way: true }], forbids: vec![] };
    let mut runner = runner();
    let (rules, mut facts) = signals().new_tree(&mut runner).unwrap().current();
    let mut case = Case { rules, ..case };
    case.rules[3].when_unavailable = WhenUnavailable::Deny;
    facts[3].1.state = State::Missing;
    case.facts = facts;
    assert_eq!(case.reason(), Reason::SignalUnavailable);
    let slice_of = case.load();
    let slice = slice_of.slice(&query()).unwrap();
    assert_eq!(slice.judge_one(0, &[(SignalIndex(3), Seen::Any)]), signalwarden_core::policy::Judged::Open);
}
