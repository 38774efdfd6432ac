//! What the settings say of approvals.

use crate::model::{ActionId, Span};
use serde::Deserialize;
use std::collections::BTreeMap;

/// A quarter of an hour: an approver has a meeting, and an agent can wait no longer.
const TTL_MICROS: i64 = 900_000_000;
/// Of one requester. A person who is asked more often at once says yes without reading.
const MAX_OPEN: usize = 20;

/// `approvals` of the settings.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ApprovalSettings {
    ttl_us: i64,
    need: u32,
    max_open: usize,
    actions: BTreeMap<String, ApprovalTerms>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct ApprovalTerms {
    ttl_us: i64,
    need: u32,
}

impl Default for ApprovalSettings {
    fn default() -> Self {
        Self { ttl_us: TTL_MICROS, need: 1, max_open: MAX_OPEN, actions: BTreeMap::new() }
    }
}

impl ApprovalSettings {
    /// For how long a question about an action is open.
    pub fn ttl(&self, action: &ActionId) -> Span {
        Span::from_micros(self.actions.get(action.as_str()).map_or(self.ttl_us, |terms| terms.ttl_us))
    }

    /// How many must say yes. At least one, whatever the settings say.
    pub fn need(&self, action: &ActionId) -> u32 {
        self.actions.get(action.as_str()).map_or(self.need, |terms| terms.need).max(1)
    }

    /// How many questions of one requester may be open at once.
    pub fn max_open(&self) -> usize {
        self.max_open
    }
}
