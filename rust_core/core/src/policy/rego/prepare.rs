//! From checked files to an interpreter that is ready to be copied.

use super::{
    checks::{SETTINGS, dotted},
    functions, meter, parse,
};
use crate::findings::{Findings, Place};
use regorus::{Engine, Rc, Value};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The file that becomes `data`.
pub(super) const DATA: &str = "data.json";
/// Name of the module that asks for a document, where the entry point is no rule.
const ENTRY: &str = "signalwarden.rego";

/// `data`, an empty object where the directory gives none.
pub(super) fn data(text: Option<&str>, findings: &mut Findings) -> Value {
    let Some(text) = text else { return Value::new_object() };
    match Value::from_json_str(text) {
        Ok(data @ Value::Object(_)) => data,
        Ok(_) => {
            findings.error(DATA, Place::default(), "wrong_type", "expected an object");
            Value::new_object()
        }
        Err(error) => {
            findings.error(DATA, Place::default(), "syntax", error.to_string());
            Value::new_object()
        }
    }
}

/// The interpreter, and what it is to be asked for.
pub(super) fn engine(
    files: &[(&str, &str)],
    data: Value,
    path: &[String],
    is_rule: bool,
    findings: &mut Findings,
) -> Option<(Engine, String)> {
    meter::begin(0);
    // What the interpreter finds wrong it says; should it panic, that is a file that can't be run.
    let made = catch_unwind(AssertUnwindSafe(|| make(files, data, path, is_rule)))
        .unwrap_or_else(|_| Err("the interpreter fails on these files; this is a bug of ours".to_owned()));
    match made {
        Ok(made) => Some(made),
        Err(error) => {
            let (place, message) = parse::said(&error);
            let named = error.split_once("--> ").map_or("", |(_, rest)| rest);
            let file = files.iter().map(|(file, _)| *file).find(|file| named.starts_with(file));
            findings.error(file.unwrap_or(SETTINGS), place, "bad_rego", message);
            None
        }
    }
}

fn make(files: &[(&str, &str)], data: Value, path: &[String], is_rule: bool) -> Result<(Engine, String), String> {
    let said = |error: anyhow::Error| error.to_string();
    let mut engine = Engine::new();
    if let Some(lengths) = parse::lengths() {
        engine.set_policy_length_config(lengths);
    }
    // INVARIANT: a built-in that fails is an error of the decision, never a rule that does not apply.
    engine.set_strict_builtin_errors(true);
    functions::register(&mut engine)?;
    for (file, text) in files {
        engine.add_policy((*file).to_owned(), (*text).to_owned()).map_err(said)?;
    }
    engine.add_data(data).map_err(said)?;
    let mut query = dotted(path);
    if !is_rule {
        let module = format!("package {}.entry\n\nanswer := {query}\n", parse::OURS);
        engine.add_policy(ENTRY.to_owned(), module).map_err(said)?;
        query = format!("data.{}.entry.answer", parse::OURS);
    }
    engine.set_execution_timer_config(meter::config().ok_or("the interpreter takes no budget of ours")?);
    engine.compile_with_entrypoint(&Rc::from(query.as_str())).map_err(said)?;
    Ok((engine, query))
}
