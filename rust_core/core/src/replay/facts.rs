//! From recorded signals to the facts that policies are asked with. What the directory itself says (facts of routes, windows
//! of time) is read anew; what came from elsewhere is taken as recorded and held against the contract of the directory.

use super::{
    Replay, Unknowable,
    case::Case,
    changes::Changes,
    read::{Known, Recorded, Signal},
};
use crate::{
    check,
    model::{
        Assurance, Fact, Overridden, Request, SpiffeId, StandIn, State, Subject, Timestamp, Value, names::SubjectKind,
    },
    policy::{SignalIndex, Slice},
    signals::{self, Asker, Cells, Contract, Source},
};
use std::sync::Arc;

/// The facts of one decision, and their contracts.
#[derive(Clone)]
pub(super) struct Gathered<'a> {
    pub(super) facts: Vec<(SignalIndex, Fact)>,
    pub(super) cells: Vec<&'a Cells>,
}

impl Gathered<'_> {
    /// Notes anew who else speaks against access: after each change to a fact.
    pub(super) fn keep_company(&mut self) {
        let mut facts: Vec<Fact> = self.facts.iter().map(|(_, fact)| fact.clone()).collect();
        signals::keep_company(&self.cells, &mut facts);
        for ((_, known), fact) in self.facts.iter_mut().zip(facts) {
            *known = fact;
        }
    }
}

/// The signals that this directory wants for a case, as the record has them, with changes made to them.
pub(super) fn gather<'a>(
    replay: &'a Replay,
    recorded: &'a Recorded<'a>,
    case: &Case,
    slice: &dyn Slice,
    changes: &Changes,
) -> Result<Gathered<'a>, Unknowable> {
    let (wanted, cells) = check::wanted(&replay.running, &case.query, slice);
    let matters = matters(replay, slice);
    let about = About::new(replay, recorded, case);
    let mut facts = Vec::with_capacity(wanted.len());
    for (index, cells) in wanted.iter().zip(&cells) {
        let mut fact = about.fact(cells);
        if !changes.is_empty() {
            let contract = cells.contract();
            let subject = about.subject(contract);
            if let Some(change) = changes.of(contract, subject.as_ref()) {
                fact = change.apply(contract, &about, subject, fact);
            }
        }
        let fact = match fact {
            Ok(fact) => fact,
            // No policy that decides reads it: it is there for the record.
            Err(_) if !matters.contains(index) => Fact::missing(None, cells.contract().assurance()),
            Err(why) => return Err(why),
        };
        facts.push((*index, fact));
    }
    let mut gathered = Gathered { facts, cells };
    gathered.keep_company();
    Ok(gathered)
}

/// Signals that can bear on the outcome: those that a policy in play mentions, and their company.
pub(super) fn matters(replay: &Replay, slice: &dyn Slice) -> Vec<SignalIndex> {
    let mut all = slice.mentioned();
    for at in 0..all.len() {
        let company = all.get(at).and_then(|signal| replay.running.company.get(usize::from(signal.0)));
        all.extend(company.into_iter().flatten());
    }
    all
}

/// What a signal is read of.
pub(super) struct About<'a> {
    replay: &'a Replay,
    recorded: &'a Recorded<'a>,
    asker: Asker<'a>,
    is_built_in: bool,
}

impl<'a> About<'a> {
    pub(super) fn new(replay: &'a Replay, recorded: &'a Recorded<'a>, case: &'a Case) -> Self {
        let asker = Asker {
            principal: &case.query.principal,
            resource: &case.query.resource,
            device: case.device.as_deref(),
            route: case.route.as_deref(),
            proofs: &[],
            derived: &replay.running.derived,
            task: case.task.as_ref(),
        };
        Self { replay, recorded, asker, is_built_in: case.route.is_none() }
    }

    pub(super) const fn now(&self) -> Timestamp {
        self.recorded.time
    }

    /// Whose word counts as the caller's own: its SPIFFE ID, and those of its chain.
    pub(super) fn us(&self) -> Vec<&SpiffeId> {
        let chain = self.asker.task.map_or(&[][..], |task| &task.chain);
        std::iter::once(self.asker.principal).chain(chain).collect()
    }

    /// Whom a signal is about in this decision, as far as that can be told.
    pub(super) fn subject(&self, contract: &Contract) -> Option<Subject> {
        match self.signal(contract) {
            Some(signal) => signal.subject.as_ref().map(|id| Subject { kind: contract.subject, id: Arc::from(&**id) }),
            None => signals::subject_of(&self.replay.store, contract.subject, &self.asker),
        }
    }

    fn signal(&self, contract: &Contract) -> Option<&Signal<'_>> {
        self.recorded.signals.iter().find(|signal| *signal.name == *contract.name.as_str())
    }

    pub(super) fn fact(&self, cells: &Cells) -> Result<Fact, Unknowable> {
        let contract = cells.contract();
        if is_of_the_directory(contract) {
            let read = signals::gather(&self.replay.store, &[cells], &self.asker, &Request::default(), self.now());
            return read.into_iter().next().ok_or_else(|| Unknowable(format!("`{}` can't be read", contract.name)));
        }
        match self.signal(contract) {
            Some(signal) => self.recorded_fact(contract, signal),
            None => Err(Unknowable(format!("a policy reads `{}`, and the record does not hold it", contract.name))),
        }
    }

    fn recorded_fact(&self, contract: &Contract, signal: &Signal<'_>) -> Result<Fact, Unknowable> {
        let unknowable = |why: &str| Err(Unknowable(format!("`{}`: {why}", contract.name)));
        let subject = self.subject(contract);
        let is_same = self.replay.is_of(self.recorded);
        if !is_same && !self.is_about(contract, subject.as_ref()) {
            return unknowable("it was recorded of another subject than the contract has now");
        }
        let mut fact = Fact::missing(subject, signal.assurance);
        fact.source = signal.source.as_ref().map(|source| Arc::from(&**source));
        fact.observed_at = signal.observed_at;
        fact.state = if is_same { signal.state } else { self.state(contract, signal)? };
        if fact.state == State::Fresh {
            fact.value = match &signal.known {
                Known::Value(json) => contract.kind.read_json(json),
                Known::Digest => return unknowable("it is secret, and the record holds a digest in its place"),
                Known::Nothing => None,
            };
            if fact.value.is_none() {
                return unknowable(&format!(
                    "it was recorded with another type than the contract's, {}",
                    contract.kind
                ));
            }
        }
        self.whose(contract, signal, &mut fact)?;
        Ok(fact)
    }

    /// Whether a recorded subject is the one that the contract now names. Of built-in actions the record does not say whose
    /// task it is about.
    fn is_about(&self, contract: &Contract, subject: Option<&Subject>) -> bool {
        let is_of_task = matches!(contract.subject, SubjectKind::Task | SubjectKind::Workflow);
        (self.is_built_in && is_of_task)
            || signals::subject_of(&self.replay.store, contract.subject, &self.asker).as_ref() == subject
    }

    /// The state by the contract of this directory: a value that it never heard of is none, and `max_age` may differ.
    fn state(&self, contract: &Contract, signal: &Signal<'_>) -> Result<State, Unknowable> {
        if signal.overridden.is_some() || !matches!(signal.state, State::Fresh | State::Stale) {
            return Ok(signal.state);
        }
        let Some(sources) = sources_of(contract, signal.source.as_deref().unwrap_or_default()) else {
            let why = "the source that said so is none of the contract's now";
            return Err(Unknowable(format!("`{}`: {why}", contract.name)));
        };
        let lives = sources.iter().any(|source| source.keeps_values_young());
        Ok(match (signal.observed_at, contract.max_age) {
            // A stream that is live keeps its values young, whenever they were observed.
            (Some(at), Some(max_age)) if !lives => {
                if self.now().since(at) > max_age {
                    State::Stale
                } else {
                    State::Fresh
                }
            }
            _ => signal.state,
        })
    }

    /// Whose word it is: the caller's own, two people's, or that of its source.
    fn whose(&self, contract: &Contract, signal: &Signal<'_>, fact: &mut Fact) -> Result<(), Unknowable> {
        let sources = signal.source.as_deref().and_then(|said| sources_of(contract, said));
        let declared = sources.and_then(|sources| sources.iter().map(|source| source.assurance).max());
        let declared = declared.unwrap_or_else(|| contract.assurance());
        let is_own = signal.assurance == Assurance::SelfAsserted && declared != Assurance::SelfAsserted;
        if let Some(word) = &signal.overridden {
            let by = word.by.each_ref().map(|by| Arc::<str>::from(&**by));
            fact.assurance = Assurance::Sourced;
            fact.self_published = signal.assurance == Assurance::SelfAsserted;
            fact.overridden = Some(StandIn {
                was: word.was,
                assurance: contract.assurance(),
                word: Arc::new(Overridden {
                    name: contract.name.clone(),
                    subject: fact.subject.clone().unwrap_or(Subject { kind: contract.subject, id: "-".into() }),
                    value: fact.value.clone().unwrap_or(Value::Bool(false)),
                    reason: Arc::from(&*word.reason),
                    by,
                    at: signal.observed_at.unwrap_or(self.now()),
                    expires_at: word.expires_at,
                }),
            });
        } else if is_own || signal.without_own.is_some() {
            fact.assurance = declared;
            fact.self_published = true;
        } else if fact.state == State::Fresh {
            fact.assurance = declared;
        }
        if let Some((state, left)) = &signal.without_own {
            let value = match left {
                Known::Value(json) => contract.kind.read_json(json),
                Known::Digest if *state == State::Fresh => {
                    let why = "it is secret, and the record holds a digest of what others said";
                    return Err(Unknowable(format!("`{}`: {why}", contract.name)));
                }
                Known::Digest | Known::Nothing => None,
            };
            fact.without_own = Some(Box::new((*state, value)));
        }
        Ok(())
    }
}

/// The sources of the contract that a record names: one, or several joined by a space. `None`: one is not the contract's.
fn sources_of<'c>(contract: &'c Contract, said: &str) -> Option<Vec<&'c Source>> {
    let named = |label: &str| contract.sources.iter().find(|source| *source.label == *label);
    named(said).map(|source| vec![source]).or_else(|| said.split(' ').map(named).collect())
}

/// Whether the directory alone says it: a fact of the route, or a window of time.
pub(super) fn is_of_the_directory(contract: &Contract) -> bool {
    !contract.sources.is_empty() && contract.sources.iter().all(|source| matches!(source.kind, "route" | "time"))
}
