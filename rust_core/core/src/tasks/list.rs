//! Tasks and workflows for people and tools, as JSON.

use super::{Image, Kept, Support, TaskState, Tasks};
use crate::locks::read;
use crate::model::{Fingerprint, TaskId, Timestamp};
use serde_json::{Value as Json, json};
use std::sync::Arc;

/// Which tasks are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// This one.
    pub id: Option<&'a str>,
    /// Those of this principal.
    pub principal: Option<&'a str>,
    /// Those that have ended, too.
    pub ended: bool,
    /// At most so many.
    pub most: usize,
}

impl Tasks {
    /// The tasks that are wanted, newest first. `reached`: the mark of time.
    pub fn list(&self, wanted: &Wanted<'_>, support: &dyn Support, now: Timestamp, reached: Timestamp) -> Json {
        self.retire(reached);
        let image = read(&self.0);
        let ended = wanted.ended || wanted.id.is_some();
        let found: Box<dyn Iterator<Item = &Arc<Kept>>> = if let Some(id) = wanted.id {
            Box::new(TaskId::parse(id).and_then(|id| image.tasks.get(&id)).into_iter())
        } else {
            let ids = image.orders.newest_first(wanted.principal, ended);
            Box::new(ids.filter_map(|id| image.tasks.get(id)))
        };
        // One more than is wanted tells whether there are more; the rest is not looked at.
        let mut tasks: Vec<Json> = found
            .map(|kept| (kept, image.state(kept, support, now)))
            .filter(|(_, state)| ended || *state == TaskState::Live)
            .take(wanted.most.saturating_add(1))
            .map(|(kept, state)| describe(&image, kept, state))
            .collect();
        let truncated = tasks.len() > wanted.most;
        tasks.truncate(wanted.most);
        json!({"truncated": truncated, "tasks": tasks})
    }

    /// The workflows that are known, by id.
    pub fn workflows(&self, most: usize) -> Json {
        let image = read(&self.0);
        let listed: Vec<Json> = image
            .workflows
            .values()
            .take(most)
            .map(|moved| {
                json!({
                    "workflow": moved.id.as_str(),
                    "state": if moved.approved { "approved" } else { "ended" },
                    "by": &*moved.by,
                    "by_signal": moved.by_signal,
                    "at": moved.at.to_rfc3339(),
                    "ended_at": moved.ended_at.map(Timestamp::to_rfc3339),
                })
            })
            .collect();
        let count = image.workflows.len();
        json!({"truncated": count > listed.len(), "workflows": listed, "count": count})
    }

    /// The principals and the creators of a task and of those above it.
    pub fn people_of(&self, id: &TaskId) -> Vec<crate::model::SpiffeId> {
        let image = read(&self.0);
        let line = image.tasks.get(id).and_then(|kept| image.line(kept)).unwrap_or_default();
        line.iter().flat_map(|kept| [kept.task.principal.clone(), kept.task.created_by.clone()]).collect()
    }
}

fn describe(image: &Image, kept: &Kept, state: TaskState) -> Json {
    let task = &kept.task;
    let scope = &task.scope;
    let ended = image.ended.get(&task.id);
    let touched = kept.tree.now();
    json!({
        "task_id": task.id.as_str(),
        "root": task.root.as_str(),
        "parent": task.parent.as_ref().map(TaskId::as_str),
        "depth": task.depth,
        "principal": task.principal.as_str(),
        "created_by": task.created_by.as_str(),
        "type": task.kind.as_str(),
        "workflow": task.workflow.as_ref().map(crate::model::WorkflowId::as_str),
        "actions": scope.actions.iter().map(crate::model::ActionId::as_str).collect::<Vec<_>>(),
        "resources": scope.resources.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "systems": &scope.systems,
        "sensitivity": scope.sensitivity.as_str(),
        "environment": scope.environment.as_ref().map(crate::model::Environment::as_str),
        "begun_at": task.begun_at.to_rfc3339(),
        "expires_at": kept.ends_at().to_rfc3339(),
        "idle_until": kept.idle_until().map(Timestamp::to_rfc3339),
        "certificate_sha256": task.certificate.map(Fingerprint::to_hex),
        "grant_sha256": task.grant.to_hex(),
        "state": state.as_str(),
        "ended_at": ended.map(|ended| ended.at.to_rfc3339()),
        "ended_by": ended.map(|ended| &*ended.by),
        "touched": {
            "systems": &touched.systems,
            "sensitivity": touched.sensitivity.map(crate::model::Sensitivity::as_str),
        },
    })
}
