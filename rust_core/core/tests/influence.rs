//! What the record says of the influence of signals, recomputed from the definitions of the design and nothing else: every
//! policy judged in every mix of its signals, without any of the shortcuts that the core takes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::needless_pass_by_value,
    missing_docs
)]

mod generated;

use generated::{Case, gated_case, load, query};
use proptest::{prelude::*, test_runner::TestRunner};
use signalwarden_core::{
    limits::MAX_MIXES,
    model::{Influence, State, WhenUnavailable},
    policy::{
        Effect, Judged, PolicyEngine, Seen, SignalIndex, Slice,
        influence::{Effected, influence, together},
        reasoning::evaluate,
    },
    reason::Reason,
};
use std::cell::Cell;

const CASES: u32 = 4_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Truth {
    Certain,
    Never,
    May,
    Failed,
}

/// Reason, and whether a yes is asked for.
type Outcome = (Reason, bool);

struct Defined<'a> {
    case: &'a Case,
    slice: &'a dyn Slice,
}

impl Defined<'_> {
    fn is_revocable(&self, at: usize) -> bool {
        let (rule, fact) = (&self.case.rules[at], &self.case.facts[at].1);
        fact.state == State::Fresh
            && (rule.influence == Influence::Restrict || rule.self_asserted || fact.self_published)
    }

    fn anything(&self, at: usize) -> Vec<Seen> {
        let values = self.case.rules[at].kind.every_value();
        let values = values.map_or_else(|| vec![Seen::Any], |all| all.into_iter().map(Seen::Value).collect());
        std::iter::once(Seen::Absent).chain(values).collect()
    }

    /// What a policy may see of a signal.
    fn seen(&self, at: usize, doubted: &[usize], withdraw: bool) -> Vec<Seen> {
        let (rule, fact) = (&self.case.rules[at], &self.case.facts[at].1);
        if doubted.contains(&at) {
            return self.anything(at);
        }
        let may_be_absent = rule.when_unavailable == WhenUnavailable::Absent;
        if fact.state != State::Fresh {
            let is_absent =
                rule.self_asserted || (may_be_absent && matches!(fact.state, State::Missing | State::Stale));
            return if is_absent { vec![Seen::Absent] } else { self.anything(at) };
        }
        let mut all = vec![Seen::Value(fact.value.clone().unwrap())];
        if withdraw && self.is_revocable(at) {
            let word = rule.self_asserted || fact.self_published;
            let plainly = rule.self_asserted || may_be_absent || !word;
            let gone = if plainly { vec![Seen::Absent] } else { self.anything(at) };
            all.extend(gone.into_iter().filter(|seen| *seen != Seen::Value(fact.value.clone().unwrap())));
        }
        all
    }

    fn truth(&self, policy: usize, doubted: &[usize], withdraw: bool) -> Truth {
        let all: Vec<Vec<Seen>> = (0..self.case.facts.len()).map(|at| self.seen(at, doubted, withdraw)).collect();
        let info = self.slice.info(policy);
        let own: Vec<usize> = info.mentions.iter().map(|signal| usize::from(signal.0)).collect();
        let mixes: usize = own.iter().map(|at| all[*at].len()).product();
        if mixes > MAX_MIXES {
            return Truth::May;
        }
        let mut judged = Vec::new();
        for mix in 0..mixes {
            let mut rest = mix;
            let mut seen: Vec<(SignalIndex, Seen)> =
                self.case.facts.iter().zip(&all).map(|((signal, _), all)| (*signal, all[0].clone())).collect();
            for at in &own {
                seen[*at].1 = all[*at][rest % all[*at].len()].clone();
                rest /= all[*at].len();
            }
            judged.push(self.slice.judge_one(policy, &seen));
        }
        if judged.iter().any(|judged| matches!(judged, Judged::Failed(_))) {
            Truth::Failed
        } else if judged.iter().all(|judged| *judged == Judged::True) {
            Truth::Certain
        } else if judged.iter().all(|judged| *judged == Judged::False) {
            Truth::Never
        } else {
            Truth::May
        }
    }

    fn truths(&self, doubted: &[usize], withdraw: bool) -> Vec<Truth> {
        (0..self.slice.in_play().len()).map(|policy| self.truth(policy, doubted, withdraw)).collect()
    }

    /// The table of DESIGN section 6, with gates.
    fn conclude(&self, truths: &[Truth]) -> Outcome {
        let is = |effect: Effect, gated: bool, truth: Truth| {
            truths.iter().enumerate().any(|(policy, known)| {
                let info = self.slice.info(policy);
                info.effect == effect && info.require_approval.is_some() == gated && *known == truth
            })
        };
        let permitted = is(Effect::Permit, false, Truth::Certain) || is(Effect::Permit, true, Truth::Certain);
        let may_permit = is(Effect::Permit, false, Truth::May) || is(Effect::Permit, true, Truth::May);
        if truths.contains(&Truth::Failed) {
            (Reason::EngineError, false)
        } else if is(Effect::Forbid, false, Truth::Certain) {
            (Reason::PolicyDenied, false)
        } else if !permitted && !may_permit {
            (Reason::NoPolicyPermits, false)
        } else if is(Effect::Forbid, false, Truth::May) || !permitted {
            (Reason::SignalUnavailable, false)
        } else {
            let demanded = is(Effect::Forbid, true, Truth::Certain) || is(Effect::Forbid, true, Truth::May);
            (Reason::Allowed, demanded || !is(Effect::Permit, false, Truth::Certain))
        }
    }

    fn before(&self, doubted: &[usize]) -> Outcome {
        self.conclude(&self.truths(doubted, false))
    }

    fn outcome(&self, doubted: &[usize]) -> Outcome {
        let before = self.before(doubted);
        let words = (0..self.case.facts.len()).any(|at| !doubted.contains(&at) && self.is_revocable(at));
        if before.0 != Reason::Allowed || !words {
            return before;
        }
        match self.conclude(&self.truths(doubted, true)) {
            allowed @ (Reason::Allowed, _) => allowed,
            failed @ (Reason::EngineError, _) => failed,
            _ => (Reason::SignalWideningRefused, false),
        }
    }

    /// Whether the outcome would be another, were these uncertain.
    fn hangs_on(&self, doubted: &[usize]) -> bool {
        if self.refuses() {
            let before = self.before(doubted);
            let was = self.before(&[]);
            // Under `signal_widening_refused`: the result before that recheck.
            if self.outcome(&[]).0 == Reason::SignalWideningRefused { before.0 != was.0 } else { before != was }
        } else {
            self.outcome(doubted) != self.outcome(&[])
        }
    }

    /// Whether words that may only restrict would have opened, or would have spared a question.
    fn refuses(&self) -> bool {
        let outcome = self.outcome(&[]);
        outcome.0 == Reason::SignalWideningRefused
            || (outcome == (Reason::Allowed, true) && self.before(&[]) == (Reason::Allowed, false))
    }

    /// `None` where the definition is about the demands that a lost signal makes: that is not restated here.
    fn influence(&self, at: usize) -> Option<Effected> {
        let outcome = self.outcome(&[]);
        let decisive = if self.case.facts[at].1.state != State::Fresh {
            match outcome {
                (Reason::Allowed, true) => return None,
                (Reason::SignalUnavailable, _) => {
                    let truths = self.truths(&[], false);
                    let signal = SignalIndex(u16::try_from(at).unwrap());
                    let mentions = |policy: usize| self.slice.info(policy).mentions.contains(&signal);
                    truths.iter().enumerate().any(|(policy, truth)| *truth == Truth::May && mentions(policy))
                }
                _ => false,
            }
        } else if self.refuses() && self.is_revocable(at) {
            return Some(Effected::Refused);
        } else {
            self.hangs_on(&[at])
        };
        Some(if decisive { Effected::Decisive } else { Effected::Consulted })
    }
}

#[test]
fn influence_is_what_its_definition_says() {
    let counted: Cell<[u32; 3]> = Cell::new([0; 3]);
    let mut runner =
        TestRunner::new(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() });
    let result = runner.run(&gated_case(), |(_, case)| {
        let Some(engine) = load(&case) else { return Ok(()) };
        let slice = engine.slice(&query()).unwrap();
        let verdict = evaluate(&*slice, &case.rules, &case.facts);
        let defined = Defined { case: &case, slice: &*slice };
        prop_assert_eq!((verdict.reason, !verdict.gates.is_empty()), defined.outcome(&[]));
        let mut counts = counted.get();
        for (signal, did) in influence(&*slice, &case.rules, &case.facts, &verdict) {
            let Some(expected) = defined.influence(usize::from(signal.0)) else { continue };
            prop_assert_eq!(did, expected, "{:?} under {}", signal, verdict.reason.code());
            counts[did as usize] += 1;
        }
        counted.set(counts);
        Ok(())
    });
    let [decisive, consulted, refused] = counted.get();
    println!("influence: {decisive} decisive, {consulted} consulted, {refused} refused, of {CASES} cases");
    result.unwrap();
    assert!(decisive > 500 && consulted > 500 && refused > 50, "too few to prove anything");
}

/// Every set of so many of these.
fn sets(of: &[usize], size: usize) -> Vec<Vec<usize>> {
    match (size, of) {
        (0, _) => vec![Vec::new()],
        (_, []) => Vec::new(),
        (_, [first, rest @ ..]) => {
            let with = sets(rest, size - 1).into_iter().map(|set| [vec![*first], set].concat());
            with.chain(sets(rest, size)).collect()
        }
    }
}

#[test]
fn signals_that_decide_together_are_the_smallest_sets_that_change_the_outcome() {
    let counted: Cell<[u32; 2]> = Cell::new([0; 2]);
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 2 * CASES, failure_persistence: None, ..ProptestConfig::default() });
    let result = runner.run(&gated_case(), |(_, case)| {
        let Some(engine) = load(&case) else { return Ok(()) };
        let slice = engine.slice(&query()).unwrap();
        let verdict = evaluate(&*slice, &case.rules, &case.facts);
        let did = influence(&*slice, &case.rules, &case.facts, &verdict);
        if did.iter().any(|(_, did)| *did != Effected::Consulted) {
            return Ok(());
        }
        let defined = Defined { case: &case, slice: &*slice };
        let fresh: Vec<usize> = did
            .iter()
            .map(|(signal, _)| usize::from(signal.0))
            .filter(|at| case.facts[*at].1.state == State::Fresh)
            .collect();
        let found = together(&*slice, &case.rules, &case.facts, &verdict);
        let found: Vec<Vec<usize>> =
            found.sets.iter().map(|set| set.iter().map(|signal| usize::from(signal.0)).collect()).collect();
        let smallest =
            (2..=4).map(|size| sets(&fresh, size).into_iter().filter(|set| defined.hangs_on(set)).collect::<Vec<_>>());
        let expected = smallest.into_iter().find(|sets| !sets.is_empty()).unwrap_or_default();
        let [with, without] = counted.get();
        counted.set(if expected.is_empty() { [with, without + 1] } else { [with + 1, without] });
        prop_assert_eq!(found, expected);
        Ok(())
    });
    let [with, without] = counted.get();
    println!("together: {with} decisions hang on sets, {without} on none");
    result.unwrap();
    assert!(with > 20, "too few to prove anything: {with}");
}
