//! Approvals: a question about one exact call, and what a yes to it is bound to.

use super::{ActionId, Fingerprint, ResourceId, SpiffeId, TaskId, Timestamp};
use std::{collections::BTreeMap, fmt, sync::Arc};

/// Id of an approval: made by us, a UUID.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApprovalId(Arc<str>);

impl ApprovalId {
    /// Parses an id.
    pub fn parse(text: &str) -> Option<Self> {
        let good = (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        good.then(|| Self(text.into()))
    }

    /// The id as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ApprovalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A policy that a decision rests on, in the text that it had.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyText {
    /// Its id.
    pub id: Box<str>,
    /// Hex SHA-256 of its text.
    pub sha256: Box<str>,
}

/// What is asked: may this one call be made?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Which one.
    pub id: ApprovalId,
    /// SHA-256 over all that the call is made of: whatever differs is another call.
    pub binding: Fingerprint,
    /// Who asks.
    pub requester: SpiffeId,
    /// Who acts for it.
    pub actor: Option<Box<str>>,
    /// The task under whose grant it is asked.
    pub task: Option<TaskId>,
    /// What is to be done.
    pub action: ActionId,
    /// To what.
    pub resource: ResourceId,
    /// HTTP method.
    pub method: Box<str>,
    /// Host as sent.
    pub host: Box<str>,
    /// Path with query as sent.
    pub path: Box<str>,
    /// SHA-256 of the whole body.
    pub body: Fingerprint,
    /// Arguments that the route names, as text, for whoever answers.
    pub args: BTreeMap<Box<str>, Box<str>>,
    /// What the policies that demand it say.
    pub words: Vec<Box<str>>,
    /// The policies that the call would be allowed by, and those that demand the approval.
    pub policies: Vec<PolicyText>,
    /// When it was asked.
    pub asked_at: Timestamp,
    /// Until when it can be answered, and a yes be used.
    pub expires_at: Timestamp,
    /// How many must say yes.
    pub need: u32,
}

/// What somebody answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The question.
    pub id: ApprovalId,
    /// Who: a client, or `policy:<id>`.
    pub by: Box<str>,
    /// Yes or no.
    pub approve: bool,
    /// Why, for people.
    pub comment: Box<str>,
    /// When.
    pub at: Timestamp,
}
