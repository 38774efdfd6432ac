//! `f(a, out)` of a function of ours: the interpreter knows the form for its own functions only, so the statement is turned
//! into `out = f(a)`, which means the same. Lines stay where they are.

use super::{builtins, functions, walk::Reading};
use regorus::unstable::Expr;
use std::{borrow::Cow, ops::Range};

/// A statement that is a call, as an equation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Turned {
    /// Where it stands in its file, in bytes.
    place: Range<usize>,
    text: String,
}

/// The equation that a call as a whole statement would be.
pub(super) fn turned(call: &Expr) -> Option<Turned> {
    let Expr::Call { span, fcn, params, .. } = call else {
        return None;
    };
    let at = |byte: u32| usize::try_from(byte).ok();
    let text = span.source.contents();
    let place = at(span.start)?..at(span.end)?;
    // The span of a text leaves its quotes out, so what is between two arguments is looked for their comma.
    let (from, mark) = match params.iter().rev().nth(1) {
        Some(before) => (at(before.span().end)?, ','),
        None => (at(fcn.span().end)?, '('),
    };
    let between = text.get(from..at(params.last()?.span().start)?).filter(|between| !between.contains('#'))?;
    let parted = from.checked_add(between.find(mark)?)?;
    // A comment behind the last argument would swallow what is put after it.
    text.get(at(params.last()?.span().end)?..place.end).filter(|tail| !tail.contains('#'))?;
    let head = text.get(place.start..parted)?;
    let out = text.get(parted.checked_add(1)?..place.end)?.strip_suffix(')')?.trim().trim_end_matches(',');
    let open = if mark == '(' { "(" } else { "" };
    Some(Turned { text: format!("{out} = {head}{open})"), place })
}

/// Whether a function's last argument may take its result in a statement that is turned.
pub(super) fn is_turned(name: &str, args: usize) -> bool {
    !functions::takes_result(name) && builtins::arity(name).is_some_and(|arity| args == usize::from(arity) + 1)
}

/// The files as the interpreter is to read them.
pub(super) fn texts<'f>(files: &[(&'f str, &'f str)], readings: &[Reading]) -> Vec<(&'f str, Cow<'f, str>)> {
    files
        .iter()
        .map(|(file, text)| {
            let calls = readings.iter().filter(|reading| &*reading.file == *file).flat_map(|reading| &reading.calls);
            let mut turned: Vec<&Turned> = calls
                .filter(|call| is_turned(&call.path.join("."), call.args))
                .filter_map(|call| call.turned.as_ref())
                .collect();
            turned.sort_by_key(|turned| turned.place.start);
            let mut made = Cow::Borrowed(*text);
            // From the end, so that places stay right.
            for turned in turned.iter().rev() {
                if made.get(turned.place.clone()).is_some() {
                    made.to_mut().replace_range(turned.place.clone(), &turned.text);
                }
            }
            (*file, made)
        })
        .collect()
}
