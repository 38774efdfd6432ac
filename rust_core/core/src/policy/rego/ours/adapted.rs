//! Arguments of the interpreter's own functions, put as it reads them where OPA reads more; and what such a function gives
//! back where OPA has an error.

use super::{integer, operand, wrong};
use regorus::Value;

/// Functions for which there is rightly no result: of nothing there is no largest.
const MAY_BE_UNDEFINED: &[&str] = &["max", "min"];

/// Longest number within a version that both read alike.
const MAX_VERSION_DIGITS: usize = 18;

/// The arguments for the interpreter's function of that name; none where they are as it wants them.
pub(in super::super) fn adapted(name: &str, args: &[Value]) -> Result<Option<Vec<Value>>, String> {
    match name {
        "json.filter" | "json.remove" => {
            let paths = match operand(args, 1)? {
                Value::Array(paths) => Value::from(paths.iter().map(path).collect::<Result<Vec<_>, _>>()?),
                Value::Set(paths) => Value::from(paths.iter().map(path).collect::<Result<Vec<_>, _>>()?),
                other => return Err(wrong(1, "one of {set, array}", other)),
            };
            Ok(Some(vec![operand(args, 0)?.clone(), paths]))
        }
        "semver.compare" | "semver.is_valid" => Ok(Some(args.iter().map(version).collect::<Result<_, _>>()?)),
        "array.slice" => integer(args, 1).and_then(|_| integer(args, 2)).map(|_| None),
        _ => Ok(None),
    }
}

/// What the interpreter's function gave. It says of many an error that there is no result, and a rule would vanish.
pub(in super::super) fn defined(name: &str, given: Value) -> Result<Value, String> {
    if given == Value::Undefined && !MAY_BE_UNDEFINED.contains(&name) {
        return Err(format!("`{name}` has no result for these arguments"));
    }
    Ok(given)
}

/// A path of JSON Pointer's escapes, as its steps.
fn path(written: &Value) -> Result<Value, String> {
    match written {
        Value::String(text) if text.trim_start_matches('/').is_empty() => Err("operand 2 has an empty path".to_owned()),
        Value::String(text) => {
            let steps = text.trim_start_matches('/').split('/');
            let steps: Vec<Value> = steps.map(|step| step.replace("~1", "/").replace("~0", "~").into()).collect();
            Ok(Value::from(steps))
        }
        steps @ Value::Array(items) if !items.is_empty() => Ok(steps.clone()),
        _ => Err("operand 2 must hold paths as texts or as arrays of steps".to_owned()),
    }
}

/// A version without the `v` before it. What is no text is no version.
fn version(written: &Value) -> Result<Value, String> {
    let Value::String(text) = written else {
        return Ok(Value::from(""));
    };
    if text.split(|letter: char| !letter.is_ascii_digit()).any(|digits| digits.len() > MAX_VERSION_DIGITS) {
        return Err("a number of the version is too long".to_owned());
    }
    Ok(Value::from(text.strip_prefix('v').unwrap_or(text)))
}
