//! The rules of the store: who may say what, what order does, what a restart brings back, and what a decision sees.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use proptest::prelude::*;
use serde_json::{Value as Json, json};
use signalwarden_core::change::Change;
use signalwarden_core::findings::Findings;
use signalwarden_core::model::names::SubjectKind;
use signalwarden_core::model::{
    Assurance, Fact, HeaderEntry, Headers, Request, ResourceId, Span, SpiffeId, State, Subject, Timestamp, Value,
};
use signalwarden_core::route::Routes;
use signalwarden_core::signals::derived::Derived;
use signalwarden_core::signals::{Admission, Asker, Cells, Reading, Register, Store, gather, judge_batch};

const ROUTES: &str = r#"
routes:
  - {match: {host: a, path: /}, action: act, resource: {type: A, id: "1"}, tier: runtime, sensitivity: low}
default: deny
"#;
const MDM: &str = "spiffe://prod.example/mdm";
const OTHER: &str = "spiffe://prod.example/other";
const AGENT: &str = "spiffe://prod.example/agent";
const START: i64 = 1_795_600_000_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(START + seconds * 1_000_000)
}

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

fn entry(name: &str, kind: &str, subject: &str, publisher: &str, more: &str) -> String {
    let source = format!("{{kind: push, publisher: \"{publisher}\", assurance: authoritative}}");
    entry_of(name, kind, subject, &source, &format!("    influence: grant\n    max_age: 5m\n{more}"))
}

fn entry_of(name: &str, kind: &str, subject: &str, source: &str, more: &str) -> String {
    format!(
        "  {name}:\n    type: {kind}\n    description: d\n    owner: o@prod.example\n    purpose: p\n    subject: {subject}\n    \
         sources: [{source}]\n    used_by: [act]\n    review_by: 2030-01-01\n{more}"
    )
}

fn header(name: &str, kind: &str, header: &str) -> String {
    let source = format!("{{kind: header, header: {header}, assurance: self_asserted}}");
    entry_of(name, kind, "request", &source, "    influence: restrict\n")
}

fn register(entries: &[String]) -> Register {
    let mut findings = Findings::default();
    let routes = Routes::load("routes.yaml", ROUTES, &mut findings);
    let text = format!("signals:\n{}", entries.concat());
    let register = Register::load("signals.yaml", &text, routes.actions(), at(0), &mut findings);
    assert!(findings.as_slice().is_empty(), "{findings:?}");
    register
}

fn usual() -> Register {
    register(&[
        entry("trust", "long", "principal", MDM, ""),
        entry("posture", "enum[healthy, compromised]", "principal", MDM, ""),
        entry("frozen", "bool", "global", MDM, ""),
        entry("labels", "set", "resource", MDM, ""),
        entry("seal", "string", "device", MDM, "    sensitivity: secret\n"),
        entry("foreign", "long", "principal", OTHER, ""),
        header("task_type", "string", "x-task-type"),
    ])
}

fn item(name: &str, subject: &str, value: impl Into<Json>, seconds: i64) -> Json {
    json!({"name": name, "subject": subject, "value": value.into(), "observed_at": at(seconds).to_rfc3339()})
}

fn send(register: &Register, store: &Store, items: &[Json], now: Timestamp) -> Admission {
    let body = json!({"signals": items}).to_string();
    let admission = judge_batch(body.as_bytes(), &id(MDM).into(), register, store, now).unwrap();
    admission.changes.iter().for_each(|change| store.apply(change));
    admission
}

fn reasons(admission: &Admission) -> Vec<(usize, &'static str)> {
    admission.rejected.iter().map(|(index, refusal)| (*index, refusal.reason.code())).collect()
}

fn read(register: &Register, store: &Store, name: &str, subject: &str, now: Timestamp) -> Fact {
    let contract = register.find(name).unwrap();
    let subject = Subject::parse(contract.subject, subject).unwrap();
    let vouched = store.vouching().load();
    let reading = Reading { store, vouched: &vouched, principal: None, chain: &[], circumstances: None, now };
    store.bind(contract).read(&reading, &subject)
}

/// Everything the store knows, as a publisher or an auditor could see it.
fn everything(register: &Register, store: &Store) -> Json {
    json!([store.list(register, None, 10_000, at(0)).to_json(), store.live()])
}

#[test]
fn each_rule_refuses_with_its_own_reason_and_the_others_are_kept() {
    let (register, store) = (usual(), Store::new(1));
    let admission = send(
        &register,
        &store,
        &[
            item("trust", AGENT, 4, 0),
            item("trst", AGENT, 4, 0),
            item("task_type", AGENT, "refund", 0),
            item("foreign", AGENT, 4, 0),
            item("trust", "agent", 4, 0),
            item("posture", AGENT, "x".repeat(5_000), 0),
            item("posture", AGENT, "broken", 0),
            item("trust", AGENT, 1.0, 0),
            item("trust", AGENT, 5, 6),
            item("trust", AGENT, 5, -1),
            item("labels", "A::\"1\"", (0..129).map(|n| n.to_string()).collect::<Vec<_>>(), 0),
            item("frozen", "*", true, 5),
        ],
        at(0),
    );
    let expected = [
        (1, "unknown_signal"),
        (2, "not_pushed"),
        (3, "wrong_publisher"),
        (4, "bad_subject"),
        (5, "too_large"),
        (6, "wrong_type"),
        (7, "wrong_type"),
        (8, "future"),
        (9, "older"),
        (10, "too_large"),
    ];
    assert_eq!(reasons(&admission), expected);
    assert_eq!((admission.accepted, store.live()), (2, 2));
    assert!(admission.rejected[0].1.detail.contains("did you mean `trust`?"));
    assert_eq!(read(&register, &store, "trust", AGENT, at(0)).fresh_value(), Some(&Value::Long(4)));
}

#[test]
fn an_entry_has_exactly_its_four_keys_each_once() {
    let (register, store) = (usual(), Store::new(1));
    let good = r#""name":"trust","subject":"spiffe://prod.example/agent","value":4"#;
    let time = r#""observed_at":"2026-11-24T10:00:00Z""#;
    let entries = [
        format!("{{{good}}}"),
        format!("{{{good},{time},\"ttl\":5}}"),
        format!("{{{good},{time},\"value\":5}}"),
        format!("{{{good},\"observed_at\":\"yesterday\"}}"),
        format!("{{{good},\"observed_at\":5}}"),
        "5".to_owned(),
        "[]".to_owned(),
        "null".to_owned(),
    ];
    let body = format!("{{\"signals\":[{}]}}", entries.join(","));
    let admission = judge_batch(body.as_bytes(), &id(MDM).into(), &register, &store, at(0)).unwrap();
    let all: Vec<_> = (0..entries.len()).map(|index| (index, "malformed")).collect();
    assert_eq!((reasons(&admission), admission.accepted), (all, 0));
    let answer: Json = serde_json::from_slice(&admission.answer_json()).unwrap();
    assert_eq!(answer["accepted"], 0);
    assert_eq!(answer["rejected"][1], json!({"index": 1, "reason": "malformed", "detail": "unknown key `ttl`"}));
}

#[test]
fn a_body_of_another_shape_is_one_clear_sentence() {
    let (register, store) = (usual(), Store::new(1));
    let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
    let many = format!("{{\"signals\":[{}]}}", vec!["{}"; 1_001].join(","));
    for (body, part) in [
        ("", "not JSON"),
        ("[]", "not an object"),
        ("{}", "`signals` is missing"),
        (r#"{"signals":{}}"#, "not a list"),
        (r#"{"signal":[]}"#, "did you mean `signals`?"),
        (r#"{"signals":[],"signals":[]}"#, "stands twice"),
        (&deep, "not JSON"),
        (&many, "at most 1000"),
    ] {
        let sentence = judge_batch(body.as_bytes(), &id(MDM).into(), &register, &store, at(0)).unwrap_err().to_string();
        assert!(sentence.contains(part) && !sentence.contains('\n'), "{sentence}");
    }
}

#[test]
fn another_value_of_the_same_instant_disputes_until_a_newer_one() {
    let (register, store) = (usual(), Store::new(1));
    let batch = [
        item("trust", AGENT, 4, 0),
        item("trust", AGENT, 4, 0),
        item("trust", AGENT, 1, 0),
        item("trust", AGENT, 4, 0),
    ];
    let admission = send(&register, &store, &batch, at(0));
    let replaces: Vec<bool> = admission.changes.iter().map(Change::replaces).collect();
    assert_eq!((admission.accepted, replaces), (4, vec![true, false]));
    let fact = read(&register, &store, "trust", AGENT, at(1));
    assert_eq!((fact.state, fact.value), (State::Disputed, Some(Value::Long(4))));
    send(&register, &store, &[item("trust", AGENT, 1, 1)], at(1));
    assert_eq!(read(&register, &store, "trust", AGENT, at(1)).fresh_value(), Some(&Value::Long(1)));
}

#[test]
fn a_value_grows_stale_and_a_clock_set_back_makes_it_future() {
    let (register, store) = (usual(), Store::new(1));
    send(&register, &store, &[item("trust", AGENT, 4, 0)], at(0));
    let state = |now| read(&register, &store, "trust", AGENT, now).state;
    assert_eq!((state(at(300)), state(at(301))), (State::Fresh, State::Stale));
    assert_eq!((state(at(-5)), state(at(-6))), (State::Fresh, State::Future));
    assert_eq!(read(&register, &store, "trust", OTHER, at(0)).state, State::Missing);
}

#[test]
fn a_contract_that_changes_its_publisher_or_type_leaves_old_values_unverified() {
    let (before, store) = (usual(), Store::new(1));
    send(&before, &store, &[item("trust", AGENT, 4, 0), item("posture", AGENT, "healthy", 0)], at(0));
    let after = register(&[
        entry("trust", "long", "principal", OTHER, ""),
        entry("posture", "enum[good, bad]", "principal", MDM, ""),
    ]);
    let fact = read(&after, &store, "trust", AGENT, at(400));
    assert_eq!((fact.state, fact.source.as_deref()), (State::Unverified, Some("push:spiffe://prod.example/mdm")));
    assert_eq!(read(&after, &store, "posture", AGENT, at(0)).state, State::Unverified);

    // The new publisher speaks: its own order begins, and an old word of the former one stays old.
    let body = json!({"signals": [item("trust", AGENT, 2, -10)]}).to_string();
    let admission = judge_batch(body.as_bytes(), &id(OTHER).into(), &after, &store, at(0)).unwrap();
    admission.changes.iter().for_each(|change| store.apply(change));
    assert_eq!(read(&after, &store, "trust", AGENT, at(0)).fresh_value(), Some(&Value::Long(2)));
    assert_eq!(reasons(&send(&before, &store, &[item("trust", AGENT, 5, -5)], at(0))), [(0, "older")]);
    assert_eq!(read(&before, &store, "trust", AGENT, at(0)).fresh_value(), Some(&Value::Long(4)));
}

#[test]
fn a_contract_that_changes_its_subject_finds_nothing_of_the_old_kind() {
    let (before, store) = (usual(), Store::new(1));
    send(&before, &store, &[item("trust", AGENT, 4, 0)], at(0));
    let after = register(&[entry("trust", "long", "device", MDM, "")]);
    assert_eq!(read(&after, &store, "trust", AGENT, at(0)).state, State::Missing);
}

#[test]
fn a_full_store_refuses_new_subjects_and_still_updates_known_ones() {
    let (register, store) = (usual(), Store::with_capacity(1, 2));
    let batch =
        [item("trust", AGENT, 1, 0), item("trust", OTHER, 1, 0), item("trust", MDM, 1, 0), item("trust", AGENT, 2, 1)];
    assert_eq!(reasons(&send(&register, &store, &batch, at(1))), [(2, "too_many")]);
    assert_eq!(read(&register, &store, "trust", AGENT, at(1)).fresh_value(), Some(&Value::Long(2)));
    assert_eq!(reasons(&send(&register, &store, &batch[2..], at(1))), [(0, "too_many")]);
}

#[test]
fn lists_are_sorted_bounded_and_keep_secrets() {
    let (register, store) = (usual(), Store::new(7));
    let mut batch: Vec<Json> = (0..50).rev().map(|n| item("trust", &format!("{AGENT}{n:02}"), n, 0)).collect();
    batch.extend([item("frozen", "*", true, 0), item("seal", "laptop-1", "hush", 0)]);
    send(&register, &store, &batch, at(0));
    let all = store.list(&register, None, 100, at(10)).to_json();
    let names: Vec<(String, String)> = all["signals"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| (s["name"].as_str().unwrap().to_owned(), s["subject"].as_str().unwrap().to_owned()))
        .collect();
    assert!(names.is_sorted() && names.len() == 52 && all["truncated"] == false);
    let few = store.list(&register, None, 3, at(10)).to_json();
    assert_eq!((&few["signals"][2], &few["truncated"]), (&all["signals"][2], &json!(true)));
    let one = store.list(&register, Some("laptop-1"), 10, at(10)).to_json();
    let expected = json!({
        "name": "seal", "subject": "laptop-1", "state": "fresh", "assurance": "authoritative",
        "source": "push:spiffe://prod.example/mdm", "observed_at": at(0).to_rfc3339(), "age_ms": 10_000,
    });
    assert_eq!(one, json!({"signals": [expected], "truncated": false}));
}

#[test]
fn a_request_finds_its_own_subjects_and_no_others() {
    let (register, store) = (usual(), Store::new(1));
    let batch = [
        item("trust", AGENT, 4, 0),
        item("posture", OTHER, "compromised", 0),
        item("frozen", "*", false, 0),
        item("labels", "A::\"4\\\"2\"", ["x"], 0),
        item("seal", "laptop-1", "ok", 0),
    ];
    assert_eq!(send(&register, &store, &batch, at(0)).rejected, []);
    let cells: Vec<Cells> = register.contracts().iter().map(|contract| store.bind(contract)).collect();
    let routes = Routes::load("routes.yaml", ROUTES, &mut Findings::default());
    let derived = Derived::default();
    let resource = ResourceId { kind: "A".into(), id: "4\"2".into() };
    let headers = vec![HeaderEntry { name: "x-task-type".into(), value: "refund".into(), is_utf8: true }];
    let request = Request { headers: Headers::new(headers), ..Request::default() };
    let facts = |principal: &str, device| {
        let asker = Asker {
            principal: &id(principal),
            resource: &resource,
            device,
            route: Some(&routes.all()[0]),
            proofs: &[],
            derived: &derived,
            task: None,
        };
        let facts = gather(&store, &cells, &asker, &request, at(1));
        let words = register.contracts().iter().zip(facts);
        words.map(|(contract, fact)| (contract.name.to_string(), fact)).collect::<std::collections::BTreeMap<_, _>>()
    };
    let found = facts(AGENT, Some("laptop-1"));
    let states: Vec<(&str, State)> = found.iter().map(|(name, fact)| (name.as_str(), fact.state)).collect();
    let (fresh, missing) = (State::Fresh, State::Missing);
    let expected = [
        ("foreign", missing),
        ("frozen", fresh),
        ("labels", fresh),
        ("posture", missing),
        ("seal", fresh),
        ("task_type", fresh),
        ("trust", fresh),
    ];
    assert_eq!(states, expected);
    let task = &found["task_type"];
    assert_eq!((task.assurance, task.source.as_deref()), (Assurance::SelfAsserted, Some("header:x-task-type")));
    assert_eq!((task.observed_at, task.is_self_asserted()), (None, true));
    assert!(!found["trust"].is_self_asserted());

    let nobody = facts(OTHER, None);
    assert_eq!((nobody["seal"].state, nobody["seal"].subject.clone()), (missing, None));
    assert_eq!(nobody["posture"].value, Some(Value::String("compromised".into())));
    assert!(facts(MDM, None)["frozen"].self_published, "what the deciding principal published is its own word");
}

#[test]
fn a_reader_never_sees_a_half_made_value_while_a_writer_writes() {
    let (register, store) = (usual(), Store::new(1));
    send(&register, &store, &[item("trust", AGENT, 0, 0), item("posture", AGENT, "healthy", 0)], at(0));
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1..500 {
                send(
                    &register,
                    &store,
                    &[item("trust", AGENT, n, n), item("trust", &format!("{AGENT}{n}"), n, n)],
                    at(n),
                );
            }
            done.store(true, std::sync::atomic::Ordering::Release);
        });
        let mut last = 0;
        while !done.load(std::sync::atomic::Ordering::Acquire) {
            let fact = read(&register, &store, "trust", AGENT, at(0));
            let Some(Value::Long(n)) = fact.value else { panic!("{fact:?}") };
            assert!(n >= last && fact.observed_at == Some(at(n)), "{fact:?}");
            last = n;
        }
    });
    assert_eq!(store.live(), 501);
}

/// A publication of one source: which of a few subjects, which value, which instant; some of them wrong.
fn items() -> impl Strategy<Value = Vec<Json>> {
    let names = prop::sample::select(vec!["trust", "posture", "frozen", "foreign", "task_type", "nothing"]);
    let subjects = prop::sample::select(vec![AGENT, MDM, "*", "", "A::\"1\""]);
    let values =
        prop::sample::select(vec![json!(1), json!(2), json!(true), json!("healthy"), json!("bad"), json!(null)]);
    let one = (names, subjects, values, -3..9i64).prop_map(|(name, subject, value, t)| item(name, subject, value, t));
    prop::collection::vec(one, 0..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// In whatever order and batches one source's words arrive, the newest decides.
    #[test]
    fn any_order_ends_where_the_newest_decides(
        words in prop::collection::vec((1..4i64, 0..6i64), 1..12).prop_shuffle(),
        size in 1..5usize,
    ) {
        let (register, store) = (usual(), Store::new(3));
        let batch: Vec<Json> = words.iter().map(|(value, t)| item("trust", AGENT, *value, *t)).collect();
        batch.chunks(size).for_each(|some| { send(&register, &store, some, at(6)); });
        let newest = words.iter().map(|(_, t)| *t).max().unwrap();
        let said: Vec<i64> = words.iter().filter(|(_, t)| *t == newest).map(|(value, _)| *value).collect();
        let fact = read(&register, &store, "trust", AGENT, at(6));
        let disputed = said.iter().any(|value| *value != said[0]);
        prop_assert_eq!(fact.state, if disputed { State::Disputed } else { State::Fresh });
        prop_assert_eq!((fact.value, fact.observed_at), (Some(Value::Long(said[0])), Some(at(newest))));
    }

    /// What is refused leaves no trace: the accepted entries alone end in the same store.
    #[test]
    fn a_refused_entry_changes_nothing(items in items()) {
        let (register, mixed, clean) = (usual(), Store::new(3), Store::new(4));
        let admission = send(&register, &mixed, &items, at(0));
        let refused: Vec<usize> = admission.rejected.iter().map(|(index, _)| *index).collect();
        let accepted: Vec<Json> =
            items.iter().enumerate().filter(|(at, _)| !refused.contains(at)).map(|(_, item)| item.clone()).collect();
        let again = send(&register, &clean, &accepted, at(0));
        prop_assert_eq!(&again.rejected, &[]);
        prop_assert_eq!(&again.changes, &admission.changes);
        prop_assert_eq!(everything(&register, &mixed), everything(&register, &clean));
        prop_assert_eq!(admission.accepted + refused.len(), items.len());

        let before = everything(&register, &mixed);
        let refused_alone: Vec<Json> = refused.iter().map(|at| items[*at].clone()).collect();
        let third = send(&register, &mixed, &refused_alone, at(0));
        prop_assert_eq!((third.accepted, before), (0, everything(&register, &mixed)));
    }

    /// One batch, many batches, the same batches again, and the kept changes after compaction: one and the same store.
    #[test]
    fn replay_gives_the_same_store(items in items(), size in 1..6usize, seed in any::<u64>()) {
        let (register, store) = (usual(), Store::new(3));
        let mut kept: Vec<(String, Vec<u8>)> = Vec::new();
        let mut all = Vec::new();
        for some in items.chunks(size) {
            for change in send(&register, &store, some, at(0)).changes {
                all.push(change.to_payload());
                if change.replaces() {
                    kept.retain(|(key, _)| *key != change.key());
                }
                kept.push((change.key(), change.to_payload()));
            }
        }
        let replayed = |payloads: &[Vec<u8>]| {
            let store = Store::new(seed);
            for payload in payloads {
                store.apply(&Change::from_payload(payload).unwrap());
            }
            store
        };
        let compacted: Vec<Vec<u8>> = kept.into_iter().map(|(_, payload)| payload).collect();
        let twice: Vec<Vec<u8>> = all.iter().chain(&all).cloned().collect();
        let expected = everything(&register, &store);
        for payloads in [&all, &compacted, &twice] {
            prop_assert_eq!(&everything(&register, &replayed(payloads)), &expected);
        }
        let whole = Store::new(seed);
        send(&register, &whole, &items, at(0));
        prop_assert_eq!(&everything(&register, &whole), &expected);
    }

    /// Whatever value of whatever type is accepted, its kept form reads back as the same value.
    #[test]
    fn an_accepted_value_survives_being_kept(
        kind in prop::sample::select(vec!["bool", "long", "string", "set", "decimal", "datetime", "ip"]),
        text in "(\\PC{0,20}|[0-9:.-]{0,12}|[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9](Z|[+-][0-2][0-9]:00))",
        number in any::<i64>(),
    ) {
        let register = register(&[entry("any", kind, "global", MDM, "")]);
        let store = Store::new(1);
        for value in [json!(text), json!(number), json!([text]), json!(number % 2 == 0)] {
            for change in send(&register, &store, &[item("any", "*", value, 0)], at(0)).changes {
                prop_assert_eq!(Change::from_payload(&change.to_payload()).unwrap(), change);
            }
        }
    }
}

#[test]
fn spans_of_the_rules_are_those_of_the_limits() {
    assert_eq!(Span::from_micros(signalwarden_core::limits::MAX_CLOCK_SKEW_MICROS), Span::parse("5s").unwrap());
    assert!(Subject::parse(SubjectKind::Request, "-").is_none(), "nobody can publish about a request");
}
