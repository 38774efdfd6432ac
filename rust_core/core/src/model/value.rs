//! Types and values of signals and arguments, and how each is read from JSON and from text.

use super::time::Timestamp;
use crate::limits;
use serde_json::Value as Json;
use std::{collections::BTreeSet, fmt, net::IpAddr, sync::Arc};

/// The declared type of a signal or an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignalType {
    /// JSON `true`/`false`.
    Bool,
    /// A JSON integer in 64 bits.
    Long,
    /// A JSON string.
    String,
    /// One of a fixed list of strings.
    Enum(Arc<[Arc<str>]>),
    /// An array of strings, at most `MAX_SET_MEMBERS`.
    Set,
    /// A string such as `"1.25"`, at most four digits after the point (Cedar's decimal).
    Decimal,
    /// An RFC 3339 string.
    Datetime,
    /// One IPv4 or IPv6 address as a string.
    Ip,
}

/// A value of one of these types.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are those of SignalType")]
pub enum Value {
    Bool(bool),
    Long(i64),
    String(Arc<str>),
    Set(Arc<BTreeSet<Arc<str>>>),
    Decimal(Decimal),
    Datetime(Timestamp),
    Ip(IpAddr),
}

/// A decimal with four digits after the point, as Cedar has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decimal(i64);

impl Decimal {
    /// Reads `1.25`: digits, a point, one to four digits (Cedar's grammar of `decimal()`).
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, body) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (whole, fraction) = body.split_once('.')?;
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || fraction.len() > 4 {
            return None;
        }
        let sign = if negative { "-" } else { "" };
        format!("{sign}{whole}{fraction:0<4}").parse().ok().map(Self)
    }
}

/// The years in which a time can be read and written, 0 to 9999, in microseconds.
const DATETIMES: (i64, i64) = (-62_167_219_200_000_000, 253_402_300_799_999_999);

impl Value {
    /// The place of a value in the order of its type, for types that have one: numbers and times. `Decimal` counts in its
    /// last digit, `Datetime` in microseconds.
    pub const fn ordinal(&self) -> Option<i64> {
        match self {
            Self::Long(number) | Self::Decimal(Decimal(number)) => Some(*number),
            Self::Datetime(at) => Some(at.as_micros()),
            _ => None,
        }
    }
}

impl SignalType {
    /// The value at such a place.
    pub fn at_ordinal(&self, ordinal: i64) -> Option<Value> {
        match self {
            Self::Long => Some(Value::Long(ordinal)),
            Self::Decimal => Some(Value::Decimal(Decimal(ordinal))),
            Self::Datetime => {
                (DATETIMES.0..=DATETIMES.1).contains(&ordinal).then(|| Value::Datetime(Timestamp::from_micros(ordinal)))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let magnitude = self.0.unsigned_abs();
        let fraction = format!("{:04}", magnitude % 10_000);
        let short = fraction.trim_end_matches('0');
        write!(f, "{sign}{}.{}", magnitude / 10_000, if short.is_empty() { "0" } else { short })
    }
}

impl SignalType {
    /// Reads `bool`, `long`, …, `enum[a, b]`. The error says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "bool" => Ok(Self::Bool),
            "long" => Ok(Self::Long),
            "string" => Ok(Self::String),
            "set" => Ok(Self::Set),
            "decimal" => Ok(Self::Decimal),
            "datetime" => Ok(Self::Datetime),
            "ip" => Ok(Self::Ip),
            _ => Self::parse_enum(text)
                .ok_or_else(|| "expected bool, long, string, enum[a, b], set, decimal, datetime or ip".to_owned()),
        }
    }

    fn parse_enum(text: &str) -> Option<Self> {
        let members: Vec<Arc<str>> = text
            .strip_prefix("enum[")?
            .strip_suffix(']')?
            .split(',')
            .map(str::trim)
            .map(|member| {
                let good = !member.is_empty()
                    && member.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
                good.then(|| Arc::from(member))
            })
            .collect::<Option<_>>()?;
        let distinct: BTreeSet<&str> = members.iter().map(AsRef::as_ref).collect();
        (distinct.len() == members.len()).then(|| Self::Enum(members.into()))
    }

    /// Reads a value of this type from JSON; `None` if it is of another type or too large.
    pub fn read_json(&self, json: &Json) -> Option<Value> {
        match (self, json) {
            (Self::Bool, Json::Bool(b)) => Some(Value::Bool(*b)),
            (Self::Long, Json::Number(n)) => n.as_i64().map(Value::Long),
            (Self::Set, Json::Array(items)) => {
                let members: BTreeSet<Arc<str>> =
                    items.iter().map(|item| item.as_str().map(Arc::from)).collect::<Option<_>>()?;
                let bytes: usize = members.iter().map(|m| m.len()).sum();
                (items.len() <= limits::MAX_SET_MEMBERS && bytes <= limits::MAX_SIGNAL_VALUE_BYTES)
                    .then(|| Value::Set(Arc::new(members)))
            }
            (Self::String | Self::Enum(_) | Self::Decimal | Self::Datetime | Self::Ip, Json::String(s)) => {
                self.read_text(s)
            }
            _ => None,
        }
    }

    /// Reads a value of this type from plain text, as a header or a query carries it.
    /// A set is a comma-separated list; a bool is `true` or `false`.
    pub fn read_text(&self, text: &str) -> Option<Value> {
        if text.len() > limits::MAX_SIGNAL_VALUE_BYTES {
            return None;
        }
        match self {
            Self::Bool => text.parse().ok().map(Value::Bool),
            Self::Long => {
                let canonical = text.parse::<i64>().ok()?;
                (canonical.to_string() == text).then_some(Value::Long(canonical))
            }
            Self::String => Some(Value::String(text.into())),
            Self::Enum(members) => members.iter().find(|m| ***m == *text).cloned().map(Value::String),
            Self::Set => {
                let members: Vec<&str> = text.split(',').map(str::trim).collect();
                let good = members.len() <= limits::MAX_SET_MEMBERS && members.iter().all(|m| !m.is_empty());
                good.then(|| Value::Set(Arc::new(members.into_iter().map(Arc::from).collect())))
            }
            Self::Decimal => Decimal::parse(text).map(Value::Decimal),
            Self::Datetime => Timestamp::parse_rfc3339(text).map(Value::Datetime),
            Self::Ip => text.parse().ok().map(Value::Ip),
        }
    }

    /// Whether a value read under some declaration is also one of this type: a stored value whose
    /// contract changed is not.
    pub fn admits(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Bool, Value::Bool(_))
            | (Self::Long, Value::Long(_))
            | (Self::String, Value::String(_))
            | (Self::Set, Value::Set(_))
            | (Self::Decimal, Value::Decimal(_))
            | (Self::Datetime, Value::Datetime(_))
            | (Self::Ip, Value::Ip(_)) => true,
            (Self::Enum(members), Value::String(word)) => members.contains(word),
            _ => false,
        }
    }

    /// Every value, where there are few: bool and enum.
    pub fn every_value(&self) -> Option<Vec<Value>> {
        match self {
            Self::Bool => Some(vec![Value::Bool(false), Value::Bool(true)]),
            Self::Enum(members) => Some(members.iter().cloned().map(Value::String).collect()),
            _ => None,
        }
    }
}

impl fmt::Display for SignalType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("bool"),
            Self::Long => f.write_str("long"),
            Self::String => f.write_str("string"),
            Self::Enum(members) => write!(f, "enum[{}]", members.join(", ")),
            Self::Set => f.write_str("set"),
            Self::Decimal => f.write_str("decimal"),
            Self::Datetime => f.write_str("datetime"),
            Self::Ip => f.write_str("ip"),
        }
    }
}

impl Value {
    /// The word of the plain type that reads this value back from its JSON; an enum's member is a `string`.
    pub const fn type_word(&self) -> &'static str {
        match self {
            Self::Bool(_) => "bool",
            Self::Long(_) => "long",
            Self::String(_) => "string",
            Self::Set(_) => "set",
            Self::Decimal(_) => "decimal",
            Self::Datetime(_) => "datetime",
            Self::Ip(_) => "ip",
        }
    }

    /// The JSON form, the inverse of `SignalType::read_json`.
    pub fn to_json(&self) -> Json {
        match self {
            Self::Bool(b) => Json::Bool(*b),
            Self::Long(n) => Json::from(*n),
            Self::String(s) => Json::String(s.to_string()),
            Self::Set(members) => members.iter().map(|m| Json::String(m.to_string())).collect(),
            Self::Decimal(d) => Json::String(d.to_string()),
            Self::Datetime(at) => Json::String(at.to_rfc3339()),
            Self::Ip(ip) => Json::String(ip.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_type_reads_its_own_json_and_no_other() {
        let samples = [
            ("bool", json!(true)),
            ("long", json!(4)),
            ("string", json!("anything at all")),
            ("set", json!(["a", "b"])),
            ("decimal", json!("1.25")),
            ("datetime", json!("2026-11-24T10:00:00.000000Z")),
            ("ip", json!("10.0.0.1")),
        ];
        for (word, _) in &samples {
            let kind = SignalType::parse(word).unwrap();
            for (other, sample) in &samples {
                let read = kind.read_json(sample);
                let expected = word == other || (*word == "string" && sample.is_string());
                assert_eq!(read.is_some(), expected, "{word} reads the sample of {other}");
                if let Some(value) = read {
                    assert_eq!(&value.to_json(), sample);
                }
            }
        }
    }

    #[test]
    fn enums_are_closed() {
        let kind = SignalType::parse("enum[ok, compromised]").unwrap();
        assert!(kind.read_json(&json!("ok")).is_some());
        assert!(kind.read_json(&json!("OK")).is_none());
        for bad in ["enum[]", "enum[a, a]", "enum[a", "enum[a b]", "Long"] {
            assert!(SignalType::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn decimals_are_exact() {
        for (text, canonical) in [("1.25", "1.25"), ("-0.5", "-0.5"), ("3.0000", "3.0"), ("00.1", "0.1")] {
            assert_eq!(Decimal::parse(text).unwrap().to_string(), canonical);
        }
        for bad in ["1", "1.", ".5", "1.23456", "+1.0", "1.2e3", "9999999999999999.0"] {
            assert_eq!(Decimal::parse(bad), None, "{bad}");
        }
    }
}
