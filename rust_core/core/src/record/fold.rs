//! Denials of one batch that are alike: the first stands for all of them, with their exact count.
//!
//! Whatever was let pass is never one of them: an allow, and a denial of a route that is not enforced.

use super::{
    DecisionId, GrantNote, Record, determines,
    ring::{Content, Entry},
};
use crate::{
    model::{ActionId, Fingerprint, Inquiry, SpiffeId, Timestamp, Value},
    reason::Reason,
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// What stands behind one line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Folded {
    /// How many decisions, its own included.
    pub(crate) count: u64,
    last: Option<(DecisionId, Timestamp)>,
}

impl Folded {
    const ALONE: Self = Self { count: 1, last: None };

    /// The key of the line, if it stands for more than its own decision.
    pub(crate) fn field(self) -> Option<String> {
        let (id, time) = self.last?;
        let count = self.count;
        Some(format!(r#""folded":{{"count":{count},"last_id":"{id}","last_time":"{}"}}"#, time.to_rfc3339()))
    }
}

/// All that two denials must share.
#[derive(PartialEq, Eq, Hash)]
struct Likeness<'a> {
    reason: &'static str,
    detail: &'a str,
    principal: Option<&'a SpiffeId>,
    client: Option<&'a SpiffeId>,
    asked: [&'a str; 3],
    route: Option<&'a str>,
    action: Option<&'a str>,
    resource: Option<String>,
    args: Option<&'a BTreeMap<Arc<str>, Value>>,
    grant: Option<Fingerprint>,
    approval: Option<&'a str>,
    revision: Option<&'a str>,
    determining: Vec<&'a str>,
}

/// For each entry how many it stands for; `None`: another one stands for it.
pub(crate) fn fold(entries: &[Entry]) -> Vec<Option<Folded>> {
    let mut folded: Vec<Option<Folded>> = vec![Some(Folded::ALONE); entries.len()];
    let mut first_of: HashMap<Likeness<'_>, usize> = HashMap::new();
    for (at, entry) in entries.iter().enumerate() {
        let Content::Decision { record, .. } = &entry.content else { continue };
        if record.reason == Reason::Allowed || !record.enforced {
            continue;
        }
        let likeness = Likeness::of(record);
        // What says how many had no record says it in a line of its own.
        let first = first_of.get(&likeness).copied().filter(|_| record.refused_before == 0);
        match first.and_then(|first| folded.get_mut(first)) {
            Some(Some(known)) => {
                *known = Folded { count: known.count + 1, last: Some((record.id, record.time)) };
                if let Some(own) = folded.get_mut(at) {
                    *own = None;
                }
            }
            _ => {
                first_of.insert(likeness, at);
            }
        }
    }
    folded
}

impl<'a> Likeness<'a> {
    fn of(record: &'a Record) -> Self {
        let query = record.query.as_ref();
        let known = record.evidence.as_ref().map(|evidence| &evidence.principal);
        let resolved = record.resolved.as_ref();
        let inquiry = record.inquiry.as_deref();
        let resource = resolved.map(|resolved| &resolved.resource).or(query.map(|query| &query.resource));
        let resource = resource.or(inquiry.and_then(|inquiry| inquiry.resource.as_ref()));
        let named = inquiry.and_then(|inquiry| inquiry.action.as_ref()).map(ActionId::as_str);
        let route = record.route.as_deref();
        Self {
            reason: record.reason.code(),
            detail: &record.detail,
            principal: known.or(inquiry.and_then(Inquiry::workload)),
            client: record.client.as_ref().map(|client| &client.id),
            asked: [&record.asked.method, &record.asked.host, &record.asked.path],
            route: route.map(|route| &*route.label),
            action: route.map(|route| route.action.as_str()).or(query.map(|query| query.action.as_str())).or(named),
            resource: resource.map(ToString::to_string),
            args: resolved.map(|resolved| &resolved.args),
            grant: record.grant.as_ref().map(|note| match note {
                GrantNote::Refused(digest) => *digest,
                GrantNote::Admitted(admitted) => admitted.task().task.grant,
            }),
            approval: record.approval.as_ref().map(|note| note.question.id.as_str()),
            revision: record.snapshot.as_ref().map(|snapshot| &*snapshot.revision),
            determining: determining(record),
        }
    }
}

fn determining(record: &Record) -> Vec<&str> {
    let (Some(snapshot), Some(verdict)) = (&record.snapshot, &record.verdict) else { return Vec::new() };
    let known = snapshot.policies.policies();
    let in_play = verdict.truths.iter().zip(&verdict.in_play);
    in_play
        .filter_map(|(truth, index)| Some((truth, known.get(*index as usize)?)))
        .filter(|(truth, info)| determines(record.reason, info, truth))
        .map(|(_, info)| &*info.id)
        .collect()
}
