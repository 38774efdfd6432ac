//! What is counted of callers, for signals of kind `derived`: requests and denials of a principal in a sliding window,
//! and its distinct addresses and certificates. Advanced by `check` alone, at its end; never by an offline decision.
//!
//! Readers take no lock. A writer takes one only for a principal that it meets for the first time.
//!
//! INVARIANT I2: nothing here is ever zero because it was forgotten. Until a window has been observed whole, and where
//! an eviction could have lost something of it, there is no value.

use super::register::Register;
use super::sources::{Flow, Source};
use crate::findings::Findings;
use crate::limits::{MAX_COUNTED_PRINCIPALS, MAX_SERIES};
use crate::locks::lock;
use crate::model::{Span, SpiffeId, Timestamp};
use crate::reason::Reason;
use arc_swap::ArcSwap;
use foldhash::quality::FixedState;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// A window is counted in so many buckets: it reaches back at least its whole span, and at most a sixteenth more.
const BUCKETS: u64 = 16;
/// The window with the bucket under way, and room for a decision that is a bucket ahead of another.
const PLACES: usize = 18;
/// Distinct addresses or certificates told apart; beyond, the value stays here until a whole window has passed.
/// A workload has a handful of either: this many is an alarm, whatever the exact number.
pub const MOST_DISTINCT: usize = 64;
/// Enough that a principal that is met for the first time copies a small map.
const SHARDS: usize = 64;
/// A decision that is so far behind the latest one was not merely slow: the clock had leapt ahead, and what was
/// counted then stands in the future. Observation begins anew.
const LEAPT_MICROS: i64 = 60_000_000;
/// Nothing seen yet.
const UNSET: i64 = i64::MIN;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Measure {
    /// Decisions about the principal.
    Requests,
    /// Those of them that denied, for a reason that lies with the caller.
    Denials,
    /// Distinct addresses that it connected from.
    Origins,
    /// Distinct certificates that it showed.
    Certificates,
}

impl Measure {
    /// Every measure, with the word that files use.
    pub const ALL: &'static [(&'static str, Self)] = &[
        ("requests", Self::Requests),
        ("denials", Self::Denials),
        ("origins", Self::Origins),
        ("certificates", Self::Certificates),
    ];

    /// The word that files use.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, v)| *v == self).map_or("", |(word, _)| word)
    }
}

/// Whether a denial says something of the caller. That a feed was down or a log full does not: it would lock out
/// every caller of an outage for a window more.
fn is_denial(reason: Reason) -> bool {
    !matches!(
        reason,
        Reason::Allowed
            | Reason::SignalUnavailable
            | Reason::ApprovalRequired
            | Reason::EngineError
            | Reason::NotReady
            | Reason::LogUnavailable
    )
}

/// Whom a decision was about, and from where: what `check` keeps until its answer is known.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The verified identity.
    pub principal: SpiffeId,
    /// The address that it connected from, if it has one.
    pub address: Option<IpAddr>,
    /// Hex SHA-256 of its certificate, if Envoy forwards it.
    pub certificate: Option<String>,
}

/// All that the register in force wants counted.
#[derive(Clone, Debug, Default)]
pub struct Derived(Vec<Arc<Series>>);

impl Derived {
    /// What this register wants counted. A measure and window that was counted before goes on; a new one begins.
    pub fn of(register: &Register, before: &Self, seed: u64) -> Self {
        let mut all: Vec<Arc<Series>> = Vec::new();
        for (measure, window) in wanted(register) {
            let known = before.find(measure, window).map(Arc::clone);
            all.push(known.unwrap_or_else(|| Arc::new(Series::new(measure, window, seed, MAX_COUNTED_PRINCIPALS))));
        }
        Self(all)
    }

    /// Whether nothing is counted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One of what is counted.
    pub fn find(&self, measure: Measure, window: Span) -> Option<&Arc<Series>> {
        self.0.iter().find(|series| series.measure == measure && series.window == window)
    }

    /// Counts a decision that was made.
    pub fn count(&self, caller: &Caller, reason: Reason, now: Timestamp) {
        for series in &self.0 {
            series.count(caller, is_denial(reason), now);
        }
    }
}

/// The measures and windows of a register, each once.
pub(super) fn wanted(register: &Register) -> Vec<(Measure, Span)> {
    let sources = register.contracts().iter().flat_map(|contract| &contract.sources);
    let mut all: Vec<(Measure, Span)> = sources
        .filter_map(|source| match source.flow {
            Flow::Counted { measure, window } => Some((measure, window)),
            _ => None,
        })
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// A register that wants more counted than is counted.
pub(super) fn check_bound(file: &str, register: &Register, findings: &mut Findings) {
    let wanted = wanted(register);
    let Some((measure, window)) = wanted.get(MAX_SERIES) else { return };
    let is_beyond = |source: &Source| matches!(&source.flow, Flow::Counted { measure: m, window: w } if (m, w) == (measure, window));
    let contract = register.contracts().iter().find(|contract| contract.sources.iter().any(is_beyond));
    let place = contract.map(|contract| contract.place).unwrap_or_default();
    let message =
        format!("`derived`: expected at most {MAX_SERIES} measures and windows in a register, found {}", wanted.len());
    findings.error(file, place, "too_many_series", message);
}

/// One measure over one window, for every principal.
#[derive(Debug)]
pub struct Series {
    measure: Measure,
    window: Span,
    /// Microseconds of a bucket.
    bucket: i64,
    most: usize,
    hasher: FixedState,
    shards: Box<[Shard]>,
    /// Since when it is observed.
    since: AtomicI64,
    /// The latest decision seen.
    latest: AtomicI64,
    /// Held while observation begins anew.
    renewing: Mutex<()>,
}

#[derive(Debug)]
#[repr(align(64))]
struct Shard {
    counters: ArcSwap<Counters>,
    /// Held while a principal is added.
    adding: Mutex<()>,
    /// The last activity of whoever was evicted.
    lost_until: AtomicI64,
}

impl Shard {
    fn new(hasher: &FixedState) -> Self {
        Self {
            counters: ArcSwap::from_pointee(HashMap::with_hasher(hasher.clone())),
            adding: Mutex::default(),
            lost_until: AtomicI64::new(UNSET),
        }
    }
}

type Counters = HashMap<SpiffeId, Arc<Counter>, FixedState>;

impl Series {
    /// Nothing counted yet, for so many principals. The seed spreads them over shards; it never shows in an answer.
    pub fn new(measure: Measure, window: Span, seed: u64, most: usize) -> Self {
        let hasher = FixedState::with_seed(seed);
        let shards = (0..SHARDS).map(|_| Shard::new(&hasher)).collect();
        Self {
            measure,
            window,
            bucket: window.as_micros().div_euclid(16).max(1) + i64::from(window.as_micros() % 16 != 0),
            most: most.div_ceil(SHARDS),
            hasher,
            shards,
            since: AtomicI64::new(UNSET),
            latest: AtomicI64::new(UNSET),
            renewing: Mutex::new(()),
        }
    }

    /// What was counted of a principal in the window before `now`; `None` if that is not known.
    pub fn read(&self, principal: &SpiffeId, now: Timestamp) -> Option<i64> {
        let (now, from) = (now.as_micros(), now.as_micros().saturating_sub(self.window.as_micros()));
        let since = self.begin(now);
        // A decision that the latest one has left behind by more than a bucket may miss what was overwritten since.
        let behind = self.latest.load(Ordering::SeqCst) > now.saturating_add(self.bucket);
        if since > from || behind {
            return None;
        }
        let shard = self.shard(principal)?;
        let counters = shard.counters.load();
        let Some(counter) = counters.get(principal) else {
            return (shard.lost_until.load(Ordering::SeqCst) < from).then_some(0);
        };
        (counter.lost_until < from).then(|| counter.value(self.number(now)))
    }

    /// Counts one decision.
    pub fn count(&self, caller: &Caller, denied: bool, now: Timestamp) {
        let now = now.as_micros();
        self.begin(now);
        if self.latest.fetch_max(now, Ordering::SeqCst) > now.saturating_add(LEAPT_MICROS) {
            self.renew(now);
        }
        let key = match self.measure {
            Measure::Requests => None,
            Measure::Denials if denied => None,
            Measure::Origins => match caller.address {
                Some(address) => Some(self.hasher.hash_one(address)),
                None => return,
            },
            Measure::Certificates => match &caller.certificate {
                Some(certificate) => Some(self.hasher.hash_one(certificate)),
                None => return,
            },
            Measure::Denials => return,
        };
        let Some(shard) = self.shard(&caller.principal) else { return };
        // An eviction between finding a counter and counting would lose the count: then again, with a new one.
        for _ in 0..4 {
            let counter = self.counter(shard, &caller.principal, now);
            counter.add(self.number(now), key, now);
            let counters = shard.counters.load();
            if counters.get(&caller.principal).is_some_and(|known| Arc::ptr_eq(known, &counter)) {
                return;
            }
        }
        shard.lost_until.fetch_max(now, Ordering::SeqCst);
    }

    /// How many principals have a counter.
    pub fn principals(&self) -> usize {
        self.shards.iter().map(|shard| shard.counters.load().len()).sum()
    }

    /// Since when it is observed: the first decision that it meets.
    fn begin(&self, now: i64) -> i64 {
        match self.since.load(Ordering::SeqCst) {
            UNSET => match self.since.compare_exchange(UNSET, now, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => now,
                Err(since) => since,
            },
            since => since,
        }
    }

    /// Forgets everything, aloud: from here on there is no value until a window has passed.
    fn renew(&self, now: i64) {
        let _held = lock(&self.renewing);
        if self.latest.load(Ordering::SeqCst) <= now.saturating_add(LEAPT_MICROS) {
            return;
        }
        self.since.store(now, Ordering::SeqCst);
        for shard in &self.shards {
            let _held = lock(&shard.adding);
            shard.counters.store(Arc::new(HashMap::with_hasher(self.hasher.clone())));
            shard.lost_until.store(UNSET, Ordering::SeqCst);
        }
        self.latest.store(now, Ordering::SeqCst);
    }

    /// The number of the bucket of an instant. It wraps after eight years at the shortest window: only differences count.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "numbers wrap")]
    fn number(&self, now: i64) -> u32 {
        now.div_euclid(self.bucket) as u32
    }

    /// Always there. An option spares the core a way to panic.
    fn shard(&self, principal: &SpiffeId) -> Option<&Shard> {
        // The map inside uses the lowest and the topmost bits; these are of the middle.
        self.shards.get(usize::try_from((self.hasher.hash_one(principal) >> 40) % SHARDS as u64).ok()?)
    }

    fn counter(&self, shard: &Shard, principal: &SpiffeId, now: i64) -> Arc<Counter> {
        if let Some(known) = shard.counters.load().get(principal) {
            return Arc::clone(known);
        }
        let _held = lock(&shard.adding);
        let before = shard.counters.load_full();
        if let Some(known) = before.get(principal) {
            return Arc::clone(known);
        }
        let mut counters = (*before).clone();
        let evicted = if counters.len() >= self.most { idlest(&mut counters) } else { None };
        // What this principal may have lost to an earlier eviction.
        let counter = Arc::new(Counter::new(self.measure, shard.lost_until.load(Ordering::SeqCst), now));
        counters.insert(principal.clone(), Arc::clone(&counter));
        // First the mark, then the map: whoever finds no counter any more must find the mark. What is counted of the
        // evicted one until the map is stored is seen below.
        if let Some(evicted) = &evicted {
            shard.lost_until.fetch_max(evicted.active.load(Ordering::SeqCst), Ordering::SeqCst);
        }
        shard.counters.store(Arc::new(counters));
        if let Some(evicted) = &evicted {
            shard.lost_until.fetch_max(evicted.active.load(Ordering::SeqCst), Ordering::SeqCst);
        }
        counter
    }
}

/// Takes out the counter that has been idle for the longest.
fn idlest(counters: &mut Counters) -> Option<Arc<Counter>> {
    let active = |counter: &Counter| counter.active.load(Ordering::SeqCst);
    let principal = counters.iter().min_by_key(|(_, counter)| active(counter)).map(|(name, _)| name.clone())?;
    counters.remove(&principal)
}

/// What is counted of one principal.
#[derive(Debug)]
struct Counter {
    /// When it was last counted.
    active: AtomicI64,
    /// Up to when something of it may have been lost.
    lost_until: i64,
    places: Places,
}

/// Each word holds two numbers, so that both change at once: above, a bucket's number; below, what is counted in it, or
/// a print of what was seen in it last.
#[derive(Debug)]
enum Places {
    Sum([AtomicU64; PLACES]),
    Distinct {
        seen: Box<[AtomicU64; MOST_DISTINCT]>,
        /// The last bucket in which there was no place left; a print of 1 once there was one.
        overflow: AtomicU64,
    },
}

const fn word(number: u32, low: u32) -> u64 {
    (number as u64) << 32 | low as u64
}

#[expect(clippy::cast_possible_truncation, reason = "taking a word apart")]
const fn apart(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

/// By how many buckets `number` lies behind `current`; negative if it lies ahead.
const fn age(current: u32, number: u32) -> i64 {
    current.wrapping_sub(number).cast_signed() as i64
}

/// Whether a place belongs to the window, or is ahead of it. One that was never used has nothing below.
fn counts(current: u32, place: u64) -> bool {
    let (number, low) = apart(place);
    low != 0 && age(current, number) <= i64::try_from(BUCKETS).unwrap_or(i64::MAX)
}

impl Counter {
    fn new(measure: Measure, lost_until: i64, now: i64) -> Self {
        let places = match measure {
            Measure::Requests | Measure::Denials => Places::Sum(std::array::from_fn(|_| AtomicU64::new(0))),
            Measure::Origins | Measure::Certificates => Places::Distinct {
                seen: Box::new(std::array::from_fn(|_| AtomicU64::new(0))),
                overflow: AtomicU64::new(0),
            },
        };
        Self { active: AtomicI64::new(now), lost_until, places }
    }

    fn add(&self, current: u32, key: Option<u64>, now: i64) {
        self.active.fetch_max(now, Ordering::SeqCst);
        match &self.places {
            Places::Sum(places) => add_one(places, current),
            Places::Distinct { seen, overflow } => see(seen, overflow, current, print_of(key.unwrap_or_default())),
        }
    }

    fn value(&self, current: u32) -> i64 {
        match &self.places {
            Places::Sum(places) => {
                let words = places.iter().map(|place| place.load(Ordering::SeqCst));
                words.filter(|word| counts(current, *word)).map(|word| i64::from(apart(word).1)).sum()
            }
            Places::Distinct { overflow, .. } if counts(current, overflow.load(Ordering::SeqCst)) => most_distinct(),
            Places::Distinct { seen, .. } => {
                let words = seen.iter().map(|place| place.load(Ordering::SeqCst));
                let mut prints: Vec<u32> = words.filter(|w| counts(current, *w)).map(|w| apart(w).1).collect();
                // Two writers may have taken a place each for one thing.
                prints.sort_unstable();
                prints.dedup();
                i64::try_from(prints.len()).unwrap_or(i64::MAX)
            }
        }
    }
}

fn most_distinct() -> i64 {
    i64::try_from(MOST_DISTINCT).unwrap_or(i64::MAX)
}

/// A print of 32 bits, never 0. Of 64 things two have the same one in a case of two million; nobody can choose which,
/// since the hash is seeded.
const fn print_of(hash: u64) -> u32 {
    let print = (hash >> 32) as u32;
    if print == 0 { 1 } else { print }
}

fn add_one(places: &[AtomicU64; PLACES], current: u32) {
    let Some(place) = places.get(current as usize % PLACES) else { return };
    let one_more = |before: u64| {
        let (number, sum) = apart(before);
        match age(current, number) {
            0 => Some(word(current, sum.saturating_add(1))),
            // A later bucket has the place: this one has left the window.
            behind if behind < 0 && sum > 0 => None,
            _ => Some(word(current, 1)),
        }
    };
    // An error is the `None` above: there is nothing to count.
    let _ = place.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more);
}

fn see(seen: &[AtomicU64; MOST_DISTINCT], overflow: &AtomicU64, current: u32, print: u32) {
    // Each round that fails has let another writer through, and there are but so many places.
    for _ in 0..2 * MOST_DISTINCT {
        let mut free = None;
        let mut known = None;
        for place in seen {
            let before = place.load(Ordering::SeqCst);
            let (number, low) = apart(before);
            if low == print && counts(current, before) {
                if age(current, number) <= 0 {
                    return;
                }
                known = Some((place, before));
                break;
            }
            if free.is_none() && !counts(current, before) {
                free = Some((place, before));
            }
        }
        let Some((place, before)) = known.or(free) else { break };
        if place.compare_exchange(before, word(current, print), Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            return;
        }
    }
    let later = |before: u64| {
        let (number, low) = apart(before);
        (low == 0 || age(current, number) > 0).then(|| word(current, 1))
    };
    let _ = overflow.fetch_update(Ordering::SeqCst, Ordering::SeqCst, later);
}
