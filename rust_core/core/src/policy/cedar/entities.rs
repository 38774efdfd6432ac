//! `entities.json`: workloads, roles and resources with owners and labels, checked one by one against the schema.

use super::sentence;
use crate::{
    document,
    findings::{Findings, Place, did_you_mean},
};
use cedar_policy::{Entities, Entity, Schema};
use serde_json::Value as Json;
use std::collections::{BTreeSet, HashMap};

/// Name of the file.
pub(super) const FILE: &str = "entities.json";

/// Loads the entities; every bad one is a finding of its own. A missing file is an error: `[]` is legal.
pub(super) fn load(text: Option<&str>, schema: &Schema, findings: &mut Findings) -> Entities {
    let Some(text) = text else {
        findings.error(FILE, Place::default(), "missing_file", "the file is missing: write `[]` for no entities");
        return Entities::empty();
    };
    let items = match serde_json::from_str::<serde_json::Value>(text) {
        Ok(serde_json::Value::Array(items)) => items,
        Ok(_) => {
            findings.error(FILE, Place { line: 1, column: 1 }, "wrong_type", "expected a list of entities");
            return Entities::empty();
        }
        Err(error) => {
            let at = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            let place = Place { line: at(error.line()), column: at(error.column()) };
            findings.error(FILE, place, "syntax", format!("not JSON: {error}"));
            return Entities::empty();
        }
    };
    let mut good: Vec<Entity> = Vec::with_capacity(items.len());
    let mut bad: Vec<Bad> = Vec::new();
    let mut seen: HashMap<cedar_policy::EntityUid, usize> = HashMap::new();
    let types: BTreeSet<String> = schema.entity_types().map(ToString::to_string).collect();
    for (index, item) in items.into_iter().enumerate() {
        if let Some(message) = without_type(&item, &types) {
            bad.push(Bad { index, code: "unknown_type", message });
            continue;
        }
        match Entity::from_json_value(item, Some(schema)) {
            Ok(entity) => match seen.insert(entity.uid(), index) {
                Some(first) => {
                    let message = format!("`{}` is listed twice, first as entry {}", entity.uid(), first + 1);
                    bad.push(Bad { index, code: "entity", message });
                }
                None => good.push(entity),
            },
            Err(error) => bad.push(Bad { index, code: "entity", message: sentence(&error) }),
        }
    }
    report(text, bad, findings);
    match Entities::from_entities(good, Some(schema)) {
        Ok(entities) => entities,
        Err(error) => {
            findings.error(FILE, Place::default(), "entity", sentence(&error));
            Entities::empty()
        }
    }
}

/// An entry with a mistake.
struct Bad {
    index: usize,
    code: &'static str,
    message: String,
}

/// What is wrong with the type of an entry, if something is. The rest of the entry is Cedar's to check.
fn without_type(item: &Json, types: &BTreeSet<String>) -> Option<String> {
    let uid = item.get("uid")?;
    let uid = uid.get("__entity").unwrap_or(uid);
    let expected = "expected a type that entities.cedarschema declares";
    match uid.get("type") {
        Some(Json::String(written)) if types.contains(written) => None,
        Some(Json::String(written)) => {
            let hint = did_you_mean(written, types.iter().map(String::as_str));
            Some(format!("the entity type `{written}` is not declared: {expected}{hint}"))
        }
        Some(_) => None,
        None => Some(format!("the entity has no type: {expected}, under `uid`, `type`")),
    }
}

/// JSON is YAML too: the strict reader tells where each entry stands. Only asked when something is wrong.
fn report(text: &str, bad: Vec<Bad>, findings: &mut Findings) {
    if bad.is_empty() {
        return;
    }
    let places: HashMap<String, Place> = document::parse(FILE, text, &mut Findings::default())
        .map(|node| node.places().into_iter().collect())
        .unwrap_or_default();
    for Bad { index, code, message } in bad {
        let place = places.get(&format!("/{index}")).copied().unwrap_or_default();
        findings.error(FILE, place, code, format!("entry {}: {message}", index + 1));
    }
}
