//! Whether a grant that is presented counts for a call: its own, those above it, their ends and their scopes.

use super::{Kept, Support, TaskState, Tasks, Touch, Touched, Tree};
use crate::locks::read;
use crate::model::{Call, Fingerprint, ResourceId, Sensitivity, SpiffeId, TaskFacts, Timestamp};
use crate::reason::Reason;
use std::sync::Arc;

/// A grant, and who shows it for what.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    /// SHA-256 of the token.
    pub grant: Fingerprint,
    /// Who shows it.
    pub principal: &'a SpiffeId,
    /// The certificate that it is shown with.
    pub certificate: Option<Fingerprint>,
    /// For what.
    pub call: Call<'a>,
}

/// A grant that counts.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// Its task first, then those above it, the root last.
    line: Vec<Arc<Kept>>,
    /// What its tree had touched when it was looked at.
    pub touched: Arc<Touched>,
}

/// Why a grant does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantRefused {
    /// `grant_invalid`, `grant_revoked`, `grant_expired`, `grant_scope_exceeded`, or `signal_unavailable`.
    pub reason: Reason,
    /// One sentence, for the record.
    pub detail: String,
}

impl GrantRefused {
    fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

impl Tasks {
    /// Looks at a grant.
    ///
    /// INVARIANT I6: whatever ended a task, or one above it, denies the next call; and a call is held against the scope of
    /// each task of the chain, so that no child reaches what its parent does not.
    pub fn admit(
        &self,
        presented: &Presented<'_>,
        support: &dyn Support,
        now: Timestamp,
    ) -> Result<Admitted, GrantRefused> {
        let image = read(&self.0);
        let invalid = |detail: &str| GrantRefused::new(Reason::GrantInvalid, detail);
        let kept = image.grants.get(&presented.grant).ok_or_else(|| invalid("no task that is known has this grant"))?;
        if kept.task.principal != *presented.principal {
            return Err(invalid("the grant is another principal's"));
        }
        if kept.task.certificate.is_some_and(|bound| presented.certificate != Some(bound)) {
            return Err(invalid("the grant is bound to another certificate"));
        }
        let line = image
            .line(kept)
            .ok_or_else(|| GrantRefused::new(Reason::GrantRevoked, "a task above it is not known any more"))?;
        let states: Vec<TaskState> = line.iter().map(|kept| image.own_state(kept, support, now)).collect();
        if let Some((at, state)) = find(&states, |state| !matches!(state, TaskState::Live | TaskState::Expired)) {
            let whose = if at == 0 { "the task" } else { "a task above it" };
            let reason = match state {
                TaskState::WorkflowUnknown => Reason::SignalUnavailable,
                _ => Reason::GrantRevoked,
            };
            return Err(GrantRefused::new(reason, format!("{whose}: {}", state.as_str())));
        }
        if let Some((at, _)) = find(&states, |state| state == TaskState::Expired) {
            let whose = if at == 0 { "the task" } else { "a task above it" };
            return Err(GrantRefused::new(Reason::GrantExpired, format!("{whose} is over, or lay idle for too long")));
        }
        for (at, kept) in line.iter().enumerate() {
            if let Some(dimension) = kept.task.scope.exceeded_by(&presented.call) {
                let whose = if at == 0 { "the task" } else { "a task above it" };
                let detail = format!("{whose} does not cover the call: {}", dimension.as_str());
                return Err(GrantRefused::new(Reason::GrantScopeExceeded, detail));
            }
        }
        let touched = kept.tree.now();
        Ok(Admitted { line, touched })
    }
}

fn find(states: &[TaskState], which: impl Fn(TaskState) -> bool) -> Option<(usize, TaskState)> {
    states.iter().copied().enumerate().find(|(_, state)| which(*state))
}

impl Admitted {
    /// The task of the grant.
    pub fn task(&self) -> &Kept {
        // INVARIANT: a line begins with its own task.
        #[expect(clippy::indexing_slicing, reason = "`line` is made with one member and only grows")]
        &self.line[0]
    }

    /// The first task of the chain.
    pub fn root(&self) -> &Kept {
        self.line.last().map_or_else(|| self.task(), Arc::as_ref)
    }

    /// The tasks of the chain, the grant's own first.
    pub fn line(&self) -> impl Iterator<Item = &Kept> {
        self.line.iter().map(|kept| &**kept)
    }

    fn tree(&self) -> &Tree {
        &self.task().tree
    }

    /// When the first of the chain ends.
    pub fn expires_at(&self) -> Timestamp {
        self.line.iter().map(|kept| kept.ends_at()).min().unwrap_or_else(|| self.task().ends_at())
    }

    /// Notes what an allowed call touches. A chain is in use as a whole.
    pub fn touch(
        &self,
        resource: &ResourceId,
        system: Option<&Arc<str>>,
        sensitivity: Sensitivity,
        now: Timestamp,
    ) -> Touch {
        let touch = self.tree().touch(&self.root().task.id, &self.touched, system, sensitivity);
        if touch != Touch::Moved {
            self.line.iter().for_each(|kept| kept.used(now));
            self.tree().count(resource);
        }
        touch
    }

    /// What signals may know of it. Its workflow, if it has one, was found approved.
    pub fn facts(&self) -> TaskFacts {
        let (task, counts) = (&self.task().task, self.tree().counts());
        TaskFacts {
            task: task.id.shared(),
            root: task.root.shared(),
            workflow: task.workflow.as_ref().map(crate::model::WorkflowId::shared),
            in_approved_workflow: task.workflow.is_some(),
            begun_at: self.root().task.begun_at,
            chain: self.line.iter().map(|kept| kept.task.principal.clone()).collect(),
            calls: counts.map(|(calls, _)| calls),
            resources: counts.map(|(_, resources)| resources),
            systems: i64::try_from(self.touched.systems.len()).unwrap_or(i64::MAX),
        }
    }
}
