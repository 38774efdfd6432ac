//! What each signal did in a decision: `decisive`, `consulted` or `refused` (DESIGN section 6, step 7).
//! Computed when the record is drained, never while an answer waits.

use super::{
    Effect, Facts, PolicyInfo, SignalIndex, SignalRule, Slice, Standing,
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
    // Words that may only restrict, and that would have opened: a denial, or a question where none was asked.
    let refuses = verdict.reason == Reason::SignalWideningRefused
        || (verdict.rechecked && !verdict.gates.is_empty() && doubts.undoubted_before_recheck().is_free());
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
            } else if refuses {
                if standing(rule, fact) == Standing::Revocable {
                    return Some((signal, Effected::Refused));
                }
                // The result before the recheck: an allow under `signal_widening_refused`, else a free one.
                let before = doubts.before_recheck(signal);
                if verdict.gates.is_empty() { before.reason != Reason::Allowed } else { !before.is_free() }
            } else {
                !doubts.outcome(signal).is_like(verdict.reason, &verdict.gates)
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

/// Whether an allow waits for a yes because this signal is not there: a gated forbid only *may* apply, or a permit
/// without a gate only *may*, and it reads the signal. Not where a yes would be asked for in any case.
fn its_loss_asks(slice: &dyn Slice, verdict: &Verdict, signal: SignalIndex) -> bool {
    if verdict.gates.is_empty() {
        return false;
    }
    let policies = || verdict.truths.iter().enumerate().map(|(at, truth)| (slice.info(at), truth));
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
