//! Recorded decisions, made again: with another directory, or with signals that were not as they were. There is no second
//! way to decide here: routes, principals, policies and tiers are asked by the functions that `check` asks.
//!
//! `read.rs` reads a line, `case.rs` looks at the call anew, `facts.rs` at its signals, `changes.rs` changes those,
//! `again.rs` decides, `explain.rs` says what the outcome hangs on, with the values that `values.rs` finds worth a try.

mod again;
mod case;
mod changes;
mod explain;
mod facts;
mod read;
mod text;
mod values;

pub use changes::Changes;

use crate::{
    error::Error,
    policy::reasoning::Verdict,
    reason::Reason,
    signals::Store,
    snapshot::{Running, Snapshot},
};
use again::Again;
use read::{Line, Recorded};
use serde::Serialize;
use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

/// A directory that recorded decisions are made again with. It holds no live state: what is known of signals is in the
/// records.
pub struct Replay {
    running: Running,
    store: Store,
}

/// A decision that came to an end.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ended {
    reason: Reason,
    /// False: a denial that is let pass.
    enforced: bool,
    /// Why the outcome is taken as it was recorded, where it is.
    as_it_was: Option<&'static str>,
    /// What the policies said, if they were asked.
    verdict: Option<Verdict>,
}

impl Ended {
    const fn now(reason: Reason) -> Self {
        Self { reason, enforced: true, as_it_was: None, verdict: None }
    }
}

/// What can't be known from the record; one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Unknowable(String);

impl Recorded<'_> {
    fn as_it_was(&self, why: &'static str) -> Ended {
        Ended { reason: self.reason, enforced: self.enforced, as_it_was: Some(why), verdict: None }
    }

    /// Who had said yes to this very call, where that could still be used.
    fn approved_by(&self) -> BTreeSet<Arc<str>> {
        let approved = self.approval.iter().filter(|approval| &*approval.state == "approved");
        approved.flat_map(|approval| &approval.approved_by).map(|by| Arc::from(&**by)).collect()
    }
}

/// Outcome and reason, of then or now.
#[derive(Serialize)]
struct Answer<'a> {
    outcome: &'static str,
    reason: &'static str,
    /// Only where it is false.
    #[serde(skip_serializing_if = "Option::is_none")]
    enforced: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    determining: Option<Vec<again::Determining<'a>>>,
}

impl Answer<'_> {
    fn of(reason: Reason, enforced: bool) -> Self {
        let outcome = outcome(reason);
        Self { outcome, reason: reason.code(), enforced: (!enforced).then_some(false), determining: None }
    }
}

fn outcome(reason: Reason) -> &'static str {
    if reason == Reason::Allowed { "allow" } else { "deny" }
}

/// What is said of one line.
#[derive(Serialize)]
#[serde(untagged)]
enum Said<'a> {
    Decided {
        decision_id: &'a str,
        was: Answer<'a>,
        now: Answer<'a>,
        flips: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        as_it_was: Option<&'static str>,
    },
    Undecidable {
        decision_id: &'a str,
        undecidable: &'a str,
    },
    Skipped {
        skipped: &'static str,
    },
    Bad {
        bad: &'a str,
    },
}

impl Replay {
    /// Of a directory.
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        let store = Store::new(0);
        let running = Running::new(snapshot, &store, None, 0);
        Self { running, store }
    }

    /// Makes the decisions of a log again, with these changes: one JSON line for each line, in their order. A line is
    /// decided, undecidable, skipped (of another kind) or bad. The error is about the changes alone.
    pub fn decide(&self, lines: &[u8], changes: &[u8]) -> Result<Vec<u8>, Error> {
        let changes = Changes::read(changes, &self.running.snapshot.register)?;
        let mut out = Vec::with_capacity(lines.len() / 4);
        for line in each_line(lines) {
            guarded(&mut out, |out| self.decide_line(line, &changes, out));
        }
        Ok(out)
    }

    fn decide_line(&self, line: &[u8], changes: &Changes, out: &mut Vec<u8>) {
        let recorded = match read::line(line) {
            Line::Decision(recorded) => recorded,
            other => return write_other(&other, out),
        };
        let decision_id = &recorded.id;
        let ended = match Again::of(self, &recorded, changes) {
            Ok(again) => again.ended,
            Err(Unknowable(why)) => return write(&Said::Undecidable { decision_id, undecidable: &why }, out),
        };
        let now = Answer {
            determining: Some(again::determining(&self.running.snapshot, &ended)),
            ..Answer::of(ended.reason, ended.enforced)
        };
        let was = Answer::of(recorded.reason, recorded.enforced);
        let flips = was.outcome != now.outcome;
        write(&Said::Decided { decision_id, was, now, flips, as_it_was: ended.as_it_was }, out);
    }

    /// Whether a decision was made with this very directory.
    fn is_of(&self, recorded: &Recorded<'_>) -> bool {
        recorded.revision.as_deref() == Some(&*self.running.snapshot.revision)
    }
}

/// A log is outside input, and may be long: what fails on one line does not take the others with it.
fn guarded(out: &mut Vec<u8>, say: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    if catch_unwind(AssertUnwindSafe(|| say(out))).is_err() {
        out.truncate(start);
        write(&Said::Bad { bad: PANICKED }, out);
    }
}

/// What is said of a line that is no decision.
fn write_other(line: &Line<'_>, out: &mut Vec<u8>) {
    match line {
        Line::Decision(_) => {}
        Line::Other(kind) => write(&Said::Skipped { skipped: kind }, out),
        Line::Bad(why) => write(&Said::Bad { bad: why }, out),
    }
}

const PANICKED: &str = "the engine panicked over this line, which is a mistake of its own";

/// The lines of a text. A newline ends a line: after the last one there is none.
fn each_line(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let none = text.is_empty();
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.split(|byte| *byte == b'\n').filter(move |_| !none)
}

fn write<T: Serialize>(said: &T, out: &mut Vec<u8>) {
    let start = out.len();
    // Strings, numbers and lists of them always serialise.
    if serde_json::to_writer(&mut *out, said).is_err() {
        out.truncate(start);
        out.extend_from_slice(br#"{"bad":"the answer could not be written"}"#);
    }
    out.push(b'\n');
}
