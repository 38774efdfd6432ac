//! [`Request`] to the bytes of a `CheckRequest`, as Envoy writes them: for tests, measurements and simulations.
//! No answer passes through here.

use super::messages;
use crate::model::{Body, HeaderEntry, Peer, Request};
use prost::Message;
use prost_types::value::Kind;
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// The bytes that [`super::decode`] reads as `request`. Headers travel in `headers` where that form can carry
/// them, else in `header_map`; the body in `raw_body`.
pub fn encode_request(request: &Request) -> Vec<u8> {
    let (body, truncated) = match &request.body {
        Body::NotForwarded => (Vec::new(), None),
        Body::Forwarded { bytes, truncated } => (bytes.clone(), Some(*truncated)),
    };
    let mut entries: Vec<HeaderEntry> = request.headers.iter().cloned().collect();
    let partial = "x-envoy-auth-partial-body";
    if let Some(truncated) = truncated
        && !entries.iter().any(|entry| entry.name == partial)
    {
        let entry = HeaderEntry { name: partial.to_owned(), value: truncated.to_string(), is_utf8: true };
        entries.push(entry);
    }
    let (headers, header_map) = headers(entries);
    let http = messages::HttpRequest {
        id: request.id.clone(),
        method: request.method.clone(),
        headers,
        path: request.path.clone(),
        host: request.host.clone(),
        scheme: request.scheme.clone(),
        size: request.size.map_or(-1, |size| i64::try_from(size).unwrap_or(i64::MAX)),
        protocol: request.protocol.clone(),
        body: Vec::new(),
        raw_body: body,
        header_map,
        ..messages::HttpRequest::default()
    };
    let time = request.time.map(|time| prost_types::Timestamp {
        seconds: time.as_micros().div_euclid(1_000_000),
        nanos: i32::try_from(time.as_micros().rem_euclid(1_000_000) * 1_000).unwrap_or(0),
    });
    let attributes = messages::AttributeContext {
        source: Some(peer(&request.source)),
        destination: Some(peer(&request.destination)),
        request: Some(messages::Request { time, http: Some(http) }),
        context_extensions: request.extensions.clone(),
        metadata_context: metadata(&request.metadata),
        tls_session: (!request.sni.is_empty()).then(|| messages::TlsSession { sni: request.sni.clone() }),
        route_metadata_context: metadata(&request.route_metadata),
    };
    messages::CheckRequest { attributes: Some(attributes) }.encode_to_vec()
}

fn headers(mut entries: Vec<HeaderEntry>) -> (Vec<messages::HeadersEntry>, Option<messages::HeaderMap>) {
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let unique = entries.iter().zip(entries.iter().skip(1)).all(|(one, next)| one.name != next.name);
    if unique && entries.iter().all(|entry| entry.is_utf8 != entry.value.contains('!')) {
        let map =
            entries.into_iter().map(|entry| messages::HeadersEntry { key: entry.name, value: entry.value }).collect();
        return (map, None);
    }
    let headers = entries.into_iter().map(|entry| messages::HeaderValue {
        key: entry.name,
        value: String::new(),
        raw_value: entry.value.into_bytes(),
    });
    (Vec::new(), Some(messages::HeaderMap { headers: headers.collect() }))
}

fn peer(peer: &Peer) -> messages::Peer {
    let kind = (!peer.address.is_empty()).then(|| address(&peer.address));
    messages::Peer {
        address: kind.map(|kind| messages::Address { kind: Some(kind) }),
        service: peer.service.clone(),
        labels: peer.labels.clone(),
        principal: peer.principal.clone(),
        certificate: peer.certificate.clone(),
    }
}

fn address(text: &str) -> messages::AddressKind {
    if let Some((listener, endpoint)) = text.strip_prefix("envoy://").and_then(|rest| rest.split_once('/')) {
        let (server_listener_name, endpoint_id) = (listener.to_owned(), endpoint.to_owned());
        return messages::AddressKind::Internal(messages::InternalAddress { server_listener_name, endpoint_id });
    }
    let socket = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u32>().ok()?)));
    let Some((host, port)) = socket else {
        return messages::AddressKind::Pipe(messages::Pipe { path: text.to_owned(), mode: 0 });
    };
    let address = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = Some(messages::Port::Number(port));
    messages::AddressKind::Socket(messages::SocketAddress { address, port, ..messages::SocketAddress::default() })
}

fn metadata(namespaces: &BTreeMap<String, Json>) -> Option<messages::Metadata> {
    let filter_metadata: BTreeMap<_, _> = namespaces
        .iter()
        .filter_map(|(name, value)| match value {
            Json::Object(fields) => Some((name.clone(), object(fields))),
            _ => None,
        })
        .collect();
    (!filter_metadata.is_empty()).then_some(messages::Metadata { filter_metadata, ..messages::Metadata::default() })
}

fn object(fields: &serde_json::Map<String, Json>) -> prost_types::Struct {
    prost_types::Struct { fields: fields.iter().map(|(name, value)| (name.clone(), json(value))).collect() }
}

fn json(value: &Json) -> prost_types::Value {
    let kind = match value {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(*value),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Json::String(text) => Kind::StringValue(text.clone()),
        Json::Array(values) => Kind::ListValue(prost_types::ListValue { values: values.iter().map(json).collect() }),
        Json::Object(fields) => Kind::StructValue(object(fields)),
    };
    prost_types::Value { kind: Some(kind) }
}
