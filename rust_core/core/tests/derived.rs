//! What the core counts of callers: windows against a naive model, what is not known is never zero, many threads, and
//! the same through the core's door.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout, missing_docs)]

mod stage;

use proptest::prelude::*;
use serde_json::Value as Json;
use signalwarden_core::{
    engine::Engine,
    identity::Validated,
    model::{Body, HeaderEntry, Headers, Peer, Request, Span, SpiffeId, Timestamp},
    reason::Reason,
    record::InfluenceMode,
    signals::derived::{Caller, MOST_DISTINCT, Measure, Series},
    snapshot::Snapshot,
    wire,
};
use stage::Texts;
use std::{collections::BTreeSet, net::IpAddr, sync::Arc, thread};

const START: i64 = 1_790_000_000_000_000;
const SECOND: i64 = 1_000_000;

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(START + micros)
}

fn principal(n: usize) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://t/w{n}")).unwrap()
}

fn caller(n: usize, address: u32) -> Caller {
    Caller {
        principal: principal(n),
        address: Some(IpAddr::V4(address.into())),
        certificate: Some(format!("{address:064x}")),
    }
}

fn series(measure: Measure, window: &str, most: usize) -> Series {
    Series::new(measure, Span::parse(window).unwrap(), 7, most)
}

// ---- windows ---------------------------------------------------------------------------------------------

#[test]
fn until_its_window_is_observed_whole_there_is_no_value() {
    let series = series(Measure::Requests, "1m", 100);
    assert_eq!(series.read(&principal(1), at(0)), None, "the first decision");
    series.count(&caller(1, 1), false, at(0));
    assert_eq!(series.read(&principal(1), at(60 * SECOND - 1)), None);
    assert_eq!(series.read(&principal(1), at(60 * SECOND)), Some(1));
    assert_eq!(series.read(&principal(2), at(60 * SECOND)), Some(0), "nobody was there, and that is known");
}

#[test]
fn a_window_reaches_back_its_whole_span_and_at_most_a_sixteenth_more() {
    for offset in [0, 1, 999_999, 3_749_999, 3_750_000, 12_345_678] {
        let series = series(Measure::Requests, "1m", 100);
        series.count(&caller(1, 1), false, at(0));
        let event = 120 * SECOND + offset;
        series.count(&caller(1, 1), false, at(event));
        assert_eq!(series.read(&principal(1), at(event + 60 * SECOND)), Some(1), "{offset}: it is still within");
        let beyond = event + 60 * SECOND + 60 * SECOND / 16;
        assert_eq!(series.read(&principal(1), at(beyond)), Some(0), "{offset}: a sixteenth more, and it is gone");
    }
}

/// Steps of time, who asks, from where, and whether it was denied.
fn events() -> impl Strategy<Value = Vec<(i64, usize, u32, bool)>> {
    let step = prop_oneof![Just(0), 1..200_000_i64, 100_000..2_000_000_i64, 1..20_000_000_i64];
    prop::collection::vec((step, 0..3_usize, 0..6_u32, any::<bool>()), 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// The naive model keeps every event. What is counted lies between the window and a sixteenth more.
    #[test]
    fn what_is_counted_is_what_a_naive_model_counts(events in events(), measure in 0..4_usize, window in 1..20_i64) {
        let measure = Measure::ALL[measure].1;
        let span = window * SECOND;
        let series = Series::new(measure, Span::from_micros(span), 7, 100);
        let mut history: Vec<(i64, usize, u32, bool)> = Vec::new();
        let mut now = 0;
        for (step, who, address, denied) in events {
            now += step;
            let since = history.first().map_or(now, |first| first.0);
            let value = series.read(&principal(who), at(now));
            let bounds = [span, span + span / 16].map(|back| {
                let mine = history.iter().filter(|e| e.1 == who && now - e.0 <= back);
                match measure {
                    Measure::Requests => mine.count(),
                    Measure::Denials => mine.filter(|e| e.3).count(),
                    Measure::Origins | Measure::Certificates => mine.map(|e| e.2).collect::<BTreeSet<_>>().len(),
                }
            });
            match value {
                None => prop_assert!(now - since < span, "missing although the window was observed"),
                Some(value) => {
                    prop_assert!(now - since >= span);
                    let value = usize::try_from(value).unwrap();
                    prop_assert!((bounds[0]..=bounds[1]).contains(&value), "{value} is not in {bounds:?}");
                }
            }
            series.count(&caller(who, address), denied, at(now));
            history.push((now, who, address, denied));
        }
    }
}

#[test]
fn distinct_things_saturate_and_stay_so_for_a_window() {
    let series = series(Measure::Origins, "1m", 100);
    series.count(&caller(9, 1), false, at(0));
    let most = i64::try_from(MOST_DISTINCT).unwrap();
    for address in 0..200 {
        series.count(&caller(1, address), false, at(60 * SECOND + i64::from(address)));
    }
    assert_eq!(series.read(&principal(1), at(61 * SECOND)), Some(most));
    // The last ones found no place: until they have left the window the value does not fall.
    assert_eq!(series.read(&principal(1), at(120 * SECOND)), Some(most));
    assert_eq!(series.read(&principal(1), at(130 * SECOND)), Some(0));
}

#[test]
fn a_caller_without_address_or_certificate_adds_none() {
    let nameless = Caller { principal: principal(1), address: None, certificate: None };
    for measure in [Measure::Origins, Measure::Certificates] {
        let series = series(measure, "1s", 100);
        series.count(&nameless, false, at(0));
        assert_eq!(series.read(&principal(1), at(2 * SECOND)), Some(0));
        assert_eq!(series.principals(), 0);
    }
}

// ---- what is not known is never zero ----------------------------------------------------------------------

#[test]
fn an_eviction_makes_missing_what_could_have_been_lost_and_nothing_else() {
    // Two a shard: whoever is active stays, and newcomers push each other out.
    let series = series(Measure::Requests, "1m", 128);
    series.count(&caller(0, 1), false, at(0));
    let now = 100 * SECOND;
    for n in 1..1_000 {
        let when = at(now + 2 * i64::try_from(n).unwrap());
        series.count(&caller(0, 1), false, when);
        series.count(&caller(n, 1), false, when);
    }
    assert!(series.principals() <= 128, "{}", series.principals());
    assert_eq!(series.read(&principal(0), at(now + SECOND)), Some(999), "it was active all the while");
    let values: Vec<Option<i64>> = (1..1_000).map(|n| series.read(&principal(n), at(now + SECOND))).collect();
    assert!(values.iter().all(Option::is_none), "each may have been here before, and was once: never zero");
    // A window later nothing that was lost can matter any more.
    let later = now + 61 * SECOND + 60 * SECOND / 16;
    for n in 0..1_000 {
        assert_eq!(series.read(&principal(n), at(later)), Some(0));
    }
}

#[test]
fn who_comes_back_after_an_eviction_is_missing_until_a_window_has_passed() {
    let series = series(Measure::Requests, "1m", 1);
    series.count(&caller(0, 1), false, at(0));
    let now = 100 * SECOND;
    series.count(&caller(0, 1), false, at(now));
    for n in 1..2_000 {
        series.count(&caller(n, 1), false, at(now + SECOND));
    }
    series.count(&caller(0, 1), false, at(now + 2 * SECOND));
    assert_eq!(series.read(&principal(0), at(now + 3 * SECOND)), None);
    assert_eq!(series.read(&principal(0), at(now + 62 * SECOND)), Some(1), "the one after it came back");
}

#[test]
fn a_clock_that_leapt_ahead_and_back_makes_all_missing_until_a_window_has_passed() {
    let series = series(Measure::Requests, "1m", 100);
    series.count(&caller(1, 1), false, at(0));
    series.count(&caller(1, 1), false, at(100 * SECOND));
    let day = 86_400 * SECOND;
    series.count(&caller(1, 1), false, at(day));
    assert_eq!(series.read(&principal(1), at(101 * SECOND)), None, "later decisions were seen already");
    series.count(&caller(1, 1), false, at(101 * SECOND));
    assert_eq!(series.read(&principal(1), at(160 * SECOND)), None);
    assert_eq!(series.read(&principal(1), at(161 * SECOND)), Some(1), "observed anew since the clock was back");
}

// ---- threads ----------------------------------------------------------------------------------------------

#[test]
fn many_threads_lose_no_count() {
    for measure in [Measure::Requests, Measure::Origins] {
        let series = series(measure, "1h", 1_000);
        series.count(&caller(0, 0), false, at(0));
        let now = 3_600 * SECOND;
        thread::scope(|scope| {
            for worker in 0..8_u32 {
                let series = &series;
                scope.spawn(move || {
                    for n in 0..20_000_u32 {
                        let who = usize::try_from(n % 50).unwrap() + 1;
                        series.count(&caller(who, (n / 50) % 40 + worker % 2), false, at(now + i64::from(n)));
                        if n % 16 == 0 {
                            series.read(&principal(who), at(now + i64::from(n)));
                        }
                    }
                });
            }
        });
        let expected = if measure == Measure::Requests { 8 * 20_000 / 50 } else { 41 };
        for who in 1..=50 {
            assert_eq!(series.read(&principal(who), at(now + SECOND)), Some(expected), "{measure:?} of {who}");
        }
    }
}

#[test]
fn threads_that_evict_each_other_never_make_a_zero() {
    let series = series(Measure::Requests, "1h", 64);
    series.count(&caller(0, 0), false, at(0));
    let now = 3_600 * SECOND;
    thread::scope(|scope| {
        for worker in 0..8_usize {
            let series = &series;
            scope.spawn(move || {
                for n in 0..5_000_usize {
                    let (who, when) = (worker * 5_000 + n, at(now + i64::try_from(n).unwrap()));
                    series.count(&caller(who, 1), false, when);
                    let value = series.read(&principal(who), when);
                    assert_ne!(value, Some(0), "{who} was just counted");
                }
            });
        }
    });
    assert!(series.principals() <= 64 + 64);
}

// ---- through the door -------------------------------------------------------------------------------------

const AGENT: &str = "spiffe://prod.example/agent";
const ROUTES: &str = r#"
routes:
  - match: {host: "h", method: GET, path: "/{x}"}
    action: thing.read
    resource: {type: Thing, id: "{x}"}
    tier: runtime
    sensitivity: low
default: deny
"#;
const POLICIES: &str = r#"
@id("few") permit(principal, action, resource) when { context.signals has s && context.signals.s < 3 };
"#;

fn snapshot(measure: &str, window: &str) -> Arc<Snapshot> {
    let signals = format!(
        "signals:\n  s: {{type: long, description: d, owner: o@x, purpose: p, subject: principal, influence: grant, used_by: [thing.read], \
         review_by: 2099-01-01, sources: [{{kind: derived, measure: {measure}, window: {window}, assurance: derived}}]}}\n"
    );
    let texts =
        Texts { routes: ROUTES, signals: &signals, schema: "entity Workload; entity Thing;", policies: POLICIES };
    Arc::new(stage::load(&texts, "prod.example", at(0)).unwrap_or_else(|error| panic!("{error}")))
}

fn engine(measure: &str, window: &str) -> Engine {
    stage::engine(snapshot(measure, window), 10, InfluenceMode::All)
}

fn request(path: &str, address: &str) -> Request {
    Request {
        method: "GET".into(),
        path: path.into(),
        host: "h".into(),
        headers: Headers::new(vec![HeaderEntry { name: "x".into(), value: "y".into(), is_utf8: true }]),
        body: Body::NotForwarded,
        source: Peer { principal: AGENT.into(), address: address.into(), ..Peer::default() },
        ..Request::default()
    }
}

fn ask(engine: &Engine, request: &Request, seconds: i64) -> (String, Json) {
    let ticks = u64::try_from(seconds).unwrap() * 1_000_000_000;
    engine.check(&wire::encode_request(request), &Validated::default(), at(seconds * SECOND), [0; 10], &|| ticks);
    let record: Json = serde_json::from_slice(&engine.drain(10).0).unwrap();
    (record["reason"].as_str().unwrap().to_owned(), record["signals"][0].clone())
}

#[test]
fn a_rate_denies_and_the_value_is_what_was_before_the_request() {
    let engine = engine("requests", "10s");
    let once = request("/a", "10.0.0.1:1");
    let (reason, signal) = ask(&engine, &once, 0);
    assert_eq!((reason.as_str(), &signal["state"]), ("signal_unavailable", &"missing".into()));
    for (second, expected, value) in
        [(20, "allowed", 0), (21, "allowed", 1), (22, "allowed", 2), (23, "no_policy_permits", 3)]
    {
        let (reason, signal) = ask(&engine, &once, second);
        assert_eq!((reason.as_str(), &signal["value"]), (expected, &Json::from(value)), "at {second}");
        assert_eq!(
            (&signal["assurance"], &signal["source"], &signal["age_ms"]),
            (&"derived".into(), &"derived:requests/10s".into(), &0.into())
        );
        // An offline decision sees the count, and leaves it as it is.
        let decided = engine.decide(&wire::encode_request(&once), at(second * SECOND), [0; 10], &|| 0);
        assert!(decided.0.len() > 100);
    }
    assert_eq!(ask(&engine, &once, 40).0, "allowed");
}

#[test]
fn a_denial_counts_if_it_lies_with_the_caller_even_where_no_route_was_found() {
    let engine = engine("denials", "10s");
    assert_eq!(ask(&engine, &request("/a", ""), 0).0, "signal_unavailable");
    assert_eq!(ask(&engine, &request("/a", ""), 20).1["value"], 0, "a lost signal is no denial of the caller");
    for _ in 0..3 {
        assert_eq!(ask(&engine, &request("/no/route", ""), 21).0, "route_unknown");
    }
    assert_eq!(ask(&engine, &request("/a", ""), 22), ask_again(&engine));
    assert_eq!(Reason::ALL.len(), 31, "a new reason: does it lie with the caller?");
}

fn ask_again(engine: &Engine) -> (String, Json) {
    // Three were counted before, and the denial of the first of these two.
    let (reason, mut signal) = ask(engine, &request("/a", ""), 22);
    assert_eq!(signal["value"], 4);
    signal["value"] = 3.into();
    (reason, signal)
}

#[test]
fn addresses_are_told_apart_without_their_ports() {
    let engine = engine("origins", "10s");
    ask(&engine, &request("/a", "10.0.0.1:1"), 0);
    for (second, address, before) in [
        (20, "10.0.0.1:1", 0),
        (21, "10.0.0.1:2", 1),
        (22, "[::ffff:10.0.0.1]:3", 1),
        (23, "10.0.0.2:1", 1),
        (24, "", 2),
    ] {
        assert_eq!(ask(&engine, &request("/a", address), second).1["value"], before, "at {second}");
    }
}

#[test]
fn a_load_goes_on_counting_what_was_counted_and_begins_what_is_new() {
    let engine = engine("requests", "10s");
    let once = request("/a", "");
    ask(&engine, &once, 0);
    ask(&engine, &once, 20);
    engine.swap(snapshot("requests", "10s"));
    assert_eq!(ask(&engine, &once, 21).1["value"], 1, "the same measure and window");
    engine.swap(snapshot("requests", "15s"));
    assert_eq!(ask(&engine, &once, 22).1["state"], "missing", "another window begins");
    engine.swap(snapshot("requests", "10s"));
    assert_eq!(ask(&engine, &once, 23).1["state"], "missing", "what was not counted meanwhile is not known");
    assert_eq!(ask(&engine, &once, 34).1["value"], 0);
}
