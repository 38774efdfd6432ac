//! What becomes of tasks, approvals and overrides when time runs back by more than the mark of time can bridge.

use super::Engine;
use crate::{change::Change, locks::lock, model::Timestamp};
use std::{collections::BTreeMap, sync::Mutex};

/// The set-backs that are remembered: by the key of the change, until when what it ended would have counted.
#[derive(Default)]
pub(super) struct SetBacks(Mutex<BTreeMap<String, Timestamp>>);

impl SetBacks {
    /// Keys of those that end nothing any more, now that the mark of time has reached this.
    pub(super) fn over(&self, reached: Timestamp) -> Vec<String> {
        lock(&self.0).iter().filter(|(_, until)| reached >= **until).map(|(key, _)| key.clone()).collect()
    }

    /// Lets go of what these keys name.
    pub(super) fn forget(&self, keys: &[String]) {
        let mut known = lock(&self.0);
        for key in keys {
            known.remove(key);
        }
    }
}

impl Engine {
    /// The changes that end whatever was given out before time ran back: none, if it did not. Kept in one write, so that
    /// the new mark of time is never kept without what it would revive.
    pub fn set_back(&self, now: Timestamp, ticks: u64) -> Vec<Change> {
        self.mark.advance(now, ticks);
        let Some(from) = self.mark.fell_back(now) else { return Vec::new() };
        let at = self.mark.reached(now);
        vec![Change::TimeSetBack { from, at }, Change::TimeMark { at }]
    }

    /// INVARIANT I6: what ends by time has ended, whatever the clock says later. Nobody can tell which of two clocks is
    /// right, so all that was given out by the one ends when the other comes. What is given out from here on counts.
    pub(super) fn cut(&self, from: Timestamp, at: Timestamp) {
        let until = [self.tasks.cut(at), self.approvals.cut(at), self.store.vouching().cut(at)];
        let until = until.into_iter().flatten().max().unwrap_or(at);
        lock(&self.set_backs.0).insert(Change::TimeSetBack { from, at }.key(), until);
        self.mark.settle(from);
    }
}
