//! What a decision reached of the policies in play: for tests of policies, never for the log.

use super::Record;
use crate::policy::reasoning::{Truth, truths};
use serde_json::{Value as Json, json};
use std::sync::Arc;

/// `[{"id", "truths": ["certain", …]}]`: of each policy in play, observing ones included, how true it was up to its first
/// condition, its second and so on to the whole; one truth of a policy without conditions. Empty where no policy was asked.
pub(crate) fn reach(record: &Record) -> Json {
    let (Some(snapshot), Some(query), Some(_)) = (&record.snapshot, &record.query, &record.verdict) else {
        return json!([]);
    };
    let mut policies: Vec<(Arc<str>, Vec<&'static str>)> = Vec::new();
    snapshot.policies.with_conditions(query, &mut |slice| {
        let judged = truths(slice, &snapshot.rules, &record.facts);
        for (at, truth) in judged.iter().map(Truth::as_str).enumerate() {
            let id = &slice.info(at).id;
            match policies.last_mut().filter(|(last, _)| last == id) {
                Some((_, found)) => found.push(truth),
                None => policies.push((Arc::clone(id), vec![truth])),
            }
        }
    });
    policies.into_iter().map(|(id, truths)| json!({"id": &*id, "truths": truths})).collect()
}
