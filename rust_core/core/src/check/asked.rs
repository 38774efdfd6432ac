//! Answers to questions: may this workload do that? Another enforcement point asks at the admin door (`AuthZEN`), and
//! vouches for the workload. The verbs are those of a request's way; what a question can't tell may not widen.

use super::{Ground, blank, caught, gathered, grant};
use crate::{
    decide::{self, Denial, Need, Permit},
    model::{Fact, Inquiry, PrincipalRecord, Request, SpiffeId, Timestamp},
    policy::{IdentityView, Query, RequestView, SignalIndex, Slice, reasoning, reasoning::Verdict},
    reason::Reason,
    record::{Asked, Client, DecisionId, Record},
    route::{Given, Resolved, Unrepeatable},
    signals::Asker,
};
use serde_json::{Map, Value as Json};
use std::sync::Arc;

/// `context.identity.kind`, `source` and `class` of a workload that another vouches for.
pub(crate) const VOUCHED: &str = "vouched";

/// One call that a question could be about, decided.
struct Looked {
    resolved: Resolved,
    query: Query,
    facts: Vec<(SignalIndex, Fact)>,
    verdict: Option<Verdict>,
    outcome: Result<Permit, Denial>,
    /// Of a denial that is let pass.
    passes: Option<Permit>,
}

/// The record of the answer, with the permit if it is yes; and whether a panic broke it off.
pub(crate) fn inquire(
    ground: &Ground<'_>,
    mut inquiry: Inquiry,
    client: Client,
) -> (Box<Record>, Option<Permit>, bool) {
    // What no route names is let go of here: a record that waits would hold on to it.
    let args = std::mem::take(&mut inquiry.args);
    let mut record = begun(ground.id, ground.now, inquiry, client);
    record.snapshot = Some(Arc::clone(&ground.running.snapshot));
    let (outcome, panicked) = caught(ground, &mut record, |record| judge(ground, &args, record));
    match outcome {
        Ok(permit) => (record, Some(permit), panicked),
        Err(denial) => {
            record.enforced = true;
            record.deny(denial);
            (record, None, panicked)
        }
    }
}

/// A question that no configuration can answer.
pub(crate) fn unanswered(
    mut inquiry: Inquiry,
    client: Client,
    why: &str,
    id: DecisionId,
    now: Timestamp,
) -> Box<Record> {
    inquiry.args.clear();
    let mut record = begun(id, now, inquiry, client);
    record.deny(Denial::new(Reason::NotReady, why));
    record
}

fn begun(id: DecisionId, now: Timestamp, inquiry: Inquiry, client: Client) -> Box<Record> {
    let mut record = blank(id, now);
    let envoy_id = inquiry.request_id.as_deref().unwrap_or_default().to_owned();
    record.asked = Asked { method: "POST".to_owned(), path: inquiry.path.to_string(), envoy_id, ..Asked::default() };
    record.client = Some(client);
    record.inquiry = Some(Box::new(inquiry));
    record
}

/// Which call the question is about is not told, so each one that it could be must be allowed.
fn judge(ground: &Ground<'_>, args: &Map<String, Json>, record: &mut Record) -> Result<Permit, Denial> {
    let snapshot = &ground.running.snapshot;
    let Some(inquiry) = record.inquiry.as_deref() else {
        return Err(Denial::new(Reason::EngineError, "there is no question"));
    };
    let calls = resolve(ground, inquiry, args)?;
    let subject = match vouched(ground, inquiry) {
        Ok(subject) => subject,
        Err(denial) => {
            record.route = calls.first().map(|call| Arc::clone(&call.route));
            record.resolved = calls.into_iter().next();
            return Err(denial);
        }
    };
    let known = snapshot.policies.record_of(&subject);
    let mut decisive: Option<Looked> = None;
    for resolved in calls {
        let looked = look(ground, resolved, &subject, known);
        let is_denied = looked.outcome.is_err() && looked.passes.is_none();
        // What is denied stands before what is let pass, and that before what is allowed.
        let counts_more = |before: &Looked| is_denied || (before.outcome.is_ok() && looked.outcome.is_err());
        if decisive.as_ref().is_none_or(counts_more) {
            decisive = Some(looked);
        }
        if is_denied {
            break;
        }
    }
    let looked = decisive.ok_or_else(|| Denial::new(Reason::EngineError, "the question is about no call"))?;
    note(record, looked)
}

/// The workload that is asked about, if it counts.
fn vouched(ground: &Ground<'_>, inquiry: &Inquiry) -> Result<SpiffeId, Denial> {
    let subject = inquiry.subject.clone().map_err(|why| Denial::new(Reason::IdentityInvalid, why))?;
    ground.running.snapshot.identity.vouched(&subject, ground.proofs)?;
    Ok(subject)
}

/// The calls that the question could be about. A record without a route is about none.
fn resolve(ground: &Ground<'_>, inquiry: &Inquiry, args: &Map<String, Json>) -> Result<Vec<Resolved>, Denial> {
    let unknown = |why: &str| Denial::new(Reason::RouteUnknown, why);
    let action = inquiry.action.as_ref().ok_or_else(|| unknown("no action can have such a name"))?;
    let resource = inquiry.resource.as_ref().ok_or_else(|| unknown("no resource can be of such a type"))?;
    let given = Given { args, left_out: None };
    ground.running.snapshot.routes.asked(action, resource, given).map_err(|why| match why {
        Unrepeatable::Unresolved(unresolved) => unresolved.into(),
        Unrepeatable::Unknown(why) => Denial::new(Reason::MalformedRequest, why),
    })
}

fn note(record: &mut Record, looked: Looked) -> Result<Permit, Denial> {
    let Looked { resolved, query, facts, verdict, outcome, passes } = looked;
    record.route = Some(Arc::clone(&resolved.route));
    record.resolved = Some(resolved);
    record.query = Some(query);
    record.facts = facts;
    record.verdict = verdict;
    match (outcome, passes) {
        (Err(denial), Some(permit)) => {
            record.deny(denial);
            record.enforced = false;
            Ok(permit)
        }
        (outcome, _) => outcome,
    }
}

fn look(ground: &Ground<'_>, resolved: Resolved, subject: &SpiffeId, known: Option<&PrincipalRecord>) -> Looked {
    let query = query(&resolved, subject, known, ground.now);
    let (mut facts, mut verdict) = (Vec::new(), None);
    let outcome = weigh(ground, &resolved, &query, known, &mut facts, &mut verdict);
    let passes = outcome.as_ref().err().and_then(|denial| decide::let_pass(&resolved.route, denial));
    Looked { resolved, query, facts, verdict, outcome, passes }
}

fn weigh(
    ground: &Ground<'_>,
    resolved: &Resolved,
    query: &Query,
    known: Option<&PrincipalRecord>,
    facts: &mut Vec<(SignalIndex, Fact)>,
    verdict: &mut Option<Verdict>,
) -> Result<Permit, Denial> {
    let (snapshot, route) = (&ground.running.snapshot, &resolved.route);
    snapshot.principals.admit(known, route, ground.now)?;
    if grant::wanted(route) == Some(true) {
        return Err(Denial::new(Reason::GrantRequired, "a question shows no grant"));
    }
    let slice = snapshot.policies.slice(query)?;
    may_be_asked(&*slice)?;
    let who = Asker {
        principal: &query.principal,
        resource: &query.resource,
        device: known.and_then(|record| record.device.as_deref()),
        route: Some(route),
        proofs: &[],
        derived: &ground.running.derived,
        task: None,
    };
    // INVARIANT I2: what would have come with the request is missing, like any signal that is not there.
    *facts = gathered(ground, query, &*slice, &who, &Request::default());
    let verdict = verdict.insert(reasoning::evaluate(&*slice, &snapshot.rules, facts));
    match decide::conclude(route, verdict.reason, !verdict.gates.is_empty())? {
        Need::Nothing => decide::permit(route, verdict, None, None),
        // Nobody is asked: a yes would be one to a call that is not told.
        Need::Approval => Err(Denial::new(Reason::ApprovalRequired, "a question is no call that could be approved")),
    }
}

/// Whether policies read nothing but what a question tells.
///
/// INVARIANT I1, I2: what is not told is not made up: a policy that reads it could say anything.
pub(crate) fn may_be_asked(slice: &dyn Slice) -> Result<(), Denial> {
    let untold = (0..slice.in_play().len()).find_map(|at| Some((at, slice.untold(at)?)));
    let Some((at, what)) = untold else { return Ok(()) };
    let detail = format!("the policy `{}` reads {what}, which a question does not tell", slice.info(at).id);
    Err(Denial::new(Reason::MalformedRequest, detail))
}

/// The question that is put to the policies.
pub(crate) fn query(resolved: &Resolved, subject: &SpiffeId, known: Option<&PrincipalRecord>, now: Timestamp) -> Query {
    let route = &resolved.route;
    let legacy = known.is_some_and(PrincipalRecord::is_legacy);
    let identity = IdentityView { legacy, ..IdentityView::of(VOUCHED, subject.trust_domain(), false) };
    let request = RequestView { args: resolved.args.clone(), ..RequestView::default() };
    let resource = resolved.resource.clone();
    Query { request, ..Query::of(subject.clone(), route.action.clone(), route.tier, resource, identity, now) }
}
