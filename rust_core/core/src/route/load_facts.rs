//! The key `facts` of a route, read strictly: what signals of kind `route` may say of it.

use super::{BUILT_IN_FACTS, load::Reader};
use crate::{
    document::{Kind, Node},
    limits::{MAX_ROUTE_FACTS, MAX_SIGNAL_VALUE_BYTES},
    model::{SignalName, Value, names::NAME_FORM},
};
use std::{collections::BTreeMap, sync::Arc};

/// Text, `true`, `false` or a whole number, by name; `None` if something was wrong, and said so.
pub(super) fn facts(reader: &mut Reader<'_>, node: &Node) -> Option<BTreeMap<Arc<str>, Value>> {
    let entries = node.map(reader.file, "facts", reader.findings)?;
    if entries.len() > MAX_ROUTE_FACTS {
        let message = format!("`facts`: expected at most {MAX_ROUTE_FACTS} facts, found {}", entries.len());
        reader.error(node.place, "too_many_facts", message);
        return None;
    }
    let mut facts = BTreeMap::new();
    for entry in entries {
        let key = &entry.key;
        let Some(name) = SignalName::parse(key) else {
            reader.error(entry.place, "bad_name", format!("name of a fact: expected {NAME_FORM}, found `{key}`"));
            continue;
        };
        if BUILT_IN_FACTS.contains(&name.as_str()) {
            let message = format!("`facts`: `{key}` is a key of the route itself: expected a name of your own");
            reader.error(entry.place, "reserved_name", message);
            continue;
        }
        let value = match &entry.value.kind {
            Kind::Bool(flag) => Value::Bool(*flag),
            Kind::Int(number) => Value::Long(*number),
            Kind::Text(text) if text.len() <= MAX_SIGNAL_VALUE_BYTES => Value::String(text.as_str().into()),
            _ => {
                let expected =
                    format!("text of at most {MAX_SIGNAL_VALUE_BYTES} bytes, `true`, `false` or a whole number");
                let message = format!("`{key}`: expected {expected}, found {}", entry.value.describe());
                reader.error(entry.value.place, "wrong_type", message);
                continue;
            }
        };
        facts.insert(name.shared(), value);
    }
    (facts.len() == entries.len()).then_some(facts)
}
