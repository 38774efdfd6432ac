//! Source kind `derived`: what the core itself counts, of a principal in a window, or of a task and all of its tree since the
//! first of them began. Its inputs are verified identities, addresses and its own answers, and yet it is at best `derived`: a
//! number computed from them.

use super::{Circumstances, Flow, Kind, ReadRequest, Reading, Source};
use crate::model::names::SubjectKind;
use crate::model::{Assurance, SignalType, Span, State, TaskFacts, Value};
use crate::signals::derived::Measure;
use std::sync::Arc;

pub(super) const KIND: Kind = Kind {
    word: "derived",
    ceiling: |_| (Assurance::Derived, ""),
    objection: |subject| match subject {
        SubjectKind::Principal | SubjectKind::Task => None,
        _ => Some("a `derived` source counts what a principal or a task does: its contract's subject is one of them"),
    },
    read,
};

/// A second is sixteen buckets of 62.5 ms, far above the time of a decision.
const SHORTEST: i64 = 1_000_000;
/// A day: after a start there is no value for so long.
const LONGEST: i64 = 24 * 3_600_000_000;

/// What is counted of a tree of tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskMeasure {
    /// Allowed calls.
    Calls,
    /// Distinct resources among them.
    Resources,
    /// Systems touched.
    Systems,
    /// Seconds since the first task began.
    Seconds,
}

impl TaskMeasure {
    /// Every measure, with the word that files use.
    pub const ALL: &'static [(&'static str, Self)] = &[
        ("task_calls", Self::Calls),
        ("task_resources", Self::Resources),
        ("task_systems", Self::Systems),
        ("task_seconds", Self::Seconds),
    ];

    /// The word that files use.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, v)| *v == self).map_or("", |(word, _)| word)
    }
}

#[derive(Debug)]
struct OfTask(TaskMeasure);

impl ReadRequest for OfTask {
    /// Missing without a grant, and where the tree began before this core did: nobody knows what it has done.
    fn read(&self, circumstances: &Circumstances<'_>, _kind: &SignalType) -> (State, Option<Value>) {
        let counted = |task: &TaskFacts| match self.0 {
            TaskMeasure::Calls => task.calls,
            TaskMeasure::Resources => task.resources,
            TaskMeasure::Systems => Some(task.systems),
            TaskMeasure::Seconds => Some(circumstances.now.since(task.begun_at).as_micros() / 1_000_000),
        };
        match circumstances.task.and_then(counted) {
            Some(count) => (State::Fresh, Some(Value::Long(count))),
            None => (State::Missing, None),
        }
    }
}

fn read(reading: &mut Reading<'_, '_>, assurance: Assurance) -> Option<Source> {
    if let Some(kind) = reading.declared.kind.filter(|kind| **kind != SignalType::Long) {
        let message = format!("a `derived` source counts: its contract's type is `long`, found `{kind}`");
        reading.error(reading.fields.place_of("kind"), "derived_type", message);
    }
    if reading.declared.subject == Some(SubjectKind::Task) {
        return of_task(reading, assurance);
    }
    let measure = reading.fields.require_word("measure", Measure::ALL, reading.findings);
    let window = reading.parsed("window", "bad_span", |text| {
        let span = Span::parse(text).filter(|span| (SHORTEST..=LONGEST).contains(&span.as_micros()));
        span.map(|span| (text, span)).ok_or("expected a span from `1s` to `24h`")
    });
    let (measure, (text, window)) = (measure?, window?);
    Some(Source {
        kind: KIND.word,
        assurance,
        label: format!("derived:{}/{text}", measure.as_str()).into(),
        settings: vec![("measure", measure.as_str().into()), ("window", text.into())],
        flow: Flow::Counted { measure, window },
    })
}

/// A tree is counted from its beginning: a window would forget what it has done.
fn of_task(reading: &mut Reading<'_, '_>, assurance: Assurance) -> Option<Source> {
    let measure = reading.fields.require_word("measure", TaskMeasure::ALL, reading.findings)?;
    Some(Source {
        kind: KIND.word,
        assurance,
        label: format!("derived:{}", measure.as_str()).into(),
        settings: vec![("measure", measure.as_str().into())],
        flow: Flow::OnRequest(Arc::new(OfTask(measure))),
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{mistakes, register, routes};

    const SOURCE: &str = "{kind: derived, measure: requests, window: 1m, assurance: derived}";

    #[test]
    fn it_counts_a_task_from_its_beginning_and_takes_no_window() {
        for word in ["task_calls", "task_resources", "task_systems", "task_seconds"] {
            let source = format!("{{kind: derived, measure: {word}, assurance: derived}}");
            assert_eq!(mistakes("long", "task", &source), [""; 0]);
            assert_ne!(mistakes("long", "principal", &source), [""; 0]);
            assert_ne!(mistakes("bool", "task", &source), [""; 0]);
        }
        assert_ne!(
            mistakes("long", "task", "{kind: derived, measure: task_calls, window: 1m, assurance: derived}"),
            [""; 0]
        );
    }

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
