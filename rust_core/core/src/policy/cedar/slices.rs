//! Slices, built at load: which policies can match an action, a principal and a resource, so that cost does
//! not grow with policies that cannot apply (DESIGN section 6, step 4).

use crate::{model::ActionId, policy::SignalIndex};
use cedar_policy_core::ast::{EntityReference, EntityType, EntityUID, PrincipalOrResourceConstraint};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

/// One side of a scope: things filed by what the scope says of principal (or resource).
#[derive(Debug)]
pub(super) struct ByScope<T> {
    is_empty: bool,
    any: T,
    equal: HashMap<EntityUID, T>,
    within: HashMap<EntityUID, T>,
    of_type: HashMap<EntityType, T>,
}

impl<T: Default> Default for ByScope<T> {
    fn default() -> Self {
        Self {
            is_empty: true,
            any: T::default(),
            equal: HashMap::new(),
            within: HashMap::new(),
            of_type: HashMap::new(),
        }
    }
}

/// A principal or resource with its ancestors, as the entities have them.
pub(super) struct Located<'a> {
    pub(super) uid: &'a EntityUID,
    pub(super) ancestors: Vec<&'a EntityUID>,
}

impl<T: Default> ByScope<T> {
    /// Whether nothing is filed.
    fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// The place where a constraint is filed. Slots are bound: a template as such is no policy.
    fn entry(&mut self, constraint: &PrincipalOrResourceConstraint) -> &mut T {
        self.is_empty = false;
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
    fn visit<'a>(&'a self, entity: &Located<'_>, mut visit: impl FnMut(&'a T)) {
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

/// Policies by what their scopes say: the principal side, then the resource side; the values are indices of policies.
pub(super) type Filed = ByScope<ByScope<Vec<u32>>>;

/// The policies that can match one action.
#[derive(Debug, Default)]
pub(super) struct ActionSlice {
    /// Those whose scope names the action.
    policies: Filed,
    /// Those of any action of routes; none of a built-in one.
    anywhere: Option<Arc<Filed>>,
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
    /// Signals that the policies mention, sorted.
    pub(super) fn mentions(&self) -> &[SignalIndex] {
        &self.mentions
    }

    /// Indices of the policies whose scope can match, ascending.
    pub(super) fn select(&self, principal: &Located<'_>, resource: &Located<'_>) -> Vec<u32> {
        let mut found = Vec::new();
        for filed in std::iter::once(&self.policies).chain(self.anywhere.as_deref()) {
            filed.visit(principal, |inner| inner.visit(resource, |indices| found.extend_from_slice(indices)));
        }
        found.sort_unstable();
        found
    }
}

/// What is filed of one policy.
pub(super) struct Entry<'a> {
    pub(super) index: u32,
    pub(super) principal: &'a PrincipalOrResourceConstraint,
    pub(super) resource: &'a PrincipalOrResourceConstraint,
    pub(super) asks_principal: bool,
    pub(super) asks_resource: bool,
    pub(super) mentions: &'a [SignalIndex],
}

/// A slice that is being filled. Policies come in the order of their indices.
#[derive(Default)]
struct Filling {
    policies: Filed,
    asks_principal: Option<u32>,
    asks_resource: Option<u32>,
    mentions: BTreeSet<SignalIndex>,
}

impl Filling {
    fn file(&mut self, entry: &Entry<'_>) {
        self.policies.entry(entry.principal).entry(entry.resource).push(entry.index);
        if entry.asks_principal {
            self.asks_principal.get_or_insert(entry.index);
        }
        if entry.asks_resource {
            self.asks_resource.get_or_insert(entry.index);
        }
        self.mentions.extend(entry.mentions);
    }
}

/// The slices of the policies of one mode, being filled. A policy of any action is filed once, not once for each action:
/// with thousands of both, that would be millions.
#[derive(Default)]
pub(super) struct Filings {
    by_action: HashMap<ActionId, Filling>,
    anywhere: Filling,
}

impl Filings {
    /// Files a policy of these actions.
    pub(super) fn file<'a>(&mut self, actions: impl Iterator<Item = &'a ActionId>, entry: &Entry<'_>) {
        for action in actions {
            match self.by_action.get_mut(action) {
                Some(filling) => filling.file(entry),
                None => self.by_action.entry(action.clone()).or_default().file(entry),
            }
        }
    }

    /// Files a policy of any action of routes.
    pub(super) fn file_anywhere(&mut self, entry: &Entry<'_>) {
        self.anywhere.file(entry);
    }

    /// The slices: of each of these actions that has a policy. `is_built_in`: is none of routes.
    pub(super) fn finish<'a>(
        mut self,
        actions: impl Iterator<Item = &'a ActionId>,
        is_built_in: impl Fn(&ActionId) -> bool,
    ) -> HashMap<ActionId, ActionSlice> {
        let Filling { policies, asks_principal, asks_resource, mentions } = self.anywhere;
        let anywhere = (!policies.is_empty()).then(|| Arc::new(policies));
        let least = |a: Option<u32>, b: Option<u32>| a.into_iter().chain(b).min();
        let mut slices = HashMap::new();
        for action in actions {
            let own = self.by_action.remove(action);
            let everybodys = anywhere.as_ref().filter(|_| !is_built_in(action));
            if own.is_none() && everybodys.is_none() {
                continue;
            }
            let mut own = own.unwrap_or_default();
            if everybodys.is_some() {
                own.asks_principal = least(own.asks_principal, asks_principal);
                own.asks_resource = least(own.asks_resource, asks_resource);
                own.mentions.extend(&mentions);
            }
            let slice = ActionSlice {
                policies: own.policies,
                anywhere: everybodys.cloned(),
                asks_principal: own.asks_principal,
                asks_resource: own.asks_resource,
                mentions: own.mentions.into_iter().collect(),
                ..ActionSlice::default()
            };
            slices.insert(action.clone(), slice);
        }
        slices
    }
}
