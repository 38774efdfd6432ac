//! Tasks and workflows of a running core: proposed, issued, ended, listed. Each is asked for at the admin door.

use super::Engine;
use crate::{
    change::{Change, StandingLost, WorkflowMoved},
    check::{self, BuiltIn, Standing},
    decide::Denial,
    error::Error,
    limits,
    model::{
        Ending, Fingerprint, ResourceId, SpiffeId, Task, TaskFacts, TaskId, Timestamp, Value, WorkflowId,
        names::SubjectKind,
    },
    policy::BuiltInRequest,
    reason::Reason,
    record::{Client, DecisionId, id::RANDOM_BYTES},
    refusal::Refusal,
    signals::Admission,
    snapshot::{Running, Snapshot},
    tasks::{AskedTask, Planned, Wanted},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value as Json, json};
use sha2::{Digest, Sha256};
use std::sync::{Arc, atomic::Ordering};

/// A task that policies have permitted, and that waits for its grant.
#[derive(Debug)]
pub struct Proposal {
    planned: Planned,
    /// The decision about it.
    pub decision: DecisionId,
}

impl Proposal {
    /// The task, but for its grant.
    pub const fn task(&self) -> &Task {
        &self.planned.task
    }

    /// The claims of its grant, but for issuer and audience (RFC 7519; `cnf` of RFC 8705; `act` of RFC 8693, which names who
    /// acted before, the nearest first).
    pub fn claims(&self) -> Json {
        let (task, scope) = (self.task(), &self.task().scope);
        let mut claims = Map::from_iter([
            ("jti".to_owned(), json!(task.id.as_str())),
            ("sub".to_owned(), json!(task.principal.as_str())),
            ("iat".to_owned(), json!(task.begun_at.as_micros() / 1_000_000)),
            // A grant may count for a moment longer to others than to us, never shorter than a second.
            ("exp".to_owned(), json!(task.expires_at.as_micros().div_euclid(1_000_000) + 1)),
            (
                "task".to_owned(),
                json!({
                    "type": task.kind.as_str(),
                    "workflow": task.workflow.as_ref().map(WorkflowId::as_str),
                    "actions": scope.actions.iter().map(ToString::to_string).collect::<Vec<_>>(),
                    "resources": scope.resources.iter().map(ToString::to_string).collect::<Vec<_>>(),
                    "systems": &scope.systems,
                    "sensitivity": scope.sensitivity.as_str(),
                    "environment": scope.environment.as_ref().map(ToString::to_string),
                    "parent": task.parent.as_ref().map(TaskId::as_str),
                    "root": task.root.as_str(),
                    "depth": task.depth,
                }),
            ),
        ]);
        if let Some(certificate) = task.certificate {
            claims.insert("cnf".to_owned(), json!({"x5t#S256": URL_SAFE_NO_PAD.encode(certificate.0)}));
        }
        let act = self.planned.above.iter().rev().fold(None, |inner: Option<Json>, principal| {
            let mut act = Map::from_iter([("sub".to_owned(), json!(principal.as_str()))]);
            act.extend(inner.map(|inner| ("act".to_owned(), inner)));
            Some(Json::Object(act))
        });
        claims.extend(act.map(|act| ("act".to_owned(), act)));
        Json::Object(claims)
    }
}

/// What a decision about tasks or approvals needs beside what is asked.
#[derive(Clone, Copy)]
pub struct Asking<'a> {
    /// The authenticated client.
    pub client: &'a SpiffeId,
    /// SHA-256 of its certificate, if it showed one.
    pub certificate: Option<Fingerprint>,
    /// The wall clock.
    pub now: Timestamp,
    /// Random bits of the decision's id.
    pub random: [u8; RANDOM_BYTES],
    /// Nanoseconds of a stopwatch.
    pub ticks: &'a dyn Fn() -> u64,
}

impl Asking<'_> {
    pub(super) fn as_client(&self) -> Client {
        Client { id: self.client.clone(), certificate: self.certificate }
    }
}

impl Engine {
    /// Judges a task that a client asks for, by its own bounds and by policy; the decision has its record. `id`: random bits
    /// of the task's id.
    pub fn propose_task(&self, asked: &[u8], asking: &Asking<'_>, id: [u8; RANDOM_BYTES]) -> Result<Proposal, Error> {
        let mut asked = AskedTask::from_json(asked)?;
        let running = self.loaded()?;
        let now = self.mark.advance(asking.now, (asking.ticks)());
        if asked.certificate.is_none() && asked.principal == *asking.client {
            asked.certificate = asking.certificate;
        }
        let id = TaskId::parse(&DecisionId::new(now, id).to_string())
            .ok_or_else(|| Error::Internal("an id of ours is no id of a task".to_owned()))?;
        let standing = self.standing(Some(&running), now);
        let snapshot = &running.snapshot;
        let planned = self.tasks.plan(&asked, asking.client, id, &snapshot.routes, &snapshot.tasks, &standing, now);
        let refused = match &planned {
            Err(Error::Refused(refusal, detail)) => match **refusal {
                Refusal::DelegationWidens(_) => Some(Denial::new(Reason::DelegationWidens, detail.clone())),
                // Unknown, ended, not the caller's: whoever asks is told so, and nothing is decided.
                _ => return planned.map(|planned| Proposal { planned, decision: DecisionId::new(now, asking.random) }),
            },
            Err(_) => {
                return planned.map(|planned| Proposal { planned, decision: DecisionId::new(now, asking.random) });
            }
            Ok(_) => None,
        };
        let parent = asked.parent.as_ref();
        let facts = planned.as_ref().ok().and_then(|planned| facts_of(&planned.task, parent));
        let (action, resource, path) = match parent {
            Some(parent) => (
                "task.delegate",
                ResourceId { kind: "Task".into(), id: parent.shared() },
                format!("/v1/tasks/{parent}/delegate"),
            ),
            None => (
                "task.begin",
                ResourceId { kind: "TaskType".into(), id: asked.kind.as_str().into() },
                "/v1/tasks".to_owned(),
            ),
        };
        let built_in = BuiltIn {
            action,
            resource,
            request: requested(&asked, planned.as_ref().ok()),
            client: asking.as_client(),
            task: facts.as_ref(),
            call: ("POST", path),
        };
        let decision = self.decide_built_in(&running, built_in, refused, asking, now)?;
        planned.map(|planned| Proposal { planned, decision })
    }

    /// The change that begins a proposed task, now that its grant is signed. Whatever ended meanwhile counts.
    pub fn issue_task(&self, proposal: &Proposal, grant: &[u8], now: Timestamp) -> Result<Change, Error> {
        let running = self.loaded()?;
        let now = self.mark.at_least(now);
        self.tasks.recheck(proposal.task(), &self.standing(Some(&running), now), now)?;
        let grant = Fingerprint(Sha256::digest(grant).into());
        Ok(Change::TaskBegun(Box::new(Task { grant, ..proposal.task().clone() })))
    }

    /// The change that ends a task.
    pub fn end_task(
        &self,
        id: &str,
        how: &str,
        client: &SpiffeId,
        is_operator: bool,
        now: Timestamp,
    ) -> Result<Change, Error> {
        let how = Ending::parse(how)
            .ok_or_else(|| Error::BadInput(format!("expected `completed` or `revoked`, found `{how}`")))?;
        let now = self.mark.at_least(now);
        let running = self.running.load();
        let standing = self.standing(running.as_ref(), now);
        self.tasks.end(id, how, client, is_operator, &standing, now).map(Change::TaskEnded)
    }

    /// The change that ends all that a principal was given up to a time.
    pub fn end_tasks_of(
        &self,
        principal: &SpiffeId,
        at: Timestamp,
        why: &str,
        now: Timestamp,
    ) -> Result<Change, Error> {
        if why.len() > limits::MAX_COMMENT_BYTES {
            return Err(Error::BadInput(format!("expected a reason of at most {} bytes", limits::MAX_COMMENT_BYTES)));
        }
        // What lies ahead of our clock counts as now: whoever speaks of the future would lock it out.
        let at = at.min(self.mark.at_least(now));
        // What is kept of a principal is its last change: one that comes late takes nothing of it back.
        let at = self.tasks.lost_until(principal).max(Some(at)).unwrap_or(at);
        Ok(Change::StandingLost(StandingLost { principal: principal.clone(), at, why: why.into() }))
    }

    /// The tasks that are wanted, as JSON.
    pub fn list_tasks(&self, wanted: &Wanted<'_>, now: Timestamp) -> Json {
        let now = self.mark.at_least(now);
        let running = self.running.load();
        self.tasks.list(wanted, &self.standing(running.as_ref(), now), now, self.mark.reached(now))
    }

    /// The change that approves or ends a workflow.
    pub fn move_workflow(
        &self,
        workflow: &str,
        state: &str,
        client: &SpiffeId,
        now: Timestamp,
    ) -> Result<Change, Error> {
        let id = WorkflowId::parse(workflow)
            .ok_or_else(|| Error::BadInput(format!("expected {}, found `{workflow}`", WorkflowId::FORM)))?;
        let approved = match state {
            check::WORKFLOW_APPROVED => true,
            check::WORKFLOW_ENDED => false,
            _ => return Err(Error::BadInput(format!("`state`: expected `approved` or `ended`, found `{state}`"))),
        };
        Ok(self.moved(id, approved, client.shared(), false, self.mark.at_least(now)))
    }

    /// How a workflow stands once somebody has said so. Its last end is never forgotten.
    pub(super) fn moved(&self, id: WorkflowId, approved: bool, by: Arc<str>, by_signal: bool, at: Timestamp) -> Change {
        let known = self.tasks.workflow(&id).and_then(|known| known.ended_at);
        let ended_at = if approved { known } else { Some(at).max(known) };
        Change::WorkflowMoved(WorkflowMoved { id, approved, ended_at, at, by, by_signal })
    }

    /// What the orchestrators' signal says of workflows moves them, in the same write as the signal itself.
    pub(super) fn follow_workflows(&self, snapshot: &Snapshot, admission: &mut Admission) {
        let Some(name) = snapshot.tasks.workflow_signal() else { return };
        let moved = |change: &Change| {
            let Change::SignalPublished(published) = change else { return None };
            if published.name.as_str() != name || published.subject.kind != SubjectKind::Workflow {
                return None;
            }
            let id = WorkflowId::parse(&published.subject.id)?;
            let approved = match &published.value {
                Value::String(word) if &**word == check::WORKFLOW_APPROVED => true,
                Value::String(word) if &**word == check::WORKFLOW_ENDED => false,
                _ => return None,
            };
            let by = published.origin.to_string().into();
            Some(self.moved(id, approved, by, true, published.received_at))
        };
        let followed: Vec<Change> = admission.changes.iter().filter_map(moved).collect();
        admission.changes.extend(followed);
    }

    /// The workflows, as JSON.
    pub fn list_workflows(&self, most: usize) -> Json {
        self.tasks.workflows(most)
    }

    pub(super) fn loaded(&self) -> Result<Arc<Running>, Error> {
        self.running.load_full().ok_or_else(|| Error::BadInput("no configuration is loaded".to_owned()))
    }

    pub(super) fn standing<'a>(&'a self, running: Option<&'a Arc<Running>>, now: Timestamp) -> Standing<'a> {
        Standing { running: running.map(|running| &**running), store: &self.store, proofs: &self.proofs, now }
    }

    /// Decides, and offers the record to the log; the decision's id if it allows.
    pub(super) fn decide_built_in(
        &self,
        running: &Running,
        asked: BuiltIn<'_>,
        refused: Option<Denial>,
        asking: &Asking<'_>,
        now: Timestamp,
    ) -> Result<DecisionId, Error> {
        let id = DecisionId::new(now, asking.random);
        let ground = self.ground(running, None, now, id, asking.ticks);
        let (record, panicked) = check::decide_built_in(&ground, asked, refused);
        if panicked {
            self.counts.panics.fetch_add(1, Ordering::Relaxed);
        }
        let (reason, detail) = (record.reason, record.detail.clone());
        // INVARIANT I4: no record, no allow.
        let is_accepted = self.ring.accept(record);
        let reason = if is_accepted { reason } else { Reason::LogUnavailable };
        self.count(reason, true);
        match reason {
            // Of a delegation that widens its own refusal says more.
            Reason::Allowed | Reason::DelegationWidens => Ok(id),
            Reason::LogUnavailable => {
                Err(Error::refused(Refusal::LogUnavailable, "the decision could not be recorded"))
            }
            reason => {
                let sentence = if detail.is_empty() { reason.sentence().to_owned() } else { detail };
                let refusal = Refusal::PolicyRefused { reason, decision: id.to_string() };
                Err(Error::refused(refusal, sentence))
            }
        }
    }
}

/// What signals may know while a task is asked for: the parent that it would be part of, or the workflow that it names.
fn facts_of(planned: &Task, parent: Option<&TaskId>) -> Option<TaskFacts> {
    (parent.is_some() || planned.workflow.is_some()).then(|| TaskFacts {
        task: parent.unwrap_or(&planned.id).shared(),
        root: planned.root.shared(),
        workflow: planned.workflow.as_ref().map(WorkflowId::shared),
        in_approved_workflow: planned.workflow.is_some(),
        begun_at: planned.begun_at,
        chain: Vec::new(),
        // Nothing was called under a task that has not begun; of a parent it is not looked up here.
        calls: None,
        resources: None,
        systems: 0,
    })
}

fn requested(asked: &AskedTask, planned: Option<&Planned>) -> BuiltInRequest {
    let scope = planned.map(|planned| &planned.task.scope);
    BuiltInRequest {
        principal: asked.principal.clone(),
        actions: asked.actions.clone(),
        resources: asked.resources.iter().map(|resource| resource.to_string().into()).collect(),
        sensitivity: scope.map(|scope| scope.sensitivity).or(asked.sensitivity),
        environment: scope.and_then(|scope| scope.environment.clone()).or_else(|| asked.environment.clone()),
    }
}
