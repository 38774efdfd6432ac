//! Registers and what is wrong with them (`tests/vectors/register.json`), and that no text makes the reader panic.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;
use serde_json::{Value as Json, json};
use signalwarden_core::findings::{Findings, Severity};
use signalwarden_core::model::Timestamp;
use signalwarden_core::route::Routes;
use signalwarden_core::signals::Register;
use std::sync::LazyLock;

static VECTORS: LazyLock<Json> = LazyLock::new(|| {
    let path = format!("{}/../../tests/vectors/register.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
});

static ROUTES: LazyLock<Routes> = LazyLock::new(|| {
    let mut findings = Findings::default();
    let routes = Routes::load("routes.yaml", VECTORS["routes"].as_str().unwrap(), &mut findings);
    assert!(!findings.has_errors(), "{findings:?}");
    routes
});

fn load(text: &str) -> (Register, Findings) {
    let now = Timestamp::parse_rfc3339(VECTORS["now"].as_str().unwrap()).unwrap();
    let mut findings = Findings::default();
    let register = Register::load("signals.yaml", text, ROUTES.actions(), now, &mut findings);
    (register, findings)
}

#[test]
fn every_mistake_is_found_where_it_stands() {
    for case in VECTORS["cases"].as_array().unwrap() {
        let (_, findings) = load(case["register"].as_str().unwrap());
        let found: Vec<Json> = findings
            .clone()
            .into_sorted()
            .iter()
            .map(|finding| {
                let severity = if finding.severity == Severity::Error { "error" } else { "warning" };
                json!({"severity": severity, "code": finding.code, "line": finding.place.line})
            })
            .collect();
        let sorted = |list: &[Json]| {
            let mut list: Vec<String> = list.iter().map(Json::to_string).collect();
            list.sort();
            list
        };
        let expected = sorted(case["findings"].as_array().unwrap());
        assert_eq!(sorted(&found), expected, "{}: {findings:#?}", case["name"]);
    }
}

#[test]
fn every_message_is_one_lowercase_sentence_about_input_in_backticks() {
    for case in VECTORS["cases"].as_array().unwrap() {
        for finding in load(case["register"].as_str().unwrap()).1.as_slice() {
            let message = &finding.message;
            assert!(!message.starts_with(|c: char| c.is_uppercase()) && !message.ends_with('.'), "{message}");
            assert!(!message.contains('\n') && message.contains('`'), "{message}");
        }
    }
}

#[test]
fn a_slip_in_a_name_is_met_with_the_known_name() {
    let text = |case: &str| {
        let all = VECTORS["cases"].as_array().unwrap();
        all.iter().find(|c| c["name"] == case).unwrap()["register"].as_str().unwrap().to_owned()
    };
    for (case, hint) in [
        ("a misspelt key", "did you mean `max_age`?"),
        ("an unknown kind of source", "did you mean `push`?"),
        ("used by an unknown action", "did you mean `transfer.create`?"),
        ("an unknown subject", "did you mean `principal`?"),
        ("a header declared authoritative", "at best `self_asserted`"),
        ("max_age on a request subject", "as old as the request"),
        ("the header cookie", "it is a credential"),
    ] {
        let findings = load(&text(case)).1;
        assert!(findings.as_slice().iter().any(|f| f.message.contains(hint)), "{case}: {findings:?}");
    }
}

#[test]
fn a_register_without_errors_holds_every_contract_by_name() {
    for case in VECTORS["cases"].as_array().unwrap() {
        let (register, findings) = load(case["register"].as_str().unwrap());
        if findings.has_errors() {
            continue;
        }
        let contracts = register.contracts();
        assert!(contracts.windows(2).all(|pair| pair[0].name < pair[1].name));
        for contract in contracts {
            assert_eq!(register.find(contract.name.as_str()).unwrap().name, contract.name);
            assert_eq!(contract.to_json()["line"], contract.place.line);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,200}") {
        load(&text);
    }

    /// Lines of real registers dropped, doubled, cut and mixed: nearer to what people do wrong.
    #[test]
    fn no_mangled_register_makes_the_reader_panic(
        case in 0..1_000usize,
        edits in prop::collection::vec((0..40usize, 0..5u8, "[ a-z:\\[\\]{}\",0-9-]{0,12}"), 1..6),
    ) {
        let cases = VECTORS["cases"].as_array().unwrap();
        let text = cases[case % cases.len()]["register"].as_str().unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        for (at, edit, with) in edits {
            if lines.is_empty() { break; }
            let at = at % lines.len();
            match edit {
                0 => { lines.remove(at); }
                1 => { let line = lines[at].clone(); lines.insert(at, line); }
                2 => { let keep = lines[at].len() / 2; lines[at].truncate(keep); }
                3 => lines[at].push_str(&with),
                _ => lines.insert(at, format!("    {with}")),
            }
        }
        let (register, findings) = load(&lines.join("\n"));
        for finding in findings.as_slice() {
            prop_assert!(finding.file == "signals.yaml");
        }
        prop_assert!(register.contracts().len() <= 18);
    }
}
