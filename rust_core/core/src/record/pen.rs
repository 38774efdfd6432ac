//! JSON written straight into the line that it becomes part of: no tree, no texts in between.
//!
//! Whoever writes gives the punctuation with the key (`,"name":`), so that a field costs two copies. What it looks like is
//! what `serde_json` makes of the same fields, to the byte: records are compared, and so are their digests.

use super::DecisionId;
use crate::model::{Timestamp, Value};
use serde::Serialize;

/// Bytes that JSON escapes, eight at a time: this many of each.
const LANES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Writes into a line.
pub(super) struct Pen<'o> {
    out: &'o mut Vec<u8>,
    is_broken: bool,
}

impl<'o> Pen<'o> {
    pub(super) fn new(out: &'o mut Vec<u8>) -> Self {
        Self { out, is_broken: false }
    }

    /// Whether all that was asked for could be written.
    pub(super) const fn is_whole(&self) -> bool {
        !self.is_broken
    }

    /// Text that is JSON already.
    #[inline]
    pub(super) fn raw(&mut self, json: &str) -> &mut Self {
        self.out.extend_from_slice(json.as_bytes());
        self
    }

    /// A key and a text.
    #[inline]
    pub(super) fn text(&mut self, key: &str, text: &str) -> &mut Self {
        self.raw(key).string(text)
    }

    /// A key and a text, if there is one.
    #[inline]
    pub(super) fn maybe_text(&mut self, key: &str, text: Option<&str>) -> &mut Self {
        if let Some(text) = text {
            self.text(key, text);
        }
        self
    }

    /// A key and a word that holds nothing to escape.
    #[inline]
    pub(super) fn word(&mut self, key: &str, word: &'static str) -> &mut Self {
        self.raw(key).raw("\"").raw(word).raw("\"")
    }

    /// A key and `true` or `false`.
    #[inline]
    pub(super) fn flag(&mut self, key: &str, flag: bool) -> &mut Self {
        self.raw(key).raw(if flag { "true" } else { "false" })
    }

    /// A key and a whole number.
    #[inline]
    pub(super) fn number(&mut self, key: &str, number: i64) -> &mut Self {
        self.raw(key);
        if number < 0 {
            self.out.push(b'-');
        }
        self.digits(number.unsigned_abs());
        self
    }

    /// A key and a point in time, as a text.
    pub(super) fn time(&mut self, key: &str, at: Timestamp) -> &mut Self {
        self.raw(key).raw("\"");
        at.write_rfc3339(self.out);
        self.raw("\"")
    }

    /// A key and a time, if there is one.
    pub(super) fn maybe_time(&mut self, key: &str, at: Option<Timestamp>) -> &mut Self {
        if let Some(at) = at {
            self.time(key, at);
        }
        self
    }

    /// A key and a decision's id.
    pub(super) fn id(&mut self, key: &str, id: DecisionId) -> &mut Self {
        self.raw(key).raw("\"");
        self.out.extend_from_slice(&id.to_ascii());
        self.raw("\"")
    }

    /// A key and nanoseconds as microseconds: tenths of them are as fine as the stopwatch is true.
    pub(super) fn micros(&mut self, key: &str, nanos: u64) -> &mut Self {
        let tenths = u64::from(u32::try_from(nanos / 100).unwrap_or(u32::MAX));
        self.raw(key).digits(tenths / 10);
        self.out.push(b'.');
        self.digits(tenths % 10);
        self
    }

    /// A key and a value of a signal or an argument.
    pub(super) fn value(&mut self, key: &str, value: &Value) -> &mut Self {
        match value {
            Value::Bool(flag) => self.flag(key, *flag),
            Value::Long(number) => self.number(key, *number),
            Value::String(text) => self.text(key, text),
            Value::Datetime(at) => self.time(key, *at),
            Value::Set(members) => {
                self.raw(key).raw("[");
                for (at, member) in members.iter().enumerate() {
                    self.text(if at == 0 { "" } else { "," }, member);
                }
                self.raw("]")
            }
            Value::Decimal(decimal) => self.text(key, &decimal.to_string()),
            Value::Ip(address) => self.text(key, &address.to_string()),
        }
    }

    /// A key and what is rare enough to be left to `serde`.
    pub(super) fn part(&mut self, key: &str, part: &impl Serialize) -> &mut Self {
        self.raw(key);
        // Texts, numbers and maps with texts as keys always serialise; a record is never half written all the same.
        self.is_broken |= serde_json::to_writer(&mut *self.out, part).is_err();
        self
    }

    /// A text in quotes, escaped where it must be.
    #[inline]
    pub(super) fn string(&mut self, text: &str) -> &mut Self {
        self.out.reserve(text.len() + 2);
        self.out.push(b'"');
        if is_plain(text.as_bytes()) {
            self.out.extend_from_slice(text.as_bytes());
        } else {
            self.escaped(text);
        }
        self.out.push(b'"');
        self
    }

    /// Quotation mark, backslash and control characters (RFC 8259, section 7), in `serde_json`'s spelling.
    fn escaped(&mut self, text: &str) {
        for byte in text.bytes() {
            let short = match byte {
                b'"' => r#"\""#,
                b'\\' => r"\\",
                0x08 => r"\b",
                b'\t' => r"\t",
                b'\n' => r"\n",
                0x0c => r"\f",
                b'\r' => r"\r",
                0x00..=0x1f => {
                    self.raw(&format!("\\u{byte:04x}"));
                    continue;
                }
                _ => {
                    self.out.push(byte);
                    continue;
                }
            };
            self.raw(short);
        }
    }

    fn digits(&mut self, number: u64) {
        // As long as the longest number of 64 bits.
        let mut digits = [0; 20];
        let (mut rest, mut length) = (number, 0);
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + u8::try_from(rest % 10).unwrap_or_default();
            rest /= 10;
            length += 1;
            if rest == 0 {
                break;
            }
        }
        self.out.extend_from_slice(digits.get(digits.len() - length..).unwrap_or_default());
    }
}

/// Whether no byte needs an escape: none below a space, no quotation mark, no backslash.
fn is_plain(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    // In each lane the highest bit says that the byte is below `n`, or that it is zero. A lane may also say so falsely, but
    // only above one that says so truly, so that the sum over all lanes is exact.
    let below = |word: u64, n: u64| word.wrapping_sub(LANES * n) & !word & HIGH;
    let found = |word: u64| {
        below(word, 0x20) | below(word ^ (LANES * u64::from(b'"')), 1) | below(word ^ (LANES * u64::from(b'\\')), 1)
    };
    let plain = |byte: &u8| *byte >= 0x20 && *byte != b'"' && *byte != b'\\';
    words.iter().fold(0, |all, word| all | found(u64::from_le_bytes(*word))) == 0 && rest.iter().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Pen<'_>)) -> String {
        let mut out = Vec::new();
        let mut pen = Pen::new(&mut out);
        write(&mut pen);
        assert!(pen.is_whole());
        String::from_utf8(out).unwrap()
    }

    fn by_serde(value: &impl Serialize) -> String {
        serde_json::to_string(value).unwrap()
    }

    #[test]
    fn every_character_is_escaped_as_serde_does_at_every_place() {
        for number in 0..0x250 {
            let Some(character) = char::from_u32(number) else { continue };
            for before in 0..17 {
                let text = format!("{}{character}{}", "x".repeat(before), "y".repeat(16 - before));
                assert_eq!(
                    written(|pen| {
                        pen.string(&text);
                    }),
                    by_serde(&text)
                );
            }
        }
    }

    proptest! {
        #[test]
        fn texts_numbers_and_times_are_what_serde_makes_of_them(text in ".*", number: i64, nanos in 0_u64..10_000_000_000_000) {
            prop_assert_eq!(written(|pen| { pen.text("", &text); }), by_serde(&text));
            prop_assert_eq!(written(|pen| { pen.number("", number); }), by_serde(&number));
            let tenths = u32::try_from(nanos / 100).unwrap_or(u32::MAX);
            prop_assert_eq!(written(|pen| { pen.micros("", nanos); }), by_serde(&(f64::from(tenths) / 10.0)));
        }

        #[test]
        fn values_are_what_they_are_as_json(number: i64, words in prop::collection::btree_set(".{0,9}", 0..4), flag: bool, text in ".*") {
            let members = words.iter().map(|word| word.as_str().into()).collect();
            for value in [
                Value::Bool(flag),
                Value::Long(number),
                Value::String(text.as_str().into()),
                Value::Set(std::sync::Arc::new(members)),
                Value::Datetime(Timestamp::from_micros(number)),
                Value::Ip(std::net::IpAddr::from(number.to_le_bytes().map(u16::from))),
            ] {
                prop_assert_eq!(written(|pen| { pen.value("", &value); }), by_serde(&value.to_json()));
            }
        }
    }

    #[test]
    fn the_extremes_of_numbers_are_written() {
        for number in [0, 1, -1, 9, 10, i64::MIN, i64::MAX] {
            assert_eq!(
                written(|pen| {
                    pen.number("", number);
                }),
                number.to_string()
            );
        }
        assert_eq!(
            written(|pen| {
                pen.micros("", u64::MAX);
            }),
            by_serde(&(f64::from(u32::MAX) / 10.0))
        );
    }
}
