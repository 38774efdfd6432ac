//! The running core: the configuration in force behind an atomic swap, live state, the ring, counters, and the
//! high-water mark of time. `apply` and `swap` change it; beside them only what `check` does itself.
//!
//! `tasks.rs`, `approvals.rs`, `overrides.rs` and `asked.rs` hold what the admin door asks for, `log.rs` what the log does,
//! `set_back.rs` what becomes of it when time runs back.

mod approvals;
mod asked;
mod log;
mod offline;
mod overrides;
mod set_back;
mod tasks;
mod time_mark;

pub use approvals::Answered;
pub use asked::Told;
pub use log::Batch;
pub use offline::Rehearsed;
pub use tasks::{Asking, Proposal};

use crate::{
    approvals::Approvals,
    change::{self, AuthorityMoved, Change, PublisherSwitched, StreamEvent, StreamMoved},
    check::{self, Checked, Ground, Outcome, Pending},
    error::Error,
    identity::{IdentityRefused, Proofs, Validated},
    limits,
    measures::Measures,
    model::{FeedKind, FeedName, Fingerprint, Origin, SignalName, SpiffeId, Timestamp},
    reason::Reason,
    record::{DecisionId, id::RANDOM_BYTES, ring::Ring},
    signals::{Admission, Listing, RefusalReason, Store, judge, judge_next},
    snapshot::{Running, Snapshot},
    tally::Tally,
    tasks::Tasks,
};
use arc_swap::ArcSwapOption;
use serde_json::{Value as Json, json};
use set_back::SetBacks;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use time_mark::TimeMark;

/// How an engine is made.
pub struct Options {
    /// Where records are accepted.
    pub ring: Ring,
    /// Whether alike denials of one batch become one line.
    pub fold_denials: bool,
    /// Seed of the store's hashing; random bits from outside.
    pub seed: u64,
    /// Values that may be live before new subjects are refused.
    pub max_live: usize,
}

/// The core as a server holds it. Every method may be called from any thread.
pub struct Engine {
    running: ArcSwapOption<Running>,
    store: Store,
    proofs: Proofs,
    tasks: Tasks,
    approvals: Approvals,
    ring: Ring,
    fold_denials: bool,
    mark: TimeMark,
    set_backs: SetBacks,
    closed: AtomicBool,
    counts: Counts,
    tally: Tally,
    measures: Measures,
    seed: u64,
}

struct Counts {
    decisions: Vec<AtomicU64>,
    rejected: Vec<AtomicU64>,
    accepted: AtomicU64,
    unenforced: AtomicU64,
    panics: AtomicU64,
    folded: AtomicU64,
}

impl Engine {
    /// An engine without configuration: it answers `not_ready` until `swap`.
    pub fn new(options: Options) -> Self {
        Self {
            running: ArcSwapOption::empty(),
            store: Store::with_capacity(options.seed, options.max_live),
            proofs: Proofs::new(options.seed),
            tasks: Tasks::default(),
            approvals: Approvals::default(),
            ring: options.ring,
            fold_denials: options.fold_denials,
            seed: options.seed,
            tally: Tally::default(),
            measures: Measures::default(),
            mark: TimeMark::default(),
            set_backs: SetBacks::default(),
            closed: AtomicBool::new(false),
            counts: Counts {
                decisions: Reason::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
                rejected: RefusalReason::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
                accepted: AtomicU64::new(0),
                unenforced: AtomicU64::new(0),
                panics: AtomicU64::new(0),
                folded: AtomicU64::new(0),
            },
        }
    }

    /// Puts a configuration in force, at once and whole. Decisions under way end with the one they began with.
    pub fn swap(&self, snapshot: Arc<Snapshot>) {
        let before = self.running.load();
        let running = Running::new(snapshot, &self.store, before.as_deref(), self.seed);
        self.tally.keep(&running.snapshot.register);
        self.measures.keep(&running.snapshot);
        self.running.store(Some(Arc::new(running)));
    }

    /// The configuration in force.
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.running.load().as_ref().map(|running| Arc::clone(&running.snapshot))
    }

    /// From now on `check` answers `not_ready`.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// A first look at one serialised `CheckRequest`: its answer, after its record was accepted, or the tokens that have
    /// to be validated before `check`. Total.
    /// `ticks`: nanoseconds of a stopwatch; `random`: fresh random bits for the decision's id.
    pub fn look(&self, bytes: &[u8], now: Timestamp, random: [u8; RANDOM_BYTES], ticks: &dyn Fn() -> u64) -> Look {
        match self.decided(bytes, None, now, random, ticks) {
            (Outcome::Decided(checked), _) => self.answered(checked),
            (Outcome::Pending(pending), _) => Look::Pending(pending),
        }
    }

    /// The answer at once, unless something must be kept before.
    fn answered(&self, checked: Checked) -> Look {
        if checked.keeping().changes.is_empty() {
            Look::Answer(self.release(checked))
        } else {
            Look::Held(Box::new(checked))
        }
    }

    /// Ends a decision that was held: its answer, and what must still be kept.
    pub fn finish(&self, held: Checked, kept: bool) -> (Vec<u8>, Option<Change>) {
        let (released, undo) = held.conclude(&self.ring, &self.approvals, kept);
        self.count(released.reason, released.enforced);
        (released.answer, undo)
    }

    /// Decides one serialised `CheckRequest`: its answer, after its record was accepted, or what must be kept before. Total: a token that was neither
    /// seen before nor refused here denies.
    pub fn check(
        &self,
        bytes: &[u8],
        validated: &Validated,
        now: Timestamp,
        random: [u8; RANDOM_BYTES],
        ticks: &dyn Fn() -> u64,
    ) -> Look {
        let (outcome, id) = self.decided(bytes, Some(validated), now, random, ticks);
        self.answered(finished(outcome, id, now))
    }

    fn decided(
        &self,
        bytes: &[u8],
        validated: Option<&Validated>,
        now: Timestamp,
        random: [u8; RANDOM_BYTES],
        ticks: &dyn Fn() -> u64,
    ) -> (Outcome, DecisionId) {
        let now = self.mark.advance(now, ticks());
        let id = DecisionId::new(now, random);
        // INVARIANT I5: a panic is a deny with a record. State that a decision touches is never half changed.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.checked(bytes, validated, now, id, ticks)));
        let outcome = outcome.unwrap_or_else(|_| {
            self.counts.panics.fetch_add(1, Ordering::Relaxed);
            Outcome::Decided(check::panicked(bytes, self.snapshot(), id, now))
        });
        (outcome, id)
    }

    fn release(&self, checked: Checked) -> Vec<u8> {
        let released = checked.release(&self.ring);
        self.count(released.reason, released.enforced);
        released.answer
    }

    fn count(&self, reason: Reason, is_enforced: bool) {
        bump(&self.counts.decisions, Reason::ALL.iter().position(|r| *r == reason));
        if !is_enforced {
            self.counts.unenforced.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn checked(
        &self,
        bytes: &[u8],
        validated: Option<&Validated>,
        now: Timestamp,
        id: DecisionId,
        ticks: &dyn Fn() -> u64,
    ) -> Outcome {
        let not_ready = |why| Outcome::Decided(check::refused(Reason::NotReady, why, id, now));
        if self.closed.load(Ordering::Acquire) {
            return not_ready("the server is stopping");
        }
        match &*self.running.load() {
            Some(running) => check::check(&self.ground(running, validated, now, id, ticks), bytes),
            None => not_ready("no configuration is loaded"),
        }
    }

    /// All that a decision stands on.
    fn ground<'a>(
        &'a self,
        running: &'a Running,
        validated: Option<&'a Validated>,
        now: Timestamp,
        id: DecisionId,
        ticks: &'a dyn Fn() -> u64,
    ) -> Ground<'a> {
        let Self { store, proofs, tasks, approvals, .. } = self;
        Ground { running, store, proofs, tasks, approvals, validated, now, id, ticks }
    }

    /// The change that revokes what a caller names: what is issued later counts again, but for a digest or an id.
    pub fn revoke(&self, what: &Revoking<'_>, now: Timestamp) -> Result<Change, Error> {
        let Revoking { digest, token_id, subject, issuer, issued_before } = *what;
        let now = self.mark.at_least(now);
        match change::revocation(digest, token_id, subject, issuer, issued_before, now)? {
            Change::Revoked(_) if !self.proofs.may_revoke() => Err(Error::BadInput(format!(
                "{} revocations are in force: use `issued_before` with an issuer or a subject in place of many",
                limits::MAX_REVOCATIONS
            ))),
            Change::Revoked(revoked) => Ok(Change::Revoked(self.proofs.never_earlier(revoked))),
            other => Ok(other),
        }
    }

    /// What is revoked.
    pub fn revocations(&self, most: usize) -> Json {
        self.proofs.revocations(most)
    }

    /// Admits the evidence of validated tokens, each one JSON object.
    pub fn admit_proofs<'b>(&self, payloads: impl IntoIterator<Item = &'b [u8]>) -> Result<(), Error> {
        for payload in payloads {
            self.proofs.apply(Change::ProofAdmitted(Box::new(change::read_proof(payload)?)));
        }
        Ok(())
    }

    /// Puts the state of an authority in place, whole; true if that changes anything.
    pub fn set_authority(&self, name: &str, members: Vec<String>) -> bool {
        self.proofs.set_authority(&AuthorityMoved { name: name.to_owned(), members })
    }

    /// The authorities and the count of their members, as JSON.
    pub fn authorities(&self) -> Json {
        self.proofs
            .authorities()
            .into_iter()
            .map(|(name, members)| json!({"authority": name, "members": members}))
            .collect()
    }

    /// Whether a token counts that was validated for another door than that of checks: the same look as a check takes,
    /// at evidence that is not kept. Its principal, or why not.
    pub fn prove(
        &self,
        proof: &[u8],
        certificate: Option<Fingerprint>,
        now: Timestamp,
    ) -> Result<Result<SpiffeId, IdentityRefused>, Error> {
        let proof = change::read_proof(proof)?;
        let unready = || IdentityRefused { reason: Reason::NotReady, detail: "no configuration is loaded".to_owned() };
        let proven = |snapshot: Arc<Snapshot>| {
            snapshot.identity.proven(&proof, &self.proofs, certificate, self.mark.at_least(now))
        };
        Ok(self.snapshot().map_or_else(|| Err(unready()), proven))
    }

    /// Whether a certificate that was verified at another door is revoked.
    pub fn is_certificate_revoked(&self, subject: &SpiffeId, digest: Fingerprint, issued_at: Timestamp) -> bool {
        self.proofs.is_certificate_revoked(subject, digest, issued_at)
    }

    /// Judges the body of one call; changes nothing but counters.
    pub fn admit(&self, body: &[u8], origin: &Origin, now: Timestamp) -> Result<Admission, Error> {
        self.admit_next(body, origin, &mut judge::Pending::new(), now)
    }

    /// Judges calls that are to be kept together: each sees what those before it bring. One that can't be read is
    /// its own mistake.
    pub fn admit_all<'b>(
        &self,
        batches: impl IntoIterator<Item = (&'b [u8], &'b Origin)>,
        now: Timestamp,
    ) -> Vec<Result<Admission, Error>> {
        let mut pending = judge::Pending::new();
        batches.into_iter().map(|(body, origin)| self.admit_next(body, origin, &mut pending, now)).collect()
    }

    fn admit_next(
        &self,
        body: &[u8],
        origin: &Origin,
        pending: &mut judge::Pending,
        now: Timestamp,
    ) -> Result<Admission, Error> {
        let Some(snapshot) = self.snapshot() else {
            return Err(Error::BadInput("no configuration is loaded".to_owned()));
        };
        let mut admission =
            judge_next(body, origin, &snapshot.register, &self.store, pending, self.mark.at_least(now))?;
        self.follow_workflows(&snapshot, &mut admission);
        self.tally.judged(origin, &admission, now);
        self.counts.accepted.fetch_add(admission.accepted as u64, Ordering::Relaxed);
        for (_, refusal) in &admission.rejected {
            bump(&self.counts.rejected, RefusalReason::ALL.iter().position(|r| *r == refusal.reason));
        }
        Ok(admission)
    }

    /// The change that switches an origin, or one of its signals, on or off.
    pub fn switch_publisher(
        &self,
        origin: &str,
        signal: Option<&str>,
        enabled: bool,
        now: Timestamp,
    ) -> Result<Change, Error> {
        let bad = |what: &str, text: &str| Error::BadInput(format!("{what}, found `{text}`"));
        let signal = signal
            .map(|name| SignalName::parse(name).ok_or_else(|| bad("`signal`: expected the name of a signal", name)));
        Ok(Change::PublisherSwitched(PublisherSwitched {
            origin: Origin::parse(origin)
                .map_err(|_| bad("`id`: expected a SPIFFE ID, `poll:NAME` or `ssf:NAME`", origin))?,
            signal: signal.transpose()?,
            enabled,
            at: self.mark.at_least(now),
        }))
    }

    /// The change that says something new of a stream of events. What lies ahead of our clock counts as now.
    pub fn move_stream(
        &self,
        feed: &str,
        event: &str,
        at: Timestamp,
        detail: &str,
        now: Timestamp,
    ) -> Result<Change, Error> {
        let feed = FeedName::parse(feed)
            .ok_or_else(|| Error::BadInput(format!("expected the name of a feed, found `{feed}`")))?;
        let event =
            StreamEvent::parse(event).ok_or_else(|| Error::BadInput(format!("a stream has no event `{event}`")))?;
        let at = at.min(self.mark.at_least(now));
        Ok(Change::StreamMoved(StreamMoved { feed, event, at, detail: detail.to_owned() }))
    }

    /// The streams of the configuration in force, and how they are.
    pub fn feeds(&self) -> Json {
        let Some(snapshot) = self.snapshot() else { return json!([]) };
        let vouched = self.store.vouching().load();
        let streams = snapshot.register.feeds().iter().filter(|feed| feed.kind == FeedKind::Ssf);
        streams
            .map(|feed| {
                let stream = vouched.stream(&feed.name).cloned().unwrap_or_default();
                let in_sync = stream.in_sync_since.is_some();
                let why = stream.suspended.as_deref().unwrap_or("nobody has vouched for it yet");
                json!({
                    "feed": feed.name.as_str(),
                    "kind": feed.kind.as_str(),
                    "verified_at": stream.verified_at.map(Timestamp::to_rfc3339),
                    "in_sync": in_sync,
                    "in_sync_since": stream.in_sync_since.map(Timestamp::to_rfc3339),
                    "suspended": (!in_sync).then_some(why),
                })
            })
            .collect()
    }

    /// What is switched off: an origin, and a signal of it or all.
    pub fn switched_off(&self) -> Vec<(String, Option<String>)> {
        let vouched = self.store.vouching().load();
        vouched.switched_off().map(|(origin, signal)| (origin.to_string(), signal.map(ToString::to_string))).collect()
    }

    /// Takes kept changes in, in order. What can't be read is left out and told at the end.
    pub fn apply(&self, payloads: &[Vec<u8>], now: Timestamp) -> Result<(), Error> {
        let mut first_error = None;
        // Before the first configuration nothing was decided: what comes then is read back.
        let is_new = self.running.load().is_some();
        for payload in payloads {
            match Change::from_payload(payload) {
                Ok(Change::TimeMark { at }) => self.mark.restore(at, now),
                Ok(Change::TimeSetBack { from, at }) => self.cut(from, at),
                Ok(change) => {
                    self.store.apply(&change);
                    if !self.tasks.apply(&change, is_new) && !self.approvals.apply(&change) {
                        self.proofs.apply(change);
                    }
                }
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    /// The high-water mark, having seen `now`, to be kept.
    pub fn time_mark(&self, now: Timestamp, ticks: u64) -> Change {
        self.mark.advance(now, ticks);
        Change::TimeMark { at: self.mark.reached(now) }
    }

    /// Live values for people; `None` without a configuration.
    pub fn signals(&self, subject: Option<&str>, limit: usize, now: Timestamp) -> Option<Listing> {
        let snapshot = self.snapshot()?;
        Some(self.store.list(&snapshot.register, subject, limit, self.mark.at_least(now)))
    }

    /// What decisions saw of each registered signal, as JSON; with `scan` also what the store holds of it, which takes
    /// a look at every live value.
    pub fn signal_stats(&self, now: Timestamp, scan: bool) -> Json {
        let running = self.running.load();
        let Some(running) = &*running else { return json!({"signals": []}) };
        let census = scan.then(|| self.store.census(&running.cells));
        self.tally.signals(&running.snapshot.register, census.as_deref(), self.mark.at_least(now))
    }

    /// Decisions by route, action and reason, and how long their stages took, as JSON; of those that were drained.
    pub fn measures(&self) -> Json {
        self.measures.to_json()
    }

    /// Who sent values, what became of them, and what is switched off, as JSON.
    pub fn publishers(&self) -> Json {
        self.tally.publishers(&self.switched_off())
    }

    /// Counts since the start, by name; gauges `live_signals` and `log_queued`.
    pub fn counters(&self) -> Vec<(String, u64)> {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let mut all: Vec<(String, u64)> = Reason::ALL
            .iter()
            .zip(&self.counts.decisions)
            .map(|(reason, count)| (format!("decisions_{}", reason.code()), get(count)))
            .collect();
        let rejected = RefusalReason::ALL.iter().zip(&self.counts.rejected);
        all.extend(rejected.map(|(reason, count)| (format!("signals_rejected_{}", reason.code()), get(count))));
        all.push(("signals_accepted".to_owned(), get(&self.counts.accepted)));
        all.push(("unenforced".to_owned(), get(&self.counts.unenforced)));
        all.push(("panics".to_owned(), get(&self.counts.panics) + self.ring.panics()));
        all.push(("log_folded".to_owned(), get(&self.counts.folded)));
        all.push(("log_refused".to_owned(), self.ring.refused()));
        all.push(("log_ring_used_bytes".to_owned(), self.ring.used()));
        all.push(("log_queued".to_owned(), self.ring.len() as u64));
        all.push(("live_signals".to_owned(), self.store.live() as u64));
        all.push(("proofs".to_owned(), self.proofs.count() as u64));
        all.push(("tasks".to_owned(), self.tasks.count() as u64));
        all.push(("approvals".to_owned(), self.approvals.count() as u64));
        all
    }
}

/// What `Engine::look` found.
#[derive(Debug)]
pub enum Look {
    /// The `CheckResponse`.
    Answer(Vec<u8>),
    /// Tokens to validate first.
    Pending(Pending),
    /// Something must be kept before the answer leaves: see `Engine::finish`.
    Held(Box<Checked>),
}

impl Look {
    /// The `CheckResponse`, where nothing has to be done before it leaves.
    pub fn answer(self) -> Option<Vec<u8>> {
        match self {
            Self::Answer(answer) => Some(answer),
            Self::Pending(_) | Self::Held(_) => None,
        }
    }
}

/// What is to be revoked, as callers write it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Revoking<'a> {
    /// Hex SHA-256 of a token or a certificate.
    pub digest: Option<&'a str>,
    /// `jti`.
    pub token_id: Option<&'a str>,
    /// A SPIFFE ID or `sub`: whatever of it was issued up to `issued_before`, or now.
    pub subject: Option<&'a str>,
    /// An issuer or a trust domain.
    pub issuer: Option<&'a str>,
    /// Up to when.
    pub issued_before: Option<Timestamp>,
}

/// INVARIANT: after validation nothing is pending any more; if it were, it denies.
fn finished(outcome: Outcome, id: DecisionId, now: Timestamp) -> Checked {
    match outcome {
        Outcome::Decided(checked) => checked,
        Outcome::Pending(_) => check::refused(Reason::TokenInvalid, "the token was not validated", id, now),
    }
}

fn bump(counts: &[AtomicU64], at: Option<usize>) {
    if let Some(count) = at.and_then(|at| counts.get(at)) {
        count.fetch_add(1, Ordering::Relaxed);
    }
}
