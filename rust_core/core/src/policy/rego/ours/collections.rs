//! Functions of arrays, sets and objects.

use super::{Answer, array, charge_values, kind, list, operand};
use regorus::Value;

/// How many members, or characters of a text.
pub(super) fn count(args: &[Value], _: i64) -> Answer {
    let count = match operand(args, 0)? {
        Value::Array(items) => items.len(),
        Value::Set(items) => items.len(),
        Value::Object(fields) => fields.len(),
        Value::String(text) => text.chars().count(),
        other => return Err(super::wrong(0, "one of {array, object, set, string}", other)),
    };
    Ok(Value::from(count as u64))
}

pub(super) fn array_concat(args: &[Value], _: i64) -> Answer {
    let (first, second) = (array(args, 0)?, array(args, 1)?);
    charge_values(first.len().saturating_add(second.len()))?;
    Ok(list([first, second].concat()))
}

/// Arrays within it are taken apart, one level deep.
pub(super) fn array_flatten(args: &[Value], _: i64) -> Answer {
    let items = array(args, 0)?;
    let mut flat = Vec::new();
    for item in items {
        let inner = if let Value::Array(inner) = item { inner.as_slice() } else { std::slice::from_ref(item) };
        charge_values(inner.len())?;
        flat.extend_from_slice(inner);
    }
    Ok(list(flat))
}

/// Two of a kind of objects, sets and arrays, or a set in an array.
pub(super) fn object_subset(args: &[Value], _: i64) -> Answer {
    let (whole, part) = (operand(args, 0)?, operand(args, 1)?);
    match (whole, part) {
        (Value::Object(_), Value::Object(_)) | (Value::Set(_), Value::Set(_)) | (Value::Array(_), Value::Array(_)) => {
            Ok(Value::Bool(is_part(whole, part)))
        }
        (Value::Array(whole), Value::Set(part)) => array_has(whole.as_slice(), &part.iter().collect::<Vec<_>>()),
        _ => Err(format!(
            "operands must be of the same kind, or an array and a set, but got {} and {}",
            kind(whole),
            kind(part)
        )),
    }
}

fn is_part(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(key, wanted)| whole.get(key).is_some_and(|found| is_part(found, wanted)))
        }
        (Value::Set(whole), Value::Set(part)) => part.iter().all(|wanted| whole.contains(wanted)),
        (Value::Array(whole), Value::Array(part)) => {
            part.is_empty() || whole.as_slice().windows(part.len()).any(|window| window == part.as_slice())
        }
        (whole, part) => whole == part,
    }
}

/// OPA counts a member of the set as often as it stands in the array, so that repeated ones make up for missing ones. That
/// answer would be wrong, and another would not be OPA's.
fn array_has(whole: &[Value], part: &[&Value]) -> Answer {
    let found: Vec<&Value> = whole.iter().filter(|item| part.contains(item)).collect();
    let repeated =
        found.iter().enumerate().any(|(nth, item)| found.iter().skip(nth.saturating_add(1)).any(|other| other == item));
    if repeated && found.len() >= part.len() {
        return Err("operand 1 holds a member of the set more than once".to_owned());
    }
    Ok(Value::Bool(!whole.is_empty() && found.len() == part.len()))
}

/// Objects joined from left to right: what a later one says stands, but for two objects under one key, which are joined.
pub(super) fn object_union_n(args: &[Value], _: i64) -> Answer {
    let mut joined = Value::new_object();
    for item in array(args, 0)? {
        let Value::Object(fields) = item else {
            return Err(format!("operand 1 must be array of objects but got {}", kind(item)));
        };
        charge_values(fields.len().saturating_mul(2))?;
        joined = join(joined, item);
    }
    Ok(joined)
}

fn join(mut first: Value, second: &Value) -> Value {
    let (Ok(before), Value::Object(after)) = (first.as_object_mut(), second) else {
        return second.clone();
    };
    for (key, value) in after.iter() {
        let value = before.remove(key).map_or_else(|| value.clone(), |old| join(old, value));
        before.insert(key.clone(), value);
    }
    first
}
