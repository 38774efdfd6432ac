//! The grant of a call: read from its header, looked at, and shown to policies and signals.

use super::Ground;
use crate::{
    decide::Denial,
    identity::{Evidence, Proofs},
    limits,
    model::{Call, Fingerprint, Request, State, Subject, Task, Tier, Timestamp, Value, WorkflowId, names::SubjectKind},
    policy::{ChainView, GrantView},
    reason::Reason,
    record::GrantNote,
    route::{Resolved, Route},
    signals::{self, Store},
    snapshot::Running,
    tasks::{Admitted, Presented, Support},
};
use sha2::{Digest, Sha256};

/// The header that a grant travels in.
const HEADER: &str = "x-signalwarden-grant";

/// What tasks stand on beside what the room of tasks holds: revocations, and the signal of orchestrators.
pub(crate) struct Standing<'a> {
    pub(crate) running: Option<&'a Running>,
    pub(crate) store: &'a Store,
    pub(crate) proofs: &'a Proofs,
    pub(crate) now: Timestamp,
}

impl Support for Standing<'_> {
    fn is_revoked(&self, task: &Task) -> bool {
        self.proofs.is_grant_revoked(task)
    }

    fn is_vouched_for(&self, workflow: &WorkflowId) -> bool {
        self.running.is_some_and(|running| vouches(running, self.store, workflow, self.now))
    }
}

/// Whether the signal that the settings name says, fresh, that a workflow is approved.
fn vouches(running: &Running, store: &Store, workflow: &WorkflowId, now: Timestamp) -> bool {
    let snapshot = &running.snapshot;
    let Some(name) = snapshot.tasks.workflow_signal() else { return false };
    let Some(at) = snapshot.rules.iter().position(|rule| rule.name.as_str() == name) else { return false };
    let Some(cells) = running.cells.get(at) else { return false };
    let Some(subject) = Subject::parse(SubjectKind::Workflow, workflow.as_str()) else { return false };
    let fact = signals::read_of(store, cells, &subject, now);
    let approved = Value::String(WORKFLOW_APPROVED.into());
    cells.contract().subject == SubjectKind::Workflow && fact.state == State::Fresh && fact.value == Some(approved)
}

/// What the signal says of a workflow that is approved, and of one that has ended.
pub(crate) const WORKFLOW_APPROVED: &str = "approved";
/// See `WORKFLOW_APPROVED`.
pub(crate) const WORKFLOW_ENDED: &str = "ended";

/// Whether a grant of this route is looked at, and whether there must be one.
pub(crate) const fn wanted(route: &Route) -> Option<bool> {
    match route.tier {
        // INVARIANT I1: on these a grant is no input, so it can't change an answer.
        Tier::Coarse | Tier::Runtime => None,
        Tier::Jit => Some(true),
        Tier::Approval => Some(route.grant_required),
    }
}

/// The grant that the call stands on; `None` where the route needs none and none is shown. What is shown must count.
pub(super) fn admit(
    ground: &Ground<'_>,
    resolved: &Resolved,
    evidence: &Evidence,
    request: &Request,
    note: &mut Option<GrantNote>,
) -> Result<Option<Admitted>, Denial> {
    let route = &resolved.route;
    let Some(is_required) = wanted(route) else { return Ok(None) };
    let token = match request.headers.all(HEADER) {
        [] if is_required => {
            let detail = format!("the route's tier is {}, and no grant was presented", route.tier.as_str());
            return Err(Denial::new(Reason::GrantRequired, detail));
        }
        [] => return Ok(None),
        [one] if one.is_utf8 && one.value.len() <= limits::MAX_TOKEN_BYTES => &one.value,
        [_] => return Err(Denial::new(Reason::GrantInvalid, "the grant is no token, or too long for one")),
        _ => return Err(Denial::new(Reason::GrantInvalid, "more than one grant was presented")),
    };
    let grant = Fingerprint(Sha256::digest(token.as_bytes()).into());
    *note = Some(GrantNote::Refused(grant));
    let presented = Presented {
        grant,
        principal: &evidence.principal,
        certificate: evidence.certificate,
        call: Call {
            action: &route.action,
            resource: &resolved.resource,
            system: route.system.as_ref(),
            sensitivity: route.sensitivity,
            environment: route.environment.as_ref(),
        },
    };
    let standing =
        Standing { running: Some(ground.running), store: ground.store, proofs: ground.proofs, now: ground.now };
    let admitted = ground
        .tasks
        .admit(&presented, &standing, ground.now)
        .map_err(|refused| Denial::new(refused.reason, refused.detail))?;
    *note = Some(GrantNote::Admitted(admitted.clone()));
    Ok(Some(admitted))
}

/// `context.grant` and `context.chain`, where the action has them.
pub(super) fn views(
    route: &Route,
    admitted: Option<&Admitted>,
    now: Timestamp,
) -> (Option<GrantView>, Option<ChainView>) {
    let Some(admitted) = admitted.filter(|_| is_seen(route)) else { return (None, None) };
    let (task, root) = (&admitted.task().task, &admitted.root().task);
    let grant = GrantView {
        task: task.id.shared(),
        kind: task.kind.as_str().into(),
        workflow: task.workflow.as_ref().map(WorkflowId::shared),
        expires_in_seconds: seconds_until(admitted.expires_at(), now),
    };
    let chain = ChainView {
        depth: i64::from(task.depth),
        root: root.principal.shared(),
        systems: admitted.touched.systems.clone(),
        sensitivity: admitted.touched.level(),
    };
    (Some(grant), Some(chain))
}

/// Whether policies of this route's action see its grant.
pub(crate) fn is_seen(route: &Route) -> bool {
    wanted(route) == Some(true)
}

/// How long a grant still counts, as policies see it.
pub(crate) const fn seconds_until(end: Timestamp, now: Timestamp) -> i64 {
    end.since(now).as_micros() / 1_000_000
}
