//! Tasks and what bounds them: names, scopes and how one scope lies within another. A grant is known here by the digest of
//! its token alone.

use super::{
    ActionId, Environment, Fingerprint, ResourceId, Sensitivity, SpiffeId, Timestamp, names::is_entity_type, time::Span,
};
use crate::limits;
use std::{collections::BTreeSet, fmt, sync::Arc};

/// Id of a task: made by us, a UUID.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(Arc<str>);

/// Id of a workflow: visible ascii, at most 256 bytes, as a subject of signals.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkflowId(Arc<str>);

/// Type of a task: written like the name of an action.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskType(ActionId);

macro_rules! shown {
    ($($name:ident)*) => { $(
        impl $name {
            /// The name as written.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The name, shared: a clone of it allocates nothing.
            pub fn shared(&self) -> Arc<str> {
                Arc::clone(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )* };
}

shown! { TaskId WorkflowId }

impl TaskId {
    /// Parses an id.
    pub fn parse(text: &str) -> Option<Self> {
        let good = (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        good.then(|| Self(text.into()))
    }
}

impl WorkflowId {
    /// How one is written, for messages.
    pub const FORM: &'static str = "an id of at most 256 visible ascii characters, other than `*`";

    /// Parses an id.
    pub fn parse(text: &str) -> Option<Self> {
        let good = !text.is_empty() && text.len() <= 256 && text != "*" && text.bytes().all(|b| b.is_ascii_graphic());
        good.then(|| Self(text.into()))
    }
}

impl TaskType {
    /// Parses a type.
    pub fn parse(text: &str) -> Option<Self> {
        ActionId::parse(text).map(Self)
    }

    /// The type as written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// What of resources a task may touch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceScope {
    /// One.
    One(ResourceId),
    /// All of a type.
    All(Arc<str>),
}

impl ResourceScope {
    /// Reads `Type::"id"` or `Type::*`.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > limits::MAX_SUBJECT_BYTES {
            return None;
        }
        match text.strip_suffix("::*") {
            Some(kind) => is_entity_type(kind).then(|| Self::All(kind.into())),
            None => ResourceId::parse(text).map(Self::One),
        }
    }

    fn holds(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All(kind), Self::All(other)) => kind == other,
            (Self::All(kind), Self::One(other)) => *kind == other.kind,
            (Self::One(one), Self::One(other)) => one == other,
            (Self::One(_), Self::All(_)) => false,
        }
    }
}

impl fmt::Display for ResourceScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(resource) => resource.fmt(f),
            Self::All(kind) => write!(f, "{kind}::*"),
        }
    }
}

/// What a task may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// These actions.
    pub actions: BTreeSet<ActionId>,
    /// On these resources.
    pub resources: BTreeSet<ResourceScope>,
    /// Of these systems: those of the actions' routes when it began. A resource of no system is of none of them.
    pub systems: BTreeSet<Arc<str>>,
    /// Up to this sensitivity.
    pub sensitivity: Sensitivity,
    /// Of this environment, and of routes that name none.
    pub environment: Option<Environment>,
}

/// A call, as scopes see it.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// What is done.
    pub action: &'a ActionId,
    /// To what.
    pub resource: &'a ResourceId,
    /// Of what system.
    pub system: Option<&'a Arc<str>>,
    /// How sensitive it is.
    pub sensitivity: Sensitivity,
    /// In which environment.
    pub environment: Option<&'a Environment>,
}

/// In what a scope is exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dimension {
    /// An action.
    Action,
    /// A resource.
    Resource,
    /// A system.
    System,
    /// The sensitivity.
    Sensitivity,
    /// The environment.
    Environment,
    /// The end.
    Expiry,
    /// How many tasks stand above.
    Depth,
}

impl Dimension {
    /// Its word, as answers and records have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Action => "actions",
            Self::Resource => "resources",
            Self::System => "systems",
            Self::Sensitivity => "sensitivity",
            Self::Environment => "environment",
            Self::Expiry => "expiry",
            Self::Depth => "depth",
        }
    }
}

impl Scope {
    /// In what a call goes beyond this scope, if in anything.
    pub fn exceeded_by(&self, call: &Call<'_>) -> Option<Dimension> {
        let held = |resource: &ResourceId| {
            self.resources.iter().any(|scope| match scope {
                ResourceScope::One(one) => one == resource,
                ResourceScope::All(kind) => *kind == resource.kind,
            })
        };
        if !self.actions.contains(call.action) {
            Some(Dimension::Action)
        } else if !held(call.resource) {
            Some(Dimension::Resource)
        } else if call.system.is_some_and(|system| !self.systems.contains(system)) {
            Some(Dimension::System)
        } else if call.sensitivity > self.sensitivity {
            Some(Dimension::Sensitivity)
        } else if call.environment.is_some() && call.environment != self.environment.as_ref() {
            Some(Dimension::Environment)
        } else {
            None
        }
    }

    /// In what another scope goes beyond this one, if in anything.
    pub fn widened_by(&self, child: &Self) -> Option<Dimension> {
        let held = |wanted: &ResourceScope| self.resources.iter().any(|scope| scope.holds(wanted));
        if !child.actions.is_subset(&self.actions) {
            Some(Dimension::Action)
        } else if !child.resources.iter().all(held) {
            Some(Dimension::Resource)
        } else if !child.systems.is_subset(&self.systems) {
            Some(Dimension::System)
        } else if child.sensitivity > self.sensitivity {
            Some(Dimension::Sensitivity)
        } else if child.environment.is_some() && child.environment != self.environment {
            Some(Dimension::Environment)
        } else {
            None
        }
    }
}

/// What a principal was given leave to do, until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Which one.
    pub id: TaskId,
    /// The first of its chain; itself if nobody delegated it.
    pub root: TaskId,
    /// Whose part it is.
    pub parent: Option<TaskId>,
    /// How many tasks stand above.
    pub depth: u32,
    /// Who holds the grant.
    pub principal: SpiffeId,
    /// The client that asked for it.
    pub created_by: SpiffeId,
    /// What kind of task it is.
    pub kind: TaskType,
    /// The workflow that it belongs to.
    pub workflow: Option<WorkflowId>,
    /// What it may do.
    pub scope: Scope,
    /// When it began.
    pub begun_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Timestamp,
    /// How long it may lie idle.
    pub idle: Option<Span>,
    /// The certificate that the grant is bound to.
    pub certificate: Option<Fingerprint>,
    /// SHA-256 of the grant.
    pub grant: Fingerprint,
}

/// How a task ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was done.
    Completed,
    /// It was taken back.
    Revoked,
}

impl Ending {
    /// Every way, with its word.
    pub const ALL: &'static [(&'static str, Self)] = &[("completed", Self::Completed), ("revoked", Self::Revoked)];

    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == word).map(|(_, ending)| *ending)
    }

    /// The word.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, ending)| *ending == self).map_or("", |(word, _)| word)
    }
}

/// What signals may know of the task of a request: its grant was looked at, and is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskFacts {
    /// Which one.
    pub task: Arc<str>,
    /// The first of its chain.
    pub root: Arc<str>,
    /// The workflow that it belongs to.
    pub workflow: Option<Arc<str>>,
    /// Whether that is approved.
    pub in_approved_workflow: bool,
    /// When the first of its chain began.
    pub begun_at: Timestamp,
    /// The principals of the chain.
    pub chain: Vec<SpiffeId>,
    /// Calls allowed under its tree so far; `None` if not all of them were seen.
    pub calls: Option<i64>,
    /// Distinct resources among them, up to a bound; `None` likewise.
    pub resources: Option<i64>,
    /// Systems that its tree has touched.
    pub systems: i64,
}
