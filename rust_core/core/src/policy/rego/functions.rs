//! The functions that policies may call beside their own. Each is registered with the interpreter as one of ours, so that
//! what it reads and makes is charged to the evaluation before anything large is built.

use super::{builtins, meter, ours};
use crate::limits::{MAX_REGO_BYTES, MAX_REGO_VALUE_DEPTH};
use regorus::{
    Engine, Source, Value,
    unstable::{BUILTINS, Expr, Ref, Span},
};
use std::collections::BTreeMap;

/// The iterator of documents: the interpreter drives it itself.
const WALK: &str = "walk";
/// Bytes that an entry of a list, a set or an object takes beside what it holds.
const BYTES_PER_ENTRY: usize = 32;

/// The name of each built-in that may be called, with its number of arguments; `None`: any number.
pub(super) fn known() -> BTreeMap<&'static str, Option<u8>> {
    let all = builtins::supported().map(|name| (name, builtins::arity(name)));
    all.collect()
}

/// Whether a further argument may take the result of a built-in: the interpreter knows that of its own.
pub(super) fn takes_result(name: &str) -> bool {
    BUILTINS.contains_key(name)
}

/// Registers every built-in under its own name: the interpreter looks there before it looks among its own.
pub(super) fn register(engine: &mut Engine) -> Result<(), String> {
    for (name, arity) in known() {
        let (Some(arity), false) = (arity, name == WALK) else { continue };
        let function: Box<dyn regorus::Extension> = if let Some(ours) = ours::OURS.iter().find(|ours| ours.name == name)
        {
            Box::new(move |args: Vec<Value>| charged(name, &args, || (ours.run)(&args, meter::now_ns())))
        } else {
            let dummy = dummy(name, arity)?;
            let Some((function, _)) = BUILTINS.get(name).copied() else { continue };
            Box::new(move |args: Vec<Value>| {
                charged(name, &args, || {
                    bounded(name, &args)?;
                    let adapted = ours::adapted(name, &args)?;
                    let args = adapted.as_deref().unwrap_or(&args);
                    function(&dummy.0, dummy.1.get(..args.len()).unwrap_or_default(), args, true)
                        .map_err(|error| plain(&error.to_string()).to_owned())
                        .and_then(|given| ours::defined(name, given))
                })
            })
        };
        engine.add_extension(name.to_owned(), arity, function).map_err(|error| format!("`{name}`: {error}"))?;
    }
    Ok(())
}

/// Where the interpreter's own built-ins say that they were called: the interpreter adds the true place itself.
fn dummy(name: &str, arity: u8) -> Result<(Span, Vec<Ref<Expr>>), String> {
    let source = Source::from_contents(name.to_owned(), name.to_owned()).map_err(|error| error.to_string())?;
    let end = u32::try_from(name.len()).unwrap_or_default();
    let span = Span { source, line: 1, col: 1, start: 0, end };
    let null = || Ref::new(Expr::Null { span: span.clone(), value: Value::Null, eidx: 0 });
    let arguments = (0..arity).map(|_| null()).collect();
    Ok((span, arguments))
}

/// What an error of the interpreter says, without the drawing of its place.
pub(super) fn plain(text: &str) -> &str {
    text.rsplit_once("error: ").map_or(text, |(_, rest)| rest).trim()
}

/// Built-ins that look at no more than the outer layer of what they are given.
const SHALLOW: &[&str] = &[
    "array.slice",
    "count",
    "is_array",
    "is_boolean",
    "is_null",
    "is_number",
    "is_object",
    "is_set",
    "is_string",
    "object.get",
    "object.keys",
    "type_name",
];

fn charged(name: &str, args: &[Value], call: impl FnOnce() -> Result<Value, String>) -> anyhow::Result<Value> {
    let run = || {
        let is_shallow = SHALLOW.contains(&name);
        for arg in args {
            let read = if is_shallow { size(arg) } else { whole_size(arg)? };
            meter::work(u64::try_from(read / BYTES_READ_PER_STEP).unwrap_or(u64::MAX))?;
        }
        let made = call()?;
        meter::charge(size(&made))?;
        Ok(made)
    };
    run().map_err(|why: String| anyhow::anyhow!("`{name}`: {why}"))
}

/// How many bytes a built-in reads in about the time of one step.
const BYTES_READ_PER_STEP: usize = 512;

/// The bytes of a value with all that it holds. A value may hold a part of it a thousand times over, so that it is far larger
/// than the memory that it takes: one that is larger than all that an evaluation may make is refused.
fn whole_size(value: &Value) -> Result<usize, String> {
    fn add(value: &Value, depth: usize, left: &mut usize) -> Result<(), String> {
        *left = left.checked_sub(size(value).max(1)).filter(|_| depth < MAX_REGO_VALUE_DEPTH).ok_or_else(|| {
            format!("a value is larger than {MAX_REGO_BYTES} bytes, or nested deeper than {MAX_REGO_VALUE_DEPTH}")
        })?;
        match value {
            Value::Array(items) => items.iter().try_for_each(|item| add(item, depth + 1, left)),
            Value::Set(items) => items.iter_sorted().try_for_each(|item| add(item, depth + 1, left)),
            Value::Object(fields) => fields.iter_sorted().try_for_each(|(key, value)| {
                add(key, depth + 1, left)?;
                add(value, depth + 1, left)
            }),
            _ => Ok(()),
        }
    }
    let mut left = MAX_REGO_BYTES;
    add(value, 0, &mut left)?;
    Ok(MAX_REGO_BYTES - left)
}

/// The bytes of a value by itself: what it holds was charged when it was made.
fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.len().saturating_mul(BYTES_PER_ENTRY),
        Value::Set(items) => items.len().saturating_mul(BYTES_PER_ENTRY),
        Value::Object(fields) => fields.len().saturating_mul(2 * BYTES_PER_ENTRY),
        _ => 0,
    }
}

/// What the interpreter's own built-ins could make, where that is out of proportion to what they are given. At most one
/// budget in excess of what is left is ever made.
fn bounded(name: &str, args: &[Value]) -> Result<(), String> {
    let length = |at: usize| args.get(at).map_or(0, size);
    let wanted = match name {
        "object.union" => length(0).saturating_add(length(1)),
        "json.unmarshal" => length(0).saturating_mul(8),
        _ => 0,
    };
    if wanted > MAX_REGO_BYTES { meter::charge(wanted) } else { Ok(()) }
}
