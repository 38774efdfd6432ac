//! Why a call about tasks or approvals is refused: a closed list, whose codes are reasons of the admin API.

use crate::{model::Dimension, reason::Reason};

/// Why, beside the sentence that says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No task has this id, or none that is remembered.
    TaskUnknown,
    /// The task has ended.
    TaskEnded,
    /// The task is neither the caller's nor made by it.
    NotYours,
    /// The workflow is not approved.
    WorkflowNotApproved,
    /// A child would exceed its parent.
    DelegationWidens(Dimension),
    /// No more tasks are held.
    TooManyTasks,
    /// Policies do not permit it.
    PolicyRefused {
        /// What the decision says.
        reason: Reason,
        /// Its id.
        decision: String,
    },
    /// No approval has this id, or none that is remembered.
    ApprovalUnknown,
    /// It was answered, used, or not answered in time.
    ApprovalEnded,
    /// The approver asked, or stands in the chain of whoever did.
    OwnApproval,
    /// The approver has said yes before.
    AlreadyGiven,
    /// The decision about the call could not be recorded.
    LogUnavailable,
}

impl Refusal {
    /// Its code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TaskUnknown => "task_unknown",
            Self::TaskEnded => "task_ended",
            Self::NotYours => "not_yours",
            Self::WorkflowNotApproved => "workflow_not_approved",
            Self::DelegationWidens(_) => "delegation_widens",
            Self::TooManyTasks => "too_many_tasks",
            Self::PolicyRefused { .. } => "policy_refused",
            Self::ApprovalUnknown => "approval_unknown",
            Self::ApprovalEnded => "approval_ended",
            Self::OwnApproval => "own_approval",
            Self::AlreadyGiven => "already_given",
            Self::LogUnavailable => "log_unavailable",
        }
    }

    /// What more there is to say, by name.
    pub fn more(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::DelegationWidens(dimension) => vec![("dimension", dimension.as_str().to_owned())],
            Self::PolicyRefused { reason, decision } => {
                vec![("decision_reason", reason.code().to_owned()), ("decision_id", decision.clone())]
            }
            _ => Vec::new(),
        }
    }
}
