//! Where values come from. To add a kind: one file here, and one row in `KINDS` (with its `mod`).

pub mod derived;
pub mod envoy_metadata;
pub mod header;
pub mod peer;
pub mod poll;
pub mod push;
pub mod route;
pub mod ssf;
pub mod time;
pub mod token_claim;
pub mod workflow;

use super::derived::{Derived, Measure};
use super::feeds::Feeds;
use crate::document::{Fields, Node};
use crate::findings::{Findings, Place, did_you_mean};
use crate::model::names::SubjectKind;
use crate::model::{
    Assurance, FeedKind, Origin, Proof, Request, SignalType, Span, SpiffeId, State, TaskFacts, Timestamp, Value,
};
use crate::route::{ActionDecl, Route};
use serde_json::{Map, Value as Json};
use std::{fmt, sync::Arc};

/// Every kind of source that the register knows.
const KINDS: &[Kind] = &[
    push::KIND,
    poll::KIND,
    ssf::KIND,
    header::KIND,
    envoy_metadata::KIND,
    route::KIND,
    peer::KIND,
    time::KIND,
    derived::KIND,
    token_claim::KIND,
    workflow::KIND,
];

/// One kind of source: what may be declared of it.
struct Kind {
    /// The word after `kind:`.
    word: &'static str,
    /// The best assurance that an entry can have, and what would make it better, if anything would.
    ceiling: fn(&Fields<'_>) -> (Assurance, &'static str),
    /// Why it can't speak of a kind of subject, if so.
    objection: fn(SubjectKind) -> Option<&'static str>,
    /// Reads what else is declared.
    read: fn(&mut Reading<'_, '_>, Assurance) -> Option<Source>,
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
    /// What the routes declare.
    pub(super) actions: &'a [ActionDecl],
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
    let written = reading.fields.require_word("assurance", Assurance::ALL, reading.findings);
    let assurance = reading.below_ceiling(kind, written);
    let source = (kind.read)(&mut reading, assurance.unwrap_or(Assurance::SelfAsserted));
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
            let built: Vec<String> = KINDS.iter().map(|kind| format!("`{}`", kind.word)).collect();
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
        let (ceiling, better) = (kind.ceiling)(&self.fields);
        if assurance < ceiling {
            let (word, best) = (kind.word, ceiling.as_str());
            let message = format!("a `{word}` source is at best `{best}`{better}, found `{}`", assurance.as_str());
            self.findings.error(self.file, self.fields.place_of("assurance"), "assurance_too_high", message);
            return None;
        }
        Some(assurance)
    }

    fn error(&mut self, place: Place, code: &'static str, message: impl Into<String>) {
        self.findings.error(self.file, place, code, message);
    }

    /// Whether this word can be a value of the contract; a finding if not. A type that could not be read is said
    /// to be wrong already.
    fn is_value(&mut self, what: &str, word: &str, place: Place) -> bool {
        let Some(kind) = self.declared.kind else { return true };
        let good = match kind {
            SignalType::String => true,
            SignalType::Enum(members) => members.iter().any(|member| **member == *word),
            _ => false,
        };
        if !good {
            let message = format!("{what}: expected a value of the contract's type `{kind}`, found `{word}`");
            self.error(place, "not_a_value", message);
        }
        good
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
    /// The core counts them.
    Counted {
        /// What is counted.
        measure: Measure,
        /// How far back.
        window: Span,
    },
}

/// What is known of a request when its signals are read.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// As Envoy describes it.
    pub request: &'a Request,
    /// The route that it took; `None`: it is no request of Envoy.
    pub route: Option<&'a Route>,
    /// The decision's own now.
    pub now: Timestamp,
    /// The verified identity of who asks.
    pub principal: &'a SpiffeId,
    /// The tokens of the request that count.
    pub proofs: &'a [Arc<Proof>],
    /// What was counted of callers before.
    pub derived: &'a Derived,
    /// The task of its grant.
    pub task: Option<&'a TaskFacts>,
}

/// Reads a signal off a request.
pub trait ReadRequest: fmt::Debug + Send + Sync {
    /// State and value, as a value of this type.
    // INVARIANT I1: a source reads what its contract names of the circumstances, and nothing else.
    fn read(&self, circumstances: &Circumstances<'_>, kind: &SignalType) -> (State, Option<Value>);

    /// The claim of a token that it reads, as issuer and way.
    fn claim(&self) -> Option<(Box<str>, Vec<Box<str>>)> {
        None
    }
}

/// The one subject of what rides on the request.
fn of_this_request_alone(subject: SubjectKind, otherwise: &'static str) -> Option<&'static str> {
    (subject != SubjectKind::Request).then_some(otherwise)
}

impl Source {
    /// Who sends the values, where they are stored beforehand.
    pub fn origin(&self) -> Option<&Origin> {
        match &self.flow {
            Flow::Stored { origin, .. } => Some(origin),
            Flow::OnRequest(_) | Flow::Counted { .. } => None,
        }
    }

    /// Whether a value holds until the next event, so that a live feed keeps it young however long ago it was observed.
    pub const fn keeps_values_young(&self) -> bool {
        matches!(self.flow, Flow::Stored { resting: Some(_), .. })
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

#[cfg(test)]
pub(crate) mod testing {
    //! A route and a reader, for the tests of the sources.
    use super::*;
    use crate::{findings::Findings, route::Routes, signals::Register};

    /// Routes of the action `pay`, each with these further lines.
    pub(crate) fn routes(extras: &[&str]) -> Routes {
        use std::fmt::Write as _;
        let mut text = "routes:\n".to_owned();
        for (at, extra) in extras.iter().enumerate() {
            writeln!(
                text,
                "  - {{match: {{host: h, path: /{at}}}, action: pay, resource: {{type: A, id: x}}, tier: runtime, \
                 sensitivity: high{extra}}}"
            )
            .unwrap();
        }
        let mut findings = Findings::default();
        let routes = Routes::load("routes.yaml", &text, &mut findings);
        assert!(!findings.has_errors(), "{findings:?}");
        routes
    }

    /// The register of one signal of `pay` with this type, subject and one source, and what is wrong with it.
    pub(crate) fn register(routes: &Routes, kind: &str, subject: &str, source: &str) -> (Register, Vec<String>) {
        let influence = if source.contains("self_asserted") { "restrict" } else { "grant" };
        let text = format!(
            "signals:\n  s:\n    type: \"{kind}\"\n    description: d\n    owner: a@b\n    purpose: p\n    subject: {subject}\n    \
             sources: [{source}]\n    influence: {influence}\n    used_by: [pay]\n    review_by: 2030-01-01\n"
        );
        let mut findings = Findings::default();
        let now = Timestamp::from_micros(0);
        let register = Register::load("signals.yaml", &text, routes.actions(), now, &mut findings);
        let said = findings.into_sorted().iter().map(|f| format!("{}: {}", f.code, f.message)).collect();
        (register, said)
    }

    /// What such a source reads. Panics if its declaration has a mistake.
    pub(crate) fn read(kind: &str, source: &str, request: &Request, now: &str) -> (State, Option<Value>) {
        read_on(&routes(&[""]), kind, source, request, now).remove(0)
    }

    /// The same of a request with these tokens.
    pub(crate) fn read_with(kind: &str, source: &str, proofs: &[Arc<Proof>], now: &str) -> (State, Option<Value>) {
        read_all(&routes(&[""]), kind, source, &Request::default(), proofs, now).remove(0)
    }

    /// The same, once for each of these routes.
    pub(crate) fn read_on(
        routes: &Routes,
        kind: &str,
        source: &str,
        request: &Request,
        now: &str,
    ) -> Vec<(State, Option<Value>)> {
        read_all(routes, kind, source, request, &[], now)
    }

    fn read_all(
        routes: &Routes,
        kind: &str,
        source: &str,
        request: &Request,
        proofs: &[Arc<Proof>],
        now: &str,
    ) -> Vec<(State, Option<Value>)> {
        let (register, findings) = register(routes, kind, "request", source);
        assert!(findings.is_empty(), "{findings:?}");
        let contract = &register.contracts()[0];
        let Flow::OnRequest(reader) = &contract.sources[0].flow else { panic!("it rides on the request") };
        let principal = SpiffeId::parse("spiffe://t/a").unwrap();
        let now = Timestamp::parse_rfc3339(now).unwrap();
        let read = |route: &Arc<Route>| {
            let derived = &Derived::default();
            reader.read(
                &Circumstances { request, route: Some(route), now, principal: &principal, proofs, derived, task: None },
                &contract.kind,
            )
        };
        routes.all().iter().map(read).collect()
    }

    /// The findings of such a source.
    pub(crate) fn mistakes(kind: &str, subject: &str, source: &str) -> Vec<String> {
        register(&routes(&[""]), kind, subject, source).1
    }
}
