//! The written form of questions, of the answers to them, and of their use.

use super::{
    Change, Kind, VERSION, bad,
    tasks::{action, digest, principal, task_id},
};
use crate::error::Error;
use crate::model::{Answer, ApprovalId, PolicyText, Question, ResourceId, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A yes was used for its call, or given back unused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalUsed {
    /// Which approval.
    pub id: ApprovalId,
    /// The decision that used it; `None`: it was given back, since that decision came to nothing.
    pub decision: Option<Box<str>>,
    /// When.
    pub at: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenQuestion {
    v: u32,
    change: Kind,
    id: String,
    binding: String,
    requester: String,
    actor: Option<Box<str>>,
    task: Option<String>,
    action: String,
    resource: String,
    method: Box<str>,
    host: Box<str>,
    path: Box<str>,
    body_sha256: String,
    args: BTreeMap<Box<str>, Box<str>>,
    words: Vec<Box<str>>,
    policies: Vec<(Box<str>, Box<str>)>,
    asked_at_us: i64,
    expires_at_us: i64,
    need: u32,
}

impl From<&Question> for WrittenQuestion {
    fn from(question: &Question) -> Self {
        let q = question.clone();
        Self {
            v: VERSION,
            change: Kind::ApprovalAsked,
            id: q.id.to_string(),
            binding: q.binding.to_hex(),
            requester: q.requester.to_string(),
            actor: q.actor,
            task: q.task.map(|task| task.to_string()),
            action: q.action.to_string(),
            resource: q.resource.to_string(),
            method: q.method,
            host: q.host,
            path: q.path,
            body_sha256: q.body.to_hex(),
            args: q.args,
            words: q.words,
            policies: q.policies.into_iter().map(|policy| (policy.id, policy.sha256)).collect(),
            asked_at_us: q.asked_at.as_micros(),
            expires_at_us: q.expires_at.as_micros(),
            need: q.need,
        }
    }
}

fn approval_id(text: &str) -> Result<ApprovalId, Error> {
    ApprovalId::parse(text).ok_or_else(|| bad("approval", text))
}

impl WrittenQuestion {
    pub(super) fn into_change(self) -> Result<Change, Error> {
        if self.need == 0 {
            return Err(bad("number of approvers", "0"));
        }
        Ok(Change::ApprovalAsked(Box::new(Question {
            id: approval_id(&self.id)?,
            binding: digest(&self.binding)?,
            requester: principal(&self.requester)?,
            actor: self.actor,
            task: self.task.as_deref().map(task_id).transpose()?,
            action: action(&self.action)?,
            resource: ResourceId::parse(&self.resource).ok_or_else(|| bad("resource", &self.resource))?,
            method: self.method,
            host: self.host,
            path: self.path,
            body: digest(&self.body_sha256)?,
            args: self.args,
            words: self.words,
            policies: self.policies.into_iter().map(|(id, sha256)| PolicyText { id, sha256 }).collect(),
            asked_at: Timestamp::from_micros(self.asked_at_us),
            expires_at: Timestamp::from_micros(self.expires_at_us),
            need: self.need,
        })))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenAnswer {
    v: u32,
    change: Kind,
    id: String,
    by: Box<str>,
    approve: bool,
    comment: Box<str>,
    at_us: i64,
}

impl From<&Answer> for WrittenAnswer {
    fn from(answer: &Answer) -> Self {
        Self {
            v: VERSION,
            change: Kind::ApprovalAnswered,
            id: answer.id.to_string(),
            by: answer.by.clone(),
            approve: answer.approve,
            comment: answer.comment.clone(),
            at_us: answer.at.as_micros(),
        }
    }
}

impl WrittenAnswer {
    pub(super) fn into_change(self) -> Result<Change, Error> {
        Ok(Change::ApprovalAnswered(Answer {
            id: approval_id(&self.id)?,
            by: self.by,
            approve: self.approve,
            comment: self.comment,
            at: Timestamp::from_micros(self.at_us),
        }))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenUse {
    v: u32,
    change: Kind,
    id: String,
    decision: Option<Box<str>>,
    at_us: i64,
}

impl From<&ApprovalUsed> for WrittenUse {
    fn from(used: &ApprovalUsed) -> Self {
        Self {
            v: VERSION,
            change: Kind::ApprovalUsed,
            id: used.id.to_string(),
            decision: used.decision.clone(),
            at_us: used.at.as_micros(),
        }
    }
}

impl WrittenUse {
    pub(super) fn into_change(self) -> Result<Change, Error> {
        Ok(Change::ApprovalUsed(ApprovalUsed {
            id: approval_id(&self.id)?,
            decision: self.decision,
            at: Timestamp::from_micros(self.at_us),
        }))
    }
}
