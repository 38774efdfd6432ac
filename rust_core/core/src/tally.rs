//! What decisions saw of each signal, and what publishers sent: counts for people and metrics. Fed where records are
//! rendered and where batches are judged, never on the way of an answer.

use crate::locks::lock;
use crate::{
    limits::{MAX_TALLIED_ORIGINS, MAX_TALLIED_SIGNALS},
    model::{Origin, SignalName, State, Timestamp},
    record::seen::{Seen, Sighting},
    signals::{Admission, Census, Contract, RefusalReason, Register},
    snapshot::Snapshot,
};
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};

/// Every state, in the order of their counts.
const STATES: [State; 6] =
    [State::Fresh, State::Stale, State::Missing, State::Disputed, State::Unverified, State::Future];
/// Upper bounds of the ages that are told apart, in tenths of a second: from a feed that pushes to one that is asked
/// once a day.
const AGES: [i64; 9] = [1, 10, 50, 150, 600, 3_000, 9_000, 36_000, 864_000];
const TENTH_MICROS: i64 = 100_000;
/// What "recent" means, in minutes.
const MINUTES: i64 = 5;
const MINUTE_MICROS: i64 = 60_000_000;

/// Counts since the start.
#[derive(Debug, Default)]
pub struct Tally {
    signals: Mutex<Signals>,
    origins: Mutex<BTreeMap<Origin, OfOrigin>>,
}

#[derive(Debug, Default)]
struct Signals {
    each: Vec<OfSignal>,
    /// Where each of these names is counted.
    places: BTreeMap<SignalName, usize>,
    /// The same by the index that a signal has in the snapshot which was counted last: decisions have a dozen signals
    /// each, and the names would be compared for every one.
    of_last: Vec<Option<usize>>,
    last: Weak<Snapshot>,
}

#[derive(Clone, Debug, Default)]
struct OfSignal {
    states: [u64; STATES.len()],
    recent: Vec<(i64, [u64; STATES.len()])>,
    ages: [u64; AGES.len()],
    age_count: u64,
    age_micros: i128,
    rejected: BTreeMap<RefusalReason, u64>,
}

#[derive(Clone, Debug, Default)]
struct OfOrigin {
    last_seen: Option<Timestamp>,
    accepted: u64,
    rejected: BTreeMap<RefusalReason, u64>,
}

impl Tally {
    /// Counts what these decisions saw.
    pub fn saw<'a>(&self, decisions: impl IntoIterator<Item = &'a Seen>) {
        let mut signals = lock(&self.signals);
        for seen in decisions {
            let Some(snapshot) = &seen.snapshot else { continue };
            signals.follow(snapshot);
            for sighting in &*seen.signals {
                let index = usize::from(sighting.index.0);
                let Some(contract) = snapshot.register.contracts().get(index) else { continue };
                if let Some(of_signal) = signals.at(index, &contract.name) {
                    of_signal.saw(contract, sighting, seen.time);
                }
            }
        }
    }

    /// Counts what became of a batch.
    pub fn judged(&self, origin: &Origin, admission: &Admission, now: Timestamp) {
        {
            let mut signals = lock(&self.signals);
            for (_, refusal) in &admission.rejected {
                // Names that no contract has are the sender's to choose: they are counted, but not by name.
                let known = refusal.signal.as_ref().and_then(|name| signals.of(name));
                if let Some(of_signal) = known {
                    *of_signal.rejected.entry(refusal.reason).or_default() += 1;
                }
            }
        }
        let mut origins = lock(&self.origins);
        if origins.len() >= MAX_TALLIED_ORIGINS && !origins.contains_key(origin) {
            let silent = origins.iter().min_by_key(|(_, of)| of.last_seen).map(|(origin, _)| origin.clone());
            silent.map(|silent| origins.remove(&silent));
        }
        let of_origin = origins.entry(origin.clone()).or_default();
        of_origin.last_seen = of_origin.last_seen.max(Some(now));
        of_origin.accepted += admission.accepted as u64;
        for (_, refusal) in &admission.rejected {
            *of_origin.rejected.entry(refusal.reason).or_default() += 1;
        }
    }

    /// Forgets the signals that the register no longer has.
    pub fn keep(&self, register: &Register) {
        lock(&self.signals).retain(|name| register.find(name.as_str()).is_some());
    }

    /// `{"signals": […]}` of a register, by name; with what the store holds where that was counted, by the same index.
    pub fn signals(&self, register: &Register, census: Option<&[Census]>, now: Timestamp) -> Json {
        let signals = lock(&self.signals);
        let of_none = OfSignal::default();
        let each = register.contracts().iter().enumerate().map(|(at, contract)| {
            let mut fields = signals.get(&contract.name).unwrap_or(&of_none).to_json(now);
            fields.insert("name".to_owned(), contract.name.as_str().into());
            if let Some(census) = census {
                let Census { subjects, freshest, oldest } = census.get(at).copied().unwrap_or_default();
                fields.insert("subjects".to_owned(), subjects.into());
                fields.insert("freshest".to_owned(), freshest.map(Timestamp::to_rfc3339).into());
                fields.insert("oldest".to_owned(), oldest.map(Timestamp::to_rfc3339).into());
            }
            Json::Object(fields)
        });
        json!({"signals": each.collect::<Vec<_>>()})
    }

    /// Every origin that sent something or is switched off, by its text, and what of it is off (`None`: all of it).
    pub fn publishers(&self, switched_off: &[(String, Option<String>)]) -> Json {
        let mut all: BTreeMap<String, OfOrigin> =
            lock(&self.origins).iter().map(|(origin, of)| (origin.to_string(), of.clone())).collect();
        for (origin, _) in switched_off {
            all.entry(origin.clone()).or_default();
        }
        let each = all.iter().map(|(origin, of)| {
            let off = || switched_off.iter().filter(|(other, _)| other == origin).map(|(_, signal)| signal.as_deref());
            json!({
                "publisher": origin,
                "last_seen": of.last_seen.map(Timestamp::to_rfc3339),
                "accepted": of.accepted,
                "rejected": by_code(&of.rejected),
                "disabled": off().any(|signal| signal.is_none()),
                "disabled_signals": off().flatten().collect::<Vec<_>>(),
            })
        });
        each.collect()
    }
}

impl Signals {
    /// What is asked by index from now on is asked of this snapshot.
    fn follow(&mut self, snapshot: &Arc<Snapshot>) {
        // A `Weak` keeps the place of what it names, so no other snapshot can be found there.
        if !std::ptr::eq(self.last.as_ptr(), Arc::as_ptr(snapshot)) {
            self.last = Arc::downgrade(snapshot);
            self.of_last.clear();
            self.of_last.resize(snapshot.register.contracts().len(), None);
        }
    }

    /// The counts of a signal of the snapshot that is followed.
    fn at(&mut self, index: usize, name: &SignalName) -> Option<&mut OfSignal> {
        if let Some(place) = self.of_last.get(index).copied().flatten() {
            return self.each.get_mut(place);
        }
        let place = self.place(name)?;
        *self.of_last.get_mut(index)? = Some(place);
        self.each.get_mut(place)
    }

    /// The counts of a signal by its name.
    fn of(&mut self, name: &SignalName) -> Option<&mut OfSignal> {
        let place = self.place(name)?;
        self.each.get_mut(place)
    }

    /// There is always room for a register; names of former ones go at the next load.
    fn place(&mut self, name: &SignalName) -> Option<usize> {
        if let Some(place) = self.places.get(name) {
            return Some(*place);
        }
        if self.each.len() >= MAX_TALLIED_SIGNALS {
            return None;
        }
        self.each.push(OfSignal::default());
        self.places.insert(name.clone(), self.each.len() - 1);
        Some(self.each.len() - 1)
    }

    fn get(&self, name: &SignalName) -> Option<&OfSignal> {
        self.each.get(*self.places.get(name)?)
    }

    fn retain(&mut self, is_known: impl Fn(&SignalName) -> bool) {
        let former = std::mem::take(self);
        for (name, place) in former.places {
            if let Some(of_signal) = former.each.get(place).filter(|_| is_known(&name)) {
                self.places.insert(name, self.each.len());
                self.each.push(of_signal.clone());
            }
        }
    }
}

impl OfSignal {
    fn saw(&mut self, contract: &Contract, seen: &Sighting, at: Timestamp) {
        let count = |states: &mut [u64; STATES.len()]| {
            for (state, count) in STATES.iter().zip(states) {
                *count += u64::from(*state == seen.state);
            }
        };
        count(&mut self.states);
        let minute = at.as_micros().div_euclid(MINUTE_MICROS);
        if let Some((_, states)) = self.recent.iter_mut().find(|(known, _)| *known == minute) {
            count(states);
        } else {
            let latest = self.recent.iter().map(|(known, _)| *known).fold(minute, i64::max);
            self.recent.retain(|(known, _)| *known > latest - MINUTES);
            let mut states = [0; STATES.len()];
            count(&mut states);
            self.recent.push((minute, states));
        }
        // What has no `max_age` is as old as the decision.
        let observed_at = seen.observed_at.filter(|_| contract.max_age.is_some());
        let Some(age) = observed_at.map(|observed_at| at.since(observed_at).as_micros()) else { return };
        for (most, count) in AGES.iter().zip(&mut self.ages) {
            *count += u64::from(age <= most * TENTH_MICROS);
        }
        self.age_count += 1;
        self.age_micros += i128::from(age);
    }

    fn to_json(&self, now: Timestamp) -> Map<String, Json> {
        let minute = now.as_micros().div_euclid(MINUTE_MICROS);
        let mut recent = [0; STATES.len()];
        for (_, states) in self.recent.iter().filter(|(known, _)| (minute - MINUTES + 1..=minute).contains(known)) {
            recent.iter_mut().zip(states).for_each(|(sum, count)| *sum += count);
        }
        let by_state = |counts: &[u64; STATES.len()]| -> Json {
            STATES.iter().zip(counts).map(|(state, count)| (state.as_str().to_owned(), Json::from(*count))).collect()
        };
        let fields = [
            ("states", by_state(&self.states)),
            ("recent", by_state(&recent)),
            ("age_buckets", AGES.iter().zip(&self.ages).map(|(most, count)| json!([tenths(*most), count])).collect()),
            ("age_count", self.age_count.into()),
            ("age_sum", seconds(self.age_micros).into()),
            ("rejected", by_code(&self.rejected)),
        ];
        fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

fn by_code(counts: &BTreeMap<RefusalReason, u64>) -> Json {
    counts.iter().map(|(reason, count)| (reason.code().to_owned(), Json::from(*count))).collect()
}

fn tenths(tenths: i64) -> Json {
    if tenths % 10 == 0 { (tenths / 10).into() } else { seconds(i128::from(tenths * TENTH_MICROS)).into() }
}

#[expect(clippy::cast_precision_loss, reason = "a sum for averages")]
fn seconds(micros: i128) -> f64 {
    micros as f64 / 1e6
}
