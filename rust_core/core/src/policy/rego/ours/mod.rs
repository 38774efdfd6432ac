//! Built-in functions that are our own: where the engine lacks one, answers otherwise than OPA, could build more than a
//! decision may hold, or reads the machine's clock or zone. Each is a function of its arguments and the decision's `now`.
//!
//! An error is always an error of the decision: where OPA would give a text of its own about a wrong argument, or a
//! result that can't be held here, the decision is denied rather than made of something else.

mod adapted;
mod collections;
mod crypto;
mod encoding;
mod format;
mod globs;
mod net;
mod numbers;
mod regexes;
mod regexes_go;
mod strings;
mod time;
mod time_layout;

pub(super) use adapted::{adapted, defined};

use super::meter;
use regorus::Value;

/// What a function gives: a value, `Value::Undefined`, or why the decision fails.
pub(super) type Answer = Result<Value, String>;

/// One function.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ours {
    /// As policies call it.
    pub(super) name: &'static str,
    /// How many arguments it takes, without the one that may take the result.
    pub(super) arity: u8,
    /// Its arguments, none of them undefined, and the decision's `now` in nanoseconds.
    pub(super) run: fn(&[Value], i64) -> Answer,
}

const fn ours(name: &'static str, arity: u8, run: fn(&[Value], i64) -> Answer) -> Ours {
    Ours { name, arity, run }
}

/// All of them.
pub(super) const OURS: &[Ours] = &[
    ours("array.concat", 2, collections::array_concat),
    ours("array.flatten", 1, collections::array_flatten),
    ours("base64.decode", 1, encoding::base64_decode),
    ours("base64.is_valid", 1, encoding::base64_is_valid),
    ours("base64url.decode", 1, encoding::base64url_decode),
    ours("bits.lsh", 2, numbers::bits_lsh),
    ours("bits.rsh", 2, numbers::bits_rsh),
    ours("concat", 2, strings::concat),
    ours("count", 1, collections::count),
    ours("crypto.hmac.equal", 2, crypto::hmac_equal),
    ours("crypto.hmac.sha256", 2, crypto::hmac_sha256),
    ours("crypto.hmac.sha512", 2, crypto::hmac_sha512),
    ours("crypto.sha256", 1, crypto::sha256),
    ours("format_int", 2, numbers::format_int),
    ours("glob.match", 3, globs::glob_match),
    ours("glob.quote_meta", 1, globs::quote_meta),
    ours("hex.decode", 1, encoding::hex_decode),
    ours("indexof", 2, strings::indexof),
    ours("indexof_n", 2, strings::indexof_n),
    ours("json.is_valid", 1, encoding::json_is_valid),
    ours("json.marshal", 1, encoding::json_marshal),
    ours("lower", 1, strings::lower),
    ours("net.cidr_contains", 2, net::contains),
    ours("net.cidr_contains_matches", 2, net::contains_matches),
    ours("net.cidr_expand", 1, net::expand),
    ours("net.cidr_intersects", 2, net::intersects),
    ours("net.cidr_is_valid", 1, net::is_valid),
    ours("numbers.range", 2, numbers::range),
    ours("numbers.range_step", 3, numbers::range_step),
    ours("object.subset", 2, collections::object_subset),
    ours("object.union_n", 1, collections::object_union_n),
    ours("product", 1, numbers::product),
    ours("regex.find_all_string_submatch_n", 3, regexes::find_all_submatches),
    ours("regex.find_n", 3, regexes::find),
    ours("regex.is_valid", 1, regexes::is_valid),
    ours("regex.match", 2, regexes::is_match),
    ours("regex.replace", 3, regexes::replace),
    ours("regex.split", 2, regexes::split),
    ours("regex.template_match", 4, regexes::template_match),
    ours("replace", 3, strings::replace),
    ours("split", 2, strings::split),
    ours("sprintf", 2, format::sprintf),
    ours("strings.count", 2, strings::count),
    ours("strings.replace_n", 2, strings::replace_n),
    ours("strings.split_n", 3, strings::split_n),
    ours("substring", 3, strings::substring),
    ours("time.add_date", 4, time::add_date),
    ours("time.clock", 1, time::clock),
    ours("time.date", 1, time::date),
    ours("time.diff", 2, time::diff),
    ours("time.format", 1, time::format),
    ours("time.now_ns", 0, time::now_ns),
    ours("time.parse_duration_ns", 1, time::parse_duration),
    ours("time.parse_ns", 2, time::parse),
    ours("time.parse_rfc3339_ns", 1, time::parse_rfc3339),
    ours("time.weekday", 1, time::weekday),
    ours("to_number", 1, numbers::to_number),
    ours("trace", 1, trace),
    ours("units.parse", 1, numbers::units_parse),
    ours("units.parse_bytes", 1, numbers::units_parse_bytes),
    ours("upper", 1, strings::upper),
    ours("urlquery.decode", 1, encoding::urlquery_decode),
    ours("urlquery.decode_object", 1, encoding::urlquery_decode_object),
    ours("urlquery.encode", 1, encoding::urlquery_encode),
    ours("urlquery.encode_object", 1, encoding::urlquery_encode_object),
];

/// OPA's writes a note for whoever explains a query, and is always true. Here nobody reads it.
fn trace(args: &[Value], _: i64) -> Answer {
    text(args, 0)?;
    Ok(Value::Bool(true))
}

// ---- what all of them read their arguments with ----------------------------------------------------------------

/// The kind of a value, as OPA names it.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Set(_) => "set",
        Value::Object(_) => "object",
        Value::Undefined => "undefined",
    }
}

fn wrong(at: usize, wanted: &str, found: &Value) -> String {
    format!("operand {} must be {wanted} but got {}", at.saturating_add(1), kind(found))
}

/// The argument at a position; that there are as many as the arity says is checked before.
fn operand(args: &[Value], at: usize) -> Result<&Value, String> {
    args.get(at).ok_or_else(|| format!("operand {} is missing", at.saturating_add(1)))
}

fn text(args: &[Value], at: usize) -> Result<&str, String> {
    match operand(args, at)? {
        Value::String(text) => Ok(text),
        other => Err(wrong(at, "string", other)),
    }
}

/// A whole number that fits into 64 bits.
fn integer(args: &[Value], at: usize) -> Result<i64, String> {
    match operand(args, at)? {
        Value::Number(number) if number.is_integer() => {
            number.as_i64().ok_or_else(|| format!("operand {} is too large", at.saturating_add(1)))
        }
        Value::Number(_) => {
            Err(format!("operand {} must be integer number but got floating-point number", at.saturating_add(1)))
        }
        other => Err(wrong(at, "number", other)),
    }
}

fn array(args: &[Value], at: usize) -> Result<&[Value], String> {
    match operand(args, at)? {
        Value::Array(items) => Ok(items.as_slice()),
        other => Err(wrong(at, "array", other)),
    }
}

/// The members of an array or a set.
fn members(args: &[Value], at: usize) -> Result<Vec<&Value>, String> {
    match operand(args, at)? {
        Value::Array(items) => Ok(items.iter().collect()),
        Value::Set(items) => Ok(items.iter().collect()),
        other => Err(wrong(at, "one of {set, array}", other)),
    }
}

/// The text of a member of a collection.
fn member_text(at: usize, member: &Value) -> Result<&str, String> {
    match member {
        Value::String(text) => Ok(text),
        other => Err(format!("operand {} must hold strings, not {}", at.saturating_add(1), kind(other))),
    }
}

/// A text that is about to be built: the evaluation's memory is asked first.
fn built(text: String) -> Answer {
    Ok(Value::String(text.into()))
}

/// What a list of so many values takes at least.
fn charge_values(count: usize) -> Result<(), String> {
    meter::charge(count.saturating_mul(size_of::<Value>()))
}

/// A list of values.
fn list(items: Vec<Value>) -> Value {
    Value::from(items)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests say what they expect by panicking")]
mod tests;
