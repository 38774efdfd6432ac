//! Cedar: the policies of a directory parsed, checked against the register, sliced and judged.
//! The only place that names `cedar_policy` and `cedar_policy_core`.

mod annotations;
mod built_in;
mod checks;
mod conditions;
mod entities;
mod evaluate;
mod format;
mod links;
mod quick;
mod records;
mod schema;
mod slices;
mod texts;
mod validate;
mod values;
mod walk;

#[cfg(test)]
mod tests;

pub use format::format;
pub use links::is_links;

use super::{
    ActionRule, EntityUnknown, Listed, Makeup, Mode, Observing, PolicyEngine, PolicyInfo, Query, SignalIndex,
    SignalRule, Slice,
};
use crate::{
    findings::Findings,
    model::{ActionId, PrincipalRecord, SpiffeId, Value},
};
use cedar_policy_core::ast::{ActionConstraint, Effect, EntityType, EntityUID, Expr, ExprKind, Literal, SlotEnv};
use slices::{ActionSlice, Filings};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// The files that this engine reads.
#[derive(Clone, Copy, Debug)]
pub struct CedarFiles<'a> {
    /// `entities.cedarschema`.
    pub schema: Option<&'a str>,
    /// `entities.json`.
    pub entities: Option<&'a str>,
    /// Path and text of each `policies/**/*.cedar`.
    pub policies: &'a [(&'a str, &'a str)],
    /// Path and text of each `policies/**/links.yaml`.
    pub links: &'a [(&'a str, &'a str)],
}

/// One policy, ready to be judged.
#[derive(Debug)]
struct Compiled {
    info: Arc<PolicyInfo>,
    /// Its `when` and `unless`. The scope is not evaluated again: slices match it exactly, and
    /// `tests/slices.rs` holds them against unsliced Cedar.
    condition: Option<Arc<Expr>>,
    /// The same where it needs no Cedar.
    quick: Option<quick::Test>,
    /// `principal is T in …` and the like: the type that the slice does not look at.
    principal_type: Option<EntityType>,
    resource_type: Option<EntityType>,
    /// Whether it asks for attributes or parents of the principal, of the resource.
    asks_principal: bool,
    asks_resource: bool,
    reads: Reads,
}

/// Which parts of the context beside signals a policy reads.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "one flag for each part of the context, independent of the others")]
struct Reads {
    /// Any part of the request.
    request: bool,
    method: bool,
    path: bool,
    host: bool,
    all_args: bool,
    args: Vec<String>,
    identity: bool,
    /// Of the identity how it was proven: all but `trust_domain` and `legacy`.
    credential: bool,
    grant: bool,
    chain: bool,
    approval: bool,
}

impl Reads {
    /// The first part that a question without a request does not tell.
    fn untold(&self) -> Option<&'static str> {
        let parts = [
            (self.method, "context.request.method"),
            (self.path, "context.request.path"),
            (self.host, "context.request.host"),
            (self.credential, "how context.identity was proven"),
        ];
        parts.into_iter().find_map(|(is_read, part)| is_read.then_some(part))
    }
}

/// The compiled policies of one directory.
pub struct CedarEngine {
    entities: cedar_policy::Entities,
    records: records::Records,
    compiled: Vec<Compiled>,
    infos: Vec<Arc<PolicyInfo>>,
    scopes: Vec<conditions::Scope>,
    signal_names: Vec<smol_str::SmolStr>,
    slices: HashMap<ActionId, ActionSlice>,
    /// The same for observing policies: kept apart, so that no decision meets one.
    observing: HashMap<ActionId, ActionSlice>,
    action_uids: HashMap<ActionId, EntityUID>,
    /// Entity types of resources by the text that routes give: parsing one costs more than a decision.
    resource_types: HashMap<Arc<str>, EntityType>,
    workload: EntityType,
    no_slots: SlotEnv,
    /// Whether the directory speaks Cedar, be it that no policy is left in its files.
    has_files: bool,
}

impl CedarEngine {
    /// Loads and checks everything; every mistake is a finding. `None` if errors leave nothing to run.
    pub fn load(
        files: CedarFiles<'_>,
        actions: &[ActionRule],
        signals: &[SignalRule],
        findings: &mut Findings,
    ) -> Option<Self> {
        let before = findings.errors();
        let (texts, taken) = texts::parse(files.policies, findings);
        let texts_are_whole = findings.errors() == before;
        let parsed = links::policies(&texts, taken, files.links, findings);
        if !texts_are_whole {
            // The template may stand in a file that can't be read.
            findings.drop_followers("unknown_template", "");
        }
        let kinds: Vec<(Mode, bool)> =
            texts.iter().map(|text| (text.said.mode, checks::names_built_in(&text.template))).collect();
        let schemas = schema::load(files.schema, actions, signals, &kinds, findings);
        let actions: Vec<ActionRule> = actions.iter().cloned().chain(built_in::rules()).collect();
        let known = checks::Vocabulary::new(&actions, signals);
        let checked = checks::check(&texts, &known, findings);
        let mut idle = checks::nobodys(&parsed, findings);
        let schemas = schemas?;
        let listing = entities::load(files.entities, &schemas.enforcing, findings);
        records::warn_of_permits(&parsed, &known, &listing.records, findings);
        validate::validate((&texts, &parsed), &checked, &schemas, &known, &mut idle, findings);
        if findings.has_errors() {
            return None;
        }
        let readings: Vec<walk::Reading> = checked.into_iter().map(|checked| checked.reading).collect();
        let mut engine = Self::assemble(&parsed, &readings, listing, &actions, signals, &known)?;
        engine.has_files = !files.policies.is_empty();
        engine.note_reach(&parsed, &idle, &known);
        Some(engine)
    }

    /// Compiles and files what was checked. `readings`: of the texts. `actions`: of routes, and built in.
    fn assemble(
        parsed: &[texts::Parsed],
        readings: &[walk::Reading],
        listing: entities::Listing,
        actions: &[ActionRule],
        signals: &[SignalRule],
        known: &checks::Vocabulary<'_>,
    ) -> Option<Self> {
        let mut engine = Self {
            entities: listing.entities,
            records: listing.records,
            compiled: Vec::with_capacity(parsed.len()),
            infos: Vec::with_capacity(parsed.len()),
            scopes: Vec::with_capacity(parsed.len()),
            signal_names: signals.iter().map(|s| smol_str::SmolStr::new(s.name.as_str())).collect(),
            slices: HashMap::new(),
            observing: HashMap::new(),
            action_uids: HashMap::new(),
            resource_types: HashMap::new(),
            workload: values::entity_type(values::WORKLOAD)?,
            no_slots: SlotEnv::new(),
            has_files: !parsed.is_empty(),
        };
        let action_type = values::entity_type("Action")?;
        for action in actions {
            engine.action_uids.insert(action.id.clone(), values::entity(&action_type, action.id.as_str()));
            for text in &action.resource_types {
                engine.resource_types.insert(text.clone(), values::entity_type(text)?);
            }
        }
        let anywhere = conditions::Anywhere::of(&known.matched(&ActionConstraint::Any));
        let (mut enforcing, mut observing) = (Filings::default(), Filings::default());
        for policy in parsed {
            let filings = match policy.text.said.mode {
                Mode::Enforce => &mut enforcing,
                Mode::Observe => &mut observing,
            };
            engine.add(policy, readings.get(policy.text.at)?, known, &anywhere, filings);
        }
        let ids = || actions.iter().map(|action| &action.id);
        engine.slices = enforcing.finish(ids(), built_in::is_built_in);
        engine.observing = observing.finish(ids(), built_in::is_built_in);
        Some(engine)
    }

    fn add(
        &mut self,
        parsed: &texts::Parsed,
        reading: &walk::Reading,
        known: &checks::Vocabulary<'_>,
        anywhere: &conditions::Anywhere,
        filings: &mut Filings,
    ) {
        let index = u32::try_from(self.compiled.len()).unwrap_or(u32::MAX);
        let compiled = checks::compile(parsed, reading, known);
        let policy = &parsed.policy;
        let (principal, resource) = (policy.principal_constraint(), policy.resource_constraint());
        let matched = known.matched(policy.action_constraint());
        let is_any = matches!(policy.action_constraint(), ActionConstraint::Any);
        let scope = if is_any { anywhere.scope(policy) } else { conditions::Scope::of(policy, &matched) };
        let entry = slices::Entry {
            index,
            principal: principal.as_inner(),
            resource: resource.as_inner(),
            asks_principal: reading.asks_principal,
            asks_resource: reading.asks_resource,
            mentions: &compiled.info.mentions,
        };
        if is_any {
            filings.file_anywhere(&entry);
        } else {
            filings.file(matched.iter().map(|action| &action.id), &entry);
        }
        self.infos.push(compiled.info.clone());
        self.scopes.push(scope);
        self.compiled.push(compiled);
    }

    /// Which actions can be permitted at all, and of which an approval can be demanded: by a policy that is enforced, can
    /// apply, and fits their types.
    fn note_reach(&mut self, parsed: &[texts::Parsed], idle: &HashSet<Arc<str>>, known: &checks::Vocabulary<'_>) {
        // Of any action: what they come to is asked of each action once, not once for each of them.
        let mut anywhere: HashSet<(Option<String>, bool, bool)> = HashSet::new();
        for policy in parsed.iter().filter(|p| p.text.said.mode == Mode::Enforce && !idle.contains(&p.id)) {
            let permits = policy.policy.effect() == Effect::Permit;
            let gates = policy.text.said.require_approval.is_some();
            let kind = checks::type_of(policy.policy.resource_constraint().as_inner());
            match policy.policy.action_constraint() {
                ActionConstraint::Any => drop(anywhere.insert((kind, permits, gates))),
                named => self.reach(&known.matched(named), kind.as_deref(), permits, gates),
            }
        }
        for (kind, permits, gates) in anywhere {
            self.reach(&known.matched(&ActionConstraint::Any), kind.as_deref(), permits, gates);
        }
    }

    fn reach(&mut self, actions: &[&ActionRule], kind: Option<&str>, permits: bool, gates: bool) {
        for action in actions {
            let fits = kind.is_none_or(|kind| action.resource_types.contains(kind));
            if let Some(slice) = self.slices.get_mut(&action.id).filter(|_| fits) {
                slice.can_permit |= permits;
                slice.has_gates |= gates;
            }
        }
    }

    fn core_entities(&self) -> &cedar_policy_core::entities::Entities {
        self.entities.as_ref()
    }

    fn listed(&self, uid: &EntityUID) -> Option<&cedar_policy_core::ast::Entity> {
        match self.core_entities().entity(uid) {
            cedar_policy_core::entities::Dereference::Data(entity) => Some(entity),
            _ => None,
        }
    }
}

impl PolicyEngine for CedarEngine {
    fn name(&self) -> &'static str {
        "cedar"
    }

    /// A directory without a file of Cedar leaves its actions to others; what is built in is Cedar's alone. The file
    /// counts, not the policy: taking out the last policy, or the last link, must not open what it had closed.
    fn is_asked(&self, action: &ActionId) -> bool {
        self.has_files || built_in::is_built_in(action)
    }

    fn policies(&self) -> &[Arc<PolicyInfo>] {
        &self.infos
    }

    fn record_of(&self, principal: &SpiffeId) -> Option<&PrincipalRecord> {
        self.records.get(principal).map(|(record, _)| record)
    }

    fn records(&self) -> Vec<Listed<'_>> {
        let all = self.records.iter().map(|(principal, (record, place))| Listed { principal, record, place: *place });
        let mut all: Vec<Listed<'_>> = all.collect();
        all.sort_unstable_by_key(|listed| listed.principal.as_str());
        all
    }

    fn slice<'e>(&'e self, query: &Query) -> Result<Box<dyn Slice + 'e>, EntityUnknown> {
        evaluate::CedarSlice::new(self, query).map(|slice| Box::new(slice) as Box<dyn Slice + 'e>)
    }

    fn can_permit(&self, action: &ActionId) -> bool {
        self.slices.get(action).is_some_and(|slice| slice.can_permit)
    }

    fn has_gates(&self, action: &ActionId) -> bool {
        self.slices.get(action).is_some_and(|slice| slice.has_gates)
    }

    fn watched(&self, action: &ActionId) -> &[SignalIndex] {
        self.observing.get(action).map_or(&[], ActionSlice::mentions)
    }

    fn literals(&self, policy: u32) -> Vec<Value> {
        let condition = self.compiled.get(policy as usize).and_then(|compiled| compiled.condition.as_ref());
        let parts = condition.into_iter().flat_map(|condition| condition.subexpressions());
        let literal = |part: &Expr| match part.expr_kind() {
            ExprKind::Lit(Literal::Long(number)) => Some(Value::Long(*number)),
            ExprKind::Lit(Literal::String(text)) => Some(Value::String(text.as_str().into())),
            _ => None,
        };
        parts.filter_map(literal).collect()
    }

    fn makeups(&self) -> Vec<Makeup> {
        self.compiled.iter().zip(&self.scopes).map(|(policy, scope)| conditions::makeup(policy, scope)).collect()
    }

    fn with_conditions(&self, query: &Query, show: &mut dyn FnMut(&dyn Slice)) {
        let observing = evaluate::CedarSlice::observing(self, query).map(|(slice, _)| slice);
        let Some(slice) = observing.or_else(|| evaluate::CedarSlice::new(self, query).ok()) else { return };
        let cut = conditions::cut(slice.whole());
        show(&slice.of(&cut));
    }

    fn slice_observing<'e>(&'e self, query: &Query) -> Option<Observing<'e>> {
        let (slice, unknown) = evaluate::CedarSlice::observing(self, query)?;
        Some(Observing { slice: Box::new(slice), unknown })
    }
}

/// One of Cedar's diagnostics as one sentence: what it says, and its help.
fn sentence(error: &dyn miette::Diagnostic) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    if let Some(help) = error.help() {
        text.push_str("; ");
        text.push_str(&help.to_string());
    }
    text.replace('\n', " ")
}
