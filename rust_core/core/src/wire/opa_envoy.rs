//! The request as a whole, as OPA's Envoy plugin shows it to its policies: `input.attributes…`, `input.parsed_path` and
//! so on. What is here is outside the register (I1 is suspended), so only the compatibility mode of the settings asks for it.
//!
//! It follows what that plugin does today. It walks the message itself, so names are those of protobuf's JSON, and what has
//! its default value is left out; but a time is its seconds and nanoseconds, and a 64-bit number is a number. What it can't
//! parse fails its check, and is a denial here.
//!
//! `body.rs` parses bodies, `multipart.rs` those of that kind, `grpc.rs` messages by a descriptor set,
//! `descriptors.rs` the set itself.

mod body;
mod descriptors;
mod grpc;
mod multipart;
#[cfg(test)]
mod tests;

pub use grpc::Descriptors;

use super::decode::{self, Malformed, refuse};
use super::messages;
use crate::limits::MAX_DEPTH;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use body::{Parsed, Sent};
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeMap;

/// `input` of one `CheckRequest`. Total, and bounded by the request's own bounds and those of bodies.
pub fn whole_request(bytes: &[u8], descriptors: Option<&Descriptors>) -> Result<Json, Malformed> {
    let attributes = decode::message(bytes)?.attributes.unwrap_or_default();
    let empty = messages::HttpRequest::default();
    let http = attributes.request.as_ref().and_then(|request| request.http.as_ref()).unwrap_or(&empty);
    let (parsed_path, parsed_query) = path_and_query(&http.path)?;
    let headers = headers(http);
    let sent = Sent { headers: &headers, body: &http.body, raw: &http.raw_body, path: &parsed_path };
    let (parsed_body, truncated) = match body::parse(&sent, descriptors).map_err(refuse)? {
        Parsed::Nothing => (Json::Null, false),
        Parsed::CutOff => (Json::Null, true),
        Parsed::Value(value) => (value, false),
    };
    let principal = attributes.source.as_ref().map(|source| source.principal.clone()).unwrap_or_default();
    let mut input = Fields::default();
    input.put("attributes", of_attributes(attributes, headers)?);
    input.put("parsed_path", json!(parsed_path));
    input.put("parsed_query", json!(parsed_query));
    input.put("parsed_body", parsed_body);
    input.put("truncated_body", Json::Bool(truncated));
    input.text("source_principal", principal);
    input.put("version", json!({"encoding": "protojson", "ext_authz": "v3"}));
    Ok(input.into_json())
}

/// An object that leaves out what has its default value.
#[derive(Default)]
struct Fields(Map<String, Json>);

impl Fields {
    fn put(&mut self, name: &str, value: Json) {
        self.0.insert(name.to_owned(), value);
    }

    fn text(&mut self, name: &str, value: String) {
        if !value.is_empty() {
            self.put(name, Json::String(value));
        }
    }

    fn number(&mut self, name: &str, value: impl Into<i64>) {
        let value = value.into();
        if value != 0 {
            self.put(name, value.into());
        }
    }

    fn bytes(&mut self, name: &str, value: &[u8]) {
        self.text(name, STANDARD.encode(value));
    }

    fn texts(&mut self, name: &str, map: BTreeMap<String, String>) {
        if !map.is_empty() {
            self.put(name, texts(map));
        }
    }

    fn into_json(self) -> Json {
        Json::Object(self.0)
    }
}

fn texts(map: BTreeMap<String, String>) -> Json {
    Json::Object(map.into_iter().map(|(name, value)| (name, Json::String(value))).collect())
}

fn of_attributes(attributes: messages::AttributeContext, headers: BTreeMap<String, String>) -> Result<Json, Malformed> {
    let mut fields = Fields::default();
    for (name, peer) in [("source", attributes.source), ("destination", attributes.destination)] {
        if let Some(peer) = peer {
            fields.put(name, of_peer(peer));
        }
    }
    if let Some(request) = attributes.request {
        fields.put("request", of_request(request, headers)?);
    }
    fields.texts("contextExtensions", attributes.context_extensions);
    let metadata =
        [("metadataContext", attributes.metadata_context), ("routeMetadataContext", attributes.route_metadata_context)];
    for (name, metadata) in metadata {
        if let Some(metadata) = metadata {
            fields.put(name, of_metadata(metadata)?);
        }
    }
    if let Some(session) = attributes.tls_session {
        let mut tls = Fields::default();
        tls.text("sni", session.sni);
        fields.put("tlsSession", tls.into_json());
    }
    Ok(fields.into_json())
}

fn of_peer(peer: messages::Peer) -> Json {
    let mut fields = Fields::default();
    if let Some(address) = peer.address {
        fields.put("address", of_address(address));
    }
    fields.text("service", peer.service);
    fields.texts("labels", peer.labels);
    fields.text("principal", peer.principal);
    fields.text("certificate", peer.certificate);
    fields.into_json()
}

fn of_address(address: messages::Address) -> Json {
    let mut fields = Fields::default();
    let name = match address.kind {
        None => return json!({}),
        Some(messages::AddressKind::Socket(socket)) => {
            fields.number("protocol", socket.protocol);
            fields.text("address", socket.address);
            // One of several: there even where it is 0.
            match socket.port {
                Some(messages::Port::Number(port)) => fields.put("portValue", port.into()),
                Some(messages::Port::Name(port)) => fields.put("namedPort", port.into()),
                None => {}
            }
            fields.text("resolverName", socket.resolver_name);
            if socket.ipv4_compat {
                fields.put("ipv4Compat", Json::Bool(true));
            }
            fields.text("networkNamespaceFilepath", socket.network_namespace_filepath);
            "socketAddress"
        }
        Some(messages::AddressKind::Pipe(pipe)) => {
            fields.text("path", pipe.path);
            fields.number("mode", pipe.mode);
            "pipe"
        }
        Some(messages::AddressKind::Internal(internal)) => {
            fields.put("serverListenerName", internal.server_listener_name.into());
            fields.text("endpointId", internal.endpoint_id);
            "envoyInternalAddress"
        }
    };
    let mut outer = Fields::default();
    outer.put(name, fields.into_json());
    outer.into_json()
}

fn of_request(request: messages::Request, headers: BTreeMap<String, String>) -> Result<Json, Malformed> {
    let mut fields = Fields::default();
    if let Some(time) = request.time {
        let mut parts = Fields::default();
        parts.number("seconds", time.seconds);
        parts.number("nanos", time.nanos);
        fields.put("time", parts.into_json());
    }
    if let Some(http) = request.http {
        fields.put("http", of_http(http, headers)?);
    }
    Ok(fields.into_json())
}

fn of_http(http: messages::HttpRequest, headers: BTreeMap<String, String>) -> Result<Json, Malformed> {
    let mut fields = Fields::default();
    fields.text("id", http.id);
    fields.text("method", http.method);
    fields.texts("headers", headers);
    fields.text("path", http.path);
    fields.text("host", http.host);
    fields.text("scheme", http.scheme);
    fields.text("query", http.query);
    fields.text("fragment", http.fragment);
    fields.number("size", http.size);
    fields.text("protocol", http.protocol);
    let body = String::from_utf8(http.body).map_err(|_| refuse("`body` is no UTF-8 text".to_owned()))?;
    fields.text("body", body);
    fields.bytes("rawBody", &http.raw_body);
    if let Some(map) = http.header_map {
        let mut outer = Fields::default();
        if !map.headers.is_empty() {
            outer.put("headers", map.headers.into_iter().map(of_header).collect());
        }
        fields.put("headerMap", outer.into_json());
    }
    Ok(fields.into_json())
}

fn of_header(header: messages::HeaderValue) -> Json {
    let mut fields = Fields::default();
    fields.text("key", header.key);
    fields.text("value", header.value);
    fields.bytes("rawValue", &header.raw_value);
    fields.into_json()
}

/// The headers by name, in whichever form they came; repeated ones are joined as Envoy joins them.
fn headers(http: &messages::HttpRequest) -> BTreeMap<String, String> {
    let mut headers: BTreeMap<String, String> =
        http.headers.iter().map(|entry| (entry.key.clone(), entry.value.clone())).collect();
    if !headers.is_empty() {
        return headers;
    }
    for header in http.header_map.iter().flat_map(|map| &map.headers) {
        let value = if header.raw_value.is_empty() {
            header.value.as_str().into()
        } else {
            String::from_utf8_lossy(&header.raw_value)
        };
        let name = header.key.to_ascii_lowercase();
        headers
            .entry(name)
            .and_modify(|known| {
                known.push(',');
                known.push_str(&value);
            })
            .or_insert_with(|| value.into_owned());
    }
    headers
}

fn of_metadata(metadata: messages::Metadata) -> Result<Json, Malformed> {
    let mut fields = Fields::default();
    if !metadata.filter_metadata.is_empty() {
        let entries = metadata.filter_metadata.into_iter();
        let entries = entries.map(|(name, entry)| Ok((name, decode::object(entry, MAX_DEPTH)?)));
        fields.put("filterMetadata", Json::Object(entries.collect::<Result<_, Malformed>>()?));
    }
    if !metadata.typed_filter_metadata.is_empty() {
        let entries = metadata.typed_filter_metadata.into_iter().map(|(name, any)| {
            let mut fields = Fields::default();
            fields.text("typeUrl", any.type_url);
            fields.bytes("value", &any.value);
            (name, fields.into_json())
        });
        fields.put("typedFilterMetadata", Json::Object(entries.collect()));
    }
    Ok(fields.into_json())
}

/// `parsed_path` and `parsed_query`.
fn path_and_query(path: &str) -> Result<(Vec<String>, body::Pairs), Malformed> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let path = body::unescaped(path, false).ok_or_else(|| refuse("`path` has a bad percent escape".to_owned()))?;
    let parts = path.trim_start_matches('/').split('/').map(str::to_owned).collect();
    Ok((parts, body::pairs(query).map_err(|why| refuse(format!("the query: {why}")))?))
}
