//! Any text as one file of a directory beside good ones: loading never panics, what is refused says why in which file, and
//! what is loaded can be described. The first letter says which file it is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use signalwarden_core::{
    error::Error,
    model::Timestamp,
    snapshot::{CoreSettings, Snapshot},
};
use std::sync::LazyLock;

/// 2026-11-24T10:00:00Z: the core never reads a clock.
const NOW: Timestamp = Timestamp::from_micros(1_795_514_400_000_000);

/// The files that load as they are.
const GOOD: [(u8, &str, &str); 6] = [
    (
        b'r',
        "routes.yaml",
        r#"
routes:
  - {match: {host: "*", method: POST, path: "/a/{id}"}, action: act, resource: {type: A, id: "{id}"}, args: {query: {n: "long?"}}, tier: runtime, sensitivity: low}
default: deny
"#,
    ),
    (
        b's',
        "signals.yaml",
        r#"
signals:
  n: {type: long, description: d, owner: o@x, purpose: p, subject: principal, max_age: 5m, influence: grant, used_by: [act], review_by: 2099-01-01, sources: [{kind: push, publisher: "spiffe://t/p", assurance: authoritative}]}
"#,
    ),
    (b't', "entities.cedarschema", "entity Workload; entity A;"),
    (b'e', "entities.json", "[]"),
    (
        b'c',
        "policies/p.cedar",
        r#"
@id("one") permit (principal, action, resource) when { context.signals has n && context.signals.n >= 3 };
@id("two") permit (principal == ?principal, action == Action::"act", resource == ?resource);
"#,
    ),
    (
        b'l',
        "policies/links.yaml",
        r#"
links:
  - {id: first, template: two, principal: 'Workload::"spiffe://t/w"', resource: 'A::"x"'}
"#,
    ),
];

static FILES: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(|| {
    let files: Vec<_> = GOOD.iter().map(|(_, name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect();
    if let Err(error) = Snapshot::load(&files, &CoreSettings::of("t"), NOW) {
        panic!("the good files load: {error}");
    }
    files
});

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, content)) = bytes.split_first() else { return };
    let mut files = FILES.clone();
    if let Some(place) = GOOD.iter().position(|(letter, ..)| letter == kind) {
        files[place].1 = content.to_vec();
    }
    match Snapshot::load(&files, &CoreSettings::of("t"), NOW) {
        Ok(snapshot) => {
            assert!(snapshot.describe().is_object() && snapshot.makeups().is_array());
            let _ = snapshot.exceptions();
        }
        Err(Error::Configuration(findings)) => {
            assert!(findings.iter().any(|found| files.iter().any(|(name, _)| *name == found.file)));
        }
        Err(other) => panic!("{other}"),
    }
});
