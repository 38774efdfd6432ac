//! Frames of record lines in a region that outlives the process: what was accepted stands there until the log has it.
//!
//! The region is a first page of a few words and a ring of frames behind it. A position counts the bytes ever written, so
//! a frame's position is also its number, and its place is the position modulo the size. A frame is a commit word, which
//! is stored last and names the position; a word of length and checksum; and the line, filled up to whole words.
//! Everything is reached as atomic words: frames that wait are read while others are written, without a lock.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering, fence},
};

const WORD: u64 = 8;
/// The first page. Its words by number.
const HEAD_WORDS: u64 = FIRST_PAGE as u64;
const FIRST_PAGE: usize = 4096 / 8;
const MAGIC_AT: u64 = 0;
const SIZE_AT: u64 = 1;
/// Where the oldest frame begins that the log does not have for sure.
const SETTLED_AT: u64 = 2;
/// Where the next frame begins, as far as was known: a hint, stored after each frame.
const REACHED_AT: u64 = 3;

/// `swring01`.
const MAGIC: u64 = u64::from_le_bytes(*b"swring01");
/// No line has such a byte, since none of UTF-8 has: what is left of a line is never taken for a frame.
const COMMITTED: u64 = 0xfe << 56;
/// The record was taken back: its answer was another one, and nothing of it is to be told.
const WITHDRAWN: u64 = 0xff << 56;
const MARK: u64 = 0xff << 56;
const FRAME_WORDS: u64 = 2;

/// Memory as whoever mapped it hands it in.
pub trait Region: fmt::Debug + Send + Sync {
    /// All of it.
    fn words(&self) -> &[AtomicU64];

    /// Nothing is stored there any more: others may have it.
    fn release(&self) {}

    /// Nothing waits there for now: what is held in memory for it may go, as long as what is stored stays.
    fn rest(&self) {}
}

impl Region for Vec<AtomicU64> {
    fn words(&self) -> &[AtomicU64] {
        self
    }
}

/// A region as a ring of frames. Whoever writes holds a lock; whoever reads reads what is not settled.
#[derive(Debug)]
pub(super) struct Frames {
    region: Box<dyn Region>,
    /// Bytes of the ring behind the first page.
    size: u64,
}

/// Where a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) start: u64,
    pub(super) end: u64,
}

/// What a region held.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Frames that were accepted and not settled, oldest first.
    pub(super) places: Vec<Place>,
    /// From where on new frames may be written.
    pub(super) reached: u64,
    /// Whether frames are missing between those that were found, or at their end.
    pub(super) is_damaged: bool,
}

impl Frames {
    /// A region that is new, or one that was used before: what it holds. The error says why it is none of ours.
    pub(super) fn open(region: Box<dyn Region>) -> Result<(Self, Found), &'static str> {
        let words = region.words().len() as u64;
        let size = words.saturating_sub(HEAD_WORDS) * WORD;
        let frames = Self { region, size };
        if size == 0 {
            return Err("it is too small");
        }
        match (frames.word(MAGIC_AT), frames.word(SIZE_AT)) {
            (MAGIC, known) if known == size => {
                let found = frames.find();
                Ok((frames, found))
            }
            // Made and not begun: all of it is zeros, the magic word comes last.
            (0, _) if frames.word(SETTLED_AT) == 0 && frames.word(REACHED_AT) == 0 => {
                frames.set(SIZE_AT, size);
                frames.publish(MAGIC_AT, MAGIC);
                Ok((frames, Found::default()))
            }
            (MAGIC, _) => Err("it was cut or has grown"),
            _ => Err("it is no ring of a decision log"),
        }
    }

    /// Bytes of all frames together.
    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that a line takes.
    pub(super) const fn room_for(line: usize) -> u64 {
        (FRAME_WORDS + (line as u64).div_ceil(WORD)) * WORD
    }

    /// Where the oldest frame begins that is not settled.
    pub(super) fn settled(&self) -> u64 {
        self.word(SETTLED_AT)
    }

    /// Writes a frame at a position where there is room for it.
    pub(super) fn write(&self, start: u64, line: &[u8]) -> Place {
        let end = start + Self::room_for(line.len());
        let (whole, rest) = line.as_chunks::<8>();
        let mut cells = self.cells(start + FRAME_WORDS * WORD);
        for (word, cell) in whole.iter().zip(&mut cells) {
            cell.store(u64::from_le_bytes(*word), Ordering::Relaxed);
        }
        if let Some(cell) = cells.next().filter(|_| !rest.is_empty()) {
            let mut word = [0; 8];
            word.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            cell.store(u64::from_le_bytes(word), Ordering::Relaxed);
        }
        self.set(self.place(start + WORD), (line.len() as u64) << 32 | u64::from(checksum(start, line)));
        self.publish(self.place(start), COMMITTED | start);
        self.set(REACHED_AT, end);
        Place { start, end }
    }

    /// Appends the line of a frame that is neither settled nor withdrawn; false if it is no frame.
    pub(super) fn read(&self, start: u64, line: &mut Vec<u8>) -> bool {
        let before = line.len();
        let stamp = self.word(self.place(start + WORD));
        let is_whole = self.read_own(start, line)
            && line.get(before..).is_some_and(|line| u64::from(checksum(start, line)) == stamp & 0xffff_ffff);
        if !is_whole {
            line.truncate(before);
        }
        is_whole
    }

    /// The same of a frame that was written, or found whole, by this process: what is in its memory it need not prove.
    pub(super) fn read_own(&self, start: u64, line: &mut Vec<u8>) -> bool {
        let length = self.word(self.place(start + WORD)) >> 32;
        if length > self.size {
            return false;
        }
        let before = line.len();
        let bytes = usize::try_from(length).unwrap_or(usize::MAX);
        let words = bytes.div_ceil(8);
        line.resize(before + 8 * words, 0);
        let (into, _) = line.get_mut(before..).unwrap_or_default().as_chunks_mut::<8>();
        // In two runs of neighbours, not word by word around the end: this is most of what a drain costs.
        let (first, around) = self.runs(start + FRAME_WORDS * WORD);
        let (head, tail) = into.split_at_mut(first.len().min(words));
        for (cells, into) in [(first, head), (around, tail)] {
            for (cell, word) in cells.iter().zip(into) {
                *word = cell.load(Ordering::Relaxed).to_le_bytes();
            }
        }
        line.truncate(before + bytes);
        true
    }

    /// Takes back a frame that is not settled.
    pub(super) fn withdraw(&self, place: Place) {
        self.publish(self.place(place.start), WITHDRAWN | place.start);
    }

    /// Whatever ends here or before may be overwritten.
    pub(super) fn settle(&self, end: u64) {
        self.publish(SETTLED_AT, end);
    }

    /// Memory behind the region may go until it is used again.
    pub(super) fn rest(&self) {
        self.region.rest();
    }

    /// Lets the region go; nothing may be written any more.
    pub(super) fn release(&self) {
        self.region.release();
    }

    /// What is there, from the oldest frame that is not settled.
    fn find(&self) -> Found {
        let (settled, hint) = (self.settled(), self.word(REACHED_AT));
        let mut found = Found { reached: settled, ..Found::default() };
        let mut scratch = Vec::new();
        while let Some((place, counts)) = self.frame(found.reached, &mut scratch) {
            if place.end - settled > self.size {
                break;
            }
            found.reached = place.end;
            if counts {
                found.places.push(place);
            }
        }
        if found.reached < hint {
            // A page that never reached the disk: the machine died, not the process alone.
            self.find_all(settled, &mut found);
            found.reached = found.reached.max(hint);
            found.is_damaged = true;
        }
        found
    }

    /// Every frame anywhere that is not older than what is settled.
    fn find_all(&self, settled: u64, found: &mut Found) {
        let mut all = Vec::new();
        let mut scratch = Vec::new();
        let mut at = 0;
        while at < self.size {
            let start = self.word(HEAD_WORDS + at / WORD) & !MARK;
            let here = start >= settled && start % self.size == at;
            match here.then(|| self.frame(start, &mut scratch)).flatten() {
                Some((place, counts)) => {
                    found.reached = found.reached.max(place.end);
                    if counts {
                        all.push(place);
                    }
                    at += place.end - place.start;
                }
                None => at += WORD,
            }
        }
        all.sort_by_key(|place| place.start);
        found.places = all;
    }

    /// The frame at a position, if a whole one is there, and whether it counts.
    fn frame(&self, start: u64, scratch: &mut Vec<u8>) -> Option<(Place, bool)> {
        let commit = self.word(self.place(start));
        let counts = commit == COMMITTED | start;
        if !counts && commit != WITHDRAWN | start {
            return None;
        }
        fence(Ordering::Acquire);
        scratch.clear();
        let is_whole = self.read(start, scratch);
        is_whole.then(|| (Place { start, end: start + Self::room_for(scratch.len()) }, counts))
    }

    /// The words from a position on, once around.
    fn cells(&self, position: u64) -> impl Iterator<Item = &AtomicU64> {
        let (first, around) = self.runs(position);
        first.iter().chain(around)
    }

    /// The words from a position to the end, and those before it.
    fn runs(&self, position: u64) -> (&[AtomicU64], &[AtomicU64]) {
        let words = self.region.words();
        let at = usize::try_from(self.place(position)).unwrap_or(usize::MAX);
        (words.get(at..).unwrap_or_default(), words.get(FIRST_PAGE..at).unwrap_or_default())
    }

    const fn place(&self, position: u64) -> u64 {
        HEAD_WORDS + (position % self.size) / WORD
    }

    fn word(&self, at: u64) -> u64 {
        self.at(at).map_or(0, |word| word.load(Ordering::Acquire))
    }

    fn set(&self, at: u64, word: u64) {
        if let Some(place) = self.at(at) {
            place.store(word, Ordering::Relaxed);
        }
    }

    /// Stores a word after all that was stored before it.
    fn publish(&self, at: u64, word: u64) {
        if let Some(place) = self.at(at) {
            place.store(word, Ordering::Release);
        }
    }

    fn at(&self, at: u64) -> Option<&AtomicU64> {
        self.region.words().get(usize::try_from(at).ok()?)
    }
}

/// Over the position, too: a frame of an earlier round is none of this one.
fn checksum(start: u64, line: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&start.to_le_bytes());
    hasher.update(line);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// Memory that outlives whoever uses it, as a file does.
    #[derive(Clone, Debug)]
    struct Shared(Arc<Vec<AtomicU64>>);

    impl Region for Shared {
        fn words(&self) -> &[AtomicU64] {
            &self.0
        }
    }

    fn memory(ring_words: usize) -> Shared {
        let head_words = usize::try_from(HEAD_WORDS).unwrap();
        Shared(Arc::new((0..head_words + ring_words).map(|_| AtomicU64::new(0)).collect()))
    }

    fn open(memory: &Shared) -> (Frames, Found) {
        Frames::open(Box::new(memory.clone())).unwrap()
    }

    fn line(frames: &Frames, place: Place) -> String {
        let mut line = Vec::new();
        assert!(frames.read(place.start, &mut line));
        String::from_utf8(line).unwrap()
    }

    fn lines(frames: &Frames, found: &Found) -> Vec<String> {
        found.places.iter().map(|place| line(frames, *place)).collect()
    }

    #[test]
    fn what_was_written_and_not_settled_is_found_over_many_rounds() {
        let memory = memory(64);
        let (mut frames, found) = open(&memory);
        assert_eq!(found, Found::default());
        let mut end = 0;
        for round in 0..500_usize {
            let text = "x".repeat(round % 40) + &round.to_string();
            let first = frames.write(end, text.as_bytes());
            let second = frames.write(first.end, b"");
            end = second.end;
            let found;
            (frames, found) = open(&memory);
            assert_eq!(lines(&frames, &found), [text, String::new()]);
            assert_eq!((found.reached, found.is_damaged), (end, false));
            frames.settle(end);
            assert_eq!(open(&memory).1, Found { reached: end, ..Found::default() });
        }
    }

    /// INVARIANT I4: death at any store leaves all frames that were complete before, and nothing that was not.
    #[test]
    fn a_frame_without_its_last_word_is_none() {
        let memory = memory(64);
        let (frames, _) = open(&memory);
        let first = frames.write(0, b"one");
        let second = frames.write(first.end, b"two");
        frames.set(frames.place(second.start), 0);
        frames.set(REACHED_AT, first.end);
        let (frames, found) = open(&memory);
        assert_eq!(lines(&frames, &found), ["one"]);
        assert_eq!((found.reached, found.is_damaged), (first.end, false));
    }

    #[test]
    fn what_was_taken_back_is_not_found_and_what_follows_it_is() {
        let memory = memory(64);
        let (frames, _) = open(&memory);
        let first = frames.write(0, b"one");
        let second = frames.write(first.end, b"two");
        frames.withdraw(first);
        let (frames, found) = open(&memory);
        assert_eq!(lines(&frames, &found), ["two"]);
        assert_eq!(found.reached, second.end);
    }

    #[test]
    fn a_lost_page_costs_the_frames_on_it_and_no_other() {
        let memory = memory(64);
        let (frames, _) = open(&memory);
        let mut end = 0;
        let places: Vec<Place> = (0..5)
            .map(|n| {
                let place = frames.write(end, format!("line {n}").as_bytes());
                end = place.end;
                place
            })
            .collect();
        frames.set(frames.place(places[1].start + 2 * WORD), 7);
        frames.set(frames.place(places[2].start), 0);
        let (frames, found) = open(&memory);
        assert_eq!(lines(&frames, &found), ["line 0", "line 3", "line 4"]);
        assert_eq!((found.reached, found.is_damaged), (end, true));
    }

    #[test]
    fn after_the_first_page_was_lost_the_frames_of_the_next_round_are_found() {
        let memory = memory(32);
        let (frames, _) = open(&memory);
        let mut end = 0;
        for n in 0..9 {
            frames.settle(end);
            end = frames.write(end, format!("a line of some words, {n}").as_bytes()).end;
        }
        // As it was on the disk, long before.
        frames.set(SETTLED_AT, 0);
        frames.set(REACHED_AT, 40);
        let (frames, found) = open(&memory);
        let lines = lines(&frames, &found);
        assert_eq!(lines.last().unwrap(), "a line of some words, 8");
        assert_eq!((found.reached, found.is_damaged), (end, true));
        assert!(lines.is_sorted(), "{lines:?}");
    }

    #[test]
    fn what_a_line_holds_is_never_taken_for_a_frame() {
        let memory = memory(64);
        let (frames, _) = open(&memory);
        let first = frames.write(0, &COMMITTED.to_le_bytes().map(|byte| byte & 0x7f));
        assert_eq!(first.start, 0);
        assert!(std::str::from_utf8(&(COMMITTED | 0x1234).to_le_bytes()).is_err());
        assert!(std::str::from_utf8(&(WITHDRAWN | 0x1234).to_le_bytes()).is_err());
    }

    #[test]
    fn a_region_of_another_kind_is_refused() {
        let foreign = memory(64);
        foreign.0[0].store(1, Ordering::Relaxed);
        assert_eq!(Frames::open(Box::new(foreign)).unwrap_err(), "it is no ring of a decision log");
        let cut = memory(64);
        let _ = open(&cut);
        cut.0[1].store(8, Ordering::Relaxed);
        assert_eq!(Frames::open(Box::new(cut)).unwrap_err(), "it was cut or has grown");
        assert_eq!(Frames::open(Box::new(memory(0))).unwrap_err(), "it is too small");
    }
}
