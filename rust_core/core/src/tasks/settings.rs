//! What the settings say of tasks: how long they may take, and how far they may be handed on.

use crate::model::{Span, TaskType};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Five minutes: the default of the issue of short-lived credentials.
const TTL_MICROS: i64 = 300_000_000;
/// An hour.
const MAX_TTL_MICROS: i64 = 3_600_000_000;
/// A day: so long the reason why a grant counts no more is remembered.
const RETENTION_MICROS: i64 = 86_400_000_000;
/// An agent, its helper, and the helper's tool are three.
const MAX_DEPTH: u32 = 4;

/// `tasks` of the settings.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct TaskSettings {
    ttl_us: i64,
    max_ttl_us: i64,
    max_depth: u32,
    retention_us: i64,
    workflow_signal: Option<String>,
    types: BTreeMap<String, TaskTerms>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct TaskTerms {
    ttl_us: i64,
    idle_us: Option<i64>,
    max_depth: u32,
}

impl Default for TaskSettings {
    fn default() -> Self {
        Self {
            ttl_us: TTL_MICROS,
            max_ttl_us: MAX_TTL_MICROS,
            max_depth: MAX_DEPTH,
            retention_us: RETENTION_MICROS,
            workflow_signal: None,
            types: BTreeMap::new(),
        }
    }
}

impl TaskSettings {
    /// How long a task of this type may take.
    pub fn longest(&self, kind: &TaskType) -> Span {
        let own = self.types.get(kind.as_str()).map_or(self.ttl_us, |terms| terms.ttl_us);
        Span::from_micros(own.min(self.max_ttl_us))
    }

    /// How long a task of this type may lie idle.
    pub fn idle(&self, kind: &TaskType) -> Option<Span> {
        self.types.get(kind.as_str()).and_then(|terms| terms.idle_us).map(Span::from_micros)
    }

    /// How many tasks may stand above one, below a root of this type.
    pub fn deepest(&self, root: &TaskType) -> u32 {
        self.types.get(root.as_str()).map_or(self.max_depth, |terms| terms.max_depth)
    }

    /// How long a task is remembered after its end.
    pub fn retention(&self) -> Span {
        Span::from_micros(self.retention_us)
    }

    /// The signal by which orchestrators say how a workflow stands.
    pub fn workflow_signal(&self) -> Option<&str> {
        self.workflow_signal.as_deref()
    }
}
