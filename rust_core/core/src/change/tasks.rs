//! The written form of what is learnt about tasks and workflows.

use super::{Change, Kind, VERSION, bad};
use crate::error::Error;
use crate::model::{
    ActionId, Ending, Environment, Fingerprint, ResourceScope, Scope, Sensitivity, Span, SpiffeId, Task, TaskId,
    TaskType, Timestamp, WorkflowId,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, sync::Arc};

/// A task ended before its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskEnded {
    /// Which one.
    pub id: TaskId,
    /// How.
    pub how: Ending,
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub by: Arc<str>,
}

/// All that the tasks of one tree have touched, whole: a newer one holds all that an older one does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeTouched {
    /// The tree, by its first task.
    pub root: TaskId,
    /// Systems.
    pub systems: BTreeSet<Arc<str>>,
    /// The highest sensitivity.
    pub sensitivity: Option<Sensitivity>,
}

/// How a workflow stands, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkflowMoved {
    /// Which one.
    pub id: WorkflowId,
    /// Whether it is approved now.
    pub approved: bool,
    /// When it last ended: tasks that began before stay ended, whatever becomes of the workflow.
    pub ended_at: Option<Timestamp>,
    /// When this was said.
    pub at: Timestamp,
    /// By whom: a client, or the origin of a signal.
    pub by: Arc<str>,
    /// True if a signal said it: then it counts only while that signal is fresh and says so.
    pub by_signal: bool,
}

/// What a principal was given up to a time counts no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandingLost {
    /// Who.
    pub principal: SpiffeId,
    /// Up to when.
    pub at: Timestamp,
    /// Why, for people.
    pub why: Arc<str>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenTask {
    v: u32,
    change: Kind,
    id: String,
    root: String,
    parent: Option<String>,
    depth: u32,
    principal: String,
    created_by: String,
    #[serde(rename = "type")]
    kind: String,
    workflow: Option<String>,
    actions: Vec<String>,
    resources: Vec<String>,
    systems: BTreeSet<Arc<str>>,
    sensitivity: String,
    environment: Option<String>,
    begun_at_us: i64,
    expires_at_us: i64,
    idle_us: Option<i64>,
    certificate_sha256: Option<String>,
    grant_sha256: String,
}

impl From<&Task> for WrittenTask {
    fn from(task: &Task) -> Self {
        let scope = &task.scope;
        Self {
            v: VERSION,
            change: Kind::TaskBegun,
            id: task.id.to_string(),
            root: task.root.to_string(),
            parent: task.parent.as_ref().map(ToString::to_string),
            depth: task.depth,
            principal: task.principal.to_string(),
            created_by: task.created_by.to_string(),
            kind: task.kind.as_str().to_owned(),
            workflow: task.workflow.as_ref().map(ToString::to_string),
            actions: scope.actions.iter().map(ToString::to_string).collect(),
            resources: scope.resources.iter().map(ToString::to_string).collect(),
            systems: scope.systems.clone(),
            sensitivity: scope.sensitivity.as_str().to_owned(),
            environment: scope.environment.as_ref().map(ToString::to_string),
            begun_at_us: task.begun_at.as_micros(),
            expires_at_us: task.expires_at.as_micros(),
            idle_us: task.idle.map(Span::as_micros),
            certificate_sha256: task.certificate.map(Fingerprint::to_hex),
            grant_sha256: task.grant.to_hex(),
        }
    }
}

pub(super) fn task_id(text: &str) -> Result<TaskId, Error> {
    TaskId::parse(text).ok_or_else(|| bad("task", text))
}

pub(super) fn principal(text: &str) -> Result<SpiffeId, Error> {
    SpiffeId::parse(text).map_err(|_| bad("principal", text))
}

pub(super) fn action(text: &str) -> Result<ActionId, Error> {
    ActionId::parse(text).ok_or_else(|| bad("action", text))
}

pub(super) fn digest(text: &str) -> Result<Fingerprint, Error> {
    Fingerprint::parse(text).ok_or_else(|| bad("digest", text))
}

fn sensitivity(text: &str) -> Result<Sensitivity, Error> {
    Sensitivity::parse(text).ok_or_else(|| bad("sensitivity", text))
}

impl WrittenTask {
    pub(super) fn into_change(self) -> Result<Change, Error> {
        let resource = |text: &String| ResourceScope::parse(text).ok_or_else(|| bad("resource", text));
        let workflow = |text: &String| WorkflowId::parse(text).ok_or_else(|| bad("workflow", text));
        let environment = |text: &String| Environment::parse(text).ok_or_else(|| bad("environment", text));
        Ok(Change::TaskBegun(Box::new(Task {
            id: task_id(&self.id)?,
            root: task_id(&self.root)?,
            parent: self.parent.as_deref().map(task_id).transpose()?,
            depth: self.depth,
            principal: principal(&self.principal)?,
            created_by: principal(&self.created_by)?,
            kind: TaskType::parse(&self.kind).ok_or_else(|| bad("task type", &self.kind))?,
            workflow: self.workflow.as_ref().map(workflow).transpose()?,
            scope: Scope {
                actions: self.actions.iter().map(|text| action(text)).collect::<Result<_, _>>()?,
                resources: self.resources.iter().map(resource).collect::<Result<_, _>>()?,
                systems: self.systems,
                sensitivity: sensitivity(&self.sensitivity)?,
                environment: self.environment.as_ref().map(environment).transpose()?,
            },
            begun_at: Timestamp::from_micros(self.begun_at_us),
            expires_at: Timestamp::from_micros(self.expires_at_us),
            idle: self.idle_us.map(Span::from_micros),
            certificate: self.certificate_sha256.as_deref().map(digest).transpose()?,
            grant: digest(&self.grant_sha256)?,
        })))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenEnd {
    v: u32,
    change: Kind,
    id: String,
    how: String,
    at_us: i64,
    by: Arc<str>,
}

impl From<&TaskEnded> for WrittenEnd {
    fn from(ended: &TaskEnded) -> Self {
        Self {
            v: VERSION,
            change: Kind::TaskEnded,
            id: ended.id.to_string(),
            how: ended.how.as_str().to_owned(),
            at_us: ended.at.as_micros(),
            by: Arc::clone(&ended.by),
        }
    }
}

impl WrittenEnd {
    pub(super) fn into_change(self) -> Result<Change, Error> {
        Ok(Change::TaskEnded(TaskEnded {
            id: task_id(&self.id)?,
            how: Ending::parse(&self.how).ok_or_else(|| bad("ending", &self.how))?,
            at: Timestamp::from_micros(self.at_us),
            by: self.by,
        }))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenTouch {
    v: u32,
    change: Kind,
    root: String,
    systems: BTreeSet<Arc<str>>,
    sensitivity: Option<String>,
}

impl From<&TreeTouched> for WrittenTouch {
    fn from(touched: &TreeTouched) -> Self {
        Self {
            v: VERSION,
            change: Kind::TreeTouched,
            root: touched.root.to_string(),
            systems: touched.systems.clone(),
            sensitivity: touched.sensitivity.map(|sensitivity| sensitivity.as_str().to_owned()),
        }
    }
}

impl WrittenTouch {
    pub(super) fn into_change(self) -> Result<Change, Error> {
        Ok(Change::TreeTouched(TreeTouched {
            root: task_id(&self.root)?,
            systems: self.systems,
            sensitivity: self.sensitivity.as_deref().map(sensitivity).transpose()?,
        }))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenWorkflow {
    v: u32,
    change: Kind,
    id: String,
    approved: bool,
    ended_at_us: Option<i64>,
    at_us: i64,
    by: Arc<str>,
    by_signal: bool,
}

impl From<&WorkflowMoved> for WrittenWorkflow {
    fn from(moved: &WorkflowMoved) -> Self {
        Self {
            v: VERSION,
            change: Kind::WorkflowMoved,
            id: moved.id.to_string(),
            approved: moved.approved,
            ended_at_us: moved.ended_at.map(Timestamp::as_micros),
            at_us: moved.at.as_micros(),
            by: Arc::clone(&moved.by),
            by_signal: moved.by_signal,
        }
    }
}

impl WrittenWorkflow {
    pub(super) fn into_change(self) -> Result<Change, Error> {
        Ok(Change::WorkflowMoved(WorkflowMoved {
            id: WorkflowId::parse(&self.id).ok_or_else(|| bad("workflow", &self.id))?,
            approved: self.approved,
            ended_at: self.ended_at_us.map(Timestamp::from_micros),
            at: Timestamp::from_micros(self.at_us),
            by: self.by,
            by_signal: self.by_signal,
        }))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenLoss {
    v: u32,
    change: Kind,
    principal: String,
    at_us: i64,
    why: Arc<str>,
}

impl From<&StandingLost> for WrittenLoss {
    fn from(lost: &StandingLost) -> Self {
        Self {
            v: VERSION,
            change: Kind::StandingLost,
            principal: lost.principal.to_string(),
            at_us: lost.at.as_micros(),
            why: Arc::clone(&lost.why),
        }
    }
}

impl WrittenLoss {
    pub(super) fn into_change(self) -> Result<Change, Error> {
        Ok(Change::StandingLost(StandingLost {
            principal: principal(&self.principal)?,
            at: Timestamp::from_micros(self.at_us),
            why: self.why,
        }))
    }
}
