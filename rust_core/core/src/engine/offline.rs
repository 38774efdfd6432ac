//! Decisions that are never sent: one by itself, and rehearsals, which tests of policies are made of.

use super::{Engine, finished};
use crate::{
    change::Change,
    identity::Validated,
    model::Timestamp,
    record::{self, DecisionId, InfluenceMode, Record, Rendering, id::RANDOM_BYTES},
};
use serde_json::Value as Json;

/// A decision that was not sent, and what would follow from it.
#[derive(Debug)]
pub struct Rehearsed {
    /// Its record as JSON.
    pub record: Vec<u8>,
    /// Its answer.
    pub answer: Vec<u8>,
    /// What would be kept before the answer leaves.
    pub changes: Vec<Change>,
    /// What it reached of the policies in play.
    pub reach: Json,
}

impl Engine {
    /// Decides offline, outside the log: record as JSON, and answer.
    pub fn decide(
        &self,
        bytes: &[u8],
        now: Timestamp,
        random: [u8; RANDOM_BYTES],
        ticks: &dyn Fn() -> u64,
    ) -> (Vec<u8>, Vec<u8>) {
        let id = DecisionId::new(now, random);
        let outcome = self.checked(bytes, Some(&Validated::default()), now, id, ticks);
        let (record, answer) = finished(outcome, id, now).into_parts();
        (self.rendered(&record), answer)
    }

    /// Decides offline, and says what the decision changes and what it reached.
    pub fn rehearse(
        &self,
        bytes: &[u8],
        now: Timestamp,
        random: [u8; RANDOM_BYTES],
        ticks: &dyn Fn() -> u64,
    ) -> Rehearsed {
        let id = DecisionId::new(now, random);
        let checked = finished(self.checked(bytes, Some(&Validated::default()), now, id, ticks), id, now);
        let changes = checked.keeping().changes.clone();
        let (record, answer) = checked.into_parts();
        Rehearsed { record: self.rendered(&record), answer, changes, reach: record::reach(&record) }
    }

    fn rendered(&self, record: &Record) -> Vec<u8> {
        let mut line = Vec::new();
        let rendering = Rendering { influence: InfluenceMode::All, ..self.ring.rendering().clone() };
        record::render(record, &rendering, false, &mut line);
        line
    }
}
