//! What a recorded decision is about, looked at anew: the route, who asked, the grant, the question to the policies. What
//! stands against the call before any policy ends here, and so does what the record can't tell.
//!
//! What live state said (who the caller is, whether its grant counts, who said yes) is taken as it was recorded. The
//! directory, which is what a replay is about, is asked anew.

use super::{
    Ended, Replay, Unknowable,
    read::{Asked, Caller, Recorded, Task},
};
use crate::{
    check,
    decide::Denial,
    identity::Evidence,
    model::{ActionId, Environment, ResourceId, SpiffeId, TaskFacts, Tier, Timestamp, names::BUILT_IN_ACTIONS},
    policy::{BuiltInRequest, ChainView, GrantView, Query},
    reason::Reason,
    record::Client,
    route::{AsRecorded, FurtherNote, Given, Resolved, Route, Unrepeatable},
    tasks::Touched,
};
use std::{collections::BTreeSet, sync::Arc};

/// A question that policies can be asked again.
pub(super) struct Case {
    /// `None`: a built-in action.
    pub(super) route: Option<Arc<Route>>,
    pub(super) query: Query,
    /// The device that the directory says the principal runs on.
    pub(super) device: Option<Arc<str>>,
    pub(super) task: Option<TaskFacts>,
    /// It was asked without a request.
    pub(super) is_question: bool,
}

/// Why there is no such question.
pub(super) enum NoCase {
    Ended(Ended),
    Unknowable(Unknowable),
}

impl From<Ended> for NoCase {
    fn from(ended: Ended) -> Self {
        Self::Ended(ended)
    }
}

impl From<Unknowable> for NoCase {
    fn from(why: Unknowable) -> Self {
        Self::Unknowable(why)
    }
}

fn unknowable<T>(why: impl Into<String>) -> Result<T, NoCase> {
    Err(Unknowable(why.into()).into())
}

fn denied<T>(denial: &Denial) -> Result<T, NoCase> {
    Err(Ended::now(denial.reason).into())
}

/// Looks at a recorded decision anew.
pub(super) fn of(replay: &Replay, recorded: &Recorded<'_>) -> Result<Case, NoCase> {
    match recorded.reason {
        Reason::LogUnavailable | Reason::NotReady => return Err(recorded.as_it_was("no directory was asked").into()),
        Reason::EngineError if !recorded.has_failed => {
            return unknowable("the engine itself failed, and not a policy");
        }
        _ if recorded.saw_whole => return unknowable(UNSEEN),
        _ if !recorded.request.part.redacted.is_empty() => {
            return unknowable("the settings hid values of the call, and the record holds digests in their place");
        }
        _ => {}
    }
    match &recorded.caller {
        _ if recorded.request.part.door.as_deref() == Some(AUTHZEN) => asked(replay, recorded),
        Some(caller) if caller.class.is_none() => built_in(replay, recorded, caller),
        _ => of_request(replay, recorded),
    }
}

/// What nobody can make again.
const UNSEEN: &str = "policies see the request as a whole (`input: opa_envoy`), and no record holds it";

fn of_request(replay: &Replay, recorded: &Recorded<'_>) -> Result<Case, NoCase> {
    let snapshot = &replay.running.snapshot;
    let resolved = resolved(replay, recorded)?;
    let Some(caller) = &recorded.caller else {
        return match recorded.reason {
            Reason::IdentityMissing if snapshot.policies.is_ungoverned_for(&resolved.route.action) => {
                unknowable(UNSEEN)
            }
            Reason::IdentityMissing
            | Reason::IdentityInvalid
            | Reason::TrustDomainUnknown
            | Reason::TokenInvalid
            | Reason::TokenExpired
            | Reason::TokenTooLongLived
            | Reason::CredentialRefused => {
                Err(recorded.as_it_was("who asked is taken as recorded, and nobody was established").into())
            }
            _ => unknowable("who asked was not established, so the record does not hold it"),
        };
    };
    let evidence = evidence(caller, recorded.time);
    if !snapshot.identity.accepts(evidence.principal.trust_domain()) {
        return Err(Ended::now(Reason::TrustDomainUnknown).into());
    }
    let known = snapshot.policies.record_of(&evidence.principal);
    if let Err(refused) = snapshot.principals.admit(known, &resolved.route, recorded.time) {
        return denied(&refused.into());
    }
    if snapshot.policies.shows_whole(&resolved.route.action) {
        return unknowable(UNSEEN);
    }
    let task = grant(replay, recorded, &resolved)?;
    let mut query = check::query(&resolved, &evidence, known, &recorded.request.part.method, recorded.time);
    if let Some(task) = task.filter(|_| check::is_grant_seen(&resolved.route)) {
        (query.grant, query.chain) = views(task, recorded.time);
    }
    if resolved.route.tier == Tier::Approval {
        query.approved_by = recorded.approved_by();
    }
    Ok(Case {
        route: Some(resolved.route),
        query,
        device: known.and_then(|known| known.device.clone()),
        task: task.map(|task| facts_of(task, recorded.time)),
        is_question: false,
    })
}

/// The route of the call, by the directory of the replay.
fn resolved(replay: &Replay, recorded: &Recorded<'_>) -> Result<Resolved, NoCase> {
    let Asked { part, .. } = &recorded.request;
    if recorded.reason == Reason::MalformedRequest {
        let is_unread = part.method.is_empty() && part.host.is_empty() && part.path.is_empty();
        if is_unread || replay.is_of(recorded) {
            return Err(recorded.as_it_was("what can't be read stays unread").into());
        }
        return unknowable("the request could not be read, so the record does not hold what it asked for");
    }
    let further = FurtherNote {
        grpc: part.grpc,
        extensions: part.extensions.clone(),
        mcp: part.mcp.as_ref().map(|mcp| ((*mcp.method).into(), mcp.tool.as_ref().map(|tool| (**tool).into()))),
    };
    let asked = AsRecorded {
        method: &part.method,
        host: &part.host,
        path: &part.path,
        args: &part.args,
        left_out: &part.args_left_out,
        further: &further,
    };
    replay.running.snapshot.routes.resolve_recorded(&asked).map_err(|why| match why {
        Unrepeatable::Unresolved(unresolved) => Ended::now(unresolved.reason).into(),
        Unrepeatable::Unknown(why) => Unknowable(why).into(),
    })
}

fn evidence(caller: &Caller<'_>, now: Timestamp) -> Evidence {
    let class = caller.class.unwrap_or(crate::model::CredentialClass::X509Svid);
    Evidence {
        principal: caller.id.clone(),
        source: class.source(),
        class,
        bound: caller.bound,
        age: caller.issued_at.map(|issued| now.since(issued)),
        issued_at: caller.issued_at,
        expires_at: None,
        certificate: caller.certificate,
        serial: None,
        interactive: caller.interactive,
        actor: caller.actor.as_ref().map(|actor| Arc::from(&**actor)),
        proofs: Vec::new(),
    }
}

/// The grant that the call stands on. Whether it counted is taken as recorded, as long as the call that it was held against
/// is the same.
fn grant<'r, 'l>(
    replay: &Replay,
    recorded: &'r Recorded<'l>,
    resolved: &Resolved,
) -> Result<Option<&'r Task<'l>>, NoCase> {
    let route = &resolved.route;
    let Some(is_required) = check::is_grant_wanted(route) else { return Ok(None) };
    let was_looked_at = matches!(recorded.request.tier, Some(Tier::Jit | Tier::Approval));
    // What stood against the principal came before its grant.
    let came_so_far = replay.is_of(recorded) || !recorded.reason.is_of_principal();
    match &recorded.grant {
        _ if !was_looked_at => unknowable("the route looks at a grant now, and none was looked at"),
        None if recorded.reason == Reason::GrantInvalid => Err(recorded.as_it_was(GRANTS).into()),
        None if !came_so_far => unknowable("the call ended before its grant was looked at"),
        None if is_required => Err(Ended::now(Reason::GrantRequired).into()),
        None => Ok(None),
        Some(grant) => match &grant.task {
            _ if !is_same_call(recorded, resolved) => {
                unknowable("the route means another call now, and what the grant covers is not recorded")
            }
            Some(task) => Ok(Some(task)),
            None => Err(recorded.as_it_was(GRANTS).into()),
        },
    }
}

const GRANTS: &str = "whether a grant counts is taken as recorded";

fn is_same_call(recorded: &Recorded<'_>, resolved: &Resolved) -> bool {
    let (was, route) = (&recorded.request, &resolved.route);
    was.part.action.as_deref() == Some(route.action.as_str())
        && was.resource.as_ref() == Some(&resolved.resource)
        && was.part.system.as_deref() == route.system.as_deref()
        && was.sensitivity == Some(route.sensitivity)
        && was.part.environment.as_deref() == route.environment.as_ref().map(Environment::as_str)
}

fn views(task: &Task<'_>, now: Timestamp) -> (Option<GrantView>, Option<ChainView>) {
    let shared = |text: &str| Arc::<str>::from(text);
    let grant = GrantView {
        task: shared(&task.id),
        kind: shared(&task.kind),
        workflow: task.workflow.as_deref().map(shared),
        expires_in_seconds: check::seconds_until(task.expires_at, now),
    };
    let systems: BTreeSet<Arc<str>> = task.systems.iter().map(|system| shared(system)).collect();
    let touched = Touched { systems, sensitivity: task.sensitivity };
    let chain = ChainView {
        depth: i64::from(task.depth),
        root: task.root.shared(),
        sensitivity: touched.level(),
        systems: touched.systems,
    };
    (Some(grant), Some(chain))
}

/// What signals may know of the task: as far as a replay asks, whose subject they are about.
fn facts_of(task: &Task<'_>, now: Timestamp) -> TaskFacts {
    TaskFacts {
        task: Arc::from(&*task.id),
        root: Arc::from(&*task.id),
        workflow: task.workflow.as_deref().map(Arc::from),
        in_approved_workflow: task.workflow.is_some(),
        begun_at: now,
        chain: task.principals.clone(),
        calls: None,
        resources: None,
        systems: 0,
    }
}

/// `request.door` of a question.
const AUTHZEN: &str = "authzen";

/// A question: no request was there, and a client vouched for the workload.
fn asked(replay: &Replay, recorded: &Recorded<'_>) -> Result<Case, NoCase> {
    let snapshot = &replay.running.snapshot;
    let part = &recorded.request.part;
    let action = part.action.as_deref().and_then(ActionId::parse);
    let (Some(action), Some(resource)) = (action, &recorded.request.resource) else {
        return Err(recorded.as_it_was("what can't be named stays unknown").into());
    };
    if recorded.reason == Reason::MalformedRequest && recorded.request.tier.is_none() {
        return unknowable("the question could not be read, so the record does not hold it");
    }
    let given = Given { args: &part.args, left_out: Some(&part.args_left_out) };
    let calls = snapshot.routes.asked(&action, resource, given).map_err(|why| match why {
        Unrepeatable::Unresolved(unresolved) => NoCase::from(Ended::now(unresolved.reason)),
        Unrepeatable::Unknown(why) => Unknowable(why).into(),
    })?;
    let Ok([resolved]) = <[Resolved; 1]>::try_from(calls) else {
        return unknowable("the question stands for several calls, and the record is about one of them");
    };
    let Some(caller) = &recorded.caller else {
        return Err(recorded.as_it_was("who is asked about is taken as recorded, and it was no workload").into());
    };
    if !snapshot.identity.accepts(caller.id.trust_domain()) {
        return Err(Ended::now(Reason::TrustDomainUnknown).into());
    }
    if matches!(recorded.reason, Reason::IdentityInvalid | Reason::TrustDomainUnknown) {
        return Err(recorded.as_it_was("whether a workload counts is taken as recorded").into());
    }
    let known = snapshot.policies.record_of(&caller.id);
    if let Err(refused) = snapshot.principals.admit(known, &resolved.route, recorded.time) {
        return denied(&refused.into());
    }
    if check::is_grant_wanted(&resolved.route) == Some(true) {
        return Err(Ended::now(Reason::GrantRequired).into());
    }
    let query = check::query_asked(&resolved, &caller.id, known, recorded.time);
    let device = known.and_then(|known| known.device.clone());
    Ok(Case { route: Some(resolved.route), query, device, task: None, is_question: true })
}

/// A decision about a task or an approval: a client asked at another door.
fn built_in(replay: &Replay, recorded: &Recorded<'_>, caller: &Caller<'_>) -> Result<Case, NoCase> {
    let snapshot = &replay.running.snapshot;
    let came_so_far =
        recorded.was_evaluated || matches!(recorded.reason, Reason::EntityUnknown | Reason::PrincipalRetired);
    if !came_so_far {
        return Err(recorded.as_it_was("no policy was asked").into());
    }
    let part = &recorded.request.part;
    let action = part.action.as_deref().filter(|action| BUILT_IN_ACTIONS.contains(action)).and_then(ActionId::parse);
    let (Some(action), Some(resource), Some(request)) = (action, &recorded.request.resource, asked_for(recorded))
    else {
        return unknowable("the record does not hold what was asked for");
    };
    let client = Client { id: caller.id.clone(), certificate: caller.certificate };
    let known = snapshot.policies.record_of(&client.id);
    if let Err(denial) = check::may_ask(known, recorded.time) {
        return denied(&denial);
    }
    let query = check::built_in_query(&client, action, ResourceId::clone(resource), request, recorded.time);
    Ok(Case {
        route: None,
        query,
        device: known.and_then(|known| known.device.clone()),
        task: None,
        is_question: false,
    })
}

fn asked_for(recorded: &Recorded<'_>) -> Option<BuiltInRequest> {
    let part = &recorded.request.part;
    Some(BuiltInRequest {
        principal: SpiffeId::parse(part.asked_for.as_deref()?).ok()?,
        actions: part.actions.iter().map(|action| ActionId::parse(action)).collect::<Option<_>>()?,
        resources: part.resources.iter().map(|resource| Arc::from(&**resource)).collect(),
        sensitivity: recorded.request.sensitivity,
        environment: part.environment.as_deref().and_then(Environment::parse),
    })
}
