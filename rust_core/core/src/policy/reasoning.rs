//! Three-valued evaluation: what holds whatever the unavailable and self-asserted signals are
//! (DESIGN section 6, step 5). Independent of the engine that judges one policy in one world.

use super::{
    Effect, EngineKind, Facts, Judged, PolicyInfo, Seen, SignalIndex, SignalRule, Slice, Standing, standing,
    withdrawn_is_absent,
};
use crate::{
    limits::MAX_MIXES,
    model::{Fact, Influence, SignalName, State, WhenUnavailable},
    reason::Reason,
};

/// What is known of one policy over every world tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Truth {
    /// It applies in every world.
    Certain,
    /// It applies in none.
    Never,
    /// It applies in some, or the engine can't tell.
    May,
    /// It fails in one.
    Failed(String),
}

/// The outcome of evaluating the policies in play.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `allowed` or the reason against it.
    pub reason: Reason,
    /// The policies in play: indices into `PolicyEngine::policies`, ascending.
    pub in_play: Vec<u32>,
    /// The truth of each of them, of the evaluation that gave the reason.
    pub truths: Vec<Truth>,
    /// Policies whose demand for an approval stands: indices into `PolicyEngine::policies`, ascending. Only an allow
    /// has any.
    pub gates: Vec<u32>,
    /// True if the first evaluation allowed and the recheck of revocable words was made.
    pub rechecked: bool,
}

/// The possible worlds of all signals of a decision.
#[derive(Debug)]
struct Worlds {
    /// Each signal in its first possibility: as it is where it is known, absent where it is uncertain.
    first: Vec<(SignalIndex, Seen)>,
    /// Those that have more than one, by their place in `first`: all of them, the first one included.
    open: Vec<(usize, Vec<Seen>)>,
}

impl Worlds {
    fn signal_at(&self, slot: usize) -> Option<SignalIndex> {
        self.first.get(slot).map(|(signal, _)| *signal)
    }

    fn open_signals(&self) -> impl Iterator<Item = SignalIndex> {
        self.open.iter().filter_map(|(slot, _)| self.signal_at(*slot))
    }
}

/// Evaluates: once plainly where all is known (the common case), else policy by policy over every mix.
///
/// INVARIANT I2: an uncertain signal allows only if each of its values, and its absence, would.
/// INVARIANT I3: a revocable word allows only if its withdrawal would, too.
pub fn evaluate(slice: &dyn Slice, rules: &[SignalRule], facts: &Facts) -> Verdict {
    let truths = judge(slice, &worlds(rules, facts, &[], false), None);
    let Outcome { reason, gates } = conclude(slice, &truths);
    let in_play = slice.in_play().to_vec();
    if reason != Reason::Allowed || !any_revocable(rules, facts, &[]) {
        return Verdict { reason, in_play, truths, gates, rechecked: false };
    }
    let without = judge(slice, &worlds(rules, facts, &[], true), Some(&truths));
    let after = after_recheck(slice, &without);
    // An allow that stands is explained by the policies that made it, as they saw the words.
    let stands = after.reason == Reason::Allowed && after.gates == gates;
    let truths = if stands { truths } else { without };
    Verdict { reason: after.reason, in_play, truths, gates: after.gates, rechecked: true }
}

/// What follows from truths. An allow is free, or waits for somebody's yes: the order is denied, gated, free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) reason: Reason,
    /// Policies whose demand for an approval stands; none unless the reason is `Allowed`.
    pub(super) gates: Vec<u32>,
}

impl Outcome {
    fn refused(reason: Reason) -> Self {
        Self { reason, gates: Vec::new() }
    }

    /// Whether another outcome is of the same kind: the same reason, and a yes is asked for or is not.
    pub(super) fn is_like(&self, reason: Reason, gates: &[u32]) -> bool {
        self.reason == reason && self.gates.is_empty() == gates.is_empty()
    }

    pub(super) fn is_free(&self) -> bool {
        self.reason == Reason::Allowed && self.gates.is_empty()
    }
}

fn any_revocable(rules: &[SignalRule], facts: &Facts, doubted: &[SignalIndex]) -> bool {
    facts.iter().any(|(signal, fact)| standing_of(rules, *signal, fact, doubted) == Standing::Revocable)
}

/// The worlds of the recheck hold those of the first evaluation, so this is the least over all of them.
fn after_recheck(slice: &dyn Slice, truths: &[Truth]) -> Outcome {
    let outcome = conclude(slice, truths);
    match outcome.reason {
        Reason::Allowed | Reason::EngineError => outcome,
        _ => Outcome::refused(Reason::SignalWideningRefused),
    }
}

/// The question behind `decisive`: what would the reason be, were one signal (or several) uncertain whatever is known of it?
/// A doubt changes only the truths of the policies that mention such a signal, so the others are judged once for all.
pub(super) struct Doubts<'a> {
    slice: &'a dyn Slice,
    rules: &'a [SignalRule],
    facts: &'a Facts,
    before: Vec<Truth>,
    without: Option<Vec<Truth>>,
}

impl<'a> Doubts<'a> {
    pub(super) fn new(slice: &'a dyn Slice, rules: &'a [SignalRule], facts: &'a Facts) -> Self {
        let before = judge(slice, &worlds(rules, facts, &[], false), None);
        let without =
            any_revocable(rules, facts, &[]).then(|| judge(slice, &worlds(rules, facts, &[], true), Some(&before)));
        Self { slice, rules, facts, before, without }
    }

    /// The outcome before words are withdrawn, with nothing doubted.
    pub(super) fn undoubted_before_recheck(&self) -> Outcome {
        conclude(self.slice, &self.before)
    }

    /// The outcome before words are withdrawn.
    pub(super) fn before_recheck(&self, doubted: &[SignalIndex]) -> Outcome {
        conclude(self.slice, &self.rejudge(&self.before, doubted, false))
    }

    /// The outcome of the whole evaluation.
    pub(super) fn outcome(&self, doubted: &[SignalIndex]) -> Outcome {
        let before = self.before_recheck(doubted);
        match &self.without {
            Some(without) if before.reason == Reason::Allowed && any_revocable(self.rules, self.facts, doubted) => {
                after_recheck(self.slice, &self.rejudge(without, doubted, true))
            }
            _ => before,
        }
    }

    fn rejudge(&self, truths: &[Truth], doubted: &[SignalIndex], withdraw: bool) -> Vec<Truth> {
        let worlds = worlds(self.rules, self.facts, doubted, withdraw);
        // A doubt about one of a group is a doubt about each adverse value that needs its company.
        let names = names_of(self.rules, doubted);
        let concerns =
            |fact: &Fact| fact.company.as_ref().is_some_and(|company| names.iter().any(|name| company.includes(name)));
        let mut touched: Vec<SignalIndex> =
            self.facts.iter().filter(|(_, fact)| concerns(fact)).map(|(signal, _)| *signal).collect();
        touched.extend_from_slice(doubted);
        let again = |(at, known): (usize, &Truth)| {
            let mentions = &self.slice.info(at).mentions;
            if touched.iter().any(|signal| mentions.binary_search(signal).is_ok()) {
                judge_mixes(self.slice, at, &worlds, &Truth::May)
            } else {
                known.clone()
            }
        };
        truths.iter().enumerate().map(again).collect()
    }
}

fn standing_of(rules: &[SignalRule], signal: SignalIndex, fact: &Fact, doubted: &[SignalIndex]) -> Standing {
    if doubted.contains(&signal) {
        return Standing::Uncertain;
    }
    // A fact without a rule can't arise from a checked configuration; the cautious answer all the same.
    rules.get(usize::from(signal.0)).map_or(Standing::Uncertain, |rule| standing(rule, fact))
}

fn worlds(rules: &[SignalRule], facts: &Facts, doubted: &[SignalIndex], withdraw: bool) -> Worlds {
    let doubted_names = names_of(rules, doubted);
    let mut worlds = Worlds { first: Vec::with_capacity(facts.len()), open: Vec::new() };
    for (slot, (signal, fact)) in facts.iter().enumerate() {
        let standing = standing_of(rules, *signal, fact, doubted);
        let as_it_is_alone = standing == Standing::Known || (standing == Standing::Revocable && !withdraw);
        match &fact.value {
            // Nearly every signal of nearly every decision: one possibility.
            Some(value) if as_it_is_alone && fact.company.is_none() => {
                worlds.first.push((*signal, Seen::Value(value.clone())));
            }
            _ => {
                let seen = possibilities(rules.get(usize::from(signal.0)), fact, standing, &doubted_names, withdraw);
                worlds.first.push((*signal, seen.first().cloned().unwrap_or(Seen::Absent)));
                if seen.len() > 1 {
                    worlds.open.push((slot, seen));
                }
            }
        }
    }
    worlds
}

/// What a signal could be; never nothing. The first entry is the signal as it is, where it is known.
fn possibilities(
    rule: Option<&SignalRule>,
    fact: &Fact,
    standing: Standing,
    doubted: &[&SignalName],
    withdraw: bool,
) -> Vec<Seen> {
    let mut seen = Vec::with_capacity(2);
    match standing {
        Standing::Known => as_it_is(fact, doubted, withdraw, &mut seen),
        Standing::Absent => seen.push(Seen::Absent),
        Standing::Uncertain => anything(rule, &mut seen),
        Standing::Revocable => {
            as_it_is(fact, doubted, withdraw, &mut seen);
            if withdraw {
                withdrawn(rule, fact, &mut seen);
            }
        }
    }
    if seen.is_empty() {
        // Fresh without a value can't be; fail closed.
        anything(rule, &mut seen);
    }
    seen
}

fn names_of<'r>(rules: &'r [SignalRule], signals: &[SignalIndex]) -> Vec<&'r SignalName> {
    signals.iter().filter_map(|signal| rules.get(usize::from(signal.0))).map(|rule| &rule.name).collect()
}

/// A fresh value. An adverse one that counts only in company is absent in the worlds in which it stands alone.
fn as_it_is(fact: &Fact, doubted: &[&SignalName], withdraw: bool, seen: &mut Vec<Seen>) {
    // The first possibility is the signal as it is now; a later question only adds worlds to it.
    let (counts_now, alone_now) = fact.company.as_ref().map_or((true, false), |c| c.outcomes(&[], false));
    let (counts, alone) = fact.company.as_ref().map_or((true, false), |c| c.outcomes(doubted, withdraw));
    let value = fact.value.clone().map(Seen::Value);
    if counts_now {
        seen.extend(value.clone());
    }
    if alone_now || alone {
        seen.push(Seen::Absent);
    }
    if counts && !counts_now {
        seen.extend(value);
    }
}

/// What is left of a signal whose revocable words are taken away.
fn withdrawn(rule: Option<&SignalRule>, fact: &Fact, seen: &mut Vec<Seen>) {
    let Some(rule) = rule else { return anything(None, seen) };
    let only_own = (rule.influence != Influence::Restrict || fact.overridden.is_some()) && fact.self_published;
    let left = fact.without_own.as_deref().filter(|_| only_own);
    let possible = match left {
        // The other sources still say it.
        Some((State::Fresh, Some(value))) => Seen::Value(value.clone()),
        Some((state, _)) if absent_in(rule, *state) => Seen::Absent,
        None if withdrawn_is_absent(rule, fact) => Seen::Absent,
        _ => return anything(Some(rule), seen),
    };
    if !seen.contains(&possible) {
        seen.push(possible);
    }
}

/// Whether policies see a signal of this contract absent in this state.
fn absent_in(rule: &SignalRule, state: State) -> bool {
    rule.when_unavailable == WhenUnavailable::Absent && matches!(state, State::Missing | State::Stale)
}

/// Absence, and each value of a finite type or one unknown of any other.
fn anything(rule: Option<&SignalRule>, seen: &mut Vec<Seen>) {
    let every = rule.and_then(|rule| rule.kind.every_value());
    let values = every.map_or_else(|| vec![Seen::Any], |values| values.into_iter().map(Seen::Value).collect());
    for possible in std::iter::once(Seen::Absent).chain(values) {
        if !seen.contains(&possible) {
            seen.push(possible);
        }
    }
}

/// Truth of each policy in play. `settled`: truths of an evaluation to whose worlds these only add, so that
/// nothing is judged twice.
fn judge(slice: &dyn Slice, worlds: &Worlds, settled: Option<&[Truth]>) -> Vec<Truth> {
    // One context for all policies, in the first world: uncertain signals are absent in it, the others as they are.
    let mut truths: Vec<Truth> =
        settled.map_or_else(|| slice.judge_all(&worlds.first).into_iter().map(truth).collect(), <[Truth]>::to_vec);
    if worlds.open.is_empty() {
        return truths;
    }
    let open: Vec<SignalIndex> = worlds.open_signals().collect();
    for (at, truth) in truths.iter_mut().enumerate() {
        let mentions = &slice.info(at).mentions;
        if open.iter().any(|signal| mentions.binary_search(signal).is_ok()) {
            *truth = judge_mixes(slice, at, worlds, truth);
        }
    }
    truths
}

fn truth(judged: Judged) -> Truth {
    match judged {
        Judged::True => Truth::Certain,
        Judged::False => Truth::Never,
        Judged::Open => Truth::May,
        Judged::Failed(why) => Truth::Failed(why),
    }
}

/// One policy over every mix of its own signals, in the order of an odometer. The first mix is the first world,
/// whose truth is known already, unless the policy was open before (`May`): then it is judged like the others.
fn judge_mixes(slice: &dyn Slice, at: usize, worlds: &Worlds, in_first: &Truth) -> Truth {
    let mentions = &slice.info(at).mentions;
    let is_own = |slot: usize| worlds.signal_at(slot).is_some_and(|signal| mentions.binary_search(&signal).is_ok());
    let own: Vec<&(usize, Vec<Seen>)> = worlds.open.iter().filter(|(slot, _)| is_own(*slot)).collect();
    let mixes = own.iter().try_fold(1_usize, |n, (_, seen)| n.checked_mul(seen.len()).filter(|n| *n <= MAX_MIXES));
    let Some(mixes) = mixes else { return Truth::May };
    let mut seen = worlds.first.clone();
    let (mut some_true, mut some_false, mut some_open, mut failed) = (false, false, false, None);
    let mut note = |judged: Judged| match judged {
        Judged::True => some_true = true,
        Judged::False => some_false = true,
        Judged::Open => some_open = true,
        Judged::Failed(why) => failed = failed.take().or(Some(why)),
    };
    let known = match in_first {
        Truth::Certain => Some(Judged::True),
        Truth::Never => Some(Judged::False),
        Truth::Failed(why) => Some(Judged::Failed(why.clone())),
        Truth::May => None,
    };
    let start = usize::from(known.is_some());
    known.map(&mut note);
    for mix in start..mixes {
        let mut rest = mix;
        for (slot, possible) in &own {
            let pick = possible.get(rest % possible.len());
            rest /= possible.len();
            if let (Some(entry), Some(pick)) = (seen.get_mut(*slot), pick) {
                entry.1 = pick.clone();
            }
        }
        note(slice.judge_one(at, &seen));
    }
    match (failed, some_true, some_false, some_open) {
        (Some(why), ..) => Truth::Failed(why),
        (None, true, false, false) => Truth::Certain,
        (None, false, true, false) => Truth::Never,
        _ => Truth::May,
    }
}

/// What follows from the truths: what holds in every world first.
///
/// A forbid with a gate does not deny: where it applies, or may, a yes is asked for. A permit with a gate permits as any
/// does, and asks for a yes unless a permit without one applies in every world. So a gate turns a denial into a question
/// only where the forbid itself says so, and losing a signal never takes a question away.
///
/// INVARIANT: each engine that is asked must permit; nobody asked permits nothing.
fn conclude(slice: &dyn Slice, truths: &[Truth]) -> Outcome {
    let mut counts = [Count::default(); EngineKind::COUNT];
    for (at, truth) in truths.iter().enumerate() {
        let info = slice.info(at);
        let gated = info.require_approval.is_some();
        // There is one for each kind; a policy of none is one that failed.
        let Some(all) = counts.get_mut(info.engine as usize) else { return Outcome::refused(Reason::EngineError) };
        match (info.effect, truth) {
            (_, Truth::Never) => {}
            (_, Truth::Failed(_)) => return Outcome::refused(Reason::EngineError),
            (Effect::Forbid, _) if gated => all.demands = true,
            (Effect::Forbid, Truth::Certain) => all.forbidden = true,
            (Effect::Forbid, Truth::May) => all.may_be_forbidden = true,
            (Effect::Permit, Truth::Certain) if gated => all.permitted_on_demand = true,
            (Effect::Permit, Truth::Certain) => all.permitted_freely = true,
            (Effect::Permit, Truth::May) => all.may_be_permitted = true,
        }
    }
    let asked = || slice.engines().iter().filter_map(|engine| counts.get(*engine as usize));
    if counts.iter().any(|all| all.forbidden) {
        Outcome::refused(Reason::PolicyDenied)
    } else if slice.engines().is_empty() || asked().any(|all| !all.permitted() && !all.may_be_permitted) {
        Outcome::refused(Reason::NoPolicyPermits)
    } else if counts.iter().any(|all| all.may_be_forbidden) || asked().any(|all| !all.permitted()) {
        Outcome::refused(Reason::SignalUnavailable)
    } else if counts.iter().any(|all| all.demands) || asked().any(|all| !all.permitted_freely) {
        Outcome { reason: Reason::Allowed, gates: gates(slice, truths, &counts) }
    } else {
        Outcome { reason: Reason::Allowed, gates: Vec::new() }
    }
}

/// What the truths of one engine's policies in play come to.
#[derive(Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "one for each thing that may be so, independent of the others")]
struct Count {
    forbidden: bool,
    may_be_forbidden: bool,
    permitted_freely: bool,
    permitted_on_demand: bool,
    may_be_permitted: bool,
    demands: bool,
}

impl Count {
    fn permitted(self) -> bool {
        self.permitted_freely || self.permitted_on_demand
    }
}

/// The policies whose demand stands: each gated forbid that applies or may, and the gated permits that carry an allow.
fn gates(slice: &dyn Slice, truths: &[Truth], counts: &[Count; EngineKind::COUNT]) -> Vec<u32> {
    let freely = |engine: EngineKind| counts.get(engine as usize).is_some_and(|all| all.permitted_freely);
    let stands = |info: &PolicyInfo, truth: &Truth| match info.effect {
        _ if info.require_approval.is_none() => false,
        Effect::Forbid => matches!(truth, Truth::Certain | Truth::May),
        Effect::Permit => !freely(info.engine) && *truth == Truth::Certain,
    };
    let in_play = slice.in_play().iter().zip(truths).enumerate();
    in_play.filter(|(at, (_, truth))| stands(slice.info(*at), truth)).map(|(_, (index, _))| *index).collect()
}
