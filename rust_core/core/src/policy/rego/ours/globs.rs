//! `glob.match`: a pattern of OPA's as a regular expression, which takes time linear in the text.

use super::{Answer, array, built, meter, operand, regexes, text, wrong};
use regorus::Value;
use std::{fmt::Write as _, iter::Peekable, str::Chars};

/// Letters with a meaning of their own, which `glob.quote_meta` escapes.
const SPECIAL: &[char] = &['*', '?', '\\', '[', ']', '{', '}'];

pub(super) fn glob_match(args: &[Value], _: i64) -> Answer {
    let (pattern, candidate) = (text(args, 0)?, text(args, 2)?);
    let separators = match operand(args, 1)? {
        Value::Null => Vec::new(),
        Value::Array(items) if items.is_empty() => vec!['.'],
        Value::Array(_) => array(args, 1)?.iter().map(separator).collect::<Result<_, _>>()?,
        other => return Err(wrong(1, "one of {array, null}", other)),
    };
    let expression = expression(pattern, &separators)?;
    Ok(Value::Bool(regexes::compiled(&expression)?.is_match(candidate)))
}

fn separator(item: &Value) -> Result<char, String> {
    let Value::String(letters) = item else {
        return Err("operand 2 must hold strings".to_owned());
    };
    let mut letters = letters.chars();
    match (letters.next(), letters.next()) {
        (Some(letter), None) => Ok(letter),
        _ => Err("operand 2 must hold single letters".to_owned()),
    }
}

pub(super) fn quote_meta(args: &[Value], _: i64) -> Answer {
    let plain = text(args, 0)?;
    meter::charge(plain.len().saturating_mul(2))?;
    let mut quoted = String::new();
    for letter in plain.chars() {
        if SPECIAL.contains(&letter) {
            quoted.push('\\');
        }
        quoted.push(letter);
    }
    built(quoted)
}

/// A letter that stands for itself, within a class or without.
fn literal(letter: char, into: &mut String) {
    let _ = write!(into, "\\x{{{:x}}}", u32::from(letter));
}

fn one_of(letters: &[char], negated: bool, into: &mut String) {
    into.push_str(if negated { "[^" } else { "[" });
    for letter in letters {
        literal(*letter, into);
    }
    into.push(']');
}

/// The pattern as an expression for whole texts.
fn expression(pattern: &str, separators: &[char]) -> Result<String, String> {
    let mut made = String::from("(?s)^(?:");
    let mut letters = pattern.chars().peekable();
    let mut depth = 0_usize;
    let any = |into: &mut String| {
        if separators.is_empty() { into.push('.') } else { one_of(separators, true, into) }
    };
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => literal(letters.next().ok_or("the pattern ends with a backslash")?, &mut made),
            '*' if letters.next_if_eq(&'*').is_some() => made.push_str(".*"),
            '*' => {
                any(&mut made);
                made.push('*');
            }
            '?' => any(&mut made),
            '[' => class(&mut letters, &mut made)?,
            '{' => {
                depth = depth.saturating_add(1);
                made.push_str("(?:");
            }
            '}' if depth > 0 => {
                depth = depth.saturating_sub(1);
                made.push(')');
            }
            ',' if depth > 0 => made.push('|'),
            other => literal(other, &mut made),
        }
    }
    if depth > 0 {
        return Err("the pattern has an open `{`".to_owned());
    }
    made.push_str(")$");
    Ok(made)
}

/// `[a-z]` or `[abc]`, either with `!` before it; after its opening bracket.
fn class(letters: &mut Peekable<Chars<'_>>, into: &mut String) -> Result<(), String> {
    let open = "the pattern has a `[` that is not closed as a class";
    let negated = letters.next_if_eq(&'!').is_some();
    let first = letters.next().ok_or(open)?;
    if letters.next_if_eq(&'-').is_some() {
        let last = letters.next().ok_or(open)?;
        if last < first || letters.next() != Some(']') {
            return Err(open.to_owned());
        }
        into.push_str(if negated { "[^" } else { "[" });
        literal(first, into);
        into.push('-');
        literal(last, into);
        into.push(']');
        return Ok(());
    }
    let mut listed = Vec::new();
    let mut next = Some(first);
    while let Some(letter) = next {
        match letter {
            ']' if listed.is_empty() => return Err(open.to_owned()),
            ']' => {
                one_of(&listed, negated, into);
                return Ok(());
            }
            '\\' => listed.push(letters.next().ok_or(open)?),
            other => listed.push(other),
        }
        next = letters.next();
    }
    Err(open.to_owned())
}
