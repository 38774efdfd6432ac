//! What `check` finds in policies before Cedar's own validator: over the syntax tree, in the words of the register.

use super::{
    Compiled, Reads,
    annotations::Demand,
    built_in, quick,
    texts::{Parsed, Text},
    values, walk,
};
use crate::{
    findings::{Findings, did_you_mean},
    model::{Influence, SpiffeId, Tier, hex},
    policy::{ActionRule, Effect, EngineKind, Mode, PolicyInfo, SignalIndex, SignalRule},
};
use cedar_policy_core::{
    ast::{
        self, ActionConstraint, EntityReference, EntityUIDEntry, Expr, PrincipalOrResourceConstraint, SlotEnv, Unknown,
    },
    entities::Entities,
    evaluator::Evaluator,
    extensions::Extensions,
    parser::Loc,
};
use sha2::{Digest, Sha256};
use smol_str::SmolStr;
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

/// Code of the warning that a policy can apply to no request.
pub(super) const NEVER_MATCHES: &str = "never_matches";

/// The vocabulary of a directory, by name.
pub(super) struct Vocabulary<'a> {
    /// Of routes, and built in.
    actions: HashMap<&'a str, &'a ActionRule>,
    /// Those of routes, by name.
    of_routes: Vec<&'a ActionRule>,
    /// Signals that policies of each of them may read: asked of every policy of any action.
    everywhere: HashSet<&'a str>,
    signals: HashMap<&'a str, (SignalIndex, &'a SignalRule)>,
}

impl<'a> Vocabulary<'a> {
    pub(super) fn new(actions: &'a [ActionRule], signals: &'a [SignalRule]) -> Self {
        let indexed = |(at, rule): (usize, &'a SignalRule)| {
            u16::try_from(at).ok().map(|at| (rule.name.as_str(), (SignalIndex(at), rule)))
        };
        let mut of_routes: Vec<&ActionRule> =
            actions.iter().filter(|action| !built_in::is_built_in(&action.id)).collect();
        of_routes.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        Self {
            actions: actions.iter().map(|action| (action.id.as_str(), action)).collect(),
            everywhere: everywhere(signals, &of_routes),
            of_routes,
            signals: signals.iter().enumerate().filter_map(indexed).collect(),
        }
    }

    fn signal(&self, name: &str) -> Option<&'a SignalRule> {
        self.signals.get(name).map(|(_, rule)| *rule)
    }

    /// The actions that a scope can match, by name, each once. A built-in one only if the scope names it.
    pub(super) fn matched(&self, constraint: &ActionConstraint) -> Cow<'_, [&'a ActionRule]> {
        if matches!(constraint, ActionConstraint::Any) {
            return Cow::Borrowed(&self.of_routes);
        }
        // What names no action of ours was a finding.
        let names = constraint.iter_euids().filter_map(action_name);
        let mut matched: Vec<&ActionRule> = names.filter_map(|name| self.actions.get(name).copied()).collect();
        matched.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        matched.dedup_by(|a, b| a.id == b.id);
        Cow::Owned(matched)
    }
}

fn everywhere<'a>(signals: &'a [SignalRule], of_routes: &[&ActionRule]) -> HashSet<&'a str> {
    if of_routes.iter().any(|action| action.tier == Tier::Coarse) {
        return HashSet::new();
    }
    let by_all = |signal: &&SignalRule| of_routes.iter().all(|action| signal.used_by.contains(&action.id));
    signals.iter().filter(by_all).map(|signal| signal.name.as_str()).collect()
}

/// The name in `Action::"name"`; `None` for an action of a namespace, which no route can have.
fn action_name(uid: &ast::EntityUID) -> Option<&str> {
    let ours = uid.is_action() && uid.entity_type().to_string() == "Action";
    ours.then(|| uid.eid().as_ref())
}

/// What was read of a text, and whether our own checks found nothing wrong with it.
pub(super) struct Checked {
    pub(super) reading: walk::Reading,
    pub(super) clean: bool,
    /// Its scope names a built-in action.
    pub(super) built_in: bool,
}

/// Our own checks (DESIGN section 5), text by text, in order: what a link makes of a template is no other text.
pub(super) fn check(texts: &[Arc<Text>], known: &Vocabulary<'_>, findings: &mut Findings) -> Vec<Checked> {
    let checked = |text: &Arc<Text>| {
        let before = findings.errors();
        let reading = walk::read(&text.template);
        for misuse in &reading.misuses {
            findings.error(&text.file, text.lines.place(misuse.offset), misuse.code, misuse.message.as_str());
        }
        known_actions(text, known, findings);
        governed(text, &reading, known, findings);
        needs_no_word(text, &reading, known, findings);
        gate(text, known, findings);
        Checked { reading, clean: findings.errors() == before, built_in: names_built_in(&text.template) }
    };
    texts.iter().map(checked).collect()
}

/// The ids of policies whose scope names a principal that can't be.
pub(super) fn nobodys(parsed: &[Parsed], findings: &mut Findings) -> HashSet<Arc<str>> {
    parsed.iter().filter(|policy| names_nobody(policy, findings)).map(|policy| Arc::clone(&policy.id)).collect()
}

fn known_actions(text: &Text, known: &Vocabulary<'_>, findings: &mut Findings) {
    for uid in text.template.action_constraint().iter_euids() {
        let name: &str = uid.eid().as_ref();
        let at = uid.loc().map_or(text.place, |loc| text.lines.place(loc.start()));
        if action_name(uid).is_none_or(|name| !known.actions.contains_key(name)) {
            let meant = did_you_mean(name, known.actions.keys().copied());
            findings.error(&text.file, at, "unknown_action", format!("no route has the action `{name}`{meant}"));
        }
    }
}

/// Whether a policy's scope names a built-in action, so that it is checked against their schema.
pub(super) fn names_built_in(policy: &ast::Template) -> bool {
    policy.action_constraint().iter_euids().filter_map(action_name).any(built_in::is_name)
}

/// A demand for an approval is for calls: those of coarse actions are decided without anything that lives, and a
/// built-in action is no call that could be made again once somebody has said yes.
fn gate(text: &Text, known: &Vocabulary<'_>, findings: &mut Findings) {
    let Some(Demand { place, .. }) = &text.said.require_approval else { return };
    for action in known.matched(text.template.action_constraint()).iter() {
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
        findings.error(&text.file, *place, "bad_gate", message);
    }
}

/// Principals are SPIFFE IDs: a scope that names one which is none names nobody.
fn names_nobody(policy: &Parsed, findings: &mut Findings) -> bool {
    let constraint = policy.policy.principal_constraint();
    let PrincipalOrResourceConstraint::Eq(EntityReference::EUID(uid)) = constraint.as_inner() else { return false };
    let id: &str = uid.eid().as_ref();
    if uid.entity_type().to_string() == values::WORKLOAD
        && let Err(why) = SpiffeId::parse(id)
    {
        let written = uid.loc().filter(|_| !policy.is_link);
        let at = written.map_or(policy.place, |loc| policy.text.lines.place(loc.start()));
        let message = format!("this policy can never apply: `{id}` is no SPIFFE ID ({why}), so it is no principal");
        findings.warning(&policy.file, at, NEVER_MATCHES, message);
        return true;
    }
    false
}

/// INVARIANT I1: every signal that a policy names is registered, and its contract lists every action
/// that the policy can match.
fn governed(text: &Text, reading: &walk::Reading, known: &Vocabulary<'_>, findings: &mut Findings) {
    if reading.mentions.is_empty() {
        return;
    }
    let matched = known.matched(text.template.action_constraint());
    let mut told: Vec<(&str, &str)> = Vec::new();
    for mention in &reading.mentions {
        let at = text.lines.place(mention.offset);
        let Some(rule) = known.signal(&mention.name) else {
            if !told.contains(&(&mention.name, "")) {
                told.push((&mention.name, ""));
                let meant = did_you_mean(&mention.name, known.signals.keys().copied());
                let message = format!("the signal `{}` is not registered in signals.yaml{meant}", mention.name);
                findings.error(&text.file, at, "unregistered_signal", message);
            }
            continue;
        };
        let contract = format!("its contract is at signals.yaml:{}", rule.place.line);
        if rule.influence == Influence::Observe
            && text.said.mode == Mode::Enforce
            && !told.contains(&(&mention.name, ""))
        {
            told.push((&mention.name, ""));
            let message = format!(
                "the signal `{}` may only be observed, so only a policy with `@mode(\"observe\")` reads it: {contract}",
                mention.name
            );
            findings.error(&text.file, at, "observed_signal", message);
            continue;
        }
        let is_any = matches!(text.template.action_constraint(), ActionConstraint::Any);
        if is_any && known.everywhere.contains(mention.name.as_str()) {
            continue;
        }
        for action in matched.iter() {
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
            findings.error(&text.file, at, "ungoverned_read", problem);
        }
    }
}

/// A permit that is false once words that may only restrict are taken away, whatever the rest is, can only be opened
/// by such a word: refused at load, as I3 would refuse it at each request. Absence is among the worlds of each of
/// them: in the recheck where it is fresh, in the first evaluation where it is not.
fn needs_no_word(text: &Text, reading: &walk::Reading, known: &Vocabulary<'_>, findings: &mut Findings) {
    let is_word = |rule: &SignalRule| rule.self_asserted || rule.influence == Influence::Restrict;
    let rule = |name: &str| known.signal(name);
    let word = reading.mentions.iter().find_map(|m| rule(&m.name).filter(|s| is_word(s)).map(|s| (m, s)));
    let (Some((word, contract)), ast::Effect::Permit, Some(condition)) =
        (word, text.template.effect(), text.template.non_scope_constraints())
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
    let outcome = evaluator.partial_interpret(condition, &SlotEnv::new());
    if let Ok(ast::PartialValue::Value(value)) = outcome
        && value == ast::Value::from(false)
    {
        let why = if contract.self_asserted { ", which callers assert of themselves" } else { "" };
        let message = format!(
            "this permit can only apply where `{}` is present{why}: such a signal may only restrict; its contract is at \
             signals.yaml:{}",
            word.name, contract.place.line
        );
        findings.error(&text.file, text.lines.place(word.offset), "permit_needs_word", message);
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
    let said = &parsed.text.said;
    Compiled {
        info: Arc::new(PolicyInfo {
            engine: EngineKind::Cedar,
            id: Arc::clone(&parsed.id),
            template: parsed.is_link.then(|| Arc::clone(&parsed.text.id)),
            file: Arc::clone(&parsed.file),
            place: parsed.place,
            effect: if parsed.policy.effect() == ast::Effect::Permit { Effect::Permit } else { Effect::Forbid },
            mode: said.mode,
            require_approval: said.require_approval.as_ref().map(|demand| Arc::clone(&demand.words)),
            note: said.reason.clone(),
            advice: said.advice.clone(),
            mentions,
            text_sha256: digest(parsed),
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

/// Hex SHA-256 over the text, and over what a link puts into its slots.
fn digest(parsed: &Parsed) -> String {
    let mut hash = Sha256::new();
    hash.update(parsed.policy.loc().and_then(Loc::snippet).unwrap_or_default());
    for slot in [ast::SlotId::principal(), ast::SlotId::resource()] {
        if let Some(bound) = parsed.policy.env().get(&slot) {
            hash.update(format!("\n{slot} == {bound}"));
        }
    }
    hex(&hash.finalize())
}
