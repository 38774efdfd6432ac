//! Differential: conditions judged without Cedar against Cedar's evaluator, over generated conditions and values. Some of
//! them compare what can't be compared, or read what is not there.

use super::{below_the_loader, query, rule};
use crate::{
    model::{Influence, SignalType, Value, WhenUnavailable},
    policy::{
        Judged, Seen, SignalIndex, SignalRule,
        cedar::{CedarEngine, evaluate::CedarSlice},
    },
};
use proptest::{prelude::*, test_runner::TestRunner};
use std::cell::Cell;

const CASES: u32 = 1_500;

/// Name, type, and values as text. Sorted by name.
const SIGNALS: &[(&str, &str, &[&str])] = &[
    ("address", "ip", &["10.0.0.1", "::1"]),
    ("flag", "bool", &["true", "false"]),
    ("level", "long", &["0", "4", "5", "-5", "9223372036854775807"]),
    ("region", "string", &["eu", "us", "", "a \"b\""]),
    ("score", "decimal", &["0.5", "0.50", "-0.5", "922337203685477.5807"]),
    ("since", "datetime", &["2026-11-24T10:00:00Z", "2026-11-24T10:00:00.000001Z"]),
    ("word", "enum[eu, us]", &["eu", "us"]),
    ("zones", "set", &["pci", "pci,eu", "x"]),
];

const ATOMS: &[&str] = &[
    "context.signals has flag",
    "context.signals has level",
    "context.signals has since",
    "context.signals.flag",
    "context.signals.flag == true",
    "context.signals.level < 5",
    "context.signals.level <= 5",
    "context.signals.level > 4",
    "context.signals.level >= -5",
    "4 == context.signals.level",
    "context.signals.level == 9223372036854775807",
    "context.signals.level + 1 < 3",
    "context.signals.region == \"eu\"",
    "context.signals.region != \"us\"",
    "context.signals.region == context.signals.word",
    "context.signals.region == \"a \\\"b\\\"\"",
    "context.signals.region like \"e*\"",
    "[\"eu\", \"us\"].contains(context.signals.region)",
    "[].contains(context.signals.region)",
    "[1, 4].contains(context.signals.level)",
    "context.signals.zones.contains(\"pci\")",
    "context.signals.zones.containsAll([\"pci\", \"eu\"])",
    "context.signals.zones.containsAny([\"x\", \"eu\"])",
    "context.signals.zones.isEmpty()",
    "context.signals.zones == [\"eu\", \"pci\"]",
    "context.signals.score.lessThan(decimal(\"0.5\"))",
    "context.signals.score.lessThanOrEqual(decimal(\"0.5\"))",
    "context.signals.score.greaterThan(decimal(\"-0.5\"))",
    "context.signals.score.greaterThanOrEqual(decimal(\"922337203685477.5807\"))",
    "context.signals.score == decimal(\"0.5000\")",
    "context.signals.since < datetime(\"2026-11-24T10:00:00.001Z\")",
    "context.signals.since == datetime(\"2026-11-24T10:00:00Z\")",
    "context.signals.address.isInRange(ip(\"10.0.0.0/8\"))",
    "context.signals.address == ip(\"10.0.0.1\")",
    "context.signals.level == context.signals.region",
    "context.signals.level < context.signals.region",
    "context.signals.flag < 3",
    "context.signals.region.contains(\"e\")",
    "context.signals.level",
    "context.request.args has amount",
    "context.request.args has note",
    "context.request has path",
    "context.request.args.amount > 9",
    "context.request.args.note == \"x\"",
    "context.request.method == \"GET\"",
    "context.request.path != \"/x\"",
    "context.request.host == \"\"",
    "context.identity.kind == \"x509\"",
    "context.identity.trust_domain == \"t\"",
    "context.identity.bound",
    "context.identity.interactive == context.identity.legacy",
    "context has grant",
    "principal == Workload::\"spiffe://t/a\"",
    "true",
    "false",
];

/// Whether an atom is left to Cedar where every signal is there: what is no plain comparison, or a faulty one.
fn is_cedars(atom: &str) -> bool {
    let parts = [
        " + 1",
        "like",
        "[1, 4]",
        "since <",
        "since ==",
        "address",
        "principal",
        "level == context.signals.region",
        "< context.signals.region",
        "flag < 3",
        "region.contains",
        "args.note ==",
        "request has path",
        "context has",
    ];
    parts.iter().any(|part| atom.contains(part)) || atom.trim_matches(['(', ')']) == "context.signals.level"
}

fn condition() -> impl Strategy<Value = String> {
    let plain: Vec<&str> = ATOMS.iter().copied().filter(|atom| !is_cedars(atom)).collect();
    let leaf = prop_oneof![12 => prop::sample::select(plain), 1 => prop::sample::select(ATOMS)];
    leaf.prop_map(|atom| format!("({atom})")).prop_recursive(3, 6, 2, |inner| {
        let pair = (inner.clone(), inner.clone());
        prop_oneof![
            pair.clone().prop_map(|(a, b)| format!("({a} && {b})")),
            pair.clone().prop_map(|(a, b)| format!("({a} || {b})")),
            inner.prop_map(|a| format!("(!{a})")),
            pair.prop_map(|(a, b)| format!("(if {a} then {b} else false)")),
        ]
    })
}

fn rules() -> Vec<SignalRule> {
    SIGNALS.iter().map(|(name, kind, _)| rule(name, kind, Influence::Grant, WhenUnavailable::Deny, false)).collect()
}

fn seen() -> impl Strategy<Value = Vec<(SignalIndex, Seen)>> {
    let each: Vec<_> = SIGNALS
        .iter()
        .enumerate()
        .map(|(at, (_, kind, texts))| {
            let kind = SignalType::parse(kind).unwrap();
            let values: Vec<Value> = texts.iter().map(|text| kind.read_text(text).unwrap()).collect();
            let seen = prop_oneof![12 => prop::sample::select(values).prop_map(Seen::Value), 1 => Just(Seen::Absent)];
            seen.prop_map(move |seen| (SignalIndex(u16::try_from(at).unwrap()), seen))
        })
        .collect();
    each
}

fn slice(engine: &CedarEngine, policies: usize) -> CedarSlice<'_> {
    let slice = CedarSlice::new(engine, &query("transfer.create")).unwrap();
    assert_eq!(crate::policy::Slice::in_play(&slice).len(), policies);
    slice
}

#[test]
fn what_is_judged_without_cedar_is_what_cedar_says() {
    let (quick, asked) = (Cell::new(0_u32), Cell::new(0_u32));
    let mut runner = TestRunner::new(ProptestConfig { cases: CASES, ..ProptestConfig::default() });
    let result = runner.run(&(condition(), condition(), seen()), |(one, other, seen)| {
        let text = format!("permit(principal, action, resource) when {{ {one} }} unless {{ {other} }};");
        let engine = below_the_loader(&[&text], &rules());
        let slice = slice(&engine, 1);
        let (quickly, by_cedar) = slice.both(&seen);
        asked.set(asked.get() + 1);
        if let Some(quickly) = quickly {
            quick.set(quick.get() + 1);
            prop_assert_eq!(quickly, by_cedar, "{}", text);
        }
        Ok(())
    });
    result.unwrap();
    // Enough of them are of the quick kind, and enough are not.
    assert!((CASES / 8..CASES * 9 / 10).contains(&quick.get()), "{} of {} were quick", quick.get(), asked.get());
}

#[test]
fn each_plain_comparison_is_quick_and_what_is_not_plain_is_not() {
    let values = |at: usize| {
        let (_, kind, texts) = SIGNALS[at];
        let index = SignalIndex(u16::try_from(at).unwrap());
        (index, Seen::Value(SignalType::parse(kind).unwrap().read_text(texts[0]).unwrap()))
    };
    let seen: Vec<(SignalIndex, Seen)> = (0..SIGNALS.len()).map(values).collect();
    for atom in ATOMS.iter().map(|atom| format!("({atom})")) {
        let text = format!("permit(principal, action, resource) when {{ {atom} }};");
        let engine = below_the_loader(&[&text], &rules());
        let (quickly, by_cedar) = slice(&engine, 1).both(&seen);
        assert_eq!(quickly.is_none(), is_cedars(&atom), "{atom}");
        if let Some(quickly) = quickly {
            assert_eq!(quickly, by_cedar, "{atom}");
        }
    }
    let unconditional = below_the_loader(&["permit(principal, action, resource);"], &rules());
    assert_eq!(slice(&unconditional, 1).both(&seen).0, Some(Judged::True));
}
