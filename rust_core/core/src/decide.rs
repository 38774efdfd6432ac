//! From a verdict to an answer: tiers, and the permit without which no allow can be encoded.

use crate::{model::Tier, policy::reasoning::Verdict, reason::Reason, route::Route};

/// Proof that this decision is an allow. Only this file can make one, and `wire::encode_allow` needs it.
#[derive(Debug)]
pub struct Permit(());

/// Why a call goes no further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// From the closed list.
    pub reason: Reason,
    /// One sentence for the record; empty where the reason says it all.
    pub detail: String,
}

impl Denial {
    /// A denial with a sentence for the record.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

/// The grant that the route's tier needs, before any policy is asked (DESIGN section 3). Grants are not
/// issued by this version, so none can be presented.
pub fn admit_grant(route: &Route) -> Result<(), Denial> {
    match route.tier {
        Tier::Jit => Err(Denial::new(Reason::GrantRequired, "the route's tier is jit, and no grant was presented")),
        Tier::Approval if route.grant_required => {
            Err(Denial::new(Reason::GrantRequired, "the route says `grant: required`, and no grant was presented"))
        }
        Tier::Coarse | Tier::Runtime | Tier::Approval => Ok(()),
    }
}

/// The answer: what policies say first, then the approval that the route's tier needs.
pub fn decide(route: &Route, verdict: &Verdict) -> Result<Permit, Denial> {
    conclude(route, verdict.reason, !verdict.gates.is_empty())?;
    Ok(Permit(()))
}

/// What a route makes of the policies' reason, without a permit: for what would be, too. `gated`: a policy demands
/// an approval.
pub fn conclude(route: &Route, reason: Reason, gated: bool) -> Result<(), Denial> {
    if reason != Reason::Allowed {
        return Err(Denial::new(reason, ""));
    }
    match route.tier {
        Tier::Coarse | Tier::Runtime if gated => {
            Err(Denial::new(Reason::ApprovalRequired, "a policy demands an approval"))
        }
        Tier::Coarse | Tier::Runtime => Ok(()),
        Tier::Approval => Err(Denial::new(Reason::ApprovalRequired, "the route's tier is approval")),
        // `admit_grant` has denied it before; an allow of a jit route without a grant must not exist.
        Tier::Jit => Err(Denial::new(Reason::GrantRequired, "the route's tier is jit")),
    }
}

/// The permit of a denial that is not enforced: the route says `enforce: false`, and the reason is one of those that
/// policies, signals and tiers give. The record says that the call was denied, and let pass.
pub fn let_pass(route: &Route, denial: &Denial) -> Option<Permit> {
    (!route.enforce && denial.reason.may_be_unenforced()).then_some(Permit(()))
}

#[cfg(test)]
impl Permit {
    /// For tests of the encoder alone.
    pub(crate) fn for_tests() -> Self {
        Self(())
    }
}
