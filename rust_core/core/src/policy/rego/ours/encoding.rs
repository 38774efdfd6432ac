//! Functions that write and read texts in the forms of Go's library.

use super::{Answer, built, charge_values, list, member_text, meter, operand, text, wrong};
use base64::{
    Engine as _,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use regorus::Value;
use std::{collections::BTreeMap, fmt::Write as _};

/// As Go's decoder: padding needed, and bits that are left over in the last letter may be anything.
const GO: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_allow_trailing_bits(true)
    .with_decode_padding_mode(DecodePaddingMode::RequireCanonical);
const BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD, GO);
const BASE64URL: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, GO);

/// Bytes as text. OPA's texts may hold any bytes, those here only UTF-8; to put a mark in their place would make two
/// different values alike.
fn readable(bytes: Vec<u8>) -> Answer {
    String::from_utf8(bytes).map_err(|_| "what is decoded is no text".to_owned()).and_then(built)
}

/// Go's decoder skips ends of lines.
fn without_lines(encoded: &str) -> String {
    encoded.replace(['\r', '\n'], "")
}

fn decoded(engine: &GeneralPurpose, encoded: &str) -> Result<Vec<u8>, String> {
    meter::charge(encoded.len())?;
    engine.decode(without_lines(encoded)).map_err(|_| "illegal base64 data".to_owned())
}

pub(super) fn base64_decode(args: &[Value], _: i64) -> Answer {
    readable(decoded(&BASE64, text(args, 0)?)?)
}

pub(super) fn base64_is_valid(args: &[Value], _: i64) -> Answer {
    Ok(Value::Bool(match operand(args, 0)? {
        Value::String(encoded) => decoded(&BASE64, encoded).is_ok(),
        _ => false,
    }))
}

/// With padding or without.
pub(super) fn base64url_decode(args: &[Value], _: i64) -> Answer {
    let mut encoded = text(args, 0)?.to_owned();
    if !encoded.ends_with('=') {
        match encoded.len() % 4 {
            0 => {}
            2 => encoded.push_str("=="),
            3 => encoded.push('='),
            _ => return Err("illegal base64url string".to_owned()),
        }
    }
    readable(decoded(&BASE64URL, &encoded)?)
}

pub(super) fn hex_decode(args: &[Value], _: i64) -> Answer {
    let digits = text(args, 0)?.as_bytes();
    meter::charge(digits.len())?;
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes: Option<Vec<u8>> = digits
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        })
        .collect();
    readable(bytes.ok_or("operand 1 is no hexadecimal text")?)
}

/// A text that is JSON; what is no text is none. Where Go reads what this reader does not (deep nesting, large exponents), there
/// is an error instead of a no.
pub(super) fn json_is_valid(args: &[Value], _: i64) -> Answer {
    let Value::String(written) = operand(args, 0)? else {
        return Ok(Value::Bool(false));
    };
    meter::charge(written.len().saturating_mul(8))?;
    match Value::from_json_str(written) {
        Ok(_) => Ok(Value::Bool(true)),
        Err(error) => {
            let error = error.to_string();
            let ours = ["recursion", "out of range", "surrogate", "escape"].iter().any(|word| error.contains(word));
            if ours { Err(error) } else { Ok(Value::Bool(false)) }
        }
    }
}

/// As Go writes JSON: what HTML would take for markup is escaped.
pub(super) fn json_marshal(args: &[Value], _: i64) -> Answer {
    let written = serde_json::to_string(operand(args, 0)?).map_err(|error| error.to_string())?;
    meter::charge(written.len())?;
    let mut escaped = String::with_capacity(written.len());
    for letter in written.chars() {
        match letter {
            '<' => escaped.push_str("\\u003c"),
            '>' => escaped.push_str("\\u003e"),
            '&' => escaped.push_str("\\u0026"),
            '\u{2028}' => escaped.push_str("\\u2028"),
            '\u{2029}' => escaped.push_str("\\u2029"),
            other => escaped.push(other),
        }
    }
    meter::charge(escaped.len())?;
    built(escaped)
}

// ---- queries of addresses ----------------------------------------------------------------------------------------

fn escape(plain: &str, into: &mut String) {
    for byte in plain.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => into.push(char::from(byte)),
            b' ' => into.push('+'),
            _ => drop(write!(into, "%{byte:02X}")),
        }
    }
}

fn unescape(escaped: &str) -> Result<String, String> {
    let mut bytes = escaped.bytes();
    let mut plain = Vec::with_capacity(escaped.len());
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || {
                    let digit = bytes.next().and_then(|byte| char::from(byte).to_digit(16));
                    digit.and_then(|digit| u8::try_from(digit).ok()).ok_or("invalid URL escape")
                };
                digit()? << 4 | digit()?
            }
            other => other,
        });
    }
    String::from_utf8(plain).map_err(|_| "what is decoded is no text".to_owned())
}

pub(super) fn urlquery_encode(args: &[Value], _: i64) -> Answer {
    let plain = text(args, 0)?;
    meter::charge(plain.len().saturating_mul(3))?;
    let mut escaped = String::new();
    escape(plain, &mut escaped);
    built(escaped)
}

pub(super) fn urlquery_decode(args: &[Value], _: i64) -> Answer {
    let escaped = text(args, 0)?;
    meter::charge(escaped.len())?;
    built(unescape(escaped)?)
}

/// Keys in order, each as often as it has values.
pub(super) fn urlquery_encode_object(args: &[Value], _: i64) -> Answer {
    let Value::Object(fields) = operand(args, 0)? else {
        return Err(wrong(0, "object", operand(args, 0)?));
    };
    let mut query = String::new();
    for (key, value) in fields.iter_sorted() {
        let values = match value {
            Value::Array(items) => items.iter().map(|item| member_text(0, item)).collect::<Result<Vec<_>, _>>()?,
            Value::Set(items) => items.iter().map(|item| member_text(0, item)).collect::<Result<Vec<_>, _>>()?,
            single => vec![member_text(0, single)?],
        };
        for value in values {
            let key = member_text(0, key)?;
            meter::charge(key.len().saturating_add(value.len()).saturating_mul(3))?;
            query.push_str(if query.is_empty() { "" } else { "&" });
            escape(key, &mut query);
            query.push('=');
            escape(value, &mut query);
        }
    }
    built(query)
}

pub(super) fn urlquery_decode_object(args: &[Value], _: i64) -> Answer {
    let query = text(args, 0)?;
    let mut found: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        if part.contains(';') {
            return Err("invalid semicolon separator in query".to_owned());
        }
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        charge_values(2)?;
        meter::charge(part.len())?;
        found.entry(unescape(key)?).or_default().push(Value::String(unescape(value)?.into()));
    }
    let mut object = Value::new_object();
    let fields = object.as_object_mut().map_err(|error| error.to_string())?;
    for (key, values) in found {
        fields.insert(Value::String(key.into()), list(values));
    }
    Ok(object)
}
