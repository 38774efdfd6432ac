//! What each signal did in a decision: `decisive`, `consulted` or `refused` (DESIGN section 6, step 7).
//! Computed when the record is drained, never while an answer waits.

use super::{
    Effect, EngineKind, Facts, PolicyInfo, SignalIndex, SignalRule, Slice, Standing,
    reasoning::{Doubts, Truth, Verdict},
    standing,
};
use crate::{
    limits::{MAX_SET_SIGNALS, MAX_SETS_TRIED},
    model::State,
    reason::Reason,
};

/// What a signal did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effected {
    /// Had it been uncertain, the reason would be another one; or its loss is the reason.
    Decisive,
    /// A policy in play mentions it; the reason does not hang on it.
    Consulted,
    /// A word that may only restrict, and that would have widened.
    Refused,
}

impl Effected {
    /// The word of the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Decisive => "decisive",
            Self::Consulted => "consulted",
            Self::Refused => "refused",
        }
    }
}

/// The influence of each signal that a policy in play mentions. `verdict` is that of the decision.
pub fn influence(
    slice: &dyn Slice,
    rules: &[SignalRule],
    facts: &Facts,
    verdict: &Verdict,
) -> Vec<(SignalIndex, Effected)> {
    let question = Question::new(slice, rules, facts, verdict);
    slice
        .mentioned()
        .into_iter()
        .filter_map(|signal| {
            let fact = facts.iter().find(|(index, _)| *index == signal).map(|(_, fact)| fact)?;
            let rule = rules.get(usize::from(signal.0))?;
            let decisive = if fact.state != State::Fresh {
                match verdict.reason {
                    Reason::SignalUnavailable => a_may_policy_mentions(slice, verdict, signal),
                    Reason::Allowed => its_loss_asks(slice, verdict, signal),
                    _ => false,
                }
            } else if question.refuses && standing(rule, fact) == Standing::Revocable {
                return Some((signal, Effected::Refused));
            } else {
                question.hangs_on(&[signal])
            };
            Some((signal, if decisive { Effected::Decisive } else { Effected::Consulted }))
        })
        .collect()
}

/// Whether a verdict hangs on signals: would it be another one, were they uncertain?
struct Question<'a> {
    verdict: &'a Verdict,
    doubts: Doubts<'a>,
    /// Whether words that may only restrict would have opened: a denial, or a question where none was asked.
    refuses: bool,
}

impl<'a> Question<'a> {
    fn new(slice: &'a dyn Slice, rules: &'a [SignalRule], facts: &'a Facts, verdict: &'a Verdict) -> Self {
        let doubts = Doubts::new(slice, rules, facts);
        let refuses = verdict.reason == Reason::SignalWideningRefused
            || (verdict.rechecked && !verdict.gates.is_empty() && doubts.undoubted_before_recheck().is_free());
        Self { verdict, doubts, refuses }
    }

    fn hangs_on(&self, signals: &[SignalIndex]) -> bool {
        let (verdict, doubts) = (self.verdict, &self.doubts);
        if self.refuses {
            // The result before the recheck: an allow under `signal_widening_refused`, else a free one.
            let before = doubts.before_recheck(signals);
            if verdict.gates.is_empty() { before.reason != Reason::Allowed } else { !before.is_free() }
        } else {
            !doubts.outcome(signals).is_like(verdict.reason, &verdict.gates)
        }
    }
}

/// Sets of signals on which a verdict hangs together, and on no smaller set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Together {
    /// The smallest sets, each sorted.
    pub sets: Vec<Vec<SignalIndex>>,
    /// True if not all of them were tried.
    pub cut: bool,
}

/// The smallest sets of fresh signals on which a verdict hangs, where it hangs on no single one. At most
/// `MAX_SETS_TRIED` sets of at most `MAX_SET_SIGNALS` are tried, small ones first.
pub fn together(slice: &dyn Slice, rules: &[SignalRule], facts: &Facts, verdict: &Verdict) -> Together {
    let question = Question::new(slice, rules, facts, verdict);
    let is_candidate = |signal: &SignalIndex| {
        let fact = facts.iter().find(|(index, _)| index == signal).map(|(_, fact)| fact);
        let rule = rules.get(usize::from(signal.0));
        let revocable = |(fact, rule)| standing(rule, fact) == Standing::Revocable;
        fact.is_some_and(|fact| fact.state == State::Fresh)
            && !(question.refuses && fact.zip(rule).is_some_and(revocable))
    };
    let signals: Vec<SignalIndex> = slice.mentioned().into_iter().filter(is_candidate).collect();
    let mut found = Together::default();
    let mut tried = 0;
    for size in 2..=MAX_SET_SIGNALS.min(signals.len()) {
        let mut picked: Vec<usize> = (0..size).collect();
        loop {
            if tried == MAX_SETS_TRIED {
                return Together { cut: true, ..found };
            }
            tried += 1;
            let set: Vec<SignalIndex> = picked.iter().filter_map(|at| signals.get(*at).copied()).collect();
            if question.hangs_on(&set) {
                found.sets.push(set);
            }
            if !advance(&mut picked, signals.len()) {
                break;
            }
        }
        if !found.sets.is_empty() {
            return found;
        }
    }
    Together { cut: signals.len() > MAX_SET_SIGNALS, ..found }
}

/// The next combination in order; false after the last one.
fn advance(picked: &mut [usize], of: usize) -> bool {
    let size = picked.len();
    let Some(at) = (0..size).rev().find(|at| picked.get(*at).is_some_and(|pick| *pick < of - size + at)) else {
        return false;
    };
    let next = picked.get(at).map_or(0, |pick| pick + 1);
    for (offset, pick) in picked.iter_mut().skip(at).enumerate() {
        *pick = next + offset;
    }
    true
}

fn a_may_policy_mentions(slice: &dyn Slice, verdict: &Verdict, signal: SignalIndex) -> bool {
    verdict
        .truths
        .iter()
        .enumerate()
        .any(|(at, truth)| *truth == Truth::May && slice.info(at).mentions.binary_search(&signal).is_ok())
}

/// Whether an allow waits for a yes because this signal is not there: a gated forbid only *may* apply, or a permit
/// without a gate only *may*, and it reads the signal. Not where a yes would be asked for in any case.
fn its_loss_asks(slice: &dyn Slice, verdict: &Verdict, signal: SignalIndex) -> bool {
    if verdict.gates.is_empty() {
        return false;
    }
    // Only Cedar's policies can demand one, and a permit of another engine carries nothing of theirs.
    let policies = || {
        let all = verdict.truths.iter().enumerate().map(|(at, truth)| (slice.info(at), truth));
        all.filter(|(info, _)| info.engine == EngineKind::Cedar)
    };
    let gated = |info: &PolicyInfo| info.require_approval.is_some();
    let asked_in_any_case = policies()
        .any(|(info, t)| info.effect == Effect::Forbid && gated(info) && *t == Truth::Certain)
        || !policies()
            .any(|(info, t)| info.effect == Effect::Permit && !gated(info) && matches!(t, Truth::Certain | Truth::May));
    let carried = policies().any(|(info, t)| info.effect == Effect::Permit && !gated(info) && *t == Truth::Certain);
    !asked_in_any_case
        && policies().any(|(info, truth)| {
            let asks = match info.effect {
                Effect::Forbid => gated(info),
                Effect::Permit => !gated(info) && !carried,
            };
            asks && *truth == Truth::May && info.mentions.binary_search(&signal).is_ok()
        })
}
