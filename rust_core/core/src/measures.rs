//! How many decisions there were by route, action and reason, and how long each stage of one took: for metrics. Fed where
//! records are rendered, never on the way of an answer.

use crate::{
    limits::MAX_MEASURED_ROUTES,
    locks::lock,
    model::ActionId,
    reason::Reason,
    record::{Spent, seen::Seen},
    snapshot::Snapshot,
};
use serde_json::{Value as Json, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

/// Upper bounds of the times that are told apart, in microseconds: from one policy in the core to a check that waits for
/// the body of a key set. Envoy gives up after some hundred milliseconds.
const BOUNDS: [u64; 15] =
    [5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 50_000, 200_000, 1_000_000, 5_000_000];
const STAGES: [&str; 8] = ["decode", "evaluate", "route", "identify", "gather", "policies", "encode", "total"];
/// Stands for routes that are too many to be told apart; no label of a route.
const OTHER: &str = "_other";

/// Counts since the start.
#[derive(Debug, Default)]
pub struct Measures {
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    stages: [Times; STAGES.len()],
    /// By label (empty: no route was found) and action (empty: as well).
    routes: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Vec<u64>>>,
    /// Routes and actions together.
    places: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Times {
    within: [u64; BOUNDS.len()],
    count: u64,
    nanos: u64,
}

impl Measures {
    /// Counts these decisions.
    pub fn saw<'a>(&self, decisions: impl IntoIterator<Item = &'a Seen>) {
        let mut held = lock(&self.held);
        for seen in decisions {
            held.saw(seen);
        }
    }

    /// Forgets the routes that a configuration no longer has.
    pub fn keep(&self, snapshot: &Snapshot) {
        let known: BTreeSet<(&str, &str)> =
            snapshot.routes.all().iter().map(|route| (&*route.label, route.action.as_str())).collect();
        let mut held = lock(&self.held);
        held.routes.retain(|label, actions| {
            let is_apart = label.is_empty() || &**label == OTHER;
            actions.retain(|action, _| is_apart || known.contains(&(&**label, &**action)));
            !actions.is_empty()
        });
        held.places = held.routes.values().map(BTreeMap::len).sum();
    }

    /// `{"stages": [{"stage", "buckets": [[seconds, count]], "count", "sum"}], "routes": [{"route", "action", "reasons"}]}`;
    /// a bucket's count is that of all times up to its bound.
    pub fn to_json(&self) -> Json {
        let held = lock(&self.held);
        let stages = STAGES.iter().zip(&held.stages).map(|(stage, times)| {
            let buckets: Vec<Json> =
                BOUNDS.iter().zip(&times.within).map(|(most, count)| json!([seconds(most * 1_000), count])).collect();
            json!({"stage": stage, "buckets": buckets, "count": times.count, "sum": seconds(times.nanos)})
        });
        let each = held
            .routes
            .iter()
            .flat_map(|(route, actions)| actions.iter().map(move |(action, counts)| (route, action, counts)));
        let routes = each.map(|(route, action, counts)| {
            let reasons: serde_json::Map<String, Json> = Reason::ALL
                .iter()
                .zip(counts)
                .filter(|(_, count)| **count > 0)
                .map(|(reason, count)| (reason.code().to_owned(), Json::from(*count)))
                .collect();
            json!({"route": &**route, "action": &**action, "reasons": reasons})
        });
        json!({"stages": stages.collect::<Vec<_>>(), "routes": routes.collect::<Vec<_>>()})
    }
}

impl Held {
    fn saw(&mut self, seen: &Seen) {
        let Spent { decode, evaluate, route, identify, gather, policies, encode, total } = seen.spent;
        let spent = [decode, evaluate, route, identify, gather, policies, encode, total];
        for (times, nanos) in self.stages.iter_mut().zip(spent) {
            times.add(nanos);
        }
        let (label, action) = place(seen);
        self.add(label, action, seen.reason);
    }

    /// One more; a place that is known is found without an allocation.
    fn add(&mut self, label: &str, action: &str, reason: Reason) {
        let known = self.routes.get_mut(label).and_then(|actions| actions.get_mut(action));
        let counts = match known {
            Some(counts) => counts,
            None => self.begin(label, action),
        };
        let at = Reason::ALL.iter().position(|each| *each == reason);
        if let Some(count) = at.and_then(|at| counts.get_mut(at)) {
            *count += 1;
        }
    }

    fn begin(&mut self, label: &str, action: &str) -> &mut Vec<u64> {
        let (label, action) = if self.places < MAX_MEASURED_ROUTES { (label, action) } else { (OTHER, OTHER) };
        let actions = self.routes.entry(label.into()).or_default();
        actions.entry(action.into()).or_insert_with(|| {
            self.places += 1;
            vec![0; Reason::ALL.len()]
        })
    }
}

/// The route and the action of a decision, as far as it got.
fn place(seen: &Seen) -> (&str, &str) {
    match &seen.route {
        Some(route) => (&route.label, route.action.as_str()),
        // What the admin door asks (a task, an answer to a question) has an action of its own and no route.
        None => ("", seen.built_in.as_ref().map_or("", ActionId::as_str)),
    }
}

impl Times {
    /// A stage that a decision did not come to took no time, and is not counted.
    fn add(&mut self, nanos: u64) {
        if nanos == 0 {
            return;
        }
        for (most, count) in BOUNDS.iter().zip(&mut self.within) {
            *count += u64::from(nanos <= most * 1_000);
        }
        self.count += 1;
        self.nanos = self.nanos.saturating_add(nanos);
    }
}

#[expect(clippy::cast_precision_loss, reason = "seconds of a histogram")]
fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_counts_in_every_bucket_that_it_is_within_and_none_counts_nowhere() {
        let mut times = Times::default();
        for nanos in [0, 1, 5_000, 5_001, 6_000_000_000] {
            times.add(nanos);
        }
        assert_eq!((times.count, times.nanos), (4, 6_000_010_002));
        assert_eq!(times.within.first(), Some(&2));
        assert_eq!(times.within.get(1), Some(&3));
        assert_eq!(times.within.last(), Some(&3));
    }

    #[test]
    fn routes_beyond_the_bound_share_a_line() {
        let mut held = Held::default();
        for n in 0..MAX_MEASURED_ROUTES + 5 {
            held.add(&format!("routes.yaml:{n}"), "page.read", Reason::Allowed);
        }
        held.add("routes.yaml:0", "page.read", Reason::Allowed);
        let count = |label: &str, action: &str| held.routes[label][action].iter().sum::<u64>();
        assert_eq!(held.routes.len(), MAX_MEASURED_ROUTES + 1);
        assert_eq!(count("routes.yaml:0", "page.read"), 2);
        assert_eq!(count(OTHER, OTHER), 5);
    }
}
