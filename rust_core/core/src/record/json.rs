//! A record as one line of JSON (schema in `docs/schema/decision-record.schema.json`).

use super::{
    Record,
    pen::Pen,
    principal, request,
    task::{ApprovalPart, ChainPart, GrantPart},
    veil::{Veil, WITHHELD, keyed},
};
use crate::{
    decide::{self, Need},
    model::{Fact, State, Value, names::SubjectKind},
    policy::{
        Effect, EngineKind, Observing, PolicyInfo, SignalIndex,
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

/// An observing policy in play.
#[derive(Serialize)]
struct ObservedPart {
    id: Arc<str>,
    effect: &'static str,
    file: Arc<str>,
    line: u32,
    applies: &'static str,
}

/// What observing policies come to, were they enforced.
struct Watched {
    observed: Vec<ObservedPart>,
    would: &'static str,
}

/// A record on its way to its line.
struct Page<'a> {
    record: &'a Record,
    snapshot: Option<&'a Snapshot>,
    rendering: &'a Rendering,
    veil: Option<Veil<'a>>,
}

/// Appends the record as one line of JSON, newline included; false if it lacks something. `shed` leaves influence out, and
/// says so: under overload it goes before a decision does.
pub fn render(record: &Record, rendering: &Rendering, shed: bool, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let snapshot = record.snapshot.as_deref();
    let page = Page { record, snapshot, rendering, veil: Veil::of(record, &rendering.digest_key) };
    let wanted = wants_influence(record, rendering.influence);
    let effected = if wanted && !shed { effected(record) } else { HashMap::new() };
    let watching = snapshot.and_then(|s| watching(record, s));
    let observed_shed = shed && watching.is_some();
    let watched = match (snapshot, watching) {
        (Some(snapshot), Some(watching)) if !shed => Some(Watched::of(record, snapshot, watching)),
        _ => None,
    };
    let mut pen = Pen::new(out);
    page.write(&mut pen, &effected, watched.as_ref());
    if record.refused_before > 0 {
        pen.number(r#","refused_before":"#, i64::try_from(record.refused_before).unwrap_or(i64::MAX));
    }
    let influence_shed = shed && wanted;
    if influence_shed {
        pen.raw(r#","influence_shed":true"#);
    }
    if observed_shed {
        pen.raw(r#","observed_shed":true"#);
    }
    pen.raw("}\n");
    if pen.is_whole() {
        return !influence_shed && !observed_shed;
    }
    out.truncate(start);
    render_bare(record, out);
    false
}

impl Page<'_> {
    /// All but the marks at the end.
    fn write(&self, pen: &mut Pen<'_>, effected: &HashMap<SignalIndex, Effected>, watched: Option<&Watched>) {
        let Self { record, snapshot, ref veil, .. } = *self;
        let veil = veil.as_ref();
        pen.id(r#"{"v":1,"kind":"decision","decision_id":"#, record.id);
        pen.time(r#","time":"#, record.time);
        pen.word(r#","outcome":"#, if record.reason == Reason::Allowed { "allow" } else { "deny" });
        pen.word(r#","reason":"#, record.reason.code());
        pen.number(r#","http_status":"#, record.reason.http_status().into());
        if !record.enforced {
            pen.raw(r#","enforced":false"#);
        }
        let detail = veil.map_or(Cow::Borrowed(&*record.detail), |veil| veil.detail(&record.detail));
        pen.maybe_text(r#","detail":"#, Some(&*detail).filter(|detail| !detail.is_empty()));
        request::write(pen, record, veil);
        if let Some(evidence) = &record.evidence {
            principal::write(pen, evidence, snapshot);
        } else if let Some(inquiry) = &record.inquiry {
            principal::write_vouched(pen, inquiry, snapshot);
        } else if let Some(client) = &record.client {
            principal::write_client(pen, client);
        }
        pen.raw(r#","signals":["#);
        let mut comma = "";
        for (signal, fact) in &record.facts {
            let contract = snapshot.and_then(|snapshot| snapshot.register.contracts().get(usize::from(signal.0)));
            if let Some(contract) = contract {
                self.write_signal(pen.raw(comma), contract, fact, effected.get(signal).copied());
                comma = ",";
            }
        }
        pen.raw("]");
        self.write_policies(pen, watched);
        pen.part(r#","grant":"#, &record.grant.as_ref().map(GrantPart::of));
        pen.part(r#","approval":"#, &record.approval.as_ref().map(|note| ApprovalPart::of(note, veil)));
        pen.part(r#","chain":"#, &record.grant.as_ref().and_then(ChainPart::of));
        let spent = &record.spent;
        pen.micros(r#","timing_us":{"decode":"#, spent.decode);
        let stages = [
            (r#","route":"#, spent.route),
            (r#","identify":"#, spent.identify),
            (r#","gather":"#, spent.gather),
            (r#","policies":"#, spent.policies),
        ];
        // A stage that was not reached took no time.
        for (key, nanos) in stages.into_iter().filter(|(_, nanos)| *nanos > 0) {
            pen.micros(key, nanos);
        }
        pen.micros(r#","evaluate":"#, spent.evaluate).micros(r#","encode":"#, spent.encode);
        pen.micros(r#","total":"#, spent.total).raw("}");
    }

    fn write_signal(&self, pen: &mut Pen<'_>, contract: &Contract, fact: &Fact, effected: Option<Effected>) {
        let secret = contract.log == LogSensitivity::Secret;
        pen.text(r#"{"name":"#, contract.name.as_str());
        match (&fact.subject, &self.veil) {
            (Some(subject), Some(veil)) if subject.kind == SubjectKind::Resource => {
                pen.text(r#","subject":"#, &veil.resource_text(&subject.id));
            }
            (Some(subject), _) => drop(pen.text(r#","subject":"#, &subject.id)),
            (None, _) => drop(pen.raw(r#","subject":null"#)),
        }
        pen.word(r#","state":"#, fact.state.as_str());
        match &fact.value {
            Some(value) if secret => drop(pen.text(r#","digest":"#, &digest(self.rendering, contract, value))),
            Some(value) => drop(pen.value(r#","value":"#, value)),
            None => {}
        }
        pen.word(r#","assurance":"#, if fact.self_published { "self_asserted" } else { fact.assurance.as_str() });
        pen.maybe_text(r#","source":"#, fact.source.as_deref());
        if let Some(at) = fact.observed_at {
            pen.time(r#","observed_at":"#, at);
            if fact.state != State::Future {
                pen.number(r#","age_ms":"#, self.record.time.since(at).as_millis());
            }
        }
        if let Some(company) = &fact.company {
            pen.word(r#","company":"#, company.as_str());
        }
        if let Some(stand_in) = &fact.overridden {
            let part = OverridePart {
                by: [&*stand_in.word.by[0], &*stand_in.word.by[1]],
                reason: &stand_in.word.reason,
                was: stand_in.was.as_str(),
                expires_at: stand_in.word.expires_at.to_rfc3339(),
            };
            pen.part(r#","override":"#, &part);
        }
        if let Some((state, value)) = fact.without_own.as_deref() {
            let (shown, hidden) = if secret { (None, value.as_ref()) } else { (value.as_ref(), None) };
            let part = LeftPart {
                state: state.as_str(),
                value: shown.map(Value::to_json),
                digest: hidden.map(|value| digest(self.rendering, contract, value)),
            };
            pen.part(r#","without_own":"#, &part);
        }
        if let Some(effected) = effected {
            pen.word(r#","influence":"#, effected.as_str());
        }
        pen.raw("}");
    }

    fn write_policies(&self, pen: &mut Pen<'_>, watched: Option<&Watched>) {
        let Self { record, snapshot, .. } = *self;
        match snapshot {
            Some(snapshot) => drop(pen.text(r#","policies":{"revision":"#, &snapshot.revision)),
            None => drop(pen.raw(r#","policies":{"revision":null"#)),
        }
        let judged = snapshot.zip(record.verdict.as_ref());
        if let Some(snapshot) = snapshot {
            pen.word(r#","engine":"#, snapshot.policies.name());
        }
        if judged.is_none() {
            pen.raw(r#","asked":false"#);
        }
        let each = || {
            judged.into_iter().flat_map(|(snapshot, verdict)| {
                let known = snapshot.policies.policies();
                let in_play = verdict.truths.iter().zip(&verdict.in_play);
                in_play.filter_map(move |(truth, index)| Some((known.get(*index as usize)?, truth)))
            })
        };
        pen.raw(r#","determining":["#);
        let mut start = r#"{"id":"#;
        for (info, truth) in each().filter(|(info, truth)| determines(record.reason, info, truth)) {
            pen.text(start, &info.id).word(r#","effect":"#, info.effect.as_str()).text(r#","file":"#, &info.file);
            pen.number(r#","line":"#, info.place.line.into());
            pen.word(r#","applies":"#, if *truth == Truth::Certain { "certain" } else { "may" });
            pen.maybe_text(r#","template":"#, info.template.as_deref()).maybe_text(r#","why":"#, info.note.as_deref());
            pen.maybe_text(r#","advice":"#, info.advice.as_deref()).raw("}");
            start = r#",{"id":"#;
        }
        pen.raw(r#"],"errors":["#);
        start = r#"{"id":"#;
        for (info, truth) in each() {
            if let (Truth::Failed(why), Some(snapshot)) = (truth, snapshot) {
                pen.text(start, &info.id).text(r#","error":"#, &self.shown_error(snapshot, info, why)).raw("}");
                start = r#",{"id":"#;
            }
        }
        pen.raw("]");
        if let Some(Watched { observed, would }) = watched {
            pen.part(r#","observed":"#, observed).word(r#","would":"#, would);
        }
        pen.raw("}");
    }

    /// An engine's error text may quote the values that it failed on.
    fn shown_error<'t>(&self, snapshot: &Snapshot, info: &PolicyInfo, why: &'t str) -> Cow<'t, str> {
        let is_secret = |signal: &SignalIndex| {
            let contract = snapshot.register.contracts().get(usize::from(signal.0));
            contract.is_some_and(|contract| contract.log == LogSensitivity::Secret)
        };
        match &self.veil {
            _ if info.mentions.iter().any(is_secret) => "withheld: the policy reads a secret signal".into(),
            _ if info.engine == EngineKind::OpaEnvoy => without_values(why).into(),
            Some(veil) if veil.hides_any() => WITHHELD.into(),
            _ => why.into(),
        }
    }
}

/// The place of an error in a policy that sees the whole request: what is said of it may quote a header or a token.
fn without_values(why: &str) -> String {
    let place = why.split_once(": ").map(|(place, _)| place).filter(|place| place.starts_with("policies/"));
    let place = place.map_or_else(String::new, |place| format!("{place}: "));
    format!("{place}withheld: the policy sees the request as a whole")
}

impl Watched {
    fn of(record: &Record, snapshot: &Snapshot, (route, observing): (&Route, Observing<'_>)) -> Self {
        let would = would(&observing, &snapshot.rules, &record.facts);
        let reason = match decide::conclude(route, would.reason, would.gated) {
            Ok(Need::Nothing) => Reason::Allowed,
            Ok(Need::Approval) => Reason::ApprovalRequired,
            Err(denial) => denial.reason,
        };
        let observed = would.observed.iter().map(|(info, truth)| observed_part(info, truth)).collect();
        Self { observed, would: reason.code() }
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
        "policies": {"revision": record.snapshot.as_ref().map(|s| &*s.revision), "asked": record.verdict.is_some(), "determining": [], "errors": []},
        "grant": null, "approval": null, "chain": null,
        "timing_us": {"decode": 0.0, "evaluate": 0.0, "encode": 0.0, "total": 0.0},
    });
    if let Some(fields) = line.as_object_mut().filter(|_| !record.enforced) {
        fields.insert("enforced".to_owned(), Json::Bool(false));
    }
    if let (Some(policies), Some(snapshot)) = (line.get_mut("policies").and_then(Json::as_object_mut), &record.snapshot)
    {
        policies.insert("engine".to_owned(), snapshot.engine.into());
    }
    out.extend_from_slice(line.to_string().as_bytes());
    out.push(b'\n');
}

fn effected(record: &Record) -> HashMap<SignalIndex, Effected> {
    let (Some(snapshot), Some(query), Some(verdict)) = (&record.snapshot, &record.query, &record.verdict) else {
        return HashMap::new();
    };
    if snapshot.policies.is_ungoverned_for(&query.action) {
        return HashMap::new(); // no signal can have any, and the request is forgotten
    }
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

/// `hmac-sha256:<hex>` over name and value: equal values can be recognised, none can be guessed without the key.
fn digest(rendering: &Rendering, contract: &Contract, value: &Value) -> String {
    keyed(&rendering.digest_key, &[contract.name.as_str(), &value.to_json().to_string()])
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
        // Why one failed is not said: an engine's error text may quote the values that it failed on.
        applies: truth.as_str(),
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
