//! What loads and does nothing, said aloud: signals that no policy reads, or that no call can have, actions that no policy
//! permits.

use crate::{
    findings::{Findings, Place},
    model::{
        ActionId, Influence, SignalName, Tier,
        names::{SubjectKind, WITHOUT_A_TASK},
    },
    policy::{ActionRule, PolicyEngine, SignalIndex},
    signals::Register,
};
use std::collections::{HashMap, HashSet};

/// Warns of what could as well be left out, or was forgotten.
pub(crate) fn warn(actions: &[ActionRule], register: &Register, engine: &dyn PolicyEngine, findings: &mut Findings) {
    unread_signals(register, engine, findings);
    never_found(actions, register, findings);
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

/// A task and its workflow are known by a grant alone: where none is looked at, a signal about them is always missing.
fn never_found(actions: &[ActionRule], register: &Register, findings: &mut Findings) {
    let about_tasks = |kind: SubjectKind| matches!(kind, SubjectKind::Task | SubjectKind::Workflow);
    let rules: HashMap<&ActionId, &ActionRule> = actions.iter().map(|action| (&action.id, action)).collect();
    for contract in register.contracts().iter().filter(|contract| about_tasks(contract.subject)) {
        for used_by in &contract.used_by {
            let why = match rules.get(used_by).map(|rule| rule.tier) {
                Some(tier @ (Tier::Coarse | Tier::Runtime)) => {
                    format!("`{used_by}` is of tier `{}` and takes no grant", tier.as_str())
                }
                None if WITHOUT_A_TASK.contains(&used_by.as_str()) => format!("`{used_by}` is decided without one"),
                _ => continue,
            };
            let (name, subject) = (&contract.name, contract.subject.as_str());
            let message =
                format!("`used_by`: {why}, so the {subject} of a call is never known and `{name}` is always missing");
            findings.warning("signals.yaml", contract.place, "never_found", message);
        }
    }
}

fn unpermitted_actions(actions: &[ActionRule], engine: &dyn PolicyEngine, findings: &mut Findings) {
    for action in actions.iter().filter(|action| !engine.can_permit(&action.id)) {
        let message = format!("no permit can match the action `{}`, so each call of it is denied", action.id);
        findings.warning("routes.yaml", action.place, "action_without_policy", message);
    }
}
