//! Source kind `derived`: what the core itself counts of a principal. Its inputs are verified identities, addresses and
//! its own answers, and yet it is at best `derived`: a number computed from them.

use super::{Flow, Kind, Reading, Source};
use crate::model::names::SubjectKind;
use crate::model::{Assurance, SignalType, Span};
use crate::signals::derived::Measure;

pub(super) const KIND: Kind = Kind {
    word: "derived",
    ceiling: |_| (Assurance::Derived, ""),
    objection: |subject| match subject {
        SubjectKind::Principal => None,
        _ => Some("a `derived` source counts what a principal does: its contract's subject is `principal`"),
    },
    read,
};

/// A second is sixteen buckets of 62.5 ms, far above the time of a decision.
const SHORTEST: i64 = 1_000_000;
/// A day: after a start there is no value for so long.
const LONGEST: i64 = 24 * 3_600_000_000;

fn read(reading: &mut Reading<'_, '_>, assurance: Assurance) -> Option<Source> {
    let measure = reading.fields.require_word("measure", Measure::ALL, reading.findings);
    let window = reading.parsed("window", "bad_span", |text| {
        let span = Span::parse(text).filter(|span| (SHORTEST..=LONGEST).contains(&span.as_micros()));
        span.map(|span| (text, span)).ok_or("expected a span from `1s` to `24h`")
    });
    if let Some(kind) = reading.declared.kind.filter(|kind| **kind != SignalType::Long) {
        let message = format!("a `derived` source counts: its contract's type is `long`, found `{kind}`");
        reading.error(reading.fields.place_of("kind"), "derived_type", message);
    }
    let (measure, (text, window)) = (measure?, window?);
    Some(Source {
        kind: KIND.word,
        assurance,
        label: format!("derived:{}/{text}", measure.as_str()).into(),
        settings: vec![("measure", measure.as_str().into()), ("window", text.into())],
        flow: Flow::Counted { measure, window },
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{mistakes, register, routes};

    const SOURCE: &str = "{kind: derived, measure: requests, window: 1m, assurance: derived}";

    #[test]
    fn it_counts_a_principal_as_a_long_and_has_no_age() {
        assert_eq!(mistakes("long", "principal", SOURCE), [""; 0]);
        let (register, _) = register(&routes(&[""]), "long", "principal", SOURCE);
        let contract = &register.contracts()[0];
        assert_eq!((&*contract.sources[0].label, contract.max_age), ("derived:requests/1m", None));
        let code = |kind: &str, subject: &str, source: &str| {
            let said = mistakes(kind, subject, source);
            said.iter().map(|said| said.split(':').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(code("bool", "principal", SOURCE), ["derived_type"]);
        assert!(code("long", "device", SOURCE).contains(&"source_subject".to_owned()));
        assert_eq!(code("long", "principal", &SOURCE.replace("requests", "request")), ["unknown_value"]);
        for window in ["999ms", "25h", "2d", "one"] {
            assert_eq!(code("long", "principal", &SOURCE.replace("1m", window)), ["bad_span"], "{window}");
        }
        let high = SOURCE.replace("assurance: derived", "assurance: sourced");
        assert!(mistakes("long", "principal", &high).iter().any(|said| said.contains("at best `derived`")));
    }
}
