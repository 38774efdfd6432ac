//! What each signal did in a decision: `decisive`, `consulted` or `refused` (DESIGN section 6, step 7).
//! Computed when the record is drained, never while an answer waits.

use super::{
    Facts, SignalIndex, SignalRule, Slice, Standing,
    reasoning::{Doubts, Truth, Verdict},
    standing,
};
use crate::{model::State, reason::Reason};

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
    let doubts = Doubts::new(slice, rules, facts);
    slice
        .mentioned()
        .into_iter()
        .filter_map(|signal| {
            let fact = facts.iter().find(|(index, _)| *index == signal).map(|(_, fact)| fact)?;
            let rule = rules.get(usize::from(signal.0))?;
            let decisive = if fact.state != State::Fresh {
                verdict.reason == Reason::SignalUnavailable && a_may_policy_mentions(slice, verdict, signal)
            } else if verdict.reason == Reason::SignalWideningRefused {
                if standing(rule, fact) == Standing::Revocable {
                    return Some((signal, Effected::Refused));
                }
                // The result before the recheck was an allow.
                doubts.reason_before_recheck(signal) != Reason::Allowed
            } else {
                doubts.reason(signal) != verdict.reason
            };
            Some((signal, if decisive { Effected::Decisive } else { Effected::Consulted }))
        })
        .collect()
}

fn a_may_policy_mentions(slice: &dyn Slice, verdict: &Verdict, signal: SignalIndex) -> bool {
    verdict
        .truths
        .iter()
        .enumerate()
        .any(|(at, truth)| *truth == Truth::May && slice.info(at).mentions.binary_search(&signal).is_ok())
}
