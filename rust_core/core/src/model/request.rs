//! What Envoy told us of one request, in our own owned types: protobuf stops in `wire/`.

use super::time::Timestamp;
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// One request as Envoy describes it (envoy.service.auth.v3.AttributeContext).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// Envoy's id of the request (`http.id`).
    pub id: String,
    /// When Envoy saw the first byte.
    pub time: Option<Timestamp>,
    /// HTTP method as sent.
    pub method: String,
    /// Path with query, as sent.
    pub path: String,
    /// `:authority` / `Host` as sent.
    pub host: String,
    /// `http` or `https`, as Envoy says.
    pub scheme: String,
    /// `HTTP/1.1`, `HTTP/2`…
    pub protocol: String,
    /// Size of the whole body in bytes; `None` where Envoy says -1 (unknown).
    pub size: Option<u64>,
    /// Headers, in whichever form came.
    pub headers: Headers,
    /// What of the body was forwarded.
    pub body: Body,
    /// `context_extensions` of the Envoy route.
    pub extensions: BTreeMap<String, String>,
    /// `metadata_context.filter_metadata`, by namespace.
    pub metadata: BTreeMap<String, Json>,
    /// `route_metadata_context.filter_metadata`, by namespace.
    pub route_metadata: BTreeMap<String, Json>,
    /// The caller's side of the connection.
    pub source: Peer,
    /// The guarded side.
    pub destination: Peer,
    /// Server name of the TLS session.
    pub sni: String,
}

/// One side of the connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// `address:port`, or a pipe's path.
    pub address: String,
    /// Authenticated identity, as Envoy writes it: URI SAN, else DNS SAN, else subject.
    pub principal: String,
    /// Service name, if Envoy knows it.
    pub service: String,
    /// Labels, if Envoy knows them.
    pub labels: BTreeMap<String, String>,
    /// URL-encoded PEM of the peer's certificate, where `include_peer_certificate` is on.
    pub certificate: String,
}

/// One header as it arrived. Names are lowercase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderEntry {
    /// Lowercase name.
    pub name: String,
    /// Value; bytes that are not UTF-8 became U+FFFD and are marked.
    pub value: String,
    /// False if the raw bytes were not UTF-8 (`header_map`), or carry Envoy's mark for that.
    pub is_utf8: bool,
}

/// All headers, sorted by name. `headers` gives each name once (Envoy joins repeated ones by `,`),
/// `header_map` gives each occurrence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<HeaderEntry>);

impl Headers {
    /// Sorts by name; the order of equal names stays.
    pub fn new(mut entries: Vec<HeaderEntry>) -> Self {
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Self(entries)
    }

    /// Every value of a header, by lowercase name.
    pub fn all(&self, name: &str) -> &[HeaderEntry] {
        let start = self.0.partition_point(|entry| entry.name.as_str() < name);
        let tail = self.0.get(start..).unwrap_or_default();
        let length = tail.partition_point(|entry| entry.name.as_str() == name);
        tail.get(..length).unwrap_or_default()
    }

    /// The value of a header that occurs exactly once.
    pub fn one(&self, name: &str) -> Option<&str> {
        match self.all(name) {
            [entry] => Some(&entry.value),
            _ => None,
        }
    }

    /// All entries, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = &HeaderEntry> {
        self.0.iter()
    }
}

/// What of the body was forwarded to us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Body {
    /// Nothing was forwarded.
    #[default]
    NotForwarded,
    /// These bytes; whole unless `truncated` (`x-envoy-auth-partial-body: true`, or fewer than announced).
    Forwarded {
        /// The bytes.
        bytes: Vec<u8>,
        /// Whether more was sent than forwarded.
        truncated: bool,
    },
}

impl Request {
    /// The full raw body as sent, or why it is not there as a whole. What was not forwarded is empty only if nothing can have
    /// been sent.
    pub fn whole_body(&self) -> Result<&[u8], &'static str> {
        match &self.body {
            Body::Forwarded { bytes, truncated: false } => Ok(bytes),
            Body::Forwarded { .. } => Err("the body was cut off"),
            Body::NotForwarded => match self.headers.all("content-length") {
                [] if matches!(self.method.as_str(), "GET" | "HEAD") => Ok(&[]),
                [one] if one.value == "0" => Ok(&[]),
                _ => Err("the body was not forwarded"),
            },
        }
    }
}
