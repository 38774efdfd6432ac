//! From what a client asks for to a task that could be begun: what is left out comes from the routes or the parent, and
//! nothing of a child goes beyond its parent. Policies are asked elsewhere.

use super::{Image, Kept, Support, TaskSettings, TaskState, Tasks};
use crate::change::TaskEnded;
use crate::error::Error;
use crate::limits;
use crate::locks::read;
use crate::model::{
    ActionId, Dimension, Ending, Environment, Fingerprint, ResourceScope, Scope, Sensitivity, Span, SpiffeId, Task,
    TaskId, TaskType, Timestamp, WorkflowId,
};
use crate::refusal::Refusal;
use crate::route::Routes;
use serde::Deserialize;
use std::{collections::BTreeSet, sync::Arc};

/// What a client asks for, as Python hands it in.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    principal: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    workflow: Option<String>,
    actions: Vec<String>,
    resources: Vec<String>,
    #[serde(default)]
    sensitivity: Option<String>,
    #[serde(default)]
    environment: Option<String>,
    #[serde(default)]
    ttl_us: Option<i64>,
    #[serde(default)]
    certificate_sha256: Option<String>,
    #[serde(default)]
    parent: Option<String>,
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub struct AskedTask {
    /// Who shall hold the grant.
    pub principal: SpiffeId,
    /// What kind of task.
    pub kind: TaskType,
    /// Of which workflow.
    pub workflow: Option<WorkflowId>,
    /// To do what.
    pub actions: BTreeSet<ActionId>,
    /// To what.
    pub resources: BTreeSet<ResourceScope>,
    /// Up to which sensitivity.
    pub sensitivity: Option<Sensitivity>,
    /// In which environment.
    pub environment: Option<Environment>,
    /// For how long.
    pub ttl: Option<Span>,
    /// Bound to which certificate.
    pub certificate: Option<Fingerprint>,
    /// As part of which task.
    pub parent: Option<TaskId>,
}

/// A task that could be begun, but for its grant.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The task. Its grant is not known yet.
    pub task: Task,
    /// The principals of those above it, the nearest first.
    pub above: Vec<SpiffeId>,
}

fn bad(what: &str, expected: &str, found: &str) -> Error {
    Error::BadInput(format!("`{what}`: expected {expected}, found `{found}`"))
}

impl AskedTask {
    /// Reads what Python hands in; the caller's mistake in one sentence.
    pub fn from_json(json: &[u8]) -> Result<Self, Error> {
        let written: Written =
            serde_json::from_slice(json).map_err(|error| Error::BadInput(format!("the task: {error}")))?;
        let spiffe = |text: &str| SpiffeId::parse(text).map_err(|why| Error::BadInput(format!("`principal`: {why}")));
        let counted = |what: &str, count: usize, most: usize| {
            if (1..=most).contains(&count) {
                Ok(())
            } else {
                Err(Error::BadInput(format!("`{what}`: expected 1 to {most}, found {count}")))
            }
        };
        counted("actions", written.actions.len(), limits::MAX_TASK_ACTIONS)?;
        counted("resources", written.resources.len(), limits::MAX_TASK_RESOURCES)?;
        let action = |text: &String| {
            ActionId::parse(text).ok_or_else(|| bad("actions", "names such as `transfer.create`", text))
        };
        let resource = |text: &String| {
            ResourceScope::parse(text).ok_or_else(|| bad("resources", "`Type::\"id\"` or `Type::*`", text))
        };
        let workflow = |text: &String| WorkflowId::parse(text).ok_or_else(|| bad("workflow", WorkflowId::FORM, text));
        let environment =
            |text: &String| Environment::parse(text).ok_or_else(|| bad("environment", Environment::FORM, text));
        let sensitivity = |text: &String| {
            Sensitivity::parse(text).ok_or_else(|| bad("sensitivity", "`low`, `medium` or `high`", text))
        };
        let certificate = |text: &String| {
            Fingerprint::parse(text).ok_or_else(|| bad("certificate_sha256", "64 lower-case hex digits", text))
        };
        if let Some(ttl) = written.ttl_us.filter(|ttl| *ttl < limits::MIN_TTL_MICROS) {
            return Err(bad("ttl", "at least a second", &format!("{ttl} µs")));
        }
        Ok(Self {
            principal: spiffe(&written.principal)?,
            kind: TaskType::parse(&written.kind)
                .ok_or_else(|| bad("type", "a name such as `invoice_run`", &written.kind))?,
            workflow: written.workflow.as_ref().map(workflow).transpose()?,
            actions: written.actions.iter().map(action).collect::<Result<_, _>>()?,
            resources: written.resources.iter().map(resource).collect::<Result<_, _>>()?,
            sensitivity: written.sensitivity.as_ref().map(sensitivity).transpose()?,
            environment: written.environment.as_ref().map(environment).transpose()?,
            ttl: written.ttl_us.map(Span::from_micros),
            certificate: written.certificate_sha256.as_ref().map(certificate).transpose()?,
            // What is no id of ours names no task.
            parent: written
                .parent
                .map(|text| TaskId::parse(&text).ok_or(Error::refused(Refusal::TaskUnknown, "no task has this id")))
                .transpose()?,
        })
    }
}

impl Tasks {
    /// The task that would begin. `id`: its id, made of random bits from outside.
    #[expect(clippy::too_many_arguments, reason = "each is a different room's word")]
    pub fn plan(
        &self,
        asked: &AskedTask,
        client: &SpiffeId,
        id: TaskId,
        routes: &Routes,
        settings: &TaskSettings,
        support: &dyn Support,
        now: Timestamp,
    ) -> Result<Planned, Error> {
        let image = read(&self.0);
        let parent = match &asked.parent {
            Some(parent) => Some(parent_of(&image, parent, client, support, now)?),
            None => None,
        };
        if image.tasks.len() >= limits::MAX_TASKS {
            let most = limits::MAX_TASKS;
            return Err(Error::refused(Refusal::TooManyTasks, format!("{most} tasks are held, and no more can be")));
        }
        let workflow = asked.workflow.clone().or_else(|| parent.as_ref().and_then(|p| p.task.workflow.clone()));
        if let Some(workflow) = &workflow
            && image.workflow_state(workflow, now, support) != TaskState::Live
        {
            return Err(not_approved(workflow));
        }
        let scope = scope(asked, parent.as_ref().map(|kept| &kept.task), routes)?;
        let longest = settings.longest(&asked.kind);
        let ttl = asked.ttl.map_or(longest, |ttl| ttl.min(longest));
        let mut task = Task {
            root: id.clone(),
            id,
            parent: None,
            depth: 0,
            principal: asked.principal.clone(),
            created_by: client.clone(),
            kind: asked.kind.clone(),
            workflow,
            scope,
            begun_at: now,
            expires_at: now.plus(ttl),
            idle: settings.idle(&asked.kind),
            certificate: asked.certificate,
            grant: Fingerprint([0; 32]),
        };
        let mut above = Vec::new();
        if let Some(parent) = parent {
            let line = image.line(&parent).unwrap_or_default();
            above = line.iter().map(|kept| kept.task.principal.clone()).collect();
            let root = line.last().unwrap_or(&parent);
            within(&mut task, asked, &parent.task, settings.deepest(&root.task.kind))?;
        }
        Ok(Planned { task, above })
    }

    /// Whether a planned task could still begin: between plan and issue anything may have ended.
    pub fn recheck(&self, task: &Task, support: &dyn Support, now: Timestamp) -> Result<(), Error> {
        let image = read(&self.0);
        if let Some(parent) = &task.parent {
            let kept = image.tasks.get(parent).ok_or_else(unknown)?;
            if image.state(kept, support, now) != TaskState::Live {
                return Err(Error::refused(Refusal::TaskEnded, "the parent has ended"));
            }
        }
        if let Some(workflow) = &task.workflow
            && image.workflow_state(workflow, task.begun_at, support) != TaskState::Live
        {
            return Err(not_approved(workflow));
        }
        Ok(())
    }

    /// The change that ends a task. Its creator and its principal may; an operator may revoke any.
    pub fn end(
        &self,
        id: &str,
        how: Ending,
        client: &SpiffeId,
        is_operator: bool,
        support: &dyn Support,
        now: Timestamp,
    ) -> Result<TaskEnded, Error> {
        let image = read(&self.0);
        let kept = TaskId::parse(id).and_then(|id| image.tasks.get(&id).cloned()).ok_or_else(unknown)?;
        let task = &kept.task;
        let is_own = *client == task.created_by || *client == task.principal;
        if !(is_own || is_operator && how == Ending::Revoked) {
            return Err(Error::refused(Refusal::NotYours, "the task is neither yours nor made by you"));
        }
        match image.own_state(&kept, support, now) {
            TaskState::Live | TaskState::ParentEnded | TaskState::WorkflowUnknown => {}
            state => {
                return Err(Error::refused(
                    Refusal::TaskEnded,
                    format!("the task has ended already: {}", state.as_str()),
                ));
            }
        }
        Ok(TaskEnded { id: task.id.clone(), how, at: now, by: client.shared() })
    }
}

fn unknown() -> Error {
    Error::refused(Refusal::TaskUnknown, "no task has this id")
}

fn not_approved(workflow: &WorkflowId) -> Error {
    Error::refused(Refusal::WorkflowNotApproved, format!("the workflow `{workflow}` is not approved"))
}

fn parent_of(
    image: &Image,
    id: &TaskId,
    client: &SpiffeId,
    support: &dyn Support,
    now: Timestamp,
) -> Result<Arc<Kept>, Error> {
    let kept = image.tasks.get(id).cloned().ok_or_else(unknown)?;
    if *client != kept.task.principal && *client != kept.task.created_by {
        return Err(Error::refused(Refusal::NotYours, "the task is neither yours nor made by you"));
    }
    match image.state(&kept, support, now) {
        TaskState::Live => Ok(kept),
        state => Err(Error::refused(Refusal::TaskEnded, format!("the task has ended: {}", state.as_str()))),
    }
}

/// What a task may do: what is said, and where nothing is said what its parent or its actions' routes say.
fn scope(asked: &AskedTask, parent: Option<&Task>, routes: &Routes) -> Result<Scope, Error> {
    let (mut systems, mut environments, mut highest) = (BTreeSet::new(), BTreeSet::new(), Sensitivity::Low);
    for action in &asked.actions {
        let own: Vec<_> = routes.all().iter().filter(|route| route.action == *action).collect();
        if own.is_empty() {
            let hint = crate::findings::did_you_mean(action.as_str(), routes.actions().iter().map(|a| a.id.as_str()));
            return Err(Error::BadInput(format!("`actions`: no route has the action `{action}`{hint}")));
        }
        systems.extend(own.iter().filter_map(|route| route.system.clone()));
        environments.extend(own.iter().filter_map(|route| route.environment.clone()));
        highest = own.iter().map(|route| route.sensitivity).fold(highest, Sensitivity::max);
    }
    let environment = match (&asked.environment, parent) {
        (Some(environment), _) => Some(environment.clone()),
        (None, Some(parent)) => parent.scope.environment.clone(),
        (None, None) if environments.len() > 1 => {
            let names: Vec<String> = environments.iter().map(|name| format!("`{name}`")).collect();
            return Err(Error::BadInput(format!(
                "`environment`: expected one of {}, since the routes of these actions name more than one",
                names.join(", ")
            )));
        }
        (None, None) => environments.into_iter().next(),
    };
    Ok(Scope {
        actions: asked.actions.clone(),
        resources: asked.resources.clone(),
        systems,
        sensitivity: asked.sensitivity.or(parent.map(|parent| parent.scope.sensitivity)).unwrap_or(highest),
        environment,
    })
}

/// Puts a task under its parent.
///
/// INVARIANT: a child lies within its parent in every dimension; what would widen is refused, and named.
fn within(task: &mut Task, asked: &AskedTask, parent: &Task, deepest: u32) -> Result<(), Error> {
    let widens = |dimension: Dimension| {
        let detail = format!("the task would exceed its parent: {}", dimension.as_str());
        Error::refused(Refusal::DelegationWidens(dimension), detail)
    };
    task.root = parent.root.clone();
    task.parent = Some(parent.id.clone());
    task.depth = parent.depth + 1;
    if task.depth > deepest {
        return Err(widens(Dimension::Depth));
    }
    if let Some(dimension) = parent.scope.widened_by(&task.scope) {
        return Err(widens(dimension));
    }
    if task.workflow != parent.workflow {
        return Err(Error::BadInput("`workflow`: a part of a task belongs to the workflow of the whole".to_owned()));
    }
    if task.expires_at > parent.expires_at {
        if asked.ttl.is_some() {
            return Err(widens(Dimension::Expiry));
        }
        task.expires_at = parent.expires_at;
    }
    Ok(())
}
