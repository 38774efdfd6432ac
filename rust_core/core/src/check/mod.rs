//! The way of a request, readable at a glance: decode, route, identify, admit principal and grant, gather facts,
//! evaluate, decide, record, encode (DESIGN section 3). The first failing step gives the reason.
//!
//! `grant.rs` looks at grants, `approval.rs` at approvals, `answer.rs` makes the bytes, `built_in.rs` decides about
//! tasks and approvals themselves, which are asked for at another door, where `asked.rs` answers questions, too;
//! `ungoverned.rs` is the compatibility mode; `denials.rs` says what becomes of the errors of the steps.

mod answer;
mod approval;
mod asked;
mod built_in;
mod denials;
mod grant;
mod ungoverned;

pub(crate) use asked::{VOUCHED, inquire, may_be_asked, query as query_asked, unanswered};
pub(crate) use built_in::{BuiltIn, decide_built_in, may_ask, query as built_in_query};
pub(crate) use grant::{
    Standing, WORKFLOW_APPROVED, WORKFLOW_ENDED, is_seen as is_grant_seen, seconds_until, wanted as is_grant_wanted,
};

use crate::{
    approvals::{self, Approvals},
    change::Change,
    decide::{self, Denial, Need, Permit},
    identity::{Evidence, Proofs, Unestablished, UnknownToken, Validated},
    limits,
    model::{ApprovalId, Fact, Fingerprint, Peer, PrincipalRecord, Request, Tier, Timestamp},
    policy::{Effect, EngineKind, IdentityView, Query, RequestView, SignalIndex, Slice, reasoning},
    reason::Reason,
    record::{self, Asked, DecisionId, Record, ring::Ring},
    route::{Resolved, Route},
    signals::{
        self, Asker, Cells, Store,
        derived::{Caller, Derived},
        sources::peer,
    },
    snapshot::{Running, Snapshot},
    tasks::{Admitted, Tasks, Touch},
    wire,
};
use answer::{allow, bare, deny};
use approval::Exact;
use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

/// How often a call looks again because another one of its tree touched something at the same moment. Each time one of
/// them gets through, and a tree touches a handful of systems in its life.
const MAX_LOOKS: usize = 32;

/// What the record of a decision says that a panic broke off.
const PANICKED: &str = "the engine panicked";

/// What a decision stands on: a configuration with its live state, and everything that the core does not
/// make itself.
pub(crate) struct Ground<'a> {
    pub(crate) running: &'a Running,
    pub(crate) store: &'a Store,
    pub(crate) proofs: &'a Proofs,
    pub(crate) tasks: &'a Tasks,
    pub(crate) approvals: &'a Approvals,
    /// What was said of the tokens that were unknown when the call was first looked at; `None`: this is that look.
    pub(crate) validated: Option<&'a Validated>,
    pub(crate) now: Timestamp,
    pub(crate) id: DecisionId,
    /// Nanoseconds of a stopwatch that never runs backwards; the core reads no clock.
    pub(crate) ticks: &'a dyn Fn() -> u64,
}

/// A decision that is made, and not yet sent: its answer comes out only when its record has been accepted.
#[derive(Debug)]
pub struct Checked {
    record: Box<Record>,
    answer: Vec<u8>,
    counting: Option<Counting>,
    keeping: Keeping,
}

/// What a decision changes beside its record: to be kept before its answer leaves.
#[derive(Debug, Default)]
pub struct Keeping {
    /// What is to be kept.
    pub changes: Vec<Change>,
    /// A question that is asked by this decision.
    pub question: Option<ApprovalId>,
    /// A yes that is claimed by it.
    claim: Option<ApprovalId>,
}

/// What became of a call.
pub(crate) enum Outcome {
    /// A decision.
    Decided(Checked),
    /// Tokens have to be validated first. Nothing is decided, so there is no record: the second look makes it.
    Pending(Pending),
}

/// A call whose tokens were not seen before.
#[derive(Debug)]
pub struct Pending {
    /// Whom the work is charged to: the peer that Envoy verified, else the address that it saw.
    pub peer: String,
    /// The tokens.
    pub tokens: Vec<UnknownToken>,
}

/// Why a call got no permit.
enum Stop {
    Denied(Denial),
    Pending(Pending),
    /// Another call of the same tree was faster: this one must look again.
    Again,
}

/// Whom to count, and where, once the answer is known.
#[derive(Debug)]
struct Counting {
    derived: Arc<Derived>,
    caller: Caller,
}

impl Counting {
    /// `None` if the configuration wants nothing counted.
    fn of(ground: &Ground<'_>, evidence: &Evidence, request: &Request) -> Option<Self> {
        let derived = Some(&ground.running.derived).filter(|derived| !derived.is_empty())?;
        let caller = Caller {
            principal: evidence.principal.clone(),
            address: peer::address_of(request),
            certificate: evidence.certificate.map(Fingerprint::to_hex),
        };
        Some(Self { derived: Arc::clone(derived), caller })
    }
}

/// What leaves the core.
#[derive(Debug)]
pub struct Released {
    /// `allowed` or why not.
    pub reason: Reason,
    /// False if the call is let pass although the reason denies it.
    pub enforced: bool,
    /// The `CheckResponse`.
    pub answer: Vec<u8>,
}

impl Checked {
    /// Offers the record to the log; the answer if it was accepted, else `log_unavailable`. What came out is counted.
    ///
    /// INVARIANT I4: no record, no allow. There is no other way to the bytes of an answer but `into_parts`,
    /// which is for decisions that are never sent.
    pub fn release(self, ring: &Ring) -> Released {
        let Record { reason, enforced, id, time, .. } = *self.record;
        let released = if ring.accept(self.record) {
            Released { reason, enforced, answer: self.answer }
        } else {
            let reason = Reason::LogUnavailable;
            Released { reason, enforced: true, answer: bare(reason, id) }
        };
        if let Some(Counting { derived, caller }) = &self.counting {
            derived.count(caller, released.reason, time);
        }
        released
    }

    /// What is to be kept before `release`; nothing for nearly every decision.
    pub const fn keeping(&self) -> &Keeping {
        &self.keeping
    }

    /// Releases a decision whose changes were kept, or could not be. What must still be kept: a claim given back, since no
    /// allow rests on it.
    ///
    /// INVARIANT: a yes is used up, durably, before the allow that rests on it leaves; what can't be kept denies.
    pub fn conclude(mut self, ring: &Ring, approvals: &Approvals, kept: bool) -> (Released, Option<Change>) {
        let Keeping { question, claim, .. } = std::mem::take(&mut self.keeping);
        let (id, at) = (self.record.id, self.record.time);
        if !kept {
            if let Some(question) = question {
                approvals.unask(&question);
            }
            if let Some(claim) = claim {
                approvals.unclaim(&claim, &id.to_string());
            }
            self.record.enforced = true;
            self.record.deny(Denial::new(Reason::LogUnavailable, "what the decision changes could not be kept"));
            self.answer = bare(Reason::LogUnavailable, id);
            return (self.release(ring), None);
        }
        let released = self.release(ring);
        let is_lost = released.reason != Reason::Allowed;
        (released, claim.filter(|_| is_lost).map(|claim| approvals::used(&claim, None, at)))
    }

    /// Record and answer of an offline decision.
    pub fn into_parts(self) -> (Box<Record>, Vec<u8>) {
        (self.record, self.answer)
    }
}

/// Decides one serialised `CheckRequest`. Total: every input has a record and an answer, or is pending and comes again.
pub(crate) fn check(ground: &Ground<'_>, bytes: &[u8]) -> Outcome {
    let mut record = blank(ground.id, ground.now);
    record.snapshot = Some(Arc::clone(&ground.running.snapshot));
    let started = (ground.ticks)();
    let (mut counting, mut keeping) = (None, Keeping::default());
    let outcome = look_until_settled(ground, bytes, &mut record, &mut counting, &mut keeping);
    ungoverned::forget(&mut record);
    let decided = (ground.ticks)();
    record.spent.evaluate = decided.saturating_sub(started).saturating_sub(record.spent.decode);
    let answer = match outcome {
        Ok(permit) => allow(&permit, &record),
        Err(Stop::Pending(pending)) => return Outcome::Pending(pending),
        Err(Stop::Again) => Err(Denial::new(Reason::EngineError, "the calls of its tree did not settle")),
        Err(Stop::Denied(denial)) => match record.route.as_ref().and_then(|route| decide::let_pass(route, &denial)) {
            Some(permit) => {
                record.deny(denial);
                record.enforced = false;
                allow(&permit, &record)
            }
            None => Err(denial),
        },
    };
    let answer = answer.unwrap_or_else(|denial| {
        record.enforced = true;
        record.deny(denial);
        deny(&record)
    });
    record.said = None; // it is in the answer now
    let finished = (ground.ticks)();
    record.spent.encode = finished.saturating_sub(decided);
    record.spent.total = finished.saturating_sub(started);
    Outcome::Decided(Checked { record, answer, counting, keeping })
}

/// Looks again where another call of the same tree was faster.
fn look_until_settled(
    ground: &Ground<'_>,
    bytes: &[u8],
    record: &mut Record,
    counting: &mut Option<Counting>,
    keeping: &mut Keeping,
) -> Result<Permit, Stop> {
    for _ in 1..MAX_LOOKS {
        match decide_on(ground, bytes, record, counting, keeping) {
            Err(Stop::Again) => record.verdict = None,
            other => return other,
        }
    }
    decide_on(ground, bytes, record, counting, keeping)
}

/// The line of verbs.
fn decide_on(
    ground: &Ground<'_>,
    bytes: &[u8],
    record: &mut Record,
    counting: &mut Option<Counting>,
    keeping: &mut Keeping,
) -> Result<Permit, Stop> {
    let mut stopwatch = Stopwatch::start(ground.ticks);
    let snapshot = &ground.running.snapshot;
    let request = wire::decode(bytes)?;
    record.spent.decode = stopwatch.lap();
    record.asked = Asked::of(&request);
    let resolved = resolve(ground, &request, record, counting)?;
    let resolved = record.resolved.insert(resolved);
    record.route = Some(Arc::clone(&resolved.route));
    record.spent.route = stopwatch.lap();
    let established = snapshot.identity.establish(&request, ground.proofs, ground.validated, ground.now);
    let nobody = established.as_ref().err().and_then(|why| ungoverned::nobody(snapshot, &resolved.route, why));
    let evidence = if let Some(nobody) = &nobody {
        nobody
    } else {
        let evidence = record.evidence.insert(established.map_err(|why| Stop::of(why, &request))?);
        *counting = Counting::of(ground, evidence, &request);
        &*evidence
    };
    let known = snapshot.policies.record_of(&evidence.principal);
    snapshot.principals.admit(known, &resolved.route, ground.now)?;
    let admitted = grant::admit(ground, resolved, evidence, &request, &mut record.grant)?;
    let admitted = admitted.as_ref();
    let exact =
        (resolved.route.tier == Tier::Approval).then(|| Exact::of(ground, resolved, evidence, admitted, &request));
    let mut query = query(resolved, evidence, known, &request.method, ground.now);
    (query.grant, query.chain) = grant::views(&resolved.route, admitted, ground.now);
    query.whole = ungoverned::whole(snapshot, &resolved.route.action, bytes)?;
    record.approval = exact.as_ref().and_then(|exact| exact.as_ref().ok()).and_then(Exact::note);
    query.approved_by =
        exact.as_ref().and_then(|exact| exact.as_ref().ok()).map(Exact::approved_by).unwrap_or_default();
    let query = record.query.insert(query);
    record.spent.identify = stopwatch.lap();
    let slice = snapshot.policies.slice(query)?;
    let facts = admitted.map(Admitted::facts);
    let asker = Asker {
        principal: &evidence.principal,
        resource: &resolved.resource,
        device: known.and_then(|record| record.device.as_deref()),
        route: Some(&resolved.route),
        proofs: &evidence.proofs,
        derived: &ground.running.derived,
        task: facts.as_ref(),
    };
    record.facts = gathered(ground, query, &*slice, &asker, &request);
    record.spent.gather = stopwatch.lap();
    let verdict = record.verdict.insert(reasoning::evaluate(&*slice, &snapshot.rules, &record.facts));
    record.said = slice.answer(verdict.reason == Reason::Allowed).map(Box::new);
    record.spent.policies = stopwatch.lap();
    let touch = |keeping: &mut Keeping| touch(ground, resolved, admitted, keeping);
    let claimed = match decide::conclude(&resolved.route, verdict.reason, !verdict.gates.is_empty())? {
        Need::Nothing => {
            touch(keeping)?;
            None
        }
        Need::Approval => {
            let exact = exact.unwrap_or_else(|| Exact::of(ground, resolved, evidence, admitted, &request));
            let call = approval::Call { resolved, evidence, request: &request, verdict };
            Some(approval::approve(ground, exact, &call, &mut record.approval, keeping, touch)?)
        }
    };
    let permit = decide::permit(&resolved.route, verdict, admitted, claimed.as_ref())?;
    if resolved.route.lists_tools() {
        record.tools = Some(usable_tools(snapshot, &resolved.route, query));
    }
    Ok(permit)
}

/// What the request stands for. Who looks for routes that are none is counted, too.
fn resolve(
    ground: &Ground<'_>,
    request: &Request,
    record: &mut Record,
    counting: &mut Option<Counting>,
) -> Result<Resolved, Stop> {
    let Snapshot { routes, identity, .. } = &*ground.running.snapshot;
    routes.resolve_noting(request, &mut record.further).map_err(|unresolved| {
        record.route.clone_from(&unresolved.route);
        if !ground.running.derived.is_empty() {
            let evidence = identity.establish(request, ground.proofs, None, ground.now).ok();
            *counting = evidence.and_then(|evidence| Counting::of(ground, &evidence, request));
        }
        unresolved.into()
    })
}

/// Nanoseconds from one stage to the next.
struct Stopwatch<'a> {
    ticks: &'a dyn Fn() -> u64,
    at: u64,
}

impl<'a> Stopwatch<'a> {
    fn start(ticks: &'a dyn Fn() -> u64) -> Self {
        Self { ticks, at: ticks() }
    }

    fn lap(&mut self) -> u64 {
        let before = std::mem::replace(&mut self.at, (self.ticks)());
        self.at.saturating_sub(before)
    }
}

/// The tools beside a route that some permit could let this caller use: what a list need not name otherwise. Arguments and
/// signals are not known yet, so it is no promise.
fn usable_tools(snapshot: &Snapshot, route: &Route, query: &Query) -> Vec<Box<str>> {
    let mut names = BTreeSet::new();
    let mut bytes = 0;
    for (tool, other) in snapshot.routes.tools_beside(route) {
        let may = other.fixed_resource().map_or_else(
            || snapshot.policies.can_permit(&other.action),
            |resource| {
                let query = Query { action: other.action.clone(), tier: other.tier, resource, ..query.clone() };
                let slice = snapshot.policies.slice(&query);
                slice.is_ok_and(|slice| could_permit(&*slice))
            },
        );
        bytes += tool.len();
        if bytes > limits::MAX_LISTED_TOOLS_BYTES {
            break;
        }
        if may {
            names.insert(tool);
        }
    }
    names.into_iter().map(Into::into).collect()
}

/// Whether every engine that is asked has a permit in play.
fn could_permit(slice: &dyn Slice) -> bool {
    let infos = || (0..slice.in_play().len()).map(|at| slice.info(at));
    let permits = |engine: &EngineKind| infos().any(|info| info.engine == *engine && info.effect == Effect::Permit);
    !slice.engines().is_empty() && slice.engines().iter().all(permits)
}

/// Notes what an allowed call touches, before anything that can be used once is claimed for it.
fn touch(
    ground: &Ground<'_>,
    resolved: &Resolved,
    admitted: Option<&Admitted>,
    keeping: &mut Keeping,
) -> Result<(), Stop> {
    let route = &resolved.route;
    let Some(admitted) = admitted else { return Ok(()) };
    match admitted.touch(&resolved.resource, route.system.as_ref(), route.sensitivity, ground.now) {
        Touch::Known => Ok(()),
        Touch::New(touched) => {
            keeping.changes.push(Change::TreeTouched(touched));
            Ok(())
        }
        Touch::Moved => Err(Stop::Again),
    }
}

/// The signals of one decision, sorted: those that a policy in play mentions, their company, and those that the
/// action observes.
pub(crate) fn wanted<'a>(running: &'a Running, query: &Query, slice: &dyn Slice) -> (Vec<SignalIndex>, Vec<&'a Cells>) {
    let mut signals = slice.mentioned();
    let mentioned = signals.len();
    if let Some(observed) = running.snapshot.observed.get(&query.action) {
        signals.extend_from_slice(observed);
    }
    for at in 0..signals.len() {
        // The company of an adverse value helps to decide, whether a policy mentions it or not.
        let company = signals.get(at).and_then(|signal| running.company.get(usize::from(signal.0)));
        signals.extend(company.into_iter().flatten());
    }
    if signals.len() > mentioned {
        signals.sort_unstable();
        signals.dedup();
    }
    // INVARIANT: there is a cell for each contract, and indices are those of contracts.
    signals.iter().filter_map(|s| running.cells.get(usize::from(s.0)).map(|cells| (*s, cells))).unzip()
}

/// The facts of one decision, sorted: each signal once.
fn gathered(
    ground: &Ground<'_>,
    query: &Query,
    slice: &dyn Slice,
    asker: &Asker<'_>,
    request: &Request,
) -> Vec<(SignalIndex, Fact)> {
    let (signals, cells) = wanted(ground.running, query, slice);
    let facts = signals::gather(ground.store, &cells, asker, request, ground.now);
    signals.into_iter().zip(facts).collect()
}

/// Judges what is asked for at another door, on the clock, and whether a panic broke it off.
///
/// INVARIANT I5: a panic is a deny with a record.
fn caught<T>(
    ground: &Ground<'_>,
    record: &mut Record,
    judge: impl FnOnce(&mut Record) -> Result<T, Denial>,
) -> (Result<T, Denial>, bool) {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let started = (ground.ticks)();
        let outcome = judge(record);
        let spent = (ground.ticks)().saturating_sub(started);
        (record.spent.evaluate, record.spent.total) = (spent, spent);
        outcome
    }));
    let panicked = outcome.is_err();
    (outcome.unwrap_or_else(|_| Err(Denial::new(Reason::EngineError, PANICKED))), panicked)
}

pub(crate) fn query(
    resolved: &Resolved,
    evidence: &Evidence,
    known: Option<&PrincipalRecord>,
    method: &str,
    now: Timestamp,
) -> Query {
    let (route, principal) = (&resolved.route, &evidence.principal);
    let identity = IdentityView {
        kind: evidence.class.kind(),
        trust_domain: principal.trust_domain().into(),
        bound: evidence.bound,
        age_seconds: evidence.age.map(|age| age.as_micros() / 1_000_000),
        actor: evidence.actor.clone(),
        interactive: evidence.interactive,
        legacy: known.is_some_and(PrincipalRecord::is_legacy),
    };
    let request = RequestView {
        method: method.into(),
        path: resolved.path.as_str().into(),
        host: resolved.host.as_str().into(),
        args: resolved.args.clone(),
    };
    let resource = resolved.resource.clone();
    Query { request, ..Query::of(principal.clone(), route.action.clone(), route.tier, resource, identity, now) }
}

/// A decision that never got as far as a request: not ready, or a panic.
pub(crate) fn refused(reason: Reason, detail: &str, id: DecisionId, now: Timestamp) -> Checked {
    let mut record = blank(id, now);
    record.reason = reason;
    detail.clone_into(&mut record.detail);
    Checked { record, answer: bare(reason, id), counting: None, keeping: Keeping::default() }
}

/// A decision that a panic broke off. Its record says what was asked, unless reading that is what panics.
pub(crate) fn panicked(bytes: &[u8], snapshot: Option<Arc<Snapshot>>, id: DecisionId, now: Timestamp) -> Checked {
    let mut checked = refused(Reason::EngineError, PANICKED, id, now);
    checked.record.snapshot = snapshot;
    let asked = catch_unwind(AssertUnwindSafe(|| wire::decode(bytes).ok().map(|request| Asked::of(&request))));
    checked.record.asked = asked.ok().flatten().unwrap_or_default();
    checked
}

impl Record {
    fn deny(&mut self, denial: Denial) {
        self.reason = denial.reason;
        self.detail = denial.detail;
    }
}

fn blank(id: DecisionId, time: Timestamp) -> Box<Record> {
    Box::new(Record {
        id,
        time,
        reason: Reason::Allowed,
        enforced: true,
        detail: String::new(),
        snapshot: None,
        asked: Asked::default(),
        further: None,
        route: None,
        resolved: None,
        evidence: None,
        query: None,
        grant: None,
        approval: None,
        tools: None,
        client: None,
        inquiry: None,
        facts: Vec::new(),
        verdict: None,
        said: None,
        spent: record::Spent::default(),
        refused_before: 0,
    })
}

impl<D: Into<Denial>> From<D> for Stop {
    fn from(denial: D) -> Self {
        Self::Denied(denial.into())
    }
}

impl Stop {
    fn of(unestablished: Unestablished, request: &Request) -> Self {
        match unestablished {
            Unestablished::Refused(refused) => refused.into(),
            Unestablished::Pending(tokens) => Self::Pending(Pending { peer: charged(request), tokens }),
        }
    }
}

/// Whom the work on a request is charged to.
fn charged(request: &Request) -> String {
    let Peer { principal, address, .. } = &request.source;
    if principal.is_empty() {
        peer::address_of(request).map_or_else(|| address.clone(), |address| address.to_string())
    } else {
        principal.clone()
    }
}
