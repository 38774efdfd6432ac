//! What `check` finds in policies: ours over the syntax tree first, then Cedar's strict validator.

use super::{
    Compiled, Reads,
    annotations::{self, Demand, Said},
    built_in, quick,
    schema::{Schemas, label},
    sentence, values, walk,
};
use crate::{
    findings::{Findings, Place, did_you_mean},
    limits,
    model::{Influence, SpiffeId, Tier, hex},
    policy::{ActionRule, Effect, EngineKind, Mode, PolicyInfo, SignalIndex, SignalRule},
};
use cedar_policy::{PolicySet, Schema, ValidationMode, ValidationWarning, Validator};
use cedar_policy_core::{
    ast::{
        self, ActionConstraint, EntityReference, EntityUIDEntry, Expr, PolicyID, PrincipalOrResourceConstraint, Unknown,
    },
    entities::Entities,
    evaluator::Evaluator,
    extensions::Extensions,
    parser::{Loc, parse_policyset},
};
use sha2::{Digest, Sha256};
use smol_str::SmolStr;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

/// Code of the warning that a policy can apply to no request.
const NEVER_MATCHES: &str = "never_matches";

/// One policy as parsed.
pub(super) struct Parsed {
    pub(super) policy: ast::Policy,
    pub(super) id: Arc<str>,
    pub(super) mode: Mode,
    pub(super) require_approval: Option<Demand>,
    pub(super) file: Arc<str>,
    pub(super) lines: Arc<values::Lines>,
    pub(super) place: Place,
}

/// Parses every file; syntax mistakes become findings, policies of other files are still read.
pub(super) fn parse(files: &[(&str, &str)], findings: &mut Findings) -> Vec<Parsed> {
    let mut all: Vec<Parsed> = Vec::new();
    let mut ids: HashMap<Arc<str>, (Arc<str>, Place)> = HashMap::new();
    for (file, text) in files {
        if text.len() > limits::MAX_FILE_BYTES {
            findings.error(
                file,
                Place::default(),
                "too_large",
                format!("larger than {} bytes", limits::MAX_FILE_BYTES),
            );
            continue;
        }
        let lines = Arc::new(values::Lines::of(text));
        let set = match parse_policyset(text) {
            Ok(set) => set,
            Err(errors) => {
                for error in errors.iter() {
                    findings.error(file, label(&lines, error), "syntax", sentence(error));
                }
                continue;
            }
        };
        for template in set.templates() {
            let at = template.loc().map_or_else(Place::default, |loc| lines.place(loc.start()));
            findings.error(file, at, "template", "policy templates are not supported: write the policy out");
        }
        let mut policies: Vec<&ast::Policy> = set.static_policies().collect();
        policies.sort_by_key(|policy| policy.loc().map_or(0, Loc::start));
        for policy in policies {
            let place = policy.loc().map_or_else(Place::default, |loc| lines.place(loc.start()));
            let id: Arc<str> = policy
                .annotations()
                .find(|(key, value)| key.as_ref() == "id" && !value.as_ref().is_empty())
                .map_or_else(|| format!("{file}:{}", place.line).into(), |(_, value)| Arc::from(value.as_ref()));
            let said = annotations::read(policy, file, &lines, place, findings);
            if let Some((other, at)) = ids.get(&id) {
                findings.error(
                    file,
                    place,
                    "duplicate_id",
                    format!("the policy id `{id}` is taken already, at {other}:{}", at.line),
                );
                continue;
            }
            let file: Arc<str> = Arc::from(*file);
            ids.insert(id.clone(), (file.clone(), place));
            // Cedar's own id is not shown to anybody; ours is, so both are the same.
            let policy = policy.new_id(PolicyID::from_string(&*id));
            let Said { mode, require_approval } = said;
            all.push(Parsed { policy, id, mode, require_approval, file, lines: Arc::clone(&lines), place });
        }
    }
    all
}

/// The vocabulary of a directory, by name.
pub(super) struct Vocabulary<'a> {
    /// Of routes, and built in.
    actions: HashMap<&'a str, &'a ActionRule>,
    signals: HashMap<&'a str, (SignalIndex, &'a SignalRule)>,
}

impl<'a> Vocabulary<'a> {
    pub(super) fn new(actions: &'a [ActionRule], signals: &'a [SignalRule]) -> Self {
        let indexed = |(at, rule): (usize, &'a SignalRule)| {
            u16::try_from(at).ok().map(|at| (rule.name.as_str(), (SignalIndex(at), rule)))
        };
        Self {
            actions: actions.iter().map(|action| (action.id.as_str(), action)).collect(),
            signals: signals.iter().enumerate().filter_map(indexed).collect(),
        }
    }

    fn signal(&self, name: &str) -> Option<&'a SignalRule> {
        self.signals.get(name).map(|(_, rule)| *rule)
    }

    /// The actions that a policy's scope can match. A built-in one only if the scope names it.
    pub(super) fn matched(&self, policy: &ast::Policy) -> Vec<&'a ActionRule> {
        match policy.action_constraint() {
            ActionConstraint::Any => {
                self.actions.values().copied().filter(|action| !built_in::is_built_in(&action.id)).collect()
            }
            // What names no action of ours was a finding.
            constraint => constraint
                .iter_euids()
                .filter_map(action_name)
                .filter_map(|name| self.actions.get(name).copied())
                .collect(),
        }
    }
}

/// The name in `Action::"name"`; `None` for an action of a namespace, which no route can have.
fn action_name(uid: &ast::EntityUID) -> Option<&str> {
    let ours = uid.is_action() && uid.entity_type().to_string() == "Action";
    ours.then(|| uid.eid().as_ref())
}

/// A policy's reading, and whether our own checks found nothing wrong with it.
pub(super) struct Checked {
    pub(super) reading: walk::Reading,
    /// Its scope names a principal that can't be.
    nobody: bool,
    clean: bool,
    /// Its scope names a built-in action.
    built_in: bool,
}

/// Our own checks (DESIGN section 5), policy by policy, in order.
pub(super) fn check(parsed: &[Parsed], known: &Vocabulary<'_>, findings: &mut Findings) -> Vec<Checked> {
    parsed
        .iter()
        .map(|parsed| {
            let before = findings.errors();
            let reading = walk::read(&parsed.policy);
            for misuse in &reading.misuses {
                findings.error(&parsed.file, parsed.lines.place(misuse.offset), misuse.code, misuse.message.as_str());
            }
            known_actions(parsed, known, findings);
            governed(parsed, &reading, known, findings);
            needs_no_word(parsed, &reading, known, findings);
            gate(parsed, known, findings);
            let nobody = names_nobody(parsed, findings);
            let built_in = names_built_in(&parsed.policy);
            Checked { reading, nobody, clean: findings.errors() == before, built_in }
        })
        .collect()
}

fn known_actions(parsed: &Parsed, known: &Vocabulary<'_>, findings: &mut Findings) {
    for uid in parsed.policy.action_constraint().iter_euids() {
        let name: &str = uid.eid().as_ref();
        let at = uid.loc().map_or(parsed.place, |loc| parsed.lines.place(loc.start()));
        if action_name(uid).is_none_or(|name| !known.actions.contains_key(name)) {
            let meant = did_you_mean(name, known.actions.keys().copied());
            findings.error(&parsed.file, at, "unknown_action", format!("no route has the action `{name}`{meant}"));
        }
    }
}

/// Whether a policy's scope names a built-in action, so that it is checked against their schema.
pub(super) fn names_built_in(policy: &ast::Policy) -> bool {
    policy.action_constraint().iter_euids().filter_map(action_name).any(built_in::is_name)
}

/// A demand for an approval is for calls: those of coarse actions are decided without anything that lives, and a
/// built-in action is no call that could be made again once somebody has said yes.
fn gate(parsed: &Parsed, known: &Vocabulary<'_>, findings: &mut Findings) {
    let Some(Demand { place, .. }) = &parsed.require_approval else { return };
    let mut matched = known.matched(&parsed.policy);
    matched.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    for action in matched {
        let message = if built_in::is_built_in(&action.id) {
            format!(
                "the annotation `@require_approval`: the built-in action `{}` can't wait for an approval, leave the \
                 annotation out",
                action.id
            )
        } else if action.tier == Tier::Coarse {
            format!(
                "the annotation `@require_approval`: this policy can match the action `{}` of tier coarse: name other \
                 actions in its scope, or give the action another tier",
                action.id
            )
        } else {
            continue;
        };
        findings.error(&parsed.file, *place, "bad_gate", message);
    }
}

/// Principals are SPIFFE IDs: a scope that names one which is none names nobody.
fn names_nobody(parsed: &Parsed, findings: &mut Findings) -> bool {
    let constraint = parsed.policy.principal_constraint();
    let PrincipalOrResourceConstraint::Eq(EntityReference::EUID(uid)) = constraint.as_inner() else { return false };
    let id: &str = uid.eid().as_ref();
    if uid.entity_type().to_string() == values::WORKLOAD
        && let Err(why) = SpiffeId::parse(id)
    {
        let at = uid.loc().map_or(parsed.place, |loc| parsed.lines.place(loc.start()));
        let message = format!("this policy can never apply: `{id}` is no SPIFFE ID ({why}), so it is no principal");
        findings.warning(&parsed.file, at, NEVER_MATCHES, message);
        return true;
    }
    false
}

/// INVARIANT I1: every signal that a policy names is registered, and its contract lists every action
/// that the policy can match.
fn governed(parsed: &Parsed, reading: &walk::Reading, known: &Vocabulary<'_>, findings: &mut Findings) {
    let mut matched = known.matched(&parsed.policy);
    matched.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    let mut told: Vec<(&str, &str)> = Vec::new();
    for mention in &reading.mentions {
        let at = parsed.lines.place(mention.offset);
        let Some(rule) = known.signal(&mention.name) else {
            if !told.contains(&(&mention.name, "")) {
                told.push((&mention.name, ""));
                let meant = did_you_mean(&mention.name, known.signals.keys().copied());
                let text = format!("the signal `{}` is not registered in signals.yaml{meant}", mention.name);
                findings.error(&parsed.file, at, "unregistered_signal", text);
            }
            continue;
        };
        let contract = format!("its contract is at signals.yaml:{}", rule.place.line);
        if rule.influence == Influence::Observe && parsed.mode == Mode::Enforce && !told.contains(&(&mention.name, ""))
        {
            told.push((&mention.name, ""));
            let text = format!(
                "the signal `{}` may only be observed, so only a policy with `@mode(\"observe\")` reads it: {contract}",
                mention.name
            );
            findings.error(&parsed.file, at, "observed_signal", text);
            continue;
        }
        for action in &matched {
            if told.contains(&(&mention.name, action.id.as_str())) {
                continue;
            }
            let problem = if action.tier == Tier::Coarse {
                format!(
                    "this policy can match the action `{}` of tier coarse and reads the signal `{}`: name other actions \
                     in its scope, or give the action another tier",
                    action.id, mention.name
                )
            } else if rule.used_by.contains(&action.id) {
                continue;
            } else {
                format!(
                    "this policy can match the action `{}`, which `used_by` of the signal `{}` does not list; {contract}",
                    action.id, mention.name
                )
            };
            told.push((&mention.name, action.id.as_str()));
            findings.error(&parsed.file, at, "ungoverned_read", problem);
        }
    }
}

/// A permit that is false once words that may only restrict are taken away, whatever the rest is, can only be opened
/// by such a word: refused at load, as I3 would refuse it at each request. Absence is among the worlds of each of
/// them: in the recheck where it is fresh, in the first evaluation where it is not.
fn needs_no_word(parsed: &Parsed, reading: &walk::Reading, known: &Vocabulary<'_>, findings: &mut Findings) {
    let is_word = |rule: &SignalRule| rule.self_asserted || rule.influence == Influence::Restrict;
    let rule = |name: &str| known.signal(name);
    let word = reading.mentions.iter().find_map(|m| rule(&m.name).filter(|s| is_word(s)).map(|s| (m, s)));
    let (Some((word, contract)), ast::Effect::Permit, Some(condition)) =
        (word, parsed.policy.effect(), parsed.policy.non_scope_constraints())
    else {
        return;
    };
    let unknown = |name: &str| Expr::unknown(Unknown::new_untyped(name));
    let others: BTreeMap<SmolStr, Expr> = reading
        .mentions
        .iter()
        .filter(|m| rule(&m.name).is_some_and(|s| !is_word(s)))
        .map(|m| (SmolStr::new(&m.name), unknown(&m.name)))
        .collect();
    let context = ["request", "identity", "grant", "chain", "approval"]
        .into_iter()
        .map(|name| (SmolStr::new(name), unknown(name)))
        .chain(std::iter::once((SmolStr::new("signals"), Expr::record_arc(Arc::new(others)))))
        .collect();
    let request = ast::Request::new_unchecked(
        EntityUIDEntry::unknown(),
        EntityUIDEntry::unknown(),
        EntityUIDEntry::unknown(),
        Some(ast::Context::RestrictedResidual(Arc::new(context))),
    );
    let entities = Entities::new().partial();
    let evaluator = Evaluator::new(request, &entities, Extensions::all_available());
    let outcome = evaluator.partial_interpret(condition, parsed.policy.env());
    if let Ok(ast::PartialValue::Value(value)) = outcome
        && value == ast::Value::from(false)
    {
        let why = if contract.self_asserted { ", which callers assert of themselves" } else { "" };
        let message = format!(
            "this permit can only apply where `{}` is present{why}: such a signal may only restrict; its contract is at \
             signals.yaml:{}",
            word.name, contract.place.line
        );
        findings.error(&parsed.file, parsed.lines.place(word.offset), "permit_needs_word", message);
    }
}

/// Cedar's strict validator over all policies that passed our own checks: what we have said already in the
/// words of the register, it need not say again in its own.
/// The ids of the policies that can never apply.
pub(super) fn validate(
    parsed: &[Parsed],
    checked: &[Checked],
    schemas: &Schemas,
    findings: &mut Findings,
) -> HashSet<Arc<str>> {
    let nobodys = parsed.iter().zip(checked).filter(|(_, checked)| checked.nobody);
    let mut idle: HashSet<Arc<str>> = nobodys.map(|(policy, _)| policy.id.clone()).collect();
    for (mode, built_in, schema) in schemas.all() {
        let clean = parsed.iter().zip(checked).filter(|(_, checked)| checked.clean && checked.built_in == built_in);
        let clean = clean.map(|(policy, _)| policy).filter(|policy| policy.mode == mode);
        validate_against(schema, clean, &mut idle, findings);
    }
    idle
}

fn validate_against<'a>(
    schema: &Schema,
    policies: impl Iterator<Item = &'a Parsed>,
    idle: &mut HashSet<Arc<str>>,
    findings: &mut Findings,
) {
    let mut set = ast::PolicySet::new();
    let mut by_id: HashMap<&str, &Parsed> = HashMap::new();
    for policy in policies {
        // Ids were made unique by `parse`.
        let _ = set.add(policy.policy.clone());
        by_id.insert(&policy.id, policy);
    }
    let result = Validator::new(schema.clone()).validate(&PolicySet::from(set), ValidationMode::Strict);
    for error in result.validation_errors() {
        if let Some(parsed) = by_id.get(error.policy_id().as_ref() as &str) {
            let at = Some(label(&parsed.lines, error)).filter(|place| place.line > 0).unwrap_or(parsed.place);
            findings.error(&parsed.file, at, "cedar", plain(&sentence(error)));
        }
    }
    // Scope first: of a policy that nothing can match Cedar says, too, that its condition is never true.
    let (scope, others): (Vec<_>, Vec<_>) = result
        .validation_warnings()
        .partition(|warning| matches!(warning, ValidationWarning::InvalidActionApplication(_)));
    for warning in scope.into_iter().chain(others) {
        let Some(parsed) = by_id.get(warning.policy_id().as_ref() as &str) else { continue };
        let idles = match warning {
            ValidationWarning::InvalidActionApplication(_) => Some(
                "no action of its scope has a principal and a resource of the types that it asks for; principals are \
                 of type `Workload`",
            ),
            ValidationWarning::ImpossiblePolicy(_) => Some("its condition is false for every action that it matches"),
            _ => None,
        };
        let at = Some(label(&parsed.lines, warning)).filter(|place| place.line > 0).unwrap_or(parsed.place);
        match idles {
            Some(why) if idle.insert(parsed.id.clone()) => {
                findings.warning(&parsed.file, at, NEVER_MATCHES, format!("this policy can never apply: {why}"));
            }
            Some(_) => {}
            None => findings.warning(&parsed.file, at, "cedar", plain(&sentence(warning))),
        }
    }
}

/// The entity type that a scope asks for, where it names one.
pub(super) fn type_of(constraint: &PrincipalOrResourceConstraint) -> Option<String> {
    match constraint {
        PrincipalOrResourceConstraint::Eq(EntityReference::EUID(uid)) => Some(uid.entity_type().to_string()),
        PrincipalOrResourceConstraint::Is(kind) | PrincipalOrResourceConstraint::IsIn(kind, _) => {
            Some(kind.to_string())
        }
        _ => None,
    }
}

/// Cedar opens with ``for policy `id`, ``; file and line say it already.
fn plain(sentence: &str) -> String {
    match sentence.strip_prefix("for policy `").and_then(|rest| rest.split_once("`, ")) {
        Some((_, rest)) => rest.to_owned(),
        None => sentence.to_owned(),
    }
}

/// What is known of a workload that another vouches for.
const TOLD_OF_IDENTITY: [&str; 2] = ["trust_domain", "legacy"];

/// A checked policy, ready to be judged.
pub(super) fn compile(parsed: &Parsed, reading: &walk::Reading, known: &Vocabulary<'_>) -> Compiled {
    let mut mentions: Vec<SignalIndex> =
        reading.mentions.iter().filter_map(|m| known.signals.get(m.name.as_str()).map(|(at, _)| *at)).collect();
    mentions.sort_unstable();
    mentions.dedup();
    let whole = reading.request_fields.iter().any(|f| f == "*");
    let field = |name: &str| whole || reading.request_fields.iter().any(|f| f == name);
    let context = |name: &str| reading.context_names.iter().any(|n| n == name);
    let reads = Reads {
        request: !reading.request_fields.is_empty() || !reading.args.is_empty(),
        method: field("method"),
        path: field("path"),
        host: field("host"),
        all_args: whole || reading.args.iter().any(|a| a == "*"),
        args: reading.args.clone(),
        identity: context("identity"),
        credential: reading.identity_fields.iter().any(|field| !TOLD_OF_IDENTITY.contains(&field.as_str())),
        grant: context("grant"),
        chain: context("chain"),
        approval: context("approval"),
    };
    let is_in = |constraint: &PrincipalOrResourceConstraint| match constraint {
        PrincipalOrResourceConstraint::IsIn(kind, _) => Some(kind.as_ref().clone()),
        _ => None,
    };
    let signal = |name: &str| known.signals.get(name).map(|(at, _)| *at);
    Compiled {
        info: Arc::new(PolicyInfo {
            engine: EngineKind::Cedar,
            id: parsed.id.clone(),
            file: parsed.file.clone(),
            place: parsed.place,
            effect: if parsed.policy.effect() == ast::Effect::Permit { Effect::Permit } else { Effect::Forbid },
            mode: parsed.mode,
            require_approval: parsed.require_approval.as_ref().map(|demand| Arc::clone(&demand.words)),
            note: None,
            advice: None,
            mentions,
            text_sha256: hex(&Sha256::digest(parsed.policy.loc().and_then(Loc::snippet).unwrap_or_default())),
        }),
        condition: parsed.policy.non_scope_constraints_arc().cloned(),
        quick: parsed.policy.non_scope_constraints().and_then(|condition| quick::Test::of(condition, &signal)),
        principal_type: is_in(parsed.policy.principal_constraint().as_inner()),
        resource_type: is_in(parsed.policy.resource_constraint().as_inner()),
        asks_principal: reading.asks_principal,
        asks_resource: reading.asks_resource,
        reads,
    }
}
