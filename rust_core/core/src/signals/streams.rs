//! What vouches for stored values beside their own age: which streams of events are live and in sync, which origins
//! are switched off, what is known of every subject at once, and what two people
//! say in place of a signal. Rarely changed, read without a lock.

use super::store::Known;
use crate::change::{Published, PublisherSwitched, StreamEvent, StreamMoved};
use crate::locks::lock;
use crate::model::names::SubjectKind;
use crate::model::{FeedName, Origin, Overridden, SignalName, Subject, Timestamp};
use arc_swap::{ArcSwap, Guard};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// The current state, replaced as a whole by each change.
#[derive(Debug, Default)]
pub struct Vouching {
    now: ArcSwap<Vouched>,
    /// One change at a time: each begins with what the one before left.
    writing: Mutex<()>,
}

/// One consistent state.
#[derive(Clone, Debug, Default)]
pub struct Vouched {
    streams: BTreeMap<FeedName, Stream>,
    switches: BTreeMap<(Origin, Option<SignalName>), Switch>,
    everyone: BTreeMap<(SignalName, SubjectKind, Origin), Known>,
    overrides: BTreeMap<(SignalName, Subject), Arc<Overridden>>,
}

/// One stream of events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// When its transmitter was last heard, by its own clock.
    pub verified_at: Option<Timestamp>,
    /// Since when nothing was missed. An empty store has missed everything, so a new stream is not in sync until
    /// somebody vouches for it.
    pub in_sync_since: Option<Timestamp>,
    /// Why it is not in sync, if that was said.
    pub suspended: Option<Arc<str>>,
}

/// Whether an origin, or one of its signals, is switched on; since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Switch {
    on: bool,
    since: Timestamp,
}

impl Vouching {
    /// The state now.
    pub fn load(&self) -> Guard<Arc<Vouched>> {
        self.now.load()
    }

    fn change(&self, change: impl FnOnce(&mut Vouched)) {
        let _one = lock(&self.writing);
        let mut next = Vouched::clone(&self.now.load());
        change(&mut next);
        self.now.store(Arc::new(next));
    }

    pub(super) fn switch(&self, switched: &PublisherSwitched) {
        let key = (switched.origin.clone(), switched.signal.clone());
        let switch = Switch { on: switched.enabled, since: switched.at };
        self.change(|vouched| {
            vouched.switches.insert(key, switch);
        });
    }

    pub(super) fn moved(&self, moved: &StreamMoved) {
        self.change(|vouched| {
            let stream = vouched.streams.entry(moved.feed.clone()).or_default();
            match moved.event {
                StreamEvent::Verified => stream.verified_at = stream.verified_at.max(Some(moved.at)),
                StreamEvent::Suspended => {
                    stream.in_sync_since = None;
                    stream.suspended = Some(moved.detail.as_str().into());
                }
                StreamEvent::Resynchronised => {
                    stream.in_sync_since = Some(moved.at);
                    stream.suspended = None;
                }
            }
        });
    }

    pub(super) fn take_word(&self, word: &Overridden) {
        let key = (word.name.clone(), word.subject.clone());
        self.change(|vouched| {
            vouched.overrides.insert(key, Arc::new(word.clone()));
        });
    }

    /// Ends all overrides, since the clock was set back; until when the last of them would have counted.
    pub(crate) fn cut(&self, at: Timestamp) -> Option<Timestamp> {
        let until = self.now.load().overrides.values().map(|word| word.expires_at).max()?;
        self.change(|vouched| {
            for word in vouched.overrides.values_mut() {
                let expires_at = word.expires_at.min(at);
                *word = Arc::new(Overridden { expires_at, ..Overridden::clone(word) });
            }
        });
        Some(until)
    }

    /// Keys of what has ended. Time never runs backwards here: it has ended for good.
    pub(crate) fn expired(&self, most: usize, now: Timestamp) -> Vec<String> {
        let vouched = self.now.load();
        let ended = vouched.overrides.values().filter(|word| !word.is_live(now));
        ended.take(most).map(|word| word.key()).collect()
    }

    /// Lets go of the overrides that these keys name, once they are gone from where they were kept.
    pub(crate) fn forget(&self, keys: &[String]) {
        let named = |word: &Overridden| keys.contains(&word.key());
        if self.now.load().overrides.values().any(|word| named(word)) {
            self.change(|vouched| vouched.overrides.retain(|_, word| !named(word)));
        }
    }

    pub(super) fn hear(&self, published: &Published) {
        let key = (published.name.clone(), published.subject.kind, published.origin.clone());
        self.change(|vouched| {
            let known = Known::after(vouched.everyone.remove(&key), published);
            vouched.everyone.insert(key, known);
        });
    }
}

impl Vouched {
    /// A stream's state, if anything is known of it.
    pub fn stream(&self, feed: &FeedName) -> Option<&Stream> {
        self.streams.get(feed)
    }

    /// Every stream of which something is known.
    pub fn streams(&self) -> impl Iterator<Item = (&FeedName, &Stream)> {
        self.streams.iter()
    }

    /// Whether an origin may say values of a signal.
    pub fn is_off(&self, origin: &Origin, signal: &SignalName) -> bool {
        self.relevant(origin, signal).any(|switch| !switch.on)
    }

    /// Whether a value that an origin observed then is still good: not while it is switched off, and not if it is
    /// from before it was switched on again, since nobody knows what it was worth then.
    pub fn vouches(&self, origin: &Origin, signal: &SignalName, observed_at: Timestamp) -> bool {
        self.relevant(origin, signal).all(|switch| switch.on && observed_at >= switch.since)
    }

    fn relevant(&self, origin: &Origin, signal: &SignalName) -> impl Iterator<Item = &Switch> {
        let find = |signal: Option<SignalName>| self.switches.get(&(origin.clone(), signal));
        // Nothing was ever switched on nearly every machine: then no key is made.
        let any = !self.switches.is_empty();
        let whole = if any { find(None) } else { None };
        let one = if any { find(Some(signal.clone())) } else { None };
        whole.into_iter().chain(one)
    }

    /// What is switched off now: an origin, or one of its signals.
    pub fn switched_off(&self) -> impl Iterator<Item = (&Origin, Option<&SignalName>)> {
        self.switches.iter().filter(|(_, switch)| !switch.on).map(|((origin, signal), _)| (origin, signal.as_ref()))
    }

    /// Whether anybody's word stands in for a signal, or did until lately.
    pub(super) fn has_overrides(&self) -> bool {
        !self.overrides.is_empty()
    }

    /// The overrides in force.
    pub fn overrides(&self, now: Timestamp) -> impl Iterator<Item = &Arc<Overridden>> {
        self.overrides.values().filter(move |word| word.is_live(now))
    }

    /// The word that stands in for a signal of a subject.
    pub(super) fn overridden(&self, name: &SignalName, subject: &Subject, now: Timestamp) -> Option<&Arc<Overridden>> {
        self.overrides.get(&(name.clone(), subject.clone())).filter(|word| word.is_live(now))
    }

    /// What an origin said of every subject of a kind.
    pub fn of_everyone(&self, signal: &SignalName, kind: SubjectKind, origin: &Origin) -> Option<&Known> {
        if self.everyone.is_empty() {
            return None;
        }
        self.everyone.get(&(signal.clone(), kind, origin.clone()))
    }
}
