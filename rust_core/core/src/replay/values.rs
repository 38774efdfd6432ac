//! Values that are worth a try: all of a small type, those that policies write out, and for numbers the places where an
//! outcome flips.

use super::Replay;
use crate::{
    limits::MAX_LITERALS,
    model::{Fact, SignalType, Value},
    policy::{SignalIndex, Slice},
    reason::Reason,
    signals::Contract,
};
use std::{
    collections::{BTreeSet, btree_set},
    sync::Arc,
};

/// Values that a signal could be tried with, the likeliest first.
pub(super) struct Candidates {
    pub(super) values: Vec<Value>,
}

impl Candidates {
    /// Of a signal that is not a number that is known: that one is searched along its line.
    pub(super) fn of(
        replay: &Replay,
        slice: &dyn Slice,
        signal: SignalIndex,
        contract: &Contract,
        fact: &Fact,
    ) -> Self {
        let values = match &contract.kind {
            kind @ (SignalType::Bool | SignalType::Enum(_)) => kind.every_value().unwrap_or_default(),
            SignalType::Long | SignalType::Decimal | SignalType::Datetime => {
                let last = fact.value.as_ref().and_then(Value::ordinal).unwrap_or(0);
                let around = numbers(replay, slice, signal, contract).into_iter().flat_map(around);
                let mut tried: Vec<i64> = around.chain([last]).collect();
                tried.sort_unstable_by_key(|ordinal| (ordinal.abs_diff(last), *ordinal));
                tried.dedup();
                tried.into_iter().filter_map(|ordinal| contract.kind.at_ordinal(ordinal)).collect()
            }
            SignalType::String | SignalType::Ip => texts(replay, slice, signal)
                .iter()
                // A network is tried by its first address.
                .filter_map(|text| {
                    contract.kind.read_text(text).or_else(|| contract.kind.read_text(text.split('/').next()?))
                })
                .collect(),
            SignalType::Set => sets(&texts(replay, slice, signal), fact),
        };
        let known = fact.fresh_value();
        Self { values: values.into_iter().filter(|value| Some(value) != known).collect() }
    }
}

/// The set with one text more, or one less; without a known set, one text alone.
fn sets(texts: &BTreeSet<Arc<str>>, fact: &Fact) -> Vec<Value> {
    let known = match fact.fresh_value() {
        Some(Value::Set(members)) => BTreeSet::clone(members),
        _ => BTreeSet::new(),
    };
    let set = |members: BTreeSet<Arc<str>>| Value::Set(Arc::new(members));
    let changed = texts.iter().map(|text| {
        let mut members = known.clone();
        if !members.remove(text) {
            members.insert(Arc::clone(text));
        }
        set(members)
    });
    changed.chain([set(BTreeSet::new()), set(texts.clone())]).collect()
}

/// Numbers and times that policies which mention the signal write out, as places in the order of its type.
pub(super) fn numbers(replay: &Replay, slice: &dyn Slice, signal: SignalIndex, contract: &Contract) -> Vec<i64> {
    let ordinal = |literal: &Value| match (&contract.kind, literal) {
        (SignalType::Long, Value::Long(number)) => Some(*number),
        (SignalType::Long, _) => None,
        (kind, Value::String(text)) => kind.read_text(text).as_ref().and_then(Value::ordinal),
        _ => None,
    };
    let mut all: Vec<i64> = literals(replay, slice, signal).iter().filter_map(ordinal).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn texts(replay: &Replay, slice: &dyn Slice, signal: SignalIndex) -> BTreeSet<Arc<str>> {
    let text = |literal: Value| if let Value::String(text) = literal { Some(text) } else { None };
    literals(replay, slice, signal).into_iter().filter_map(text).collect()
}

fn literals(replay: &Replay, slice: &dyn Slice, signal: SignalIndex) -> BTreeSet<Value> {
    let policies = &replay.running.snapshot.policies;
    let in_play = slice.in_play().iter().enumerate();
    let mentioning = in_play.filter(|(at, _)| slice.info(*at).mentions.binary_search(&signal).is_ok());
    mentioning.flat_map(|(_, policy)| policies.literals(*policy)).take(MAX_LITERALS).collect()
}

/// A number and its neighbours: a comparison flips at one of them.
fn around(number: i64) -> [i64; 3] {
    [number.saturating_sub(1), number, number.saturating_add(1)]
}

/// The nearest number, on one side, at which an outcome flips, and to what. Literals and their neighbours are tried, and
/// distances that double; between the last that does not flip and the first that does the place is found by halving. An
/// outcome that flips and flips back between two of those is missed.
pub(super) fn nearest(
    from: i64,
    up: bool,
    literals: &[i64],
    flipped: &dyn Fn(i64) -> Option<Reason>,
) -> Option<(i64, Reason)> {
    let far = (0..63)
        .map(|doubling| 1_i64 << doubling)
        .filter_map(|step| if up { from.checked_add(step) } else { from.checked_sub(step) });
    let end = if up { i64::MAX } else { i64::MIN };
    let points: BTreeSet<i64> = literals.iter().copied().flat_map(around).chain(far).chain([end]).collect();
    let mut in_order: Box<dyn Iterator<Item = &i64>> =
        if up { Box::new(after(&points, from)) } else { Box::new(points.range(..from).rev()) };
    let mut near = from;
    let (mut flips_at, mut reason) = in_order.find_map(|point| {
        let reason = flipped(*point);
        if reason.is_none() {
            near = *point;
        }
        reason.map(|reason| (*point, reason))
    })?;
    while near.abs_diff(flips_at) > 1 {
        // Of different signs the sum can't overflow, of the same the difference can't.
        let middle = near.midpoint(flips_at);
        match flipped(middle) {
            Some(earlier) => (flips_at, reason) = (middle, earlier),
            None => near = middle,
        }
    }
    Some((flips_at, reason))
}

fn after(points: &BTreeSet<i64>, from: i64) -> btree_set::Range<'_, i64> {
    points.range(from.saturating_add(1)..)
}
