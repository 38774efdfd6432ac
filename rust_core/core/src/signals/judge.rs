//! Whether a published value is taken: the rules of the store (DESIGN section 5). Pure; `Store::apply` changes.

use super::contract::Contract;
use super::refusal::{Refusal, RefusalReason};
use super::register::Register;
use super::store::{Known, Store};
use crate::change::{Change, Published};
use crate::findings::did_you_mean;
use crate::limits;
use crate::model::names::{EVERYONE, SubjectKind};
use crate::model::{Origin, SignalName, Span, Subject, Timestamp};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::io;

/// One value as a publisher sent it.
#[derive(Clone, Debug, PartialEq)]
pub struct Publication {
    /// Name of the signal.
    pub name: String,
    /// Whom it is about, in the form of the contract's subject kind.
    pub subject: String,
    /// The value, as the contract's type has it in JSON.
    pub value: Json,
    /// When it was so.
    pub observed_at: Timestamp,
}

/// What was accepted earlier in a batch and is not applied yet: later entries of the batch see it.
#[derive(Debug, Default)]
pub struct Pending {
    known: BTreeMap<(SignalName, Subject, Origin), Known>,
    new: usize,
}

impl Pending {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Remembers what was accepted.
    pub fn note(&mut self, store: &Store, published: &Published) {
        let Published { name, subject, origin, .. } = published;
        let key = (name.clone(), subject.clone(), origin.clone());
        let before = self.known.get(&key).cloned().or_else(|| store.known(name, origin, subject));
        self.new += usize::from(before.is_none());
        self.known.insert(key, Known::after(before, published));
    }

    fn find(&self, store: &Store, name: &SignalName, origin: &Origin, subject: &Subject) -> Option<Known> {
        let pending = if self.known.is_empty() {
            None
        } else {
            self.known.get(&(name.clone(), subject.clone(), origin.clone())).cloned()
        };
        pending.or_else(|| store.known(name, origin, subject))
    }
}

impl Store {
    /// Judges one value. `None` if it is accepted and nothing changes, because it is known already.
    pub fn judge(
        &self,
        register: &Register,
        pending: &Pending,
        publication: &Publication,
        origin: &Origin,
        now: Timestamp,
    ) -> Result<Option<Change>, Refusal> {
        let contract = contract_of(register, &publication.name, origin)?;
        if self.vouching().load().is_off(origin, &contract.name) {
            let detail = format!("`{origin}` is switched off, as a whole or for `{}`", contract.name);
            return Err(Refusal::new(RefusalReason::PublisherDisabled, detail));
        }
        let subject = subject_of(contract, origin, &publication.subject)?;
        check_size(&publication.value)?;
        let value = contract.kind.read_json(&publication.value).ok_or_else(|| {
            let expected = format!("expected a value of type `{}`", contract.kind);
            Refusal::new(RefusalReason::WrongType, expected)
        })?;
        let observed_at = publication.observed_at;
        if observed_at > now.plus(Span::from_micros(limits::MAX_CLOCK_SKEW_MICROS)) {
            let detail = format!("`observed_at` {observed_at} is ahead of our clock, which says {now}");
            return Err(Refusal::new(RefusalReason::Future, detail));
        }
        let known = pending.find(self, &contract.name, origin, &subject);
        let disputes = match &known {
            None if self.live() + pending.new >= self.max_live() => {
                let detail = format!("{} values are live, no new subject is taken", self.max_live());
                return Err(Refusal::new(RefusalReason::TooMany, detail));
            }
            Some(known) if known.observed_at > observed_at => {
                let detail = format!("a value observed at {} is known already", known.observed_at);
                return Err(Refusal::new(RefusalReason::Older, detail));
            }
            // The same again, or one more voice in a dispute: accepted, and nothing new is known by it.
            Some(known) if known.observed_at == observed_at && (known.disputed || known.value == value) => {
                return Ok(None);
            }
            Some(known) => known.observed_at == observed_at,
            None => false,
        };
        Ok(Some(Change::SignalPublished(Published {
            name: contract.name.clone(),
            subject,
            origin: origin.clone(),
            value,
            observed_at,
            received_at: now,
            disputes,
        })))
    }
}

/// The contract that lets this origin say this.
fn contract_of<'a>(register: &'a Register, name: &str, origin: &Origin) -> Result<&'a Contract, Refusal> {
    let Some(contract) = register.find(name) else {
        let hint = did_you_mean(name, register.contracts().iter().map(|contract| contract.name.as_str()));
        let detail = format!("no signal `{}` is registered{hint}", shortened(name));
        return Err(Refusal::new(RefusalReason::UnknownSignal, detail));
    };
    if contract.is_fed_by(origin) {
        return Ok(contract);
    }
    let (reason, detail) = if contract.sources.iter().any(|source| source.origin().is_some()) {
        (RefusalReason::WrongPublisher, format!("`{origin}` is not a source that the contract of `{name}` names"))
    } else {
        (RefusalReason::NotPushed, format!("values of `{name}` come with the request, nobody publishes them"))
    };
    Err(Refusal::new(reason, detail))
}

fn subject_of(contract: &Contract, origin: &Origin, text: &str) -> Result<Subject, Refusal> {
    if text == EVERYONE
        && origin.may_mean_everyone()
        && let Some(everyone) = Subject::everyone(contract.subject)
    {
        return Ok(everyone);
    }
    Subject::parse(contract.subject, text).ok_or_else(|| {
        let expected = match contract.subject {
            SubjectKind::Principal => "a SPIFFE ID",
            SubjectKind::Resource => "a resource such as `Account::\"42\"`",
            SubjectKind::Task => "the id of a task",
            SubjectKind::Workflow => "the id of a workflow",
            SubjectKind::Device => "the id of a device",
            SubjectKind::Request => "nothing: only the request itself can say it",
            SubjectKind::Global => "`*`",
        };
        Refusal::new(RefusalReason::BadSubject, format!("`subject`: expected {expected}, found `{}`", shortened(text)))
    })
}

fn check_size(value: &Json) -> Result<(), Refusal> {
    let too_large = |what: String| Err(Refusal::new(RefusalReason::TooLarge, what));
    if value.as_array().is_some_and(|members| members.len() > limits::MAX_SET_MEMBERS) {
        return too_large(format!("a set has at most {} members", limits::MAX_SET_MEMBERS));
    }
    let mut room = Room(limits::MAX_SIGNAL_VALUE_BYTES);
    if serde_json::to_writer(&mut room, value).is_err() {
        return too_large(format!("a value has at most {} bytes of JSON", limits::MAX_SIGNAL_VALUE_BYTES));
    }
    Ok(())
}

/// Counts bytes down instead of keeping them, and fails when they are used up.
struct Room(usize);

impl io::Write for Room {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What of an outsider's text an answer repeats.
pub(super) fn shortened(text: &str) -> String {
    const LONGEST: usize = 80;
    if text.chars().count() <= LONGEST {
        return text.to_owned();
    }
    text.chars().take(LONGEST).chain(['…']).collect()
}
