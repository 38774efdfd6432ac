//! What would have been, had a signal been lost, grown old, or said something else: changes that are made to the facts of a
//! recorded decision before it is decided again.

use super::{
    Unknowable,
    facts::{About, is_of_the_directory},
};
use crate::{
    error::Error,
    findings::did_you_mean,
    limits,
    model::{Fact, State, Subject, Value},
    signals::{
        Contract, Flow, Register,
        merge::{Part, merge},
    },
};
use serde::Deserialize;
use serde_json::Value as Json;
use std::sync::Arc;

/// Changes to signals, each by its name.
#[derive(Debug, Default)]
pub struct Changes(Vec<Change>);

/// One of them.
#[derive(Debug)]
pub(super) struct Change {
    contract: Arc<Contract>,
    /// `None`: whomever the signal is about.
    subject: Option<Subject>,
    to: To,
}

/// What becomes of the signal.
#[derive(Debug)]
enum To {
    /// No source of it says anything.
    Lost,
    /// What is fresh is too old.
    Stale,
    /// Every source of it says this, now.
    Says(Value),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    subject: Option<String>,
    drop: Option<bool>,
    state: Option<String>,
    value: Option<Json>,
}

impl Changes {
    /// Reads a JSON list of `{"name", "subject"?, "drop": true | "state": "stale" | "value": …}`. One sentence on what is
    /// wrong, which never repeats a value.
    pub fn read(json: &[u8], register: &Register) -> Result<Self, Error> {
        let bad = |sentence: String| Error::BadInput(sentence);
        if json.len() > limits::MAX_PUBLISH_BYTES {
            return Err(bad(format!("the changes: expected at most {} bytes", limits::MAX_PUBLISH_BYTES)));
        }
        let entries: Vec<Json> = serde_json::from_slice(json)
            .map_err(|_| bad("the changes: expected a json list of changes to signals".to_owned()))?;
        if entries.len() > limits::MAX_CHANGES {
            return Err(bad(format!("the changes: expected at most {}, found {}", limits::MAX_CHANGES, entries.len())));
        }
        let mut all: Vec<Change> = Vec::with_capacity(entries.len());
        for (at, entry) in entries.into_iter().enumerate() {
            let change = change(entry, register).map_err(|why| bad(format!("changes[{at}]: {why}")))?;
            if all.iter().any(|other| other.contract.name == change.contract.name && other.subject == change.subject) {
                return Err(bad(format!("changes[{at}]: `{}` is changed twice", change.contract.name)));
            }
            all.push(change);
        }
        Ok(Self(all))
    }

    /// Whether nothing is changed.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is changed of a signal of this subject; what names the subject goes first.
    pub(super) fn of(&self, contract: &Contract, subject: Option<&Subject>) -> Option<&Change> {
        let of_it = || self.0.iter().filter(|change| change.contract.name == contract.name);
        of_it()
            .find(|change| change.subject.is_some() && change.subject.as_ref() == subject)
            .or_else(|| of_it().find(|change| change.subject.is_none()))
    }
}

fn change(entry: Json, register: &Register) -> Result<Change, String> {
    const FORM: &str =
        "expected an object with `name`, perhaps `subject`, and one of `drop: true`, `state: \"stale\"` and `value`";
    let has_value = entry.get("value").is_some();
    let Entry { name, subject, drop, state, value } = serde_json::from_value(entry).map_err(|_| FORM.to_owned())?;
    let contract = register.find(&name).ok_or_else(|| {
        let hint = did_you_mean(&name, register.contracts().iter().map(|contract| contract.name.as_str()));
        let shown: String = name.chars().take(MAX_SHOWN).collect();
        format!("no signal `{shown}` is registered{hint}")
    })?;
    let to = match (drop, state.as_deref(), has_value) {
        (Some(true), None, false) => To::Lost,
        (None, Some("stale"), false) => To::Stale,
        (None, None, true) => {
            let read = value.as_ref().and_then(|value| contract.kind.read_json(value));
            To::Says(read.ok_or_else(|| format!("`{name}`: expected a value of type `{}`", contract.kind))?)
        }
        _ => return Err(FORM.to_owned()),
    };
    if is_of_the_directory(contract) {
        return Err(format!("`{name}` is what the directory itself says: change the directory, and replay against it"));
    }
    if matches!(to, To::Stale) && contract.max_age.is_none() {
        return Err(format!("`{name}` comes with each request, so it is never stale: drop it"));
    }
    let subject = subject.map(|text| {
        let kind = contract.subject.as_str();
        Subject::parse(contract.subject, &text).ok_or_else(|| format!("`subject`: expected a subject of kind `{kind}`"))
    });
    Ok(Change { contract: Arc::clone(contract), subject: subject.transpose()?, to })
}

/// What of an outsider's text an error repeats.
const MAX_SHOWN: usize = 80;

impl Change {
    /// The fact with the change made to it. `known`: the fact as the record has it.
    pub(super) fn apply(
        &self,
        contract: &Contract,
        about: &About<'_>,
        subject: Option<Subject>,
        known: Result<Fact, Unknowable>,
    ) -> Result<Fact, Unknowable> {
        // Two people's word stands in for what a source does not say: losing the source takes nothing from it.
        let stands_in = known.as_ref().is_ok_and(|fact| fact.overridden.is_some());
        match &self.to {
            To::Lost | To::Stale if stands_in => known,
            To::Lost => Ok(Fact::missing(subject, contract.assurance())),
            To::Stale => Ok(match known {
                Ok(fact) if fact.state == State::Fresh => Fact { state: State::Stale, without_own: None, ..fact },
                Ok(fact) => fact,
                Err(_) => Fact { state: State::Stale, ..Fact::missing(subject, contract.assurance()) },
            }),
            // Nobody can speak of what the request has no subject for.
            To::Says(_) if subject.is_none() => known,
            To::Says(value) => Ok(said_by_all(contract, about, subject, value)),
        }
    }
}

/// The fact, were every source to say this now.
pub(super) fn said_by_all(contract: &Contract, about: &About<'_>, subject: Option<Subject>, value: &Value) -> Fact {
    let us = about.us();
    let parts = contract.sources.iter().map(|source| Part {
        state: State::Fresh,
        value: Some(value.clone()),
        observed_at: (!matches!(source.flow, Flow::OnRequest(_))).then(|| about.now()),
        own: source.origin().is_some_and(|origin| us.iter().any(|of_us| origin.is(of_us))),
        assurance: source.assurance,
        label: Some(Arc::clone(&source.label)),
    });
    let mut parts: Vec<Part> = parts.collect();
    match parts.pop() {
        Some(part) if parts.is_empty() => part.into_fact(subject),
        last => {
            parts.extend(last);
            merge(contract, subject, &parts)
        }
    }
}
