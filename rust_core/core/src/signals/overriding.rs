//! Overrides: what two people may say in place of a signal that is not available (break-glass), and where their word
//! takes its place.

use super::contract::{Contract, LogSensitivity};
use super::judge::shortened;
use super::register::Register;
use super::store::{Cells, Reading, Store};
use crate::change::Change;
use crate::error::Error;
use crate::findings::did_you_mean;
use crate::limits;
use crate::model::names::SubjectKind;
use crate::model::overridden::StandIn;
use crate::model::{Assurance, Fact, Overridden, Span, SpiffeId, State, Subject, Timestamp};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use std::borrow::Borrow;
use std::sync::Arc;

/// What the settings say of overrides.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverrideSettings {
    max_ttl_us: i64,
}

impl Default for OverrideSettings {
    fn default() -> Self {
        Self { max_ttl_us: limits::DEFAULT_OVERRIDE_MICROS }
    }
}

/// What two people want to say.
#[derive(Clone, Copy, Debug)]
pub struct Overriding<'a> {
    /// Name of the signal.
    pub name: &'a str,
    /// Whom it is about: one subject.
    pub subject: &'a str,
    /// JSON of what it is taken to say.
    pub value: &'a [u8],
    /// Why.
    pub reason: &'a str,
    /// Who.
    pub by: [&'a SpiffeId; 2],
    /// For how long.
    pub ttl: Span,
}

impl Overriding<'_> {
    /// The change that says so; every bound is looked at here.
    pub fn judge(
        &self,
        register: &Register,
        settings: &OverrideSettings,
        store: &Store,
        now: Timestamp,
    ) -> Result<Change, Error> {
        let contract = register.find(self.name).ok_or_else(|| {
            let hint = did_you_mean(self.name, register.contracts().iter().map(|contract| contract.name.as_str()));
            bad(format!("no signal `{}` is registered{hint}", shortened(self.name)))
        })?;
        if contract.subject == SubjectKind::Request {
            return Err(bad(format!("`{}` comes with each request, nobody can say it in its place", contract.name)));
        }
        if contract.is_self_asserted() {
            return Err(bad(format!(
                "`{}` is what callers say of themselves: its absence is their choice, and no feed is down",
                contract.name
            )));
        }
        let subject = self.subject(contract)?;
        let [first, second] = self.by;
        if first == second {
            return Err(bad(format!("an override takes two distinct clients, found `{first}` twice")));
        }
        // INVARIANT I3: what one says of itself widens nothing.
        if let Some(own) = self.by.iter().find(|client| client.as_str() == &*subject.id) {
            return Err(bad(format!("the signal is about `{own}` itself: two others must say it")));
        }
        let letters = self.reason.chars().count();
        if !(1..=limits::MAX_OVERRIDE_REASON_LETTERS).contains(&letters)
            || self.reason.trim().is_empty()
            || self.reason.chars().any(char::is_control)
        {
            return Err(bad(format!(
                "`reason`: expected a sentence of 1 to {} letters, found {letters}",
                limits::MAX_OVERRIDE_REASON_LETTERS
            )));
        }
        let ttl = self.ttl.as_micros();
        if !(limits::MIN_TTL_MICROS..=settings.max_ttl_us).contains(&ttl) {
            return Err(bad(format!(
                "`ttl`: expected 1 to {} seconds (`overrides: {{max_ttl}}`), found {} ms",
                settings.max_ttl_us / 1_000_000,
                self.ttl.as_millis()
            )));
        }
        let others = |word: &&Arc<Overridden>| (&word.name, &word.subject) != (&contract.name, &subject);
        if store.vouching().load().overrides(now).filter(others).count() >= limits::MAX_OVERRIDES {
            return Err(bad(format!("{} overrides are in force: no more are held", limits::MAX_OVERRIDES)));
        }
        Ok(Change::SignalOverridden(Box::new(Overridden {
            name: contract.name.clone(),
            subject,
            value: self.value(contract)?,
            reason: self.reason.into(),
            by: self.by.map(SpiffeId::shared),
            at: now,
            expires_at: now.plus(self.ttl),
        })))
    }

    fn subject(&self, contract: &Contract) -> Result<Subject, Error> {
        Subject::parse(contract.subject, self.subject).ok_or_else(|| {
            let kind = contract.subject.as_str();
            bad(format!("`subject`: expected a subject of kind `{kind}`, found `{}`", shortened(self.subject)))
        })
    }

    // What was sent is never repeated: it may be secret.
    fn value(&self, contract: &Contract) -> Result<crate::model::Value, Error> {
        let read = (self.value.len() <= limits::MAX_SIGNAL_VALUE_BYTES)
            .then(|| serde_json::from_slice::<Json>(self.value).ok())
            .flatten()
            .and_then(|json| contract.kind.read_json(&json));
        read.ok_or_else(|| bad(format!("`value`: expected a value of type `{}`", contract.kind)))
    }
}

fn bad(sentence: String) -> Error {
    Error::BadInput(sentence)
}

/// Puts two people's word in the place of what is not available.
// INVARIANT I2: the one exception that is made while the core runs. It takes two, it ends by itself, the record shows
// it, and a fresh value always wins. Self-asserted signals have none: their absence is the caller's choice.
pub(super) fn stand_in<C: Borrow<Cells>>(reading: &Reading<'_>, cells: &[C], facts: &mut [Fact]) {
    let Reading { vouched, now, .. } = *reading;
    if !vouched.has_overrides() {
        return;
    }
    for (cells, fact) in cells.iter().map(Borrow::borrow).zip(facts) {
        let contract = cells.contract();
        if fact.state == State::Fresh || contract.subject == SubjectKind::Request || contract.is_self_asserted() {
            continue;
        }
        // What the request has no subject for, nobody can speak of.
        let Some(subject) = &fact.subject else { continue };
        let word = vouched.overridden(&contract.name, subject, now);
        // A contract may have changed its type since.
        let Some(word) = word.filter(|word| contract.kind.admits(&word.value)) else { continue };
        // INVARIANT I3: an author that is decided upon, or part of the chain, speaks for itself. Its word withdrawn, the
        // signal is as it was.
        let mut us = reading.principal.iter().copied().chain(reading.chain);
        let self_published = us.any(|of_us| word.by.iter().any(|by| **by == *of_us.as_str()));
        let (was, assurance) = (fact.state, fact.assurance);
        *fact = Fact {
            state: State::Fresh,
            value: Some(word.value.clone()),
            observed_at: Some(word.at),
            source: Some("override".into()),
            self_published,
            without_own: self_published.then(|| Box::new((was, None))),
            overridden: Some(StandIn { word: Arc::clone(word), was, assurance }),
            ..Fact::missing(fact.subject.take(), Assurance::Sourced)
        };
    }
}

/// The overrides in force, as JSON; a secret signal's value is null.
pub fn list(store: &Store, register: Option<&Register>, now: Timestamp) -> Json {
    let vouched = store.vouching().load();
    let entries = vouched.overrides(now).map(|word| {
        // Of a signal that is not registered (any more) nobody knows whether it is secret.
        let contract = register.and_then(|register| register.find(word.name.as_str()));
        let shown = contract.is_some_and(|contract| contract.log != LogSensitivity::Secret);
        json!({
            "name": word.name.as_str(),
            "subject": &*word.subject.id,
            "value": shown.then(|| word.value.to_json()),
            "reason": &*word.reason,
            "by": [&*word.by[0], &*word.by[1]],
            "at": word.at.to_rfc3339(),
            "expires_at": word.expires_at.to_rfc3339(),
        })
    });
    json!({"overrides": entries.collect::<Vec<_>>()})
}
