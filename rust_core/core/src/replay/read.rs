//! One line of the log, read strictly: a decision in its typed form, a line of another kind, or what is wrong with it.
//! What was read is outside input like any other: nothing of it is trusted, and no value of it is repeated in an error.

use super::text::{Text, is_id};
use crate::{
    check::VOUCHED,
    limits,
    model::{Assurance, CredentialClass, Fingerprint, ResourceId, Sensitivity, SpiffeId, State, Tier, Timestamp},
    policy::EngineKind,
    reason::Reason,
};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Map, Value as Json, error::Category};
use std::{collections::BTreeMap, str};

/// What a line is.
pub(super) enum Line<'l> {
    Decision(Box<Recorded<'l>>),
    /// `change` or `transport`.
    Other(&'static str),
    /// One sentence on what was expected, and where.
    Bad(String),
}

/// A decision as its record has it.
#[expect(clippy::struct_excessive_bools, reason = "one for each thing that may be so, independent of the others")]
pub(super) struct Recorded<'l> {
    pub(super) id: Text<'l>,
    /// The decision's own now.
    pub(super) time: Timestamp,
    pub(super) reason: Reason,
    pub(super) enforced: bool,
    pub(super) request: Asked<'l>,
    pub(super) caller: Option<Caller<'l>>,
    pub(super) signals: Vec<Signal<'l>>,
    pub(super) revision: Option<Text<'l>>,
    /// Whether policies were asked.
    pub(super) was_evaluated: bool,
    /// Whether they saw the request as a whole.
    pub(super) saw_whole: bool,
    /// Whether a policy failed.
    pub(super) has_failed: bool,
    pub(super) grant: Option<Grant<'l>>,
    pub(super) approval: Option<Approval<'l>>,
}

/// `request`, as far as a replay needs it.
pub(super) struct Asked<'l> {
    pub(super) part: RequestPart<'l>,
    pub(super) resource: Option<ResourceId>,
    pub(super) tier: Option<Tier>,
    pub(super) sensitivity: Option<Sensitivity>,
}

/// `principal`.
pub(super) struct Caller<'l> {
    pub(super) id: SpiffeId,
    /// `None`: a client of the admin API, or a workload that one vouches for.
    pub(super) class: Option<CredentialClass>,
    pub(super) bound: bool,
    pub(super) issued_at: Option<Timestamp>,
    pub(super) certificate: Option<Fingerprint>,
    pub(super) actor: Option<Text<'l>>,
    pub(super) interactive: bool,
}

/// One of `signals`.
pub(super) struct Signal<'l> {
    pub(super) name: Text<'l>,
    pub(super) subject: Option<Text<'l>>,
    pub(super) state: State,
    pub(super) known: Known,
    pub(super) assurance: Assurance,
    pub(super) source: Option<Text<'l>>,
    pub(super) observed_at: Option<Timestamp>,
    pub(super) overridden: Option<Overriding<'l>>,
    /// State and value that are left without the caller's own word.
    pub(super) without_own: Option<(State, Known)>,
}

/// What a record holds of a value.
#[derive(Clone)]
pub(super) enum Known {
    Nothing,
    Value(Json),
    /// Only a digest: the signal is secret.
    Digest,
}

/// `override` of a signal.
pub(super) struct Overriding<'l> {
    pub(super) by: [Text<'l>; 2],
    pub(super) reason: Text<'l>,
    pub(super) was: State,
    pub(super) expires_at: Timestamp,
}

/// `grant`, with `chain`.
pub(super) struct Grant<'l> {
    /// `None`: it did not count.
    pub(super) task: Option<Task<'l>>,
}

/// A grant that counted.
pub(super) struct Task<'l> {
    pub(super) id: Text<'l>,
    pub(super) kind: Text<'l>,
    pub(super) workflow: Option<Text<'l>>,
    pub(super) expires_at: Timestamp,
    pub(super) depth: u32,
    pub(super) root: SpiffeId,
    pub(super) principals: Vec<SpiffeId>,
    pub(super) systems: Vec<Text<'l>>,
    pub(super) sensitivity: Option<Sensitivity>,
}

/// `approval`.
pub(super) struct Approval<'l> {
    pub(super) state: Text<'l>,
    pub(super) approved_by: Vec<Text<'l>>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Head<'l> {
    v: Option<u64>,
    #[serde(borrow)]
    kind: Option<Text<'l>>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Whole<'l> {
    #[serde(borrow)]
    decision_id: Text<'l>,
    #[serde(borrow)]
    time: Text<'l>,
    #[serde(borrow)]
    outcome: Text<'l>,
    #[serde(borrow)]
    reason: Text<'l>,
    enforced: Option<bool>,
    #[serde(borrow)]
    request: RequestPart<'l>,
    #[serde(borrow)]
    principal: Option<PrincipalPart<'l>>,
    #[serde(borrow)]
    signals: Vec<SignalPart<'l>>,
    #[serde(borrow)]
    policies: PoliciesPart<'l>,
    #[serde(borrow)]
    grant: Option<GrantPart<'l>>,
    #[serde(borrow)]
    approval: Option<ApprovalPart<'l>>,
    #[serde(borrow)]
    chain: Option<ChainPart<'l>>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
pub(super) struct RequestPart<'l> {
    #[serde(borrow)]
    pub(super) method: Text<'l>,
    #[serde(borrow)]
    pub(super) host: Text<'l>,
    #[serde(borrow)]
    pub(super) path: Text<'l>,
    /// By which door it came, if not by Envoy's.
    #[serde(borrow)]
    pub(super) door: Option<Text<'l>>,
    #[serde(default)]
    pub(super) args: Map<String, Json>,
    #[serde(default)]
    pub(super) args_left_out: Vec<String>,
    /// What the settings hid of it.
    #[serde(default)]
    pub(super) redacted: Vec<String>,
    #[serde(borrow)]
    pub(super) action: Option<Text<'l>>,
    #[serde(borrow)]
    resource: Option<Text<'l>>,
    #[serde(borrow)]
    pub(super) system: Option<Text<'l>>,
    #[serde(borrow)]
    pub(super) environment: Option<Text<'l>>,
    #[serde(borrow)]
    tier: Option<Text<'l>>,
    #[serde(borrow)]
    sensitivity: Option<Text<'l>>,
    pub(super) grpc: Option<bool>,
    #[serde(default)]
    pub(super) extensions: BTreeMap<Box<str>, Option<Box<str>>>,
    #[serde(borrow)]
    pub(super) mcp: Option<McpPart<'l>>,
    #[serde(borrow, rename = "for")]
    pub(super) asked_for: Option<Text<'l>>,
    #[serde(borrow, default)]
    pub(super) actions: Vec<Text<'l>>,
    #[serde(borrow, default)]
    pub(super) resources: Vec<Text<'l>>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
pub(super) struct McpPart<'l> {
    #[serde(borrow)]
    pub(super) method: Text<'l>,
    #[serde(borrow)]
    pub(super) tool: Option<Text<'l>>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct PrincipalPart<'l> {
    #[serde(borrow)]
    id: Text<'l>,
    #[serde(borrow)]
    class: Text<'l>,
    bound: bool,
    #[serde(borrow)]
    issued_at: Option<Text<'l>>,
    #[serde(borrow)]
    certificate_sha256: Option<Text<'l>>,
    #[serde(borrow)]
    actor: Option<Text<'l>>,
    #[serde(default)]
    interactive: bool,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct SignalPart<'l> {
    #[serde(borrow)]
    name: Text<'l>,
    #[serde(borrow)]
    subject: Option<Text<'l>>,
    #[serde(borrow)]
    state: Text<'l>,
    value: Option<Json>,
    #[serde(borrow)]
    digest: Option<Text<'l>>,
    #[serde(borrow)]
    assurance: Text<'l>,
    #[serde(borrow)]
    source: Option<Text<'l>>,
    #[serde(borrow)]
    observed_at: Option<Text<'l>>,
    #[serde(borrow, rename = "override")]
    overridden: Option<OverridePart<'l>>,
    #[serde(borrow)]
    without_own: Option<LeftPart<'l>>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct OverridePart<'l> {
    #[serde(borrow)]
    by: [Text<'l>; 2],
    #[serde(borrow)]
    reason: Text<'l>,
    #[serde(borrow)]
    was: Text<'l>,
    #[serde(borrow)]
    expires_at: Text<'l>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct LeftPart<'l> {
    #[serde(borrow)]
    state: Text<'l>,
    value: Option<Json>,
    #[serde(borrow)]
    digest: Option<Text<'l>>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct PoliciesPart<'l> {
    #[serde(borrow)]
    revision: Option<Text<'l>>,
    #[serde(borrow)]
    engine: Option<Text<'l>>,
    /// Records of older versions have an engine only where policies were asked.
    asked: Option<bool>,
    errors: Vec<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct GrantPart<'l> {
    #[serde(borrow)]
    task: Option<Text<'l>>,
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'l>>,
    #[serde(borrow)]
    workflow: Option<Text<'l>>,
    #[serde(borrow)]
    expires_at: Option<Text<'l>>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct ChainPart<'l> {
    depth: u32,
    #[serde(borrow)]
    root: Text<'l>,
    #[serde(borrow)]
    principals: Vec<Text<'l>>,
    #[serde(borrow)]
    systems: Vec<Text<'l>>,
    #[serde(borrow)]
    sensitivity: Option<Text<'l>>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct ApprovalPart<'l> {
    #[serde(borrow)]
    state: Text<'l>,
    #[serde(borrow)]
    approved_by: Vec<Text<'l>>,
}

/// The class of a client of the admin API.
const CLIENT: &str = "client";

/// The version of records that is read.
const VERSION: u64 = 1;

/// Reads one line, without its newline. Total.
pub(super) fn line(bytes: &[u8]) -> Line<'_> {
    read(bytes).unwrap_or_else(Line::Bad)
}

fn read(bytes: &[u8]) -> Result<Line<'_>, String> {
    if bytes.len() > limits::MAX_RECORD_LINE_BYTES {
        return Err(format!("longer than {} bytes, which no record is", limits::MAX_RECORD_LINE_BYTES));
    }
    let text = str::from_utf8(bytes).map_err(|error| format!("byte {}: expected utf-8", error.valid_up_to() + 1))?;
    if text.trim().is_empty() {
        return Err("an empty line, expected a record".to_owned());
    }
    let head: Head<'_> = serde_json::from_str(text).map_err(|error| why(&error))?;
    match (head.v, head.kind.as_deref()) {
        (Some(VERSION), Some("decision")) => {}
        (Some(VERSION), Some("change")) => return Ok(Line::Other("change")),
        (Some(VERSION), Some("transport")) => return Ok(Line::Other("transport")),
        (Some(VERSION), Some(_)) => return Err("`kind`: expected `decision`, `change` or `transport`".to_owned()),
        (Some(other), Some(_)) => return Err(format!("`v`: expected version {VERSION} of records, found {other}")),
        _ => return Err("no record of a decision log: expected the keys `v` and `kind`".to_owned()),
    }
    let whole: Whole<'_> = serde_json::from_str(text).map_err(|error| why(&error))?;
    whole.typed().map(|recorded| Line::Decision(Box::new(recorded)))
}

/// What is wrong with a text, without any of it. The reader's own words quote what they found.
fn why(error: &serde_json::Error) -> String {
    let column = error.column();
    match error.classify() {
        Category::Eof => format!("column {column}: the line breaks off, expected a whole record"),
        Category::Syntax | Category::Io => format!("column {column}: expected json"),
        Category::Data => {
            let said = error.to_string();
            let said = said.split(" at line ").next().unwrap_or_default();
            if said.starts_with("missing field") || said.starts_with("duplicate field") {
                return format!("column {column}: {}", said.replace("field", "key"));
            }
            let expected = match said.rsplit_once("expected ").map(|(_, expected)| expected) {
                Some("a boolean") => "true or false",
                Some("a sequence") => "a list",
                Some("a map" | "an object") => "an object",
                Some("text") => "text",
                Some("u32" | "u64") => "a whole number",
                Some("an array of length 2") => "a list of two",
                _ => "what a decision record has there",
            };
            format!("column {column}: expected {expected}")
        }
    }
}

impl<'l> Whole<'l> {
    fn typed(self) -> Result<Recorded<'l>, String> {
        if !is_id(&self.decision_id) {
            return Err("`decision_id`: expected a uuid".to_owned());
        }
        let reason = Reason::ALL.iter().find(|reason| reason.code() == &*self.reason).copied();
        let reason = reason.ok_or_else(|| expected("reason", "one of the closed list of reasons"))?;
        let outcome = if reason == Reason::Allowed { "allow" } else { "deny" };
        if &*self.outcome != outcome {
            return Err(expected("outcome", &format!("`{outcome}` beside the reason `{}`", reason.code())));
        }
        let policies = &self.policies;
        let was_evaluated = policies.engine.is_some() && policies.asked != Some(false);
        let of_whole = policies.engine.as_deref().is_some_and(|engine| engine.ends_with(EngineKind::OpaEnvoy.as_str()));
        let signals =
            self.signals.into_iter().enumerate().map(|(at, part)| part.typed(at)).collect::<Result<_, _>>()?;
        Ok(Recorded {
            time: time("time", &self.time)?,
            id: self.decision_id,
            reason,
            enforced: self.enforced.unwrap_or(true),
            request: self.request.typed()?,
            caller: self.principal.map(PrincipalPart::typed).transpose()?,
            signals,
            revision: self.policies.revision,
            was_evaluated,
            saw_whole: was_evaluated && of_whole,
            has_failed: !self.policies.errors.is_empty(),
            grant: self.grant.map(|part| part.typed(self.chain)).transpose()?,
            approval: self.approval.map(|part| Approval { state: part.state, approved_by: part.approved_by }),
        })
    }
}

impl<'l> RequestPart<'l> {
    fn typed(self) -> Result<Asked<'l>, String> {
        let resource = match &self.resource {
            Some(text) => {
                let form = || expected("request.resource", "a resource such as `Account::\"42\"`");
                Some(ResourceId::parse(text).ok_or_else(form)?)
            }
            None => None,
        };
        Ok(Asked {
            resource,
            tier: word("request.tier", self.tier.as_ref(), Tier::ALL)?,
            sensitivity: word("request.sensitivity", self.sensitivity.as_ref(), Sensitivity::ALL)?,
            part: self,
        })
    }
}

impl<'l> PrincipalPart<'l> {
    fn typed(self) -> Result<Caller<'l>, String> {
        let class = if [CLIENT, VOUCHED].contains(&&*self.class) {
            None
        } else {
            word("principal.class", Some(&self.class), CredentialClass::ALL)?
        };
        let digest = |text: &Text<'_>| {
            Fingerprint::parse(text).ok_or_else(|| expected("principal.certificate_sha256", "64 hex digits"))
        };
        Ok(Caller {
            id: spiffe_id("principal.id", &self.id)?,
            class,
            bound: self.bound,
            issued_at: self.issued_at.map(|at| time("principal.issued_at", &at)).transpose()?,
            certificate: self.certificate_sha256.as_ref().map(digest).transpose()?,
            actor: self.actor,
            interactive: self.interactive,
        })
    }
}

impl<'l> SignalPart<'l> {
    fn typed(self, at: usize) -> Result<Signal<'l>, String> {
        let key = |key: &str| format!("signals[{at}].{key}");
        let overridden = self.overridden.map(|part| {
            Ok::<_, String>(Overriding {
                was: state(&key("override.was"), &part.was)?,
                expires_at: time(&key("override.expires_at"), &part.expires_at)?,
                by: part.by,
                reason: part.reason,
            })
        });
        let left = self.without_own.map(|part| {
            Ok::<_, String>((
                state(&key("without_own.state"), &part.state)?,
                Known::of(part.value, part.digest.as_ref()),
            ))
        });
        let signal = Signal {
            state: state(&key("state"), &self.state)?,
            assurance: word(&key("assurance"), Some(&self.assurance), Assurance::ALL)?
                .unwrap_or(Assurance::SelfAsserted),
            observed_at: self.observed_at.map(|at| time(&key("observed_at"), &at)).transpose()?,
            name: self.name,
            subject: self.subject,
            known: Known::of(self.value, self.digest.as_ref()),
            source: self.source,
            overridden: overridden.transpose()?,
            without_own: left.transpose()?,
        };
        match (signal.state, &signal.known) {
            (State::Fresh, Known::Nothing) => Err(expected(&key("value"), "a value, since the state is `fresh`")),
            _ => Ok(signal),
        }
    }
}

impl Known {
    fn of(value: Option<Json>, digest: Option<&Text<'_>>) -> Self {
        match (value, digest) {
            (Some(value), _) => Self::Value(value),
            (None, Some(_)) => Self::Digest,
            (None, None) => Self::Nothing,
        }
    }
}

impl<'l> GrantPart<'l> {
    fn typed(self, chain: Option<ChainPart<'l>>) -> Result<Grant<'l>, String> {
        let Some(id) = self.task else { return Ok(Grant { task: None }) };
        let (Some(kind), Some(expires_at), Some(chain)) = (self.kind, self.expires_at, chain) else {
            return Err(expected("grant", "`type`, `expires_at` and a `chain` beside its `task`"));
        };
        let principals = chain.principals.iter().map(|id| spiffe_id("chain.principals", id));
        Ok(Grant {
            task: Some(Task {
                id,
                kind,
                workflow: self.workflow,
                expires_at: time("grant.expires_at", &expires_at)?,
                depth: chain.depth,
                root: spiffe_id("chain.root", &chain.root)?,
                principals: principals.collect::<Result<_, _>>()?,
                systems: chain.systems,
                sensitivity: word("chain.sensitivity", chain.sensitivity.as_ref(), Sensitivity::ALL)?,
            }),
        })
    }
}

fn expected(key: &str, what: &str) -> String {
    format!("`{key}`: expected {what}")
}

fn time(key: &str, text: &str) -> Result<Timestamp, String> {
    Timestamp::parse_rfc3339(text).ok_or_else(|| expected(key, "a time such as `2026-11-24T10:00:00.000000Z`"))
}

fn spiffe_id(key: &str, text: &str) -> Result<SpiffeId, String> {
    SpiffeId::parse(text).map_err(|_| expected(key, "a spiffe id"))
}

fn state(key: &str, text: &Text<'_>) -> Result<State, String> {
    Ok(word(key, Some(text), State::ALL)?.unwrap_or(State::Missing))
}

fn word<T: Copy>(key: &str, text: Option<&Text<'_>>, all: &[(&str, T)]) -> Result<Option<T>, String> {
    let Some(text) = text else { return Ok(None) };
    let found = all.iter().find(|(known, _)| *known == &**text).map(|(_, value)| *value);
    let words = || all.iter().map(|(known, _)| *known).collect::<Vec<_>>().join(", ");
    found.map(Some).ok_or_else(|| expected(key, &format!("one of {}", words())))
}
