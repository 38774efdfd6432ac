//! Actions that no route declares: what is asked of the product itself, about tasks and approvals. Their policies are a
//! set of their own, which only a scope that names the action reaches; their resources are of types that no file lists.

use crate::{
    findings::Place,
    model::{ActionId, Tier, names::BUILT_IN_ACTIONS},
    policy::ActionRule,
};
use std::collections::{BTreeMap, BTreeSet};

/// Each action with the type of its resource.
const ACTIONS: [(&str, &str); 4] = [
    ("task.begin", "TaskType"),
    ("task.delegate", "Task"),
    ("approval.give", "Approval"),
    ("approval.waive", "Approval"),
];

/// Entity types that are ours: a directory can't declare them.
pub(super) const TYPES: [&str; 3] = ["Approval", "Task", "TaskType"];

/// `context.request` of each of them.
pub(super) const REQUEST: &str = "{ \"for\": __cedar::String, \"actions\": Set<__cedar::String>, \
     \"resources\": Set<__cedar::String>, \"sensitivity\"?: __cedar::String, \"environment\"?: __cedar::String }";

/// Whether an action is built in.
pub(super) fn is_built_in(action: &ActionId) -> bool {
    is_name(action.as_str())
}

/// Whether this is the name of a built-in action.
pub(super) fn is_name(name: &str) -> bool {
    BUILT_IN_ACTIONS.contains(&name)
}

/// The actions, as the room knows those of routes.
pub(super) fn rules() -> Vec<ActionRule> {
    let rule = |(name, kind): (&str, &str)| {
        Some(ActionRule {
            id: ActionId::parse(name)?,
            // Their policies may read signals; nothing else hangs on it.
            tier: Tier::Runtime,
            grant_required: false,
            resource_types: BTreeSet::from([kind.into()]),
            args: BTreeMap::new(),
            place: Place::default(),
        })
    };
    ACTIONS.into_iter().filter_map(rule).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_built_in_action_has_a_rule_and_each_of_its_types_is_reserved() {
        let rules = rules();
        let names: Vec<&str> = rules.iter().map(|rule| rule.id.as_str()).collect();
        assert_eq!(names, BUILT_IN_ACTIONS);
        let types: BTreeSet<&str> = rules.iter().flat_map(|rule| &rule.resource_types).map(AsRef::as_ref).collect();
        assert_eq!(types, BTreeSet::from(TYPES));
    }
}
