//! The register: every signal that may influence access, read from `signals.yaml` and checked.

use super::combine::{self, Combination};
use super::contract::{Contract, LogSensitivity};
use super::derived;
use super::feeds::Feeds;
use super::sources::{self, Declared, Flow, Source};
use crate::document::{self, Entry, Fields, Node};
use crate::findings::{Findings, Place, did_you_mean};
use crate::limits;
use crate::model::names::{BUILT_IN_ACTIONS, NAME_FORM, SubjectKind};
use crate::model::{
    ActionId, Assurance, FeedKind, Influence, Origin, SignalName, SignalType, Span, Tier, Timestamp, WhenUnavailable,
};
use crate::route::ActionDecl;
use chrono::{DateTime, Days, NaiveDate};
use std::collections::BTreeSet;
use std::sync::Arc;

/// How long before `review_by` a warning reminds of it.
const REMIND_DAYS: u64 = 30;
/// A feed that is asked so many times within `max_age` may be down for long before anyone notices.
const MAX_AGE_INTERVALS: i64 = 20;

/// The contracts of a directory, by name.
#[derive(Clone, Debug, Default)]
pub struct Register {
    contracts: Vec<Arc<Contract>>,
    feeds: Feeds,
    strict_reviews: bool,
}

impl Register {
    /// Reads and checks a register. What is wrong becomes findings, all in one pass; a contract with a mistake
    /// is left out, so the result is whole only if no finding is an error.
    pub fn load(file: &str, text: &str, actions: &[ActionDecl], now: Timestamp, findings: &mut Findings) -> Self {
        let Some(root) = document::parse(file, text, findings) else { return Self::default() };
        let Some(mut fields) = Fields::of(file, "the register", &root, findings) else { return Self::default() };
        let feeds = Feeds::read(file, fields.take("feeds"), findings);
        let strict_reviews = fields.flag("strict_reviews", findings).unwrap_or(false);
        let signals = fields.require("signals", findings);
        let entries = signals.and_then(|node| node.map(file, "signals", findings)).unwrap_or_default();
        fields.finish(findings);
        let mut contracts = Vec::with_capacity(entries.len());
        for entry in entries {
            let Some(fields) = Fields::of(file, &entry.key, &entry.value, findings) else { continue };
            let today = date_of(now);
            let feeds = &feeds;
            let reader = Reader { file, actions, feeds, strict_reviews, today, fields, findings: &mut *findings };
            contracts.extend(reader.contract(entry));
        }
        let mut register = Self::new(contracts);
        check_company(file, &register, entries, findings);
        derived::check_bound(file, &register, findings);
        warn_of_feeds(file, &register, &feeds, findings);
        register.feeds = feeds;
        register.strict_reviews = strict_reviews;
        register
    }

    /// A register of these contracts; of two with one name, the first.
    pub fn new(contracts: impl IntoIterator<Item = Contract>) -> Self {
        let mut contracts: Vec<Arc<Contract>> = contracts.into_iter().map(Arc::new).collect();
        contracts.sort_by(|a, b| a.name.cmp(&b.name));
        contracts.dedup_by(|a, b| a.name == b.name);
        Self { contracts, feeds: Feeds::default(), strict_reviews: false }
    }

    /// The declared feeds.
    pub const fn feeds(&self) -> &Feeds {
        &self.feeds
    }

    /// Whether a review that is past stops a load.
    pub const fn strict_reviews(&self) -> bool {
        self.strict_reviews
    }

    /// The claims of tokens that sources read, as issuer and way: a token is asked for these and no others.
    pub fn claims(&self) -> Vec<(Box<str>, Vec<Box<str>>)> {
        let sources = self.contracts().iter().flat_map(|contract| &contract.sources);
        sources
            .filter_map(|source| match &source.flow {
                Flow::OnRequest(reader) => reader.claim(),
                _ => None,
            })
            .collect()
    }

    /// Every contract, sorted by name.
    pub fn contracts(&self) -> &[Arc<Contract>] {
        &self.contracts
    }

    /// The contract of a signal.
    pub fn find(&self, name: &str) -> Option<&Arc<Contract>> {
        let at = self.contracts.binary_search_by(|contract| contract.name.as_str().cmp(name)).ok()?;
        self.contracts.get(at)
    }
}

fn date_of(now: Timestamp) -> NaiveDate {
    DateTime::from_timestamp_micros(now.as_micros()).map(|at| at.date_naive()).unwrap_or_default()
}

/// Reads one contract. Each method reads what it is named after and says what is wrong with it;
/// `None` means that it said so.
struct Reader<'a, 'f> {
    file: &'a str,
    actions: &'a [ActionDecl],
    feeds: &'a Feeds,
    strict_reviews: bool,
    today: NaiveDate,
    fields: Fields<'a>,
    findings: &'f mut Findings,
}

impl<'a> Reader<'a, '_> {
    fn contract(mut self, entry: &Entry) -> Option<Contract> {
        let name = self.name(entry);
        let kind = self.kind();
        let description = self.prose("description");
        let owner = self.owner();
        let purpose = self.prose("purpose");
        let subject = self.fields.require_word("subject", SubjectKind::ALL, self.findings);
        let sources = self.sources(kind.as_ref(), subject);
        let max_age = self.max_age(subject);
        let influence = self.fields.require_word("influence", Influence::ALL, self.findings);
        let influence = self.bounded_influence(influence, sources.as_deref());
        let when_unavailable = self.when_unavailable(sources.as_deref());
        let justification = self.justification(when_unavailable);
        let used_by = self.used_by();
        let log = self.log();
        let review_by = self.review_by();
        let written = self.fields.take("sources").and_then(Node::as_list).map(<[Node]>::len);
        let combination = self.combination(kind.as_ref(), written);
        self.fields.finish(self.findings);
        Some(Contract {
            name: name?,
            kind: kind?,
            description: description?,
            owner: owner?,
            purpose: purpose?,
            subject: subject?,
            sources: sources?,
            combination: combination?,
            max_age: max_age?,
            influence: influence?,
            when_unavailable: when_unavailable?,
            justification: justification?,
            used_by: used_by?,
            log: log?,
            review_by: review_by?,
            place: entry.place,
        })
    }

    fn error(&mut self, place: Place, code: &'static str, message: impl Into<String>) {
        self.findings.error(self.file, place, code, message);
    }

    fn name(&mut self, entry: &Entry) -> Option<SignalName> {
        let name = SignalName::parse(&entry.key);
        if name.is_none() {
            self.error(
                entry.place,
                "bad_name",
                format!("name of a signal: expected {NAME_FORM}, found `{}`", entry.key),
            );
        }
        name
    }

    fn text(&mut self, key: &'static str) -> Option<(&'a str, &'a Node)> {
        let node = self.fields.require(key, self.findings)?;
        node.text(self.file, key, self.findings).map(|text| (text, node))
    }

    fn kind(&mut self) -> Option<SignalType> {
        let (text, node) = self.text("type")?;
        match SignalType::parse(text) {
            Ok(kind) => Some(kind),
            Err(expected) => {
                let hint = did_you_mean(text, ["bool", "long", "string", "set", "decimal", "datetime", "ip"]);
                self.error(node.place, "bad_type", format!("`type`: {expected}, found {}{hint}", node.describe()));
                None
            }
        }
    }

    fn prose(&mut self, key: &'static str) -> Option<String> {
        let (text, node) = self.text(key)?;
        if text.trim().is_empty() {
            self.error(node.place, "empty_text", format!("`{key}`: expected a sentence, found nothing"));
            return None;
        }
        Some(text.to_owned())
    }

    fn owner(&mut self) -> Option<String> {
        let (text, node) = self.text("owner")?;
        let is_address = text
            .split_once('@')
            .is_some_and(|(who, at)| !who.is_empty() && !at.is_empty() && !at.contains('@') && !text.contains(' '));
        if !is_address {
            let message =
                format!("`owner`: expected an address such as `team@prod.example`, found {}", node.describe());
            self.error(node.place, "bad_owner", message);
            return None;
        }
        Some(text.to_owned())
    }

    fn sources(&mut self, kind: Option<&SignalType>, subject: Option<SubjectKind>) -> Option<Vec<Source>> {
        let node = self.fields.require("sources", self.findings)?;
        let items = node.list(self.file, "sources", self.findings)?;
        let place = self.fields.place_of("sources");
        if items.is_empty() || items.len() > limits::MAX_SOURCES {
            let message = format!("`sources`: expected 1 to {} sources, found {}", limits::MAX_SOURCES, items.len());
            self.error(node.place, "empty_list", message);
            return None;
        }
        let declared = Declared { kind, subject, feeds: self.feeds, actions: self.actions };
        let read: Vec<Option<Source>> =
            items.iter().map(|item| sources::read(self.file, item, declared, self.findings)).collect();
        let self_asserted = read.iter().flatten().filter(|s| s.assurance == Assurance::SelfAsserted).count();
        if self_asserted > 0 && self_asserted < read.iter().flatten().count() {
            let message = "`sources`: a contract does not mix self-asserted sources with others";
            self.error(place, "mixed_assurance", message);
        }
        let read = read.into_iter().collect::<Option<Vec<Source>>>()?;
        for (at, source) in read.iter().enumerate() {
            if read.iter().take(at).any(|other| other.label == source.label) {
                self.error(place, "duplicate", format!("`sources`: `{}` stands twice", source.label));
                return None;
            }
        }
        Some(read)
    }

    fn combination(&mut self, kind: Option<&SignalType>, sources: Option<usize>) -> Option<Combination> {
        let reader = combine::Reader { file: self.file, fields: &mut self.fields, findings: self.findings };
        reader.read(kind, sources)
    }

    // INVARIANT I3: nothing that the caller says of itself can be declared to widen access.
    fn bounded_influence(&mut self, influence: Option<Influence>, sources: Option<&[Source]>) -> Option<Influence> {
        if influence == Some(Influence::Grant) && is_self_asserted(sources) {
            let message = "`influence`: a self-asserted signal can only be `restrict` or `observe`, found `grant`";
            self.error(self.fields.place_of("influence"), "self_asserted_grant", message);
            return None;
        }
        influence
    }

    /// The outer option as everywhere; the inner one is empty for what has no age: a request, and what is counted.
    #[expect(clippy::option_option, reason = "two questions: could it be read, and is there one")]
    fn max_age(&mut self, subject: Option<SubjectKind>) -> Option<Option<Span>> {
        let counted = self.is_counted();
        let node = self.fields.take("max_age");
        let place = self.fields.place_of("max_age");
        match (subject, node) {
            (Some(SubjectKind::Request), None) => Some(None),
            (Some(SubjectKind::Request), Some(_)) => {
                let message = "`max_age`: a signal about a request is as old as the request, leave it out";
                self.error(place, "max_age_on_request", message);
                None
            }
            (_, None) if counted => Some(None),
            (_, Some(_)) if counted => {
                let message = "`max_age`: what is counted is as old as the decision, leave it out";
                self.error(place, "max_age_on_derived", message);
                None
            }
            (_, Some(node)) => self.span(node).map(Some),
            (Some(_), None) => {
                self.error(
                    place,
                    "missing_key",
                    "`max_age` is missing: only request subjects, `derived` and `workflow` sources do without",
                );
                None
            }
            (None, None) => None,
        }
    }

    /// Whether the core knows the signal itself, at the moment of the decision: all its sources say so, whatever else is wrong with them.
    fn is_counted(&mut self) -> bool {
        let says_so = |source: &Node| {
            let kind = source.as_map().and_then(|entries| entries.iter().find(|entry| entry.key == "kind"));
            matches!(kind.and_then(|kind| kind.value.as_text()), Some("derived" | "workflow"))
        };
        let sources = self.fields.take("sources").and_then(Node::as_list).unwrap_or_default();
        !sources.is_empty() && sources.iter().all(says_so)
    }

    fn span(&mut self, node: &Node) -> Option<Span> {
        let span = node.as_text().and_then(Span::parse);
        if span.is_none() {
            let message = format!("`max_age`: expected a span such as `30s`, `5m`, `12h`, found {}", node.describe());
            self.error(node.place, "bad_span", message);
        }
        span
    }

    // INVARIANT I2: each exception is declared, with its reason, where it can be found.
    fn when_unavailable(&mut self, sources: Option<&[Source]>) -> Option<WhenUnavailable> {
        const WORDS: &[(&str, WhenUnavailable)] =
            &[("deny", WhenUnavailable::Deny), ("absent", WhenUnavailable::Absent)];
        let Some(node) = self.fields.take("when_unavailable") else { return Some(WhenUnavailable::Deny) };
        if is_self_asserted(sources) {
            let message =
                "`when_unavailable`: the absence of a self-asserted signal is the caller's choice, leave it out";
            self.error(self.fields.place_of("when_unavailable"), "needless_when_unavailable", message);
            return None;
        }
        node.word(self.file, "when_unavailable", WORDS, self.findings)
    }

    #[expect(clippy::option_option, reason = "two questions: could it be read, and is there one")]
    fn justification(&mut self, when_unavailable: Option<WhenUnavailable>) -> Option<Option<String>> {
        let needed = when_unavailable == Some(WhenUnavailable::Absent);
        if self.fields.take("justification").is_none() {
            if needed {
                let message = "`justification` is missing: `when_unavailable: absent` needs one";
                self.error(self.fields.place_of("when_unavailable"), "missing_justification", message);
            }
            return (!needed).then_some(None);
        }
        if when_unavailable == Some(WhenUnavailable::Deny) {
            let message = "`justification` has nothing to justify: it belongs to `when_unavailable: absent`";
            self.error(self.fields.place_of("justification"), "needless_justification", message);
            return None;
        }
        self.prose("justification").map(Some)
    }

    fn used_by(&mut self) -> Option<BTreeSet<ActionId>> {
        let node = self.fields.require("used_by", self.findings)?;
        let names = node.texts(self.file, "used_by", self.findings)?;
        if names.is_empty() {
            self.error(node.place, "empty_list", "`used_by`: expected at least one action, found none");
            return None;
        }
        let mut used_by = BTreeSet::new();
        for (name, place) in &names {
            let action = self.action(name, *place);
            if action.is_some_and(|action| !used_by.insert(action)) {
                self.error(*place, "repeated_action", format!("`used_by`: `{name}` stands twice"));
            }
        }
        (used_by.len() == names.len()).then_some(used_by)
    }

    fn action(&mut self, name: &str, place: Place) -> Option<ActionId> {
        // They are sorted by name: a register may name thousands of actions thousands of times.
        let sorted = self.actions.binary_search_by(|action| action.id.as_str().cmp(name));
        match sorted.ok().and_then(|at| self.actions.get(at)) {
            Some(action) if action.tier == Tier::Coarse => {
                let message = format!("`used_by`: `{name}` is of tier `coarse`, whose policies read no signal");
                self.error(place, "coarse_action", message);
                None
            }
            Some(action) => Some(action.id.clone()),
            None if BUILT_IN_ACTIONS.contains(&name) => ActionId::parse(name),
            None => {
                let hint = did_you_mean(name, self.actions.iter().map(|action| action.id.as_str()));
                let message = format!("`used_by`: expected an action that a route defines, found `{name}`{hint}");
                self.error(place, "unknown_action", message);
                None
            }
        }
    }

    fn log(&mut self) -> Option<LogSensitivity> {
        let Some(node) = self.fields.take("sensitivity") else { return Some(LogSensitivity::Internal) };
        node.word(self.file, "sensitivity", LogSensitivity::ALL, self.findings)
    }

    fn review_by(&mut self) -> Option<NaiveDate> {
        let (text, node) = self.text("review_by")?;
        let written = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok();
        let Some(date) = written.filter(|date| date.to_string() == text) else {
            let message = format!("`review_by`: expected a date such as `2027-06-30`, found {}", node.describe());
            self.error(node.place, "bad_date", message);
            return None;
        };
        let remind = date.checked_sub_days(Days::new(REMIND_DAYS)).unwrap_or(date);
        if date < self.today {
            let message = format!("`review_by`: the review was due on {date}");
            if self.strict_reviews {
                self.findings.error(
                    self.file,
                    node.place,
                    "review_past",
                    format!("{message}, and `strict_reviews` is on"),
                );
            } else {
                self.findings.warning(self.file, node.place, "review_past", message);
            }
        } else if remind <= self.today {
            let message = format!("`review_by`: the review is due on {date}, within {REMIND_DAYS} days");
            self.findings.warning(self.file, node.place, "review_soon", message);
        }
        Some(date)
    }
}

/// The company of an adverse value: registered, with adverse values of its own, never the caller's own word, and
/// readable wherever the signal is: it helps to decide there.
fn check_company(file: &str, register: &Register, entries: &[Entry], findings: &mut Findings) {
    for contract in register.contracts() {
        let Some(corroborate) = &contract.combination.corroborate else { continue };
        let mut wrong = |code, message: String| findings.error(file, contract.place, code, message);
        if contract.is_self_asserted() {
            wrong(
                "self_asserted_company",
                format!("`{}`: a self-asserted signal needs no `corroborate`", contract.name),
            );
        }
        for name in &corroborate.with {
            let Some(member) = register.find(name.as_str()) else {
                // One with a mistake of its own has been told.
                if !entries.iter().any(|entry| entry.key == name.as_str()) {
                    let hint = combine::hint(name.as_str(), register.contracts().iter().map(|c| c.name.as_str()));
                    let message = format!("`with`: expected a signal of the register, found `{name}`{hint}");
                    wrong("unregistered_signal", message);
                }
                continue;
            };
            if member.name == contract.name {
                wrong("bad_need", format!("`with`: `{name}` is the signal itself, which counts anyway"));
            } else if member.is_self_asserted() {
                wrong("self_asserted_company", format!("`with`: `{name}` is self-asserted, and can't corroborate"));
            } else if member.influence == Influence::Observe {
                wrong("observed_company", format!("`with`: `{name}` is `influence: observe`, and decides nothing"));
            } else if member.combination.adverse.is_none() {
                wrong("missing_adverse", format!("`with`: `{name}` does not say which of its values are `adverse`"));
            } else if let Some(action) = contract.used_by.difference(&member.used_by).next() {
                let message =
                    format!("`with`: `{name}` would help to decide `{action}`, which its `used_by` does not name");
                wrong("company_used_by", message);
            }
        }
    }
}

/// A `max_age` that the feed's own interval makes no sense of.
fn warn_of_feeds(file: &str, register: &Register, feeds: &Feeds, findings: &mut Findings) {
    for contract in register.contracts() {
        let Some(max_age) = contract.max_age else { continue };
        for source in &contract.sources {
            let Some(Origin::Feed(kind, name)) = source.origin() else { continue };
            let Some(interval) = feeds.find(name.as_str()).and_then(|feed| feed.interval) else { continue };
            let message = if max_age < interval {
                format!(
                    "`{}` goes stale between two looks at the feed `{name}`: `max_age` is shorter than its `interval`",
                    contract.name
                )
            } else if *kind == FeedKind::Poll && max_age.as_micros() / interval.as_micros().max(1) > MAX_AGE_INTERVALS {
                // A stream of events is quiet for long and says so itself; a document that is not read is silent.
                format!(
                    "`{}` stays fresh for more than {MAX_AGE_INTERVALS} intervals of the feed `{name}`: it may be down for long before anyone notices",
                    contract.name
                )
            } else {
                continue;
            };
            findings.warning(file, contract.place, "max_age_interval", message);
        }
    }
}

fn is_self_asserted(sources: Option<&[Source]>) -> bool {
    sources.is_some_and(|sources| {
        !sources.is_empty() && sources.iter().all(|source| source.assurance == Assurance::SelfAsserted)
    })
}
