//! Cedar's strict validator, each policy held against the actions that its scope can match. Cedar's own way holds each one
//! against every action of the schema: with a hundred thousand policies of thousands of actions that takes hours. What an
//! action outside the scope could add is nothing: its requests are false before the condition is looked at, and the
//! principal, which comes first in a scope, is of one type everywhere.

use super::{
    checks::{Checked, NEVER_MATCHES, Vocabulary},
    schema::{self, Schemas, label},
    sentence,
    texts::{Parsed, Text},
};
use crate::findings::{Findings, Place, did_you_mean};
use cedar_policy_core::{
    ast::{
        ActionConstraint, EntityReference, EntityType, EntityUID, Expr, ExprKind, PrincipalOrResourceConstraint,
        SlotId, Var,
    },
    validator::{
        ValidationError, ValidationMode, Validator, ValidatorSchema, confusable_string_checks,
        typecheck::{PolicyCheck, Typechecker},
        types::{RequestEnv, Type},
        validation_errors::IncompleteSchema,
    },
};
use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// Why a policy is idle.
const NO_ACTION: &str = "no action of its scope has a principal and a resource of the types that it asks for; principals are of type `Workload`";
const ALWAYS_FALSE: &str = "its condition is false for every action that it matches";

/// Validates every text that passed our own checks, and every link of such a template: what we have said already in the
/// words of the register, Cedar need not say again in its own. Adds the ids of the policies that can never apply.
pub(super) fn validate(
    (texts, parsed): (&[Arc<Text>], &[Parsed]),
    checked: &[Checked],
    schemas: &Schemas,
    known: &Vocabulary<'_>,
    idle: &mut HashSet<Arc<str>>,
    findings: &mut Findings,
) {
    let mut links: HashMap<usize, Vec<&Parsed>> = HashMap::new();
    for link in parsed.iter().filter(|policy| policy.is_link) {
        links.entry(link.text.at).or_default().push(link);
    }
    for (mode, built_in, schema) in schemas.all() {
        let held = Held::against(schema.as_ref(), known);
        let counts = |(text, checked): &(&Arc<Text>, &Checked)| {
            checked.clean && checked.built_in == built_in && text.said.mode == mode
        };
        let clean: Vec<&Text> = texts.iter().zip(checked).filter(counts).map(|(text, _)| &**text).collect();
        if let Err(why) = schema.as_ref().check_complete() {
            for text in clean {
                let (source_loc, policy_id) = (text.template.loc().cloned(), text.template.id().clone());
                say(text, &IncompleteSchema { source_loc, policy_id, err: why.clone() }.into(), findings);
            }
            continue;
        }
        for text in &clean {
            let matched = held.matched(text);
            let applies = held.validate(text, &matched, idle, findings);
            for link in links.get(&text.at).into_iter().flatten() {
                held.validate_link(link, applies, &matched, idle, findings);
            }
        }
        for text in clean {
            for warning in confusable_string_checks(std::iter::once(&*text.template)) {
                let at = Some(label(&text.lines, &warning)).filter(|place| place.line > 0).unwrap_or(text.place);
                findings.warning(&text.file, at, "cedar", plain(&sentence(&warning)));
            }
        }
    }
}

/// The requests that there can be of one action, by number.
#[derive(Default)]
struct Requests {
    each: Vec<usize>,
    /// Number of the form: actions of one form differ in name alone.
    form: usize,
}

/// The requests of the actions that a scope can match.
#[derive(Clone, Default)]
struct Matched {
    all: Vec<usize>,
    /// Those that are not alike to one before.
    distinct: Vec<usize>,
    /// Whether there is an action at all.
    has_actions: bool,
}

/// A schema, ready to be held against.
struct Held<'s> {
    schema: &'s ValidatorSchema,
    known: &'s Vocabulary<'s>,
    typechecker: Typechecker<'s>,
    requests: Vec<RequestEnv<'s>>,
    by_action: HashMap<&'s str, Requests>,
    /// What a policy of any action matches: worked out once, for there may be as many of both.
    anywhere: Matched,
}

impl<'s> Held<'s> {
    fn against(schema: &'s ValidatorSchema, known: &'s Vocabulary<'s>) -> Self {
        let requests: Vec<RequestEnv<'s>> = schema.unlinked_request_envs(ValidationMode::Strict).collect();
        let mut by_action: HashMap<&'s str, Requests> = HashMap::new();
        for (at, request) in requests.iter().enumerate() {
            if let RequestEnv::DeclaredAction { action, .. } = request {
                by_action.entry(action.eid().as_ref()).or_default().each.push(at);
            }
        }
        let mut forms: HashMap<Vec<(&EntityType, &EntityType, &Type)>, usize> = HashMap::new();
        for of_action in by_action.values_mut() {
            let mut form: Vec<_> = of_action.each.iter().filter_map(|at| types_of(requests.get(*at)?)).collect();
            form.sort_unstable();
            let next = forms.len();
            of_action.form = *forms.entry(form).or_insert(next);
        }
        let typechecker = Typechecker::new(schema, ValidationMode::Strict);
        let mut held = Self { schema, known, typechecker, requests, by_action, anywhere: Matched::default() };
        held.anywhere = held.matched_by(&ActionConstraint::Any);
        held
    }

    /// A text that stands in a policy file, as a template with every type that its slots could have. Whether it can apply.
    fn validate(&self, text: &Text, matched: &Matched, idle: &mut HashSet<Arc<str>>, findings: &mut Findings) -> bool {
        let template = &text.template;
        let mut errors: HashSet<ValidationError> =
            Validator::validate_entity_types_and_literals(self.schema, template).collect();
        let (mut found, mut is_false) = self.typecheck(text, &matched.distinct);
        if !found.is_empty() && matched.distinct.len() < matched.all.len() {
            // What is wrong is said for each action by its name.
            (found, is_false) = self.typecheck(text, &matched.all);
        }
        errors.extend(found);
        let mut errors: Vec<ValidationError> = errors.into_iter().collect();
        errors.sort_by_cached_key(|error| (label(&text.lines, error), error.to_string()));
        for error in &errors {
            say(text, error, findings);
        }
        let (principal, resource) = (template.principal_constraint(), template.resource_constraint());
        // Scope first: of a policy that nothing can match it is true, too, that its condition is false.
        let why = if !self.applies(principal.as_inner(), resource.as_inner(), matched) {
            NO_ACTION
        } else if is_false {
            ALWAYS_FALSE
        } else {
            return true;
        };
        if idle.insert(Arc::clone(&text.id)) {
            let message = format!("this policy can never apply: {why}");
            findings.warning(&text.file, text.place, NEVER_MATCHES, message);
        }
        false
    }

    /// What a link puts into the slots of its template: a type that there is, and that some action has.
    fn validate_link(
        &self,
        link: &Parsed,
        template_applies: bool,
        matched: &Matched,
        idle: &mut HashSet<Arc<str>>,
        findings: &mut Findings,
    ) {
        let mut is_known = true;
        for (name, slot) in [("principal", SlotId::principal()), ("resource", SlotId::resource())] {
            let Some(kind) = link.policy.env().get(&slot).map(EntityUID::entity_type) else { continue };
            if self.schema.get_entity_type(kind).is_none() {
                is_known = false;
                let types: Vec<String> = self.schema.entity_type_names().map(ToString::to_string).collect();
                let hint = did_you_mean(&kind.to_string(), types.iter().map(String::as_str));
                let message = format!("`{name}`: the entity type `{kind}` is not declared in {}{hint}", schema::FILE);
                findings.error(&link.file, link.place, "unknown_type", message);
            }
        }
        if !is_known {
            return;
        }
        if !template_applies {
            // Said of its template.
            idle.insert(Arc::clone(&link.id));
            return;
        }
        let (principal, resource) = (link.policy.principal_constraint(), link.policy.resource_constraint());
        let applies = self.applies(principal.as_inner(), resource.as_inner(), matched);
        if !applies && idle.insert(Arc::clone(&link.id)) {
            let message = format!("this policy can never apply: {NO_ACTION}");
            findings.warning(&link.file, link.place, NEVER_MATCHES, message);
        }
    }

    /// The requests of the actions that the scope of a text can match.
    fn matched<'h>(&'h self, text: &Text) -> Cow<'h, Matched> {
        let constraint = text.template.action_constraint();
        let is_any = matches!(constraint, ActionConstraint::Any);
        let mut matched = if is_any { Cow::Borrowed(&self.anywhere) } else { Cow::Owned(self.matched_by(constraint)) };
        if matched.distinct.len() < matched.all.len() && reads_action(text) {
            // Actions of one form are not alike to it.
            let matched = matched.to_mut();
            matched.distinct.clone_from(&matched.all);
        }
        matched
    }

    fn matched_by(&self, constraint: &ActionConstraint) -> Matched {
        let actions = self.known.matched(constraint);
        let mut of_actions: Vec<&Requests> =
            actions.iter().filter_map(|action| self.by_action.get(action.id.as_str())).collect();
        if actions.is_empty() {
            // `action in []`: Cedar refuses it, and says what else is wrong for each action.
            of_actions.extend(self.by_action.values());
        }
        let each = |of: &[&Requests]| of.iter().flat_map(|requests| &requests.each).copied().collect();
        let all = each(&of_actions);
        let mut seen = HashSet::new();
        of_actions.retain(|requests| seen.insert(requests.form));
        Matched { all, distinct: each(&of_actions), has_actions: !actions.is_empty() }
    }

    /// What is wrong with the condition, and whether it is false for every request.
    fn typecheck(&self, text: &Text, requests: &[usize]) -> (HashSet<ValidationError>, bool) {
        let mut errors = HashSet::new();
        let mut is_false = true;
        let requests = requests.iter().filter_map(|at| self.requests.get(*at));
        for request in requests.flat_map(|request| self.linked(text, request)) {
            match self.typechecker.typecheck_by_single_request_env(&text.template, &request) {
                PolicyCheck::Success(_) => is_false = false,
                PolicyCheck::Irrelevant(found, _) => errors.extend(found),
                PolicyCheck::Fail(found) => {
                    errors.extend(found);
                    is_false = false;
                }
            }
        }
        (errors, is_false)
    }

    /// A request with each type that the slots of a template can have, as Cedar goes through them.
    fn linked(&self, text: &Text, request: &RequestEnv<'s>) -> Vec<RequestEnv<'s>> {
        let RequestEnv::DeclaredAction { principal, resource, .. } = request else { return Vec::new() };
        let template = &text.template;
        let of_principal =
            self.slot_types(text, SlotId::principal(), principal, template.principal_constraint().as_inner());
        let of_resource =
            self.slot_types(text, SlotId::resource(), resource, template.resource_constraint().as_inner());
        let pairs = of_principal.iter().flat_map(|first| of_resource.iter().map(move |second| (first, second)));
        pairs.map(|(first, second)| request.clone().link(first.clone(), second.clone())).collect()
    }

    fn slot_types(
        &self,
        text: &Text,
        slot: SlotId,
        kind: &EntityType,
        constraint: &PrincipalOrResourceConstraint,
    ) -> Vec<Option<EntityType>> {
        if !text.template.slots().any(|known| known.id == slot) {
            return vec![None];
        }
        let mut types = vec![Some(kind.clone())];
        if !matches!(constraint, PrincipalOrResourceConstraint::Eq(_)) {
            types.extend(self.schema.ancestors(kind).into_iter().flatten().cloned().map(Some));
        }
        types
    }

    /// Whether a request is of types that a scope asks for.
    fn applies(
        &self,
        principal: &PrincipalOrResourceConstraint,
        resource: &PrincipalOrResourceConstraint,
        matched: &Matched,
    ) -> bool {
        let requests = matched.distinct.iter().filter(|_| matched.has_actions).filter_map(|at| self.requests.get(*at));
        requests
            .filter_map(types_of)
            .any(|(first, second, _)| self.fits(principal, first) && self.fits(resource, second))
    }

    /// Whether an entity of a type can satisfy a constraint.
    fn fits(&self, constraint: &PrincipalOrResourceConstraint, kind: &EntityType) -> bool {
        let within = |group: &EntityUID| {
            group.entity_type() == kind
                || self
                    .schema
                    .get_entity_type(group.entity_type())
                    .is_some_and(|of| of.has_descendant_entity_type(kind))
        };
        let reference = |reference: &EntityReference, holds: &dyn Fn(&EntityUID) -> bool| match reference {
            EntityReference::EUID(uid) => holds(uid),
            EntityReference::Slot(_) => true,
        };
        match constraint {
            PrincipalOrResourceConstraint::Any => true,
            PrincipalOrResourceConstraint::Eq(to) => reference(to, &|uid| uid.entity_type() == kind),
            PrincipalOrResourceConstraint::In(group) => reference(group, &within),
            PrincipalOrResourceConstraint::Is(wanted) => **wanted == *kind,
            PrincipalOrResourceConstraint::IsIn(wanted, group) => **wanted == *kind && reference(group, &within),
        }
    }
}

fn types_of<'s>(request: &RequestEnv<'s>) -> Option<(&'s EntityType, &'s EntityType, &'s Type)> {
    match request {
        RequestEnv::DeclaredAction { principal, resource, context, .. } => Some((*principal, *resource, *context)),
        RequestEnv::UndeclaredAction => None,
    }
}

/// Whether the condition looks at the action, so that actions of one form are not alike to it.
fn reads_action(text: &Text) -> bool {
    let is_action = |part: &Expr| matches!(part.expr_kind(), ExprKind::Var(Var::Action));
    text.template.non_scope_constraints().is_some_and(|condition| condition.subexpressions().any(is_action))
}

fn say(text: &Text, error: &ValidationError, findings: &mut Findings) {
    let at = Some(label(&text.lines, error)).filter(|place: &Place| place.line > 0).unwrap_or(text.place);
    findings.error(&text.file, at, "cedar", plain(&sentence(error)));
}

/// Cedar opens with ``for policy `id`, ``; file and line say it already.
fn plain(sentence: &str) -> String {
    match sentence.strip_prefix("for policy `").and_then(|rest| rest.split_once("`, ")) {
        Some((_, rest)) => rest.to_owned(),
        None => sentence.to_owned(),
    }
}
