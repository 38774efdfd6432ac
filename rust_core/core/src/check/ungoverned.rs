//! The compatibility mode (`input: opa_envoy`): policies see the request as a whole, and a caller needs no identity.
//!
//! Where nobody else is asked, the register promises nothing (I1 to I3), so there is nothing that an identity would be for;
//! what is left are the record, reserved headers, and that everything which goes wrong denies (I4, I5).

use crate::{
    decide::Denial,
    identity::{Evidence, IdentityRefused, Unestablished},
    model::{ActionId, CredentialClass, SpiffeId, Tier},
    reason::Reason,
    record::Record,
    route::Route,
    snapshot::Snapshot,
    wire,
};
use serde_json::Value as Json;
use std::sync::Arc;

/// Stands in the question for a caller without identity. No policy sees it, and no record; nobody can have this name.
const NOBODY: &str = "spiffe://nobody.invalid/nobody";

/// The caller, if one without identity may go on: nobody else is asked about the action, its tier is `coarse`, and there is no
/// identity at all. One that is not good denies here as everywhere.
pub(super) fn nobody(snapshot: &Snapshot, route: &Route, why: &Unestablished) -> Option<Evidence> {
    let Unestablished::Refused(IdentityRefused { reason: Reason::IdentityMissing, .. }) = why else { return None };
    if route.tier != Tier::Coarse || !snapshot.policies.is_ungoverned_for(&route.action) {
        return None;
    }
    Some(Evidence {
        principal: SpiffeId::parse(NOBODY).ok()?,
        source: "none",
        class: CredentialClass::X509Svid,
        bound: false,
        age: None,
        issued_at: None,
        expires_at: None,
        certificate: None,
        serial: None,
        interactive: false,
        actor: None,
        proofs: Vec::new(),
    })
}

/// The request as policies of this action see it as a whole; `None` where none of them does (I1).
pub(super) fn whole(snapshot: &Snapshot, action: &ActionId, bytes: &[u8]) -> Result<Option<Arc<Json>>, Denial> {
    if !snapshot.policies.shows_whole(action) {
        return Ok(None);
    }
    Ok(Some(Arc::new(wire::whole_request(bytes, snapshot.descriptors.as_ref())?)))
}

/// Once decided, the request is not needed any more, unless influence is still to be told: it holds what no log may.
pub(super) fn forget(record: &mut Record) {
    if let (Some(query), Some(snapshot)) = (&mut record.query, &record.snapshot)
        && snapshot.policies.is_ungoverned_for(&query.action)
    {
        query.whole = None;
    }
}
