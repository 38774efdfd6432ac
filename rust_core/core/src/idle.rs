//! What loads and does nothing, said aloud: signals that no policy reads, actions that no policy permits.

use crate::{
    findings::{Findings, Place},
    model::Influence,
    policy::{ActionRule, PolicyEngine, SignalRule},
};

/// Warns of what could as well be left out, or was forgotten.
pub(crate) fn warn(actions: &[ActionRule], rules: &[SignalRule], engine: &dyn PolicyEngine, findings: &mut Findings) {
    unread_signals(rules, engine, findings);
    if engine.policies().is_empty() && !actions.is_empty() {
        findings.warning("policies", Place::default(), "no_policies", "there is no policy, so everything is denied");
    } else {
        unpermitted_actions(actions, engine, findings);
    }
}

/// Minimality: what no policy reads, enforcing or observing, is not collected.
fn unread_signals(rules: &[SignalRule], engine: &dyn PolicyEngine, findings: &mut Findings) {
    for (at, rule) in rules.iter().enumerate() {
        let read = engine.policies().iter().any(|p| p.mentions.iter().any(|s| usize::from(s.0) == at));
        if rule.influence != Influence::Observe && !read {
            let message =
                format!("no policy reads the signal `{}`: remove it, or let it be `influence: observe`", rule.name);
            findings.warning("signals.yaml", rule.place, "unread_signal", message);
        }
    }
}

fn unpermitted_actions(actions: &[ActionRule], engine: &dyn PolicyEngine, findings: &mut Findings) {
    for action in actions.iter().filter(|action| !engine.can_permit(&action.id)) {
        let message = format!("no permit can match the action `{}`, so each call of it is denied", action.id);
        findings.warning("routes.yaml", action.place, "action_without_policy", message);
    }
}
