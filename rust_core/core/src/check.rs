//! The way of a request, readable at a glance: decode, route, identify, admit principal and grant, gather facts,
//! evaluate, decide, record, encode (DESIGN section 3). The first failing step gives the reason.

use crate::{
    decide::{self, Denial, Permit},
    identity::{Evidence, IdentityRefused, Proofs, Unestablished, UnknownToken, Validated},
    model::{Fingerprint, Peer, PrincipalRecord, Request, Timestamp},
    policy::{EntityUnknown, IdentityView, Query, RequestView, SignalIndex, Slice, reasoning},
    principals::NotAdmitted,
    reason::Reason,
    record::{self, Asked, DecisionId, Record, ring::Ring},
    route::{Resolved, Unresolved},
    signals::{
        self, Asker, Cells, Store,
        derived::{Caller, Derived},
        sources::peer,
    },
    snapshot::Running,
    wire::{self, AllowAnswer, DenyAnswer, Malformed},
};
use serde_json::{Map, Value as Json, json};
use std::{collections::BTreeSet, sync::Arc};

/// Headers that go no further on an allow: ours, and those by which an upstream may understand another method
/// or path than the one that was decided on.
const REMOVED_BEFORE_UPSTREAM: &[&str] = &[
    "x-signalwarden-grant",
    "x-signalwarden-approval",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-method",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-url",
    "x-rewrite-uri",
];
const DECISION_ID: &str = "x-signalwarden-decision-id";
const PRINCIPAL: &str = "x-signalwarden-principal";

/// What a decision stands on: a configuration with its live state, and everything that the core does not
/// make itself.
pub(crate) struct Ground<'a> {
    pub(crate) running: &'a Running,
    pub(crate) store: &'a Store,
    pub(crate) proofs: &'a Proofs,
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
    let mut counting = None;
    let outcome = decide_on(ground, bytes, &mut record, &mut counting);
    let decided = (ground.ticks)();
    record.spent.evaluate = decided.saturating_sub(started).saturating_sub(record.spent.decode);
    let answer = match outcome {
        Ok(permit) => allow(&permit, &record),
        Err(Stop::Pending(pending)) => return Outcome::Pending(pending),
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
    let finished = (ground.ticks)();
    record.spent.encode = finished.saturating_sub(decided);
    record.spent.total = finished.saturating_sub(started);
    Outcome::Decided(Checked { record, answer, counting })
}

/// The line of verbs.
fn decide_on(
    ground: &Ground<'_>,
    bytes: &[u8],
    record: &mut Record,
    counting: &mut Option<Counting>,
) -> Result<Permit, Stop> {
    let started = (ground.ticks)();
    let snapshot = &ground.running.snapshot;
    let request = wire::decode(bytes)?;
    record.spent.decode = (ground.ticks)().saturating_sub(started);
    record.asked = Asked::of(&request);
    let resolved = match snapshot.routes.resolve(&request) {
        Ok(resolved) => resolved,
        Err(unresolved) => {
            record.route.clone_from(&unresolved.route);
            if !ground.running.derived.is_empty() {
                // Who looks for routes that are none is counted, too.
                let evidence = snapshot.identity.establish(&request, ground.proofs, None, ground.now).ok();
                *counting = evidence.and_then(|evidence| Counting::of(ground, &evidence, &request));
            }
            return Err(unresolved.into());
        }
    };
    let resolved = record.resolved.insert(resolved);
    record.route = Some(Arc::clone(&resolved.route));
    let established = snapshot.identity.establish(&request, ground.proofs, ground.validated, ground.now);
    let evidence = record.evidence.insert(established.map_err(|why| Stop::of(why, &request))?);
    *counting = Counting::of(ground, evidence, &request);
    let known = snapshot.policies.record_of(&evidence.principal);
    snapshot.principals.admit(known, &resolved.route, ground.now)?;
    decide::admit_grant(&resolved.route)?;
    let query = record.query.insert(query(resolved, evidence, known, &request.method));
    let slice = snapshot.policies.slice(query)?;
    let asker = Asker {
        principal: &evidence.principal,
        resource: &resolved.resource,
        device: known.and_then(|record| record.device.as_deref()),
        route: &resolved.route,
        proofs: &evidence.proofs,
        derived: &ground.running.derived,
    };
    let (signals, cells) = wanted(ground.running, query, &*slice);
    let facts = signals::gather(ground.store, &cells, &asker, &request, ground.now);
    record.facts = signals.into_iter().zip(facts).collect();
    let verdict = record.verdict.insert(reasoning::evaluate(&*slice, &snapshot.rules, &record.facts));
    Ok(decide::decide(&resolved.route, verdict)?)
}

/// The signals of one decision, sorted: those that a policy in play mentions, their company, and those that the
/// action observes.
fn wanted<'a>(running: &'a Running, query: &Query, slice: &dyn Slice) -> (Vec<SignalIndex>, Vec<&'a Cells>) {
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

fn query(resolved: &Resolved, evidence: &Evidence, known: Option<&PrincipalRecord>, method: &str) -> Query {
    Query {
        principal: evidence.principal.clone(),
        action: resolved.route.action.clone(),
        tier: resolved.route.tier,
        resource: resolved.resource.clone(),
        request: RequestView {
            method: method.into(),
            path: resolved.path.as_str().into(),
            host: resolved.host.as_str().into(),
            args: resolved.args.clone(),
        },
        identity: IdentityView {
            kind: evidence.class.kind(),
            trust_domain: evidence.principal.trust_domain().into(),
            bound: evidence.bound,
            age_seconds: evidence.age.map(|age| age.as_micros() / 1_000_000),
            actor: evidence.actor.clone(),
            interactive: evidence.interactive,
            legacy: known.is_some_and(PrincipalRecord::is_legacy),
        },
        grant: None,
        chain: None,
        approved_by: BTreeSet::new(),
        built_in: None,
    }
}

fn allow(permit: &Permit, record: &Record) -> Result<Vec<u8>, Denial> {
    let principal = record.evidence.as_ref().map(|e| e.principal.as_str().to_owned()).unwrap_or_default();
    let answer = AllowAnswer {
        set_headers: vec![(DECISION_ID.to_owned(), record.id.to_string()), (PRINCIPAL.to_owned(), principal)],
        remove_headers: REMOVED_BEFORE_UPSTREAM.iter().map(ToString::to_string).collect(),
        metadata: metadata(record),
        ..AllowAnswer::default()
    };
    wire::encode_allow(permit, &answer).map_err(|bad| Denial::new(Reason::EngineError, bad.detail))
}

fn deny(record: &Record) -> Vec<u8> {
    answer_of(record.reason, record.id, metadata(record))
}

/// A denial without a configuration behind it.
fn bare(reason: Reason, id: DecisionId) -> Vec<u8> {
    let fields = json!({"decision_id": id.to_string(), "reason": reason.code()});
    answer_of(reason, id, Map::from_iter([("signalwarden".to_owned(), fields)]))
}

/// `application/problem+json` (RFC 9457), without any signal's value.
fn answer_of(reason: Reason, id: DecisionId, metadata: Map<String, Json>) -> Vec<u8> {
    let id = id.to_string();
    let challenge = challenge(reason);
    let body = json!({
        "type": "about:blank",
        "title": reason.sentence(),
        "status": reason.http_status(),
        "reason": reason.code(),
        "decision_id": &id,
    });
    wire::encode_deny(&DenyAnswer {
        reason,
        http_status: None,
        headers: [
            ("content-type", "application/problem+json".to_owned()),
            ("cache-control", "no-store".to_owned()),
            (DECISION_ID, id),
        ]
        .into_iter()
        .chain(challenge.map(|challenge| ("www-authenticate", challenge.to_owned())))
        .map(|(name, value)| (name.to_owned(), value))
        .collect(),
        body: body.to_string(),
        metadata,
    })
}

/// How to come back after a 401 (RFC 9110 section 11.6.1, RFC 6750 section 3).
fn challenge(reason: Reason) -> Option<&'static str> {
    match reason {
        Reason::TokenInvalid | Reason::TokenExpired | Reason::TokenTooLongLived => {
            Some(r#"Bearer error="invalid_token""#)
        }
        reason if reason.http_status() == 401 => Some("Bearer"),
        _ => None,
    }
}

/// For Envoy's access log: namespace `envoy.filters.http.ext_authz`, key `signalwarden`.
fn metadata(record: &Record) -> Map<String, Json> {
    let determining: Vec<&str> = match (&record.snapshot, &record.verdict) {
        (Some(snapshot), Some(verdict)) => verdict
            .in_play
            .iter()
            .zip(&verdict.truths)
            .filter_map(|(index, truth)| Some((snapshot.policies.policies().get(*index as usize)?, truth)))
            .filter(|(policy, truth)| record::determines(record.reason, policy.effect, truth))
            .map(|(policy, _)| &*policy.id)
            .take(MAX_DETERMINING)
            .collect(),
        _ => Vec::new(),
    };
    let mut fields = json!({
        "decision_id": record.id.to_string(),
        "reason": record.reason.code(),
        "determining": determining,
        "revision": record.snapshot.as_ref().map(|snapshot| &*snapshot.revision),
    });
    if let Some(fields) = fields.as_object_mut().filter(|_| !record.enforced) {
        fields.insert("enforced".to_owned(), Json::Bool(false));
    }
    Map::from_iter([("signalwarden".to_owned(), fields)])
}

/// Policies named in Envoy's metadata; the record names them all.
const MAX_DETERMINING: usize = 8;

/// A decision that never got as far as a request: not ready, or a panic.
pub(crate) fn refused(reason: Reason, detail: &str, id: DecisionId, now: Timestamp) -> Checked {
    let mut record = blank(id, now);
    record.reason = reason;
    detail.clone_into(&mut record.detail);
    Checked { record, answer: bare(reason, id), counting: None }
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
        route: None,
        resolved: None,
        evidence: None,
        query: None,
        facts: Vec::new(),
        verdict: None,
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
            Unestablished::Refused(IdentityRefused { reason, detail }) => Self::Denied(Denial::new(reason, detail)),
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

impl From<Malformed> for Denial {
    fn from(malformed: Malformed) -> Self {
        Self::new(Reason::MalformedRequest, malformed.detail)
    }
}

impl From<Unresolved> for Denial {
    fn from(unresolved: Unresolved) -> Self {
        Self::new(unresolved.reason, unresolved.detail)
    }
}

impl From<NotAdmitted> for Denial {
    fn from(refused: NotAdmitted) -> Self {
        Self::new(refused.reason, refused.detail)
    }
}

impl From<EntityUnknown> for Denial {
    fn from(unknown: EntityUnknown) -> Self {
        let detail = format!(
            "`{}` is not listed in entities.json, and the policy `{}` asks for it",
            unknown.entity, unknown.policy
        );
        Self::new(Reason::EntityUnknown, detail)
    }
}
