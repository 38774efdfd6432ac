//! Source kind `time`: in which window of the week the decision falls, by the wall clock of a time zone. The core
//! reads no clock: it is the decision's own now, so it is as good as anything that the decision rests on.

use super::{Circumstances, Flow, Kind, ReadRequest, Reading, Source, of_this_request_alone};
use crate::document::{Entry, Fields};
use crate::findings::did_you_mean;
use crate::limits::MAX_WINDOWS;
use crate::model::{Assurance, SignalType, State, Timestamp, Value};
use chrono::{DateTime, Datelike, Timelike};
use chrono_tz::{TZ_VARIANTS, Tz};
use std::sync::Arc;

pub(super) const KIND: Kind = Kind {
    word: "time",
    ceiling: |_| (Assurance::Authoritative, ""),
    objection: |subject| {
        let why = "a `time` source speaks of this request only: its contract's subject is `request`";
        of_this_request_alone(subject, why)
    },
    read,
};

const DAYS: &[(&str, u32)] = &[("mon", 0), ("tue", 1), ("wed", 2), ("thu", 3), ("fri", 4), ("sat", 5), ("sun", 6)];
const DAY: u32 = 24 * 60;
const WEEK: u32 = 7 * DAY;

fn read(reading: &mut Reading<'_, '_>, assurance: Assurance) -> Option<Source> {
    let zone = reading.parsed("zone", "unknown_zone", |name| {
        name.parse::<Tz>().map_err(|_| {
            let hint = did_you_mean(name, TZ_VARIANTS.iter().map(|zone| zone.name()));
            format!("expected a time zone such as `Europe/Berlin` or `UTC`{hint}")
        })
    });
    let windows = windows(reading);
    let otherwise = otherwise(reading);
    let described = reading.fields.take("windows").map(crate::document::Node::to_json);
    let (zone, windows, otherwise) = (zone?, windows?, otherwise?);
    let mut settings = vec![("zone", zone.name().into()), ("windows", described?)];
    settings.extend(otherwise.iter().map(|word| ("otherwise", (&**word).into())));
    Some(Source {
        kind: KIND.word,
        assurance,
        label: format!("time:{}", zone.name()).into(),
        settings,
        flow: Flow::OnRequest(Arc::new(FromTime { zone, windows, otherwise })),
    })
}

/// The word outside of all windows. For a `bool` that is `false`, and nothing else can be said.
#[expect(clippy::option_option, reason = "two questions: could it be read, and is there one")]
fn otherwise(reading: &mut Reading<'_, '_>) -> Option<Option<Arc<str>>> {
    let Some(node) = reading.fields.take("otherwise") else { return Some(None) };
    if reading.declared.kind == Some(&SignalType::Bool) {
        let message = "`otherwise`: a `bool` is `false` outside of all windows, leave it out";
        reading.error(reading.fields.place_of("otherwise"), "needless_otherwise", message);
        return None;
    }
    let word = node.text(reading.file, "otherwise", reading.findings)?;
    reading.is_value("`otherwise`", word, node.place).then(|| Some(word.into()))
}

/// Minutes of the week from Monday 00:00, the last one exclusive; never across the end of the week.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Window {
    from: u32,
    to: u32,
    name: Arc<str>,
}

/// All windows, sorted. Those that overlap are a mistake: which one counted would depend on the order.
fn windows(reading: &mut Reading<'_, '_>) -> Option<Vec<Window>> {
    let node = reading.fields.require("windows", reading.findings)?;
    let entries = node.map(reading.file, "windows", reading.findings)?;
    if entries.is_empty() || entries.len() > MAX_WINDOWS {
        let message = format!("`windows`: expected one to {MAX_WINDOWS} windows, found {}", entries.len());
        reading.error(node.place, "bad_window", message);
        return None;
    }
    let mut all: Vec<Window> = Vec::new();
    let mut good = true;
    for entry in entries {
        // The name of a window of a `bool` is for people alone.
        good &=
            reading.declared.kind == Some(&SignalType::Bool) || reading.is_value("`windows`", &entry.key, entry.place);
        match window(reading, entry) {
            Some(parts) => {
                let meets = |a: &Window, b: &Window| a.from < b.to && b.from < a.to;
                let itself = parts.iter().enumerate().any(|(at, a)| parts.iter().skip(at + 1).any(|b| meets(a, b)));
                let other = all.iter().find(|known| parts.iter().any(|part| meets(part, known)));
                let other = other.map(|other| Arc::clone(&other.name)).or(itself.then(|| entry.key.as_str().into()));
                if let Some(other) = other {
                    let message = format!("`windows`: `{}` and `{other}` overlap", entry.key);
                    reading.error(entry.place, "overlapping_windows", message);
                    good = false;
                }
                all.extend(parts);
            }
            None => good = false,
        }
    }
    all.sort_by_key(|window| window.from);
    good.then_some(all)
}

/// One part for each day; two where it crosses the end of the week.
fn window(reading: &mut Reading<'_, '_>, entry: &Entry) -> Option<Vec<Window>> {
    let mut fields = Fields::of(reading.file, &entry.key, &entry.value, reading.findings)?;
    let days = fields.require("days", reading.findings).and_then(|node| {
        let written = node.list(reading.file, "days", reading.findings)?;
        if written.is_empty() {
            reading.findings.error(reading.file, node.place, "empty_list", "`days`: expected at least one day");
            return None;
        }
        let read = |node: &crate::document::Node| node.word(reading.file, "days", DAYS, reading.findings);
        written.iter().map(read).collect::<Option<Vec<u32>>>()
    });
    let mut minute = |key: &'static str, last: u32| {
        let node = fields.require(key, reading.findings)?;
        let text = node.text(reading.file, key, reading.findings)?;
        let read = minute_of_day(text).filter(|minute| *minute <= last);
        if read.is_none() {
            let message = format!("`{key}`: expected a time of day such as `08:00`, found `{text}`");
            reading.findings.error(reading.file, node.place, "bad_window", message);
        }
        read
    };
    let (from, to) = (minute("from", DAY - 1), minute("to", DAY));
    fields.finish(reading.findings);
    let (days, from, to) = (days?, from?, to?);
    if from == to {
        let message = "`to`: a window ends after it begins; a whole day is from `00:00` to `24:00`";
        reading.error(entry.place, "bad_window", message);
        return None;
    }
    let name: Arc<str> = entry.key.as_str().into();
    let length = if to > from { to - from } else { to + DAY - from };
    let mut parts = Vec::with_capacity(days.len() + 1);
    for day in days {
        let (from, to) = (day * DAY + from, day * DAY + from + length);
        parts.push(Window { from, to: to.min(WEEK), name: Arc::clone(&name) });
        if to > WEEK {
            parts.push(Window { from: 0, to: to - WEEK, name: Arc::clone(&name) });
        }
    }
    Some(parts)
}

/// `HH:MM`, up to `24:00`.
fn minute_of_day(text: &str) -> Option<u32> {
    let (hour, minute) = text.split_once(':')?;
    let two = |digits: &str| {
        let good = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse::<u32>().ok().filter(|_| good)
    };
    let (hour, minute) = (two(hour)?, two(minute)?);
    let all = hour * 60 + minute;
    (minute < 60 && all <= DAY).then_some(all)
}

#[derive(Debug)]
struct FromTime {
    zone: Tz,
    windows: Vec<Window>,
    otherwise: Option<Arc<str>>,
}

impl FromTime {
    /// Every instant has one reading of the wall clock: an hour that the clock skips is in no window, one that it
    /// repeats is twice in its window.
    fn minute_of_week(&self, now: Timestamp) -> Option<u32> {
        let local = DateTime::from_timestamp_micros(now.as_micros())?.with_timezone(&self.zone);
        Some(local.weekday().num_days_from_monday() * DAY + local.hour() * 60 + local.minute())
    }
}

impl ReadRequest for FromTime {
    fn read(&self, circumstances: &Circumstances<'_>, kind: &SignalType) -> (State, Option<Value>) {
        let Some(minute) = self.minute_of_week(circumstances.now) else { return (State::Missing, None) };
        let window = self.windows.iter().find(|window| (window.from..window.to).contains(&minute));
        if *kind == SignalType::Bool {
            return (State::Fresh, Some(Value::Bool(window.is_some())));
        }
        match window.map(|window| &window.name).or(self.otherwise.as_ref()) {
            Some(word) => (State::Fresh, Some(Value::String(Arc::clone(word)))),
            None => (State::Missing, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, mistakes};
    use super::*;
    use crate::model::Request;

    const WEEKDAYS: &str = "[mon, tue, wed, thu, fri]";

    fn source(windows: &str) -> String {
        format!("{{kind: time, zone: Europe/Berlin, windows: {windows}, otherwise: other, assurance: authoritative}}")
    }

    fn at(windows: &str, now: &str) -> String {
        let (_, value) = testing::read("string", &source(windows), &Request::default(), now);
        value.unwrap().to_json().as_str().unwrap().to_owned()
    }

    #[test]
    fn a_window_is_from_its_first_minute_up_to_its_last() {
        let windows = format!("{{work: {{days: {WEEKDAYS}, from: \"08:00\", to: \"18:00\"}}}}");
        // 2026-11-24 is a Tuesday; Berlin is an hour ahead in winter.
        for (now, expected) in [
            ("2026-11-24T06:59:59.999999Z", "other"),
            ("2026-11-24T07:00:00Z", "work"),
            ("2026-11-24T16:59:59.999999Z", "work"),
            ("2026-11-24T17:00:00Z", "other"),
            ("2026-11-22T10:00:00Z", "other"),
            ("2026-07-21T06:00:00Z", "work"),
            ("2026-07-21T16:00:00Z", "other"),
        ] {
            assert_eq!(at(&windows, now), expected, "{now}");
        }
    }

    #[test]
    fn a_window_across_midnight_belongs_to_the_day_on_which_it_begins() {
        let windows = "{night: {days: [fri, sun], from: \"22:00\", to: \"06:00\"}}";
        for (now, expected) in [
            ("2026-11-27T21:00:00Z", "night"), // Friday 22:00
            ("2026-11-28T04:59:00Z", "night"), // Saturday 05:59
            ("2026-11-28T05:00:00Z", "other"),
            ("2026-11-28T21:30:00Z", "other"), // Saturday night
            ("2026-11-29T22:30:00Z", "night"), // Sunday 23:30
            ("2026-11-30T04:00:00Z", "night"), // Monday 05:00, across the end of the week
            ("2026-11-27T04:00:00Z", "other"), // Friday 05:00
        ] {
            assert_eq!(at(windows, now), expected, "{now}");
        }
    }

    #[test]
    fn the_hour_that_the_clock_skips_is_in_no_window_and_the_one_that_it_repeats_is_twice() {
        let windows = "{early: {days: [sun], from: \"02:00\", to: \"03:00\"}}";
        // 2026-03-29: Berlin goes from 02:00 to 03:00 at 01:00 UTC.
        assert_eq!(at(windows, "2026-03-29T00:59:59Z"), "other");
        assert_eq!(at(windows, "2026-03-29T01:00:00Z"), "other");
        // 2026-10-25: Berlin goes from 03:00 back to 02:00 at 01:00 UTC.
        assert_eq!(at(windows, "2026-10-24T23:59:59Z"), "other");
        assert_eq!(at(windows, "2026-10-25T00:00:00Z"), "early");
        assert_eq!(at(windows, "2026-10-25T01:30:00Z"), "early");
        assert_eq!(at(windows, "2026-10-25T02:00:00Z"), "other");
        // A window around the change is an hour shorter, or longer, and has no hole.
        let around = "{night: {days: [sun], from: \"00:00\", to: \"06:00\"}}";
        for (now, expected) in [("2026-03-29T03:59:59Z", "night"), ("2026-03-29T04:00:00Z", "other")] {
            assert_eq!(at(around, now), expected, "{now}");
        }
        for minute in 0..(7 * 60) {
            let now = Timestamp::parse_rfc3339("2026-10-24T22:00:00Z").unwrap().as_micros() + minute * 60_000_000;
            assert_eq!(at(around, &Timestamp::from_micros(now).to_rfc3339()), "night");
        }
    }

    #[test]
    fn a_bool_is_true_in_any_window_and_false_outside() {
        let source = "{kind: time, zone: UTC, windows: {a: {days: [tue], from: \"08:00\", to: \"12:00\"}, \
                      b: {days: [tue], from: \"12:00\", to: \"24:00\"}}, assurance: authoritative}";
        let read = |now| testing::read("bool", source, &Request::default(), now).1;
        assert_eq!(read("2026-11-24T07:59:00Z"), Some(Value::Bool(false)));
        assert_eq!(read("2026-11-24T12:00:00Z"), Some(Value::Bool(true)));
        assert_eq!(read("2026-11-24T23:59:59Z"), Some(Value::Bool(true)));
        assert_eq!(read("2026-11-25T00:00:00Z"), Some(Value::Bool(false)));
        let needless = source.replace("assurance", "otherwise: other, assurance");
        assert!(mistakes("bool", "request", &needless)[0].starts_with("needless_otherwise"));
        assert_eq!(testing::read("string", source, &Request::default(), "2026-11-25T00:00:00Z").0, State::Missing);
    }

    #[test]
    fn each_mistake_in_windows_is_found() {
        let said = |windows: &str| mistakes("string", "request", &source(windows)).join(";");
        let one = |days: &str, from: &str, to: &str| format!("{{days: {days}, from: \"{from}\", to: \"{to}\"}}");
        let two = |a: String, b: String| said(&format!("{{a: {a}, b: {b}}}"));
        let overlap = two(one("[mon, tue]", "08:00", "12:00"), one("[tue]", "11:59", "13:00"));
        assert_eq!(overlap, "overlapping_windows: `windows`: `b` and `a` overlap");
        let late = two(one("[sun]", "22:00", "06:00"), one("[mon]", "05:00", "07:00"));
        assert!(late.starts_with("overlapping_windows"), "across the end of the week: {late}");
        assert!(said(&format!("{{a: {}}}", one("[mon, mon]", "08:00", "09:00"))).starts_with("overlapping_windows"));
        assert_eq!(two(one("[mon]", "08:00", "12:00"), one("[mon]", "12:00", "13:00")), "");
        for (from, to) in
            [("8:00", "09:00"), ("08:00", "24:01"), ("24:00", "01:00"), ("08:60", "09:00"), ("08:00", "x")]
        {
            assert!(said(&format!("{{a: {}}}", one("[mon]", from, to))).starts_with("bad_window"), "{from} {to}");
        }
        assert!(said(&format!("{{a: {}}}", one("[mon]", "08:00", "08:00"))).contains("`24:00`"));
        assert!(said(&format!("{{a: {}}}", one("[]", "08:00", "09:00"))).starts_with("empty_list"));
        assert!(said(&format!("{{a: {}}}", one("[monday]", "08:00", "09:00"))).starts_with("unknown_value"));
        assert!(said("{}").starts_with("bad_window"));
        let zone =
            |zone: &str| source("{a: {days: [mon], from: \"08:00\", to: \"09:00\"}}").replace("Europe/Berlin", zone);
        let said = mistakes("string", "request", &zone("Europe/Berln"));
        assert!(said[0].contains("did you mean `Europe/Berlin`?"), "{said:?}");
        assert!(mistakes("long", "request", &zone("UTC")).iter().all(|said| said.starts_with("not_a_value")));
        assert!(mistakes("string", "device", &zone("UTC")).iter().any(|said| said.starts_with("source_subject")));
    }
}
