//! Source kind `workflow`: whether the task of a request's grant belongs to a workflow that is approved. Who approves it
//! is the room of tasks' to know; a grant was looked at before, so what it says here is good.

use super::{Circumstances, Flow, Kind, ReadRequest, Reading, Source};
use crate::model::names::SubjectKind;
use crate::model::{Assurance, SignalType, State, Value};
use std::sync::Arc;

pub(super) const KIND: Kind = Kind {
    word: "workflow",
    ceiling: |_| (Assurance::Authoritative, ""),
    objection: |subject| match subject {
        SubjectKind::Task => None,
        _ => Some("a `workflow` source speaks of the task of a grant: its contract's subject is `task`"),
    },
    read,
};

#[expect(clippy::unnecessary_wraps, reason = "as every kind of source is read")]
fn read(reading: &mut Reading<'_, '_>, assurance: Assurance) -> Option<Source> {
    if let Some(kind) = reading.declared.kind.filter(|kind| **kind != SignalType::Bool) {
        let message = format!("a `workflow` source says yes or no: its contract's type is `bool`, found `{kind}`");
        reading.error(reading.fields.place_of("kind"), "workflow_type", message);
    }
    Some(Source {
        kind: KIND.word,
        assurance,
        label: "workflow".into(),
        settings: Vec::new(),
        flow: Flow::OnRequest(Arc::new(Membership)),
    })
}

#[derive(Debug)]
struct Membership;

impl ReadRequest for Membership {
    fn read(&self, circumstances: &Circumstances<'_>, _kind: &SignalType) -> (State, Option<Value>) {
        match circumstances.task {
            Some(task) => (State::Fresh, Some(Value::Bool(task.in_approved_workflow))),
            None => (State::Missing, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::mistakes;

    const SOURCE: &str = "{kind: workflow, assurance: authoritative}";

    #[test]
    fn it_says_yes_or_no_of_a_task() {
        assert_eq!(mistakes("bool", "task", SOURCE), [""; 0]);
        let codes = |kind: &str, subject: &str| -> Vec<String> {
            let said = mistakes(kind, subject, SOURCE);
            said.iter().map(|said| said.split(':').next().unwrap().to_owned()).collect()
        };
        assert_eq!(codes("long", "task"), ["workflow_type"]);
        assert!(codes("bool", "principal").contains(&"source_subject".to_owned()));
    }
}
