//! Source kind `route`: what `routes.yaml` says of the route that the request took. Nobody sends it: it is part of
//! the configuration, so it is as good as the routing itself.

use super::{Circumstances, Flow, Kind, ReadRequest, Reading, Source, of_this_request_alone};
use crate::findings::did_you_mean;
use crate::model::{Assurance, SignalType, State, Value};
use std::{collections::BTreeSet, sync::Arc};

pub(super) const KIND: Kind = Kind {
    word: "route",
    ceiling: |_| (Assurance::Authoritative, ""),
    objection: |subject| {
        let why = "a `route` source speaks of this request only: its contract's subject is `request`";
        of_this_request_alone(subject, why)
    },
    read,
};

fn read(reading: &mut Reading<'_, '_>, assurance: Assurance) -> Option<Source> {
    let fact = fact(reading)?;
    Some(Source {
        kind: KIND.word,
        assurance,
        label: format!("route:{fact}").into(),
        settings: vec![("fact", fact.into())],
        flow: Flow::OnRequest(Arc::new(FromRoute { fact: fact.into() })),
    })
}

/// A fact that some route gives, and always as a value of the contract's type: two routes may differ in the value.
fn fact<'a>(reading: &mut Reading<'a, '_>) -> Option<&'a str> {
    let node = reading.fields.require("fact", reading.findings)?;
    let name = node.text(reading.file, "fact", reading.findings)?;
    let facts = || reading.declared.actions.iter().flat_map(|action| &action.facts);
    let values: BTreeSet<&Value> = facts().filter(|(known, _)| ***known == *name).flat_map(|(_, all)| all).collect();
    let other = reading.declared.kind.and_then(|kind| values.iter().find(|value| as_type(value, kind).is_none()));
    let message = match (values.is_empty(), other, reading.declared.kind) {
        (true, ..) => {
            let known: BTreeSet<&str> = facts().map(|(known, _)| &**known).collect();
            let hint = did_you_mean(name, known.iter().copied());
            format!("`fact`: expected a fact that a route gives, found `{name}`{hint}")
        }
        (_, Some(other), Some(kind)) => {
            format!("`fact`: a route gives `{name}` as `{}`, which is no `{kind}`", plain(other))
        }
        _ => return Some(name),
    };
    let code = if values.is_empty() { "unknown_fact" } else { "not_a_value" };
    reading.error(node.place, code, message);
    None
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.to_string(),
        other => other.to_json().to_string(),
    }
}

/// A fact as `routes.yaml` writes it (bool, whole number or text) as a value of a contract's type.
fn as_type(fact: &Value, kind: &SignalType) -> Option<Value> {
    match (kind, fact) {
        (SignalType::Bool, Value::Bool(_))
        | (SignalType::Long, Value::Long(_))
        | (SignalType::String, Value::String(_)) => Some(fact.clone()),
        (SignalType::Bool | SignalType::Long | SignalType::Set, _) => None,
        (_, Value::String(text)) => kind.read_text(text),
        _ => None,
    }
}

#[derive(Debug)]
struct FromRoute {
    fact: Box<str>,
}

impl ReadRequest for FromRoute {
    fn read(&self, circumstances: &Circumstances<'_>, kind: &SignalType) -> (State, Option<Value>) {
        match circumstances.route.and_then(|route| route.fact(&self.fact)).and_then(|fact| as_type(&fact, kind)) {
            Some(value) => (State::Fresh, Some(value)),
            None => (State::Missing, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{read_on, register, routes};
    use super::*;
    use crate::model::Request;

    fn source(fact: &str) -> String {
        format!("{{kind: route, fact: {fact}, assurance: authoritative}}")
    }

    fn read(extras: &[&str], kind: &str, fact: &str) -> Vec<Option<Value>> {
        let read = read_on(&routes(extras), kind, &source(fact), &Request::default(), "2026-11-24T10:00:00Z");
        assert!(read.iter().all(|(state, value)| (*state == State::Fresh) == value.is_some()));
        read.into_iter().map(|(_, value)| value).collect()
    }

    #[test]
    fn each_route_says_its_own_and_one_that_says_nothing_is_missing() {
        let extras = [", facts: {data_class: pii, level: 3, critical: true}", ", facts: {data_class: public}", ""];
        let text = |text: &str| Some(Value::String(text.into()));
        assert_eq!(read(&extras, "string", "data_class"), [text("pii"), text("public"), None]);
        assert_eq!(read(&extras, "enum[pii, public]", "data_class"), [text("pii"), text("public"), None]);
        assert_eq!(read(&extras, "long", "level"), [Some(Value::Long(3)), None, None]);
        assert_eq!(read(&extras, "bool", "critical"), [Some(Value::Bool(true)), None, None]);
    }

    #[test]
    fn sensitivity_tier_and_system_are_facts_of_every_route() {
        let text = |text: &str| Some(Value::String(text.into()));
        assert_eq!(read(&["", ""], "enum[low, medium, high]", "sensitivity"), [text("high"), text("high")]);
        assert_eq!(read(&[""], "string", "tier"), [text("runtime")]);
        assert_eq!(read(&[", system: payments", ""], "string", "system"), [text("payments"), None]);
    }

    #[test]
    fn a_fact_that_no_route_gives_or_gives_as_another_type_is_a_mistake() {
        let said = |kind: &str, fact: &str| {
            let routes = routes(&[", facts: {data_class: pii, level: 3}", ", facts: {data_class: 5}"]);
            register(&routes, kind, "request", &source(fact)).1.join(";")
        };
        assert!(said("string", "data_clas").contains("did you mean `data_class`?"));
        assert!(said("string", "system").starts_with("unknown_fact"), "no route names a system");
        assert!(said("string", "data_class").contains("as `5`, which is no `string`"));
        assert!(said("enum[low]", "sensitivity").contains("as `high`, which is no `enum[low]`"));
        assert!(said("set", "data_class").starts_with("not_a_value"));
        assert_eq!(said("long", "level"), "");
    }
}
