//! What is counted: latencies in a histogram, outcomes, reasons, and what was late or never sent; as JSON in the end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::answer::{Answer, Outcome};

/// A histogram's largest value: a call that takes longer counts as that long.
const LONGEST_NS: u64 = 60_000_000_000;
/// Three digits: an error of a thousandth, in some hundred kilobytes.
const DIGITS: u8 = 3;
/// Percentiles that results give by name; the table has many more.
const NAMED: [(&str, f64); 7] =
    [("p50", 50.0), ("p75", 75.0), ("p90", 90.0), ("p95", 95.0), ("p99", 99.0), ("p99_9", 99.9), ("p99_99", 99.99)];
/// Steps of the table in each halving of the distance to 100 %.
const TABLE_STEPS: u32 = 5;

/// The counts of one run. Only what was to be sent after the warm-up is in them, but for `in_all`.
#[derive(Debug)]
pub struct Tally {
    latency: Histogram<u64>,
    counted_from: Instant,
    /// Answers of any kind, those of the warm-up among them: what the server's processor time is divided by.
    pub in_all: u64,
    /// Calls that were sent.
    pub sent: u64,
    /// Calls that were sent later than `LATE` after their moment, since the load or its bound in flight was behind.
    pub late: u64,
    /// Calls whose moment came, and that were never sent.
    pub unsent: u64,
    /// Calls without an answer when the run ended.
    pub unanswered: u64,
    allow: u64,
    deny: u64,
    wrong: u64,
    broken: u64,
    others: BTreeMap<String, u64>,
    reasons: BTreeMap<Vec<u8>, u64>,
    last: Option<Instant>,
}

impl Tally {
    /// An empty one; `counted_from` is the end of the warm-up.
    pub fn new(counted_from: Instant) -> Result<Self, String> {
        let latency = Histogram::new_with_bounds(1, LONGEST_NS, DIGITS)
            .map_err(|error| format!("no histogram can be made: {error}"))?;
        Ok(Self {
            latency,
            counted_from,
            in_all: 0,
            sent: 0,
            late: 0,
            unsent: 0,
            unanswered: 0,
            allow: 0,
            deny: 0,
            wrong: 0,
            broken: 0,
            others: BTreeMap::new(),
            reasons: BTreeMap::new(),
            last: None,
        })
    }

    /// Whether a call that is to be sent then is beyond the warm-up.
    pub fn counts(&self, intended: Instant) -> bool {
        intended >= self.counted_from
    }

    /// Takes in an answer that came at `done` to a call that was to be sent at `intended`.
    pub fn record(&mut self, intended: Instant, done: Instant, answer: &Answer) {
        self.in_all += 1;
        if !self.counts(intended) {
            return;
        }
        let nanos = u64::try_from((done - intended).as_nanos()).unwrap_or(u64::MAX);
        self.latency.saturating_record(nanos.clamp(1, LONGEST_NS));
        self.last = Some(self.last.map_or(done, |last| last.max(done)));
        match answer.outcome {
            Outcome::Allow => self.allow += 1,
            Outcome::Deny => self.deny += 1,
            Outcome::Wrong => self.wrong += 1,
            Outcome::Broken => self.broken += 1,
            Outcome::Grpc(status) => *self.others.entry(format!("grpc_{status}")).or_default() += 1,
            Outcome::Http(status) => *self.others.entry(format!("http_{status}")).or_default() += 1,
        }
        if let Some(reason) = &answer.reason {
            match self.reasons.get_mut(reason) {
                Some(count) => *count += 1,
                None => drop(self.reasons.insert(reason.clone(), 1)),
            }
        }
    }

    /// Calls that broke, in all.
    pub fn broken(&self) -> u64 {
        self.broken
    }

    /// The counts as one object; the caller adds what was asked for.
    pub fn as_json(&self) -> Value {
        let seconds = self.last.map_or(Duration::ZERO, |last| last - self.counted_from).as_secs_f64();
        let answered = self.latency.len();
        let mut outcomes = BTreeMap::from([("allow", self.allow), ("deny", self.deny), ("wrong", self.wrong)]);
        outcomes.insert("broken", self.broken);
        outcomes.extend(self.others.iter().map(|(name, count)| (name.as_str(), *count)));
        let reasons: BTreeMap<_, _> =
            self.reasons.iter().map(|(reason, count)| (String::from_utf8_lossy(reason), count)).collect();
        json!({
            "sent": self.sent,
            "answered": answered,
            "answered_in_all": self.in_all,
            "late": self.late,
            "unsent": self.unsent,
            "unanswered": self.unanswered,
            "seconds": seconds,
            "rps": if seconds > 0.0 { to_f64(answered) / seconds } else { 0.0 },
            "outcomes": outcomes,
            "reasons": reasons,
            "latency_us": self.latencies(),
        })
    }

    /// Microseconds: the named percentiles, and the table of percentile and value. Null where nothing was answered.
    fn latencies(&self) -> Value {
        if self.latency.is_empty() {
            return Value::Null;
        }
        let micros = |nanos: u64| to_f64(nanos) / 1e3;
        let mut figures = serde_json::Map::new();
        figures.insert("min".to_owned(), json!(micros(self.latency.min())));
        figures.insert("mean".to_owned(), json!(self.latency.mean() / 1e3));
        for (name, percentile) in NAMED {
            figures.insert(name.to_owned(), json!(micros(self.latency.value_at_percentile(percentile))));
        }
        figures.insert("max".to_owned(), json!(micros(self.latency.max())));
        let table: Vec<_> = self
            .latency
            .iter_quantiles(TABLE_STEPS)
            .map(|step| json!([step.quantile_iterated_to() * 100.0, micros(step.value_iterated_to())]))
            .collect();
        figures.insert("table".to_owned(), Value::Array(table));
        Value::Object(figures)
    }
}

/// Counts and nanoseconds of one run are far below 2^53.
#[expect(clippy::cast_precision_loss)]
fn to_f64(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(begin: Instant, micros: u64) -> Instant {
        begin + Duration::from_micros(micros)
    }

    #[test]
    fn latency_is_counted_from_the_moment_at_which_a_call_was_to_be_sent() {
        let begin = Instant::now();
        let mut tally = Tally::new(begin).unwrap();
        for number in 0..1_000 {
            // A server that stalls for 10 ms and answers all at once: they waited from 10 ms down to 10 µs.
            tally.record(at(begin, number * 10), at(begin, 10_000), &Answer::of(Outcome::Allow));
        }
        let figures = tally.as_json();
        let p = |name: &str| figures["latency_us"][name].as_f64().unwrap();
        assert!((p("p50") - 5_000.0).abs() < 20.0, "{figures}");
        assert!((p("p99") - 9_900.0).abs() < 30.0, "{figures}");
        assert!((p("max") - 10_000.0).abs() < 20.0, "{figures}");
        assert_eq!(figures["outcomes"]["allow"], 1_000);
    }

    #[test]
    fn the_warm_up_is_in_no_figure_but_the_count_of_all() {
        let begin = Instant::now();
        let mut tally = Tally::new(at(begin, 100)).unwrap();
        tally.record(begin, at(begin, 90_000), &Answer::of(Outcome::Wrong));
        tally.record(at(begin, 100), at(begin, 150), &Answer::of(Outcome::Deny));
        let figures = tally.as_json();
        assert_eq!((&figures["answered"], &figures["answered_in_all"]), (&json!(1), &json!(2)));
        assert_eq!((&figures["outcomes"]["wrong"], &figures["outcomes"]["deny"]), (&json!(0), &json!(1)));
        assert!(figures["latency_us"]["max"].as_f64().unwrap() < 51.0);
    }

    #[test]
    fn the_table_rises_to_the_largest_value() {
        let begin = Instant::now();
        let mut tally = Tally::new(begin).unwrap();
        for micros in 1..=10_000 {
            tally.record(begin, at(begin, micros), &Answer::of(Outcome::Allow));
        }
        let figures = tally.as_json();
        let table: Vec<(f64, f64)> = serde_json::from_value(figures["latency_us"]["table"].clone()).unwrap();
        assert!(table.windows(2).all(|pair| pair[0].0 <= pair[1].0 && pair[0].1 <= pair[1].1));
        let (last, value) = *table.last().unwrap();
        assert!((last - 100.0).abs() < 1e-9 && (value - 10_000.0).abs() < 20.0);
    }

    #[test]
    fn nothing_answered_has_no_latency() {
        let figures = Tally::new(Instant::now()).unwrap().as_json();
        assert_eq!(figures["latency_us"], Value::Null);
        assert_eq!(figures["rps"], 0.0);
    }

    #[test]
    fn outcomes_and_reasons_are_counted_by_name() {
        let begin = Instant::now();
        let mut tally = Tally::new(begin).unwrap();
        let late = Answer { outcome: Outcome::Deny, reason: Some(b"late".to_vec()) };
        for answer in [late.clone(), late, Answer::of(Outcome::Grpc(14)), Answer::of(Outcome::Http(503))] {
            tally.record(begin, begin, &answer);
        }
        let figures = tally.as_json();
        assert_eq!(figures["reasons"], json!({"late": 2}));
        assert_eq!(figures["outcomes"]["grpc_14"], 1);
        assert_eq!(figures["outcomes"]["http_503"], 1);
    }
}
