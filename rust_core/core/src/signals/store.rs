//! What is known of every signal now: a concurrent map in memory, changed by `apply` alone.
//!
//! The map goes by subject, not by signal: a decision asks for a dozen signals of one or two subjects,
//! so all that is known of a subject lies together. That costs one hash, one lock and a handful of cache
//! misses a subject however many signals are read, and the values come from one instant.

use super::contract::Contract;
use super::sources::Flow;
use crate::change::{Change, Published};
use crate::limits;
use crate::model::names::SubjectKind;
use crate::model::{Assurance, Fact, SignalName, Span, SpiffeId, State, Subject, Timestamp, Value};
use hashbrown::{HashTable, hash_table::Entry};
use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Enough that a writer rarely meets a reader, and that growing one shard (which holds its lock) stays
/// far below the latency budget of a decision even with a million subjects.
const SHARDS: usize = 256;

/// The live values of all signals.
#[derive(Debug)]
pub struct Store {
    /// Seeded from outside, since the core draws no randomness, and std's hashers take no seed. foldhash
    /// because hashbrown and cedar bring it already; only registered publishers choose what is hashed.
    hasher: foldhash::quality::FixedState,
    shards: Box<[Shard]>,
    signals: RwLock<BTreeMap<SignalName, u32>>,
    voices: RwLock<Voices>,
    live: AtomicUsize,
    max_live: usize,
    of_request: Subject,
    global: Subject,
}

/// Own cache lines, so that two shards' locks do not slow each other.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard(RwLock<HashTable<Row>>);

/// All that is known of one subject. One cache line, so that a cold row costs one miss and not two.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Row {
    hash: u64,
    kind: SubjectKind,
    subject: Box<str>,
    /// Sorted by signal, then by voice. Usually one voice a signal; more after a contract changed its publisher.
    cells: Vec<Cell>,
}

/// One publisher's latest word on one signal of one subject.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cell {
    signal: u32,
    voice: u32,
    known: Known,
}

/// Publishers by number, in the order in which they were first heard of.
#[derive(Debug, Default)]
struct Voices {
    numbers: BTreeMap<SpiffeId, u32>,
    labels: Vec<Arc<str>>,
}

/// A contract, bound to the store: what a snapshot keeps so that reading looks no name up.
#[derive(Debug, Clone)]
pub struct Cells {
    contract: Arc<Contract>,
    assurance: Assurance,
    signal: u32,
    voice: Option<Voice>,
}

#[derive(Debug, Clone)]
struct Voice {
    number: u32,
    publisher: SpiffeId,
    label: Arc<str>,
}

/// What a publisher last said of one signal and subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// When it was so.
    pub observed_at: Timestamp,
    /// The first value of that instant.
    pub value: Value,
    /// Whether another value of that instant followed.
    pub disputed: bool,
}

impl Store {
    /// An empty store. The seed spreads subjects over shards; it never shows in an answer.
    pub fn new(seed: u64) -> Self {
        Self::with_capacity(seed, limits::MAX_LIVE_SIGNALS)
    }

    /// An empty store that holds so many live values.
    pub fn with_capacity(seed: u64, max_live: usize) -> Self {
        Self {
            hasher: foldhash::quality::FixedState::with_seed(seed),
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            signals: RwLock::default(),
            voices: RwLock::default(),
            live: AtomicUsize::new(0),
            max_live,
            of_request: Subject { kind: SubjectKind::Request, id: "-".into() },
            global: Subject { kind: SubjectKind::Global, id: "*".into() },
        }
    }

    /// How many values are live.
    pub fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// How many values may be live before new subjects are refused.
    pub fn max_live(&self) -> usize {
        self.max_live
    }

    /// Binds a contract, so that reading it needs no name.
    pub fn bind(&self, contract: &Arc<Contract>) -> Cells {
        let voice = contract.sources.iter().find_map(|source| match &source.flow {
            Flow::Stored(publisher) => Some(Voice {
                number: self.voice_number(publisher, || Arc::clone(&source.label)),
                publisher: publisher.clone(),
                label: Arc::clone(&source.label),
            }),
            Flow::OnRequest(_) => None,
        });
        let signal = self.signal_number(&contract.name);
        Cells { contract: Arc::clone(contract), assurance: contract.assurance(), signal, voice }
    }

    /// Takes one change in. Idempotent: a change that is known already, or older than what is known, alters nothing.
    pub fn apply(&self, change: &Change) {
        let Change::SignalPublished(published) = change else { return };
        let signal = self.signal_number(&published.name);
        let voice = self.voice_number(&published.publisher, || format!("push:{}", published.publisher).into());
        let hash = self.hash(&published.subject);
        let Some(shard) = self.shard(hash) else { return };
        let mut rows = write(&shard.0);
        let row = match rows.entry(hash, |row| row.is_about(&published.subject), |row| row.hash) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Row::about(&published.subject, hash)).into_mut(),
        };
        if row.take(signal, voice, published) {
            self.live.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What a publisher last said of a signal and subject.
    pub fn known(&self, name: &SignalName, publisher: &SpiffeId, subject: &Subject) -> Option<Known> {
        let signal = read(&self.signals).get(name).copied()?;
        let voice = read(&self.voices).numbers.get(publisher).copied()?;
        self.with_row(subject, |row| {
            let at = row.position(signal, voice).ok()?;
            row.cells.get(at).map(|cell| cell.known.clone())
        })
        .flatten()
    }

    /// Looks at all that is known of a subject, under one lock. `look` must not ask the store for another subject.
    pub(super) fn with_row<T>(&self, subject: &Subject, look: impl FnOnce(&Row) -> T) -> Option<T> {
        let hash = self.hash(subject);
        read(&self.shard(hash)?.0).find(hash, |row| row.is_about(subject)).map(look)
    }

    /// The subject of signals that ride on the request.
    pub(super) fn of_request(&self) -> &Subject {
        &self.of_request
    }

    /// The subject of signals about the whole installation.
    pub(super) fn global(&self) -> &Subject {
        &self.global
    }

    /// Visits every subject, in no order that may leave this room.
    pub(super) fn each_row(&self, mut visit: impl FnMut(&Row)) {
        for shard in &self.shards {
            read(&shard.0).iter().for_each(&mut visit);
        }
    }

    fn hash(&self, subject: &Subject) -> u64 {
        self.hasher.hash_one(subject)
    }

    /// The shard of a hash. Always there: the length is `SHARDS`. An option spares the core a way to panic.
    fn shard(&self, hash: u64) -> Option<&Shard> {
        // The table inside a shard uses the lowest and the topmost bits; these are of the middle.
        self.shards.get(usize::try_from((hash >> 40) % SHARDS as u64).ok()?)
    }

    fn signal_number(&self, name: &SignalName) -> u32 {
        if let Some(number) = read(&self.signals).get(name) {
            return *number;
        }
        let mut signals = write(&self.signals);
        let next = u32::try_from(signals.len()).unwrap_or(u32::MAX);
        *signals.entry(name.clone()).or_insert(next)
    }

    fn voice_number(&self, publisher: &SpiffeId, label: impl FnOnce() -> Arc<str>) -> u32 {
        if let Some(number) = read(&self.voices).numbers.get(publisher) {
            return *number;
        }
        let mut voices = write(&self.voices);
        if let Some(number) = voices.numbers.get(publisher) {
            return *number;
        }
        let next = u32::try_from(voices.labels.len()).unwrap_or(u32::MAX);
        voices.numbers.insert(publisher.clone(), next);
        voices.labels.push(label());
        next
    }

    fn voice_label(&self, number: u32) -> Option<Arc<str>> {
        let at = usize::try_from(number).ok()?;
        read(&self.voices).labels.get(at).cloned()
    }
}

impl Row {
    fn about(subject: &Subject, hash: u64) -> Self {
        Self { hash, kind: subject.kind, subject: (*subject.id).into(), cells: Vec::new() }
    }

    fn is_about(&self, subject: &Subject) -> bool {
        self.kind == subject.kind && *self.subject == *subject.id
    }

    pub(super) fn kind(&self) -> SubjectKind {
        self.kind
    }

    pub(super) fn subject(&self) -> &str {
        &self.subject
    }

    /// The signals of which something is known, by number; one may come twice.
    pub(super) fn signals(&self) -> impl Iterator<Item = u32> {
        self.cells.iter().map(|cell| cell.signal)
    }

    fn position(&self, signal: u32, voice: u32) -> Result<usize, usize> {
        self.cells.binary_search_by_key(&(signal, voice), |cell| (cell.signal, cell.voice))
    }

    fn of_signal(&self, signal: u32) -> &[Cell] {
        let start = self.cells.partition_point(|cell| cell.signal < signal);
        let tail = self.cells.get(start..).unwrap_or_default();
        let length = tail.iter().take_while(|cell| cell.signal == signal).count();
        tail.get(..length).unwrap_or_default()
    }

    /// Takes a word in; true if nothing was known of this signal and voice.
    fn take(&mut self, signal: u32, voice: u32, published: &Published) -> bool {
        let at = self.position(signal, voice);
        if let Some(cell) = at.ok().and_then(|at| self.cells.get_mut(at)) {
            cell.known.hear(published);
            return false;
        }
        let known = Known::after(None, published);
        // Exactly one more: a subject gains signals rarely, and a million subjects pay for each spare place.
        self.cells.reserve_exact(1);
        self.cells.insert(at.unwrap_or_else(|free| free), Cell { signal, voice, known });
        true
    }
}

impl Known {
    /// What is known after a further word.
    pub(super) fn after(before: Option<Self>, published: &Published) -> Self {
        let fresh = || Self { observed_at: published.observed_at, value: published.value.clone(), disputed: false };
        before.map_or_else(fresh, |mut known| {
            known.hear(published);
            known
        })
    }

    /// Newer replaces; another value of the same instant disputes; all else is known already.
    fn hear(&mut self, published: &Published) {
        if published.observed_at > self.observed_at {
            *self = Self::after(None, published);
        } else if published.observed_at == self.observed_at && published.value != self.value {
            self.disputed = true;
        }
    }
}

impl Cells {
    /// The contract that these cells belong to.
    pub fn contract(&self) -> &Arc<Contract> {
        &self.contract
    }

    /// The signal's number in the store.
    pub(super) fn signal(&self) -> u32 {
        self.signal
    }

    /// Whether anything is known of this signal and a subject.
    pub(super) fn is_known(&self, store: &Store, subject: &Subject) -> bool {
        store.with_row(subject, |row| !row.of_signal(self.signal).is_empty()).unwrap_or(false)
    }

    /// The fact of which nothing is known.
    pub(super) fn missing(&self, subject: Option<Subject>) -> Fact {
        Fact::missing(subject, self.assurance)
    }

    /// What is known of this signal and one subject. `principal` is the workload that is decided upon.
    pub fn read(&self, store: &Store, subject: &Subject, principal: Option<&SpiffeId>, now: Timestamp) -> Fact {
        let mut fact = self.missing(Some(subject.clone()));
        store.with_row(subject, |row| self.read_row(store, row, principal, now, &mut fact));
        fact
    }

    /// Completes a missing fact with what a row knows.
    pub(super) fn read_row(
        &self,
        store: &Store,
        row: &Row,
        principal: Option<&SpiffeId>,
        now: Timestamp,
        fact: &mut Fact,
    ) {
        let words = row.of_signal(self.signal);
        let Some(voice) = self.voice.as_ref() else {
            return Self::read_strangers(store, words, fact);
        };
        let Some(cell) = words.iter().find(|cell| cell.voice == voice.number) else {
            return Self::read_strangers(store, words, fact);
        };
        fact.state = self.state(&cell.known, now);
        fact.value = Some(cell.known.value.clone());
        fact.observed_at = Some(cell.known.observed_at);
        fact.source = Some(Arc::clone(&voice.label));
        // INVARIANT I3: what the deciding principal published itself counts as self-asserted.
        fact.self_published = principal.is_some_and(|principal| *principal == voice.publisher);
    }

    /// Only publishers that the contract does not name (any more) have spoken: known, but by nobody that counts.
    fn read_strangers(store: &Store, words: &[Cell], fact: &mut Fact) {
        let named = words.iter().map(|cell| (cell.known.observed_at, store.voice_label(cell.voice), &cell.known.value));
        // The newest; of equals, the first by name: which one is shown must not depend on history.
        let newest = named.max_by(|a, b| a.0.cmp(&b.0).then_with(|| b.1.cmp(&a.1)));
        let Some((observed_at, label, value)) = newest else { return };
        fact.state = State::Unverified;
        fact.value = Some(value.clone());
        fact.observed_at = Some(observed_at);
        fact.source = label;
    }

    /// Several may apply; the first of this order counts.
    fn state(&self, known: &Known, now: Timestamp) -> State {
        let skew = Span::from_micros(limits::MAX_CLOCK_SKEW_MICROS);
        if !self.contract.kind.admits(&known.value) {
            State::Unverified
        } else if known.disputed {
            State::Disputed
        } else if known.observed_at > now.plus(skew) {
            State::Future
        } else if self.contract.max_age.is_none_or(|max_age| now.since(known.observed_at) > max_age) {
            State::Stale
        } else {
            State::Fresh
        }
    }
}

/// A panic while a lock was held leaves no half-made row behind (each change is one assignment after
/// another of whole values), so a poisoned lock is as good as any.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
