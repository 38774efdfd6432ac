//! Facts: what is known of one signal in one decision (DESIGN section 2).

use super::{
    names::{SignalName, Subject},
    overridden::StandIn,
    time::Timestamp,
    value::Value,
};
use std::sync::Arc;

/// State of a signal in one decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Known, and young enough.
    Fresh,
    /// Known, but older than `max_age`.
    Stale,
    /// Nothing known, or its subject can't be found.
    Missing,
    /// Sources disagree.
    Disputed,
    /// Its publisher or key is no longer good.
    Unverified,
    /// Observed beyond the clock skew.
    Future,
}

impl State {
    /// Every state, with the word of files and records.
    pub const ALL: &'static [(&'static str, Self)] = &[
        ("fresh", Self::Fresh),
        ("stale", Self::Stale),
        ("missing", Self::Missing),
        ("disputed", Self::Disputed),
        ("unverified", Self::Unverified),
        ("future", Self::Future),
    ];

    /// The word of files and records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Missing => "missing",
            Self::Disputed => "disputed",
            Self::Unverified => "unverified",
            Self::Future => "future",
        }
    }
}

/// How far a source can be trusted (after NISTIR 8112 pedigree), weakest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Assurance {
    /// From the owner of the fact.
    Authoritative,
    /// From someone who obtained it from the owner.
    Sourced,
    /// Computed from other facts.
    Derived,
    /// The caller says so of itself.
    SelfAsserted,
}

impl Assurance {
    /// Every value, with the word that files use.
    pub const ALL: &'static [(&'static str, Self)] = &[
        ("authoritative", Self::Authoritative),
        ("sourced", Self::Sourced),
        ("derived", Self::Derived),
        ("self_asserted", Self::SelfAsserted),
    ];
    /// The word that files use.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, v)| *v == self).map_or("", |(word, _)| word)
    }
}

/// What a contract allows its signal to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Influence {
    /// May widen or restrict.
    Grant,
    /// May only restrict.
    Restrict,
    /// Recorded, decides nothing.
    Observe,
}

impl Influence {
    /// Every value, with the word that files use.
    pub const ALL: &'static [(&'static str, Self)] =
        &[("grant", Self::Grant), ("restrict", Self::Restrict), ("observe", Self::Observe)];
    /// The word that files use.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, v)| *v == self).map_or("", |(word, _)| word)
    }
}

/// What an unavailable signal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WhenUnavailable {
    /// Any value is possible (the default).
    Deny,
    /// Policies see it missing; for the states missing and stale only.
    Absent,
}

/// One signal as this decision sees it. `value` beside a state other than `Fresh` is what was last known:
/// it is recorded, never handed to a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Whose value; `None` if the request has no such subject.
    pub subject: Option<Subject>,
    /// Fresh or not, and how not.
    pub state: State,
    /// The last known value.
    pub value: Option<Value>,
    /// Assurance of the weakest source that contributed, before the decision's own principal is looked at.
    pub assurance: Assurance,
    /// True if the deciding principal (or a member of its chain) published it: counts as self-asserted here.
    pub self_published: bool,
    /// The source as recorded: `push:spiffe://…`, `header:x-task-type`.
    pub source: Option<Arc<str>>,
    /// When it was observed.
    pub observed_at: Option<Timestamp>,
    /// State and value that the other sources leave, if what the deciding principal published is withdrawn.
    /// `None`: nothing is left.
    pub without_own: Option<Box<(State, Option<Value>)>>,
    /// Who else speaks against access, where an adverse value counts only in company.
    pub company: Option<Arc<Company>>,
    /// Two people's word that stands in for the signal; state and value are theirs then.
    pub overridden: Option<StandIn>,
}

/// The group around an adverse value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Company {
    /// So many must be adverse, the signal itself included.
    pub need: usize,
    /// The others.
    pub members: Vec<Member>,
}

/// One of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: SignalName,
    /// What it says.
    pub stand: Stand,
    /// Whether its word may be withdrawn.
    pub revocable: bool,
}

/// What a member of the group says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    /// It speaks against access, too.
    Adverse,
    /// It does not.
    Calm,
    /// It is not available: it could be either.
    Unknown,
}

impl Company {
    /// Whether the adverse value counts in some world, and whether there is one in which it does not.
    /// `doubted`: members that could say anything. `withdraw`: revocable words as they are or withdrawn.
    pub fn outcomes(&self, doubted: &[&SignalName], withdraw: bool) -> (bool, bool) {
        let stand = |member: &Member| {
            let open = doubted.contains(&&member.name) || (withdraw && member.revocable);
            if open { Stand::Unknown } else { member.stand }
        };
        let count = |wanted: Stand| self.members.iter().filter(|member| stand(member) == wanted).count();
        let adverse = 1 + count(Stand::Adverse);
        (adverse + count(Stand::Unknown) >= self.need, adverse < self.need)
    }

    /// Whether a signal is one of the others.
    pub fn includes(&self, name: &SignalName) -> bool {
        self.members.iter().any(|member| member.name == *name)
    }

    /// For records: `counts`, `alone` (policies see it absent), or `open`.
    pub fn as_str(&self) -> &'static str {
        match self.outcomes(&[], false) {
            (true, false) => "counts",
            (false, _) => "alone",
            (true, true) => "open",
        }
    }
}

impl Fact {
    /// A signal of which nothing is known.
    pub fn missing(subject: Option<Subject>, assurance: Assurance) -> Self {
        Self {
            subject,
            state: State::Missing,
            value: None,
            assurance,
            self_published: false,
            source: None,
            observed_at: None,
            without_own: None,
            company: None,
            overridden: None,
        }
    }

    /// The value, if policies may see it.
    pub fn fresh_value(&self) -> Option<&Value> {
        self.value.as_ref().filter(|_| self.state == State::Fresh)
    }

    /// The state, whatever people said in its place.
    pub fn true_state(&self) -> State {
        self.overridden.as_ref().map_or(self.state, |stand_in| stand_in.was)
    }

    /// Whether a self-asserted value contributed in this decision (I3).
    pub fn is_self_asserted(&self) -> bool {
        self.self_published || self.assurance == Assurance::SelfAsserted
    }
}
