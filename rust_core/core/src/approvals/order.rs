//! Questions in the orders in which they are asked for, so that asking, sweeping and listing cost what they find and not
//! what is held.

use super::Entry;
use crate::model::{ApprovalId, SpiffeId, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// The orders of the questions that are held.
#[derive(Default)]
pub(super) struct Orders {
    /// All of them, by when they were asked.
    asked: BTreeSet<(Timestamp, ApprovalId)>,
    /// All of them, by until when they stand.
    stand: BTreeSet<(Timestamp, ApprovalId)>,
    /// Those that wait for answers, unless they are over: by when they were asked.
    pending: BTreeSet<(Timestamp, ApprovalId)>,
    /// Those that wait, of each requester, by their end.
    pending_of: BTreeMap<SpiffeId, BTreeSet<(Timestamp, ApprovalId)>>,
}

impl Orders {
    /// Takes a question in, as it stands.
    pub(super) fn place(&mut self, entry: &Entry) {
        let question = &entry.question;
        self.asked.insert((question.asked_at, question.id.clone()));
        self.stand.insert((entry.stands_until(), question.id.clone()));
        if entry.waits() {
            self.pending.insert((question.asked_at, question.id.clone()));
            let of = self.pending_of.entry(question.requester.clone()).or_default();
            of.insert((entry.ends_at, question.id.clone()));
        }
    }

    /// Lets go of a question, as it was placed.
    pub(super) fn displace(&mut self, entry: &Entry) {
        let question = &entry.question;
        self.asked.remove(&(question.asked_at, question.id.clone()));
        self.stand.remove(&(entry.stands_until(), question.id.clone()));
        self.pending.remove(&(question.asked_at, question.id.clone()));
        if let Some(of) = self.pending_of.get_mut(&question.requester) {
            of.remove(&(entry.ends_at, question.id.clone()));
            if of.is_empty() {
                self.pending_of.remove(&question.requester);
            }
        }
    }

    /// Whether a requester has so many questions open.
    pub(super) fn has_open(&self, requester: &SpiffeId, most: usize, now: Timestamp) -> bool {
        // What ends last stands last.
        let of = self.pending_of.get(requester);
        of.into_iter().flatten().rev().take_while(|(end, _)| now < *end).take(most).count() >= most
    }

    /// Questions, newest first: all, or those that wait.
    pub(super) fn newest_first(&self, only_pending: bool) -> impl Iterator<Item = &ApprovalId> {
        let order = if only_pending { &self.pending } else { &self.asked };
        order.iter().rev().map(|(_, id)| id)
    }

    /// Questions that stand no more, the longest past first.
    pub(super) fn past(&self, now: Timestamp) -> impl Iterator<Item = &ApprovalId> {
        self.stand.iter().take_while(move |(until, _)| now >= *until).map(|(_, id)| id)
    }
}
