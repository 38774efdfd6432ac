//! The conditions of policies one by one: for tests of policies, which count those that were judged both ways.

use super::Compiled;
use crate::{
    findings::Lines,
    model::ActionId,
    policy::{ActionRule, ConditionInfo, Makeup},
};
use cedar_policy_core::{
    ast::{Expr, ExprKind, Policy, PrincipalOrResourceConstraint, UnaryOp},
    parser::Loc,
};
use std::{collections::BTreeSet, sync::Arc};

/// What a scope leaves open.
#[derive(Debug)]
pub(super) struct Scope {
    actions: Arc<[ActionId]>,
    is_narrow: bool,
}

/// What a scope that names no action can match: the same for all such policies, so it is made once.
pub(super) struct Anywhere {
    actions: Arc<[ActionId]>,
    resource_types: BTreeSet<Arc<str>>,
}

impl Anywhere {
    /// `matched`: the actions of all routes.
    pub(super) fn of(matched: &[&ActionRule]) -> Self {
        Self {
            actions: matched.iter().map(|action| action.id.clone()).collect(),
            resource_types: matched.iter().flat_map(|action| &action.resource_types).cloned().collect(),
        }
    }

    /// The scope of a policy that names no action.
    pub(super) fn scope(&self, policy: &Policy) -> Scope {
        let is_narrow = is_narrow(policy, || self.resource_types.iter());
        Scope { actions: Arc::clone(&self.actions), is_narrow }
    }
}

/// Whether a scope leaves a principal or a resource out. `types`: of the resources of the actions that it can match.
fn is_narrow<'t, T: Iterator<Item = &'t Arc<str>>>(policy: &Policy, types: impl Fn() -> T) -> bool {
    let (principal, resource) = (policy.principal_constraint(), policy.resource_constraint());
    // Every principal is a workload, and a resource of another type is there only where routes name one.
    let any_principal =
        matches!(principal.as_inner(), PrincipalOrResourceConstraint::Any | PrincipalOrResourceConstraint::Is(_));
    match resource.as_inner() {
        PrincipalOrResourceConstraint::Any if any_principal => false,
        PrincipalOrResourceConstraint::Is(kind) if any_principal => {
            let kind = kind.to_string();
            types().any(|other| **other != *kind)
        }
        _ => true,
    }
}

impl Scope {
    /// `matched`: the actions that the scope can match.
    pub(super) fn of(policy: &Policy, matched: &[&ActionRule]) -> Self {
        let is_narrow = is_narrow(policy, || matched.iter().flat_map(|action| &action.resource_types));
        Self { actions: matched.iter().map(|action| action.id.clone()).collect(), is_narrow }
    }
}

/// What a policy consists of.
pub(super) fn makeup(policy: &Compiled, scope: &Scope) -> Makeup {
    let parts = policy.condition.as_deref().map(split).unwrap_or_default();
    // Of a whole file, so it is made once for a policy.
    let lines = parts.iter().find_map(|part| part.source_loc()).map(|loc| Lines::of(&loc.src));
    let info = |part: &&Expr| {
        let (word, body) = worded(part);
        let at =
            body.source_loc().zip(lines.as_ref()).map_or(policy.info.place, |(loc, lines)| lines.place(loc.start()));
        ConditionInfo { word, place: at }
    };
    Makeup { actions: scope.actions.to_vec(), is_scoped: scope.is_narrow, conditions: parts.iter().map(info).collect() }
}

/// Policies cut off behind each of their conditions, with their indices: each once for a condition, the last time whole.
pub(super) fn cut<'p>(policies: impl Iterator<Item = (u32, &'p Compiled)>) -> Vec<(u32, Compiled)> {
    let mut all = Vec::new();
    for (index, policy) in policies {
        let parts = policy.condition.as_deref().map(split).unwrap_or_default();
        let mut so_far: Option<Expr> = None;
        for part in parts.iter().take(parts.len().saturating_sub(1)) {
            let whole = match so_far.take() {
                None => (*part).clone(),
                Some(before) => Expr::and(before, (*part).clone()),
            };
            so_far = Some(whole.clone());
            all.push((index, judged_by(policy, Some(Arc::new(whole)))));
        }
        all.push((index, judged_by(policy, policy.condition.clone())));
    }
    all
}

/// The policy with another condition. It is judged by Cedar alone.
fn judged_by(policy: &Compiled, condition: Option<Arc<Expr>>) -> Compiled {
    Compiled {
        info: Arc::clone(&policy.info),
        condition,
        quick: None,
        principal_type: policy.principal_type.clone(),
        resource_type: policy.resource_type.clone(),
        asks_principal: policy.asks_principal,
        asks_resource: policy.asks_resource,
        reads: policy.reads.clone(),
    }
}

/// The conditions of a policy. Cedar's parser joins them to one, `first && (second && third)`, and gives each of those
/// `&&` the place of the policy as a whole: no `&&` of an author begins where a policy does.
fn split(condition: &Expr) -> Vec<&Expr> {
    let mut parts = Vec::new();
    let mut rest = condition;
    while let ExprKind::And { left, right } = rest.expr_kind() {
        if !rest.source_loc().is_some_and(is_of_policy) {
            break;
        }
        parts.push(&**left);
        rest = right;
    }
    parts.push(rest);
    parts
}

fn is_of_policy(loc: &Loc) -> bool {
    loc.snippet().is_some_and(|text| ["@", "permit", "forbid"].iter().any(|start| text.starts_with(start)))
}

/// `unless { x }` is read as `!x`, in the place of the whole clause.
fn worded(part: &Expr) -> (&'static str, &Expr) {
    match part.expr_kind() {
        ExprKind::UnaryApp { op: UnaryOp::Not, arg } if part.source_loc().is_some_and(is_unless) => ("unless", arg),
        _ => ("when", part),
    }
}

fn is_unless(loc: &Loc) -> bool {
    loc.snippet().is_some_and(|text| text.starts_with("unless"))
}

#[cfg(test)]
mod tests {
    use super::{split, worded};
    use cedar_policy_core::parser::parse_policy;

    #[test]
    fn conditions_are_told_apart_as_they_were_written() {
        let text = r#"@id("x")
permit (principal, action, resource)
when { context.a && context.b }
unless { context.c }
when { !(context.d) };"#;
        let policy = parse_policy(None, text).unwrap();
        let parts = split(policy.non_scope_constraints().unwrap());
        let told: Vec<(&str, &str)> = parts
            .iter()
            .map(|part| {
                let (word, body) = worded(part);
                (word, body.source_loc().unwrap().snippet().unwrap())
            })
            .collect();
        assert_eq!(told, [("when", "context.a && context.b"), ("unless", "context.c"), ("when", "!(context.d)")]);
    }

    #[test]
    fn one_condition_is_not_taken_apart() {
        let policy = parse_policy(None, "permit (principal, action, resource) when { (1 == 1) && 2 == 2 };").unwrap();
        assert_eq!(split(policy.non_scope_constraints().unwrap()).len(), 1);
    }
}
