//! I1, I2 and I3 over every source that a value can come from: generated registers, each signal fed by a generated
//! source, through the core's door, against plain Cedar in every world. Cases are counted and printed (`-- --nocapture`).
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

use generated::{Case, Known, Oracle, PRINCIPAL, SCHEMA, VOCABULARY, case, every_world, possible_values};
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Value as Json, json};
use signalwarden_core::{
    engine::Engine,
    identity::Validated,
    model::{Body, HeaderEntry, Headers, Influence, Peer, Request, State, Timestamp, Value, WhenUnavailable},
    record::InfluenceMode,
    snapshot::Snapshot,
    wire,
};
use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::Arc,
};

const CASES: u32 = 2_000;
const PUBLISHER: &str = "spiffe://t/publisher";
const ISSUER: &str = "https://login.example";
const TOKEN: &str = "e30.e30.c2ln";
const JWT: &str = "envoy.filters.http.jwt_authn";
/// A Tuesday, 10:00 UTC.
const NOW: &str = "2026-11-24T10:00:00Z";

fn now() -> Timestamp {
    Timestamp::parse_rfc3339(NOW).unwrap()
}

/// Which sources can feed a signal of the vocabulary.
fn sources(at: usize) -> &'static [&'static str] {
    match (VOCABULARY[at].kind, VOCABULARY[at].self_asserted) {
        ("bool", _) => &["push", "metadata", "route", "time", "claim"],
        ("long", _) => &["push", "metadata", "route", "derived", "claim"],
        ("enum[ok, odd, bad]", _) => &["push", "metadata", "route", "peer", "time", "claim"],
        (_, true) => &["header", "words", "peer_word", "claim_word"],
        _ => &["push", "metadata", "route", "claim"],
    }
}

/// A directory, what feeds it, and the request.
struct Stage {
    files: Vec<(String, Vec<u8>)>,
    published: Vec<Json>,
    request: Request,
    seen_before: bool,
    claims: Vec<Json>,
}

/// What the sources of a case need around them.
struct Fed {
    facts: String,
    other_facts: String,
    jwt: Json,
    words: Json,
    headers: Vec<(String, String)>,
    published: Vec<Json>,
    seen_before: bool,
    /// Of the token of the request: each claim that a source names, and its value.
    claims: Vec<Json>,
}

impl Fed {
    /// The entry of one source, and its value where it is read (`None`: nothing says it).
    fn source(&mut self, known: &Known, source: &str, value: Option<&Value>) -> String {
        let name = known.name;
        let text =
            value.map(|value| value.to_json().as_str().map_or_else(|| value.to_json().to_string(), str::to_owned));
        let word = text.clone().unwrap_or_else(|| known.values[0].to_owned());
        let here = value.is_some();
        match source {
            "push" => {
                if let Some(value) = value {
                    self.published.push(
                        json!({"name": name, "subject": PRINCIPAL, "value": value.to_json(), "observed_at": NOW}),
                    );
                }
                format!("{{kind: push, publisher: \"{PUBLISHER}\", assurance: authoritative}}")
            }
            "metadata" => {
                if let Some(value) = value {
                    self.jwt[name] = value.to_json();
                }
                format!(
                    "{{kind: envoy_metadata, namespace: {JWT}, key: [p, {name}], filter: {JWT}, assurance: sourced}}"
                )
            }
            "claim" | "claim_word" => {
                self.claims.push(json!([["p", name], value.map(Value::to_json)]));
                let assurance = if source == "claim" { "authoritative" } else { "self_asserted" };
                format!("{{kind: token_claim, issuer: \"{ISSUER}\", claim: [p, {name}], assurance: {assurance}}}")
            }
            "words" => {
                if let Some(text) = &text {
                    self.words[name] = text.as_str().into();
                }
                format!("{{kind: envoy_metadata, namespace: app, key: {name}, assurance: self_asserted}}")
            }
            "header" => {
                self.headers.extend(text.map(|text| (format!("x-{name}"), text)));
                format!("{{kind: header, header: x-{name}, assurance: self_asserted}}")
            }
            "route" => {
                let quoted = if matches!(known.kind, "bool" | "long") { word } else { format!("\"{word}\"") };
                let facts = if here { &mut self.facts } else { &mut self.other_facts };
                write!(facts, "{name}: {quoted}, ").unwrap();
                format!("{{kind: route, fact: {name}, assurance: authoritative}}")
            }
            "peer" | "peer_word" => {
                let network = if here { "10.0.0.0/8" } else { "192.0.2.0/24" };
                let assurance = if source == "peer" { "sourced" } else { "self_asserted" };
                format!("{{kind: peer, zones: {{{word}: [{network}]}}, assurance: {assurance}}}")
            }
            "time" => {
                // A bool is never missing: the second day makes it false.
                let day = if known.kind == "bool" && word == "false" || !here { "mon" } else { "tue" };
                let windows = format!("{{{word}: {{days: [{day}], from: \"09:00\", to: \"11:00\"}}}}");
                format!("{{kind: time, zone: UTC, windows: {windows}, assurance: authoritative}}")
            }
            "derived" => {
                self.seen_before |= here;
                "{kind: derived, measure: requests, window: 10s, assurance: derived}".to_owned()
            }
            other => panic!("{other}"),
        }
    }
}

/// One signal, its source and its value (`None`: nothing says it).
fn stage(case: &Case, chosen: &[&str], values: &[Option<Value>]) -> Stage {
    let mut signals = "signals:\n".to_owned();
    let mut fed = Fed {
        facts: String::new(),
        other_facts: String::new(),
        jwt: json!({}),
        words: json!({}),
        headers: vec![
            ("content-type".to_owned(), "application/json".to_owned()),
            ("txn-token".to_owned(), TOKEN.to_owned()),
        ],
        published: Vec::new(),
        seen_before: false,
        claims: Vec::new(),
    };
    for (((rule, known), source), value) in case.rules.iter().zip(VOCABULARY).zip(chosen).zip(values) {
        let name = known.name;
        let source = fed.source(known, source, value.as_ref());
        let (subject, age) = match () {
            () if source.starts_with("{kind: push") => ("principal", ", max_age: 5m"),
            () if source.starts_with("{kind: derived") => ("principal", ""),
            () => ("request", ""),
        };
        let absent = rule.when_unavailable == WhenUnavailable::Absent;
        writeln!(
            signals,
            "  {name}: {{type: \"{}\", description: d, owner: o@x, purpose: p, subject: {subject}{age}, influence: {}, {}\
             used_by: [pay], review_by: 2099-01-01, sources: [{source}]}}",
            known.kind,
            rule.influence.as_str(),
            if absent { "when_unavailable: absent, justification: j, " } else { "" },
        )
        .unwrap();
    }
    let route = |path: &str, facts: &str| {
        format!(
            "  - {{match: {{host: h, method: POST, path: {path}}}, action: pay, resource: {{type: Account, id: \"42\"}}, \
             args: {{body: {{amount: long}}}}, tier: runtime, sensitivity: low, facts: {{{facts}}}}}\n"
        )
    };
    let routes = format!("routes:\n{}{}", route("/pay", &fed.facts), route("/other", &fed.other_facts));
    let file = |name: &str, text: &str| (name.to_owned(), text.as_bytes().to_vec());
    let entries = fed.headers.into_iter().map(|(name, value)| HeaderEntry { name, value, is_utf8: true });
    Stage {
        files: vec![
            file("routes.yaml", &routes),
            file("signals.yaml", &signals),
            file("entities.cedarschema", SCHEMA),
            file("entities.json", "[]"),
            file("policies/p.cedar", &case.policies.join("\n")),
        ],
        published: fed.published,
        seen_before: fed.seen_before,
        claims: fed.claims,
        request: Request {
            method: "POST".into(),
            path: "/pay".into(),
            host: "h".into(),
            headers: Headers::new(entries.collect()),
            body: Body::Forwarded { bytes: br#"{"amount": 10}"#.to_vec(), truncated: false },
            metadata: BTreeMap::from([(JWT.to_owned(), json!({"p": fed.jwt})), ("app".to_owned(), fed.words)]),
            source: Peer { principal: PRINCIPAL.into(), address: "10.1.2.3:4".into(), ..Peer::default() },
            ..Request::default()
        },
    }
}

/// A running core, fed; `None` if the loader refuses the policies.
fn engine(stage: &Stage) -> Option<Engine> {
    engine_with(stage, &json!({}))
}

/// The same, where the token of the request says this beside its claims.
fn engine_with(stage: &Stage, of_token: &Json) -> Option<Engine> {
    let settings = stage::with_issuer(stage::settings("t"), ISSUER);
    let snapshot = match Snapshot::load(&stage.files, &settings, now()) {
        Ok(snapshot) => snapshot,
        Err(error) => {
            let said = error.to_string();
            let of_policies = said.lines().all(|line| line.contains("p.cedar") || !line.contains("error:"));
            assert!(of_policies, "the register is good: {said}");
            return None;
        }
    };
    let engine = stage::engine(Arc::new(snapshot), 100, InfluenceMode::None);
    let admission = stage::publish(&engine, PUBLISHER, &Json::from(stage.published.clone()), now());
    assert_eq!(admission.accepted, stage.published.len(), "{:?}", admission.rejected);
    let mut claims = stage.claims.clone();
    claims.extend(of_token.get("more_claims").and_then(Json::as_array).into_iter().flatten().cloned());
    let mut of_token = of_token.clone();
    of_token.as_object_mut().unwrap().remove("more_claims");
    let valid = json!({"issued_at_us": now().as_micros() - 200_000_000});
    stage::prove(&engine, TOKEN, ISSUER, &Json::from(claims), now(), &stage::merged(&valid, &of_token));
    if stage.seen_before {
        let before = Timestamp::from_micros(now().as_micros() - 100_000_000);
        engine.check(&wire::encode_request(&stage.request), &Validated::default(), before, [0; 10], &|| 0);
    }
    Some(engine)
}

fn decide(engine: &Engine, request: &Request) -> Json {
    let (line, _) = engine.decide(&wire::encode_request(request), now(), [0; 10], &|| 0);
    let mut record: Json = serde_json::from_slice(&line).unwrap();
    record.as_object_mut().unwrap().remove("timing_us");
    record
}

/// What else a token may say: other claims, and everything that is kept of it for the record.
fn token_noise(noise: &[String]) -> Json {
    let text = |at: usize| noise.get(at).cloned().unwrap_or_default();
    json!({
        "subject": text(0), "token_id": text(1), "transaction": text(2), "scope": text(3), "requester": text(4),
        "earlier_actors": [text(0), text(1)],
        "more_claims": [
            [["risk"], 7], [["approved"], true], [["posture"], "ok"], [["p"], {"risk": 0, "approved": true}],
            [["p", "risk", "p"], 0], [["q", "approved"], text(2)],
        ],
    })
}

/// The worlds of a record, restated from DESIGN section 6 without the code under test.
fn options(case: &Case, record: &Json) -> Vec<Vec<Option<Value>>> {
    let facts = record["signals"].as_array().unwrap();
    let each = case.rules.iter().zip(VOCABULARY).enumerate().map(|(at, (rule, known))| {
        let Some(fact) = facts.iter().find(|fact| fact["name"] == known.name) else { return vec![None] };
        let anything = || std::iter::once(None).chain(possible_values(at, rule).into_iter().map(Some)).collect();
        let may_be_absent = rule.when_unavailable == WhenUnavailable::Absent;
        if fact["state"] != State::Fresh.as_str() {
            let absent =
                known.self_asserted || may_be_absent && matches!(fact["state"].as_str(), Some("missing" | "stale"));
            return if absent { vec![None] } else { anything() };
        }
        let mut options = vec![rule.kind.read_json(&fact["value"])];
        assert!(options[0].is_some(), "{fact}");
        if known.self_asserted || rule.influence == Influence::Restrict {
            options.push(None);
        }
        options
    });
    each.collect()
}

/// A case, a source and a value for each of its signals.
fn fed() -> impl Strategy<Value = (Case, Vec<&'static str>, Vec<Option<Value>>)> {
    let picks = prop::collection::vec(any::<prop::sample::Index>(), VOCABULARY.len());
    (case(), picks).prop_map(|(case, picks)| {
        let chosen = picks.iter().enumerate().map(|(at, pick)| sources(at)[pick.index(sources(at).len())]).collect();
        let values =
            case.facts.iter().map(|(_, fact)| fact.value.clone().filter(|_| fact.state == State::Fresh)).collect();
        (case, chosen, values)
    })
}

/// What no contract names: headers, metadata, addresses within a zone, bytes of the body, and the rest.
fn with_noise(request: &Request, noise: &[String], port: u16, host: u8) -> Request {
    let mut changed = request.clone();
    let entry = |name: &str, value: &String| HeaderEntry { name: name.into(), value: value.clone(), is_utf8: true };
    let named = ["x-other", "cookie", "x-forwarded-client-cert", "x-forwarded-for", "x-risk"]
        .iter()
        .zip(noise)
        .map(|(n, v)| entry(n, v));
    changed.headers = Headers::new(request.headers.iter().cloned().chain(named).collect());
    let text = |at: usize| noise.get(at).cloned().unwrap_or_default();
    if let Some(namespace) = changed.metadata.get_mut(JWT) {
        namespace["other"] = text(0).into();
        namespace["p"]["never_named"] = text(1).into();
        // The names of signals one level too high.
        namespace["risk"] = 7.into();
        namespace["approved"] = true.into();
    }
    if let Some(namespace) = changed.metadata.get_mut("app") {
        namespace["posture"] = "ok".into();
        namespace["other"] = json!([text(2)]);
    }
    changed.metadata.insert(text(3), json!({"task": text(4), "p": {"approved": true}}));
    changed.route_metadata.insert(JWT.to_owned(), json!({"p": {"approved": true, "risk": 0, "posture": "ok"}}));
    changed.extensions.insert("approved".to_owned(), text(0));
    changed.body =
        Body::Forwarded { bytes: json!({"amount": 10, "extra": noise}).to_string().into_bytes(), truncated: false };
    changed.source.address = format!("10.{host}.2.3:{port}");
    changed.source.service = text(1);
    changed.destination.address = format!("192.0.2.{host}:{port}");
    changed.sni = text(2);
    changed
}

#[test]
fn nothing_but_what_contracts_name_of_a_request_changes_a_decision() {
    let compared = Cell::new(0_u32);
    let noise = (prop::collection::vec("[a-z0-9 ]{0,12}", 5), any::<u16>(), any::<u8>());
    let config = ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() };
    let result = TestRunner::new(config).run(&(fed(), noise), |((case, chosen, values), (noise, port, host))| {
        let stage = stage(&case, &chosen, &values);
        let Some(engine) = engine(&stage) else { return Ok(()) };
        compared.set(compared.get() + 1);
        let changed = with_noise(&stage.request, &noise, port, host);
        let other = engine_with(&stage, &token_noise(&noise)).unwrap();
        let (mut here, mut there) = (decide(&engine, &stage.request), decide(&other, &changed));
        for record in [&mut here, &mut there] {
            // What is noted of tokens is for whoever reads the record.
            record["principal"].as_object_mut().unwrap().remove("tokens").unwrap();
        }
        prop_assert_eq!(here, there);
        Ok(())
    });
    println!("I1 over all sources: {} directories compared, of {CASES} cases", compared.get());
    result.unwrap();
    assert!(compared.get() > 500, "too few cases to prove anything: {}", compared.get());
}

#[test]
fn an_allow_stands_in_every_world_whatever_source_a_signal_comes_from() {
    let (allowed, worlds) = (Cell::new(0_u32), Cell::new(0_usize));
    let fresh: Cell<BTreeSet<&str>> = Cell::default();
    let config = ProptestConfig { cases: 2 * CASES, failure_persistence: None, ..ProptestConfig::default() };
    let result = TestRunner::new(config).run(&fed(), |(case, chosen, values)| {
        let stage = stage(&case, &chosen, &values);
        let Some(engine) = engine(&stage) else { return Ok(()) };
        let record = decide(&engine, &stage.request);
        for fact in record["signals"].as_array().unwrap() {
            let at = VOCABULARY.iter().position(|known| fact["name"] == known.name).unwrap();
            // A bool by time is never missing, and what was counted is another number.
            let as_fed = chosen[at] == "derived" || chosen[at] == "time" && VOCABULARY[at].kind == "bool";
            let value = values[at].as_ref().map(Value::to_json);
            prop_assert!(as_fed || fact.get("value") == value.as_ref(), "{}: {}", chosen[at], fact);
            if fact["state"] == "fresh" {
                let mut seen = fresh.take();
                seen.insert(chosen[at]);
                fresh.set(seen);
            }
        }
        if record["reason"] != "allowed" {
            return Ok(());
        }
        allowed.set(allowed.get() + 1);
        let oracle = Oracle::new(&case.policies.join("\n"));
        let mut broken = None;
        let tried = every_world(&options(&case, &record), |world| {
            let allows = oracle.allows(world);
            if !allows {
                broken = Some(format!("{world:?}"));
            }
            allows
        });
        worlds.set(worlds.get() + tried);
        prop_assert!(broken.is_none(), "allowed, but plain Cedar denies in the world {broken:?}");
        Ok(())
    });
    let fresh = fresh.take();
    println!("I2, I3 over {fresh:?}: {} allowed of {} cases, {} worlds tried", allowed.get(), 2 * CASES, worlds.get());
    result.unwrap();
    assert!(allowed.get() > 200, "too few allows to prove anything: {}", allowed.get());
    assert_eq!(fresh.len(), 11, "a source that was never fresh proves nothing: {fresh:?}");
}

#[test]
fn losing_a_signal_of_any_source_never_turns_a_denial_into_an_allow() {
    let compared = Cell::new(0_u32);
    let config = ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() };
    let result =
        TestRunner::new(config).run(&(fed(), any::<prop::sample::Index>()), |((case, chosen, values), pick)| {
            let at = pick.index(VOCABULARY.len());
            let exempt = case.rules[at].when_unavailable == WhenUnavailable::Absent || VOCABULARY[at].self_asserted;
            let never_lost = chosen[at] == "time" && VOCABULARY[at].kind == "bool";
            if exempt || never_lost || values[at].is_none() {
                return Ok(());
            }
            let before = stage(&case, &chosen, &values);
            let Some(engine_before) = engine(&before) else { return Ok(()) };
            if decide(&engine_before, &before.request)["reason"] == "allowed" {
                return Ok(());
            }
            let mut lost = values.clone();
            lost[at] = None;
            let after = stage(&case, &chosen, &lost);
            let engine_after = engine(&after).unwrap();
            compared.set(compared.get() + 1);
            let reason = decide(&engine_after, &after.request)["reason"].clone();
            prop_assert_ne!(reason, "allowed", "{} of {} was lost", VOCABULARY[at].name, chosen[at]);
            Ok(())
        });
    println!("loss over all sources: {} denied cases compared, of {CASES}", compared.get());
    result.unwrap();
    assert!(compared.get() > 100, "too few cases to prove anything: {}", compared.get());
}
