//! `parsed_body`: JSON, forms, and what the neighbours read. The kind of a body is what its header says of it, and a body
//! that was cut off is not read.

use super::{grpc::Descriptors, multipart};
use crate::limits::{MAX_FORM_PAIRS, MAX_PARSED_BODY_BYTES, MAX_PARSED_BODY_DEPTH};
use serde_json::Value as Json;
use std::{borrow::Cow, collections::BTreeMap};

/// Names with all their values, in order.
pub(super) type Pairs = BTreeMap<String, Vec<String>>;

/// What there is to read.
pub(super) struct Sent<'a> {
    pub(super) headers: &'a BTreeMap<String, String>,
    /// `body`.
    pub(super) body: &'a [u8],
    /// `raw_body`.
    pub(super) raw: &'a [u8],
    /// `parsed_path`.
    pub(super) path: &'a [String],
}

/// What became of a body.
#[derive(Debug, PartialEq)]
pub(super) enum Parsed {
    /// There is none, or none of a kind that is read.
    Nothing,
    /// More was sent than forwarded.
    CutOff,
    Value(Json),
}

/// Parses a body by its `content-type`. The error is one sentence, without anything of the body.
pub(super) fn parse(sent: &Sent<'_>, descriptors: Option<&Descriptors>) -> Result<Parsed, String> {
    let header = |name: &str| sent.headers.get(name).map(String::as_str);
    // Envoy's own mark, which it never takes from a client.
    if header("x-envoy-auth-partial-body") == Some("true") {
        return Ok(Parsed::CutOff);
    }
    let Some(kind) = header("content-type") else { return Ok(Parsed::Nothing) };
    if !kind.contains("application/json") && kind.contains("application/grpc") {
        return match descriptors {
            Some(descriptors) if !sent.raw.is_empty() => descriptors.parse(sent.path, bounded(sent.raw)?),
            _ => Ok(Parsed::Nothing),
        };
    }
    let read: fn(&[u8], &str) -> Result<Parsed, String> = if kind.contains("application/json") {
        json
    } else if kind.contains("application/x-www-form-urlencoded") {
        form
    } else if kind.contains("multipart/form-data") {
        multipart::parse
    } else {
        return Ok(Parsed::Nothing);
    };
    let bytes = if sent.body.is_empty() { sent.raw } else { sent.body };
    if bytes.is_empty() {
        return Ok(Parsed::Nothing);
    }
    if let Some(length) = header("content-length") {
        let length: i64 = length.parse().map_err(|_| "`content-length` is no number".to_owned())?;
        if length > i64::try_from(bytes.len()).unwrap_or(i64::MAX) {
            return Ok(Parsed::CutOff);
        }
    }
    read(bounded(bytes)?, kind)
}

fn bounded(bytes: &[u8]) -> Result<&[u8], String> {
    if bytes.len() > MAX_PARSED_BODY_BYTES {
        return Err(format!("the body is longer than {MAX_PARSED_BODY_BYTES} bytes, and is not parsed"));
    }
    Ok(bytes)
}

fn json(bytes: &[u8], _: &str) -> Result<Parsed, String> {
    value(bytes).map(Parsed::Value)
}

/// JSON, not too deep.
pub(super) fn value(bytes: &[u8]) -> Result<Json, String> {
    let value =
        serde_json::from_slice(bytes).map_err(|error| format!("the body is no JSON: column {}", error.column()))?;
    if fits(&value, MAX_PARSED_BODY_DEPTH) {
        Ok(value)
    } else {
        Err(format!("the body nests deeper than {MAX_PARSED_BODY_DEPTH} levels"))
    }
}

/// Whether a value nests no deeper than so many levels. Its reader has bounded how deep this goes.
fn fits(value: &Json, levels: usize) -> bool {
    match value {
        Json::Array(values) => levels > 0 && values.iter().all(|value| fits(value, levels - 1)),
        Json::Object(fields) => levels > 0 && fields.values().all(|value| fits(value, levels - 1)),
        _ => true,
    }
}

fn form(bytes: &[u8], _: &str) -> Result<Parsed, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "the form is no UTF-8 text".to_owned())?;
    let pairs = pairs(text).map_err(|why| format!("the form: {why}"))?;
    let fields = pairs.into_iter().map(|(name, values)| (name, values.into()));
    Ok(Parsed::Value(Json::Object(fields.collect())))
}

/// `name=value` joined by `&`. A semicolon is no separator, and what could be read as one is refused.
pub(super) fn pairs(text: &str) -> Result<Pairs, String> {
    let mut pairs = Pairs::new();
    for (count, pair) in text.split('&').filter(|pair| !pair.is_empty()).enumerate() {
        if count == MAX_FORM_PAIRS {
            return Err(format!("more than {MAX_FORM_PAIRS} pairs"));
        }
        if pair.contains(';') {
            return Err("a semicolon stands between pairs".to_owned());
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (Some(name), Some(value)) = (unescaped(name, true), unescaped(value, true)) else {
            return Err("a bad percent escape".to_owned());
        };
        pairs.entry(name.into_owned()).or_default().push(value.into_owned());
    }
    Ok(pairs)
}

/// Undoes percent escapes; with `form`, `+` is a space. Bytes that are no text become U+FFFD. `None`: a bad escape.
pub(super) fn unescaped(text: &str, form: bool) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|byte| byte == b'%' || (byte == b'+' && form)) {
        return Some(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => (digit(bytes.next()?)? << 4) | digit(bytes.next()?)?,
            b'+' if form => b' ',
            other => other,
        });
    }
    Some(Cow::Owned(match String::from_utf8(out) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    }))
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}
