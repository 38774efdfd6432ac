//! What a record says of the grant, its chain, and the approval of a call. Never the grant: its digest.

use super::{ApprovalNote, GrantNote, veil::Veil};
use crate::model::{SpiffeId, WorkflowId};
use serde::Serialize;
use std::{borrow::Cow, collections::BTreeSet, sync::Arc};

#[derive(Serialize)]
pub(super) struct GrantPart<'a> {
    sha256: String,
    /// What follows: only of a grant that counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<&'a str>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workflow: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bound: Option<bool>,
}

impl<'a> GrantPart<'a> {
    pub(super) fn of(note: &'a GrantNote) -> Self {
        match note {
            GrantNote::Refused(digest) => {
                Self { sha256: digest.to_hex(), task: None, kind: None, workflow: None, expires_at: None, bound: None }
            }
            GrantNote::Admitted(admitted) => {
                let task = &admitted.task().task;
                Self {
                    sha256: task.grant.to_hex(),
                    task: Some(task.id.as_str()),
                    kind: Some(task.kind.as_str()),
                    workflow: task.workflow.as_ref().map(WorkflowId::as_str),
                    expires_at: Some(admitted.expires_at().to_rfc3339()),
                    bound: Some(task.certificate.is_some()),
                }
            }
        }
    }
}

#[derive(Serialize)]
pub(super) struct ChainPart<'a> {
    depth: u32,
    /// The principal of the first task.
    root: &'a str,
    /// The tasks, the grant's own first.
    tasks: Vec<&'a str>,
    /// Their principals.
    principals: Vec<&'a str>,
    /// What the tree had touched before this call.
    systems: &'a BTreeSet<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sensitivity: Option<&'static str>,
}

impl<'a> ChainPart<'a> {
    pub(super) fn of(note: &'a GrantNote) -> Option<Self> {
        let GrantNote::Admitted(admitted) = note else { return None };
        Some(Self {
            depth: admitted.task().task.depth,
            root: admitted.root().task.principal.as_str(),
            tasks: admitted.line().map(|kept| kept.task.id.as_str()).collect(),
            principals: admitted.line().map(|kept| SpiffeId::as_str(&kept.task.principal)).collect(),
            systems: &admitted.touched.systems,
            sensitivity: admitted.touched.sensitivity.map(crate::model::Sensitivity::as_str),
        })
    }
}

#[derive(Serialize)]
pub(super) struct ApprovalPart<'a> {
    id: &'a str,
    state: &'static str,
    approved_by: &'a BTreeSet<Arc<str>>,
    body_sha256: String,
    words: Vec<Cow<'a, str>>,
    expires_at: String,
}

impl<'a> ApprovalPart<'a> {
    pub(super) fn of(note: &'a ApprovalNote, veil: Option<&Veil<'_>>) -> Self {
        let question = &note.question;
        let shown = |word: &'a str| veil.map_or(Cow::Borrowed(word), |veil| veil.text(word));
        Self {
            id: question.id.as_str(),
            state: note.state,
            approved_by: &note.approved_by,
            body_sha256: question.body.to_hex(),
            words: question.words.iter().map(|word| shown(word)).collect(),
            expires_at: question.expires_at.to_rfc3339(),
        }
    }
}
