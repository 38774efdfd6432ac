//! What observing policies (`@mode("observe")`) say, and what the reason would be, were they enforced.
//! Computed when the record is drained, from the facts and the snapshot that it holds: never while an answer waits.

use super::{
    Facts, Mode, Observing, PolicyInfo, SignalRule,
    reasoning::{Truth, evaluate},
};
use crate::reason::Reason;
use std::sync::Arc;

/// What enforcing the observing policies would have come to.
#[derive(Debug)]
pub struct Would {
    /// The observing policies in play, each with its truth in the evaluation that gave the reason.
    pub observed: Vec<(Arc<PolicyInfo>, Truth)>,
    /// The reason of the policies, before the route's tier asks for more.
    pub reason: Reason,
    /// Whether a policy demands an approval of what they allow.
    pub gated: bool,
}

/// Judges enforcing and observing policies together, by the same rules as a decision.
pub fn would(observing: &Observing<'_>, rules: &[SignalRule], facts: &Facts) -> Would {
    let slice = &*observing.slice;
    let verdict = evaluate(slice, rules, facts);
    let gated = !verdict.gates.is_empty();
    let observed = verdict.truths.into_iter().enumerate().filter_map(|(at, truth)| {
        let info = slice.info(at);
        (info.mode == Mode::Observe).then(|| (Arc::clone(info), truth))
    });
    Would {
        observed: observed.collect(),
        reason: if observing.unknown.is_some() { Reason::EntityUnknown } else { verdict.reason },
        gated,
    }
}
