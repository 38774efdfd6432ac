//! What OPA's Envoy plugin makes of a request, case by case (`tests/vectors/opa_envoy/bodies.json`).

use super::*;
use crate::wire::messages::{Address, AddressKind, AttributeContext, CheckRequest, HeaderMap, HeaderValue};
use crate::wire::messages::{HeadersEntry, HttpRequest, Metadata, Peer, Port, Request, SocketAddress, TlsSession};
use prost::Message;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
    ServiceDescriptorProto, Struct, Timestamp, field_descriptor_proto::Type, value::Kind,
};

fn cases(section: &str) -> Vec<Json> {
    let all: Json = serde_json::from_str(include_str!("../../../../../tests/vectors/opa_envoy/bodies.json")).unwrap();
    all[section].as_array().unwrap().clone()
}

/// The input of a request that a case describes.
fn input(case: &Json, headers: &Json, descriptors: Option<&Descriptors>) -> Result<Json, Malformed> {
    let text = |key: &str| case[key].as_str().unwrap_or_default();
    let entries = headers
        .as_object()
        .unwrap()
        .iter()
        .map(|(key, value)| HeadersEntry { key: key.clone(), value: value.as_str().unwrap().to_owned() });
    let http = HttpRequest {
        path: text("path").to_owned(),
        headers: entries.collect(),
        body: text("body").as_bytes().to_vec(),
        raw_body: STANDARD.decode(text("raw")).unwrap(),
        ..HttpRequest::default()
    };
    whole_request(&bytes(http), descriptors)
}

fn bytes(http: HttpRequest) -> Vec<u8> {
    let request = Some(Request { time: None, http: Some(http) });
    CheckRequest { attributes: Some(AttributeContext { request, ..AttributeContext::default() }) }.encode_to_vec()
}

fn compare(case: &Json, input: Result<Json, Malformed>) {
    let said = case["name"].as_str().or(case["path"].as_str()).unwrap();
    if case["error"] == Json::Bool(true) {
        assert!(input.is_err(), "{said}: {input:?}");
        return;
    }
    let input = input.unwrap_or_else(|why| panic!("{said}: {why}"));
    for (key, wanted) in [
        ("parsed_body", &case["parsed"]),
        ("parsed_path", &case["parsed_path"]),
        ("parsed_query", &case["parsed_query"]),
    ] {
        if key == "parsed_body" || !wanted.is_null() {
            assert_eq!(&input[key], wanted, "{said}: {key}");
        }
    }
    assert_eq!(input["truncated_body"], Json::Bool(case["truncated"] == Json::Bool(true)), "{said}");
}

#[test]
fn bodies_are_parsed_as_the_plugin_parses_them() {
    for case in cases("cases") {
        compare(&case, input(&case, &case["headers"], None));
    }
}

#[test]
fn paths_and_queries_are_parsed_as_the_plugin_parses_them() {
    for case in cases("paths") {
        compare(&case, input(&case, &json!({}), None));
    }
}

#[test]
fn bodies_of_grpc_are_parsed_by_their_descriptors() {
    let descriptors = Descriptors::load(&descriptor_set()).unwrap();
    assert_eq!(descriptors.services(), 2);
    assert_eq!(descriptors.client_streams(), ["/com.book.BookService/GetGreatestBook"]);
    for case in cases("grpc") {
        compare(&case, input(&case, &json!({"content-type": "application/grpc+proto"}), Some(&descriptors)));
    }
    assert!(Descriptors::load(b"no descriptors").is_err());
}

/// The two services of the plugin's own tests, and what its JSON makes of numbers, enums, bytes and times.
fn descriptor_set() -> Vec<u8> {
    let field = |name: &str, number, kind: Type, of: Option<&str>| FieldDescriptorProto {
        name: Some(name.to_owned()),
        json_name: Some(name.to_owned()),
        number: Some(number),
        label: Some(1),
        r#type: Some(kind as i32),
        type_name: of.map(str::to_owned),
        ..FieldDescriptorProto::default()
    };
    let message = |name: &str, field: Vec<FieldDescriptorProto>| DescriptorProto {
        name: Some(name.to_owned()),
        field,
        ..DescriptorProto::default()
    };
    let method = |name: &str, input: &str, streams| MethodDescriptorProto {
        name: Some(name.to_owned()),
        input_type: Some(input.to_owned()),
        output_type: Some(input.to_owned()),
        client_streaming: Some(streams),
        ..MethodDescriptorProto::default()
    };
    let file = |name: &str, package: &str, message_type, service: &str, method| FileDescriptorProto {
        name: Some(name.to_owned()),
        package: Some(package.to_owned()),
        syntax: Some("proto3".to_owned()),
        message_type,
        service: vec![ServiceDescriptorProto { name: Some(service.to_owned()), method, ..Default::default() }],
        ..FileDescriptorProto::default()
    };
    // Wrapped texts are written as texts.
    let wrapped = Some(".google.protobuf.StringValue");
    let texts = |first: &str, second: &str| {
        vec![field(first, 1, Type::Message, wrapped), field(second, 2, Type::Message, wrapped)]
    };
    let mut example = file(
        "example.proto",
        "Example.Test.GRPC",
        vec![
            message("Metadata", texts("SeverityText", "SeverityNumber")),
            message("Data", texts("Body", "Name")),
            message(
                "Example",
                vec![
                    field("Metadata", 1, Type::Message, Some(".Example.Test.GRPC.Metadata")),
                    field("Data", 2, Type::Message, Some(".Example.Test.GRPC.Data")),
                ],
            ),
        ],
        "ProtoServiceIExampleApplication",
        vec![method("RegisterExample", ".Example.Test.GRPC.Example", false)],
    );
    example.dependency.push("google/protobuf/wrappers.proto".to_owned());
    let wrappers = FileDescriptorProto {
        name: Some("google/protobuf/wrappers.proto".to_owned()),
        package: Some("google.protobuf".to_owned()),
        syntax: Some("proto3".to_owned()),
        message_type: vec![message("StringValue", vec![field("value", 1, Type::String, None)])],
        ..FileDescriptorProto::default()
    };
    let book = file(
        "book.proto",
        "com.book",
        vec![message("Query", vec![field("author", 1, Type::String, None)])],
        "BookService",
        vec![method("GetBooksViaAuthor", ".com.book.Query", false), method("GetGreatestBook", ".com.book.Query", true)],
    );
    FileDescriptorSet { file: vec![wrappers, example, book] }.encode_to_vec()
}

#[test]
fn attributes_have_the_names_of_protobufs_json_and_leave_defaults_out() {
    let socket = |address: &str, port| {
        let port = Some(Port::Number(port));
        let socket = SocketAddress { address: address.to_owned(), port, ..SocketAddress::default() };
        Some(Address { kind: Some(AddressKind::Socket(socket)) })
    };
    let number = |value| prost_types::Value { kind: Some(Kind::NumberValue(value)) };
    let fields = Struct { fields: [("count".to_owned(), number(1.0)), ("half".to_owned(), number(0.5))].into() };
    let any = prost_types::Any { type_url: "type.googleapis.com/a.B".to_owned(), value: vec![1, 2] };
    let attributes = AttributeContext {
        source: Some(Peer {
            address: socket("172.17.0.10", 36472),
            service: "dummy".to_owned(),
            labels: [("foo".to_owned(), "bar".to_owned())].into(),
            principal: "spiffe://prod.example/a".to_owned(),
            certificate: String::new(),
        }),
        destination: Some(Peer { address: socket("::1", 0), ..Peer::default() }),
        request: Some(Request {
            time: Some(Timestamp { seconds: 1_606_902_522, nanos: 118_723_000 }),
            http: Some(HttpRequest {
                id: "13359530607844510314".to_owned(),
                method: "GET".to_owned(),
                headers: vec![HeadersEntry { key: ":path".to_owned(), value: "/api?a=b".to_owned() }],
                path: "/api?a=b".to_owned(),
                host: "h:1".to_owned(),
                scheme: "http".to_owned(),
                size: -1,
                protocol: "HTTP/1.1".to_owned(),
                raw_body: vec![0xff, 0xfe],
                ..HttpRequest::default()
            }),
        }),
        context_extensions: [("hello".to_owned(), "world".to_owned())].into(),
        metadata_context: Some(Metadata {
            filter_metadata: [("dummy".to_owned(), fields)].into(),
            typed_filter_metadata: [("typed".to_owned(), any)].into(),
        }),
        route_metadata_context: Some(Metadata::default()),
        tls_session: Some(TlsSession { sni: "h".to_owned() }),
    };
    let input = whole_request(&CheckRequest { attributes: Some(attributes) }.encode_to_vec(), None).unwrap();
    let wanted = json!({
        "attributes": {
            "source": {
                "address": {"socketAddress": {"address": "172.17.0.10", "portValue": 36472}},
                "service": "dummy", "labels": {"foo": "bar"}, "principal": "spiffe://prod.example/a",
            },
            "destination": {"address": {"socketAddress": {"address": "::1", "portValue": 0}}},
            "request": {
                "time": {"seconds": 1_606_902_522, "nanos": 118_723_000},
                "http": {
                    "id": "13359530607844510314", "method": "GET", "headers": {":path": "/api?a=b"}, "path": "/api?a=b",
                    "host": "h:1", "scheme": "http", "size": -1, "protocol": "HTTP/1.1", "rawBody": "//4=",
                },
            },
            "contextExtensions": {"hello": "world"},
            "metadataContext": {
                "filterMetadata": {"dummy": {"count": 1, "half": 0.5}},
                "typedFilterMetadata": {"typed": {"typeUrl": "type.googleapis.com/a.B", "value": "AQI="}},
            },
            "routeMetadataContext": {},
            "tlsSession": {"sni": "h"},
        },
        "parsed_path": ["api"], "parsed_query": {"a": ["b"]}, "parsed_body": null, "truncated_body": false,
        "source_principal": "spiffe://prod.example/a",
        "version": {"encoding": "protojson", "ext_authz": "v3"},
    });
    assert_eq!(input, wanted);
}

#[test]
fn headers_are_there_in_whichever_form_they_came() {
    let header =
        |key: &str, raw: &[u8]| HeaderValue { key: key.to_owned(), value: String::new(), raw_value: raw.to_vec() };
    let headers = vec![header("X-A", b"1"), header("x-a", b"2"), header("content-type", b"application/json")];
    let header_map = Some(HeaderMap { headers });
    let http = HttpRequest { header_map, body: b"[]".to_vec(), ..HttpRequest::default() };
    let input = whole_request(&bytes(http), None).unwrap();
    let http = &input["attributes"]["request"]["http"];
    assert_eq!(http["headers"], json!({"x-a": "1,2", "content-type": "application/json"}));
    assert_eq!(http["headerMap"]["headers"][0], json!({"key": "X-A", "rawValue": "MQ=="}));
    assert_eq!(input["parsed_body"], json!([]));
}

#[test]
fn what_is_too_much_is_refused_and_says_so() {
    let headers = |kind: &str| json!({"content-type": kind});
    let json_of = |body: String| json!({"body": body});
    let form = "application/x-www-form-urlencoded";
    let cases = [
        (headers("application/json"), "[".repeat(200), "no JSON"),
        (headers("application/json"), format!("{}{}", "[".repeat(61), "]".repeat(61)), "deeper than"),
        (
            headers("application/json"),
            format!("\"{}\"", "a".repeat(crate::limits::MAX_PARSED_BODY_BYTES)),
            "longer than",
        ),
        (headers(form), "a&".repeat(crate::limits::MAX_FORM_PAIRS + 1), "more than"),
        (
            headers("multipart/form-data; boundary=b"),
            format!("{}--b--", "--b\r\n\r\n\r\n".repeat(crate::limits::MAX_FORM_PARTS + 1)),
            "more than",
        ),
    ];
    for (headers, body, why) in cases {
        let refused = input(&json_of(body), &headers, None).unwrap_err();
        assert!(refused.detail.contains(why), "{refused}");
    }
    let mut http = HttpRequest { body: vec![0xff], ..HttpRequest::default() };
    assert!(whole_request(&bytes(http.clone()), None).unwrap_err().detail.contains("UTF-8"));
    http.body.clear();
    assert!(whole_request(&bytes(http), None).is_ok());
    assert!(whole_request(b"\xff", None).is_err());
    assert!(whole_request(b"", None).is_ok());
}
