//! The approval of a call, last of all: found by what the call is, asked for if there is none, claimed if there is a yes.

use super::{Ground, Keeping, Stop};
use crate::{
    approvals::{self, ApprovalState, Asked, Bound, Claimed, Known},
    change::Change,
    decide::Denial,
    identity::Evidence,
    model::{ApprovalId, Fingerprint, PolicyText, Question, Request, TaskId},
    policy::{Effect, reasoning::Truth, reasoning::Verdict},
    reason::Reason,
    record::ApprovalNote,
    route::Resolved,
    snapshot::Snapshot,
    tasks::Admitted,
};
use sha2::{Digest, Sha256};
use std::{collections::BTreeSet, sync::Arc};

/// The header that may name an approval.
const HEADER: &str = "x-signalwarden-approval";

/// A call, as approvals know it.
pub(super) struct Exact {
    body: Fingerprint,
    binding: Fingerprint,
    task: Option<TaskId>,
    found: Known,
}

impl Exact {
    /// What is known of this call; `None` if its body is not there as a whole.
    pub(super) fn of(
        ground: &Ground<'_>,
        resolved: &Resolved,
        evidence: &Evidence,
        admitted: Option<&Admitted>,
        request: &Request,
    ) -> Result<Self, &'static str> {
        let body = Fingerprint(Sha256::digest(request.whole_body()?).into());
        let task = admitted.map(|admitted| admitted.task().task.id.clone());
        let binding = approvals::binding(&Bound {
            requester: &evidence.principal,
            actor: evidence.actor.as_deref(),
            task: task.as_ref(),
            action: &resolved.route.action,
            resource: &resolved.resource,
            method: &request.method,
            host: &request.host,
            path: &request.path,
            body,
        });
        let named = match request.headers.all(HEADER) {
            [] => None,
            [one] => Some(one.value.as_str()),
            // No approval has this id.
            _ => Some(""),
        };
        let found = ground.approvals.find(&binding, named, ground.now);
        Ok(Self { body, binding, task, found })
    }

    /// What is known of it, for the record.
    pub(super) fn note(&self) -> Option<ApprovalNote> {
        let Known::Asked { question, state, approved_by } = &self.found else { return None };
        Some(ApprovalNote { question: Arc::clone(question), state: state.as_str(), approved_by: approved_by.clone() })
    }

    /// Who has approved exactly this call, and it can still be used: `context.approval`.
    pub(super) fn approved_by(&self) -> BTreeSet<Arc<str>> {
        match &self.found {
            Known::Asked { state: ApprovalState::Approved, approved_by, .. } => approved_by.clone(),
            _ => BTreeSet::new(),
        }
    }
}

/// What is to be approved.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) resolved: &'a Resolved,
    pub(super) evidence: &'a Evidence,
    pub(super) request: &'a Request,
    pub(super) verdict: &'a Verdict,
}

/// The policies that a call is allowed by, and those that demand an approval, in the text that they have.
struct Deciding {
    permits: Vec<PolicyText>,
    gates: Vec<PolicyText>,
    words: Vec<Box<str>>,
}

impl Deciding {
    fn of(snapshot: &Snapshot, verdict: &Verdict) -> Self {
        let policies = snapshot.policies.policies();
        let text = |index: u32| {
            let policy = policies.get(index as usize)?;
            Some(PolicyText { id: (*policy.id).into(), sha256: policy.text_sha256.as_str().into() })
        };
        let permits = verdict.in_play.iter().zip(&verdict.truths).filter(|(index, truth)| {
            let effect = policies.get(**index as usize).map(|policy| policy.effect);
            **truth == Truth::Certain && effect == Some(Effect::Permit)
        });
        let words = verdict.gates.iter().filter_map(|index| policies.get(*index as usize)?.require_approval.as_deref());
        Self {
            permits: permits.filter_map(|(index, _)| text(*index)).collect(),
            gates: verdict.gates.iter().filter_map(|index| text(*index)).collect(),
            words: words.map(Into::into).collect(),
        }
    }
}

/// Approves a call that policies allow, or says why it is not approved. `ready` is called before a yes is claimed: what
/// could still stop the call must stop it there.
pub(super) fn approve(
    ground: &Ground<'_>,
    exact: Result<Exact, &'static str>,
    call: &Call<'_>,
    note: &mut Option<ApprovalNote>,
    keeping: &mut Keeping,
    ready: impl FnOnce(&mut Keeping) -> Result<(), Stop>,
) -> Result<Claimed, Stop> {
    let denied = |reason, detail: &str| Err(Stop::Denied(Denial::new(reason, detail)));
    if !call.resolved.route.enforce {
        // Let pass whatever is answered: a question would only tire whoever has to answer.
        return denied(Reason::ApprovalRequired, "not asked, since the route is not enforced");
    }
    let exact = exact.map_err(|why| Denial::new(Reason::BodyIncomplete, why))?;
    let deciding = Deciding::of(&ground.running.snapshot, call.verdict);
    let (question, state) = match &exact.found {
        Known::Mismatch => return denied(Reason::ApprovalMismatch, "the approval that is named is of another call"),
        Known::Nothing => return Err(ask(ground, &exact, call, deciding, note, keeping).into()),
        Known::Asked { question, state, .. } => (question, *state),
    };
    *note = exact.note();
    match state {
        ApprovalState::Pending => return denied(Reason::ApprovalRequired, "nobody has answered yet"),
        ApprovalState::Denied => return denied(Reason::ApprovalDenied, ""),
        ApprovalState::Expired => {
            return denied(Reason::ApprovalExpired, "nobody answered in time, or the yes was not used");
        }
        ApprovalState::Used => return denied(Reason::ApprovalMismatch, "the approval was used before"),
        ApprovalState::Approved => {}
    }
    if !approvals::still_decide(question, &deciding.permits, &deciding.gates) {
        return denied(Reason::ApprovalMismatch, "the policies that it was given for have changed");
    }
    ready(keeping)?;
    let decision = ground.id.to_string();
    let Some(claimed) = ground.approvals.claim(&question.id, &decision, ground.now) else {
        return denied(Reason::ApprovalMismatch, "another call has just used it");
    };
    keeping.changes.push(approvals::used(&question.id, Some(&decision), ground.now));
    keeping.claim = Some(question.id.clone());
    Ok(claimed)
}

/// Asks about a call of which nothing is known.
fn ask(
    ground: &Ground<'_>,
    exact: &Exact,
    call: &Call<'_>,
    deciding: Deciding,
    note: &mut Option<ApprovalNote>,
    keeping: &mut Keeping,
) -> Denial {
    let Call { resolved, evidence, request, .. } = *call;
    let route = &resolved.route;
    let Some(id) = ApprovalId::parse(&ground.id.to_string()) else {
        return Denial::new(Reason::EngineError, "the decision's id is no id of an approval");
    };
    let settings = &ground.running.snapshot.approvals;
    let mut words = deciding.words;
    if words.is_empty() {
        words.push(
            format!("`{}` wants `{}` of {}", evidence.principal.as_str(), route.action, resolved.resource).into(),
        );
    }
    let question = Question {
        id,
        binding: exact.binding,
        requester: evidence.principal.clone(),
        actor: evidence.actor.as_deref().map(Into::into),
        task: exact.task.clone(),
        action: route.action.clone(),
        resource: resolved.resource.clone(),
        method: request.method.as_str().into(),
        host: request.host.as_str().into(),
        path: request.path.as_str().into(),
        body: exact.body,
        args: resolved.args.iter().map(|(name, value)| ((**name).into(), value.to_json().to_string().into())).collect(),
        words,
        policies: deciding.permits.into_iter().chain(deciding.gates).collect::<BTreeSet<_>>().into_iter().collect(),
        asked_at: ground.now,
        expires_at: ground.now.plus(settings.ttl(&route.action)),
        need: settings.need(&route.action),
    };
    let question = match ground.approvals.ask(question, settings.max_open(), ground.now) {
        Asked::TooMany => {
            return Denial::new(Reason::ApprovalRequired, "not asked: too many questions are open already");
        }
        Asked::Known(question) => question,
        Asked::New(question) => {
            keeping.changes.push(Change::ApprovalAsked(Box::new(Question::clone(&question))));
            keeping.question = Some(question.id.clone());
            question
        }
    };
    let state = ApprovalState::Pending.as_str();
    *note = Some(ApprovalNote { question, state, approved_by: BTreeSet::new() });
    Denial::new(Reason::ApprovalRequired, "asked just now")
}
