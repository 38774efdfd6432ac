//! `input`: what a policy sees of a decision. INVARIANT I1: the governed projection, and of the signals those that the
//! entry point was found to read.

use crate::{
    limits::MAX_DEPTH,
    model,
    policy::{Query, Seen, SignalIndex},
};
use regorus::Value;
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};

/// The parts of `input`, with the names that each may have below it; none: any.
pub(super) const PARTS: &[(&str, &[&str])] = &[
    ("request", &["method", "path", "host", "args"]),
    ("action", &[]),
    ("resource", &["type", "id"]),
    ("identity", &["id", "kind", "trust_domain", "bound", "age_seconds", "actor", "interactive", "legacy"]),
    ("grant", &["task", "type", "workflow", "expires_in_seconds"]),
    ("chain", &["depth", "root", "systems", "sensitivity"]),
    ("approval", &["approved_by"]),
    (SIGNALS, &[]),
];
/// The part whose names are those of the register.
pub(super) const SIGNALS: &str = "signals";

type Fields = BTreeMap<Value, Value>;

/// What does not vary between the worlds of one decision.
pub(super) struct Fixed(Fields);

impl Fixed {
    pub(super) fn of(query: &Query) -> Self {
        let mut parts = Fields::new();
        let mut part = |name: &str, fields: Fields| drop(parts.insert(Value::from(name), Value::from(fields)));
        let args = query.request.args.iter().map(|(name, value)| (Value::from(&**name), ours(value)));
        part(
            "request",
            fields([
                ("method", text(&query.request.method)),
                ("path", text(&query.request.path)),
                ("host", text(&query.request.host)),
                ("args", Value::from(args.collect::<Fields>())),
            ]),
        );
        part("resource", fields([("type", text(&query.resource.kind)), ("id", text(&query.resource.id))]));
        part("identity", identity(query));
        if let Some(grant) = &query.grant {
            let mut said = fields([
                ("task", text(&grant.task)),
                ("type", text(&grant.kind)),
                ("expires_in_seconds", Value::from(grant.expires_in_seconds)),
            ]);
            said.extend(grant.workflow.as_ref().map(|id| (Value::from("workflow"), text(id))));
            part("grant", said);
        }
        if let Some(chain) = &query.chain {
            part(
                "chain",
                fields([
                    ("depth", Value::from(chain.depth)),
                    ("root", text(&chain.root)),
                    ("systems", set(chain.systems.iter().map(AsRef::as_ref))),
                    ("sensitivity", Value::from(chain.sensitivity)),
                ]),
            );
        }
        if query.tier == crate::model::Tier::Approval {
            part("approval", fields([("approved_by", set(query.approved_by.iter().map(AsRef::as_ref)))]));
        }
        parts.insert(Value::from("action"), text(query.action.as_str()));
        Self(parts)
    }

    /// The input of one world. `mentioned`: the names of the signals that may be seen, by index, sorted.
    pub(super) fn with(&self, mentioned: &[(SignalIndex, Value)], seen: &[(SignalIndex, Seen)]) -> Value {
        let mut signals = Fields::new();
        for (signal, seen) in seen {
            let Seen::Value(value) = seen else { continue };
            if let Ok(at) = mentioned.binary_search_by_key(signal, |(signal, _)| *signal)
                && let Some((_, name)) = mentioned.get(at)
            {
                signals.insert(name.clone(), ours(value));
            }
        }
        let mut parts = self.0.clone();
        parts.insert(Value::from(SIGNALS), Value::from(signals));
        Value::from(parts)
    }
}

fn identity(query: &Query) -> Fields {
    let view = &query.identity;
    let mut said = fields([
        ("id", text(query.principal.as_str())),
        ("kind", text(view.kind)),
        ("trust_domain", text(&view.trust_domain)),
        ("bound", Value::from(view.bound)),
        ("interactive", Value::from(view.interactive)),
        ("legacy", Value::from(view.legacy)),
    ]);
    said.extend(view.age_seconds.map(|age| (Value::from("age_seconds"), Value::from(age))));
    said.extend(view.actor.as_ref().map(|actor| (Value::from("actor"), text(actor))));
    said
}

/// One of our values. What Rego has no type for is a text.
fn ours(value: &model::Value) -> Value {
    match value {
        model::Value::Bool(truth) => Value::from(*truth),
        model::Value::Long(number) => Value::from(*number),
        model::Value::String(words) => text(words),
        model::Value::Set(members) => set(members.iter().map(AsRef::as_ref)),
        model::Value::Decimal(decimal) => text(&decimal.to_string()),
        model::Value::Datetime(at) => text(&at.to_rfc3339()),
        model::Value::Ip(address) => text(&address.to_string()),
    }
}

fn text(text: &str) -> Value {
    Value::from(text)
}

fn set<'t>(members: impl Iterator<Item = &'t str>) -> Value {
    Value::from(members.map(Value::from).collect::<BTreeSet<Value>>())
}

fn fields<const N: usize>(fields: [(&str, Value); N]) -> Fields {
    fields.into_iter().map(|(name, value)| (Value::from(name), value)).collect()
}

/// A document of somebody else's, as a value. `None`: nested deeper than anything that is read here.
pub(super) fn document(json: &Json) -> Option<Value> {
    fn of(json: &Json, depth: usize) -> Option<Value> {
        if depth > 2 * MAX_DEPTH {
            return None;
        }
        Some(match json {
            Json::Null => Value::Null,
            Json::Bool(truth) => Value::from(*truth),
            Json::Number(number) => Value::from_numeric_string(&number.to_string()).ok()?,
            Json::String(words) => text(words),
            Json::Array(items) => {
                Value::from(items.iter().map(|item| of(item, depth + 1)).collect::<Option<Vec<_>>>()?)
            }
            Json::Object(members) => {
                let member = |(name, value): (&String, &Json)| Some((text(name), of(value, depth + 1)?));
                Value::from(members.iter().map(member).collect::<Option<Fields>>()?)
            }
        })
    }
    of(json, 0)
}
