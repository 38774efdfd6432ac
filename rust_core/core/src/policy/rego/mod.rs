//! Rego: the policies of a directory parsed, checked against the register, and judged.
//! The only place that names `regorus`.
//!
//! An entry point is one permit: it is asked for each of its actions, and permits where it is true. It is evaluated whole,
//! never partially, so an unavailable signal that it can read denies unless each of its values, and its absence, would allow.

mod builtins;
#[cfg(any(test, feature = "conformance"))]
pub mod cases;
mod checks;
mod evaluate;
mod functions;
mod graph;
mod growth;
mod input;
mod jwt;
mod jwt_keys;
mod meter;
mod nesting;
mod ours;
mod outputs;
mod parse;
mod prepare;
mod result;
mod walk;

#[cfg(test)]
mod tests;

use super::{
    ActionRule, Effect, EngineKind, EntityUnknown, Mode, OutsideRead, PolicyEngine, PolicyInfo, Query, SignalIndex,
    SignalRule, Slice,
    settings::{RegoInput, RegoSettings},
};
use crate::{
    findings::Findings,
    model::{ActionId, PrincipalRecord, SpiffeId, Value, hex},
};
use checks::{Governed, Rules, dotted};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

/// The files that this engine reads.
#[derive(Clone, Copy, Debug)]
pub struct RegoFiles<'a> {
    /// Path and text of each `policies/**/*.rego`.
    pub policies: &'a [(&'a str, &'a str)],
    /// `data.json`.
    pub data: Option<&'a str>,
    /// How it is asked.
    pub settings: &'a RegoSettings,
}

/// The compiled policies.
pub struct RegoEngine {
    /// Shared by the interpreters of all threads, which are copies of this one.
    prepared: regorus::Engine,
    /// What the interpreter is asked for.
    query: String,
    /// Gone once the engine is: threads then let go of their interpreters.
    alive: Arc<()>,
    info: Arc<PolicyInfo>,
    actions: HashSet<ActionId>,
    /// The signals that may be seen, with their names as the interpreter has them.
    mentioned: Vec<(SignalIndex, regorus::Value)>,
    literals: Vec<Value>,
    /// What the entry point reads of `input`, each place once, by file.
    reads: Vec<OutsideRead>,
}

impl RegoEngine {
    fn kind(&self) -> EngineKind {
        self.info.engine
    }

    /// What it reads that a question without a request does not tell, if it reads any such thing.
    pub fn untold(&self) -> Option<String> {
        let is_untold = |read: &&OutsideRead| match read.path.as_slice() {
            [Some(part)] => matches!(&**part, "request" | "identity"),
            [Some(part), Some(name), ..] => match &**part {
                "request" => matches!(&**name, "method" | "path" | "host"),
                "identity" => matches!(&**name, "kind" | "bound" | "age_seconds" | "actor" | "interactive"),
                _ => false,
            },
            [Some(part), None, ..] => matches!(&**part, "request" | "identity"),
            _ => true,
        };
        let name = |read: &OutsideRead| {
            let steps = read.path.iter().map(|step| step.as_deref().unwrap_or("*"));
            std::iter::once("input").chain(steps).collect::<Vec<_>>().join(".")
        };
        self.reads.iter().find(is_untold).map(name)
    }

    /// Loads and checks everything; every mistake is a finding. `None` if errors leave nothing to run.
    pub fn load(
        files: RegoFiles<'_>,
        actions: &[ActionRule],
        signals: &[SignalRule],
        findings: &mut Findings,
    ) -> Option<Self> {
        let before = findings.errors();
        let settings = files.settings;
        let parsed = parse::parse(files.policies, findings);
        let data = prepare::data(files.data, findings);
        let actions = checks::actions(settings.actions.as_deref(), actions, findings);
        let path = Rules::components(&settings.query, findings);
        // What a file that can't be read defines is not there: what follows from it would only mislead.
        if findings.errors() != before {
            return None;
        }
        let readings = walk::read(&parsed);
        let rules = Rules::of(&parsed, &readings);
        rules.sound(&parsed, findings);
        rules.apart(&parsed, &data, findings);
        let path = path?;
        let entry = rules.entry(&path, findings)?;
        let asked: HashSet<ActionId> = actions.iter().map(|action| action.id.clone()).collect();
        let mentions = match settings.input {
            RegoInput::Governed => Governed { actions, signals }.check(&rules, &entry.reached, findings),
            RegoInput::OpaEnvoy => BTreeSet::new(),
        };
        if findings.errors() != before {
            return None;
        }
        let turned = outputs::texts(files.policies, &readings);
        let texts: Vec<(&str, &str)> = turned.iter().map(|(file, text)| (*file, &**text)).collect();
        let (prepared, query) = prepare::engine(&texts, data, &path, entry.is_rule, findings)?;
        let first = readings.get(entry.first)?;
        let kind = match settings.input {
            RegoInput::Governed => EngineKind::Rego,
            RegoInput::OpaEnvoy => EngineKind::OpaEnvoy,
        };
        let info = Arc::new(PolicyInfo {
            engine: kind,
            id: dotted(&path).into(),
            file: Arc::clone(&first.file),
            place: first.place,
            effect: Effect::Permit,
            mode: Mode::Enforce,
            require_approval: None,
            note: None,
            advice: None,
            template: None,
            mentions: mentions.iter().copied().collect(),
            text_sha256: digest(&files),
        });
        let name = |signal: SignalIndex| signals.get(usize::from(signal.0)).map(|rule| rule.name.as_str());
        let mentioned = mentions.iter().filter_map(|signal| Some((*signal, regorus::Value::from(name(*signal)?))));
        let reached = entry.reached.iter().filter_map(|at| readings.get(*at));
        Some(Self {
            prepared,
            query,
            alive: Arc::new(()),
            info,
            actions: asked,
            mentioned: mentioned.collect(),
            literals: reached.clone().flat_map(|rule| rule.literals.iter().cloned()).collect(),
            reads: reads(reached),
        })
    }
}

fn reads<'r>(rules: impl Iterator<Item = &'r walk::Reading>) -> Vec<OutsideRead> {
    let mut all = BTreeSet::new();
    for rule in rules {
        let name: Arc<str> = rule.path.join(".").into();
        for read in &rule.inputs {
            let step = |step: &walk::Step| match step {
                walk::Step::Name(name) => Some(Arc::from(name.as_str())),
                walk::Step::Any => None,
            };
            let path = read.path.iter().map(step).collect();
            all.insert(OutsideRead { file: Arc::clone(&rule.file), place: read.place, rule: Arc::clone(&name), path });
        }
    }
    all.into_iter().collect()
}

/// Hex SHA-256 over every file that the entry point is made of.
fn digest(files: &RegoFiles<'_>) -> String {
    let mut sha = Sha256::new();
    let named = files.policies.iter().copied().chain(files.data.map(|data| ("data.json", data)));
    for (file, text) in named {
        for part in [file, text] {
            sha.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            sha.update(part);
        }
    }
    hex(&sha.finalize())
}

impl PolicyEngine for RegoEngine {
    fn name(&self) -> &'static str {
        self.kind().as_str()
    }

    fn is_asked(&self, action: &ActionId) -> bool {
        self.actions.contains(action)
    }

    fn wants_whole_request(&self) -> bool {
        self.kind() == EngineKind::OpaEnvoy
    }

    fn reads_outside(&self) -> Vec<OutsideRead> {
        if self.wants_whole_request() { self.reads.clone() } else { Vec::new() }
    }

    fn policies(&self) -> &[Arc<PolicyInfo>] {
        std::slice::from_ref(&self.info)
    }

    fn record_of(&self, _: &SpiffeId) -> Option<&PrincipalRecord> {
        None
    }

    fn slice<'e>(&'e self, query: &Query) -> Result<Box<dyn Slice + 'e>, EntityUnknown> {
        Ok(Box::new(evaluate::RegoSlice::new(self, query)))
    }

    fn can_permit(&self, action: &ActionId) -> bool {
        self.is_asked(action)
    }

    fn has_gates(&self, _: &ActionId) -> bool {
        false
    }

    fn literals(&self, _: u32) -> Vec<Value> {
        self.literals.clone()
    }
}
