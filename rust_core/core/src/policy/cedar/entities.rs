//! `entities.json`: workloads, roles and resources with owners and labels, checked one by one against the schema.

use super::{
    records::{self, Records},
    sentence,
};
use crate::{
    document,
    findings::{Findings, Place, did_you_mean},
    model::{PrincipalRecord, SpiffeId},
};
use cedar_policy::{Entities, Entity, Schema};
use serde_json::Value as Json;
use std::collections::{BTreeSet, HashMap};

/// Name of the file.
pub(super) const FILE: &str = "entities.json";

/// What the file lists.
pub(super) struct Listing {
    pub(super) entities: Entities,
    pub(super) records: Records,
}

/// Loads the entities; every bad one is a finding of its own. A missing file is an error: `[]` is legal.
pub(super) fn load(text: Option<&str>, schema: &Schema, findings: &mut Findings) -> Listing {
    let nothing = || Listing { entities: Entities::empty(), records: Records::new() };
    let Some(text) = text else {
        findings.error(FILE, Place::default(), "missing_file", "the file is missing: write `[]` for no entities");
        return nothing();
    };
    let items = match serde_json::from_str::<serde_json::Value>(text) {
        Ok(serde_json::Value::Array(items)) => items,
        Ok(_) => {
            findings.error(FILE, Place { line: 1, column: 1 }, "wrong_type", "expected a list of entities");
            return nothing();
        }
        Err(error) => {
            let at = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            let place = Place { line: at(error.line()), column: at(error.column()) };
            findings.error(FILE, place, "syntax", format!("not JSON: {error}"));
            return nothing();
        }
    };
    let mut good: Vec<Entity> = Vec::with_capacity(items.len());
    let mut bad: Vec<Bad> = Vec::new();
    let mut found = Found::new();
    let mut seen: HashMap<cedar_policy::EntityUid, usize> = HashMap::new();
    let types: BTreeSet<String> = schema.entity_types().map(ToString::to_string).collect();
    for (index, item) in items.into_iter().enumerate() {
        if let Some(message) = without_type(&item, &types) {
            bad.push(Bad { index, attribute: None, code: "unknown_type", message });
            continue;
        }
        match Entity::from_json_value(item, Some(schema)) {
            Ok(entity) => {
                if let Some(first) = seen.insert(entity.uid(), index) {
                    let message = format!("`{}` is listed twice, first as entry {}", entity.uid(), first + 1);
                    bad.push(Bad { index, attribute: None, code: "entity", message });
                    continue;
                }
                match records::read(entity.as_ref()) {
                    Ok(record) => found.extend(record.map(|(principal, record)| (principal, record, index))),
                    Err(slips) => bad.extend(slips.into_iter().map(|slip| Bad::of(index, slip))),
                }
                good.push(entity);
            }
            Err(error) => bad.push(Bad { index, attribute: None, code: "entity", message: sentence(&error) }),
        }
    }
    let places = Places::of(text, !bad.is_empty() || found.iter().any(|(_, record, _)| record.is_legacy()));
    report(&places, bad, findings);
    let records = found.into_iter().map(|(principal, record, index)| {
        let place = if record.is_legacy() { places.entry(index, None) } else { Place::default() };
        (principal, (record, place))
    });
    let records = records.collect();
    match Entities::from_entities(good, Some(schema)) {
        Ok(entities) => Listing { entities, records },
        Err(error) => {
            findings.error(FILE, Place::default(), "entity", sentence(&error));
            nothing()
        }
    }
}

/// Records with the index of their entry.
type Found = Vec<(SpiffeId, PrincipalRecord, usize)>;

/// An entry with a mistake.
struct Bad {
    index: usize,
    attribute: Option<&'static str>,
    code: &'static str,
    message: String,
}

impl Bad {
    fn of(index: usize, slip: records::Slip) -> Self {
        Self { index, attribute: slip.attribute, code: slip.code, message: slip.message }
    }
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

/// Where entries and their attributes stand.
struct Places(HashMap<String, Place>);

impl Places {
    /// JSON is YAML too: the strict reader tells. Only asked when there is something to say.
    fn of(text: &str, wanted: bool) -> Self {
        let node = if wanted { document::parse(FILE, text, &mut Findings::default()) } else { None };
        Self(node.map(|node| node.places().into_iter().collect()).unwrap_or_default())
    }

    fn entry(&self, index: usize, attribute: Option<&str>) -> Place {
        let attribute = attribute.and_then(|name| self.0.get(&format!("/{index}/attrs/{name}")));
        attribute.or_else(|| self.0.get(&format!("/{index}"))).copied().unwrap_or_default()
    }
}

fn report(places: &Places, bad: Vec<Bad>, findings: &mut Findings) {
    for Bad { index, attribute, code, message } in bad {
        let place = places.entry(index, attribute);
        findings.error(FILE, place, code, format!("entry {}: {message}", index + 1));
    }
}
