//! Recorded decisions, made again: as they were, and with signals that were not as they were. Directories, requests and
//! signals are generated; whatever is said of a change is held against a core that really decided so.
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

use generated::{Case, PRINCIPAL, SCHEMA, VOCABULARY, gated_case};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use serde_json::{Value as Json, json};
use signalwarden_core::{
    change::Change,
    engine::Engine,
    model::{Fact, HeaderEntry, Headers, Peer, Request, State, Timestamp, Value},
    policy::SignalRule,
    record::InfluenceMode,
    replay::Replay,
    snapshot::Snapshot,
    wire,
};
use stage::Texts;
use std::{cell::Cell, collections::BTreeMap, sync::Arc};

const CASES: u32 = 2_000;
const NOW: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);
const PUBLISHER: &str = "spiffe://t/publisher";
const MINUTE: i64 = 60_000_000;

const ROUTES: &str = r#"
routes:
  - match: {host: "*", method: POST, path: "/v1/{account}"}
    action: pay
    resource: {type: Account, id: "{account}"}
    args: {query: {amount: long, note: "string?"}}
    tier: runtime
    sensitivity: high
"#;

/// `None` if the loader refuses the case.
fn load(case: &Case, more: &str) -> Option<Arc<Snapshot>> {
    let policies = format!("{}\n{more}", case.policies.join("\n"));
    let texts = Texts { routes: ROUTES, signals: &case.register(PUBLISHER), schema: SCHEMA, policies: &policies };
    stage::load(&texts, "t", NOW).ok().map(Arc::new)
}

fn engine(snapshot: &Arc<Snapshot>) -> Engine {
    stage::engine(Arc::clone(snapshot), 10, InfluenceMode::All)
}

/// Has the core know a signal as a fact of a case says it is.
fn tell(engine: &Engine, rule: &SignalRule, fact: &Fact) {
    if rule.self_asserted || fact.state == State::Missing {
        return;
    }
    let origin = if fact.self_published { PRINCIPAL } else { PUBLISHER };
    let at = |micros: i64| Timestamp::from_micros(NOW.as_micros() + micros);
    let observed_at = match fact.state {
        State::Stale => at(-10 * MINUTE),
        State::Future => at(10 * MINUTE),
        _ => NOW,
    };
    let say = |value: &Value| {
        let name = rule.name.as_str();
        let item = json!({"name": name, "subject": PRINCIPAL, "value": value.to_json(), "observed_at": observed_at.to_rfc3339()});
        let admission = stage::publish(engine, origin, &json!([item]), observed_at);
        assert_eq!(admission.accepted, 1, "{:?}", admission.rejected);
    };
    let value = fact.value.as_ref().unwrap();
    say(value);
    match fact.state {
        State::Disputed => say(&another(rule, value)),
        State::Unverified => {
            let off = engine.switch_publisher(origin, Some(rule.name.as_str()), false, NOW).unwrap();
            engine.apply(&[Change::to_payload(&off)], NOW).unwrap();
        }
        _ => {}
    }
}

fn another(rule: &SignalRule, value: &Value) -> Value {
    let known = VOCABULARY.iter().find(|known| known.name == rule.name.as_str()).unwrap();
    known.values.iter().filter_map(|text| rule.kind.read_text(text)).find(|other| other != value).unwrap()
}

fn header(name: &str, value: &str) -> HeaderEntry {
    HeaderEntry { name: name.to_owned(), value: value.to_owned(), is_utf8: true }
}

/// The record of a case, decided by a core that knows all of its facts.
fn decided(snapshot: &Arc<Snapshot>, case: &Case) -> Json {
    let engine = engine(snapshot);
    // It surely has no body, so a yes can be asked for.
    let mut headers = vec![header("content-length", "0")];
    for (rule, (_, fact)) in case.rules.iter().zip(&case.facts) {
        tell(&engine, rule, fact);
        if let (true, State::Fresh, Some(Value::String(text))) = (rule.self_asserted, fact.state, &fact.value) {
            headers.push(header(&format!("x-{}", rule.name.as_str()), text));
        }
    }
    let request = Request {
        method: "POST".into(),
        path: "/v1/42?amount=10".into(),
        host: "pay.example".into(),
        headers: Headers::new(headers),
        source: Peer { principal: PRINCIPAL.into(), ..Peer::default() },
        ..Request::default()
    };
    let (line, _) = engine.decide(&wire::encode_request(&request), NOW, [0; 10], &|| 0);
    serde_json::from_slice(&line).unwrap()
}

fn replayed(replay: &Replay, record: &Json, changes: &Json) -> Json {
    let line = record.to_string();
    let said = replay.decide(line.as_bytes(), changes.to_string().as_bytes()).unwrap();
    serde_json::from_slice(&said).unwrap()
}

/// What both a record and a replay say of a decision.
fn essence(record: &Json) -> Json {
    json!([record["outcome"], record["reason"], record["policies"]["determining"]])
}

fn essence_of_replay(said: &Json) -> Json {
    let now = &said["now"];
    json!([now["outcome"], now["reason"], now["determining"]])
}

fn runner() -> TestRunner {
    TestRunner::new(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })
}

#[test]
fn a_record_decides_again_as_it_was_by_its_own_directory_and_by_one_that_says_the_same() {
    let reasons: std::cell::RefCell<BTreeMap<String, u32>> = std::cell::RefCell::default();
    let result = runner().run(&gated_case(), |(_, case)| {
        let Some(snapshot) = load(&case, "") else { return Ok(()) };
        let record = decided(&snapshot, &case);
        *reasons.borrow_mut().entry(record["reason"].as_str().unwrap().to_owned()).or_default() += 1;
        let same = load(&case, "// nothing more").unwrap();
        prop_assert_ne!(&same.revision, &snapshot.revision);
        for snapshot in [snapshot, same] {
            let said = replayed(&Replay::new(snapshot), &record, &json!([]));
            prop_assert_eq!(essence_of_replay(&said), essence(&record), "{}: {}", said, record);
            prop_assert_eq!(&said["flips"], &json!(false));
        }
        Ok(())
    });
    println!("replayed: {:?}", reasons.borrow());
    result.unwrap();
    assert!(reasons.borrow().len() >= 5, "too few reasons to prove anything");
}

/// A change, and the case as it would have been.
fn changed(case: &Case, at: usize, how: u8) -> Option<(Json, Case)> {
    let mut other = case.clone();
    let (rule, fact) = (&case.rules[at], &mut other.facts[at].1);
    let name = rule.name.as_str();
    let change = match how {
        0 => {
            fact.state = State::Missing;
            json!({"name": name, "drop": true})
        }
        // What is worse than stale stays so: another value of it was disputed, or its publisher is switched off.
        1 if !rule.self_asserted => {
            if fact.state == State::Fresh {
                fact.state = State::Stale;
            }
            json!({"name": name, "state": "stale"})
        }
        1 => return None,
        _ => {
            let value = match (how, &fact.value) {
                (2, Some(value)) => another(rule, value),
                (_, value) => value.clone()?,
            };
            fact.state = State::Fresh;
            fact.value = Some(value.clone());
            json!({"name": name, "value": value.to_json()})
        }
    };
    Some((change, other))
}

#[test]
fn what_would_have_been_is_what_a_core_decides_under_those_signals() {
    let counted = Cell::new((0_u32, 0_u32));
    let strategy = (gated_case(), any::<bool>(), any::<prop::sample::Index>(), 0..4_u8);
    let result = runner().run(&strategy, |((plain, gated), with_gates, pick, how)| {
        let case = if with_gates { gated } else { plain };
        let Some(snapshot) = load(&case, "") else { return Ok(()) };
        let record = decided(&snapshot, &case);
        let read = record["signals"].as_array().unwrap();
        if read.is_empty() {
            return Ok(());
        }
        let name = read[pick.index(read.len())]["name"].as_str().unwrap();
        let at = case.rules.iter().position(|rule| rule.name.as_str() == name).unwrap();
        let Some((change, other)) = changed(&case, at, how) else { return Ok(()) };
        let expected = decided(&snapshot, &other);
        let same = load(&case, "// nothing more").unwrap();
        for snapshot in [snapshot, same] {
            let replay = Replay::new(snapshot);
            let said = replayed(&replay, &record, &json!([change]));
            prop_assert_eq!(essence_of_replay(&said), essence(&expected), "{}: {}", change, record);
            prop_assert_eq!(&said["flips"], &json!(record["outcome"] != expected["outcome"]));
            // Of somebody else it is not said.
            let mut of_another = change.clone();
            of_another["subject"] = json!("spiffe://t/another");
            if !case.rules[at].self_asserted {
                let said = replayed(&replay, &record, &json!([of_another]));
                prop_assert_eq!(essence_of_replay(&said), essence(&record));
            }
        }
        let (all, flips) = counted.get();
        counted.set((all + 1, flips + u32::from(record["reason"] != expected["reason"])));
        Ok(())
    });
    let (all, flips) = counted.get();
    println!("changes: {all} compared with a core, {flips} of them change the reason");
    result.unwrap();
    assert!(flips > 50, "too few changes to prove anything: {flips}");
}

/// The change that an explanation names, made.
fn made(way: &Json) -> Json {
    match way.get("to") {
        Some(value) => json!({"name": way["name"], "value": value}),
        None => json!({"name": way["name"], "drop": true}),
    }
}

#[test]
fn whatever_an_explanation_names_does_flip_the_decision() {
    let counted: Cell<[u32; 4]> = Cell::new([0; 4]);
    let result = runner().run(&(gated_case(), any::<bool>()), |((plain, gated), with_gates)| {
        let case = if with_gates { gated } else { plain };
        let Some(snapshot) = load(&case, "") else { return Ok(()) };
        let record = decided(&snapshot, &case);
        let replay = Replay::new(snapshot);
        let explained: Json = serde_json::from_slice(&replay.explain(record.to_string().as_bytes())).unwrap();
        prop_assert_eq!(&explained["same"], &json!(true));
        let mut counts = counted.get();
        for signal in record["signals"].as_array().unwrap() {
            let influence = &explained["influence"][signal["name"].as_str().unwrap()];
            prop_assert_eq!(influence, &signal.get("influence").cloned().unwrap_or_default(), "{}", record);
        }
        for way in explained["smallest_change"].as_array().unwrap() {
            if way["what"] == json!("signal") {
                let said = replayed(&replay, &record, &json!([made(way)]));
                prop_assert_eq!(&said["now"]["outcome"], &json!("allow"), "{}: {}", way, record);
                counts[0] += 1;
            }
        }
        for pair in explained["smallest_pairs"].as_array().into_iter().flatten() {
            let both: Vec<Json> = pair["changes"].as_array().unwrap().iter().map(made).collect();
            let said = replayed(&replay, &record, &json!(both));
            prop_assert_eq!(&said["now"]["outcome"], &json!("allow"), "{}: {}", pair, record);
            counts[1] += 1;
        }
        for threshold in explained["thresholds"].as_array().unwrap() {
            let says = |value: &Json| replayed(&replay, &record, &json!([{"name": threshold["name"], "value": value}]));
            let said = says(&threshold["flips_at"]);
            prop_assert_eq!(&said["now"]["reason"], &threshold["to_reason"], "{}", threshold);
            prop_assert_eq!(&said["flips"], &json!(true));
            // One step nearer it does not.
            if let (Some(value), Some(flips_at)) = (threshold["value"].as_i64(), threshold["flips_at"].as_i64()) {
                let nearer = flips_at + (value - flips_at).signum();
                prop_assert_eq!(&says(&json!(nearer))["flips"], &json!(false), "{} at {}", threshold, nearer);
            }
            counts[2] += 1;
        }
        counts[3] += u32::from(!explained["minimal_sets"].as_array().unwrap().is_empty());
        counted.set(counts);
        Ok(())
    });
    let [single, pairs, thresholds, sets] = counted.get();
    println!("explained: {single} changes, {pairs} pairs, {thresholds} thresholds, {sets} decisions by sets");
    result.unwrap();
    assert!(single > 100 && pairs > 10 && thresholds > 20 && sets > 5, "too few to prove anything");
}

/// A record of each shape, for what follows.
fn sample() -> (Replay, String) {
    let mut runner = TestRunner::deterministic();
    loop {
        let (_, case) = gated_case().new_tree(&mut runner).unwrap().current();
        if let Some(snapshot) = load(&case, "") {
            let record = decided(&snapshot, &case);
            if record["signals"].as_array().unwrap().len() > 2 {
                return (Replay::new(snapshot), record.to_string());
            }
        }
    }
}

#[test]
fn a_hostile_line_is_said_to_be_bad_or_decided_and_never_more() {
    let (replay, line) = sample();
    let bad = Cell::new(0_u32);
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..6);
    let result = runner().run(&edits, |edits| {
        let mut bytes = line.clone().into_bytes();
        for (pick, byte, how) in edits {
            let at = pick.index(bytes.len().max(1));
            match how {
                _ if bytes.is_empty() => {}
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => drop(bytes.remove(at)),
                _ => bytes.truncate(at.max(1)),
            }
        }
        bytes.retain(|byte| *byte != b'\n');
        if bytes.is_empty() {
            return Ok(());
        }
        let said = replay.decide(&bytes, b"[]").unwrap();
        prop_assert_eq!(said.split(|byte| *byte == b'\n').count(), 2);
        let said: Json = serde_json::from_slice(&said).unwrap();
        prop_assert!(!said["bad"].as_str().is_some_and(|why| why.contains("panicked")), "{}", said);
        let known = ["now", "undecidable", "skipped", "bad"].iter().filter(|key| said.get(**key).is_some()).count();
        prop_assert_eq!(known, 1, "{}", said);
        let explained: Json = serde_json::from_slice(&replay.explain(&bytes)).unwrap();
        prop_assert!(!explained["bad"].as_str().is_some_and(|why| why.contains("panicked")), "{}", explained);
        bad.set(bad.get() + u32::from(said.get("bad").is_some()));
        Ok(())
    });
    println!("hostile: {} of {CASES} are bad", bad.get());
    result.unwrap();
}

#[test]
fn there_is_one_answer_for_each_line_in_their_order() {
    let (replay, line) = sample();
    let lines = format!(
        "{line}\n\nnot json\n{{\"v\":1,\"kind\":\"change\"}}\n{{\"v\":2,\"kind\":\"decision\"}}\n{}",
        &line[..99]
    );
    let said = String::from_utf8(replay.decide(lines.as_bytes(), b"[]").unwrap()).unwrap();
    let said: Vec<&str> = said.lines().collect();
    assert!(said[0].contains("\"flips\":false"), "{}", said[0]);
    assert_eq!(
        said[1..],
        [
            r#"{"bad":"an empty line, expected a record"}"#,
            r#"{"bad":"column 2: expected json"}"#,
            r#"{"skipped":"change"}"#,
            r#"{"bad":"`v`: expected version 1 of records, found 2"}"#,
            r#"{"bad":"column 99: the line breaks off, expected a whole record"}"#,
        ]
    );
    assert_eq!(replay.decide(b"", b"[]").unwrap(), b"");
}

#[test]
fn a_change_that_can_not_be_made_is_one_sentence() {
    let (replay, line) = sample();
    let error = |changes: &str| replay.decide(line.as_bytes(), changes.as_bytes()).unwrap_err().to_string();
    let form = "changes[0]: expected an object with `name`, perhaps `subject`, and one of `drop: true`, \
                `state: \"stale\"` and `value`";
    assert_eq!(error("{"), "the changes: expected a json list of changes to signals");
    assert_eq!(error(r#"[{"name": "risk"}]"#), form);
    assert_eq!(error(r#"[{"name": "risk", "drop": true, "value": 1}]"#), form);
    assert_eq!(error(r#"[{"name": "risk", "state": "future"}]"#), form);
    assert_eq!(
        error(r#"[{"name": "risc", "drop": true}]"#),
        "changes[0]: no signal `risc` is registered, did you mean `risk`?"
    );
    assert_eq!(error(r#"[{"name": "risk", "value": "high"}]"#), "changes[0]: `risk`: expected a value of type `long`");
    assert_eq!(
        error(r#"[{"name": "risk", "subject": "bob", "drop": true}]"#),
        "changes[0]: `subject`: expected a subject of kind `principal`"
    );
    assert_eq!(
        error(r#"[{"name": "task", "state": "stale"}]"#),
        "changes[0]: `task` comes with each request, so it is never stale: drop it"
    );
    assert_eq!(
        error(r#"[{"name": "risk", "drop": true}, {"name": "risk", "value": 1}]"#),
        "changes[1]: `risk` is changed twice"
    );
}
