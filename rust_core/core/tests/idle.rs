//! What loads and does nothing is said aloud: signals whose subject no call can have.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod stage;

use signalwarden_core::model::Timestamp;
use stage::Texts;

const NOW: Timestamp = Timestamp::from_micros(1_795_500_000_000_000);
const ROUTES: &str = r#"
routes:
  - {match: {host: a, path: /r}, action: a.runtime, resource: {type: A, id: "1"}, tier: runtime, sensitivity: low}
  - {match: {host: a, path: /j}, action: a.jit, resource: {type: A, id: "1"}, tier: jit, sensitivity: low}
  - {match: {host: a, method: POST, path: /a}, action: a.asked, resource: {type: A, id: "1"}, tier: approval, sensitivity: low}
default: deny
"#;

fn said(subject: &str, used_by: &str) -> Vec<String> {
    let signals = format!(
        "signals: {{w: {{type: bool, subject: {subject}, max_age: 5m, influence: grant, used_by: [{used_by}], sources: \
         [{{kind: push, publisher: \"spiffe://t/p\", assurance: sourced}}], description: d, owner: o@x, purpose: p, \
         review_by: 2099-01-01}}}}\n"
    );
    let schema = "entity Workload; entity A;";
    let texts = Texts { routes: ROUTES, signals: &signals, schema, policies: "permit(principal, action, resource);" };
    let snapshot = stage::load(&texts, "t", NOW).unwrap_or_else(|error| panic!("{error}"));
    let found = snapshot.warnings.into_iter().filter(|finding| finding.code == "never_found");
    found.map(|finding| finding.message).collect()
}

#[test]
fn a_signal_about_a_task_that_no_call_of_an_action_can_have_is_said_aloud() {
    for subject in ["task", "workflow"] {
        assert_eq!(said(subject, "a.jit, a.asked, task.begin, task.delegate"), [""; 0]);
        let messages = said(subject, "a.jit, a.runtime, approval.give");
        assert_eq!(messages.len(), 2, "{messages:?}");
        let all = messages.join(" ");
        for part in
            ["`a.runtime` is of tier `runtime`", "`approval.give` is decided without", &format!("the {subject} of")]
        {
            assert!(all.contains(part), "{part}: {all}");
        }
    }
    assert_eq!(said("principal", "a.runtime"), [""; 0]);
}
