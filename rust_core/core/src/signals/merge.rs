//! From what each source says to one fact: merging and corroboration (DESIGN section 5). Pure.

use super::combine::Merge;
use super::contract::Contract;
use crate::model::fact::{Company, Member, Stand};
use crate::model::{Assurance, Fact, Influence, State, Subject, Timestamp, Value};
use std::sync::Arc;

/// What one source says.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Fresh or not, and how not.
    pub state: State,
    /// The last known value.
    pub value: Option<Value>,
    /// When it was observed.
    pub observed_at: Option<Timestamp>,
    /// Whether the deciding principal itself said so.
    pub own: bool,
    /// How far the source can be trusted.
    pub assurance: Assurance,
    /// The source as recorded.
    pub label: Option<Arc<str>>,
}

impl Part {
    /// A source of which nothing is known.
    pub const fn missing(assurance: Assurance) -> Self {
        Self { state: State::Missing, value: None, observed_at: None, own: false, assurance, label: None }
    }

    fn fresh(&self) -> Option<&Value> {
        self.value.as_ref().filter(|_| self.state == State::Fresh)
    }

    /// The fact of a signal that has one source.
    pub fn into_fact(self, subject: Option<Subject>) -> Fact {
        let mut fact = Fact::missing(subject, self.assurance);
        fact.state = self.state;
        fact.value = self.value;
        fact.observed_at = self.observed_at;
        fact.source = self.label;
        // INVARIANT I3: what the deciding principal published itself counts as self-asserted.
        fact.self_published = self.own;
        fact
    }
}

/// One fact of several sources.
// INVARIANT I2: a source that is not fresh could say anything: the signal is fresh only if that would not matter.
pub fn merge(contract: &Contract, subject: Option<Subject>, parts: &[Part]) -> Fact {
    let mut fact = combine(contract, parts).into_fact(subject);
    if fact.self_published && fact.state == State::Fresh {
        let others: Vec<Part> =
            parts.iter().map(|part| if part.own { Part::missing(part.assurance) } else { part.clone() }).collect();
        let rest = combine(contract, &others);
        fact.without_own = Some(Box::new((rest.state, rest.value)));
    }
    fact
}

fn combine(contract: &Contract, parts: &[Part]) -> Part {
    let combined = match contract.combination.merge {
        Some(Merge::Agree) => agree(parts),
        Some(Merge::AnyAdverse) => any_adverse(contract, parts),
        Some(Merge::First) | None => parts.first().filter(|part| part.fresh().is_some()).cloned(),
    };
    combined.unwrap_or_else(|| unavailable(contract, parts))
}

/// Fresh if every source is, and all say the same.
fn agree(parts: &[Part]) -> Option<Part> {
    let first = parts.first()?.fresh()?;
    parts.iter().all(|part| part.fresh() == Some(first)).then(|| of_all(parts, State::Fresh, Some(first.clone())))
}

/// The most adverse word, if no word that could be missing would be worse.
fn any_adverse(contract: &Contract, parts: &[Part]) -> Option<Part> {
    let adverse = contract.combination.adverse.as_ref()?;
    let worst = parts.iter().filter_map(Part::fresh).reduce(|a, b| adverse.worse(a, b))?;
    if parts.iter().all(|part| part.state == State::Fresh) {
        return Some(of_all(parts, State::Fresh, Some(worst.clone())));
    }
    // INVARIANT: `worst` is the value of a fresh part.
    let says = |part: &&Part| part.fresh() == Some(worst) && !part.own;
    let speaker = parts.iter().find(says).or_else(|| parts.iter().find(|part| part.fresh() == Some(worst)));
    speaker.filter(|_| adverse.is(worst) && adverse.is_worst(worst, &contract.kind)).cloned()
}

/// To which all parts contributed: as old as the oldest, as good as the weakest.
fn of_all(parts: &[Part], state: State, value: Option<Value>) -> Part {
    let labels: Vec<&str> = parts.iter().filter_map(|part| part.label.as_deref()).collect();
    Part {
        state,
        value,
        observed_at: parts.iter().filter_map(|part| part.observed_at).min(),
        own: parts.iter().any(|part| part.own),
        assurance: parts.iter().map(|part| part.assurance).max().unwrap_or(Assurance::SelfAsserted),
        label: (!labels.is_empty()).then(|| labels.join(" ").into()),
    }
}

/// The worst state of the parts. Two fresh ones that say different things are disputed, where all must agree.
fn unavailable(contract: &Contract, parts: &[Part]) -> Part {
    let mut fresh = parts.iter().filter_map(Part::fresh);
    let first = fresh.next();
    let differ = contract.combination.merge == Some(Merge::Agree) && fresh.any(|value| Some(value) != first);
    let all = of_all(parts, State::Disputed, None);
    let lost = parts.iter().filter(|part| part.state != State::Fresh).min_by_key(|part| severity(part.state));
    match lost {
        Some(part) if !(differ && severity(State::Disputed) < severity(part.state)) => {
            Part { assurance: all.assurance, own: all.own, ..part.clone() }
        }
        _ => all,
    }
}

/// Worst first: unverified, disputed, future, stale, missing (DESIGN section 2).
const fn severity(state: State) -> u8 {
    match state {
        State::Unverified => 0,
        State::Disputed => 1,
        State::Future => 2,
        State::Stale => 3,
        State::Missing => 4,
        State::Fresh => 5,
    }
}

/// What a member of a corroborating group says in this decision.
pub fn member(contract: &Contract, fact: Option<&Fact>) -> Member {
    let stand = match fact.and_then(Fact::fresh_value) {
        Some(value) if contract.is_adverse(value) => Stand::Adverse,
        Some(_) => Stand::Calm,
        None => Stand::Unknown,
    };
    let revocable = contract.influence == Influence::Restrict || fact.is_some_and(Fact::is_self_asserted);
    Member { name: contract.name.clone(), stand, revocable }
}

/// The company of an adverse value, if its contract asks for one.
pub fn company(contract: &Contract, fact: &Fact, members: Vec<Member>) -> Option<Arc<Company>> {
    let corroborate = contract.combination.corroborate.as_ref()?;
    let adverse = fact.fresh_value().is_some_and(|value| contract.is_adverse(value));
    adverse.then(|| Arc::new(Company { need: corroborate.need, members }))
}
