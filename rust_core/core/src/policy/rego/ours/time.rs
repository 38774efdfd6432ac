//! `time.*`: everything in nanoseconds since 1970, in UTC or a named zone. The zone of the machine (`Local`) is refused:
//! two servers would answer differently.

use super::{Answer, built, integer, list, operand, text, time_layout};
use chrono::{DateTime, Datelike as _, Days, NaiveDate, NaiveDateTime, TimeZone as _, Timelike as _};
use chrono_tz::Tz;
use regorus::Value;

/// The last year for which the compiled-in rules of zones are complete.
const LAST_ZONED_YEAR: i32 = 2_037;

/// Nanoseconds as the type of a moment.
fn utc(nanoseconds: i64) -> DateTime<Tz> {
    DateTime::from_timestamp_nanos(nanoseconds).with_timezone(&Tz::UTC)
}

fn nanoseconds(value: &Value) -> Result<i64, String> {
    match value {
        Value::Number(number) => {
            number.as_i64().filter(|_| number.is_integer()).ok_or_else(|| "timestamp too big".to_owned())
        }
        other => Err(super::wrong(0, "either number (ns) or [number (ns), string (tz)]", other)),
    }
}

/// A moment, the zone it is looked at in, and a layout, if one is given: `ns`, `[ns, zone]` or `[ns, zone, layout]`.
fn moment(args: &[Value], at: usize) -> Result<(DateTime<Tz>, Option<String>), String> {
    let written = operand(args, at)?;
    let Value::Array(parts) = written else {
        return Ok((utc(nanoseconds(written)?), None));
    };
    let parts = parts.as_slice();
    let moment = utc(nanoseconds(operand(parts, 0)?)?);
    let zone = if parts.len() > 1 { text(parts, 1)? } else { "" };
    let layout =
        if parts.len() > 2 { Some(text(parts, 2)?.to_owned()).filter(|layout| !layout.is_empty()) } else { None };
    let moment = match zone {
        "" | "UTC" => moment,
        "Local" => return Err("the zone `Local` is that of a machine: name one, such as `Europe/Berlin`".to_owned()),
        name => moment.with_timezone(&name.parse::<Tz>().map_err(|_| format!("unknown time zone {name}"))?),
    };
    if moment.timezone() != Tz::UTC && moment.year() > LAST_ZONED_YEAR {
        return Err(format!("the rules of time zones are known until {LAST_ZONED_YEAR}"));
    }
    Ok((moment, layout))
}

/// A moment as nanoseconds, if they fit.
pub(super) fn as_nanoseconds(moment: Option<i64>) -> Answer {
    moment.map(Value::from).ok_or_else(|| "time outside of valid range".to_owned())
}

pub(super) fn now_ns(_: &[Value], now: i64) -> Answer {
    Ok(Value::from(now))
}

fn numbers(numbers: impl IntoIterator<Item = i64>) -> Value {
    list(numbers.into_iter().map(Value::from).collect())
}

pub(super) fn clock(args: &[Value], _: i64) -> Answer {
    let (moment, _) = moment(args, 0)?;
    Ok(numbers([moment.hour(), moment.minute(), moment.second()].map(i64::from)))
}

pub(super) fn date(args: &[Value], _: i64) -> Answer {
    let (moment, _) = moment(args, 0)?;
    Ok(numbers([i64::from(moment.year()), i64::from(moment.month()), i64::from(moment.day())]))
}

pub(super) fn weekday(args: &[Value], _: i64) -> Answer {
    let (moment, _) = moment(args, 0)?;
    built(moment.format("%A").to_string())
}

/// A day counted on from the first of a month: the 31st and a month may be the 3rd of the next but one, as in Go.
pub(super) fn add_date(args: &[Value], _: i64) -> Answer {
    let (moment, _) = moment(args, 0)?;
    let (years, months, days) = (integer(args, 1)?, integer(args, 2)?, integer(args, 3)?);
    let outside = || "time outside of valid range".to_owned();
    let months = years
        .checked_add(i64::from(moment.year()))
        .and_then(|years| years.checked_mul(12))
        .and_then(|all| all.checked_add(i64::from(moment.month0())))
        .and_then(|all| all.checked_add(months))
        .ok_or_else(outside)?;
    let first = i32::try_from(months.div_euclid(12))
        .ok()
        .and_then(|year| NaiveDate::from_ymd_opt(year, u32::try_from(months.rem_euclid(12)).ok()?.checked_add(1)?, 1))
        .ok_or_else(outside)?;
    let days = days.checked_add(i64::from(moment.day0())).ok_or_else(outside)?;
    let span = Days::new(days.unsigned_abs());
    let day = if days < 0 { first.checked_sub_days(span) } else { first.checked_add_days(span) };
    let local = NaiveDateTime::new(day.ok_or_else(outside)?, moment.time());
    if moment.timezone() != Tz::UTC && local.year() > LAST_ZONED_YEAR {
        return Err(format!("the rules of time zones are known until {LAST_ZONED_YEAR}"));
    }
    let found = moment.timezone().from_local_datetime(&local).single();
    let found = found.ok_or("the clock of that zone shows this time twice, or not at all")?;
    as_nanoseconds(found.timestamp_nanos_opt())
}

/// Years, months, days, hours, minutes and seconds between two moments, in the zone of the first.
pub(super) fn diff(args: &[Value], _: i64) -> Answer {
    let ((one, _), (other, _)) = (moment(args, 0)?, moment(args, 1)?);
    let other = other.with_timezone(&one.timezone());
    let (first, last) = if one > other { (other, one) } else { (one, other) };
    let field = |late: u32, early: u32| i64::from(late).saturating_sub(i64::from(early));
    // From the smallest up: what a field lacks is taken from the next, a month being as long as the earlier one's.
    let in_month = i64::from(first.num_days_in_month());
    let mut fields = [
        (field(last.second(), first.second()), 60),
        (field(last.minute(), first.minute()), 60),
        (field(last.hour(), first.hour()), 24),
        (field(last.day(), first.day()), in_month),
        (field(last.month(), first.month()), 12),
        (i64::from(last.year()).saturating_sub(i64::from(first.year())), 0),
    ];
    let mut borrowed = 0;
    for (value, whole) in &mut fields {
        *value = value.saturating_sub(borrowed);
        borrowed = i64::from(*value < 0 && *whole > 0);
        *value = value.saturating_add(borrowed.saturating_mul(*whole));
    }
    Ok(numbers(fields.into_iter().rev().map(|(value, _)| value)))
}

pub(super) fn format(args: &[Value], _: i64) -> Answer {
    let (moment, layout) = moment(args, 0)?;
    built(time_layout::written(&moment, layout.as_deref().unwrap_or("RFC3339Nano"))?)
}

pub(super) fn parse(args: &[Value], _: i64) -> Answer {
    time_layout::read(text(args, 0)?, text(args, 1)?)
}

pub(super) fn parse_rfc3339(args: &[Value], _: i64) -> Answer {
    time_layout::read("RFC3339", text(args, 0)?)
}

// ---- durations ---------------------------------------------------------------------------------------------------

/// Nanoseconds of a unit; hours of a longer one are reckoned by OPA before Go reads them.
fn unit_of(name: &str) -> Option<(u64, u64)> {
    Some(match name {
        "ns" => (1, 1),
        "us" | "µs" | "μs" => (1_000, 1),
        "ms" => (1_000_000, 1),
        "s" => (1_000_000_000, 1),
        "m" => (60_000_000_000, 1),
        "h" => (3_600_000_000_000, 1),
        "d" => (3_600_000_000_000, 24),
        "w" => (3_600_000_000_000, 7 * 24),
        "y" => (3_600_000_000_000, 365 * 24),
        _ => return None,
    })
}

/// As Go's `ParseDuration`, with days, weeks and years of 365 days.
pub(super) fn parse_duration(args: &[Value], _: i64) -> Answer {
    let written = text(args, 0)?;
    let invalid = || format!("time: invalid duration \"{written}\"");
    let (negative, mut rest) = match written.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, written.strip_prefix('+').unwrap_or(written)),
    };
    if rest == "0" {
        return Ok(Value::from(0_u64));
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut sum: u64 = 0;
    while !rest.is_empty() {
        let amount_end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').ok_or_else(invalid)?;
        let (amount, after) = rest.split_at(amount_end);
        let unit_end = after.find(|letter: char| letter.is_ascii_digit() || letter == '.').unwrap_or(after.len());
        let (name, after) = after.split_at(unit_end);
        let (unit, times) = unit_of(name).ok_or_else(invalid)?;
        sum = sum.checked_add(nanoseconds_of(amount, unit, times).ok_or_else(invalid)?).ok_or_else(invalid)?;
        rest = after;
    }
    let sum = i128::from(sum);
    let signed = if negative { -sum } else { sum };
    i64::try_from(signed).map(Value::from).map_err(|_| invalid())
}

fn nanoseconds_of(amount: &str, unit: u64, times: u64) -> Option<u64> {
    let (whole, fraction) = amount.split_once('.').unwrap_or((amount, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || fraction.len() > 9 {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // In whole numbers: Go's floating point gives the same for as few digits as are taken here, or less than one less.
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let part = part.checked_mul(u128::from(unit))?.checked_mul(u128::from(times))?;
    if part.checked_rem(scale)? != 0 {
        return None;
    }
    whole.checked_mul(unit)?.checked_mul(times)?.checked_add(u64::try_from(part.checked_div(scale)?).ok()?)
}
