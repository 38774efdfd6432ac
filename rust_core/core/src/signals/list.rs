//! What is known now, for people: `GET /v1/signals`. Always in the order of name, then subject.

use super::contract::{Contract, LogSensitivity};
use super::register::Register;
use super::store::{Cells, Reading, Store};
use super::streams::Vouched;
use crate::model::names::EVERYONE;
use crate::model::{Fact, Subject, Timestamp, Value};
use serde_json::{Map, Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Live values, sorted; not all of them if there are more than were asked for.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Sorted by name, then subject.
    pub signals: Vec<Listed>,
    /// Whether more are known.
    pub truncated: bool,
}

/// One live value.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its contract.
    pub contract: Arc<Contract>,
    /// What is known of it.
    pub fact: Fact,
    /// How old that is, in milliseconds.
    pub age_ms: Option<i64>,
}

impl Store {
    /// Lists what is known of registered signals, of one subject or of all. Values whose signal the register
    /// no longer has are kept, and not shown: nothing reads them.
    pub fn list(&self, register: &Register, subject: Option<&str>, limit: usize, now: Timestamp) -> Listing {
        let vouched = self.vouching().load();
        let bound: Vec<Cells> = register.contracts().iter().map(|contract| self.bind(contract)).collect();
        let mut first = First { most: limit.saturating_add(1), kept: BTreeSet::new() };
        if let Some(text) = subject {
            for (order, cells) in bound.iter().enumerate() {
                let subject = Subject::parse(cells.contract().subject, text);
                first.extend(
                    subject
                        .filter(|subject| cells.is_known(self, &vouched, subject))
                        .map(|subject| (order, subject.id)),
                );
            }
        } else {
            let orders: BTreeMap<u32, usize> = bound.iter().enumerate().map(|(order, c)| (c.signal(), order)).collect();
            self.each_row(|row| {
                for order in row.signals().filter_map(|signal| orders.get(&signal).copied()) {
                    if bound.get(order).is_some_and(|cells| cells.contract().subject == row.kind()) {
                        first.offer(order, row.subject());
                    }
                }
            });
        }
        if subject.is_none() {
            for (order, cells) in bound.iter().enumerate() {
                let contract = cells.contract();
                let mut origins = cells.origins();
                if origins.any(|origin| vouched.of_everyone(&contract.name, contract.subject, origin).is_some()) {
                    first.offer(order, EVERYONE);
                }
            }
        }
        let truncated = first.kept.len() > limit;
        let signals = first.kept.into_iter().take(limit);
        Listing {
            signals: signals.filter_map(|(order, id)| self.listed(bound.get(order)?, &vouched, id, now)).collect(),
            truncated,
        }
    }

    fn listed(&self, cells: &Cells, vouched: &Vouched, id: Arc<str>, now: Timestamp) -> Option<Listed> {
        let contract = Arc::clone(cells.contract());
        let subject = Subject { kind: contract.subject, id };
        let reading = Reading { store: self, vouched, principal: None, chain: &[], circumstances: None, now };
        let fact = cells.read(&reading, &subject);
        let age_ms = Some(now.since(fact.observed_at?).as_millis());
        Some(Listed { contract, fact, age_ms })
    }
}

impl Store {
    /// How many subjects each of these contracts has, and from when the youngest and the oldest value is. Walks all that
    /// is known, a part at a time.
    pub fn census(&self, bound: &[Cells]) -> Vec<Census> {
        let orders: BTreeMap<u32, usize> = bound.iter().enumerate().map(|(at, cells)| (cells.signal(), at)).collect();
        let mut all = vec![Census::default(); bound.len()];
        self.each_row(|row| {
            let mut before = None;
            for (signal, observed_at) in row.observed() {
                let Some(at) = orders.get(&signal) else { continue };
                let (Some(cells), Some(of)) = (bound.get(*at), all.get_mut(*at)) else { continue };
                if cells.contract().subject != row.kind() {
                    continue;
                }
                // A subject with several voices is one subject; a row is sorted by signal.
                of.subjects += u64::from(before != Some(signal));
                before = Some(signal);
                of.freshest = of.freshest.max(Some(observed_at));
                of.oldest = Some(of.oldest.map_or(observed_at, |oldest| oldest.min(observed_at)));
            }
        });
        all
    }
}

/// What the store holds of one signal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Subjects of which something is known.
    pub subjects: u64,
    /// When the youngest value was observed.
    pub freshest: Option<Timestamp>,
    /// When the oldest was.
    pub oldest: Option<Timestamp>,
}

/// The first so many in order. All that is known may be a million: it is never gathered whole.
struct First {
    most: usize,
    kept: BTreeSet<(usize, Arc<str>)>,
}

impl First {
    fn offer(&mut self, order: usize, subject: &str) {
        let full = self.kept.len() >= self.most;
        if full && self.kept.last().is_none_or(|last| (last.0, &*last.1) <= (order, subject)) {
            return;
        }
        self.extend([(order, subject.into())]);
    }

    fn extend(&mut self, more: impl IntoIterator<Item = (usize, Arc<str>)>) {
        for one in more {
            self.kept.insert(one);
            if self.kept.len() > self.most {
                self.kept.pop_last();
            }
        }
    }
}

impl Listing {
    /// The answer of `GET /v1/signals`.
    pub fn to_json(&self) -> Json {
        json!({"signals": self.signals.iter().map(Listed::to_json).collect::<Vec<_>>(), "truncated": self.truncated})
    }
}

impl Listed {
    fn to_json(&self) -> Json {
        let fact = &self.fact;
        let mut fields = Map::new();
        let mut put = |key: &str, value: Json| fields.insert(key.to_owned(), value);
        put("name", self.contract.name.as_str().into());
        put("subject", fact.subject.as_ref().map(|subject| subject.id.to_string()).into());
        put("state", fact.state.as_str().into());
        if self.contract.log != LogSensitivity::Secret {
            put("value", fact.value.as_ref().map(Value::to_json).into());
        }
        put("assurance", fact.assurance.as_str().into());
        put("source", fact.source.as_deref().into());
        put("observed_at", fact.observed_at.map(Timestamp::to_rfc3339).into());
        put("age_ms", self.age_ms.into());
        Json::Object(fields)
    }
}
