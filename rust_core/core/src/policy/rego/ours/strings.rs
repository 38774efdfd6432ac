//! Functions of texts, in Unicode's characters as OPA counts them.

use super::{Answer, built, charge_values, list, member_text, members, meter, operand, text, wrong};
use regorus::Value;

pub(super) fn concat(args: &[Value], _: i64) -> Answer {
    let between = text(args, 0)?;
    let parts = members(args, 1)?.into_iter().map(|part| member_text(1, part)).collect::<Result<Vec<_>, _>>()?;
    let letters = parts.iter().fold(0usize, |sum, part| sum.saturating_add(part.len()));
    meter::charge(letters.saturating_add(between.len().saturating_mul(parts.len())))?;
    built(parts.join(between))
}

/// The characters' positions at which `wanted` stands in a text; overlapping ones, too.
fn positions<'t>(whole: &'t str, wanted: &'t str) -> impl Iterator<Item = usize> + 't {
    whole
        .char_indices()
        .enumerate()
        .filter_map(move |(nth, (at, _))| whole.get(at..).is_some_and(|rest| rest.starts_with(wanted)).then_some(nth))
}

fn searched(args: &[Value]) -> Result<(&str, &str), String> {
    let (whole, wanted) = (text(args, 0)?, text(args, 1)?);
    if wanted.is_empty() { Err("empty search character".to_owned()) } else { Ok((whole, wanted)) }
}

fn position(nth: usize) -> Value {
    Value::from(nth as u64)
}

pub(super) fn indexof(args: &[Value], _: i64) -> Answer {
    let (whole, wanted) = searched(args)?;
    Ok(positions(whole, wanted).next().map_or_else(|| Value::from(-1_i64), position))
}

pub(super) fn indexof_n(args: &[Value], _: i64) -> Answer {
    let (whole, wanted) = searched(args)?;
    charge_values(whole.len())?;
    Ok(list(positions(whole, wanted).map(position).collect()))
}

/// One letter for one letter, as Go maps them. Where Unicode's full mapping has several, the two would differ.
fn mapped(whole: &str, map: impl Fn(char) -> Option<char>) -> Answer {
    meter::charge(whole.len())?;
    built(
        whole
            .chars()
            .map(|letter| map(letter).ok_or_else(|| format!("the letter `{letter}` has no other case of one letter")))
            .collect::<Result<_, _>>()?,
    )
}

fn only(mut letters: impl Iterator<Item = char>) -> Option<char> {
    let first = letters.next();
    if letters.next().is_some() { None } else { first }
}

pub(super) fn lower(args: &[Value], _: i64) -> Answer {
    mapped(text(args, 0)?, |letter| if letter == 'İ' { Some('i') } else { only(letter.to_lowercase()) })
}

pub(super) fn upper(args: &[Value], _: i64) -> Answer {
    mapped(text(args, 0)?, |letter| only(letter.to_uppercase()))
}

pub(super) fn replace(args: &[Value], _: i64) -> Answer {
    let (whole, old, new) = (text(args, 0)?, text(args, 1)?, text(args, 2)?);
    // OPA puts it between the bytes of a letter, too, which are no text any more.
    if old.is_empty() && !whole.is_ascii() {
        return Err("nothing can be replaced within a text of other letters than ASCII's".to_owned());
    }
    let times = if old.is_empty() { whole.chars().count().saturating_add(1) } else { whole.matches(old).count() };
    meter::charge(whole.len().saturating_add(times.saturating_mul(new.len())))?;
    built(whole.replace(old, new))
}

/// All at once: at each place the first pattern in order that stands there, and what was put in is not looked at again.
pub(super) fn replace_n(args: &[Value], _: i64) -> Answer {
    let Value::Object(patterns) = operand(args, 0)? else {
        return Err(wrong(0, "object", operand(args, 0)?));
    };
    let whole = text(args, 1)?;
    let mut pairs = Vec::new();
    for (old, new) in patterns.iter_sorted() {
        let (Value::String(old), Value::String(new)) = (old, new) else {
            return Err("operand 1 must hold strings under strings".to_owned());
        };
        if old.is_empty() {
            return Err("operand 1 has an empty pattern, which stands everywhere".to_owned());
        }
        pairs.push((&**old, &**new));
    }
    let mut made = String::new();
    let mut rest = whole;
    while let Some(letter) = rest.chars().next() {
        let found = pairs.iter().find(|(old, _)| rest.starts_with(*old));
        let (skipped, put) = found.map_or((letter.len_utf8(), None), |(old, new)| (old.len(), Some(*new)));
        let put = put.or_else(|| rest.get(..skipped)).unwrap_or_default();
        meter::charge(put.len())?;
        made.push_str(put);
        rest = rest.get(skipped..).unwrap_or_default();
    }
    built(made)
}

/// How often it stands there, one not within the other; an empty one stands between all letters.
pub(super) fn count(args: &[Value], _: i64) -> Answer {
    let (whole, wanted) = (text(args, 0)?, text(args, 1)?);
    let count = if wanted.is_empty() { whole.chars().count().saturating_add(1) } else { whole.matches(wanted).count() };
    Ok(position(count))
}

/// The parts of a text between separators; letter by letter without one.
fn parts<'t>(whole: &'t str, separator: &str) -> Vec<&'t str> {
    if separator.is_empty() {
        whole.char_indices().filter_map(|(at, letter)| whole.get(at..at.saturating_add(letter.len_utf8()))).collect()
    } else {
        whole.split(separator).collect()
    }
}

fn texts<'t>(parts: impl IntoIterator<Item = &'t str>) -> Value {
    list(parts.into_iter().map(|part| Value::String(part.into())).collect())
}

pub(super) fn split(args: &[Value], _: i64) -> Answer {
    let (whole, separator) = (text(args, 0)?, text(args, 1)?);
    // Where the separator does not stand in it, it is the only part, even an empty one.
    if !whole.contains(separator) {
        return Ok(texts([whole]));
    }
    let parts = parts(whole, separator);
    charge_values(parts.len())?;
    meter::charge(whole.len())?;
    Ok(texts(parts))
}

/// The first `n` parts, or the last for a negative `n`.
pub(super) fn split_n(args: &[Value], _: i64) -> Answer {
    let (whole, separator, wanted) = (text(args, 0)?, text(args, 1)?, super::integer(args, 2)?);
    let parts = parts(whole, separator);
    let most = usize::try_from(wanted.unsigned_abs()).unwrap_or(usize::MAX).min(parts.len());
    charge_values(most)?;
    meter::charge(whole.len())?;
    let skipped = if wanted < 0 { parts.len().saturating_sub(most) } else { 0 };
    Ok(texts(parts.into_iter().skip(skipped).take(most)))
}

pub(super) fn substring(args: &[Value], _: i64) -> Answer {
    let (whole, start, length) = (text(args, 0)?, super::integer(args, 1)?, super::integer(args, 2)?);
    let start = usize::try_from(start).map_err(|_| "negative offset".to_owned())?;
    meter::charge(whole.len())?;
    let rest = whole.chars().skip(start);
    // A negative length means: to the end.
    built(usize::try_from(length).map_or_else(|_| rest.clone().collect(), |length| rest.clone().take(length).collect()))
}
