//! Break-glass: two people's word in place of one signal of one subject that is not available.

use super::{
    fact::{Assurance, State},
    names::{SignalName, Subject},
    time::Timestamp,
    value::Value,
};
use std::sync::Arc;

/// What two people said, of what, why, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overridden {
    /// The signal.
    pub name: SignalName,
    /// Of whom.
    pub subject: Subject,
    /// What it is taken to say.
    pub value: Value,
    /// Why, for people.
    pub reason: Arc<str>,
    /// Who: two distinct SPIFFE IDs.
    pub by: [Arc<str>; 2],
    /// Since when.
    pub at: Timestamp,
    /// From then on it counts no more.
    pub expires_at: Timestamp,
}

impl Overridden {
    /// What it is kept under: a newer word on the same signal and subject takes its place.
    pub fn key(&self) -> String {
        format!("override {} {} {}", self.name, self.subject.kind.as_str(), self.subject.id)
    }

    /// Whether it counts: not at the moment of its end, nor later. `now` never runs backwards in the core.
    pub fn is_live(&self, now: Timestamp) -> bool {
        now < self.expires_at
    }
}

/// A fact that two people's word stands in for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandIn {
    /// Their word.
    pub word: Arc<Overridden>,
    /// How the signal really was.
    pub was: State,
    /// The assurance of the sources in whose place it stands.
    pub assurance: Assurance,
}
