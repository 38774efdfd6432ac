//! Any bytes as the body of a `POST` to an MCP server, and as what Envoy's filter read of it. Nothing panics; what stands
//! for a call of a tool is one to a plain reader of JSON, too, with the same tool and the same arguments.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value as Json;
use signalwarden_core::findings::Findings;
use signalwarden_core::model::{Body, HeaderEntry, Headers, Request};
use signalwarden_core::route::Routes;
use std::sync::LazyLock;

const ROUTES: &str = r#"
routes:
  - match: {host: h, method: POST, path: /mcp, mcp: {method: tools/call, tool: send}}
    action: mcp.send
    resource: {type: Record, id: "{tool.id}"}
    args: {tool: {id: string, rows: {pointer: /limits/rows, type: "long?"}, words: "set?", first: {pointer: /list/0, type: "bool?"}}}
    tier: coarse
    sensitivity: low
  - {match: {host: h, method: POST, path: /mcp, mcp: {method: tools/call}}, action: mcp.any, resource: {type: S, id: s}, tier: coarse, sensitivity: low}
  - {match: {host: h, method: POST, path: /mcp, mcp: {method: tools/list}}, action: mcp.list, resource: {type: S, id: s}, tier: coarse, sensitivity: low}
  - match: {host: h, method: POST, path: /plain}
    action: plain.send
    resource: {type: S, id: s}
    args: {body: {id: string, rows: {pointer: /limits/rows, type: "long?"}}}
    tier: coarse
    sensitivity: low
default: deny
"#;

static TABLE: LazyLock<Routes> = LazyLock::new(|| {
    let mut findings = Findings::default();
    let routes = Routes::load("routes.yaml", ROUTES, &mut findings);
    assert!(!findings.has_errors(), "{findings:?}");
    routes
});

fn request(path: &str, body: Body) -> Request {
    let json = HeaderEntry { name: "content-type".into(), value: "application/json".into(), is_utf8: true };
    Request {
        method: "POST".into(),
        host: "h".into(),
        path: path.into(),
        headers: Headers::new(vec![json]),
        body,
        ..Request::default()
    }
}

fuzz_target!(|bytes: &[u8]| {
    let whole = || Body::Forwarded { bytes: bytes.to_vec(), truncated: false };
    // Text that no route asks for is skipped unread, so a lone surrogate or bytes that are no UTF-8 may stand there: a reader
    // that reads it all has nothing to compare then.
    let Some(plain) = serde_json::from_slice::<Json>(bytes).ok() else {
        for path in ["/mcp", "/plain"] {
            let _ = TABLE.resolve(&request(path, whole()));
        }
        return;
    };
    if let Ok(found) = TABLE.resolve(&request("/mcp", whole())) {
        assert_eq!(plain["jsonrpc"], "2.0");
        match found.route.action.as_str() {
            "mcp.list" => assert_eq!(plain["method"], "tools/list"),
            action => {
                assert_eq!(plain["method"], "tools/call");
                let tool = plain["params"]["name"].as_str().expect("a name");
                assert_eq!(action == "mcp.send", tool == "send");
            }
        }
        if found.route.action.as_str() == "mcp.send" {
            let arguments = &plain["params"]["arguments"];
            assert_eq!(found.args["id"].to_json(), arguments["id"]);
            assert_eq!(*found.resource.id, *arguments["id"].as_str().expect("text"));
            let rows = found.args.get("rows").map(|value| value.to_json());
            assert_eq!(rows.as_ref(), arguments.pointer("/limits/rows"));
        }
    }
    if let Ok(found) = TABLE.resolve(&request("/plain", whole())) {
        assert_eq!(found.args["id"].to_json(), plain["id"]);
    }
    // What Envoy's filter says stands in for a body that was not forwarded; beside one it must not differ.
    let mut told_of = request("/mcp", Body::NotForwarded);
    told_of.metadata.insert("envoy.filters.http.mcp".into(), plain);
    if let Ok(found) = TABLE.resolve(&told_of) {
        assert_ne!(found.route.action.as_str(), "mcp.send", "arguments never come from the filter");
    }
    told_of.body = whole();
    let with = TABLE.resolve(&told_of).map(|found| found.route.action.clone());
    let without = TABLE.resolve(&request("/mcp", whole())).map(|found| found.route.action.clone());
    if let Ok(with) = with {
        assert_eq!(Some(with), without.ok());
    }
});
