//! Facts of the wire, by example and by property: decoding is total and bounded, a request comes back as it went
//! out, and no answer, however hostile its content, breaks one of Envoy's rules.

use super::messages::{self, CheckResponse};
use super::{AllowAnswer, DenyAnswer, Malformed, decode, encode_allow, encode_deny, encode_request, rules};
use crate::decide::Permit;
use crate::limits::{MAX_ANSWER_BODY_BYTES, MAX_CHECK_REQUEST_BYTES, MAX_HEADERS, MAX_PATH_BYTES};
use crate::model::{Body, HeaderEntry, Headers, Peer, Request, Timestamp};
use crate::reason::{GrpcStatus, Reason};
use proptest::prelude::*;
use prost::Message;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

fn header(name: &str, value: &str) -> HeaderEntry {
    HeaderEntry { name: name.to_owned(), value: value.to_owned(), is_utf8: !value.contains('!') }
}

fn everyday() -> Request {
    let peer = |address: &str, principal: &str| Peer {
        address: address.to_owned(),
        principal: principal.to_owned(),
        ..Peer::default()
    };
    Request {
        id: "1234567890".to_owned(),
        time: Timestamp::parse_rfc3339("2026-11-24T10:00:00.123456Z"),
        method: "POST".to_owned(),
        path: "/v1/accounts/42/transfers?dry_run=true".to_owned(),
        host: "payments.prod.example".to_owned(),
        scheme: "https".to_owned(),
        protocol: "HTTP/2".to_owned(),
        size: Some(0),
        headers: Headers::new(vec![
            header(":authority", "payments.prod.example"),
            header(":method", "POST"),
            header(":path", "/v1/accounts/42/transfers?dry_run=true"),
            header(":scheme", "https"),
            header("content-type", "application/json"),
            header("x-task-type", "refund"),
        ]),
        source: peer("10.0.0.7:41234", "spiffe://prod.example/ns/agents/sa/refund"),
        destination: peer("[2001:db8::1]:8443", "spiffe://prod.example/ns/payments/sa/api"),
        ..Request::default()
    }
}

fn message(request: &Request) -> messages::CheckRequest {
    messages::CheckRequest::decode(encode_request(request).as_slice()).unwrap()
}

/// The everyday request after a change to its `http` part.
fn decoded_with(change: impl FnOnce(&mut messages::HttpRequest)) -> Result<Request, Malformed> {
    let mut message = message(&everyday());
    change(message.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap());
    decode(&message.encode_to_vec())
}

fn detail(outcome: Result<Request, Malformed>) -> String {
    outcome.unwrap_err().detail
}

fn raw(key: &str, value: &[u8]) -> messages::HeaderValue {
    messages::HeaderValue { key: key.to_owned(), value: String::new(), raw_value: value.to_vec() }
}

#[test]
fn an_everyday_request_comes_back_as_it_went_out() {
    assert_eq!(decode(&encode_request(&everyday())).unwrap(), everyday());
}

#[test]
fn what_is_not_one_http_request_is_malformed() {
    assert_eq!(detail(decode(b"")), "`attributes` is missing");
    assert_eq!(detail(decode(b"\x0a\x00")), "`attributes.request` is missing");
    assert_eq!(detail(decode(b"\x0a\x02\x22\x00")), "`attributes.request.http` is missing");
    assert_eq!(detail(decode(b"\xff\xff")), "the bytes are not a `CheckRequest`");
    assert!(detail(decode(&vec![0; MAX_CHECK_REQUEST_BYTES + 1])).contains("larger than"));
}

#[test]
fn pseudo_headers_that_disagree_are_two_meanings() {
    assert!(detail(decoded_with(|http| http.path.push('x'))).contains("`:path`"));
    assert!(detail(decoded_with(|http| http.host = "other.example".to_owned())).contains("`:authority`"));
    assert!(detail(decoded_with(|http| http.method = "GET".to_owned())).contains("`:method`"));
    let repeated = decoded_with(|http| {
        http.headers.clear();
        let headers = vec![raw(":path", http.path.as_bytes()), raw(":path", b"/other")];
        http.header_map = Some(messages::HeaderMap { headers });
    });
    assert!(detail(repeated).contains("`:path`"));
    assert!(decoded_with(|http| http.headers.clear()).is_ok(), "pseudo headers may be filtered out");
}

#[test]
fn headers_come_in_one_form_only() {
    let both = decoded_with(|http| http.header_map = Some(messages::HeaderMap { headers: vec![raw("a", b"b")] }));
    assert_eq!(detail(both), "both `headers` and `header_map` are set");
    let empty_list = decoded_with(|http| http.header_map = Some(messages::HeaderMap::default()));
    assert_eq!(empty_list, Ok(everyday()));
    let twice = decoded_with(|http| {
        http.headers.push(messages::HeadersEntry { key: "X-Task-Type".to_owned(), value: "other".to_owned() });
    });
    assert_eq!(detail(twice), "a name occurs twice in `headers`");
    let two_values = decoded_with(|http| {
        http.headers.clear();
        let headers = vec![messages::HeaderValue { value: "b".to_owned(), ..raw("a", b"c") }];
        http.header_map = Some(messages::HeaderMap { headers });
    });
    assert!(detail(two_values).contains("`raw_value`"));
}

#[test]
fn header_values_that_are_not_utf8_are_kept_and_marked() {
    let request = decoded_with(|http| {
        http.headers.clear();
        let headers = vec![raw("X-Raw", b"a\xffb"), raw("x-raw", b"fine!"), raw("x-empty", b"")];
        http.header_map = Some(messages::HeaderMap { headers });
    });
    let headers = request.unwrap().headers;
    let [bad, good] = headers.all("x-raw") else { panic!("two values") };
    assert_eq!((bad.value.as_str(), bad.is_utf8), ("a\u{fffd}b", false));
    assert_eq!((good.value.as_str(), good.is_utf8), ("fine!", true));
    assert_eq!(headers.one("x-empty"), Some(""));
    let marked = decoded_with(|http| {
        http.headers.push(messages::HeadersEntry { key: "x-marked".to_owned(), value: "a!b".to_owned() });
    });
    assert!(!marked.unwrap().headers.all("x-marked")[0].is_utf8);
}

#[test]
fn everything_large_is_bounded() {
    let path = decoded_with(|http| {
        http.headers.clear();
        http.path = "/".repeat(MAX_PATH_BYTES + 1);
    });
    assert!(detail(path).contains("`path` is longer"));
    let entries = |count: usize| {
        decoded_with(|http| {
            let entry = |n: usize| messages::HeadersEntry { key: format!("h{n}"), value: String::new() };
            http.headers = (0..count).map(entry).collect();
        })
    };
    assert!(entries(MAX_HEADERS).is_ok());
    assert!(detail(entries(MAX_HEADERS + 1)).contains("headers"));
    assert!(detail(entries(100_000)).contains("headers"), "counted before they are built");
    let listed = decoded_with(|http| {
        http.headers.clear();
        http.header_map = Some(messages::HeaderMap { headers: vec![messages::HeaderValue::default(); 100_000] });
    });
    assert!(detail(listed).contains("headers"));
    assert!(decoded_with(|http| http.raw_body = vec![b'x'; 1_000_000]).is_ok());
    let nested = |levels: usize| {
        let value = (1..levels).fold(json!(1), |inner, _| json!({"a": inner}));
        let metadata = BTreeMap::from([("ns".to_owned(), json!({"a": value}))]);
        decode(&encode_request(&Request { metadata: metadata.clone(), ..everyday() })).map(|r| r.metadata == metadata)
    };
    assert_eq!(nested(20), Ok(true));
    assert!(nested(33).is_err() && nested(1_000).is_err());
}

#[test]
fn a_body_is_forwarded_only_if_it_came_or_envoy_says_so() {
    let body = |text: &[u8], raw: &[u8], size: i64, partial: Option<&str>| {
        decoded_with(|http| {
            (http.body, http.raw_body, http.size) = (text.to_vec(), raw.to_vec(), size);
            let key = "x-envoy-auth-partial-body".to_owned();
            http.headers.extend(partial.map(|value| messages::HeadersEntry { key, value: value.to_owned() }));
        })
        .map(|request| request.body)
    };
    let forwarded = |bytes: &[u8], truncated| Ok(Body::Forwarded { bytes: bytes.to_vec(), truncated });
    assert_eq!(body(b"", b"", 0, None), Ok(Body::NotForwarded));
    assert_eq!(body(b"", b"", 7, None), Ok(Body::NotForwarded));
    assert_eq!(body(b"", b"", -1, None), Ok(Body::NotForwarded));
    assert_eq!(body(b"", b"", 0, Some("false")), forwarded(b"", false));
    assert_eq!(body(b"", b"", 5, Some("false")), forwarded(b"", true));
    assert_eq!(body(b"abc", b"", 3, Some("false")), forwarded(b"abc", false));
    assert_eq!(body(b"", b"\xff", -1, None), forwarded(b"\xff", false));
    assert_eq!(body(b"\xff", b"", 0, None), forwarded(b"\xff", false));
    assert_eq!(body(b"abc", b"", 4, Some("false")), forwarded(b"abc", true));
    assert_eq!(body(b"abc", b"", 3, Some("true")), forwarded(b"abc", true));
    assert_eq!(body(b"abc", b"", 3, Some("maybe")), forwarded(b"abc", true));
    assert!(body(b"abc", b"abc", 3, None).is_err());
    assert!(body(b"abc", b"", -2, None).is_err());
}

#[test]
fn addresses_are_readable() {
    for address in ["10.0.0.7:41234", "[2001:db8::1]:8443", "/run/envoy.sock", "@abstract", "envoy://inner/7", ""] {
        let source = Peer { address: address.to_owned(), ..Peer::default() };
        let request = Request { source, ..everyday() };
        assert_eq!(decode(&encode_request(&request)).unwrap().source.address, address);
    }
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn allow(answer: &AllowAnswer) -> Result<CheckResponse, String> {
    let bytes = encode_allow(&Permit::for_tests(), answer).map_err(|bad| bad.detail)?;
    rules::check(&bytes).unwrap();
    Ok(CheckResponse::decode(bytes.as_slice()).unwrap())
}

fn deny(answer: &DenyAnswer) -> CheckResponse {
    let bytes = encode_deny(answer);
    rules::check(&bytes).unwrap();
    CheckResponse::decode(bytes.as_slice()).unwrap()
}

fn denial(reason: Reason) -> DenyAnswer {
    DenyAnswer { reason, http_status: None, headers: Vec::new(), body: String::new(), metadata: serde_json::Map::new() }
}

#[test]
fn an_allow_carries_all_that_was_asked_for() {
    let metadata = json!({"signalwarden": {"id": "a", "n": 1.5, "b": true, "none": null, "list": ["x", {"y": 2}]}});
    let answer = AllowAnswer {
        set_headers: pairs(&[("X-Signalwarden-Decision-Id", "1"), ("x-empty", "")]),
        append_headers: pairs(&[("x-more", "m")]),
        remove_headers: vec!["X-Original-URL".to_owned()],
        response_headers: pairs(&[("x-r", "r"), ("set-cookie", "a=1"), ("set-cookie", "b=2")]),
        query_set: pairs(&[("a b", "~ü")]),
        query_remove: vec!["c".to_owned()],
        metadata: metadata.as_object().unwrap().clone(),
    };
    let response = allow(&answer).unwrap();
    let ok = response.ok_response.unwrap();
    assert_eq!(ok.headers[0].header.as_ref().unwrap().key, "x-signalwarden-decision-id");
    assert_eq!((ok.headers[0].append.clone(), ok.headers[0].append_action), (Some(messages::BoolValue::default()), 2));
    assert!(ok.headers[1].keep_empty_value);
    assert_eq!((ok.headers[2].append.clone(), ok.headers[2].append_action), (None, 0));
    assert_eq!(ok.headers_to_remove, ["x-original-url"]);
    assert_eq!(ok.response_headers_to_add.len(), 3);
    assert_eq!(ok.query_parameters_to_set[0].key, "a%20b");
    assert_eq!(ok.query_parameters_to_set[0].value, "%7E%C3%BC");
    // Read back by the decoder's own way of reading metadata.
    let context = messages::Metadata {
        filter_metadata: BTreeMap::from([("ns".to_owned(), response.dynamic_metadata.unwrap())]),
        ..messages::Metadata::default()
    };
    let mut request = message(&everyday());
    request.attributes.as_mut().unwrap().metadata_context = Some(context);
    assert_eq!(decode(&request.encode_to_vec()).unwrap().metadata["ns"], metadata);
}

#[test]
fn an_allow_that_breaks_a_rule_does_not_leave() {
    let set = |name: &str, value: &str| AllowAnswer { set_headers: pairs(&[(name, value)]), ..AllowAnswer::default() };
    for (name, value) in [
        ("", "v"),
        ("in valid", "v"),
        (":path", "/"),
        ("host", "h"),
        ("Content-Length", "0"),
        ("ü", "v"),
        ("x", "a\rb"),
        ("x", "a\nb"),
        ("x", "a\0b"),
        ("x", " a"),
        ("x", "a\u{7f}"),
    ] {
        assert!(allow(&set(name, value)).is_err(), "{name:?}: {value:?}");
    }
    assert!(allow(&AllowAnswer { remove_headers: vec!["X-A".to_owned()], ..set("x-a", "v") }).is_err());
    assert!(allow(&AllowAnswer { append_headers: pairs(&[("X-A", "w")]), ..set("x-a", "v") }).is_err());
    let append = pairs(&[("x-signalwarden-principal", "v")]);
    assert!(allow(&AllowAnswer { append_headers: append, ..AllowAnswer::default() }).is_err());
    for query_set in [pairs(&[("", "v")]), pairs(&[("a", "1"), ("a", "2")])] {
        assert!(allow(&AllowAnswer { query_set, ..AllowAnswer::default() }).is_err());
    }
    let many = AllowAnswer { set_headers: (0..40).map(|n| (format!("h{n}"), String::new())).collect(), ..set("x", "") };
    assert!(allow(&many).is_err());
    assert!(allow(&set("x", &"v".repeat(20_000))).is_err());
    for metadata in [json!({"ext_authz_duration": 1}), json!({"a": "x".repeat(20_000)}), deep(12)] {
        let metadata = metadata.as_object().unwrap().clone();
        assert!(allow(&AllowAnswer { metadata, ..AllowAnswer::default() }).is_err());
    }
}

fn deep(levels: usize) -> Json {
    (1..levels).fold(json!({}), |inner, _| json!({"a": inner}))
}

#[test]
fn every_reason_leaves_as_a_deny_with_its_own_status() {
    for reason in Reason::ALL {
        let response = deny(&denial(*reason));
        let expected = if *reason == Reason::Allowed { Reason::EngineError } else { *reason };
        assert_eq!(response.status.unwrap().code, expected.grpc_status() as i32);
        assert_eq!(response.denied_response.unwrap().status.unwrap().code, i32::from(expected.http_status()));
    }
}

#[test]
fn a_deny_takes_only_a_status_that_denies() {
    let status = |asked| {
        let answer = DenyAnswer { http_status: Some(asked), ..denial(Reason::PolicyDenied) };
        deny(&answer).denied_response.unwrap().status.unwrap().code
    };
    for (asked, given) in [(0, 403), (100, 403), (200, 403), (299, 403), (302, 302), (404, 404), (599, 599), (600, 403)]
    {
        assert_eq!(status(asked), given);
    }
}

#[test]
fn a_deny_leaves_without_what_is_not_valid() {
    let metadata = json!({"ext_authz_duration": 1, "decision_id": "d", "big": "x".repeat(20_000), "deep": deep(12)});
    let answer = DenyAnswer {
        headers: pairs(&[
            ("bad name", "v"),
            ("host:", "v"),
            ("content-length", "7"),
            ("x-a", " one\r\ntwo "),
            ("X-A", "again"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("x-long", &"v".repeat(20_000)),
        ]),
        body: "ü".repeat(MAX_ANSWER_BODY_BYTES),
        metadata: metadata.as_object().unwrap().clone(),
        ..denial(Reason::PolicyDenied)
    };
    let response = deny(&answer);
    let denied = response.denied_response.unwrap();
    let headers: Vec<_> = denied.headers.into_iter().map(|option| option.header.unwrap()).collect();
    let left: Vec<_> = headers.iter().map(|header| (header.key.as_str(), header.value.as_str())).collect();
    assert_eq!(left, [("x-a", "one  two"), ("set-cookie", "a=1"), ("set-cookie", "b=2")]);
    assert_eq!(denied.body.len(), MAX_ANSWER_BODY_BYTES);
    let fields = response.dynamic_metadata.unwrap().fields;
    assert_eq!(fields.keys().collect::<Vec<_>>(), ["decision_id"]);
}

#[test]
fn the_checker_names_what_envoy_would_misread() {
    let status = |code| Some(messages::RpcStatus { code, message: String::new() });
    let denied = |code| {
        let status = Some(messages::HttpStatus { code });
        Some(messages::DeniedHttpResponse { status, ..messages::DeniedHttpResponse::default() })
    };
    let option = |key: &str, value: &str, append: Option<bool>, append_action| messages::HeaderValueOption {
        header: Some(messages::HeaderValue { value: value.to_owned(), ..raw(key, b"") }),
        append: append.map(|value| messages::BoolValue { value }),
        append_action,
        keep_empty_value: false,
    };
    let ok = |headers: Vec<_>| CheckResponse {
        status: status(0),
        ok_response: Some(messages::OkHttpResponse { headers, ..messages::OkHttpResponse::default() }),
        ..CheckResponse::default()
    };
    let query = |key: &str, value: &str| CheckResponse {
        ok_response: Some(messages::OkHttpResponse {
            query_parameters_to_set: vec![messages::QueryParameter { key: key.to_owned(), value: value.to_owned() }],
            ..messages::OkHttpResponse::default()
        }),
        ..ok(vec![])
    };
    let deny = |code, http| CheckResponse { status: status(code), denied_response: denied(http), ..Default::default() };
    let cases = [
        ("empty-response-is-allow", CheckResponse::default()),
        ("ok-status-with-denied_response", deny(0, 403)),
        ("denied-status-with-ok_response", CheckResponse { status: status(7), ..ok(vec![]) }),
        ("denied-status-any-code", deny(99, 403)),
        ("denied-http-status-unchecked", deny(7, 0)),
        ("denied-http-status-unchecked", deny(7, 200)),
        ("denied-http-status-unchecked", deny(7, 100)),
        ("error_response", CheckResponse { error_response: denied(503), ..deny(14, 503) }),
        ("append-bool-wins", ok(vec![option("x", "v", Some(true), 0)])),
        ("append-bool-wins", ok(vec![option("x", "v", Some(false), 1)])),
        ("append-true-existing-header", ok(vec![option("x-signalwarden-principal", "v", None, 0)])),
        ("append_action-enum-invalid", ok(vec![option("x", "v", None, 99)])),
        ("validate-header-name", ok(vec![option("in valid\n", "x", Some(false), 2)])),
        ("validate-header-value", ok(vec![option("x", "a\nb", Some(false), 2)])),
        ("query-set-not-urlencoded", query("foo", "b a r")),
        ("query-set-not-urlencoded", query("100%", "1")),
    ];
    for (rule, answer) in cases {
        let broken = rules::check(&answer.encode_to_vec()).unwrap_err();
        assert!(broken.iter().any(|line| line.starts_with(&format!("{rule}: "))), "{rule}: {broken:?}");
    }
    assert!(rules::check(b"\xff").is_err());
    assert_eq!(rules::check(&ok(vec![option("x", "v", Some(false), 2)]).encode_to_vec()), Ok(()));
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z0-9/._-]{0,24}",
        "[ -~]{0,24}",
        any::<String>(),
        Just("a\r\nx-evil: 1".to_owned()),
        Just("x-signalwarden-principal".to_owned()),
        Just("Host".to_owned()),
        Just("set-cookie".to_owned()),
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![8 => "[a-zA-Z][a-zA-Z0-9-]{0,12}", 1 => text()]
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        (-9_000_000_000_000_i64..9_000_000_000_000).prop_map(Json::from),
        (-1.0e9..1.0e9_f64).prop_map(|n| if n.fract() == 0.0 { Json::Null } else { Json::from(n) }),
        text().prop_map(Json::from),
    ];
    leaf.prop_recursive(5, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::btree_map(text(), inner, 0..4).prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    })
}

fn object() -> impl Strategy<Value = Json> {
    prop::collection::btree_map(text(), any_json(), 0..4).prop_map(|map| Json::Object(map.into_iter().collect()))
}

fn any_peer() -> impl Strategy<Value = Peer> {
    let address = prop_oneof![
        Just(String::new()),
        any::<(std::net::IpAddr, u16)>().prop_map(|(ip, port)| std::net::SocketAddr::new(ip, port).to_string()),
        "/[a-z/]{1,12}",
    ];
    let labels = prop::collection::btree_map(text(), text(), 0..3);
    (address, text(), text(), labels, text()).prop_map(|(address, principal, service, labels, certificate)| Peer {
        address,
        principal,
        service,
        labels,
        certificate,
    })
}

prop_compose! {
    fn any_request()(
        (method, path, host, scheme, protocol) in (text(), text(), text(), text(), text()),
        (id, sni, size) in (text(), text(), prop::option::of(0..u64::from(u32::MAX))),
        micros in prop::option::of(0..253_402_300_799_000_000_i64),
        names in prop::collection::vec(("[a-z][a-z0-9-]{0,3}", text()), 0..12),
        pseudo in any::<bool>(),
        body in prop::option::of((prop::collection::vec(any::<u8>(), 0..64), any::<bool>())),
        extensions in prop::collection::btree_map(text(), text(), 0..4),
        metadata in prop::collection::btree_map(text(), object(), 0..3),
        route_metadata in prop::collection::btree_map(text(), object(), 0..3),
        (source, destination) in (any_peer(), any_peer()),
    ) -> Request {
        let mut names = names;
        if pseudo {
            names.extend(pairs(&[(":path", &path), (":method", &method), (":authority", &host)]));
        }
        let (body, size) = match body {
            None => (Body::NotForwarded, size),
            Some((bytes, truncated)) => {
                names.push(("x-envoy-auth-partial-body".to_owned(), truncated.to_string()));
                let size = bytes.len() as u64;
                (Body::Forwarded { bytes, truncated }, Some(size))
            }
        };
        let entry = |(name, value): (String, String)| HeaderEntry { name, value, is_utf8: true };
        let mut entries: Vec<_> = names.into_iter().map(entry).collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        // An empty value carries no mark in either form.
        let headers = Headers::new(entries);
        Request {
            id, time: micros.map(Timestamp::from_micros), method, path, host, scheme, protocol, size, headers, body,
            extensions, metadata, route_metadata, source, destination, sni,
        }
    }
}

fn any_allow() -> impl Strategy<Value = AllowAnswer> {
    let pair = || prop::collection::vec((name(), text()), 0..4);
    let metadata = object().prop_map(|json| json.as_object().cloned().unwrap_or_default());
    let names = prop::collection::vec(name(), 0..4);
    (pair(), pair(), names, pair(), pair(), prop::collection::vec(text(), 0..3), metadata).prop_map(
        |(set_headers, append_headers, remove_headers, response_headers, query_set, query_remove, metadata)| {
            AllowAnswer {
                set_headers,
                append_headers,
                remove_headers,
                response_headers,
                query_set,
                query_remove,
                metadata,
            }
        },
    )
}

#[test]
fn a_header_may_be_added_to_twice_but_is_set_once() {
    let twice = AllowAnswer { append_headers: pairs(&[("X-A", "v"), ("x-a", "w")]), ..AllowAnswer::default() };
    assert!(allow(&twice).is_ok(), "what is added piles up");
    let set = AllowAnswer { set_headers: pairs(&[("x-a", "v"), ("X-A", "w")]), ..AllowAnswer::default() };
    assert!(allow(&set).is_err(), "of two that are set one would be lost");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn decoding_never_panics_on_bytes(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let _ = decode(&bytes);
        let _ = rules::check(&bytes);
    }

    #[test]
    fn decoding_never_panics_on_mutated_requests(
        request in any_request(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encode_request(&request);
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = decode(&bytes);
        let _ = decode(&bytes[..cut.index(bytes.len())]);
    }

    #[test]
    fn a_request_comes_back_as_it_went_out(request in any_request()) {
        prop_assert_eq!(decode(&encode_request(&request)), Ok(request));
    }

    #[test]
    fn no_allow_that_leaves_breaks_a_rule(answer in any_allow()) {
        if let Ok(bytes) = encode_allow(&Permit::for_tests(), &answer) {
            prop_assert_eq!(rules::check(&bytes), Ok(()));
            let response = CheckResponse::decode(bytes.as_slice()).unwrap();
            prop_assert_eq!(response.status.unwrap().code, GrpcStatus::Ok as i32);
        }
    }

    #[test]
    fn every_deny_leaves_and_is_a_deny(
        reason in prop::sample::select(Reason::ALL),
        http_status in prop::option::of(any::<u16>()),
        headers in prop::collection::vec((name(), text()), 0..50),
        body in text(),
        metadata in object(),
    ) {
        let metadata = metadata.as_object().cloned().unwrap_or_default();
        let bytes = encode_deny(&DenyAnswer { reason, http_status, headers, body, metadata });
        prop_assert_eq!(rules::check(&bytes), Ok(()));
        prop_assert_ne!(CheckResponse::decode(bytes.as_slice()).unwrap().status.unwrap().code, 0);
    }
}
