//! A record as one line of JSON (schema in `docs/schema/decision-record.schema.json`).

use super::{
    Record,
    principal::PrincipalPart,
    request::RequestPart,
    task::{ApprovalPart, ChainPart, GrantPart},
    veil::{Veil, WITHHELD, keyed},
};
use crate::{
    decide::{self, Need},
    model::{Fact, State, Value, names::SubjectKind},
    policy::{
        Effect, Observing, PolicyInfo, SignalIndex,
        influence::{Effected, influence},
        observe::would,
        reasoning::Truth,
    },
    reason::Reason,
    route::Route,
    signals::{Contract, LogSensitivity},
    snapshot::Snapshot,
};
use serde::Serialize;
use serde_json::Value as Json;
use std::{borrow::Cow, collections::HashMap, sync::Arc};

/// For which decisions influence is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InfluenceMode {
    /// Never.
    None,
    /// For denials and for routes of high sensitivity.
    Default,
    /// Always.
    All,
}

/// How records are written.
#[derive(Clone)]
pub struct Rendering {
    /// For which decisions influence is computed.
    pub influence: InfluenceMode,
    /// Key of the digests that stand for secret values.
    pub digest_key: Vec<u8>,
}

#[derive(Serialize)]
struct Line<'a> {
    v: u32,
    kind: &'static str,
    decision_id: String,
    time: String,
    outcome: &'static str,
    reason: &'static str,
    http_status: u16,
    /// Only where it is false.
    #[serde(skip_serializing_if = "Option::is_none")]
    enforced: Option<bool>,
    #[serde(skip_serializing_if = "no_text")]
    detail: Cow<'a, str>,
    request: RequestPart<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<PrincipalPart<'a>>,
    signals: Vec<SignalPart<'a>>,
    policies: PoliciesPart<'a>,
    grant: Option<GrantPart<'a>>,
    approval: Option<ApprovalPart<'a>>,
    chain: Option<ChainPart<'a>>,
    timing_us: Timing,
    #[serde(skip_serializing_if = "is_zero")]
    refused_before: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    influence_shed: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    observed_shed: bool,
}

fn no_text(text: &str) -> bool {
    text.is_empty()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

#[derive(Serialize)]
struct SignalPart<'a> {
    name: &'a str,
    subject: Option<Cow<'a, str>>,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    assurance: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    observed_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    age_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    company: Option<&'static str>,
    #[serde(rename = "override", skip_serializing_if = "Option::is_none")]
    overridden: Option<OverridePart<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    without_own: Option<LeftPart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    influence: Option<&'static str>,
}

/// What is left of a signal without what the caller published of it itself.
#[derive(Serialize)]
struct LeftPart {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
}

/// Two people's word, and what it stands in for.
#[derive(Serialize)]
struct OverridePart<'a> {
    by: [&'a str; 2],
    reason: &'a str,
    was: &'static str,
    expires_at: String,
}

#[derive(Serialize)]
struct PoliciesPart<'a> {
    revision: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    engine: Option<&'static str>,
    determining: Vec<PolicyPart<'a>>,
    errors: Vec<ErrorPart<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    observed: Option<Vec<ObservedPart>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    would: Option<&'static str>,
}

#[derive(Serialize)]
struct PolicyPart<'a> {
    id: &'a str,
    effect: &'static str,
    file: &'a str,
    line: u32,
    applies: &'static str,
}

/// An observing policy in play.
#[derive(Serialize)]
struct ObservedPart {
    id: Arc<str>,
    effect: &'static str,
    file: Arc<str>,
    line: u32,
    applies: &'static str,
}

#[derive(Serialize)]
struct ErrorPart<'a> {
    id: &'a str,
    error: &'a str,
}

#[derive(Serialize)]
struct Timing {
    decode: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    identify: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gather: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policies: Option<f64>,
    evaluate: f64,
    encode: f64,
    total: f64,
}

/// Appends the record as one line of JSON, newline included; false if it lacks something. `shed` leaves influence out, and
/// says so: under overload it goes before a decision does.
pub fn render(record: &Record, rendering: &Rendering, shed: bool, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let snapshot = record.snapshot.as_deref();
    let veil = Veil::of(record, &rendering.digest_key);
    let wanted = wants_influence(record, rendering.influence);
    let effected = if wanted && !shed { effected(record) } else { HashMap::new() };
    let watching = snapshot.and_then(|s| watching(record, s));
    let observed_shed = shed && watching.is_some();
    let mut policies = policies(record, snapshot, veil.as_ref());
    if let (Some(snapshot), Some((route, observing)), false) = (snapshot, watching, shed) {
        let would = would(&observing, &snapshot.rules, &record.facts);
        policies.would = Some(
            match decide::conclude(route, would.reason, would.gated) {
                Ok(Need::Nothing) => Reason::Allowed,
                Ok(Need::Approval) => Reason::ApprovalRequired,
                Err(denial) => denial.reason,
            }
            .code(),
        );
        policies.observed = Some(would.observed.iter().map(|(info, truth)| observed_part(info, truth)).collect());
    }
    let allowed = record.reason == Reason::Allowed;
    let line = Line {
        v: 1,
        kind: "decision",
        decision_id: record.id.to_string(),
        time: record.time.to_rfc3339(),
        outcome: if allowed { "allow" } else { "deny" },
        reason: record.reason.code(),
        http_status: record.reason.http_status(),
        enforced: (!record.enforced).then_some(false),
        detail: veil.as_ref().map_or(Cow::Borrowed(&*record.detail), |veil| veil.detail(&record.detail)),
        request: RequestPart::of(record, veil.as_ref()),
        principal: record
            .evidence
            .as_ref()
            .map(|evidence| PrincipalPart::of(evidence, snapshot))
            .or_else(|| record.client.as_ref().map(PrincipalPart::of_client)),
        signals: record
            .facts
            .iter()
            .filter_map(|(signal, fact)| {
                let contract = snapshot?.register.contracts().get(usize::from(signal.0))?;
                Some(signal_part(record, contract, fact, effected.get(signal).copied(), rendering, veil.as_ref()))
            })
            .collect(),
        policies,
        grant: record.grant.as_ref().map(GrantPart::of),
        approval: record.approval.as_ref().map(|note| ApprovalPart::of(note, veil.as_ref())),
        chain: record.grant.as_ref().and_then(ChainPart::of),
        timing_us: Timing {
            decode: micros(record.spent.decode),
            route: reached(record.spent.route),
            identify: reached(record.spent.identify),
            gather: reached(record.spent.gather),
            policies: reached(record.spent.policies),
            evaluate: micros(record.spent.evaluate),
            encode: micros(record.spent.encode),
            total: micros(record.spent.total),
        },
        refused_before: record.refused_before,
        influence_shed: shed && wanted,
        observed_shed,
    };
    let is_whole = !line.influence_shed && !line.observed_shed;
    if serde_json::to_writer(&mut *out, &line).is_ok() {
        out.push(b'\n');
        is_whole
    } else {
        // Strings, numbers and maps with string keys always serialise; a record is never half written all the same.
        out.truncate(start);
        render_bare(record, out);
        false
    }
}

/// Adds a key to the object that begins at `start` and ends the text, with or without its newline.
pub(crate) fn add(out: &mut Vec<u8>, start: usize, field: &str) {
    let newline = out.pop_if(|last| *last == b'\n');
    if out.len() > start + 1 && out.pop_if(|last| *last == b'}').is_some() {
        if out.len() > start + 1 {
            out.push(b',');
        }
        out.extend_from_slice(field.as_bytes());
        out.push(b'}');
    }
    out.extend(newline);
}

/// The least that a decision's line says: used where the whole of it can't be made.
pub fn render_bare(record: &Record, out: &mut Vec<u8>) {
    let veil = Veil::of(record, &[]);
    let mut line = serde_json::json!({
        "v": 1,
        "kind": "decision",
        "decision_id": record.id.to_string(),
        "time": record.time.to_rfc3339(),
        "outcome": if record.reason == Reason::Allowed { "allow" } else { "deny" },
        "reason": record.reason.code(),
        "http_status": record.reason.http_status(),
        "detail": "the record could not be written whole",
        "request": {"method": record.asked.method, "host": record.asked.host, "path": veil.map_or_else(|| record.asked.path.clone(), |_| "{path}".to_owned())},
        "signals": [],
        "policies": {"revision": record.snapshot.as_ref().map(|s| &*s.revision), "determining": [], "errors": []},
        "grant": null, "approval": null, "chain": null,
        "timing_us": {"decode": 0.0, "evaluate": 0.0, "encode": 0.0, "total": 0.0},
    });
    if let Some(fields) = line.as_object_mut().filter(|_| !record.enforced) {
        fields.insert("enforced".to_owned(), Json::Bool(false));
    }
    out.extend_from_slice(line.to_string().as_bytes());
    out.push(b'\n');
}

/// A stage that was not reached took no time.
fn reached(nanos: u64) -> Option<f64> {
    (nanos > 0).then(|| micros(nanos))
}

/// Tenths of microseconds are as fine as the stopwatch is true.
fn micros(nanos: u64) -> f64 {
    let tenths = u32::try_from(nanos / 100).unwrap_or(u32::MAX);
    f64::from(tenths) / 10.0
}

fn effected(record: &Record) -> HashMap<SignalIndex, Effected> {
    let (Some(snapshot), Some(query), Some(verdict)) = (&record.snapshot, &record.query, &record.verdict) else {
        return HashMap::new();
    };
    let Ok(slice) = snapshot.policies.slice(query) else { return HashMap::new() };
    influence(&*slice, &snapshot.rules, &record.facts, verdict).into_iter().collect()
}

fn wants_influence(record: &Record, mode: InfluenceMode) -> bool {
    // Where no policy saw a signal there is none.
    if record.verdict.is_none() || record.facts.is_empty() {
        return false;
    }
    match mode {
        InfluenceMode::None => false,
        InfluenceMode::All => true,
        InfluenceMode::Default => {
            let high = record.route.as_ref().is_some_and(|r| r.sensitivity == crate::model::Sensitivity::High);
            record.reason != Reason::Allowed || high
        }
    }
}

fn signal_part<'a>(
    record: &Record,
    contract: &'a Contract,
    fact: &'a Fact,
    effected: Option<Effected>,
    rendering: &Rendering,
    veil: Option<&Veil<'_>>,
) -> SignalPart<'a> {
    let secret = contract.log == LogSensitivity::Secret;
    let shown = |value: &Option<Value>| value.as_ref().filter(|_| !secret).map(Value::to_json);
    let hidden =
        |value: &Option<Value>| value.as_ref().filter(|_| secret).map(|value| digest(rendering, contract, value));
    SignalPart {
        name: contract.name.as_str(),
        subject: fact.subject.as_ref().map(|s| match veil.filter(|_| s.kind == SubjectKind::Resource) {
            Some(veil) => veil.resource_text(&s.id),
            None => Cow::Borrowed(&*s.id),
        }),
        state: fact.state.as_str(),
        value: shown(&fact.value),
        digest: hidden(&fact.value),
        assurance: if fact.self_published { "self_asserted" } else { fact.assurance.as_str() },
        source: fact.source.as_deref(),
        observed_at: fact.observed_at.map(crate::model::Timestamp::to_rfc3339),
        age_ms: fact.observed_at.filter(|_| fact.state != State::Future).map(|at| record.time.since(at).as_millis()),
        company: fact.company.as_ref().map(|company| company.as_str()),
        overridden: fact.overridden.as_ref().map(|stand_in| OverridePart {
            by: [&*stand_in.word.by[0], &*stand_in.word.by[1]],
            reason: &stand_in.word.reason,
            was: stand_in.was.as_str(),
            expires_at: stand_in.word.expires_at.to_rfc3339(),
        }),
        without_own: fact.without_own.as_deref().map(|(state, value)| LeftPart {
            state: state.as_str(),
            value: shown(value),
            digest: hidden(value),
        }),
        influence: effected.map(Effected::as_str),
    }
}

/// `hmac-sha256:<hex>` over name and value: equal values can be recognised, none can be guessed without the key.
fn digest(rendering: &Rendering, contract: &Contract, value: &Value) -> String {
    keyed(&rendering.digest_key, &[contract.name.as_str(), &value.to_json().to_string()])
}

fn policies<'a>(record: &'a Record, snapshot: Option<&'a Snapshot>, veil: Option<&Veil<'_>>) -> PoliciesPart<'a> {
    let mut part = PoliciesPart {
        revision: snapshot.map(|s| &*s.revision),
        engine: None,
        determining: Vec::new(),
        errors: Vec::new(),
        observed: None,
        would: None,
    };
    let (Some(snapshot), Some(verdict)) = (snapshot, record.verdict.as_ref()) else { return part };
    part.engine = Some(snapshot.policies.name());
    for (truth, index) in verdict.truths.iter().zip(&verdict.in_play) {
        let Some(info) = snapshot.policies.policies().get(*index as usize) else { continue };
        if let Truth::Failed(why) = truth {
            // An engine's error text may quote the values that it failed on.
            let secret = info.mentions.iter().any(|signal| {
                let contract = snapshot.register.contracts().get(usize::from(signal.0));
                contract.is_some_and(|contract| contract.log == LogSensitivity::Secret)
            });
            let error = match veil {
                _ if secret => "withheld: the policy reads a secret signal",
                Some(veil) if veil.hides_any() => WITHHELD,
                _ => why,
            };
            part.errors.push(ErrorPart { id: &info.id, error });
        } else if determines(record.reason, info, truth) {
            part.determining.push(policy_part(info, truth));
        }
    }
    part
}

/// What observing policies there are to judge: none where no policy was evaluated.
fn watching<'a>(record: &'a Record, snapshot: &'a Snapshot) -> Option<(&'a Route, Observing<'a>)> {
    record.verdict.as_ref()?;
    Some((record.route.as_deref()?, snapshot.policies.slice_observing(record.query.as_ref()?)?))
}

fn observed_part(info: &PolicyInfo, truth: &Truth) -> ObservedPart {
    ObservedPart {
        id: Arc::clone(&info.id),
        effect: info.effect.as_str(),
        file: Arc::clone(&info.file),
        line: info.place.line,
        applies: match truth {
            Truth::Certain => "certain",
            Truth::May => "may",
            Truth::Never => "never",
            // Why is not said: an engine's error text may quote the values that it failed on.
            Truth::Failed(_) => "failed",
        },
    }
}

fn policy_part<'a>(info: &'a PolicyInfo, truth: &Truth) -> PolicyPart<'a> {
    PolicyPart {
        id: &info.id,
        effect: info.effect.as_str(),
        file: &info.file,
        line: info.place.line,
        applies: if *truth == Truth::Certain { "certain" } else { "may" },
    }
}

/// Whether a policy is part of why the reason is what it is.
pub(crate) fn determines(reason: Reason, policy: &PolicyInfo, truth: &Truth) -> bool {
    // What policies come to is an allow, of which an approval may be asked.
    let allowed = matches!(
        reason,
        Reason::Allowed
            | Reason::ApprovalRequired
            | Reason::ApprovalDenied
            | Reason::ApprovalExpired
            | Reason::ApprovalMismatch
    );
    if policy.effect == Effect::Forbid && policy.require_approval.is_some() {
        // It never denies: it asks.
        return allowed && matches!(truth, Truth::Certain | Truth::May);
    }
    matches!(
        (reason, policy.effect, truth),
        (Reason::PolicyDenied, Effect::Forbid, Truth::Certain)
            | (Reason::SignalUnavailable, _, Truth::May)
            | (Reason::SignalWideningRefused, Effect::Forbid, Truth::May | Truth::Certain)
            | (Reason::SignalWideningRefused, Effect::Permit, Truth::May)
    ) || (allowed && policy.effect == Effect::Permit && *truth == Truth::Certain)
}
