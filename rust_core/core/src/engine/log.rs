//! The way of records out of a running core: accepted ones are drained as lines, and their room is free once they are
//! settled.

use super::Engine;
use crate::record::{
    fold::{self, Folded},
    json,
    ring::{Content, USUAL_BYTES},
};
use std::sync::atomic::Ordering;

impl Engine {
    /// Offers a change or transport record, JSON already.
    pub fn note(&self, line: Vec<u8>) -> bool {
        self.ring.note(line)
    }

    /// Takes up to `most` accepted records, oldest first, as JSON lines; and how many they are. There may be fewer lines
    /// than records: alike denials are folded where that is asked for, and what the log has is not written again.
    pub fn drain(&self, most: usize) -> (Vec<u8>, usize) {
        // A record with influence costs many times one without: past half of the ring, influence goes first.
        let shed = self.ring.is_crowded();
        let entries = self.ring.take(most);
        let decisions = || {
            entries.iter().filter_map(|entry| match &entry.content {
                Content::Decision { record, .. } => Some(&**record),
                _ => None,
            })
        };
        self.tally.saw(decisions());
        self.measures.saw(decisions());
        let folded = if self.fold_denials { fold::fold(&entries) } else { Vec::new() };
        let mut lines = Vec::with_capacity(entries.len() * USUAL_BYTES);
        for (at, entry) in entries.iter().enumerate() {
            let stands_for = folded.get(at);
            if matches!(stands_for, Some(None)) {
                continue;
            }
            let start = lines.len();
            self.ring.line(entry, shed, &mut lines);
            if let Some(field) = stands_for.copied().flatten().and_then(Folded::field) {
                json::add(&mut lines, start, &field);
            }
        }
        let missing = folded.iter().filter(|stands_for| stands_for.is_none()).count();
        self.counts.folded.fetch_add(missing as u64, Ordering::Relaxed);
        (lines, entries.len())
    }

    /// So many drained records, oldest first, are durable where they were taken to.
    pub fn settle(&self, count: usize) {
        self.ring.settle(count);
    }

    /// Lines that an earlier process had accepted, oldest first: they are drained before anything new.
    pub fn recovered(&self) -> Vec<Vec<u8>> {
        self.ring.recovered()
    }

    /// Those of `recovered`, by number, that the log has already.
    pub fn pass_over(&self, known: &[usize]) {
        self.ring.pass_over(known);
    }

    /// Whether some of what an earlier process had accepted is lost: the machine died, and its disk was behind.
    pub fn has_lost_records(&self) -> bool {
        self.ring.is_damaged()
    }

    /// Lets the log's region go; from now on every record is refused.
    pub fn release_log(&self) {
        self.ring.close();
    }

    /// Records that wait.
    pub fn queued(&self) -> usize {
        self.ring.len()
    }
}
