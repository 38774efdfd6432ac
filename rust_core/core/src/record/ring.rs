//! The bounded ring between decisions and sinks. A record in it is *accepted*; what it can't take is refused, counted,
//! and told by the next record that gets through.
//!
//! With a region its lines are there, too, from the moment they are accepted to the moment they are settled: what the
//! process leaves behind is found by the next one (`frames.rs`).

use super::{
    Record,
    frames::{Frames, Place, Region},
    json::{Rendering, add, render, render_bare},
    seen::Seen,
};
use crate::{locks::lock, reason::Reason};
use std::{
    cell::RefCell,
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Bytes that a thread keeps for the lines that it makes; most have half of it.
const USUAL_BYTES: usize = 8192;
/// Bytes of frames that are not worth giving memory back for.
const REST_AFTER: u64 = 1 << 20;

thread_local! {
    /// Where a line is made before it is framed: of this size it would be fetched from and given back to far places.
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What makes a region durable, where that is waited for.
pub trait Syncing: std::fmt::Debug + Send + Sync {
    /// Waits until all frames that end at or before this position are durable; false if that failed or took too long.
    fn wait_for(&self, end: u64) -> bool;

    /// As `wait_for`, without waiting.
    fn ask_for(&self, end: u64);

    /// Up to where frames are durable.
    fn reached(&self) -> u64;
}

/// How much a ring holds, and where.
#[derive(Debug)]
pub struct Room {
    /// Entries that may wait.
    pub capacity: usize,
    /// Their size in memory together, in bytes.
    pub max_bytes: usize,
    /// Where lines survive the process; without it they don't.
    pub region: Option<Box<dyn Region>>,
    /// A record is accepted once it is durable there; without it, once it is there.
    pub syncing: Option<Box<dyn Syncing>>,
    /// How long a decision waits for room.
    pub patience: Duration,
}

/// What waits to be drained, oldest first.
pub struct Ring {
    waiting: Mutex<Waiting>,
    freed: Condvar,
    room: Room,
    frames: Option<Frames>,
    rendering: Rendering,
    is_damaged: bool,
    refused: AtomicU64,
    untold: AtomicU64,
    panics: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Where the frames of drained entries end that are not settled.
    drained: VecDeque<u64>,
    /// Where the next frame begins.
    reached: u64,
    /// Where the oldest frame begins that is not settled.
    settled: u64,
    /// Where the next frame began when memory was given back.
    rested: u64,
    is_closed: bool,
}

/// One entry.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) content: Content,
    place: Option<Place>,
    /// Bytes in memory.
    weight: usize,
}

/// What of an entry is in memory.
#[derive(Debug)]
pub(crate) enum Content {
    /// A decision. `is_whole`: its frame says all that its line shall say.
    Decision { record: Box<Record>, is_whole: bool },
    /// A decision of which its frame says all, and which is never folded.
    Seen(Box<Seen>),
    /// A change or transport record, JSON already.
    Line(Vec<u8>),
    /// The same, where its frame is all that there is of it.
    Framed,
    /// What an earlier process had accepted: the frame is all that there is of it.
    Recovered,
    /// What an earlier process had accepted and the log has.
    Known,
}

impl Entry {
    fn new(content: Content, place: Option<Place>) -> Self {
        let weight = match &content {
            Content::Decision { record, .. } => record.weight(),
            Content::Seen(seen) => size_of::<Self>() + seen.weight(),
            Content::Line(line) => line.len(),
            Content::Framed | Content::Recovered | Content::Known => size_of::<Self>(),
        };
        Self { content, place, weight }
    }

    fn end(&self) -> u64 {
        self.place.map_or(0, |place| place.end)
    }
}

impl Ring {
    /// A ring in memory alone.
    pub fn in_memory(capacity: usize, max_bytes: usize, rendering: Rendering) -> Self {
        let room = Room { capacity, max_bytes, region: None, syncing: None, patience: Duration::ZERO };
        Self::with(room, rendering, None, Waiting::default(), false)
    }

    /// A ring, with what its region held. The error says why that is none of ours.
    pub fn open(mut room: Room, rendering: Rendering) -> Result<Self, &'static str> {
        let Some(region) = room.region.take() else {
            return Ok(Self::with(room, rendering, None, Waiting::default(), false));
        };
        let (frames, found) = Frames::open(region)?;
        let recovered = |place| Entry::new(Content::Recovered, Some(place));
        let entries: VecDeque<Entry> = found.places.into_iter().map(recovered).collect();
        let waiting = Waiting {
            bytes: entries.iter().map(|entry| entry.weight).sum(),
            entries,
            drained: VecDeque::new(),
            reached: found.reached,
            settled: frames.settled(),
            rested: 0,
            is_closed: false,
        };
        Ok(Self::with(room, rendering, Some(frames), waiting, found.is_damaged))
    }

    fn with(room: Room, rendering: Rendering, frames: Option<Frames>, waiting: Waiting, is_damaged: bool) -> Self {
        Self {
            waiting: Mutex::new(waiting),
            freed: Condvar::new(),
            room,
            frames,
            rendering,
            is_damaged,
            refused: AtomicU64::new(0),
            untold: AtomicU64::new(0),
            panics: AtomicU64::new(0),
        }
    }

    /// Accepts a record, or counts that it could not.
    ///
    /// INVARIANT I4: an allow leaves only after `true`.
    #[must_use]
    pub fn accept(&self, mut record: Box<Record>) -> bool {
        let untold = self.untold.swap(0, Ordering::Relaxed);
        record.refused_before = untold;
        // Influence costs many times the rest: it is made when the record is drained, off the answer's path.
        let pushed = match self.frames {
            Some(_) => self.push_framed(record),
            None => self.push(Content::Decision { record, is_whole: false }, &[], self.room.patience),
        };
        let accepted = pushed.is_some_and(|end| self.is_durable(end));
        if !accepted {
            self.untold.fetch_add(untold + 1, Ordering::Relaxed);
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        accepted
    }

    fn push_framed(&self, record: Box<Record>) -> Option<u64> {
        LINE.with_borrow_mut(|line| {
            line.clear();
            line.reserve(USUAL_BYTES);
            let is_whole = self.line_of(&record, line);
            let pushed = if is_whole && record.reason == Reason::Allowed {
                self.push(Content::Seen(Box::new(Seen::of(&record))), line, self.room.patience)
            } else {
                self.push(Content::Decision { record, is_whole }, line, self.room.patience)
            };
            line.shrink_to(USUAL_BYTES);
            pushed
        })
    }

    /// Accepts a line that is JSON already; false if there is no room.
    #[must_use]
    pub fn note(&self, line: Vec<u8>) -> bool {
        match self.frames {
            Some(_) => self.push(Content::Framed, &line, Duration::ZERO).is_some(),
            None => self.push(Content::Line(line), &[], Duration::ZERO).is_some(),
        }
    }

    /// The end of its frame, once there was room for it.
    fn push(&self, content: Content, line: &[u8], patience: Duration) -> Option<u64> {
        let mut entry = Entry::new(content, None);
        let weight = entry.weight;
        let mut waiting = self.lock();
        if !self.fits(&waiting, weight, line.len()) && !patience.is_zero() {
            let full = |waiting: &mut Waiting| !waiting.is_closed && !self.fits(waiting, weight, line.len());
            let waited = self.freed.wait_timeout_while(waiting, patience, full);
            waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if !self.fits(&waiting, weight, line.len()) {
            return None;
        }
        // Under the lock, so that frames are complete in their order.
        entry.place = self.frames.as_ref().map(|frames| frames.write(waiting.reached, line));
        let end = entry.end();
        waiting.reached = end;
        waiting.bytes += weight;
        waiting.entries.push_back(entry);
        Some(end)
    }

    fn fits(&self, waiting: &Waiting, weight: usize, line: usize) -> bool {
        let has_room = |frames: &Frames| waiting.reached - waiting.settled + Frames::room_for(line) <= frames.size();
        !waiting.is_closed
            && waiting.entries.len() < self.room.capacity
            && waiting.bytes.saturating_add(weight) <= self.room.max_bytes
            && self.frames.as_ref().is_none_or(has_room)
    }

    /// Whether a frame is as durable as it is asked for; one that is not is taken back, so that the log says no allow
    /// that was none.
    fn is_durable(&self, end: u64) -> bool {
        let Some(syncing) = &self.room.syncing else { return true };
        syncing.wait_for(end) || !self.withdraw(end)
    }

    /// Takes an entry back, if it was not drained yet.
    fn withdraw(&self, end: u64) -> bool {
        let mut waiting = self.lock();
        let Ok(at) = waiting.entries.binary_search_by_key(&end, Entry::end) else { return false };
        let Some(entry) = waiting.entries.remove(at) else { return false };
        waiting.bytes = waiting.bytes.saturating_sub(entry.weight);
        if let (Some(frames), Some(place)) = (&self.frames, entry.place) {
            if waiting.is_closed {
                return true;
            }
            frames.withdraw(place);
            self.free(frames, &mut waiting);
        }
        true
    }

    /// Takes up to `most` entries, oldest first, whose frames have `most_bytes` together, but one at least. Those whose
    /// durability is still waited for are not taken.
    pub(crate) fn take(&self, most: usize, most_bytes: usize) -> Vec<Entry> {
        let mut waiting = self.lock();
        let ready = self.room.syncing.as_ref().map_or(waiting.entries.len(), |syncing| {
            syncing.ask_for(waiting.reached);
            let reached = syncing.reached();
            waiting.entries.partition_point(|entry| entry.end() <= reached)
        });
        let within = waiting.entries.front().and_then(|entry| entry.place).map_or(ready, |first| {
            let most_end = first.start.saturating_add(most_bytes as u64);
            waiting.entries.partition_point(|entry| entry.end() <= most_end).max(1)
        });
        let taken: Vec<Entry> = waiting.entries.drain(..most.min(ready).min(within)).collect();
        let bytes: usize = taken.iter().map(|entry| entry.weight).sum();
        waiting.bytes = waiting.bytes.saturating_sub(bytes);
        if self.frames.is_some() {
            waiting.drained.extend(taken.iter().map(Entry::end));
        }
        self.freed.notify_all();
        taken
    }

    /// So many drained entries, oldest first, are durable where they were taken to.
    pub fn settle(&self, count: usize) {
        let Some(frames) = &self.frames else { return };
        let mut waiting = self.lock();
        if waiting.is_closed {
            return;
        }
        let count = count.min(waiting.drained.len());
        let Some(end) = waiting.drained.drain(..count).next_back() else { return };
        waiting.settled = end;
        self.free(frames, &mut waiting);
    }

    /// Nothing came for a while: gives the memory back that frames stood in, if all of them are settled. A region that was
    /// once around would count as memory of this process for good.
    pub fn rest(&self) {
        let Some(frames) = &self.frames else { return };
        let mut waiting = self.lock();
        let is_all_settled = waiting.settled == waiting.reached && !waiting.is_closed;
        if is_all_settled && waiting.reached.saturating_sub(waiting.rested) > REST_AFTER {
            waiting.rested = waiting.reached;
            frames.rest();
        }
    }

    /// Frees what is settled, and what was taken back right behind it.
    fn free(&self, frames: &Frames, waiting: &mut Waiting) {
        if waiting.drained.is_empty() {
            let oldest = waiting.entries.front().and_then(|entry| entry.place).map(|place| place.start);
            waiting.settled = oldest.unwrap_or(waiting.reached);
        }
        frames.settle(waiting.settled);
        self.freed.notify_all();
    }

    /// Appends the line of a taken entry, newline included. `shed` leaves influence out.
    pub(crate) fn line(&self, entry: &Entry, shed: bool, out: &mut Vec<u8>) {
        let start = out.len();
        let framed = |out: &mut Vec<u8>| match (&self.frames, entry.place) {
            (Some(frames), Some(place)) => frames.read_own(place.start, out),
            _ => false,
        };
        match &entry.content {
            Content::Decision { record, is_whole } => {
                if !((*is_whole || shed) && framed(out)) {
                    self.render(record, shed, out);
                    return;
                }
            }
            Content::Line(line) => out.extend_from_slice(line),
            Content::Framed | Content::Seen(_) => {
                framed(out);
            }
            Content::Recovered => {
                framed(out);
                add(out, start, r#""recovered":true"#);
            }
            Content::Known => {}
        }
        if out.len() > start {
            out.push(b'\n');
        }
    }

    /// What an earlier process had accepted and this one has not drained.
    pub fn recovered(&self) -> Vec<Vec<u8>> {
        let Some(frames) = &self.frames else { return Vec::new() };
        let waiting = self.lock();
        let recovered = waiting.entries.iter().filter(|entry| matches!(entry.content, Content::Recovered));
        let line = |entry: &Entry| {
            let mut line = Vec::new();
            entry.place.map(|place| frames.read(place.start, &mut line));
            line
        };
        recovered.map(line).collect()
    }

    /// Those of `recovered`, by number, that the log has: they are not written again.
    pub fn pass_over(&self, known: &[usize]) {
        let mut waiting = self.lock();
        let recovered = waiting.entries.iter_mut().filter(|entry| matches!(entry.content, Content::Recovered));
        for (at, entry) in recovered.enumerate() {
            if known.contains(&at) {
                entry.content = Content::Known;
            }
        }
    }

    /// Takes nothing any more, and lets the region go.
    pub fn close(&self) {
        let mut waiting = self.lock();
        let was_closed = std::mem::replace(&mut waiting.is_closed, true);
        if let Some(frames) = self.frames.as_ref().filter(|_| !was_closed) {
            frames.release();
        }
        self.freed.notify_all();
    }

    /// Whether frames were missing in what an earlier process left behind.
    pub const fn is_damaged(&self) -> bool {
        self.is_damaged
    }

    /// Appends the line without influence and newline; whether it lacks nothing.
    fn line_of(&self, record: &Record, line: &mut Vec<u8>) -> bool {
        let is_whole = self.render(record, true, line);
        line.pop_if(|last| *last == b'\n');
        is_whole
    }

    /// Of the digests that stand in records.
    pub(crate) fn digest_key(&self) -> &[u8] {
        &self.rendering.digest_key
    }

    /// A record whose rendering panics is still a line: the answer leaves, so the log must say so (I4).
    fn render(&self, record: &Record, shed: bool, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        catch_unwind(AssertUnwindSafe(|| render(record, &self.rendering, shed, out))).unwrap_or_else(|_| {
            self.panics.fetch_add(1, Ordering::Relaxed);
            out.truncate(start);
            render_bare(record, out);
            false
        })
    }

    /// How records are written.
    pub const fn rendering(&self) -> &Rendering {
        &self.rendering
    }

    /// How many entries wait.
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Whether more than half of the room is taken.
    pub fn is_crowded(&self) -> bool {
        let waiting = self.lock();
        let used = waiting.reached - waiting.settled;
        waiting.entries.len() > self.room.capacity / 2
            || waiting.bytes > self.room.max_bytes / 2
            || self.frames.as_ref().is_some_and(|frames| used > frames.size() / 2)
    }

    /// Bytes of the region that are taken: by what waits, and by what was drained and is not settled.
    pub fn used(&self) -> u64 {
        let waiting = self.lock();
        waiting.reached - waiting.settled
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Decisions refused so far.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Records so far whose rendering panicked.
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        lock(&self.waiting)
    }
}
