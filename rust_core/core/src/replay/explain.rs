//! What the outcome of a recorded decision hangs on: influence as the record defines it, sets of signals that decide
//! together, the numbers at which the outcome flips, and the smallest change that would have let a denied call through.
//! All of it is found by deciding again, so it holds for the directory that is asked, and it is bounded.

use super::{
    Answer, Changes, Ended, Line, Replay, Unknowable,
    again::{Again, Asking, conclude},
    changes::said_by_all,
    facts::{About, Gathered, is_of_the_directory, matters},
    read::{self, Recorded},
    values::{Candidates, numbers},
    write,
};
use crate::{
    limits::{MAX_PAIRS_TRIED, MAX_TRIALS, MAX_VALUES_SHOWN},
    model::{Fact, State, Value},
    policy::{
        SignalIndex, Slice,
        influence::{Effected, influence, together},
    },
    reason::Reason,
    signals::Contract,
};
use serde::Serialize;
use serde_json::Value as Json;
use std::{cell::Cell, collections::BTreeMap, sync::Arc};

/// What is said of a decision.
#[derive(Serialize)]
struct Explained<'a> {
    decision_id: &'a str,
    /// Whether this directory decides as was decided.
    same: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    undecidable: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    now: Option<Answer<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    as_it_was: Option<&'static str>,
    influence: BTreeMap<String, &'static str>,
    minimal_sets: Vec<Vec<String>>,
    thresholds: Vec<Threshold>,
    smallest_change: Vec<Way>,
    /// Pairs of changes, where no single one flips a denial.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    smallest_pairs: Vec<Pair>,
    /// Whether a bound ended a search: there may be more.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cut: bool,
}

/// Where the outcome flips.
#[derive(Serialize)]
struct Threshold {
    name: String,
    value: Json,
    flips_at: Json,
    to_outcome: &'static str,
    to_reason: &'static str,
}

/// One change that flips a denial.
#[derive(Serialize)]
struct Way {
    /// `signal`, `grant` or `approval`.
    what: &'static str,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    change: Option<Changed>,
    /// What would come out; null where policies would only then be asked.
    outcome: Option<&'static str>,
    reason: Option<&'static str>,
}

/// Two changes that flip a denial together.
#[derive(Serialize)]
struct Pair {
    changes: [Changed; 2],
    outcome: &'static str,
    reason: &'static str,
}

/// A change to one signal.
#[derive(Clone, Serialize)]
struct Changed {
    name: String,
    was: &'static str,
    /// The value that policies saw.
    from: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
}

impl Replay {
    /// Explains one line of a log: one JSON object. Total.
    pub fn explain(&self, line: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        super::guarded(&mut out, |out| self.explain_line(line, out));
        out.pop();
        out
    }

    fn explain_line(&self, line: &[u8], out: &mut Vec<u8>) {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let recorded = match read::line(line) {
            Line::Decision(recorded) => recorded,
            other => return super::write_other(&other, out),
        };
        let again = Again::of(self, &recorded, &Changes::default());
        let mut explained = Explained {
            decision_id: &recorded.id,
            same: false,
            undecidable: None,
            now: None,
            as_it_was: None,
            influence: BTreeMap::new(),
            minimal_sets: Vec::new(),
            thresholds: Vec::new(),
            smallest_change: Vec::new(),
            smallest_pairs: Vec::new(),
            cut: false,
        };
        match again {
            Err(Unknowable(why)) => explained.undecidable = Some(why),
            Ok(Again { ended, asked }) => {
                explained.same = (ended.reason, ended.enforced) == (recorded.reason, recorded.enforced);
                explained.now = Some(Answer::of(ended.reason, ended.enforced));
                explained.as_it_was = ended.as_it_was;
                explained.smallest_change.extend(beside_signals(&ended));
                if let Some(Asking { case, gathered }) = &asked
                    && let Ok(slice) = self.running.snapshot.policies.slice(&case.query)
                {
                    let about = About::new(self, &recorded, case);
                    let trials = Cell::new(0);
                    let (replay, recorded, slice) = (self, &*recorded, &*slice);
                    Search { replay, recorded, asking: case, about, slice, gathered, ended: &ended, trials }
                        .fill(&mut explained);
                }
            }
        }
        write(&explained, out);
    }
}

/// What would flip a denial and is no signal.
fn beside_signals(ended: &Ended) -> Option<Way> {
    match ended.reason {
        // Policies are asked after it: what they would say is not known.
        Reason::GrantRequired => Some(Way { what: "grant", change: None, outcome: None, reason: None }),
        Reason::ApprovalRequired | Reason::ApprovalDenied | Reason::ApprovalExpired | Reason::ApprovalMismatch => {
            let (outcome, reason) = (Some("allow"), Some(Reason::Allowed.code()));
            Some(Way { what: "approval", change: None, outcome, reason })
        }
        _ => None,
    }
}

/// The decision, and all that is needed to make it with other facts.
struct Search<'a> {
    replay: &'a Replay,
    recorded: &'a Recorded<'a>,
    asking: &'a super::case::Case,
    about: About<'a>,
    slice: &'a dyn Slice,
    gathered: &'a Gathered<'a>,
    ended: &'a Ended,
    trials: Cell<usize>,
}

impl Search<'_> {
    fn fill(&self, explained: &mut Explained<'_>) {
        let Some(verdict) = &self.ended.verdict else { return };
        let rules = &self.replay.running.snapshot.rules;
        let facts = &self.gathered.facts;
        let effected = influence(self.slice, rules, facts, verdict);
        explained.influence = effected.iter().map(|(signal, did)| (self.name(*signal), did.as_str())).collect();
        if effected.iter().all(|(_, did)| *did == Effected::Consulted) {
            let found = together(self.slice, rules, facts, verdict);
            let named = |set: &Vec<SignalIndex>| set.iter().map(|signal| self.name(*signal)).collect();
            explained.minimal_sets = found.sets.iter().map(named).collect();
            explained.cut |= found.cut;
        }
        let candidates = self.candidates(explained);
        if self.ended.reason != Reason::Allowed {
            self.single(&candidates, explained);
            if explained.smallest_change.is_empty() {
                self.pairs(&candidates, explained);
            }
        }
        explained.cut |= self.trials.get() >= MAX_TRIALS;
    }

    fn name(&self, signal: SignalIndex) -> String {
        self.contract(signal).map(|contract| contract.name.as_str().to_owned()).unwrap_or_default()
    }

    fn contract(&self, signal: SignalIndex) -> Option<&Arc<Contract>> {
        self.replay.running.snapshot.register.contracts().get(usize::from(signal.0))
    }

    /// The decision with other facts in the place of some; `None` once enough was tried.
    fn tried(&self, others: &[(usize, &Fact)]) -> Option<Ended> {
        if self.trials.get() >= MAX_TRIALS {
            return None;
        }
        self.trials.set(self.trials.get() + 1);
        let mut gathered = self.gathered.clone();
        for (at, fact) in others {
            if let Some((_, known)) = gathered.facts.get_mut(*at) {
                *known = Fact::clone(fact);
            }
        }
        gathered.keep_company();
        Some(conclude(self.replay, self.recorded, self.asking, self.slice, &gathered))
    }

    /// What each signal that bears on the outcome could be tried as: its place among the facts, and other facts, the nearest
    /// first. Thresholds of numbers are found on the way.
    fn candidates(&self, explained: &mut Explained<'_>) -> Vec<(usize, Vec<Fact>)> {
        let matters = matters(self.replay, self.slice);
        let mut all = Vec::new();
        for (at, (signal, fact)) in self.gathered.facts.iter().enumerate() {
            let Some(contract) = self.contract(*signal).filter(|contract| !is_of_the_directory(contract)) else {
                continue;
            };
            if !matters.contains(signal) {
                continue;
            }
            let says = |value: &Value| said_by_all(contract, &self.about, fact.subject.clone(), value);
            let mut facts: Vec<Fact> = Vec::new();
            if fact.subject.is_some() {
                let values = match fact.fresh_value().and_then(Value::ordinal) {
                    Some(from) => self.flips(at, contract, from, explained),
                    None => Candidates::of(self.replay, self.slice, *signal, contract, fact).values,
                };
                facts.extend(values.iter().map(says));
            }
            if fact.state == State::Fresh {
                facts.push(Fact::missing(fact.subject.clone(), contract.assurance()));
            }
            all.push((at, facts));
        }
        all
    }

    /// The nearest values below and above a number at which the outcome flips.
    fn flips(&self, at: usize, contract: &Contract, from: i64, explained: &mut Explained<'_>) -> Vec<Value> {
        let Some((signal, fact)) = self.gathered.facts.get(at) else { return Vec::new() };
        let literals = numbers(self.replay, self.slice, *signal, contract);
        let is_allowed = self.ended.reason == Reason::Allowed;
        let decide = |ordinal: i64| {
            let value = contract.kind.at_ordinal(ordinal)?;
            let other = said_by_all(contract, &self.about, fact.subject.clone(), &value);
            self.tried(&[(at, &other)])
        };
        // Saying the same in all sources can be more than was said: then there is no number to compare with.
        if decide(from).is_none_or(|ended| (ended.reason == Reason::Allowed) != is_allowed) {
            return Vec::new();
        }
        let flipped = |ordinal: i64| {
            decide(ordinal).filter(|ended| (ended.reason == Reason::Allowed) != is_allowed).map(|ended| ended.reason)
        };
        let mut found: Vec<(u64, Value)> = Vec::new();
        for up in [false, true] {
            let Some((ordinal, reason)) = super::values::nearest(from, up, &literals, &flipped) else { continue };
            let (Some(value), Some(shown)) = (contract.kind.at_ordinal(ordinal), fact.value.as_ref()) else { continue };
            explained.thresholds.push(Threshold {
                name: contract.name.as_str().to_owned(),
                value: shown.to_json(),
                flips_at: value.to_json(),
                to_outcome: super::outcome(reason),
                to_reason: reason.code(),
            });
            found.push((from.abs_diff(ordinal), value));
        }
        found.sort_by_key(|(distance, _)| *distance);
        found.into_iter().map(|(_, value)| value).collect()
    }

    /// Changes to one signal that let the call through, a few for each.
    fn single(&self, candidates: &[(usize, Vec<Fact>)], explained: &mut Explained<'_>) {
        for (at, facts) in candidates {
            let mut shown = 0;
            for fact in facts {
                let Some(ended) = self.tried(&[(*at, fact)]) else { return };
                if ended.reason == Reason::Allowed && shown < MAX_VALUES_SHOWN {
                    shown += 1;
                    let (outcome, reason) = (Some("allow"), Some(ended.reason.code()));
                    explained.smallest_change.push(Way {
                        what: "signal",
                        change: self.changed(*at, fact),
                        outcome,
                        reason,
                    });
                }
            }
        }
    }

    /// Changes to two signals that let the call through together, one for each pair of signals.
    fn pairs(&self, candidates: &[(usize, Vec<Fact>)], explained: &mut Explained<'_>) {
        let mut tried = 0;
        for (first, (at, facts)) in candidates.iter().enumerate() {
            for (other_at, others) in candidates.iter().skip(first + 1) {
                let mut both = facts.iter().flat_map(|fact| others.iter().map(move |other| (fact, other)));
                let found = both.find_map(|(fact, other)| {
                    tried += 1;
                    let ended = self.tried(&[(*at, fact), (*other_at, other)]).filter(|_| tried <= MAX_PAIRS_TRIED)?;
                    (ended.reason == Reason::Allowed).then_some((fact, other))
                });
                if let Some((fact, other)) = found
                    && let (Some(one), Some(two)) = (self.changed(*at, fact), self.changed(*other_at, other))
                {
                    let (outcome, reason) = ("allow", Reason::Allowed.code());
                    explained.smallest_pairs.push(Pair { changes: [one, two], outcome, reason });
                }
                if tried > MAX_PAIRS_TRIED {
                    explained.cut = true;
                    return;
                }
            }
        }
    }

    fn changed(&self, at: usize, to: &Fact) -> Option<Changed> {
        let (signal, fact) = self.gathered.facts.get(at)?;
        Some(Changed {
            name: self.name(*signal),
            was: fact.state.as_str(),
            from: fact.fresh_value().map(Value::to_json),
            to: to.fresh_value().map(Value::to_json),
            state: (to.state != State::Fresh).then_some(to.state.as_str()),
        })
    }
}
