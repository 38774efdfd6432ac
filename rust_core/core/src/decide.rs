//! From a verdict to an answer: tiers, and the permit without which no allow can be encoded.

use crate::{
    approvals::Claimed, model::Tier, policy::reasoning::Verdict, reason::Reason, route::Route, tasks::Admitted,
};

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

/// What an allow of the policies still needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing more.
    Nothing,
    /// Somebody's yes to this exact call.
    Approval,
}

/// What a route makes of the policies' reason, without a permit: for what would be, too. `gated`: a policy that decides
/// demands an approval.
pub fn conclude(route: &Route, reason: Reason, gated: bool) -> Result<Need, Denial> {
    match reason {
        Reason::Allowed if gated || route.tier == Tier::Approval => Ok(Need::Approval),
        Reason::Allowed => Ok(Need::Nothing),
        other => Err(Denial::new(other, "")),
    }
}

/// The permit: what policies say first, then the grant and the approval that the tier and the policies need.
pub fn permit(
    route: &Route,
    verdict: &Verdict,
    admitted: Option<&Admitted>,
    claimed: Option<&Claimed>,
) -> Result<Permit, Denial> {
    let need = conclude(route, verdict.reason, !verdict.gates.is_empty())?;
    // The way of a request has denied both before; an allow without them must not exist.
    if admitted.is_none() && (route.tier == Tier::Jit || route.grant_required) {
        return Err(Denial::new(Reason::GrantRequired, "the route needs a grant"));
    }
    if claimed.is_none() && need == Need::Approval {
        return Err(Denial::new(Reason::ApprovalRequired, "the call needs an approval"));
    }
    Ok(Permit(()))
}

/// The permit of a denial that is not enforced.
pub fn let_pass(route: &Route, denial: &Denial) -> Option<Permit> {
    is_let_pass(route, denial.reason).then_some(Permit(()))
}

/// Whether a denial is let pass: the route says `enforce: false`, and the reason is one of those that policies, signals and
/// tiers give. The record says that the call was denied, and let pass.
pub fn is_let_pass(route: &Route, reason: Reason) -> bool {
    !route.enforce && reason.may_be_unenforced()
}

#[cfg(test)]
impl Permit {
    /// For tests of the encoder alone.
    pub(crate) fn for_tests() -> Self {
        Self(())
    }
}
