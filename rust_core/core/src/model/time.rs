//! Points in time and spans between them, in whole microseconds. The core never reads a clock.

use chrono::{DateTime, Datelike, SecondsFormat};
use std::fmt;

/// Microseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// A span in microseconds, never negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(i64);

impl Timestamp {
    /// From microseconds since the Unix epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Reads RFC 3339 (`2026-11-24T10:00:00Z`, any offset); finer than microseconds is cut.
    /// In UTC the year has four digits, so that what was read can be written and read again.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let at = DateTime::parse_from_rfc3339(text).ok()?.to_utc();
        (0..=9_999).contains(&at.year()).then(|| Self(at.timestamp_micros()))
    }

    /// RFC 3339 in UTC with microseconds. Out of chrono's range (about year 262000): the bare number.
    pub fn to_rfc3339(self) -> String {
        self.four_digit_years().map_or_else(|| self.by_chrono(), |text| text.into_iter().map(char::from).collect())
    }

    /// Appends the same.
    pub fn write_rfc3339(self, out: &mut Vec<u8>) {
        match self.four_digit_years() {
            Some(text) => out.extend_from_slice(&text),
            None => out.extend_from_slice(self.by_chrono().as_bytes()),
        }
    }

    fn by_chrono(self) -> String {
        DateTime::from_timestamp_micros(self.0)
            .map_or_else(|| self.0.to_string(), |at| at.to_rfc3339_opts(SecondsFormat::Micros, true))
    }

    /// The years 0 to 9999. A record holds a dozen times and more: a library that writes any form takes five times as long.
    fn four_digit_years(self) -> Option<[u8; RFC3339_BYTES]> {
        let (days, micros) = (self.0.div_euclid(DAY_MICROS), self.0.rem_euclid(DAY_MICROS));
        let (year, month, day) = civil(days)?;
        let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
        // Two digits at a time, without loops.
        let pair = |number: i64| {
            let digit = |number: i64| b'0' + u8::try_from(number % 10).unwrap_or_default();
            [digit(number / 10), digit(number)]
        };
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        let mut put = |at: usize, number: i64| {
            if let Some(place) = text.get_mut(at..at + 2) {
                place.copy_from_slice(&pair(number));
            }
        };
        put(0, year / 100);
        put(2, year);
        put(5, month);
        put(8, day);
        put(11, seconds / 3_600);
        put(14, seconds / 60 % 60);
        put(17, seconds % 60);
        put(20, micros / 10_000);
        put(22, micros / 100);
        put(24, micros);
        Some(text)
    }

    /// This point moved later; stops at the end of time.
    #[must_use]
    pub const fn plus(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// This point moved earlier; stops at the beginning of time.
    #[must_use]
    pub const fn minus(self, span: Span) -> Self {
        Self(self.0.saturating_sub(span.0))
    }

    /// The span since `earlier`, zero if that is later.
    pub const fn since(self, earlier: Self) -> Span {
        let span = self.0.saturating_sub(earlier.0);
        Span(if span < 0 { 0 } else { span })
    }
}

impl Span {
    /// From microseconds; negative becomes zero.
    pub const fn from_micros(micros: i64) -> Self {
        Self(if micros < 0 { 0 } else { micros })
    }

    /// In microseconds.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// In whole milliseconds, rounded down.
    pub const fn as_millis(self) -> i64 {
        self.0 / 1_000
    }

    /// Reads `250ms`, `30s`, `5m`, `12h`, `7d`: a whole number above zero and one unit.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at_checked(digits)?;
        let unit: i64 = match unit {
            "ms" => 1_000,
            "s" => 1_000_000,
            "m" => 60_000_000,
            "h" => 3_600_000_000,
            "d" => 86_400_000_000,
            _ => return None,
        };
        number.parse::<i64>().ok().and_then(|n| n.checked_mul(unit)).filter(|micros| *micros > 0).map(Self)
    }
}

/// Bytes of a time with microseconds.
const RFC3339_BYTES: usize = 27;
const DAY_MICROS: i64 = 86_400_000_000;

/// Year, month and day of a count of days since the Unix epoch, in the years 0 to 9999 of the Gregorian calendar. Years
/// begin in March here, so that a leap day ends one; 400 of them have 146,097 days.
fn civil(days: i64) -> Option<(i64, i64, i64)> {
    const DAYS_TO_EPOCH: i64 = 719_468;
    let days = days + DAYS_TO_EPOCH;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year + era * 400 + next;
    (0..=9_999).contains(&year).then_some((year, month, day))
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_rfc3339())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_a_number_and_a_unit() {
        assert_eq!(Span::parse("5m"), Some(Span(300_000_000)));
        assert_eq!(Span::parse("250ms"), Some(Span(250_000)));
        for bad in ["", "5", "m", "0s", "-1s", "5 m", "5min", "99999999999999d", "５m"] {
            assert_eq!(Span::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn times_are_written_as_chrono_writes_them() {
        let day = DAY_MICROS;
        // Days from the year -1 to 10001, at times of day that change, and both ends of what can be said.
        for days in (-720_000..=2_933_300).step_by(11) {
            let at = Timestamp(days * day + (days * 7_919_777_777).rem_euclid(day));
            let mut text = Vec::new();
            at.write_rfc3339(&mut text);
            assert_eq!(String::from_utf8(text).unwrap(), at.by_chrono());
        }
        for micros in [0, -1, 1, day - 1, i64::MIN, i64::MAX] {
            assert_eq!(Timestamp(micros).to_rfc3339(), Timestamp(micros).by_chrono());
        }
    }

    #[test]
    fn rfc3339_round_trips_to_the_microsecond() {
        let at = Timestamp::parse_rfc3339("2026-11-24T11:00:00.123456+01:00").unwrap();
        assert_eq!(at.to_rfc3339(), "2026-11-24T10:00:00.123456Z");
        assert_eq!(Timestamp::parse_rfc3339("yesterday"), None);
        assert_eq!(Timestamp::parse_rfc3339("9999-12-31T23:59:59-01:00"), None);
    }
}
