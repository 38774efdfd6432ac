//! What loads and does nothing, said aloud: signals that no policy reads, actions that no policy permits.

use crate::{
    findings::{Findings, Place},
    model::{Influence, SignalName},
    policy::{ActionRule, PolicyEngine, SignalIndex},
    signals::Register,
};
use std::collections::HashSet;

/// Warns of what could as well be left out, or was forgotten.
pub(crate) fn warn(actions: &[ActionRule], register: &Register, engine: &dyn PolicyEngine, findings: &mut Findings) {
    unread_signals(register, engine, findings);
    if engine.policies().is_empty() && !actions.is_empty() {
        findings.warning("policies", Place::default(), "no_policies", "there is no policy, so everything is denied");
    } else {
        unpermitted_actions(actions, engine, findings);
    }
}

/// Minimality: what no policy reads, enforcing or observing, and no other contract needs as company, is not collected.
fn unread_signals(register: &Register, engine: &dyn PolicyEngine, findings: &mut Findings) {
    let read: HashSet<SignalIndex> = engine.policies().iter().flat_map(|policy| &policy.mentions).copied().collect();
    let company: HashSet<&SignalName> = register
        .contracts()
        .iter()
        .filter_map(|contract| contract.combination.corroborate.as_ref())
        .flat_map(|corroborate| &corroborate.with)
        .collect();
    for (at, contract) in register.contracts().iter().enumerate() {
        let is_read = u16::try_from(at).is_ok_and(|at| read.contains(&SignalIndex(at)));
        if contract.influence != Influence::Observe && !is_read && !company.contains(&contract.name) {
            let name = &contract.name;
            let message = format!("no policy reads the signal `{name}`: remove it, or let it be `influence: observe`");
            findings.warning("signals.yaml", contract.place, "unread_signal", message);
        }
    }
}

fn unpermitted_actions(actions: &[ActionRule], engine: &dyn PolicyEngine, findings: &mut Findings) {
    for action in actions.iter().filter(|action| !engine.can_permit(&action.id)) {
        let message = format!("no permit can match the action `{}`, so each call of it is denied", action.id);
        findings.warning("routes.yaml", action.place, "action_without_policy", message);
    }
}
