//! What is known of every signal now: a concurrent map in memory, changed by `apply` alone.
//!
//! The map goes by subject, not by signal: a decision asks for a dozen signals of one or two subjects,
//! so all that is known of a subject lies together. That costs one hash, one lock and a handful of cache
//! misses a subject however many signals are read, and the values come from one instant.

use super::contract::Contract;
use super::derived::Measure;
use super::merge::{Part, merge};
use super::sources::{Circumstances, Flow, ReadRequest};
use super::streams::{Vouched, Vouching};
use crate::change::{Change, Published};
use crate::limits;
use crate::locks::{read, write};
use crate::model::names::SubjectKind;
use crate::model::{Assurance, Fact, Origin, SignalName, Span, SpiffeId, State, Subject, Timestamp, Value};
use hashbrown::{HashTable, hash_table::Entry};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};

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
    vouching: Vouching,
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

/// One origin's latest word on one signal of one subject.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cell {
    signal: u32,
    voice: u32,
    known: Known,
}

/// Origins by number, in the order in which they were first heard of.
#[derive(Debug, Default)]
struct Voices {
    numbers: BTreeMap<Origin, u32>,
    labels: Vec<Arc<str>>,
}

/// A contract, bound to the store: what a snapshot keeps so that reading looks no name up.
#[derive(Debug, Clone)]
pub struct Cells {
    contract: Arc<Contract>,
    assurance: Assurance,
    signal: u32,
    sources: Box<[Bound]>,
}

/// One source of a contract, bound to the store.
#[derive(Debug, Clone)]
struct Bound {
    assurance: Assurance,
    label: Arc<str>,
    flow: BoundFlow,
}

#[derive(Debug, Clone)]
enum BoundFlow {
    Stored { voice: u32, origin: Origin, resting: Option<Value> },
    OnRequest(Arc<dyn ReadRequest>),
    Counted { measure: Measure, window: Span },
}

/// Where and when a signal is read.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    /// What is known.
    pub store: &'a Store,
    /// What vouches for it.
    pub vouched: &'a Vouched,
    /// The workload that is decided upon.
    pub principal: Option<&'a SpiffeId>,
    /// Those of its chain: what they published counts as its own word.
    pub chain: &'a [SpiffeId],
    /// What is asked, where that is known.
    pub circumstances: Option<&'a Circumstances<'a>>,
    /// The time that counts.
    pub now: Timestamp,
}

/// What an origin last said of one signal and subject.
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
            vouching: Vouching::default(),
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

    /// What vouches for values beside their age.
    pub const fn vouching(&self) -> &Vouching {
        &self.vouching
    }

    /// Binds a contract, so that reading it needs no name.
    pub fn bind(&self, contract: &Arc<Contract>) -> Cells {
        let bound = |source: &super::Source| Bound {
            assurance: source.assurance,
            label: Arc::clone(&source.label),
            flow: match &source.flow {
                Flow::Stored { origin, resting } => BoundFlow::Stored {
                    voice: self.voice_number(origin),
                    origin: origin.clone(),
                    resting: resting.clone(),
                },
                Flow::OnRequest(reader) => BoundFlow::OnRequest(Arc::clone(reader)),
                Flow::Counted { measure, window } => BoundFlow::Counted { measure: *measure, window: *window },
            },
        };
        let sources = contract.sources.iter().map(bound).collect();
        let signal = self.signal_number(&contract.name);
        Cells { contract: Arc::clone(contract), assurance: contract.assurance(), signal, sources }
    }

    /// Takes one change in. Idempotent: a change that is known already, or older than what is known, alters nothing.
    pub fn apply(&self, change: &Change) {
        match change {
            Change::SignalPublished(published) if published.subject.is_everyone() => self.vouching.hear(published),
            Change::SignalPublished(published) => self.hear(published),
            Change::PublisherSwitched(switched) => self.vouching.switch(switched),
            Change::SignalOverridden(word) => self.vouching.take_word(word),
            Change::StreamMoved(moved) => self.vouching.moved(moved),
            // Learnt of identities, tasks, approvals, or of time.
            _ => {}
        }
    }

    fn hear(&self, published: &Published) {
        let signal = self.signal_number(&published.name);
        let voice = self.voice_number(&published.origin);
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

    /// What an origin last said of a signal and subject.
    pub fn known(&self, name: &SignalName, origin: &Origin, subject: &Subject) -> Option<Known> {
        if subject.is_everyone() {
            return self.vouching.load().of_everyone(name, subject.kind, origin).cloned();
        }
        let signal = read(&self.signals).get(name).copied()?;
        let voice = read(&self.voices).numbers.get(origin).copied()?;
        self.with_row(subject, |row| {
            let row = row?;
            row.cells.get(row.position(signal, voice).ok()?).map(|cell| cell.known.clone())
        })
    }

    /// Looks at all that is known of a subject, under one lock. `look` must not ask the store for another subject.
    pub(super) fn with_row<T>(&self, subject: &Subject, look: impl FnOnce(Option<&Row>) -> T) -> T {
        let hash = self.hash(subject);
        match self.shard(hash) {
            Some(shard) => look(read(&shard.0).find(hash, |row| row.is_about(subject))),
            None => look(None),
        }
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

    fn voice_number(&self, origin: &Origin) -> u32 {
        if let Some(number) = read(&self.voices).numbers.get(origin) {
            return *number;
        }
        let mut voices = write(&self.voices);
        if let Some(number) = voices.numbers.get(origin) {
            return *number;
        }
        let next = u32::try_from(voices.labels.len()).unwrap_or(u32::MAX);
        voices.numbers.insert(origin.clone(), next);
        voices.labels.push(origin.label().into());
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

    /// What is known, signal by signal: its number, and when the value was observed.
    pub(super) fn observed(&self) -> impl Iterator<Item = (u32, Timestamp)> {
        self.cells.iter().map(|cell| (cell.signal, cell.known.observed_at))
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

    /// The later of what was said of one subject and of all; two that differ at one instant are disputed.
    fn latest<'k>(own: Option<&'k Self>, all: Option<&'k Self>) -> Option<Cow<'k, Self>> {
        match (own, all) {
            (Some(own), Some(all)) if own.observed_at == all.observed_at => {
                let disputed = own.disputed || all.disputed || own.value != all.value;
                Some(Cow::Owned(Self { disputed, ..own.clone() }))
            }
            (Some(own), Some(all)) => Some(Cow::Borrowed(if own.observed_at > all.observed_at { own } else { all })),
            (own, all) => own.or(all).map(Cow::Borrowed),
        }
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
    pub(super) fn is_known(&self, store: &Store, vouched: &Vouched, subject: &Subject) -> bool {
        store.with_row(subject, |row| row.is_some_and(|row| !row.of_signal(self.signal).is_empty()))
            || self.origins().any(|origin| vouched.of_everyone(&self.contract.name, subject.kind, origin).is_some())
    }

    /// The origins of stored values that the contract names.
    pub(super) fn origins(&self) -> impl Iterator<Item = &Origin> {
        self.sources.iter().filter_map(|source| match &source.flow {
            BoundFlow::Stored { origin, .. } => Some(origin),
            BoundFlow::OnRequest(_) | BoundFlow::Counted { .. } => None,
        })
    }

    /// The fact of which nothing is known.
    pub(super) fn missing(&self, subject: Option<Subject>) -> Fact {
        Fact::missing(subject, self.assurance)
    }

    /// What is known of this signal and one subject.
    pub fn read(&self, reading: &Reading<'_>, subject: &Subject) -> Fact {
        reading.store.with_row(subject, |row| self.read_row(reading, row, Some(subject.clone())))
    }

    /// The fact, from what a row knows of its subject and from the request.
    pub(super) fn read_row(&self, reading: &Reading<'_>, row: Option<&Row>, subject: Option<Subject>) -> Fact {
        let words = row.map_or(&[][..], |row| row.of_signal(self.signal));
        let mut fact = match &*self.sources {
            [source] => self.part(reading, source, words, subject.as_ref()).into_fact(subject),
            sources => {
                let parts: Vec<Part> =
                    sources.iter().map(|source| self.part(reading, source, words, subject.as_ref())).collect();
                merge(&self.contract, subject, &parts)
            }
        };
        if fact.state == State::Missing && !words.iter().any(|cell| self.names(cell.voice)) {
            Self::read_strangers(reading.store, words, &mut fact);
        }
        fact
    }

    /// Whether the contract names this voice.
    fn names(&self, number: u32) -> bool {
        self.sources.iter().any(|source| matches!(&source.flow, BoundFlow::Stored { voice, .. } if *voice == number))
    }

    /// What one source says.
    fn part(&self, reading: &Reading<'_>, source: &Bound, words: &[Cell], subject: Option<&Subject>) -> Part {
        let mut part = Part::missing(source.assurance);
        match &source.flow {
            BoundFlow::Stored { voice, origin, resting } => {
                let own = words.iter().find(|cell| cell.voice == *voice).map(|cell| &cell.known);
                let all = subject.and_then(|s| reading.vouched.of_everyone(&self.contract.name, s.kind, origin));
                if let Some(known) = Known::latest(own, all) {
                    part.state = self.state(reading, origin, resting.is_some(), &known);
                    part.value = Some(known.value.clone());
                    part.observed_at = Some(known.observed_at);
                } else if let (Some(resting), true) = (resting, words.is_empty()) {
                    self.rest(reading, origin, resting, &mut part);
                }
                part.own = reading.principal.iter().copied().chain(reading.chain).any(|of_us| origin.is(of_us));
                part.label = part.value.is_some().then(|| Arc::clone(&source.label));
            }
            BoundFlow::OnRequest(reader) => {
                if let Some(circumstances) = reading.circumstances {
                    (part.state, part.value) = reader.read(circumstances, &self.contract.kind);
                    part.label = (part.state != State::Missing).then(|| Arc::clone(&source.label));
                }
            }
            BoundFlow::Counted { measure, window } => {
                let counted = reading.circumstances.and_then(|circumstances| {
                    let series = circumstances.derived.find(*measure, *window)?;
                    series.read(circumstances.principal, reading.now)
                });
                if let Some(counted) = counted {
                    part.state = State::Fresh;
                    part.value = Some(Value::Long(counted));
                    part.observed_at = Some(reading.now);
                    part.label = Some(Arc::clone(&source.label));
                }
            }
        }
        part
    }

    /// A subject without events, on a stream: its resting value, as long as nothing can have been missed.
    ///
    /// INVARIANT I2: a stream that is silent or out of sync never says that all is well.
    fn rest(&self, reading: &Reading<'_>, origin: &Origin, resting: &Value, part: &mut Part) {
        let Origin::Feed(_, feed) = origin else { return };
        let Some(stream) = reading.vouched.stream(feed) else { return };
        let (Some(verified_at), Some(_)) = (stream.verified_at, stream.in_sync_since) else { return };
        part.value = Some(resting.clone());
        part.observed_at = Some(verified_at);
        part.state = if reading.vouched.is_off(origin, &self.contract.name) {
            State::Unverified
        } else if self.is_old(verified_at, reading.now) {
            State::Stale
        } else {
            State::Fresh
        };
    }

    /// Only origins that the contract does not name (any more) have spoken: known, but by nobody that counts.
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

    /// Several may apply; the first of this order counts. `lives`: the value holds until the next event, so a
    /// stream that is live and in sync keeps it young.
    fn state(&self, reading: &Reading<'_>, origin: &Origin, lives: bool, known: &Known) -> State {
        let skew = Span::from_micros(limits::MAX_CLOCK_SKEW_MICROS);
        let vouched = reading.vouched;
        let since = if lives { held_since(vouched, origin, known.observed_at) } else { known.observed_at };
        if !self.contract.kind.admits(&known.value) || !vouched.vouches(origin, &self.contract.name, known.observed_at)
        {
            State::Unverified
        } else if known.disputed {
            State::Disputed
        } else if known.observed_at > reading.now.plus(skew) {
            State::Future
        } else if self.is_old(since, reading.now) {
            State::Stale
        } else {
            State::Fresh
        }
    }

    fn is_old(&self, since: Timestamp, now: Timestamp) -> bool {
        self.contract.max_age.is_none_or(|max_age| now.since(since) > max_age)
    }
}

/// Since when a value of a stream of events is known to hold: the stream, while in sync, would have said otherwise.
fn held_since(vouched: &Vouched, origin: &Origin, observed_at: Timestamp) -> Timestamp {
    let Origin::Feed(_, feed) = origin else { return observed_at };
    let stream = vouched.stream(feed).filter(|stream| stream.in_sync_since.is_some());
    observed_at.max(stream.and_then(|stream| stream.verified_at).unwrap_or(observed_at))
}
