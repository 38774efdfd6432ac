//! Go's layouts of times (`2006-01-02T15:04:05Z07:00`): writing and reading.

use super::{Answer, time::as_nanoseconds};
use chrono::{DateTime, Datelike, NaiveDate, TimeDelta, Timelike};
use chrono_tz::Tz;
use std::fmt::Write as _;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// The layouts that have a name.
const NAMED: &[(&str, &str)] = &[
    ("ANSIC", "Mon Jan _2 15:04:05 2006"),
    ("UnixDate", "Mon Jan _2 15:04:05 MST 2006"),
    ("RubyDate", "Mon Jan 02 15:04:05 -0700 2006"),
    ("RFC822", "02 Jan 06 15:04 MST"),
    ("RFC822Z", "02 Jan 06 15:04 -0700"),
    ("RFC850", "Monday, 02-Jan-06 15:04:05 MST"),
    ("RFC1123", "Mon, 02 Jan 2006 15:04:05 MST"),
    ("RFC1123Z", "Mon, 02 Jan 2006 15:04:05 -0700"),
    ("RFC3339", "2006-01-02T15:04:05Z07:00"),
    ("RFC3339Nano", "2006-01-02T15:04:05.999999999Z07:00"),
];

/// Pieces of a layout, longest first where one begins another.
const PIECES: &[(&str, Piece)] = &[
    ("January", Piece::LongMonth),
    ("Jan", Piece::ShortMonth),
    ("Monday", Piece::LongDay),
    ("Mon", Piece::ShortDay),
    ("MST", Piece::ZoneName),
    ("002", Piece::DayOfYear),
    ("01", Piece::Month(true)),
    ("02", Piece::Day('0')),
    ("03", Piece::Hour12(true)),
    ("04", Piece::Minute(true)),
    ("05", Piece::Second(true)),
    ("06", Piece::ShortYear),
    ("15", Piece::Hour),
    ("1", Piece::Month(false)),
    ("2006", Piece::Year),
    ("2", Piece::Day('1')),
    ("__2", Piece::DayOfYear),
    ("_2006", Piece::UnderscoreYear),
    ("_2", Piece::Day(' ')),
    ("3", Piece::Hour12(false)),
    ("4", Piece::Minute(false)),
    ("5", Piece::Second(false)),
    ("PM", Piece::Half(true)),
    ("pm", Piece::Half(false)),
    ("-070000", Piece::Unknown),
    ("-07:00:00", Piece::Unknown),
    ("-0700", Piece::Offset { zulu: false, form: Form::Plain }),
    ("-07:00", Piece::Offset { zulu: false, form: Form::Colon }),
    ("-07", Piece::Offset { zulu: false, form: Form::Hours }),
    ("Z070000", Piece::Unknown),
    ("Z07:00:00", Piece::Unknown),
    ("Z0700", Piece::Offset { zulu: true, form: Form::Plain }),
    ("Z07:00", Piece::Offset { zulu: true, form: Form::Colon }),
    ("Z07", Piece::Offset { zulu: true, form: Form::Hours }),
];

#[derive(Clone, Copy, PartialEq)]
enum Form {
    Plain,
    Colon,
    Hours,
}

#[derive(Clone, Copy, PartialEq)]
enum Piece {
    LongMonth,
    ShortMonth,
    LongDay,
    ShortDay,
    ZoneName,
    DayOfYear,
    Month(bool),
    /// `'0'`: two digits; `' '`: padded with a space; `'1'`: as many as needed.
    Day(char),
    Hour,
    Hour12(bool),
    Minute(bool),
    Second(bool),
    Year,
    UnderscoreYear,
    ShortYear,
    Half(bool),
    Offset {
        zulu: bool,
        form: Form,
    },
    /// So many digits, all of them or without zeros at the end.
    Fraction {
        digits: usize,
        all: bool,
        point: char,
    },
    Letter(char),
    Unknown,
}

/// A layout in its pieces.
fn pieces(layout: &str) -> Result<Vec<Piece>, String> {
    let mut rest = NAMED.iter().find(|(name, _)| *name == layout).map_or(layout, |(_, layout)| *layout);
    let mut found = Vec::new();
    while let Some(letter) = rest.chars().next() {
        let (length, piece) = next(rest).unwrap_or((letter.len_utf8(), Piece::Letter(letter)));
        match piece {
            Piece::Unknown | Piece::DayOfYear => return Err(format!("the layout `{layout}` is not taken")),
            Piece::UnderscoreYear => found.extend([Piece::Letter('_'), Piece::Year]),
            piece => found.push(piece),
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(found)
}

fn next(rest: &str) -> Option<(usize, Piece)> {
    if let Some(after) = rest.strip_prefix(['.', ',']) {
        let digit = after.chars().next().filter(|digit| matches!(digit, '0' | '9'))?;
        let digits = after.chars().take_while(|letter| *letter == digit).count();
        if after.chars().nth(digits).is_some_and(|letter| letter.is_ascii_digit()) || digits > 9 {
            return None;
        }
        let point = if rest.starts_with('.') { '.' } else { ',' };
        return Some((digits.saturating_add(1), Piece::Fraction { digits, all: digit == '0', point }));
    }
    let (written, piece) = PIECES.iter().find(|(written, _)| rest.starts_with(written))?;
    let goes_on = || rest.chars().nth(written.len()).is_some_and(|letter| letter.is_ascii_lowercase());
    // `Janet` is a name, not a month.
    if matches!(piece, Piece::ShortMonth | Piece::ShortDay) && goes_on() {
        return None;
    }
    Some((written.len(), *piece))
}

fn short(name: &str) -> &str {
    name.get(..3).unwrap_or(name)
}

/// A moment in a layout.
pub(super) fn written(moment: &DateTime<Tz>, layout: &str) -> Result<String, String> {
    let mut into = String::new();
    let month = MONTHS.get(moment.month0() as usize).copied().unwrap_or_default();
    let day = DAYS.get(moment.weekday().num_days_from_sunday() as usize).copied().unwrap_or_default();
    let hour12 = if moment.hour() % 12 == 0 { 12 } else { moment.hour() % 12 };
    let number = |into: &mut String, number: u32, two: bool| {
        let _ = if two { write!(into, "{number:02}") } else { write!(into, "{number}") };
    };
    for piece in pieces(layout)? {
        match piece {
            Piece::LongMonth => into.push_str(month),
            Piece::ShortMonth => into.push_str(short(month)),
            Piece::LongDay => into.push_str(day),
            Piece::ShortDay => into.push_str(short(day)),
            Piece::ZoneName if moment.timezone() == Tz::UTC => into.push_str("UTC"),
            Piece::ZoneName => return Err("the short names of zones are not written: use `-07:00`".to_owned()),
            Piece::Month(two) => number(&mut into, moment.month(), two),
            Piece::Day('0') => number(&mut into, moment.day(), true),
            Piece::Day(' ') => {
                let _ = write!(into, "{:2}", moment.day());
            }
            Piece::Day(_) => number(&mut into, moment.day(), false),
            Piece::Hour => number(&mut into, moment.hour(), true),
            Piece::Hour12(two) => number(&mut into, hour12, two),
            Piece::Minute(two) => number(&mut into, moment.minute(), two),
            Piece::Second(two) => number(&mut into, moment.second(), two),
            Piece::Year => {
                let _ = write!(into, "{:04}", moment.year());
            }
            Piece::ShortYear => number(&mut into, moment.year().rem_euclid(100).unsigned_abs(), true),
            Piece::Half(upper) => into.push_str(match (upper, moment.hour() >= 12) {
                (true, true) => "PM",
                (true, false) => "AM",
                (false, true) => "pm",
                (false, false) => "am",
            }),
            Piece::Offset { zulu, form } => offset(&mut into, moment, zulu, form)?,
            Piece::Fraction { digits, all, point } => fraction(&mut into, moment.nanosecond(), digits, all, point),
            Piece::Letter(letter) => into.push(letter),
            Piece::DayOfYear | Piece::UnderscoreYear | Piece::Unknown => {}
        }
    }
    Ok(into)
}

fn offset(into: &mut String, moment: &DateTime<Tz>, zulu: bool, form: Form) -> Result<(), String> {
    let seconds = chrono::Offset::fix(moment.offset()).local_minus_utc();
    if zulu && seconds == 0 {
        into.push('Z');
        return Ok(());
    }
    let (sign, seconds) = (if seconds < 0 { '-' } else { '+' }, seconds.unsigned_abs());
    if seconds % 60 != 0 {
        return Err("an offset with seconds is not written".to_owned());
    }
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    let _ = match form {
        Form::Plain => write!(into, "{sign}{hours:02}{minutes:02}"),
        Form::Colon => write!(into, "{sign}{hours:02}:{minutes:02}"),
        Form::Hours => write!(into, "{sign}{hours:02}"),
    };
    Ok(())
}

fn fraction(into: &mut String, nanoseconds: u32, digits: usize, all: bool, point: char) {
    let nine = format!("{nanoseconds:09}");
    let cut = nine.get(..digits).unwrap_or(&nine);
    let kept = if all { cut } else { cut.trim_end_matches('0') };
    if !kept.is_empty() {
        into.push(point);
        into.push_str(kept);
    }
}

// ---- reading -----------------------------------------------------------------------------------------------------

/// What is read so far; what is not there is 1 January of the year 0, midnight, UTC.
struct Read<'t> {
    rest: &'t str,
    year: i32,
    month: u32,
    day: u32,
    hour: u32,
    minute: u32,
    second: u32,
    nanoseconds: u32,
    afternoon: Option<bool>,
    offset: i64,
}

/// A text in a layout, as nanoseconds.
pub(super) fn read(layout: &str, written: &str) -> Answer {
    let mut read = Read {
        rest: written,
        year: 0,
        month: 1,
        day: 1,
        hour: 0,
        minute: 0,
        second: 0,
        nanoseconds: 0,
        afternoon: None,
        offset: 0,
    };
    let all = pieces(layout)?;
    for (nth, piece) in all.iter().enumerate() {
        let after = all.get(nth.saturating_add(1));
        read.piece(*piece, after)
            .ok_or_else(|| format!("parsing time \"{written}\" as \"{layout}\": cannot parse \"{}\"", read.rest))?;
    }
    if !read.rest.is_empty() {
        return Err(format!("parsing time \"{written}\": extra text: \"{}\"", read.rest));
    }
    read.finished().ok_or_else(|| format!("parsing time \"{written}\": out of range"))?
}

impl<'t> Read<'t> {
    fn finished(self) -> Option<Answer> {
        let hour = match self.afternoon {
            Some(true) if self.hour < 12 => self.hour.saturating_add(12),
            Some(false) if self.hour == 12 => 0,
            _ => self.hour,
        };
        let local = NaiveDate::from_ymd_opt(self.year, self.month, self.day)?.and_hms_nano_opt(
            hour,
            self.minute,
            self.second,
            self.nanoseconds,
        )?;
        let moment = local.checked_sub_signed(TimeDelta::try_seconds(self.offset)?)?.and_utc();
        Some(as_nanoseconds(moment.timestamp_nanos_opt()))
    }

    fn take(&mut self, length: usize) -> Option<&'t str> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    /// One digit or two; two where the layout says so.
    fn number(&mut self, two: bool, most: u32) -> Option<u32> {
        let digits = self.rest.bytes().take(2).take_while(u8::is_ascii_digit).count();
        if digits == 0 || (two && digits < 2) {
            return None;
        }
        self.take(digits)?.parse().ok().filter(|number| *number <= most)
    }

    fn digits(&mut self, count: usize) -> Option<u32> {
        let digits = self.take(count)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    }

    /// Which of these names comes next, in whatever case.
    fn name(&mut self, names: &[&str], shortened: bool) -> Option<u32> {
        let (nth, length) = names.iter().enumerate().find_map(|(nth, name)| {
            let name = if shortened { short(name) } else { name };
            let found = self.rest.get(..name.len())?;
            found.eq_ignore_ascii_case(name).then_some((nth, name.len()))
        })?;
        self.take(length)?;
        u32::try_from(nth).ok()
    }

    fn piece(&mut self, piece: Piece, after: Option<&Piece>) -> Option<()> {
        match piece {
            Piece::LongMonth | Piece::ShortMonth => {
                self.month = self.name(&MONTHS, piece == Piece::ShortMonth)?.checked_add(1)?;
            }
            Piece::LongDay | Piece::ShortDay => {
                self.name(&DAYS, piece == Piece::ShortDay)?;
            }
            // Other names mean nothing to Go either: it takes them for UTC.
            Piece::ZoneName => {
                self.rest = self.rest.strip_prefix("UTC")?;
            }
            Piece::Month(two) => self.month = self.number(two, 12).filter(|month| *month > 0)?,
            Piece::Day(form) => {
                if form == ' ' {
                    self.rest = self.rest.strip_prefix(' ').unwrap_or(self.rest);
                }
                self.day = self.number(form == '0', 31)?;
            }
            Piece::Hour => self.hour = self.number(false, 23)?,
            Piece::Hour12(two) => self.hour = self.number(two, 12)?,
            Piece::Minute(two) => self.minute = self.number(two, 59)?,
            Piece::Second(two) => {
                self.second = self.number(two, 59)?;
                // A fraction that the layout does not speak of is taken all the same.
                if !matches!(after, Some(Piece::Fraction { .. })) {
                    self.fraction();
                }
            }
            Piece::Year => self.year = i32::try_from(self.digits(4)?).ok()?,
            Piece::ShortYear => {
                let year = i32::try_from(self.digits(2)?).ok()?;
                self.year = year.checked_add(if year >= 69 { 1_900 } else { 2_000 })?;
            }
            Piece::Half(upper) => {
                let half = self.take(2)?;
                self.afternoon = Some(match (half, upper) {
                    ("PM", true) | ("pm", false) => true,
                    ("AM", true) | ("am", false) => false,
                    _ => return None,
                });
            }
            Piece::Offset { zulu, form } => self.offset(zulu, form)?,
            Piece::Fraction { digits, all: true, .. } => {
                self.rest = self.rest.strip_prefix(['.', ','])?;
                let scale = 10_u32.checked_pow(u32::try_from(9_usize.checked_sub(digits)?).ok()?)?;
                self.nanoseconds = self.digits(digits)?.checked_mul(scale)?;
            }
            Piece::Fraction { all: false, .. } => self.fraction(),
            Piece::Letter(' ') => {
                if !self.rest.is_empty() {
                    self.rest.starts_with(' ').then_some(())?;
                }
                self.rest = self.rest.trim_start_matches(' ');
            }
            Piece::Letter(letter) => self.rest = self.rest.strip_prefix(letter)?,
            Piece::DayOfYear | Piece::UnderscoreYear | Piece::Unknown => return None,
        }
        Some(())
    }

    /// A fraction of any length, if there is one; what is finer than a nanosecond is cut off.
    fn fraction(&mut self) {
        let Some(after) = self.rest.strip_prefix(['.', ',']) else { return };
        let length = after.bytes().take_while(u8::is_ascii_digit).count();
        let Some((digits, rest)) = after.split_at_checked(length).filter(|_| length > 0) else { return };
        let nine: String = digits.chars().chain(std::iter::repeat('0')).take(9).collect();
        self.nanoseconds = nine.parse().unwrap_or(0);
        self.rest = rest;
    }

    fn offset(&mut self, zulu: bool, form: Form) -> Option<()> {
        if zulu && let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            self.offset = 0;
            return Some(());
        }
        let sign = match self.take(1)? {
            "+" => 1,
            "-" => -1,
            _ => return None,
        };
        let hours = self.digits(2).filter(|hours| *hours <= 24)?;
        if form == Form::Colon {
            self.rest = self.rest.strip_prefix(':')?;
        }
        let minutes = if form == Form::Hours { 0 } else { self.digits(2).filter(|minutes| *minutes <= 59)? };
        let seconds = i64::from(hours).checked_mul(3_600)?.checked_add(i64::from(minutes).checked_mul(60)?)?;
        self.offset = seconds.checked_mul(sign)?;
        Some(())
    }
}
