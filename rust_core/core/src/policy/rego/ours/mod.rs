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

use super::{jwt, meter};
use regorus::Value;

/// What a function gives: a value, `Value::Undefined`, or why the decision fails.
pub(super) type Answer = Result<Value, String>;

/// One function.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ours {
    /// As policies call it.
    pub(super) name: &'static str,
    /// Its arguments, none of them undefined, and the decision's `now` in nanoseconds.
    pub(super) run: fn(&[Value], i64) -> Answer,
}

const fn ours(name: &'static str, run: fn(&[Value], i64) -> Answer) -> Ours {
    Ours { name, run }
}

/// All of them.
pub(super) const OURS: &[Ours] = &[
    ours("array.concat", collections::array_concat),
    ours("array.flatten", collections::array_flatten),
    ours("base64.decode", encoding::base64_decode),
    ours("base64.is_valid", encoding::base64_is_valid),
    ours("base64url.decode", encoding::base64url_decode),
    ours("bits.lsh", numbers::bits_lsh),
    ours("bits.rsh", numbers::bits_rsh),
    ours("concat", strings::concat),
    ours("count", collections::count),
    ours("crypto.hmac.equal", crypto::hmac_equal),
    ours("crypto.hmac.sha256", crypto::hmac_sha256),
    ours("crypto.hmac.sha512", crypto::hmac_sha512),
    ours("crypto.sha256", crypto::sha256),
    ours("format_int", numbers::format_int),
    ours("glob.match", globs::glob_match),
    ours("glob.quote_meta", globs::quote_meta),
    ours("hex.decode", encoding::hex_decode),
    ours("indexof", strings::indexof),
    ours("indexof_n", strings::indexof_n),
    ours("io.jwt.decode", |args, now| jwt::call("io.jwt.decode", args, now)),
    ours("io.jwt.decode_verify", |args, now| jwt::call("io.jwt.decode_verify", args, now)),
    ours("io.jwt.verify_eddsa", |args, now| jwt::call("io.jwt.verify_eddsa", args, now)),
    ours("io.jwt.verify_es256", |args, now| jwt::call("io.jwt.verify_es256", args, now)),
    ours("io.jwt.verify_es384", |args, now| jwt::call("io.jwt.verify_es384", args, now)),
    ours("io.jwt.verify_hs256", |args, now| jwt::call("io.jwt.verify_hs256", args, now)),
    ours("io.jwt.verify_hs384", |args, now| jwt::call("io.jwt.verify_hs384", args, now)),
    ours("io.jwt.verify_hs512", |args, now| jwt::call("io.jwt.verify_hs512", args, now)),
    ours("io.jwt.verify_ps256", |args, now| jwt::call("io.jwt.verify_ps256", args, now)),
    ours("io.jwt.verify_ps384", |args, now| jwt::call("io.jwt.verify_ps384", args, now)),
    ours("io.jwt.verify_ps512", |args, now| jwt::call("io.jwt.verify_ps512", args, now)),
    ours("io.jwt.verify_rs256", |args, now| jwt::call("io.jwt.verify_rs256", args, now)),
    ours("io.jwt.verify_rs384", |args, now| jwt::call("io.jwt.verify_rs384", args, now)),
    ours("io.jwt.verify_rs512", |args, now| jwt::call("io.jwt.verify_rs512", args, now)),
    ours("json.is_valid", encoding::json_is_valid),
    ours("json.marshal", encoding::json_marshal),
    ours("lower", strings::lower),
    ours("net.cidr_contains", net::contains),
    ours("net.cidr_contains_matches", net::contains_matches),
    ours("net.cidr_expand", net::expand),
    ours("net.cidr_intersects", net::intersects),
    ours("net.cidr_is_valid", net::is_valid),
    ours("numbers.range", numbers::range),
    ours("numbers.range_step", numbers::range_step),
    ours("object.subset", collections::object_subset),
    ours("object.union_n", collections::object_union_n),
    ours("product", numbers::product),
    ours("regex.find_all_string_submatch_n", regexes::find_all_submatches),
    ours("regex.find_n", regexes::find),
    ours("regex.is_valid", regexes::is_valid),
    ours("regex.match", regexes::is_match),
    ours("regex.replace", regexes::replace),
    ours("regex.split", regexes::split),
    ours("regex.template_match", regexes::template_match),
    ours("replace", strings::replace),
    ours("split", strings::split),
    ours("sprintf", format::sprintf),
    ours("strings.count", strings::count),
    ours("strings.replace_n", strings::replace_n),
    ours("strings.split_n", strings::split_n),
    ours("substring", strings::substring),
    ours("time.add_date", time::add_date),
    ours("time.clock", time::clock),
    ours("time.date", time::date),
    ours("time.diff", time::diff),
    ours("time.format", time::format),
    ours("time.now_ns", time::now_ns),
    ours("time.parse_duration_ns", time::parse_duration),
    ours("time.parse_ns", time::parse),
    ours("time.parse_rfc3339_ns", time::parse_rfc3339),
    ours("time.weekday", time::weekday),
    ours("to_number", numbers::to_number),
    ours("trace", trace),
    ours("units.parse", numbers::units_parse),
    ours("units.parse_bytes", numbers::units_parse_bytes),
    ours("upper", strings::upper),
    ours("urlquery.decode", encoding::urlquery_decode),
    ours("urlquery.decode_object", encoding::urlquery_decode_object),
    ours("urlquery.encode", encoding::urlquery_encode),
    ours("urlquery.encode_object", encoding::urlquery_encode_object),
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

/// A text that was built, as an answer; `charged` counts it.
#[expect(clippy::unnecessary_wraps, reason = "the last step of functions that can fail before")]
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
