//! The bounded ring between decisions and sinks. A record in it is *accepted*; what it can't take is refused,
//! counted, and told by the next record that gets through.

use super::Record;
use crate::locks::lock;
use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

/// What waits to be drained, oldest first.
#[derive(Debug)]
pub struct Ring {
    waiting: Mutex<Waiting>,
    capacity: usize,
    max_bytes: usize,
    refused: AtomicU64,
    untold: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    entries: VecDeque<Entry>,
    bytes: usize,
}

/// One entry.
#[derive(Debug)]
pub enum Entry {
    /// A decision; its JSON is made when it is drained.
    Decision(Box<Record>),
    /// A change or transport record, JSON already.
    Line(Vec<u8>),
}

impl Entry {
    fn weight(&self) -> usize {
        match self {
            Self::Decision(record) => record.weight(),
            Self::Line(line) => line.len(),
        }
    }
}

impl Ring {
    /// A ring for so many entries of so many bytes together.
    pub fn new(capacity: usize, max_bytes: usize) -> Self {
        Self { waiting: Mutex::default(), capacity, max_bytes, refused: AtomicU64::new(0), untold: AtomicU64::new(0) }
    }

    /// Accepts a record, or counts that it could not.
    ///
    /// INVARIANT I4: an allow leaves only after `true`.
    #[must_use]
    pub fn accept(&self, mut record: Box<Record>) -> bool {
        let untold = self.untold.swap(0, Ordering::Relaxed);
        record.refused_before = untold;
        let accepted = self.push(Entry::Decision(record));
        if !accepted {
            self.untold.fetch_add(untold + 1, Ordering::Relaxed);
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        accepted
    }

    /// Accepts a line that is JSON already; false if there is no room.
    #[must_use]
    pub fn note(&self, line: Vec<u8>) -> bool {
        self.push(Entry::Line(line))
    }

    fn push(&self, entry: Entry) -> bool {
        let weight = entry.weight();
        let mut waiting = self.lock();
        let fits = waiting.entries.len() < self.capacity && waiting.bytes.saturating_add(weight) <= self.max_bytes;
        if fits {
            waiting.bytes += weight;
            waiting.entries.push_back(entry);
        }
        fits
    }

    /// Takes up to `most` entries, oldest first.
    pub fn take(&self, most: usize) -> Vec<Entry> {
        let mut waiting = self.lock();
        let count = most.min(waiting.entries.len());
        let taken: Vec<Entry> = waiting.entries.drain(..count).collect();
        let bytes: usize = taken.iter().map(Entry::weight).sum();
        waiting.bytes = waiting.bytes.saturating_sub(bytes);
        taken
    }

    /// How many entries wait.
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Whether more than half of the room is taken.
    pub fn is_crowded(&self) -> bool {
        let waiting = self.lock();
        waiting.entries.len() > self.capacity / 2 || waiting.bytes > self.max_bytes / 2
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Decisions refused so far.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        lock(&self.waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_ring_refuses_and_what_was_accepted_stays_in_order() {
        let ring = Ring::new(2, 10);
        assert!(ring.note(b"1".to_vec()));
        assert!(ring.note(b"2".to_vec()));
        assert!(!ring.note(b"3".to_vec()));
        let lines: Vec<_> = ring.take(9).into_iter().map(|e| if let Entry::Line(l) = e { l } else { vec![] }).collect();
        assert_eq!(lines, [b"1".to_vec(), b"2".to_vec()]);
        assert!(ring.note(vec![b'x'; 10]));
        assert!(!ring.note(b"y".to_vec()), "bytes are bounded, too");
        ring.take(1);
        assert!(ring.note(b"y".to_vec()));
    }
}
