//! Where values come from. To add a kind: one file here, and one row in `KINDS` (with its `mod`).

pub mod header;
pub mod poll;
pub mod push;
pub mod ssf;

use super::feeds::Feeds;
use crate::document::{Fields, Node};
use crate::findings::{Findings, did_you_mean};
use crate::model::names::SubjectKind;
use crate::model::{Assurance, FeedKind, Origin, Request, SignalType, State, Value};
use serde_json::{Map, Value as Json};
use std::{fmt, sync::Arc};

/// Every kind of source that the register knows.
const KINDS: &[Kind] = &[
    push::KIND,
    poll::KIND,
    ssf::KIND,
    header::KIND,
    Kind::later("envoy_metadata"),
    Kind::later("route"),
    Kind::later("peer"),
    Kind::later("time"),
    Kind::later("derived"),
    Kind::later("token_claim"),
];

/// One kind of source: what may be declared of it.
struct Kind {
    /// The word after `kind:`.
    word: &'static str,
    /// The best assurance that it can have.
    ceiling: Assurance,
    /// Why it can't speak of a kind of subject, if so.
    objection: fn(SubjectKind) -> Option<&'static str>,
    /// Reads what else is declared; `None` if the kind is not built yet.
    read: Option<fn(&mut Reading<'_, '_>, Assurance) -> Option<Source>>,
}

impl Kind {
    const fn later(word: &'static str) -> Self {
        Self { word, ceiling: Assurance::SelfAsserted, objection: |_| None, read: None }
    }
}

/// What else the contract and the register say, as far as it could be read: what a source must fit to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Declared<'a> {
    /// The type of the contract's values.
    pub(super) kind: Option<&'a SignalType>,
    /// What the contract is about.
    pub(super) subject: Option<SubjectKind>,
    /// The feeds of the register.
    pub(super) feeds: &'a Feeds,
}

/// One entry of `sources`, while it is read.
struct Reading<'a, 'f> {
    file: &'a str,
    declared: Declared<'a>,
    fields: Fields<'a>,
    findings: &'f mut Findings,
}

/// Reads one entry of `sources`.
pub(super) fn read<'a>(
    file: &'a str,
    node: &'a Node,
    declared: Declared<'a>,
    findings: &mut Findings,
) -> Option<Source> {
    let fields = Fields::of(file, "sources", node, findings)?;
    let mut reading = Reading { file, declared, fields, findings };
    let kind = reading.kind()?;
    let Some(read) = kind.read else {
        let message = format!("sources of kind `{}` are not built yet", kind.word);
        reading.findings.error(file, reading.fields.place_of("kind"), "not_built", message);
        return None;
    };
    let written = reading.fields.require_word("assurance", Assurance::ALL, reading.findings);
    let assurance = reading.below_ceiling(kind, written);
    let source = read(&mut reading, assurance.unwrap_or(kind.ceiling));
    if let Some(why) = declared.subject.and_then(kind.objection) {
        reading.findings.error(file, reading.fields.place_of("kind"), "source_subject", why);
    }
    reading.fields.finish(reading.findings);
    assurance.and(source)
}

impl<'a> Reading<'a, '_> {
    fn kind(&mut self) -> Option<&'static Kind> {
        let node = self.fields.require("kind", self.findings)?;
        let word = node.text(self.file, "kind", self.findings)?;
        let found = KINDS.iter().find(|kind| kind.word == word);
        if found.is_none() {
            let built: Vec<String> =
                KINDS.iter().filter(|kind| kind.read.is_some()).map(|kind| format!("`{}`", kind.word)).collect();
            let hint = did_you_mean(word, KINDS.iter().map(|kind| kind.word));
            let message = format!("`kind`: expected {}, found {}{hint}", built.join(" or "), node.describe());
            self.findings.error(self.file, node.place, "unknown_value", message);
        }
        found
    }

    /// Nobody can declare a source to be better than its kind.
    fn below_ceiling(&mut self, kind: &Kind, declared: Option<Assurance>) -> Option<Assurance> {
        let assurance = declared?;
        // The order of assurances: weakest last.
        if assurance < kind.ceiling {
            let (word, best) = (kind.word, kind.ceiling.as_str());
            let message = format!("a `{word}` source is at best `{best}`, found `{}`", assurance.as_str());
            self.findings.error(self.file, self.fields.place_of("assurance"), "assurance_too_high", message);
            return None;
        }
        Some(assurance)
    }

    /// The feed that the entry names, as an origin.
    fn feed(&mut self, kind: FeedKind) -> Option<Origin> {
        let feeds = self.declared.feeds;
        let node = self.fields.require("feed", self.findings)?;
        let name = node.text(self.file, "feed", self.findings)?;
        match feeds.find(name) {
            Some(feed) if feed.kind == kind => Some(Origin::Feed(kind, feed.name.clone())),
            _ => {
                let hint = feeds.hint(name, kind);
                let message =
                    format!("`feed`: expected a feed of kind `{}` under `feeds`, found `{name}`{hint}", kind.as_str());
                self.findings.error(self.file, node.place, "unknown_feed", message);
                None
            }
        }
    }

    /// Its name as written.
    fn feed_name(&mut self) -> &'a str {
        self.fields.take("feed").and_then(Node::as_text).unwrap_or_default()
    }

    /// A required text, and a finding with this code unless `parse` takes it.
    fn parsed<T, E: fmt::Display>(
        &mut self,
        key: &'static str,
        code: &'static str,
        parse: impl FnOnce(&'a str) -> Result<T, E>,
    ) -> Option<T> {
        let node = self.fields.require(key, self.findings)?;
        let text = node.text(self.file, key, self.findings)?;
        match parse(text) {
            Ok(parsed) => Some(parsed),
            Err(why) => {
                self.findings.error(self.file, node.place, code, format!("`{key}`: {why}, found {}", node.describe()));
                None
            }
        }
    }
}

/// One declared source of a contract.
#[derive(Clone, Debug)]
pub struct Source {
    /// The word after `kind:`.
    pub kind: &'static str,
    /// How far it can be trusted: declared, and never above the ceiling of its kind.
    pub assurance: Assurance,
    /// The source as records name it: `push:spiffe://…`, `header:x-task-type`.
    pub label: Arc<str>,
    /// What else was declared, by key, for descriptions.
    pub settings: Vec<(&'static str, Json)>,
    /// How its values reach a decision.
    pub flow: Flow,
}

/// How the values of a source reach a decision.
#[derive(Clone, Debug)]
pub enum Flow {
    /// They arrive beforehand and wait in the store.
    Stored {
        /// Who sends them.
        origin: Origin,
        /// The value of a subject without events, while the feed is live.
        resting: Option<Value>,
    },
    /// They ride on the request itself.
    OnRequest(Arc<dyn ReadRequest>),
}

/// Reads a signal off a request.
pub trait ReadRequest: fmt::Debug + Send + Sync {
    /// State and value, as a value of this type.
    fn read(&self, request: &Request, kind: &SignalType) -> (State, Option<Value>);
}

impl Source {
    /// Who sends the values, where they are stored beforehand.
    pub fn origin(&self) -> Option<&Origin> {
        match &self.flow {
            Flow::Stored { origin, .. } => Some(origin),
            Flow::OnRequest(_) => None,
        }
    }

    /// The source as a user wrote it.
    pub fn to_json(&self) -> Json {
        let mut fields = Map::new();
        fields.insert("kind".to_owned(), self.kind.into());
        for (key, value) in &self.settings {
            fields.insert((*key).to_owned(), value.clone());
        }
        fields.insert("assurance".to_owned(), self.assurance.as_str().into());
        Json::Object(fields)
    }
}
