//! The register compiled to a Cedar schema: for each action exactly the context of DESIGN section 5,
//! beside the entity types that the user declares in `entities.cedarschema`.

use super::values::{Lines, WORKLOAD};
use crate::{
    findings::{Findings, Place, did_you_mean},
    model::Influence,
    model::{SignalType, Tier},
    policy::{ActionRule, Mode, SignalRule},
};
use cedar_policy::{Schema, SchemaFragment};
use miette::Diagnostic;
use std::{collections::BTreeSet, fmt::Write};

/// Name of the user's schema file.
pub(super) const FILE: &str = "entities.cedarschema";

/// What policies are validated against.
pub(super) struct Schemas {
    /// For policies that count: the context that decisions are made on.
    pub(super) enforcing: Schema,
    /// For observing ones, if there are any: the signals that the action only observes, too.
    pub(super) observing: Option<Schema>,
}

/// Builds the schemas; `None` after findings that leave none.
pub(super) fn load(
    user: Option<&str>,
    actions: &[ActionRule],
    signals: &[SignalRule],
    observes: bool,
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
    let mut built = |mode| {
        let ours = generate(actions, signals, &declared, mode);
        build(&fragment, &ours, &Lines::of(text), findings)
    };
    let enforcing = built(Mode::Enforce)?;
    let observing = if observes { Some(built(Mode::Observe)?) } else { None };
    Some(Schemas { enforcing, observing })
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

/// The record type of `context` for one action.
fn context(action: &ActionRule, signals: &[SignalRule], mode: Mode) -> String {
    let args = record(action.args.iter().map(|(name, (kind, optional))| field(name, *optional, kind)));
    let readable = record(
        signals
            .iter()
            .filter(|s| s.influence != Influence::Observe || mode == Mode::Observe)
            .filter(|s| s.used_by.contains(&action.id))
            .map(|s| field(s.name.as_str(), true, &s.kind)),
    );
    let string = "__cedar::String";
    let mut parts = vec![
        format!("\"request\": {{ \"method\": {string}, \"path\": {string}, \"host\": {string}, \"args\": {args} }}"),
        format!("\"signals\": {readable}"),
        format!(
            "\"identity\": {{ \"kind\": {string}, \"trust_domain\": {string}, \"bound\": __cedar::Bool, \
             \"age_seconds\"?: __cedar::Long, \"actor\"?: {string}, \"interactive\": __cedar::Bool, \
             \"legacy\": __cedar::Bool }}"
        ),
    ];
    if action.tier == Tier::Jit {
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
