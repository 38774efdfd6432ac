//! `regex.*`: Go's expressions, run by an engine of the same kind, which takes time linear in the text.

use super::{Answer, built, charge_values, integer, list, meter, regexes_go, text};
use regex::{Captures, Regex, RegexBuilder};
use regorus::Value;
use std::{cell::RefCell, collections::HashMap, rc::Rc};

/// Largest compiled expression in memory: the usual one has some kilobytes.
const MAX_COMPILED_BYTES: usize = 1 << 20;

/// Longest expression in letters.
const MAX_LETTERS: usize = 4_096;

/// How many compiled expressions a thread keeps. Policies have a handful; more come from data that is being looked through.
const KEPT: usize = 256;

thread_local! {
    /// Compiled once, not for each decision. Nothing depends on it but time.
    static COMPILED: RefCell<HashMap<String, Rc<Regex>>> = RefCell::default();
}

/// An expression of the engine's own dialect, compiled. It is shared: a copy would begin with an empty cache.
pub(super) fn compiled(expression: &str) -> Result<Rc<Regex>, String> {
    COMPILED.with_borrow_mut(|kept| {
        if let Some(regex) = kept.get(expression) {
            return Ok(Rc::clone(regex));
        }
        let regex = RegexBuilder::new(expression)
            .size_limit(MAX_COMPILED_BYTES)
            .build()
            .map_err(|_| "error parsing regexp, or one too large".to_owned())?;
        let regex = Rc::new(regex);
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(expression.to_owned(), Rc::clone(&regex));
        Ok(regex)
    })
}

/// An expression of Go's, compiled.
fn go(pattern: &str) -> Result<Rc<Regex>, String> {
    if pattern.len() > MAX_LETTERS {
        return Err(format!("the expression has more than {MAX_LETTERS} letters"));
    }
    compiled(&regexes_go::translated(pattern)?)
}

pub(super) fn is_match(args: &[Value], _: i64) -> Answer {
    Ok(Value::Bool(go(text(args, 0)?)?.is_match(text(args, 1)?)))
}

/// What Go would refuse for certain is not valid; what only this server refuses is an error, not a no.
pub(super) fn is_valid(args: &[Value], _: i64) -> Answer {
    let Some(Value::String(pattern)) = args.first() else {
        return Ok(Value::Bool(false));
    };
    if regexes_go::is_hopeless(pattern) {
        return Ok(Value::Bool(false));
    }
    go(pattern).map(|_| Value::Bool(true))
}

/// Go's limit: negative for none.
fn limit(args: &[Value]) -> Result<usize, String> {
    Ok(usize::try_from(integer(args, 2)?).unwrap_or(usize::MAX))
}

fn string(text: &str) -> Value {
    Value::String(text.into())
}

pub(super) fn find(args: &[Value], _: i64) -> Answer {
    let (regex, whole) = (go(text(args, 0)?)?, text(args, 1)?);
    let mut found = Vec::new();
    for part in regex.find_iter(whole).take(limit(args)?) {
        charge_values(1)?;
        meter::charge(part.len())?;
        found.push(string(part.as_str()));
    }
    Ok(list(found))
}

pub(super) fn find_all_submatches(args: &[Value], _: i64) -> Answer {
    let (regex, whole) = (go(text(args, 0)?)?, text(args, 1)?);
    let mut found = Vec::new();
    for groups in regex.captures_iter(whole).take(limit(args)?) {
        let mut one = Vec::new();
        for group in groups.iter() {
            let part = group.map_or("", |group| group.as_str());
            charge_values(1)?;
            meter::charge(part.len())?;
            one.push(string(part));
        }
        found.push(list(one));
    }
    Ok(list(found))
}

pub(super) fn split(args: &[Value], _: i64) -> Answer {
    let (pattern, whole) = (text(args, 0)?, text(args, 1)?);
    let regex = go(pattern)?;
    if !pattern.is_empty() && whole.is_empty() {
        return Ok(list(vec![string("")]));
    }
    let mut parts = Vec::new();
    let mut start = 0;
    let mut part = |from: usize, to: usize| {
        let piece = whole.get(from..to).unwrap_or_default();
        charge_values(1)?;
        meter::charge(piece.len())?;
        parts.push(string(piece));
        Ok::<_, String>(())
    };
    let mut end = 0;
    for found in regex.find_iter(whole) {
        end = found.start();
        // An empty match at the very beginning parts nothing.
        if found.end() != 0 {
            part(start, end)?;
        }
        start = found.end();
    }
    if end != whole.len() {
        part(start, whole.len())?;
    }
    Ok(list(parts))
}

pub(super) fn replace(args: &[Value], _: i64) -> Answer {
    let (whole, template) = (text(args, 0)?, text(args, 2)?);
    let regex = go(text(args, 1)?)?;
    let mut made = String::new();
    let mut rest = 0;
    for groups in regex.captures_iter(whole) {
        let Some(found) = groups.get(0) else { continue };
        let before = made.len();
        made.push_str(whole.get(rest..found.start()).unwrap_or_default());
        expand(template, &groups, &mut made);
        meter::charge(made.len().saturating_sub(before))?;
        rest = found.end();
    }
    made.push_str(whole.get(rest..).unwrap_or_default());
    meter::charge(made.len())?;
    built(made)
}

/// Go's `Expand`: `$1`, `$name`, `${name}`, `$$`; a `$` that begins none of them stands for itself.
fn expand(template: &str, groups: &Captures<'_>, into: &mut String) {
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        into.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            into.push('$');
            rest = after;
            continue;
        }
        let Some((name, after)) = name(after) else {
            into.push('$');
            rest = after;
            continue;
        };
        let group = match name.parse::<usize>() {
            Ok(nth) if name.bytes().all(|byte| byte.is_ascii_digit()) && (nth == 0 || !name.starts_with('0')) => {
                groups.get(nth)
            }
            _ => groups.name(name),
        };
        into.push_str(group.map_or("", |group| group.as_str()));
        rest = after;
    }
    into.push_str(rest);
}

/// The name that follows a `$`, and what comes after it.
fn name(after: &str) -> Option<(&str, &str)> {
    let of_name = |letter: char| letter == '_' || letter.is_alphanumeric();
    if let Some(braced) = after.strip_prefix('{') {
        let (name, rest) = braced.split_once('}')?;
        return (!name.is_empty() && name.chars().all(of_name)).then_some((name, rest));
    }
    let end = after.find(|letter| !of_name(letter)).unwrap_or(after.len());
    (end > 0).then(|| after.split_at(end))
}

/// Text with expressions between two delimiters, for whole texts.
pub(super) fn template_match(args: &[Value], _: i64) -> Answer {
    let (template, candidate) = (text(args, 0)?, text(args, 1)?);
    let (open, close) = (delimiter(args, 2)?, delimiter(args, 3)?);
    let mut made = String::from("^");
    let mut depth = 0_usize;
    let mut piece = String::new();
    for letter in template.chars() {
        if letter == open {
            depth = depth.saturating_add(1);
            if depth == 1 {
                made.push_str(&regex::escape(&piece));
                piece.clear();
                continue;
            }
        } else if letter == close {
            depth = depth.checked_sub(1).ok_or("the template has a delimiter too many")?;
            if depth == 0 {
                // Each stands alone, so that none can close the group around it.
                go(&piece)?;
                made.extend(["(", &regexes_go::translated(&piece)?, ")"]);
                piece.clear();
                continue;
            }
        }
        piece.push(letter);
    }
    if depth > 0 {
        return Err("the template has a delimiter that is not closed".to_owned());
    }
    made.push_str(&regex::escape(&piece));
    made.push('$');
    Ok(Value::Bool(compiled(&made)?.is_match(candidate)))
}

fn delimiter(args: &[Value], at: usize) -> Result<char, String> {
    let mut letters = text(args, at)?.chars();
    match (letters.next(), letters.next()) {
        (Some(letter), None) if letter.is_ascii() => Ok(letter),
        _ => Err("a delimiter has to be exactly one character long".to_owned()),
    }
}
