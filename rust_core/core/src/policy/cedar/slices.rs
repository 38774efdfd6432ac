//! Slices, built at load: which policies can match an action, a principal and a resource, so that cost does
//! not grow with policies that cannot apply (DESIGN section 6, step 4).

use crate::policy::SignalIndex;
use cedar_policy_core::ast::{EntityReference, EntityType, EntityUID, PrincipalOrResourceConstraint};
use std::collections::HashMap;

/// One side of a scope: things filed by what the scope says of principal (or resource).
#[derive(Debug)]
pub(super) struct ByScope<T> {
    any: T,
    equal: HashMap<EntityUID, T>,
    within: HashMap<EntityUID, T>,
    of_type: HashMap<EntityType, T>,
}

impl<T: Default> Default for ByScope<T> {
    fn default() -> Self {
        Self { any: T::default(), equal: HashMap::new(), within: HashMap::new(), of_type: HashMap::new() }
    }
}

/// A principal or resource with its ancestors, as the entities have them.
pub(super) struct Located<'a> {
    pub(super) uid: &'a EntityUID,
    pub(super) ancestors: Vec<&'a EntityUID>,
}

impl<T: Default> ByScope<T> {
    /// The place where a constraint is filed. Templates were refused before.
    pub(super) fn entry(&mut self, constraint: &PrincipalOrResourceConstraint) -> &mut T {
        match constraint {
            PrincipalOrResourceConstraint::Eq(EntityReference::EUID(uid)) => {
                self.equal.entry(uid.as_ref().clone()).or_default()
            }
            PrincipalOrResourceConstraint::In(EntityReference::EUID(uid))
            | PrincipalOrResourceConstraint::IsIn(_, EntityReference::EUID(uid)) => {
                self.within.entry(uid.as_ref().clone()).or_default()
            }
            PrincipalOrResourceConstraint::Is(kind) => self.of_type.entry(kind.as_ref().clone()).or_default(),
            _ => &mut self.any,
        }
    }

    /// Visits everything whose constraint can hold for the entity.
    pub(super) fn visit<'a>(&'a self, entity: &Located<'_>, mut visit: impl FnMut(&'a T)) {
        visit(&self.any);
        if let Some(found) = self.equal.get(entity.uid) {
            visit(found);
        }
        if !self.within.is_empty() {
            // `in` holds for the entity itself, too.
            for uid in std::iter::once(entity.uid).chain(entity.ancestors.iter().copied()) {
                if let Some(found) = self.within.get(uid) {
                    visit(found);
                }
            }
        }
        if let Some(found) = self.of_type.get(entity.uid.entity_type()) {
            visit(found);
        }
    }
}

/// The policies that can match one action.
#[derive(Debug, Default)]
pub(super) struct ActionSlice {
    /// Principal side, then resource side; the values are indices of policies.
    pub(super) policies: ByScope<ByScope<Vec<u32>>>,
    /// The first policy that asks for the principal's attributes or parents.
    pub(super) asks_principal: Option<u32>,
    /// The first policy that asks for the resource's.
    pub(super) asks_resource: Option<u32>,
    /// Whether a permit among them can apply.
    pub(super) can_permit: bool,
    /// Whether a policy among them that can apply demands an approval.
    pub(super) has_gates: bool,
    /// Signals that they mention, sorted.
    mentions: Vec<SignalIndex>,
}

impl ActionSlice {
    /// Notes signals that a policy mentions.
    pub(super) fn mention(&mut self, signals: &[SignalIndex]) {
        self.mentions.extend_from_slice(signals);
        self.mentions.sort_unstable();
        self.mentions.dedup();
    }

    /// Signals that the policies mention, sorted.
    pub(super) fn mentions(&self) -> &[SignalIndex] {
        &self.mentions
    }

    /// Indices of the policies whose scope can match, ascending.
    pub(super) fn select(&self, principal: &Located<'_>, resource: &Located<'_>) -> Vec<u32> {
        let mut found = Vec::new();
        self.policies.visit(principal, |inner| {
            inner.visit(resource, |indices| found.extend_from_slice(indices));
        });
        found.sort_unstable();
        found
    }
}
