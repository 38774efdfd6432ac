//! What the directory says of one workload. What follows from it is told in `principals.rs`.

use super::{names::Environment, time::Timestamp};
use std::sync::Arc;

/// What the directory says of one workload, beside the roles that it is a member of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrincipalRecord {
    /// Who answers for it.
    pub owner: Option<Arc<str>>,
    /// The environment that it belongs to.
    pub environment: Option<Environment>,
    /// From then on it is nobody here.
    pub retired_at: Option<Timestamp>,
    /// The device that it runs on.
    pub device: Option<Arc<str>>,
    /// Set if it stands for somebody who has nothing but a long-lived secret: until when that is borne.
    pub legacy_until: Option<Timestamp>,
}

impl PrincipalRecord {
    /// Whether it stands for somebody who has nothing but a long-lived secret.
    pub const fn is_legacy(&self) -> bool {
        self.legacy_until.is_some()
    }

    /// Whether anything in it can stand against a request.
    pub const fn restricts(&self) -> bool {
        self.environment.is_some() || self.retired_at.is_some() || self.legacy_until.is_some()
    }
}
