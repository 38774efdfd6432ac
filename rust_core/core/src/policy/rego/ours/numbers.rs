//! Functions of numbers: those whose result can be large, and those that read numbers from texts.

use super::{Answer, built, charge_values, integer, kind, list, members, meter, operand, text, wrong};
use regorus::Value;

/// Furthest shift: a number of a thousand digits is no identifier, amount or mask of anything.
const MAX_SHIFT: i64 = 4_096;

/// Longest product in decimal digits, for the same reason.
const MAX_DIGITS: usize = 2_048;

/// Longest amount with a unit.
const MAX_AMOUNT_LETTERS: usize = 64;

/// The engine's number, which has no name outside of it.
macro_rules! number_of {
    ($args:expr, $at:expr) => {
        match operand($args, $at)? {
            Value::Number(number) => number,
            other => return Err(wrong($at, "number", other)),
        }
    };
}

macro_rules! shifted {
    ($args:expr, $way:ident) => {{
        let (number, by) = (number_of!($args, 0), number_of!($args, 1));
        if !(0..=MAX_SHIFT).contains(&integer($args, 1)?) {
            return Err(format!("operand 2 must be a number from 0 to {MAX_SHIFT}"));
        }
        if number.format_decimal().len() > MAX_DIGITS {
            return Err(format!("operand 1 has more than {MAX_DIGITS} digits"));
        }
        number.$way(by).map(Value::Number).ok_or_else(|| "operand 1 must be integer number".to_owned())
    }};
}

pub(super) fn bits_lsh(args: &[Value], _: i64) -> Answer {
    shifted!(args, lsh)
}

pub(super) fn bits_rsh(args: &[Value], _: i64) -> Answer {
    shifted!(args, rsh)
}

fn range_of(args: &[Value], step: i64) -> Answer {
    let (first, last) = (integer(args, 0)?, integer(args, 1)?);
    if step <= 0 {
        return Err("step must be a positive integer".to_owned());
    }
    let count = first.abs_diff(last) / step.unsigned_abs();
    let count = usize::try_from(count).unwrap_or(usize::MAX).saturating_add(1);
    charge_values(count)?;
    let step = if first <= last { step } else { step.saturating_neg() };
    let mut next = Some(first);
    let steps = std::iter::from_fn(|| {
        let this = next?;
        next = this.checked_add(step);
        Some(Value::from(this))
    });
    Ok(list(steps.take(count).collect()))
}

pub(super) fn range(args: &[Value], _: i64) -> Answer {
    range_of(args, 1)
}

pub(super) fn range_step(args: &[Value], _: i64) -> Answer {
    range_of(args, integer(args, 2)?)
}

pub(super) fn product(args: &[Value], _: i64) -> Answer {
    let mut product = Value::from(1_u64);
    for member in members(args, 0)? {
        let (Value::Number(before), Value::Number(factor)) = (&product, member) else {
            return Err(format!("operand 1 must hold numbers, not {}", kind(member)));
        };
        let next = before.mul(factor).map_err(|error| error.to_string())?;
        let digits = next.format_decimal().len();
        if digits > MAX_DIGITS {
            return Err(format!("the product has more than {MAX_DIGITS} digits"));
        }
        meter::charge(digits)?;
        product = Value::Number(next);
    }
    Ok(product)
}

/// In base 2, 8, 10 or 16; what is not whole is cut towards zero.
pub(super) fn format_int(args: &[Value], _: i64) -> Answer {
    let number = number_of!(args, 0);
    let base = integer(args, 1)?;
    let negative = number.format_decimal().starts_with('-');
    let digits = number.abs().floor();
    let digits = match base {
        2 => digits.format_bin(),
        8 => digits.format_octal(),
        10 => digits.format_decimal(),
        16 => digits.format_hex(),
        _ => return Err("operand 2 must be one of {2, 8, 10, 16}".to_owned()),
    };
    meter::charge(digits.len())?;
    built(if negative && digits != "0" { format!("-{digits}") } else { digits })
}

/// As JSON writes numbers; Go's reader takes some more forms (`+5`, `.5`, `0x1`), which are errors here.
pub(super) fn to_number(args: &[Value], _: i64) -> Answer {
    match operand(args, 0)? {
        Value::Null | Value::Bool(false) => Ok(Value::from(0_u64)),
        Value::Bool(true) => Ok(Value::from(1_u64)),
        Value::Number(number) => Ok(Value::Number(number.clone())),
        Value::String(text) => from_json(text).ok_or_else(|| "operand 1 must be a number of JSON".to_owned()),
        other => Err(wrong(0, "one of {null, boolean, number, string}", other)),
    }
}

fn from_json(text: &str) -> Option<Value> {
    let plain = text.len() <= MAX_DIGITS && !text.is_empty();
    let plain = plain && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'));
    Value::from_json_str(text).ok().filter(|value| plain && matches!(value, Value::Number(_)))
}

// ---- amounts with a unit -----------------------------------------------------------------------------------------

/// The digits of an amount and its unit. OPA takes exponents and signs within; here they are errors, for `1e` is a
/// thousand quadrillions and `1e1` is ten.
fn amount(args: &[Value]) -> Result<(String, String), String> {
    let bare = text(args, 0)?.replace('"', "");
    if bare.len() > MAX_AMOUNT_LETTERS {
        return Err("the amount is too long".to_owned());
    }
    if bare.contains(' ') {
        return Err("spaces not allowed in resource strings".to_owned());
    }
    let end = bare.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(bare.len());
    let (digits, unit) = bare.split_at(end);
    if digits.is_empty() {
        return Err("no amount provided".to_owned());
    }
    if unit.starts_with(['e', 'E'])
        && unit
            .get(1..2)
            .is_some_and(|next| next.starts_with(['+', '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']))
    {
        return Err("an amount with an exponent is not taken".to_owned());
    }
    Ok((digits.to_owned(), unit.to_owned()))
}

/// Digits with at most one point, as digits before and after it.
fn decimal(digits: &str) -> Result<(&str, &str), String> {
    let (before, after) = digits.split_once('.').unwrap_or((digits, ""));
    if after.contains('.') || (before.is_empty() && after.is_empty()) {
        return Err("could not parse amount to a number".to_owned());
    }
    Ok((before, after))
}

/// `digits × factor` as whole digits and digits after the point.
fn times(digits: &str, factor: u128) -> Result<(u128, String), String> {
    let too_large = || "the amount is too large".to_owned();
    let (before, after) = decimal(digits)?;
    let scale = 10_u128.checked_pow(u32::try_from(after.len()).unwrap_or(u32::MAX)).ok_or_else(too_large)?;
    let all: u128 = format!("0{before}{after}").parse().map_err(|_| too_large())?;
    let all = all.checked_mul(factor).ok_or_else(too_large)?;
    let (whole, rest) = (all.checked_div(scale).unwrap_or(0), all.checked_rem(scale).unwrap_or(0));
    let rest = format!("{rest:0>width$}", width = after.len());
    Ok((whole, rest.trim_end_matches('0').to_owned()))
}

fn power(base: u128, nth: u32) -> u128 {
    base.saturating_pow(nth)
}

pub(super) fn units_parse(args: &[Value], _: i64) -> Answer {
    let (digits, unit) = amount(args)?;
    let mut letters = unit.chars();
    let first = letters.next();
    let rest = letters.as_str().to_lowercase();
    let (factor, thousandths) = match (first, rest.as_str()) {
        (None, "") => (1, false),
        (Some('m'), "") => (1, true),
        (Some('k' | 'K'), "") => (1_000, false),
        (Some('M'), "") => (power(1_000, 2), false),
        (Some('g' | 'G'), "") => (power(1_000, 3), false),
        (Some('t' | 'T'), "") => (power(1_000, 4), false),
        (Some('p' | 'P'), "") => (power(1_000, 5), false),
        (Some('e' | 'E'), "") => (power(1_000, 6), false),
        (Some('k' | 'K'), "i") => (1_024, false),
        (Some('m' | 'M'), "i") => (power(1_024, 2), false),
        (Some('g' | 'G'), "i") => (power(1_024, 3), false),
        (Some('t' | 'T'), "i") => (power(1_024, 4), false),
        (Some('p' | 'P'), "i") => (power(1_024, 5), false),
        (Some('e' | 'E'), "i") => (power(1_024, 6), false),
        _ => return Err(format!("unit {unit} not recognized")),
    };
    let shifted;
    let digits = if thousandths {
        let (before, after) = decimal(&digits)?;
        let padded = format!("{before:0>4}");
        let (before, moved) = padded.split_at(padded.len().saturating_sub(3));
        shifted = format!("{before}.{moved}{after}");
        &shifted
    } else {
        &digits
    };
    let (whole, rest) = times(digits, factor)?;
    // OPA writes ten digits after the point.
    if rest.len() > 10 {
        return Err("the amount has too many digits".to_owned());
    }
    let written = if rest.is_empty() { whole.to_string() } else { format!("{whole}.{rest}") };
    from_json(&written).ok_or_else(|| "could not parse amount to a number".to_owned())
}

pub(super) fn units_parse_bytes(args: &[Value], _: i64) -> Answer {
    let (digits, unit) = amount(args)?;
    let factor = match unit.to_lowercase().as_str() {
        "" => 1,
        "kb" | "k" => 1_000,
        "kib" | "ki" => 1_024,
        "mb" | "m" => power(1_000, 2),
        "mib" | "mi" => power(1_024, 2),
        "gb" | "g" => power(1_000, 3),
        "gib" | "gi" => power(1_024, 3),
        "tb" | "t" => power(1_000, 4),
        "tib" | "ti" => power(1_024, 4),
        "pb" | "p" => power(1_000, 5),
        "pib" | "pi" => power(1_024, 5),
        "eb" | "e" => power(1_000, 6),
        "eib" | "ei" => power(1_024, 6),
        _ => return Err(format!("byte unit {unit} not recognized")),
    };
    let (whole, _) = times(&digits, factor)?;
    // OPA reckons with 64 binary digits, and cuts what is left: only what those hold exactly is the same in both.
    let exact = times(&digits, 1 << 20).is_ok_and(|(_, rest)| rest.is_empty());
    if !exact || whole >= power(2, 63) {
        return Err("the amount is no exact number of bytes".to_owned());
    }
    from_json(&whole.to_string()).ok_or_else(|| "could not parse byte amount to a number".to_owned())
}
