//! One signal's entry in the register: what it is, who says so, and what it may do.

use super::combine::{Adverse, Combination};
use super::feeds::Feeds;
use super::sources::Source;
use crate::findings::Place;
use crate::model::names::SubjectKind;
use crate::model::{ActionId, Assurance, Influence, Origin, SignalName, SignalType, Span, Value, WhenUnavailable, hex};
use chrono::NaiveDate;
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// How a signal's value may appear in records and lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogSensitivity {
    /// Anyone may see it.
    Public,
    /// As internal as the log itself (the default).
    Internal,
    /// Never shown: a keyed digest at most.
    Secret,
}

impl LogSensitivity {
    /// Every value, with the word that files use.
    pub const ALL: &'static [(&'static str, Self)] =
        &[("public", Self::Public), ("internal", Self::Internal), ("secret", Self::Secret)];

    /// The word that files use.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, v)| *v == self).map_or("", |(word, _)| word)
    }
}

/// A contract, as the register declares it. Made by `Register::load`, which checks that its parts fit together.
#[derive(Clone, Debug)]
pub struct Contract {
    /// Name of the signal.
    pub name: SignalName,
    /// Type of its values.
    pub kind: SignalType,
    /// What it says, for people.
    pub description: String,
    /// Who answers for it: an address.
    pub owner: String,
    /// What it is used for.
    pub purpose: String,
    /// What it is about.
    pub subject: SubjectKind,
    /// Where values come from, by priority.
    pub sources: Vec<Source>,
    /// How several sources, and several signals, come together; and who approves changes.
    pub combination: Combination,
    /// Older values are stale. `None` for request subjects alone.
    pub max_age: Option<Span>,
    /// What it may do.
    pub influence: Influence,
    /// What its absence means.
    pub when_unavailable: WhenUnavailable,
    /// Why its absence may be let pass.
    pub justification: Option<String>,
    /// The actions whose policies may read it.
    pub used_by: BTreeSet<ActionId>,
    /// How its values may be shown.
    pub log: LogSensitivity,
    /// When its owner looks at it again.
    pub review_by: NaiveDate,
    /// Where it stands in the file.
    pub place: Place,
}

impl Contract {
    /// Whether all declared sources are self-asserted: then its absence is the caller's choice.
    pub fn is_self_asserted(&self) -> bool {
        !self.sources.is_empty() && self.sources.iter().all(|source| source.assurance == Assurance::SelfAsserted)
    }

    /// Assurance of the weakest declared source.
    pub fn assurance(&self) -> Assurance {
        self.sources.iter().map(|source| source.assurance).max().unwrap_or(Assurance::SelfAsserted)
    }

    /// Whether this origin may say values of it.
    pub fn is_fed_by(&self, origin: &Origin) -> bool {
        self.sources.iter().any(|source| source.origin() == Some(origin))
    }

    /// Whether a value is adverse by this contract.
    pub fn is_adverse(&self, value: &Value) -> bool {
        self.combination.adverse.as_ref().is_some_and(|adverse: &Adverse| adverse.is(value))
    }

    /// Hex SHA-256 over the contract and the feeds that it names, as declared: what approvers sign. Places are left
    /// out, and so is what is not declared, so that a later release with further keys gives the same digest.
    pub fn digest(&self, feeds: &Feeds) -> String {
        let mut json = self.to_json();
        if let Some(fields) = json.as_object_mut() {
            fields.remove("line");
            fields.retain(|_, value| !value.is_null() && value.as_array().is_none_or(|items| !items.is_empty()));
            let named = feeds.iter().filter(|feed| self.is_fed_by(&Origin::Feed(feed.kind, feed.name.clone())));
            let named: Vec<Json> = named
                .map(|feed| {
                    let mut json = feed.to_json();
                    json.as_object_mut().and_then(|fields| fields.remove("line"));
                    json
                })
                .collect();
            if !named.is_empty() {
                fields.insert("feeds".to_owned(), named.into());
            }
        }
        // Keys come sorted out of a JSON object here, so the text is the same for the same contract.
        hex(&Sha256::digest(json.to_string()))
    }

    /// The contract as a user wrote it, defaults filled in: for descriptions and records of change.
    pub fn to_json(&self) -> Json {
        let when_unavailable = match self.when_unavailable {
            _ if self.is_self_asserted() => None,
            WhenUnavailable::Deny => Some("deny"),
            WhenUnavailable::Absent => Some("absent"),
        };
        let mut json = json!({
            "name": self.name.as_str(),
            "type": self.kind.to_string(),
            "description": self.description,
            "owner": self.owner,
            "purpose": self.purpose,
            "subject": self.subject.as_str(),
            "sources": self.sources.iter().map(Source::to_json).collect::<Vec<_>>(),
            "max_age_ms": self.max_age.map(Span::as_millis),
            "influence": self.influence.as_str(),
            "when_unavailable": when_unavailable,
            "justification": self.justification,
            "used_by": self.used_by.iter().map(ActionId::as_str).collect::<Vec<_>>(),
            "sensitivity": self.log.as_str(),
            "review_by": self.review_by.to_string(),
            "line": self.place.line,
        });
        if let Some(fields) = json.as_object_mut() {
            fields.extend(self.combination.describe().map(|(key, value)| (key.to_owned(), value)));
        }
        json
    }
}
