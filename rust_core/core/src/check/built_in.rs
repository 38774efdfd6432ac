//! Decisions about tasks and approvals themselves: a client of the admin door asks, policies of the built-in actions answer,
//! and what they say has a record as any call's has.

use super::{Ground, blank, caught, gathered};
use crate::{
    decide::Denial,
    model::{ActionId, PrincipalRecord, Request, ResourceId, TaskFacts, Tier, Timestamp},
    policy::{BuiltInRequest, IdentityView, Query, reasoning},
    reason::Reason,
    record::{Asked, Client, Record},
    signals::Asker,
};
use std::sync::Arc;

/// What a client asks for.
pub(crate) struct BuiltIn<'a> {
    /// One of `BUILT_IN_ACTIONS`.
    pub(crate) action: &'static str,
    /// The type of task, the parent, or the question.
    pub(crate) resource: ResourceId,
    /// `context.request`.
    pub(crate) request: BuiltInRequest,
    /// Who asks.
    pub(crate) client: Client,
    /// The task that it is part of.
    pub(crate) task: Option<&'a TaskFacts>,
    /// The call of the admin door, for the record.
    pub(crate) call: (&'static str, String),
}

/// The record of the decision, whose reason is the answer; and whether a panic broke it off. `refused`: what stands
/// against it before any policy.
pub(crate) fn decide_built_in(ground: &Ground<'_>, asked: BuiltIn<'_>, refused: Option<Denial>) -> (Box<Record>, bool) {
    let mut record = blank(ground.id, ground.now);
    record.snapshot = Some(Arc::clone(&ground.running.snapshot));
    record.asked = Asked { method: asked.call.0.to_owned(), path: asked.call.1.clone(), ..Asked::default() };
    record.client = Some(asked.client.clone());
    let (outcome, panicked) = caught(ground, &mut record, |record| judge(ground, asked, refused, record));
    if let Err(denial) = outcome {
        record.deny(denial);
    }
    (record, panicked)
}

fn judge(ground: &Ground<'_>, asked: BuiltIn<'_>, refused: Option<Denial>, record: &mut Record) -> Result<(), Denial> {
    let snapshot = &ground.running.snapshot;
    let BuiltIn { action, resource, request, client, task, .. } = asked;
    let Some(action) = ActionId::parse(action) else {
        return Err(Denial::new(Reason::EngineError, "a built-in action has no name"));
    };
    let query = record.query.insert(query(&client, action, resource, request, ground.now));
    if let Some(refused) = refused {
        return Err(refused);
    }
    let known = snapshot.policies.record_of(&client.id);
    may_ask(known, ground.now)?;
    let slice = snapshot.policies.slice(query)?;
    let who = Asker {
        principal: &client.id,
        resource: &query.resource,
        device: known.and_then(|record| record.device.as_deref()),
        route: None,
        proofs: &[],
        derived: &ground.running.derived,
        task,
    };
    record.facts = gathered(ground, query, &*slice, &who, &Request::default());
    let verdict = record.verdict.insert(reasoning::evaluate(&*slice, &snapshot.rules, &record.facts));
    match verdict.reason {
        Reason::Allowed => Ok(()),
        reason => Err(Denial::new(reason, "")),
    }
}

/// The question that is put to the policies.
pub(crate) fn query(
    client: &Client,
    action: ActionId,
    resource: ResourceId,
    request: BuiltInRequest,
    now: Timestamp,
) -> Query {
    let identity = IdentityView::of("client", client.id.trust_domain(), client.certificate.is_some());
    Query { built_in: Some(request), ..Query::of(client.id.clone(), action, Tier::Runtime, resource, identity, now) }
}

/// Whether what is said of a client stands against it before any policy.
pub(crate) fn may_ask(known: Option<&PrincipalRecord>, now: Timestamp) -> Result<(), Denial> {
    match known.and_then(|known| known.retired_at).filter(|at| now >= *at) {
        Some(at) => Err(Denial::new(Reason::PrincipalRetired, format!("the client was retired at {at}"))),
        None => Ok(()),
    }
}
