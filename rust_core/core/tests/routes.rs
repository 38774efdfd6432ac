//! The route table against its vectors: `tests/vectors/routes.json` and Envoy's own path cases.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::format_push_string,
    missing_docs
)]

use serde_json::{Map, Value as Json, json};
use signalwarden_core::{
    findings::Findings,
    model::{Body, HeaderEntry, Headers, Request, Sensitivity, Tier},
    reason::Reason,
    route::{Resolved, Routes, Unresolved},
};
use std::time::Instant;

fn vectors(name: &str) -> Json {
    let path = format!("{}/../../tests/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(&path).expect(&path)).unwrap()
}

fn load(text: &str) -> Routes {
    let mut findings = Findings::default();
    let routes = Routes::load("routes.yaml", text, &mut findings);
    assert!(findings.as_slice().is_empty(), "{findings:?}");
    routes
}

fn texts(map: &Json) -> impl Iterator<Item = (String, String)> {
    map.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned()))
}

fn request(json: &Json) -> Request {
    let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
    let header = |(name, value)| HeaderEntry { name, value, is_utf8: true };
    let truncated = json["truncated"] == true;
    Request {
        method: text("method"),
        host: text("host"),
        path: text("path"),
        protocol: text("protocol"),
        size: Some(json["body"].as_str().map_or(0, |body| body.len() as u64)),
        headers: Headers::new(texts(&json["headers"]).map(header).collect()),
        body: json["body"]
            .as_str()
            .map_or(Body::NotForwarded, |body| Body::Forwarded { bytes: body.as_bytes().to_vec(), truncated }),
        extensions: texts(&json["extensions"]).collect(),
        ..Request::default()
    }
}

fn answer(result: &Result<Resolved, Unresolved>) -> Json {
    match result {
        Ok(resolved) => {
            let args: Map<String, Json> = resolved.args.iter().map(|(k, v)| (k.to_string(), v.to_json())).collect();
            json!({"action": resolved.route.action.as_str(), "resource": resolved.resource.to_string(), "args": args})
        }
        Err(unresolved) => json!({"reason": unresolved.reason.code()}),
    }
}

#[test]
fn every_case_resolves_as_its_vector_says() {
    let vectors = vectors("routes.json");
    let mut wrong = Vec::new();
    for case in vectors["cases"].as_array().unwrap() {
        let routes = load(vectors["tables"][case["routes"].as_str().unwrap()].as_str().unwrap());
        let result = routes.resolve(&request(&case["request"]));
        let mut got = answer(&result);
        for (key, value) in [("host", result.as_ref().map(|r| &r.host)), ("path", result.as_ref().map(|r| &r.path))] {
            if let (true, Ok(value)) = (case["expect"][key].is_string(), value) {
                got[key] = json!(value);
            }
        }
        if got != case["expect"] {
            let detail = result.err().map(|unresolved| unresolved.detail);
            wrong.push(format!("{}: {got}, expected {} ({detail:?})", case["name"], case["expect"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_bad_file_is_refused_as_its_vector_says() {
    let mut wrong = Vec::new();
    for case in vectors("routes.json")["loads"].as_array().unwrap() {
        let mut findings = Findings::default();
        Routes::load("routes.yaml", case["yaml"].as_str().unwrap(), &mut findings);
        let found = findings.into_sorted();
        let expected = case["findings"].as_array().unwrap();
        let good = found.len() == expected.len()
            && expected.iter().all(|wanted| {
                found.iter().any(|finding| {
                    wanted["code"] == finding.code
                        && wanted["line"] == finding.place.line
                        && finding.message.contains(wanted["says"].as_str().unwrap())
                })
            });
        if !good {
            let said: Vec<_> = found.iter().map(|finding| format!("  {finding} [{}]", finding.code)).collect();
            wrong.push(format!("{}: expected {}, found\n{}", case["name"], case["findings"], said.join("\n")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_path_that_envoy_would_have_normalised_is_never_repaired_here() {
    let routes = load(
        "routes:\n  - {match: {host: '*', path: '/{*all}'}, action: all.use, resource: {type: Path, id: '{all}'}, tier: \
         coarse, sensitivity: low}\n",
    );
    for case in vectors("envoy/path_normalisation.json")["cases"].as_array().unwrap() {
        for key in ["sent", "seen"] {
            let path = case[key].as_str().unwrap();
            let request = Request { method: "GET".into(), host: "x".into(), path: path.into(), ..Request::default() };
            let ambiguous = path.contains("..") || path.contains("//");
            match routes.resolve(&request) {
                Ok(resolved) => assert_eq!((ambiguous, resolved.path.as_str()), (false, path)),
                Err(unresolved) => assert_eq!((ambiguous, unresolved.reason), (true, Reason::RouteUnknown), "{path}"),
            }
        }
    }
}

#[test]
fn actions_are_summed_up_over_their_routes() {
    let routes = load(
        r#"routes:
  - match: {host: a, path: "/x"}
    action: thing.use
    resource: {type: Thing, id: x}
    args: {query: {n: long, m: string}}
    tier: runtime
    sensitivity: low
  - match: {host: b, path: "/x/{n}"}
    action: thing.use
    resource: {type: Other, id: "{n}"}
    args: {path: {n: long}, query: {o: "bool?"}}
    tier: runtime
    sensitivity: high
"#,
    );
    let [action] = routes.actions() else { panic!("one action") };
    assert_eq!((action.tier, action.sensitivity, action.place.line), (Tier::Runtime, Sensitivity::High, 2));
    assert_eq!(action.resource_types.iter().map(|t| &**t).collect::<Vec<_>>(), ["Other", "Thing"]);
    let args: Vec<_> = action.args.iter().map(|(n, arg)| (&**n, arg.kind.to_string(), arg.optional)).collect();
    assert_eq!(args, [("m", "string".into(), true), ("n", "long".into(), false), ("o", "bool".into(), true)]);
    assert_eq!(&*routes.all()[1].label, "routes.yaml:8");
}

#[test]
fn a_body_that_is_no_utf_8_is_malformed_also_where_nothing_is_read_of_it() {
    let routes = load(
        "routes: [{match: {host: pay.example, method: POST, path: /pay}, action: pay, resource: {type: Account, id: a}, tier: runtime, \
         sensitivity: low, args: {body: {amount: long}}}]",
    );
    let mut request = request(&json!({"method": "POST", "host": "pay.example", "path": "/pay",
        "headers": {"content-type": "application/json"}, "body": r#"{"note": "aX", "amount": 1}"#}));
    assert!(routes.resolve(&request).is_ok());
    let Body::Forwarded { bytes, .. } = &mut request.body else { panic!("a body was forwarded") };
    let at = bytes.iter().position(|byte| *byte == b'X').unwrap();
    bytes[at] = 0xff;
    let unresolved = routes.resolve(&request).unwrap_err();
    assert_eq!(unresolved.to_string(), "malformed_request: the body is not utf-8");
}

#[test]
fn an_argument_that_cannot_be_read_names_its_route() {
    let vectors = vectors("routes.json");
    let routes = load(vectors["tables"]["bank"].as_str().unwrap());
    let request = request(&json!({"method": "GET", "host": "x", "path": "/search"}));
    let unresolved = routes.resolve(&request).unwrap_err();
    assert_eq!(unresolved.to_string(), "malformed_request: the query argument `q` is missing");
    assert_eq!(unresolved.route.unwrap().action.as_str(), "search.run");
}

/// Not a fact but a figure: `cargo test --release -p signalwarden-core --test routes -- --ignored --nocapture`.
#[test]
#[ignore = "prints a time"]
fn figure_resolve_among_many_routes() {
    for count in [10, 100, 1_000] {
        let mut text = "routes:\n".to_owned();
        for n in 0..count {
            text.push_str(&format!(
                "  - {{match: {{host: 'payments.*', method: POST, path: '/v1/kind{n}/{{account}}/transfers'}}, action: t{n}.create, \
                 resource: {{type: Account, id: '{{account}}'}}, args: {{query: {{dry_run: 'bool?'}}, body: {{amount: long}}}}, \
                 tier: runtime, sensitivity: high}}\n"
            ));
        }
        let begun = Instant::now();
        let routes = load(&text);
        let loaded = begun.elapsed();
        for (what, with_body) in [("without arguments of a body", false), ("with a body", true)] {
            let text = text.replace(", body: {amount: long}", if with_body { ", body: {amount: long}" } else { "" });
            let routes = if with_body { &routes } else { &load(&text) };
            let request = request(&json!({"method": "POST", "host": "payments.prod.example:8443",
                "path": format!("/v1/kind{}/acct-4711/transfers?dry_run=true&x=1", count / 2),
                "headers": {"content-type": "application/json"}, "body": "{\"to\": \"acct-4712\", \"amount\": 120}"}));
            let rounds = 200_000;
            let begun = Instant::now();
            for _ in 0..rounds {
                std::hint::black_box(routes.resolve(std::hint::black_box(&request)).is_ok());
            }
            println!("{count} routes, {what}: {:?} (loaded in {loaded:?})", begun.elapsed() / rounds);
        }
    }
}
