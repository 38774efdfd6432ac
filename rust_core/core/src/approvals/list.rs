//! Questions for people and tools, as JSON.

use super::{ApprovalState, Approvals, Entry};
use crate::locks::lock;
use crate::model::{ApprovalId, Question, TaskId, Timestamp};
use serde_json::{Value as Json, json};

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
        self.list_noting(wanted, now, &|_| None)
    }

    /// The same; `recorded` says how records show a question that they may not show as it is.
    pub fn list_noting(
        &self,
        wanted: &WantedApprovals<'_>,
        now: Timestamp,
        recorded: &dyn Fn(&Question) -> Option<Json>,
    ) -> Json {
        let image = lock(&self.0);
        let found: Box<dyn Iterator<Item = &Entry>> = if let Some(id) = wanted.id {
            Box::new(ApprovalId::parse(id).and_then(|id| image.all.get(&id)).into_iter())
        } else {
            let only_pending = wanted.state == Some(ApprovalState::Pending);
            Box::new(image.orders.newest_first(only_pending).filter_map(|id| image.all.get(id)))
        };
        // One more than is wanted tells whether there are more; the rest is not looked at.
        let mut listed: Vec<Json> = found
            .filter(|entry| wanted.state.is_none_or(|state| entry.state(now) == state))
            .take(wanted.most.saturating_add(1))
            .map(|entry| {
                let mut told = describe(entry, now);
                if let (Some(told), Some(recorded)) = (told.as_object_mut(), recorded(&entry.question)) {
                    told.insert("recorded".to_owned(), recorded);
                }
                told
            })
            .collect();
        let truncated = listed.len() > wanted.most;
        listed.truncate(wanted.most);
        json!({"truncated": truncated, "approvals": listed})
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
