//! The register compiled to a Cedar schema: for each action exactly the context of DESIGN section 5,
//! beside the entity types that the user declares in `entities.cedarschema`.

use super::{built_in, values::WORKLOAD};
use crate::{
    findings::{Findings, Lines, Place, did_you_mean},
    model::Influence,
    model::{SignalType, Tier},
    policy::{ActionRule, Mode, SignalRule},
};
use cedar_policy::{Schema, SchemaFragment};
use miette::Diagnostic;
use std::{collections::BTreeSet, fmt::Write};

/// Name of the user's schema file.
pub(super) const FILE: &str = "entities.cedarschema";

/// What policies are validated against: one schema for each kind of policy that there is. A policy of any action is not
/// one of built-in actions, so it must not be held against what those have in place of a request.
pub(super) struct Schemas {
    /// For policies that count, of routes' actions: the context that decisions are made on.
    pub(super) enforcing: Schema,
    /// For others, if there are any: whether they only observe, and with it see the signals that an action only
    /// observes; whether their scope names a built-in action.
    others: Vec<(Mode, bool, Schema)>,
}

impl Schemas {
    /// Each schema, with the policies that it is for: their mode, and whether their scope names a built-in action.
    pub(super) fn all(&self) -> impl Iterator<Item = (Mode, bool, &Schema)> {
        let others = self.others.iter().map(|(mode, built_in, schema)| (*mode, *built_in, schema));
        std::iter::once((Mode::Enforce, false, &self.enforcing)).chain(others)
    }
}

/// Builds the schemas; `None` after findings that leave none. `actions`: those of routes. `kinds`: what kinds of policies
/// there are, as `Schemas::all` tells them apart.
pub(super) fn load(
    user: Option<&str>,
    actions: &[ActionRule],
    signals: &[SignalRule],
    kinds: &[(Mode, bool)],
    findings: &mut Findings,
) -> Option<Schemas> {
    let Some(text) = user else {
        findings.error(
            FILE,
            Place::default(),
            "missing_file",
            "the file is missing: it must at least say `entity Workload;`",
        );
        return None;
    };
    let fragment = match SchemaFragment::from_cedarschema_str(text) {
        Ok((fragment, warnings)) => {
            for warning in warnings {
                findings.warning(FILE, Place::default(), "schema", warning.to_string());
            }
            fragment
        }
        Err(error) => {
            findings.error(FILE, label(&Lines::of(text), &error), "schema", super::sentence(&error));
            return None;
        }
    };
    refuse_actions(&fragment, text, findings);
    let declared = declared_types(&fragment);
    if refuse_our_types(&fragment, text, findings) {
        return None;
    }
    if !declared.contains(WORKLOAD) {
        findings.error(
            FILE,
            Place::default(),
            "schema",
            "the entity type `Workload` is not declared: principals are Workloads",
        );
        return None;
    }
    refuse_unknown_types(actions, &declared, findings);
    let mut built = |mode, with_built_in: bool| {
        let ours = generate(actions, signals, &declared, mode);
        let theirs = if with_built_in { generate_built_in(signals, mode) } else { String::new() };
        build(&fragment, &format!("{ours}{theirs}"), &Lines::of(text), findings)
    };
    let enforcing = built(Mode::Enforce, false)?;
    let mut others: Vec<(Mode, bool, Schema)> = Vec::new();
    for (mode, built_in) in kinds.iter().copied().filter(|kind| *kind != (Mode::Enforce, false)) {
        if !others.iter().any(|(known, theirs, _)| (*known, *theirs) == (mode, built_in)) {
            others.push((mode, built_in, built(mode, built_in)?));
        }
    }
    Some(Schemas { enforcing, others })
}

fn build(user: &SchemaFragment, ours: &str, lines: &Lines, findings: &mut Findings) -> Option<Schema> {
    let (ours, _) = match SchemaFragment::from_cedarschema_str(ours) {
        Ok(pair) => pair,
        Err(error) => {
            // INVARIANT: what `generate` writes parses; a failure is ours, said as such, and nothing is loaded.
            findings.error(FILE, Place::default(), "internal", format!("the generated schema does not parse: {error}"));
            return None;
        }
    };
    match Schema::from_schema_fragments([user.clone(), ours]) {
        Ok(schema) => Some(schema),
        Err(error) => {
            findings.error(FILE, label(lines, &error), "schema", super::sentence(&error));
            None
        }
    }
}

/// Place of the first label of one of Cedar's diagnostics.
pub(super) fn label(lines: &Lines, error: &dyn Diagnostic) -> Place {
    error.labels().and_then(|mut labels| labels.next()).map_or_else(Place::default, |label| lines.place(label.offset()))
}

fn refuse_actions(fragment: &SchemaFragment, text: &str, findings: &mut Findings) {
    let Ok(json) = fragment.clone().to_json_value() else { return };
    let namespaces = json.as_object().into_iter().flatten();
    for (_, content) in namespaces {
        for name in content.get("actions").and_then(|a| a.as_object()).into_iter().flatten().map(|(name, _)| name) {
            let at = text.find("action ").map_or_else(Place::default, |offset| Lines::of(text).place(offset));
            findings.error(
                FILE,
                at,
                "schema_action",
                format!("the action `{name}` is declared here: actions come from routes.yaml, this file declares entity types only"),
            );
        }
    }
}

/// The types of built-in actions' resources are declared by us, outside all namespaces; Cedar takes no other definition
/// of such a name, in a namespace neither, since it would hide ours there.
fn refuse_our_types(fragment: &SchemaFragment, text: &str, findings: &mut Findings) -> bool {
    let Ok(json) = fragment.clone().to_json_value() else { return false };
    let declared = |name: &str| {
        json.as_object().into_iter().flatten().any(|(_, content)| {
            let kinds = ["entityTypes", "commonTypes"].into_iter();
            kinds.filter_map(|kind| content.get(kind)?.as_object()).any(|types| types.contains_key(name))
        })
    };
    let taken: Vec<&str> = built_in::TYPES.into_iter().filter(|name| declared(name)).collect();
    for name in &taken {
        let offset = [format!("entity {name}"), format!("type {name}")].iter().find_map(|words| text.find(&**words));
        let at = offset.map_or_else(Place::default, |offset| Lines::of(text).place(offset));
        let message = format!(
            "the type `{name}` is the product's own, for built-in actions, in every namespace: give yours another name"
        );
        findings.error(FILE, at, "reserved_type", message);
    }
    !taken.is_empty()
}

fn declared_types(fragment: &SchemaFragment) -> BTreeSet<String> {
    let Ok(json) = fragment.clone().to_json_value() else { return BTreeSet::new() };
    let mut types = BTreeSet::new();
    for (namespace, content) in json.as_object().into_iter().flatten() {
        let names = content.get("entityTypes").and_then(|t| t.as_object()).into_iter().flatten();
        types.extend(
            names.map(|(name, _)| if namespace.is_empty() { name.clone() } else { format!("{namespace}::{name}") }),
        );
    }
    types
}

fn refuse_unknown_types(actions: &[ActionRule], declared: &BTreeSet<String>, findings: &mut Findings) {
    for action in actions {
        for kind in action.resource_types.iter().filter(|kind| !declared.contains(&***kind)) {
            if built_in::TYPES.contains(&&**kind) {
                let message = format!(
                    "the resource type `{kind}` of action `{}` is the product's own, for built-in actions: give it \
                     another name",
                    action.id
                );
                findings.error("routes.yaml", action.place, "reserved_type", message);
                continue;
            }
            let hint = did_you_mean(kind, declared.iter().map(String::as_str));
            let message =
                format!("the resource type `{kind}` of action `{}` is not declared in {FILE}{hint}", action.id);
            findings.error("routes.yaml", action.place, "unknown_type", message);
        }
    }
}

fn generate(actions: &[ActionRule], signals: &[SignalRule], declared: &BTreeSet<String>, mode: Mode) -> String {
    let mut text = String::new();
    for action in actions {
        let known: Vec<&str> =
            action.resource_types.iter().map(AsRef::as_ref).filter(|kind| declared.contains(*kind)).collect();
        if known.is_empty() {
            continue;
        }
        // `write!` to a String can't fail.
        let _ = writeln!(
            text,
            "action \"{}\" appliesTo {{ principal: [{WORKLOAD}], resource: [{}], context: {{ {} }} }};",
            action.id,
            known.join(", "),
            context(action, signals, mode)
        );
    }
    text
}

/// Built-in actions and the types of their resources, which have no attributes: nothing lists them.
fn generate_built_in(signals: &[SignalRule], mode: Mode) -> String {
    let types = built_in::TYPES.map(|name| format!("entity {name};\n")).concat();
    let actions = built_in::rules().into_iter().map(|action| {
        let kinds: Vec<&str> = action.resource_types.iter().map(AsRef::as_ref).collect();
        let readable = readable(&action, signals, mode);
        format!(
            "action \"{}\" appliesTo {{ principal: [{WORKLOAD}], resource: [{}], context: {{ \"request\": {}, \
             \"signals\": {readable}, \"identity\": {IDENTITY} }} }};\n",
            action.id,
            kinds.join(", "),
            built_in::REQUEST
        )
    });
    std::iter::once(types).chain(actions).collect()
}

/// The record type of `context.identity`.
const IDENTITY: &str = "{ \"kind\": __cedar::String, \"trust_domain\": __cedar::String, \"bound\": __cedar::Bool, \
     \"age_seconds\"?: __cedar::Long, \"actor\"?: __cedar::String, \"interactive\": __cedar::Bool, \
     \"legacy\": __cedar::Bool }";

/// The record type of `context.signals` for one action: every one optional.
fn readable(action: &ActionRule, signals: &[SignalRule], mode: Mode) -> String {
    record(
        signals
            .iter()
            .filter(|s| s.influence != Influence::Observe || mode == Mode::Observe)
            .filter(|s| s.used_by.contains(&action.id))
            .map(|s| field(s.name.as_str(), true, &s.kind)),
    )
}

/// The record type of `context` for one action of routes.
fn context(action: &ActionRule, signals: &[SignalRule], mode: Mode) -> String {
    let args = record(action.args.iter().map(|(name, (kind, optional))| field(name, *optional, kind)));
    let string = "__cedar::String";
    let mut parts = vec![
        format!("\"request\": {{ \"method\": {string}, \"path\": {string}, \"host\": {string}, \"args\": {args} }}"),
        format!("\"signals\": {}", readable(action, signals, mode)),
        format!("\"identity\": {IDENTITY}"),
    ];
    // Never optional: where they stand, no call without a grant gets as far as a policy.
    if action.tier == Tier::Jit || (action.tier == Tier::Approval && action.grant_required) {
        parts.push(format!(
            "\"grant\": {{ \"task\": {string}, \"type\": {string}, \"workflow\"?: {string}, \"expires_in_seconds\": __cedar::Long }}"
        ));
        parts.push(format!(
            "\"chain\": {{ \"depth\": __cedar::Long, \"root\": {string}, \"systems\": Set<{string}>, \"sensitivity\": __cedar::Long }}"
        ));
    }
    if action.tier == Tier::Approval {
        parts.push(format!("\"approval\": {{ \"approved_by\": Set<{string}> }}"));
    }
    parts.join(", ")
}

fn record(fields: impl Iterator<Item = String>) -> String {
    format!("{{ {} }}", fields.collect::<Vec<_>>().join(", "))
}

fn field(name: &str, optional: bool, kind: &SignalType) -> String {
    let kind = match kind {
        SignalType::Bool => "__cedar::Bool",
        SignalType::Long => "__cedar::Long",
        SignalType::String | SignalType::Enum(_) => "__cedar::String",
        SignalType::Set => "Set<__cedar::String>",
        SignalType::Decimal => "__cedar::decimal",
        SignalType::Datetime => "__cedar::datetime",
        SignalType::Ip => "__cedar::ipaddr",
    };
    format!("\"{name}\"{}: {kind}", if optional { "?" } else { "" })
}
