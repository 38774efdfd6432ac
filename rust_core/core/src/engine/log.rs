//! The way of records out of a running core: accepted ones are drained as lines, and their room is free once they are
//! settled.

use super::Engine;
use crate::{
    leaves::leaf,
    record::{
        fold::{self, Folded},
        json,
        ring::{Content, Entry},
        seen::Seen,
    },
};
use std::sync::atomic::Ordering;

/// What one drain took.
#[derive(Debug, Default)]
pub struct Batch {
    /// JSON lines with their newlines, oldest first.
    pub lines: Vec<u8>,
    /// The hash of each line as a leaf of the log's tree, made while the line is in the processor's cache.
    pub leaves: Vec<u8>,
    /// Accepted records that they stand for.
    pub records: usize,
}

impl Engine {
    /// Offers a change or transport record, JSON already.
    pub fn note(&self, line: Vec<u8>) -> bool {
        self.ring.note(line)
    }

    /// Takes up to `most` accepted records, oldest first, as JSON lines; and how many they are. There may be fewer lines
    /// than records: alike denials are folded where that is asked for, and what the log has is not written again.
    pub fn drain(&self, most: usize) -> (Vec<u8>, usize) {
        let mut lines = Vec::new();
        let count = self.drained(most, usize::MAX, &mut lines, |_| {});
        (lines, count)
    }

    /// As `drain`, into a batch that is used again and again; of about `most_bytes` at most, but one line at least.
    pub fn drain_into(&self, batch: &mut Batch, most: usize, most_bytes: usize) {
        let Batch { lines, leaves, records } = batch;
        lines.clear();
        leaves.clear();
        *records = self.drained(most, most_bytes, lines, |line| leaves.extend_from_slice(&leaf(line)));
    }

    fn counted(&self, entries: &[Entry]) {
        let of_whole = |entry: &Entry| match &entry.content {
            Content::Decision { record, .. } => Some(Seen::of(record)),
            _ => None,
        };
        let whole: Vec<Seen> = entries.iter().filter_map(of_whole).collect();
        let seen = || {
            whole.iter().chain(entries.iter().filter_map(|entry| match &entry.content {
                Content::Seen(seen) => Some(&**seen),
                _ => None,
            }))
        };
        self.tally.saw(seen());
        self.measures.saw(seen());
    }

    /// `each` sees every line without its newline.
    fn drained(&self, most: usize, most_bytes: usize, lines: &mut Vec<u8>, mut each: impl FnMut(&[u8])) -> usize {
        // A record with influence costs many times one without: past half of the ring, influence goes first.
        let shed = self.ring.is_crowded();
        // What is folded is alike within a batch: there a large one is worth its memory.
        let entries = self.ring.take(most, if self.fold_denials { usize::MAX } else { most_bytes });
        self.counted(&entries);
        let folded = if self.fold_denials { fold::fold(&entries) } else { Vec::new() };
        for (at, entry) in entries.iter().enumerate() {
            let stands_for = folded.get(at);
            if matches!(stands_for, Some(None)) {
                continue;
            }
            let start = lines.len();
            self.ring.line(entry, shed, lines);
            if let Some(field) = stands_for.copied().flatten().and_then(Folded::field) {
                json::add(lines, start, &field);
            }
            if let Some(line) = lines.get(start..).and_then(|line| line.strip_suffix(b"\n")) {
                each(line);
            }
        }
        let missing = folded.iter().filter(|stands_for| stands_for.is_none()).count();
        self.counts.folded.fetch_add(missing as u64, Ordering::Relaxed);
        entries.len()
    }

    /// So many drained records, oldest first, are durable where they were taken to.
    pub fn settle(&self, count: usize) {
        self.ring.settle(count);
    }

    /// Nothing came for a while.
    pub fn rest(&self) {
        self.ring.rest();
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
