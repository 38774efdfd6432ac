//! One configuration, loaded and checked, immutable: what a decision reads beside live state.

use crate::{
    approvals::ApprovalSettings,
    error::Error,
    findings::{Finding, Findings, Place, did_you_mean},
    identity::{Identity, IdentitySettings},
    idle, limits,
    model::{
        ActionId, Environment, Influence, SignalName, SpiffeIdError, Timestamp, TrustDomain, WhenUnavailable, hex,
        names::BUILT_IN_ACTIONS,
    },
    policy::{self, ActionRule, PolicyEngine, SignalIndex, SignalRule, settings::PolicySettings},
    principals::{self, Principals},
    route::{ActionDecl, Redaction, Routes},
    signals::{Cells, Contract, Flow, Register, Store, derived::Derived, feeds::Feed, overriding::OverrideSettings},
    tasks::TaskSettings,
    wire::Descriptors,
};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

/// Settings of `signalwarden.yaml` that decide.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoreSettings {
    /// Our own trust domain.
    pub trust_domain: String,
    /// Others whose principals are accepted.
    #[serde(default)]
    pub federates_with: Vec<String>,
    /// Whether a principal that `entities.json` does not list is denied.
    #[serde(default)]
    pub require_record: bool,
    /// Where identities come from.
    #[serde(default)]
    pub identity: IdentitySettings,
    /// How long tasks may take, and how far they may be handed on.
    #[serde(default)]
    pub tasks: TaskSettings,
    /// How long questions are open, and how many must say yes.
    #[serde(default)]
    pub approvals: ApprovalSettings,
    /// How long an override may last.
    #[serde(default)]
    pub overrides: OverrideSettings,
    /// What no record may show of a call.
    #[serde(default)]
    pub redact: Redaction,
    /// Options of the policy engines.
    #[serde(default)]
    pub policies: PolicySettings,
}

impl CoreSettings {
    /// Those of a trust domain, and else nothing but what is so by itself.
    pub fn of(trust_domain: &str) -> Self {
        Self { trust_domain: trust_domain.to_owned(), ..Self::default() }
    }

    /// Reads the JSON that Python makes of the settings.
    pub fn from_json(json: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(json).map_err(|error| Error::BadInput(format!("the settings for the core: {error}")))
    }
}

/// Said aloud at every load and in readiness.
const UNGOVERNED: &str = "`input: opa_envoy`: policies in Rego see the whole request, and the register promises nothing \
    of what they make of it";
/// The ending of files that describe messages of protobuf.
const DESCRIPTORS: &str = ".pb";

/// A configuration in force, or about to be.
pub struct Snapshot {
    /// Hex SHA-256 over files and settings.
    pub revision: Arc<str>,
    /// Establishes who asks.
    pub identity: Identity,
    /// Establishes what is asked.
    pub routes: Routes,
    /// The contracts, by name.
    pub register: Register,
    /// The same as the policy room sees them, by the same index.
    pub rules: Vec<SignalRule>,
    /// The policies.
    pub policies: Box<dyn PolicyEngine>,
    /// The word of their engines, for a record that is written when nothing else can be asked.
    pub engine: &'static str,
    /// By which policies over the whole request see bodies of gRPC (`input: opa_envoy`).
    pub descriptors: Option<Descriptors>,
    /// What stands against a principal before any policy.
    pub principals: Principals,
    /// What the settings say of tasks.
    pub tasks: TaskSettings,
    /// What the settings say of approvals.
    pub approvals: ApprovalSettings,
    /// What the settings say of overrides.
    pub overrides: OverrideSettings,
    /// What no record may show of a call.
    pub redaction: Redaction,
    /// Signals that are read for the record alone: those that an action only observes, and those of observing policies.
    pub observed: HashMap<ActionId, Vec<SignalIndex>>,
    /// What was said at load and did not stop it.
    pub warnings: Vec<Finding>,
    /// Each file with the hex SHA-256 of its content.
    pub files: Vec<(String, String)>,
}

/// A snapshot with its contracts bound to a store: what a decision reads.
pub struct Running {
    pub(crate) snapshot: Arc<Snapshot>,
    /// One for each contract, by the same index.
    pub(crate) cells: Vec<Cells>,
    /// The others of each contract's group, where an adverse value counts only in company; by the same index.
    pub(crate) company: Vec<Vec<SignalIndex>>,
    /// What is counted of callers.
    pub(crate) derived: Arc<Derived>,
}

impl Running {
    /// Binds every contract. What was counted goes on being counted, where this configuration still wants it.
    pub fn new(snapshot: Arc<Snapshot>, store: &Store, before: Option<&Self>, seed: u64) -> Self {
        let counted = before.map(|running| Arc::clone(&running.derived)).unwrap_or_default();
        let derived = Arc::new(Derived::of(&snapshot.register, &counted, seed));
        let contracts = snapshot.register.contracts();
        let cells = contracts.iter().map(|contract| store.bind(contract)).collect();
        let company = contracts.iter().map(|contract| company_of(contract, &snapshot.register)).collect();
        Self { snapshot, cells, company, derived }
    }
}

fn company_of(contract: &Contract, register: &Register) -> Vec<SignalIndex> {
    let names = contract.combination.corroborate.iter().flat_map(|corroborate| &corroborate.with);
    let place = |name: &SignalName| register.contracts().iter().position(|other| other.name == *name);
    names.filter_map(place).filter_map(|at| u16::try_from(at).ok().map(SignalIndex)).collect()
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("revision", &self.revision).finish_non_exhaustive()
    }
}

impl Snapshot {
    /// Loads the files of a directory, given as (path relative to it, content). Every mistake of every file is
    /// reported in one pass. `now` decides which reviews are due.
    pub fn load(files: &[(String, Vec<u8>)], settings: &CoreSettings, now: Timestamp) -> Result<Self, Error> {
        let mut findings = Findings::default();
        let texts = texts(files, &mut findings);
        let text = |name: &str| texts.iter().find(|(file, _)| *file == name).map(|(_, text)| *text);
        let missing = |name: &str, findings: &mut Findings| {
            findings.error(name, Place::default(), "missing_file", "the file is missing");
        };
        let routes = text("routes.yaml").map(|text| Routes::load("routes.yaml", text, &mut findings));
        if routes.is_none() {
            missing("routes.yaml", &mut findings);
        }
        let routes_are_whole = !findings.has_errors();
        let declared: &[ActionDecl] = routes.as_ref().map_or(&[], |routes| routes.actions());
        let register =
            text("signals.yaml").map(|text| Register::load("signals.yaml", text, declared, now, &mut findings));
        if register.is_none() {
            missing("signals.yaml", &mut findings);
        }
        let register_is_whole = !findings.has_errors();
        let redaction = match &routes {
            Some(routes) if routes_are_whole => settings.redact.clone().of(routes, &mut findings),
            _ => settings.redact.clone(),
        };
        let identity = identity(settings, register.as_ref(), &mut findings);
        let actions: Vec<ActionRule> = declared.iter().map(action_rule).collect();
        let rules: Vec<SignalRule> =
            register.iter().flat_map(Register::contracts).map(|contract| signal_rule(contract)).collect();
        let engine = policy::load::load(&texts, &settings.policies, &actions, &rules, &mut findings);
        let descriptors = descriptors(files, &settings.policies, &mut findings);
        if let (Some(register), Some(engine)) = (&register, &engine) {
            idle::warn(&actions, register, &**engine, &mut findings);
            principals::warn(&engine.records(), now, &mut findings);
            if engine.wants_whole_request() {
                findings.warning("signalwarden.yaml", Place::default(), "ungoverned", UNGOVERNED);
            }
        }
        if !routes_are_whole {
            // A route with a mistake declares no action, and what uses the action is not to blame.
            findings.drop_followers("unknown_action", "routes.yaml");
        }
        if !register_is_whole {
            // The same for a contract with a mistake.
            findings.drop_followers("unregistered_signal", "signals.yaml");
        }
        let failed = findings.has_errors();
        let findings = findings.into_sorted();
        match (failed, identity, routes, register, engine) {
            (false, Some(identity), Some(routes), Some(register), Some(engine)) => Ok(Self {
                revision: revision(files, settings),
                identity,
                routes,
                observed: observed(&actions, &rules, &*engine),
                register,
                rules,
                engine: engine.name(),
                policies: engine,
                descriptors,
                principals: Principals::new(settings.require_record),
                tasks: settings.tasks.clone(),
                approvals: settings.approvals.clone(),
                overrides: settings.overrides.clone(),
                redaction,
                warnings: findings,
                files: files.iter().map(|(name, content)| (name.clone(), hex(&Sha256::digest(content)))).collect(),
            }),
            (false, ..) => {
                Err(Error::Internal("the configuration could not be built, and nothing says why".to_owned()))
            }
            _ => Err(Error::Configuration(findings)),
        }
    }

    /// The declared exceptions to I2, one sentence each, for `check` to list.
    pub fn exceptions(&self) -> Vec<String> {
        self.register.contracts().iter().flat_map(|contract| exceptions_of(contract)).collect()
    }

    /// What each policy consists of, in the order of `describe`: for tests of policies.
    pub fn makeups(&self) -> Json {
        let makeups = self.policies.makeups().into_iter().map(|makeup| {
            let conditions = makeup.conditions.iter().map(|condition| {
                json!({"word": condition.word, "line": condition.place.line, "column": condition.place.column})
            });
            json!({
                "actions": makeup.actions.iter().map(ActionId::as_str).collect::<Vec<_>>(),
                "scoped": makeup.is_scoped, "conditions": conditions.collect::<Vec<_>>(),
            })
        });
        makeups.collect()
    }

    /// The configuration for people and tools: contracts, routes, actions, policies.
    pub fn describe(&self) -> Json {
        let mut readers: HashMap<SignalIndex, Vec<&str>> = HashMap::new();
        for policy in self.policies.policies() {
            for signal in &policy.mentions {
                readers.entry(*signal).or_default().push(&policy.id);
            }
        }
        let signals = self.register.contracts().iter().enumerate().map(|(at, contract)| {
            let index = SignalIndex(u16::try_from(at).unwrap_or(u16::MAX));
            let mut json = contract.to_json();
            if let Some(fields) = json.as_object_mut() {
                fields.insert("digest".to_owned(), contract.digest(self.register.feeds()).into());
                fields.insert("read_by".to_owned(), json!(readers.get(&index).cloned().unwrap_or_default()));
            }
            json
        });
        json!({
            "revision": &*self.revision,
            "files": self.files.iter().map(|(name, digest)| (name.clone(), json!(digest))).collect::<serde_json::Map<_, _>>(),
            "exceptions": self.exceptions(),
            "strict_reviews": self.register.strict_reviews(),
            "feeds": self.register.feeds().iter().map(Feed::to_json).collect::<Vec<_>>(),
            "signals": signals.collect::<Vec<_>>(),
            "routes": self.routes.all().iter().map(|route| json!({
                "route": &*route.label, "match": route.describe_match(), "definition_sha256": route.digest(), "action": route.action.as_str(), "resource_type": &*route.resource_type,
                "system": route.system.as_deref(), "environment": route.environment.as_ref().map(Environment::as_str), "tier": route.tier.as_str(), "sensitivity": route.sensitivity.as_str(),
                "facts": route.facts.iter().map(|(name, value)| (name.to_string(), value.to_json())).collect::<serde_json::Map<_, _>>(),
                "grant_required": route.grant_required, "enforce": route.enforce, "line": route.place.line,
            })).collect::<Vec<_>>(),
            "principals": self.policies.records().iter().filter(|listed| listed.record.restricts())
                .map(principals::describe).collect::<Vec<_>>(),
            "actions": self.routes.actions().iter().map(|action| json!({
                "action": action.id.as_str(), "tier": action.tier.as_str(), "has_gates": self.policies.has_gates(&action.id),
            })).collect::<Vec<_>>(),
            "ungoverned": self.policies.wants_whole_request(),
            "client_streams": self.descriptors.as_ref().map(Descriptors::client_streams).unwrap_or_default(),
            "reads_outside": self.policies.reads_outside().iter().map(|read| json!({
                "file": &*read.file, "line": read.place.line, "column": read.place.column, "rule": &*read.rule,
                "path": read.path.iter().map(|step| step.as_deref()).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
            "policies": self.policies.policies().iter().map(|policy| json!({
                "id": &*policy.id, "file": &*policy.file, "line": policy.place.line, "text_sha256": policy.text_sha256,
                "engine": policy.engine.as_str(), "effect": policy.effect.as_str(), "mode": policy.mode.as_str(),
                "template": policy.template.as_deref(), "why": policy.note.as_deref(), "advice": policy.advice.as_deref(),
                "signals": policy.mentions.iter()
                    .filter_map(|s| self.rules.get(usize::from(s.0)))
                    .map(|rule| rule.name.as_str()).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
        })
    }
}

/// Descriptor sets of protobuf, which are no text.
fn is_descriptors(file: &str) -> bool {
    file.ends_with(DESCRIPTORS)
}

fn descriptors(files: &[(String, Vec<u8>)], settings: &PolicySettings, findings: &mut Findings) -> Option<Descriptors> {
    let wanted = settings.rego.as_ref().and_then(|rego| rego.descriptors.as_deref());
    for (file, _) in files.iter().filter(|(file, _)| is_descriptors(file) && wanted != Some(file)) {
        let message = "not read: `policies.rego.descriptors` does not name it";
        findings.warning(file, Place::default(), "ignored_file", message);
    }
    let wanted = wanted?;
    let Some((file, content)) = files.iter().find(|(file, _)| file == wanted && is_descriptors(file)) else {
        let message = format!(
            "`policies.rego.descriptors`: expected a file of the directory that ends in `{DESCRIPTORS}`, found `{wanted}`"
        );
        findings.error("signalwarden.yaml", Place::default(), "missing_file", message);
        return None;
    };
    Descriptors::load(content).map_err(|why| findings.error(file, Place::default(), "bad_descriptors", why)).ok()
}

fn texts<'a>(files: &'a [(String, Vec<u8>)], findings: &mut Findings) -> Vec<(&'a str, &'a str)> {
    let mut texts = Vec::with_capacity(files.len());
    for (name, content) in files {
        if content.len() > limits::MAX_FILE_BYTES {
            findings.error(
                name,
                Place::default(),
                "too_large",
                format!("larger than {} bytes", limits::MAX_FILE_BYTES),
            );
            continue;
        }
        if is_descriptors(name) {
            continue; // no text
        }
        match std::str::from_utf8(content) {
            Ok(text) => texts.push((name.as_str(), text)),
            Err(error) => {
                let good = content.get(..error.valid_up_to()).unwrap_or_default();
                let line = String::from_utf8_lossy(good).matches('\n').count() + 1;
                let place = Place { line: u32::try_from(line).unwrap_or(u32::MAX), column: 1 };
                findings.error(name, place, "not_utf8", "expected UTF-8 text");
            }
        }
    }
    texts.sort_unstable();
    texts
}

fn identity(settings: &CoreSettings, register: Option<&Register>, findings: &mut Findings) -> Option<Identity> {
    let mut parse = |key: &str, text: &str| match TrustDomain::parse(text) {
        Ok(domain) => Some(domain),
        Err(why) => {
            let why: SpiffeIdError = why;
            findings.error("signalwarden.yaml", Place::default(), "trust_domain", format!("`{key}: {text}`: {why}"));
            None
        }
    };
    let own = parse("trust_domain", &settings.trust_domain);
    let federated: Vec<_> = settings.federates_with.iter().map(|name| parse("federates_with", name)).collect();
    let (own, federated) = (own?, federated.into_iter().collect::<Option<Vec<_>>>()?);
    let claims = register.map(Register::claims).unwrap_or_default();
    let identity = Identity::new(own, federated, settings.identity.clone(), claims)
        .map_err(|why| findings.error("signalwarden.yaml", Place::default(), "bad_value", format!("`identity`: {why}")))
        .ok()?;
    unknown_issuers(&identity, register, findings);
    Some(identity)
}

/// Claims of tokens that nobody validates: their signals could never be anything but missing.
fn unknown_issuers(identity: &Identity, register: Option<&Register>, findings: &mut Findings) {
    let sources = |contract: &Arc<Contract>| -> Vec<Box<str>> {
        let flows = contract.sources.iter().map(|source| &source.flow);
        flows
            .filter_map(|flow| if let Flow::OnRequest(reader) = flow { reader.claim() } else { None })
            .map(|(issuer, _)| issuer)
            .collect()
    };
    for contract in register.map(Register::contracts).unwrap_or_default() {
        for issuer in sources(contract).iter().filter(|issuer| !identity.validates(issuer)) {
            let hint = did_you_mean(issuer, identity.issuers());
            let message = format!(
                "`{}`: expected an issuer whose tokens the settings validate, found `{issuer}`{hint}",
                contract.name
            );
            findings.error("signals.yaml", contract.place, "unknown_issuer", message);
        }
    }
}

fn action_rule(declared: &ActionDecl) -> ActionRule {
    ActionRule {
        id: declared.id.clone(),
        tier: declared.tier,
        grant_required: declared.grant_required,
        resource_types: declared.resource_types.clone(),
        args: declared.args.iter().map(|(name, arg)| (name.clone(), (arg.kind.clone(), arg.optional))).collect(),
        place: declared.place,
    }
}

fn signal_rule(contract: &Contract) -> SignalRule {
    SignalRule {
        name: contract.name.clone(),
        kind: contract.kind.clone(),
        influence: contract.influence,
        when_unavailable: contract.when_unavailable,
        self_asserted: contract.is_self_asserted(),
        used_by: contract.used_by.clone(),
        place: contract.place,
    }
}

fn exceptions_of(contract: &Contract) -> Vec<String> {
    let mut all = Vec::new();
    let mut say = |what: String| all.push(format!("signals.yaml:{}: `{}` {what}", contract.place.line, contract.name));
    if contract.when_unavailable == WhenUnavailable::Absent {
        let why = contract.justification.as_deref().unwrap_or_default();
        say(format!("counts as absent when it is missing or stale: {why}"));
    }
    if let Some(corroborate) = &contract.combination.corroborate {
        let with: Vec<String> = corroborate.with.iter().map(|name| format!("`{name}`")).collect();
        say(format!(
            "counts as absent while it is adverse and fewer than {} of it and {} are",
            corroborate.need,
            with.join(", ")
        ));
    }
    for source in &contract.sources {
        if let Flow::Stored { origin, resting: Some(value) } = &source.flow {
            say(format!("is {} for subjects that `{origin}` has said nothing of, while it is live", value.to_json()));
        }
    }
    all
}

fn observed(
    actions: &[ActionRule],
    rules: &[SignalRule],
    engine: &dyn PolicyEngine,
) -> HashMap<ActionId, Vec<SignalIndex>> {
    let of = |action: ActionId| {
        let own = rules
            .iter()
            .enumerate()
            .filter(|(_, rule)| rule.influence == Influence::Observe && rule.used_by.contains(&action))
            .filter_map(|(at, _)| u16::try_from(at).ok().map(SignalIndex));
        let all: BTreeSet<SignalIndex> = own.chain(engine.watched(&action).iter().copied()).collect();
        (action, all.into_iter().collect())
    };
    let built_in = BUILT_IN_ACTIONS.iter().filter_map(|name| ActionId::parse(name));
    actions.iter().map(|action| action.id.clone()).chain(built_in).map(of).collect()
}

fn revision(files: &[(String, Vec<u8>)], settings: &CoreSettings) -> Arc<str> {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(settings.trust_domain.as_bytes());
    part(settings.federates_with.join("\n").as_bytes());
    part(format!("{:?} {:?}", settings.require_record, settings.identity).as_bytes());
    part(format!("{:?} {:?} {:?}", settings.tasks, settings.approvals, settings.overrides).as_bytes());
    if let Some(rego) = &settings.policies.rego {
        part(format!("{rego:?}").as_bytes());
    }
    let mut sorted: Vec<&(String, Vec<u8>)> = files.iter().collect();
    sorted.sort_unstable();
    for (name, content) in sorted {
        part(name.as_bytes());
        part(content);
    }
    hex(&hash.finalize()).into()
}
