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
    ///
    /// Envoy's mark of a part is not enough: with exactly its limit in hand it says that all is there, though more comes.
    pub fn whole_body(&self) -> Result<&[u8], &'static str> {
        let announced = match self.headers.all("content-length") {
            [] => None,
            [one] => Some(length(&one.value).ok_or("the length of the body is no number")?),
            _ => return Err("the length of the body is announced twice"),
        };
        match (&self.body, announced) {
            (Body::Forwarded { truncated: true, .. }, _) => Err("the body was cut off"),
            (Body::Forwarded { bytes, .. }, Some(length)) if length != bytes.len() as u64 => {
                Err("the body has another length than was announced")
            }
            (Body::Forwarded { bytes, .. }, _) => Ok(bytes),
            (Body::NotForwarded, Some(0)) => Ok(&[]),
            (Body::NotForwarded, None) if self.has_no_body() => Ok(&[]),
            (Body::NotForwarded, _) => Err("the body was not forwarded"),
        }
    }

    /// Whether a request that announces no length surely has no body. HTTP/2 and HTTP/3 send one without announcing it; with
    /// these methods it would mean nothing.
    fn has_no_body(&self) -> bool {
        if !self.headers.all("transfer-encoding").is_empty() {
            return false;
        }
        self.protocol.starts_with("HTTP/1") || matches!(self.method.as_str(), "GET" | "HEAD" | "OPTIONS")
    }
}

/// A length as HTTP writes it: digits alone.
fn length(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protocol, method, headers, what was forwarded, and the whole body.
    type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], Body, Option<&'a [u8]>);

    #[test]
    fn a_body_is_whole_only_if_nothing_can_be_missing() {
        let cut = |bytes: &[u8], truncated| Body::Forwarded { bytes: bytes.to_vec(), truncated };
        let cases: [Case<'_>; 20] = [
            ("HTTP/1.1", "POST", &[("content-length", "2")], cut(b"{}", false), Some(b"{}")),
            ("HTTP/2", "POST", &[], cut(b"{}", false), Some(b"{}")),
            ("HTTP/2", "POST", &[("x-envoy-auth-partial-body", "false")], cut(b"{}", false), Some(b"{}")),
            ("HTTP/1.1", "POST", &[("content-length", "2")], cut(b"{}", true), None),
            ("HTTP/1.1", "POST", &[("content-length", "3")], cut(b"{}", false), None),
            ("HTTP/1.1", "POST", &[("content-length", "1")], cut(b"{}", false), None),
            ("HTTP/1.1", "POST", &[("content-length", "2"), ("content-length", "2")], cut(b"{}", false), None),
            ("HTTP/1.1", "POST", &[("content-length", "2,2")], cut(b"{}", false), None),
            ("HTTP/1.1", "POST", &[("content-length", "+2")], cut(b"{}", false), None),
            ("HTTP/1.1", "POST", &[("content-length", "")], cut(b"{}", false), None),
            ("HTTP/1.1", "POST", &[("content-length", "99999999999999999999")], cut(b"{}", false), None),
            ("HTTP/1.1", "POST", &[("content-length", "0")], Body::NotForwarded, Some(b"")),
            ("HTTP/2", "POST", &[("content-length", "0")], Body::NotForwarded, Some(b"")),
            ("HTTP/1.1", "POST", &[("content-length", "7")], Body::NotForwarded, None),
            ("HTTP/1.1", "POST", &[], Body::NotForwarded, Some(b"")),
            ("HTTP/1.1", "POST", &[("transfer-encoding", "chunked")], Body::NotForwarded, None),
            ("HTTP/2", "POST", &[], Body::NotForwarded, None),
            ("HTTP/2", "GET", &[], Body::NotForwarded, Some(b"")),
            ("HTTP/3", "DELETE", &[], Body::NotForwarded, None),
            ("", "POST", &[], Body::NotForwarded, None),
        ];
        for (protocol, method, headers, body, whole) in cases {
            let said = format!("{protocol} {method} {headers:?} {body:?}");
            let header = |(name, value): &(&str, &str)| HeaderEntry {
                name: (*name).to_owned(),
                value: (*value).to_owned(),
                is_utf8: true,
            };
            let headers = Headers::new(headers.iter().map(header).collect());
            let request = Request {
                protocol: protocol.to_owned(),
                method: method.to_owned(),
                headers,
                body,
                ..Request::default()
            };
            assert_eq!(request.whole_body().ok(), whole, "{said}");
        }
    }
}
