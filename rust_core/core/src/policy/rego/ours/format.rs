//! `sprintf`, as far as Go's `fmt` makes sense of what it is given; where Go would write a complaint into the text
//! (`%!d(string=x)`), the decision fails instead.

use super::{Answer, array, built, kind, meter, text};
use regorus::Value;
use std::fmt::Write as _;

/// Widest field and most decimals: a policy that wants more wants to fill memory.
const MAX_WIDTH: usize = 1_000;

/// What stands between `%` and the verb.
#[derive(Default)]
struct Field {
    minus: bool,
    plus: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

pub(super) fn sprintf(args: &[Value], _: i64) -> Answer {
    let (pattern, values) = (text(args, 0)?, array(args, 1)?);
    let mut made = String::new();
    let mut values = values.iter();
    let mut letters = pattern.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            made.push(letter);
            continue;
        }
        let (field, verb) = field(&mut letters)?;
        if verb == '%' {
            made.push('%');
            continue;
        }
        let value = values.next().ok_or_else(|| format!("no value for `%{verb}`"))?;
        let piece = padded(&field, written(&field, verb, value)?, value);
        meter::charge(piece.len())?;
        made.push_str(&piece);
    }
    if values.next().is_some() {
        return Err("more values than verbs".to_owned());
    }
    meter::charge(made.len())?;
    built(made)
}

fn field(letters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<(Field, char), String> {
    let mut field = Field::default();
    while let Some(flag) = letters.next_if(|letter| matches!(letter, '-' | '+' | '0')) {
        match flag {
            '-' => field.minus = true,
            '+' => field.plus = true,
            _ => field.zero = true,
        }
    }
    field.width = number(letters)?;
    if letters.next_if_eq(&'.').is_some() {
        field.precision = Some(number(letters)?.unwrap_or(0));
    }
    let verb = letters.next().ok_or("the text ends within a verb")?;
    Ok((field, verb))
}

fn number(letters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Option<usize>, String> {
    let mut number: Option<usize> = None;
    while let Some(digit) = letters.next_if(char::is_ascii_digit).and_then(|letter| letter.to_digit(10)) {
        let next = number.unwrap_or(0).saturating_mul(10).saturating_add(digit as usize);
        if next > MAX_WIDTH {
            return Err(format!("a field is wider than {MAX_WIDTH}"));
        }
        number = Some(next);
    }
    Ok(number)
}

fn written(field: &Field, verb: char, value: &Value) -> Result<String, String> {
    let complaint = || format!("`%{verb}` can't write a {}", kind(value));
    match (verb, value) {
        ('s' | 'v', Value::String(text)) if !(verb == 'v' && field.precision.is_some()) => Ok(cut(field, text)),
        ('q', Value::String(text)) => quoted(&cut(field, text)),
        ('v', Value::Number(number)) if field.precision.is_none() => Ok(if number.is_integer() {
            signed(field, number.format_decimal())
        } else {
            signed(field, general(number.as_f64().ok_or_else(complaint)?, 21))
        }),
        ('d' | 'x' | 'X' | 'o' | 'b', Value::Number(number)) if number.is_integer() && field.precision.is_none() => {
            let digits = number.abs();
            let digits = match verb {
                'd' => digits.format_decimal(),
                'x' => digits.format_hex(),
                'X' => digits.format_hex().to_uppercase(),
                'o' => digits.format_octal(),
                _ => digits.format_bin(),
            };
            let negative = number.format_decimal().starts_with('-');
            Ok(signed(field, if negative { format!("-{digits}") } else { digits }))
        }
        // A whole number may have been written `1` or `1.0`, which Go tells apart and this engine does not.
        ('f' | 'F' | 'g', Value::Number(number)) if !number.is_integer() => {
            let float = number.as_f64().ok_or_else(complaint)?;
            match (verb, field.precision) {
                ('g', None) => Ok(signed(field, general(float, 6))),
                ('g', Some(_)) => Err(complaint()),
                (_, precision) => Ok(signed(field, format!("{float:.*}", precision.unwrap_or(6)))),
            }
        }
        ('s' | 'v', Value::Null | Value::Bool(_) | Value::Array(_) | Value::Set(_) | Value::Object(_))
            if field.precision.is_none() =>
        {
            let mut shown = String::new();
            show(value, &mut shown)?;
            Ok(shown)
        }
        _ => Err(complaint()),
    }
}

fn cut(field: &Field, text: &str) -> String {
    field.precision.map_or_else(|| text.to_owned(), |letters| text.chars().take(letters).collect())
}

fn signed(field: &Field, digits: String) -> String {
    if field.plus && !digits.starts_with('-') { format!("+{digits}") } else { digits }
}

fn padded(field: &Field, piece: String, value: &Value) -> String {
    let missing = field.width.unwrap_or(0).saturating_sub(piece.chars().count());
    if missing == 0 {
        return piece;
    }
    if field.minus {
        return piece + &" ".repeat(missing);
    }
    if !field.zero {
        return " ".repeat(missing) + &piece;
    }
    let sign = piece.get(..1).filter(|first| matches!(value, Value::Number(_)) && matches!(*first, "-" | "+"));
    let rest = piece.get(sign.map_or(0, str::len)..).unwrap_or_default();
    format!("{}{}{rest}", sign.unwrap_or_default(), "0".repeat(missing))
}

/// Go's shortest form of a number that is not whole: with an exponent below 10⁻⁴ and from `10^above` on.
fn general(float: f64, above: i32) -> String {
    let shortest = format!("{float:e}");
    let Some((digits, exponent)) = shortest.split_once('e') else {
        return shortest;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if exponent < -4 || exponent >= above {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.unsigned_abs());
    }
    format!("{float}")
}

/// A text in quotes, as Go's `strconv.Quote` and OPA's values write it.
fn quoted(text: &str) -> Result<String, String> {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            '\0'..='\u{1f}' | '\u{7f}' => {
                let _ = write!(quoted, "\\x{:02x}", u32::from(letter));
            }
            ' '..='~' => quoted.push(letter),
            _ if is_unprintable(letter) => {
                return Err(format!("the letter U+{:04X} can't be written in quotes", u32::from(letter)));
            }
            _ => quoted.push(letter),
        }
    }
    quoted.push('"');
    Ok(quoted)
}

/// Letters outside ASCII that Go escapes: spaces, controls, formats, private ones.
fn is_unprintable(letter: char) -> bool {
    letter.is_control()
        || letter.is_whitespace()
        || matches!(
            letter,
            '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{8e2}' | '\u{180e}'
                | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{e000}'..='\u{f8ff}'
                | '\u{fdd0}'..='\u{fdef}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{fffe}'..='\u{ffff}'
                | '\u{e0000}'..
        )
}

/// A value as OPA writes it.
fn show(value: &Value, into: &mut String) -> Result<(), String> {
    match value {
        Value::Null => into.push_str("null"),
        Value::Bool(yes) => into.push_str(if *yes { "true" } else { "false" }),
        Value::Number(number) => into.push_str(&number.format_decimal()),
        Value::String(text) => into.push_str(&quoted(text)?),
        Value::Array(items) => show_all(items.iter(), ["[", "]"], into)?,
        Value::Set(items) if items.is_empty() => into.push_str("set()"),
        Value::Set(items) => show_all(items.iter(), ["{", "}"], into)?,
        Value::Object(fields) => {
            into.push('{');
            for (nth, (key, value)) in fields.iter_sorted().enumerate() {
                into.push_str(if nth == 0 { "" } else { ", " });
                show(key, into)?;
                into.push_str(": ");
                show(value, into)?;
            }
            into.push('}');
        }
        Value::Undefined => return Err("a value is undefined".to_owned()),
    }
    Ok(())
}

fn show_all<'v>(
    items: impl Iterator<Item = &'v Value>,
    [open, close]: [&str; 2],
    into: &mut String,
) -> Result<(), String> {
    into.push_str(open);
    for (nth, item) in items.enumerate() {
        into.push_str(if nth == 0 { "" } else { ", " });
        show(item, into)?;
    }
    into.push_str(close);
    Ok(())
}
