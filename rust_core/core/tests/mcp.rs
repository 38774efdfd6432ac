//! Messages of MCP against their vectors: `tests/vectors/mcp.json`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};
use signalwarden_core::{
    findings::Findings,
    model::{Body, HeaderEntry, Headers, Request},
    reason::Reason,
    route::Routes,
};

fn vectors() -> Json {
    let path = format!("{}/../../tests/vectors/mcp.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(&path).expect(&path)).unwrap()
}

fn load(text: &str) -> (Routes, Findings) {
    let mut findings = Findings::default();
    let routes = Routes::load("routes.yaml", text, &mut findings);
    (routes, findings)
}

fn request(json: &Json) -> Request {
    let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
    let header = |(name, value): (&String, &Json)| HeaderEntry {
        name: name.clone(),
        value: value.as_str().unwrap().to_owned(),
        is_utf8: true,
    };
    let truncated = json["truncated"] == true;
    Request {
        method: text("method"),
        host: text("host"),
        path: text("path"),
        protocol: text("protocol"),
        headers: Headers::new(json["headers"].as_object().unwrap().iter().map(header).collect()),
        body: json["body"]
            .as_str()
            .map_or(Body::NotForwarded, |body| Body::Forwarded { bytes: body.as_bytes().to_vec(), truncated }),
        metadata: json["metadata"].as_object().map(|all| all.clone().into_iter().collect()).unwrap_or_default(),
        ..Request::default()
    }
}

fn resolved(routes: &Routes, request: &Request) -> (Json, String) {
    match routes.resolve(request) {
        Ok(found) => {
            let args: Map<String, Json> = found.args.iter().map(|(k, v)| (k.to_string(), v.to_json())).collect();
            let got =
                json!({"action": found.route.action.as_str(), "resource": found.resource.to_string(), "args": args});
            (got, String::new())
        }
        Err(unresolved) => (json!({"reason": unresolved.reason.code()}), unresolved.detail),
    }
}

#[test]
fn every_message_stands_for_what_its_vector_says() {
    let vectors = vectors();
    let mut wrong = Vec::new();
    for case in vectors["cases"].as_array().unwrap() {
        let (routes, findings) = load(vectors["tables"][case["routes"].as_str().unwrap()].as_str().unwrap());
        assert!(findings.as_slice().is_empty(), "{findings:?}");
        let (got, detail) = resolved(&routes, &request(&case["request"]));
        if got != case["expect"] {
            wrong.push(format!("{}: {got}, expected {} ({detail})", case["name"], case["expect"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_is_judged_as_its_vector_says() {
    let mut wrong = Vec::new();
    for case in vectors()["loads"].as_array().unwrap() {
        let (_, findings) = load(case["yaml"].as_str().unwrap());
        let found = findings.into_sorted();
        let expected = case["findings"].as_array().unwrap();
        let is_there = |wanted: &Json| {
            found.iter().any(|finding| {
                wanted["code"] == finding.code
                    && wanted["line"] == finding.place.line
                    && finding.message.contains(wanted["says"].as_str().unwrap())
            })
        };
        if found.len() != expected.len() || !expected.iter().all(is_there) {
            let said: Vec<_> = found.iter().map(|finding| format!("  {finding} [{}]", finding.code)).collect();
            wrong.push(format!("{}: expected {}, found\n{}", case["name"], case["findings"], said.join("\n")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn tools_beside_a_list_are_those_of_its_host_and_path() {
    let vectors = vectors();
    let more = "  - match: {host: other, path: /mcp, mcp: {method: tools/call, tool: elsewhere}}\n    action: e\n    \
                resource: {type: Tool, id: x}\n    tier: coarse\n    sensitivity: low\n";
    let text = vectors["tables"]["tools"].as_str().unwrap().replace("default: deny\n", more);
    let (routes, findings) = load(&text);
    assert!(findings.as_slice().is_empty(), "{findings:?}");
    let list = routes.all().iter().find(|route| route.lists_tools()).unwrap();
    assert_eq!(list.describe_match(), "POST */mcp (mcp tools/list)");
    let beside: Vec<&str> = routes.tools_beside(list).map(|(tool, _)| tool).collect();
    assert_eq!(beside, ["export_record"]);
}

/// What a reader that takes the first of two keys, and one that takes the last, would call.
fn readings(text: &str) -> Option<(Json, Json)> {
    let last: Json = serde_json::from_str(text).ok()?;
    Some((last["method"].clone(), last["params"]["name"].clone()))
}

proptest! {
    #[test]
    fn whatever_is_let_through_is_what_a_plain_reader_reads(
        keys in prop::collection::vec(
            prop::sample::select(vec![
                r#""jsonrpc":"2.0""#, r#""id":1"#, r#""method":"tools/call""#, r#""method":"tools/list""#,
                r#""params":{"name":"read_note"}"#, r#""params":{"name":"read_note","name":"x"}"#,
                r#""params":{"name":"other","arguments":{"name":"read_note"}}"#, r#""result":1"#, r#""x":{"method":"y"}"#,
                r#""METHOD":"tools/list""#, r#""params":[]"#,
            ]),
            0..7,
        ),
        tail in prop::sample::select(vec!["", " ", "{}", "]", "\u{0}"]),
    ) {
        let (routes, _) = load(vectors()["tables"]["strict"].as_str().unwrap());
        let body = format!("{{{}}}{tail}", keys.join(","));
        let asked = request(&json!({
            "method": "POST", "host": "a", "path": "/mcp", "protocol": "HTTP/2",
            "headers": {"content-type": "application/json"}, "body": body,
        }));
        match routes.resolve(&asked) {
            Ok(_) => prop_assert_eq!(readings(&body), Some((json!("tools/call"), json!("read_note")))),
            Err(unresolved) if unresolved.reason == Reason::RouteUnknown => {
                let (method, name) = readings(&body).expect("what is no json has no route because it is malformed");
                prop_assert!(method != "tools/call" || name != "read_note");
            }
            Err(unresolved) => prop_assert_eq!(unresolved.reason, Reason::MalformedRequest),
        }
    }
}
