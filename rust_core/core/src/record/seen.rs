//! What is left of a decision whose line is whole: enough to count it. All else of the record is let go at once, by the
//! thread that made it: dozens of small pieces that another thread would give back long after, one by one, are a good
//! part of what a record costs.

use super::{Record, Spent};
use crate::{
    model::{ActionId, State, Timestamp},
    policy::SignalIndex,
    reason::Reason,
    route::Route,
    snapshot::Snapshot,
};
use std::sync::Arc;

/// A decision as metrics see it.
#[derive(Debug)]
pub struct Seen {
    /// The decision's own now.
    pub time: Timestamp,
    /// `allowed` or why not.
    pub reason: Reason,
    /// Nanoseconds spent, by stage.
    pub spent: Spent,
    /// The configuration in force.
    pub snapshot: Option<Arc<Snapshot>>,
    /// The route, if one was found.
    pub route: Option<Arc<Route>>,
    /// The action of what the admin door asked, which has no route.
    pub built_in: Option<ActionId>,
    /// Its signals.
    pub signals: Box<[Sighting]>,
}

/// A signal in one decision.
#[derive(Clone, Copy, Debug)]
pub struct Sighting {
    /// Which, in the snapshot.
    pub index: SignalIndex,
    /// As its sources have it, whatever stands in for it.
    pub state: State,
    /// When its value was observed, if that says how old it is.
    pub observed_at: Option<Timestamp>,
}

impl Seen {
    /// Of a record.
    pub fn of(record: &Record) -> Self {
        let sighting = |(index, fact): &(SignalIndex, crate::model::Fact)| Sighting {
            index: *index,
            state: fact.true_state(),
            observed_at: fact.observed_at.filter(|_| fact.state != State::Future && fact.overridden.is_none()),
        };
        let built_in = record.query.as_ref().filter(|query| query.built_in.is_some());
        Self {
            time: record.time,
            reason: record.reason,
            spent: record.spent,
            snapshot: record.snapshot.clone(),
            route: record.route.clone(),
            built_in: built_in.map(|query| query.action.clone()),
            signals: record.facts.iter().map(sighting).collect(),
        }
    }

    /// Roughly how many bytes it holds on to beside the shared snapshot.
    pub fn weight(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.signals)
    }
}
