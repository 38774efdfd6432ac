//! The actions that routes declare: what policies and signals may name.

use super::Route;
use crate::{
    findings::{Findings, Place},
    model::{ActionId, Sensitivity, SignalType, Tier, Value},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// One action, merged over its routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionDecl {
    /// Its name.
    pub id: ActionId,
    /// Its one tier.
    pub tier: Tier,
    /// Whether its routes say `grant: required`.
    pub grant_required: bool,
    /// The highest sensitivity of its routes.
    pub sensitivity: Sensitivity,
    /// The types of its resources.
    pub resource_types: BTreeSet<Arc<str>>,
    /// Its arguments.
    pub args: BTreeMap<Arc<str>, ArgDecl>,
    /// The static facts that its routes give, with every value that one of them gives.
    pub facts: BTreeMap<Arc<str>, BTreeSet<Value>>,
    /// Its first route.
    pub place: Place,
}

/// One argument of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgDecl {
    /// Its type, the same on every route.
    pub kind: SignalType,
    /// False only if every route of the action requires it.
    pub optional: bool,
}

/// Merges the routes of each action; what they disagree on is a finding.
pub(super) fn merge(file: &str, routes: &[Arc<Route>], findings: &mut Findings) -> Vec<ActionDecl> {
    let mut by_action: BTreeMap<&ActionId, Vec<&Arc<Route>>> = BTreeMap::new();
    for route in routes {
        by_action.entry(&route.action).or_default().push(route);
    }
    by_action.into_values().filter_map(|routes| merge_one(file, &routes, findings)).collect()
}

fn merge_one(file: &str, routes: &[&Arc<Route>], findings: &mut Findings) -> Option<ActionDecl> {
    let first = routes.iter().min_by_key(|route| route.place)?;
    let mut args: BTreeMap<Arc<str>, (ArgDecl, Place, usize)> = BTreeMap::new();
    let mut facts: BTreeMap<Arc<str>, BTreeSet<Value>> = BTreeMap::new();
    for (name, value) in routes.iter().flat_map(|route| route.all_facts()) {
        facts.entry(name).or_default().insert(value);
    }
    for route in routes {
        if route.tier != first.tier {
            let message = format!(
                "`tier`: an action has one tier, and `{}` is `{}` here and `{}` in line {}",
                route.action,
                route.tier.as_str(),
                first.tier.as_str(),
                first.place.line
            );
            findings.error(file, route.place, "action_tier", message);
        }
        if route.grant_required != first.grant_required && route.tier == first.tier {
            let word = |required| if required { "required" } else { "optional" };
            let message = format!(
                "`grant`: one word for all routes of an action, and `{}` is `{}` here and `{}` in line {}",
                route.action,
                word(route.grant_required),
                word(first.grant_required),
                first.place.line
            );
            findings.error(file, route.place, "action_grant", message);
        }
        for (name, kind, optional) in route.args.declared() {
            let new = || (ArgDecl { kind: kind.clone(), optional }, route.place, 0);
            let (known, place, count) = args.entry(Arc::clone(name)).or_insert_with(new);
            if known.kind != *kind {
                let message = format!(
                    "`args`: `{name}` of `{}` is {kind} here and {} in line {}: expected one type",
                    route.action, known.kind, place.line
                );
                findings.error(file, route.place, "argument_type", message);
            }
            known.optional |= optional;
            *count += 1;
        }
    }
    let everywhere =
        |(decl, _, count): (ArgDecl, Place, usize)| ArgDecl { optional: decl.optional || count < routes.len(), ..decl };
    Some(ActionDecl {
        id: first.action.clone(),
        tier: first.tier,
        grant_required: first.grant_required,
        sensitivity: routes.iter().map(|route| route.sensitivity).max()?,
        resource_types: routes.iter().map(|route| Arc::clone(&route.resource_type)).collect(),
        args: args.into_iter().map(|(name, found)| (name, everywhere(found))).collect(),
        facts,
        place: first.place,
    })
}
