//! What the errors of the steps come to: a reason, and a detail for the record.

use crate::{
    decide::Denial, identity::IdentityRefused, policy::EntityUnknown, principals::NotAdmitted, reason::Reason,
    route::Unresolved, wire::Malformed,
};

impl From<Malformed> for Denial {
    fn from(malformed: Malformed) -> Self {
        Self::new(Reason::MalformedRequest, malformed.detail)
    }
}

impl From<Unresolved> for Denial {
    fn from(unresolved: Unresolved) -> Self {
        Self::new(unresolved.reason, unresolved.detail)
    }
}

impl From<IdentityRefused> for Denial {
    fn from(refused: IdentityRefused) -> Self {
        Self::new(refused.reason, refused.detail)
    }
}

impl From<NotAdmitted> for Denial {
    fn from(refused: NotAdmitted) -> Self {
        Self::new(refused.reason, refused.detail)
    }
}

impl From<EntityUnknown> for Denial {
    fn from(unknown: EntityUnknown) -> Self {
        let detail = format!(
            "`{}` is not listed in entities.json, and the policy `{}` asks for it",
            unknown.entity, unknown.policy
        );
        Self::new(Reason::EntityUnknown, detail)
    }
}
