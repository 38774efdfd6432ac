//! Questions for people and tools, as JSON.

use super::{ApprovalState, Approvals, Entry};
use crate::locks::lock;
use crate::model::{TaskId, Timestamp};
use serde_json::{Value as Json, json};
use std::cmp::Reverse;

/// Which questions are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct WantedApprovals<'a> {
    /// This one.
    pub id: Option<&'a str>,
    /// Those that stand so.
    pub state: Option<ApprovalState>,
    /// At most so many.
    pub most: usize,
}

impl Approvals {
    /// The questions that are wanted, newest first.
    pub fn list(&self, wanted: &WantedApprovals<'_>, now: Timestamp) -> Json {
        let image = lock(&self.0);
        let mut found: Vec<&Entry> = image
            .all
            .values()
            .filter(|entry| wanted.id.is_none_or(|id| entry.question.id.as_str() == id))
            .filter(|entry| wanted.state.is_none_or(|state| entry.state(now) == state))
            .collect();
        found.sort_by_key(|entry| Reverse(entry.question.asked_at));
        let count = found.len();
        let listed: Vec<Json> = found.into_iter().take(wanted.most).map(|entry| describe(entry, now)).collect();
        json!({"truncated": count > listed.len(), "approvals": listed, "count": count})
    }
}

fn describe(entry: &Entry, now: Timestamp) -> Json {
    let q = &entry.question;
    let no = entry.answers.values().find(|answer| !answer.approve);
    let last = no.or_else(|| entry.answers.values().max_by_key(|answer| answer.at));
    json!({
        "approval_id": q.id.as_str(),
        "state": entry.state(now).as_str(),
        "requester": q.requester.as_str(),
        "actor": q.actor,
        "task_id": q.task.as_ref().map(TaskId::as_str),
        "action": q.action.as_str(),
        "resource": q.resource.to_string(),
        "method": q.method,
        "host": q.host,
        "path": q.path,
        "args": q.args,
        "body_sha256": q.body.to_hex(),
        "words": q.words,
        "policies": q.policies.iter().map(|policy| &policy.id).collect::<Vec<_>>(),
        "asked_at": q.asked_at.to_rfc3339(),
        "expires_at": entry.ends_at.to_rfc3339(),
        "need": q.need,
        "approved_by": entry.approvers(),
        "denied_by": no.map(|answer| &answer.by),
        "comment": last.map(|answer| &answer.comment),
        "used_by": entry.used,
    })
}
