//! Several sources and several signals together: whatever a lost source or member could have said, and whichever of
//! its own words a principal takes away, an allow stands (I2, I3). Through the core's door, against plain Cedar.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::needless_pass_by_value,
    missing_docs
)]

mod generated;
mod stage;

use generated::Oracle;
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Value as Json, json};
use signalwarden_core::{
    error::Error,
    findings::Severity,
    identity::Validated,
    model::{Peer, Request, SignalType, Timestamp, Value},
    record::InfluenceMode,
    snapshot::Snapshot,
    wire,
};
use stage::Texts;
use std::{cell::Cell, collections::BTreeMap, fmt::Write as _, sync::Arc};

const CASES: u32 = 1_500;
const NOW: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);
const AGENT: &str = "spiffe://t/a";
/// Either publishes half of each signal's values. The first may be the deciding principal itself.
const OTHERS: [&str; 2] = ["spiffe://t/p1", "spiffe://t/p2"];

const ROUTES: &str = r#"
routes:
  - {match: {host: a, path: /}, action: pay, resource: {type: Account, id: "42"}, tier: runtime, sensitivity: high}
default: deny
"#;

/// Name, type, how it merges, which values are adverse, its company, values worth trying.
struct Sketch {
    name: &'static str,
    kind: &'static str,
    merge: &'static str,
    adverse: &'static str,
    company: &'static str,
    values: &'static [&'static str],
}

/// Sorted by name.
const SKETCHES: &[Sketch] = &[
    Sketch {
        name: "geo",
        kind: "enum[home, away]",
        merge: "agree",
        adverse: "one_of: [away]",
        company: "",
        values: &["home", "away"],
    },
    Sketch {
        name: "posture",
        kind: "enum[ok, odd, bad]",
        merge: "any_adverse",
        adverse: "one_of: [bad, odd]",
        company: "",
        values: &["ok", "odd", "bad"],
    },
    Sketch {
        name: "risk",
        kind: "long",
        merge: "any_adverse",
        adverse: "at_least: 80",
        company: "with: [geo, posture], need: 2",
        values: &["10", "80", "95"],
    },
    Sketch { name: "score", kind: "long", merge: "first", adverse: "at_most: 2", company: "", values: &["1", "5"] },
];

const CONDITIONS: &[&str] = &[
    "context.signals has risk && context.signals.risk >= 80",
    "context.signals has risk && context.signals.risk < 90",
    "context.signals has geo && context.signals.geo == \"home\"",
    "context.signals has geo && context.signals.geo == \"away\"",
    "context.signals has posture && context.signals.posture == \"bad\"",
    "context.signals has posture && context.signals.posture != \"ok\"",
    "context.signals has score && context.signals.score > 2",
    "context.signals has risk",
];

/// What one source of one signal says: nothing, or a value.
type Parts = [[Option<usize>; 2]; 4];

#[derive(Clone, Debug)]
struct Case {
    parts: Parts,
    /// Which signals may only restrict.
    restrict: [bool; 4],
    /// Whether the first publisher is the principal that is decided upon.
    own: bool,
    policies: Vec<String>,
}

fn policy() -> impl Strategy<Value = String> {
    let scope = "principal, action == Action::\"pay\", resource";
    let condition = (0..CONDITIONS.len(), 0..CONDITIONS.len(), 0..3_u8).prop_map(|(a, b, how)| match how {
        0 => format!("({})", CONDITIONS[a]),
        1 => format!("({}) && ({})", CONDITIONS[a], CONDITIONS[b]),
        _ => format!("({}) || ({})", CONDITIONS[a], CONDITIONS[b]),
    });
    prop_oneof![
        1 => Just(format!("permit({scope});")),
        2 => condition.clone().prop_map(move |c| format!("permit({scope}) when {{ {c} }};")),
        2 => condition.clone().prop_map(move |c| format!("forbid({scope}) when {{ {c} }};")),
        1 => condition.prop_map(move |c| format!("forbid({scope}) unless {{ {c} }};")),
    ]
}

fn case() -> impl Strategy<Value = Case> {
    let part = |at: usize| prop_oneof![3 => (0..SKETCHES[at].values.len()).prop_map(Some), 1 => Just(None)];
    let pair = |at: usize| [part(at), part(at)];
    (
        [pair(0), pair(1), pair(2), pair(3)],
        [prop::bool::weighted(0.2), prop::bool::weighted(0.2), prop::bool::weighted(0.2), prop::bool::weighted(0.2)],
        prop::bool::weighted(0.3),
        prop::collection::vec(policy(), 1..5),
    )
        .prop_map(|(parts, restrict, own, policies)| Case { parts, restrict, own, policies })
}

fn publishers(case: &Case) -> [&'static str; 2] {
    [if case.own { AGENT } else { OTHERS[0] }, OTHERS[1]]
}

/// Through the loader; `None` if it refuses the policies.
fn snapshot(case: &Case) -> Option<Arc<Snapshot>> {
    let publishers = publishers(case);
    let mut register = "signals:\n".to_owned();
    for (sketch, restrict) in SKETCHES.iter().zip(case.restrict) {
        let Sketch { name, kind, merge, adverse, company, .. } = sketch;
        let influence = if restrict { "restrict" } else { "grant" };
        let sources =
            publishers.map(|id| format!("{{kind: push, publisher: \"{id}\", assurance: sourced}}")).join(", ");
        let company = if company.is_empty() { String::new() } else { format!("corroborate: {{{company}}}, ") };
        let _ = writeln!(
            register,
            "  {name}: {{type: \"{kind}\", description: d, owner: o@x, purpose: p, subject: principal, max_age: 5m, \
             influence: {influence}, used_by: [pay], review_by: 2099-01-01, merge: {merge}, adverse: {{{adverse}}}, \
             {company}sources: [{sources}]}}"
        );
    }
    let policies = case.policies.join("\n");
    let texts = Texts { routes: ROUTES, signals: &register, schema: generated::SCHEMA, policies: &policies };
    match stage::load(&texts, "t", NOW) {
        Ok(snapshot) => Some(Arc::new(snapshot)),
        // A permit that needs a signal which may only restrict is refused; the register itself never is.
        Err(Error::Configuration(findings)) => {
            assert!(findings.iter().all(|f| f.severity == Severity::Warning || f.file == "policies/all.cedar"));
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// The record of one decision over these parts.
fn decide(snapshot: &Arc<Snapshot>, case: &Case, parts: &Parts) -> Json {
    let engine = stage::engine(Arc::clone(snapshot), 8, InfluenceMode::All);
    for (at, publisher) in publishers(case).iter().enumerate() {
        let items: Vec<Json> = SKETCHES
            .iter()
            .zip(parts)
            .filter_map(|(sketch, parts)| {
                let value = value(sketch, parts[at]?).to_json();
                Some(json!({"name": sketch.name, "subject": AGENT, "value": value, "observed_at": NOW.to_rfc3339()}))
            })
            .collect();
        assert_eq!(stage::publish(&engine, publisher, &items.into(), NOW).rejected, []);
    }
    let request = Request {
        method: "GET".into(),
        path: "/".into(),
        host: "a".into(),
        source: Peer { principal: AGENT.into(), ..Peer::default() },
        ..Request::default()
    };
    let answer =
        engine.check(&wire::encode_request(&request), &Validated::default(), NOW, [0; 10], &|| 0).answer().unwrap();
    wire::rules::check(&answer).unwrap();
    let (line, count) = engine.drain(8);
    assert_eq!(count, 1);
    serde_json::from_slice(&line).unwrap()
}

fn value(sketch: &Sketch, at: usize) -> Value {
    SignalType::parse(sketch.kind).unwrap().read_text(sketch.values[at]).unwrap()
}

fn allowed(record: &Json) -> bool {
    record["outcome"] == "allow"
}

/// Every way to fill in what is not known.
fn completions(parts: &Parts) -> Vec<[[usize; 2]; 4]> {
    let mut all = vec![[[0; 2]; 4]];
    for signal in 0..4 {
        for source in 0..2 {
            let picks: Vec<usize> = match parts[signal][source] {
                Some(known) => vec![known],
                None => (0..SKETCHES[signal].values.len()).collect(),
            };
            all = all
                .into_iter()
                .flat_map(|filled| {
                    picks.iter().map(move |pick| {
                        let mut filled = filled;
                        filled[signal][source] = *pick;
                        filled
                    })
                })
                .collect();
        }
    }
    all
}

/// What policies would see if all sources spoke: written down again, naively. `None`: sources disagree.
fn visible(filled: &[[usize; 2]; 4]) -> Option<BTreeMap<&'static str, Value>> {
    // In each sketch values are listed from the least to the most adverse, but for the score's.
    let geo = (filled[0][0] == filled[0][1]).then_some(filled[0][0])?;
    let posture = filled[1][0].max(filled[1][1]);
    let risk = filled[2][0].max(filled[2][1]);
    let score = filled[3][0];
    let mut seen: BTreeMap<&str, Value> = [(0, geo), (1, posture), (2, risk), (3, score)]
        .map(|(signal, pick)| (SKETCHES[signal].name, value(&SKETCHES[signal], pick)))
        .into();
    if risk > 0 && geo == 0 && posture == 0 {
        seen.remove("risk");
    }
    Some(seen)
}

#[test]
fn an_allow_holds_whatever_the_lost_sources_and_members_would_have_said() {
    let (loaded, allows, worlds) = (Cell::new(0), Cell::new(0), Cell::new(0_usize));
    let mut runner = TestRunner::new(ProptestConfig { cases: CASES, ..ProptestConfig::default() });
    let result = runner.run(&case(), |case| {
        let Some(snapshot) = snapshot(&case) else { return Ok(()) };
        loaded.set(loaded.get() + 1);
        if !allowed(&decide(&snapshot, &case, &case.parts)) {
            return Ok(());
        }
        allows.set(allows.get() + 1);
        let oracle = Oracle::new(&case.policies.join("\n"));
        for filled in completions(&case.parts) {
            let Some(signals) = visible(&filled) else { continue };
            worlds.set(worlds.get() + 1);
            prop_assert!(oracle.allows(&signals), "{filled:?} {signals:?}");
        }
        Ok(())
    });
    println!("combined: {CASES} cases, {} load, {} allowed, {} worlds", loaded.get(), allows.get(), worlds.get());
    result.unwrap();
    assert!(allows.get() > 100 && worlds.get() > 1_000, "too few to prove anything: {} {}", allows.get(), worlds.get());
}

#[test]
fn losing_one_source_never_turns_a_denial_into_an_allow() {
    let compared = Cell::new(0);
    let mut runner = TestRunner::new(ProptestConfig { cases: CASES / 2, ..ProptestConfig::default() });
    let result = runner.run(&case(), |case| {
        let Some(snapshot) = snapshot(&case) else { return Ok(()) };
        if allowed(&decide(&snapshot, &case, &case.parts)) {
            return Ok(());
        }
        for (signal, source) in (0..4).flat_map(|signal| [(signal, 0), (signal, 1)]) {
            let mut lost = case.parts;
            if lost[signal][source].take().is_some() {
                compared.set(compared.get() + 1);
                let after = decide(&snapshot, &case, &lost);
                prop_assert!(!allowed(&after), "without source {source} of {}: {after}", SKETCHES[signal].name);
            }
        }
        Ok(())
    });
    println!("lost sources: {} compared", compared.get());
    result.unwrap();
    assert!(compared.get() > 500, "too few to prove anything: {}", compared.get());
}

#[test]
fn an_allow_holds_whichever_of_its_own_words_the_principal_takes_away() {
    let compared = Cell::new(0);
    let mut runner = TestRunner::new(ProptestConfig { cases: CASES, ..ProptestConfig::default() });
    let result = runner.run(&case(), |mut case| {
        case.own = true;
        let Some(snapshot) = snapshot(&case) else { return Ok(()) };
        if !allowed(&decide(&snapshot, &case, &case.parts)) {
            return Ok(());
        }
        for taken in 1..16_u8 {
            let mut parts = case.parts;
            for (signal, parts) in parts.iter_mut().enumerate() {
                if taken & (1 << signal) != 0 {
                    parts[0] = None;
                }
            }
            if parts != case.parts {
                compared.set(compared.get() + 1);
                let after = decide(&snapshot, &case, &parts);
                prop_assert!(allowed(&after), "without the own words of {taken:04b}: {after}");
            }
        }
        Ok(())
    });
    println!("own words: {} compared", compared.get());
    result.unwrap();
    assert!(compared.get() > 300, "too few to prove anything: {}", compared.get());
}
